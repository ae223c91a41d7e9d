"""Perplexity as the released code of the paper measures it.

The rows of a split are joined with two newlines and tokenised once; the tokens are cut into
floor(n / length) windows; the mean over windows of each window's mean cross-entropy over its
length - 1 predicted tokens is exponentiated. lm-eval's ``wikitext`` task is word-level and is
not comparable.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from dass.data.windows import Bos, Encode, put_bos_in_front, token_hash
from dass.errors import DataError, NumericError
from dass.models.batches import window_losses
from dass.models.streamed import StreamedModel


def tokenise(rows: list[str], encode: Encode, bos: Bos, bos_id: int | None) -> Tensor:
    """All tokens of a split, int64 [n], without the BOS in front where each window gets its own."""
    tokens = encode("\n\n".join(rows))
    if bos == "window" and tokens and tokens[0] == bos_id:
        tokens = tokens[1:]
    return torch.tensor(tokens, dtype=torch.int64)


def cut_windows(tokens: Tensor, length: int, bos: Bos, bos_id: int | None, name: str) -> Tensor:
    """Cut tokens [n] into whole windows, int64 [floor(n / length), length].

    With ``bos: window`` a window is BOS and length - 1 tokens of the text.

    Raises:
        DataError: the text is shorter than one window, or there is no BOS to put in front.
    """
    step = length - 1 if bos == "window" else length
    count = len(tokens) // step
    if count == 0:
        raise DataError(
            f"{name}: {len(tokens)} tokens are fewer than one window of {length}; "
            "give a longer text or a smaller `perplexity.length`"
        )
    windows = tokens[: count * step].reshape(count, step)
    return put_bos_in_front(windows, bos_id) if bos == "window" else windows


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of one split, and what it was measured on."""

    perplexity: float
    nll: float
    """Mean over windows of the mean cross-entropy a predicted token, in nats."""
    tokens: int
    windows: int
    tokens_hash: str


def perplexity(model: StreamedModel, windows: Tensor) -> Perplexity:
    """Perplexity of a dense or pruned model on windows, int64 [n, length].

    Raises:
        NumericError: the loss is not finite, or too large to be exponentiated.
    """
    nll = float(window_losses(model, windows).mean())
    if not nll < math.log(sys.float_info.max):
        raise NumericError(
            f"{model.folder.name}: mean loss {nll}, so its perplexity is not a number; check the "
            "model's dtype and BOS rule"
        )
    return Perplexity(math.exp(nll), nll, windows.numel(), len(windows), token_hash(windows))
