"""Which stored tensor fills which of a model's, by the rules of transformers' own loading.

Every tensor of the files and of the model is accounted for, by name, shape and dtype, before a
weight is read. transformers gives random values to what is missing and drops what is left over,
with a warning; here either ends in an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dass.data.model_config import CONFIG
from dass.data.model_folder import FLOATING, Stored, check_blocks
from dass.errors import ModelError

HEADS = ("num_attention_heads", "num_key_value_heads")
"""Keys of config.json of which sizes are products with `head_dim`."""


def text_config(model: nn.Module) -> Any:
    """The config of the language model, also where it is part of a larger one."""
    return model.config.get_text_config()  # type: ignore[union-attr, operator]


def decoder_blocks(model: nn.Module, folder: Path) -> tuple[str, nn.ModuleList]:
    """The name and the list of the decoder blocks."""
    count = text_config(model).num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and count > 0:
            return name, module
    raise ModelError(f"{folder}: no list of {count} decoder blocks in {type(model).__name__}")


def stored_names(folder: Path, model: nn.Module, tensors: Mapping[str, Stored]) -> dict[str, str]:
    """For each tensor of a model the name, in the files, of the one that it is filled from.

    Args:
        folder: of the model, for errors.
        model: without weights.
        tensors: what the files hold.

    Raises:
        ModelError: a tensor is missing, left over, of another shape, or no number with a point; or
            the model asks for tensors of several dtypes.
    """
    _check_one_dtype(folder, model)
    renamed = _renamed(folder, model, tensors)
    state = model.state_dict()
    found = {name: stored for stored, name in renamed.items() if name in state}
    left_over = _not_ignored(model, {name for name in renamed.values() if name not in state})
    _check_blocks(folder, model, {n: s for s, n in renamed.items() if n in state or n in left_over})
    for stored, name in renamed.items():
        if name in left_over:
            raise ModelError(
                f"{tensors[stored].file}: {stored} has no place in the {type(model).__name__} that "
                f"{CONFIG} describes{_switches(model, stored)}; fetch the model again"
            )
    found |= _tied(model, found, state.keys() - found)
    if missing := [name for name in state if name not in found]:
        raise ModelError(
            f"{folder}: no safetensors file holds {missing[0]}, "
            f"which {CONFIG} asks for{_switches(model, missing[0])}; fetch the model again"
        )
    for name, wanted in state.items():
        _check_fits(folder, model, found[name], tensors[found[name]], wanted)
    return found


def _check_one_dtype(folder: Path, model: Any) -> None:
    """Refuse models of which transformers keeps some weights in float32: here all are cast."""
    kept = list(model._get_dtype_plan(model.dtype))
    kept += [n for n, p in model.named_parameters() if p.dtype != model.dtype]
    if kept:
        raise ModelError(
            f"{folder}: {type(model).__name__} keeps {kept[0]} in another dtype than the "
            "others, which is not supported; set the model's `dtype: float32`"
        )


def _renamed(folder: Path, model: Any, tensors: Mapping[str, Stored]) -> dict[str, str]:
    """Stored name -> the model's, as transformers renames what older or larger models hold."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    state, prefix = model.state_dict(), model.base_model_prefix
    renamed: dict[str, str] = {}
    filled: dict[str, str] = {}
    for stored in sorted(tensors, key=dot_natural_key):
        name, converted = rename_source_key(stored, renamings, converters, prefix, state)
        if name not in state and stored in state:
            name, converted = rename_source_key(stored, [], [], prefix, state)
        if converted is not None and name in state:
            raise ModelError(
                f"{tensors[stored].file}: {stored} is stored in another form than the model "
                "has it, and transformers converts it; this is not supported, choose another model"
            )
        if name in filled:
            raise ModelError(
                f"{tensors[stored].file}: holds {name} twice, as {filled[name]} and as {stored}; "
                f"fetch the model again into {folder}"
            )
        renamed[stored] = name
        filled |= {name: stored} if name in state else {}
    return renamed


def _not_ignored(model: Any, names: set[str]) -> set[str]:
    """Names that transformers has no reason to ignore.

    It ignores rotary frequencies and position ids, which older versions stored and which are
    computed from config.json, and what a class says itself: parts for other tasks.
    """
    from transformers.core_model_loading import LoadStateDictInfo

    info = LoadStateDictInfo(set(), set(names), set(), [], {}, set())
    model._adjust_missing_and_unexpected_keys(info)
    return set(info.unexpected_keys)


def _check_blocks(folder: Path, model: nn.Module, names: Mapping[str, str]) -> None:
    """Compare the numbers of the stored blocks with config.json."""
    prefix, blocks = decoder_blocks(model, folder)
    numbered = re.compile(rf"{re.escape(prefix)}\.(\d{{1,9}})\.")
    found = {int(m[1]): stored for name, stored in names.items() if (m := numbered.match(name))}
    check_blocks(folder, found, len(blocks))


def _tied(model: Any, found: Mapping[str, str], missing: set[str]) -> dict[str, str]:
    """What missing tensors are filled from where config.json ties them to a stored one."""
    ties: dict[str, str] = model.all_tied_weights_keys
    filled = {}
    for name in missing:
        source = ties.get(name, name)
        group = [source, *(target for target, its in ties.items() if its == source)]
        if stored := next((found[one] for one in group if one in found), None):
            filled[name] = stored
    return filled


def _check_fits(
    folder: Path, model: Any, stored: str, tensor: Stored, wanted: torch.Tensor
) -> None:
    if tensor.shape != tuple(wanted.shape):
        config = text_config(model).to_dict()
        sizes = set(wanted.shape) - set(tensor.shape) or set(wanted.shape)
        keys = ", ".join(sorted({key for size in sizes for key in _keys_of(size, config)}))
        raise ModelError(
            f"{tensor.file}: {stored} is {list(tensor.shape)}, but {folder / CONFIG} makes it "
            f"{list(wanted.shape)}{f' ({keys})' if keys else ''}; correct it or fetch "
            "the model again"
        )
    if wanted.is_floating_point() and tensor.dtype not in FLOATING:
        raise ModelError(
            f"{tensor.file}: {stored} is stored as {tensor.dtype}, not as {', '.join(FLOATING)}; "
            "give the model as it was trained"
        )


def _keys_of(size: int, config: Mapping[str, Any]) -> list[str]:
    """The keys of config.json that a size may come from."""
    same = [key for key, value in config.items() if type(value) is int and value == size > 2]
    head = config.get("head_dim") or 0
    return same + [f"head_dim x {key}" for key in HEADS if head * (config.get(key) or 0) == size]


def _switches(model: Any, name: str) -> str:
    """The keys of config.json that decide whether there is a tensor of this name."""
    config = text_config(model).to_dict()
    module, _, kind = name.rpartition(".")
    keys = [key for key in config if kind == "bias" and key.endswith("bias")]
    if module and dict(model.named_modules()).get(module) is model.get_output_embeddings():
        keys = ["tie_word_embeddings"]
    return f" (see {', '.join(keys)})" if keys else ""
