"""Prune one model by one method to one pattern."""

import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from dass.data.token_file import load_windows, token_hash, tokens_about
from dass.models.streamed import StreamedModel
from dass.pruning.methods import classes_of, make_method
from dass.pruning.patterns import Pattern, block_pattern, parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned import Pruned
from dass.pruning.pruned_file import PrunedFile
from dass.pruning.resume import BlockCheckpoints
from dass.results.schema import (
    KeptShare,
    PeakMemory,
    PruningResult,
    RatiosResult,
    Run,
    read_result,
    write_result,
)
from dass.runtime.files import alone
from dass.runtime.job import device
from dass.runtime.provenance import (
    PACKAGES,
    device_name,
    model_source,
    origin,
    peak_memory,
    provenance,
    versions,
)
from dass.runtime.source_files import class_files, code_hash, module_files
from dass.terms import Bos, Dtype, Propagation, Targets

PROVENANCE = ("model", "calibration", "method", "code", "given")
"""What a result says of what it was made of, beside its settings."""


def prune_run(
    *,
    run: str,
    folder: str | Path,
    tokens: str | Path,
    dtype: Dtype,
    bos: Bos,
    function: str,
    arguments: dict[str, Any],
    propagation: Propagation,
    pruned_file: str | Path,
    result_file: str | Path,
    ratios: str | Path | None = None,
    targets: Targets = "mlp",
    permute: bool = False,
) -> None:
    """Prune one model by one method to one pattern; goes on where a killed job stopped.

    Args:
        run: model/calibration/method/pattern: what to call it, and the pattern to prune to.
        folder: of the dense model.
        tokens: the calibration's windows, as the stage ``calibration_tokens`` saved them.
        dtype: to load and run the model in.
        bos: which BOS rule the windows were drawn with, for the record.
        function, arguments: the method, built-in or ``package.module:Class``, and its arguments.
        propagation: whose outputs reach the next block, see :func:`dass.pruning.prune.prune`.
        pruned_file, result_file: what to write.
        ratios: how far each block is pruned, as the stage ``ratios`` saved it; None: all alike.
        targets: what is pruned: gated MLPs, the linear layers of self attention, or both.
        permute: whether neurons are permuted before N:M grouping.
    """
    started = time.monotonic()
    name = Run.parse(run)
    assert name.pattern is not None
    method, pattern = make_method(function, arguments), parse_pattern(name.pattern)
    model = StreamedModel(folder, getattr(torch, dtype), device())
    windows = load_windows(tokens, "windows", model.vocabulary)
    settings: dict[str, Any] = {
        "function": function, "arguments": arguments, "dtype": dtype, "bos": bos,
        "propagation": propagation, "targets": targets, "permute": permute,
    }  # fmt: skip
    patterns: Pattern | list[Pattern] = pattern
    if ratios:
        settings["ratios"] = shares = read_result(ratios, RatiosResult).block_ratios
        patterns = [block_pattern(own, pattern, f"block {n}") for n, own in enumerate(shares)]
    about = settings | _made_of(run, model, tokens, classes_of(function, arguments))
    if check := getattr(method, "check_model", None):  # of masks that were made elsewhere
        about["given"] = check(model, about["model"])
    with alone(Path(pruned_file).parent):
        checkpoints = BlockCheckpoints(
            Path(pruned_file).with_name(".blocks"), about | _made_with(model)
        )
        pruned = prune(model, windows, method, patterns, checkpoints, propagation, targets, permute)
        Path(result_file).unlink(missing_ok=True)  # of an earlier pruned file
        written = checkpoints.join(pruned_file, model.n_blocks, about)
        text = about["calibration"].get("origin")
        result = PruningResult(
            run=name,
            settings=settings,
            calibration_hash=token_hash(windows),
            mask_hash=PrunedFile(pruned_file).hash(),
            sparsity=pruned.sparsity,
            mean_sparsity=pruned.mean_sparsity,
            expert_tokens=pruned.expert_tokens,
            kept_shares=_kept_shares(pruned),
            seconds=pruned.seconds,
            block_seconds=pruned.block_seconds,
            peak_memory_bytes=PeakMemory.model_validate(peak_memory()),
            tokens=windows.numel(),
            provenance=provenance(started, {"model": origin(folder), "calibration": text})
            | {key: about[key] for key in PROVENANCE if key in about}
            | {"pruned_file": written},
        )
        write_result(result_file, result)
        checkpoints.remove()


def _kept_shares(pruned: Pruned) -> dict[str, KeptShare]:
    """What permuting neurons changed in each role, on average over gated MLPs."""
    found = pruned.kept_shares.values()
    roles = dict.fromkeys(role for one in found for role in one)
    pairs = {role: zip(*(one[role] for one in found), strict=True) for role in roles}
    means = {role: [fmean(shares) for shares in pair] for role, pair in pairs.items()}
    return {role: KeptShare(natural=own, permuted=new) for role, (own, new) in means.items()}


def _made_of(
    run: str, model: StreamedModel, tokens: str | Path, classes: list[type]
) -> dict[str, Any]:
    """What a pruned file is made of, beside its settings; the same on every machine."""
    method = class_files(*classes)
    return {
        "run": run,
        "model": model_source(model.folder, model.weights.files),
        "calibration": tokens_about(tokens),
        "method": code_hash(method),
        "code": code_hash({*module_files("stages.prune_run"), *method}),
    }


def _made_with(model: StreamedModel) -> dict[str, Any]:
    """What may change a bit of it all the same: blocks of two such jobs are never joined."""
    files = [(path, path.stat()) for path in model.weights.files]
    return {
        "files": [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in files],
        "versions": versions(PACKAGES),
        "device": device_name(),
        "threads": torch.get_num_threads() if device() == "cpu" else None,
    }
