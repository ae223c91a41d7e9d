"""Configs that ask for something unknown or impossible."""

from __future__ import annotations

from typing import Any

from tests.unit.bad_inputs.case import Case
from tests.unit.bad_inputs.good import study, together, write
from tests.unit.config.small import GONE

METHOD = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Mine:
    needs = frozenset()

    def comparison(self, role):
        {comparison}

    def {kind}(self, role, weight, statistics{more}):
        {body}
"""


def method(body: str, kind: str = "score", more: str = "",
           comparison: str = "from dass.pruning.method import Comparison; "
           "return Comparison('row', 'input')") -> str:  # fmt: skip
    """The file of a custom method."""
    return METHOD.format(body=body, kind=kind, more=more, comparison=comparison)


def config(what: str, key: str, value: Any, says: str) -> Case:
    """A config in which one key has another value."""
    return Case(what, study({key: value}), says)


def custom(what: str, module: str, says: str, **more: Any) -> Case:
    """A config with a custom method of this file."""
    block = {"function": "mymodule:Mine"} | more
    return Case(what, together(write("mymodule.py", module), study({"methods/dass": block})), says)


EXPERIMENT = {
    "title": "x", "models": "all", "calibrations": ["c"], "methods": ["dass"], "patterns": ["u50"],
}  # fmt: skip

BLOCKS = {"models": ["a"], "calibration": "c", "methods": ["dass"], "patterns": ["u50"]}

CASES = [
    config("a key that does not exist, at the top", "modles", {}, "modles: unknown key; did you mean models?"),
    config("a key that does not exist, in a model", "models/a/dtpye", "x", "models.a.dtpye: unknown key; did you mean dtype?"),
    config("the same in a data set", "datasets/docs/split", "x", "datasets.docs.split: unknown key; …"),
    config("the same in a calibration", "calibrations/c/seeds", 0, "calibrations.c.seeds: unknown key; did you mean seed?"),
    config("the same in a method", "methods/dass/alhpa", 0.5, "methods.dass.alhpa: unknown key; did you mean alpha?"),
    config("the same in perplexity", "perplexity/lenght", 8, "perplexity.lenght: unknown key; did you mean length?"),
    config("the same in zero_shot", "zero_shot/limit", 8, "zero_shot.limit: unknown key; …"),
    config("the same in an experiment", "experiments/main/pattern", [], "experiments.main.pattern: unknown key; did you mean patterns?"),
    config("the same in speed", "speed", {"gpus": {}}, "speed.gpus: unknown key; did you mean gpu?"),
    config("the same in a benchmark", "speed", {"cpu": {"of": "all", "thread": 2}}, "speed.cpu.thread: unknown key; did you mean threads?"),
    config("the same in published", "published", {"file": "f.csv", "gates": True}, "published.gates: unknown key; did you mean gate?"),
    Case("a key twice", write("study.yaml", "study: small\nmodels: {}\nstudy: big\n"), "study.yaml: 'study' stands twice in one block (lines 1 and 3), of which only the last would count; remove one"),
    config("a label in letters that LaTeX lacks", "models/a/label", "模型", "models.a.label: '模型' holds '模', which LaTeX cannot print; write it in Latin letters"),
    config("the same in a note", "note", "α ∘ β", "note: 'α ∘ β' holds '∘', which LaTeX cannot print; …"),
    config("the same in a title", "experiments/main/title", "Ж", "experiments.main.title: 'Ж' holds 'Ж', which LaTeX cannot print; …"),
    config("names that differ in capital letters only", "experiments", dict.fromkeys(("main", "Main"), EXPERIMENT), "experiments.Main: differs from main in capital letters only, which some disks do not tell apart; rename one"),
    config("experiments that LaTeX cannot tell apart", "experiments", dict.fromkeys(("a.b", "a-b"), EXPERIMENT), "experiments.a-b: has the label of a.b in LaTeX (a-b); rename one"),
    config("documents of a hub without their file", "datasets/docs/files", GONE, "datasets.docs.files: name the repository's one file of documents"),
    config("braces in a path", "models/a", {"label": "A", "path": "/data/{x}", "dtype": "float32"}, "models.a.path: /data/{x} has braces, which Snakemake fills in; rename or link it"),
    config("what Snakemake takes for a name in a path", "models/a", {"label": "A", "path": "/data/<mine>/x", "dtype": "float32"}, "models.a.path: /data/<mine>/x has <mine>, which Snakemake fills in; rename or link it"),
    config("a name in the path of masks that stands for nothing", "methods/given", {"function": "given", "path": "masks/<models>/<pattern>"}, "methods.given: method 'given' does not take {'path': 'masks/<models>/<pattern>'}: path has <models>, but only <model> and <pattern> stand for something; rename it"),
    config("a licence for a local folder", "models/a", {"label": "A", "path": "/data/x", "dtype": "float32", "gated": True}, "models.a.gated: goes with hub only; remove it"),
    config("a required key is missing", "models/a/dtype", GONE, "models.a.dtype: missing; it is required"),
    config("a required block is missing", "perplexity", GONE, "perplexity: missing; it is required"),
    config("a block is empty", "perplexity", None, "perplexity: must be a block of keys, but is empty"),
    config("a block is a list", "models", [], "models: must be a block of keys, not []"),
    config("no models", "models", {}, "models: must not be empty…"),
    config("no experiments", "experiments", {}, "experiments: must not be empty"),
    config("an experiment without methods", "experiments/main/methods", [], "experiments.main.methods: must not be empty"),
    config("a list is one word", "experiments/main/methods", "dass", "experiments.main.methods: must be a list, as in [a, b], not 'dass'"),
    config("a number is text", "calibrations/c/sequences", "four", "calibrations.c.sequences: must be a whole number, not 'four'"),
    config("a whole number has a point", "calibrations/c/length", 8.5, "calibrations.c.length: must be a whole number, not 8.5"),
    config("a number is true", "calibrations/c/sequences", True, "calibrations.c.sequences: must be a whole number, not True"),
    config("a number is NaN", "methods/dass/alpha", float("nan"), "methods.dass.alpha: must be a finite number, not nan"),
    config("a number is infinite", "models/a/parameters", float("inf"), "models.a.parameters: must be a finite number, not inf"),
    config("a label is a number", "models/a/label", 7, "models.a.label: must be text (put it in quotes), not 7"),
    config("no sequences", "calibrations/c/sequences", 0, "calibrations.c.sequences: must be greater than 0, not 0"),
    config("windows of no tokens", "perplexity/length", 0, "perplexity.length: must be greater than 1, not 0"),
    config("a negative seed", "calibrations/c/seed", -1, "calibrations.c.seed: write a whole number from 0 to 2^63 - 1, …"),
    config("a seed of 30 digits", "calibrations/c/seed", 10**29, "calibrations.c.seed: write a whole number from 0 to 2^63 - 1, …"),
    config("tokens per call twice", "speed", {"cpu": {"of": "all", "tokens": [1, 1]}}, "speed.cpu.tokens: 1 is listed twice; remove one"),
    config("an unknown dtype", "models/a/dtype", "int8", "models.a.dtype: must be 'float32', 'bfloat16' or 'float16', not 'int8'"),
    config("an unknown split", "perplexity/splits", ["train"], "perplexity.splits.0: must be 'validation' or 'test', not 'train'"),
    config("a split twice", "perplexity/splits", ["test", "test", "validation"], "perplexity.splits: test is listed twice; remove one"),
    config("tables print a split that is not measured", "perplexity/splits", ["test"], "perplexity.table_split: validation is not measured; add it to splits (test)"),
    config("a model from two places", "models/a/path", "x", "models.a: give exactly one of hub, path and standin (here: hub and path)"),
    config("a model from nowhere", "models/a/hub", GONE, "models.a: give exactly one of hub, path and standin (here: none)"),
    config("a revision of a local folder", "models/b/revision", "v2", "models.b.revision: goes with hub only; remove it, or path"),
    config("a stand-in without its block", "models/a", {"label": "A", "standin": "llama", "dtype": "float32"}, "standins: missing; models.a is a stand-in and needs this block"),
    config("a folder where a repository belongs", "models/a/hub", "/models/a", "models.a.hub: '/models/a' is no repository id such as owner/name; a local folder goes under `path`"),
    config("a name with a slash", "models/x%y", {"label": "X", "hub": "o/x", "dtype": "float32"}, "models.x%y: 'x%y' is part of a path: use letters, …"),
    config("a method called dense", "methods/dense", {"function": "dass"}, "methods.dense: the name is reserved for the unpruned model; choose another"),
    config("an environment variable that is not set", "models/b/path", "${DASS_NO_SUCH}/m", "models.b.path: environment variable DASS_NO_SUCH is not set; set it, or write ${DASS_NO_SUCH:-default}"),
    config("a variable that is not closed", "models/b/path", "${HOME/m", "models.b.path: cannot read '${HOME/m'; write ${NAME} or ${NAME:-default}"),
    config("a path in the home folder, by tilde", "models/b/path", "~/m", "models.b.path: write ${HOME} instead of ~ in '~/m'"),
    config("an empty path", "models/b/path", "", "models.b.path: must not be empty"),
    config("a data set of the wrong kind", "calibrations/c/dataset", "text", "calibrations.c.dataset: data set 'text' is of kind text, but kind documents is needed here"),
    config("a data set that is not there", "perplexity/dataset", "txt", "perplexity.dataset: no data set 'txt' in datasets; did you mean text?"),
    config("another text that is not there", "perplexity/others", {"doc": {}}, "perplexity.others.doc: no data set 'doc' in datasets; did you mean docs?"),
    config("the first text as another one", "perplexity/others", {"text": {}}, "perplexity.others.text: is `dataset` already; add the split to `splits`"),
    config("an unknown task", "zero_shot/tasks", {"rte": "questions"}, "zero_shot.tasks.rte: must be 'hellaswag', …, not 'rte'"),
    config("an experiment's model that is not there", "experiments/main/models", ["c"], "experiments.main.models: no model 'c' in models; there are: a, b"),
    config("an experiment's calibration that is not there", "experiments/main/calibrations", ["d"], "experiments.main.calibrations: no calibration 'd' in calibrations; …"),
    config("an experiment's method that is not there", "experiments/main/methods", ["wnada"], "experiments.main.methods: no method 'wnada' in methods; did you mean wanda?"),
    config("a method twice", "experiments/main/methods", ["dass", "dass"], "experiments.main.methods: dass is listed twice; remove one"),
    config("select of an experiment that is not there", "select", {"experiments": ["x"]}, "select.experiments: no experiment 'x' in experiments; there are: main"),
    config("a look into the blocks of a model that is not there", "blocks", BLOCKS | {"models": ["c"]}, "blocks.models: no model 'c' in models; there are: a, b"),
    config("a look into the blocks of a run that no experiment has", "blocks", BLOCKS | {"patterns": ["u60"]}, "blocks: a/c/dass/u60 is a run of no experiment; add it to one, or leave it out here"),
    config("a pattern in YAML's sexagesimals", "experiments/main/patterns", [124], "experiments.main.patterns.0: must be text (put it in quotes), not 124"),
    config("sparsity 0", "experiments/main/patterns", ["u0"], "experiments.main.patterns: pattern 'u0': the percentage of zeros must be in (0, 100)"),
    config("sparsity 100", "experiments/main/patterns", ["u100"], "experiments.main.patterns: pattern 'u100': the percentage of zeros must be in (0, 100)"),
    config("sparsity above 100", "experiments/main/patterns", ["u150"], "experiments.main.patterns: pattern 'u150': the percentage of zeros must be in (0, 100)"),
    config("sparsity as a share", "experiments/main/patterns", [0.5], "experiments.main.patterns.0: must be text (put it in quotes), not 0.5"),
    config("5 of 4", "experiments/main/patterns", ["5of4"], "experiments.main.patterns: pattern '5of4': cannot keep 5 of 4; N of M needs 0 < N < M, as in 2of4"),
    config("4 of 4", "experiments/main/patterns", ["4of4"], "experiments.main.patterns: pattern '4of4': cannot keep 4 of 4; …"),
    config("0 of 4", "experiments/main/patterns", ["0of4"], "experiments.main.patterns: pattern '0of4': cannot keep 0 of 4; …"),
    config("a pattern with a colon", "experiments/main/patterns", ["2:4"], "experiments.main.patterns: unknown pattern '2:4': write u50 …"),
    config("a pattern spelled otherwise", "experiments/main/patterns", ["u050"], "experiments.main.patterns: write u50 instead of u050"),
    config("a negative alpha", "methods/dass/alpha", -0.5, "methods.dass.alpha: must be at least 0, not -0.5"),
    config("an unknown method", "methods/dass/function", "das", "methods.dass.function: no built-in method 'das'; did you mean dass? …"),
    config("a damping of 0", "methods/dass", {"function": "sparsegpt", "damping": 0}, "methods.dass.damping: must be greater than 0, not 0"),
    config("a block of 0 columns", "methods/dass", {"function": "sparsegpt", "block": 0}, "methods.dass.block: must be greater than 0, not 0"),
    config("a start that is a name", "methods/dass", {"function": "sparseswaps", "start": "dass"}, "methods.dass.start: write a method, as in {function: wanda}, not 'dass'"),
    config("a start that is no method", "methods/dass", {"function": "sparseswaps", "start": {"function": "das"}}, "methods.dass.start.function: no built-in method 'das'; did you mean dass? …"),
    config("groups that a refinement cannot move in", "methods/dass", {"function": "dsnot", "start": {"function": "dass"}}, "methods.dass: dass.pruning.methods.dsnot:DSnoT cannot refine 2of4 groups along the output, as dass.pruning.methods.dass:DaSS lays those of gate; …"),
    Case("groups along both dimensions by a method that lays its own", study({"methods/dass": {"function": "sparsegpt"}, "experiments/main/patterns": ["2of4x4"]}), "methods.dass: dass.pruning.methods.sparsegpt:SparseGPT cannot lay groups along both dimensions (2of4x4); choose a method that only scores, or another pattern"),
    config("neurons permuted for a method that updates weights", "methods/dass", {"function": "sparsegpt", "permute": True}, "methods.dass.permute: dass.pruning.methods.sparsegpt:SparseGPT does not only score weights, so that neurons cannot be permuted by its scores; remove `permute`, or choose a method that only scores"),
    config("neurons permuted for a refinement", "methods/dass", {"function": "sparseswaps", "permute": True}, "methods.dass.permute: dass.pruning.methods.sparseswaps:SparseSwaps does not only score weights, …"),
    config("neurons permuted for what is refined", "methods/dass", {"function": "sparseswaps", "start": {"function": "dass", "permute": True}}, "methods.dass.start.permute: remove it: neurons of what is refined cannot be permuted"),
    Case("neurons permuted for unstructured patterns alone", study({"methods/dass/permute": True, "experiments/main/patterns": ["u50", "u60"]}), "methods.dass.permute: regroups N:M groups, but there are none in u50, u60; add 2of4, or remove it"),
    Case("neurons permuted of attention", study({"methods/dass/permute": True, "methods/dass/targets": "attention"}), "methods.dass.permute: dass.pruning.methods.dass:DaSS has no 2of4 groups in gated MLPs, so that permuting them changes nothing; remove `permute`"),
    config("tiles that are not 4 by 4", "experiments/main/patterns", ["4of8x8"], "experiments.main.patterns: pattern '4of8x8': tiles are 4 by 4 only; write 2of4x4"),
    config("arguments in a block of their own", "methods/dass/arguments", {"alpha": 1}, "methods.dass.arguments: write the arguments inline, beside function"),
    config("a tolerance of 0", "published", {"file": "f.csv", "tolerance": 0}, "published.tolerance: must be greater than 0, not 0"),
    config("heads that cannot be shared", "speed", {"shapes": {"s": {"hidden": 8, "intermediate": 8, "heads": 3, "key_value_heads": 2, "blocks": 1}}}, "speed.shapes.s.key_value_heads: 3 heads cannot share them evenly; correct one"),
    config("sizes below 1", "speed", {"shapes": {"s": {"hidden": -8, "intermediate": 8, "heads": 2, "key_value_heads": 2, "blocks": 1}}}, "speed.shapes.s.hidden: must be greater than 0, not -8"),
    config("a pattern of no run to prefill", "speed", {"gpu": {"of": "all", "prefill_patterns": ["2of4", "4of8"]}}, "speed.gpu.prefill_patterns: no pattern '4of8' in any experiment; …"),
    config("benchmarks of a model that is not there", "speed", {"cpu": {"of": ["x"]}}, "speed.cpu.of: no model or shape 'x' in models and speed.shapes; …"),
    config("a custom method that is not there", "methods/dass/function", "nowhere:Mine", "methods.dass.function: method 'nowhere:Mine' cannot be imported (ModuleNotFoundError: No module named 'nowhere'); put its folder on PYTHONPATH (PYTHONPATH=. snakemake …)"),
    custom("a custom method with a syntax error", "class Mine(:\n", "methods.dass.function: method 'mymodule:Mine' cannot be imported (SyntaxError: invalid syntax (mymodule.py, line 1)); correct the module mymodule"),
    custom("a custom method whose import fails", "import nowhere\n", "methods.dass.function: method 'mymodule:Mine' cannot be imported (ModuleNotFoundError: No module named 'nowhere'); correct the module mymodule"),
    custom("a custom method whose module ends the process", "raise SystemExit(0)\n", "methods.dass.function: method 'mymodule:Mine' cannot be imported (SystemExit: 0); correct the module mymodule"),
    custom("a module without the class", "class Other: ...\n", "methods.dass.function: method 'mymodule:Mine' cannot be imported (AttributeError: …); correct the module mymodule"),
    custom("a custom method without score or update", method("return weight", "scores"), "methods.dass.function: 'mymodule:Mine' is no method: it needs `needs`, comparison(), and score() or update(); or, to refine another's mask, `needs`, `axes` and refine()"),
    custom("a custom method that needs what there is not", method("return weight").replace("frozenset()", "frozenset({'hessian'})"), "methods.dass: method 'mymodule:Mine': its `needs` are frozenset({'hessian'}); make them a frozenset of any of input_norm, intermediate_norm, input_gram, intermediate_gram, input_mean, intermediate_mean, input_variance, intermediate_variance, gradient"),
    custom("a custom method whose score() has other arguments", method("return weight").replace("role, weight, statistics)", "weight)"), "methods.dass: method 'mymodule:Mine': score() cannot be called as (role, weight, statistics), as methods are; correct its arguments"),
    custom("a custom method that is no dataclass", method("return weight").replace("@dataclass(frozen=True)\n", ""), "methods.dass.function: mymodule:Mine is no dataclass; make it one: its fields are its arguments"),
    custom("a custom method does not take an argument", method("return weight"), "methods.dass.strength: unknown key; …", strength=3),
]  # fmt: skip
