"""Damaged model folders: one line of ours, or what transformers makes of them too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dass.data.model_folder import SINGLE
from dass.data.tokenizer import departures, encoder, load_tokenizer
from dass.errors import DassError
from dass.models.numerics import max_abs
from dass.models.streamed import StreamedModel, check_finite
from tests.conftest import TinyModel, streamed_logits, whole_logits

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

REMOVED = "removed"

VALUES = st.one_of(
    st.just(REMOVED),
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([10**6, 10**12, -1.0, 0.0, 0.5, 1e30, float("nan"), float("inf")]),
    st.sampled_from(["", "x", "silu", "llama", "float16", "full_attention", "default"]),
    st.lists(st.one_of(st.integers(-1, 3), st.text(max_size=2)), max_size=3),
    st.dictionaries(
        st.sampled_from(["rope_type", "type", "factor", "rope_theta", "bits", "", "AutoConfig"]),
        st.one_of(st.integers(-1, 9), st.sampled_from(["yarn", "linear", "dynamic", "x", 0.5])),
        max_size=3,
    ),
)  # fmt: skip

UNUSUAL = ["rope_scaling", "quantization_config", "auto_map", "text_config", "attn_implementation"]


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of the tiny Llama with a tokenizer."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {chr(i + 94): i for i in range(3, 28)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return folder


def with_value(file: Path, original: str, key: str, value: Any) -> None:
    content = json.loads(original) | {key: value}
    if value == REMOVED:
        del content[key]
    file.write_text(json.dumps(content))


def right_or_refused(folder: Path, tokens: Tensor) -> bool:
    """Whether the folder gives transformers' logits; False: it is refused, in one line."""
    try:
        logits = streamed_logits(StreamedModel(folder, torch.float32), tokens)
        check_finite([max_abs(logits)], str(folder))
    except DassError as error:
        assert "\n" not in str(error)
        assert folder.name in str(error)
        return False
    torch.testing.assert_close(logits, whole_logits(folder, tokens), rtol=1e-4, atol=1e-4)
    return True


@given(data=st.data())
@FUZZ
def test_config_json(data: st.DataObject, folder: Path, tokens: Tensor) -> None:
    file = folder / "config.json"
    original = file.with_suffix(".original")
    if not original.exists():
        shutil.copyfile(file, original)
    text = original.read_text()
    key = data.draw(st.sampled_from([*json.loads(text), *UNUSUAL]))
    with_value(file, text, key, data.draw(VALUES))
    right_or_refused(folder, tokens[:2])


@given(data=st.data())
@FUZZ
def test_headers(data: st.DataObject, folder: Path, tokens: Tensor) -> None:
    """Bytes of a header changed, the file cut or continued; what its tensors hold stays."""
    original = folder / "original"
    if not original.exists():
        shutil.copyfile(folder / SINGLE, original)
    content = bytearray(original.read_bytes())
    size = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, size - 1))
        content[place] = data.draw(
            st.one_of(st.integers(0, 255), st.sampled_from(b'0123456789"FI'))
        )
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content) + 9)))
    (folder / SINGLE).write_bytes(bytes(content[:end]) + bytes(max(end - len(content), 0)))
    right_or_refused(folder, tokens[:2])


@given(data=st.data(), file=st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
@FUZZ
def test_tokenizers(data: st.DataObject, file: str, folder: Path) -> None:
    """A value changed, or a byte."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (original := folder / f"{name}.original").exists():
            shutil.copyfile(folder / name, original)
        shutil.copyfile(original, folder / name)
    text = (folder / file).read_text()
    if data.draw(st.booleans()):
        keys = [*json.loads(text), "add_eos_token", "auto_map", "tokenizer_class"]
        with_value(folder / file, text, data.draw(st.sampled_from(keys)), data.draw(VALUES))
    else:
        content = bytearray(text.encode())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
        (folder / file).write_bytes(bytes(content))
    try:
        tokenizer = load_tokenizer(folder)
        found = encoder(tokenizer)("hello </s>zz")
    except DassError as error:
        assert "\n" not in str(error)
        assert folder.name in str(error)
        return
    assert all(0 <= token < 128 for token in found)
    said = departures(tokenizer)
    as_file = "tokenizer_class_left" in said
    plain = (PreTrainedTokenizerFast if as_file else AutoTokenizer).from_pretrained(folder)
    plain.model_max_length = 99
    theirs = plain("hello </s>zz")["input_ids"]
    assert found == theirs[: len(found)]
    assert ("tokens_taken_off" in said) == (len(found) < len(theirs))
