"""N of 4 along both dimensions: of each 4 by 4 tile the mask whose scores have the largest sum.

A tile has few masks with N entries in every row and every column (24, 90, 24 of N = 1, 2, 3), so
that all are tried. W and Wᵀ then both fit kernels for N of 4.

Source: the transposable masks of Hubara et al., "Accelerated sparse neural training" (NeurIPS
2021), who find the best one by a minimum-cost flow or approximate it.
"""

from functools import cache
from itertools import combinations, product

import torch
from torch import Tensor

from dass.errors import NumericError
from dass.models.numerics import all_finite
from dass.pruning.patterns import TILE

CHUNK = 1 << 16
"""Tiles whose sums stand in memory together: 24 MB of them."""


@cache
def choices_of(kept: int) -> tuple[tuple[int, ...], ...]:
    """Sets of columns that a row of a tile may keep; those that leave early ones out come first."""
    columns = combinations(range(TILE), kept)
    return tuple(sorted(columns, key=lambda own: [column in own for column in range(TILE)]))


@cache
def masks_of(kept: int) -> tuple[tuple[int, ...], ...]:
    """Masks of a tile, a row each by its place in :func:`choices_of`; early entries go first."""
    choices = choices_of(kept)
    return tuple(
        rows
        for rows in product(range(len(choices)), repeat=TILE)
        if all(sum(c in choices[row] for row in rows) == kept for c in range(TILE))
    )


def best_of_tiles(scores: Tensor, kept: int, name: str) -> Tensor:
    """Keep mask of the tiles of ``scores``.

    Sums are of float32 in one order (float64 where the scores are), so that every device finds the
    same mask. Of masks with the same sum it is the one that prunes the earlier entries.

    Args:
        scores: [out, in], finite, both multiples of 4.
        kept: entries that every row and every column of a tile keep.
        name: what to call the matrix in an error.

    Returns:
        bool [out, in].

    Raises:
        NumericError: a sum of scores is beyond the numbers.
    """
    rows, columns = (size // TILE for size in scores.shape)
    wide = scores if scores.dtype == torch.float64 else scores.float()
    tiles = wide.reshape(rows, TILE, columns, TILE).transpose(1, 2).reshape(-1, TILE, TILE)
    choices = torch.tensor(choices_of(kept), device=scores.device)
    masks = torch.tensor(masks_of(kept), device=scores.device)
    in_row = torch.zeros(len(choices), TILE, dtype=torch.bool, device=scores.device)
    in_tile = in_row.scatter_(1, choices, True)[masks]
    found = torch.empty(len(tiles), TILE, TILE, dtype=torch.bool, device=scores.device)
    for chunk, out in zip(tiles.split(CHUNK), found.split(CHUNK), strict=True):
        best, place = _sums(chunk, choices, masks).max(1)
        if not all_finite(best):
            raise NumericError(
                f"{name}: scores of a tile add up beyond the largest number; let the method scale "
                "them down"
            )
        out.copy_(in_tile[place])
    return found.reshape(rows, columns, TILE, TILE).transpose(1, 2).reshape(scores.shape)


def _sums(tiles: Tensor, choices: Tensor, masks: Tensor) -> Tensor:
    """[tiles, masks]: what each mask keeps of each tile, [tiles, 4, 4]."""
    members = [tiles[:, :, column] for column in choices.t()]
    of_rows = members[0]
    for member in members[1:]:
        of_rows = of_rows + member
    first, second, third, fourth = (of_rows[:, row, masks[:, row]] for row in range(TILE))
    return (first + second) + (third + fourth)
