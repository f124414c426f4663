"""Recitals: texts of any length in which a mistake shows, stays, and can be put right.

A prompt names one of several pieces and a first note. In each piece every note has two possible
successors, and the performer takes one of them at random. A *mistake* is any other token. After a
mistake the performer says "sorry" and goes on from the last right note. The performer never makes
a mistake, so its own recitals never show what to do after one.

    piece 3, from c   :   f a d ...         right
                          f a b sorry d     one mistake, put right at once

Read as a Markov chain this is the chain of chapter 10: on track or lost, and a right token leads
back. Token numbers: notes first, then "sorry", then the pieces; the last one, `stop`, is never
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from irlbook.errors import InvalidHyperparameterError, ResponseError

__all__ = ["Heard", "Recital"]


@dataclass(frozen=True)
class Heard:
    """What was heard of a recital, token by token.

    Attributes:
        rows: (T, V) the performer's distribution of each next token.
        states: (T,) the state before each token.
        mistake: (T,) whether the token was one. lost: (T,) whether the token before it was one.
    """

    rows: np.ndarray
    states: np.ndarray
    mistake: np.ndarray
    lost: np.ndarray


@dataclass(frozen=True)
class Recital:
    """The pieces, drawn from a seed.

    Attributes:
        notes, pieces: how many. seed: of the successors.
    """

    notes: int = 10
    pieces: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.notes < 3 or self.pieces < 1:
            raise InvalidHyperparameterError(
                f"{self.notes} notes and {self.pieces} pieces; a note needs two successors beside "
                "itself, and there must be one piece."
            )

    @property
    def sorry(self) -> int:
        """The token that puts a mistake right."""
        return self.notes

    @property
    def vocabulary(self) -> int:
        """V: notes, "sorry", pieces, stop."""
        return self.notes + self.pieces + 2

    @property
    def stop(self) -> int:
        """A token that nobody writes."""
        return self.vocabulary - 1

    @cached_property
    def successors(self) -> np.ndarray:
        """(pieces, notes, 2) the two notes that may follow."""
        rng = np.random.default_rng([self.seed, 118])
        found = np.empty((self.pieces, self.notes, 2), dtype=int)
        for piece in range(self.pieces):
            for note in range(self.notes):
                others = np.delete(np.arange(self.notes), note)
                found[piece, note] = rng.choice(others, 2, replace=False)
        return found

    def prompts(self, n: int, rng: np.random.Generator) -> list[list[int]]:
        """n prompts (piece, first note) as token ids."""
        pieces, first = rng.integers(self.pieces, size=n), rng.integers(self.notes, size=n)
        both = zip(pieces.tolist(), first.tolist(), strict=True)
        return [[self.notes + 1 + piece, note] for piece, note in both]

    def perform(self, prompt: Sequence[int], length: int, rng: np.random.Generator) -> list[int]:
        """A recital of `length` notes without a mistake."""
        piece, note = self._asked(prompt)
        text = []
        for turn in rng.integers(2, size=length):
            note = int(self.successors[piece, note, turn])
            text.append(note)
        return text

    @property
    def n_states(self) -> int:
        """What a student with a table sees: piece and note, or the piece in which it is lost."""
        return self.pieces * (self.notes + 1)

    def state(self, piece: int, note: int, lost: bool) -> int:
        """The number of a state."""
        return self.pieces * self.notes + piece if lost else piece * self.notes + note

    def right(self, piece: int, note: int, lost: bool) -> list[int]:
        """The tokens that the performer may say."""
        return [self.sorry] if lost else self.successors[piece, note].tolist()

    def hear(self, prompt: Sequence[int], text: Sequence[int]) -> Heard:
        """What the performer would have said at each place, and where the text errs.

        Raises:
            ResponseError: the prompt is no prompt, or a token is unknown.
        """
        piece, note = self._asked(prompt)
        if any(not 0 <= token < self.vocabulary for token in text):
            raise ResponseError(f"a token is not among the {self.vocabulary} of this world.")
        rows = np.zeros((len(text), self.vocabulary))
        states, mistake, lost = np.zeros(len(text), int), *np.zeros((2, len(text)), dtype=bool)
        astray = False
        for t, token in enumerate(text):
            right = self.right(piece, note, astray)
            rows[t, right] = 1 / len(right)
            states[t] = self.state(piece, note, astray)
            lost[t], mistake[t] = astray, token not in right
            if not astray and not mistake[t]:
                note = int(token)
            astray = bool(mistake[t])
        return Heard(rows, states, mistake, lost)

    def write(
        self, table: np.ndarray, prompt: Sequence[int], length: int, rng: np.random.Generator
    ) -> list[int]:
        """A text of `length` tokens by a student with a row of probabilities for each state."""
        piece, note = self._asked(prompt)
        totals, astray, text = table.cumsum(axis=1), False, []
        for uniform in rng.random(length):
            row = totals[self.state(piece, note, astray)]
            token = int(np.searchsorted(row, uniform * row[-1], side="right"))
            text.append(token)
            wrong = token not in self.right(piece, note, astray)
            if not astray and not wrong:
                note = token
            astray = wrong
        return text

    def _asked(self, prompt: Sequence[int]) -> tuple[int, int]:
        if len(prompt) != 2 or not (
            0 <= prompt[0] - self.notes - 1 < self.pieces and 0 <= prompt[1] < self.notes
        ):
            raise ResponseError(f"{list(prompt)} is no prompt; expected [piece, first note].")
        return int(prompt[0]) - self.notes - 1, int(prompt[1])
