"""profiles/generic with a scheduler made up for the test, and its status script for PBS."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dass.config.sizes import IN_EVALUATION, job_memory

from .conftest import ROOT, Workflow

SUBMIT = """\
#!/bin/sh
# Starts the script that is the last word, in the background; the first job of all fails.
id=$(ls queue/*.job 2>/dev/null | wc -l)
echo "$@" > queue/$id.job
for script; do :; done
( if [ $id = 0 ]; then false; else sh "$script" > queue/$id.log 2>&1; fi
  echo $? > queue/$id.code ) > /dev/null 2>&1 &
echo $id
"""
STATUS = """\
#!/bin/sh
if [ ! -e queue/$1.code ]; then echo running
elif [ "$(cat queue/$1.code)" = 0 ]; then echo success; else echo failed; fi
"""


def executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return f"./{path.name}"


def test_jobs_go_through_the_schedulers_commands(study: Workflow) -> None:
    (study.folder / "queue").mkdir()
    result = "results/small/runs/standin-llama/dense/perplexity.json"
    (study.folder / result).unlink()
    words = "{rule} {threads} {resources.mem_mb} {resources.runtime} {resources.gpu}"
    submit = f"{executable(study.folder / 'submit', SUBMIT)} {words} {{resources.queue}}"
    finished = study.snakemake(
        result,
        *("--workflow-profile", "profiles/generic", "--seconds-between-status-checks", "1"),
        *("--cluster-generic-submit-cmd", submit),
        *("--cluster-generic-status-cmd", executable(study.folder / "status", STATUS)),
    )
    assert finished.code == 0, finished.output
    assert (study.folder / result).exists()
    first, second = ((study.folder / f"queue/{i}.job").read_text().split()[:-1] for i in (0, 1))
    memory = job_memory(0.001, "float32", IN_EVALUATION)
    assert first == ["perplexity", "1", str(memory), "10", "1", "gpu"]
    assert second == ["perplexity", "1", str(2 * memory), "20", "1", "gpu"]


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ("    job_state = Q", 0, "running"),
        ("    job_state = R", 0, "running"),
        ("    job_state = F\n    Exit_status = 0", 0, "success"),
        ("    job_state = F\n    Exit_status = 271", 0, "failed"),
        ("    job_state = C", 0, "failed"),
        ("qstat: Unknown Job Id 7.server", 153, "failed"),
    ],
)
def test_the_status_script_reads_qstats_answers(
    tmp_path: Path, answer: str, code: int, said: str
) -> None:
    executable(tmp_path / "qstat", f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\nexit {code}\n")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "profiles/generic/status-pbs.sh", "7.server"],
        env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    assert done.stdout.split() == [said]
