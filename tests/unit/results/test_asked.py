"""What a result says that it was asked for, against what it is asked for now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dass.data.token_file import save_tokens
from dass.results.asked import asked_otherwise

from .samples import ORIGIN, pruning_file, zero_shot_file

SETTINGS = {"function": "dass", "arguments": {"alpha": 0.5, "start": ["a"]}, "dtype": "float32"}


@pytest.mark.parametrize(
    ("asked", "differs"),
    [
        ({}, None),
        (SETTINGS, None),
        ({"arguments": {"alpha": 0.5, "start": ("a",)}}, None),  # as JSON has it
        ({"length": 128, "seed": 1}, None),
        ({"a setting of a later version": 1}, None),
        ({"dtype": "float32", "function": "wanda"}, "function is 'dass', not 'wanda'"),
        ({"arguments": {}}, "arguments is {'alpha': 0.5, 'start': ['a']}, not {}"),
        ({"seed": 0}, "seed is 1, not 0"),
    ],
)
def test_settings_of_the_run_and_of_its_calibration(
    asked: dict[str, Any], differs: str | None, tmp_path: Path
) -> None:
    origin = ORIGIN | {"calibration": {"length": 128, "seed": 1}}
    file = pruning_file(tmp_path, "a/c4/dass/u50", settings=SETTINGS, provenance=origin)
    assert asked_otherwise(file, asked) == differs


def test_what_stands_beside_the_settings(tmp_path: Path) -> None:
    file = zero_shot_file(tmp_path, "a/dense", limit=50)
    assert asked_otherwise(file, {"limit": 50}) is None
    assert asked_otherwise(file, {"limit": None}) == "limit is 50, not None"


def test_tokens_say_how_they_were_drawn(tmp_path: Path) -> None:
    file = tmp_path / "toy.safetensors"
    save_tokens(file, {"windows": torch.zeros(1, 2)}, {"seed": 0, "bos": "text"})
    assert asked_otherwise(file, {"seed": 0, "bos": "text"}) is None
    assert asked_otherwise(file, {"seed": 9}) == "seed is 0, not 9"
    file.write_bytes(file.read_bytes()[:20])
    assert asked_otherwise(file, {"seed": 9}) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"provenance": 1}'])
def test_what_cannot_be_read_says_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "pruning.json").write_text(content)
    assert asked_otherwise(tmp_path / "pruning.json", SETTINGS) is None
