"""Summaries of result files, and the tables printed of them, against tables written by hand."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dass.errors import DataError
from dass.report.document import compile_latex
from dass.report.escaping import escape_latex, escape_markdown
from dass.report.experiment import TableSettings
from dass.report.experiment_tables import perplexity_table, zero_shot_table
from dass.report.table import (
    ROWS_A_PAGE,
    Block,
    Cell,
    Group,
    Table,
    merge_summaries,
    read_summary,
    summary_frame,
)
from dass.report.words import format_perplexity, pattern_label
from dass.results.schema import (
    PerplexityResult,
    PruningResult,
    Run,
    SplitPerplexity,
    TaskAccuracy,
    ZeroShotResult,
    write_result,
)
from dass.results.summary import write_summary

needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed"
)

# --- Result files -------------------------------------------------------------------------------

ORIGIN = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "abc",
    "device": "cpu",
    "versions": {"dass": "0.1.0", "torch": "2.11"},
    "seconds": 2.0,
    "peak_memory_bytes": {"host": 100, "device": None},
}


def run_of(model: str, method: str, pattern: str | None) -> Run:
    calibration = None if method == "dense" else "c4"
    return Run(model=model, calibration=calibration, method=method, pattern=pattern)


def mask_of(run: Run) -> str | None:
    return None if run.method == "dense" else f"mask of {run}"


def pruning_file(folder: Path, run: Run, **changes: Any) -> Path:
    result = PruningResult(
        run=run,
        settings={},
        calibration_hash="c",
        mask_hash=str(mask_of(run)),
        sparsity={"w": 0.5},
        mean_sparsity=0.5,
        seconds={"total": 4.5, "masks": 1.0},
        block_seconds=[2.0, 2.5],
        peak_memory_bytes={"host": 300, "device": None},  # type: ignore[arg-type]
        tokens=512,
        provenance=ORIGIN | {"date": "2026-01-01T00:00:00+00:00", "commit": "old"},
    )
    path = folder / f"{run}/pruning.json"
    write_result(path, result.model_copy(update=changes))
    return path


def perplexity_file(folder: Path, run: Run, value: float, **changes: Any) -> Path:
    split = SplitPerplexity(perplexity=value, nll=1.0, tokens=256, windows=2, tokens_hash="t")
    result = PerplexityResult(
        run=run,
        settings={"length": 128, "bos": "text"},
        dataset="wikitext2",
        splits={"validation": split},
        mask_hash=mask_of(run),
        provenance=ORIGIN,
    )
    path = folder / f"{run}/perplexity.json"
    write_result(path, result.model_copy(update=changes))
    return path


def zero_shot_file(folder: Path, run: Run, **changes: Any) -> Path:
    common = {"samples": 100, "version": 1, "requests_hash": "r", "acc_stderr": 0.04}
    tasks = {
        "piqa": TaskAccuracy(acc=0.7, acc_norm=0.6, acc_norm_stderr=0.03, **common),
        "winogrande": TaskAccuracy(acc=0.5, acc_norm=None, acc_norm_stderr=None, **common),
    }
    result = ZeroShotResult(
        run=run, settings={}, tasks=tasks, limit=None, mask_hash=mask_of(run), provenance=ORIGIN
    )
    path = folder / f"{run}/zero_shot.json"
    write_result(path, result.model_copy(update=changes))
    return path


def test_a_summary_has_a_row_a_run_dense_first(tmp_path: Path) -> None:
    dense, wanda = run_of("b", "dense", None), run_of("b", "wanda", "u50")
    dass, other = run_of("b", "dass", "2of4"), run_of("a", "dass", "u50")
    frame = summary_frame(
        [pruning_file(tmp_path, run) for run in (wanda, dass, other)],
        [perplexity_file(tmp_path, run, n + 5.5) for n, run in enumerate((wanda, dass, dense))],
        [zero_shot_file(tmp_path, run) for run in (other, dense)],
    )
    assert list(frame["model"]) == ["b", "b", "b", "a"]
    assert list(frame["method"]) == ["dense", "wanda", "dass", "dass"]
    assert frame["perplexity_validation"].tolist()[:3] == [7.5, 5.5, 6.5]
    assert frame["perplexity_validation"].isna().tolist() == [False, False, False, True]
    assert frame["mean_sparsity"].isna().tolist() == [True, False, False, False]
    row = frame.iloc[3]
    assert row["mean_acc"] == pytest.approx(0.6)
    assert row["mean_acc_norm"] == pytest.approx(0.55)  # winogrande counts with its acc
    assert (row["piqa_samples"], row["piqa_acc_norm_stderr"]) == (100, 0.03)
    assert (row["pruning_seconds"], row["peak_memory_bytes"]) == (4.5, 300)
    assert row["date"] == ORIGIN["date"]
    assert (row["commit"], row["versions"]) == ("old; abc", "dass 0.1.0, torch 2.11")
    assert row["mask_hash"] == "mask of a/c4/dass/u50"


def test_a_summary_survives_its_file_and_merging(tmp_path: Path) -> None:
    paths = []
    for model in ("b", "a"):
        dense, dass = run_of(model, "dense", None), run_of(model, "dass", "u50")
        pruned = [pruning_file(tmp_path, dass)]
        perplexities = [perplexity_file(tmp_path, run, 1 / 3) for run in (dense, dass)]
        scores = [zero_shot_file(tmp_path, dense)] if model == "a" else []
        paths.append(tmp_path / f"{model}.csv")
        write_summary(paths[-1], pruned, perplexities, scores)
        expected = summary_frame(pruned, perplexities, scores)
        read = read_summary(paths[-1])
        assert read.to_csv(index=False) == expected.to_csv(index=False)
        assert read["perplexity_validation"].tolist() == [1 / 3, 1 / 3]
    merge_summaries(paths, tmp_path / "all.csv")
    merged = read_summary(tmp_path / "all.csv")
    assert list(merged["model"]) == ["b", "b", "a", "a"]
    assert "100.0" not in (tmp_path / "all.csv").read_text()  # counts stay whole numbers
    with pytest.raises(DataError, match="run b/dense is in more than one summary"):
        merge_summaries([paths[0], paths[0]], tmp_path / "twice.csv")
    assert not (tmp_path / "twice.csv").exists()


def test_results_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    dense, dass = run_of("a", "dense", None), run_of("a", "dass", "u50")
    pruned = pruning_file(tmp_path, dass)
    with pytest.raises(DataError, match=r"perplexity.json: mask_hash differs from .*pruning.json"):
        stale = perplexity_file(tmp_path, dass, 5.0, mask_hash="stale")
        summary_frame([pruned], [stale], [])
    with pytest.raises(DataError, match="a second pruning result of run a/c4/dass/u50"):
        summary_frame([pruned, pruned], [], [])
    split = SplitPerplexity(perplexity=5, nll=1, tokens=9, windows=1, tokens_hash="other")
    other = perplexity_file(tmp_path, dass, 5.0, splits={"validation": split})
    with pytest.raises(DataError, match="not evaluated on the same tokens"):
        summary_frame([], [perplexity_file(tmp_path, dense, 5.0), other], [])


@pytest.mark.parametrize(
    "text", ["", "model,method\na,b\n", "model,mean_acc\na,b", 'model,"method\na']
)
def test_what_is_no_summary_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text(text)
    with pytest.raises(DataError, match=r"summary\.csv: .*run again") as error:
        read_summary(tmp_path / "summary.csv")
    assert "\n" not in str(error.value)


def test_an_empty_summary_prints_dashes() -> None:
    table = perplexity_table(summary_frame([], [], []), SETTINGS)
    assert {cell.text for row in rows_of(table).values() for cell in row} == {"–"}


# --- Tables -------------------------------------------------------------------------------------

SETTINGS = TableSettings(
    experiment="main_1",
    title="A title",
    models={"a": "Model A", "b": "Model_B"},
    calibrations={"c4": "8 sequences"},
    methods={"wanda": "Wanda", "dass": "DaSS & co"},
    patterns=["u50", "2of4"],
    metric="acc_norm",
    tasks=["piqa", "winogrande"],
    note="They are stand-ins.",
)


def row(model: str, method: str, pattern: str | None, **values: Any) -> dict[str, Any]:
    calibration = None if method == "dense" else values.pop("calibration", "c4")
    keys = {"model": model, "calibration": calibration, "method": method, "pattern": pattern}
    return keys | values


def perplexities(*rows: tuple[str, str, str | None, float | None]) -> pd.DataFrame:
    common = {
        "perplexity_dataset": "wikitext2",
        "perplexity_length": 2048,
        "perplexity_bos": "text",
    }
    return pd.DataFrame(
        [
            row(*keys, perplexity_validation=value, windows_validation=100, **common)
            for *keys, value in rows
        ]
    )


PERPLEXITIES = perplexities(
    ("a", "dense", None, 5.0),
    ("a", "wanda", "u50", 6.004),
    ("a", "dass", "u50", 5.996),
    ("a", "wanda", "2of4", 7.256),
    ("a", "dass", "2of4", 12345.678),
    ("b", "dense", None, 4.5),
    ("b", "wanda", "u50", 4.4),
    ("b", "dass", "u50", 4.5),
    ("b", "wanda", "2of4", 3.25e9),
)


def rows_of(table: Table) -> dict[tuple[str, str, str], list[Cell]]:
    return {
        (block.title, group.label, method): cells
        for block in table.blocks
        for group in block.groups
        for method, cells in group.rows
    }


def squeezed(text: str) -> list[str]:
    """Lines without the spaces that align them."""
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]


def test_the_perplexity_table_in_latex() -> None:
    """Equal prints are both bold; dense and a dash never are."""
    lines = squeezed(perplexity_table(PERPLEXITIES, SETTINGS).latex())
    caption = (
        r"\caption{A title. Perplexity on the validation split of wikitext2; lower is better. "
        r"Context length: 2048 tokens. Windows: 100. BOS: at the start of the text. "
        r"Calibration: 8 sequences. Bold: best at that sparsity. --: not measured. "
        r"They are stand-ins.}"
    )
    assert lines == [
        r"\begin{table}[htbp]",
        r"\centering",
        r"\setlength{\belowcaptionskip}{3pt}",
        caption,
        r"\label{tab:main-1-perplexity}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\renewcommand{\arraystretch}{0.95}",
        r"\makebox[\linewidth]{%",
        r"\begin{tabular}{@{}llrr@{}}",
        r"\toprule",
        r"Sparsity & Method & Model A & Model\_B \\",
        r"\midrule",
        r"& Dense & 5.00 & 4.50 \\",
        r"\midrule",
        r"50 \% & Wanda & \textbf{6.00} & \textbf{4.40} \\",
        r"& DaSS \& co & \textbf{6.00} & 4.50 \\",
        r"\midrule",
        r"2:4 & Wanda & \textbf{7.26} & \textbf{3.2e9} \\",
        r"& DaSS \& co & 12346 & -- \\",
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]


def test_the_perplexity_table_in_markdown() -> None:
    lines = squeezed(perplexity_table(PERPLEXITIES, SETTINGS).markdown())
    assert lines[0].startswith("A title. Perplexity on the validation split of wikitext2;")
    assert lines[2] == r"| Sparsity | Method | Model A | Model\_B |"
    assert re.fullmatch(r"\|:-+\|:-+\|-+:\|-+:\|", lines[3])
    assert lines[4:] == [
        "| | Dense | 5.00 | 4.50 |",
        "| 50 % | Wanda | **6.00** | **4.40** |",
        "| 50 % | DaSS & co | **6.00** | 4.50 |",
        "| 2:4 | Wanda | **7.26** | **3.2e9** |",
        "| 2:4 | DaSS & co | 12346 | – |",
    ]


def accuracies(model: str, method: str, pattern: str | None, *shares: float) -> dict[str, Any]:
    """piqa's acc, acc_norm and winogrande's acc; standard errors 0.03, 0.03 and 0.04."""
    acc, norm, winogrande = shares
    return row(
        model, method, pattern,
        piqa_acc=acc, piqa_acc_stderr=0.03, piqa_acc_norm=norm, piqa_acc_norm_stderr=0.03,
        piqa_samples=100, winogrande_acc=winogrande, winogrande_acc_stderr=0.04,
        winogrande_samples=200,
    )  # fmt: skip


ACCURACIES = pd.DataFrame(
    [
        accuracies("a", "dense", None, 0.9, 0.8, 0.7),
        accuracies("a", "wanda", "u50", 0.51, 0.6, 0.5),
        accuracies("a", "dass", "u50", 0.52, 0.5, 0.62),
        accuracies("b", "dense", None, 0.7, 0.6, 0.5),
    ]
)


def test_the_zero_shot_table_in_latex() -> None:
    """A block a model; the mean's error is √(0.03² + 0.04²) / 2 = 2.5 %."""
    table = zero_shot_table(ACCURACIES, SETTINGS)
    lines = squeezed(table.latex())
    assert lines[lines.index(r"\toprule") + 1 : -3] == [
        r"Sparsity & Method & PIQA & WinoGrande$^\dagger$ & Mean \\",
        r"\midrule",
        r"\multicolumn{5}{@{}l}{\textit{Model A}} \\",
        r"& Dense & 80.0 {\tiny$\pm$3.0} & 70.0 {\tiny$\pm$4.0} & 75.0 {\tiny$\pm$2.5} \\",
        r"\addlinespace[2pt]",
        r"50 \% & Wanda & \textbf{60.0} {\tiny$\pm$3.0} & 50.0 {\tiny$\pm$4.0}"
        r" & 55.0 {\tiny$\pm$2.5} \\",
        r"& DaSS \& co & 50.0 {\tiny$\pm$3.0} & \textbf{62.0} {\tiny$\pm$4.0}"
        r" & \textbf{56.0} {\tiny$\pm$2.5} \\",
        r"\addlinespace[2pt]",
        r"2:4 & Wanda & -- & -- & -- \\",
        r"& DaSS \& co & -- & -- & -- \\",
        r"\midrule",
        r"\multicolumn{5}{@{}l}{\textit{Model\_B}} \\",
        r"& Dense & 60.0 {\tiny$\pm$3.0} & 50.0 {\tiny$\pm$4.0} & 55.0 {\tiny$\pm$2.5} \\",
        r"\addlinespace[2pt]",
        r"50 \% & Wanda & -- & -- & -- \\",
        r"& DaSS \& co & -- & -- & -- \\",
        r"\addlinespace[2pt]",
        r"2:4 & Wanda & -- & -- & -- \\",
        r"& DaSS \& co & -- & -- & -- \\",
    ]
    assert "Metric: acc_norm" in table.caption
    assert "† has no acc_norm: acc (WinoGrande)." in table.caption
    assert "Examples: PIQA 100, WinoGrande 200." in table.caption
    assert "imited" not in table.caption


def test_the_zero_shot_table_in_markdown() -> None:
    lines = squeezed(zero_shot_table(ACCURACIES, SETTINGS).markdown())
    assert lines[2] == "| Model | Sparsity | Method | PIQA | WinoGrande† | Mean |"
    assert lines[4] == "| Model A | | Dense | 80.0 ± 3.0 | 70.0 ± 4.0 | 75.0 ± 2.5 |"
    assert lines[6] == (
        "| Model A | 50 % | DaSS & co | 50.0 ± 3.0 | **62.0** ± 4.0 | **56.0** ± 2.5 |"
    )
    assert lines[9] == r"| Model\_B | | Dense | 60.0 ± 3.0 | 50.0 ± 4.0 | 55.0 ± 2.5 |"


def test_acc_prints_acc_without_a_mark() -> None:
    table = zero_shot_table(ACCURACIES, replace(SETTINGS, metric="acc"))
    assert table.columns == ["PIQA", "WinoGrande", "Mean"]
    texts = [cell.text for cell in rows_of(table)["Model A", "50 %", "DaSS & co"]]
    assert texts == ["52.0", "62.0", "57.0"]
    assert "†" not in table.caption
    assert "Metric: acc, " in table.caption


def test_the_mean_is_of_the_tasks_shown_and_missing_where_one_is() -> None:
    frame = ACCURACIES.copy()
    frame.loc[2, "winogrande_acc"] = None
    table = zero_shot_table(frame, SETTINGS)
    mean = rows_of(table)["Model A", "50 %", "DaSS & co"][-1]
    assert mean == Cell("–")
    assert rows_of(table)["Model A", "50 %", "Wanda"][-1] == Cell("55.0", "2.5", True)
    one = zero_shot_table(frame, replace(SETTINGS, tasks=["piqa"]))
    assert [c.text for c in rows_of(one)["Model A", "50 %", "Wanda"]] == ["60.0", "60.0"]


def test_a_single_sample_has_no_error() -> None:
    frame = ACCURACIES.assign(winogrande_acc_stderr=None)
    cells = rows_of(zero_shot_table(frame, SETTINGS))["Model A", "", "Dense"]
    assert cells == [Cell("80.0", "3.0"), Cell("70.0"), Cell("75.0")]


def test_captions_name_limits_and_what_differs_between_models() -> None:
    frame = ACCURACIES.assign(zero_shot_limit=[None, None, None, 50])
    frame.loc[3, "piqa_samples"] = 50
    caption = zero_shot_table(frame, SETTINGS).caption
    assert "Limited to the first examples of each task, at most 50 (Model_B)." in caption
    assert (
        "Examples: PIQA 100, WinoGrande 200 (Model A); PIQA 50, WinoGrande 200 (Model_B)."
        in caption
    )
    everywhere = zero_shot_table(ACCURACIES.assign(zero_shot_limit=10), SETTINGS).caption
    assert "at most 10." in everywhere
    mixed = PERPLEXITIES.assign(perplexity_bos=["text"] * 5 + ["window"] * 4)
    assert (
        "BOS: at the start of the text (Model A); at the start of each window (Model_B)."
        in perplexity_table(mixed, SETTINGS).caption
    )


def test_several_calibrations_are_rows_of_their_own() -> None:
    frame = pd.DataFrame(
        [
            row("a", "dense", None, perplexity_validation=5.0),
            row("a", "dass", "u50", perplexity_validation=6.0),
            row("a", "dass", "u50", perplexity_validation=5.5, calibration="c4-8"),
        ]
    )
    several = replace(
        SETTINGS, calibrations={"c4": "many", "c4-8": "few"}, methods={"dass": "DaSS"}
    )
    table = perplexity_table(frame, several)
    shown = {key[2]: cells[0] for key, cells in rows_of(table).items() if key[1] == "50 %"}
    assert shown == {"DaSS, c4": Cell("6.00"), "DaSS, c4-8": Cell("5.50", best=True)}
    assert "Calibration: c4: many; c4-8: few." in table.caption
    only = rows_of(perplexity_table(frame, SETTINGS))
    assert only["", "50 %", "DaSS & co"][0].text == "6.00"


def test_the_split_is_chosen() -> None:
    frame = PERPLEXITIES.assign(perplexity_test=9.0)
    table = perplexity_table(frame, replace(SETTINGS, split="test"))
    assert rows_of(table)["", "", "Dense"] == [Cell("9.00"), Cell("9.00")]
    assert "test split" in table.caption


@pytest.mark.parametrize(
    ("pattern", "label"), [("u50", "50 %"), ("u62.5", "62.5 %"), ("4of8", "4:8"), ("2of4", "2:4")]
)
def test_patterns_have_the_papers_names(pattern: str, label: str) -> None:
    assert pattern_label(pattern) == label


@pytest.mark.parametrize(
    ("value", "text"),
    [(5.474, "5.47"), (999.99, "999.99"), (1234.5678, "1235"), (2.5e6, "2.5e6"), (1e13, "1.0e13")],
)
def test_large_perplexities_are_short(value: float, text: str) -> None:
    assert format_perplexity(value) == text


# --- Escaping -----------------------------------------------------------------------------------

ODD = r"100 %_a & #1 $x^2$ {~} \n <b> | α=½ – “é” Łódź *x* [y]".replace("½", "0.5")


def test_latex_is_escaped_character_by_character() -> None:
    assert escape_latex("_%&#${}") == r"\_\%\&\#\$\{\}"
    assert escape_latex(r"\~^<>|") == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}$<$$>$$|$"
    )
    assert escape_latex("a\nb\tc") == "a b c"
    assert escape_latex("é – ± α") == r"é -- $\pm$ $\alpha$"
    with pytest.raises(DataError, match="'模', which LaTeX cannot print") as error:
        escape_latex("模型")
    assert "\n" not in str(error.value)


def test_markdown_is_escaped() -> None:
    assert escape_markdown("a|b_c*d`e[f]\n#g") == r"a\|b\_c\*d\`e\[f\] \#g"


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_escaped_markdown_reads_as_it_was(text: str) -> None:
    assert unescaped(escape_markdown(text)) == text
    assert re.search(r"(?<!\\)(?:\\\\)*[|*_`]", escape_markdown(text)) is None


# --- Compiling ----------------------------------------------------------------------------------


def long_table() -> Table:
    """Of more rows than a page holds; one block is too long by itself."""
    cells = [Cell("1.0", "0.1", True), Cell()]
    short = [Group("", [("Dense", cells)]), Group("50 %", [("x", cells)] * 9)]
    long = [Group(f"{n}:64", [("x", cells)] * 10) for n in range(1, 7)]
    blocks = [*(Block(f"short {n}", short) for n in range(5)), Block("long", long)]
    return Table(["p", "q"], blocks, "Long.", "tab:long")


def test_a_long_table_goes_on_in_another_float() -> None:
    pages = long_table().pages()
    assert all(sum(block.n_rows for block in page) <= ROWS_A_PAGE for page in pages)
    titles = [[block.title for block in page] for page in pages]
    assert titles == [[f"short {n}" for n in range(4)], ["short 4"], ["long"], ["long"]]
    groups = [group for page in pages for block in page for group in block.groups]
    assert groups == [group for block in long_table().blocks for group in block.groups]
    latex = long_table().latex()
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 4
    assert latex.count(r"\caption{(continued)}") == 3
    assert latex.count(r"\label{") == 1
    assert latex.count(" x ") == 5 * 9 + 60


@needs_latex
@pytest.mark.latex
def test_every_table_compiles_in_a_minimal_document(tmp_path: Path) -> None:
    odd = replace(SETTINGS, title=ODD, note=ODD, experiment="a_b %", methods={"dass": ODD})
    odd = replace(odd, models={"a": ODD, "c": "µ ≤ ≥ × − “x”"}, calibrations={"c4": ODD})
    tables = [
        make(frame, settings)
        for make in (perplexity_table, zero_shot_table)
        for frame in (PERPLEXITIES, ACCURACIES, summary_frame([], [], []))
        for settings in (SETTINGS, odd)
    ]
    for table in (*tables, long_table()):
        head = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
        tex = tmp_path / "table.tex"
        tex.write_text("\n".join([*head, table.latex(), r"\end{document}"]), encoding="utf-8")
        compile_latex(tex, tmp_path / "table.pdf")
        assert (tmp_path / "table.pdf").read_bytes().startswith(b"%PDF")
        (tmp_path / "table.pdf").unlink()


# --- Against an obvious oracle ------------------------------------------------------------------

shares = st.none() | st.floats(min_value=0, max_value=1)


@given(
    st.lists(
        st.tuples(*[st.none() | st.floats(min_value=1, max_value=1e9)] * 2), min_size=2, max_size=2
    )
)
def test_printed_perplexities_are_the_rounded_ones(values: list[tuple[float | None, ...]]) -> None:
    """Read back from Markdown: each number rounded, the lowest as printed in bold."""
    methods = list(SETTINGS.methods)
    frame = perplexities(
        *((m, method, "u50", values[i][j]) for i, method in enumerate(methods)
          for j, m in enumerate(SETTINGS.models))
    )  # fmt: skip
    table = perplexity_table(frame, SETTINGS).markdown().splitlines()[-4:-2]
    printed = [[cell.strip() for cell in line.split("|")[3:-1]] for line in table]
    for column in range(2):
        texts = [line[column] for line in printed]
        numbers = [None if t == "–" else float(t.strip("*")) for t in texts]
        for number, given_ in zip(numbers, (line[column] for line in values), strict=True):
            assert (number is None) == (given_ is None)
            if number is not None and given_ is not None:
                loose = 0.005 if given_ < 1000 else 0.5 if given_ < 1e6 else 0.05 * given_
                assert abs(number - given_) <= loose * (1 + 1e-9)
        lowest = min((n for n in numbers if n is not None), default=None)
        assert [t.startswith("**") for t in texts] == [
            n is not None and n == lowest for n in numbers
        ]


@given(st.lists(st.tuples(shares, shares), min_size=2, max_size=2))
def test_printed_accuracies_are_the_rounded_ones(values: list[tuple[float | None, ...]]) -> None:
    """Read back from LaTeX: percent with one decimal; the highest as printed in bold."""
    settings = replace(SETTINGS, models={"a": "A"}, patterns=["u50"], metric="acc")
    frame = pd.DataFrame(
        [
            row("a", method, "u50", piqa_acc=piqa, winogrande_acc=winogrande)
            for method, (piqa, winogrande) in zip(settings.methods, values, strict=True)
        ]
    )
    lines = [line for line in zero_shot_table(frame, settings).latex().splitlines() if "&" in line]
    printed = [re.split(r"(?<!\\)&", line.removesuffix(r" \\"))[2:] for line in lines[-2:]]
    for column in range(3):
        texts = [line[column].strip() for line in printed]
        for text, (piqa, winogrande) in zip(texts, values, strict=True):
            both = piqa is not None and winogrande is not None
            mean = (piqa + winogrande) / 2 if both else None  # type: ignore[operator]
            share = (piqa, winogrande, mean)[column]
            expected = "--" if share is None else f"{100 * share:.1f}"
            assert text in (expected, rf"\textbf{{{expected}}}")
        bare = [re.sub(r"\\textbf\{(.*)\}", r"\1", text) for text in texts]
        highest = max((float(t) for t in bare if t != "--"), default=None)
        bold = [text.startswith(r"\textbf") for text in texts]
        assert bold == [t != "--" and float(t) == highest for t in bare]
