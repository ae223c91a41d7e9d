"""How much of the host's memory a job may use: of its request, its cgroup and the machine."""

import os
from collections.abc import Iterator
from pathlib import Path

ASKED = "DASS_MEMORY_MB"
"""Environment variable: the `mem_mb` that the job was given."""

CGROUPS = Path("/sys/fs/cgroup")
UNKNOWN = 8 << 30
"""Taken for the machine's memory where the system does not tell."""


def memory_limit() -> int:
    """Bytes that this process may use in all, the same whatever else runs on the machine."""
    limits = [*_asked(), *_cgroup_limits(), *_meminfo("MemTotal")]
    return min(limits, default=UNKNOWN)


def free_host_memory() -> int:
    """Bytes that this process may still take: of its limit, and of what the machine has free."""
    left = max(memory_limit() - _resident(), 0)
    return min([left, *_meminfo("MemAvailable")])


def _asked() -> list[int]:
    asked = os.environ.get(ASKED, "")
    return [int(asked) * 10**6] if asked.isdecimal() and int(asked) else []


def _cgroup_limits() -> Iterator[int]:
    """Of the group that this process is in, and of those above it; version 2, then version 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = CGROUPS, "memory.max"
        if controllers:
            root, name = CGROUPS / "memory", "memory.limit_in_bytes"
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(root) and (limit := _number(group / name)) is not None:
                yield limit


def _number(file: Path) -> int | None:
    """The number in a file; None for `max`, and where there is no such file."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _meminfo(field: str) -> list[int]:
    """A field of /proc/meminfo in bytes, if there is one."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return []
    found = (line.split() for line in lines if line.startswith(f"{field}:"))
    return [int(words[1]) << 10 for words in found]


def _resident() -> int:
    """Bytes of memory that this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
