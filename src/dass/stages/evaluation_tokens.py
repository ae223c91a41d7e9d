"""Tokenise an evaluation text for one model and save the windows of each split."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dass.data.documents import find_split, read_rows
from dass.data.model_config import check_window
from dass.data.pretrained import load_config
from dass.data.token_file import save_tokens
from dass.data.tokenizer import encoder, load_tokenizer, taken_off
from dass.data.windows import cut_windows, tokenise
from dass.runtime.provenance import origin, source
from dass.terms import Bos, Rows, Split


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
) -> None:
    """Tokenise an evaluation text for one model and save the windows of each split.

    Args:
        folder: of the model, for its tokenizer.
        dataset: what the config calls the data set, for the record.
        text: the folder with the splits.
        rows: what a row of a ``.txt`` is.
        splits: which to take.
        length: tokens in each window.
        bos: where BOS stands.
        out: safetensors with int32 [windows, length] for each split.
    """
    check_window(load_config(folder).to_dict(), length, folder)
    tokenizer = load_tokenizer(folder)
    bos_id = tokenizer.bos_token_id
    windows: dict[str, Tensor] = {}
    files = {split: find_split(text, split) for split in splits}
    for split, path in files.items():
        tokens = tokenise(read_rows(path, rows), encoder(tokenizer), bos, bos_id)
        windows[split] = cut_windows(tokens, length, bos, bos_id, str(path))
    about = {"dataset": dataset, "rows": rows, "length": length, "bos": bos}
    sources = {split: source(path) for split, path in files.items()}
    made = {"source": sources, "origin": origin(text)} | taken_off(tokenizer)
    save_tokens(out, windows, about | made)
