"""What a case of bad input is, and what one must end in."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dass.config.load import check_keys, load_config
from dass.errors import DassError
from dass.runtime.job import one_line
from tests.unit.bad_inputs.good import LOG, STUDY, Change, run_stage, said

REMEDY = re.compile(
    r"\b(did you mean|add|ask for|check|choose|convert|correct|delete|fetch|free|git lfs pull|give|"
    r"install|keep|known keys|lower|make|mend|merge|must|name|needs?|neither|prune|put|raise|"
    r"remove|rename|run again|save|set|spelled|there are|use|write|goes with|is required|"
    r"in \(0, 100\)|available)\b"
)
"""What a line that says what to do says in some form."""


@dataclass(frozen=True)
class Case:
    """A good input that is made bad, and what a user is told."""

    what: str
    """What is wrong, as docs/bad_inputs.md has it."""
    spoil: Change
    """Makes it so, in the current folder."""
    says: str
    """What the line says; ``…`` stands for anything."""
    stage: str = ""
    """Which stage runs; empty: the group's own."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Arguments of the stage that are not the good ones."""


def unchanged() -> None:
    """Nothing is wrong with a file: an argument is."""


def by_job(stage: str, changes: dict[str, Any]) -> str:
    """The line that a job ends in.

    Raises:
        AssertionError: it ends otherwise.
    """
    try:
        run_stage(stage, **changes)
    except SystemExit as end:
        assert end.code == 1, f"exit code {end.code}"
    except Exception as error:
        raise AssertionError(f"a traceback: {type(error).__name__}: {error}") from error
    else:
        raise AssertionError("it was accepted")
    return said().removesuffix("\n")


def by_config() -> str:
    """The line that ``snakemake`` ends in before there is any job."""
    try:
        check_keys(STUDY)
        load_config(yaml.safe_load(Path(STUDY).read_text(encoding="utf-8")))
    except DassError as error:
        assert one_line(error) == str(error)
        return str(error)
    raise AssertionError("it was accepted")


def contents() -> dict[str, str]:
    """Every file of the current folder but the log -> a hash of what it holds."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path().rglob("*")
        if path.is_file() and str(path) != LOG
    }


def line_of(case: Case, group_stage: str) -> str:
    """Run a case in the current folder, which holds good inputs; the line that it ends in.

    Raises:
        AssertionError: something was written or changed, or the end was another one.
    """
    case.spoil()
    before = contents()
    stage = case.stage or group_stage
    try:
        line = by_job(stage, case.changes) if stage else by_config()
    finally:
        sys.modules.pop("mymodule", None)
    assert contents() == before, "files were written or changed"
    return line


def fits(line: str, says: str) -> bool:
    """Whether a line says it; ``…`` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, says.split("…"))), line) is not None
