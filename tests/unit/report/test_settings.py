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
from dass.report.block_tables import BlockSettings
from dass.report.experiment import Line, TableSettings
from dass.report.settings import block_settings, speed_accuracy_settings, table_settings

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
        draws={"toy": {"toy": 0}},
    )  # fmt: skip


def test_labels_keep_the_order_of_the_config_and_methods_may_have_none() -> None:
    config = demo()
    del config["methods"]["dass"]["label"], config["blocks"]
    lists = {"methods": ["dass", "wanda"], "models": ["standin-gemma", "standin-llama"]}
    config["experiments"]["main"] |= lists | {"patterns": ["2of4", "u50"]}
    settings = table_settings(load_config(config), "main")
    assert list(settings.models) == ["standin-llama", "standin-gemma"]
    assert settings.methods == {"wanda": "Wanda", "dass": "dass"}
    assert settings.patterns == ["2of4", "u50"]


def test_captions_name_methods_with_other_targets() -> None:
    config = demo()
    config["methods"]["wanda"] |= {"targets": "all"}
    config["methods"]["magnitude"] |= {"targets": "all", "permute": True}
    config["methods"]["sparsegpt"] |= {"targets": "attention"}
    config["blocks"]["methods"] = ["wanda", "dass"]
    study = load_config(config)
    note = study.note
    both = "Pruned by Magnitude and Wanda: attention's linear layers, too. "
    only = "Pruned by SparseGPT: attention's linear layers in place of the MLPs. "
    permuted = "Neurons permuted before N:M grouping by Magnitude. "
    assert table_settings(study, "main").note == both + only + permuted + note
    assert table_settings(study, "main").unpublished == ["magnitude"]
    targets = {"magnitude": "all", "wanda": "all", "sparsegpt": "attention"}
    assert table_settings(study, "main").targets == targets
    blocks = block_settings(study)
    assert blocks is not None
    assert blocks.note == f"Pruned by Wanda: attention's linear layers, too. {note}"
    config["select"] = {"methods": ["dass"]}
    assert table_settings(load_config(config), "main").note == note


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


EXPERIMENT = {
    "title": "T", "models": "all", "calibrations": ["toy"], "methods": ["of-attention"],
    "patterns": ["2of4"],
}  # fmt: skip


def timed_on_a_gpu(**gpu: Any) -> dict[str, Any]:
    return demo(speed={"gpu": {"of": ["standin-llama"]} | gpu}, note="A note.")


def test_accuracy_against_speed_shows_the_runs_that_are_timed() -> None:
    study = load_config(timed_on_a_gpu(prefill_patterns=["u50", "2of4"]))
    settings = speed_accuracy_settings(study)
    main = table_settings(study, "main")
    assert settings == TableSettings(
        experiment="speed", title="Accuracy against speed",
        models={"standin-llama": "Stand-in LLaMA"}, calibrations=main.calibrations,
        methods=main.methods, patterns=["u50", "2of4"], metric="acc", tasks=main.tasks,
        note="A note.", draws={"toy": {"toy": 0}},
    )  # fmt: skip
    (pattern,) = speed_accuracy_settings(load_config(timed_on_a_gpu())).patterns  # type: ignore[union-attr]
    assert pattern == "2of4"


@pytest.mark.parametrize(
    "changes",
    [{"speed": None}, {"speed": {"gpu": None}}, timed_on_a_gpu(prefill=False),
     timed_on_a_gpu() | {"select": {"patterns": ["u50"]}},
     timed_on_a_gpu() | {"select": {"models": ["standin-gemma"]}},
     timed_on_a_gpu() | {"methods": {"of-attention": {"function": "wanda", "targets": "attention"}},
                         "experiments": {"main": EXPERIMENT}, "blocks": None}],
)  # fmt: skip
def test_without_a_run_that_is_timed_there_is_no_accuracy_against_speed(
    changes: dict[str, Any],
) -> None:
    assert speed_accuracy_settings(load_config(demo(**changes))) is None


def test_without_tasks_the_runs_of_all_experiments_are_timed() -> None:
    settings = speed_accuracy_settings(load_config(timed_on_a_gpu() | {"zero_shot": None}))
    assert settings is not None and settings.tasks == []
    assert list(settings.calibrations) == ["toy", "toy-8", "toy-dense"]
    assert settings.draws["toy-8"] == {"toy-8-seed0": 0, "toy-8-seed1": 1}


def test_settings_go_through_a_job_as_plain_values() -> None:
    settings = table_settings(load_config(demo()), "main")
    assert TableSettings(**json.loads(json.dumps(asdict(settings)))) == settings


def test_an_unknown_experiment_is_named() -> None:
    with pytest.raises(ConfigError, match="no experiment 'mian'"):
        table_settings(load_config(demo()), "mian")


# --- Draws and what varies ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        (3, "seed 3"), ([5], "seed 5"), ([0, 1], "seeds 0 and 1"),
        ([0, 1, 2, 3, 4], "seeds 0 to 4"), ([0, 3, 7], "seeds 0, 3 and 7"),
        ([2, 1, 0], "seeds 2, 1 and 0"),
    ],
)  # fmt: skip
def test_seeds_are_named(seed: int | list[int], words: str) -> None:
    config = demo()
    config["calibrations"]["toy"]["seed"] = seed
    settings = table_settings(load_config(config), "main")
    assert settings.calibrations == {"toy": f"64 sequences of 256 tokens of toy, {words}"}


def test_draws_are_of_one_calibration() -> None:
    config = demo()
    config["calibrations"]["toy"]["seed"] = [4, 7]
    settings = table_settings(load_config(config), "main")
    assert settings.draws == {"toy": {"toy-seed4": 4, "toy-seed7": 7}}
    runs = settings.runs("standin-llama", Line("toy", "dass", "2of4"))
    assert {seed: str(run) for seed, run in runs.items()} == {
        4: "standin-llama/toy-seed4/dass/2of4", 7: "standin-llama/toy-seed7/dass/2of4",
    }  # fmt: skip
    assert TableSettings(**json.loads(json.dumps(asdict(settings)))) == settings


def along(x: str, more: dict[str, Any] | None = None, **lists: Any) -> TableSettings:
    """The demo's experiment along something, with more methods."""
    config = demo()
    config["methods"] |= more or {}
    names = {"methods": list(config["methods"]), "patterns": ["2of4"]} | lists
    config["experiments"]["main"] |= {"x": x} | names
    return table_settings(load_config(config), "main")


def test_methods_of_one_function_are_one_curve_under_its_name() -> None:
    more = {f"dass-a{alpha:g}": {"function": "dass", "alpha": alpha} for alpha in (0, 0.25)}
    settings = along("alpha", more)
    assert (settings.x, settings.x_part) == ("alpha", "method")
    names = ["dass", "dass-a0", "dass-a0.25"]
    assert [settings.x_values[name] for name in names] == [0.5, 0, 0.25]
    assert {name: settings.curves[name] for name in names} == dict.fromkeys(names, "DaSS")
    places = [settings.x_value(Line("toy", method, "2of4")) for method in ("dass-a0", "wanda")]
    assert places == [0, None]
    assert TableSettings(**json.loads(json.dumps(asdict(settings)))) == settings


def test_curves_of_one_refinement_are_named_by_their_starts() -> None:
    starts: list[dict[str, Any]] = [{"function": "wanda"}, {"function": "dass", "alpha": 0.5}]
    more = {
        f"{start['function']}{swaps}": {"function": "sparseswaps", "swaps": swaps, "start": start}
        for start in starts
        for swaps in (1, 5)
    }
    settings = along("swaps", more)
    assert {name: settings.curves[name] for name in more} == {
        "wanda1": "SparseSwaps, start wanda", "wanda5": "SparseSwaps, start wanda",
        "dass1": "SparseSwaps, start dass alpha 0.5", "dass5": "SparseSwaps, start dass alpha 0.5",
    }  # fmt: skip


def test_curves_that_differ_in_another_argument_say_so() -> None:
    """Two lines of two dampings each, and one that stands alone with its label."""
    more = {
        f"{name}{damping:g}": {"function": "sparsegpt", "block": block, "damping": damping}
        for name, block in (("wide", 128), ("narrow", 64))
        for damping in (0.1, 1)
    }
    alone = {"alone": {"function": "sparsegpt", "block": 32, "damping": 1, "label": "Alone"}}
    settings = along("damping", more | alone)
    assert settings.curves == {
        "sparsegpt": "SparseGPT, block 128", "wide0.1": "SparseGPT, block 128",
        "wide1": "SparseGPT, block 128", "narrow0.1": "SparseGPT, block 64",
        "narrow1": "SparseGPT, block 64", "alone": "Alone",
    }  # fmt: skip


def test_patterns_are_joined_by_kind() -> None:
    patterns = ["u50", "u70", "2of4", "1of4", "4of8", "2of4x4"]
    settings = along("sparsity", methods=["magnitude", "wanda", "dass"], patterns=patterns)
    assert settings.x_part == "pattern"
    assert settings.x_values == {
        "u50": 50, "u70": 70, "2of4": 50, "1of4": 75, "4of8": 50, "2of4x4": 50,
    }  # fmt: skip
    assert settings.curves == {
        "u50": "unstructured", "u70": "unstructured", "2of4": "N:4", "1of4": "N:4", "4of8": "N:8",
        "2of4x4": "N:4 both axes",
    }  # fmt: skip


def test_calibrations_are_joined_where_nothing_else_differs() -> None:
    config = demo()
    del config["blocks"]
    config["experiments"] = {"main": config["experiments"]["main"]}
    toy = config["calibrations"]["toy"]
    config["calibrations"] = {
        "few": toy | {"sequences": 8}, "many": toy | {"seed": 1}, "long": toy | {"length": 512},
    }  # fmt: skip
    config["experiments"]["main"] |= {"x": "sequences", "calibrations": ["few", "many"]}
    assert table_settings(load_config(config), "main").curves == {"few": "", "many": ""}
    config["experiments"]["main"]["calibrations"].append("long")
    settings = table_settings(load_config(config), "main")
    assert (settings.x_part, settings.x_values) == (
        "calibration",
        {"few": 8, "many": 64, "long": 64},
    )
    assert settings.curves == {"few": "length 256", "many": "length 256", "long": "length 512"}


def test_blocks_show_their_runs_that_select_leaves() -> None:
    assert block_settings(load_config(demo(note="A note."))) == BlockSettings(
        models={"standin-llama": "Stand-in LLaMA"}, calibration="toy",
        methods={"magnitude": "Magnitude", "wanda": "Wanda", "dass": "DaSS"},
        patterns=["2of4"], note="A note.",
    )  # fmt: skip
    settings = block_settings(load_config(demo(select={"methods": ["dass"]})))
    assert settings is not None and list(settings.methods) == ["dass"]
    assert block_settings(load_config(demo(select={"models": ["standin-gemma"]}))) is None
