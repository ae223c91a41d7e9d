"""What a study does otherwise than the paper, in sentences made from its config.

The paper: "Dependency-Aware Semi-Structured Sparsity of GLU Variants in Large Language Models"
(TMLR 2025, arXiv 2405.01943).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dass.config.blocks import ModelConfig
from dass.config.method import MethodConfig
from dass.config.runs import experiment_runs, runs
from dass.config.study import StudyConfig
from dass.report.words import listed, sentences
from dass.tasks import TASKS

PAPER_MODELS = (
    "LLaMA2-7B", "LLaMA2-13B", "LLaMA2-70B", "LLaMA3.1-8B", "Mistral-7B", "Gemma-7B",
)  # fmt: skip
"""As their labels name them."""
PAPER_DATASETS = {
    "allenai/c4": ("files", "en/", "C4"),
    "Salesforce/wikitext": ("name", "wikitext-2-", "WikiText2"),
}
"""Repository on the hub -> how which of its keys begins, and the paper's name of the data set."""
PAPER_SEQUENCES, PAPER_LENGTH = 128, 2048
"""Of the calibration on C4; perplexity has windows of the same length."""

PRUNED = (
    "Pruned, as in the paper: the gate, up and down projections of every MLP. Attention, "
    "embeddings and norms stay dense."
)
PRUNED_BESIDES = (
    "Pruned, as in the paper, unless said otherwise: the gate, up and down projections of every "
    "MLP. Embeddings and norms stay dense."
)


def paper_differences(study: StudyConfig) -> list[str]:
    """What was pruned and measured, and what the paper did where that differs."""
    asked = list(dict.fromkeys(run.model for run in runs(study)))
    return [
        _pruned(study),
        *_models(study, asked),
        _calibrations(study),
        _perplexity(study),
        *_other_texts(study),
        *_zero_shot(study, asked),
        _precision(study, asked),
        *_bos(study, asked),
    ]


def _pruned(study: StudyConfig) -> str:
    """What was pruned; methods with other targets, or permuted neurons, are named."""
    methods = {key: study.methods[key] for key in dict.fromkeys(run.method for run in runs(study))}
    others = pruned_in_words(methods)
    return f"{PRUNED_BESIDES} {others}" if others else PRUNED


def pruned_in_words(methods: Mapping[str, MethodConfig]) -> str:
    """Which methods do not prune gated MLPs alone, as they stand; nothing where all do.

    Args:
        methods: key -> block.
    """
    labels = {own.label or key: own for key, own in methods.items()}
    both, only = ([m for m, o in labels.items() if o.targets == t] for t in ("all", "attention"))
    permuted = [label for label, own in labels.items() if own.permute]
    return sentences(
        f"Pruned by {listed(both)}: attention's linear layers, too" if both else "",
        f"Pruned by {listed(only)}: attention's linear layers in place of the MLPs" if only else "",
        f"Neurons permuted before N:M grouping by {listed(permuted)}" if permuted else "",
    )


def _models(study: StudyConfig, asked: Sequence[str]) -> Iterator[str]:
    standins = [study.models[model].label for model in asked if study.models[model].standin]
    others = [
        study.models[model].label
        for model in asked
        if not study.models[model].standin and study.models[model].label not in PAPER_MODELS
    ]
    if standins:
        yield (
            f"Small stand-ins, trained on a generated toy world, take the place of the paper's "
            f"models: {', '.join(standins)}."
        )
    if others:
        yield f"Models that the paper does not have: {', '.join(others)}."


def _calibrations(study: StudyConfig) -> str:
    """Ablations, which go without tasks, are about other calibrations and name theirs."""
    asked = [e for name, e in study.experiments.items() if experiment_runs(study, name)]
    grids = [e for e in asked if e.zero_shot] or asked
    blocks = [study.calibrations[key] for e in grids for key in e.calibrations]
    ours = dict.fromkeys(
        f"{b.sequences} sequences of {b.length} tokens of {_dataset_name(b.dataset, study)}"
        for b in blocks
    )
    paper = f"{PAPER_SEQUENCES} sequences of {PAPER_LENGTH} tokens of C4"
    closing = ", as in the paper" if list(ours) == [paper] else f" (the paper: {paper})"
    return f"Calibration: {'; '.join(ours)}{closing}."


def _perplexity(study: StudyConfig) -> str:
    """Which split is printed matters: text and released code of the paper differ in it."""
    block = study.perplexity
    dataset = _dataset_name(block.dataset, study)
    same = (dataset, block.length) == ("WikiText2", PAPER_LENGTH)
    paper = "" if same else f" (the paper: WikiText2, windows of {PAPER_LENGTH} tokens)"
    return (
        f"Perplexity: the {block.table_split} split of {dataset}, windows of {block.length} "
        f"tokens{paper}. The paper's text names the validation split, its released code reads the "
        "test split."
    )


def _other_texts(study: StudyConfig) -> Iterator[str]:
    if others := study.perplexity.others:
        named = [f"the {t.split} split of {_dataset_name(n, study)}" for n, t in others.items()]
        yield f"Perplexity on {listed(named)}: beside the paper, which has WikiText2 alone."


def _zero_shot(study: StudyConfig, asked: Sequence[str]) -> Iterator[str]:
    if study.zero_shot is None:
        yield "Zero-shot tasks: not run."
        return
    tasks = study.zero_shot.tasks.items()
    if standins := [TASKS[task].label for task, key in tasks if study.datasets[key].standin]:
        yield f"Zero-shot tasks: questions of the toy world in place of {', '.join(standins)}."
    limits = _by_value(study, asked, lambda model: model.zero_shot_limit)
    for limit, labels in limits.items():
        if limit is not None:
            yield f"Zero-shot tasks: at most {limit} examples of each with {', '.join(labels)}."


def _precision(study: StudyConfig, asked: Sequence[str]) -> str:
    found = _by_value(study, asked, lambda model: model.dtype)
    named = [f"{dtype} ({', '.join(labels)})" for dtype, labels in found.items()]
    return f"Precision: {', '.join(found if len(found) == 1 else named)}."


def _bos(study: StudyConfig, asked: Sequence[str]) -> Iterator[str]:
    found = _by_value(study, asked, lambda model: model.bos)
    if labels := found.get("window"):
        yield (
            "BOS: at the start of each window, where the paper's released code has it at the start "
            f"of the text only: {', '.join(labels)}."
        )


def _dataset_name(key: str, study: StudyConfig) -> str:
    """The paper's name for a data set that is the paper's, else its key."""
    block = study.datasets[key]
    which, start, name = PAPER_DATASETS.get(block.hub or "", ("hub", "", key))
    return name if str(getattr(block, which)).startswith(start) else key


def _by_value(
    study: StudyConfig, asked: Sequence[str], of: Callable[[ModelConfig], Any]
) -> dict[Any, list[str]]:
    """A setting's values -> the labels of the models that have it."""
    found: dict[Any, list[str]] = {}
    for model in asked:
        found.setdefault(of(study.models[model]), []).append(study.models[model].label)
    return found
