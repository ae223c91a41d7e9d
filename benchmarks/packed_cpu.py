"""Products of packed 2:4 weights on a CPU, by packed_cpu.c, against other engines' dense ones.

    python benchmarks/packed_cpu.py --threads 2 --out benchmarks/results/packed-cpu.json

A prototype that nothing in the library uses. With AVX-512 it also multiplies dense weights, which
tells what is due to the packing. All take turns, as in ``python -m dass.speed cpu``.
"""

import argparse
import copy
import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from dass.models.shape import Shape
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import parse_pattern
from dass.runtime.files import write_text
from dass.speed.cpu import CpuSettings, measure_part, pairs
from dass.speed.engines import Call, Network, OnnxRuntime, TorchDense
from dass.speed.results import compact, make_result
from dass.speed.shapes import SHAPES, random_block, random_weight
from dass.speed.timing import Outcome, checked
from dass.terms import DENSE, ROLES

FLAGS = {"AVX-512": "-mavx512bf16 -mavx512vbmi2 -mavx512vl -mfma", "AVX2": "-mavx2 -mfma"}
TYPES, TOKENS, PARTS = (torch.float32, torch.bfloat16), (1, 4, 16), ("mlp", "gate", "down")


class Part(Network):
    """One matrix or an MLP as it is."""

    def module(self, layer: Any, x: Tensor) -> nn.Module:
        return layer


def networks(shape: Shape, folder: Path) -> Iterator[Part]:
    """Each part, dense and masked by magnitude; each matrix knows the rows of its strips."""
    mlp = random_block(shape, attention=False)[0].mlp
    for variant in (DENSE, "2of4", "dass-2of4"):
        own = copy.deepcopy(mlp)
        for role in ROLES:
            linear = getattr(own, f"{role}_proj")
            linear.hidden_size = linear.in_features
            linear.rows = 4 if variant == "dass-2of4" and role != "down" else 1
            if variant != DENSE:
                scores, axis = linear.weight.data.abs(), "output" if linear.rows == 4 else "input"
                linear.weight.data *= keep_mask(scores, parse_pattern("2of4"), "row", axis, role)
        for part, layer in (("gate", own.gate_proj), ("down", own.down_proj), ("mlp", own)):
            if (part, variant) != ("down", "dass-2of4"):  # which is 2of4's
                yield Part(part, variant, layer, nn.Identity(), folder / part / variant)


@cache
def pack(linear: nn.Linear, dtype: torch.dtype, packed: bool, step: int) -> Tensor:
    """The records of packed_cpu.c, uint8 [strips / 4, records, bytes]."""
    columns = step // linear.rows
    lanes = linear.weight.data.unflatten(0, (-1, linear.rows)).unflatten(-1, (-1, columns))
    lanes = lanes.transpose(1, 2).flatten(1).unflatten(0, (-1, 4)).unflatten(-1, (-1, 32))
    lanes = lanes.transpose(1, 2).flatten(2)  # [fours, records, 4 x 32]
    if not packed:
        return lanes.to(dtype).contiguous().view(torch.uint8)
    kept = lanes != 0
    assert bool((kept.unflatten(-1, (-1, step)).sum(-1) == step // 2).all())
    bits = (kept.unflatten(-1, (-1, 8)) * (1 << torch.arange(8))).sum(-1).to(torch.uint8)
    values = lanes[kept].to(dtype).view(torch.uint8)
    return torch.cat((bits, values.view(*bits.shape[:2], -1)), -1)


class Kernel:
    """packed_cpu.c, on torch's own threads: both use one OpenMP library."""

    def __init__(self, name: str, dtype: torch.dtype, folder: Path) -> None:
        self.name, self.dtype = name, str(dtype).removeprefix("torch.")
        self.runs = "both" if name == "AVX-512" else "sparse"
        library, source = folder / f"{name}-{self.dtype}.so", Path(__file__).with_suffix(".c")
        command = f"cc -O3 {FLAGS[name]} -fopenmp -shared -fPIC -o {library} {source}"
        subprocess.run(command.split(), check=True)
        self._dtype, self._c = dtype, ctypes.CDLL(str(library))

    def prepare(self, network: Network, x: Tensor, threads: int) -> Call:
        """The matrix, or the MLP with float32 between its products."""
        if network.part != "mlp":
            return partial(self.product(network.layer, network.variant, len(x)), x)
        matrices = (getattr(network.layer, f"{role}_proj") for role in ROLES)
        gate, up, down = (self.product(m, network.variant, len(x)) for m in matrices)
        return lambda: down(nn.functional.silu(gate(x)).mul_(up(x)))

    def product(self, linear: nn.Linear, variant: str, tokens: int) -> Callable[[Tensor], Tensor]:
        """The product with a matrix, once checked against float64 on the same operands."""
        half, packed = self._dtype == torch.bfloat16, variant != DENSE
        records = pack(linear, self._dtype, packed, self._c.step(half))
        x_dtype = self._dtype if self._c.x_is_half() else torch.float32
        sizes = [ctypes.c_long(n) for n in (records[0].numel(), *linear.weight.shape[::-1])]

        def run(x: Tensor) -> Tensor:
            x, y = x.to(x_dtype), torch.empty(len(x), linear.out_features)
            pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (records, x, y))
            self._c.product(*pointers, *sizes, linear.rows, half, packed, len(x))
            return y

        x = random_weight((tokens, linear.in_features), 5, x_dtype, "cpu")
        checked(run(x), x.double() @ linear.weight.to(self._dtype).double().t(), 1e-5)
        return run


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
        kernels = [Kernel(isa, dtype, Path(folder)) for isa in FLAGS for dtype in TYPES]
        engines = [*map(TorchDense, TYPES), OnnxRuntime(), *kernels]
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
