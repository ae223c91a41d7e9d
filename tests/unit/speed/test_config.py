"""The speed block of a config, the sizes of models, and the environment of DeepSparse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dass.config.load import load_config
from dass.config.study import speed_subjects
from dass.errors import ConfigError, DataError, ModelError
from dass.speed import environment
from dass.speed.environment import find_python, make_environment
from dass.speed.shapes import SHAPES, Shape, random_model, shape_of_model

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
        ({"cpu": {"of": "all", "engines": ["deepsparse"]}}, "accept_evaluation_licence: true"),
        (
            {
                "cpu": {
                    "of": "all",
                    "engines": ["deepsparse"],
                    "deepsparse": {"accept_evaluation_licence": False},
                }
            },
            "its licence allows evaluation only",
        ),
        ({"cpu": {"of": "all", "threads": 0}}, "threads: must be greater than 0"),
        ({"gpu": {"of": "all", "tokens": []}}, "tokens: must not be empty"),
        ({"shapes": {"standin-llama": SIZES}}, "also the name of a model"),
        ({"shapes": {"mine": SIZES | {"heads": 3}}}, "key_value_heads: 3 heads"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(speed: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_config(study(speed))


def test_deepsparse_is_measured_once_its_licence_is_accepted() -> None:
    accepted = {"of": "all", "engines": ["deepsparse"],
                "deepsparse": {"accept_evaluation_licence": True}}  # fmt: skip
    config = load_config(study({"cpu": accepted}))
    assert config.speed is not None and config.speed.cpu is not None
    assert config.speed.cpu.engines == ["deepsparse"]


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


def test_an_interpreter_that_has_the_package_is_taken_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "python.json"
    make_environment(tmp_path / "none.txt", "json", out, ["no-such-python", sys.executable])
    assert Path(json.loads(out.read_text())["python"]) == Path(sys.executable)
    assert not (tmp_path / "venv").exists()


def test_without_a_fitting_python_the_error_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"needs Python 3\.11.*remove deepsparse"):
        find_python(["no-such-python"])


def test_an_install_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "find_python", lambda _: sys.executable)
    missing = tmp_path / "missing.txt"
    with pytest.raises(ConfigError, match=r"missing\.txt: not installed"):
        make_environment(missing, "no_such_package", tmp_path / "python.json", [])
    assert list(tmp_path.iterdir()) == []


def test_the_engine_gets_no_telemetry_and_one_pin() -> None:
    pins = (ROOT / "envs" / "deepsparse.txt").read_text().splitlines()
    assert "deepsparse==1.8.0" in pins
    assert all("==" in pin for pin in pins if not pin.startswith("#"))
