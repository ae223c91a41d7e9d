"""A hook of mkdocs: links that leave docs/ are checked, and become plain text on the site.

In the repository they lead to a file; the site has no such files, and knows no address for them.
"""

import logging
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.links")

OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page; a warning fails a strict build."""

    def text_of(link: re.Match[str]) -> str:
        text, target = link.groups()
        if not (Path(page.file.abs_src_path).parent / target).exists():
            log.warning("%s links to %s, which does not exist", page.file.src_path, target)
        return f"`{text}`" if re.fullmatch(r"[\w./-]+", text) else text

    return OUTSIDE.sub(text_of, markdown)
