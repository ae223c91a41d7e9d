"""Speed tables and figures, against cells worked out by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dass.errors import DataError
from dass.models.shape import Shape
from dass.report.plots import figure_bytes
from dass.report.speed_figures import speed_figure
from dass.report.speed_sections import TITLES, speed_sections
from dass.report.speed_tables import (
    DISTURBED,
    SpeedSettings,
    cpu_table,
    duration,
    gpu_table,
    pruning_table,
    source_of,
)
from dass.report.table import Cell, Table
from dass.results.schema import PeakMemory, PruningResult, Run
from dass.speed.results import SpeedResult, parse_speed, read_speed, write_speed
from dass.speed.timing import Measurement, Skipped

SETTINGS = SpeedSettings(
    "demo",
    {"small": "Small", "large": "Large"},
    {"wanda": "Wanda", "sgpt": "SparseGPT", "dass": "DaSS"},
    "A note.",
)
GPU = {
    "name": "Some GPU", "cuda": "13.0", "cusparselt": 700,
    "nvidia_smi": {"driver_version": "1.2", "clocks.max.sm": "1980 MHz"},
}  # fmt: skip


def content(kind: str, measurements: list[Measurement], **changes: Any) -> dict[str, Any]:
    given = {
        "schema_version": 1,
        "kind": kind,
        "subject": "small",
        "shape": asdict(Shape(64, 128, 4, 2, 10)),
        "settings": {"threads": 3, "dtype": "float16"},
        "machine": {
            "cpu": "Some CPU", "isa": ["avx2"], "load": [0.5, 0.4, 0.3],
            "versions": {"torch": "2.99"}, "gpu": GPU if kind == "gpu" else None,
        },
        "measurements": [asdict(one) for one in measurements],
        "refusals": [],
        "provenance": {"date": "2026-01-02T03:04:05+00:00"},
    }  # fmt: skip
    return given | changes


def result(kind: str, measurements: list[Measurement], **changes: Any) -> SpeedResult:
    return parse_speed(content(kind, measurements, **changes), "test")


def cells(table: Table, label: str) -> list[str]:
    """The texts of the first row of this label, with their spread."""
    for section in table.sections:
        for group in section.groups:
            for name, row in group.rows:
                if name == label:
                    return [f"{c.text} {c.error}".strip() for c in row]
    raise LookupError(label)


def gpu_measurements() -> list[Measurement]:
    def one(engine: str, variant: str, tokens: int, seconds: list[float], mode: str) -> Measurement:
        return Measurement("mlp", engine, variant, tokens, "float16", seconds, mode, 0.001)

    return [
        one("torch", "dense", 1, [4e-5, 4e-5, 4e-5], "graph"),
        one("torch", "dense", 2048, [2e-3, 2e-3, 2e-3], "graph"),
        one("cusparselt", "2of4", 1, [8e-5, 8e-5, 8e-5], "graph"),
        one("cusparselt", "2of4", 2048, [1e-3, 2e-3, 1e-3], "graph"),
        one("cusparselt", "dass-2of4", 2048, [1.6e-3, 1.6e-3, 1.6e-3], "graph"),
    ]


def test_gpu_cells_are_ratios_of_rounds_and_the_dense_time() -> None:
    table = gpu_table([result("gpu", gpu_measurements())], SETTINGS)
    assert table.columns == ["1", "2048", "pays from"]
    assert cells(table, "dense, graph") == ["40 µs", "2 ms", "–"]
    # Ratios 2, 1, 2: median 2, quartiles 1.5 and 2; the lower one is above 1.
    assert cells(table, "cuSPARSELt 2:4, graph") == ["0.50 0.00", "2.00 0.25", "2048"]
    assert cells(table, "cuSPARSELt DaSS 2:4, graph") == ["–", "1.25 0.00", "2048"]


def test_captions_name_device_versions_dtype_and_refusals() -> None:
    reason = "gate: groups lie along the output"
    refused = asdict(Skipped("mlp", "cutlass", "2of4", "only Ampere"))
    twice = asdict(Skipped("block", "cutlass", "2of4", "only Ampere"))
    dass = asdict(Skipped("mlp", "stock kernels", "dass-2of4, gate and up", reason))
    own = result("gpu", gpu_measurements(), refusals=[refused, twice, dass])
    caption = gpu_table([own], SETTINGS).caption
    assert "Some GPU, driver 1.2, CUDA 13.0, cuSPARSELt 700" in caption
    assert "1980 MHz" in caption and "float16" in caption and "torch 2.99" in caption
    assert caption.count("CUTLASS 2:4: only Ampere") == 1
    assert f"stock kernels DaSS 2:4, gate and up: {reason}" in caption
    assert caption.endswith("A note.")


@pytest.mark.parametrize("make", [gpu_table, cpu_table])
def test_without_results_the_table_says_not_measured_here(make: Any) -> None:
    table = make([], SETTINGS)
    assert "not measured here" in table.markdown()
    assert "Not measured here" in table.caption
    assert "not measured here" in table.latex()
    assert r"\begin{table}" in table.latex()


def test_without_a_gpu_its_section_of_the_report_says_so() -> None:
    fields = {name: getattr(SETTINGS, name) for name in ("study", "subjects", "methods", "note")}
    sections = speed_sections([], [], dict.fromkeys(("metric", "gpu", "cpu"), fields))
    assert [section.title for section in sections] == list(TITLES.values())
    for section in sections:
        assert section.empty.startswith("Not measured here")
        assert (section.tables, section.figures) == ([], [])


def test_each_section_has_its_table_and_but_for_pruning_times_its_figure() -> None:
    fields = {name: getattr(SETTINGS, name) for name in ("study", "subjects", "methods", "note")}
    results = [result("gpu", gpu_measurements()), result("cpu", cpu_measurements())]
    gpu, cpu = speed_sections(results, [], {"gpu": fields, "cpu": fields})
    assert (gpu.empty, cpu.empty) == ("", "")
    assert gpu.tables == [gpu_table(results[:1], SETTINGS)]
    assert cpu.tables == [cpu_table(results[1:], SETTINGS)]
    files = [drawing.file for section in (gpu, cpu) for drawing in section.figures]
    assert files == ["speed/figures/gpu.pdf", "speed/figures/cpu.pdf"]
    (timed,) = speed_sections([result("metric", [])], [], {"metric": fields})
    assert len(timed.tables) == 1 and timed.figures == []


def cpu_measurements() -> list[Measurement]:
    def one(engine: str, variant: str, seconds: list[float], dtype: str = "float32") -> Measurement:
        return Measurement("mlp", engine, variant, 1, dtype, seconds, error=0.0)

    return [
        one("torch", "dense", [4.0, 4.0, 4.0]),
        one("torch", "dense", [1.0, 1.0, 1.0], "bfloat16"),
        one("torch CSR", "u70", [2.0, 2.0, 2.0]),
        one("onnxruntime", "dense", [3.0, 3.0, 3.0]),
    ]


def test_every_speed_up_is_given_against_each_dense_baseline() -> None:
    table = cpu_table([result("cpu", cpu_measurements())], SETTINGS)
    assert table.columns == ["ms", "× torch float32", "× torch bfloat16", "× onnxruntime"]
    assert cells(table, "torch CSR 70 %") == ["2,000 0", "2.00 0.00", "0.50 0.00", "1.50 0.00"]
    assert cells(table, "torch float32 dense")[1] == "1"
    assert cells(table, "onnxruntime dense")[1:3] == ["1.33 0.00", "0.33 0.00"]
    # Sparse beats the slowest baseline; the bold one is the fastest of all, and it is dense.
    bold = [name for g in table.sections[0].groups for name, row in g.rows if row[0].best]
    assert bold == ["torch bfloat16 dense"]
    assert "3 threads" in table.caption and "Some CPU (avx2)" in table.caption
    assert "itself included: 0.5." in table.caption


def test_a_machine_that_was_busy_with_other_work_is_named_in_the_caption() -> None:
    quiet, busy = content("cpu", cpu_measurements()), content("cpu", cpu_measurements())
    busy["machine"]["load"] = [5.0, 5.0, 5.0]  # with 3 threads
    assert DISTURBED not in cpu_table([parse_speed(quiet, "test")], SETTINGS).caption
    assert DISTURBED in cpu_table([parse_speed(busy, "test")], SETTINGS).caption


def pruning(method: str, total: float) -> PruningResult:
    return PruningResult(
        run=Run(model="small", calibration="c", method=method, pattern="2of4"),
        settings={}, calibration_hash="", mask_hash="", sparsity={}, mean_sparsity=0.5,
        seconds={"total": total}, block_seconds=[], tokens=1,
        peak_memory_bytes=PeakMemory(host=1, device=None),
        provenance={"device": "Some GPU"},
    )  # fmt: skip


def test_pruning_times_are_a_blocks_times_its_blocks_and_against_sparsegpt() -> None:
    def one(method: str, seconds: list[float]) -> Measurement:
        return Measurement("score and mask", method, "2of4", 0, "float16", seconds)

    measured = [one("wanda", [0.1, 0.1, 0.1]), one("sgpt", [0.8, 1.0, 1.2]), one("dass", [0.2] * 3)]
    methods = {"wanda": ["wanda", {}], "sgpt": ["sparsegpt", {}], "dass": ["dass", {}]}
    own = result("metric", measured, settings={"methods": methods, "dtype": "float16"})
    whole = [pruning("wanda", 20.0), pruning("sgpt", 50.0)]
    table = pruning_table([own], whole, SETTINGS)
    assert cells(table, "Wanda") == ["1 0", "10.00 1.00", "20", "2.5"]
    assert cells(table, "SparseGPT") == ["10 1", "1", "50", "1"]
    assert cells(table, "DaSS") == ["2 0", "5.00 0.50", "–", "–"]
    assert "The whole pruning ran on Some GPU." in table.caption
    alone = pruning_table([own], [], SETTINGS)
    assert alone.columns == ["Metric, s", "× SparseGPT's"]
    assert cells(alone, "Wanda") == ["1 0", "10.00 1.00"]
    assert "hole pruning" not in alone.caption


def test_a_studys_metric_files_hold_one_method_each_beside_sparsegpt() -> None:
    def one(method: str, seconds: float) -> Measurement:
        return Measurement("score and mask", method, "2of4", 0, "float16", [seconds] * 3)

    def file(method: str, seconds: float, sparsegpt: float) -> SpeedResult:
        methods = {method: [method, {}], "sgpt": ["sparsegpt", {}]}
        return result(
            "metric", [one(method, seconds), one("sgpt", sparsegpt)],
            subject=f"small/{method}", settings={"methods": methods},
        )  # fmt: skip

    # SparseGPT was slower beside DaSS: each ratio is of its own run, its row of its own file.
    alone = result(
        "metric", [one("sgpt", 1.0)], subject="small/sgpt",
        settings={"methods": {"sgpt": ["sparsegpt", {}]}},
    )  # fmt: skip
    table = pruning_table([file("dass", 0.2, 2.0), alone, file("wanda", 0.1, 1.0)], [], SETTINGS)
    (group,) = table.sections[0].groups
    assert [name for name, _ in group.rows] == ["Wanda", "SparseGPT", "DaSS"]
    assert cells(table, "Wanda") == ["1 0", "10.00 0.00"]
    assert cells(table, "SparseGPT") == ["10 0", "1"]
    assert cells(table, "DaSS") == ["2 0", "10.00 0.00"]


def sources(table: Table, label: str) -> list[tuple[str, ...]]:
    """The files behind each cell of the first row of this label."""
    rows = [row for part in table.sections for group in part.groups for row in group.rows]
    return next([cell.sources for cell in cells] for name, cells in rows if name == label)


def test_numbers_name_their_files_and_dashes_none() -> None:
    def one(method: str) -> Measurement:
        return Measurement("score and mask", method, "2of4", 0, "float16", [1.0] * 3)

    methods = {"wanda": ["wanda", {}], "sgpt": ["sparsegpt", {}]}
    subject = {"subject": "small/wanda", "settings": {"methods": methods}}
    timed = result("metric", [one("wanda"), one("sgpt")], **subject)
    runs = [f"runs/small/c/{method}/2of4/pruning.json" for method in ("wanda", "sgpt")]
    for number, of_runs in enumerate(([(), ()], [(runs[0],), ()], [(runs[0],), tuple(runs)])):
        whole = [pruning("wanda", 20.0), pruning("sgpt", 50.0)][:number]
        table = pruning_table([timed], whole or [pruning("other", 1.0)], SETTINGS)
        assert sources(table, "Wanda") == [("speed/metric/small/wanda.json",)] * 2 + of_runs
    gpu = gpu_table([result("gpu", gpu_measurements())], SETTINGS)
    dense, *others, pays = sources(gpu, "dense, graph")
    assert {dense, *others} == {("speed/gpu/small.json",)} and pays == ()
    cpu = cpu_table([result("cpu", cpu_measurements())], SETTINGS)
    assert sources(cpu, "torch CSR 70 %") == [("speed/cpu/small.json",)] * 4
    run = result("gpu", gpu_measurements(), subject="small/c/dass")
    assert source_of(run) == "speed/prefill/small/c/dass/2of4.json"  # as before patterns were told
    other = result("gpu", gpu_measurements(), subject="small/c/dass", settings={"pattern": "u50"})
    assert source_of(other) == "speed/prefill/small/c/dass/u50.json"
    assert gpu_table([other], SETTINGS).sections[0].title == "Small, pruned by DaSS to 50 %"


def test_durations_have_three_digits_and_a_unit() -> None:
    assert duration(3.5e-5) == "35 µs"
    assert duration(0.0012345) == "1.23 ms"
    assert duration(0.25) == "250 ms"


@pytest.mark.parametrize("kind", ["gpu", "cpu"])
def test_figures_are_drawn_with_and_without_results(kind: str) -> None:
    measurements = gpu_measurements() if kind == "gpu" else cpu_measurements()
    figure = speed_figure(kind, [result(kind, measurements)], SETTINGS)
    (axes,) = figure.axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels == (
        ["cuSPARSELt 2:4", "cuSPARSELt DaSS 2:4"] if kind == "gpu" else ["torch CSR 70 %"]
    )
    assert figure_bytes(figure, "pdf").startswith(b"%PDF")
    empty = speed_figure(kind, [], SETTINGS)
    assert empty.texts[0].get_text() == "not measured here"


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    written = result("gpu", gpu_measurements())
    write_speed(path, written)
    assert read_speed(path) == written
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"kind": "tpu"}, "kind: "),
        ({"extra": 1}, "extra: "),
        ({"measurements": [{"part": "mlp"}]}, "measurements.0"),
        ({"measurements": [asdict(Measurement("mlp", "e", "dense", 1, "f", []))]}, "no positive"),
    ],
)
def test_another_files_content_is_refused(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(content("cpu", cpu_measurements()) | change))
    with pytest.raises(DataError, match=complaint):
        read_speed(path)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"kind": "tpu"},
        {"measurements": [Measurement("mlp", "e", "dense", 1, "f", [])]},
        {"shape": Shape(0, 128, 4, 2, 10)},
    ],
)
def test_a_result_that_could_not_be_read_is_not_written(
    change: dict[str, Any], tmp_path: Path
) -> None:
    wrong = replace(result("cpu", cpu_measurements()), **change)
    with pytest.raises(DataError):
        write_speed(tmp_path / "new.json", wrong)
    assert not (tmp_path / "new.json").exists()


def test_a_cell_without_a_baseline_is_a_dash() -> None:
    only_sparse = [m for m in cpu_measurements() if m.variant != "dense"]
    table = cpu_table([result("cpu", only_sparse)], SETTINGS)
    assert table.columns == ["ms"]
    assert table.sections[0].groups[0].rows[0][1][0] == Cell(
        "2,000", "0", best=True, sources=("speed/cpu/small.json",)
    )
