"""Text about the world: documents as on web pages, and articles as in WikiText."""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from dass.standins import prompts
from dass.standins.toy_world import CHAINS, QUALITIES, RELATIONS, World

T = TypeVar("T")

ARTICLE_KINDS = ("person", "job", "town", "animal", "thing", "material")
HELD_OUT = 24  # articles in each of validation and test: about 9,000 tokens
SECTIONS = 7  # in an article
SPLITS = ("train", "validation", "test")


class Deck(Generic[T]):
    """Cards drawn without putting back, shuffled again when all are drawn: nothing is neglected."""

    def __init__(self, draw: random.Random, cards: Sequence[T]) -> None:
        self._draw, self._cards, self._left = draw, list(cards), list[T]()

    def next(self) -> T:
        """The next card."""
        if not self._left:
            self._left = self._draw.sample(self._cards, len(self._cards))
        return self._left.pop()


def statements(world: World) -> dict[str, list[list[str]]]:
    """All that is said of each name: for each fact about it, the ways to say it."""
    said: dict[str, list[list[str]]] = {}
    for relation in RELATIONS:
        for subject, value in world.facts[relation.name].items():
            ways = [_sentence(way.format(s=subject, v=value)) for way in relation.statements]
            said.setdefault(subject, []).append(ways)
    for chain in CHAINS:
        for subject in world.facts[chain.first]:
            middle, end = world.follow(chain, subject)
            ways = [way.format(s=subject, m=middle, v=end) for way in chain.statements]
            said[subject].append([_sentence(way) for way in ways])
    for dimension in QUALITIES:
        for thing, adjective in world.adjectives[dimension].items():
            ways = [f"The {thing} is {adjective}.", f"A {thing} is always {adjective}."]
            said[thing].append(ways)
    return said


def documents(world: World, seed: int, count: int) -> Iterator[dict[str, str]]:
    """Web pages about the world, of very different lengths.

    Yields:
        ``text``, ``timestamp`` and ``url``, as C4 has them.
    """
    draw = random.Random(f"documents {seed}")
    kinds = _sections(world, draw)
    order = Deck(draw, [name for name, (share, _) in kinds.items() for _ in range(share)])
    posted = datetime(2019, 4, 18)
    for number in range(count):
        posted += timedelta(seconds=draw.randrange(1, 3600))
        chosen = [order.next() for _ in range(1 + int(draw.expovariate(1 / 2.2)))]
        yield {
            "text": "\n".join(kinds[name][1](draw.randrange(3, 14)) for name in chosen),
            "timestamp": posted.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "url": f"https://www.{draw.choice(world.names['town']).lower()}.example/{number}",
        }


def _sections(world: World, draw: random.Random) -> dict[str, tuple[int, Callable[[int], str]]]:
    """The kinds of section: how many in a round, and what writes one of that many lines."""
    said = statements(world)
    subjects = Deck(draw, list(said))
    one_step = Deck(draw, _asked(prompts.one_step_questions(world)))
    two_step = Deck(draw, _asked(prompts.two_step_questions(world)))
    wishes = Deck(draw, _asked(prompts.goals(world)))
    scenes = Deck(draw, [s for s in prompts.scenes(world) if not prompts.scene_set_aside(s)])
    compared = Deck(
        draw, [c for c in prompts.comparisons(world) if not prompts.comparison_set_aside(c)]
    )

    def portrait(lines: int) -> str:
        subject = subjects.next()
        told = [draw.choice(ways) for ways in said[subject]]
        return " ".join(draw.sample(told, min(lines, len(told))))

    def quiz(deck: Deck[prompts.Question]) -> Callable[[int], str]:
        def write(lines: int) -> str:
            asked = [deck.next() for _ in range(lines)]
            return "\n".join(f"Question: {q.prompt}\nAnswer: {q.answer}" for q in asked)

        return write

    def scene(lines: int) -> str:
        shown = [scenes.next() for _ in range(max(1, lines // 4))]
        return "\n".join(f"{s.activity}: {' '.join(s.sentences())}" for s in shown)

    def market(lines: int) -> str:
        people = world.names["person"]
        return " ".join(compared.next().told(draw.choice(people)) for _ in range(lines))

    return {
        "portrait": (6, portrait),
        "one-step quiz": (8, quiz(one_step)),
        "two-step quiz": (8, quiz(two_step)),
        "guide": (4, quiz(wishes)),
        "scene": (2, scene),
        "market": (4, market),
    }


def wikitext(world: World, seed: int) -> dict[str, list[str]]:
    """Articles about the world's names, in rows as WikiText's data set has them.

    A name has its article in one split only; what the held-out articles say is in the documents
    too, in other words.
    """
    draw = random.Random(f"wikitext {seed}")
    titles = [name for kind in ARTICLE_KINDS for name in world.names[kind]]
    draw.shuffle(titles)
    parts = titles[2 * HELD_OUT :], titles[:HELD_OUT], titles[HELD_OUT : 2 * HELD_OUT]
    said = statements(world)
    return {
        split: [row for title in part for row in _article(world, said, title, draw)]
        for split, part in zip(SPLITS, parts, strict=True)
    }


def _article(
    world: World, said: dict[str, list[list[str]]], title: str, draw: random.Random
) -> Iterator[str]:
    """An article: what is said of its title, then a section for each name it is linked with."""
    yield from ("", f" = {title.capitalize()} = \n", "")
    yield _paragraph(said[title], draw)
    for name in _linked(world, title, draw):
        yield from ("", f" = = {name.capitalize()} = = \n", "")
        yield _paragraph(said[name], draw)
    yield ""


def _linked(world: World, title: str, draw: random.Random) -> list[str]:
    """The names nearest to the title, when facts are roads between names."""
    articles = {name for kind in ARTICLE_KINDS for name in world.names[kind]}
    found = [title]
    for name in found:  # grows while it is read: breadth first
        onward = [table[name] for table in world.facts.values() if name in table]
        back = [s for table in world.facts.values() for s, value in table.items() if value == name]
        near = [other for other in onward + back if other in articles and other not in found]
        found += draw.sample(sorted(set(near)), len(set(near)))
        if len(found) > SECTIONS:
            break
    return found[1 : SECTIONS + 1]


def _paragraph(facts: list[list[str]], draw: random.Random) -> str:
    """Every fact once, in any order, with WikiText's spaces around the marks."""
    told = [draw.choice(ways) for ways in draw.sample(facts, len(facts))]
    text = " ".join(told).replace(".", " .").replace(",", " ,")
    return f" {text} \n"


def _asked(questions: Iterator[prompts.Question]) -> list[prompts.Question]:
    return [question for question in questions if not prompts.set_aside(question.prompt)]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
