"""Tables, figures, captions and findings of decoder blocks."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from dass.latex import escape_latex
from dass.report.block_figures import block_captions, block_figures, method_styles
from dass.report.block_sections import block_findings, block_sections
from dass.report.block_tables import ERRORS, BlockSettings, block_table
from dass.report.plots import STYLES, figure_bytes
from dass.results.schema import ActivationsResult, BlocksResult, Run

SETTINGS = BlockSettings(
    models={"b": "Model B", "a": "Costs $5 or $6"}, calibration="c",
    methods={"magnitude": "Magnitude", "mine": "Mine", "dass": "DaSS"}, patterns=["u50", "2of4"],
    note="Stand-ins.",
)  # fmt: skip
PERCENTILES = {"1": 0.1, "5": 0.2, "25": 0.5, "50": 1.0, "75": 1.5, "95": 3.0, "99": 4.0}


def errors(run: str, *glu: float) -> BlocksResult:
    """A run whose blocks have these errors of their GLUs; those of hidden states are a tenth."""
    blocks = [
        {"glu_error": e, "hidden_error": e / 10, "kept": [0.4 + n / 50 for n in range(10)]}
        for e in glu
    ]
    return BlocksResult.model_validate({
        "run": Run.parse(run), "settings": {"length": 64}, "provenance": {}, "dataset": "wiki",
        "split": "test", "windows": 3, "tokens": 192, "tokens_hash": "t", "mask_hash": "m",
        "norms_hash": "n", "blocks": blocks,
    })  # fmt: skip


def activations(model: str, *loudest: float) -> ActivationsResult:
    """A model of so many blocks, with the loudest intermediate channel of each."""

    def spread(loud: float, outliers: float) -> dict[str, Any]:
        percentiles = PERCENTILES | {"100": loud}
        return {"median": 2.0, "percentiles": percentiles, "outliers": outliers}

    blocks = [{"input": spread(5.0, 0.0), "intermediate": spread(n, 0.01)} for n in loudest]
    return ActivationsResult.model_validate({
        "model": model, "calibration": "c", "settings": {}, "provenance": {}, "tokens": 9,
        "calibration_hash": "c", "norms_hash": "n", "blocks": blocks,
    })  # fmt: skip


NORMS = [activations("a", 12.0, 250.0), activations("b", 7.0)]
MEASURED = [
    errors("b/c/magnitude/u50", 0.5, 0.7),
    errors("b/c/mine/u50", 0.3, 0.4),
    errors("b/c/dass/u50", 0.3, 0.4004),
    errors("b/c/dass/2of4", 0.9),
    errors("a/c/dass/u50", 0.2),
]


def test_a_cell_is_the_mean_over_blocks_and_names_its_file() -> None:
    table = block_table("glu_error", MEASURED, SETTINGS)
    assert table.columns == ["Model B", "Costs $5 or $6"]
    (section,) = table.sections
    assert [group.label for group in section.groups] == ["50 %", "2:4"]
    (_, magnitude), (_, mine), (label, dass) = section.groups[0].rows
    assert label == "DaSS"
    assert (magnitude[0].text, magnitude[1].text) == ("60.0", "–")
    assert magnitude[0].sources == ("runs/b/c/magnitude/u50/blocks.json",)
    # Equal as they are printed: both are the lowest.
    assert (mine[0].text, mine[0].best, dass[0].text, dass[0].best) == ("35.0", True) * 2
    assert not magnitude[0].best and not magnitude[1].best
    assert dass[1].best
    hidden = block_table("hidden_error", MEASURED, SETTINGS).sections[0].groups[1].rows[2][1][0]
    assert (hidden.text, hidden.best) == ("9.0", True)


@pytest.mark.parametrize("kind", ERRORS)
def test_tables_can_be_printed(kind: str) -> None:
    table = block_table(kind, MEASURED, SETTINGS)
    assert "3 windows of 64 tokens of the test split of wiki" in table.caption
    assert table.caption.endswith("Stand-ins.")
    assert rf"\label{{tab:blocks-{kind.replace('_', '-')}}}" in table.latex()
    assert "Model B" in table.markdown()
    assert block_table(kind, [], SETTINGS).caption  # nothing was measured: dashes


def lines(figure: Figure) -> dict[str, list[tuple[str, list[float]]]]:
    """Title of a panel -> colour and heights of each of its lines."""
    return {
        axes.get_title().replace("\n", " "): [
            (str(line.get_color()), [round(float(y), 6) for y in line.get_ydata()])  # type: ignore[union-attr]
            for line in axes.lines
        ]
        for axes in figure.axes
    }


def test_each_run_is_a_line_in_the_panel_of_its_pattern_and_model() -> None:
    colours = {method: colour for method, (colour, _) in method_styles(SETTINGS).items()}
    assert colours["dass"] == STYLES["dass"][0]
    assert len(set(colours.values())) == 3
    figures = block_figures(NORMS, MEASURED, SETTINGS)
    assert lines(figures["glu_error"]) == {
        "Model B, 50 %": [
            (colours["magnitude"], [50, 70]), (colours["mine"], [30, 40]),
            (colours["dass"], [30, 40.04]),
        ],
        "Costs $5 or $6, 50 %": [(colours["dass"], [20])],
        "Model B, 2:4": [(colours["dass"], [90])],
        "Costs $5 or $6, 2:4": [],
    }  # fmt: skip
    kept = lines(figures["kept"])["Model B, 2:4"]
    assert kept == [(colours["dass"], [40.0 + 2 * n for n in range(10)])]
    assert lines(figures["hidden_error"])["Model B, 2:4"] == [(colours["dass"], [9])]


def test_models_stand_in_the_order_of_the_settings_with_both_sides() -> None:
    figures = block_figures(NORMS, MEASURED, SETTINGS)
    norms = lines(figures["norms"])
    assert list(norms) == [
        "Model B, input X", "Model B, intermediate Z",
        "Costs $5 or $6, input X", "Costs $5 or $6, intermediate Z",
    ]  # fmt: skip
    assert norms["Costs $5 or $6, intermediate Z"][0][1] == [12, 250]
    assert {axes.get_yscale() for axes in figures["norms"].axes} == {"log"}
    ticks = [t.get_text() for axes in figures["norms"].axes for t in axes.get_yticklabels()]
    assert "1×" in ticks and not any("$" in tick for tick in ticks)  # "$" is no formula here
    assert [shares for _, shares in lines(figures["outliers"])["Model B"]] == [[0], [1]]


def test_figures_are_the_same_bytes_and_have_captions_that_can_be_printed() -> None:
    first, again = (block_figures(NORMS, MEASURED, SETTINGS) for _ in range(2))
    captions = block_captions(MEASURED, SETTINGS)
    assert list(first) == list(captions)
    for name, figure in first.items():
        assert figure_bytes(figure, "svg") == figure_bytes(again[name], "svg")
        assert captions[name].startswith("Blocks. ") and captions[name].endswith("Stand-ins.")
        escape_latex(captions[name])


def test_nothing_measured_is_drawn_all_the_same() -> None:
    assert all(figure_bytes(f, "pdf") for f in block_figures([], [], SETTINGS).values())


def test_findings_are_sentences_of_numbers() -> None:
    spread, means = block_findings(NORMS, MEASURED, SETTINGS)
    assert spread == (
        "The loudest channel of a block: Costs $5 or $6 up to 250 times the median for the "
        "intermediate Z (block 1) and 5 times for the input X (block 0); Model B up to 7 times the "
        "median for the intermediate Z (block 0) and 5 times for the input X (block 0)."
    )
    assert means == (
        "Relative error of the GLUs' output, mean over blocks: Model B at 50 %, Mine 35.0 %, DaSS "
        "35.0 %, Magnitude 60.0 %; Model B at 2:4, DaSS 90.0 %; Costs $5 or $6 at 50 %, DaSS "
        "20.0 %."
    )
    assert block_findings([], [], SETTINGS) == []


def test_there_is_a_section_where_the_study_has_the_block() -> None:
    assert block_sections([], [], None) == []
    (section,) = block_sections(NORMS, MEASURED, vars(SETTINGS))
    assert (section.title, len(section.tables), len(section.figures)) == ("Blocks", 2, 5)
    assert section.figures[0].file == "figures/blocks/norms.pdf"
    assert section.findings == block_findings(NORMS, MEASURED, SETTINGS)
