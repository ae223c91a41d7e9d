"""The zero-shot tasks, one entry each. A task that is added here can be named in a config.

An entry says where lm-eval's own definition lies, which split that evaluates, which columns of the
official data set it reads, and which answers a row may have: a hidden or a wrong one would count as
a miss.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One of lm-eval's task definitions, and the data that it reads."""

    label: str
    """The name that tables print."""
    file: str
    """The definition, below lm-eval's folder of tasks."""
    split: str
    """The split that it evaluates on: ``<split>.jsonl`` in the data's folder."""
    columns: dict[str, type]
    """The columns that it reads, named and typed as in the official data set."""
    answer: str
    """The column with the right answer."""
    answers: Callable[[Row], Iterable[Any]]
    """What may stand in that column."""


def _labels_with_text(row: Row) -> list[Any]:
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    if len(labels) != len(texts) or len(set(labels)) < len(labels):
        raise ValueError(f"{len(texts)} choices need as many labels, each its own, not {labels}")
    return list(labels)


_ARC: dict[str, type] = {"question": str, "choices": dict, "answerKey": str}

TASKS = {
    "hellaswag": Task(
        label="HellaSwag",
        file="hellaswag/hellaswag.yaml",
        split="validation",
        columns={"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list, "label": str},
        answer="label",
        answers=lambda row: map(str, range(len(row["endings"]))),
    ),
    "winogrande": Task(
        label="WinoGrande",
        file="winogrande/default.yaml",
        split="validation",
        columns={"sentence": str, "option1": str, "option2": str, "answer": str},
        answer="answer",
        answers=lambda row: ("1", "2"),
    ),
    "arc_easy": Task(
        label="ARC-e",
        file="arc/arc_easy.yaml",
        split="test",
        columns=_ARC,
        answer="answerKey",
        answers=_labels_with_text,
    ),
    "arc_challenge": Task(
        label="ARC-c",
        file="arc/arc_challenge.yaml",
        split="test",
        columns=_ARC,
        answer="answerKey",
        answers=_labels_with_text,
    ),
    "piqa": Task(
        label="PIQA",
        file="piqa/piqa.yaml",
        split="validation",
        columns={"goal": str, "sol1": str, "sol2": str, "label": int},
        answer="label",
        answers=lambda row: (0, 1),
    ),
    "boolq": Task(
        label="BoolQ",
        file="super_glue/boolq/default.yaml",
        split="validation",
        columns={"passage": str, "question": str, "label": int},
        answer="label",
        answers=lambda row: (0, 1),
    ),
    "sglue_rte": Task(
        label="RTE",
        file="super_glue/rte/default.yaml",
        split="validation",
        columns={"premise": str, "hypothesis": str, "label": int},
        answer="label",
        answers=lambda row: (0, 1),
    ),
    "openbookqa": Task(
        label="OBQA",
        file="openbookqa/openbookqa.yaml",
        split="test",
        columns={"question_stem": str, "choices": dict, "answerKey": str},
        answer="answerKey",
        answers=_labels_with_text,
    ),
}
"""All tasks, under lm-eval's names: the paper's, then what Wanda's seven have besides."""

PAPER_TASKS = ("hellaswag", "winogrande", "arc_easy", "arc_challenge", "piqa")
"""The paper's five."""
