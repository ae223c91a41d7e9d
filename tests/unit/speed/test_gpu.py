"""2:4 on a GPU, as far as a machine without one can tell: axes, products, refusals, records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import silu
from transformers import AutoModelForCausalLM

from dass.errors import ModelError, PatternError
from dass.models.streamed import StreamedModel
from dass.packed.best import pack_pruned
from dass.packed.product import tensors_of
from dass.pruning.masks import keep_mask
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import PrunedFile, save_pruned
from dass.speed import gpu, prefill
from dass.speed.__main__ import main
from dass.speed.gpu import DASS, PACKED, benchmark, glu
from dass.speed.gpu_timing import NO_GRAPH, GpuSettings
from dass.speed.shapes import SHAPES, random_weight
from dass.speed.timing import Outcome, relative_error
from dass.speed.twofour import backends, check_axis, convert, is_2of4

TINY = SHAPES["tiny"]


class Kept(torch.Tensor):
    """Stands for a semi-structured tensor: a plain one that can be made dense."""

    def to_dense(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def keep(weight: torch.Tensor) -> torch.Tensor:
    return weight.clone().as_subclass(Kept)


def drop_one(weight: torch.Tensor) -> torch.Tensor:
    changed = weight.clone()
    changed.view(-1)[changed.view(-1).nonzero()[0]] = 0
    return changed.as_subclass(Kept)


def masked(axis: str) -> torch.Tensor:
    weight = random_weight((16, 32), 0, torch.float32, "cpu")
    return weight * keep_mask(weight.abs(), parse_pattern("2of4"), "row", axis)


def settings(**changes) -> GpuSettings:
    given = {"tokens": (1, 130), "repeats": 2, "warmup": 1, "dtype": "float32",
             "device": "cpu", "compress": {"kept": keep}}  # fmt: skip
    return GpuSettings(**given | changes)


def test_groups_are_told_apart_by_their_axis() -> None:
    # Row 0 holds 2 of 4; column 0 holds 4 of 4.
    along_input = torch.tensor([[1.0, 2, 0, 0]] * 4)
    assert is_2of4(along_input, "input") and not is_2of4(along_input, "output")
    assert is_2of4(along_input.t(), "output") and not is_2of4(along_input.t(), "input")
    assert not is_2of4(torch.ones(4, 4), "input")
    assert not is_2of4(torch.zeros(4, 6), "input")  # no whole groups


def test_a_mask_along_the_output_is_refused_with_the_reason() -> None:
    check_axis(masked("input"), "down")
    with pytest.raises(PatternError, match=r"gate: its 2:4 groups lie along the output.*dense"):
        check_axis(masked("output"), "gate")
    with pytest.raises(PatternError, match="up: not 2:4 along the input"):
        check_axis(torch.ones(8, 8), "up")


def test_a_mask_along_the_output_never_reaches_the_conversion() -> None:
    def must_not_run(weight: torch.Tensor) -> torch.Tensor:
        raise AssertionError("converted")

    with pytest.raises(PatternError, match="along the output"):
        convert(masked("output"), must_not_run, "gate")


def test_a_conversion_that_loses_an_entry_is_refused() -> None:
    assert torch.equal(convert(masked("input"), keep, "down"), masked("input"))
    with pytest.raises(PatternError, match="changed its entries"):
        convert(masked("input"), drop_one, "down")


def test_relative_error_by_hand() -> None:
    assert relative_error(torch.tensor([1.0, -3.5]), torch.tensor([1.0, -4.0])) == 0.125


def test_the_glu_is_the_formula() -> None:
    weights = {role: random_weight(TINY.matrix(role), n, torch.float64, "cpu")
               for n, role in enumerate(("gate", "up", "down"))}  # fmt: skip
    x = torch.randn(3, TINY.hidden, dtype=torch.float64)
    wanted = (silu(x @ weights["gate"].T) * (x @ weights["up"].T)) @ weights["down"].T
    torch.testing.assert_close(glu(x, weights, "silu"), wanted)
    torch.testing.assert_close(glu(x, {"gate": weights["gate"]}, "silu"), x @ weights["gate"].T)


def test_every_part_and_variant_is_measured_and_equals_the_masked_product() -> None:
    outcome = benchmark(TINY, settings())
    found = {(m.part, m.engine, m.variant, m.tokens) for m in outcome.measurements}
    both = [("torch", "dense"), ("kept", "2of4")]
    three = [*both, ("kept", DASS)]
    wanted = {(p, *v, t) for p in ("gate", "down") for v in both for t in (1, 130)}
    wanted |= {(p, *v, t) for p in ("mlp", "block") for v in three for t in (1, 130)}
    wanted |= {("prefill", *v, 130) for v in three} | {("decode", *v, 1) for v in three}
    assert found == wanted
    assert all(m.error is not None and m.error < 1e-5 for m in outcome.measurements)
    assert all(len(m.seconds) == 2 and min(m.seconds) > 0 for m in outcome.measurements)
    assert {m.blocks for m in outcome.measurements if m.part == "prefill"} == {TINY.blocks}


def test_packed_weights_are_measured_in_half_precision() -> None:
    half = settings(parts=("mlp", "decode"), tokens=(1, 2), dtype="float16")
    outcome = benchmark(TINY, half)
    found = {(m.part, m.variant, m.tokens) for m in outcome.measurements if m.engine == PACKED}
    variants = ("2of4", DASS, "4of8", "u50")
    assert found == {(p, v, t) for p in ("mlp", "decode") for v in variants for t in (1, 2)}
    assert not [one for one in outcome.skipped if one.engine == PACKED and one.mode != "graph"]


def test_what_cannot_run_is_recorded_with_its_reason() -> None:
    outcome = benchmark(TINY, settings(parts=("mlp",), tokens=(1,)))
    reasons = {(r.engine, r.variant, r.mode): r.reason for r in outcome.skipped}
    assert reasons["torch", "dense", "graph"] == NO_GRAPH
    assert "along the output" in reasons["stock kernels", f"{DASS}, gate and up", ""]


def test_a_backend_that_computes_something_else_is_not_timed() -> None:
    wrong = settings(parts=("down",), tokens=(4,), compress={"wrong": lambda w: keep(w * 2)})
    outcome = Outcome()
    gpu.measure_part(TINY, "down", wrong, outcome)
    assert {m.engine for m in outcome.measurements} == {"torch"}
    assert any("changed its entries" in r.reason for r in outcome.skipped)


def test_one_failing_backend_loses_no_other() -> None:
    def fails(weight: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("only Ampere is supported")

    both = settings(parts=("mlp",), tokens=(1,), compress={"fails": fails, "kept": keep})
    outcome = benchmark(TINY, both)
    assert {(m.engine, m.variant) for m in outcome.measurements} == {
        ("torch", "dense"), ("kept", "2of4"), ("kept", DASS),
    }  # fmt: skip
    assert "only Ampere is supported" in {r.reason for r in outcome.skipped}


def test_a_backend_that_refuses_the_first_block_is_left_out_of_the_model() -> None:
    # Its round trip, which only the first block's weights make, fails as CUTLASS's does on Hopper.
    compress = {"kept": keep, "lossy": drop_one}
    outcome = benchmark(TINY, settings(parts=("prefill",), tokens=(130,), compress=compress))
    assert {one.engine for one in outcome.measurements} == {"torch", "kept"}
    refused = [one for one in outcome.skipped if one.engine == "lossy"]
    assert len(refused) == 1 and refused[0].tokens is None, refused


def test_without_a_gpu_torchs_own_backends_refuse() -> None:
    real = settings(parts=("down",), tokens=(1,), compress=backends())
    outcome = benchmark(TINY, real)
    refused = {r.engine for r in outcome.skipped if "CUDA" in r.reason and r.variant == "2of4"}
    assert refused == {"cusparselt", "cutlass"}


def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "dry.json"
    arguments = [
        "gpu",
        "--shapes",
        "tiny",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--tokens",
        "1,2",
    ]
    assert main([*arguments, "--parts", "mlp", "--repeats", "2", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["command"].startswith("python -m dass.speed gpu --shapes tiny")
    (result,) = content["results"]
    assert {m["tokens"] for m in result["measurements"]} == {1, 2}
    assert result["machine"]["cpu"] and result["machine"]["gpu"] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_nothing_is_measured(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["gpu", "--shapes", "tiny", "--out", str(tmp_path / "x.json")])
    assert "no GPU here, so nothing is measured" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("permute", [False, True])
@pytest.mark.parametrize(("method", "dense_roles"), [("wanda", set()), ("dass", {"gate", "up"})])
def test_a_pruned_model_is_prefilled_with_what_stock_kernels_can_run(
    method: str, dense_roles: set[str], permute: bool, tiny_model, tokens: torch.Tensor,
    tmp_path: Path,
) -> None:  # fmt: skip
    folder, model = tiny_model("llama"), StreamedModel(tiny_model("llama"), torch.float32)
    pattern = parse_pattern("2of4")
    pruned = prune(model, tokens, make_method(method, {}), pattern, permute=permute)
    save_pruned(tmp_path / "p", pruned.masks, pruned.values, pruned.shapes, {}, pruned.orders)
    outcome = prefill.prefill_of_run(folder, tmp_path / "p", "2of4", settings(tokens=(1, 128)))
    measured = {(m.engine, m.variant, m.tokens, m.blocks) for m in outcome.measurements}
    assert measured == {
        (*v, t, 3) for v in (("torch", "dense"), ("kept", "2of4")) for t in (1, 128)
    }
    assert all(m.error is not None and m.error < 1e-4 for m in outcome.measurements)
    refused = {r.variant: r.reason for r in outcome.skipped if r.mode == "" and r.engine == "kept"}
    assert set(refused) == {f"2of4, {role}" for role in dense_roles}
    assert all("along the output" in reason for reason in refused.values())


@pytest.mark.parametrize("pattern", ["2of4", "4of8", "u50"])
def test_packed_weights_decode_any_pattern_and_say_how_large_they_are(
    pattern: str, tiny_model, tokens: torch.Tensor, tmp_path: Path
) -> None:
    folder = tiny_model("llama")
    model = StreamedModel(folder, torch.float32)
    pruned = prune(model, tokens, make_method("dass", {}), parse_pattern(pattern))
    save_pruned(tmp_path / "p", pruned.masks, pruned.values, pruned.shapes, {})
    half = settings(tokens=(1, 2), dtype="float16", compress={})
    outcome = prefill.prefill_of_run(folder, tmp_path / "p", pattern, half)
    measured = {(m.part, m.engine, m.variant, m.tokens) for m in outcome.measurements}
    variants = (("torch", "dense"), (PACKED, pattern))
    assert measured == {("decode", *variant, n) for variant in variants for n in (1, 2)}
    dense = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    size = sum(weight.nbytes for weight in dense.parameters())
    kept = overlaid(dense, tmp_path / "p")
    assert outcome.weight_bytes == {"torch": size, PACKED: size + kept}


def overlaid(model: torch.nn.Module, pruned: Path) -> int:
    """How many bytes packing each MLP adds; small matrices fill their chunks with zeros."""
    overlay, added = PrunedFile(pruned), 0
    for name, weight in model.named_parameters():
        if ".mlp." in name:
            added -= weight.nbytes
            packed = pack_pruned(overlay(name, weight.data).contiguous(), bitmap=True)
            added += sum(tensor.nbytes for tensor in tensors_of(packed))
    return added


def test_weights_that_cannot_be_packed_have_no_size(
    tiny_model, tokens: torch.Tensor, tmp_path: Path
) -> None:
    folder, pattern = tiny_model("llama"), parse_pattern("2of4")
    pruned = prune(StreamedModel(folder, torch.float32), tokens, make_method("wanda", {}), pattern)
    save_pruned(tmp_path / "p", pruned.masks, pruned.values, pruned.shapes, {})
    outcome = prefill.prefill_of_run(folder, tmp_path / "p", "2of4", settings(tokens=(1,)))
    assert outcome.weight_bytes.keys() == {"torch"}  # float32


def test_a_model_that_does_not_fit_is_not_even_read(
    tiny_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model("llama")
    size = (folder / "model.safetensors").stat().st_size
    monkeypatch.setattr(prefill, "free_memory", lambda device: 2 * size - 1)
    outcome = prefill.prefill_of_run(folder, tmp_path / "no such file", "2of4", settings())
    assert not outcome.measurements
    assert [(r.part, r.engine) for r in outcome.skipped] == [("prefill", "all")]
    assert "are free" in outcome.skipped[0].reason


def test_a_file_that_prunes_other_weights_is_refused(
    tiny_model, tokens: torch.Tensor, tmp_path: Path
) -> None:
    folder, pattern = tiny_model("llama"), parse_pattern("2of4")
    pruned = prune(StreamedModel(folder, torch.float32), tokens, make_method("wanda", {}), pattern)
    about = {"model": {"config": "0" * 64, "weights": "0" * 64}}
    save_pruned(tmp_path / "p", pruned.masks, pruned.values, pruned.shapes, about)
    with pytest.raises(ModelError, match="made from other weights"):
        prefill.prefill_of_run(folder, tmp_path / "p", "2of4", settings(tokens=(1,)))


def test_a_model_with_fused_projections_says_that_it_is_not_measured(
    tiny_model, tokens: torch.Tensor, tmp_path: Path
) -> None:
    folder = tiny_model("phi3")
    model = StreamedModel(folder, torch.float32)
    pruned = prune(model, tokens, make_method("wanda", {}), parse_pattern("2of4"))
    save_pruned(tmp_path / "p", pruned.masks, pruned.values, pruned.shapes, {})
    outcome = prefill.prefill_of_run(folder, tmp_path / "p", "2of4", settings(tokens=(128,)))
    assert not outcome.measurements
    assert "gate and up are one matrix" in outcome.skipped[0].reason
