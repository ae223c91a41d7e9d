"""Calibration and evaluation tokens: drawn once, saved once, hashed.

The draws are those of Wanda, SparseGPT and the DaSS authors: with the same tokenizer, file and
seed the windows are the same to the token.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dass.data.documents import Documents
from dass.errors import DataError
from dass.runtime.files import writing
from dass.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], list[int]]
"""Text to token ids, with whatever the tokenizer adds by default (BOS)."""

Bos = Literal["text", "window"]
"""Where BOS stands: once in front of each text, as the tokenizer puts it, or in every window."""


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises:
        DataError: the folder has no usable tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"{folder}: no usable tokenizer ({first}); fetch the model again") from None
    tokenizer.model_max_length = int(1e30)  # long texts are cut by us, not warned about
    return cast("PreTrainedTokenizerBase", tokenizer)


def encoder(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """The tokenizer as a function, with its defaults: BOS in front where it puts one."""
    return lambda text: list(tokenizer(text)["input_ids"])


def draw_windows(
    documents: Documents, encode: Encode, sequences: int, length: int, seed: int
) -> Tensor:
    """Draw calibration windows: a random document that is long enough, then a random offset.

    Whether enough documents are long enough is looked at once half as many draws were made as
    there are documents. With fewer than ``sequences`` that are, no more than half of ``sequences``
    are to be expected by then, so that the lack is noticed; where there are plenty, as in C4's
    shard (356,317 documents, some ten thousand draws), they are never all tokenised for it.

    Returns:
        int64 [sequences, length].

    Raises:
        DataError: fewer documents than ``sequences`` have more than ``length`` tokens.
    """
    draw = random.Random(seed)
    progress = Progress("drawing calibration windows", sequences, "windows")
    windows: list[list[int]] = []
    draws, counted = 0, False
    while len(windows) < sequences:
        tokens = encode(documents[draw.randint(0, len(documents) - 1)])
        draws += 1
        if draws > len(documents) // 2 and not counted:
            _check_enough(documents, encode, sequences, length)
            counted = True
        if len(tokens) > length:
            start = draw.randint(0, len(tokens) - length - 1)
            windows.append(tokens[start : start + length])
            progress.step()
    return torch.tensor(windows, dtype=torch.int64)


def _check_enough(documents: Documents, encode: Encode, sequences: int, length: int) -> None:
    """Every document has been in reach of the draws by now: count those that are long enough."""
    usable = sum(len(encode(documents[i])) > length for i in range(len(documents)))
    if usable < sequences:
        raise DataError(
            f"{documents.path}: {usable} of {len(documents)} documents have more than {length} "
            f"tokens, but the calibration asks for {sequences} sequences; ask for fewer or shorter "
            "ones (config key calibrations), or give more text"
        )


def put_bos_in_front(windows: Tensor, bos_id: int | None) -> Tensor:
    """Windows [n, length] with BOS in front of each, [n, length + 1].

    Raises:
        DataError: the tokenizer has no BOS.
    """
    if bos_id is None:
        raise DataError("`bos: window` asks for BOS in each window, but the tokenizer has no BOS")
    front = torch.full((len(windows), 1), bos_id, dtype=windows.dtype)
    return torch.cat([front, windows], dim=1)


def token_hash(tokens: Tensor) -> str:
    """SHA-256 of token ids, as little-endian int64 in C order."""
    data = tokens.to(torch.int64).contiguous().cpu().numpy().astype("<i8").tobytes()
    return hashlib.sha256(data).hexdigest()


def save_tokens(
    path: str | Path, tensors: dict[str, Tensor], source: Mapping[str, str] | None = None
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
