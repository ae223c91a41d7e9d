"""A study: all of its blocks."""

from collections.abc import Iterator

from pydantic import Field

from dass.config.blocks import (
    BlocksConfig,
    CalibrationConfig,
    DatasetConfig,
    ExperimentConfig,
    ModelConfig,
    PerplexityConfig,
    PublishedConfig,
    RatiosConfig,
    SelectConfig,
    StandinsConfig,
    ZeroShotConfig,
)
from dass.config.checks import CHECKS
from dass.config.method import AnyMethod
from dass.config.runs import draws_of, runs
from dass.config.speed import SpeedConfig
from dass.config.types import STUDY, Label, Name, Printed, Problem, RunName, Strict


class StudyConfig(Strict):
    """One config file and all that it asks for."""

    study: str = Field(pattern=STUDY)
    """The study's name; its results land in `results/<study>/`."""
    description: Label
    """What the study is, in a sentence, for its report."""
    note: Printed = ""
    """The line that every table's caption ends with: what a reader must know before comparing its
    numbers."""
    models: dict[Name, ModelConfig] = Field(min_length=1)
    """Models, by name."""
    datasets: dict[Name, DatasetConfig] = Field(min_length=1)
    """Data sets, by name."""
    standins: StandinsConfig | None = None
    """How the stand-ins are made, where there are any."""
    calibrations: dict[RunName, CalibrationConfig] = Field(min_length=1)
    """Sets of calibration windows, by name."""
    methods: dict[RunName, AnyMethod] = Field(min_length=1)
    """Pruning functions with their arguments, by name."""
    ratios: dict[Name, RatiosConfig] = Field(default_factory=dict)
    """How far each block is pruned, by name, for methods that name one."""
    perplexity: PerplexityConfig
    """How perplexity is measured."""
    zero_shot: ZeroShotConfig | None = None
    """Zero-shot tasks that are run."""
    published: PublishedConfig | None = None
    """Published numbers to compare with, where there are any."""
    experiments: dict[Name, ExperimentConfig] = Field(min_length=1)
    """Which runs are made, and put into one table, by name."""
    blocks: BlocksConfig | None = None
    """A look into the decoder blocks of some runs; without it, none."""
    speed: SpeedConfig | None = None
    """Benchmarks of speed that are run; without it, none."""
    select: SelectConfig | None = None
    """Restricts what is run; for the command line."""

    @property
    def draws(self) -> dict[str, CalibrationConfig]:
        """The calibrations, each of its seeds for itself, by the name that paths have."""
        return {
            draw: calibration.model_copy(update={"seed": seed})
            for name, calibration in self.calibrations.items()
            for draw, seed in draws_of(name, calibration).items()
        }

    def _problems(self) -> Iterator[Problem]:
        found = [problem for check in CHECKS for problem in check(self)]
        if not found and not runs(self):
            yield "select", "leaves nothing to run; no experiment has this combination"
        yield from found
