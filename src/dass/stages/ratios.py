"""Say how far each block of a model is pruned for the whole to come to a pattern."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from dass.errors import PatternError
from dass.models.streamed import StreamedModel
from dass.pruning.block_scores import BlockSizes, block_sizes
from dass.pruning.patterns import Pattern, parse_pattern
from dass.pruning.ratios import alpha_ratios, check_listed, owl_ratios, rounded_ratios, steps_of
from dass.results.schema import BlockScoresResult, RatiosResult, read_result, write_result
from dass.runtime.provenance import model_source, origin, provenance
from dass.runtime.source_files import code_hash, module_files
from dass.terms import Dtype


def ratios(
    *,
    model: str,
    calibration: str,
    name: str,
    pattern: str,
    kind: Literal["owl", "alphapruning", "list"],
    arguments: dict[str, Any],
    folder: str | Path,
    dtype: Dtype,
    scores: str | Path | None,
    result_file: str | Path,
) -> None:
    """Say how far each block of a model is pruned for the whole to come to a pattern.

    Args:
        model, calibration, name: what to call them; ``name`` is that of the ratios.
        pattern: of all blocks together.
        kind: what the ratios follow.
        arguments: ``deviation`` of OWL, ``epsilon`` of AlphaPruning, ``shares`` of a list.
        folder: of the dense model, for the sizes of its matrices.
        dtype: to load it in.
        scores: of its blocks; None for a list.
        result_file: what to write.

    Raises:
        PatternError: the ratios do not come to the pattern, or are no ratios.
    """
    started = time.monotonic()
    dense = StreamedModel(folder, getattr(torch, dtype))
    sizes, of_blocks = block_sizes(dense), None
    if scores:
        of_blocks = read_result(scores, BlockScoresResult).scores
    try:
        shares = _shares(kind, arguments, of_blocks, sizes, parse_pattern(pattern))
    except PatternError as error:
        raise PatternError(f"ratios.{name}, {model}: {error}") from None
    result = RatiosResult(
        model=model,
        calibration=calibration,
        ratios=name,
        pattern=pattern,
        settings={"kind": kind, "arguments": arguments},
        scores=of_blocks,
        block_weights=sizes.weights,
        block_ratios=shares,
        provenance=provenance(started, {"model": origin(folder)})
        | {"model": model_source(folder, dense.weights.files)}
        | {"code": code_hash(module_files("stages.ratios"))},
    )
    write_result(result_file, result)


def _shares(
    kind: str,
    arguments: dict[str, Any],
    scores: Sequence[float] | None,
    sizes: BlockSizes,
    pattern: Pattern,
) -> list[float]:
    """The share of zeros of each block."""
    if kind == "list":
        check_listed(arguments["shares"], sizes.weights, pattern)
        return list(arguments["shares"])
    assert scores is not None
    if kind == "owl":
        wanted = owl_ratios(scores, sizes.weights, pattern.sparsity, arguments["deviation"])
    else:
        wanted = alpha_ratios(scores, sizes.weights, pattern.sparsity, arguments["epsilon"])
    return rounded_ratios(wanted, sizes.weights, pattern, steps_of(sizes.sides, pattern))
