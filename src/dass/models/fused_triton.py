"""The kernels of :mod:`dass.models.fused`, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, form: int) -> Tensor:
    """RMS norm over the last dimension; the mean square is taken in float32.

    Args:
        x: [..., n], half precision, last dimension contiguous.
        weight: [n].
        epsilon: added to the mean square.
        form: 0: weight · round(x / rms), as LLaMA; 1: round(x / rms · (1 + weight)), as Gemma.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    n = x.shape[-1]
    width = triton.next_power_of_2(n)
    _rms_norm[(x.numel() // n,)](
        x, weight, out, n, epsilon, FORM=form, WIDTH=width, num_warps=8 if width > 2048 else 4
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _rms_norm(x, weight, out, n, epsilon, FORM: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDTH)
    inside = at < n
    value = tl.load(x + row * n + at, mask=inside, other=0.0)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / n + epsilon)
    w = tl.load(weight + at, mask=inside, other=0.0)
    if FORM == 0:
        result = w * (wide * scale).to(value.dtype)
    else:
        result = ((wide * scale) * (1.0 + w.to(tl.float32))).to(value.dtype)
    tl.store(out + row * n + at, result, mask=inside)


def rotary_fits(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether :func:`rotary` can take these: [batch, heads, length, d] with cos [1 or batch, …]."""
    return (
        q.dim() == k.dim() == 4
        and cos.dim() == 3
        and q.dtype == k.dtype == cos.dtype == sin.dtype
        and cos.shape == sin.shape
        and cos.shape[-1] == q.shape[-1] == k.shape[-1]
        and cos.shape[0] in (1, q.shape[0])
        and cos.shape[1] == q.shape[2] == k.shape[2]
        and (q.shape[-1] & (q.shape[-1] - 1)) == 0
        and q.stride(-1) == k.stride(-1) == cos.stride(-1) == sin.stride(-1) == 1
    )


def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Turn queries and keys [batch, heads, length, d]: x · cos + rotate_half(x) · sin."""
    return _turn(q, cos, sin), _turn(k, cos, sin)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    batch, heads, length, d = x.shape
    out = torch.empty_like(x)  # keeps the strides of a transposed view
    several = 0 if cos.shape[0] == 1 else 1
    _rotary[(batch * length,)](
        x, cos, sin, out, heads, length,
        x.stride(0), x.stride(1), x.stride(2), out.stride(0), out.stride(1), out.stride(2),
        several * cos.stride(0), cos.stride(1), several * sin.stride(0), sin.stride(1),
        HALF=d // 2, HEADS=triton.next_power_of_2(heads),
    )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _rotary(  # type: ignore[no-untyped-def]
    x, cos, sin, out, heads, length,
    x_batch, x_head, x_place, out_batch, out_head, out_place, cos_batch, cos_place,
    sin_batch, sin_place, HALF: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    batch, place = program // length, program % length
    half = tl.arange(0, HALF)
    head = tl.arange(0, HEADS)
    inside = (head < heads)[:, None]
    read = x + batch * x_batch + place * x_place + head[:, None] * x_head + half[None, :]
    write = out + batch * out_batch + place * out_place + head[:, None] * out_head + half[None, :]
    first = tl.load(read, mask=inside, other=0.0)
    second = tl.load(read + HALF, mask=inside, other=0.0)
    c = cos + batch * cos_batch + place * cos_place + half
    s = sin + batch * sin_batch + place * sin_place + half
    kind = first.dtype
    first, second = first.to(tl.float32), second.to(tl.float32)
    cos_low, cos_high = tl.load(c).to(tl.float32), tl.load(c + HALF).to(tl.float32)
    sin_low, sin_high = tl.load(s).to(tl.float32), tl.load(s + HALF).to(tl.float32)
    low = first * cos_low[None, :] - second * sin_low[None, :]
    high = second * cos_high[None, :] + first * sin_high[None, :]
    tl.store(write, low.to(kind), mask=inside)
    tl.store(write + HALF, high.to(kind), mask=inside)


ACTIVATIONS = ("silu", "gelu_tanh", "gelu")
"""The activation functions that :func:`gated` knows, by the kernel's number for each."""


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """act(gate) · up, rounded after each of the two as PyTorch does; half precision.

    Args:
        gate, up: [..., n] of one shape and dtype, last dimension contiguous; the rows may be
            apart in memory by a constant, as halves of a fused projection are.
        activation: one of :data:`ACTIVATIONS`.
    """
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    n = gate.shape[-1]
    rows, width = gate.numel() // n, 1024
    _gated[(rows, triton.cdiv(n, width))](
        gate, up, out, n, gate.stride(-2), up.stride(-2),
        ACTIVATION=ACTIVATIONS.index(activation), WIDTH=width, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _gated(  # type: ignore[no-untyped-def]
    gate, up, out, n, gate_stride, up_stride, ACTIVATION: tl.constexpr, WIDTH: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = at < n
    value = tl.load(gate + row * gate_stride + at, mask=inside, other=0.0)
    other = tl.load(up + row * up_stride + at, mask=inside, other=0.0)
    x = value.to(tl.float32)
    if ACTIVATION == 0:
        active = x / (1.0 + tl.exp(-x))
    elif ACTIVATION == 1:
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        # tanh by way of the logistic function; exp may overflow to infinity, which is right.
        active = 0.5 * x * (1.0 + (2.0 / (1.0 + tl.exp(-2.0 * inner)) - 1.0))
    else:
        active = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    result = active.to(value.dtype).to(tl.float32) * other.to(tl.float32)
    tl.store(out + row * n + at, result.to(value.dtype), mask=inside)


ROWS_IN_A_SUM = 256
"""Tokens whose squares one program of :func:`sum_of_squares` adds up."""


def sum_of_squares(x: Tensor) -> Tensor:
    """Σ over rows of x² for each column of [rows, columns] in half precision; float64 [columns].

    Sums of :data:`ROWS_IN_A_SUM` rows are float32, sums of those float64.
    """
    x = x.contiguous()
    rows, columns = x.shape
    chunks = triton.cdiv(rows, ROWS_IN_A_SUM)
    sums = torch.empty((chunks, columns), dtype=torch.float32, device=x.device)
    _sum_of_squares[(chunks, triton.cdiv(columns, 128))](
        x, sums, rows, columns, ROWS=ROWS_IN_A_SUM, STEP=32, WIDTH=128
    )
    return sums.sum(0, dtype=torch.float64)


@triton.jit  # type: ignore[untyped-decorator]
def _sum_of_squares(  # type: ignore[no-untyped-def]
    x, sums, rows, columns, ROWS: tl.constexpr, STEP: tl.constexpr, WIDTH: tl.constexpr
):
    chunk = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((STEP, WIDTH), dtype=tl.float32)
    for start in range(0, ROWS, STEP):
        row = chunk * ROWS + start + tl.arange(0, STEP)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(x + row[:, None] * columns + column[None, :], mask=inside, other=0.0)
        wide = value.to(tl.float32)
        total += wide * wide
    tl.store(sums + chunk * columns + column, tl.sum(total, axis=0), mask=column < columns)


def likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest token of each row, the first of equal ones, and its log-probability.

    One pass over the logits, but for what the cache holds of it; sums are float32.

    Args:
        logits: [rows, vocabulary] in half precision, last dimension contiguous.

    Returns:
        int64 [rows] and float32 [rows]; where a logit is NaN, so is the second.
    """
    rows, vocabulary = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    logs = torch.empty(rows, dtype=torch.float32, device=logits.device)
    _likeliest[(rows,)](logits, tokens, logs, vocabulary, logits.stride(0), WIDTH=2048, num_warps=8)
    return tokens, logs


@triton.jit  # type: ignore[untyped-decorator]
def _likeliest(logits, tokens, logs, vocabulary, stride, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, WIDTH)
    top = tl.full((WIDTH,), -float("inf"), tl.float32)
    place = tl.full((WIDTH,), 2147483647, tl.int32)
    for start in range(0, vocabulary, WIDTH):
        at = start + lane
        value = tl.load(logits + row * stride + at, mask=at < vocabulary, other=-float("inf"))
        x = value.to(tl.float32)
        place = tl.where(x > top, at, place)
        top = tl.maximum(top, x)
    largest = tl.max(top, axis=0)
    first = tl.min(tl.where(top == largest, place, 2147483647), axis=0)
    tl.store(tokens + row, tl.where(first < vocabulary, first, 0).to(tl.int64))  # all NaN: none
    total = tl.zeros((WIDTH,), tl.float32)
    for start in range(0, vocabulary, WIDTH):  # the cache still has the row
        at = start + lane
        value = tl.load(logits + row * stride + at, mask=at < vocabulary, other=-float("inf"))
        total += tl.exp(value.to(tl.float32) - largest)
    tl.store(logs + row, -tl.log(tl.sum(total, axis=0)))
