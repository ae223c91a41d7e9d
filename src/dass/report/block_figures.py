"""Figures of decoder blocks: how far activations are spread, what pruning does to each block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from dass.report.block_tables import ERRORS, TITLE, BlockSettings, measured_on
from dass.report.plots import DENSE_STYLE, log_ticks, panels, styles_of
from dass.report.words import pattern_label, sentences
from dass.results.schema import ActivationsResult, BlockNorms, BlocksResult, NormSpread

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDES = {"input": "input X", "intermediate": "intermediate Z"}
"""Field of :class:`dass.results.schema.BlockNorms` -> what it is called."""
_COLOURS = {"input": "#0072b2", "intermediate": "#9e1f63"}
_BANDS = [("1", "99", 0.15), ("5", "95", 0.25), ("25", "75", 0.4)]
"""Lower and upper percentile, and how opaque the band between them is."""

Draw = tuple[str, "Callable[[Axes], None]"]
"""A panel: its title, and what draws it."""


def norms_figure(results: Sequence[ActivationsResult], settings: BlockSettings) -> Figure:
    """Percentiles of norms relative to the median by block, log scale: two panels per model."""

    def draw(axes: Axes, result: ActivationsResult, side: str) -> None:
        own = [_side(block, side) for block in result.blocks]
        places, colour = range(len(own)), _COLOURS[side]
        for low, high, alpha in _BANDS:
            below, above = ([one.percentiles[at] for one in own] for at in (low, high))
            axes.fill_between(places, below, above, color=colour, alpha=alpha, linewidth=0)
        loudest = [one.percentiles["100"] for one in own]
        axes.plot(places, loudest, color=colour, marker="o", markersize=2, linewidth=1)
        axes.axhline(1, **DENSE_STYLE)
        axes.set_yscale("log")
        log_ticks(axes, "×")

    shown = [
        (f"{settings.models[one.model]}, {words}", _bound(draw, one, side))
        for one in _known(results, settings)
        for side, words in _SIDES.items()
    ]
    return _figure(shown, "block", "norm / median", _band_marks())


def outliers_figure(results: Sequence[ActivationsResult], settings: BlockSettings) -> Figure:
    """Share of channels above five times the mean norm by block: one panel per model."""

    def draw(axes: Axes, result: ActivationsResult) -> None:
        for side in _SIDES:
            shares = [100 * _side(block, side).outliers for block in result.blocks]
            axes.plot(range(len(shares)), shares, color=_COLOURS[side], marker="o", markersize=3,
                      linewidth=1)  # fmt: skip
        axes.set_ylim(bottom=0)

    shown = [(settings.models[one.model], _bound(draw, one)) for one in _known(results, settings)]
    marks = {words: _mark(_COLOURS[side], "o") for side, words in _SIDES.items()}
    return _figure(shown, "block", "outliers in %", marks)


def errors_figure(kind: str, results: Sequence[BlocksResult], settings: BlockSettings) -> Figure:
    """An error of :data:`ERRORS` by block, a line per method: one panel per pattern and model."""
    error = ERRORS[kind]
    lines = _lines(results, settings, lambda one: [100 * error.of(b) for b in one.blocks])
    return _figure(lines, "block", error.axis, _method_marks(settings))


def kept_figure(results: Sequence[BlocksResult], settings: BlockSettings) -> Figure:
    """Kept share of gate and up by tenth of the neurons, mean over blocks: panels as for errors."""

    def shares(result: BlocksResult) -> list[float]:
        columns = zip(*(block.kept for block in result.blocks), strict=True)
        return [100 * sum(column) / len(column) for column in columns]

    shown = _lines(results, settings, shares, first=1)
    axis = "tenth of the neurons by ‖Z‖, loudest last"
    return _figure(shown, axis, "kept weights of gate and up in %", _method_marks(settings))


def block_captions(errors: Sequence[BlocksResult], settings: BlockSettings) -> dict[str, str]:
    """What stands below each figure, by name: those of :func:`block_figures`."""
    layout = "One panel per pattern and model; one line per method"
    about = {
        "norms": [
            "L2 norms of the channels of what goes into each GLU (X) and into its down projection "
            "(Z), over the calibration tokens of the dense model, relative to their median, on a "
            "logarithmic scale. Bands: 1 to 99, 5 to 95 and 25 to 75 % of the channels; line: the "
            "loudest"
        ],
        "outliers": ["Share of channels whose norm is above five times the mean of their block"],
        **{
            kind: [f"{error.words}; lower is better", layout, *measured_on(errors)]
            for kind, error in ERRORS.items()
        },
        "kept": [
            "Share of the weights of gate and up that is kept, by tenths of the intermediate "
            "neurons sorted by the norm of Z in the dense model, mean over blocks",
            layout,
        ],
    }  # fmt: skip
    return {kind: sentences(TITLE, *texts, settings.note) for kind, texts in about.items()}


def block_figures(
    activations: Sequence[ActivationsResult],
    errors: Sequence[BlocksResult],
    settings: BlockSettings,
) -> dict[str, Figure]:
    """All figures of blocks, by name."""
    return {
        "norms": norms_figure(activations, settings),
        "outliers": outliers_figure(activations, settings),
        **{kind: errors_figure(kind, errors, settings) for kind in ERRORS},
        "kept": kept_figure(errors, settings),
    }


# --- Panels -------------------------------------------------------------------------------------


def _side(block: BlockNorms, side: str) -> NormSpread:
    spread: NormSpread = getattr(block, side)
    return spread


def _known(
    results: Iterable[ActivationsResult], settings: BlockSettings
) -> list[ActivationsResult]:
    """The results of the models that are shown, in their order."""
    found = {result.model: result for result in results}
    return [found[model] for model in settings.models if model in found]


def _bound(draw: Callable[..., None], *values: object) -> Callable[[Axes], None]:
    return lambda axes: draw(axes, *values)


def _lines(
    results: Sequence[BlocksResult], settings: BlockSettings,
    values: Callable[[BlocksResult], list[float]], first: int = 0,
) -> list[Draw]:  # fmt: skip
    """A panel per pattern and model with a line per method; places are counted from ``first``."""
    found = {result.run: result for result in results}
    styles = method_styles(settings)

    def draw(axes: Axes, model: str, pattern: str) -> None:
        for method, (colour, marker) in styles.items():
            if (result := found.get(settings.run(model, method, pattern))) is not None:
                shown = values(result)
                axes.plot(range(first, first + len(shown)), shown, color=colour, marker=marker,
                          markersize=3, linewidth=1)  # fmt: skip
        axes.set_ylim(bottom=0)

    return [
        (f"{label}, {pattern_label(pattern)}", _bound(draw, model, pattern))
        for pattern in settings.patterns
        for model, label in settings.models.items()
    ]


def method_styles(settings: BlockSettings) -> dict[str, tuple[str, str]]:
    """Method -> colour and marker; the paper's methods have theirs, as in every figure."""
    return styles_of({method: method for method in settings.methods})


def _figure(shown: Sequence[Draw], x: str, y: str, marks: dict[str, Artist]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes, index: int) -> None:
        shown[index][1](axes)
        axes.set_xlabel(x)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return panels([title for title, _ in shown], y, draw, marks, sharey=True)


def _mark(colour: str, marker: str) -> Artist:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, markersize=3, linewidth=1)


def _method_marks(settings: BlockSettings) -> dict[str, Artist]:
    styles = method_styles(settings)
    return {label: _mark(*styles[method]) for method, label in settings.methods.items()}


def _band_marks() -> dict[str, Artist]:
    from matplotlib.patches import Patch

    bands: dict[str, Artist] = {
        f"{low} to {high} %": Patch(color="black", alpha=alpha, linewidth=0)
        for low, high, alpha in _BANDS
    }
    return bands | {"loudest": _mark("black", "o")}
