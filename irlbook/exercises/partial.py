"""Part of the points for part of the properties.

A check states properties one after the other, through the helpers of `irlbook.exercises.expect`.
Graded in part, it does not end at the first that fails: each statement is noted as held or failed,
over all rounds. How many statements there are is read from the check's source, so that the share
does not depend on how far an answer comes: what is not reached is not earned. The property that a
check states first is the task itself: without it nothing else earns anything, for a constant keeps
many a property (what is never negative, what an exchange leaves as it is).
"""

from __future__ import annotations

import ast
import inspect
import math
import sys
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

from irlbook.errors import CheckFailed
from irlbook.exercises import expect
from irlbook.exercises.model import Exercise, run_check

__all__ = ["Properties", "STEP", "points_for", "properties", "statements"]

STEP = 0.25  # part points are rounded down to quarters


@dataclass
class Properties:
    """What held and what failed of an exercise, over all rounds.

    Attributes:
        stated: how many properties the check states.
        core: the property that is stated first holds.
        held: the statements that held wherever they were reached, in words.
        failures: the first failure of each statement that did not; the one that ended the check,
            if any, is the last.
    """

    stated: int
    core: bool
    held: list[str] = field(default_factory=list)
    failures: list[CheckFailed] = field(default_factory=list)


def _functions(module: ModuleType) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


@cache
def statements(exercise_id: str, module: str, function: str) -> frozenset[int]:
    """The lines on which a check, and what it calls of its module, states a property.

    Args:
        exercise_id: so that an exercise registered again is read again.
        module: where the check stands.
        function: its name.
    """
    functions = _functions(sys.modules[module])
    seen, wanted, lines = set(), [function], set()
    while wanted:
        name = wanted.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Name):
                wanted.append(node.id)
            called = getattr(node, "func", None)
            word = getattr(called, "id", getattr(called, "attr", ""))
            if isinstance(node, ast.Call) and word in expect.STATEMENTS:
                lines.add(node.lineno)
    return frozenset(lines)


def properties(exercise: Exercise, answer: Any, seed: int | None = None) -> Properties:
    """Run an exercise's check to its end, and note which of its properties hold.

    Args:
        exercise: one with a check.
        answer: an `Answer`.
        seed: as for `run_check`.
    """
    check = exercise.check
    module, name = getattr(check, "__module__", ""), getattr(check, "__name__", "")
    lines = statements(exercise.id, module, name) if module in sys.modules else frozenset()
    ended: list[CheckFailed] = []
    with expect.noted() as notes:
        try:
            run_check(exercise, answer, seed)
        except CheckFailed as failure:
            ended.append(failure)
    own = {line: note for (file, line), note in notes.items() if line in lines}
    failed = [note.failure for note in notes.values() if note.failure is not None]
    for found in failed:
        found.of(exercise.id, exercise.title)
    return Properties(
        max(len(lines), 1),
        next((note.failure is None for note in notes.values()), False),
        [note.property for note in own.values() if note.failure is None],
        [*failed, *ended],
    )


def points_for(exercise: Exercise, found: Properties) -> float:
    """The points earned: all where nothing failed, else the share of what held, rounded down.

    An answer with a failure never has all points, and one without the core has none.
    """
    if not found.failures:
        return exercise.points
    if not found.core:
        return 0.0
    share = len(found.held) / max(found.stated, len(found.held) + 1)
    return math.floor(exercise.points * share / STEP) * STEP
