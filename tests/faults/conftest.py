"""Runs whose faults are counted: `make faults`."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dass.runtime.provenance import provenance
from dass.speed.results import compact
from tests.workflow.conftest import ROOT, copy_workflow

from .harness import STAGES, Sick, faults_study

FIGURES = ROOT / "benchmarks" / "results" / "faults.json"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only where they are asked for: they take a quarter of an hour."""
    if os.environ.get("DASS_FAULTS") != "1":
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="needs DASS_FAULTS=1: run make faults"))


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[tuple[str, str]]]:
    """Faults that were survived, by kind and stage; kept only if all were injected and survived."""
    counted: Counter[tuple[str, str]] = Counter()
    started = time.monotonic()
    yield counted
    picked = request.config.option.keyword or any("::" in one for one in request.config.args)
    if request.session.testsfailed or picked:
        return
    order = list(STAGES.values())
    kinds: dict[str, dict[str, int]] = {}
    for kind, stage in sorted(counted, key=lambda key: (key[0], order.index(key[1]))):
        kinds.setdefault(kind, {})[stage] = counted[kind, stage]
    FIGURES.write_text(compact({"survived": kinds, "provenance": provenance(started)}))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Sick:
    """The study, run to its end with an export; tests must not change it."""
    made = copy_workflow(tmp_path_factory.mktemp("faults") / "undisturbed")
    made.write_study(faults_study())
    sick = Sick(made)
    sick.completes("all", "exports")
    return sick


@pytest.fixture
def fresh(tmp_path: Path, tally: Counter[tuple[str, str]]) -> Iterator[Sick]:
    """Nothing made yet."""
    made = copy_workflow(tmp_path / "fresh")
    made.write_study(faults_study())
    sick = Sick(made)
    yield sick
    tally.update(sick.survived)


@pytest.fixture
def finished(undisturbed: Sick, tmp_path: Path, tally: Counter[tuple[str, str]]) -> Iterator[Sick]:
    """A copy of the finished study, times of files included."""
    folder = tmp_path / "finished"
    shutil.copytree(undisturbed.folder, folder, copy_function=shutil.copy2)
    sick = Sick(type(undisturbed.workflow)(folder))
    yield sick
    tally.update(sick.survived)
