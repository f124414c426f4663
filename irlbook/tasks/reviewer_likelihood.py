"""How likely is a text under the reviewer? Exactly, sentence by sentence and token by token.

The reviewer of :mod:`irlbook.tasks.reviews` is a probabilistic grammar, so its policy can be
written down: a plan of the review (which kinds of sentence, in which order) and a tone are drawn
first and stay hidden, then each sentence is drawn. Bayes' rule over plans and tones gives the
probability of the next sentence after any beginning, and sums of those give the next token.

With it the forward KL of a fine-tuned model is a measured number, not a loss minus an unknown
constant, and "a mistake" has a meaning: a token that the reviewer never writes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from irlbook.lm.tokenization import encode_response, end_id
from irlbook.tasks import reviews
from irlbook.tasks.reviews import REVIEWER, Reviewer

__all__ = ["END", "Reading", "TEXTS", "TokenReading", "TokenReviewer", "log_likelihood"]

TEXTS: tuple[str, ...] = tuple(reviews.SENTENCES)
"""Every sentence of the world. Arrays over "what comes next" have one more place: the end."""

END = len(TEXTS)
_KINDS = ("aspect", "verdict", "shout", "filler", "end")
_ASPECTS = tuple(aspect for aspects in reviews.TOPICS.values() for aspect in aspects)


def _column(value: Any) -> np.ndarray:
    return np.array([value(sentence) for sentence in reviews.SENTENCES.values()])


_KIND = _column(lambda s: _KINDS.index(s.kind))
_TONE = _column(lambda s: -1 if s.tone is None else ("happy", "bitter").index(s.tone))
_ASPECT = _column(lambda s: -1 if s.aspect is None else _ASPECTS.index(s.aspect))


@lru_cache(maxsize=16)
def _plans(reviewer: Reviewer) -> tuple[np.ndarray, np.ndarray]:
    """(probability of each plan (P,), its kinds of sentence (P, longest + 1) ending with "end")."""
    fewest, most = reviewer.aspects
    listed: list[tuple[float, list[str]]] = []
    for n in range(fewest, most + 1):
        body = ["aspect"] * n
        fillers = [(1 - reviewer.filler, body)]
        for place in range(n + 1):
            with_one = [*body[:place], "filler", *body[place:]]
            fillers.append((reviewer.filler / (n + 1), with_one))
        for p_filler, kinds in fillers:
            for p_verdict, tail in ((1 - reviewer.verdict, []), (reviewer.verdict, ["verdict"])):
                text, p = [*kinds, *tail], p_filler * p_verdict / (most - fewest + 1)
                listed.append((p * (1 - reviewer.shout), text))
                listed.append((p * reviewer.shout / 2, [*text, "shout"]))
                listed.append((p * reviewer.shout / 2, ["shout", *text]))
    width = 1 + max(len(kinds) for _, kinds in listed)
    order = np.full((len(listed), width), _KINDS.index("end"))
    for row, (_, kinds) in zip(order, listed, strict=True):
        row[: len(kinds)] = [_KINDS.index(kind) for kind in kinds]
    return np.array([p for p, _ in listed]), order


class Reading:
    """A review read sentence by sentence, with what it tells about plan and tone.

    Attributes:
        next: (len(TEXTS) + 1,) probability of each next sentence; the last place is the end.
            None once something impossible was read, or the review is over.
    """

    def __init__(self, prompt: str, reviewer: Reviewer = REVIEWER) -> None:
        self.request, self.reviewer = reviews.request_of(prompt), reviewer
        asked = ("happy", "bitter").index(self.request.tone)
        p_tone = np.where(np.arange(2) == asked, reviewer.tone_right, 1 - reviewer.tone_right)
        p_plan, self._order = _plans(reviewer)
        self._weight = p_tone[:, None] * p_plan  # (2, P), tone happy or bitter, and plan
        self._on_topic = np.isin(_ASPECTS, reviews.TOPICS[self.request.topic])
        self._spoken_of = np.zeros(len(_ASPECTS))
        self._written = 0
        self.next: np.ndarray | None = self._predict()

    def read(self, number: int) -> float:
        """Take in the next sentence, by its place in TEXTS (or END); returns its probability."""
        if self.next is None:
            return 0.0
        probability = float(self.next[number])
        if probability > 0 and number != END:
            kind = _KIND[number]
            self._weight = self._weight * (self._order[:, self._written] == kind)
            self._weight = self._weight * self._emission[:, number, None] / probability
            if kind == 0:
                self._spoken_of[_ASPECT[number]] += 1
            self._written += 1
            self.next = self._predict()
        else:
            self.next = None
        return probability

    def _predict(self) -> np.ndarray:
        kinds = np.zeros((2, len(_KINDS)))  # Pr(tone, kind of the next sentence | text so far)
        for kind in range(len(_KINDS)):
            plans = self._order[:, self._written] == kind
            kinds[:, kind] = self._weight[:, plans].sum(axis=1)
        self._emission = self._sentences()
        return np.append((kinds[:, _KIND] * self._emission).sum(axis=0), kinds[:, -1].sum())

    def _sentences(self) -> np.ndarray:
        """(2, len(TEXTS)) probability of a sentence given the review's tone and its kind."""
        who, said = self.reviewer, self._spoken_of.sum()
        repeat = who.repeat if said else 0.0
        fresh = self._on_topic & (self._spoken_of == 0)
        aspect = repeat * self._spoken_of / max(said, 1)
        aspect = aspect + (1 - repeat) * who.off_topic * ~self._on_topic / (~self._on_topic).sum()
        if fresh.any():
            aspect = aspect + (1 - repeat) * (1 - who.off_topic) * fresh / fresh.sum()
        tones = np.arange(2)[:, None]
        words = len(reviews.FORMS) * len(reviews.ADJECTIVES["happy"])
        spoken = np.where(tones == _TONE, 1 - who.slip, who.slip) * aspect[_ASPECT] / words
        one_of = np.array([0, len(reviews.VERDICTS["happy"]), len(reviews.SHOUTS["happy"])])
        called = (tones == _TONE) / np.maximum(one_of, 1)[np.minimum(_KIND, 2)]
        filler = np.full((2, len(TEXTS)), 1 / len(reviews.FILLERS))
        return np.select([_KIND == 0, _KIND == 3], [spoken, filler], called)


def log_likelihood(prompt: str, response: str, reviewer: Reviewer = REVIEWER) -> float:
    """log pi_E(y|x) of a whole review, in nats; -inf for one that this reviewer never writes."""
    reading, total = Reading(prompt, reviewer), 0.0
    number = {text: i for i, text in enumerate(TEXTS)}
    pieces = [sentence.text for sentence in reviews.read_response(response)]
    if " ".join(pieces) != response:
        return -np.inf
    for place in [number.get(piece, -1) for piece in pieces] + [END]:
        probability = reading.read(place) if place >= 0 else 0.0
        if probability == 0:
            return -np.inf
        total += float(np.log(probability))
    return total


@dataclass(frozen=True)
class TokenReading:
    """The reviewer's next-token probabilities along one response.

    Attributes:
        rows: (k, V) pi_E(token | x, y_<t) for t = 0 .. k - 1: as far as the prefix is possible.
        possible: tokens read before the first that the reviewer never writes there; k - 1 or, if
            there is none, k.
    """

    rows: np.ndarray
    possible: int


class TokenReviewer:
    """The reviewer as a policy over the tokens of a tokenizer."""

    def __init__(self, tokenizer: Any, reviewer: Reviewer = REVIEWER) -> None:
        self.reviewer, self.size = reviewer, len(tokenizer)
        self._tables = []
        for lead in ("", " "):  # the first sentence, and any later one
            coded = [encode_response(tokenizer, lead + text, ended=False) for text in TEXTS]
            coded.append([end_id(tokenizer)])
            table = np.full((len(coded), 1 + max(map(len, coded))), -1)
            for row, ids in zip(table, coded, strict=True):
                row[: len(ids)] = ids
            self._tables.append(table)

    def read(self, prompt: str, response: Sequence[int]) -> TokenReading:
        """Next-token probabilities of the reviewer at each token of a response (ids)."""
        reading = Reading(prompt, self.reviewer)
        rows: list[np.ndarray] = []
        table, step = self._tables[0], 0
        weight = reading.next
        for t, token in enumerate(response):
            if weight is None:  # goes on after its end
                return TokenReading(np.array(rows), t)
            alive = np.flatnonzero(weight)
            here = np.bincount(table[alive, step], weight[alive], self.size)
            rows.append(here / here.sum())
            weight = np.where(table[:, step] == token, weight, 0.0)
            if not weight.any():
                return TokenReading(np.array(rows), t)
            step += 1
            whole = np.flatnonzero((weight > 0) & (table[:, step] < 0))
            if len(whole):  # no sentence is the beginning of another
                reading.read(int(whole[0]))
                table, step, weight = self._tables[1], 0, reading.next
        return TokenReading(np.array(rows), len(response))
