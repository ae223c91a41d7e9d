"""What is said of an experiment, against sentences written by hand."""

from __future__ import annotations

from dataclasses import replace

from dass.report.experiment import TableSettings
from dass.report.findings import findings
from dass.results.summary import SummaryRow

from .rows import accuracy, row

SETTINGS = TableSettings(
    experiment="main",
    title="A title",
    models={"a": "Model A", "b": "Model B", "c": "Model C"},
    calibrations={"c4": ""},
    methods={"wanda": "Wanda", "sparsegpt": "SparseGPT", "dass": "DaSS"},
    patterns=["2of4"],
    metric="acc",
    tasks=["piqa"],
)


def grid(**values: tuple[float, float, float]) -> list[SummaryRow]:
    """Model -> perplexities of the three methods at 2:4; dense has 4."""
    rows = [row(f"{model}/dense", 4.0) for model in values]
    return rows + [
        row(f"{model}/c4/{method}/2of4", value)
        for model, own in values.items()
        for method, value in zip(SETTINGS.methods, own, strict=True)
    ]


def test_which_method_is_best_on_how_many_models() -> None:
    """Ties are of equal values; otherwise all windows agree."""
    rows = grid(a=(6.0, 5.0, 5.0), b=(7.0, 6.0, 6.5), c=(6.0, 6.5, 5.5))
    assert findings(rows, SETTINGS) == [
        "At 2:4 SparseGPT has the lowest perplexity on 2 of 3 models (DaSS on 1), beyond noise on "
        "1; it cannot be told apart from DaSS on 1.",
        "At 2:4 the lowest perplexity is 1.25 to 1.50 times that of the dense model.",
    ]


def test_a_method_that_always_wins() -> None:
    rows = grid(a=(6.0, 5.0, 5.5), b=(7.0, 6.0, 6.5), c=(6.0, 5.0, 5.5))
    assert findings(rows, SETTINGS)[0] == (
        "At 2:4 SparseGPT has the lowest perplexity on 3 of 3 models, beyond noise on each."
    )


def test_a_single_model_has_its_number() -> None:
    alone = replace(SETTINGS, models={"a": "Model A"})
    rows = grid(a=(6.0, 5.0, 5.5))
    assert findings(rows, alone) == [
        "At 2:4 on Model A SparseGPT has the lowest perplexity (5.00), beyond noise.",
        "At 2:4 the lowest perplexity is 1.25 times that of the dense model.",
    ]
    assert findings(grid(a=(6.0, 5.0, 5.0)), alone)[0] == (
        "At 2:4 on Model A SparseGPT has the lowest perplexity (5.00); DaSS cannot be told apart "
        "from it."
    )


def test_accuracy_is_spoken_of_where_it_was_measured() -> None:
    """91 and 90 of 100: one question apart. 70: twenty-one."""
    values = {"wanda": 0.7, "sparsegpt": 0.9, "dass": 0.91}
    rows = [
        row(f"a/c4/{method}/2of4", tasks={"piqa": accuracy(acc)}) for method, acc in values.items()
    ]
    assert findings(rows, SETTINGS) == [
        "At 2:4 on Model A DaSS has the highest mean accuracy (91.0 ± 3.0 %); SparseGPT cannot be "
        "told apart from it."
    ]


def test_several_patterns_are_counted_together_and_the_sparsest_has_its_cost() -> None:
    several = replace(SETTINGS, patterns=["2of4", "u75", "u50"], models={"a": "A", "b": "B"})
    rows = grid(a=(6.0, 5.0, 5.5), b=(7.0, 6.0, 6.5))
    rows += [row(f"a/c4/{m}/u75", value) for m, value in (("wanda", 9.0), ("dass", 8.0))]
    rows += [row("b/c4/dass/u50", 5.0)]
    assert findings(rows, several) == [
        "SparseGPT has the lowest perplexity in 2 of 3 cases of model and sparsity (DaSS in 1), "
        "beyond noise in each.",
        "At 75 % the lowest perplexity is 2.00 times that of the dense model.",
    ]


def test_nothing_is_said_of_nothing() -> None:
    assert findings([], SETTINGS) == []
    assert findings([row("a/dense", 4.0)], SETTINGS) == []
    assert findings([], replace(ALONG, tasks=[])) == []


# --- Along an axis ------------------------------------------------------------------------------

ALPHAS = {"dass-a0": 0.0, "dass": 0.5, "dass-a1": 1.0}
ALONG = replace(
    SETTINGS,
    models={"a": "Model A"},
    methods={"wanda": "Wanda"} | {key: f"DaSS {alpha:g}" for key, alpha in ALPHAS.items()},
    x="alpha",
    x_values=dict(ALPHAS),
    curves=dict.fromkeys(ALPHAS, "DaSS"),
)


def along(model: str, *values: float) -> list[SummaryRow]:
    rows = [row(f"{model}/c4/{m}/2of4", v) for m, v in zip(ALPHAS, values, strict=True)]
    return [*rows, row(f"{model}/c4/wanda/2of4", 4.0)]


def test_where_a_method_is_best_along_an_axis() -> None:
    """12 is 4 % below 12.5. Wanda, better still, has no alpha."""
    assert findings(along("a", 12.5, 12.0, 12.25), ALONG) == [
        "DaSS's perplexity is lowest at alpha 0.5 (12.00), 4 % below the value at alpha 0, and "
        "better than at all others beyond noise."
    ]
    assert findings(along("a", 12.5, 12.0, 12.0), ALONG) == [
        "DaSS's perplexity is lowest at alpha 0.5 (12.00), 4 % below the value at alpha 0; 1 "
        "cannot be told apart from it."
    ]


def test_draws_give_the_number_its_deviation() -> None:
    """12, 12.1 and 12.2: 12.1 ± 0.1."""
    settings = replace(ALONG, draws={"c4": {f"c4-seed{n}": n for n in range(3)}})
    rows = [
        row(f"a/c4-seed{seed}/{method}/2of4", value + 0.1 * seed)
        for method, value in (("dass-a0", 12.5), ("dass", 12.0))
        for seed in range(3)
    ]
    (sentence,) = findings(rows, settings)
    assert sentence.startswith("DaSS's perplexity is lowest at alpha 0.5 (12.10 ± 0.10), 4 % below")


def test_several_models_are_counted() -> None:
    settings = replace(ALONG, models=SETTINGS.models)
    rows = along("a", 12.5, 12.0, 12.25) + along("b", 6.6, 6.0, 6.0) + along("c", 5.0, 5.1, 5.2)
    assert findings(rows, settings) == [
        "DaSS's perplexity is lowest at alpha 0.5 on 2 of 3 models, beyond noise on 1; the highest "
        "value lies 4 to 10 % above the lowest."
    ]


def test_accuracy_is_in_points() -> None:
    """From 50 to 62 % is 12 points."""
    rows = [
        row(f"a/c4/{method}/2of4", tasks={"piqa": accuracy(acc)})
        for method, acc in zip(ALPHAS, (0.5, 0.62, 0.6), strict=True)
    ]
    assert findings(rows, ALONG) == [
        "DaSS's mean accuracy is highest at alpha 0.5 (62.0 ± 3.0 %), 12 points above the value at "
        "alpha 0; 1 cannot be told apart from it."
    ]


def test_a_method_that_stays_the_same_is_not_spoken_of() -> None:
    assert findings(along("a", 12.0, 12.0, 12.0), ALONG) == []


def test_sequences_and_data_are_in_words() -> None:
    settings = replace(
        SETTINGS, models={"a": "A"}, methods={"dass": "DaSS"}, calibrations={"few": "", "many": ""},
        x="sequences", x_part="calibration", x_values={"few": 8, "many": 128},
        curves={"few": "", "many": ""},
    )  # fmt: skip
    rows = [row("a/few/dass/2of4", 12.5), row("a/many/dass/2of4", 12.0)]
    assert (
        "lowest with 128 sequences (12.00), 4 % below the value with 8 sequences"
        in (findings(rows, settings)[0])
    )
    data = replace(settings, x="dataset", x_values={"few": "pile", "many": "c4"})
    assert "lowest with c4 (12.00), 4 % below the value with pile" in findings(rows, data)[0]


def test_each_other_text_has_a_sentence() -> None:
    settings = replace(SETTINGS, models={"a": "Model A"}, others={"c4": "validation"})
    numbers = {"wanda": (6.0, 8.0), "sparsegpt": (5.0, 9.0), "dass": (5.5, 8.5)}
    rows = [row("a/dense", 4.0, c4=6.0)]
    rows += [row(f"a/c4/{method}/2of4", own, c4=c4) for method, (own, c4) in numbers.items()]
    assert findings(rows, settings) == [
        "At 2:4 on Model A SparseGPT has the lowest perplexity (5.00), beyond noise.",
        "At 2:4 on Model A Wanda has the lowest c4 perplexity (8.00), beyond noise.",
        "At 2:4 the lowest perplexity is 1.25 times that of the dense model.",
    ]


def test_along_an_axis_other_texts_follow() -> None:
    rows = [
        row(f"a/c4/{method}/2of4", 12.0 + n, c4=15.0 - n)
        for n, method in enumerate(("dass-0", "dass-1"))
    ]
    settings = replace(
        SETTINGS, models={"a": "Model A"}, methods={"dass-0": "DaSS 0", "dass-1": "DaSS 1"},
        x="alpha", x_values={"dass-0": 0.0, "dass-1": 1.0},
        curves={"dass-0": "DaSS", "dass-1": "DaSS"}, others={"c4": "validation"},
    )  # fmt: skip
    first, second = findings(rows, settings)
    assert first.startswith("DaSS's perplexity is lowest at alpha 0 (12.00), 8 % below")
    assert second.startswith("DaSS's c4 perplexity is lowest at alpha 1 (14.00), 7 % below")
