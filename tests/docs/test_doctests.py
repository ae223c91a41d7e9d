"""Doctests in pages print what the pages say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from .pages import PAGES, blocks, name_of


def doctests(page: Path) -> str:
    """The page's ``pycon`` blocks: one program, each line where the page has it."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "pycon":
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", [page for page in PAGES if doctests(page).strip()], ids=name_of)
def test_doctests_print_what_pages_say(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = doctest.DocTestParser().get_doctest(doctests(page), {}, page.name, str(page), 0)
    assert program.examples
    failed, _ = doctest.DocTestRunner().run(program)
    assert not failed, capsys.readouterr().out
