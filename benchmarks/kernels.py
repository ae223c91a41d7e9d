"""Where a pruned block's time goes on the GPU: seconds by kernel, and the gaps between kernels.

    python benchmarks/kernels.py --shape 7b --runs dass:2of4,sparsegpt:2of4 --out kernels.json

The same model, tokens and engine as benchmarks/pruning.py, under PyTorch's profiler.
"""

import tempfile
from collections import defaultdict
from pathlib import Path

import torch

# Puts src/ on the path.
from pruning import measure, model_options, random_windows, write_model, write_rows
from torch.profiler import ProfilerActivity, profile

from dass.speed.shapes import SHAPES

SHOWN = 18
"""How many kernels are listed; the rest is summed up."""


def kernels_of(run: str, folder: Path, windows: torch.Tensor) -> dict:
    """Seconds by kernel, and of the whole, of one run of the engine."""
    method, pattern = run.split(":")
    measure(folder, windows[:8], method, pattern, "cuda")  # compiles kernels
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        pruned = measure(folder, windows, method, pattern, "cuda")
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
    options = model_options(__doc__, "dass:2of4,sparsegpt:2of4,sparsegpt:u50").parse_args()
    windows, rows = random_windows(options), []
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), SHAPES[options.shape], options.blocks)
        for run in options.runs.split(","):
            rows.append(kernels_of(run, Path(name), windows))
            print(f"{run}: busy {rows[-1]['busy_seconds']:.3f} s of {rows[-1]['stage_seconds']}")
            for kernel in rows[-1]["kernels"]:
                print(f"{kernel['seconds']:8.4f} s {kernel['calls']:6d}  {kernel['name'][:90]}")
    write_rows(options, rows)


if __name__ == "__main__":
    main()
