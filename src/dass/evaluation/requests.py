"""What a model is asked in zero-shot evaluation: continuations of contexts, as token ids.

A model's requests are built once, by :mod:`dass.evaluation.harness`, and saved: each run of the
model is asked the same, and needs neither lm-eval nor the tokenizer.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dass.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Request = tuple[list[int], list[int]]
"""Tokens of a context, and tokens of a continuation of it; neither is empty."""

LogLikelihood = tuple[float, bool]
"""Sum of a continuation's log-probabilities (nats), and whether each token is the likeliest."""


@dataclass(frozen=True)
class TaskRequests:
    """What is asked of a model in one task, and what decides about its answers.

    A question's requests, one for each of its choices, follow each other.
    """

    requests: list[Request]
    choices: list[int]
    """How many choices each question has."""
    answers: list[int]
    """The right choice of each question, from 0."""
    characters: list[int]
    """The length of each request's choice, by which ``acc_norm`` divides its log-likelihood."""
    normed: bool
    """Whether the task has ``acc_norm``."""
    version: str | float
    """The version of lm-eval's definition."""

    def questions(self) -> list[slice]:
        """Where each question's requests are."""
        return [slice(*ends) for ends in pairwise([0, *accumulate(self.choices)])]


def requests_hash(requests: Sequence[Request]) -> str:
    """SHA-256 over requests, each as its two lengths and its tokens, all little-endian int64."""
    digest = hashlib.sha256()
    for context, continuation in requests:
        numbers = [len(context), len(continuation), *context, *continuation]
        digest.update(struct.pack(f"<{len(numbers)}q", *numbers))
    return digest.hexdigest()


def save_requests(
    path: str | Path,
    tasks: Mapping[str, TaskRequests],
    about: Mapping[str, Any],
    more: Mapping[str, Tensor],
) -> None:
    """Save a model's requests with how they came to be, and more tensors, as a token file."""
    import torch

    from dass.data.token_file import save_tokens

    tensors: dict[str, Tensor] = {}
    for name, task in tasks.items():
        contexts, continuations = zip(*task.requests, strict=True)
        columns = {
            "tokens": [token for pair in task.requests for part in pair for token in part],
            "contexts": list(map(len, contexts)),
            "continuations": list(map(len, continuations)),
            "choices": task.choices,
            "answers": task.answers,
            "characters": task.characters,
        }
        tensors |= {f"{name}.{key}": torch.tensor(column) for key, column in columns.items()}
    settings = {n: {"normed": t.normed, "version": t.version} for n, t in tasks.items()}
    save_tokens(path, tensors | {**more}, {**about, "tasks": settings})


def load_requests(path: str | Path) -> tuple[dict[str, TaskRequests], dict[str, Any]]:
    """A model's requests by task, and how they came to be.

    Raises:
        DataError: the file is missing, damaged, or holds no requests.
    """
    from dass.data.token_file import read_tokens

    saved, about = read_tokens(path)
    try:
        tasks = {
            name: TaskRequests(
                _split(*(saved[f"{name}.{key}"].tolist() for key in _LAYOUT)),
                saved[f"{name}.choices"].tolist(),
                saved[f"{name}.answers"].tolist(),
                saved[f"{name}.characters"].tolist(),
                **settings,
            )
            for name, settings in about.pop("tasks").items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise DataError(f"{path}: holds no requests ({what}); delete it, run again") from None
    return tasks, about


_LAYOUT = ("tokens", "contexts", "continuations")


def _split(tokens: list[int], contexts: list[int], continuations: list[int]) -> list[Request]:
    found: list[Request] = []
    start = 0
    for context, continuation in zip(contexts, continuations, strict=True):
        middle, end = start + context, start + context + continuation
        found.append((tokens[start:middle], tokens[middle:end]))
        start = end
    return found
