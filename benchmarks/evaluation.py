"""Seconds of the five zero-shot tasks and of perplexity, beside lm-eval's HFLM and the floor.

    python benchmarks/evaluation.py --requests results/paper/requests/llama2-7b.safetensors \
        --shape 7b --out benchmarks/results/evaluation-7b.json

Random weights of a model's shapes, and the real requests that the stage zero_shot_requests saved.
HFLM and a plain loop over windows run on the same weights in the same process. The floor is what
the arithmetic alone would take at the rate that a large matrix product reaches here, in a burst
and held for seconds: each beginning of a request once, each window once.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pruning import DEVICE, DTYPE, forget_peak, matmul_rate, peaks, synchronise, write_model
from torch.nn import functional

from dass.evaluation.likelihood import score_apart, window_losses
from dass.evaluation.requests import Request, load_requests
from dass.evaluation.scores import score_continuations
from dass.evaluation.trees import grow, lay_out, row_length
from dass.models.shape import Shape
from dass.models.streamed import StreamedModel
from dass.runtime.files import write_text
from dass.runtime.provenance import provenance
from dass.speed.results import compact
from dass.speed.shapes import SHAPES

VOCABULARY = 49152


def operations(shape: Shape, tokens: int, keys: float, scored: int) -> float:
    """The fewest floating-point operations of a forward, where a token sees so many on average."""
    block = 2 * (shape.attention + shape.mlp) + 4 * shape.heads * shape.head_size * keys
    return tokens * shape.blocks * block + 2 * scored * VOCABULARY * shape.hidden


def seconds_of(call: Callable[[], object]) -> tuple[float, object]:
    """Seconds of a call, and what it returns."""
    synchronise()
    started = time.perf_counter()
    result = call()
    synchronise()
    return time.perf_counter() - started, result


def hflm(folder: Path, requests: list[Request], batch: int) -> list[float]:
    """lm-eval's own model class, given the tokens."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPE).to(DEVICE).eval()
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    lm = HFLM(pretrained=model, tokenizer=bare, max_length=2048, batch_size=batch)
    asked = [(("", str(n)), context, ending) for n, (context, ending) in enumerate(requests)]
    return [score for score, _ in lm._loglikelihood_tokens(asked, disable_tqdm=True)]


def zero_shot_rows(
    folder: Path, shape: Shape, requests: list[Request], rate: float, batches: list[int]
) -> list[dict]:
    """Ours, ours without sharing, and HFLM at several batch sizes."""
    read = [[*context, *ending][:-1] for context, ending in requests]
    trees = [grow([request]) for request in requests]
    alone = sum(len(tree.tokens) for tree in trees)
    shared = grow(sorted(requests))
    scored = len({place for places in shared.places for place in places})
    keys = sum(shared.depths) / len(shared.depths) + 1
    floor = operations(shape, len(shared.tokens), keys, scored) / rate
    rows: list[dict] = []
    expected: list[float] = []

    def keep(what: str, call: Callable[[], list[float]]) -> None:
        forget_peak()
        seconds, scores = seconds_of(call)
        expected[:] = expected or scores
        rows.append({
            "work": "zero-shot", "what": what, "seconds": seconds, "floor_seconds": floor,
            "share_of_floor": floor / seconds, "requests": len(read), "tokens_alone": alone,
            "tokens_shared": len(shared.tokens),
            "largest_difference": max(abs(a - b) for a, b in zip(scores, expected, strict=True)),
            **peaks(),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)

    ours = [StreamedModel(folder, DTYPE, DEVICE, resident=True)]
    rows_of = lay_out(requests, row_length(ours[0].hidden_size))  # once for each model
    score_continuations(ours[0], requests[:200])  # reads all weights, compiles kernels
    for what in ("contexts once", "contexts once, again"):
        keep(what, lambda: [s for s, _ in score_continuations(ours[0], requests, rows_of)])
    keep("each request apart", lambda: [s for s, _ in score_apart(ours[0], requests)])
    ours.clear()  # makes room for lm-eval's
    for batch in batches:
        keep(f"lm-eval's HFLM, batch {batch}", lambda batch=batch: hflm(folder, requests, batch))
    return rows


def perplexity_rows(folder: Path, shape: Shape, windows: int, rate: float) -> list[dict]:
    """Ours with weights resident, ours streamed, and a plain loop over windows."""
    from transformers import AutoModelForCausalLM

    size = (windows, 2048)
    tokens = torch.randint(3, VOCABULARY, size, generator=torch.Generator().manual_seed(0))
    floor = operations(shape, tokens.numel(), 1024.5, windows * 2047) / rate
    rows: list[dict] = []

    def keep(what: str, call: Callable[[], object]) -> None:
        forget_peak()
        seconds, losses = seconds_of(call)
        rows.append({
            "work": "perplexity", "what": what, "seconds": seconds, "floor_seconds": floor,
            "share_of_floor": floor / seconds, "tokens": tokens.numel(),
            "mean_loss": float(torch.as_tensor(losses).double().mean()), **peaks(),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)

    for what, resident in (("resident", True), ("streamed", False)):
        model = StreamedModel(folder, DTYPE, DEVICE, resident=resident)
        window_losses(model, tokens[:8])
        keep(what, partial(window_losses, model, tokens))
        model = None
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPE).to(DEVICE).eval()

    def loop() -> torch.Tensor:
        losses = []
        with torch.inference_mode():
            for window in tokens.split(1):
                logits = plain(window.to(DEVICE)).logits[0, :-1].float()
                losses.append(functional.cross_entropy(logits, window[0, 1:].to(DEVICE)))
        return torch.stack(losses)

    keep("plain loop, one window at a time", loop)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--shape", choices=[*SHAPES, "smollm2-135m"], default="7b")
    parser.add_argument("--hflm", default="", help="batch sizes, as in 16,64")
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--limit", type=int, help="of the requests, to try it out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="where to write the model")
    options = parser.parse_args()
    shape = SHAPES.get(options.shape) or Shape(576, 1536, 9, 3, 30)
    tasks, _ = load_requests(options.requests)
    requests = [request for task in tasks.values() for request in task.requests]
    rate, held = matmul_rate(), matmul_rate(held=2)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_model(folder, shape, shape.blocks, VOCABULARY)
        batches = [int(batch) for batch in options.hflm.split(",") if batch]
        rows = zero_shot_rows(folder, shape, requests[: options.limit], rate, batches)
        if options.windows:
            rows += perplexity_rows(folder, shape, options.windows, rate)
    for row in rows:
        row["share_of_held_floor"] = row["share_of_floor"] * rate / held
    content = {
        "command": " ".join(["python", *sys.argv]), "dtype": str(DTYPE), "shape": options.shape,
        "matmul_tflops": rate / 1e12, "held_tflops": held / 1e12, "rows": rows,
        "provenance": provenance(),
    }  # fmt: skip
    write_text(options.out, compact(content))


if __name__ == "__main__":
    main()
