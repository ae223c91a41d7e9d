"""Export one run as a plain Hugging Face checkpoint."""

from pathlib import Path

import torch

from dass.pruning.export import export_checkpoint
from dass.terms import Dtype


def export(*, folder: str | Path, pruned: str | Path, dtype: Dtype, out: str | Path) -> None:
    """Export one run as a plain Hugging Face checkpoint.

    Args:
        folder: of the dense model.
        pruned: the run's pruned file.
        dtype: of all tensors: the one that the run was pruned in.
        out: the folder to write.
    """
    export_checkpoint(folder, pruned, out, getattr(torch, dtype))
