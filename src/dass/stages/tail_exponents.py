"""Estimate how heavy the tail of each dense block's spectra is, for AlphaPruning's ratios."""

import time
from pathlib import Path

import torch

from dass.models.streamed import StreamedModel
from dass.pruning.block_scores import tail_exponents as measure
from dass.results.schema import BlockScoresResult, write_result
from dass.runtime.job import device
from dass.runtime.provenance import model_source, origin, provenance
from dass.runtime.source_files import code_hash, module_files
from dass.terms import Dtype


def tail_exponents(
    *, model: str, folder: str | Path, dtype: Dtype, result_file: str | Path
) -> None:
    """Estimate how heavy the tail of each dense block's spectra is; reads no tokens.

    Args:
        model: what to call it.
        folder: of the model.
        dtype: to load the model in.
        result_file: what to write.
    """
    started = time.monotonic()
    dense = StreamedModel(folder, getattr(torch, dtype), device())
    result = BlockScoresResult(
        model=model,
        calibration=None,
        kind="alphapruning",
        settings={"dtype": dtype},
        scores=measure(dense),
        provenance=provenance(started, {"model": origin(folder)})
        | {"model": model_source(folder, dense.weights.files)}
        | {"code": code_hash(module_files("stages.tail_exponents"))},
    )
    write_result(result_file, result)
