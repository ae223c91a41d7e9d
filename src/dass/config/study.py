"""The settings of a study: validated, closed, documented from this file alone.

``config/schema.json`` (for editors) and ``docs/config.md`` (for people) are generated from the
classes below: ``python -m dass.config.study --write``.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dass.errors import ConfigError, PatternError
from dass.models.shape import Shape
from dass.pruning.patterns import parse_pattern
from dass.runtime.files import writing

TaskName = Literal["hellaswag", "winogrande", "arc_easy", "arc_challenge", "piqa"]
Split = Literal["validation", "test"]
Kind = Literal["documents", "text", "task"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
STUDY = r"^[a-z0-9_-]+$"
REPOSITORY = r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$"
CLASS = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"

PATTERN_HELP = {
    NAME: "is part of a path: use letters, digits, '.', '_' and '-', the first a letter or digit",
    STUDY: "is part of a path: use small letters, digits, '_' and '-'",
    REPOSITORY: "is no repository id such as owner/name; a local folder goes under `path`",
}


# Problems: (key relative to the place where they were found, what is wrong there).

Problem = tuple[str, str]


def _failure(*problems: Problem) -> PydanticCustomError:
    """An error that carries its problems to :func:`load_config`."""
    text = "; ".join(f"{key}: {what}" if key else what for key, what in problems)
    return PydanticCustomError("dass", "{text}", {"text": text, "problems": problems})


def _nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """``did you mean …?``, or the list of all there is."""
    known = [str(name) for name in known]
    if close := difflib.get_close_matches(word, known, n=1):
        return f"did you mean {close[0]}?"
    return f"{otherwise}: {', '.join(known) or 'none'}"


# Values


def _expand(text: Any) -> Any:
    """Replace ``${NAME}`` and ``${NAME:-default}`` from the environment, as a shell would."""
    if not isinstance(text, str):
        return text
    if text.startswith("~"):
        raise _failure(("", f"write ${{HOME}} instead of ~ in {text!r}"))

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if found is None:
            remedy = f"set it, or write ${{{name}:-default}}"
            raise _failure(("", f"environment variable {name} is not set; {remedy}"))
        return found

    expanded = re.sub(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}", value, text)
    if "${" in expanded:
        raise _failure(("", f"cannot read {text!r}; write ${{NAME}} or ${{NAME:-default}}"))
    return expanded


def _not_dense(name: str) -> str:
    if name == "dense":
        raise _failure(("", "the name is reserved for the unpruned model; choose another"))
    return name


def _names_or_all(value: Any) -> Any:
    names = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    if value != "all" and not names:
        raise _failure(("", f"write all, or a list of names, as in [a, b], not {_shown(value)}"))
    return value


def _file_names(value: Any) -> Any:
    values = value.values() if isinstance(value, dict) else [value]
    if value is not None and not all(isinstance(v, str) for v in values):
        raise _failure(("", f"write a file name, or one a split, not {_shown(value)}"))
    return value


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise _failure(("", f"must be a number, text, true or false, not {_shown(value)}"))
    return value


def _from_command_line(value: Any) -> Any:
    """What ``--config block='{key: false}'`` means: snakemake gives values in a block as text."""
    if value in ("true", "false"):
        return value == "true"
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d*)?(e-?\d+)?", value):
        return float(value)
    return value


Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=NAME)]
RunName = Annotated[str, Field(pattern=NAME), AfterValidator(_not_dense)]
Names = Annotated[list[str], Field(min_length=1)]
NamesOrAll = Annotated[Names | Literal["all"], BeforeValidator(_names_or_all)]
LocalPath = Annotated[Text, BeforeValidator(_expand)]
Repository = Annotated[str, Field(pattern=REPOSITORY)]
FileNames = Annotated[str | dict[str, str], BeforeValidator(_file_names)]
Scalar = Annotated[bool | int | float | str, BeforeValidator(_scalar)]
Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """A block of the config: closed to unknown keys, no conversions, read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        """Here and not left to `forbid`, so that a typo is not reported as a missing key too."""
        known = cls.model_fields
        if isinstance(data, dict) and (unknown := [str(key) for key in data if key not in known]):
            raise _failure(
                *((k, f"unknown key; {_nearest(k, known, 'known keys')}") for k in unknown)
            )
        return data


def _check_source(block: ModelConfig | DatasetConfig) -> Iterator[Problem]:
    """Exactly one of hub, path and standin, and nothing that goes with another one."""
    given = [key for key in ("hub", "path", "standin") if getattr(block, key) is not None]
    if len(given) != 1:
        have = " and ".join(given) or "none"
        yield "", f"give exactly one of hub, path and standin (here: {have})"
    elif given != ["hub"] and block.revision != "main":
        yield "revision", f"goes with hub only; remove it, or {given[0]}"


class ModelConfig(Strict):
    """A model: from a hub, a local folder, or a stand-in that the workflow trains itself.
    Give exactly one of `hub`, `path` and `standin`."""

    label: Text = Field(description="Its name as tables and figures print it.")
    hub: Repository | None = Field(
        default=None, description="Repository on the Hugging Face hub, as in `owner/name`."
    )
    revision: Text = Field(
        default="main",
        description="Branch, tag or commit of the repository; a commit pins it for good.",
    )
    path: LocalPath | None = Field(
        default=None,
        description="A local Hugging Face folder: `config.json`, `*.safetensors`, tokenizer. "
        "`${NAME}` and `${NAME:-default}` are replaced from the environment.",
    )
    standin: Literal["llama", "mistral", "gemma"] | None = Field(
        default=None, description="Family of a small model, trained here on the toy world."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        description="In which precision the model is loaded and run. Gemma overflows in float16."
    )
    bos: Literal["text", "window"] = Field(
        default="text",
        description="`text`: the tokenizer puts BOS in front of a text once, as the released code "
        "does; `window`: each calibration and evaluation window begins with BOS, without which "
        "Gemma breaks down.",
    )
    parameters: float | None = Field(
        default=None,
        gt=0,
        description="Parameters in billions, from which cluster jobs derive memory and time.",
    )
    zero_shot_limit: Count | None = Field(
        default=None,
        description="At most so many examples of each zero-shot task; a table's caption says so. "
        "Without it, all of them.",
    )
    notes: str = Field(default="", description="For the reader of the config; has no effect.")

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        if problems := list(_check_source(self)):
            raise _failure(*problems)
        return self


class DatasetConfig(Strict):
    """A data set: from a hub, local files, or part of the stand-ins' toy world.
    Give exactly one of `hub`, `path` and `standin`."""

    kind: Kind = Field(
        description="`documents`: to draw calibration windows from; `text`: to measure perplexity "
        "on; `task`: the questions of one zero-shot task."
    )
    hub: Repository | None = Field(
        default=None, description="Repository on the Hugging Face hub, as in `owner/name`."
    )
    revision: Text = Field(
        default="main",
        description="Branch, tag or commit of the repository; a commit pins it for good.",
    )
    name: Text | None = Field(
        default=None, description="The repository's configuration, as in `wikitext-2-raw-v1`."
    )
    files: FileNames | None = Field(
        default=None,
        description="Which file of the repository to load, or one for each split; without it, "
        "what the repository declares.",
    )
    path: LocalPath | None = Field(
        default=None,
        description='`documents`: a .jsonl or .json.gz file with one `{"text": …}` a line; '
        "`text`: a folder with validation and test as .txt or .jsonl; `task`: a folder with "
        "train.jsonl, validation.jsonl and test.jsonl in the official columns. `${NAME}` and "
        "`${NAME:-default}` are replaced from the environment.",
    )
    standin: Literal["documents", "wikitext", TaskName] | None = Field(
        default=None, description="Which part of the toy world."
    )
    rows: Literal["file", "line"] = Field(
        default="line",
        description="Of a .txt file: each line is a row, or the whole file is one. Rows are "
        "joined with an empty line between them, as the released code does.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DatasetConfig:
        if problems := [*_check_source(self), *self._check_kind()]:
            raise _failure(*problems)
        return self

    def _check_kind(self) -> Iterator[Problem]:
        if self.hub is None:
            for key in ("name", "files"):
                if getattr(self, key) is not None:
                    yield key, "goes with hub only; remove it"
        if self.rows != "line" and self.kind != "text":
            yield "rows", f"goes with kind text only, not {self.kind}; remove it"
        kinds: dict[str, Kind] = {"documents": "documents", "wikitext": "text"}
        if self.standin is not None and self.kind != (kind := kinds.get(self.standin, "task")):
            yield "kind", f"must be {kind}, since {self.standin} is of that kind"


class StandinsConfig(Strict):
    """How the stand-ins are made. Needed as soon as a model or data set is one."""

    seed: Seed = Field(default=0, description="Of the toy world and of the training on it.")
    documents: Count = Field(
        default=2400, description="Documents that the toy world's corpus holds."
    )
    steps: Count = Field(default=600, description="Training steps of each stand-in model.")


class CalibrationConfig(Strict):
    """Token windows that the methods collect their statistics on."""

    dataset: str = Field(description="A key of `datasets`, of kind `documents`.")
    sequences: Count = Field(description="How many windows.")
    length: int = Field(gt=1, description="Tokens in each.")
    seed: Seed = Field(description="Of the draw of documents and offsets.")


FUNCTION = (
    "The pruning function: a built-in one, or where Python finds a class of your own, written "
    "`package.module:Class`."
)


class _Method(Strict):
    label: Text | None = Field(
        default=None, description="Its name as tables and figures print it; without it, its key."
    )

    def arguments_dict(self) -> dict[str, Any]:
        """The arguments of the pruning function: all keys but ``function`` and ``label``."""
        return self.model_dump(exclude={"function", "label"})


class MagnitudeConfig(_Method):
    """The smallest weights go."""

    function: Literal["magnitude"] = Field(description=FUNCTION)


class WandaConfig(_Method):
    """Weight times the norm of its input."""

    function: Literal["wanda"] = Field(description=FUNCTION)


class SparseGPTConfig(_Method):
    """Column by column, with an update of the weights that stay."""

    function: Literal["sparsegpt"] = Field(description=FUNCTION)
    damping: float = Field(
        default=0.01,
        gt=0,
        description="Added to the Gram matrix's diagonal, as a share of its mean.",
    )
    block: Count = Field(default=128, description="Columns for which masks are chosen together.")


class DassConfig(_Method):
    """Weight times the norm of the intermediate neuron that it feeds, to the power alpha."""

    function: Literal["dass"] = Field(description=FUNCTION)
    alpha: float = Field(default=0.5, ge=0, description="The power; the paper uses 0.5.")


class CustomConfig(_Method):
    """A method of one's own."""

    function: str = Field(pattern=CLASS, description=FUNCTION)
    arguments: dict[str, Scalar] = Field(
        default={}, description="What the class is called with, by keyword."
    )

    @model_validator(mode="before")
    @classmethod
    def _is_a_class(cls, data: Any) -> Any:
        """First of all: to a misspelt built-in method its arguments would seem unknown."""
        function = data.get("function") if isinstance(data, dict) else None
        if isinstance(function, str) and not re.match(CLASS, function):
            raise _failure(("function", _no_method(function)))
        return data

    def arguments_dict(self) -> dict[str, Any]:
        """The arguments that the config gives, as they stand there."""
        return dict(self.arguments)


METHODS: dict[str, type[_Method]] = {
    "magnitude": MagnitudeConfig,
    "wanda": WandaConfig,
    "sparsegpt": SparseGPTConfig,
    "dass": DassConfig,
}


def _method_tag(block: Any) -> str | None:
    """Which class of the union a block is. The angle brackets let error messages drop the tag."""
    function = (
        block.get("function") if isinstance(block, dict) else getattr(block, "function", None)
    )
    if function is None:
        return None
    return f"<{function}>" if function in tuple(METHODS) else "<custom>"


MethodConfig = Annotated[
    Annotated[MagnitudeConfig, Tag("<magnitude>")]
    | Annotated[WandaConfig, Tag("<wanda>")]
    | Annotated[SparseGPTConfig, Tag("<sparsegpt>")]
    | Annotated[DassConfig, Tag("<dass>")]
    | Annotated[CustomConfig, Tag("<custom>")],
    Discriminator(_method_tag),
]


class PerplexityConfig(Strict):
    """Perplexity of every run: windows of a fixed length, mean loss, exponentiated."""

    dataset: str = Field(description="A key of `datasets`, of kind `text`.")
    length: int = Field(gt=1, description="Tokens in each window.")
    splits: list[Split] = Field(min_length=1, description="Which splits are measured.")
    table_split: Split = Field(
        default="validation", description="Which of them the tables print; must be in `splits`."
    )

    @model_validator(mode="after")
    def _measured(self) -> PerplexityConfig:
        if self.table_split not in self.splits:
            listed = ", ".join(self.splits)
            raise _failure(
                ("table_split", f"{self.table_split} is not measured; add it to splits ({listed})")
            )
        return self


class ZeroShotConfig(Strict):
    """Zero-shot tasks, by lm-eval's own definitions. Without this block, none are run."""

    tasks: dict[TaskName, str] = Field(
        min_length=1,
        description="For each task a key of `datasets`, of kind `task`. Tasks: `hellaswag`, "
        "`winogrande`, `arc_easy`, `arc_challenge`, `piqa`.",
    )
    metric: Literal["acc", "acc_norm"] = Field(
        default="acc",
        description="Which metric the tables print. WinoGrande has no acc_norm: it prints acc.",
    )


class PublishedConfig(Strict):
    """Published numbers: tables print them beside ours, and a dense model that is far off its
    published perplexity is not pruned."""

    file: LocalPath = Field(
        description="A CSV file with a row a number; docs/running.md says what its columns hold. "
        "Rows about other models, methods and patterns than the study's are ignored. "
        "`${NAME}` and `${NAME:-default}` are replaced from the environment."
    )
    gate: Annotated[bool, BeforeValidator(_from_command_line)] = Field(
        default=True,
        description="Whether a dense perplexity that is too far off stops the pruning of that "
        "model; other models go on.",
    )
    tolerance: Annotated[float, BeforeValidator(_from_command_line)] = Field(
        default=0.02, gt=0, description="How far off it may be, as a share of the published value."
    )


class ExperimentConfig(Strict):
    """A set of runs that tables and figures are made of: every combination of its lists."""

    title: Text = Field(description="What the captions of its tables and figures begin with.")
    models: NamesOrAll = Field(description="Keys of `models`, or `all`.")
    calibrations: Names = Field(description="Keys of `calibrations`.")
    methods: Names = Field(description="Keys of `methods`.")
    patterns: Names = Field(
        description="`u50`: 50 % zeros, unstructured (any percentage: `u62.5`); `2of4`: 2 kept of "
        "each 4 (any N of M: `4of8`)."
    )


def _known_sizes(value: Any) -> Any:
    """First of all, so that a typo is not reported as a missing key as well."""
    known = [field.name for field in fields(Shape)]
    if not isinstance(value, dict):
        raise _failure(("", f"must be a block of keys, not {_shown(value)}"))
    if unknown := [str(key) for key in value if key not in known]:
        raise _failure(*((k, f"unknown key; {_nearest(k, known, 'known keys')}") for k in unknown))
    return value


def _shared_evenly(shape: Shape) -> Shape:
    if shape.heads % shape.key_value_heads:
        raise _failure(("key_value_heads", f"{shape.heads} heads cannot share them evenly"))
    return shape


Sizes = Annotated[Shape, BeforeValidator(_known_sizes), AfterValidator(_shared_evenly)]


class MetricSpeedConfig(Strict):
    """How long the pruning metric takes without calibration passes: every method and its patterns,
    each method in turns with SparseGPT where the study has it."""

    of: NamesOrAll = Field(description="Keys of `models` or of `speed.shapes`, or `all` models.")
    repeats: Count = Field(default=5, description="Repeats that count, after the warm-up.")


class GpuSpeedConfig(Strict):
    """Dense against 2:4 on a GPU. Part of the study only where there is a GPU; elsewhere the table
    says `not measured here`."""

    of: NamesOrAll = Field(description="Keys of `models` or of `speed.shapes`, or `all` models.")
    tokens: list[Count] = Field(
        default=[1, 16, 128, 512, 2048, 8192], min_length=1, description="Tokens per call."
    )
    repeats: Count = Field(default=20, description="Repeats that count, after the warm-up.")
    prefill: bool = Field(
        default=True,
        description="Also prefill with each pruned 2:4 model itself, end to end, where it fits; "
        "models are pruned for it.",
    )


class CpuSpeedConfig(Strict):
    """Dense against sparse on the CPU. torch (float32, bfloat16 and CSR) and onnxruntime are always
    measured, since a speed-up says nothing without good dense baselines."""

    of: NamesOrAll = Field(description="Keys of `models` or of `speed.shapes`, or `all` models.")
    engines: list[Literal["openvino"]] = Field(
        default=[],
        description="Engines to measure as well; `openvino` must be installed "
        "(`pip install openvino`).",
    )
    patterns: Names = Field(
        default=["u50", "u60", "u70", "u80", "2of4"],
        description="Patterns of the sparse variants, spelled as in `experiments`.",
    )
    parts: list[Literal["mlp", "block"]] = Field(
        default=["mlp", "block"],
        min_length=1,
        description="What is timed: the gated MLP, the whole decoder block.",
    )
    tokens: list[Count] = Field(
        default=[1, 16, 256],
        min_length=1,
        description="Tokens per call: 1 is text generation, many are prefill.",
    )
    repeats: Count = Field(default=9, description="Repeats that count, after the warm-up.")
    threads: Count | None = Field(
        default=None,
        description="Threads that every engine computes with; without it, all cores of the run. "
        "No other job runs beside the benchmark in any case.",
    )


class SpeedConfig(Strict):
    """Which speed benchmarks are run: those whose block is here. Without `speed`, none."""

    shapes: dict[RunName, Sizes] = Field(
        default={}, description="Sizes to measure besides those of the study's models, by name."
    )
    metric: MetricSpeedConfig | None = Field(
        default=None, description="Time of the pruning metrics."
    )
    gpu: GpuSpeedConfig | None = Field(default=None, description="2:4 on a GPU.")
    cpu: CpuSpeedConfig | None = Field(default=None, description="Sparse engines on the CPU.")


class SelectConfig(Strict):
    """Runs only a part of what the experiments ask for; a key left out restricts nothing.
    Meant for the command line: `snakemake --cores all --config select='{models: [llama2-7b]}'`."""

    models: Names | None = Field(default=None, description="Keys of `models`.")
    methods: Names | None = Field(default=None, description="Keys of `methods`.")
    patterns: Names | None = Field(default=None, description="Patterns of the experiments.")
    experiments: Names | None = Field(default=None, description="Keys of `experiments`.")


class StudyConfig(Strict):
    """One config file and all that it asks for."""

    study: str = Field(
        pattern=STUDY, description="The study's name; its results land in `results/<study>/`."
    )
    description: Text = Field(description="What the study is, in a sentence, for its report.")
    note: str = Field(
        default="",
        description="The line that every table's caption ends with: what a reader must know "
        "before comparing its numbers.",
    )
    models: dict[Name, ModelConfig] = Field(min_length=1, description="Models, by name.")
    datasets: dict[Name, DatasetConfig] = Field(min_length=1, description="Data sets, by name.")
    standins: StandinsConfig | None = Field(
        default=None, description="How the stand-ins are made, where there are any."
    )
    calibrations: dict[RunName, CalibrationConfig] = Field(
        min_length=1, description="Sets of calibration windows, by name."
    )
    methods: dict[RunName, MethodConfig] = Field(
        min_length=1, description="Pruning functions with their arguments, by name."
    )
    perplexity: PerplexityConfig = Field(description="How perplexity is measured.")
    zero_shot: ZeroShotConfig | None = Field(
        default=None, description="Which zero-shot tasks are run."
    )
    published: PublishedConfig | None = Field(
        default=None, description="Published numbers to compare with, where there are any."
    )
    experiments: dict[Name, ExperimentConfig] = Field(
        min_length=1, description="Which runs are made, and put into one table, by name."
    )
    speed: SpeedConfig | None = Field(
        default=None, description="Which benchmarks of speed are run; without it, none."
    )
    select: SelectConfig | None = Field(
        default=None, description="Restricts what is run; for the command line."
    )

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if problems := [
            *_check_labels(self), *_check_standins(self), *_check_datasets(self),
            *_check_experiments(self), *_check_speed(self), *_check_select(self),
        ]:  # fmt: skip
            raise _failure(*problems)
        if not runs(self):
            raise _failure(("select", "leaves nothing to run; no experiment has this combination"))
        return self


# Checks across blocks


def _check_labels(study: StudyConfig) -> Iterator[Problem]:
    """Tables and figures tell models apart by their labels, and methods too."""
    for section in ("models", "methods"):
        seen: dict[str, str] = {}
        for name, block in getattr(study, section).items():
            first = seen.setdefault(block.label or name, name)
            if first != name:
                yield f"{section}.{name}.label", f"same as that of {first}; tables need them apart"


def _check_standins(study: StudyConfig) -> Iterator[Problem]:
    if study.standins is not None:
        return
    for section in ("models", "datasets"):
        for name, block in getattr(study, section).items():
            if block.standin is not None:
                yield "standins", f"missing; {section}.{name} is a stand-in and needs this block"
                return


def _check_datasets(study: StudyConfig) -> Iterator[Problem]:
    """What calibrations and evaluations read exists and is of the right kind."""
    uses: list[tuple[str, str, Kind]] = [
        (f"calibrations.{name}.dataset", calibration.dataset, "documents")
        for name, calibration in study.calibrations.items()
    ]
    uses.append(("perplexity.dataset", study.perplexity.dataset, "text"))
    tasks = study.zero_shot.tasks if study.zero_shot else {}
    uses += [(f"zero_shot.tasks.{task}", name, "task") for task, name in tasks.items()]
    for key, name, kind in uses:
        of_kind = [other for other, block in study.datasets.items() if block.kind == kind]
        if name not in study.datasets:
            yield key, f"no data set {name!r} in datasets; {_nearest(name, of_kind, 'there are')}"
        elif name not in of_kind:
            have = study.datasets[name].kind
            yield key, f"data set {name!r} is of kind {have}, but kind {kind} is needed here"
    for task, name in tasks.items():
        if name in study.datasets and study.datasets[name].standin not in (None, task):
            standin = study.datasets[name].standin
            if study.datasets[name].kind == "task":
                yield f"zero_shot.tasks.{task}", f"data set {name!r} holds the task {standin}"


def _check_experiments(study: StudyConfig) -> Iterator[Problem]:
    for name, experiment in study.experiments.items():
        for section, what in (
            ("models", "model"), ("calibrations", "calibration"), ("methods", "method"),
        ):  # fmt: skip
            listed = getattr(experiment, section)
            if listed != "all":
                key = f"experiments.{name}.{section}"
                yield from _check_names(key, listed, what, getattr(study, section), section)
        yield from _check_patterns(f"experiments.{name}.patterns", experiment.patterns)


def _check_speed(study: StudyConfig) -> Iterator[Problem]:
    """What is measured exists, and no shape has a model's name."""
    if study.speed is None:
        return
    shapes = study.speed.shapes
    for name in shapes:
        if name in study.models:
            yield f"speed.shapes.{name}", "is also the name of a model; choose another"
    for part in ("metric", "gpu", "cpu"):
        block = getattr(study.speed, part)
        if block is not None and block.of != "all":
            known = [*study.models, *shapes]
            where = "models and speed.shapes"
            yield from _check_names(f"speed.{part}.of", block.of, "model or shape", known, where)
    if study.speed.cpu is not None:
        yield from _check_patterns("speed.cpu.patterns", study.speed.cpu.patterns)


def _check_names(
    key: str, listed: list[str], what: str, known: Iterable[str], section: str
) -> Iterator[Problem]:
    known = list(known)
    for name in dict.fromkeys(listed):
        if name not in known:
            yield key, f"no {what} {name!r} in {section}; {_nearest(name, known, 'there are')}"
        elif listed.count(name) > 1:
            yield key, f"{name} is listed twice; remove one"


def _check_patterns(key: str, patterns: list[str]) -> Iterator[Problem]:
    for text in dict.fromkeys(patterns):
        try:
            spelled = str(parse_pattern(text))
        except PatternError as error:
            yield key, str(error)
            continue
        if spelled != text:
            # One spelling each, or equal runs would land in different folders.
            yield key, f"write {spelled} instead of {text}"
        elif patterns.count(text) > 1:
            yield key, f"{text} is listed twice; remove one"


def _check_select(study: StudyConfig) -> Iterator[Problem]:
    patterns = dict.fromkeys(p for e in study.experiments.values() for p in e.patterns)
    known: dict[str, tuple[str, Iterable[str], str]] = {
        "models": ("model", study.models, "models"),
        "methods": ("method", study.methods, "methods"),
        "patterns": ("pattern", patterns, "any experiment"),
        "experiments": ("experiment", study.experiments, "experiments"),
    }
    for key, (what, names, where) in known.items():
        if (listed := getattr(study.select, key, None)) is not None:
            yield from _check_names(f"select.{key}", listed, what, names, where)


# Loading


def load_config(mapping: Mapping[str, Any]) -> StudyConfig:
    """Validate the settings of a study.

    Raises:
        ConfigError: one line: the key's path, what is wrong, what to do; the first problem, and
            how many more there are.
    """
    try:
        return StudyConfig.model_validate(dict(mapping))
    except ValidationError as error:
        problems = [problem for detail in error.errors() for problem in _describe(detail)]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise ConfigError(f"{problems[0]}{more}")


def read_config(path: str | Path) -> StudyConfig:
    """Read and validate a YAML file.

    Raises:
        ConfigError: as :func:`load_config`; or the file is missing or no YAML mapping.
    """
    import yaml

    try:
        mapping = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML ({reason})") from None
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: must hold a block of keys, not {_shown(mapping)}")
    try:
        return load_config(mapping)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _shown(value: Any) -> str:
    """A value as an error message quotes it: short, on one line."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _describe(detail: Any) -> Iterator[str]:
    """The lines for one of pydantic's errors."""
    place = [str(part) for part in detail["loc"] if not re.fullmatch(r"<.*>|\[key\]", str(part))]
    if detail["type"] == "dass":
        for key, what in detail["ctx"]["problems"]:
            yield f"{'.'.join([*place, key] if key else place)}: {what}"
    elif detail["type"] == "union_tag_not_found" and isinstance(detail["input"], dict):
        yield f"{'.'.join([*place, 'function'])}: missing; it is required"
    else:
        yield f"{'.'.join(place)}: {_what(detail)}"


def _no_method(function: str) -> str:
    near = _nearest(function, METHODS, "there are")
    return f"no built-in method {function!r}; {near} (your own: package.module:Class)"


def _what(detail: Any) -> str:
    """What is wrong with a value, in this project's words."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "string_pattern_mismatch":
        if context["pattern"] != CLASS:
            return f"{_shown(value)} {PATTERN_HELP[context['pattern']]}"
        return _no_method(value)
    text = {
        "missing": "missing; it is required",
        "too_short": "must not be empty",
        "string_too_short": "must not be empty",
    }.get(kind)
    if text:
        return text
    text = {
        "string_type": "must be text (put it in quotes)",
        "int_type": "must be a whole number",
        "float_type": "must be a number (with a point: 1.0e-2)",
        "list_type": "must be a list, as in [a, b]",
        "dict_type": "must be a block of keys",
        "model_type": "must be a block of keys",
        "union_tag_not_found": "must be a block of keys",
        "finite_number": "must be a finite number",
        "bool_type": "must be true or false",
        "literal_error": f"must be {context.get('expected')}",
        "greater_than": f"must be greater than {context.get('gt', 0):g}",
        "greater_than_equal": f"must be at least {context.get('ge', 0):g}",
    }.get(kind, detail["msg"])
    return f"{text}, but is empty" if value is None else f"{text}, not {_shown(value)}"


# What a study asks for


class RunKey(NamedTuple):
    """A run, in the order of the parts of its path."""

    model: str
    calibration: str
    method: str
    pattern: str


def experiment_runs(study: StudyConfig, name: str) -> list[RunKey]:
    """The runs of an experiment, those that ``select`` leaves, in the order of its lists.

    Raises:
        ConfigError: there is no such experiment.
    """
    if name not in study.experiments:
        near = _nearest(name, study.experiments, "there are")
        raise ConfigError(f"no experiment {name!r} in experiments; {near}")
    experiment, select = study.experiments[name], study.select or SelectConfig()
    if select.experiments is not None and name not in select.experiments:
        return []
    listed = list(study.models) if experiment.models == "all" else experiment.models
    return [
        RunKey(*key)
        for key in itertools.product(
            _selected(listed, select.models),
            experiment.calibrations,
            _selected(experiment.methods, select.methods),
            _selected(experiment.patterns, select.patterns),
        )
    ]


def speed_subjects(study: StudyConfig, part: str) -> list[str]:
    """The models and shapes that a part of ``speed`` measures, those that ``select`` leaves."""
    block = getattr(study.speed, part, None)
    if block is None:
        return []
    chosen = study.select.models if study.select else None
    named = list(study.models) if block.of == "all" else block.of
    return [n for n in named if n not in study.models or chosen is None or n in chosen]


def runs(study: StudyConfig) -> list[RunKey]:
    """The runs of all experiments, those that ``select`` leaves, each once, in config order."""
    return list(
        dict.fromkeys(key for name in study.experiments for key in experiment_runs(study, name))
    )


def _selected(names: list[str], chosen: list[str] | None) -> list[str]:
    return [name for name in names if chosen is None or name in chosen]


# The schema and the reference page

FIX = "python -m dass.config.study --write"

INTRODUCTION = """\
# Configuration

<!-- Generated from src/dass/config/study.py by `python -m dass.config.study --write`: change it there. -->

A config file describes one **study**: its models and data sets, how they are calibrated, pruned
and evaluated, and which of these runs make a table.

| command | study |
|---|---|
| `snakemake --cores all` | the paper's, in `config/config.yaml` |
| `snakemake --cores all --configfile config/demo.yaml` | stand-ins; also `make demo` |
| `snakemake --cores all --configfile config/small.yaml` | three small models that need no licence |
| `snakemake --cores all --configfile config/real.yaml` | small models of real prose |
| `snakemake --cores all --configfile mine.yaml` | yours |

`--configfile` takes the place of `config/config.yaml` as a whole: a study inherits nothing from
another one. `--config` sets single keys on top of the file, for instance to run one model only:
`--config select='{models: [llama2-7b]}'`. With `-n` snakemake lists the jobs and starts none.

Everything is checked before the first job. An unknown key, a name that nothing defines or a
value out of range stops with one line that says where it is and what to do. Threads, memory,
GPUs and partitions are no settings of a study; they stand in `profiles/`.

## Adding a model, adding a method

Copy the config file that is nearest to what you want, give it another `study` name, and add a
block. A model from the hub, or a folder of your own:

```yaml
models:
  tinyllama:
    label: TinyLlama 1.1B
    hub: TinyLlama/TinyLlama_v1.1
    dtype: bfloat16
  my-model:
    label: My model
    path: ${HOME}/models/my-model
    dtype: bfloat16
```

A method of your own is a class that Python can import, installed or on `PYTHONPATH`; what it has
to offer stands at the top of `src/dass/pruning/methods/__init__.py`. A built-in one with other arguments
is a method of its own too:

```yaml
methods:
  mine:
    function: mypackage.mymodule:MyMethod
    arguments: {strength: 0.3}
  dass-a0.25:
    function: dass
    alpha: 0.25
```

Then an experiment names them, and with that asks for their runs and a table of them:

```yaml
experiments:
  mine:
    title: My method on my models
    models: [tinyllama, my-model]
    calibrations: [c4]
    methods: [dass, dass-a0.25, mine]
    patterns: [u50, 2of4]
```

A run is a model, a calibration, a method and a pattern; its results land in
`results/<study>/runs/<model>/<calibration>/<method>/<pattern>/`, and those of the unpruned model
in `results/<study>/runs/<model>/dense/`. Names are therefore parts of paths: letters, digits,
`.`, `_` and `-`.

What YAML reads otherwise than it looks: `1e-3` is text (write `1.0e-3` or `0.001`), and a
revision of digits only is a number (put it in quotes).
"""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a config file, for editors."""
    return {**StudyConfig.model_json_schema(), "title": "A study of DaSS"}


def reference_page() -> str:
    """``docs/config.md``: an introduction and a table for each block."""
    schema = json_schema()
    parts = [INTRODUCTION, "## Top level\n", _table(_rows(schema))]
    for key, value in schema["properties"].items():
        parts += _sections(key, value, schema["$defs"])
    return "\n".join(parts)


def _sections(key: str, value: Any, definitions: Any) -> Iterator[str]:
    """A section for a block, and for each block inside."""
    blocks = _blocks(value, definitions)
    if blocks:
        yield _section(key, value, blocks)
    for inner, nested in blocks[0]["properties"].items() if len(blocks) == 1 else ():
        yield from _sections(f"{key}.{inner}", nested, definitions)


def _section(key: str, value: Any, blocks: list[Any]) -> str:
    named = "patternProperties" in value
    heading = f"## `{key}.<name>`" if named else f"## `{key}`"
    if len(blocks) == 1:
        about = " ".join(blocks[0]["description"].split())
        return f"{heading}\n\n{about}\n\n{_table(_rows(blocks[0]))}"
    return f"{heading}\n\n{_choices(blocks)}\n{_table(_merged(blocks))}"


def _blocks(value: Any, definitions: Any) -> list[Any]:
    """The blocks that a top-level key holds: one; several to choose from; none."""
    inner = next(iter(value.get("patternProperties", {}).values()), value)
    options = inner.get("oneOf") or inner.get("anyOf") or [inner]
    return [definitions[o["$ref"].rsplit("/", 1)[1]] for o in options if "$ref" in o]


def _choices(blocks: list[Any]) -> str:
    """What each `function` does, as a table."""
    lines = ["| function | what it does |", "|---|---|"]
    for block in blocks:
        name = block["properties"]["function"].get("const", "package.module:Class")
        lines.append(f"| `{name}` | {block['description']} |")
    return "\n".join([*lines, ""])


Row = tuple[str, str, str, str]


def _rows(block: Any) -> list[Row]:
    """(key, type, default, meaning) of each key of a block."""
    required = block.get("required", [])
    return [
        (f"`{key}`", _words(value), _default(value, key in required), value["description"])
        for key, value in block["properties"].items()
    ]


def _merged(blocks: list[Any]) -> list[Row]:
    """The keys of all functions: those that they share once, the others with their function."""
    shared = set.intersection(*(set(block["properties"]) for block in blocks))
    rows = [row for row in _rows(blocks[0]) if row[0].strip("`") in shared]
    rows = [(k, "see the table above" if k == "`function`" else t, d, m)
            for k, t, d, m in rows]  # fmt: skip
    for block in blocks:
        function = block["properties"]["function"].get("const")
        only = f"`{function}` only: " if function else "A method of one's own only: "
        for key, kind, default, meaning in _rows(block):
            if key.strip("`") not in shared:
                rows.append((key, kind, default, only + meaning[0].lower() + meaning[1:]))
    return rows


def _table(rows: list[Row]) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def _default(value: Any, required: bool) -> str:
    if required:
        return "required"
    default = value.get("default")
    return "–" if default in (None, "") else f"`{_yaml(default)}`"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _words(value: Any) -> str:
    """A type of the JSON schema in plain words."""
    if options := value.get("anyOf"):
        return _either([_words(option) for option in options if option.get("type") != "null"])
    if values := value.get("enum", [value["const"]] if "const" in value else None):
        return _either([f"`{v}`" for v in values])
    if "$ref" in value:
        return "block"
    if value["type"] == "array":
        return f"list of {_plural(value['items'])}"
    if value["type"] == "object":
        if "patternProperties" in value:
            return "a block for each name"
        inner = value["additionalProperties"]
        return f"{'a value' if 'anyOf' in inner else _words(inner)} for each name"
    words = {"string": "text", "integer": "whole number", "number": "number",
             "boolean": "true or false"}[value["type"]]  # fmt: skip
    return words + _bounds(value)


def _plural(items: Any) -> str:
    return "names" if items == {"type": "string"} else _words(items)


def _bounds(value: Any) -> str:
    if (above := value.get("exclusiveMinimum")) is not None:
        return f" above {above:g}"
    if (least := value.get("minimum")) is not None:
        return f", {least:g} or more"
    return ""


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def generated() -> dict[str, str]:
    """What the repository keeps of this module's classes: path from its root -> content."""
    schema = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    return {"config/schema.json": schema, "docs/config.md": reference_page()}


def outdated(root: Path) -> list[str]:
    """The generated files under ``root`` that are missing or differ."""
    return [
        name
        for name, content in generated().items()
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != content
    ]


def main(arguments: list[str] | None = None) -> int:
    """``python -m dass.config.study --write`` or ``--check``; run in the repository's root."""
    parser = argparse.ArgumentParser(prog="python -m dass.config.study", description=main.__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write the schema and the page")
    action.add_argument("--check", action="store_true", help="fail if one of them is out of date")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: here)")
    options = parser.parse_args(arguments)
    if not (options.root / "config").is_dir():
        parser.error(f"{options.root} has no folder config; run it in the repository's root")
    stale = outdated(options.root)
    if options.write:
        for name in stale:
            with writing(options.root / name) as part:
                part.write_text(generated()[name], encoding="utf-8")
            print(f"wrote {name}")
        return 0
    for name in stale:
        print(f"{name} is out of date; run: {FIX}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
