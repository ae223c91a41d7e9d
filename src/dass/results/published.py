"""What others have published: read from a CSV file, found for a run, held against the dense model.

The file has one row per number, with the columns of :data:`COLUMNS` and any of
:data:`CONDITIONS`; docs/running.md says what goes into them. An empty condition restricts nothing.
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from dass.errors import DataError, NumericError, PatternError
from dass.pruning.patterns import parse_pattern
from dass.results.schema import PerplexityResult, Run
from dass.runtime.files import read_json
from dass.tasks import TASKS
from dass.terms import DENSE, SPLITS, Metric, Targets

COLUMNS = ("table", "model", "method", "pattern", "split", "metric", "value", "source")
CONDITIONS = ("calibration", "dataset", "length", "targets")
TARGETS: tuple[Targets, ...] = get_args(Targets)
PERPLEXITY = "perplexity"
MEAN = "mean"
"""In a task's place: the mean of all tasks."""
ACCURACIES: dict[str, tuple[str, Metric]] = {
    f"{task}_{metric}": (task, metric) for task in [*TASKS, MEAN] for metric in get_args(Metric)
}
"""What the column ``metric`` may hold besides ``perplexity`` -> task and metric."""


class Quantity(NamedTuple):
    """What is measured of a run."""

    metric: str
    """``perplexity``, or a key of :data:`ACCURACIES` such as ``piqa_acc_norm`` or ``mean_acc``."""
    split: str
    """Of perplexity; empty otherwise."""


@dataclass(frozen=True)
class Published:
    """One published number, and of what; None where the file says nothing."""

    model: str
    calibration: str | None
    method: str
    pattern: str | None
    quantity: Quantity
    dataset: str | None
    """Of perplexity: the config's key."""
    length: int | None
    """Of perplexity: tokens of context."""
    value: float
    """Perplexity, or accuracy as a share."""
    source: str
    """Source and table, in words."""
    file: str
    """Where it was read."""
    targets: Targets = "mlp"
    """What was pruned."""

    def is_about(self, run: Run) -> bool:
        """Whether it is about this model, calibration, method and pattern."""
        same = (self.model, self.method, self.pattern) == (run.model, run.method, run.pattern)
        return same and self.calibration in (None, run.calibration)

    def text(self, datasets: Iterable[str], length: int | None) -> str | None:
        """The one of a study's data sets that a perplexity is about, of so many tokens of context.

        One that names no data set is about the first; None: it is about none of them.
        """
        known = [name for name in datasets if self.dataset in (None, name)]
        return known[0] if known and self.length in (None, length) else None


def read_published(path: str | Path) -> list[Published]:
    """Read a file of published numbers; models, methods and patterns may be of any study.

    Raises:
        DataError: the file is missing, lacks a column, or a row is malformed or there twice; the
            line begins with ``file:line``.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, list(reader.fieldnames or []))
            rows = [(f"{path}:{reader.line_num}", row) for row in reader]
    except OSError as error:
        raise DataError(f"published.file: {path} cannot be read ({error.strerror}); correct it") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no CSV in UTF-8 ({error}); save it as such") from None
    numbers: list[Published] = []
    places: dict[Published, str] = {}
    for where, row in rows:
        try:
            number = _parse(row, str(path))
        except (ValueError, PatternError) as error:
            raise DataError(f"{where}: {error}") from None
        about = replace(number, value=0.0, source="")
        if first := places.get(about):
            raise DataError(f"{where}: says what {first} says already; keep one of the two")
        places[about] = where
        numbers.append(number)
    return numbers


def _check_columns(path: Path, found: list[str]) -> None:
    for name in COLUMNS:
        if name not in found:
            must = f"the first line must be {','.join(COLUMNS)}"
            raise DataError(f"{path}:1: no column {name!r}; {must}")
    for name in found:
        if name not in COLUMNS + CONDITIONS or found.count(name) > 1:
            remedy = f"remove it (optional ones: {', '.join(CONDITIONS)})"
            raise DataError(f"{path}:1: column {name!r} is unknown or there twice; {remedy}")


def _parse(row: Mapping[str | None, Any], file: str) -> Published:
    """One row of the file; ``csv`` keys cells beyond the last column by None, missing ones too.

    Raises:
        ValueError or PatternError: what is wrong with it.
    """
    if None in row or None in row.values():
        raise ValueError("not as many cells as columns; put text with commas in quotes")
    cell = dict.fromkeys(CONDITIONS, "") | {str(n): str(text).strip() for n, text in row.items()}
    for name in ("model", "method", "metric", "value", "source"):
        if not cell[name]:
            raise ValueError(f"{name} is empty; every number needs one")
    method, pattern, length = cell["method"], cell["pattern"], cell["length"]
    if (method == DENSE) != (pattern == ""):
        raise ValueError(f"method {DENSE} has no pattern, every other method has one; correct it")
    if pattern and (spelled := str(parse_pattern(pattern))) != pattern:
        raise ValueError(f"pattern {pattern!r} is spelled {spelled}")
    targets = next((one for one in TARGETS if one == (cell["targets"] or "mlp")), None)
    if targets is None:
        raise ValueError(f"targets {cell['targets']!r} is none of {', '.join(TARGETS)}; correct it")
    if length and not re.fullmatch(r"[1-9]\d*", length):
        raise ValueError(f"length {length!r} is no number of tokens; correct it")
    return Published(
        model=cell["model"],
        calibration=cell["calibration"] or None,
        method=method,
        pattern=pattern or None,
        quantity=_quantity(cell["metric"], cell["split"]),
        dataset=cell["dataset"] or None,
        length=int(length) if length else None,
        targets=targets,
        value=_value(cell["metric"], cell["value"]),
        source=", ".join(part for part in (cell["source"], cell["table"]) if part),
        file=file,
    )


def _quantity(metric: str, split: str) -> Quantity:
    if metric != PERPLEXITY and metric not in ACCURACIES:
        known = "perplexity, or a task and its metric, as in piqa_acc, arc_easy_acc_norm, mean_acc"
        raise ValueError(f"unknown metric {metric!r}: write {known}")
    if split not in SPLITS and (split or metric == PERPLEXITY):
        raise ValueError(f"split {split!r} is neither {' nor '.join(SPLITS)}; correct it")
    return Quantity(metric, split if metric == PERPLEXITY else "")


def _value(metric: str, text: str) -> float:
    """Perplexity, or an accuracy that the file gives in percent as a share."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if metric == PERPLEXITY:
        if not 1 <= value < math.inf:
            raise ValueError(f"value {text!r} is no perplexity; give a number from 1")
        return value
    if not 1 < value <= 100:
        raise ValueError(f"value {text!r} is no accuracy in percent; give one as in 76.4")
    return value / 100


# --- The gate on the dense model ----------------------------------------------------------------


class DenseTarget(NamedTuple):
    """What is published of a dense model's perplexity."""

    dataset: str
    split: str
    value: float
    source: str
    """Source and table, and where our file says so."""


def dense_targets(
    rows: Iterable[Published], model: str, length: int, splits: Mapping[str, Iterable[str]]
) -> list[DenseTarget]:
    """The published perplexities of a dense model that a study measures, too.

    Args:
        rows: of the file.
        model: the config's key.
        length: tokens of context.
        splits: of each data set of the study, the first one first.
    """
    dense = Run.parse(f"{model}/{DENSE}")
    return [
        DenseTarget(dataset, row.quantity.split, row.value, f"{row.source}; {row.file}")
        for row in rows
        if row.is_about(dense)
        and row.quantity.metric == PERPLEXITY
        and (dataset := row.text(splits, length)) is not None
        and row.quantity.split in splits[dataset]
    ]


def compare_dense(
    result: PerplexityResult, targets: Iterable[DenseTarget], tolerance: float
) -> list[dict[str, str | float]]:
    """Each target with our perplexity, and by how much that is off, as a share.

    Raises:
        NumericError: one is off by more than ``tolerance``.
    """
    model, length = result.run.model, result.settings.get("length")
    checks = []
    for target in targets:
        dataset, split, value, source = target
        measured = result.of(split, dataset)
        assert measured is not None, "targets are of what the study measures"
        ours = measured.perplexity
        off = ours / value - 1
        if abs(off) > tolerance:
            raise NumericError(
                f"{model}: its dense perplexity is {ours:.4g} on the {split} split of {dataset}, "
                f"but {value:g} is published ({source}): {100 * off:+.1f} % off, more than "
                f"published.tolerance of {100 * tolerance:g} %, so nothing of this model is "
                f"pruned; check models.{model} (revision, dtype, bos) and the text "
                f"(datasets.{dataset}, context length {length}), or go on regardless with "
                "published.gate: false"
            )
        checks.append(target._asdict() | {"perplexity": ours, "off": off})
    return checks


def was_pruned_from(result: str | Path, *, folder: str | Path, dtype: str, bos: str) -> bool:
    """Whether a run is pruned, of the model that is in ``folder`` now, with this dtype and BOS."""
    result, config = Path(result), Path(folder) / "config.json"
    try:
        settings = read_json(result)["settings"]
        same = (settings["dtype"], settings["bos"]) == (dtype, bos)
        older = config.exists() and config.stat().st_mtime > result.stat().st_mtime
    except (DataError, OSError, KeyError, TypeError):
        return False
    return same and not older and result.with_name("pruned.safetensors").exists()
