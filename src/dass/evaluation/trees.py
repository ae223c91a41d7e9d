"""What requests share is computed once: the requests of a question as a tree of tokens.

The choices of a question follow the same context, and the two sentences of WinoGrande begin alike.
What several begin with stands in their tree once. Trees lie in rows, one behind the other; a token
sees those on its way from the root, and stands at its depth. In depth-first order a node's
descendants are the nodes from itself up to its ``end``, so that whom a token sees is one
comparison: ``j <= i < end[j]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dass.evaluation.requests import Request

ALIGNED = 8
"""Rows' lengths are multiples of it: attention kernels ask for that."""

LARGEST = 4
"""A tree takes at most so many rows' length, however much its requests have in common."""

SHARES = (0.2, 0.3, 0.4)
"""Questions that begin alike share a tree up to one of these shares of a row: the larger, the more
is shared; the smaller, the better rows fill. What comes to fewest rows is taken."""

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

    def mask(self, rows: slice, device: torch.device) -> Tensor:
        """bool [rows, 1, length, length]: whom each token sees."""
        ends = self.ends[rows].to(device)
        place = torch.arange(ends.shape[1], device=device)
        back = place.unsqueeze(1) >= place
        return (back & (place.unsqueeze(1) < ends.unsqueeze(1))).unsqueeze(1)


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
        requests: in any order, those of a question one after the other.
        length: of the rows in tokens, unless a tree has more.
    """
    alone = _families(requests, length)
    length = -(-max(length, *(size for _, size in alone)) // ALIGNED) * ALIGNED
    divisions = [_together(requests, alone, int(share * length)) for share in SHARES]
    families = min(divisions, key=lambda trees: _fill([size for _, size in trees], length)[1])
    trees = [grow([requests[number] for number in own]) for own, _ in families]
    sizes = [len(tree.tokens) for tree in trees]
    starts, rows = _fill(sizes, length)
    tokens, depths = (np.zeros(rows * length, dtype=np.int64) for _ in range(2))
    ends = np.tile(np.arange(1, length + 1), rows)
    for tree, start, size in zip(trees, starts, sizes, strict=True):
        own = slice(start, start + size)
        tokens[own], depths[own] = tree.tokens, tree.depths
        ends[own] = np.asarray(tree.ends) + start % length
    places: list[Any] = [None] * len(requests)
    for (numbers, _), tree, start in zip(families, trees, starts, strict=True):
        for number, place in zip(numbers, tree.places, strict=True):
            places[number] = np.asarray(place) + start
    return Rows(
        torch.from_numpy(tokens).view(rows, length),
        torch.from_numpy(depths).view(rows, length),
        torch.from_numpy(ends).view(rows, length),
        places=torch.from_numpy(np.concatenate(places)),
        targets=torch.tensor([token for _, continuation in requests for token in continuation]),
        counts=[len(continuation) for _, continuation in requests],
    )


def _families(requests: Sequence[Request], most: int) -> list[tuple[range, int]]:
    """Neighbours that begin alike: a question's choices, as a rule. Any division gives the same.

    Returns:
        the requests of each family, and how many tokens its tree has.
    """
    families: list[tuple[range, int]] = []
    start = size = 0
    before: list[int] = []
    for number, (context, continuation) in enumerate(requests):
        read = [*context, *continuation][:-1]
        shared = _common(before, read)
        grown = size + len(read) - shared
        # Beyond a row a tree grows only while most of a request is there already.
        large = grown > most and 2 * shared < len(read)
        if number and (shared <= ALIKE or large or grown > LARGEST * most):
            families.append((range(start, number), size))
            start, size, shared = number, 0, 0
        size += len(read) - shared
        before = read
    return [*families, (range(start, len(requests)), size)]


def _together(
    requests: Sequence[Request], families: Sequence[tuple[range, int]], most: int
) -> list[tuple[list[int], int]]:
    """Small families that begin alike, as with "Question:", in one tree of so many tokens.

    Returns:
        the requests of each tree, and how many tokens it has at most.
    """
    first = [[*requests[own[0]][0], *requests[own[0]][1]][:-1] for own, _ in families]
    trees: list[tuple[list[int], int]] = []
    before = list[int]()
    for number in sorted(range(len(families)), key=first.__getitem__):
        own, tokens = families[number]
        alike = _common(before, first[number])
        if alike and (size := trees[-1][1] + tokens - alike) <= most:
            trees[-1] = trees[-1][0] + [*own], size
        else:
            trees.append(([*own], tokens))
        before = first[number]
    return trees


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
