"""How much memory a job may use."""

from pathlib import Path

import pytest

from dass.runtime import memory
from dass.runtime.memory import ASKED, free_host_memory, memory_limit

GB = 10**9


@pytest.fixture(autouse=True)
def _nothing_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No limit but the machine's 64 GB, of which 40 GB are free; 1 GB is ours."""
    monkeypatch.delenv(ASKED, raising=False)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "none")
    machine = {"MemTotal": [64 * GB], "MemAvailable": [40 * GB]}
    monkeypatch.setattr(memory, "_meminfo", machine.__getitem__)
    monkeypatch.setattr(memory, "_resident", lambda: GB)


def test_alone_a_job_may_use_what_the_machine_has_free() -> None:
    assert (memory_limit(), free_host_memory()) == (64 * GB, 40 * GB)


def test_a_job_stays_within_what_it_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ASKED, "6000")
    assert (memory_limit(), free_host_memory()) == (6 * GB, 5 * GB)
    monkeypatch.setattr(memory, "_resident", lambda: 7 * GB)
    assert free_host_memory() == 0


@pytest.mark.parametrize("asked", ["", "0", "a lot"])
def test_no_request_is_no_limit(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ASKED, asked)
    assert memory_limit() == 64 * GB


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/slurm/job_7/step_0", "slurm/job_7/memory.max"),
        ("0::/slurm/job_7/step_0", "slurm/job_7/step_0/memory.max"),
        ("4:cpu,memory:/job_7", "memory/job_7/memory.limit_in_bytes"),
    ],
)
def test_the_smallest_limit_of_the_cgroups_above_counts(
    line: str, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = {file: str(8 * GB), "slurm/memory.max": str(16 * GB), "memory.max": "max"}
    for name, limit in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(limit + "\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    read_text = Path.read_text

    def read(path: Path) -> str:
        return line + "\n" if path == Path("/proc/self/cgroup") else read_text(path)

    monkeypatch.setattr(Path, "read_text", read)
    assert memory_limit() == 8 * GB


def test_the_system_tells() -> None:
    """The real files, wherever this runs."""
    assert memory._number(Path("/proc/self/nothing")) is None
