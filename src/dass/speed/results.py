"""The one schema of speed results: all repeats, the machine, and what was skipped."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from dass.errors import DataError
from dass.models.shape import Shape
from dass.runtime.files import read_json, write_text
from dass.runtime.provenance import provenance
from dass.speed import machine
from dass.speed.timing import Measurement, Outcome, Skipped

SCHEMA_VERSION: Literal[1] = 1
"""Goes up with every change of a field's name or meaning; files of another version are refused."""

Kind = Literal["metric", "gpu", "cpu"]


@dataclass(frozen=True)
class SpeedResult:
    """What a benchmark found at the sizes of one model, on one machine. JSON has these fields.

    A plain dataclass: it is also written where pydantic is not installed. Reading needs pydantic.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    schema_version: Literal[1]
    kind: Kind
    subject: str
    """A model or a shape; of a run's prefill ``model/calibration/method``; of a study's metric
    ``model/method``."""
    shape: Shape
    settings: dict[str, Any]
    """Tokens, repeats, threads, dtype, ..."""
    machine: dict[str, Any]
    """From :func:`dass.speed.machine.describe`."""
    measurements: list[Measurement]
    refusals: list[Skipped]
    """What was skipped; version 1 calls it so."""
    provenance: dict[str, Any]
    """From :func:`dass.runtime.provenance.provenance`."""
    weight_bytes: dict[str, int] = field(default_factory=dict)
    """Engine -> bytes of all the model's weights as it holds them; of a run's prefill: those of
    ``torch``, which are dense, and ``packed``."""

    @property
    def run(self) -> str | None:
        """Of a run's prefill ``model/calibration/method/pattern``; None of anything else."""
        if self.kind != "gpu" or "/" not in self.subject:
            return None
        return f"{self.subject}/{self.settings.get('pattern', '2of4')}"

    def of(self, part: str) -> list[Measurement]:
        """The measurements of one part."""
        return [one for one in self.measurements if one.part == part]


def make_result(
    kind: Kind, subject: str, shape: Shape, settings: Any, outcome: Outcome
) -> SpeedResult:
    """The result of a benchmark that ran in this process.

    Args:
        kind: of the benchmark.
        subject: as in :class:`SpeedResult`.
        shape: its sizes.
        settings: the benchmark's settings, a dataclass; functions in it are not recorded.
        outcome: what was measured and what was skipped.
    """
    recorded = {name: value for name, value in vars(settings).items() if name != "compress"}
    about = (machine.describe(), outcome.measurements, outcome.skipped, provenance())
    sizes = outcome.weight_bytes
    return SpeedResult(SCHEMA_VERSION, kind, subject, shape, recorded, *about, sizes)


def compact(content: Any) -> str:
    """JSON on one line, for files of numbers that nobody reads by eye."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


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
    from pydantic import TypeAdapter, ValidationError

    remedy = "delete it and run again"
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: schema_version is {version!r}, but this dass reads {SCHEMA_VERSION}; {remedy}"
        )
    try:
        # As JSON: in strict mode only JSON may give dataclasses as objects.
        result = TypeAdapter(SpeedResult).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise DataError(f"{path}: {field}: {problem['msg']}; {remedy}") from None
    if empty := [one for one in result.measurements if not one.seconds or min(one.seconds) <= 0]:
        raise DataError(f"{path}: {empty[0].part} {empty[0].engine}: no positive times; {remedy}")
    return result


def write_speed(path: str | Path, result: SpeedResult) -> None:
    """Check a result against the schema and write it, whole or not at all.

    Raises:
        DataError: it does not fit the schema.
    """
    content = asdict(result)
    parse_speed(content, path)
    write_text(path, compact(content))
