"""Time what sparsity costs and gains at the sizes of known models, into one JSON file.

    python -m dass.speed gpu --shapes 7b,70b --out FILE.json

``metric`` and ``gpu`` need torch and transformers only, ``cpu`` also onnxscript and onnxruntime.
Options that are left out have the defaults of the kind's settings.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from dass.errors import DassError
from dass.runtime.files import write_text
from dass.speed.results import compact, make_result
from dass.speed.shapes import SHAPES
from dass.speed.timing import Measurement, Outcome


def _words(text: str) -> list[str]:
    return text.split(",")


def _counts(text: str) -> list[int]:
    return [int(count) for count in text.split(",")]


def _methods(text: str) -> dict[str, tuple[str, dict[str, Any]]]:
    return {name: (name, {}) for name in text.split(",")}


OPTIONS: dict[str, dict[str, Any]] = {
    "methods": {"type": _methods, "help": "built-in ones, with commas"},
    "patterns": {"type": _words, "help": "with commas, e.g. u50,2of4"},
    "tokens": {"type": _counts, "help": "per call, with commas"},
    "parts": {"type": _words, "help": "with commas, e.g. mlp,block"},
    "repeats": {"type": int, "help": "that count, after the warm-up"},
    "threads": {"type": int},
    "dtype": {"choices": ["float16", "bfloat16", "float32"]},
    "device": {"help": "cuda; or cpu, for a dry run"},
    "prefill-gib": {"type": float, "help": "memory for the prefilled model"},
    "openvino": {"action": "store_const", "const": ["openvino"], "dest": "options",
                 "help": "measure OpenVINO as well"},
}  # fmt: skip

KINDS = {
    "metric": ("MetricSettings", ["methods", "patterns", "repeats", "threads"]),
    "gpu": ("GpuSettings", ["tokens", "parts", "repeats", "dtype", "device", "prefill-gib"]),
    "cpu": ("CpuSettings", ["tokens", "patterns", "parts", "repeats", "threads", "openvino"]),
}
"""Kind, which is a module with a function ``benchmark`` -> (its settings, options)."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dass.speed", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, (_, names) in KINDS.items():
        one = kinds.add_parser(kind, argument_default=argparse.SUPPRESS)
        one.add_argument("--shapes", type=_words, default="7b", help=f"of {', '.join(SHAPES)}")
        for name in names:
            one.add_argument(f"--{name}", **OPTIONS[name])
        one.add_argument("--out", type=Path, required=True)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one kind on several shapes; write and print after every part."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    options = vars(parser.parse_args(given))
    kind, shapes, out = (options.pop(name) for name in ("kind", "shapes", "out"))
    if unknown := [name for name in shapes if name not in SHAPES]:
        parser.error(f"no shape {unknown[0]!r}; there are {', '.join(SHAPES)}")
    module = importlib.import_module(f"dass.speed.{kind}")
    command = " ".join(["python -m dass.speed", *given])
    results: dict[str, dict[str, Any]] = {}

    def save(name: str, outcome: Outcome) -> None:
        """Write all there is so far, so that nothing measured is lost; print what is new."""
        shown = len(results[name]["measurements"]) if name in results else 0
        results[name] = asdict(make_result(kind, name, SHAPES[name], settings, outcome))
        write_text(out, compact({"command": command, "results": list(results.values())}))
        for one in outcome.measurements[shown:]:
            print(f"{name} {_line(one)}", flush=True)

    try:
        settings = getattr(module, KINDS[kind][0])(**options)
        for name in shapes:
            for skipped in module.benchmark(SHAPES[name], settings, partial(save, name)).skipped:
                print(f"{name}: {skipped}", flush=True)
    except DassError as error:
        parser.error(str(error))
    return 0


def _line(one: Measurement) -> str:
    low, median, high = (1e3 * value for value in one.spread)
    about = f"{one.part}, {one.tokens} tokens, {one.engine} {one.dtype} {one.variant} {one.mode}"
    return f"{about}: {median:.4g} ms ({low:.4g} to {high:.4g})"


if __name__ == "__main__":
    sys.exit(main())
