"""What each run came to: result files -> one typed row per run -> one file per study.

Tables and figures are made from the rows, which are kept as JSON, closed and versioned as result
files are. The CSV beside it says the same to people and to pandas; nothing here reads it back.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from dass.errors import DataError
from dass.results.schema import (
    Closed,
    Count,
    PerplexityResult,
    PruningResult,
    Run,
    Share,
    SplitPerplexity,
    TaskAccuracy,
    Versioned,
    ZeroShotResult,
    read_result,
)
from dass.runtime.files import write_json, writing
from dass.terms import DENSE, Bos, Metric

Result = TypeVar("Result", PruningResult, PerplexityResult, ZeroShotResult)
Cells = dict[str, str | int | float | None]
"""Columns of the CSV, and what one run has in them."""


class PerplexitySummary(Closed):
    """A run's perplexities, and what they were measured on."""

    dataset: str
    length: Count | None
    """Tokens of context."""
    bos: Bos | None
    splits: dict[str, SplitPerplexity]
    seconds: float | None


class ZeroShotSummary(Closed):
    """A run's accuracies, as shares."""

    tasks: dict[str, TaskAccuracy]
    limit: Count | None
    """At most this many examples of each task; None: all."""
    seconds: float | None

    def mean(self, metric: Metric) -> float:
        """The mean over all tasks; a task without acc_norm counts with its acc."""
        values = [task.by(metric)[0] for task in self.tasks.values()]
        return sum(values) / len(values)


class PruningSummary(Closed):
    """How far a run was pruned, and how long that took."""

    mean_sparsity: Share
    seconds: float | None
    tokens: Count
    """Calibration tokens."""
    calibration_hash: str


class SummaryRow(Closed):
    """One run; None for a stage that it has no result of."""

    run: Run
    mask_hash: str | None
    """None for the dense model."""
    perplexity: PerplexitySummary | None
    zero_shot: ZeroShotSummary | None
    pruning: PruningSummary | None
    peak_memory_bytes: Count | None
    """Of the host: the highest of the run's stages."""
    peak_device_memory_bytes: Count | None
    date: str | None
    """When the last stage ended."""
    commits: list[str]
    """Of the library; here and below, those of all stages, each once."""
    devices: list[str]
    versions: list[str]


class Summary(Versioned):
    """The runs of one model or of a whole study."""

    rows: list[SummaryRow]


def summarise(
    pruning: Iterable[str | Path], perplexity: Iterable[str | Path], zero_shot: Iterable[str | Path]
) -> Summary:
    """One row per run: models and runs in the order of the paths, each model's dense run first.

    Raises:
        DataError: a file is malformed; two files are about one run; results of one run come from
            different masks, or results of one model from different evaluation tokens.
    """
    hashes: Hashes = {}
    pruned = _read(pruning, PruningResult, hashes)
    measured = _read(perplexity, PerplexityResult, hashes)
    scored = _read(zero_shot, ZeroShotResult, hashes)
    runs = dict.fromkeys([*pruned, *measured, *scored])
    models = list(dict.fromkeys(run.model for run in runs))
    ordered = sorted(runs, key=lambda run: (models.index(run.model), run.method != DENSE))
    return Summary(
        rows=[_row(run, pruned.get(run), measured.get(run), scored.get(run)) for run in ordered]
    )


def merge(paths: Iterable[str | Path]) -> Summary:
    """The summaries of several models below one another.

    Raises:
        DataError: one is no summary, or two hold the same run.
    """
    rows: dict[Run, SummaryRow] = {}
    for path in paths:
        for row in read_result(path, Summary).rows:
            if row.run in rows:
                raise DataError(
                    f"{path}: run {row.run} is in more than one summary; give each model once"
                )
            rows[row.run] = row
    return Summary(rows=list(rows.values()))


# --- Result files -------------------------------------------------------------------------------

Hashes = dict[tuple[str, str], tuple[str | None, str | Path]]
"""Run or model, and the name of a hash -> the hash, and the file that it was first read from."""


def _read(paths: Iterable[str | Path], cls: type[Result], hashes: Hashes) -> dict[Run, Result]:
    """Read the files of one stage, and hold their hashes against those of the files before."""
    found: dict[Run, Result] = {}
    for path in paths:
        result = read_result(path, cls)
        if result.run in found:
            stage = Path(path).stem
            raise DataError(
                f"{path}: a second {stage} result of run {result.run}; give each file once"
            )
        for about, name, value, means in _hashes(result):
            first, other = hashes.setdefault((about, name), (value, path))
            if value != first:
                raise DataError(
                    f"{path}: {name} differs from {other}: {means}; "
                    "delete the older one and run again"
                )
        found[result.run] = result
    return found


def _hashes(
    result: PruningResult | PerplexityResult | ZeroShotResult,
) -> Iterator[tuple[str, str, str | None, str]]:
    """Run or model, a hash's name, the hash, and what it means if another file has another."""
    tokens = "the runs were not evaluated on the same tokens"
    yield str(result.run), "mask_hash", result.mask_hash, "the two are of different masks"
    if isinstance(result, PerplexityResult):
        for split, values in result.splits.items():
            yield result.run.model, f"tokens_hash_{split}", values.tokens_hash, tokens
    if isinstance(result, ZeroShotResult):
        for task, accuracy in result.tasks.items():
            yield result.run.model, f"{task}_requests_hash", accuracy.requests_hash, tokens


def _row(
    run: Run,
    pruned: PruningResult | None,
    measured: PerplexityResult | None,
    scored: ZeroShotResult | None,
) -> SummaryRow:
    results = [result for result in (pruned, measured, scored) if result is not None]
    origins = [result.provenance for result in results]
    peaks: list[dict[str, int | None]] = [o.get("peak_memory_bytes") or {} for o in origins]
    peaks += [pruned.peak_memory_bytes.model_dump()] if pruned else []
    dates = [origin["date"] for origin in origins if origin.get("date")]
    versions = [
        ", ".join(f"{name} {version}" for name, version in (o.get("versions") or {}).items())
        for o in origins
    ]
    return SummaryRow(
        run=run,
        mask_hash=results[0].mask_hash,
        perplexity=PerplexitySummary(
            dataset=measured.dataset,
            length=measured.settings.get("length"),
            bos=measured.settings.get("bos"),
            splits=measured.splits,
            seconds=measured.provenance.get("seconds"),
        )
        if measured
        else None,
        zero_shot=ZeroShotSummary(
            tasks=scored.tasks, limit=scored.limit, seconds=scored.provenance.get("seconds")
        )
        if scored
        else None,
        pruning=PruningSummary(
            mean_sparsity=pruned.mean_sparsity,
            seconds=pruned.seconds.get("total"),
            tokens=pruned.tokens,
            calibration_hash=pruned.calibration_hash,
        )
        if pruned
        else None,
        peak_memory_bytes=_highest(peak.get("host") for peak in peaks),
        peak_device_memory_bytes=_highest(peak.get("device") for peak in peaks),
        date=max(dates, default=None),
        commits=_each_once(origin.get("commit") for origin in origins),
        devices=_each_once(origin.get("device") for origin in origins),
        versions=_each_once(versions),
    )


def _highest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _each_once(texts: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


# --- Files --------------------------------------------------------------------------------------


def write_summary(summary: Summary, json: str | Path, csv: str | Path) -> None:
    """Write the rows as JSON, and the same numbers as CSV, with all their digits.

    Columns of the CSV, where measured (accuracies and sparsity are shares, times in seconds):

    - model, calibration, method, pattern
    - perplexity_<split>, windows_<split>, tokens_hash_<split>, perplexity_dataset,
      perplexity_length, perplexity_bos, perplexity_seconds, mask_hash
    - <task>_acc, <task>_acc_stderr, <task>_acc_norm, <task>_acc_norm_stderr, <task>_samples,
      <task>_version, <task>_requests_hash; mean_acc, and mean_acc_norm, where a task without
      acc_norm counts with its acc; zero_shot_limit, zero_shot_seconds
    - mean_sparsity, pruning_seconds, calibration_tokens, calibration_hash
    - peak_memory_bytes (host), peak_device_memory_bytes, date, commit, device, versions
    """
    write_json(json, summary.model_dump())
    _write_csv(csv, [_cells(row) for row in summary.rows])


def _write_csv(path: str | Path, rows: list[list[Cells]]) -> None:
    """Write rows that are given in parts; the columns of a part stay side by side."""
    columns = dict.fromkeys(
        name for part in zip(*rows, strict=True) for row in part for name in row
    )
    with writing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns or Run.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows({n: v for cells in row for n, v in cells.items()} for row in rows)


def _cells(row: SummaryRow) -> list[Cells]:
    """A row of the CSV, in parts: the run, perplexity, zero-shot, pruning, how it came to be."""
    mask: Cells = {"mask_hash": row.mask_hash}
    origin: Cells = {
        "peak_memory_bytes": row.peak_memory_bytes,
        "peak_device_memory_bytes": row.peak_device_memory_bytes,
        "date": row.date,
        "commit": "; ".join(row.commits),
        "device": "; ".join(row.devices),
        "versions": "; ".join(row.versions),
    }
    return [
        row.run.model_dump(),
        _perplexity_cells(row.perplexity) | mask if row.perplexity else {},
        _zero_shot_cells(row.zero_shot) | mask if row.zero_shot else {},
        _pruning_cells(row.pruning) | mask if row.pruning else {},
        origin,
    ]


def _perplexity_cells(part: PerplexitySummary) -> Cells:
    cells: Cells = {}
    for split, values in part.splits.items():
        cells[f"perplexity_{split}"] = values.perplexity
        cells[f"windows_{split}"] = values.windows
        cells[f"tokens_hash_{split}"] = values.tokens_hash
    others = part.model_dump(exclude={"splits"})
    return cells | {f"perplexity_{name}": value for name, value in others.items()}


def _zero_shot_cells(part: ZeroShotSummary) -> Cells:
    cells: Cells = {}
    for task, values in part.tasks.items():
        cells |= {f"{task}_{name}": value for name, value in values.model_dump().items()}
    cells |= {"mean_acc": part.mean("acc"), "mean_acc_norm": part.mean("acc_norm")}
    return cells | {"zero_shot_limit": part.limit, "zero_shot_seconds": part.seconds}


def _pruning_cells(part: PruningSummary) -> Cells:
    return {
        "mean_sparsity": part.mean_sparsity,
        "pruning_seconds": part.seconds,
        "calibration_tokens": part.tokens,
        "calibration_hash": part.calibration_hash,
    }
