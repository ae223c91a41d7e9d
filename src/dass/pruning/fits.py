"""Whether what is asked for fits a model, found out on shapes alone, before the first block."""

from collections.abc import Sequence

import torch

from dass.errors import PatternError
from dass.models.neurons import moves_of
from dass.models.streamed import StreamedModel
from dass.models.targets import targets_of
from dass.pruning.method import Method
from dass.pruning.method_checks import check_groups, check_permutes, comparison_of
from dass.pruning.patterns import NofM, Pattern, Unstructured, check_fit
from dass.terms import ROLES_OF, Targets


def patterns_of_blocks(
    model: StreamedModel, pattern: Pattern | Sequence[Pattern]
) -> Sequence[Pattern]:
    """The pattern of each block.

    Raises:
        PatternError: there is not one for each.
    """
    patterns = [pattern] * model.n_blocks if isinstance(pattern, Unstructured | NofM) else pattern
    if len(patterns) != model.n_blocks:
        raise PatternError(
            f"{model.folder.name}: {len(patterns)} patterns for {model.n_blocks} blocks; give one "
            "for each"
        )
    return patterns


def check_fits(
    model: StreamedModel,
    method: Method,
    patterns: Sequence[Pattern],
    targets: Targets,
    permute: bool,
) -> None:
    """Groups fit where the method lays them, and neurons can be permuted if they are to be.

    Raises:
        ConfigError: nothing can be permuted for the method.
        PatternError: the pattern does not fit a matrix, or the method.
        ModelError: no block has what is to be pruned, or an MLP's neurons cannot be permuted.
    """
    blocks = targets_of(model.layers, model.folder.name, targets)
    axes = {role: comparison_of(method, role).axis for role in ROLES_OF[targets]}
    for index, (block, pattern) in enumerate(zip(blocks, patterns, strict=True)):
        if not isinstance(pattern, NofM):
            continue
        check_groups(method, pattern, targets)
        where = f"{model.folder.name}, block {index}"
        for projection in block.projections:
            shape = (projection.weight.shape[0], projection.weight.shape[1])
            check_fit(shape, pattern, axes[projection.role], f"{where}, {projection.name}")
        if permute:
            check_permutes(method, pattern, targets)
            for glu in block.glus:
                order = torch.arange(glu.intermediate_size)
                moves_of(glu, model.layers[index], order, where)
