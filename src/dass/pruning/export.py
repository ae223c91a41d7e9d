"""A pruned model as a plain Hugging Face folder."""

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dass.data.model_folder import INDEX, SINGLE, files_exported
from dass.data.pretrained import empty_model
from dass.errors import ModelError
from dass.models.matching import stored_names
from dass.models.weights import Weights
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

    Raises:
        ModelError: the pruned file names a tensor that the model does not have, or was made from
            other weights.
        DataError: the pruned file is damaged.
    """
    started = time.monotonic()
    weights, overlay = Weights(dense), PrunedFile(pruned)
    names = stored_names(weights.folder, empty_model(dense, dtype), weights.stored)
    for name in overlay.shapes:
        if name not in names:
            raise ModelError(f"{pruned}: prunes {name}, which {dense} does not have")
    model_names = {stored: name for name, stored in names.items()}
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
                name: overlay(model_names.get(name, name), tensor)
                for name, tensor in weights.read(held, dtype).items()
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
