"""What a benchmark's file holds, and what its command line shares with the others'."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from dass.runtime.files import write_json
from dass.runtime.provenance import provenance
from dass.speed import machine
from dass.speed.shapes import SHAPES, Shape
from dass.speed.timing import Measurement, Outcome

Kind = Literal["metric", "gpu", "cpu"]


def record(
    kind: Kind, subject: str, shape: Shape, settings: dict[str, Any], outcome: Outcome
) -> dict[str, Any]:
    """A result with the fields of :class:`dass.speed.results.SpeedResult`, without pydantic."""
    return {
        "schema_version": 1,
        "kind": kind,
        "subject": subject,
        "shape": asdict(shape),
        "settings": settings,
        "machine": machine.describe() | {"engines": outcome.engines},
        "measurements": [asdict(one) for one in outcome.measurements],
        "refusals": [asdict(one) for one in outcome.refusals],
        "provenance": provenance(),
    }


def chosen_shapes(parser: argparse.ArgumentParser, text: str) -> list[str]:
    """The names in ``7b,70b``; ends with a usage error where there is no such shape."""
    names = text.split(",")
    if unknown := [name for name in names if name not in SHAPES]:
        parser.error(f"no shape {unknown[0]!r}; there are {', '.join(SHAPES)}")
    return names


class Report:
    """One file of several shapes, written anew whenever there is more to say."""

    def __init__(self, out: Path, command: str, kind: Kind, settings: dict[str, Any]) -> None:
        self._out, self._command, self._kind, self._settings = out, command, kind, settings
        self._results: dict[str, dict[str, Any]] = {}
        self._said: dict[str, int] = {}

    def saver(self, name: str) -> Callable[[Outcome], None]:
        """A function that writes and prints what a shape's outcome holds so far."""

        def save(outcome: Outcome) -> None:
            shape = SHAPES[name]
            self._results[name] = record(self._kind, name, shape, self._settings, outcome)
            results = list(self._results.values())
            write_json(self._out, {"command": self._command, "results": results})
            for one in outcome.measurements[self._said.get(name, 0) :]:
                print(f"{name} {_line(one)}", flush=True)
            self._said[name] = len(outcome.measurements)

        return save


def measure_shapes(
    names: Sequence[str],
    out: Path,
    kind: Kind,
    words: Sequence[str],
    settings: dict[str, Any],
    benchmark: Callable[[Shape, Callable[[Outcome], None]], Outcome],
) -> int:
    """Measure shapes one by one into one file; print what was measured, and what refused.

    Args:
        names: keys of :data:`SHAPES`.
        out: the file, written anew after every part.
        kind: whose command line it is: ``python -m dass.speed.<kind>``.
        words: its arguments, for the record.
        settings: of the measurement, for the record.
        benchmark: measures a shape; is given a function that saves what there is so far.
    """
    command = " ".join([f"python -m dass.speed.{kind}", *words])
    report = Report(out, command, kind, settings)
    for name in names:
        for refusal in benchmark(SHAPES[name], report.saver(name)).refusals:
            print(f"{name}: {refusal}", flush=True)
    return 0


def _line(one: Measurement) -> str:
    """A measurement in a line."""
    low, median, high = (1e3 * value for value in one.spread)
    about = f"{one.part}, {one.tokens} tokens, {one.engine} {one.dtype} {one.variant} {one.mode}"
    return f"{about}: {median:.4g} ms ({low:.4g} to {high:.4g})"
