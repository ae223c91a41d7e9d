"""Measure how far a dense model's activations are spread, block by block."""

import time
from dataclasses import asdict
from pathlib import Path

import torch

from dass.data.token_file import load_windows, token_hash, tokens_about
from dass.models.streamed import StreamedModel
from dass.pruning.activations import Norms, activation_norms, spread_of
from dass.pruning.norms_file import norms_hash, save_norms
from dass.results.schema import ActivationsResult, BlockNorms, NormSpread, write_result
from dass.runtime.job import device
from dass.runtime.provenance import model_source, origin, provenance
from dass.runtime.source_files import code_hash, module_files
from dass.terms import Bos, Dtype


def activations(
    *,
    model: str,
    calibration: str,
    folder: str | Path,
    tokens: str | Path,
    dtype: Dtype,
    bos: Bos,
    norms_file: str | Path,
    result_file: str | Path,
) -> None:
    """Measure how far a dense model's activations are spread, block by block.

    Args:
        model, calibration: what to call them.
        folder: of the model.
        tokens: the calibration's windows, as the stage ``calibration_tokens`` saved them.
        dtype: to load and run the model in.
        bos: which BOS rule the windows were drawn with, for the record.
        norms_file: what to write: every norm, see :mod:`dass.pruning.norms_file`.
        result_file: what to write: quantiles and outliers.
    """
    started = time.monotonic()
    dense = StreamedModel(folder, getattr(torch, dtype), device())
    windows = load_windows(tokens, "windows", dense.vocabulary)
    about = tokens_about(tokens)
    norms = activation_norms(dense, windows)
    result = ActivationsResult(
        model=model,
        calibration=calibration,
        settings={"dtype": dtype, "bos": bos},
        calibration_hash=token_hash(windows),
        norms_hash=norms_hash(norms),
        tokens=windows.numel(),
        blocks=[_spreads(own, f"{model}, block {index}") for index, own in enumerate(norms)],
        provenance=provenance(started, {"model": origin(folder), "calibration": about["origin"]})
        | {"model": model_source(folder, dense.weights.files), "calibration": about}
        | {"code": code_hash(module_files("stages.activations"))},
    )
    save_norms(norms_file, norms)
    write_result(result_file, result)


def _spreads(norms: Norms, where: str) -> BlockNorms:
    """The two spreads of a block."""
    spreads = {
        name: NormSpread.model_validate(asdict(spread_of(own, f"{where}, {name}")))
        for name, own in vars(norms).items()
    }
    return BlockNorms(**spreads)
