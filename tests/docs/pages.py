"""The documentation as tests see it: pages, their fenced blocks, the commands in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "config/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    """Empty: commands of a shell."""
    text: str

    @property
    def place(self) -> str:
        """Page and line, for messages and names of tests."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command line, without comments."""

    place: str
    text: str

    @property
    def environment(self) -> dict[str, str]:
        """The assignments in front of it."""
        return dict(word.split("=", 1) for word in self._words() if _is_assignment(word))

    @property
    def words(self) -> list[str]:
        """The program and its arguments."""
        words = self._words()
        start = next((i for i, word in enumerate(words) if not _is_assignment(word)), len(words))
        return words[start:]

    def _words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def _is_assignment(word: str) -> bool:
    return re.match(r"[A-Z_]+=", word) is not None


def name_of(page: Path) -> str:
    """Relative to the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, dedented."""
    text = page.read_text()
    return [
        Block(name_of(page), text.count("\n", 0, m.start()) + 2, m[2], textwrap.dedent(m[3]))
        for m in FENCE.finditer(text)
    ]


def comparing() -> tuple[str, dict[str, Any]]:
    """The method's module of docs/comparing.md, and what its blocks of a config are together."""
    page = blocks(ROOT / "docs/comparing.md")
    (method,) = (block.text for block in page if block.language == "python")
    changes: dict[str, Any] = {}
    for one in (yaml.safe_load(block.text) for block in page if block.language == "yaml"):
        for key, value in one.items():
            changes[key] = changes.get(key, {}) | value if isinstance(value, dict) else value
    return method, changes


def fenced_commands() -> list[Command]:
    """The commands of all blocks without a language; a backslash joins lines."""
    return [
        Command(block.place, line)
        for page in PAGES
        for block in blocks(page)
        if not block.language
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


def inline_commands() -> list[Command]:
    """Commands within text and tables, if they are whole: no ellipsis, no placeholder."""
    found = []
    for page in PAGES:
        text = FENCE.sub("", page.read_text())
        for code in INLINE.findall(text):
            if re.search(r"…|<|\.\.\.", code):
                continue
            if re.match(r"([A-Z_]+=\S+ )*(\.venv/bin/\w+|snakemake|make|python) \S", code):
                found.append(Command(name_of(page), code))
    return found
