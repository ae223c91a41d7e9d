"""What the tests share: tiny random models of every architecture, and their tokens."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
    from torch import Tensor

    from dass.models.streamed import StreamedModel

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

LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}

MORE: dict[str, dict[str, Any]] = {
    "cohere": {"class": "CohereConfig", "logit_scale": 0.5},
    "cohere2": {"class": "Cohere2Config", "logit_scale": 0.5, "head_dim": 8, **SLIDING},
    "cwm": {"class": "CwmConfig", "head_dim": 8, **SLIDING},
    "diffllama": {"class": "DiffLlamaConfig"},
    "ernie4_5": {"class": "Ernie4_5Config", "head_dim": 8},
    "exaone4": {"class": "Exaone4Config", **SLIDING},
    "gemma4_text": {
        "class": "Gemma4TextConfig",
        "head_dim": 8,
        "global_head_dim": 8,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        **SLIDING,
    },
    "glm": {"class": "GlmConfig", "head_dim": 8},
    "glm4": {"class": "Glm4Config", "head_dim": 8},
    "granitemoehybrid": {
        "class": "GraniteMoeHybridConfig",
        "num_local_experts": 0,
        "shared_intermediate_size": 64,
        "layer_types": ["mamba", "attention", "mamba"],
        **MAMBA,
    },
    "granite_swa": {"class": "GraniteSWAConfig"},
    "helium": {"class": "HeliumConfig", "head_dim": 8},
    "hunyuan_v1_dense": {"class": "HunYuanDenseV1Config", "head_dim": 8},
    "hyperclovax": {"class": "HyperCLOVAXConfig", "head_dim": 8},
    "lfm2": {
        "class": "Lfm2Config",
        "block_auto_adjust_ff_dim": False,
        "layer_types": ["conv", "full_attention", "conv"],
    },
    "minicpm3": {"class": "MiniCPM3Config", **LATENT},
    "ministral": {"class": "MinistralConfig", "head_dim": 8, **SLIDING},
    "ministral3": {"class": "Ministral3Config", "head_dim": 8},
    "modernbert-decoder": {
        "class": "ModernBertDecoderConfig",
        "local_attention": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "olmo": {"class": "OlmoConfig"},
    "olmo3": {"class": "Olmo3Config", **SLIDING},
    "qwen3_5_text": {
        "class": "Qwen3_5TextConfig",
        "head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "recurrent_gemma": {"class": "RecurrentGemmaConfig", "head_dim": 8},
    "seed_oss": {"class": "SeedOssConfig", "head_dim": 8},
    "smollm3": {"class": "SmolLM3Config", "no_rope_layers": [1, 0, 1]},
    "stablelm": {"class": "StableLmConfig", "use_parallel_residual": True},
    "vaultgemma": {
        "class": "VaultGemmaConfig",
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        **SLIDING,
    },
}
"""More of them, tested from end to end in tests/unit/models/test_architectures.py only."""

REFUSED: dict[str, dict[str, Any]] = {
    "opt": {"class": "OPTConfig", "ffn_dim": 64, "word_embed_proj_dim": 32},
    "gpt2": {"class": "GPT2Config"},
    "starcoder2": {"class": "Starcoder2Config"},
    "nemotron": {"class": "NemotronConfig"},
    "gpt_oss": {"class": "GptOssConfig", "num_local_experts": 2, "head_dim": 8},
    "nemotron_h": {
        "class": "NemotronHConfig",
        "layers_block_type": ["mamba", "moe", "attention"],
        "head_dim": 8,
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 32,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
    },
}
"""Architectures without a GLU, or with experts of another form."""

DEEPSEEK: dict[str, Any] = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    **LATENT,
}

EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"class": "MixtralConfig", "num_local_experts": 4},
    "qwen2_moe": {
        "class": "Qwen2MoeConfig",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
    },
    "qwen3_moe": {
        "class": "Qwen3MoeConfig",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "head_dim": 8,
        "mlp_only_layers": [1],
    },
    "olmoe": {"class": "OlmoeConfig", "num_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": {"class": "DeepseekV2Config", **DEEPSEEK},
    "deepseek_v3": {"class": "DeepseekV3Config", **DEEPSEEK},
    "granitemoe": {"class": "GraniteMoeConfig", "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoeshared": {
        "class": "GraniteMoeSharedConfig",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 48,
    },
}
"""Mixtures of experts; deepseek's first block and qwen3_moe's second one are dense."""

FOUR = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "shared_expert_intermediate_size": 48,
}
WITHOUT_LATENT = {key: value for key, value in DEEPSEEK.items() if key not in LATENT}

MORE_EXPERTS: dict[str, dict[str, Any]] = {
    "dots1": {"class": "Dots1Config", "head_dim": 8, **WITHOUT_LATENT},
    "ernie4_5_moe": {
        "class": "Ernie4_5_MoeConfig",
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_intermediate_size": 32,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
    },
    "flex_olmo": {"class": "FlexOlmoConfig", "num_experts": 4, "num_experts_per_tok": 2},
    "glm4_moe": {"class": "Glm4MoeConfig", "head_dim": 8, **WITHOUT_LATENT},
    "hunyuan_v1_moe": {
        "class": "HunYuanMoEV1Config",
        "num_experts": 4,
        "moe_topk": 2,
        "head_dim": 8,
    },
    "jamba": {
        "class": "JambaConfig",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
        "mamba_d_state": 8,
    },
    "lfm2_moe": {
        "class": "Lfm2MoeConfig",
        "num_dense_layers": 1,
        "layer_types": ["conv", "full_attention", "conv"],
        **FOUR,
    },
    "minimax_m2": {
        "class": "MiniMaxM2Config",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 8,
        "rotary_dim": 8,
    },
    "phimoe": {"class": "PhimoeConfig", "num_local_experts": 4},
    "qwen3_5_moe_text": {"class": "Qwen3_5MoeTextConfig", **FOUR, **LINEAR},
    "qwen3_next": {"class": "Qwen3NextConfig", **FOUR, **LINEAR},
}
"""More of them, tested by one method and to one pattern."""

TinyModel = Callable[..., Path]


def damaged(content: bytes) -> SearchStrategy[bytes]:
    """What a disk, a network or a person may make of a file: for the readers' tests."""
    places = st.integers(0, max(len(content) - 1, 0))
    flipped = st.builds(
        lambda place, bit: content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :],
        places, st.sampled_from([1 << n for n in range(8)]),
    )  # fmt: skip
    replaced = st.builds(
        lambda start, stop, new: content[:start] + new + content[stop:],
        places, places, st.binary(max_size=20),
    )  # fmt: skip
    cut = st.builds(lambda stop: content[:stop], places)
    return st.one_of(flipped, replaced, cut, st.binary(max_size=200))


TOGETHER = {"cluster", "faults", "hub", "real"}
"""Folders whose tests share what took minutes to make: all of them go to one worker."""

SLOW = TOGETHER | {"workflow"}
"""Those that take minutes; what the workflow's tests share is made once for all workers."""

MARKED = SLOW | {"gpu"}
"""Folders whose tests carry the folder's name as a marker."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder, where that is one of the slow or demanding ones.

    Those that take minutes come first: at the end one worker would have nothing beside them.
    """
    for item in items:
        if (folder := item.path.parent.name) in MARKED:
            item.add_marker(folder)
    items.sort(key=lambda item: item.path.parent.name not in SLOW)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a file to one worker, or of a whole folder: where xdist is not used, nothing."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.split("/")[-2]
            return folder if folder in TOGETHER else file

    return ByFolder(config, log)


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

    settings = dict((SUPPORTED | MORE | EXPERTS | MORE_EXPERTS | REFUSED)[architecture])
    config = getattr(transformers, settings.pop("class"))(**COMMON | settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(zlib.crc32(architecture.encode()))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 3:  # of all experts
                parameter.copy_(noise / parameter.shape[2] ** 0.5)
            elif parameter.dim() == 1:
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
