"""Put the results of one model's runs into one summary."""

from collections.abc import Iterable
from pathlib import Path

from dass.results.summary import summarise, write_summary


def summary_of_model(
    *,
    pruning: Iterable[str | Path],
    perplexity: Iterable[str | Path],
    zero_shot: Iterable[str | Path],
    rows: str | Path,
    csv: str | Path,
) -> None:
    """Put the results of one model's runs into one summary.

    Args:
        pruning, perplexity, zero_shot: result files of these stages.
        rows: what to write, JSON.
        csv: the same numbers for people and for pandas.
    """
    write_summary(summarise(pruning, perplexity, zero_shot), rows, csv)
