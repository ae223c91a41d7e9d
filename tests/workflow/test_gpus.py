"""Four cards, simulated: four jobs side by side, each with a card of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Workflow, small_study

METHOD = '''\
"""Wanda, in jobs that wait for each other: each goes on when four are under way."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from dass.pruning.methods.wanda import Wanda

MET = []


@dataclass(frozen=True)
class Together(Wanda):
    def score(self, role, weight, statistics):
        if not MET:
            MET.append(self.meet())
        return super().score(role, weight, statistics)

    def meet(self):
        folder = Path("stamps")
        stamp = {"start": time.time(), "card": os.environ["CUDA_VISIBLE_DEVICES"]}
        (folder / f"{os.getpid()}.started").touch()
        end = time.monotonic() + 120
        while len(list(folder.glob("*.started"))) < 4:
            assert time.monotonic() < end, "the other jobs do not start"
            time.sleep(0.05)
        time.sleep(1)
        stamp["end"] = time.time()
        (folder / f"{os.getpid()}.json").write_text(json.dumps(stamp))
'''


def test_four_jobs_on_four_cards(
    study: Workflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, record_property
) -> None:
    settings = small_study()
    settings["methods"]["together"] = {"function": "together:Together"}
    settings["experiments"] = {
        "cards": settings["experiments"]["main"]
        | {
            "models": ["standin-llama"],
            "methods": ["together"],
            "patterns": ["u50", "2of4", "4of8", "1of4"],
        }
    }
    (study.folder / "together.py").write_text(METHOD)
    (study.folder / "stamps").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(study.folder), prepend=":")
    monkeypatch.setenv("DASS_GPUS", "0,1,2,3")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    finished = study.snakemake(
        "prune", "--resources", "gpu=4", cores=4, config=study.write_study(settings, "cards.yaml")
    )
    assert finished.code == 0, finished.output
    stamps = [json.loads(file.read_text()) for file in (study.folder / "stamps").glob("*.json")]
    record_property("jobs", stamps)
    assert sorted(stamp["card"] for stamp in stamps) == ["0", "1", "2", "3"]
    assert max(stamp["start"] for stamp in stamps) < min(stamp["end"] for stamp in stamps)


def test_one_card_is_one_job_at_a_time(study: Workflow) -> None:
    """Snakemake's own count: of GPU jobs that could start, one does."""
    for name in ("perplexity", "zero_shot"):
        (study.folder / f"results/small/runs/standin-llama/dense/{name}.json").unlink()
    finished = study.snakemake("evaluate", "--resources", "gpu=1", cores=4)
    assert finished.code == 0, finished.output
    assert finished.jobs == {"perplexity": 1, "zero_shot": 1, "evaluate": 1}
    assert finished.output.count("Execute 2 jobs") == 0
