"""The one place that has transformers load a config, a model or a tokenizer from a folder.

Code from a folder never runs, and nobody is asked whether it may: where transformers has the
architecture itself, its own is used; where it has not, the folder is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dass.data.model_config import CONFIG, check_config, read_config, read_object
from dass.data.model_folder import check_folder
from dass.errors import DassError, DataError, ModelError
from dass.runtime.imports import importing
from dass.runtime.progress import log

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How everything is loaded."""

TOKENIZER_CONFIG = "tokenizer_config.json"

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""Files that a tokenizer is made from, the best first."""

PROBES = "The", "The cat's 12 mats, 650841823 in 2023.\n\n\tDON'T  sit: x_1 = naïve!?\n"
"""The first word, and all, of a text that tokenizers split in different ways; nothing in it is a
special token."""


# --- Configs and models -----------------------------------------------------------------------


def load_config(folder: str | Path) -> PreTrainedConfig:
    """The config of a model folder.

    Raises:
        ModelError: config.json is missing or malformed, or needs code that transformers lacks.
    """
    folder = Path(folder)
    settings = read_config(folder)
    check_config(settings, folder / CONFIG)
    with importing():
        from transformers import AutoConfig

        _check_architecture(settings, folder / CONFIG)
    # transformers imports an architecture when it is first asked for one.
    with _explained(folder, settings, _config_from), importing():
        return cast("PreTrainedConfig", AutoConfig.from_pretrained(folder, **SAFE))


LENGTH_KEYS = ("n_positions", "max_position_embeddings", "n_ctx")
"""Where a config says how long a sequence may be, in lm-eval's order."""

DEFAULT_LENGTH = 2048
"""How long a sequence may be where nothing says so: lm-eval's default."""


def longest_input(config: PreTrainedConfig) -> int:
    """The longest sequence, in tokens, that lm-eval would give to a model.

    Its rule: the first of its keys that the config has; a model without any (RecurrentGemma, which
    has no position embeddings) gets lm-eval's own default.
    """
    lengths = (getattr(config, key, None) for key in LENGTH_KEYS)
    return int(next((length for length in lengths if length), DEFAULT_LENGTH))


def empty_model(folder: str | Path, dtype: torch.dtype) -> nn.Module:
    """The causal language model of a folder without its weights, in evaluation mode.

    Parameters are on ``meta``; buffers, which no file holds, are real.

    Raises:
        ModelError: no such model can be built from config.json.
    """
    folder = Path(folder)
    config = load_config(folder)
    config.return_dict = True
    building = _explained(folder, read_config(folder), lambda some: _model_from(_config_from(some)))
    with building, importing():
        # The attention is the model's own choice: sdpa, or eager where soft-capping needs it.
        return _model_from(config, dtype=dtype).eval()


def whole_model(folder: str | Path, dtype: torch.dtype, **settings: Any) -> nn.Module:
    """The causal language model of a folder with all its weights, in evaluation mode.

    Args:
        folder: of the model.
        dtype: of the weights.
        settings: further arguments of transformers' ``from_pretrained``.

    Raises:
        ModelError: as :func:`empty_model` and :func:`dass.data.model_folder.check_folder`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    check_folder(folder)
    load_config(folder)
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **SAFE, **settings
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        what = one_line(error)
        raise ModelError(f"{folder}: transformers cannot load the model ({what})") from None
    if unclear := sorted({*loading["missing_keys"], *loading["unexpected_keys"]}):
        raise ModelError(
            f"{folder}: {unclear[0]} is missing from the files or has no place in the model; fetch "
            "the model again"
        )
    return cast("nn.Module", model.eval())


def _check_architecture(settings: Mapping[str, Any], where: Path) -> None:
    """Refuse architectures that transformers lacks, and what is no causal language model."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind, own_code = settings["model_type"], settings.get("auto_map") or {}
    if not isinstance(own_code, dict):
        raise ModelError(f"{where}: auto_map is no object; remove the key")
    if kind not in CONFIG_MAPPING:
        version = f"transformers {transformers.__version__} does not have"
        if own_code:
            raise ModelError(
                f"{where}: model_type {kind!r} needs code of its own (auto_map), and code from a "
                f"model folder never runs; {version} it: give a model that it has"
            )
        raise ModelError(f"{where}: model_type {kind!r}, which {version}; give a model that it has")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(f"{where}: model_type {kind!r} is no causal language model; give one")
    if own_code:
        log.info("%s: auto_map names code, which never runs: transformers' own %s is used",
                 where, kind)  # fmt: skip


def _config_from(settings: Mapping[str, Any]) -> PreTrainedConfig:
    """A config as transformers makes it from the content of config.json."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    made = CONFIG_MAPPING[settings["model_type"]].from_dict(dict(settings))
    return cast("PreTrainedConfig", made)


def _model_from(config: PreTrainedConfig, **settings: Any) -> nn.Module:
    from transformers import AutoModelForCausalLM

    with _parameters_without_storage():
        model: nn.Module = AutoModelForCausalLM.from_config(
            config, trust_remote_code=False, **settings
        )
    return model


@contextmanager
def _parameters_without_storage() -> Iterator[None]:
    """Modules built inside get parameters on ``meta``; buffers, which no file holds, are real."""
    from torch import nn

    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


@contextmanager
def _explained(
    folder: Path, settings: Mapping[str, Any], build: Callable[[dict[str, Any]], object]
) -> Iterator[None]:
    """Whatever transformers raises about a config, as one line that names file and key.

    Args:
        folder: of the model.
        settings: the content of its config.json.
        build: does again what is done inside, from settings of which one is left out.
    """
    try:
        yield
    except (DassError, MemoryError):
        raise
    except Exception as error:
        what = one_line(error)
        keys = _named(settings, what) or _at_fault(settings, build)
        which = f"{', '.join(keys)}: " if keys else ""
        raise ModelError(
            f"{folder / CONFIG}: {which}transformers cannot build the model ({what}); correct it "
            "or fetch the model again"
        ) from None


def one_line(error: BaseException) -> str:
    """The kind of an error and all of its message, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _named(settings: Mapping[str, Any], what: str) -> list[str]:
    """The keys of config.json that a message names, as they are or in words."""
    words = {key: key.replace("num_", "number of ").replace("_", " ") for key in settings}
    return [
        key
        for key, spelled in words.items()
        if re.search(rf"\b({re.escape(key)}|{re.escape(spelled)})\b", what)
    ]


def _at_fault(settings: Mapping[str, Any], build: Callable[[dict[str, Any]], object]) -> list[str]:
    """The keys without any one of which a model can be built; found by trying."""

    def builds(without: str | None) -> bool:
        try:
            build({key: value for key, value in settings.items() if key != without})
        except Exception:
            return False
        return True

    if builds(without=None):  # it is not one of the keys
        return []
    return [key for key in settings if key != "model_type" and builds(without=key)]


# --- Tokenizers -------------------------------------------------------------------------------


def load_tokenizer_of(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, which gives a text the tokens that tokenizer.json says.

    transformers builds some classes again from vocabulary and merges alone. Where tokenizer.json
    splits a text in another way, words and numbers then fall into pieces that the model was never
    trained on: in its place the file is taken as it is, and ``dass_class_left`` names the class.

    Raises:
        DataError: there is none, it is damaged, or it needs code of its own.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = Path(folder)
    _check_tokenizer_code(folder)
    try:
        with _quiet(), importing():
            tokenizer = AutoTokenizer.from_pretrained(folder, **SAFE)
            if not _gives_what_its_file_says(tokenizer, folder):
                left = type(tokenizer).__name__
                log.info("%s: transformers' %s splits texts otherwise than tokenizer.json, which "
                         "is taken as it is", folder.name, left)  # fmt: skip
                tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, **SAFE)
                tokenizer.dass_class_left = left
            return cast("PreTrainedTokenizerBase", tokenizer)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # Rust's panics are no Exceptions
        raise DataError(f"{folder}: {_no_tokenizer(folder, error)}") from None


def _gives_what_its_file_says(tokenizer: Any, folder: Path) -> bool:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    file = folder / VOCABULARIES[0]
    if type(tokenizer) is PreTrainedTokenizerFast or not file.is_file():
        return True  # it is the file, or there is nothing to compare with
    own = Tokenizer.from_file(str(file))
    own.no_truncation()
    own.no_padding()
    first, wanted = (own.encode(text, add_special_tokens=False).ids for text in PROBES)
    tokens = tokenizer(PROBES[1], add_special_tokens=False)["input_ids"]
    settings = folder / TOKENIZER_CONFIG
    if settings.is_file() and read_object(settings).get("add_prefix_space") is not None:
        wanted = wanted[len(first) :]  # how the first word begins is as that says
        tokens = tokens[-len(wanted) :]
    return bool(tokens == wanted)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings about ways that it tries and leaves again."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _check_tokenizer_code(folder: Path) -> None:
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    if not (path := folder / TOKENIZER_CONFIG).is_file():
        return
    config = read_object(path)
    name = config.get("tokenizer_class")
    known = isinstance(name, str) and tokenizer_class_from_name(name) is not None
    if config.get("auto_map") and not known:
        raise DataError(
            f"{path}: tokenizer_class {name!r} needs code of its own (auto_map), and code from a "
            "model folder never runs; give a model whose tokenizer transformers has"
        )


def _no_tokenizer(folder: Path, error: BaseException) -> str:
    """Why a folder has no usable tokenizer, and what to do."""
    files = [file for file in VOCABULARIES if (folder / file).is_file()]
    if not files:
        return f"has no tokenizer ({' or '.join(VOCABULARIES)}); fetch the model again"
    what = f"{files[0]} and {TOKENIZER_CONFIG} make no usable tokenizer ({one_line(error)})"
    if files[0].endswith(".model"):
        return (
            f"{what}; convert it to {VOCABULARIES[0]} where sentencepiece and protobuf are "
            "installed, with AutoTokenizer.from_pretrained() and save_pretrained()"
        )
    return f"{what}; fetch the model again, or install the version of tokenizers that wrote them"
