"""Files are whole or absent, and what was there before stays until then."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dass.errors import DataError
from dass.runtime.files import read_json, sha256, write_json, writing, writing_directory


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with writing(target) as part:
        part.write_text("whole")
        assert part.parent == target.parent  # a rename across file systems is no rename
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names(target.parent) == {"file.txt"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file.txt"
    target.write_text("before")
    with pytest.raises(error), writing(target) as part:
        part.write_text("half")
        raise error
    assert target.read_text() == "before"
    assert names(tmp_path) == {"file.txt"}


def test_a_failure_before_anything_was_written_is_the_one_that_is_seen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), writing(tmp_path / "file.txt"):
        raise ValueError("mine")
    assert names(tmp_path) == set()


def test_processes_do_not_share_a_temporary_name(tmp_path: Path) -> None:
    with writing(tmp_path / "file.txt") as part:
        assert str(os.getpid()) in part.name
        part.touch()


def test_a_folder_replaces_the_earlier_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    for content in ("first", "second"):
        with writing_directory(target) as part:
            (part / content).write_text(content)
            assert target.exists() == (content == "second")
    assert names(target) == {"second"}
    assert names(target.parent) == {"folder"}


def test_a_failed_folder_leaves_the_earlier_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "before").touch()
    with pytest.raises(ValueError), writing_directory(target) as part:
        (part / "half").touch()
        raise ValueError
    assert names(target) == {"before"}
    assert names(tmp_path) == {"folder"}


def test_leftovers_of_a_killed_process_do_not_end_up_in_the_folder(tmp_path: Path) -> None:
    leftover = tmp_path / f".folder.{os.getpid()}.part"
    leftover.mkdir()
    (leftover / "old").touch()
    with writing_directory(tmp_path / "folder") as part:
        (part / "new").touch()
    assert names(tmp_path / "folder") == {"new"}


def test_json_round_trip_keeps_order_and_letters(tmp_path: Path) -> None:
    content = {"z": [1, 2.5, None, True], "a": "naïve ‖·‖"}
    write_json(tmp_path / "x.json", content)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "x.json") == content
    assert list(read_json(tmp_path / "x.json")) == ["z", "a"]
    assert "naïve ‖·‖" in text and text.endswith("}\n")


def test_what_json_cannot_say_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"path": object()})
    assert names(tmp_path) == set()


@pytest.mark.parametrize("content", [b"{", b"", b'{"a": \xff}'])
def test_broken_json_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"^[^\n]*x\.json: not valid JSON [^\n]*$"):
        read_json(tmp_path / "x.json")


def test_absent_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.json: no such file$"):
        read_json(tmp_path / "x.json")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    plain = tmp_path / "plain"
    plain.write_text("")
    with writing(tmp_path / "file") as part:
        save_file({"x": torch.zeros(1)}, part)
    with writing_directory(tmp_path / "folder") as part:
        save_file({"x": torch.zeros(1)}, part / "file")
    for path in (tmp_path / "file", tmp_path / "folder/file"):
        assert path.stat().st_mode == plain.stat().st_mode
