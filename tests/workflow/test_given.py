"""Masks from elsewhere as a method: its files are inputs, one for each model and pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .conftest import Workflow, small_study
from .test_wiring import jobs_of, planned

METHOD = {"function": "given", "label": "Theirs", "path": "masks/<model>/<pattern>.safetensors"}


def given_study(**changes: Any) -> dict[str, Any]:
    study = small_study()
    study["methods"]["theirs"] = METHOD | changes
    study["experiments"]["main"] |= {"methods": ["wanda", "theirs"], "patterns": ["2of4", "u50"]}
    study["speed"] = {"metric": {"of": ["standin-llama"], "repeats": 1}}
    return study


def test_each_run_reads_its_own_file_and_no_other(fresh: Workflow) -> None:
    fresh.write_study(given_study())
    refused = fresh.snakemake("--dry-run")
    file = "masks/standin-llama/2of4.safetensors"
    said = f"error: methods.theirs.path: {file} does not exist; give a checkpoint's folder"
    assert refused.code != 0 and said in refused.output
    runs = [(m, p) for m in ("standin-llama", "standin-mistral") for p in ("2of4", "u50")]
    for model, pattern in runs:
        path = fresh.folder / f"masks/{model}/{pattern}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    jobs = jobs_of(planned(fresh, "all"), "prune_run")
    found = {out: job for out, job in jobs.items() if "/theirs/" in out}
    assert len(found) == 4 and len(jobs) == 8
    for model, pattern in runs:
        file = f"masks/{model}/{pattern}.safetensors"
        job = found[f"results/small/runs/{model}/toy/theirs/{pattern}/pruned.safetensors"]
        assert job["input"]["given"] in (file, [file])
        assert job["params"]["arguments"] == {"path": file}
        modules = {Path(name).name for name in job["input"]["method"]}
        assert {"given.py", "given_masks.py"} <= modules
    for out, job in jobs.items():
        if out not in found:
            assert job["input"]["given"] == []
            assert not any("given" in name for name in job["input"]["modules"])
    timed = jobs_of(planned(fresh, "all"), "speed_metric")
    assert list(timed) == ["results/small/speed/metric/standin-llama/wanda.json"]


def test_it_has_no_metric_to_time(fresh: Workflow) -> None:
    study = given_study()
    study["speed"]["metric"]["methods"] = ["wanda", "theirs"]
    refused = fresh.snakemake("--dry-run", config=fresh.write_study(study))
    said = "speed.metric.methods: theirs takes masks from files, which is no metric; remove it"
    assert refused.code != 0 and said in refused.output
