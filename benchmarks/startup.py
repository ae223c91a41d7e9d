"""CPU seconds of a small study's jobs, by this version and by another one.

    python benchmarks/startup.py --source ../before/src --out benchmarks/results/startup.json

The study is the demo's, cut down to one stand-in that is hardly trained and to one pruned run: what
its jobs take is what any job takes to start. Snakemake runs it once; the scripts that it wrote for
its jobs are then run again, by both versions in turn. User and system seconds count, to the last
one of the process and of those that it started; the best of the repeats is what a table shows.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from dass.runtime.files import write_text
from dass.runtime.provenance import provenance
from dass.speed.results import compact

ROOT = Path(__file__).parents[1]
STAGES = (
    "calibration_tokens", "evaluation_tokens", "zero_shot_requests", "prune_run", "perplexity",
    "zero_shot",
)  # fmt: skip

KEEP = """
import os, shutil, sys
if ".snakemake/scripts/" in sys.orig_argv[-1]:
    shutil.copy(sys.orig_argv[-1], {!r} + f"/{{os.getpid()}}.py")
"""
"""Run by Python at the start of each process: keeps what Snakemake removes."""


def small_study() -> dict[str, Any]:
    """The demo with one model, one method and one pattern, and little of everything."""
    study: dict[str, Any] = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    del study["speed"]
    study["study"] = "startup"
    study["standins"] = {"seed": 0, "documents": 400, "steps": 4}
    study["models"] = {"standin-llama": study["models"]["standin-llama"] | {"zero_shot_limit": 10}}
    study["calibrations"]["toy"] |= {"sequences": 8, "length": 64}
    study["perplexity"]["length"] = 64
    study["experiments"]["main"] |= {"methods": ["dass"], "patterns": ["2of4"]}
    study["methods"] = {"dass": study["methods"]["dass"]}
    return study


def scripts_of(folder: Path) -> dict[str, str]:
    """Run the study in a folder; stage -> what Snakemake put before the script of its first job."""
    kept, hook = folder / "kept", folder / "hook"
    for path in (kept, hook):
        path.mkdir()
    (hook / "sitecustomize.py").write_text(KEEP.format(str(kept)))
    (folder / "study.yaml").write_text(yaml.safe_dump(small_study(), sort_keys=False))
    command = [sys.executable, "-m", "snakemake", "evaluate", "--snakefile", f"{ROOT}/Snakefile"]
    command += ["--directory", str(folder), "--configfile", str(folder / "study.yaml")]
    done = subprocess.run(
        [*command, "--cores", "1"], env=os.environ | {"PYTHONPATH": str(hook)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    found: dict[str, str] = {}
    for file in sorted(kept.iterdir(), key=lambda file: file.stat().st_mtime_ns):
        before = file.read_text().partition("######## snakemake preamble end #########\n")[0]
        stage = re.search(r"/stages/(?!__init__)(\w+)\.py", before)
        assert stage is not None
        found.setdefault(stage[1], before)
    return found


def cpu_seconds(before: str, source: Path, folder: Path) -> float:
    """User and system seconds of a job, run by the library in ``source``."""
    script = folder / "job.py"
    script.write_text(before + (source.parent / "workflow/scripts/stage.py").read_text())
    job = subprocess.Popen(
        [sys.executable, str(script)], cwd=folder, env=os.environ | {"PYTHONPATH": str(source)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(job.pid, 0)
    job.returncode = os.waitstatus_to_exitcode(status)
    if job.returncode:
        sys.exit(f"{script}: exit code {job.returncode}")
    return round(used.ru_utime + used.ru_stime, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="src of another checkout, to compare with")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sources = {"after": ROOT / "src"}
    if options.source is not None:
        sources = {"before": options.source.resolve()} | sources
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scripts = scripts_of(folder)
        for stage in STAGES:
            seconds: dict[str, list[float]] = {version: [] for version in sources}
            for _ in range(options.repeats):
                for version, source in sources.items():
                    seconds[version].append(cpu_seconds(scripts[stage], source, folder))
            rows.append({"stage": stage, "cpu_seconds": seconds})
            print(rows[-1], flush=True)
    command = " ".join(["python benchmarks/startup.py", *sys.argv[1:]])
    load = round(os.getloadavg()[0], 1)  # this benchmark itself is 1
    content = {"command": command, "load": load, "rows": rows, "provenance": provenance()}
    write_text(options.out, compact(content))


if __name__ == "__main__":
    main()
