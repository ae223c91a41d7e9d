# Whatever touches the network: models and data sets, pinned to a revision.
HUB_MODELS = [name for name, model in STUDY.models.items() if model.hub]
HUB_DATASETS = [name for name, dataset in STUDY.datasets.items() if dataset.hub]


rule fetch:
    # Named target: everything that the study needs from the network, for offline nodes.
    input:
        [folder_of(model) for model in MODELS if model in HUB_MODELS],
        [dataset_input(name) for name in HUB_DATASETS],


rule fetch_model:
    input:
        licence_gate,
    output:
        out=directory("resources/models/{model}"),
    log:
        "logs/fetch_model/{model}.log",
    benchmark:
        "logs/benchmarks/fetch_model/{model}.tsv"
    wildcard_constraints:
        model=one_of(HUB_MODELS),
    localrule: True
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=2000,
        runtime=24 * 60,
    params:
        stage="fetch_model",
        repository=of_model("hub"),
        revision=of_model("revision"),
    message:
        "Fetching model {wildcards.model} from {params.repository}"
    script:
        "../workflow/scripts/stage.py"


rule fetch_dataset:
    output:
        out=directory("resources/datasets/{dataset}"),
    log:
        "logs/fetch_dataset/{dataset}.log",
    benchmark:
        "logs/benchmarks/fetch_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(HUB_DATASETS),
    localrule: True
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        stage="fetch_dataset",
        settings=dataset_settings,
    message:
        "Fetching data set {wildcards.dataset} from {params.settings[hub]}"
    script:
        "../workflow/scripts/stage.py"
