"""The local hub, and runs of the real fetching code against it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from tests.real.conftest import REAL

from .content import build
from .server import LocalHub, RemoteRepository

ROOT = Path(__file__).parents[2]
TOKEN = "hf_aTokenThatMustNeverShow"
GUEST = "hf_ofAnAccountWithoutLicence"

PROGRAM = """
import time
from dass.runtime.job import job
sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds / 50)  # ours and the hub libraries' waits, in short
with job("logs/fetch/fetch.log", 1, offline=False):
    from dass.data.hub import fetch_dataset, fetch_model
    {call}
"""

# What the config's blocks become when a rule hands them to the library.
C4 = {
    "kind": "documents", "hub": "allenai/c4", "revision": "main", "name": None,
    "files": "en/c4-train.00000-of-01024.json.gz",
}  # fmt: skip
PIQA = {"kind": "task", "hub": "baber/piqa", "revision": "main", "name": None, "files": None}


@dataclass
class Fetched:
    """What a fetch left: its exit code, what it printed."""

    code: int
    output: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        assert self.code != 0, self.output
        assert "Traceback" not in self.output
        lines = [line.partition("error: ")[2] for line in self.output.splitlines()]
        (line,) = [line for line in lines if line]
        return line


@dataclass
class Client:
    """A folder to fetch into, from the hub or from wherever ``environment`` points."""

    folder: Path
    environment: dict[str, str]

    def start(self, call: str, *prefix: str) -> subprocess.Popen[str]:
        """Begin to fetch in a process of its own."""
        program = PROGRAM.format(call=textwrap.indent(call, "    ").strip())
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", program],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, call: str, *prefix: str) -> Fetched:
        """Fetch, to the end."""
        process = self.start(call, *prefix)
        output, _ = process.communicate(timeout=300)
        assert not any(token in output for token in (TOKEN, GUEST))
        return Fetched(process.returncode, output)

    def model(self, name: str, revision: str = "main") -> Fetched:
        """Fetch a model into ``model``."""
        return self.run(f"fetch_model({name!r}, {revision!r}, 'model')")

    def dataset(self, settings: dict, **changes: object) -> Fetched:
        """Fetch a data set into ``data``."""
        return self.run(f"fetch_dataset({settings | changes!r}, 'data')")

    def left(self) -> list[str]:
        """All that lies here but logs and the work in progress."""
        hidden = (".", "logs", "home")
        return sorted(p.name for p in self.folder.iterdir() if not p.name.startswith(hidden))


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> list[RemoteRepository]:
    """The paper's repositories in miniature; real weights and text where there are any."""
    real = REAL if (REAL / "models").is_dir() else None
    pins = pinned_commits()
    built = build(tmp_path_factory.mktemp("hub"), real)
    return [replace(repository, pinned=pins.get(repository.name, "")) for repository in built]


def pinned_commits() -> dict[str, str]:
    """Repository -> the commit that config/config.yaml names."""
    study = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    blocks = [*study["models"].values(), *study["datasets"].values()]
    return {block["hub"]: block["revision"] for block in blocks}


@pytest.fixture
def hub(repositories: list[RemoteRepository]) -> Iterator[LocalHub]:
    """The hub, running, with an empty log and nothing wrong with it."""
    with LocalHub(list(repositories), tokens={TOKEN}, guests={GUEST}) as hub:
        yield hub


@pytest.fixture
def client(hub: LocalHub, tmp_path: Path) -> Client:
    """A client with a token that is let in everywhere."""
    folder = tmp_path / "client"
    folder.mkdir()
    return Client(folder, environment_for(hub, folder / "home"))


def environment_for(hub: LocalHub, home: Path) -> dict[str, str]:
    """The environment of a user whose hub is the local one."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    search = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    ours = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "PYTHONPATH": search}
    return clean | ours


def without_network(environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """What to put in front of a command, and its environment, so that it has no network.

    In a network namespace of its own it has not even loopback. Where that is not permitted, its
    Python, and every Python that it starts, can connect to nothing.
    """
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if _works(command) and "DASS_NO_NAMESPACES" not in os.environ:
            return command, environment
    cut = str(Path(__file__).with_name("cut"))
    search = os.pathsep.join([cut, environment.get("PYTHONPATH", "")])
    return [], environment | {"PYTHONPATH": search}


def with_small_disk(folder: Path, size: int) -> list[str]:
    """What to put in front of a command so that ``folder`` is a disk of ``size`` bytes."""
    mount = f'mount -t tmpfs -o size={size} tmpfs "{folder}" && cd "{folder}" && exec "$@"'
    for command in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        if _works(wrapped := [*command, "sh", "-c", mount, "sh"]):
            return wrapped
    pytest.skip("no mount namespaces here: unshare --mount is not permitted")


def _works(command: list[str]) -> bool:
    found = shutil.which(command[0])
    return bool(found) and subprocess.run([*command, "true"], check=False).returncode == 0
