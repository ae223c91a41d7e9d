"""How a job ends: in a process of its own, as the workflow runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def run(tmp_path: Path, body: str, log: str = "logs/prune/demo/tiny.log") -> tuple[int, str, str]:
    """Run ``body`` inside a job; (exit code, standard error, log)."""
    script = "from dass.errors import *\nfrom dass.runtime.job import job\nimport logging, os\n"
    script += f"with job({log!r}, threads=1):\n"
    script += "".join(f"    {line}\n" for line in body.splitlines())
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert done.stdout == ""
    return done.returncode, done.stderr, (tmp_path / log).read_text(encoding="utf-8")


@pytest.mark.parametrize("error", ["DassError", "ConfigError", "ModelError", "NumericError"])
def test_what_the_user_can_mend_is_one_line(tmp_path: Path, error: str) -> None:
    code, shown, log = run(tmp_path, f"raise {error}('config.yaml: méthode inconnue')")
    assert code == 1
    for text in (shown, log):
        assert "Traceback" not in text
        assert len(text.splitlines()) == 1
        assert text.endswith("error: config.yaml: méthode inconnue\n")


def test_anything_else_keeps_its_traceback(tmp_path: Path) -> None:
    code, shown, log = run(tmp_path, "x = 1\nraise KeyError('some bug')")
    assert code == 1
    for text in (shown, log):
        assert "Traceback (most recent call last)" in text
        assert "KeyError: 'some bug'" in text
    assert "unexpected KeyError" in log


def test_a_full_gpu_is_said_in_one_line(tmp_path: Path) -> None:
    body = "class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError('tried 3 GiB')"
    code, shown, log = run(tmp_path, body)
    assert code == 1
    assert "Traceback" not in shown + log
    assert "the GPU is out of memory" in shown and "tried 3 GiB" in shown
    assert "the GPU is out of memory" in log


@pytest.mark.parametrize(
    "error",
    [
        "OSError(28, 'No space left on device')",
        "OSError(122, 'Disk quota exceeded')",
        "RuntimeError('Error while serializing: I/O error: No space left on device (os error 28)')",
    ],
)
def test_a_full_disk_is_said_in_one_line(tmp_path: Path, error: str) -> None:
    code, shown, log = run(tmp_path, f"raise {error}")
    assert code == 1
    for text in (shown, log):
        assert "Traceback" not in text
        assert len(text.splitlines()) == 1
        assert "no space left to write to" in text


@pytest.mark.parametrize("limit", [0, 20])
def test_a_log_that_cannot_be_written_is_no_traceback(tmp_path: Path, limit: int) -> None:
    body = f"""import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
logging.getLogger("dass").info("a line that is longer than this")
raise DataError("what is wrong")"""
    code, shown, _ = run(tmp_path, body)
    assert code == 1
    assert shown.splitlines()[-1].endswith("error: what is wrong")
    assert "Traceback" not in shown and "Logging error" not in shown


def test_a_log_that_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.log").mkdir()
    script = "from dass.runtime.job import job\nwith job('a.log', threads=1): pass"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "a.log: Is a directory" in done.stderr and "Traceback" not in done.stderr


def test_an_error_without_a_message_is_called_by_its_type(tmp_path: Path) -> None:
    assert run(tmp_path, "raise ModelError()")[1].endswith("error: ModelError\n")


def test_a_message_of_several_lines_is_said_in_one(tmp_path: Path) -> None:
    """Some quote a library, whose messages may be pages long."""
    _, shown, log = run(tmp_path, "raise DataError('a file:\\n  one\\n\\n  two')")
    for text in (shown, log):
        assert len(text.splitlines()) == 1
        assert text.endswith("error: a file: one two\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("open('away/x')", "away/x: No such file or directory"),
        ("open('.')", ".: Is a directory"),
        ("raise PermissionError(13, 'Permission denied', 'results/x')", "results/x: Permission"),
        ("raise OSError(30, 'Read-only file system', 'results/x')", "results/x: Read-only"),
        ("raise OSError(5, 'Input/output error', 'weights')", "weights: Input/output error"),
        ("raise MemoryError", "the machine is out of memory"),
    ],
)
def test_what_the_machine_refuses_is_said_in_one_line(tmp_path: Path, body: str, said: str) -> None:
    code, shown, log = run(tmp_path, body)
    assert code == 1
    for text in (shown, log):
        assert "Traceback" not in text and len(text.splitlines()) == 1
        assert f"error: {said}" in text


@pytest.mark.parametrize("home", ["/away", None])
def test_who_has_no_home_gets_one_for_the_job(tmp_path: Path, home: str | None) -> None:
    """As a user does who is a number without a name."""
    body = f"""import pwd, pathlib, getpass
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
os.environ |= {{}} if {home!r} is None else {{"HOME": {home!r}}}
with job("a/b.log", 1):
    assert getpass.getuser()
    (pathlib.Path.home() / "cache").touch()
    logging.getLogger("dass").info("%s", pathlib.Path.home())"""
    code, shown, _ = run(tmp_path, body)
    assert code == 0, shown
    assert not Path(shown.split()[-1]).exists()  # it ends with the job


def test_another_error_of_the_system_is_no_full_disk(tmp_path: Path) -> None:
    _, shown, _ = run(tmp_path, "raise OSError(5, 'Input/output error')")
    assert "no space" not in shown and "Traceback" in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_job_that_is_ended_from_outside_leaves_nothing_half_written(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = """import time
from dass.runtime.files import writing
from dass.runtime.job import job
with job("a.log", 1), writing("result.json") as part:
    part.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Also where these tests themselves run under nohup or in the background of a script.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        _, shown = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "Traceback" not in shown
    for text in (shown, (tmp_path / "a.log").read_text()):
        assert text.count("\n") == 1 and f"ended from outside ({number.name})" in text
    assert [file.name for file in tmp_path.iterdir()] == ["a.log"]


@pytest.mark.parametrize(
    "stays",
    [
        "threading.Thread(target=threading.Event().wait).start()\n    os.kill(os.getpid(), 15)",
        # What is raised in the end of an object is ignored there.
        "End(); threading.Event().wait()",
    ],
    ids=["a thread waits", "the exit is swallowed"],
)
def test_a_job_that_cannot_end_is_ended(tmp_path: Path, stays: str) -> None:
    script = f"""import os, threading
from dass.runtime import job
job.SECONDS_TO_END = 1
class End:
    def __del__(self):
        os.kill(os.getpid(), 15)
with job.job("a.log", 1):
    {stays}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGALRM, done.stderr
    assert "ended from outside (SIGTERM)" in done.stderr


def test_a_job_has_its_card_before_torch_is_imported(tmp_path: Path) -> None:
    script = """import os, sys
os.environ["DASS_GPUS"] = "7"
from dass.runtime.job import job
with job("a.log", 1, gpus=1):
    assert "torch" not in sys.modules
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "on GPU 7" in (tmp_path / "a.log").read_text()


def test_a_job_that_ends_well_logs_its_progress(tmp_path: Path) -> None:
    body = "from dass.runtime.progress import Progress\nProgress('pruning', 1, 'blocks').step()"
    code, shown, log = run(tmp_path, body)
    assert code == 0
    for text in (shown, log):
        assert text.count("\n") == 1
        assert "pruning: 1/1 blocks (100%), 0 s\n" in text
    assert "prune" in shown and "tiny" in shown  # which of several jobs is speaking


def test_a_log_is_written_anew_and_each_line_once(tmp_path: Path) -> None:
    log = "anywhere/else.log"
    run(tmp_path, "raise ModelError('first')", log)
    _, shown, text = run(tmp_path, "with job('anywhere/else.log', 1): raise ModelError('two')", log)
    assert "first" not in text
    assert text.count("two") == shown.count("two") == 1


@pytest.mark.parametrize("closed", [False, True])
def test_a_job_has_no_standard_input(tmp_path: Path, closed: bool) -> None:
    """Nor have the processes that it starts: nothing that is asked there is ever answered."""
    script = """import os, subprocess, sys
from dass.runtime.job import job
with job("a.log", 1):
    assert os.read(0, 1) == b""
    assert subprocess.run(["cat"], capture_output=True, check=True).stdout == b""
    assert sys.stdin is None or sys.stdin.read() == ""
    try:
        input("Do you wish to run the custom code? [y/N] ")
    except (EOFError, RuntimeError):
        sys.exit(7)
"""
    command = [sys.executable, "-c", script]
    if closed:
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    done = subprocess.run(command, cwd=tmp_path, input="y\n" * 99, text=True, capture_output=True)
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize(("offline", "left"), [(True, "None"), (False, "hf_secret")])
def test_only_a_job_with_network_keeps_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool, left: str
) -> None:
    body = f"""os.environ["HF_TOKEN"] = "hf_secret"
with job("logs/fetch/a.log", 1, offline={offline}):
    print(os.environ.get("HF_TOKEN"), file=__import__("sys").stderr)"""
    assert run(tmp_path, body)[1] == f"{left}\n"


def test_the_job_is_offline_and_has_its_threads_before_torch_is_imported(tmp_path: Path) -> None:
    body = """names = ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
logging.getLogger("dass").info("%s", [os.environ.get(name) for name in names])
import sys
assert "torch" not in sys.modules
import torch
logging.getLogger("dass").info("%d threads", torch.get_num_threads())"""
    code, shown, _ = run(tmp_path, body)
    assert code == 0, shown
    assert "['1', '1', '1']" in shown
    assert "1 threads" in shown
