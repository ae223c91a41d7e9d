"""Resuming: a job killed at any block goes on from there, with the same result to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dass.data.token_file import save_tokens
from dass.errors import DataError
from dass.models.streamed import StreamedModel
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned import Pruned
from dass.pruning.pruned_file import PrunedFile, save_pruned
from dass.pruning.resume import BlockCheckpoints
from dass.results.schema import PruningResult, read_result
from dass.runtime.files import sha256
from dass.stages.prune_run import prune_run
from dass.terms import Propagation

ABOUT = {"run": "tiny", "tokens": "abc"}


class Killed(BaseException):
    """Stands for whatever ends a job at once."""


def windows() -> torch.Tensor:
    return torch.randint(3, 100, (6, 24), generator=torch.Generator().manual_seed(0))


def prune_with(
    folder: Path, pieces: BlockCheckpoints | None, method: str, pattern: str = "2of4"
) -> Pruned:
    model = StreamedModel(folder, torch.float32)
    chosen = make_method(method, {}), parse_pattern(pattern)
    # Blocks that are taken over are run as they were: pruned, or, with Wanda, dense.
    propagation: Propagation = "dense" if method == "wanda" else "pruned"
    return prune(model, windows(), *chosen, pieces, propagation)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "dass", "sparsegpt", "alps", "wandapp"])
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_killed_and_resumed_is_never_killed(
    tiny_model, tmp_path: Path, monkeypatch, method: str, architecture: str, block: int
) -> None:
    folder = tiny_model(architecture)
    whole = prune_with(folder, None, method)
    save_pruned(tmp_path / "whole", whole.masks, whole.values, whole.shapes, ABOUT)

    save = BlockCheckpoints.save

    def save_and_die(self: BlockCheckpoints, index: int, *args, **kwargs) -> None:
        save(self, index, *args, **kwargs)
        if index == block:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(BlockCheckpoints, "save", save_and_die)
        prune_with(folder, BlockCheckpoints(tmp_path / "blocks", ABOUT), method)
    pieces = BlockCheckpoints(tmp_path / "blocks", ABOUT)
    assert pieces.done == block + 1
    resumed = prune_with(folder, pieces, method)
    digest = pieces.join(tmp_path / "resumed", 3, ABOUT)
    assert digest == sha256(tmp_path / "resumed")
    assert BlockCheckpoints(tmp_path / "blocks", ABOUT).done == 3  # until the result is there
    pieces.remove()
    assert not (tmp_path / "blocks").exists()
    assert resumed.sparsity == whole.sparsity
    assert resumed.shapes == whole.shapes
    ours, theirs = load_file(tmp_path / "resumed"), load_file(tmp_path / "whole")
    assert list(ours) and ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert PrunedFile(tmp_path / "resumed").hash() == PrunedFile(tmp_path / "whole").hash()
    assert PrunedFile(tmp_path / "resumed").settings == ABOUT


@pytest.mark.parametrize("other", [{"run": "other", "tokens": "abc"}, {"run": "tiny"}, {}])
def test_pieces_of_other_work_are_thrown_away(tiny_model, tmp_path: Path, other: dict) -> None:
    pieces = BlockCheckpoints(tmp_path / "blocks", ABOUT)
    prune_with(tiny_model("llama"), pieces, "wanda")
    assert BlockCheckpoints(tmp_path / "blocks", ABOUT).done == 3
    assert BlockCheckpoints(tmp_path / "blocks", other).done == 0
    assert not (tmp_path / "blocks").exists()


def test_a_missing_piece_is_named(tiny_model, tmp_path: Path) -> None:
    pieces = BlockCheckpoints(tmp_path / "blocks", ABOUT)
    prune_with(tiny_model("llama"), pieces, "wanda")
    pieces.path(1).unlink()
    assert BlockCheckpoints(tmp_path / "blocks", ABOUT).done == 1
    with pytest.raises(DataError, match=r"block-00001.*missing"):
        pieces.join(tmp_path / "out", 3, ABOUT)
    assert not (tmp_path / "out").exists()


JOB = """
import sys, time, dass.pruning.resume
from pathlib import Path
from dass.stages.prune_run import prune_run
save = dass.pruning.resume.BlockCheckpoints.save
def slow_save(self, *args, **kwargs):
    save(self, *args, **kwargs)
    time.sleep(1)
dass.pruning.resume.BlockCheckpoints.save = slow_save
folder, tokens, out = map(Path, sys.argv[1:])
prune_run(folder=folder, tokens=tokens, dtype="float32", bos="text", function="sparsegpt",
          run="m/c/sparsegpt/u50", arguments={}, propagation="pruned",
          pruned_file=out / "pruned.safetensors", result_file=out / "pruning.json")
"""


@pytest.mark.slow
def test_a_job_killed_by_signal_leaves_what_the_next_goes_on_with(
    tiny_model, tmp_path: Path
) -> None:
    folder = tiny_model("llama")
    save_tokens(tmp_path / "tokens", {"windows": windows()})
    command = [sys.executable, "-c", JOB, str(folder), str(tmp_path / "tokens")]
    job = subprocess.Popen(
        [*command, str(tmp_path / "killed")], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    second = tmp_path / "killed/.blocks/block-00001.safetensors"
    deadline = time.monotonic() + 120
    while not second.exists() and time.monotonic() < deadline and job.poll() is None:
        time.sleep(0.05)
    assert second.exists()
    job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed/pruned.safetensors").exists()

    run = "m/c/sparsegpt/u50"
    for name in ("killed", "whole"):
        out = tmp_path / name
        prune_run(
            folder=folder, tokens=tmp_path / "tokens", dtype="float32", bos="text",
            function="sparsegpt", run=run, arguments={}, propagation="pruned",
            pruned_file=out / "pruned.safetensors", result_file=out / "pruning.json",
        )  # fmt: skip
    resumed, whole = (
        read_result(tmp_path / name / "pruning.json", PruningResult) for name in ("killed", "whole")
    )
    assert "resuming" in resumed.seconds
    assert "resuming" not in whole.seconds
    assert resumed.mask_hash == whole.mask_hash
    ours, theirs = (load_file(tmp_path / n / "pruned.safetensors") for n in ("killed", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (tmp_path / "killed/.blocks").exists()
