"""Saved tokens, and their hash against a known value."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import torch

from dass.data.token_file import load_tokens, save_tokens, token_hash


def test_the_hash_is_of_little_endian_int64_in_c_order() -> None:
    tokens = torch.tensor([[1, 2], [3, 70000]])
    expected = hashlib.sha256(struct.pack("<4q", 1, 2, 3, 70000)).hexdigest()
    assert token_hash(tokens) == token_hash(tokens.int()) == expected
    assert token_hash(tokens.t().contiguous().t()) == expected
    assert token_hash(tokens.t()) != expected
    zero = "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
    assert token_hash(torch.tensor([0])) == zero  # sha256 of eight zero bytes


def test_tokens_are_saved_and_loaded(tmp_path: Path) -> None:
    tensors = {"windows": torch.tensor([[1, 255999], [0, 3]]), "more": torch.tensor([7])}
    save_tokens(tmp_path / "deep" / "tokens.safetensors", tensors)
    loaded = load_tokens(tmp_path / "deep" / "tokens.safetensors")
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == torch.int64
        assert torch.equal(loaded[name], tensor)


# The tokenizer -------------------------------------------------------------------------------
