"""The compact pruned file and the plain export: round trips, equal logits, damage."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from dass.data.model_folder import INDEX, SINGLE
from dass.errors import DassError, DataError, ModelError
from dass.models.streamed import StreamedModel
from dass.models.weights import Weights
from dass.pruning.export import export_checkpoint
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import FORMAT, PrunedFile, mask_hash, pack, save_pruned, unpack
from dass.runtime.files import seal
from tests.conftest import TinyModel, damaged, streamed_logits, whole_logits


@settings(deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 13), st.integers(1, 13)), elements=st.booleans()))
def test_unpacking_undoes_packing(array: np.ndarray[Any, Any]) -> None:
    mask = torch.from_numpy(array)
    packed = pack(mask)
    assert packed.dtype == torch.uint8
    assert packed.shape == (-(-mask.numel() // 8),)
    assert torch.equal(unpack(packed, tuple(mask.shape)), mask)


def test_the_first_entry_is_in_the_highest_bit() -> None:
    mask = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 1, 0, 1], [1, 1, 0, 0, 0]], dtype=torch.bool)
    assert pack(mask).tolist() == [0b10000001, 0b01110000]


def test_a_transposed_mask_is_packed_in_c_order() -> None:
    mask = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(unpack(pack(mask.t()), (9, 6)), mask.t())


def test_the_hash_is_of_names_and_bits_in_the_order_of_names() -> None:
    masks = {
        "b": torch.tensor([1, 2], dtype=torch.uint8),
        "a": torch.tensor([3], dtype=torch.uint8),
    }
    expected = hashlib.sha256(b"a\x03b\x01\x02").hexdigest()
    assert mask_hash(masks, masks.__getitem__) == expected
    assert mask_hash(reversed(masks), masks.__getitem__) == expected


# The pruned file -----------------------------------------------------------------------------

MASK = torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=torch.bool)
VALUES = torch.tensor([7.0, 8.0, 9.0])
FOUR = torch.tensor([7.0, 8.0, 9.0, 10.0])


def write(path: Path, values: dict[str, Tensor], settings: dict[str, Any] | None = None) -> Path:
    save_pruned(path, {"w": pack(MASK)}, values, {"w": (2, 3)}, settings or {})
    return path


def test_a_file_holds_masks_shapes_and_settings(tmp_path: Path) -> None:
    settings = {"function": "dass", "arguments": {"alpha": 0.5}}
    file = PrunedFile(write(tmp_path / "new" / "folder" / "p.safetensors", {}, settings))
    assert torch.equal(file.mask("w"), MASK)
    assert torch.equal(file.packed_mask("w"), pack(MASK))
    assert file.shapes == {"w": (2, 3)}
    assert file.settings == settings
    assert file.hash() == mask_hash(["w"], lambda _: pack(MASK))
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["p.safetensors"]


def test_a_file_without_values_masks(tmp_path: Path) -> None:
    dense = torch.arange(1.0, 7.0).reshape(2, 3)
    file = PrunedFile(write(tmp_path / "p", {}))
    assert file("w", dense).tolist() == [[1, 0, 3], [0, 0, 6]]
    assert dense.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert file("other", dense) is dense


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_with_values_replaces(tmp_path: Path, dtype: torch.dtype) -> None:
    file = PrunedFile(write(tmp_path / "p", {"w": VALUES}))
    pruned = file("w", torch.ones(2, 3, dtype=dtype))
    assert pruned.dtype == dtype
    assert pruned.tolist() == [[7, 0, 8], [0, 0, 9]]


@pytest.mark.parametrize("values", [{}, {"w": VALUES}])
def test_what_is_masked_is_zero_to_the_bit(tmp_path: Path, values: dict[str, Tensor]) -> None:
    """A product with the mask would make -0 of negative weights."""
    file = PrunedFile(write(tmp_path / "p", values))
    assert not file("w", -torch.ones(2, 3))[~MASK].signbit().any()


def test_another_shape_is_refused(tmp_path: Path) -> None:
    file = PrunedFile(write(tmp_path / "p", {}))
    with pytest.raises(
        ModelError, match=r"/p: made for w of shape \[2, 3\].* has \[3, 2\]"
    ) as error:
        file("w", torch.ones(3, 2))
    assert "\n" not in str(error.value)


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def rewrite(path: Path, change: Change, **metadata: str) -> None:
    """Change the tensors and what the file says of itself, sealed again."""
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    about = asdict(PrunedFile(path).about)
    change(tensors, about)
    save_file(tensors, path, {"format": FORMAT, "about": seal(about)} | metadata)


def about_becomes(**changed: object) -> Callable[[Path], object]:
    return lambda path: rewrite(path, lambda _, about: about.update(changed))


def tensors_become(**changed: Tensor) -> Callable[[Path], object]:
    named = {f"w.{name}": tensor for name, tensor in changed.items()}
    return lambda path: rewrite(path, lambda tensors, _: tensors.update(named))


def lacking(name: str) -> Callable[[Path], object]:
    return lambda path: rewrite(path, lambda tensors, _: tensors.pop(name))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "another format": lambda path: rewrite(path, lambda *_: None, format="dass-pruned-2"),
    "no metadata": lambda path: save_file(load_file(path), path),
    "no about": lambda path: save_file(load_file(path), path, {"format": FORMAT}),
    "about is no JSON": lambda path: rewrite(path, lambda *_: None, about="{"),
    "about is not sealed": lambda path: rewrite(path, lambda *_: None, about="{}"),
    "about is deep": lambda path: rewrite(path, lambda *_: None, about="[" * 100_000),
    "about lacks a key": lambda path: rewrite(path, lambda _, about: about.pop("settings")),
    "about has another key": about_becomes(more=1),
    "shapes are a list": about_becomes(shapes=[[2, 3]]),
    "a shape is a number": about_becomes(shapes={"w": 6}),
    "a shape is text": about_becomes(shapes={"w": "23"}),
    "a shape is of text": about_becomes(shapes={"w": ["2", "3"]}),
    "a shape is of fractions": about_becomes(shapes={"w": [2.0, 3.0]}),
    "a shape is too large": about_becomes(shapes={"w": [2, 5]}),
    "a shape is negative": about_becomes(shapes={"w": [-2, -3]}),
    "no shapes": about_becomes(shapes={}),
    "nothing at all": lambda path: rewrite(
        path, lambda t, a: (t.clear(), a.update(shapes={}, hashes={}))
    ),
    "settings are a list": about_becomes(settings=[1]),
    "hashes are a list": about_becomes(hashes=["w.mask", "w.values"]),
    "hashes are of something else": about_becomes(hashes={"x.mask": "abc"}),
    "mask absent": lacking("w.mask"),
    "mask of another dtype": tensors_become(mask=pack(MASK).to(torch.int8)),
    "mask of two dimensions": tensors_become(mask=pack(MASK)[None]),
    "mask has another bit": tensors_become(mask=pack(~MASK)),
    "values absent": lacking("w.values"),
    "values too few": tensors_become(values=VALUES[:2]),
    "values too many": tensors_become(values=FOUR),
    "values of whole numbers": tensors_become(values=VALUES.int()),
    "values of float64": tensors_become(values=VALUES.double()),
    "values of bytes": tensors_become(values=VALUES.to(torch.float8_e4m3fn)),
    "values of two dimensions": tensors_become(values=VALUES[None]),
    "other values": tensors_become(values=VALUES + 1),
    "another tensor": lambda path: rewrite(path, lambda t, _: t.update(x=VALUES)),
    "another mask": lambda path: rewrite(path, lambda t, _: t.update({"x.mask": pack(MASK)})),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_said_in_one_line(tmp_path: Path, how: str) -> None:
    path = write(tmp_path / "p.safetensors", {"w": VALUES})
    DAMAGE[how](path)
    with pytest.raises(DataError, match=r"p\.safetensors") as error:
        file = PrunedFile(path)
        file.hash()
        file("w", torch.ones(file.shapes["w"]))
    assert "\n" not in str(error.value)
    assert how == "absent" or "prune again" in str(error.value)


def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pruned") / "p", {"w": VALUES}, {"run": "a/b"})


def test_the_same_bytes_as_another_dtype_are_other_values(tmp_path: Path) -> None:
    path = write(tmp_path / "p", {"w": VALUES.half()})
    tensors_become(values=VALUES.half().view(torch.bfloat16))(path)
    with pytest.raises(DataError, match=r"damaged pruned file \(w\.values\); prune again$"):
        PrunedFile(path)("w", torch.ones(2, 3))


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_damage_of_any_kind_gives_another_weight(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Flipped bits, cut ends, anything in between: refused in one line, or without effect."""
    path = sound(tmp_path_factory)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        file = PrunedFile(path)
        hashed, pruned = file.hash(), file("w", torch.ones(2, 3))
    except DassError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    assert (file.shapes, file.settings) == ({"w": (2, 3)}, {"run": "a/b"})
    assert hashed == mask_hash(["w"], lambda _: pack(MASK))
    assert pruned.tolist() == [[7, 0, 8], [0, 0, 9]]


# The export ----------------------------------------------------------------------------------


def pruned_file(folder: Path, path: Path, tokens: Tensor, method: str, dtype: torch.dtype) -> Path:
    pruned = prune(
        StreamedModel(folder, dtype), tokens, make_method(method, {}), parse_pattern("2of4")
    )
    save_pruned(path, pruned.masks, pruned.values, pruned.shapes, {})
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["dass", "sparsegpt"])
@pytest.mark.parametrize(
    ("architecture", "sharded"),
    [("llama", False), ("gemma", False), ("phi3", False), ("llama", True), ("gemma", True)],
)
def test_the_export_is_a_plain_checkpoint_with_the_logits_of_the_overlay(
    architecture: str,
    sharded: bool,
    method: str,
    dtype: torch.dtype,
    tiny_model: TinyModel,
    tokens: Tensor,
    tmp_path: Path,
) -> None:
    folder = tiny_model(architecture, sharded=sharded)
    path = pruned_file(folder, tmp_path / "pruned.safetensors", tokens, method, dtype)
    export_checkpoint(folder, path, tmp_path / "out", dtype)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert {p.dtype for p in model.parameters()} == {dtype}
    with torch.inference_mode():
        exported = model(input_ids=tokens, use_cache=False).logits
    overlaid = streamed_logits(StreamedModel(folder, dtype, overlay=PrunedFile(path)), tokens)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(exported, overlaid, rtol=tolerance, atol=tolerance)
    assert not torch.allclose(exported, whole_logits(folder, tokens, dtype), atol=0.1)


def test_an_exported_folder_has_all_files_but_the_old_weights(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model("llama", sharded=True), tmp_path / "dense"))
    for name in ("tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja"):
        (folder / name).write_text(f"{{}}{name}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    (folder / "fetched.json").write_text('{"repository": "a/b", "commit": "c0ffee"}')
    path = pruned_file(folder, tmp_path / "pruned", tokens, "wanda", torch.bfloat16)
    export_checkpoint(folder, path, tmp_path / "out", torch.bfloat16)
    names = {p.name for p in folder.iterdir()} | {"dass.json"}
    names -= {"pytorch_model.bin", "modeling_own.py", "fetched.json"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    assert (tmp_path / "out" / "merges.txt").read_text() == "{}merges.txt"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and "torch_dtype" not in config
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    weights = Weights(tmp_path / "out")
    held = {name: tensor.file.name for name, tensor in weights.stored.items()}
    assert held == {name: tensor.file.name for name, tensor in Weights(folder).stored.items()}
    size = sum(tensor.nbytes for tensor in weights.read(held).values())
    assert index["metadata"]["total_size"] == size
    assert set(json.loads((folder / "config.json").read_text())) <= {*config, "torch_dtype"}


def test_an_old_config_that_says_torch_dtype(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    """transformers 4 wrote the key so; both keys side by side would contradict each other."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "dense"))
    config = json.loads((folder / "config.json").read_text())
    del config["dtype"]
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
    path = pruned_file(folder, tmp_path / "pruned", tokens, "magnitude", torch.float32)
    export_checkpoint(folder, path, tmp_path / "out", torch.float32)
    exported = json.loads((tmp_path / "out" / "config.json").read_text())
    assert exported["dtype"] == "float32" and "torch_dtype" not in exported
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_tensors_of_integers_stay_integers(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "dense"))
    path = pruned_file(folder, tmp_path / "pruned", tokens, "magnitude", torch.bfloat16)
    counter = torch.tensor([123456789])
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"  # ignored, and copied as it is
    save_file(load_file(folder / SINGLE) | {name: counter}, folder / SINGLE)
    export_checkpoint(folder, path, tmp_path / "out", torch.bfloat16)
    exported = load_file(tmp_path / "out" / SINGLE)[name]
    assert exported.dtype == torch.int64
    assert exported.tolist() == [123456789]  # bfloat16 would make 123207680 of it


def test_a_pruned_file_of_another_model_exports_nothing(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    path = pruned_file(tiny_model("phi3"), tmp_path / "pruned", tokens, "wanda", torch.float32)
    with pytest.raises(ModelError, match=r"prunes model\.layers\.0\.mlp\.gate_up_proj") as error:
        export_checkpoint(tiny_model("llama"), path, tmp_path / "out", torch.float32)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_export_of_shards_in_subfolders(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model("llama", sharded=True), tmp_path / "dense"))
    index = json.loads((folder / INDEX).read_text())
    (folder / "shards").mkdir()
    for name in set(index["weight_map"].values()):
        (folder / name).rename(folder / "shards" / name)
    index["weight_map"] = {n: f"shards/{file}" for n, file in index["weight_map"].items()}
    (folder / INDEX).write_text(json.dumps(index))
    path = pruned_file(folder, tmp_path / "pruned", tokens, "wanda", torch.float32)
    export_checkpoint(folder, path, tmp_path / "out", torch.float32)
    exported, overlay = Weights(tmp_path / "out"), PrunedFile(path)
    files = {name: t.file.relative_to(folder) for name, t in Weights(folder).stored.items()}
    assert {n: t.file.relative_to(tmp_path / "out") for n, t in exported.stored.items()} == files
    assert {file.parent.name for file in files.values()} == {"shards"}
    for name, tensor in exported.read(files).items():
        assert torch.equal(tensor, overlay(name, Weights(folder).read([name])[name]))


def test_a_failed_export_leaves_the_earlier_one(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model("llama", sharded=True), tmp_path / "dense"))
    path = pruned_file(folder, tmp_path / "pruned", tokens, "wanda", torch.float32)
    export_checkpoint(folder, path, tmp_path / "out", torch.float32)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    last = Weights(folder).files[-1]
    tensors = load_file(last)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, last)
    with pytest.raises(DassError, match="NaN"):
        export_checkpoint(folder, path, tmp_path / "out", torch.float32)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"dense", "pruned", "out"}
