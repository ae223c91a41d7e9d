"""Which files of the library a stage depends on, so that a changed module makes its results stale.

The answer is read from the import statements, not kept by hand: a stage can forget no module.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from dass.runtime.files import sha256

ROOT = Path(__file__).parents[1]

EXCLUDED = {
    "errors": "words of errors",
    "results.schema": "what result files hold: its version is checked wherever one is read",
    "runtime": "logs, locks, files and provenance: how a job behaves, not what it computes",
}
"""Modules, or rooms of them, whose changes make nothing stale, and why."""


def module_files(*modules: str) -> list[str]:
    """The files of these modules of the library and of all that they import, sorted.

    Imports inside functions count; those for type checkers do not. CUDA sources count as imported
    by the modules beside them.

    Args:
        modules: names below ``dass``, e.g. ``stages.prune_run`` or ``pruning.methods.wanda``.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name and name not in found:
            found.add(name)
            waiting.append(name.rpartition(".")[0])  # Python runs a module's packages first
            waiting += () if _is_excluded(name) else _imports(name)
    files = {_file(name) for name in found if not _is_excluded(name)}
    files |= {kernel for file in files for kernel in file.parent.glob("*.c*")}
    return sorted(map(str, files))


def class_files(*classes: type) -> list[str]:
    """The files behind methods' classes: the library's, or the custom one's own package."""
    return sorted({file for cls in classes for file in _files_of(cls)})


def code_hash(files: Iterable[str | Path]) -> str:
    """One SHA-256 of the content of these files, wherever they lie."""
    return hashlib.sha256("".join(sorted(map(sha256, files))).encode()).hexdigest()


def _files_of(cls: type) -> list[str]:
    return module_files(cls.__module__.removeprefix("dass.")) if _is_ours(cls) else _own_files(cls)


def _is_ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "dass"


def _own_files(cls: type) -> list[str]:
    """A custom class's module, and what that imports of its own folder or package."""
    module = sys.modules[cls.__module__]
    start = Path(str(module.__file__)).resolve()
    top = start.parents[cls.__module__.count(".") + (start.name == "__init__.py")]
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _beside(file, top)
    library = {file for path in found for name in _imported_names(path) for file in _library(name)}
    return sorted({*map(str, found), *library})


def _beside(file: Path, top: Path) -> list[Path]:
    """Files below ``top`` that a file imports by absolute names, with the packages they are in."""
    found: list[Path] = []
    for name in _imported_names(file):
        place = top.joinpath(*name.split("."))
        packages = [p for p in (place, *place.parents) if p != top and p.is_relative_to(top)]
        found += [place.with_suffix(".py"), *(package / "__init__.py" for package in packages)]
    return [path for path in found if path.is_file()]


def _library(name: str) -> list[str]:
    if not name.startswith("dass.") or not _exists(name.removeprefix("dass.")):
        return []
    return module_files(name.removeprefix("dass."))


def _is_excluded(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in EXCLUDED)


def _file(name: str) -> Path:
    """The file of a module below ``dass``."""
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exists(name: str) -> bool:
    return bool(name) and _file(name).exists()


@cache
def _imports(name: str) -> tuple[str, ...]:
    """Names below ``dass`` that a module of the library imports."""
    names = (n.removeprefix("dass.") for n in _imported_names(_file(name)) if n.startswith("dass."))
    return tuple(name for name in names if _exists(name))


@cache
def _imported_names(file: Path) -> tuple[str, ...]:
    """Every dotted name that a file imports, with the members of ``from … import``."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in _nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return tuple(names)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All statements but those below ``if TYPE_CHECKING:``; expressions import nothing."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr) or (isinstance(child, ast.If) and _is_for_typing(child)):
            continue
        yield child
        yield from _nodes(child)


def _is_for_typing(branch: ast.If) -> bool:
    return isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
