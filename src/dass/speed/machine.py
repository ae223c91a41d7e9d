"""The machine that a measurement is of: processor, caches, load, GPU, driver, clocks."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dass.runtime.provenance import machine as processor
from dass.runtime.provenance import versions

ISA = (
    "avx2 fma avx512f avx512bw avx512_vnni avx512_bf16 avx512_fp16 avx_vnni "
    "amx_tile amx_bf16 amx_int8 asimd sve"
).split()
"""Extensions that engines choose their kernels by, as Linux calls them."""

PACKAGES = ("torch", "transformers", "onnxruntime", "onnx", "openvino", "numpy")

_GPU_QUERY = (
    "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu,"
    "compute_mode,mig.mode.current"
)


def describe() -> dict[str, Any]:
    """The machine as found, now; what cannot be found out is None."""
    return processor() | {
        "isa": isa(),
        "cache_bytes": cache_bytes(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "versions": versions(PACKAGES),
        "gpu": gpu(),
    }


def isa() -> list[str]:
    """The processor's extensions that matter here."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return [name for name in ISA if name in flags.split()]


def cache_bytes() -> int:
    """The size of the last-level cache; 32 MiB where the system does not tell."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * unit)
    return max(sizes, default=32 << 20)


def gpu() -> dict[str, Any] | None:
    """The GPU that this process uses; None without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    sparse = torch.backends.cusparselt
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cusparselt": sparse.version() if sparse.is_available() else None,
        "nvidia_smi": _nvidia_smi(f"GPU-{properties.uuid}"),
    }


def _nvidia_smi(card: str) -> dict[str, str] | None:
    """Driver and clocks of a card as found, by nvidia-smi's own names.

    Args:
        card: its UUID: numbers differ where a job does not see all cards.
    """
    command = ["nvidia-smi", f"--query-gpu={_GPU_QUERY}", "--format=csv,noheader", f"--id={card}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = done.stdout.strip().splitlines()[0].split(", ")
    return dict(zip(_GPU_QUERY.split(","), values, strict=False))
