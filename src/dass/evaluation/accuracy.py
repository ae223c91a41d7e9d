"""Zero-shot accuracy from log-likelihoods, by lm-eval's metrics ``acc`` and ``acc_norm``."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dass.errors import NumericError
from dass.evaluation.requests import LogLikelihood, Request, TaskRequests, requests_hash

Scorer = Callable[[list[Request]], Sequence[LogLikelihood]]
"""Log-likelihoods of requests, in their order."""


@dataclass(frozen=True)
class TaskResult:
    """What one task gave, and on what."""

    acc: float
    acc_stderr: float | None
    """None where there is one sample only."""
    acc_norm: float | None
    """Accuracy by log-likelihood per character of the choice; None where the task has none."""
    acc_norm_stderr: float | None
    samples: int
    version: str | float
    """The version of lm-eval's definition."""
    requests_hash: str
    """Of the token ids of all requests, see :func:`dass.evaluation.requests.requests_hash`."""
    hits: str
    """For each question 1 if it was answered rightly by ``acc``, else 0."""
    norm_hits: str | None
    """The same by ``acc_norm``."""


def measure_accuracy(scorer: Scorer, tasks: Mapping[str, TaskRequests]) -> dict[str, TaskResult]:
    """The accuracies of each task.

    All requests of all tasks reach the scorer in one call, so that a model that is streamed block
    by block reads its weights once for thousands of sequences.

    Raises:
        NumericError: a score is not finite.
    """
    requests = [request for task in tasks.values() for request in task.requests]
    scores = _checked(scorer(requests), requests)
    results, start = {}, 0
    for name, task in tasks.items():
        stop = start + len(task.requests)
        results[name] = accuracy_of(task, scores[start:stop])
        start = stop
    return results


def accuracy_of(task: TaskRequests, scores: Sequence[LogLikelihood]) -> TaskResult:
    """A task's accuracies, given the score of each of its requests.

    Source: lm-evaluation-harness 0.4.13, ``ConfigurableTask.process_results`` for multiple choice:
    the first of the best choices counts.
    """
    sums = [likelihood for likelihood, _ in scores]
    lengths = zip(sums, task.characters, strict=True)
    per_character = [value / length if length else -math.inf for value, length in lengths]
    acc = _hits(task, sums)
    norm = _hits(task, per_character) if task.normed else None
    return TaskResult(
        acc=sum(acc) / len(acc),
        acc_stderr=_standard_error(acc),
        acc_norm=sum(norm) / len(norm) if norm else None,
        acc_norm_stderr=_standard_error(norm) if norm else None,
        samples=len(acc),
        version=task.version,
        requests_hash=requests_hash(task.requests),
        hits=_as_digits(acc),
        norm_hits=_as_digits(norm) if norm else None,
    )


def _hits(task: TaskRequests, values: Sequence[float]) -> list[float]:
    """1.0 for each question whose right choice has the largest value, else 0.0."""
    hits = []
    for question, answer in zip(task.questions(), task.answers, strict=True):
        own = values[question]
        hits.append(float(max(range(len(own)), key=own.__getitem__) == answer))
    return hits


def _as_digits(hits: Sequence[float]) -> str:
    return "".join("1" if hit else "0" for hit in hits)


def _standard_error(values: Sequence[float]) -> float | None:
    """Of the mean: the sample's standard deviation over √n."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def _checked(
    scores: Sequence[LogLikelihood], requests: Sequence[Request]
) -> Sequence[LogLikelihood]:
    for (likelihood, _), (context, _) in zip(scores, requests, strict=True):
        if not math.isfinite(likelihood):
            raise NumericError(
                f"zero-shot: a log-likelihood is {likelihood} (after {len(context)} tokens of "
                "context); the model overflows in this dtype: use bfloat16 or float32"
            )
    return scores
