"""From a study's config to what its tables show."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from dass.config.load import load_config
from dass.errors import ConfigError
from dass.report.experiment import Line, TableSettings
from dass.report.settings import table_settings

DEMO = Path(__file__).parents[3] / "config" / "demo.yaml"


def demo(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(DEMO.read_text())
    return settings | changes


def test_an_experiment_shows_what_the_config_says() -> None:
    assert table_settings(load_config(demo(note="A note.")), "main") == TableSettings(
        experiment="main",
        title="Uniform pruning of the gated MLPs of three stand-ins",
        models={
            "standin-llama": "Stand-in LLaMA",
            "standin-mistral": "Stand-in Mistral",
            "standin-gemma": "Stand-in Gemma",
        },
        calibrations={"toy": "64 sequences of 256 tokens of toy, seed 0"},
        methods={
            "magnitude": "Magnitude", "wanda": "Wanda", "sparsegpt": "SparseGPT", "dass": "DaSS",
        },
        patterns=["u50", "4of8", "2of4"],
        split="validation",
        metric="acc",
        tasks=["hellaswag", "winogrande", "arc_easy", "arc_challenge", "piqa"],
        note="A note.",
    )  # fmt: skip


def test_labels_keep_the_order_of_the_config_and_methods_may_have_none() -> None:
    config = demo()
    del config["methods"]["dass"]["label"]
    lists = {"methods": ["dass", "wanda"], "models": ["standin-gemma", "standin-llama"]}
    config["experiments"]["main"] |= lists | {"patterns": ["2of4", "u50"]}
    settings = table_settings(load_config(config), "main")
    assert list(settings.models) == ["standin-llama", "standin-gemma"]
    assert settings.methods == {"wanda": "Wanda", "dass": "dass"}
    assert settings.patterns == ["2of4", "u50"]


def test_the_metric_and_the_split_are_the_studys() -> None:
    config = demo()
    config["zero_shot"]["metric"] = "acc_norm"
    config["perplexity"] |= {"splits": ["validation", "test"], "table_split": "test"}
    settings = table_settings(load_config(config), "main")
    assert (settings.metric, settings.split) == ("acc_norm", "test")


def test_only_what_select_leaves_is_shown() -> None:
    config = demo(select={"models": ["standin-gemma"], "methods": ["dass"], "patterns": ["2of4"]})
    settings = table_settings(load_config(config), "main")
    assert (list(settings.models), list(settings.methods)) == (["standin-gemma"], ["dass"])
    assert settings.all_lines == [
        Line(None, "dense", None), Line("toy", "dass", "2of4")
    ]  # fmt: skip


def test_a_study_without_zero_shot_has_no_tasks() -> None:
    config = demo()
    del config["zero_shot"]
    assert table_settings(load_config(config), "main").tasks == []


def test_settings_go_through_a_job_as_plain_values() -> None:
    settings = table_settings(load_config(demo()), "main")
    assert TableSettings(**json.loads(json.dumps(asdict(settings)))) == settings


def test_an_unknown_experiment_is_named() -> None:
    with pytest.raises(ConfigError, match="no experiment 'mian'"):
        table_settings(load_config(demo()), "mian")
