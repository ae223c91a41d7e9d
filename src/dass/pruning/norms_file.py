"""The norms of each block's activations as a small file, for what is sorted by them.

safetensors with ``<block>.input``, float32 [hidden], and ``<block>.intermediate``, float32
[intermediate]; the metadata holds each tensor's hash.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dass.errors import DataError
from dass.pruning.activations import Norms
from dass.pruning.pruned_file import tensor_hash
from dass.runtime.files import seal, unseal, writing


def save_norms(path: str | Path, blocks: Sequence[Norms]) -> None:
    """Write the norms of all blocks."""
    tensors = _tensors(blocks)
    hashes = {name: tensor_hash(tensor) for name, tensor in tensors.items()}
    with writing(path) as part:
        save_file(tensors, part, {"hashes": seal(hashes)})


def load_norms(path: str | Path) -> list[Norms]:
    """The norms of all blocks.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            hashes = unseal((file.metadata() or {}).get("hashes", ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if {name: tensor_hash(tensor) for name, tensor in tensors.items()} != hashes:
            raise ValueError("its norms are not those that were saved")
        return [
            Norms(tensors[f"{block}.input"], tensors[f"{block}.intermediate"])
            for block in range(len(tensors) // 2)
        ]
    except Exception as error:  # whatever a damaged header makes safetensors raise
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: no usable file of norms ({what}); delete it, run again") from None


def norms_hash(blocks: Sequence[Norms]) -> str:
    """SHA-256 over the names and hashes of all norms."""
    hashes = sorted((name, tensor_hash(tensor)) for name, tensor in _tensors(blocks).items())
    return hashlib.sha256(str(hashes).encode()).hexdigest()


def _tensors(blocks: Sequence[Norms]) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": norms
        for number, block in enumerate(blocks)
        for name, norms in vars(block).items()
    }
