"""The built-in methods, one file each, and how a method is found by its name.

A file that is added here is a built-in method: the config calls it by the file's name. A custom
method needs no change here: ``function: mypackage.mymodule:MyMethod`` names any class that Python
can import. The interface stands in :mod:`dass.pruning.method`.
"""

import difflib
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, get_args

from dass.errors import ConfigError
from dass.pruning.method import Method, Need, Refined, Refinement, ScoreMethod, UpdateMethod
from dass.pruning.patterns import Axis

CALLS = {
    "comparison": ("role",),
    "score": ("role", "weight", "statistics"),
    "update": ("role", "weight", "statistics", "pattern", "name"),
    "refine": ("role", "weight", "statistics", "mask", "pattern", "axis", "name"),
}
"""What a method's functions are called with."""

START = "wanda"
"""What a refinement starts from where the config does not say."""


def built_in() -> tuple[str, ...]:
    """The names of the built-in methods: the files of this folder."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return tuple(sorted(file.stem for file in files))


def find_class(function: str) -> type:
    """The class of a method.

    Args:
        function: the name of a built-in method, or ``package.module:Class``.

    Raises:
        ConfigError: the name is unknown, the module cannot be imported, or the class is no method.
    """
    if function in built_in():
        return _only_method(importlib.import_module(f"{__name__}.{function}"), function)
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", function):
        raise ConfigError(f"no built-in method {function!r}; {_did_you_mean(function)}")
    module_name, class_name = function.split(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        what = " ".join(f"{type(error).__name__}: {error}".split())
        not_found = isinstance(error, ModuleNotFoundError) and error.name in _packages(module_name)
        remedy = "put its folder on PYTHONPATH (PYTHONPATH=. snakemake …)"
        raise ConfigError(
            f"method {function!r} cannot be imported ({what}); "
            f"{remedy if not_found else f'correct the module {module_name}'}"
        ) from None
    if not _is_method(found):
        raise ConfigError(
            f"{function!r} is no method: it needs `needs`, comparison(), and score() or update(); "
            "or, to refine another's mask, `needs`, `axes` and refine()"
        )
    return found  # type: ignore[no-any-return]


def make_method(function: str, arguments: dict[str, Any]) -> Method:
    """Build the method ``function`` with ``arguments``.

    A refinement's argument ``start`` is what it starts from: ``function``, and its arguments.

    Raises:
        ConfigError: as :func:`find_class`; or it does not take the arguments, needs statistics
            that there are not, or has a function that cannot be called as methods' are.
    """
    cls = find_class(function)
    start, own = _parted(cls, function, arguments)
    try:
        made = cls(**own)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"method {function!r} does not take {own}: {error}") from None
    _check_interface(made, function)
    if start is None:
        return made  # type: ignore[no-any-return]
    if takes_files(start[0]):
        raise ConfigError(
            f"method {function!r} cannot start from {start[0]!r}, whose masks come from files; "
            "start from a method that makes its own"
        )
    return Refined(made, make_method(*start))


def takes_files(function: str) -> bool:
    """Whether a method's masks come from elsewhere, from files.

    Raises:
        ConfigError: as :func:`find_class`.
    """
    return hasattr(find_class(function), "files")


def classes_of(function: str, arguments: dict[str, Any]) -> list[type]:
    """The class of a method, and those of what it starts from.

    Raises:
        ConfigError: as :func:`make_method`.
    """
    cls = find_class(function)
    start, _ = _parted(cls, function, arguments)
    return [cls] if start is None else [cls, *classes_of(*start)]


def is_refinement(cls: type) -> bool:
    """Whether a class refines the mask of another method."""
    return callable(getattr(cls, "refine", None))


def _parted(
    cls: type, function: str, arguments: dict[str, Any]
) -> tuple[tuple[str, dict[str, Any]] | None, dict[str, Any]]:
    """(function and arguments of what a refinement starts from, arguments of its own)."""
    own = dict(arguments)
    if not is_refinement(cls):
        return None, own
    start = own.pop("start", {"function": START})
    if not isinstance(start, dict) or not isinstance(start.get("function"), str):
        raise ConfigError(
            f"method {function!r}: `start` is {start!r}; write it as a method, as in "
            f"{{function: {START}}}"
        )
    return (start["function"], {k: v for k, v in start.items() if k != "function"}), own


def _packages(module: str) -> list[str]:
    """A module's name and those of the packages around it."""
    parts = module.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _check_interface(method: Any, function: str) -> None:
    known, needs = get_args(Need), method.needs
    if not isinstance(needs, set | frozenset) or not needs <= set(known):
        raise ConfigError(
            f"method {function!r}: its `needs` are {needs!r}; make them a frozenset of any of "
            f"{', '.join(known)}"
        )
    axes: Any = getattr(method, "axes", frozenset())
    if is_refinement(type(method)) and not (axes and set(axes) <= set(get_args(Axis))):
        raise ConfigError(
            f"method {function!r}: its `axes` are {axes!r}; make them a frozenset of any of "
            f"{', '.join(get_args(Axis))}"
        )
    for name, arguments in CALLS.items():
        if not callable(call := getattr(method, name, None)):
            continue
        try:
            inspect.signature(call).bind(*arguments)
        except TypeError:
            raise ConfigError(
                f"method {function!r}: {name}() cannot be called as ({', '.join(arguments)}), as "
                "methods are; correct its arguments"
            ) from None


def _is_method(value: Any) -> bool:
    """Whether it has what one of the kinds of methods has."""
    if not isinstance(value, type) or not hasattr(value, "needs"):
        return False
    if is_refinement(value):
        return hasattr(value, "axes")
    return hasattr(value, "comparison") and any(
        callable(getattr(value, kind, None)) for kind in ("score", "update")
    )


def _only_method(module: Any, function: str) -> type:
    """The one method class that a built-in method's file defines."""
    own = [v for v in vars(module).values() if _is_method(v) and v.__module__ == module.__name__]
    if len(own) != 1:
        raise ConfigError(f"{module.__file__}: defines {len(own)} methods; write one per file")
    cls: type = own[0]
    return cls


def _did_you_mean(function: str) -> str:
    custom = "a custom one is written package.module:Class"
    if close := difflib.get_close_matches(function, built_in(), n=1):
        return f"did you mean {close[0]}? ({custom})"
    return f"available: {', '.join(built_in())} ({custom})"


__all__ = [
    "Method",
    "Refined",
    "Refinement",
    "ScoreMethod",
    "UpdateMethod",
    "built_in",
    "classes_of",
    "find_class",
    "is_refinement",
    "make_method",
]
