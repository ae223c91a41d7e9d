"""No two jobs on a card, and a dead job's card is free: in processes, as jobs are."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dass.errors import ConfigError
from dass.runtime.gpus import claim, pool

HOLD = """import json, os, sys, time
from dass.runtime.gpus import claim
cards = claim(int(sys.argv[1]))
visible = os.environ.get("CUDA_VISIBLE_DEVICES")
print(json.dumps([cards, visible, "torch" in sys.modules]), flush=True)
sys.stdin.read()
"""


class Job:
    """A process that claims cards and holds them until it is told to end."""

    def __init__(self, count: int, tmp: Path, **environment: str) -> None:
        kept = {k: v for k, v in os.environ.items() if k not in VARIABLES}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(count)], text=True,
            env=kept | {"TMPDIR": str(tmp)} | environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    @property
    def cards(self) -> list[str]:
        """Its cards; a job that gets none in time fails the test, and is not waited for."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], 30)[0]:
            self.process.kill()
            raise AssertionError("no card in 30 seconds")
        cards, visible, torch = json.loads(self.process.stdout.readline())
        assert visible == (",".join(cards) if cards else visible)
        assert not torch
        return list(cards)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0


VARIABLES = ("DASS_GPUS", "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


def smi(tmp_path: Path, output: str) -> None:
    """An nvidia-smi that lists these cards."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
    program.chmod(0o755)


def test_jobs_side_by_side_have_different_cards(tmp_path: Path) -> None:
    jobs = [Job(1, tmp_path, DASS_GPUS="0,1,2,3") for _ in range(4)]
    cards = [job.cards for job in jobs]
    assert sorted(cards) == [["0"], ["1"], ["2"], ["3"]]
    for job in jobs:
        job.end()


def test_a_job_waits_for_a_card_and_gets_that_of_one_that_ends(tmp_path: Path) -> None:
    first, second = (Job(1, tmp_path, DASS_GPUS="0,1") for _ in range(2))
    cards = {first: first.cards, second: second.cards}
    waiting = Job(1, tmp_path, DASS_GPUS="0,1")
    time.sleep(2)
    assert not readable(waiting)
    second.end()
    assert waiting.cards == cards[second]
    first.end()
    waiting.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_dead_jobs_card_is_free(tmp_path: Path, number: signal.Signals) -> None:
    job = Job(1, tmp_path, CUDA_VISIBLE_DEVICES="5")
    assert job.cards == ["5"]
    job.process.send_signal(number)
    assert job.process.wait(20) == -number
    heir = Job(1, tmp_path, CUDA_VISIBLE_DEVICES="5")
    assert heir.cards == ["5"]
    heir.end()


def test_jobs_that_want_several_cards_take_all_or_none(tmp_path: Path) -> None:
    """Each would otherwise hold one of three cards and wait for a second for ever."""
    jobs = [Job(2, tmp_path, DASS_GPUS="0,1,2") for _ in range(3)]
    got = []
    while jobs:
        ready = next(job for job in iter_ready(jobs))
        got.append(ready.cards)
        jobs.remove(ready)
        ready.end()
    assert [len(set(cards)) for cards in got] == [2, 2, 2]


def readable(job: Job) -> bool:
    return bool(select.select([job.process.stdout], [], [], 0)[0])


def iter_ready(jobs: list[Job]):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        yield from (job for job in jobs if readable(job))
        time.sleep(0.1)
    raise AssertionError("nobody gets a card")


def test_slurm_jobs_know_their_card_by_a_name_that_others_use_too(tmp_path: Path) -> None:
    one, two = (
        Job(1, tmp_path, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID=number) for number in ("7", "8")
    )
    assert one.cards == two.cards == ["0"]
    same = Job(1, tmp_path, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="8")
    time.sleep(1.5)
    assert not readable(same)  # two jobs in one allocation are side by side, as on a laptop
    two.end()
    assert same.cards == ["0"]
    one.end()
    same.end()


def test_too_many_is_an_error_that_names_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(ConfigError, match=r"asks for 3 GPUs, but there are 2 \(3, 5\)"):
        claim(3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_none_hides_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert claim(0) == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_without_any_card_the_job_computes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASS_GPUS", "")
    assert claim(1) == []
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("environment", "cards"),
    [
        ({"DASS_GPUS": "0,1", "CUDA_VISIBLE_DEVICES": "7"}, ["0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "2, 0"}, ["2", "0"]),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,0"}, ["1"]),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8a56,MIG-GPU-1/2/0"}, ["GPU-8a56", "MIG-GPU-1/2/0"]),
        ({"SLURM_JOB_ID": "1"}, []),
        ({}, ["GPU-aa", "GPU-bb"]),
    ],
)
def test_which_cards_there_are(tmp_path: Path, environment: dict, cards: list[str]) -> None:
    smi(tmp_path, "GPU 0: NVIDIA A100 (UUID: GPU-aa)\nGPU 1: NVIDIA A100 (UUID: GPU-bb)")
    assert pool(environment) == cards


def test_a_card_in_parts_counts_as_its_parts(tmp_path: Path) -> None:
    smi(
        tmp_path,
        """\
GPU 0: NVIDIA A100 (UUID: GPU-aa)
  MIG 3g.20gb     Device  0: (UUID: MIG-11)
  MIG 3g.20gb     Device  1: (UUID: MIG-22)
GPU 1: NVIDIA A100 (UUID: GPU-bb)""",
    )
    assert pool({}) == ["MIG-11", "MIG-22", "GPU-bb"]


def test_no_nvidia_smi_no_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pool({}) == []


def test_an_nvidia_smi_that_fails_no_card(tmp_path: Path) -> None:
    smi(tmp_path, "Failed to initialize NVML")
    assert pool({}) == []


WORK = """import json, os, sys, time
from dass.runtime.gpus import claim
(card,) = claim(1)
start = time.time()
time.sleep(0.5)
print(json.dumps([card, start, time.time()]))
"""


@pytest.mark.slow
def test_throughput_grows_with_the_cards(tmp_path: Path, record_property) -> None:
    """Four jobs of half a second on one, two and four cards; seconds are recorded, not judged."""
    for cards in (1, 2, 4):
        names = [str(card) for card in range(cards)]
        environment = os.environ | {"TMPDIR": str(tmp_path), "DASS_GPUS": ",".join(names)}
        jobs = [
            subprocess.Popen([sys.executable, "-c", WORK], env=environment, stdout=subprocess.PIPE)
            for _ in range(4)
        ]
        stamps = [json.loads(job.communicate(timeout=60)[0]) for job in jobs]
        for name in names:
            mine = sorted((start, end) for card, start, end in stamps if card == name)
            assert mine
            for (_, end), (start, _) in itertools.pairwise(mine):
                assert end <= start
        seconds = max(end for *_, end in stamps) - min(start for _, start, _ in stamps)
        record_property(f"seconds on {cards} cards", round(seconds, 2))
