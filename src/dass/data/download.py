"""Files over HTTP that are whole or absent: resumed where they stopped, checked by their hash.

The hub's own downloader starts a file again in each process; with shards of 10 GB that is what one
must not do. Sessions, headers and waiting for a hub that is overloaded are left to it.
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dass.errors import DataError
from dass.runtime.files import sha256
from dass.runtime.progress import SECONDS_BETWEEN_LINES, duration, log

CHUNK = 128 * 1024
"""Bytes written at a time; at most this many are lost when a transfer ends."""

FILES_AT_ONCE = 4
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new try of a transfer of which nothing arrived; then it is given up."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as its hub describes it."""

    name: str
    """Its path in the repository."""
    url: str
    size: int
    """Bytes."""
    digest: str
    """SHA-256 of a file in large-file storage, else git's SHA-1 of the blob, in hexadecimal."""

    @property
    def key(self) -> str:
        """Its name while it is fetched: other content has another one, whatever the revision."""
        return f"{self.digest[:16]}-{self.name.replace('/', '--')}"

    def fits(self, path: Path) -> bool:
        """Whether these are the bytes that the hub describes."""
        if len(self.digest) == 64:
            return sha256(path) == self.digest
        blob = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        blob.update(path.read_bytes())
        return blob.hexdigest() == self.digest


def fetch_files(
    files: Sequence[RemoteFile], folder: Path, headers: Mapping[str, str], what: str
) -> list[Path]:
    """Bring files into a folder, several at once; what is there already is not fetched again.

    Args:
        files: which.
        folder: where; a file ends in ``.part`` until it is whole and checked.
        headers: of each request, with the token if there is one.
        what: how progress calls it.

    Returns:
        Where they lie, in the order of ``files``.

    Raises:
        DataError: the disk is too small, a transfer keeps ending early, or a checksum is wrong.
        OSError: the disk is full, or the hub refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    present = sum(_present(file, folder) for file in files)
    _check_space(folder, sum(file.size for file in files) - present)
    transfer = Transfer(what, len(files), sum(file.size for file in files), present)
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        jobs = [pool.submit(_fetch, file, folder, dict(headers), transfer) for file in files]
        try:
            for done in as_completed(jobs):
                done.result()
        except BaseException:
            transfer.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [folder / file.key for file in files]


class Transfer:
    """Progress of several files: a line every other second, and one when all are there."""

    def __init__(self, what: str, files: int, size: int, present: int) -> None:
        self.what, self.files, self.size = what, files, size
        self.stopped = threading.Event()
        """Set when one file has failed: the others need not go on."""
        self._present, self._received, self._whole = present, 0, 0
        self._lock = threading.Lock()
        self._started = self._shown = time.monotonic()

    def received(self, count: int) -> None:
        """Record bytes that arrived; negative where some have to come again."""
        with self._lock:
            self._received += count
            if time.monotonic() - self._shown >= SECONDS_BETWEEN_LINES:
                self._show()

    def whole(self) -> None:
        """Record that one more file is whole and checked."""
        with self._lock:
            self._whole += 1
            if self._whole == self.files:
                self._show()

    def line(self, elapsed: float) -> str:
        """The line for ``elapsed`` seconds since the start; what was there counts for no rate."""
        there = self._present + self._received
        rate = self._received / max(elapsed, 1e-3)
        text = f"{self.what}: {self._whole}/{self.files} files, {in_bytes(there)} of "
        text += f"{in_bytes(self.size)}, {in_bytes(rate)}/s, {duration(elapsed)}"
        if there >= self.size or rate <= 0:
            return text
        return f"{text}, {duration((self.size - there) / rate)} left"

    def _show(self) -> None:
        self._shown = time.monotonic()
        log.info(self.line(self._shown - self._started))


def in_bytes(count: float) -> str:
    """Bytes for people: ``512 B``, ``3.2 MB``, ``13.5 GB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _present(file: RemoteFile, folder: Path) -> int:
    """Bytes of a file that are on disk."""
    if (folder / file.key).exists():
        return file.size
    return min(_size(_part(file, folder)), file.size)


def _part(file: RemoteFile, folder: Path) -> Path:
    return folder / f"{file.key}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_space(folder: Path, missing: int) -> None:
    """Before an hour's transfer and not after it."""
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise DataError(
            f"{folder}: the disk has {in_bytes(free)} left, but {in_bytes(missing)} are to be "
            "fetched; free some, or make resources/ a link to a larger disk"
        )


def _fetch(file: RemoteFile, folder: Path, headers: dict[str, str], transfer: Transfer) -> None:
    """Fetch one file, in as many transfers as it takes; rename it when it is whole."""
    whole, part = folder / file.key, _part(file, folder)
    if not whole.exists():
        _receive_all(file, part, headers, transfer)
        if _size(part) < file.size:
            return  # another file has failed: what is here is kept
        if _size(part) > file.size or not file.fits(part):
            part.unlink()
            raise DataError(
                f"{file.name}: the checksum of what arrived is not the one that the hub gives; "
                "it was removed, try again"
            )
        with part.open("rb") as file_on_disk:
            os.fsync(file_on_disk.fileno())  # a renamed file is trusted, after a power cut too
        part.replace(whole)
    transfer.whole()


def _receive_all(file: RemoteFile, part: Path, headers: dict[str, str], transfer: Transfer) -> None:
    """Append to ``part`` until it is long enough; give up when nothing arrives any more."""
    fruitless = 0
    part.touch()
    while (before := _size(part)) < file.size and not transfer.stopped.is_set():
        problem = _receive(file, part, headers, transfer)
        if (now := _size(part)) >= file.size or transfer.stopped.is_set():
            return
        fruitless = 0 if now > before else fruitless + 1
        if fruitless > len(WAITS):
            raise DataError(
                f"{file.name}: the transfer ended at {now} of {file.size} bytes ({problem}); "
                "try again, it goes on from there"
            )
        log.info("%s: %s; going on at %s", file.name, problem, in_bytes(now))
        time.sleep(WAITS[max(fruitless - 1, 0)])


def _receive(file: RemoteFile, part: Path, headers: dict[str, str], transfer: Transfer) -> str:
    """One transfer of what is missing; returns why it ended before the file did, if it did."""
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
    from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff

    have = _size(part)
    # Compressed on the way, a range of a file would be a range of something else.
    headers = headers | {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with http_stream_backoff(
            "GET", file.url, headers=headers, timeout=HF_HUB_DOWNLOAD_TIMEOUT,
            retry_on_exceptions=(),
        ) as response:  # fmt: skip
            hf_raise_for_status(response)
            if have and response.status_code != 206:  # the whole file comes, asked or not
                part.write_bytes(b"")
                transfer.received(-have)
            _store(response, part, transfer)
    except Exception as error:
        if not is_transport_error(error):
            raise
        return str(error).strip() or type(error).__name__
    return "it broke off"


def _store(response: Any, part: Path, transfer: Transfer) -> None:
    with part.open("ab") as out:
        for chunk in response.iter_bytes(CHUNK):
            if transfer.stopped.is_set():
                return
            out.write(chunk)
            transfer.received(len(chunk))


def is_transport_error(error: BaseException) -> bool:
    """Whether it is one of the HTTP client's own: no connection, a broken one, a time-out.

    By name: the hub's library has changed its client before, and this one is new.
    """
    return "TransportError" in {parent.__name__ for parent in type(error).__mro__}
