"""What the repository keeps of the config's classes: a JSON schema and a reference page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import ConfigDict, Field, create_model

from dass.config.method import MethodConfig, block_of
from dass.config.study import StudyConfig
from dass.config.types import RunName, either
from dass.pruning.methods import built_in, find_class

START = "<!-- The rest is generated from src/dass/config/: `python -m dass.config --write` -->\n"
ABOUT_FUNCTION = MethodConfig.model_fields["function"].description

Row = tuple[str, ...]


class Custom(MethodConfig):
    """A custom method; its further keys are the fields of its class."""

    model_config = ConfigDict(extra="allow")
    function: str = Field(pattern=r"^[\w.]+:\w+$", description=ABOUT_FUNCTION)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a config file, for editors; it knows the keys of each built-in method."""
    methods: list[Any] = []
    for name in built_in():
        function: Any = (Literal[name], Field(description=ABOUT_FUNCTION))
        base = block_of(find_class(name))
        methods.append(create_model(name, __base__=base, __doc__=base.__doc__, function=function))
    union: Any = Union[*methods, Custom]
    field: Any = (dict[RunName, union], StudyConfig.model_fields["methods"])
    study = create_model("Study", __base__=StudyConfig, methods=field)
    return {**study.model_json_schema(), "title": "A study of DaSS"}


def reference() -> str:
    """The generated part of ``docs/config.md``: a table for each block."""
    schema = json_schema()
    parts = ["## Top level\n", _keys(schema)]
    for key, value in schema["properties"].items():
        parts += _sections(key, value, schema["$defs"])
    return "\n".join(parts)


def _sections(key: str, value: Any, definitions: Any) -> Iterator[str]:
    """A section for a block, and for each block inside."""
    named = value.get("patternProperties", {})
    inner = next(iter(named.values()), value)
    options = inner.get("anyOf", [inner])
    blocks = [definitions[o["$ref"].rpartition("/")[2]] for o in options if "$ref" in o]
    if not blocks:
        return
    yield f"## `{key}{'.<name>' if named else ''}`\n"
    if len(blocks) > 1:
        yield from _methods(blocks)
        return
    yield _text(blocks[0]["description"]) + "\n"
    yield _keys(blocks[0])
    for name, nested in blocks[0]["properties"].items():
        yield from _sections(f"{key}.{name}", nested, definitions)


def _methods(blocks: list[Any]) -> Iterator[str]:
    """What each function does; then the keys, first those that all functions share."""
    functions: list[Row] = []
    keys = _rows(blocks[-1])
    for block in blocks:
        function = f"`{block['properties']['function'].get('const', 'package.module:Class')}`"
        functions.append((function, block["description"]))
        for key, *middle, meaning in _rows(block)[len(MethodConfig.model_fields) :]:
            keys.append((key, *middle, f"{function}: {meaning}"))
    yield _table(("function", "what it does"), functions)
    yield _table(("key", "type", "default", "meaning"), keys)


def _keys(block: Any) -> str:
    return _table(("key", "type", "default", "meaning"), _rows(block))


def _rows(block: Any) -> list[Row]:
    """(key, type, default, meaning) of each key of a block."""
    required = block.get("required", [])
    return [
        (f"`{key}`", _words(value), _default(value, key in required), value.get("description", "–"))
        for key, value in block["properties"].items()
    ]


def _table(head: Row, rows: list[Row]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(_text(cell) for cell in cells)} |\n" for cells in lines)


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _default(value: Any, required: bool) -> str:
    default = value.get("default")
    if required or default in (None, ""):
        return "required" if required else "–"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _words(value: Any) -> str:
    """A type of the JSON schema in plain words."""
    if options := value.get("anyOf"):
        return either(_words(option) for option in options if option.get("type") != "null")
    if values := value.get("enum", [value["const"]] if "const" in value else None):
        return either(f"`{v}`" for v in values)
    if "$ref" in value:
        return "block"
    kind: str = value["type"]
    if kind == "array":
        items = value["items"]
        return f"list of {'names' if items == {'type': 'string'} else _words(items)}"
    if kind == "object" and "required" in value:
        return "block"
    if kind == "object":
        if names := value.get("propertyNames", {}).get("enum"):
            return f"text for any of {', '.join(f'`{name}`' for name in names)}"
        return f"{'block' if 'patternProperties' in value else 'text'} for each name"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return words.get(kind, kind) + _bounds(value)


def _bounds(value: Any) -> str:
    if (above := value.get("exclusiveMinimum")) is not None:
        return f" above {above:g}"
    if (least := value.get("minimum")) is not None:
        return f", {least:g} or more"
    return ""


def outdated(root: Path) -> dict[str, str]:
    """The generated files under ``root`` that are missing or differ: path -> what belongs there."""
    page = root / "docs/config.md"
    introduction = page.read_text(encoding="utf-8").partition(START)[0] if page.exists() else ""
    files = {
        "config/schema.json": json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n",
        "docs/config.md": f"{introduction}{START}\n{reference()}",
    }
    return {
        name: content
        for name, content in files.items()
        if not (root / name).exists() or (root / name).read_text(encoding="utf-8") != content
    }
