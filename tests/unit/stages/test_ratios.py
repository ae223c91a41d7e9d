"""Ratios from stage to stage: scores of blocks, ratios for a pattern, a run that is pruned so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dass.errors import PatternError
from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import BlockScoresResult, RatiosResult, read_result
from dass.stages.activations import activations
from dass.stages.outlier_shares import outlier_shares
from dass.stages.ratios import ratios
from dass.stages.tail_exponents import tail_exponents
from tests.unit.stages.pipeline import Pipeline, masks


def scores_of(pipeline: Pipeline, kind: str) -> Path | None:
    about: dict[str, Any] = {"folder": pipeline.folder, "dtype": pipeline.dtype, "model": "m"}
    out = pipeline.work / f"{kind}.json"
    if kind == "owl":
        norms = pipeline.work / "norms.safetensors"
        activations(
            calibration="c", tokens=pipeline.calibrate(), bos=pipeline.bos, norms_file=norms,
            result_file=pipeline.work / "norms.json", **about,
        )  # fmt: skip
        outlier_shares(calibration="c", norms=norms, outlier=2.0, result_file=out, **about)
    elif kind == "alphapruning":
        tail_exponents(result_file=out, **about)
    else:
        return None
    return out


def ratios_of(pipeline: Pipeline, kind: Any, pattern: str, **arguments: Any) -> Path:
    out = pipeline.work / f"{kind}-{pattern}.json"
    ratios(
        model="m", calibration="c", name="mine", pattern=pattern, kind=kind, arguments=arguments,
        folder=pipeline.folder, dtype=pipeline.dtype, scores=scores_of(pipeline, kind),
        result_file=out,
    )  # fmt: skip
    return out


@pytest.mark.parametrize(
    ("kind", "arguments"), [("owl", {"deviation": 0.2}), ("alphapruning", {"epsilon": 0.4})]
)
def test_a_run_is_pruned_by_its_blocks_ratios(
    pipeline: Pipeline, kind: str, arguments: dict[str, float], tmp_path: Path
) -> None:
    file = ratios_of(pipeline, kind, "u50", **arguments)
    found, scores = read_result(file, RatiosResult), pipeline.work / f"{kind}.json"
    assert found.scores == read_result(scores, BlockScoresResult).scores
    assert sum(found.block_ratios) / 3 == 0.5
    run = {"run": "m/c/method/u50"}
    uniform = pipeline.prune(tmp_path / "uniform", "wanda", **run)
    result = pipeline.prune(tmp_path / "run", "wanda", ratios=file, **run)
    assert result.settings["ratios"] == found.block_ratios
    assert "ratios" not in uniform.settings
    # Rows of 32 round 64ths down.
    assert 0.5 - 1 / 32 < result.mean_sparsity <= 0.5
    for name, sparsity in result.sparsity.items():
        asked = found.block_ratios[int(name.split(".")[2])]
        assert asked - 1 / 32 < sparsity <= asked
    # The highest share of outliers, or the heaviest tail, keeps the most.
    assert found.scores is not None
    extreme = max(found.scores) if kind == "owl" else min(found.scores)
    assert min(found.block_ratios) == found.block_ratios[found.scores.index(extreme)]
    pruned = PrunedFile(tmp_path / "run/pruned.safetensors")
    assert pruned.settings["ratios"] == found.block_ratios
    assert pipeline.perplexity(tmp_path / "run").mask_hash == result.mask_hash
    assert result.mask_hash != uniform.mask_hash


def test_listed_ratios_are_taken_as_they_are(pipeline: Pipeline, tmp_path: Path) -> None:
    shares = [0.75, 0.25, 0.5]
    file = ratios_of(pipeline, "list", "2of4", shares=shares)
    result = pipeline.prune(tmp_path / "run", ratios=file)
    assert read_result(file, RatiosResult).scores is None
    assert result.mean_sparsity == 0.5
    by_block = {int(name.split(".")[2]): own for name, own in result.sparsity.items()}
    assert by_block == dict(enumerate(shares))
    equal = ratios_of(pipeline, "list", "u50", shares=[0.5] * 3)
    run = {"run": "m/c/method/u50"}
    pipeline.prune(tmp_path / "equal", ratios=equal, **run)
    pipeline.prune(tmp_path / "uniform", **run)
    assert masks(tmp_path / "equal") == masks(tmp_path / "uniform")


def test_ratios_that_do_not_fit_the_model_are_refused(pipeline: Pipeline) -> None:
    said = r"^ratios\.mine, m: 2 ratios, but there are 3 blocks; correct them$"
    with pytest.raises(PatternError, match=said):
        ratios_of(pipeline, "list", "u50", shares=[0.4, 0.6])
    with pytest.raises(PatternError, match=r"^ratios\.mine, m: block \d would lose a share of 2"):
        ratios_of(pipeline, "owl", "u50", deviation=2.0)
