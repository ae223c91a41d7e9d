# Models and data sets: the user's own files, or folders that rules make in resources/.
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


def path_key(section, name):
    """The config key of a path, for errors; with what it says where a variable is part of it."""
    key, written = f"{section}.{name}.path", config[section][name]["path"]
    return f"{key} ({written})" if "${" in written else key


@lru_cache(None)
def own_folder(model):
    """A model's folder of the user's own; checked once, not for each job."""
    folder = folder_of(model)
    try:
        check_folder(folder)
        settings = read_config(folder)
        for length in window_lengths(model):
            check_window(settings, length, folder)
    except DassError as error:
        stop(f"{path_key('models', model)}: {error}")
    return folder


@lru_cache(None)
def own_model_files(model, which=files_read):
    """The files of a model in a folder of the user's own."""
    return [str(file) for file in which(own_folder(model))]


def window_lengths(model):
    """How many tokens a model is given at once, in calibration and for perplexity."""
    used = {run.calibration for run in RUNS if run.model == model}
    return {DRAWS[name].length for name in used} | {STUDY.perplexity.length}


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
            files = [
                find_split(folder, split) for split in STUDY.perplexity.splits_of(name)
            ]
        elif dataset.kind == "task":
            files = [
                task_file(task, folder) for task, of in TASKS.items() if of == name
            ]
        else:
            files = [folder]
    except DassError as error:
        stop(f"{path_key('datasets', name)}: {error}")
    for file in files:
        if not file.is_file():
            what = "is no file" if file.exists() else "does not exist"
            stop(
                f"{path_key('datasets', name)}: {file} {what}; give the file of {dataset.kind}"
            )
    return [str(file) for file in files]


def published_file():
    """The file of published numbers as a job's input, where the study names one."""
    return [STUDY.published.file] if STUDY.published else []


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


@lru_cache(None)
def own_files_hash(files):
    """What the user's own files hold: by times alone, an older one put in their place is missed."""
    return fingerprint(files)


def origins(datasets=lambda wildcards: []):
    """A param: what the model, and data sets, come from that a job reads; no stage is given it.

    A folder in resources/ may be gone to free the disk, which makes nothing stale. But it is gone,
    too, where another was to be fetched in its place and could not.

    Args:
        datasets: names of data sets, by the wildcards.
    """

    def model_origin(name):
        if STUDY.models[name].path is None:
            return ORIGINS.get(folder_of(name))
        return own_files_hash(tuple(own_model_files(name)))

    def dataset_origin(name):
        if STUDY.datasets[name].path is None:
            return ORIGINS.get(dataset_input(name))
        return own_files_hash(tuple(own_dataset_files(name)))

    def param(wildcards):
        model = [wildcards.model] if wildcards.model in STUDY.models else []
        return [*map(model_origin, model), *map(dataset_origin, datasets(wildcards))]

    return param


def shipped_standin(wildcards):
    """What the repository's stand-in of that family was made by; its weights change with it.

    A small file: Snakemake compares its content. By its time alone a clone would look newer.
    """
    family = STUDY.models[wildcards.model].standin
    return os.path.relpath(f"{SOURCE}/dass/standins/shipped/{family}/recipe.json")


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
