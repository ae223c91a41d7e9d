"""Measure the zero-shot accuracy of one run on every task."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from dass.data.tokenizer import load_tokenizer, taken_off
from dass.evaluation.likelihood import score_continuations
from dass.evaluation.zero_shot import evaluate
from dass.models.streamed import StreamedModel
from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import Run, TaskAccuracy, ZeroShotResult, write_result
from dass.runtime.job import device
from dass.runtime.provenance import origin, provenance
from dass.terms import Bos, Dtype


def zero_shot(
    *,
    run: str,
    folder: str | Path,
    pruned: str | Path | None,
    tasks: Mapping[str, str | Path],
    dtype: Dtype,
    bos: Bos,
    limit: int | None,
    result_file: str | Path,
) -> None:
    """Measure the zero-shot accuracy of one run on every task.

    Args:
        run: model/dense or model/calibration/method/pattern: what to call it.
        folder: of the dense model.
        pruned: the run's pruned file; None for the dense model.
        tasks: task -> folder with its data.
        dtype: to load and run the model in.
        bos: the model's BOS rule.
        limit: at most this many examples of each task; None: all.
        result_file: what to write.
    """
    started = time.monotonic()
    overlay = PrunedFile(pruned) if pruned else None
    model = StreamedModel(folder, getattr(torch, dtype), device(), overlay, resident=None)
    tokenizer = load_tokenizer(folder)
    accuracies = evaluate(
        partial(score_continuations, model),
        tokenizer,
        {task: Path(path) for task, path in tasks.items()},
        max_length=model.max_length,
        limit=limit,
        bos=bos,
    )
    result = ZeroShotResult(
        run=Run.parse(run),
        settings={"dtype": dtype, "bos": bos},
        tasks={t: TaskAccuracy.model_validate(asdict(a)) for t, a in accuracies.items()},
        limit=limit,
        mask_hash=overlay.hash() if overlay else None,
        provenance=provenance(
            started,
            {"model": (origin(folder) or {}) | taken_off(tokenizer)}
            | {task: origin(path) for task, path in tasks.items()},
        ),
    )
    write_result(result_file, result)
