"""Masks and perplexities of real-llama against those of the paper's released code, in float32.

The golden perplexities take each split as one row. Masks are compared for every method and
pattern; perplexities for the dense model and for a pruned one whose weights move: where weights
stay, the masks say it all. DASS_REAL_FULL=1 measures every method and pattern on both splits, which
takes half an hour on two cores.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from dass.data.documents import DOCUMENTS, Documents, index_documents, read_rows
from dass.data.tokenizer import encoder, load_tokenizer
from dass.data.windows import cut_windows, draw_windows, tokenise
from dass.evaluation.perplexity import measure_perplexity
from dass.models.streamed import StreamedModel
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned import Pruned
from dass.pruning.pruned_file import PrunedFile, save_pruned, unpack

LENGTH = 512
PATTERNS = ["u50", "4of8", "2of4"]
MASKS_AGREE = {"wanda": 0.999, "dass": 0.999, "sparsegpt": 0.98}
PERPLEXITY_AGREES = {"dense": 0.005, "magnitude": 0.005, "wanda": 0.005, "dass": 0.005}
PERPLEXITY_AGREES["sparsegpt"] = 0.015
FULL = bool(os.environ.get("DASS_REAL_FULL"))
METHODS = ["magnitude", "wanda", "dass", "sparsegpt"]
SPLITS = ["validation", "test"]
MEASURED = (
    [(m, p, s) for m in METHODS for p in PATTERNS for s in SPLITS]
    if FULL
    else [("sparsegpt", "2of4", "validation")]
)


@cache
def golden(real: Path) -> dict:
    return json.loads((real / "golden/real-llama.json").read_text())


@cache
def golden_tokens(real: Path) -> torch.Tensor:
    tokens = np.load(real / f"golden/calibration-{LENGTH}x128-seed0.npy")
    return torch.from_numpy(tokens.astype(np.int64))


@cache
def pruned_by(real: Path, method: str, pattern: str) -> Pruned:
    model = StreamedModel(real / "models/real-llama", torch.float32)
    return prune(model, golden_tokens(real), make_method(method, {}), parse_pattern(pattern))


@cache
def golden_masks(real: Path) -> dict[str, np.ndarray]:
    return dict(np.load(real / "golden/real-llama-masks.npz"))


def masks(real: Path, method: str, pattern: str):
    """Name, our mask and the golden one, of each matrix."""
    ours = pruned_by(real, method, pattern)
    for name, shape in ours.shapes.items():
        packed = golden_masks(real)[f"{method}-{pattern}/{name}"]
        theirs = np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)
        yield name, unpack(ours.masks[name], shape).numpy(), theirs


def measured(real: Path, split: str, overlay: PrunedFile | None) -> float:
    folder = real / "models/real-llama"
    tokenizer = load_tokenizer(folder)
    rows = read_rows(real / f"wikitext-2/{split}.txt", rows="file")
    tokens = tokenise(rows, encoder(tokenizer), "text", tokenizer.bos_token_id)
    windows = cut_windows(tokens, LENGTH, "text", None, split)
    model = StreamedModel(folder, torch.float32, overlay=overlay, resident=True)
    return measure_perplexity(model, windows).perplexity


def test_calibration_draws_the_same_tokens(real: Path) -> None:
    folder = real / "models/real-llama"
    documents = Documents(real / "c4/c4-train.00000-of-01024.json.gz")
    windows = draw_windows(documents, encoder(load_tokenizer(folder)), 128, LENGTH, seed=0)
    assert torch.equal(windows, golden_tokens(real))


def test_calibration_draws_the_same_tokens_from_an_indexed_shard(
    real: Path, tmp_path: Path
) -> None:
    """As a fetched one is kept: unpacked, each document found by its offset."""
    index_documents([real / "c4/c4-train.00000-of-01024.json.gz"], tmp_path)
    documents = Documents(tmp_path / DOCUMENTS)
    encode = encoder(load_tokenizer(real / "models/real-llama"))
    assert torch.equal(draw_windows(documents, encode, 128, LENGTH, 0), golden_tokens(real))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", ["wanda", "dass", "sparsegpt"])
def test_masks_agree(real: Path, method: str, pattern: str) -> None:
    for name, ours, theirs in masks(real, method, pattern):
        assert (ours == theirs).mean() >= MASKS_AGREE[method], name
        assert 1 - ours.mean() == 0.5, name


@pytest.mark.parametrize("pattern", ["4of8", "2of4"])
def test_magnitude_masks_agree_in_groups_without_ties(real: Path, pattern: str) -> None:
    size = int(pattern[-1])
    weights = StreamedModel(real / "models/real-llama", torch.float32).weights
    for name, ours, theirs in masks(real, "magnitude", pattern):
        groups = weights.read([name])[name].abs().reshape(-1, size).sort(dim=1).values
        untied = (groups.diff(dim=1) > 0).all(dim=1).numpy()
        assert untied.mean() > 0.5
        same = (ours == theirs).reshape(-1, size).all(axis=1)
        assert same[untied].all(), name
        assert 1 - ours.mean() == 0.5, name


def test_magnitude_prunes_half_exactly_where_the_golden_one_drops_ties_too(real: Path) -> None:
    ours = pruned_by(real, "magnitude", "u50")
    assert set(ours.sparsity.values()) == {0.5}
    assert golden(real)["magnitude-u50"]["sparsity"] == 0.5011
    for name, kept, theirs in masks(real, "magnitude", "u50"):
        assert not (theirs & ~kept).any(), name  # all that they keep, we keep


@pytest.mark.parametrize("split", SPLITS if FULL else ["test"])
def test_dense_perplexity_agrees(real: Path, split: str) -> None:
    assert measured(real, split, None) == pytest.approx(golden(real)["dense"][split], rel=1e-4)


@pytest.mark.parametrize(("method", "pattern", "split"), MEASURED)
def test_pruned_perplexity_agrees(
    real: Path, tmp_path: Path, method: str, pattern: str, split: str
) -> None:
    pruned = pruned_by(real, method, pattern)
    save_pruned(tmp_path / "pruned", pruned.masks, pruned.values, pruned.shapes, {})
    ours = measured(real, split, PrunedFile(tmp_path / "pruned"))
    theirs = golden(real)[f"{method}-{pattern}"][split]
    assert ours == pytest.approx(theirs, rel=PERPLEXITY_AGREES[method])
