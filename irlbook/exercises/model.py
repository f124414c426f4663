"""The exercise card, the registry, and what a student calls: `check`, `card` and `hint`.

A chapter's exercises stand in `irlbook/exercises/chapters/chNN.py`, those of its lab in
`labNN.py`, as calls of `register(Exercise(...))`. That module is loaded when one of its exercises
is asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np

from irlbook.errors import (
    CheckFailed,
    InvalidExerciseError,
    UnknownExerciseError,
    UnknownHintError,
)
from irlbook.exercises.answers import local_answer

__all__ = [
    "Criterion",
    "Edit",
    "Exercise",
    "GraderError",
    "ID",
    "Kind",
    "WrongAnswer",
    "all_exercises",
    "card",
    "chapter_in",
    "check",
    "full_id",
    "get",
    "hint",
    "in_order",
    "register",
    "run_check",
]

Kind = Literal["code", "written", "bug hunt", "figure"]
ID = r"\d\dL?\.\d{1,2}"  # "03.2", and "03L.2" in the lab of chapter 3


def chapter_in(name: str) -> str:
    """The chapter that a file is named after, "03", or its lab, "03L"; "" where it names none."""
    match = re.match(r"(\d\d)_(lab_)?", name)
    return match[1] + "L" * bool(match[2]) if match else ""


def in_order(id: str) -> tuple[str, int]:
    """What ids are sorted by: "03.10" comes after "03.9", and "03L.1" after both."""
    chapter, _, number = id.partition(".")
    return chapter, int(number)


def full_id(text: str) -> str:
    """An exercise's id as it is written, from a short one: "3.2" is "03.2", "3L.2" is "03L.2"."""
    return f"0{text}" if re.match(r"\dL?\.", text) else text


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
        id: chapter and number, "03.2"; in the lab of the chapter "03L.2".
        title: a few words.
        function: the name that the student's function must have ("" for a written answer).
        points: what a right answer earns.
        difficulty: 1 (a line) to 5 (an evening).
        minutes: how long a typical student takes.
        importance: 1 (for the curious) to 5 (the rest of the book uses it).
        goal: what the student can do afterwards, one sentence.
        hints: exactly three, from a nudge to nearly the way; none gives the code.
        kind: "code", "written", "bug hunt" (find and mend a silent bug; checked like code) or
            "figure" (the function returns a Matplotlib figure; the check receives a
            `figures.Picture` of what it shows).
        check: `check(answer, rng)` for code: calls `answer` with data and states what must hold,
            through the helpers of `irlbook.exercises.expect`.
        rounds: how many times `check` is called, each with a fresh `rng`.
        reference: the name of the reference in the solution notebook (default: `function`).
        wrong_answers: name of the mistake -> (answer, regex that its failure message must match).
            The answer is source text that defines `function`, an `Edit` (or several) of the
            reference's source, or a Python function. Those of the book stand in
            `irlbook/exercises/wrong_answers/chNN.py` and are filled in when a chapter is loaded.
        rubric: for a written answer: criteria whose points add up to `points`.
        seconds: what the answer may take in the grader, for one that trains something (0: as long
            as the grader allows every exercise). Such an exercise is tried with one seed only.
        without: modules that would do the work; an answer may not use them.
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
    seconds: float = 0.0
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        def rule(holds: bool, text: str) -> None:
            if not holds:
                raise InvalidExerciseError(f"exercise {self.id}: {text}")

        rule(re.fullmatch(ID, self.id) is not None, "id must look like '03.2' or '03L.2'")
        rule(len(self.hints) == 3, "give exactly three hints, from a nudge to nearly the way")
        rule(1 <= self.difficulty <= 5 and 1 <= self.importance <= 5, "difficulty, importance: 1-5")
        rule(self.points > 0 and self.minutes > 0, "points and minutes must be positive")
        rule(self.kind in get_args(Kind), f"unknown kind {self.kind!r}")
        rule(self.seconds >= 0, "seconds must not be negative")
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
        """The two digits of the chapter, "03", or of its lab, "03L"."""
        return self.id.partition(".")[0]

    @property
    def default_seed(self) -> int:
        """The seed of the student's own runs; the instructor grades with another."""
        return int(self.id.replace("L", "").replace(".", ""))

    def markdown(self) -> str:
        """The card as markdown, with the hints folded."""
        stars = "●" * self.difficulty + "○" * (5 - self.difficulty)
        weight = "●" * self.importance + "○" * (5 - self.importance)
        points = f"{self.points:g} point" + ("" if self.points == 1 else "s")
        kind = {"written": "written answer", "bug hunt": "find the silent bug", "figure": "picture"}
        budget = f" · at most {self.seconds:g} s of one core" if self.seconds else ""
        lines = [
            f"### {self.id} · {self.title}",
            "",
            f"{kind.get(self.kind, self.kind)} · {points} · about {self.minutes} minutes{budget} · "
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
    name = f"lab{chapter[:-1]}" if chapter.endswith("L") else f"ch{chapter}"
    if _import(f"irlbook.exercises.chapters.{name}") is None:
        return
    # The wheel, which students have, goes without them.
    planted = _import(f"irlbook.exercises.wrong_answers.{name}")
    for id, wrong in getattr(planted, "WRONG_ANSWERS", {}).items():
        # a test of the book sees to it that each is there; most often this was done before
        if id in _REGISTRY and _REGISTRY[id].wrong_answers is not wrong:
            _REGISTRY[id] = replace(_REGISTRY[id], wrong_answers=wrong)


def _import(name: str) -> ModuleType | None:
    """A module, or None where there is none of that name."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        return None


def get(id: str) -> Exercise:
    """The exercise with this id.

    Raises:
        UnknownExerciseError: no exercise has it; the message lists the chapter's.
    """
    id = full_id(str(id))  # "3.2", or a number
    chapter = id.partition(".")[0]
    if id not in _REGISTRY:
        _load_chapter(chapter)
    if id not in _REGISTRY:
        known = sorted(e for e in _REGISTRY if _REGISTRY[e].chapter == chapter) or sorted(
            {e.chapter for e in all_exercises()}
        )
        kind = "exercises" if known and "." in known[0] else "chapters with exercises"
        raise UnknownExerciseError(f"no exercise {id!r}; {kind}: {', '.join(known) or 'none'}")
    return _REGISTRY[id]


def all_exercises(chapter: str | None = None) -> list[Exercise]:
    """Every exercise of the book (or of a chapter, "03", or a lab, "03L"), in order of id.

    Of a chapter that chapter alone is loaded: all of them take a second, which each process that
    grades would pay.
    """
    from irlbook.exercises import chapters

    if chapter is not None:
        _load_chapter(chapter)
    else:
        for module in iter_modules(chapters.__path__):
            if match := re.fullmatch(r"(ch|lab)(\d\d)", module.name):
                _load_chapter(match[2] + "L" * (match[1] == "lab"))
    found = [e for e in _REGISTRY.values() if chapter in (None, e.chapter)]
    return sorted(found, key=lambda e: in_order(e.id))


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
    exercise = get(id)
    if exercise.kind == "written":
        print(f"written: {exercise.id} {exercise.title}; your instructor reads this one")
        return
    failure = None
    begin = time.perf_counter()
    try:
        if not callable(function):
            raise CheckFailed(
                "there is a function to check",
                f'pass the function itself: check("{exercise.id}", {exercise.function})',
            ).of(exercise.id, exercise.title)
        run_check(
            exercise, local_answer(function, exercise.function, without=exercise.without), seed
        )
    except CheckFailed as caught:
        failure = caught
    took = time.perf_counter() - begin
    if failure is not None:  # raised from here, so that no traceback shows the check's own lines
        raise failure.with_traceback(None) from None
    print(f"ok: {exercise.id} {exercise.title}")
    if exercise.seconds and took > exercise.seconds:
        print(f"but it took {took:.0f} s, and the grader stops it after {exercise.seconds:g} s")


def card(id: str) -> Exercise:
    """The exercise's card: what it asks for and is worth (a notebook shows it nicely)."""
    return get(id)


def hint(id: str, number: int = 1) -> None:
    """Print one of the three hints: 1 nudges, 3 nearly tells.

    Raises:
        UnknownHintError: there is no such hint.
    """
    exercise = get(id)
    if number not in (1, 2, 3):
        raise UnknownHintError(f"there are three hints, 1, 2 and 3, and no {number!r}")
    print(f"hint {number} of 3 for {exercise.id}: {exercise.hints[number - 1]}")
