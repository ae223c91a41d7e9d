"""transformers loads from a folder in one place: never its code, and with errors of one line."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dass.data.model_folder import SINGLE
from dass.data.pretrained import empty_model, load_config, load_tokenizer_of, whole_model
from dass.errors import DassError, DataError, ModelError
from dass.models.streamed import StreamedModel
from tests.conftest import TinyModel, whole_logits

LIBRARY = Path(__file__).parents[3] / "src" / "dass"
LOADERS = {"from_pretrained", "from_config", "_from_config", "get_class_from_dynamic_module"}
ELSEWHERE = {
    "speed/shapes.py": {"_from_config"},  # of a config that is made there: no folder is read
}
"""Files that may call a loader themselves."""

CODE = "open({!r}, 'w').write('ran')\nclass C: pass\nclass M: pass\nclass T: pass\n"


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of the tiny Llama."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))


def set_json(path: Path, **settings: Any) -> None:
    """Change keys of a JSON file; ``...`` removes one."""
    content = (json.loads(path.read_text()) if path.exists() else {}) | settings
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def test_loaders_are_called_in_one_module_only() -> None:
    calls: dict[str, set[str]] = {}
    for file in LIBRARY.rglob("*.py"):
        tree = ast.parse(file.read_text())
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if found := used & LOADERS:
            calls[file.relative_to(LIBRARY).as_posix()] = found
    assert calls.pop("data/pretrained.py") == {"from_pretrained", "from_config"}
    assert calls == ELSEWHERE


def test_none_of_its_calls_trusts_a_folder() -> None:
    tree = ast.parse((LIBRARY / "data" / "pretrained.py").read_text())
    calls = [
        call
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in LOADERS
    ]
    assert len(calls) == 5
    for call in calls:
        told = {ast.unparse(keyword) for keyword in call.keywords}
        assert told & {"**SAFE", "trust_remote_code=False"}


# --- Code of a folder's own -------------------------------------------------------------------


def with_code(folder: Path, ran: Path) -> None:
    (folder / "own.py").write_text(CODE.format(str(ran)))
    maps = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
    set_json(folder / "config.json", auto_map=maps)


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def input_(question: str = "") -> None:
        pytest.fail(f"asked: {question}")

    monkeypatch.setattr("builtins.input", input_)


def test_an_architecture_that_transformers_has_is_used_and_the_code_left_alone(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, tokens: Any
) -> None:
    before = whole_logits(folder, tokens)
    with_code(folder, tmp_path / "ran")
    with caplog.at_level("INFO", "dass"):
        assert type(load_config(folder)).__module__.startswith("transformers.")
    assert "which never runs" in caplog.text
    assert type(empty_model(folder, torch.float32)).__module__.startswith("transformers.")
    with torch.inference_mode():
        whole: Any = whole_model(folder, torch.float32, attn_implementation="sdpa")
        assert torch.equal(whole(input_ids=tokens).logits, before)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("upstream", ["", "somebody/repository--"])
def test_an_architecture_of_the_folders_own_is_refused(
    upstream: str, folder: Path, tmp_path: Path
) -> None:
    with_code(folder, tmp_path / "ran")
    maps = {"AutoConfig": f"{upstream}own.C", "AutoModelForCausalLM": f"{upstream}own.M"}
    set_json(folder / "config.json", model_type="own", auto_map=maps)
    for loading in (load_config, lambda f: empty_model(f, torch.float32),
                    lambda f: whole_model(f, torch.float32)):  # fmt: skip
        with pytest.raises(ModelError, match="needs code of its own") as error:
            loading(folder)
        line = str(error.value)
        assert "config.json" in line and "model_type 'own'" in line and "never runs" in line
        assert "trust_remote_code" not in line and "\n" not in line
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["OwnTokenizer", ..., None])
def test_a_tokenizer_of_the_folders_own_is_refused(
    name: Any, folder: Path, tmp_path: Path, tokenizer: None
) -> None:
    (folder / "own.py").write_text(CODE.format(str(tmp_path / "ran")))
    maps = {"AutoTokenizer": ["own.T", "own.T"]}
    set_json(folder / "tokenizer_config.json", tokenizer_class=name, auto_map=maps)
    with pytest.raises(DataError, match="needs code of its own") as error:
        load_tokenizer_of(folder)
    line = str(error.value)
    assert "tokenizer_config.json" in line and "trust_remote_code" not in line
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_that_transformers_has_is_used_and_the_code_left_alone(
    folder: Path, tmp_path: Path, tokenizer: None
) -> None:
    (folder / "own.py").write_text(CODE.format(str(tmp_path / "ran")))
    maps = {"AutoTokenizer": ["own.T", "own.T"]}
    set_json(folder / "tokenizer_config.json", auto_map=maps)
    assert load_tokenizer_of(folder)("ab")["input_ids"] == [2, 3]
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def tokenizer(folder: Path) -> None:
    """A tokenizer in the folder."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>").save_pretrained(folder)


# --- config.json that transformers refuses ----------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"model_type": "nonsense"}, "model_type 'nonsense', which transformers"),
        ({"model_type": "t5"}, "model_type 't5' is no causal language model"),
        ({"hidden_size": None}, "hidden_size: "),
        ({"num_attention_heads": 3, "num_key_value_heads": 3}, "hidden_size, num_attention_heads"),
        ({"hidden_act": "nonsense"}, "hidden_act: "),
        ({"hidden_act": 3}, "hidden_act: "),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps: "),
        ({"attention_dropout": "much"}, "attention_dropout: "),
        ({"pad_token_id": 500}, "pad_token_id, vocab_size: "),
        ({"dtype": "float9"}, "dtype: "),
        ({"auto_map": "own.C"}, "auto_map is no object"),
        ({"output_attentions": True, "attn_implementation": "sdpa"}, "output_attentions"),
        ({"rope_parameters": {"rope_type": "nonsense"}}, "rope_parameters: "),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: "),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "rope_parameters: "),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "see rope_parameters"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "nonsense"}}, "rope_scaling: "),
        ({"head_dim": 7}, "head_dim"),
        ({"intermediate_size": ...}, "(intermediate_size)"),
        ({"head_dim": 16}, "head_dim x num_attention_heads"),
        ({"attention_bias": True}, "(see attention_bias, mlp_bias)"),
    ],
)
def test_the_key_is_named_in_one_line(settings: dict[str, Any], key: str, folder: Path) -> None:
    set_json(folder / "config.json", **settings)
    with pytest.raises(ModelError) as error:
        StreamedModel(folder, torch.float32)
    line = str(error.value)
    assert key in line and "\n" not in line and str(folder) in line
    assert "config.json" in line or "holds" in line


@pytest.mark.parametrize(
    ("architecture", "settings", "key"),
    [
        ("gemma3", {"layer_types": ["full_attention"]}, "layer_types"),
        ("gemma3", {"layer_types": ["nonsense"] * 3}, "layer_types"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("mistral", {"sliding_window": "8"}, "sliding_window"),
    ],
)
def test_also_of_other_architectures(
    architecture: str, settings: dict[str, Any], key: str, tiny_model: TinyModel, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model(architecture), tmp_path / architecture))
    set_json(folder / "config.json", **settings)
    with pytest.raises(ModelError, match=rf"config\.json: .*{key}") as error:
        StreamedModel(folder, torch.float32)
    assert "\n" not in str(error.value)


def test_all_of_what_transformers_said_is_there(folder: Path) -> None:
    set_json(folder / "config.json", eos_token_id="x")
    with pytest.raises(ModelError) as error:
        load_config(folder)
    assert "Field 'eos_token_id' expected int, got str (value: 'x')" in str(error.value)
    assert str(error.value).endswith("correct it or fetch the model again")


def test_settings_that_transformers_takes_change_nothing_else(folder: Path, tokens: Any) -> None:
    """Among them one with which transformers' own model does not run."""
    for settings in ({"return_dict": False}, {"output_hidden_states": True}, {"use_cache": False}):
        set_json(folder / "config.json", **settings)
        StreamedModel(folder, torch.float32)


def test_a_model_that_would_fail_at_its_first_block_is_refused_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def fails(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("shapes\ncannot be multiplied")

    monkeypatch.setattr(transformers.models.llama.modeling_llama.LlamaAttention, "forward", fails)
    with pytest.raises(ModelError, match=r"does not run \(RuntimeError: shapes cannot be"):
        StreamedModel(folder, torch.float32)


def test_a_block_that_needs_numbers_is_tried_with_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some operations are not possible without storage: that is no reason to refuse a model."""
    import transformers

    layer = transformers.models.llama.modeling_llama.LlamaDecoderLayer
    forward = layer.forward

    def picky(self: Any, hidden: Any, *args: Any, **kwargs: Any) -> Any:
        assert not hidden.is_meta
        return forward(self, hidden, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", picky)
    StreamedModel(folder, torch.float32)


def test_out_of_memory_is_no_fault_of_config_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def fails(*_args: Any, **_kwargs: Any) -> None:
        raise torch.OutOfMemoryError("tried 3 GiB")

    monkeypatch.setattr(transformers.models.llama.modeling_llama.LlamaAttention, "forward", fails)
    with pytest.raises(torch.OutOfMemoryError):
        StreamedModel(folder, torch.float32)


def test_what_transformers_cannot_load_whole_is_one_line(folder: Path) -> None:
    set_json(folder / "config.json", hidden_act="nonsense")
    with pytest.raises(ModelError, match="transformers cannot load the model") as error:
        whole_model(folder, torch.float32)
    assert "\n" not in str(error.value)


def test_a_whole_model_is_checked_as_a_streamed_one_is(folder: Path) -> None:
    set_json(folder / "config.json", num_hidden_layers=2)
    with pytest.raises(DassError, match="num_hidden_layers is 2"):
        whole_model(folder, torch.float32)
    set_json(folder / "config.json", num_hidden_layers=3, attention_bias=True)
    with pytest.raises(DassError, match=r"bias is missing from the files or has no place"):
        whole_model(folder, torch.float32)
    (folder / SINGLE).unlink()
    with pytest.raises(DassError, match="no safetensors"):
        whole_model(folder, torch.float32)
