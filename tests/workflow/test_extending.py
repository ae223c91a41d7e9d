"""The steps of CONTRIBUTING.md and docs/comparing.md, with the blocks that stand there.

A method is one file and a config entry, and so is what it is compared with; a task is one entry.
"""

from __future__ import annotations

import json
import shutil

import pytest

from tests.docs.pages import comparing

from .conftest import Workflow, small_study
from .test_incremental import ENDS

METHOD, CHANGES = comparing()

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


@pytest.mark.parametrize("function", ["both", "mymethods:Both"])
def test_a_method_is_one_file_and_one_config_entry(
    function: str, study: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A built-in one, or one of the user's own; nothing else runs again."""
    file = "src/dass/pruning/methods/both.py" if function == "both" else "mymethods.py"
    (study.folder / file).write_text(METHOD)
    monkeypatch.setenv("PYTHONPATH", str(study.folder))
    settings = small_study()
    settings["methods"]["mine"] = {"function": function, "label": "Mine", "alpha": 2.0}
    settings["experiments"]["main"]["methods"].append("mine")
    config = study.write_study(settings, "mine.yaml")
    new = {"prune_run": 2, "perplexity": 2, "zero_shot": 2}
    assert study.plan(config=config) == new | ENDS
    run = "results/small/runs/standin-llama/toy/mine/2of4"
    table = "results/small/tables/main/perplexity.md"
    if function == "both":
        study.forked(f"{run}/pruning.json", table, config=config)
        assert "| Mine " in (study.folder / table).read_text()
    else:
        finished = study.snakemake(f"{run}/pruning.json", config=config)
        assert finished.code == 0, finished.output
    result = json.loads((study.folder / run / "pruning.json").read_text())
    assert result["settings"]["arguments"] == {"alpha": 2.0}
    settings["methods"]["mine"]["alpha"] = -1
    refused = study.snakemake("--dry-run", config=study.write_study(settings, "mine.yaml"))
    last = refused.output.strip().splitlines()[-1]
    assert last.startswith("error: methods.mine.alpha: must be at least 0")
    assert refused.code != 0


def test_a_method_stands_in_a_table_beside_other_work(
    study: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/comparing.md, section 5: refined, with ratios, and a mask of other code."""
    (study.folder / "mymethods.py").write_text(METHOD)
    monkeypatch.setenv("PYTHONPATH", str(study.folder))
    settings = small_study()
    draws = settings["calibrations"].pop("toy") | {"seed": [0, 1]}
    settings |= {"calibrations": {"c4": draws}, "ratios": CHANGES["ratios"]}
    settings["methods"] |= CHANGES["methods"]
    others = CHANGES["experiments"]["others"] | {"models": ["standin-llama"]}
    settings["experiments"] = {"others": others}
    masks = study.folder / "masks/standin-llama-u50.safetensors"
    masks.parent.mkdir()
    masks.touch()
    config = study.write_study(settings, "others.yaml")
    theirs = "results/small/runs/standin-llama/c4-seed0/mine/u50/pruned.safetensors"
    finished = study.snakemake(theirs, config=config)
    assert finished.code == 0, finished.output
    shutil.copyfile(study.folder / theirs, masks)
    table = "results/small/tables/others/perplexity.md"
    finished = study.snakemake(table, config=config)
    assert finished.code == 0, finished.output
    text = (study.folder / table).read_text()
    rows = [[c.strip() for c in line.split("|")] for line in text.splitlines() if line[:1] == "|"]
    values = {row[2]: row[3] for row in rows}
    labels = [settings["methods"][name]["label"] for name in others["methods"]]
    assert set(labels) <= set(values), text
    assert ["±" in values[label] for label in labels] == [True, True, True, False], text
    assert any(mark in text for mark in ("<ins>", "**")), text


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
