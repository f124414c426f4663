"""Grids with a locked door, against moves made by hand and against a search."""

from collections import deque

import numpy as np
import pytest

from irlbook.envs.doors import key_and_door, random_layout
from irlbook.errors import InvalidEnvironmentError

SMALL = ("SK#.", "o.DG")  # cells 0, 1, 2 | 3, 4, 5, 6, as # is none


def test_moves_of_a_small_world_by_hand():
    world = key_and_door(SMALL, slip=0.0)
    step = world.dense().argmax(axis=2)  # up, right, down, left
    n = 7
    assert step[0].tolist() == [0, n + 1, 3, 0]  # the key is picked up by entering its cell
    assert step[4].tolist() == [n + 1, 4, 4, 3]  # without it the door is a wall
    assert step[n + 4].tolist() == [n + 1, n + 5, n + 4, n + 3]  # with it, it is not
    assert step[n + 0].tolist() == [n, n + 1, n + 3, n]  # it is kept
    assert np.flatnonzero(world.terminal).tolist() == [3, 6, n + 3, n + 6]
    assert world.start.argmax() == 0 and world.start.sum() == 1.0
    assert np.argwhere(world.reward).tolist() == [[2, 2], [5, 1], [n + 2, 2], [n + 5, 1]]


def test_a_slip_carries_out_one_of_the_three_other_actions():
    certain, slippery = (key_and_door(SMALL, slip=slip).dense() for slip in (0.0, 0.3))
    others = certain.sum(axis=1, keepdims=True) - certain
    assert np.abs(slippery - 0.7 * certain - 0.1 * others).max() < 1e-12
    world = key_and_door(SMALL, slip=0.3)
    goal = np.isin(np.arange(14), [6, 13])
    assert np.abs(world.reward - slippery @ goal).max() < 1e-12


def test_without_a_goal_nothing_is_paid():
    world = key_and_door(("SK#.", "o.D."))
    assert not world.reward.any() and world.terminal.sum() == 2


@pytest.mark.parametrize(
    ("layout", "message"),
    [(("S.x",), "signs"), (("S.", "."), "one length"), (("..",), "one start"), (("SS",), "got 2")],
)
def test_what_is_no_layout_is_refused(layout, message):
    with pytest.raises(InvalidEnvironmentError, match=message):
        key_and_door(layout)


def goal_is_found(layout):
    """A search through cells, with the key in hand or not, that shares no code with the world."""
    places = {s: (r, c) for r, row in enumerate(layout) for c, s in enumerate(row) if s in "SKG"}
    seen, queue = set(), deque([(places["S"], False)])
    while queue:
        place, key = queue.popleft()
        key = key or place == places["K"]
        if (place, key) in seen or layout[place[0]][place[1]] == "o":
            continue
        seen.add((place, key))
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            r, c = place[0] + down, place[1] + right
            if 0 <= r < len(layout) and 0 <= c < len(layout[0]):
                sign = layout[r][c]
                if sign != "#" and (sign != "D" or key):
                    queue.append(((r, c), key))
    return any(place == places["G"] for place, _ in seen)


def test_random_layouts_can_be_solved():
    rng = np.random.default_rng(0)
    for pits in (1, 3, 6):
        for _ in range(10):
            layout = random_layout(rng, pits)
            signs = "".join(layout)
            assert [signs.count(s) for s in "SKDGo"] == [1, 1, 1, 1, pits]
            assert all(row[3] in "#D" for row in layout)
            assert goal_is_found(layout)


def test_a_random_layout_is_that_of_its_seed():
    a, b = (random_layout(np.random.default_rng(5)) for _ in range(2))
    assert a == b
