"""Jobs that one process does, forked: as if Snakemake had done them."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.pages import comparing

from .conftest import ROOT, Workflow, copy_workflow, small_study

OF_A_RUN = "seconds memory date commit".split()
"""Parts of the names of columns that differ between two runs of the same study."""


def script(workflow: Workflow, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the workflow in its folder."""
    command = [sys.executable, f"workflow/scripts/{name}.py", *arguments]
    return subprocess.run(
        command, cwd=workflow.folder, capture_output=True, text=True, timeout=600, check=False
    )


def plan(workflow: Workflow, *arguments: str) -> None:
    done = script(workflow, "plan", "study.yaml", "jobs.json", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def run(workflow: Workflow, *arguments: str) -> subprocess.CompletedProcess[str]:
    return script(workflow, "run_plan", "jobs.json", "--workers", "2", *arguments)


@pytest.fixture(scope="module")
def planned_study(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The small study, done by run_plan.py and not yet recorded. Tests must not change it."""
    workflow = copy_workflow(tmp_path_factory.mktemp("plan") / "study")
    workflow.write_study(small_study())
    plan(workflow)
    done = run(workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("31 jobs done, 0 not; next: plan.py … jobs.json --record\n")
    return workflow


def times(workflow: Workflow) -> dict[str, float]:
    return {name: (workflow.folder / name).stat().st_mtime for name in workflow.results()}


def test_snakemake_then_finds_nothing_to_do(planned_study: Workflow, tmp_path: Path) -> None:
    study = planned_study.copied(tmp_path / "study")
    plan(study, "--record")
    finished = study.snakemake("--dry-run")
    assert "Nothing to be done" in finished.output
    assert "missing" not in finished.output  # nothing that Snakemake would have recorded
    assert study.snakemake("verify").code == 0


def test_results_are_those_of_snakemake(planned_study: Workflow, finished_study: Workflow) -> None:
    assert planned_study.results() == finished_study.results()
    ours, theirs = (
        list(csv.DictReader((one.folder / "results/small/summary.csv").open()))
        for one in (planned_study, finished_study)
    )
    compared = [c for c in theirs[0] if not any(part in c for part in OF_A_RUN)]
    assert {"mask_hash", "perplexity_validation", "mean_acc", "versions"} <= set(compared)
    for column in compared:
        assert [row[column] for row in ours] == [row[column] for row in theirs], column


@pytest.mark.parametrize("stage", ["pruning", "perplexity", "zero_shot"])
def test_results_say_the_same_of_how_they_came_to_be(
    stage: str, planned_study: Workflow, finished_study: Workflow
) -> None:
    file = f"results/small/runs/standin-llama/toy/dass/2of4/{stage}.json"
    ours, theirs = (
        json.loads((one.folder / file).read_text())["provenance"]
        for one in (planned_study, finished_study)
    )
    for key in theirs.keys() - {"date", "seconds", "peak_memory_bytes"}:
        if key != "pruned_file":  # its header holds the time at which its masks were made
            assert ours[key] == theirs[key], key


def test_a_changed_argument_makes_recorded_results_stale(
    planned_study: Workflow, tmp_path: Path
) -> None:
    study = planned_study.copied(tmp_path / "study")
    plan(study, "--record")
    changed = small_study()
    changed["methods"]["dass"]["alpha"] = 0.25
    study.write_study(changed)
    assert study.plan()["prune_run"] == 2


@pytest.mark.parametrize(
    ("block", "change", "says"),
    [
        ("methods", {"dass": {"function": "dass", "label": "DaSS", "alpha": 0.25}},
         r"dass/2of4/pruning.json: arguments is {'alpha': 0.5}, not {'alpha': 0.25} as the "),
        ("perplexity", {"splits": ["validation"]},
         r": splits is \['validation', 'test'\], not \['validation'\] as the "),
        ("zero_shot", {"metric": "acc_norm"},
         r": made with other params; delete it, or undo the change$"),
    ],
)  # fmt: skip
def test_what_was_made_with_other_params_is_not_recorded(
    block: str, change: dict, says: str, planned_study: Workflow, tmp_path: Path
) -> None:
    study = planned_study.copied(tmp_path / "study")
    changed = small_study()
    changed[block] |= change
    study.write_study(changed)
    done = script(study, "plan", "study.yaml", "jobs.json", "--record")
    assert done.returncode == 1
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("error: ")]
    assert re.search(says, line)


def test_what_was_done_since_the_plan_is_not_done_again(
    planned_study: Workflow, tmp_path: Path
) -> None:
    study = planned_study.copied(tmp_path / "study")
    before = times(study)
    (study.folder / "results/small/report.html").unlink()
    assert run(study).stdout.startswith("1 jobs done, 0 not")
    after = times(study)
    assert {Path(name).name for name in after if after[name] != before[name]} == {
        "report.html",
        "report.pdf",
        "report.tex",
    }


def test_what_depends_on_a_failed_job_is_not_done(study: Workflow) -> None:
    study.append("src/dass/pruning/methods/dass.py", "# changed")
    plan(study)
    before = times(study)
    tokens = study.folder / "results/small/calibration/standin-llama/toy.safetensors"
    kept = tokens.rename(tokens.with_suffix(".kept"))
    tokens.write_text("broken")
    done = run(study)
    kept.rename(tokens)
    assert done.returncode == 1
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    log = "logs/prune_run/small/standin-llama/toy/dass/2of4.log"
    assert failed == [f"failed: see {log}"]
    assert "error: " in (study.folder / log).read_text()
    made = {name for name, time in times(study).items() if time != before[name]}
    runs = "results/small/runs/standin-mistral/toy/dass/2of4"
    files = "pruned.safetensors pruning.json perplexity.json zero_shot.json".split()
    summaries = {f"results/small/summary/standin-mistral.{form}" for form in ("csv", "json")}
    assert made == summaries | {f"{runs}/{file}" for file in files}
    plan(study, "--record")  # of what was done
    jobs = study.plan()
    assert (jobs["prune_run"], jobs["perplexity"], jobs["zero_shot"]) == (1, 1, 1)


def test_only_jobs_of_some_rules(study: Workflow) -> None:
    study.append("src/dass/pruning/methods/dass.py", "# changed")
    plan(study)
    done = run(study, "--rules", "prune_run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 jobs done, 0 not")


def test_a_custom_method_beside_the_snakefile_is_found(study: Workflow) -> None:
    """As Snakemake's own jobs find it, without PYTHONPATH."""
    (study.folder / "mymethods.py").write_text(comparing()[0])
    settings = small_study()
    settings["methods"]["mine"] = {"function": "mymethods:Both"}
    settings["experiments"]["main"]["methods"].append("mine")
    study.write_study(settings)
    plan(study, "results/small/runs/standin-llama/toy/mine/2of4/pruning.json")
    done = run(study)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 jobs done, 0 not")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("plan", ["none.yaml", "jobs.json"], "none.yaml: .*No such file"),
        ("plan", ["src", "jobs.json"], "src: .*Is a directory"),
        ("plan", ["no.yaml", "jobs.json"], "no.yaml: Config file is not valid JSON or YAML"),
        ("plan", ["study.yaml", "jobs.json", "nosuch"], "study.yaml: No rule to produce nosuch"),
        ("plan", ["study.yaml", "none/jobs.json"], "none/jobs.json: .*No such file"),
        ("plan", ["study.yaml", "none.json", "--record"], "none.json: no plan "),
        ("run_plan", ["no.yaml"], "no.yaml: no plan .*plan.py writes one"),
        ("run_plan", ["jobs.json", "--workers", "0"], "run_plan.py: error: --workers must be at "),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_one_line(
    name: str, arguments: list[str], says: str, fresh: Workflow
) -> None:
    fresh.write_study(small_study())
    (fresh.folder / "no.yaml").write_text("{(")
    done = script(fresh, name, *arguments)
    assert done.returncode in (1, 2)
    assert re.search(rf"^(error: )?{says}[^\n]*\n\Z", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_fetched(tmp_path: Path, fresh: Workflow) -> None:
    jobs = [{"rule": "fetch_model", "output": {"out": "resources/models/a"}, "needed": True}]
    (fresh.folder / "jobs.json").write_text(json.dumps(jobs))
    done = run(fresh)
    assert done.returncode == 1
    assert done.stderr == (
        "error: the plan has fetch_model; run snakemake --cores 1 fetch, and plan again\n"
    )


@pytest.mark.parametrize(("cards", "expected"), [(["4", "7"], {"4": 3, "7": 3}), ([], {"-": 6})])
def test_jobs_are_shared_out_among_the_cards(
    cards: list[str], expected: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six jobs at once, three to each of two; each process is told of its card alone."""
    monkeypatch.syspath_prepend(str(ROOT / "workflow/scripts"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    import run_plan

    monkeypatch.setattr(
        run_plan.runpy,
        "run_path",
        lambda _, env: Path(env["snakemake"].output[0]).write_text(
            os.environ.get("CUDA_VISIBLE_DEVICES", "-")
        ),
    )
    jobs = [
        {"threads": 1, "config": "", "params": {}, "input": {}, "log": [], "mem_mb": 1,
         "output": {"one": str(tmp_path / f"{number}")}}
        for number in range(6)
    ]  # fmt: skip
    assert run_plan.run(jobs, 6, cards) == 0
    assert Counter(file.read_text() for file in tmp_path.iterdir()) == expected
