"""Frames of all runs, and the tables that are printed of them.

Result files become one frame with a row a run (``summary.csv``); every printed number comes from
that frame alone. A :class:`Table` holds plain text; :meth:`Table.latex` and
:meth:`Table.markdown` escape it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tabulate import DataRow, TableFormat, tabulate

from dass.errors import DataError
from dass.pruning.patterns import Unstructured, parse_pattern
from dass.results.schema import (
    DENSE,
    PerplexityResult,
    PruningResult,
    Run,
    ZeroShotResult,
    read_result,
)
from dass.runtime.files import writing

Metric = Literal["acc", "acc_norm"]
Record = dict[str, Any]
"""One run's row of the summary, without its empty cells."""
Key = tuple[str, str | None, str, str | None]
"""Model, calibration, method, pattern."""
Line = tuple[str | None, str, str | None]
"""Calibration, method, pattern: a line of a table, whatever the model."""

KEYS = ["model", "calibration", "method", "pattern"]
TASK_LABELS = {
    "hellaswag": "HellaSwag",
    "winogrande": "WinoGrande",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "piqa": "PIQA",
}
DASH = "–"
"""Printed where a run was not measured."""
ROWS_A_PAGE = 46
"""A LaTeX table of more rows goes on in a second float, since a float cannot break."""


# --- The summary: one row a run -----------------------------------------------------------------


def summary_frame(
    pruning: Iterable[Path], perplexity: Iterable[Path], zero_shot: Iterable[Path]
) -> pd.DataFrame:
    """One row a run: models and runs in the order of the paths, each model's dense run first.

    Columns, where measured (accuracies and sparsity are shares, not percent; times in seconds):

    - model, calibration, method, pattern
    - perplexity_<split>, windows_<split>, tokens_hash_<split>, perplexity_dataset,
      perplexity_length, perplexity_bos, perplexity_seconds
    - <task>_acc, <task>_acc_stderr, <task>_acc_norm, <task>_acc_norm_stderr, <task>_samples,
      <task>_version, <task>_requests_hash; mean_acc, and mean_acc_norm, where a task without
      acc_norm counts with its acc; zero_shot_limit, zero_shot_seconds
    - mean_sparsity, pruning_seconds, calibration_tokens, calibration_hash, mask_hash,
      peak_memory_bytes (host) and peak_device_memory_bytes: the highest of the run's stages
    - date (the latest), commit, device, versions

    Raises:
        DataError: a file is malformed; two files are about one run; results of one run come from
            different masks, or results of one model from different evaluation tokens.
    """
    rows = _Rows()
    for path in pruning:
        pruned = read_result(path, PruningResult)
        rows.add(path, pruned.run, "pruning", _pruning_columns(pruned), pruned.provenance)
    for path in perplexity:
        evaluated = read_result(path, PerplexityResult)
        columns = _perplexity_columns(evaluated)
        rows.add(path, evaluated.run, "perplexity", columns, evaluated.provenance)
    for path in zero_shot:
        scored = read_result(path, ZeroShotResult)
        rows.add(path, scored.run, "zero_shot", _zero_shot_columns(scored), scored.provenance)
    return rows.frame()


def write_summary(
    csv: Path, pruning: Iterable[Path], perplexity: Iterable[Path], zero_shot: Iterable[Path]
) -> None:
    """Write :func:`summary_frame` as CSV; floats keep all their digits."""
    _write_frame(csv, summary_frame(pruning, perplexity, zero_shot))


def merge_summaries(paths: Iterable[Path], out: Path) -> None:
    """Put the summaries of several models below one another.

    Raises:
        DataError: one is no summary, or two hold the same run.
    """
    merged = pd.concat([read_summary(path) for path in paths], ignore_index=True)
    if (twice := merged[merged.duplicated(KEYS)]).size:
        run = "/".join(str(key) for key in twice.iloc[0][KEYS].dropna())
        raise DataError(f"{out}: run {run} is in more than one summary; give each model once")
    _write_frame(out, merged)


def read_summary(path: str | Path) -> pd.DataFrame:
    """Read a summary that :func:`write_summary` or :func:`merge_summaries` wrote.

    Raises:
        DataError: the file is missing or is no summary.
    """
    texts = re.compile(r"hash|version|commit|date$|device$|dataset|bos")
    try:
        frame = pd.read_csv(path, dtype="str", keep_default_na=False, na_values=[""])
        numbers = [n for n in frame.columns if n not in KEYS and not texts.search(n)]
        frame = frame.astype(dict.fromkeys(numbers, "float64"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ValueError as error:  # pandas' parser errors are ValueErrors
        line = str(error).strip().splitlines()[0]
        raise DataError(f"{path}: no summary ({line}); delete it and run again") from None
    if missing := [key for key in KEYS if key not in frame.columns]:
        raise DataError(f"{path}: no column {missing[0]!r}; delete it and run again")
    return _whole_numbers(frame)


def records(summary: pd.DataFrame) -> dict[Key, Record]:
    """The summary by run, without empty cells."""
    found: dict[Key, Record] = {}
    for row in summary.to_dict("records"):
        record = {str(name): value for name, value in row.items() if not pd.isna(value)}
        key = (record["model"], record.get("calibration"), record["method"], record.get("pattern"))
        found[key] = record
    return found


class _Rows:
    """Columns of each run, gathered from its files."""

    def __init__(self) -> None:
        self._rows: dict[Key, dict[str, Record]] = {}
        self._seen: dict[tuple[str, str], tuple[str, Path]] = {}

    def add(self, path: Path, run: Run, stage: str, columns: Record, origin: Record) -> None:
        """Take one file's columns, and check them against what is there already."""
        key = (run.model, run.calibration, run.method, run.pattern)
        row = self._rows.setdefault(key, {})
        if stage in row:
            raise DataError(f"{path}: a second {stage} result of run {run}; give each file once")
        self._check_mask(path, run, columns)
        for name, value in columns.items():
            if "tokens_hash" in name or "requests_hash" in name:
                self._check_same(path, run.model, name, value)
        row[stage] = columns
        row[f"{stage} provenance"] = origin

    def _check_mask(self, path: Path, run: Run, columns: Record) -> None:
        """A run's results are of one set of masks."""
        value, other = self._seen.setdefault((str(run), "mask"), (columns["mask_hash"], path))
        if value != columns["mask_hash"]:
            raise DataError(
                f"{path}: mask_hash differs from {other}: the two are of different masks; "
                "delete the older one and run again"
            )

    def _check_same(self, path: Path, model: str, name: str, value: str) -> None:
        """Runs of a model are compared, so they must have been asked the same."""
        first, other = self._seen.setdefault((model, name), (value, path))
        if value != first:
            raise DataError(
                f"{path}: {name} differs from {other}: the runs were not evaluated on the same "
                "tokens; delete the older one and run again"
            )

    def frame(self) -> pd.DataFrame:
        """One row a run, in the order that :func:`summary_frame` promises."""
        models = list(dict.fromkeys(key[0] for key in self._rows))
        order = sorted(self._rows, key=lambda key: (models.index(key[0]), key[2] != DENSE))
        parts = ["keys", "perplexity", "zero_shot", "pruning", "origin"]
        rows = [self._parts(key) for key in order]
        columns = dict.fromkeys(name for part in parts for row in rows for name in row[part])
        flat = [{n: v for part in parts for n, v in row[part].items()} for row in rows]
        return _whole_numbers(pd.DataFrame(flat, columns=list(columns) or KEYS))

    def _parts(self, key: Key) -> dict[str, Record]:
        row = self._rows[key]
        parts = {part: row.get(part, {}) for part in ("perplexity", "zero_shot", "pruning")}
        origins = [value for name, value in row.items() if name.endswith("provenance")]
        peaks = [row["pruning"]["peaks"]] if "pruning" in row else []
        peaks += [origin.get("peak_memory_bytes") or {} for origin in origins]
        parts["pruning"] = {n: v for n, v in parts["pruning"].items() if n != "peaks"}
        parts["keys"] = dict(zip(KEYS, key, strict=True))
        parts["origin"] = _peak_columns(peaks) | _origin_columns(origins)
        return parts


def _pruning_columns(result: PruningResult) -> Record:
    return {
        "mean_sparsity": result.mean_sparsity,
        "pruning_seconds": result.seconds.get("total"),
        "calibration_tokens": result.tokens,
        "calibration_hash": result.calibration_hash,
        "mask_hash": result.mask_hash,
        "peaks": result.peak_memory_bytes.model_dump(),
    }


def _perplexity_columns(result: PerplexityResult) -> Record:
    columns: Record = {}
    for split, values in result.splits.items():
        columns[f"perplexity_{split}"] = values.perplexity
        columns[f"windows_{split}"] = values.windows
        columns[f"tokens_hash_{split}"] = values.tokens_hash
    return columns | {
        "perplexity_dataset": result.dataset,
        "perplexity_length": result.settings.get("length"),
        "perplexity_bos": result.settings.get("bos"),
        "perplexity_seconds": result.provenance.get("seconds"),
        "mask_hash": result.mask_hash,
    }


def _zero_shot_columns(result: ZeroShotResult) -> Record:
    columns: Record = {}
    for task, values in result.tasks.items():
        columns |= {f"{task}_{name}": value for name, value in values.model_dump().items()}
        columns[f"{task}_version"] = str(values.version)
    acc = [t.acc for t in result.tasks.values()]
    norm = [t.acc if t.acc_norm is None else t.acc_norm for t in result.tasks.values()]
    return columns | {
        "mean_acc": sum(acc) / len(acc),
        "mean_acc_norm": sum(norm) / len(norm),
        "zero_shot_limit": result.limit,
        "zero_shot_seconds": result.provenance.get("seconds"),
        "mask_hash": result.mask_hash,
    }


def _peak_columns(peaks: list[dict[str, int | None]]) -> Record:
    host = [peak["host"] for peak in peaks if peak.get("host") is not None]
    device = [peak["device"] for peak in peaks if peak.get("device") is not None]
    return {
        "peak_memory_bytes": max((p for p in host if p is not None), default=None),
        "peak_device_memory_bytes": max((p for p in device if p is not None), default=None),
    }


def _origin_columns(origins: list[Record]) -> Record:
    """Date of the last stage; commits, devices and versions of all, each once."""
    dates = [str(origin["date"]) for origin in origins if origin.get("date")]
    versions = [
        ", ".join(f"{name} {version}" for name, version in (o.get("versions") or {}).items())
        for o in origins
    ]
    return {
        "date": max(dates, default=None),
        "commit": _each_once(origin.get("commit") for origin in origins),
        "device": _each_once(origin.get("device") for origin in origins),
        "versions": _each_once(versions),
    }


def _each_once(texts: Iterable[str | None]) -> str | None:
    return "; ".join(dict.fromkeys(text for text in texts if text)) or None


def _whole_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Counts stay whole where a run has none: pandas would make floats of them."""
    ends = ("_samples", "_bytes", "_limit", "_length", "calibration_tokens")
    counts = [c for c in frame.columns if str(c).endswith(ends) or str(c).startswith("windows_")]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def _write_frame(csv: Path, frame: pd.DataFrame) -> None:
    with writing(csv) as part:
        frame.to_csv(part, index=False, lineterminator="\n")


# --- What a table is --------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One printed number, or a dash."""

    text: str = DASH
    error: str = ""
    """Standard error, printed smaller after the number."""
    best: bool = False


@dataclass(frozen=True)
class Group:
    """Rows of one pattern."""

    label: str
    rows: list[tuple[str, list[Cell]]]
    """Method and its cells, one a column."""


@dataclass(frozen=True)
class Block:
    """Groups under one title; a table with a single block needs none."""

    title: str
    groups: list[Group]

    @property
    def n_rows(self) -> int:
        """Lines that the block takes."""
        return sum(len(group.rows) for group in self.groups) + bool(self.title)


@dataclass(frozen=True)
class Table:
    """A table as plain text, to be printed as LaTeX or Markdown, or drawn."""

    columns: list[str]
    blocks: list[Block]
    caption: str
    label: str
    """LaTeX's, e.g. ``tab:main-perplexity``."""
    corner: tuple[str, str] = ("Sparsity", "Method")
    """Heads of the first two columns."""

    def latex(self) -> str:
        """A complete ``table`` environment that needs the package booktabs only.

        A table that would not fit on a page becomes several, under one number.
        """
        pages = self.pages()
        return "\n".join(self._latex_page(page, first=page is pages[0]) for page in pages)

    def pages(self) -> list[list[Block]]:
        """The blocks in parts that fit on a page; only a block that does not is itself cut."""
        return _pages(self.blocks, ROWS_A_PAGE)

    def markdown(self) -> str:
        """The caption as a paragraph, and the table; title and pattern stand in every row."""
        titled = any(block.title for block in self.blocks)
        head = [*(["Model"] if titled else []), *self.corner, *self.columns]
        rows = [
            [*([block.title] if titled else []), group.label, method, *map(_markdown_cell, cells)]
            for block in self.blocks
            for group in block.groups
            for method, cells in group.rows
        ]
        texts = len(head) - len(self.columns)
        for row in rows:
            row[:texts] = map(escape_markdown, row[:texts])
        align = ["left"] * texts + ["right"] * len(self.columns)
        table = tabulate(
            rows,
            list(map(escape_markdown, head)),
            tablefmt="pipe",
            colalign=align,
            disable_numparse=True,
        )
        return f"{escape_markdown(self.caption)}\n\n{table}\n"

    def _latex_page(self, blocks: list[Block], first: bool) -> str:
        lines = iter(self._latex_lines(blocks))
        align = "ll" + "r" * len(self.columns)
        head = [r"\begin{table}[htbp]", r"\centering", r"\setlength{\belowcaptionskip}{3pt}"]
        if first:
            head += [rf"\caption{{{escape_latex(self.caption)}}}", rf"\label{{{self.label}}}"]
        else:
            head += [r"\addtocounter{table}{-1}", r"\caption{(continued)}"]
        head += [r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"]
        head += [r"\renewcommand{\arraystretch}{0.95}"]
        # A table wider than the text reaches into both margins alike.
        head += [r"\makebox[\linewidth]{%", rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}"]
        head += [r"\toprule", next(lines)]
        body: list[str] = []
        for block in blocks:
            body.append(r"\midrule")
            if block.title:
                title = escape_latex(block.title)
                body.append(rf"\multicolumn{{{len(align)}}}{{@{{}}l}}{{\textit{{{title}}}}} \\")
            for number, group in enumerate(block.groups):
                if number:
                    body.append(r"\addlinespace[2pt]" if block.title else r"\midrule")
                body += [next(lines) for _ in group.rows]
        foot = [r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""]
        return "\n".join([*head, *body, *foot])

    def _latex_lines(self, blocks: list[Block]) -> list[str]:
        """The head and every row, aligned by tabulate; rules and titles come between them."""
        rows = [
            [
                escape_latex("" if number else group.label),
                escape_latex(method),
                *map(_latex_cell, cells),
            ]
            for block in blocks
            for group in block.groups
            for number, (method, cells) in enumerate(group.rows)
        ]
        head = list(map(escape_latex, [*self.corner, *self.columns]))
        align = ["left", "left"] + ["right"] * len(self.columns)
        text = tabulate(rows, head, tablefmt=_LATEX, colalign=align, disable_numparse=True)
        return [line.rstrip() for line in text.splitlines()]


_ROW = DataRow("", " & ", r" \\")
# tabulate's latex_booktabs escapes its cells, hence also \textbf, and latex_raw has no booktabs.
_LATEX = TableFormat(None, None, None, None, _ROW, _ROW, padding=0, with_header_hide=None)


def _pages(blocks: list[Block], rows: int) -> list[list[Block]]:
    """Blocks in parts of at most ``rows`` lines."""
    pages: list[list[Block]] = [[]]
    for block in (piece for whole in blocks for piece in _pieces(whole, rows)):
        if pages[-1] and sum(b.n_rows for b in pages[-1]) + block.n_rows > rows:
            pages.append([])
        pages[-1].append(block)
    return pages


def _pieces(block: Block, rows: int) -> Iterator[Block]:
    """A block, cut between its groups where it is longer than ``rows`` lines."""
    groups: list[Group] = []
    for group in block.groups:
        if groups and Block(block.title, [*groups, group]).n_rows > rows:
            yield Block(block.title, groups)
            groups = []
        groups.append(group)
    yield Block(block.title, groups)


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    return rf"{text} {{\tiny$\pm${cell.error}}}" if cell.error else text


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} ± {cell.error}" if cell.error else text


# --- Escaping -----------------------------------------------------------------------------------

_LATEX_TEXT = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "–": "--",
    "—": "---",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "…": "...",
    "\u00a0": "~",
    "†": r"$^\dagger$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
}
_ACCENTS = set("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
_LETTERS = set("ßæÆøØœŒłŁı")


def escape_latex(text: str) -> str:
    """Plain text for LaTeX; line breaks become spaces.

    Raises:
        DataError: a character that a plain pdflatex cannot set.
    """
    return "".join(_latex_character(char, text) for char in text)


def _latex_character(char: str, text: str) -> str:
    if char in _LATEX_TEXT:
        return _LATEX_TEXT[char]
    if char.isspace():
        return " "
    parts = unicodedata.normalize("NFD", char)
    plain = parts[0].isascii() and parts[0].isprintable() and set(parts[1:]) <= _ACCENTS
    if plain or char in _LETTERS:
        return char
    raise DataError(
        f"label or note {text!r} holds {char!r}, which LaTeX cannot print; "
        "write it in Latin letters in the config"
    )


def escape_markdown(text: str) -> str:
    """Plain text for Markdown, inside or outside a table."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", text.replace("\n", " "))


# --- The two tables -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TableSettings:
    """What the tables and figures of one experiment show; the order is that of printing."""

    experiment: str
    """Key; part of LaTeX labels."""
    title: str
    """What captions begin with."""
    models: dict[str, str]
    """Key -> label."""
    calibrations: dict[str, str]
    """Key -> words for the caption: ``128 sequences of 2048 tokens of C4, seed 0``."""
    methods: dict[str, str]
    """Key -> label."""
    patterns: list[str]
    split: str = "validation"
    """Of perplexity."""
    metric: Metric = "acc_norm"
    """Of zero-shot accuracy; a task without acc_norm prints acc, marked."""
    tasks: list[str] = field(default_factory=lambda: list(TASK_LABELS))
    note: str = ""
    """What captions end with, e.g. that the models are stand-ins."""

    def lines(self, pattern: str) -> dict[Line, str]:
        """The lines of a pattern's group -> labels; the calibration is named where several are."""
        several = len(self.calibrations) > 1
        return {
            (calibration, method, pattern): f"{label}, {calibration}" if several else label
            for method, label in self.methods.items()
            for calibration in self.calibrations
        }

    @property
    def all_lines(self) -> list[Line]:
        """Dense, then the lines of each pattern."""
        return [DENSE_LINE, *(line for pattern in self.patterns for line in self.lines(pattern))]


DENSE_LINE: Line = (None, DENSE, None)


@dataclass(frozen=True)
class Value:
    """A measured number and its standard error."""

    value: float
    error: float | None = None


def perplexity_table(summary: pd.DataFrame, settings: TableSettings) -> Table:
    """Rows: dense, then the methods under each pattern; columns: models; lowest in bold."""
    runs = records(summary)

    def row(line: Line) -> list[Value | None]:
        own = [runs.get((model, *line), {}) for model in settings.models]
        return [perplexity_of(record, settings.split) for record in own]

    return Table(
        columns=list(settings.models.values()),
        blocks=[Block("", _groups(settings, row, _perplexity_cell, min))],
        caption=_perplexity_caption(runs, settings),
        label=f"tab:{experiment_label(settings.experiment)}-perplexity",
    )


def zero_shot_table(summary: pd.DataFrame, settings: TableSettings) -> Table:
    """A block a model: dense, then the methods under each pattern; columns: tasks and their mean.

    In percent, each with its standard error; highest in bold.
    """
    runs = records(summary)

    def block(model: str, title: str) -> Block:
        def row(line: Line) -> list[Value | None]:
            record = runs.get((model, *line), {})
            tasks = [accuracy_of(record, task, settings.metric) for task in settings.tasks]
            return [*tasks, mean_value(tasks)]

        return Block(title, _groups(settings, row, _accuracy_cell, max))

    without_norm = _tasks_without_norm(runs, settings)
    heads = [task_label(t) + ("†" if t in without_norm else "") for t in settings.tasks]
    return Table(
        columns=[*heads, "Mean"],
        blocks=[block(model, title) for model, title in settings.models.items()],
        caption=_zero_shot_caption(runs, settings, without_norm),
        label=f"tab:{experiment_label(settings.experiment)}-zero-shot",
    )


def perplexity_of(record: Record, split: str) -> Value | None:
    """A run's perplexity; None where it was not measured."""
    value = record.get(f"perplexity_{split}")
    return None if value is None else Value(value)


def accuracy_of(record: Record, task: str, metric: Metric) -> Value | None:
    """A run's accuracy, a share: acc where the task has no acc_norm, None if not measured."""
    for name in (f"{task}_{metric}", f"{task}_acc"):
        if name in record:
            return Value(record[name], record.get(f"{name}_stderr"))
    return None


def mean_accuracy(record: Record, settings: TableSettings) -> Value | None:
    """The mean over the tasks of the settings, as the zero-shot table prints it."""
    return mean_value([accuracy_of(record, task, settings.metric) for task in settings.tasks])


def mean_value(values: Sequence[Value | None]) -> Value | None:
    """The mean, and its standard error for independent values; None where one is missing."""
    present = [value for value in values if value is not None]
    if not present or len(present) < len(values):
        return None
    mean = sum(v.value for v in present) / len(present)
    errors = [v.error for v in present if v.error is not None]
    if len(errors) < len(present):
        return Value(mean)
    return Value(mean, math.sqrt(sum(error**2 for error in errors)) / len(present))


def task_label(task: str) -> str:
    """The name that tables print."""
    return TASK_LABELS.get(task, task)


def pattern_label(pattern: str) -> str:
    """The paper's name: ``50 %`` for u50, ``2:4`` for 2of4."""
    parsed = parse_pattern(pattern)
    if isinstance(parsed, Unstructured):
        return f"{float(parsed.percent):g} %"
    return f"{parsed.kept}:{parsed.group}"


def format_perplexity(value: float) -> str:
    """Two decimals below 1000, none below a million, then two digits and the exponent."""
    if value < 1000:
        return f"{value:.2f}"
    return f"{value:.0f}" if value < 1e6 else re.sub(r"e\+0*", "e", f"{value:.1e}")


def format_percent(share: float) -> str:
    """A share in percent, with one decimal."""
    return f"{100 * share:.1f}"


def _perplexity_cell(value: Value) -> Cell:
    return Cell(format_perplexity(value.value))


def _accuracy_cell(value: Value) -> Cell:
    error = "" if value.error is None else format_percent(value.error)
    return Cell(format_percent(value.value), error)


def _groups(
    settings: TableSettings,
    row: Callable[[Line], list[Value | None]],
    show: Callable[[Value], Cell],
    better: Callable[[Iterable[float]], float],
) -> list[Group]:
    """Dense on top, never bold; then a group a pattern, the best of each column in bold."""
    dense = [Cell() if value is None else show(value) for value in row(DENSE_LINE)]
    groups = [Group("", [("Dense", dense)])]
    for pattern in settings.patterns:
        lines = settings.lines(pattern)
        columns = zip(*map(row, lines), strict=True)
        marked = [_mark_best(column, show, better) for column in columns]
        cells = [list(line) for line in zip(*marked, strict=True)]
        groups.append(Group(pattern_label(pattern), list(zip(lines.values(), cells, strict=True))))
    return groups


def _mark_best(
    values: Sequence[Value | None],
    show: Callable[[Value], Cell],
    better: Callable[[Iterable[float]], float],
) -> list[Cell]:
    """Cells of one column; whatever prints like the best value is best."""
    present = [value.value for value in values if value is not None]
    best = show(Value(better(present))).text if present else None
    cells = [Cell() if value is None else show(value) for value in values]
    return [replace(cell, best=cell.text == best) for cell in cells]


def experiment_label(experiment: str) -> str:
    """An experiment's key as part of a LaTeX label."""
    return re.sub(r"[^A-Za-z0-9]+", "-", experiment).strip("-")


# --- Captions -----------------------------------------------------------------------------------

_BOS = {"text": "at the start of the text", "window": "at the start of each window"}
_METRICS = {
    "acc": "acc, by the log-likelihood of the choice",
    "acc_norm": "acc_norm, by the log-likelihood of the choice per character",
}


def _perplexity_caption(runs: dict[Key, Record], settings: TableSettings) -> str:
    dataset = _common(runs, settings, lambda r: r.get("perplexity_dataset"))
    length = _common(runs, settings, lambda r: _whole(r.get("perplexity_length")))
    windows = _common(runs, settings, lambda r: _whole(r.get(f"windows_{settings.split}")))
    bos = _common(runs, settings, lambda r: _BOS.get(r.get("perplexity_bos", "")))
    text = f" of {dataset}" if dataset else ""
    return sentences(
        settings.title,
        f"Perplexity on the {settings.split} split{text}; lower is better",
        f"Context length: {length} tokens" if length else "",
        f"Windows: {windows}" if windows else "",
        f"BOS: {bos}" if bos else "",
        *_closing(settings),
    )


def _zero_shot_caption(
    runs: dict[Key, Record], settings: TableSettings, without_norm: list[str]
) -> str:
    limits = _common(runs, settings, lambda r: _whole(r.get("zero_shot_limit")))
    counts = _common(runs, settings, lambda r: _sample_counts(r, settings))
    marked = " and ".join(task_label(task) for task in without_norm)
    return sentences(
        settings.title,
        "Zero-shot accuracy in percent ± standard error; higher is better",
        f"Metric: {_METRICS[settings.metric]}",
        f"† has no acc_norm: acc ({marked})" if marked else "",
        f"Limited to the first examples of each task, at most {limits}" if limits else "",
        f"Examples: {counts}" if counts else "",
        *_closing(settings),
    )


def _closing(settings: TableSettings) -> list[str]:
    texts = settings.calibrations
    named = texts.values() if len(texts) == 1 else (f"{k}: {t}" for k, t in texts.items())
    return [
        f"Calibration: {'; '.join(text for text in named if text)}" if any(texts.values()) else "",
        f"Bold: best at that sparsity. {DASH}: not measured",
        settings.note,
    ]


def sentences(*parts: str) -> str:
    """Parts of a caption, each with its full stop, without the empty ones."""
    return " ".join(
        part if part.endswith((".", "!", "?")) else f"{part}." for part in parts if part
    )


def _common(
    runs: dict[Key, Record], settings: TableSettings, text: Callable[[Record], str | None]
) -> str:
    """What ``text`` says of the runs: once where all agree, else with the models it is true of."""
    found: dict[str, list[str]] = {}
    own = {m: [runs.get((m, *line), {}) for line in settings.all_lines] for m in settings.models}
    for model, shown in own.items():
        for value in dict.fromkeys(text(record) for record in shown):
            if value:
                found.setdefault(value, []).append(settings.models[model])
    measured = [model for model, shown in own.items() if any(shown)]
    if all(len(models) == len(measured) for models in found.values()) and len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{value} ({', '.join(models)})" for value, models in found.items())


def _whole(value: Any) -> str | None:
    return None if value is None else str(int(value))


def _sample_counts(record: Record, settings: TableSettings) -> str | None:
    """``HellaSwag 10042, PIQA 1838``."""
    counts = [(task, _whole(record.get(f"{task}_samples"))) for task in settings.tasks]
    return ", ".join(f"{task_label(task)} {count}" for task, count in counts if count) or None


def _tasks_without_norm(runs: dict[Key, Record], settings: TableSettings) -> list[str]:
    """Tasks that print acc although acc_norm is asked for."""
    if settings.metric == "acc":
        return []
    shown = [runs.get((m, *line), {}) for m in settings.models for line in settings.all_lines]
    return [
        task
        for task in settings.tasks
        if any(f"{task}_acc" in r for r in shown)
        and not any(f"{task}_acc_norm" in r for r in shown)
    ]
