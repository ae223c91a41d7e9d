"""Which method is best, and which cannot be told apart from it.

In each column of a table, under each pattern and with each calibration, the best is held against
every other method.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dass.report.experiment import Draws, Line, Lines, TableSettings
from dass.report.measures import Accuracy, Measure, Perplexity, measured, value_of
from dass.results.significance import LEVEL, RESAMPLES, differences, holm, p_value


class Column(NamedTuple):
    """What is measured of which model: a column of a table, or of one of its sections."""

    model: str
    measure: Measure


class Verdict(NamedTuple):
    """What came out of a contest."""

    best: Line
    """The best by its value."""
    tied: frozenset[Line]
    """It and those that noise does not tell apart from it; empty where it is better than all."""


Contest = tuple[Measure, Mapping[Line, Draws]]
"""The lines that are held against one another; those without results stay out."""


class Place(NamedTuple):
    """Where in a table methods are held against one another."""

    pattern: str
    calibration: str
    column: Column


Verdicts = dict[Place, Verdict]
"""Where there are two methods at least."""


def perplexities(settings: TableSettings) -> list[Perplexity]:
    """What has a table and a figure each: the first text's split, then that of each other text."""
    others = [Perplexity(split, dataset) for dataset, split in settings.others.items()]
    return [Perplexity(settings.split), *others]


def perplexity_columns(settings: TableSettings, measure: Perplexity) -> list[Column]:
    """The columns of a perplexity table."""
    return [Column(model, measure) for model in settings.models]


def zero_shot_columns(settings: TableSettings) -> list[Column]:
    """The columns of each section of the zero-shot table: the tasks, then their mean."""
    own = [Accuracy((task,), settings.metric) for task in settings.tasks]
    own.append(mean_accuracy(settings))
    return [Column(model, measure) for model in settings.models for measure in own]


def mean_accuracy(settings: TableSettings) -> Accuracy:
    """The mean over the tasks of the settings."""
    return Accuracy(tuple(settings.tasks), settings.metric)


def table_verdicts(
    shown: Mapping[str, Lines], settings: TableSettings, columns: Sequence[Column]
) -> Verdicts:
    """The verdicts of a whole table: all its comparisons are corrected for together."""
    contests: dict[Place, Contest] = {
        Place(pattern, calibration, column): (
            column.measure,
            {
                line: shown[column.model][line]
                for line in settings.lines(pattern)
                if line.calibration == calibration
            },
        )
        for pattern in settings.patterns
        for calibration in settings.calibrations
        for column in dict.fromkeys(columns)
    }
    found = zip(contests, judge(contests.values()), strict=True)
    return {key: verdict for key, verdict in found if verdict}


def all_verdicts(shown: Mapping[str, Lines], settings: TableSettings) -> dict[Measure, Verdicts]:
    """Those of each table of an experiment, by its measure; of tasks by the mean of all."""
    columns: dict[Measure, list[Column]] = {
        measure: perplexity_columns(settings, measure) for measure in perplexities(settings)
    }
    columns[mean_accuracy(settings)] = zero_shot_columns(settings)
    return {measure: table_verdicts(shown, settings, own) for measure, own in columns.items()}


def judge(contests: Iterable[Contest]) -> list[Verdict | None]:
    """The verdict of each contest; None where there are not two to compare.

    The best is held against each other by :func:`dass.results.significance.p_value`; Holm's
    correction is over all comparisons of all contests.
    """
    entered = [_entered(contest) for contest in contests]
    bests = [_best(contest) for contest in entered]
    pairs = [
        (number, best, line)
        for number, (best, (_, lines)) in enumerate(zip(bests, entered, strict=True))
        for line in lines
        if best is not None and line != best
    ]
    # So that the least p-value can stay below the level after its correction.
    resamples = max(RESAMPLES, 40 * len(pairs))
    p_values = [_compare(entered[n], best, line, resamples) for n, best, line in pairs]
    tied: list[set[Line]] = [set() for _ in entered]
    for (number, best, line), p in zip(pairs, holm(p_values), strict=True):
        if p >= LEVEL:
            tied[number] |= {best, line}
    compared = {number for number, _, _ in pairs}
    return [
        Verdict(best, frozenset(tied[n])) if best is not None and n in compared else None
        for n, best in enumerate(bests)
    ]


def _entered(contest: Contest) -> Contest:
    measure, lines = contest
    own = {line: measured(measure, draws) for line, draws in lines.items()}
    return measure, {line: draws for line, draws in own.items() if draws}


def _best(contest: Contest) -> Line | None:
    """The first of the best values."""
    measure, lines = contest
    values = {line: value for line, own in lines.items() if (value := value_of(measure, own))}
    sign = 1 if measure.lowest_is_best else -1
    return min(values, key=lambda line: sign * values[line].value, default=None)


def _compare(contest: Contest, best: Line, other: Line, resamples: int) -> float:
    """The p-value of their difference; 1 where the items do not say that the best is better.

    The mean of perplexities may be lower than another although that of log-likelihoods is not.
    """
    measure, lines = contest
    ours, theirs = (
        {seed: measure.items(row) for seed, row in lines[line].items()} for line in (best, other)
    )
    parts = [
        differences(
            {seed: items[part] for seed, items in ours.items()},
            {seed: items[part] for seed, items in theirs.items()},
        )
        for part in range(len(next(iter(ours.values()))))
    ]
    mean = sum(part.mean() for part in parts)
    better = mean < 0 if measure.lowest_is_best else mean > 0
    return p_value(parts, resamples) if better else 1.0
