"""A job killed anywhere is done again to the bit, and blocks of other work are never joined."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from dass.errors import DataError
from dass.pruning.pruned_file import PrunedFile
from dass.pruning.resume import BlockCheckpoints
from dass.results.schema import PruningResult
from dass.runtime.files import sha256
from tests.unit.stages.pipeline import Pipeline
from tests.unit.stages.test_records import deterministic, own_method

__all__ = ["own_method"]


class Killed(BaseException):
    """Stands for whatever ends a job at once."""


def kill_after(block: int, pipeline: Pipeline, out: Path, *args: Any, **kwargs: Any) -> None:
    """Let a job end once a block's checkpoint is written."""
    save = BlockCheckpoints.save

    def save_and_die(self: BlockCheckpoints, index: int, *rest: Any) -> None:
        save(self, index, *rest)
        if index == block:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(BlockCheckpoints, "save", save_and_die)
        pipeline.prune(out, *args, **kwargs)


def resumed(result: PruningResult) -> bool:
    return "resuming" in result.seconds


def content(out: Path) -> dict[str, Any]:
    """A run's tensors and what its result says, without times."""
    tensors = {n: t.tolist() for n, t in load_file(out / "pruned.safetensors").items()}
    return tensors | deterministic(json.loads((out / "pruning.json").read_text()))


def test_the_same_work_goes_on(pipeline: Pipeline, tmp_path: Path) -> None:
    kill_after(1, pipeline, tmp_path / "killed", "sparsegpt")
    assert resumed(pipeline.prune(tmp_path / "killed", "sparsegpt"))
    assert not resumed(pipeline.prune(tmp_path / "whole", "sparsegpt"))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    files = [tmp_path / name / "pruned.safetensors" for name in ("killed", "whole")]
    assert sha256(files[0]) == sha256(files[1])
    assert {p.name for p in (tmp_path / "killed").iterdir()} == {
        "pruned.safetensors",
        "pruning.json",
    }


# --- Each part of what tells work apart -------------------------------------------------------


def other_seed(pipeline: Pipeline, **_: Any) -> dict[str, Any]:
    return {"tokens": pipeline.calibrate(seed=1)}


def other_arguments(**_: Any) -> dict[str, Any]:
    return {"arguments": {"alpha": 0.25}}


def other_method(**_: Any) -> dict[str, Any]:
    return {"function": "magnitude"}


def other_pattern(**_: Any) -> dict[str, Any]:
    return {"run": "m/c/method/1of4"}


def other_dtype(**_: Any) -> dict[str, Any]:
    return {"dtype": "bfloat16"}


def other_bos(pipeline: Pipeline, **_: Any) -> dict[str, Any]:
    pipeline.bos = "window"
    return {}


def other_weights(pipeline: Pipeline, **_: Any) -> dict[str, Any]:
    """In place, of the same size and date, as a copy that keeps dates would be."""
    file = pipeline.folder / "model.safetensors"
    before = file.stat()
    tensors = load_file(file)
    tensors["model.layers.0.mlp.up_proj.weight"] *= -1
    from safetensors.torch import save_file

    save_file(tensors, file, {"format": "pt"})
    assert file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return {}


def weights_of_another_date(pipeline: Pipeline, **_: Any) -> dict[str, Any]:
    """Of a large file only pieces are hashed: its date tells the rest."""
    os.utime(pipeline.folder / "model.safetensors", (1, 1))
    return {}


def other_config(pipeline: Pipeline, **_: Any) -> dict[str, Any]:
    path = pipeline.folder / "config.json"
    config = json.loads(path.read_text())
    config["rms_norm_eps"] = 0.1
    path.write_text(json.dumps(config))
    return {}


def other_versions(patch: pytest.MonkeyPatch, **_: Any) -> dict[str, Any]:
    patch.setattr(sys.modules["dass.stages.prune_run"], "versions", lambda _: {"torch": "0.4"})
    return {}


def other_device(patch: pytest.MonkeyPatch, **_: Any) -> dict[str, Any]:
    patch.setattr(sys.modules["dass.stages.prune_run"], "device_name", lambda: "H100")
    return {}


def other_threads(patch: pytest.MonkeyPatch, **_: Any) -> dict[str, Any]:
    """On a CPU, where they move the last bits of SparseGPT's updates."""
    patch.setattr("torch.get_num_threads", lambda: 7)
    return {}


def other_code(patch: pytest.MonkeyPatch, tmp_path: Path, **_: Any) -> dict[str, Any]:
    """A module of the library that decides about masks."""
    module = sys.modules["dass.stages.prune_run"]
    files = module.module_files("stages.prune_run")
    (masks,) = [file for file in files if file.endswith("pruning/masks.py")]
    changed = tmp_path / "masks.py"
    changed.write_text(Path(masks).read_text() + "\n")
    others = [str(changed), *(file for file in files if file != masks)]
    patch.setattr(module, "module_files", lambda _: others)
    return {}


OTHERS: list[Callable[..., dict[str, Any]]] = [
    other_seed, other_arguments, other_method, other_pattern, other_dtype, other_bos,
    other_weights, weights_of_another_date, other_config, other_versions, other_device,
    other_threads, other_code,
]  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_blocks_of_other_work_are_not_joined(
    other: Callable[..., dict[str, Any]],
    pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kill_after(1, pipeline, tmp_path / "run")
    changed = other(pipeline=pipeline, patch=monkeypatch, tmp_path=tmp_path)
    assert not resumed(pipeline.prune(tmp_path / "run", **changed))
    pipeline.prune(tmp_path / "fresh", **changed)
    assert content(tmp_path / "run") == content(tmp_path / "fresh")


def test_blocks_of_another_version_of_a_custom_method_are_not_joined(
    pipeline: Pipeline, own_method: Path, tmp_path: Path
) -> None:
    kill_after(1, pipeline, tmp_path / "run", "own_method:Own")
    own_method.write_text(own_method.read_text() + "\n# another version\n")
    assert not resumed(pipeline.prune(tmp_path / "run", "own_method:Own"))


def test_other_blocks_that_cannot_be_removed_are_not_taken(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_after(1, pipeline, tmp_path / "run")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr("shutil.rmtree", refuse)
        pipeline.prune(tmp_path / "run", arguments={"alpha": 0.25})
    assert not (tmp_path / "run/pruned.safetensors").exists()


# --- Damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["block-00000.safetensors", "block-00001.safetensors"])
@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_damaged_block_is_pruned_again(
    pipeline: Pipeline, tmp_path: Path, file: str, place: int
) -> None:
    kill_after(1, pipeline, tmp_path / "run", "sparsegpt")
    path = tmp_path / "run/.blocks" / file
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    result = pipeline.prune(tmp_path / "run", "sparsegpt")
    assert resumed(result) == (file == "block-00001.safetensors")
    pipeline.prune(tmp_path / "whole", "sparsegpt")
    assert content(tmp_path / "run") == content(tmp_path / "whole")


@pytest.mark.parametrize("name", ["about.json", "block-00000.json", "block-00000.safetensors"])
@pytest.mark.parametrize("content_", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_whatever_a_disk_makes_of_a_checkpoint_is_no_error(
    pipeline: Pipeline, tmp_path: Path, name: str, content_: bytes
) -> None:
    kill_after(0, pipeline, tmp_path / "run")
    (tmp_path / "run/.blocks" / name).write_bytes(content_)
    assert not resumed(pipeline.prune(tmp_path / "run"))


# --- Killed between any two writes ------------------------------------------------------------


def die_at(number: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that is killed before its n-th rename or removal of a file.

    Returns:
        whether it was killed; not where the work was done before.
    """
    child = os.fork()
    if child == 0:
        count = 0
        for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "unlink"), (os, "rmdir")):
            done = getattr(owner, name)

            def counted(*args: Any, done: Any = done, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done(*args, **kwargs)

            setattr(owner, name, counted)
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(9)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def deaths(work: Callable[[], object]) -> int:
    """Do some work again and again, killed one step later each time, until it gets through."""
    number = 1
    while die_at(number, work):
        number += 1
    return number - 1


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_pruning_killed_between_any_two_writes(pipeline: Pipeline, tmp_path: Path) -> None:
    """Each time a new job, which goes on where the last one stopped, or starts over."""
    tokens = pipeline.calibrate()
    pipeline.prune(tmp_path / "whole", "sparsegpt", tokens)
    for number in range(1, 99):
        out = tmp_path / str(number)
        killed = die_at(number, lambda out=out: pipeline.prune(out, "sparsegpt", tokens))
        there = out.exists() and {path.name for path in out.iterdir() if path.suffix == ".json"}
        if there:
            assert (out / "pruned.safetensors").exists()
            assert sha256(out / "pruned.safetensors") == sha256(
                tmp_path / "whole/pruned.safetensors"
            )
        pipeline.prune(out, "sparsegpt", tokens)
        assert content(out) == content(tmp_path / "whole")
        assert listed(out) == {"pruned.safetensors", "pruning.json"}
        if not killed:
            break
    assert 15 < number < 98


def test_nothing_is_lost_between_the_pruned_file_and_its_result(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflow removes a pruned file without its result, as the output of a failed job."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(sys.modules["dass.stages.prune_run"], "write_result", full)
        pipeline.prune(tmp_path / "run", "sparsegpt")
    (tmp_path / "run/pruned.safetensors").unlink()
    result = pipeline.prune(tmp_path / "run", "sparsegpt")
    assert resumed(result) and not {"masks", "statistics"} & result.seconds.keys()
    pipeline.prune(tmp_path / "whole", "sparsegpt")
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_no_result_of_an_earlier_pruned_file_stands_beside_a_new_one(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.prune(tmp_path / "run")

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sys.modules["dass.stages.prune_run"], "write_result", die)
        pipeline.prune(tmp_path / "run", arguments={"alpha": 0.0})
    assert not (tmp_path / "run/pruning.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["calibrate", "tokenise", "perplexity", "zero_shot", "export"])
def test_other_stages_killed_between_any_two_writes(
    pipeline: Pipeline, tmp_path: Path, stage: str
) -> None:
    """They write one file or folder: it is whole or absent, and the next job leaves no rest."""
    of_a_run = {"export": (tmp_path / "run",)}.get(stage, ())
    pipeline.prune(tmp_path / "run")
    if stage == "zero_shot":
        pipeline.zero_shot(tmp_path / "run", limit=1)  # imports what takes each process seconds
    before = listed(tmp_path)
    assert deaths(lambda: getattr(pipeline, stage)(*of_a_run)) >= 3
    killed = listed(tmp_path)
    first = {path: (tmp_path / path).read_bytes() for path in killed - before}
    getattr(pipeline, stage)(*of_a_run)
    assert listed(tmp_path) == killed
    assert killed != before or stage == "calibrate"  # done before, for pruning
    for path, bytes_ in first.items():
        again = (tmp_path / path).read_bytes()
        if path.endswith(".json") and b'"date"' in bytes_:
            assert deterministic(json.loads(again)) == deterministic(json.loads(bytes_))
        else:
            assert again == bytes_


def test_a_checkpoint_of_an_older_format_is_pruned_again(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """Without hashes beside the blocks."""
    kill_after(1, pipeline, tmp_path / "run")
    for file in (tmp_path / "run/.blocks").glob("block-*.json"):
        file.unlink()
    assert not resumed(pipeline.prune(tmp_path / "run"))
    with pytest.raises(DataError, match="no such pruned file"):
        PrunedFile(tmp_path / "run/.blocks/block-00000.safetensors")
