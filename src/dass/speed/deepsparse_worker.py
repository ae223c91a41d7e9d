"""DeepSparse in a Python of its own: it needs another numpy, and at most Python 3.11.

Reads one JSON request a line, answers each with one line. Imports nothing of this library, so that
its environment holds DeepSparse only. Start it with NM_DISABLE_ANALYTICS=1: it would send
telemetry.
"""

import json
import os
import sys
import time
from typing import Any


class Model:
    """The compiled model, of which there is one a process."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._inputs: list[Any] = []

    def about(self, request: dict[str, Any]) -> dict[str, Any]:
        """Version, and what DeepSparse says of this processor."""
        import deepsparse
        from deepsparse import cpu

        found = cpu.cpu_architecture()
        return {
            "version": deepsparse.__version__,
            "isa": found.isa,
            "vnni": bool(found.vnni),
            "cores": found.num_available_physical_cores,
        }

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Compile a model for an input, whose first dimension is the batch, and so many cores."""
        import numpy
        from deepsparse import Engine

        started = time.perf_counter()
        self._inputs = [numpy.load(request["input"])]
        self._engine = Engine(
            request["model"], batch_size=len(self._inputs[0]), num_cores=request["threads"]
        )
        return {"seconds": time.perf_counter() - started}

    def output(self, request: dict[str, Any]) -> dict[str, Any]:
        """Save what the model computes."""
        import numpy

        numpy.save(request["path"], self._engine.run(self._inputs, val_inp=False)[0])
        return {}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time one call."""
        started = time.perf_counter()
        self._engine.run(self._inputs, val_inp=False)
        return {"seconds": time.perf_counter() - started}


def main() -> None:
    """Answer requests until there are no more."""
    # The engine prints to standard output, which is ours to answer on: it gets standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    model = Model()
    actions = {name: getattr(model, name) for name in ("about", "load", "output", "run")}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = actions[request["do"]](request)
        except Exception as error:
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
