"""A pruned model as a plain Hugging Face folder."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from dass.data.model_folder import INDEX, files_exported
from dass.data.pretrained import empty_model
from dass.errors import ModelError
from dass.models.matching import stored_names
from dass.models.weights import Weights
from dass.pruning.pruned_file import PrunedFile
from dass.runtime.files import read_json, write_json, writing_directory
from dass.runtime.progress import Progress


def export_checkpoint(
    dense: str | Path, pruned: str | Path, out: str | Path, dtype: torch.dtype
) -> None:
    """Write a plain Hugging Face folder of the pruned model, shard by shard.

    Args:
        dense: the folder of the dense model.
        pruned: the pruned file.
        out: the folder to write; ``AutoModelForCausalLM.from_pretrained`` loads it.
        dtype: of all tensors, and of the config: the one that the run pruned in.

    Raises:
        ModelError: the pruned file names a tensor that the model does not have.
    """
    weights, overlay = Weights(dense), PrunedFile(pruned)
    names = stored_names(weights.folder, empty_model(dense, dtype), weights.stored)
    for name in overlay.shapes:
        if name not in names:
            raise ModelError(f"{pruned}: prunes {name}, which {dense} does not have")
    model_names = {stored: name for name, stored in names.items()}
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
        _describe(folder, dtype, size)


def _copy_small_files(weights: Weights, folder: Path) -> None:
    """Config and tokenizer; the index, if the weights are those that it names."""
    for path in files_exported(weights.folder):
        if path not in weights.files:
            shutil.copyfile(path, folder / path.name)


def _describe(folder: Path, dtype: torch.dtype, size: int) -> None:
    """Let config.json name the dtype, and the index the size, of what was written."""
    config = read_json(folder / "config.json")
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", config | {"dtype": str(dtype).removeprefix("torch.")})
    if (folder / INDEX).exists():
        index = read_json(folder / INDEX)
        index.setdefault("metadata", {})["total_size"] = size
        write_json(folder / INDEX, index)
