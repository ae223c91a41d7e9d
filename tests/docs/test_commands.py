"""Each command of the documentation does what it can without network, GPU or cluster.

Snakemake's commands run as dry runs in a copy of the workflow, ``make`` targets exist, options of
Python programs exist, Python blocks are executed. What cannot run is listed in SKIPPED with a
reason, so that a new command has to be classified.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dass.errors import ConfigError
from tests.workflow.conftest import Workflow, copy_workflow, write_model_folder

from .pages import (
    PAGES,
    ROOT,
    Block,
    Command,
    blocks,
    comparing,
    fenced_commands,
    inline_commands,
)

SKIPPED = {
    "export HF_TOKEN=": "sets a variable of the reader's shell",
    "cp config/own.yaml": "makes the reader's own config, as the fixture here does",
    "mkdir -p /scratch": "makes folders outside the repository",
    "ln -s /scratch": "links to folders outside the repository",
    "--unlock": "there is no lock to remove",
    "--report report.zip": "needs a finished study; .github/workflows/demo.yml runs it",
    "/tmp/audit": "needs a package index and a database of vulnerabilities",
    "-m pytest": "runs tests; only their path is looked up",
}
"""Beginning or part of a command -> why it does not run here."""

FILES_OF = {
    "CONTRIBUTING.md": "test_extending.py, test_new_table.py and test_architecture.py follow them"
}
"""Page -> why its Python blocks are no programs."""

LANGUAGES = {
    "yaml": "test_yaml_blocks_hold_keys_that_exist",
    "python": "test_python_blocks_run",
    "pycon": "test_doctests.py",
    "snakemake": "tests/workflow/test_module.py",
    "mermaid": "drawn by the host of the repository",
    "bibtex": "test_pages.py",
    "text": "what a program prints",
}
"""Language of a block that holds no commands -> what looks at it."""


def why_skipped(command: Command) -> str | None:
    return next((why for part, why in SKIPPED.items() if part in command.text), None)


def programs(*names: str) -> list[Command]:
    """The fenced commands of these programs."""
    return [c for c in fenced_commands() if c.words and Path(c.words[0]).name in names]


def test_every_block_and_every_command_is_classified() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert not block.language or block.language in LANGUAGES, block.place
    for command in fenced_commands():
        name = Path(command.words[0]).name if command.words else ""
        runs = name in ("snakemake", "make", "python")
        assert runs or why_skipped(command), f"{command.place}: {command.text}: list it in SKIPPED"


def test_what_is_skipped_is_still_documented() -> None:
    every = [c.text for c in [*fenced_commands(), *inline_commands()]]
    for part in SKIPPED:
        assert any(part in text for text in every), f"no page has {part!r}: take it out of SKIPPED"


# --- snakemake ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A copy of the workflow as a reader has it, with models and data where pages suppose them."""
    made = copy_workflow(tmp_path_factory.mktemp("docs") / "workflow")
    for model in (made.folder / "my-model", *real_models(made.folder / "real")):
        write_model_folder(model)
    own = (made.folder / "config/own.yaml").read_text()
    (made.folder / "my.yaml").write_text(own.replace("${MODEL}", "my-model"))
    compare(made.folder, yaml.safe_load(own))
    return made


def compare(folder: Path, study: dict[str, Any]) -> None:
    """The method and the config that docs/comparing.md has its reader write."""
    method, changes = comparing()
    (folder / "mymethods.py").write_text(method)
    (folder / "compare.yaml").write_text(yaml.safe_dump(study | changes))
    masks = folder / "masks/my-model-u50.safetensors"
    masks.parent.mkdir()
    masks.touch()


def real_models(folder: Path) -> list[Path]:
    """Where config/real.yaml looks for its models below DASS_REAL; also makes its data sets."""
    text = (ROOT / "config/real.yaml").read_text()
    study = yaml.safe_load(re.sub(r"\$\{DASS_REAL[^}]*\}", str(folder), text))
    for path in (Path(d["path"]) for d in study["datasets"].values() if d.get("path")):
        splits = [path / f"{split}.jsonl" for split in ("train", "validation", "test")]
        for file in [path] if path.suffix else splits:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return [Path(model["path"]) for model in study["models"].values()]


def dry_runs() -> list[tuple[str, ...]]:
    """The arguments of each snakemake command, environment in front; those alike only once."""
    found: dict[tuple[str, ...], None] = {}
    for command in [*fenced_commands(), *inline_commands()]:
        if not command.words or Path(command.words[0]).name != "snakemake":
            continue
        counted = command.place == "docs/running.md" and command.words[1] == "-n"
        if why_skipped(command) or counted:  # test_selecting.py runs those and counts their jobs
            continue
        words = _without(command.words[1:], {"--cores": 1, "--resources": 1, "-n": 0})
        environment = [f"{k}={v}" for k, v in command.environment.items() if k != "HF_TOKEN"]
        found[(*environment, *words)] = None
    return list(found)


def _without(words: list[str], options: dict[str, int]) -> list[str]:
    """Without these options and so many words after each: they change no plan."""
    kept = list(words)
    for option, values in options.items():
        while option in kept:
            at = kept.index(option)
            del kept[at : at + 1 + values]
    return kept


@pytest.mark.workflow
@pytest.mark.parametrize("words", dry_runs(), ids=" ".join)
def test_snakemake_commands_plan_something(
    words: tuple[str, ...], workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    for name, value in (word.split("=", 1) for word in words if word not in arguments):
        here = {"/data/my-model": "my-model", "/data/real": str(workflow.folder / "real")}
        monkeypatch.setenv(name, here.get(value, value))
    monkeypatch.setenv("DASS_REAL", str(workflow.folder / "real"))
    monkeypatch.setenv("DASS_SPEED_GPU", "0")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--dry-run", *arguments],
        cwd=workflow.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "--touch" in arguments or re.search(r"^total +[1-9]", output, re.MULTILINE), output


# --- make and Python ----------------------------------------------------------------------------


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [c for c in [*fenced_commands(), *inline_commands()] if c.words[:1] == ["make"]]
    assert len(commands) > 5
    for command in commands:
        named = {word for word in command.words[1:] if "=" not in word}
        assert named <= targets, f"{command.place}: {command.text}"


def test_programs_named_in_text_exist() -> None:
    """Options change; what a caption says was run long ago may have had others."""
    for command in inline_commands():
        if Path(command.words[0]).name == "python" and command.words[1] not in ("-c", "-m"):
            assert (ROOT / command.words[1]).exists(), f"{command.place}: {command.text}"


@pytest.mark.parametrize("command", programs("python"), ids=lambda c: f"{c.place} {c.words[-1]}")
def test_options_of_python_programs_exist(command: Command) -> None:
    if why_skipped(command):
        for path in (word for word in command.words if word.startswith("tests/")):
            assert (ROOT / path).exists(), command.text
        return
    options = [i for i, word in enumerate(command.words) if word.startswith("--")]
    if not options:  # the program may do its work at once: that it exists is enough
        assert (ROOT / command.words[1]).exists(), command.text
        return
    first = options[0]
    call = [sys.executable, *command.words[1:first], "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        call, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for option in (command.words[i] for i in options):
        assert option in done.stdout, f"{command.place}: {shlex.join(call)} has no {option}"


HELPFUL = [
    *(["-m", f"dass.{f.parent.name}"] for f in (ROOT / "src/dass").glob("*/__main__.py")),
    *([f"workflow/scripts/{name}.py"] for name in ("plan", "run_plan")),
    *(
        [f"benchmarks/{f.name}"]
        for f in (ROOT / "benchmarks").glob("*.py")
        if "__main__" in f.read_text()
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("program", HELPFUL, ids=" ".join)
def test_help_helps_and_does_nothing_else(program: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *program, "--help"], cwd=ROOT, timeout=60, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    usage, *described = done.stdout.split("\n\n")
    assert usage.startswith("usage: ") and not described[0].startswith("options:")


def test_make_clean_leaves_other_studies_alone(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    demo = ["results/demo/summary.csv", "resources/models/standin-llama/config.json",
            "resources/standins/toy_corpus/documents.jsonl.gz", "logs/prune_run/demo/a/b.log",
            "logs/summary/demo.log", "logs/toy_corpus/toy_corpus.log", "logs/train_standin/a.log",
            "logs/benchmarks/summary/demo.tsv",
            "logs/benchmarks/prune_run/demo/a.tsv"]  # fmt: skip
    others = ["results/paper/summary.csv", "resources/models/llama2-7b/config.json",
              "resources/datasets/c4/documents.jsonl", "logs/prune_run/paper/a.log",
              "logs/summary/paper.log", "logs/benchmarks/summary/paper.tsv",
              ".snakemake/metadata/record"]  # fmt: skip
    for file in (*demo, *others):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"Makefile", *others}


# --- Python blocks ------------------------------------------------------------------------------


def python_blocks() -> dict[str, list[Block]]:
    """Page -> its Python blocks, which make up one program."""
    found = {page.name: [b for b in blocks(page) if b.language == "python"] for page in PAGES}
    return {page: own for page, own in found.items() if own and page not in FILES_OF}


@pytest.fixture(scope="module")
def after_the_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the demo leaves, of which pages make use: in small, made in seconds."""
    from dass.standins.training import train_standin
    from dass.standins.writing import write_corpus

    folder = tmp_path_factory.mktemp("demo")
    world = folder / "resources/standins/toy_corpus"
    model = folder / "resources/models/standin-llama"
    world.parent.mkdir(parents=True)
    model.parent.mkdir(parents=True)
    write_corpus(world, seed=0, documents=400)
    train_standin("llama", world, model, seed=0, steps=2)
    _make_results(folder / "results/demo", world, model)
    return folder


def _make_results(results: Path, world: Path, model: Path) -> None:
    """One run of the demo, and its summary."""
    from dass.results.summary import summarise, write_summary
    from dass.stages.calibration_tokens import calibration_tokens
    from dass.stages.evaluation_tokens import evaluation_tokens
    from dass.stages.perplexity import perplexity
    from dass.stages.prune_run import prune_run
    from dass.stages.zero_shot import zero_shot
    from dass.stages.zero_shot_requests import zero_shot_requests

    name = "standin-llama/toy/dass/2of4"
    run = results / "runs" / name
    run.mkdir(parents=True)
    calibration, evaluation = results / "calibration.safetensors", results / "text.safetensors"
    calibration_tokens(
        folder=model, dataset="toy", documents=world / "documents.jsonl.gz", sequences=4,
        length=64, seed=0, bos="text", out=calibration,
    )  # fmt: skip
    evaluation_tokens(
        folder=model, dataset="toy", text=world / "wikitext", rows="line", splits=["validation"],
        length=256, bos="text", out=evaluation,
    )  # fmt: skip
    prune_run(
        run=name, folder=model, tokens=calibration, dtype="float32", bos="text", function="dass",
        arguments={"alpha": 0.5}, propagation="pruned", pruned_file=run / "pruned.safetensors",
        result_file=run / "pruning.json",
    )  # fmt: skip
    perplexity(
        run=name, folder=model, pruned=run / "pruned.safetensors", tokens=evaluation,
        dtype="float32", bos="text", dataset="toy-text", splits=["validation"],
        result_file=run / "perplexity.json",
    )  # fmt: skip
    requests = results / "requests.safetensors"
    zero_shot_requests(
        folder=model, tasks={"arc_easy": world / "arc_easy"}, bos="text", limit=4, out=requests
    )
    zero_shot(
        run=name, folder=model, pruned=run / "pruned.safetensors", requests=requests,
        dtype="float32", result_file=run / "zero_shot.json",
    )  # fmt: skip
    files = ([run / f"{stage}.json"] for stage in ("pruning", "perplexity", "zero_shot"))
    write_summary(summarise(*files), results / "summary.json", results / "summary.csv")


@pytest.mark.slow
@pytest.mark.parametrize("page", python_blocks())
def test_python_blocks_run(page: str, after_the_demo: Path) -> None:
    """All blocks of a page, one after the other, in a process of their own."""
    program = "\n".join(block.text for block in python_blocks()[page])
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=after_the_demo, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in after_the_demo.iterdir()} == {"resources", "results"}  # ignored


def test_the_demo_takes_the_changes_of_comparing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/comparing.md, "Running it": without a model or a network."""
    from dass.config.load import load_config

    method, changes = comparing()
    (tmp_path / "mymethods.py").write_text(method)
    monkeypatch.syspath_prepend(tmp_path)
    demo = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    toy = demo["calibrations"]["toy"] | {"seed": changes["calibrations"]["c4"]["seed"]}
    experiments = {
        name: one | {"calibrations": ["toy"]} for name, one in changes["experiments"].items()
    }
    study = demo | changes | {"calibrations": {"toy": toy}, "experiments": experiments}
    for block in ("blocks", "speed"):
        with pytest.raises(ConfigError, match=f"^{block}"):
            load_config(study)
        del study[block]
    assert load_config(study).study == "compare"


@pytest.mark.slow
def test_methods_of_the_pages_pass_mypy(tmp_path: Path) -> None:
    """They may be copied into the library as they are."""
    of_library = [b.text for b in blocks(ROOT / "docs/library.md") if b.language == "python"]
    (tmp_path / "both.py").write_text(comparing()[0])
    (tmp_path / "mymethod.py").write_text(of_library[-1])
    done = subprocess.run(
        [sys.executable, "-m", "mypy", tmp_path / "both.py", tmp_path / "mymethod.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"MYPYPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_yaml_blocks_hold_keys_that_exist() -> None:
    """Of a study's config, or of a profile."""
    from dass.config.study import StudyConfig

    profile = (ROOT / "profiles/slurm/config.yaml").read_text()
    of_a_profile = set(re.findall(r"^(\w[\w-]*):", profile, re.MULTILINE))
    for block in (b for page in PAGES for b in blocks(page) if b.language == "yaml"):
        keys = set(yaml.safe_load(block.text))
        assert keys <= set(StudyConfig.model_fields) | of_a_profile, block.place
