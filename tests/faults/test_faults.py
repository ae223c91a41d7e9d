"""Jobs and Snakemake itself end in the middle, disks are full, files are damaged, clocks jump.

After each fault the next call of the same kind goes on, in the same folder; in the end all values
and tables are those of a run that nothing disturbed, and `snakemake verify` finds nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

from .harness import CORPUS, MODEL, OUTPUTS, RUN, STAGES, Fault, R, Sick, points

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")


def comes_out_right(sick: Sick, undisturbed: Sick) -> None:
    sick.completes("all", "exports")
    sick.completes("verify")
    assert sick.values() == undisturbed.values()
    assert sick.leftovers() == []


def test_jobs_that_are_killed(fresh: Sick, undisturbed: Sick) -> None:
    """Each job at each file: in the middle of it, before it gets its name, by each signal."""
    ends = cycle(SIGNALS)
    for target, file, event in points():
        first = file == (OUTPUTS[target] or [target])[0]
        for do in (["cut 100"] if event == "write" and first else []) + [f"job {next(ends)}"]:
            fault = Fault("job ended", target, file, event, do)
            if ".blocks" in file:  # written in the background: an earlier end may have left it
                (fresh.folder / file).unlink(missing_ok=True)
            before = fresh.leftovers()
            finished = fresh.suffers(fault)
            assert not (fresh.folder / file).is_file() or ".blocks" in file, fault
            if do in ("job SIGTERM", "job SIGINT"):
                assert "ended from outside" in finished.output, finished.output
                more = set(fresh.leftovers()) - set(before)
                assert not [file for file in more if file.endswith(".part")], fault
            fresh.counted(fault.kind, target)
    comes_out_right(fresh, undisturbed)


def test_jobs_that_are_killed_take_nothing_along(finished: Sick, undisturbed: Sick) -> None:
    """Their earlier results are gone, and what was made from those is there: all is made again.

    From the end of the pipeline, so that what each job reads is there.
    """
    ends = cycle(SIGNALS)
    for target, file, event in reversed(list(points(["rename"], files_each=1))):
        if target in (CORPUS, MODEL):  # from which nothing else would come out
            continue
        fault = Fault("job ended", target, file, event, f"job {next(ends)}")
        finished.suffers(fault, target, "--forcerun", STAGES[target])
        assert not (finished.folder / target).exists()
        planned = finished.completes("all", "exports", "--dry-run")
        assert STAGES[target] in planned.jobs, planned.output
        finished.counted(fault.kind, target)
    comes_out_right(finished, undisturbed)


@pytest.mark.parametrize("whom", ["main", "all"])
def test_snakemake_is_killed(fresh: Sick, undisturbed: Sick, whom: str) -> None:
    """With its jobs, as a node that goes down; or alone, and they go on beside the next call."""
    ends = cycle(SIGNALS)
    for target, file, event in points(["write"] if whom == "main" else ["rename"], files_each=1):
        end = next(ends)
        fault = Fault("snakemake ended", target, file, event, f"{whom} {end}")
        fresh.suffers(fault, "all", "exports", "--forcerun", STAGES[target])
        if end == "SIGKILL":
            assert "--unlock" in fresh.call(target).output
            fresh.completes("--unlock")
        fresh.counted(fault.kind, target)
    comes_out_right(fresh, undisturbed)


def test_the_disk_is_full(fresh: Sick, undisturbed: Sick) -> None:
    """At once, or after some bytes: one line says so, and nothing is left of the file."""
    for target, file, event in points(["write"]):
        first = file == (OUTPUTS[target] or [target])[0]
        for do in ("error ENOSPC", "full 50") if first else ("full 50",):
            fault = Fault("disk full", target, file, event, do)
            if ".blocks" in file:
                (fresh.folder / file).unlink(missing_ok=True)
            finished = fresh.suffers(fault)
            assert "error: no space left to write to" in finished.output, finished.output
            assert "Traceback" not in finished.output, finished.output
            assert not (fresh.folder / file).is_file(), fault
            assert not [f for f in fresh.leftovers() if f.endswith(".part")], fault
            fresh.counted(fault.kind, target)
    comes_out_right(fresh, undisturbed)


READERS = [
    (f"{CORPUS}/documents.jsonl.gz", "calibration_tokens"),
    (f"{CORPUS}/wikitext/validation.jsonl", "evaluation_tokens"),
    (f"{MODEL}/tokenizer.json", "calibration_tokens"),
    (f"{CORPUS}/piqa/validation.jsonl", "zero_shot_requests"),
    (f"{MODEL}/tokenizer.json", "zero_shot_requests"),
    (f"{MODEL}/config.json", "prune_run"),
    (f"{MODEL}/model.safetensors", "prune_run"),
    (f"{R}/calibration/standin-llama/toy.safetensors", "prune_run"),
    (f"{R}/evaluation/standin-llama/toy-text.safetensors", "perplexity"),
    (f"{RUN}/pruned.safetensors", "perplexity"),
    (f"{R}/requests/standin-llama.safetensors", "zero_shot"),
    (f"{RUN}/pruned.safetensors", "zero_shot"),
    (f"{RUN}/pruning.json", "summary_of_model"),
    (f"{RUN}/perplexity.json", "summary_of_model"),
    (f"{RUN}/zero_shot.json", "summary_of_model"),
    (f"{R}/summary/standin-llama.json", "summary"),
    (f"{R}/summary.json", "experiment_tables"),
    (f"{R}/summary.json", "experiment_figures"),
    (f"{R}/summary.json", "report"),
    (f"{RUN}/pruned.safetensors", "export"),
]
"""A file, and a stage that reads it."""


def cut_off(path: Path) -> None:
    """Leave the beginning of a file, and its times."""
    times = path.stat()
    with path.open("r+b") as file:
        file.truncate(min(times.st_size // 2, 150))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def unreadable(path: Path) -> None:
    """Let reading fail as on a broken disk: the first bytes of a process's memory give EIO."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("damage", [cut_off, unreadable], ids=["cut off", "unreadable"])
def test_files_that_are_damaged(
    finished: Sick, undisturbed: Sick, damage: Callable[[Path], None]
) -> None:
    """The stage that reads the file names it; then what the line says is done, and it goes on."""
    kind = {cut_off: "file cut off", unreadable: "read error"}[damage]
    for name, stage in READERS:
        target = next(one for one in OUTPUTS if STAGES[one] == stage)
        finished.completes(target)
        file, kept = finished.folder / name, finished.folder / "kept"
        shutil.copy2(file, kept)
        damage(file)
        done = finished.call(target, "--forcerun", stage)
        assert done.code != 0, f"{stage} reads {name}: no error\n{done.output}"
        lines = [line for line in done.output.splitlines() if "error: " in line]
        assert lines and all(Path(name).name in line for line in lines), done.output
        assert "Traceback" not in done.output, done.output
        file.unlink()
        again = [name] if re.search("delete it|prune again", lines[0]) else []
        if not again:
            shutil.copy2(kept, file)  # fetched again, as the line says
        finished.goes_on(*again, target)
        finished.counted(kind, target)
    comes_out_right(finished, undisturbed)


@pytest.mark.parametrize("name", ["about.json", "block-00000.safetensors", "block-00000.json"])
def test_a_damaged_checkpoint_is_pruned_again(finished: Sick, undisturbed: Sick, name: str) -> None:
    target = f"{RUN}/pruning.json"
    fault = Fault("file cut off", target, f"{RUN}/pruned.safetensors", "rename", "job SIGKILL")
    finished.suffers(fault, target, "--forcerun", "prune_run")
    cut_off(finished.folder / RUN / ".blocks" / name)
    finished.completes(target)
    comes_out_right(finished, undisturbed)
    finished.counted(fault.kind, target)


def test_times_that_are_wrong(finished: Sick, undisturbed: Sick) -> None:
    """Files of 1980 and of 2099, as an unset clock or a careless copy leaves them.

    Snakemake refuses to take what it makes from a file of the future, and names that file.
    """
    years = cycle((315_532_800, 4_070_908_800))
    for target in OUTPUTS:
        output = finished.folder / target
        times = {path: path.stat() for path in (output, *output.rglob("*"))}
        seconds = next(years)
        for path in times:  # of a folder, Snakemake looks at a file that it keeps inside
            os.utime(path, (seconds, seconds))
        done = finished.call("all", "exports")
        refused = f"than input {target} (2099" in done.output
        assert done.code == 0 or refused, done.output
        for path in times:
            if path.exists():
                os.utime(path, ns=(times[path].st_atime_ns, times[path].st_mtime_ns))
        finished.completes("all", "exports")
        finished.counted("wrong time", target)
    comes_out_right(finished, undisturbed)


def test_a_clock_that_jumps(finished: Sick, undisturbed: Sick) -> None:
    jumps = cycle((3600, -3600, 10**8, -(10**8)))
    for target in list(OUTPUTS)[2:]:
        (finished.folder / "fired").unlink(missing_ok=True)
        done = finished.call(target, "--forcerun", STAGES[target], clock=next(jumps))
        assert done.code == 0, done.output
        assert (finished.folder / "fired").exists(), f"{target}: nobody asked for the time twice"
        finished.counted("clock jumps", target)
    comes_out_right(finished, undisturbed)


def test_two_calls_at_once(fresh: Sick, undisturbed: Sick) -> None:
    """The second is refused, whatever it asks for, and the first is not disturbed."""
    locks = fresh.folder / ".snakemake/locks"
    for target in (CORPUS, MODEL, f"{RUN}/pruning.json", f"{RUN}/perplexity.json"):
        file = (OUTPUTS[target] or [target])[0]
        first = fresh.started(target, fault=Fault("", target, file, "write", "pause 15"))
        while not (locks.exists() and any(locks.iterdir())):
            assert first.poll() is None
            time.sleep(0.05)
        second = fresh.call("all")
        output, _ = first.communicate(timeout=300)
        assert (first.returncode, second.code != 0) == (0, True), output + second.output
        assert "cannot be locked" in second.output, second.output
        fresh.counted("two calls at once", target)
    comes_out_right(fresh, undisturbed)


def test_two_clones_with_the_same_results(fresh: Sick, undisturbed: Sick, tmp_path: Path) -> None:
    """They do not see each other's lock: a call may miss a file that the other makes again.

    It says so in one line; either's files are whole, and the next call completes.
    """
    (fresh.folder / "results").mkdir()
    shutil.copytree(undisturbed.folder / "resources", fresh.folder / "resources")
    other = Sick(type(fresh.workflow)(tmp_path / "other"))
    shutil.copytree(fresh.folder, other.folder, symlinks=True)
    (other.folder / "results").rmdir()
    (other.folder / "results").symlink_to(fresh.folder / "results")
    calls = [(sick, sick.started("all", "exports")) for sick in (fresh, other)]
    for _, process in calls:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0 or "error: " in output, output
        assert "Traceback" not in output, output
    for sick, _ in calls:
        sick.completes("all", "exports")
    comes_out_right(fresh, undisturbed)
