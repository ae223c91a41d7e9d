"""Tokens per second of generation, dense and on packed 2:4 weights, end to end.

    python benchmarks/decode.py --shape 7b --out benchmarks/results/decode-7b-h200.json

Random weights of a model's shapes; one token of each sequence, on a static cache of 1024 places
that is half full. Both are compiled by torch.compile, as transformers does while it generates, and
replayed as a CUDA graph, in a queue and, each waited for, one by one. Masks lie as DaSS lays them:
gate and up along the output, down along the input. The floor is what reading all weights once takes
at the rate of the dense product of the MLP.
"""

import argparse
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from dass.models.glu import find_glu
from dass.models.shape import Shape
from dass.packed.model import pack_model
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import NofM
from dass.runtime.files import write_text
from dass.runtime.provenance import provenance
from dass.speed.gpu import decode_call
from dass.speed.gpu_timing import as_graph
from dass.speed.results import compact
from dass.speed.shapes import SHAPES, random_model

REPEATS = 30


@dataclass
class Steps:
    """What replays of one step took and gave."""

    queued: list[float]
    """Seconds of each of a queue: what generation takes whose tokens nobody waits for."""
    waited: list[float]
    """Seconds of each from its launch until the host knows that it is done."""
    logits: Tensor
    different: int
    """How many different logits were seen."""


@torch.no_grad()
def replays(model: nn.Module, sequences: int, compiled: bool) -> Steps:
    """One step of a model, again and again."""
    replay = as_graph([decode_call(model, sequences, "cuda", compiled)], "cuda")
    seen = [replay().clone() for _ in range(50)]  # until the clocks have settled
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(REPEATS + 1)]
    for mark in marks:
        mark.record()
        replay()
    torch.cuda.synchronize()
    queued = [begin.elapsed_time(end) / 1e3 for begin, end in pairwise(marks)]
    waited = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        replay()
        torch.cuda.synchronize()
        waited.append(time.perf_counter() - begin)
    seen.append(replay().clone())
    return Steps(queued, waited, seen[0], len({one.cpu().numpy().tobytes() for one in seen}))


@torch.no_grad()
def prune_2of4(model: nn.Module) -> None:
    """Zero half of each MLP by magnitude, groups as DaSS lays them."""
    for block in model.model.layers:
        for projection in find_glu(block, "").projections:
            axis = "input" if projection.role == "down" else "output"
            weight = projection.weight
            weight.masked_fill_(~keep_mask(weight.float().abs(), NofM(2, 4), "row", axis), 0)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights, packed ones included."""
    tensors = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    return sum(tensors.values())


def kernels_of(model: nn.Module) -> list[dict]:
    """The kernels of one compiled step of packed weights at one sequence, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    with torch.no_grad():
        replay = as_graph([decode_call(model, 1, "cuda", compiled=True)], "cuda")
        replay()
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            replay()
            torch.cuda.synchronize()
    rows = sorted(seen.key_averages(), key=lambda one: -one.self_device_time_total)[:12]
    return [
        {"kernel": one.key[:100], "calls": one.count, "us": round(one.self_device_time_total, 1)}
        for one in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="7b")
    parser.add_argument("--blocks", type=int, help="fewer than the model has")
    parser.add_argument("--sequences", default="1,4,16")
    parser.add_argument("--plain", action="store_true", help="also without torch.compile")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    shape: Shape = SHAPES[arguments.shape]
    torch._dynamo.config.recompile_limit = 64
    model = random_model(shape, arguments.blocks or shape.blocks, torch.float16, "cuda")
    rows: list[dict] = []
    counts = [int(count) for count in arguments.sequences.split(",")]
    sizes = {}
    expected: dict[int, Tensor] = {}
    for weights in ("dense", "packed 2:4"):
        if weights != "dense":
            prune_2of4(model)
            for sequences in counts:  # the same weights, unpacked: what packed ones must say
                expected[sequences] = replays(model, sequences, compiled=False).logits
            assert pack_model(model) == {}
            torch.compiler.reset()
            torch.cuda.empty_cache()
        sizes[weights] = weight_bytes(model)
        for sequences in counts:
            for compiled in (False, True) if arguments.plain else (True,):
                steps = replays(model, sequences, compiled)
                wanted = expected.get(sequences, steps.logits).float()
                error = (steps.logits.float() - wanted).abs().max() / wanted.abs().max()
                row = {
                    "weights": weights, "sequences": sequences, "compiled": compiled,
                    "seconds": steps.queued, "seconds_waited": steps.waited,
                    "tokens_per_second": sequences / median(steps.queued),
                    "tokens_per_second_waited": sequences / median(steps.waited),
                    "error": float(error), "different_logits": steps.different,
                }  # fmt: skip
                rows.append(row)
                print({k: v for k, v in row.items() if "seconds" not in k}, flush=True)
    # Last of all: once a profiler has been there, a graph takes longer to launch.
    content = {
        "shape": arguments.shape, "blocks": len(model.model.layers), "rows": rows,
        "weight_bytes": sizes, "kernels": kernels_of(model), "provenance": provenance(),
    }  # fmt: skip
    write_text(arguments.out, compact(content))


if __name__ == "__main__":
    main()
