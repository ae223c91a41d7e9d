"""The same work gives the same bits in another process, and the same masks on more threads.

Another number of threads adds up in another order: SparseGPT's updated weights, and perplexities,
may differ in their last bits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.unit.stages.pipeline import Pipeline

ROOT = Path(__file__).parents[3]
METHODS = ["magnitude", "wanda", "dass", "sparsegpt"]

RUN = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[3]))
from dass.runtime.files import sha256
from tests.unit.stages.pipeline import Pipeline
pipeline, out = Pipeline(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[4])
tokens = pipeline.calibrate(sequences=10, length=64)
found = {"tokens": sha256(tokens)}
for method in sys.argv[5].split():
    for pattern in ("u50", "2of4"):
        run = out / f"{method}-{pattern}"
        result = pipeline.prune(run, method, tokens, run=f"m/c/{method}/{pattern}")
        found[f"{run.name} masks"] = result.mask_hash
        found[f"{run.name} file"] = sha256(run / "pruned.safetensors")
for run in (None, out / "dass-2of4", out / "sparsegpt-u50"):
    name = run.name if run else "dense"
    splits = pipeline.perplexity(run).splits
    tasks = pipeline.zero_shot(run).tasks
    found |= {f"{name} {key}": value.model_dump() for key, value in (splits | tasks).items()}
print(json.dumps(found))
"""
"""Every method and two patterns; perplexity and accuracy of some."""


@pytest.fixture(scope="module")
def runs(folder_of_words: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes with one thread and one with two threads give."""
    work = tmp_path_factory.mktemp("determinism")
    pipeline = Pipeline(folder_of_words, work / "work")
    pipeline.write_data(tokens=80)
    found = {}
    for name, threads in (("one", 1), ("one again", 1), ("two", 2)):
        arguments = [str(folder_of_words), str(pipeline.work), str(threads), str(work / name)]
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments, " ".join(METHODS)], cwd=ROOT, text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)}, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def folder_of_words(tmp_path_factory: pytest.TempPathFactory, save_words: Any) -> Path:
    """A model of matrices that are large enough for two threads to share a product."""
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=128, hidden_size=128, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    save_words(folder)
    return folder


@pytest.mark.slow
def test_two_runs_are_equal_to_the_bit(runs: dict[str, Any]) -> None:
    assert runs["one"] == runs["one again"]
    assert len(runs["one"]) > 20


@pytest.mark.parametrize("pattern", ["u50", "2of4"])
@pytest.mark.parametrize("method", METHODS)
def test_one_thread_and_two_give_the_same_masks(
    runs: dict[str, Any], method: str, pattern: str
) -> None:
    key = f"{method}-{pattern} masks"
    assert runs["one"][key] == runs["two"][key]


def test_runs_differ_where_they_should(runs: dict[str, Any]) -> None:
    found = [value for key, value in runs["one"].items() if key.endswith("masks")]
    assert len(set(found)) == len(found) == 2 * len(METHODS)
