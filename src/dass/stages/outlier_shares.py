"""Count the outliers among each dense block's weights, for OWL's ratios."""

import time
from pathlib import Path

import torch

from dass.models.streamed import StreamedModel
from dass.pruning.block_scores import outlier_shares as measure
from dass.pruning.norms_file import load_norms, norms_hash
from dass.results.schema import BlockScoresResult, write_result
from dass.runtime.job import device
from dass.runtime.provenance import model_source, origin, provenance
from dass.runtime.source_files import code_hash, module_files
from dass.terms import Dtype


def outlier_shares(
    *,
    model: str,
    calibration: str,
    folder: str | Path,
    norms: str | Path,
    dtype: Dtype,
    outlier: float,
    result_file: str | Path,
) -> None:
    """Count the outliers among each dense block's weights.

    Args:
        model, calibration: what to call them.
        folder: of the model.
        norms: of its activations, as the stage ``activations`` saved them.
        dtype: to load the model in.
        outlier: how many times above the mean a weight's score is an outlier's.
        result_file: what to write.
    """
    started = time.monotonic()
    dense = StreamedModel(folder, getattr(torch, dtype), device())
    activations = load_norms(norms)
    result = BlockScoresResult(
        model=model,
        calibration=calibration,
        kind="owl",
        settings={"dtype": dtype, "outlier": outlier},
        scores=measure(dense, activations, outlier),
        provenance=provenance(started, {"model": origin(folder)})
        | {"model": model_source(folder, dense.weights.files), "norms": norms_hash(activations)}
        | {"code": code_hash(module_files("stages.outlier_shares"))},
    )
    write_result(result_file, result)
