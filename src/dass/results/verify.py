"""Whether results are still what was computed, from the models' weights to the tables.

Each file is compared with the hash that was recorded when it was written, and with what it was made
from; each run also with what its own result files say of model, tokens and masks.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dass.data.download import RemoteFile
from dass.data.model_folder import weight_files
from dass.data.token_file import load_tokens, token_hash, tokens_about
from dass.errors import DataError
from dass.evaluation.requests import load_requests, requests_hash
from dass.pruning.norms_file import load_norms, norms_hash
from dass.pruning.pruned_file import PrunedFile
from dass.results.schema import (
    ActivationsResult,
    BlocksResult,
    PerplexityResult,
    PruningResult,
    ZeroShotResult,
    read_result,
)
from dass.runtime.files import read_json, sha256
from dass.runtime.provenance import FETCHED, model_source
from dass.runtime.records import Record, files_of, names_recorded, read_record, record_path

Folders = Mapping[str, str | Path]
Source = dict[str, str]
RunsResult = PruningResult | PerplexityResult | ZeroShotResult | BlocksResult
ORDER = ("calibration", "evaluation", "requests", "activations", "ratios", "runs", "summary", "tables",
         "figures", "speed")  # fmt: skip
"""Folders of a study in the order in which they are made; single files come after all."""
AGAIN = "delete it and run again"


def verify(study: str | Path, models: Folders, texts: Folders, tasks: Folders) -> int:
    """Compare all files of a study, and miss those that are gone; returns how many there are.

    Args:
        study: ``results/<study>``.
        models: model -> its folder; one that is not there (any more) is not compared.
        texts, tasks: data set, and task -> file or folder with its data; the same holds.

    Raises:
        DataError: the first mismatch, in the order in which files were made.
    """
    study = Path(study)
    for folder in models.values():
        _check_fetched(Path(folder))
    made_of = {model: _source_of(folder) for model, folder in models.items()}
    files = _files(study)
    for name in files:
        _check_recorded(study, name)
    for name in files:
        if name.startswith("runs/"):
            _check_run(study, study / name, models, made_of, tasks)
        elif name.startswith("activations/") and name.endswith(".json"):
            _check_activations(study, study / name, models, made_of)
        elif name.startswith(("calibration/", "evaluation/")):
            about = tokens_about(study / name)
            _check_text(study / name, about, texts.get(about.get("dataset", "")))
        elif name.startswith("requests/"):
            for task, said in load_requests(study / name)[1]["sources"].items():
                _check_text(study / name, {"source": said}, tasks.get(task))
    return len(files)


def _files(study: Path) -> list[str]:
    """Relative to the study, calibration first; also those that were recorded and are gone."""
    if not study.is_dir():
        raise DataError(f"{study}: no such folder; run the study first")
    names = {
        str(path.relative_to(study))
        for path in study.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(study).parts)
    }
    for output in names_recorded(study):
        if record := read_record(study, output):
            names |= {str(Path(output, name)) for name in record.files}
    first = dict(zip(ORDER, range(len(ORDER)), strict=True))
    return sorted(names, key=lambda name: (first.get(name.split("/")[0], len(ORDER)), name))


def _check_recorded(study: Path, name: str) -> None:
    """The file is what was written, and was made from what is there now."""
    output, record = _record_of(study, name)
    path, where = study / name, record_path(study, output)
    if not path.exists():
        raise DataError(
            f"{path}: is gone, but {where} says that it was written; run again, or delete that "
            "record if you want the file no more"
        )
    found = sha256(path)
    if record.files.get(str(Path(name).relative_to(output))) != found:
        raise DataError(f"{path}: is not what was written (its SHA-256 is not in {where}); {AGAIN}")
    for source, digest in record.made_from.items():
        now = read_record(study, source)
        if now is None and not (study / source).exists():
            raise DataError(f"{study / source}: is gone, but {path} was made from it; run again")
        if now is None or now.digest() != digest:
            raise DataError(
                f"{path}: was made from another {study / source} than is there now (says {where}); "
                f"{AGAIN}"
            )


def _record_of(study: Path, name: str) -> tuple[str, Record]:
    """The output that a file belongs to, itself or a folder, and its record."""
    for output in (Path(name), *Path(name).parents[:-1]):
        if record := read_record(study, str(output)):
            return str(output), record
    raise DataError(f"{study / name}: no job of this study has recorded it; {AGAIN}")


def _check_run(
    study: Path, path: Path, models: Folders, made_of: Mapping[str, Source], tasks: Folders
) -> None:
    """A run's result file says of its model, tokens and masks what they are."""
    result: RunsResult
    if path.name == "pruning.json":
        result = pruning = read_result(path, PruningResult)
        tokens = study / f"calibration/{pruning.run.model}/{pruning.run.calibration}.safetensors"
        about = tokens_about(tokens)
        _same(path, "calibration_hash", pruning.calibration_hash, about["hashes"]["windows"])
        _same(path, "pruned_file", pruning.provenance["pruned_file"], _hash_beside(path))
    elif path.name == "perplexity.json":
        result = perplexity = read_result(path, PerplexityResult)
        for dataset in (perplexity.dataset, *perplexity.others):
            text = study / f"evaluation/{perplexity.run.model}/{dataset}.safetensors"
            for split, hashed in tokens_about(text)["hashes"].items():
                if measured := perplexity.of(split, dataset):
                    _same(path, f"{dataset}'s {split} tokens", measured.tokens_hash, hashed)
    elif path.name == "zero_shot.json":
        result = zero_shot = read_result(path, ZeroShotResult)
        requests = load_requests(study / f"requests/{zero_shot.run.model}.safetensors")[0]
        for task, said in result.provenance["tasks"].items():
            _check_text(path, {"source": said}, tasks.get(task))
            asked = requests_hash(requests[task].requests) if task in requests else "missing"
            _same(path, f"{task} requests", zero_shot.tasks[task].requests_hash, asked)
    elif path.name == "blocks.json":
        result = blocks = read_result(path, BlocksResult)
        text = study / f"evaluation/{blocks.run.model}/{blocks.dataset}.safetensors"
        windows = load_tokens(text)[blocks.split][: blocks.windows]
        _same(path, f"{blocks.split} tokens", blocks.tokens_hash, token_hash(windows))
        norms = study / f"activations/{blocks.run.model}/{blocks.run.calibration}.safetensors"
        _same(path, "norms_hash", blocks.norms_hash, norms_hash(load_norms(norms)))
    else:
        return
    _same(path, "run", f"runs/{result.run}", str(path.parent.relative_to(study)))
    if result.mask_hash is not None:
        _same(path, "mask_hash", result.mask_hash, PrunedFile(_pruned(path)).hash())
    _check_model(path, result.run.model, result.provenance["model"], models, made_of)


def _check_activations(
    study: Path, path: Path, models: Folders, made_of: Mapping[str, Source]
) -> None:
    """A result on activations says of its model, tokens and norms what they are."""
    result = read_result(path, ActivationsResult)
    _same(path, "run", f"activations/{result.run}.json", str(path.relative_to(study)))
    about = tokens_about(study / f"calibration/{result.run}.safetensors")
    _same(path, "calibration_hash", result.calibration_hash, about["hashes"]["windows"])
    norms = norms_hash(load_norms(path.with_suffix(".safetensors")))
    _same(path, "norms_hash", result.norms_hash, norms)
    _check_model(path, result.model, result.provenance["model"], models, made_of)


def _check_model(
    path: Path, model: str, said: Source, models: Folders, made_of: Mapping[str, Source]
) -> None:
    """A result's model is the one that is there."""
    for part, hashed in made_of.get(model, {}).items():
        if said[part] != hashed:
            raise DataError(
                f"{models[model]}: its {part} changed since {path} was made; restore it, or {AGAIN}"
            )


def _pruned(path: Path) -> Path:
    return path.with_name("pruned.safetensors")


def _hash_beside(path: Path) -> str:
    if not _pruned(path).exists():
        raise DataError(f"{_pruned(path)}: is gone, but {path} was made with it; run again")
    return sha256(_pruned(path))


def _same(path: Path, what: str, said: str, found: str) -> None:
    if said != found:
        raise DataError(f"{path}: {what} is {found}, but it says {said}; {AGAIN}")


def _source_of(folder: str | Path) -> Source:
    """The hashes of a model's config and weights; nothing of one that is not there."""
    try:
        return model_source(folder, weight_files(folder)) if Path(folder).exists() else {}
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: is gone, but not {folder}; restore it") from None


def _check_fetched(folder: Path) -> None:
    """Every file of a fetched model, whole."""
    if (folder / FETCHED).exists():
        for name, said in read_json(folder / FETCHED)["files"].items():
            if not RemoteFile(name, "", said["size"], said["hash"]).fits(folder / name):
                raise DataError(f"{folder / name}: is not what was fetched; {AGAIN}")


def _check_text(path: Path, about: Mapping[str, Any], data: str | Path | None) -> None:
    """The files of text or of a task are those that ``about`` names."""
    if not data or not Path(data).exists():
        return
    for said in _sources(about["source"]):
        found = [file for file in files_of(Path(data)) if file.name == said["file"]]
        if not found and Path(data).is_dir():
            file = Path(data) / said["file"]
            raise DataError(f"{file}: is gone, but {path} was made from it; restore it")
        for file in found:
            if sha256(file) != said["sha256"]:
                raise DataError(f"{file}: is not what {path} was made from; restore it, or {AGAIN}")


def _sources(said: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """One source, or one per split."""
    if "sha256" in said:
        yield said
    else:
        yield from said.values()
