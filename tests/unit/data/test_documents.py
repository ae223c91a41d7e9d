"""Documents and rows as they lie on disk, whole and broken."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dass.data.documents import (
    DOCUMENTS,
    OFFSETS,
    Documents,
    find_split,
    index_documents,
    read_rows,
)
from dass.errors import DassError, DataError
from tests.conftest import damaged

TEXTS = ["one", "two\nlines", "naïve \u2028 café", ""]
LINES = "".join(json.dumps({"text": text, "url": "u"}) + "\n" for text in TEXTS)


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.jsonl.gz", "d.json.gz"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_documents(tmp_path: Path, name: str, end: str) -> None:
    path = tmp_path / name
    content = (LINES.rstrip("\n") + end).encode()
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    documents = Documents(path)
    assert [documents[i] for i in range(len(documents))] == TEXTS


def test_documents_may_hold_line_separators_that_json_does_not_escape(tmp_path: Path) -> None:
    """JSON allows U+2028 and U+0085 in a string; they end no line of a JSON-lines file."""
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a\u2028b\u0085c"}\n{"text": "d"}\n', encoding="utf-8")
    documents = Documents(path)
    assert [documents[i] for i in range(len(documents))] == ["a\u2028b\u0085c", "d"]


BAD_LINES = {
    b'{"text": "a"': "Expecting ',' delimiter at column 13",
    b'{"body": "a"}': "the key is missing",
    b'"text"': "it is a str",
    b"[]": "it is a list",
    b"": "it is blank",
    b" \t": "it is blank",
    b'{"text": 3}': '"text" is a int',
    b'{"text": null}': '"text" is a NoneType',
    b'{"text": "a"} {"text": "b"}': "Extra data at column 15",
    b'{"text": "a", "text": "b"}': "it has the key 'text' twice",
    b'{"text": "a", "meta": {"x": 1, "x": 2}}': "it has the key 'x' twice",
    b'{"text": "\\ud800"}': '"text" holds half of a surrogate pair',
    b'{"text": "\\ude00\\ud83d"}': '"text" holds half of a surrogate pair',
    b'{"text": "\xed\xa0\x80"}': "it is not UTF-8",
    b'{"text": "\xff"}': "it is not UTF-8",
    b'{"text": "a\0b"}': "Invalid control character at column 12",
    b'{"text": "a\rb"}': "Invalid control character at column 12",
    b'{"text": ' + b"[" * 200_000: "it is nested too deeply",
    b'{"text": 1' + b"0" * 5000 + b"}": "Exceeds the limit",
    '{"text": "a"}'.encode("utf-16"): "it is not UTF-8",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_line_that_is_no_document_is_numbered_before_any_is_drawn(
    tmp_path: Path, line: bytes
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b'\n{"text": "fine"}\n')
    said = re.escape(f'd.jsonl: line 2 is no JSON object with a "text" ({BAD_LINES[line]}')
    with pytest.raises(DataError, match=rf"^[^\n]*{said}[^\n]*; mend or remove the line$"):
        Documents(path)
    with pytest.raises(DataError, match=said.replace("d\\.jsonl", "part-0")):
        indexed(tmp_path, path.read_bytes())


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_documents_from_windows(tmp_path: Path, end: bytes, mark: bytes) -> None:
    """What JSON escapes stays as it is: only the ends of lines are the file's."""
    path = tmp_path / "d.jsonl"
    path.write_bytes(mark + b'{"text": "a\\r\\nb\\u0000"}' + end + b'{"text": "c"}' + end)
    for documents in (Documents(path), Documents(indexed(tmp_path, path.read_bytes()))):
        assert [documents[i] for i in range(len(documents))] == ["a\r\nb\0", "c"]


def test_a_pair_of_surrogates_is_one_character(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "\\ud83d\\ude00"}')
    assert Documents(path)[0] == "\U0001f600"


def test_a_long_document_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"text": "word " * 2_000_000}))
    assert Documents(path)[0] == "word " * 2_000_000


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "c4"])
def test_a_packed_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(LINES.encode()))
    documents = Documents(tmp_path / name)
    assert [documents[i] for i in range(len(documents))] == TEXTS


def test_a_folder_is_no_file_of_documents(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*: cannot be read \(Is a directory\)[^\n]*$"):
        Documents(tmp_path)


def test_no_documents(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("")
    with pytest.raises(DataError, match=r"^[^\n]*d\.jsonl: holds no document[^\n]*$"):
        Documents(tmp_path / "d.jsonl")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*d\.jsonl: no such file[^\n]*$"):
        Documents(tmp_path / "d.jsonl")
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "d.txt")


@pytest.mark.parametrize("where", ["header", "middle", "end", "length"])
def test_a_damaged_archive_is_named_in_one_line(tmp_path: Path, where: str) -> None:
    whole = gzip.compress(json.dumps({"text": " ".join(map(str, range(3000)))}).encode() + b"\n")
    middle = len(whole) // 2
    damaged = {
        "header": b"not gzip" + whole,
        "middle": whole[:middle] + b"\xff" * 64 + whole[middle + 64 :],
        "end": whole[:middle],
        "length": whole[:-4] + b"\0\0\0\0",
    }[where]
    path = tmp_path / "c4.json.gz"
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"^[^\n]*c4\.json\.gz: cannot be read [^\n]*$"):
        Documents(path)


# --- Unpacked and indexed ---------------------------------------------------------------------


def indexed(folder: Path, *contents: bytes) -> Path:
    """Files of these contents, unpacked and indexed; the file of lines."""
    files = []
    for number, content in enumerate(contents):
        files.append(folder / f"part-{number}")
        files[-1].write_bytes(content)
    index_documents(files, folder)
    return folder / DOCUMENTS


def test_offsets_are_where_lines_begin(tmp_path: Path) -> None:
    path = indexed(tmp_path, b'{"text": "a"}\n{"text": "bcd"}\n')
    assert np.load(tmp_path / OFFSETS).tolist() == [0, 14, 30]
    assert [Documents(path)[i] for i in range(2)] == ["a", "bcd"]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("end", ["\n", ""])
def test_indexed_documents_are_those_of_the_file(tmp_path: Path, packed: bool, end: str) -> None:
    content = (LINES.rstrip("\n") + end).encode()
    path = indexed(tmp_path, gzip.compress(content) if packed else content)
    documents = Documents(path)
    assert [documents[i] for i in range(len(documents))] == TEXTS


def test_several_files_become_one(tmp_path: Path) -> None:
    """The first lacks its last newline: its last document and the next one stay two."""
    path = indexed(tmp_path, b'{"text": "a"}', gzip.compress(b'{"text": "b"}\n'))
    assert [Documents(path)[i] for i in range(2)] == ["a", "b"]


@given(texts=st.lists(st.text(), min_size=1, max_size=20), plain=st.booleans())
def test_an_index_changes_no_document(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], plain: bool
) -> None:
    """Against the file read as a whole; with and without non-ASCII characters as they are."""
    folder = tmp_path_factory.mktemp("indexed")
    lines = [json.dumps({"text": text}, ensure_ascii=plain) for text in texts]
    content = "".join(f"{line}\n" for line in lines).encode()
    whole = folder / "whole.jsonl"
    whole.write_bytes(content)
    left, right = Documents(whole), Documents(indexed(folder, gzip.compress(content)))
    assert len(left) == len(right) == len(texts)
    assert [left[i] for i in range(len(texts))] == [right[i] for i in range(len(texts))] == texts


def test_indexed_documents_are_not_held_in_memory(tmp_path: Path) -> None:
    """Only the line that is asked for is read: another one may be anything."""
    path = indexed(tmp_path, b'{"text": "a"}\n{"text": "b"}\n')
    documents = Documents(path)
    with path.open("r+b") as file:
        file.write(b"{{{{{{{{{{{{{\n")
    assert documents[1] == "b"
    with pytest.raises(DataError, match=r"documents\.jsonl: line 1 is no JSON object"):
        documents[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no document"),
        (b'{"text": "a"}\n{"body": "b"}\n', "line 2 is no JSON object"),
        (b'{"text": "a"}\n\n{"text": "b"}\n', "line 2 is no JSON object"),
        (gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_what_cannot_be_indexed_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^[^\n]*part-0: {message}[^\n]*$"):
        indexed(tmp_path, content)


@pytest.mark.parametrize(
    "change", ["shorter", "longer", "no index", "not an index", "out of order", "twice", "floats"]
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, change: str) -> None:
    path = indexed(tmp_path, b'{"text": "a"}\n{"text": "b"}\n')
    content, offsets = path.read_bytes(), tmp_path / OFFSETS
    if change == "shorter":
        path.write_bytes(content[:-1])
    elif change == "longer":
        path.write_bytes(content + b"\n")
    elif change == "no index":
        np.save(offsets, np.array([], dtype=np.int64))
    elif change in ("out of order", "twice"):
        places = [0, 14, 0, 28] if change == "out of order" else [0, 14, 14, 28]
        np.save(offsets, np.array(places, dtype=np.int64))
    elif change == "floats":
        np.save(offsets, np.load(offsets).astype(np.float64))
    else:
        offsets.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"^[^\n]*documents\.jsonl: [^\n]*; fetch it again$"):
        Documents(path)


# --- Rows -------------------------------------------------------------------------------------


def test_rows_of_json_lines(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(LINES)
    assert read_rows(tmp_path / "t.jsonl") == TEXTS


TEXT = " = Title = \n \n A row . \n\n\t\u00a0\n  \n last"
ROWS = [" = Title = \n", "", " A row . \n", "", "", "", " last"]


def test_rows_of_a_text_are_those_of_wikitexts_data_set(tmp_path: Path) -> None:
    """The hub's script: a line with its newline, but "" for one that strip() leaves nothing of."""
    (tmp_path / "t.txt").write_text(TEXT)
    with (tmp_path / "t.txt").open(encoding="utf-8") as lines:
        assert [line if line.strip() else "" for line in lines] == ROWS
    assert read_rows(tmp_path / "t.txt") == ROWS
    assert read_rows(tmp_path / "t.txt", "line") == ROWS
    assert read_rows(tmp_path / "t.txt", "file") == [TEXT]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("packed", [False, True])
def test_where_a_text_was_written_changes_nothing(
    tmp_path: Path, end: str, mark: str, packed: bool
) -> None:
    content = (mark + TEXT.replace("\n", end)).encode()
    (tmp_path / "t.txt").write_bytes(gzip.compress(content) if packed else content)
    assert read_rows(tmp_path / "t.txt", "line") == ROWS
    assert read_rows(tmp_path / "t.txt", "file") == [TEXT]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_and_what_is_no_text_are_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.txt").write_bytes(TEXT.encode(encoding))
    with pytest.raises(DataError, match=r"^[^\n]*t\.txt: not UTF-8 text but UTF-16[^\n]*$"):
        read_rows(tmp_path / "t.txt")


def test_blank_rows_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": ""}\n{"text": " \\n"}\n')
    with pytest.raises(DataError, match=r"^[^\n]*t\.jsonl: holds no text[^\n]*$"):
        read_rows(tmp_path / "t.jsonl")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_newlines_end_a_row(tmp_path: Path, separator: str) -> None:
    """Python's splitlines() knows a dozen other separators; WikiText's rows do not."""
    text = f"a{separator}b\nc"
    (tmp_path / "t.txt").write_bytes(text.encode())
    assert read_rows(tmp_path / "t.txt") == [f"a{separator}b\n", "c"]


@pytest.mark.parametrize("text", ["", " \n\n "])
def test_an_empty_text_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(DataError, match=r"t\.txt: holds no text[^\n]*$"):
        read_rows(tmp_path / "t.txt", "file")


def test_a_text_that_is_not_utf8_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(DataError, match=r"^[^\n]*t\.txt[^\n]*UTF-8[^\n]*$"):
        read_rows(tmp_path / "t.txt")


def test_splits_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("a")
    assert find_split(tmp_path, "test") == tmp_path / "test.txt"
    (tmp_path / "validation.jsonl").write_text(LINES)
    assert find_split(tmp_path, "validation") == tmp_path / "validation.jsonl"
    with pytest.raises(DataError, match=r"neither train\.jsonl nor train\.txt; check"):
        find_split(tmp_path, "train")


def test_a_split_in_two_forms_is_refused(tmp_path: Path) -> None:
    """Whoever edits one of them would wait for an effect."""
    for name in ("test.txt", "test.jsonl"):
        (tmp_path / name).write_text(LINES)
    with pytest.raises(DataError, match=r"has both test\.jsonl and test\.txt; remove one"):
        find_split(tmp_path, "test")


# --- Whatever a file holds --------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(content=damaged(LINES.encode()) | damaged(gzip.compress(LINES.encode())))
def test_any_file_is_documents_or_an_error_in_one_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is taken can be tokenised; and an index refuses what reading refuses."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "d.jsonl").write_bytes(content)
    try:
        documents = Documents(folder / "d.jsonl")
    except DassError as error:
        assert "\n" not in str(error) and "d.jsonl" in str(error)
        with pytest.raises(DataError):
            indexed(folder, content)
        return
    texts = [documents[i] for i in range(len(documents))]
    assert texts and all(text.encode().decode() == text for text in texts)
    again = Documents(indexed(folder, content))
    assert [again[i] for i in range(len(again))] == texts


@settings(deadline=None, max_examples=300)
@given(content=damaged(TEXT.encode()) | damaged(gzip.compress(TEXT.encode())))
def test_any_file_is_rows_or_an_error_in_one_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "t.txt"
    path.write_bytes(content)
    try:
        rows, (whole,) = read_rows(path, "line"), read_rows(path, "file")
    except DassError as error:
        assert "\n" not in str(error) and "t.txt" in str(error)
        return
    assert "\r" not in whole and "\0" not in whole
    assert all(row == "" or row.strip() for row in rows)
    assert len(rows) == whole.count("\n") + (not whole.endswith("\n"))
    if not content.startswith(b"\x1f\x8b"):
        with path.open(encoding="utf-8-sig") as lines:
            assert rows == [line if line.strip() else "" for line in lines]


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_index_gives_a_document_or_an_error_in_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = indexed(tmp_path_factory.mktemp("any"), LINES.encode())
    offsets = path.with_name(OFFSETS)
    offsets.write_bytes(data.draw(damaged(offsets.read_bytes())))
    try:
        documents = Documents(path)
        found = [documents[i] for i in range(len(documents))]
    except DassError as error:
        assert "\n" not in str(error)
        return
    assert found == TEXTS
