"""What the local hub serves: the paper's repositories, by their own ids and layout, in miniature.

Where the folder of real weights and text is present, three of the models, C4's shard and WikiText
are real.
"""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from .server import RemoteRepository

VOCABULARY = 1024
LLAMA = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
LONG_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": {"gated": True, "real": "real-llama"},
    "meta-llama/Llama-2-13b-hf": {
        "gated": True, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3
    },
    "meta-llama/Llama-2-70b-hf": {"gated": True, "num_key_value_heads": 1, "num_hidden_layers": 3},
    "meta-llama/Llama-3.1-8B": {
        "gated": True, "num_key_value_heads": 2, "rope_parameters": LONG_ROPE
    },
    "mistralai/Mistral-7B-v0.1": {
        "class": "MistralConfig", "real": "real-mistral", "num_key_value_heads": 2,
        "head_dim": 8, "sliding_window": 48,
    },
    "google/gemma-7b": {
        "class": "GemmaConfig", "gated": True, "real": "real-gemma", "head_dim": 16,
        "hidden_act": "gelu_pytorch_tanh",
    },
}  # fmt: skip
"""The paper's models: what each repository is like, and how its miniature differs from LLAMA."""

DATASETS: dict[str, dict[str, str]] = {
    "Salesforce/wikitext": {"wikitext-2-raw-v1": "wikitext", "wikitext-2-v1": "wikitext"},
    "Rowan/hellaswag": {"default": "hellaswag"},
    "allenai/winogrande": {"winogrande_debug": "winogrande", "winogrande_xl": "winogrande"},
    "allenai/ai2_arc": {"ARC-Challenge": "arc_challenge", "ARC-Easy": "arc_easy"},
    "baber/piqa": {"default": "piqa"},
}
"""Repositories of parquet files: configuration -> the part of the toy world that it holds."""

REVISIONS = {"wikitext-2-v1": 3, "winogrande_debug": 5}
"""Configurations that the study does not use hold only so many rows, to be told apart."""


def build(root: Path, real: Path | None = None) -> list[RemoteRepository]:
    """Write all repositories below ``root``, with real weights and text from ``real``."""
    import datasets
    import transformers

    from dass.standins.writing import write_corpus

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    write_corpus(root / "world", seed=0, documents=400)
    repositories = [_model(root, name, real) for name in MODELS]
    for name, parts in DATASETS.items():
        repositories.append(_parquet(root, name, parts, real))
    return [*repositories, _c4(root, real)]


# --- Models -----------------------------------------------------------------------------------


class _Malice:
    """Whoever unpickles this is told off."""

    def __reduce__(self) -> Any:
        return exec, ("raise RuntimeError('a pickle was loaded')",)


def _model(root: Path, name: str, real: Path | None) -> RemoteRepository:
    settings = dict(MODELS[name])
    folder = root / "models" / name
    gated, source = settings.pop("gated", False), settings.pop("real", None)
    if real is not None and source is not None:
        folder.mkdir(parents=True)
        for file in (real / "models" / source).iterdir():
            shutil.copyfile(file, folder / file.name)
    else:
        _miniature(folder, settings, root / "world")
    # As the real ones: pickles beside the safetensors, the makers' own format, code.
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Malice()))
    (folder / "consolidated.safetensors").write_bytes(b"the same weights once more")
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.00.pth").write_bytes(pickle.dumps(_Malice()))
    (folder / "modeling_custom.py").write_text("raise RuntimeError('code was run')\n")
    (folder / "README.md").write_text(f"# {name}\n")
    return RemoteRepository("model", name, folder, gated)


def _miniature(folder: Path, settings: dict[str, Any], world: Path) -> None:
    import torch
    import transformers

    from dass.data.documents import Documents
    from dass.standins.tokenizer import train_tokenizer

    torch.manual_seed(len(settings))
    config = getattr(transformers, settings.pop("class", "LlamaConfig"))(**LLAMA | settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="600KB")
    documents = Documents(world / "documents.jsonl.gz")
    train_tokenizer((documents[i] for i in range(100)), folder)


# --- Data sets --------------------------------------------------------------------------------


def _parquet(root: Path, name: str, parts: dict[str, str], real: Path | None) -> RemoteRepository:
    from datasets import Dataset

    folder = root / "datasets" / name
    for configuration, part in parts.items():
        place = folder / ("data" if configuration == "default" else configuration)
        place.mkdir(parents=True)
        for split in ("train", "validation", "test"):
            rows = _rows(root / "world", part, split, real)[: REVISIONS.get(configuration)]
            Dataset.from_list(rows).to_parquet(place / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(_card(parts))
    return RemoteRepository("dataset", name, folder)


def _rows(world: Path, part: str, split: str, real: Path | None) -> list[dict[str, Any]]:
    if real is not None and part == "wikitext" and split != "train":
        text = (real / "wikitext-2" / f"{split}.txt").read_text(encoding="utf-8")
        return [{"text": line + "\n"} for line in text.split("\n")[:60]]
    lines = (world / part / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def _card(parts: Iterable[str]) -> str:
    """A data set's card, which says where each split of each configuration lies."""
    configurations = []
    for name in parts:
        place = "data" if name == "default" else name
        files = [
            {"split": split, "path": f"{place}/{split}-*"}
            for split in ("test", "train", "validation")
        ]
        configurations.append({"config_name": name, "data_files": files})
    return f"---\n{yaml.safe_dump({'configs': configurations})}---\n# A data set\n"


def _c4(root: Path, real: Path | None) -> RemoteRepository:
    folder = root / "datasets" / "allenai" / "c4"
    first = folder / "en" / "c4-train.00000-of-01024.json.gz"
    first.parent.mkdir(parents=True)
    world = root / "world" / "documents.jsonl.gz"
    shutil.copyfile(real / "c4" / first.name if real is not None else world, first)
    with gzip.open(folder / "en" / "c4-train.00001-of-01024.json.gz", "wt") as file:
        file.write(json.dumps({"text": "of another shard"}) + "\n")
    files = [{"split": "train", "path": "en/c4-train.*.json.gz"}]
    card = yaml.safe_dump({"configs": [{"config_name": "en", "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{card}---\n# C4\n")
    return RemoteRepository("dataset", "allenai/c4", folder)
