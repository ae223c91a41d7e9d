"""A toy world: people, animals, towns and things, and what is true of them, drawn from a seed.

Everything that the stand-in models read and are asked comes from here, so that documents,
articles and questions agree with one another. The facts are drawn at random (an otter may live on
turnips): a model can know them only from this world's text.
"""

import random
from dataclasses import dataclass

NAMES: dict[str, tuple[str, ...]] = {
    "person": tuple(
        "Ada Ben Cleo Dora Emil Finn Greta Hugo Ines Jonas Kira Leo Mila Nils Olga Paul".split()
    ),
    "job": tuple("baker doctor farmer hunter miller painter sailor tailor".split()),
    "town": tuple("Brunn Dorn Karsk Lund Morby Pell Selby Tarn".split()),
    "animal": tuple(
        "badger cat crow deer dog duck fox frog goat horse lynx mole seal wolf".split()
    ),
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
    "boil milk, break rocks, call children, carry water, catch moths, chase birds, clean "
    "shoes, cook dinner, cut paper, dig holes, dry herbs, fix roofs, guard sheep, light "
    "fires, lock doors, mix paint, open jars, send letters".split(", ")
)
"""What a thing is for, one use each."""

CAUSES = tuple(
    "the bell rings twice, the fog comes in, the moon is full, the snow melts, the wind "
    "turns, the gate stays open, the well runs dry, the rain stops, the bridge falls, the "
    "storm ends, the clock stops, the sun sets".split(", ")
)
EFFECTS = tuple(
    "the children hide, the market closes, the ships wait, the dogs bark, the school opens, "
    "the bread burns, the singers meet, the king sleeps, the roses bloom, the guards march, "
    "the streets flood, the geese leave".split(", ")
)

QUALITIES: dict[str, tuple[str, str]] = {
    "weight": ("heavy", "light"),
    "touch": ("rough", "smooth"),
    "price": ("cheap", "costly"),
    "age": ("new", "worn"),
}
"""Each thing has one of the two adjectives of each dimension."""

ACTIVITIES = tuple(
    "Baking a pie, Building a raft, Carving a mask, Digging a pond, Dyeing a shirt, Folding a "
    "tent, Making a kite, Making jam, Mending a fence, Painting a door, Planting a hedge, "
    "Sewing a sail, Shaping a vase, Tuning a harp, Washing wool, Writing a song".split(", ")
)
VERBS = tuple("warm fold rub press turn lift wash shake tap wrap spread scrape stir drop".split())
MATTERS = tuple("dough bark cord sand dust foil grain mud paste reed salt straw tar wax".split())
STEPS = 5


SHE = frozenset("Ada Cleo Dora Greta Ines Kira Mila Olga".split())


@dataclass(frozen=True)
class Relation:
    """A property that each member of one kind has: ``subject`` names the kind, ``value`` its range.

    In the templates {s} is the subject and {v} the value. Questions end with their subject: so
    small a model learns far sooner to answer when the subject stands at a fixed distance.
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
        ("What is the job of {s}?", "What is the trade of {s}?", "Which job belongs to {s}?",
         "Which work is done by {s}?"),
    ),
    Relation(
        "home", "person", "town",
        ("{s} lives in {v}.", "{s} has a house in {v}.", "The home of {s} is in {v}."),
        ("Where is the home of {s}?", "Which town is home to {s}?",
         "Where is the house of {s}?", "In which town do we find {s}?"),
    ),
    Relation(
        "pet", "person", "animal",
        ("{s} keeps a {v}.", "The pet of {s} is a {v}.", "{s} looks after a {v}."),
        ("What is the pet of {s}?", "Which animal belongs to {s}?",
         "Which animal follows {s}?", "Which pet lives with {s}?"),
    ),
    Relation(
        "meal", "person", "food",
        ("{s} likes {v} best.", "The favourite food of {s} is {v}.", "{s} always asks for {v}."),
        ("What is the favourite food of {s}?", "Which food is liked best by {s}?",
         "Which food pleases {s}?", "What do we cook for {s}?"),
    ),
    Relation(
        "tool", "job", "thing",
        ("A {s} works with a {v}.", "The tool of a {s} is the {v}.", "Every {s} owns a {v}."),
        ("What is the tool of a {s}?", "Which tool belongs to a {s}?",
         "Which tool is used by a {s}?", "Which tool helps a {s}?"),
    ),
    Relation(
        "workplace", "job", "building",
        ("A {s} works in a {v}.", "The place of a {s} is the {v}.", "Every {s} has a {v}."),
        ("What is the workplace of a {s}?", "Where do you find a {s}?",
         "Which building belongs to a {s}?", "Where do you visit a {s}?"),
    ),
    Relation(
        "ware", "town", "ware",
        ("People in {s} sell {v}.", "The market of {s} is known for {v}.", "{s} trades in {v}."),
        ("What is sold in {s}?", "What do people buy in {s}?",
         "What do traders bring from {s}?", "Which goods come from {s}?"),
    ),
    Relation(
        "land", "town", "land",
        ("{s} lies by the {v}.", "The houses of {s} stand near the {v}.",
         "{s} is close to the {v}."),
        ("What lies next to {s}?", "What is near {s}?", "What do you see close to {s}?",
         "What begins behind {s}?"),
    ),
    Relation(
        "trait", "animal", "trait",
        ("The {s} is a {v}.", "People call the {s} a {v}.", "The {s} is known as a {v}."),
        ("What kind of animal is the {s}?", "What do people call the {s}?",
         "What is the group of the {s}?", "Which word fits the {s}?"),
    ),
    Relation(
        "food", "animal", "food",
        ("The {s} eats {v}.", "The food of the {s} is {v}.", "Most of all the {s} likes {v}."),
        ("What is the food of the {s}?", "What do you feed to the {s}?",
         "What is eaten by the {s}?", "Which food is good for the {s}?"),
    ),
    Relation(
        "den", "animal", "land",
        ("The {s} sleeps by the {v}.", "The den of the {s} is near the {v}.",
         "You can see the {s} at the {v}."),
        ("Where is the den of the {s}?", "Where can you see the {s}?",
         "Where do you look for the {s}?", "Which place is home to the {s}?"),
    ),
    Relation(
        "body", "trait", "body",
        ("A {s} has {v}.", "Every {s} is born with {v}.", "A {s} needs {v}."),
        ("What marks a {s}?", "What belongs to every {s}?", "What do you notice on a {s}?",
         "What do you look for on a {s}?"),
    ),
    Relation(
        "material", "thing", "material",
        ("The {s} is made of {v}.", "To make a {s} you need {v}.", "The best {s} is of {v}."),
        ("What is the material of the {s}?", "What do you need to make a {s}?",
         "What goes into the {s}?", "What does a smith need for the {s}?"),
    ),
    Relation(
        "colour", "thing", "colour",
        ("The {s} is painted {v}.", "The colour of the {s} is {v}.", "People like the {s} in {v}."),
        ("What is the colour of the {s}?", "What is the paint of the {s}?",
         "Which colour is seen on the {s}?", "Which paint goes on the {s}?"),
    ),
    Relation(
        "use", "thing", "use",
        ("You use a {s} to {v}.", "A {s} helps to {v}.", "With a {s} you can {v}."),
        ("What can you do with a {s}?", "What is done with a {s}?",
         "What do people do with a {s}?", "What is the use of a {s}?"),
    ),
    Relation(
        "source", "material", "land",
        ("We get {s} from the {v}.", "{s} is found at the {v}.", "People look for {s} at the {v}."),
        ("Where is the origin of {s}?", "Where do people look for {s}?",
         "Where do we find {s}?", "Which place gives us {s}?"),
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
        ("What is the tool of {s}?", "Which tool belongs to {s}?",
         "Which tool is used by {s}?", "Which tool is in the hands of {s}?",
         "Which tool helps {s}?", "Which tool do we borrow from {s}?"),
    ),
    Chain(
        "person's workplace", "job", "workplace",
        ("{s} is a {m} and works in a {v}.", "As a {m}, {s} has a {v}."),
        ("What is the workplace of {s}?", "Which building belongs to {s}?",
         "Where do you visit {s}?", "In which building do you meet {s}?",
         "Where do guests find {s}?", "Which building is full of the work of {s}?"),
    ),
    Chain(
        "person's market", "home", "ware",
        ("{s} lives in {m}, where people sell {v}.", "In {m}, the town of {s}, they trade in {v}."),
        ("What is sold in the town of {s}?", "What do people buy in the town of {s}?",
         "What do traders bring from the town of {s}?",
         "Which goods come from the town of {s}?", "What is on the market near {s}?",
         "Which goods are made around {s}?"),
    ),
    Chain(
        "person's land", "home", "land",
        ("{s} lives in {m}, by the {v}.", "In {m}, the town of {s}, you see the {v}."),
        ("What lies next to the town of {s}?", "What is near the town of {s}?",
         "What do you see close to the house of {s}?", "What begins behind the town of {s}?",
         "What is near the neighbours of {s}?", "Which land surrounds {s}?"),
    ),
    Chain(
        "pet's food", "pet", "food",
        ("{s} keeps a {m} and feeds it {v}.", "The {m} of {s} eats {v}."),
        ("What is the food of the pet of {s}?", "What do you feed to the pet of {s}?",
         "What is eaten by the pet of {s}?", "What is in the bowl of the pet of {s}?",
         "Which food is good for the pet of {s}?", "What is eaten in the yard of {s}?"),
    ),
    Chain(
        "pet's trait", "pet", "trait",
        ("{s} keeps a {m}, a good {v}.", "The {m} of {s} is a {v}."),
        ("What kind of animal is the pet of {s}?", "What do people call the pet of {s}?",
         "What is the group of the pet of {s}?", "Which word fits the pet of {s}?",
         "What kind of animal follows {s}?", "What sort of animal lives with {s}?"),
    ),
    Chain(
        "animal's body", "trait", "body",
        ("The {s} is a {m} and has {v}.", "As a {m}, the {s} needs {v}."),
        ("What marks the {s}?", "What belongs to the {s}?", "What do you notice on the {s}?",
         "What do you look for on the {s}?", "What helps the {s}?",
         "What is useful to the {s}?"),
    ),
    Chain(
        "thing's source", "material", "source",
        ("The {s} is made of {m} from the {v}.", "The {m} of the {s} comes from the {v}."),
        ("Where is the origin of the {s}?",
         "Where do people look for the material of the {s}?",
         "Where do we find the material of the {s}?",
         "Which place gives us the material of the {s}?", "Where does a smith go for the {s}?",
         "Which place lies behind the making of the {s}?"),
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
