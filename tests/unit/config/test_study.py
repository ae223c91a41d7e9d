"""The runs that a study asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dass.config.load import load_config
from dass.config.study import RunKey, experiment_runs, runs
from dass.errors import ConfigError

from .small import SMALL, changed


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
