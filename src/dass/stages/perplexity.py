"""Measure the perplexity of one run on every split."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from dass.data.token_file import load_windows, tokens_about
from dass.evaluation.perplexity import measure_perplexity
from dass.models.streamed import StreamedModel
from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import PerplexityResult, Run, SplitPerplexity, write_result
from dass.runtime.job import device
from dass.runtime.provenance import model_source, origin, provenance
from dass.runtime.source_files import code_hash, module_files
from dass.terms import Bos, Dtype, Split


def perplexity(
    *,
    run: str,
    folder: str | Path,
    pruned: str | Path | None,
    tokens: str | Path,
    dtype: Dtype,
    bos: Bos,
    dataset: str,
    splits: Sequence[Split],
    result_file: str | Path,
) -> None:
    """Measure the perplexity of one run on every split.

    Args:
        run: model/dense or model/calibration/method/pattern: what to call it.
        folder: of the dense model.
        pruned: the run's pruned file; None for the dense model.
        tokens: each split's windows, as the stage ``evaluation_tokens`` saved them.
        dtype: to load and run the model in.
        bos, dataset: how the windows were cut, and of what, for the record.
        splits: which to measure.
        result_file: what to write.
    """
    started = time.monotonic()
    overlay = PrunedFile(pruned) if pruned else None
    model = StreamedModel(folder, getattr(torch, dtype), device(), overlay, resident=None)
    source = model_source(folder, model.weights.files)
    if overlay is not None:
        overlay.check_fits(model, source)
    mask_hash = overlay.hash() if overlay else None
    windows = {split: load_windows(tokens, split, model.vocabulary) for split in splits}
    measured = {split: measure_perplexity(model, windows[split]) for split in splits}
    text = tokens_about(tokens)
    result = PerplexityResult(
        run=Run.parse(run),
        settings={"dtype": dtype, "bos": bos, "length": windows[splits[0]].shape[1]},
        dataset=dataset,
        splits={s: SplitPerplexity.model_validate(asdict(p)) for s, p in measured.items()},
        mask_hash=mask_hash,
        provenance=provenance(started, {"model": origin(folder), dataset: text.get("origin")})
        | {"model": source, "pruned": overlay and overlay.settings, "text": text}
        | {"code": code_hash(module_files("stages.perplexity"))},
    )
    write_result(result_file, result)
