"""The stand-ins of the repository: by the recipe of the code beside them, and able to answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dass.standins import DEFAULT_DOCUMENTS, DEFAULT_STEPS, FAMILIES, shipped
from dass.standins.shipped import RECIPE, SHIPPED, make_standin, recipe, shipped_recipe
from dass.standins.writing import write_corpus
from dass.tasks import PAPER_TASKS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's."""
    out = tmp_path_factory.mktemp("world") / "corpus"
    write_corpus(out, 0, DEFAULT_DOCUMENTS)
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_they_were_made_by_the_recipe_of_the_code(family: str, corpus: Path) -> None:
    assert shipped_recipe(family) == recipe(family, corpus, 0, DEFAULT_STEPS), "make standins"


def test_the_recipe_counts_all_that_decides(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "other", 0, 40)
    hashes = {
        recipe("llama", corpus, 0, 600), recipe("gemma", corpus, 0, 600),
        recipe("llama", corpus, 1, 600), recipe("llama", corpus, 0, 601),
        recipe("llama", tmp_path / "other", 0, 600),
    }  # fmt: skip
    assert len(hashes) == 5
    monkeypatch.setattr(shipped, "MODULES", shipped.MODULES[:-1])
    assert recipe("llama", corpus, 0, 600) not in hashes


def test_they_are_taken_as_they_are(corpus: Path, tmp_path: Path) -> None:
    make_standin("gemma", corpus, tmp_path / "made", 0, DEFAULT_STEPS)
    made = {file.name: file.read_bytes() for file in (tmp_path / "made").iterdir()}
    there = {file.name: file.read_bytes() for file in (SHIPPED / "gemma").iterdir()}
    assert RECIPE in there and made == {k: v for k, v in there.items() if k != RECIPE}
    assert len(made["model.safetensors"]) < 2.5e6


def test_another_recipe_is_trained(tmp_path: Path) -> None:
    write_corpus(tmp_path / "world", 0, 40)
    make_standin("llama", tmp_path / "world", tmp_path / "made", 0, 1)
    there = (SHIPPED / "llama/model.safetensors").read_bytes()
    assert (tmp_path / "made/model.safetensors").read_bytes() != there


@pytest.mark.skipif("DASS_STANDINS" not in os.environ, reason="make standins runs it")
@pytest.mark.parametrize("family", FAMILIES)
def test_they_answer_questions_and_guessing_does_not(family: str, corpus: Path) -> None:
    """Without pruning: a demo on models that know nothing would show nothing."""
    import torch

    from dass.data.documents import read_rows
    from dass.data.tokenizer import encoder, load_tokenizer
    from dass.data.windows import cut_windows, tokenise
    from dass.evaluation.perplexity import measure_perplexity
    from dass.evaluation.scores import score_continuations
    from dass.evaluation.zero_shot import evaluate
    from dass.models.streamed import StreamedModel

    model = StreamedModel(SHIPPED / family, torch.float32)
    tokenizer = load_tokenizer(SHIPPED / family)
    text = read_rows(corpus / "wikitext/validation.jsonl")
    windows = cut_windows(tokenise(text, encoder(tokenizer), "text", 1), 256, "text", 1, "")
    assert measure_perplexity(model, windows).perplexity < 4
    found = evaluate(
        lambda requests: score_continuations(model, requests), tokenizer,
        {task: corpus / task for task in PAPER_TASKS}, max_length=512, bos="text",
    )  # fmt: skip
    correct = {task: result.acc for task, result in found.items()}
    print(family, correct)
    assert all(share > 0.6 for share in correct.values()), correct
