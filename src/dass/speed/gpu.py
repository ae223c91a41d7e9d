"""Dense against 2:4 on a GPU: single projections, the MLP, a decoder block, prefill.

Each variant is timed eagerly, as plain Python calls it, and as a replayed CUDA graph, without the
host's share of a call. Weights rotate through more memory than the second-level cache holds, as
the other layers of a model would do. The dense baseline is the unpruned weight (zeros draw less
power and would raise its clock). The output of a sparse variant is first checked against the dense
product of the masked weight.
"""

import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, silu

from dass.errors import DassError
from dass.models.shape import Shape
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import NofM
from dass.speed.gpu_timing import Call, GpuSettings, on_gpu, timed_variants
from dass.speed.shapes import random_model, random_weight
from dass.speed.timing import Outcome, Skipped, reason_of
from dass.speed.twofour import check_axis, convert
from dass.terms import DENSE, ROLES

SEQUENCE = 2048
"""More tokens than this go as several sequences."""
PREFILL_FROM = 128
"""Tokens; fewer are no prefill."""
Weights = dict[str, Tensor]
"""Role -> weight [out, in], dense or semi-structured."""
Name = tuple[str, str]
"""Engine, variant."""
Variants = dict[Name, tuple[Weights, Weights]]
"""Name -> (weights that run, dense weights whose product they must equal)."""
DASS = "dass-2of4"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu_pytorch_tanh": partial(gelu, approximate="tanh"),
}


# --- Weights of each variant --------------------------------------------------------------------


def variants_of(
    dense: Weights, settings: GpuSettings, outcome: Outcome, part: str, round_trip: bool = True
) -> Variants:
    """Mask one MLP's weights by magnitude and compress them; a backend's refusal is recorded."""
    masked = {role: _masked(weight, "input") for role, weight in dense.items()}
    dass = {r: masked[r] if r == "down" else _masked(w, "output") for r, w in dense.items()}
    found: Variants = {("torch", DENSE): (dense, dense)}
    for backend, compress in settings.compress.items():
        sparse: Weights = {}
        for role, weight in masked.items():
            try:
                sparse[role] = convert(weight, compress, role, round_trip)
            except Exception as error:  # recorded; the others are still measured
                outcome.skip(Skipped(part, backend, "2of4", reason_of(error)))
                break
        if set(sparse) == set(masked):
            found[backend, "2of4"] = (sparse, masked)
        if "down" in sparse and len(masked) > 1:
            # All that a stock kernel can do for DaSS: down is sparse, gate and up are dense.
            found[backend, DASS] = (dass | {"down": sparse["down"]}, dass)
    if "gate" in dass:
        try:
            check_axis(dass["gate"], "gate and up of DaSS")
        except DassError as error:
            outcome.skip(Skipped(part, "stock kernels", f"{DASS}, gate and up", str(error)))
    return found


def _masked(weight: Tensor, axis: Any) -> Tensor:
    """2:4 by magnitude, groups along ``axis``."""
    mask = keep_mask(weight.float().abs(), NofM(2, 4), "row", axis)
    return weight.masked_fill(~mask, 0)


# --- One call of each variant -------------------------------------------------------------------


def glu(x: Tensor, weights: Weights, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """down(act(gate(x)) · up(x)); with one projection only, its product."""
    if len(weights) == 1:
        return linear(x, next(iter(weights.values())))
    inner = activation(linear(x, weights["gate"])) * linear(x, weights["up"])
    return linear(inner, weights["down"])


class SwitchedLinear(nn.Module):
    """A linear layer that runs the selected one of its weights.

    Args:
        weights: (engine, variant) -> (weight that runs, dense weight with the same product).
    """

    selected: tuple[Name, int] = (("torch", DENSE), 0)

    def __init__(self, weights: dict[Name, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        name, which = SwitchedLinear.selected
        weight = self.weights[name][which]
        output: Tensor = linear(x.flatten(0, -2), weight).unflatten(0, x.shape[:-1])
        return output


def selecting(name: Name, which: int, call: Call) -> Call:
    """A call during which every switched layer runs this variant (0), or its reference (1)."""

    def run() -> Tensor:
        SwitchedLinear.selected = name, which
        return call()

    return run


def switch_mlps(model: nn.Module, settings: GpuSettings, outcome: Outcome, part: str) -> list[Name]:
    """Give every MLP of a model the weights of all variants; returns the variants."""
    names: list[Name] = []
    for number, layer in enumerate(model.model.layers):  # type: ignore[union-attr, arg-type]
        dense: Weights = {role: getattr(layer.mlp, f"{role}_proj").weight.data for role in ROLES}
        found = variants_of(dense, settings, outcome, part, round_trip=number == 0)
        for role in ROLES:
            weights = {name: (own[role], other[role]) for name, (own, other) in found.items()}
            setattr(layer.mlp, f"{role}_proj", SwitchedLinear(weights))
        names = list(found)
        # A backend that refused the first block's weights is not asked about the others'.
        took = {engine for engine, _ in found}
        left = {engine: one for engine, one in settings.compress.items() if engine in took}
        settings = replace(settings, compress=left)
    return names


# --- What is measured ---------------------------------------------------------------------------


def measure_part(shape: Shape, part: str, settings: GpuSettings, outcome: Outcome) -> None:
    """Time a projection or the MLP for every number of tokens."""
    roles = ROLES if part == "mlp" else (part,)
    size = sum(math.prod(shape.matrix(role)) for role in roles) * settings.torch_dtype.itemsize
    copies = []
    make = partial(random_weight, dtype=settings.torch_dtype, device=settings.device)
    for seed in range(_copies(size, settings)):
        dense = {r: make(shape.matrix(r), 10 * seed + ROLES.index(r)) for r in roles}
        copies.append(variants_of(dense, settings, outcome, part, round_trip=seed == 0))
    width = shape.matrix(roles[0])[1]
    activation = ACTIVATIONS[shape.activation]
    for tokens in settings.tokens:
        x = random_weight((tokens, width), 99, torch.float32, settings.device) * width**0.5
        x = x.to(settings.torch_dtype)
        variants = {
            variant: (
                [partial(glu, x, copy[variant][0], activation) for copy in copies],
                partial(glu, x, reference, activation),
            )
            for variant, (_, reference) in copies[0].items()
            if all(variant in copy for copy in copies)
        }
        timed_variants(variants, settings, outcome, part, tokens)


def _copies(size: int, settings: GpuSettings) -> int:
    """How many copies of weights of ``size`` bytes fill the cache several times."""
    if not on_gpu(settings.device):
        return 2
    cache = torch.cuda.get_device_properties(torch.device(settings.device)).L2_cache_size
    return max(1, math.ceil(settings.rotated_caches * cache / size))


def measure_model(shape: Shape, part: str, settings: GpuSettings, outcome: Outcome) -> None:
    """Time a decoder block, or prefill through as many blocks as ``prefill_gib`` holds."""
    block_bytes = (shape.attention + shape.mlp) * settings.torch_dtype.itemsize
    if part == "block":
        blocks = _copies(block_bytes, settings)
    else:
        blocks = max(1, min(shape.blocks, int(settings.prefill_gib * 2**30 / block_bytes)))
    model = random_model(shape, blocks, settings.torch_dtype, settings.device)
    names = switch_mlps(model, settings, outcome, part)
    time_model(model, shape.hidden, part, names, settings, outcome)


def time_model(
    model: nn.Module, hidden: int, part: str, names: list[Name],
    settings: GpuSettings, outcome: Outcome,
) -> None:  # fmt: skip
    """Time a model's blocks one by one, or the whole model, with each variant of its MLPs.

    Args:
        model: with switched layers.
        hidden: width of the hidden states.
        part: ``block`` or ``prefill``.
        names: of the variants.
        settings, outcome: what and how often; where it goes.
    """
    layers = list(model.model.layers)  # type: ignore[union-attr, arg-type]
    for tokens in settings.tokens:
        if part == "prefill" and tokens < PREFILL_FROM:
            continue
        shape = (max(1, tokens // SEQUENCE), min(tokens, SEQUENCE))
        if part == "block":
            blocks, calls = 1, list(_block_calls(model, layers, hidden, shape, settings))
        else:
            prompt = torch.zeros(shape, dtype=torch.long, device=settings.device)
            blocks, calls = len(layers), [partial(_prefill, model, prompt)]
        variants = {
            name: ([selecting(name, 0, call) for call in calls], selecting(name, 1, calls[0]))
            for name in names
        }
        timed_variants(variants, settings, outcome, part, tokens, blocks)


def _block_calls(
    model: Any, layers: list[Any], hidden: int, shape: tuple[int, int], settings: GpuSettings
) -> Iterator[Call]:
    """One call of each block on random hidden states, causal, with no cached tokens."""
    generator = torch.Generator(settings.device).manual_seed(1)
    x = torch.randn((*shape, hidden), generator=generator, device=settings.device)
    x = x.to(settings.torch_dtype)
    positions = torch.arange(shape[1], device=settings.device).unsqueeze(0)
    rotary = model.model.rotary_emb(x, positions)
    for layer in layers:
        yield partial(layer, x, position_embeddings=rotary, attention_mask=None)


def _prefill(model: Any, tokens: Tensor) -> Tensor:
    """Logits of each sequence's last token; keys and values go to a cache, as in use.

    Without a cache transformers looks for packed sequences in the position ids, which takes a
    mask in place of causal attention as soon as a CUDA graph is captured.
    """
    logits: Tensor = model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits
    return logits


def benchmark(
    shape: Shape, settings: GpuSettings, save: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    """Measure every part of a shape.

    Args:
        shape: the model's sizes.
        settings: what and how often.
        save: called after every part, so that what was measured is not lost.
    """
    outcome = Outcome()
    with torch.no_grad():
        for part in settings.parts:
            measure = measure_part if part in ("gate", "down", "mlp") else measure_model
            try:
                measure(shape, part, settings, outcome)
            except Exception as error:  # out of memory, say: the other parts are still measured
                outcome.skip(Skipped(part, "all", "all", reason_of(error)))
            gc.collect()
            if on_gpu(settings.device):
                torch.cuda.empty_cache()
            save(outcome)
    return outcome
