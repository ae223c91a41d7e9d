"""Token ids on disk, saved once, hashed, with the source of their text."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dass.errors import DataError
from dass.runtime.files import writing


def token_hash(tokens: Tensor) -> str:
    """SHA-256 of token ids, as little-endian int64 in C order."""
    data = tokens.to(torch.int64).contiguous().cpu().numpy().astype("<i8").tobytes()
    return hashlib.sha256(data).hexdigest()


def save_tokens(
    path: str | Path, tensors: Mapping[str, Tensor], source: Mapping[str, str] | None = None
) -> None:
    """Save token ids as int32 safetensors (a third of a gigabyte less than int64 for a split).

    Args:
        path: the file.
        tensors: token ids by name.
        source: where their text came from, for :func:`tokens_source`.
    """
    with writing(path) as part:
        int32 = {name: t.to(torch.int32) for name, t in tensors.items()}
        save_file(int32, part, {"source": json.dumps(source)} if source else None)


def tokens_source(path: str | Path) -> dict[str, str] | None:
    """Where the text of saved tokens came from, if that was said."""
    with safe_open(path, framework="pt") as file:
        said = (file.metadata() or {}).get("source")
    return cast(dict[str, str], json.loads(said)) if said else None


def load_tokens(path: str | Path) -> dict[str, Tensor]:
    """Token ids by name, int64.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).long() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: no usable token file ({error}); delete it, run again") from None
