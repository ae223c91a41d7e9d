"""Conda environment and container recipes hold what the lock pins: by what is installed here."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CUDA = re.compile(r"(nvidia|cuda|triton)\b")
"""Packages of torch's own, which the lock leaves to it."""


def conda_pins() -> dict[str, str]:
    environment = yaml.safe_load((ROOT / "envs/dass.yaml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    return {canonicalize_name(Requirement(pin).name): pin for pin in pip}


def test_the_conda_environment_is_written_from_the_lock() -> None:
    command = [sys.executable, "envs/pins.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_pin_is_exact_and_the_locks() -> None:
    locked = {line.split("#")[0].split(";")[0].strip() for line in lock_lines()}
    pins = conda_pins()
    assert len(pins) > 100
    assert set(pins.values()) <= locked
    assert all(re.fullmatch(r"[\w.-]+==\S+", pin) for pin in pins.values())


def lock_lines() -> list[str]:
    return (ROOT / "requirements.lock").read_text().splitlines()


def needs(name: str, extras: frozenset[str]) -> list[Requirement]:
    """What an installed package requires on this machine, by its own metadata."""
    found = []
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        options = [{"extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(map(requirement.marker.evaluate, options)):
            found.append(requirement)
    return found


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the environment is one of Python 3.11")
def test_nothing_that_is_needed_is_left_to_chance() -> None:
    """Whatever the library and the engine require, and what that requires, is pinned."""
    pins = conda_pins()
    waiting = [Requirement("dass"), Requirement("snakemake"), Requirement("torch")]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen or CUDA.match(key[0]):
            continue
        seen.add(key)
        assert key[0] == "dass" or key[0] in pins, f"{key[0]} is needed and not pinned"
        waiting += needs(*key)
    assert len(seen) > 100


def test_tools_of_tests_stay_out() -> None:
    assert not {"pytest", "mypy", "ruff", "hypothesis", "snakefmt"} & set(conda_pins())


@pytest.mark.parametrize("recipe", ["envs/Dockerfile", "envs/dass.def"])
def test_recipes_take_the_locks_pins_and_files_that_exist(recipe: str) -> None:
    text = (ROOT / recipe).read_text()
    assert "python:3.11-slim" in text
    copied = re.findall(r"^(?:COPY |    )(\S+) /opt/\S+$", text, re.MULTILINE)
    assert copied == ["requirements.lock"]
    assert "pip install --no-cache-dir -r /opt/dass/pins.txt" in text


@pytest.mark.parametrize("recipe", ["envs/Dockerfile", "envs/dass.def"])
def test_commands_of_recipes_are_shell(recipe: str) -> None:
    text = (ROOT / recipe).read_text()
    if recipe.endswith(".def"):
        commands = [re.search(r"%post\n((?:    .*\n)+)", text)[1]]
    else:
        commands = re.findall(r"^RUN ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        done = subprocess.run(["sh", "-n"], input=command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("profile", sorted((ROOT / "profiles").glob("*/config.yaml")))
def test_jobs_in_a_conda_environment_find_the_library(profile: Path) -> None:
    """It is on PYTHONPATH, which snakemake would take away from them."""
    assert re.search(
        r"^conda-not-block-search-path-envvars: true$", profile.read_text(), re.MULTILINE
    )
