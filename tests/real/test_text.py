"""Rows of the published WikiText files, against what the hub's data set makes of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from dass.data.documents import read_rows
from dass.data.token_file import load_tokens
from dass.data.tokenizer import encoder, load_tokenizer
from dass.data.windows import cut_windows, tokenise
from dass.evaluation.perplexity import measure_perplexity
from dass.models.streamed import StreamedModel
from dass.stages.evaluation_tokens import evaluation_tokens

pytestmark = pytest.mark.real


def test_blank_rows_are_those_of_the_data_set(real: Path) -> None:
    """With " \\n" for a blank row there would be 310,097 tokens, and a perplexity of 210.44."""
    folder = real / "models/real-llama"
    tokenizer = load_tokenizer(folder)
    encode, bos_id = encoder(tokenizer), tokenizer.bos_token_id
    rows = read_rows(real / "wikitext-2/validation.txt", "line")
    assert len(rows) == 3760
    assert len(tokenise(rows, encode, "text", bos_id)) == 308_798
    windows = cut_windows(tokenise(rows[:1200], encode, "text", bos_id), 256, "text", bos_id, "")
    found = measure_perplexity(StreamedModel(folder, torch.float32, resident=True), windows)
    assert found.perplexity == pytest.approx(213.58, abs=0.005)


def test_the_raw_file_as_published_has_the_line_ends_of_windows(real: Path) -> None:
    path = real / "wikitext-2-raw/validation.txt"
    assert b" \r\n" in path.read_bytes()
    rows = read_rows(path, "line")
    assert rows[:3] == ["", " = Homarus gammarus = \n", ""]
    assert not any("\r" in row or row.isspace() for row in rows)


def test_a_byte_order_mark_and_other_line_ends_change_no_token(real: Path, tmp_path: Path) -> None:
    """They took the perplexity of the whole file from 155.20 to 192.24."""
    plain = real / "wikitext-2/validation.txt"
    other = tmp_path / "validation.txt"
    other.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    for rows in ("file", "line"):
        assert read_rows(other, rows) == read_rows(plain, rows)


@pytest.mark.parametrize(
    ("name", "count"),
    [("c4/c4-train.00000-of-01024.json.gz", 256), ("c4-real/c4-sample.jsonl.gz", 177)],
)
def test_documents_are_read_as_the_public_code_reads_c4s_validation_split(
    real: Path, name: str, count: int, tmp_path: Path
) -> None:
    """The first 1100 joined with a blank, tokenised at once, and the first 256 windows of them.

    The sample's texts are short: they come to fewer windows, all of which count.
    """
    file, folder, length = real / name, real / "models/real-llama", 2048
    evaluation_tokens(
        folder=folder, dataset="c4", kind="documents", text=file, rows="line", documents=1100,
        most=256, splits=["validation"], length=length, bos="text", out=tmp_path / "tokens",
    )  # fmt: skip
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    whole = AutoTokenizer.from_pretrained(folder)(" ".join(texts[:1100]), return_tensors="pt")
    expected = whole.input_ids[:, : 256 * length]
    assert count == expected.numel() // length
    found = load_tokens(tmp_path / "tokens")["validation"]
    assert torch.equal(found, expected[:, : count * length].view(count, length))
