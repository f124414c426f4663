"""Abbeel and Ng, with either step, against exact occupancies and other solvers."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from irlbook import errors, planning
from irlbook.envs import garnet
from irlbook.envs.features import macrocell_features
from irlbook.envs.gridworld import gridworld
from irlbook.irl.apprenticeship import (
    apprenticeship,
    expert_features,
    nearest_in_hull,
    policy_of,
    project_on_segment,
    sample_size,
)
from irlbook.irl.maxent import fit_max_causal_ent
from irlbook.mdp import TabularMDP, Trajectories, sample_trajectories
from irlbook.metrics import expected_value_difference


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def problem(rng):
    """World, features, the expert's features, the true weights."""
    features = macrocell_features(8, 8, 2)
    weights = rng.dirichlet(np.full(16, 0.2))
    world = gridworld(
        8, 8, slip=0.3, stay=False, state_reward=features @ weights, goals={}, discount=0.9
    )
    expert = planning.modified_policy_iteration(world).policy
    mu = planning.feature_expectations(planning.occupancy_measure(world, expert), features)
    return world, features, mu, weights


# --- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, k", [(1, 3), (4, 2), (10, 6), (3, 8)])
def test_nearest_point_of_the_hull_solves_the_quadratic_program(n, k, rng):
    points, target = rng.normal(size=(n, k)), 2 * rng.normal(size=k)
    mixture, nearest = nearest_in_hull(points, target)
    assert (mixture >= 0).all() and mixture.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(mixture @ points, nearest)
    # optimality: no vertex lies further along the residual than the nearest point does
    residual = target - nearest
    assert ((points - nearest) @ residual <= 1e-9 * max(1.0, residual @ residual)).all()


def test_it_is_the_max_margin_problem(rng):
    """max t: w.mu_E >= w.mu_j + t, |w| <= 1 has t = the distance to the hull, w along it."""
    points, target = rng.normal(size=(6, 3)), np.array([3.0, 1.0, -2.0])
    _, nearest = nearest_in_hull(points, target)
    solved = minimize(
        lambda x: -x[0],
        np.array([0.0, 1.0, 0.0, 0.0]),
        constraints=[
            {"type": "ineq", "fun": lambda x: (target - points) @ x[1:] - x[0]},
            {"type": "ineq", "fun": lambda x: 1.0 - x[1:] @ x[1:]},
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    distance = np.linalg.norm(target - nearest)
    assert solved.x[0] == pytest.approx(distance, abs=1e-5)
    np.testing.assert_allclose(solved.x[1:], (target - nearest) / distance, atol=1e-3)


def test_a_target_inside_the_hull_is_reached(rng):
    points = rng.normal(size=(12, 3))
    target = rng.dirichlet(np.ones(12)) @ points
    np.testing.assert_allclose(nearest_in_hull(points, target)[1], target, atol=1e-7)


def test_projection_is_the_nearest_point_of_the_segment(rng):
    for _ in range(50):
        a, b, c = rng.normal(size=(3, 4))
        share = project_on_segment(a, b, c)
        grid = np.linspace(0, 1, 2001)[:, None]
        distance = np.linalg.norm(a + grid * (b - a) - c, axis=1)
        assert share == pytest.approx(float(grid[distance.argmin(), 0]), abs=1e-3)
    assert project_on_segment(a, a, c) == 0.0


# --- the algorithm --------------------------------------------------------------------------------


@pytest.mark.parametrize("method, margin", [("max_margin", 1e-3), ("projection", 0.05)])
def test_it_matches_and_so_earns_what_the_expert_earns(problem, method, margin):
    world, features, mu, weights = problem
    result = apprenticeship(
        world, features, mu, method=method, tolerance=margin, max_iterations=400
    )
    assert result.report.converged and result.margins[-1] <= margin
    assert (np.diff(result.margins) <= 1e-12).all()
    assert result.mixture.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(np.linalg.norm(result.weights, axis=1), 1.0)
    # the stationary policy has the mixture's features, so its loss is within |w| times the margin
    got = planning.feature_expectations(planning.occupancy_measure(world, result.policy), features)
    np.testing.assert_allclose(got, result.mixture @ result.policy_features, atol=1e-7)
    lost = expected_value_difference(world, result.policy)
    assert lost <= np.linalg.norm(weights) * result.margins[-1] + 1e-7
    # and for any other reward linear in the features, too
    rng = np.random.default_rng(1)
    for w in rng.normal(size=(20, 16)):
        assert abs(w @ got - w @ mu) <= np.linalg.norm(w) * result.margins[-1] + 1e-7


def test_an_expert_that_nobody_can_match_stops_with_the_distance(problem):
    world, features, mu, _ = problem
    outside = mu.copy()
    outside[3] += 5.0  # more visits than there are
    result = apprenticeship(world, features, outside, method="max_margin", max_iterations=300)
    assert not result.report.converged
    best = minimize_distance(world, features, outside)
    assert result.margins[-1] == pytest.approx(best, rel=1e-3)


def minimize_distance(world, features, target):
    """Distance of `target` from all that policies can do; vertices by a program over visits."""
    P = world.dense().reshape(-1, world.n_states)
    stacked = np.repeat(features, world.n_actions, axis=0)
    flow = np.repeat(np.eye(world.n_states), world.n_actions, axis=0) - world.discount * P
    mean = stacked.T @ planning.occupancy_measure(
        world, np.full(world.reward.shape, 1 / world.n_actions)
    ).reshape(-1)
    points = [mean]
    for _ in range(150):
        step = linprog(
            -(stacked @ (target - mean)), A_eq=flow.T, b_eq=world.start, bounds=(0, None)
        )
        points.append(stacked.T @ step.x)
        mean = nearest_in_hull(np.array(points), target)[1]
    return float(np.linalg.norm(target - mean))


def test_both_steps_agree_with_features_of_actions(rng):
    mdp = garnet(6, 3, 3, rng, discount=0.8)
    features = rng.normal(size=(6, 3, 4))
    expert = rng.dirichlet(np.ones(3), size=6)
    mu = planning.feature_expectations(planning.occupancy_measure(mdp, expert), features)
    for method in ("max_margin", "projection"):
        result = apprenticeship(
            mdp, features, mu, method=method, tolerance=0.02, max_iterations=500
        )
        assert result.report.converged


def test_renumbering_changes_nothing_that_matters(problem, rng):
    world, features, mu, _ = problem
    states, actions = rng.permutation(64), rng.permutation(4)
    a = apprenticeship(world, features, mu, max_iterations=5)
    b = apprenticeship(world.permute(states, actions), features[states], mu, max_iterations=5)
    np.testing.assert_allclose(a.margins, b.margins, atol=1e-7)


def test_projection_weights_are_no_reward_and_maxent_weights_are(rng):
    """An expert who errs at times: its features lie inside, and the last direction is arbitrary."""
    lost = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        kind = rng.integers(5, size=(2, 36))
        phi, moved = np.eye(5)[kind[0]], np.eye(5)[kind[1]]
        w = rng.normal(size=5)
        world, other = (
            gridworld(6, 6, slip=0.1, stay=False, state_reward=f @ w, goals={}, discount=0.9)
            for f in (phi, moved)
        )
        expert = planning.soft_policy_iteration(world, beta=0.5).policy
        mu = planning.feature_expectations(planning.occupancy_measure(world, expert), phi)
        learnt = apprenticeship(world, phi, mu, tolerance=0.01, max_iterations=60).weights[-1]
        fitted = fit_max_causal_ent(world, phi, mu, beta=0.5).weights
        lost.append(
            [
                expected_value_difference(
                    other,
                    planning.modified_policy_iteration(other.with_reward(moved @ v)).policy,
                )
                for v in (learnt, fitted)
            ]
        )
    lost = np.array(lost)
    assert lost[:, 1].max() < 1e-3 and lost[:, 0].mean() > 0.5


# --- bad input ------------------------------------------------------------------------------------


def test_bad_input_is_named(problem):
    world, features, mu, _ = problem
    with pytest.raises(errors.ImproperPolicyError, match="discount"):
        apprenticeship(world.with_discount(1.0), features, mu)
    with pytest.raises(errors.ShapeError, match="expert_features"):
        apprenticeship(world, features, mu[:-1])
    with pytest.raises(errors.ShapeError, match="features"):
        apprenticeship(world, features[:-1], mu)
    with pytest.raises(errors.InvalidHyperparameterError, match="method"):
        apprenticeship(world, features, mu, method="quadratic")
    with pytest.raises(errors.InvalidHyperparameterError, match="max_iterations"):
        apprenticeship(world, features, mu, max_iterations=0)


def test_demonstrations_are_checked(problem, rng):
    world, features, _, _ = problem
    expert = planning.modified_policy_iteration(world).policy
    good = sample_trajectories(world, expert, 30, 60, rng)
    assert expert_features(world, good, features).shape == (16,)
    for pairs, message in (
        ([([0, 99], [0])], "state 99 is outside"),
        ([([0, 1], [7])], "action 7 is outside"),
        ([([0, 63], [0])], "cannot lead to state 63"),
    ):
        with pytest.raises(errors.InvalidTrajectoryError, match=message):
            expert_features(world, Trajectories.from_list(pairs), features)
    with pytest.raises(errors.ShapeError, match="rows"):
        expert_features(world, good, features[:-1])


def test_demonstrations_that_were_cut_off_are_found(problem, rng):
    world, features, mu, _ = problem
    expert = planning.modified_policy_iteration(world).policy
    short = sample_trajectories(world, expert, 200, 10, rng)
    with pytest.raises(errors.TruncatedDemonstrationsError, match="34.9%.*29 steps"):
        expert_features(world, short, features)
    missing = expert_features(world, short, features, most_lost=1.0)
    assert missing.sum() == pytest.approx(10 * (1 - 0.9**10))
    # different lengths are fine as long as the long ones dominate
    pairs = list(sample_trajectories(world, expert, 60, 80, rng)) + list(short)[:2]
    expert_features(world, Trajectories.from_list(pairs), features)


def test_demonstrations_that_ended_are_complete():
    world = gridworld(1, 3, goals={(0, 2): 1.0}, stay=False, start=(0, 0), discount=0.9)
    seen = Trajectories.from_list([([0, 1, 2], [1, 1])])
    np.testing.assert_allclose(expert_features(world, seen, np.eye(3)), [1.0, 0.9, 0.0])


# --- small things ---------------------------------------------------------------------------------


def test_policy_of_an_occupancy_gives_it_back(rng):
    mdp = garnet(7, 3, 3, rng, discount=0.9)
    policy = rng.dirichlet(np.ones(3), size=7)
    rho = planning.occupancy_measure(mdp, policy)
    np.testing.assert_allclose(policy_of(rho), policy, atol=1e-10)
    mixed = 0.3 * rho + 0.7 * planning.occupancy_measure(mdp, rng.dirichlet(np.ones(3), size=7))
    np.testing.assert_allclose(planning.occupancy_measure(mdp, policy_of(mixed)), mixed, atol=1e-9)


def test_sample_size_is_hoeffdings(rng):
    n = sample_size(4, 0.5, 0.2, 0.1)
    assert n == int(np.ceil(np.log(80) / (2 * 0.04 * 0.25)))
    # worst case: each feature is worth 0 or 1 / (1 - discount) with even odds
    draws = rng.integers(2, size=(2000, n, 4)) * 2.0
    assert (np.abs(draws.mean(axis=1) - 1.0).max(axis=1) > 0.2).mean() < 0.1
    with pytest.raises(errors.InvalidHyperparameterError):
        sample_size(4, 1.0, 0.2, 0.1)


def test_planted_discount_mismatch_leaves_a_gap(problem, rng):
    """Planted: features of the demonstrations summed without the discount of the planner."""
    world, features, mu, _ = problem
    expert = planning.modified_policy_iteration(world).policy
    seen = sample_trajectories(world, expert, 300, 100, rng)
    right = apprenticeship(
        world, features, expert_features(world, seen, features), max_iterations=60
    )
    wrong = seen.feature_expectations(features, 4, discount=1.0)
    bug = apprenticeship(world, features, wrong, max_iterations=60)
    assert right.margins[-1] < 0.5 and bug.margins[-1] > 20.0
    assert isinstance(world, TabularMDP)
