"""Saved tokens, and their hash against a known value."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dass.data.token_file import load_tokens, load_windows, save_tokens, token_hash, tokens_about
from dass.errors import DassError, DataError
from dass.runtime.files import seal
from tests.conftest import damaged


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


ABOUT = {"dataset": "c4", "seed": 3, "origin": None}


def write(path: Path) -> Path:
    save_tokens(path, {"windows": torch.tensor([[1, 2], [3, 70000]])}, ABOUT)
    return path


def test_tokens_say_how_they_came_to_be(tmp_path: Path) -> None:
    path = write(tmp_path / "t")
    hashes = {"windows": token_hash(load_tokens(path)["windows"])}
    assert tokens_about(path) == ABOUT | {"hashes": hashes}


def test_the_same_tokens_are_the_same_file(tmp_path: Path) -> None:
    """safetensors writes several entries of metadata in any order."""
    tensors = {name: torch.tensor([[1]]) for name in ("test", "validation")}
    for _ in range(9):
        save_tokens(tmp_path / "one", tensors, ABOUT)
        save_tokens(tmp_path / "two", tensors, ABOUT)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_damage_gives_another_token(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("tokens") / "t")
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        tokens, about = load_tokens(path), tokens_about(path)
    except DassError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    assert {name: tensor.tolist() for name, tensor in tokens.items()} == {
        "windows": [[1, 2], [3, 70000]]
    }
    assert {key: about[key] for key in ABOUT} == ABOUT


def described(path: Path) -> str:
    return seal(tokens_about(path))


OTHER = {
    "absent": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "text": lambda path: path.write_text("tokens"),
    "not ours": lambda path: save_file({"windows": torch.tensor([[1]])}, path),
    "not sealed": lambda path: save_file({"windows": torch.tensor([[1]])}, path, {"about": "{}"}),
    "without hashes": lambda path: save_file(
        {"windows": torch.tensor([[1]])}, path, {"about": seal({})}
    ),
    "a list": lambda path: save_file({}, path, {"about": seal([])}),
    "other tokens": lambda path: save_file(
        {"windows": torch.tensor([[1]], dtype=torch.int32)}, path, {"about": described(path)}
    ),
    "more": lambda path: save_file(
        {n: t.int() for n, t in load_tokens(path).items()} | {"x": torch.ones(1, 1)},
        path, {"about": described(path)},
    ),
    "floats": lambda path: save_file(
        {"windows": torch.tensor([[1.0, 2], [3, 70000]])}, path, {"about": described(path)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", OTHER)
def test_what_is_no_token_file_is_refused(tmp_path: Path, how: str) -> None:
    path = write(tmp_path / "t")
    OTHER[how](path)
    with pytest.raises(DataError, match=r"^[^\n]*/t: no usable token file [^\n]*run again$"):
        load_tokens(path)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.tensor([1, 2]), "holds no windows 'windows'"),
        (torch.zeros(0, 8, dtype=torch.int64), "holds no windows 'windows'"),
        (
            torch.tensor([[1, 100]]),
            "token 100, but the model's config.json has a vocab_size of 100",
        ),
        (torch.tensor([[1, 99]]), None),
    ],
)
def test_windows_are_windows_of_the_models_tokens(
    tmp_path: Path, tensor: torch.Tensor, said: str | None
) -> None:
    save_tokens(tmp_path / "t", {"windows": tensor})
    if said is None:
        assert load_windows(tmp_path / "t", "windows", 100).tolist() == tensor.tolist()
        return
    with pytest.raises(DataError, match=rf"^[^\n]*{re.escape(said)}[^\n]*$"):
        load_windows(tmp_path / "t", "windows", 100)
