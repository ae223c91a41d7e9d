"""What the report says about a study beside the paper's: facts of its config, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dass.config.load import load_config
from dass.latex import escape_latex
from dass.report.differences import PRUNED_BESIDES, paper_differences

CONFIG = Path(__file__).parents[3] / "config"


def said(name: str, **changes: Any) -> list[str]:
    return paper_differences(load_config(yaml.safe_load((CONFIG / name).read_text()) | changes))


PERMUTED = "Neurons permuted before N:M grouping by"


def test_the_papers_own_study_differs_in_little() -> None:
    assert said("config.yaml") == [
        f"{PRUNED_BESIDES} {PERMUTED} Wanda (permuted) and DaSS (permuted).",
        "Calibration: 128 sequences of 2048 tokens of C4, as in the paper.",
        "Perplexity: the validation split of WikiText2, windows of 2048 tokens. The paper's text "
        "names the validation split, its released code reads the test split.",
        "Zero-shot tasks: at most 2000 examples of each with LLaMA2-70B.",
        "Precision: float16 (LLaMA2-7B, LLaMA2-13B, LLaMA2-70B), bfloat16 (LLaMA3.1-8B, "
        "Mistral-7B, Gemma-7B).",
        "BOS: at the start of each window, where the paper's released code has it at the start of "
        "the text only: Gemma-7B.",
    ]


@pytest.mark.parametrize(
    ("dataset", "change", "line"),
    [
        ("c4", {"files": "multilingual/c4-de.tfrecord-00000-of-02048.json.gz"},
         "128 sequences of 2048 tokens of c4 (the paper: 128 sequences of 2048 tokens of C4)."),
        ("wikitext2", {"name": "wikitext-103-raw-v1"},
         "the validation split of wikitext2, windows of 2048 tokens (the paper: WikiText2,"),
    ],
)  # fmt: skip
def test_another_part_of_the_papers_repository_is_not_the_papers(
    dataset: str, change: dict[str, str], line: str
) -> None:
    datasets = yaml.safe_load((CONFIG / "config.yaml").read_text())["datasets"]
    datasets[dataset] |= change
    assert line in "\n".join(said("config.yaml", datasets=datasets))


def test_methods_that_prune_more_are_named() -> None:
    methods = yaml.safe_load((CONFIG / "config.yaml").read_text())["methods"]
    methods["wanda"]["targets"] = "all"
    first = said("config.yaml", methods=methods)[0]
    more = "Pruned by Wanda: attention's linear layers, too."
    assert first == f"{PRUNED_BESIDES} {more} {PERMUTED} Wanda (permuted) and DaSS (permuted)."
    methods["wanda"] |= {"targets": "mlp", "permute": True}
    first = said("config.yaml", methods=methods)[0]
    assert first == f"{PRUNED_BESIDES} {PERMUTED} Wanda, Wanda (permuted) and DaSS (permuted)."


def test_stand_ins_are_called_stand_ins() -> None:
    text = "\n".join(said("demo.yaml"))
    assert "paper's models: Stand-in LLaMA, Stand-in Mistral, Stand-in Gemma." in text
    assert "64 sequences of 256 tokens of toy (the paper: 128 sequences of 2048 tokens" in text
    assert "split of toy-text, windows of 256 tokens (the paper: WikiText2, windows of 2048" in text
    assert "toy world in place of HellaSwag, WinoGrande, ARC-e, ARC-c, PIQA." in text
    assert "Precision: float32." in text


def test_only_what_is_run_counts() -> None:
    text = "\n".join(said("config.yaml", select={"models": ["mistral-7b"]}))
    assert "Precision: bfloat16." in text
    assert "LLaMA" not in text and "BOS" not in text and "2000 examples" not in text


def test_other_models_are_named_and_missing_tasks_too() -> None:
    text = "\n".join(said("small.yaml", zero_shot=None))
    assert "paper does not have: TinyLlama-1.1B, Qwen2.5-0.5B, SmolLM2-360M." in text
    assert "Zero-shot tasks: not run." in text


def test_each_calibration_is_named_once() -> None:
    config = yaml.safe_load((CONFIG / "config.yaml").read_text())
    more = {name: config["calibrations"]["c4"] | {"seed": seed}
            for seed, name in enumerate(("c4", "c4-again"))}  # fmt: skip
    more["few"] = more["c4"] | {"sequences": 16}
    main = config["experiments"]["main"] | {"calibrations": list(more)}
    del config["blocks"]
    changes = {"calibrations": config["calibrations"] | more, "experiments": {"main": main}}
    text = said("config.yaml", **changes, blocks=None)[1]
    assert text == (
        "Calibration: 128 sequences of 2048 tokens of C4; 16 sequences of 2048 tokens of C4 (the "
        "paper: 128 sequences of 2048 tokens of C4)."
    )


@pytest.mark.parametrize(
    "name", [f"{n}.yaml" for n in ("config", "demo", "small", "real", "smollm2")]
)
def test_latex_can_print_it(name: str) -> None:
    assert all(map(escape_latex, said(name)))


def test_other_texts_are_named() -> None:
    perplexity = yaml.safe_load((CONFIG / "config.yaml").read_text())["perplexity"]
    found = said("config.yaml", perplexity=perplexity | {"others": {"c4": {"windows": 256}}})
    assert found[3] == (
        "Perplexity on the validation split of C4: beside the paper, which has WikiText2 alone."
    )
