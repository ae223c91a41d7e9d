"""Reading a config, and the one line that says what is wrong with it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dass.config.study import StudyConfig
from dass.config.types import PATTERN_HELP, shown
from dass.errors import ConfigError


def load_config(mapping: Mapping[str, Any]) -> StudyConfig:
    """Validate the settings of a study.

    Raises:
        ConfigError: one line: the key's path, what is wrong, what to do; the first problem, and
            how many more there are.
    """
    try:
        return StudyConfig.model_validate(dict(mapping))
    except ValidationError as error:
        problems = [problem for detail in error.errors() for problem in _describe(detail)]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise ConfigError(f"{problems[0]}{more}")


def read_config(path: str | Path) -> StudyConfig:
    """Read and validate a YAML file.

    Raises:
        ConfigError: as :func:`load_config`; or the file is missing or no YAML mapping.
    """
    import yaml

    check_keys(path)
    try:
        mapping = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a date or a number that is none makes yaml raise anything
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML ({reason})") from None
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: must hold a block of keys, not {shown(mapping)}")
    try:
        return load_config(mapping)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def check_keys(path: str | Path) -> None:
    """Refuse a YAML file that says a key twice in one block: only the last would count.

    A file that cannot be read is left to who reads it.

    Raises:
        ConfigError: the key, and its lines.
    """
    import yaml

    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except Exception:
        return
    for block in _mappings(root, set()):
        lines: dict[str, int] = {}
        for key in (key for key, _ in block.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise ConfigError(
                    f"{path}: {key.value!r} stands twice in one block (lines {lines[key.value]} "
                    f"and {line}), of which only the last would count; remove one"
                )
            lines[key.value] = line


def _mappings(node: Any, seen: set[int]) -> Iterator[Any]:
    """All blocks of keys in a YAML tree; one that is used again by its anchor, once."""
    import yaml

    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value, seen)


def _describe(detail: Any) -> Iterator[str]:
    """The lines for one of pydantic's errors."""
    place = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    if detail["type"] == "dass":
        for key, what in detail["ctx"]["problems"]:
            yield f"{place}.{key}: {what}" if place and key else f"{place or key}: {what}"
    else:
        yield f"{place}: {_what(detail)}"


def _what(detail: Any) -> str:
    """What is wrong with a value, in this project's words."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "missing; it is required"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} {PATTERN_HELP[context['pattern']]}"
    text = {
        "string_type": "must be text (put it in quotes)",
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "list_type": "must be a list, as in [a, b]",
        "dict_type": "must be a block of keys",
        "model_type": "must be a block of keys",
        "finite_number": "must be a finite number",
        "bool_type": "must be true or false",
        "literal_error": f"must be {context.get('expected')}",
        "greater_than": f"must be greater than {context.get('gt', 0):g}",
        "greater_than_equal": f"must be at least {context.get('ge', 0):g}",
        "less_than": f"must be less than {context.get('lt', 0):g}",
        "less_than_equal": f"must be at most {context.get('le', 0):g}",
    }.get(kind, detail["msg"])
    return f"{text}, but is empty" if value is None else f"{text}, not {shown(value)}"
