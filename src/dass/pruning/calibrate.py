"""What one pass of the calibration tokens through a dense block tells about its GLU."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dass.models.batches import Batch
from dass.models.glu import GLU
from dass.models.numerics import HALF, kernels_take
from dass.pruning.method import Need, Statistics


def collect(
    block: nn.Module, glu: GLU, batches: list[Batch], index: int, needs: frozenset[Need]
) -> Statistics:
    """Run every batch through the dense block as far as ``down`` and sum up what is needed.

    Sums of values and of squares are summed up over batches in float64, Gram matrices in float32.

    Args:
        block: decoder block ``index``, and
        glu: its gated MLP.
        batches: what goes in; unchanged.
        needs: which statistics to collect; with none, nothing is run.
    """
    sums = Sums(needs)
    hooks = watch(glu, sums)
    try:
        run_up_to([glu.down.linear], block, batches if needs else [], index)
    finally:
        for hook in hooks:
            hook.remove()
    return sums.statistics()


def run_up_to(
    layers: Collection[nn.Module], block: nn.Module, batches: list[Batch], index: int
) -> None:
    """Run every batch through block ``index`` until each of ``layers`` has been given its input.

    Their own hooks come first. What follows the last of them, such as the product with ``down``, is
    of no use and is not computed.
    """
    waiting: set[nn.Module] = set()

    def enough(layer: nn.Module, _inputs: object) -> None:
        waiting.discard(layer)
        if not waiting:
            raise _SeenEnough

    hooks = [layer.register_forward_pre_hook(enough) for layer in layers]
    try:
        for batch in batches:
            waiting |= set(layers)
            try:
                batch.run(block, index)
            except _SeenEnough:
                # Handled right here: a context manager around it would keep the exception, and
                # with it the activations of the frames that it went through, until the next
                # garbage collection.
                continue
    finally:
        for hook in hooks:
            hook.remove()


class Sums:
    """What is needed of one GLU, summed up over the tokens that reach it."""

    def __init__(self, needs: frozenset[Need]) -> None:
        self._input, self._intermediate = (_Sums(n, needs) for n in ("input", "intermediate"))

    @property
    def tokens(self) -> int:
        """How many tokens have gone in."""
        return self._input.tokens

    def add_input(self, x: Tensor) -> None:
        """Add some tokens' X, [sequences, length, hidden] or, of an expert, [tokens, hidden]."""
        self._input.add(x)

    def add_intermediate(self, z: Tensor) -> None:
        """Add some tokens' Z, [..., intermediate] like X."""
        self._intermediate.add(z)

    def statistics(self) -> Statistics:
        """Those that are needed; the sums are given up."""
        found = self._input.statistics() | self._intermediate.statistics()
        return Statistics(**found)  # type: ignore[arg-type]


class _Sums:
    """What is summed up of the inputs of one layer; ``name`` begins the names of statistics.

    A variance is that within a sequence, averaged over sequences; of an expert, to which tokens of
    all sequences go, that over all its tokens.
    """

    def __init__(self, name: str, needs: frozenset[Need]) -> None:
        self._name = name
        self._needs = {need.removeprefix(f"{name}_") for need in needs if need.startswith(name)}
        self.tokens = 0
        self._totals: dict[str, Tensor] = {}
        self._gram = Gram()

    def add(self, x: Tensor) -> None:
        """Add the tokens of [sequences, length, channels] or [tokens, channels]."""
        tokens = x.flatten(0, -2)
        self.tokens += len(tokens)
        if self._needs & {"norm", "variance"}:
            self._add("squares", sum_of_squares(tokens))
        if self._needs & {"mean", "variance"}:
            sums = x.sum(-2, dtype=torch.float32).double()
            self._add("values", sums.sum(0) if x.dim() > 2 else sums)
            if x.dim() > 2:
                self._add("squared means", sums.square().sum(0) / x.shape[-2])
        if "gram" in self._needs:
            self._gram.add(tokens)

    def _add(self, total: str, more: Tensor) -> None:
        self._totals[total] = more + self._totals.get(total, 0)

    def statistics(self) -> dict[str, Tensor]:
        """Those that are needed, by their names; none where no token was seen."""
        found: dict[str, Tensor] = {}
        if not self.tokens:
            return found
        if "norm" in self._needs:
            found["norm"] = self._totals["squares"].sqrt().float()
        if "gram" in self._needs:
            found["gram"] = self._gram.matrix()
        if "mean" in self._needs:
            found["mean"] = (self._totals["values"] / self.tokens).float()
        if "variance" in self._needs:
            of_all = self._totals["values"].square() / self.tokens
            means = self._totals.get("squared means", of_all)
            variance = (self._totals["squares"] - means) / self.tokens
            found["variance"] = variance.clamp_min(0).float()
        return {f"{self._name}_{one}": value for one, value in found.items()}


def watch(glu: GLU, sums: Sums) -> list[RemovableHandle]:
    """Hooks that add up what goes into a GLU of linear layers, and into its ``down``."""

    def see(add: Callable[[Tensor], None]) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            add(inputs[0])

        return hook

    return [
        glu.gate.linear.register_forward_pre_hook(see(sums.add_input)),
        glu.down.linear.register_forward_pre_hook(see(sums.add_intermediate)),
    ]


def sum_of_squares(x: Tensor) -> Tensor:
    """Σ over tokens of x² for each channel of [tokens, channels], float64; sums are float32."""
    if kernels_take(x, *HALF):  # It reads half precision as it is: PyTorch makes a copy first.
        from dass.models import fused_triton

        return fused_triton.sum_of_squares(x)
    norm: Tensor = torch.linalg.vector_norm(x, dim=0, dtype=torch.float32)
    return norm.double().square()


PANEL = 1536
"""Columns of a Gram matrix that are computed together."""


class Gram:
    """Σ over tokens of x·xᵀ, float32: on and above the diagonal, a panel of columns at a time.

    The matrix is symmetric, so a panel is multiplied with the columns up to its own last one
    only: for LLaMA2-7B's `down` that saves 44 % of the operations. Half-precision inputs on a GPU
    are multiplied on tensor cores with float32 accumulation: their products are exact in
    float32, so nothing is lost against converting them first.
    """

    def __init__(self) -> None:
        self._panels: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        """Add the products of [tokens, channels]."""
        x = x if x.is_cuda and x.dtype in HALF else x.float()
        for number, start in enumerate(range(0, x.shape[1], PANEL)):
            stop = min(start + PANEL, x.shape[1])
            left, right = x[:, :stop].t(), x[:, start:stop]
            if number == len(self._panels):
                shape = (stop, stop - start)
                self._panels.append(torch.zeros(shape, dtype=torch.float32, device=x.device))
            self._panels[number] = _add_product(self._panels[number], left, right)

    def matrix(self) -> Tensor:
        """The whole of it, float32 [channels, channels]; its panels are given up."""
        size = len(self._panels[-1])
        full = self._panels[0].new_empty((size, size))
        stop = size
        while self._panels:
            panel = self._panels.pop()
            start = stop - panel.shape[1]
            full[:stop, start:stop] = panel
            full[start:stop, :start] = panel[:start].t()
            stop = start
        return full


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """total + left · right, in place of ``total``."""
    if left.dtype == torch.float32:
        return total.addmm_(left, right)
    added: Tensor = torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    return added


class _SeenEnough(Exception):
    """Ends a block's forward where all that is needed has been seen."""
