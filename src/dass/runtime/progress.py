"""Progress that shows in logs: what is done, how long it took, how long is left."""

import logging
import time

log = logging.getLogger("dass")

SECONDS_BETWEEN_LINES = 2.0


def duration(seconds: float) -> str:
    """Seconds for people: ``8 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


class Progress:
    """Counts steps towards ``total``; logs a line every other second, and always the last one.

    >>> progress = Progress("pruning", total=32, unit="blocks")
    >>> progress.step()  # logs: pruning: 1/32 blocks (3 %), 2 s, 62 s left
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._started = time.monotonic()
        self._shown = self._started

    def step(self, count: int = 1, note: str = "") -> None:
        """Record ``count`` more steps done; ``note`` is appended to the line."""
        self.done += count
        now = time.monotonic()
        if self.done < self.total and now - self._shown < SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        log.info(self.line(now - self._started) + (f", {note}" if note else ""))

    def line(self, elapsed: float) -> str:
        """The line for ``elapsed`` seconds since the start."""
        share = self.done / max(self.total, 1)
        left = elapsed * (self.total - self.done) / max(self.done, 1)
        count = f"{self.done}/{self.total} {self.unit} ({share:.0%})"
        text = f"{self.what}: {count}, {duration(elapsed)}"
        return text if self.done >= self.total else f"{text}, {duration(left)} left"
