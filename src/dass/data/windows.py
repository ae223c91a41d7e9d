"""Token windows: drawn from documents to calibrate on, cut from a text to evaluate on.

The draws are those of Wanda, SparseGPT and the DaSS authors: with the same tokenizer, file and
seed the windows are the same to the token. A text is tokenised and cut as the released code does:
rows joined with two newlines, tokenised once, cut into floor(n / length) windows. Documents
are joined with a blank, as SparseGPT and Wanda join those of C4's validation split.
"""

import random

import torch
from torch import Tensor

from dass.data.documents import Documents
from dass.data.tokenizer import Encode
from dass.errors import DataError
from dass.runtime.progress import Progress
from dass.terms import Bos


def calibration_windows(
    documents: Documents,
    encode: Encode,
    sequences: int,
    length: int,
    seed: int,
    bos: Bos,
    bos_id: int | None,
) -> Tensor:
    """The windows that a model is calibrated on, int64 [sequences, length].

    With ``bos: window`` BOS takes the place of the last token of a window as drawn, so that windows
    are as long as other models'; a window that begins its document has its BOS already.

    Raises:
        DataError: as :func:`draw_windows`; or there is no BOS to put in front.
    """
    windows = draw_windows(documents, encode, sequences, length, seed)
    if bos == "text":
        return windows
    begun = put_bos_in_front(windows[:, :-1], bos_id)
    has_bos: Tensor = windows[:, :1].eq(begun[0, 0])
    return torch.where(has_bos, windows, begun)


def draw_windows(
    documents: Documents, encode: Encode, sequences: int, length: int, seed: int
) -> Tensor:
    """Draw calibration windows: a random document that is long enough, then a random offset.

    Whether enough documents are long enough is looked at once half as many draws were made as
    there are documents. With fewer than ``sequences`` that are, no more than half of ``sequences``
    are to be expected by then, so that the lack is noticed; where there are plenty, as in C4's
    shard (356,317 documents, some ten thousand draws), they are never all tokenised for it.

    Returns:
        int64 [sequences, length].

    Raises:
        DataError: fewer documents than ``sequences`` have more than ``length`` tokens.
    """
    draw = random.Random(seed)
    progress = Progress("drawing calibration windows", sequences, "windows")
    windows: list[list[int]] = []
    draws, counted = 0, False
    while len(windows) < sequences:
        tokens = encode(documents[draw.randint(0, len(documents) - 1)])
        draws += 1
        if draws > len(documents) // 2 and not counted:
            _check_enough(documents, encode, sequences, length)
            counted = True
        if len(tokens) > length:
            start = draw.randint(0, len(tokens) - length - 1)
            windows.append(tokens[start : start + length])
            progress.step()
    return torch.tensor(windows, dtype=torch.int64)


def _check_enough(documents: Documents, encode: Encode, sequences: int, length: int) -> None:
    """Every document has been in reach of the draws by now: count those that are long enough."""
    usable = sum(len(encode(documents[i])) > length for i in range(len(documents)))
    if usable < sequences:
        raise DataError(
            f"{documents.path}: {usable} of {len(documents)} documents have more than {length} "
            f"tokens, but the calibration asks for {sequences} sequences; ask for fewer or shorter "
            "ones (config key calibrations), or give more text"
        )


def put_bos_in_front(windows: Tensor, bos_id: int | None) -> Tensor:
    """Windows [n, length] with BOS in front of each, [n, length + 1].

    Raises:
        DataError: the tokenizer has no BOS.
    """
    if bos_id is None:
        raise DataError(
            "`bos: window` asks for BOS in each window, but the tokenizer has no BOS; set the "
            "model's `bos: text`, or give the tokenizer that belongs to it"
        )
    front = torch.full((len(windows), 1), bos_id, dtype=windows.dtype)
    return torch.cat([front, windows], dim=1)


def tokenise(
    rows: list[str], encode: Encode, bos: Bos, bos_id: int | None, between: str = "\n\n"
) -> Tensor:
    """All tokens of a split, int64 [n], without the BOS in front where each window gets its own.

    ``between`` is what rows or documents are joined with.
    """
    tokens = encode(between.join(rows))
    if bos == "window" and tokens and tokens[0] == bos_id:
        tokens = tokens[1:]
    return torch.tensor(tokens, dtype=torch.int64)


def cut_windows(tokens: Tensor, length: int, bos: Bos, bos_id: int | None, name: str) -> Tensor:
    """Cut tokens [n] into whole windows, int64 [floor(n / length), length].

    With ``bos: window`` a window is BOS and length - 1 tokens of the text.

    Raises:
        DataError: the text is shorter than one window, or there is no BOS to put in front.
    """
    step = length - 1 if bos == "window" else length
    count = len(tokens) // step
    if count == 0:
        raise DataError(
            f"{name}: {len(tokens)} tokens are fewer than one window of {length}; "
            "give a longer text or a smaller `perplexity.length`"
        )
    windows = tokens[: count * step].reshape(count, step)
    return put_bos_in_front(windows, bos_id) if bos == "window" else windows
