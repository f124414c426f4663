"""Rooms and doors: a door that may stand elsewhere, and one that is locked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irlbook.envs.base import checked_int, checked_probability
from irlbook.errors import InvalidEnvironmentError
from irlbook.mdp import TabularMDP

__all__ = ["key_and_door", "random_layout", "two_rooms"]


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


def key_and_door(layout: Sequence[str], *, slip: float = 0.1, discount: float = 0.95) -> TabularMDP:
    """A grid with a locked door, whose key lies elsewhere: a reward that takes two errands.

    The signs are ``#`` wall, ``.`` floor, ``S`` start, ``K`` key, ``D`` door, ``G`` goal and ``o``
    pit. The key is picked up by entering its cell, and it is kept. Without it the door is a
    wall. Goal and pits end the episode; entering the goal pays 1, and nothing else pays.

    With N cells that are no walls, state n is the n-th of them, row by row, without the key, and
    state N + n is the same cell with it. Actions: up, right, down, left. With probability ``slip``
    one of the three other actions is carried out; a move into a wall stays.

    Args:
        layout: rows of signs, all of one length, with one start. A goal may be missing: nothing
            is paid then.
        slip: chance in [0, 1] that another action is carried out.

    Raises:
        InvalidEnvironmentError: another sign, rows of different lengths, or not one start.
    """
    slip = checked_probability("slip", slip)
    cells = _read_layout(layout)
    places = list(cells)
    number = {place: n for n, place in enumerate(places)}
    ends = np.array([cells[place] in "Go" for place in places] * 2)
    goal = np.array([cells[place] == "G" for place in places] * 2)
    count = len(places)
    intended = np.zeros((2 * count, 4), dtype=int)
    for held in (0, 1):
        for (row, column), n in number.items():
            for action, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
                to = row + down, column + right
                if to not in cells or (cells[to] == "D" and not held):
                    to = row, column
                with_key = held or cells[to] == "K"
                intended[n + held * count, action] = number[to] + with_key * count
    transitions = np.zeros((2 * count, 4, 2 * count))
    for action in range(4):
        for done in range(4):
            chance = 1 - slip if done == action else slip / 3
            np.add.at(transitions[:, action], (np.arange(2 * count), intended[:, done]), chance)
    transitions[ends] = 0.0
    start = np.array([float(held == 0 and cells[p] == "S") for held in (0, 1) for p in places])
    return TabularMDP.create(
        transitions, transitions @ goal, start=start, discount=discount, terminal=ends
    )


def random_layout(rng: np.random.Generator, pits: int = 3) -> tuple[str, ...]:
    """A layout of four rows and seven columns for `key_and_door`, in which the goal can be reached.

    A wall with a door parts two rooms. The start and the key lie in the left one, the goal in the
    right one, at least two columns behind the wall, and the pits anywhere else.
    """
    while True:
        grid = np.full((4, 7), ".")
        grid[:, 3] = "#"
        grid[rng.integers(4), 3] = "D"
        left = rng.permutation([(r, c) for r in range(4) for c in range(3)])
        grid[tuple(left[0])], grid[tuple(left[1])] = "S", "K"
        grid[rng.integers(4), rng.integers(5, 7)] = "G"
        floor = rng.permutation(np.argwhere(grid == "."))
        for place in floor[:pits]:
            grid[tuple(place)] = "o"
        layout = tuple("".join(row) for row in grid)
        mdp = key_and_door(layout, slip=0.0)
        moves = mdp.dense().mean(axis=1) + np.eye(mdp.n_states)
        reached = mdp.start @ np.linalg.matrix_power(moves, mdp.n_states) > 0
        if mdp.reward[reached].any():
            return layout


def _read_layout(layout: Sequence[str]) -> dict[tuple[int, int], str]:
    """The sign of each cell that is no wall, row by row."""
    signs = {sign for row in layout for sign in row}
    if not signs <= set("#.SKDGo") or len({len(row) for row in layout}) != 1:
        raise InvalidEnvironmentError(
            f"a layout is rows of one length of the signs #.SKDGo; got {list(layout)}."
        )
    cells = {
        (row, column): sign
        for row, line in enumerate(layout)
        for column, sign in enumerate(line)
        if sign != "#"
    }
    starts = list(cells.values()).count("S")
    if starts != 1:
        raise InvalidEnvironmentError(f"a layout has one start S; got {starts}.")
    return cells
