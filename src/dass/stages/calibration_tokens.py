"""Draw a model's calibration windows and save their tokens."""

from pathlib import Path
from typing import Any

from dass.data.documents import Documents
from dass.data.model_config import check_window
from dass.data.pretrained import load_config
from dass.data.token_file import save_tokens
from dass.data.tokenizer import departures, encoder, load_tokenizer
from dass.data.windows import calibration_windows
from dass.runtime.provenance import origin, source
from dass.terms import Bos


def calibration_tokens(
    *,
    folder: str | Path,
    dataset: str,
    documents: str | Path,
    sequences: int,
    length: int,
    seed: int,
    bos: Bos,
    out: str | Path,
) -> None:
    """Draw a model's calibration windows and save their tokens.

    Args:
        folder: of the model, for its tokenizer.
        dataset: what the config calls the data set, for the record.
        documents: the JSON-lines file to draw from.
        sequences, length, seed: how many windows of how many tokens, and which draws.
        bos: where BOS stands.
        out: safetensors with ``windows``, int32 [sequences, length].
    """
    check_window(load_config(folder).to_dict(), length, folder)
    tokenizer = load_tokenizer(folder, bos)
    windows = calibration_windows(
        Documents(documents), encoder(tokenizer), sequences, length, seed, bos,
        tokenizer.bos_token_id,
    )  # fmt: skip
    about: dict[str, Any] = {
        "dataset": dataset, "sequences": sequences, "length": length, "seed": seed, "bos": bos,
        "source": source(documents), "origin": origin(documents),
    }  # fmt: skip
    save_tokens(out, {"windows": windows}, about | departures(tokenizer))
