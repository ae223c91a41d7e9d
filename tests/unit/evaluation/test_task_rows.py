"""Rows of the tasks' files: in the official columns and types, or refused before lm-eval."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dass.errors import DassError, DataError
from dass.evaluation.task_rows import local_dataset, read_rows, task_file
from dass.tasks import TASKS
from tests.conftest import damaged
from tests.unit.evaluation.test_zero_shot import ROWS


def rows_of(task: str, count: int = 3) -> list[dict[str, Any]]:
    return [ROWS[task](n) for n in range(count)]


def encoded(rows: list[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def wanted(task: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{column: row[column] for column in TASKS[task].columns} for row in rows]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packed", [False, True])
def test_where_a_file_was_written_changes_no_row(
    tmp_path: Path, task: str, end: str, mark: bytes, packed: bool
) -> None:
    rows, path = rows_of(task), task_file(task, tmp_path)
    content = mark + encoded(rows, end)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_rows(task, path, None) == wanted(task, rows)
    assert read_rows(task, path, 2) == wanted(task, rows[:2])


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("piqa", {"label": True}, "'label' holds bool"),  # which Python takes for 1
    ("piqa", {"label": 1.0}, "'label' holds float"),
    ("piqa", {"goal": "\ud800"}, "'goal' holds str"),
    ("hellaswag", {"endings": ["a", "b", 3, "d"]}, "'endings' holds list"),
    ("hellaswag", {"endings": ["a", "b", None, "d"]}, "'endings' holds list"),
    ("hellaswag", {"endings": ["a", "b", "\udfff", "d"]}, "'endings' holds list"),
    ("hellaswag", {"endings": []}, "the answer"),
    ("hellaswag", {"label": 2}, "'label' holds int"),
    ("arc_easy", {"choices": {"text": [1, 2], "label": ["A", "B"]}}, "'choices' holds dict"),
    ("arc_easy", {"choices": {"text": ["a", True], "label": ["A", "B"]}}, "'choices' holds dict"),
    ("arc_easy", {"choices": {"text": "ab", "label": "AB"}}, "'choices' holds dict"),
    ("arc_easy", {"choices": {"text": None, "label": ["A"]}}, "'choices' holds dict"),
    ("arc_easy", {"choices": [{"text": "a", "label": "A"}]}, "'choices' holds list"),
    ("arc_easy", {"choices": {}}, "does not fit the task"),
    ("arc_easy", {"answerKey": ["A"]}, "'answerKey' holds list"),
    ("winogrande", {"answer": 1}, "'answer' holds int"),
]


@pytest.mark.parametrize(("task", "change", "said"), WRONG)
def test_a_value_of_another_type_is_refused(
    tmp_path: Path, task: str, change: dict[str, Any], said: str
) -> None:
    """lm-eval would read 3 as "3", and count a row as missed whose answer it does not know."""
    rows = rows_of(task)
    rows[1] |= change
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        DataError, match=rf"^{task}: [^\n]*rows\.jsonl: line 2: [^\n]*{said}[^\n]*$"
    ):
        read_rows(task, path, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[1]", "it is a list"),
        (b"7", "it is a int"),
        (b'{"goal": "a", "goal": "b"}', "the key 'goal' twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"goal": "\xff"}', "not UTF-8"),
        (b'{"goal": "a\0"}', "Invalid control character"),
    ],
)
def test_a_line_that_is_no_row_is_numbered(tmp_path: Path, line: bytes, said: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(encoded(rows_of("piqa")) + line + b"\n")
    with pytest.raises(DataError, match=rf"^piqa: [^\n]*: line 4: not valid JSON [^\n]*{said}"):
        read_rows("piqa", tmp_path / "rows.jsonl", None)


@settings(deadline=None, max_examples=200)
@given(task=st.sampled_from(list(TASKS)), data=st.data())
def test_any_file_is_rows_or_an_error_in_one_line(
    task: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rows that are taken have the official columns; lm-eval's data set can hold them."""
    content = data.draw(damaged(encoded(rows_of(task))))
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_bytes(content)
    try:
        rows = read_rows(task, path, None)
        held = local_dataset(task, str(path), None)[TASKS[task].split]
    except DassError as error:
        assert "\n" not in str(error) and str(error).startswith(f"{task}: ")
        return
    assert len(rows) == len(held) > 0
    assert all(row.keys() == TASKS[task].columns.keys() for row in rows)
    assert all(row[TASKS[task].answer] in TASKS[task].answers(row) for row in rows)
