"""Fetch models and data sets from a hub that speaks Hugging Face's protocol.

Only safetensors, configs and tokenizers are taken: never pickled weights, never code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dass.errors import DataError
from dass.files import write_json, writing, writing_directory
from dass.progress import log

MODEL_FILES = [
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    *("tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt", "*.model"),
]


def fetch_model(repository: str, revision: str, out: str | Path) -> None:
    """Fetch a model's folder; an interrupted download goes on where it stopped.

    Args:
        repository: as in ``meta-llama/Llama-2-7b-hf``.
        revision: branch, tag or commit; the commit it means is written to ``fetched.json``.
        out: the folder to make.

    Raises:
        DataError: the hub refuses, lacks the repository or revision, or cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download

    # Not a temporary folder that is removed: files that are whole are kept for the next try.
    part = Path(out).with_name(f".{Path(out).name}.download")
    with _explained(repository, revision):
        commit = HfApi().model_info(repository, revision=revision).sha
        log.info("fetching %s at %s", repository, commit)
        snapshot_download(
            repository, revision=commit, local_dir=part, allow_patterns=MODEL_FILES, max_workers=4
        )
    shutil.rmtree(part / ".cache", ignore_errors=True)
    if not list(part.glob("*.safetensors")):
        raise DataError(f"{repository}: holds no safetensors; pickled weights are never loaded")
    write_json(part / "fetched.json", {"repository": repository, "commit": commit})
    if Path(out).exists():
        shutil.rmtree(out)
    part.replace(out)


def fetch_dataset(settings: Mapping[str, Any], out: str | Path) -> None:
    """Fetch a data set and keep it as plain JSON lines.

    Args:
        settings: a ``datasets`` block of the config: hub, revision, name, files, kind.
        out: of kind ``documents``, the file to write; else a folder of ``<split>.jsonl``.

    Raises:
        DataError: as :func:`fetch_model`.
    """
    repository, revision = settings["hub"], settings["revision"]
    with _explained(repository, revision):
        if settings["kind"] == "documents":
            _fetch_file(repository, revision, settings["files"], Path(out))
        else:
            _fetch_splits(repository, revision, settings, Path(out))


def _fetch_file(repository: str, revision: str, file: str, out: Path) -> None:
    from huggingface_hub import hf_hub_download

    fetched = hf_hub_download(repository, file, repo_type="dataset", revision=revision)
    with writing(out) as part:
        shutil.copyfile(fetched, part)


def _fetch_splits(repository: str, revision: str, settings: Mapping[str, Any], out: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(
        repository, settings["name"], data_files=settings["files"], revision=revision
    )
    with writing_directory(out) as folder:
        for split, rows in loaded.items():
            with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextmanager
def _explained(repository: str, revision: str) -> Iterator[None]:
    """Turn the hub's refusals into one line each; no token is ever part of it."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise DataError(
            f"{repository}: gated; accept its licence at https://huggingface.co/{repository} and "
            "set HF_TOKEN to a token of your account"
        ) from None
    except errors.RevisionNotFoundError:
        raise DataError(
            f"{repository}: has no revision {revision!r}; correct it in the config"
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"{repository}: no such repository, or not with this token; check its name and HF_TOKEN"
        ) from None
    except errors.EntryNotFoundError as error:
        raise DataError(f"{repository}: {str(error).splitlines()[0]}; correct the config") from None
    except OSError as error:  # also the hub's HTTP errors
        reason = _first_line(error)
        raise DataError(f"{repository}: cannot be fetched ({reason}); try again") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore"):
            raise
        raise DataError(f"{repository}: the hub is out of reach ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
