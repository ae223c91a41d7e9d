"""What the tests share: tiny random models of every architecture, and their tokens."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from dass.blocks import StreamedModel

COMMON: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Every size is a multiple of 16; the sliding windows below are shorter than the test's texts."""

SLIDING = {
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

SUPPORTED: dict[str, dict[str, Any]] = {
    "llama": {"class": "LlamaConfig", "num_key_value_heads": 4},
    "mistral": {"class": "MistralConfig", "sliding_window": 8, "head_dim": 8},
    "gemma": {
        "class": "GemmaConfig",
        "head_dim": 8,
        "num_key_value_heads": 1,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "gemma2": {"class": "Gemma2Config", "head_dim": 8, "query_pre_attn_scalar": 8, **SLIDING},
    "gemma3": {"class": "Gemma3TextConfig", "head_dim": 8, "query_pre_attn_scalar": 8, **SLIDING},
    "qwen2": {"class": "Qwen2Config"},
    "qwen3": {"class": "Qwen3Config", "head_dim": 8},
    "phi3": {"class": "Phi3Config"},
    "olmo2": {"class": "Olmo2Config"},
    "granite": {
        "class": "GraniteConfig",
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 2.0,
        "attention_multiplier": 0.25,
    },
}
"""Architectures with a GLU in every block, and what sets each apart."""

REFUSED: dict[str, dict[str, Any]] = {
    "opt": {"class": "OPTConfig", "ffn_dim": 64, "word_embed_proj_dim": 32},
    "gpt2": {"class": "GPT2Config"},
    "mixtral": {"class": "MixtralConfig", "num_local_experts": 2},
}
"""Architectures without a GLU, or with several in a block."""

TinyModel = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Where the tests that were collected have imported torch; nothing is imported for it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """``tiny_model("llama")`` writes that model once and gives its folder; copy it to change it.

    ``tiny_model("llama", sharded=True)`` gives the same model in several files.
    """
    root = tmp_path_factory.mktemp("models")

    def folder_of(architecture: str, sharded: bool = False) -> Path:
        folder = root / (f"{architecture}-sharded" if sharded else architecture)
        if not folder.exists():
            model = build_model(architecture)
            model.save_pretrained(folder, max_shard_size="40KB" if sharded else "1GB")
        return folder

    return folder_of


def build_model(architecture: str) -> Any:
    """A model with every parameter random, norms and biases included; the same each time."""
    import torch
    import transformers

    settings = dict((SUPPORTED | REFUSED)[architecture])
    config = getattr(transformers, settings.pop("class"))(**COMMON | settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(zlib.crc32(architecture.encode()))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
    return model


@pytest.fixture(scope="session")
def tokens() -> Tensor:
    """int64 [6, 20]: six windows, longer than the sliding windows."""
    import torch

    return torch.randint(3, 128, (6, 20), generator=torch.Generator().manual_seed(7))


def streamed_logits(model: StreamedModel, tokens: Tensor) -> Tensor:
    """[batch, length, vocabulary] by a streamed model."""
    import torch

    inputs = model.block_inputs(tokens)
    hidden = inputs.hidden
    with torch.inference_mode():
        for index in range(model.n_blocks):
            args, kwargs = inputs.arguments[index]
            with model.block(index) as block:
                hidden = block(hidden, *args, **kwargs)
    return model.logits(hidden.flatten(0, 1)).unflatten(0, tokens.shape)


def whole_logits(folder: Path, tokens: Tensor, dtype: Any = None) -> Tensor:
    """[batch, length, vocabulary] by the model that transformers loads; float32 by default."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or torch.float32).eval()
    with torch.inference_mode():
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits
