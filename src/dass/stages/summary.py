"""Put the summaries of all models below one another."""

from collections.abc import Iterable
from pathlib import Path

from dass.results.summary import merge, write_summary


def summary(*, models: Iterable[str | Path], rows: str | Path, csv: str | Path) -> None:
    """Put the summaries of all models below one another.

    Args:
        models: their summaries, JSON.
        rows: what to write, JSON.
        csv: the same numbers for people and for pandas.
    """
    write_summary(merge(models), rows, csv)
