"""What requests share is computed once: the requests of a question as a tree of tokens.

The choices of a question follow the same context, and the two sentences of WinoGrande begin alike.
What several begin with stands in their tree once. Trees lie in rows, one behind the other; a token
sees those on its way from the root, and stands at its depth. In depth-first order a node's
descendants are the nodes from itself up to its ``end``, so that whom a token sees is one
comparison: ``j <= i < end[j]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dass.data.token_file import load_tokens
from dass.errors import DataError
from dass.evaluation.requests import Request

ALIGNED = 8
"""Rows' lengths are multiples of it: attention kernels ask for that."""

LARGEST = 4
"""A tree takes at most so many rows' length, however much its requests have in common."""

SHORTEST, LONGEST = 128, 512
"""Tokens of a row: half of the hidden size within these bounds, so that attention costs little."""

DIVISIONS = (
    *((share, 0.0, share) for share in (0.2, 0.3, 0.4)),
    *((1.0, kept, 0.05) for kept in (0.03, 0.06, 0.1)),
)
"""Questions that begin alike share a tree up to a share of a row: the larger, the more is shared;
the smaller, the better rows fill. Here that share; the share of all tokens, in the smallest
questions, that is kept to fill rows with; and the share of a row for trees of those. Of these
divisions the one that comes to fewest rows is taken."""

ALIKE = 4
"""Requests that begin with more tokens alike than these become one tree: not all with BOS."""


@dataclass(frozen=True)
class Tree:
    """Requests that share what they begin with; nodes in depth-first order."""

    tokens: list[int]
    depths: list[int]
    """How many tokens come before a node's on its way from the root."""
    ends: list[int]
    """The first node behind a node's descendants."""
    places: list[list[int]]
    """Of each request: the nodes after which its continuation's tokens come."""


@dataclass(frozen=True)
class Rows:
    """Trees in rows of equal length; what is left of a row sees itself only."""

    tokens: Tensor
    """int64 [rows, length]."""
    depths: Tensor
    """int64 [rows, length]."""
    ends: Tensor
    """int64 [rows, length]: the first place of the row behind a token's descendants."""
    places: Tensor
    """int64 [targets]: where in all rows, counted through, a continuation's next token follows."""
    targets: Tensor
    """int64 [targets]: that token. Requests one after the other, in their order."""
    counts: list[int]
    """How many targets each request has."""

    def save(self) -> dict[str, Tensor]:
        """As tensors of a token file, for :func:`load_rows`."""
        counts = torch.tensor(self.counts)
        return {PREFIX + name: value for name, value in (vars(self) | {"counts": counts}).items()}

    def mask(self, rows: slice, device: torch.device) -> Tensor:
        """bool [rows, 1, length, length]: whom each token sees."""
        ends = self.ends[rows].to(device)
        place = torch.arange(ends.shape[1], device=device)
        back = place.unsqueeze(1) >= place
        return (back & (place.unsqueeze(1) < ends.unsqueeze(1))).unsqueeze(1)


PREFIX = "rows."
"""Of the names of rows' tensors in a file."""


def load_rows(path: str | Path) -> Rows:
    """The rows of a model's requests.

    Raises:
        DataError: the file is missing, damaged, or has none.
    """
    saved = load_tokens(path)
    try:
        columns = {field.name: saved[PREFIX + field.name] for field in fields(Rows)}
    except KeyError as error:
        raise DataError(f"{path}: holds no {error.args[0]}; delete it, run again") from None
    return Rows(**columns | {"counts": columns["counts"].tolist()})  # type: ignore[arg-type]


def row_length(hidden_size: int) -> int:
    """How many tokens a row has, for a model of that width."""
    return min(max(hidden_size // 2, SHORTEST), LONGEST)


def grow(requests: Sequence[Request]) -> Tree:
    """The tree of requests; what a model reads of each is all but its last token."""
    read = [[*context, *continuation][:-1] for context, continuation in requests]
    tree = Tree([], [], [], [[] for _ in requests])
    path, before = list[int](), list[int]()
    # In lexical order those that begin alike are neighbours, shorter ones first: depth first.
    for number in sorted(range(len(requests)), key=read.__getitem__):
        sequence = read[number]
        shared = _common(before, sequence)
        size = len(tree.tokens)
        for node in path[shared:]:
            tree.ends[node] = size
        path[shared:] = range(size, size + len(sequence) - shared)
        tree.tokens.extend(sequence[shared:])
        tree.depths.extend(range(shared, len(sequence)))
        tree.ends.extend(path[shared:])  # until the end is known
        tree.places[number] = path[len(requests[number][0]) - 1 :]
        before = sequence
    for node in path:
        tree.ends[node] = len(tree.tokens)
    return tree


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two sequences begin with alike; by halves, since lists compare fast."""
    alike, most = 0, min(len(one), len(other))
    while alike < most:
        middle = (alike + most + 1) // 2
        if one[alike:middle] == other[alike:middle]:
            alike = middle
        else:
            most = middle - 1
    return alike


def lay_out(requests: Sequence[Request], length: int) -> Rows:
    """The trees of requests, the largest first, each in the row that it leaves least room in.

    Args:
        requests: in any order, those of a question one after the other; of equal ones all have the
            places of one.
        length: of the rows in tokens, unless a tree has more.
    """
    keys = [(*context, _BREAK, *continuation) for context, continuation in requests]
    unique = dict(zip(keys, requests, strict=True))
    number_of = {key: number for number, key in enumerate(unique)}
    once = list(unique.values())
    alone = _families(once, length)
    length = -(-max(length, *(family.tokens for family in alone)) // ALIGNED) * ALIGNED
    trees, starts, count = min(
        (_lay(once, _divided(alone, length, *division), length) for division in DIVISIONS),
        key=lambda laid: laid[2],
    )
    tokens, depths = (np.zeros(count * length, dtype=np.int64) for _ in range(2))
    ends = np.tile(np.arange(1, length + 1), count)
    places: list[Any] = [None] * len(once)
    for (numbers, tree), start in zip(trees, starts, strict=True):
        own = slice(start, start + len(tree.tokens))
        tokens[own], depths[own] = tree.tokens, tree.depths
        ends[own] = np.asarray(tree.ends) + start % length
        for number, place in zip(numbers, tree.places, strict=True):
            places[number] = np.asarray(place) + start
    return Rows(
        torch.from_numpy(tokens).view(count, length),
        torch.from_numpy(depths).view(count, length),
        torch.from_numpy(ends).view(count, length),
        places=torch.from_numpy(np.concatenate([places[number_of[key]] for key in keys])),
        targets=torch.tensor([token for _, continuation in requests for token in continuation]),
        counts=[len(continuation) for _, continuation in requests],
    )


_BREAK = -1
"""Between context and continuation, where they are one key: no token."""


@dataclass(frozen=True)
class _Family:
    """Requests that follow each other and begin alike: a question's choices, as a rule."""

    numbers: range
    first: list[int]
    """What is read of the first of them."""
    tokens: int
    """How many their tree has."""


def _families(requests: Sequence[Request], most: int) -> list[_Family]:
    """Neighbours that begin alike. Any division gives the same scores."""
    families: list[_Family] = []
    start = size = 0
    before: list[int] = []
    first: list[int] = []
    for number, (context, continuation) in enumerate(requests):
        read = [*context, *continuation][:-1]
        shared = _common(before, read)
        grown = size + len(read) - shared
        # Beyond a row a tree grows only while most of a request is there already.
        large = grown > most and 2 * shared < len(read)
        if number and (shared <= ALIKE or large or grown > LARGEST * most):
            families.append(_Family(range(start, number), first, size))
            start, size, shared = number, 0, 0
        if size == 0:
            first = read
        size += len(read) - shared
        before = read
    return [*families, _Family(range(start, len(requests)), first, size)]


def _divided(
    families: Sequence[_Family], length: int, share: float, kept: float, share_of_kept: float
) -> list[list[int]]:
    """The requests of each tree, by one of :data:`DIVISIONS`."""
    by_size = sorted(range(len(families)), key=lambda number: families[number].tokens)
    sums = accumulate(families[number].tokens for number in by_size)
    room = kept * sum(family.tokens for family in families)
    small = {number for number, total in zip(by_size, sums, strict=True) if total <= room}
    large = [family for number, family in enumerate(families) if number not in small]
    fill = [family for number, family in enumerate(families) if number in small]
    return _together(large, int(share * length)) + _together(fill, int(share_of_kept * length))


def _together(families: Sequence[_Family], most: int) -> list[list[int]]:
    """Families that begin alike, as with "Question:", in one tree of at most so many tokens.

    A family that is larger is a tree of its own.
    """
    trees: list[list[int]] = []
    size = 0
    before = list[int]()
    for family in sorted(families, key=lambda family: family.first):
        alike = _common(before, family.first)
        if alike and size + family.tokens - alike <= most:
            trees[-1] += family.numbers
            size += family.tokens - alike
        else:
            trees.append([*family.numbers])
            size = family.tokens
        before = family.first
    return trees


def _lay(
    requests: Sequence[Request], trees: Sequence[list[int]], length: int
) -> tuple[list[tuple[list[int], Tree]], list[int], int]:
    """Trees with the requests of each, where each starts, counted through, and how many rows."""
    grown = [(own, grow([requests[number] for number in own])) for own in trees]
    return grown, *_fill([len(tree.tokens) for _, tree in grown], length)


def _fill(sizes: Sequence[int], length: int) -> tuple[list[int], int]:
    """Where each part starts in rows of this length, counted through; and how many rows."""
    starts, used = [0] * len(sizes), list[int]()
    open_rows: dict[int, list[int]] = {}  # room -> rows that have so much left
    for number in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        size = sizes[number]
        room = min((room for room in open_rows if room >= size), default=None)
        if room is None:
            row = len(used)
            used.append(0)
            room = length
        else:
            row = open_rows[room].pop()
            if not open_rows[room]:
                del open_rows[room]
        starts[number] = row * length + used[row]
        used[row] += size
        if room > size:
            open_rows.setdefault(room - size, []).append(row)
    return starts, len(used)
