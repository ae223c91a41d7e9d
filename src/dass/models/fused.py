"""A block's small operations as single kernels on a GPU: RMS norms, rotary embeddings, gating.

In PyTorch each is two to ten passes over the activations; together they cost as much as half of
the matrix products of a block. Which form an operation has is not assumed: a kernel takes its place
only after it has given the same values on a probe (norms, gating), or values no further from the
exact ones on the first real call (rotary embeddings); otherwise the model's own code stays.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dass.models.attention import find_attention
from dass.models.glu import GLU, find_glus
from dass.models.numerics import HALF, kernels_take

Operation = Callable[[Tensor], Tensor]

ROTARY = "apply_rotary_pos_emb"
"""What every model of transformers calls the function that turns queries and keys."""

_known_norms: dict[tuple[type, torch.dtype, int], int | None] = {}
_known_activations: dict[tuple[str, torch.dtype], str | None] = {}
_known_rotary: dict[tuple[Any, torch.dtype], bool] = {}


@contextmanager
def fused(block: nn.Module) -> Iterator[None]:
    """Run what is inside with the block's norms and rotary embeddings as single kernels.

    A model's head may be given, too. Does nothing unless the weights are in half precision on a
    GPU. Experts keep the model's own code.
    """
    weight = next(block.parameters())
    if not kernels_take(weight, *HALF):
        yield
        return
    norms = [module for module in block.modules() if _is_candidate(module, weight)]
    forwards = {norm: _norm_forward(norm) for norm in norms if _form_of(norm) is not None}
    for glu in find_glus(block, "block"):
        if not glu.is_routed and (activation := _activation_of(block, glu)) is not None:
            forwards[block.get_submodule(glu.path)] = _gated_forward(glu, activation)
    for module, forward in forwards.items():
        module.forward = forward
    try:
        with _fused_rotary(find_attention(block)):
            yield
    finally:
        for module in forwards:
            del module.forward


def _is_candidate(module: nn.Module, weight: Tensor) -> bool:
    """An RMS norm over a last dimension, by its name and its one weight."""
    names = [name for name, _ in module.named_parameters()]
    return (
        type(module).__name__.endswith("RMSNorm")
        and names == ["weight"]
        and isinstance(module.weight, Tensor)
        and module.weight.dim() == 1
        and module.weight.dtype == weight.dtype
        and _epsilon(module) is not None
    )


def _epsilon(module: nn.Module) -> float | None:
    for name in ("variance_epsilon", "eps"):
        if isinstance(value := getattr(module, name, None), float):
            return value
    return None


def _form_of(module: nn.Module) -> int | None:
    """Which of the kernel's forms a norm has, found out on a probe; None: neither."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    key = (type(module), weight.dtype, len(weight))
    if key not in _known_norms:
        _known_norms[key] = next((f for f in (0, 1) if _agrees(module, f)), None)
    return _known_norms[key]


def _agrees(module: nn.Module, form: int) -> bool:
    from dass.models.fused_triton import rms_norm

    weight, epsilon = module.weight, _epsilon(module)
    assert isinstance(weight, Tensor)
    assert epsilon is not None
    noise = torch.randn(65, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    x = 3 * noise[1:]
    # The model's own weight may be all ones, which could not tell the forms apart.
    own = module.weight
    module.weight = nn.Parameter(noise[0], requires_grad=False)
    try:
        wanted = module(x)
        got = rms_norm(x, module.weight, epsilon, form)
    finally:
        module.weight = own
    return bool(wanted.dtype == got.dtype and _same(got, wanted))


def _same(got: Tensor, wanted: Tensor) -> bool:
    """Equal but for the last bit of a few values, where a sum was taken in another order."""
    unit = torch.finfo(wanted.dtype).eps
    close = (got.float() - wanted.float()).abs() <= 2 * unit * wanted.float().abs() + 1e-6
    return bool(close.all()) and (got == wanted).float().mean().item() > 0.98


def _as_good(got: Tensor, wanted: Tensor, exact: Tensor) -> bool:
    """No further from the exact result than the model's own code, which rounds in between."""
    error, own_error = ((x.float() - exact).abs().max().item() for x in (got, wanted))
    return got.dtype == wanted.dtype and error <= 1.01 * own_error + 1e-6


def _norm_forward(module: nn.Module) -> Operation:
    from dass.models.fused_triton import rms_norm

    form, epsilon = _form_of(module), _epsilon(module)
    assert form is not None
    assert epsilon is not None

    def forward(hidden_states: Tensor) -> Tensor:
        assert isinstance(module.weight, Tensor)
        return rms_norm(hidden_states, module.weight, epsilon, form)

    return forward


def _gates(glu: GLU, x: Tensor) -> tuple[Tensor, Tensor]:
    """What gate and up make of x, of two layers or of one."""
    gate = glu.gate.linear(x)
    up = gate if glu.up.linear is glu.gate.linear else glu.up.linear(x)
    return gate[..., glu.gate.rows], up[..., glu.up.rows]


def _gated_forward(glu: GLU, activation: str) -> Operation:
    from dass.models.fused_triton import gated

    def forward(x: Tensor) -> Tensor:
        output: Tensor = glu.down.linear(gated(*_gates(glu, x), activation))
        return output

    return forward


def _activation_of(block: nn.Module, glu: GLU) -> str | None:
    """The activation with which the kernel does what the MLP's own code does; None: with none."""
    from dass.models.fused_triton import ACTIVATIONS

    mlp = block.get_submodule(glu.path)
    key = (repr(mlp), glu.down.weight.dtype)
    if key not in _known_activations:
        agreeing = (one for one in ACTIVATIONS if _gates_agree(mlp, glu, one))
        _known_activations[key] = next(agreeing, None)
    return _known_activations[key]


def _gates_agree(mlp: nn.Module, glu: GLU, activation: str) -> bool:
    """Whether `down` is given the same on a probe, and nothing comes after it."""
    from dass.models.fused_triton import gated

    weight = glu.gate.weight
    noise = torch.randn(1, 64, weight.shape[1], generator=torch.Generator().manual_seed(0))
    x = noise.to(weight)
    # Activation functions differ where their argument is neither small nor large.
    x = 3 * x / _gates(glu, x)[0].float().std().to(x)
    seen: list[Tensor] = []
    hook = glu.down.linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        output = mlp(x)
    finally:
        hook.remove()
    got = gated(*_gates(glu, x), activation)
    return _same(got, seen[0]) and torch.equal(output, glu.down.linear(seen[0]))


@contextmanager
def _fused_rotary(attention: nn.Module | None) -> Iterator[None]:
    """Let the attention's module call the kernel where it calls its own rotary function."""
    home = sys.modules.get(type(attention).__module__) if attention is not None else None
    own = getattr(home, ROTARY, None)
    if home is None or own is None:
        yield
        return
    setattr(home, ROTARY, _rotary_like(own))
    try:
        yield
    finally:
        setattr(home, ROTARY, own)


def _rotary_like(own: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """A function that does what ``own`` does, by the kernel once the two have agreed."""

    def apply(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        from dass.models.fused_triton import rotary, rotary_fits

        if args or kwargs or not rotary_fits(q, k, cos, sin):
            return own(q, k, cos, sin, *args, **kwargs)
        key = (own, q.dtype)
        if key not in _known_rotary:
            wanted, got = own(q, k, cos, sin), rotary(q, k, cos, sin)
            exact = own(q.float(), k.float(), cos.float(), sin.float())
            _known_rotary[key] = all(
                _as_good(*three) for three in zip(got, wanted, exact, strict=True)
            )
            return got if _known_rotary[key] else wanted
        return rotary(q, k, cos, sin) if _known_rotary[key] else own(q, k, cos, sin)

    return apply
