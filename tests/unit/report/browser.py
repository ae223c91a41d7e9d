"""What a real browser makes of a page: headless Chromium shows it at two widths, side by side."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any, TypeVar

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (390, 1280)
"""A phone's, and a laptop's."""

_FRAMES = "\n".join(
    f'<iframe src="PAGE" width="{width}" height="900"></iframe>' for width in WIDTHS
)
_WRAPPER = f"""<!DOCTYPE html>
<meta charset="utf-8">
<style>iframe {{ border: 0; }}</style>
<pre id="found"></pre>
{_FRAMES}
<script>
function look(frame) {{
  const page = frame.contentDocument, root = page.documentElement;
  const outside = [...page.body.querySelectorAll("*")].filter(
    one => !one.closest(".scroll *") && one.getBoundingClientRect().right > root.clientWidth + 0.5);
  return {{
    width: root.clientWidth,
    scrolled: Math.max(root.scrollWidth, page.body.scrollWidth),
    outside: outside.map(one => one.outerHTML.slice(0, 200)),
    links: [...page.querySelectorAll("a")].map(link => link.href),
    answer: (page => {{ SCRIPT }})(page),
  }};
}}
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(look);
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script>
"""

Test = TypeVar("Test")


def needs_browser(test: Test) -> Test:
    """Marks a test that needs Chromium."""
    skipped: Test = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")(test)
    return skipped


@dataclass(frozen=True)
class Shown:
    """A page at one width."""

    width: int
    """Of the window, in pixels."""
    scrolled: int
    """Of what can be scrolled to; more than the window's: the page overflows."""
    outside: list[str]
    """Elements that reach beyond the window, but for those in a box that scrolls."""
    links: list[str]
    answer: Any
    """What the script returned."""


def show(page: Path, script: str = "return null;") -> tuple[list[Shown], list[str]]:
    """The page at both widths, and what it said on the console, errors included.

    Args:
        page: an HTML file.
        script: a function's body, of ``page``, the document; it may click, and returns JSON.
    """
    wrapper = page.with_name("wrapper.html")
    wrapper.write_text(
        _WRAPPER.replace("PAGE", page.name).replace("SCRIPT", script), encoding="utf-8"
    )
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={page.parent / 'profile'}", "--allow-file-access-from-files",
            "--window-size=1800,1000", "--hide-scrollbars", "--enable-logging=stderr",
            "--virtual-time-budget=10000", "--dump-dom", wrapper.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    written = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert written and written[1], done.stderr
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return [Shown(**one) for one in json.loads(unescape(written[1]))], said
