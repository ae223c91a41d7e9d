"""Hold a model's dense perplexity against what is published about it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dass.results.published import DenseTarget, compare_dense
from dass.results.schema import PerplexityResult, read_result
from dass.runtime.files import write_json


def check_dense(
    *, dense: str | Path, targets: Iterable[Mapping[str, Any]], tolerance: float, out: str | Path
) -> None:
    """Hold a model's dense perplexity against what is published about it.

    Args:
        dense: the dense run's perplexity.json.
        targets: what is published: fields of :class:`dass.results.published.DenseTarget`.
        tolerance: by which share of the published value ours may be off.
        out: what to write, JSON: each target with ours and by how much it is off.

    Raises:
        NumericError: a value is off by more than ``tolerance``; nothing is written.
    """
    result = read_result(dense, PerplexityResult)
    checks = compare_dense(result, [DenseTarget(**target) for target in targets], tolerance)
    write_json(out, {"model": result.run.model, "tolerance": tolerance, "checks": checks})
