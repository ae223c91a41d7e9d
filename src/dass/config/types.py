"""Values that the blocks of a config are made of, and how a block reports what is wrong."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dass.errors import ConfigError, PatternError
from dass.latex import escape_latex
from dass.pruning.patterns import parse_pattern
from dass.tasks import TASKS
from dass.terms import DENSE

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
STUDY = r"^[a-z0-9_-]+$"
REPOSITORY = r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$"

PATTERN_HELP = {
    NAME: "is part of a path: use letters, digits, '.', '_' and '-', the first a letter or digit",
    STUDY: "is part of a path: use small letters, digits, '_' and '-'",
    REPOSITORY: "is no repository id such as owner/name; a local folder goes under `path`",
}

# Problems

Problem = tuple[str, str]
"""A key, relative to the block that reports it ("" for itself), and what is wrong there."""


def failure(*problems: Problem) -> PydanticCustomError:
    """An error that carries its problems to :func:`dass.config.load.load_config`."""
    text = "; ".join(f"{key}: {what}" if key else what for key, what in problems)
    return PydanticCustomError("dass", "{text}", {"text": text, "problems": problems})


def nearest(word: str, known: Iterable[str], otherwise: str = "there are") -> str:
    """``did you mean …?``, or the list of all there is."""
    known = [str(name) for name in known]
    if close := difflib.get_close_matches(word, known, n=1):
        return f"did you mean {close[0]}?"
    return f"{otherwise}: {', '.join(known) or 'none'}"


def either(words: Iterable[str]) -> str:
    """``a, b or c``."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def shown(value: Any) -> str:
    """A value as an error message quotes it: short, on one line."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def only_known(data: Any, known: Iterable[str]) -> Any:
    """A block that has no other keys.

    First of all, and not left to pydantic, so that a typo is not reported as a missing key too.
    """
    known = list(known)
    if isinstance(data, dict) and (unknown := [str(key) for key in data if key not in known]):
        raise failure(*((k, f"unknown key; {nearest(k, known, 'known keys')}") for k in unknown))
    return data


# Values

PATHVAR = re.compile(r"<[a-z][a-z0-9_]*>")
"""What Snakemake takes for the name of a path variable, and fills in."""


def _expand(text: Any) -> Any:
    """Replace ``${NAME}`` and ``${NAME:-default}`` from the environment, as a shell would."""
    if not isinstance(text, str):
        return text
    if text.startswith("~"):
        raise failure(("", f"write ${{HOME}} instead of ~ in {text!r}"))

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if found is None:
            remedy = f"set it, or write ${{{name}:-default}}"
            raise failure(("", f"environment variable {name} is not set; {remedy}"))
        return found

    expanded = re.sub(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}", value, text)
    if "${" in expanded:
        raise failure(("", f"cannot read {text!r}; write ${{NAME}} or ${{NAME:-default}}"))
    if set("{}") & set(expanded):
        raise failure(("", f"{expanded} has braces, which Snakemake fills in; rename or link it"))
    if named := PATHVAR.search(expanded):
        what = f"has {named[0]}, which Snakemake fills in; rename or link it"
        raise failure(("", f"{expanded} {what}"))
    return expanded


def _not_dense(name: str) -> str:
    if name.casefold() == DENSE:
        raise failure(("", "the name is reserved for the unpruned model; choose another"))
    return name


def _names_or_all(value: Any) -> Any:
    names = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    if value != "all" and not names:
        raise failure(("", f"write all, or a list of names, as in [a, b], not {shown(value)}"))
    return value


def _file_names(value: Any) -> Any:
    values = value.values() if isinstance(value, dict) else [value]
    if value is not None and not all(isinstance(v, str) for v in values):
        raise failure(("", f"write a file name, or one per split, not {shown(value)}"))
    return value


def check_spelling(pattern: str) -> None:
    """Refuse a pattern that is none, or not in its one spelling: equal runs share a folder.

    Raises:
        PatternError: what is wrong, or how to write it.
    """
    if (spelled := str(parse_pattern(pattern))) != pattern:
        raise PatternError(f"write {spelled} instead of {pattern}")


def _patterns(texts: list[str]) -> list[str]:
    problems: list[Problem] = []
    for text in dict.fromkeys(texts):
        try:
            check_spelling(text)
        except PatternError as error:
            problems.append(("", str(error)))
            continue
        if texts.count(text) > 1:
            problems.append(("", f"{text} is listed twice; remove one"))
    if problems:
        raise failure(*problems)
    return texts


def once(values: list[Any]) -> list[Any]:
    """A list in which nothing is twice."""
    if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise failure(("", f"{twice[0]} is listed twice; remove one"))
    return values


def _seeds(value: Any) -> Any:
    given = value if isinstance(value, list) and value else [value]
    seeds = [from_command_line(seed) for seed in given]
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            what = "write a whole number from 0 to 2^63 - 1, or a list of them, as in [0, 1, 2]"
            raise failure(("", f"{what}, not {shown(seed)}"))
    return once(seeds) if isinstance(value, list) else seeds[0]


def _task(name: str) -> str:
    if name not in TASKS:
        raise failure(("", f"must be {either(map(repr, TASKS))}, not {shown(name)}"))
    return name


def from_command_line(value: Any) -> Any:
    """What ``--config block='{key: 64}'`` means: snakemake gives values in a block as text."""
    if not isinstance(value, str):
        return value
    if value in ("true", "false"):
        return value == "true"
    if re.fullmatch(r"[-+]?\d{1,30}", value):
        return int(value)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d{1,3})?", value, re.IGNORECASE):
        return float(value)
    return value


def _printable(text: str) -> str:
    """Text for tables and captions, which LaTeX must be able to print."""
    try:
        escape_latex(text)
    except ConfigError as error:
        raise failure(("", str(error))) from None
    return text


Text = Annotated[str, Field(min_length=1)]
Printed = Annotated[str, AfterValidator(_printable)]
Label = Annotated[Text, AfterValidator(_printable)]
Numeral = BeforeValidator(from_command_line)
Name = Annotated[str, Field(pattern=NAME)]
RunName = Annotated[str, Field(pattern=NAME), AfterValidator(_not_dense)]
Names = Annotated[list[str], Field(min_length=1)]
Patterns = Annotated[Names, AfterValidator(_patterns)]
NamesOrAll = Annotated[Names | Literal["all"], BeforeValidator(_names_or_all)]
LocalPath = Annotated[Text, BeforeValidator(_expand)]
Repository = Annotated[str, Field(pattern=REPOSITORY)]
FileNames = Annotated[str | dict[str, str], BeforeValidator(_file_names)]
Count = Annotated[int, Field(gt=0), Numeral]
Length = Annotated[int, Field(gt=1), Numeral]
Positive = Annotated[float, Field(gt=0), Numeral]
Share = Annotated[float, Field(gt=0, lt=1), Numeral]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1), Numeral]
Seeds = Annotated[int | list[int], BeforeValidator(_seeds)]
Switch = Annotated[bool, Numeral]
TaskName = Annotated[
    str, AfterValidator(_task), WithJsonSchema({"type": "string", "enum": list(TASKS)})
]


class Strict(BaseModel):
    """A block of the config: closed to unknown keys, no conversions, read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False,
                              use_attribute_docstrings=True)  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        return only_known(data, cls.model_fields)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := list(self._problems()):
            raise failure(*problems)
        return self

    def _problems(self) -> Iterator[Problem]:
        """What is wrong between the keys of the block."""
        yield from ()
