"""The tensors of a model folder, read from its safetensors files one by one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dass.errors import ModelError, NumericError
from dass.models.numerics import all_finite
from dass.runtime.files import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Weights:
    """Names and tensors of a Hugging Face folder; nothing is read until asked for.

    Raises:
        ModelError: there are no safetensors, or a shard is missing or truncated.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.file_of = _files_of_tensors(self.folder)
        files = sorted(set(self.file_of.values()))
        self._open = {file: _open(self.folder / file) for file in files}

    @property
    def files(self) -> list[Path]:
        """The safetensors files of the model, in the order of their names."""
        return [self.folder / file for file in self._open]

    def __contains__(self, name: object) -> bool:
        return name in self.file_of

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

    def _read(self, name: str, dtype: torch.dtype | None, device: torch.device | str) -> Tensor:
        if name not in self.file_of:
            raise ModelError(
                f"{self.folder}: tensor {name} is in none of its safetensors files; "
                "the folder does not fit its config.json, fetch the model again"
            )
        file = self.file_of[name]
        try:
            tensor: Tensor = self._open[file].get_tensor(name)
        except SafetensorError as error:
            raise ModelError(f"{self.folder / file}: cannot read {name} ({error})") from None
        wanted = dtype if dtype and tensor.is_floating_point() else tensor.dtype
        if torch.device(device).type == "cuda":
            # Through pinned memory: a copy from the file's pages would hold up kernel launches.
            tensor = tensor.pin_memory().to(device, non_blocking=True).to(wanted)
        else:
            # A copy: pruning in place must not reach the file's pages, which later reads share.
            tensor = tensor.to(device=device, dtype=wanted, copy=True)
        if tensor.is_floating_point() and not all_finite(tensor):
            raise NumericError(
                f"{self.folder / file}: {name} holds NaN or infinite values"
                f"{_overflow_hint(dtype)}; fetch the model again or use another one"
            )
        return tensor


def _overflow_hint(dtype: torch.dtype | None) -> str:
    return " as float16 (bfloat16 may hold them)" if dtype == torch.float16 else ""


def _files_of_tensors(folder: Path) -> dict[str, str]:
    """The file of each tensor, from the index or from the one file there is."""
    if (folder / INDEX).exists():
        index = read_json(folder / INDEX)
        weight_map: Any = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{folder / INDEX}: holds no weight_map; fetch the model again")
        missing = sorted({f for f in weight_map.values() if not (folder / f).exists()})
        if missing:
            raise ModelError(
                f"{folder}: shard {missing[0]} is missing"
                f"{f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''}; "
                "fetch the model again"
            )
        return weight_map
    if (folder / SINGLE).exists():
        return dict.fromkeys(_open(folder / SINGLE).keys(), SINGLE)
    if not folder.exists():
        raise ModelError(f"{folder}: no such model folder; check the model's `path` in the config")
    raise ModelError(
        f"{folder}: no safetensors ({SINGLE} or {INDEX}); pickled weights are never loaded, "
        "convert the model with save_pretrained()"
    )


def _open(path: Path) -> safe_open:
    """Open a safetensors file: its header is checked against the file's size."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path}: truncated or damaged safetensors file ({error}); fetch it again"
        ) from None
