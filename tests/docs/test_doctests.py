"""Python sessions in pages print what the pages say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from .pages import PAGES, blocks, name_of


def sessions(page: Path) -> str:
    """The page's ``pycon`` blocks: one session, each line where the page has it."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "pycon":
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", [page for page in PAGES if sessions(page).strip()], ids=name_of)
def test_sessions_print_what_pages_say(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = doctest.DocTestParser().get_doctest(sessions(page), {}, page.name, str(page), 0)
    assert session.examples
    failed, _ = doctest.DocTestRunner().run(session)
    assert not failed, capsys.readouterr().out
