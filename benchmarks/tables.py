"""Write the tables of docs/performance.md from the raw JSON under benchmarks/results/.

python benchmarks/tables.py            # writes
python benchmarks/tables.py --check    # fails if the page is not what the JSON says
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
NAMES = {"dass": "DaSS", "wanda": "Wanda", "sparsegpt": "SparseGPT", "perplexity": "perplexity"}
PATTERNS = {"2of4": "2:4", "4of8": "4:8", "u50": "50 %", "": ""}
STORES = {"cuda": "GPU", "cpu": "host"}


def about(result: dict) -> str:
    """Device, versions, date and command of a measurement."""
    origin = result["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    where = origin["device"]
    if where == "cpu":
        where = f"{origin['machine']['cpu']}, {result['threads']} threads"
    return (
        f"{where}, {versions}, Python {origin['python']}, {origin['date'][:10]}; "
        f"a large matrix product reached {result['matmul_tflops']:.3g} TFLOP/s in the same run. "
        f"Command: `{result['command']}`."
    )


def pruning_table(name: str) -> str:
    """Seconds a block, the baseline's, the floor, and peak memory."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    lines = [
        "| work | activations on | s a block | published procedure, s | times faster | "
        "floor, s | share of floor | whole model, s | peak GPU memory, GiB (reserved) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
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
    4: "the same engine in the longer run of the tables above, before the next change",
}
LAST = "exceptions that end a pass handled in place (a context manager had kept their frames, and "
LAST += "with them activations, until the next garbage collection); twice as many tokens at once"


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
    kinds = {
        "pruning": pruning_table,
        "blocks": blocks_line,
        "steps": steps_table,
        "dag": dag_table,
    }

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
