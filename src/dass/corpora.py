"""Text on disk: documents to calibrate on, rows to evaluate on."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Literal

from dass.errors import DataError

Rows = Literal["file", "line"]


class Documents:
    """The documents of a JSON-lines file (``.jsonl``, ``.json.gz``), parsed when asked for.

    Raises:
        DataError: the file is missing, damaged or empty.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lines = _read_bytes(self.path).splitlines()
        if not self._lines:
            raise DataError(f"{self.path}: holds no document")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> str:
        """The text of one document."""
        try:
            text = json.loads(self._lines[index])["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise DataError(f'{self.path}: line {index + 1} is no JSON object with a "text"')
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
