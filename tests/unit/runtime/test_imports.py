"""No garbage is looked for while modules are imported; while a job computes, it is as ever."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from dass.runtime.imports import importing


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_afterwards(enabled: bool) -> None:
    try:
        (gc.enable if enabled else gc.disable)()
        with importing():
            assert not gc.isenabled()
            with importing():
                assert not gc.isenabled()
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        with pytest.raises(ImportError), importing():
            raise ImportError("some module")
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


NO_JOB = """
import gc, weakref
from dass.runtime.imports import importing

class Cycle:
    def __init__(self):
        self.itself = self

gc.freeze()  # Python 3.12 itself begins so
with importing():
    kept = weakref.ref(Cycle())
gc.collect()
assert kept() is None
"""


def test_outside_jobs_everything_is_still_searched(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", NO_JOB], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


JOB = """
import gc, weakref
from dass.runtime.imports import importing
from dass.runtime.job import job

class Cycle:
    def __init__(self):
        self.itself = self

with job("job.log", threads=1):
    before = gc.get_freeze_count()
    with importing():
        import email.message, email.policy, json.decoder
        kept = weakref.ref(Cycle())
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    lost = weakref.ref(Cycle())
    gc.collect()
    assert kept() is not None
    assert lost() is None
"""


def test_in_a_job_what_was_imported_is_never_searched_and_the_rest_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", JOB], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_searched_when_a_job_ends(tmp_path: Path) -> None:
    script = f"{JOB}\nlast = Cycle()\nlast.out = print\nCycle.__del__ = lambda s: s.out('found')\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}del last\n"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
