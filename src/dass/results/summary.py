"""What each run came to: result files -> one typed row per run -> one file per study.

Tables and figures are made from the rows, which are kept as JSON, closed and versioned as result
files are. The CSV beside it says the same to people and to pandas; nothing here reads it back.
"""

from collections.abc import Iterable, Iterator
from csv import DictWriter
from pathlib import Path
from typing import Any, Literal

from dass.errors import DataError
from dass.results.schema import (
    Closed,
    PerplexityResult,
    PruningResult,
    Run,
    RunResult,
    SplitPerplexity,
    Versioned,
    ZeroShotResult,
    read_result,
)
from dass.runtime.files import write_json, writing
from dass.terms import DENSE, Metric

Files = Iterable[str | Path]
Cells = dict[str, Any]
"""Columns of the CSV, and what one run has in them."""


class SummaryRow(Closed):
    """One run and its results; None for a stage that it has none of."""

    run: Run
    pruning: PruningResult | None = None
    perplexity: PerplexityResult | None = None
    zero_shot: ZeroShotResult | None = None

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Of each stage, as :func:`dass.runtime.provenance.provenance` gives it."""
        results = (self.pruning, self.perplexity, self.zero_shot)
        return [result.provenance for result in results if result]

    def origins(self, name: Literal["commit", "date", "device"]) -> list[str]:
        """What the provenance of the stages says, each once."""
        said = (origin.get(name) for origin in self.provenance)
        return list(dict.fromkeys(text for text in said if text))

    @property
    def versions(self) -> list[str]:
        """The packages that the stages ran with, each set once: ``torch 2.13, numpy 2.4``."""
        said = ((origin.get("versions") or {}).items() for origin in self.provenance)
        texts = (", ".join(f"{name} {version}" for name, version in found) for found in said)
        return list(dict.fromkeys(text for text in texts if text))

    def peak_memory(self, place: Literal["host", "device"]) -> int | None:
        """The highest of the run's stages, in bytes."""
        peaks = [origin.get("peak_memory_bytes") or {} for origin in self.provenance]
        peaks += [self.pruning.peak_memory_bytes.model_dump()] if self.pruning else []
        return max((peak[place] for peak in peaks if peak.get(place) is not None), default=None)


class Summary(Versioned):
    """The runs of one model or of a whole study."""

    rows: list[SummaryRow]


def mean_of_tasks(result: ZeroShotResult, metric: Metric) -> float:
    """The mean accuracy, a share; a task without acc_norm counts with its acc."""
    values = [task.by(metric)[0] for task in result.tasks.values()]
    return sum(values) / len(values)


def summarise(pruning: Files, perplexity: Files, zero_shot: Files) -> Summary:
    """One row per run: models and runs in the order of the paths, each model's dense run first.

    Raises:
        DataError: a file is malformed; two files are about one run; results of one run come from
            different masks, or results of one model from different weights, dtypes or evaluation
            tokens.
    """
    found: dict[Run, dict[str, RunResult]] = {}
    hashes: dict[tuple[str, str], tuple[str | None, str | Path]] = {}

    def add(stage: str, path: str | Path, result: RunResult) -> None:
        if stage in found.setdefault(result.run, {}):
            what = f"a second {stage} result of run {result.run}"
            raise DataError(f"{path}: {what}; give each file once")
        for about, name, value, means in _hashes(result):
            first, other = hashes.setdefault((about, name), (value, path))
            if value != first:
                remedy = "delete the older one and run again"
                raise DataError(f"{path}: {name} differs from {other}: {means}; {remedy}")
        found[result.run][stage] = result

    for path in pruning:
        add("pruning", path, read_result(path, PruningResult))
    for path in perplexity:
        add("perplexity", path, read_result(path, PerplexityResult))
    for path in zero_shot:
        add("zero_shot", path, read_result(path, ZeroShotResult))
    models = list(dict.fromkeys(run.model for run in found))
    ordered = sorted(found, key=lambda run: (models.index(run.model), run.method != DENSE))
    return Summary(rows=[SummaryRow.model_validate({"run": r, **found[r]}) for r in ordered])


def _hashes(result: RunResult) -> Iterator[tuple[str, str, str | None, str]]:
    """Run or model, a hash's name, the hash, and what it means if another file has another."""
    tokens = "the runs were not evaluated on the same tokens"
    for part, value in result.provenance.get("model", {}).items():
        yield result.run.model, f"the model's {part}", value, "the runs are not of the same model"
    if dtype := result.settings.get("dtype"):
        yield result.run.model, "dtype", dtype, "the model was not run in the same precision"
    if isinstance(result, PruningResult | PerplexityResult | ZeroShotResult):
        yield str(result.run), "mask_hash", result.mask_hash, "the two are of different masks"
    if isinstance(result, PerplexityResult):
        for name, values in _texts(result).items():
            yield result.run.model, f"tokens_hash_{name}", values.tokens_hash, tokens
    if isinstance(result, ZeroShotResult):
        for task, accuracy in result.tasks.items():
            yield result.run.model, f"{task}_requests_hash", accuracy.requests_hash, tokens


def merge(paths: Files) -> Summary:
    """The summaries of several models below one another.

    Raises:
        DataError: one is no summary, or two hold the same run.
    """
    rows: dict[Run, SummaryRow] = {}
    for path in paths:
        for row in read_result(path, Summary).rows:
            if row.run in rows:
                what = f"run {row.run} is in more than one summary"
                raise DataError(f"{path}: {what}; give each model once")
            rows[row.run] = row
    return Summary(rows=list(rows.values()))


def write_summary(summary: Summary, json: str | Path, csv: str | Path) -> None:
    """Write the rows as JSON, and as CSV, with all digits; docs/results.md lists its columns."""
    write_json(json, summary.model_dump())
    rows = [_cells(row) for row in summary.rows]
    # Part by part, so that the columns of a part stay side by side.
    columns = dict.fromkeys(n for part in zip(*rows, strict=True) for cells in part for n in cells)
    with writing(csv) as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = DictWriter(file, list(columns or Run.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows({n: v for cells in row for n, v in cells.items()} for row in rows)


def _cells(row: SummaryRow) -> list[Cells]:
    """A row of the CSV, in parts: the run, perplexity, zero-shot, pruning, how it came to be."""
    origin = {
        "peak_memory_bytes": row.peak_memory("host"),
        "peak_device_memory_bytes": row.peak_memory("device"),
        "date": max(row.origins("date"), default=None),
        "commit": "; ".join(row.origins("commit")),
        "device": "; ".join(row.origins("device")),
        "versions": "; ".join(row.versions),
    }
    return [
        row.run.model_dump(),
        _perplexity_cells(row.perplexity) if row.perplexity else {},
        _zero_shot_cells(row.zero_shot) if row.zero_shot else {},
        _pruning_cells(row.pruning) if row.pruning else {},
        origin,
    ]


def _texts(result: PerplexityResult) -> dict[str, SplitPerplexity]:
    """What was measured, by the ends of its columns' names: splits, then other data sets'."""
    others = {f"{dataset}_{text.split}": text for dataset, text in result.others.items()}
    return {**result.splits, **others}


def _perplexity_cells(result: PerplexityResult) -> Cells:
    cells: Cells = {}
    for name, values in _texts(result).items():
        cells[f"perplexity_{name}"] = values.perplexity
        cells[f"windows_{name}"] = values.windows
        cells[f"tokens_hash_{name}"] = values.tokens_hash
    return cells | {
        "perplexity_dataset": result.dataset,
        "perplexity_length": result.settings.get("length"),
        "perplexity_bos": result.settings.get("bos"),
        "perplexity_seconds": result.provenance.get("seconds"),
        "mask_hash": result.mask_hash,
    }


def _zero_shot_cells(result: ZeroShotResult) -> Cells:
    cells: Cells = {}
    for task, values in result.tasks.items():
        columns = values.model_dump(exclude={"hits", "norm_hits"})
        cells |= {f"{task}_{name}": value for name, value in columns.items()}
    return cells | {
        "mean_acc": mean_of_tasks(result, "acc"),
        "mean_acc_norm": mean_of_tasks(result, "acc_norm"),
        "zero_shot_limit": result.limit,
        "zero_shot_seconds": result.provenance.get("seconds"),
        "mask_hash": result.mask_hash,
    }


def _pruning_cells(result: PruningResult) -> Cells:
    return {
        "mean_sparsity": result.mean_sparsity,
        "pruning_seconds": result.seconds.get("total"),
        "calibration_tokens": result.tokens,
        "calibration_hash": result.calibration_hash,
        "mask_hash": result.mask_hash,
    }
