"""The paper's study, by its own config, from the hub to the tables; computed without network.

Only sizes are changed. All six models run; by default with one method and pattern each, and one
model with every method and every pattern beside those. DASS_FULL=1 runs the whole grid.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import Finished, Workflow, copy_workflow, forked_commands

from .conftest import GUEST, ROOT, TOKEN, environment_for, without_network
from .server import LocalHub, RemoteRepository

FULL = bool(os.environ.get("DASS_FULL"))
PART = {"methods": ["dass"], "patterns": ["2of4"]}
SELECT = [] if FULL else ["--config", "select={methods: [dass], patterns: [2of4]}"]
MORE_OF = "gemma-7b"
MORE = ["magnitude/2of4", "wanda/2of4", "sparsegpt/2of4", "dass/u50", "dass/4of8"]
PER_MODEL = 4 * 3


def paper_in_small() -> dict:
    """The main grid of config/config.yaml with smaller sizes, and nothing else changed."""
    study = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    study["experiments"] = {"main": study["experiments"]["main"]}
    del study["blocks"]
    for model in study["models"].values():
        model |= {"parameters": 0.01, "zero_shot_limit": 4}
    study["calibrations"]["c4"] |= {"sequences": 4, "length": 48}
    study["perplexity"]["length"] = 48
    return study


@dataclass
class Study:
    """The workflow in a folder of its own, and how its user calls it."""

    workflow: Workflow
    hub: LocalHub
    environment: dict[str, str]
    output: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.workflow.folder

    def snakemake(self, *arguments: str, network: bool) -> Finished:
        """Call snakemake."""
        prefix, environment = list[str](), self.environment
        if not network:
            prefix, environment = without_network(environment)
        command = [*prefix, sys.executable, "-m", "snakemake", *arguments]
        done = subprocess.run(
            [*command, "--cores", "2", "--configfile", "study.yaml"],
            cwd=self.folder, env=environment, capture_output=True, text=True,
            check=False, timeout=3600,
        )  # fmt: skip
        self.output.append(done.stdout + done.stderr)
        return Finished(done.returncode, self.output[-1])

    def forked(self, config: str, *targets: str) -> None:
        """Have jobs done by one process, which has no network."""
        prefix, environment = without_network(self.environment)
        for command in forked_commands(config, *targets):
            done = subprocess.run(
                [*prefix, *command], cwd=self.folder, env=environment, capture_output=True,
                text=True, check=False, timeout=3600,
            )  # fmt: skip
            self.output.append(done.stdout + done.stderr)
            assert done.returncode == 0, self.output[-1]

    def results(self, kind: str) -> list[dict]:
        """All result files of a kind."""
        files = sorted((self.folder / "results/paper/runs").rglob(f"{kind}.json"))
        return [json.loads(file.read_text()) for file in files]


def new_study(hub: LocalHub, folder: Path) -> Study:
    workflow = copy_workflow(folder)
    workflow.write_study(paper_in_small())
    environment = environment_for(hub, folder.parent / f"{folder.name}-home")
    # A Slurm that this machine may have is not asked: without network each call waits 10 s for it.
    return Study(workflow, hub, environment | {"SLURM_CONF": os.devnull})


@pytest.fixture
def fresh(hub: LocalHub, tmp_path: Path) -> Study:
    """The study with nothing fetched."""
    return new_study(hub, tmp_path / "study")


@pytest.fixture(scope="module")
def finished(
    repositories: list[RemoteRepository], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Study]:
    """Fetched with the hub up, computed with the hub down, the caches gone and the network cut."""
    with LocalHub(list(repositories), tokens={TOKEN}, guests={GUEST}) as hub:
        study = new_study(hub, tmp_path_factory.mktemp("paper") / "study")
        fetched = study.snakemake("fetch", network=True)
        assert fetched.code == 0, fetched.output
        assert fetched.jobs == {"fetch": 1, "fetch_model": 6, "fetch_dataset": 7}
    shutil.rmtree(study.environment["HF_HOME"])
    more = [
        f"results/paper/runs/{MORE_OF}/c4/{run}/{kind}.json"
        for run in MORE
        for kind in ("perplexity", "zero_shot")
    ]
    study.workflow.write_study(paper_in_small() | {"select": PART}, "part.yaml")
    for config, targets in [("study.yaml", ["all"])] if FULL else [
        ("study.yaml", more), ("part.yaml", ["evaluate"])
    ]:  # fmt: skip
        study.forked(config, *targets)
    computed = study.snakemake("all", *SELECT, network=False)
    assert computed.code == 0, computed.output
    assert "prune_run" not in computed.jobs
    yield study


def models() -> dict:
    return paper_in_small()["models"]


def runs_of(model: str) -> int:
    """How many pruned runs the test makes of a model."""
    if FULL:
        return PER_MODEL
    return 1 + (len(MORE) if model == MORE_OF else 0)


def test_every_model_method_and_pattern_has_its_results(finished: Study) -> None:
    pruning = finished.results("pruning")
    for model in models():
        assert sum(result["run"]["model"] == model for result in pruning) == runs_of(model)
    settings = paper_in_small()
    grid = settings["experiments"]["main"]
    assert {result["run"]["method"] for result in pruning} == set(grid["methods"])
    assert {result["run"]["pattern"] for result in pruning} == set(grid["patterns"])
    assert {round(r["mean_sparsity"], 3) for r in pruning} == {0.5}
    for kind in ("perplexity", "zero_shot"):
        results = finished.results(kind)
        assert len(results) == sum(1 + runs_of(model) for model in models())
    assert set(results[0]["tasks"]) == set(settings["zero_shot"]["tasks"])


def test_tables_and_report_name_every_model(finished: Study) -> None:
    folder = finished.folder / "results/paper"
    for kind in ("perplexity", "zero_shot"):
        table = (folder / f"tables/main/{kind}.tex").read_text()
        assert all(model["label"] in table for model in models().values())
        assert "DaSS" in table
        assert (folder / f"figures/main/{kind}.pdf").stat().st_size > 1000
    assert all((folder / f"report.{form}").exists() for form in ("html", "pdf", "tex"))


def test_results_name_the_commits_that_they_were_made_from(finished: Study) -> None:
    settings = paper_in_small()

    def commit(kind: str, name: str) -> dict[str, str]:
        repository = finished.hub.find(kind, name)
        assert repository is not None
        return {"repository": name, "commit": repository.commit}

    for result in finished.results("pruning"):
        assert result["provenance"]["inputs"] == {
            "model": commit("model", settings["models"][result["run"]["model"]]["hub"]),
            "calibration": commit("dataset", "allenai/c4"),
        }
    for result in finished.results("perplexity"):
        assert result["provenance"]["inputs"]["wikitext2"] == commit(
            "dataset", "Salesforce/wikitext"
        )
    for result in finished.results("zero_shot"):
        assert result["provenance"]["inputs"] == {
            "model": commit("model", settings["models"][result["run"]["model"]]["hub"])
        } | {
            task: commit("dataset", settings["datasets"][name]["hub"])
            for task, name in settings["zero_shot"]["tasks"].items()
        }


def test_another_call_runs_nothing(finished: Study) -> None:
    again = finished.snakemake("all", "--dry-run", *SELECT, network=False)
    assert again.code == 0, again.output
    assert "Nothing to be done" in again.output


def test_what_is_left_of_the_grid_needs_no_network(finished: Study) -> None:
    """A dry run of the unreduced grid, after part of it: no fetching in it."""
    plan = finished.snakemake("all", "--dry-run", network=False)
    assert plan.code == 0, plan.output
    left = sum(PER_MODEL - runs_of(model) for model in models())
    assert {rule: plan.jobs[rule] for rule in ("prune_run", "perplexity", "zero_shot")} == {
        "prune_run": left, "perplexity": left, "zero_shot": left,
    }  # fmt: skip
    assert not [rule for rule in plan.jobs if rule.startswith("fetch")]


def test_another_revision_is_fetched_anew_and_nothing_else(finished: Study) -> None:
    study = paper_in_small()
    study["models"]["gemma-7b"]["revision"] = "v2"
    finished.workflow.write_study(study, "revision.yaml")
    for model, fetches in (("gemma-7b", 1), ("mistral-7b", 0)):
        target = f"resources/models/{model}"
        done = finished.workflow.snakemake(target, "--dry-run", config="revision.yaml")
        assert done.jobs["fetch_model"] == fetches, done.output


def test_the_token_shows_nowhere(finished: Study) -> None:
    places = [finished.folder / name for name in ("results", "logs", "resources", ".snakemake")]
    files = [file for place in places for file in place.rglob("*") if file.is_file()]
    assert len(files) > 200
    assert not [file for file in files if TOKEN.encode() in file.read_bytes()]
    assert not [output for output in finished.output if TOKEN in output]
    assert any(served.token for served in finished.hub.log)  # there was one to be shown


def test_nothing_pickled_was_fetched(finished: Study) -> None:
    names = {file.name for file in (finished.folder / "resources").rglob("*")}
    assert "model.safetensors" in names
    assert not [name for name in names if name.endswith((".bin", ".pth", ".pt", ".pkl", ".py"))]
    assert not [s for s in finished.hub.log if s.path.endswith((".bin", ".pth"))]


def test_the_whole_grid_is_the_papers(fresh: Study) -> None:
    plan = fresh.snakemake("--dry-run", network=False)
    assert plan.code == 0, plan.output
    assert plan.jobs["prune_run"] == 6 * PER_MODEL
    assert plan.jobs["perplexity"] == plan.jobs["zero_shot"] == 6 * (1 + PER_MODEL)
    assert (plan.jobs["fetch_model"], plan.jobs["fetch_dataset"]) == (6, 7)


def test_only_fetching_needs_the_network(fresh: Study) -> None:
    """The cut under which the study was computed is one that fetching does not survive."""
    cut = fresh.snakemake("resources/models/mistral-7b", network=False)
    assert cut.code != 0
    assert "mistralai/Mistral-7B-v0.1: the hub is out of reach" in cut.output
    assert "Traceback" not in cut.output
    assert not (fresh.folder / "resources/models/mistral-7b").exists()


def test_a_gated_model_without_a_token_is_one_line(fresh: Study) -> None:
    del fresh.environment["HF_TOKEN"]
    refused = fresh.snakemake("resources/models/gemma-7b", network=True)
    assert refused.code != 0
    line = (
        "error: models.gemma-7b: google/gemma-7b asks for a licence; accept it at "
        "https://huggingface.co/google/gemma-7b and set HF_TOKEN to a token of your account"
    )
    assert line in refused.output
    assert "Traceback" not in refused.output
    assert not (fresh.folder / "resources/models/gemma-7b").exists()


def test_a_killed_hub_is_taken_up_by_the_next_call(fresh: Study) -> None:
    """Through snakemake, which clears away the outputs of a job that failed."""
    target = "resources/models/llama2-13b"
    shard = "model-00002-of-00004.safetensors"
    fresh.hub.fail(shard, cut=400_000, die=True)
    broken = fresh.snakemake(target, network=True)
    assert broken.code != 0
    assert "try again, it goes on from there" in broken.output
    assert not (fresh.folder / target).exists()
    fresh.hub.start()
    again = fresh.snakemake(target, network=True)
    assert again.code == 0, again.output
    first, *_, last = [s for s in fresh.hub.log if s.host == "cdn" and s.path.endswith(shard)]
    assert first.sent == 400_000
    assert last.start > 250_000 and last.start + last.sent == 592_360
    there = fresh.hub.find("model", "meta-llama/Llama-2-13b-hf")
    assert there is not None
    assert (fresh.folder / target / shard).read_bytes() == (there.folder / shard).read_bytes()
