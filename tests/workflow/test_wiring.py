"""What the config says reaches every job: a study in which each value differs from all others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dass.config.load import load_config
from dass.config.sizes import IN_EVALUATION, job_memory
from dass.report.differences import paper_differences
from dass.runtime.source_files import module_files

from .conftest import ROOT, Workflow, copy_workflow, write_model_folder

DESCRIPTION, NOTE, MODEL_A = "Every {value} is <another>.", "A {{note}}.", "Model {A}"
"""Snakemake fills nothing into plain text."""

STUDY: dict[str, Any] = {
    "study": "wired",
    "description": DESCRIPTION,
    "note": NOTE,
    "models": {
        "a": {"label": MODEL_A, "hub": "o/a", "revision": "v1", "dtype": "bfloat16",
              "bos": "window", "parameters": 7.0, "zero_shot_limit": 41},
        "b": {"label": "Model B", "hub": "o/b", "revision": "v2", "dtype": "float16"},
        "s": {"label": "Model S", "standin": "mistral", "dtype": "float32", "zero_shot_limit": 43},
    },
    "datasets": {
        "c4": {"kind": "documents", "hub": "o/c4", "name": "en", "files": "one.json.gz"},
        "toy": {"kind": "documents", "standin": "documents"},
        "wiki": {"kind": "text", "hub": "o/wiki", "revision": "v3", "rows": "file"},
        "piqa": {"kind": "task", "hub": "o/piqa"},
        "arc": {"kind": "task", "standin": "arc_easy"},
    },
    "standins": {"seed": 31, "documents": 2300, "steps": 601},
    "calibrations": {
        "long": {"dataset": "c4", "sequences": 11, "length": 512, "seed": 3},
        "short": {"dataset": "toy", "sequences": 13, "length": 64, "seed": 5,
                  "propagation": "dense"},
    },
    "methods": {
        "wanda": {"function": "wanda", "label": "Wanda's"},
        "mine": {"function": "dass", "alpha": 0.3, "targets": "all", "permute": True},
        "obs": {"function": "sparsegpt", "label": "OBS", "damping": 0.07, "block": 96},
    },
    "perplexity": {"dataset": "wiki", "length": 320, "splits": ["test", "validation"],
                   "table_split": "test"},
    "zero_shot": {"tasks": {"arc_easy": "arc", "piqa": "piqa"}, "metric": "acc_norm"},
    "published": {"file": "published.csv", "tolerance": 0.017},
    "experiments": {
        "main": {"title": "Main", "models": ["a", "s"], "calibrations": ["long"],
                 "methods": ["wanda", "mine"], "patterns": ["2of4", "u60"]},
        "other": {"title": "Other", "models": ["b"], "calibrations": ["long", "short"],
                  "methods": ["obs"], "patterns": ["4of8"]},
    },
    "blocks": {"models": ["s", "a"], "calibration": "long", "methods": ["mine", "wanda"],
               "patterns": ["2of4"], "windows": 5},
    "speed": {
        "shapes": {"tiny": {"hidden": 64, "intermediate": 128, "heads": 4, "key_value_heads": 2,
                            "blocks": 2}},
        "metric": {"of": ["a", "tiny"], "repeats": 2},
        "gpu": {"of": "all", "tokens": [9, 190], "repeats": 4,
                "prefill_patterns": ["4of8", "2of4"]},
        "cpu": {"of": ["tiny", "s"], "patterns": ["u55"], "parts": ["mlp"], "tokens": [23],
                "repeats": 6, "threads": 29},
    },
}  # fmt: skip

PUBLISHED = (
    "table,model,method,pattern,split,metric,value,source,dataset,length\n"
    "T. 1,a,dense,,test,perplexity,5.47,Paper,wiki,320\n"
    "T. 1,a,dense,,validation,perplexity,5.12,Paper,wiki,2048\n"
    "T. 1,a,dense,,,piqa_acc,78.1,Paper,,\n"
)
RESULTS = "results/wired"
FOLDERS = {name: f"resources/models/{name}" for name in STUDY["models"]}
BOS = {name: model.get("bos", "text") for name, model in STUDY["models"].items()}
DTYPE = {name: model["dtype"] for name, model in STUDY["models"].items()}
DOCUMENTS = {
    "c4": ("resources/datasets/c4", "resources/datasets/c4/documents.jsonl"),
    "toy": ("resources/standins/toy_corpus", "resources/standins/toy_corpus/documents.jsonl.gz"),
}
"""Data set -> a job's input, the file."""
TASKS = {"arc_easy": "resources/standins/toy_corpus/arc_easy", "piqa": "resources/datasets/piqa"}
DEFAULT = {"revision": "main", "path": None, "standin": None, "name": None, "files": None,
           "rows": "line"}  # fmt: skip
ORIGINS = {
    "resources/standins/toy_corpus": [31, 2300],
    FOLDERS["a"]: ["o/a", "v1"],
    FOLDERS["b"]: ["o/b", "v2"],
    FOLDERS["s"]: ["mistral", STUDY["standins"]],
    **{
        f"resources/datasets/{name}": DEFAULT | STUDY["datasets"][name]
        for name in ("c4", "wiki", "piqa")
    },
}
"""Folder in resources/ -> what every job that reads it is told of where it comes from."""
ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "wanda": ("wanda", {}),
    "mine": ("dass", {"alpha": 0.3}),
    "obs": ("sparsegpt", {"damping": 0.07, "block": 96}),
}
RUNS = [
    *(
        (m, "long", method, p)
        for m in "as"
        for method in ("wanda", "mine")
        for p in ("2of4", "u60")
    ),
    *(("b", calibration, "obs", "4of8") for calibration in ("long", "short")),
]
THREADS = {"a": 3, "b": 3, "s": 1}
"""Of the three cores that the DAG is made for; a stand-in's jobs have one."""


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All jobs of that study, exports included, on a machine with a GPU."""
    workflow = copy_workflow(tmp_path_factory.mktemp("wired"))
    (workflow.folder / "published.csv").write_text(PUBLISHED)
    workflow.write_study(STUDY)
    return planned(workflow, "all", "exports", "verify")


def planned(workflow: Workflow, *targets: str) -> list[dict[str, Any]]:
    command = [
        sys.executable,
        str(ROOT / "workflow/scripts/plan.py"),
        "study.yaml",
        "dag.json",
        "--all",
        *targets,
    ]
    done = subprocess.run(
        command, cwd=workflow.folder, env=os.environ | {"DASS_SPEED_GPU": "1"}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    jobs: list[dict[str, Any]] = json.loads((workflow.folder / "dag.json").read_text())
    return jobs


def jobs_of(wired: list[dict[str, Any]], rule: str) -> dict[Any, dict[str, Any]]:
    """The rule's jobs by their first output."""
    found = {}
    for job in wired:
        if job["rule"] == rule:
            first = next(iter(job["output"].values()), "")
            found[first if isinstance(first, str) else first[0]] = job
    return found


def expect(
    wired: list[dict[str, Any]], rule: str, expected: dict[str, dict[str, Any]],
    inputs: dict[str, dict[str, Any]], threads: dict[str, int] | None = None,
) -> None:  # fmt: skip
    """Params and inputs of each job by its first output; stage, modules and origins apart."""
    found = jobs_of(wired, rule)
    assert found.keys() == expected.keys() == inputs.keys()
    modules = sorted(
        os.path.relpath(file, ROOT)
        for file in [ROOT / "workflow/scripts/stage.py", *module_files(f"stages.{rule}")]
    )
    for output, job in found.items():
        given = {name: files for name, files in job["input"].items() if files != []}
        flat = [f for one in given.values() for f in ([one] if isinstance(one, str) else one)]
        told = [ORIGINS[file] for file in flat if file in ORIGINS]
        origins = {"origins": told} if told or "origins" in job["params"] else {}
        assert job["params"] == {"stage": rule} | origins | expected[output], output
        assert sorted(given.pop("modules", [])) == ([] if rule.startswith("fetch") else modules)
        assert given == inputs[output], output
        if threads:
            assert job["threads"] == threads[output], output


def of(model: str) -> dict[str, Any]:
    """What every stage that runs a model is told of it."""
    return {"folder": FOLDERS[model], "dtype": DTYPE[model], "bos": BOS[model]}


Jobs = list[dict[str, Any]]


def test_what_is_fetched_and_made(wired: Jobs) -> None:
    out = "resources/models/{}".format
    expected = {
        out(m): {"repository": f"o/{m}", "revision": STUDY["models"][m]["revision"]} for m in "ab"
    }
    expect(wired, "fetch_model", expected, {out: {} for out in expected})
    fetched = {f"resources/datasets/{name}": name for name in ("c4", "wiki", "piqa")}
    settings = {
        folder: {"settings": DEFAULT | STUDY["datasets"][name]} for folder, name in fetched.items()
    }
    expect(wired, "fetch_dataset", settings, {out: {} for out in settings})
    corpus = DOCUMENTS["toy"][0]
    expect(wired, "toy_corpus", {corpus: {"seed": 31, "documents": 2300}}, {corpus: {}})
    standin = {out("s"): {"family": "mistral", "seed": 31, "steps": 601}}
    shipped = "src/dass/standins/shipped/mistral/recipe.json"
    expect(wired, "train_standin", standin, {out("s"): {"corpus": corpus, "shipped": shipped}})


def test_tokens(wired: Jobs) -> None:
    drawn, read = {}, {}
    for model, name in {(run[0], run[1]) for run in RUNS}:
        calibration = STUDY["calibrations"][name]
        folder, file = DOCUMENTS[calibration["dataset"]]
        out = f"{RESULTS}/calibration/{model}/{name}.safetensors"
        about = {"folder": FOLDERS[model], "bos": BOS[model], "documents": file}
        drawn[out] = about | {k: v for k, v in calibration.items() if k != "propagation"}
        read[out] = {"model": FOLDERS[model], "documents": folder}
    expect(wired, "calibration_tokens", drawn, read)
    text = "resources/datasets/wiki"
    cut = {
        f"{RESULTS}/evaluation/{model}/wiki.safetensors": {
            "folder": FOLDERS[model], "bos": BOS[model], "dataset": "wiki", "text": text,
            "rows": "file", "length": 320, "splits": ["test", "validation"], "kind": "text",
            "documents": None, "most": None,
        }
        for model in FOLDERS
    }  # fmt: skip
    inputs = {out: {"model": about["folder"], "text": text} for out, about in cut.items()}
    expect(wired, "evaluation_tokens", cut, inputs)


def test_runs(wired: Jobs) -> None:
    pruned, read, threads, exported = {}, {}, {}, {}
    for run in RUNS:
        model, calibration, method, _ = run
        out = f"{RESULTS}/runs/{'/'.join(run)}/pruned.safetensors"
        function, arguments = ARGUMENTS[method]
        pruned[out] = of(model) | {
            "run": "/".join(run), "function": function, "arguments": arguments,
            "propagation": "dense" if calibration == "short" else "pruned",
            "targets": "all" if method == "mine" else "mlp", "permute": method == "mine",
        }  # fmt: skip
        read[out] = {
            "model": FOLDERS[model],
            "tokens": f"{RESULTS}/calibration/{model}/{calibration}.safetensors",
            "method": module_paths(f"pruning.methods.{function}"),
        } | ({"gate": f"{RESULTS}/runs/a/dense/checked.json"} if model == "a" else {})
        threads[out] = THREADS[model]
        exported[f"{RESULTS}/exports/{'/'.join(run)}"] = (model, out)
    expect(wired, "prune_run", pruned, read, threads)
    expect(
        wired, "export",
        {out: {"folder": FOLDERS[m], "dtype": DTYPE[m]} for out, (m, _) in exported.items()},
        {out: {"model": FOLDERS[m], "pruned": file} for out, (m, file) in exported.items()},
    )  # fmt: skip


def module_paths(name: str) -> list[str]:
    return [os.path.relpath(file, ROOT) for file in module_files(name)]


def evaluated(kind: str) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Result file, model, run, and the input that only a pruned run has."""
    for model in FOLDERS:
        yield f"{RESULTS}/runs/{model}/dense/{kind}.json", model, f"{model}/dense", {}
    for run in map("/".join, RUNS):
        folder = f"{RESULTS}/runs/{run}"
        yield f"{folder}/{kind}.json", run[0], run, {"pruned": f"{folder}/pruned.safetensors"}


def test_evaluations(wired: Jobs) -> None:
    perplexity, zero_shot = list(evaluated("perplexity")), list(evaluated("zero_shot"))
    measured = {"dataset": "wiki", "splits": ["test", "validation"], "others": {}}
    limits = {"a": 41, "b": None, "s": 43}
    corpus = DOCUMENTS["toy"][0]
    expect(
        wired, "perplexity",
        {out: of(model) | measured | {"run": run} for out, model, run, _ in perplexity},
        {out: {"model": FOLDERS[model],
               "tokens": f"{RESULTS}/evaluation/{model}/wiki.safetensors"} | mask
         for out, model, _, mask in perplexity},
        {out: THREADS[model] for out, model, *_ in perplexity},
    )  # fmt: skip
    expect(
        wired, "zero_shot",
        {out: {"folder": FOLDERS[model], "dtype": DTYPE[model], "run": run}
         for out, model, run, _ in zero_shot},
        {out: {"model": FOLDERS[model], "requests": f"{RESULTS}/requests/{model}.safetensors"}
         | mask for out, model, _, mask in zero_shot},
        {out: THREADS[model] for out, model, *_ in zero_shot},
    )  # fmt: skip
    requests = {f"{RESULTS}/requests/{model}.safetensors": model for model in FOLDERS}
    expect(
        wired, "zero_shot_requests",
        {out: {"folder": FOLDERS[model], "bos": BOS[model], "tasks": TASKS, "limit": limits[model]}
         for out, model in requests.items()},
        {out: {"model": FOLDERS[model], "tasks": [corpus, TASKS["piqa"]]}
         for out, model in requests.items()},
    )  # fmt: skip
    target = {
        "dataset": "wiki",
        "split": "test",
        "value": 5.47,
        "source": "Paper, T. 1; published.csv",
    }
    out = f"{RESULTS}/runs/a/dense/checked.json"
    checked = {out: {"targets": [target], "tolerance": 0.017}}
    expect(
        wired, "check_dense", checked, {out: {"dense": f"{RESULTS}/runs/a/dense/perplexity.json"}}
    )


MORE_PRUNED = (
    "Pruned by mine: attention's linear layers, too. Neurons permuted before N:M grouping by mine. "
    + NOTE
)
SHOWN: dict[str, dict[str, Any]] = {
    "main": {
        "models": {"a": MODEL_A, "s": "Model S"}, "patterns": ["2of4", "u60"],
        "calibrations": {"long": "11 sequences of 512 tokens of c4, seed 3"},
        "methods": {"wanda": "Wanda's", "mine": "mine"},
    },
    "other": {
        "models": {"b": "Model B"}, "patterns": ["4of8"], "methods": {"obs": "OBS"},
        "calibrations": {"long": "11 sequences of 512 tokens of c4, seed 3",
                         "short": "13 sequences of 64 tokens of toy, seed 5"},
    },
}  # fmt: skip
for name, shown in SHOWN.items():
    shown |= {"experiment": name, "title": name.title(), "split": "test", "metric": "acc_norm",
              "others": {}, "tasks": ["arc_easy", "piqa"], "tolerance": 0.017, "x": None,
              "note": MORE_PRUNED if "mine" in shown["methods"] else NOTE,
              "draws": {key: {key: STUDY["calibrations"][key]["seed"]}
                        for key in shown["calibrations"]},
              "x_part": "method", "x_values": {}, "curves": {},
              "unpublished": ["mine"] if "mine" in shown["methods"] else [],
              "targets": {"mine": "all"} if "mine" in shown["methods"] else {}}  # fmt: skip

SPEED_ACCURACY = SHOWN["main"] | {
    "experiment": "speed", "title": "Accuracy against speed", "tolerance": 0.02,
    "models": {"a": MODEL_A, "b": "Model B", "s": "Model S"}, "unpublished": [],
    "targets": {}, "patterns": ["2of4", "4of8"],
    "methods": {"wanda": "Wanda's", "mine": "mine", "obs": "OBS"},
    **{key: SHOWN["other"][key] for key in ("calibrations", "draws")},
}  # fmt: skip
LABELS = {"a": MODEL_A, "b": "Model B", "s": "Model S", "tiny": "tiny sizes"}
SUBJECTS = {"metric": ["a", "tiny"], "gpu": ["a", "b", "s"], "cpu": ["s", "tiny"]}
SPEED_SETTINGS: dict[str, dict[str, Any]] = {
    kind: {"study": "wired", "note": NOTE,
           "subjects": {name: LABELS[name] for name in subjects},
           "methods": {"wanda": "Wanda's", "mine": "mine", "obs": "OBS"}}
    for kind, subjects in SUBJECTS.items()
}  # fmt: skip
PREFILLED = [run for run in RUNS if run[3] != "u60"]
SPEED = f"{RESULTS}/speed"
SPEED_RESULTS = {
    "metric": [f"{SPEED}/metric/{m}/{n}.json" for m in ("a", "tiny") for n in ARGUMENTS],
    "gpu": [f"{SPEED}/gpu/{m}.json" for m in "abs"]
    + [f"{SPEED}/prefill/{'/'.join(run)}.json" for run in PREFILLED],
    "cpu": [f"{SPEED}/cpu/{m}.json" for m in ("tiny", "s")],
}


def test_summaries_tables_and_figures(wired: Jobs) -> None:
    kinds = {"pruning": "pruning", "perplexity": "perplexity", "zero_shot": "zero_shot"}
    of_models = {
        f"{RESULTS}/summary/{model}.json": {
            name: [f for f, m, run, _ in evaluated(kind)
                   if m == model and not (kind == "pruning" and run.endswith("dense"))]
            for name, kind in kinds.items()
        }
        for model in FOLDERS
    }  # fmt: skip
    expect(wired, "summary_of_model", {name: {} for name in of_models}, of_models)
    summary = f"{RESULTS}/summary.json"
    models = [f"{RESULTS}/summary/{model}.json" for model in "asb"]  # as the experiments name them
    expect(wired, "summary", {summary: {}}, {summary: {"models": models}})
    kinds_of = [f"{kind}.{form}" for kind in ("perplexity", "zero_shot", "published")
                for form in ("tex", "md")]  # fmt: skip
    tables = [f"{RESULTS}/tables/{n}/{kind}" for n in SHOWN for kind in kinds_of]
    read = {"summary": summary, "published": ["published.csv"]}
    expect(wired, "experiment_tables", {tables[0]: {"experiments": SHOWN}}, {tables[0]: read})
    (written,) = jobs_of(wired, "experiment_tables").values()
    assert written["output"]["out"] == tables
    figures = [f"{RESULTS}/figures/{n}/{kind}.pdf" for n in SHOWN
               for kind in ("perplexity", "zero_shot")]  # fmt: skip
    expected = {figures[0]: {"experiments": SHOWN}}
    expect(wired, "experiment_figures", expected, {figures[0]: {"summary": summary}})
    (written,) = jobs_of(wired, "experiment_figures").values()
    assert written["output"]["out"] == figures


LOOKED_INTO = [(m, "long", method, "2of4") for m in "sa" for method in ("mine", "wanda")]
BLOCKS = {
    "models": {"s": "Model S", "a": MODEL_A}, "calibration": "long", "patterns": ["2of4"],
    "methods": {"mine": "mine", "wanda": "Wanda's"}, "note": MORE_PRUNED,
}  # fmt: skip
ACTIVATIONS = [f"{RESULTS}/activations/{model}/long" for model in "sa"]
BLOCK_ERRORS = [f"{RESULTS}/runs/{'/'.join(run)}/blocks.json" for run in LOOKED_INTO]


def test_blocks(wired: Jobs) -> None:
    norms = {f"{name}.safetensors": name.split("/")[3] for name in ACTIVATIONS}
    expect(
        wired, "activations",
        {out: of(m) | {"model": m, "calibration": "long"} for out, m in norms.items()},
        {out: {"model": FOLDERS[m], "tokens": f"{RESULTS}/calibration/{m}/long.safetensors"}
         for out, m in norms.items()},
        {out: THREADS[m] for out, m in norms.items()},
    )  # fmt: skip
    runs = dict(zip(BLOCK_ERRORS, LOOKED_INTO, strict=True))
    about = {"dataset": "wiki", "split": "test", "windows": 5}
    expect(
        wired, "block_errors",
        {out: of(run[0]) | about | {"run": "/".join(run)} for out, run in runs.items()},
        {out: {
            "model": FOLDERS[run[0]],
            "pruned": f"{RESULTS}/runs/{'/'.join(run)}/pruned.safetensors",
            "norms": f"{RESULTS}/activations/{run[0]}/long.safetensors",
            "tokens": f"{RESULTS}/evaluation/{run[0]}/wiki.safetensors",
         } for out, run in runs.items()},
        {out: THREADS[run[0]] for out, run in runs.items()},
    )  # fmt: skip
    for out, job in jobs_of(wired, "block_errors").items():
        model = runs[out][0]
        one = job_memory({"a": 7.0, "s": 0.001}[model], DTYPE[model], 5 * 320)
        assert job["mem_mb"] == 2 * one
    for out, job in jobs_of(wired, "activations").items():
        model = norms[out]
        size = {"a": 7.0, "s": 0.001}[model]
        assert job["mem_mb"] == job_memory(size, DTYPE[model], 11 * 512)
    tables, figures = (f"{RESULTS}/{kind}/blocks/" for kind in ("tables", "figures"))
    errors, shown = {"errors": BLOCK_ERRORS}, {"settings": BLOCKS}
    expect(wired, "block_tables", {f"{tables}glu_error.tex": shown},
           {f"{tables}glu_error.tex": errors})  # fmt: skip
    read = errors | {"activations": [f"{name}.json" for name in ACTIVATIONS]}
    expect(wired, "block_figures", {f"{figures}norms.pdf": shown}, {f"{figures}norms.pdf": read})


def test_the_report(wired: Jobs) -> None:
    out = f"{RESULTS}/report.pdf"
    params = {
        "experiments": SHOWN, "study": "wired", "note": NOTE,
        "description": DESCRIPTION, "speed": SPEED_SETTINGS,
        "blocks": BLOCKS, "speed_accuracy": SPEED_ACCURACY,
        "differences": paper_differences(load_config(STUDY)),
    }  # fmt: skip
    inputs = {
        "summary": f"{RESULTS}/summary.json", "published": ["published.csv"],
        "speed_results": [file for files in SPEED_RESULTS.values() for file in files],
        "speed_pruning": [
            f"{RESULTS}/runs/{'/'.join(run)}/pruning.json" for run in RUNS if run[0] == "a"
        ],
        "activations": [f"{name}.json" for name in ACTIVATIONS], "block_errors": BLOCK_ERRORS,
        "figures": [
            *(f"{RESULTS}/figures/{name}/{kind}.pdf" for name in SHOWN
              for kind in ("perplexity", "zero_shot")),
            *(f"{RESULTS}/figures/blocks/{kind}.pdf"
              for kind in ("norms", "outliers", "glu_error", "hidden_error", "kept")),
            *(f"{RESULTS}/speed/figures/{kind}.pdf"
              for kind in ("gpu", "cpu", "prefill", "decode")),
        ],
        "templates": [
            f"src/dass/report/templates/report.{form}" for form in ("typ", "html", "tex")
        ],
    }  # fmt: skip
    expect(wired, "report", {out: params}, {out: inputs})


def test_what_is_verified(wired: Jobs) -> None:
    """All folders and files that anything was made from; the job has no inputs of its own."""
    (job,) = jobs_of(wired, "verify").values()
    texts = {name: file for name, (_, file) in DOCUMENTS.items()}
    texts |= {"wiki": "resources/datasets/wiki", "piqa": TASKS["piqa"], "arc": TASKS["arc_easy"]}
    assert job["params"] == {
        "stage": "verify", "study": RESULTS, "models": FOLDERS, "texts": texts, "tasks": TASKS,
    }  # fmt: skip


def test_memory_follows_the_model_its_dtype_and_the_method(wired: Jobs) -> None:
    size = {"a": 7.0, "b": 7.0, "s": 0.001}  # b says nothing, s is a stand-in
    for file, job in jobs_of(wired, "prune_run").items():
        model, name, method = file.split("/")[3:6]
        calibration = STUDY["calibrations"][name]
        states = 2 * calibration["sequences"] * calibration["length"]
        grams = method in ("obs", "mine")  # neurons of mine are permuted
        assert job["mem_mb"] == job_memory(size[model], DTYPE[model], states, grams), file
    for rule in ("perplexity", "zero_shot"):
        for file, job in jobs_of(wired, rule).items():
            model = file.split("/")[3]
            assert job["mem_mb"] == job_memory(size[model], DTYPE[model], IN_EVALUATION), file


def test_speed(wired: Jobs) -> None:
    tiny = STUDY["speed"]["shapes"]["tiny"] | {"head_dim": None, "activation": "silu"}
    source = {**FOLDERS, "tiny": tiny}
    patterns = {"wanda": ["2of4", "u60"], "mine": ["2of4", "u60"], "obs": ["4of8"]}
    timed, read = {}, {}
    for model in SUBJECTS["metric"]:
        for name in ARGUMENTS:
            out = f"{SPEED}/metric/{model}/{name}.json"
            methods = {n: list(ARGUMENTS[n]) for n in ARGUMENTS if n in (name, "obs")}
            timed[out] = {
                "subject": f"{model}/{name}", "source": source[model], "methods": methods,
                "dtype": DTYPE.get(model, "float16"), "patterns": patterns[name], "repeats": 2,
                "threads": 3,
            }  # fmt: skip
            files = [module_paths(f"pruning.methods.{ARGUMENTS[n][0]}") for n in methods]
            read[out] = {"method": [file for some in files for file in some]} | of_folder(model)
    expect(wired, "speed_metric", timed, read)
    gpu = {
        f"{SPEED}/gpu/{m}.json": {
            "subject": m, "source": FOLDERS[m], "dtype": DTYPE[m], "tokens": [9, 190], "repeats": 4,
        }
        for m in SUBJECTS["gpu"]
    }  # fmt: skip
    expect(wired, "speed_gpu", gpu, {out: of_folder(job["subject"]) for out, job in gpu.items()})
    prefill = {
        f"{SPEED}/prefill/{'/'.join(run)}.json": {
            "subject": "/".join(run[:3]), "folder": FOLDERS[run[0]], "pattern": run[3],
            "dtype": DTYPE[run[0]], "tokens": [9, 190], "repeats": 4,
        }
        for run in PREFILLED
    }  # fmt: skip
    masks = {
        f"{SPEED}/prefill/{'/'.join(run)}.json": of_folder(run[0])
        | {"pruned_file": f"{RESULTS}/runs/{'/'.join(run)}/pruned.safetensors"}
        for run in PREFILLED
    }
    expect(wired, "speed_prefill", prefill, masks)
    told = {
        f"{SPEED}/tables/{part}.tex": {"part": part, "settings": SPEED_ACCURACY}
        for part in ("prefill", "decode")
    }
    read = {"result_files": list(prefill)}
    for kind in ("perplexity", "zero_shot"):
        dense = [f"{RESULTS}/runs/{model}/dense/{kind}.json" for model in "asb"]
        read[kind] = dense + [f"{RESULTS}/runs/{'/'.join(run)}/{kind}.json" for run in PREFILLED]
    expect(wired, "speed_accuracy", told, dict.fromkeys(told, read))
    cpu = {
        f"{SPEED}/cpu/{m}.json": {
            "subject": m, "source": source[m], "tokens": [23], "patterns": ["u55"],
            "parts": ["mlp"], "engines": [], "repeats": 6, "threads": 29,
        }
        for m in SUBJECTS["cpu"]
    }  # fmt: skip
    expect(wired, "speed_cpu", cpu, {out: of_folder(job["subject"]) for out, job in cpu.items()})
    for rule, form, kinds in (("tables", "tex", SUBJECTS), ("figures", "pdf", ("gpu", "cpu"))):
        params = {
            f"{SPEED}/{rule}/{kind}.{form}": {"kind": kind, "settings": SPEED_SETTINGS[kind]}
            for kind in kinds
        }
        files = {out: {"result_files": SPEED_RESULTS[job["kind"]]} for out, job in params.items()}
        expect(wired, f"speed_{rule}", params, files)


def of_folder(model: str) -> dict[str, str]:
    """The model as an input, where it is one."""
    return {"model": FOLDERS[model]} if model in FOLDERS else {}


def test_every_rule_with_a_stage_is_looked_at(wired: Jobs) -> None:
    """A rule that is added comes into one of the tests above, and into this list."""
    assert {job["rule"] for job in wired} == {
        *("fetch_model", "fetch_dataset", "toy_corpus", "train_standin"),
        *("calibration_tokens", "evaluation_tokens", "zero_shot_requests", "prune_run", "export"),
        *("perplexity", "zero_shot", "check_dense"),
        *("activations", "block_errors", "block_tables", "block_figures"),
        *("summary_of_model", "summary", "experiment_tables", "experiment_figures", "report"),
        *("speed_metric", "speed_gpu", "speed_prefill", "speed_cpu", "speed_tables"),
        *("speed_figures", "speed_accuracy", "verify"),
    }


@pytest.mark.parametrize(
    ("changed", "gated"), [({}, False), ({"bos": "text"}, True), ({"dtype": "float16"}, True)]
)
def test_a_run_of_the_same_model_waits_for_no_gate(
    changed: dict[str, str], gated: bool, tmp_path: Path
) -> None:
    """One that was pruned with another BOS rule or dtype does: its model is another now."""
    workflow = copy_workflow(tmp_path / "study")
    (workflow.folder / "published.csv").write_text(PUBLISHED)
    workflow.write_study(STUDY)
    run = f"{RESULTS}/runs/a/long/wanda/2of4"
    folder = workflow.folder / run
    folder.mkdir(parents=True)
    (folder / "pruned.safetensors").touch()
    settings = {"dtype": DTYPE["a"], "bos": BOS["a"]} | changed
    (folder / "pruning.json").write_text(json.dumps({"settings": settings}))
    jobs = planned(workflow, f"{run}/pruned.safetensors")
    (job,) = jobs_of(jobs, "prune_run").values()
    assert bool(job["input"].get("gate")) == gated


# --- A model and data of the user's own -------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The same study with some of a user's own files, of which few are read."""
    workflow = copy_workflow(tmp_path_factory.mktemp("own"))
    (workflow.folder / "published.csv").write_text(PUBLISHED)
    for name in ("a", "b"):
        folder = workflow.folder / "mine" / name
        write_model_folder(folder)
        config = {"model_type": "llama", "max_position_embeddings": 512}
        (folder / "config.json").write_text(json.dumps(config))
        for file in ("tokenizer.json", "generation_config.json", "README.md"):
            (folder / file).write_text("{}")
    for file in ("d.jsonl", "wiki/test.txt", "wiki/validation.txt", "wiki/train.txt",
                 "piqa/validation.jsonl", "piqa/train.jsonl"):  # fmt: skip
        (workflow.folder / "data" / file).parent.mkdir(parents=True, exist_ok=True)
        (workflow.folder / "data" / file).touch()
    workflow.write_study(own_study())
    return workflow


def own_study() -> dict[str, Any]:
    study: dict[str, Any] = json.loads(json.dumps(STUDY))
    del study["speed"], study["blocks"]
    study["models"]["a"] = {"label": "A", "path": "mine/a", "dtype": "float16"}
    study["models"]["b"] = {"label": "B", "path": "mine/b", "dtype": "float32"}
    for name, file in (("c4", "d.jsonl"), ("wiki", "wiki"), ("piqa", "piqa")):
        study["datasets"][name] = {
            "kind": study["datasets"][name]["kind"], "path": f"data/{file}"
        }  # fmt: skip
    return study


READ = ["config.json", "model.safetensors", "tokenizer.json"]


def test_of_own_folders_what_is_read_is_an_input(own: Workflow) -> None:
    jobs = planned(own, "all", "exports", "verify")
    read = {name: [f"mine/{name}/{file}" for file in READ] for name in "ab"}
    for rule in ("calibration_tokens", "evaluation_tokens", "zero_shot_requests", "prune_run",
                 "perplexity", "zero_shot", "export"):  # fmt: skip
        found = {}
        for file, job in jobs_of(jobs, rule).items():
            model = file.removesuffix(".safetensors").split("/")[3]
            found.setdefault(model, []).append(job)
        for model, files in read.items():
            more = [f"mine/{model}/generation_config.json"] * (rule == "export")
            for job in found[model]:
                assert sorted(job["input"]["model"]) == sorted(files + more), rule
                assert job["params"]["folder"] == f"mine/{model}"
    for job in jobs_of(jobs, "evaluation_tokens").values():
        assert job["input"]["text"] == ["data/wiki/test.txt", "data/wiki/validation.txt"]
    for job in jobs_of(jobs, "zero_shot_requests").values():
        assert job["input"]["tasks"] == [DOCUMENTS["toy"][0], "data/piqa/validation.jsonl"]
    drawn = jobs_of(jobs, "calibration_tokens")
    assert drawn[f"{RESULTS}/calibration/a/long.safetensors"]["input"]["documents"] == [
        "data/d.jsonl"
    ]
    (verified,) = jobs_of(jobs, "verify").values()
    assert verified["params"]["models"] == {"a": "mine/a", "b": "mine/b", "s": FOLDERS["s"]}


def test_the_memory_of_an_own_model_follows_its_files(own: Workflow) -> None:
    weights = own.folder / "mine/a/model.safetensors"
    kept = weights.read_bytes()
    one = {"dtype": "BF16", "shape": [10**9], "data_offsets": [0, 2 * 10**9]}
    header = json.dumps({"model.norm.weight": one}).encode()
    with weights.open("wb") as file:  # a file with a hole of two gigabytes
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * 10**9)
    try:
        jobs = planned(own, f"{RESULTS}/runs/a/dense/perplexity.json")
    finally:
        weights.write_bytes(kept)
    (job,) = jobs_of(jobs, "perplexity").values()
    assert job["mem_mb"] == pytest.approx(job_memory(1.0, "float16", IN_EVALUATION), abs=2)
    assert job["threads"] == 3


def test_no_licence_is_asked_for_where_the_model_is_there(
    own: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(own.folder / "no home"))
    study = own_study()
    study["models"]["b"] = STUDY["models"]["b"] | {"gated": True}
    config, target = own.write_study(study, "gated.yaml"), FOLDERS["b"]
    refused = own.snakemake(target, config=config)
    assert refused.code != 0 and "models.b: o/b asks for a licence" in refused.output
    (own.folder / target).mkdir(parents=True)
    finished = own.snakemake(target, config=config)
    assert finished.code == 0 and "Nothing to be done" in finished.output


def test_windows_are_held_against_the_models_that_they_are_for(own: Workflow) -> None:
    """b is given the short ones only; the longest window of each is what its positions allow."""
    study = own_study()
    study["calibrations"]["long"]["length"] = 513
    study["experiments"]["main"]["models"] = ["s"]
    study["experiments"]["other"]["calibrations"] = ["short"]
    config = own.write_study(study, "short.yaml")
    assert own.snakemake("--dry-run", "--quiet", config=config).code == 0
    study["experiments"]["other"]["calibrations"] = ["long", "short"]
    finished = own.snakemake("--dry-run", config=own.write_study(study, "long.yaml"))
    assert finished.code != 0
    said = "error: models.b.path: mine/b: max_position_embeddings is 512, but windows have 513"
    assert said in finished.output
