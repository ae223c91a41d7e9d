"""The speed block of a config, and the sizes of models."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from dass.config.load import load_config
from dass.config.runs import speed_subjects
from dass.errors import ConfigError, DataError, ModelError
from dass.models.shape import Shape
from dass.speed.shapes import SHAPES, random_model, shape_of, shape_of_model

ROOT = Path(__file__).parents[3]
SIZES = {"hidden": 64, "intermediate": 128, "heads": 4, "key_value_heads": 2, "blocks": 2}


def study(speed: Any, **changes: Any) -> dict[str, Any]:
    demo: dict[str, Any] = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    return demo | {"speed": speed} | changes


def test_without_the_block_nothing_is_measured() -> None:
    demo = study(None)
    del demo["speed"]
    assert load_config(demo).speed is None
    assert speed_subjects(load_config(demo), "cpu") == []


def test_subjects_are_models_and_shapes_that_select_leaves() -> None:
    speed = {"shapes": {"mine": SIZES}, "cpu": {"of": ["standin-llama", "mine"]},
             "metric": {"of": "all"}}  # fmt: skip
    config = load_config(study(speed))
    assert speed_subjects(config, "cpu") == ["standin-llama", "mine"]
    assert speed_subjects(config, "metric") == [
        "standin-llama", "standin-mistral", "standin-gemma",
    ]  # fmt: skip
    assert speed_subjects(config, "gpu") == []
    chosen = load_config(study(speed, select={"models": ["standin-gemma"]}))
    assert speed_subjects(chosen, "cpu") == ["mine"]
    assert speed_subjects(chosen, "metric") == ["standin-gemma"]


@pytest.mark.parametrize(
    ("speed", "complaint"),
    [
        ({"cpus": {}}, r"speed.cpus: unknown key; did you mean cpu\?"),
        ({"cpu": {"of": ["standin-lama"]}}, "speed.cpu.of: .* did you mean standin-llama"),
        ({"cpu": {"of": "all", "patterns": ["50"]}}, "speed.cpu.patterns: unknown pattern"),
        ({"cpu": {"of": "all", "engines": ["tvm"]}}, "speed.cpu.engines.0"),
        ({"cpu": {"of": "all", "threads": 0}}, "threads: must be greater than 0"),
        ({"gpu": {"of": "all", "tokens": []}}, "tokens: must not be empty"),
        ({"shapes": {"standin-llama": SIZES}}, "also the name of a model"),
        ({"shapes": {"mine": SIZES | {"heads": 3}}}, "key_value_heads: 3 heads"),
        ({"shapes": {"mine": SIZES | {"hiden": 3}}}, r"mine.hiden: unknown key; .* hidden\?"),
        ({"shapes": {"mine": SIZES | {"hidden": 0}}}, "mine.hidden: must be greater than 0"),
        ({"shapes": {"mine": SIZES | {"blocks": "two"}}}, "mine.blocks: must be a whole number"),
        ({"shapes": {"mine": {"hidden": 64}}}, "mine.intermediate: missing"),
        ({"shapes": {"mine": 7}}, "mine: must be a block of keys, not 7"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(speed: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_config(study(speed))


def test_sizes_of_a_config_are_the_shape_that_is_measured() -> None:
    config = load_config(study({"shapes": {"mine": SIZES | {"head_dim": 24}}}))
    assert config.speed is not None
    wanted = Shape(64, 128, 4, 2, 2, head_dim=24)
    assert config.speed.shapes == {"mine": wanted}
    assert shape_of(asdict(config.speed.shapes["mine"])) == wanted


def test_sizes_come_from_a_models_own_config(tmp_path: Path) -> None:
    model: Any = random_model(SHAPES["tiny"], 2, "float32", "cpu")
    model.config.save_pretrained(tmp_path)
    assert shape_of_model(tmp_path) == Shape(64, 128, 4, 2, 2, head_dim=16)


def test_gemmas_gelu_is_its_tanh_form_and_heads_may_be_missing(tmp_path: Path) -> None:
    config = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2,
              "num_hidden_layers": 3, "hidden_act": "gelu"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of_model(tmp_path) == Shape(8, 16, 2, 2, 3, None, "gelu_pytorch_tanh")


def test_a_config_without_sizes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        shape_of_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    with pytest.raises(ModelError, match="num_attention_heads"):
        shape_of_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_act": "relu"}))
    with pytest.raises(ModelError, match="'relu'"):
        shape_of_model(tmp_path)
