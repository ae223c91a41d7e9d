"""Make docs/evidence.md and its figures again from the raw results of the real study.

    python benchmarks/evidence.py            # write the page and docs/evidence/*.svg
    python benchmarks/evidence.py --check    # say whether the page is current
    python benchmarks/evidence.py --pack     # keep the results of results/smollm2 as the archive

The archive holds the result files of all runs as the stages wrote them, without masks. Tables,
figures and findings are those of the report, by the same functions.
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

import yaml

from dass.config.load import load_config
from dass.config.study import StudyConfig
from dass.report.block_sections import block_sections
from dass.report.document import Drawing, Section, experiment_section
from dass.report.experiment import TableSettings
from dass.report.plots import save_figure
from dass.report.settings import block_settings, table_settings
from dass.results.schema import ActivationsResult, BlocksResult, read_result
from dass.results.summary import SummaryRow, summarise

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config/smollm2.yaml"
ARCHIVE = ROOT / "benchmarks/results/smollm2.tar.xz"
RESULTS = ROOT / "results/smollm2"
PAGE = ROOT / "docs/evidence.md"
FIGURES = ROOT / "docs/evidence"


@cache
def archived() -> tuple[list[SummaryRow], Section]:
    """One row per run of the archive, and the section on blocks."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        files = {
            kind: sorted(Path(folder).rglob(f"{kind}.json"))
            for kind in ("pruning", "perplexity", "zero_shot", "blocks")
        }
        errors = [read_result(file, BlocksResult) for file in files.pop("blocks")]
        norms = sorted(Path(folder).glob("activations/**/*.json"))
        activations = [read_result(file, ActivationsResult) for file in norms]
        (blocks,) = block_sections(activations, errors, asdict(block_settings(study())))
        return summarise(**files).rows, blocks


def summary_rows() -> list[SummaryRow]:
    """One row per run of the archive."""
    return archived()[0]


@cache
def study() -> StudyConfig:
    """The study; captions are shorter without its note."""
    found = load_config(yaml.safe_load(CONFIG.read_text("utf-8")))
    return found.model_copy(update={"note": ""})


def settings_of(experiment: str) -> TableSettings:
    """What the study says of an experiment."""
    return table_settings(study(), experiment)


@cache
def section_of(experiment: str) -> Section:
    """What the report says of an experiment."""
    return experiment_section(summary_rows(), settings_of(experiment))


def markdown(section: Section) -> str:
    """A section's findings, tables and figures."""
    said = "\n".join(f"- {sentence}" for sentence in section.findings)
    tables = [table.markdown().strip() for table in section.tables]
    pictures = [f"![{one.caption}](evidence/{_svg(one)})" for one in section.figures]
    return "\n\n".join([said, *tables, *pictures])


def blocks_part() -> str:
    """What the report says about the blocks, in Markdown."""
    return markdown(archived()[1])


def _svg(drawing: Drawing) -> str:
    """The page's name for a figure of the report."""
    return "-".join(Path(drawing.file).with_suffix(".svg").parts[1:])


def about() -> str:
    """What was run, where, and how long it took."""
    rows = summary_rows()
    seconds = sum(origin["seconds"] for row in rows for origin in row.provenance)
    jobs = sum(len(row.provenance) for row in rows)
    dates = sorted(date[:10] for row in rows for date in row.origins("date"))
    devices = dict.fromkeys(device for row in rows for device in row.origins("device"))
    versions = dict.fromkeys(text for row in rows for text in row.versions)
    return (
        f"{len(rows) - 1} pruned runs and the dense model: {jobs} jobs, {seconds / 3600:.1f} hours "
        f"of jobs of which up to twelve shared one card ({'; '.join(devices)}); "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {'; '.join(versions)}."
    )


def experiments() -> list[str]:
    """Those that the page shows, in its order."""
    return re.findall(r"<!-- experiment ([\w-]+) -->", PAGE.read_text("utf-8"))


def rendered(page: str) -> str:
    """The page with each part made again, from `<!-- experiment name -->` to `<!-- end -->`."""

    def made(match: re.Match[str]) -> str:
        kinds = {
            "experiment": lambda: markdown(section_of(match[3])),
            "about": about,
            "section": blocks_part,
        }
        return f"{match[1]}{kinds[match[2]]()}\n<!-- end -->"

    parts = r"(<!-- (experiment|about|section) ([\w-]+) -->\n).*?<!-- end -->"
    return re.sub(parts, made, page, flags=re.DOTALL)


def pack() -> None:
    """Keep the result files of all runs, without masks."""
    kept = ("pruning.json", "perplexity.json", "zero_shot.json", "blocks.json")
    files = [f for f in sorted(RESULTS.glob("runs/**/*.json")) if f.name in kept]
    files += sorted(RESULTS.glob("activations/**/*.json"))
    with tarfile.open(ARCHIVE, "w:xz") as archive:
        for file in files:
            archive.add(file, file.relative_to(RESULTS))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/evidence.md and its figures.")
    parser.add_argument("--pack", action="store_true", help="archive the study's results first")
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    asked = parser.parse_args()
    if asked.pack:
        pack()
    page = PAGE.read_text("utf-8")
    current = rendered(page)
    if asked.check:
        sys.exit(
            0 if current == page else f"{PAGE} is not current: run python benchmarks/evidence.py"
        )
    PAGE.write_text(current, encoding="utf-8")
    for section in [*map(section_of, experiments()), archived()[1]]:
        for drawing in section.figures:
            save_figure(drawing.figure, FIGURES / _svg(drawing))


if __name__ == "__main__":
    main()
