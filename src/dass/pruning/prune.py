"""Calibration + blocks + method + pattern -> the masks of a pruned model.

Sequential, as in the paper: block l is scored on activations that come out of the already
pruned blocks 0..l-1; all of its matrices are scored from one pass through the still dense
block; then the pruned block's outputs feed block l+1. A method that needs no statistics
(magnitude) runs no calibration token at all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor, nn

from dass.errors import NumericError
from dass.models.attention import AttentionMemory
from dass.models.batches import Batch, batches_of
from dass.models.fused import fused
from dass.models.glu import GLU, Projection
from dass.models.numerics import all_finite
from dass.models.streamed import StreamedModel, check_finite
from dass.models.targets import BlockTargets, find_targets, targets_of
from dass.pruning.block_statistics import BlockStatistics
from dass.pruning.clock import Clock
from dass.pruning.fits import check_fits, patterns_of_blocks
from dass.pruning.gradients import Gradients, gradient_of, regional_gradients
from dass.pruning.method import Method, Refined, Statistics, UpdateMethod
from dass.pruning.method_calls import mask_of, scores_of, update_of
from dass.pruning.method_checks import comparison_of
from dass.pruning.neuron_order import Regrouped, regroup, workspace
from dass.pruning.patterns import NofM, Pattern
from dass.pruning.pruned import BlockWriter, Pruned
from dass.pruning.pruned_file import pack
from dass.pruning.resume import BlockCheckpoints
from dass.runtime.progress import Progress, log
from dass.terms import Propagation, Role, Targets


@torch.inference_mode()
def prune(
    model: StreamedModel,
    windows: Tensor,
    method: Method,
    pattern: Pattern | Sequence[Pattern],
    checkpoints: BlockCheckpoints | None = None,
    propagation: Propagation = "pruned",
    targets: Targets = "mlp",
    permute: bool = False,
) -> Pruned:
    """Prune the ``targets`` of every decoder block; nothing else changes.

    Args:
        model: the dense model.
        windows: int64 [sequences, length], the calibration tokens.
        method: how weights are scored or updated.
        pattern: how many of which entries go; or, of each block, its own.
        checkpoints: where masks and values go, block by block, instead of into what is returned;
            blocks that are there already are only run, so that the result is the same to the bit.
        propagation: whose outputs reach the next block: those of the pruned block, as in the paper,
            or of the dense one.
        targets: the GLUs, the linear layers of self attention, or both.
        permute: lay N:M groups over a GLU's neurons in the order in which they keep most of the
            scores, where that is better than its own; nothing else changes.

    Raises:
        ConfigError: a custom method fails, or does not give what it should; or `permute` changes
            nothing for the method.
        PatternError: the pattern does not fit a matrix of the model, or a refinement its groups, or
            there is not one for each block (before any work).
        ModelError: no block has what is to be pruned, or experts are not understood (before any
            work).
        NumericError: weights, activations or scores are not finite, a mask misses its sparsity, or
            scores are below zero where neurons are permuted.
    """
    patterns = patterns_of_blocks(model, pattern)
    check_fits(model, method, patterns, targets, permute)
    pruned, clock = Pruned(), Clock()
    room = _workspace(model, method, windows, targets)
    room += workspace(model.intermediate_size, model.hidden_size) if permute else 0
    needs = method.needs
    batches = batches_of(model, windows, room, "gradient" in needs) if needs else []
    # Outputs of dense attention are none of a block whose attention has been pruned.
    may_replay = targets == "mlp" or propagation == "dense"
    offload_to = batches[0].hidden.device if batches else None
    spare: list[Tensor] = []  # buffers that blocks hand on
    progress = Progress("pruning", model.n_blocks, "blocks")
    with BlockWriter(pruned, checkpoints) as writer:
        for index in range(model.n_blocks):
            if checkpoints is not None and index < checkpoints.done:
                with clock("resuming"):
                    _repeat_block(model, index, batches, checkpoints, pruned, propagation)
                progress.step(note="pruned before")
                continue
            started = time.monotonic()
            with clock("loading"), model.block(index) as block:
                found = find_targets(block, f"{model.folder.name}, block {index}", targets)
                with clock("statistics"):  # before kernels are fused: those have no backward
                    gradients = regional_gradients(model, block, found, batches, index, needs)
                with fused(block):
                    attention = AttentionMemory(block if may_replay else None, offload_to, spare)
                    with clock("statistics"), attention.recording():
                        statistics = BlockStatistics.collected(
                            block, found.glus, batches, index, needs - {"gradient"}, found.linears
                        )
                    if propagation == "dense":
                        with clock("replay"), attention.replaying():
                            _advance(model, block, batches, index)
                    with clock("masks"):
                        own = _prune_block(
                            model, index, found, statistics, gradients, method, patterns[index],
                            permute,
                        )  # fmt: skip
                    del statistics, gradients
                    if propagation == "pruned":
                        with clock("replay"), attention.replaying():
                            _advance(model, block, batches, index)
            with clock("saving"):
                writer.wait()
                writer.keep(index, own, started)
            progress.step(note=_speed(windows, pruned.block_seconds) if batches else "")
        with clock("saving"):
            writer.wait()
    pruned.seconds = clock.seconds
    return pruned


def _workspace(model: StreamedModel, method: Method, windows: Tensor, targets: Targets) -> int:
    """Bytes that a method's statistics take: a Gram matrix, and three while it is factorised.

    Where a block has experts, also what goes into them; and the Gram matrices of attention, with
    their factors; and what gradients take.
    """
    blocks = targets_of(model.layers, model.folder.name, targets)
    modules = max(
        len({glu.path for glu in block.glus if glu.expert is not None}) for block in blocks
    )
    kept = modules * windows.numel() * model.hidden_size * model.dtype.itemsize
    if "gradient" in method.needs:  # float32: the block's weights, their gradients, their squares
        kept += 3 * model.block_bytes // model.dtype.itemsize * torch.float32.itemsize
    if not method.needs & {"input_gram", "intermediate_gram"}:
        return kept
    grams = max(sum(one.linear.in_features**2 for one in block.linears) for block in blocks)
    if "intermediate_gram" in method.needs and targets != "attention":
        grams += 2 * model.intermediate_size**2
    return kept + 2 * grams * torch.float32.itemsize


def _repeat_block(
    model: StreamedModel,
    index: int,
    batches: list[Batch],
    checkpoints: BlockCheckpoints,
    pruned: Pruned,
    propagation: Propagation,
) -> None:
    """Take over a block that an earlier job pruned, and run it if the next one needs it."""
    checkpoint = checkpoints.read(index)
    about = checkpoint.settings
    own = Pruned(
        shapes=checkpoint.shapes,
        sparsity=about["sparsity"],
        expert_tokens=about["expert_tokens"],
        kept_shares=about["kept_shares"],
    )
    pruned.add(own, about["seconds"])
    if not batches or index + 1 == model.n_blocks:
        return  # nothing reads its outputs
    with model.block(index) as block, fused(block):
        for name, weight in block.named_parameters():
            full = model.parameter_name(index, name)
            if propagation == "pruned" and (other := checkpoint(full, weight)) is not weight:
                weight.copy_(other)
        _advance(model, block, batches, index)


def _speed(windows: Tensor, seconds: list[float]) -> str:
    """Calibration tokens that one block takes in a second, on average so far."""
    return f"{windows.numel() * len(seconds) / sum(seconds):,.0f} tokens/s"


def _prune_block(
    model: StreamedModel,
    index: int,
    found: BlockTargets,
    statistics: BlockStatistics,
    gradients: Gradients,
    method: Method,
    pattern: Pattern,
    permute: bool,
) -> Pruned:
    """Prune a block's matrices in place; returns masks, values, sparsity and orders."""
    pruned = Pruned()
    for glu in found.glus:
        own, masks = statistics.of(glu), {}
        name = model.parameter_name(index, glu.name)
        if permute and isinstance(pattern, NofM):
            regrouped = _regroup(model, index, glu, own, gradients, method, pattern)
            pruned.orders[name], pruned.kept_shares[name] = regrouped.order, regrouped.kept
            masks = regrouped.masks
        elif order_of := getattr(method, "order_of", None):  # of masks that were made elsewhere
            pruned.orders |= order_of(name)
        pruned.take(
            _prune_matrices(model, index, glu.projections, own, gradients, method, pattern, masks)
        )
    for _, parts in groupby(found.linears, lambda one: one.matrix):
        linears = tuple(parts)
        own = statistics.of_linear(linears[0])
        pruned.take(_prune_matrices(model, index, linears, own, gradients, method, pattern, {}))
    pruned.expert_tokens = {
        model.parameter_name(index, name): tokens for name, tokens in statistics.tokens.items()
    }
    if silent := sum(tokens == 0 for tokens in pruned.expert_tokens.values()):
        log.info("block %d: no token reaches %d of its %d experts, whose weights are compared by "
                 "size alone", index, silent, len(pruned.expert_tokens))  # fmt: skip
    return pruned


def _regroup(
    model: StreamedModel,
    index: int,
    glu: GLU,
    statistics: Statistics,
    gradients: Gradients,
    method: Method,
    pattern: NofM,
) -> Regrouped:
    """Masks of a GLU whose neurons are permuted before they are grouped."""
    assert not isinstance(method, UpdateMethod | Refined)  # as check_permutes has it
    names = {one.role: model.parameter_name(index, one.name) for one in glu.projections}
    scores = {}
    for one in glu.projections:
        own = replace(statistics, gradient=gradient_of(one, gradients))
        scores[one.role] = scores_of(method, one.role, one.weight, own, names[one.role])
    comparisons = {role: comparison_of(method, role) for role in names}
    return regroup(scores, comparisons, pattern, names)


def _prune_matrices(
    model: StreamedModel,
    index: int,
    projections: Sequence[Projection],
    statistics: Statistics,
    gradients: Gradients,
    method: Method,
    pattern: Pattern,
    found: Mapping[Role, Tensor],
) -> Pruned:
    """Prune the projections of a GLU, or of a linear layer, in place, which are all its rows.

    Masks that are ``found`` already are taken. Returns masks, values and sparsity.
    """
    pruned = Pruned()
    masks: dict[str, list[Tensor]] = {}
    kept: dict[str, int] = {}
    for projection in projections:
        name = model.parameter_name(index, projection.name)
        own = replace(statistics, gradient=gradient_of(projection, gradients))
        mask, count = _prune_projection(projection, own, method, pattern, name, found)
        masks.setdefault(projection.matrix, []).append(mask)
        kept[projection.matrix] = kept.get(projection.matrix, 0) + count
    for projection in projections:
        if projection.matrix not in masks:
            continue
        # A fused matrix holds the rows of gate, then those of up; or of q, k and v.
        mask = torch.cat(masks.pop(projection.matrix))
        name = model.parameter_name(index, projection.matrix)
        weight = projection.whole
        pruned.masks[name] = pack(mask)
        pruned.shapes[name] = tuple(weight.shape)
        pruned.sparsity[name] = 1 - kept[projection.matrix] / mask.numel()
        if isinstance(method, UpdateMethod):
            pruned.values[name] = _to_host(weight[mask])
    return pruned


def _to_host(values: Tensor) -> Tensor:
    """A copy on the host, of a GPU's tensor in pinned memory: any other takes thirty times as long.

    It is whole when it is returned: a thread may write it to a file at once.
    """
    if not values.is_cuda:
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return host


def _prune_projection(
    projection: Projection,
    statistics: Statistics,
    method: Method,
    pattern: Pattern,
    name: str,
    found: Mapping[Role, Tensor],
) -> tuple[Tensor, int]:
    """Prune one projection in place; return the mask of what is kept, and of how many."""
    weight = projection.weight
    if isinstance(method, UpdateMethod):
        updated, mask = update_of(method, projection.role, weight, statistics, pattern, name)
        if not all_finite(updated):
            raise NumericError(f"{name}: the updated weights are not finite; raise `damping`")
        weight.copy_(updated.masked_fill(~mask, 0))  # as the pruned file will have it
    else:
        if projection.role in found:
            mask = found[projection.role]
        else:
            mask = mask_of(method, projection.role, weight, statistics, pattern, name)
        weight.masked_fill_(~mask, 0)
    return mask, _checked_count(mask, pattern, name, getattr(method, "tolerance", 0.0))


def _checked_count(mask: Tensor, pattern: Pattern, name: str, tolerance: float) -> int:
    """How many entries a mask keeps; counted once, since it waits for the GPU.

    No mask may miss its sparsity by more than the rounding down of its groups allows, and by the
    method's own ``tolerance``, if it has one: masks that it was given may be rounded otherwise.
    """
    count = int(mask.count_nonzero())
    achieved = 1 - count / mask.numel()
    allowed = 1 / min(mask.shape)
    if not -1e-9 - tolerance <= pattern.sparsity - achieved <= allowed + tolerance:
        wanted = pattern.sparsity
        raise NumericError(
            f"{name}: sparsity {achieved:.4f}, but {pattern} asks for {wanted}; correct the method"
        )
    return count


def _advance(model: StreamedModel, block: nn.Module, batches: list[Batch], index: int) -> None:
    """Feed a block's outputs to the next one, if there is one."""
    if index + 1 < model.n_blocks:
        peaks = [batch.advance(block, index) for batch in batches]
        check_finite(peaks, f"{model.folder.name}, block {index}")
