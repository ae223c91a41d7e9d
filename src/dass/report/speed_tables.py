"""Tables of speed: pruning time, 2:4 on a GPU, sparse engines on a CPU; in the paper's form.

Every ratio comes from one interleaved run; its ± is half the distance of its quartiles. Captions
say what was measured on what machine, and what was skipped and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dass.errors import PatternError
from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.report.words import DASH, pattern_label
from dass.results.schema import PruningResult
from dass.speed.results import SpeedResult
from dass.speed.timing import Measurement, Spread, crossover, speed_up
from dass.terms import DENSE

NOT_MEASURED = "not measured here"
ENGINES = {
    "torch": "torch",
    "cusparselt": "cuSPARSELt",
    "cutlass": "CUTLASS",
    "onnxruntime": "onnxruntime",
    "openvino": "OpenVINO",
    "deepsparse": "DeepSparse",
}
PARTS = {"gate": "gate, up", "down": "down", "mlp": "MLP", "block": "Block", "prefill": "Prefill"}
DASS = "dass-2of4"
REFERENCE = "sparsegpt"
"""The method that pruning times are compared with, as in the paper."""
MOST_SKIPPED = 12
OWN_LOAD = 1.5
"""Load of the benchmark itself, beyond its threads."""
DISTURBED = "Other work used the same cores: do not trust small differences; measure again."


@dataclass(frozen=True)
class SpeedSettings:
    """What speed tables and figures show."""

    study: str
    subjects: dict[str, str]
    """Model or shape -> label."""
    methods: dict[str, str]
    """Key -> label."""
    note: str = ""
    """The end of every caption."""


def speed_table(
    kind: str, results: Sequence[SpeedResult], pruning: Sequence[PruningResult],
    settings: SpeedSettings,
) -> Table:  # fmt: skip
    """The table of one kind: ``metric``, ``gpu`` or ``cpu``."""
    if kind == "metric":
        return pruning_table(results, pruning, settings)
    return gpu_table(results, settings) if kind == "gpu" else cpu_table(results, settings)


# --- Pruning time -------------------------------------------------------------------------------


def pruning_table(
    results: Sequence[SpeedResult], pruning: Sequence[PruningResult], settings: SpeedSettings
) -> Table:
    """One section per model: seconds of the metric beside SparseGPT's.

    Args:
        results: one per method, as a study makes them, or one of several methods.
        pruning: adds the seconds of whole prunings; empty: their columns are left out.
        settings: labels.
    """
    whole: dict[tuple[str, str, str | None], float] = {}
    for one in pruning:  # with several calibrations, the first
        whole.setdefault((one.run.model, one.run.method, one.run.pattern), one.seconds["total"])
    columns = ["Metric, s", "× SparseGPT's"]
    caption = (
        "Pruning time. Metric: scores and masks of all blocks from given statistics (for SparseGPT "
        "its update, which is its metric), one block timed and multiplied by their number; ± half "
        "the distance of the quartiles. ×: how many times faster than SparseGPT, which took turns "
        "with each method in the same run."
    )
    if pruning:
        columns += ["Whole pruning, s", "× SparseGPT's whole"]
        caption += (
            " Whole pruning: the run itself, calibration passes and reading of weights included, "
            "measured once."
        )
    known = _known(results, settings)
    sections = []
    for subject, label in settings.subjects.items():
        own = [result for result in known if result.subject.split("/")[0] == subject]
        if groups := _pruning_groups(own, whole, len(columns), settings):
            sections.append(TableSection(label, groups))
    return Table(
        columns,
        sections or [_nothing(len(columns))],
        _caption(caption, known, settings, _devices(pruning)),
        f"tab:{settings.study}-speed-pruning",
    )


def _pruning_groups(
    results: Sequence[SpeedResult], whole: Mapping[tuple[str, str, str | None], float],
    columns: int, settings: SpeedSettings,
) -> list[RowGroup]:  # fmt: skip
    """The rows of one model by pattern; a method's row is of the run that was made for it."""
    rows: dict[str, dict[str, list[Cell]]] = {}
    for result in results:
        model, _, only = result.subject.partition("/")
        masks = {(m.engine, m.variant): m for m in result.of("score and mask")}
        for (method, pattern), own in masks.items():
            if only and method != only:
                continue  # SparseGPT, beside the method that this result is of
            reference = _reference_of(result)
            blocks = result.shape.blocks
            low, median, high = (blocks * value for value in own.spread)
            total, other = (whole.get((model, name, pattern)) for name in (method, reference))
            cells = [
                Cell(_digits(median), _digits((high - low) / 2)),
                _ratio(masks.get((reference, pattern)), own),
                Cell(_digits(total)) if total else Cell(),
                Cell(_digits(other / total)) if other and total else Cell(),
            ]
            rows.setdefault(pattern, {})[method] = cells[:columns]
    labels = settings.methods
    return [
        RowGroup(pattern_label(pattern), [(labels[m], of[m]) for m in labels if m in of])
        for pattern, of in rows.items()
    ]


def _reference_of(result: SpeedResult) -> str:
    """The name under which the study runs SparseGPT."""
    methods = result.settings.get("methods", {})
    return next((name for name, (function, _) in methods.items() if function == REFERENCE), "")


def _devices(pruning: Sequence[PruningResult]) -> list[str]:
    """What the whole prunings ran on."""
    found = dict.fromkeys(_device_of(run.provenance) for run in pruning)
    return [f"The whole pruning ran on {' and '.join(found)}."] if found else []


def _device_of(provenance: Mapping[str, Any]) -> str:
    cpu = (provenance.get("machine") or {}).get("cpu", "a CPU")
    return str(cpu if provenance.get("device") in (None, "cpu") else provenance["device"])


# --- GPU ---------------------------------------------------------------------------------------


def gpu_table(results: Sequence[SpeedResult], settings: SpeedSettings) -> Table:
    """One section per shape: dense time, and the speed-up of each 2:4 variant, by tokens."""
    known = _known(results, settings)
    counts = sorted({m.tokens for result in known for m in result.measurements})
    columns = [*(f"{count}" for count in counts), "pays from"]
    sections = [
        TableSection(_subject_label(result, settings), _gpu_groups(result, counts))
        for result in known
    ]
    caption = (
        "Dense against 2:4 on a GPU by tokens per call. Dense rows: the median time of a call. "
        "Others: how many times faster than dense in the same mode, ± half the distance of the "
        "quartiles; below 1 is slower. Graph: replayed as a CUDA graph, without the host's share "
        "of a call. Pays from: the number of tokens from which the lower quartile stays above 1. "
        "DaSS: down is 2:4; gate and up, whose groups lie along the output, run dense."
    )
    return Table(
        columns,
        sections or [_nothing(len(columns))],
        _caption(caption, known, settings),
        f"tab:{settings.study}-speed-gpu",
        ("Part", "Variant"),
    )


def _gpu_groups(result: SpeedResult, counts: Sequence[int]) -> list[RowGroup]:
    groups = []
    for part, label in PARTS.items():
        own = result.of(part)
        blocks = {m.blocks for m in own}
        if part == "prefill" and blocks and blocks != {result.shape.blocks}:
            label = f"{label}, {max(blocks)} of {result.shape.blocks} blocks"
        modes = [[m for m in own if m.mode == mode] for mode in ("eager", "graph")]
        if rows := [row for of_mode in modes for row in _gpu_rows(of_mode, counts)]:
            groups.append(RowGroup(label, rows))
    return groups


def _gpu_rows(own: Sequence[Measurement], counts: Sequence[int]) -> list[tuple[str, list[Cell]]]:
    """The dense row of a mode, then each variant's; of prefill tokens per second as well."""
    dense = {m.tokens: m for m in own if m.variant == DENSE}
    if not dense:
        return []
    rows = []

    def add(name: str, cells: list[Cell], found: Mapping[int, Measurement]) -> None:
        rows.append((f"{name}, {own[0].mode}", cells))
        if own[0].part == "prefill":
            speeds = [f"{n / found[n].spread.median:,.0f}" if n in found else DASH for n in counts]
            rows.append((f"{name}, {own[0].mode}, tokens/s", list(map(Cell, (*speeds, DASH)))))

    medians = [duration(dense[n].spread.median) if n in dense else DASH for n in counts]
    add(DENSE, list(map(Cell, (*medians, DASH))), dense)
    for engine, variant in dict.fromkeys((m.engine, m.variant) for m in own if m.variant != DENSE):
        found = {m.tokens: m for m in own if (m.engine, m.variant) == (engine, variant)}
        ratios = {n: ratio_of(dense[n], found[n]) for n in counts if n in found and n in dense}
        start = crossover(ratios)
        cells = [*(ratio_cell(ratios.get(n)) for n in counts), Cell(str(start or "never"))]
        add(f"{ENGINES.get(engine, engine)} {variant_label(variant)}", cells, found)
    return rows


# --- CPU ---------------------------------------------------------------------------------------


def cpu_table(results: Sequence[SpeedResult], settings: SpeedSettings) -> Table:
    """One section per shape and part: time, and speed-up over each dense baseline."""
    known = _known(results, settings)
    dense = [m for result in known for m in result.measurements if m.variant == DENSE]
    baselines = list(dict.fromkeys(map(engine_label, dense)))
    columns = ["ms", *(f"× {name}" for name in baselines)]
    sections = [
        TableSection(f"{_subject_label(result, settings)}, {PARTS[part]}", groups)
        for result in known
        for part in ("mlp", "block")
        if (groups := _cpu_groups(result, part, baselines))
    ]
    caption = (
        "Dense and sparse engines on a CPU by tokens per call: median time, and how many times "
        "faster than each dense baseline of the same interleaved run, ± half the distance of the "
        "quartiles; below 1 is slower. Bold: the fastest. Caches were swept before every call; a "
        "block attends to its own tokens only."
    )
    return Table(
        columns,
        sections or [_nothing(len(columns))],
        _caption(caption, known, settings),
        f"tab:{settings.study}-speed-cpu",
        ("Tokens", "Engine and weights"),
    )


def _cpu_groups(result: SpeedResult, part: str, baselines: Sequence[str]) -> list[RowGroup]:
    groups = []
    for tokens in dict.fromkeys(m.tokens for m in result.of(part)):
        own = [m for m in result.of(part) if m.tokens == tokens]
        dense = {engine_label(m): m for m in own if m.variant == DENSE}
        fastest = min(m.spread.median for m in own)
        rows = []
        for m in sorted(own, key=lambda m: m.variant != DENSE):
            low, median, high = (1e3 * value for value in m.spread)
            time = Cell(_digits(median), _digits((high - low) / 2), m.spread.median == fastest)
            cells = [_ratio(dense.get(name), m) for name in baselines]
            rows.append((f"{engine_label(m)} {variant_label(m.variant)}", [time, *cells]))
        groups.append(RowGroup(str(tokens), rows))
    return groups


def engine_label(one: Measurement) -> str:
    """An engine as tables call it; torch's dense products are told apart by dtype."""
    name = ENGINES.get(one.engine, one.engine)
    return f"{name} {one.dtype}" if one.engine == "torch" else name


# --- Shared ------------------------------------------------------------------------------------


def variant_label(variant: str) -> str:
    """``dense``, ``2:4``, ``70 %``, ``DaSS 2:4``."""
    if variant == DENSE:
        return variant
    if variant == DASS:
        return f"DaSS {pattern_label('2of4')}"
    return pattern_label(variant)


def ratio_of(dense: Measurement, other: Measurement) -> Spread:
    """How many times faster, of two measurements of one run."""
    return speed_up(dense.seconds, other.seconds)


def ratio_cell(ratio: Spread | None) -> Cell:
    """A speed-up and half the distance of its quartiles."""
    if ratio is None:
        return Cell()
    return Cell(f"{ratio.median:.2f}", f"{(ratio.high - ratio.low) / 2:.2f}")


def _ratio(dense: Measurement | None, other: Measurement) -> Cell:
    if dense is None or len(dense.seconds) != len(other.seconds):
        return Cell()
    if dense is other:
        return Cell("1")
    return ratio_cell(ratio_of(dense, other))


def duration(seconds: float) -> str:
    """A time in µs below 1 ms, else in ms."""
    return f"{_digits(seconds * 1e6)} µs" if seconds < 1e-3 else f"{_digits(seconds * 1e3)} ms"


def _digits(value: float) -> str:
    """Three significant digits; whole above 100."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _known(results: Sequence[SpeedResult], settings: SpeedSettings) -> list[SpeedResult]:
    """The results of the settings' subjects, in their order; a run's own prefill goes with it."""
    order = list(settings.subjects)
    found = [r for r in results if r.subject.split("/")[0] in settings.subjects]
    return sorted(found, key=lambda r: (order.index(r.subject.split("/")[0]), r.subject))


def _subject_label(result: SpeedResult, settings: SpeedSettings) -> str:
    model, _, run = result.subject.partition("/")
    label = settings.subjects[model]
    if not run:
        return label
    method = run.rpartition("/")[2]
    return f"{label}, pruned by {settings.methods.get(method, method)}"


def _nothing(columns: int) -> TableSection:
    return TableSection("", [RowGroup(NOT_MEASURED, [("", [Cell()] * columns)])])


def _caption(
    what: str, results: Sequence[SpeedResult], settings: SpeedSettings, more: Sequence[str] = ()
) -> str:
    """What it is, the machine it was measured on, what was skipped, the study's note."""
    if not results:
        where = "This study has no result of this benchmark"
        return " ".join([what, f"{NOT_MEASURED.capitalize()}. {where}.", *more, settings.note])
    about = list(dict.fromkeys(map(about_machine, results)))
    said = [what, *more, *about, load_line(results), skipped_line(results), settings.note]
    return " ".join(filter(None, said))


def about_machine(result: SpeedResult) -> str:
    """Device, versions, dtype and threads of a result, as a caption's sentence."""
    machine, gpu = result.machine, result.machine.get("gpu")
    found = dict(machine.get("versions") or {})
    for name, about in (machine.get("engines") or {}).items():
        found[ENGINES.get(name, name)] = about["version"]
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    if gpu and result.kind != "cpu":
        smi = gpu.get("nvidia_smi") or {}
        words = [str(gpu["name"]), f"driver {smi.get('driver_version', 'unknown')}"]
        words += [f"CUDA {gpu['cuda']}", f"cuSPARSELt {gpu['cusparselt']}"]
        words += [f"SM clock {smi['clocks.max.sm']} at most"] if "clocks.max.sm" in smi else []
    else:
        words = [f"{machine['cpu']} ({' '.join(machine['isa']) or 'no extensions known'})"]
        threads = result.settings.get("threads")
        words += [f"{threads} threads"] if threads else []
    if (dtype := result.settings.get("dtype")) is not None:
        words.append(str(dtype))
    return f"Measured on {', '.join(words)}; {versions}; {result.provenance['date'][:10]}."


def load_line(results: Sequence[SpeedResult]) -> str:
    """How busy the machine was with other work, as far as the system counts it."""
    loads = sorted(r.machine["load"][0] for r in results if r.machine.get("load"))
    if not loads or all(result.kind == "gpu" for result in results):
        return ""
    span = f"{loads[0]:g}" if loads[0] == loads[-1] else f"{loads[0]:g} to {loads[-1]:g}"
    line = f"Load of the machine in the last minute of the measurement, itself included: {span}."
    threads = max(int(result.settings.get("threads") or 1) for result in results)
    return f"{line} {DISTURBED}" if loads[-1] > threads + OWN_LOAD else line


def skipped_line(results: Sequence[SpeedResult]) -> str:
    """What was skipped and why, each once."""
    found: dict[str, None] = {}
    for result in results:
        for one in result.refusals:
            mode = f" ({one.mode})" if one.mode else ""
            name = ENGINES.get(one.engine, one.engine)
            found[f"{name} {_readable(one.variant)}{mode}: {one.reason}"] = None
    if not found:
        return ""
    shown = list(found)[:MOST_SKIPPED]
    more = f"; and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return f"Not run: {'; '.join(shown)}{more}."


def _readable(variant: str) -> str:
    """The variant of what was skipped: a pattern, perhaps with roles."""
    pattern, comma, roles = variant.partition(", ")
    try:
        return f"{variant_label(pattern)}{comma}{roles}"
    except PatternError:
        return variant
