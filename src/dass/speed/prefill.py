"""Prefill and decoding with a pruned model on a GPU, against the dense model it came from."""

from pathlib import Path
from typing import Any

import torch

from dass.data.pretrained import whole_model
from dass.errors import ModelError, PatternError
from dass.models.glu import find_glu
from dass.models.streamed import free_memory
from dass.models.weights import Weights
from dass.packed.product import Packed, tensors_of
from dass.pruning.pruned_file import PrunedFile
from dass.runtime.provenance import model_source
from dass.speed.gpu import (
    ACTIVATIONS,
    PACKED,
    Name,
    SwitchedMLP,
    Variants,
    WeightsOf,
    packed,
    time_model,
)
from dass.speed.gpu_timing import GpuSettings
from dass.speed.timing import Outcome, Skipped, reason_of
from dass.speed.twofour import convert
from dass.terms import DENSE, NEURON_DIM


def prefill_of_run(
    folder: str | Path, pruned: str | Path, pattern: str, settings: GpuSettings
) -> Outcome:
    """Prefill and decode with a pruned model, against the dense model that it came from.

    Packed weights run all projections, whatever the pattern. For stock kernels each projection
    that is 2:4 along the input is stored as a semi-structured tensor; the others (gate and up of
    DaSS) run their masked weights dense, and that is noted.

    Args:
        folder: of the dense model, which has to fit on the device.
        pruned: the run's pruned file.
        pattern: what to call the variant.
        settings: what and how often.

    Raises:
        ModelError: the pruned file was made from another model.
    """
    outcome, weights = Outcome(), Weights(folder)
    if too_large := _does_not_fit(weights, torch.device(settings.device)):
        outcome.skip(Skipped("prefill", "all", "all", too_large))
        return outcome
    overlay = PrunedFile(pruned)
    overlay.check_source(Path(folder), model_source(folder, weights.files))
    try:
        with torch.no_grad():
            loaded: Any = whole_model(folder, settings.torch_dtype, attn_implementation="sdpa")
            model = loaded.to(settings.device)
            names = _switch_pruned(model, overlay, pattern, settings, outcome)
            hidden = int(model.config.get_text_config().hidden_size)
            for part in ("prefill", "decode"):
                time_model(model, hidden, part, names, settings, outcome)
    except (torch.OutOfMemoryError, ModelError) as error:  # end to end it has to fit
        outcome.skip(Skipped("prefill", "all", "all", reason_of(error)))
    return outcome


def _does_not_fit(weights: Weights, device: torch.device) -> str | None:
    """Why a model cannot be prefilled end to end, found out before it is read; None: it can.

    The MLPs, most of a model, are there dense, masked, and compressed and packed to half each.
    """
    size, free = sum(file.stat().st_size for file in weights.files), free_memory(device)
    if 2.5 * size <= free:
        return None
    return (
        f"end to end takes {2.5 * size / 1e9:.1f} GB for the model's weights, dense and pruned, "
        f"but {free / 1e9:.1f} GB are free"
    )


def _switch_pruned(
    model: Any, overlay: PrunedFile, pattern: str, settings: GpuSettings, outcome: Outcome
) -> list[Name]:
    """Give each MLP its dense, compressed and packed weights; returns the variants."""
    activation = ACTIVATIONS.get(getattr(model.config.get_text_config(), "hidden_act", ""))
    if activation is None:
        raise ModelError("its activation function is not known; prefill is not measured")
    names = {id(module): name for name, module in model.named_modules()}
    dense_name, found = ("torch", DENSE), {PACKED}
    size, saved = sum(weight.nbytes for weight in model.parameters()), 0
    for index, layer in enumerate(model.model.layers):
        glu = find_glu(layer, f"block {index}")
        if len(glu.parameters) < 3:
            raise ModelError("gate and up are one matrix in this model; prefill is not measured")
        dense: WeightsOf = {}
        pruned: WeightsOf = {}
        order = overlay.order(f"{names[id(layer)]}.{glu.name}")  # in which groups lie
        for projection in glu.projections:
            weight = projection.linear.weight.data
            dense[projection.role] = weight
            path = f"{names[id(projection.linear)]}.weight"
            masked = overlay(path, weight)
            if order is not None:
                masked = masked.index_select(NEURON_DIM[projection.role], order.to(masked.device))
            pruned[projection.role] = masked.contiguous()
        variants: Variants = {dense_name: (dense, dense)}
        try:
            own = packed(pruned)
            variants[PACKED, pattern] = (own, pruned)
            saved += _bytes_of(dense) - _bytes_of(own)
        except PatternError as error:
            found.discard(PACKED)
            outcome.skip(Skipped("decode", PACKED, pattern, reason_of(error)))
        for engine, compress in settings.compress.items():
            sparse = dict(pruned)
            for role, weight in pruned.items():
                try:
                    sparse[role] = convert(weight, compress, role, index == 0)
                except Exception as error:  # runs dense, and the table says why
                    variant = f"{pattern}, {role}"
                    outcome.skip(Skipped("prefill", engine, variant, reason_of(error)))
                else:
                    found.add(engine)
            variants[engine, pattern] = (sparse, pruned)
        path = f"{names[id(layer)]}.{glu.path}"
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, SwitchedMLP(variants, activation))
    outcome.weight_bytes = {"torch": size} | ({PACKED: size - saved} if PACKED in found else {})
    engines = [PACKED, *settings.compress]
    return [dense_name, *((engine, pattern) for engine in engines if engine in found)]


def _bytes_of(weights: WeightsOf) -> int:
    """Bytes of dense or packed weights."""
    found = [tensors_of(w) if isinstance(w, Packed) else [w] for w in weights.values()]
    return sum(tensor.nbytes for tensors in found for tensor in tensors)
