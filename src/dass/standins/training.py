"""Training of the stand-ins: one small model of each family, from random weights.

The models are as small as they can be and still answer the tasks, and their MLPs have to hold
most of what they know: pruning them shows.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dass.data.documents import Documents, read_rows
from dass.errors import DataError, ModelError
from dass.runtime.files import writing_directory
from dass.runtime.progress import Progress
from dass.standins import DEFAULT_STEPS
from dass.standins.muon import Muon
from dass.standins.tokenizer import BOS_ID, EOS_ID, LONGEST, VOCABULARY, train_tokenizer
from dass.terms import Dtype

WINDOW = 256  # tokens
BATCH = 4  # windows per step
SHORT = 32  # tokens that the windows are cut to at first: few enough to find a subject among
SHORT_SHARE = 0.6  # of the steps
MATRIX_RATE = 0.02  # Muon's, for the matrices of the blocks
OTHER_RATE = 1e-2  # Adam's, for the embeddings, the head and the gains
WARM_UP = 20  # steps
WIKITEXT_COPIES = 4  # the articles are few beside the documents

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": LONGEST,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "initializer_range": 0.07,  # smaller ones learn to attend to a question's subject later
    "pad_token_id": EOS_ID,
}


def train_standin(
    family: str,
    corpus: str | Path,
    out: str | Path,
    seed: int,
    steps: int = DEFAULT_STEPS,
    dtype: Dtype = "float32",
) -> None:
    """Train the stand-in of a family on the toy corpus; write a model folder.

    Args:
        family: one of ``FAMILIES``.
        corpus: the folder that :func:`dass.standins.writing.write_corpus` wrote.
        out: the folder to write.
        seed: of the initial weights and of the order of the text.
        steps: of training.
        dtype: that the weights are saved in; they are trained in float32.

    Raises:
        ModelError: there is no such family.
        DataError: a file of the corpus is missing or too small.
    """
    texts = read_texts(Path(corpus))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(), writing_directory(out) as folder:
        torch.manual_seed(seed)
        train_tokenizer(texts, folder)
        windows = _pack(texts, folder)
        model = _new_model(family).to(device)
        _fit(model, windows, steps, f"training {family}")
        _save(model.to(getattr(torch, dtype)), folder)


def read_texts(corpus: Path) -> list[str]:
    """What is learnt: the documents, and WikiText's training articles as evaluation joins them."""
    documents = Documents(corpus / "documents.jsonl.gz")
    texts = [documents[i] for i in range(len(documents))]
    articles = "\n\n".join(read_rows(corpus / "wikitext" / "train.jsonl"))
    return texts + [articles] * WIKITEXT_COPIES


def _pack(texts: list[str], folder: Path) -> Tensor:
    """All texts in a random order, each behind a BOS, cut into windows: int64 [n, WINDOW]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = tokenizer.encode_batch(texts)
    order = torch.randperm(len(texts)).tolist()
    stream = torch.tensor([token for i in order for token in encoded[i].ids])
    count = len(stream) // WINDOW
    if count < BATCH:
        raise DataError(
            f"the stand-ins' documents give {count} windows of {WINDOW} tokens, fewer than a "
            f"batch of {BATCH}; ask for more documents"
        )
    return stream[: count * WINDOW].view(count, WINDOW)


def _new_model(family: str) -> Any:
    """The family's architecture with random weights, in float32."""
    import transformers as hf

    if family == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE, dtype="float32"))
    if family == "mistral":
        # A window shorter than the text: an evaluation that drops the mask gives other numbers.
        own = {"num_key_value_heads": 2, "sliding_window": WINDOW // 2}
        return hf.MistralForCausalLM(hf.MistralConfig(**(SHAPE | own), dtype="float32"))
    if family == "gemma":
        # One head for all keys and values, but a wide one, as in Gemma 2B.
        own = {"num_key_value_heads": 1, "head_dim": 64}
        return hf.GemmaForCausalLM(hf.GemmaConfig(**(SHAPE | own), dtype="float32"))
    raise ModelError(f"no stand-in of the family {family!r}: choose llama, mistral or gemma")


def _fit(model: Any, windows: Tensor, steps: int, what: str) -> None:
    """Muon and Adam with a short warm-up and a cosine down to nothing.

    Attention begins nearly uniform, so that in a long window the one name that decides an answer
    hardly counts. Short windows first make the models learn to look for it early.
    """
    matrices, others = _divided(model)
    muon, adam = Muon(matrices), torch.optim.Adam(others, betas=(0.9, 0.95), fused=True)
    progress = Progress(what, total=steps, unit="steps")
    model.train()
    for step, batch in zip(range(steps), _batches(windows), strict=False):
        rate = _rate(step, steps)
        batch = batch.to(model.device)
        if step < SHORT_SHARE * steps:
            batch = batch.view(-1, SHORT)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step(rate * MATRIX_RATE)
        adam.param_groups[0]["lr"] = rate * OTHER_RATE
        adam.step()
        model.zero_grad()
        progress.step(note=f"loss {loss.item():.2f}")
    model.eval()


def _divided(model: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The matrices inside the blocks, and all other parameters; tied ones once."""
    inner = {id(p) for p in model.model.layers.parameters() if p.ndim == 2}
    parameters = list(model.parameters())
    return (
        [p for p in parameters if id(p) in inner],
        [p for p in parameters if id(p) not in inner],
    )


def _save(model: Any, folder: Path) -> None:
    """Save without a bar, and with the modes that files of this process have."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        if bars:
            logging.enable_progress_bar()


def _batches(windows: Tensor) -> Iterator[Tensor]:
    """Batches without end: int64 [BATCH, WINDOW]; every window once in each round."""
    while True:
        for rows in torch.randperm(len(windows)).split(BATCH):
            if len(rows) == BATCH:
                yield windows[rows]


def _rate(step: int, steps: int) -> float:
    """The learning rate at a step, as a share of its peak."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))
