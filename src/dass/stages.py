"""The stages that make result files: read inputs, compute, write what came out and how.

One function a stage; scripts of the workflow call nothing else, and anyone may call them alone.
Every output is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dass.data.documents import Documents, Rows, find_split, read_rows
from dass.data.windows import (
    draw_windows,
    encoder,
    load_tokenizer,
    load_tokens,
    put_bos_in_front,
    save_tokens,
    token_hash,
    tokens_source,
)
from dass.evaluation.perplexity import cut_windows, perplexity, tokenise
from dass.evaluation.zero_shot import evaluate
from dass.models.batches import score_continuations
from dass.models.streamed import StreamedModel
from dass.pruning.methods import find_class, make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import PrunedFile
from dass.pruning.resume import Pieces
from dass.results.schema import (
    PeakMemory,
    PerplexityResult,
    PruningResult,
    Run,
    SplitPerplexity,
    TaskAccuracy,
    ZeroShotResult,
    write_result,
)
from dass.runtime.files import sha256
from dass.runtime.job import device
from dass.runtime.provenance import origin, peak_memory, provenance
from dass.runtime.source_files import class_files, module_files


def calibration_tokens(
    *,
    folder: str | Path,
    documents: str | Path,
    sequences: int,
    length: int,
    seed: int,
    bos: str,
    out: str | Path,
) -> None:
    """Draw a model's calibration windows and save their tokens.

    Args:
        folder: of the model, for its tokenizer.
        documents: the JSON-lines file to draw from.
        sequences, length, seed: how many windows of how many tokens, and which draws.
        bos: ``text`` or ``window``.
        out: safetensors with ``windows``, int32 [sequences, length].
    """
    tokenizer = load_tokenizer(folder)
    windows = draw_windows(Documents(documents), encoder(tokenizer), sequences, length, seed)
    if bos == "window":
        # As long as the other models' windows: BOS takes the place of the last token, but for
        # a window that begins its document and hence has one already.
        begun = put_bos_in_front(windows[:, :-1], tokenizer.bos_token_id)
        has_bos = windows[:, :1] == tokenizer.bos_token_id
        windows = torch.where(has_bos, windows, begun)
    save_tokens(out, {"windows": windows}, origin(documents))


def evaluation_tokens(
    *,
    folder: str | Path,
    text: str | Path,
    rows: Rows,
    splits: Sequence[str],
    length: int,
    bos: Any,
    out: str | Path,
) -> None:
    """Tokenise an evaluation text for one model and save the windows of each split.

    Args:
        folder: of the model, for its tokenizer.
        text: the folder with the splits.
        rows: what a row of a ``.txt`` is.
        splits: which to take.
        length: tokens in each window.
        bos: ``text`` or ``window``.
        out: safetensors with int32 [windows, length] for each split.
    """
    tokenizer = load_tokenizer(folder)
    bos_id = tokenizer.bos_token_id
    windows = {}
    for split in splits:
        path = find_split(text, split)
        tokens = tokenise(read_rows(path, rows), encoder(tokenizer), bos, bos_id)
        windows[split] = cut_windows(tokens, length, bos, bos_id, str(path))
    save_tokens(out, windows, origin(text))


def prune_run(
    *,
    folder: str | Path,
    tokens: str | Path,
    run: Run,
    dtype: str,
    bos: str,
    function: str,
    arguments: dict[str, Any],
    pruned_file: str | Path,
    result_file: str | Path,
) -> None:
    """Prune one model by one method to one pattern; goes on where a killed job stopped.

    Args:
        folder: of the dense model.
        tokens: the calibration's windows, as :func:`calibration_tokens` saved them.
        run: what to call it; its pattern is the one pruned to.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        bos: which BOS rule the windows were drawn with, for the record.
        function, arguments: the method, built-in or ``package.module:Class``, and its arguments.
        pruned_file, result_file: what to write.
    """
    started = time.monotonic()
    assert run.pattern is not None
    method, pattern = make_method(function, arguments), parse_pattern(run.pattern)
    windows = load_tokens(tokens)["windows"]
    model = StreamedModel(folder, getattr(torch, dtype), device())
    settings = {"function": function, "arguments": arguments, "dtype": dtype, "bos": bos}
    about = settings | {"run": str(run)}
    pieces = Pieces(
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
    pruned = prune(model, windows, method, pattern, pieces)
    pieces.join(pruned_file, model.n_blocks, about)
    result = PruningResult(
        run=run,
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
    files = {*module_files("pruning"), *class_files(find_class(function))}
    return hashlib.sha256("".join(map(sha256, sorted(files))).encode()).hexdigest()


def perplexity_of_run(
    *,
    folder: str | Path,
    pruned: str | Path | None,
    tokens: str | Path,
    run: Run,
    dtype: str,
    bos: str,
    dataset: str,
    splits: Sequence[str],
    result_file: str | Path,
) -> None:
    """Measure the perplexity of one run on every split.

    Args:
        folder: of the dense model.
        pruned: the run's pruned file; None for the dense model.
        tokens: each split's windows, as :func:`evaluation_tokens` saved them.
        run: what to call it.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        bos, dataset: how the windows were cut, and of what, for the record.
        splits: which to measure.
        result_file: what to write.
    """
    started = time.monotonic()
    overlay = PrunedFile(pruned) if pruned else None
    model = StreamedModel(folder, getattr(torch, dtype), device(), overlay, resident=None)
    windows = load_tokens(tokens)
    measured = {split: perplexity(model, windows[split]) for split in splits}
    result = PerplexityResult(
        run=run,
        settings={"dtype": dtype, "bos": bos, "length": windows[splits[0]].shape[1]},
        dataset=dataset,
        splits={s: SplitPerplexity.model_validate(asdict(p)) for s, p in measured.items()},
        mask_hash=overlay.hash() if overlay else None,
        provenance=provenance(started, {"model": origin(folder), dataset: tokens_source(tokens)}),
    )
    write_result(result_file, result)


def zero_shot_of_run(
    *,
    folder: str | Path,
    pruned: str | Path | None,
    tasks: Mapping[str, str | Path],
    run: Run,
    dtype: str,
    bos: str,
    limit: int | None,
    result_file: str | Path,
) -> None:
    """Measure the zero-shot accuracy of one run on every task.

    Args:
        folder: of the dense model.
        pruned: the run's pruned file; None for the dense model.
        tasks: task -> folder with its data.
        run: what to call it.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        bos: the model's BOS rule.
        limit: at most so many examples of each task; None: all.
        result_file: what to write.
    """
    started = time.monotonic()
    overlay = PrunedFile(pruned) if pruned else None
    model = StreamedModel(folder, getattr(torch, dtype), device(), overlay, resident=None)
    accuracies = evaluate(
        partial(score_continuations, model),
        load_tokenizer(folder),
        {task: Path(path) for task, path in tasks.items()},
        max_length=model.max_length,
        limit=limit,
        bos=bos,
    )
    result = ZeroShotResult(
        run=run,
        settings={"dtype": dtype, "bos": bos},
        tasks={t: TaskAccuracy.model_validate(asdict(a)) for t, a in accuracies.items()},
        limit=limit,
        mask_hash=overlay.hash() if overlay else None,
        provenance=provenance(
            started, {"model": origin(folder)} | {t: origin(path) for t, path in tasks.items()}
        ),
    )
    write_result(result_file, result)
