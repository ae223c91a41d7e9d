"""A pruned model as a small file: bit-packed masks, and the kept values where a method moves them.

LLaMA2-7B's MLP takes 0.54 GB this way, against 13.5 GB for another dense checkpoint. The file
is safetensors:

``<matrix>.mask``
    uint8 [ceil(out·in / 8)]: the mask in C order, eight entries per byte, the first in the
    highest bit (as ``numpy.packbits``).
``<matrix>.values``
    [kept], in the model's dtype: the kept weights in C order; only of methods that update.
``<gated MLP>.order``
    int32 [neurons], a permutation: where N:M groups lie over the neurons in another order than the
    model's. Masks and values are in the model's own all the same.

A matrix is a parameter of the model, or slice e of one [experts, out, in]: ``<parameter>.e``.
Its metadata holds the run's settings, each matrix's shape and each tensor's hash: a file with a
flipped bit is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dass.errors import DataError, ModelError
from dass.models.glu import find_glus
from dass.models.neurons import Move, moves_of
from dass.models.targets import targets_of
from dass.runtime.files import seal, unseal, writing
from dass.terms import Targets

if TYPE_CHECKING:
    from dass.models.streamed import StreamedModel

FORMAT = "dass-pruned-3"

FLOATS = ("F32", "F16", "BF16")
"""What safetensors calls the dtypes that a model can be run in."""

_WEIGHTS_OF_BITS = (128, 64, 32, 16, 8, 4, 2, 1)


def pack(mask: Tensor) -> Tensor:
    """Bits of a bool tensor, uint8 [ceil(n / 8)], on the host; packed where the mask is."""
    if not mask.is_cuda:
        return torch.from_numpy(np.packbits(mask.flatten().numpy()))
    bits = nn.functional.pad(mask.flatten(), (0, -mask.numel() % 8)).view(torch.uint8).view(-1, 8)
    packed = bits[:, 0] * _WEIGHTS_OF_BITS[0]
    for place in range(1, 8):
        packed.add_(bits[:, place], alpha=_WEIGHTS_OF_BITS[place])
    host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
    host.copy_(packed, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    return host


def unpack(packed: Tensor, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """The bool tensor of ``shape`` that :func:`pack` packed, unpacked on ``device``."""
    count = int(np.prod(shape))
    if torch.device(device).type == "cpu":
        bits = np.unpackbits(packed.numpy(), count=count)
        return torch.from_numpy(bits.view(np.bool_)).reshape(shape)
    weights = torch.tensor(_WEIGHTS_OF_BITS, dtype=torch.uint8, device=device)
    spread = packed.to(device).unsqueeze(1).bitwise_and(weights) != 0
    return spread.flatten()[:count].reshape(shape)


def mask_hash(names: Iterable[str], packed_mask: Callable[[str], Tensor]) -> str:
    """SHA-256 over (parameter name, packed mask) in the order of names, one at a time."""
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode())
        digest.update(packed_mask(name).numpy().tobytes())
    return digest.hexdigest()


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 of a tensor on the host: its dtype, and its bytes."""
    digest = hashlib.sha256(str(tensor.dtype).encode())
    digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class About:
    """What a pruned file says of itself."""

    shapes: dict[str, tuple[int, ...]]
    """Matrix name -> shape of the weight."""
    settings: dict[str, Any]
    """What made it."""
    hashes: dict[str, str]
    """Tensor of the file -> its :func:`tensor_hash`."""

    def metadata(self) -> dict[str, str]:
        """As the file's metadata."""
        return {"format": FORMAT, "about": seal(asdict(self))}


def save_pruned(
    path: str | Path,
    masks: dict[str, Tensor],
    values: dict[str, Tensor],
    shapes: dict[str, tuple[int, ...]],
    settings: dict[str, Any],
    orders: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a pruned file.

    Args:
        path: where to.
        masks: matrix name -> packed mask.
        values: matrix name -> kept weights; empty for methods that only mask.
        shapes: matrix name -> shape of the weight.
        settings: what made it; stored with the file.
        orders: gated MLP -> order of its neurons; of those that were permuted.
    """
    tensors = {f"{name}.mask": mask for name, mask in masks.items()}
    tensors |= {f"{name}.values": value for name, value in values.items()}
    tensors |= {f"{name}.order": order for name, order in (orders or {}).items()}
    about = About(shapes, settings, {name: tensor_hash(one) for name, one in tensors.items()})
    with writing(path) as part:
        save_file(tensors, part, metadata=about.metadata())


class PrunedFile:
    """A pruned file, opened for reading; calling it applies it to a tensor of the dense model.

    Args:
        path: of the file.
        of_block: whether it is of a single block, which may have nothing to prune.

    Raises:
        DataError: the file is missing, damaged or of another format: its metadata and what its
            header says of each tensor fit each other.
    """

    def __init__(self, path: str | Path, of_block: bool = False) -> None:
        self.path = Path(path)
        try:
            self._file = safe_open(self.path, framework="pt")
            keys, metadata = set(self._file.keys()), self._file.metadata() or {}
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such pruned file; prune again") from None
        except Exception as error:  # whatever a damaged header makes safetensors raise
            raise self._damaged(" ".join(str(error).split()) or type(error).__name__) from None
        if metadata.get("format") != FORMAT:
            raise DataError(f"{self.path}: not a pruned file of format {FORMAT}; prune again")
        try:
            self.about = About(**unseal(metadata.get("about", "")))
            self.shapes = {n: tuple(torch.Size(size)) for n, size in self.about.shapes.items()}
            self.settings = dict(self.about.settings)
            if not keys and not of_block:
                raise ValueError("its tensors")
            self.orders = {key.removesuffix(".order") for key in keys if key.endswith(".order")}
            """Gated MLPs whose groups lie in another order of their neurons."""
            self._check_header(keys)
            self.experts = self._experts()
            """Parameter of all experts -> how many there are."""
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(str(error)) from None
        self._sound: set[str] = set()

    @property
    def targets(self) -> Targets:
        """Which matrices its settings say that it prunes; an older file says nothing: the GLUs."""
        targets: Targets = self.settings.get("targets", "mlp")
        return targets

    def _damaged(self, what: str) -> DataError:
        return DataError(f"{self.path}: damaged pruned file ({what}); prune again")

    def _check_header(self, keys: set[str]) -> None:
        """Each matrix has its mask, and its values if it has any; there is nothing else."""
        if keys != self.about.hashes.keys():
            raise ValueError("its tensors")
        for name, shape in self.shapes.items():
            count = math.prod(shape)
            if len(shape) != 2 or min(shape) < 1:
                raise ValueError(f"shape of {name}")
            mask = self._file.get_slice(f"{name}.mask") if f"{name}.mask" in keys else None
            if mask is None or mask.get_dtype() != "U8" or mask.get_shape() != [-(-count // 8)]:
                raise ValueError(f"mask of {name}")
            keys.remove(f"{name}.mask")
            if f"{name}.values" in keys:
                values = self._file.get_slice(f"{name}.values")
                if values.get_dtype() not in FLOATS or len(values.get_shape()) != 1:
                    raise ValueError(f"values of {name}")
                keys.remove(f"{name}.values")
        for name in self.orders:
            order = self._file.get_slice(f"{name}.order")
            if order.get_dtype() != "I32" or len(order.get_shape()) != 1:
                raise ValueError(f"order of {name}")
            keys.remove(f"{name}.order")
        if keys:
            raise ValueError(f"{min(keys)} belongs to no parameter")

    def _experts(self) -> dict[str, int]:
        slices: dict[str, set[int]] = {}
        for name in self.shapes:
            parameter, _, last = name.rpartition(".")
            if last.isdecimal():
                slices.setdefault(parameter, set()).add(int(last))
        for parameter, numbers in slices.items():
            if numbers != set(range(len(numbers))):
                raise ValueError(f"experts of {parameter}")
        return {parameter: len(numbers) for parameter, numbers in slices.items()}

    def _read(self, key: str) -> Tensor:
        """A tensor; its hash is compared the first time."""
        tensor: Tensor = self._file.get_tensor(key)
        if key not in self._sound and tensor_hash(tensor) != self.about.hashes[key]:
            raise self._damaged(key)
        self._sound.add(key)
        return tensor

    def packed_mask(self, name: str) -> Tensor:
        """uint8: the packed mask of a matrix.

        Raises:
            DataError: it is not the one that was saved.
        """
        return self._read(f"{name}.mask")

    def mask(self, name: str, device: torch.device | str = "cpu") -> Tensor:
        """bool [out, in]: true where the matrix's weight is kept."""
        return unpack(self.packed_mask(name), self.shapes[name], device)

    def order(self, name: str) -> Tensor | None:
        """int64 [neurons]: in which order of its neurons a gated MLP's groups lie; None: its own.

        Raises:
            DataError: it is not the one that was saved, or no permutation.
        """
        if name not in self.orders:
            return None
        order = self._read(f"{name}.order").long()
        if not torch.equal(order.sort().values, torch.arange(len(order))):
            raise self._damaged(f"order of {name}")
        return order

    def moves(self, blocks: Iterable[nn.Module], prefix: str) -> dict[str, Move]:
        """What moves where neurons are put into the orders, by the model's names.

        Args:
            blocks: the decoder blocks, on any device, also ``meta``.
            prefix: the name of their list.

        Raises:
            ModelError: an order is of no gated MLP of the model.
        """
        moves: dict[str, Move] = {}
        left = set(self.orders)
        for index, block in enumerate(blocks if left else ()):
            where = f"{prefix}.{index}"
            for glu in find_glus(block, where):
                order = self.order(f"{where}.{glu.name}")
                if order is not None and len(order) == glu.intermediate_size:
                    own = moves_of(glu, block, order, where)
                    moves |= {f"{where}.{name}": move for name, move in own.items()}
                    left.remove(f"{where}.{glu.name}")
        if left:
            raise ModelError(
                f"{self.path}: orders the neurons of {min(left)}, which is no gated MLP of this "
                "model, or one of another size; prune this model again"
            )
        return moves

    def hash(self) -> str:
        """The hash of all masks, as in the run's pruning.json."""
        return mask_hash(self.shapes, self.packed_mask)

    def check_fits(self, model: StreamedModel, source: Mapping[str, str]) -> None:
        """Raise unless this was made from the model: nothing would be pruned where it was not.

        Args:
            model: the dense model.
            source: of the model, as :func:`dass.runtime.provenance.model_source` says.

        Raises:
            ModelError: it prunes other parameters than the model has of its targets, or other
                weights.
        """
        blocks = targets_of(model.layers, model.folder.name, self.targets)
        wanted = {
            model.parameter_name(index, name)
            for index, block in enumerate(blocks)
            for name in block.matrices
        }
        if different := wanted ^ self.shapes.keys():
            name = min(different)
            what = "does not prune" if name in wanted else "prunes"
            raise ModelError(
                f"{self.path}: made for another model than {model.folder}: it {what} {name}; "
                "prune this model again"
            )
        self.check_source(model.folder, source)

    def check_source(self, folder: Path, source: Mapping[str, str]) -> None:
        """Raise ModelError if this was made from other weights, as far as its settings say."""
        made_from = self.settings.get("model")
        if isinstance(made_from, dict) and made_from.get("weights") != source["weights"]:
            raise ModelError(
                f"{self.path}: made from other weights than {folder} holds; prune this model again"
            )

    def __call__(self, name: str, dense: Tensor, rows: slice | None = None) -> Tensor:
        """The pruned weight of ``name``, or ``dense`` itself where the file says nothing of it.

        Args:
            name: of a parameter, also one of all experts, or of a matrix.
            dense: its value in the dense model.
            rows: which rows of the matrix ``dense`` holds; None: it is whole.

        Raises:
            ModelError: the shape is not that of the model that was pruned.
            DataError: the kept values are not those that were saved, or do not fit the mask.
        """
        if name not in self.shapes:
            return self._of_experts(name, dense)
        count, columns = self.shapes[name]
        start, stop, _ = (rows or slice(None)).indices(count)
        if dense.shape != (stop - start, columns):
            raise ModelError(
                f"{self.path}: made for {name} of shape {list(self.shapes[name])}, but the model's "
                f"has {list(dense.shape)}; prune this model again"
            )
        whole = self.mask(name, dense.device)
        mask = whole[start:stop]
        if f"{name}.values" not in self.about.hashes:
            return dense.masked_fill(~mask, 0)
        values = self._read(f"{name}.values")
        if values.numel() != whole.count_nonzero():
            raise self._damaged(f"values of {name}")
        if rows is not None:
            values = values[int(whole[:start].count_nonzero()) :][: int(mask.count_nonzero())]
        return torch.zeros_like(dense).masked_scatter_(mask, values.to(dense.device, dense.dtype))

    def _of_experts(self, name: str, dense: Tensor) -> Tensor:
        """A parameter [experts, out, in] of which the file prunes each slice; else ``dense``."""
        if name not in self.experts:
            return dense
        if dense.dim() != 3 or len(dense) != self.experts[name]:
            raise ModelError(
                f"{self.path}: made for {name} of {self.experts[name]} experts, but the model's "
                f"has the shape {list(dense.shape)}; prune this model again"
            )
        pruned = torch.empty_like(dense)
        for expert, own in enumerate(dense):
            pruned[expert] = self(f"{name}.{expert}", own)
        return pruned
