"""Measure the zero-shot accuracy of one run on every task."""

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from dass.data.token_file import check_vocabulary
from dass.evaluation.accuracy import measure_accuracy
from dass.evaluation.requests import load_requests
from dass.evaluation.scores import score_continuations
from dass.evaluation.trees import load_rows
from dass.models.streamed import StreamedModel
from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import Run, TaskAccuracy, ZeroShotResult, write_result
from dass.runtime.job import device
from dass.runtime.provenance import model_source, origin, provenance
from dass.runtime.source_files import code_hash, module_files
from dass.terms import Dtype


def zero_shot(
    *,
    run: str,
    folder: str | Path,
    pruned: str | Path | None,
    requests: str | Path,
    dtype: Dtype,
    result_file: str | Path,
) -> None:
    """Measure the zero-shot accuracy of one run on every task.

    Args:
        run: model/dense or model/calibration/method/pattern: what to call it.
        folder: of the dense model.
        pruned: the run's pruned file; None for the dense model.
        requests: what is asked of the model, as the stage ``zero_shot_requests`` saved it.
        dtype: to load and run the model in.
        result_file: what to write.
    """
    started = time.monotonic()
    overlay = PrunedFile(pruned) if pruned else None
    model = StreamedModel(folder, getattr(torch, dtype), device(), overlay, resident=None)
    made_of = model_source(folder, model.weights.files)
    if overlay is not None:
        overlay.check_fits(model, made_of)
    tasks, about = load_requests(requests)
    asked = [request for task in tasks.values() for request in task.requests]
    largest = max(max(*context, *continuation) for context, continuation in asked)
    check_vocabulary(largest, model.vocabulary, str(folder))
    scorer = partial(score_continuations, model, rows=load_rows(requests))
    measured = measure_accuracy(scorer, tasks)
    result = ZeroShotResult(
        run=Run.parse(run),
        settings={"dtype": dtype, "bos": about["bos"]},
        tasks={t: TaskAccuracy.model_validate(asdict(a)) for t, a in measured.items()},
        limit=about["limit"],
        mask_hash=overlay.hash() if overlay else None,
        provenance=provenance(started, {"model": origin(folder)} | about["origins"])
        | {"model": made_of | about["departures"], "pruned": overlay and overlay.settings}
        | {"tasks": about["sources"]}
        | {"code": code_hash(module_files("stages.zero_shot"))},
    )
    write_result(result_file, result)
