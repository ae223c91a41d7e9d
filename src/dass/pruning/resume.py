"""A pruned file in the making, one checkpoint per decoder block: what a killed job leaves behind.

A checkpoint is itself a pruned file, of one block. It is used only for exactly the same work:
model, tokens, method, pattern, dtype and code. When all blocks are there they are joined by copying
bytes, so that a pruned 70B model never stands in memory.
"""

import json
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dass.errors import DataError
from dass.pruning.pruned_file import FORMAT, PrunedFile, save_pruned
from dass.runtime.files import read_json, write_json, writing
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
        if not _is_about(self.folder, about):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.done = 0
        while self.path(self.done).exists():
            self.done += 1
        if self.done:
            log.info("going on after block %d, which an earlier job has pruned", self.done - 1)

    def path(self, block: int) -> Path:
        """The file of a block's checkpoint."""
        return self.folder / f"block-{block:05d}.safetensors"

    def save(
        self,
        block: int,
        masks: dict[str, Tensor],
        values: dict[str, Tensor],
        shapes: dict[str, tuple[int, ...]],
        sparsity: dict[str, float],
        seconds: float,
    ) -> None:
        """Keep what pruning a block gave, as :func:`dass.pruning.pruned_file.save_pruned`."""
        if not (self.folder / ABOUT).exists():
            write_json(self.folder / ABOUT, self.about)
        own = {"sparsity": sparsity, "seconds": seconds}
        save_pruned(self.path(block), masks, values, shapes, own)

    def read(self, block: int) -> PrunedFile:
        """A block's checkpoint; its settings hold ``sparsity`` and ``seconds``."""
        return PrunedFile(self.path(block))

    def join(self, out: str | Path, blocks: int, settings: dict[str, Any]) -> None:
        """Write the pruned file of all blocks, and remove the checkpoints.

        Raises:
            DataError: a checkpoint is missing.
        """
        paths = [self.path(block) for block in range(blocks)]
        for path in paths:
            if not path.exists():
                raise DataError(f"{path}: this block's checkpoint is missing; prune again")
        join_pruned(paths, out, settings)
        shutil.rmtree(self.folder)


def join_pruned(paths: Sequence[Path], out: str | Path, settings: dict[str, Any]) -> None:
    """Join pruned files of different parameters into one, copying bytes.

    A safetensors file is the length of its header (8 bytes, little endian), the header (JSON:
    name -> dtype, shape and begin and end of its bytes), and the bytes.
    """
    header: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    parts: list[tuple[Path, int]] = []
    size = 0
    for path in paths:
        own, start = _read_header(path)
        shapes |= json.loads(own.pop("__metadata__")["shapes"])
        for name, entry in own.items():
            begin, end = entry["data_offsets"]
            header[name] = entry | {"data_offsets": [size + begin, size + end]}
        parts.append((path, start))
        size += path.stat().st_size - start
    about = {"format": FORMAT, "shapes": json.dumps(shapes), "settings": json.dumps(settings)}
    text = json.dumps({"__metadata__": about, **header}).encode()
    text += b" " * (-len(text) % 8)
    with writing(out) as part, part.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for path, start in parts:
            with path.open("rb") as one:
                one.seek(start)
                shutil.copyfileobj(one, file, 1 << 24)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and where its bytes begin."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return header, 8 + length


def _is_about(folder: Path, about: Mapping[str, Any]) -> bool:
    """Whether the folder's checkpoints are of this very work."""
    if not (folder / ABOUT).exists():
        return False
    try:
        return bool(read_json(folder / ABOUT) == json.loads(json.dumps(about)))
    except DataError:
        return False
