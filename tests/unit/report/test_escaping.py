"""Plain text for LaTeX and for Markdown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dass.errors import ConfigError
from dass.latex import escape_latex, latex_name
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


@pytest.mark.parametrize("accented", ["ç", "ő", "Å", "ñ"])
def test_accents_that_latex_can_set_stay(accented: str) -> None:
    assert escape_latex(accented) == accented


@pytest.mark.parametrize("accented", ["ạ", "ơ", "e\u0331"])
def test_accents_that_latex_cannot_set_are_refused(accented: str) -> None:
    with pytest.raises(ConfigError, match="which LaTeX cannot print"):
        escape_latex(accented)


def test_a_label_begins_and_ends_with_a_letter_or_digit() -> None:
    assert latex_name("A_study.v2-") == "A-study-v2"
    assert latex_name("_x..y_") == "x-y"
