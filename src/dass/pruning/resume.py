"""A pruned file in the making, one checkpoint per decoder block: what a killed job leaves behind.

A checkpoint is itself a pruned file, of one block, with its hash beside it. It is used only if it
is whole, and only for exactly the same work: what ``about`` says. When all blocks are there they
are joined by copying bytes, so that a pruned 70B model never stands in memory. They stay until the
run's result is written: a job that is killed in between loses nothing.
"""

import hashlib
import json
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from dass.errors import DataError
from dass.pruning.pruned_file import About, PrunedFile, save_pruned
from dass.runtime.files import read_json, sha256, write_json, writing
from dass.runtime.progress import log

ABOUT = "about.json"


class BlockCheckpoints:
    """The block checkpoints of one pruning job, in a folder of their own.

    Args:
        folder: where they are kept; checkpoints of other work in it are deleted.
        about: what tells this work from any other; JSON values.
    """

    def __init__(self, folder: str | Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = Path(folder), about
        if self.folder.exists() and not self._is_of_this_work():
            log.info("an earlier job's blocks are of other work: beginning with block 0")
            self.remove()
        self.done = 0
        while self._is_whole(self.done):
            self.done += 1
        if self.done:
            log.info("going on after block %d, which an earlier job has pruned", self.done - 1)

    def _is_of_this_work(self) -> bool:
        return bool(_read(self.folder / ABOUT) == json.loads(json.dumps(self.about)))

    def _is_whole(self, block: int) -> bool:
        path = self.path(block)
        return path.exists() and _read(path.with_suffix(".json")) == sha256(path)

    def path(self, block: int) -> Path:
        """The file of a block's checkpoint."""
        return self.folder / f"block-{block:05d}.safetensors"

    def save(
        self,
        block: int,
        masks: dict[str, Tensor],
        values: dict[str, Tensor],
        shapes: dict[str, tuple[int, ...]],
        own: dict[str, Any],
        orders: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keep what pruning a block gave, as :func:`dass.pruning.pruned_file.save_pruned`.

        ``own`` is what else is known of the block: what :meth:`read` gives as its settings.
        """
        if not (self.folder / ABOUT).exists():
            write_json(self.folder / ABOUT, self.about)
        save_pruned(self.path(block), masks, values, shapes, own, orders)
        write_json(self.path(block).with_suffix(".json"), sha256(self.path(block)))

    def read(self, block: int) -> PrunedFile:
        """A block's checkpoint; its settings say what else is known of the block."""
        return PrunedFile(self.path(block), of_block=True)

    def join(self, out: str | Path, blocks: int, settings: dict[str, Any]) -> str:
        """Write the pruned file of all blocks; returns its SHA-256.

        Raises:
            DataError: a checkpoint is missing.
        """
        paths = [self.path(block) for block in range(blocks)]
        for path in paths:
            if not path.exists():
                raise DataError(f"{path}: this block's checkpoint is missing; prune again")
        return join_pruned(paths, out, settings)

    def remove(self) -> None:
        """Remove the checkpoints: their work is done, or is not what is wanted."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


def join_pruned(paths: Sequence[Path], out: str | Path, settings: dict[str, Any]) -> str:
    """Join pruned files of different parameters into one, copying bytes; returns its SHA-256.

    A safetensors file is the length of its header (8 bytes, little endian), the header (JSON:
    name -> dtype, shape and begin and end of its bytes), and the bytes.
    """
    header: dict[str, Any] = {}
    about = About(shapes={}, settings=settings, hashes={})
    parts: list[tuple[Path, int]] = []
    size = 0
    for path in paths:
        own, start = _read_header(path)
        said = PrunedFile(path, of_block=True).about
        about.shapes.update(said.shapes)
        about.hashes.update(said.hashes)
        for name, entry in own.items():
            begin, end = entry["data_offsets"]
            header[name] = entry | {"data_offsets": [size + begin, size + end]}
        parts.append((path, start))
        size += path.stat().st_size - start
    text = json.dumps({"__metadata__": about.metadata(), **header}).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with writing(out) as part, part.open("wb") as file:
        for chunk in chain((struct.pack("<Q", len(text)), text), _chunks(parts)):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _chunks(parts: Iterable[tuple[Path, int]]) -> Iterator[bytes]:
    """The bytes of files, each from its start on, some at a time."""
    for path, start in parts:
        with path.open("rb") as one:
            one.seek(start)
            while chunk := one.read(1 << 24):
                yield chunk


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file's header says of its tensors, and where its bytes begin."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__")
    return header, 8 + length


def _read(path: Path) -> Any:
    """A JSON file's content; None where it is missing or damaged."""
    try:
        return read_json(path)
    except DataError:
        return None
