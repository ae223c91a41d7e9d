"""A model's tokenizer: text to token ids, with its own defaults but for what it appends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dass.data.model_config import read_object
from dass.data.pretrained import (
    PROBES,
    TOKENIZER_CONFIG,
    load_config,
    load_tokenizer_of,
    one_line,
)
from dass.errors import DataError
from dass.runtime.progress import log
from dass.terms import Bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], list[int]]
"""Text to token ids, with whatever the tokenizer puts in front by default (BOS)."""


def load_tokenizer(folder: str | Path, bos: Bos = "text") -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Special tokens that it appends to a text (EOS) are taken off, wherever it is used: else each
    continuation would end in them, and one-token choices would all be the same. What it puts in
    front (BOS) stays.

    Raises:
        DataError: the folder has no usable tokenizer, or one that does not fit the model or may
            give a text other tokens the next time; with ``bos: window``, one that puts anything but
            BOS in front of a text: no window would begin as its model was trained to.
        ModelError: config.json, which says how many tokens the model knows, is malformed.
    """
    folder = Path(folder)
    known = int(load_config(folder).get_text_config().vocab_size)
    tokenizer = load_tokenizer_of(folder)
    tokenizer.model_max_length = int(1e30)  # long texts are cut by us, not warned about
    _check_deterministic(tokenizer, folder)
    front, back = _added(tokenizer, folder)
    tokenizer.dass_appended = _remove_suffix(tokenizer, folder, front, back)
    _check_vocabulary(tokenizer, known, folder)
    if bos == "window" and tokenizer.bos_token is not None:
        _check_front(tokenizer, folder, front)
    tokenizer.dass_bos_unheeded = _unheeded_bos(tokenizer, folder, front) if bos == "text" else ""
    tokenizer.dass_known = known
    if appended := tokenizer.dass_appended:
        log.info("%s: its tokenizer appends %s to a text: taken off", folder.name, appended)
    return tokenizer


def departures(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """For the record: where :func:`load_tokenizer` departs from transformers, if anywhere.

    What it keeps the tokenizer from appending, and the class that it leaves for tokenizer.json;
    and the ``add_bos_token`` of tokenizer_config.json that transformers departs from.
    """
    said = {
        "tokens_taken_off": "dass_appended", "tokenizer_class_left": "dass_class_left",
        "add_bos_token_unheeded": "dass_bos_unheeded",
    }  # fmt: skip
    found = {key: getattr(tokenizer, name, "") for key, name in said.items()}
    return {key: value for key, value in found.items() if value}


def encoder(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """The tokenizer as a function, with its defaults: BOS in front where it puts one.

    The function raises DataError where a text has a token that the model has no embedding of.
    """
    known = getattr(tokenizer, "dass_known", len(tokenizer))

    def encode(text: str) -> list[int]:
        tokens = _tokens(tokenizer, text)
        if tokens and max(tokens) >= known:
            name = tokenizer.convert_ids_to_tokens(max(tokens))
            raise DataError(
                f"{tokenizer.name_or_path}: a text has the token {name!r} ({max(tokens)}), but the "
                f"model knows {known} only (vocab_size); give the tokenizer that belongs to it"
            )
        return tokens

    return encode


def _check_deterministic(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if dropout := getattr(model, "dropout", None):
        raise DataError(
            f"{folder / 'tokenizer.json'}: model.dropout is {dropout}, so that a text has other "
            "tokens each time; set it to null"
        )


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, known: int, folder: Path) -> None:
    """Refuse tokens beyond the embedding, but for added ones, which a text need not have."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    own = backend.get_vocab(with_added_tokens=False) if backend else tokenizer.get_vocab()
    begin = tokenizer.eos_token if tokenizer.bos_token is None else tokenizer.bos_token
    ids = dict(own) | ({begin: tokenizer.convert_tokens_to_ids(begin)} if begin else {})
    name = max(ids, key=lambda token: ids[token], default=None)
    if name is not None and ids[name] >= known:
        raise DataError(
            f"{folder}: the tokenizer has the token {name!r} ({ids[name]}), but the model knows "
            f"{known} only (vocab_size in config.json); give the tokenizer that belongs to it"
        )


def _remove_suffix(
    tokenizer: PreTrainedTokenizerBase, folder: Path, front: list[int], back: list[int]
) -> str:
    """Keep a tokenizer from appending special tokens; their names, joined."""
    from tokenizers.processors import TemplateProcessing

    names = _names(tokenizer, back)
    if back and getattr(tokenizer, "backend_tokenizer", None):
        tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(front)]
        begin = {"id": "begin", "ids": front, "tokens": tokens}
        first = ["begin"] if front else []
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*first, "$A"], pair=[*first, "$A", "$B"], special_tokens=[begin] * bool(front)
        )
    if back and _added(tokenizer, folder) != (front, []):
        raise DataError(
            f"{folder}: the tokenizer appends {names} to each text, which cannot be taken off; "
            "give one that does not"
        )
    return names


def _check_front(tokenizer: PreTrainedTokenizerBase, folder: Path, front: list[int]) -> None:
    if front not in ([], [tokenizer.bos_token_id]):
        names = _names(tokenizer, front)
        raise DataError(
            f"{folder}: its tokenizer puts {names} in front of a text, but `bos: window` begins "
            f"each window with BOS ({tokenizer.bos_token}) alone; set the model's `bos: text`, or "
            "give a tokenizer that puts BOS there, or nothing"
        )


def _unheeded_bos(tokenizer: PreTrainedTokenizerBase, folder: Path, front: list[int]) -> str:
    """The ``add_bos_token`` of tokenizer_config.json, where a text begins otherwise.

    Classes of transformers 4 obeyed it; those of 5 do as tokenizer.json says.
    """
    file = folder / TOKENIZER_CONFIG
    asked = read_object(file).get("add_bos_token") if file.is_file() else None
    puts = tokenizer.bos_token_id is not None and tokenizer.bos_token_id in front
    if not isinstance(asked, bool) or asked == puts:
        return ""
    log.warning(
        "%s: %s says add_bos_token: %s, which transformers does not heed: texts begin %s BOS",
        folder.name, TOKENIZER_CONFIG, str(asked).lower(), "with" if puts else "without",
    )  # fmt: skip
    return str(asked).lower()


def _names(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The names of tokens; of one that the vocabulary lacks its number."""
    found = zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True)
    return " ".join(str(number if name is None else name) for name, number in found)


def _added(tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts in front of a text, and those that it appends."""
    for text in (PROBES[1], *islice(tokenizer.get_vocab(), 20)):
        bare, full = _tokens(tokenizer, text, add_special_tokens=False), _tokens(tokenizer, text)
        for start in range(len(full) - len(bare) + 1):
            if bare and full[start : start + len(bare)] == bare:
                return full[:start], full[start + len(bare) :]
    raise DataError(
        f"{folder}: what special tokens its tokenizer adds to a text cannot be told; fetch the "
        "model again"
    )


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, **settings: bool) -> list[int]:
    try:
        return list(tokenizer(text, **settings)["input_ids"])
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # Rust's panics are no Exceptions
        raise DataError(
            f"{tokenizer.name_or_path}: its tokenizer fails on a text ({one_line(error)}); fetch "
            "the model again"
        ) from None
