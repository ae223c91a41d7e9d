"""The stand-ins that lie in the repository: trained once, by ``make standins``, in bfloat16.

A study whose recipe is theirs takes them; any other trains its own.
"""

import ast
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from dass.runtime.files import write_json, writing_directory
from dass.runtime.progress import log
from dass.standins import DEFAULT_DOCUMENTS, DEFAULT_STEPS, FAMILIES

SHIPPED = Path(__file__).parent / "shipped"
"""A model folder per family, and in it the hash of its recipe."""

RECIPE = "recipe.json"

MODULES = ("training.py", "muon.py", "tokenizer.py")
"""The code that decides, with the text, what is learnt."""


def make_standin(
    family: str, corpus: str | Path, out: str | Path, seed: int, steps: int = DEFAULT_STEPS
) -> None:
    """Write the model folder of a stand-in: the shipped one if its recipe is asked for.

    Args, raises: as :func:`dass.standins.training.train_standin`, which makes any other.
    """
    shipped = SHIPPED / family
    if shipped_recipe(family) != recipe(family, corpus, seed, steps):
        from dass.standins.training import train_standin

        train_standin(family, corpus, out, seed, steps)
        return
    log.info("the stand-in of the repository, trained before: make standins trains it anew")
    with writing_directory(Path(out)) as folder:
        for file in shipped.iterdir():
            if file.name != RECIPE:
                shutil.copyfile(file, folder / file.name)


def recipe(family: str, corpus: str | Path, seed: int, steps: int) -> str:
    """A hash of everything that decides what a stand-in learns, versions of packages aside."""
    from dass.standins.training import read_texts

    digest = hashlib.sha256(f"{family} {seed} {steps}".encode())
    for name in MODULES:
        digest.update(_code(Path(__file__).parent / name).encode())
    for text in read_texts(Path(corpus)):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _code(path: Path) -> str:
    """A module without its comments and docstrings, which teach a model nothing."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def shipped_recipe(family: str) -> str | None:
    """The hash of the recipe that made a family's shipped stand-in; None if there is none."""
    path = SHIPPED / family / RECIPE
    return str(json.loads(path.read_text())["sha256"]) if path.is_file() else None


def train_shipped() -> None:
    """Train the stand-ins of the repository anew, each by the default recipe."""
    from dass.standins.training import train_standin
    from dass.standins.writing import write_corpus

    with tempfile.TemporaryDirectory() as work:
        corpus = Path(work) / "corpus"
        write_corpus(corpus, 0, DEFAULT_DOCUMENTS)
        for family in FAMILIES:
            trained = Path(work) / family
            train_standin(family, corpus, trained, 0, DEFAULT_STEPS, dtype="bfloat16")
            write_json(trained / RECIPE, {"sha256": recipe(family, corpus, 0, DEFAULT_STEPS)})
            shutil.rmtree(SHIPPED / family, ignore_errors=True)
            shutil.copytree(trained, SHIPPED / family)
