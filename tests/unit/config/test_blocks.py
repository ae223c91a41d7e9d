"""The block `blocks`: which runs it asks for, and what is said where it asks for none."""

from typing import Any

import pytest

from dass.config.load import load_config
from dass.config.runs import RunKey, block_runs

from .small import SMALL, changed, message

BLOCKS: dict[str, Any] = {
    "models": ["b"], "calibration": "c", "methods": ["dass", "wanda"], "patterns": ["2of4"],
}  # fmt: skip


def asked(changes: dict[str, Any]) -> list[RunKey]:
    return block_runs(load_config(changed({"blocks": dict(BLOCKS)} | changes)))


def test_without_the_block_nothing_is_looked_into() -> None:
    assert block_runs(load_config(SMALL)) == []


def test_every_combination_is_a_run() -> None:
    assert asked({}) == [("b", "c", "dass", "2of4"), ("b", "c", "wanda", "2of4")]
    models = [run.model for run in asked({"blocks/models": "all"})]
    assert models == ["a", "a", "b", "b"]
    study = load_config(changed({"blocks": BLOCKS}))
    assert study.blocks is not None and study.blocks.windows == 16


def test_of_several_seeds_the_first_draw_is_looked_into() -> None:
    runs = asked({"calibrations/c/seed": [3, 1]})
    assert {run.calibration for run in runs} == {"c-seed3"}
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("select", "left"),
    [({"methods": ["dass"]}, ["dass"]), ({"models": ["a"]}, []), ({"patterns": ["u50"]}, [])],
)
def test_what_is_not_selected_is_not_looked_into(
    select: dict[str, list[str]], left: list[str]
) -> None:
    assert [run.method for run in asked({"select": select})] == left


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("models", ["c"], "blocks.models: no model 'c' in models; there are: a, b"),
        ("models", "a", "blocks.models: write all, or a list of names, as in [a, b], not 'a'"),
        ("calibration", "d", "blocks.calibration: no calibration 'd' in calibrations; "
                             "there are: c"),
        ("methods", ["das"], "blocks.methods: no method 'das' in methods; did you mean dass?"),
        ("methods", ["dass", "dass"], "blocks.methods: dass is listed twice; remove one"),
        ("patterns", ["2:4"], None),
        ("patterns", ["u60"], "blocks: b/c/dass/u60 is a run of no experiment; add it to one, "
                              "or leave it out here"),
        ("windows", 0, "blocks.windows: must be greater than 0, not 0"),
        ("window", 3, "blocks.window: unknown key; did you mean windows?"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(key: str, value: object, line: str | None) -> None:
    said = message(changed({"blocks": BLOCKS | {key: value}}))
    assert "\n" not in said
    assert said == line or (line is None and said.startswith("blocks.patterns: unknown pattern"))


def test_runs_that_are_not_selected_are_runs_of_an_experiment() -> None:
    """A selection on the command line must not make the config wrong."""
    load_config(changed({"blocks": BLOCKS, "select": {"methods": ["wanda"]}}))


def test_an_experiment_of_that_name_would_share_the_folder() -> None:
    experiments = {"main": SMALL["experiments"]["main"], "blocks": SMALL["experiments"]["main"]}
    said = message(changed({"blocks": BLOCKS, "experiments": experiments}))
    assert said.startswith("experiments.blocks: has the folder of what `blocks` yields; rename it")
    load_config(changed({"experiments": experiments}))
