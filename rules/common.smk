# Shared by all stages: the validated study, the names of its files, params of its rules.
import os
import re
import sys
from argparse import ArgumentParser
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
from dass.config.runs import (
    block_runs,
    experiment_runs,
    prefilled_runs,
    runs,
    speed_subjects,
    zero_shot_runs,
)
from dass.config.types import PATHVAR, check_spelling, nearest
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
from dass.pruning.methods import classes_of, make_method, takes_files
from dass.report.experiment import other_kind
from dass.results.asked import asked_otherwise, difference
from dass.results.published import dense_targets, read_published, was_pruned_from
from dass.results.schema import RatiosResult, read_result
from dass.runtime.job import user
from dass.runtime.provenance import CONFIG, fingerprint, model_source
from dass.runtime.records import asked_before, gone_before, is_gone, place
from dass.runtime.source_files import class_files, module_files
from dass.terms import DENSE


def stop(problem):
    """End with one line that says what is wrong, without snakemake's account of where it was."""
    sys.exit(f"error: {problem}")


for folder in (HOME, Path.cwd()):
    if set("{}") & set(str(folder)):
        stop(f"{folder}: has braces, which Snakemake fills in; rename the folder")
if named := PATHVAR.search(os.path.relpath(HOME)):
    stop(f"{HOME}: has {named[0]}, which Snakemake fills in; rename the folder")
try:
    for configfile in workflow.configfiles:
        check_keys(configfile)
    STUDY = load_config(config)
    RUNS, DRAWS = runs(STUDY), STUDY.draws
    ZERO_SHOT_RUNS = dict.fromkeys(zero_shot_runs(STUDY))
    PUBLISHED = read_published(STUDY.published.file) if STUDY.published else []
except DassError as error:
    stop(error)

os.environ.update(user())
# For the record, in results: as a param, each edit of the config would make all of them stale.
os.environ[CONFIG] = sha256(STUDY.model_dump_json().encode()).hexdigest()

RESULTS = f"results/{STUDY.study}"
RUN = f"{RESULTS}/runs/{{model}}/{{calibration}}/{{method}}/{{pattern}}"
EVALUATED = f"{RESULTS}/runs/{{model}}/{{run}}"
RATIOS = f"{RESULTS}/ratios/{{model}}/{{calibration}}/{{ratios}}"
WINDOWS = f"{RESULTS}/calibration/{{model}}/{{calibration}}.safetensors"
TEXT_TOKENS = f"{RESULTS}/evaluation/{{model}}/{{dataset}}.safetensors"
TEXTS = [
    TEXT_TOKENS.replace("{dataset}", dataset) for dataset in STUDY.perplexity.datasets
]
TEXT, *OTHER_TEXTS = TEXTS
REQUESTS = f"{RESULTS}/requests/{{model}}.safetensors"
PRUNED = f"{RUN}/pruned.safetensors"
TOY_CORPUS = "resources/standins/toy_corpus"
MODELS = list(dict.fromkeys(run.model for run in RUNS))
EXPERIMENTS = [name for name in STUDY.experiments if experiment_runs(STUDY, name)]
TASKS = STUDY.zero_shot.tasks if STUDY.zero_shot else {}
EVALUATIONS = ["perplexity"] + (["zero_shot"] if ZERO_SHOT_RUNS else [])


def measured(experiment):
    """What is measured of an experiment's runs: kinds of its tables and figures."""
    asked = STUDY.experiments[experiment].zero_shot
    kinds = ["perplexity", *map(other_kind, STUDY.perplexity.others)]
    return kinds + ["zero_shot"] * (asked and "zero_shot" in EVALUATIONS)


ALSO_PRINTED = ["published"] * bool(STUDY.published)


def printed(experiment):
    """The kinds of an experiment's tables."""
    return measured(experiment) + ALSO_PRINTED


TABLES = [
    f"{RESULTS}/tables/{experiment}/{kind}.{form}"
    for experiment in EXPERIMENTS
    for kind in printed(experiment)
    for form in ["tex", "md"]
]
FIGURES = [
    f"{RESULTS}/figures/{experiment}/{kind}.pdf"
    for experiment in EXPERIMENTS
    for kind in measured(experiment)
]


@lru_cache(None)
def modules(stage):
    """The files that a stage depends on; relative, so that a moved folder is not stale.

    Of thousands of jobs each asks for one of a few answers: they are remembered.
    """
    script = f"{HOME}/workflow/scripts/stage.py"
    return [os.path.relpath(f) for f in [script, *module_files(f"stages.{stage}")]]


@lru_cache(None)
def method_files(method):
    """The files behind a method of the study, and behind what it starts from."""
    block = STUDY.methods[method]
    files = class_files(*classes_of(block.function, block.arguments))
    return [os.path.relpath(file) for file in files]


def in_report(file, category, **labels):
    """An output that `snakemake --report` holds; each category has a caption of its own."""
    caption = f"../workflow/report/{category.lower()}.rst"
    return report(file, caption=caption, category=category, labels=labels)


def in_reports(files, category):
    """Such outputs of experiments, labelled by the parts of their paths."""
    paths = [Path(file) for file in files]
    labels = [(path.parent.name, path.stem, path.suffix[1:]) for path in paths]
    return [
        in_report(file, category, experiment=experiment, shows=kind, form=form)
        for file, (experiment, kind, form) in zip(files, labels)
    ]


def one_of(names):
    """A wildcard constraint that matches these names, and nothing when there are none."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


# Whatever else a target names is no file of this study.
CALIBRATION = one_of(DRAWS)
METHOD = one_of(STUDY.methods)
RATIOS_NAME = one_of(STUDY.ratios)
PATTERN = r"u\d+(\.\d+)?|\d+of\d+(x\d+)?"


# Params of a rule, by its wildcards


def of_model(key):
    """This key of the wildcards' model in the config."""
    return lambda wildcards: getattr(STUDY.models[wildcards.model], key)


def of_dataset(key):
    """This key of the wildcards' data set in the config."""
    return lambda wildcards: getattr(STUDY.datasets[wildcards.dataset], key)


def of_calibration(key):
    """This key of the wildcards' calibration, one draw of one in the config."""
    return lambda wildcards: getattr(DRAWS[wildcards.calibration], key)


def of_method(key):
    """This key of the wildcards' method in the config."""
    return lambda wildcards: getattr(STUDY.methods[wildcards.method], key)


def of_ratios(key):
    """This key of the wildcards' ratios in the config."""
    return lambda wildcards: getattr(STUDY.ratios[wildcards.ratios], key)


def model_folder(wildcards):
    """The folder of the wildcards' model."""
    return folder_of(wildcards.model)


# Files of runs


def pruned(pattern, model=None, among=RUNS):
    """Fill {model}, {calibration}, {method} and {pattern} in for each run, of all models or of one."""
    return [
        pattern.format(**run._asdict()) for run in among if model in (None, run.model)
    ]


def evaluated(kind, model=None, these=None):
    """Result files of this kind of each run that has one, dense first; of all models or of one."""
    measured = RUNS if kind == "perplexity" else ZERO_SHOT_RUNS
    among = [run for run in measured if these is None or run in these]
    models = dict.fromkeys(run.model for run in among if model in (None, run.model))
    dense = [f"{RESULTS}/runs/{name}/dense/{kind}.json" for name in models]
    return dense + pruned(f"{RUN}/{kind}.json", model, among)


# Inputs and params of single rules


def dataset_settings(wildcards):
    """The wildcards' data set, as the config gives it."""
    return STUDY.datasets[wildcards.dataset].model_dump()


def calibration_documents(wildcards):
    """The documents that a calibration draws from."""
    return dataset_path(DRAWS[wildcards.calibration].dataset)


def calibration_documents_input(wildcards):
    """The same as a job's input."""
    return dataset_input(DRAWS[wildcards.calibration].dataset)


def of_text(key):
    """This key of the wildcards' text among `perplexity.others`; None for the first text."""
    others = STUDY.perplexity.others
    return lambda wildcards: getattr(others.get(wildcards.dataset), key, None)


def splits_of_text(wildcards):
    """The splits of the wildcards' text that are measured."""
    return STUDY.perplexity.splits_of(wildcards.dataset)


def text_input(wildcards):
    """The data set of the wildcards as a job's input."""
    return dataset_input(wildcards.dataset)


def text_folder(wildcards):
    """The folder with its splits, or its file of documents."""
    return dataset_path(wildcards.dataset)


def files_of_method(wildcards):
    """The files behind the wildcards' method: it is the only one that a run depends on."""
    return method_files(wildcards.method)


def is_given(method):
    """Whether a method's masks come from elsewhere, from files."""
    return takes_files(STUDY.methods[method].function)


def arguments_of_run(run):
    """The arguments of a run's method; in a path, <model> and <pattern> stand for the run's."""
    method = STUDY.methods[run.method]
    if not is_given(run.method):
        return method.arguments
    path = method.arguments["path"].replace("<model>", run.model)
    return method.arguments | {"path": path.replace("<pattern>", run.pattern)}


def files_given(run):
    """The masks from elsewhere that a run's method reads; nothing for one that makes its own."""
    function = STUDY.methods[run.method].function
    if not is_given(run.method):
        return []
    try:
        return [str(f) for f in make_method(function, arguments_of_run(run)).files()]
    except DassError as error:
        stop(f"methods.{run.method}.path: {error}")


def ratios_of_run(run):
    """How far a run's method prunes each block: a file, or none where all are alike."""
    name = STUDY.methods[run.method].ratios
    if name is None:
        return []
    folder = RATIOS.format(model=run.model, calibration=run.calibration, ratios=name)
    return f"{folder}/{run.pattern}.json"


SCORES = {
    "owl": f"{RATIOS}/outlier_shares.json",
    "alphapruning": f"{RESULTS}/ratios/{{model}}/tail_exponents.json",
    "list": [],
}


def scores_of_blocks(wildcards):
    """What the wildcards' ratios are made of; nothing where they were written down."""
    return SCORES[STUDY.ratios[wildcards.ratios].kind]


def ratio_files():
    """The ratios of all runs whose methods name some, and the scores behind them."""
    files = {}
    for run in RUNS:
        if of_run := ratios_of_run(run):
            name = STUDY.methods[run.method].ratios
            if scores := SCORES[STUDY.ratios[name].kind]:
                files[scores.format(**run._asdict(), ratios=name)] = None
            files[of_run] = None
    return list(files)


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
    splits = {name: perplexity.splits_of(name) for name in perplexity.datasets}
    found = dense_targets(PUBLISHED, wildcards.model, perplexity.length, splits)
    return [target._asdict() for target in found]


def evaluations(kind):
    """The results of this kind of the wildcards' model, dense and pruned."""
    return lambda wildcards: evaluated(kind, wildcards.model)


@lru_cache(None)
def shown():
    """What the tables and figures of each experiment show."""
    return {name: asdict(table_settings(STUDY, name)) for name in EXPERIMENTS}
