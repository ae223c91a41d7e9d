"""Runs a small study in which something goes wrong, and compares what comes out in the end."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from tests.workflow.conftest import Finished, Workflow, small_study

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what it starts in the background ignore it, and jobs respect that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

INJECT = Path(__file__).parent / "inject"
STUDY = "faults"
R = f"results/{STUDY}"
RUN = f"{R}/runs/standin-llama/toy/sparsegpt/2of4"
CORPUS, MODEL = "resources/standins/toy_corpus", "resources/models/standin-llama"
EXPORT = f"{R}/exports/standin-llama/toy/sparsegpt/2of4"

FOLDERS = (CORPUS, MODEL, EXPORT)

OUTPUTS: dict[str, list[str]] = {
    CORPUS: [CORPUS, f"{CORPUS}/piqa/validation.jsonl"],
    MODEL: [MODEL, f"{MODEL}/config.json"],
    f"{R}/calibration/standin-llama/toy.safetensors": [],
    f"{R}/evaluation/standin-llama/toy-text.safetensors": [],
    f"{R}/requests/standin-llama.safetensors": [],
    f"{RUN}/pruning.json": [
        f"{RUN}/pruning.json", f"{RUN}/pruned.safetensors", f"{RUN}/.blocks/about.json",
        f"{RUN}/.blocks/block-00000.safetensors", f"{RUN}/.blocks/block-00001.json",
    ],
    f"{RUN}/perplexity.json": [],
    f"{RUN}/zero_shot.json": [],
    f"{R}/summary/standin-llama.csv": [f"{R}/summary/standin-llama.{f}" for f in ("json", "csv")],
    f"{R}/summary.csv": [f"{R}/summary.json", f"{R}/summary.csv"],
    f"{R}/tables/main/perplexity.md": [f"{R}/tables/main/perplexity.{f}" for f in ("tex", "md")],
    f"{R}/figures/main/perplexity.pdf": [],
    f"{R}/report.pdf": [f"{R}/report.{form}" for form in ("pdf", "html", "tex")],
    EXPORT: [EXPORT, f"{EXPORT}/dass.json"],
}  # fmt: skip
"""Targets in the order of the pipeline -> what their jobs write, block checkpoints included."""

STAGES = dict(zip(OUTPUTS, (
    "toy_corpus train_standin calibration_tokens evaluation_tokens zero_shot_requests prune_run "
    "perplexity zero_shot summary_of_model summary experiment_tables experiment_figures "
    "report export"
).split(), strict=True))  # fmt: skip

PASSING = re.compile("seconds|memory|date|commit|device|versions")
"""Columns of a summary that may differ between two runs of one study."""


def faults_study() -> dict[str, Any]:
    """One model, one method, one split, one task: half a minute."""
    study = small_study()
    study["study"] = STUDY
    study["models"] = {"standin-llama": study["models"]["standin-llama"]}
    study["methods"] = {"sparsegpt": {"function": "sparsegpt"}}
    study["perplexity"]["splits"] = ["validation"]
    study["zero_shot"]["tasks"] = {"piqa": "piqa"}
    study["datasets"] = {name: study["datasets"][name] for name in ("toy", "toy-text", "piqa")}
    study["experiments"]["main"] |= {"methods": ["sparsegpt"]}
    return study


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and where."""

    kind: str
    target: str
    file: str
    event: str
    """``write`` (before its first byte), ``rename`` or ``read`` of the file."""
    do: str

    def __str__(self) -> str:
        return f"{self.do} at {self.event} of {self.file}"


def points(
    events: Sequence[str] = ("write", "rename"), files_each: int = 9
) -> Iterator[tuple[str, str, str]]:
    """Target, file and event of each stage; so many files per stage."""
    for target, files in OUTPUTS.items():
        for file in (files or [target])[:files_each]:
            inside = any(file.startswith(f"{folder}/") for folder in FOLDERS)
            for event in events:
                if not (inside and event == "rename"):  # files of a folder get their names with it
                    yield target, file, event


@dataclass
class Sick:
    """A workflow in which faults happen, one per call."""

    workflow: Workflow
    study: str = STUDY
    limit: float = 300
    """Seconds that a call may take."""
    survived: list[tuple[str, str]] = field(default_factory=list)
    """Kind and stage of each fault that was as it should be."""

    @property
    def folder(self) -> Path:
        return self.workflow.folder

    def call(self, *arguments: str, fault: Fault | None = None, clock: float = 0) -> Finished:
        """Run snakemake, in a session of its own; what it leaves running is ended with it."""
        process = self.started(*arguments, fault=fault, clock=clock)
        said: list[str] = []
        reader = Thread(target=said.extend, args=[process.stdout], daemon=True)
        reader.start()
        stands = ""
        try:
            process.wait(timeout=self.limit)
        except subprocess.TimeoutExpired:
            stands = where_it_stands(process)
        finally:
            if stands or fault is None or not fault.do.startswith("main"):
                end(process)
        reader.join(timeout=1)
        output = "".join(said)
        assert not stands, f"not over after {self.limit} s:\n{stands}\n{output}"
        return Finished(process.returncode, output)

    def started(
        self, *arguments: str, fault: Fault | None = None, clock: float = 0
    ) -> subprocess.Popen[str]:
        environment = dict(os.environ) | {"DASS_SPEED_GPU": "0", "PYTHONPATH": str(INJECT)}
        if fault is not None:
            told = {"event": fault.event, "file": f"{re.escape(fault.file)}$", "do": fault.do}
            told["fired"] = str(self.folder / "fired")
            environment["DASS_FAULT"] = json.dumps(told)
        if clock:
            environment |= {"DASS_CLOCK": str(clock), "DASS_FIRED": str(self.folder / "fired")}
        known = ["bash", "-c", 'DASS_MAIN=$$ exec "$@"', "bash"]
        options = ["--cores", "2", "--configfile", "study.yaml"]
        return subprocess.Popen(
            [*known, sys.executable, "-m", "snakemake", *arguments, *options],
            cwd=self.folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def suffers(self, fault: Fault, *arguments: str) -> Finished:
        """A call in which the fault happens, and which therefore fails."""
        (self.folder / "fired").unlink(missing_ok=True)
        finished = self.call(*(arguments or (fault.target,)), fault=fault)
        assert (self.folder / "fired").exists(), f"never reached: {fault}\n{finished.output}"
        assert finished.code != 0, f"{fault}\n{finished.output}"
        return finished

    def completes(self, *arguments: str) -> Finished:
        finished = self.call(*arguments)
        assert finished.code == 0, finished.output
        return finished

    def goes_on(self, *arguments: str) -> Finished:
        """A call that completes, given as targets, too, what it says is gone."""
        finished = self.call(*arguments)
        while gone := re.search(r"was made from (\S+), which is gone", finished.output):
            assert gone[1] not in arguments, finished.output
            arguments = (gone[1], *arguments)
            finished = self.call(*arguments)
        assert finished.code == 0, finished.output
        return finished

    def counted(self, kind: str, target: str) -> None:
        self.survived.append((kind, STAGES[target]))

    def leftovers(self) -> list[str]:
        """Half-written files, and blocks of prunings that have ended."""
        found = [p for top in ("results", "resources") for p in (self.folder / top).rglob("*")]
        return [str(p) for p in found if p.name.endswith(".part") or p.name == ".blocks"]

    def values(self) -> dict[str, Any]:
        """Everything that must not depend on how often the study was interrupted."""
        with (self.folder / "results" / self.study / "summary.csv").open() as file:
            rows = list(csv.DictReader(file))
        kept = [{k: v for k, v in row.items() if not PASSING.search(k)} for row in rows]
        files = [p for form in ("md", "tex", "safetensors") for p in self._files(form)]
        return {"summary": kept} | {str(p.relative_to(self.folder)): p.read_bytes() for p in files}

    def _files(self, form: str) -> list[Path]:
        tops = (self.folder / "results" / self.study, self.folder / MODEL)
        found = [path for top in tops for path in top.rglob(f"*.{form}")]
        # The report says how long everything took.
        return [p for p in found if "exports" not in p.parts and p.stem != "report"]


def where_it_stands(process: subprocess.Popen[str]) -> str:
    """The processes of a call; each that is Python's writes its stacks to where the call writes."""
    columns = "pid,ppid,stat,wchan:20,etime,args"
    command = ["ps", "-o", columns, "--forest", "-s", str(process.pid)]
    tree = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    os.killpg(process.pid, signal.SIGUSR1)
    time.sleep(2)
    return tree


def end(process: subprocess.Popen[str]) -> None:
    """End what a call has left running."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
