"""Documents, texts, task rows; tokens, pruned files, results, published numbers; the machine."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.unit.bad_inputs.case import Case, unchanged
from tests.unit.bad_inputs.cases_config import method
from tests.unit.bad_inputs.good import (
    CALIBRATION,
    DENSE,
    DOCUMENTS,
    EVALUATION,
    NEW,
    PERPLEXITY,
    PRUNED,
    PRUNING,
    PUBLISHED,
    REQUESTS,
    SUMMARY,
    TASK,
    TEXT,
    WEIGHTS,
    ZERO_SHOT,
    Change,
    cut,
    edit,
    flip,
    header,
    put,
    remove,
    together,
    write,
)

GOOD = '{"text": "' + "w5 " * 40 + '"}\n'


def documents(what: str, line: str | bytes, why: str) -> Case:
    """Documents of which one is bad."""
    line = line.encode() if isinstance(line, str) else line
    return Case(what, write(DOCUMENTS, GOOD.encode() + line + b"\n"),
                f'{DOCUMENTS}: line 2 is no JSON object with a "text" ({why}); mend or remove the line')  # fmt: skip


def row(what: str, says: str, **changes: Any) -> Case:
    """A task of which the second row is bad; ``...`` leaves a column out."""
    good = {"question": "w5", "answerKey": "A", "choices": {"label": ["A", "B"], "text": ["w6", "w7"]}}  # fmt: skip
    bad = {name: value for name, value in (good | changes).items() if value is not ...}
    return Case(what, write(TASK, f"{json.dumps(good)}\n{json.dumps(bad)}\n"),
                f"arc_easy: {TASK}: line 2: {says}", "zero_shot_requests")  # fmt: skip


def published(what: str, line: str, says: str) -> Case:
    """A file of published numbers with one bad row."""
    return Case(
        what, edit(PUBLISHED, lambda b: b + line.encode() + b"\n"), f"{PUBLISHED}:3: {says}"
    )


def result(what: str, file: str, key: str, value: Any, says: str) -> Case:
    """A result file in which one key has another value."""
    return Case(what, put(file, key, value), f"{file}: {says}; delete it and run again")


def damaged(what: str, spoil: Change, says: str, **changes: Any) -> Case:
    """A pruned file that is to be used."""
    return Case(what, spoil, says, "perplexity", changes)


def custom(what: str, module: str, says: str) -> Case:
    """A custom method that the stage imports, and that fails at work."""
    return Case(
        what, write("mymodule.py", module), says, "prune_run", {"function": "mymodule:Mine"}
    )


DATA = [
    Case("no such file", remove(DOCUMENTS), f"{DOCUMENTS}: no such file; check the data set's `path`"),
    Case("an empty file", write(DOCUMENTS, ""), f"{DOCUMENTS}: holds no document; give a file with text"),
    Case("a folder", together(remove(DOCUMENTS), lambda: Path(DOCUMENTS).mkdir()), f"{DOCUMENTS}: cannot be read (Is a directory); check …"),
    documents("a line that is no JSON", "w5 w6", "Expecting value at column 1"),
    documents("a blank line between documents", "", "it is blank"),
    documents("a line without text", '{"body": "w5"}', "the key is missing"),
    documents("a text that is null", '{"text": null}', '"text" is a NoneType'),
    documents("a text that is a number", '{"text": 5}', '"text" is a int'),
    documents("a key twice", '{"text": "w5", "text": "w6"}', "it has the key 'text' twice"),
    documents("half of a character", '{"text": "\\ud800"}', '"text" holds half of a surrogate pair, which is no character'),
    documents("Latin-1", '{"text": "é"}'.encode("latin-1"), "it is not UTF-8"),
    Case("Parquet", write(DOCUMENTS, b"PAR1\x15\x00PAR1"), f"{DOCUMENTS}: line 1 is no JSON object …"),
    Case("a ZIP file named .gz", write("data/d.json.gz", b"PK\x03\x04" + bytes(40)), "data/d.json.gz: cannot be read (Not a gzipped file …); check the file, or fetch it again", changes={"documents": "data/d.json.gz"}),
    Case("a truncated .gz", write("data/d.json.gz", gzip.compress(GOOD.encode() * 99, mtime=0)[:-20]), "data/d.json.gz: cannot be read (…); check the file, or fetch it again", changes={"documents": "data/d.json.gz"}),
    Case("texts that are all blank", write(DOCUMENTS, '{"text": " "}\n' * 9), f"{DOCUMENTS}: 0 of 9 documents have more than 16 tokens, but the calibration asks for 4 sequences; ask for fewer …"),
    Case("too few long documents", write(DOCUMENTS, GOOD + '{"text": "w5"}\n' * 9), f"{DOCUMENTS}: 1 of 10 documents have more than 16 tokens, but the calibration asks for 4 sequences; …"),
    Case("windows longer than any document", unchanged, f"{DOCUMENTS}: 0 of 12 documents have more than 100 tokens, …", changes={"length": 100}),
    Case("windows longer than the model has positions", unchanged, "models/mine: max_position_embeddings is 128, but windows have 4096 tokens; lower their `length` in the study's config", changes={"length": 4096}),
]  # fmt: skip

TEXTS = [
    Case("no split", remove(TEXT), "data/text: has neither test.jsonl nor test.txt; check the data set's `path`"),
    Case("a split in two forms", write("data/text/test.jsonl", GOOD), "data/text: has both test.jsonl and test.txt; remove one of them"),
    Case("an empty text", write(TEXT, ""), f"{TEXT}: holds no text; give the split's text"),
    Case("a text of blanks", write(TEXT, " \n\t\n \r\n"), f"{TEXT}: holds no text; give the split's text"),
    Case("a text shorter than one window", write(TEXT, "w5 w6\n"), f"{TEXT}: 3 tokens are fewer than one window of 16; give a longer text or a smaller `perplexity.length`"),
    Case("UTF-16", edit(TEXT, lambda b: b.decode().encode("utf-16")), f"{TEXT}: not UTF-8 text but UTF-16, or not text at all; convert it"),
    Case("Latin-1", write(TEXT, "é".encode("latin-1")), f"{TEXT}: not UTF-8 text (…); convert it"),
    Case("rows without text", together(remove(TEXT), write("data/text/test.jsonl", '{"page": "w5"}\n')), 'data/text/test.jsonl: line 1 is no JSON object with a "text" (the key is missing); mend or remove the line'),
    Case("a file in place of the folder", unchanged, f"{DOCUMENTS}: …", changes={"text": DOCUMENTS}),
    Case("fewer documents than are to be read", unchanged, f"{DOCUMENTS}: 99 documents are asked for (config key perplexity.others), but it has 12; ask for fewer, or give more text", changes={"text": DOCUMENTS, "kind": "documents", "documents": 99}),
]  # fmt: skip

TASKS = [
    Case("no file", remove(TASK), f"arc_easy: {TASK}: no such file; check the data set's `path`", "zero_shot_requests"),
    Case("an empty file", write(TASK, "\n"), f"arc_easy: {TASK}: holds no rows; fetch or generate it again", "zero_shot_requests"),
    Case("rows that are no JSON", write(TASK, "question,answer\n"), f"arc_easy: {TASK}: line 1: not valid JSON of a row (…); mend or remove it", "zero_shot_requests"),
    row("a column that is missing", "no column 'choices'; the task needs question, choices, answerKey", choices=...),
    row("an answer that is none of the choices", "the answer 'E' in column 'answerKey' is none of ['A', 'B']; give a split with its answers", answerKey="E"),
    row("a hidden answer", "the answer '' in column 'answerKey' is none of ['A', 'B']; give a split with its answers", answerKey=""),
    row("an answer that is a number", "column 'answerKey' holds int, not text as the official data set does; convert it", answerKey=1),
    row("a question that is null", "column 'question' holds NoneType, not text as the official data set does; convert it", question=None),
    row("choices that are a list", "column 'choices' holds list, not lists of text by name as the official data set does; convert it", choices=["w6", "w7"]),
    row("choices without labels", "does not fit the task (KeyError: 'label'); mend or remove it", choices={"text": ["w6"]}),
    row("no choices", "the answer 'A' in column 'answerKey' is none of []; give a split with its answers", choices={"label": [], "text": []}),
    row("more labels than texts", "does not fit the task (ValueError: 2 choices need as many labels, each its own, not ['A', 'B', 'C']); mend or remove it", choices={"label": ["A", "B", "C"], "text": ["w6", "w7"]}),
    row("a label twice", "does not fit the task (ValueError: 2 choices need as many labels, each its own, not ['A', 'A']); mend or remove it", choices={"label": ["A", "A"], "text": ["w6", "w7"]}),
    Case("a choice that is blank", write(TASK, json.dumps({"question": "w5", "answerKey": "A", "choices": {"label": ["A", "B"], "text": [" ", "w6"]}}) + "\n"), f"arc_easy: {TASK}: row 1: does not fit the task (ValueError: a question or a choice is blank); mend or remove it", "zero_shot_requests"),
]  # fmt: skip

MASKS = [
    damaged("no such file", remove(PRUNED), f"{PRUNED}: no such pruned file; prune again"),
    damaged("an empty file", write(PRUNED, b""), f"{PRUNED}: damaged pruned file (…); prune again"),
    damaged("a truncated file", cut(PRUNED, 50), f"{PRUNED}: damaged pruned file (…); prune again"),
    damaged("a flipped bit in a mask", flip(PRUNED, -1), f"{PRUNED}: damaged pruned file (…mask); prune again"),
    damaged("a flipped bit in its metadata", edit(PRUNED, lambda b: b.replace(b"settings", b"sEttings", 1)), f"{PRUNED}: damaged pruned file (its metadata is not what was saved); prune again"),
    damaged("an older format", header(lambda h: h["__metadata__"].update(format="dass-pruned-2"), PRUNED), f"{PRUNED}: not a pruned file of format dass-pruned-3; prune again"),
    damaged("a checkpoint in its place", unchanged, f"{WEIGHTS}: not a pruned file of format dass-pruned-3; prune again", pruned=WEIGHTS),
    damaged("a mask is missing", header(lambda h: h.pop(sorted(h)[-1]), PRUNED), f"{PRUNED}: damaged pruned file (…); prune again"),
    damaged("of other weights", flip(WEIGHTS, -2), f"{PRUNED}: made from other weights than models/mine holds; prune this model again"),
    Case("of other weights, to export", flip(WEIGHTS, -2), f"{PRUNED}: made from other weights than models/mine holds; prune this model again", "export"),
    damaged("tokens in its place", unchanged, f"{CALIBRATION}: not a pruned file of format dass-pruned-3; prune again", pruned=CALIBRATION),
    Case("no tokens", remove(CALIBRATION), f"{CALIBRATION}: no usable token file (…); delete it, run again", "prune_run"),
    Case("tokens with a flipped bit", flip(CALIBRATION, -4), f"{CALIBRATION}: no usable token file (its tokens are not those that were saved); delete it, run again", "prune_run"),
    Case("tokens of an evaluation to calibrate on", unchanged, f"{EVALUATION}: holds no windows 'windows'; delete it, run again", "prune_run", {"tokens": EVALUATION}),
    Case("tokens without metadata", header(lambda h: h.pop("__metadata__"), CALIBRATION), f"{CALIBRATION}: no usable token file (its metadata is not what was saved); delete it, run again", "prune_run"),
    Case("tokens of an evaluation as zero-shot requests", unchanged, f"{EVALUATION}: holds no requests ('tasks'); delete it, run again", "zero_shot", {"requests": EVALUATION}),
    Case("requests that are cut off", cut(REQUESTS, 50), f"{REQUESTS}: no usable token file (…); delete it, run again", "zero_shot"),
    Case("a split that was not tokenised", unchanged, f"{EVALUATION}: holds no windows 'train'; delete it, run again", "perplexity", {"splits": ["train"]}),
    Case("M does not divide a dimension", unchanged, "mine, block 0, mlp.gate_proj.weight: pattern 3of7 needs the output dimension to be a multiple of 7, but it is 64; choose another pattern for this model", "prune_run", {"run": "m/c/method/3of7"}),
    Case("an alpha so large that scores overflow", unchanged, "model.layers.0.mlp.gate_proj.weight: the scores are not finite; …", "prune_run", {"arguments": {"alpha": 500.0}}),
    custom("a custom method that gives NaN", method("return weight.float() * float('nan')"), "model.layers.0.mlp.gate_proj.weight: the scores are not finite; …"),
    custom("a custom method whose scores have another shape", method("return weight.float()[:, :16]"), "model.layers.0.mlp.gate_proj.weight: score() of method mymodule:Mine gives float32 [64, 16], not numbers with a point of the weight's shape [64, 32]; correct the method"),
    custom("a custom method whose scores are whole numbers", method("return weight.int()"), "model.layers.0.mlp.gate_proj.weight: score() of method mymodule:Mine gives int32 [64, 32], not …; correct the method"),
    custom("a custom method that gives no tensor", method("return 1.0"), "model.layers.0.mlp.gate_proj.weight: score() of method mymodule:Mine gives a float, not …; correct the method"),
    custom("a custom method that fails", method("return statistics.nothing"), "model.layers.0.mlp.gate_proj.weight: score() of method mymodule:Mine failed (AttributeError: 'Statistics' object has no attribute 'nothing'; mymodule.py, line 13); correct the method"),
    custom("a custom method that asks for what it does not need", method("return weight * statistics.get('input_norm')"), "model.layers.0.mlp.gate_proj.weight: score() of method mymodule:Mine failed (LookupError: input_norm was not collected: list it in the method's `needs` (a layer outside a GLU has that of its input only); mymodule.py, line 13); correct the method"),
    custom("a custom method whose comparison() is none", method("return weight.float()", comparison="return None"), "gate: comparison() of method mymodule:Mine gives None, not Comparison(scope, axis) of 'matrix' or 'row' or 'column', and 'input' or 'output'; correct the method"),
    custom("a custom method that prunes too little", method("import torch; return weight, torch.ones_like(weight).bool()", "update", ", pattern, name"), "model.layers.0.mlp.gate_proj.weight: sparsity 0.0000, but 2of4 asks for 0.5; correct the method"),
    custom("a custom method whose update is of another shape", method("return weight[:4], weight[:4] > 0", "update", ", pattern, name"), "model.layers.0.mlp.gate_proj.weight: update() of method mymodule:Mine gives float32 [4, 32] and bool [4, 32], not the new weight and a bool mask of the weight's shape [64, 32]; correct the method"),
]  # fmt: skip

RESULTS = [
    Case("no file", remove(PRUNING), f"{PRUNING}: no such file; run again, or check the path"),
    Case("an empty file", write(PRUNING, ""), f"{PRUNING}: not valid JSON (…); delete it and run again"),
    Case("cut off", write(PRUNING, '{"run": '), f"{PRUNING}: not valid JSON (…); delete it and run again"),
    Case("a list", write(PRUNING, "[]"), f"{PRUNING}: holds no PruningResult but a list; delete it and run again"),
    result("of a later version", PRUNING, "schema_version", 3, "schema_version is 3, but …"),
    result("of no version", PRUNING, "schema_version", ..., "schema_version is None, but …"),
    result("a key is missing", PRUNING, "mask_hash", ..., "mask_hash: Field required"),
    result("a key too many", PRUNING, "speed", 3, "speed: Extra inputs are not permitted"),
    result("a perplexity of NaN", PERPLEXITY, "splits/test/perplexity", float("nan"), "splits.test.perplexity: …"),
    result("an infinite perplexity", PERPLEXITY, "splits/test/perplexity", float("inf"), "splits.test.perplexity: …"),
    result("a perplexity below 1", PERPLEXITY, "splits/test/perplexity", -3.0, "splits.test.perplexity: must be at least 1"),
    result("an accuracy in percent", ZERO_SHOT, "tasks/arc_easy/acc", 76.4, "tasks.arc_easy.acc: Input should be less than or equal to 1"),
    result("a negative standard error", ZERO_SHOT, "tasks/arc_easy/acc_stderr", -1.0, "tasks.arc_easy.acc_stderr: must be at least 0"),
    result("a number that is text", PRUNING, "mean_sparsity", "0.5", "mean_sparsity: Input should be a valid number"),
    result("seconds of NaN", PRUNING, "seconds/total", float("nan"), "seconds.total: …"),
    Case("one kind in place of another", unchanged, f"{PERPLEXITY}: …; delete it and run again", changes={"zero_shot": [PERPLEXITY]}),
    Case("a file twice", unchanged, f"{PRUNING}: a second pruning result of run m/c/method/2of4; give each file once", changes={"pruning": [PRUNING, PRUNING]}),
    Case("of other masks", put(PERPLEXITY, "mask_hash", "other"), f"{PERPLEXITY}: mask_hash differs from {PRUNING}: the two are of different masks; delete the older one and run again"),
    Case("a run in two summaries", unchanged, f"{SUMMARY}: run m/c/method/2of4 is in more than one summary; give each model once", "summary", {"models": [SUMMARY, SUMMARY]}),
    Case("a summary with a row of nothing", put(SUMMARY, "rows", [{}]), f"{SUMMARY}: rows.0.run: Field required; delete it and run again", "summary"),
    Case("a dense perplexity far off the published one", put(DENSE, "splits/test/perplexity", 6.25), "m: its dense perplexity is 6.25 on the test split of text, but 5.47 is published (Paper): …; check models.m (revision, dtype, bos) and …, or go on regardless with published.gate: false", "check_dense", {"targets": [{"dataset": "text", "split": "test", "value": 5.47, "source": "Paper"}]}),
    Case("a dense result of NaN", put(DENSE, "splits/test/perplexity", float("nan")), f"{DENSE}: splits.test.perplexity: …; delete it and run again", "check_dense"),
]  # fmt: skip

PUBLISHED_NUMBERS = [
    Case("no file", remove(PUBLISHED), f"published.file: {PUBLISHED} cannot be read (No such file or directory); correct it"),
    Case("an empty file", write(PUBLISHED, ""), f"{PUBLISHED}:1: no column 'table'; the first line must be table,…"),
    Case("not UTF-8", write(PUBLISHED, b"\xff\xfe"), f"{PUBLISHED}: no CSV in UTF-8 (…); save it as such"),
    Case("an unknown column", edit(PUBLISHED, lambda b: b.replace(b"source", b"source,seed", 1)), f"{PUBLISHED}:1: column 'seed' is unknown or there twice; remove it (…)"),
    published("too few cells", "Table 1,m,dense", "not as many cells as columns; put text with commas in quotes"),
    published("a text with a comma", "Table 1,m,dense,,test,perplexity,5.4,A, B", "not as many cells as columns; put text with commas in quotes"),
    published("a value that is no number", "Table 1,m,dense,,test,perplexity,low,P", "value 'low' is no perplexity; give a number from 1"),
    published("a value of NaN", "Table 1,m,dense,,test,perplexity,nan,P", "value 'nan' is no perplexity; give a number from 1"),
    published("an accuracy as a share", "Table 1,m,dense,,,piqa_acc,0.764,P", "value '0.764' is no accuracy in percent; give one as in 76.4"),
    published("an unknown metric", "Table 1,m,dense,,,piqa,76.4,P", "unknown metric 'piqa': write perplexity, or a task and its metric, …"),
    published("an unknown split", "Table 1,m,dense,,train,perplexity,5.4,P", "split 'train' is neither validation nor test; correct it"),
    published("dense with a pattern", "Table 1,m,dense,u50,test,perplexity,5.4,P", "method dense has no pattern, every other method has one; correct it"),
    published("a pattern that is none", "Table 1,m,dass,2:4,test,perplexity,5.4,P", "unknown pattern '2:4': write u50 …"),
    published("a number twice", "Table 2,m,dense,,test,perplexity,5.5,P", f"says what {PUBLISHED}:2 says already; keep one of the two"),
    published("no source", "Table 1,m,dense,,test,perplexity,5.5,", "source is empty; every number needs one"),
]  # fmt: skip


def file_in_the_way() -> None:
    """The folder that the output would be in is a file."""
    Path(NEW).write_text("")


def output_folder() -> None:
    """The output is a folder already."""
    Path(f"{NEW}/perplexity.json/x").mkdir(parents=True)


MACHINE = [
    Case("a file where the output's folder would be", file_in_the_way, f"{NEW}: File exists; check that it is there, readable and writable", "evaluation_tokens"),
    Case("a folder where the output would be", output_folder, f"{NEW}/perplexity.json: a folder where a file is to be written; remove it", "perplexity"),
    Case("weights that are a folder", together(remove(WEIGHTS), lambda: Path(WEIGHTS).mkdir()), "models/mine: no safetensors …", "perplexity"),
    Case("a link to nowhere", together(remove(DOCUMENTS), lambda: Path(DOCUMENTS).symlink_to("nowhere")), f"{DOCUMENTS}: no such file; check the data set's `path`", "calibration_tokens"),
]  # fmt: skip
