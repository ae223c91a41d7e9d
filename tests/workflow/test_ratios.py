"""Ratios per block as rules: jobs, what is stale, and a run from end to end."""

from __future__ import annotations

import json
from typing import Any

from dass.results.verify import verify

from .conftest import Workflow, small_study
from .test_verify import MODELS, TASKS, TEXTS

RUN = "results/small/runs/standin-llama/toy/{}/2of4/perplexity.json"
NEW = {"owl": "wanda-owl", "tails": "dass-tails", "half": "wanda-half"}


def ratios_study(deviation: float = 0.4) -> dict[str, Any]:
    study = small_study()
    study["ratios"] = {
        "owl": {"kind": "owl", "outlier": 2, "deviation": deviation},
        "tails": {"kind": "alphapruning", "epsilon": 0.5},
        "half": {"kind": "list", "shares": [0.25, 0.75, 0.5]},
    }
    for ratios, method in NEW.items():
        function = method.partition("-")[0]
        study["methods"][method] = {"function": function, "label": method, "ratios": ratios}
    study["methods"]["dass-tails"]["permute"] = True
    study["experiments"]["main"]["methods"] += NEW.values()
    return study


def test_runs_with_ratios_are_made_beside_what_there_is(study: Workflow) -> None:
    config = study.write_study(ratios_study())
    targets = [RUN.format(method) for method in [*NEW.values(), "wanda", "dass"]]
    once = {"activations": 1, "outlier_shares": 1, "tail_exponents": 1}
    made = study.plan(*targets, config=config)
    assert made == once | {"ratios": 3, "prune_run": 3, "perplexity": 3}
    study.forked(*targets, config=config)
    for ratios, method in NEW.items():
        said = json.loads((study.folder / RUN.format(method)).with_name("pruning.json").read_text())
        path = f"results/small/ratios/standin-llama/toy/{ratios}/2of4.json"
        shares = json.loads((study.folder / path).read_text())["block_ratios"]
        assert said["settings"]["ratios"] == shares
        assert (said["mean_sparsity"], len(set(shares)) > 1) == (0.5, True)
        assert bool(said["kept_shares"]) == (method == "dass-tails")  # the only one that permutes
    assert study.plan(*targets, config=config) == {}
    place = study.folder
    models, texts, tasks = (
        {k: place / v for k, v in of.items()} for of in (MODELS, TEXTS, TASKS)
    )  # fmt: skip
    assert verify(place / "results/small", models, texts, tasks) > 0
    # Another λ counts no outlier again, and touches no other run.
    changed = study.write_study(ratios_study(deviation=0.38))
    assert study.plan(*targets, config=changed) == {"ratios": 1, "prune_run": 1, "perplexity": 1}
    study.append("src/dass/pruning/ratios.py", "# A comment.")
    stale = study.plan(RUN.format("wanda"), RUN.format("dass"), config=changed)
    assert "prune_run" not in stale and "perplexity" not in stale
