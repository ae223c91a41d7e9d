"""A rule's declared inputs are the modules that its stage really imports: no more, no less."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dass.runtime.source_files import ROOT, module_files

RUN = """
import importlib, json, os, sys
import matplotlib.pyplot, torch, transformers.models.llama.modeling_llama
assert "dass" not in sys.modules
for stage, arguments in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        getattr(importlib.import_module(f"dass.stages.{stage}"), stage)(**arguments)
        files = [m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "dass"]
        print(json.dumps({"stage": stage, "files": files}), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(stage)
"""
"""Each stage in a process that has imported nothing of the library; what takes long it has."""

WITHOUT_EFFECT = {"__init__.py", "errors.py", "results/schema.py"}
"""With all of runtime/: the version, words of errors, and the form of result files. Not taken from
the library's own list, which could then excuse anything."""

WITH_A_GPU = {"models/fused_triton.py", "pruning/masks_triton.py"}
"""Imported where there is a GPU only."""


def relative(files: list[str]) -> set[str]:
    return {str(Path(file).relative_to(ROOT)) for file in files}


def imported(stages: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """What each stage has imported of the library once it has run."""
    command = [sys.executable, "-c", RUN, json.dumps(stages, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"stage"')]
    assert [one["stage"] for one in said] == list(stages)
    return {
        one["stage"]: {
            name
            for name in relative(one["files"])
            if name not in WITHOUT_EFFECT and not name.startswith("runtime/")
        }
        for one in said
    }


def prepared(folder: Path, work: Path) -> dict[str, dict[str, Any]]:
    """Stage -> arguments, in an order in which each finds its inputs."""
    words = [" ".join(f"w{(i * k) % 120 + 2}" for i in range(60)) for k in (1, 3, 7)]
    (work / "documents.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in words))
    (work / "text").mkdir()
    (work / "text" / "test.jsonl").write_text((work / "documents.jsonl").read_text())
    (work / "task").mkdir()
    row = {"question": "w3 w4", "answerKey": "A",
           "choices": {"label": ["A", "B"], "text": ["w5", "w6 w7"]}}  # fmt: skip
    (work / "task" / "test.jsonl").write_text(json.dumps(row) + "\n")
    model: dict[str, Any] = {"folder": folder, "dtype": "float32", "bos": "text"}
    tokens = {"folder": folder, "bos": "window"}
    run = work / "run"
    published = work / "published.csv"
    published.write_text("table,model,method,pattern,split,metric,value,source\n")
    settings = {
        "experiment": "e", "title": "T", "models": {"m": "M"}, "calibrations": {"c": "C"},
        "methods": {"wanda": "Wanda"}, "patterns": ["2of4"], "split": "test", "metric": "acc",
        "tasks": ["arc_easy"],
    }  # fmt: skip
    shown = {"summary": work / "s.json", "experiments": {"main": settings}}
    blocks = {
        "errors": [run / "blocks.json"],
        "settings": {"models": {"m": "M"}, "calibration": "c", "methods": {"wanda": "Wanda"},
                     "patterns": ["2of4"]},
    }  # fmt: skip
    return {
        "calibration_tokens": tokens | {
            "dataset": "d", "documents": work / "documents.jsonl", "sequences": 2, "length": 16,
            "seed": 0, "out": work / "calibration",
        },
        "evaluation_tokens": tokens | {
            "dataset": "t", "text": work / "text", "rows": "line", "splits": ["test"], "length": 16,
            "out": work / "evaluation",
        },
        "prune_run": model | {
            "run": "m/c/wanda/2of4", "tokens": work / "calibration", "function": "wanda",
            "arguments": {}, "propagation": "pruned",
            "pruned_file": run / "pruned.safetensors",
            "result_file": run / "pruning.json",
        },
        "export": {
            "folder": folder, "dtype": "float32", "pruned": run / "pruned.safetensors",
            "out": work / "export",
        },
        "perplexity": model | {
            "run": "m/c/wanda/2of4", "pruned": run / "pruned.safetensors",
            "tokens": work / "evaluation", "dataset": "text", "splits": ["test"],
            "result_file": run / "perplexity.json",
        },
        "zero_shot_requests": {
            "folder": folder, "tasks": {"arc_easy": work / "task"}, "bos": "text", "limit": None,
            "out": work / "requests",
        },
        "zero_shot": {
            "folder": folder, "dtype": "float32", "run": "m/c/wanda/2of4",
            "pruned": run / "pruned.safetensors", "requests": work / "requests",
            "result_file": run / "zero_shot.json",
        },
        "activations": model | {
            "model": "m", "calibration": "c", "tokens": work / "calibration",
            "norms_file": work / "norms", "result_file": work / "norms.json",
        },
        "outlier_shares": {
            "model": "m", "calibration": "c", "folder": folder, "dtype": "float32",
            "norms": work / "norms", "outlier": 5.0, "result_file": work / "outliers.json",
        },
        "tail_exponents": {
            "model": "m", "folder": folder, "dtype": "float32", "result_file": work / "tails.json",
        },
        "ratios": {
            "model": "m", "calibration": "c", "name": "r", "pattern": "u50",
            "kind": "alphapruning", "arguments": {"epsilon": 0.3}, "folder": folder,
            "dtype": "float32", "scores": work / "tails.json", "result_file": work / "ratios.json",
        },
        "block_errors": model | {
            "run": "m/c/wanda/2of4", "pruned": run / "pruned.safetensors", "norms": work / "norms",
            "tokens": work / "evaluation", "dataset": "text", "split": "test", "windows": 1,
            "result_file": run / "blocks.json",
        },
        "block_tables": blocks | {"out": [work / "blocks/glu_error.md"]},
        "block_figures": blocks | {
            "activations": [work / "norms.json"], "out": [work / "blocks/norms.svg"],
        },
        "check_dense": {
            "dense": run / "perplexity.json", "targets": [], "tolerance": 0.02,
            "out": work / "checked.json",
        },
        "summary_of_model": {
            "pruning": [run / "pruning.json"], "perplexity": [run / "perplexity.json"],
            "zero_shot": [run / "zero_shot.json"], "rows": work / "m.json", "csv": work / "m.csv",
        },
        "summary": {
            "models": [work / "m.json"], "rows": work / "s.json", "csv": work / "s.csv",
        },
        "experiment_tables": shown | {
            "published": [published],
            "out": [work / f"main/{k}.md" for k in ("perplexity", "zero_shot", "published")],
        },
        "experiment_figures": shown | {
            "out": [work / f"main/{kind}.svg" for kind in ("perplexity", "zero_shot")],
        },
        "report": {
            "summary": work / "s.json", "published": [published], "study": "s",
            "description": "D", "note": "", "experiments": shown["experiments"], "speed": {},
            "speed_results": [], "speed_pruning": [], "activations": [work / "norms.json"],
            "block_errors": [run / "blocks.json"], "blocks": blocks["settings"],
            "differences": [], "speed_accuracy": None,
            **{form: work / f"report.{form}" for form in ("pdf", "html", "tex")},
        },
    }  # fmt: skip


@pytest.mark.slow
def test_declared_inputs_are_what_a_stage_imports(folder: Path, tmp_path: Path) -> None:
    for stage, found in imported(prepared(folder, tmp_path)).items():
        if stage == "prune_run":  # its method is an input of its own
            assert "pruning/methods/wanda.py" in found
            found.remove("pruning/methods/wanda.py")
        if stage == "block_tables":  # by way of results/schema.py only, which has no effect
            found.remove("terms.py")
        declared = relative(module_files(f"stages.{stage}"))
        assert declared - found <= WITH_A_GPU, stage
        assert found - declared == set(), stage


def test_what_runs_on_a_gpu_only_is_declared() -> None:
    assert relative(module_files("stages.prune_run")) >= WITH_A_GPU
    assert (ROOT / "pruning" / "columns_triton.py").exists()
