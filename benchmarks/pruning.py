"""Seconds per decoder block and peak GPU memory of pruning, beside the published procedure.

    python benchmarks/pruning.py --shape 7b --out benchmarks/results/pruning-7b.json

Random weights of a model's shapes are written to disk first; the engine reads them as it would read
the model. The baseline (benchmarks/baseline.py) runs on the same blocks and tokens in the same
process. The floor is what the arithmetic alone would take at the rate that a large matrix product
reaches here: one attention half, two thirds of a dense MLP, one pruned MLP. Beside it stands the
time of the bytes alone, at the rate of a large copy: each product's operands read and its result
written once. Masks and kept values are written to disk block by block, as in the workflow.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from baseline import prune_block, synchronise

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from dass.evaluation.likelihood import window_losses
from dass.models.shape import Shape
from dass.models.streamed import StreamedModel
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import unpack
from dass.pruning.resume import BlockCheckpoints
from dass.runtime.files import write_text
from dass.runtime.provenance import provenance
from dass.speed.results import compact
from dass.speed.shapes import SHAPES, llama_config

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.float16 if DEVICE == "cuda" else torch.float32


GRAM = ("sparsegpt", "admm", "sparseswaps", "alps")
"""Methods that need the Gram matrices of their layers' inputs."""
RUNS = "dass:2of4,dass:4of8,dass:u50,wanda:2of4,wanda:4of8,wanda:u50,sparsegpt:2of4,sparsegpt:u50"


CHOSEN = 2
"""Experts that compute on a token, of a mixture of them."""


def write_model(
    folder: Path, shape: Shape, blocks: int, vocabulary: int = 32000, experts: int = 0
) -> None:
    """A checkpoint of random weights in DTYPE, one shard per block: LLaMA, or Mixtral's experts."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, MixtralConfig

    config = llama_config(shape, blocks, vocabulary)
    if experts:
        said = config.to_dict() | {"num_local_experts": experts, "num_experts_per_tok": CHOSEN}
        left = ("model_type", "architectures", "mlp_bias", "attention_bias", "pretraining_tp")
        config = MixtralConfig(**{k: v for k, v in said.items() if k not in left})
    config.dtype = DTYPE
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        shapes = {n: t.shape for n, t in model.state_dict().items()}
    generator = torch.Generator(DEVICE).manual_seed(0)
    weight_map = {
        name: f"model-{name.split('.')[2] if '.layers.' in name else 'outside'}.safetensors"
        for name in shapes
    }
    for file in dict.fromkeys(weight_map.values()):
        tensors = {}
        for name in (name for name, own in weight_map.items() if own == file):
            value = torch.ones(shapes[name], device=DEVICE, dtype=DTYPE)
            if value.dim() > 1:
                value.normal_(0, 0.02, generator=generator)
            tensors[name] = value.cpu()
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def median_seconds(call: Callable[[], object]) -> float:
    """Seconds of a call: the median of 20, after 5 that do not count."""
    times = []
    for _ in range(25):
        synchronise()
        started = time.perf_counter()
        call()
        synchronise()
        times.append(time.perf_counter() - started)
    return statistics.median(times[5:])


def matmul_rate(held: float = 0) -> float:
    """FLOP/s of a large product of random matrices.

    Args:
        held: for how many seconds without a pause, which a card's power may not allow at the rate
            of a short burst; 0: of a burst.
    """
    size = 8192 if DEVICE == "cuda" else 1024
    a, b = (torch.randn(size, size, device=DEVICE, dtype=DTYPE) for _ in range(2))
    burst = median_seconds(lambda: a @ b)
    if not held:
        return 2 * size**3 / burst
    count = int(held / burst)
    seconds = []
    for _ in range(2):  # the first time until the card has settled
        synchronise()
        started = time.perf_counter()
        for _ in range(count):
            a @ b
        synchronise()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 * count / seconds[-1]


def copy_rate() -> float:
    """Bytes per second, read and written, of a large copy on the device."""
    source = torch.empty((1 << 30) if DEVICE == "cuda" else (1 << 26), dtype=torch.uint8,
                         device=DEVICE).random_()  # fmt: skip
    target = torch.empty_like(source)
    return 2 * source.numel() / median_seconds(lambda: target.copy_(source))


def bytes_moved(shape: Shape, tokens: int, method: str, experts: int = 0) -> float:
    """The fewest bytes of a block if every product's operands and result pass memory once.

    A token's hidden state is read for q, k and v, which are written and read; attention's result
    is written, read, and its projection written. The MLP's input is written and read twice (dense,
    pruned), as are gate's and up's results; Z is written once for `down` of the pruned pass, and
    for a Gram matrix once more; the block's output is written. Weights are read once per pass.
    """
    hidden, inner, share = shape.hidden, shape.intermediate, shape.key_value_heads / shape.heads
    attention = hidden * (1 + 2 * (1 + 2 * share) + 2 + 1)
    mlp = 2 * (2 * hidden + 4 * inner) + 2 * inner + hidden
    mlp *= CHOSEN if experts else 1
    gram = 2 * inner if method in GRAM else 0
    weights = shape.attention + 5 * hidden * inner * max(experts, 1)
    return float(DTYPE.itemsize * (tokens * (attention + mlp + gram) + weights))


def operations(shape: Shape, tokens: int, length: int, method: str, experts: int = 0) -> float:
    """The fewest floating-point operations of a block."""
    hidden, inner = shape.hidden, shape.intermediate
    scores = 2 * 2 * hidden * (length + 1) / 2  # each query sees half of the keys on average
    mlp = 2 * hidden * inner * (2 + 3)
    gram = 2 * (hidden**2 + inner**2) / 2 if method in GRAM else 0  # symmetric
    return tokens * (2 * shape.attention + scores + (mlp + gram) * (CHOSEN if experts else 1))


def forget_peak() -> None:
    """Start measuring the GPU's peak memory again."""
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peaks() -> dict[str, float | None]:
    """Peak GPU memory in GiB, allocated and reserved."""
    gpu = torch.cuda if DEVICE == "cuda" else None
    return {
        "peak_allocated_gib": gpu and gpu.max_memory_allocated() / 2**30,
        "peak_reserved_gib": gpu and gpu.max_memory_reserved() / 2**30,
    }


def measure(
    folder: Path, windows: torch.Tensor, method: str, pattern: str, store: str | None,
    permute: bool = False,
):  # fmt: skip
    """One run of the engine on random weights."""
    forget_peak()
    model = StreamedModel(folder, DTYPE, DEVICE, offload_to=store)
    with tempfile.TemporaryDirectory(dir=folder.parent) as pieces:
        pruned = prune(
            model, windows, make_method(method, {}), parse_pattern(pattern),
            BlockCheckpoints(Path(pieces), {}), permute=permute,
        )  # fmt: skip
        first = BlockCheckpoints(Path(pieces), {}).read(0)
        pruned.masks |= {name: first.packed_mask(name) for name in first.shapes}
    return pruned


def measure_perplexity(folder: Path, windows: torch.Tensor, store: str) -> dict:
    """Perplexity streamed block by block: seconds and peak memory."""
    forget_peak()
    model = StreamedModel(folder, DTYPE, DEVICE, offload_to=store)
    synchronise()
    started = time.perf_counter()
    window_losses(model, windows)
    seconds = time.perf_counter() - started
    return {
        "method": "perplexity", "pattern": "", "activations": store,
        "tokens": windows.numel(), "blocks": model.n_blocks, "seconds": seconds,
        "seconds_a_block": seconds / model.n_blocks, **peaks(),
    }  # fmt: skip


def baseline_run(folder: Path, windows: torch.Tensor, method: str, pattern: str, blocks: int):
    """The published procedure on the first blocks: seconds of each, and masks of what it keeps."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPE).to(DEVICE).eval()
    streamed = StreamedModel(folder, DTYPE, DEVICE)
    seconds, masks = [], {}
    with torch.inference_mode():
        hidden = torch.cat([streamed.block_inputs(w.unsqueeze(0)).hidden for w in windows])
        kwargs = streamed.block_inputs(windows[:1]).arguments[0][1]
        for index in range(blocks):
            hidden, took = prune_block(model.model.layers[index], hidden, kwargs, method, pattern)
            seconds.append(took)
            for name, parameter in model.model.layers[index].named_parameters():
                if ".mlp." in f".{name}":
                    masks[f"model.layers.{index}.{name}"] = (parameter != 0).cpu()
    del model, streamed, hidden
    forget_peak()
    return seconds, masks


def agreement(pruned, masks: dict[str, torch.Tensor]) -> float:
    """The lowest share of equal mask entries over matrices of the first block."""
    return min(
        (unpack(pruned.masks[name], tuple(mask.shape)) == mask).float().mean().item()
        for name, mask in masks.items()
        if ".layers.0." in name
    )


def model_options(about: str, runs: str) -> argparse.ArgumentParser:
    """Options of a benchmark of pruning: sizes, tokens, runs, and where results go."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--runs", default=runs, help="method:pattern, method:pattern:permute")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def random_windows(options: argparse.Namespace) -> torch.Tensor:
    """Tokens [sequences, length]."""
    size = (options.sequences, options.length)
    return torch.randint(3, 31999, size, generator=torch.Generator().manual_seed(0))


def write_rows(options: argparse.Namespace, rows: list[dict], **about: object) -> None:
    """Write all rows so far, and what they were measured with."""
    content = {
        "command": " ".join(["python", *sys.argv]), "shape": options.shape,
        "sequences": options.sequences, "length": options.length, "dtype": str(DTYPE), **about,
        "rows": rows, "provenance": provenance(),
    }  # fmt: skip
    write_text(options.out, compact(content))


def main() -> None:
    parser = model_options(__doc__, RUNS)
    parser.add_argument("--stores", default=DEVICE, help="cuda,cpu")
    parser.add_argument("--baseline", type=int, default=0, help="blocks of the baseline to run")
    parser.add_argument("--perplexity", type=int, default=0, help="windows to evaluate as well")
    parser.add_argument("--experts", type=int, default=0, help="in each block, of Mixtral's form")
    parser.add_argument("--folder", type=Path, help="where to write the model")
    options = parser.parse_args()
    shape, rate, bandwidth = SHAPES[options.shape], matmul_rate(), copy_rate()
    about = {
        "device": DEVICE, "threads": torch.get_num_threads(), "blocks": options.blocks,
        "experts": options.experts,
        "matmul_tflops": rate / 1e12, "copy_gb_per_second": bandwidth / 1e9,
    }  # fmt: skip
    windows, stores = random_windows(options), options.stores.split(",")
    rows: list[dict] = []

    def keep(row: dict) -> None:
        rows.append(row)
        print(json.dumps({k: v for k, v in row.items() if k != "block_seconds"}), flush=True)
        write_rows(options, rows, **about)

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_model(folder, shape, options.blocks, experts=options.experts)
        measure(folder, windows[:8], "wanda", "2of4", None)  # warm-up
        for run in filter(None, options.runs.split(",")):
            method, pattern, *more = run.split(":")
            permute = more == ["permute"]
            measure(folder, windows[:8], method, pattern, None, permute)  # compiles kernels
            base, masks = [], {}
            if options.baseline:
                base, masks = baseline_run(folder, windows, method, pattern, options.baseline)
            work = operations(shape, windows.numel(), options.length, method, options.experts)
            moved = bytes_moved(shape, windows.numel(), method, options.experts)
            for store in stores:
                pruned = measure(folder, windows, method, pattern, store, permute)
                # The first block waits for its weights, the last feeds no other.
                seconds = statistics.median(pruned.block_seconds[1:-1])
                keep({
                    "method": method, "pattern": pattern, "permute": permute, "activations": store,
                    "seconds_a_block": seconds, "block_seconds": pruned.block_seconds,
                    "stage_seconds": pruned.seconds,
                    "baseline_seconds": base,
                    "ratio": statistics.median(base) / seconds if base else None,
                    "masks_agree": agreement(pruned, masks) if masks else None,
                    "operations": work, "floor_seconds": work / rate,
                    "share_of_floor": work / rate / seconds,
                    "bytes": moved, "bytes_seconds": moved / bandwidth,
                    "model_seconds": seconds * shape.blocks, **peaks(),
                })  # fmt: skip
        for store in stores if options.perplexity else []:
            keep(measure_perplexity(folder, windows[: options.perplexity], store))


if __name__ == "__main__":
    main()
