"""A toy world: people, animals, towns and things, and what is true of them, drawn from a seed.

Everything that the stand-in models read and are asked comes from here, so that documents,
articles and questions agree with one another. The facts are drawn at random (an otter may live on
turnips): a model can know them only from this world's text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

NAMES: dict[str, tuple[str, ...]] = {
    "person": tuple(
        "Ada Ben Cleo Dora Emil Finn Greta Hugo Ines Jonas Kira Leo Mila Nils Olga Paul".split()
    ),
    "job": tuple("baker doctor farmer hunter miller painter sailor tailor".split()),
    "town": tuple("Brunn Dorn Karsk Lund Morby Pell Selby Tarn".split()),
    "animal": tuple("badger cat crow deer dog duck fox frog goat horse lynx mole seal wolf".split()),
    "trait": tuple("climber digger swimmer runner jumper glider".split()),
    "body": (
        "long claws", "thick fur", "broad feet", "strong legs", "sharp teeth", "soft ears",
    ),
    "thing": tuple(
        "basket bell bowl brush bucket candle comb drum flute hammer helmet kettle knife ladder "
        "lamp mirror needle rope".split()
    ),
    "food": tuple("beans bread cheese fish honey nuts plums worms".split()),
    "building": tuple("barn castle cellar court garden harbour mill tower".split()),
    "ware": tuple("books boots coats dolls gloves maps rings toys".split()),
    "land": tuple("bay cliff desert forest hill island river valley".split()),
    "material": tuple("brass clay copper glass gold iron leather stone".split()),
    "colour": tuple("black blue brown green grey red".split()),
}  # fmt: skip
"""The names of each kind. None starts with a vowel where a text puts "a" in front of it."""

USES = tuple(
    "boil milk|break rocks|call children|carry water|catch moths|chase birds|clean shoes|cook dinner|cut paper|dig holes|dry herbs|fix roofs|guard sheep|light fires|lock doors|mix paint|open jars|send letters".split("|")
)
"""What a thing is for, one use each."""

CAUSES = tuple(
    "the bell rings twice|the fog comes in|the moon is full|the snow melts|the wind turns|the gate stays open|the well runs dry|the rain stops|the bridge falls|the storm ends|the clock stops|the sun sets".split("|")
)
EFFECTS = tuple(
    "the children hide|the market closes|the ships wait|the dogs bark|the school opens|the bread burns|the singers meet|the king sleeps|the roses bloom|the guards march|the streets flood|the geese leave".split("|")
)

QUALITIES: dict[str, tuple[str, str]] = {
    "weight": ("heavy", "light"),
    "touch": ("rough", "smooth"),
    "price": ("cheap", "costly"),
    "age": ("new", "worn"),
}
"""Each thing has one of the two adjectives of each dimension."""

ACTIVITIES = tuple(
    "Baking a pie|Building a raft|Carving a mask|Digging a pond|Dyeing a shirt|Folding a tent|Making a kite|Making jam|Mending a fence|Painting a door|Planting a hedge|Sewing a sail|Shaping a vase|Tuning a harp|Washing wool|Writing a song".split("|")
)
VERBS = tuple("warm fold rub press turn lift wash shake tap wrap spread scrape stir drop".split())
MATTERS = tuple("dough bark cord sand dust foil grain mud paste reed salt straw tar wax".split())
STEPS = 5


SHE = frozenset("Ada Cleo Dora Greta Ines Kira Mila Olga".split())


@dataclass(frozen=True)
class Relation:
    """A property that each member of one kind has: ``subject`` names the kind, ``value`` its range.

    In the templates {s} is the subject and {v} the value.
    """

    name: str
    subject: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Chain:
    """What follows in two steps: the relation ``second`` of the value of the relation ``first``.

    In the templates {s} is the subject, {m} the value of ``first`` and {v} the value of ``second``.
    """

    name: str
    first: str
    second: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


RELATIONS = (
    Relation(
        "job", "person", "job",
        ("{s} is a {v}.", "{s} works as a {v}.", "{s} earns a living as a {v}."),
        ("What is the job of {s}?", "What does {s} work as?", "Which job does {s} have?",
         "What does {s} do for a living?"),
    ),
    Relation(
        "home", "person", "town",
        ("{s} lives in {v}.", "{s} has a house in {v}.", "The home of {s} is in {v}."),
        ("Where does {s} live?", "In which town does {s} live?", "Where is the home of {s}?",
         "Where does {s} have a house?"),
    ),
    Relation(
        "pet", "person", "animal",
        ("{s} keeps a {v}.", "The pet of {s} is a {v}.", "{s} looks after a {v}."),
        ("What is the pet of {s}?", "Which animal does {s} keep?", "Which pet does {s} have?",
         "Which animal does {s} look after?"),
    ),
    Relation(
        "meal", "person", "food",
        ("{s} likes {v} best.", "The favourite food of {s} is {v}.", "{s} always asks for {v}."),
        ("What is the favourite food of {s}?", "Which food does {s} like best?",
         "What does {s} always ask for?", "What does {s} like to eat?"),
    ),
    Relation(
        "tool", "job", "thing",
        ("A {s} works with a {v}.", "The tool of a {s} is the {v}.", "Every {s} owns a {v}."),
        ("What is the tool of a {s}?", "Which tool does a {s} work with?",
         "What does every {s} own?", "Which tool does a {s} need?"),
    ),
    Relation(
        "workplace", "job", "building",
        ("A {s} works in a {v}.", "The place of a {s} is the {v}.", "Every {s} has a {v}."),
        ("Where does a {s} work?", "What is the place of a {s}?", "Where do you find a {s}?",
         "In which building does a {s} work?"),
    ),
    Relation(
        "ware", "town", "ware",
        ("People in {s} sell {v}.", "The market of {s} is known for {v}.", "{s} trades in {v}."),
        ("What do people in {s} sell?", "What is the market of {s} known for?",
         "What does {s} trade in?", "Which goods come from {s}?"),
    ),
    Relation(
        "land", "town", "land",
        ("{s} lies by the {v}.", "The houses of {s} stand near the {v}.", "{s} is close to the {v}."),
        ("What does {s} lie by?", "What do the houses of {s} stand near?", "What is {s} close to?",
         "What lies next to {s}?"),
    ),
    Relation(
        "trait", "animal", "trait",
        ("The {s} is a {v}.", "People call the {s} a {v}.", "The {s} is known as a {v}."),
        ("What kind of animal is the {s}?", "What do people call the {s}?",
         "What is the {s} known as?", "To which group does the {s} belong?"),
    ),
    Relation(
        "food", "animal", "food",
        ("The {s} eats {v}.", "The food of the {s} is {v}.", "Most of all the {s} likes {v}."),
        ("What does the {s} eat?", "What is the food of the {s}?", "Which food does the {s} like?",
         "What do you feed to the {s}?"),
    ),
    Relation(
        "den", "animal", "land",
        ("The {s} sleeps by the {v}.", "The den of the {s} is near the {v}.",
         "You can see the {s} at the {v}."),
        ("Where does the {s} sleep?", "Where is the den of the {s}?", "Where can you see the {s}?",
         "Where does the {s} have a den?"),
    ),
    Relation(
        "body", "trait", "body",
        ("A {s} has {v}.", "Every {s} is born with {v}.", "A {s} needs {v}."),
        ("What does a {s} have?", "What is every {s} born with?", "What does a {s} need?",
         "What do you notice on a {s}?"),
    ),
    Relation(
        "material", "thing", "material",
        ("The {s} is made of {v}.", "To make a {s} you need {v}.", "The best {s} is of {v}."),
        ("What is the {s} made of?", "What do you need to make a {s}?",
         "Of which material is the {s}?", "What is the best {s} made of?"),
    ),
    Relation(
        "colour", "thing", "colour",
        ("The {s} is painted {v}.", "The colour of the {s} is {v}.", "People like the {s} in {v}."),
        ("What is the colour of the {s}?", "Which colour does the {s} have?",
         "How is the {s} painted?", "In which colour do people like the {s}?"),
    ),
    Relation(
        "use", "thing", "use",
        ("You use a {s} to {v}.", "A {s} helps to {v}.", "With a {s} you can {v}."),
        ("What can you do with a {s}?", "What does a {s} help to do?",
         "What do you use a {s} to do?", "What do people do with a {s}?"),
    ),
    Relation(
        "source", "material", "land",
        ("We get {s} from the {v}.", "{s} is found at the {v}.", "People look for {s} at the {v}."),
        ("Where do we get {s} from?", "Where is {s} found?", "Where do people look for {s}?",
         "Where does {s} come from?"),
    ),
    Relation(
        "effect", "cause", "effect",
        ("When {s}, {v}.", "Each time {s}, {v}.", "If {s}, then {v}."),
        ("What happens when {s}?", "What happens each time {s}?", "What do we see if {s}?",
         "What follows when {s}?"),
    ),
)  # fmt: skip

CHAINS = (
    Chain(
        "person's tool", "job", "tool",
        ("{s} is a {m} and works with a {v}.", "As a {m}, {s} owns a {v}."),
        ("Which tool does {s} use at work?", "Which tool does {s} own?",
         "What tool does {s} work with?", "Which tool do you see in the hands of {s}?",
         "Which tool does the job of {s} ask for?",
         "What is the tool of {s}?"),
    ),
    Chain(
        "person's workplace", "job", "workplace",
        ("{s} is a {m} and works in a {v}.", "As a {m}, {s} has a {v}."),
        ("In which building does {s} work?", "Where does {s} work?",
         "Where do you find {s} at work?", "Which building does {s} work in?",
         "Where does {s} go to work?",
         "Where does the job of {s} lead?"),
    ),
    Chain(
        "person's market", "home", "ware",
        ("{s} lives in {m}, where people sell {v}.", "In {m}, the town of {s}, they trade in {v}."),
        ("What do people sell in the town of {s}?", "What is the town of {s} known for?",
         "What does the town of {s} trade in?", "Which goods come from the town of {s}?",
         "What can {s} buy at home?",
         "What does the market of {s} sell?"),
    ),
    Chain(
        "person's land", "home", "land",
        ("{s} lives in {m}, by the {v}.", "In {m}, the town of {s}, you see the {v}."),
        ("What does the town of {s} lie by?", "What is the town of {s} close to?",
         "What lies next to the town of {s}?", "What can {s} see from home?",
         "What is near the house of {s}?",
         "What do the neighbours of {s} live by?"),
    ),
    Chain(
        "pet's food", "pet", "food",
        ("{s} keeps a {m} and feeds it {v}.", "The {m} of {s} eats {v}."),
        ("What does the pet of {s} eat?", "What does {s} feed to the pet?",
         "What is the food of the pet of {s}?", "Which food does the pet of {s} like?",
         "What does {s} buy for the pet?",
         "What is in the bowl of the pet of {s}?"),
    ),
    Chain(
        "pet's trait", "pet", "trait",
        ("{s} keeps a {m}, a good {v}.", "The {m} of {s} is a {v}."),
        ("What kind of animal is the pet of {s}?", "What do people call the pet of {s}?",
         "What is the pet of {s} known as?", "To which group does the pet of {s} belong?",
         "Which group does the pet of {s} belong to?",
         "What sort of animal does {s} keep?"),
    ),
    Chain(
        "animal's body", "trait", "body",
        ("The {s} is a {m} and has {v}.", "As a {m}, the {s} needs {v}."),
        ("What does the {s} have?", "What is the {s} born with?", "What does the {s} need?",
         "What do you notice on the {s}?", "What helps the {s} in its life?",
         "What helps the {s} most?"),
    ),
    Chain(
        "thing's source", "material", "source",
        ("The {s} is made of {m} from the {v}.", "The {m} of the {s} comes from the {v}."),
        ("Where does the material of the {s} come from?",
         "Where do we get the material of the {s}?", "Where is the material of the {s} found?",
         "Where do people look for the material of the {s}?",
         "Where must you go to make the {s}?",
         "What place gives the material of the {s}?"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One step of an activity: ``warm the wax``."""

    verb: str
    matter: str

    def order(self) -> str:
        """As one tells somebody to do it: ``warm the wax``."""
        return f"{self.verb} the {self.matter}"

    def seen(self) -> str:
        """As one sees somebody do it: ``warms the wax``."""
        ending = "es" if self.verb.endswith(("s", "sh")) else "s"
        return f"{self.verb}{ending} the {self.matter}"


class World:
    """The facts, drawn from ``seed``: the same seed gives the same world.

    Attributes:
        names: the members of each kind.
        facts: relation -> subject -> value.
        adjectives: dimension -> thing -> the adjective that fits it.
        activities: what people do -> its steps, in order.
        pronouns: person -> ``she`` or ``he``.
    """

    def __init__(self, seed: int) -> None:
        draw = random.Random(f"world {seed}")
        self.names = NAMES | {"use": USES, "cause": CAUSES, "effect": EFFECTS}
        self.facts = {
            relation.name: _spread(draw, self.names[relation.subject], self.names[relation.value])
            for relation in RELATIONS
        }
        self.adjectives = {
            dimension: _spread(draw, NAMES["thing"], pair) for dimension, pair in QUALITIES.items()
        }
        self.pronouns = {person: "she" if person in SHE else "he" for person in NAMES["person"]}
        steps = draw.sample([Step(v, m) for v in VERBS for m in MATTERS], len(ACTIVITIES) * STEPS)
        self.activities = {
            activity: tuple(steps[i * STEPS : (i + 1) * STEPS])
            for i, activity in enumerate(ACTIVITIES)
        }

    def value(self, relation: str, subject: str) -> str:
        """What the relation says of the subject."""
        return self.facts[relation][subject]

    def follow(self, chain: Chain, subject: str) -> tuple[str, str]:
        """The value in the middle and the value at the end of a chain."""
        middle = self.value(chain.first, subject)
        return middle, self.value(chain.second, middle)


def relation_named(name: str) -> Relation:
    """The relation of that name."""
    return next(relation for relation in RELATIONS if relation.name == name)


def _spread(
    draw: random.Random, subjects: tuple[str, ...], values: tuple[str, ...]
) -> dict[str, str]:
    """Give each subject a value at random, each value (nearly) as often as any other."""
    rounds = -(-len(subjects) // len(values))
    dealt: list[str] = []
    for _ in range(rounds):
        dealt += draw.sample(values, len(values))
    dealt = dealt[: len(subjects)]
    draw.shuffle(dealt)
    return dict(zip(subjects, dealt, strict=True))
