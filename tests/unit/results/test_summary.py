"""Result files to typed rows, and the files that hold them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from dass.errors import DataError
from dass.results.schema import OtherText, Run, read_result
from dass.results.summary import Summary, mean_of_tasks, merge, summarise, write_summary

from .samples import ORIGIN, perplexity_file, pruning_file, split, study_files, zero_shot_file

GOLDEN = Path(__file__).with_name("golden_summary.csv")
"""Written with pandas by the code that came before typed rows, of the files of `study_files`."""


def test_there_is_a_row_per_run_dense_first(tmp_path: Path) -> None:
    dense, wanda, dass, other = "b/dense", "b/c4/wanda/u50", "b/c4/dass/2of4", "a/c4/dass/u50"
    rows = summarise(
        [pruning_file(tmp_path, run) for run in (wanda, dass, other)],
        [perplexity_file(tmp_path, run, n + 5.5) for n, run in enumerate((wanda, dass, dense))],
        [zero_shot_file(tmp_path, run) for run in (other, dense)],
    ).rows
    assert [str(row.run) for row in rows] == [dense, wanda, dass, other]
    measured = [
        r.perplexity.splits["validation"].perplexity if r.perplexity else None for r in rows
    ]
    assert measured == [7.5, 5.5, 6.5, None]
    assert [row.pruning is None for row in rows] == [True, False, False, False]
    last = rows[3]
    assert last.zero_shot is not None and last.pruning is not None
    assert mean_of_tasks(last.zero_shot, "acc") == pytest.approx(0.6)
    assert mean_of_tasks(last.zero_shot, "acc_norm") == pytest.approx(
        0.55
    )  # winogrande with its acc
    assert last.zero_shot.tasks["piqa"].samples == 100
    assert (last.pruning.seconds["total"], last.peak_memory("host")) == (4.5, 300)
    assert last.peak_memory("device") is None
    assert last.origins("date") == ["2026-01-01T00:00:00+00:00", ORIGIN["date"]]
    assert last.origins("commit") == ["old", "abc"]
    assert last.versions == ["dass 0.1.0, torch 2.11"]


def test_files_say_what_they_said_before_rows_were_typed(tmp_path: Path) -> None:
    for model in ("b", "a"):
        summary = summarise(**study_files(tmp_path, model))
        write_summary(summary, tmp_path / f"{model}.json", tmp_path / f"{model}.csv")
        assert read_result(tmp_path / f"{model}.json", Summary) == summary
    merged = merge([tmp_path / "b.json", tmp_path / "a.json"])
    write_summary(merged, tmp_path / "all.json", tmp_path / "all.csv")
    golden = GOLDEN.read_bytes()
    assert (tmp_path / "all.csv").read_bytes() == golden
    head, *lines = golden.splitlines(keepends=True)
    assert (tmp_path / "b.csv").read_bytes() == head + b"".join(lines[:3])
    assert [row.run.model for row in merged.rows] == ["b"] * 3 + ["a"] * 3


def test_the_date_of_a_run_is_the_latest_of_its_results(tmp_path: Path) -> None:
    run = "a/c4/dass/u50"
    older = [pruning_file(tmp_path, run)]  # a day before it was evaluated
    write_summary(
        summarise(older, [perplexity_file(tmp_path, run, 5.0)], []),
        tmp_path / "s.json", tmp_path / "s.csv",
    )  # fmt: skip
    (line,) = csv.DictReader((tmp_path / "s.csv").read_text().splitlines())
    assert line["date"] == ORIGIN["date"]
    assert line["commit"] == "old; abc"


def test_other_texts_have_columns_of_their_own(tmp_path: Path) -> None:
    others = {"c4": OtherText(split="validation", **split(7.5, "u").model_dump())}
    summary = summarise([], [perplexity_file(tmp_path, "b/dense", 5.0, others=others)], [])
    write_summary(summary, tmp_path / "s.json", tmp_path / "s.csv")
    (line,) = csv.DictReader((tmp_path / "s.csv").read_text().splitlines())
    assert (line["perplexity_validation"], line["perplexity_c4_validation"]) == ("5.0", "7.5")
    assert (line["windows_c4_validation"], line["tokens_hash_c4_validation"]) == ("2", "u")
    unlike = {"c4": OtherText(split="validation", **split(7.5, "v").model_dump())}
    files = [
        perplexity_file(tmp_path, "b/dense", 5.0, others=others),
        perplexity_file(tmp_path, "b/c4/dass/u50", 5.0, others=unlike),
    ]
    with pytest.raises(DataError, match=r"tokens_hash_c4_validation differs from .* same tokens"):
        summarise([], files, [])


def test_an_empty_summary_has_a_head(tmp_path: Path) -> None:
    write_summary(summarise([], [], []), tmp_path / "s.json", tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "model,calibration,method,pattern\n"


def test_a_run_is_in_one_summary_only(tmp_path: Path) -> None:
    summary = summarise([], [perplexity_file(tmp_path, "b/dense", 5.0)], [])
    write_summary(summary, tmp_path / "b.json", tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"b\.json: run b/dense is in more than one summary"):
        merge([tmp_path / "b.json", tmp_path / "b.json"])


def test_results_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    pruned = pruning_file(tmp_path, "a/c4/dass/u50")
    with pytest.raises(DataError, match=r"perplexity.json: mask_hash differs from .*pruning.json"):
        stale = perplexity_file(tmp_path, "a/c4/dass/u50", 5.0, mask_hash="stale")
        summarise([pruned], [stale], [])
    with pytest.raises(DataError, match="a second pruning result of run a/c4/dass/u50"):
        summarise([pruned, pruned], [], [])
    splits = {"validation": split(5.0, "other")}
    other = perplexity_file(tmp_path, "a/c4/dass/u50", 5.0, splits=splits)
    with pytest.raises(DataError, match="not evaluated on the same tokens"):
        summarise([], [perplexity_file(tmp_path, "a/dense", 5.0), other], [])
    of_b = perplexity_file(tmp_path, "b/dense", 5.0, splits=splits)
    summarise([], [perplexity_file(tmp_path, "a/dense", 5.0), of_b], [])  # another tokenizer


def test_runs_of_one_model_are_of_the_same_weights_and_precision(tmp_path: Path) -> None:
    said = {"config": "c", "weights": "w"}

    def files(settings: dict, model: dict) -> list[Path]:
        origins = [ORIGIN | {"model": said}, ORIGIN | {"model": model}]
        return [
            perplexity_file(tmp_path, "a/dense", 5.0, provenance=origins[0],
                            settings={"dtype": "float32"}),
            perplexity_file(tmp_path, "a/c4/dass/u50", 5.0, provenance=origins[1],
                            settings=settings),
        ]  # fmt: skip

    summarise([], files({"dtype": "float32"}, said), [])
    with pytest.raises(DataError, match=r"u50/perplexity.json: dtype differs from .*dense/perp"):
        summarise([], files({"dtype": "bfloat16"}, said), [])
    for part in said:
        with pytest.raises(DataError, match=rf"the model's {part} differs from .*not of the same"):
            summarise([], files({"dtype": "float32"}, said | {part: "other"}), [])


def test_requests_differ_between_runs_of_a_model(tmp_path: Path) -> None:
    first = zero_shot_file(tmp_path, "a/dense")
    content = json.loads(first.read_text()) | {"mask_hash": "mask"}
    content["run"] = Run.parse("a/c4/dass/u50").model_dump()
    content["tasks"]["piqa"]["requests_hash"] = "other"
    (tmp_path / "second.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"second\.json: piqa_requests_hash differs from"):
        summarise([], [], [first, tmp_path / "second.json"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not valid JSON"),
        ("[]", "holds no Summary but a list"),
        ('{"rows": []}', "schema_version is None"),
        ('{"schema_version": 2, "rows": [{}]}', "rows.0.run: Field required"),
        ('{"schema_version": 2, "rows": [], "more": 1}', "more: Extra inputs"),
    ],
)
def test_what_is_no_summary_is_refused(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(DataError, match=rf"summary\.json: .*{says}.*run again") as error:
        merge([tmp_path / "summary.json"])
    assert "\n" not in str(error.value)
