"""The schema of a speed result: all repeats, the machine, and what could not be measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dass.errors import DataError
from dass.runtime.files import read_json, write_json
from dass.speed.timing import Measurement, Refusal

SCHEMA_VERSION: Literal[1] = 1
"""Goes up with every change of a field's name or meaning; files of another version are refused."""

Kind = Literal["metric", "gpu", "cpu"]


class SpeedResult(BaseModel):
    """What a speed benchmark of one shape found on one machine."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Kind
    subject: str
    """The model or the shape."""
    shape: dict[str, Any]
    """Fields of :class:`dass.speed.shapes.Shape`."""
    settings: dict[str, Any]
    """Tokens, repeats, threads, dtype, ..."""
    machine: dict[str, Any]
    """As :func:`dass.speed.machine.describe` gives it."""
    measurements: list[Measurement]
    refusals: list[Refusal]
    provenance: dict[str, Any]
    """As :func:`dass.runtime.provenance.provenance` gives it."""

    def of(self, part: str) -> list[Measurement]:
        """The measurements of one part."""
        return [one for one in self.measurements if one.part == part]


def read_speed(path: str | Path) -> SpeedResult:
    """Read one result.

    Raises:
        DataError: the file is missing, malformed, or of another schema version.
    """
    return parse_speed(read_json(path), path)


def parse_speed(content: Any, path: str | Path) -> SpeedResult:
    """A result from what its file holds.

    Raises:
        DataError: it is malformed, or of another schema version.
    """
    remedy = "delete it and run again"
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: schema_version is {version!r}, but this dass reads {SCHEMA_VERSION}; {remedy}"
        )
    try:
        # As JSON: the measurements are plain dataclasses, which only JSON may give as objects.
        result = SpeedResult.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise DataError(f"{path}: {field}: {problem['msg']}; {remedy}") from None
    if empty := [one for one in result.measurements if not one.seconds or min(one.seconds) <= 0]:
        raise DataError(f"{path}: {empty[0].part} {empty[0].engine}: no positive times; {remedy}")
    return result


def write_speed(path: str | Path, content: dict[str, Any]) -> None:
    """Check a benchmark's record against the schema and write it, whole or not at all.

    Raises:
        DataError: it does not fit the schema.
    """
    write_json(path, parse_speed(content, path).model_dump(mode="json"))
