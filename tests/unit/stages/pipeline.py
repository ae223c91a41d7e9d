"""The stages one after the other on a tiny model, as the workflow calls them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import PerplexityResult, PruningResult, ZeroShotResult, read_result
from dass.stages.calibration_tokens import calibration_tokens
from dass.stages.evaluation_tokens import evaluation_tokens
from dass.stages.export import export
from dass.stages.perplexity import perplexity
from dass.stages.prune_run import prune_run
from dass.stages.zero_shot import zero_shot
from dass.stages.zero_shot_requests import zero_shot_requests

CALIBRATION: dict[str, Any] = {"sequences": 4, "length": 16, "seed": 0}


def words(draw: random.Random, count: int) -> str:
    """Words that are each a token of their own."""
    return " ".join(f"w{draw.randint(2, 127)}" for _ in range(count))


@dataclass
class Pipeline:
    """What the config says of one model, and where its files lie."""

    folder: Path
    work: Path
    dtype: Any = "float32"
    bos: Any = "text"

    def write_data(self, tokens: int = 40, rows: int = 40) -> None:
        """Documents of so many tokens, a text and a task of so many rows; the same each time."""
        draw = random.Random(3)
        documents = [json.dumps({"text": words(draw, tokens)}) + "\n" for _ in range(12)]
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / "documents.jsonl").write_text("".join(documents))
        for split in ("validation", "test"):
            self._write(f"text/{split}.txt", words(draw, 90) + "\n \n" + words(draw, 30) + "\n")
        choices = [{"label": ["A", "B", "C"], "text": [words(draw, 2) for _ in "ABC"]}
                   for _ in range(rows)]  # fmt: skip
        task = [
            {"question": words(draw, 12), "choices": one, "answerKey": draw.choice("ABC")}
            for one in choices
        ]
        self._write("task/test.jsonl", "".join(json.dumps(row) + "\n" for row in task))

    def _write(self, name: str, text: str) -> None:
        (self.work / name).parent.mkdir(exist_ok=True)
        (self.work / name).write_text(text)

    def calibrate(self, **changed: Any) -> Path:
        """The calibration's tokens."""
        settings = CALIBRATION | {"bos": self.bos} | changed
        out = self.work / f"calibration-{settings['seed']}.safetensors"
        calibration_tokens(
            folder=self.folder, dataset="words", documents=self.work / "documents.jsonl",
            out=out, **settings,
        )  # fmt: skip
        return out

    def tokenise(self) -> Path:
        """The evaluation's tokens."""
        out = self.work / "evaluation.safetensors"
        evaluation_tokens(
            folder=self.folder, dataset="text", text=self.work / "text", rows="line",
            splits=["validation", "test"], length=16, bos=self.bos, out=out,
        )  # fmt: skip
        return out

    def prune(
        self, out: Path, function: str = "dass", tokens: Path | None = None, **changed: Any
    ) -> PruningResult:
        """Prune one run into a folder of its own."""
        settings = {
            "arguments": {},
            "propagation": "pruned",
            "run": "m/c/method/2of4",
            "dtype": self.dtype,
        } | changed
        prune_run(
            folder=self.folder, tokens=tokens or self.calibrate(), bos=self.bos, function=function,
            pruned_file=out / "pruned.safetensors", result_file=out / "pruning.json", **settings,
        )  # fmt: skip
        return read_result(out / "pruning.json", PruningResult)

    def perplexity(self, out: Path | None = None) -> PerplexityResult:
        """The perplexity of a run, or of the dense model."""
        result = (out or self.work) / "perplexity.json"
        perplexity(
            **self._of(out), bos=self.bos, tokens=self.tokenise(), dataset="text",
            splits=["validation", "test"], result_file=result,
        )  # fmt: skip
        return read_result(result, PerplexityResult)

    def zero_shot(self, out: Path | None = None, limit: int | None = None) -> ZeroShotResult:
        """The accuracy of a run, or of the dense model."""
        result, requests = (out or self.work) / "zero_shot.json", self.work / "requests.safetensors"
        zero_shot_requests(
            folder=self.folder, tasks={"arc_easy": self.work / "task"}, bos=self.bos, limit=limit,
            out=requests,
        )  # fmt: skip
        zero_shot(**self._of(out), requests=requests, result_file=result)
        return read_result(result, ZeroShotResult)

    def _of(self, out: Path | None) -> dict[str, Any]:
        return {
            "run": "m/c/method/2of4" if out else "m/dense", "folder": self.folder,
            "pruned": out and out / "pruned.safetensors", "dtype": self.dtype,
        }  # fmt: skip

    def export(self, out: Path) -> Path:
        """A run as a plain checkpoint."""
        export(
            folder=self.folder, pruned=out / "pruned.safetensors", dtype=self.dtype,
            out=out / "export",
        )  # fmt: skip
        return out / "export"


def masks(out: Path) -> dict[str, list[int]]:
    """The packed masks of a run."""
    file = PrunedFile(out / "pruned.safetensors")
    return {name: file.packed_mask(name).tolist() for name in file.shapes}
