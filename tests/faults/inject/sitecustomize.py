"""One fault in a job, at the point that DASS_FAULT names: Python loads this file in every process.

Python announces each file that it opens and each rename (an audit event) before it happens; what
raises there, raises in the library. DASS_FAULT is JSON: ``event`` (write, rename, read), ``file``
(a regular expression of the file's final name), ``do``, and ``fired``, a file to note it in.
"""

import ctypes
import errno
import faulthandler
import json
import os
import re
import resource
import signal
import socket
import sys
import time
from pathlib import Path

FAULT = json.loads(os.environ.get("DASS_FAULT", "{}"))
PART = re.compile(rf"\.([^/]*)\.{re.escape(socket.gethostname())}-\d+\.part")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _event(name, args):
    """What happens to which file; a temporary name is read as the name that it will get."""
    if name == "open" and isinstance(args[0], str | os.PathLike):
        return "write" if args[2] & WRITES else "read", PART.sub(r"\1", os.fspath(args[0]))
    if name == "os.rename":
        return "rename", PART.sub(r"\1", os.fspath(args[1]))
    return "", ""


def _hook(name, args):
    if not FAULT or name not in ("open", "os.rename") or not _in_job():
        return
    event, file = _event(name, args)
    if event == FAULT["event"] and re.search(FAULT["file"], file):
        fault = dict(FAULT)
        FAULT.clear()
        with Path(fault["fired"]).open("a") as fired:
            fired.write(f"{event} {file}\n")
        _happen(fault["do"], file)


def _in_job():
    return sys.argv and sys.argv[0].endswith("stage.py")


def _happen(what, file):
    kind, _, detail = what.partition(" ")
    main = int(os.environ["DASS_MAIN"])
    if kind == "job":
        os.kill(os.getpid(), getattr(signal, detail))
    elif kind == "main":
        os.kill(main, getattr(signal, detail))
    elif kind == "all":
        os.kill(os.getppid(), getattr(signal, detail))
        os.kill(main, getattr(signal, detail))
        os.kill(os.getpid(), getattr(signal, detail))
    elif kind == "pause":
        time.sleep(int(detail))
    elif kind == "full":  # the kernel refuses what goes beyond, in whatever language it is written
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(detail), resource.RLIM_INFINITY))
    elif kind == "cut":  # the same, and the process dies of it, in the middle of the file
        ctypes.CDLL(None).signal(signal.SIGXFSZ, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(detail), resource.RLIM_INFINITY))
    elif kind == "error":
        number = getattr(errno, detail)
        raise OSError(number, os.strerror(number), file)


def _jump(seconds, fired):
    """Let the clock jump once this process, Snakemake or a job, has asked it."""
    true, asked = time.time, []

    def jumping():
        asked.append(1)
        if len(asked) == 2:
            Path(fired).touch()
        return true() + (seconds if len(asked) > 1 else 0)

    time.time = jumping


sys.addaudithook(_hook)
faulthandler.register(signal.SIGUSR1)  # where each thread is, when a call does not end
if "DASS_CLOCK" in os.environ:
    _jump(float(os.environ["DASS_CLOCK"]), os.environ["DASS_FIRED"])
