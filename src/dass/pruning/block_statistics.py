"""The statistics of all that is pruned in a block from one pass.

Those of every GLU, also of experts, each over its own tokens; and of attention's linear layers.

Fused experts have no layers to watch. What goes into the module that holds them is kept, with the
router's choice; the statistics of an expert are summed up when they are asked for, from the tokens
that it was chosen for. So only one expert's Gram matrices are in memory at a time, and no block
runs twice.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dass.errors import ModelError
from dass.models.attention import offload
from dass.models.batches import Batch
from dass.models.glu import GLU, Projection
from dass.pruning.calibrate import Sums, run_up_to, watch
from dass.pruning.linear_statistics import LinearStatistics
from dass.pruning.method import Need, Statistics

ARGUMENTS = ("hidden_states", "top_k_index", "top_k_weights")
"""What transformers gives to every module of fused experts, in this order."""

OF_NO_TOKEN: dict[str, Callable[..., Tensor]] = {
    "norm": torch.ones, "variance": torch.ones, "mean": torch.zeros, "gram": torch.eye,
}  # fmt: skip
"""What is assumed of each channel of an expert that no token reaches, by the kind of statistic."""


@dataclass(frozen=True)
class _Routed:
    """What went into a module of fused experts for one batch of tokens."""

    hidden: Tensor
    """[tokens, hidden], where activations are kept."""
    tokens: Tensor
    """[tokens · chosen experts]: rows of ``hidden``, sorted by the expert that they go to."""
    ends: list[int]
    """Of each expert, where its part of ``tokens`` ends."""

    def of(self, expert: int) -> Tensor:
        """The tokens [its tokens, hidden] that go to one expert."""
        start = self.ends[expert - 1] if expert else 0
        return self.hidden[self.tokens[start : self.ends[expert]]]


class BlockStatistics:
    """The statistics of each GLU of a dense block, from what runs through it once.

    Args:
        block: a decoder block, and
        glus: all of its GLUs, or none if they are of no interest.
        needs: which statistics.
        offload_to: where what goes into fused experts is kept.
        linears: linear layers of the block outside its GLUs that are of interest, too.

    Raises:
        ModelError: experts are not called as transformers calls all of its own.
    """

    def __init__(
        self,
        block: nn.Module,
        glus: Sequence[GLU],
        needs: frozenset[Need],
        offload_to: torch.device,
        linears: Sequence[Projection] = (),
    ) -> None:
        self._block, self._glus, self._needs = block, glus, needs
        self._offload_to = offload_to
        self._linears = LinearStatistics(linears, needs)
        self._found: dict[str, Statistics] = {}
        self._routed: dict[str, list[_Routed]] = {}
        self.tokens: dict[str, int] = {}
        """How many tokens reached each expert whose statistics were asked for, by its name."""

    @classmethod
    def collected(
        cls,
        block: nn.Module,
        glus: Sequence[GLU],
        batches: list[Batch],
        index: int,
        needs: frozenset[Need],
        linears: Sequence[Projection] = (),
    ) -> Self:
        """Run every batch through block ``index``; batches are unchanged.

        With no needs, or with nothing of interest, nothing is run. A block with one GLU and no
        experts, or of which only other layers are of interest, is run no further than it must be.
        """
        if not needs or not (glus or linears):
            return cls(block, glus, frozenset(), torch.device("cpu"))
        found = cls(block, glus, needs, batches[0].hidden.device, linears)
        last = list(found._linears.layers)
        if len(glus) == 1 and not glus[0].is_routed:
            last.append(glus[0].down.linear)
        elif glus:
            last = []  # some experts may be reached by no token: all of the block is run
        with found.watching():
            run_up_to(last, block, batches, index)
        return found

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Add up, and keep, what is needed of all that runs through the block inside."""
        sums = [(glu, Sums(self._needs)) for glu in self._glus if glu.expert is None]
        counts = {glu.path: glu.expert + 1 for glu in self._glus if glu.expert is not None}
        hooks = [hook for glu, own in sums for hook in watch(glu, own)] + self._linears.watch()
        for path, count in counts.items():
            module = self._block.get_submodule(path)
            keep = self._keep(path, count)
            hooks.append(module.register_forward_pre_hook(keep, with_kwargs=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if counts and next(self._block.parameters()).is_cuda:
            torch.cuda.synchronize()  # copies to the host are read there
        for glu, own in sums:
            self._found[glu.name] = self._of_sums(glu, own)
        self._linears.finish()

    def _keep(self, path: str, count: int) -> Callable[..., None]:
        routed = self._routed.setdefault(path, [])

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
            hidden, chosen = (given.get(name) for name in ARGUMENTS[:2])
            if not (
                isinstance(hidden, Tensor)
                and isinstance(chosen, Tensor)
                and not chosen.is_floating_point()
                and hidden.dim() == chosen.dim() == 2
                and len(hidden) == len(chosen)
            ):
                raise ModelError(
                    f"{path} ({type(module).__name__}): these experts are not given tokens and the "
                    "router's choice as others are; choose another model"
                )
            # Stable: tokens stay in their order, on every device.
            experts, order = chosen.flatten().sort(stable=True)
            edges = torch.arange(count, device=experts.device)
            ends = torch.searchsorted(experts, edges, right=True).tolist()
            kept = offload(hidden, self._offload_to)
            rows = (order // chosen.shape[1]).to(kept.device)
            routed.append(_Routed(kept.clone() if kept is hidden else kept, rows, ends))

        return hook

    def of_linear(self, linear: Projection) -> Statistics:
        """The statistics of one of the linear layers outside the GLUs."""
        return self._linears.of(linear) if self._needs else Statistics()

    def of(self, glu: GLU) -> Statistics:
        """The statistics of one GLU, over the tokens that reach it; ask before it is pruned.

        Of an expert that no token reaches, each channel's norm is 1 and Gram matrices are the
        identity: a score is then |W|, and no weight that is kept is updated.
        """
        if not self._needs:
            return Statistics()
        if glu.expert is None:
            return self._found[glu.name]
        module: Any = glu.down.holder
        own = Sums(self._needs)
        for routed in self._routed[glu.path]:
            hidden = routed.of(glu.expert)
            if len(hidden):
                hidden = hidden.to(glu.gate.weight.device, non_blocking=True)
                own.add_input(hidden)
                own.add_intermediate(module._apply_gate(linear(hidden, glu.gate.whole)))
        return self._of_sums(glu, own)

    def _of_sums(self, glu: GLU, sums: Sums) -> Statistics:
        if glu.is_routed:
            self.tokens[glu.name] = sums.tokens
        elif not sums.tokens:
            raise ModelError(f"{glu.name}: a gated MLP that no token reaches; choose another model")
        return sums.statistics() if sums.tokens else _of_no_token(glu, self._needs)


def _of_no_token(glu: GLU, needs: frozenset[Need]) -> Statistics:
    """What is assumed of an expert that no token reaches: all channels alike and unrelated."""
    device = glu.down.weight.device
    sizes = {"input": glu.gate.weight.shape[1], "intermediate": glu.intermediate_size}
    found: dict[str, Any] = {}
    for need in needs:
        which, kind = need.split("_")
        found[need] = OF_NO_TOKEN[kind](sizes[which], device=device, dtype=torch.float32)
    return Statistics(**found)
