"""One schema for every result file: what a run measured, with what, on what.

Closed to unknown keys, so that a file of another version, or one mended by hand, is noticed
before its numbers reach a table.
"""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dass.errors import DataError, NumericError
from dass.runtime.files import read_json, write_json
from dass.terms import DENSE, Metric, Split

SCHEMA_VERSION: Literal[2] = 2
"""Goes up with every change of a field's name or meaning; files of another version are refused."""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Hits = Annotated[str, Field(pattern="^[01]*$")]


def _at_least(least: float, value: float) -> float:
    """What is not finite passes: it is refused elsewhere, wherever in a file it stands."""
    if math.isfinite(value) and value < least:
        raise ValueError(f"must be at least {least:g}")
    return value


FromOne = Annotated[float, AfterValidator(partial(_at_least, 1))]
FromZero = Annotated[float, AfterValidator(partial(_at_least, 0))]


class Closed(BaseModel):
    """No unknown keys, no text where a number belongs, no change once it is made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Versioned(Closed):
    """What a file holds."""

    schema_version: Literal[2] = SCHEMA_VERSION


class Run(Closed):
    """What a result is about; a dense run has neither calibration nor pattern."""

    model: str
    calibration: str | None
    method: str
    pattern: str | None

    @model_validator(mode="after")
    def _dense_or_pruned(self) -> Self:
        missing = [self.calibration is None, self.pattern is None]
        if missing != [self.method == DENSE] * 2:
            raise ValueError("a pruned run has calibration and pattern, a dense run has neither")
        return self

    @classmethod
    def parse(cls, path: str) -> Self:
        """The run whose path is ``model/dense`` or ``model/calibration/method/pattern``."""
        model, *variant = path.split("/")
        if variant == [DENSE]:
            return cls(model=model, calibration=None, method=DENSE, pattern=None)
        calibration, method, pattern = variant
        return cls(model=model, calibration=calibration, method=method, pattern=pattern)

    def __str__(self) -> str:
        keys = (self.model, self.calibration, self.method, self.pattern)
        return "/".join(key for key in keys if key is not None)


class RunResult(Versioned):
    """What one stage found out about one run."""

    run: Run
    settings: dict[str, Any]
    """What the stage was asked for: arguments, dtype, length, BOS rule, ..."""
    provenance: dict[str, Any]
    """As :func:`dass.runtime.provenance.provenance` gives it."""


class PeakMemory(Closed):
    """Peak memory in bytes; ``device`` is None where no GPU was used."""

    host: Count
    device: Count | None


class KeptShare(Closed):
    """The share of a role's score that is kept, on average over gated MLPs."""

    natural: Share
    """With groups in the model's own order of neurons."""
    permuted: Share
    """In the order that was found."""


class PruningResult(RunResult):
    """How a model was pruned, and how far."""

    calibration_hash: str
    mask_hash: str
    sparsity: dict[str, Share]
    """Matrix name -> share of its entries that are pruned."""
    mean_sparsity: Share
    """Share of pruned entries in all pruned matrices together."""
    seconds: dict[str, float]
    """Stage -> seconds; ``total`` among them."""
    expert_tokens: dict[str, Count] = {}
    """Expert -> calibration tokens that its router sent to it; empty for dense models."""
    kept_shares: dict[str, KeptShare] = {}
    """Role -> what permuting neurons changed; empty where none were permuted."""
    block_seconds: list[float]
    """Seconds per decoder block, reading included."""
    peak_memory_bytes: PeakMemory
    tokens: Count
    """Calibration tokens."""


class SplitPerplexity(Closed):
    """The perplexity of one split, as :class:`dass.evaluation.perplexity.Perplexity` has it."""

    perplexity: FromOne
    nll: FromZero
    """Mean negative log-likelihood per token, in nats."""
    tokens: Count
    windows: Count
    tokens_hash: str
    window_nlls: list[FromZero]
    """Of each window, in nats per token: what runs are compared by."""

    @model_validator(mode="after")
    def _of_these_windows(self) -> Self:
        if len(self.window_nlls) != self.windows:
            raise ValueError("window_nlls: not one for each window")
        return self


class OtherText(SplitPerplexity):
    """The perplexity of one more data set."""

    split: Split


class PerplexityResult(RunResult):
    """Perplexity on each split of a data set, and on one split of each other one."""

    dataset: str
    splits: Annotated[dict[str, SplitPerplexity], Field(min_length=1)]
    others: dict[str, OtherText] = {}
    """Data set -> its perplexity."""
    mask_hash: str | None
    """None for the dense model."""

    def of(self, split: str, dataset: str | None = None) -> SplitPerplexity | None:
        """On a split of a data set, by default the first; None where it was not measured."""
        if dataset in (None, self.dataset):
            return self.splits.get(split)
        other = self.others.get(dataset)
        return other if other is not None and other.split == split else None


class TaskAccuracy(Closed):
    """One task's accuracies, as :class:`dass.evaluation.accuracy.TaskResult` has them."""

    acc: Share
    acc_stderr: FromZero | None
    """None where there is one sample only."""
    acc_norm: Share | None
    """None where the task has none (WinoGrande)."""
    acc_norm_stderr: FromZero | None
    samples: Count
    version: str | int | float
    requests_hash: str
    hits: Hits
    """For each question 1 if it was answered rightly by acc, else 0; what runs are compared by."""
    norm_hits: Hits | None
    """The same by acc_norm."""

    @model_validator(mode="after")
    def _of_these_questions(self) -> Self:
        for name, share, hits in (("acc", self.acc, self.hits),
                                  ("acc_norm", self.acc_norm, self.norm_hits)):  # fmt: skip
            if (share is None) != (hits is None):
                raise ValueError(f"{name}: without its questions, or the other way round")
            if hits is not None and (
                len(hits) != self.samples or hits.count("1") != round((share or 0) * len(hits))
            ):
                raise ValueError(f"{name}: is not that of its questions")
        return self

    def by(self, metric: Metric) -> tuple[float, float | None]:
        """Accuracy and standard error by this metric; acc where the task has no acc_norm."""
        if metric == "acc" or self.acc_norm is None:
            return self.acc, self.acc_stderr
        return self.acc_norm, self.acc_norm_stderr

    def hits_by(self, metric: Metric) -> str:
        """The questions answered rightly by this metric; by acc where the task has no acc_norm."""
        return self.hits if metric == "acc" or self.norm_hits is None else self.norm_hits


class ZeroShotResult(RunResult):
    """Accuracy on each task."""

    tasks: Annotated[dict[str, TaskAccuracy], Field(min_length=1)]
    limit: Count | None
    """At most this many examples of each task; None: all."""
    mask_hash: str | None
    """None for the dense model."""


class NormSpread(Closed):
    """The norms of one block's channels, as :class:`dass.pruning.activations.Spread` has them."""

    median: FromZero
    percentiles: dict[str, FromZero]
    """Percent -> norm relative to the median."""
    outliers: Share
    """Share of channels whose norm is above five times the mean."""


class BlockNorms(Closed):
    """What goes into a block's GLU, and into its ``down``, over all calibration tokens."""

    input: NormSpread
    intermediate: NormSpread


class ActivationsResult(Versioned):
    """How far the activations of a dense model are spread, block by block."""

    model: str
    calibration: str
    settings: dict[str, Any]
    provenance: dict[str, Any]
    calibration_hash: str
    norms_hash: str
    """Of the norms themselves, in the file beside this one."""
    tokens: Count
    blocks: Annotated[list[BlockNorms], Field(min_length=1)]

    @property
    def run(self) -> str:
        """What to call it in an error."""
        return f"{self.model}/{self.calibration}"


class BlockScoresResult(Versioned):
    """What tells the blocks of a dense model apart, as :mod:`dass.pruning.block_scores` has it."""

    model: str
    calibration: str | None
    """None where no tokens are read."""
    kind: Literal["owl", "alphapruning"]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    scores: Annotated[list[FromZero], Field(min_length=1)]
    """Of each block: OWL's share of outliers, or AlphaPruning's exponent."""

    @property
    def run(self) -> str:
        """What to call it in an error."""
        return "/".join(part for part in (self.model, self.calibration) if part)


class RatiosResult(Versioned):
    """How far each block of a model is pruned to one pattern, by :mod:`dass.pruning.ratios`."""

    model: str
    calibration: str
    ratios: str
    """The config's key."""
    pattern: str
    settings: dict[str, Any]
    provenance: dict[str, Any]
    scores: list[FromZero] | None
    """As in the file of scores; None where the ratios were written down."""
    block_weights: Annotated[list[Count], Field(min_length=1)]
    """Weights in each block."""
    block_ratios: Annotated[list[Share], Field(min_length=1)]
    """Share of zeros that each block is pruned to."""

    @property
    def run(self) -> str:
        """What to call it in an error."""
        return f"{self.model}/{self.calibration}/{self.ratios}/{self.pattern}"


class BlockError(Closed):
    """The errors that pruning makes in one block, and where it keeps weights."""

    glu_error: FromZero
    """‖GLU(x) − GLU_pruned(x)‖ / ‖GLU(x)‖ for what the pruned block's GLU is given."""
    hidden_error: FromZero
    """‖h − h_pruned‖ / ‖h‖ of the block's output."""
    kept: Annotated[list[Share], Field(min_length=10, max_length=10)]
    """Kept share of gate's and up's weights in each tenth of the neurons, quietest first."""


class BlocksResult(RunResult):
    """The errors of each block of a run, on the first windows of a split."""

    dataset: str
    split: Split
    windows: Count
    tokens: Count
    tokens_hash: str
    """Of these windows."""
    mask_hash: str
    norms_hash: str
    """Of the norms by which neurons are sorted."""
    blocks: Annotated[list[BlockError], Field(min_length=1)]


File = TypeVar("File", bound=Versioned)


def read_result(path: str | Path, cls: type[File]) -> File:
    """Read a result file, or another of this schema.

    Raises:
        DataError: the file is missing, malformed, or of another schema version.
    """
    content = read_json(path)
    remedy = "delete it and run again"
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no {cls.__name__} but a {type(content).__name__}; {remedy}")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: schema_version is {version!r}, but this dass reads {SCHEMA_VERSION}; {remedy}"
        )
    try:
        result = cls.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {_first_problem(error)}; {remedy}") from None
    for field, value in _not_finite(content):
        raise DataError(f"{path}: {field}: is {value}, not a finite number; {remedy}")
    return result


Written = RunResult | ActivationsResult | BlockScoresResult | RatiosResult


def write_result(path: str | Path, result: Written) -> None:
    """Write a result file, whole or not at all.

    Raises:
        NumericError: a number in it is not finite; nothing is written.
    """
    content = result.model_dump(mode="python")
    for field, value in _not_finite(content):
        raise NumericError(
            f"{result.run}: {field} is {value}; nothing was written to {path}: "
            "check the model's weights and its dtype (bfloat16 or float32 where float16 overflows)"
        )
    write_json(path, content)


def _first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, as ``field: what is wrong``, in one line."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    return " ".join(f"{field}: {problem['msg'].removeprefix('Value error, ')}".split())


def _not_finite(value: Any, field: str = "") -> Iterator[tuple[str, float]]:
    """Every number that is NaN or infinite, with the dotted path to it."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _not_finite(part, f"{field}.{key}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _not_finite(part, f"{field}.{index}".removeprefix("."))
    elif isinstance(value, float) and not math.isfinite(value):
        yield field, value
