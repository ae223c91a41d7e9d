"""Plain text for LaTeX and for Markdown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dass.errors import ConfigError
from dass.latex import escape_latex
from dass.report.words import escape_markdown


def test_latex_is_escaped_character_by_character() -> None:
    assert escape_latex("_%&#${}") == r"\_\%\&\#\$\{\}"
    assert escape_latex(r"\~^<>|") == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}$<$$>$$|$"
    )
    assert escape_latex("a\nb\tc") == "a b c"
    assert escape_latex("é – ± α") == r"é -- $\pm$ $\alpha$"
    with pytest.raises(ConfigError, match="'模', which LaTeX cannot print") as error:
        escape_latex("模型")
    assert "\n" not in str(error.value)


def test_markdown_is_escaped() -> None:
    assert escape_markdown("a|b_c*d`e[f]\n#g") == r"a\|b\_c\*d\`e\[f\] \#g"


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_escaped_markdown_reads_as_it_was(text: str) -> None:
    assert unescaped(escape_markdown(text)) == text
    assert re.search(r"(?<!\\)(?:\\\\)*[|*_`]", escape_markdown(text)) is None
