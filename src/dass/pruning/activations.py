"""How large the activations of each dense block's GLU are, channel by channel.

The paper's motivation: some intermediate neurons fire far louder than others, and a pruning metric
that does not see them removes weights that matter.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dass.errors import NumericError
from dass.models.batches import batches_of
from dass.models.fused import fused
from dass.models.glu import GLU, find_glu
from dass.models.streamed import StreamedModel, check_finite
from dass.pruning.calibrate import sum_of_squares
from dass.runtime.progress import Progress

PERCENTILES = (1, 5, 25, 50, 75, 95, 99, 100)

OUTLIER = 5.0
"""A channel whose norm is above so many times the mean of its block is an outlier: OWL's M = 5 (Yin
et al. 2024, arXiv 2310.05175), which counts weights by their Wanda score."""


@dataclass(frozen=True)
class Norms:
    """L2 norms over all calibration tokens of one block's channels."""

    input: Tensor
    """float32 [hidden]: of the GLU's input X."""
    intermediate: Tensor
    """float32 [intermediate]: of Z = act(gate(X)) · up(X), what goes into ``down``."""


@torch.inference_mode()
def activation_norms(model: StreamedModel, windows: Tensor) -> list[Norms]:
    """Run windows, int64 [sequences, length], through the dense model; norms of each block.

    Squares are summed up over batches in float64, as :func:`dass.pruning.calibrate.collect` does.

    Raises:
        NumericError: an activation is not finite.
    """
    found = []
    batches = batches_of(model, windows)
    progress = Progress("norms", model.n_blocks, "blocks")
    for index in range(model.n_blocks):
        where = f"{model.folder.name}, block {index}"
        with model.block(index) as block, fused(block):
            sums = _Sums(find_glu(block, where))
            try:
                peaks = [batch.advance(block, index) for batch in batches]
            finally:
                sums.remove()
        check_finite(peaks, where)
        found.append(sums.norms())
        progress.step()
    return found


class _Sums:
    """Sums of squares of what goes into a GLU, and into its ``down``, while its block runs."""

    def __init__(self, glu: GLU) -> None:
        self._squares: dict[str, Tensor] = {}
        self._hooks = [
            self._watch(glu.gate.linear, "input"),
            self._watch(glu.down.linear, "intermediate"),
        ]

    def _watch(self, linear: nn.Linear, name: str) -> torch.utils.hooks.RemovableHandle:
        def see(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            more = sum_of_squares(inputs[0].flatten(0, -2))
            self._squares[name] = more + self._squares.get(name, 0)

        return linear.register_forward_pre_hook(see)

    def remove(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()

    def norms(self) -> Norms:
        """The roots of the sums, on the host."""
        return Norms(**{n: total.sqrt().float().cpu() for n, total in self._squares.items()})


@dataclass(frozen=True)
class Spread:
    """How unequal the channels of one block are."""

    median: float
    percentiles: dict[str, float]
    """Percent -> norm relative to the median: of :data:`PERCENTILES`, linearly interpolated."""
    outliers: float
    """Share of channels whose norm is above :data:`OUTLIER` times the mean."""


def spread_of(norms: Tensor, where: str) -> Spread:
    """The spread of one block's norms [channels].

    Raises:
        NumericError: half of the channels are silent, so that nothing is relative to their median.
    """
    wide = norms.double()
    shares = torch.tensor([one / 100 for one in PERCENTILES], dtype=torch.float64)
    values = dict(zip(map(str, PERCENTILES), wide.quantile(shares).tolist(), strict=True))
    median = values["50"]
    if median == 0:
        raise NumericError(
            f"{where}: half of its channels are never active, so that their median is 0; "
            "leave the model out of `blocks`"
        )
    outliers = float((wide > OUTLIER * wide.mean()).double().mean())
    return Spread(median, {name: value / median for name, value in values.items()}, outliers)
