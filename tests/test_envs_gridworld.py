"""Gridworlds against a slow, plain reading of their definition, and under the grid's symmetries."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlbook import envs
from irlbook.envs.gridworld import ACTIONS, GridWorldEnv
from irlbook.errors import InvalidEnvironmentError, InvalidMDPError
from irlbook.mdp import TabularMDP

MOVES = {"stay": (0, 0), "up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}


def plain_gridworld(
    height, width, *, walls, goals, slip, stay, step_reward, state_reward, terminal_goals
):
    """The definition, word for word, one cell at a time: dense P (S, A, S) and r (S, A, S)."""
    names = ACTIONS if stay else ACTIONS[1:]
    n = height * width
    chances, rewards = np.zeros((n, len(names), n)), np.zeros((n, len(names), n))
    for row in range(height):
        for column in range(width):
            cell, s = (row, column), row * width + column
            if cell in walls or (terminal_goals and cell in goals):
                continue
            for a, chosen in enumerate(names):
                for carried_out in names:
                    p = 1 - slip if carried_out == chosen else slip / (len(names) - 1)
                    to = (row + MOVES[carried_out][0], column + MOVES[carried_out][1])
                    inside = 0 <= to[0] < height and 0 <= to[1] < width
                    absorbed = not terminal_goals and cell in goals
                    if not inside or to in walls or absorbed:
                        to = cell
                    chances[s, a, to[0] * width + to[1]] += p
                paid = state_reward[cell] + (0.0 if absorbed else step_reward)
                paid += goals[cell] if absorbed else 0.0
                rewards[s, a] = paid
                if terminal_goals:
                    for goal, value in goals.items():
                        rewards[s, a, goal[0] * width + goal[1]] += value
    return chances, rewards


@st.composite
def layouts(draw):
    height, width = draw(st.integers(1, 5)), draw(st.integers(2, 5))
    cells = draw(st.permutations([(i, j) for i in range(height) for j in range(width)]))
    n_goals = draw(st.integers(0, min(2, len(cells) - 1)))
    n_walls = draw(st.integers(0, len(cells) - 1 - n_goals))
    terminal_goals = draw(st.booleans())
    goals = {cell: draw(st.floats(-2, 2)) for cell in cells[:n_goals]}
    state_reward = np.arange(height * width, dtype=float).reshape(height, width)
    if terminal_goals:
        for cell in goals:
            state_reward[cell] = 0.0
    return dict(
        height=height,
        width=width,
        walls=set(cells[n_goals : n_goals + n_walls]),
        goals=goals,
        slip=draw(st.sampled_from([0.0, 0.3, 1.0]) | st.floats(0, 1)),
        stay=draw(st.booleans()),
        step_reward=draw(st.floats(-1, 1)),
        state_reward=state_reward,
        terminal_goals=terminal_goals,
    )


@settings(max_examples=150, deadline=None)
@given(layouts())
def test_sparse_builder_is_the_plain_definition(layout):
    mdp = envs.gridworld(**layout)
    chances, rewards = plain_gridworld(**layout)
    np.testing.assert_allclose(mdp.dense(), chances, atol=1e-12)
    np.testing.assert_allclose(mdp.reward, (chances * rewards).sum(axis=2), atol=1e-12)
    blocked = [r * layout["width"] + c for r, c in layout["walls"]]
    goals = [r * layout["width"] + c for r, c in layout["goals"]]
    assert set(np.flatnonzero(mdp.terminal)) == set(
        blocked + (goals if layout["terminal_goals"] else [])
    )
    free = [s for s in range(mdp.n_states) if s not in blocked + goals]
    np.testing.assert_allclose(mdp.start[free], 1 / len(free))


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_rows_are_sorted_and_free_of_duplicates(layout):
    matrix = envs.gridworld(**layout).transitions
    for row in range(matrix.shape[0]):
        columns = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
        assert (np.diff(columns) > 0).all()
    assert (matrix.data > 0).all()


@settings(max_examples=60, deadline=None)
@given(layouts(), st.booleans())
def test_turning_or_mirroring_the_grid_permutes_the_mdp(layout, mirror):
    height, width = layout["height"], layout["width"]
    numbers = np.arange(height * width).reshape(height, width)
    # `old[i, j]` is the old state that lies at (i, j) after the change
    old = numbers[:, ::-1] if mirror else np.rot90(numbers)
    new_cell = {int(s): (int(i), int(j)) for (i, j), s in np.ndenumerate(old)}

    def moved(cell):
        return new_cell[cell[0] * width + cell[1]]

    changed = {
        **layout,
        "height": old.shape[0],
        "width": old.shape[1],
        "walls": {moved(cell) for cell in layout["walls"]},
        "goals": {moved(cell): value for cell, value in layout["goals"].items()},
        "state_reward": layout["state_reward"].ravel()[old],
    }
    # After a quarter turn to the left, "up" does what "right" did; after mirroring, left is right.
    names = ["stay", "up", "left", "down", "right"] if mirror else None
    names = names or ["stay", "right", "down", "left", "up"]
    kept = ACTIONS if layout["stay"] else ACTIONS[1:]
    actions = [kept.index(name) for name in names if name in kept]
    expected = envs.gridworld(**layout).permute(old.ravel(), actions)
    result = envs.gridworld(**changed)
    np.testing.assert_allclose(result.dense(), expected.dense(), atol=1e-12)
    np.testing.assert_allclose(result.reward, expected.reward, atol=1e-12)
    np.testing.assert_allclose(result.start, expected.start)
    np.testing.assert_array_equal(result.terminal, expected.terminal)


def test_slip_goes_to_each_other_action_alike():
    centre = envs.gridworld(3, 3, goals={}, slip=0.4).dense()[4]
    up, left, here, right, down = 1, 3, 4, 5, 7
    np.testing.assert_allclose(centre[ACTIONS.index("up"), [up, left, here, right, down]],
                               [0.6, 0.1, 0.1, 0.1, 0.1])  # fmt: skip
    without_stay = envs.gridworld(3, 3, goals={}, slip=0.3, stay=False).dense()[4]
    np.testing.assert_allclose(without_stay[0, [up, left, here, right, down]],
                               [0.7, 0.1, 0.0, 0.1, 0.1])  # fmt: skip


def test_default_goal_is_the_corner_and_a_state_reward_replaces_it():
    mdp = envs.gridworld(2, 3)
    assert np.flatnonzero(mdp.terminal).tolist() == [5]
    assert mdp.reward[2, ACTIONS.index("down")] == 1.0 and mdp.reward.sum() == 2.0
    assert mdp.start[5] == 0.0
    assert not envs.gridworld(2, 3, state_reward=np.ones(6)).terminal.any()


def test_walls_as_a_mask_and_as_cells_agree():
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = mask[0, 0] = True
    a = envs.gridworld(3, 4, walls=mask, slip=0.2)
    b = envs.gridworld(3, 4, walls=[(1, 2), (0, 0)], slip=0.2)
    assert abs(a.transitions - b.transitions).max() == 0
    rewarded = envs.gridworld(3, 4, walls=mask, state_reward=np.ones((3, 4)))
    assert rewarded.reward[6].tolist() == [0.0] * 5, "nothing is collected on a wall"


def test_fixed_start():
    mdp = envs.gridworld(3, 3, start=(1, 0))
    assert mdp.start.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    on_goal = envs.gridworld(3, 3, start=(2, 2), terminal_goals=False)
    assert on_goal.start[8] == 1.0


def test_coordinates():
    rows, columns = envs.coordinates(np.arange(6), 3)
    assert rows.tolist() == [0, 0, 0, 1, 1, 1] and columns.tolist() == [0, 1, 2, 0, 1, 2]
    assert envs.coordinates(5, 3) == (1, 2)


def test_large_grid_is_built_in_little_more_than_its_own_memory():
    size = 600
    tracemalloc.start()
    matrix = envs.grid_transitions(size, size, slip=0.3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    own = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    assert matrix.indices.dtype == np.int32 and matrix.indptr.dtype == np.int32
    assert matrix.nnz == 5 * (5 * size**2 - 4 * size)  # five actions; each side loses `size` moves
    assert peak < 1.8 * own
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)


def test_environment_and_builder_have_the_same_defaults():
    env = GridWorldEnv(4, 3)
    built = envs.gridworld(4, 3)
    assert abs(env.mdp().transitions - built.transitions).max() == 0
    np.testing.assert_array_equal(env.mdp().reward, built.reward)
    again = TabularMDP.from_gymnasium(env)
    np.testing.assert_array_equal(again.reward, built.reward)
    assert env.coordinates(7) == (2, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(height=0), "height is 0. Give a whole number of at least 1"),
        (dict(width=2.5), "width is 2.5"),
        (dict(height=True), "height is True"),
        (dict(slip=1.1), "slip is 1.1.*Give a number from 0 to 1"),
        (dict(slip=float("nan")), "not a probability"),
        (dict(slip="a lot"), "not a probability"),
        (dict(walls=[(0, 9)]), r"wall \(0, 9\) lies outside.*columns from 0 to 3"),
        (dict(walls=[3]), r"wall 3 is not a cell. Give \(row, column\)"),
        (dict(walls=[(0.5, 1)]), "is not a cell"),
        (dict(walls=np.zeros((2, 2), dtype=bool)), "walls has shape"),
        (dict(goals={(1, 1): 1.0}, walls=[(1, 1)]), "on a wall.*Move the goal or the wall"),
        (dict(goals={(-1, 0): 1.0}), r"goal \(-1, 0\) lies outside"),
        (dict(goals=[(1, 1)]), "Give a dictionary"),
        (dict(goals={(1, 1): float("inf")}), r"reward of goal \(1, 1\) is inf"),
        (dict(goals={(1, 1): None}), "Give a finite number"),
        (dict(step_reward=float("nan")), "step_reward is nan"),
        (dict(state_reward=np.zeros(5)), r"Give \(3, 4\) or \(12,\)"),
        (dict(state_reward=np.full(12, np.nan)), "holds NaN"),
        (dict(state_reward=np.ones(12), goals={(0, 0): 1.0}), "never collected.*terminal_goals"),
        (dict(start=(2, 3)), "goal that ends the episode"),
        (dict(start=(0, 0), walls=[(0, 0)]), "is a wall"),
        (dict(start=(5, 5)), "outside"),
        (dict(walls=np.ones((3, 4), dtype=bool), goals={}), "No state is left to start from"),
    ],
)
def test_bad_input_names_the_mend(change, words):
    with pytest.raises(InvalidEnvironmentError, match=words):
        envs.gridworld(**{"height": 3, "width": 4, **change})


def test_bad_discount():
    with pytest.raises(InvalidMDPError, match="discount"):
        envs.gridworld(2, 2, discount=1.5)


# ---------------------------------------------------------------- features


def test_macrocells_are_abbeel_and_ngs():
    features = envs.macrocell_features(128, 128, 16)
    assert features.shape == (128 * 128, 64)
    assert (features.sum(axis=1) == 1).all() and (features.sum(axis=0) == 256).all()
    ragged = envs.macrocell_features(3, 5, 2)
    assert ragged.shape == (15, 6) and ragged[14, 5] == 1 and ragged.sum(axis=0)[5] == 1


def test_coordinate_features():
    features = envs.coordinate_features(3, 5)
    assert features[0].tolist() == [0, 0] and features[-1].tolist() == [1, 1]
    assert features[7].tolist() == [0.5, 0.5]
    assert envs.coordinate_features(1, 1).tolist() == [[0, 0]]


def test_radial_features():
    features = envs.radial_features(6, 9, 10, np.random.default_rng(3))
    again = envs.radial_features(6, 9, 10, np.random.default_rng(3))
    np.testing.assert_array_equal(features, again)
    assert features.shape == (54, 10) and features.min() > 0 and features.max() <= 1
    assert np.linalg.matrix_rank(features) == 10
    rng = np.random.default_rng(3)
    centre = rng.random((10, 2))[0] * (6, 9) - 0.5
    squared = (2 - centre[0]) ** 2 + (7 - centre[1]) ** 2
    assert features[2 * 9 + 7, 0] == pytest.approx(np.exp(-squared / (9 * 0.25) ** 2 / 2))
    with pytest.raises(InvalidEnvironmentError, match="radius"):
        envs.radial_features(3, 3, 2, rng, radius=0.0)
    with pytest.raises(InvalidEnvironmentError, match="n_features"):
        envs.radial_features(3, 3, 0, rng)
