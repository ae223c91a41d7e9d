"""A model and data of the user's own: every file that is read counts, and is checked first."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from .conftest import Workflow, copy_workflow, small_study
from .test_incremental import ENDS

MODEL, DATA = "mine", "data"


def own_study(folder: Path = Path()) -> dict:
    """The small study with one model, its text and its tasks as a user has them."""
    settings = small_study()
    settings["models"] = {
        "mine": {"label": "Mine", "path": str(folder / MODEL), "dtype": "float32"}
    }
    settings["experiments"]["main"]["methods"] = ["wanda"]
    settings["zero_shot"]["tasks"] = {"piqa": "piqa"}
    for name, kind, path in (
        ("toy", "documents", "documents.jsonl.gz"), ("toy-text", "text", "wikitext"),
        ("piqa", "task", "piqa"),
    ):  # fmt: skip
        settings["datasets"][name] = {"kind": kind, "path": str(folder / DATA / path)}
    return settings


@pytest.fixture(scope="module")
def finished_own(finished_study: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A finished study of them."""
    workflow = copy_workflow(tmp_path_factory.mktemp("own") / "a study")  # with a blank
    shutil.copytree(
        finished_study.folder / "resources/models/standin-llama", workflow.folder / MODEL
    )
    shutil.copytree(finished_study.folder / "resources/standins/toy_corpus", workflow.folder / DATA)
    (workflow.folder / MODEL / "added_tokens.json").write_text("{}")
    (workflow.folder / MODEL / "README.md").write_text("no result depends on it")
    workflow.write_study(own_study())
    workflow.forked("evaluate")
    finished = workflow.snakemake()
    assert finished.code == 0, finished.output
    assert finished.jobs == ENDS | {"summary_of_model": 1}
    assert workflow.plan() == {}
    return workflow


@pytest.fixture
def own(finished_own: Workflow, tmp_path: Path) -> Workflow:
    return finished_own.copied(tmp_path / "own")


ALL = {"calibration_tokens", "evaluation_tokens", "zero_shot_requests", "prune_run", "perplexity",
       "zero_shot"}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "jobs"),
    [
        ("mine/config.json", ALL),
        ("mine/tokenizer_config.json", ALL),
        ("mine/model.safetensors", ALL),
        ("mine/README.md", set()),
        ("data/documents.jsonl.gz", {"calibration_tokens", "prune_run", "perplexity", "zero_shot"}),
        ("data/wikitext/validation.jsonl", {"evaluation_tokens", "perplexity"}),
        ("data/piqa/validation.jsonl", {"zero_shot_requests", "zero_shot"}),
        ("data/piqa/train.jsonl", set()),
    ],
)
def test_a_file_edited_in_place_makes_stale_what_reads_it(
    own: Workflow, file: str, jobs: set[str]
) -> None:
    path = own.folder / file
    path.write_bytes(path.read_bytes() + b"\n")
    if file.endswith(".safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
        later = path.stat().st_mtime_ns + 10**9
        os.utime(path, ns=(later, later))
    planned = set(own.plan())
    assert planned & ALL == jobs
    assert jobs or not planned


@pytest.mark.parametrize(
    ("file", "jobs"),
    [
        ("mine/tokenizer.json", ALL),
        ("mine/model.safetensors", ALL),
        ("data/wikitext/validation.jsonl", {"evaluation_tokens", "perplexity"}),
    ],
)
def test_a_file_of_the_same_size_and_time_is_not_the_same(
    own: Workflow, file: str, jobs: set[str]
) -> None:
    """As where a folder is unpacked, moved or linked to where another one lay."""
    path = own.folder / file
    times, content = path.stat(), bytearray(path.read_bytes())
    place = content.rindex(b"a") if file.endswith("l") else len(content) // 2
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert set(own.plan()) & ALL == jobs


def test_a_link_that_leads_to_another_folder_counts(own: Workflow) -> None:
    folder, other = own.folder / "models", own.folder / "others"
    (own.folder / MODEL).rename(folder)
    (own.folder / MODEL).symlink_to(folder)
    assert own.plan() == {}
    shutil.copytree(folder, other, copy_function=shutil.copy2)
    path = other / "config.json"
    times = path.stat()
    path.write_text(path.read_text().replace("10000.0", "20000.0"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (own.folder / MODEL).unlink()
    (own.folder / MODEL).symlink_to(other)
    assert set(own.plan()) >= ALL


def test_a_file_that_is_added_or_gone_counts(own: Workflow) -> None:
    (own.folder / MODEL / "added_tokens.json").unlink()
    assert set(own.plan()) >= ALL
    (own.folder / MODEL / "added_tokens.json").write_text("{}")
    (own.folder / MODEL / "special_tokens_map.json").write_text("{}")
    assert set(own.plan()) >= ALL


def test_shards_in_a_subfolder_are_inputs(own: Workflow) -> None:
    folder = own.folder / MODEL
    (folder / "parts").mkdir()
    (folder / "model.safetensors").rename(folder / "parts/one.safetensors")
    from dass.data.model_folder import read_header

    names = read_header(folder / "parts/one.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "parts/one.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    finished = own.snakemake("--touch")
    assert finished.code == 0, finished.output
    assert own.plan() == {}
    (folder / "parts/one.safetensors").touch()
    assert set(own.plan()) >= ALL


def bad(workflow: Workflow, change, *arguments: str) -> str:
    """The one line that a changed study ends in, before any job."""
    settings = own_study()
    change(settings, workflow.folder)
    finished = workflow.snakemake(*arguments, config=workflow.write_study(settings, "bad.yaml"))
    assert finished.code != 0, finished.output
    assert "Traceback" not in finished.output
    assert "Select jobs to execute" not in finished.output, "a job began"
    lines = [line for line in finished.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, finished.output
    return lines[0]


def config_json(**changes: object):
    def change(settings: dict, folder: Path) -> None:
        path = folder / MODEL / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def dataset(name: str, path: str):
    return lambda settings, folder: settings["datasets"][name].update(path=path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (config_json(num_hidden_layers=1), "mine/config.json: num_hidden_layers is 1"),
        (config_json(quantization_config={"quant_method": "fp8"}), "a quantised checkpoint"),
        (lambda s, f: s["perplexity"].update(length=4096),
         "models.mine.path: mine: max_position_embeddings is 512, but windows have 4096 tokens"),
        (lambda s, f: (f / MODEL / "model.safetensors").unlink(), "mine.path: mine: no safe"),
        (dataset("toy", DATA), "datasets.toy.path: data is no file; give the file of documents"),
        (dataset("toy", "nowhere.jsonl"), "datasets.toy.path: nowhere.jsonl does not exist"),
        (dataset("toy-text", "nowhere"), "datasets.toy-text.path: nowhere: has neither"),
        (dataset("piqa", "data/arc"), "data/arc/validation.jsonl does not exist"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_the_first_job(own: Workflow, change, line: str) -> None:
    assert line in bad(own, change)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("runs/mien/dense/perplexity.json", "no 'mien' in models; did you mean mine?"),
        ("summary/mien.csv", "no 'mien' in models; did you mean mine?"),
        ("runs/mine/toy/wnada/2of4/perplexity.json", "no 'wnada' in methods; did you mean wanda?"),
        ("runs/mine/ty/wanda/2of4/pruned.safetensors", "no 'ty' in calibrations; did you"),
        ("exports/mine/toy/wanda/2by4", "unknown pattern '2by4'"),
        ("exports/mine/toy/wanda/u50.0", "write u50 instead of u50.0"),
        ("tables/mian/perplexity.tex", "no 'mian' in experiments; did you mean main?"),
    ],
)  # fmt: skip
def test_a_target_with_a_typo(own: Workflow, target: str, line: str) -> None:
    assert line in bad(own, lambda s, f: None, f"results/small/{target}", "--dry-run")


def test_a_target_of_another_study(own: Workflow) -> None:
    said = bad(own, lambda s, f: None, "results/paper/runs/mine/dense/perplexity.json")
    assert "the study is small, not paper; name its --configfile" in said


def test_a_key_that_the_file_says_twice(own: Workflow) -> None:
    text = (own.folder / "study.yaml").read_text()
    (own.folder / "twice.yaml").write_text(text + "perplexity: {}\n")
    finished = own.snakemake(config="twice.yaml")
    assert finished.code != 0
    assert "twice.yaml: 'perplexity' stands twice in one block" in finished.output


def test_numbers_on_the_command_line_are_numbers(own: Workflow) -> None:
    more = own.plan("--config", "calibrations={toy: {sequences: 4}}", "methods={wanda: {}}")
    assert more["calibration_tokens"] == 1


def test_a_licence_is_asked_for_before_the_first_job(
    own: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(own.folder / "no home"))

    def gated(settings: dict, folder: Path) -> None:
        block = {"label": "G", "hub": "owner/name", "dtype": "float32", "gated": True}
        settings["models"]["g"] = block

    said = bad(own, gated)
    assert "models.g: owner/name asks for a licence" in said
    assert "set HF_TOKEN" in said
    assert own.plan(config="bad.yaml")["fetch_model"] == 1  # a dry run fetches nothing


@pytest.mark.parametrize(
    ("root", "there"), [(None, "../shared/data/real"), ("/elsewhere", "/elsewhere")]
)
def test_an_error_on_a_path_names_the_variable_in_it(
    root: str | None, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DASS_REAL", raising=False)
    if root:
        monkeypatch.setenv("DASS_REAL", root)
    workflow = copy_workflow(tmp_path / "clone")
    written = "${DASS_REAL:-../shared/data/real}"

    def said(target: str, config: str) -> str:
        finished = workflow.snakemake(target, "--dry-run", config=f"config/{config}.yaml")
        assert finished.code != 0
        return finished.output

    assert (
        f"error: models.real-llama.path ({written}/models/real-llama): {there}/models/real-llama: "
        "no such model folder"
    ) in said("results/real/evaluation/real-llama/wikitext2.safetensors", "real")
    assert (
        f"error: datasets.hellaswag.path ({written}/tasks/hellaswag): {there}/tasks/hellaswag/"
    ) in said("calibrate", "smollm2")


def test_a_folder_with_braces_is_refused(tmp_path: Path) -> None:
    workflow = copy_workflow(tmp_path / "a{b}")
    workflow.write_study(small_study())
    finished = workflow.snakemake("--dry-run")
    assert finished.code != 0
    assert "error: " in finished.output and "has braces" in finished.output


def test_a_workflow_elsewhere_in_a_folder_that_snakemake_fills_in_is_refused(
    tmp_path: Path,
) -> None:
    named = copy_workflow(tmp_path / "a<b>")
    named.write_study(small_study())
    assert named.plan()["prune_run"] == 4  # its paths are relative: nothing is filled in
    elsewhere = Workflow(tmp_path)
    elsewhere.write_study(small_study())
    finished = elsewhere.snakemake("--dry-run", "--snakefile", str(named.folder / "Snakefile"))
    assert finished.code != 0
    assert "a<b>: has <b>, which Snakemake fills in; rename the folder" in finished.output
    assert "Undefined" not in finished.output


def test_figures_do_not_follow_the_users_matplotlib(
    own: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook's backend, and a style of one's own: the same bytes."""
    figure = own.folder / "results/small/figures/main/perplexity.pdf"
    before = figure.read_bytes()
    (own.folder / "matplotlibrc").write_text("axes.facecolor: red\nlines.linewidth: 9\n")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    finished = own.snakemake(
        "results/small/figures/main/perplexity.pdf", "--forcerun", "experiment_figures"
    )
    assert finished.code == 0, finished.output
    assert figure.read_bytes() == before


def test_what_failed_stands_last(own: Workflow) -> None:
    documents = own.folder / "few.jsonl"
    documents.write_text('{"text": "a b c"}\n')
    settings = own_study()
    settings["datasets"]["toy"]["path"] = "few.jsonl"
    finished = own.snakemake(config=own.write_study(settings, "few.yaml"))
    assert finished.code != 0
    _, _, last = finished.output.partition("What failed, and where:\n")
    first = last.splitlines()[0]
    assert first.startswith("  few.jsonl: ") and "logs/calibration_tokens/small/mine" in first
