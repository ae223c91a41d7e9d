"""SECURITY.md: no code of a model folder runs, not even where somebody says yes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TinyModel

from .pages import ROOT

CODE = """\
from pathlib import Path
Path("ran").touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class StrangeConfig(LlamaConfig):
    model_type = "strange"
class StrangeForCausalLM(LlamaForCausalLM):
    config_class = StrangeConfig
class StrangeTokenizer(PreTrainedTokenizerFast):
    pass
"""
CALLS = {
    "model": "import torch; from dass.models.streamed import StreamedModel as M; "
    "M('strange', torch.float32)",
    "tokenizer": "from dass.data.tokenizer import load_tokenizer; load_tokenizer('strange')",
}


@pytest.fixture
def strange(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A working folder with a model that brings its own code."""
    folder = tmp_path / "strange"
    folder.mkdir()
    (folder / "strange.py").write_text(CODE)
    for file in tiny_model("llama").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    maps = {"AutoConfig": "strange.StrangeConfig",
            "AutoModelForCausalLM": "strange.StrangeForCausalLM"}  # fmt: skip
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "strange", "auto_map": maps})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "StrangeTokenizer",
                    "auto_map": {"AutoTokenizer": ["strange.StrangeTokenizer", None]}})
    )  # fmt: skip
    return tmp_path


def test_only_stages_that_fetch_may_use_the_network() -> None:
    """A job is offline unless its stage is called fetch_…, and one file has such rules."""
    script = (ROOT / "workflow/scripts/stage.py").read_text()
    assert 'offline=not stage.startswith("fetch_")' in script
    for file in (ROOT / "rules").glob("*.smk"):
        stages = re.findall(r'^        stage="(\w+)"', file.read_text(), re.MULTILINE)
        fetching = [stage for stage in stages if stage.startswith("fetch_")]
        wanted = ["fetch_model", "fetch_dataset"] if file.name == "resources.smk" else []
        assert fetching == wanted, file.name


@pytest.mark.parametrize("what", CALLS)
def test_code_of_a_model_folder_never_runs(what: str, strange: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HOME": str(strange / "home")}
    done = subprocess.run(
        [sys.executable, "-c", CALLS[what]], cwd=strange, env=environment,
        input="y\n" * 9, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert not (strange / "ran").exists(), "the folder's code was executed"
    assert done.returncode != 0
    assert "dass.errors." in done.stderr.strip().splitlines()[-1]
    assert "[y/N]" not in done.stdout + done.stderr
