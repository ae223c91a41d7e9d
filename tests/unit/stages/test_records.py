"""What results and exports say of how they came to be is enough to make them again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dass.data.token_file import load_tokens, token_hash
from dass.pruning.pruned_file import PrunedFile
from dass.runtime.files import sha256
from dass.runtime.provenance import CONFIG, provenance
from tests.unit.stages.pipeline import CALIBRATION, Pipeline

METHOD = """from dataclasses import dataclass
from typing import ClassVar

from dass.pruning.method import Comparison


@dataclass(frozen=True)
class Own:
    needs: ClassVar[frozenset] = frozenset()

    def comparison(self, role):
        return Comparison("row", "input")

    def score(self, role, weight, statistics):
        return weight.float()
"""


@pytest.fixture
def own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a custom method ``own_method:Own``."""
    path = tmp_path / "methods" / "own_method.py"
    path.parent.mkdir()
    path.write_text(METHOD)
    monkeypatch.delitem(sys.modules, "own_method", raising=False)  # another test's
    monkeypatch.syspath_prepend(path.parent)
    return path


def test_a_pruned_run_says_what_it_is_made_of(pipeline: Pipeline, tmp_path: Path) -> None:
    said = pipeline.prune(tmp_path / "run", "wanda").provenance
    documents = pipeline.work / "documents.jsonl"
    assert said["calibration"] == CALIBRATION | {
        "dataset": "words",
        "bos": "text",
        "source": {"file": "documents.jsonl", "sha256": sha256(documents)},
        "origin": None,
        "hashes": {"windows": token_hash(load_tokens(pipeline.calibrate())["windows"])},
    }
    assert said["model"]["config"] == sha256(pipeline.folder / "config.json")
    assert said["pruned_file"] == sha256(tmp_path / "run/pruned.safetensors")
    assert said["torch"]["threads"] == torch.get_num_threads()
    assert {"method", "code", "config", "commit", "versions", "device"} <= said.keys()


def test_evaluations_say_what_they_are_made_of(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG, "c0ffee")
    pruning = pipeline.prune(tmp_path / "run", "wanda")
    settings = PrunedFile(tmp_path / "run/pruned.safetensors").settings
    for run, pruned in ((tmp_path / "run", settings), (None, None)):
        text = pipeline.perplexity(run).provenance
        task = pipeline.zero_shot(run).provenance
        for said in (text, task):
            assert said["pruned"] == pruned
            assert said["model"] == pruning.provenance["model"]
            assert said["config"] == "c0ffee"
        assert text["text"] == {
            "dataset": "text",
            "rows": "line",
            "length": 16,
            "bos": "text",
            "origin": None,
            "source": {
                split: {
                    "file": f"{split}.txt",
                    "sha256": sha256(pipeline.work / f"text/{split}.txt"),
                }
                for split in ("validation", "test")
            },
            "hashes": {n: token_hash(t) for n, t in load_tokens(pipeline.tokenise()).items()},
        }
        file = pipeline.work / "task/test.jsonl"
        assert task["tasks"] == {"arc_easy": {"file": "test.jsonl", "sha256": sha256(file)}}
        assert text["code"] != task["code"]


def test_the_page_on_results_explains_what_they_are_made_of(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    results = [
        pipeline.prune(tmp_path / "run"), pipeline.perplexity(tmp_path / "run"),
        pipeline.zero_shot(tmp_path / "run"),
    ]  # fmt: skip
    found = {key for result in results for key in result.provenance} - provenance().keys()
    page = (Path(__file__).parents[3] / "docs/results.md").read_text()
    table = page.split("also says what the result is made of:\n\n")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == found


def test_an_export_says_what_it_is(pipeline: Pipeline, tmp_path: Path) -> None:
    pruning = pipeline.prune(tmp_path / "run", arguments={"alpha": 0.25})
    said = json.loads((pipeline.export(tmp_path / "run") / "dass.json").read_text())
    assert said["mask_hash"] == pruning.mask_hash
    settings = said["settings"]
    assert settings["run"] == "m/c/method/2of4"
    assert (settings["function"], settings["arguments"]) == ("dass", {"alpha": 0.25})
    for key in ("calibration", "model", "method", "code"):
        assert settings[key] == pruning.provenance[key]
    assert said["provenance"]["model"] == pruning.provenance["model"]
    assert said["provenance"].keys() >= {"date", "commit", "versions", "config"}


def test_an_export_is_not_taken_for_the_dense_model(pipeline: Pipeline, tmp_path: Path) -> None:
    said = {"repository": "a/model", "commit": "c0ffee"}
    (pipeline.folder / "fetched.json").write_text(json.dumps(said | {"files": {}}))
    pipeline.prune(tmp_path / "run")
    exported = pipeline.export(tmp_path / "run")
    about = json.loads((exported / "dass.json").read_text())
    assert about["provenance"]["inputs"]["model"] == said
    pipeline.folder = exported
    assert pipeline.perplexity().provenance["inputs"] == {}


def test_the_source_of_a_custom_method_is_named(
    pipeline: Pipeline, own_method: Path, tmp_path: Path
) -> None:
    """An untracked module leaves the commit as clean as it was."""
    first = pipeline.prune(tmp_path / "run", "own_method:Own").provenance
    built_in = pipeline.prune(tmp_path / "run", "magnitude").provenance
    assert first["method"] != built_in["method"]
    own_method.write_text(METHOD + "\n# another version\n")
    again = pipeline.prune(tmp_path / "run", "own_method:Own").provenance
    assert first["method"] != again["method"] and first["code"] != again["code"]


def test_the_source_of_a_refinements_start_is_named(
    pipeline: Pipeline, own_method: Path, tmp_path: Path
) -> None:
    arguments = {"swaps": 2, "start": {"function": "own_method:Own"}}
    first = pipeline.prune(tmp_path / "run", "sparseswaps", arguments=arguments)
    assert first.settings["arguments"] == arguments
    own_method.write_text(METHOD + "\n# another version\n")
    again = pipeline.prune(tmp_path / "run", "sparseswaps", arguments=arguments)
    for key in ("method", "code"):
        assert first.provenance[key] != again.provenance[key]


def deterministic(value: Any) -> Any:
    """A result without what no two runs share: seconds, dates, memory."""
    if isinstance(value, dict):
        left_out = ("seconds", "date", "peak_memory_bytes", "block_seconds")
        return {k: deterministic(v) for k, v in value.items() if k not in left_out}
    return value


def test_two_runs_say_the_same_and_no_path(pipeline: Pipeline, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        out = tmp_path / name
        pipeline.prune(out, "sparsegpt")
        pipeline.perplexity(out)
        pipeline.zero_shot(out)
        exported = pipeline.export(out)
        texts = [file.read_text() for file in (*out.glob("*.json"), exported / "dass.json")]
        assert not any(str(tmp_path) in text for text in texts)
        plain = [deterministic(json.loads(text)) for text in texts]
        files = [out / "pruned.safetensors", exported / "model.safetensors"]
        found.append((plain, [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]))
        os.utime(pipeline.folder / "model.safetensors", (0, 0))  # a copy of the model is the same
    assert found[0] == found[1]
