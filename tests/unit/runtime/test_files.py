"""Files are whole or absent, and what was there before stays until then."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
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


def ended_process() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize("write", [writing, writing_directory])
def test_leftovers_of_a_killed_process_go_when_it_is_done_again(
    tmp_path: Path, write: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    """Those of living processes and of other machines stay: they may be at work."""
    host, killed = socket.gethostname(), ended_process()
    (tmp_path / f".x.{host}-{killed}.part").mkdir()
    (tmp_path / f".x.{host}-{killed}.part" / "old").touch()
    (tmp_path / f".x.{host}-{ended_process()}.part").touch()
    others = {f".x.{host}-{os.getppid()}.part", ".x.elsewhere-1.part", f".y.{host}-{killed}.part"}
    for name in others:
        (tmp_path / name).touch()
    with write(tmp_path / "x") as part:
        if write is writing_directory:
            (part / "new").touch()
        else:
            part.touch()
    assert names(tmp_path) == {"x"} | others
    assert write is writing or names(tmp_path / "x") == {"new"}


def test_a_folder_that_cannot_take_its_name_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "before").touch()
    replace = Path.replace

    def fail(path: Path, goal: Path) -> Path:
        if path.name.endswith(".part") and goal == target and "earlier" not in path.name:
            raise OSError(5, "Input/output error", str(goal))
        return replace(path, goal)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError), writing_directory(target):
        pass
    assert names(tmp_path) == {"folder"}
    assert names(target) == {"before"}


def test_a_file_in_the_place_of_a_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()
    with writing_directory(tmp_path / "folder") as part:
        (part / "new").touch()
    assert names(tmp_path) == {"folder"}
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


@pytest.mark.parametrize("content", [b"{", b"", b'{"a": \xff}', b"[" * 200_000])
def test_broken_json_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"^[^\n]*x\.json: not valid JSON [^\n]*$"):
        read_json(tmp_path / "x.json")


def test_absent_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.json: no such file; run again, or check the path$"):
        read_json(tmp_path / "x.json")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*: cannot be read \(Is a directory\)[^\n]*$"):
        read_json(tmp_path)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    """And in a thread, since the umask is the whole process's, it is never set to be known."""
    import torch
    from safetensors.torch import save_file

    def write() -> None:
        with writing(tmp_path / "file") as part:
            save_file({"x": torch.zeros(1)}, part)
        with writing_directory(tmp_path / "folder") as part:
            save_file({"x": torch.zeros(1)}, part / "file")

    before = os.umask(umask)
    try:
        with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
            patch.delattr(os, "umask")
            thread.submit(write).result()
    finally:
        os.umask(before)
    for path in (tmp_path / "file", tmp_path / "folder/file"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_two_jobs_in_one_folder_take_turns(tmp_path: Path) -> None:
    """The second waits until the first has ended, however it ends."""
    holds = "import sys, time; from dass.runtime.files import alone\n"
    holds += "with alone(sys.argv[1]): print('has it', flush=True); time.sleep(float(sys.argv[2]))"

    def start(seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", holds, str(tmp_path / "run"), str(seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start(60) as first:
        assert first.stdout is not None and first.stdout.readline() == "has it\n"
        with start(0) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(timeout=2)
            first.kill()
            assert second.wait(timeout=30) == 0
    assert list((tmp_path / "run").iterdir()) == []
