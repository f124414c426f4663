"""A sheet of one's own: some of the exercises, with points of one's own.

"6.1-6.4, 6.6=10" keeps four exercises as their cards are, and gives the fifth ten points;
"6.1-6.4=2" gives each of the four two points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from irlbook.errors import InvalidHyperparameterError
from irlbook.exercises.model import Exercise, all_exercises, full_id, get
from irlbook.exercises.submissions import Submission

__all__ = ["chapters_of", "choose", "on_the_sheet", "parse_sheet", "weigh"]

_PART = re.compile(
    r"0?(\d{1,2}L?)\.(\d{1,2})(?: ?[-–] ?(?:0?\1\.)?(\d{1,2}))?"
    r"(?: ?= ?(\d{1,3}(?:\.\d{1,2})?))?"
)


def parse_sheet(text: str) -> dict[str, float]:
    """The points of each exercise of a sheet: those of its card unless others are given.

    Raises:
        InvalidHyperparameterError: it is not written so, or names an exercise twice.
        UnknownExerciseError: there is no such exercise.
    """
    points: dict[str, float] = {}
    for part in text.split(","):
        found = _PART.fullmatch(part.strip().upper())
        first, last = (int(found[2]), int(found[3] or found[2])) if found else (1, 0)
        ids = [full_id(f"{found[1]}.{n}") for n in range(first, last + 1)] if found else []
        own = float(found[4]) if found and found[4] else None
        if not ids or own == 0 or points.keys() & set(ids):
            raise InvalidHyperparameterError(
                f"no sheet: {part.strip()!r} in {text!r}; write each exercise once, like "
                "'6.1-6.4' or '6.1-6.3, 6.6=10'"
            )
        points |= {id: get(id).points if own is None else own for id in ids}
    return points


def chapters_of(sheet: Mapping[str, float], given: Sequence[str] = ()) -> list[str]:
    """The chapters of a sheet, or those of them that are `given` ("3", "2L").

    Raises:
        InvalidHyperparameterError: a given chapter is not on the sheet.
    """
    chapters = sorted({id.partition(".")[0] for id in sheet})
    for chapter in given:
        if (full := full_id(f"{chapter.upper()}.").rstrip(".")) not in chapters:
            own = [e.id.removeprefix("0") for e in all_exercises(full)]
            add = f"add {own[0]}-{own[-1]} to it, or " if own else ""
            raise InvalidHyperparameterError(
                f"--chapter {chapter} is not on the sheet: {add}leave --chapter out"
            )
    return list(given) or chapters


def on_the_sheet(exercise: Exercise, points: float) -> Exercise:
    """The exercise with these points; a rubric keeps its proportions, to a hundredth."""
    if points == exercise.points:
        return exercise
    scale = points / exercise.points
    # sums are rounded, not shares: a third can be typed, and all lines together are all points
    sums = [round(s * scale, 2) for s in accumulate(c.points for c in exercise.rubric)]
    shares = [round(after - before, 2) for before, after in pairwise([0.0, *sums])]
    rubric = [replace(c, points=own) for c, own in zip(exercise.rubric, shares, strict=True)]
    return replace(exercise, points=points, rubric=tuple(rubric))


def choose(submissions: Iterable[Submission], sheet: Mapping[str, float]) -> None:
    """Leave each submission only the exercises of the sheet, with the points of the sheet."""
    for s in submissions:
        s.exercises = [on_the_sheet(e, sheet[e.id]) for e in s.exercises if e.id in sheet]


def weigh(submissions: Iterable[Submission]) -> None:
    """Turn results, which are in the points of the cards, into points of the sheet."""
    for s in submissions:
        for exercise in s.exercises:
            result = s.results.get(exercise.id)
            card = get(exercise.id)
            if result is not None and result.points and exercise.points != card.points:
                # all points of the card are all of the sheet: 3 * 0.7 / 3 is less than 0.7
                scaled = round(result.points * exercise.points / card.points, 6)
                s.results[exercise.id] = replace(result, points=scaled)
