"""Who, what, when: the part of a result file that says how it came to be."""

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("dass", "torch", "transformers", "tokenizers", "datasets", "lm_eval", "snakemake")

FETCHED = "fetched.json"
"""In a folder that was fetched: the repository, its commit, its files and their hashes."""

Origin = dict[str, str]
"""Where an input came from: ``repository`` and ``commit``."""


def provenance(
    started: float | None = None, inputs: Mapping[str, Origin | None] | None = None
) -> dict[str, Any]:
    """Versions, git commit, machine, device, date, seconds and peak memory of this process.

    Args:
        started: ``time.monotonic()`` when the work began.
        inputs: what was read, and where :func:`origin` says that it came from; what is the user's
            own or made here has no origin, and is left out.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "machine": machine(),
        "device": device_name(),
        "seconds": None if started is None else round(time.monotonic() - started, 3),
        "peak_memory_bytes": peak_memory(),
        "inputs": {name: where for name, where in (inputs or {}).items() if where},
    }


def origin(path: str | Path) -> Origin | None:
    """The repository and commit of a fetched folder, or of a file in one; None for any other."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    try:
        said = json.loads((folder / FETCHED).read_text(encoding="utf-8"))
        return {"repository": str(said["repository"]), "commit": str(said["commit"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def git_commit() -> str | None:
    """The commit of the library's checkout, with ``-dirty`` if it was changed; None outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    command += ["--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def machine() -> dict[str, Any]:
    """The processor and the number of cores that this process may use."""
    return {"cpu": _cpu_model(), "cores": _usable_cores(), "system": platform.system()}


def device_name() -> str:
    """``cpu`` or the name of the GPU that this process would use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "cpu"


def peak_memory() -> dict[str, int | None]:
    """Peak resident memory of this process and peak allocated memory of its GPU, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {"host": host, "device": None}
    return {"host": host, "device": torch.cuda.max_memory_allocated()}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
