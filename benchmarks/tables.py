"""Write the tables of docs/performance.md from the raw JSON under benchmarks/results/.

python benchmarks/tables.py            # writes
python benchmarks/tables.py --check    # fails if the page is not what the JSON says
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dass.report.speed_tables import SpeedSettings, speed_table
from dass.speed.results import parse_speed

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
NAMES = {"dass": "DaSS", "wanda": "Wanda", "sparsegpt": "SparseGPT", "perplexity": "perplexity"}
SHAPES = {"7b": "LLaMA2-7B sizes", "70b": "LLaMA2-70B sizes", "gemma-7b": "Gemma-7B sizes"}
PATTERNS = {"2of4": "2:4", "4of8": "4:8", "u50": "50 %", "": ""}
STORES = {"cuda": "GPU", "cpu": "host"}


def about(result: dict) -> str:
    """Device, versions, date and command of a measurement."""
    origin = result["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    where = origin["device"]
    if where == "cpu":
        where = f"{origin['machine']['cpu']}, {result['threads']} threads"
    rates = ""
    if "matmul_tflops" in result:
        rates = f"; a large matrix product reached {result['matmul_tflops']:.3g} TFLOP/s"
    if "copy_gb_per_second" in result:
        rates += f", a large copy {result['copy_gb_per_second']:.0f} GB/s"
    rates += " in the same run" if rates else ""
    return (
        f"{where}, {versions}, Python {origin['python']}, {origin['date'][:10]}{rates}. "
        f"Command: `{result['command']}`."
    )


def pruning_table(name: str) -> str:
    """Seconds a block, the baseline's, the floor, and peak memory."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    lines = [
        "| work | activations on | s a block | published procedure, s | times faster | "
        "floor, s | share of floor | bytes, s | whole model, s | peak GPU memory, GiB (reserved) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        baseline = row.get("baseline_seconds")
        cells = [
            f"{NAMES[row['method']]} {PATTERNS[row['pattern']]}".strip(),
            STORES[row["activations"]],
            f"{row['seconds_a_block']:.3f}",
            f"{statistics.median(baseline):.2f}" if baseline else "–",
            f"{row['ratio']:.2f}" if row.get("ratio") else "–",
            f"{row['floor_seconds']:.3f}" if "floor_seconds" in row else "–",
            f"{row['share_of_floor']:.0%}".replace("%", " %") if "share_of_floor" in row else "–",
            f"{row['bytes_seconds']:.3f}" if "bytes_seconds" in row else "–",
            f"{row['model_seconds']:.1f}" if "model_seconds" in row else "–",
            f"{row['peak_allocated_gib']:.1f} ({row['peak_reserved_gib']:.1f})"
            if row["peak_allocated_gib"]
            else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([about(result), "", *lines])


def blocks_line(name: str) -> str:
    """Seconds of each block of the first run: whether they are constant."""
    row = json.loads((RESULTS / f"{name}.json").read_text())["rows"][0]
    return ", ".join(f"{seconds:.3f}" for seconds in row["block_seconds"])


STEPS = {
    1: "batches; one pass up to `down` in place of two whole passes, attention remembered; "
    "vectorised masks; the next block read meanwhile",
    2: "RMS norms as single kernels (each was six passes over the activations)",
    3: "weights through pinned memory, so that reading does not hold up kernel launches; "
    "rotary embeddings as a single kernel",
    4: "the same engine in a longer run, before the next change",
    5: "exceptions that end a pass handled in place (a context manager had kept their frames, and "
    "with them activations, until the next garbage collection); twice as many tokens at once",
}
LAST = "gating, masks and sums of squares as single kernels; overflow seen without a float64 copy"


def steps_table(name: str) -> str:
    """Seconds a block of DaSS 2:4 after each change of the engine, activations on the GPU."""
    lines = ["| change | s a block | peak GPU memory, GiB |", "|---|---:|---:|"]
    files = {f"{name}-step{step}": change for step, change in STEPS.items()} | {name: LAST}
    for file, change in files.items():
        result = json.loads((RESULTS / f"{file}.json").read_text())
        row = next(r for r in result["rows"] if (r["method"], r["activations"]) == ("dass", "cuda"))
        lines.append(
            f"| {change} | {row['seconds_a_block']:.3f} | {row['peak_allocated_gib']:.1f} |"
        )
    return "\n".join(lines)


KERNELS = {
    "matrix products": ("nvjet", "gemm", "cutlass"),
    "attention": ("sdpa", "flash", "fmha"),
    "gating": ("_gated",),
    "norms, rotary embeddings": ("_rms_norm", "_rotary"),
    "sums of squares": ("_sum_of_squares",),
    "columns of SparseGPT": ("_prune_columns",),
    "factorisation": ("getrf", "trsm", "potrf"),
    "sorting": ("sort", "Sort"),
    "weights to the GPU (beside the rest)": ("HtoD",),
}
"""What a kernel does -> parts of the names of such kernels; the rest is summed up."""


def kernels_table(name: str) -> str:
    """Milliseconds a block by what its kernels do, one column a run."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    columns = []
    for row in result["rows"]:
        own = dict.fromkeys(KERNELS, 0.0) | {"all others": row["other_seconds"]}
        for kernel in row["kernels"]:
            kinds = [k for k, parts in KERNELS.items() if any(p in kernel["name"] for p in parts)]
            own[kinds[0] if kinds else "all others"] += kernel["seconds"]
        columns.append({kind: 1000 * seconds / row["blocks"] for kind, seconds in own.items()})
    heads = [f"{NAMES[r['method']]} {PATTERNS[r['pattern']]}" for r in result["rows"]]
    lines = [f"| kernels, ms a block | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for kind in columns[0]:
        cells = [f"{column[kind]:.1f}" if column[kind] else "–" for column in columns]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join([about(result), "", *lines])


def speed_part(kind: str, name: str) -> str:
    """The speed table of one kind, as the pipeline makes it, from raw repeats."""
    file = RESULTS / f"{name}.json"
    if not file.exists():
        return f"Not measured yet: there is no `benchmarks/results/{name}.json`."
    content = json.loads(file.read_text())
    results = [parse_speed(result, file) for result in content["results"]]
    labels = {r.subject: SHAPES.get(r.subject, r.subject) for r in results}
    table = speed_table(kind, results, [], SpeedSettings("performance", labels, NAMES))
    return f"{table.markdown()}\nCommand: `{content['command']}`."


def dag_table(name: str) -> str:
    """Jobs and seconds of a dry-run of each study, now and before lists of inputs were cached."""
    result, before = (
        json.loads((RESULTS / f"{file}.json").read_text()) for file in (name, f"{name}-before")
    )
    origin = result["provenance"]
    machine, versions = origin["machine"], origin["versions"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, snakemake {versions['snakemake']}, "
        f"{origin['date'][:10]}. Command: `{result['command']}`.",
        "",
        "| study | jobs | s | processor s | processor s before |",
        "|---|---:|---:|---:|---:|",
    ]
    for row, old in zip(result["rows"], before["rows"], strict=True):
        cells = [row["study"], row["jobs"], f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {old['cpu_seconds']:.1f} |")
    return "\n".join(lines)


def rendered(page: str) -> str:
    """The page with each generated part made anew: `<!-- kind name -->` to `<!-- end -->`."""
    kinds: dict[str, Callable[[str], str]] = {
        "pruning": pruning_table, "blocks": blocks_line, "steps": steps_table,
        "kernels": kernels_table, "dag": dag_table,
        **{kind: partial(speed_part, kind) for kind in ("metric", "gpu", "cpu")},
    }  # fmt: skip

    def part(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        return f"<!-- {kind} {name} -->\n{kinds[kind](name)}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) ([\w-]+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    new = rendered(page)
    if "--check" in sys.argv:
        sys.exit(0 if new == page else f"{PAGE} is not current: run python benchmarks/tables.py")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
