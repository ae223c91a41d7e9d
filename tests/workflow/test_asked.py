"""Results that Snakemake takes as they are: each setting is compared with the config's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dass.runtime.records import asked_before

from .conftest import Workflow, small_study

MODEL = "standin-llama"
SHOWN = {"experiment_tables": 1, "experiment_figures": 1, "report": 1, "all": 1}
OF_RESULTS = SHOWN | {
    "summary_of_model": 1, "summary": 1, "block_tables": 1, "block_figures": 1,
    "speed_tables": 2, "speed_figures": 1,
}  # fmt: skip


def whole_study() -> dict[str, Any]:
    """One model of the small study, with every kind of result."""
    study = small_study()
    del study["models"]["standin-mistral"]
    study["datasets"]["essays"] = {"kind": "text", "path": "essays"}
    study["perplexity"]["others"] = {"essays": {"split": "test"}}
    study["ratios"] = {
        "owl": {"kind": "owl", "outlier": 2, "deviation": 0.4},
        "tails": {"kind": "alphapruning", "epsilon": 0.5},
    }
    study["methods"]["dass"]["ratios"] = "owl"
    study["methods"]["tails"] = {"function": "wanda", "label": "Tails", "ratios": "tails"}
    study["experiments"]["main"]["methods"] = ["wanda", "dass", "tails"]
    study["blocks"] = {
        "models": "all", "calibration": "toy", "methods": ["wanda"], "patterns": ["2of4"],
        "windows": 3,
    }  # fmt: skip
    sizes = {"hidden": 64, "intermediate": 128, "heads": 4, "key_value_heads": 2, "blocks": 2}
    study["speed"] = {
        "shapes": {"mine": sizes},
        "metric": {"of": ["mine"], "methods": ["wanda"], "repeats": 1},
        "cpu": {"of": ["mine"], "parts": ["mlp"], "patterns": ["u50"], "tokens": [1],
                "repeats": 1, "threads": 1},
    }  # fmt: skip
    return study


def changed(*keys: str, **values: Any) -> dict[str, Any]:
    """The study with other values in one of its blocks; None takes a key out."""
    block = study = whole_study()
    for key in keys:
        block = block[key]
    block.update(values)
    for key in [key for key, value in values.items() if value is None]:
        del block[key]
    return study


@pytest.fixture(scope="module")
def made(finished_study: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Every kind of result, and what Snakemake knows of it. Only for dry runs and copies."""
    workflow = finished_study.copied(tmp_path_factory.mktemp("asked") / "made")
    text = workflow.folder / "resources/standins/toy_corpus/wikitext/validation.jsonl"
    (workflow.folder / "essays").mkdir()
    for split in ("test", "validation"):
        shutil.copy2(text, workflow.folder / f"essays/{split}.jsonl")
    workflow.write_study(whole_study())
    shutil.rmtree(workflow.folder / "logs")  # benchmarks of jobs that are done again, in forks
    workflow.forked("all")
    return workflow


@pytest.fixture(scope="module")
def unrecorded(made: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A copy without what Snakemake knows."""
    return made.copied(tmp_path_factory.mktemp("asked") / "unrecorded", ".snakemake")


@pytest.fixture(scope="module")
def bare(made: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A copy as ``cp -r results/small/*`` makes it, which leaves hidden folders out."""
    return made.copied(tmp_path_factory.mktemp("asked") / "bare", ".snakemake", ".sha256")


def outcome(workflow: Workflow, study: dict[str, Any], *arguments: str) -> Mapping[str, int] | str:
    """The jobs of a dry run, or the one line with which it ends."""
    workflow.write_study(study)
    finished = workflow.snakemake("--dry-run", *arguments)
    if finished.code == 0:
        return finished.jobs
    (line,) = [one for one in finished.output.splitlines() if one.startswith("error: ")]
    return line


DENSE = f"runs/{MODEL}/dense/perplexity.json"
RUNS = f"runs/{MODEL}/toy"
MEASURED = [
    # what is changed, the target, what is refused
    (changed("models", MODEL, dtype="bfloat16"), f"activations/{MODEL}/toy.json",
     f"activations/{MODEL}/toy.json: dtype is 'float32', not 'bfloat16'"),
    (changed("calibrations", "toy", seed=9), f"activations/{MODEL}/toy.json",
     f"activations/{MODEL}/toy.json: seed is 0, not 9"),
    (changed("perplexity", table_split="test"), f"{RUNS}/wanda/2of4/blocks.json",
     "wanda/2of4/blocks.json: split is 'validation', not 'test'"),
    (changed("perplexity", length=32), f"{RUNS}/wanda/2of4/blocks.json",
     "wanda/2of4/blocks.json: length is 64, not 32"),
    (changed("ratios", "owl", outlier=3), f"ratios/{MODEL}/toy/owl/2of4.json",
     "owl/outlier_shares.json: outlier is 2.0, not 3.0"),
    (changed("ratios", "owl", deviation=0.2), f"ratios/{MODEL}/toy/owl/2of4.json",
     "toy/owl/2of4.json: arguments is {'deviation': 0.4}, not {'deviation': 0.2}"),
    (changed("models", MODEL, dtype="bfloat16"), f"ratios/{MODEL}/tail_exponents.json",
     "tail_exponents.json: dtype is 'float32', not 'bfloat16'"),
    (changed("methods", "dass", ratios=None), f"{RUNS}/dass/2of4/pruning.json",
     "dass/2of4/pruning.json: ratios is ["),
    (changed("methods", "dass", ratios="tails"), f"{RUNS}/dass/2of4/pruning.json",
     "dass/2of4/pruning.json: ratios is ["),
    (changed("methods", "wanda", ratios="owl"), f"{RUNS}/wanda/2of4/pruning.json",
     "wanda/2of4/pruning.json: ratios is None, not ["),
    (changed("speed", "metric", repeats=2), "speed/metric/mine/wanda.json",
     "metric/mine/wanda.json: repeats is 1, not 2"),
    (changed("speed", "shapes", "mine", hidden=128), "speed/tables/metric.md",
     "metric/mine/wanda.json: source.hidden is 64, not 128"),
    (changed("speed", "cpu", tokens=[2]), "speed/cpu/mine.json",
     "cpu/mine.json: tokens is [1], not [2]"),
    (changed("datasets", "toy-text", rows="file"), DENSE, f"{DENSE}: rows is 'line', not 'file'"),
    (changed("datasets", "essays", rows="file"), DENSE,
     "essays.safetensors: rows is 'line', not 'file'"),
    (changed("perplexity", splits=["validation"]), DENSE,
     f"{DENSE}: splits is ['validation', 'test'], not ['validation']"),
    (changed("perplexity", others={"essays": {"split": "validation"}}), DENSE,
     f"{DENSE}: others is {{'essays': 'test'}}, not {{'essays': 'validation'}}"),
    (changed("zero_shot", "tasks", piqa=None), f"runs/{MODEL}/dense/zero_shot.json",
     "dense/zero_shot.json: tasks is ["),
]  # fmt: skip
RECORDED = [
    (changed("standins", steps=5), DENSE, f"{DENSE}: origins is [['llama', {{'seed': 0, "),
    (changed("perplexity", others={"essays": {"split": "test", "windows": 3}}), DENSE,
     "essays.safetensors: most is None, not 3"),
    (changed("blocks", windows=2), f"{RUNS}/wanda/2of4/blocks.json",
     "wanda/2of4/blocks.json: windows is 3, not 2"),
    (changed("speed", "cpu", threads=2), "speed/cpu/mine.json",
     "cpu/mine.json: threads is 1, not 2"),
]  # fmt: skip
REMEDY = "; delete it, or give the study another name"


@pytest.mark.parametrize(("study", "target", "says"), MEASURED + RECORDED)
def test_a_measured_result_of_another_setting_is_refused(
    study: dict[str, Any], target: str, says: str, unrecorded: Workflow
) -> None:
    line = outcome(unrecorded, study, f"results/small/{target}")
    assert isinstance(line, str) and says in line, line
    why = " as the config asks, and Snakemake has no record of how it was made"
    assert line.endswith(why + REMEDY)


@pytest.mark.parametrize(("study", "target", "says"), MEASURED)
def test_so_it_is_where_the_records_were_left_behind(
    study: dict[str, Any], target: str, says: str, bare: Workflow
) -> None:
    line = outcome(bare, study, f"results/small/{target}")
    assert isinstance(line, str) and says in line, line


@pytest.mark.parametrize(("study", "target", "says"), MEASURED[::5] + RECORDED)
def test_so_it_is_where_snakemake_is_told_to_compare_times_only(
    study: dict[str, Any], target: str, says: str, made: Workflow
) -> None:
    line = outcome(made, study, f"results/small/{target}", "--rerun-triggers", "mtime")
    assert isinstance(line, str) and says in line, line
    assert line.endswith(" as the config asks, and --rerun-triggers leaves params out" + REMEDY)


@pytest.mark.parametrize(
    ("study", "jobs"),
    [
        (changed(note="Another note."), OF_RESULTS),
        (changed("experiments", "main", title="Another title"), SHOWN),
        (changed("zero_shot", metric="acc_norm"), SHOWN),
        (changed("blocks", models=[MODEL]), {}),  # said otherwise
    ],
)
def test_what_is_made_of_results_alone_is_made_again(
    study: dict[str, Any], jobs: dict[str, int], unrecorded: Workflow, made: Workflow
) -> None:
    found = [outcome(unrecorded, study), outcome(made, study, "--rerun-triggers", "mtime")]
    expected = {rule: n for rule, n in jobs.items() if not rule.startswith("summary")}
    assert found == [expected, expected]


def test_touching_does_not_make_an_old_table_new(unrecorded: Workflow, bare: Workflow) -> None:
    says = "experiments.main.title is 'Uniform pruning", "nothing says what it was asked for"
    for workflow, why in zip((unrecorded, bare), says, strict=True):
        workflow.write_study(changed("experiments", "main", title="Another title"))
        finished = workflow.snakemake("--touch")
        assert finished.code != 0
        assert why in finished.output


def test_results_of_the_same_config_are_taken(
    made: Workflow, unrecorded: Workflow, bare: Workflow
) -> None:
    """Under another name, too; without records, what says nothing of itself is made again."""
    assert outcome(unrecorded, whole_study()) == {}
    assert outcome(made, whole_study(), "--rerun-triggers", "mtime") == {}
    assert outcome(bare, whole_study()) == OF_RESULTS
    other = unrecorded.folder / "results/other"
    shutil.copytree(unrecorded.folder / "results/small", other, copy_function=shutil.copy2)
    assert outcome(unrecorded, whole_study() | {"study": "other"}) == {}


def test_a_model_that_was_another_is_refused_by_its_weights(made: Workflow, tmp_path: Path) -> None:
    study = made.copied(tmp_path / "study", ".snakemake", ".sha256")
    folder = study.folder / f"resources/models/{MODEL}"
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    line = outcome(study, whole_study(), f"results/small/{DENSE}")
    assert isinstance(line, str) and f"{DENSE}: checkpoint.config is '" in line


def test_a_table_is_made_again_and_is_known_then(made: Workflow, tmp_path: Path) -> None:
    study = made.copied(tmp_path / "study", ".snakemake")
    config = study.write_study(changed("experiments", "main", title="Another title"))
    finished = study.snakemake(config=config)
    assert finished.code == 0, finished.output
    table = study.folder / "results/small/tables/main/perplexity.md"
    assert "Another title" in table.read_text()
    asked = asked_before(table) or {}
    assert asked["experiments"]["main"]["title"] == "Another title"
    assert study.plan() == {}
