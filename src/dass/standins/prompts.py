"""The forms in which the world is asked: one place for the documents and for the tasks.

Documents and tasks share these forms and divide the prompts between them: a prompt that is set
aside stands in no document, and the tasks ask nothing else. What a task asks can thus be known
from the documents (the fact stands there, and it is asked there in other words), but its prompt
is new to the model.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from dass.standins.toy_world import CHAINS, QUALITIES, RELATIONS, STEPS, Step, World

ORDINALS = ("first", "second", "third", "fourth", "last")

COMPARISONS = {
    "weight": "{n} put the {x} and the {y} on the scales, and the _ was {a}.",
    "touch": "{n} ran a hand over the {x} and the {y}, and the _ felt {a}.",
    "price": "{n} asked for the price of the {x} and the {y}, and the _ was {a}.",
    "age": "{n} looked closely at the {x} and the {y}, and the _ looked {a}.",
}

USE_GOALS = (
    ("How do you {v}?", "Use a {s}."),
    ("What do you take to {v}?", "You take a {s}."),
    ("{n} wants to {v}.", "{n} takes a {s}."),
    ("How can {n} {v}?", "With a {s}."),
)
STEP_GOALS = (
    ("{A}: what is the {o} step?", "You {step}."),
    ("{A}: what do you do as the {o} step?", "{Step}."),
    ("What is the {o} step of {a}?", "You {step}."),
    ("As the {o} step of {a}, what do you do?", "{Step}."),
)


def set_aside(prompt: str) -> bool:
    """Whether a prompt is kept for the tasks: one in three is."""
    return zlib.crc32(prompt.encode()) % 3 == 0


@dataclass(frozen=True)
class Question:
    """A prompt, its answer, and other answers of the same kind, all wrong."""

    prompt: str
    answer: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A sentence with ``{n}`` for who compares and ``_`` for the thing that it is true of."""

    sentence: str
    things: tuple[str, str]
    answer: str

    def told(self, person: str) -> str:
        """The sentence with the answer in place."""
        return self.sentence.format(n=person).replace("_", self.answer)


@dataclass(frozen=True)
class Scene:
    """Somebody does something, step by step."""

    activity: str
    person: str
    pronoun: str
    steps: tuple[Step, ...]

    def sentences(self) -> list[str]:
        """One sentence a step; the first names the person."""
        doers = [self.person] + [self.pronoun.capitalize()] * (len(self.steps) - 1)
        return [f"{doer} {step.seen()}." for doer, step in zip(doers, self.steps, strict=True)]


def one_step_questions(world: World) -> Iterator[Question]:
    """Every fact of the world, asked in every form of its relation."""
    for relation in RELATIONS:
        for subject, answer in world.facts[relation.name].items():
            wrong = tuple(v for v in world.names[relation.value] if v != answer)
            for form in relation.questions:
                yield Question(form.format(s=subject), answer, wrong)


def two_step_questions(world: World) -> Iterator[Question]:
    """Every chain of two facts, asked in every form of the chain."""
    for chain in CHAINS:
        answers = set(world.facts[chain.second].values())
        for subject in world.facts[chain.first]:
            _, answer = world.follow(chain, subject)
            wrong = tuple(sorted(answers - {answer}))
            for form in chain.questions:
                yield Question(form.format(s=subject), answer, wrong)


def goals(world: World) -> Iterator[Question]:
    """What somebody wants to do, and how: with which thing, or by which step."""
    things = world.names["thing"]
    for thing, use in world.facts["use"].items():
        for goal, solution in USE_GOALS:
            for person in world.names["person"] if "{n}" in goal else ("",):
                answers = {t: solution.format(s=t, n=person) for t in things}
                wrong = tuple(text for t, text in answers.items() if t != thing)
                yield Question(goal.format(v=use, n=person), answers[thing], wrong)
    everywhere = [step for steps in world.activities.values() for step in steps]
    for activity, steps in world.activities.items():
        for goal, solution in STEP_GOALS:
            for ordinal, step in zip(ORDINALS, steps, strict=True):
                wrong = tuple(_solve(solution, other) for other in everywhere if other != step)
                prompt = goal.format(A=activity, a=activity.lower(), o=ordinal)
                yield Question(prompt, _solve(solution, step), wrong)


def comparisons(world: World) -> Iterator[Comparison]:
    """Every two things that differ in a dimension, in both orders, true of either."""
    for dimension, adjectives in QUALITIES.items():
        fits = world.adjectives[dimension]
        for x in fits:
            for y in fits:
                if fits[x] == fits[y]:
                    continue
                for adjective in adjectives:
                    form = COMPARISONS[dimension]
                    answer = x if fits[x] == adjective else y
                    yield Comparison(form.format(n="{n}", x=x, y=y, a=adjective), (x, y), answer)


def comparison_set_aside(comparison: Comparison) -> bool:
    """Two things are set aside together: no document compares them, in whatever words."""
    return set_aside(" and ".join(sorted(comparison.things)))


def scenes(world: World) -> Iterator[Scene]:
    """Every person at every activity."""
    for activity, steps in world.activities.items():
        assert len(steps) == STEPS
        for person in world.names["person"]:
            yield Scene(activity, person, world.pronouns[person], steps)


def scene_set_aside(scene: Scene) -> bool:
    """A person and an activity are set aside together."""
    return set_aside(f"{scene.activity}: {scene.person}")


def _solve(solution: str, step: Step) -> str:
    order = step.order()
    return solution.format(step=order, Step=order.capitalize())
