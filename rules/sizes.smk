# Memory, time and threads of jobs, by the size of the model.
@lru_cache(None)
def billions(model):
    """Parameters of a model in billions; a stand-in has next to none."""
    config = STUDY.models[model]
    if config.parameters is not None:
        return config.parameters
    if config.standin:
        return 0.001
    if config.path is None:
        return 7.0
    size = sum(file.stat().st_size for file in weight_files(own_folder(model)))
    return max(size / 2e9, 0.001)


def threads_of(wildcards):
    """Small models' jobs run side by side, large ones use up to eight threads."""
    return 1 if billions(wildcards.model) < SMALL else 8


def pruning_memory(wildcards, attempt):
    """mem_mb of pruning, by what the engine keeps on the host at most; more when retried."""
    calibration = DRAWS[wildcards.calibration]
    method = STUDY.methods[wildcards.method]
    needs = make_method(method.function, method.arguments).needs
    states = 2 * calibration.sequences * calibration.length if needs else 0
    return attempt * job_memory(
        billions(wildcards.model),
        STUDY.models[wildcards.model].dtype,
        states,
        # Scores of a whole MLP, which permuting needs at once, take about as much.
        grams=method.permute or any(need.endswith("gram") for need in needs),
        gradients="gradient" in needs,
    )


def weights_memory(wildcards, attempt):
    """mem_mb of a job that reads a model's weights block by block, and runs none of them."""
    dtype = STUDY.models[wildcards.model].dtype
    return attempt * job_memory(billions(wildcards.model), dtype, 0, grams=True)


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
