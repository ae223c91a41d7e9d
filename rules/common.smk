# Shared by all stages: the validated study, the names of its files, sizes of its jobs.
import os
import re
import sys
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

# The folder of the Snakefile, also where another workflow uses this one as a module.
HOME = Path(workflow.current_basedir).parent

# Jobs use the library beside this workflow, installed or not, and no other.
SOURCE = f"{HOME}/src"
sys.path.insert(0, SOURCE)
search = [SOURCE] + [path for name, path in os.environ.items() if name == "PYTHONPATH"]
os.environ.update(PYTHONPATH=os.pathsep.join(search))

from dass.config.load import check_keys, load_config
from dass.config.sizes import IN_EVALUATION, SMALL, job_memory
from dass.config.study import experiment_runs, runs, speed_subjects
from dass.config.types import nearest
from dass.data.documents import find_split
from dass.data.hub import has_token
from dass.data.model_config import check_window, read_config
from dass.data.model_folder import (
    check_folder,
    files_exported,
    files_read,
    weight_files,
)
from dass.errors import DassError
from dass.evaluation.task_rows import task_file
from dass.pruning.methods import find_class
from dass.pruning.patterns import parse_pattern
from dass.results.published import dense_targets, read_published, was_pruned_from
from dass.runtime.job import user
from dass.runtime.provenance import CONFIG
from dass.runtime.records import gone_before, is_gone
from dass.runtime.source_files import class_files, module_files
from dass.terms import DENSE


def stop(problem):
    """End with one line that says what is wrong, without snakemake's account of where it was."""
    sys.exit(f"error: {problem}")


for folder in (HOME, Path.cwd()):
    if set("{}") & set(str(folder)):
        stop(f"{folder}: has braces, which Snakemake fills in; rename the folder")
try:
    for configfile in workflow.configfiles:
        check_keys(configfile)
    STUDY = load_config(config)
    RUNS = runs(STUDY)
    PUBLISHED = read_published(STUDY.published.file) if STUDY.published else []
except DassError as error:
    stop(error)

os.environ.update(user())
# For the record, in results: as a param, each edit of the config would make all of them stale.
os.environ[CONFIG] = sha256(STUDY.model_dump_json().encode()).hexdigest()

RESULTS = f"results/{STUDY.study}"
RUN = f"{RESULTS}/runs/{{model}}/{{calibration}}/{{method}}/{{pattern}}"
EVALUATED = f"{RESULTS}/runs/{{model}}/{{run}}"
WINDOWS = f"{RESULTS}/calibration/{{model}}/{{calibration}}.safetensors"
TEXT = f"{RESULTS}/evaluation/{{model}}/{STUDY.perplexity.dataset}.safetensors"
REQUESTS = f"{RESULTS}/requests/{{model}}.safetensors"
PRUNED = f"{RUN}/pruned.safetensors"
TOY_CORPUS = "resources/standins/toy_corpus"
MODELS = list(dict.fromkeys(run.model for run in RUNS))
EXPERIMENTS = [name for name in STUDY.experiments if experiment_runs(STUDY, name)]
TASKS = STUDY.zero_shot.tasks if STUDY.zero_shot else {}
TABLE_KINDS = ["perplexity"] + (["zero_shot"] if STUDY.zero_shot else [])
PRINTED = TABLE_KINDS + (["published"] if STUDY.published else [])
TABLES_OF_EXPERIMENT = expand(
    f"{RESULTS}/tables/{{experiment}}/{{kind}}.{{form}}",
    kind=PRINTED,
    form=["tex", "md"],
    allow_missing=True,
)
FIGURES_OF_EXPERIMENT = [
    f"{RESULTS}/figures/{{experiment}}/{kind}.pdf" for kind in TABLE_KINDS
]
TABLES = expand(TABLES_OF_EXPERIMENT, experiment=EXPERIMENTS)
FIGURES = expand(FIGURES_OF_EXPERIMENT, experiment=EXPERIMENTS)


@lru_cache(None)
def modules(stage):
    """The files that a stage depends on; relative, so that a moved folder is not stale.

    Of thousands of jobs each asks for one of a few answers: they are remembered.
    """
    script = f"{HOME}/workflow/scripts/stage.py"
    return [os.path.relpath(f) for f in [script, *module_files(f"stages.{stage}")]]


@lru_cache(None)
def method_files(method):
    """The files behind a method of the study."""
    files = class_files(find_class(STUDY.methods[method].function))
    return [os.path.relpath(file) for file in files]


def one_of(names):
    """A wildcard constraint that matches these names, and nothing when there are none."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


# Whatever else a target names is no file of this study.
CALIBRATION = one_of(STUDY.calibrations)
METHOD = one_of(STUDY.methods)
PATTERN = r"u\d+(\.\d+)?|\d+of\d+"


NAMES = {
    "models": STUDY.models,
    "calibrations": STUDY.calibrations,
    "methods": STUDY.methods,
    "experiments": EXPERIMENTS,
}
NAMED = {
    "runs": ["models", "calibrations", "methods"],
    "exports": ["models", "calibrations", "methods"],
    "calibration": ["models", "calibrations"],
    "evaluation": ["models"],
    "requests": ["models"],
    "summary": ["models"],
    "tables": ["experiments"],
    "figures": ["experiments"],
}


def check_target(target):
    """Say which part of a result's path names nothing in the study; Snakemake would name none."""
    top, study, kind, *parts = *Path(target).parts, *("", "", "")
    if top != "results" or kind not in NAMED:
        return
    if study != STUDY.study:
        stop(
            f"{target}: the study is {STUDY.study}, not {study}; name its --configfile"
        )
    *folders, file = [part for part in parts if part] or [""]
    names = [*folders, file.removesuffix(Path(file).suffix)]
    for section, name in zip(NAMED[kind], names):
        if name == DENSE:
            return
        if name not in NAMES[section]:
            stop(f"{target}: no {name!r} in {section}; {nearest(name, NAMES[section])}")
    for pattern in [part for part in parts if part][3:4]:
        check_pattern(target, pattern)


def check_pattern(target, pattern):
    """Refuse a pattern in a path that is none, or not in the one spelling that folders have."""
    try:
        spelled = str(parse_pattern(pattern))
    except DassError as error:
        stop(f"{target}: {error}")
    if spelled != pattern:
        stop(f"{target}: write {spelled} instead of {pattern}")


def check_whole(target):
    """Refuse a result whose inputs are gone, as failed jobs leave it, where they are not asked for.

    Snakemake would take it to be current: see `gone`.
    """
    try:
        missing = gone_before(target) if Path(target).exists() else None
    except DassError as error:
        stop(error)
    if missing and {str(missing), "-F", "--forceall"}.isdisjoint(sys.argv):
        stop(
            f"{target}: was made from {missing}, which is gone; give both as targets, or none"
        )


def said_by_failed_jobs(logs):
    """The last error of each job that failed, by Snakemake's own log."""
    text = "".join(Path(log).read_text(errors="replace") for log in logs)
    for name in dict.fromkeys(re.findall(r"^ +log: (\S+) \(", text, re.M)):
        if Path(name).is_file():
            lines = Path(name).read_text(errors="replace").splitlines()
            if errors := [line for line in lines if " error: " in line]:
                yield f"  {errors[-1].partition(' error: ')[2]} ({name})"


# Params of a rule, by its wildcards


def of_model(key):
    """This key of the wildcards' model in the config."""
    return lambda wildcards: getattr(STUDY.models[wildcards.model], key)


def of_dataset(key):
    """This key of the wildcards' data set in the config."""
    return lambda wildcards: getattr(STUDY.datasets[wildcards.dataset], key)


def of_calibration(key):
    """This key of the wildcards' calibration in the config."""
    return lambda wildcards: getattr(STUDY.calibrations[wildcards.calibration], key)


def of_method(key):
    """This key of the wildcards' method in the config."""
    return lambda wildcards: getattr(STUDY.methods[wildcards.method], key)


def model_folder(wildcards):
    """The folder of the wildcards' model."""
    return folder_of(wildcards.model)


# Models and data sets


def folder_of(model):
    """The folder of a model: the user's own, or what the workflow fetches or trains."""
    return STUDY.models[model].path or f"resources/models/{model}"


def model_input(wildcards):
    """The model as a job's input: files of the user's own folder, or the folder that a rule makes."""
    if STUDY.models[wildcards.model].path is None:
        return model_folder(wildcards)
    return own_model_files(wildcards.model)


def exported_input(wildcards):
    """The same for an export, which copies files that no result depends on."""
    if STUDY.models[wildcards.model].path is None:
        return model_folder(wildcards)
    return own_model_files(wildcards.model, files_exported)


@lru_cache(None)
def own_model_files(model, which=files_read):
    """The files of a model in a folder of the user's own; checked once, not for each job."""
    folder = folder_of(model)
    try:
        check_folder(folder)
        for length in window_lengths(model):
            check_window(read_config(folder), length, folder)
        return [str(file) for file in which(folder)]
    except DassError as error:
        stop(f"models.{model}.path: {error}")


def window_lengths(model):
    """How many tokens a model is given at once, in calibration and for perplexity."""
    used = {run.calibration for run in RUNS if run.model == model}
    return {STUDY.calibrations[name].length for name in used} | {
        STUDY.perplexity.length
    }


def dataset_path(name):
    """The file (documents) or folder (text, task) of a data set."""
    dataset = STUDY.datasets[name]
    if dataset.path is not None:
        return dataset.path
    if dataset.standin == "documents":
        return f"{TOY_CORPUS}/documents.jsonl.gz"
    if dataset.standin is not None:
        return f"{TOY_CORPUS}/{dataset.standin}"
    folder = f"resources/datasets/{name}"
    return f"{folder}/documents.jsonl" if dataset.kind == "documents" else folder


def dataset_input(name):
    """What a job that reads a data set has as input."""
    dataset = STUDY.datasets[name]
    if dataset.path is None:
        return TOY_CORPUS if dataset.standin else f"resources/datasets/{name}"
    return own_dataset_files(name)


@lru_cache(None)
def own_dataset_files(name):
    """The files that are read of a data set of the user's own."""
    dataset = STUDY.datasets[name]
    folder = Path(dataset.path)
    try:
        if dataset.kind == "text":
            files = [find_split(folder, split) for split in STUDY.perplexity.splits]
        elif dataset.kind == "task":
            files = [
                task_file(task, folder) for task, of in TASKS.items() if of == name
            ]
        else:
            files = [folder]
    except DassError as error:
        stop(f"datasets.{name}.path: {error}")
    for file in files:
        if not file.is_file():
            what = "is no file" if file.exists() else "does not exist"
            stop(
                f"datasets.{name}.path: {file} {what}; give the file of {dataset.kind}"
            )
    return [str(file) for file in files]


def published_file():
    """The file of published numbers as a job's input, where the study names one."""
    return [STUDY.published.file] if STUDY.published else []


# Files of runs


def pruned(pattern, model=None):
    """Fill {model}, {calibration}, {method} and {pattern} in for each run, of all models or of one."""
    return [
        pattern.format(**run._asdict()) for run in RUNS if model in (None, run.model)
    ]


def gone(*kinds):
    """An input function of a target: what jobs have written for it before, and is there no more.

    Snakemake makes a missing file again only if it is a target, or if a job that reads it has
    another reason to run. But a job that fails has taken its old output along: what was made from
    that one must not stay as if nothing had happened.
    """

    def files(kind):
        if kind == "tokens":
            requests = expand(REQUESTS, model=MODELS) if TASKS else []
            return pruned(WINDOWS) + expand(TEXT, model=MODELS) + requests
        if kind == "masks":
            return pruned(PRUNED) + pruned(f"{RUN}/pruning.json")
        if kind == "results":
            return [file for kind in TABLE_KINDS for file in evaluated(kind)]
        if kind == "summaries":
            return [*SUMMARIES, SUMMARY]
        return all_speed_results()

    return lambda wildcards: [f for kind in kinds for f in files(kind) if is_gone(f)]


def evaluated(kind, model=None):
    """Result files of this kind of each run and of each dense model, of all models or of one."""
    dense = [
        f"{RESULTS}/runs/{name}/dense/{kind}.json"
        for name in MODELS
        if model in (None, name)
    ]
    return dense + pruned(f"{RUN}/{kind}.json", model)


# Inputs and params of single rules


def dataset_settings(wildcards):
    """The wildcards' data set, as the config gives it."""
    return STUDY.datasets[wildcards.dataset].model_dump()


def calibration_documents(wildcards):
    """The documents that a calibration draws from."""
    return dataset_path(STUDY.calibrations[wildcards.calibration].dataset)


def calibration_documents_input(wildcards):
    """The same as a job's input."""
    return dataset_input(STUDY.calibrations[wildcards.calibration].dataset)


def text_input(wildcards):
    """The data set of the wildcards as a job's input."""
    return dataset_input(wildcards.dataset)


def text_folder(wildcards):
    """The folder with its splits."""
    return dataset_path(wildcards.dataset)


ORIGINS = {
    TOY_CORPUS: STUDY.standins and [STUDY.standins.seed, STUDY.standins.documents],
    **{
        folder_of(name): (
            [model.hub, model.revision]
            if model.hub
            else [model.standin, STUDY.standins.model_dump()]
        )
        for name, model in STUDY.models.items()
        if model.path is None
    },
    **{
        f"resources/datasets/{name}": dataset.model_dump()
        for name, dataset in STUDY.datasets.items()
        if dataset.hub
    },
}
"""Folder in resources/ -> what it is fetched from or made of."""


def origins(datasets=lambda wildcards: []):
    """A param: what the model, and data sets, come from that a job reads; no stage is given it.

    A folder in resources/ may be gone to free the disk, which makes nothing stale. But it is gone,
    too, where another was to be fetched in its place and could not.

    Args:
        datasets: names of data sets, by the wildcards.
    """

    def param(wildcards):
        own = [n for n in datasets(wildcards) if STUDY.datasets[n].path is None]
        model = [wildcards.model] if wildcards.model in STUDY.models else []
        folders = [*map(folder_of, model), *map(dataset_input, own)]
        return [ORIGINS.get(folder) for folder in folders]

    return param


def files_of_method(wildcards):
    """The files behind the wildcards' method: it is the only one that a run depends on."""
    return method_files(wildcards.method)


def dense_gate(wildcards):
    """Lets a model's pruning wait for check_dense, where there is something to check.

    A checkpoint and no input, and none for runs that are pruned already: another published number
    is checked, but makes no mask stale.
    """
    model = STUDY.models[wildcards.model]
    if (
        STUDY.published
        and STUDY.published.gate
        and published_of(wildcards)
        and not was_pruned_from(
            f"{RUN}/pruning.json".format(**dict(wildcards.items())),
            folder=model_folder(wildcards),
            dtype=model.dtype,
            bos=model.bos,
        )
    ):
        checkpoints.check_dense.get(model=wildcards.model)
    return []


def pruned_input(wildcards):
    """The run's pruned file; nothing for the dense model."""
    if wildcards.run == "dense":
        return []
    return f"{RESULTS}/runs/{wildcards.model}/{wildcards.run}/pruned.safetensors"


def published_of(wildcards):
    """The published dense perplexities of the wildcards' model that this study measures, too."""
    perplexity = STUDY.perplexity
    found = dense_targets(
        PUBLISHED,
        wildcards.model,
        perplexity.dataset,
        perplexity.length,
        perplexity.splits,
    )
    return [target._asdict() for target in found]


def evaluations(kind):
    """The results of this kind of the wildcards' model, dense and pruned."""
    return lambda wildcards: evaluated(kind, wildcards.model)


def shown(wildcards):
    """What the tables and figures of the wildcards' experiment show."""
    return asdict(table_settings(STUDY, wildcards.experiment))


def shipped_standin(wildcards):
    """The files of the repository's stand-in of that family."""
    family = STUDY.models[wildcards.model].standin
    folder = Path(SOURCE) / "dass/standins/shipped" / family
    return sorted(os.path.relpath(file) for file in folder.iterdir())


def licence_gate(wildcards):
    """Stops where a fetch would end at the hub's door; it is no input.

    A dry run goes on: it fetches nothing.
    """
    model = STUDY.models[wildcards.model]
    needed = model.gated and not Path(model_folder(wildcards)).exists()
    if needed and not workflow.dryrun and not has_token():
        stop(
            f"models.{wildcards.model}: {model.hub} asks for a licence; accept it at "
            f"https://huggingface.co/{model.hub} and set HF_TOKEN to a token of your account"
        )
    return []


# Sizes of jobs


def billions(model):
    """Parameters of a model in billions; a stand-in has next to none."""
    config = STUDY.models[model]
    if config.parameters is not None:
        return config.parameters
    if config.standin:
        return 0.001
    if config.path is None:
        return 7.0
    own_model_files(model)
    size = sum(file.stat().st_size for file in weight_files(config.path))
    return max(size / 2e9, 0.001)


def threads_of(wildcards):
    """Small models' jobs run side by side, large ones use up to eight threads."""
    return 1 if billions(wildcards.model) < SMALL else 8


def pruning_memory(wildcards, attempt):
    """mem_mb of pruning, by what the engine keeps on the host at most; more when retried."""
    calibration = STUDY.calibrations[wildcards.calibration]
    needs = find_class(STUDY.methods[wildcards.method].function).needs
    states = 2 * calibration.sequences * calibration.length if needs else 0
    return attempt * job_memory(
        billions(wildcards.model),
        STUDY.models[wildcards.model].dtype,
        states,
        grams=any(need.endswith("gram") for need in needs),
    )


def evaluation_memory(wildcards, attempt):
    """mem_mb of an evaluation; with less the engine reads the model's weights more than once."""
    dtype = STUDY.models[wildcards.model].dtype
    return attempt * job_memory(billions(wildcards.model), dtype, IN_EVALUATION)


def minutes(per_billion):
    """A `runtime` function: minutes of a job by the size of its model; more when retried."""
    return lambda wildcards, attempt: int(
        (10 + per_billion * billions(wildcards.model)) * attempt
    )


def growing(amount):
    """A resource that is the same for every model; twice and three times as much when retried."""
    return lambda wildcards, attempt: amount * attempt
