"""Checks across the blocks of a study: each yields the key and what is wrong with it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from dass.config.blocks import SelectConfig
from dass.config.runs import (
    CALIBRATION_AXES,
    block_combinations,
    draws_of,
    models_of,
    x_values,
)
from dass.config.types import Problem, nearest
from dass.errors import ConfigError, PatternError
from dass.latex import latex_name
from dass.pruning.method_checks import check_groups, check_permutes
from dass.pruning.methods import make_method, takes_files
from dass.pruning.patterns import NofM, parse_pattern
from dass.pruning.ratios import check_listed
from dass.terms import DatasetKind

if TYPE_CHECKING:
    from dass.config.study import StudyConfig


def _alike(keys: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names whose key an earlier name has, too, and that name."""
    seen: dict[str, str] = {}
    for name, key in keys.items():
        if (first := seen.setdefault(key, name)) != name:
            yield name, first


def _check_case(study: StudyConfig) -> Iterator[Problem]:
    """Files are named by these, and some disks take small and capital letters for the same."""
    sections = ("models", "datasets", "calibrations", "methods", "ratios", "experiments")
    named = [(section, getattr(study, section)) for section in sections]
    if study.speed is not None:
        named.append(("speed.shapes", study.speed.shapes))
    for section, names in named:
        for name, first in _alike({name: name.casefold() for name in names}):
            yield (
                f"{section}.{name}",
                f"differs from {first} in capital letters only, which some disks do not tell "
                "apart; rename one",
            )


def _check_labels(study: StudyConfig) -> Iterator[Problem]:
    """Tables and figures tell models apart by their labels, and methods too."""
    for section in ("models", "methods"):
        blocks = getattr(study, section)
        for name, first in _alike({name: block.label or name for name, block in blocks.items()}):
            yield f"{section}.{name}.label", f"same as that of {first}; tables need them apart"


def _check_latex_labels(study: StudyConfig) -> Iterator[Problem]:
    """Names of experiments, and of texts, differ in LaTeX's labels, too, which have no dots."""
    for key, names in (
        ("experiments", study.experiments),
        ("perplexity.others", study.perplexity.others),
    ):
        labels = {name: latex_name(name) for name in names}
        for name, first in _alike(labels):
            label = labels[name]
            yield f"{key}.{name}", f"has the label of {first} in LaTeX ({label}); rename one"


def _check_standins(study: StudyConfig) -> Iterator[Problem]:
    standins = [
        f"{section}.{name}"
        for section in ("models", "datasets")
        for name, block in getattr(study, section).items()
        if block.standin is not None
    ]
    if standins and study.standins is None:
        yield "standins", f"missing; {standins[0]} is a stand-in and needs this block"


def _check_datasets(study: StudyConfig) -> Iterator[Problem]:
    """What calibrations and evaluations read exists and is of the right kind."""
    uses: list[tuple[str, str, tuple[DatasetKind, ...]]] = [
        (f"calibrations.{name}.dataset", calibration.dataset, ("documents",))
        for name, calibration in study.calibrations.items()
    ]
    uses.append(("perplexity.dataset", study.perplexity.dataset, ("text",)))
    uses += [(f"perplexity.others.{n}", n, ("text", "documents")) for n in study.perplexity.others]
    tasks = study.zero_shot.tasks if study.zero_shot else {}
    uses += [(f"zero_shot.tasks.{task}", name, ("task",)) for task, name in tasks.items()]
    for key, name, kinds in uses:
        block = study.datasets.get(name)
        if block is None:
            of_kind = [other for other, block in study.datasets.items() if block.kind in kinds]
            yield key, f"no data set {name!r} in datasets; {nearest(name, of_kind)}"
        elif block.kind not in kinds:
            kind = " or ".join(kinds)
            yield key, f"data set {name!r} is of kind {block.kind}, but kind {kind} is needed here"
        elif kinds == ("task",) and block.standin not in (None, key.rpartition(".")[2]):
            yield key, f"data set {name!r} holds the task {block.standin}"
    for name, text in study.perplexity.others.items():
        if text.documents and name in study.datasets and study.datasets[name].kind == "text":
            yield f"perplexity.others.{name}.documents", "goes with kind documents only; remove it"


def _check_draws(study: StudyConfig) -> Iterator[Problem]:
    """No draw of a calibration has the name of another one."""
    owners: dict[str, str] = {}
    for name, calibration in study.calibrations.items():
        for draw in draws_of(name, calibration):
            if (first := owners.setdefault(draw, name)) != name:
                yield f"calibrations.{name}", f"has a draw {draw}, as has {first}; rename one"


def _check_groups(study: StudyConfig) -> Iterator[Problem]:
    """A method can lay the N:M groups that are asked for, a refinement move within them."""
    asked = [(b.methods, b.patterns) for b in study.experiments.values()]
    if study.blocks is not None:
        asked.append((study.blocks.methods, study.blocks.patterns))
    pairs = [pair for lists in asked for pair in itertools.product(*lists)]
    for name, pattern in dict.fromkeys(pairs):
        if name not in study.methods:
            continue
        block, parsed = study.methods[name], parse_pattern(pattern)
        try:
            check_groups(make_method(block.function, block.arguments), parsed, block.targets)
        except PatternError as error:
            yield f"methods.{name}", str(error)
            break


def _check_x(study: StudyConfig) -> Iterator[Problem]:
    """What an experiment's figure has on its axis differs between its runs."""
    unknown = {key for key, _ in _check_experiments(study)}
    for name, experiment in study.experiments.items():
        lists = {f"experiments.{name}.{section}" for section in ("calibrations", "methods")}
        if experiment.x is None or lists & unknown:
            continue
        known = ["sparsity", *CALIBRATION_AXES]
        for method in experiment.methods:
            own = study.methods[method].arguments
            known += [key for key, value in own.items() if not isinstance(value, dict)]
        if experiment.x not in known:
            near = nearest(experiment.x, dict.fromkeys(known))
            yield f"experiments.{name}.x", f"nothing that differs between runs; {near}"
        elif len(set(x_values(study, name).values())) < 2:
            what = f"needs two values of {experiment.x} at least; list more, or remove it"
            yield f"experiments.{name}.x", what


def _check_experiments(study: StudyConfig) -> Iterator[Problem]:
    for name, experiment in study.experiments.items():
        for section in ("models", "calibrations", "methods"):
            if (listed := getattr(experiment, section)) != "all":
                key, known = f"experiments.{name}.{section}", getattr(study, section)
                yield from _check_names(key, listed, section[:-1], known, section)


def _check_ratios(study: StudyConfig) -> Iterator[Problem]:
    """Ratios that methods name exist, and those written down come to the patterns."""
    for name, method in study.methods.items():
        if method.ratios is not None and method.ratios not in study.ratios:
            near = nearest(method.ratios, study.ratios)
            yield f"methods.{name}.ratios", f"no ratios {method.ratios!r} in ratios; {near}"
    for name, block in study.ratios.items():
        users = {method for method, own in study.methods.items() if own.ratios == name}
        patterns = {
            pattern: None
            for experiment in study.experiments.values()
            if users & set(experiment.methods)
            for pattern in experiment.patterns
        }
        shares = block.shares or []
        for pattern in patterns if shares else ():
            try:  # taking blocks to be of one size
                check_listed(shares, [1] * len(shares), parse_pattern(pattern))
            except PatternError as error:
                yield f"ratios.{name}.shares", str(error)


def _check_targets(study: StudyConfig) -> Iterator[Problem]:
    """What is about gated MLPs alone is not asked of methods that prune other matrices."""
    for name, method in study.methods.items():
        if method.targets == "mlp":
            continue
        key, asked = f"methods.{name}.targets", f"{method.targets} cannot be"
        if takes_files(method.function):
            yield key, f"{asked} asked of masks from files, which are of gated MLPs; remove it"
        if method.ratios is not None:
            yield key, f"{asked} pruned by ratios, which are of gated MLPs; remove one of the two"
    for name in dict.fromkeys(study.blocks.methods if study.blocks else []):
        if name in study.methods and study.methods[name].targets == "attention":
            yield "blocks.methods", f"{name} prunes no gated MLP (targets: attention); remove it"


def _check_permute(study: StudyConfig) -> Iterator[Problem]:
    """Neurons are permuted only where that changes N:M groups."""
    for name, block in study.methods.items():
        if not block.permute:
            continue
        key = f"methods.{name}.permute"
        lists = [e.patterns for e in study.experiments.values() if name in e.methods]
        asked = [parse_pattern(pattern) for pattern in dict.fromkeys(itertools.chain(*lists))]
        grouped = [pattern for pattern in asked if isinstance(pattern, NofM)]
        if asked and not grouped:
            own = ", ".join(map(str, asked))
            yield key, f"regroups N:M groups, but there are none in {own}; add 2of4, or remove it"
        try:
            for pattern in grouped:
                check_permutes(make_method(block.function, block.arguments), pattern, block.targets)
        except ConfigError as error:
            yield key, str(error)


def _check_blocks(study: StudyConfig) -> Iterator[Problem]:
    """What is looked into exists."""
    if study.blocks is None:
        return
    block = study.blocks
    models = models_of(study, block)
    yield from _check_names("blocks.models", models, "model", study.models, "models")
    calibration = [block.calibration]
    yield from _check_names(
        "blocks.calibration", calibration, "calibration", study.calibrations, "calibrations"
    )
    yield from _check_names("blocks.methods", block.methods, "method", study.methods, "methods")
    if "blocks" in study.experiments:
        yield "experiments.blocks", "has the folder of what `blocks` yields; rename it"


def _check_block_runs(study: StudyConfig) -> Iterator[Problem]:
    """What is looked into is pruned for some experiment; the first that is not is named."""
    if study.blocks is None or list(_check_blocks(study)):
        return
    calibration = study.blocks.calibration
    for model, method, pattern in block_combinations(study):
        if not any(
            model in models_of(study, experiment)
            and calibration in experiment.calibrations
            and method in experiment.methods
            and pattern in experiment.patterns
            for experiment in study.experiments.values()
        ):
            run = f"{model}/{calibration}/{method}/{pattern}"
            yield "blocks", f"{run} is a run of no experiment; add it to one, or leave it out here"
            return


def _check_speed(study: StudyConfig) -> Iterator[Problem]:
    """What is measured exists, and no shape has a model's name."""
    if study.speed is None:
        return
    shapes = study.speed.shapes
    for name in shapes:
        if name in study.models:
            yield f"speed.shapes.{name}", "is also the name of a model; choose another"
    known, where = [*study.models, *shapes], "models and speed.shapes"
    for part in ("metric", "gpu", "cpu"):
        block = getattr(study.speed, part)
        if block is not None and block.of != "all":
            yield from _check_names(f"speed.{part}.of", block.of, "model or shape", known, where)
    gpu = study.speed.gpu
    if gpu is not None and "prefill_patterns" in gpu.model_fields_set:
        key, used = "speed.gpu.prefill_patterns", _patterns_used(study)
        yield from _check_names(key, gpu.prefill_patterns, "pattern", used, "any experiment")
    timed = study.speed.metric
    if timed is not None and timed.methods != "all":
        key = "speed.metric.methods"
        yield from _check_names(key, timed.methods, "method", study.methods, "methods")
        for name in set(timed.methods) & study.methods.keys():
            if takes_files(study.methods[name].function):
                yield key, f"{name} takes masks from files, which is no metric; remove it"


def _check_select(study: StudyConfig) -> Iterator[Problem]:
    patterns = _patterns_used(study)
    for key in SelectConfig.model_fields:
        if (listed := getattr(study.select, key, None)) is not None:
            known = patterns if key == "patterns" else getattr(study, key)
            where = "any experiment" if key == "patterns" else key
            yield from _check_names(f"select.{key}", listed, key[:-1], known, where)


def _patterns_used(study: StudyConfig) -> dict[str, None]:
    return dict.fromkeys(p for e in study.experiments.values() for p in e.patterns)


def _check_names(
    key: str, listed: list[str], what: str, known: Collection[str], section: str
) -> Iterator[Problem]:
    for name in dict.fromkeys(listed):
        if name not in known:
            yield key, f"no {what} {name!r} in {section}; {nearest(name, known)}"
        elif listed.count(name) > 1:
            yield key, f"{name} is listed twice; remove one"


# What a study asks for


CHECKS = (
    _check_case, _check_labels, _check_latex_labels, _check_standins, _check_datasets,
    _check_draws, _check_experiments, _check_groups, _check_x,
    _check_blocks, _check_block_runs, _check_ratios, _check_targets, _check_permute,
    _check_speed, _check_select,
)  # fmt: skip
"""In the order in which problems are named."""
