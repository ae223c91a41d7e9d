"""Bad input: one clear line that names the key or file and the remedy, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
import torch

from .conftest import Finished, Workflow, small_study


def error_lines(finished: Finished) -> list[str]:
    """The lines in which a job says what is wrong, each once."""
    found = re.findall(r"\berror: (.*)$", finished.output, re.MULTILINE)
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda s: s["models"]["standin-llama"].update(dtpye="float32"),
            "models.standin-llama.dtpye: unknown key; did you mean dtype?",
        ),
        (
            lambda s: s["experiments"]["main"].update(methods=["dass", "wnada"]),
            "experiments.main.methods: no method 'wnada' in methods; did you mean wanda?",
        ),
        (
            lambda s: s["experiments"]["main"].update(patterns=["half"]),
            "experiments.main.patterns: unknown pattern 'half'",
        ),
        (
            lambda s: s["experiments"]["main"].update(patterns=["8of4"]),
            "experiments.main.patterns: pattern '8of4': cannot keep 8 of 4",
        ),
        (
            lambda s: s["methods"]["dass"].update(function="das"),
            "methods.dass.function: no built-in method 'das'; did you mean dass?",
        ),
    ],
)
def test_a_wrong_config_is_one_line(fresh: Workflow, change, line: str) -> None:
    settings = small_study()
    change(settings)
    finished = fresh.snakemake(config=fresh.write_study(settings))
    assert finished.code != 0
    assert line in finished.output
    assert "Traceback" not in finished.output
    assert not (fresh.folder / "results").exists()


def finished_model(study: Workflow, name: str = "mine") -> Path:
    """A model folder of the user's own, of a trained stand-in."""
    folder = study.folder / name
    (study.folder / "resources/models/standin-llama").rename(folder)
    return folder


def one_model(path: str, zero_shot: bool = False) -> dict:
    """A study of one local model that uses the toy world's data."""
    settings = small_study()
    settings["study"] = "bad"
    settings["models"] = {"mine": {"label": "Mine", "path": path, "dtype": "float32"}}
    settings["experiments"]["main"] |= {"methods": ["dass"], "zero_shot": zero_shot}
    return settings


def run_badly(study: Workflow, settings: dict) -> str:
    """Run a study that must fail in a job; return its one error line."""
    finished = study.snakemake("evaluate", config=study.write_study(settings, "bad.yaml"))
    assert finished.code != 0, finished.output
    lines = error_lines(finished)
    assert len(lines) == 1, finished.output
    assert "Traceback" not in finished.output
    return lines[0]


def nothing_written(study: Workflow, *names: str) -> bool:
    """No result of these names, and no temporary file, is left of the bad study."""
    files = [path.name for path in (study.folder / "results/bad").rglob("*") if path.is_file()]
    return not any(file in names or file.endswith(".part") for file in files)


def test_a_model_without_glu(study: Workflow) -> None:
    """One of those that tests/unit/models/test_architectures.py refuses."""
    from transformers import OPTConfig, OPTForCausalLM

    folder = finished_model(study)
    (folder / "model.safetensors").unlink()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 64}
    model = OPTForCausalLM(OPTConfig(num_attention_heads=2, word_embed_proj_dim=32, **sizes))
    model.save_pretrained(folder)
    line = run_badly(study, one_model("mine"))
    assert "mine, block 0" in line
    assert "no gated MLP" in line
    assert nothing_written(study, "pruned.safetensors", "perplexity.json")


def test_m_that_does_not_divide_a_dimension(study: Workflow) -> None:
    finished_model(study)
    settings = one_model("mine")
    settings["experiments"]["main"]["patterns"] = ["3of7"]
    finished = study.snakemake("prune", config=study.write_study(settings, "bad.yaml"))
    assert finished.code != 0
    (line,) = error_lines(finished)
    assert re.search(r"gate_proj\.weight: pattern 3of7 needs .* multiple of 7, but it is", line)
    assert nothing_written(study, "pruned.safetensors", "pruning.json")


def test_weights_that_are_not_finite(study: Workflow) -> None:
    from safetensors.torch import load_file, save_file

    file = finished_model(study) / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    line = run_badly(study, one_model("mine", zero_shot=True))
    assert "model.layers.1.mlp.up_proj.weight holds NaN or infinite values" in line
    assert nothing_written(study, "pruned.safetensors", "perplexity.json")


def test_a_truncated_shard(study: Workflow) -> None:
    file = finished_model(study) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    line = run_badly(study, one_model("mine"))
    assert line.startswith("models.mine.path: mine/model.safetensors: truncated or damaged")
    assert nothing_written(study, "pruned.safetensors", "perplexity.json")


def test_a_missing_shard(study: Workflow) -> None:
    folder = finished_model(study)
    weight_map = {"lm_head.weight": "model-00002-of-00002.safetensors"}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    line = run_badly(study, one_model("mine"))
    assert line == (
        "models.mine.path: mine: shard model-00002-of-00002.safetensors is missing; "
        "fetch the model again"
    )


def test_too_few_documents(study: Workflow) -> None:
    finished_model(study)
    texts = ["short", "word " * 400, "too short again"]
    with gzip.open(study.folder / "few.json.gz", "wt") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    settings = one_model("mine")
    settings["datasets"]["toy"] = {"kind": "documents", "path": "few.json.gz"}
    finished = study.snakemake("calibrate", config=study.write_study(settings, "bad.yaml"))
    assert finished.code != 0
    (line,) = error_lines(finished)
    assert line.startswith("few.json.gz: 1 of 3 documents have more than 64 tokens")
    assert "8 sequences" in line
    assert nothing_written(study, "toy.safetensors")


def test_a_text_shorter_than_one_window(study: Workflow) -> None:
    finished_model(study)
    for split in ("validation", "test"):
        path = study.folder / "text" / f"{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("only a few words\n")
    settings = one_model("mine")
    settings["datasets"]["toy-text"] = {"kind": "text", "path": "text"}
    finished = study.snakemake("calibrate", config=study.write_study(settings, "bad.yaml"))
    assert finished.code != 0
    (line,) = error_lines(finished)
    assert re.match(r"text/validation\.txt: \d+ tokens are fewer than one window of 64", line)
    assert nothing_written(study, "toy-text.safetensors")


@pytest.mark.parametrize(
    ("path", "line"),
    [("nowhere", "models.mine.path: nowhere: no such model folder")],
)
def test_a_model_folder_that_is_not_there(study: Workflow, path: str, line: str) -> None:
    finished = study.snakemake(config=study.write_study(one_model(path), "bad.yaml"))
    assert finished.code != 0
    assert line in finished.output
    assert "Traceback" not in finished.output
