"""The steps of CONTRIBUTING.md: a method is one file, a task one entry, and a config entry."""

from __future__ import annotations

import json
import shutil

import pytest

from .conftest import Workflow, small_study
from .test_incremental import ENDS

METHOD = '''\
"""Weights that feed loud neurons stay."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from dass.pruning.method import Argument, Comparison


@dataclass(frozen=True)
class Loud:
    """Weight times a power of the intermediate norm, within rows."""

    power: Annotated[float, Argument("Of the norm.", least=0)] = 1.0
    needs: ClassVar[frozenset] = frozenset({"intermediate_norm"})

    def comparison(self, role):
        return Comparison(scope="row", axis="input")

    def score(self, role, weight, statistics):
        norm = statistics.get("intermediate_norm") ** self.power
        return weight.float().abs() * (norm if role == "down" else norm.unsqueeze(1))
'''

TASK = '''
    "commonsense_qa": Task(
        label="CSQA",
        file="commonsense_qa/default.yaml",
        split="validation",
        columns={"question": str, "choices": dict, "answerKey": str},
        answer="answerKey",
        answers=_labels_with_text,
    ),
}
"""All tasks'''


@pytest.mark.parametrize("function", ["loud", "my_methods:Loud"])
def test_a_method_is_one_file_and_one_config_entry(
    function: str, study: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A built-in one, or one of the user's own; nothing else runs again."""
    file = "src/dass/pruning/methods/loud.py" if function == "loud" else "my_methods.py"
    (study.folder / file).write_text(METHOD)
    monkeypatch.setenv("PYTHONPATH", str(study.folder))
    settings = small_study()
    settings["methods"]["loud"] = {"function": function, "label": "Loud", "power": 2.0}
    settings["experiments"]["main"]["methods"].append("loud")
    config = study.write_study(settings, "loud.yaml")
    new = {"prune_run": 2, "perplexity": 2, "zero_shot": 2}
    assert study.plan(config=config) == new | ENDS
    run = "results/small/runs/standin-llama/toy/loud/2of4"
    table = "results/small/tables/main/perplexity.md"
    if function == "loud":
        study.forked(f"{run}/pruning.json", table, config=config)
        assert "| Loud " in (study.folder / table).read_text()
    else:
        finished = study.snakemake(f"{run}/pruning.json", config=config)
        assert finished.code == 0, finished.output
    result = json.loads((study.folder / run / "pruning.json").read_text())
    assert result["settings"]["arguments"] == {"power": 2.0}
    settings["methods"]["loud"]["power"] = -1
    refused = study.snakemake("--dry-run", config=study.write_study(settings, "loud.yaml"))
    last = refused.output.strip().splitlines()[-1]
    assert last.startswith("error: methods.loud.power: must be at least 0")
    assert refused.code != 0


def test_a_task_is_one_entry_and_its_data(study: Workflow) -> None:
    tasks = study.folder / "src/dass/tasks.py"
    text = tasks.read_text()
    assert text.count('\n}\n"""All tasks') == 1
    tasks.write_text(text.replace('\n}\n"""All tasks', TASK))
    folder = study.folder / "data" / "commonsense_qa"
    folder.mkdir(parents=True)
    rows = [
        {"question": f"what is {subject}?", "answerKey": "A",
         "choices": {"label": list("ABCDE"), "text": ["an animal", "a stone", "a", "b", "c"]}}
        for subject in ("the cat", "the dog", "a bird")
    ]  # fmt: skip
    (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = small_study()
    settings["datasets"]["commonsense_qa"] = {"kind": "task", "path": "data/commonsense_qa"}
    settings["zero_shot"]["tasks"] = {"commonsense_qa": "commonsense_qa"}
    settings["experiments"]["main"] |= {"models": ["standin-llama"], "methods": ["wanda"]}
    config = study.write_study(settings, "task.yaml")
    result = "results/small/runs/standin-llama/dense/zero_shot.json"
    table = "results/small/tables/main/zero_shot.md"
    study.forked(result, table, config=config)
    measured = json.loads((study.folder / result).read_text())["tasks"]
    assert set(measured) == {"commonsense_qa"}
    assert measured["commonsense_qa"]["samples"] == 3
    assert "CSQA" in (study.folder / table).read_text()
    shutil.rmtree(folder)
