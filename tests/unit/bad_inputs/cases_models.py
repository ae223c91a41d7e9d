"""Model folders and tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.unit.bad_inputs.case import Case
from tests.unit.bad_inputs.good import (
    CONFIG,
    DENSE_RUN,
    DOCUMENTS,
    INDEX,
    MODEL,
    TOKENIZER,
    WEIGHTS,
    Change,
    cut,
    edit,
    header,
    put,
    remove,
    tensors,
    together,
    write,
)

GATE = "model.layers.1.mlp.gate_proj.weight"
NORM = "model.norm.weight"


def settings(what: str, key: str, value: Any, says: str) -> Case:
    """config.json in which one key has another value."""
    return model(what, put(CONFIG, key, value), f"{CONFIG}: {says}")


def model(what: str, spoil: Change, says: str, **changes: Any) -> Case:
    """A folder that the dense model is to be run from."""
    return Case(what, spoil, says, changes=DENSE_RUN | changes)


def tokenizer(
    what: str, spoil: Change, says: str, stage: str = "calibration_tokens", **changes: Any
) -> Case:
    """A folder whose tokenizer is to be used."""
    return Case(what, spoil, says, stage, changes)


def shards(**weight_map: str) -> Change:
    """In place of the one file an index that says where tensors are."""
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    return together(remove(WEIGHTS), write(INDEX, index))


def swap(name: str, change: Any) -> Change:
    """Another tensor in the place of one."""

    def swapped(held: dict[str, Any]) -> None:
        held[name] = change(held[name]).contiguous()

    return tensors(swapped)


def stored_as(name: str, dtype: str) -> Change:
    """Another dtype in the header."""
    return header(lambda h: h[name].update(dtype=dtype))


def offsets(name: str, start: int, stop: int) -> Change:
    """Other offsets in the header."""

    def moved(found: dict[str, Any]) -> None:
        begin, end = found[name]["data_offsets"]
        found[name]["data_offsets"] = [begin + start, end + stop]

    return header(moved)


def loop() -> None:
    """The weights are a link to themselves."""
    Path(WEIGHTS).unlink()
    Path(WEIGHTS).symlink_to("model.safetensors")


def nan(weight: Any) -> Any:
    weight = weight.clone()
    weight.view(-1)[5] = float("nan")
    return weight


def sized_index(content: bytes) -> bytes:
    """A header that says it is longer than the file."""
    return (10**15).to_bytes(8, "little") + content[8:]


FOLDER = [
    model("no folder", lambda: None, "nowhere: no such model folder; check the model's `path` in the config", folder="nowhere"),
    model("a file in place of the folder", lambda: None, f"{CONFIG}: no such model folder; check …", folder=CONFIG),
    model("no config.json", remove(CONFIG), f"{MODEL}: has no config.json; give a Hugging Face model folder"),
    model("config.json is empty", write(CONFIG, ""), f"{CONFIG}: not valid JSON (…); fetch the model again"),
    model("config.json is cut off", cut(CONFIG, 20), f"{CONFIG}: not valid JSON (…); fetch the model again"),
    model("config.json is a list", write(CONFIG, "[]"), f"{CONFIG}: holds a list, not an object; fetch the model again"),
    model("config.json is UTF-16", edit(CONFIG, lambda b: b.decode().encode("utf-16")), f"{CONFIG}: not valid JSON (…); fetch the model again"),
    model("config.json begins with a byte order mark", edit(CONFIG, lambda b: b"\xef\xbb\xbf" + b), f"{CONFIG}: not valid JSON (…); …"),
    model("config.json is a folder", together(remove(CONFIG), lambda: Path(CONFIG).mkdir()), f"{MODEL}: has no config.json; give a Hugging Face model folder"),
    model("config.json is nested too deeply", write(CONFIG, "[" * 100_000), f"{CONFIG}: not valid JSON (…); fetch the model again"),
    settings("no model_type", "model_type", ..., "no model_type; give a Hugging Face model folder"),
    settings("an unknown model_type", "model_type", "lama", "model_type 'lama', which transformers … does not have; give a model that it has"),
    settings("a model_type that is no language model", "model_type", "vit", "model_type 'vit' is no causal language model; give one"),
    settings("a size is NaN", "hidden_size", float("nan"), "hidden_size is nan, not a number; correct it or fetch the model again"),
    settings("a size is negative", "intermediate_size", -64, "intermediate_size is -64, not a whole number above 0; …"),
    settings("a size is text", "num_hidden_layers", "3", "num_hidden_layers is '3', not a whole number above 0; …"),
    settings("no blocks", "num_hidden_layers", 0, "num_hidden_layers is 0, not a whole number above 0; …"),
    settings("too many blocks", "num_hidden_layers", 4, "num_hidden_layers is 4, but the safetensors files hold nothing of block 3 (counted from 0); correct it or fetch the model again"),
    settings("too few blocks", "num_hidden_layers", 2, "num_hidden_layers is 2, but the safetensors files hold model.layers.2.…; …"),
    settings("a huge number of blocks", "num_hidden_layers", 10**12, "num_hidden_layers is 1000000000000, but …; …"),
    settings("a huge vocabulary", "vocab_size", 10**12, "vocab_size and hidden_size are 1000000000000 and 32, but …; correct them or fetch the model again"),
    settings("another hidden size", "hidden_size", 48, "vocab_size and hidden_size are 128 and 48, but model.embed_tokens.weight in model.safetensors is [128, 32]; …"),
    model("a mixture of experts of another form", put(CONFIG, "model_type", "gpt_oss"), "mine, block 0: a mixture of experts whose mlp.experts.gate_up_proj is not understood (only gate, up and down without biases, neither transposed nor interleaved, are); choose another model"),
    model("another intermediate size", put(CONFIG, "intermediate_size", 96), f"{WEIGHTS}: model.layers.0.mlp.gate_proj.weight is [64, 32], but {CONFIG} makes it [96, 32] (intermediate_size); …"),
    settings("heads that cannot be shared", "num_key_value_heads", 3, "num_attention_heads (4) is no multiple of num_key_value_heads (3); …"),
    settings("an unknown activation", "hidden_act", "sillu", "hidden_act: transformers cannot build the model (KeyError: …); …"),
    settings("rope of an unknown kind", "rope_parameters", {"rope_type": "x"}, "…rope_parameters…"),
    settings("an epsilon that is text", "rms_norm_eps", "1e-6", "…rms_norm_eps…"),
    settings("an epsilon that is NaN", "rms_norm_eps", float("nan"), "rms_norm_eps is nan, not a number; correct it or fetch the model again"),
    settings("a quantised model, by its config", "quantization_config", {"quant_method": "gptq", "bits": 4}, "quantization_config (gptq): a quantised checkpoint, which cannot be pruned; give the unquantised model"),
    settings("attention that needs a package", "attn_implementation", "flash_attention_2", "attn_implementation is 'flash_attention_2'; it can be eager or sdpa: correct or remove the key"),
    settings("code of its own", "auto_map", ["x"], "auto_map is no object; remove the key"),
    model("an adapter", write(f"{MODEL}/adapter_config.json", "{}"), f"{MODEL}: holds an adapter (adapter_config.json); merge it into its base model (…) and give the folder of the merged model"),
    settings("a tied head that the config unties", "tie_word_embeddings", "yes", "…tie_word_embeddings…"),
]  # fmt: skip

STORED = [
    model("no weights", remove(WEIGHTS), f"{MODEL}: no safetensors (model.safetensors or model.safetensors.index.json); pickled weights are never loaded: convert the model with save_pretrained()"),
    model("pickled weights", together(remove(WEIGHTS), write(f"{MODEL}/pytorch_model.bin", b"\x80")), f"{MODEL}: no safetensors (…, only pytorch_model.bin); pickled weights are never loaded: …"),
    model("an empty file", write(WEIGHTS, b""), f"{WEIGHTS}: truncated or damaged safetensors file (…); fetch it again"),
    model("a truncated file", cut(WEIGHTS, 100), f"{WEIGHTS}: truncated or damaged safetensors file (…); fetch it again"),
    model("bytes at the end", edit(WEIGHTS, lambda b: b + b"\0"), f"{WEIGHTS}: truncated or damaged safetensors file (…); fetch it again"),
    model("a header longer than the file", edit(WEIGHTS, sized_index), f"{WEIGHTS}: truncated or damaged safetensors file (…); fetch it again"),
    model("a pointer of Git LFS", write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), f"{WEIGHTS}: a pointer of Git LFS, not the file; git lfs pull"),
    model("a link to itself", loop, f"{WEIGHTS}: a link that leads to no file; fetch the model again"),
    model("tensors that overlap", offsets(GATE, -4, -4), f"{WEIGHTS}: truncated or damaged safetensors file (…); fetch it again"),
    model("a tensor beyond the end", offsets(GATE, 0, 10**9), f"{WEIGHTS}: truncated or damaged safetensors file (…); fetch it again"),
    model("a negative offset", offsets(GATE, -(10**9), 0), f"{WEIGHTS}: truncated or damaged safetensors file (…); fetch it again"),
    model("a dtype that does not fit the offsets", stored_as(GATE, "F16"), f"{WEIGHTS}: truncated or damaged safetensors file (…); fetch it again"),
    model("a dtype that does not exist", stored_as(GATE, "F33"), f"{WEIGHTS}: truncated or damaged safetensors file (…); fetch it again"),
    model("a weight of whole numbers", stored_as(GATE, "I32"), f"{WEIGHTS}: {GATE} (I32) is quantised: a quantised checkpoint cannot be pruned; give the unquantised model"),
    model("scales of a quantised weight", tensors(lambda h: h.update({"model.layers.0.mlp.gate_proj.weight_scale": h[NORM].clone()})), f"{WEIGHTS}: model.layers.0.mlp.gate_proj.weight_scale (F32) holds the scales of quantised weights: …"),
    model("a tensor without elements", swap(NORM, lambda t: t[:0]), f"{WEIGHTS}: {NORM} is [0], but {CONFIG} makes it [32] …"),
    model("a tensor of another shape", swap(GATE, lambda t: t[:32]), f"{WEIGHTS}: {GATE} is [32, 32], but {CONFIG} makes it [64, 32] (intermediate_size); correct it or fetch the model again"),
    model("a transposed tensor", swap(GATE, lambda t: t.t()), f"{WEIGHTS}: {GATE} is [32, 64], but {CONFIG} makes it [64, 32] (…); …"),
    model("a tensor that is missing", tensors(lambda h: h.pop(NORM)), f"{MODEL}: no safetensors file holds {NORM}, which config.json asks for; fetch the model again"),
    model("a tensor that has no place", tensors(lambda h: h.update({"score.weight": h[NORM].clone()})), f"{WEIGHTS}: score.weight has no place in the LlamaForCausalLM that config.json describes; fetch the model again"),
    model("a tensor under two names", tensors(lambda h: h.update({GATE.removeprefix("model."): h[GATE].clone()})), f"{WEIGHTS}: holds {GATE} twice, as {GATE.removeprefix('model.')} and as {GATE}; fetch the model again into {MODEL}"),
    model("a head that is not tied", tensors(lambda h: h.pop("lm_head.weight")), f"{MODEL}: no safetensors file holds lm_head.weight, which config.json asks for (see tie_word_embeddings); fetch the model again"),
    model("a weight that is NaN", swap(GATE, nan), f"{WEIGHTS}: {GATE} holds NaN or infinite values; fetch the model again or use another one"),
    model("weights beyond float16", swap(GATE, lambda t: t * 1e6), f"{WEIGHTS}: {GATE} holds NaN or infinite values as float16 (bfloat16 may hold them); …", dtype="float16"),
    model("weights that overflow", together(swap(GATE, lambda t: t * 1e30), swap(GATE.replace("gate", "up"), lambda t: t * 1e30)), "mine, block 1: its output is not finite; …; in any other case fetch the model again"),
    model("an index that is broken", together(remove(WEIGHTS), write(INDEX, "{")), f"{INDEX}: not valid JSON (…); fetch the model again"),
    model("an index that is a list", together(remove(WEIGHTS), write(INDEX, "[]")), f"{INDEX}: holds a list, not an object; fetch the model again"),
    model("an index that names nothing", shards(), f"{INDEX}: holds no weight_map; fetch the model again"),
    model("a shard that is missing", shards(**{NORM: "model-00002-of-00002.safetensors"}), f"{MODEL}: shard model-00002-of-00002.safetensors is missing; fetch the model again"),
    model("an index that leads out of the folder", shards(**{NORM: "../there/model.safetensors"}), f"{INDEX}: names '../there/model.safetensors', which is no safetensors file of its folder; fetch the model again"),
    model("an index that names a pickle", shards(**{NORM: "pytorch_model.bin"}), f"{INDEX}: names 'pytorch_model.bin', which is no safetensors file of its folder; …"),
    model("a part of a distributed checkpoint", write(f"{MODEL}/shard-00001-model-00001-of-00001.safetensors", b""), f"{MODEL}/shard-00001-model-00001-of-00001.safetensors: part of a distributed checkpoint, which …; save the model whole with save_pretrained()"),
    model("a shard that lacks a tensor", together(lambda: Path(WEIGHTS).rename(f"{MODEL}/a.safetensors"), write(INDEX, json.dumps({"metadata": {}, "weight_map": {"x": "a.safetensors"}}))), f"{MODEL}/a.safetensors: lacks x, which the index puts there; fetch the model again"),
]  # fmt: skip

TOKENIZERS = [
    tokenizer("no tokenizer", remove(TOKENIZER), f"{MODEL}: has no tokenizer (tokenizer.json or tokenizer.model or vocab.json); fetch the model again"),
    tokenizer("tokenizer.json is cut off", cut(TOKENIZER, 30), f"{MODEL}: tokenizer.json and tokenizer_config.json make no usable tokenizer (…); fetch the model again, or install …"),
    tokenizer("tokenizer.json is empty", write(TOKENIZER, ""), f"{MODEL}: tokenizer.json and tokenizer_config.json make no usable tokenizer (…); …"),
    tokenizer("tokenizer.json is a list", write(TOKENIZER, "[]"), f"{MODEL}: tokenizer.json and tokenizer_config.json make no usable tokenizer (…); …"),
    tokenizer("tokenizer_config.json is no JSON", write(f"{MODEL}/tokenizer_config.json", "{"), f"{MODEL}/tokenizer_config.json: not valid JSON (…); fetch the model again"),
    tokenizer("a vocabulary larger than the embedding", put(TOKENIZER, "model/vocab/w2", 500), f"{MODEL}: the tokenizer has the token 'w2' (500), but the model knows 128 only (vocab_size in config.json); give the tokenizer that belongs to it"),
    tokenizer("an added token beyond the embedding, in a text", together(put(TOKENIZER, "added_tokens", [{"id": 128, "content": "w128", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}]), write(DOCUMENTS, '{"text": "' + "w128 " * 40 + '"}\n')), f"{MODEL}: a text has the token 'w128' (128), but the model knows 128 only (vocab_size); give the tokenizer that belongs to it"),
    tokenizer("a negative token", put(TOKENIZER, "model/vocab/w2", -5), f"{MODEL}: tokenizer.json and tokenizer_config.json make no usable tokenizer (…); …"),
    tokenizer("dropout", put(TOKENIZER, "model", {"type": "BPE", "dropout": 0.1, "unk_token": None, "vocab": {"<s>": 1, "a": 2}, "merges": []}), f"{TOKENIZER}: model.dropout is 0.1…, so that a text has other tokens each time; set it to null"),
    tokenizer("code of its own", write(f"{MODEL}/tokenizer_config.json", '{"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", null]}}'), f"{MODEL}/tokenizer_config.json: tokenizer_class 'Mine' needs code of its own (auto_map), and code from a model folder never runs; give a model whose tokenizer transformers has"),
    tokenizer("no BOS, and bos: window", together(put(f"{MODEL}/tokenizer_config.json", "bos_token", ...), put(TOKENIZER, "post_processor", None)), "`bos: window` asks for BOS in each window, but the tokenizer has no BOS; set the model's `bos: text`, or give the tokenizer that belongs to it", bos="window"),
    tokenizer("more than BOS in front, and bos: window", put(TOKENIZER, "post_processor", {"type": "BertProcessing", "cls": ["w2", 2], "sep": ["w3", 3]}), f"{MODEL}: its tokenizer puts w2 in front of a text, but `bos: window` begins each window with BOS (<s>) alone; set the model's `bos: text`, or give a tokenizer that puts BOS there, or nothing", bos="window"),
    tokenizer("neither BOS nor EOS, for zero-shot tasks", together(put(f"{MODEL}/tokenizer_config.json", "bos_token", ...), put(TOKENIZER, "post_processor", None)), "zero-shot: the tokenizer has neither BOS nor EOS; give the model's own one", "zero_shot_requests"),
]  # fmt: skip
