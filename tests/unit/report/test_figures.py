"""Figures: what is drawn where, and that the same numbers give the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from dass.errors import DataError
from dass.report.experiment import TableSettings
from dass.report.figures import (
    figure_captions,
    method_styles,
    perplexity_figure,
    zero_shot_figure,
)
from dass.report.plots import OTHERS, STYLES, figure_bytes, save_figure
from dass.results.summary import SummaryRow

from .rows import accuracy, row

SETTINGS = TableSettings(
    experiment="main",
    title="A title",
    models={"a": "Model A", "b": "Costs $5 or $6"},
    calibrations={"c4": "8 sequences"},
    methods={"wanda": "Wanda", "dass": "DaSS"},
    patterns=["u50", "2of4"],
    metric="acc",
    tasks=["piqa", "arc_easy"],
    note="Stand-ins.",
)


def measured(run: str, value: float, acc: float) -> SummaryRow:
    return row(run, value, tasks={"piqa": accuracy(acc), "arc_easy": accuracy(acc + 0.1, 0.04)})


ROWS = [
    measured("a/dense", 4.0, 0.7),
    measured("a/c4/wanda/u50", 6.0, 0.6),
    measured("a/c4/dass/u50", 5.0, 0.65),
    measured("a/c4/dass/2of4", 8.0, 0.5),
    measured("b/dense", 10.0, 0.8),
    measured("b/c4/wanda/2of4", 12.0, 0.7),
]


MARKERS = {marker for _, marker in [*STYLES.values(), *OTHERS]}


def marks(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Colour -> where marks of that colour are."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in axes.lines:
        if line.get_marker() in MARKERS and len(line.get_xdata()) == 1:  # type: ignore[arg-type]
            (x,), (y,) = line.get_xdata(), line.get_ydata()  # type: ignore[misc]
            found.setdefault(str(line.get_color()), []).append((round(x, 6), round(y, 6)))
    return found


def test_perplexities_are_relative_to_the_models_own_dense_one() -> None:
    first, second = perplexity_figure(ROWS, SETTINGS).axes
    wanda, dass = STYLES["wanda"][0], STYLES["dass"][0]
    assert marks(first) == {wanda: [(-0.2, 1.5)], dass: [(0.2, 1.25), (1.2, 2.0)]}
    assert marks(second) == {wanda: [(0.8, 1.2)]}
    assert [axes.get_title() for axes in (first, second)] == ["Model A", "Costs $5 or $6"]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["50 %", "2:4"]
    assert first.get_yscale() == "log"
    low, high = first.get_ylim()
    assert low < 1 and high > 2


def test_accuracies_are_in_percent_with_errors_of_the_mean() -> None:
    """√(0.03² + 0.04²) / 2 = 2.5 %."""
    first, second = zero_shot_figure(ROWS, SETTINGS).axes
    wanda, dass = STYLES["wanda"][0], STYLES["dass"][0]
    assert marks(first) == {wanda: [(-0.2, 65.0)], dass: [(0.2, 70.0), (1.2, 55.0)]}
    assert marks(second) == {wanda: [(0.8, 75.0)]}
    bars = [c for c in second.collections if isinstance(c, LineCollection)]
    ends = bars[0].get_segments()[0][:, 1]
    assert ends.tolist() == pytest.approx([72.5, 77.5])
    (dense,) = (line for line in second.lines if line.get_linestyle() == "--")
    assert list(dense.get_ydata()) == pytest.approx([85.0, 85.0])


def test_one_legend_names_all_methods_even_where_one_was_not_measured() -> None:
    figure = perplexity_figure([row for row in ROWS if row.run.method != "wanda"], SETTINGS)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Wanda", "DaSS", "Dense"]


@pytest.mark.parametrize("label", ["A", "A method with a long name, c4-8192-s1"])
def test_the_legend_stays_within_the_figure(label: str) -> None:
    methods = {str(n): f"{label} {n}" for n in range(9)}
    models = {"a": "Model A"}
    figure = perplexity_figure(ROWS, replace(SETTINGS, models=models, methods=methods))
    figure.draw_without_rendering()  # lays it out
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_methods_keep_their_style_and_others_get_one_each() -> None:
    methods = {"mine": "Mine", "dass": "DaSS", "dass-a0.25": "DaSS (0.25)", "wanda": "Wanda"}
    styles = method_styles(replace(SETTINGS, methods=methods))
    assert styles["c4", "dass"] == ("DaSS", *STYLES["dass"])
    assert styles["c4", "wanda"] == ("Wanda", *STYLES["wanda"])
    assert len({colour for _, colour, _ in styles.values()}) == 4
    assert len({marker for _, _, marker in styles.values()}) == 4
    alone = method_styles(replace(SETTINGS, methods={"wanda": "Wanda"}))
    assert alone["c4", "wanda"] == styles["c4", "wanda"]


def test_a_summary_without_numbers_still_gives_figures(tmp_path: Path) -> None:
    empty = [row(str(measured.run)) for measured in ROWS]
    for figure in (perplexity_figure(empty, SETTINGS), zero_shot_figure(empty, SETTINGS)):
        assert [marks(axes) for axes in figure.axes] == [{}, {}]
        save_figure(figure, tmp_path / "empty.pdf")


@pytest.mark.parametrize("models", [1, 4])
def test_there_is_one_panel_per_model(models: int) -> None:
    settings = replace(SETTINGS, models={str(n): f"Model {n}" for n in range(models)})
    figure = zero_shot_figure(ROWS, settings)
    assert [axes.get_title() for axes in figure.axes] == list(settings.models.values())


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_the_same_numbers_give_the_same_bytes(kind: str) -> None:
    first, second = (figure_bytes(perplexity_figure(ROWS, SETTINGS), kind) for _ in range(2))
    assert first == second
    assert b"Date" not in first and b"date>" not in first
    assert first != figure_bytes(zero_shot_figure(ROWS, SETTINGS), kind)


def test_figures_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    figure = zero_shot_figure(ROWS, SETTINGS)
    save_figure(figure, tmp_path / "figures" / "zero_shot.pdf")
    assert (tmp_path / "figures" / "zero_shot.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(DataError, match=r"not as \.docx"):
        save_figure(Figure(), tmp_path / "zero_shot.docx")
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]


def dots(axes: Axes) -> list[list[float]]:
    """Where dots stand below the axis: those that are joined together."""
    lines = [line for line in axes.lines if line.get_marker() == "."]
    return [[round(float(x), 6) for x in line.get_xdata()] for line in lines]  # type: ignore[union-attr]


def test_a_dot_marks_the_best_and_joined_ones_what_noise_does_not_tell_apart() -> None:
    """5 against 6 on every window; DaSS alone at 2:4 wins nothing. Equal ones are joined."""
    first, second = perplexity_figure(ROWS, SETTINGS).axes
    assert dots(first) == [[0.2]] and dots(second) == []
    equal = [row("a/dense", 4.0), row("a/c4/wanda/u50", 5.0), row("a/c4/dass/u50", 5.0)]
    assert dots(perplexity_figure(equal, SETTINGS).axes[0]) == [[-0.2, 0.2]]


DRAWS = replace(
    SETTINGS, models={"a": "Model A"}, draws={"c4": {f"c4-seed{n}": n for n in range(3)}}
)


def test_draws_have_a_deviation_and_a_single_one_is_hollow() -> None:
    """6.0, 6.1 and 6.2 over 4: 1.525 ± 0.025; one draw has no bar."""
    rows = [row(f"a/c4-seed{n}/dass/u50", 6 + 0.1 * n) for n in range(3)]
    rows += [row("a/dense", 4.0), row("a/c4-seed0/wanda/u50", 8.0)]
    (axes,) = perplexity_figure(rows, DRAWS).axes
    assert marks(axes) == {STYLES["wanda"][0]: [(-0.2, 2.0)], STYLES["dass"][0]: [(0.2, 1.525)]}
    faces = {line.get_color(): line.get_markerfacecolor() for line in axes.lines
             if line.get_marker() in MARKERS}  # fmt: skip
    assert faces[STYLES["wanda"][0]] == "white" != faces[STYLES["dass"][0]]
    ends = [c.get_segments()[0][:, 1].tolist() for c in bars(axes)]
    assert ends == [pytest.approx([1.5, 1.55])]


def bars(axes: Axes) -> list[LineCollection]:
    """Error bars; stems begin at 1."""
    found = [c for c in axes.collections if isinstance(c, LineCollection)]
    return [c for c in found if c.get_segments()[0][0, 1] != 1]


def test_captions_say_what_is_shown() -> None:
    perplexity, accuracy = figure_captions(SETTINGS)
    assert perplexity.startswith("A title: perplexity on the validation split")
    assert "(acc), mean of 2 tasks" in accuracy
    assert "(acc), one task" in figure_captions(replace(SETTINGS, tasks=SETTINGS.tasks[:1]))[1]
    assert perplexity.endswith("Stand-ins.") and accuracy.endswith("Stand-ins.")
    assert "Bars" not in perplexity and "Bars: standard error over questions." in accuracy
    assert "Dots below the axis" in perplexity
    drawn, _ = figure_captions(DRAWS)
    assert "Bars: standard deviation over draws of the calibration; hollow: a single draw." in drawn
    along, _ = figure_captions(replace(SETTINGS, x="alpha"))
    assert "over alpha; lower is better." in along and "methods without alpha" in along
    assert "Dots" not in along
