"""What tells the blocks of a dense model apart, so that some can be pruned further than others.

One number per block, over the matrices of its GLU: OWL's share of outliers, or AlphaPruning's
exponent of the spectrum's tail. :mod:`dass.pruning.ratios` makes ratios of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dass.errors import ModelError, NumericError
from dass.models.glu import Projection, find_glu
from dass.models.streamed import StreamedModel
from dass.pruning.activations import Norms
from dass.runtime.progress import Progress

BINS = 100
"""Of the histogram whose peak bounds where a spectrum's tail begins."""
BEYOND_PEAK = 1.5
"""A tail begins at most so many times above the peak."""


@dataclass(frozen=True)
class BlockSizes:
    """How large the pruned matrices of a model are."""

    weights: list[int]
    """In each block."""
    sides: list[int]
    """Numbers of rows and columns that occur."""


def block_sizes(model: StreamedModel) -> BlockSizes:
    """The sizes of the matrices that are pruned; no weight is read."""
    blocks = [_projections(model, index, block) for index, block in enumerate(model.layers)]
    shapes = [[one.weight.shape for one in block] for block in blocks]
    return BlockSizes(
        weights=[sum(shape.numel() for shape in block) for block in shapes],
        sides=sorted({side for block in shapes for shape in block for side in shape}),
    )


@torch.inference_mode()
def outlier_shares(model: StreamedModel, norms: Sequence[Norms], outlier: float) -> list[float]:
    """OWL's share of outliers in each block: weights whose Wanda score is far above the mean.

    D = share of |W_ij| · ‖X_j‖₂ above M times their mean, over gate, up and down together.

    Source: Yin et al., "Outlier weighed layerwise sparsity (OWL)" (ICML 2024), section 3, which
    takes attention's matrices in, too: here only those count that are pruned.

    Args:
        model: the dense model.
        norms: of its activations, block by block, as
            :func:`dass.pruning.activations.activation_norms` gives them.
        outlier: M.

    Raises:
        ModelError: the norms are those of another model.
    """
    if len(norms) != model.n_blocks:
        raise ModelError(
            f"{model.folder}: has {model.n_blocks} blocks, but norms are given of {len(norms)}"
        )

    def share(index: int, projections: Sequence[Projection]) -> float:
        own = norms[index]
        seen = [own.intermediate if one.role == "down" else own.input for one in projections]
        scores = [
            one.weight.float().abs() * norm.to(one.weight.device)
            for one, norm in zip(projections, seen, strict=True)
        ]
        count = sum(score.numel() for score in scores)
        mean = sum(float(score.sum(dtype=torch.float64)) for score in scores) / count
        return sum(int((score > outlier * mean).count_nonzero()) for score in scores) / count

    return _of_blocks(model, "outliers", share)


@torch.inference_mode()
def tail_exponents(model: StreamedModel) -> list[float]:
    """AlphaPruning's exponent of each block: the mean of its matrices' :func:`hill_exponent`."""

    def exponent(index: int, projections: Sequence[Projection]) -> float:
        where = f"{model.folder.name}, block {index}"
        found = [hill_exponent(eigenvalues(p.weight), f"{where}, {p.name}") for p in projections]
        return sum(found) / len(found)

    return _of_blocks(model, "spectra", exponent)


def eigenvalues(weight: Tensor) -> Tensor:
    """Eigenvalues of WᵀW that are not zero whatever W, float64 [min(out, in)], lowest first."""
    wide = weight.double()
    rows, columns = wide.shape
    values: Tensor = torch.linalg.eigvalsh(wide @ wide.t() if rows <= columns else wide.t() @ wide)
    return values


def hill_exponent(spectrum: Tensor, name: str) -> float:
    """Hill's estimate of the exponent α of the spectrum's tail, which falls as λ^−α.

    α = 1 + n / Σ ln(λ / λ_min) over the n eigenvalues from λ_min on. λ_min is one of those up to
    1.5 times the peak of the histogram of log λ: the one with which the tail is closest to the
    power law, by the largest distance of the two distribution functions (Kolmogorov–Smirnov).

    Source: Lu et al., "AlphaPruning" (NeurIPS 2024), section 3; where λ_min may lie is as in their
    code (``alpha_peak``).

    Args:
        spectrum: float64 [n], lowest first; what is zero but for rounding is left out.
        name: what to call the matrix in an error.

    Raises:
        NumericError: the spectrum has no tail: fewer than two different eigenvalues.
    """
    values = spectrum.cpu()
    values = values[values > values[-1] * len(values) * torch.finfo(torch.float64).eps]
    if len(values) < 2 or values[0] == values[-1]:
        raise NumericError(
            f"{name}: its singular values do not differ, so that their tail has no exponent; "
            "choose ratios of another kind"
        )
    logarithms = values.log()
    edges = torch.linspace(float(values[0].log10()), float(values[-1].log10()), BINS + 1)
    counts = torch.histc(values.log10().float(), BINS, float(edges[0]), float(edges[-1]))
    highest = BEYOND_PEAK * 10 ** float(edges[int(counts.argmax())])
    best, exponent = math.inf, math.nan
    for start in range(len(values) - 1):
        if start and values[start] > highest:
            break
        count = len(values) - start
        above = logarithms[start:] - logarithms[start]
        if not (total := float(above.sum())):
            break
        alpha = 1 + count / total
        expected = 1 - (above * (1 - alpha)).exp()
        steps = torch.arange(count, dtype=torch.float64) / count
        distance = float((expected - steps).abs().max())
        if distance < best:
            best, exponent = distance, alpha
    return exponent


def _of_blocks(
    model: StreamedModel, what: str, score: Callable[[int, Sequence[Projection]], float]
) -> list[float]:
    """The score of each block's matrices, with the weights in place."""
    progress, found = Progress(what, model.n_blocks, "blocks"), []
    for index in range(model.n_blocks):
        with model.block(index) as block:
            found.append(score(index, _projections(model, index, block)))
        progress.step()
    return found


def _projections(model: StreamedModel, index: int, block: nn.Module) -> tuple[Projection, ...]:
    return find_glu(block, f"{model.folder.name}, block {index}").projections
