"""Measure the zero-shot accuracy of one run on every task."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from dass.data.token_file import check_vocabulary
from dass.data.tokenizer import load_tokenizer, taken_off
from dass.evaluation.likelihood import score_continuations
from dass.evaluation.requests import LogLikelihood, Request
from dass.evaluation.task_rows import task_file
from dass.evaluation.zero_shot import evaluate
from dass.models.streamed import StreamedModel
from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import Run, TaskAccuracy, ZeroShotResult, write_result
from dass.runtime.job import device
from dass.runtime.provenance import model_source, origin, provenance, source
from dass.runtime.source_files import code_hash, module_files
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
    made_of = model_source(folder, model.weights.files)
    if overlay is not None:
        overlay.check_fits(model, made_of)
    mask_hash = overlay.hash() if overlay else None
    tokenizer = load_tokenizer(folder)
    accuracies = evaluate(
        partial(_score, model),
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
        mask_hash=mask_hash,
        provenance=provenance(
            started, {"model": origin(folder)} | {t: origin(path) for t, path in tasks.items()}
        )
        | {"model": made_of | taken_off(tokenizer), "pruned": overlay and overlay.settings}
        | {"tasks": {task: source(task_file(task, path)) for task, path in tasks.items()}}
        | {"code": code_hash(module_files("stages.zero_shot"))},
    )
    write_result(result_file, result)


def _score(model: StreamedModel, requests: list[Request]) -> list[LogLikelihood]:
    largest = max(max(*context, *continuation) for context, continuation in requests)
    check_vocabulary(largest, model.vocabulary, str(model.folder))
    return score_continuations(model, requests)
