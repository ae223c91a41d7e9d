"""What makes a stage stale, against what Python really imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dass.pruning.methods import BUILT_IN
from dass.runtime import source_files
from dass.runtime.source_files import ROOT, SILENT, class_files, module_files

METHOD_MODULES = {reference.partition(":")[0].split(".")[-1] for reference in BUILT_IN.values()}


def names(files: list[str]) -> set[str]:
    """Paths below the library, without suffix: ``methods/wanda``."""
    return {str(Path(file).relative_to(ROOT).with_suffix("")) for file in files}


def imported(module: str) -> set[str]:
    """The library's files that a fresh Python has loaded after importing ``module``."""
    code = f"""import importlib, json, sys
importlib.import_module("dass.{module}")
found = [m.__file__ for n, m in sys.modules.items() if n.startswith("dass.")]
print(json.dumps(found))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return names(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["pruning", "stages"])
def test_nothing_that_python_imports_is_forgotten(module: str) -> None:
    loaded = imported(module)
    assert {"masks", "blocks", "weights", "methods/__init__"} <= loaded
    assert {name for name in loaded if name not in SILENT} <= names(module_files(module))


def test_files_are_real_sorted_and_each_once() -> None:
    files = module_files("pruning", "perplexity", "pruning")
    assert files == sorted(set(files))
    assert all(Path(file).is_file() for file in files)
    assert set(files) == set(module_files("pruning")) | set(module_files("perplexity"))


@pytest.mark.parametrize("module", ["pruning", "perplexity", "calibration", "checkpoint"])
def test_computing_depends_on_no_method_and_on_nothing_that_only_presents(module: str) -> None:
    found = names(module_files(module))
    assert not {f"methods/{name}" for name in METHOD_MODULES} & found
    assert not {"tables", "figures", "results", "config", "hub"} & found
    assert not set(SILENT) & found


def test_calibration_and_perplexity_do_not_depend_on_pruning() -> None:
    for module in ("calibration", "perplexity"):
        assert not {"pruning", "masks", "statistics"} & names(module_files(module))


def test_pruning_depends_on_what_computes_masks() -> None:
    assert {"pruning", "masks", "patterns", "glu", "statistics", "scoring", "blocks",
            "weights", "methods/__init__"} <= names(module_files("pruning"))  # fmt: skip


@pytest.mark.parametrize("function", BUILT_IN)
def test_a_method_depends_on_itself_and_on_no_other_method(function: str) -> None:
    found = names(class_files(BUILT_IN[function]))
    mine = BUILT_IN[function].partition(":")[0].removeprefix("dass.").replace(".", "/")
    assert {f"methods/{name}" for name in METHOD_MODULES} & found == {mine}
    assert "methods/__init__" in found


def test_a_method_of_ones_own_depends_on_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    (tmp_path / "own_package" / "mine.py").write_text("raise RuntimeError('must not be run')")
    monkeypatch.syspath_prepend(tmp_path)
    found = class_files("own_package.mine:Mine")
    assert found == [str(tmp_path / "own_package" / "mine.py")]


@pytest.mark.parametrize("reference", ["no_such_module:X", "no_such.module:X", "json.nowhere:X"])
def test_what_cannot_be_found_has_no_file(reference: str) -> None:
    assert class_files(reference) == []


def test_imports_inside_functions_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every form, at any depth, and through a chain; a name that is no module is no file."""
    (tmp_path / "pack").mkdir()
    sources = {
        "top.py": "from dass.pack import inner\nfrom dass import side\nimport os\n",
        "pack/__init__.py": "VALUE = 1\n",
        "pack/inner.py": "def f():\n    import dass.late\n    from dass.errors import DassError\n",
        "late.py": "from dass.pack import VALUE\n",
        "side.py": "",
        "errors.py": "import dass.unseen\n",
        "unseen.py": "",
    }
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    monkeypatch.setattr("dass.runtime.source_files.ROOT", tmp_path)

    source_files._imports.cache_clear()
    try:
        found = {str(Path(file).relative_to(tmp_path)) for file in module_files("top")}
    finally:
        source_files._imports.cache_clear()
    assert found == {"top.py", "pack/__init__.py", "pack/inner.py", "late.py", "side.py"}
