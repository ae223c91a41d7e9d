"""docs/bad_inputs.md: every case and the line that it ends in, as they are."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.unit.bad_inputs.case import Case, line_of
from tests.unit.bad_inputs.cases_config import CASES
from tests.unit.bad_inputs.cases_data import (
    DATA,
    MACHINE,
    MASKS,
    PUBLISHED_NUMBERS,
    RESULTS,
    TASKS,
    TEXTS,
)
from tests.unit.bad_inputs.cases_models import FOLDER, STORED, TOKENIZERS
from tests.unit.bad_inputs.good import ROOT

PAGE = ROOT / "docs" / "bad_inputs.md"
UPDATE = "DASS_WRITE_BAD_INPUTS"
"""Environment variable: with it, the test writes the page in place of comparing it."""

START = """# Bad inputs

What happens to each input that is wrong: one line that says what, where, and what to do. The exit
code is not 0, and no file is written or changed. The tests make each of these from a good study and
compare the line; they also write this page:

```
DASS_WRITE_BAD_INPUTS=1 .venv/bin/python -m pytest tests/unit/bad_inputs
```

Errors that come up most, with more to say about them: [Troubleshooting](troubleshooting.md).
"""


class Group(NamedTuple):
    """Cases that one stage meets."""

    title: str
    stage: str
    """Runs unless a case names another; empty: the config is read."""
    cases: list[Case]


GROUPS = (
    Group("The config", "", CASES),
    Group("config.json and the model's folder", "perplexity", FOLDER),
    Group("Weights", "perplexity", STORED),
    Group("Tokenizers", "calibration_tokens", TOKENIZERS),
    Group("Documents to calibrate on", "calibration_tokens", DATA),
    Group("Texts to measure perplexity on", "evaluation_tokens", TEXTS),
    Group("Zero-shot tasks", "zero_shot_requests", TASKS),
    Group("Token files, pruned files, custom methods at work", "", MASKS),
    Group("Result files", "summary_of_model", RESULTS),
    Group("Published numbers", "experiment_tables", PUBLISHED_NUMBERS),
    Group("Folders and links", "", MACHINE),
)


def line_in(case: Case, stage: str, good: Path, work: Path) -> str:
    """The line of a case in a copy of the good inputs; names of its own folder are left out."""
    shutil.copytree(good, work, symlinks=True)
    before = Path.cwd()
    os.chdir(work)
    try:
        line = line_of(case, stage)
    finally:
        os.chdir(before)
        shutil.rmtree(work)
    line = re.sub(r"transformers \d+(\.\d+)+", "transformers <version>", line)
    return re.sub(rf"{re.escape(str(work.resolve()))}/|{re.escape(str(work))}/", "", line)


def page(lines: Mapping[tuple[str, str], str]) -> str:
    """The page, from the line of each case by its group's title and by what is wrong."""
    parts = [START]
    for group in GROUPS:
        rows = [f"| {case.what} | {_code(lines[group.title, case.what])} |" for case in group.cases]
        head = [f"## {group.title}", "", "| what is wrong | the line |", "|---|---|"]
        parts.append("\n".join([*head, *rows, ""]))
    return "\n".join(parts)


def _code(line: str) -> str:
    """As code in a cell of a table, where a bar would end the cell."""
    ticks = "``" if "`" in line else "`"
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}".replace("|", r"\|")
