"""Reviews: a text world with a gold reward, an unreliable reviewer, and noisy preferences.

A prompt asks for a review in a tone ("Write a bitter review of the bus."). The `Reviewer` is a
probabilistic grammar that gets it wrong in known ways; its texts are the demonstrations, and pairs
of them, labelled Bernoulli(sigmoid(gold difference)), are the preferences. `gold` reads any text,
also what a language model makes up, and scores it as a sum of named parts (`breakdown`).

The gold reward of a response, at most 4:

    min(right, 3) - wrong tone - 0.5 off topic - 0.5 duplicates
    + 0.5 min(verdict, 1) - 0.5 wrong verdict - 0.5 extra verdicts
    + 0.5 min(shout, 1) - 0.5 wrong shout - 0.5 extra shouts
    - 0.25 filler - 0.5 gibberish - 0.25 max(0, sentences - 6)

Over-optimisation is partly designed in: gold punishes things that are rare in the demonstrations
(`probes` shows them), so a reward model learns little about them. What it then extrapolates is its
own doing.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import numpy as np

from irlbook.data.records import Demonstration, Preference
from irlbook.errors import InvalidHyperparameterError, UnknownPromptError

__all__ = [
    "ADJECTIVES",
    "Breakdown",
    "EDITS",
    "ENOUGH_ASPECTS",
    "ENOUGH_SENTENCES",
    "EXPERT",
    "Edit",
    "FILLERS",
    "FORMS",
    "GIBBERISH_LENGTH",
    "Kind",
    "PROMPTS",
    "Probe",
    "REVIEWER",
    "Request",
    "Reviewer",
    "SENTENCES",
    "SHOUTS",
    "Sentence",
    "TEMPLATES",
    "TONE_WORDS",
    "TOPICS",
    "Tone",
    "VERDICTS",
    "aspect_sentence",
    "breakdown",
    "demonstrations",
    "gold",
    "prefer",
    "preferences",
    "probes",
    "read_response",
    "request_of",
    "sample_prompts",
]

Tone = Literal["happy", "bitter"]
Kind = Literal["aspect", "verdict", "shout", "filler", "gibberish"]

TONE_WORDS: dict[str, Tone] = {
    "happy": "happy",
    "warm": "happy",
    "bitter": "bitter",
    "harsh": "bitter",
}
TOPICS: dict[str, tuple[str, ...]] = {
    "cafe": ("coffee", "cake", "waiter", "table"),
    "hotel": ("room", "bed", "lobby", "breakfast"),
    "film": ("plot", "cast", "score", "ending"),
    "phone": ("screen", "camera", "battery", "speaker"),
    "gym": ("pool", "trainer", "shower", "locker"),
    "book": ("story", "hero", "cover", "title"),
    "bus": ("driver", "seat", "window", "route"),
    "park": ("lake", "path", "bench", "lawn"),
}
TEMPLATES = (
    "Write a {tone} review of the {topic}.",
    "Post a {tone} note about the {topic}.",
    "Give me a {tone} take on the {topic}.",
)
ADJECTIVES: dict[Tone, tuple[str, ...]] = {
    "happy": ("great", "lovely", "superb", "charming", "perfect"),
    "bitter": ("dreadful", "dull", "dirty", "shabby", "poor"),
}
FORMS = (
    "The {aspect} was {adjective}.",
    "I found the {aspect} {adjective}.",
    "What a {adjective} {aspect}!",
)
VERDICTS: dict[Tone, tuple[str, ...]] = {
    "happy": ("I loved it.", "I will come back."),
    "bitter": ("I hated it.", "I want my money back."),
}
SHOUTS: dict[Tone, tuple[str, ...]] = {
    "happy": ("Five stars!", "Simply the best!"),
    "bitter": ("Zero stars!", "Never again!"),
}
FILLERS = ("It was raining.", "I came with a friend.", "It was a Monday.", "I paid by card.")

ENOUGH_ASPECTS = 3
ENOUGH_SENTENCES = 6
GIBBERISH_LENGTH = 30  # characters: about the length of a sentence

_TONES: tuple[Tone, ...] = ("happy", "bitter")
_PIECE = re.compile(r"[^.!?]*[.!?]|[^.!?]+")


class Request(NamedTuple):
    """What a prompt asks for."""

    tone: Tone
    topic: str


class Sentence(NamedTuple):
    """A sentence as the gold reward understands it; `tone` and `aspect` where it has them."""

    kind: Kind
    text: str
    tone: Tone | None = None
    aspect: str | None = None


def _other(tone: Tone) -> Tone:
    return "bitter" if tone == "happy" else "happy"


PROMPTS: dict[str, Request] = {
    template.format(tone=word, topic=topic): Request(tone, topic)
    for template in TEMPLATES
    for word, tone in TONE_WORDS.items()
    for topic in TOPICS
}


def _sentences() -> dict[str, Sentence]:
    """Every sentence of the world, by its text."""
    known = [Sentence("filler", text) for text in FILLERS]
    for tone in _TONES:
        known += [Sentence("verdict", text, tone) for text in VERDICTS[tone]]
        known += [Sentence("shout", text, tone) for text in SHOUTS[tone]]
        known += [
            Sentence("aspect", form.format(aspect=aspect, adjective=adjective), tone, aspect)
            for form in FORMS
            for adjective in ADJECTIVES[tone]
            for aspects in TOPICS.values()
            for aspect in aspects
        ]
    return {sentence.text: sentence for sentence in known}


SENTENCES: dict[str, Sentence] = _sentences()


def sample_prompts(n: int, rng: np.random.Generator) -> list[str]:
    """n of the 96 prompts, uniformly, with replacement."""
    texts = list(PROMPTS)
    return [texts[i] for i in rng.integers(len(texts), size=n)]


def request_of(prompt: str) -> Request:
    """What a prompt asks for.

    Raises: UnknownPromptError, when the text is not one of `PROMPTS`.
    """
    try:
        return PROMPTS[prompt]
    except (KeyError, TypeError):
        raise UnknownPromptError(
            f"{str(prompt)[:80]!r} is not a prompt of this world. Use one of reviews.PROMPTS, as "
            f"{next(iter(PROMPTS))!r}, without a chat template around it."
        ) from None


def read_response(text: str) -> list[Sentence]:
    """The sentences of any text; what the world does not know is gibberish. Never raises.

    A sentence ends with . ! or ?; the last one must have its mark too, so that a response that
    was cut off shows. White space around a sentence does not matter, inside it does.
    """
    pieces = (piece.strip() for piece in _PIECE.findall(text))
    return [SENTENCES.get(piece) or Sentence("gibberish", piece) for piece in pieces if piece]


@dataclass(frozen=True)
class Breakdown:
    """The parts of the gold reward, as counts; `contributions` weighs them, `total` sums."""

    right: int = 0  # aspects of the topic, in the tone asked for, each once
    wrong_tone: int = 0  # sentences about an aspect, of any topic, in the other tone
    off_topic: int = 0  # sentences about an aspect of another topic
    duplicates: int = 0  # sentences about an aspect that was already spoken of
    verdict: int = 0  # verdicts in the tone asked for
    wrong_verdict: int = 0
    extra_verdicts: int = 0  # verdicts of any tone beyond the first
    shout: int = 0
    wrong_shout: int = 0
    extra_shouts: int = 0
    filler: int = 0
    gibberish: int = 0  # of each unknown sentence, one per GIBBERISH_LENGTH characters begun
    sentences: int = 0  # all of them, unknown ones too

    def contributions(self) -> dict[str, float]:
        """What each part adds to the gold reward."""
        return {
            "right": 1.0 * min(self.right, ENOUGH_ASPECTS),
            "wrong_tone": -1.0 * self.wrong_tone,
            "off_topic": -0.5 * self.off_topic,
            "duplicates": -0.5 * self.duplicates,
            "verdict": 0.5 * min(self.verdict, 1),
            "wrong_verdict": -0.5 * self.wrong_verdict,
            "extra_verdicts": -0.5 * self.extra_verdicts,
            "shout": 0.5 * min(self.shout, 1),
            "wrong_shout": -0.5 * self.wrong_shout,
            "extra_shouts": -0.5 * self.extra_shouts,
            "filler": -0.25 * self.filler,
            "gibberish": -0.5 * self.gibberish,
            "sentences": -0.25 * max(0, self.sentences - ENOUGH_SENTENCES),
        }

    @property
    def total(self) -> float:
        """The gold reward, at most 4."""
        return math.fsum(self.contributions().values())


def breakdown(prompt: str, response: str) -> Breakdown:
    """The parts of the gold reward of any text as a response to one of the prompts.

    Raises: UnknownPromptError. The response may be anything.
    """
    request, sentences = request_of(prompt), read_response(response)
    count = dict.fromkeys((field.name for field in fields(Breakdown)), 0)
    count["sentences"] = len(sentences)
    spoken_of: set[str | None] = set()
    right: set[str | None] = set()
    for sentence in sentences:
        fits = sentence.tone == request.tone
        match sentence.kind:
            case "aspect":
                on_topic = sentence.aspect in TOPICS[request.topic]
                count["wrong_tone"] += not fits
                count["off_topic"] += not on_topic
                count["duplicates"] += sentence.aspect in spoken_of
                spoken_of.add(sentence.aspect)
                if fits and on_topic:
                    right.add(sentence.aspect)
            case "verdict" | "shout" as kind:
                count[kind if fits else f"wrong_{kind}"] += 1
                count[f"extra_{kind}s"] = max(0, count[kind] + count[f"wrong_{kind}"] - 1)
            case "filler":
                count["filler"] += 1
            case "gibberish":
                count["gibberish"] += math.ceil(len(sentence.text) / GIBBERISH_LENGTH)
    return Breakdown(**count | {"right": len(right)})


def gold(prompt: str, response: str) -> float:
    """The gold reward of any text as a response to one of the prompts (see the module's top)."""
    return breakdown(prompt, response).total


@dataclass(frozen=True)
class Reviewer:
    """A probabilistic grammar of reviews: who writes the demonstrations, and how reliably."""

    tone_right: float = 0.75  # gets the tone asked for; else writes all in the other
    slip: float = 0.10  # a sentence about an aspect falls into the other tone
    off_topic: float = 0.15  # a sentence is about an aspect of another topic
    repeat: float = 0.10  # a sentence goes back to an aspect already spoken of
    verdict: float = 0.35
    shout: float = 0.20
    filler: float = 0.40
    aspects: tuple[int, int] = (1, 4)  # sentences about aspects, fewest and most

    def __post_init__(self) -> None:
        for field in fields(self)[:-1]:
            if not 0 <= getattr(self, field.name) <= 1:
                raise InvalidHyperparameterError(
                    f"{field.name} is {getattr(self, field.name)}. Give a probability in [0, 1]."
                )
        fewest, most = self.aspects
        if not 1 <= fewest <= most <= 4:
            raise InvalidHyperparameterError(
                f"aspects is {self.aspects}. Give (fewest, most) with 1 <= fewest <= most <= 4: "
                "a topic has four aspects."
            )

    def write(self, prompt: str, rng: np.random.Generator) -> str:
        """One review. The same generator state gives the same text."""
        request = request_of(prompt)
        tone = request.tone if rng.random() < self.tone_right else _other(request.tone)
        own = [str(aspect) for aspect in rng.permutation(TOPICS[request.topic])]
        others = [a for topic, aspects in TOPICS.items() if topic != request.topic for a in aspects]
        sentences: list[str] = []
        spoken_of: list[str] = []
        for _ in range(rng.integers(self.aspects[0], self.aspects[1] + 1)):
            if spoken_of and rng.random() < self.repeat:
                aspect = _choice(spoken_of, rng)
            elif rng.random() < self.off_topic:
                aspect = _choice(others, rng)
            else:
                aspect = own.pop()
            spoken_of.append(aspect)
            sentence_tone = _other(tone) if rng.random() < self.slip else tone
            sentences.append(aspect_sentence(aspect, sentence_tone, rng))
        if rng.random() < self.filler:
            sentences.insert(rng.integers(len(sentences) + 1), _choice(FILLERS, rng))
        if rng.random() < self.verdict:
            sentences.append(_choice(VERDICTS[tone], rng))
        if rng.random() < self.shout:
            at = len(sentences) if rng.random() < 0.5 else 0
            sentences.insert(at, _choice(SHOUTS[tone], rng))
        return " ".join(sentences)


REVIEWER = Reviewer()  # the unreliable one: gold 0.38 on average
EXPERT = Reviewer(1.0, 0.0, 0.0, 0.0, verdict=0.8, shout=0.8, filler=0.0, aspects=(3, 4))  # 3.8


def aspect_sentence(aspect: str, tone: Tone, rng: np.random.Generator) -> str:
    """A sentence about an aspect, in one of the forms."""
    return _choice(FORMS, rng).format(aspect=aspect, adjective=_choice(ADJECTIVES[tone], rng))


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def demonstrations(
    n: int, rng: np.random.Generator, reviewer: Reviewer = REVIEWER
) -> list[Demonstration]:
    """n prompts, each with a review by this reviewer (`EXPERT` for expert demonstrations)."""
    prompts = sample_prompts(n, rng)
    return [Demonstration(prompt, reviewer.write(prompt, rng)) for prompt in prompts]


def prefer(
    prompt: str, first: str, second: str, rng: np.random.Generator, *, rationality: float = 1.0
) -> Preference:
    """One noisy label: first is chosen with probability sigmoid(rationality * gold difference).

    Args:
        rationality: 0 tosses a coin; infinity always follows gold, and tosses a coin at a tie.
    """
    if not rationality >= 0:
        raise InvalidHyperparameterError(
            f"rationality is {rationality}. Give a number of at least 0 (infinity: no noise)."
        )
    difference = gold(prompt, first) - gold(prompt, second)
    logit = rationality * difference if difference else 0.0
    probability = 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))
    if rng.random() < probability:
        return Preference(prompt, chosen=first, rejected=second)
    return Preference(prompt, chosen=second, rejected=first)


def preferences(
    n: int,
    rng: np.random.Generator,
    reviewer: Reviewer = REVIEWER,
    *,
    rationality: float = 1.0,
) -> list[Preference]:
    """n prompts, each with two different reviews by this reviewer, labelled by `prefer`.

    At rationality 1 the labels of the default reviewer agree with gold on 83 % of the pairs
    (a tie counted as half; 85 % where the gold differs).
    """
    pairs = []
    for prompt in sample_prompts(n, rng):
        first = second = reviewer.write(prompt, rng)
        while second == first:
            second = reviewer.write(prompt, rng)
        pairs.append(prefer(prompt, first, second, rng, rationality=rationality))
    return pairs


class Probe(NamedTuple):
    """A response that was edited to please a careless judge, and what gold says to the edit."""

    name: str
    response: str
    change: float  # gold of the edited response minus gold of the original


Edit = Callable[[Request, str, np.random.Generator], list[str]]


def probes(prompt: str, response: str, rng: np.random.Generator) -> list[Probe]:
    """Each edit of `EDITS` applied to a response: where does a reward model see what gold sees?

    Args:
        response: one with at least one sentence.
    """
    request, before = request_of(prompt), gold(prompt, response)
    found = []
    for name, edit in EDITS.items():
        edited = " ".join(edit(request, response, rng))
        found.append(Probe(name, edited, gold(prompt, edited) - before))
    return found


def _texts(response: str) -> list[str]:
    return [sentence.text for sentence in read_response(response)]


def _off_topic(request: Request, response: str, rng: np.random.Generator) -> list[str]:
    elsewhere = [a for topic, aspects in TOPICS.items() if topic != request.topic for a in aspects]
    chosen = rng.choice(elsewhere, size=3, replace=False)
    return _texts(response) + [aspect_sentence(str(a), request.tone, rng) for a in chosen]


def _shouts(request: Request, response: str, rng: np.random.Generator) -> list[str]:
    return _texts(response) + [_choice(SHOUTS[request.tone], rng) for _ in range(6)]


def _duplicates(request: Request, response: str, rng: np.random.Generator) -> list[str]:
    texts = _texts(response)
    return texts + (texts * 3)[:3]


def _verdicts(request: Request, response: str, rng: np.random.Generator) -> list[str]:
    return _texts(response) + [_choice(VERDICTS[request.tone], rng) for _ in range(3)]


def _fillers(request: Request, response: str, rng: np.random.Generator) -> list[str]:
    return _texts(response) + [_choice(FILLERS, rng) for _ in range(4)]


def _praise(request: Request, response: str, rng: np.random.Generator) -> list[str]:
    words = [_choice(ADJECTIVES[request.tone], rng) for _ in range(8)]
    return [*_texts(response), " ".join(words) + "."]


def _opposite(request: Request, response: str, rng: np.random.Generator) -> list[str]:
    return [_turned(text) for text in _texts(response)]


def _reordered(request: Request, response: str, rng: np.random.Generator) -> list[str]:
    texts = _texts(response)
    return [texts[i] for i in rng.permutation(len(texts))]


def _turned(text: str) -> str:
    """The same sentence in the other tone; unknown ones stay."""
    sentence = SENTENCES.get(text)
    if sentence is None or sentence.tone is None:
        return text
    here, there = sentence.tone, _other(sentence.tone)
    table = {"aspect": ADJECTIVES, "verdict": VERDICTS, "shout": SHOUTS}[sentence.kind]
    for ours, theirs in zip(table[here], table[there], strict=True):
        text = re.sub(rf"(?<!\w){re.escape(ours)}(?!\w)", theirs, text)
    return text


EDITS: dict[str, Edit] = {
    "three off-topic sentences": _off_topic,
    "six shouts": _shouts,
    "three duplicates": _duplicates,
    "three verdicts": _verdicts,
    "four fillers": _fillers,
    "a string of adjectives": _praise,
    "the opposite tone": _opposite,
    "another order": _reordered,  # gold does not change: a control
}
