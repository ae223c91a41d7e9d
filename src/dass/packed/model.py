"""Pruned models on packed weights: a drop-in for ``generate``.

:func:`pack_model` turns a model that transformers has loaded; :func:`pack_folder` writes
``packed.safetensors`` beside an export, from which :func:`load_packed` builds a model without the
dense matrices ever standing in memory. An MLP that cannot be packed stays as it is, and the reason
is logged.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import linear

from dass.data.model_config import read_object
from dass.data.model_folder import files_exported
from dass.data.pretrained import empty_model
from dass.errors import DataError, ModelError, PatternError
from dass.models.glu import GLU, find_glu
from dass.models.matching import decoder_blocks, stored_names
from dass.models.weights import Weights
from dass.packed.best import pack_gates, pack_pruned
from dass.packed.linear import Dense, PackedGLU, count_of, dense_of, for_device, packed_of
from dass.packed.product import ACTIVATIONS
from dass.pruning.pruned_file import tensor_hash
from dass.runtime.files import seal, unseal, writing
from dass.runtime.progress import Progress, log
from dass.runtime.provenance import model_source
from dass.terms import ROLES

FORMAT = "dass-packed-3"
PACKED = "packed.safetensors"
"""Beside an export's weights."""

CLOSE = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""How far an MLP's outputs may lie apart, as a share of the largest: sums have another order."""


@torch.inference_mode()
def pack_model(model: nn.Module, bitmap: bool = False, keep_dense: bool = False) -> dict[str, str]:
    """Let every gated MLP of a pruned model run on packed weights, in place.

    Args:
        model: a causal language model of transformers in half precision, weights zero where they
            are pruned. Its blocks are packed where they are; dense weights are given up.
        bitmap: also pack MLPs that are neither 2:4 nor 4:8; that saves memory, and time for up to
            16 tokens at once.
        keep_dense: keep dense weights, too, for more tokens at once than packed ones pay for (16,
            8 on a CPU, 128 or 64 on Hopper): prompts are read as fast as without packing, for half
            as much memory again as the dense MLPs take.

    Returns:
        MLPs that stay as they are -> why; logged as well.
    """
    left: dict[str, str] = {}
    prefix, layers = decoder_blocks(model, Path(type(model).__name__))
    for index, block in enumerate(layers):
        name = f"{prefix}.{index}"
        try:
            path, mlp = packed_mlp(block, name, bitmap, keep_dense)
        except (ModelError, PatternError) as error:
            left[name] = str(error)
            log.info("stays dense: %s", error)
        else:
            _replace(block, path, mlp)
    return left


def pack_folder(folder: str | Path, dtype: torch.dtype, bitmap: bool = False) -> Path:
    """Write ``packed.safetensors`` beside the weights of an exported model, block by block.

    Args:
        folder: an export, zero where it is pruned.
        dtype: float16 or bfloat16.
        bitmap: as for :func:`pack_model`.

    Returns:
        The file.

    Raises:
        ModelError: no MLP of the model can be packed, or one has a form of its own.
        PatternError: a matrix fits no format.
    """
    model, tensors, about = _Folder(folder, dtype), {}, {}
    progress = Progress("packing", len(model.layers), "blocks")
    for index, block in enumerate(model.layers):
        name = model.name(index)
        block.load_state_dict(model.read(index), assign=True)
        path, mlp = packed_mlp(block, name, bitmap, for_file=True)
        for key, buffer in mlp.named_buffers():
            tensors[f"{name}.{path}.{key}"] = buffer.cpu().contiguous()
        about[name] = {"mlp": path, "activation": mlp.activation, "numbers": mlp.numbers}
        block.to("meta")
        progress.step()
    hashes = {key: tensor_hash(tensor) for key, tensor in tensors.items()}
    settings = {"dtype": str(dtype).removeprefix("torch."), "mlps": about, "hashes": hashes}
    settings |= {"model": model.source()}
    with writing(model.folder / PACKED) as part:
        save_file(tensors, part, metadata={"format": FORMAT, "about": seal(settings)})
    return model.folder / PACKED


@torch.inference_mode()
def load_packed(
    folder: str | Path, device: torch.device | str, keep_dense: bool = False
) -> nn.Module:
    """A model of an export and its ``packed.safetensors``, ready to generate.

    Args:
        folder: where both are.
        device: where to.
        keep_dense: as for :func:`pack_model`; unpacked once, on the device.

    Raises:
        DataError: the packed file is missing or damaged.
        ModelError: the folder is incomplete, or its weights or config.json are no more those that
            were packed.
    """
    path = Path(folder) / PACKED
    about, file = _open_packed(path)
    dtype = getattr(torch, about["dtype"])
    model = _Folder(folder, dtype)
    if about["model"] != model.source():
        raise ModelError(f"{path}: packed of another model than {folder}; pack it again")
    for index, block in enumerate(model.layers):
        name = model.name(index)
        mlp = about["mlps"][name]
        weights = {}
        for role in ROLES:
            numbers = mlp["numbers"][role]
            keys = [f"{name}.{mlp['mlp']}.{role}_{place}" for place in range(count_of(numbers))]
            tensors = [file.get_tensor(key) for key in keys]
            hashes = [about["hashes"][key] for key in keys]
            if list(map(tensor_hash, tensors)) != hashes:
                raise DataError(f"{path}: damaged ({keys[0]}); pack the export again")
            stored = packed_of([tensor.to(device) for tensor in tensors], numbers)
            weights[role] = for_device(stored, dtype)
        dense = [dense_of(weights[role], dtype) for role in ROLES] if keep_dense else None
        _replace(block, mlp["mlp"], PackedGLU(**weights, activation=mlp["activation"], dense=dense))
    return model.filled(device)


def packed_mlp(
    block: nn.Module, name: str, bitmap: bool, keep_dense: bool = False, for_file: bool = False
) -> tuple[str, PackedGLU]:
    """The path of a block's gated MLP, and the same on packed weights, checked on a probe.

    Args:
        block: a decoder block; its MLP in half precision, zero where it is pruned.
        name: what to call it in an error.
        bitmap, keep_dense: as for :func:`pack_model`.
        for_file: in the layout of files, which all devices take; otherwise in the device's own.

    Raises:
        ModelError: the MLP has a form of its own.
        PatternError: a matrix fits no format.
    """
    glu = find_glu(block, name)
    path = glu.path
    mlp = block.get_submodule(path)
    where = f"{name}.{path}"
    if any(projection.linear.bias is not None for projection in glu.projections):
        raise ModelError(f"{where}: its projections have biases, which packed ones do not")
    dense = gate, up, down = tuple(projection.weight.data for projection in glu.projections)
    weights = (*pack_gates(gate, up, where, bitmap), pack_pruned(down, f"{where}, down", bitmap))
    if not for_file:
        first, second, third = (for_device(weight, gate.dtype) for weight in weights)
        weights = first, second, third
    packed = PackedGLU(*weights, _activation(mlp, glu), dense if keep_dense else None)
    probe = _probe(glu)
    wanted, got = mlp(probe), packed(probe)
    error = float((got.float() - wanted.float()).abs().max() / wanted.float().abs().max())
    if not error <= CLOSE[gate.dtype]:
        raise ModelError(
            f"{where}: computes something else than down(act(gate(x)) * up(x)) (apart by "
            f"{error:.2g} of the largest output)"
        )
    return path, packed


def _open_packed(path: Path) -> tuple[dict, safe_open]:  # type: ignore[type-arg]
    try:
        file = safe_open(path, framework="pt")
        metadata = file.metadata() or {}
        about = unseal(metadata.get("about", ""))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; write it with dass.packed.pack_folder") from None
    except Exception as error:  # whatever a damaged header makes safetensors raise
        what = " ".join(str(error).split())
        raise DataError(f"{path}: damaged packed file ({what}); pack the export again") from None
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: not a packed file of format {FORMAT}; pack the export again")
    return about, file


class _Folder:
    """A model folder whose blocks are read one by one."""

    def __init__(self, folder: str | Path, dtype: torch.dtype) -> None:
        self.folder, self.dtype = Path(folder), dtype
        self.weights = Weights(folder)
        self.model = empty_model(folder, dtype)
        self.prefix, self.layers = decoder_blocks(self.model, self.folder)
        self.stored = stored_names(self.folder, self.model, self.weights.stored)

    def source(self) -> dict[str, str]:
        """What the model is: hashes of its config.json and weights."""
        return model_source(self.folder, self.weights.files)

    def name(self, index: int) -> str:
        """The name of a block."""
        return f"{self.prefix}.{index}"

    def read(self, index: int) -> dict[str, Tensor]:
        """The tensors of a block, by their names in it."""
        names = {f"{self.name(index)}.{n}": n for n in self.layers[index].state_dict()}
        return {n: self._read(full) for full, n in names.items()}

    def _read(self, name: str, device: torch.device | str = "cpu") -> Tensor:
        return self.weights.read_source(self.stored[name], self.dtype, device)

    def filled(self, device: torch.device | str) -> nn.Module:
        """The model with all weights that its modules still ask for, on a device."""
        from transformers import GenerationConfig

        names = list(self.model.state_dict())
        first = {self.stored[name]: name for name in reversed(names)}  # tied ones are one tensor
        read = {source: self._read(name, device) for source, name in first.items()}
        state = {name: read[self.stored[name]] for name in names}
        self.model.load_state_dict(state, assign=True)
        if (file := self.folder / "generation_config.json") in files_exported(self.folder):
            self.model.generation_config = GenerationConfig.from_dict(read_object(file))
        return self.model.to(device)


def _probe(glu: GLU) -> Tensor:
    """Two tokens [2, hidden] that make gate's outputs neither small nor large."""
    weight = glu.gate.weight
    noise = torch.randn(2, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    size = linear(noise, weight).float().std().clamp(min=1e-6)
    return (2 * noise.float() / size).to(weight)


def _activation(mlp: nn.Module, glu: GLU) -> str:
    """The activation function that an MLP applies to its gate: the one that comes nearest."""
    probe, outputs = _probe(glu), {}
    weights = [projection.weight.data for projection in glu.projections]
    wanted = mlp(probe).float()
    for name in ACTIVATIONS:
        outputs[name] = float((Dense(weights, name)(probe).float() - wanted).abs().max())
    return min(outputs, key=lambda name: outputs[name])


def _replace(block: nn.Module, path: str, mlp: PackedGLU) -> None:
    parent, _, name = path.rpartition(".")
    setattr(block.get_submodule(parent), name, mlp)
