"""Figures along what varies: which lines are one curve, and what is drawn where."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from dass.report.experiment import Line, TableSettings
from dass.report.figures import perplexity_figure, zero_shot_figure
from dass.report.plots import OTHERS, STYLES, figure_bytes
from dass.report.x_figures import curve_styles, curves_of
from dass.results.summary import SummaryRow

from .rows import accuracy, row

ALPHAS = {"dass-a0": 0.0, "dass": 0.5, "dass-a1": 1.0}
SETTINGS = TableSettings(
    experiment="alpha",
    title="A title",
    models={"a": "Model A"},
    calibrations={"c4": ""},
    methods={"wanda": "Wanda"} | {key: f"DaSS {alpha:g}" for key, alpha in ALPHAS.items()},
    patterns=["2of4"],
    metric="acc",
    tasks=["piqa"],
    x="alpha",
    x_values=dict(ALPHAS),
    curves=dict.fromkeys(ALPHAS, "DaSS"),
)
VALUES = {"dass-a0": 7.0, "dass": 6.0, "dass-a1": 6.5, "wanda": 6.2}
ROWS = [
    row("a/dense", 5.5),
    *(row(f"a/c4/{m}/2of4", v, {"piqa": accuracy(v / 10)}) for m, v in VALUES.items()),
]
SEQUENCES = replace(
    SETTINGS,
    methods={"wanda": "Wanda", "dass": "DaSS"},
    calibrations={"few": "", "some": "", "many": ""},
    patterns=["u50", "2of4"],
    x="sequences",
    x_part="calibration",
    x_values={"few": 1, "some": 8, "many": 64},
    curves={"few": "", "some": "", "many": ""},
)


def joined(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Colour -> the points that lines of that colour join; two points are a line across."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in axes.lines:
        xy = list(zip(line.get_xdata(), line.get_ydata(), strict=True))  # type: ignore[arg-type]
        if len(xy) > 1:
            found.setdefault(to_hex(str(line.get_color())), []).extend(xy)
    return found


def labels(settings: TableSettings) -> list[str]:
    return [curve.label for curve in curves_of(settings)]


def test_methods_that_differ_on_the_axis_only_are_one_curve() -> None:
    wanda, dass = curves_of(SETTINGS)
    assert (wanda.label, dass.label) == ("Wanda", "DaSS")
    assert [line.method for line in dass.lines] == ["dass-a0", "dass", "dass-a1"]
    assert labels(replace(SETTINGS, patterns=["u50", "2of4"])) == [
        "Wanda, 50 %", "DaSS, 50 %", "Wanda, 2:4", "DaSS, 2:4",
    ]  # fmt: skip
    assert labels(replace(SETTINGS, calibrations={"c4": "", "pile": ""})) == [
        "Wanda, c4", "Wanda, pile", "DaSS, c4", "DaSS, pile",
    ]  # fmt: skip


def test_calibrations_and_patterns_are_joined_where_they_are_on_the_axis() -> None:
    assert labels(SEQUENCES) == ["Wanda, 50 %", "DaSS, 50 %", "Wanda, 2:4", "DaSS, 2:4"]
    first = curves_of(SEQUENCES)[0]
    assert first.lines == [Line(c, "wanda", "u50") for c in ("few", "some", "many")]
    several = replace(SEQUENCES, curves={"few": "dataset c4", "some": "dataset c4", "many": "pile"})
    assert labels(replace(several, patterns=["u50"])) == [
        "Wanda, dataset c4", "Wanda, pile", "DaSS, dataset c4", "DaSS, pile",
    ]  # fmt: skip
    sparsity = replace(
        SETTINGS, methods={"dass": "DaSS"}, patterns=["u50", "u70", "2of4"], x="sparsity",
        x_part="pattern", x_values={"u50": 50, "u70": 70, "2of4": 50},
        curves={"u50": "unstructured", "u70": "unstructured", "2of4": "N:4"},
    )  # fmt: skip
    assert labels(sparsity) == ["DaSS, unstructured", "DaSS, N:4"]


def test_a_curve_has_the_colour_of_its_method() -> None:
    wanda, dass = curve_styles(curves_of(SETTINGS))
    assert (wanda["color"], dass["color"]) == (STYLES["wanda"][0], STYLES["dass"][0])
    styles = curve_styles(curves_of(SEQUENCES))
    assert [style["color"] for style in styles] == [STYLES["wanda"][0], STYLES["dass"][0]] * 2
    assert styles[0]["linestyle"] == styles[1]["linestyle"] != styles[2]["linestyle"]
    alone = curve_styles(curves_of(replace(SEQUENCES, methods={"dass": "DaSS"})))
    assert [style["color"] for style in alone] == [STYLES["dass"][0], OTHERS[0][0]]


def test_points_stand_at_their_values_and_other_methods_are_lines_across() -> None:
    (axes,) = perplexity_figure(ROWS, SETTINGS).axes
    assert joined(axes) == {
        STYLES["wanda"][0]: [(0, 6.2), (1, 6.2)],
        STYLES["dass"][0]: [(0.0, 7.0), (0.5, 6.0), (1.0, 6.5)],
        "#000000": [(0, 5.5), (1, 5.5)],
    }
    assert axes.get_xlabel() == "alpha" and axes.get_ylabel() == "perplexity"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.5", "1"]


def test_accuracies_are_in_percent() -> None:
    (axes,) = zero_shot_figure(ROWS, SETTINGS).axes
    assert joined(axes)[STYLES["dass"][0]] == [
        (0.0, pytest.approx(70)), (0.5, pytest.approx(60)), (1.0, pytest.approx(65)),
    ]  # fmt: skip
    assert axes.get_ylabel() == "mean acc in %"


@pytest.mark.parametrize(("dense", "drawn"), [(5.1, True), (8.0, True), (4.9, False), (8.1, False)])
def test_dense_is_drawn_where_the_scale_gets_twice_as_long_at_most(
    dense: float, drawn: bool
) -> None:
    """Values reach from 6 to 7."""
    rows = [row("a/dense", dense), *ROWS[1:]]
    figure = perplexity_figure(rows, SETTINGS)
    (axes,), (legend,) = figure.axes, figure.legends
    assert ("#000000" in joined(axes)) == drawn == (5 <= dense <= 8)
    assert axes.get_title() == ("Model A" if drawn else f"Model A (dense: {dense:.2f})")
    assert ("Dense" in [text.get_text() for text in legend.get_texts()]) == drawn


def of_sequences(factor: float) -> list[SummaryRow]:
    return [
        row(f"a/{calibration}/{method}/{pattern}", 6 + factor / number)
        for calibration, number in SEQUENCES.x_values.items()
        if isinstance(number, int | float)
        for method in SEQUENCES.methods
        for pattern in SEQUENCES.patterns
    ]


def test_sequences_stand_on_a_logarithmic_axis_with_their_values() -> None:
    (axes,) = perplexity_figure(of_sequences(1), SEQUENCES).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "8", "64"]
    assert joined(axes)[STYLES["dass"][0]][:3] == [(1, 7.0), (8, 6.125), (64, 6 + 1 / 64)]
    (wide,) = perplexity_figure(of_sequences(100), SEQUENCES).axes
    assert wide.get_yscale() == "log"


def test_ticks_without_room_have_no_label() -> None:
    names = {f"c{n}": 2**n for n in range(12)}
    many = replace(
        SEQUENCES, calibrations=dict.fromkeys(names, ""), x_values=dict(names),
        curves=dict.fromkeys(names, ""),
    )  # fmt: skip
    rows = [row(f"a/{name}/dass/u50", 6 + 1 / n) for name, n in names.items()]
    figure = perplexity_figure(rows, many)
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in figure.axes[0].get_xticklabels() if t.get_text()]
    assert len(boxes) > 4
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_data_sets_are_categories() -> None:
    data = replace(SEQUENCES, x="dataset", x_values={"few": "c4", "some": "pile", "many": "wiki"})
    (axes,) = perplexity_figure(of_sequences(1), data).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["c4", "pile", "wiki"]
    assert axes.get_xlabel() == "calibration data"
    ends = [round(x) for x, _ in joined(axes)[STYLES["dass"][0]][:3]]
    assert ends == [0, 1, 2]


def test_a_single_draw_among_several_is_hollow_and_has_no_bar() -> None:
    settings = replace(
        SETTINGS, draws={"c4": {"c4-seed0": 0, "c4-seed1": 1}}, methods={"dass": "DaSS 0.5",
        "dass-a1": "DaSS 1"},
    )  # fmt: skip
    rows = [row("a/c4-seed0/dass/2of4", 6.0), row("a/c4-seed1/dass/2of4", 6.2),
            row("a/c4-seed0/dass-a1/2of4", 6.5)]  # fmt: skip
    (axes,) = perplexity_figure(rows, settings).axes
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, True]
    (bar,) = (c for c in axes.collections if len(c.get_paths()) == 1)
    low, high = bar.get_paths()[0].vertices[:, 1]  # type: ignore[index,call-overload]
    assert (low, high) == pytest.approx((6.1 - 0.02**0.5, 6.1 + 0.02**0.5))


@pytest.mark.parametrize("models", [1, 2, 6])
def test_nothing_is_cut(models: int) -> None:
    settings = replace(
        SEQUENCES, models={f"m{n}": f"A model with a long name {n}" for n in range(models)},
        methods={key: f"A method with a long name {key}" for key in ("dass", "wanda", "mine")},
    )  # fmt: skip
    figure = perplexity_figure([], settings)
    figure.draw_without_rendering()
    boxes = [legend.get_window_extent() for legend in figure.legends]
    boxes += [axes.get_tightbbox() for axes in figure.axes if axes.get_tightbbox()]  # type: ignore[misc]
    for box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1
        assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_the_same_numbers_give_the_same_bytes(kind: str) -> None:
    first, second = (figure_bytes(perplexity_figure(ROWS, SETTINGS), kind) for _ in range(2))
    assert first == second
