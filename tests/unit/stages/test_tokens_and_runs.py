"""The stages end to end on a tiny model: files in, files out, hashes that fit one another."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dass.data.documents import Documents
from dass.data.token_file import load_tokens, save_tokens, token_hash, tokens_about
from dass.data.tokenizer import encoder, load_tokenizer
from dass.data.windows import draw_windows
from dass.errors import DataError, PatternError
from dass.evaluation.perplexity import measure_perplexity
from dass.models.streamed import StreamedModel
from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import PerplexityResult, PruningResult, Run
from dass.runtime.files import read_json, sha256
from dass.stages.calibration_tokens import calibration_tokens
from dass.stages.evaluation_tokens import evaluation_tokens
from dass.stages.perplexity import perplexity
from dass.stages.prune_run import prune_run

PRUNED = Run(model="tiny", calibration="c", method="wanda", pattern="2of4")
DENSE = Run(model="tiny", calibration=None, method="dense", pattern=None)


def words(start: int, stop: int) -> str:
    return " ".join(f"w{i}" for i in range(start, stop))


@pytest.mark.parametrize("bos", ["text", "window"])
def test_calibration_windows(folder: Path, tmp_path: Path, bos: str) -> None:
    """Words in a row, as drawn; or BOS in front of them, and one less."""
    with gzip.open(tmp_path / "d.json.gz", "wt") as file:
        for _ in range(5):
            file.write(json.dumps({"text": words(10, 100)}) + "\n")
    calibration_tokens(
        folder=folder, dataset="d", documents=tmp_path / "d.json.gz", sequences=3, length=8, seed=1,
        bos=bos, out=tmp_path / "tokens",
    )  # fmt: skip
    encode = encoder(load_tokenizer(folder))
    drawn = draw_windows(Documents(tmp_path / "d.json.gz"), encode, 3, 8, seed=1).tolist()
    assert all(row == [*range(row[0], row[0] + 8)] for row in drawn)
    expected = drawn if bos == "text" else [[1, *row[:-1]] for row in drawn]
    assert load_tokens(tmp_path / "tokens")["windows"].tolist() == expected


@pytest.mark.parametrize(
    ("bos", "expected"),
    [
        ("text", [[1, 10, 11, 12], [13, 14, 15, 16]]),
        ("window", [[1, 10, 11, 12], [1, 13, 14, 15], [1, 16, 17, 18]]),
    ],
)
def test_evaluation_windows(
    folder: Path, tmp_path: Path, bos: str, expected: list[list[int]]
) -> None:
    (tmp_path / "wiki").mkdir()
    (tmp_path / "wiki" / "test.txt").write_text(f"{words(10, 14)}\n{words(14, 19)}\n")
    (tmp_path / "wiki" / "validation.txt").write_text(words(20, 26))
    arguments: dict[str, Any] = {
        "folder": folder, "dataset": "wiki", "text": tmp_path / "wiki", "rows": "line",
    }  # fmt: skip
    evaluation_tokens(
        **arguments, splits=["test", "validation"], length=4, bos=bos, out=tmp_path / "tokens"
    )
    windows = load_tokens(tmp_path / "tokens")
    assert set(windows) == {"test", "validation"}
    assert windows["test"].tolist() == expected
    with pytest.raises(DataError, match=r"validation\.txt: .*fewer than one window"):
        evaluation_tokens(
            **arguments, splits=["test", "validation"], length=8, bos=bos, out=tmp_path / "short"
        )
    assert not (tmp_path / "short").exists()


@pytest.mark.parametrize(
    ("documents", "most", "expected"),
    [
        (2, None, [[1, 10, 11, 12], [13, 14, 20, 21]]),
        (3, None, [[1, 10, 11, 12], [13, 14, 20, 21], [22, 30, 31, 32]]),
        (None, 1, [[1, 10, 11, 12]]),
        (None, 256, [[1, 10, 11, 12], [13, 14, 20, 21], [22, 30, 31, 32]]),
    ],
)
def test_windows_of_the_first_documents(
    folder: Path, tmp_path: Path, documents: int | None, most: int | None, expected: list[list[int]]
) -> None:
    """Joined with a blank, tokenised once, cut: BOS stands once in front of all."""
    texts = [words(10, 15), words(20, 23), words(30, 34)]
    file = tmp_path / "c4.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    asked: dict[str, Any] = {
        "folder": folder, "dataset": "c4", "kind": "documents", "text": file, "rows": "line",
        "splits": ["validation"], "length": 4, "bos": "text", "most": most,
    }  # fmt: skip
    evaluation_tokens(**asked, documents=documents, out=tmp_path / "tokens")
    assert load_tokens(tmp_path / "tokens")["validation"].tolist() == expected
    said = tokens_about(tmp_path / "tokens")
    assert (said["documents"], said["rows"]) == (documents or 3, None)
    assert said["source"]["validation"]["sha256"] == sha256(file)
    with pytest.raises(DataError, match=r"c4\.jsonl: 4 documents are asked for .* it has 3; ask"):
        evaluation_tokens(**asked, documents=4, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_other_texts_are_measured_beside_the_first(
    folder: Path, tokens: torch.Tensor, tmp_path: Path
) -> None:
    """The first has the numbers that it has alone."""
    results = []
    save_tokens(tmp_path / "wiki", {"validation": tokens[:4]}, {"dataset": "wiki"})
    save_tokens(tmp_path / "c4", {"test": tokens[4:]}, {"dataset": "c4"})
    for others in ({}, {"c4": "test"}):
        perplexity(
            folder=folder, pruned=None, tokens=tmp_path / "wiki", run=str(DENSE), dtype="float32",
            bos="text", dataset="wiki", splits=["validation"], others=others,
            other_tokens=[tmp_path / name for name in others],
            result_file=tmp_path / "perplexity.json",
        )  # fmt: skip
        results.append(PerplexityResult.model_validate(read_json(tmp_path / "perplexity.json")))
    alone, both = results
    assert alone.splits == both.splits and alone.others == {}
    expected = vars(measure_perplexity(StreamedModel(folder, torch.float32), tokens[4:]))
    assert both.others["c4"].model_dump() == expected | {"split": "test"}
    assert both.of("test", "c4") == both.others["c4"] and both.of("validation", "c4") is None
    assert both.of("validation") == both.splits["validation"] == both.of("validation", "wiki")
    assert both.of("validation", "ptb") is None
    assert both.provenance["others"] == {"c4": tokens_about(tmp_path / "c4")}


def prune(folder: Path, tokens: Path, out: Path, run: Run = PRUNED, method: str = "wanda") -> None:
    prune_run(
        folder=folder, tokens=tokens, run=str(run), dtype="float32", bos="text", function=method,
        arguments={}, propagation="pruned",
        pruned_file=out / "pruned.safetensors", result_file=out / "pruning.json",
    )  # fmt: skip


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_pruning_and_perplexity_of_a_run(
    method: str, folder: Path, tokens: torch.Tensor, tmp_path: Path
) -> None:
    save_tokens(tmp_path / "calibration", {"windows": tokens})
    save_tokens(tmp_path / "evaluation", {"validation": tokens[:4], "test": tokens[2:]})
    prune(folder, tmp_path / "calibration", tmp_path / "run", method=method)
    pruned = PrunedFile(tmp_path / "run" / "pruned.safetensors")
    pruning = PruningResult.model_validate(read_json(tmp_path / "run" / "pruning.json"))
    assert pruning.run == PRUNED
    assert pruning.mask_hash == pruned.hash()
    assert pruning.calibration_hash == token_hash(tokens)
    assert (pruning.tokens, pruning.mean_sparsity) == (tokens.numel(), 0.5)
    for run, file in ((DENSE, None), (PRUNED, pruned)):
        perplexity(
            folder=folder, pruned=file and file.path, tokens=tmp_path / "evaluation", run=str(run),
            dtype="float32", bos="text", dataset="wiki", splits=["validation", "test"],
            result_file=tmp_path / "perplexity.json",
        )  # fmt: skip
        result = PerplexityResult.model_validate(read_json(tmp_path / "perplexity.json"))
        assert result.mask_hash == (file and pruning.mask_hash)
        assert result.run == run
        assert set(result.splits) == {"validation", "test"}
        model = StreamedModel(folder, torch.float32, overlay=file)
        expected = measure_perplexity(model, tokens[2:])
        assert result.splits["test"].perplexity == pytest.approx(expected.perplexity)
        assert result.splits["test"].tokens_hash == token_hash(tokens[2:])
        assert result.splits["validation"].windows == 4
        assert result.settings["length"] == 20


def test_a_stage_that_fails_leaves_nothing_behind(
    folder: Path, tokens: torch.Tensor, tmp_path: Path
) -> None:
    save_tokens(tmp_path / "calibration", {"windows": tokens})
    run = PRUNED.model_copy(update={"pattern": "2of5"})
    with pytest.raises(PatternError):
        prune(folder, tmp_path / "calibration", tmp_path / "run", run)
    assert not list((tmp_path / "run").glob("*"))


def test_a_result_names_the_commits_of_what_was_fetched(
    folder: Path, tokens: torch.Tensor, tmp_path: Path
) -> None:
    """Of the model from its folder, of the text from the tokens that were drawn from it."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "documents.jsonl").write_text(json.dumps({"text": words(10, 100)}) + "\n")
    for place, name in ((folder, "a/model"), (tmp_path / "d", "a/text")):
        said = {"repository": name, "commit": f"commit of {name}"}
        (place / "fetched.json").write_text(json.dumps(said | {"files": {}}))
    calibration_tokens(
        folder=folder, dataset="d", documents=tmp_path / "d" / "documents.jsonl", sequences=1,
        length=8, seed=0, bos="text", out=tmp_path / "calibration",
    )  # fmt: skip
    text = {"repository": "a/text", "commit": "commit of a/text"}
    assert tokens_about(tmp_path / "calibration")["origin"] == text
    prune(folder, tmp_path / "calibration", tmp_path / "run")
    inputs = read_json(tmp_path / "run" / "pruning.json")["provenance"]["inputs"]
    model = {"repository": "a/model", "commit": "commit of a/model"}
    assert inputs == {"model": model, "calibration": text}
