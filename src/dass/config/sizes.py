"""How much memory the jobs of a model take, from its number of parameters."""

from dass.terms import Dtype

SMALL = 0.1
"""Billions of parameters: below this a model's jobs are small, and run side by side."""

LIBRARIES = 1500
"""MB of a job that imports torch and transformers, and computes with next to nothing."""

CARD = 1000
"""MB more of a large model's job: what CUDA keeps on the host."""

IN_EVALUATION = 1 << 19
"""States for which evaluation asks: enough for WikiText-2 or the paper's five tasks at once."""

VOCABULARY = 128_000
"""Taken for every model: embedding and head of LLaMA 3, tied ones of Gemma's 256,000."""


def job_memory(
    billions: float, dtype: Dtype, states: int, grams: bool = False, gradients: bool = False
) -> int:
    """MB of the host that a job of the streaming engine takes at most.

    Activations count as if the host kept them all, as it does where the GPU is small or missing.
    Widths follow from LLaMA2's: depth and width grow together, and the MLP is 2.7 times as wide.

    Args:
        billions: of the model's parameters.
        dtype: of weights and activations.
        states: how many tokens' hidden states are kept between blocks; while a model is pruned,
            attention's outputs count like them.
        grams: whether a method collects Gram matrices, and factorises them.
        gradients: whether it collects those of a block's weights.
    """
    size = 4 if dtype == "float32" else 2
    growth = (billions / 6.74) ** (1 / 3)
    hidden, blocks = 4096 * growth, 32 * growth
    parts = {
        "states": states * hidden * size,
        "two blocks": 2 * billions * 1e9 / blocks * size,
        "embedding and head": 2 * VOCABULARY * hidden * size,
        "Gram matrix and its factors": 4 * (2.7 * hidden) ** 2 * 4 if grams else 0,
        "weights, gradients and their squares": 3 * billions * 1e9 / blocks * 4 * gradients,
    }
    small = billions < SMALL
    return LIBRARIES + (0 if small else CARD) + int(sum(parts.values()) / 1e6)
