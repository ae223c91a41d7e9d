"""The runs that a study asks for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dass.config.load import load_config
from dass.config.runs import RunKey, experiment_runs, runs
from dass.errors import ConfigError

from .small import SMALL, changed, message


def test_runs_come_once_and_in_order() -> None:
    first = {
        "title": "One", "models": ["b"], "calibrations": ["c"],
        "methods": ["dass"], "patterns": ["2of4"],
    }  # fmt: skip
    mapping = changed({"experiments": {"first": first, **SMALL["experiments"]}})
    study = load_config(mapping)
    assert experiment_runs(study, "first") == [RunKey("b", "c", "dass", "2of4")]
    assert runs(study) == [
        ("b", "c", "dass", "2of4"),
        ("a", "c", "wanda", "u50"),
        ("a", "c", "wanda", "2of4"),
        ("a", "c", "dass", "u50"),
        ("a", "c", "dass", "2of4"),
        ("b", "c", "wanda", "u50"),
        ("b", "c", "wanda", "2of4"),
        ("b", "c", "dass", "u50"),
    ]


def test_select_one_of_each() -> None:
    study = load_config(
        changed({"select": {"models": ["b"], "methods": ["dass"], "patterns": ["u50"]}})
    )
    assert runs(study) == experiment_runs(study, "main") == [RunKey("b", "c", "dass", "u50")]


def test_select_an_experiment() -> None:
    other = {**SMALL["experiments"]["main"], "patterns": ["4of8"]}
    study = load_config(changed({"experiments/other": other, "select": {"experiments": ["other"]}}))
    assert experiment_runs(study, "main") == []
    assert {key.pattern for key in runs(study)} == {"4of8"}


@given(
    models=st.sets(st.sampled_from("ab"), min_size=1),
    methods=st.none() | st.sets(st.sampled_from(["wanda", "dass"]), min_size=1),
    patterns=st.none() | st.sets(st.sampled_from(["u50", "2of4"]), min_size=1),
)
def test_select_is_a_filter(
    models: set[str], methods: set[str] | None, patterns: set[str] | None
) -> None:
    select = {"models": models, "methods": methods, "patterns": patterns}
    given_keys = {key: sorted(names) for key, names in select.items() if names is not None}
    chosen = runs(load_config(changed({"select": given_keys})))
    assert chosen == [
        key
        for key in runs(load_config(SMALL))
        if key.model in models
        and (methods is None or key.method in methods)
        and (patterns is None or key.pattern in patterns)
    ]


def test_unknown_experiment() -> None:
    with pytest.raises(ConfigError) as caught:
        experiment_runs(load_config(SMALL), "mian")
    assert str(caught.value) == "no experiment 'mian' in experiments; did you mean main?"


OWL: dict[str, Any] = {"kind": "owl", "deviation": 0.1}


def test_ratios_of_a_method() -> None:
    study = load_config(changed({"ratios": {"owl": OWL}, "methods/wanda/ratios": "owl"}))
    assert study.ratios["owl"].arguments == {"deviation": 0.1}
    assert (study.ratios["owl"].outliers_above, study.methods["dass"].ratios) == (5, None)
    assert study.methods["wanda"].arguments == {}
    assert runs(study) == runs(load_config(SMALL))


def test_outliers_are_counted_on_each_draw() -> None:
    """Magnitude itself reads no tokens."""
    mapping = changed({
        "calibrations/c/seed": [0, 1], "ratios": {"owl": OWL, "tails": {"kind": "alphapruning"}},
        "methods": {name: {"function": "magnitude", "label": name, "ratios": name}
                    for name in ("owl", "tails")},
        "experiments/main/methods": ["owl", "tails"], "experiments/main/patterns": ["u50"],
    })  # fmt: skip
    found = [run[1:3] for run in runs(load_config(mapping)) if run.model == "a"]
    assert found == [("c-seed0", "owl"), ("c-seed1", "owl"), ("c-seed0", "tails")]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"methods/wanda/ratios": "owls", "ratios": {"owl": OWL}},
         "methods.wanda.ratios: no ratios 'owls' in ratios; did you mean owl?"),
        ({"ratios": {"owl": OWL | {"epsilon": 0.2}}},
         "ratios.owl.epsilon: goes with kind alphapruning only, not owl; remove it"),
        ({"ratios": {"mine": {"kind": "list"}}},
         "ratios.mine.shares: missing; give the share of zeros of each block, as in [0.4, 0.6]"),
        ({"ratios": {"mine": {"kind": "list", "shares": [0.5, 1.0]}}},
         "ratios.mine.shares.1: must be less than 1, not 1.0"),
        ({"ratios": {"mine": {"kind": "list", "shares": [0.5, 0.6]}},
          "methods/wanda/ratios": "mine", "experiments/main/patterns": ["u50"]},
         "ratios.mine.shares: the mean of the ratios is 0.55, but u50 asks for 0.5; correct them"),
        ({"ratios": {"mine": {"kind": "list", "shares": [0.4, 0.6]}},
          "methods/wanda/ratios": "mine"},
         "ratios.mine.shares: block 0: a share of 0.4 zeros is no N of 4; give a multiple of 1/4"),
    ],
)  # fmt: skip
def test_ratios_that_are_none(changes: dict[str, Any], line: str) -> None:
    assert message(changed(changes)) == line
