"""Build what is asked of one model in every task, once for all of its runs."""

from collections.abc import Mapping
from pathlib import Path

from dass.data.pretrained import load_config, longest_input
from dass.data.tokenizer import departures, load_tokenizer
from dass.evaluation.harness import build_requests
from dass.evaluation.requests import save_requests
from dass.evaluation.task_rows import task_file
from dass.evaluation.trees import lay_out, row_length
from dass.runtime.provenance import origin, source
from dass.terms import Bos


def zero_shot_requests(
    *,
    folder: str | Path,
    tasks: Mapping[str, str | Path],
    bos: Bos,
    limit: int | None,
    out: str | Path,
) -> None:
    """Build what is asked of one model in every task, once for all of its runs.

    Args:
        folder: of the model, for its tokenizer and its longest input.
        tasks: task -> folder with its data.
        bos: the model's BOS rule.
        limit: at most this many examples of each task; None: all.
        out: what to write: see :func:`dass.evaluation.requests.save_requests`.
    """
    tokenizer = load_tokenizer(folder)
    config = load_config(folder).get_text_config()
    longest = longest_input(config)
    requests = build_requests(
        tokenizer,
        {task: Path(path) for task, path in tasks.items()},
        max_length=longest,
        limit=limit,
        bos=bos,
    )
    about = {
        "bos": bos,
        "limit": limit,
        "max_length": longest,
        "departures": departures(tokenizer),
        "sources": {task: source(task_file(task, path)) for task, path in tasks.items()},
        "origins": {task: origin(path) for task, path in tasks.items()},
    }
    asked = [request for task in requests.values() for request in task.requests]
    rows = lay_out(asked, row_length(config.hidden_size))
    save_requests(out, requests, about, rows.save())
