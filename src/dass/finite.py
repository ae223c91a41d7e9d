"""Whether numbers are finite, in one pass and without a copy."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def largest(x: Tensor) -> Tensor:
    """The largest absolute value of a tensor that is not empty, []: NaN where any entry is.

    It is finite only where every entry is, and stays on the device: nothing waits for it.
    """
    found: Tensor = torch.linalg.vector_norm(x, ord=math.inf)
    return found


def all_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite; waits for the device."""
    return bool(largest(x).isfinite())
