"""What a result says that it was asked for, against what it is asked for now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dass.data.token_file import save_tokens
from dass.results.asked import asked_otherwise, difference, said_in

from dass.runtime.files import write_json

from .samples import ORIGIN, perplexity_file, pruning_file, zero_shot_file

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


LONG = {"main": {"title": "A title that is long enough", "models": ["a", "b"], "study": "small"}}


@pytest.mark.parametrize(
    ("said", "asked", "differs"),
    [
        ({"rows": "line"}, {"rows": "line", "splits": ["test"]}, None),
        ({"rows": "line", "seed": 0}, {"rows": "file", "seed": 1}, "rows is 'line', not 'file'"),
        ({"patterns": ["u50"]}, {"patterns": ("u50",)}, None),
        ({"limit": None}, {"limit": 9}, "limit is None, not 9"),
        ({"of": {"a": 1}}, {"of": {"a": 2}}, "of is {'a': 1}, not {'a': 2}"),
        (
            {"of": LONG},
            {"of": {"main": LONG["main"] | {"models": ["a", "c"]}}},
            "of.main.models is ['a', 'b'], not ['a', 'c']",
        ),
        ({"of": LONG}, {"of": {}}, f"of.main is {str(LONG['main'])[:59]}…, not None"),
        ({"of": [LONG, 1]}, {"of": [LONG, 2]}, "of.1 is 1, not 2"),
        ({"of": LONG, "study": "a"}, {"of": {"main": LONG["main"] | {"study": "b"}}, "study": "b"}, None),
        ({"of": {"study": {"seed": 0}}}, {"of": {"study": {"seed": 1}}},
         "of is {'study': {'seed': 0}}, not {'study': {'seed': 1}}"),
    ],
)  # fmt: skip
def test_the_first_setting_that_differs(
    said: dict[str, Any], asked: dict[str, Any], differs: str | None
) -> None:
    assert difference(said, asked) == differs


def test_what_a_result_on_texts_says(tmp_path: Path) -> None:
    file = perplexity_file(tmp_path, "a/c4/dass/u50", 7.5)
    said = said_in(file)
    assert said["run"] == "a/c4/dass/u50"
    assert said["splits"] == ["validation"]
    assert asked_otherwise(file, {"run": "b/c4/dass/u50"}) == (
        "run is 'a/c4/dass/u50', not 'b/c4/dass/u50'"
    )


@pytest.mark.parametrize(
    ("content", "asked", "differs"),
    [
        # of speed: no dtype, since 2:4 is measured in another where it must be
        ({"shape": {"hidden": 8}, "settings": {"dtype": "float16", "tokens": [1]}},
         {"source": {"hidden": 8}, "dtype": "float32", "tokens": [1]}, None),
        ({"shape": {"hidden": 8}, "settings": {}}, {"source": {"hidden": 4}},
         "source is {'hidden': 8}, not {'hidden': 4}"),
        # fewer windows than were asked for may be all there are
        ({"windows": 3, "split": "test", "settings": {}}, {"windows": 16, "split": "test"}, None),
        ({"settings": {"function": "dass"}}, {"ratios": [0.5]}, "ratios is None, not [0.5]"),
        ({"settings": {"function": "dass", "ratios": [0.5]}}, {"ratios": [0.5]}, None),
        ({"others": {"c4": {"split": "test", "tokens": 9}}, "settings": {}},
         {"others": {"c4": "validation"}},
         "others is {'c4': 'test'}, not {'c4': 'validation'}"),
        ({"tasks": {"piqa": {}}, "settings": {}}, {"tasks": ["arc"]},
         "tasks is ['piqa'], not ['arc']"),
        ({"provenance": {"model": {"config": "c", "weights": "w", "more": 1}}, "settings": {}},
         {"checkpoint": {"config": "c", "weights": "v"}},
         "checkpoint is {'config': 'c', 'weights': 'w'}, not {'config': 'c', 'weights': 'v'}"),
        ({"provenance": {"text": {"rows": "line"}}, "settings": {}}, {"rows": "file"},
         "rows is 'line', not 'file'"),
    ],
)  # fmt: skip
def test_other_results(
    content: dict[str, Any], asked: dict[str, Any], differs: str | None, tmp_path: Path
) -> None:
    write_json(tmp_path / "a.json", {"provenance": {}} | content)
    assert asked_otherwise(tmp_path / "a.json", asked) == differs


def test_tokens_say_of_what_they_are(tmp_path: Path) -> None:
    file = tmp_path / "text.safetensors"
    source = {"validation": {}, "test": {}}
    save_tokens(file, {"test": torch.zeros(1, 2)}, {"rows": "line", "source": source})
    assert asked_otherwise(file, {"rows": "line", "splits": ["validation", "test"]}) is None
    assert asked_otherwise(file, {"splits": ["test"]}) == (
        "splits is ['validation', 'test'], not ['test']"
    )
    save_tokens(file, {"test": torch.zeros(1, 2)}, {"rows": None, "source": source})  # documents
    assert asked_otherwise(file, {"rows": "line"}) is None
    save_tokens(file, {"test": torch.zeros(1, 2)}, {"limit": 9, "sources": {"piqa": {}}})
    assert asked_otherwise(file, {"tasks": ["arc"]}) == "tasks is ['piqa'], not ['arc']"
