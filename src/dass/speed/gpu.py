"""Dense against sparse on a GPU: single projections, the MLP, a decoder block, prefill, decode.

Each variant is timed eagerly, as plain Python calls it, and as a replayed CUDA graph, without the
host's share of a call. Weights rotate through more memory than the second-level cache holds, as
the other layers of a model would do. The dense baseline is the unpruned weight (zeros draw less
power and would raise its clock). The output of a sparse variant is first checked against the dense
product of the masked weight.
"""

import gc
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dass.errors import DassError, PatternError
from dass.models.shape import Shape
from dass.packed.best import pack_gates, pack_pruned
from dass.packed.linear import activate, numbers_of, packed_gates, packed_linear
from dass.packed.product import Packed, tensors_of
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import NofM, Pattern, parse_pattern
from dass.speed.gpu_timing import Call, GpuSettings, on_gpu, timed_variants
from dass.speed.shapes import random_model, random_weight
from dass.speed.timing import DECODE_TO, TOKENS_OF, Outcome, Skipped, reason_of
from dass.speed.twofour import check_axis, convert
from dass.terms import DENSE, ROLES

SEQUENCE = 2048
"""More tokens than this go as several sequences."""
ANY = range(1, sys.maxsize)
CACHE = 1024
"""Places of the static cache that decoding attends to."""
WeightsOf = dict[str, Any]
"""Role -> weight [out, in], dense, semi-structured or packed."""
Name = tuple[str, str]
"""Engine, variant."""
Variants = dict[Name, tuple[WeightsOf, WeightsOf]]
"""Name -> (weights that run, dense weights whose product they must equal)."""
DASS = "dass-2of4"
TWO_OF_FOUR = NofM(2, 4)
PACKED = "packed"
"""The engine of :mod:`dass.packed`."""
COMPILED = "torch.compile"
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
"""What a config calls an activation -> what :func:`dass.packed.linear.activate` does."""


# --- WeightsOf of each variant --------------------------------------------------------------------


def variants_of(
    dense: WeightsOf, settings: GpuSettings, outcome: Outcome, part: str, round_trip: bool = True
) -> Variants:
    """Mask one MLP's weights by magnitude and compress them; a backend's refusal is recorded."""
    masked = {role: _masked(weight, "input") for role, weight in dense.items()}
    dass = {r: masked[r] if r == "down" else _masked(w, "output") for r, w in dense.items()}
    found: Variants = {("torch", DENSE): (dense, dense)}
    for backend, compress in settings.compress.items():
        sparse: WeightsOf = {}
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
    try:
        found |= packed_variants(dense, masked, dass) if settings.packed else {}
    except PatternError as error:
        outcome.skip(Skipped(part, PACKED, "all", reason_of(error)))
    if "gate" in dass:
        try:
            check_axis(dass["gate"], "gate and up of DaSS")
        except DassError as error:
            outcome.skip(Skipped(part, "stock kernels", f"{DASS}, gate and up", str(error)))
    return found


def packed_variants(dense: WeightsOf, masked: WeightsOf, dass: WeightsOf) -> Variants:
    """The packed weights: 2:4 along the input, as DaSS lays it, 4:8, and half of each row."""
    alike: Variants = {(PACKED, "2of4"): (packed(masked), masked)}
    if "gate" in dense:
        alike[PACKED, DASS] = (packed(dass), dass)
    for pattern in ("4of8", "u50"):
        own = {
            role: _masked(weight, "input", parse_pattern(pattern)) for role, weight in dense.items()
        }
        alike[PACKED, pattern] = (packed(own), own)
    return alike


def packed(weights: WeightsOf) -> WeightsOf:
    """Pack what is pruned, gate and up alike."""
    found: WeightsOf = {}
    if {"gate", "up"} <= set(weights):
        both = pack_gates(weights["gate"], weights["up"], "MLP", bitmap=True)
        found = dict(zip(("gate", "up"), both, strict=True))
    left = {role: weight for role, weight in weights.items() if role not in found}
    return found | {r: pack_pruned(weight, r, bitmap=True) for r, weight in left.items()}


def _masked(weight: Tensor, axis: Any, pattern: Pattern = TWO_OF_FOUR) -> Tensor:
    """Pruned by magnitude: within rows, N:M groups along ``axis``."""
    mask = keep_mask(weight.float().abs(), pattern, "row", axis)
    return weight.masked_fill(~mask, 0)


# --- One call of each variant -------------------------------------------------------------------


def glu(x: Tensor, weights: WeightsOf, activation: str) -> Tensor:
    """down(act(gate(x)) · up(x)); with one projection only, its product."""
    if len(weights) == 1:
        return product(x, next(iter(weights.values())))
    gate, up = weights["gate"], weights["up"]
    if not isinstance(gate, Packed):
        inner = activate(product(x, gate), activation) * product(x, up)
        return product(inner, weights["down"])
    numbers, most = numbers_of(gate), numbers_of(up)[4]
    both = packed_gates(tensors_of(gate), tensors_of(up), numbers, most, x, activation)
    return product(both, weights["down"])


def product(x: Tensor, weight: Any) -> Tensor:
    """x Wᵀ of a weight of any kind; [tokens, in] -> [tokens, out]."""
    if isinstance(weight, Packed):
        packed_output: Tensor = packed_linear(tensors_of(weight), numbers_of(weight), x)
        return packed_output
    return linear(x, weight)


class SwitchedMLP(nn.Module):
    """A gated MLP that runs the selected one of its weights.

    Args:
        weights: (engine, variant) -> (weights that run, dense weights with the same products).
        activation: what :func:`glu` takes.
    """

    selected: tuple[Name, int] = (("torch", DENSE), 0)

    def __init__(self, weights: Variants, activation: str) -> None:
        super().__init__()
        self.weights, self.activation = weights, activation

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        name, which = SwitchedMLP.selected
        output = glu(x.flatten(0, -2), self.weights[name][which], self.activation)
        shaped: Tensor = output.unflatten(0, x.shape[:-1])
        return shaped


def selecting(name: Name, which: int, call: Call) -> Call:
    """A call during which every switched MLP runs this variant (0), or its reference (1)."""

    def run() -> Tensor:
        SwitchedMLP.selected = name, which
        return call()

    return run


def switch_mlps(
    model: nn.Module, activation: str, settings: GpuSettings, outcome: Outcome, part: str
) -> list[Name]:
    """Give every MLP of a model the weights of all variants; returns the variants."""
    names: list[Name] = []
    for number, layer in enumerate(model.model.layers):  # type: ignore[union-attr, arg-type]
        dense: WeightsOf = {role: getattr(layer.mlp, f"{role}_proj").weight.data for role in ROLES}
        found = variants_of(dense, settings, outcome, part, round_trip=number == 0)
        layer.mlp = SwitchedMLP(found, activation)
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
        if part == "mlp" and tokens <= DECODE_TO and on_gpu(settings.device):
            compiled: Any = torch.compile(glu, dynamic=False)
            all_dense = [copy["torch", DENSE][0] for copy in copies]
            calls = [partial(compiled, x, weights, activation) for weights in all_dense]
            variants[COMPILED, DENSE] = (calls, partial(glu, x, all_dense[0], activation))
        timed_variants(variants, settings, outcome, part, tokens)


def _copies(size: int, settings: GpuSettings) -> int:
    """How many copies of weights of ``size`` bytes fill the cache several times."""
    if not on_gpu(settings.device):
        return 2
    cache = torch.cuda.get_device_properties(torch.device(settings.device)).L2_cache_size
    return max(1, math.ceil(settings.rotated_caches * cache / size))


def measure_model(shape: Shape, part: str, settings: GpuSettings, outcome: Outcome) -> None:
    """Time a decoder block; or prefill, or decode, through as many as ``prefill_gib`` holds."""
    block_bytes = (shape.attention + shape.mlp) * settings.torch_dtype.itemsize
    if part == "block":
        blocks = _copies(block_bytes, settings)
    else:
        blocks = max(1, min(shape.blocks, int(settings.prefill_gib * 2**30 / block_bytes)))
    model = random_model(shape, blocks, settings.torch_dtype, settings.device)
    activation = ACTIVATIONS[shape.activation]
    names = switch_mlps(model, activation, settings, outcome, part)
    time_model(model, shape.hidden, part, names, settings, outcome)


def time_model(
    model: nn.Module, hidden: int, part: str, names: list[Name],
    settings: GpuSettings, outcome: Outcome,
) -> None:  # fmt: skip
    """Time a model's blocks one by one, or the whole model, with each variant of its MLPs.

    Args:
        model: with switched MLPs.
        hidden: width of the hidden states.
        part: ``block``, ``prefill`` or ``decode``.
        names: of the variants.
        settings, outcome: what and how often; where it goes.
    """
    layers = list(model.model.layers)  # type: ignore[union-attr, arg-type]
    SwitchedMLP.selected = names[0], 0  # what was timed last may be none of this model's
    for tokens in settings.tokens:
        if tokens not in TOKENS_OF.get(part, ANY):
            continue
        shape = (max(1, tokens // SEQUENCE), min(tokens, SEQUENCE))
        if part == "block":
            blocks, calls = 1, list(_block_calls(model, layers, hidden, shape, settings))
        elif part == "decode":
            blocks, calls = len(layers), [decode_call(model, tokens, settings.device)]
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


def decode_call(model: Any, sequences: int, device: str, compiled: bool = False) -> Call:
    """One token of each of some sequences, half of whose static cache is full.

    Args:
        model: of transformers, on the device.
        sequences: how many.
        device: where.
        compiled: by ``torch.compile``, as transformers does itself while it generates.
    """
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=CACHE)
    tokens = torch.zeros((sequences, 1), dtype=torch.long, device=device)
    place = torch.full((sequences, 1), CACHE // 2, dtype=torch.long, device=device)

    run = torch.compile(model, dynamic=False) if compiled else model

    def forward() -> Tensor:
        logits: Tensor = run(
            input_ids=tokens, past_key_values=cache, position_ids=place, use_cache=True
        ).logits
        return logits

    forward()  # the cache gets its memory
    lengths = [layer.cumulative_length for layer in cache.layers]

    def step() -> Tensor:
        torch._foreach_zero_(lengths)  # every call generates the same token again
        torch._foreach_add_(lengths, CACHE // 2)
        return forward()

    return step


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
