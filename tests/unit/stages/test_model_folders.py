"""Zero-shot from a model's folder to a result, where the folder has something unusual."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dass.data.pretrained import DEFAULT_LENGTH
from dass.models.streamed import StreamedModel
from dass.runtime.files import read_json
from dass.stages.zero_shot import zero_shot
from dass.stages.zero_shot_requests import zero_shot_requests
from tests.conftest import MORE, SUPPORTED, TinyModel, whole_logits

QUESTIONS = [  # choices of one token, of which a tokenizer that appends EOS leaves EOS only
    {"question": f"w{n} w{n + 1} w{n + 2}", "answerKey": "AB"[n % 2],
     "choices": {"label": ["A", "B"], "text": [f"w{40 + n}", f"w{90 - n}"]}}
    for n in range(5, 21)
]  # fmt: skip


def measured(folder: Path, work: Path) -> dict[str, Any]:
    task = work / "task"
    task.mkdir(exist_ok=True)
    (task / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    requests = work / "requests.safetensors"
    zero_shot_requests(
        folder=folder, tasks={"arc_easy": task}, bos="text", limit=None, out=requests
    )
    zero_shot(
        run="tiny/dense", folder=folder, pruned=None, requests=requests, dtype="float32",
        result_file=work / "result.json",
    )  # fmt: skip
    result: dict[str, Any] = read_json(work / "result.json")
    return result


def expected(folder: Path) -> float:
    """The accuracy, from whole forwards of each question on its own."""
    right = 0
    for row in QUESTIONS:
        context = [1, 0, *(int(w[1:]) for w in row["question"].split()), 0]  # Question: … Answer:
        scores = []
        for choice in row["choices"]["text"]:
            logits = whole_logits(folder, torch.tensor([context]))[0, -1]
            scores.append(float(logits.log_softmax(-1)[int(choice[1:])]))
        right += "AB"[scores[1] > scores[0]] == row["answerKey"]
    return right / len(QUESTIONS)


def test_one_token_choices_of_a_tokenizer_that_appends_eos(folder: Path, tmp_path: Path) -> None:
    plain = measured(folder, tmp_path)
    assert plain["tasks"]["arc_easy"]["acc"] == expected(folder)
    assert 0 < expected(folder) < 1
    assert "tokens_taken_off" not in plain["provenance"]["model"]
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["single"].append({"SpecialToken": {"id": "w2", "type_id": 0}})
    content["post_processor"]["special_tokens"]["w2"] = {"id": "w2", "ids": [2], "tokens": ["w2"]}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    appending = measured(folder, tmp_path)
    assert appending["tasks"] == plain["tasks"]
    assert appending["provenance"]["model"]["tokens_taken_off"] == "w2"


def test_a_model_without_positions(folder: Path, tiny_model: TinyModel, tmp_path: Path) -> None:
    """RecurrentGemma's config.json has no max_position_embeddings."""
    recurrent = Path(shutil.copytree(tiny_model("recurrent_gemma"), tmp_path / "recurrent"))
    for file in folder.glob("*token*"):
        shutil.copyfile(file, recurrent / file.name)
    config = json.loads((recurrent / "config.json").read_text())
    del config["max_position_embeddings"]
    (recurrent / "config.json").write_text(json.dumps(config))
    assert StreamedModel(recurrent, torch.float32).max_length == DEFAULT_LENGTH
    result = measured(recurrent, tmp_path)["tasks"]["arc_easy"]
    assert (result["acc"], result["samples"]) == (expected(recurrent), 16)


@pytest.mark.parametrize("architecture", [*SUPPORTED, *MORE])
def test_every_architecture_says_how_long_a_sequence_may_be(
    architecture: str, tiny_model: TinyModel
) -> None:
    assert StreamedModel(tiny_model(architecture), torch.float32).max_length == 128
