"""A tokenizer with its own defaults, but for what it appends; or a line that says what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dass.data.token_file import load_tokens, tokens_about
from dass.data.tokenizer import departures, encoder, load_tokenizer
from dass.errors import DassError, DataError, ModelError
from dass.stages.calibration_tokens import calibration_tokens
from dass.stages.evaluation_tokens import evaluation_tokens
from tests.conftest import TinyModel

VOCABULARY = {"<unk>": 0, "<s>": 1, "a": 2, "b": 3, "</s>": 4}

Content = dict[str, Any]


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A tiny model with a tokenizer that puts <s> in front and takes 8 tokens at most, if let."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=8,
    )  # fmt: skip
    fast.save_pretrained(folder)
    return folder


def change(file: Path, edit: Callable[[Content], object]) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    edit(content)
    file.write_text(json.dumps(content))


def refused(folder: Path, *parts: str) -> str:
    with pytest.raises(DassError) as error:
        encoder(load_tokenizer(folder))("a b c")
    line = str(error.value)
    assert "\n" not in line and str(folder) in line
    for part in parts:
        assert part in line
    return line


def test_encoding_keeps_bos_and_cuts_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load_tokenizer(folder)
    tokens = encoder(tokenizer)("a b " * 50)
    assert tokens == [1] + [2, 3] * 50
    assert tokenizer.bos_token_id == 1
    assert departures(tokenizer) == {}
    assert not caplog.records


# --- What a tokenizer appends -----------------------------------------------------------------

SUFFIX = {"SpecialToken": {"id": "</s>", "type_id": 0}}
ROBERTA = {
    "type": "RobertaProcessing", "sep": ["</s>", 4], "cls": ["<s>", 1], "trim_offsets": True,
    "add_prefix_space": False,
}  # fmt: skip
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def template(content: Content, times: int = 1, bos: bool = True) -> Content:
    """A post-processor that appends EOS, or EOS and EOS, with BOS in front or without."""
    processor: Content = content["post_processor"]
    processor["single"] = processor["single"][not bos :] + [SUFFIX] * times
    processor["special_tokens"]["</s>"] = {"id": "</s>", "ids": [4], "tokens": ["</s>"]}
    return processor


APPENDING: dict[str, tuple[Callable[[Content], Any], list[int], str]] = {
    "EOS": (template, [1], "</s>"),
    "EOS twice": (lambda c: template(c, 2), [1], "</s> </s>"),
    "EOS, no BOS": (lambda c: template(c, bos=False), [], "</s>"),
    "as RoBERTa": (lambda c: c.update(post_processor=ROBERTA), [1], "</s>"),
    "in a sequence": (
        lambda c: c.update(post_processor={"type": "Sequence", "processors": [BYTES, template(c)]}),
        [1],
        "</s>",
    ),
}


@pytest.mark.parametrize("kind", APPENDING)
def test_what_is_appended_is_taken_off_everywhere(
    kind: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit, front, appended = APPENDING[kind]
    change(folder / "tokenizer.json", edit)
    ends = AutoTokenizer.from_pretrained(folder)("a b")["input_ids"]
    assert ends == front + [2, 3] + [4] * appended.count("/")
    with caplog.at_level("INFO", "dass"):
        tokenizer = load_tokenizer(folder)
    assert f"appends {appended} to a text: taken off" in caplog.text
    assert encoder(tokenizer)("a b") == [*front, 2, 3]
    assert tokenizer("a b")["input_ids"] == tokenizer.encode("a b") == [*front, 2, 3]
    assert tokenizer.encode("b", add_special_tokens=False) == [3]
    assert tokenizer(["a", "b a"])["input_ids"] == [[*front, 2], [*front, 3, 2]]
    assert encoder(tokenizer)("") == front
    assert encoder(tokenizer)("a </s>") == [*front, 2, 4]  # the text's own stays
    assert departures(tokenizer) == {"tokens_taken_off": appended}


@pytest.mark.parametrize(
    ("front", "names"),
    [(["<s>"], None), ([], None), (["b", "<s>"], "b <s>"), (["b"], "b"), (["<s>"] * 2, "<s> <s>")],
)
def test_windows_begin_with_bos_alone_or_are_refused(
    front: list[str], names: str | None, folder: Path, tmp_path: Path
) -> None:
    def put(content: Content) -> None:
        parts = [{"SpecialToken": {"id": token, "type_id": 0}} for token in front]
        processor = content["post_processor"]
        processor["single"] = [*parts, {"Sequence": {"id": "A", "type_id": 0}}]
        processor["special_tokens"]["b"] = {"id": "b", "ids": [3], "tokens": ["b"]}

    change(folder / "tokenizer.json", put)
    (tmp_path / "test.jsonl").write_text('{"text": "a b b a"}\n')
    (tmp_path / "documents.jsonl").write_text('{"text": "a b b a b b"}\n')

    def cut(bos: Any) -> Any:
        out = tmp_path / "cut"
        evaluation_tokens(folder=folder, text=tmp_path, dataset="t", rows="line", splits=["test"],
                          length=3, bos=bos, out=out)  # fmt: skip
        return load_tokens(out)["test"].tolist()

    def draw() -> Any:
        out = tmp_path / "drawn"
        calibration_tokens(folder=folder, documents=tmp_path / "documents.jsonl", dataset="d",
                           sequences=1, length=3, seed=0, bos="window", out=out)  # fmt: skip
        return load_tokens(out)["windows"].tolist()

    assert cut("text")[0][: len(front)] == [VOCABULARY[token] for token in front]
    if names is None:
        assert cut("window") == [[1, 2, 3], [1, 3, 2]]
        assert [window[0] for window in draw()] == [1]
        return
    for make in (lambda: cut("window"), draw):
        with pytest.raises(DataError) as error:
            make()
        assert str(error.value).startswith(f"{folder}: its tokenizer puts {names} in front of")
        assert "`bos: text`" in str(error.value) and "\n" not in str(error.value)


def test_windows_are_those_of_a_tokenizer_that_appends_nothing_and_say_so(
    folder: Path, tmp_path: Path
) -> None:
    documents = tmp_path / "documents.jsonl"
    documents.write_text('{"text": "a b b a b a b"}\n{"text": "b b b b a a"}\n')
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "test.jsonl").write_text(documents.read_text())

    def made(name: str, bos: Any) -> tuple[list[Any], dict[str, str] | None]:
        drawn, cut = tmp_path / f"{name}-{bos}-drawn", tmp_path / f"{name}-{bos}-cut"
        calibration_tokens(
            folder=folder, documents=documents, dataset="d", sequences=2, length=4, seed=0,
            bos=bos, out=drawn,
        )  # fmt: skip
        evaluation_tokens(
            folder=folder, text=tmp_path / "text", dataset="t", rows="line", splits=["test"],
            length=4, bos=bos, out=cut,
        )  # fmt: skip
        off = tokens_about(drawn).get("tokens_taken_off")
        assert tokens_about(cut).get("tokens_taken_off") == off
        tokens = [load_tokens(drawn)["windows"].tolist(), load_tokens(cut)["test"].tolist()]
        return tokens, off

    plain = {bos: made("plain", bos) for bos in ("text", "window")}
    change(folder / "tokenizer.json", template)
    for bos, (tokens, off) in plain.items():
        assert off is None
        assert made("appending", bos) == (tokens, "</s>")


# --- Classes that transformers builds again without what tokenizer.json says ---------------------

PIECES = ["<unk>", "<s>", "a", "b", "1", "2", "3", "Ġ", "12", "123", "Ġa", "Ġ123", "</s>", "▁"]
MERGES = [("1", "2"), ("12", "3"), ("Ġ", "a"), ("Ġ", "123")]


def digits_by_threes(folder: Path) -> Tokenizer:
    """A tokenizer in bytes that keeps up to three digits together, as those of Llama 3 do."""
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(PIECES)}, MERGES))
    digits = pre_tokenizers.Split(Regex(r" ?\p{N}{1,3}| ?\p{L}+"), "isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, in_bytes])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.mark.parametrize(
    ("name", "left"),
    [
        (None, None), ("PreTrainedTokenizerFast", None), ("LlamaTokenizerFast", None),
        ("Qwen2Tokenizer", "Qwen2Tokenizer"), ("GemmaTokenizerFast", "GemmaTokenizer"),
        ("GPTNeoXTokenizerFast", "GPTNeoXTokenizer"), ("CodeLlamaTokenizer", "CodeLlamaTokenizer"),
    ],
)  # fmt: skip
def test_the_tokens_are_those_of_the_file_whatever_class_is_named(
    name: str | None, left: str | None, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """1231 is 123 and 1 in the file; Qwen2's class alone would make it 1, 2, 3, 1."""
    digits_by_threes(folder)
    change(folder / "tokenizer_config.json", lambda c: c.update(tokenizer_class=name))
    with caplog.at_level("INFO", "dass"):
        tokenizer = load_tokenizer(folder)
    assert encoder(tokenizer)("a 1231 a") == [1, 2, 11, 4, 10]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 12)
    assert departures(tokenizer) == ({"tokenizer_class_left": left} if left else {})
    assert ("splits texts otherwise than tokenizer.json" in caplog.text) == bool(left)


@pytest.mark.parametrize(("says", "tokens"), [(False, [2, 10]), (True, [10, 10])])
def test_a_prefix_that_tokenizer_config_asks_for_is_no_other_split(
    says: bool, tokens: list[int], folder: Path
) -> None:
    tokenizer = digits_by_threes(folder)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": says}
    change(folder / "tokenizer_config.json", lambda c: c.update(settings))
    loaded = load_tokenizer(folder)
    assert departures(loaded) == {}
    assert loaded.encode("a a", add_special_tokens=False) == tokens


def test_what_the_file_says_of_length_is_no_other_split(folder: Path) -> None:
    tokenizer = digits_by_threes(folder)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=99)
    tokenizer.save(str(folder / "tokenizer.json"))
    change(folder / "tokenizer_config.json", lambda c: c.update(tokenizer_class="GPT2Tokenizer"))
    loaded = load_tokenizer(folder)
    assert type(loaded).__name__ == "GPT2Tokenizer" and departures(loaded) == {}


def test_a_class_that_is_left_is_said_in_what_the_tokens_are_made_of(
    folder: Path, tmp_path: Path
) -> None:
    digits_by_threes(folder)
    change(folder / "tokenizer_config.json", lambda c: c.update(tokenizer_class="Qwen2Tokenizer"))
    (tmp_path / "test.jsonl").write_text('{"text": "a 1231"}\n')
    evaluation_tokens(folder=folder, text=tmp_path, dataset="t", rows="line", splits=["test"],
                      length=4, bos="text", out=tmp_path / "cut")  # fmt: skip
    assert load_tokens(tmp_path / "cut")["test"].tolist() == [[1, 2, 11, 4]]
    assert tokens_about(tmp_path / "cut")["tokenizer_class_left"] == "Qwen2Tokenizer"


@pytest.mark.parametrize(
    ("asked", "puts", "said"),
    [(False, True, "false"), (True, False, "true"), (True, True, ""), (False, False, "")],
)
def test_a_bos_that_the_config_asks_for_in_vain_is_said(
    asked: bool, puts: bool, said: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(folder / "tokenizer_config.json", lambda c: c.update(add_bos_token=asked))
    if not puts:
        change(folder / "tokenizer.json", lambda c: c.update(post_processor=None))
    with caplog.at_level("WARNING"):
        loaded = load_tokenizer(folder)
    assert loaded("a b")["input_ids"] == [1, 2, 3][0 if puts else 1 :]
    assert departures(loaded) == ({"add_bos_token_unheeded": said} if said else {})
    assert (f"add_bos_token: {said}, which" in caplog.text) == bool(said)
    assert departures(load_tokenizer(folder, "window")) == {}  # which puts BOS there itself


# --- Files that make no tokenizer -------------------------------------------------------------


def test_no_folder_and_no_config(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelError) as error:
            load_tokenizer(folder)
        assert str(error.value).startswith(str(folder)) and "\n" not in str(error.value)


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    refused(folder, "no tokenizer (tokenizer.json or tokenizer.model or vocab.json)", "fetch")
    (folder / "tokenizer_config.json").unlink()
    refused(folder, "no tokenizer (tokenizer.json or tokenizer.model or vocab.json)", "fetch")


@pytest.mark.parametrize("name", [None, "LlamaTokenizer"])
def test_only_sentencepiece(name: str | None, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")
    change(folder / "tokenizer_config.json", lambda c: c.update(tokenizer_class=name))
    line = refused(folder, "tokenizer.model", "convert it to tokenizer.json", "save_pretrained()")
    assert "fetch" not in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "JSONDecodeError"),
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "added_tokens"),
        ('{"added_tokens": [], "model": {"type": "Newer"}}', "untagged enum"),
    ],
)
def test_an_unreadable_tokenizer(content: str, said: str, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(content)
    line = refused(folder, "tokenizer.json", said)
    assert line.endswith("fetch the model again, or install the version of tokenizers that wrote "
                         "them")  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "null"),
        ("tokenizer_config.json", '{"bos_token": 5}'),
        ("tokenizer_config.json", '{"tokenizer_class": 5}'),
        ("tokenizer_config.json", '{"auto_map": "own.T"}'),
        ("special_tokens_map.json", "[1]"),
        ("added_tokens.json", "["),
    ],
)
def test_damaged_files_beside_it(file: str, content: str, folder: Path) -> None:
    (folder / file).write_text(content)
    refused(folder, "tokenizer")


def test_no_message_is_cut_off(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text("[")
    assert refused(folder, "vocab.json").endswith("that wrote them")


# --- Tokenizers that do not belong to the model -----------------------------------------------


def test_a_vocabulary_larger_than_the_embedding(folder: Path) -> None:
    change(folder / "tokenizer.json", lambda c: c["model"]["vocab"].update(c=128))
    refused(folder, "token 'c' (128)", "knows 128 only (vocab_size in config.json)")


@pytest.mark.parametrize("edit", [{"bos_token": "<begin>"}, {"bos_token": None, "eos_token": "E"}])
def test_a_beginning_that_the_model_does_not_know(edit: Content, folder: Path) -> None:
    """transformers adds such a token behind the others."""
    added = {f"w{i}": i for i in range(5, 128)}
    change(folder / "tokenizer.json", lambda c: c["model"]["vocab"].update(added))
    change(folder / "tokenizer_config.json", lambda c: c.update(edit))
    refused(folder, "(128)", "knows 128 only")


def test_an_added_token_beyond_the_embedding_is_refused_where_a_text_has_it(folder: Path) -> None:
    """Padding often is such a token, and no text has it."""
    added = {"id": 130, "content": "<pad>", "special": True, "normalized": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    names = {f"w{i}": i for i in range(5, 130)}

    def edit(content: Content) -> None:
        content["added_tokens"].append(added | flags)
        content["model"]["vocab"].update({k: v for k, v in names.items() if v < 128})

    change(folder / "tokenizer.json", edit)
    encode = encoder(load_tokenizer(folder))
    assert encode("a b") == [1, 2, 3]
    with pytest.raises(DataError, match=r"'<pad>' \(\d+\), but the model knows 128 only") as error:
        encode("a <pad> b")
    assert "\n" not in str(error.value)


def test_special_tokens_of_a_larger_vocabulary(folder: Path) -> None:
    """What a tokenizer that was trained again keeps of the one that it was made from."""

    def put(content: Content, end: str) -> None:
        content["post_processor"] = template(content)
        content["post_processor"]["special_tokens"][end]["ids"] = [99]

    change(folder / "tokenizer.json", lambda c: put(c, "</s>"))
    tokenizer = load_tokenizer(folder)
    assert encoder(tokenizer)("a b") == [1, 2, 3]
    assert departures(tokenizer) == {"tokens_taken_off": "99"}
    change(folder / "tokenizer.json", lambda c: put(c, "<s>"))
    with pytest.raises(DataError, match="its tokenizer puts 99 in front of a text") as error:
        load_tokenizer(folder, "window")
    assert "\n" not in str(error.value)


def test_without_bos_and_eos(folder: Path) -> None:
    change(folder / "tokenizer_config.json", lambda c: c.update(bos_token=None, eos_token=None))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.bos_token_id is None and tokenizer.eos_token_id is None
    assert encoder(tokenizer)("a b") == [1, 2, 3]


def test_a_tokenizer_that_draws_its_tokens_is_refused(folder: Path) -> None:
    model = models.BPE({"<unk>": 0, "<s>": 1, "a": 2, "b": 3, "ab": 4}, [("a", "b")], dropout=0.5)
    content = json.loads(Tokenizer(model).to_str())["model"]
    change(folder / "tokenizer.json", lambda c: c.update(model=content))
    refused(folder, "tokenizer.json: model.dropout is 0.5", "set it to null")


@pytest.mark.parametrize(
    "settings",
    [
        {"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst",
                        "stride": 0}},
        {"padding": {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None,
                     "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"}},
    ],
)  # fmt: skip
def test_what_the_file_says_of_length_is_ignored(settings: Content, folder: Path) -> None:
    change(folder / "tokenizer.json", lambda c: c.update(settings))
    assert encoder(load_tokenizer(folder))("a b a b") == [1, 2, 3, 2, 3]
