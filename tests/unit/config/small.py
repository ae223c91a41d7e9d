"""A small study for tests, and what is said of a changed one."""

import copy
from pathlib import Path
from typing import Any

import pytest

from dass.config.load import load_config
from dass.errors import ConfigError

ROOT = Path(__file__).parents[3]

SMALL: dict[str, Any] = {
    "study": "small",
    "description": "A study for tests.",
    "models": {
        "a": {"label": "A", "hub": "owner/a", "dtype": "float32"},
        "b": {"label": "B", "path": "models/b", "dtype": "bfloat16"},
    },
    "datasets": {
        "docs": {"kind": "documents", "hub": "owner/docs", "files": "docs.jsonl"},
        "text": {"kind": "text", "path": "text"},
        "questions": {"kind": "task", "path": "questions"},
    },
    "calibrations": {"c": {"dataset": "docs", "sequences": 4, "length": 8, "seed": 0}},
    "methods": {
        "wanda": {"function": "wanda"},
        "dass": {"function": "dass", "alpha": 0.25},
    },
    "perplexity": {"dataset": "text", "length": 8, "splits": ["validation", "test"]},
    "zero_shot": {"tasks": {"piqa": "questions"}},
    "experiments": {
        "main": {
            "title": "T", "models": "all", "calibrations": ["c"],
            "methods": ["wanda", "dass"], "patterns": ["u50", "2of4"],
        },
    },
}  # fmt: skip

GONE = object()


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """SMALL with the values at slash-separated keys replaced, added or (GONE) removed."""
    mapping = copy.deepcopy(SMALL)
    for key, value in changes.items():
        *parents, last = key.split("/")
        block = mapping
        for parent in parents:
            block = block[parent]
        if value is GONE:
            del block[last]
        else:
            block[last] = value
    return mapping


def message(mapping: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(mapping)
    return str(caught.value)
