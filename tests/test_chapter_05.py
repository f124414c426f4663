"""Chapter 5: each displayed equation that has code, against the library."""

import numpy as np
import pytest

from irlbook import planning
from irlbook.envs import garnet, gridworld
from irlbook.irl.apprenticeship import (
    apprenticeship,
    expert_features,
    nearest_in_hull,
    project_on_segment,
    sample_size,
)
from irlbook.irl.linear_programming import ng_russell, optimality_constraints
from irlbook.irl.shaping import potential_shaping, shaped
from irlbook.mdp import TabularMDP, sample_trajectories


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def corner():
    reward = np.zeros(25)
    reward[4] = 1.0
    world = gridworld(5, 5, slip=0.3, stay=False, state_reward=reward, goals={}, discount=0.9)
    return world, np.eye(4)[planning.policy_iteration(world).policy.argmax(axis=1)], reward


@pytest.fixture
def matching(rng):
    mdp, features = garnet(8, 3, 3, rng, discount=0.8), rng.random((8, 4))
    expert = rng.dirichlet(np.ones(3), size=8)
    mu = planning.feature_expectations(planning.occupancy_measure(mdp, expert), features)
    return mdp, features, expert, mu


def test_eq_5_1_values_are_a_linear_map_of_the_reward(corner):
    world, policy, reward = corner
    P = np.einsum("sa,sap->sp", policy, world.dense())
    values = np.linalg.solve(np.eye(25) - 0.9 * P, reward)
    np.testing.assert_allclose(values, planning.evaluate_policy(world, policy), atol=1e-9)


def test_eq_5_2_conditions_are_differences_of_q(corner, rng):
    world, policy, _ = corner
    G, reward = optimality_constraints(world, policy), rng.normal(size=25)
    mine = world.with_reward(reward)
    q = planning.q_values(mine, planning.evaluate_policy(mine, policy))
    behind = q[policy == 1][:, None] - q  # gamma times the rows of G, in the order of actions
    np.testing.assert_allclose(0.9 * G @ reward, behind[policy == 0], atol=1e-9)


@pytest.mark.parametrize("l1", [0.0, 1.0, 4.0])
def test_eq_5_3_no_reward_of_the_cone_scores_higher(corner, rng, l1):
    world, policy, reward = corner
    G = optimality_constraints(world, policy)

    def score(R):
        return (G @ R).reshape(25, 3).min(axis=1).sum() - l1 * np.abs(R).sum()

    best = ng_russell(world, policy, l1=l1)
    assert score(best.reward) == pytest.approx(best.objective, abs=1e-6)
    rivals = [0 * reward, reward, 0.5 * reward, np.ones(25)]
    rivals += [ng_russell(world, policy, l1=other).reward for other in (0.2, 2.0, 9.0)]
    assert all(score(R) <= best.objective + 1e-6 for R in rivals)


def test_eq_5_4_scale_and_shift(rng):
    mdp = garnet(6, 3, 3, rng, discount=0.9)
    a, b = (planning.policy_iteration(m) for m in (mdp, mdp.with_reward(2.5 * mdp.reward - 0.7)))
    np.testing.assert_array_equal(a.policy, b.policy)
    np.testing.assert_allclose(b.values, 2.5 * a.values - 0.7 / 0.1, atol=1e-8)


@pytest.fixture
def maze(rng):
    world = gridworld(4, 4, walls=[(1, 1)], slip=0.2, stay=False, step_reward=-0.1, discount=0.9)
    return world, np.where(world.terminal, 0.0, rng.normal(size=16))


def test_eq_5_5_is_the_mean_over_next_states(maze):
    world, phi = maze
    direct = 0.9 * world.dense() @ phi - phi[:, None]
    alive = ~world.terminal
    np.testing.assert_allclose(potential_shaping(world, phi)[alive], direct[alive], atol=1e-12)


def test_eq_5_6_values_and_q_shift_by_the_potential(maze):
    world, phi = maze
    a, b = planning.policy_iteration(world), planning.policy_iteration(shaped(world, phi))
    alive = ~world.terminal
    np.testing.assert_allclose(b.values, a.values - phi, atol=1e-9)
    np.testing.assert_allclose(b.q[alive], (a.q - phi[:, None])[alive], atol=1e-9)


def test_eq_5_7_telescopes_along_a_path(rng):
    phi, path, discount = rng.normal(size=9), rng.integers(9, size=12), 0.85
    steps = discount ** np.arange(11) * (discount * phi[path[1:]] - phi[path[:-1]])
    assert steps.sum() == pytest.approx(discount**11 * phi[path[-1]] - phi[path[0]])


def test_eq_5_8_return_is_linear_and_bounded_by_the_margin(matching, rng):
    mdp, features, expert, mu = matching
    policy = rng.dirichlet(np.ones(3), size=8)
    got = planning.feature_expectations(planning.occupancy_measure(mdp, policy), features)
    for w in rng.normal(size=(20, 4)):
        world = mdp.with_reward(np.repeat((features @ w)[:, None], 3, axis=1))
        a, b = (planning.expected_return(world, p) for p in (policy, expert))
        assert a == pytest.approx(w @ got, abs=1e-9)
        assert abs(a - b) <= np.linalg.norm(w) * np.linalg.norm(got - mu) + 1e-9


def test_eq_5_9_estimate_is_unbiased(matching, rng):
    mdp, features, expert, mu = matching
    seen = sample_trajectories(mdp, expert, 4000, 60, rng)
    np.testing.assert_allclose(expert_features(mdp, seen, features), mu, atol=0.05)
    first = next(iter(seen))
    direct = sum(0.8**t * features[s] for t, s in enumerate(first[0][:-1]))
    alone = expert_features(mdp, type(seen).from_list([first]), features)
    np.testing.assert_allclose(alone, direct, atol=1e-12)


def test_eq_5_10_and_5_11_margin_is_the_distance_and_no_weights_do_better(rng):
    points, target = rng.normal(size=(6, 3)), np.array([2.0, -3.0, 1.0])
    _, nearest = nearest_in_hull(points, target)
    distance = np.linalg.norm(target - nearest)
    best = (target - nearest) / distance

    def margin(w):
        return ((target - points) @ w).min()

    assert margin(best) == pytest.approx(distance)
    others = rng.normal(size=(2000, 3))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert max(margin(w) for w in others) <= distance + 1e-9


def test_eq_5_12_is_the_foot_of_the_perpendicular(rng):
    a, b = rng.normal(size=(2, 4))
    target = (
        a
        + 0.3 * (b - a)
        + 0.2 * (rest := rng.normal(size=4))
        - 0.2 * (rest @ (b - a) / ((b - a) @ (b - a))) * (b - a)
    )
    assert project_on_segment(a, b, target) == pytest.approx(0.3)


def test_eq_5_13_thirty_policies_are_far_below_the_bound():
    """The bound without its constant, for 64 features and a margin of 0.06 scaled by 1 - gamma."""
    k, scaled = 64, 0.06
    assert k / scaled**2 * np.log(k / scaled) > 1e5


def test_eq_5_14_is_where_hoeffding_gives_the_failure_probability():
    n = sample_size(16, 0.9, 0.5, 0.1)
    failure = 2 * 16 * np.exp(-2 * n * (0.5 * 0.1) ** 2)
    assert failure <= 0.1 < 2 * 16 * np.exp(-2 * (n - 1) * (0.5 * 0.1) ** 2)


def test_matching_ends_where_the_expert_is(matching):
    mdp, features, _, mu = matching
    assert isinstance(mdp, TabularMDP)
    run = apprenticeship(mdp, features, mu, method="max_margin", tolerance=1e-6)
    got = planning.feature_expectations(planning.occupancy_measure(mdp, run.policy), features)
    np.testing.assert_allclose(got, mu, atol=1e-5)
