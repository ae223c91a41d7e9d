"""What is gone of recorded results."""

from __future__ import annotations

import json
from pathlib import Path

from dass.runtime.records import (
    ASKED,
    asked_before,
    gone_before,
    is_gone,
    keep_records,
    record_path,
)


def test_results_that_are_gone_are_known_by_their_records(tmp_path: Path) -> None:
    study = tmp_path / "results" / "small"
    study.mkdir(parents=True)
    tokens, masks, table, other = (study / name for name in ("tokens", "masks", "table", "other"))
    for output, made_from in ((tokens, []), (masks, [tokens]), (table, [masks]), (other, [])):
        output.write_text(output.name)
        keep_records([output], made_from)
    assert [gone_before(output) for output in (tokens, masks, table, other)] == [None] * 4
    tokens.unlink()
    assert [is_gone(output) for output in (tokens, masks)] == [True, False]
    assert [gone_before(output) for output in (masks, table)] == [tokens, tokens]
    assert gone_before(other) is None
    # What is made again brings its own inputs, and no others.
    assert [gone_before(masks, {it}.__contains__) for it in (tokens, masks)] == [None, None]
    assert [gone_before(table, {it}.__contains__) for it in (tokens, masks)] == [None, None]
    assert gone_before(table, {table}.__contains__) == tokens
    masks.unlink()
    assert gone_before(table) == masks
    assert [gone_before(table, {it}.__contains__) for it in (masks, table)] == [None, None]
    record_path(study, "masks").unlink()
    assert not is_gone(masks)
    assert gone_before(table) is None


def test_what_is_no_result_is_never_gone(tmp_path: Path) -> None:
    assert not is_gone(tmp_path / "resources/models/a")
    assert gone_before(tmp_path / "resources/models/a") is None
    assert gone_before("--cores") is None


def test_what_a_job_was_asked_for_is_kept_beside_what_it_wrote(tmp_path: Path) -> None:
    table = tmp_path / "results/small/tables/main.md"
    model = tmp_path / "resources/models/a"
    table.parent.mkdir(parents=True)
    model.mkdir(parents=True)
    table.write_text("")
    assert [asked_before(output) for output in (table, model)] == [None, None]
    keep_records([table, model], [], {"label": "A", "patterns": ("u50",)})
    assert asked_before(table) == asked_before(model) == {"label": "A", "patterns": ["u50"]}
    assert json.loads((model / ASKED).read_text()) == asked_before(model)
    record = record_path(tmp_path / "results/small", "tables/main.md")
    record.write_text('{"files": {}, "made_from": {}}')  # as earlier versions wrote it
    assert asked_before(table) == {}
