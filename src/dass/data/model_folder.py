"""What a model folder holds, from config.json and the headers of its safetensors files.

No weight is read and torch is not imported, so that a folder is checked before the first job. The
weights are those that transformers would read, in its order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dass.data.model_config import CONFIG, check_config, read_config, read_object, text_settings
from dass.errors import ModelError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

FLOATING = ("F64", "F32", "F16", "BF16")
"""The dtypes of weights that mean what they say, as safetensors calls them."""

WHOLE = ("I64", "BOOL")
"""Dtypes of what is no weight: positions, masks. A quantised weight is never stored so."""


SCALES = (
    *("SCB", "weight_format", "absmax", "quant_map", "nested_absmax", "nested_quant_map"),
    *("weight_scale", "weight_scale_inv", "weight_scale_2", "weight_global_scale", "weight_packed"),
    *("weight_zero_point", "weight_shape", "weight_g_idx", "input_scale", "input_global_scale"),
    *("input_zero_point", "scale_weight", "scale_input", "k_scale", "v_scale"),
    *("qweight", "qzeros", "scales", "g_idx", "qscale_act", "weight_scales"),
)
"""Last parts of the names of tensors that only a quantised weight needs."""


SMALL = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
"""Files of a folder beside its weights: config, tokenizer, templates, index."""

COPIED_ONLY = ("generation_config.json",)
"""Small files that no result depends on: an export has them all the same."""

_BLOCK = re.compile(r"^(?:model\.)?layers\.(\d{1,9})\.")
_EMBEDDING = re.compile(r"^(?:model\.)?embed_tokens\.weight$")
_QUANTISED = re.compile(rf"(^|[.:])({'|'.join(SCALES)}|quant_state\.\w+|qdata)$")
_DISTRIBUTED = re.compile(r"^shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors$")


@dataclass(frozen=True)
class Stored:
    """One tensor of a safetensors file, as its header describes it."""

    file: Path
    dtype: str
    """As safetensors calls it: ``BF16``."""
    shape: tuple[int, ...]


def check_folder(folder: str | Path) -> dict[str, Stored]:
    """Whether a model folder can be understood, from config.json and headers alone.

    Returns:
        each tensor that transformers would read, by the name in its file.

    Raises:
        ModelError: there are no weights, or not all; config.json is malformed; the weights are
            quantised; the number of blocks or the vocabulary differ from config.json.
    """
    folder = Path(folder)
    settings = read_config(folder)
    check_config(settings, folder / CONFIG)
    tensors = stored_tensors(folder)
    check_dtypes(tensors)
    text = text_settings(settings)
    if isinstance(count := text.get("num_hidden_layers"), int):
        check_blocks(folder, {int(m[1]): name for name in tensors if (m := _BLOCK.match(name))},
                     count)  # fmt: skip
    for name in filter(_EMBEDDING.match, tensors):
        wanted = tuple(text.get(key) for key in ("vocab_size", "hidden_size"))
        if None not in wanted and tensors[name].shape != wanted:
            raise ModelError(
                f"{folder / CONFIG}: vocab_size and hidden_size are {wanted[0]} and {wanted[1]}, "
                f"but {name} in {tensors[name].file.name} is {list(tensors[name].shape)}; correct "
                "them or fetch the model again"
            )
    return tensors


def files_read(folder: str | Path) -> list[Path]:
    """The files that a result may depend on: config, tokenizer, weights, and their index if read.

    Raises:
        ModelError: as :func:`weight_files`.
    """
    return [file for file in files_exported(folder) if file.name not in COPIED_ONLY]


def files_exported(folder: str | Path) -> list[Path]:
    """The files that an export depends on: :func:`files_read`, and what it copies as it is.

    Raises:
        ModelError: as :func:`weight_files`.
    """
    folder = Path(folder)
    weights = weight_files(folder)
    small = {file for pattern in SMALL for file in folder.glob(pattern) if file.is_file()}
    if weights == [folder / SINGLE]:
        small.discard(folder / INDEX)
    return sorted(small | set(weights))


# --- Weights ----------------------------------------------------------------------------------


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors files that transformers would read: the single one, else the index's.

    Raises:
        ModelError: there are none, or the index is malformed or names one that is missing.
    """
    folder = Path(folder)
    names = sorted(file.name for file in folder.glob("*"))
    if parts := [name for name in names if _DISTRIBUTED.match(name)]:
        raise ModelError(
            f"{folder / parts[0]}: part of a distributed checkpoint, which transformers reads in "
            f"place of {SINGLE}; save the model whole with save_pretrained()"
        )
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / SINGLE).is_symlink():
        raise ModelError(f"{folder / SINGLE}: a link that leads to no file; fetch the model again")
    if not (folder / INDEX).is_file():
        others = [n for n in names if n.endswith((".safetensors", ".gguf", ".bin", ".pth", ".pt"))]
        raise ModelError(
            f"{folder}: no safetensors ({SINGLE} or {INDEX}"
            f"{f', only {others[0]}' if others else ''}); pickled weights are never loaded: "
            "convert the model with save_pretrained()"
        )
    shards = shards_of(read_object(folder / INDEX), folder / INDEX)
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        raise ModelError(
            f"{folder}: shard {missing[0]} is missing"
            f"{f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''}; "
            "fetch the model again"
        )
    return [folder / shard for shard in shards]


def shards_of(index: Mapping[str, Any], where: str | Path) -> list[str]:
    """The files that an index names, in the order in which transformers reads them.

    Raises:
        ModelError: it has no weight_map or no metadata, or names a file outside its folder.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{where}: holds no weight_map; fetch the model again")
    if not isinstance(index.get("metadata"), dict):
        raise ModelError(f"{where}: holds no metadata, which transformers needs; add an empty one")
    for name in weight_map.values():
        inside = isinstance(name, str) and not Path(name).is_absolute()
        if not inside or ".." in Path(name).parts or not name.endswith(".safetensors"):
            raise ModelError(
                f"{where}: names {name!r}, which is no safetensors file of its folder; fetch the "
                "model again"
            )
    return sorted(set(weight_map.values()))


def stored_tensors(folder: str | Path) -> dict[str, Stored]:
    """Every tensor of the files of weights, those that no index mentions too.

    A tensor that several files hold is the last one's, as for transformers.

    Raises:
        ModelError: as :func:`weight_files`; a file is truncated, damaged, or lacks a tensor that
            the index puts there.
    """
    folder = Path(folder)
    tensors = {n: t for file in weight_files(folder) for n, t in read_header(file).items()}
    if not (folder / SINGLE).is_file():
        for name, shard in read_object(folder / INDEX)["weight_map"].items():
            if name not in tensors:
                raise ModelError(
                    f"{folder / shard}: lacks {name}, which the index puts there; fetch the model "
                    "again"
                )
    return tensors


def read_header(file: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file; its header is checked against the file's size.

    Raises:
        ModelError: the file is truncated or damaged.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: Stored(file, part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError, ValueError) as error:
        if _is_pointer(file):
            raise ModelError(f"{file}: a pointer of Git LFS, not the file; git lfs pull") from None
        what = " ".join(str(error).split())
        raise ModelError(
            f"{file}: truncated or damaged safetensors file ({what}); fetch it again"
        ) from None


def _is_pointer(file: Path) -> bool:
    start = b"version https://git-lfs"
    try:
        with file.open("rb") as opened:
            return opened.read(len(start)) == start
    except OSError:
        return False


def check_dtypes(tensors: Mapping[str, Stored]) -> None:
    """Refuse quantised weights, whose numbers mean nothing without what goes with them.

    Raises:
        ModelError: a dtype or a name says so.
    """
    for name, tensor in tensors.items():
        whole = tensor.dtype in WHOLE and not name.endswith(".weight")
        known = tensor.dtype in FLOATING or whole
        if not known or _QUANTISED.search(name):
            as_what = "holds the scales of quantised weights" if known else "is quantised"
            raise ModelError(
                f"{tensor.file}: {name} ({tensor.dtype}) {as_what}: a quantised checkpoint cannot "
                "be pruned; give the unquantised model"
            )


def check_blocks(folder: Path, found: Mapping[int, str], count: int) -> None:
    """Whether the files hold the blocks that config.json announces, and no others.

    Args:
        folder: of the model.
        found: number of a block -> name of one of its tensors; empty: not known.
        count: num_hidden_layers.

    Raises:
        ModelError: there are more, or fewer.
    """
    said = f"{folder / CONFIG}: num_hidden_layers is {count}, but the safetensors files hold"
    remedy = "correct it or fetch the model again"
    if more := [index for index in sorted(found) if index >= count]:
        raise ModelError(f"{said} {found[more[0]]}; {remedy}")
    if found and len(found) < count:
        missing = next(index for index in range(count) if index not in found)
        raise ModelError(f"{said} nothing of block {missing} (counted from 0); {remedy}")
