"""``python -m dass.speed``: one command for three benchmarks, with little more than torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dass.speed.__main__ import main
from dass.speed.results import parse_speed

HEAVY = (
    "pydantic pandas datasets lm_eval snakemake matplotlib onnx onnxscript onnxruntime jinja2"
).split()

WITHOUT = """
import sys
for name in {heavy}:
    sys.modules[name] = None  # importing it raises ImportError
from dass.speed.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "metric --shapes tiny --patterns u50 --repeats 1",
        "gpu --shapes tiny,tiny --device cpu --tokens 1,130 --repeats 1",
    ],
)
def test_metric_and_gpu_need_torch_and_transformers_only(arguments: str, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    command = [sys.executable, "-c", WITHOUT.format(heavy=HEAVY), *arguments.split()]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert content["command"] == f"python -m dass.speed {arguments} --out {out}"
    (result,) = content["results"]
    assert parse_speed(result, out).measurements


def test_what_was_measured_is_printed_once_and_what_was_not_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "gpu --shapes tiny --device cpu --tokens 1 --parts down,mlp --repeats 1 --dtype float32"
    )
    assert main([*arguments.split(), "--out", str(tmp_path / "speed.json")]) == 0
    printed = capsys.readouterr().out.splitlines()
    dense = [
        line for line in printed if line.startswith("tiny down, 1 tokens, torch float32 dense")
    ]
    assert len(dense) == 1
    assert any("Skipped(part='mlp'" in line for line in printed)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("metric --shapes 7c", "no shape '7c'; there are 7b, "),
        ("metric --shapes tiny --methods magic", "no built-in method 'magic'"),
        ("tpu --shapes tiny", "invalid choice: 'tpu'"),
        ("gpu --shapes tiny --patterns u50", "unrecognized arguments: --patterns"),
    ],
)
def test_a_wrong_word_ends_in_one_line(
    arguments: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*arguments.split(), "--out", str(tmp_path / "x.json")])
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
