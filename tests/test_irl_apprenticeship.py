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


def test_the_nearest_point_of_a_triangle_and_what_it_is_made_of():
    """By hand: a corner, a point of an edge, a point inside; a doubled corner changes no point."""
    corners = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    for target, weights in (
        ([-1.0, -1.0], [1.0, 0.0, 0.0]),
        ([3.0, -1.0], [0.0, 1.0, 0.0]),
        ([1.0, -1.0], [0.5, 0.5, 0.0]),
        ([2.0, 2.0], [0.0, 0.5, 0.5]),
        ([0.5, 0.5], [0.5, 0.25, 0.25]),
    ):
        mixture, nearest = nearest_in_hull(corners, target)
        np.testing.assert_allclose(mixture, weights, atol=1e-9)
        np.testing.assert_allclose(nearest, np.array(weights) @ corners, atol=1e-9)
    doubled = np.concatenate([corners, corners[1:2]])
    np.testing.assert_allclose(nearest_in_hull(doubled, [1.0, -1.0])[1], [1.0, 0.0], atol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_nearest_point_has_no_unit(scale, rng):
    """Many points in few dimensions: corners come in and are dropped again, at any scale."""
    for _ in range(10):
        points, target = rng.normal(size=(60, 4)), 1.2 * rng.normal(size=4)
        mixture, nearest = nearest_in_hull(scale * points, scale * target)
        residual = target - nearest / scale
        assert ((points - nearest / scale) @ residual <= 1e-9).all()
        assert (mixture >= 0).all() and (mixture > 0).sum() <= 5  # Caratheodory: K + 1 points
        assert mixture.sum() == pytest.approx(1.0, abs=1e-12)


# --- the algorithm --------------------------------------------------------------------------------


def test_it_stops_where_it_was_told_and_says_so(problem):
    world, features, mu, _ = problem
    cut = apprenticeship(world, features, mu, max_iterations=3, tolerance=0.0)
    assert cut.weights.shape == (3, 16) and cut.margins.shape == (4,)
    assert cut.policies.shape == (4, 64, 4) and cut.policy_features.shape == (4, 16)
    assert cut.report.iterations == 3 and not cut.report.converged
    assert cut.report.method == "apprenticeship projection" and cut.report.tolerance == 0.0
    assert cut.report.residual == cut.margins[-1]
    uniform = np.full((64, 4), 0.25)
    np.testing.assert_array_equal(cut.policies[0], uniform)
    first = planning.feature_expectations(planning.occupancy_measure(world, uniform), features)
    assert cut.margins[0] == pytest.approx(np.linalg.norm(mu - first))
    np.testing.assert_allclose(cut.weights[0], (mu - first) / cut.margins[0])
    best = planning.modified_policy_iteration(world.with_reward(
        np.repeat((features @ cut.weights[0])[:, None], 4, axis=1)
    )).policy  # fmt: skip
    np.testing.assert_array_equal(cut.policies[1], best)
    # Nothing to do where the first policy is the expert, or near enough.
    for tolerance in (0.0, cut.margins[0]):
        target = first if tolerance == 0.0 else mu
        done = apprenticeship(world, features, target, tolerance=tolerance)
        assert done.report.converged and done.weights.shape == (0, 16)
        np.testing.assert_allclose(done.policy, uniform, atol=1e-9)


def test_the_first_policy_and_the_planner_are_those_that_were_given(problem):
    world, features, mu, _ = problem
    first, asked = np.eye(4)[np.zeros(64, dtype=int)], []

    def plan(given):
        asked.append(given)
        return first

    found = apprenticeship(world, features, mu, initial_policy=first, planner=plan)
    np.testing.assert_array_equal(found.policies[0], first)
    assert len(asked) == 1 and not found.report.converged  # its answer came no nearer
    assert found.margins[1] == pytest.approx(found.margins[0])
    np.testing.assert_allclose(
        asked[0].reward, np.repeat((features @ found.weights[0])[:, None], 4, axis=1)
    )


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
    for bad in ({"max_iterations": 0}, {"tolerance": -1e-9}, {"tolerance": np.nan}):
        with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(bad))):
            apprenticeship(world, features, mu, **bad)
    assert apprenticeship(world, features, mu, max_iterations=1).report.iterations == 1


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


def test_how_much_may_be_missing_is_a_share_of_the_weight():
    """One walk of two steps at discount 0.5 lacks a quarter: refused below that, taken at it."""
    moves = np.zeros((2, 1, 2))
    moves[0, 0, 1] = moves[1, 0, 0] = 1.0
    world = TabularMDP.create(moves, np.zeros((2, 1)), start=0, discount=0.5)
    seen = Trajectories.from_list([([0, 1, 0], [0, 0])])
    mu = expert_features(world, seen, np.eye(2), most_lost=0.25)
    np.testing.assert_allclose(mu, [1.0, 0.5])
    with pytest.raises(errors.TruncatedDemonstrationsError, match=r"25\.0%.*median takes 2 steps"):
        expert_features(world, seen, np.eye(2), most_lost=0.2499)
    with pytest.raises(errors.TruncatedDemonstrationsError, match="4 steps or more"):
        expert_features(world, seen, np.eye(2), most_lost=0.125 / 2)
    with pytest.raises(errors.TruncatedDemonstrationsError) as caught:
        expert_features(world, seen, np.eye(2), most_lost=0.0)
    assert "steps or more" not in str(caught.value)  # no finite length would do
    both = expert_features(world, seen, np.eye(2).reshape(2, 1, 2), most_lost=1.0)
    np.testing.assert_allclose(both, [1.0, 0.5])


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


def test_policy_of_is_uniform_where_nobody_comes():
    np.testing.assert_allclose(policy_of([[0.0, 0.0], [1.0, 3.0]]), [[0.5, 0.5], [0.25, 0.75]])


def test_sample_size_is_hoeffdings(rng):
    n = sample_size(4, 0.5, 0.2, 0.1)
    assert n == int(np.ceil(np.log(80) / (2 * 0.04 * 0.25)))
    # worst case: each feature is worth 0 or 1 / (1 - discount) with even odds
    draws = rng.integers(2, size=(2000, n, 4)) * 2.0
    assert (np.abs(draws.mean(axis=1) - 1.0).max(axis=1) > 0.2).mean() < 0.1
    assert sample_size(1, 0.0, 1.0, 0.5) == 1  # log 4 / 2 is 0.69
    for bad in ((4, 1.0, 0.2, 0.1), (4, -0.1, 0.2, 0.1), (4, 0.5, 0.0, 0.1), (4, 0.5, 0.2, 0.0),
                (4, 0.5, 0.2, 1.0)):  # fmt: skip
        with pytest.raises(errors.InvalidHyperparameterError):
            sample_size(*bad)


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
