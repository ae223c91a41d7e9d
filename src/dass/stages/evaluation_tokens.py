"""Tokenise an evaluation text for one model and save the windows of each split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dass.data.documents import find_split, read_documents, read_rows
from dass.data.model_config import check_window
from dass.data.pretrained import load_config
from dass.data.token_file import save_tokens
from dass.data.tokenizer import departures, encoder, load_tokenizer
from dass.data.windows import cut_windows, tokenise
from dass.runtime.provenance import origin, source
from dass.terms import Bos, DatasetKind, Rows, Split


def evaluation_tokens(
    *,
    folder: str | Path,
    dataset: str,
    text: str | Path,
    rows: Rows,
    splits: Sequence[Split],
    length: int,
    bos: Bos,
    out: str | Path,
    kind: DatasetKind = "text",
    documents: int | None = None,
    most: int | None = None,
) -> None:
    """Tokenise an evaluation text for one model and save the windows of each split.

    Args:
        folder: of the model, for its tokenizer.
        dataset: what the config calls the data set, for the record.
        text: the folder with the splits, or the file of documents.
        rows: what a row of a ``.txt`` is.
        splits: which to take; of documents, the one that the file is of.
        length: tokens in each window.
        bos: where BOS stands.
        out: safetensors with int32 [windows, length] for each split.
        kind: of the data set, text or documents.
        documents: how many to take, the first; None: all.
        most: windows to keep, the first; None: all.
    """
    check_window(load_config(folder).to_dict(), length, folder)
    tokenizer = load_tokenizer(folder, bos)
    bos_id = tokenizer.bos_token_id
    about: dict[str, Any] = {"dataset": dataset, "rows": rows, "length": length, "bos": bos}
    windows: dict[str, Tensor] = {}
    sources = {}
    for split in splits:
        if kind == "documents":
            path, parts, between = Path(text), read_documents(text, documents), " "
            about |= {"rows": None, "documents": len(parts)}
        else:
            path = find_split(text, split)
            parts, between = read_rows(path, rows), "\n\n"
        tokens = tokenise(parts, encoder(tokenizer), bos, bos_id, between)
        windows[split] = cut_windows(tokens, length, bos, bos_id, str(path))[:most]
        sources[split] = source(path)
    made = {"source": sources, "origin": origin(text)} | departures(tokenizer)
    save_tokens(out, windows, about | made)
