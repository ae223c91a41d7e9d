"""The config: what the three studies ask for, and the line that each mistake yields."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dass.config import study
from dass.config.study import RunKey, StudyConfig, experiment_runs, load_config, read_config, runs
from dass.errors import ConfigError, PatternError
from dass.pruning.patterns import parse_pattern

ROOT = Path(__file__).parents[3]
METHODS = ["magnitude", "wanda", "sparsegpt", "dass"]
PATTERNS = ["u50", "4of8", "2of4"]

SMALL: dict[str, Any] = {
    "study": "small",
    "description": "A study for tests.",
    "models": {
        "a": {"label": "A", "hub": "owner/a", "dtype": "float32"},
        "b": {"label": "B", "path": "models/b", "dtype": "bfloat16"},
    },
    "datasets": {
        "docs": {"kind": "documents", "hub": "owner/docs"},
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


# The three studies


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
    assert {name: m.arguments_dict() for name, m in study.methods.items()} == {
        "magnitude": {},
        "wanda": {},
        "sparsegpt": {"damping": 0.01, "block": 128},
        "dass": {"alpha": 0.5},
    }


def test_small_is_the_papers_study_on_other_models() -> None:
    paper, small = (
        yaml.safe_load((ROOT / "config" / file).read_text())
        for file in ("config.yaml", "small.yaml")
    )
    # Nothing is published of these models, and their speed is not what the paper reports.
    apart = ("study", "description", "models", "published", "speed")
    assert {"published", "speed"}.isdisjoint(small)
    assert {k: v for k, v in small.items() if k not in apart} == {
        k: v for k, v in paper.items() if k not in apart
    }
    study = read_config(ROOT / "config/small.yaml")
    assert {name: (m.hub, m.dtype, m.bos) for name, m in study.models.items()} == {
        "tinyllama-1.1b": ("TinyLlama/TinyLlama_v1.1", "bfloat16", "text"),
        "qwen2.5-0.5b": ("Qwen/Qwen2.5-0.5B", "bfloat16", "text"),
        "smollm2-360m": ("HuggingFaceTB/SmolLM2-360M", "bfloat16", "text"),
    }
    assert all((m.parameters or 9) < 2 for m in study.models.values())


@pytest.mark.parametrize(
    ("file", "calibration", "count"),
    [
        ("config.yaml", "c4", 6 * 4 * 3),
        ("small.yaml", "c4", 36),
        ("demo.yaml", "toy", 36),
        ("real.yaml", "books", 36),
    ],
)
def test_runs_of_the_studies(file: str, calibration: str, count: int) -> None:
    study = read_config(ROOT / "config" / file)
    keys = runs(study)
    assert len(keys) == count == len(set(keys))
    assert keys == [
        RunKey(model, calibration, method, pattern)
        for model in study.models
        for method in METHODS
        for pattern in PATTERNS
    ]


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


@pytest.mark.parametrize("file", ["config.yaml", "small.yaml", "demo.yaml", "real.yaml"])
def test_dumped_study_loads_to_the_same(file: str) -> None:
    study = read_config(ROOT / "config" / file)
    assert load_config(json.loads(study.model_dump_json())) == study


def test_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, dass.config.study; sys.exit(any(m in sys.modules for m in "
        "('torch', 'transformers', 'pandas', 'matplotlib', 'dass.standins')))"
    )
    source = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=source, check=False).returncode == 0


# Values


def test_expands_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULL", "full")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    for text, expected in {
        "${FULL}/x": "full/x",
        "${FULL:-other}": "full",
        "${UNSET:-other/place}/x": "other/place/x",
        "${EMPTY:-other}": "other",
        "/a${UNSET:-}": "/a",
        "${FULL}-${FULL}": "full-full",
        "$FULL": "$FULL",
    }.items():
        study = load_config(changed({"models/b/path": text, "datasets/text/path": text}))
        assert study.models["b"].path == study.datasets["text"].path == expected


def test_method_arguments() -> None:
    study = load_config(
        changed(
            {
                "methods/mine": {
                    "function": "mypackage.mymodule:MyMethod",
                    "label": "Mine",
                    "arguments": {"flag": True, "steps": 3, "strength": 0.5, "mode": "fast"},
                },
                "methods/plain": {"function": "module:Class"},
            }
        )
    )
    arguments = study.methods["mine"].arguments_dict()
    assert arguments == {"flag": True, "steps": 3, "strength": 0.5, "mode": "fast"}
    assert [type(v) for v in arguments.values()] == [bool, int, float, str]
    assert study.methods["plain"].arguments_dict() == {}
    assert study.methods["dass"].arguments_dict() == {"alpha": 0.25}
    assert study.methods["wanda"].arguments_dict() == {}


def test_defaults_are_those_of_the_code() -> None:
    from dass.pruning.methods import make_method
    from dass.standins import DEFAULT_DOCUMENTS, DEFAULT_STEPS

    for function, block in study.METHODS.items():
        assert make_method(function, block(function=function).arguments_dict()) == make_method(
            function, {}
        )
    standins = study.StandinsConfig()
    assert (standins.documents, standins.steps) == (DEFAULT_DOCUMENTS, DEFAULT_STEPS)


# Runs


def test_runs_come_once_and_in_order() -> None:
    first = {
        "title": "One", "models": ["b"], "calibrations": ["c"],
        "methods": ["dass"], "patterns": ["2of4"],
    }  # fmt: skip
    mapping = changed({"experiments": {"first": first, **SMALL["experiments"]}})
    study = load_config(mapping)
    assert experiment_runs(study, "first") == [RunKey("b", "c", "dass", "2of4")]
    assert runs(study) == [
        ("b", "c", "dass", "2of4"),
        ("a", "c", "wanda", "u50"),
        ("a", "c", "wanda", "2of4"),
        ("a", "c", "dass", "u50"),
        ("a", "c", "dass", "2of4"),
        ("b", "c", "wanda", "u50"),
        ("b", "c", "wanda", "2of4"),
        ("b", "c", "dass", "u50"),
    ]


def test_select_one_of_each() -> None:
    study = load_config(
        changed({"select": {"models": ["b"], "methods": ["dass"], "patterns": ["u50"]}})
    )
    assert runs(study) == experiment_runs(study, "main") == [RunKey("b", "c", "dass", "u50")]


def test_select_an_experiment() -> None:
    other = {**SMALL["experiments"]["main"], "patterns": ["4of8"]}
    study = load_config(changed({"experiments/other": other, "select": {"experiments": ["other"]}}))
    assert experiment_runs(study, "main") == []
    assert {key.pattern for key in runs(study)} == {"4of8"}


@given(
    models=st.sets(st.sampled_from("ab"), min_size=1),
    methods=st.none() | st.sets(st.sampled_from(["wanda", "dass"]), min_size=1),
    patterns=st.none() | st.sets(st.sampled_from(["u50", "2of4"]), min_size=1),
)
def test_select_is_a_filter(
    models: set[str], methods: set[str] | None, patterns: set[str] | None
) -> None:
    select = {"models": models, "methods": methods, "patterns": patterns}
    given_keys = {key: sorted(names) for key, names in select.items() if names is not None}
    chosen = runs(load_config(changed({"select": given_keys})))
    assert chosen == [
        key
        for key in runs(load_config(SMALL))
        if key.model in models
        and (methods is None or key.method in methods)
        and (patterns is None or key.pattern in patterns)
    ]


def test_unknown_experiment() -> None:
    with pytest.raises(ConfigError) as caught:
        experiment_runs(load_config(SMALL), "mian")
    assert str(caught.value) == "no experiment 'mian' in experiments; did you mean main?"


# Mistakes, each with its line

DENSE = "the name is reserved for the unpruned model; choose another"
PATH = "is part of a path: use letters, digits, '.', '_' and '-', the first a letter or digit"

MISTAKES: list[tuple[dict[str, Any], str]] = [
    # keys
    ({"modles": {}}, "modles: unknown key; did you mean models?"),
    (
        {"models/a": {"label": "A", "hub": "o/a", "dtpye": "float32"}},
        "models.a.dtpye: unknown key; did you mean dtype?",
    ),
    (
        {"calibrations/c/zzz": 1},
        "calibrations.c.zzz: unknown key; known keys: dataset, sequences, length, seed",
    ),
    ({"methods/dass/alhpa": 1.0}, "methods.dass.alhpa: unknown key; did you mean alpha?"),
    ({"select": {"model": ["a"]}}, "select.model: unknown key; did you mean models?"),
    ({"models/a/dtype": GONE}, "models.a.dtype: missing; it is required"),
    ({"perplexity": GONE}, "perplexity: missing; it is required"),
    ({"methods/wanda": {}}, "methods.wanda.function: missing; it is required"),
    # several
    (
        {"models/a": {"label": "A", "hub": "o/a"}, "perplexity/length": 1, "note": 3},
        "note: must be text (put it in quotes), not 3 (and 2 more)",
    ),
    (
        {"modles": {}, "metods": {}},
        "modles: unknown key; did you mean models? (and 1 more)",
    ),
    # shapes
    ({"models": None}, "models: must be a block of keys, but is empty"),
    ({"models": {}}, "models: must not be empty"),
    ({"models/a": ["x"]}, "models.a: must be a block of keys, not ['x']"),
    ({"methods/wanda": "wanda"}, "methods.wanda: must be a block of keys, not 'wanda'"),
    (
        {"experiments/main/methods": "dass"},
        "experiments.main.methods: must be a list, as in [a, b], not 'dass'",
    ),
    ({"experiments/main/patterns": []}, "experiments.main.patterns: must not be empty"),
    (
        {"experiments/main/models": []},
        "experiments.main.models: write all, or a list of names, as in [a, b], not []",
    ),
    (
        {"experiments/main/models": "every"},
        "experiments.main.models: write all, or a list of names, as in [a, b], not 'every'",
    ),
    (
        {"datasets/docs/files": 3},
        "datasets.docs.files: write a file name, or one a split, not 3",
    ),
    # values
    (
        {"models/a/dtype": "fp16"},
        "models.a.dtype: must be 'float32', 'bfloat16' or 'float16', not 'fp16'",
    ),
    (
        {"models/a/revision": 1234567},
        "models.a.revision: must be text (put it in quotes), not 1234567",
    ),
    ({"models/a/label": ""}, "models.a.label: must not be empty"),
    ({"models/a/parameters": 0}, "models.a.parameters: must be greater than 0, not 0"),
    (
        {"models/a/parameters": float("inf")},
        "models.a.parameters: must be a finite number, not inf",
    ),
    (
        {"calibrations/c/sequences": "128"},
        "calibrations.c.sequences: must be a whole number, not '128'",
    ),
    (
        {"calibrations/c/sequences": True},
        "calibrations.c.sequences: must be a whole number, not True",
    ),
    ({"calibrations/c/sequences": 0}, "calibrations.c.sequences: must be greater than 0, not 0"),
    ({"calibrations/c/length": 1}, "calibrations.c.length: must be greater than 1, not 1"),
    ({"calibrations/c/seed": -1}, "calibrations.c.seed: must be at least 0, not -1"),
    ({"methods/dass/alpha": -0.5}, "methods.dass.alpha: must be at least 0, not -0.5"),
    (
        {"methods/dass/alpha": "1e-2"},
        "methods.dass.alpha: must be a number (with a point: 1.0e-2), not '1e-2'",
    ),
    (
        {"perplexity/splits": ["train"]},
        "perplexity.splits.0: must be 'validation' or 'test', not 'train'",
    ),
    (
        {"perplexity/splits": ["test"]},
        "perplexity.table_split: validation is not measured; add it to splits (test)",
    ),
    (
        {"zero_shot/tasks": {"boolq": "questions"}},
        "zero_shot.tasks.boolq: must be 'hellaswag', 'winogrande', 'arc_easy', 'arc_challenge' "
        "or 'piqa', not 'boolq'",
    ),
    (
        {"methods/m": {"function": "m:M", "arguments": {"x": [1]}}},
        "methods.m.arguments.x: must be a number, text, true or false, not [1]",
    ),
    # names
    ({"study": "My Study"},
     "study: 'My Study' is part of a path: use small letters, digits, '_' and '-'"),
    ({"models/a b": SMALL["models"]["a"]}, f"models.a b: 'a b' {PATH}"),
    ({"models/..": {"label": "C", "hub": "o/c", "dtype": "float32"}}, f"models...: '..' {PATH}"),
    ({"methods/dense": {"function": "dass"}}, f"methods.dense: {DENSE}"),
    ({"calibrations/dense": SMALL["calibrations"]["c"]}, f"calibrations.dense: {DENSE}"),
    ({"models/b/label": "A"}, "models.b.label: same as that of a; tables need them apart"),
    (
        {"methods/dass/label": "wanda"},
        "methods.dass.label: same as that of wanda; tables need them apart",
    ),
    # sources
    (
        {"models/a/hub": GONE},
        "models.a: give exactly one of hub, path and standin (here: none)",
    ),
    (
        {"models/a/path": "x"},
        "models.a: give exactly one of hub, path and standin (here: hub and path)",
    ),
    (
        {"datasets/text/standin": "wikitext"},
        "datasets.text: give exactly one of hub, path and standin (here: path and standin)",
    ),
    (
        {"models/a/hub": "./models/a"},
        "models.a.hub: './models/a' is no repository id such as owner/name; "
        "a local folder goes under `path`",
    ),
    (
        {"models/b/revision": "v1"},
        "models.b.revision: goes with hub only; remove it, or path",
    ),
    ({"datasets/text/name": "x"}, "datasets.text.name: goes with hub only; remove it"),
    ({"datasets/text/files": "x"}, "datasets.text.files: goes with hub only; remove it"),
    (
        {"datasets/docs/rows": "file"},
        "datasets.docs.rows: goes with kind text only, not documents; remove it",
    ),
    (
        {"datasets/text": {"kind": "task", "standin": "wikitext"}, "standins": {}},
        "datasets.text.kind: must be text, since wikitext is of that kind",
    ),
    (
        {"datasets/x": {"kind": "text", "standin": "piqa"}, "standins": {}},
        "datasets.x.kind: must be task, since piqa is of that kind",
    ),
    (
        {"models/s": {"label": "S", "standin": "llama", "dtype": "float32"}},
        "standins: missing; models.s is a stand-in and needs this block",
    ),
    (
        {"datasets/s": {"kind": "text", "standin": "wikitext"}},
        "standins: missing; datasets.s is a stand-in and needs this block",
    ),
    # environment
    (
        {"models/b/path": "${DASS_TEST_UNSET}/b"},
        "models.b.path: environment variable DASS_TEST_UNSET is not set; set it, or write "
        "${DASS_TEST_UNSET:-default}",
    ),
    (
        {"datasets/text/path": "${not closed"},
        "datasets.text.path: cannot read '${not closed'; write ${NAME} or ${NAME:-default}",
    ),
    ({"models/b/path": "~/b"}, "models.b.path: write ${HOME} instead of ~ in '~/b'"),
    ({"models/b/path": ""}, "models.b.path: must not be empty"),
    # functions
    (
        {"methods/dass": {"function": "das"}},
        "methods.dass.function: no built-in method 'das'; did you mean dass? (your own: "
        "package.module:Class)",
    ),
    (
        {"methods/dass": {"function": "my method"}},
        "methods.dass.function: no built-in method 'my method'; there are: magnitude, wanda, "
        "sparsegpt, dass (your own: package.module:Class)",
    ),
    (
        {"methods/dass": {"function": ["dass"]}},
        "methods.dass.function: must be text (put it in quotes), not ['dass']",
    ),
    # references
    (
        {"experiments/main/models": ["c"]},
        "experiments.main.models: no model 'c' in models; there are: a, b",
    ),
    (
        {"experiments/main/methods": ["wnada"]},
        "experiments.main.methods: no method 'wnada' in methods; did you mean wanda?",
    ),
    (
        {"experiments/main/calibrations": ["c4"]},
        "experiments.main.calibrations: no calibration 'c4' in calibrations; did you mean c?",
    ),
    (
        {"experiments/main/methods": ["dass", "dass"]},
        "experiments.main.methods: dass is listed twice; remove one",
    ),
    (
        {"calibrations/c/dataset": "doc"},
        "calibrations.c.dataset: no data set 'doc' in datasets; did you mean docs?",
    ),
    (
        {"calibrations/c/dataset": "text"},
        "calibrations.c.dataset: data set 'text' is of kind text, but kind documents is needed "
        "here",
    ),
    (
        {"perplexity/dataset": "wikitext2"},
        "perplexity.dataset: no data set 'wikitext2' in datasets; did you mean text?",
    ),
    (
        {"zero_shot/tasks/piqa": "docs"},
        "zero_shot.tasks.piqa: data set 'docs' is of kind documents, but kind task is needed here",
    ),
    (
        {"datasets/questions": {"kind": "task", "standin": "arc_easy"}, "standins": {}},
        "zero_shot.tasks.piqa: data set 'questions' holds the task arc_easy",
    ),
    # patterns
    (
        {"experiments/main/patterns": ["u50.0"]},
        "experiments.main.patterns: write u50 instead of u50.0",
    ),
    (
        {"experiments/main/patterns": ["u50", "u50"]},
        "experiments.main.patterns: u50 is listed twice; remove one",
    ),
    # select
    ({"select": {"models": ["c"]}}, "select.models: no model 'c' in models; there are: a, b"),
    (
        {"select": {"methods": ["das"]}},
        "select.methods: no method 'das' in methods; did you mean dass?",
    ),
    (
        {"select": {"patterns": ["4of8"]}},
        "select.patterns: no pattern '4of8' in any experiment; there are: u50, 2of4",
    ),
    (
        {"select": {"experiments": ["mian"]}},
        "select.experiments: no experiment 'mian' in experiments; did you mean main?",
    ),
    (
        {"experiments/main/models": ["a"], "select": {"models": ["b"]}},
        "select: leaves nothing to run; no experiment has this combination",
    ),
    ({"select": {"models": "a"}}, "select.models: must be a list, as in [a, b], not 'a'"),
]  # fmt: skip


def test_the_small_study_is_sound() -> None:
    assert len(runs(load_config(SMALL))) == 8


@pytest.mark.parametrize(("changes", "line"), MISTAKES, ids=[line[:50] for _, line in MISTAKES])
def test_mistake(changes: dict[str, Any], line: str) -> None:
    assert message(changed(changes)) == line


@pytest.mark.parametrize("pattern", ["half", "4of2", "u100", "2:4"])
def test_malformed_pattern(pattern: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse_pattern(pattern)
    line = message(changed({"experiments/main/patterns": [pattern]}))
    assert line == f"experiments.main.patterns: {caught.value}"


def test_long_values_are_cut() -> None:
    line = message(changed({"models/a": list(range(1000))}))
    assert len(line) < 120 and line.endswith("...")


def test_file_errors(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"

    def line() -> str:
        with pytest.raises(ConfigError) as caught:
            read_config(file)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert line() == f"{file}: cannot be read (No such file or directory)"
    file.write_text("study: [")
    assert line().startswith(f"{file}: not valid YAML (while parsing")
    file.write_bytes(b"study: \xff")
    assert line().startswith(f"{file}: not valid YAML (")
    file.write_text("")
    assert line() == f"{file}: must hold a block of keys, not nothing"
    file.write_text("- a\n")
    assert line() == f"{file}: must hold a block of keys, not ['a']"
    file.write_text(yaml.safe_dump(changed({"perplexity": GONE})))
    assert line() == f"{file}: perplexity: missing; it is required"


def test_blocks_are_read_only() -> None:
    study = load_config(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        study.models["a"].label = "other"  # type: ignore[misc]


# The generated files


def test_generated_files_are_up_to_date() -> None:
    assert not study.outdated(ROOT), f"out of date; run: {study.FIX}"


def test_write_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config").mkdir()
    root = ["--root", str(tmp_path)]
    assert study.main(["--check", *root]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "config/schema.json is out of date; run: python -m dass.config.study --write",
        "docs/config.md is out of date; run: python -m dass.config.study --write",
    ]
    assert study.main(["--write", *root]) == 0
    assert study.main(["--check", *root]) == 0
    page = tmp_path / "docs/config.md"
    page.write_text(page.read_text() + "more\n")
    assert study.outdated(tmp_path) == ["docs/config.md"]
    assert study.main(["--check", *root]) == 1


def test_write_elsewhere_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        study.main(["--write", "--root", str(tmp_path)])
    assert "run it in the repository's root" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["config.yaml", "small.yaml", "demo.yaml", "real.yaml"])
def test_schema_accepts_the_studies(file: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = (ROOT / "config" / file).read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    validator = jsonschema.Draft202012Validator(study.json_schema())
    mapping = yaml.safe_load(text)
    assert validator.is_valid(mapping)
    assert not validator.is_valid({**mapping, "modles": {}})
    assert not validator.is_valid({**mapping, "methods": {"x": {"function": "wnada"}}})


def _fields(cls: type[study.Strict]) -> list[tuple[str, Any]]:
    return [(f"{cls.__name__}.{name}", field) for name, field in cls.model_fields.items()]


BLOCKS = [
    value
    for value in vars(study).values()
    if isinstance(value, type) and issubclass(value, study.Strict) and value.model_fields
]


def test_every_field_is_described_and_on_the_page() -> None:
    page = study.reference_page()
    assert StudyConfig in BLOCKS and len(BLOCKS) >= 15
    for block in BLOCKS:
        for name, field in _fields(block):
            assert field.description, name
            described = field.description[0].lower() + field.description[1:]
            assert field.description in page or described in page, name


def test_examples_of_the_page_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    mapping = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    examples = re.findall(r"```yaml\n(.*?)```", study.reference_page(), re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        for section, blocks in yaml.safe_load(example).items():
            mapping[section].update(blocks)
    study = load_config(mapping)
    assert len(experiment_runs(study, "mine")) == 2 * 3 * 2
    assert study.models["my-model"].path == "/home/someone/models/my-model"
