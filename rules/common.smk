# Shared by all stages: the validated study, the names of its files, sizes of its jobs.
import os
import sys
from functools import lru_cache
from pathlib import Path

# Jobs use the library beside this workflow, installed or not, and no other.
SOURCE = str(Path(workflow.basedir) / "src")
sys.path.insert(0, SOURCE)
search = [SOURCE] + [path for name, path in os.environ.items() if name == "PYTHONPATH"]
os.environ.update(PYTHONPATH=os.pathsep.join(search))

from dass.config.study import experiment_runs, load_config, runs, speed_subjects
from dass.runtime.source_files import class_files, module_files as files_of_modules
from dass.errors import DassError
from dass.pruning.methods import find_class
from dass.results.published import dense_targets, read_published, was_pruned_from


def stop(problem):
    """End with one line that says what is wrong, without snakemake's account of where it was."""
    sys.exit(f"error: {problem}")


try:
    STUDY = load_config(config)
    RUNS = runs(STUDY)
    PUBLISHED = read_published(STUDY.published.file) if STUDY.published else []
except DassError as error:
    stop(error)

RESULTS = f"results/{STUDY.study}"
RUN = f"{RESULTS}/runs/{{model}}/{{calibration}}/{{method}}/{{pattern}}"
EVALUATED = f"{RESULTS}/runs/{{model}}/{{run}}"
WORLD = "resources/standins/world"
MODELS = list(dict.fromkeys(run.model for run in RUNS))
EXPERIMENTS = [name for name in STUDY.experiments if experiment_runs(STUDY, name)]
TABLE_KINDS = ["perplexity"] + (["zero_shot"] if STUDY.zero_shot else [])
TABLES = expand(
    f"{RESULTS}/tables/{{experiment}}/{{kind}}.{{form}}",
    experiment=EXPERIMENTS,
    kind=TABLE_KINDS + (["published"] if STUDY.published else []),
    form=["tex", "md"],
)
FIGURES = expand(
    f"{RESULTS}/figures/{{experiment}}/{{kind}}.pdf",
    experiment=EXPERIMENTS,
    kind=TABLE_KINDS,
)
SMALL = 0.1  # billions of parameters: below this a model's jobs are small


@lru_cache(None)
def modules(*names, classes=()):
    """Files of the library that a rule depends on; relative, so that a moved folder is not stale.

    Of thousands of jobs each asks for one of a few answers: they are remembered.
    """
    files = files_of_modules(*names) + [
        file for name in classes for file in class_files(name)
    ]
    return sorted({os.path.relpath(file) for file in files})


def one_of(names):
    """A wildcard constraint that matches these names, and nothing when there are none."""
    import re

    return "|".join(re.escape(name) for name in names) or "(?!)"


def pruned(pattern, model=None):
    """Fill {model}, {calibration}, {method} and {pattern} in for each run, of all models or of one."""
    return [
        pattern.format(**run._asdict()) for run in RUNS if model in (None, run.model)
    ]


def evaluated(kind, model=None):
    """Result files of this kind of each run and of each dense model, of all models or of one."""
    dense = [
        f"{RESULTS}/runs/{name}/dense/{kind}.json"
        for name in MODELS
        if model in (None, name)
    ]
    return dense + pruned(f"{RUN}/{kind}.json", model)


def model_folder(model):
    """The folder of a model: the user's own, or what the workflow fetches or trains."""
    return STUDY.models[model].path or f"resources/models/{model}"


def model_input(wildcards):
    """The model as a job's input: files of the user's own folder, or the folder that a rule makes."""
    if STUDY.models[wildcards.model].path is None:
        return model_folder(wildcards.model)
    return own_model_files(wildcards.model)


@lru_cache(None)
def own_model_files(model):
    """The files of a model in a folder of the user's own; looked up once, not for each job."""
    folder = Path(model_folder(model))
    files = [
        folder / "config.json",
        folder / "tokenizer.json",
        *sorted(folder.glob("*.safetensors")),
    ]
    if not files[0].exists():
        stop(
            f"models.{model}.path: {folder} has no config.json; name a Hugging Face folder"
        )
    return [str(file) for file in files if file.exists()]


def dataset_path(name):
    """The file (documents) or folder (text, task) of a data set."""
    dataset = STUDY.datasets[name]
    if dataset.path is not None:
        return dataset.path
    if dataset.standin == "documents":
        return f"{WORLD}/documents.jsonl.gz"
    if dataset.standin is not None:
        return f"{WORLD}/{dataset.standin}"
    folder = f"resources/datasets/{name}"
    return f"{folder}/documents.jsonl" if dataset.kind == "documents" else folder


def dataset_input(name):
    """What a job that reads a data set has as input."""
    dataset = STUDY.datasets[name]
    if dataset.path is None:
        return WORLD if dataset.standin else f"resources/datasets/{name}"
    if not Path(dataset.path).exists():
        stop(f"datasets.{name}.path: {dataset.path} does not exist")
    return dataset.path


def billions(model):
    """Parameters of a model in billions; a stand-in has next to none."""
    config = STUDY.models[model]
    return config.parameters or (0.001 if config.standin else 1.0)


def threads_of(wildcards):
    """Small models' jobs run side by side, large ones use what there is."""
    return 1 if billions(wildcards.model) < SMALL else 8


def memory(wildcards, attempt):
    """mem_mb of a job that streams a model: libraries, activations and one block; more when retried."""
    return int((1500 + 700 * billions(wildcards.model)) * attempt)


def minutes(per_billion):
    """A `runtime` function: minutes of a job by the size of its model; more when retried."""
    return lambda wildcards, attempt: int(
        (10 + per_billion * billions(wildcards.model)) * attempt
    )


def growing(amount):
    """A resource that is the same for every model; twice and three times as much when retried."""
    return lambda wildcards, attempt: amount * attempt


def chosen(names, among):
    """Key -> label of these names, in the order of the config."""
    return {name: among[name].label or name for name in among if name in names}


def words_of(calibration):
    """A calibration in words, for captions."""
    c = STUDY.calibrations[calibration]
    return f"{c.sequences} sequences of {c.length} tokens of {c.dataset}, seed {c.seed}"


def table_settings(experiment):
    """What the tables and figures of an experiment show: arguments of dass.report.table.TableSettings."""
    keys = experiment_runs(STUDY, experiment)
    zero_shot = STUDY.zero_shot
    return {
        "experiment": experiment,
        "title": STUDY.experiments[experiment].title,
        "models": chosen({key.model for key in keys}, STUDY.models),
        "calibrations": {key.calibration: words_of(key.calibration) for key in keys},
        "methods": chosen({key.method for key in keys}, STUDY.methods),
        "patterns": list(dict.fromkeys(key.pattern for key in keys)),
        "split": STUDY.perplexity.table_split,
        "metric": zero_shot.metric if zero_shot else "acc",
        "tasks": list(zero_shot.tasks) if zero_shot else [],
        "note": STUDY.note,
    }


def method_class(wildcards):
    """The ``module:Class`` of a run's method."""
    return find_class(STUDY.methods[wildcards.method].function)


def pruned_input(wildcards):
    """The run's pruned file; nothing for the dense model."""
    if wildcards.run == "dense":
        return []
    return f"{RESULTS}/runs/{wildcards.model}/{wildcards.run}/pruned.safetensors"


def outputs_of(folder, *endings, kinds=TABLE_KINDS):
    """The files of each kind of table or figure of an experiment."""
    return [
        f"{RESULTS}/{folder}/{{experiment}}/{kind}.{ending}"
        for kind in kinds
        for ending in endings
    ]


def published_file():
    """The file of published numbers as a job's input, where the study names one."""
    return [STUDY.published.file] if STUDY.published else []


def published_of(model):
    """The published dense perplexities of a model that this study measures, too."""
    perplexity = STUDY.perplexity
    return dense_targets(
        PUBLISHED, model, perplexity.dataset, perplexity.length, perplexity.splits
    )


def dense_gate(wildcards):
    """Lets a model's pruning wait for check_dense, where there is something to check.

    A checkpoint and no input, and none for runs that are pruned already: another published number
    is checked, but makes no mask stale.
    """
    model = STUDY.models[wildcards.model]
    if (
        STUDY.published
        and STUDY.published.gate
        and published_of(wildcards.model)
        and not was_pruned_from(
            f"{RUN}/pruning.json".format(**dict(wildcards.items())),
            folder=model_folder(wildcards.model),
            dtype=model.dtype,
            bos=model.bos,
        )
    ):
        checkpoints.check_dense.get(model=wildcards.model)
    return []
