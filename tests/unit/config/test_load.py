"""Reading a config: values from the environment, and the line that each mistake yields."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dass.config.load import check_keys, load_config, read_config
from dass.config.runs import runs
from dass.errors import ConfigError, PatternError
from dass.pruning.methods import built_in
from dass.pruning.patterns import parse_pattern
from dass.tasks import TASKS

from .small import GONE, ROOT, SMALL, changed, message


def test_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, dass.config.load; sys.exit(any(m in sys.modules for m in "
        "('torch', 'transformers', 'pandas', 'matplotlib', 'dass.standins')))"
    )
    source = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=source, check=False).returncode == 0


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


DENSE = "the name is reserved for the unpruned model; choose another"
PATH = "is part of a path: use letters, digits, '.', '_' and '-', the first a letter or digit"

CASE = "in capital letters only, which some disks do not tell apart; rename one"
SIZES = {"hidden": 64, "intermediate": 128, "heads": 4, "key_value_heads": 2, "blocks": 2}

MISTAKES: list[tuple[dict[str, Any], str]] = [
    # keys
    ({"modles": {}}, "modles: unknown key; did you mean models?"),
    (
        {"models/a": {"label": "A", "hub": "o/a", "dtpye": "float32"}},
        "models.a.dtpye: unknown key; did you mean dtype?",
    ),
    (
        {"calibrations/c/zzz": 1},
        "calibrations.c.zzz: unknown key; known keys: dataset, sequences, length, seed, "
        "propagation",
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
        "datasets.docs.files: write a file name, or one per split, not 3",
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
        {"calibrations/c/sequences": "many"},
        "calibrations.c.sequences: must be a whole number, not 'many'",
    ),
    (
        {"calibrations/c/sequences": True},
        "calibrations.c.sequences: must be a whole number, not True",
    ),
    ({"calibrations/c/sequences": 0}, "calibrations.c.sequences: must be greater than 0, not 0"),
    ({"calibrations/c/length": 1}, "calibrations.c.length: must be greater than 1, not 1"),
    (
        {"calibrations/c/seed": -1},
        "calibrations.c.seed: write a whole number from 0 to 2^63 - 1, or a list of them, as in "
        "[0, 1, 2], not -1",
    ),
    ({"methods/dass/alpha": -0.5}, "methods.dass.alpha: must be at least 0, not -0.5"),
    (
        {"methods/dass/alpha": "half"},
        "methods.dass.alpha: must be a number, not 'half'",
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
        {"zero_shot/tasks": {"rte": "questions"}},
        "zero_shot.tasks.rte: must be "
        f"{', '.join(map(repr, [*TASKS][:-1]))} or {[*TASKS][-1]!r}, not 'rte'",
    ),
    # names
    ({"study": "My Study"},
     "study: 'My Study' is part of a path: use small letters, digits, '_' and '-'"),
    ({"models/a b": SMALL["models"]["a"]}, f"models.a b: 'a b' {PATH}"),
    ({"models/..": {"label": "C", "hub": "o/c", "dtype": "float32"}}, f"models...: '..' {PATH}"),
    ({"methods/dense": {"function": "dass"}}, f"methods.dense: {DENSE}"),
    ({"calibrations/dense": SMALL["calibrations"]["c"]}, f"calibrations.dense: {DENSE}"),
    ({"methods/Dense": {"function": "dass"}}, f"methods.Dense: {DENSE}"),
    ({"methods/DaSS": {"function": "dass"}}, f"methods.DaSS: differs from dass {CASE}"),
    ({"models/A": SMALL["models"]["a"] | {"label": "C"}}, f"models.A: differs from a {CASE}"),
    ({"calibrations/C": SMALL["calibrations"]["c"]}, f"calibrations.C: differs from c {CASE}"),
    ({"speed": {"shapes": dict.fromkeys(("x", "X"), SIZES), "metric": {"of": ["x"]}}},
     f"speed.shapes.X: differs from x {CASE}"),
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
        "methods.dass.function: no built-in method 'das'; did you mean dass? (a custom one is "
        "written package.module:Class)",
    ),
    (
        {"methods/dass": {"function": "my method", "alpha": 0.5}},
        "methods.dass.function: no built-in method 'my method'; available: "
        f"{', '.join(built_in())} (a custom one is written package.module:Class)",
    ),
    ({"methods/dass": {"alpha": 0.5}}, "methods.dass.function: missing; it is required"),
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
        {"perplexity/others": {"doc": {}}},
        "perplexity.others.doc: no data set 'doc' in datasets; did you mean docs?",
    ),
    (
        {"perplexity/others": {"questions": {}}},
        "perplexity.others.questions: data set 'questions' is of kind task, but kind text or "
        "documents is needed here",
    ),
    (
        {
            "datasets/c4.en": {"kind": "text", "path": "a"},
            "datasets/c4-en": {"kind": "text", "path": "b"},
            "perplexity/others": {"c4.en": {}, "c4-en": {}},
        },
        "perplexity.others.c4-en: has the label of c4.en in LaTeX (c4-en); rename one",
    ),
    (
        {"perplexity/others": {"text": {"split": "test"}}},
        "perplexity.others.text: is `dataset` already; add the split to `splits`",
    ),
    (
        {"datasets/t": {"kind": "text", "path": "t"}, "perplexity/others": {"t": {"documents": 9}}},
        "perplexity.others.t.documents: goes with kind documents only; remove it",
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


def test_a_task_that_is_added_is_configurable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "copa", TASKS["piqa"])
    study = load_config(changed({"zero_shot/tasks": {"copa": "questions"}}))
    assert study.zero_shot is not None and study.zero_shot.tasks == {"copa": "questions"}


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


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("calibrations/c/sequences", "64", 64),
        ("calibrations/c/seed", "0", 0),
        ("models/a/parameters", "6.74", 6.74),
        ("methods/dass/alpha", "1e-2", 0.01),
        ("methods/dass/alpha", ".5", 0.5),
        ("speed", {"cpu": {"of": "all", "tokens": ["1", "16"]}}, None),
    ],
)
def test_text_that_is_a_number_is_one(key: str, text: object, value: float | None) -> None:
    """Snakemake gives each value in a block of ``--config`` as text."""
    study = load_config(changed({key: text}))
    if value is None:
        assert study.speed is not None and study.speed.cpu is not None
        assert study.speed.cpu.tokens == [1, 16]
        return
    section, name, field = key.split("/")
    found = getattr(getattr(study, section)[name], field)
    assert (found, type(found)) == (value, type(value))


def test_keys_that_yaml_merges_or_uses_again_are_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: [*a, *a, {x: 3}]\nd: *a\n")
    check_keys(path)
    for text in ("a: {x: 1, y: {z: 1, z: 2}}\n", "a: [1, [{z: 1, z: 2}]]\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="'z' stands twice in one block"):
            check_keys(path)
