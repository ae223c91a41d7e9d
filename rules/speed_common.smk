# What the rules of speed.smk share: which results there are, sizes of their jobs, table settings.
import shutil
import subprocess

SPEED = f"{RESULTS}/speed"
SPEED_KINDS = [
    kind
    for kind in ("metric", "gpu", "cpu")
    if STUDY.speed and getattr(STUDY.speed, kind)
]
SPEED_TABLES = expand(
    f"{SPEED}/tables/{{kind}}.{{form}}", kind=SPEED_KINDS, form=["tex", "md"]
)
SPEED_FIGURES = [
    f"{SPEED}/figures/{kind}.pdf" for kind in SPEED_KINDS if kind != "metric"
]


# Whether GPU benchmarks are part of the DAG: once found out, all jobs are told. On a cluster's login
# node, which has no GPU, say DASS_SPEED_GPU=1.
if "DASS_SPEED_GPU" not in os.environ:
    smi = shutil.which("nvidia-smi")
    found = smi and subprocess.run([smi, "-L"], capture_output=True, text=True).stdout
    os.environ.update(DASS_SPEED_GPU=str(int("GPU" in (found or ""))))


envvars:
    "DASS_SPEED_GPU",


def gpu_here():
    """Whether GPU benchmarks are part of the DAG."""
    return os.environ["DASS_SPEED_GPU"] == "1"


def speed_results(kind):
    """The result files of one kind; of GPUs none where there is none."""
    subjects = speed_subjects(STUDY, kind)
    if kind == "gpu" and not (subjects and gpu_here()):
        return []
    files = [f"{SPEED}/{kind}/{subject}.json" for subject in subjects]
    if kind != "gpu" or not STUDY.speed.gpu.prefill:
        return files
    return files + [
        f"{SPEED}/prefill/{run.model}/{run.calibration}/{run.method}/{run.pattern}.json"
        for run in RUNS
        if run.model in subjects and run.pattern == "2of4"
    ]


def speed_pruning():
    """The runs' own files, for the times of whole prunings."""
    models = speed_subjects(STUDY, "metric")
    return [file for model in models for file in pruned(f"{RUN}/pruning.json", model)]


def speed_input(wildcards):
    """What a subject's sizes are read from; nothing where the config gives them."""
    if wildcards.model in STUDY.models:
        return model_input(wildcards)
    return []


def speed_folder(wildcards):
    """The folder of a subject that is a model."""
    return model_folder(wildcards.model) if wildcards.model in STUDY.models else None


def speed_sizes(wildcards):
    """The sizes of a subject that is a shape."""
    shape = STUDY.speed.shapes.get(wildcards.model)
    return shape.model_dump() if shape else None


def speed_dtype(wildcards):
    """The dtype of a subject; that of a shape is float16 on a GPU, float32 elsewhere."""
    if wildcards.model in STUDY.models:
        return STUDY.models[wildcards.model].dtype
    return "float16" if gpu_here() else "float32"


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
    """What a table or figure shows: labels, and for pruning the runs' own files."""
    models = {name: model.label for name, model in STUDY.models.items()}
    shapes = {name: f"{name} sizes" for name in STUDY.speed.shapes}
    return {
        "study": STUDY.study,
        "subjects": {
            name: label
            for name, label in (models | shapes).items()
            if name in speed_subjects(STUDY, kind)
        },
        "methods": {
            name: method.label or name for name, method in STUDY.methods.items()
        },
        "note": STUDY.note,
    }


def speed_threads(wildcards):
    """Threads that the pruning of a subject has."""
    return threads_of(wildcards) if wildcards.model in STUDY.models else 8


def speed_all_cores():
    """All cores of this machine's run, which a benchmark has to itself; 8 where jobs are submitted."""
    return workflow.resource_settings.cores or 8
