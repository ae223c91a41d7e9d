"""Regional gradients: how a dense block's output would change with each of its weights.

Source: Yang et al., "Wanda++: pruning large language models via regional gradients" (Findings of
ACL 2025), the regional gradient score.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from dass.data.pretrained import one_line
from dass.errors import ModelError, NumericError
from dass.models.batches import Batch
from dass.models.glu import Projection
from dass.models.numerics import all_finite
from dass.models.streamed import StreamedModel
from dass.models.targets import BlockTargets
from dass.pruning.method import Need

Gradients = Mapping[str, Tensor]
"""Parameter -> root mean square of its gradient, float32 of the parameter's shape."""


def regional_gradients(
    model: StreamedModel,
    block: nn.Module,
    found: BlockTargets,
    batches: Sequence[Batch],
    index: int,
    needs: frozenset[Need],
) -> Gradients:
    """G = √(mean over sequences of (∂ ‖block(X)‖₂ / ∂ W)²), of each matrix that is pruned.

    All is computed in float32, on a copy of the block's weights, whatever their dtype: gradients
    of a half-precision model range beyond its dtype. Attention takes the kernel that gives the
    same bits each time.

    Args:
        model: the dense model.
        block: its decoder block ``index``, with its own forward: fused kernels have no backward.
        found: the block's matrices that are pruned.
        batches: of one sequence each; unchanged.
        index: the block's.
        needs: without ``gradient`` nothing is run, and nothing returned.

    Raises:
        ModelError: the block cannot be differentiated.
        NumericError: a gradient is not finite.
    """
    where = f"{model.folder.name}, block {index}"
    names = list(dict.fromkeys(one.parameter for one in found.projections))
    if "gradient" not in needs or not names:
        return {}
    # Weights and activations were made without autograd, which does not take them as they are.
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        own = chain(block.named_parameters(), block.named_buffers())
        tensors = {name: _copy(tensor.detach()) for name, tensor in own}
        weights = [tensors[name].requires_grad_() for name in names]
        sums = [torch.zeros_like(weight, requires_grad=False) for weight in weights]
        for batch in batches:
            args, kwargs = tree_map_only(Tensor, _copy, batch.arguments[index])
            hidden = _copy(batch.hidden.to(weights[0].device))
            try:
                output: Any = functional_call(block, tensors, (hidden, *args), kwargs)
                loss = torch.linalg.vector_norm(output)
                # An expert that no token reaches has no gradient: zeros.
                gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except RuntimeError as error:
                raise ModelError(
                    f"{where} ({type(block).__name__}): has no gradient ({one_line(error)}); "
                    "choose another method"
                ) from None
            for total, gradient in zip(sums, gradients, strict=True):
                total.addcmul_(gradient, gradient)
        for name, total in zip(names, sums, strict=True):
            total.div_(len(batches)).sqrt_()
            if not all_finite(total):
                raise NumericError(
                    f"{where}, {name}: the gradient is not finite; fetch the model again, or "
                    "choose another method"
                )
    return dict(zip(names, sums, strict=True))


def gradient_of(projection: Projection, gradients: Gradients) -> Tensor | None:
    """The part [out, in] of a projection; None: none were collected."""
    if not gradients:
        return None
    whole = gradients[projection.parameter]
    return (whole if projection.expert is None else whole[projection.expert])[projection.rows]


def _copy(tensor: Tensor) -> Tensor:
    """A copy that autograd takes; numbers with a point are float32."""
    floating = tensor.is_floating_point()
    return tensor.to(torch.float32 if floating else tensor.dtype, copy=True)
