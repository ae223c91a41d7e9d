"""Finite or not, by hand."""

from __future__ import annotations

import pytest
import torch

from dass.models.numerics import all_finite, max_abs

INF = float("inf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_absolute_value(dtype: torch.dtype) -> None:
    assert max_abs(torch.tensor([[1.0, -3.0], [2.0, 0.0]], dtype=dtype)).item() == 3.0


@pytest.mark.parametrize("bad", [float("nan"), INF, -INF])
@pytest.mark.parametrize("place", [0, 1234, 4999])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_one_bad_entry_is_seen_wherever_it_is(bad: float, place: int, dtype: torch.dtype) -> None:
    x = torch.full((5000,), 60000.0, dtype=dtype)  # their sum overflows float16, they do not
    assert all_finite(x)
    x[place] = bad
    assert not all_finite(x.view(50, 100))
