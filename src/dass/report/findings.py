"""What an experiment shows, in two or three sentences made of its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dass.pruning.patterns import parse_pattern
from dass.report.contests import (
    Place,
    Verdict,
    Verdicts,
    all_verdicts,
    judge,
    mean_accuracy,
    perplexities,
)
from dass.report.experiment import DENSE_LINE, Draws, Line, Lines, TableSettings, shown_rows
from dass.report.measures import Measure, Perplexity, measured, value_of
from dass.report.words import listed, pattern_label
from dass.report.x_figures import Curve, curves_of
from dass.results.summary import SummaryRow

_MOST = 3
"""Sentences per experiment, and one more for each other text."""


def findings(
    rows: Iterable[SummaryRow],
    settings: TableSettings,
    verdicts: Mapping[Measure, Verdicts] | None = None,
) -> list[str]:
    """Three sentences at most, one more for each other text, and none where nothing was measured.

    Along an axis: where each method is best. Otherwise which method is best, and what that costs.
    ``verdicts`` are those of :func:`dass.report.contests.all_verdicts`, where they are known.
    """
    shown = shown_rows(rows, settings)
    first, *others = perplexities(settings)
    if settings.x and settings.x != "sparsity":
        said = _optima(shown, settings, first)
        rest: list[Measure] = [*others, mean_accuracy(settings)]
        more = [text for measure in rest for text in _optima(shown, settings, measure)[:1]]
        said = [*said[: _MOST - 1], *more, *said[_MOST - 1 :]]
    else:
        judged = all_verdicts(shown, settings) if verdicts is None else verdicts
        said = [_comparison(shown, settings, measure, own) for measure, own in judged.items()]
        said.append(_cost(shown, settings))
    return [sentence for sentence in said if sentence][: _MOST + len(others)]


def _superlative(measure: Measure) -> str:
    return "lowest" if measure.lowest_is_best else "highest"


@dataclass(frozen=True)
class _Unit:
    """What is counted: models, or cases of models and of something else."""

    total: int
    parts: Sequence[str]
    """What tells cases apart: ``model``, ``sparsity``, …; what all share is none."""

    @property
    def preposition(self) -> str:
        """``on`` a model; ``in`` a case."""
        return "on" if list(self.parts) == ["model"] else "in"

    def count(self, number: int) -> str:
        """``on 2``; ``in 2``."""
        return f"{self.preposition} {number}"

    def share(self, number: int) -> str:
        """``on 2 of 3 models``; ``in 2 of 6 cases of model and sparsity``."""
        what = "models" if self.preposition == "on" else f"cases of {listed(self.parts)}"
        return f"{self.count(number)} of {self.total} {what}"


# --- Which method is best -----------------------------------------------------------------------


def _comparison(
    shown: Mapping[str, Lines], settings: TableSettings, measure: Measure, verdicts: Verdicts
) -> str:
    """``At 2:4 SparseGPT has the lowest perplexity on 3 of 3 models, beyond noise on 2; …``."""
    own = {place: v for place, v in verdicts.items() if place.column.measure == measure}
    if not own:
        return ""
    labels = {
        line: settings.methods[line.method] for p in settings.patterns for line in settings.lines(p)
    }
    patterns = list(dict.fromkeys(place.pattern for place in own))
    start = f"At {pattern_label(patterns[0])} " if len(patterns) == 1 else ""
    what = f"the {_superlative(measure)} {measure.name}"
    if len(own) == 1:
        ((place, verdict),) = own.items()
        draws = shown[place.column.model][verdict.best]
        said = _single(settings, place, verdict, labels, draws)
        return f"At {pattern_label(place.pattern)} {said}."
    kinds = {
        "model": {place.column.model for place in own},
        "sparsity": set(patterns),
        "calibration": {place.calibration for place in own},
    }
    unit = _Unit(len(own), [kind for kind, found in kinds.items() if len(found) > 1])
    wins = Counter(labels[verdict.best] for verdict in own.values())
    leader = max(_in_order(wins, labels), key=lambda label: wins[label])
    won = [verdict for verdict in own.values() if labels[verdict.best] == leader]
    rest = [name for name in _in_order(wins, labels) if name != leader]
    others = [f"{name} {unit.count(wins[name])}" for name in rest]
    ties = Counter(labels[line] for v in won for line in v.tied if line != v.best)
    tied = [f"from {name} {unit.count(ties[name])}" for name in _in_order(ties, labels)]
    return (
        f"{start}{leader} has {what} {unit.share(len(won))}"
        f"{f' ({listed(others)})' if others else ''}, {_beyond_noise(won, unit)}"
        f"{f'; it cannot be told apart {listed(tied)}' if tied else ''}."
    )


def _single(
    settings: TableSettings,
    place: Place,
    verdict: Verdict,
    labels: Mapping[Line, str],
    draws: Draws,
) -> str:
    """The only case there is, with its number."""
    measure = place.column.measure
    text = (
        f"on {settings.models[place.column.model]} {labels[verdict.best]} has the "
        f"{_superlative(measure)} {measure.name} ({_printed(measure, draws)})"
    )
    others = [label for line, label in labels.items() if line in verdict.tied - {verdict.best}]
    if not others:
        return f"{text}, beyond noise"
    return f"{text}; {listed(others)} cannot be told apart from it"


def _beyond_noise(won: Sequence[Verdict], unit: _Unit) -> str:
    """In how many of the cases it is better than all others beyond noise."""
    alone = sum(not verdict.tied for verdict in won)
    if alone in (0, len(won)):
        return f"beyond noise {unit.preposition} {'each' if alone else 'none'}"
    return f"beyond noise {unit.count(alone)}"


def _in_order(counts: Mapping[str, int], labels: Mapping[Line, str]) -> list[str]:
    """The labels that are counted, in the order of the tables."""
    return [label for label in dict.fromkeys(labels.values()) if counts.get(label)]


def _printed(measure: Measure, draws: Draws) -> str:
    """``12.3 ± 0.1``, as in the tables."""
    value = value_of(measure, draws)
    text, error = measure.texts(value) if value else ("", "")
    unit = "" if measure.lowest_is_best else " %"
    return (f"{text} ± {error}" if error else text) + unit


def _cost(shown: Mapping[str, Lines], settings: TableSettings) -> str:
    """``At 2:4 the lowest perplexity is 1.48 to 1.62 times that of the dense model.``"""
    measure = Perplexity(settings.split)
    pattern = max(reversed(settings.patterns), key=lambda p: parse_pattern(p).sparsity)
    ratios = []
    for own in shown.values():
        dense = value_of(measure, own[DENSE_LINE])
        values = [value_of(measure, own[line]) for line in settings.lines(pattern)]
        found = [value.value for value in values if value]
        if dense and found:
            ratios.append(min(found) / dense.value)
    if not ratios:
        return ""
    times = _span(min(ratios), max(ratios), ".2f" if max(ratios) < 10 else ".3g")
    start = f"At {pattern_label(pattern)} the lowest perplexity is"
    return f"{start} {times} times that of the dense model."


def _span(low: float, high: float, form: str) -> str:
    """``1.4 to 1.6``, or one number where both are printed alike."""
    return " to ".join(dict.fromkeys(f"{value:{form}}" for value in (low, high)))


# --- Where each method is best along an axis ----------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """The lines of a curve that have results, of one model."""

    model: str
    lines: Mapping[Line, Draws]
    measure: Measure

    def value(self, line: Line) -> float:
        """The mean over draws."""
        value = value_of(self.measure, self.lines[line])
        assert value is not None
        return value.value

    @property
    def extremes(self) -> tuple[Line, Line]:
        """Those with the lowest and with the highest value."""
        return min(self.lines, key=self.value), max(self.lines, key=self.value)


def _optima(shown: Mapping[str, Lines], settings: TableSettings, measure: Measure) -> list[str]:
    """A sentence for each method whose value changes along the axis."""
    by_method: dict[str, list[_Case]] = {}
    for curve in curves_of(settings):
        for case in _cases(curve, shown, settings, measure):
            by_method.setdefault(curve.method, []).append(case)
    cases = [case for own in by_method.values() for case in own]
    verdicts = dict(zip(map(id, cases), judge((measure, c.lines) for c in cases), strict=True))
    said = []
    for method, own in by_method.items():
        found = [(case, verdict) for case in own if (verdict := verdicts[id(case)])]
        if found:
            said.append(_optimum(method, found, settings, measure))
    return said


def _cases(
    curve: Curve, shown: Mapping[str, Lines], settings: TableSettings, measure: Measure
) -> list[_Case]:
    """A curve's, where its values are not all the same."""
    found = []
    for model, own in shown.items():
        lines = {
            line: draws
            for line in curve.lines
            if settings.x_value(line) is not None and (draws := measured(measure, own[line]))
        }
        case = _Case(model, lines, measure)
        if lines and case.value(case.extremes[0]) < case.value(case.extremes[1]):
            found.append(case)
    return found


def _optimum(
    method: str,
    found: Sequence[tuple[_Case, Verdict]],
    settings: TableSettings,
    measure: Measure,
) -> str:
    """``DaSS's perplexity is lowest at alpha 0.5 (12.3 ± 0.1), …``."""
    start = f"{method}'s {measure.name} is {_superlative(measure)}"
    if len(found) == 1:
        return f"{start} {_single_optimum(*found[0], settings)}."
    if len({case.model for case, _ in found}) == 1:
        return f"{start} {_by_pattern(found, settings)}."
    alone = len({case.model for case, _ in found}) == len(found)
    unit = _Unit(len(found), ["model", *([] if alone else ["setting"])])
    places = list(dict.fromkeys(settings.x_values.values()))
    counts = Counter(settings.x_value(verdict.best) for _, verdict in found)
    best = max(sorted(counts, key=lambda x: places.index(x or 0)), key=lambda x: counts[x])
    won = [verdict for _, verdict in found if settings.x_value(verdict.best) == best]
    gaps = [_gap(case) for case, _ in found]
    return (
        f"{start} {_at(settings, best)} {unit.share(len(won))}, {_beyond_noise(won, unit)}; the "
        f"highest value lies {_span(min(gaps), max(gaps), '.0f')} {_gap_unit(measure)} above the "
        "lowest."
    )


def _by_pattern(found: Sequence[tuple[_Case, Verdict]], settings: TableSettings) -> str:
    """``at alpha 0.75 for 50 %: 47.6 ± 0.3; at alpha 1 for 2:4: 106.7 ± 1.9 (a tie)``."""
    said = []
    for case, verdict in found:
        best = verdict.best
        number = _printed(case.measure, case.lines[best])
        at = _at(settings, settings.x_value(best))
        tied = " (a tie)" if verdict.tied else ""
        said.append(f"{at} for {pattern_label(best.pattern or '')}: {number}{tied}")
    return "; ".join(said)


def _single_optimum(case: _Case, verdict: Verdict, settings: TableSettings) -> str:
    best, measure = verdict.best, case.measure
    low, high = case.extremes
    worst = high if measure.lowest_is_best else low
    share = 100 * (1 - case.value(low) / case.value(high)) if high == worst else _gap(case)
    side = "below" if measure.lowest_is_best else "above"
    text = (
        f"{_at(settings, settings.x_value(best))} ({_printed(measure, case.lines[best])}), "
        f"{_rounded(share)} {_gap_unit(measure)} {side} the value "
        f"{_at(settings, settings.x_value(worst))}"
    )
    tied = [line for line in case.lines if line in verdict.tied - {best}]
    others = [_number(settings.x_value(line)) for line in tied]
    if not others:
        return f"{text}, and better than at all others beyond noise"
    return f"{text}; {listed(others)} cannot be told apart from it"


def _rounded(share: float) -> str:
    """``38``; ``0.2``: with a decimal where there is nothing before it."""
    return f"{share:.0f}" if share >= 1 else f"{share:.1g}"


def _gap(case: _Case) -> float:
    """By how many percent, or points of accuracy, the highest is above the lowest."""
    low, high = (case.value(line) for line in case.extremes)
    return 100 * (high / low - 1) if case.measure.lowest_is_best else 100 * (high - low)


def _gap_unit(measure: Measure) -> str:
    return "%" if measure.lowest_is_best else "points"


def _number(x: float | str | None) -> str:
    return f"{x:g}" if isinstance(x, int | float) else str(x)


def _at(settings: TableSettings, x: float | str | None) -> str:
    """``at alpha 0.5``; ``with 128 sequences``."""
    value = _number(x)
    words = {
        "sequences": f"with {value} sequences",
        "length": f"with sequences of {value} tokens",
        "dataset": f"with {value}",
        "propagation": f"with {value} propagation",
    }
    return words.get(settings.x or "", f"at {settings.x} {value}")
