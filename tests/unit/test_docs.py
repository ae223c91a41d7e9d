"""Numbers and examples in the documentation are those of the files that they come from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_performance_page_says_what_the_raw_results_say() -> None:
    command = [sys.executable, "benchmarks/tables.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_lock_pins_what_the_conda_environment_pins() -> None:
    locked = (ROOT / "requirements.lock").read_text()
    for pin in re.findall(r"^      - (\S+==\S+)$", (ROOT / "envs/dass.yaml").read_text(), re.M):
        assert re.search(rf"^{re.escape(pin)}\b", locked, re.MULTILINE), pin
