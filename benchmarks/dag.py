"""Seconds of a dry run of the paper's study and of a wide one.

    python benchmarks/dag.py --out benchmarks/results/dag.json

Nothing is fetched and nothing computed. Wall time is what one waits; processor time is what it
costs on a machine that is busy with other work. The best of the repeats counts.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from dass.runtime.files import write_text
from dass.runtime.provenance import provenance
from dass.speed.results import compact

ROOT = Path(__file__).parents[1]
# The same jobs on a machine with a GPU.
os.environ["DASS_SPEED_GPU"] = "0"


def paper() -> dict[str, Any]:
    """The paper's study, as the config has it; it is planned in another folder."""
    study: dict[str, Any] = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    study["published"]["file"] = str(ROOT / study["published"]["file"])
    return study


def wide(models: int, seeds: int) -> dict[str, Any]:
    """The paper's main grid with this many models and calibration seeds."""
    study = paper()
    del study["speed"], study["blocks"]  # which name a model
    model, calibration = study["models"]["mistral-7b"], study["calibrations"]["c4"]
    study["models"] = {f"model-{i:02}": model | {"label": f"Model {i}"} for i in range(models)}
    study["calibrations"] = {f"c4-s{seed}": calibration | {"seed": seed} for seed in range(seeds)}
    main = study["experiments"]["main"] | {"models": "all"}
    study["experiments"] = {"main": main | {"calibrations": list(study["calibrations"])}}
    return study


def dry_run(study: dict[str, Any]) -> dict[str, float]:
    """Jobs and seconds of one dry run."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "study.yaml"
        config.write_text(yaml.safe_dump(study, sort_keys=False))
        command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", f"{ROOT}/Snakefile"]
        command += ["--directory", folder, "--configfile", str(config), "--quiet", "all"]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = re.search(r"^total +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    if done.returncode or total is None:
        sys.exit(done.stdout + done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"jobs": int(total[1]), "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    studies = {
        "the paper's study": paper(),
        f"{options.models} models, {options.seeds} seeds": wide(options.models, options.seeds),
    }
    rows = []
    for name, study in studies.items():
        runs = [dry_run(study) for _ in range(options.repeats)]
        best = min(runs, key=lambda run: run["seconds"])
        rows.append({"study": name, **best, "all_seconds": [run["seconds"] for run in runs]})
        print(rows[-1])
    command = " ".join(["python benchmarks/dag.py", *sys.argv[1:]])
    load = round(os.getloadavg()[0], 1)  # this benchmark itself is 1
    content = {"command": command, "load": load, "rows": rows, "provenance": provenance()}
    write_text(options.out, compact(content))


if __name__ == "__main__":
    main()
