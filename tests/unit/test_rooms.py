"""The plan of the library: rooms in order, and imports that point down only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "src" / "dass"

ROOMS = {
    "errors": "the errors that users see, one line each",
    "terms": "the words that config and code share",
    "tasks": "the zero-shot tasks, one entry each",
    "latex": "what plain LaTeX can print",
    "runtime": "how a job behaves: files, progress, provenance, GPUs, logs",
    "data": "text to token windows; whatever is fetched from a hub",
    "models": "a model block by block: weights, GLUs, batches of activations",
    "pruning": "what to remove: methods, masks, patterns, the pruned file",
    "packed": "pruned weights packed, and products with them that pay at decode",
    "evaluation": "what a run is worth: perplexity, zero-shot accuracy",
    "config": "the settings of a study: validated, closed, documented",
    "results": "result files, their summary, published numbers",
    "speed": "measuring speed, and nothing else",
    "report": "tables, figures, the report",
    "standins": "the demo's toy world and the models trained on it",
    "stages": "one module per rule of the workflow",
}
"""Ground floor first. A room imports from itself and from the rooms above it in this list."""

ALONE = {"standins": {"stages.toy_corpus", "stages.train_standin"}}
"""A room that others must not import, and who may."""


def room_of(module: str) -> str:
    return module.split(".")[0]


def modules() -> dict[str, Path]:
    """Name below ``dass`` -> file."""
    files = (f for f in LIBRARY.rglob("*.py") if f.parent != LIBRARY or f.stem != "__init__")
    return {
        ".".join(f.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__"): f
        for f in files
    }


def imports(file: Path) -> set[str]:
    """Every name below ``dass`` that a file imports, also for type checkers and in functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dass":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= set(names) if node.module == "dass" else {str(node.module), *names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("dass.")}
    return {name.removeprefix("dass.") for name in found}


def test_every_module_is_in_a_room() -> None:
    assert {room_of(name) for name in modules()} == set(ROOMS)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_down(module: str) -> None:
    order = list(ROOMS)
    for name in imports(modules()[module]):
        room = room_of(name)
        if name == "__version__":
            continue
        assert order.index(room) <= order.index(room_of(module)), f"{module} imports {name}"
        if room in ALONE and room_of(module) != room:
            assert module in ALONE[room], f"{module} imports {name}"


def test_no_stage_imports_another_stage() -> None:
    for module, file in modules().items():
        if room_of(module) == "stages":
            assert not {n for n in imports(file) if room_of(n) == "stages"}, module


def test_no_file_is_a_corridor() -> None:
    for module, file in modules().items():
        assert len(file.read_text().splitlines()) <= 400, module


def test_the_drawing_of_the_rooms_is_true() -> None:
    """docs/library.md has a row per room: its line, and the rooms that it imports."""
    page = (ROOT / "docs" / "library.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \|$", page, re.MULTILINE)
    assert [(room, line) for room, line, _ in rows] == list(ROOMS.items())
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module, file in modules().items():
        own = room_of(module)
        used[own] |= {room_of(n) for n in imports(file) if n != "__version__"} - {own}
    for room, _, said in rows:
        drawn = set(re.findall(r"\w+", said))
        wanted = [one for one in ROOMS if one in used[room]]
        assert drawn == used[room], f"docs/library.md, {room}: write {', '.join(wanted)}"
