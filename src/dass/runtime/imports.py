"""Importing without the garbage collector, which costs a small job more than importing does.

torch and transformers make half a million objects, and nearly all of them stay. Python looks
through them for garbage again and again while they become more, and once more when it ends: more
than a third of a small job's time (docs/performance.md). While a job computes, it looks as ever.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_job: list[bool] = []
"""Holds something in a job; what the collector has frozen does not tell: Python 3.12 begins so."""


def ends_with_its_work() -> None:
    """Say that this process is a job: what it imports stays, and nothing is searched at its end."""
    _job.append(True)
    gc.freeze()
    atexit.register(gc.freeze)


@contextmanager
def importing() -> Iterator[None]:
    """Look for no garbage while modules are imported inside, or models made of them.

    In a job what is there afterwards is never searched again; in other processes, whose objects
    are not ours to judge, it is from then on.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _job:
            gc.freeze()
        if enabled:
            gc.enable()
