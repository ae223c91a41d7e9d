"""Which files of the library a stage depends on, so that a changed module makes its results stale.

The answer is read from the import statements, not kept by hand: a stage can forget no module.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

SILENT = frozenset({"errors", "runtime"})
"""Modules that say and store things but compute nothing: a change in them makes nothing stale."""


def module_files(*modules: str) -> list[str]:
    """The files of these modules of the library and of all that they import, sorted.

    Args:
        modules: names below ``dass``, e.g. ``pruning`` or ``methods.wanda``.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and name.split(".")[0] not in SILENT:
            found.add(name)
            waiting += _imports(name)
    return sorted(str(_file(name)) for name in found)


def class_files(reference: str) -> list[str]:
    """The files behind ``package.module:Class``, of the library or of the user's own.

    A module that cannot be found has no file here; making the method says what is wrong.
    """
    module = reference.partition(":")[0]
    if module.startswith("dass."):
        return module_files(module.removeprefix("dass."))
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return []
    return [spec.origin] if spec is not None and spec.origin else []


def _file(name: str) -> Path:
    """The file of a module below ``dass``."""
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imports(name: str) -> tuple[str, ...]:
    """Names below ``dass`` that a module imports, also inside functions."""
    tree = ast.parse(_file(name).read_text(encoding="utf-8"))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dass"):
            module = (node.module or "").removeprefix("dass").removeprefix(".")
            members = [f"{module}.{alias.name}".removeprefix(".") for alias in node.names]
            names += [member for member in members if _file(member).exists()]
            names += [module] if module else []
        elif isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names if alias.name.startswith("dass.")]
            names += [name.removeprefix("dass.") for name in imported]
    return tuple(names)
