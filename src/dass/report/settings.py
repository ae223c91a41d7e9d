"""From a study's config to what the tables and figures of an experiment show."""

from dass.config.study import StudyConfig, block_runs, experiment_runs
from dass.report.block_tables import BlockSettings
from dass.report.experiment import TableSettings


def table_settings(study: StudyConfig, experiment: str) -> TableSettings:
    """What an experiment shows, of the runs that ``select`` leaves.

    Raises:
        ConfigError: there is no such experiment.
    """
    runs = experiment_runs(study, experiment)
    calibrations = {run.calibration: study.draws[run.calibration] for run in runs}
    asked = study.experiments[experiment].zero_shot
    models, methods = {run.model for run in runs}, {run.method for run in runs}
    return TableSettings(
        experiment=experiment,
        title=study.experiments[experiment].title,
        models={key: model.label for key, model in study.models.items() if key in models},
        calibrations={
            key: f"{c.sequences} sequences of {c.length} tokens of {c.dataset}, seed {c.seed}"
            for key, c in calibrations.items()
        },
        methods={key: m.label or key for key, m in study.methods.items() if key in methods},
        patterns=list(dict.fromkeys(run.pattern for run in runs)),
        split=study.perplexity.table_split,
        metric=study.zero_shot.metric if study.zero_shot else "acc",
        tasks=list(study.zero_shot.tasks) if study.zero_shot and asked else [],
        note=study.note,
    )


def block_settings(study: StudyConfig) -> BlockSettings | None:
    """What the tables and figures of blocks show, of the runs that ``select`` leaves, if any."""
    runs = block_runs(study)
    if not runs:
        return None
    return BlockSettings(
        models={run.model: study.models[run.model].label for run in runs},
        calibration=runs[0].calibration,
        methods={run.method: study.methods[run.method].label or run.method for run in runs},
        patterns=list(dict.fromkeys(run.pattern for run in runs)),
        note=study.note,
    )
