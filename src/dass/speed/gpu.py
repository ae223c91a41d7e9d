"""Dense against 2:4 on a GPU: single projections, the MLP, a decoder block, prefill.

    python -m dass.speed.gpu --shapes 7b,70b --out FILE.json

Needs torch and transformers only. Each variant is timed eagerly, as a user's Python would call
it, and as a replayed CUDA graph, which hides the host's share. Weights rotate through more memory
than the second-level cache holds, as a model's other layers would see to. The dense baseline is
the unpruned weight (zeros draw less power and would raise its clock); what a sparse variant
computes is checked against the dense product of the masked weight before it is timed.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dass.errors import DassError, ModelError
from dass.models.glu import find_glu
from dass.models.streamed import free_memory
from dass.models.weights import Weights as ModelFiles
from dass.pruning.masks import keep_mask
from dass.pruning.methods import ROLES
from dass.pruning.patterns import NofM
from dass.pruning.pruned_file import PrunedFile
from dass.speed.gpu_timing import (
    PARTS,
    ROTATED_CACHES,
    TOKENS,
    Call,
    Settings,
    note,
    on_gpu,
    timed_variants,
)
from dass.speed.recording import chosen_shapes, measure_shapes
from dass.speed.shapes import SHAPES, Shape, activation_of, random_model, random_weight
from dass.speed.timing import Outcome, Refusal, reason_of
from dass.speed.twofour import check_axis, convert

SEQUENCE = 2048
"""More tokens than this go as several sequences."""
PREFILL_FROM = 128
"""Tokens; fewer are no prefill."""
Weights = dict[str, Tensor]
"""Role -> weight [out, in], dense or semi-structured."""
DASS = "dass-2of4"


# --- Weights of each variant --------------------------------------------------------------------


@dataclass
class Matrices:
    """One MLP's weights: dense, masked along the input, masked as DaSS does, and compressed."""

    dense: Weights
    masked: Weights
    dass: Weights
    sparse: dict[str, Weights]
    """Backend -> weights; without those that it refused."""

    def variants(self) -> dict[tuple[str, str], tuple[Weights, Weights]]:
        """(engine, variant) -> (what runs, the dense weights whose product it has to equal)."""
        found = {("torch", "dense"): (self.dense, self.dense)}
        for backend, sparse in self.sparse.items():
            if set(sparse) == set(self.masked):
                found[backend, "2of4"] = (sparse, self.masked)
            if "down" in sparse and len(self.masked) > 1:
                # All that a stock kernel can do for DaSS: down is sparse, gate and up are dense.
                mixed = self.dass | {"down": sparse["down"]}
                found[backend, DASS] = (mixed, self.dass | {"down": self.masked["down"]})
        return found


def matrices(
    dense: Weights, settings: Settings, outcome: Outcome, part: str, round_trip: bool = True
) -> Matrices:
    """Mask by magnitude and compress; what a backend refuses is noted."""
    masked = {role: _masked(weight, "input") for role, weight in dense.items()}
    dass = {r: masked[r] if r == "down" else _masked(w, "output") for r, w in dense.items()}
    sparse: dict[str, Weights] = {name: {} for name in settings.compress}
    for backend, compress in settings.compress.items():
        for role, weight in masked.items():
            try:
                sparse[backend][role] = convert(weight, compress, role, round_trip)
            except Exception as error:  # recorded; the others are still measured
                note(outcome, Refusal(part, backend, "2of4", reason_of(error)))
                break
    if "gate" in dass:
        _note_output_groups(dass["gate"], part, outcome)
    return Matrices(dense, masked, dass, {name: found for name, found in sparse.items() if found})


def _note_output_groups(gate: Tensor, part: str, outcome: Outcome) -> None:
    """Note why DaSS's gate and up run dense, whatever the backend."""
    try:
        check_axis(gate, "gate and up of DaSS")
    except DassError as error:
        note(outcome, Refusal(part, "stock kernels", f"{DASS}, gate and up", str(error)))


def _masked(weight: Tensor, axis: Any) -> Tensor:
    """2:4 by magnitude, groups along ``axis``."""
    mask = keep_mask(weight.float().abs(), NofM(2, 4), "row", axis)
    return weight.masked_fill(~mask, 0)


# --- One call of each variant -------------------------------------------------------------------


def glu(x: Tensor, weights: Weights, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """down(act(gate(x)) · up(x)); or the one projection that there is."""
    if len(weights) == 1:
        return linear(x, next(iter(weights.values())))
    inner = activation(linear(x, weights["gate"])) * linear(x, weights["up"])
    return linear(inner, weights["down"])


class SwitchedLinear(nn.Module):
    """A linear layer that runs the weight of the variant that is selected."""

    selected: Any = ("torch", "dense")

    def __init__(self, weights: dict[Any, Tensor]) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        weight = self.weights[SwitchedLinear.selected]
        output: Tensor = linear(x.flatten(0, -2), weight).unflatten(0, x.shape[:-1])
        return output


def selecting(variant: Any, call: Call) -> Call:
    """A call during which every switched layer runs ``variant``."""

    def run() -> Tensor:
        SwitchedLinear.selected = variant
        return call()

    return run


def switch_mlps(
    model: nn.Module, settings: Settings, outcome: Outcome, part: str
) -> list[tuple[Any, Any]]:
    """Give every MLP of a model the weights of all variants; returns (variant, reference)."""
    pairs: list[tuple[Any, Any]] = []
    for number, layer in enumerate(model.model.layers):  # type: ignore[union-attr, arg-type]
        mlp = layer.mlp
        roles: dict[str, nn.Module] = {role: getattr(mlp, f"{role}_proj") for role in ROLES}
        dense: Weights = {role: one.get_parameter("weight").data for role, one in roles.items()}
        found = matrices(dense, settings, outcome, part, round_trip=number == 0).variants()
        # A backend that refused the first block's weights is not asked about the others'.
        took = {engine for engine, _ in found}
        left = {name: one for name, one in settings.compress.items() if name in took}
        settings = replace(settings, compress=left)
        weights: dict[str, dict[Any, Tensor]] = {role: {} for role in roles}
        for variant, (own, reference) in found.items():
            for role in roles:
                weights[role][variant] = own[role]
                weights[role]["reference", *variant] = reference[role]
        for role in roles:
            setattr(mlp, f"{role}_proj", SwitchedLinear(weights[role]))
        pairs = [(variant, ("reference", *variant)) for variant in found]
    return pairs


# --- What is measured ---------------------------------------------------------------------------


def measure_part(shape: Shape, part: str, settings: Settings, outcome: Outcome) -> None:
    """Time a projection or the MLP for every number of tokens."""
    roles = ROLES if part == "mlp" else (part,)
    size = sum(math.prod(shape.matrix(role)) for role in roles) * settings.dtype.itemsize
    copies = [
        matrices(
            {role: _random(shape, role, settings, seed) for role in roles},
            settings,
            outcome,
            part,
            round_trip=seed == 0,
        )
        for seed in range(_copies(size, settings.device))
    ]
    width = shape.matrix(roles[0])[1]
    activation = activation_of(shape)
    kinds = [set(copy.variants()) for copy in copies]
    for tokens in settings.tokens:
        x = random_weight((tokens, width), 99, torch.float32, settings.device) * width**0.5
        x = x.to(settings.dtype)
        variants = {
            variant: (
                [partial(glu, x, copy.variants()[variant][0], activation) for copy in copies],
                partial(glu, x, copies[0].variants()[variant][1], activation),
            )
            for variant in copies[0].variants()
            if all(variant in kind for kind in kinds)
        }
        timed_variants(variants, settings, outcome, (part, tokens))


def _random(shape: Shape, role: str, settings: Settings, seed: int) -> Tensor:
    number = 10 * seed + ROLES.index(role)
    return random_weight(shape.matrix(role), number, settings.dtype, settings.device)


def _copies(size: int, device: str) -> int:
    """How many copies of weights of ``size`` bytes fill the cache several times."""
    if not on_gpu(device):
        return 2
    cache = torch.cuda.get_device_properties(torch.device(device)).L2_cache_size
    return max(1, math.ceil(ROTATED_CACHES * cache / size))


def measure_model(shape: Shape, part: str, settings: Settings, outcome: Outcome) -> None:
    """Time a decoder block, or prefill by as many blocks as the memory is given for."""
    block_bytes = _block_bytes(shape, settings.dtype)
    if part == "block":
        blocks = _copies(block_bytes, settings.device)
    else:
        blocks = max(1, min(shape.blocks, int(settings.prefill_gib * 2**30 / block_bytes)))
    model = random_model(shape, blocks, settings.dtype, settings.device)
    pairs = switch_mlps(model, settings, outcome, part)
    time_model(model, shape.hidden, part, pairs, settings, outcome)


def time_model(
    model: nn.Module,
    hidden: int,
    part: str,
    pairs: list[tuple[Any, Any]],
    settings: Settings,
    outcome: Outcome,
) -> None:
    """Time a model's blocks one by one, or the whole model, with each variant of its MLPs.

    Args:
        model: with switched layers.
        hidden: width of the hidden states.
        part: ``block`` or ``prefill``.
        pairs: (variant, reference), both of which can be selected.
        settings, outcome: what and how often; where it goes.
    """
    layers = list(model.model.layers)  # type: ignore[union-attr, arg-type]
    for tokens in settings.tokens:
        if part == "prefill" and tokens < PREFILL_FROM:
            continue
        shape = (max(1, tokens // SEQUENCE), min(tokens, SEQUENCE))
        if part == "block":
            calls = list(_block_calls(model, layers, hidden, shape, settings))
        else:
            calls = [partial(_prefill, model, torch.zeros(shape, dtype=torch.long,
                                                          device=settings.device))]  # fmt: skip
        variants = {
            variant: (
                [selecting(variant, call) for call in calls],
                selecting(reference, calls[0]),
            )
            for variant, reference in pairs
        }
        timed_variants(variants, settings, outcome, (part, tokens),
                       1 if part == "block" else len(layers))  # fmt: skip


def _block_calls(
    model: Any, layers: list[Any], hidden: int, shape: tuple[int, int], settings: Settings
) -> Iterator[Call]:
    """One call of each block on random hidden states, causal, with no cached tokens."""
    generator = torch.Generator(settings.device).manual_seed(1)
    x = torch.randn((*shape, hidden), generator=generator, device=settings.device)
    x = x.to(settings.dtype)
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


def _block_bytes(shape: Shape, dtype: torch.dtype) -> int:
    """Bytes of one decoder block's matrices."""
    attention = 2 * shape.hidden * shape.head_size * (shape.heads + shape.key_value_heads)
    return (attention + 3 * shape.hidden * shape.intermediate) * dtype.itemsize


def benchmark(
    shape: Shape, settings: Settings, save: Callable[[Outcome], None] = lambda _: None
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
                note(outcome, Refusal(part, "all", "all", reason_of(error)))
            gc.collect()
            if on_gpu(settings.device):
                torch.cuda.empty_cache()
            save(outcome)
    return outcome


# --- A pruned model -----------------------------------------------------------------------------


def prefill_of_run(
    folder: str | Path, pruned: str | Path, pattern: str, settings: Settings
) -> Outcome:
    """Prefill with a pruned 2:4 model, end to end, against the dense model that it came from.

    Each projection whose groups lie along the input is stored as a semi-structured tensor; the
    others (gate and up of DaSS) run their masked weights dense, and that is noted.

    Args:
        folder: of the dense model, which has to fit on the device.
        pruned: the run's pruned file.
        pattern: what to call the variant.
        settings: what and how often.
    """
    from transformers import AutoModelForCausalLM

    outcome = Outcome()
    if too_large := _does_not_fit(ModelFiles(folder), torch.device(settings.device)):
        note(outcome, Refusal("prefill", "all", "all", too_large))
        return outcome
    try:
        with torch.no_grad():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=settings.dtype, local_files_only=True, attn_implementation="sdpa"
            )
            model = loaded.to(settings.device).eval()
            pairs = _switch_pruned(model, PrunedFile(pruned), pattern, settings, outcome)
            hidden = int(model.config.get_text_config().hidden_size)
            time_model(model, hidden, "prefill", pairs, settings, outcome)
    except (torch.OutOfMemoryError, ModelError) as error:  # end to end it has to fit
        note(outcome, Refusal("prefill", "all", "all", reason_of(error)))
    return outcome


def _does_not_fit(weights: ModelFiles, device: torch.device) -> str | None:
    """Why a model cannot be prefilled end to end, found out before it is read; None: it can.

    The MLPs, most of a model, are there three times: dense, masked, and compressed to half.
    """
    size, free = sum(file.stat().st_size for file in weights.files), free_memory(device)
    if 2 * size <= free:
        return None
    return (
        f"end to end takes {2 * size / 1e9:.1f} GB for the model's weights, dense and pruned, but "
        f"{free / 1e9:.1f} GB are free"
    )


def _switch_pruned(
    model: Any, overlay: PrunedFile, pattern: str, settings: Settings, outcome: Outcome
) -> list[tuple[Any, Any]]:
    """Give each projection its dense, masked and compressed weights; (variant, reference)."""
    names = {id(module): name for name, module in model.named_modules()}
    engines = list(settings.compress)
    masked = ("torch", f"{pattern}, masked")
    for index, layer in enumerate(model.model.layers):
        glu = find_glu(layer, f"block {index}")
        if len(glu.parameters) < 3:
            raise ModelError("gate and up are one matrix in this model; prefill is not measured")
        for projection in glu.projections:
            path = names[id(projection.linear)]
            dense = projection.linear.weight.data
            pruned = overlay(f"{path}.weight", dense).contiguous()
            weights = {("torch", "dense"): dense, masked: pruned}
            for engine in engines:
                compress = settings.compress[engine]
                try:
                    sparse = convert(pruned, compress, projection.role, index == 0)
                except Exception as error:  # runs dense, and the table says why
                    refusal = Refusal("prefill", engine, f"{pattern}, {projection.role}",
                                   reason_of(error))  # fmt: skip
                    note(outcome, refusal)
                    sparse = pruned
                weights[engine, pattern] = sparse
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, SwitchedLinear(weights))
    refused = {(one.engine, one.variant) for one in outcome.refusals}
    roles = ROLES
    some = [e for e in engines if any((e, f"{pattern}, {role}") not in refused for role in roles)]
    dense_pair = (("torch", "dense"), ("torch", "dense"))
    return [dense_pair, *(((engine, pattern), masked) for engine in some)]


# --- Command line -------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Measure shapes, write one file; without a GPU nothing is measured, unless --device cpu."""
    parser = argparse.ArgumentParser(prog="python -m dass.speed.gpu", description=main.__doc__)
    parser.add_argument("--shapes", default="7b", help=f"of {', '.join(SHAPES)}; with commas")
    parser.add_argument("--tokens", default=",".join(map(str, TOKENS)))
    parser.add_argument("--parts", default=",".join(PARTS), help="with commas")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    parser.add_argument("--device", default="cuda", help="cpu: a dry run, for trying it out")
    parser.add_argument("--prefill-gib", type=float, default=14.0,
                        help="memory for the prefilled model; else fewer blocks")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    shapes = chosen_shapes(parser, options.shapes)
    if on_gpu(options.device) and not torch.cuda.is_available():
        parser.error("there is no GPU here; nothing is measured (--device cpu: a dry run)")
    settings = Settings(
        tokens=[int(count) for count in options.tokens.split(",")],
        parts=options.parts.split(","), repeats=options.repeats,
        dtype=getattr(torch, options.dtype), device=options.device,
        prefill_gib=options.prefill_gib,
    )  # fmt: skip
    given = sys.argv[1:] if arguments is None else arguments
    return measure_shapes(
        shapes, options.out, "gpu", given, settings.as_dict(),
        lambda shape, save: benchmark(shape, settings, save),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
