"""How tables, figures and captions print patterns, numbers and text, in Markdown too."""

import re

from dass.pruning.patterns import Unstructured, parse_pattern

DASH = "–"
"""Printed where nothing was measured."""


def pattern_label(pattern: str) -> str:
    """The paper's name: ``50 %`` for u50, ``2:4`` for 2of4."""
    parsed = parse_pattern(pattern)
    if isinstance(parsed, Unstructured):
        return f"{float(parsed.percent):g} %"
    return f"{parsed.kept}:{parsed.group}"


def format_perplexity(value: float) -> str:
    """Two decimals below 1000, none below a million, then two digits and the exponent."""
    if value < 1000:
        return f"{value:.2f}"
    return f"{value:.0f}" if value < 1e6 else re.sub(r"e\+0*", "e", f"{value:.1e}")


def format_percent(share: float) -> str:
    """A share in percent, with one decimal."""
    return f"{100 * share:.1f}"


def sentences(*parts: str) -> str:
    """Parts of a caption, each with its full stop, without the empty ones."""
    return " ".join(
        part if part.endswith((".", "!", "?", "…")) else f"{part}." for part in parts if part
    )


def escape_markdown(text: str) -> str:
    """Plain text for Markdown, inside or outside a table."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", text.replace("\n", " "))
