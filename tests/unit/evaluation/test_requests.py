"""Requests in their file, and accuracy from scores worked out by hand."""

from pathlib import Path

import pytest
import torch

from dass.errors import DataError
from dass.evaluation.accuracy import accuracy_of, measure_accuracy
from dass.evaluation.requests import (
    LogLikelihood,
    Request,
    TaskRequests,
    load_requests,
    save_requests,
)
from dass.evaluation.trees import lay_out, load_rows

NORMED = TaskRequests(
    requests=[([1, 2], [3]), ([1, 2], [4, 5]), ([6], [7, 8, 9]), ([6], [10]), ([6], [11])],
    choices=[2, 3], answers=[1, 0], characters=[4, 10, 30, 5, 0], normed=True, version=1.5,
)  # fmt: skip
PLAIN = TaskRequests(
    requests=[([1], [2]), ([3, 4], [2])], choices=[2], answers=[1], characters=[3, 3],
    normed=False, version="2",
)  # fmt: skip


def test_what_is_saved_is_asked(tmp_path: Path) -> None:
    tasks, about = {"piqa": NORMED, "winogrande": PLAIN}, {"bos": "text", "limit": None}
    rows = lay_out([*NORMED.requests, *PLAIN.requests], 8)
    save_requests(tmp_path / "requests", tasks, about, rows.save())
    found, said = load_requests(tmp_path / "requests")
    assert found == tasks and list(found) == list(tasks)
    assert said.items() >= about.items()
    loaded = load_rows(tmp_path / "requests")
    assert loaded.counts == rows.counts
    for name in ("tokens", "depths", "ends", "places", "targets"):
        assert torch.equal(getattr(loaded, name), getattr(rows, name)), name


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    save_requests(tmp_path / "requests", {"piqa": NORMED}, {}, {})
    with pytest.raises(DataError, match=r"requests: holds no rows.tokens; delete it, run again"):
        load_rows(tmp_path / "requests")


def test_only_a_task_that_has_acc_norm_is_given_one() -> None:
    def scorer(requests: list[Request]) -> list[LogLikelihood]:
        return [(-float(len(requests) - number), False) for number in range(len(requests))]

    found = measure_accuracy(scorer, {"piqa": NORMED, "winogrande": PLAIN})
    # -7 -6 | -5 -4 -3 | -2 -1; per character -1.75 -0.6 | -0.17 -0.8 and none.
    assert (found["piqa"].acc, found["piqa"].acc_norm) == (0.5, 1.0)
    assert (found["winogrande"].acc, found["winogrande"].acc_norm) == (1.0, None)
    assert found["winogrande"].acc_norm_stderr is None


def test_a_choice_without_characters_is_never_the_best_per_character() -> None:
    """It would be the likeliest by far; lm-eval divides by its length, which is 0."""
    scores = [(-9.0, False), (-5.0, False), (-60.0, False), (-50.0, False), (-0.5, True)]
    assert accuracy_of(NORMED, scores).acc == 0.5
    assert accuracy_of(NORMED, scores).acc_norm == 1.0


def test_the_first_of_equal_choices_counts() -> None:
    assert accuracy_of(PLAIN, [(-1.0, False)] * 2).acc == 0.0


def test_tokens_alone_are_no_requests(tmp_path: Path) -> None:
    from dass.data.token_file import save_tokens

    save_tokens(tmp_path / "tokens", {"test": torch.zeros(2, 3, dtype=torch.int64)}, {})
    with pytest.raises(DataError, match=r"tokens: holds no requests \(.*\); delete it, run again$"):
        load_requests(tmp_path / "tokens")
