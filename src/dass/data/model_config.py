"""What config.json says of a model, and whether it can be meant: read before any weight."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dass.errors import ModelError

CONFIG = "config.json"

ADAPTER = "adapter_config.json"

QUANTISATION = ("quantization_config", "compression_config")
"""Keys of config.json that say how weights were quantised."""

ATTENTIONS = (None, "eager", "sdpa")
"""What `attn_implementation` may be: the others need a package, or fetch code from a hub."""

OTHER_FILES = {
    "configuration_files": "names other files to read in its place",
    "transformers_weights": "names another file of weights",
    "fusion_config": "has transformers change the model",
}
"""Keys of config.json that would have transformers read something else, and what."""

SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
)
"""Keys of config.json that are whole numbers above 0 wherever they are one number."""

LIMITS = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
"""Keys of config.json of which 0 or less is no limit elsewhere, but leaves nothing over here."""

STRETCHED = ("linear", "dynamic", "yarn")
"""Ways to scale rotary embeddings by a factor that `max_position_embeddings` may not contain."""


def read_config(folder: str | Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        ModelError: the folder or the file is missing, or it is no JSON object.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder; check the model's `path` in the config")
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"{folder}: holds an adapter ({ADAPTER}); merge it into its base model "
            "(merge_and_unload() of peft) and give the folder of the merged model"
        )
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder}: has no {CONFIG}; give a Hugging Face model folder")
    return read_object(folder / CONFIG)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder that holds an object.

    Raises:
        ModelError: it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); fetch the model again") from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ModelError(f"{path}: holds a {kind}, not an object; fetch the model again")
    return content


def text_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that is about the language model: all of it, or `text_config`."""
    text = settings.get("text_config")
    return text if isinstance(text, dict) else settings


def check_config(settings: Mapping[str, Any], where: str | Path) -> None:
    """Refuse what config.json says of a model that would not be read as it was meant.

    Args:
        settings: the content of config.json.
        where: what to call it in an error.

    Raises:
        ModelError: the first problem, with its key.
    """
    if not isinstance(settings.get("model_type"), str):
        raise ModelError(f"{where}: no model_type; give a Hugging Face model folder")
    for part in (settings, text_settings(settings)):
        _check_part(part, where)


def _check_part(settings: Mapping[str, Any], where: str | Path) -> None:
    for key, value in settings.items():
        if isinstance(value, float) and math.isnan(value):
            raise ModelError(
                f"{where}: {key} is {value}, not a number; correct it or fetch the model again"
            )
    for key in QUANTISATION:
        if settings.get(key) is not None:
            raise ModelError(
                f"{where}: {key}{_method(settings[key])}: a quantised checkpoint, which cannot be "
                "pruned; give the unquantised model"
            )
    for key, what in OTHER_FILES.items():
        if settings.get(key) is not None:
            raise ModelError(f"{where}: {key} {what}, which is not supported; remove the key")
    for key in ("attn_implementation", "_attn_implementation"):
        value = settings.get(key)
        for one in value.values() if isinstance(value, dict) else [value]:
            if one not in ATTENTIONS:
                raise ModelError(
                    f"{where}: {key} is {value!r}; it can be eager or sdpa: correct or remove the "
                    "key"
                )
    if settings.get("is_causal") is False or settings.get("use_bidirectional_attention") in (
        True,
        "all",
    ):
        raise ModelError(
            f"{where}: is_causal or use_bidirectional_attention lets tokens attend to later ones; "
            "give a causal language model"
        )
    for key in LIMITS:
        value = settings.get(key)
        unused = key == "sliding_window" and not _has_windows(settings)
        if isinstance(value, int | float) and value <= 0 and not unused:
            raise ModelError(
                f"{where}: {key} is {value}, which would let nothing through; set it to null if "
                "there is no such limit, or correct it"
            )
    _check_sizes(settings, where)


def _has_windows(settings: Mapping[str, Any]) -> bool:
    """Whether some attention may look back over a window only."""
    kinds = settings.get("layer_types") or ["sliding_attention"]
    return settings.get("use_sliding_window") is not False and "sliding_attention" in kinds


def _method(quantisation: Any) -> str:
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
    return f" ({method})" if isinstance(method, str) else ""


def _check_sizes(settings: Mapping[str, Any], where: str | Path) -> None:
    for key in SIZES:
        value = settings.get(key)
        if value is None or isinstance(value, list | dict):  # one per block: transformers' affair
            continue
        if type(value) is not int or value < 1:
            raise ModelError(
                f"{where}: {key} is {value!r}, not a whole number above 0; correct it or fetch the "
                "model again"
            )
    heads, shared = settings.get("num_attention_heads"), settings.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(shared, int) and heads % shared:
        raise ModelError(
            f"{where}: num_attention_heads ({heads}) is no multiple of num_key_value_heads "
            f"({shared}); correct them or fetch the model again"
        )


def check_window(settings: Mapping[str, Any], length: int, where: str | Path) -> None:
    """Refuse windows longer than the model has positions, beyond which its answers mean little.

    A rotary embedding that is scaled reaches as far as its factor says.

    Args:
        settings: the content of config.json, with or without the defaults of its class.
        length: tokens in a window.
        where: what to call it in an error.

    Raises:
        ModelError: the windows are longer.
    """
    text = text_settings(settings)
    longest = text.get("max_position_embeddings")
    if type(longest) is not int:
        return
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else None
    if kind in STRETCHED and isinstance(factor := rope.get("factor"), int | float):
        trained = rope.get("original_max_position_embeddings") or longest
        longest = max(longest, int(factor * trained))
    if length > longest:
        raise ModelError(
            f"{where}: max_position_embeddings is {longest}, but windows have {length} tokens; "
            "lower their `length` in the study's config"
        )
