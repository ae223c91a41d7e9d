"""What each job wrote, hashed when it was written: `.sha256/` in the results of a study.

One record per output, under the output's own name: the hash of each of its files, and which
recorded inputs it was made from. A file that changed later, or that is older than what it was made
from, is found by comparing (:mod:`dass.results.verify`). Beside them stands what the job was asked
for: of results that were copied Snakemake knows nothing (:mod:`dass.results.asked`).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dass.errors import DataError
from dass.runtime.files import read_json, seal, sha256, unseal, write_json

FOLDER = ".sha256"

ASKED = ".asked"
"""In a folder below ``resources/``: what its job was asked for. Its files are not hashed here."""


@dataclass(frozen=True)
class Record:
    """What is known of an output."""

    files: dict[str, str]
    """Name of each file, relative to the output (``.``: itself) -> SHA-256 of its bytes."""
    made_from: dict[str, str]
    """Inputs of the same study, relative to its folder -> the digest of their record then."""
    asked: dict[str, Any] = field(default_factory=dict)
    """What the job was asked for: the params of its rule. In the file it has a hash of its own."""

    def digest(self) -> str:
        """One hash of all files."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


def place(output: str | Path) -> tuple[Path, str] | None:
    """The study's folder and the output's name in it; None for what is not in ``results/``."""
    parts = Path(output).parts
    if "results" not in parts[:-2]:
        return None
    study = parts.index("results") + 2
    return Path(*parts[:study]), str(Path(*parts[study:]))


def record_path(study: Path, name: str) -> Path:
    """The record of an output of a study."""
    return study / FOLDER / f"{name}.json"


def read_record(study: Path, name: str) -> Record | None:
    """What was recorded of an output; None if nothing was.

    Raises:
        DataError: the record is damaged.
    """
    path = record_path(study, name)
    if not path.exists():
        return None
    try:
        said = read_json(path)
        return Record(**said | {"asked": unseal(said["asked"])} if "asked" in said else said)
    except (TypeError, ValueError):
        raise DataError(f"{path}: no record of {name}; delete {name} and run again") from None


def is_gone(output: str | Path) -> bool:
    """Whether a job wrote this into the results of a study, and it is there no more."""
    where = place(output)
    return where is not None and not Path(output).exists() and record_path(*where).exists()


def gone_before(
    output: str | Path, again: Callable[[Path], bool] = lambda file: False
) -> Path | None:
    """What is gone of the results that this one was made from, directly or not; None: nothing.

    What is made ``again`` whatever is there, with its inputs where they are gone, does not count.

    Raises:
        DataError: a record is damaged.
    """
    if (where := place(output)) is None:
        return None
    study, name = where
    seen, queue = {name}, [name]
    for one in queue:
        record = read_record(study, one)
        for source in record.made_from if record else ():
            both = study / one, study / source
            if is_gone(both[1]) and not (is_gone(both[0]) or any(map(again, both))):
                return both[1]
            if source not in seen:
                seen.add(source)
                queue.append(source)
    return None


def names_recorded(study: Path) -> list[str]:
    """The outputs of a study that have a record, whether they are still there or not."""
    found = (study / FOLDER).rglob("*.json")
    return sorted(str(path.relative_to(study / FOLDER))[: -len(".json")] for path in found)


def files_of(output: Path) -> list[Path]:
    """The output itself, or the files of a folder; Snakemake's hidden ones do not count."""
    if not output.is_dir():
        return [output]
    return sorted(f for f in output.rglob("*") if f.is_file() and not f.name.startswith("."))


def asked_before(output: str | Path) -> dict[str, Any] | None:
    """What the job that wrote this was asked for; None if it has left no record.

    Raises:
        DataError: the record is damaged.
    """
    if where := place(output):
        record = read_record(*where)
        return record.asked if record else None
    path = Path(output, ASKED)
    return dict(read_json(path)) if path.exists() else None


def keep_records(
    outputs: Iterable[str | Path],
    inputs: Iterable[str | Path],
    asked: Mapping[str, Any] | None = None,
) -> None:
    """Record what a job wrote into the results of a study, what it read of them, and its params.

    Of a folder elsewhere, its params alone.
    """
    asked, made_from = dict(asked or {}), {}
    for path in inputs:
        if (where := place(path)) and (known := read_record(*where)):
            made_from[where[1]] = known.digest()
    for output in map(Path, outputs):
        if where := place(output):
            files = {str(file.relative_to(output)): sha256(file) for file in files_of(output)}
            record = asdict(Record(files, made_from)) | {"asked": seal(asked)}
            write_json(record_path(*where), record)
        elif output.is_dir():
            write_json(output / ASKED, asked)
