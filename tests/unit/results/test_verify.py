"""What `verify` says of files that are gone; tests/workflow/test_verify.py damages a whole study."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from dass.errors import DataError
from dass.evaluation.requests import TaskRequests, save_requests
from dass.results.verify import verify
from dass.runtime.provenance import source
from dass.runtime.records import keep_records, record_path
from dass.stages import verify as stage

EXPORT = "exports/a/dense"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of which each kind of output has one: made in this order, each from the one before."""
    study = tmp_path / "results" / "small"
    made_from: list[Path] = []
    for name, files in {
        "requests/a.safetensors": [],
        "summary.json": [],
        "tables/main/perplexity.md": [],
        EXPORT: ["config.json", "weights/model.safetensors"],
    }.items():
        output = study / name
        for file in [output / file for file in files] or [output]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"content of {file.name}")
        if name.startswith("requests"):
            requests = TaskRequests([([1], [2]), ([1], [3])], [2], [0], [1, 1], True, 1)
            about = {"sources": {"piqa": source(_rows(tmp_path))}}
            save_requests(output, {"piqa": requests}, about, {})
        keep_records([output], made_from)
        made_from = [output]
    return study


def _rows(folder: Path) -> Path:
    file = folder / "piqa" / "validation.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    return file


def problem(study: Path, tasks: Mapping[str, Path] | None = None) -> str:
    with pytest.raises(DataError) as raised:
        verify(study, {}, {}, tasks or {})
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_that_is_gone_is_named(study: Path) -> None:
    files = [path for path in study.rglob("*") if path.is_file() and ".sha256" not in path.parts]
    assert verify(study, {}, {}, {}) == len(files) == 5
    for file in files:
        kept = file.read_bytes()
        file.unlink()
        said = problem(study)
        assert said.startswith(f"{file}: is gone, but {study / '.sha256'}/"), said
        assert "run again" in said
        file.write_bytes(kept)
    shutil.rmtree(study / EXPORT)
    assert problem(study).startswith(f"{study / EXPORT}/config.json: is gone")
    record_path(study, EXPORT).unlink()  # as the line says, where nobody wants it any more
    assert verify(study, {}, {}, {}) == 3


def test_the_first_of_several_is_the_one_that_was_made_first(study: Path) -> None:
    for name in ("requests/a.safetensors", "summary.json", "tables/main/perplexity.md"):
        (study / name).unlink()
    assert problem(study).startswith(f"{study}/requests/a.safetensors: is gone")
    for folder in ("requests", "tables", "exports"):
        shutil.rmtree(study / folder)
    assert problem(study).startswith(f"{study}/requests/a.safetensors: is gone")


def test_what_a_result_was_made_from_is_missed_without_its_record(study: Path) -> None:
    name = "tables/main/perplexity.md"
    (study / name).unlink()
    record_path(study, name).unlink()
    said = f"{study / name}: is gone, but {study / EXPORT}/config.json was made from it; run again"
    assert problem(study) == said


def test_a_file_of_a_task_is_missed_where_its_folder_is_there(study: Path) -> None:
    folder = study.parents[1] / "piqa"
    assert verify(study, {}, {}, {"piqa": folder}) == 5
    (folder / "validation.jsonl").unlink()
    made = study / "requests/a.safetensors"
    said = f"{folder / 'validation.jsonl'}: is gone, but {made} was made from it; restore it"
    assert problem(study, {"piqa": folder}) == said
    folder.rmdir()
    assert verify(study, {}, {}, {"piqa": folder}) == 5


def test_a_model_without_its_config_is_named(study: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_text("weights")
    with pytest.raises(DataError, match=r"model/config\.json: is gone, but not .*model; restore it"):
        verify(study, {"a": model}, {}, {})


def test_the_stage_compares_models_texts_and_tasks(study: Path, tmp_path: Path) -> None:
    """Each against the folders of its own kind; another's of that name is not looked at."""
    tasks, others = {"piqa": str(tmp_path / "piqa")}, {"piqa": str(tmp_path / "none")}
    stage.verify(study=study, models=others, texts=others, tasks=tasks)
    (tmp_path / "piqa/validation.jsonl").write_text("[]")
    stage.verify(study=study, models={}, texts=tasks, tasks=others)
    with pytest.raises(DataError, match=r"piqa/validation\.jsonl: is not what .* was made from"):
        stage.verify(study=study, models={}, texts=others, tasks=tasks)
    model = tmp_path / "model"
    model.mkdir()
    one = {"size": 7, "hash": ""}
    (model / "fetched.json").write_text(json.dumps({"files": {"config.json": one}}))
    (model / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"model/config\.json: is not what was fetched"):
        stage.verify(study=study, models={"a": str(model)}, texts={}, tasks={})
