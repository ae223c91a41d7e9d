"""The files that are generated from the config's classes."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dass.config import __main__ as command
from dass.config import blocks, method, speed
from dass.config.load import load_config
from dass.config.reference import json_schema, outdated, reference
from dass.config.runs import experiment_runs
from dass.config.study import StudyConfig
from dass.config.types import Strict
from dass.pruning.methods import built_in, find_class
from dass.tasks import TASKS

from .small import ROOT
from .test_shipped import FILES

MY_METHOD = """
from dataclasses import dataclass


@dataclass(frozen=True)
class MyMethod:
    strength: float = 1.0
    needs = frozenset()

    def comparison(self, role): ...

    def score(self, role, weight, statistics): ...
"""


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, action: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["config", action])
    return command.main()


def test_generated_files_are_up_to_date() -> None:
    assert not outdated(ROOT), "out of date; run: python -m dass.config --write"


@pytest.mark.slow
def test_write_and_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").mkdir()
    assert run(monkeypatch, tmp_path, "--check") == 1
    assert capsys.readouterr().err.splitlines() == [
        "config/schema.json is out of date; run: python -m dass.config --write",
        "docs/config.md is out of date; run: python -m dass.config --write",
    ]
    assert run(monkeypatch, tmp_path, "--write") == 0
    assert run(monkeypatch, tmp_path, "--check") == 0
    page = tmp_path / "docs/config.md"
    page.write_text(page.read_text() + "more\n")
    assert list(outdated(tmp_path)) == ["docs/config.md"]
    assert run(monkeypatch, tmp_path, "--check") == 1


@pytest.mark.slow
def test_the_introduction_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    run(monkeypatch, tmp_path, "--write")
    page = tmp_path / "docs/config.md"
    page.write_text("# By hand\n\n" + page.read_text())
    assert run(monkeypatch, tmp_path, "--check") == 0
    written = page.read_text()
    page.write_text(written.replace("## Top level", "## Elsewhere"))
    assert run(monkeypatch, tmp_path, "--write") == 0
    assert page.read_text() == written


def test_write_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--write")
    assert "run it in the repository's root" in capsys.readouterr().err


@pytest.mark.parametrize("file", FILES)
def test_schema_accepts_the_studies(file: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = (ROOT / "config" / file).read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    validator = jsonschema.Draft202012Validator(json_schema())
    mapping = yaml.safe_load(text)

    def accepts(**changes: Any) -> bool:
        return bool(validator.is_valid({**mapping, **changes}))

    assert accepts()
    assert not accepts(modles={})
    assert not accepts(methods={"x": {"function": "wnada"}})
    assert accepts(methods={"x": {"function": "dass", "alpha": 1}})
    assert not accepts(methods={"x": {"function": "dass", "alpha": -1}})
    assert not accepts(methods={"x": {"function": "dass", "damping": 0.1}})
    assert accepts(methods={"x": {"function": "package.module:Class", "damping": [0.1]}})
    assert accepts(zero_shot={"tasks": {"piqa": "piqa"}})
    assert not accepts(zero_shot={"tasks": {"copa": "piqa"}})


BLOCKS = [
    StudyConfig,
    *(
        value
        for module in (blocks, speed)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Strict) and not name.startswith("_")
        if value is not Strict
    ),
    *(method.block_of(find_class(name)) for name in built_in()),
]


def test_every_field_is_described_and_on_the_page() -> None:
    page = reference()
    assert len(BLOCKS) >= 18
    for block in BLOCKS:
        for name, field in block.model_fields.items():
            assert field.description, f"{block.__name__}.{name}"
            assert " ".join(field.description.split()) in page, f"{block.__name__}.{name}"


def test_methods_and_tasks_are_on_the_page() -> None:
    page = reference()
    for name in built_in():
        about = str(find_class(name).__doc__).partition("\n")[0].replace("|", r"\|")
        assert f"| `{name}` | {about} |" in page
    assert (
        "| `alpha` | number, 0 or more | `0.5` | `dass`: The power; the paper uses 0.5. |" in page
    )
    assert all(f"`{task}`" in page.partition("## `zero_shot`")[2] for task in TASKS)


def test_examples_of_the_page_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage/mymodule.py").write_text(MY_METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    mapping = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    page = (ROOT / "docs/config.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        for section, added in yaml.safe_load(example).items():
            mapping[section].update(added)
    study = load_config(mapping)
    assert len(experiment_runs(study, "mine")) == 2 * 3 * 2
    assert study.models["my-model"].path == "/home/someone/models/my-model"
    assert study.methods["mine"].arguments == {"strength": 0.3}
    c4 = study.perplexity.others["c4-validation"]
    assert (c4.split, c4.documents, c4.windows) == ("validation", 1100, 256)
