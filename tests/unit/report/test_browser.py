"""report.html in a real browser: it fits, its links lead somewhere, its tables can be sorted."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

from dass.report.document import Drawing, Report, Section, write_report
from dass.report.experiment import TableSettings
from dass.report.figures import perplexity_figure
from dass.report.table import Cell, RowGroup, Table, TableSection

from .browser import WIDTHS, needs_browser, show
from .rows import row

SOURCES = tuple(f"runs/my model/c4-{n}/dass/2of4/perplexity.json" for n in (1, 2))
VALUES = {
    "A": ["5.75", "980 µs", "1,200"], "B": ["–", "1.2 ms", "–"], "C": ["1.2e7", "12 ms", "−3"],
    "D": ["12.5", "–", "+0.4"],
}  # fmt: skip
"""The rows of a group."""
ORDERS = {
    "Method": ["ABCD", "DCBA"], "Perplexity": ["ADCB", "CDAB"], "Time": ["ABCD", "CBAD"],
    "Difference": ["CDAB", "ADCB"],
}  # fmt: skip
"""Column -> rows ascending, and descending; dashes last in both."""

ROWS = """
  const label = row => row.cells[row.cells.length > 1 ? 1 : 0].textContent;
  const rows = () => [...page.querySelector("table").tBodies].map(
    body => [...body.rows].map(label).join(""));
  const heads = [...page.querySelector("table").tHead.rows[0].cells];
"""
CLICKED = f"""{ROWS}
  return heads.map(head => {{
    const button = head.querySelector("button");
    if (!button) return [head.textContent];
    const seen = [button.textContent];
    for (let times = 0; times < 3; times++) {{
      button.click();
      const sorts = heads.map(one => one.getAttribute("aria-sort"));
      seen.push([sorts.filter(sort => sort && sort !== "none").join(), rows()]);
    }}
    return seen;
  }});
"""
LABELS = f"""{ROWS}
  heads[2].querySelector("button").click();
  heads[2].querySelector("button").click();
  return [...page.querySelectorAll("th.group")].map(
    cell => getComputedStyle(cell).visibility === "visible" ? cell.textContent : "");
"""


def table(columns: list[str], **more: int) -> Table:
    """Two titled sections, of a dense row and of a group each."""
    cells = {
        label: [Cell(text, "0.1" if text != "–" else "", sources=SOURCES[: n + 1])
                for n, text in enumerate(texts)]
        for label, texts in VALUES.items()
    }  # fmt: skip
    groups = [
        RowGroup("", [("Dense", [Cell("1", sources=SOURCES[:1])] * 3)]),
        RowGroup("2:4", list(cells.items())),
    ]
    wide = [
        RowGroup(group.label, [(label, own * more.get("times", 1)) for label, own in group.rows])
        for group in groups
    ]
    sections = [TableSection(title, wide) for title in ("First", "Second")]
    return Table(columns * more.get("times", 1), sections, "A caption. " * 40, "tab:one")


def page(folder: Path) -> Path:
    """A report with all that may be too wide for a phone."""
    for source in SOURCES:
        (folder / source).parent.mkdir(parents=True)
        (folder / source).write_text("{}")
    settings = TableSettings(
        "main", "Title", {f"m{n}": f"Model {n}" for n in range(6)}, {"c4": ""}, {"dass": "DaSS"},
        ["2of4"],
    )  # fmt: skip
    figure = perplexity_figure([row("m0/dense", 4.0), row("m0/c4/dass/2of4", 5.0)], settings)
    columns = list(ORDERS)[1:]
    section = Section(
        "A title, " + "long" * 30, [table(columns), table(columns, times=5)],
        [Drawing(figure, "A caption " + "x" * 200, "figures/main/perplexity.pdf")],
        ["A finding " + "y" * 200],
    )  # fmt: skip
    provenance = [("Commit", "0123456789abcdef" * 20)]
    report = Report("A study", ["z" * 200], [section, Section("B", empty="w" * 200)], provenance)
    write_report(report, *(folder / f"report.{form}" for form in ("pdf", "html", "tex")))
    return folder / "report.html"


@needs_browser
def test_the_page_fits_a_phone_and_a_laptop(tmp_path: Path) -> None:
    shown, said = show(page(tmp_path))
    assert [one.width for one in shown] == list(WIDTHS)
    for one in shown:
        assert one.outside == []
        assert one.scrolled == one.width
    assert said == []


@needs_browser
def test_every_link_leads_to_a_file_or_to_a_part_of_the_page(tmp_path: Path) -> None:
    path = page(tmp_path)
    shown, _ = show(path)
    found = set()
    for link in map(urlparse, shown[0].links):
        file = Path(unquote(link.path))
        assert link.scheme == "file" and file.is_file()
        if file == path:
            assert f'id="{link.fragment}"' in path.read_text()
        else:
            found.add(str(file.relative_to(tmp_path)))
    assert found == set(SOURCES)


@needs_browser
def test_a_columns_head_sorts_within_groups(tmp_path: Path) -> None:
    shown, said = show(page(tmp_path), CLICKED)
    first, *columns = shown[1].answer
    assert first == ["Sparsity"] and said == []
    for (name, *clicks), (expected, orders) in zip(columns, ORDERS.items(), strict=True):
        assert name == expected
        assert clicks == [
            [sort, ["First", "Dense", rows, "Second", "Dense", rows]]
            for sort, rows in zip(("ascending", "descending", ""), (*orders, "ABCD"), strict=True)
        ]


@needs_browser
def test_the_label_of_a_group_stays_on_top(tmp_path: Path) -> None:
    shown, _ = show(page(tmp_path), LABELS)
    assert shown[0].answer == ["", "2:4", "", "", ""] * 4


@needs_browser
def test_what_is_wrong_with_a_page_is_noticed(tmp_path: Path) -> None:
    """Else the tests above could not fail."""
    path = tmp_path / "bad.html"
    path.write_text(
        '<!DOCTYPE html><p style="width: 500px">x</p><script>console.error("no"); gone();</script>'
    )
    (phone, laptop), said = show(path)
    assert phone.scrolled > 390 and [one[:2] for one in phone.outside] == ["<p"]
    assert (laptop.scrolled, laptop.outside) == (1280, [])
    assert any('"no"' in line for line in said) and any("gone is not" in line for line in said)
