"""Write tables of docs/ (performance, reproduce, reliability) from benchmarks/results/*.json.

python benchmarks/tables.py            # writes
python benchmarks/tables.py --check    # fails if a page is not what the raw results say
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from dass.config.load import read_config
from dass.config.runs import runs
from dass.pruning.patterns import parse_pattern
from dass.report.speed_tables import PARTS, SpeedSettings, speed_table, variant_label
from dass.speed.results import parse_speed
from dass.speed.shapes import SHAPES
from dass.speed.timing import Measurement, speed_up

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / name for name in ("performance.md", "reproduce.md", "reliability.md")]
RESULTS = ROOT / "benchmarks" / "results"
NAMES = {
    "dass": "DaSS", "wanda": "Wanda", "sparsegpt": "SparseGPT", "perplexity": "perplexity",
    "ria": "RIA", "wandapp": "Wanda++, gradient", "dsnot": "Wanda, DSnoT", "admm": "ADMM",
    "alps": "ALPS", "sparseswaps": "Wanda, SparseSwaps",
}  # fmt: skip
LABELS = {"7b": "LLaMA2-7B sizes", "70b": "LLaMA2-70B sizes", "gemma-7b": "Gemma-7B sizes"}
PATTERNS = {"2of4": "2:4", "4of8": "4:8", "2of4x4": "2:4 both ways", "u50": "50 %", "": ""}
STORES = {"cuda": "GPU", "cpu": "host"}


def raw(name: str) -> dict:
    """The raw results of this name."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """A table whose first ``text`` columns are words."""
    rule = "|" + "---|" * text + "---:|" * (len(head) - text)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


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
    if "held_tflops" in result:
        rates += f" in a burst and {result['held_tflops']:.3g} held for seconds"
    if "copy_gb_per_second" in result:
        rates += f", a large copy {result['copy_gb_per_second']:.0f} GB/s"
    rates += " in the same run" if rates else ""
    return (
        f"{where}, {versions}, Python {origin['python']}, {origin['date'][:10]}{rates}. "
        f"Command: `{result['command']}`."
    )


def percent(share: float | None) -> str:
    """A share as a cell."""
    return "–" if share is None else f"{share:.0%}".replace("%", " %")


NUMBERS = {
    "seconds per block": ("seconds_a_block", ".3f"),
    "published procedure, s": ("baseline", ".2f"),
    "times faster": ("ratio", ".2f"),
    "floor, s": ("floor_seconds", ".3f"),
    "share of floor": ("share_of_floor", ".0%"),
    "bytes, s": ("bytes_seconds", ".3f"),
    "whole model, s": ("model_seconds", ".1f"),
}
"""Column -> key and format."""


def pruning_cells(row: dict) -> dict[str, str]:
    """Column -> cell of one measured run of the engine; a dash where there is nothing."""
    seconds, peak = row.get("baseline_seconds"), row["peak_allocated_gib"]
    found = row | {"baseline": seconds and statistics.median(seconds)}
    order = ", neurons permuted" if row.get("permute") else ""
    return {
        "work": f"{NAMES[row['method']]} {PATTERNS[row['pattern']]}".strip() + order,
        "activations on": STORES[row["activations"]],
        **{
            column: f"{found[key]:{form}}".replace("%", " %") if found.get(key) else "–"
            for column, (key, form) in NUMBERS.items()
        },
        "peak GPU memory, GiB (reserved)": f"{peak:.1f} ({row['peak_reserved_gib']:.1f})"
        if peak
        else "–",
    }


def pruning_table(name: str) -> str:
    """Seconds per block, the baseline's, the floor, and peak memory."""
    result = raw(name)
    rows = [pruning_cells(row) for row in result["rows"]]
    table = markdown(list(rows[0]), [list(row.values()) for row in rows], text=2)
    return f"{about(result)}\n\n{table}"


SHORT = (
    "work", "activations on", "seconds per block", "whole model, s",
    "peak GPU memory, GiB (reserved)",
)  # fmt: skip


def measured_table(name: str) -> str:
    """The columns that planning a study needs, of the 2:4 runs and perplexity."""
    result = raw(name)
    cells = [pruning_cells(row) for row in result["rows"] if row["pattern"] in ("2of4", "")]
    table = markdown(SHORT, [[row[column] for column in SHORT] for row in cells], text=2)
    return f"{table}\n\n{about(result)}"


def disk_table(name: str) -> str:
    """GB of each model's weights and pruned files, which follow from sizes alone."""
    study = read_config(ROOT / "config" / f"{name}.yaml")
    totals, rows = [0.0, 0.0], []
    for key, model in study.models.items():
        shape = SHAPES[key.removeprefix("llama2-")]
        masks = shape.blocks * shape.mlp / 8  # one bit per weight
        updated = 9 * masks  # and two bytes per kept weight, if they are half
        pruned = 0.0
        for run in (run for run in runs(study) if run.model == key):
            kept = 1 - parse_pattern(run.pattern).sparsity
            moves = study.methods[run.method].function == "sparsegpt"
            pruned += masks * (1 + 16 * kept) if moves else masks
        assert model.parameters is not None
        sizes = [2e9 * model.parameters, masks, updated, pruned]
        totals = [totals[0] + sizes[0], totals[1] + pruned]
        rows.append([model.label, *(f"{size / 1e9:.1f}" for size in sizes)])
    rows.append(["all", f"{totals[0] / 1e9:.1f}", "", "", f"{totals[1] / 1e9:.1f}"])
    head = ["model", "weights, GB", "one run, GB", "one run of SparseGPT, GB", "all runs, GB"]
    return markdown(head, rows)


def blocks_line(name: str) -> str:
    """Seconds of each block of the first run, which show whether they are constant."""
    return ", ".join(f"{seconds:.3f}" for seconds in raw(name)["rows"][0]["block_seconds"])


STEPS = {
    "-step1": "batches; one pass up to `down` in place of two whole passes, attention remembered; "
    "vectorised masks; the next block read meanwhile",
    "-step2": "RMS norms as single kernels (each was six passes over the activations)",
    "-step3": "weights through pinned memory, so that reading does not hold up kernel launches; "
    "rotary embeddings as a single kernel",
    "-step4": "the same engine in a longer run, before the next change",
    "-step5": "exceptions that end a pass handled in place (a context manager had kept their "
    "frames, and with them activations, until the next garbage collection); "
    "twice as many tokens at once",
    "": "gating, masks and sums of squares as single kernels; overflow seen without a float64 copy",
}
"""End of the name of raw results -> the change before them."""


def steps_table(name: str) -> str:
    """Seconds per block of DaSS 2:4 after each change of the engine, activations on the GPU."""
    rows, wanted = [], ("dass", "cuda")
    for step, change in STEPS.items():
        measured = raw(f"{name}{step}")["rows"]
        row = next(r for r in measured if (r["method"], r["activations"]) == wanted)
        rows.append([change, f"{row['seconds_a_block']:.3f}", f"{row['peak_allocated_gib']:.1f}"])
    return markdown(["change", "seconds per block", "peak GPU memory, GiB"], rows)


KERNELS = {
    "matrix products": ("nvjet", "gemm", "cutlass"),
    "attention": ("sdpa", "flash", "fmha"),
    "gating": ("_gated",),
    "norms, rotary embeddings": ("_rms_norm", "_rotary"),
    "sums of squares": ("_sum_of_squares",),
    "columns of SparseGPT": ("_prune_columns",),
    "factorisation": ("getrf", "trsm", "potrf"),
    "sorting": ("sort", "Sort"),
    "weights to the GPU (at the same time)": ("HtoD",),
}
"""What a kernel does -> parts of the names of such kernels; the rest is summed up."""


def kernels_table(name: str) -> str:
    """Milliseconds per block by what its kernels do, one column per run."""
    result = raw(name)
    columns = []
    for row in result["rows"]:
        own = dict.fromkeys(KERNELS, 0.0) | {"all others": row["other_seconds"]}
        for kernel in row["kernels"]:
            kinds = [k for k, parts in KERNELS.items() if any(p in kernel["name"] for p in parts)]
            own[kinds[0] if kinds else "all others"] += kernel["seconds"]
        columns.append({kind: 1000 * seconds / row["blocks"] for kind, seconds in own.items()})
    heads = [f"{NAMES[r['method']]} {PATTERNS[r['pattern']]}" for r in result["rows"]]
    rows = [
        [kind, *(f"{column[kind]:.1f}" if column[kind] else "–" for column in columns)]
        for kind in columns[0]
    ]
    return f"{about(result)}\n\n{markdown(['kernels, ms per block', *heads], rows)}"


def evaluation_table(name: str) -> str:
    """Seconds of zero-shot tasks and perplexity, HFLM's and a plain loop's, and the floor."""
    result = raw(name)
    rows = []
    for row in result["rows"]:
        last = [r["seconds"] for r in result["rows"] if r["work"] == row["work"]][-1]
        ratio = f"{last / row['seconds']:.2f}"
        rows.append([
            row["work"], row["what"], f"{row['seconds']:.2f}", ratio,
            f"{row['floor_seconds']:.2f}", percent(row["share_of_floor"]),
            percent(row.get("share_of_held_floor")), f"{row['peak_allocated_gib']:.1f}",
        ])  # fmt: skip
    head = ["work", "how", "seconds", "times as fast as the last of its kind", "floor, s",
            "share of floor", "at the rate that is held", "peak GPU memory, GiB"]  # fmt: skip
    return f"{about(result)}\n\n{markdown(head, rows, text=2)}"


def run_table(name: str) -> str:
    """A run from its parts, all measured on one kind of card: pruning, perplexity, tasks."""
    pruning, evaluation = raw(f"pruning-{name}-h200"), raw(f"evaluation-{name}")["rows"]
    row = pruning["rows"][0]
    blocks = round(row["model_seconds"] / row["seconds_a_block"])
    times = {"pruning, " + pruning_cells(row)["work"]: (
        row["model_seconds"], blocks * statistics.median(row["baseline_seconds"])
    )}  # fmt: skip
    for work in ("perplexity", "zero-shot"):
        own = [r["seconds"] for r in evaluation if r["work"] == work]
        times[work] = own[0], own[-1]
    times["together"] = tuple(map(sum, zip(*times.values(), strict=True)))
    rows = [[k, f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}"] for k, (a, b) in times.items()]
    head = ["work", "seconds", "published procedure, s", "times faster"]
    return f"{about(pruning)}\n\n{markdown(head, rows)}"


def speed_part(kind: str, name: str) -> str:
    """The speed table of one kind, as the pipeline makes it, from raw repeats."""
    content = raw(name)
    results = [parse_speed(result, name) for result in content["results"]]
    labels = {r.subject: LABELS.get(r.subject, r.subject) for r in results}
    table = speed_table(kind, results, [], SpeedSettings("performance", labels, NAMES))
    return f"{table.markdown()}\nCommand: `{content['command']}`."


def packed_table(name: str) -> str:
    """Times of dense products, and how many times faster the others are, replayed as graphs."""
    content = raw(name)
    others = {
        "DaSS 2:4": ("packed", "dass-2of4"), "2:4": ("packed", "2of4"), "4:8": ("packed", "4of8"),
        "bitmap, 50 %": ("packed", "u50"), "cuSPARSELt 2:4": ("cusparselt", "2of4"),
        "dense, compiled": ("torch.compile", "dense"),
    }  # fmt: skip
    rows = []
    results = [parse_speed(result, name) for result in content["results"]]
    for result in results:
        lines: dict[tuple[str, int], dict[tuple[str, str], float]] = {}
        for one in result.measurements:
            if one.mode == "graph":
                own = lines.setdefault((one.part, one.tokens), {})
                own[one.engine, one.variant] = one.spread.median
        label = f"{LABELS[result.subject]}, " if len(results) > 1 else ""
        for (part, tokens), own in lines.items():
            dense = own["torch", "dense"]
            ratios = [f"{dense / own[key]:.2f}" if key in own else "–" for key in others.values()]
            rows.append([label + PARTS[part], str(tokens), f"{dense * 1e6:,.1f}", *ratios])
    first = results[0]
    head = ["" if len(results) > 1 else LABELS[first.subject], "tokens", "dense, µs", *others]
    versions = ", ".join(f"{k} {first.machine['versions'][k]}" for k in ("torch", "transformers"))
    return (
        f"{first.machine['gpu']['name']}, float16, {versions}, {first.provenance['date'][:10]}. "
        f"Command: `{content['command']}`.\n\n{markdown(head, rows)}"
    )


def decode_table(name: str) -> str:
    """Tokens per second of whole models, dense and packed, and what their weights take.

    Of one call, or of several whose names go on with ``-more``.
    """
    result = raw(name)
    measured = [
        row for file in sorted(RESULTS.glob(f"{name}*.json")) for row in raw(file.stem)["rows"]
    ]
    dense = {row["sequences"]: row for row in measured if row["weights"] == "dense"}
    rows = []
    for row in sorted(measured, key=lambda row: row["sequences"]):
        speed = row["tokens_per_second"]
        gained = speed / dense[row["sequences"]]["tokens_per_second"]
        waited = row.get("tokens_per_second_waited")
        size = result["weight_bytes"][row["weights"]] / 1e9
        apart = f"{waited:,.1f}" if waited else "–"
        cells = [f"{speed:,.1f}", f"{gained:.2f}", apart, f"{size:.2f}"]
        rows.append([row["weights"], str(row["sequences"]), *cells])
    origin = result["provenance"]
    versions = ", ".join(f"{k} {origin['versions'][k]}" for k in ("torch", "transformers"))
    measures = ["tokens/s", "times dense", "tokens/s, each waited for", "weights, GB"]
    head = [LABELS[result["shape"]], "sequences", *measures]
    return (
        f"{origin['device']}, float16, {result['blocks']} blocks, {versions}, "
        f"{origin['date'][:10]}.\n\n{markdown(head, rows)}"
    )


def about_load(result: dict, software: str) -> str:
    """Machine, software, date, load and command of a measurement that other work would disturb."""
    origin = result["provenance"]
    return (
        f"{origin['machine']['cpu']}, {origin['machine']['cores']} cores, {software}, "
        f"{origin['date'][:10]}; load of the machine in the last minute, itself included: "
        f"{result['load']}. Command: `{result['command']}`."
    )


def dag_table(name: str) -> str:
    """Jobs and seconds of a dry run of each study."""
    result = raw(name)
    rows = [
        [row["study"], str(row["jobs"]), f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}"]
        for row in result["rows"]
    ]
    software = f"snakemake {result['provenance']['versions']['snakemake']}"
    head = ["study", "jobs", "s", "processor s"]
    return f"{about_load(result, software)}\n\n{markdown(head, rows)}"


def packed_cpu_table(name: str) -> str:
    """Milliseconds on a CPU, and how many times faster than the best dense engine."""
    content = raw(name)
    result = parse_speed(content["results"][0], name)
    all_places = dict.fromkeys((one.part, one.tokens) for one in result.measurements)
    places = [(part, tokens) for part, tokens in all_places if part == "mlp" or tokens == 1]
    lines: dict[str, dict[tuple[str, int], Measurement]] = {}
    for one in result.measurements:
        label = f"{one.engine} {one.dtype}, {variant_label(one.variant)}"
        lines.setdefault(label, {})[one.part, one.tokens] = one
    rows = [[label] for label in lines]
    for place in places:
        engines = [own[place] for name, own in lines.items() if not name.startswith("AVX")]
        best = min(engines, key=lambda one: one.spread.median).seconds
        for row, own in zip(rows, lines.values(), strict=True):
            took = own[place].seconds if place in own else []
            row += [
                f"{statistics.median(took) * 1e3:.2f} ({min(took) * 1e3:.2f})" if took else "–",
                f"{speed_up(best, took).median:.2f}" if took else "–",
            ]
    versions = result.machine["versions"]
    software = ", ".join(f"{key} {versions[key]}" for key in ("torch", "onnxruntime"))
    load = {"command": content["command"], "load": result.machine["load"][0]}
    heads = [head for part, n in places for head in (f"{PARTS[part]}, {n}: ms", "×")]
    table = markdown([LABELS[result.subject], *heads], rows)
    return f"{about_load(content['results'][0] | load, software)}\n\n{table}"


def startup_table(name: str) -> str:
    """CPU seconds of each stage's job, by an earlier version and by this one."""
    result = raw(name)
    origin = result["provenance"]
    best = {
        row["stage"]: {v: min(s) for v, s in row["cpu_seconds"].items()} for row in result["rows"]
    }
    rows = [
        [
            f"`{stage}`",
            f"{of['before']:.2f}",
            f"{of['after']:.2f}",
            f"{of['before'] - of['after']:.2f}",
        ]
        for stage, of in best.items()
    ]
    software = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    software += f", Python {origin['python']}"
    head = ["job", "before, s", "after, s", "less, s"]
    return f"{about_load(result, software)}\n\n{markdown(head, rows)}"


def faults_table(name: str) -> str:
    """Faults that were survived, by kind and stage, as `make faults` counted them."""
    result = raw(name)
    counts, versions = result["survived"], result["provenance"]["versions"]
    kinds = list(counts)
    stages = list(dict.fromkeys(stage for kind in kinds for stage in counts[kind]))
    rows = [[s, *(str(counts[kind].get(s, "–")) for kind in kinds)] for s in stages]
    rows.append(["all", *(str(sum(counts[kind].values())) for kind in kinds)])
    total = sum(sum(of_kind.values()) for of_kind in counts.values())
    said = (
        f"{total} faults, all survived; {result['provenance']['machine']['cores']} cores, "
        f"snakemake {versions['snakemake']}, {result['provenance']['date'][:10]}, "
        f"{result['provenance']['seconds'] / 60:.0f} minutes. Command: `make faults`."
    )
    return f"{markdown(['stage', *kinds], rows)}\n\n{said}"


def rendered(page: str) -> str:
    """The page with each generated part made again: `<!-- kind name -->` to `<!-- end -->`."""
    kinds: dict[str, Callable[[str], str]] = {
        "pruning": pruning_table, "measured": measured_table, "disk": disk_table,
        "blocks": blocks_line, "steps": steps_table, "kernels": kernels_table, "dag": dag_table,
        "evaluation": evaluation_table, "run": run_table, "faults": faults_table,
        "startup": startup_table, "packed": packed_table, "decode": decode_table,
        "packedcpu": packed_cpu_table,
        **{kind: partial(speed_part, kind) for kind in ("metric", "gpu", "cpu")},
    }  # fmt: skip

    def part(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        return f"<!-- {kind} {name} -->\n{kinds[kind](name)}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) ([\w-]+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date")
    check = parser.parse_args().check
    stale = [page for page in PAGES if rendered(page.read_text("utf-8")) != page.read_text("utf-8")]
    if check and stale:
        sys.exit(f"{stale[0]} is not current: run python benchmarks/tables.py")
    for page in stale:
        page.write_text(rendered(page.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
