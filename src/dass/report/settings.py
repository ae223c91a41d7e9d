"""From a study's config to what the tables and figures of an experiment show."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from dass.config.blocks import CalibrationConfig
from dass.config.method import MethodConfig
from dass.config.runs import (
    CALIBRATION_AXES,
    RunKey,
    block_runs,
    draws_of,
    experiment_runs,
    prefilled_runs,
    x_values,
    zero_shot_runs,
)
from dass.config.study import StudyConfig
from dass.pruning.methods import find_class
from dass.pruning.patterns import Unstructured, parse_pattern
from dass.report.block_tables import BlockSettings
from dass.report.differences import pruned_in_words
from dass.report.experiment import TableSettings
from dass.report.words import listed

Part: TypeAlias = Literal["pattern", "calibration", "method"]


def table_settings(study: StudyConfig, experiment: str) -> TableSettings:
    """What an experiment shows, of the runs that ``select`` leaves.

    Raises:
        ConfigError: there is no such experiment.
    """
    runs = experiment_runs(study, experiment)
    block = study.experiments[experiment]
    part, curves = _curves(study, experiment) if block.x else ("method", {})
    return TableSettings(
        experiment=experiment,
        title=block.title,
        **_of_runs(study, runs, block.calibrations, block.zero_shot),
        others={name: text.split for name, text in study.perplexity.others.items()},
        tolerance=study.published.tolerance if study.published else 0.02,
        x=block.x,
        x_part=part,
        x_values=x_values(study, experiment) if block.x else {},
        curves=curves,
        unpublished=sorted(
            key for key in {run.method for run in runs} if _prunes_otherwise(study.methods.get(key))
        ),
        targets={
            key: study.methods[key].targets
            for key in dict.fromkeys(run.method for run in runs)
            if key in study.methods and study.methods[key].targets != "mlp"
        },
    )


def speed_accuracy_settings(study: StudyConfig) -> TableSettings | None:
    """What the tables and figures of accuracy against speed show, if any runs are timed."""
    runs = prefilled_runs(study)
    if not runs:
        return None
    drawn = {run.calibration for run in runs}
    calibrations = [key for key, c in study.calibrations.items() if drawn & draws_of(key, c).keys()]
    of_runs = _of_runs(study, runs, calibrations, bool(zero_shot_runs(study)))
    return TableSettings(experiment="speed", title="Accuracy against speed", **of_runs)


def _of_runs(
    study: StudyConfig, runs: Sequence[RunKey], calibrations: Sequence[str], zero_shot: bool
) -> dict[str, Any]:
    """The fields of :class:`TableSettings` that are the same whatever the table says of runs."""
    drawn = {key: study.calibrations[key] for key in calibrations if runs}
    models, methods = {run.model for run in runs}, {run.method for run in runs}
    return {
        "models": {key: model.label for key, model in study.models.items() if key in models},
        "calibrations": {
            key: f"{c.sequences} sequences of {c.length} tokens of {c.dataset}, {_seeds(c)}"
            for key, c in drawn.items()
        },
        "methods": {key: m.label or key for key, m in study.methods.items() if key in methods},
        "patterns": list(dict.fromkeys(run.pattern for run in runs)),
        "split": study.perplexity.table_split,
        "metric": study.zero_shot.metric if study.zero_shot else "acc",
        "tasks": list(study.zero_shot.tasks) if study.zero_shot and zero_shot else [],
        "note": _note(study, methods),
        "draws": {key: draws_of(key, c) for key, c in drawn.items()},
    }


def block_settings(study: StudyConfig) -> BlockSettings | None:
    """What the tables and figures of blocks show, of the runs that ``select`` leaves, if any."""
    runs = block_runs(study)
    if not runs:
        return None
    return BlockSettings(
        models={run.model: study.models[run.model].label for run in runs},
        calibration=runs[0].calibration,
        methods={run.method: study.methods[run.method].label or run.method for run in runs},
        patterns=list(dict.fromkeys(run.pattern for run in runs)),
        note=_note(study, {run.method for run in runs}),
    )


def _prunes_otherwise(method: MethodConfig | None) -> bool:
    """Whether it prunes blocks by ratios or permuted neurons: nothing published."""
    return method is not None and (method.ratios is not None or method.permute)


def _note(study: StudyConfig, methods: Collection[str]) -> str:
    """What captions end with: what is pruned where that is not the MLPs as they stand; the note."""
    blocks = {key: block for key, block in study.methods.items() if key in methods}
    return " ".join(part for part in (pruned_in_words(blocks), study.note) if part)


def _seeds(calibration: CalibrationConfig) -> str:
    """``seed 0``; ``seeds 0 to 4``; ``seeds 0, 3 and 7``."""
    if isinstance(calibration.seed, int):
        return f"seed {calibration.seed}"
    seeds = calibration.seed
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {listed([str(seed) for seed in seeds])}"


def _curves(study: StudyConfig, experiment: str) -> tuple[Part, dict[str, str]]:
    """The part of a line that the axis is about, and what of each key one curve joins.

    Patterns: unstructured ones are joined, and those of N:M with the same M. Calibrations: those
    that differ in nothing but what the axis shows. Methods: those of one function that differ in no
    other argument, under the name of its class; one alone keeps its label.
    """
    block = study.experiments[experiment]
    if block.x == "sparsity":
        return "pattern", {pattern: _family(pattern) for pattern in block.patterns}
    if block.x in CALIBRATION_AXES:
        used = {key: study.calibrations[key] for key in block.calibrations}
        rest = {
            key: {a: getattr(c, a) for a in CALIBRATION_AXES if a != block.x}
            for key, c in used.items()
        }
        return "calibration", {key: ", ".join(own) for key, own in _distinct(rest).items()}
    return "method", _method_curves(study, block.methods, str(block.x))


def _family(pattern: str) -> str:
    parsed = parse_pattern(pattern)
    if isinstance(parsed, Unstructured):
        return "unstructured"
    return f"N:{parsed.group}" + (" both axes" if parsed.both else "")


def _method_curves(study: StudyConfig, methods: Sequence[str], x: str) -> dict[str, str]:
    """Method -> name of its curve, of those that have the argument."""
    blocks = {key: study.methods[key] for key in methods if x in study.methods[key].arguments}
    rest = {
        key: {"function": block.function}
        | {a: v for a, v in block.arguments.items() if a != x}
        | ({"ratios": block.ratios} if block.ratios else {})
        | ({"targets": block.targets} if block.targets != "mlp" else {})
        | ({"permute": True} if block.permute else {})
        for key, block in blocks.items()
    }
    names = {key: find_class(block.function).__name__ for key, block in blocks.items()}
    curves = {}
    for key, block in blocks.items():
        same = [other for other in blocks if rest[other] == rest[key]]
        kin = {other: own for other, own in rest.items() if names[other] == names[key]}
        name = ", ".join([names[key], *_distinct(kin)[key]])
        curves[key] = name if len(same) > 1 else block.label or key
    return curves


def _distinct(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Each block's settings that are not the same in all."""
    names = dict.fromkeys(name for block in blocks.values() for name in block)
    differ = [n for n in names if len({repr(block.get(n)) for block in blocks.values()}) > 1]
    return {
        key: [f"{name} {_words(block[name])}" for name in differ if name in block]
        for key, block in blocks.items()
    }


def _words(value: Any) -> str:
    """A setting as a curve's name shows it; a start by its function and arguments."""
    if not isinstance(value, dict):
        return str(value)
    return " ".join(f"{k} {_words(v)}".removeprefix("function ") for k, v in value.items())
