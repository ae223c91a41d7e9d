"""Cross-entropy of windows, and log-likelihoods of continuations, through a streamed model."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from dass.evaluation.requests import LogLikelihood, Request
from dass.models.attention import offload
from dass.models.batches import (
    Batch,
    batches_of,
    choose_offload,
    run_blocks,
    tokens_in_a_sweep,
    tokens_in_flight,
)
from dass.models.numerics import HALF, kernels_take
from dass.models.streamed import StreamedModel
from dass.runtime.progress import Progress

LOGITS_AT_ONCE = 1 << 28
"""How many logits a GPU holds at once (512 MiB in half precision); a CPU half as many."""

WHOLE_TILES = 256
"""Rows of logits are computed in multiples of it, which wastes nothing of a GPU's product."""


def window_losses(model: StreamedModel, windows: Tensor) -> Tensor:
    """Those of a single text; see :func:`text_losses`."""
    return text_losses(model, [windows])[0]


@torch.inference_mode()
def text_losses(model: StreamedModel, texts: Sequence[Tensor]) -> list[Tensor]:
    """Mean cross-entropy of each window's predicted tokens (all but the first).

    No batch holds windows of two texts, so that a text's losses are those that it has alone. Blocks
    that do not stay in memory are read for as many texts at once as there is room for.

    Args:
        model: dense or pruned.
        texts: int64 [n, length] each.

    Returns:
        for each text float64 [n], in nats per token, on the host.
    """
    sweeps = _text_sweeps(texts, tokens_in_a_sweep(model), together=not model.resident)
    progress = Progress("perplexity", len(sweeps) * model.n_blocks, "blocks")
    losses: list[list[Tensor]] = [[] for _ in texts]
    for sweep in sweeps:
        batches = [batches_of(model, windows) for _, windows in sweep]
        run_blocks(model, [batch for own in batches for batch in own], progress)
        for (text, windows), own in zip(sweep, batches, strict=True):
            targets = windows.split([len(batch.hidden) for batch in own])
            for batch, tokens in zip(own, targets, strict=True):
                # Of all windows at once: nothing waits for the GPU between two of them.
                hidden, wanted = batch.hidden[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
                parts = [_logs_of_rows(*some)[0] for some in _logits_by_rows(model, hidden, wanted)]
                losses[text].append(-torch.cat(parts).view(len(tokens), -1).double().mean(dim=1))
    return [torch.cat(own).cpu() for own in losses]


def _text_sweeps(
    texts: Sequence[Tensor], limit: int, together: bool
) -> list[list[tuple[int, Tensor]]]:
    """Each text's number and windows, in parts of at most ``limit`` tokens, one or more a sweep."""
    sweeps: list[list[tuple[int, Tensor]]] = []
    room = 0
    for text, windows in enumerate(texts):
        for part in windows.split(max(limit // windows.shape[1], 1)):
            if not together or part.numel() > room:
                sweeps.append([])
                room = limit
            sweeps[-1].append((text, part))
            room -= part.numel()
    return sweeps


def log_probabilities(logits: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens, in float32 whatever the logits' dtype.

    Args:
        logits: [some, vocabulary].
        rows: int64 [n], the row that predicts each token.
        tokens: int64 [n].

    Returns:
        float32 [n]; and bool [n], whether each is the likeliest token of its row.
    """
    best, logs = _likeliest(logits)
    best, logs = best[rows], logs[rows]
    return logs + (logits[rows, tokens].float() - logits[rows, best].float()), tokens == best


def _likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest token of each row, int64, and its log-probability, float32."""
    if kernels_take(logits, *HALF):
        from dass.models.fused_triton import likeliest

        return likeliest(logits)
    wide = logits.float()
    top = wide.max(dim=1)
    return top.indices, top.values - wide.logsumexp(1)


def _logs_of_rows(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`log_probabilities` of one token for each row."""
    return log_probabilities(logits, torch.arange(len(tokens), device=tokens.device), tokens)


@torch.inference_mode()
def score_apart(model: StreamedModel, requests: Sequence[Request]) -> list[LogLikelihood]:
    """Log-likelihood of each continuation after its context, each request for itself.

    Sequences are sorted by length and padded on the right, which attention that looks back only
    never sees; but where the batch's length decides about positions (LongRoPE), none is padded
    beyond a length at which they change. Equal requests are scored once.

    Returns:
        for each request, in order: the sum of the log-probabilities (nats), and whether each
        token of the continuation is the likeliest one.
    """
    unique = list({(tuple(c), tuple(t)): None for c, t in requests})
    unique.sort(key=lambda request: len(request[0]) + len(request[1]), reverse=True)
    sweeps = _sweeps(unique, tokens_in_a_sweep(model))
    progress = Progress("zero-shot", len(sweeps) * model.n_blocks, "blocks")
    scores: dict[Tokens, LogLikelihood] = {}
    for sweep in sweeps:
        offload_to = choose_offload(model, sum(len(_sequence(request)) for request in sweep))
        at_once = tokens_in_flight(model, offload_to)
        groups = list(_padded_batches(sweep, at_once, model.rope_changes))
        batches = []
        for group in groups:
            inputs = model.block_inputs(_pad(group))
            batches.append(Batch(offload(inputs.hidden, offload_to), inputs.arguments))
        run_blocks(model, batches, progress)
        for group, batch in zip(groups, batches, strict=True):
            scores.update(zip(group, _score_group(model, group, batch.hidden), strict=True))
    return [scores[tuple(c), tuple(t)] for c, t in requests]


Tokens = tuple[tuple[int, ...], tuple[int, ...]]
"""A request that can be looked up."""


def _sequence(request: Tokens) -> list[int]:
    """What the model reads: everything but the last token, which is only predicted."""
    return [*request[0], *request[1]][:-1]


def _sweeps(requests: list[Tokens], limit: int) -> list[list[Tokens]]:
    """Requests in parts of at most so many tokens."""
    sweeps: list[list[Tokens]] = []
    tokens = limit
    for request in requests:
        if tokens + len(_sequence(request)) > limit:
            sweeps.append([])
            tokens = 0
        sweeps[-1].append(request)
        tokens += len(_sequence(request))
    return sweeps


def _padded_batches(
    requests: list[Tokens], tokens: int, changes: Sequence[int]
) -> list[list[Tokens]]:
    """Neighbours in length together; the first, which is the longest, sets the batch's width.

    Args:
        requests: the longest first.
        tokens: how many a batch may have, padding included.
        changes: lengths across which no request is padded.
    """
    batches: list[list[Tokens]] = []
    room, shortest = 0, 0
    for request in requests:
        length = len(_sequence(request))
        if room == 0 or length < shortest:
            batches.append([])
            room = max(tokens // length, 1)
            shortest = max((change + 1 for change in changes if change < length), default=0)
        batches[-1].append(request)
        room -= 1
    return batches


def _pad(group: list[Tokens]) -> Tensor:
    """int64 [batch, length of the longest], padded on the right with zeros."""
    sequences = [torch.tensor(_sequence(request)) for request in group]
    return nn.utils.rnn.pad_sequence(sequences, batch_first=True)


def _score_group(model: StreamedModel, group: list[Tokens], hidden: Tensor) -> list[LogLikelihood]:
    """Score one batch from its final hidden states [batch, length, hidden]."""
    rows, targets = [], []
    for request, states in zip(group, hidden, strict=True):
        end, count = len(_sequence(request)), len(request[1])
        rows.append(states[end - count : end])
        targets.append(torch.tensor(request[1]))
    parts = _logits_by_rows(model, torch.cat(rows), torch.cat(targets))
    found = zip(*(_logs_of_rows(*part) for part in parts), strict=True)
    logs, hits = (torch.cat(part).cpu() for part in found)
    sizes = [len(t) for t in targets]
    return [
        (float(log.sum()), bool(hit.all()))
        for log, hit in zip(logs.double().split(sizes), hits.split(sizes), strict=True)
    ]


def rows_at_once(model: StreamedModel) -> int:
    """How many rows of logits are computed at once."""
    held = LOGITS_AT_ONCE if model.device.type == "cuda" else LOGITS_AT_ONCE // 2
    rows = max(held // model.vocabulary, 1)
    return rows // WHOLE_TILES * WHOLE_TILES or rows


def _logits_by_rows(
    model: StreamedModel, hidden: Tensor, targets: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [some, vocabulary] and target tokens [some] of rows [rows, hidden]."""
    rows = rows_at_once(model)
    for some, wanted in zip(hidden.split(rows), targets.to(model.device).split(rows), strict=True):
        yield model.logits(some), wanted
