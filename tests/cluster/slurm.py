"""A real Slurm of one node on loopback: munged, slurmctld and slurmd, started by hand.

Job steps read /etc/slurm and nothing else, so that is where its configuration goes. It carries a
mark: a folder without it belongs to a real cluster and is left alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ETC = Path("/etc/slurm")
T = TypeVar("T")
MARK = "# Written by tests/cluster/slurm.py"
DAEMONS = ("slurmd", "slurmctld", "munged")

CONFIG = """\
{mark}
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=600
JobRequeue=0
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_interval=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 Gres=gpu:a100:4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=7-0 State=UP
PartitionName=cards Nodes={host} MaxTime=7-0 State=UP
"""
CARDS = ("null", "zero", "full", "random")
"""Cards that are none: Slurm wants files, and any devices do."""


def why_not() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    if os.environ.get("DASS_TEST_CLUSTER") != "1":
        return "writes /etc/slurm and starts Slurm's daemons; set DASS_TEST_CLUSTER=1 to allow it"
    missing = [name for name in (*DAEMONS, "sbatch") if _program(name) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}); apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "only root starts Slurm's daemons"
    config = ETC / "slurm.conf"
    if config.exists() and MARK not in config.read_text():
        return f"{config} is that of another cluster"
    return None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass(frozen=True)
class Submitted:
    """A job as Slurm remembers it."""

    id: str
    comment: str
    state: str
    memory: str
    """As asked for, such as ``1500M``."""
    limit: str
    """Of time, as in ``10:00``."""
    partition: str


class Slurm:
    """The running cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def jobs(self, comment: str = "") -> list[Submitted]:
        """All jobs, also finished ones, whose comment begins so, oldest first."""
        fields = "%i|%k|%T|%m|%l|%P"
        listed = _run("squeue", "--states=all", "--noheader", "--sort=i", f"--format={fields}")
        found = [Submitted(*line.split("|")) for line in listed.splitlines()]
        return [job for job in found if job.comment.startswith(comment)]

    def asked_for(self, job: Submitted) -> str:
        """All that Slurm knows of a job, as ``Key=value`` words."""
        return _run("scontrol", "show", "job", job.id)

    def wait_for(self, comment: str, *states: str) -> Submitted:
        """The first job whose comment begins so that is in one of these states, once there is."""
        return wait(
            lambda: next((job for job in self.jobs(comment) if job.state in states), None),
            f"no {comment} is {' or '.join(states)}",
        )

    def wait_until_over(self, besides: Submitted) -> None:
        """Until all jobs but one have come to their end."""
        wait(
            lambda: (
                not [
                    job
                    for job in self.jobs()
                    if job.id != besides.id and job.state in ("PENDING", "RUNNING", "COMPLETING")
                ]
            ),
            f"not all jobs besides {besides.id} come to their end",
        )

    def cancel(self, job: Submitted) -> None:
        """Cancel a job."""
        _run("scancel", job.id)

    def end_time(self, job: Submitted) -> None:
        """A running job's time is up: within half a minute Slurm notices."""
        _run("scontrol", "update", f"jobid={job.id}", "EndTime=now")

    def lose_node(self) -> None:
        """The node goes away, and what ran there with it; it is back a moment later."""
        node = f"nodename={socket.gethostname()}"
        _run("scontrol", "update", node, "state=down", "reason=test")
        # Refused where the node has registered again by itself, and so is back already.
        subprocess.run(["scontrol", "update", node, "state=resume"], capture_output=True)
        self.wait_until_ready()

    def end_controller(self) -> None:
        """Stop slurmctld; jobs run on."""
        _stop(self.folder / "slurmctld.pid", "slurmctld")

    def start_controller(self) -> None:
        _start("slurmctld")
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        def idle() -> bool:
            done = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
            return bool({"idle", "mixed", "allocated"} & set(done.stdout.split()))

        wait(idle, "the node does not get ready")


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Start a Slurm whose files lie in ``folder``; stop it, and put /etc/slurm back."""
    _clear_away_an_earlier_one()
    before = {path: path.read_bytes() for path in _configs() if path.exists()}
    cluster = Slurm(folder)
    try:
        _configure(folder)
        _start_munge(folder)
        _start("slurmctld")
        _start("slurmd")
        cluster.wait_until_ready()
        yield cluster
    finally:
        with suppress(subprocess.SubprocessError, OSError):
            subprocess.run(["scancel", "--user=root"], capture_output=True, timeout=20)
        for name in DAEMONS:
            _stop(folder / f"{name}.pid", name)
        _end_jobs()
        for path in _configs():
            path.unlink(missing_ok=True)
            if path in before and MARK not in before[path].decode():
                path.write_bytes(before[path])


def _configs() -> list[Path]:
    return [ETC / "slurm.conf", ETC / "gres.conf"]


def _configure(folder: Path) -> None:
    for part in ("state", "spool"):
        (folder / part).mkdir(parents=True)
    ETC.mkdir(exist_ok=True)
    words = {"mark": MARK, "name": _name(), "host": socket.gethostname(), "folder": folder,
             "ports": _free_ports()}  # fmt: skip
    config, cards = _configs()
    config.write_text(CONFIG.format(**words))
    gres = f"NodeName={socket.gethostname()} Name=gpu Type=a100 File=/dev/"
    cards.write_text("\n".join([MARK, *(gres + card for card in CARDS), ""]))


def _name() -> str:
    """Of the cluster, which its jobs have in their environment."""
    return f"test{os.getpid()}"


def _end_jobs() -> None:
    """What still runs of the cluster's jobs: those of a node that went away are left to it."""
    mark = f"SLURM_CLUSTER_NAME={_name()}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _start_munge(folder: Path) -> None:
    """One of our own, beside the system's, if that has one."""
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid",
             "log-file": "munged.log", "seed-file": "munged.seed"}  # fmt: skip
    _start("munged", "--force", *(f"--{name}={folder / file}" for name, file in files.items()))


def _start(name: str, *arguments: str) -> None:
    """A daemon puts itself into the background; what it wrote must not hold up a pipe of ours."""
    program = _program(name)
    assert program is not None
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    subprocess.run([program, *arguments], check=True, timeout=30, **quiet)


def _stop(pid_file: Path, name: str) -> None:
    """End a daemon of ours, and wait for it."""
    try:
        pid = int(pid_file.read_text())
        if Path(f"/proc/{pid}/comm").read_text().strip() != name:
            return
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    process = Path(f"/proc/{pid}")
    for _ in range(100):
        if not process.exists():
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def _clear_away_an_earlier_one() -> None:
    """What a killed test run has left running."""
    config = ETC / "slurm.conf"
    if config.exists() and MARK in (text := config.read_text()):
        line = next(line for line in text.splitlines() if line.startswith("SlurmdPidFile="))
        folder = Path(line.partition("=")[2]).parent
        for name in DAEMONS:
            _stop(folder / f"{name}.pid", name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def wait(probe: Callable[[], T | None], otherwise: str, seconds: float = 180) -> T:
    """Ask until there is an answer, which is returned; fail with these words if there is none."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := probe():
            return found
        time.sleep(0.3)
    raise AssertionError(otherwise)
