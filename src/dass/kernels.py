"""Whether the Triton kernels can run: they need a GPU, and a PyTorch that came with Triton.

Everything that they do PyTorch does too, in more passes; so nothing depends on them but time.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def kernels_take(tensor: Tensor, *dtypes: torch.dtype) -> bool:
    """Whether a tensor is on a GPU, of one of these dtypes, and Triton is there."""
    return tensor.is_cuda and tensor.dtype in dtypes and _has_triton()


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
