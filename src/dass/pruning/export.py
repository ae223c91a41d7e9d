"""A pruned model as a plain Hugging Face folder."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from dass.errors import ModelError
from dass.models.weights import INDEX, Weights
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
    for name in overlay.shapes:
        if name not in weights:
            raise ModelError(f"{pruned}: prunes {name}, which {dense} does not have")
    progress = Progress("exporting", len(weights.files), "files")
    with writing_directory(out) as folder:
        _copy_small_files(weights.folder, folder)
        size = 0
        for shard in weights.files:
            names = [name for name, file in weights.file_of.items() if file == shard.name]
            read = weights.read(names, dtype)
            tensors = {name: overlay(name, tensor) for name, tensor in read.items()}
            save_file(tensors, folder / shard.name, metadata={"format": "pt"})
            size += sum(tensor.nbytes for tensor in tensors.values())
            progress.step(note=shard.name)
        _describe(folder, dtype, size)


def _copy_small_files(source: Path, folder: Path) -> None:
    """Config, tokenizer, index: everything but weights."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in {".json", ".model", ".txt", ".jinja"}:
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
