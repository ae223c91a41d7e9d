"""`snakemake verify`: a flipped bit in any file of the results is found, and the file is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dass.errors import DataError
from dass.results.verify import verify
from dass.runtime.records import keep_records

from .conftest import Workflow

STUDY = Path("results/small")
MODELS = {name: f"resources/models/{name}" for name in ("standin-llama", "standin-mistral")}
CORPUS = "resources/standins/toy_corpus"
TEXTS = {"toy": f"{CORPUS}/documents.jsonl.gz", "toy-text": f"{CORPUS}/wikitext"}
TASKS = {name: f"{CORPUS}/{name}" for name in ("arc_easy", "piqa")}
RUN = STUDY / "runs/standin-llama/toy/dass/2of4"


@pytest.fixture
def here(study: Workflow, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    monkeypatch.chdir(study.folder)
    return study


def problem() -> str:
    with pytest.raises(DataError) as raised:
        verify(STUDY, MODELS, TEXTS, TASKS)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_a_flipped_bit_in_any_file_is_found(here: Workflow) -> None:
    files = [p for p in STUDY.rglob("*") if p.is_file() and ".sha256" not in p.parts]
    assert verify(STUDY, MODELS, TEXTS, TASKS) == len(files) > 20
    model = Path(MODELS["standin-llama"])
    sources = [model / "config.json", model / "model.safetensors"]
    sources += [Path(CORPUS) / name for name in ("documents.jsonl.gz", "piqa/validation.jsonl")]
    for file in (*files, *sources):
        place = file.stat().st_size // 2
        flip(file, place)
        assert str(file.parent if file.is_relative_to(model) else file) in problem(), file
        flip(file, place)
    for file in (STUDY / ".sha256").rglob("*.json"):
        flip(file, file.stat().st_size // 2)
        assert file.name.removesuffix(".json") in problem(), file
        flip(file, file.stat().st_size // 2)
    assert verify(STUDY, MODELS, TEXTS, TASKS) == len(files)


def test_a_target_that_ends_in_one_line(study: Workflow) -> None:
    assert study.snakemake("verify").code == 0
    flip(study.folder / STUDY / "summary.csv", 100)
    finished = study.snakemake("verify")
    assert finished.code != 0
    assert "error: results/small/summary.csv: is not what was written" in finished.output
    assert "Traceback" not in finished.output


def test_whole_files_that_do_not_belong_together_are_found(here: Workflow) -> None:
    """Results of other masks, older results, and what no job has written."""
    other = STUDY / "runs/standin-llama/toy/wanda/2of4"
    for name in ("pruned.safetensors", "perplexity.json"):
        kept = (RUN / name).read_bytes()
        shutil.copy(other / name, RUN / name)
        assert str(RUN / name) in problem()
        keep_records([RUN / name], [])  # as if a job had written it
        assert str(RUN) in problem()
        (RUN / name).write_bytes(kept)
        keep_records([RUN / name], [RUN / "pruned.safetensors"] * (name == "perplexity.json"))
    (STUDY / "mine.txt").write_text("a note")
    assert "mine.txt: no job of this study has recorded it" in problem()


def test_models_that_are_gone_are_not_compared(here: Workflow) -> None:
    shutil.rmtree("resources")
    assert verify(STUDY, MODELS, TEXTS, TASKS) > 20
    with pytest.raises(DataError, match="results/none: no such folder; run the study first"):
        verify("results/none", {}, {}, {})
