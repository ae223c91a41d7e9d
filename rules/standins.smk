# The demo's inputs: a toy world's text and tasks, and small models trained on it.
STANDINS = [name for name, model in STUDY.models.items() if model.standin]


rule toy_corpus:
    input:
        modules=modules("toy_corpus"),
    output:
        out=directory(TOY_CORPUS),
    log:
        "logs/toy_corpus/toy_corpus.log",
    benchmark:
        "logs/benchmarks/toy_corpus/toy_corpus.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="toy_corpus",
        seed=STUDY.standins.seed if STUDY.standins else None,
        documents=STUDY.standins.documents if STUDY.standins else None,
    message:
        "Writing the toy corpus: documents, articles and five tasks"
    script:
        "../workflow/scripts/stage.py"


rule train_standin:
    input:
        corpus=TOY_CORPUS,
        shipped=shipped_standin,
        modules=modules("train_standin"),
    output:
        out=directory("resources/models/{model}"),
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
        stage="train_standin",
        origins=[ORIGINS[TOY_CORPUS]],
        family=of_model("standin"),
        seed=STUDY.standins.seed if STUDY.standins else None,
        steps=STUDY.standins.steps if STUDY.standins else None,
    message:
        "Stand-in {wildcards.model}: the repository's own, or trained on the toy world"
    script:
        "../workflow/scripts/stage.py"
