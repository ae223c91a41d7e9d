"""A pruned model as a plain Hugging Face folder."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dass.data.model_folder import INDEX, SINGLE, files_exported
from dass.data.pretrained import empty_model
from dass.errors import ModelError
from dass.models.matching import decoder_blocks, stored_names
from dass.models.neurons import moved
from dass.models.weights import Source, Weights
from dass.pruning.pruned_file import PrunedFile
from dass.runtime.files import read_json, write_json, writing_directory
from dass.runtime.progress import Progress
from dass.runtime.provenance import FETCHED, model_source, origin, provenance

ABOUT = "dass.json"
"""Beside the exported weights: what they are and how they came to be."""


def export_checkpoint(
    dense: str | Path, pruned: str | Path, out: str | Path, dtype: torch.dtype
) -> None:
    """Write a plain Hugging Face folder of the pruned model, shard by shard.

    Args:
        dense: the folder of the dense model.
        pruned: the pruned file.
        out: the folder to write; ``AutoModelForCausalLM.from_pretrained`` loads it. Its
            ``dass.json`` says what was pruned how.
        dtype: of all tensors, and of the config: the one that the run pruned in.

    Where groups lie in another order of the neurons, the neurons are written in that order.

    Raises:
        ModelError: the pruned file names a tensor, or orders the neurons of an MLP, that the model
            does not have, or was made from other weights.
        DataError: the pruned file is damaged.
    """
    started = time.monotonic()
    weights, overlay = Weights(dense), PrunedFile(pruned)
    model = empty_model(dense, dtype)
    names = stored_names(weights.folder, model, weights.stored)
    _check_has(dense, model.state_dict(), overlay)
    places = _places(names, weights)
    prefix, layers = decoder_blocks(model, weights.folder)
    moves = overlay.moves(layers, prefix)
    source = model_source(dense, weights.files)
    overlay.check_source(Path(dense), source)
    about = {"settings": overlay.settings, "mask_hash": overlay.hash()}
    progress = Progress("exporting", len(weights.files), "files")
    with writing_directory(out) as folder:
        _copy_small_files(weights, folder)
        size = 0
        for shard in weights.files:
            held = [name for name, tensor in weights.stored.items() if tensor.file == shard]
            tensors = {
                stored: moved(moves, name, overlay(name, tensor, rows), rows)
                for stored, tensor in weights.read(held, dtype).items()
                for name, rows in [places.get(stored, (stored, None))]
            }
            copy = folder / shard.relative_to(weights.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, copy, metadata={"format": "pt"})
            size += sum(tensor.nbytes for tensor in tensors.values())
            progress.step(note=copy.name)
        indexed = [file.name for file in weights.files] != [SINGLE]
        _describe(folder, dtype, size, indexed)
        made = provenance(started, {"model": origin(dense)}) | {"model": source}
        write_json(folder / ABOUT, about | {"provenance": made})


def _check_has(dense: str | Path, state: Mapping[str, Tensor], overlay: PrunedFile) -> None:
    """Raise ModelError if a pruned file prunes what the model does not have."""
    for name in overlay.shapes:
        parameter, _, expert = name.rpartition(".")
        if name not in state and not (expert.isdecimal() and parameter in state):
            raise ModelError(f"{overlay.path}: prunes {name}, which {dense} does not have")
    for parameter, count in overlay.experts.items():
        if state[parameter].dim() != 3 or len(state[parameter]) != count:
            raise ModelError(
                f"{overlay.path}: prunes {count} experts of {parameter}, which {dense} has "
                f"of the shape {list(state[parameter].shape)}"
            )


Place = tuple[str, slice | None]
"""What a pruned file calls a parameter or matrix, and which rows of it; None: all."""


def _places(names: Mapping[str, Source], weights: Weights) -> dict[str, Place]:
    """Where in the model each stored tensor belongs, by its stored name."""
    places: dict[str, Place] = {}
    for name, source in names.items():
        if isinstance(source, str):
            places[source] = name, None
            continue
        for expert, parts in enumerate(source.experts):
            start = 0
            for part in parts:
                stop = start + weights.stored[part].shape[0]
                places[part] = f"{name}.{expert}", slice(start, stop)
                start = stop
    return places


def _copy_small_files(weights: Weights, folder: Path) -> None:
    """Config and tokenizer; the index, if the weights are those that it names."""
    for path in files_exported(weights.folder):
        if path not in weights.files and path.name != FETCHED:
            shutil.copyfile(path, folder / path.name)


def _describe(folder: Path, dtype: torch.dtype, size: int, indexed: bool) -> None:
    """Let config.json name the dtype, and the index the size, of what was written."""
    name = str(dtype).removeprefix("torch.")
    config = _with_dtype(read_json(folder / "config.json"), name)
    write_json(folder / "config.json", config | {"dtype": name})
    if not indexed:
        (folder / INDEX).unlink(missing_ok=True)  # of shards that were not read
        return
    index = read_json(folder / INDEX)
    index.setdefault("metadata", {})["total_size"] = size
    write_json(folder / INDEX, index)


def _with_dtype(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A config whose parts name this dtype where they named one; the older key is dropped."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found[key] = _with_dtype(value, name)
        elif key in ("dtype", "torch_dtype"):
            found["dtype"] = name
        else:
            found[key] = value
    return found
