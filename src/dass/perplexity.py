"""Perplexity as the released code of the paper measures it.

The rows of a split are joined with two newlines and tokenised once; the tokens are cut into
floor(n / length) windows; the mean over windows of each window's mean cross-entropy over its
length - 1 predicted tokens is exponentiated. lm-eval's ``wikitext`` task is word-level and is
not comparable.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor

from dass.blocks import StreamedModel
from dass.calibration import Bos, Encode, load_tokens, put_bos_in_front, token_hash
from dass.checkpoint import PrunedFile
from dass.errors import DataError
from dass.job import device
from dass.provenance import provenance
from dass.results import PerplexityResult, Run, SplitPerplexity, write_result
from dass.scoring import window_losses


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


def perplexity(model: StreamedModel, windows: Tensor) -> SplitPerplexity:
    """Perplexity of a dense or pruned model on windows, int64 [n, length]."""
    nll = float(window_losses(model, windows).mean())
    return SplitPerplexity(
        perplexity=math.exp(nll),
        nll=nll,
        tokens=windows.numel(),
        windows=len(windows),
        tokens_hash=token_hash(windows),
    )


def perplexity_to_file(
    *,
    folder: str | Path,
    pruned: str | Path | None,
    tokens: str | Path,
    run: Run,
    dtype: str,
    bos: str,
    dataset: str,
    splits: list[str],
    result_file: str | Path,
) -> None:
    """The perplexity stage: one run on every split.

    Args:
        folder: of the dense model.
        pruned: the run's pruned file; None for the dense model.
        tokens: each split's windows, as the calibration stage saved them.
        run: what to call it.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        bos: which BOS rule the windows were cut with, for the record.
        dataset: what the splits are of, for the record.
        splits: which to measure.
        result_file: written whole or not at all.
    """
    started = time.monotonic()
    overlay = PrunedFile(pruned) if pruned else None
    model = StreamedModel(folder, getattr(torch, dtype), device(), overlay, resident=True)
    windows = load_tokens(tokens)
    result = PerplexityResult(
        run=run,
        settings={"dtype": dtype, "bos": bos, "length": windows[splits[0]].shape[1]},
        dataset=dataset,
        splits={split: perplexity(model, windows[split]) for split in splits},
        mask_hash=overlay.hash() if overlay else None,
        provenance=provenance(started),
    )
    write_result(result_file, result)
