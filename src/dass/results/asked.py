"""Whether a result file says that it was asked for what a config asks for now."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dass.errors import DataError
from dass.runtime.files import read_json


def asked_otherwise(path: str | Path, asked: Mapping[str, Any]) -> str | None:
    """The first setting of a result of a run that is another than it is asked for now.

    Args:
        path: the file, of any stage; one that cannot be read says nothing.
        asked: settings of the run, its calibration or its evaluation, by their names in the file;
            what the file does not have is not compared.

    Returns:
        ``seed is 0, not 9``; None where nothing differs.
    """
    try:
        content = read_json(path)
        said = content["provenance"].get("calibration", {}) | content | content["settings"]
    except (AttributeError, DataError, KeyError, TypeError):
        return None
    for key, value in json.loads(json.dumps(asked)).items():
        if key in said and said[key] != value:
            return f"{key} is {said[key]!r}, not {value!r}"
    return None
