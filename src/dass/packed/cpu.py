"""Products of packed weights on a CPU, by ``cpu.c``.

The C compiler of the machine compiles it once a process, at first use. Without one, or on a
processor without AVX2, a reason is logged, and weights are unpacked for each product.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from dass.errors import DeviceError
from dass.packed.strips import Strips
from dass.runtime.progress import log

FLAGS = {
    "AVX-512": "avx512f avx512bw avx512vl avx512_bf16 avx512_vbmi2 avx2 fma".split(),
    "AVX2": ["avx2", "fma"],
}
"""Instruction set, best first -> the flags of a processor that has it, as Linux names them."""

COMPILER_SECONDS = 120

_lock = threading.Lock()


class Kernel:
    """``cpu.c`` for one of :data:`FLAGS`; its threads are torch's where both use one OpenMP.

    Raises:
        DeviceError: it cannot be compiled or loaded; the message is one line.
    """

    def __init__(self, instructions: str) -> None:
        self._c = _compiled(FLAGS[instructions])
        self.lanes: int = self._c.lanes()
        self._dtype = torch.bfloat16 if instructions == "AVX-512" else torch.float32

    def product(self, weight: Strips, x: Tensor) -> Tensor:
        """x Wᵀ: bfloat16 [tokens, in] -> bfloat16 [tokens, out], rounded once."""
        rows, columns = weight.padded
        if x.shape[1] != columns:
            x = torch.nn.functional.pad(x, (0, columns - x.shape[1]))
        x = x.to(self._dtype).contiguous()
        y = torch.empty((len(x), rows), dtype=torch.float32, device="cpu")
        self._c.product(
            *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (weight.data, x, y)),
            ctypes.c_long(columns), ctypes.c_long(rows), weight.strip_rows, len(x),
            torch.get_num_threads(),
        )  # fmt: skip
        return y[:, : weight.layout.rows].to(torch.bfloat16)


def kernel() -> Kernel | None:
    """The kernel for this processor; None, once the reason is logged, if there is none."""
    found = _found()
    return found if isinstance(found, Kernel) else None


def check_kernel() -> None:
    """Raise DeviceError, which says why, if there is none."""
    if isinstance(found := _found(), DeviceError):
        raise found


def _found() -> Kernel | DeviceError:
    with _lock:
        return _kernel()


@functools.cache
def _kernel() -> Kernel | DeviceError:
    try:
        return Kernel(_instructions())
    except DeviceError as error:
        log.info("packed weights are unpacked for each product on this CPU: %s", error)
        return error


def _instructions() -> str:
    """The first of :data:`FLAGS` that the processor has."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise DeviceError(f"{sys.platform} on {platform.machine()}; the kernel is for Linux on x86")
    found = _cpu_flags()
    for name, flags in FLAGS.items():
        if found.issuperset(flags):
            return name
    raise DeviceError("the processor has no AVX2")


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError as error:
        raise DeviceError(f"/proc/cpuinfo cannot be read ({error.strerror})") from None
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _compiled(flags: list[str]) -> ctypes.CDLL:
    compiler = os.environ.get("CC", "").split() or ["cc"]
    if shutil.which(compiler[0]) is None:
        raise DeviceError(f"no C compiler {compiler[0]!r}; install one, or set CC")
    source = files(__package__).joinpath("cpu.c").read_bytes()
    wanted = [f"-m{flag.replace('_', '')}" for flag in flags]
    try:
        with tempfile.TemporaryDirectory(prefix="dass-") as folder:
            library = str(Path(folder) / "cpu.so")  # once it is loaded the file may go
            command = [*compiler, "-O3", *wanted, "-fopenmp", "-shared", "-fPIC", "-o", library]
            subprocess.run(
                [*command, "-x", "c", "-"], input=source, check=True, capture_output=True,
                timeout=COMPILER_SECONDS,
            )  # fmt: skip
            return ctypes.CDLL(library)
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.decode(errors="replace").split())[:300]
        raise DeviceError(f"{compiler[0]} does not compile the kernel: {said}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(" ".join(str(error).split())[:300]) from None
