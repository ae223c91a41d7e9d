# Files that Snakemake would take as they are: whether they were made as the config asks.
from snakemake.io import apply_wildcards
from snakemake.iocontainers import Wildcards
from snakemake.settings.types import RerunTrigger

# Results say, too, how the tokens were made that they are made of.
TOKENS_OF = {
    "prune_run": "calibration_tokens",
    "activations": "calibration_tokens",
    "perplexity": "evaluation_tokens",
    "block_errors": "evaluation_tokens",
    "zero_shot": "zero_shot_requests",
}
# Params that say where something lies; of mere sizes `source` says what they are.
PLACES = [model_folder, calibration_documents, text_folder, speed_source]


def settings_among(params, rule):
    """Those of a job's params that decide its result: not where files lie, nor what a machine has."""
    raw = dict(rule.params.items())
    local = [
        k for k, v in params.items() if raw.get(k) in PLACES and isinstance(v, str)
    ]
    local += [k for k in params if raw.get(k) is speed_threads]
    if raw.get("dtype") is speed_dtype and "source" not in local:
        local.append("dtype")
    found = {key: value for key, value in params.items() if key not in local}
    return found | {key: list(found[key]) for key in ["tasks"] if key in found}


def asked_of(rule, wildcards):
    """The settings that the config asks for in a job of a rule."""

    def value(raw):
        if callable(raw):
            return raw(wildcards)
        return apply_wildcards(raw, wildcards) if isinstance(raw, str) else raw

    return settings_among({key: value(raw) for key, raw in rule.params.items()}, rule)


@lru_cache(None)
def asked_of_tokens(stage, **wildcards):
    """The settings of tokens that many jobs read."""
    return asked_of(RULES[stage], Wildcards(fromdict=wildcards))


def asked_of_inputs(stage, wildcards):
    """What the config asks for in what a job reads, as far as the job's result says so, too."""
    if stage not in TOKENS_OF:
        return {}
    named = {"dataset": STUDY.perplexity.dataset} | dict(wildcards.items())
    tokens = RULES[TOKENS_OF[stage]]
    asked = asked_of_tokens(
        TOKENS_OF[stage], **{name: named[name] for name in tokens.wildcard_names}
    )
    if stage == "prune_run":
        file = ratios_of_run(wildcards)
        if not file:
            return asked | {"ratios": None}
        if Path(file).exists():
            return asked | {"ratios": read_result(file, RatiosResult).block_ratios}
    return asked


@lru_cache(None)
def checkpoint(model):
    """The hashes of a model's files, as its results say them; nothing where it is not there."""
    if model not in STUDY.models or not Path(folder := folder_of(model)).exists():
        return {}
    return {"checkpoint": model_source(folder, weight_files(folder))}


def untold(files):
    """That of what is made of results nothing is known: its record was left behind, or is old."""
    if not any(map(asked_before, files)):
        return f"{files[0]}: nothing says what it was asked for"


def unlike(rule, files, wildcards):
    """How the first of a job's files was made otherwise than the config asks; None: none was."""
    asked = asked_of(rule, wildcards)
    said = asked_of_inputs(rule.params.stage, wildcards) | asked
    before = {file: asked_before(file) for file in files}
    if not any(before.values()) and "origins" in asked:
        said |= checkpoint(wildcards.get("model"))
    found = [(file, asked_otherwise(file, said)) for file in files]
    for file in files:
        found += [(file, difference(settings_among(before[file] or {}, rule), asked))]
    for file, differs in found:
        if differs:
            return f"{file}: {differs} as the config asks"
    return None


def unrecorded(rule):
    """An input function that gives no file: refuses results that were not made as the config asks.

    Snakemake compares params with those that it recorded; of files that it has no record of, as of
    a copied folder, it knows times only. Nor does it compare them where it is told not to. What is
    made of results alone is made again: that takes seconds.
    """
    of_results = "origins" not in rule.params.keys() and place(rule.output[0])

    def check(wildcards):
        files = [file.apply_wildcards(dict(wildcards.items())) for file in rule.output]
        if not all(map(os.path.exists, files)) or any(map(made_again, files)):
            return []
        known = all(map(workflow.persistence.metadata, files))
        if known and RerunTrigger.PARAMS in workflow.rerun_triggers:
            return []
        try:
            problem = unlike(rule, files, wildcards)
            if of_results and not known:
                problem = problem or untold(files)
        except (DassError, OSError) as error:
            stop(error)
        if problem:
            why = "Snakemake has no record of how it was made"
            if known:
                why = "--rerun-triggers leaves params out"
            line = f"{problem}, and {why}; delete it, or give the study another name"
            if not of_results:
                stop(line)
            workflow.dag.forcefiles.update(files)
            NOT_TO_TOUCH.append(line)
        return []

    return check


# What `--touch` would only call made again, for the Snakefile's onstart.
NOT_TO_TOUCH = []
OURS = [one for one in workflow.modifier.rules if one.output]
RULES = {one.params.stage: one for one in OURS}
for one in OURS:
    one.set_input(unrecorded=unrecorded(one))
