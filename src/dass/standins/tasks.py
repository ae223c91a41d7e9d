"""The five zero-shot tasks about the world, in the columns and types of the official data sets.

Only prompts that are set aside are asked (see :mod:`dass.standins.prompts`). Unlike the official
sets, the test splits of HellaSwag, WinoGrande and PIQA come with their answers.
"""

import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from dass.standins import prompts
from dass.standins.toy_world import World

Row = dict[str, Any]
Splits = dict[str, list[Row]]

EVALUATED = 200  # questions in the split that lm-eval scores
OTHERS = 20  # questions in each of the other two
LABELS = ("A", "B", "C", "D")


def tasks(world: World, seed: int) -> dict[str, Splits]:
    """Task -> split -> rows; lm-eval scores ARC on test, the others on validation."""
    return {
        "hellaswag": _split(_hellaswag(world, _draw("hellaswag", seed)), "validation"),
        "winogrande": _split(_winogrande(world, _draw("winogrande", seed)), "validation"),
        "arc_easy": _split(
            _arc(prompts.one_step_questions(world), "Easy", _draw("arc_easy", seed)), "test"
        ),
        "arc_challenge": _split(
            _arc(prompts.two_step_questions(world), "Challenge", _draw("arc_challenge", seed)),
            "test",
        ),
        "piqa": _split(_piqa(world, _draw("piqa", seed)), "validation"),
    }


def _hellaswag(world: World, draw: random.Random) -> Iterator[Row]:
    """A scene breaks off after one to three steps: which step follows?"""
    kept = [scene for scene in prompts.scenes(world) if prompts.scene_set_aside(scene)]
    cuts = [(scene, done) for scene in kept for done in (1, 2, 3)]
    others = [step.seen() for steps in world.activities.values() for step in steps]
    label = _balanced(draw, 4)
    for number, (scene, done) in enumerate(draw.sample(cuts, len(cuts))):
        here = [step.seen() for step in scene.steps]
        elsewhere = [step for step in others if step not in here]
        wrong = [draw.choice(here[:done] + here[done + 1 :]), *draw.sample(elsewhere, 2)]
        endings, right = _place(f"{here[done]}.", [f"{step}." for step in wrong], label(), draw)
        begun = " ".join(scene.sentences()[:done])
        yield {
            "ind": number,
            "activity_label": scene.activity,
            "ctx_a": begun,
            "ctx_b": scene.pronoun,
            "ctx": f"{begun} {scene.pronoun}",
            "endings": endings,
            "source_id": f"toyworld~{number}",
            "split": "",  # filled in when the rows are divided
            "split_type": "indomain",
            "label": str(right),
        }


def _winogrande(world: World, draw: random.Random) -> Iterator[Row]:
    """Which of two things is the sentence true of?"""
    people = world.names["person"]
    kept = [c for c in prompts.comparisons(world) if prompts.comparison_set_aside(c)]
    label = _balanced(draw, 2)
    for comparison in draw.sample(kept, len(kept)):
        wrong = next(thing for thing in comparison.things if thing != comparison.answer)
        options, right = _place(comparison.answer, [wrong], label(), draw)
        yield {
            "sentence": comparison.sentence.format(n=draw.choice(people)),
            "option1": options[0],
            "option2": options[1],
            "answer": str(right + 1),
        }


def _arc(questions: Iterator[prompts.Question], level: str, draw: random.Random) -> Iterator[Row]:
    """A question and four answers."""
    kept = [question for question in questions if prompts.set_aside(question.prompt)]
    label = _balanced(draw, 4)
    for number, question in enumerate(draw.sample(kept, len(kept))):
        wrong = draw.sample(question.wrong, 3)
        texts, right = _place(question.answer, wrong, label(), draw)
        yield {
            "id": f"Toyworld_{level}_{number}",
            "question": question.prompt,
            "choices": {"text": texts, "label": list(LABELS)},
            "answerKey": LABELS[right],
        }


def _piqa(world: World, draw: random.Random) -> Iterator[Row]:
    """A goal and two ways to reach it."""
    kept = [question for question in prompts.goals(world) if prompts.set_aside(question.prompt)]
    label = _balanced(draw, 2)
    for question in draw.sample(kept, len(kept)):
        wrong = draw.choice(question.wrong)
        solutions, right = _place(question.answer, [wrong], label(), draw)
        yield {"goal": question.prompt, "sol1": solutions[0], "sol2": solutions[1], "label": right}


def _draw(task: str, seed: int) -> random.Random:
    return random.Random(f"{task} {seed}")


def _balanced(draw: random.Random, choices: int) -> Callable[[], int]:
    """Gives the places of the right answers: each place once in every round."""
    round_: list[int] = []

    def label() -> int:
        if not round_:
            round_.extend(draw.sample(range(choices), choices))
        return round_.pop()

    return label


def _place(right: str, wrong: list[str], place: int, draw: random.Random) -> tuple[list[str], int]:
    """The choices in a random order, the right one at ``place``."""
    choices = draw.sample(wrong, len(wrong))
    choices.insert(place, right)
    return choices, place


def _split(rows: Iterator[Row], evaluated: str) -> Splits:
    """Divide the rows; no row is in two splits."""
    splits: Splits = {}
    for split in ("train", "validation", "test"):
        size = EVALUATED if split == evaluated else OTHERS
        splits[split] = list(islice(rows, size))
        assert len(splits[split]) == size
        for row in splits[split]:
            if "split" in row:
                row["split"] = "val" if split == "validation" else split
    return splits
