"""How tables, figures and captions print patterns, numbers and text, in Markdown too."""

import re
from collections.abc import Sequence

from dass.pruning.patterns import Unstructured, parse_pattern

DASH = "–"
"""Printed where nothing was measured."""


_AXES = {
    "sparsity": "sparsity in %",
    "sequences": "calibration sequences",
    "length": "tokens per calibration sequence",
    "dataset": "calibration data",
    "propagation": "propagation",
}


def x_words(x: str) -> str:
    """What a figure has on its horizontal axis; an argument of methods has its own name."""
    return _AXES.get(x, x)


def pattern_label(pattern: str) -> str:
    """The paper's name: ``50 %`` for u50, ``2:4`` for 2of4; ``2:4 both axes`` for 2of4x4."""
    parsed = parse_pattern(pattern)
    if isinstance(parsed, Unstructured):
        return f"{float(parsed.percent):g} %"
    return f"{parsed.kept}:{parsed.group}" + (" both axes" if parsed.both else "")


def format_perplexity(value: float) -> str:
    """Two decimals below 1000, none below a million, then two digits and the exponent."""
    if value < 1000:
        return f"{value:.2f}"
    return f"{value:.0f}" if value < 1e6 else re.sub(r"e\+0*", "e", f"{value:.1e}")


def format_with_error(value: float, error: float, decimals: int) -> tuple[str, str]:
    """A value and its error to the same place, where the error has one or two digits.

    So many decimals where that leaves one or two, otherwise the nearest that does.
    """
    if error == 0:
        return f"{value:.{decimals}f}", "0"
    two = 1 - int(f"{error:.1e}".partition("e")[2])
    place = min(max(decimals, two - 1), two)
    return _rounded(value, place), _rounded(error, place)


def _rounded(value: float, place: int) -> str:
    """To so many decimals; of fewer than none to tens, hundreds, ..."""
    return f"{round(value, place):.{max(place, 0)}f}"


def perplexity_with_error(value: float, error: float) -> tuple[str, str]:
    """Perplexity and its error; from a million both with the same exponent."""
    if value < 1e6:
        return format_with_error(value, error, 2 if value < 1000 else 0)
    exponent = int(f"{value:.1e}".partition("e")[2])
    texts = format_with_error(value / 10**exponent, error / 10**exponent, 1)
    return f"{texts[0]}e{exponent}", texts[1] if error == 0 else f"{texts[1]}e{exponent}"


def format_percent(share: float) -> str:
    """A share in percent, with one decimal."""
    return f"{100 * share:.1f}"


def listed(words: Sequence[str]) -> str:
    """``a``; ``a and b``; ``a, b and c``."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def sentences(*parts: str) -> str:
    """Parts of a caption, each with its full stop, without the empty ones."""
    return " ".join(
        part if part.endswith((".", "!", "?", "…")) else f"{part}." for part in parts if part
    )


def escape_markdown(text: str) -> str:
    """Plain text for Markdown, inside or outside a table."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", text.replace("\n", " "))
