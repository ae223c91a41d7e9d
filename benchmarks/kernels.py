"""Where a pruned block's time goes on the GPU: seconds by kernel, and the gaps between kernels.

    python benchmarks/kernels.py --shape 7b --runs dass:2of4,sparsegpt:2of4 --out kernels.json

The same model, tokens and engine as benchmarks/pruning.py, under PyTorch's profiler.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from pruning import DTYPE, measure, write_model  # which puts src/ on the path
from torch.profiler import ProfilerActivity, profile

from dass.runtime.files import write_text
from dass.runtime.provenance import provenance
from dass.speed.results import compact
from dass.speed.shapes import SHAPES

SHOWN = 18
"""How many kernels are listed; the rest is summed up."""


def kernels_of(run: str, folder: Path, windows: torch.Tensor) -> dict:
    """Seconds by kernel, and of the whole, of one run of the engine."""
    method, pattern = run.split(":")
    measure(folder, windows[:8], method, pattern, "cuda")  # compiles kernels
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        pruned, *_ = measure(folder, windows, method, pattern, "cuda")
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in recorded.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            seconds[event.name] += event.device_time_total / 1e6
            calls[event.name] += 1
    ranked = sorted(seconds, key=seconds.__getitem__, reverse=True)
    return {
        "method": method, "pattern": pattern, "blocks": len(pruned.block_seconds),
        "stage_seconds": pruned.seconds, "block_seconds": pruned.block_seconds,
        "busy_seconds": sum(seconds.values()),
        "kernels": [
            {"name": name, "seconds": seconds[name], "calls": calls[name]}
            for name in ranked[:SHOWN]
        ],
        "other_seconds": sum(seconds[name] for name in ranked[SHOWN:]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="7b")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--runs", default="dass:2of4,sparsegpt:2of4,sparsegpt:u50")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    windows = torch.randint(3, 31999, (arguments.sequences, arguments.length),
                            generator=torch.Generator().manual_seed(0))  # fmt: skip
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), SHAPES[arguments.shape], arguments.blocks)
        for run in arguments.runs.split(","):
            rows.append(kernels_of(run, Path(name), windows))
            print(f"\n{run}: stages {rows[-1]['stage_seconds']}, "
                  f"busy {rows[-1]['busy_seconds']:.3f} s")  # fmt: skip
            for kernel in rows[-1]["kernels"]:
                print(f"{kernel['seconds']:8.4f} s {kernel['calls']:6d}  {kernel['name'][:90]}")
            print(f"{rows[-1]['other_seconds']:8.4f} s         others")
    write_text(arguments.out, compact({
        "command": " ".join(["python", *sys.argv]), "shape": arguments.shape,
        "sequences": arguments.sequences, "length": arguments.length, "dtype": str(DTYPE),
        "rows": rows, "provenance": provenance(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
