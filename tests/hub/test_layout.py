"""The local hub against the code that the real one serves: lm-eval's own tasks, the authors' calls.

What these find there by their own definitions must be what the pipeline fetches by its config.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

from dass.tasks import PAPER_TASKS, TASKS

from .conftest import C4, ROOT, Client
from .server import LocalHub

LM_EVAL = """
import json, sys
from lm_eval.tasks import TaskManager
tasks = TaskManager().load(sys.argv[1:])["tasks"]
rows = {}
for name, task in tasks.items():
    docs = task.test_docs() if task.has_test_docs() else task.validation_docs()
    rows[name] = [dict(doc) for doc in docs]
print(json.dumps(rows))
"""

AUTHORS = """
import json
from datasets import load_dataset
c4 = load_dataset("allenai/c4", data_files={"train": "en/c4-train.00000-of-01024.json.gz"},
                  split="train")
wiki = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split="test")
print(json.dumps({"c4": c4["text"][:50], "documents": len(c4), "wikitext": list(wiki["text"])}))
"""


def settings_of(name: str) -> dict:
    """A data set's block of the paper's config, as a rule hands it on."""
    block = yaml.safe_load((ROOT / "config/config.yaml").read_text())["datasets"][name]
    return {"revision": "main", "name": None, "files": None} | block


def printed_by(client: Client, program: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=client.folder, env=client.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def fetched_rows(client: Client, name: str, split: str) -> list[dict]:
    finished = client.dataset(settings_of(name))
    assert finished.code == 0, finished.output
    lines = (client.folder / f"data/{split}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def test_lm_eval_reads_the_same_rows_by_its_own_definitions(client: Client) -> None:
    theirs = printed_by(client, LM_EVAL, *PAPER_TASKS)
    assert set(theirs) == set(PAPER_TASKS)
    for task in PAPER_TASKS:
        definition = TASKS[task]
        ours = fetched_rows(client, task, definition.split)
        assert len(ours) == len(theirs[task]) > 0
        for mine, its in zip(ours, theirs[task], strict=True):
            assert {c: mine[c] for c in definition.columns} == {
                c: its[c] for c in definition.columns
            }


def test_the_released_code_reads_the_same_text(hub: LocalHub, client: Client) -> None:
    theirs = printed_by(client, AUTHORS)
    rows = [row["text"] for row in fetched_rows(client, "wikitext2", "test")]
    assert rows == theirs["wikitext"]
    assert client.dataset(settings_of("c4") | {"kind": "documents"}).code == 0
    from dass.data.documents import Documents

    documents = Documents(Path(client.folder / "data/documents.jsonl"))
    assert len(documents) == theirs["documents"]
    assert [documents[i] for i in range(50)] == theirs["c4"]
    assert settings_of("c4") == C4 | {"revision": settings_of("c4")["revision"]}
