"""Token ids on disk, saved once, hashed, with how they came to be."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dass.errors import DataError
from dass.runtime.files import seal, unseal, writing


def token_hash(tokens: Tensor) -> str:
    """SHA-256 of token ids, as little-endian int64 in C order."""
    data = tokens.to(torch.int64).contiguous().cpu().numpy().astype("<i8").tobytes()
    return hashlib.sha256(data).hexdigest()


def save_tokens(
    path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None
) -> None:
    """Save token ids as int32 safetensors (a third of a gigabyte less than int64 for a split).

    Args:
        path: the file.
        tensors: token ids by name.
        about: how they came to be, for :func:`tokens_about`; JSON values.
    """
    said = {**(about or {}), "hashes": {name: token_hash(t) for name, t in tensors.items()}}
    int32 = {name: tensor.to(torch.int32) for name, tensor in tensors.items()}
    with writing(path) as part:
        # One entry only: safetensors writes several in any order.
        save_file(int32, part, {"about": seal(said)})


def tokens_about(path: str | Path) -> dict[str, Any]:
    """How saved tokens came to be, and under ``hashes`` their hashes by name.

    Raises:
        DataError: the file is missing or damaged.
    """
    return read_tokens(path)[1]


def load_tokens(path: str | Path) -> dict[str, Tensor]:
    """Token ids by name, int64.

    Raises:
        DataError: the file is missing or damaged.
    """
    return read_tokens(path)[0]


def load_windows(path: str | Path, name: str, vocabulary: int) -> Tensor:
    """The windows of one name, int64 [n, length], for a model with that many tokens.

    Raises:
        DataError: the file is missing or damaged, or has no windows of that name or for that model.
    """
    windows = load_tokens(path).get(name)
    if windows is None or windows.ndim != 2 or not windows.numel():
        raise DataError(f"{path}: holds no windows {name!r}; delete it, run again")
    check_vocabulary(int(windows.max()), vocabulary, str(path))
    return windows


def check_vocabulary(largest: int, vocabulary: int, where: str) -> None:
    """Raise DataError if a token is none of the model's, whose embedding has no row for it."""
    if largest >= vocabulary:
        raise DataError(
            f"{where}: the tokenizer gives token {largest}, but the model's config.json has a "
            f"vocab_size of {vocabulary}; give the tokenizer that belongs to the model"
        )


def read_tokens(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Both :func:`load_tokens` and :func:`tokens_about`, of a file that is read once.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = unseal((file.metadata() or {}).get("about", ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found = {name: token_hash(t) for name, t in tensors.items() if t.dtype == torch.int32}
        if found.keys() != tensors.keys() or found != about["hashes"]:
            raise ValueError("its tokens are not those that were saved")
    except Exception as error:  # whatever a damaged header makes safetensors raise
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: no usable token file ({what}); delete it, run again") from None
    return {name: tensor.long() for name, tensor in tensors.items()}, about
