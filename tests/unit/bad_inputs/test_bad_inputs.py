"""Every bad input ends in one line with a remedy, and nothing is written; the page lists them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TinyModel
from tests.unit.bad_inputs.case import REMEDY, Case, fits
from tests.unit.bad_inputs.good import NEW, STAGES, run_stage, write_good
from tests.unit.bad_inputs.page import GROUPS, PAGE, UPDATE, line_in, page

ALL = [(group.title, group.stage, case) for group in GROUPS for case in group.cases]
UPDATED = os.environ.get(UPDATE) == "1"

LINES: dict[tuple[str, str], str] = {}
"""Group and case -> its line, of the cases that have run."""


@pytest.fixture(scope="module")
def good(
    tiny_model: TinyModel,
    save_words: Callable[[Path], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Good inputs, on which every stage runs."""
    root = tmp_path_factory.mktemp("good")
    folder = Path(shutil.copytree(tiny_model("llama"), root / "tiny"))
    save_words(folder)
    work = root / "work"
    work.mkdir()
    before = Path.cwd()
    os.chdir(work)
    try:
        write_good(folder, work)
        for stage in STAGES:
            run_stage(stage)
        shutil.rmtree(NEW)
    finally:
        os.chdir(before)
    return work


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Custom methods are found in the current folder, as with PYTHONPATH=. ."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend("")


@pytest.mark.parametrize(
    ("title", "stage", "case"), ALL, ids=[f"{title}: {case.what}" for title, _, case in ALL]
)
def test_it_is_one_line_and_nothing_is_written(
    title: str, stage: str, case: Case, good: Path, tmp_path: Path
) -> None:
    line = line_in(case, stage, good, tmp_path / "work")
    LINES[title, case.what] = line
    assert fits(line, case.says), line
    assert "\n" not in line
    assert REMEDY.search(line), f"no remedy: {line}"


def test_cases_are_many_and_each_is_named_once() -> None:
    names = [(title, case.what) for title, _, case in ALL]
    assert len(set(names)) == len(names) > 200
    assert all(case.says.replace("…", "") for _, _, case in ALL)


def test_the_page_is_what_the_cases_say(good: Path, tmp_path: Path) -> None:
    for title, stage, case in ALL:
        if (title, case.what) not in LINES:  # this test runs alone
            LINES[title, case.what] = line_in(case, stage, good, tmp_path / "work")
    if UPDATED:
        PAGE.write_text(page(LINES), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(LINES), (
        f"docs/bad_inputs.md is out of date; run: {UPDATE}=1 python -m pytest tests/unit/bad_inputs"
    )
