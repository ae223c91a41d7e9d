"""Write the pins of envs/dass.yaml from requirements.lock: the library, the engine, what they need.

python envs/pins.py            # writes
python envs/pins.py --check    # fails if the file is not what the lock says
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
FILE = ROOT / "envs" / "dass.yaml"
PYTHON = "3.11"
MACHINE = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "os_name": "posix",
}
ROOTS = {"dass", "snakemake", "torch"}
HEAD = f"""\
# For `snakemake --sdm conda`: what requirements.lock pins, without the tools of tests.
# Written by `python envs/pins.py`. The library itself is taken from src/ beside the Snakefile.
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python ={PYTHON}
  - pip
  - pip:
"""


def pins() -> dict[str, str]:
    """Name -> pin, of all that the library and the engine need on Linux."""
    found: dict[str, str] = {}
    wanted_by: dict[str, set[str]] = {}
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if line.startswith("-"):
            continue
        text, _, origin = line.partition("# via ")
        requirement = Requirement(text.strip())
        if requirement.marker is None or requirement.marker.evaluate(MACHINE):
            found[requirement.name] = f"{requirement.name}{requirement.specifier}"
            wanted_by[requirement.name] = set(re.split(r",\s*", origin.strip()))
    needed = set(ROOTS)
    while more := {name for name, by in wanted_by.items() if by & needed} - needed:
        needed |= more
    return {name: pin for name, pin in found.items() if name in needed}


def rendered() -> str:
    return HEAD + "".join(f"      - {pin}\n" for pin in sorted(pins().values()))


def main() -> None:
    if "--check" in sys.argv:
        current = FILE.read_text(encoding="utf-8") == rendered()
        sys.exit(0 if current else f"{FILE} is not current: run python envs/pins.py")
    FILE.write_text(rendered(), encoding="utf-8")


if __name__ == "__main__":
    main()
