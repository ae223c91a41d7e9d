"""Log-likelihoods of continuations, each context computed once for all that follow it.

Requests lie as trees in rows (:mod:`dass.evaluation.trees`), and each block, by the model's own
code, is told where a token stands and whom it sees. Not every architecture can be told: recurrent
blocks see all that lies before, sliding windows count places. So it is tried on the model itself,
block by block, and where the answer differs, each request is scored apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dass.evaluation.likelihood import log_probabilities, rows_at_once, score_apart
from dass.evaluation.requests import LogLikelihood, Request
from dass.evaluation.trees import Rows, lay_out, row_length
from dass.models.attention import offload
from dass.models.batches import (
    Batch,
    LateCheck,
    choose_offload,
    tokens_in_a_sweep,
    tokens_in_flight,
)
from dass.models.fused import fused
from dass.models.streamed import StreamedModel
from dass.runtime.progress import Progress, log

LEAST_TOLERANCE = 1e-4
"""By how much, relative to its norm, a block's output may differ between a row and a request
alone; in half precision, by twice its epsilon."""


class _Apart(Exception):
    """The model cannot be told whom a token sees; why."""


def score_continuations(
    model: StreamedModel, requests: Sequence[Request], rows: Rows | None = None
) -> list[LogLikelihood]:
    """Log-likelihood of each continuation after its context; equal requests are scored once.

    Args:
        model: dense or pruned.
        requests: what it is asked.
        rows: how the requests lie, as a model's requests are saved; None: found out here.

    Returns:
        for each request, in order: the sum of the log-probabilities (nats), and whether each
        token of the continuation is the likeliest one.
    """
    if not requests:
        return []
    if rows is None:
        rows = lay_out(requests, row_length(model.hidden_size))
    try:
        return _score_together(model, rows)
    except _Apart as reason:
        log.info("%s: requests are scored apart: %s", model.folder.name, reason)
        return score_apart(model, requests)


@torch.inference_mode()
def _score_together(model: StreamedModel, rows: Rows) -> list[LogLikelihood]:
    _check_sees_all(model, rows)
    length = rows.tokens.shape[1]
    sweep = max(tokens_in_a_sweep(model, length * _mask_dtype(model).itemsize) // length, 1)
    sweeps = torch.arange(len(rows.tokens)).split(sweep)
    progress = Progress("zero-shot", len(sweeps) * model.n_blocks, "blocks")
    targets = _Targets(rows)
    for part in sweeps:
        offload_to = choose_offload(model, len(part) * length)
        at_once = max(tokens_in_flight(model, offload_to) // length, 1)
        own = [slice(int(some[0]), int(some[-1]) + 1) for some in part.split(at_once)]
        batches = [_batch(model, rows, some, offload_to) for some in own]
        trial = _Trial(model, rows, part) if part is sweeps[0] else None
        check = LateCheck(model)
        for index in range(model.n_blocks):
            with model.block(index) as block, fused(block):
                alone = trial.run_alone(block, index, batches) if trial is not None else None
                peaks = [batch.advance(block, index) for batch in batches]
                if trial is not None and alone is not None:
                    trial.compare(alone, index, batches)
            check.block(index, peaks)
            progress.step()
        check.end()
        if trial is not None:
            trial.end()
        for some, batch in zip(own, batches, strict=True):
            targets.score(model, some, batch.hidden)
    return targets.by_request()


def _batch(model: StreamedModel, rows: Rows, some: slice, offload_to: torch.device) -> Batch:
    """Some of the rows, ready for block 0."""
    mask = rows.mask(some, model.device)
    if (dtype := _mask_dtype(model)) != torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
            ~mask, torch.finfo(dtype).min
        )
    inputs = _told(model, rows.tokens[some], rows.depths[some].to(model.device), mask)
    return Batch(offload(inputs.hidden, offload_to), inputs.arguments)


def _told(model: StreamedModel, tokens: Tensor, depths: Tensor, mask: Tensor) -> Any:
    """What blocks are given; refused where one of them is not given the mask."""
    try:
        inputs = model.block_inputs(tokens, position_ids=depths, attention_mask=mask)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        raise _Apart(f"its forward takes no mask of our own ({type(error).__name__})") from None
    equal: dict[int, bool] = {}  # blocks are given one tensor, as a rule: comparing them waits
    for index, (_, settings) in enumerate(inputs.arguments):
        given = settings.get("attention_mask")
        if id(given) not in equal:
            equal[id(given)] = (
                isinstance(given, Tensor)
                and given.shape == mask.shape
                and not bool(given.ne(mask).any())
            )
        if not equal[id(given)]:
            raise _Apart(f"block {index} is not given our mask")
    return inputs


def _mask_dtype(model: StreamedModel) -> torch.dtype:
    """What the model's attention takes: scaled_dot_product_attention true or false, else terms."""
    kind = getattr(model.model.config, "_attn_implementation", None)
    return torch.bool if kind == "sdpa" else model.dtype


def _check_sees_all(model: StreamedModel, rows: Rows) -> None:
    """Refuse models in which the last token of the longest request does not see its first one.

    And those that turn all positions otherwise beyond a length: here lengths share rows.
    """
    longest = _sequence_to(rows, int(rows.depths.argmax()))[1]
    if any(change < len(longest) for change in model.rope_changes):
        raise _Apart(f"positions change with the length, and one has {len(longest)} tokens")
    inputs = model.block_inputs(longest.unsqueeze(0))
    for index, (_, settings) in enumerate(inputs.arguments):
        mask = settings.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 4:
            seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
            if not seen[0, 0].tril().eq(torch.ones_like(seen[0, 0]).tril()).all():
                raise _Apart(f"block {index} does not look back {len(longest)} tokens")


def _sequence_to(rows: Rows, place: int) -> tuple[Tensor, Tensor]:
    """What a place, counted through, sees: where it stands in its row, and the tokens."""
    row, column = divmod(place, rows.tokens.shape[1])
    seen = rows.mask(slice(row, row + 1), torch.device("cpu"))[0, 0, column].nonzero()[:, 0]
    return seen, rows.tokens[row, seen]


class _Trial:
    """One request of the rows, alone: each block must make the same of it.

    The one that lies behind the most tokens that it must not see.
    """

    def __init__(self, model: StreamedModel, rows: Rows, part: Tensor) -> None:
        length = rows.tokens.shape[1]
        last = rows.places[torch.tensor(rows.counts).cumsum(0) - 1]
        foreign = last % length - rows.depths.flatten()[last]
        foreign[(last // length < part[0]) | (last // length > part[-1])] = -1
        place = int(last[foreign.argmax()])
        self._row = place // length - int(part[0])
        self._seen, tokens = _sequence_to(rows, place)
        self._arguments = model.block_inputs(tokens.unsqueeze(0)).arguments
        self._differences: list[tuple[int, Tensor]] = []
        self._tolerance = max(2 * torch.finfo(model.dtype).eps, LEAST_TOLERANCE)

    def run_alone(self, block: nn.Module, index: int, batches: list[Batch]) -> Tensor:
        """What a block makes of the request alone."""
        return Batch(self._states(batches), self._arguments).run(block, index)

    def compare(self, alone: Tensor, index: int, batches: list[Batch]) -> None:
        """Note whether the block has made something else of it among others.

        The first block that can do so is refused at once; the others at the end, since to look at
        a number waits for the device.
        """
        found = self._states(batches).to(alone.device)
        difference = (found.float() - alone.float()).norm() / alone.float().norm()
        self._differences.append((index, difference))
        if index == 0 or not alone.is_cuda:
            self.end()

    def end(self) -> None:
        """Refuse the model if a block has."""
        for index, difference in self._differences:
            if not float(difference) <= self._tolerance:
                what = f"differs by {float(difference):.1e} from a request alone"
                raise _Apart(f"block {index} {what}")
        self._differences.clear()

    def _states(self, batches: list[Batch]) -> Tensor:
        row = self._row
        for batch in batches:
            if row < len(batch.hidden):
                return batch.hidden[row : row + 1, self._seen.to(batch.hidden.device)]
            row -= len(batch.hidden)
        raise IndexError(row)


class _Targets:
    """The log-probability of each token of each continuation, found row by row."""

    def __init__(self, rows: Rows) -> None:
        self._length = rows.tokens.shape[1]
        self._counts = np.asarray(rows.counts)
        self._places, self._order = rows.places.sort(stable=True)
        self._tokens = rows.targets[self._order]
        self._logs = torch.empty(len(self._tokens), dtype=torch.float64)
        self._likeliest = torch.empty(len(self._tokens), dtype=torch.bool)

    def score(self, model: StreamedModel, some: slice, hidden: Tensor) -> None:
        """Note the targets of some rows, given their last hidden states."""
        ends = torch.tensor([some.start * self._length, some.stop * self._length])
        own = slice(*torch.searchsorted(self._places, ends).tolist())
        places, which = self._places[own].unique_consecutive(return_inverse=True)
        states = hidden.flatten(0, 1)[(places - ends[0]).to(hidden.device)]
        tokens, which = self._tokens[own].to(model.device), which.to(model.device)
        at_once = rows_at_once(model)
        logs, likeliest = [], []
        for start in range(0, len(states), at_once):
            mine = (which >= start) & (which < start + at_once)
            logits = model.logits(states[start : start + at_once])
            found = log_probabilities(logits, which[mine] - start, tokens[mine])
            logs.append(found[0].double())
            likeliest.append(found[1])
        if logs:
            order = self._order[own]
            self._logs[order] = torch.cat(logs).cpu()
            self._likeliest[order] = torch.cat(likeliest).cpu()

    def by_request(self) -> list[LogLikelihood]:
        """Of each request: the sum over its continuation, and whether each token is likeliest."""
        starts = self._counts.cumsum() - self._counts
        sums = np.add.reduceat(self._logs.numpy(), starts).tolist()
        hits = np.logical_and.reduceat(self._likeliest.numpy(), starts).tolist()
        return list(zip(sums, hits, strict=True))
