"""The toy world's text and tasks, and the training of the stand-ins on it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dass.errors import DataError, ModelError
from dass.standins import FAMILIES, prompts
from dass.standins.toy_world import ACTIVITIES, CHAINS, RELATIONS, World
from dass.standins.training import train_standin
from dass.standins.writing import write_corpus

SPLITS = ("train", "validation", "test")
TASKS = ("hellaswag", "winogrande", "arc_easy", "arc_challenge", "piqa")
SCORED = {"arc_easy": "test", "arc_challenge": "test"}  # the others: validation
SEED = 3

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("standins") / "world"
    write_corpus(out, SEED, 300)
    return out


@pytest.fixture(scope="module")
def world() -> World:
    return World(SEED)


def rows(folder: Path, task: str, split: str) -> Rows:
    lines = (folder / task / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def every_row(folder: Path, task: str) -> Rows:
    return [row for split in SPLITS for row in rows(folder, task, split)]


def documents(folder: Path) -> Rows:
    with gzip.open(folder / "documents.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# What is written


def test_equal_arguments_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "again", SEED, 300)
    assert hashes(tmp_path / "again") == hashes(folder)
    assert len(hashes(folder)) == 1 + 3 * 6


def test_another_seed_gives_another_world(folder: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "other", SEED + 1, 300)
    same = set(hashes(tmp_path / "other").values()) & set(hashes(folder).values())
    assert not same
    assert World(SEED).facts != World(SEED + 1).facts


def test_documents_have_the_shape_of_c4(folder: Path) -> None:
    pages = documents(folder)
    assert len(pages) == 300
    for page in pages:
        assert list(page) == ["text", "timestamp", "url"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", page["timestamp"])
        assert page["url"].startswith("https://")
    words = sorted(len(page["text"].split()) for page in pages)
    assert words[30] < 60  # some are short,
    assert words[180] > 128  # many are long,
    assert words[-1] > 600  # and a few very long
    assert len({page["text"] for page in pages}) > 290


def test_wikitext_rows_follow_the_conventions(folder: Path) -> None:
    titles: list[str] = []
    for split in SPLITS:
        split_rows = [row["text"] for row in rows(folder, "wikitext", split)]
        assert all(list(row) == ["text"] for row in rows(folder, "wikitext", split))
        for before, row, after in zip(split_rows, split_rows[1:], split_rows[2:], strict=False):
            assert row == "" or (row.startswith(" ") and row.endswith(" \n"))
            if row.startswith(" = "):  # a heading stands alone
                assert (before, after) == ("", "")
        titles += [row for row in split_rows if re.fullmatch(r" = [^=]+ = \n", row)]
        assert any(re.fullmatch(r" = = [^=]+ = = \n", row) for row in split_rows)
    assert len(titles) == len(set(titles)) == 72  # no article is in two splits


# The tasks: columns and types


def test_hellaswag_has_the_official_columns(folder: Path) -> None:
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        for row in rows(folder, "hellaswag", split):
            assert {key: type(value) for key, value in row.items()} == {
                "ind": int, "activity_label": str, "ctx_a": str, "ctx_b": str, "ctx": str,
                "endings": list, "source_id": str, "split": str, "split_type": str, "label": str,
            }  # fmt: skip
            assert row["ctx"] == f"{row['ctx_a']} {row['ctx_b']}"
            assert len(set(row["endings"])) == 4
            assert row["split"] == name


def test_winogrande_has_the_official_columns(folder: Path) -> None:
    for row in every_row(folder, "winogrande"):
        assert list(row) == ["sentence", "option1", "option2", "answer"]
        assert all(type(value) is str for value in row.values())
        assert row["sentence"].count("_") == 1
        assert row["answer"] in ("1", "2")
        assert row["option1"] != row["option2"]


@pytest.mark.parametrize("task", ["arc_easy", "arc_challenge"])
def test_arc_has_the_official_columns(folder: Path, task: str) -> None:
    for row in every_row(folder, task):
        assert list(row) == ["id", "question", "choices", "answerKey"]
        assert list(row["choices"]) == ["text", "label"]
        assert row["choices"]["label"] == ["A", "B", "C", "D"]
        assert len(set(row["choices"]["text"])) == 4
        assert row["answerKey"] in ("A", "B", "C", "D")


def test_piqa_has_the_official_columns(folder: Path) -> None:
    for row in every_row(folder, "piqa"):
        assert list(row) == ["goal", "sol1", "sol2", "label"]
        assert type(row["label"]) is int and row["label"] in (0, 1)
        assert row["sol1"] != row["sol2"]


@pytest.mark.parametrize("task", TASKS)
def test_labels_are_balanced(folder: Path, task: str) -> None:
    key = {"winogrande": "answer", "hellaswag": "label", "piqa": "label"}.get(task, "answerKey")
    scored = rows(folder, task, SCORED.get(task, "validation"))
    counts = Counter(row[key] for row in scored)
    choices = 2 if task in ("winogrande", "piqa") else 4
    assert len(scored) >= 200
    assert set(counts.values()) == {len(scored) // choices}


@pytest.mark.parametrize("task", TASKS)
def test_splits_are_disjoint(folder: Path, task: str) -> None:
    asked = [_prompt(task, row) for row in every_row(folder, task)]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("task", TASKS)
def test_no_prompt_stands_in_a_document(folder: Path, task: str) -> None:
    text = "\n".join(page["text"] for page in documents(folder))
    assert "Question: " in text and ": " in text
    for row in every_row(folder, task):
        assert _prompt(task, row) not in text


def _prompt(task: str, row: dict[str, Any]) -> str:
    """The prompt as lm-eval forms it; of a scene the first sentence is enough to know it."""
    if task == "hellaswag":
        return f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    if task == "winogrande":
        return str(row["sentence"]).replace("_", row[f"option{row['answer']}"])
    return f"Question: {row['goal' if task == 'piqa' else 'question']}\n"


# The tasks: answers follow from the world


def test_right_answers_of_arc_easy_and_no_others_are_facts(folder: Path, world: World) -> None:
    facts = {
        form.format(s=subject): value
        for relation in RELATIONS
        for subject, value in world.facts[relation.name].items()
        for form in relation.questions
    }
    for row in every_row(folder, "arc_easy"):
        chosen = "ABCD".index(row["answerKey"])
        truths = [text == facts[row["question"]] for text in row["choices"]["text"]]
        assert truths == [i == chosen for i in range(4)]


def test_right_answers_of_arc_challenge_take_two_facts(folder: Path, world: World) -> None:
    facts = {
        form.format(s=subject): world.facts[chain.second][world.facts[chain.first][subject]]
        for chain in CHAINS
        for subject in world.facts[chain.first]
        for form in chain.questions
    }
    for row in every_row(folder, "arc_challenge"):
        chosen = "ABCD".index(row["answerKey"])
        truths = [text == facts[row["question"]] for text in row["choices"]["text"]]
        assert truths == [i == chosen for i in range(4)]


def test_the_right_ending_is_the_next_step(folder: Path, world: World) -> None:
    for row in every_row(folder, "hellaswag"):
        steps = [f"{step.seen()}." for step in world.activities[row["activity_label"]]]
        done = row["ctx_a"].count(".")
        assert all(step in row["ctx_a"] for step in steps[:done])
        assert [ending == steps[done] for ending in row["endings"]] == [
            i == int(row["label"]) for i in range(4)
        ]


def test_the_sentence_is_true_of_the_right_option_only(folder: Path, world: World) -> None:
    for row in every_row(folder, "winogrande"):
        adjective = row["sentence"].rstrip(".").split()[-1]
        fits = next(table for table in world.adjectives.values() if adjective in table.values())
        true_of = [fits[row["option1"]] == adjective, fits[row["option2"]] == adjective]
        assert true_of == [row["answer"] == "1", row["answer"] == "2"]


def test_the_right_solution_reaches_the_goal(folder: Path, world: World) -> None:
    thing_for = {use: thing for thing, use in world.facts["use"].items()}
    for row in every_row(folder, "piqa"):
        right = (row["sol1"], row["sol2"])[row["label"]]
        wrong = (row["sol1"], row["sol2"])[1 - row["label"]]
        activity = next((a for a in ACTIVITIES if a.lower() in row["goal"].lower()), None)
        if activity is None:
            needed = next(thing for use, thing in thing_for.items() if use in row["goal"])
        else:
            place = next(i for i, word in enumerate(prompts.ORDINALS) if word in row["goal"])
            needed = world.activities[activity][place].order()
        assert needed in right.lower()
        assert needed not in wrong.lower()


def test_every_value_of_a_relation_is_used_about_equally(world: World) -> None:
    for relation in RELATIONS:
        counts = Counter(world.facts[relation.name].values())
        assert max(counts.values()) - min(counts.values()) <= 1


def test_no_two_prompts_are_the_same(world: World) -> None:
    asked = [
        question.prompt
        for ask in (prompts.one_step_questions, prompts.two_step_questions, prompts.goals)
        for question in ask(world)
    ]
    assert len(asked) == len(set(asked))


# Training


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "world"
    write_corpus(out, 0, 40)
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stand_in_loads_as_any_model_does(family: str, small_world: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    train_standin(family, small_world, tmp_path / "model", seed=0, steps=2)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")

    assert model.config.model_type == family
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (model.config.bos_token_id, model.config.eos_token_id) == (1, 2)
    assert model.config.vocab_size >= len(tokenizer)
    assert model.config.max_position_embeddings >= 512
    assert model.config.hidden_size % 32 == model.config.intermediate_size % 32 == 0
    tokens = tokenizer("Question: What is the job of Mila?\nAnswer:")["input_ids"]
    assert tokens[0] == tokenizer.bos_token_id == 1
    assert tokenizer.decode(tokens[1:]) == "Question: What is the job of Mila?\nAnswer:"
    assert torch.isfinite(model(torch.tensor([tokens])).logits).all()
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]  # nothing half-written is left


def test_files_have_the_usual_mode_and_no_bar_is_shown(
    small_world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = os.umask(0o027)
    try:
        train_standin("llama", small_world, tmp_path / "model", seed=0, steps=1)
    finally:
        os.umask(before)
    files = list((tmp_path / "model").iterdir())
    assert {"model.safetensors", "tokenizer.json"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}
    assert "%|" not in capfd.readouterr().err


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (128, 384)])
def test_muon_turns_a_gradient_into_an_orthogonal_step(shape: tuple[int, int]) -> None:
    """Of very unlike singular values, all but the vanishing ones come near to 1."""
    import torch

    from dass.standins.muon import Muon, orthogonalised

    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    gradient = u @ torch.diag(torch.linspace(0.2, 3.0, min(shape))) @ v
    step = orthogonalised(gradient)
    assert step.shape == gradient.shape and step.dtype == torch.float32
    turned = u.T @ step @ v.T  # diagonal: the singular directions stay
    values = turned.diagonal()
    assert torch.allclose(turned, torch.diag(values), atol=1e-4)
    assert ((values > 0.5) & (values < 1.3)).all()

    weight = torch.zeros(shape, requires_grad=True)
    weight.grad = gradient
    Muon([weight]).step(0.1)
    length = 0.1 * max(1.0, shape[0] / shape[1]) ** 0.5
    assert torch.allclose(weight.detach(), -length * step, atol=1e-4)  # its momentum is parallel


def test_every_parameter_is_trained_once() -> None:
    from dass.standins.training import _divided, _new_model

    for family, tied in (("llama", False), ("gemma", True)):
        model = _new_model(family)
        matrices, others = _divided(model)
        assert len(matrices) == 3 * 7  # of each block: four of the attention, three of the MLP
        assert {id(p) for p in matrices + others} == {id(p) for p in model.parameters()}
        assert len(matrices) + len(others) == len(list(model.parameters()))
        assert sum(p.ndim == 2 for p in others) == (1 if tied else 2)


def test_families_differ_as_the_papers_do(small_world: Path, tmp_path: Path) -> None:
    configs = {}
    for family in FAMILIES:
        train_standin(family, small_world, tmp_path / family, seed=0, steps=1)
        configs[family] = json.loads((tmp_path / family / "config.json").read_text())
    heads = {name: c["num_attention_heads"] for name, c in configs.items()}
    shared = {name: c["num_key_value_heads"] for name, c in configs.items()}
    assert shared["llama"] == heads["llama"]
    assert 1 < shared["mistral"] < heads["mistral"]
    assert shared["gemma"] == 1
    assert configs["mistral"]["sliding_window"] < 256
    assert configs["gemma"]["tie_word_embeddings"] is True
    assert configs["llama"]["tie_word_embeddings"] is False
    gelu = configs["gemma"].get("hidden_activation") or configs["gemma"]["hidden_act"]
    assert gelu == "gelu_pytorch_tanh"
    assert configs["llama"]["hidden_act"] == configs["mistral"]["hidden_act"] == "silu"


def test_training_repeats_and_leaves_the_random_state(small_world: Path, tmp_path: Path) -> None:
    import torch

    state = torch.random.get_rng_state()
    for name in ("one", "two"):
        train_standin("llama", small_world, tmp_path / name, seed=5, steps=2)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert torch.equal(torch.random.get_rng_state(), state)
    train_standin("llama", small_world, tmp_path / "three", seed=6, steps=2)
    assert hashes(tmp_path / "one") != hashes(tmp_path / "three")


def test_training_refuses_what_it_cannot_do(small_world: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"opt.*choose llama, mistral or gemma"):
        train_standin("opt", small_world, tmp_path / "opt", seed=0, steps=1)
    with pytest.raises(DataError, match="no such file"):
        train_standin("llama", tmp_path / "nowhere", tmp_path / "llama", seed=0, steps=1)
    write_corpus(tmp_path / "tiny", 0, 1)
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny"]
