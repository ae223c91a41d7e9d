"""Transfers as they are described: sizes, rates, names. What they do is tested against a hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dass.data.download import RemoteFile, Transfer, fetch_files, in_bytes
from dass.errors import DataError


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (592_360, "592.4 kB"),
        (13_476_000_000, "13.5 GB"), (137_953_000_000, "138.0 GB"),
    ],
)  # fmt: skip
def test_bytes_for_people(count: int, text: str) -> None:
    assert in_bytes(count) == text


def test_a_line_says_files_bytes_rate_and_what_is_left() -> None:
    """2 of 10 GB were there, 4 GB came in 40 s: 100 MB/s, and 4 GB are left, hence 40 s."""
    transfer = Transfer("fetching m", files=3, size=10_000_000_000, present=2_000_000_000)
    transfer.received(4_000_000_000)
    transfer.whole()
    line = "fetching m: 1/3 files, 6.0 GB of 10.0 GB, 100.0 MB/s, 40 s, 40 s left"
    assert transfer.line(40) == line


def test_what_has_not_begun_promises_nothing() -> None:
    assert Transfer("a", 1, 100, 0).line(2) == "a: 0/1 files, 0 B of 100 B, 0 B/s, 2 s"


def remote(content: bytes, digest: str, name: str = "a.bin") -> RemoteFile:
    return RemoteFile(name, "http://127.0.0.1:9/a", len(content), digest)


def test_both_kinds_of_hash_are_checked(tmp_path: Path) -> None:
    """git's hash of `hello\\n`, as `git hash-object` prints it, and its SHA-256."""
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    git = "ce013625030ba8dba906f756967f9e9ca394464a"
    assert remote(b"hello\n", git).fits(path)
    assert remote(b"hello\n", hashlib.sha256(b"hello\n").hexdigest()).fits(path)
    path.write_bytes(b"hellO\n")
    assert not remote(b"hello\n", git).fits(path)
    assert not remote(b"hello\n", hashlib.sha256(b"hello\n").hexdigest()).fits(path)


def test_other_content_has_another_name_on_disk() -> None:
    one, two = remote(b"a", "1" * 64, "data/a.gz"), remote(b"b", "2" * 64, "data/a.gz")
    assert one.key == "1111111111111111-data--a.gz"
    assert one.key != two.key


def test_what_is_there_needs_no_hub(tmp_path: Path) -> None:
    """The address is one where nobody listens."""
    file = remote(b"whole", hashlib.sha256(b"whole").hexdigest())
    (tmp_path / file.key).write_bytes(b"whole")
    assert fetch_files([file], tmp_path, {}, "fetching") == [tmp_path / file.key]


def test_more_than_the_disk_holds_is_refused(tmp_path: Path) -> None:
    file = RemoteFile("a", "http://127.0.0.1:9/a", 10**18, "0" * 64)
    with pytest.raises(DataError, match=r"^[^\n]*the disk has .* but 1000000000\.0 GB are"):
        fetch_files([file], tmp_path, {}, "fetching")
