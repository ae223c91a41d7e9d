"""How tables, figures and captions print patterns, numbers and text, in LaTeX and Markdown too."""

import re
import unicodedata

from dass.errors import DataError
from dass.pruning.patterns import Unstructured, parse_pattern

DASH = "–"
"""Printed where nothing was measured."""
_LATEX_TEXT = {
    **{char: rf"\{char}" for char in "{}_%&#$"},
    **{char: f"${char}$" for char in "<>|"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    '"': "''", "’": "'", "‘": "`", "“": "``", "”": "''",
    "–": "--", "—": "---", "−": "$-$", "…": "...", "\u00a0": "~",
    "†": r"$^\dagger$", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "λ": r"$\lambda$",
    "µ": r"$\mu$", "μ": r"$\mu$",
}  # fmt: skip
_ACCENTS = set("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
_LETTERS = set("ßæÆøØœŒłŁı")


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


def escape_latex(text: str) -> str:
    """Plain text for LaTeX; line breaks become spaces.

    Raises:
        DataError: a character that a plain pdflatex cannot set.
    """
    return "".join(_latex_character(char, text) for char in text)


def _latex_character(char: str, text: str) -> str:
    if char in _LATEX_TEXT:
        return _LATEX_TEXT[char]
    if char.isspace():
        return " "
    parts = unicodedata.normalize("NFD", char)
    plain = parts[0].isascii() and parts[0].isprintable() and set(parts[1:]) <= _ACCENTS
    if plain or char in _LETTERS:
        return char
    raise DataError(
        f"label or note {text!r} holds {char!r}, which LaTeX cannot print; "
        "write it in Latin letters in the config"
    )


def escape_markdown(text: str) -> str:
    """Plain text for Markdown, inside or outside a table."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", text.replace("\n", " "))
