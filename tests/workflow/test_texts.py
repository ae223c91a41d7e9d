"""Perplexity on more texts than one, by entries of the config: of documents and of rows."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dass.report.words import format_perplexity
from tests.docs.pages import ROOT, blocks

from .conftest import Workflow, small_study
from .test_incremental import ENDS

OTHERS = {"c4-like": {"documents": 60, "windows": 3}, "essays": {"split": "test"}}
DENSE = "results/small/runs/standin-llama/dense/perplexity.json"


def with_others(**others: dict[str, Any]) -> dict:
    """The small study with these other texts."""
    study = small_study()
    study["datasets"] |= {
        "c4-like": {"kind": "documents", "path": "c4.jsonl.gz"},
        "essays": {"kind": "text", "path": "essays"},
    }
    study["perplexity"]["others"] = OTHERS | others
    return study


@pytest.fixture(scope="module")
def measured(finished_study: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The finished small study, and what the other texts add to it."""
    workflow = finished_study.copied(tmp_path_factory.mktemp("texts") / "study")
    corpus = workflow.folder / "resources/standins/toy_corpus"
    shutil.copy(corpus / "documents.jsonl.gz", workflow.folder / "c4.jsonl.gz")
    (workflow.folder / "essays").mkdir()
    shutil.copy(corpus / "wikitext/validation.jsonl", workflow.folder / "essays/test.jsonl")
    workflow.write_study(with_others())
    added = {"evaluation_tokens": 4, "perplexity": 6}
    assert workflow.plan() == added | ENDS  # and nothing is pruned
    before = table(workflow, "perplexity")
    workflow.forked("evaluate")
    finished = workflow.snakemake()
    assert finished.code == 0, finished.output
    assert workflow.plan() == {}
    assert table(workflow, "perplexity") == before
    return workflow


def table(workflow: Workflow, kind: str) -> str:
    return (workflow.folder / f"results/small/tables/main/{kind}.md").read_text()


def test_every_run_is_measured_on_each(measured: Workflow) -> None:
    """On documents as the public code that measures C4 reads them."""
    from transformers import AutoTokenizer

    from dass.data.token_file import load_tokens

    results = list((measured.folder / "results/small/runs").rglob("perplexity.json"))
    assert len(results) == 6
    for file in results:
        others = json.loads(file.read_text())["others"]
        assert {name: text["split"] for name, text in others.items()} == {
            "c4-like": "validation", "essays": "test",
        }  # fmt: skip
        assert others["c4-like"]["windows"] == 3
    dense = json.loads((measured.folder / DENSE).read_text())
    same = [dense["splits"]["validation"], dense["others"]["essays"]]
    assert same[1] == same[0] | {"split": "test"}  # another file with the same text

    folder = measured.folder / "resources/models/standin-llama"
    with gzip.open(measured.folder / "c4.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["text"] for line in file]
    tokens = AutoTokenizer.from_pretrained(folder)(" ".join(texts[:60])).input_ids[: 3 * 64]
    saved = measured.folder / "results/small/evaluation/standin-llama/c4-like.safetensors"
    assert load_tokens(saved)["validation"].flatten().tolist() == tokens


def test_each_has_its_table_figure_columns_and_a_sentence(measured: Workflow) -> None:
    results = measured.folder / "results/small"
    assert "Perplexity on the validation split of c4-like" in table(measured, "perplexity-c4-like")
    assert "Windows: 3." in table(measured, "perplexity-c4-like")
    assert "Perplexity on the test split of essays" in table(measured, "perplexity-essays")
    with (results / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    printed = table(measured, "perplexity-c4-like")
    for row in rows:
        assert format_perplexity(float(row["perplexity_c4-like_validation"])) in printed
        assert row["perplexity_essays_test"] == row["perplexity_validation"]
    page = (results / "report.html").read_text()
    source = (results / "report.tex").read_text()
    for name in OTHERS:
        assert (results / f"figures/main/perplexity-{name}.pdf").exists()
        assert f"lowest {name} perplexity" in page
        assert rf"\label{{tab:main-perplexity-{name}}}" in source
        assert f"figures/main/perplexity-{name}.pdf" in source


def test_verify_compares_them(measured: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    from dass.errors import DataError
    from dass.results.verify import verify

    monkeypatch.chdir(measured.folder)
    texts = {"c4-like": "c4.jsonl.gz", "essays": "essays"}
    verify("results/small", {}, texts, {})
    essay = Path("essays/test.jsonl")
    before = essay.read_bytes()
    essay.write_bytes(before[:-2])
    with pytest.raises(DataError, match=r"essays/test\.jsonl: is not what .*essays\.safetensors"):
        verify("results/small", {}, texts, {})
    essay.write_bytes(before)
    measured.snakemake("--touch")


@pytest.mark.parametrize("file", ["essays/test.jsonl", "c4.jsonl.gz"])
def test_an_edited_text_is_measured_again(measured: Workflow, file: str) -> None:
    path = measured.folder / file
    before = path.read_bytes()
    path.write_bytes(before + b"\n")
    assert measured.plan() == {"evaluation_tokens": 2, "perplexity": 6} | ENDS
    path.write_bytes(before)
    assert measured.plan() == {}


def test_an_entry_that_is_changed_is_measured_again(measured: Workflow) -> None:
    fewer = with_others(**{"c4-like": {"documents": 60, "windows": 2}})
    config = measured.write_study(fewer, "fewer.yaml")
    assert measured.plan(config=config) == {"evaluation_tokens": 2, "perplexity": 6} | ENDS
    config = measured.write_study(small_study(), "none.yaml")
    assert measured.plan(config=config) == {"perplexity": 6} | ENDS


def test_a_file_that_is_not_there_is_one_line_before_the_first_job(measured: Workflow) -> None:
    study = with_others(essays={"split": "validation"})
    finished = measured.snakemake("--dry-run", config=measured.write_study(study, "none.yaml"))
    assert finished.code != 0
    line = finished.output.strip().splitlines()[-1]
    assert line.startswith("error: datasets.essays.path: essays: has neither validation.jsonl nor")


def test_c4_is_added_to_the_papers_study_by_the_lines_of_the_page(fresh: Workflow) -> None:
    """Of docs/config.md: fetched once, tokenised for each model, and measured by the same jobs."""
    (page,) = [b for b in blocks(ROOT / "docs/config.md") if "c4-validation" in b.text]
    lines, study = (
        yaml.safe_load(page.text),
        yaml.safe_load((ROOT / "config/config.yaml").read_text()),
    )
    before = fresh.plan(config=fresh.write_study(study, "paper.yaml"))
    for section, entries in lines.items():
        study[section] |= entries
    after = fresh.plan(config=fresh.write_study(study, "paper.yaml"))
    assert after - before == {"fetch_dataset": 1, "evaluation_tokens": 6}
    assert not before - after
