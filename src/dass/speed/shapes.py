"""Sizes of known models and of a model folder, and random weights of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dass.errors import ModelError
from dass.models.shape import Shape
from dass.runtime.files import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

SHAPES = {
    "7b": Shape(4096, 11008, 32, 32, 32),
    "13b": Shape(5120, 13824, 40, 40, 40),
    "70b": Shape(8192, 28672, 64, 8, 80),
    "llama3.1-8b": Shape(4096, 14336, 32, 8, 32),
    "mistral-7b": Shape(4096, 14336, 32, 8, 32),
    "gemma-7b": Shape(3072, 24576, 16, 16, 28, 256, "gelu_pytorch_tanh"),
    "tinyllama-1.1b": Shape(2048, 5632, 32, 4, 22),
    "qwen2.5-0.5b": Shape(896, 4864, 14, 2, 24),
    "smollm2-360m": Shape(960, 2560, 15, 5, 32),
    "small": Shape(512, 1408, 8, 8, 12),
    "standin": Shape(128, 384, 4, 4, 4),
    "tiny": Shape(64, 128, 4, 2, 2),
}
"""The paper's models (7b, 13b, 70b: LLaMA2), the small study's, and three to try things out."""


Source = str | Path | Mapping[str, Any]
"""Where sizes come from: a model's folder, or the sizes themselves."""


def shape_of(source: Source) -> Shape:
    """The shape of a model folder, or of the sizes that a config gives."""
    return Shape(**source) if isinstance(source, Mapping) else shape_of_model(source)


def shape_of_model(folder: str | Path) -> Shape:
    """Read a model's sizes from its config.json.

    Raises:
        ModelError: a size is not there, or the activation function is no GLU's that we know.
    """
    config: dict[str, Any] = read_json(Path(folder) / "config.json")
    config = config.get("text_config", config)
    activation = config.get("hidden_activation") or config.get("hidden_act", "silu")
    # Gemma's first configs say gelu and mean its tanh form.
    activation = {"gelu": "gelu_pytorch_tanh", "swish": "silu"}.get(activation, activation)
    if activation not in ("silu", "gelu_pytorch_tanh"):
        raise ModelError(f"{folder}: activation function {activation!r} is not one of a known GLU")
    try:
        heads = config["num_attention_heads"]
        return Shape(
            config["hidden_size"], config["intermediate_size"], heads,
            config.get("num_key_value_heads") or heads, config["num_hidden_layers"],
            config.get("head_dim"), activation,
        )  # fmt: skip
    except KeyError as error:
        raise ModelError(
            f"{folder}/config.json: no {error.args[0]}; name a decoder model"
        ) from None


def random_weight(shape: tuple[int, int], seed: int, dtype: Any, device: Any) -> Tensor:
    """[out, in] of normal values, scaled so that products neither grow nor vanish."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    weight = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    return weight.mul_(shape[1] ** -0.5).to(dtype)


def llama_config(shape: Shape, blocks: int, vocabulary: int = 1024) -> Any:
    """The config of a model of LLaMA's form with these sizes."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_size, num_hidden_layers=blocks, hidden_act=shape.activation,
        vocab_size=vocabulary, max_position_embeddings=8192, tie_word_embeddings=False,
        attn_implementation="sdpa",
    )  # fmt: skip


def random_model(shape: Shape, blocks: int, dtype: Any, device: Any) -> nn.Module:
    """A causal language model of LLaMA's form with random weights."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        config = llama_config(shape, blocks)
        model: nn.Module = LlamaForCausalLM._from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def random_block(shape: Shape, attention: bool) -> tuple[nn.Module, nn.Module]:
    """A decoder block of LLaMA's form in float32 on the CPU, and its rotary embeddings.

    Args:
        shape: its sizes.
        attention: fill its attention as well; otherwise its pages are never touched.
    """
    import torch
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    config = llama_config(shape, 1)
    with torch.device("meta"):
        empty: nn.Module = LlamaDecoderLayer(config, 0)
    layer = empty.to_empty(device="cpu").eval().requires_grad_(False)
    for number, (name, parameter) in enumerate(sorted(layer.named_parameters())):
        if parameter.dim() == 1:
            parameter.data.fill_(1.0)
        elif attention or name.startswith("mlp."):
            rows, columns = parameter.shape
            parameter.data = random_weight((rows, columns), number, torch.float32, "cpu")
    rotary: nn.Module = LlamaRotaryEmbedding(config)
    return layer, rotary
