"""Compare the files of a study with what was recorded when they were made."""

from collections.abc import Mapping
from pathlib import Path

from dass.results.verify import verify as verify_study
from dass.runtime.progress import log


def verify(
    *,
    study: str | Path,
    models: Mapping[str, str],
    texts: Mapping[str, str],
    tasks: Mapping[str, str],
) -> None:
    """Compare the files of a study with what was recorded when they were made.

    Args:
        study: ``results/<study>``.
        models, texts, tasks: as :func:`dass.results.verify.verify` takes them.
    """
    count = verify_study(study, models, texts, tasks)
    log.info("%s: all %d files are what was computed", study, count)
