"""What a stage was asked for is what it does: arguments, dtype, limit, and the pruned weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from dass.data.token_file import load_tokens, load_windows
from dass.data.tokenizer import load_tokenizer
from dass.errors import DataError, ModelError
from dass.evaluation.perplexity import measure_perplexity
from dass.evaluation.scores import score_continuations
from dass.evaluation.zero_shot import evaluate
from dass.models.streamed import StreamedModel
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned import Pruned
from dass.pruning.pruned_file import PrunedFile, save_pruned
from dass.results.schema import TaskAccuracy
from dass.terms import Dtype
from tests.unit.stages.pipeline import Pipeline, masks

DTYPES: list[Dtype] = ["float32", "bfloat16", "float16"]


def accuracy_of(folder: Path, pipeline: Pipeline, **changed: Any) -> dict[str, Any]:
    """The library's own evaluation of a checkpoint that is a plain dense one to it."""
    model = StreamedModel(folder, getattr(torch, pipeline.dtype))
    settings = {"max_length": model.max_length, "bos": pipeline.bos} | changed
    found = evaluate(
        partial(score_continuations, model), load_tokenizer(folder),
        {"arc_easy": pipeline.work / "task"}, **settings,
    )  # fmt: skip
    return vars(found["arc_easy"])


def same(said: TaskAccuracy, found: dict[str, Any]) -> bool:
    return said.model_dump() == found


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_zero_shot_of_a_run_is_that_of_its_exported_checkpoint(
    pipeline: Pipeline, method: str, tmp_path: Path
) -> None:
    dense = pipeline.zero_shot()
    assert same(dense.tasks["arc_easy"], accuracy_of(pipeline.folder, pipeline))
    assert dense.mask_hash is None
    pruning = pipeline.prune(tmp_path / "run", method)
    result = pipeline.zero_shot(tmp_path / "run")
    assert same(result.tasks["arc_easy"], accuracy_of(pipeline.export(tmp_path / "run"), pipeline))
    assert result.tasks["arc_easy"].acc != dense.tasks["arc_easy"].acc  # else nothing is shown
    assert result.mask_hash == pruning.mask_hash


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_perplexity_of_a_run_is_that_of_its_exported_checkpoint(
    pipeline: Pipeline, method: str, tmp_path: Path
) -> None:
    pipeline.prune(tmp_path / "run", method)
    result, dense = pipeline.perplexity(tmp_path / "run"), pipeline.perplexity()
    windows = load_tokens(pipeline.tokenise())
    exported = StreamedModel(pipeline.export(tmp_path / "run"), torch.float32)
    for split, said in result.splits.items():
        assert said.model_dump() == vars(measure_perplexity(exported, windows[split]))
        assert said.perplexity != dense.splits[split].perplexity


@pytest.mark.parametrize("limit", [1, 7])
def test_zero_shot_takes_so_many_rows(pipeline: Pipeline, limit: int) -> None:
    result = pipeline.zero_shot(limit=limit)
    assert (result.limit, result.tasks["arc_easy"].samples) == (limit, limit)
    assert same(result.tasks["arc_easy"], accuracy_of(pipeline.folder, pipeline, limit=limit))


def test_zero_shot_cuts_what_is_longer_than_the_models_positions(pipeline: Pipeline) -> None:
    """A question has 12 words, and a model of 8 positions sees the last of them only."""
    long = pipeline.zero_shot().tasks["arc_easy"]
    config = json.loads((pipeline.folder / "config.json").read_text())
    config["max_position_embeddings"] = 8
    (pipeline.folder / "config.json").write_text(json.dumps(config))
    short = pipeline.zero_shot().tasks["arc_easy"]
    assert short.requests_hash != long.requests_hash
    assert same(short, accuracy_of(pipeline.folder, pipeline, max_length=8))


def by_the_library(pipeline: Pipeline, tokens: Path, method: str, **arguments: Any) -> Pruned:
    model = StreamedModel(pipeline.folder, getattr(torch, pipeline.dtype))
    windows = load_tokens(tokens)["windows"]
    return prune(model, windows, make_method(method, arguments), parse_pattern("2of4"))


def test_a_run_is_pruned_with_its_methods_arguments(pipeline: Pipeline, tmp_path: Path) -> None:
    found = {}
    for alpha in (0.0, 0.5, 1.0):
        out = tmp_path / str(alpha)
        result = pipeline.prune(out, arguments={"alpha": alpha})
        assert result.settings["arguments"] == {"alpha": alpha}
        library = by_the_library(pipeline, pipeline.calibrate(), "dass", alpha=alpha)
        assert masks(out) == {name: mask.tolist() for name, mask in library.masks.items()}
        found[alpha] = result.mask_hash
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "dass", "sparsegpt"])
def test_a_run_is_pruned_in_its_dtype(
    pipeline: Pipeline, method: str, dtype: Dtype, tmp_path: Path
) -> None:
    pipeline.dtype = dtype
    result = pipeline.prune(tmp_path / "run", method)
    assert result.settings["dtype"] == dtype
    library = by_the_library(pipeline, pipeline.calibrate(), method)
    save_pruned(tmp_path / "own", library.masks, library.values, library.shapes, {})
    ours, own = PrunedFile(tmp_path / "run/pruned.safetensors"), PrunedFile(tmp_path / "own")
    assert ours.about.hashes == own.about.hashes
    assert ours.hash() == own.hash()
    assert len(own.about.hashes) == (18 if method == "sparsegpt" else 9)
    with safe_open(tmp_path / "run/pruned.safetensors", framework="pt") as file:
        kept = {file.get_tensor(name).dtype for name in file.keys() if name.endswith("values")}  # noqa: SIM118
    assert kept <= {getattr(torch, dtype)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_run_is_evaluated_in_its_dtype(pipeline: Pipeline, dtype: Dtype, tmp_path: Path) -> None:
    in_float32 = pipeline.perplexity().splits["test"].nll
    pipeline.dtype = dtype
    pipeline.prune(tmp_path / "run")
    exported = pipeline.export(tmp_path / "run")
    for run, folder in ((None, pipeline.folder), (tmp_path / "run", exported)):
        perplexity, zero_shot = pipeline.perplexity(run), pipeline.zero_shot(run)
        assert perplexity.settings["dtype"] == zero_shot.settings["dtype"] == dtype
        model = StreamedModel(folder, getattr(torch, dtype))
        windows = load_tokens(pipeline.tokenise())["test"]
        assert perplexity.splits["test"].nll == measure_perplexity(model, windows).nll
        assert same(zero_shot.tasks["arc_easy"], accuracy_of(folder, pipeline))
        if run is None:
            assert (perplexity.splits["test"].nll == in_float32) == (dtype == "float32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_export_is_in_the_runs_dtype(pipeline: Pipeline, dtype: Dtype, tmp_path: Path) -> None:
    pipeline.dtype = dtype
    pipeline.prune(tmp_path / "run", "sparsegpt")
    exported = pipeline.export(tmp_path / "run")
    assert json.loads((exported / "config.json").read_text())["dtype"] == dtype
    with safe_open(exported / "model.safetensors", framework="pt") as file:
        found = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert found == {getattr(torch, dtype)}


def test_a_part_of_a_config_names_the_dtype_of_an_export_too(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    path = pipeline.folder / "config.json"
    config = json.loads(path.read_text()) | {"part": {"torch_dtype": "float64", "x": 1}}
    path.write_text(json.dumps(config))
    pipeline.dtype = "bfloat16"
    pipeline.prune(tmp_path / "run")
    exported = json.loads((pipeline.export(tmp_path / "run") / "config.json").read_text())
    assert exported["part"] == {"dtype": "bfloat16", "x": 1}


# --- What does not belong together ------------------------------------------------------------


def other_weights(pipeline: Pipeline) -> None:
    """Another model in the same folder, of the same form."""
    file = pipeline.folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


def test_masks_of_other_weights_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.prune(tmp_path / "run")
    other_weights(pipeline)
    for stage in (pipeline.perplexity, pipeline.zero_shot, pipeline.export):
        with pytest.raises(ModelError, match=r"^[^\n]*: made from other weights than [^\n]*$"):
            stage(tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"pruned.safetensors", "pruning.json"}


@pytest.mark.parametrize("more", [True, False])
def test_masks_of_another_model_are_refused(pipeline: Pipeline, more: bool, tmp_path: Path) -> None:
    """Where nothing is pruned, the dense weights would be measured in silence."""
    pipeline.prune(tmp_path / "run")
    path = tmp_path / "run/pruned.safetensors"
    file = PrunedFile(path)
    held = {name: file.packed_mask(name).clone() for name in file.shapes}
    shapes = dict(file.shapes)
    last = max(shapes)
    if more:
        name = last.replace("layers.2", "layers.3")
        held[name], shapes[name] = held[last].clone(), shapes[last]
    else:
        del held[last], shapes[last]
    save_pruned(path, held, {}, shapes, file.settings)
    what = "prunes" if more else "does not prune"
    for stage in (pipeline.perplexity, pipeline.zero_shot):
        with pytest.raises(ModelError, match=rf"made for another model than .*: it {what} model"):
            stage(tmp_path / "run")


def test_masks_with_a_flipped_bit_are_refused_before_the_work(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.prune(tmp_path / "run")
    path = tmp_path / "run/pruned.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)
    for stage in (pipeline.perplexity, pipeline.zero_shot, pipeline.export):
        with pytest.raises(DataError, match=r"^[^\n]*damaged pruned file[^\n]*prune again$"):
            stage(tmp_path / "run")


def test_a_tokenizer_of_another_model_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    """Its tokens have no row in the embedding."""
    tokenizer = json.loads((pipeline.folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"w{n}": 2000 + n for n in range(2, 128)}
    (pipeline.folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = r"the tokenizer has the token 'w\d+' \(2\d\d\d\), but the model knows 128 only"
    for stage in (lambda: pipeline.prune(tmp_path), pipeline.perplexity, pipeline.zero_shot):
        with pytest.raises(DataError, match=said):
            stage()


def test_tokens_of_the_wrong_kind_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no windows 'windows'; delete it, run again$"):
        pipeline.prune(tmp_path / "run", tokens=pipeline.tokenise())
    with pytest.raises(DataError, match=r"holds no windows 'test'; delete it, run again$"):
        load_windows(pipeline.calibrate(), "test", 128)
