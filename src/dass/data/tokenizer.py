"""A model's tokenizer: text to token ids, with its own defaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dass.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], list[int]]
"""Text to token ids, with whatever the tokenizer adds by default (BOS)."""


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises:
        DataError: the folder has no usable tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,  # the default asks whoever sits at the terminal
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"{folder}: no usable tokenizer ({first}); fetch the model again") from None
    tokenizer.model_max_length = int(1e30)  # long texts are cut by us, not warned about
    return cast("PreTrainedTokenizerBase", tokenizer)


def encoder(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """The tokenizer as a function, with its defaults: BOS in front where it puts one."""
    return lambda text: list(tokenizer(text)["input_ids"])
