"""Where the time of a pruning job goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds per stage; an outer stage does not count what an inner one took."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._own: dict[str, float] = {}
        self._inner = [0.0]

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        _synchronise()
        started = time.monotonic()
        self._inner.append(0.0)
        try:
            yield
        finally:
            _synchronise()
            took = time.monotonic() - started
            self._own[stage] = self._own.get(stage, 0.0) + took - self._inner.pop()
            self._inner[-1] += took

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage, and since the beginning."""
        total = time.monotonic() - self._started
        return {stage: round(s, 4) for stage, s in self._own.items()} | {"total": round(total, 4)}


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
