"""Perplexity as the released code of the paper measures it.

The rows of a split are joined with two newlines and tokenised once; the tokens are cut into
floor(n / length) windows; the mean over windows of each window's mean cross-entropy over its
length - 1 predicted tokens is exponentiated. lm-eval's ``wikitext`` task is word-level and is
not comparable.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dass.data.token_file import token_hash
from dass.errors import NumericError
from dass.evaluation.likelihood import text_losses
from dass.models.streamed import StreamedModel


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of one split, and what it was measured on."""

    perplexity: float
    nll: float
    """Mean over windows of the mean cross-entropy per predicted token, in nats."""
    tokens: int
    windows: int
    tokens_hash: str
    window_nlls: list[float]
    """Of each window."""


def measure_perplexity(model: StreamedModel, windows: Tensor) -> Perplexity:
    """Perplexity of a dense or pruned model on windows, int64 [n, length].

    Raises:
        NumericError: the loss is not finite, or too large to be exponentiated.
    """
    return measure_perplexities(model, [windows])[0]


def measure_perplexities(model: StreamedModel, texts: Sequence[Tensor]) -> list[Perplexity]:
    """The same on each of several texts."""
    losses = text_losses(model, texts)
    return [_perplexity(model, *of) for of in zip(texts, losses, strict=True)]


def _perplexity(model: StreamedModel, windows: Tensor, losses: Tensor) -> Perplexity:
    nll = float(losses.mean())
    if not nll < math.log(sys.float_info.max):
        raise NumericError(
            f"{model.folder.name}: mean loss {nll}, so its perplexity is not a number; check the "
            "model's dtype and BOS rule"
        )
    return Perplexity(
        math.exp(nll), nll, windows.numel(), len(windows), token_hash(windows), losses.tolist()
    )
