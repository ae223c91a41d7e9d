"""Run tokens through a streamed model: all batches through block 0, then all through block 1, …"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dass.models.attention import to_store
from dass.models.fused import fused
from dass.models.numerics import max_abs
from dass.models.streamed import StreamedModel, check_finite, free_memory
from dass.runtime.progress import Progress

TOKENS_IN_FLIGHT = {"cpu": 4096, "cuda": 16384}
"""How many tokens go through a block at once: enough to fill the device, no more."""

WORKSPACE = 4 << 30
"""How many bytes of GPU memory a block may compute in, at most."""

TOKENS_IN_FLIGHT_FROM_HOST = 4096
"""The same, while activations are kept on the host because the GPU is small."""

TOKENS_IN_A_SWEEP = 1 << 20
"""How many tokens' hidden states are kept between blocks while a model is streamed."""

LOGITS_AT_ONCE = 1 << 27
"""How many logits are held at once (float32: 512 MiB)."""


@dataclass
class Batch:
    """Some sequences on their way through the blocks."""

    hidden: Tensor
    """[batch, length, hidden], the input of the next block."""
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    """What the model hands to each block besides."""

    def run(self, block: nn.Module, index: int) -> Tensor:
        """The output [batch, length, hidden] of block ``index``."""
        args, kwargs = self.arguments[index]
        device = next(block.parameters()).device
        output: Tensor = block(self.hidden.to(device, non_blocking=True), *args, **kwargs)
        return output

    def advance(self, block: nn.Module, index: int) -> Tensor:
        """Let the output of block ``index`` take the place of its input, kept in the same place.

        Returns:
            [], on the block's device: the output's largest absolute value, finite only where
            all of it is.
        """
        output = self.run(block, index)
        self.hidden = to_store(output, self.hidden.device, self.hidden)
        return max_abs(output)


def choose_store(model: StreamedModel, tokens: int, workspace: int = 0) -> torch.device:
    """Where to keep activations between blocks: on the device if they fit, else on the host.

    Room is needed for the hidden states and for as much again (attention's outputs, while a model
    is pruned); half of the free memory is left for blocks and what they compute.

    Args:
        model: whose hidden states they are.
        tokens: how many.
        workspace: bytes of the device that something else will take besides.
    """
    if model.store is not None or model.device.type != "cuda":
        return model.store or model.device
    needed = 2 * tokens * model.hidden_size * model.dtype.itemsize
    fits = needed < (free_memory(model.device) - workspace) / 2
    return model.device if fits else torch.device("cpu")


def tokens_in_flight(model: StreamedModel, store: torch.device) -> int:
    """How many tokens to send through a block at once, so that what it computes fits."""
    if model.device.type != "cuda":
        return TOKENS_IN_FLIGHT["cpu"]
    wanted = TOKENS_IN_FLIGHT["cuda"] if store.type == "cuda" else TOKENS_IN_FLIGHT_FROM_HOST
    # Gate, up, their product and its activation; some ten hidden states, a few of them float32.
    per_token = model.dtype.itemsize * (4 * model.intermediate_size + 16 * model.hidden_size)
    room = min(WORKSPACE, free_memory(model.device) / 3)
    return min(wanted, int(room / per_token))


def batches_of(model: StreamedModel, windows: Tensor, workspace: int = 0) -> list[Batch]:
    """Cut windows [n, length] into batches that fill the device, embedded and ready for block 0.

    ``workspace`` is as of :func:`choose_store`.
    """
    store = choose_store(model, windows.numel(), workspace)
    size = max(tokens_in_flight(model, store) // windows.shape[1], 1)
    batches: list[Batch] = []
    # Nothing is padded: what blocks are given besides hidden states depends on the shape alone,
    # but for a few architectures that look at the tokens again (Gemma 4).
    arguments: dict[int, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
    for tokens in windows.split(size):
        inputs = model.block_inputs(tokens)
        shared = arguments.setdefault(len(tokens), inputs.arguments)
        own = shared if _same(shared, inputs.arguments) else inputs.arguments
        batches.append(Batch(to_store(inputs.hidden, store), own))
    return batches


def _same(one: Any, other: Any) -> bool:
    """Whether two batches may share arguments: equal, with nothing in them to write to."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one) is type(other) is dict:  # a block's keywords; other mappings may be state
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return isinstance(one, str | int | float) and bool(one == other)


@torch.inference_mode()
def run_blocks(model: StreamedModel, batches: list[Batch], progress: Progress) -> None:
    """Take every batch through every block; its hidden states end up as the last block's output."""
    for index in range(model.n_blocks):
        with model.block(index) as block, fused(block):
            peaks = [batch.advance(block, index) for batch in batches]
        check_finite(peaks, f"{model.folder.name}, block {index}")
        progress.step()


@torch.inference_mode()
def window_losses(model: StreamedModel, windows: Tensor) -> Tensor:
    """Mean cross-entropy of each window's predicted tokens (all but the first).

    Args:
        model: dense or pruned.
        windows: int64 [n, length].

    Returns:
        float64 [n], in nats per token, on the host.
    """
    progress = Progress("perplexity", _steps(model, windows), "blocks")
    losses = []
    for sweep in windows.split(max(TOKENS_IN_A_SWEEP // windows.shape[1], 1)):
        batches = batches_of(model, sweep)
        run_blocks(model, batches, progress)
        targets = sweep.split([len(batch.hidden) for batch in batches])
        for batch, tokens in zip(batches, targets, strict=True):
            for hidden, row in zip(batch.hidden, tokens, strict=True):
                parts = [
                    functional.cross_entropy(logits, wanted, reduction="none")
                    for logits, wanted in _logits_by_rows(model, hidden[:-1], row[1:])
                ]
                losses.append(torch.cat(parts).double().mean().cpu())
    return torch.stack(losses)


def _steps(model: StreamedModel, windows: Tensor) -> int:
    sweeps = len(windows.split(max(TOKENS_IN_A_SWEEP // windows.shape[1], 1)))
    return sweeps * model.n_blocks


Request = tuple[list[int], list[int]]
"""Tokens of a context, and tokens of a continuation of it."""


@torch.inference_mode()
def score_continuations(
    model: StreamedModel, requests: Sequence[Request]
) -> list[tuple[float, bool]]:
    """Log-likelihood of each continuation after its context.

    Sequences are sorted by length and padded on the right, which attention that looks back only
    never sees. Equal requests are scored once.

    Returns:
        for each request, in order: the sum of the log-probabilities (nats), and whether each
        token of the continuation is the likeliest one.
    """
    unique = list({(tuple(c), tuple(t)): None for c, t in requests})
    unique.sort(key=lambda request: len(request[0]) + len(request[1]), reverse=True)
    sweeps = list(_sweeps(unique))
    progress = Progress("zero-shot", len(sweeps) * model.n_blocks, "blocks")
    scores: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, bool]] = {}
    for sweep in sweeps:
        store = choose_store(model, sum(len(_sequence(request)) for request in sweep))
        groups = list(_padded_batches(sweep, tokens_in_flight(model, store)))
        batches = []
        for group in groups:
            inputs = model.block_inputs(_pad(group))
            batches.append(Batch(to_store(inputs.hidden, store), inputs.arguments))
        run_blocks(model, batches, progress)
        for group, batch in zip(groups, batches, strict=True):
            scores.update(zip(group, _score_group(model, group, batch.hidden), strict=True))
    return [scores[tuple(c), tuple(t)] for c, t in requests]


Key = tuple[tuple[int, ...], tuple[int, ...]]


def _sequence(request: Key) -> list[int]:
    """What the model reads: everything but the last token, which is only predicted."""
    return [*request[0], *request[1]][:-1]


def _sweeps(requests: list[Key]) -> list[list[Key]]:
    sweeps: list[list[Key]] = []
    tokens = TOKENS_IN_A_SWEEP
    for request in requests:
        if tokens + len(_sequence(request)) > TOKENS_IN_A_SWEEP:
            sweeps.append([])
            tokens = 0
        sweeps[-1].append(request)
        tokens += len(_sequence(request))
    return sweeps


def _padded_batches(requests: list[Key], tokens: int) -> list[list[Key]]:
    """Neighbours in length together; the first, which is the longest, sets the batch's width."""
    batches: list[list[Key]] = []
    room = 0
    for request in requests:
        if room == 0:
            batches.append([])
            room = max(tokens // len(_sequence(request)), 1)
        batches[-1].append(request)
        room -= 1
    return batches


def _pad(group: list[Key]) -> Tensor:
    """int64 [batch, length of the longest], padded on the right with zeros."""
    sequences = [torch.tensor(_sequence(request)) for request in group]
    return nn.utils.rnn.pad_sequence(sequences, batch_first=True)


def _score_group(
    model: StreamedModel, group: list[Key], hidden: Tensor
) -> list[tuple[float, bool]]:
    """Score one batch from its final hidden states [batch, length, hidden]."""
    rows, targets = [], []
    for request, states in zip(group, hidden, strict=True):
        end, count = len(_sequence(request)), len(request[1])
        rows.append(states[end - count : end])
        targets.append(torch.tensor(request[1]))
    losses, greedy = [], []
    for logits, wanted in _logits_by_rows(model, torch.cat(rows), torch.cat(targets)):
        losses.append(functional.cross_entropy(logits, wanted, reduction="none"))
        greedy.append(logits.argmax(-1) == wanted)
    sizes = [len(t) for t in targets]
    scored = torch.cat(losses).double().cpu(), torch.cat(greedy).cpu()
    return [
        (-float(loss.sum()), bool(hit.all()))
        for loss, hit in zip(*(part.split(sizes) for part in scored), strict=True)
    ]


def _logits_by_rows(
    model: StreamedModel, hidden: Tensor, targets: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Float32 logits [some, vocabulary] and target tokens [some] of rows [rows, hidden]."""
    rows = max(LOGITS_AT_ONCE // model.vocabulary, 1)
    for some, wanted in zip(hidden.split(rows), targets.to(model.device).split(rows), strict=True):
        yield model.logits(some).float(), wanted
