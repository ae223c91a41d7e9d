"""Run tokens through a streamed model: all batches through block 0, then all through block 1, …"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dass.models.attention import offload
from dass.models.fused import fused
from dass.models.numerics import max_abs
from dass.models.streamed import StreamedModel, check_finite, free_memory
from dass.runtime.memory import free_host_memory
from dass.runtime.progress import Progress

TOKENS_IN_FLIGHT = {"cpu": 4096, "cuda": 16384}
"""How many tokens go through a block at once: enough to fill the device, no more."""

TOKENS_IN_A_SWEEP = 1 << 20
"""How many tokens' hidden states are kept between blocks while a model is streamed, at most."""

WORKSPACE = 4 << 30
"""How many bytes of GPU memory a block may compute in, at most."""

TOKENS_IN_FLIGHT_FROM_HOST = 4096
"""The same, while activations are kept on the host because the GPU is small."""


@dataclass
class Batch:
    """Some sequences on their way through the blocks."""

    hidden: Tensor
    """[batch, length, hidden], the input of the next block."""
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    """The other arguments that the model gives to each block."""

    def run(self, block: nn.Module, index: int) -> Tensor:
        """The output [batch, length, hidden] of block ``index``."""
        args, kwargs = self.arguments[index]
        device = next(block.parameters()).device
        output: Tensor = block(self.hidden.to(device, non_blocking=True), *args, **kwargs)
        return output

    def advance(self, block: nn.Module, index: int) -> Tensor:
        """Let the output of block ``index`` take the place of its input, kept in the same place.

        Returns:
            [], on the block's device: the output's largest absolute value, finite only where
            all of it is.
        """
        output = self.run(block, index)
        self.hidden = offload(output, self.hidden.device, self.hidden)
        return max_abs(output)


def choose_offload(model: StreamedModel, tokens: int, workspace: int = 0) -> torch.device:
    """Where to keep activations between blocks: on the device if they fit, else on the host.

    Room is needed for the hidden states and for as much again (attention's outputs, while a model
    is pruned); half of the free memory is left for blocks and what they compute.

    Args:
        model: whose hidden states they are.
        tokens: how many.
        workspace: bytes of the device that something else will take.
    """
    if model.offload_to is not None or model.device.type != "cuda":
        return model.offload_to or model.device
    needed = 2 * tokens * model.hidden_size * model.dtype.itemsize
    fits = needed < (free_memory(model.device) - workspace) / 2
    return model.device if fits else torch.device("cpu")


def tokens_in_flight(model: StreamedModel, offload_to: torch.device) -> int:
    """How many tokens to send through a block at once, so that what it computes fits."""
    if model.device.type != "cuda":
        return TOKENS_IN_FLIGHT["cpu"]
    wanted = TOKENS_IN_FLIGHT["cuda"] if offload_to.type == "cuda" else TOKENS_IN_FLIGHT_FROM_HOST
    # Gate, up, their product and its activation; some ten hidden states, a few of them float32.
    per_token = model.dtype.itemsize * (4 * model.neurons_per_token + 16 * model.hidden_size)
    room = min(WORKSPACE, free_memory(model.device) / 3)
    return min(wanted, int(room / per_token))


def tokens_in_a_sweep(model: StreamedModel, more: int = 0) -> int:
    """How many tokens' hidden states to keep between blocks: what the memory has room for.

    With fewer the weights are read more often. A power of two, so that the few bytes by which a
    process differs from the next do not move the borders of batches, and with them roundings.

    Args:
        model: whose hidden states they are.
        more: bytes that are kept of each token besides.
    """
    per_token = model.hidden_size * model.dtype.itemsize + more
    room = 0.8 * free_host_memory() - 2 * model.block_bytes  # this block, and the next being read
    tokens = int(room / per_token)
    if model.device.type == "cuda" and model.offload_to is None:
        # On the GPU as choose_offload() sees it, which leaves room for as much again.
        tokens = max(tokens, int(free_memory(model.device) / 4 / per_token))
    fitting = 1 << max(tokens, 1).bit_length() - 1
    return max(min(TOKENS_IN_A_SWEEP, fitting), TOKENS_IN_FLIGHT["cpu"])


def batches_of(
    model: StreamedModel, windows: Tensor, workspace: int = 0, one_by_one: bool = False
) -> list[Batch]:
    """Cut windows [n, length] into batches that fill the device, embedded and ready for block 0.

    ``workspace`` is as of :func:`choose_offload`; ``one_by_one``: each batch is one window.
    """
    offload_to = choose_offload(model, windows.numel(), workspace)
    fitting = max(tokens_in_flight(model, offload_to) // windows.shape[1], 1)
    size = 1 if one_by_one else fitting
    batches: list[Batch] = []
    # Nothing is padded: what blocks are given beside hidden states depends on the shape alone,
    # but for a few architectures that look at the tokens again (Gemma 4).
    arguments: dict[int, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
    for tokens in windows.split(size):
        inputs = model.block_inputs(tokens)
        shared = arguments.setdefault(len(tokens), inputs.arguments)
        own = shared if _same(shared, inputs.arguments) else inputs.arguments
        batches.append(Batch(offload(inputs.hidden, offload_to), own))
    return batches


def _same(one: Any, other: Any) -> bool:
    """Whether two batches may share arguments: equal, with nothing in them to write to."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one) is type(other) is dict:  # a block's keywords; other mappings may be state
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return isinstance(one, str | int | float) and bool(one == other)


class LateCheck:
    """Whether activations are finite, asked of a block while the next one is on its way.

    So the device never waits for the host. Of a model that is streamed each block is asked at
    once: what runs ahead would hold one more block's weights.
    """

    def __init__(self, model: StreamedModel) -> None:
        self._late = model.resident and model.device.type == "cuda"
        self._name = model.folder.name
        self._waiting: tuple[Tensor, torch.cuda.Event, int] | None = None

    def block(self, index: int, peaks: list[Tensor]) -> None:
        """Note the :func:`max_abs` of each batch after a block; raise if one before was not finite.

        Raises:
            NumericError: as :func:`check_finite`.
        """
        if not self._late:
            check_finite(peaks, self._place(index))
            return
        largest = torch.stack(peaks).float()
        host = torch.empty(largest.shape, pin_memory=True).copy_(largest, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        self.end()
        self._waiting = host, done, index

    def end(self) -> None:
        """Look at the last block, too."""
        if self._waiting is not None:
            host, done, index = self._waiting
            done.synchronize()
            check_finite(list(host), self._place(index))

    def _place(self, index: int) -> str:
        return f"{self._name}, block {index}"


@torch.inference_mode()
def run_blocks(model: StreamedModel, batches: list[Batch], progress: Progress) -> None:
    """Take every batch through every block; its hidden states end up as the last block's output."""
    check = LateCheck(model)
    for index in range(model.n_blocks):
        with model.block(index) as block, fused(block):
            peaks = [batch.advance(block, index) for batch in batches]
        check.block(index, peaks)
        progress.step()
    check.end()
