"""Progress lines by hand, on a clock that the test turns."""

from __future__ import annotations

import logging

import pytest

from dass.runtime.progress import SECONDS_BETWEEN_LINES, Progress, duration


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("dass.runtime.progress.time", clock)
    return clock


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged, whatever a job of another test did to the logger."""
    monkeypatch.setattr(logging.getLogger("dass"), "propagate", True)
    caplog.set_level(logging.INFO, logger="dass")
    return caplog.messages


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (7.6, "8 s"), (59, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"),
     (3599.9, "1 h 00 min"), (7512, "2 h 05 min"), (90000, "25 h 00 min")],
)  # fmt: skip
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_says_what_is_done_and_what_is_left() -> None:
    progress = Progress("pruning", 8, "blocks")
    progress.done = 2
    assert progress.line(30) == "pruning: 2/8 blocks (25%), 30 s, 1 min 30 s left"
    progress.done = 8
    assert progress.line(30) == "pruning: 8/8 blocks (100%), 30 s"


def test_nothing_to_do_divides_by_nothing() -> None:
    assert Progress("x", 0, "blocks").line(0) == "x: 0/0 blocks (0%), 0 s"


def test_lines_come_now_and_then_and_at_the_end(
    clock: Clock, caplog: pytest.LogCaptureFixture, lines: list[str]
) -> None:
    progress = Progress("x", 5, "steps")
    for _ in range(5):
        clock.now += 0.6 * SECONDS_BETWEEN_LINES
        progress.step()
    shown = [message.split(" ")[1] for message in caplog.messages]
    assert shown == ["2/5", "4/5", "5/5"]


@pytest.mark.usefixtures("lines")
def test_the_last_line_comes_at_once_and_notes_are_appended(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress("exporting", 3, "files")
    progress.step(count=2, note="first")
    progress.step(note="last.safetensors")
    assert caplog.messages == ["exporting: 3/3 files (100%), 0 s, last.safetensors"]
