"""The exercise card, the registry, and what a student calls: `check`, `card` and `hint`.

A chapter's exercises stand in `irlbook/exercises/chapters/chNN.py`, as calls of
`register(Exercise(...))`. That module is loaded when one of its exercises is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Literal

import numpy as np

from irlbook.errors import CheckFailed as CheckFailed
from irlbook.errors import InvalidExerciseError, UnknownExerciseError

Kind = Literal["code", "written", "bug hunt"]


@dataclass(frozen=True)
class Edit:
    """A wrong answer made from the reference: the first occurrence of `old` becomes `new`."""

    old: str
    new: str


@dataclass(frozen=True)
class Criterion:
    """One line of a rubric: what the answer must say, and what that is worth."""

    points: float
    text: str


WrongAnswer = tuple[str | Edit | tuple[Edit, ...] | Callable[..., Any], str]


@dataclass(frozen=True)
class Exercise:
    """One exercise: what it asks, what it is worth, how it is checked.

    Attributes:
        id: chapter and number, "03.2".
        title: a few words.
        function: the name that the student's function must have ("" for a written answer).
        points: what a right answer earns.
        difficulty: 1 (a line) to 5 (an evening).
        minutes: how long a typical student takes.
        importance: 1 (for the curious) to 5 (the rest of the book uses it).
        goal: what the student can do afterwards, one sentence.
        hints: exactly three, from a nudge to nearly the way; none gives the code.
        kind: "code", "written" or "bug hunt" (find and mend a silent bug; checked like code).
        check: `check(answer, rng)` for code: calls `answer` with data and states what must hold,
            through the helpers of `irlbook.exercises.expect`.
        rounds: how many times `check` is called, each with a fresh `rng`.
        reference: the name of the reference in the solution notebook (default: `function`).
        wrong_answers: name of the mistake -> (answer, regex that its failure message must match).
            The answer is source text that defines `function`, an `Edit` (or several) of the
            reference's source, or a Python function.
        rubric: for a written answer: criteria whose points add up to `points`.
    """

    id: str
    title: str
    points: float
    difficulty: int
    minutes: int
    importance: int
    goal: str
    hints: tuple[str, str, str]
    kind: Kind = "code"
    function: str = ""
    check: Callable[[Any, np.random.Generator], None] | None = None
    rounds: int = 3
    reference: str = ""
    wrong_answers: Mapping[str, WrongAnswer] = field(default_factory=dict)
    rubric: tuple[Criterion, ...] = ()

    def __post_init__(self) -> None:
        def rule(holds: bool, text: str) -> None:
            if not holds:
                raise InvalidExerciseError(f"exercise {self.id}: {text}")

        rule(re.fullmatch(r"\d\d\.\d{1,2}", self.id) is not None, "id must look like '03.2'")
        rule(len(self.hints) == 3, "give exactly three hints, from a nudge to nearly the way")
        rule(1 <= self.difficulty <= 5 and 1 <= self.importance <= 5, "difficulty, importance: 1-5")
        rule(self.points > 0 and self.minutes > 0, "points and minutes must be positive")
        rule(self.kind in ("code", "written", "bug hunt"), f"unknown kind {self.kind!r}")
        if self.kind == "written":
            rule(bool(self.rubric), "a written answer needs a rubric")
            total = sum(c.points for c in self.rubric)
            rule(abs(total - self.points) < 1e-9, f"rubric adds up to {total}, not {self.points}")
            rule(self.check is None, "a written answer is read, not checked")
        else:
            rule(self.function.isidentifier(), "name the function that the student writes")
            rule(self.check is not None, "give a check function")
        if not self.reference:
            object.__setattr__(self, "reference", self.function)

    @property
    def chapter(self) -> str:
        """The two digits of the chapter, "03"."""
        return self.id[:2]

    @property
    def default_seed(self) -> int:
        """The seed of the student's own runs; the instructor grades with another."""
        return int(self.id.replace(".", ""))

    def markdown(self) -> str:
        """The card as markdown, with the hints folded."""
        stars = "●" * self.difficulty + "○" * (5 - self.difficulty)
        weight = "●" * self.importance + "○" * (5 - self.importance)
        points = f"{self.points:g} point" + ("" if self.points == 1 else "s")
        kind = {"code": "code", "written": "written answer", "bug hunt": "find the silent bug"}
        lines = [
            f"### {self.id} · {self.title}",
            "",
            f"{kind[self.kind]} · {points} · about {self.minutes} minutes · "
            f"difficulty {stars} · importance {weight}",
            "",
            f"**Goal.** {self.goal}",
        ]
        for number, hint in enumerate(self.hints, start=1):
            lines += [
                "",
                f"<details><summary>Hint {number}</summary>",
                "",
                hint,
                "",
                "</details>",
            ]
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def __str__(self) -> str:
        return (
            f"{self.id} {self.title}: {self.kind}, {self.points:g} points, "
            f"about {self.minutes} minutes. {self.goal}"
        )


_REGISTRY: dict[str, Exercise] = {}


def register(exercise: Exercise) -> Exercise:
    """Add an exercise to the registry (a reloaded module replaces its own).

    Raises:
        InvalidExerciseError: two different exercises share an id or, in a chapter, a function.
    """
    for other in _REGISTRY.values():
        same_function = exercise.function and other.function == exercise.function
        if other.id != exercise.id and other.chapter == exercise.chapter and same_function:
            raise InvalidExerciseError(
                f"exercises {other.id} and {exercise.id} both ask for `{exercise.function}`"
            )
    old = _REGISTRY.get(exercise.id)
    if old is not None and old.title != exercise.title:
        raise InvalidExerciseError(f"two exercises have the id {exercise.id}")
    _REGISTRY[exercise.id] = exercise
    return exercise


def _load_chapter(chapter: str) -> None:
    name = f"irlbook.exercises.chapters.ch{chapter}"
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise


def get(id: str) -> Exercise:
    """The exercise with this id.

    Raises:
        UnknownExerciseError: no exercise has it; the message lists the chapter's.
    """
    id = str(id)
    if re.fullmatch(r"\d\.\d{1,2}", id):  # "3.2", or a number
        id = "0" + id
    if id not in _REGISTRY:
        _load_chapter(id[:2])
    if id not in _REGISTRY:
        known = sorted(e for e in _REGISTRY if e[:2] == id[:2]) or sorted(
            {e.chapter for e in all_exercises()}
        )
        kind = "exercises" if known and "." in known[0] else "chapters with exercises"
        raise UnknownExerciseError(f"no exercise {id!r}; {kind}: {', '.join(known) or 'none'}")
    return _REGISTRY[id]


def all_exercises(chapter: str | None = None) -> list[Exercise]:
    """Every exercise of the book (or of a chapter, "03"), in order of id."""
    from irlbook.exercises import chapters

    for module in iter_modules(chapters.__path__):
        if re.fullmatch(r"ch\d\d", module.name):
            _load_chapter(module.name[2:])
    found = [e for e in _REGISTRY.values() if chapter in (None, e.chapter)]
    return sorted(found, key=lambda e: (e.chapter, int(e.id[3:])))


def run_check(exercise: Exercise, answer: Any, seed: int | None = None) -> None:
    """Call the exercise's check on an `Answer`, `rounds` times, each with its own generator.

    Raises:
        CheckFailed: a property fails. A result that the check itself cannot handle fails too.
    """
    if exercise.check is None:
        raise InvalidExerciseError(f"exercise {exercise.id} is a written answer: it has no check")
    seed = exercise.default_seed if seed is None else int(seed)
    for number in range(exercise.rounds):
        rng = np.random.default_rng([abs(seed), number])
        try:
            with np.errstate(all="ignore"):
                exercise.check(answer, rng)
        except CheckFailed as failure:
            raise failure.of(exercise.id, exercise.title) from None
        except (KeyboardInterrupt, GraderError, InvalidExerciseError):
            raise
        except Exception as error:  # fail closed: the check did not foresee a result of this form
            raise CheckFailed(
                "the result has the form that the task asks for",
                "read the task again: what exactly is returned, and of which shape?",
            ).of(exercise.id, exercise.title) from error


class GraderError(Exception):
    """The machinery failed, not the answer (raised through a check, never swallowed by it)."""


def check(id: str, function: Callable[..., Any] | None = None, seed: int | None = None) -> None:
    """Check a student's function and print `ok: 03.2 title`.

    Args:
        id: the exercise, "03.2".
        function: the student's function (nothing for a written answer).
        seed: other random cases; the default is the same in every run.

    Raises:
        CheckFailed: says which property fails, and gives a hint; never the answer.
    """
    from irlbook.exercises.answers import local_answer

    exercise = get(id)
    if exercise.kind == "written":
        print(f"written: {exercise.id} {exercise.title}; your instructor reads this one")
        return
    failure = None
    try:
        if not callable(function):
            raise CheckFailed(
                "there is a function to check",
                f'pass the function itself: check("{exercise.id}", {exercise.function})',
            ).of(exercise.id, exercise.title)
        run_check(exercise, local_answer(function, exercise.function), seed)
    except CheckFailed as caught:
        failure = caught
    if failure is not None:  # raised from here, so that no traceback shows the check's own lines
        raise failure.with_traceback(None) from None
    print(f"ok: {exercise.id} {exercise.title}")


def card(id: str) -> Exercise:
    """The exercise's card: what it asks for and is worth (a notebook shows it nicely)."""
    return get(id)


def hint(id: str, number: int = 1) -> None:
    """Print one of the three hints: 1 nudges, 3 nearly tells.

    Raises:
        ValueError: there is no such hint.
    """
    exercise = get(id)
    if number not in (1, 2, 3):
        raise ValueError("there are three hints: 1, 2 and 3")
    print(f"hint {number} of 3 for {exercise.id}: {exercise.hints[number - 1]}")
