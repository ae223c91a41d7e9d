"""What pages say about the code and about each other is true."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
import yaml

import dass

from .pages import PAGES, ROOT, blocks, name_of

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        if anchor:
            assert anchor[1:] in anchors(there), f"{target}{anchor}"


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_leads_to_every_page() -> None:
    linked = {target for target, _ in LINK.findall((ROOT / "docs/index.md").read_text())}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


def test_every_config_has_a_row() -> None:
    page = (ROOT / "config/README.md").read_text()
    for file in (ROOT / "config").glob("*.yaml"):
        study = yaml.safe_load(file.read_text())["study"]
        assert f"| `{file.name}` | `{study}`: " in page


# --- Versions and citations ---------------------------------------------------------------------


def citation() -> dict:
    return dict(yaml.safe_load((ROOT / "CITATION.cff").read_text()))


def test_the_version_is_written_once() -> None:
    assert citation()["version"] == dass.__version__
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    assert importlib.metadata.version("dass") == dass.__version__


def test_the_bibtex_is_the_preferred_citation() -> None:
    (entry,) = [b.text for b in blocks(ROOT / "README.md") if b.language == "bibtex"]
    fields = dict(re.findall(r"^  (\w+) *= \{(.*)\},?$", entry, re.MULTILINE))
    paper = citation()["preferred-citation"]
    authors = [f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]]
    assert fields["author"] == " and ".join(authors)
    assert fields["title"].replace("{", "").replace("}", "") == paper["title"]
    assert (fields["journal"], fields["year"]) == (paper["journal"], str(paper["year"]))
    assert fields["url"] == paper["url"]


# --- Errors and logs ----------------------------------------------------------------------------

OTHERS_SAY = {"MissingRuleException", "LockException: Directory cannot be locked", "Killed",
              "Nothing to be done", "FileNotFoundError", "IsADirectoryError", "UnicodeDecodeError",
              "Config file is not valid JSON or YAML"}  # fmt: skip
"""What those tables quote of Snakemake, Python and the system."""

EXAMPLE = re.compile(r"…|models\.my-model\.(?:\w+: )?|did you mean \w+\?|\(HTTP 503\)")
"""Parts of a quoted line that differ from case to case."""


@pytest.mark.parametrize(
    ("page", "headings"),
    [
        ("docs/troubleshooting.md", ["Setting up", "Before the first job", "While jobs run"]),
        ("docs/resources.md", ["When it fails"]),
    ],
)
def test_error_lines_are_those_of_the_code(page: str, headings: list[str]) -> None:
    files = [*(ROOT / "src/dass").rglob("*.py"), *(ROOT / "rules").glob("*.smk")]
    code = "\n".join(file.read_text() for file in [*files, ROOT / "Makefile"])
    code = re.sub(r'"\n\s*f?"', "", code)  # literals that go on in the next line
    for heading in headings:
        rows = first_column(ROOT / page, heading)
        assert len(rows) > 3
        for fragment in (f for row in rows for f in fragments(row)):
            assert fragment in code, f"{page}, {heading}: no error says {fragment!r}"


def first_column(page: Path, heading: str) -> list[str]:
    """The first cells of the table below a heading, without its head."""
    section = re.split(rf"^## {heading}\n", page.read_text(), flags=re.MULTILINE)[1]
    table = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    return re.findall(r"^\| (.+?) \|", table, re.MULTILINE)[1:]


def fragments(cell: str) -> list[str]:
    """The literal parts of what a cell quotes: names and numbers of an example are left out."""
    quoted = re.findall(r"`([^`]+)`|\*([^*]+)\*", cell)
    texts = [code or words for code, words in quoted]
    texts = [t for t in texts if t not in OTHERS_SAY and not t.startswith(".venv")]
    parts = [part.strip(" ;:,") for text in texts for part in EXAMPLE.split(text)]
    return [part for part in parts if len(part) > 5]


def test_logs_are_where_pages_say() -> None:
    """logs/<rule>/… for every rule, and the same below logs/benchmarks/."""
    for file in (ROOT / "rules").glob("*.smk"):
        for rule in re.split(r"^(?=(?:rule|checkpoint) )", file.read_text(), flags=re.MULTILINE):
            if (name := re.match(r"(?:rule|checkpoint) (\w+):", rule)) and "    log:" in rule:
                written = re.findall(r'f?"logs/(?:benchmarks/)?([^/"]+)/', rule)
                assert set(written) == {name[1]}, f"{file.name}: {name[1]}"
