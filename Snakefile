# DaSS, reproduced: from calibration windows to LaTeX tables. See README.md and docs/.
from snakemake.utils import min_version

min_version("9.27")


# Only with `--sdm apptainer`; see docs/cluster.md.
container: f"{workflow.current_basedir}/envs/dass.sif"


# `--configfile` replaces the paper's study; it inherits nothing from it.
if not workflow.overwrite_configfiles:

    configfile: f"{workflow.current_basedir}/config/config.yaml"


include: "rules/common.smk"


wildcard_constraints:
    model="[^/]+",
    calibration="[^/]+",
    method="[^/]+",
    pattern="[^/]+",
    dataset="[^/]+",
    experiment="[^/]+",
    run="dense|[^/]+/[^/]+/[^/]+",


rule all:
    default_target: True
    input:
        f"{RESULTS}/summary.csv",
        f"{RESULTS}/report.html",
        f"{RESULTS}/report.pdf",
        TABLES,
        FIGURES,
        lambda wildcards: SPEED_TABLES + SPEED_FIGURES,


include: "rules/resources.smk"
include: "rules/standins.smk"
include: "rules/calibration.smk"
include: "rules/pruning.smk"
include: "rules/evaluation.smk"
include: "rules/speed_common.smk"
include: "rules/speed.smk"
include: "rules/tables.smk"
