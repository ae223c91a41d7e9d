"""Stream a causal language model block by block: the model never has to fit.

The model is built without storage; embeddings, final norm and head are read once, a decoder
block only while it is in use. Blocks are run by the model's own code with every argument that
the model itself would have given them, so no architecture is special here: the model's own
``forward`` runs with its blocks replaced by recorders (DESIGN.md, decision 3).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from dass.data.model_config import CONFIG
from dass.data.pretrained import empty_model, longest_input, one_line
from dass.errors import DassError, ModelError, NumericError
from dass.models.fused import fused
from dass.models.glu import glus_of
from dass.models.head import find_head
from dass.models.matching import decoder_blocks, stored_names, text_config
from dass.models.numerics import all_finite
from dass.models.weights import Weights
from dass.runtime.memory import free_host_memory

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
        ModelError: the folder is incomplete, holds what is not understood, or describes a model
            that does not run; the architecture has no GLU, or experts that are not understood.
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
        self.model = empty_model(self.folder, dtype)
        self.prefix, self.layers = decoder_blocks(self.model, self.folder)
        glus = [glu for own in glus_of(self.layers, self.folder.name) for glu in own]
        self.glu_parameters = tuple(dict.fromkeys(p for glu in glus for p in glu.parameters))
        """The names of GLU weights within a block, of whichever blocks have them."""
        self.intermediate_size = max(glu.intermediate_size for glu in glus)
        """The number of intermediate neurons of the model's widest gated MLP."""
        self._stored = stored_names(self.folder, self.model, self.weights.stored)
        """The model's name of each tensor -> what it is filled from."""
        self._names = [sorted(layer.state_dict()) for layer in self.layers]
        self._empty = [dict(layer.state_dict()) for layer in self.layers]
        self._resident_blocks: set[int] = set()
        self._reader = _BlockReader(self._read_block, self.device)
        self._head: nn.Sequential | None = None
        self._load_around_blocks()
        self._dynamic = [
            (module, dict(vars(module)), dict(module._buffers))
            for module in self.model.modules()
            if "dynamic" in str(getattr(module, "rope_type", ""))
        ]
        """Modules that turn positions by the longest sequence so far, as they are before any."""
        self._check_runs()

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
        """The longest sequence that lm-eval would give to the model."""
        return longest_input(text_config(self.model))

    @property
    def rope_changes(self) -> list[int]:
        """Lengths above which the model turns *all* positions of a batch otherwise (LongRoPE)."""
        parameters = getattr(text_config(self.model), "rope_parameters", None) or {}
        # Of all layers, or one of each kind of layer.
        parts = [parameters, *(part for part in parameters.values() if isinstance(part, dict))]
        changes = {
            int(part["original_max_position_embeddings"])
            for part in parts
            if part.get("rope_type") == "longrope"
        }
        return sorted(changes)

    @property
    def block_bytes(self) -> int:
        """About how many bytes a block's weights take."""
        return sum(file.stat().st_size for file in self.weights.files) // self.n_blocks

    @property
    def hidden_size(self) -> int:
        """The width of the hidden states."""
        return int(text_config(self.model).hidden_size)

    @cached_property
    def neurons_per_token(self) -> int:
        """How many intermediate neurons compute on one token in a block, at most."""
        chosen = getattr(text_config(self.model), "num_experts_per_tok", None)
        few = chosen if isinstance(chosen, int) else None
        most = 0
        for own in glus_of(self.layers, self.folder.name):
            routed = [glu.intermediate_size for glu in own if glu.is_routed]
            always = sum(glu.intermediate_size for glu in own if not glu.is_routed)
            most = max(most, always + sum(sorted(routed, reverse=True)[:few]))
        return most

    @property
    def vocabulary(self) -> int:
        """Logits per token (vocabulary size)."""
        return int(text_config(self.model).vocab_size)

    def parameter_name(self, block: int, name: str) -> str:
        """The checkpoint's name of a block's parameter."""
        return f"{self.prefix}.{block}.{name}"

    def read(self, name: str) -> Tensor:
        """One tensor by the model's name, read from its file."""
        return self._read([name])[name]

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """Decoder block ``index`` with its weights in place; they are dropped afterwards.

        Meanwhile the next block is read in the background.
        """
        layer = self.layers[index]
        if index not in self._resident_blocks:
            layer.load_state_dict(self._reader.take(index), assign=True)
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
    def block_inputs(self, tokens: Tensor, **more: Any) -> BlockInputs:
        """Embed ``tokens`` [batch, length] and record what each block would be given.

        Args:
            tokens: int64.
            more: further arguments of the model's forward: ``position_ids``, ``attention_mask``.

        Raises:
            ModelError: the model has no embedding of one of the tokens.
        """
        if tokens.numel() and int(tokens.max()) >= self.vocabulary:
            raise ModelError(
                f"{self.folder}: the model knows {self.vocabulary} tokens (vocab_size), but was "
                f"given the token {int(tokens.max())}; give the tokenizer that belongs to it"
            )
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
                self.model(input_ids=tokens.to(self.device), use_cache=False, **more)
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
        rows = hidden.to(self.device, non_blocking=True)
        if self._head is not None:
            with fused(self._head):
                found: Tensor = self._head(rows)
            return found
        reached = 0
        wanted = rows.unsqueeze(0)

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
        """Let ``forward`` stand in for each decoder block's own; no sequence was seen before."""
        for module, state, buffers in self._dynamic:
            vars(module).clear()
            vars(module).update(state)
            module._buffers.update(buffers)
        for layer in self.layers:
            layer.forward = forward
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward

    def _read(self, names: list[str]) -> dict[str, Tensor]:
        """Read tensors by the model's names; tied ones are one tensor."""
        first = {self._stored[name]: name for name in reversed(names)}
        read = {one: self.weights.read_source(one, self.dtype, self.device) for one in first}
        if self.overlay is not None:
            read = {stored: self.overlay(first[stored], read[stored]) for stored in first}
        return {name: read[self._stored[name]] for name in names}

    def _load_around_blocks(self) -> None:
        """Read embeddings, final norm and head, and move the model's buffers to the device."""
        inside = f"{self.prefix}."
        names = [name for name in self.model.state_dict() if not name.startswith(inside)]
        self.model.load_state_dict(self._read(names), strict=False, assign=True)
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and not buffer.is_meta:
                    module._buffers[name] = buffer.to(self.device)

    @torch.inference_mode()
    def _check_runs(self) -> None:
        """Send two tokens through, so that a config.json that only looks right shows at once."""
        try:
            inputs = self.block_inputs(torch.zeros((1, 2), dtype=torch.long))
            if any(_is_nan(leaf) for leaf in tree_leaves(inputs.arguments)):
                raise ValueError("embeddings or positions are not finite; see rope_parameters")
            hidden = _on_meta(inputs.hidden)
            for index, layer in enumerate(self.layers):
                args, kwargs = tree_map_only(Tensor, _on_meta, inputs.arguments[index])
                try:
                    layer(hidden, *args, **kwargs)
                except Exception:
                    # Not every operation is possible without numbers: these blocks have to run.
                    args, kwargs = inputs.arguments[index]
                    with self.block(index) as block:
                        block(inputs.hidden, *args, **kwargs)
                    break
            self._head = find_head(self.model, inputs.hidden[0], self.logits)
        except (DassError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise ModelError(
                f"{self.folder / CONFIG}: describes a model that does not run ({one_line(error)}); "
                "correct it or fetch the model again"
            ) from None


def _is_nan(value: object) -> bool:
    return isinstance(value, Tensor) and bool(value.isnan().any())


def _on_meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def check_finite(largest: Sequence[Tensor], where: str) -> None:
    """Raise NumericError if activations overflowed; one synchronisation for all batches.

    Args:
        largest: the :func:`dass.models.numerics.max_abs` of each batch's activations, [].
        where: what to call the place in the error.
    """
    if largest and not all_finite(torch.stack(list(largest))):
        raise NumericError(
            f"{where}: its output is not finite; a model trained in bfloat16 overflows in float16, "
            "set the model's `dtype: bfloat16`; in any other case fetch the model again"
        )


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or that this process may still take of the host's."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_host_memory()
