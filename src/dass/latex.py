"""What plain LaTeX can print, and how it is written there."""

import re
import reprlib
import unicodedata

from dass.errors import ConfigError

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


def escape_latex(text: str) -> str:
    """Plain text for LaTeX; line breaks become spaces.

    Raises:
        ConfigError: a character that a plain pdflatex cannot set.
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
    raise ConfigError(
        f"{reprlib.repr(text)} holds {char!r}, which LaTeX cannot print; write it in Latin letters"
    )


def latex_name(text: str) -> str:
    """A name as part of a LaTeX label: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
