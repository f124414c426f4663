"""Objectworld, binaryworld, garnet, chains and bit-flip against their papers' definitions."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from irlbook import envs, planning
from irlbook.envs.binaryworld import binaryworld_reward, neighbourhood_features
from irlbook.envs.objectworld import objectworld_reward
from irlbook.errors import InvalidEnvironmentError


def rng(seed=0):
    return np.random.default_rng(seed)


def same(a, b):
    return (
        abs(a.transitions - b.transitions).max() == 0
        and np.array_equal(a.reward, b.reward)
        and np.array_equal(a.start, b.start)
        and np.array_equal(a.terminal, b.terminal)
    )


def unexplained(features, reward):
    """Share of the reward's variance that the best linear reward leaves."""
    design = np.column_stack([features, np.ones(len(features))])
    fit = design @ np.linalg.lstsq(design, reward, rcond=None)[0]
    return ((reward - fit) ** 2).mean() / reward.var()


# ---------------------------------------------------------------- objectworld


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(2, 3), st.integers(0, 10**6))
def test_objectworld_is_the_papers_rule(size, n_colours, seed):
    n_objects = 1 + seed % (size * size)
    world = envs.objectworld(size, n_objects, n_colours, rng=rng(seed), continuous=True)
    discrete = envs.objectworld(size, n_objects, n_colours, rng=rng(seed))
    assert len(set(world.positions.tolist())) == n_objects
    for s in range(size * size):
        here = np.array(divmod(s, size))
        nearest = np.full((2, n_colours), np.sqrt(2) * size)
        for place, outer, inner in zip(world.positions, world.outer, world.inner, strict=True):
            distance = np.linalg.norm(here - divmod(place, size))
            nearest[0, outer] = min(nearest[0, outer], distance)
            nearest[1, inner] = min(nearest[1, inner], distance)
        if nearest[0, 0] < 3:
            expected = 1.0 if nearest[0, 1] < 2 else -1.0
        else:
            expected = 0.0
        assert world.mdp.reward[s].tolist() == [expected] * 5
        np.testing.assert_allclose(world.features[s], nearest.ravel())
        flags = [float(x < d) for d in range(1, size + 1) for x in nearest.ravel()]
        assert discrete.features[s].tolist() == flags
    assert same(world.mdp, discrete.mdp)


def test_objectworld_reward_at_the_borders_of_the_rule():
    to_0, to_1 = np.array([2.9, 2.9, 3.0, 3.0, 0.0]), np.array([1.9, 2.0, 1.9, 9.0, 5.0])
    assert objectworld_reward(to_0, to_1).tolist() == [1, -1, 0, 0, -1]


def test_objectworld_reward_is_a_function_of_its_features_but_not_a_linear_one():
    size = 16
    world = envs.objectworld(size, 16, rng=rng(1))
    reward = world.mdp.reward[:, 0]
    assert set(reward) == {-1.0, 0.0, 1.0}
    near_0, near_1 = world.features[:, 2 * 4 + 0], world.features[:, 1 * 4 + 1]  # d = 3, d = 2
    np.testing.assert_array_equal(reward, near_0 * (2 * near_1 - 1))
    assert unexplained(world.features[:, [8, 5]], reward) > 0.02
    both = np.column_stack([world.features, near_0 * near_1])
    assert unexplained(both, reward) < 1e-12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(size=0, n_objects=1), "size"),
        (dict(size=2, n_objects=5), "5 objects do not fit on 4 cells.*fewer objects"),
        (dict(size=3, n_objects=0), "n_objects"),
        (dict(size=3, n_objects=2, n_colours=1), "outer colours 0 and 1"),
        (dict(size=3, n_objects=2, slip=-0.1), "slip"),
    ],
)
def test_objectworld_bad_input(arguments, words):
    with pytest.raises(InvalidEnvironmentError, match=words):
        envs.objectworld(**arguments, rng=rng())


# ---------------------------------------------------------------- binaryworld


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_binaryworld_is_the_papers_rule(size, seed):
    world = envs.binaryworld(size, rng=rng(seed))
    for s in range(size * size):
        row, column = divmod(s, size)
        square = []
        for i, j in product((-1, 0, 1), repeat=2):
            inside = 0 <= row + i < size and 0 <= column + j < size
            square.append(float(inside and world.blue[row + i, column + j]))
        assert world.features[s].tolist() == square
        expected = {4: 1.0, 5: -1.0}.get(int(sum(square)), 0.0)
        assert world.mdp.reward[s].tolist() == [expected] * 5


def test_binaryworld_turns_with_its_colours():
    blue = envs.binaryworld(6, rng=rng(4)).blue
    reward = binaryworld_reward(neighbourhood_features(blue)).reshape(6, 6)
    turned = binaryworld_reward(neighbourhood_features(np.rot90(blue))).reshape(6, 6)
    np.testing.assert_array_equal(turned, np.rot90(reward))


def test_binaryworld_reward_is_far_from_linear():
    shares = [
        unexplained(w.features, w.mdp.reward[:, 0])
        for w in (envs.binaryworld(32, rng=rng(seed)) for seed in range(5))
    ]
    assert min(shares) > 0.8, "a linear reward explains next to nothing"


def test_binaryworld_bad_input():
    with pytest.raises(InvalidEnvironmentError, match="blue_probability is 2"):
        envs.binaryworld(3, rng=rng(), blue_probability=2)
    assert envs.binaryworld(3, rng=rng(), blue_probability=1).blue.all()


# ---------------------------------------------------------------- garnet


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 10**6), st.data())
def test_garnet_has_the_branching_asked_for(n_states, n_actions, seed, data):
    branching = data.draw(st.integers(1, n_states))
    mdp = envs.garnet(n_states, n_actions, branching, rng(seed))
    assert (np.count_nonzero(mdp.dense(), axis=2) == branching).all()
    np.testing.assert_allclose(mdp.dense().sum(axis=2), 1.0)
    assert not mdp.terminal.any()
    assert same(mdp, envs.garnet(n_states, n_actions, branching, rng(seed)))
    assert n_states * branching == 1 or not same(
        mdp, envs.garnet(n_states, n_actions, branching, rng(seed + 1))
    )


def test_garnet_sets_and_probabilities_are_uniform():
    mdp = envs.garnet(5, 4000, 2, rng(1))
    rows = mdp.transitions.indices.reshape(-1, 2)
    _, counts = np.unique(rows[:, 0] * 5 + rows[:, 1], return_counts=True)
    assert len(counts) == 10 and stats.chisquare(counts).pvalue > 1e-3
    # with two successors the first probability is one uniform cut of [0, 1]
    assert stats.kstest(mdp.transitions.data[::2], "uniform").pvalue > 1e-3
    assert stats.kstest(mdp.reward.ravel(), "norm").pvalue > 1e-3


def test_garnet_large_is_sparse():
    mdp = envs.garnet(20_000, 4, 5, rng())
    assert mdp.transitions.nnz == 400_000


def test_garnet_bad_input():
    with pytest.raises(InvalidEnvironmentError, match="branching is 6, but.*at most n_states"):
        envs.garnet(5, 2, 6, rng())
    with pytest.raises(InvalidEnvironmentError, match="n_actions"):
        envs.garnet(5, 0, 2, rng())


# ---------------------------------------------------------------- chains


@pytest.mark.parametrize("n", [2, 3, 10])
def test_chain_values_in_closed_form(n):
    plan = planning.value_iteration(envs.chain(n, reward=3.0, discount=0.9))
    expected = [3.0 * 0.9 ** (n - 2 - s) for s in range(n - 1)] + [0.0]
    np.testing.assert_allclose(plan.values, expected, atol=1e-6)
    going_on = planning.value_iteration(envs.chain(n, terminal=False, discount=0.9))
    np.testing.assert_allclose(
        going_on.values, [0.9 ** (n - 1 - s) / 0.1 for s in range(n)], atol=1e-6
    )


def test_chain_is_slow_for_a_random_policy():
    """Reflected at the left end, a fair walk needs N (N + 1) steps to N = n - 1."""
    n = 8
    moves = envs.chain(n).dense().mean(axis=1)[:-1, :-1]
    steps = np.linalg.solve(np.eye(n - 1) - moves, np.ones(n - 1))
    assert steps[0] == pytest.approx((n - 1) * n)


def test_chain_slip_swaps_the_actions():
    dense = envs.chain(4, slip=0.1).dense()
    assert dense[1, 1].tolist() == pytest.approx([0.1, 0, 0.9, 0])
    assert dense[0, 0].tolist() == pytest.approx([0.9, 0.1, 0, 0])
    swapped = envs.chain(4, slip=0.9).permute(range(4), [1, 0])
    np.testing.assert_allclose(swapped.dense(), dense)
    assert envs.chain(4).transitions.nnz == 6, "no zeros are stored"


def test_chain_bad_input():
    with pytest.raises(InvalidEnvironmentError, match="n_states is 1"):
        envs.chain(1)
    with pytest.raises(InvalidEnvironmentError, match="slip"):
        envs.chain(3, slip=2)
    with pytest.raises(InvalidEnvironmentError, match="reward"):
        envs.chain(3, reward=float("nan"))


@pytest.mark.parametrize("error", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("horizon", [1, 7, 100])
def test_cloned_errors_compound_as_the_formula_says(error, horizon):
    policy = np.array([[1 - error, error], [1.0, 0.0]])

    def cost(mdp, pi):
        state, total = mdp.start, 0.0
        for _ in range(horizon):
            total -= state @ (pi * mdp.reward).sum(axis=1)
            state = state @ (pi[:, :, None] * mdp.dense()).sum(axis=1)
        return total

    expected = horizon - (1 - error) * (1 - (1 - error) ** horizon) / error
    assert cost(envs.cloning_chain(), policy) == pytest.approx(expected)
    recovering = np.array([[1 - error, error], [0.0, 1.0]])
    assert cost(envs.cloning_chain(recovery=True), recovering) <= error * horizon + 1e-9
    assert cost(envs.cloning_chain(recovery=True), policy) == pytest.approx(expected)


# ---------------------------------------------------------------- bit-flip


@pytest.mark.parametrize(("n_bits", "goal"), [(1, 0), (4, 0), (5, 19)])
def test_bit_flip_costs_one_less_than_the_bits_that_differ(n_bits, goal):
    plan = planning.value_iteration(envs.bit_flip(n_bits, goal=goal, discount=1.0))
    states = np.arange(2**n_bits)
    differ = envs.bits(states ^ goal, n_bits).sum(axis=1)
    np.testing.assert_allclose(plan.values, -np.maximum(differ - 1, 0), atol=1e-9)


def test_bit_flip_actions_flip_their_bit():
    mdp = envs.bit_flip(3, goal=5)
    assert mdp.terminal.tolist() == [s == 5 for s in range(8)]
    for s, a in product(range(8), range(3)):
        if s != 5:
            assert mdp.dense()[s, a].argmax() == s ^ (1 << a)
            assert mdp.reward[s, a] == (0 if s ^ (1 << a) == 5 else -1)
    assert mdp.start[5] == 0 and mdp.start.sum() == pytest.approx(1)


def test_multi_goal_bit_flip_is_one_world_for_each_goal():
    n = 3
    many = envs.bit_flip(n, multi_goal=True)
    assert many.n_states == 64
    for goal in range(8):
        block = slice(goal * 8, goal * 8 + 8)
        one = envs.bit_flip(n, goal=goal)
        np.testing.assert_array_equal(many.dense()[block, :, block], one.dense())
        np.testing.assert_array_equal(many.reward[block], one.reward)


def test_bits():
    assert envs.bits(6, 4).tolist() == [0, 1, 1, 0]
    assert envs.bits(np.array([0, 1]), 2).tolist() == [[0, 0], [1, 0]]


def test_bit_flip_bad_input():
    with pytest.raises(InvalidEnvironmentError, match="17 bits.*at most 16"):
        envs.bit_flip(17)
    with pytest.raises(InvalidEnvironmentError, match="at most 8 with multi_goal"):
        envs.bit_flip(9, multi_goal=True)
    with pytest.raises(InvalidEnvironmentError, match="goal is 8"):
        envs.bit_flip(3, goal=8)
