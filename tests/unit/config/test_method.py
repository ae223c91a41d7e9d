"""A method's block: its keys are the fields of its class, built-in or custom."""

import json
from pathlib import Path
from typing import Any

import pytest

from dass.config.blocks import StandinsConfig
from dass.config.load import load_config
from dass.pruning.methods import built_in, make_method
from dass.standins import DEFAULT_DOCUMENTS, DEFAULT_STEPS

from .small import changed, message

CUSTOM = '''
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field


class Base:
    needs: ClassVar[frozenset] = frozenset()

    def comparison(self, role): ...

    def score(self, role, weight, statistics): ...


@dataclass(frozen=True)
class Mine(Base):
    """What it does."""

    power: float
    steps: Annotated[int, Field(ge=1)] = 3
    mode: Literal["fast", "exact"] = "fast"
    flag: bool = False
    limit: float | None = None
    shares: list[float] = field(default_factory=lambda: [0.5])
    unit: int = field(default=1, init=False)

    def __post_init__(self):
        if self.power == 7:
            raise ValueError("power 7 is one too many")


@dataclass(frozen=True)
class Plain(Base):
    pass


class NoDataclass(Base):
    pass


@dataclass(frozen=True)
class Reserved(Base):
    label: str = ""


@dataclass(frozen=True)
class Unwritable(Base):
    base: Base | None = None


@dataclass(frozen=True)
class Unresolved(Base):
    power: "Tensor" = 1.0
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "custom_methods.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)


def block(name: str, **arguments: Any) -> dict[str, Any]:
    return changed({"methods/mine": {"function": f"custom_methods:{name}", **arguments}})


def test_arguments_hold_the_defaults_too() -> None:
    study = load_config(block("Mine", power=2, label="Mine", shares=[0.1, 1]))
    arguments = study.methods["mine"].arguments
    assert arguments == {
        "power": 2.0, "steps": 3, "mode": "fast", "flag": False, "limit": None,
        "shares": [0.1, 1.0],
    }  # fmt: skip
    assert [type(v) for v in arguments.values()][:4] == [float, int, str, bool]
    assert load_config(block("Plain")).methods["mine"].arguments == {}
    assert study.methods["dass"].arguments == {"alpha": 0.25}
    assert study.methods["wanda"].arguments == {}
    assert load_config(json.loads(study.model_dump_json())) == study


@pytest.mark.parametrize("function", built_in())
def test_defaults_are_those_of_the_class(function: str) -> None:
    required = {"path": "masks"} if function == "given" else {}
    block = {"function": function} | required
    arguments = load_config(changed({"methods/m": block})).methods["m"].arguments
    assert make_method(function, arguments) == make_method(function, required)


def test_a_whole_number_is_a_number() -> None:
    arguments = load_config(changed({"methods/dass/alpha": 1})).methods["dass"].arguments
    assert arguments == {"alpha": 1.0} and isinstance(arguments["alpha"], float)


def test_a_refinement_holds_the_arguments_of_its_start() -> None:
    start = {"function": "dass", "alpha": 1}
    refined = {"function": "sparseswaps", "label": "S", "start": start}
    study = load_config(changed({"methods/s": refined, "methods/d": {"function": "dsnot"}}))
    arguments = {"swaps": 100, "start": {"function": "dass", "alpha": 1.0}}
    assert study.methods["s"].arguments == arguments
    default = {"cycles": 50, "threshold": 0.1, "start": {"function": "wanda"}}
    assert study.methods["d"].arguments == default
    nested = changed({"methods/s": refined | {"start": {"function": "dsnot", "start": start}}})
    assert load_config(nested).methods["s"].arguments["start"]["start"]["alpha"] == 1.0
    for one in (study, load_config(nested)):
        assert load_config(json.loads(one.model_dump_json())) == one


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ("wanda", ".start: write a method, as in {function: wanda}, not 'wanda'"),
        (None, ".start: write a method, as in {function: wanda}, not nothing"),
        ({}, ".start.function: missing; it is required"),
        (
            {"function": "wandas"},
            ".start.function: no built-in method 'wandas'; did you mean wanda? (a custom one is "
            "written package.module:Class)",
        ),
        ({"function": "dass", "alpah": 1}, ".start.alpah: unknown key; did you mean alpha?"),
        ({"function": "dass", "alpha": -1}, ".start.alpha: must be at least 0, not -1"),
        (
            {"function": "wanda", "label": "W"},
            ".start.label: write the label beside start: it is that of both together",
        ),
    ],
)
def test_a_start_that_is_no_method(start: Any, line: str) -> None:
    refined = {"function": "sparseswaps", "start": start}
    assert message(changed({"methods/s": refined})) == f"methods.s{line}"


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (
            {"function": "wanda", "ratios": "owl"},
            "methods.s.start.ratios: write the ratios beside start: they are those of both "
            "together",
        ),
        (
            {"function": "wanda", "targets": "mlp"},
            "methods.s.start.targets: write the targets beside start: they are those of both "
            "together",
        ),
        (
            {"function": "given", "path": "masks"},
            "methods.s: method 'sparseswaps' cannot start from 'given', whose masks come from "
            "files; start from a method that makes its own",
        ),
    ],
)
def test_a_start_that_would_be_left_unread(start: Any, line: str) -> None:
    assert message(changed({"methods/s": {"function": "sparseswaps", "start": start}})) == line


def test_a_start_of_what_refines_nothing() -> None:
    line = message(changed({"methods/wanda/start": {"function": "dass"}}))
    assert line == "methods.wanda.start: unknown key; did you mean targets?"


def test_groups_that_a_refinement_cannot_move_in_are_refused_before_the_first_job() -> None:
    refined = {"function": "dsnot", "start": {"function": "dass"}}
    asked = {"methods/d": refined, "experiments/main/methods": ["wanda", "d"]}
    assert message(changed(asked)) == (
        "methods.d: dass.pruning.methods.dsnot:DSnoT cannot refine 2of4 groups along the output, "
        "as dass.pruning.methods.dass:DaSS lays those of gate; choose another start, or an "
        "unstructured pattern"
    )
    load_config(changed(asked | {"experiments/main/patterns": ["u50"]}))


def test_the_axis_of_a_figure_is_no_start() -> None:
    asked = {"methods/s": {"function": "sparseswaps"}, "experiments/main/methods": ["wanda", "s"]}
    line = message(changed(asked | {"experiments/main/x": "start"}))
    assert line.startswith("experiments.main.x: nothing that differs between runs; ")


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"powr": 1.0}, "methods.mine.powr: unknown key; did you mean power?"),
    (
        {"power": 1.0, "zzz": 1},
        "methods.mine.zzz: unknown key; known keys: function, label, ratios, targets, permute, "
        "power, steps, mode, flag, limit, shares",
    ),
    ({"power": 1.0, "unit": 2}, "methods.mine.unit: unknown key; known keys: function, label, "
     "ratios, targets, permute, power, steps, mode, flag, limit, shares"),
    ({}, "methods.mine.power: missing; it is required"),
    (
        {"power": "two"},
        "methods.mine.power: must be a number, not 'two'",
    ),
    ({"power": True}, "methods.mine.power: must be a number, not True"),
    ({"power": 1.0, "steps": 0}, "methods.mine.steps: must be at least 1, not 0"),
    ({"power": 1.0, "mode": "fats"}, "methods.mine.mode: must be 'fast' or 'exact', not 'fats'"),
    ({"power": float("nan")}, "methods.mine.power: must be a finite number, not nan"),
    ({"power": 1.0, "label": 3}, "methods.mine.label: must be text (put it in quotes), not 3"),
    (
        {"power": 7},
        "methods.mine: method 'custom_methods:Mine' does not take {'power': 7.0, 'steps': 3, "
        "'mode': 'fast', 'flag': False, 'limit': None, 'shares': [0.5]}: power 7 is one too many",
    ),
    (
        {"arguments": {"power": 1.0}},
        "methods.mine.arguments: write the arguments inline, beside function",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "line"), MISTAKES, ids=[line[:50] for _, line in MISTAKES])
def test_mistake(arguments: dict[str, Any], line: str) -> None:
    assert message(block("Mine", **arguments)) == line


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("NoDataclass", " is no dataclass; make it one: its fields are its arguments"),
        ("Reserved", ": the name of its field label is taken; rename it"),
        (
            "Unwritable",
            ": its fields cannot be written in a config (Unable to generate pydantic-core schema "
            "for <class 'custom_methods.Base'>)",
        ),
        (
            "Unresolved",
            ": its fields cannot be written in a config (name 'Tensor' is not defined)",
        ),
    ],
)
def test_class_whose_fields_are_no_arguments(name: str, what: str) -> None:
    assert message(block(name)) == f"methods.mine.function: custom_methods:{name}{what}"


@pytest.mark.parametrize(
    "function", ["no_such_module:Mine", "custom_methods:Mien", "custom_methods:dataclass"]
)
def test_class_that_cannot_be_had(function: str) -> None:
    line = message(changed({"methods/mine": {"function": function}}))
    assert line.startswith("methods.mine.function: ") and repr(function) in line
    assert "\n" not in line


def test_standins_have_the_defaults_of_their_code() -> None:
    standins = StandinsConfig()
    assert (standins.documents, standins.steps) == (DEFAULT_DOCUMENTS, DEFAULT_STEPS)


# --- Targets --------------------------------------------------------------------------------------


def test_targets_are_the_mlp_unless_asked_and_are_no_argument() -> None:
    study = load_config(changed({"methods/all": {"function": "wanda", "targets": "all"}}))
    assert [study.methods[name].targets for name in ("wanda", "all")] == ["mlp", "all"]
    assert study.methods["all"].arguments == {}
    refined = {"function": "sparseswaps", "targets": "all"}
    study = load_config(changed({"methods/s": refined}))
    assert (study.methods["s"].targets, study.methods["s"].arguments["start"]) == (
        "all", {"function": "wanda"}
    )  # fmt: skip
    assert load_config(json.loads(study.model_dump_json())) == study


@pytest.mark.parametrize(
    ("block", "line"),
    [
        (
            {"function": "wanda", "targets": "mlps"},
            "methods.m.targets: must be 'mlp', 'attention' or 'all', not 'mlps'",
        ),
        (
            {"function": "given", "path": "masks", "targets": "all"},
            "methods.m.targets: all cannot be asked of masks from files, which are of gated MLPs; "
            "remove it",
        ),
        (
            {"function": "wanda", "ratios": "owl", "targets": "attention"},
            "methods.m.targets: attention cannot be pruned by ratios, which are of gated MLPs; "
            "remove one of the two",
        ),
    ],
)
def test_targets_that_cannot_be(block: dict[str, Any], line: str) -> None:
    assert message(changed({"ratios": {"owl": {"kind": "owl"}}, "methods/m": block})) == line


def test_blocks_of_a_method_without_glus() -> None:
    attention = {"function": "wanda", "targets": "attention"}
    blocks = {
        "models": ["a"], "calibration": "c", "methods": ["m"], "patterns": ["u50"], "windows": 2,
    }  # fmt: skip
    asked = {"methods/m": attention, "blocks": blocks, "experiments/main/methods": ["m"]}
    line = "blocks.methods: m prunes no gated MLP (targets: attention); remove it"
    assert message(changed(asked)) == line
    load_config(changed(asked | {"methods/m": attention | {"targets": "all"}}))


def test_groups_of_a_refinement_are_those_of_its_targets() -> None:
    """DSnoT cannot move in groups along the output, which DaSS lays in gate and up only."""
    refined = {"function": "dsnot", "start": {"function": "dass"}, "targets": "attention"}
    asked = {"methods/d": refined, "experiments/main/methods": ["wanda", "d"]}
    load_config(changed(asked))
    assert "cannot refine 2of4 groups" in message(changed(asked | {"methods/d/targets": "all"}))
