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
TARGETS = f"{HEAD},targets"
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
    """Section, pattern, method and the cells of each row."""
    return [
        [section.title, group.label, label, *(cell.text for cell in cells)]
        for section in table.sections
        for group in section.groups
        for label, cells in group.rows
    ]


def test_only_rows_with_a_published_number_stand_there(tmp_path: Path) -> None:
    """5.5 is 0.5 % above 5.47; 8 is 3 % below 8.25. What was not measured is a dash."""
    rows = [DENSE, "t. 1,llama,dass,2of4,test,perplexity,8.25,A paper",
            "t. 1,elsewhere,dass,2of4,test,perplexity,8.25,Not ours",
            "t. 2,gemma,dass,2of4,test,perplexity,9,A paper"]  # fmt: skip
    table = published_table(ROWS, SETTINGS, published_in(tmp_path, *rows))
    llama, gemma = "Llama: perplexity, test", "Gemma: perplexity, test"
    assert table.columns == ["Published", "Ours", "Difference", "Verdict"]
    assert printed(table) == [
        [llama, "", "Dense", "5.47", "5.50", "+0.03", "within 2 %"],
        [llama, "2:4", "DaSS", "8.25", "8.00", "−0.25", "differs"],
        [gemma, "2:4", "DaSS", "9.00", "–", "–", "–"],
    ]
    assert "Published: A paper, t. 1; A paper, t. 2." in table.caption
    assert "Not ours" not in table.caption
    assert r"8.25 & 8.00 & $-$0.25 & differs \\" in " ".join(table.latex().split())
    assert "8.25 | 8.00" in " ".join(table.markdown().split())


def test_a_method_that_prunes_otherwise_is_not_held_against_its_key(tmp_path: Path) -> None:
    """The number is about DaSS on MLPs as they stand."""
    number = "t,llama,dass,2of4,test,perplexity,8.25,A"
    for other in (
        replace(SETTINGS, unpublished=["dass"]),
        replace(SETTINGS, targets={"dass": "all"}),
    ):
        assert printed(published_table(ROWS, other, published_in(tmp_path, number))) == []


def test_a_number_says_what_was_pruned(tmp_path: Path) -> None:
    """It is held against methods with these targets only, and dense against all."""
    numbers = (
        "t,llama,dass,2of4,test,perplexity,8.25,A,all",
        "t,llama,dense,,test,perplexity,5.5,A,",
    )
    published = published_in(tmp_path, *numbers, head=TARGETS)
    assert [line[2] for line in printed(published_table(ROWS, SETTINGS, published))] == ["Dense"]
    settings = replace(SETTINGS, targets={"dass": "all"})
    shown = [line[2:5] for line in printed(published_table(ROWS, settings, published))]
    assert shown == [["Dense", "5.50", "5.50"], ["DaSS", "8.25", "8.00"]]


def test_the_tolerance_is_the_studys(tmp_path: Path) -> None:
    settings = replace(SETTINGS, tolerance=0.031)
    number = "t,llama,dass,2of4,test,perplexity,8.25,A"
    (row_,) = printed(published_table(ROWS, settings, published_in(tmp_path, number)))
    assert row_[-1] == "within 3.1 %"


def test_ours_is_the_mean_over_draws(tmp_path: Path) -> None:
    rows = [row(f"llama/c4-seed{seed}/dass/2of4", {"test": 8.0 + seed}) for seed in range(3)]
    settings = replace(SETTINGS, draws={"c4": {f"c4-seed{seed}": seed for seed in range(3)}})
    number = "t,llama,dass,2of4,test,perplexity,9.2,A,c4,,"
    table = published_table(rows, settings, published_in(tmp_path, number, head=CONDITIONS))
    assert [line[3:] for line in printed(table)] == [["9.20", "9.00", "−0.20", "differs"]]
    assert "Ours is the mean over draws of the calibration." in table.caption


def test_accuracies_are_compared_in_percent(tmp_path: Path) -> None:
    rows = ["t,llama,dense,,,piqa_acc,79.1,A", "t,llama,dass,2of4,,mean_acc,70.5,A"]
    assert printed(published_table(ROWS, SETTINGS, published_in(tmp_path, *rows))) == [
        ["Llama: PIQA, acc", "", "Dense", "79.1", "79.0", "−0.1", "within 2 %"],
        ["Llama: mean of the tasks, acc", "2:4", "DaSS", "70.5", "71.0", "+0.5", "within 2 %"],
    ]


@pytest.mark.parametrize("condition", [",ptb,", ",,4096"])
def test_a_number_for_other_conditions_is_not_printed(condition: str, tmp_path: Path) -> None:
    published = published_in(tmp_path, f"{DENSE},{condition}", head=CONDITIONS)
    table = published_table(ROWS, SETTINGS, published)
    assert table.sections == []
    assert "Nothing is published about these runs." in table.caption


def test_acc_never_takes_the_place_of_acc_norm(tmp_path: Path) -> None:
    rows = ["t,llama,dense,,,piqa_acc_norm,79.1,A", "t,llama,dense,,,mean_acc_norm,79.1,A"]
    table = printed(published_table(ROWS, SETTINGS, published_in(tmp_path, *rows)))
    assert [line[3:6] for line in table] == [["79.1", "–", "–"], ["79.1", "79.0", "−0.1"]]


def test_a_mean_is_of_the_metric_that_is_published(tmp_path: Path) -> None:
    """A task without acc_norm counts with its acc, as in the table of our own."""
    tasks = {"piqa": accuracy(0.5, norm=0.7), "winogrande": accuracy(0.6)}
    rows = ["t,llama,dense,,,mean_acc_norm,65.5,A", "t,llama,dense,,,mean_acc,54.5,A"]
    shown = published_table(
        [row("llama/dense", tasks=tasks)], SETTINGS, published_in(tmp_path, *rows)
    )
    assert {line[0]: line[3:6] for line in printed(shown)} == {
        "Llama: mean of the tasks, acc_norm": ["65.5", "65.0", "−0.5"],
        "Llama: mean of the tasks, acc": ["54.5", "55.0", "+0.5"],
    }


def test_the_calibration_tells_runs_apart(tmp_path: Path) -> None:
    published = published_in(
        tmp_path, "t,llama,dass,2of4,test,perplexity,8.25,A,c4,,", head=CONDITIONS
    )
    settings = replace(SETTINGS, calibrations={"books": "", "c4": ""})
    others = [measured(f"llama/books/{method}/2of4", 8.0, 0.7) for method in ("wanda", "dass")]
    table = printed(published_table([*ROWS, *others], settings, published))
    assert [line[2:5] for line in table] == [["DaSS, c4", "8.25", "8.00"]]


@latex
def test_the_table_is_valid_latex(tmp_path: Path) -> None:
    published = published_in(tmp_path, DENSE.replace("A paper", "AWQ_100 % & arXiv"))
    check_latex(
        tmp_path,
        published_table(ROWS, SETTINGS, published),
        published_table(ROWS, SETTINGS, []),
    )


def test_without_rows_it_is_still_a_table() -> None:
    assert "Published" in published_table(ROWS, SETTINGS, []).markdown()


def test_numbers_about_another_text_have_a_section_of_their_own(tmp_path: Path) -> None:
    """Which is named; a number that names no text is about the first."""
    rows = [
        "t,llama,dense,,validation,perplexity,5.4,A paper,,,",
        "t,llama,dense,,validation,perplexity,7,A paper,,c4,",
        "t,llama,dense,,validation,perplexity,8,A paper,,ptb,",
    ]
    published = published_in(tmp_path, *rows, head=CONDITIONS)
    ours = [row("llama/dense", 5.4, c4=8.0)]
    first = ["Llama: perplexity, validation", "", "Dense", "5.40", "5.40", "+0.00", "within 2 %"]
    assert printed(published_table(ours, SETTINGS, published)) == [first]
    settings = replace(SETTINGS, others={"c4": "validation"})
    assert printed(published_table(ours, settings, published)) == [
        first,
        ["Llama: perplexity, validation of c4", "", "Dense", "7.00", "8.00", "+1.00", "differs"],
    ]
