"""The two tables of an experiment, against tables written by hand and an obvious oracle."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dass.report.contests import perplexities
from dass.report.experiment import TableSettings
from dass.report.experiment_tables import perplexity_table, zero_shot_table
from dass.report.table import Cell, Table
from dass.results.schema import TaskAccuracy
from dass.results.summary import SummaryRow

from .latex import check_latex, latex
from .rows import accuracy, row

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

PERPLEXITIES = [
    row("a/dense", 5.0),
    row("a/c4/wanda/u50", 6.004),
    row("a/c4/dass/u50", 5.996),
    row("a/c4/wanda/2of4", 7.256),
    row("a/c4/dass/2of4", 12345.678),
    row("b/dense", 4.5),
    row("b/c4/wanda/u50", 4.4),
    row("b/c4/dass/u50", 4.5),
    row("b/c4/wanda/2of4", 3.25e9),
]


def tasks(acc: float, norm: float, winogrande: float) -> dict[str, TaskAccuracy]:
    """Standard errors 0.03 and 0.04."""
    return {
        "piqa": accuracy(acc, 0.03, norm),
        "winogrande": accuracy(winogrande, 0.04, samples=200),
    }


ACCURACIES = [
    row("a/dense", tasks=tasks(0.9, 0.8, 0.7)),
    row("a/c4/wanda/u50", tasks=tasks(0.51, 0.6, 0.5)),
    row("a/c4/dass/u50", tasks=tasks(0.52, 0.5, 0.62)),
    row("b/dense", tasks=tasks(0.7, 0.6, 0.5)),
]


def rows_of(table: Table) -> dict[tuple[str, str, str], list[Cell]]:
    return {
        (section.title, group.label, label): cells
        for section in table.sections
        for group in section.groups
        for label, cells in group.rows
    }


def printed_rows(table: Table) -> dict[tuple[str, str, str], list[Cell]]:
    """Without the files that the numbers are from."""
    return {k: [replace(c, sources=()) for c in cells] for k, cells in rows_of(table).items()}


def squeezed(text: str) -> list[str]:
    """Lines without the spaces that align them."""
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]


def test_the_perplexity_table_in_latex() -> None:
    """One method alone has no mark, nor has dense; what is best is so before it is rounded."""
    lines = squeezed(perplexity_table(PERPLEXITIES, SETTINGS).latex())
    caption = (
        r"\caption{A title. Perplexity on the validation split of wikitext2; lower is better. "
        r"Context length: 2048 tokens. Windows: 100. BOS: at the start of the text, if the "
        r"tokenizer puts one there. "
        r"Calibration: 8 sequences. Bold: best at that sparsity, and better than every other "
        r"method there beyond noise; underlined: the best and all that cannot be told apart from "
        r"it. Noise: paired bootstrap over windows, two-sided, p $<$ 0.05 after Holm's correction "
        r"over the table. --: not measured. They are stand-ins.}"
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
        r"50 \% & Wanda & 6.00 & \textbf{4.40} \\",
        r"& DaSS \& co & \textbf{6.00} & 4.50 \\",
        r"\midrule",
        r"2:4 & Wanda & \textbf{7.26} & 3.2e9 \\",
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
        "| 50 % | Wanda | 6.00 | **4.40** |",
        "| 50 % | DaSS & co | **6.00** | 4.50 |",
        "| 2:4 | Wanda | **7.26** | 3.2e9 |",
        "| 2:4 | DaSS & co | 12346 | – |",
    ]


def test_the_zero_shot_table_in_latex() -> None:
    """One section per model; the mean's error is √(0.03² + 0.04²) / 2 = 2.5 %.

    The methods differ in 10 of 100 questions and in 24 of 200, but not in the mean of the two.
    """
    table = zero_shot_table(ACCURACIES, SETTINGS)
    lines = squeezed(table.latex())
    assert lines[lines.index(r"\toprule") + 1 : -3] == [
        r"Sparsity & Method & PIQA & WinoGrande$^\dagger$ & Mean \\",
        r"\midrule",
        r"\multicolumn{5}{@{}l}{\textit{Model A}} \\",
        r"& Dense & 80.0 {\tiny$\pm$3.0} & 70.0 {\tiny$\pm$4.0} & 75.0 {\tiny$\pm$2.5} \\",
        r"\addlinespace[2pt]",
        r"50 \% & Wanda & \textbf{60.0} {\tiny$\pm$3.0} & 50.0 {\tiny$\pm$4.0}"
        r" & \underline{55.0} {\tiny$\pm$2.5} \\",
        r"& DaSS \& co & 50.0 {\tiny$\pm$3.0} & \textbf{62.0} {\tiny$\pm$4.0}"
        r" & \underline{56.0} {\tiny$\pm$2.5} \\",
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
    assert "†: acc, since there is no acc_norm (WinoGrande)." in table.caption
    assert "Examples: PIQA 100, WinoGrande 200." in table.caption
    assert "imited" not in table.caption


def test_the_zero_shot_table_in_markdown() -> None:
    lines = squeezed(zero_shot_table(ACCURACIES, SETTINGS).markdown())
    assert lines[2] == "| Model | Sparsity | Method | PIQA | WinoGrande† | Mean |"
    assert lines[4] == "| Model A | | Dense | 80.0 ± 3.0 | 70.0 ± 4.0 | 75.0 ± 2.5 |"
    assert lines[6] == (
        "| Model A | 50 % | DaSS & co | 50.0 ± 3.0 | **62.0** ± 4.0 | <ins>56.0</ins> ± 2.5 |"
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
    piqa = {"piqa": accuracy(0.52, 0.03, 0.5)}
    rows = [*ACCURACIES[:2], row("a/c4/dass/u50", tasks=piqa), *ACCURACIES[3:]]
    table = zero_shot_table(rows, SETTINGS)
    mean = printed_rows(table)["Model A", "50 %", "DaSS & co"][-1]
    assert mean == Cell("–")
    assert printed_rows(table)["Model A", "50 %", "Wanda"][-1] == Cell("55.0", "2.5")
    one = zero_shot_table(rows, replace(SETTINGS, tasks=["piqa"]))
    assert [c.text for c in rows_of(one)["Model A", "50 %", "Wanda"]] == ["60.0", "60.0"]


def test_a_single_sample_has_no_error() -> None:
    single = {"piqa": accuracy(0.9, 0.03, 0.8), "winogrande": accuracy(0.7, None)}
    cells = printed_rows(zero_shot_table([row("a/dense", tasks=single)], SETTINGS))
    assert cells["Model A", "", "Dense"] == [Cell("80.0", "3.0"), Cell("70.0"), Cell("75.0")]


def test_captions_name_limits_and_what_differs_between_models() -> None:
    few = {"piqa": accuracy(0.7, norm=0.6, samples=50), "winogrande": accuracy(0.5, samples=200)}
    caption = zero_shot_table(
        [*ACCURACIES[:3], row("b/dense", tasks=few, limit=50)], SETTINGS
    ).caption
    assert "Limited to the first examples of each task, at most 50 (Model_B)." in caption
    assert (
        "Examples: PIQA 100, WinoGrande 200 (Model A); PIQA 50, WinoGrande 200 (Model_B)."
        in caption
    )
    limited = [row(f"{model}/dense", tasks=tasks(0.7, 0.6, 0.5), limit=10) for model in "ab"]
    assert "at most 10." in zero_shot_table(limited, SETTINGS).caption
    mixed = [row("a/dense", 5.0), row("b/dense", 5.0, bos="window")]
    assert (
        "BOS: at the start of the text, if the tokenizer puts one there (Model A); at the start of "
        "each window (Model_B)." in perplexity_table(mixed, SETTINGS).caption
    )


def test_several_calibrations_are_rows_of_their_own() -> None:
    rows = [row("a/dense", 5.0), row("a/c4/dass/u50", 6.0), row("a/c4-8/dass/u50", 5.5)]
    several = replace(
        SETTINGS, calibrations={"c4": "many", "c4-8": "few"}, methods={"dass": "DaSS"}
    )
    table = perplexity_table(rows, several)
    shown = {key[2]: cells[0] for key, cells in printed_rows(table).items() if key[1] == "50 %"}
    assert shown == {"DaSS, c4": Cell("6.00"), "DaSS, c4-8": Cell("5.50")}
    assert "Calibration: c4: many; c4-8: few." in table.caption
    only = rows_of(perplexity_table(rows, SETTINGS))
    assert only["", "50 %", "DaSS & co"][0].text == "6.00"


def test_the_split_is_chosen() -> None:
    both = {"validation": 5.0, "test": 9.0}
    rows = [row("a/dense", both), row("b/dense", both), row("b/c4/dass/u50", 5.0)]
    table = perplexity_table(rows, replace(SETTINGS, split="test"))
    assert printed_rows(table)["", "", "Dense"] == [Cell("9.00"), Cell("9.00")]
    assert rows_of(table)["", "50 %", "DaSS & co"][1] == Cell("–")
    assert "test split" in table.caption


def test_without_rows_there_are_dashes() -> None:
    for make in (perplexity_table, zero_shot_table):
        cells = rows_of(make([], SETTINGS)).values()
        assert {cell.text for row in cells for cell in row} == {"–"}


ODD = r"100 %_a & #1 $x^2$ {~} \n <b> | α=½ – “é” Łódź *x* [y]".replace("½", "0.5")


@latex
def test_every_table_compiles_in_a_minimal_document(tmp_path: Path) -> None:
    odd = replace(SETTINGS, title=ODD, note=ODD, experiment="a_b %", methods={"dass": ODD})
    odd = replace(odd, models={"a": ODD, "c": "µ ≤ ≥ × − “x”"}, calibrations={"c4": ODD})
    tables = [
        make(rows, settings)
        for make in (perplexity_table, zero_shot_table)
        for rows in (PERPLEXITIES, ACCURACIES, list[SummaryRow]())
        for settings in (SETTINGS, odd)
    ]
    check_latex(tmp_path, *tables)


# --- Several draws ------------------------------------------------------------------------------

SEEDS = replace(SETTINGS, models={"a": "A"}, draws={"c4": {f"c4-seed{n}": n for n in range(3)}})


def test_draws_are_one_line_with_their_mean_and_deviation() -> None:
    """6.0, 6.1 and 6.5: mean 6.2, deviation √((0.04 + 0.01 + 0.09) / 2) = 0.26."""
    values = {0: 6.0, 1: 6.1, 2: 6.5}
    rows = [row(f"a/c4-seed{seed}/dass/u50", value) for seed, value in values.items()]
    rows += [row("a/dense", 5.0), row("a/c4-seed0/wanda/u50", 9.0)]
    table = perplexity_table(rows, SEEDS)
    cells = rows_of(table)
    assert cells["", "", "Dense"] == [Cell("5.00", sources=("runs/a/dense/perplexity.json",))]
    files = tuple(f"runs/a/c4-seed{seed}/dass/u50/perplexity.json" for seed in range(3))
    assert cells["", "50 %", "DaSS & co"] == [Cell("6.20", "0.26", best=True, sources=files)]
    assert cells["", "50 %", "Wanda"] == [
        Cell("9.00", sources=("runs/a/c4-seed0/wanda/u50/perplexity.json",))
    ]
    said = "±: standard deviation over draws of the calibration; without several draws: no ±."
    assert said in table.caption
    assert "paired bootstrap over windows and draws" in table.caption


def test_accuracies_of_draws_deviate_and_single_ones_have_a_standard_error() -> None:
    """60 and 64 %: deviation 2.8; the mean with 50 and 52 %: 55 and 58, deviation 2.1."""
    rows = [
        row("a/c4-seed0/dass/u50", tasks=tasks(0.5, 0.60, 0.50)),
        row("a/c4-seed1/dass/u50", tasks=tasks(0.5, 0.64, 0.52)),
        row("a/c4-seed0/wanda/u50", tasks=tasks(0.5, 0.2, 0.2)),
        row("a/dense", tasks=tasks(0.9, 0.8, 0.7)),
    ]
    table = zero_shot_table(rows, SEEDS)
    cells = printed_rows(table)
    assert cells["A", "50 %", "DaSS & co"] == [
        Cell("62.0", "2.8", best=True),
        Cell("51.0", "1.4", best=True),
        Cell("56.5", "2.1", best=True),
    ]
    assert cells["A", "50 %", "Wanda"][0] == Cell("20.0", "3.0")
    assert cells["A", "", "Dense"][0] == Cell("80.0", "3.0")
    assert rows_of(table)["A", "50 %", "DaSS & co"][2].sources == (
        "runs/a/c4-seed0/dass/u50/zero_shot.json", "runs/a/c4-seed1/dass/u50/zero_shot.json",
    )  # fmt: skip
    assert (
        "±: standard deviation over draws of the calibration; without several draws: standard "
        "error over questions." in table.caption
    )


def test_what_noise_explains_is_tied() -> None:
    """Each wins on every other window: on average by 0.001, which is nothing beside 1."""
    rows = [
        row("a/c4/dass/u50", {"validation": [2.0, 1.0] * 50}),
        row("a/c4/wanda/u50", {"validation": [1.001, 2.001] * 50}),
    ]
    cells = printed_rows(perplexity_table(rows, replace(SETTINGS, models={"a": "A"})))
    assert cells["", "50 %", "DaSS & co"] == [Cell("4.48", tied=True)]
    assert cells["", "50 %", "Wanda"] == [Cell("4.49", tied=True)]


def test_without_two_methods_no_mark_is_explained() -> None:
    table = perplexity_table(PERPLEXITIES, replace(SETTINGS, methods={"dass": "DaSS"}))
    assert not any(cell.best or cell.tied for cells in rows_of(table).values() for cell in cells)
    assert "Bold" not in table.caption and "bootstrap" not in table.caption


# --- Against an obvious oracle ------------------------------------------------------------------

shares = st.none() | st.floats(min_value=0, max_value=1)


@given(
    st.lists(
        st.tuples(*[st.none() | st.floats(min_value=1, max_value=1e9)] * 2), min_size=2, max_size=2
    )
)
def test_printed_perplexities_are_the_rounded_ones(values: list[tuple[float | None, ...]]) -> None:
    """Read back from Markdown: each number rounded."""
    methods = list(SETTINGS.methods)
    rows = [
        row(f"{model}/c4/{method}/u50", values[i][j])
        for i, method in enumerate(methods)
        for j, model in enumerate(SETTINGS.models)
    ]
    table = perplexity_table(rows, SETTINGS).markdown().splitlines()[-4:-2]
    printed = [[cell.strip() for cell in line.split("|")[3:-1]] for line in table]
    for column in range(2):
        texts = [line[column] for line in printed]
        numbers = [None if t == "–" else float(re.sub("[*]|</?ins>", "", t)) for t in texts]
        for number, given_ in zip(numbers, (line[column] for line in values), strict=True):
            assert (number is None) == (given_ is None)
            if number is not None and given_ is not None:
                loose = 0.005 if given_ < 1000 else 0.5 if given_ < 1e6 else 0.05 * given_
                assert abs(number - given_) <= loose * (1 + 1e-9)


def measured(**values: float | None) -> dict[str, TaskAccuracy]:
    """Those tasks that have a value, without a standard error."""
    return {task: accuracy(acc, None) for task, acc in values.items() if acc is not None}


@given(st.lists(st.tuples(shares, shares), min_size=2, max_size=2))
def test_printed_accuracies_are_the_rounded_ones(values: list[tuple[float | None, ...]]) -> None:
    """Read back from LaTeX: percent with one decimal."""
    settings = replace(SETTINGS, models={"a": "A"}, patterns=["u50"], metric="acc")
    rows = [
        row(f"a/c4/{method}/u50", tasks=measured(piqa=piqa, winogrande=winogrande))
        for method, (piqa, winogrande) in zip(settings.methods, values, strict=True)
    ]
    lines = [line for line in zero_shot_table(rows, settings).latex().splitlines() if "&" in line]
    printed = [re.split(r"(?<!\\)&", line.removesuffix(r" \\"))[2:] for line in lines[-2:]]
    for column in range(3):
        texts = [line[column].strip() for line in printed]
        for text, (piqa, winogrande) in zip(texts, values, strict=True):
            both = piqa is not None and winogrande is not None
            mean = (piqa + winogrande) / 2 if both else None  # type: ignore[operator]
            share = (piqa, winogrande, mean)[column]
            expected = "--" if share is None else f"{100 * share:.1f}"
            assert re.sub(r"\\(textbf|underline)\{(.*)\}", r"\2", text) == expected


def test_another_text_has_a_table_of_its_own() -> None:
    """Its own numbers and marks: on C4 the other method is best."""
    rows = [row("a/dense", 5.0, c4=7.0), row("a/c4/wanda/u50", 6.0, c4=9.0),
            row("a/c4/dass/u50", 6.5, c4=8.0), row("b/c4/dass/u50", 7.0)]  # fmt: skip
    settings = replace(SETTINGS, others={"c4": "validation"}, patterns=["u50"])
    first, other = perplexities(settings)
    assert perplexity_table(rows, settings, first) == perplexity_table(rows, settings)
    table = perplexity_table(rows, settings, other)
    assert table.label == "tab:main-1-perplexity-c4"
    assert "Perplexity on the validation split of c4; lower is better" in table.caption
    assert "Windows: 100 (Model A)." in table.caption  # of B it was not measured
    texts = {
        label: [(cell.text, cell.best) for cell in own]
        for (*_, label), own in rows_of(table).items()
    }
    assert texts == {
        "Dense": [("7.00", False), ("–", False)],
        "Wanda": [("9.00", False), ("–", False)],
        "DaSS & co": [("8.00", True), ("–", False)],
    }
    best = {
        label: own[0].best for (*_, label), own in rows_of(perplexity_table(rows, settings)).items()
    }
    assert best == {"Dense": False, "Wanda": True, "DaSS & co": False}
