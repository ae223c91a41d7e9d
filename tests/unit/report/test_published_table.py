"""The table that holds our numbers against published ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dass.report.experiment import TableSettings
from dass.report.published_table import published_table
from dass.report.table import Table
from dass.results.published import Published, read_published
from dass.results.summary import SummaryRow

from .latex import check_latex, latex
from .rows import accuracy, row

HEAD = "table,model,method,pattern,split,metric,value,source"
CONDITIONS = f"{HEAD},calibration,dataset,length"
DENSE = "t. 1,llama,dense,,test,perplexity,5.47,A paper"


def published_in(folder: Path, *rows: str, head: str = HEAD) -> list[Published]:
    (folder / "published.csv").write_text("\n".join([head, *rows, ""]))
    return read_published(folder / "published.csv")


SETTINGS = TableSettings(
    experiment="main",
    title="Pruned",
    models={"llama": "Llama", "gemma": "Gemma"},
    calibrations={"c4": ""},
    methods={"wanda": "Wanda", "dass": "DaSS"},
    patterns=["2of4"],
)


def measured(run: str, value: float, acc: float) -> SummaryRow:
    own = {"validation": value - 1, "test": value}
    return row(run, own, tasks={"piqa": accuracy(acc), "winogrande": accuracy(acc)})


ROWS = [
    measured("llama/dense", 5.5, 0.79),
    measured("llama/c4/wanda/2of4", 9.0, 0.70),
    measured("llama/c4/dass/2of4", 8.0, 0.71),
    measured("gemma/dense", 7.0, 0.8),
]


def printed(table: Table) -> list[list[str]]:
    """Section, pattern, method and the three cells of each row."""
    return [
        [section.title, group.label, label, *(cell.text for cell in cells)]
        for section in table.sections
        for group in section.groups
        for label, cells in group.rows
    ]


def test_ours_published_and_difference_and_dashes_elsewhere(tmp_path: Path) -> None:
    rows = [DENSE, "t. 1,llama,dass,2of4,test,perplexity,8.25,A paper",
            "t. 1,elsewhere,dass,2of4,test,perplexity,8.25,Not ours"]  # fmt: skip
    table = published_table(ROWS, SETTINGS, published_in(tmp_path, *rows))
    llama, gemma = "Llama: perplexity, test", "Gemma: perplexity, test"
    assert table.columns == ["Ours", "Published", "Difference"]
    assert printed(table) == [
        [llama, "", "Dense", "5.50", "5.47", "+0.03"],
        [llama, "2:4", "Wanda", "9.00", "–", "–"],
        [llama, "2:4", "DaSS", "8.00", "8.25", "−0.25"],
        [gemma, "", "Dense", "7.00", "–", "–"],
        [gemma, "2:4", "Wanda", "–", "–", "–"],
        [gemma, "2:4", "DaSS", "–", "–", "–"],
    ]
    assert "Published: A paper, t. 1." in table.caption
    assert "Not ours" not in table.caption
    assert r"8.00 & 8.25 & $-$0.25 \\" in " ".join(table.latex().split())
    assert "8.00 | 8.25" in " ".join(table.markdown().split())


def test_accuracies_are_compared_in_percent(tmp_path: Path) -> None:
    rows = ["t,llama,dense,,,piqa_acc,79.1,A", "t,llama,dass,2of4,,mean_acc,70.5,A"]
    table = printed(published_table(ROWS, SETTINGS, published_in(tmp_path, *rows)))
    assert table[0] == ["Llama: PIQA, acc", "", "Dense", "79.0", "79.1", "−0.1"]
    assert ["Llama: mean of the tasks, acc", "2:4", "DaSS", "71.0", "70.5", "+0.5"] in table


@pytest.mark.parametrize("condition", [",ptb,", ",,4096"])
def test_a_number_for_other_conditions_is_not_printed(condition: str, tmp_path: Path) -> None:
    published = published_in(tmp_path, f"{DENSE},{condition}", head=CONDITIONS)
    table = published_table(ROWS, SETTINGS, published)
    assert printed(table)[0] == [
        "Llama: perplexity, validation", "", "Dense", "4.50", "–", "–"
    ]  # fmt: skip
    assert "Nothing is published about these runs." in table.caption


def test_acc_never_takes_the_place_of_acc_norm(tmp_path: Path) -> None:
    rows = ["t,llama,dense,,,piqa_acc_norm,79.1,A", "t,llama,dense,,,mean_acc_norm,79.1,A"]
    table = printed(published_table(ROWS, SETTINGS, published_in(tmp_path, *rows)))
    assert table[0] == ["Llama: PIQA, acc_norm", "", "Dense", "–", "79.1", "–"]
    assert ["Llama: mean of the tasks, acc_norm", "", "Dense", "79.0", "79.1", "−0.1"] in table


def test_a_mean_is_of_the_metric_that_is_published(tmp_path: Path) -> None:
    """A task without acc_norm counts with its acc, as in the table of our own."""
    tasks = {"piqa": accuracy(0.5, norm=0.7), "winogrande": accuracy(0.6)}
    rows = ["t,llama,dense,,,mean_acc_norm,65.5,A", "t,llama,dense,,,mean_acc,54.5,A"]
    shown = published_table(
        [row("llama/dense", tasks=tasks)], SETTINGS, published_in(tmp_path, *rows)
    )
    means = {title: cells for title, _, label, *cells in printed(shown) if "Llama" in title
             and label == "Dense"}  # fmt: skip
    assert means == {
        "Llama: mean of the tasks, acc_norm": ["65.0", "65.5", "−0.5"],
        "Llama: mean of the tasks, acc": ["55.0", "54.5", "+0.5"],
    }


def test_the_calibration_tells_runs_apart(tmp_path: Path) -> None:
    published = published_in(
        tmp_path, "t,llama,dass,2of4,test,perplexity,8.25,A,c4,,", head=CONDITIONS
    )
    settings = replace(SETTINGS, calibrations={"books": "", "c4": ""})
    others = [measured(f"llama/books/{method}/2of4", 8.0, 0.7) for method in ("wanda", "dass")]
    table = printed(published_table([*ROWS, *others], settings, published))
    assert ["Llama: perplexity, test", "2:4", "DaSS, c4", "8.00", "8.25", "−0.25"] in table
    assert ["Llama: perplexity, test", "2:4", "DaSS, books", "8.00", "–", "–"] in table


@latex
def test_the_table_is_valid_latex(tmp_path: Path) -> None:
    published = published_in(tmp_path, DENSE.replace("A paper", "AWQ_100 % & arXiv"))
    check_latex(tmp_path, published_table(ROWS, SETTINGS, published))
