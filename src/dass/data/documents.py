"""Text on disk: documents to calibrate or evaluate on, rows to evaluate on.

Files are UTF-8, with or without a byte order mark, packed by gzip or not. Lines may end as on
Windows: the released code reads text as Python does, which makes each such end a newline.
"""

import gzip
import io
import json
import mmap
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from dass.errors import DataError
from dass.runtime.progress import log
from dass.terms import Rows

DOCUMENTS = "documents.jsonl"
OFFSETS = "documents.offsets.npy"
"""Of :func:`index_documents`: the lines, and where each begins, int64 [documents + 1]."""


class Documents:
    """The documents of a JSON-lines file (``.jsonl``, ``.json.gz``), parsed when asked for.

    A file that :func:`index_documents` wrote was checked then: it is not read, a document is found
    by its offset. Of any other, all lines are checked, and held in memory: a bad one must not wait
    for the seed that draws it.

    Raises:
        DataError: the file is missing, damaged or empty, or a line is no document.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lines: Sequence[bytes]
        if self.path.name == DOCUMENTS and self.path.with_name(OFFSETS).exists():
            self._lines = _IndexedLines(self.path)
        else:
            self._lines = list(_document_lines([self.path]))

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> str:
        """The text of one document."""
        return _text_of(self._lines[index], f"{self.path}: line {index + 1}")


class _IndexedLines(Sequence[bytes]):
    """The lines of a file, from its pages and the offsets beside it."""

    def __init__(self, path: Path) -> None:
        damaged = DataError(f"{path}: its lines are not where {OFFSETS} says; fetch it again")
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # mmap refuses an empty file
            raise _unreadable(path, error) from None
        try:
            with warnings.catch_warnings(action="error"):
                self._offsets = np.load(path.with_name(OFFSETS), mmap_mode="r", allow_pickle=False)
        except Exception:  # numpy has one for each way to be damaged
            raise damaged from None
        offsets = self._offsets
        if getattr(offsets, "dtype", None) != np.int64 or offsets.ndim != 1 or len(offsets) < 2:
            raise damaged
        if offsets[0] != 0 or offsets[-1] != len(self._bytes) or (np.diff(offsets) <= 0).any():
            raise damaged

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        return self._bytes[self._offsets[index] : self._offsets[index + 1]]


def read_documents(path: str | Path, count: int | None = None) -> list[str]:
    """The first ``count`` documents of a JSON-lines file, or all of them.

    Raises:
        DataError: as :class:`Documents`; or there are fewer.
    """
    documents = Documents(path)
    found = len(documents)
    if count is not None and count > found:
        raise DataError(
            f"{path}: {count} documents are asked for (config key perplexity.others), but it has "
            f"{found}; ask for fewer, or give more text"
        )
    return [documents[i] for i in range(found if count is None else count)]


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
        for line in _document_lines(files):
            out.write(line)
            offsets.append(offsets[-1] + len(line))
    np.save(folder / OFFSETS, np.array(offsets, dtype=np.int64))
    log.info("unpacked and indexed %d documents, %.1f MB", len(offsets) - 1, offsets[-1] / 1e6)
    return len(offsets) - 1


def _document_lines(files: Iterable[str | Path]) -> Iterator[bytes]:
    """Each line with its newline, once it is known to be a document."""
    for path in map(Path, files):
        number = 0
        for number, line in read_lines(path):
            _text_of(line, f"{path}: line {number}")
            yield line if line.endswith(b"\n") else line + b"\n"
        if not number:
            raise DataError(f"{path}: holds no document; give a file with text")


def _text_of(line: bytes, where: str) -> str:
    try:
        text = parse_object(line)["text"]
        if isinstance(text, str) and is_unicode(text):
            return text
        why = '"text" holds half of a surrogate pair, which is no character'
        why = why if isinstance(text, str) else f'"text" is a {type(text).__name__}'
    except KeyError:
        why = "the key is missing"
    except ValueError as error:
        why = str(error)
    raise DataError(f'{where} is no JSON object with a "text" ({why}); mend or remove the line')


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of one line.

    Raises:
        ValueError: it is no object, or it says a key twice: which one counts, readers disagree.
    """
    if not line.strip():
        raise ValueError("it is blank")
    try:
        found = _JSON.decode(line.decode("utf-8-sig").strip())
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg.removesuffix(' at')} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"it is a {type(found).__name__}")
    return found


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"it has the key {twice!r} twice")
    return found


def is_unicode(text: str) -> bool:
    """Whether no character is half of a surrogate pair, as JSON's escapes allow: ``\\ud800``."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_JSON = json.JSONDecoder(object_pairs_hook=_unambiguous)


def read_rows(path: str | Path, rows: Rows = "line") -> list[str]:
    """The rows of an evaluation text.

    Args:
        path: ``.jsonl`` with one {"text": row} a line, or ``.txt``.
        rows: for ``.txt``: each line is a row (``line``), or the whole file is one (``file``).
            A line is what WikiText's data set makes of it: its newline is part of the row, but a
            blank line is an empty row.

    Raises:
        DataError: the file is missing, malformed or empty.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        found = read_documents(path)
    else:
        text = _read_text(path)
        # Not splitlines(), which would also cut at a dozen separators that end no row.
        found = [text] if rows == "file" else list(io.StringIO(text, newline="\n"))
        found = found if rows == "file" else [row if row.strip() else "" for row in found]
    if not any(row.strip() for row in found):
        raise DataError(f"{path}: holds no text; give the split's text")
    return found


def _read_text(path: Path) -> str:
    """A text file, its line ends made newlines."""
    content = b"".join(line for _, line in read_lines(path))
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise DataError(f"{path}: not UTF-8 text but UTF-16, or not text at all; convert it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); convert it") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def find_split(folder: str | Path, split: str) -> Path:
    """The file of a split in a text data set's folder: ``<split>.jsonl`` or ``<split>.txt``.

    Raises:
        DataError: there is none, or there are both.
    """
    folder = Path(folder)
    names = [f"{split}.jsonl", f"{split}.txt"]
    found = [folder / name for name in names if (folder / name).exists()]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{folder}: has both {' and '.join(names)}; remove one of them")
    raise DataError(f"{folder}: has neither {' nor '.join(names)}; check the data set's `path`")


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, numbered from 1, unpacked if it is packed by gzip.

    Raises:
        DataError: the file is missing, cannot be read, or is damaged.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            yield from enumerate(file, 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


def _opened(path: Path) -> IO[bytes]:
    """A file, unpacked if its first bytes are gzip's: a fetched one may have any name."""
    with path.open("rb") as file:
        packed = path.suffix == ".gz" or file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file; check the data set's `path`")
    why = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: cannot be read ({why}); check the file, or fetch it again")
