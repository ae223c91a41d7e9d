"""The tensors of a model folder, read from its safetensors files one by one."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dass.data.model_folder import check_folder, weight_files
from dass.errors import ModelError, NumericError
from dass.models.numerics import all_finite


@dataclass(frozen=True)
class Stack:
    """A parameter [experts, out, in] that files hold as matrices, expert by expert."""

    experts: tuple[tuple[str, ...], ...]
    """Of each expert the names of the stored matrices whose rows follow one another."""


Source = str | Stack
"""What a model's tensor is filled from: a stored one, or several."""


class Weights:
    """Names and tensors of a Hugging Face folder; nothing is read until asked for.

    Raises:
        ModelError: as :func:`dass.data.model_folder.check_folder`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.stored = check_folder(folder)
        self.files = weight_files(folder)
        """The safetensors files of the model, in the order in which they are read."""
        self._open = {file: safe_open(file, framework="pt") for file in self.files}

    def __contains__(self, name: object) -> bool:
        return name in self.stored

    def read(
        self,
        names: Iterable[str],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """Read tensors by name, checked to be finite; ``dtype`` is for the floating ones.

        Raises:
            ModelError: a name is not in the folder.
            NumericError: a value is NaN or infinite.
        """
        return {name: self._read(name, dtype, device) for name in names}

    def read_source(
        self, source: Source, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Tensor:
        """A model's tensor, put together if it is stored in parts; raises as :meth:`read`."""
        if isinstance(source, str):
            return self._read(source, dtype, device)
        full: Tensor | None = None
        for expert, names in enumerate(source.experts):
            rows = torch.cat([self._read(name, dtype, device) for name in names])
            if full is None:
                full = rows.new_empty((len(source.experts), *rows.shape))
            full[expert] = rows
        assert full is not None
        return full

    def _read(self, name: str, dtype: torch.dtype | None, device: torch.device | str) -> Tensor:
        if name not in self.stored:
            raise ModelError(
                f"{self.folder}: tensor {name} is in none of its safetensors files; fetch the "
                "model again"
            )
        file = self.stored[name].file
        try:
            tensor: Tensor = self._open[file].get_tensor(name)
        except SafetensorError as error:
            raise ModelError(f"{file}: cannot read {name} ({error})") from None
        wanted = dtype if dtype and tensor.is_floating_point() else tensor.dtype
        if torch.device(device).type == "cuda":
            # Through pinned memory: a copy from the file's pages would hold up kernel launches.
            tensor = tensor.pin_memory().to(device, non_blocking=True).to(wanted)
        else:
            # A copy: pruning in place must not reach the file's pages, which later reads share.
            tensor = tensor.to(device=device, dtype=wanted, copy=True)
        if tensor.is_floating_point() and not all_finite(tensor):
            raise NumericError(
                f"{file}: {name} holds NaN or infinite values"
                f"{_overflow_hint(dtype)}; fetch the model again or use another one"
            )
        return tensor


def _overflow_hint(dtype: torch.dtype | None) -> str:
    return " as float16 (bfloat16 may hold them)" if dtype == torch.float16 else ""
