"""Whether a result was asked for what a config asks for now."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dass.errors import DataError
from dass.runtime.files import read_json, unseal

FOUND = {"documents", "origins", "threads", "windows"}
"""Of these a file says what was found, which may be fewer than was asked for."""

LONG = 60
"""Of two values, one of which takes more characters, the part that differs is named."""


def asked_otherwise(path: str | Path, asked: Mapping[str, Any]) -> str | None:
    """The first setting of a result, or of tokens, that is asked for otherwise now.

    Args:
        path: the file; one that cannot be read says nothing.
        asked: settings of the run and of what it is made of, by their names in the file.

    Returns:
        As :func:`difference`.
    """
    said = said_in(path)
    return difference({key: said[key] for key in said if key not in FOUND}, asked)


def difference(said: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """The first of the settings in both that are not the same.

    Args:
        said, asked: settings by name, before and now; JSON holds lists for tuples.

    Returns:
        ``seed is 0, not 9``; None where nothing differs.
    """
    both = [key for key in asked if key in said]
    was, now = (_compared({key: of[key] for key in both}) for of in (said, asked))
    return next((_differs(was[k], now[k], k) for k in now if was[k] != now[k]), None)


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them, without a study's name: results may be copied to one of another."""

    def nameless(part: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in part.items() if k != "study" or not isinstance(v, str)}

    return dict(json.loads(json.dumps(settings), object_hook=nameless))


def _differs(said: Any, asked: Any, name: str) -> str:
    """How two values differ; of long ones the first part that does, ``origins.a.revision``."""
    if max(len(repr(said)), len(repr(asked))) > LONG:
        if isinstance(said, list) and isinstance(asked, list) and len(said) == len(asked):
            said, asked = dict(enumerate(said)), dict(enumerate(asked))
        if isinstance(said, dict) and isinstance(asked, dict):
            for key in dict.fromkeys([*said, *asked]):
                if said.get(key) != asked.get(key):
                    return _differs(said.get(key), asked.get(key), f"{name}.{key}")
    return f"{name} is {_short(said)}, not {_short(asked)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def said_in(path: str | Path) -> dict[str, Any]:
    """What a result, or a file of tokens, says that it was asked for; nothing if it is neither."""
    try:
        if Path(path).suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                return _said_of_tokens(unseal(file.metadata()["about"]))
        return _said_of_result(read_json(path))
    except (AttributeError, DataError, KeyError, OSError, SafetensorError, TypeError, ValueError):
        return {}


def _said_of_tokens(about: Mapping[str, Any]) -> dict[str, Any]:
    said = dict(about)
    if "sources" in said:
        said["tasks"] = list(said["sources"])
    if "rows" in said:
        said["splits"] = list(said["source"])
        if said["rows"] is None:  # of documents
            del said["rows"]
    return said


def _said_of_result(content: Mapping[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    made_of = content["provenance"]
    for tokens in ("calibration", "text"):
        said |= made_of.get(tokens, {})
    said |= {**content, **content["settings"]}
    if isinstance(said.get("run"), dict):
        said["run"] = "/".join(part for part in said["run"].values() if part)
    for key in ("splits", "tasks"):
        if isinstance(said.get(key), dict):
            said[key] = list(said[key])
    if "others" in said:
        said["others"] = {name: text["split"] for name, text in said["others"].items()}
    if "model" in made_of:
        said["checkpoint"] = {part: made_of["model"][part] for part in ("config", "weights")}
    if "function" in said:
        said.setdefault("ratios", None)
    if "shape" in said:  # of speed, which takes another dtype where that of the model will not do
        said["source"] = said.pop("shape")
        said.pop("dtype", None)
    return said
