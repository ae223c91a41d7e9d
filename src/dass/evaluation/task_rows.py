"""Rows of the zero-shot tasks, read from local files in the official columns.

lm-eval asks for a data set; a row that does not fit its task is refused before it reaches lm-eval,
which would count it as a miss, or read a number as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dass.data.documents import is_unicode, parse_object, read_lines
from dass.errors import DassError, DataError
from dass.tasks import TASKS, Row

WORDS = {
    str: "text",
    int: "a whole number",
    list: "a list of text",
    dict: "lists of text by name",
}
"""What the official columns hold."""


def local_dataset(task: str, file: str, limit: int | None, **_: Any) -> dict[str, Any]:
    """What lm-eval asks for as a task's data set: the one split that is evaluated.

    Rows are held in memory: no data set cache, so nothing is written and nothing locked.
    """
    from datasets import Dataset

    rows = read_rows(task, Path(file), limit)
    with fitting(f"{task}: {file}"):
        return {TASKS[task].split: Dataset.from_list(rows)}


def task_file(task: str, folder: str | Path) -> Path:
    """The file of a task's folder that is evaluated."""
    return Path(folder) / f"{TASKS[task].split}.jsonl"


def read_rows(task: str, file: Path, limit: int | None) -> list[Row]:
    """The first rows of a task's file, with the columns that the task reads; None: all rows.

    Raises:
        DataError: the file is missing, damaged or empty, or a row does not fit the task.
    """
    rows: list[Row] = []
    try:
        for number, line in read_lines(file):
            if len(rows) == limit:
                break
            if line.strip():
                rows.append(_read_row(line, task, f"{file}: line {number}"))
        if not rows:
            raise DataError(f"{file}: holds no rows; fetch or generate it again")
    except DataError as error:
        raise DataError(f"{task}: {error}") from None
    return rows


def _read_row(line: bytes, task: str, where: str) -> Row:
    """The columns of one row that the task reads."""
    try:
        row = parse_object(line)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON of a row ({error}); mend or remove it") from None
    definition = TASKS[task]
    columns = definition.columns
    for column, kind in columns.items():
        if column not in row:
            raise DataError(f"{where}: no column {column!r}; the task needs {', '.join(columns)}")
        if not _is_of(kind, row[column]):
            found = type(row[column]).__name__
            raise DataError(
                f"{where}: column {column!r} holds {found}, not {WORDS[kind]} as the official data "
                "set does; convert it"
            )
    with fitting(where):
        answers = list(definition.answers(row))
    # A hidden or wrong answer would count as a miss: lm-eval only warns, or says nothing.
    if (answer := row[definition.answer]) not in answers:
        raise DataError(
            f"{where}: the answer {answer!r} in column {definition.answer!r} is none of {answers}; "
            "give a split with its answers"
        )
    return {column: row[column] for column in columns}


def _is_of(kind: type, value: Any) -> bool:
    """Whether a value is of the official type: lists are of text, and a dict's values such lists.

    A choice that is a number would be read as text, and an answer ``true`` as 1.
    """
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    if isinstance(value, str):
        return is_unicode(value)
    if isinstance(value, list):
        return all(_is_of(str, part) for part in value)
    if isinstance(value, dict):
        return all(_is_of(list, part) for part in value.values())
    return True


@contextmanager
def fitting(where: str) -> Iterator[None]:
    """Whatever else a row may make lm-eval's functions raise, as one line that says where."""
    try:
        yield
    except DassError:
        raise
    except Exception as error:
        raise DataError(
            f"{where}: does not fit the task ({type(error).__name__}: {_first_line(error)}); mend "
            "or remove it"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
