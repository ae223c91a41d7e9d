"""Tables of speed: pruning time, 2:4 on a GPU, sparse engines on a CPU; in the paper's form.

Every ratio comes from one interleaved run; its ± is half the distance of its quartiles. Captions
say what was measured on what machine, and what was skipped and why.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dass.errors import PatternError
from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.report.words import pattern_label
from dass.results.schema import PruningResult
from dass.speed.results import SpeedResult
from dass.speed.timing import Measurement, Spread, crossover, speed_up
from dass.terms import DENSE

NOT_MEASURED = "not measured here"
ENGINES = {
    "torch": "torch",
    "torch.compile": "torch.compile",
    "packed": "packed",
    "cusparselt": "cuSPARSELt",
    "cutlass": "CUTLASS",
    "onnxruntime": "onnxruntime",
    "openvino": "OpenVINO",
    "deepsparse": "DeepSparse",
}
PARTS = {
    "gate": "gate, up", "down": "down", "mlp": "MLP", "block": "Block", "prefill": "Prefill",
    "decode": "Decode",
}  # fmt: skip
WHOLE_MODELS = ("prefill", "decode")
"""Parts that go through all blocks, and of which tokens per second are told."""
DASS = "dass-2of4"
REFERENCE = "sparsegpt"
"""The method that pruning times are compared with, as in the paper."""
MOST_SKIPPED = 12
OWN_LOAD = 1.5
"""Load of the benchmark itself, beyond its threads."""
DISTURBED = "Other work used the same cores: do not trust small differences; measure again."

CAPTIONS = {
    "pruning": "Pruning time. Metric: scores and masks of all blocks from given statistics (for "
    "SparseGPT its update, which is its metric), one block timed and multiplied by their number; ± "
    "half the distance of the quartiles. ×: how many times faster than SparseGPT, which took turns "
    "with each method in the same run.",
    "gpu": "Dense against sparse on a GPU by tokens per call. Dense rows: the median time of a "
    "call. Others: how many times faster than dense in the same mode, ± half the distance of the "
    "quartiles; below 1 is slower. Graph: replayed as a CUDA graph, without the host's share of a "
    "call. Pays from: the number of tokens from which the lower quartile stays above 1. DaSS on "
    "stock kernels: down is 2:4; gate and up, whose groups lie along the output, run dense. "
    "Packed: all three, by kernels for up to 16 tokens; more are multiplied by the unpacked "
    "weight. Decode: one token of each sequence, on a static cache of 1024 places, half full.",
    "cpu": "Dense and sparse engines on a CPU by tokens per call: median time, and how many times "
    "faster than each dense baseline of the same interleaved run, ± half the distance of the "
    "quartiles; below 1 is slower. Bold: the fastest. Caches were swept before every call; a block "
    "attends to its own tokens only. Packed weights are bfloat16.",
}
WHOLE = "Whole pruning: the run itself, calibration and reading of weights included, measured once."
PruningOf = Mapping[tuple[str, str, str | None], PruningResult]
"""(model, method, pattern) -> the run's own pruning."""


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
    whole: dict[tuple[str, str, str | None], PruningResult] = {}
    for one in pruning:  # with several calibrations, the first
        whole.setdefault((one.run.model, one.run.method, one.run.pattern), one)
    columns, more = ["Metric, s", "× SparseGPT's"], []
    if pruning:
        columns += ["Whole pruning, s", "× SparseGPT's whole"]
        devices = dict.fromkeys(_device_of(run.provenance) for run in pruning)
        more = [WHOLE, f"The whole pruning ran on {' and '.join(devices)}."]
    sections = []
    for subject, label in settings.subjects.items():
        own = [one for one in _known(results, settings) if one.subject.split("/")[0] == subject]
        if groups := _pruning_groups(own, whole, len(columns), settings):
            sections.append(TableSection(label, groups))
    return _table("pruning", columns, sections, results, settings, more=more)


def _pruning_groups(
    results: Sequence[SpeedResult], whole: PruningOf, columns: int, settings: SpeedSettings
) -> list[RowGroup]:
    """The rows of one model by pattern; a method's row is of the run that was made for it."""
    rows: dict[str, dict[str, list[Cell]]] = {}
    for result in results:
        model, _, only = result.subject.partition("/")
        reference = _reference_of(result)
        masks = {(m.engine, m.variant): m for m in result.of("score and mask")}
        for (method, pattern), own in masks.items():
            if only and method != only:
                continue  # SparseGPT, beside the method that this result is of
            timed = [
                _time_cell(own, result.shape.blocks),
                _ratio_cell(masks.get((reference, pattern)), own),
            ]
            runs = [whole.get((model, name, pattern)) for name in (method, reference)]
            cells = [*(cell.made_of(source_of(result)) for cell in timed), *_whole_cells(*runs)]
            rows.setdefault(pattern, {})[method] = cells[:columns]
    labels = settings.methods
    return [
        RowGroup(pattern_label(pattern), [(labels[m], of[m]) for m in labels if m in of])
        for pattern, of in rows.items()
    ]


def _whole_cells(own: PruningResult | None, other: PruningResult | None) -> tuple[Cell, Cell]:
    """Seconds of a run's whole pruning, and how many times faster it was than another one."""
    if own is None:
        return Cell(), Cell()
    files = [f"runs/{one.run}/pruning.json" for one in (own, other) if one is not None]
    total = own.seconds["total"]
    times = Cell() if other is None else Cell(_digits(other.seconds["total"] / total))
    return Cell(_digits(total)).made_of(files[0]), times.made_of(*dict.fromkeys(files))


def _reference_of(result: SpeedResult) -> str:
    """The name under which the study runs SparseGPT."""
    methods = result.settings.get("methods", {})
    return next((name for name, (function, _) in methods.items() if function == REFERENCE), "")


def _device_of(provenance: Mapping[str, Any]) -> str:
    cpu = (provenance.get("machine") or {}).get("cpu", "a CPU")
    return str(cpu if provenance.get("device") in (None, "cpu") else provenance["device"])


# --- GPU ---------------------------------------------------------------------------------------


def gpu_table(results: Sequence[SpeedResult], settings: SpeedSettings) -> Table:
    """One section per shape: dense time, and the speed-up of each 2:4 variant, by tokens."""
    known = _known(results, settings)
    counts = sorted({m.tokens for result in known for m in result.measurements})
    sections = [
        TableSection(
            _subject_label(result, settings),
            [group.made_of(source_of(result)) for group in _gpu_groups(result, counts)],
        )
        for result in known
    ]
    columns = [*map(str, counts), "pays from"]
    return _table("gpu", columns, sections, results, settings, ("Part", "Variant"))


def _gpu_groups(result: SpeedResult, counts: Sequence[int]) -> list[RowGroup]:
    groups = []
    for part, label in PARTS.items():
        own = result.of(part)
        blocks = {m.blocks for m in own}
        if part in WHOLE_MODELS and blocks and blocks != {result.shape.blocks}:
            label = f"{label}, {max(blocks)} of {result.shape.blocks} blocks"
        modes = [[m for m in own if m.mode == mode] for mode in ("eager", "graph")]
        if rows := [row for of_mode in modes for row in _gpu_rows(of_mode, counts)]:
            groups.append(RowGroup(label, rows))
    return groups


def _gpu_rows(
    own: Sequence[Measurement], counts: Sequence[int]
) -> Iterator[tuple[str, list[Cell]]]:
    """The dense row of a mode, then each variant's; of prefill tokens per second as well."""
    lines: dict[tuple[str, str], dict[int, Measurement]] = {}
    for m in own:
        key = ("", DENSE) if (m.engine, m.variant) == ("torch", DENSE) else (m.engine, m.variant)
        lines.setdefault(key, {})[m.tokens] = m
    if not (dense := lines.pop(("", DENSE), {})):
        return
    for (engine, variant), found in {("", DENSE): dense, **lines}.items():
        name = f"{ENGINES.get(engine, engine)} {variant_label(variant)}, {own[0].mode}".strip()
        if found is dense:
            times = {n: Cell(duration(m.spread.median)) for n, m in found.items()}
            yield name, [*(times.get(n, Cell()) for n in counts), Cell()]
        else:
            ratios = {n: ratio_of(dense[n], m) for n, m in found.items() if n in dense}
            cells = [_ratio_cell(dense.get(n), found.get(n)) for n in counts]
            yield name, [*cells, Cell(str(crossover(ratios) or "never"))]
        if own[0].part in WHOLE_MODELS:
            speeds = {n: Cell(f"{n / m.spread.median:,.0f}") for n, m in found.items()}
            yield f"{name}, tokens/s", [*(speeds.get(n, Cell()) for n in counts), Cell()]


# --- CPU ---------------------------------------------------------------------------------------


def cpu_table(results: Sequence[SpeedResult], settings: SpeedSettings) -> Table:
    """One section per shape and part: time, and speed-up over each dense baseline."""
    known = _known(results, settings)
    dense = [m for result in known for m in result.measurements if m.variant == DENSE]
    baselines = list(dict.fromkeys(map(engine_label, dense)))
    sections = [
        TableSection(
            f"{_subject_label(result, settings)}, {PARTS[part]}",
            [group.made_of(source_of(result)) for group in groups],
        )
        for result in known
        for part in ("mlp", "block")
        if (groups := _cpu_groups(result, part, baselines))
    ]
    columns = ["ms", *(f"× {name}" for name in baselines)]
    return _table("cpu", columns, sections, results, settings, ("Tokens", "Engine and weights"))


def _cpu_groups(result: SpeedResult, part: str, baselines: Sequence[str]) -> list[RowGroup]:
    groups = []
    for tokens in dict.fromkeys(m.tokens for m in result.of(part)):
        own = [m for m in result.of(part) if m.tokens == tokens]
        dense = {engine_label(m): m for m in own if m.variant == DENSE}
        fastest = min(m.spread.median for m in own)
        rows = []
        for m in sorted(own, key=lambda m: m.variant != DENSE):
            ratios = [_ratio_cell(dense.get(name), m) for name in baselines]
            cells = [_time_cell(m, 1e3, best=m.spread.median == fastest), *ratios]
            rows.append((f"{engine_label(m)} {variant_label(m.variant)}", cells))
        groups.append(RowGroup(str(tokens), rows))
    return groups


def engine_label(one: Measurement) -> str:
    """An engine as tables call it; torch's dense products are told apart by dtype."""
    name = ENGINES.get(one.engine, one.engine)
    return f"{name} {one.dtype}" if one.engine == "torch" else name


# --- Shared ------------------------------------------------------------------------------------


def source_of(result: SpeedResult) -> str:
    """The file of a result, relative to the study's results."""
    if result.run:
        return f"speed/prefill/{result.run}.json"
    return f"speed/{result.kind}/{result.subject}.json"


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


def _ratio_cell(dense: Measurement | None, other: Measurement | None) -> Cell:
    """A speed-up and half the distance of its quartiles; a dash where one did not run."""
    if dense is None or other is None or len(dense.seconds) != len(other.seconds):
        return Cell()
    if dense is other:
        return Cell("1")
    ratio = ratio_of(dense, other)
    return Cell(f"{ratio.median:.2f}", f"{(ratio.high - ratio.low) / 2:.2f}")


def _time_cell(one: Measurement, factor: float, best: bool = False) -> Cell:
    """A median and half the distance of its quartiles, in seconds times ``factor``."""
    low, median, high = (factor * value for value in one.spread)
    return Cell(_digits(median), _digits((high - low) / 2), best)


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
    model, *run = (result.run or result.subject).split("/")
    label = settings.subjects[model]
    if not run:
        return label
    _, method, pattern = run
    by = settings.methods.get(method, method)
    return f"{label}, pruned by {by} to {pattern_label(pattern)}"


def _table(
    kind: str, columns: list[str], sections: list[TableSection], results: Sequence[SpeedResult],
    settings: SpeedSettings, corner: tuple[str, str] = ("Sparsity", "Method"),
    more: Sequence[str] = (),
) -> Table:  # fmt: skip
    """A table whose caption says on what machine it was measured and what was skipped."""
    said = [CAPTIONS[kind], *more]
    if known := _known(results, settings):
        said += [*dict.fromkeys(map(about_machine, known)), load_line(known), skipped_line(known)]
    else:
        said.append(f"{NOT_MEASURED.capitalize()}. This study has no result of this benchmark.")
    nothing = TableSection("", [RowGroup(NOT_MEASURED, [("", [Cell()] * len(columns))])])
    caption = " ".join(filter(None, [*said, settings.note]))
    label = f"tab:{settings.study}-speed-{kind}"
    return Table(columns, sections or [nothing], caption, label, corner)


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
