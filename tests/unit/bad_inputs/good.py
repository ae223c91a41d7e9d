"""Good inputs of every stage, in a folder that cases change; and the stages, as rules run them."""

from __future__ import annotations

import json
import logging
import os
import runpy
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from tests.unit.config.small import SMALL, changed
from tests.unit.stages.pipeline import Pipeline

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "workflow" / "scripts" / "stage.py"
LOG = "logs/job.log"

MODEL = "models/mine"
WEIGHTS = f"{MODEL}/model.safetensors"
INDEX = f"{MODEL}/model.safetensors.index.json"
CONFIG = f"{MODEL}/config.json"
TOKENIZER = f"{MODEL}/tokenizer.json"
DOCUMENTS = "data/documents.jsonl"
TEXT = "data/text/test.txt"
TASK = "data/task/test.jsonl"
CALIBRATION = "results/calibration.safetensors"
EVALUATION = "results/evaluation.safetensors"
REQUESTS = "results/requests.safetensors"
RUN = "results/run"
PRUNED = f"{RUN}/pruned.safetensors"
PRUNING = f"{RUN}/pruning.json"
PERPLEXITY = f"{RUN}/perplexity.json"
ZERO_SHOT = f"{RUN}/zero_shot.json"
DENSE = "results/perplexity.json"
SUMMARY = "results/summary.json"
PUBLISHED = "data/published.csv"
STUDY = "study.yaml"
NEW = "new"
"""The folder that the outputs of a case would be in."""

_MODEL = {"folder": MODEL, "dtype": "float32", "bos": "text"}
_RUN = _MODEL | {"run": "m/c/method/2of4", "pruned": PRUNED}
_SETTINGS = {
    "experiment": "e", "title": "T", "models": {"m": "M"}, "calibrations": {"c": "C"},
    "methods": {"method": "Method"}, "patterns": ["2of4"], "split": "test", "metric": "acc",
    "tasks": ["arc_easy"],
}  # fmt: skip

STAGES: dict[str, dict[str, Any]] = {
    "calibration_tokens": {
        "folder": MODEL, "dataset": "d", "documents": DOCUMENTS, "sequences": 4, "length": 16,
        "seed": 0, "bos": "text", "out": f"{NEW}/calibration.safetensors",
    },
    "evaluation_tokens": {
        "folder": MODEL, "dataset": "t", "text": "data/text", "rows": "line",
        "splits": ["validation", "test"], "length": 16, "bos": "text",
        "out": f"{NEW}/evaluation.safetensors",
    },
    "prune_run": _MODEL | {
        "run": "m/c/method/2of4", "tokens": CALIBRATION, "function": "dass", "arguments": {},
        "propagation": "pruned",
        "pruned_file": f"{NEW}/pruned.safetensors", "result_file": f"{NEW}/pruning.json",
    },
    "export": {"folder": MODEL, "dtype": "float32", "pruned": PRUNED, "out": f"{NEW}/export"},
    "perplexity": _RUN | {
        "tokens": EVALUATION, "dataset": "t", "splits": ["validation", "test"],
        "result_file": f"{NEW}/perplexity.json",
    },
    "zero_shot_requests": {
        "folder": MODEL, "tasks": {"arc_easy": "data/task"}, "bos": "text", "limit": None,
        "out": f"{NEW}/requests.safetensors",
    },
    "zero_shot": {
        "folder": MODEL, "dtype": "float32", "run": "m/c/method/2of4", "pruned": PRUNED,
        "requests": REQUESTS, "result_file": f"{NEW}/zero_shot.json",
    },
    "check_dense": {
        "dense": DENSE, "targets": [], "tolerance": 0.02, "out": f"{NEW}/checked.json",
    },
    "summary_of_model": {
        "pruning": [PRUNING], "perplexity": [PERPLEXITY], "zero_shot": [ZERO_SHOT],
        "rows": f"{NEW}/m.json", "csv": f"{NEW}/m.csv",
    },
    "summary": {"models": [SUMMARY], "rows": f"{NEW}/s.json", "csv": f"{NEW}/s.csv"},
    "experiment_tables": {
        "summary": SUMMARY, "published": [PUBLISHED], "experiments": {"main": _SETTINGS},
        "out": [f"{NEW}/main/{kind}.md" for kind in ("perplexity", "zero_shot", "published")],
    },
}  # fmt: skip
"""Stage -> arguments that work."""

DENSE_RUN: dict[str, Any] = {"run": "m/dense", "pruned": None}
"""What ``perplexity`` and ``zero_shot`` are given for the dense model."""


def write_good(folder: Path, work: Path) -> None:
    """Fill a folder with what :data:`STAGES` reads.

    Args:
        folder: of a tiny model with a tokenizer of words.
        work: empty; the current folder.
    """
    assert work.samefile(Path())
    shutil.copytree(folder, work / MODEL)
    pipeline = Pipeline(Path(MODEL), Path("data"))
    pipeline.write_data(rows=3)
    Path("results").mkdir()
    pipeline.calibrate().rename(CALIBRATION)
    pipeline.tokenise().rename(EVALUATION)
    pipeline.prune(Path(RUN), tokens=Path(CALIBRATION))
    pipeline.perplexity(Path(RUN))
    pipeline.zero_shot(Path(RUN))
    Path("data/requests.safetensors").rename(REQUESTS)
    pipeline.perplexity()
    Path("data/perplexity.json").rename(DENSE)
    Path("data/evaluation.safetensors").unlink()
    run_stage("summary_of_model", rows=SUMMARY, csv="results/summary.csv")
    Path(PUBLISHED).write_text(
        "table,model,method,pattern,split,metric,value,source\n"
        "Table 1,m,dense,,test,perplexity,5.47,Paper\n"
    )
    write_study({})


def write_study(changes: dict[str, Any]) -> None:
    """The config file, with the values at slash-separated keys changed."""
    content = changed(changes) if changes else SMALL
    Path(STUDY).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def run_stage(stage: str, **changes: Any) -> None:
    """Run a stage by the script that rules run it by, with good arguments but for ``changes``.

    Raises:
        SystemExit: the job failed with a line for the user; :func:`said` gives it.
    """
    params = {"stage": stage} | STAGES[stage] | changes
    rule = SimpleNamespace(params=params, input={}, output={}, log=[LOG], threads=1, resources={})
    with unchanged_process():
        runpy.run_path(str(SCRIPT), init_globals={"snakemake": rule})


@contextmanager
def unchanged_process() -> Iterator[None]:
    """A job has a process of its own: what it changes there is undone."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    environment, stdin = dict(os.environ), os.dup(0)
    log = logging.getLogger("dass")
    before = (log.handlers, log.level, log.propagate)
    try:
        yield
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers, log.propagate = before[0], before[2]
        log.setLevel(before[1])
        os.dup2(stdin, 0)
        os.close(stdin)
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def said() -> str:
    """What the log of the last job says was wrong: all that is left of it after the marker."""
    return Path(LOG).read_text(encoding="utf-8").partition(" error: ")[2]


# --- Changes ----------------------------------------------------------------------------------

Change = Callable[[], object]


def write(file: str, content: str | bytes) -> Change:
    """Give a file other content."""

    def change() -> None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def edit(file: str, change: Callable[[bytes], bytes]) -> Change:
    """Change a file's bytes."""
    return lambda: Path(file).write_bytes(change(Path(file).read_bytes()))


def cut(file: str, count: int) -> Change:
    """Take bytes off a file's end."""
    return edit(file, lambda content: content[:-count])


def flip(file: str, place: int) -> Change:
    """Flip one bit of the byte at a place."""
    return edit(
        file, lambda b: b[:place] + bytes([b[place] ^ 1]) + (b[place + 1 :] if place != -1 else b"")
    )


def remove(*files: str) -> Change:
    """Remove files."""
    return lambda: [Path(file).unlink() for file in files]


def put(file: str, key: str, value: Any) -> Change:
    """Set the value at a slash-separated key of a JSON file; ``...`` removes it."""

    def change() -> None:
        content = json.loads(Path(file).read_text())
        *outer, last = key.split("/")
        inner = content
        for part in outer:
            inner = inner[int(part) if isinstance(inner, list) else part]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
        Path(file).write_text(json.dumps(content))

    return change


def study(changes: dict[str, Any]) -> Change:
    """Change the values at slash-separated keys of the config; ``GONE`` removes one."""
    return lambda: write_study(changes)


def together(*changes: Change) -> Change:
    """One after the other."""
    return lambda: [change() for change in changes]


def header(change: Callable[[dict[str, Any]], object], file: str = WEIGHTS) -> Change:
    """Change the header of a safetensors file; what follows it stays."""

    def of(content: bytes) -> bytes:
        size = int.from_bytes(content[:8], "little")
        found = json.loads(content[8 : 8 + size])
        change(found)
        text = json.dumps(found).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text + content[8 + size :]

    return edit(file, of)


def tensors(change: Callable[[dict[str, Any]], object], file: str = WEIGHTS) -> Change:
    """Change the tensors of a safetensors file."""

    def save() -> None:
        from safetensors.torch import load_file, save_file

        held = load_file(file)
        change(held)
        save_file(held, file, {"format": "pt"})

    return save
