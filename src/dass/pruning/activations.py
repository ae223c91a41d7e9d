"""How large the activations of each dense block's GLUs are, channel by channel.

The paper's motivation: some intermediate neurons fire far louder than others, and a pruning metric
that does not see them removes weights that matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dass.errors import ModelError, NumericError
from dass.models.batches import batches_of
from dass.models.fused import fused
from dass.models.glu import GLU, find_glus
from dass.models.streamed import StreamedModel, check_finite
from dass.pruning.block_statistics import BlockStatistics
from dass.pruning.method import Need
from dass.runtime.progress import Progress

NEEDS: frozenset[Need] = frozenset({"input_norm", "intermediate_norm"})

PERCENTILES = (1, 5, 25, 50, 75, 95, 99, 100)

OUTLIER = 5.0
"""A channel whose norm is above so many times the mean of its block is an outlier: OWL's M = 5 (Yin
et al. 2024, arXiv 2310.05175), which counts weights by their Wanda score."""


@dataclass(frozen=True)
class Norms:
    """L2 norms over all calibration tokens of one block's channels."""

    input: Tensor
    """float32 [hidden]: of the GLU's input X, of several over all that goes into any of them."""
    intermediate: Tensor
    """float32 [intermediate]: of Z = act(gate(X)) · up(X), what goes into ``down``; GLU by GLU."""


@torch.inference_mode()
def activation_norms(model: StreamedModel, windows: Tensor) -> list[Norms]:
    """Run windows, int64 [sequences, length], through the dense model; norms of each block.

    Squares are summed up over batches in float64, as :func:`dass.pruning.calibrate.collect` does.

    Raises:
        ModelError: a block has no GLU.
        NumericError: an activation is not finite.
    """
    found = []
    batches = batches_of(model, windows)
    progress = Progress("norms", model.n_blocks, "blocks")
    for index in range(model.n_blocks):
        where = f"{model.folder.name}, block {index}"
        with model.block(index) as block, fused(block):
            glus = find_glus(block, where)
            if len({glu.gate.weight.shape[1] for glu in glus}) != 1:
                raise ModelError(
                    f"{where}: has no GLU, or GLUs of inputs of several widths; leave the model "
                    "out of `blocks`"
                )
            statistics = BlockStatistics(block, glus, NEEDS, batches[0].hidden.device)
            with statistics.watching():
                peaks = [batch.advance(block, index) for batch in batches]
            check_finite(peaks, where)
            found.append(_norms_of(glus, statistics))
        progress.step()
    return found


def _norms_of(glus: Sequence[GLU], statistics: BlockStatistics) -> Norms:
    """The norms of a block, on the host; an expert that no token reaches has none but zeros."""
    inputs, intermediates = [], []
    for glu in glus:
        own = statistics.of(glu)
        reached = statistics.tokens.get(glu.name) != 0
        inputs.append(own.get("input_norm") * reached)
        intermediates.append(own.get("intermediate_norm") * reached)
    together = inputs[0] if len(inputs) == 1 else torch.stack(inputs).double().norm(dim=0).float()
    return Norms(together.cpu(), torch.cat(intermediates).cpu())


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
