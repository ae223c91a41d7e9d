"""The steps of CONTRIBUTING.md, "A task": the example's questions, beside lm-eval's evaluation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT, blocks

TESTS = "tests/unit/evaluation/test_zero_shot.py"


@pytest.mark.slow
def test_a_task_is_compared_with_lm_eval(tmp_path: Path) -> None:
    entry, questions, *_ = (b for b in blocks(ROOT / "CONTRIBUTING.md") if b.language == "python")
    for folder in ("src", "tests/unit/evaluation"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc"))
    for file in ("__init__.py", "conftest.py", "unit/__init__.py"):
        shutil.copyfile(ROOT / "tests" / file, tmp_path / "tests" / file)
    insert(tmp_path / "src/dass/tasks.py", r'(?=\n\}\n"""All tasks)', f"\n{entry.text}")
    insert(tmp_path / TESTS, r"(?=^ROWS: )", f"{questions.text}\n\n")
    insert(tmp_path / TESTS, r"(?<=^    \"piqa\": piqa,)", '"commonsense_qa": commonsense_qa,')
    done = subprocess.run(
        [sys.executable, "-m", "pytest", TESTS, "-c", str(ROOT / "pyproject.toml"), "--rootdir=.",
         "-p", "no:cacheprovider",
         "-k", "equals_lm_eval and llama or commonsense_qa"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert re.search(r"^=+ 6 passed", done.stdout, re.MULTILINE), done.stdout


def insert(path: Path, place: str, text: str) -> None:
    """Insert a text at the one place that the pattern finds."""
    changed, found = re.subn(place, lambda _: text, path.read_text(), flags=re.MULTILINE)
    assert found == 1, place
    path.write_text(changed)
