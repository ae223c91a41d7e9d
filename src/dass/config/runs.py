"""The runs that a study asks for, experiment by experiment."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from dass.config.blocks import BlocksConfig, CalibrationConfig, ExperimentConfig, SelectConfig
from dass.config.types import nearest
from dass.errors import ConfigError
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern

if TYPE_CHECKING:
    from dass.config.study import StudyConfig

CALIBRATION_AXES = ("dataset", "sequences", "length", "propagation")
"""Keys of a calibration that a figure may have on its horizontal axis."""


def draws_of(name: str, calibration: CalibrationConfig) -> dict[str, int]:
    """The draws of a calibration: name -> seed; of a single seed, the calibration's own name."""
    if isinstance(calibration.seed, int):
        return {name: calibration.seed}
    return {f"{name}-seed{seed}": seed for seed in calibration.seed}


class RunKey(NamedTuple):
    """A run, in the order of the parts of its path."""

    model: str
    calibration: str
    """A draw: see :func:`draws_of`."""
    method: str
    pattern: str


def experiment_runs(study: StudyConfig, name: str) -> list[RunKey]:
    """The runs of an experiment, those that ``select`` leaves, in the order of its lists.

    Raises:
        ConfigError: there is no such experiment.
    """
    if name not in study.experiments:
        near = nearest(name, study.experiments)
        raise ConfigError(f"no experiment {name!r} in experiments; {near}")
    experiment, select = study.experiments[name], study.select or SelectConfig()
    if select.experiments is not None and name not in select.experiments:
        return []
    draws = {
        (calibration, method): draws_for(study, calibration, method)
        for calibration in experiment.calibrations
        for method in experiment.methods
    }
    return [
        RunKey(model, draw, method, pattern)
        for model, calibration, method, pattern in itertools.product(
            _selected(models_of(study, experiment), select.models),
            experiment.calibrations,
            _selected(experiment.methods, select.methods),
            _selected(experiment.patterns, select.patterns),
        )
        for draw in draws[calibration, method]
    ]


def draws_for(study: StudyConfig, calibration: str, method: str) -> list[str]:
    """The draws of a calibration that a method is run with: one where nothing reads tokens."""
    draws = list(draws_of(calibration, study.calibrations[calibration]))
    block = study.methods[method]
    ratios = study.ratios.get(block.ratios or "")
    reads = make_method(block.function, block.arguments).needs or (ratios and ratios.kind == "owl")
    return draws if reads else draws[:1]


def models_of(study: StudyConfig, block: ExperimentConfig | BlocksConfig) -> list[str]:
    """The models that a block lists; ``all`` are those of the study."""
    return list(study.models) if block.models == "all" else block.models


def block_combinations(study: StudyConfig) -> list[tuple[str, str, str]]:
    """Model, method and pattern of each run that ``blocks`` asks for; none without it."""
    if (block := study.blocks) is None:
        return []
    return list(itertools.product(models_of(study, block), block.methods, block.patterns))


def block_runs(study: StudyConfig) -> list[RunKey]:
    """The runs whose blocks are looked into, those that ``select`` leaves, in config order."""
    if (block := study.blocks) is None:
        return []
    draw = next(iter(draws_of(block.calibration, study.calibrations[block.calibration])))
    asked = [RunKey(model, draw, *variant) for model, *variant in block_combinations(study)]
    left = set(runs(study))
    return [key for key in asked if key in left]


def x_values(study: StudyConfig, name: str) -> dict[str, float | str]:
    """Where an experiment's patterns, calibrations or methods stand on its figure's axis.

    Methods without the argument that the axis shows are missing: lines across.
    """
    experiment = study.experiments[name]
    if experiment.x == "sparsity":
        return {p: 100 * parse_pattern(p).sparsity for p in experiment.patterns}
    if experiment.x in CALIBRATION_AXES:
        used = {c: study.calibrations[c] for c in experiment.calibrations}
        return {c: getattr(block, experiment.x) for c, block in used.items()}
    arguments = {m: study.methods[m].arguments for m in experiment.methods}
    return {m: own[experiment.x] for m, own in arguments.items() if experiment.x in own}


def speed_subjects(study: StudyConfig, part: str) -> list[str]:
    """The models and shapes that a part of ``speed`` measures, those that ``select`` leaves."""
    block = getattr(study.speed, part, None)
    if block is None:
        return []
    chosen = study.select.models if study.select else None
    named = list(study.models) if block.of == "all" else block.of
    return [n for n in named if n not in study.models or chosen is None or n in chosen]


def prefilled_runs(study: StudyConfig) -> list[RunKey]:
    """The runs whose own models are timed on a GPU, if their MLPs are pruned.

    Of ablations, which go without tasks, time would say nothing new.
    """
    block = study.speed.gpu if study.speed else None
    if block is None or not block.prefill:
        return []
    subjects, asked = speed_subjects(study, "gpu"), zero_shot_runs(study) or runs(study)
    return [
        run
        for run in asked
        if run.model in subjects
        and run.pattern in block.prefill_patterns
        and study.methods[run.method].targets != "attention"
    ]


def runs(study: StudyConfig) -> list[RunKey]:
    """The runs of all experiments, those that ``select`` leaves, each once, in config order."""
    return list(
        dict.fromkeys(key for name in study.experiments for key in experiment_runs(study, name))
    )


def zero_shot_runs(study: StudyConfig) -> list[RunKey]:
    """Those of them whose experiment has the tasks run, too."""
    asking = [name for name, block in study.experiments.items() if block.zero_shot]
    found = [key for name in asking for key in experiment_runs(study, name)]
    return list(dict.fromkeys(found)) if study.zero_shot else []


def _selected(names: list[str], chosen: list[str] | None) -> list[str]:
    return [name for name in names if chosen is None or name in chosen]
