# The demo's inputs: a toy world's text and tasks, and small models trained on it.
STANDINS = [name for name, model in STUDY.models.items() if model.standin]


rule world:
    input:
        modules=modules(
            "standins", "standins.world", "standins.corpus", "standins.tasks"
        ),
    output:
        directory(WORLD),
    log:
        "logs/world/world.log",
    benchmark:
        "logs/benchmarks/world/world.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        seed=lambda wildcards: STUDY.standins.seed,
        documents=lambda wildcards: STUDY.standins.documents,
    message:
        "Writing the toy world: documents, articles and five tasks"
    script:
        "../workflow/scripts/world.py"


rule train_standin:
    input:
        world=WORLD,
        modules=modules("standins", "standins.training"),
    output:
        directory("resources/models/{model}"),
    log:
        "logs/train_standin/{model}.log",
    benchmark:
        "logs/benchmarks/train_standin/{model}.tsv"
    wildcard_constraints:
        model=one_of(STANDINS),
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        family=lambda wildcards: STUDY.models[wildcards.model].standin,
        seed=lambda wildcards: STUDY.standins.seed,
        steps=lambda wildcards: STUDY.standins.steps,
    message:
        "Training {wildcards.model} on the toy world"
    script:
        "../workflow/scripts/train_standin.py"
