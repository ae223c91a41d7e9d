"""Zero-shot accuracy of a model in one call, from the tasks' files to the tasks' accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dass.evaluation.accuracy import Scorer, TaskResult, measure_accuracy
from dass.evaluation.harness import build_requests
from dass.terms import Bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def evaluate(
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, Path],
    *,
    max_length: int,
    limit: int | None = None,
    seed: int = 0,
    bos: Bos,
) -> dict[str, TaskResult]:
    """Zero-shot accuracy on some of the tasks.

    Args:
        scorer: is called once, with the requests of all tasks.
        tokenizer: of the model; and
        tasks, max_length, limit, seed, bos: see :func:`dass.evaluation.harness.build_requests`.

    Raises:
        ConfigError, DataError: as ``build_requests``.
        NumericError: a score is not finite.
    """
    requests = build_requests(
        tokenizer, tasks, max_length=max_length, limit=limit, seed=seed, bos=bos
    )
    return measure_accuracy(scorer, requests)
