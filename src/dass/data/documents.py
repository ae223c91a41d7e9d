"""Text on disk: documents to calibrate on, rows to evaluate on."""

import gzip
import io
import json
import mmap
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np

from dass.errors import DataError
from dass.runtime.progress import log

Rows = Literal["file", "line"]


DOCUMENTS = "documents.jsonl"
OFFSETS = "documents.offsets.npy"
"""Of :func:`index_documents`: the lines, and where each begins, int64 [documents + 1]."""


class Documents:
    """The documents of a JSON-lines file (``.jsonl``, ``.json.gz``), parsed when asked for.

    A file that :func:`index_documents` wrote is not read: a document is found by its offset.
    Of any other, all lines are held in memory.

    Raises:
        DataError: the file is missing, damaged or empty.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lines: Sequence[bytes]
        if self.path.name == DOCUMENTS and self.path.with_name(OFFSETS).exists():
            self._lines = _IndexedLines(self.path)
        else:
            self._lines = _read_bytes(self.path).splitlines()
        if not self._lines:
            raise DataError(f"{self.path}: holds no document")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> str:
        """The text of one document."""
        return _text_of(self._lines[index], f"{self.path}: line {index + 1}")


class _IndexedLines(Sequence[bytes]):
    """The lines of a file, from its pages and the offsets beside it."""

    def __init__(self, path: Path) -> None:
        try:
            self._offsets = np.load(path.with_name(OFFSETS), mmap_mode="r", allow_pickle=False)
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); fetch it again") from None
        if len(self._offsets) == 0 or self._offsets[-1] != len(self._bytes):
            raise DataError(f"{path}: is not as long as {OFFSETS} says; fetch it again")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        return self._bytes[self._offsets[index] : self._offsets[index + 1]]


def index_documents(files: Iterable[str | Path], folder: str | Path) -> int:
    """Unpack JSON-lines files into one, with the offset of each line; each is checked.

    Jobs then draw from some hundred megabytes of text without unpacking or holding them.

    Args:
        files: packed by gzip or not.
        folder: gets ``documents.jsonl`` and ``documents.offsets.npy``.

    Returns:
        The number of documents.

    Raises:
        DataError: a file is missing, damaged or empty, or a line is no document.
    """
    folder = Path(folder)
    offsets = [0]
    with (folder / DOCUMENTS).open("wb") as out:
        for line in _lines_of(files):
            out.write(line)
            offsets.append(offsets[-1] + len(line))
    np.save(folder / OFFSETS, np.array(offsets, dtype=np.int64))
    log.info("unpacked and indexed %d documents, %.1f MB", len(offsets) - 1, offsets[-1] / 1e6)
    return len(offsets) - 1


def _lines_of(files: Iterable[str | Path]) -> Iterator[bytes]:
    """Each line with its newline, once it is known to be a document."""
    for path in map(Path, files):
        number = 0
        try:
            with _opened(path) as file:
                for number, line in enumerate(file, 1):
                    _text_of(line, f"{path}: line {number}")
                    yield line if line.endswith(b"\n") else line + b"\n"
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: cannot be read ({error}); fetch it again") from None
        if not number:
            raise DataError(f"{path}: holds no document")


def _opened(path: Path) -> IO[bytes]:
    """A file, unpacked if its first bytes are gzip's: a fetched one may have any name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def _text_of(line: bytes, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise DataError(f'{where} is no JSON object with a "text"')
    return text


def read_rows(path: str | Path, rows: Rows = "line") -> list[str]:
    """The rows of an evaluation text.

    Args:
        path: ``.jsonl`` with one {"text": row} a line, or ``.txt``.
        rows: for ``.txt``: each line is a row, its newline included as in WikiText's data set
            (``line``), or the whole file is one row (``file``).

    Raises:
        DataError: the file is missing, malformed or empty.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        documents = Documents(path)
        return [documents[i] for i in range(len(documents))]
    try:
        text = _read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); convert it") from None
    if not text.strip():
        raise DataError(f"{path}: holds no text")
    # Not splitlines(), which would also cut at a dozen separators that end no row.
    return [text] if rows == "file" else list(io.StringIO(text, newline="\n"))


def find_split(folder: str | Path, split: str) -> Path:
    """The file of a split in a text data set's folder: ``<split>.jsonl`` or ``<split>.txt``.

    Raises:
        DataError: there is none.
    """
    folder = Path(folder)
    for suffix in (".jsonl", ".txt"):
        if (path := folder / f"{split}{suffix}").exists():
            return path
    raise DataError(f"{folder}: has neither {split}.jsonl nor {split}.txt")


def _read_bytes(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the data set's `path`") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from None
