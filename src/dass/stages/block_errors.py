"""Measure what pruning does to each decoder block of one run."""

import time
from pathlib import Path

import torch

from dass.data.token_file import load_windows, token_hash, tokens_about
from dass.evaluation.block_errors import block_errors as measure
from dass.evaluation.block_errors import kept_shares
from dass.models.streamed import StreamedModel
from dass.pruning.norms_file import load_norms, norms_hash
from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import BlockError, BlocksResult, Run, write_result
from dass.runtime.job import device
from dass.runtime.provenance import model_source, origin, provenance
from dass.runtime.source_files import code_hash, module_files
from dass.terms import Bos, Dtype, Split


def block_errors(
    *,
    run: str,
    folder: str | Path,
    pruned: str | Path,
    norms: str | Path,
    tokens: str | Path,
    dtype: Dtype,
    bos: Bos,
    dataset: str,
    split: Split,
    windows: int,
    result_file: str | Path,
) -> None:
    """Measure what pruning does to each decoder block of one run.

    Args:
        run: model/calibration/method/pattern: what to call it.
        folder: of the dense model.
        pruned: the run's pruned file.
        norms: of the dense model, as the stage ``activations`` saved them.
        tokens: each split's windows, as the stage ``evaluation_tokens`` saved them.
        dtype: to load and run the models in.
        bos, dataset: how the windows were cut, and of what, for the record.
        split, windows: how many windows of which split to measure on: the first, or all there are.
        result_file: what to write.
    """
    started = time.monotonic()
    overlay = PrunedFile(pruned)
    kind, place = getattr(torch, dtype), device()
    dense, other = StreamedModel(folder, kind, place), StreamedModel(folder, kind, place, overlay)
    source = model_source(folder, dense.weights.files)
    overlay.check_fits(dense, source)
    mask_hash = overlay.hash()
    sorted_by = load_norms(norms)
    kept = kept_shares(dense, overlay, [one.intermediate for one in sorted_by], str(norms))
    used = load_windows(tokens, split, dense.vocabulary)[:windows]
    errors = measure(dense, other, used)
    text = tokens_about(tokens)
    result = BlocksResult(
        run=Run.parse(run),
        settings={"dtype": dtype, "bos": bos, "length": used.shape[1]},
        dataset=dataset,
        split=split,
        windows=len(used),
        tokens=used.numel(),
        tokens_hash=token_hash(used),
        mask_hash=mask_hash,
        norms_hash=norms_hash(sorted_by),
        blocks=[
            BlockError(glu_error=error.glu, hidden_error=error.hidden, kept=shares)
            for error, shares in zip(errors, kept, strict=True)
        ],
        provenance=provenance(started, {"model": origin(folder), dataset: text.get("origin")})
        | {"model": source, "pruned": overlay.settings, "text": text}
        | {"code": code_hash(module_files("stages.block_errors"))},
    )
    write_result(result_file, result)
