"""Stand-ins for the paper's models and data: a toy world's text, its questions, models of it.

They let the whole study run offline and in minutes. What they yield says nothing about the
paper's models.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dass.runtime.files import writing_directory

__all__ = ["DEFAULT_DOCUMENTS", "DEFAULT_STEPS", "FAMILIES", "train_standin", "write_world"]

FAMILIES = ("llama", "mistral", "gemma")
DEFAULT_DOCUMENTS = 2400
DEFAULT_STEPS = 600


def write_world(out: Path, seed: int, documents: int = DEFAULT_DOCUMENTS) -> None:
    """Write all text of the toy world of ``seed``: equal arguments give equal bytes.

    ``out`` then holds documents.jsonl.gz (C4's columns), wikitext/ and the five tasks, each a
    folder with train.jsonl, validation.jsonl and test.jsonl.
    """
    from dass.standins import corpus, tasks
    from dass.standins.world import World

    world = World(seed)
    with writing_directory(out) as folder:
        _write_gzip(folder / "documents.jsonl.gz", corpus.documents(world, seed, documents))
        for split, rows in corpus.wikitext(world, seed).items():
            _write_lines(folder / "wikitext" / f"{split}.jsonl", ({"text": row} for row in rows))
        for task, splits in tasks.tasks(world, seed).items():
            for split, questions in splits.items():
                _write_lines(folder / task / f"{split}.jsonl", questions)


def train_standin(
    family: str, world: Path, out: Path, seed: int, steps: int = DEFAULT_STEPS
) -> None:
    """Train the stand-in of a family on a folder of :func:`write_world`; write a model folder.

    Raises:
        ModelError: the family is not one of ``FAMILIES``.
        DataError: a file of the world is missing or too small.
    """
    from dass.standins.training import train

    train(family, Path(world), Path(out), seed, steps)


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
