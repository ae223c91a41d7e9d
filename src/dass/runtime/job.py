"""How a stage runs as a job: where it logs, how many threads it has, how it fails."""

import atexit
import errno
import getpass
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dass.errors import DassError
from dass.runtime.gpus import claim
from dass.runtime.imports import ends_with_its_work
from dass.runtime.memory import ASKED

log = logging.getLogger("dass")

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "USE_HUB_KERNELS": "0",
    "MPLBACKEND": "agg",
}  # fmt: skip
"""What libraries are told: no telemetry, no code from a hub, no window for a figure."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Secrets that a job without network has no use for."""


NUMERIC = (
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "NVIDIA_TF32_OVERRIDE",
    "TRANSFORMERS_SDPA_FORCE_GQA",
)
"""Settings of a user's shell that would change results without a word."""

SECONDS_TO_END = 60
"""How long a job that is ended from outside may take for it; the kernel ends it then."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Where libraries look for how many threads they have, the later ones before the first."""


@contextmanager
def job(
    log_file: str | Path,
    threads: int,
    offline: bool = True,
    gpus: int | None = None,
    memory: int | None = None,
) -> Iterator[None]:
    """Run what is inside as one job; import torch only inside.

    Progress and errors go to ``log_file`` and to standard error. An error that the user can mend
    ends the process with its one line; any other keeps its traceback, in both places. A job that
    a scheduler ends has the time to clear away what is half-written. Whatever asks a question finds
    nobody to answer it: a job has no standard input.

    Args:
        log_file: the job's log.
        threads: how many threads the job may compute with.
        offline: whether hub libraries must not try the network.
        gpus: how many cards the job gets for itself (:func:`dass.runtime.gpus.claim`); 0: none;
            None: whatever is visible.
        memory: how many MB of the host's memory the job has (:mod:`dass.runtime.memory`); None:
            what the machine has.
    """
    ends_with_its_work()
    _close_standard_input()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks for
            signal.signal(number, _end_from_outside)
    os.environ |= dict.fromkeys(THREADS, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}
    for name in NUMERIC:
        os.environ.pop(name, None)
    os.environ |= QUIET | user() | _home() | {ASKED: str(memory or "")}
    if offline:
        os.environ |= OFFLINE
        for name in TOKENS:
            os.environ.pop(name, None)
    try:
        _start_logging(Path(log_file))
        if gpus is not None:
            claim(gpus)
        yield
    except DassError as error:
        log.error("error: %s", one_line(error))
        sys.exit(1)
    except Exception as error:
        if (line := _explained(error)) is None:
            log.exception("error: unexpected %s", type(error).__name__)
            raise
        log.error("error: %s", line)
        sys.exit(1)


def _close_standard_input() -> None:
    """Let file 0 be empty, for this process and those that it starts."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing == 0:  # it was closed
        os.set_inheritable(0, True)
    else:
        os.dup2(nothing, 0)
        os.close(nothing)


def one_line(error: BaseException) -> str:
    """An error's message in one line; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _explained(error: Exception) -> str | None:
    """What an error of the machine means for the user; None where it is a fault of ours."""
    said = one_line(error)
    if _is_disk_full(error):
        return f"no space left to write to; free some, or raise the quota: {said}"
    if type(error).__name__ == "OutOfMemoryError":
        return f"the GPU is out of memory; free it, or take one with more: {said}"
    if isinstance(error, MemoryError):
        return "the machine is out of memory; free some, or raise the job's mem_mb"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; check that it is there, readable and writable"
    return None


def _end_from_outside(number: int, _frame: object) -> None:
    """Leave as an error would, so that half-written files are removed, and say why.

    A handler runs between any two instructions: what it raises may be swallowed there, or leave a
    thread behind that nobody tells to end and that Python waits for.
    """
    signal.alarm(SECONDS_TO_END)
    name = signal.Signals(number).name
    log.error("error: ended from outside (%s): cancelled, out of time, or the node goes down", name)
    sys.exit(128 + number)


def user() -> dict[str, str]:
    """``USER`` for who is a number without a name, as in a container: Snakemake asks for it."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        return {"USER": f"uid-{os.getuid()}"}
    return {}


def _home() -> dict[str, str]:
    """``HOME`` for the caches of libraries where the user has none that can be written to.

    Nobody else can have put anything into the one that is made here: caches hold code.
    """
    home = os.path.expanduser("~")  # noqa: PTH111 (Path.home() fails instead)
    if home != "~" and os.access(home, os.W_OK):
        return {}
    folder = tempfile.mkdtemp(prefix="dass-home-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"HOME": folder}


def _is_disk_full(error: Exception) -> bool:
    """Whether writing failed because the disk is full; safetensors says so in words only."""
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    number = error.errno if isinstance(error, OSError) else None
    said = re.search(r"\(os error (\d+)\)", str(error))
    return number in full or (said is not None and int(said[1]) in full)


def device() -> str:
    """``cuda`` where there is a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _label(log_file: Path) -> str:
    """What tells jobs apart that run side by side: ``logs/<rule>/<study>/x.log`` is ``rule x``."""
    parts = log_file.with_suffix("").parts
    if "logs" not in parts:
        return log_file.stem
    rule, *rest = parts[parts.index("logs") + 1 :]
    return f"{rule} {'/'.join(rest[1:] or rest)}"


def _start_logging(log_file: Path) -> None:
    logging.raiseExceptions = False  # a full disk is said once, not in a traceback for each line
    log.setLevel(logging.INFO)
    log.propagate = False
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(logging.Formatter(f"  {_label(log_file)} | %(message)s"))
    log.handlers = [shown]
    log_file.parent.mkdir(parents=True, exist_ok=True)
    kept = logging.FileHandler(log_file, mode="w", encoding="utf-8")
    kept.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(kept)
