"""The statistics of linear layers outside a GLU: those of each layer's own inputs."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dass.errors import ModelError
from dass.models.glu import Projection
from dass.pruning.calibrate import Sums
from dass.pruning.method import Need, Statistics

INPUT: dict[str, Need] = {
    "norm": "input_norm", "gram": "input_gram", "mean": "input_mean", "variance": "input_variance",
}  # fmt: skip
"""Kind of statistic -> its name, where it is that of a layer's own input."""


class LinearStatistics:
    """What is needed of the inputs of linear layers, summed up over the tokens that reach them.

    q, k and v are given one and the same tensor: its sums are made once, and their
    :class:`Statistics` are one object, so that methods factorise its Gram matrix once, too.

    Args:
        linears: the layers, or rows of them.
        needs: the method's; of each kind that it needs of any input, that of the layer's own.
    """

    def __init__(self, linears: Sequence[Projection], needs: frozenset[Need]) -> None:
        self._names: dict[nn.Module, str] = {one.linear: one.parameter for one in linears}
        self._needs = frozenset(INPUT[need.partition("_")[2]] for need in needs)
        self._first: dict[nn.Module, nn.Module] = {}  # layer -> the first that has the same input
        self._sums: dict[nn.Module, Sums] = {}
        self._found: dict[nn.Module, Statistics] = {}
        self._last: tuple[nn.Module, Tensor] | None = None

    @property
    def layers(self) -> list[nn.Module]:
        """The layers, each once."""
        return list(self._names)

    def watch(self) -> list[RemovableHandle]:
        """Hooks that add up what goes into the layers."""
        return [layer.register_forward_pre_hook(self._see) for layer in self.layers]

    def _see(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        first, x = layer, inputs[0]
        if self._last is not None and self._last[1] is x:
            first = self._last[0]
        self._last = first, x
        if self._first.setdefault(layer, first) is not first:
            raise ModelError(
                f"{self._names[layer]}: has the input of other layers in some batches only, which "
                "is not supported; set `targets: mlp`"
            )
        if first is layer:
            self._sums.setdefault(layer, Sums(self._needs)).add_input(x)

    def finish(self) -> None:
        """Make statistics of the sums, which are given up."""
        self._last = None
        self._found = {layer: sums.statistics() for layer, sums in self._sums.items()}
        self._sums.clear()

    def of(self, linear: Projection) -> Statistics:
        """The statistics of one layer, once all tokens have been seen.

        Raises:
            ModelError: no token reached it.
        """
        if linear.linear not in self._first:
            raise ModelError(
                f"{linear.name}: a layer of attention that no token reaches; set `targets: mlp`"
            )
        return self._found[self._first[linear.linear]]
