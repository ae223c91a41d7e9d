"""What runs again after a change, and what does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import PARTS, Workflow, small_study

ENDS = {
    "summary_of_model": 2,
    "summary": 1,
    "experiment_tables": 1,
    "experiment_figures": 1,
    "report": 1,
    "all": 1,
}


def test_the_study_ends_in_its_tables(finished_study: Workflow) -> None:
    results = set(finished_study.results())
    wanted = {
        "results/small/summary.csv",
        "results/small/report.html",
        "results/small/report.pdf",
        "results/small/report.tex",
        "results/small/tables/main/perplexity.tex",
        "results/small/tables/main/perplexity.md",
        "results/small/tables/main/zero_shot.tex",
        "results/small/figures/main/perplexity.pdf",
        "results/small/runs/standin-llama/dense/zero_shot.json",
        "results/small/runs/standin-mistral/toy/dass/2of4/pruned.safetensors",
    }
    assert wanted <= results
    assert not [name for name in results if name.endswith(".part")]


def test_tables_say_what_the_models_are(finished_study: Workflow) -> None:
    for kind in ("perplexity", "zero_shot"):
        table = (finished_study.folder / f"results/small/tables/main/{kind}.tex").read_text()
        assert "stand-ins" in table
    assert "10" in re.findall(r"[Aa]t most (\d+)", table)  # the limit stands in the caption


def test_results_say_how_they_came_to_be(finished_study: Workflow) -> None:
    run = finished_study.folder / "results/small/runs/standin-llama/toy/dass/2of4"
    pruning = json.loads((run / "pruning.json").read_text())
    perplexity = json.loads((run / "perplexity.json").read_text())
    assert pruning["settings"]["arguments"] == {"alpha": 0.5}
    assert set(pruning["sparsity"].values()) == {0.5}
    assert perplexity["mask_hash"] == pruning["mask_hash"]
    assert set(perplexity["splits"]) == {"validation", "test"}
    made_of = pruning["provenance"]
    assert made_of["config"] == perplexity["provenance"]["config"] is not None
    calibration = small_study()["calibrations"]["toy"]
    assert {key: made_of["calibration"][key] for key in calibration} == calibration
    assert perplexity["provenance"]["text"]["dataset"] == perplexity["dataset"]


def test_a_second_call_runs_nothing(study: Workflow) -> None:
    finished = study.snakemake()
    assert finished.code == 0
    assert "Nothing to be done" in finished.output


def test_a_changed_method_makes_its_own_runs_stale_and_no_others(study: Workflow) -> None:
    study.append("src/dass/pruning/methods/dass.py", "# changed")
    finished = study.snakemake("--dry-run")
    assert finished.jobs == {"prune_run": 2, "perplexity": 2, "zero_shot": 2} | ENDS
    pruned = set(re.findall(r"Pruning (\S+) by (\S+) to (\S+)", finished.output))
    assert pruned == {("standin-llama", "dass", "2of4"), ("standin-mistral", "dass", "2of4")}


RUNS = {"perplexity": 4, "zero_shot": 4}
"""Evaluations of pruned runs: two models, two methods."""
DENSE = {"perplexity": 6, "zero_shot": 6}
"""With the dense models."""
STALE = {
    "src/dass/pruning/masks.py": {"prune_run": 4} | RUNS | ENDS,
    "src/dass/pruning/method.py": {"prune_run": 4} | RUNS | ENDS,
    "src/dass/stages/prune_run.py": {"prune_run": 4} | RUNS | ENDS,
    "src/dass/data/windows.py": {
        "calibration_tokens": 2, "evaluation_tokens": 2, "prune_run": 4,
        "perplexity": 6, "zero_shot": 4,
    } | ENDS,
    "src/dass/data/tokenizer.py": {
        "calibration_tokens": 2, "evaluation_tokens": 2, "zero_shot_requests": 2, "prune_run": 4,
    } | DENSE | ENDS,
    "src/dass/stages/calibration_tokens.py": {
        "calibration_tokens": 2, "prune_run": 4,
    } | RUNS | ENDS,
    "src/dass/evaluation/perplexity.py": {"perplexity": 6} | ENDS,
    "src/dass/evaluation/harness.py": {"zero_shot_requests": 2, "zero_shot": 6} | ENDS,
    "src/dass/evaluation/accuracy.py": {"zero_shot": 6} | ENDS,
    "src/dass/evaluation/zero_shot.py": {},
    "src/dass/tasks.py": {"zero_shot_requests": 2, "zero_shot": 6} | ENDS,
    "src/dass/models/streamed.py": {"prune_run": 4} | DENSE | ENDS,
    "src/dass/results/summary.py": ENDS,
    "src/dass/report/experiment_tables.py": {"experiment_tables": 1, "report": 1, "all": 1},
    "src/dass/report/document.py": {"report": 1, "all": 1},
    "src/dass/report/templates/report.typ": {"report": 1, "all": 1},
    "src/dass/report/templates/report.tex": {"report": 1, "all": 1},
    "src/dass/stages/report.py": {"report": 1, "all": 1},
    "src/dass/results/schema.py": {},
    "src/dass/runtime/progress.py": {},
    "src/dass/runtime/provenance.py": {},
    "src/dass/errors.py": {},
}  # fmt: skip
"""A changed file of the library -> the jobs that it makes stale, and no others."""


@pytest.mark.parametrize("file", STALE)
def test_a_changed_module_makes_exactly_what_depends_on_it_stale(
    file: str, finished_study: Workflow
) -> None:
    """Only planned, on the finished study itself; the file is put back with its time."""
    path = finished_study.folder / file
    before, times = path.read_text(), path.stat()
    try:
        path.write_text(before + "# changed\n")
        assert finished_study.plan() == STALE[file]
    finally:
        path.write_text(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_new_built_in_method_makes_nothing_stale(finished_study: Workflow) -> None:
    new = finished_study.folder / "src/dass/pruning/methods/new.py"
    new.write_text((new.parent / "wanda.py").read_text())
    try:
        assert finished_study.plan() == {}
    finally:
        new.unlink()


def test_a_changed_comment_in_config_runs_nothing(study: Workflow) -> None:
    study.append("study.yaml", "# a remark")
    assert study.plan() == {}


def test_a_new_alpha_runs_only_what_is_new(study: Workflow) -> None:
    settings = small_study()
    settings["methods"]["dass-a0.25"] = {"function": "dass", "alpha": 0.25}
    settings["experiments"]["main"]["methods"].append("dass-a0.25")
    config = study.write_study(settings, "alpha.yaml")
    assert study.plan(config=config) == {"prune_run": 2, "perplexity": 2, "zero_shot": 2} | ENDS


def test_a_changed_argument_makes_its_method_stale(study: Workflow) -> None:
    settings = small_study()
    settings["methods"]["dass"]["alpha"] = 1.0
    config = study.write_study(settings, "alpha.yaml")
    assert study.plan(config=config) == {"prune_run": 2, "perplexity": 2, "zero_shot": 2} | ENDS


def test_other_targets_make_their_method_stale_and_no_other(study: Workflow) -> None:
    """Beside a method as another one, they leave all runs as they are."""
    config = small_study()
    config["methods"]["wanda"]["targets"] = "all"
    finished = study.snakemake("--dry-run", config=study.write_study(config, "changed.yaml"))
    assert finished.jobs == {"prune_run": 2, "perplexity": 2, "zero_shot": 2} | ENDS
    pruned = set(re.findall(r"Pruning (\S+) by (\S+) to (\S+)", finished.output))
    assert pruned == {("standin-llama", "wanda", "2of4"), ("standin-mistral", "wanda", "2of4")}
    config = small_study()
    config["methods"]["wanda-all"] = {"function": "wanda", "label": "All", "targets": "all"}
    config["experiments"]["main"]["methods"] += ["wanda-all"]
    run = "results/small/runs/standin-llama/toy/wanda-all/2of4/perplexity.json"
    beside = study.write_study(config, "beside.yaml")
    finished = study.snakemake(run, config=beside)
    assert finished.code == 0, finished.output
    assert finished.jobs == {"prune_run": 1, "perplexity": 1}
    made = json.loads((study.folder / run).with_name("pruning.json").read_text())
    assert made["settings"]["targets"] == "all"
    attention = sum("self_attn" in name for name in made["sparsity"])
    assert attention == 4 * len(made["block_seconds"])
    assert study.plan(run, config=beside) == {}


def test_one_model_asked_for_runs_that_model_only(fresh: Workflow) -> None:
    finished = fresh.snakemake("results/small/summary/standin-mistral.csv", "--dry-run")
    assert finished.jobs == {
        "toy_corpus": 1,
        "train_standin": 1,
        "calibration_tokens": 1,
        "evaluation_tokens": 1,
        "zero_shot_requests": 1,
        "prune_run": 2,
        "perplexity": 3,
        "zero_shot": 3,
        "summary_of_model": 1,
    }
    assert "standin-llama" not in finished.output


def test_select_restricts_models_methods_and_patterns(fresh: Workflow) -> None:
    select = "select={models: [standin-mistral], methods: [dass]}"
    finished = fresh.snakemake("--dry-run", "--config", select)
    assert finished.jobs["prune_run"] == 1
    assert finished.jobs["perplexity"] == 2
    assert "standin-llama" not in finished.output


def test_export_is_a_target(study: Workflow) -> None:
    from transformers import AutoModelForCausalLM

    target = "results/small/exports/standin-llama/toy/dass/2of4"
    finished = study.snakemake(target)
    assert finished.code == 0, finished.output
    model = AutoModelForCausalLM.from_pretrained(study.folder / target)
    weight = model.model.layers[0].mlp.down_proj.weight
    assert (weight == 0).float().mean().item() == 0.5


# Changes of the config alone: only planned, on the finished study itself, which stays as it is.


def plan_of(finished_study: Workflow, settings: dict, *arguments: str) -> dict[str, int]:
    config = finished_study.write_study(settings, "changed.yaml")
    return dict(finished_study.plan(*arguments, config=config))


def test_a_new_model_runs_only_that_model(finished_study: Workflow) -> None:
    settings = small_study()
    settings["models"]["another"] = settings["models"]["standin-llama"] | {"label": "Another"}
    assert plan_of(finished_study, settings) == {
        "train_standin": 1,
        "calibration_tokens": 1,
        "evaluation_tokens": 1,
        "zero_shot_requests": 1,
        "prune_run": 2,
        "perplexity": 3,
        "zero_shot": 3,
        **ENDS,
        "summary_of_model": 1,
    }


def test_a_new_calibration_seed_prunes_anew_and_keeps_what_there_is(
    finished_study: Workflow,
) -> None:
    settings = small_study()
    settings["calibrations"]["toy-s1"] = settings["calibrations"]["toy"] | {"seed": 1}
    settings["experiments"]["main"]["calibrations"].append("toy-s1")
    runs = {"prune_run": 4, "perplexity": 4, "zero_shot": 4}
    assert plan_of(finished_study, settings) == {"calibration_tokens": 2} | runs | ENDS


def test_a_new_experiment_on_the_same_runs_computes_nothing(finished_study: Workflow) -> None:
    settings = small_study()
    again = settings["experiments"]["main"] | {"title": "Again", "methods": ["dass"]}
    settings["experiments"]["again"] = again
    assert plan_of(finished_study, settings) == {
        "experiment_tables": 1,
        "experiment_figures": 1,
        "report": 1,
        "all": 1,
    }


def test_another_label_makes_tables_only(finished_study: Workflow) -> None:
    settings = small_study()
    settings["models"]["standin-llama"]["label"] = "The first"
    settings["methods"]["dass"]["label"] = "Ours"
    shown = {"experiment_tables": 1, "experiment_figures": 1, "report": 1, "all": 1}
    assert plan_of(finished_study, settings) == shown


def test_a_size_changes_what_jobs_ask_for_and_runs_nothing(finished_study: Workflow) -> None:
    settings = small_study()
    settings["models"]["standin-llama"] |= {"parameters": 0.01, "notes": "small"}
    assert plan_of(finished_study, settings) == {}


def test_a_method_that_is_left_out_takes_nothing_of_the_others_along(
    finished_study: Workflow,
) -> None:
    settings = small_study()
    settings["experiments"]["main"]["methods"] = ["wanda"]
    assert plan_of(finished_study, settings) == ENDS


def test_tables_can_be_made_again_alone(finished_study: Workflow) -> None:
    again = finished_study.plan("--forcerun", "experiment_tables")
    assert again == {"experiment_tables": 1, "all": 1}


def test_a_rule_can_be_repeated_for_one_model(finished_study: Workflow) -> None:
    target = "results/small/summary/standin-mistral.csv"
    plan = finished_study.plan(target, "--forcerun", "perplexity")
    assert plan == {"perplexity": 3, "summary_of_model": 1}


def test_a_rule_can_be_repeated_for_selected_methods(finished_study: Workflow) -> None:
    """Each model is evaluated unpruned and with the one method."""
    select = "select={methods: [dass]}"
    plan = finished_study.plan("evaluate", "--forcerun", "zero_shot", "--config", select)
    assert plan == {"zero_shot": 4, "evaluate": 1}


# Files that move, change hands, or look newer than they are.


def test_sources_that_only_look_newer_make_nothing_stale(study: Workflow) -> None:
    """As after `git checkout` of another branch and back."""
    for file in (study.folder / "src").rglob("*.py"):
        file.touch()
    assert study.plan() == {}


def test_results_known_to_be_good_are_kept_with_touch(study: Workflow) -> None:
    study.append("src/dass/models/streamed.py", "# a remark")
    before = result_bytes(study)
    assert study.plan()["prune_run"] == 4
    finished = study.snakemake("--touch")
    assert finished.code == 0, finished.output
    assert study.plan() == {}
    assert result_bytes(study) == before


def test_results_may_lie_on_another_disk(study: Workflow, tmp_path: Path) -> None:
    (study.folder / "results").rename(tmp_path / "elsewhere")
    (study.folder / "results").symlink_to(tmp_path / "elsewhere")
    assert study.plan() == {}


def test_a_new_clone_takes_results_over_with_touch(study: Workflow) -> None:
    """Without the records in .snakemake, new sources beside old results look like changed ones."""
    shutil.rmtree(study.folder / ".snakemake")
    for file in (study.folder / "src").rglob("*.py"):
        file.touch()
    assert study.plan()["prune_run"] == 4
    assert study.snakemake("--touch").code == 0
    assert study.plan() == {}


@pytest.fixture
def as_nobody() -> Iterator[tuple[Path, list[str]]]:
    """A folder of another user's, and how to run a command as that user."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root, with setpriv, can be another user")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    can_read = subprocess.run([*command, sys.executable, "-c", "import snakemake"], check=False)
    if can_read.returncode:
        pytest.skip("this Python is not for others to use")
    yield folder, command
    shutil.rmtree(folder)


def test_a_second_user_reads_the_same_results(
    study: Workflow, as_nobody: tuple[Path, list[str]]
) -> None:
    """A clone of their own, the first user's results linked into it, and the records copied."""
    folder, command = as_nobody
    first, second = folder / "first", folder / "second"
    study.copied(first)
    second.mkdir()
    for part in [*PARTS, "study.yaml", ".snakemake"]:
        copy = shutil.copytree if (first / part).is_dir() else shutil.copy
        copy(first / part, second / part)
    for part in ("results", "resources"):
        (second / part).symlink_to(first / part)
    for path in [second, *second.rglob("*")]:
        if not path.is_symlink() and "first" not in path.parts:
            os.chown(path, 65534, 65534)
    environment = os.environ | {"HOME": str(second), "PYTHONDONTWRITEBYTECODE": "1"}
    snakemake = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "study.yaml"]
    done = subprocess.run(
        [*command, *snakemake], cwd=second, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to be done" in done.stderr + done.stdout
    summary = ["cat", "results/small/summary.csv", "results/small/tables/main/perplexity.md"]
    read = subprocess.run([*command, *summary], cwd=second, capture_output=True, check=False)
    assert read.returncode == 0, read.stderr


def result_bytes(study: Workflow) -> dict[str, bytes]:
    return {name: (study.folder / name).read_bytes() for name in study.results()}
