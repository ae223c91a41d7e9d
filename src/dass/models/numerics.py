"""Small facts about numbers and kernels: whether values are finite, and whether Triton can run.

Everything that the Triton kernels do PyTorch does too, in more passes: nothing but time depends on
them.
"""

import importlib.util
import math
from functools import cache

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def max_abs(x: Tensor) -> Tensor:
    """The largest absolute value of a non-empty tensor, []: NaN where any entry is.

    It is finite only where every entry is, and stays on the device: nothing waits for it.
    """
    found: Tensor = torch.linalg.vector_norm(x, ord=math.inf)
    return found


def all_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite; waits for the device."""
    return bool(max_abs(x).isfinite())


def kernels_take(tensor: Tensor, *dtypes: torch.dtype) -> bool:
    """Whether a tensor is on a GPU, of one of these dtypes, and Triton is installed."""
    return tensor.is_cuda and tensor.dtype in dtypes and _has_triton()


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
