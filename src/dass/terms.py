"""The words that config, code, paths and tables share, each written once.

A zero-shot task is more than a word: it has a module of its own, :mod:`dass.tasks`, so that a task
that is added makes no pruned model stale.
"""

from typing import Literal, get_args

Role = Literal["gate", "up", "down", "linear"]
"""Which of a GLU's three projections a matrix is, or a linear layer outside a GLU."""

ROLES: tuple[Role, ...] = ("gate", "up", "down")
"""Those of a GLU's projections."""

Targets = Literal["mlp", "attention", "all"]
"""Which matrices of a decoder block are pruned: those of its gated MLPs, of its self attention, or
both."""

ROLES_OF: dict[Targets, tuple[Role, ...]] = {
    "mlp": ROLES,
    "attention": ("linear",),
    "all": (*ROLES, "linear"),
}
"""The roles that occur among what is pruned."""

NEURON_DIM: dict[Role, int] = {"gate": 0, "up": 0, "down": 1}
"""Which dimension of a projection [out, in] of a gated MLP the intermediate neurons are."""

Dtype = Literal["float32", "bfloat16", "float16"]
"""In which precision a model is loaded and run."""

Bos = Literal["text", "window"]
"""Where BOS stands: once in front of each text, as the tokenizer puts it, or in every window."""

Rows = Literal["file", "line"]
"""What a row of a ``.txt`` is: the whole file, or each line."""

Split = Literal["validation", "test"]
"""Splits that perplexity is measured on."""

SPLITS: tuple[Split, ...] = get_args(Split)

Metric = Literal["acc", "acc_norm"]
"""Zero-shot accuracy by the log-likelihood of a choice, or by that per character."""

Propagation = Literal["pruned", "dense"]
"""Whose outputs reach the next block while a model is pruned."""

RatiosKind = Literal["owl", "alphapruning", "list"]
"""What the ratios of a model's blocks follow."""

DatasetKind = Literal["documents", "text", "task"]
"""What a data set is for: calibration, perplexity, or one zero-shot task."""

DENSE = "dense"
"""The method of the run that prunes nothing."""
