"""What a result file says of how it came to be: enough, and nothing private."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from dass.runtime.provenance import (
    CONFIG,
    fingerprint,
    git_commit,
    machine,
    model_source,
    origin,
    peak_memory,
    provenance,
    source,
)


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
    """A folder with the library's layout, in which the library is made to believe that it lies."""
    checkout = tmp_path / "checkout"
    file = checkout / "src" / "dass" / "runtime" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("one")
    monkeypatch.setattr(sys.modules["dass.runtime.provenance"], "__file__", str(file))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return checkout


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit_all(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


def test_the_commit_is_whole_and_says_if_files_were_changed(checkout: Path) -> None:
    commit = commit_all(checkout)
    git(checkout, "tag", "-a", "v1", "-m", "a tag must not take the commit's place")
    assert git_commit() == commit
    (checkout / "results.json").touch()  # not a file that Python would import
    assert git_commit() == commit
    (checkout / "src/dass/runtime/provenance.py").write_text("two")
    assert git_commit() == f"{commit}-dirty"


def test_a_module_that_git_does_not_know_is_a_change_of_the_library(checkout: Path) -> None:
    commit = commit_all(checkout)
    (checkout / "src/dass/pruning").mkdir()
    (checkout / "src/dass/pruning/own.py").touch()
    assert git_commit() == f"{commit}-dirty"


def test_a_repository_around_the_library_is_not_its_own(checkout: Path) -> None:
    """As that of a user's home, of a project with a virtual environment, of an unpacked archive."""
    commit_all(checkout.parent)
    assert git_commit() is None


def test_a_repository_that_ignores_the_library_is_not_its_own(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("src\n")
    commit_all(checkout)
    assert git_commit() is None


def test_a_repository_that_the_environment_names_is_not_asked(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git sets these for its hooks."""
    commit = commit_all(checkout)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    assert commit_all(tmp_path / "other") != commit
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert git_commit() == commit


def test_outside_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_commit() is None
    git(checkout, "init", "-q")  # without a commit
    assert git_commit() is None
    commit_all(checkout)
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


@pytest.mark.parametrize(
    "content", [None, "", "[]", '{"repository": "a/b"}', "[" * 200_000, "\xff"]
)
def test_what_was_not_fetched_has_no_origin(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "fetched.json").write_text(content)
    assert origin(tmp_path) is None
    assert provenance(inputs={"model": origin(tmp_path)})["inputs"] == {}
    assert provenance()["inputs"] == {}


def test_it_says_what_decides_about_torchs_kernels() -> None:
    said = provenance()["torch"]
    assert said["threads"] == torch.get_num_threads()
    assert said["deterministic"] is False and said["matmul_precision"] == "highest"
    assert said["cpu"] == torch.backends.cpu.get_cpu_capability()


def test_the_configs_hash_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG, raising=False)
    assert provenance()["config"] is None
    monkeypatch.setenv(CONFIG, "abc")
    assert provenance()["config"] == "abc"


def test_a_source_is_its_content(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("text")
    content = hashlib.sha256(b"text").hexdigest()
    assert source(tmp_path / "d.jsonl") == {"file": "d.jsonl", "sha256": content}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights of 2 kB, with pieces so small that it counts as a large one."""
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text("{}")
    tensors = {name: torch.arange(250.0) for name in ("a", "b")}
    save_file(tensors, tmp_path / "x.safetensors")
    monkeypatch.setattr(sys.modules["dass.runtime.provenance"], "PIECE", 16)
    monkeypatch.setattr(sys.modules["dass.runtime.provenance"], "PIECES", 8)
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("large", [False, True])
def test_other_weights_have_another_hash(
    weights: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header of a large file, its beginning, its end and its size, and all of a small one."""
    content = weights.read_bytes()
    if not large:
        monkeypatch.setattr(sys.modules["dass.runtime.provenance"], "PIECE", len(content))
    changed = range(len(content))
    if large:
        (length,) = struct.unpack("<Q", content[:8])
        changed = [*range(8 + length), *range(len(content) - 16, len(content))]
    seen = {model_source(weights.parent, [weights])["weights"]}
    for place in changed:
        weights.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        if large and place < 8:
            continue  # no safetensors file any more: refused before it is hashed
        seen.add(model_source(weights.parent, [weights])["weights"])
    for other in (content + b"x", content[:-1]):
        weights.write_bytes(other)
        seen.add(model_source(weights.parent, [weights])["weights"])
    assert len(seen) == 1 + len(changed) + 2 - (8 if large else 0)


def test_a_models_source_is_its_config_its_weights_and_no_place(weights: Path) -> None:
    first = model_source(weights.parent, [weights])
    other = weights.with_name("y.safetensors")
    shutil.copyfile(weights, other)
    both = model_source(weights.parent, [weights, other])
    assert both == model_source(weights.parent, [other, weights]) != first
    assert model_source(weights.parent, [other])["weights"] != first["weights"]
    os.utime(weights, (0, 0))
    assert model_source(weights.parent, [weights]) == first
    (weights.parent / "config.json").write_text('{"rope_theta": 1}')
    changed = model_source(weights.parent, [weights])
    assert changed["weights"] == first["weights"] and changed["config"] != first["config"]


def test_a_fingerprint_is_of_content_and_names_wherever_files_lie(tmp_path: Path) -> None:
    def written(folder: str, **files: bytes) -> list[Path]:
        (tmp_path / folder).mkdir(exist_ok=True)
        paths = [tmp_path / folder / name for name in files]
        for path, content in zip(paths, files.values(), strict=True):
            path.write_bytes(content)
        return paths

    large = bytes(5 << 20)
    changed = large[:-1] + b"\1"  # the last byte is in the last of the pieces
    known = fingerprint(written("a", one=b"1", two=large))
    assert fingerprint(written("b", two=large, one=b"1")) == known
    for other in ({"one": b"2", "two": large}, {"one": b"1", "two": changed},
                  {"one": b"1", "too": large}, {"one": b"1", "two": large + b"\0"}):  # fmt: skip
        assert fingerprint(written("c", **other)) != known
