"""The blocks of a config, but for methods (:mod:`.method`) and benchmarks (:mod:`.speed`)."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from dass.config.types import (
    Count,
    FileNames,
    Label,
    Length,
    LocalPath,
    Name,
    Names,
    NamesOrAll,
    Patterns,
    Positive,
    Problem,
    Repository,
    Seed,
    Seeds,
    Share,
    Strict,
    Switch,
    TaskName,
    Text,
    once,
)
from dass.terms import Bos, DatasetKind, Dtype, Metric, Propagation, RatiosKind, Rows, Split

StandinPart = Literal[
    "documents", "wikitext", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "piqa"
]


class _Source(Strict):
    """Where a model or a data set comes from."""

    hub: Repository | None = None
    """Repository on the Hugging Face hub, as in `owner/name`."""
    revision: Text = "main"
    """Branch, tag or commit of the repository; a commit pins it for good."""
    path: LocalPath | None = None
    standin: str | None = None

    def _problems(self) -> Iterator[Problem]:
        """Exactly one of hub, path and standin, and nothing that goes with another one."""
        given = [key for key in ("hub", "path", "standin") if getattr(self, key) is not None]
        if len(given) != 1:
            have = " and ".join(given) or "none"
            yield "", f"give exactly one of hub, path and standin (here: {have})"
        elif given != ["hub"] and self.revision != "main":
            yield "revision", f"goes with hub only; remove it, or {given[0]}"


class ModelConfig(_Source):
    """A model: from a hub, a local folder, or a stand-in that the workflow makes itself.
    Give exactly one of `hub`, `path` and `standin`."""

    label: Label
    """Its name in tables and figures."""
    path: LocalPath | None = None
    """A local Hugging Face folder: `config.json`, `*.safetensors`, tokenizer. `${NAME}` and
    `${NAME:-default}` are replaced from the environment."""
    standin: Literal["llama", "mistral", "gemma"] | None = None
    """Family of a small model of the toy world: the repository's own, or trained here."""
    dtype: Dtype
    """Precision in which the model is loaded and run. Gemma overflows in float16."""
    bos: Bos = "text"
    """`text`: BOS stands in front of a text once, if the tokenizer puts one there, as in the
    released code; `window`: each calibration and evaluation window begins with BOS, without which
    Gemma breaks down."""
    parameters: Positive | None = None
    """Parameters in billions, from which jobs derive memory and time. Without it they are counted
    from the files of a local folder, and taken to be 7 for a model of the hub."""
    gated: Switch = False
    """Whether its repository asks for a licence: then a token is looked for before the first
    job."""
    zero_shot_limit: Count | None = None
    """Limit on the examples per zero-shot task, stated in the tables' captions. Without it, all
    are used."""
    notes: str = ""
    """For the reader of the config; has no effect."""

    def _problems(self) -> Iterator[Problem]:
        yield from super()._problems()
        if self.gated and self.hub is None:
            yield "gated", "goes with hub only; remove it"


class DatasetConfig(_Source):
    """A data set: from a hub, local files, or part of the stand-ins' toy world.
    Give exactly one of `hub`, `path` and `standin`."""

    kind: DatasetKind
    """`documents`: to draw calibration windows from, or to measure perplexity on beside a text;
    `text`: to measure perplexity on; `task`: the questions of one zero-shot task."""
    name: Text | None = None
    """The repository's configuration, as in `wikitext-2-raw-v1`."""
    files: FileNames | None = None
    """File of the repository to load, or one per split; without it, what the repository
    declares."""
    path: LocalPath | None = None
    """`documents`: a .jsonl or .json.gz file with one `{"text": …}` per line; `text`: a folder with
    validation and test as .txt or .jsonl; `task`: a folder with train.jsonl, validation.jsonl and
    test.jsonl in the official columns. `${NAME}` and `${NAME:-default}` are replaced from the
    environment."""
    standin: StandinPart | None = None
    """Part of the toy world."""
    rows: Rows = "line"
    """Rows of a .txt file: each line, or the whole file as one. Rows are joined with an empty line
    between them, as the released code does."""

    def _problems(self) -> Iterator[Problem]:
        yield from super()._problems()
        if self.hub is None:
            for key in ("name", "files"):
                if getattr(self, key) is not None:
                    yield key, "goes with hub only; remove it"
        elif self.kind == "documents" and not isinstance(self.files, str):
            yield "files", "name the repository's one file of documents"
        if self.rows != "line" and self.kind != "text":
            yield "rows", f"goes with kind text only, not {self.kind}; remove it"
        kinds: dict[str, DatasetKind] = {"documents": "documents", "wikitext": "text"}
        if self.standin is not None and self.kind != (kind := kinds.get(self.standin, "task")):
            yield "kind", f"must be {kind}, since {self.standin} is of that kind"


class StandinsConfig(Strict):
    """How the stand-ins are made. Needed as soon as a model or data set is one."""

    seed: Seed = 0
    """Seed of the toy world and of the training on it."""
    documents: Count = 2400
    """Documents in the toy world's corpus."""
    steps: Count = 600
    """Training steps of each stand-in model."""


class CalibrationConfig(Strict):
    """Token windows that the methods collect their statistics on."""

    dataset: str
    """A key of `datasets`, of kind `documents`."""
    sequences: Count
    """Number of windows."""
    length: Length
    """Tokens per window."""
    seed: Seeds
    """Seed of the draw of documents and offsets. A list asks for as many draws, each with its own
    runs: tables print their mean ± standard deviation."""
    propagation: Propagation = "pruned"
    """What a block's statistics are collected on: outputs of the `pruned` blocks before it, as the
    paper does, or of the `dense` ones."""


class RatiosConfig(Strict):
    """How far each block is pruned. Methods name it in their `ratios`; the share of zeros in all
    blocks together stays that of the pattern."""

    kind: RatiosKind
    """`owl`: the more outliers among a block's weights, the fewer zeros; `alphapruning`: the
    heavier the tails of its matrices' spectra, the fewer; `list`: as `shares` says."""
    outlier: Positive | None = None
    """`owl`: a weight is an outlier if its Wanda score is above so many times the block's mean,
    OWL's M; without it, 5."""
    deviation: Positive | None = None
    """`owl`: from the lowest to the highest, ratios span twice this, OWL's λ; without it, 0.08."""
    epsilon: Share | None = None
    """`alphapruning`: before they are scaled to the pattern's sparsity, ratios span
    from 1 − epsilon to 1 + epsilon; without it, 0.3."""
    shares: list[Share] | None = None
    """`list`: the share of zeros of each block, first to last; their mean must be the pattern's."""

    @property
    def outliers_above(self) -> float:
        """`outlier`, or its default."""
        return 5.0 if self.outlier is None else self.outlier

    @property
    def arguments(self) -> dict[str, Any]:
        """What turns scores into ratios, defaults included."""
        if self.kind == "owl":
            return {"deviation": 0.08 if self.deviation is None else self.deviation}
        if self.kind == "alphapruning":
            return {"epsilon": 0.3 if self.epsilon is None else self.epsilon}
        return {"shares": self.shares}

    def _problems(self) -> Iterator[Problem]:
        kinds = {"outlier": "owl", "deviation": "owl", "epsilon": "alphapruning", "shares": "list"}
        for key, kind in kinds.items():
            if getattr(self, key) is not None and kind != self.kind:
                yield key, f"goes with kind {kind} only, not {self.kind}; remove it"
        if self.kind == "list" and not self.shares:
            yield "shares", "missing; give the share of zeros of each block, as in [0.4, 0.6]"


class OtherTextConfig(Strict):
    """One more text that the perplexity of every run is measured on, with a table and a figure of
    its own. Its name is a key of `datasets`, of kind `text` or `documents`."""

    split: Split = "validation"
    """The split that is measured; of kind `documents`, the one that the file is of."""
    documents: Count | None = None
    """Kind `documents` only: the first so many, joined with a blank; without it, all."""
    windows: Count | None = None
    """At most so many windows, the first; without it, all."""


class PerplexityConfig(Strict):
    """Perplexity of every run: windows of a fixed length, mean loss, exponentiated."""

    dataset: str
    """A key of `datasets`, of kind `text`."""
    length: Length
    """Tokens per window."""
    splits: Annotated[list[Split], AfterValidator(once)] = Field(min_length=1)
    """Splits that are measured."""
    table_split: Split = "validation"
    """The one of them that tables print."""
    others: dict[Name, OtherTextConfig] = Field(default_factory=dict)
    """More texts, by their keys in `datasets`, with windows of the same length."""

    @property
    def datasets(self) -> list[str]:
        """The data sets of all texts, the first being the tables' main one."""
        return [self.dataset, *self.others]

    def splits_of(self, dataset: str) -> list[Split]:
        """The splits of one of the data sets that are measured."""
        return self.splits if dataset == self.dataset else [self.others[dataset].split]

    def _problems(self) -> Iterator[Problem]:
        if self.dataset in self.others:
            yield f"others.{self.dataset}", "is `dataset` already; add the split to `splits`"
        if self.table_split not in self.splits:
            listed = ", ".join(self.splits)
            yield "table_split", f"{self.table_split} is not measured; add it to splits ({listed})"


class ZeroShotConfig(Strict):
    """Zero-shot tasks, by lm-eval's own definitions. Without this block, none are run."""

    tasks: dict[TaskName, str] = Field(min_length=1)
    """For each task a key of `datasets`, of kind `task`."""
    metric: Metric = "acc"
    """Metric that tables print. WinoGrande has no acc_norm: it prints acc."""


class PublishedConfig(Strict):
    """Published numbers: tables print them beside ours, and a dense model that is far off its
    published perplexity is not pruned."""

    file: LocalPath
    """A CSV file with one number per row; docs/running.md lists its columns. Rows about models,
    methods and patterns that are not in the study are ignored. `${NAME}` and `${NAME:-default}` are
    replaced from the environment."""
    gate: Switch = True
    """Whether a dense perplexity that is too far off stops the pruning of that model; other models
    go on."""
    tolerance: Positive = 0.02
    """How far off it may be, as a share of the published value."""


class ExperimentConfig(Strict):
    """A set of runs that tables and figures are made of: every combination of its lists."""

    title: Label
    """Beginning of the captions of its tables and figures."""
    models: NamesOrAll
    """Keys of `models`, or `all`."""
    calibrations: Names
    """Keys of `calibrations`."""
    methods: Names
    """Keys of `methods`."""
    patterns: Patterns
    """`u50`: 50 % zeros, unstructured (any percentage: `u62.5`); `2of4`: 2 kept of each 4 (any N of
    M: `4of8`); `2of4x4`: 2 of each row and of each column of every 4 by 4 tile, so that groups lie
    along both dimensions (methods that only score)."""
    x: Text | None = None
    """What varies from run to run, for a figure with that on its horizontal axis: `sparsity`, a
    key of the calibrations such as `sequences`, or an argument of methods such as `alpha`.
    Without it, runs stand side by side by pattern."""
    zero_shot: Switch = True
    """Whether the zero-shot tasks are run, too, where the study has any."""


class BlocksConfig(Strict):
    """A look into the decoder blocks of some runs: how far their activations are spread, and what
    error pruning makes in each. Without this block, none."""

    models: NamesOrAll
    """Keys of `models`, or `all`."""
    calibration: str
    """A key of `calibrations`; of several seeds, its first draw."""
    methods: Names
    """Keys of `methods`."""
    patterns: Patterns
    """As in `experiments`. Every combination of these lists is a run of some experiment."""
    windows: Count = 16
    """Errors are measured on so many windows, the first of `perplexity.table_split`."""


class SelectConfig(Strict):
    """Runs only a part of what the experiments ask for; a key left out restricts nothing.
    Meant for the command line: `snakemake --cores all --config select='{models: [llama2-7b]}'`."""

    models: Names | None = None
    """Keys of `models`."""
    methods: Names | None = None
    """Keys of `methods`."""
    patterns: Names | None = None
    """Patterns of the experiments."""
    experiments: Names | None = None
    """Keys of `experiments`."""
