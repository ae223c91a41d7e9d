"""One GPU per job: which of this machine's cards a job may compute on.

Snakemake counts GPUs (``--resources gpu=4``) but does not hand them out: without this, four jobs
side by side would all compute on card 0. Each card has a lock file, and a job holds the locks of
its cards until its process ends. They are the kernel's: however a job dies, its card is free again.
"""

import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from dass.errors import ConfigError
from dass.runtime.progress import duration, log

POOL = "DASS_GPUS"
"""Environment variable: which cards there are, as in ``0,1,2,3``, in place of looking."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_TRIES = 0.5

_held: list[FileLock] = []
"""Referred to as long as the process lives: a lock that nothing refers to is given back."""


def claim(count: int) -> list[str]:
    """Take ``count`` cards that no other job has, and make them the only ones CUDA sees.

    To be called before torch is imported. Waits while all cards are taken. Where there is no card
    at all, none is claimed and the job computes on the CPU, as it does with a count of 0.

    Args:
        count: how many; 0 hides every card.

    Returns:
        The cards, as in ``CUDA_VISIBLE_DEVICES``.

    Raises:
        ConfigError: there are cards, but fewer than that.
    """
    cards = pool(os.environ)
    if count > 0 and not cards:
        return []
    if count > len(cards):
        raise ConfigError(
            f"resources.gpu: the job asks for {count} GPUs, but there are {len(cards)} "
            f"({', '.join(cards)}); ask for fewer, or name more in {VISIBLE}"
        )
    taken = _take(cards, count, _folder(os.environ)) if count else []
    os.environ[VISIBLE] = ",".join(taken)
    return taken


def pool(environment: Mapping[str, str]) -> list[str]:
    """The cards that this machine's jobs share.

    Those of ``DASS_GPUS``, else of ``CUDA_VISIBLE_DEVICES``, else all that nvidia-smi lists. A
    Slurm job that was given no card has none, whatever else the node holds.
    """
    for variable in (POOL, VISIBLE):
        if variable in environment:
            return _listed(environment[variable])
    return [] if "SLURM_JOB_ID" in environment else _found()


def _listed(names: str) -> list[str]:
    """As CUDA reads such a list: what follows an invalid entry, such as -1, does not count."""
    cards: list[str] = []
    for name in (part.strip() for part in names.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name):
            break
        cards.append(name)
    return list(dict.fromkeys(cards))


def _found() -> list[str]:
    """UUIDs by nvidia-smi, since its order and CUDA's may differ; a card's parts instead of it."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    cards: list[str] = []
    for name in re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", done.stdout):
        if name.startswith("MIG") and cards and cards[-1].startswith("GPU"):
            cards.pop()
        cards.append(name)
    return cards


def _folder(environment: Mapping[str, str]) -> Path:
    """Where the locks are: on this machine, of this user, and of this Slurm job if it is one.

    A Slurm job's cards are its own, and each job may know its card by the name 0.
    """
    job = environment.get("SLURM_JOB_ID")
    name = f"dass-gpus-{os.getuid()}" + (f"-slurm-{job}" if job else "")
    return Path(tempfile.gettempdir()) / name


def _take(cards: list[str], count: int, folder: Path) -> list[str]:
    """Lock ``count`` of the cards, all at once or none, so that no two jobs wait for each other."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    started = time.monotonic()
    waiting = False
    while True:
        taken = _try(cards, count, folder)
        if taken:
            break
        if not waiting:
            log.info("waiting for %d of the GPUs %s to be free", count, ", ".join(cards))
            waiting = True
        time.sleep(SECONDS_BETWEEN_TRIES * (0.5 + random.random()))
    if waiting:
        log.info("waited %s", duration(time.monotonic() - started))
    log.info("on GPU %s", ", ".join(taken))
    return taken


def _try(cards: list[str], count: int, folder: Path) -> list[str]:
    """The cards that could be locked; none if they are too few."""
    locks: dict[str, FileLock] = {}
    for card in cards:
        lock = FileLock(folder / f"{card.replace('/', '_')}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        locks[card] = lock
        if len(locks) == count:
            _held.extend(locks.values())
            return list(locks)
    for lock in locks.values():
        lock.release()
    return []
