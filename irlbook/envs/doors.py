"""Two rooms and a door: the same rooms with the door elsewhere are a changed world."""

from __future__ import annotations

import numpy as np

from irlbook.envs.base import checked_int
from irlbook.errors import InvalidEnvironmentError
from irlbook.mdp import TabularMDP

__all__ = ["two_rooms"]


def two_rooms(
    height: int,
    width: int,
    *,
    door: int,
    goal: tuple[int, int],
    discount: float = 0.9,
    anywhere: bool = False,
) -> TabularMDP:
    """A grid cut in two by a thin wall under row height // 2 - 1, open only in column `door`.

    Every cell can be reached wherever the door is: moving it changes the moves and nothing else.
    Moves are certain; a move into a wall stays. Actions: stay, up, right, down, left. A step that
    begins in the goal pays 1; nothing ends. Episodes begin in the upper
    room, in any of its cells; `anywhere`: in any cell of both, so that an expert is seen in all.

    Raises:
        InvalidEnvironmentError: the door is outside, or the goal is not in the lower room.
    """
    height, width = checked_int("height", height, 2), checked_int("width", width, 1)
    upper = height // 2
    if not 0 <= door < width:
        raise InvalidEnvironmentError(f"door must be a column 0..{width - 1}; got {door}.")
    if not (upper <= goal[0] < height and 0 <= goal[1] < width):
        raise InvalidEnvironmentError(
            f"goal must lie in the lower room, rows {upper}..{height - 1}; got {goal}."
        )
    n = height * width
    row, column = np.divmod(np.arange(n), width)
    transitions = np.zeros((n, 5, n))
    for a, (down, right) in enumerate(((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))):
        r, c = row + down, column + right
        crossing = (np.minimum(row, r) == upper - 1) & (down != 0) & (column != door)
        open_ = (r >= 0) & (r < height) & (c >= 0) & (c < width) & ~crossing
        transitions[np.arange(n), a, np.where(open_, r * width + c, np.arange(n))] = 1.0
    reward = np.zeros(n)
    reward[goal[0] * width + goal[1]] = 1.0
    return TabularMDP.create(
        transitions, reward, start=(row < upper) / (upper * width), discount=discount
    )
