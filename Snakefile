# DaSS, reproduced: from calibration windows to LaTeX tables. See README.md and docs/.
import signal
from _thread import start_new_thread
from os.path import relpath

from snakemake.utils import min_version

min_version("9.27")


# Only with `--sdm apptainer`; see docs/cluster.md. A relative path may lie below a blank.
container: relpath(f"{workflow.current_basedir}/envs/dass.sif")


# `--configfile` replaces the paper's study; it inherits nothing from it.
if not workflow.overwrite_configfiles:

    configfile: f"{workflow.current_basedir}/config/config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/sizes.smk"
include: "rules/targets.smk"


wildcard_constraints:
    model=one_of(STUDY.models),
    calibration=CALIBRATION,
    method=METHOD,
    ratios=RATIOS_NAME,
    pattern=PATTERN,
    dataset=one_of(STUDY.datasets),
    experiment=one_of(EXPERIMENTS),
    run=f"dense|({CALIBRATION})/({METHOD})/({PATTERN})",


rule all:
    default_target: True
    input:
        f"{RESULTS}/summary.csv",
        f"{RESULTS}/report.html",
        f"{RESULTS}/report.pdf",
        f"{RESULTS}/report.tex",
        TABLES,
        FIGURES,
        lambda wildcards: BLOCK_TABLES + BLOCK_FIGURES,
        lambda wildcards: SPEED_TABLES + SPEED_FIGURES,
        lambda wildcards: SPEED_ACCURACY_TABLES + SPEED_ACCURACY_FIGURES,
        gone("tokens", "masks", "results", "summaries", "blocks", "speed"),


include: "rules/resources.smk"
include: "rules/standins.smk"
include: "rules/calibration.smk"
include: "rules/ratios.smk"
include: "rules/pruning.smk"
include: "rules/evaluation.smk"
include: "rules/blocks_common.smk"
include: "rules/blocks.smk"
include: "rules/speed_common.smk"
include: "rules/speed.smk"
include: "rules/tables.smk"
include: "rules/asked.smk"


for argument in sys.argv[1:]:  # Snakemake knows its targets only later
    check_target(argument)
    check_whole(argument)


# Snakemake's handler of SIGTERM waits for locks. Run by the main thread, as handlers are, it waits
# for ever when that thread holds them: when a job ends at that moment, or the signal comes twice.
onstart:
    if workflow.touch and NOT_TO_TOUCH:
        stop(NOT_TO_TOUCH[0])
    ends = signal.getsignal(signal.SIGTERM)
    if callable(ends):
        signal.signal(signal.SIGTERM, lambda *told: start_new_thread(ends, told))


# Last on the screen, below Snakemake's own accounts of each job.
onerror:
    if said := list(said_by_failed_jobs(log)):
        print("What failed, and where:", *said, sep="\n", file=sys.stderr)
