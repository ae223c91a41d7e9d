"""What makes a stage stale: the files that it depends on, from the import statements."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dass.pruning.methods import built_in, find_class
from dass.runtime import source_files
from dass.runtime.source_files import EXCLUDED, ROOT, class_files, module_files


def names(files: list[str]) -> set[str]:
    """Paths below the library, without suffix: ``pruning/methods/wanda``."""
    return {str(Path(file).relative_to(ROOT).with_suffix("")) for file in files}


def test_files_are_real_sorted_and_each_once() -> None:
    files = module_files("pruning.prune", "evaluation.perplexity", "pruning.prune")
    assert files == sorted(set(files))
    assert all(Path(file).is_file() for file in files)
    both = set(module_files("pruning.prune")) | set(module_files("evaluation.perplexity"))
    assert set(files) == both


def test_what_is_excluded_exists_and_says_why() -> None:
    for name, reason in EXCLUDED.items():
        path = ROOT.joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), name
        assert len(reason) > 10


@pytest.mark.parametrize(
    "stage", ["calibration_tokens", "evaluation_tokens", "prune_run", "perplexity", "zero_shot"]
)
def test_computing_depends_on_no_method_and_on_nothing_that_only_presents(stage: str) -> None:
    found = names(module_files(f"stages.{stage}"))
    assert f"stages/{stage}" in found
    assert not {f"pruning/methods/{name}" for name in built_in()} & found
    assert not {name for name in found if name.split("/")[0] in ("report", "config", "speed")}
    assert not {name for name in found if name.split("/")[0] in ("errors", "runtime")}
    assert "results/schema" not in found


def test_kernels_that_are_read_as_text_are_files_of_what_times_them() -> None:
    kernels = {str(path) for path in (ROOT / "packed").glob("*.c*")}
    assert {Path(kernel).name for kernel in kernels} == {
        "common.cuh", "decode.cuh", "block.cuh", "groups.cu", "bitmap.cu", "many.cu", "arrange.cu",
        "cpu.c",
    }  # fmt: skip
    for stage in ("speed_gpu", "speed_prefill", "speed_cpu"):
        assert kernels <= set(module_files(f"stages.{stage}"))
    assert not kernels & set(module_files("stages.perplexity"))


@pytest.mark.parametrize("stage", ["calibration_tokens", "evaluation_tokens"])
def test_tokens_depend_on_no_model_and_no_pruning(stage: str) -> None:
    rooms = {name.split("/")[0] for name in names(module_files(f"stages.{stage}"))}
    assert rooms == {"data", "stages", "terms"}


def test_evaluation_depends_on_the_pruned_file_and_on_nothing_else_of_pruning() -> None:
    for stage in ("perplexity", "zero_shot"):
        found = names(module_files(f"stages.{stage}"))
        assert {name for name in found if name.startswith("pruning")} == {
            "pruning/__init__", "pruning/pruned_file",
        }  # fmt: skip


@pytest.mark.parametrize("function", built_in())
def test_a_method_depends_on_itself_and_on_no_other_method(function: str) -> None:
    found = names(class_files(find_class(function)))
    others = {f"pruning/methods/{name}" for name in built_in()}
    assert others & found == {f"pruning/methods/{function}"}
    assert "pruning/method" in found


CUSTOM = {
    "own_package/__init__.py": "",
    "own_package/mine.py": "from own_package.helper import VALUE\nfrom dass.pruning import masks\n"
    "import json\nclass Mine:\n    pass\n",
    "own_package/helper.py": "import own_package.deep.deeper\nVALUE = 1\n",
    "own_package/deep/__init__.py": "",
    "own_package/deep/deeper.py": "",
    "own_package/unused.py": "raise RuntimeError('must not be run')",
}


def test_a_custom_method_depends_on_its_file_and_on_what_that_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own package, and of the library; not on other packages."""
    for name, source in CUSTOM.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    from own_package.mine import Mine  # type: ignore[import-not-found]

    found = class_files(Mine)
    for name in [name for name in sys.modules if name.split(".")[0] == "own_package"]:
        monkeypatch.delitem(sys.modules, name)
    own = {str(Path(f).relative_to(tmp_path)) for f in found if Path(f).is_relative_to(tmp_path)}
    assert own == {
        "own_package/mine.py", "own_package/helper.py", "own_package/__init__.py",
        "own_package/deep/deeper.py", "own_package/deep/__init__.py",
    }  # fmt: skip
    assert set(module_files("pruning.masks")) == set(found) - {str(tmp_path / n) for n in own}


def test_imports_inside_functions_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every form, at any depth, and through a chain; a name that is no module is no file."""
    (tmp_path / "pack").mkdir()
    sources = {
        "top.py": "from dass.pack import inner\nfrom dass import side\nimport os\n",
        "pack/__init__.py": "VALUE = 1\n",
        "pack/inner.py": "def f():\n    import dass.late\n    from dass.errors import DassError\n",
        "late.py": "from dass.pack import VALUE\n",
        "side.py": "if TYPE_CHECKING:\n    import dass.typed\n",
        "errors.py": "import dass.unseen\n",
        "unseen.py": "",
        "typed.py": "",
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
