"""What is gone of recorded results."""

from __future__ import annotations

from pathlib import Path

from dass.runtime.records import gone_before, is_gone, keep_records, record_path


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
