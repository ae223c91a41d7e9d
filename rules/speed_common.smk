# What the rules of speed.smk share: which results are made, params and sizes of their jobs.
import shutil
import subprocess
from dataclasses import asdict

from dass.report.settings import speed_accuracy_settings
from dass.speed.timing import TOKENS_OF

SPEED = f"{RESULTS}/speed"
PREFILL = f"{SPEED}/prefill/{{model}}/{{calibration}}/{{method}}/{{pattern}}.json"
SPEED_KINDS = [
    kind
    for kind in ("metric", "gpu", "cpu")
    if STUDY.speed and getattr(STUDY.speed, kind)
]
SPEED_TABLES = expand(
    f"{SPEED}/tables/{{kind}}.{{form}}", kind=SPEED_KINDS, form=["tex", "md"]
)
# The method that pruning times are compared with, under the study's name for it.
SPEED_REFERENCE = [n for n, m in STUDY.methods.items() if m.function == "sparsegpt"][:1]


# Whether GPU benchmarks are part of the DAG: looked up once, then all jobs are told. On a cluster's
# login node, which has no GPU, set DASS_SPEED_GPU=1.
if "DASS_SPEED_GPU" not in os.environ:
    smi = shutil.which("nvidia-smi")
    found = smi and subprocess.run([smi, "-L"], capture_output=True, text=True).stdout
    os.environ.update(DASS_SPEED_GPU=str(int("GPU" in (found or ""))))


envvars:
    "DASS_SPEED_GPU",


def gpu_here():
    """Whether GPU benchmarks are part of the DAG."""
    return os.environ["DASS_SPEED_GPU"] == "1"


# The runs that are timed themselves, and what of them: prefill, decode, or both.
PREFILLED = prefilled_runs(STUDY) if gpu_here() else []
PREFILLED_PARTS = [
    part
    for part, counts in TOKENS_OF.items()
    if PREFILLED and any(tokens in counts for tokens in STUDY.speed.gpu.tokens)
]


def speed_results(kind):
    """The result files of one kind; for a GPU none where there is none."""
    subjects = speed_subjects(STUDY, kind)
    if kind == "metric":
        asked = STUDY.speed.metric.methods if subjects else []
        methods = [
            method
            for method in dict.fromkeys(run.method for run in RUNS)
            if (asked == "all" and not is_given(method)) or method in asked
        ]
        return expand(
            f"{SPEED}/metric/{{model}}/{{method}}.json", model=subjects, method=methods
        )
    if kind == "gpu" and not (subjects and gpu_here()):
        return []
    files = [f"{SPEED}/{kind}/{subject}.json" for subject in subjects]
    return files + (pruned(PREFILL, among=PREFILLED) if kind == "gpu" else [])


# None of what is not measured here: it would be blank.
SPEED_FIGURES = [
    f"{SPEED}/figures/{kind}.pdf"
    for kind in SPEED_KINDS
    if kind != "metric" and speed_results(kind)
]
# Of accuracy against speed: beside what is timed they need the runs' evaluations.
SPEED_ACCURACY_TABLES = expand(
    f"{SPEED}/tables/{{part}}.{{form}}", part=PREFILLED_PARTS, form=["tex", "md"]
)
SPEED_ACCURACY_FIGURES = expand(f"{SPEED}/figures/{{part}}.pdf", part=PREFILLED_PARTS)


def all_speed_results():
    """The result files of all kinds."""
    return [file for kind in SPEED_KINDS for file in speed_results(kind)]


def speed_pruning():
    """The runs' own files, for the times of whole prunings: for the report only, since they prune."""
    models = speed_subjects(STUDY, "metric")
    return [file for model in models for file in pruned(f"{RUN}/pruning.json", model)]


def speed_input(wildcards):
    """What a subject's sizes are read from; nothing where the config gives them."""
    return model_input(wildcards) if wildcards.model in STUDY.models else []


def speed_source(wildcards):
    """A subject's sizes: the folder of a model, or what the config gives."""
    if wildcards.model in STUDY.models:
        return model_folder(wildcards)
    return asdict(STUDY.speed.shapes[wildcards.model])


def speed_dtype(wildcards):
    """The dtype of a model; of a mere shape float16 on a GPU, float32 elsewhere."""
    if wildcards.model in STUDY.models:
        return STUDY.models[wildcards.model].dtype
    return "float16" if gpu_here() else "float32"


def speed_block(kind, *keys):
    """These keys of a block of the config's `speed`, as params; nothing without the block."""
    block = getattr(STUDY.speed, kind, None)
    return {key: getattr(block, key) for key in keys} if block else {}


def speed_methods(wildcards):
    """The method to time and the one it is compared with: name -> (function, arguments)."""
    return {
        name: (method.function, method.arguments)
        for name, method in STUDY.methods.items()
        if name in (wildcards.method, *SPEED_REFERENCE)
    }


def speed_method_files(wildcards):
    """The files behind these methods."""
    return [file for name in speed_methods(wildcards) for file in method_files(name)]


def speed_patterns(wildcards):
    """The patterns that any experiment uses the method with, whatever is selected."""
    experiments = STUDY.experiments.values()
    own = [e.patterns for e in experiments if wildcards.method in e.methods]
    return list(dict.fromkeys(pattern for patterns in own for pattern in patterns))


def speed_memory(wildcards, attempt):
    """mem_mb of a CPU benchmark: all variants of all engines at once, since they take turns."""
    shape = STUDY.speed.shapes.get(wildcards.model)
    block = 12e-6 * shape.hidden * shape.intermediate if shape else 10
    if wildcards.model in STUDY.models and billions(wildcards.model) >= SMALL:
        block = 4000 * billions(wildcards.model) / 32
    options = len(STUDY.speed.cpu.engines)
    copies = 5 + 2 * options + len(STUDY.speed.cpu.patterns) * (2 + 1.5 * options)
    return int((3000 + 1.5 * block * copies) * attempt)


def speed_settings(kind):
    """What a table or figure shows: fields of dass.report.speed_tables.SpeedSettings."""
    models = {name: model.label for name, model in STUDY.models.items()}
    labels = models | {name: f"{name} sizes" for name in STUDY.speed.shapes}
    subjects = speed_subjects(STUDY, kind)
    return {
        "study": STUDY.study,
        "subjects": {name: labels[name] for name in labels if name in subjects},
        "methods": {
            name: method.label or name for name, method in STUDY.methods.items()
        },
        "note": STUDY.note,
    }


def speed_accuracy_shown():
    """What tables and figures of accuracy against speed show; None where no run is timed."""
    settings = speed_accuracy_settings(STUDY) if PREFILLED else None
    return settings and asdict(settings)


def speed_all_cores():
    """All cores of this machine's run, for one benchmark alone; 8 where jobs are submitted."""
    return workflow.resource_settings.cores or 8


def speed_threads(wildcards):
    """Threads of a metric: as many as pruning that subject has."""
    own = threads_of(wildcards) if wildcards.model in STUDY.models else 8
    return min(own, speed_all_cores())
