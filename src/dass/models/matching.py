"""Which stored tensor fills which of a model's, by the rules of transformers' own loading.

Every tensor of the files and of the model is accounted for, by name, shape and dtype, before a
weight is read. transformers gives random values to what is missing and drops what is left over,
with a warning; here either ends in an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dass.data.model_config import CONFIG
from dass.data.model_folder import FLOATING, Stored, check_blocks
from dass.errors import ModelError
from dass.models.weights import Source, Stack

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


def stored_names(
    folder: Path, model: nn.Module, tensors: Mapping[str, Stored]
) -> dict[str, Source]:
    """For each tensor of a model the name, in the files, of the one that it is filled from.

    A parameter of all experts may be stored as a matrix per expert, as most hubs' checkpoints are.

    Args:
        folder: of the model, for errors.
        model: without weights.
        tensors: what the files hold.

    Raises:
        ModelError: a tensor is missing, left over, of another shape, or no number with a point; or
            the model asks for tensors of several dtypes.
    """
    _check_one_dtype(folder, model)
    renamed, stacks = _renamed(folder, model, tensors)
    state = model.state_dict()
    found: dict[str, Source] = {n: stored for stored, n in renamed.items() if n in state}
    found |= stacks
    left_over = _not_ignored(model, {name for name in renamed.values() if name not in state})
    held = {n: s for s, n in renamed.items() if n in state or n in left_over}
    held |= {name: stack.experts[0][0] for name, stack in stacks.items()}
    _check_blocks(folder, model, held)
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
        for stored, part in _parts(found[name], wanted):
            _check_fits(folder, model, stored, tensors[stored], part)
    return found


def _parts(source: Source, wanted: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Each stored tensor that one of the model's is filled from, and the part that it fills."""
    if isinstance(source, str):
        yield source, wanted
        return
    for expert, names in enumerate(source.experts):
        yield from zip(names, wanted[expert].chunk(len(names)), strict=True)


def _check_one_dtype(folder: Path, model: Any) -> None:
    """Refuse models of which transformers keeps some weights in float32: here all are cast."""
    kept = list(model._get_dtype_plan(model.dtype))
    kept += [n for n, p in model.named_parameters() if p.dtype != model.dtype]
    if kept:
        raise ModelError(
            f"{folder}: {type(model).__name__} keeps {kept[0]} in another dtype than the "
            "others, which is not supported; set the model's `dtype: float32`"
        )


def _renamed(
    folder: Path, model: Any, tensors: Mapping[str, Stored]
) -> tuple[dict[str, str], dict[str, Stack]]:
    """Stored name -> the model's, as transformers renames what older or larger models hold.

    Also the parameters that are stored in parts: the model's name -> what is stacked.
    """
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
    stacked: dict[str, _Parts] = {}
    first_parts: dict[str, str] = {}
    for stored in sorted(tensors, key=dot_natural_key):
        name, converted = rename_source_key(stored, renamings, converters, prefix, state)
        if name not in state and stored in state:
            name, converted = rename_source_key(stored, [], [], prefix, state)
        filling, number = name, None  # filling: the parameter, or which part of a stack
        if converted is not None and name in state:
            rule = next(one for one in converters if converted in one.source_patterns)
            number = _stacked_as(rule, converted, rename_source_key(stored, renamings, [])[0])
            if number is None or state[name].dim() != 3:
                raise ModelError(
                    f"{tensors[stored].file}: {stored} is stored in another form than the model "
                    "has it, and transformers converts it; this is not supported, choose another "
                    "model"
                )
            parts = stacked.setdefault(name, _Parts(rule.source_patterns))
            parts.stored.setdefault((number, converted), stored)
            first_parts.setdefault(name, stored)
            filling = f"{name}, expert {number}, {converted.rpartition('*.')[2]}"
        # A parameter is filled once, a stack's part too, and none is filled in both ways.
        other = filled.get(filling) or (filled if number is not None else first_parts).get(name)
        if other is not None:
            raise ModelError(
                f"{tensors[stored].file}: holds {name} twice, as {other} and as {stored}; "
                f"fetch the model again into {folder}"
            )
        renamed[stored] = name
        filled |= {filling: stored} if name in state else {}
    whole = {n: parts.stack(folder, tensors, len(state[n])) for n, parts in stacked.items()}
    return {s: n for s, n in renamed.items() if n not in stacked}, whole


class _Parts:
    """The stored matrices that one parameter of all experts is stacked from."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self.stored: dict[tuple[int, str], str] = {}
        """(expert, transformers' pattern of the name) -> stored name."""

    def stack(self, folder: Path, tensors: Mapping[str, Stored], count: int) -> Stack:
        """The stack of exactly ``count`` experts.

        Raises:
            ModelError: one of its matrices is missing, or is of an expert too many.
        """
        wanted = {(number, p) for number in range(count) for p in self._patterns}
        for number, pattern in sorted(self.stored.keys() - wanted):
            stored = self.stored[number, pattern]
            raise ModelError(
                f"{tensors[stored].file}: {stored} is of an expert too many: {folder / CONFIG} "
                f"asks for {count}; correct it or fetch the model again"
            )
        for number, pattern in sorted(wanted - self.stored.keys()):
            like = next(iter(self.stored.values()))
            raise ModelError(
                f"{folder}: no safetensors file holds {pattern.replace('*', str(number))} beside "
                f"{like}, which {CONFIG} asks for; fetch the model again"
            )
        return Stack(tuple(tuple(self.stored[n, p] for p in self._patterns) for n in range(count)))


def _stacked_as(rule: Any, pattern: str, name: str) -> int | None:
    """Which expert's matrix a stored tensor is, where ``rule`` only stacks and joins rows.

    Args:
        rule: transformers' WeightConverter.
        pattern: of its source patterns the one that matched.
        name: of the stored tensor, renamed.
    """
    steps = [(type(step).__name__, vars(step).get("dim")) for step in rule.operations]
    patterns = rule.source_patterns
    known = [("MergeModulelist", 0), ("Concatenate", 1)][: min(len(patterns), 2)]
    if steps != known or len(rule.target_patterns) != 1 or pattern.count("*") != 1:
        return None
    before, after = (re.escape(part) for part in pattern.split("*"))
    found = re.search(rf"{before}(\d{{1,9}}){after}$", name)
    return int(found[1]) if found else None


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


def _tied(model: Any, found: Mapping[str, Source], missing: set[str]) -> dict[str, Source]:
    """What missing tensors are filled from where config.json ties them to a stored one."""
    ties: dict[str, str] = model.all_tied_weights_keys
    filled: dict[str, Source] = {}
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
