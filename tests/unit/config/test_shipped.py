"""The studies that come with the project: what their configs ask for."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dass.config.load import load_config, read_config
from dass.config.runs import RunKey, runs, zero_shot_runs
from dass.errors import ConfigError

ROOT = Path(__file__).parents[3]
METHODS = ["magnitude", "wanda", "sparsegpt", "dass"]
PATTERNS = ["u50", "4of8", "2of4"]
FILES = ["config.yaml", "own.yaml", "small.yaml", "demo.yaml", "real.yaml", "smollm2.yaml"]


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that own.yaml takes from the environment."""
    monkeypatch.setenv("MODEL", "/data/my-model")


def test_all_of_them_are_tested() -> None:
    assert sorted(file.name for file in (ROOT / "config").glob("*.yaml")) == sorted(FILES)


@pytest.mark.parametrize("file", FILES)
def test_they_are_read_without_torch(file: str) -> None:
    """Each call of snakemake, and each of its jobs, reads the config: torch would be most of it."""
    code = (
        "import sys, yaml; from dass.config.load import load_config\n"
        f"load_config(yaml.safe_load(open({str(ROOT / 'config' / file)!r})))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_paper() -> None:
    study = read_config(ROOT / "config/config.yaml")
    assert study.study == "paper"
    assert {name: (m.hub, m.dtype, m.bos) for name, m in study.models.items()} == {
        "llama2-7b": ("meta-llama/Llama-2-7b-hf", "float16", "text"),
        "llama2-13b": ("meta-llama/Llama-2-13b-hf", "float16", "text"),
        "llama2-70b": ("meta-llama/Llama-2-70b-hf", "float16", "text"),
        "llama3.1-8b": ("meta-llama/Llama-3.1-8B", "bfloat16", "text"),
        "mistral-7b": ("mistralai/Mistral-7B-v0.1", "bfloat16", "text"),
        "gemma-7b": ("google/gemma-7b", "bfloat16", "window"),
    }
    limits = {name: m.zero_shot_limit for name, m in study.models.items() if m.zero_shot_limit}
    assert limits == {"llama2-70b": 2000}
    assert {name: (d.hub, d.name) for name, d in study.datasets.items()} == {
        "c4": ("allenai/c4", None),
        "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
        "hellaswag": ("Rowan/hellaswag", None),
        "winogrande": ("allenai/winogrande", "winogrande_xl"),
        "arc_easy": ("allenai/ai2_arc", "ARC-Easy"),
        "arc_challenge": ("allenai/ai2_arc", "ARC-Challenge"),
        "piqa": ("baber/piqa", None),
    }
    assert study.datasets["c4"].files == "en/c4-train.00000-of-01024.json.gz"
    calibration = study.calibrations["c4"]
    assert (calibration.sequences, calibration.length, calibration.seed) == (128, 2048, 0)
    assert (study.perplexity.length, study.perplexity.table_split) == (2048, "validation")
    assert study.perplexity.splits == ["validation", "test"]
    assert study.zero_shot is not None and study.zero_shot.metric == "acc"
    assert study.standins is None and study.note == ""
    assert {name: study.methods[name].arguments for name in METHODS} == {
        "magnitude": {},
        "wanda": {},
        "sparsegpt": {"damping": 0.01, "block": 128},
        "dass": {"alpha": 0.5},
    }


@pytest.mark.parametrize("file", FILES)
def test_what_comes_from_a_hub_is_pinned_to_a_commit(file: str) -> None:
    study = read_config(ROOT / "config" / file)
    blocks = [*study.models.values(), *study.datasets.values()]
    assert all(re.fullmatch("[0-9a-f]{40}", block.revision) for block in blocks if block.hub)


def test_small_is_the_papers_study_on_other_models() -> None:
    paper, small = (
        yaml.safe_load((ROOT / "config" / file).read_text())
        for file in ("config.yaml", "small.yaml")
    )
    # Nothing is published of these models, neither their speed nor their blocks.
    assert {"published", "blocks", "speed"}.isdisjoint(small)
    for block in ("datasets", "perplexity", "zero_shot"):
        assert small[block] == paper[block]
    for block in ("calibrations", "methods", "experiments"):
        assert small[block].items() <= paper[block].items()
    study = read_config(ROOT / "config/small.yaml")
    assert {name: (m.hub, m.dtype, m.bos) for name, m in study.models.items()} == {
        "tinyllama-1.1b": (
            "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
            "bfloat16",
            "text",
        ),
        "qwen2.5-0.5b": ("Qwen/Qwen2.5-0.5B", "bfloat16", "text"),
        "smollm2-360m": ("HuggingFaceTB/SmolLM2-360M", "bfloat16", "text"),
    }
    assert all((m.parameters or 9) < 2 for m in study.models.values())


@pytest.mark.parametrize(
    ("file", "calibration", "main", "ablations"),
    [
        # Draws, alpha, groups, sequences, length, sparsity, propagation and order, of one model.
        ("config.yaml", "c4", 6 * 4 * 3, 45 + 12 + 6 + 12 + 9 + 12 + 6 + 4),
        ("small.yaml", "c4", 36, 0),
        ("demo.yaml", "toy", 36, 9),
        ("real.yaml", "books", 36, 0),
    ],
)
def test_runs_of_the_studies(file: str, calibration: str, main: int, ablations: int) -> None:
    study = read_config(ROOT / "config" / file)
    keys = runs(study)
    assert len(keys) == main + ablations == len(set(keys))
    grid = [
        RunKey(model, calibration, method, pattern)
        for model in study.models
        for method in METHODS
        for pattern in PATTERNS
    ]
    assert keys[:main] == grid == zero_shot_runs(study)


def test_demo_needs_no_network() -> None:
    study = read_config(ROOT / "config/demo.yaml")
    assert {name: (m.standin, m.dtype, m.bos) for name, m in study.models.items()} == {
        "standin-llama": ("llama", "float32", "text"),
        "standin-mistral": ("mistral", "float32", "text"),
        "standin-gemma": ("gemma", "float32", "window"),
    }
    assert all(d.standin for d in study.datasets.values())
    assert "stand-ins" in study.note


def test_real_study_finds_its_folder_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASS_REAL", "/elsewhere")
    study = read_config(ROOT / "config/real.yaml")
    assert study.models["real-gemma"].path == "/elsewhere/models/real-gemma"
    assert study.datasets["wikitext2"].path == "/elsewhere/wikitext-2"
    assert study.datasets["wikitext2"].rows == "file"
    monkeypatch.delenv("DASS_REAL")
    study = read_config(ROOT / "config/real.yaml")
    assert study.models["real-gemma"].path == "../shared/data/real/models/real-gemma"
    assert study.calibrations["books"].length == study.perplexity.length == 512


@pytest.mark.parametrize("file", FILES)
def test_dumped_study_loads_to_the_same(file: str) -> None:
    study = read_config(ROOT / "config" / file)
    assert load_config(json.loads(study.model_dump_json())) == study


def test_own_is_one_model_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    study = read_config(ROOT / "config/own.yaml")
    assert {name: m.path for name, m in study.models.items()} == {"my-model": "/data/my-model"}
    paper = read_config(ROOT / "config/config.yaml")
    assert study.datasets == paper.datasets
    assert study.calibrations == {"c4": paper.calibrations["c4"]}
    assert (study.perplexity, study.zero_shot) == (paper.perplexity, paper.zero_shot)
    assert runs(study) == [
        RunKey("my-model", "c4", method, pattern)
        for method in ("wanda", "dass")
        for pattern in ("u50", "2of4")
    ]
    monkeypatch.delenv("MODEL")
    with pytest.raises(ConfigError) as caught:
        read_config(ROOT / "config/own.yaml")
    assert str(caught.value).partition("own.yaml: ")[2] == (
        "models.my-model.path: environment variable MODEL is not set; set it, or write "
        "${MODEL:-default}"
    )
