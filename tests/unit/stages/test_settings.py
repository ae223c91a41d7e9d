"""Settings that differ from every default reach the work and the record of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dass.data.token_file import load_tokens, token_hash, tokens_about
from dass.errors import ModelError
from dass.evaluation.requests import load_requests
from dass.runtime.files import sha256
from dass.stages.calibration_tokens import calibration_tokens
from dass.stages.evaluation_tokens import evaluation_tokens
from dass.stages.zero_shot_requests import zero_shot_requests
from dass.terms import Rows
from tests.unit.stages.pipeline import Pipeline

FETCHED = {"repository": "a/text", "commit": "c0ffee"}


def fetched(folder: Path) -> None:
    (folder / "fetched.json").write_text(json.dumps(FETCHED | {"files": {}}))


def append_a_word(folder: Path) -> None:
    """Let the tokenizer put w2 behind each text, as others do with EOS."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["single"].append({"SpecialToken": {"id": "w2", "type_id": 0}})
    content["post_processor"]["special_tokens"]["w2"] = {"id": "w2", "ids": [2], "tokens": ["w2"]}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def test_a_calibration_says_how_it_was_drawn(pipeline: Pipeline) -> None:
    fetched(pipeline.work)
    append_a_word(pipeline.folder)
    settings: dict[str, Any] = {"sequences": 3, "length": 12, "seed": 5, "bos": "window"}
    out = pipeline.work / "tokens"
    documents = pipeline.work / "documents.jsonl"
    calibration_tokens(
        folder=pipeline.folder, dataset="of mine", documents=documents, out=out, **settings
    )
    windows = load_tokens(out)["windows"]
    assert (windows.shape, windows[:, 0].tolist()) == ((3, 12), [1, 1, 1])
    assert tokens_about(out) == settings | {
        "dataset": "of mine",
        "source": {"file": "documents.jsonl", "sha256": sha256(documents)},
        "origin": FETCHED,
        "hashes": {"windows": token_hash(windows)},
        "tokens_taken_off": "w2",
    }


@pytest.fixture
def letters(folder: Path) -> Path:
    """A model folder with a tokenizer to which each character is a token, newlines too."""
    words = {"<unk>": 0, "<s>": 1} | {char: n for n, char in enumerate("\n abcdefgh", 2)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("rows", "expected"),
    [  # a is 4, and so on; lines are joined by an empty one, blank lines become empty rows
        ("file", [[1, 4, 5], [1, 2, 3], [1, 2, 6], [1, 7, 2]]),
        ("line", [[1, 4, 5], [1, 2, 2], [1, 2, 2], [1, 2, 6], [1, 7, 2]]),
    ],
)
def test_an_evaluation_says_how_it_was_cut(
    rows: Rows, expected: list[list[int]], letters: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.mkdir()
    fetched(text)
    (text / "test.txt").write_text("ab\n \ncd\n")
    evaluation_tokens(
        folder=letters, dataset="of mine", text=text, rows=rows, splits=["test"], length=3,
        bos="window", out=tmp_path / "tokens",
    )  # fmt: skip
    windows = load_tokens(tmp_path / "tokens")["test"]
    assert windows.tolist() == expected
    assert tokens_about(tmp_path / "tokens") == {
        "dataset": "of mine", "rows": rows, "length": 3, "bos": "window",
        "source": {"test": {"file": "test.txt", "sha256": sha256(text / "test.txt")}},
        "origin": FETCHED, "hashes": {"test": token_hash(windows)},
    }  # fmt: skip


def test_results_say_the_models_bos_rule(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.bos = "window"
    pruning = pipeline.prune(tmp_path / "run", "wanda")
    results = (pruning, pipeline.perplexity(), pipeline.zero_shot())
    assert [result.settings["bos"] for result in results] == ["window"] * 3
    assert pruning.settings["arguments"] == {}


def test_an_evaluation_says_what_the_tokenizer_was_kept_from_appending(pipeline: Pipeline) -> None:
    append_a_word(pipeline.folder)
    assert tokens_about(pipeline.tokenise())["tokens_taken_off"] == "w2"


def test_requests_say_how_they_were_built(pipeline: Pipeline) -> None:
    append_a_word(pipeline.folder)
    fetched(pipeline.work / "task")
    out = pipeline.work / "requests"
    zero_shot_requests(
        folder=pipeline.folder, tasks={"arc_easy": pipeline.work / "task"}, bos="window", limit=7,
        out=out,
    )  # fmt: skip
    requests, about = load_requests(out)
    assert len(requests["arc_easy"].choices) == 7
    assert {key: value for key, value in about.items() if key != "hashes"} == {
        "bos": "window", "limit": 7, "max_length": 128,
        "departures": {"tokens_taken_off": "w2"},
        "sources": {"arc_easy": {
            "file": "test.jsonl", "sha256": sha256(pipeline.work / "task/test.jsonl"),
        }},
        "origins": {"arc_easy": FETCHED},
    }  # fmt: skip


def test_windows_beyond_the_models_positions_are_refused(pipeline: Pipeline) -> None:
    """Also where a model was fetched, which nothing has looked at before."""
    config = json.loads((pipeline.folder / "config.json").read_text())
    config["max_position_embeddings"] = 15
    (pipeline.folder / "config.json").write_text(json.dumps(config))
    said = r"max_position_embeddings is 15, but windows have 16 tokens"
    for stage in (pipeline.calibrate, pipeline.tokenise):
        with pytest.raises(ModelError, match=said):
            stage()
    pipeline.calibrate(length=15)
