"""Fetch models and data sets from a hub that speaks Hugging Face's protocol.

Only safetensors, configs and tokenizers are taken: never pickled weights, never code. What is
fetched is pinned to a commit, checked, and says in ``fetched.json`` what it is.
"""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dass.data.documents import index_documents
from dass.data.download import RemoteFile, fetch_files, is_transport_error
from dass.data.model_config import CONFIG, check_config, read_object
from dass.data.model_folder import (
    INDEX,
    SINGLE,
    Stored,
    check_dtypes,
    read_header,
    shards_of,
)
from dass.errors import DataError, ModelError
from dass.runtime.files import write_json, writing_directory
from dass.runtime.progress import log
from dass.runtime.provenance import FETCHED

SMALL_FILES = [
    *(CONFIG, "generation_config.json", INDEX),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
]
"""What is taken of a model beside its weights."""


def fetch_model(repository: str, revision: str, out: str | Path) -> None:
    """Fetch a model's folder; an interrupted download goes on where it stopped.

    Of the weights, only the safetensors that transformers would read are taken:
    ``model.safetensors`` or, where there is none, those that the index names. A checkpoint that is
    quantised or malformed is refused once config.json is there, before any weights.

    Args:
        repository: as in ``meta-llama/Llama-2-7b-hf``.
        revision: branch, tag or commit; the commit it means is written to ``fetched.json``.
        out: the folder to make.

    Raises:
        DataError: the hub refuses, lacks the repository or revision, or cannot be reached; the
            repository holds no safetensors or not all; what arrived is damaged; the disk is full.
    """
    out = Path(out)
    with _explained(repository, revision, f"https://huggingface.co/{repository}"):
        hub = _Hub("model", repository, revision)
        listed = hub.list_top()
        work = _workplace(out)
        small = [f for f in listed.values() if any(fnmatch(f.name, p) for p in SMALL_FILES)]
        if SINGLE in listed:
            small = [file for file in small if file.name != INDEX]
        paths = dict(zip(small, hub.fetch(small, work, f"{out.name}, small files"), strict=True))
        shards = _shards(repository, listed, paths)
        paths |= dict(zip(shards, hub.fetch(shards, work, f"{out.name}, weights"), strict=True))
        _check_model(repository, {file.name: path for file, path in paths.items()})
        with writing_directory(out) as folder:
            write_json(folder / FETCHED, hub.described(list(paths)))
            for file, path in paths.items():
                path.replace(folder / file.name)
        shutil.rmtree(work)


def fetch_dataset(settings: Mapping[str, Any], out: str | Path) -> None:
    """Fetch a data set and keep it as plain JSON lines.

    Args:
        settings: a ``datasets`` block of the config: hub, revision, name, files, kind.
        out: the folder to make; of kind ``documents``, it holds what
            :func:`dass.data.documents.index_documents` writes; else ``<split>.jsonl``.

    Raises:
        DataError: as :func:`fetch_model`.
    """
    out = Path(out)
    repository, revision = settings["hub"], settings["revision"]
    with _explained(repository, revision, f"https://huggingface.co/datasets/{repository}"):
        hub = _Hub("dataset", repository, revision)
        work = _workplace(out)
        if settings["kind"] == "documents":
            files = hub.list_files(_document_files(repository, settings["files"]))
            paths = hub.fetch(files, work, out.name)
            with writing_directory(out) as folder:
                index_documents(paths, folder)
                write_json(folder / FETCHED, hub.described(files))
        else:
            _fetch_splits(hub, settings, work, out)
        shutil.rmtree(work)


def has_token() -> bool:
    """Whether a hub can be told who asks: by HF_TOKEN, or by what ``hf auth login`` has stored."""
    from huggingface_hub import get_token

    return get_token() is not None


def _workplace(out: Path) -> Path:
    """Where files lie until all are there: kept when a fetch fails, for the next one."""
    work = out.with_name(f".{out.name}.download")
    work.mkdir(parents=True, exist_ok=True)
    return work


class _Hub:
    """One repository at one commit."""

    def __init__(self, kind: str, repository: str, revision: str) -> None:
        from huggingface_hub import HfApi

        self.kind, self.repository, self.revision = kind, repository, revision
        self._api = HfApi()
        info = self._api.repo_info(repository, repo_type=kind, revision=revision)
        self.commit = str(info.sha)
        log.info("%s: %s is commit %s", repository, revision, self.commit)

    def list_top(self) -> dict[str, RemoteFile]:
        """The files that lie in no folder of the repository, by name."""
        tree = self._api.list_repo_tree(self.repository, revision=self.commit, repo_type=self.kind)
        return {entry.path: self._remote(entry) for entry in tree if hasattr(entry, "blob_id")}

    def list_files(self, names: Sequence[str]) -> list[RemoteFile]:
        """These files of the repository."""
        found = {
            entry.path: self._remote(entry)
            for entry in self._api.get_paths_info(
                self.repository, list(names), revision=self.commit, repo_type=self.kind
            )
            if hasattr(entry, "blob_id")
        }
        for name in names:
            if name not in found:
                raise DataError(
                    f"{self.repository}: has no file {name!r} at {self.commit}; correct `files` "
                    "of the data set in the config"
                )
        return [found[name] for name in names]

    def fetch(self, files: Sequence[RemoteFile], work: Path, what: str) -> list[Path]:
        """Bring files into a folder; see :func:`dass.data.download.fetch_files`."""
        from huggingface_hub.utils import build_hf_headers

        return fetch_files(files, work, build_hf_headers(library_name="dass"), f"fetching {what}")

    def described(self, files: Sequence[RemoteFile]) -> dict[str, Any]:
        """The content of ``fetched.json``."""
        sizes = {file.name: {"size": file.size, "hash": file.digest} for file in files}
        return {
            "repository": self.repository,
            "revision": self.revision,
            "commit": self.commit,
            "files": dict(sorted(sizes.items())),
        }

    def _remote(self, entry: Any) -> RemoteFile:
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self.repository, entry.path, repo_type=self.kind, revision=self.commit)
        digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
        return RemoteFile(entry.path, url, entry.lfs.size if entry.lfs else entry.size, digest)


# --- Models -----------------------------------------------------------------------------------


def _shards(
    repository: str, listed: Mapping[str, RemoteFile], paths: Mapping[RemoteFile, Path]
) -> list[RemoteFile]:
    """The files that hold the weights: those that the index names, or the only one."""
    names = {file.name for file in paths}
    for needed in (["config.json"], ["tokenizer.json", "tokenizer.model", "vocab.json"]):
        if not names & set(needed):
            what = " or ".join(needed)
            raise DataError(f"{repository}: has no {what}; choose another repository or revision")
    config = paths[listed[CONFIG]]
    check_config(read_object(config), f"{repository}: {CONFIG}")
    if SINGLE in listed:
        return [listed[SINGLE]]
    if INDEX not in names:
        raise DataError(f"{repository}: holds no safetensors; pickled weights are never loaded")
    shards = shards_of(read_object(paths[listed[INDEX]]), f"{repository}: {INDEX}")
    if missing := [name for name in shards if name not in listed]:
        raise DataError(
            f"{repository}: its index names {missing[0]}, which it does not hold; choose another "
            "revision"
        )
    return [listed[name] for name in shards]


def _check_model(repository: str, paths: Mapping[str, Path]) -> None:
    """Each header fits its file to the byte, and holds the tensors that the index puts there."""
    held: dict[str, dict[str, Stored]] = {}
    for name, path in paths.items():
        if name.endswith(".safetensors"):
            try:
                held[name] = read_header(path)
            except ModelError:
                raise DataError(
                    f"{repository}: {name} is no valid safetensors file; choose another revision"
                ) from None
            check_dtypes(
                {n: replace(t, file=Path(repository, name)) for n, t in held[name].items()}
            )
    if INDEX in paths:
        for tensor, name in read_object(paths[INDEX])["weight_map"].items():
            if tensor not in held[name]:
                raise DataError(
                    f"{repository}: {name} lacks {tensor}, which its index puts there; choose "
                    "another revision"
                )


# --- Data sets --------------------------------------------------------------------------------


def _document_files(repository: str, files: Any) -> list[str]:
    if isinstance(files, str):
        return [files]
    raise DataError(f"{repository}: name the file of documents under `files` in the config")


def _fetch_splits(hub: _Hub, settings: Mapping[str, Any], work: Path, out: Path) -> None:
    """Fetch the files of each split, convert them to JSON lines."""
    import datasets

    datasets.disable_progress_bars()  # they fill a log with one line
    cache = str(work / "cache")
    splits, reader, features = _splits(hub, settings, cache)
    files = hub.list_files([name for names in splits.values() for name in names])
    fetched = iter(hub.fetch(files, work, out.name))
    local = {split: [str(next(fetched)) for _ in names] for split, names in splits.items()}
    try:
        loaded = datasets.load_dataset(reader, data_files=local, features=features, cache_dir=cache)
    except (datasets.exceptions.DatasetGenerationError, ValueError) as error:  # Arrow's too
        raise _not_read(error, hub.repository) from None
    with writing_directory(out) as folder:
        for split, rows in loaded.items():
            with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            log.info("%s: %s: %d rows", hub.repository, split, len(rows))
        write_json(folder / FETCHED, hub.described(files))


def _not_read(error: Exception, repository: str) -> Exception:
    """What kept `datasets` from converting files: the disk, or the files themselves."""
    cause = error.__cause__ or error
    if isinstance(cause, OSError) and cause.errno:
        return cause
    what = _first_line(cause)
    return DataError(f"{repository}: its files cannot be read ({what}); choose another revision")


def _splits(
    hub: _Hub, settings: Mapping[str, Any], cache: str
) -> tuple[dict[str, list[str]], str, Any]:
    """Split -> files in the repository; what reads them; their columns.

    What the repository declares, in its card or by the names of its files, is for `datasets` to
    find out. An empty cache: given an older one, it would take that where the hub fails it.
    """
    import datasets
    from huggingface_hub.errors import LocalEntryNotFoundError

    shutil.rmtree(cache, ignore_errors=True)
    try:
        builder = datasets.load_dataset_builder(
            hub.repository,
            settings["name"],
            data_files=settings["files"],
            revision=hub.commit,
            cache_dir=cache,
        )
    except (ValueError, FileNotFoundError) as error:
        if isinstance(away := error.__context__ or error, LocalEntryNotFoundError):
            raise away from None  # nothing was found, since the hub does not answer
        what = _first_line(error)
        raise DataError(
            f"{hub.repository}: {what}; correct `name` or `files` of the data set in the config"
        ) from None
    root = f"hf://datasets/{hub.repository}@{hub.commit}/"
    files = {
        str(split): [str(url).removeprefix(root) for url in urls]
        for split, urls in builder.config.data_files.items()
    }
    return files, type(builder).__module__.split(".")[-1], builder.info.features


# --- Refusals ---------------------------------------------------------------------------------


@contextmanager
def _explained(repository: str, revision: str, page: str) -> Iterator[None]:
    """Turn the hub's refusals into one line each; no token is ever part of it."""
    try:
        yield
    except (DataError, ModelError):
        raise
    except Exception as error:
        if (line := _explanation(error, revision, page)) is None:
            raise
        raise DataError(f"{repository}: {line}") from None


def _explanation(error: Exception, revision: str, page: str) -> str | None:
    """What is wrong and what to do; None where it is not the hub and not the disk."""
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"has no revision {revision!r}; correct it in the config, or take the newest with "
            "`revision: main`: results name the commit that was taken"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error, page)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "cannot be fetched while HF_HUB_OFFLINE is set; unset it, or fetch elsewhere"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some and run again: what has arrived is kept"
    away = (ConnectionError, errors.LocalEntryNotFoundError)
    if is_transport_error(error) or isinstance(error, away):
        why = _first_line(error)
        return f"the hub is out of reach ({why}); check the network and HF_ENDPOINT, run again"
    if isinstance(error, OSError):
        return f"cannot be fetched ({_first_line(error)}); run again"
    return None


def _refusal(error: Any, page: str) -> str:
    """An HTTP error of the hub, whose page of the repository has the licence."""
    from huggingface_hub import errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        if status == 403:
            return (
                f"gated, and the account of HF_TOKEN has no access; accept its licence at {page} "
                "and wait until it is granted"
            )
        return f"gated; accept its licence at {page} and set HF_TOKEN to a token of your account"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or not with this token; check its name and HF_TOKEN"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{_first_line(error)}; correct the config"
    if status == 401:
        return "the hub does not know this token; set HF_TOKEN to a valid one, or unset it"
    if status >= 500:
        return f"the hub fails (HTTP {status}); run again later: what has arrived is kept"
    return f"the hub refuses (HTTP {status}: {_first_line(error)}); check HF_TOKEN, run again"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
