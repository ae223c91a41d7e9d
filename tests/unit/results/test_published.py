"""Published numbers: the file and its mistakes, the gate on the dense model."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dass.config.load import load_config, read_config
from dass.errors import DataError, NumericError
from dass.report.settings import table_settings
from dass.results.published import (
    Published,
    Quantity,
    dense_targets,
    read_published,
    was_pruned_from,
)
from dass.results.schema import OtherText, PerplexityResult, Run, SplitPerplexity, write_result
from dass.stages.check_dense import check_dense

ROOT = Path(__file__).parents[3]
HEAD = "table,model,method,pattern,split,metric,value,source"
CONDITIONS = f"{HEAD},calibration,dataset,length"
DENSE = "t. 1,llama,dense,,test,perplexity,5.47,A paper"


def file_of(folder: Path, *rows: str, head: str = HEAD) -> Path:
    path = folder / "published.csv"
    path.write_text("\n".join([head, *rows, ""]))
    return path


# --- The file -----------------------------------------------------------------------------------


def test_a_row_is_a_number_and_what_it_is_of(tmp_path: Path) -> None:
    path = file_of(
        tmp_path,
        DENSE,
        't. 2,llama,dass,2of4,,piqa_acc,76.4,"A paper, 2025"',
        head=HEAD,
    )
    dense, pruned = read_published(path)
    assert dense == Published(
        model="llama", calibration=None, method="dense", pattern=None,
        quantity=Quantity("perplexity", "test"), dataset=None, length=None, value=5.47,
        source="A paper, t. 1", file=str(path),
    )  # fmt: skip
    assert (pruned.method, pruned.pattern) == ("dass", "2of4")
    assert pruned.quantity == Quantity("piqa_acc", "")
    assert pruned.value == pytest.approx(0.764)  # a share, as our accuracies are
    assert pruned.source == "A paper, 2025, t. 2"


def test_conditions_restrict_and_are_optional(tmp_path: Path) -> None:
    path = file_of(
        tmp_path,
        f"{DENSE},,wikitext2,2048",
        ",llama,dass,u50,test,perplexity,6.1,A paper,c4,,",
        head=CONDITIONS,
    )
    dense, pruned = read_published(path)
    assert dense.text(["wikitext2", "c4"], 2048) == "wikitext2"
    assert dense.text(["c4", "wikitext2"], 2048) == "wikitext2"
    assert dense.text(["wikitext2"], 4096) is None
    assert dense.text(["ptb"], 2048) is None
    assert pruned.text(["ptb", "wikitext2"], 128) == "ptb"
    assert pruned.is_about(Run.parse("llama/c4/dass/u50"))
    assert not pruned.is_about(Run.parse("llama/books/dass/u50"))
    assert pruned.source == "A paper"


def test_what_was_pruned_is_the_mlps_unless_said(tmp_path: Path) -> None:
    about = "t,llama,wanda,u50,test,perplexity,6.92,A"
    path = file_of(tmp_path, f"{about},", f"{about},all", head=f"{HEAD},targets")
    assert [row.targets for row in read_published(path)] == ["mlp", "all"]
    path = file_of(tmp_path, f"{about},mpl", head=f"{HEAD},targets")
    with pytest.raises(DataError, match="targets 'mpl' is none of mlp, attention, all; correct it"):
        read_published(path)


def test_blank_lines_and_a_byte_order_mark_are_no_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes(f"\ufeff{HEAD}\r\n\r\n{DENSE}\r\n".encode())
    assert [row.value for row in read_published(path)] == [5.47]
    assert read_published(file_of(tmp_path)) == []


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("t,llama,dense,,test,perplexity,5.47", "not as many cells as columns"),
        (f"{DENSE},more", "not as many cells as columns"),
        ("t,,dense,,test,perplexity,5.47,A", "model is empty"),
        ("t,llama,dense,,test,perplexity,5.47,", "source is empty"),
        ("t,llama,dense,,test,perplexity,,A", "value is empty"),
        ("t,llama,dense,,test,perplexity,5;47,A", "'5;47' is no perplexity"),
        ("t,llama,dense,,test,perplexity,nan,A", "'nan' is no perplexity"),
        ("t,llama,dense,,test,perplexity,inf,A", "'inf' is no perplexity"),
        ("t,llama,dense,,test,perplexity,0.5,A", "'0.5' is no perplexity"),
        ("t,llama,dense,2of4,test,perplexity,5.47,A", "method dense has no pattern"),
        ("t,llama,dass,,test,perplexity,5.47,A", "every other method has one"),
        ("t,llama,dass,2:4,test,perplexity,5.47,A", "unknown pattern '2:4'"),
        ("t,llama,dass,u50.0,test,perplexity,5.47,A", "pattern 'u50.0' is spelled u50"),
        ("t,llama,dense,,tset,perplexity,5.47,A", "split 'tset' is neither validation nor test"),
        ("t,llama,dense,,,perplexity,5.47,A", "split '' is neither"),
        ("t,llama,dense,,test,ppl,5.47,A", "unknown metric 'ppl'"),
        ("t,llama,dense,,,piqa_acc,0.764,A", "'0.764' is no accuracy in percent"),
        ("t,llama,dense,,,piqa_acc,101,A", "'101' is no accuracy in percent"),
    ],
)
def test_a_malformed_row_is_one_line_that_names_the_place(
    row: str, says: str, tmp_path: Path
) -> None:
    """Also where the row is about a model that no study has."""
    path = file_of(tmp_path, DENSE, row)
    with pytest.raises(DataError) as error:
        read_published(path)
    line = str(error.value)
    assert line.startswith(f"{path}:3: ") and says in line and "\n" not in line


@pytest.mark.parametrize("length", ["0", "2k", "-1"])
def test_a_length_is_a_number_of_tokens(length: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, f"{DENSE},,,{length}", head=CONDITIONS)
    with pytest.raises(DataError, match=rf"{path}:2: length '{length}' is no number of tokens"):
        read_published(path)


def test_two_rows_about_the_same_are_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, DENSE, "t. 9,llama,dense,,test,perplexity,5.474,Another")
    with pytest.raises(DataError, match=rf"^{path}:3: says what {path}:2 says already"):
        read_published(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"model,value\n", ":1: no column 'table'; the first line must be table,model,method"),
        (f"{HEAD},lenght\n".encode(), ":1: column 'lenght' is unknown or there twice"),
        (f"{HEAD},model\n".encode(), ":1: column 'model' is unknown or there twice"),
        (b"", ":1: no column 'table'"),
        (b"\xff\xfe", ": no CSV in UTF-8"),
        (f'{HEAD}\n"open'.encode(), ": no CSV in UTF-8"),
    ],
)
def test_a_file_that_is_not_such_a_table(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_published(path)
    assert str(error.value).startswith(f"{path}{says}") and "\n" not in str(error.value)


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^published\.file: .*none\.csv cannot be read"):
        read_published(tmp_path / "none.csv")


def test_the_papers_file_has_a_source_for_every_number_and_only_models_of_the_study() -> None:
    study = read_config(ROOT / "config" / "config.yaml")
    rows = read_published(ROOT / "config" / "published.csv")
    assert {row.model for row in rows} <= set(study.models)
    assert all("arXiv" in row.source or "github.com" in row.source for row in rows)
    perplexity = study.perplexity
    for row in (row for row in rows if row.method == "dense"):
        args = (row.model, perplexity.length, {perplexity.dataset: perplexity.splits})
        assert [target.value for target in dense_targets(rows, *args)] == [row.value]


def test_the_page_says_how_numbers_of_all_layers_are_printed() -> None:
    """Its lines, added to the paper's study, ask for the runs that the file's rows are about."""
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (added,) = (yaml.safe_load(block) for block in blocks if "targets: all}" in block)
    study = yaml.safe_load((ROOT / "config" / "config.yaml").read_text("utf-8"))
    for block, entries in added.items():
        study[block] |= entries
    settings = table_settings(load_config(study), "targets")
    rows = [r for r in read_published(ROOT / "config" / "published.csv") if r.targets == "all"]
    asked = {(model, method, "u50") for model in settings.models for method in settings.methods}
    assert {(row.model, row.method, row.pattern) for row in rows} == asked
    assert settings.patterns == ["u50"] and not settings.unpublished
    assert {settings.targets[row.method] for row in rows} == {"all"}


# --- The gate -----------------------------------------------------------------------------------


def dense_file(folder: Path, **perplexities: float) -> Path:
    splits = {
        split: SplitPerplexity(perplexity=value, nll=1.0, tokens=8, windows=2, tokens_hash="t", window_nlls=[1, 1])
        for split, value in perplexities.items()
    }
    result = PerplexityResult(
        run=Run(model="llama", calibration=None, method="dense", pattern=None),
        settings={"length": 2048, "bos": "text"},
        dataset="wikitext2",
        splits=splits,
        others={"c4": OtherText(split="validation", **splits["test"].model_dump())},
        mask_hash=None,
        provenance={},
    )
    write_result(folder / "perplexity.json", result)
    return folder / "perplexity.json"


def checked(folder: Path, ours: float, *rows: str, head: str = HEAD, **changes: Any) -> Any:
    """Check a dense test perplexity; returns what was written."""
    published = read_published(file_of(folder, *(rows or [DENSE]), head=head))
    splits = {"wikitext2": ["validation", "test"], "c4": ["validation"]}
    found = dense_targets(published, "llama", 2048, splits)
    targets = [target._asdict() for target in found]  # as the workflow passes them
    dense = dense_file(folder, test=ours, validation=ours)
    out = folder / "checked.json"
    check_dense(dense=dense, targets=targets, out=out, **{"tolerance": 0.02} | changes)
    return json.loads(out.read_text())


@pytest.mark.parametrize("ours", [5.47, 5.57, 5.37])
def test_a_dense_model_within_the_tolerance_passes(ours: float, tmp_path: Path) -> None:
    (check,) = checked(tmp_path, ours)["checks"]
    assert check["off"] == pytest.approx(ours / 5.47 - 1)
    assert (check["perplexity"], check["value"], check["split"]) == (ours, 5.47, "test")
    assert check["source"] == f"A paper, t. 1; {tmp_path}/published.csv"


@pytest.mark.parametrize(("ours", "off"), [(5.6, "+2.4"), (5.35, "-2.2"), (1e13, "+1828")])
def test_one_that_is_off_either_way_is_one_line_with_the_remedy(
    ours: float, off: str, tmp_path: Path
) -> None:
    with pytest.raises(NumericError) as error:
        checked(tmp_path, ours)
    line = str(error.value)
    assert line.startswith(f"llama: its dense perplexity is {ours:.4g} on the test split")
    published = f"5.47 is published (A paper, t. 1; {tmp_path}/published.csv): {off}"
    for part in (published, "published.tolerance of 2 %", "models.llama (revision, dtype, bos)",
                 "datasets.wikitext2, context length 2048", "published.gate: false"):  # fmt: skip
        assert part in line
    assert "\n" not in line
    assert not (tmp_path / "checked.json").exists()


def test_the_tolerance_is_the_users(tmp_path: Path) -> None:
    assert checked(tmp_path, 5.6, tolerance=0.03)["tolerance"] == 0.03


def test_each_published_split_is_checked(tmp_path: Path) -> None:
    validation = "t,llama,dense,,validation,perplexity,7.0,A"
    with pytest.raises(NumericError, match=r"on the validation split .* 7 is published"):
        checked(tmp_path, 5.47, DENSE, validation)


def test_a_number_about_another_text_is_held_against_it_and_no_other(tmp_path: Path) -> None:
    """One that names no data set is about the first."""
    rows = [f"{DENSE},,,", "t,llama,dense,,validation,perplexity,7.0,A,,c4,"]
    with pytest.raises(NumericError, match=r"on the validation split of c4, but 7 is published"):
        checked(tmp_path, 5.47, *rows, head=CONDITIONS)
    rows[1] = rows[1].replace("7.0", "5.5")
    checks = checked(tmp_path, 5.47, *rows, head=CONDITIONS)["checks"]
    assert [(check["dataset"], check["split"]) for check in checks] == [
        ("wikitext2", "test"), ("c4", "validation"),
    ]  # fmt: skip
    unasked = "t,llama,dense,,test,perplexity,7.0,A,,c4,"
    assert checked(tmp_path, 5.47, unasked, head=CONDITIONS)["checks"] == []


def test_runs_that_are_pruned_of_the_same_model_need_no_gate(tmp_path: Path) -> None:
    result, folder = tmp_path / "run" / "pruning.json", tmp_path / "model"
    folder.mkdir()
    result.parent.mkdir()

    def pruned(dtype: str = "float16", bos: str = "text") -> bool:
        return was_pruned_from(result, folder=folder, dtype=dtype, bos=bos)

    assert not pruned()
    result.write_text(json.dumps({"settings": {"dtype": "float16", "bos": "text"}}))
    assert not pruned()
    (result.parent / "pruned.safetensors").touch()
    assert pruned()
    assert not pruned(dtype="bfloat16")
    assert not pruned(bos="window")
    (folder / "config.json").touch()
    os.utime(folder / "config.json", (1, 1))
    assert pruned()
    os.utime(folder / "config.json")
    os.utime(result, (2, 2))
    assert not pruned()  # fetched again since
    for malformed in ("{", "{}", "[]", "7", '{"settings": []}', '{"settings": null}'):
        result.write_text(malformed)  # which the run's own job refuses
        assert not pruned()


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (("llama", 2048, {"wikitext2": ["test"]}), 1),
        (("llama", 2048, {"wikitext2": ["validation"]}), 0),
        (("llama", 4096, {"wikitext2": ["test"]}), 0),
        (("llama", 2048, {"ptb": ["test"]}), 0),
        (("llama", 2048, {"ptb": ["test"], "wikitext2": ["test"]}), 1),
        (("gemma", 2048, {"wikitext2": ["test"]}), 0),
    ],
)
def test_only_comparable_values_gate(asked: Any, count: int, tmp_path: Path) -> None:
    rows = [
        f"{DENSE},,wikitext2,2048",
        "t,llama,dass,u50,test,perplexity,6.1,A,,wikitext2,2048",
        "t,llama,dense,,,piqa_acc,76.4,A,,,",
    ]
    published = read_published(file_of(tmp_path, *rows, head=CONDITIONS))
    assert len(dense_targets(published, *asked)) == count
