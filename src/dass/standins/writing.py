"""The toy world as files: documents, articles and five tasks."""

import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dass.runtime.files import writing_directory
from dass.standins import DEFAULT_DOCUMENTS, corpus, tasks
from dass.standins.toy_world import World


def write_corpus(out: str | Path, seed: int, documents: int = DEFAULT_DOCUMENTS) -> None:
    """Write all text of the toy world of ``seed``: equal arguments give equal bytes.

    ``out`` then holds documents.jsonl.gz (C4's columns), wikitext/ and the five tasks, each a
    folder with train.jsonl, validation.jsonl and test.jsonl.
    """
    world = World(seed)
    with writing_directory(out) as folder:
        _write_gzip(folder / "documents.jsonl.gz", corpus.documents(world, seed, documents))
        for split, rows in corpus.wikitext(world, seed).items():
            _write_lines(folder / "wikitext" / f"{split}.jsonl", ({"text": row} for row in rows))
        for task, splits in tasks.tasks(world, seed).items():
            for split, questions in splits.items():
                _write_lines(folder / task / f"{split}.jsonl", questions)


def _json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(_json_lines(rows))


def _write_gzip(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Without a file name and a time in the header, so that the bytes repeat."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as file:
        file.write(_json_lines(rows))
    path.write_bytes(packed.getvalue())
