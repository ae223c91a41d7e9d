"""The weights of a folder are those that transformers takes, or the folder is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dass.data.model_folder import INDEX, SINGLE, check_folder, files_exported, files_read
from dass.errors import ModelError
from dass.models.streamed import StreamedModel
from dass.pruning.export import export_checkpoint
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import PrunedFile, save_pruned
from tests.conftest import COMMON, TinyModel, streamed_logits, whole_logits

Tensors = dict[str, Tensor]
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
GATE = "model.layers.1.mlp.gate_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def save(tensors: Tensors, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"}
    )


def changed(tensors: Tensors) -> Tensors:
    """The same tensors but for one, which every logit depends on."""
    return tensors | {GATE: tensors[GATE].flip(0)}


def halves(tensors: Tensors) -> tuple[Tensors, Tensors]:
    names = sorted(tensors)
    return {n: tensors[n] for n in names[::2]}, {n: tensors[n] for n in names[1::2]}


def shard(folder: Path, tensors: Tensors, names: tuple[str, str] = SHARDS) -> dict[str, str]:
    """Write two shards and their index; its weight_map."""
    weight_map = {}
    for file, part in zip(names, halves(tensors), strict=True):
        save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: object, **more: object) -> None:
    content = {"metadata": {}, "weight_map": weight_map} | more
    (folder / INDEX).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def set_config(folder: Path, **settings: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


@pytest.fixture
def empty(tiny_model: TinyModel, tmp_path: Path) -> Callable[[str], tuple[Path, Tensors]]:
    """A copy of a tiny model's folder without its weights, and the weights."""

    def copy(architecture: str) -> tuple[Path, Tensors]:
        folder = Path(shutil.copytree(tiny_model(architecture), tmp_path / architecture))
        tensors = load_file(folder / SINGLE)
        (folder / SINGLE).unlink()
        return folder, tensors

    return copy


# --- Where the weights lie --------------------------------------------------------------------


def index_beside_a_newer_single_file(folder: Path, tensors: Tensors) -> None:
    shard(folder, tensors)
    save(changed(tensors), folder / SINGLE)


def index_that_is_broken_beside_a_single_file(folder: Path, tensors: Tensors) -> None:
    (folder / INDEX).write_text("{")
    save(tensors, folder / SINGLE)


def shards_without_an_index_beside_a_single_file(folder: Path, tensors: Tensors) -> None:
    shard(folder, changed(tensors))
    (folder / INDEX).unlink()
    save(tensors, folder / SINGLE)


def variants_beside_a_single_file(folder: Path, tensors: Tensors) -> None:
    save(tensors, folder / SINGLE)
    save(changed(tensors), folder / "model.fp16.safetensors")
    save(changed(tensors), folder / "consolidated.safetensors")


def shards_in_a_folder(folder: Path, tensors: Tensors) -> None:
    shard(folder, tensors, ("parts/a.safetensors", "parts/b.safetensors"))


def a_tensor_in_two_shards(folder: Path, tensors: Tensors) -> None:
    weight_map = shard(folder, tensors)
    for name, file in zip(SHARDS, halves(tensors), strict=True):
        save(file | {GATE: tensors[GATE] if name == SHARDS[0] else tensors[GATE].flip(0)},
             folder / name)  # fmt: skip
    write_index(folder, weight_map | {GATE: SHARDS[0]})  # transformers reads both, in order


def a_tensor_that_the_index_does_not_mention(folder: Path, tensors: Tensors) -> None:
    weight_map = shard(folder, tensors)
    del weight_map[GATE]
    write_index(folder, weight_map)


def a_tensor_in_another_shard_than_the_index_says(folder: Path, tensors: Tensors) -> None:
    weight_map = shard(folder, tensors)
    other = {SHARDS[0]: SHARDS[1], SHARDS[1]: SHARDS[0]}
    write_index(folder, weight_map | {GATE: other[weight_map[GATE]]})


def several_dtypes(folder: Path, tensors: Tensors) -> None:
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    save({n: t.to(dtypes[i % 4]) for i, (n, t) in enumerate(tensors.items())}, folder / SINGLE)


def rotary_frequencies_of_an_older_version(folder: Path, tensors: Tensors) -> None:
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(3)}
    save(tensors | old, folder / SINGLE)


@pytest.mark.parametrize(
    "arrange",
    [
        index_beside_a_newer_single_file,
        index_that_is_broken_beside_a_single_file,
        shards_without_an_index_beside_a_single_file,
        variants_beside_a_single_file,
        shard,
        shards_in_a_folder,
        a_tensor_in_two_shards,
        a_tensor_that_the_index_does_not_mention,
        a_tensor_in_another_shard_than_the_index_says,
        several_dtypes,
        rotary_frequencies_of_an_older_version,
    ],
)
def test_the_same_weights_as_transformers_reads(
    arrange: Callable[[Path, Tensors], object],
    empty: Callable[[str], tuple[Path, Tensors]],
    tokens: Tensor,
) -> None:
    folder, tensors = empty("llama")
    arrange(folder, tensors)
    streamed = streamed_logits(StreamedModel(folder, torch.float32), tokens)
    torch.testing.assert_close(streamed, whole_logits(folder, tokens), rtol=1e-5, atol=1e-5)


def test_the_arrangements_differ_where_they_should(
    empty: Callable[[str], tuple[Path, Tensors]], tokens: Tensor
) -> None:
    """What is flipped above matters: else the comparison would hold for either choice."""
    folder, tensors = empty("llama")
    save(tensors, folder / SINGLE)
    before = streamed_logits(StreamedModel(folder, torch.float32), tokens)
    save(changed(tensors), folder / SINGLE)
    assert not torch.allclose(
        before, streamed_logits(StreamedModel(folder, torch.float32), tokens), atol=1e-2
    )


def variant_only(folder: Path, tensors: Tensors) -> None:
    save(tensors, folder / "model.fp16.safetensors")


def shards_without_an_index(folder: Path, tensors: Tensors) -> None:
    shard(folder, tensors)
    (folder / INDEX).unlink()


def in_a_folder_only(folder: Path, tensors: Tensors) -> None:
    save(tensors, folder / "sub" / SINGLE)


def nothing(_folder: Path, _tensors: Tensors) -> None:
    pass


def an_index_without_metadata(folder: Path, tensors: Tensors) -> None:
    write_index(folder, shard(folder, tensors), metadata=None)


def an_empty_map(folder: Path, tensors: Tensors) -> None:
    shard(folder, tensors)
    write_index(folder, {})


def a_map_of_numbers(folder: Path, tensors: Tensors) -> None:
    write_index(folder, dict.fromkeys(shard(folder, tensors), 3))


def a_shard_that_is_missing(folder: Path, tensors: Tensors) -> None:
    shard(folder, tensors)
    (folder / SHARDS[1]).unlink()


def another_shape(folder: Path, tensors: Tensors) -> None:
    save(tensors | {GATE: tensors[GATE][:32]}, folder / SINGLE)


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (variant_only, "only model.fp16.safetensors"),
        (shards_without_an_index, f"only {SHARDS[0]}"),
        (in_a_folder_only, "no safetensors"),
        (nothing, "no safetensors"),
        (an_index_without_metadata, "metadata"),
        (an_empty_map, "weight_map"),
        (a_map_of_numbers, "names 3"),
        (a_shard_that_is_missing, f"shard {SHARDS[1]} is missing"),
        (another_shape, r"\[32, 32\].* makes it \[64, 32\] \(intermediate_size\)"),
    ],
)
def test_what_transformers_refuses_is_refused(
    arrange: Callable[[Path, Tensors], object],
    said: str,
    empty: Callable[[str], tuple[Path, Tensors]],
    tokens: Tensor,
) -> None:
    folder, tensors = empty("llama")
    arrange(folder, tensors)
    with pytest.raises(ModelError, match=said) as error:
        StreamedModel(folder, torch.float32)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    with pytest.raises(Exception):  # noqa: B017 (whatever transformers raises)
        whole_logits(folder, tokens)


@pytest.mark.parametrize("place", ["..", "absolute"])
def test_an_index_cannot_name_files_outside_its_folder(
    place: str, empty: Callable[[str], tuple[Path, Tensors]]
) -> None:
    folder, tensors = empty("llama")
    (folder.parent / "there").mkdir()
    save(tensors, folder.parent / "there" / SINGLE)
    outside = Path(place) if place == ".." else folder.parent
    write_index(folder, dict.fromkeys(tensors, str(outside / "there" / SINGLE)))
    with pytest.raises(ModelError, match="no safetensors file of its folder"):
        check_folder(folder)


def test_a_distributed_checkpoint_which_transformers_would_take_instead_is_refused(
    empty: Callable[[str], tuple[Path, Tensors]],
) -> None:
    folder, tensors = empty("llama")
    save(tensors, folder / SINGLE)
    save(changed(tensors), folder / "shard-00001-model-00001-of-00001.safetensors")
    with pytest.raises(ModelError, match="distributed checkpoint"):
        check_folder(folder)


def test_pickles_are_not_loaded(empty: Callable[[str], tuple[Path, Tensors]]) -> None:
    folder, tensors = empty("llama")
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin.*never loaded"):
        check_folder(folder)


def test_an_adapter_is_refused(empty: Callable[[str], tuple[Path, Tensors]]) -> None:
    folder, tensors = empty("llama")
    save(tensors, folder / SINGLE)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter.*merge"):
        check_folder(folder)


# --- What the tensors are called --------------------------------------------------------------


def head_only(tensors: Tensors) -> Tensors:
    return {HEAD if name == EMBEDDING else name: t for name, t in tensors.items()}


def both_equal(tensors: Tensors) -> Tensors:
    return tensors | {HEAD: tensors[EMBEDDING].clone()}


def both_different(tensors: Tensors) -> Tensors:
    return tensors | {HEAD: tensors[EMBEDDING].flip(0)}


def base_model(tensors: Tensors) -> Tensors:
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def base_model_with_head(tensors: Tensors) -> Tensors:
    return base_model(head_only(tensors))


@pytest.mark.parametrize(
    "rename", [head_only, both_equal, both_different, base_model, base_model_with_head]
)
@pytest.mark.parametrize("architecture", ["gemma", "cohere", "gemma3"])
def test_tied_embeddings_and_missing_prefixes_as_transformers_reads_them(
    rename: Callable[[Tensors], Tensors],
    architecture: str,
    empty: Callable[[str], tuple[Path, Tensors]],
    tokens: Tensor,
) -> None:
    folder, tensors = empty(architecture)
    save(rename(tensors), folder / SINGLE)
    streamed = streamed_logits(StreamedModel(folder, torch.float32), tokens)
    torch.testing.assert_close(streamed, whole_logits(folder, tokens), rtol=1e-5, atol=1e-5)


def test_untied_by_config_json_the_missing_head_is_named(
    empty: Callable[[str], tuple[Path, Tensors]],
) -> None:
    """transformers would draw it at random, with a warning."""
    folder, tensors = empty("gemma")
    save(tensors, folder / SINGLE)
    set_config(folder, tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"holds lm_head\.weight.*tie_word_embeddings"):
        StreamedModel(folder, torch.float32)


def test_parts_of_a_larger_model_are_renamed_and_ignored_as_transformers_does(
    empty: Callable[[str], tuple[Path, Tensors]], tokens: Tensor
) -> None:
    """Qwen 3.5 is published with its vision tower and its heads for several tokens."""
    folder, tensors = empty("qwen3_5_text")
    published = {n.replace("model.", "model.language_model.", 1): t for n, t in tensors.items()}
    others = {"mtp.fc.weight": torch.ones(2), "model.visual.blocks.7.norm.weight": torch.ones(2)}
    save(published | others, folder / SINGLE)
    streamed = streamed_logits(StreamedModel(folder, torch.float32), tokens)
    torch.testing.assert_close(streamed, whole_logits(folder, tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "extra",
    [
        "model.layers.1.mlp.gate_proj.bias",
        "model.layers.1.mlp.gate_proj.lora_A.weight",
        "score.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "mtp.fc.weight",
    ],
)
def test_a_tensor_without_a_place_is_named(
    extra: str, empty: Callable[[str], tuple[Path, Tensors]]
) -> None:
    folder, tensors = empty("llama")
    save(tensors | {extra: torch.ones(64)}, folder / SINGLE)
    with pytest.raises(ModelError, match=rf"{extra} has no place in the LlamaForCausalLM") as error:
        StreamedModel(folder, torch.float32)
    assert "\n" not in str(error.value)
    assert ("(see attention_bias, mlp_bias)" in str(error.value)) == extra.endswith("bias")


def test_weights_that_transformers_would_convert_are_refused(tmp_path: Path) -> None:
    """OLMo hybrid joins convolutions that are stored one by one."""
    import transformers

    layers = ["linear_attention", "full_attention", "linear_attention"]
    heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
    sizes = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "head_dim": 8}
    config = transformers.OlmoHybridConfig(**COMMON, layer_types=layers, **heads, **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"conv1d\.weight is stored in another form") as error:
        StreamedModel(tmp_path, torch.float32)
    assert "\n" not in str(error.value)


def test_a_tensor_under_two_names_is_refused(
    empty: Callable[[str], tuple[Path, Tensors]],
) -> None:
    folder, tensors = empty("llama")
    save(tensors | {GATE.removeprefix("model."): tensors[GATE].flip(0)}, folder / SINGLE)
    with pytest.raises(ModelError, match=f"{GATE} twice"):
        StreamedModel(folder, torch.float32)


@pytest.mark.parametrize("count", [1, 2, 4, 50, 10**12])
def test_another_number_of_blocks_is_refused_with_key_and_tensor(
    count: int, empty: Callable[[str], tuple[Path, Tensors]]
) -> None:
    folder, tensors = empty("llama")
    save(tensors, folder / SINGLE)
    set_config(folder, num_hidden_layers=count)
    said = rf"hold model\.layers\.{count}\." if count < 3 else "hold nothing of block 3"
    with pytest.raises(ModelError, match=f"num_hidden_layers is {count}, .*{said}"):
        check_folder(folder)


def test_a_block_that_lacks_from_the_middle_is_named(
    empty: Callable[[str], tuple[Path, Tensors]],
) -> None:
    folder, tensors = empty("llama")
    save({n: t for n, t in tensors.items() if ".layers.1." not in n}, folder / SINGLE)
    with pytest.raises(ModelError, match=r"hold nothing of block 1 "):
        check_folder(folder)


def test_a_model_that_keeps_some_weights_in_float32_is_refused_in_half_precision(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    kept = {"mlp.down_proj"}
    monkeypatch.setattr(transformers.LlamaForCausalLM, "_keep_in_fp32_modules_strict", kept)
    StreamedModel(tiny_model("llama"), torch.float32)
    with pytest.raises(ModelError, match=r"keeps .*down_proj.*dtype: float32"):
        StreamedModel(tiny_model("llama"), torch.bfloat16)


# --- What is read -----------------------------------------------------------------------------


def test_the_files_that_results_may_depend_on(
    empty: Callable[[str], tuple[Path, Tensors]],
) -> None:
    folder, tensors = empty("llama")
    shards_in_a_folder(folder, tensors)
    small = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    small |= {"tokenizer.model", "merges.txt", "vocab.json", "generation_config.json", INDEX}
    for name in small - {"config.json", INDEX}:
        (folder / name).write_text("{}")
    for name in ("README.md", "pytorch_model.bin", "modeling_x.py", "model.fp16.safetensors"):
        (folder / name).write_text("not read")
    weights = {"parts/a.safetensors", "parts/b.safetensors"}
    exported = {str(file.relative_to(folder)) for file in files_exported(folder)}
    assert exported == small | weights
    read = {str(file.relative_to(folder)) for file in files_read(folder)}
    assert read == exported - {"generation_config.json"}
    save(tensors, folder / SINGLE)
    now = {str(file.relative_to(folder)) for file in files_read(folder)}
    assert now == (read - weights - {INDEX}) | {SINGLE}  # an index that nobody reads


# --- Exports ----------------------------------------------------------------------------------


def a_base_model(folder: Path, tensors: Tensors) -> None:
    save(base_model(tensors), folder / SINGLE)


@pytest.mark.parametrize(
    ("architecture", "arrange"),
    [
        ("llama", index_beside_a_newer_single_file),
        ("llama", shards_in_a_folder),
        ("llama", a_tensor_in_two_shards),
        ("llama", rotary_frequencies_of_an_older_version),
        ("gemma", a_base_model),
    ],
)
def test_an_export_is_what_was_pruned(
    architecture: str,
    arrange: Callable[[Path, Tensors], object],
    empty: Callable[[str], tuple[Path, Tensors]],
    tokens: Tensor,
    tmp_path: Path,
) -> None:
    folder, tensors = empty(architecture)
    arrange(folder, tensors)
    model = StreamedModel(folder, torch.float32)
    run = prune(model, tokens, make_method("magnitude", {}), parse_pattern("2of4"))
    save_pruned(tmp_path / "pruned", run.masks, run.values, run.shapes, {})
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", torch.float32)
    sparse = StreamedModel(folder, torch.float32, overlay=PrunedFile(tmp_path / "pruned"))
    exported = whole_logits(tmp_path / "out", tokens)
    torch.testing.assert_close(streamed_logits(sparse, tokens), exported, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(exported, whole_logits(folder, tokens), atol=0.1)
    assert (folder / SINGLE).exists() != (tmp_path / "out" / INDEX).exists()
