"""Who, what, when: the part of a result file that says how it came to be."""

import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from dass.runtime.files import sha256

PACKAGES = ("dass", "torch", "transformers", "tokenizers", "datasets", "lm_eval", "snakemake")

FETCHED = "fetched.json"
"""In a folder that was fetched: the repository, its commit, its files and their hashes."""

CONFIG = "DASS_CONFIG_SHA256"
"""Environment variable: the hash of the study's config, for the record. A job's parameter would
make every result stale with each edit of the config."""

PIECE = 1 << 20
PIECES = 64
"""A file of weights is hashed in pieces of so many bytes, at most so many, evenly spread."""
GLANCE = 64 << 10
"""The same of a file that is only looked at to see whether it is another one."""

Origin = dict[str, str]
"""Where an input came from: ``repository`` and ``commit``."""


def provenance(
    started: float | None = None, inputs: Mapping[str, Origin | None] | None = None
) -> dict[str, Any]:
    """What ran where: commit, config, versions, machine, settings, seconds and peak memory.

    Args:
        started: ``time.monotonic()`` when the work began.
        inputs: what was read, and where :func:`origin` says that it came from; what is the user's
            own or made here has no origin, and is left out.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "config": os.environ.get(CONFIG),
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "machine": machine(),
        "device": device_name(),
        "torch": torch_settings(),
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
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def source(path: str | Path) -> dict[str, str]:
    """What a file of text or tasks is: its name and the hash of its content."""
    return {"file": Path(path).name, "sha256": sha256(path)}


def model_source(folder: str | Path, weights: Iterable[Path]) -> dict[str, str]:
    """What a model is: hashes of its config.json and of its weights, wherever they came from.

    All of a small file of weights is hashed, of a large one its header and 64 MiB: 138 GB a job
    would take minutes. Training, merging or converting a model changes every one of those pieces; a
    single bit elsewhere is for who compares whole files.

    Args:
        folder: of the model.
        weights: its safetensors files.
    """
    digest = hashlib.sha256()
    for path in sorted(weights):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            for piece in _pieces(file, path.stat().st_size):
                digest.update(piece)
    return {"config": sha256(Path(folder) / "config.json"), "weights": digest.hexdigest()}


def fingerprint(files: Iterable[str | Path]) -> str:
    """A hash of names, sizes and content of files: all of small ones, 4 MiB of others.

    For a look before each job: times tell nothing of a file that was moved, linked or unpacked to
    where another one lay.
    """
    digest = hashlib.sha256()
    for path in sorted(map(Path, files)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for piece in _spread(file, size, GLANCE):
                digest.update(piece)
    return digest.hexdigest()


def _pieces(file: IO[bytes], size: int) -> Iterable[bytes]:
    """All of a small safetensors file; of a large one its header, and pieces up to its end."""
    if size > PIECE * PIECES:
        start = file.read(8)
        yield start + file.read(struct.unpack("<Q", start)[0])
    yield from _spread(file, size, PIECE)


def _spread(file: IO[bytes], size: int, piece: int) -> Iterable[bytes]:
    """All of a file of up to 64 pieces; of a larger one so many, evenly spread up to its end."""
    if size <= piece * PIECES:
        yield file.read()
        return
    for number in range(PIECES):
        file.seek((size - piece) * number // (PIECES - 1))
        yield file.read(piece)


def git_commit() -> str | None:
    """The commit of the library's own checkout, with ``-dirty`` if it was changed.

    Files that git does not know count if they are the library's: Python imports them. None where
    the library lies in no checkout of its own: a repository around it says nothing of it.
    """
    room = Path(__file__).resolve().parent
    root = room.parents[2]
    if _git(room, "rev-parse", "--show-toplevel") != str(root):
        return None
    if not _git(room, "ls-files", Path(__file__).name):
        return None
    commit = _git(room, "rev-parse", "--verify", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    added = _git(root, "status", "--porcelain", "--untracked-files=all", "--", str(room.parent))
    if commit is None or changed is None or added is None:
        return None
    return f"{commit}-dirty" if changed or added else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says in a folder, whatever repository the environment names; None if it fails."""
    environment = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}
    ceiling = {k: v for k, v in os.environ.items() if k == "GIT_CEILING_DIRECTORIES"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], env=environment | ceiling, timeout=10,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """The processor and the number of cores that this process may use."""
    return {"cpu": _cpu_model(), "cores": _usable_cores(), "system": platform.system()}


def device_name() -> str:
    """``cpu`` or the name of the GPU that this process would use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "cpu"


def torch_settings() -> dict[str, Any] | None:
    """What decides which of its kernels torch takes; None where it is not used."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return {
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


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
