"""Masks that were made elsewhere: read, held against the dense model and against the pattern."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dass.errors import DataError, ModelError, PatternError
from dass.models.glu import find_glu
from dass.models.streamed import StreamedModel
from dass.pruning.patterns import NofM, Pattern
from dass.pruning.pruned_file import PrunedFile
from dass.runtime.files import sha256
from dass.runtime.provenance import model_source
from dass.terms import Role

REMEDY = "give masks of this model"


class GivenMasks(ABC):
    """Masks of a model's GLUs, by the names of their parameters."""

    @abstractmethod
    def check(self, model: StreamedModel, source: Mapping[str, str]) -> dict[str, str]:
        """Check that they are of this model; returns hashes of what is read.

        Args:
            model: the dense one.
            source: of the model, as :func:`dass.runtime.provenance.model_source` says.

        Raises:
            ModelError: they are not.
        """

    @abstractmethod
    def read(self, parameter: str) -> tuple[Tensor | None, Tensor]:
        """The values of a parameter, None for the dense model's, and its bool mask; [out, in]."""

    def order(self, glu: str) -> Tensor | None:
        """int64 [neurons]: in which order of its neurons an MLP's groups lie; None: its own."""
        return None

    def weight_and_mask(self, role: Role, weight: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Of a projection: of a fused parameter, ``gate`` has the first half of the rows."""
        parameter = name.removesuffix(f" ({role})")
        values, mask = self.read(parameter)
        half = slice(None)
        if parameter != name:
            middle = len(mask) // 2
            half = slice(middle) if role == "gate" else slice(middle, None)
        kept = weight if values is None else values[half].to(weight)
        return kept, mask[half].to(weight.device)


_OPEN: dict[str, GivenMasks] = {}


def given_masks(path: str, model: StreamedModel) -> GivenMasks:
    """Open a checkpoint's folder or a file of masks, for a model of this dtype and device.

    Raises:
        ModelError: the folder is no checkpoint.
        DataError: the file holds no masks, or is damaged.
    """
    _OPEN[path] = Checkpoint(path, model) if Path(path).is_dir() else _file(path)
    return _OPEN[path]


def opened(path: str) -> GivenMasks:
    """What :func:`given_masks` opened and somebody checked."""
    return _OPEN[path]


class Checkpoint(GivenMasks):
    """A pruned checkpoint as others write it: dense, with zeros."""

    def __init__(self, path: str, model: StreamedModel) -> None:
        self._model = StreamedModel(path, model.dtype, model.device)

    def check(self, model: StreamedModel, source: Mapping[str, str]) -> dict[str, str]:
        """Whatever is not pruned is the dense model's, to the bit in the dtype it is run in."""
        given = self._model
        names, own = model.model.state_dict(), given.model.state_dict()
        for name in names.keys() | own.keys():
            if name not in names or name not in own or names[name].shape != own[name].shape:
                raise ModelError(f"{given.folder}: {name} is not what {model.folder} has; {REMEDY}")
        inside = f"{model.prefix}."
        for name, dense in names.items():
            if not name.startswith(inside):
                self._check_same(name, dense, own[name], model)
        for index in range(model.n_blocks):
            pruned = find_glu(model.layers[index], model.folder.name).parameters
            with model.block(index) as block, given.block(index) as other:
                found = other.state_dict()
                for name, dense in block.state_dict().items():
                    if name not in pruned:
                        full = model.parameter_name(index, name)
                        self._check_same(full, dense, found[name], model)
        return model_source(given.folder, given.weights.files)

    def _check_same(self, name: str, dense: Tensor, given: Tensor, model: StreamedModel) -> None:
        if not torch.equal(dense, given):
            raise ModelError(
                f"{self._model.folder}: {name} differs from that of {model.folder}, and is not "
                "pruned here: it would be measured with the dense one; give a checkpoint of which "
                "only the gated MLPs were pruned"
            )

    def read(self, parameter: str) -> tuple[Tensor | None, Tensor]:
        """The checkpoint's weight, and where it is not zero."""
        weight = self._model.read(parameter)
        return weight, weight != 0


class Ours(GivenMasks):
    """A pruned file of this project."""

    def __init__(self, path: str) -> None:
        self._file = PrunedFile(path)

    def check(self, model: StreamedModel, source: Mapping[str, str]) -> dict[str, str]:
        """Whether it was made from this model, by pruning its gated MLPs only."""
        if self._file.targets != "mlp":
            raise ModelError(
                f"{self._file.path}: of `targets: {self._file.targets}`, but only masks of gated "
                "MLPs can be given; give a file of such"
            )
        self._file.check_fits(model, source)
        self._file.moves(model.layers, model.prefix)  # orders are of this model, too
        return {"file": self._file.path.name, "sha256": sha256(self._file.path)}

    def read(self, parameter: str) -> tuple[Tensor | None, Tensor]:
        """The mask, and the values where the file holds some."""
        mask = self._file.mask(parameter)
        if f"{parameter}.values" not in self._file.about.hashes:
            return None, mask
        return self._file(parameter, torch.zeros(mask.shape)), mask

    def order(self, glu: str) -> Tensor | None:
        """The file's."""
        return self._file.order(glu)


class Plain(GivenMasks):
    """A safetensors file with one mask per parameter, true where a weight is kept."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._file = safe_open(path, framework="pt")

    def check(self, model: StreamedModel, source: Mapping[str, str]) -> dict[str, str]:
        """There is a mask for each pruned parameter, of its shape, and no other."""
        shapes = {}
        for index, layer in enumerate(model.layers):
            for one in find_glu(layer, model.folder.name).projections:
                shapes[model.parameter_name(index, one.parameter)] = list(one.linear.weight.shape)
        names = set(self._file.keys())
        if different := names ^ shapes.keys():
            name = min(different)
            what = "holds no mask of" if name in shapes else "also holds"
            raise ModelError(
                f"{self._path}: {what} {name}; give one mask for each weight of the gated MLPs"
            )
        for name, shape in shapes.items():
            stored = self._file.get_slice(name)
            if stored.get_shape() != shape:
                raise ModelError(
                    f"{self._path}: {name} is {stored.get_shape()}, but the model's is {shape}; "
                    f"{REMEDY}"
                )
            if stored.get_dtype() not in ("BOOL", "U8"):
                raise DataError(
                    f"{self._path}: {name} is {stored.get_dtype()}, no mask; give bool or uint8"
                )
        return {"file": self._path.name, "sha256": sha256(self._path)}

    def read(self, parameter: str) -> tuple[Tensor | None, Tensor]:
        """The mask."""
        mask: Tensor = self._file.get_tensor(parameter)
        if mask.dtype == torch.uint8 and int(mask.max()) > 1:
            raise DataError(
                f"{self._path}: {parameter} holds other values than 0 and 1; write those"
            )
        return None, mask.bool()


def _file(path: str) -> GivenMasks:
    """A file of masks: this project's, if it says so, or a plain one."""
    try:
        with safe_open(path, framework="pt") as file:
            ours = str((file.metadata() or {}).get("format", "")).startswith("dass-pruned")
    except (SafetensorError, OSError) as error:
        what = " ".join(str(error).split())
        raise DataError(f"{path}: no safetensors file ({what}); give a file of masks") from None
    return Ours(path) if ours else Plain(path)


def check_pattern(mask: Tensor, pattern: Pattern, tolerance: float, name: str) -> None:
    """Check a given mask, bool [out, in].

    Raises:
        PatternError: its share of zeros is off by more than ``tolerance`` and the rounding down of
            rows, or more than N of some M are kept, along the input as along the output (along
            either of them, if the pattern's groups lie along both).
    """
    zeros = 1 - int(mask.count_nonzero()) / mask.numel()
    off = zeros - pattern.sparsity
    if not -tolerance - 1 / min(mask.shape) <= off <= tolerance:
        raise PatternError(
            f"{name}: the given mask has {zeros:.2%} zeros, but {pattern} asks for "
            f"{pattern.sparsity:.2%}; name the pattern that it has (0 means pruned)"
        )
    if isinstance(pattern, NofM):
        crowded = [_crowded(one, pattern) for one in (mask, mask.t())]
        if any(crowded) if pattern.both else all(crowded):
            raise PatternError(
                f"{name}: the given mask is not {pattern}: {crowded[0]} groups along the input "
                f"keep more, and {crowded[1]} along the output; name the pattern that it has"
            )


def _crowded(mask: Tensor, pattern: NofM) -> int:
    """How many groups along the last dimension keep more than N; all where M does not fit."""
    if mask.shape[1] % pattern.group:
        return mask.numel() // pattern.group
    kept = mask.reshape(-1, pattern.group).sum(1)
    return int((kept > pattern.kept).count_nonzero())
