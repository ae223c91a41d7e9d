"""Prune one model by one method to one pattern."""

import hashlib
import time
from pathlib import Path
from typing import Any

import torch

from dass.data.token_file import load_tokens, token_hash, tokens_source
from dass.models.streamed import StreamedModel
from dass.pruning.methods import find_class, make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import PrunedFile
from dass.pruning.resume import BlockCheckpoints
from dass.results.schema import PeakMemory, PruningResult, Run, write_result
from dass.runtime.files import sha256
from dass.runtime.job import device
from dass.runtime.provenance import origin, peak_memory, provenance
from dass.runtime.source_files import class_files, module_files
from dass.terms import Bos, Dtype


def prune_run(
    *,
    run: str,
    folder: str | Path,
    tokens: str | Path,
    dtype: Dtype,
    bos: Bos,
    function: str,
    arguments: dict[str, Any],
    pruned_file: str | Path,
    result_file: str | Path,
) -> None:
    """Prune one model by one method to one pattern; goes on where a killed job stopped.

    Args:
        run: model/calibration/method/pattern: what to call it, and the pattern to prune to.
        folder: of the dense model.
        tokens: the calibration's windows, as the stage ``calibration_tokens`` saved them.
        dtype: to load and run the model in.
        bos: which BOS rule the windows were drawn with, for the record.
        function, arguments: the method, built-in or ``package.module:Class``, and its arguments.
        pruned_file, result_file: what to write.
    """
    started = time.monotonic()
    name = Run.parse(run)
    assert name.pattern is not None
    method, pattern = make_method(function, arguments), parse_pattern(name.pattern)
    windows = load_tokens(tokens)["windows"]
    model = StreamedModel(folder, getattr(torch, dtype), device())
    settings = {"function": function, "arguments": arguments, "dtype": dtype, "bos": bos}
    about = settings | {"run": run}
    checkpoints = BlockCheckpoints(
        Path(pruned_file).with_name(".blocks"),
        about
        | {
            "tokens": token_hash(windows),
            "weights": [
                [p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in model.weights.files
            ],
            "code": _hash_of_code(function),
        },
    )
    pruned = prune(model, windows, method, pattern, checkpoints)
    checkpoints.join(pruned_file, model.n_blocks, about)
    result = PruningResult(
        run=name,
        settings=settings,
        calibration_hash=token_hash(windows),
        mask_hash=PrunedFile(pruned_file).hash(),
        sparsity=pruned.sparsity,
        mean_sparsity=pruned.mean_sparsity,
        seconds=pruned.seconds,
        block_seconds=pruned.block_seconds,
        peak_memory_bytes=PeakMemory.model_validate(peak_memory()),
        tokens=windows.numel(),
        provenance=provenance(
            started, {"model": origin(folder), "calibration": tokens_source(tokens)}
        ),
    )
    write_result(result_file, result)


def _hash_of_code(function: str) -> str:
    """One hash of all the code that decides about masks, this method's included."""
    files = {*module_files("stages.prune_run"), *class_files(find_class(function))}
    return hashlib.sha256("".join(map(sha256, sorted(files))).encode()).hexdigest()
