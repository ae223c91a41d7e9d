"""Every reader of a small text file: whatever happens to it, it is read or named in one line.

Documents, rows, tokens, pruned files, headers and tokenizers have such tests beside their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dass.config.load import read_config
from dass.data.model_config import check_config, read_object
from dass.data.model_folder import shards_of
from dass.errors import DassError
from dass.results.published import read_published
from dass.results.schema import (
    ActivationsResult,
    BlocksResult,
    PerplexityResult,
    PruningResult,
    ZeroShotResult,
    read_result,
)
from dass.results.summary import Summary
from dass.speed.results import read_speed
from tests.conftest import COMMON, damaged
from tests.unit.config.small import SMALL
from tests.unit.results.test_schema import ACTIVATIONS, BLOCKS, PERPLEXITY, PRUNING, ZERO_SHOT

YAML = [
    "a: 2001-99-99", "a: !!int x", "a: !!timestamp x", "a: !!bool x", "a: &a [*a]", "? [1]\n: 2",
    "? {a: 1}\n: 2", "2: 3", "null: 1", "a: 0x_", "a: 0b_", "a: 9:99:99", "a: .inf",
    "a: !!python/x y", "[" * 5000, "{a: " * 3000, "a: !!binary x", "a: *b", "- a\n- b", "a: |\n b",
    "%YAML 9.9\n--- a",
    "<<: 3", "a: !!set {b}", "a: !!omap [b]", "models: {a: {label: 2001-01-01}}", "\ufeffa: 1",
    "a\0b", "---\na: 1\n---\nb: 2", "a: 1" + "0" * 5000, "models: {[1]: 2}", "methods: {a: [b]}",
]  # fmt: skip
"""What is valid YAML, or nearly, and no config."""

JSON = [
    "NaN", "[NaN]", "-Infinity", "1" + "0" * 5000, "[" * 20_000, '{"a": ' * 9000, '"\\ud800"', "{}",
    '{"schema_version": true}', '{"schema_version": 1.0}', '{"schema_version": 2}',
    '{"schema_version": 2, "rows": null}', '{"weight_map": {"a": null}, "metadata": {}}',
    '{"weight_map": {"a": "a.safetensors"}, "metadata": []}', '{"model_type": []}',
    '{"model_type": "llama", "hidden_size": 1e400}',
    '{"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": true}',
]  # fmt: skip

CSV = "table,model,method,pattern,split,metric,value,source,length\n"
PUBLISHED = CSV + (
    "T. 1,llama,dense,,test,perplexity,5.47,Paper,2048\n"
    "T. 1,llama,dass,2of4,,piqa_acc,76.4,Paper,\n"
)
CSVS = [CSV + row for row in (
    'a,"b', "a\0", ",,,,,,,,", "t,m,dense,,test,perplexity,1e400,s,",
    "t,m,dass,u1e5,,piqa_acc,5,s,", "t,m,dense,,test,perplexity,5,s,²", "x" * 200_000,
    "t,m,dass,u50." + "0" * 5000 + ",,piqa_acc,5,s,",
    "t,m,dass,1of" + "9" * 5000 + ",,piqa_acc,5,s,",
    "t,m,dense,,test,perplexity,5,s," + "9" * 5000,
)]  # fmt: skip

SPEED: dict[str, Any] = {
    "schema_version": 1, "kind": "cpu", "subject": "tiny", "settings": {}, "machine": {},
    "shape": {"hidden": 64, "intermediate": 128, "heads": 4, "key_value_heads": 2, "blocks": 2},
    "measurements": [{"part": "mlp", "engine": "torch", "variant": "dense", "tokens": 1,
                      "dtype": "float32", "seconds": [0.1, 0.2]}],
    "refusals": [], "provenance": {},
}  # fmt: skip


class Reader(NamedTuple):
    """A file, and what reads it."""

    name: str
    good: str
    read: Callable[[Path], object]
    odd: list[str]


def _shards(path: Path) -> list[str]:
    return shards_of(read_object(path), path)


def _config(path: Path) -> None:
    check_config(read_object(path), path)


INDEX = {"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
READERS = [
    Reader("study.yaml", yaml.safe_dump(SMALL), read_config, YAML),
    Reader("pruning.json", json.dumps(PRUNING), lambda p: read_result(p, PruningResult), JSON),
    Reader("perplexity.json", json.dumps(PERPLEXITY), lambda p: read_result(p, PerplexityResult),
           JSON),
    Reader("zero_shot.json", json.dumps(ZERO_SHOT), lambda p: read_result(p, ZeroShotResult), JSON),
    Reader("blocks.json", json.dumps(BLOCKS), lambda p: read_result(p, BlocksResult), JSON),
    Reader("activations.json", json.dumps(ACTIVATIONS),
           lambda p: read_result(p, ActivationsResult), JSON),
    Reader("summary.json", json.dumps({"schema_version": 2, "rows": [
        {"run": PRUNING["run"], "pruning": PRUNING, "perplexity": PERPLEXITY}]}),
        lambda p: read_result(p, Summary), JSON),
    Reader("speed.json", json.dumps(SPEED), read_speed, JSON),
    Reader("published.csv", PUBLISHED, read_published, CSVS),
    Reader("config.json", json.dumps(COMMON | {"model_type": "llama"}), _config, JSON),
    Reader("model.safetensors.index.json", json.dumps(INDEX), _shards, JSON),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_a_good_file_is_read(reader: Reader, folder: Path) -> None:
    """Else the tests below would hold for a reader that refuses everything."""
    (folder / reader.name).write_text(reader.good)
    reader.read(folder / reader.name)


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
@settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_any_file_is_read_or_named_in_one_line(
    reader: Reader, data: st.DataObject, folder: Path
) -> None:
    content = data.draw(damaged(reader.good.encode()))
    _read_or_named(reader, content, folder / reader.name)


@pytest.mark.parametrize(
    ("reader", "content"), [(reader, odd) for reader in READERS for odd in reader.odd],
    ids=[f"{reader.name}-{n}" for reader in READERS for n in range(len(reader.odd))],
)  # fmt: skip
def test_what_is_odd_is_named_in_one_line(reader: Reader, content: str, folder: Path) -> None:
    assert not _read_or_named(reader, content.encode(), folder / reader.name)


def _read_or_named(reader: Reader, content: bytes, path: Path) -> bool:
    path.write_bytes(content)
    try:
        reader.read(path)
    except DassError as error:
        assert "\n" not in str(error)
        assert path.name in str(error)
        return False
    return True
