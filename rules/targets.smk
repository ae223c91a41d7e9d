# What is asked for: whether it is of this study, and whole; and what jobs said that failed.
NAMES = {
    "models": STUDY.models,
    "calibrations": DRAWS,
    "methods": STUDY.methods,
    "experiments": [*EXPERIMENTS, *(["blocks"] if STUDY.blocks else [])],
}
NAMED = {
    "runs": ["models", "calibrations", "methods"],
    "exports": ["models", "calibrations", "methods"],
    "calibration": ["models", "calibrations"],
    "evaluation": ["models"],
    "requests": ["models"],
    "activations": ["models", "calibrations"],
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
        try:
            check_spelling(pattern)
        except DassError as error:
            stop(f"{target}: {error}")


FORCED = ArgumentParser(add_help=False, allow_abbrev=False)
FORCED.add_argument("-R", "--forcerun", nargs="*", default=[])
FORCED.add_argument("-F", "--forceall", action="store_true")
FORCED.add_argument("-f", "--force", action="store_true")
FORCED, _ = FORCED.parse_known_args(sys.argv[1:])  # Snakemake has not told us yet


def made_again(file):
    """Whether the command line has Snakemake make a file, though it may be there."""
    file, forced = str(file), FORCED.forcerun
    if FORCED.forceall or file in forced:
        return True
    if file in sys.argv and (FORCED.force or is_gone(file)):
        return True
    return any(r.name in forced and r.is_producer(file) for r in workflow.rules)


def check_whole(target):
    """Refuse a result whose inputs are gone, as failed jobs leave it, where they are not asked for.

    Snakemake would take it to be current: see `gone`.
    """
    try:
        missing = gone_before(target, made_again) if Path(target).exists() else None
    except DassError as error:
        stop(error)
    if missing:
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


def gone(*kinds):
    """An input function of a target: what jobs have written for it before, and is there no more.

    Snakemake makes a missing file again only if it is a target, or if a job that reads it has
    another reason to run. But a job that fails has taken its old output along: what was made from
    that one must not stay as if nothing had happened.
    """

    def files(kind):
        if kind == "tokens":
            requests = expand(REQUESTS, model=MODELS) if TASKS else []
            return pruned(WINDOWS) + expand(TEXTS, model=MODELS) + requests
        if kind == "masks":
            return ratio_files() + pruned(PRUNED) + pruned(f"{RUN}/pruning.json")
        if kind == "results":
            return [file for kind in EVALUATIONS for file in evaluated(kind)]
        if kind == "summaries":
            return [*SUMMARIES, SUMMARY]
        if kind == "blocks":
            norms = [
                file.removesuffix("json") + "safetensors" for file in BLOCK_ACTIVATIONS
            ]
            return BLOCK_ACTIVATIONS + norms + BLOCK_ERRORS
        return all_speed_results()

    return lambda wildcards: [f for kind in kinds for f in files(kind) if is_gone(f)]
