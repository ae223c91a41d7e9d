"""Measure the perplexity of one run on every text."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from dass.data.token_file import load_windows, tokens_about
from dass.evaluation.perplexity import measure_perplexities
from dass.models.streamed import StreamedModel
from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import OtherText, PerplexityResult, Run, SplitPerplexity, write_result
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
    others: Mapping[str, Split] | None = None,
    other_tokens: Sequence[str | Path] = (),
) -> None:
    """Measure the perplexity of one run on every text.

    Args:
        run: model/dense or model/calibration/method/pattern: what to call it.
        folder: of the dense model.
        pruned: the run's pruned file; None for the dense model.
        tokens: each split's windows, as the stage ``evaluation_tokens`` saved them.
        dtype: to load and run the model in.
        bos, dataset: how the windows were cut, and of what, for the record.
        splits: which to measure.
        result_file: what to write.
        others: other data sets, and which split of each to measure.
        other_tokens: the windows of each, saved by the same stage.
    """
    started = time.monotonic()
    overlay = PrunedFile(pruned) if pruned else None
    model = StreamedModel(folder, getattr(torch, dtype), device(), overlay, resident=None)
    source = model_source(folder, model.weights.files)
    if overlay is not None:
        overlay.check_fits(model, source)
    mask_hash = overlay.hash() if overlay else None
    windows = {split: load_windows(tokens, split, model.vocabulary) for split in splits}
    others = others or {}
    files = dict(zip(others, other_tokens, strict=True))
    found = {name: load_windows(files[name], others[name], model.vocabulary) for name in files}
    measured = measure_perplexities(model, [*windows.values(), *found.values()])
    numbers = map(asdict, measured)
    text = tokens_about(tokens)
    texts = {name: tokens_about(file) for name, file in files.items()}
    origins = {name: about.get("origin") for name, about in ({dataset: text} | texts).items()}
    result = PerplexityResult(
        run=Run.parse(run),
        settings={"dtype": dtype, "bos": bos, "length": windows[splits[0]].shape[1]},
        dataset=dataset,
        splits={split: SplitPerplexity(**next(numbers)) for split in windows},
        others={name: OtherText(**next(numbers), split=others[name]) for name in found},
        mask_hash=mask_hash,
        provenance=provenance(started, {"model": origin(folder)} | origins)
        | {"model": source, "pruned": overlay and overlay.settings, "text": text}
        | {"others": texts, "code": code_hash(module_files("stages.perplexity"))},
    )
    write_result(result_file, result)
