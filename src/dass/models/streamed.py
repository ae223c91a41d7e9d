"""Stream a causal language model block by block: the model never has to fit.

The model is built without storage; embeddings, final norm and head are read once, a decoder
block only while it is in use. Blocks are run by the model's own code with every argument that
the model itself would have given them, so no architecture is special here: the model's own
``forward`` runs with its blocks replaced by recorders (DESIGN.md, decision 3).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dass.errors import ModelError, NumericError
from dass.models.glu import find_glu
from dass.models.numerics import all_finite
from dass.models.weights import Weights

Overlay = Callable[[str, Tensor], Tensor]
"""Given a tensor's name and its dense value, the value to use: how a pruned file is applied."""


class _Stop(Exception):
    """Ends the model's forward once the last block has been reached."""


@dataclass(frozen=True)
class BlockInputs:
    """What the model hands to its decoder blocks for one batch of tokens."""

    hidden: Tensor
    """[batch, length, hidden]: the embeddings, input of block 0."""
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    """For each block, its positional arguments after the hidden states, and its keywords."""


class _BlockReader:
    """Reads a block's tensors, the next one ahead of time in a thread of its own."""

    def __init__(self, read: Callable[[int], dict[str, Tensor]], device: torch.device) -> None:
        self._read = read
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread: ThreadPoolExecutor | None = None
        self._coming: tuple[int, Future[dict[str, Tensor]]] | None = None

    def prepare(self, index: int) -> None:
        """Begin to read a block."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1)
        self._coming = index, self._thread.submit(self._read_aside, index)

    def take(self, index: int) -> dict[str, Tensor]:
        """The tensors of a block; waits for them if they are on their way."""
        coming, self._coming = self._coming, None
        if coming is None or coming[0] != index:
            return self._read(index)
        tensors = coming[1].result()
        if self._stream is not None:
            current = torch.cuda.current_stream()
            current.wait_stream(self._stream)
            for tensor in tensors.values():
                tensor.record_stream(current)
        return tensors

    @torch.inference_mode()
    def _read_aside(self, index: int) -> dict[str, Tensor]:
        # A stream of its own: copies must not wait for the kernels of the block that computes.
        with torch.cuda.stream(self._stream):
            return self._read(index)


class StreamedModel:
    """A causal language model whose decoder blocks are read when they are used.

    Args:
        folder: a Hugging Face folder with config.json and safetensors.
        dtype: the dtype of weights and activations.
        device: where blocks run.
        overlay: applied to each tensor that is read, e.g. a pruned file.
        resident: keep blocks once they have been read; None: if the whole model fits.
        offload_to: where activations are kept between blocks; None: on ``device`` while they fit.

    Raises:
        ModelError: the folder is incomplete, or the architecture has no GLU.
    """

    def __init__(
        self,
        folder: str | Path,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        overlay: Overlay | None = None,
        resident: bool | None = False,
        offload_to: torch.device | str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.dtype, self.device = dtype, torch.device(device)
        self.overlay = overlay
        self.offload_to = None if offload_to is None else torch.device(offload_to)
        self.weights = Weights(folder)
        self.resident = self._fits() if resident is None else resident
        self.model = _skeleton(self.folder, dtype)
        self.prefix, self.layers = _decoder_blocks(self.model, self.folder)
        # All blocks: some models have a mixture of experts in the later ones only.
        glus = [find_glu(b, f"{self.folder.name}, block {i}") for i, b in enumerate(self.layers)]
        self.glu_parameters = glus[0].parameters
        self._names = [sorted(layer.state_dict()) for layer in self.layers]
        self._empty = [dict(layer.state_dict()) for layer in self.layers]
        self._resident_blocks: set[int] = set()
        self._reader = _BlockReader(self._read_block, self.device)
        self._load_around_blocks()

    def _fits(self) -> bool:
        """Whether all weights take at most half of the memory that is free on the device."""
        size = sum(file.stat().st_size for file in self.weights.files)
        return size < free_memory(self.device) / 2

    @property
    def n_blocks(self) -> int:
        """How many decoder blocks the model has."""
        return len(self.layers)

    @property
    def max_length(self) -> int:
        """The longest sequence that the model's position embeddings were made for."""
        return int(text_config(self.model).max_position_embeddings)

    @property
    def hidden_size(self) -> int:
        """The width of the hidden states."""
        return int(text_config(self.model).hidden_size)

    @property
    def intermediate_size(self) -> int:
        """The number of intermediate neurons of the gated MLP."""
        return find_glu(self.layers[0], self.folder.name).intermediate_size

    @property
    def vocabulary(self) -> int:
        """Logits per token (vocabulary size)."""
        return int(text_config(self.model).vocab_size)

    def parameter_name(self, block: int, name: str) -> str:
        """The checkpoint's name of a block's parameter."""
        return f"{self.prefix}.{block}.{name}"

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """Decoder block ``index`` with its weights in place; they are dropped afterwards.

        Meanwhile the next block is read in the background.
        """
        layer = self.layers[index]
        if index not in self._resident_blocks:
            self._fill(layer, self._reader.take(index))
            if index + 1 < self.n_blocks and index + 1 not in self._resident_blocks:
                self._reader.prepare(index + 1)
        try:
            yield layer
        finally:
            if self.resident:
                self._resident_blocks.add(index)
            else:
                layer.load_state_dict(self._empty[index], assign=True)

    def _read_block(self, index: int) -> dict[str, Tensor]:
        names = {self.parameter_name(index, name): name for name in self._names[index]}
        return {names[full]: tensor for full, tensor in self._read(list(names)).items()}

    @torch.inference_mode()
    def block_inputs(self, tokens: Tensor) -> BlockInputs:
        """Embed ``tokens`` [batch, length] and record what each block would be given."""
        hidden: list[Tensor] = []
        arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def record(states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            hidden.append(states)
            arguments.append((args, kwargs))
            if len(arguments) == self.n_blocks:
                raise _Stop
            return states

        with self._blocks_replaced(record):
            try:  # noqa: SIM105 (a context manager would keep what the exception's frames hold)
                self.model(input_ids=tokens.to(self.device), use_cache=False)
            except _Stop:
                pass
        return BlockInputs(hidden[0], arguments)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """The model's own norm, head and scaling on rows of final hidden states.

        Args:
            hidden: [rows, hidden], the last block's output, any rows of any sequences.

        Returns:
            [rows, vocabulary] in the model's dtype.
        """
        reached = 0
        wanted = hidden.to(self.device, non_blocking=True).unsqueeze(0)

        def replace(states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            nonlocal reached
            reached += 1
            return wanted if reached == self.n_blocks else states

        with self._blocks_replaced(replace):
            tokens = torch.zeros((1, len(hidden)), dtype=torch.long, device=self.device)
            output = self.model(input_ids=tokens, use_cache=False)
        logits: Tensor = output.logits[0]
        return logits

    @contextmanager
    def _blocks_replaced(self, forward: Callable[..., Tensor]) -> Iterator[None]:
        """Let ``forward`` stand in for each decoder block's own."""
        for layer in self.layers:
            layer.forward = forward
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward

    def _read(self, names: list[str]) -> dict[str, Tensor]:
        tensors = self.weights.read(names, self.dtype, self.device)
        if self.overlay is None:
            return tensors
        return {name: self.overlay(name, tensor) for name, tensor in tensors.items()}

    def _fill(self, module: nn.Module, state: dict[str, Tensor], strict: bool = True) -> None:
        """Put tensors in the place of a module's empty ones."""
        try:
            module.load_state_dict(state, strict=strict, assign=True)
        except RuntimeError as error:
            what = str(error).strip().splitlines()[-1].strip()
            raise ModelError(
                f"{self.folder}: the weights do not fit config.json ({what}); fetch the model again"
            ) from None

    def _load_around_blocks(self) -> None:
        """Read embeddings, final norm and head, and move the model's buffers to the device."""
        inside = f"{self.prefix}."
        names = [name for name in self.model.state_dict() if not name.startswith(inside)]
        tied = _tied_head(self.model)
        if tied and tied[0] not in self.weights:
            names.remove(tied[0])
        state = self._read(names)
        if tied and tied[0] not in state:
            state[tied[0]] = state[tied[1]]
        self._fill(self.model, state, strict=False)
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and not buffer.is_meta:
                    module._buffers[name] = buffer.to(self.device)


def check_finite(largest: Sequence[Tensor], where: str) -> None:
    """Raise NumericError if activations overflowed; one synchronisation for all batches.

    Args:
        largest: the :func:`dass.models.numerics.max_abs` of each batch's activations, [].
        where: what to call the place in the error.
    """
    if largest and not all_finite(torch.stack(list(largest))):
        raise NumericError(
            f"{where}: its output is not finite; a model trained in bfloat16 overflows in float16, "
            "set the model's `dtype: bfloat16`"
        )


@contextmanager
def _parameters_without_storage() -> Iterator[None]:
    """Modules built inside get parameters on ``meta``; buffers, which no file holds, are real."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _skeleton(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The model's modules without weights, in evaluation mode."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        # False, not the default: that asks whoever sits at the terminal.
        safe = {"trust_remote_code": False}
        config = AutoConfig.from_pretrained(folder, local_files_only=True, **safe)
        with _parameters_without_storage():
            # The attention is the model's own choice: sdpa, or eager where soft-capping needs it.
            model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype, **safe)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder}: no model can be built from config.json: {first}") from None
    return model.eval()


def text_config(model: nn.Module) -> Any:
    """The config of the language model, also where it is part of a larger one."""
    return model.config.get_text_config()  # type: ignore[union-attr, operator]


def _decoder_blocks(model: nn.Module, folder: Path) -> tuple[str, nn.ModuleList]:
    """The name and the list of the decoder blocks."""
    count = text_config(model).num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and count > 0:
            return name, module
    raise ModelError(f"{folder}: no list of {count} decoder blocks in {type(model).__name__}")


def _tied_head(model: nn.Module) -> tuple[str, str] | None:
    """(name of the head's weight, name of the embedding's) where the config ties them."""
    if not getattr(text_config(model), "tie_word_embeddings", False):
        return None
    modules = {id(module): name for name, module in model.named_modules()}
    head = modules[id(model.get_output_embeddings())]  # type: ignore[operator]
    embedding = modules[id(model.get_input_embeddings())]  # type: ignore[operator]
    return f"{head}.weight", f"{embedding}.weight"


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU or, as far as the system tells, on the host."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 33
