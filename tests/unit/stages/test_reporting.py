"""Result files to summary, tables, figures and report, by the stages alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dass.errors import NumericError
from dass.models.shape import Shape
from dass.report.experiment import TableSettings
from dass.report.figures import perplexity_figure, zero_shot_figure
from dass.report.plots import figure_bytes
from dass.report.speed_accuracy import panels_of, speed_accuracy_table
from dass.report.speed_accuracy_figure import speed_accuracy_figure
from dass.report.speed_figures import speed_figure
from dass.report.speed_tables import SpeedSettings, speed_table
from dass.results.schema import read_result
from dass.results.summary import Summary, summarise
from dass.runtime.files import read_json
from dass.speed.metric import MetricSettings
from dass.speed.results import SpeedResult, make_result, read_speed, write_speed
from dass.speed.timing import Measurement, Outcome
from dass.stages.check_dense import check_dense
from dass.stages.experiment_figures import experiment_figures
from dass.stages.experiment_tables import experiment_tables
from dass.stages.report import report
from dass.stages.speed_accuracy import speed_accuracy
from dass.stages.speed_figures import speed_figures
from dass.stages.speed_tables import speed_tables
from dass.stages.summary import summary
from dass.stages.summary_of_model import summary_of_model
from tests.unit.results.samples import perplexity_file, study_files

SETTINGS = asdict(
    TableSettings(
        experiment="main", title="Title", models={"b": "Model B", "a": "Model A"},
        calibrations={"c4": "8 sequences"}, methods={"wanda": "Wanda", "dass": "DaSS"},
        patterns=["u50", "2of4"], tasks=["piqa", "winogrande"],
    )
)  # fmt: skip


AGAINST_SPEED = SETTINGS | {"experiment": "speed", "title": "Against speed"}


def test_a_results_way_to_a_cell_and_to_the_report(tmp_path: Path) -> None:
    for model in ("b", "a"):
        summary_of_model(
            **study_files(tmp_path, model),
            rows=tmp_path / f"{model}.json", csv=tmp_path / f"{model}.csv",
        )  # fmt: skip
    rows = tmp_path / "summary.json"
    summary(models=[tmp_path / "b.json", tmp_path / "a.json"], rows=rows, csv=tmp_path / "s.csv")
    published = tmp_path / "published.csv"
    published.write_text(
        "table,model,method,pattern,split,metric,value,source\n"
        "t. 1,b,dense,,validation,perplexity,5.47,A paper\n"
    )
    names = ["perplexity.tex", "perplexity.md", "zero_shot.md", "published.md"]
    experiment_tables(
        summary=rows, published=[published], experiments={"main": SETTINGS},
        out=[tmp_path / "tables/main" / name for name in names],
    )  # fmt: skip
    tables = {name: (tmp_path / "tables/main" / name).read_text() for name in names}
    assert r"\begin{tabular}" in tables["perplexity.tex"] and "5.33" in tables["perplexity.tex"]
    assert "1.2e7" in tables["perplexity.md"]
    assert "60.0 ± 3.0" in tables["zero_shot.md"]
    assert "−0.14" in tables["published.md"]
    figure = tmp_path / "figures/main/perplexity.pdf"
    experiment_figures(summary=rows, experiments={"main": SETTINGS}, out=[figure])
    assert figure.read_bytes().startswith(b"%PDF")
    report(
        summary=rows, published=[published], study="small", description="What it is.", note="",
        experiments={"main": SETTINGS}, speed={}, speed_results=[], speed_pruning=[],
        activations=[], block_errors=[], blocks=None, speed_accuracy=None,
        differences=["Another text."],
        **{form: tmp_path / f"report.{form}" for form in ("pdf", "html", "tex")},
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert "DaSS, reproduced: study small" in page and "1.2e7" in page
    assert "Another text." in page
    assert r"\begin{document}" in (tmp_path / "report.tex").read_text()
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_gate_that_holds_writes_nothing(tmp_path: Path) -> None:
    dense = perplexity_file(tmp_path, "b/dense", 5.6)
    targets = [{"dataset": "wikitext2", "split": "validation", "value": 5.47, "source": "A paper"}]
    with pytest.raises(NumericError, match=r"b: its dense perplexity is 5\.6 .* \+2\.4 % off"):
        check_dense(dense=dense, targets=targets, tolerance=0.02, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_a_gate_that_lets_a_model_through_says_what_was_compared(tmp_path: Path) -> None:
    dense = perplexity_file(tmp_path, "b/dense", 5.6)
    about = {"dataset": "wikitext2", "split": "validation"}
    target = about | {"value": 5.5, "source": "A paper"}
    check_dense(dense=dense, targets=[target], tolerance=0.05, out=tmp_path / "out.json")
    said = read_json(tmp_path / "out.json")
    (check,) = said.pop("checks")
    assert said == {"model": "b", "tolerance": 0.05}
    assert check == target | {"perplexity": 5.6, "off": pytest.approx(0.1 / 5.5)}


@pytest.fixture
def summed_up(tmp_path: Path) -> Path:
    """The summary of one model."""
    rows = tmp_path / "summary.json"
    summary_of_model(**study_files(tmp_path, "b"), rows=rows, csv=tmp_path / "summary.csv")
    return rows


def test_each_figure_is_the_one_of_its_name(summed_up: Path, tmp_path: Path) -> None:
    out = [tmp_path / f"main/{kind}.svg" for kind in ("zero_shot", "perplexity")]
    experiment_figures(summary=summed_up, experiments={"main": SETTINGS}, out=out)
    rows, settings = read_result(summed_up, Summary).rows, TableSettings(**SETTINGS)
    drawn = [zero_shot_figure(rows, settings), perplexity_figure(rows, settings)]
    assert [file.read_bytes() for file in out] == [figure_bytes(one, "svg") for one in drawn]


SPEED: dict[str, Any] = {
    "study": "small", "subjects": {"b": "Model B"}, "methods": {"dass": "DaSS", "wanda": "Wanda"},
    "note": "Another note.",
}  # fmt: skip


def speed_file(folder: Path, kind: Any, part: str, *engines: str, variant: str) -> Path:
    """The result of a benchmark of some engines, the first of which takes a second, and so on."""
    timed = [
        Measurement(part, engine, variant if number else "dense", 1, "float32", [1.0 + number] * 3)
        for number, engine in enumerate(engines)
    ]
    settings = MetricSettings({"dass": ("dass", {})}, dtype="float32", device="cpu")
    subject = "b/dass" if kind == "metric" else "b"
    made = make_result(kind, subject, Shape(64, 128, 4, 2, 10), settings, Outcome(timed, []))
    write_speed(folder / f"{kind}.json", made)
    return folder / f"{kind}.json"


def write_prefill(file: Path, subject: str) -> None:
    """What a GPU might have said of a run at 2:4."""
    measured = [
        Measurement("prefill", engine, variant, 128, "float16", [seconds] * 3, "graph")
        for engine, variant, seconds in (("torch", "dense", 0.02), ("packed", "2of4", 0.01))
    ]
    made = make_result(
        "gpu", subject, Shape(64, 128, 4, 2, 10), SimpleNamespace(), Outcome(measured)
    )
    write_speed(file, made)


def test_a_report_holds_all_that_it_is_given(summed_up: Path, tmp_path: Path) -> None:
    published = tmp_path / "published.csv"
    published.write_text(
        "table,model,method,pattern,split,metric,value,source\n"
        "t. 9,b,dense,,validation,perplexity,5.47,A paper\n"
    )
    own = speed_file(tmp_path, "metric", "score and mask", "sparsegpt", "dass", variant="2of4")
    prefill = tmp_path / "prefill.json"
    write_prefill(prefill, "b/c4/dass")
    report(
        summary=summed_up, published=[published], study="small", description="What it is.",
        note="What to know.",
        experiments={"main": SETTINGS, "other": SETTINGS | {"title": "Another"}},
        speed={"metric": SPEED}, speed_results=[own, prefill],
        speed_pruning=[tmp_path / "b/c4/dass/2of4/pruning.json"],
        activations=[], block_errors=[], blocks=None, speed_accuracy=AGAINST_SPEED,
        differences=["Another text."],
        **{form: tmp_path / f"report.{form}" for form in ("pdf", "html", "tex")},
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    for text in ("What it is.", "What to know.", "A paper, t. 9", "−0.14", "Title", "Another"):
        assert text in page
    accuracy, _, speed = page.partition('id="section-3"')[2].partition("Speed: pruning time")
    assert "Against speed" in accuracy and "DaSS, packed" in accuracy and "2.00" in accuracy
    assert "Another note." in speed
    assert "Whole pruning, s" in speed and "4.5" in speed  # of the run
    assert ">20<" in speed.replace(" ", "")  # two seconds a block, ten blocks


def test_accuracy_against_speed_is_of_the_runs_files(tmp_path: Path) -> None:
    files = study_files(tmp_path, "b")
    prefill = tmp_path / "prefill.json"
    write_prefill(prefill, "b/c4/dass")
    tex, markdown, svg = (tmp_path / f"accuracy.{form}" for form in ("tex", "md", "svg"))
    speed_accuracy(
        part="prefill", settings=AGAINST_SPEED, result_files=[prefill],
        perplexity=files["perplexity"], zero_shot=files["zero_shot"],
        tex_file=tex, markdown_file=markdown, figure_file=svg,
    )  # fmt: skip
    shown, rows = (
        TableSettings(**AGAINST_SPEED),
        summarise([], files["perplexity"], files["zero_shot"]).rows,
    )
    panels = panels_of("prefill", [read_speed(prefill)], rows, shown)
    table = speed_accuracy_table("prefill", panels, shown)
    assert (tex.read_text(), markdown.read_text()) == (table.latex(), table.markdown())
    assert "DaSS, packed" in markdown.read_text()
    figure = speed_accuracy_figure("prefill", panels, shown)
    assert svg.read_bytes() == figure_bytes(figure, "svg")


@pytest.mark.parametrize("kind", ["gpu", "cpu"])
def test_speed_has_the_table_and_the_figure_of_its_kind(kind: str, tmp_path: Path) -> None:
    engines = {"gpu": ("torch", "cuSPARSELt"), "cpu": ("torch", "torch CSR")}[kind]
    file = speed_file(tmp_path, kind, "mlp", *engines, variant="2of4")
    shared = {"kind": kind, "settings": SPEED, "result_files": [file]}
    tex, markdown, svg = (tmp_path / f"speed.{form}" for form in ("tex", "md", "svg"))
    speed_tables(**shared, tex_file=tex, markdown_file=markdown)
    speed_figures(**shared, figure_file=svg)
    results: list[SpeedResult] = [read_speed(file)]
    table = speed_table(kind, results, [], SpeedSettings(**SPEED))
    assert (tex.read_text(), markdown.read_text()) == (table.latex(), table.markdown())
    assert "Model B" in tex.read_text() and "Another note." in markdown.read_text()
    figure = speed_figure(kind, results, SpeedSettings(**SPEED))
    assert svg.read_bytes() == figure_bytes(figure, "svg")
