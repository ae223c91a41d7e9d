"""docs/results.md has every field of every result file and every column, and no other."""

from __future__ import annotations

import csv
import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dass.results.schema import (
    ActivationsResult,
    BlocksResult,
    OtherText,
    PeakMemory,
    PerplexityResult,
    PruningResult,
    Run,
    SplitPerplexity,
    TaskAccuracy,
    ZeroShotResult,
)
from dass.results.summary import summarise, write_summary
from dass.runtime.files import write_json
from dass.runtime.provenance import provenance
from dass.speed.results import SpeedResult

from .pages import ROOT

PAGE = (ROOT / "docs" / "results.md").read_text()
COMMON = {"schema_version", "run", "settings", "provenance"}


def documented(heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    section = re.split(rf"^## {re.escape(heading)}\n", PAGE, flags=re.MULTILINE)[1]
    table = re.split(r"^## |^In the result of a run's stage", section, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len(names) == len(set(names)), f"{heading}: a name is there twice"
    return set(names)


def fields(cls: Any) -> set[str]:
    """Dotted names of the fields of a model or dataclass, nested ones included."""
    hints = typing.get_type_hints(cls)
    own = cls.model_fields if issubclass(cls, BaseModel) else dataclasses.fields(cls)
    names = own if isinstance(own, dict) else [field.name for field in own]
    return {full for name in names for full in _expanded(name, hints[name])}


def _expanded(name: str, hint: Any) -> set[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (hint,) = [a for a in arguments if a is not type(None)] if len(arguments) == 2 else [object]
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict and _is_nested(arguments[1]):
        return {f"{name}.<{name[:-1]}>.{sub}" for sub in fields(arguments[1])}
    if origin is list and _is_nested(arguments[0]):
        return {f"{name}[].{sub}" for sub in fields(arguments[0])}
    return {f"{name}.{sub}" for sub in fields(hint)} if _is_nested(hint) else {name}


def _is_nested(hint: Any) -> bool:
    if not isinstance(hint, type):
        return False
    return issubclass(hint, BaseModel) or dataclasses.is_dataclass(hint)


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("`pruning.json`", PruningResult),
        ("`perplexity.json`", PerplexityResult),
        ("`zero_shot.json`", ZeroShotResult),
        ("`blocks.json`", BlocksResult),
    ],
)
def test_every_field_of_a_result_is_explained(heading: str, cls: type[BaseModel]) -> None:
    common = {name for name in fields(cls) if name.split(".")[0] in COMMON}
    assert documented("In every result of a run") == common
    assert documented(heading) == fields(cls) - common


def test_every_field_of_activations_is_explained() -> None:
    assert documented("`activations.json`") == fields(ActivationsResult)


def test_every_field_of_a_speed_result_is_explained() -> None:
    assert documented("Speed") == fields(SpeedResult)


def test_every_field_of_the_provenance_is_explained() -> None:
    nested = {"machine", "peak_memory_bytes"}
    found = provenance(0.0)
    names = {f"{name}.{sub}" for name in nested for sub in found[name]} | set(found) - nested
    assert documented("Provenance") == names


def test_every_column_is_explained(tmp_path: Path) -> None:
    write_summary(summarise(*results_of_one_run(tmp_path)), tmp_path / "s.json", tmp_path / "s.csv")
    with (tmp_path / "s.csv").open() as file:
        (row,) = csv.DictReader(file)
    columns = {re.sub(r"^piqa_", "<task>_", name) for name in row}
    columns = {re.sub(r"_c4_", "_<other>_", name) for name in columns}
    columns = {re.sub(r"_(validation|test)$", "_<split>", name) for name in columns}
    assert documented("`summary.csv`") == columns


def results_of_one_run(folder: Path) -> list[list[Path]]:
    """Files with a result of each kind."""
    run = Run(model="m", calibration="c", method="dass", pattern="2of4")
    about: dict[str, Any] = {"run": run, "settings": {}, "provenance": provenance(0.0)}
    split = SplitPerplexity(
        perplexity=2.0, nll=0.7, tokens=8, windows=2, tokens_hash="t", window_nlls=[1, 1]
    )
    task = TaskAccuracy(
        acc=0.5, acc_stderr=0.1, acc_norm=0.5, acc_norm_stderr=0.1, samples=2, version=1,
        requests_hash="r", hits="10", norm_hits="01",
    )  # fmt: skip
    results = [
        PruningResult(
            **about, calibration_hash="c", mask_hash="m", sparsity={"w": 0.5}, mean_sparsity=0.5,
            seconds={"total": 1.0}, block_seconds=[1.0], tokens=8,
            peak_memory_bytes=PeakMemory(host=1, device=None),
        ),
        PerplexityResult(
            **about, dataset="d", splits={"test": split}, mask_hash="m",
            others={"c4": OtherText(split="test", **split.model_dump())},
        ),
        ZeroShotResult(**about, tasks={"piqa": task}, limit=None, mask_hash="m"),
    ]  # fmt: skip
    files = [[folder / f"{number}.json"] for number in range(len(results))]
    for (file,), result in zip(files, results, strict=True):
        write_json(file, result.model_dump())
    return files
