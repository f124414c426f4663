"""A sheet of one's own: some of the exercises, with points of one's own.

"6.1-6.4, 6.6=10" keeps four exercises as their cards are, and gives the fifth ten points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from irlbook.errors import InvalidHyperparameterError
from irlbook.exercises.model import Exercise, full_id, get
from irlbook.exercises.submissions import Submission

__all__ = ["choose", "on_the_sheet", "parse_sheet", "weigh"]

_PART = re.compile(
    r"(\d{1,2}L?)\.(\d{1,2})(?: ?[-–] ?(?:\1\.)?(\d{1,2}))?(?: ?= ?(\d{1,3}(?:\.\d{1,2})?))?"
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


def on_the_sheet(exercise: Exercise, points: float) -> Exercise:
    """The exercise with these points; a rubric keeps its proportions."""
    if points == exercise.points:
        return exercise
    scale = points / exercise.points
    rubric = tuple(replace(c, points=c.points * scale) for c in exercise.rubric)
    return replace(exercise, points=points, rubric=rubric)


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
                scaled = result.points * exercise.points / card.points
                s.results[exercise.id] = replace(result, points=scaled)
