"""Dry runs, forked from a process that has imported Snakemake: importing takes half of their time.

Each runs what ``python -m snakemake`` runs, in its own folder and environment; the library is not
imported before, since every workflow takes the one beside it. Jobs are started by true calls only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path


def dry_run(arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    """Exit code, and what was printed, of ``snakemake --dry-run`` with these arguments."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.NamedTemporaryFile("r") as output:
        environment = {"DASS_SPEED_GPU": "0"} | os.environ
        asked = [[*arguments, "--dry-run"], str(folder), environment, output.name]
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), output.read()


@cache
def _server() -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, __file__], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def _serve() -> None:
    import snakemake.cli
    import snakemake.report.html_reporter
    import snakemake_executor_plugin_slurm  # noqa: F401

    assert "dass" not in sys.modules
    for line in sys.stdin:
        arguments, folder, environment, output = json.loads(line)
        if (process := os.fork()) == 0:
            with open(output, "w") as file:  # noqa: PTH123
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            searched = [path for path in environment.get("PYTHONPATH", "").split(":") if path]
            sys.path[:1] = ["", *searched]
            sys.argv[1:] = arguments
            sys.exit(snakemake.cli.main())
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
