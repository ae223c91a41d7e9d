"""An environment of its own for an engine whose needs differ; needs no conda.

    python -m dass.speed.environment --requirements envs/deepsparse.txt --import deepsparse --out F

An interpreter that has the package already (conda's, where the user asked for it) is taken as it
is; else a virtual environment is made beside ``F`` by a Python that the package has wheels for.
Imports nothing but the standard library and what needs no more.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from dass.errors import ConfigError, DassError
from dass.runtime.files import write_json

log = logging.getLogger("dass")

PYTHON = (3, 11)
"""What the pins of envs/deepsparse.txt are for; DeepSparse has no wheels for a newer one."""


def has_package(python: str, package: str) -> bool:
    """Whether an interpreter can import a package."""
    return _runs([python, "-c", f"import {package}"])


def find_python(candidates: list[str]) -> str:
    """The first interpreter of the right version.

    Raises:
        ConfigError: there is none.
    """
    for name in candidates:
        found = shutil.which(name)
        fits = f"import sys; sys.exit(sys.version_info[:2] != {PYTHON})"
        if found is not None and _runs([found, "-c", fits]):
            return found
    wanted = ".".join(map(str, PYTHON))
    raise ConfigError(
        f"speed.cpu.engines: deepsparse needs Python {wanted}, and there is none on PATH; "
        f"install python{wanted}, run with --sdm conda, or remove deepsparse from engines"
    )


def make_environment(requirements: Path, package: str, out: Path, pythons: list[str]) -> None:
    """Write a JSON file that names an interpreter with the package; install it if need be.

    Args:
        requirements: pinned, as pip reads them.
        package: whose import proves that it is there.
        out: the file; an environment that is made lies beside it, in ``venv``.
        pythons: interpreters to try, the first preferred.

    Raises:
        ConfigError: no interpreter fits, or pip could not install.
    """
    ready = next((p for p in pythons if shutil.which(p) and has_package(p, package)), None)
    if ready is None:
        ready = _install(requirements, package, out.parent / "venv", find_python(pythons))
    write_json(out, {"python": str(Path(shutil.which(ready) or ready).absolute())})


def _install(requirements: Path, package: str, folder: Path, python: str) -> str:
    """A virtual environment with the requirements; its interpreter."""
    shutil.rmtree(folder, ignore_errors=True)
    log.info("installing %s into %s", requirements, folder)
    inside = str(folder / "bin" / "python")
    pip = [inside, "-m", "pip", "install", "--disable-pip-version-check", "-r", str(requirements)]
    for command in ([python, "-m", "venv", str(folder)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise ConfigError(f"{requirements}: not installed ({' '.join(last)}); see {command[0]}")
    if not has_package(inside, package):
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(f"{requirements}: installed, but {package} cannot be imported")
    return inside


def _runs(command: list[str]) -> bool:
    quiet = os.environ | {"NM_DISABLE_ANALYTICS": "1"}  # importing DeepSparse would report it
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=120, env=quiet)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def main(arguments: list[str] | None = None) -> int:
    """Make an environment, or say in one line why not."""
    parser = argparse.ArgumentParser(prog="python -m dass.speed.environment")
    parser.add_argument("--requirements", type=Path, required=True)
    parser.add_argument("--import", dest="package", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    pythons = ["python", sys.executable, "python{}.{}".format(*PYTHON)]
    try:
        make_environment(options.requirements, options.package, options.out, pythons)
    except DassError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
