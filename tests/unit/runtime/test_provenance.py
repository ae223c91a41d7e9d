"""What a result file says of how it came to be: enough, and nothing private."""

from __future__ import annotations

import getpass
import json
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dass.runtime.provenance import git_commit, machine, origin, peak_memory, provenance


def test_it_says_who_what_and_when() -> None:
    said = provenance(time.monotonic() - 5)
    assert abs(datetime.fromisoformat(said["date"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert 5 <= said["seconds"] < 60
    assert said["python"] == platform.python_version()
    assert {"dass", "torch", "transformers"} <= set(said["versions"])
    assert said["machine"]["cores"] >= 1
    assert provenance()["seconds"] is None


def test_it_can_be_stored_and_names_no_host() -> None:
    text = json.dumps(provenance(0.0))
    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert f'"{getpass.getuser()}"' not in text


def test_peak_memory_is_in_bytes() -> None:
    """A Python with torch takes more than 20 MB and less than 100 GB."""
    host = peak_memory()["host"]
    assert host is not None
    assert 20e6 < host < 100e9


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one file, in which the library is made to believe that it lies."""
    monkeypatch.setattr(
        sys.modules["dass.runtime.provenance"],
        "__file__",
        str(tmp_path / "library" / "provenance.py"),
    )
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "provenance.py").write_text("one")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_commit_is_whole_and_says_if_files_were_changed(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "one")
    git(checkout, "tag", "-a", "v1", "-m", "a tag must not take the commit's place")
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_commit() == commit
    (checkout / "library" / "provenance.py").write_text("two")
    assert git_commit() == f"{commit}-dirty"


def test_outside_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    assert git_commit() is None
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


def test_the_machine_is_described_without_its_name() -> None:
    assert set(machine()) == {"cpu", "cores", "system"}
    assert machine()["cpu"]


def test_what_was_fetched_says_its_repository_and_commit(tmp_path: Path) -> None:
    said = {"repository": "a/b", "revision": "main", "commit": "c0ffee", "files": {}}
    (tmp_path / "fetched.json").write_text(json.dumps(said))
    (tmp_path / "documents.jsonl").write_text("")
    expected = {"repository": "a/b", "commit": "c0ffee"}
    assert origin(tmp_path) == origin(tmp_path / "documents.jsonl") == expected
    assert provenance(inputs={"model": origin(tmp_path)})["inputs"] == {"model": expected}


@pytest.mark.parametrize("content", [None, "", "[]", '{"repository": "a/b"}'])
def test_what_was_not_fetched_has_no_origin(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "fetched.json").write_text(content)
    assert origin(tmp_path) is None
    assert provenance(inputs={"model": origin(tmp_path)})["inputs"] == {}
    assert provenance()["inputs"] == {}
