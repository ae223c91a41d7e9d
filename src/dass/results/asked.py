"""Whether a result file says that it was asked for what a config asks for now."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dass.errors import DataError
from dass.runtime.files import read_json, unseal


def asked_otherwise(path: str | Path, asked: Mapping[str, Any]) -> str | None:
    """The first setting of a result of a run, or of its tokens, that is asked for otherwise now.

    Args:
        path: the file; one that cannot be read says nothing.
        asked: settings of the run, its calibration or its evaluation, by their names in the file;
            what the file does not have is not compared.

    Returns:
        ``seed is 0, not 9``; None where nothing differs.
    """
    try:
        if Path(path).suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                said = dict(unseal(file.metadata()["about"]))
        else:
            content = read_json(path)
            said = content["provenance"].get("calibration", {}) | content | content["settings"]
    except (AttributeError, DataError, KeyError, OSError, SafetensorError, TypeError, ValueError):
        return None
    for key, value in json.loads(json.dumps(asked)).items():
        if key in said and said[key] != value:
            return f"{key} is {said[key]!r}, not {value!r}"
    return None
