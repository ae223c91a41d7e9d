"""Accuracy against speed, of hand-made timings and evaluations."""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from dass.report.experiment import Line, TableSettings
from dass.report.plots import STYLES, figure_bytes
from dass.report.speed_accuracy import (
    Panel,
    figure_caption,
    panels_of,
    points_of,
    speed_accuracy_table,
)
from dass.report.speed_accuracy_figure import speed_accuracy_figure
from dass.report.speed_sections import speed_accuracy_section
from dass.report.table import Cell
from dass.speed.results import SpeedResult
from dass.speed.timing import Measurement, Spread

from .rows import accuracy, row
from .test_speed_tables import GPU, cells, result, sources

SETTINGS = TableSettings(
    experiment="speed", title="Accuracy against speed", models={"a": "Model A", "b": "Model B"},
    calibrations={"c4": ""}, methods={"wanda": "Wanda", "dass": "DaSS"}, patterns=["2of4", "u50"],
    metric="acc", tasks=["piqa"], note="A note.",
)  # fmt: skip
ROWS = [
    row("a/dense", 5.0, {"piqa": accuracy(0.8)}),
    row("a/c4/wanda/2of4", 8.0, {"piqa": accuracy(0.7)}),
    row("a/c4/dass/2of4", 7.0),
    row("a/c4/dass/u50", 6.0),
]
Times = dict[str, dict[int, list[float]]]
"""Engine -> tokens per call -> seconds of each round."""
TIMES: Times = {
    "dense": {1: [0.04, 0.06, 0.08], 16: [0.08, 0.08, 0.08]},
    "packed": {1: [0.02, 0.02, 0.02], 16: [0.1, 0.1, 0.1]},
}


def timed(
    run: str, times: Times = TIMES, part: str = "decode", mode: str = "graph",
    card: str = "Some GPU", packed: int | None = 60,
) -> SpeedResult:  # fmt: skip
    """A run's own speed on a card, and its weights' bytes where the dense model's are 100."""
    subject, _, pattern = run.rpartition("/")
    names = {"dense": ("torch", "dense")}
    measured = [
        Measurement(part, *names.get(engine, (engine, pattern)), tokens, "float16", seconds, mode)
        for engine, of in times.items()
        for tokens, seconds in of.items()
    ]
    return replace(
        result("gpu", measured, subject=subject, settings={"pattern": pattern}),
        machine={"cpu": "Some CPU", "gpu": GPU | {"name": card}},
        weight_bytes={"torch": 100, "packed": packed} if packed else {},
    )


def shown(*results: SpeedResult, part: str = "decode") -> list[Panel]:
    return panels_of(part, results, ROWS, SETTINGS)


def test_a_point_is_a_runs_own_speed_and_perplexity() -> None:
    (panel,) = shown(timed("a/c4/dass/2of4"))
    ((entry, times),) = points_of("decode", panel)
    assert times == pytest.approx(Spread(2.5, 3.0, 3.5))  # of 2, 3 and 4, one sequence: the fewest
    assert (panel.title, entry.line) == ("Model A", Line("c4", "dass", "2of4"))
    assert (entry.perplexity.value, entry.perplexity.error) == (7.0, None)
    assert panel.dense_perplexity is not None and panel.dense_perplexity.value == 5.0


def test_prefill_is_told_of_the_most_tokens_and_apart_from_decode() -> None:
    times = {"dense": {128: [4.0], 2048: [9.0]}, "packed": {128: [8.0], 2048: [3.0]}}
    run = timed("a/c4/dass/2of4", times, "prefill")
    assert shown(run) == []
    (panel,) = shown(run, part="prefill")
    assert [times.median for _, times in points_of("prefill", panel)] == [3.0]
    assert "(tokens per call: 2,048)" in figure_caption("prefill", [panel], SETTINGS)


def test_without_perplexity_or_a_graph_or_dense_a_run_has_no_point() -> None:
    assert shown(timed("a/c4/wanda/u50")) == []  # not evaluated
    assert shown(timed("a/c4/dass/2of4", mode="eager")) == []
    assert shown(timed("a/c4/dass/2of4", {"packed": TIMES["packed"]})) == []
    assert shown(result("gpu", [], subject="a")) == []  # a model's sizes, no run


def test_each_engine_has_a_row_and_a_run_the_point_of_its_fastest() -> None:
    slow = {"cusparselt": {1: [0.08, 0.12, 0.16]}}
    panels = shown(timed("a/c4/wanda/2of4", TIMES | slow))
    ((entry, _),) = points_of("decode", panels[0])
    assert entry.engine == "packed"
    table = speed_accuracy_table("decode", panels, SETTINGS)
    assert table.columns == [
        "perplexity", "mean acc", "weights", "1: tokens/s", "1: ×", "16: tokens/s", "16: ×",
    ]  # fmt: skip
    worth = ["8.00", "70.0 3.0"]
    assert cells(table, "Dense") == ["5.00", "80.0 3.0", "1", "17", "1", "200", "1"]
    assert cells(table, "Wanda, packed") == [*worth, "0.60", "50", "3.00 0.50", "160", "0.80 0.00"]
    assert cells(table, "Wanda, cuSPARSELt") == [*worth, "–", "8", "0.50 0.00", "–", "–"]
    evaluated = [(f"runs/a/c4/wanda/2of4/{kind}.json",) for kind in ("perplexity", "zero_shot")]
    speeds = [("speed/prefill/a/c4/wanda/2of4.json",)] * 5
    assert sources(table, "Wanda, packed") == evaluated + speeds
    assert "Measured on Some GPU" in table.caption and table.caption.endswith("A note.")


def test_weights_of_unknown_size_are_a_dash_and_a_missing_accuracy_too() -> None:
    table = speed_accuracy_table("decode", shown(timed("a/c4/dass/u50", packed=None)), SETTINGS)
    assert cells(table, "DaSS, packed")[:3] == ["6.00", "–", "–"]
    assert [group.label for group in table.sections[0].groups] == ["", "50 %"]


def test_draws_are_one_point_over_all_their_rounds() -> None:
    settings = replace(SETTINGS, draws={"c4": {"c4-seed0": 0, "c4-seed1": 1}}, tasks=[])
    rows = [row("a/dense", 5.0), row("a/c4-seed0/dass/u50", 6.0), row("a/c4-seed1/dass/u50", 8.0)]
    results = [
        timed("a/c4-seed0/dass/u50", {"dense": {1: [0.4, 0.4]}, "packed": {1: [0.4, 0.2]}}),
        timed("a/c4-seed1/dass/u50", {"dense": {1: [0.6]}, "packed": {1: [0.2]}}, packed=64),
    ]
    panels = panels_of("decode", results, rows, settings)
    ((entry, times),) = points_of("decode", panels[0])
    assert times == pytest.approx(Spread(1.5, 2.0, 2.5))  # of 1, 2 and 3
    assert entry.perplexity.value == 7.0
    assert entry.perplexity.error == pytest.approx(statistics.stdev([6.0, 8.0]))
    table = speed_accuracy_table("decode", panels, settings)
    # Of 2.5 and 1.67 the lower one, which a file has.
    assert cells(table, "Dense")[2:] == ["2", "1"]
    *_, dense, one = sources(table, "Dense")
    assert (dense, one) == (("speed/prefill/a/c4-seed1/dass/u50.json",), ())
    assert cells(table, "DaSS, packed") == ["7.0 1.4", "0.62", "5", "2.00 0.50"]
    files = tuple(f"speed/prefill/a/c4-seed{seed}/dass/u50.json" for seed in (0, 1))
    evaluated = tuple(f"runs/a/c4-seed{seed}/dass/u50/perplexity.json" for seed in (0, 1))
    assert sources(table, "DaSS, packed") == [evaluated, files, files, files]
    assert "standard deviation over draws" in figure_caption("decode", panels, settings)


def test_each_card_has_a_panel_of_its_own() -> None:
    slower = {"dense": {1: [0.1]}, "packed": {1: [0.08]}}
    other = timed("a/c4/wanda/2of4", slower, card="Old GPU")
    first, second = panels = shown(timed("a/c4/dass/2of4"), other)
    assert (first.title, second.title) == ("Model A, Some GPU", "Model A, Old GPU")
    assert [entry.line.method for entry in first.entries] == ["dass"]
    assert [entry.line.method for entry in second.entries] == ["wanda"]
    assert (first.dense[1][0], second.dense[1][0]) == pytest.approx((1 / 0.06, 10.0))
    table = speed_accuracy_table("decode", panels, SETTINGS)
    assert [section.title for section in table.sections] == [first.title, second.title]
    assert "Measured on Some GPU" in table.caption and "Measured on Old GPU" in table.caption


def marks(axes: Axes) -> dict[tuple[float, float], ErrorbarContainer]:
    found = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    return {(one[0].get_xdata()[0], one[0].get_ydata()[0]): one for one in found}


def test_the_figure_has_a_mark_per_method_and_pattern_with_its_spread() -> None:
    runs = [timed(f"a/c4/{run}") for run in ("wanda/2of4", "dass/2of4", "dass/u50")]
    figure = speed_accuracy_figure("decode", shown(*runs), SETTINGS)
    (axes,) = figure.axes
    drawn = {(round(x, 6), y): mark for (x, y), mark in marks(axes).items()}
    assert drawn.keys() == {(3.0, 8.0), (3.0, 7.0), (3.0, 6.0)}
    for y, method, fill in ((8.0, "wanda", ""), (7.0, "dass", ""), (6.0, "dass", "white")):
        line, _, (bar,) = drawn[3.0, y]
        assert (to_hex(line.get_color()), line.get_marker()) == STYLES[method]
        assert line.get_markerfacecolor() == (fill or STYLES[method][0])
        assert bar.get_segments()[0][:, 0] == pytest.approx([2.5, 3.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "Wanda", "DaSS", "2:4", "50 %", "Dense",
    ]  # fmt: skip
    assert axes.get_xlabel() == "times as fast as dense\n(decode, 1 sequence)"
    assert axes.get_yscale() == "linear"
    assert figure_bytes(figure, "pdf").startswith(b"%PDF")


def test_perplexities_far_apart_stand_on_a_logarithmic_scale() -> None:
    rows = [row("a/dense", 5.0), row("a/c4/dass/2of4", 30.0)]
    panels = panels_of("decode", [timed("a/c4/dass/2of4")], rows, SETTINGS)
    assert speed_accuracy_figure("decode", panels, SETTINGS).axes[0].get_yscale() == "log"


def test_without_the_dense_models_perplexity_runs_are_drawn() -> None:
    (panel,) = panels_of("decode", [timed("a/c4/dass/2of4")], ROWS[1:], SETTINGS)
    assert panel.dense_perplexity is None
    assert len(marks(speed_accuracy_figure("decode", [panel], SETTINGS).axes[0])) == 1


def test_what_was_not_measured_is_no_section_but_files_that_say_so() -> None:
    assert speed_accuracy_section([timed("a/c4/dass/2of4")], ROWS, None) == []
    assert speed_accuracy_section([result("gpu", [])], ROWS, asdict(SETTINGS)) == []
    table = speed_accuracy_table("decode", [], SETTINGS)
    assert "not measured here" in table.markdown()
    assert table.sections[0].groups[0].rows == [("", [Cell()] * len(table.columns))]
    figure = speed_accuracy_figure("decode", [], SETTINGS)
    assert figure.texts[0].get_text() == "not measured here"


def test_the_section_has_a_table_and_a_figure_of_what_was_measured() -> None:
    decode = timed("a/c4/dass/2of4")
    (section,) = speed_accuracy_section([decode], ROWS, asdict(SETTINGS))
    assert section.tables == [speed_accuracy_table("decode", shown(decode), SETTINGS)]
    assert [drawing.file for drawing in section.figures] == ["speed/figures/decode.pdf"]
    prefill = timed("a/c4/dass/2of4", {"dense": {128: [2.0]}, "packed": {128: [1.0]}}, "prefill")
    both = replace(decode, measurements=[*decode.measurements, *prefill.measurements])
    (section,) = speed_accuracy_section([both], ROWS, asdict(SETTINGS))
    assert [table.label for table in section.tables] == ["tab:speed-decode", "tab:speed-prefill"]
    assert len(section.figures) == 2
