"""Write the numbers of docs/reproduce.md: what the studies take, by formula and measurement.

python benchmarks/reproduce.py            # writes
python benchmarks/reproduce.py --check    # fails if the page is not what follows from the raw JSON

Seconds are those of benchmarks/results/, scaled by the operations of a model's blocks; memory and
disk follow from shapes alone. tests/unit/test_reproduce.py holds the formulas against measurements.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reproduce.md"
RESULTS = ROOT / "benchmarks" / "results"

GIB = 2**30
HALF = 2
"""Bytes of a weight or an activation in float16 or bfloat16."""
CALIBRATION = 128 * 2048
LENGTH = 2048
WIKITEXT_WORDS = {"validation": 217_646, "test": 245_569}
"""As the data set's authors count them."""
EXAMPLES = {
    "hellaswag": (10_042, 4, 95),
    "winogrande": (1_267, 2, 25),
    "arc_easy": (2_376, 4, 35),
    "arc_challenge": (1_172, 4, 40),
    "piqa": (1_838, 2, 35),
}
"""Examples that are scored, choices each, and tokens of a question with one choice (assumed)."""
TOKENS_A_WORD = 1.4
DISK = 2e9
"""Bytes a second that weights are read at (assumed: an NVMe drive)."""
JOB_START = 15.0
"""Seconds until a job has imported torch and opened the model (assumed)."""
PATTERNS = 3
RUNS = 4 * PATTERNS


@dataclass(frozen=True)
class Shape:
    """A decoder-only model with one gated MLP a block."""

    label: str
    blocks: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool = False
    limit: int | None = None
    """At most so many examples of each zero-shot task."""

    @property
    def attention(self) -> int:
        """Weights of one block's attention."""
        return 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)

    @property
    def mlp(self) -> int:
        """Weights of one block's gated MLP."""
        return 3 * self.hidden * self.inner

    @property
    def outside(self) -> int:
        """Weights of embeddings and head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All weights but norms and biases."""
        return self.blocks * (self.attention + self.mlp) + self.outside

    def operations(self, mlp_passes: float, length: int = LENGTH, gram: bool = False) -> float:
        """Floating-point operations that one token costs in one block.

        Args:
            mlp_passes: how often each of the MLP's three matrices is multiplied with: 1 in an
                evaluation; 5 / 3 in pruning: gate and up while dense, all three once pruned.
            length: of a window; a query sees half of the keys on average.
            gram: whether SparseGPT's Gram matrices (symmetric) are summed up.
        """
        scores = 2 * 2 * self.heads * self.head_size * (length + 1) / 2
        products = self.hidden**2 + self.inner**2 if gram else 0
        return 2 * self.attention + scores + 2 * self.mlp * mlp_passes + products


PAPER = {
    "llama2-7b": Shape("LLaMA2-7B", 32, 4096, 11008, 32, 32, 128, 32000),
    "llama2-13b": Shape("LLaMA2-13B", 40, 5120, 13824, 40, 40, 128, 32000),
    "llama2-70b": Shape("LLaMA2-70B", 80, 8192, 28672, 64, 8, 128, 32000, limit=2000),
    "llama3.1-8b": Shape("LLaMA3.1-8B", 32, 4096, 14336, 32, 8, 128, 128256),
    "mistral-7b": Shape("Mistral-7B", 32, 4096, 14336, 32, 8, 128, 32000),
    "gemma-7b": Shape("Gemma-7B", 28, 3072, 24576, 16, 16, 256, 256000, tied=True),
}
SMALL = {
    "tinyllama-1.1b": Shape("TinyLlama-1.1B", 22, 2048, 5632, 32, 4, 64, 32000),
    "qwen2.5-0.5b": Shape("Qwen2.5-0.5B", 24, 896, 4864, 14, 2, 64, 151936, tied=True),
    "smollm2-360m": Shape("SmolLM2-360M", 32, 960, 2560, 15, 5, 64, 49152, tied=True),
}
MEASURED = {"7b": PAPER["llama2-7b"], "70b": PAPER["llama2-70b"]}


# --- Measurements ---------------------------------------------------------------------------------


def measurement(size: str) -> dict:
    """The raw results at the shapes of LLaMA2-7B or LLaMA2-70B."""
    result = json.loads((RESULTS / f"pruning-{size}-h200.json").read_text())
    if (more := RESULTS / f"pruning-{size}-sparsegpt-h200.json").exists():
        result["rows"] += json.loads(more.read_text())["rows"]
    return result


def row_of(size: str, method: str, pattern: str = "", store: str = "cuda") -> dict | None:
    """One measured row."""
    rows = measurement(size)["rows"]
    wanted = (method, pattern, store)
    return next((r for r in rows if (r["method"], r["pattern"], r["activations"]) == wanted), None)


def reference_of(shape: Shape, method: str, pattern: str) -> tuple[Shape, dict]:
    """The measurement whose shape is nearest, and that shape."""
    large = shape.hidden >= 8192 and row_of("70b", method, pattern)
    size = "70b" if large else "7b"
    row = large or row_of("7b", method, pattern) or row_of("7b", method, "2of4")
    assert row is not None
    return MEASURED[size], row


# --- Time -----------------------------------------------------------------------------------------
# `slower`: how many times slower than the measured card a card computes.


def pruning_seconds(shape: Shape, method: str, pattern: str, slower: float = 1) -> float:
    """One run: measured seconds a block, scaled by operations; no faster than weights are read."""
    reading = shape.parameters * HALF / DISK
    if method == "magnitude":
        return reading
    # At 70B Wanda was not measured; it does the same work as DaSS (see the rows at 7B).
    measured = "dass" if method == "wanda" and shape.hidden >= 8192 else method
    reference, row = reference_of(shape, measured, pattern if measured == method else "2of4")
    gram = method == "sparsegpt"
    scale = shape.operations(5 / 3, gram=gram) / reference.operations(5 / 3, gram=gram)
    return max(reading, shape.blocks * row["seconds_a_block"] * scale * slower)


def evaluation_seconds(shape: Shape, tokens: float, length: int, slower: float) -> float:
    """Tokens through a whole model, by the measured perplexity; no faster than weights are read."""
    reference, row = reference_of(shape, "perplexity", "")
    each = row["seconds_a_block"] / row["tokens"] / reference.operations(1)
    computing = tokens * shape.blocks * each * shape.operations(1, length) * slower
    return max(computing, shape.parameters * HALF / DISK)


def perplexity_seconds(shape: Shape, slower: float = 1) -> float:
    """Both splits of WikiText-2."""
    tokens = TOKENS_A_WORD * sum(WIKITEXT_WORDS.values())
    return evaluation_seconds(shape, tokens, LENGTH, slower)


def zero_shot_seconds(shape: Shape, slower: float = 1) -> float:
    """All five tasks."""
    tokens = sum(
        min(examples, shape.limit or examples) * choices * length
        for examples, choices, length in EXAMPLES.values()
    )
    return evaluation_seconds(shape, tokens, 100, slower)


def hours(shape: Shape, slower: float = 1) -> dict[str, float]:
    """Hours of all of a model's runs and of its dense evaluation, one after the other."""
    methods = ("magnitude", "wanda", "sparsegpt", "dass")
    patterns = ("u50", "4of8", "2of4")
    pruning = sum(pruning_seconds(shape, m, p, slower) for m in methods for p in patterns)
    parts = {
        "pruning": pruning + RUNS * JOB_START,
        "perplexity": (RUNS + 1) * (perplexity_seconds(shape, slower) + JOB_START),
        "zero-shot": (RUNS + 1) * (zero_shot_seconds(shape, slower) + JOB_START),
    }
    return {name: seconds / 3600 for name, seconds in parts.items()}


def study_hours(shapes: Iterable[Shape], slower: float) -> float:
    """Hours of several models, one job after the other."""
    return sum(sum(hours(shape, slower).values()) for shape in shapes)


def longest_chain(shape: Shape, slower: float) -> float:
    """Hours from the dense perplexity over the slowest pruning to its slowest evaluation."""
    pruning = max(pruning_seconds(shape, "sparsegpt", p, slower) for p in ("u50", "2of4"))
    perplexity = perplexity_seconds(shape, slower)
    evaluation = max(perplexity, zero_shot_seconds(shape, slower))
    return (perplexity + pruning + evaluation + 3 * JOB_START) / 3600


# --- Memory and disk ------------------------------------------------------------------------------


def activations(shape: Shape) -> int:
    """Bytes of all calibration tokens' hidden states and of attention's outputs."""
    return 2 * CALIBRATION * shape.hidden * HALF


def gpu_bytes(shape: Shape, method: str, store: str) -> float:
    """Peak GPU memory of a pruning run.

    The block in use and the next one, embeddings and head, and room to work: four float32 copies
    of one matrix; SparseGPT: two Gram matrices besides; activations where they are kept there.
    """
    blocks = 2 * (shape.attention + shape.mlp) * HALF
    work = 4 * shape.hidden * shape.inner * 4
    grams = 2 * shape.inner**2 * 4 if method == "sparsegpt" else 0
    kept = activations(shape) if store == "cuda" else 0
    return blocks + shape.outside * HALF + work + grams + kept


def weights_bytes(shape: Shape) -> int:
    """The dense model's files."""
    return shape.parameters * HALF


def run_bytes(shape: Shape, method: str) -> float:
    """One run's pruned file: a bit a weight of the MLPs; SparseGPT: the kept half as well."""
    weights = shape.blocks * shape.mlp
    return weights / 8 + (weights / 2 * HALF if method == "sparsegpt" else 0)


def results_bytes(shape: Shape) -> float:
    """All runs' pruned files."""
    score = (RUNS - PATTERNS) * run_bytes(shape, "dass")
    return score + PATTERNS * run_bytes(shape, "sparsegpt")


# --- The page -------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; the first column is text."""
    lines = [f"| {' | '.join(line)} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(head) - 1), *lines[1:]])


def shown(value: float) -> str:
    """Hours: two digits or more."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def per_model(shapes: dict[str, Shape]) -> str:
    """Disk, memory and hours of each model, and their sum."""
    head = ["model", "weights, GB", "pruned files, GB", "one export, GB",
            "least GPU memory, GiB (SparseGPT)", "with activations on the GPU, GiB",
            "pruning, h", "perplexity, h", "zero-shot, h", "all, h"]  # fmt: skip
    rows = []
    for shape in shapes.values():
        least = [gpu_bytes(shape, method, "cpu") / GIB for method in ("dass", "sparsegpt")]
        took = hours(shape)
        rows.append(
            [
                shape.label,
                f"{weights_bytes(shape) / 1e9:.1f}",
                f"{results_bytes(shape) / 1e9:.1f}",
                f"{weights_bytes(shape) / 1e9:.1f}",
                f"{least[0]:.1f} ({least[1]:.1f})",
                f"{gpu_bytes(shape, 'sparsegpt', 'cuda') / GIB:.1f}",
                *map(shown, (*took.values(), sum(took.values()))),
            ]
        )
    every = [hours(shape) for shape in shapes.values()]
    columns = [sum(each[part] for each in every) for part in every[0]]
    rows.append(
        [
            "all",
            f"{sum(map(weights_bytes, shapes.values())) / 1e9:.1f}",
            f"{sum(map(results_bytes, shapes.values())) / 1e9:.1f}",
            "", "", "",
            *map(shown, (*columns, sum(columns))),
        ]
    )  # fmt: skip
    return table(head, rows)


def plans() -> str:
    """Hours of the studies by number and rate of cards."""
    rate = measurement("7b")["matmul_tflops"]
    device = measurement("7b")["provenance"]["device"]
    others = [shape for name, shape in PAPER.items() if name != "llama2-70b"]
    studies = [list(SMALL.values()), others, list(PAPER.values())]
    head = ["device", "TFLOP/s each", "small study, h", "paper without 70B, h", "paper, h"]
    rows = []
    for what, cards, tflops, count in (
        ("a CPU", 1, 0.5, 1),
        ("one GPU of 12 GB", 1, 40.0, 2),
        ("one GPU of 24 GB", 1, 80.0, 3),
        ("one GPU of 80 GB", 1, 250.0, 3),
        (f"one {device} (measured)", 1, rate, 3),
        ("a cluster: 8 GPUs of 80 GB", 8, 250.0, 3),
    ):
        slower = rate / tflops
        times = [
            max(
                study_hours(some, slower) / cards, *(longest_chain(shape, slower) for shape in some)
            )
            for some in studies[:count]
        ]
        cells = [*map(shown, times), *["–"] * (3 - count)]
        rows.append([what, f"{tflops:g}" if tflops < 1 else f"{tflops:.0f}", *cells])
    return table(head, rows)


def agreement() -> str:
    """What the formulas give beside what was measured."""
    head = ["what", "formula", "measured"]
    rows = []
    for size, method, pattern, store in (
        ("7b", "dass", "2of4", "cpu"), ("7b", "dass", "2of4", "cuda"),
        ("7b", "sparsegpt", "2of4", "cpu"), ("7b", "sparsegpt", "2of4", "cuda"),
        ("70b", "dass", "2of4", "cpu"), ("70b", "dass", "2of4", "cuda"),
        ("70b", "sparsegpt", "2of4", "cpu"), ("70b", "sparsegpt", "2of4", "cuda"),
    ):  # fmt: skip
        row = row_of(size, method, pattern, store)
        assert row is not None
        where = {"cpu": "host", "cuda": "GPU"}[store]
        name = {"dass": "DaSS", "sparsegpt": "SparseGPT"}[method]
        what = f"{MEASURED[size].label}, {name} 2:4, activations on the {where}: GPU memory, GiB"
        peak = row["peak_allocated_gib"]
        rows.append([what, f"{gpu_bytes(MEASURED[size], method, store) / GIB:.1f}", f"{peak:.1f}"])
    seven, seventy = row_of("7b", "dass", "2of4"), row_of("70b", "dass", "2of4")
    assert seven is not None and seventy is not None
    scaled = seven["seconds_a_block"] * scale_to_70b()
    rows.append(
        [
            "LLaMA2-70B, DaSS 2:4: seconds a block, scaled from LLaMA2-7B",
            f"{scaled:.2f}",
            f"{seventy['seconds_a_block']:.2f}",
        ]
    )
    return table(head, rows)


def scale_to_70b() -> float:
    """How many times the operations of a block of LLaMA2-7B one of LLaMA2-70B takes."""
    return MEASURED["70b"].operations(5 / 3) / MEASURED["7b"].operations(5 / 3)


def rendered(page: str) -> str:
    """The page with each generated part made anew: `<!-- name -->` to `<!-- end -->`."""
    parts = {
        "paper": lambda: per_model(PAPER),
        "small": lambda: per_model(SMALL),
        "plans": plans,
        "agreement": agreement,
    }

    def part(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{parts[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    new = rendered(page)
    if "--check" in sys.argv:
        wrong = f"{PAGE} is not current: run python benchmarks/reproduce.py"
        sys.exit(0 if new == page else wrong)
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
