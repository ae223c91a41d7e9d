"""Packed 2:4 weights on a CPU against other engines' dense ones, matrix by matrix.

    python benchmarks/packed_cpu.py --threads 2 --out benchmarks/results/packed-cpu-built-in.json

In every instruction set that the processor has, groups along either axis; all take turns, as in
``python -m dass.speed cpu``, which measures whole blocks.
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from dass.models.shape import Shape
from dass.packed.best import pack_pruned
from dass.packed.cpu import FLAGS, Kernel
from dass.packed.strips import strips_of
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import parse_pattern
from dass.runtime.files import write_text
from dass.speed.cpu import CpuSettings, measure_part, pairs
from dass.speed.engines import Call, Network, OnnxRuntime, TorchDense
from dass.speed.results import compact, make_result
from dass.speed.shapes import SHAPES, random_block
from dass.speed.timing import Outcome
from dass.terms import DENSE, ROLES

TYPES, TOKENS, PARTS = (torch.float32, torch.bfloat16), (1, 4, 8, 16), ("mlp", "gate", "down")


class Part(Network):
    """One matrix or an MLP as it is."""

    def module(self, layer: Any, x: Tensor) -> nn.Module:
        return layer


def networks(shape: Shape, folder: Path) -> Iterator[Part]:
    """Each part, dense and masked by magnitude, gate and up along either axis."""
    mlp = random_block(shape, attention=False)[0].mlp
    for variant in (DENSE, "2of4", "dass-2of4"):
        own = copy.deepcopy(mlp)
        for role in ROLES:
            linear = getattr(own, f"{role}_proj")
            linear.hidden_size = linear.in_features
            axis = "output" if variant == "dass-2of4" and role != "down" else "input"
            if variant != DENSE:
                scores = linear.weight.data.abs()
                linear.weight.data *= keep_mask(scores, parse_pattern("2of4"), "row", axis, role)
        for part, layer in (("gate", own.gate_proj), ("down", own.down_proj), ("mlp", own)):
            if (part, variant) != ("down", "dass-2of4"):  # which is 2of4's
                yield Part(part, variant, layer, nn.Identity(), folder / part / variant)


class Packed:
    """The library's kernel in one instruction set."""

    dtype, runs = "bfloat16", "sparse"

    def __init__(self, name: str) -> None:
        self.name, self._kernel = name, Kernel(name)

    def prepare(self, network: Network, x: Tensor, threads: int) -> Call:
        """The matrix, or the MLP with bfloat16 between its products."""
        x = x.bfloat16()
        if network.part != "mlp":
            return partial(self.product(network.layer), x)
        gate, up, down = (self.product(getattr(network.layer, f"{role}_proj")) for role in ROLES)
        return lambda: down(nn.functional.silu(gate(x)) * up(x))

    def product(self, linear: nn.Linear) -> Any:
        """The product with a matrix, packed once."""
        if (packed := getattr(linear, self.name, None)) is None:
            packed = strips_of(pack_pruned(linear.weight.data.bfloat16()), self._kernel.lanes)
            setattr(linear, self.name, packed)
        return partial(self._kernel.product, packed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--out", type=Path, required=True)
    options, outcome, shape = parser.parse_args(), Outcome(), SHAPES["7b"]
    settings = CpuSettings(options.threads, TOKENS, ("2of4",), PARTS, options.repeats)
    torch.set_num_threads(options.threads)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        work = list(networks(shape, Path(folder)))
        engines = [*map(TorchDense, TYPES), OnnxRuntime(), *map(Packed, FLAGS)]
        for part in PARTS:
            own = list(pairs(engines, [network for network in work if network.part == part]))
            for tokens in TOKENS:
                measure_part(part, tokens, own, settings, outcome)
    for one in outcome.measurements:
        one.seconds[:] = [round(seconds, 6) for seconds in one.seconds]
    result = asdict(make_result("cpu", "7b", shape, settings, outcome))
    command = " ".join(["python benchmarks/packed_cpu.py", *sys.argv[1:]])
    write_text(options.out, compact({"command": command, "results": [result]}))


if __name__ == "__main__":
    main()
