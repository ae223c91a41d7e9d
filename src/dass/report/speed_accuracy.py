"""Accuracy against speed: what each pruned run gains end to end, beside what it costs.

Speed is of the run's own prefill and decode on a GPU, against the dense model in the same
interleaved rounds; perplexity and accuracy are those of the run's evaluation. A run that lacks
either is left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dass.report.contests import mean_accuracy
from dass.report.experiment import DENSE_LINE, Line, Lines, TableSettings, shown_rows
from dass.report.measures import Measure, Perplexity, Value, cell_of, value_of
from dass.report.speed_tables import ENGINES, NOT_MEASURED, about_machine, source_of
from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.report.words import pattern_label, sentences
from dass.results.summary import SummaryRow
from dass.speed.results import SpeedResult
from dass.speed.timing import Measurement, Spread, speed_up
from dass.terms import DENSE

MODE = "graph"
"""Of all speeds here: without the host's share of a call, as in a server."""
WHAT = {
    "decode": "Decode: one token of each of so many sequences, on a static cache of 1024 places, "
    "half full",
    "prefill": "Prefill: so many tokens per call",
}
Timings = dict[int, list[tuple[Measurement, Measurement]]]
"""Tokens per call -> dense and pruned, of each draw."""


class Speed(NamedTuple):
    """At one number of tokens per call."""

    tokens_per_second: float
    times: Spread
    """As fast as dense; over the rounds of all draws."""


@dataclass(frozen=True)
class Entry:
    """A line of runs with one engine on one card."""

    line: Line
    name: str
    """The line's, without the engine."""
    engine: str
    perplexity: Value
    speeds: dict[int, Speed]
    """By tokens per call."""
    weights: float | None
    """Bytes of all the model's weights over those of the dense model; None: not known."""
    files: tuple[str, ...]
    """What the speeds come from."""


@dataclass(frozen=True)
class Panel:
    """One model on one card."""

    title: str
    lines: Lines
    entries: list[Entry]
    results: list[SpeedResult]
    """Those that the entries are made of."""
    dense: dict[int, tuple[float, str]]
    """Tokens per call -> the dense model's tokens per second, the median of all runs' files, and
    the file that has it."""
    dense_perplexity: Value | None


def panels_of(
    part: str,
    results: Iterable[SpeedResult],
    rows: Iterable[SummaryRow],
    settings: TableSettings,
) -> list[Panel]:
    """What was measured, model by model and card by card; a card without any run has none.

    Args:
        part: ``prefill`` or ``decode``.
        results: of speed, those of runs among them.
        rows: of these runs and of the dense models.
        settings: what to show.
    """
    shown = shown_rows(rows, settings)
    cards: dict[str, dict[str, SpeedResult]] = {}
    for result in results:
        if result.run:
            cards.setdefault(card_of(result), {})[result.run] = result
    return [
        panel
        for model in settings.models
        for card, by_run in cards.items()
        if (panel := _panel(part, model, card * (len(cards) > 1), by_run, shown[model], settings))
    ]


def _panel(
    part: str, model: str, card: str, by_run: Mapping[str, SpeedResult], lines: Lines,
    settings: TableSettings,
) -> Panel | None:  # fmt: skip
    """One model's, if there are any entries; the card is named where there are several."""
    measure, entries, used = Perplexity(settings.split), [], []
    for pattern in settings.patterns:
        for line, name in settings.lines(pattern).items():
            perplexity = value_of(measure, lines[line])
            runs = map(str, settings.runs(model, line).values())
            own = [by_run[run] for run in runs if run in by_run]
            if perplexity and (found := list(_entries(part, own, line, name, perplexity))):
                entries += found
                used += own
    if not entries:
        return None
    title = ", ".join(filter(None, [settings.models[model], card]))
    dense = value_of(measure, lines[DENSE_LINE])
    return Panel(title, lines, entries, used, _dense_speeds(part, used), dense)


def card_of(result: SpeedResult) -> str:
    """What it was measured on."""
    gpu = result.machine.get("gpu")
    return str(gpu["name"] if gpu else result.machine.get("cpu"))


def _entries(
    part: str, results: Sequence[SpeedResult], line: Line, name: str, perplexity: Value
) -> Iterator[Entry]:
    """One entry per engine, of the results of a line's draws."""
    timed: dict[str, Timings] = {}
    for result in results:
        dense = _dense_of(part, result)
        for one in result.of(part):
            if one.mode == MODE and one.variant != DENSE and one.tokens in dense:
                pairs = timed.setdefault(one.engine, {}).setdefault(one.tokens, [])
                pairs.append((dense[one.tokens], one))
    files = tuple(map(source_of, results))
    for engine, timings in timed.items():
        speeds = {tokens: _speed(tokens, pairs) for tokens, pairs in sorted(timings.items())}
        yield Entry(line, name, engine, perplexity, speeds, _weights(results, engine), files)


def _dense_of(part: str, result: SpeedResult) -> dict[int, Measurement]:
    measured = [m for m in result.of(part) if (m.mode, m.variant) == (MODE, DENSE)]
    return {m.tokens: m for m in measured if m.engine == "torch"}


def _speed(tokens: int, pairs: Sequence[tuple[Measurement, Measurement]]) -> Speed:
    dense, pruned = ([s for pair in pairs for s in pair[side].seconds] for side in (0, 1))
    return Speed(tokens / statistics.median(pruned), speed_up(dense, pruned))


def _dense_speeds(part: str, results: Sequence[SpeedResult]) -> dict[int, tuple[float, str]]:
    found: dict[int, list[tuple[float, str]]] = {}
    for result in results:
        for tokens, one in _dense_of(part, result).items():
            speed = tokens / one.spread.median
            found.setdefault(tokens, []).append((speed, source_of(result)))
    return {tokens: statistics.median_low(speeds) for tokens, speeds in found.items()}


def _weights(results: Sequence[SpeedResult], engine: str) -> float | None:
    """The mean over draws: bitmaps of different masks differ by a little."""
    sizes = [r.weight_bytes for r in results if {"torch", engine} <= r.weight_bytes.keys()]
    return statistics.fmean(own[engine] / own["torch"] for own in sizes) if sizes else None


# --- Table --------------------------------------------------------------------------------------


def speed_accuracy_table(part: str, panels: Sequence[Panel], settings: TableSettings) -> Table:
    """One section per model and card: what each run is worth, its weights, its speeds."""
    counts = sorted({n for panel in panels for entry in panel.entries for n in entry.speeds})
    measures: dict[str, Measure] = {"perplexity": Perplexity(settings.split)}
    if settings.tasks:
        measures[f"mean {settings.metric}"] = mean_accuracy(settings)
    speeds = [head for n in counts for head in (f"{n}: tokens/s", f"{n}: ×")]
    columns = [*measures, "weights", *speeds]
    nothing = TableSection("", [RowGroup(NOT_MEASURED, [("", [Cell()] * len(columns))])])
    sections = [
        TableSection(panel.title, _groups(panel, counts, measures.values())) for panel in panels
    ]
    caption = sentences(
        f"{settings.title}. {WHAT[part]}, end to end, as CUDA graphs",
        "×: times as fast as dense, which took turns with the run, ± half the distance of the "
        "quartiles; below 1 is slower. Dense: the median of its measurements beside the runs",
        "Weights: bytes of the whole model, its MLPs packed and all else dense, relative to dense",
        f"Perplexity on the {settings.split} split" + (" and accuracy" if settings.tasks else "")
        + ": ± as in the tables of the experiments",
        *measured_on(panels),
        settings.note,
    )  # fmt: skip
    corner = ("Sparsity", "Method")
    return Table(columns, sections or [nothing], caption, settings.label(part), corner)


def measured_on(panels: Sequence[Panel]) -> list[str]:
    """Machines and versions, a sentence each."""
    return list(dict.fromkeys(about_machine(one) for panel in panels for one in panel.results))


def _groups(panel: Panel, counts: Sequence[int], measures: Collection[Measure]) -> list[RowGroup]:
    """Dense, then the runs by pattern."""
    worth = {
        line: [cell_of(measure, panel.lines[line]) for measure in measures]
        for line in (DENSE_LINE, *(entry.line for entry in panel.entries))
    }
    dense = [*worth[DENSE_LINE], Cell("1")]
    for n in counts:
        speed, file = panel.dense.get(n, (None, ""))
        dense += (
            [Cell(), Cell()] if speed is None else [_per_second(speed).made_of(file), Cell("1")]
        )
    groups = {"": [("Dense", dense)]}
    for entry in panel.entries:
        cells = [cell.made_of(*entry.files) for cell in _cells(entry, counts)]
        row = f"{entry.name}, {ENGINES.get(entry.engine, entry.engine)}"
        rows = groups.setdefault(pattern_label(str(entry.line.pattern)), [])
        rows.append((row, worth[entry.line] + cells))
    return [RowGroup(label, rows) for label, rows in groups.items()]


def _cells(entry: Entry, counts: Sequence[int]) -> Iterator[Cell]:
    yield Cell() if entry.weights is None else Cell(f"{entry.weights:.2f}")
    for n in counts:
        if speed := entry.speeds.get(n):
            low, median, high = speed.times
            yield _per_second(speed.tokens_per_second)
            yield Cell(f"{median:.2f}", f"{(high - low) / 2:.2f}")
        else:
            yield from (Cell(), Cell())


def _per_second(tokens_per_second: float) -> Cell:
    return Cell(f"{tokens_per_second:,.0f}")


# --- What the figure shows ----------------------------------------------------------------------


def tokens_drawn(part: str, panel: Panel) -> int:
    """Tokens per call of a panel's points: decode of the fewest sequences, the largest prefill."""
    counts = [n for entry in panel.entries for n in entry.speeds]
    return min(counts) if part == "decode" else max(counts)


def points_of(part: str, panel: Panel) -> list[tuple[Entry, Spread]]:
    """A point per line: the engine that is fastest with its masks, and how fast that is."""
    best: dict[Line, tuple[Entry, Spread]] = {}
    tokens = tokens_drawn(part, panel)
    for entry in panel.entries:
        if speed := entry.speeds.get(tokens):
            known = best.get(entry.line)
            if known is None or speed.times.median > known[1].median:
                best[entry.line] = entry, speed.times
    return list(best.values())


def figure_caption(part: str, panels: Sequence[Panel], settings: TableSettings) -> str:
    """The figure's caption."""
    counts = sorted({tokens_drawn(part, panel) for panel in panels})
    calls = " or ".join(f"{n:,}" for n in counts) or "so many"
    what = "sequences generating a token each" if part == "decode" else "tokens per call"
    draws = any(len(draws) > 1 for draws in settings.draws.values())
    return sentences(
        f"{settings.title}: perplexity on the {settings.split} split over how many times as fast "
        f"as dense a run's {part} is ({what}: {calls}), with the engine that is fastest for it; "
        "to the right is faster, below is better",
        "Bars: quartiles of the speed" + (", standard deviation over draws" if draws else ""),
        *measured_on(panels),
        settings.note,
    )
