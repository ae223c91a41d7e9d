"""What jobs ask for: by rule, by size of the model, by attempt, under each profile."""

from __future__ import annotations

import re
import stat

import pytest
import yaml
import yte

from dass.config.sizes import job_memory

from .conftest import ROOT, copy_workflow, small_study, write_model_folder

CLUSTER_PROFILES = ["slurm", "generic"]


def filled_in(name: str, **variables: str) -> str:
    """The text of a profile with other variables."""
    text = (ROOT / "profiles" / name / "config.yaml").read_text()
    for key, value in variables.items():
        text, found = re.subn(rf"^  {key}: \S+", f"  {key}: {value}", text, count=1, flags=re.M)
        assert found == 1
    return text


def profile(name: str, **variables: str) -> dict:
    """A profile as snakemake reads it, with other variables."""
    return yte.process_yaml(filled_in(name, **variables), require_use_yte=True)


def example() -> dict[str, str]:
    """The variables that docs/cluster.md gives as an example."""
    page = (ROOT / "docs/cluster.md").read_text()
    return yaml.safe_load(re.search(r"```yaml\n(__variables__:.*?)```", page, re.S)[1])[
        "__variables__"
    ]


def rules_with_a_gpu() -> dict[str, str]:
    """Rule -> its script, of the rules that ask for a GPU."""
    found = {}
    for file in (ROOT / "rules").glob("*.smk"):
        for block in re.split(r"^(?=rule )", file.read_text(), flags=re.M):
            if re.search(r"^        gpu=[1-9]", block, re.M):
                name = re.match(r"rule (\w+)", block)[1]
                found[name] = re.search(r"\"\.\./(workflow/scripts/.*)\"", block)[1]
    return found


def test_rules_that_ask_for_a_gpu_have_scripts_that_claim_it() -> None:
    rules = rules_with_a_gpu()
    assert {"prune_run", "perplexity", "zero_shot"} <= set(rules)
    for script in rules.values():
        text = (ROOT / script).read_text()
        assert 'gpus=snakemake.resources.get("gpu")' in text, script


@pytest.mark.parametrize("name", CLUSTER_PROFILES)
def test_profiles_say_where_cards_are_for_each_rule_that_asks_for_one(name: str) -> None:
    assert set(profile(name)["set-resources"]) == set(rules_with_a_gpu())


@pytest.mark.parametrize("name", CLUSTER_PROFILES)
def test_profiles_name_rules_that_exist(name: str) -> None:
    text = "".join(file.read_text() for file in (ROOT / "rules").glob("*.smk"))
    rules = set(re.findall(r"^rule (\w+):", text, re.M))
    assert set(profile(name)["groups"]) <= rules


def test_a_value_that_is_not_set_is_not_asked_for() -> None:
    plain = profile("slurm")
    assert set(plain["default-resources"]) == {"mem_mb", "runtime"}
    assert plain["set-resources"]["prune_run"] == {"gpu": 1}
    full = profile("slurm", account="me", partition="cpu", gpu_partition="gpu", gpu_model="h100")
    assert full["default-resources"]["slurm_account"] == "me"
    assert full["default-resources"]["slurm_partition"] == "cpu"
    assert full["set-resources"]["zero_shot"] == {
        "gpu": 1,
        "slurm_partition": "gpu",
        "gpu_model": "h100",
    }


def test_the_example_fills_in_every_variable() -> None:
    plain = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert set(example()) == set(plain["__variables__"])
    assert all(example().values())


def test_what_a_profile_runs_can_be_run() -> None:
    generic = profile("generic")
    script = ROOT / generic["cluster-generic-status-cmd"]
    assert script.stat().st_mode & stat.S_IXUSR


def sized_study(**billions: float) -> dict:
    """The small study with local models of these sizes."""
    study = small_study()
    study["models"] = {
        name: {"label": name, "path": "model", "dtype": "float32", "parameters": size}
        for name, size in billions.items()
    }
    return study


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a dry run says about the jobs of four models, the profile filled in as the example."""
    workflow = copy_workflow(tmp_path_factory.mktemp("sizes") / "study")
    for file in (workflow.folder / "rules").glob("*.smk"):  # a job with a message shows no more
        file.write_text(re.sub(r"^    message:\n.*\n", "", file.read_text(), flags=re.M))
    write_model_folder(workflow.folder / "model")
    workflow.write_study(sized_study(tiny=0.05, one=7, other=7, huge=70))
    (workflow.folder / "profiles/slurm/config.yaml").write_text(filled_in("slurm", **example()))
    profile = ["--workflow-profile", "profiles/slurm"]
    finished = workflow.snakemake(*profile, "--dry-run", cores=64)
    assert finished.code == 0, finished.output
    return finished.output


def asked_for(plan: str, rule: str, *wildcards: str) -> dict[str, str]:
    """Resources and threads of this job."""
    blocks = [b for b in re.split(r"^\[", plan, flags=re.M) if f"\nrule {rule}:\n" in b]
    (job,) = (
        block
        for block in blocks
        if set(wildcards) <= set(re.search(r"wildcards: (.*)", block)[1].split(", "))
    )
    threads = re.search(r"threads: (\d+)", job)
    pairs = (pair.split("=", 1) for pair in re.search(r"resources: (.*)", job)[1].split(", "))
    return dict(pairs) | {"threads": threads[1] if threads else "1"}


def test_a_job_asks_by_the_size_of_its_model_not_by_its_name(plan: str) -> None:
    jobs = {
        name: asked_for(plan, "prune_run", f"model={name}", "method=dass")
        for name in ("tiny", "one", "other", "huge")
    }
    assert jobs["one"] == jobs["other"]
    calibration = sized_study(one=7)["calibrations"]["toy"]
    states = 2 * calibration["sequences"] * calibration["length"]  # and attention's outputs
    memory = [int(jobs[name]["mem_mb"]) for name in ("tiny", "one", "huge")]
    minutes = [int(jobs[name]["runtime"]) for name in ("tiny", "one", "huge")]
    assert memory == [job_memory(size, "float32", states) for size in (0.05, 7, 70)]
    assert minutes == [10, 31, 220]
    assert [jobs[name]["threads"] for name in ("tiny", "one", "huge")] == ["1", "8", "8"]


def test_a_gpu_job_names_partition_and_card(plan: str) -> None:
    job = asked_for(plan, "perplexity", "model=huge", "run=dense")
    assert job["gpu"] == "1"
    assert job["gpu_model"] == "a100"
    assert job["slurm_partition"] == "gpu"
    assert job["slurm_account"] == "my_project"


def test_the_longest_job_of_a_70b_model_fits_into_a_day_even_when_retried_once(plan: str) -> None:
    assert 2 * int(asked_for(plan, "zero_shot", "model=huge", "run=dense")["runtime"]) < 24 * 60
