"""Exercises: cards, checks and the wrong answers that test them.

A student calls `check("03.2", my_function)`, `card("03.2")` and `hint("03.2", 1)`.
"""

from irlbook.errors import CheckFailed
from irlbook.exercises.model import (
    Criterion,
    Edit,
    Exercise,
    all_exercises,
    card,
    check,
    get,
    hint,
    register,
)

__all__ = [
    "CheckFailed",
    "Criterion",
    "Edit",
    "Exercise",
    "all_exercises",
    "card",
    "check",
    "get",
    "hint",
    "register",
]
