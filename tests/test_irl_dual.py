"""The solver of the maximum-entropy duals and its parts: by hand, at limits, on small graphs."""

import numpy as np
import pytest
from scipy import sparse
from strategies import random_mdp

from irlbook import envs, planning
from irlbook.errors import InvalidHyperparameterError, NotConvergedError, ShapeError
from irlbook.irl import dual, many_goals
from irlbook.irl.groups import Group, are_groups
from irlbook.irl.many_goals import Edges, choice_hessian
from irlbook.irl.maxent import causal_dual, fit_max_causal_ent
from irlbook.irl.maxent_paths import PathModel, fit_max_ent_paths, path_dual, path_hessian
from irlbook.mdp import TabularMDP


@pytest.fixture
def problem():
    """World, features, truth, and the features that its soft policy expects."""
    mdp = random_mdp(0, 6, 2, discount=0.9)
    phi, truth = np.random.default_rng(0).normal(size=(6, 3)), np.array([1.0, -0.5, 2.0])
    world = mdp.with_reward(np.repeat((phi @ truth)[:, None], 2, axis=1) * ~mdp.terminal[:, None])
    rho = planning.occupancy_measure(mdp, planning.soft_policy_iteration(world).policy)
    return mdp, phi, truth, (phi * ~mdp.terminal[:, None]).T @ rho.sum(axis=1)


# --- the fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_a_fit_reports_the_point_at_which_it_ended(problem, solver):
    mdp, phi, _, expert = problem
    found = fit_max_causal_ent(mdp, phi, expert, solver=solver, l2=0.2, tolerance=1e-7)
    value, slope = causal_dual(found.weights, mdp, phi, expert)
    assert found.dual == pytest.approx(value) and found.gap == pytest.approx(np.abs(slope).max())
    np.testing.assert_allclose(found.feature_expectations, slope + expert, atol=1e-9)
    violation = np.abs(slope + 0.2 * found.weights).max()
    assert found.report.residual == pytest.approx(violation, abs=1e-12)
    assert found.report.residual <= 1e-7 < found.gap  # the penalty holds the weights back
    assert found.report.method == f"causal {solver}" and found.report.converged
    assert found.report.tolerance == 1e-7 and 1 <= found.report.iterations <= 200
    assert found.covariance is None and found.standard_errors is None


def test_a_fit_that_begins_at_its_end_makes_no_step(problem):
    mdp, phi, truth, expert = problem
    found = fit_max_causal_ent(mdp, phi, expert, initial_weights=truth, tolerance=1e-6)
    assert found.report.iterations == 0
    np.testing.assert_array_equal(found.weights, truth)
    few = fit_max_causal_ent(mdp, phi, expert, max_iterations=20)
    assert 2 <= few.report.iterations <= 10  # Newton: as many digits again in each step
    with pytest.raises(NotConvergedError, match="after 1 iterations"):
        fit_max_causal_ent(mdp, phi, expert, max_iterations=1)


def test_newton_is_chosen_up_to_128_features_and_without_an_l1_penalty():
    mdp = random_mdp(0, 3, 2, n_terminal=0, discount=0.5)
    rng = np.random.default_rng(0)
    for count, l1, wanted in ((128, 0.0, "newton"), (129, 0.0, "lbfgs"), (2, 0.1, "lbfgs")):
        phi = rng.normal(size=(3, count)) / count**0.5
        found = fit_max_causal_ent(mdp, phi, np.zeros(count), l2=1.0, l1=l1)
        assert found.report.method == f"causal {wanted}"
    alone = fit_max_ent_paths(
        envs.gridworld(1, 3, start=(0, 0), discount=1.0), np.ones((3, 1)), [3.0],
        initial_weights=[-3.0],
    )  # fmt: skip
    assert alone.report.method == "paths lbfgs"


@pytest.mark.parametrize("name", ["l2", "l1"])
def test_a_penalty_is_0_or_more_and_finite(problem, name):
    mdp, phi, _, expert = problem
    for bad in (-1e-9, np.inf, np.nan):
        with pytest.raises(InvalidHyperparameterError, match="l2 and l1 are penalties of 0 or"):
            fit_max_causal_ent(mdp, phi, expert, **{name: bad})
    with pytest.raises(ShapeError, match="initial_weights have shape"):
        fit_max_causal_ent(mdp, phi, expert, initial_weights=[0.0, 0.0, np.nan])


# --- its parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.01, 0.5, 3.0])
def test_a_trust_region_step_is_the_best_within_its_radius(radius):
    """Inside: the bottom of the bowl. On the edge: the slope there points inwards, eq KKT."""
    curvature, along = np.array([0.1, 1.0, 5.0]), np.array([0.3, -1.0, 2.0])
    step = dual._trust_region_step(curvature, along, radius)
    bottom = -along / curvature
    if np.linalg.norm(bottom) <= radius:
        np.testing.assert_allclose(step, bottom)
        return
    assert np.linalg.norm(step) == pytest.approx(radius, rel=2e-3)
    lift = -(along + curvature * step) / step  # one number, and positive
    assert (lift > 0).all() and np.ptp(lift) < 1e-6 * lift.max()


def test_a_long_way_down_is_cut_to_the_radius_and_a_short_one_is_not():
    one = np.ones(1)
    assert dual._trust_region_step(one, -2 * one, 2.0).tolist() == [2.0]
    assert dual._trust_region_step(one, -2 * one, 1.0) == pytest.approx([1.0], rel=2e-3)


def test_the_inverse_of_a_covariance_is_infinite_where_nothing_varies():
    hessian = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = dual._inverse(hessian, np.array([1.0, 1.0, 20.0]), 1.0)
    np.testing.assert_allclose(found[:2, :2], np.linalg.inv(hessian[:2, :2]))
    assert np.isinf(found[2, 2])
    full = np.array([[4.0, 1.0], [1.0, 3.0]])
    np.testing.assert_allclose(dual._inverse(full, np.zeros(2), 0.5), np.linalg.inv(full))
    rounding = np.diag([1.0, 1e-28])  # beside a sum of 20, which is 400 squared
    assert np.isfinite(np.diag(dual._inverse(rounding, np.array([0.0, 20.0]), 1.0))).tolist() == [
        True,
        False,
    ]
    assert np.isinf(dual._inverse(np.zeros((1, 1)), np.zeros(1), 1.0)).all()


def test_the_distance_from_the_optimum_with_and_without_an_l1_penalty():
    gradient, weights = np.array([0.5, -0.05, 0.3, -1.0]), np.array([0.0, 0.0, 2.0, -1.0])
    smooth = gradient + 0.1 * weights
    np.testing.assert_allclose(dual._stationarity(gradient, weights, 0.1, 0.0), smooth)
    wanted = [0.5 - 0.2, 0.0, 0.3 + 0.2 + 0.2, -1.0 - 0.1 - 0.2]
    np.testing.assert_allclose(dual._stationarity(gradient, weights, 0.1, 0.2), wanted)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("thin", [False, True])
def test_features_are_the_same_dense_and_sparse_on_states_and_on_pairs(pairs, thin):
    mdp = envs.gridworld(1, 3, goals={(0, 2): 1.0}, stay=False, discount=0.9)
    rng = np.random.default_rng(0)
    full = rng.normal(size=(3, 4, 2)) if pairs else np.repeat(rng.normal(size=(3, 1, 2)), 4, axis=1)
    given = full if pairs else full[:, 0]
    phi = dual.Features(mdp, sparse.csr_array(given.reshape(-1, 2)) if thin else given)
    full = full * np.array([1.0, 1.0, 0.0])[:, None, None]  # nothing is collected at the goal
    w, occupancy = rng.normal(size=2), rng.random((3, 4))
    assert phi.count == 2 and phi.on_states is not pairs
    np.testing.assert_allclose(phi.reward(w), full @ w)
    np.testing.assert_allclose(phi.rows_reward(w), full @ w if pairs else full[:, 0] @ w)
    np.testing.assert_allclose(phi.expectations(occupancy), np.einsum("sa,sak->k", occupancy, full))
    np.testing.assert_allclose(np.broadcast_to(phi.stack(), full.shape), full)
    assert phi.stack().shape == ((3, 4, 2) if pairs else (3, 1, 2))
    assert dual.check_expert(None, 2).tolist() == [0.0, 0.0]


# --- many goals -----------------------------------------------------------------------------------


def line(n=5):
    """Right (0), or left (1), along a line without an end."""
    moves = np.zeros((n, 2, n))
    for s in range(n):
        moves[s, 0, min(s + 1, n - 1)] = moves[s, 1, max(s - 1, 0)] = 1.0
    return TabularMDP.create(moves, np.zeros((n, 2)), start=0, discount=1.0)


def test_the_edges_of_a_small_graph():
    """A line on which nobody may go left from state 2, and nobody leaves state 4."""
    reference = np.zeros((5, 2))
    reference[2, 1], reference[0, 0] = -np.inf, np.log(3.0)
    edges = Edges.of(line(), reference, stop=np.arange(5) == 4)
    moves = list(zip(edges.states.tolist(), edges.targets.tolist(), strict=True))
    assert moves == [(0, 1), (0, 0), (1, 2), (1, 0), (2, 3), (3, 4), (3, 2)]
    assert edges.rows.tolist() == [0, 1, 2, 3, 4, 6, 7]
    np.testing.assert_allclose(edges.log_weight, [np.log(3.0), 0, 0, 0, 0, 0, 0])
    assert edges.sum_by_state(np.arange(7.0)).tolist() == [1.0, 5.0, 4.0, 11.0, 0.0]
    begin = np.arange(5)
    assert edges.reached_from(begin == 2).tolist() == [False, False, True, True, True]
    assert edges.can_reach(begin == 2).tolist() == [True, True, True, True, False]
    assert edges.reached_from(begin < 0).tolist() == [False] * 5
    plain = Edges.of(line(), None, stop=begin < 0)
    assert len(plain.rows) == 10 and not plain.log_weight.any()


def test_the_covariance_of_a_path_choice_by_choice():
    """Two edges out of state 0, taken 0.25 and 0.75 times; the sum to come is 0 at both ends."""
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 1] = moves[0, 1, 2] = 1.0
    mdp = TabularMDP.create(moves, np.zeros((3, 2)), start=0, discount=1.0, terminal=[1, 2])
    edges = Edges.of(mdp, None, stop=mdp.terminal)
    phi, flow = np.array([[4.0, 0.0], [0.0, 1.0]]), np.array([0.25, 0.75])
    ahead = np.zeros((3, 2))
    ahead[0] = flow @ phi
    wanted = np.cov(phi.T, aweights=flow, bias=True)
    np.testing.assert_allclose(choice_hessian(edges, flow, phi, ahead), wanted)
    both = choice_hessian(
        edges, np.stack([flow, flow], axis=1), phi, np.stack([ahead, ahead], axis=1)
    )
    np.testing.assert_allclose(both, 2 * wanted)


def test_goals_that_do_not_fit_into_one_block_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    phi = np.concatenate([rng.normal(size=(5, 2, 1)), np.ones((5, 2, 1))], axis=2)
    groups = [Group(rng.normal(size=2), i + 1, goal, 0) for i, goal in enumerate((4, 3, 2, 1))]
    w, found = np.array([0.2, -3.0]), []
    for block in (32, 3, 1):
        monkeypatch.setattr(many_goals, "GOALS_AT_ONCE", block)
        model = PathModel(line(), phi, groups, None, 1.0, None)
        point = model.evaluate(w)
        assert model.apart == 0
        found.append((point.value, *point.gradient, *model.hessian(point.plan).reshape(-1)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-12)


def test_groups_that_were_solved_apart_are_counted_in_the_report():
    """At 0.6 a step the line's own paths sum up to no number; a goal beside the start cuts them."""
    groups = [Group([1.3], 1, 1, 0), Group([1.2], 1, 1, 0)]
    found = fit_max_ent_paths(line(), np.ones((5, 1)), groups, initial_weights=[-3.0])
    assert found.report.method == "paths newton"
    slow = [Group([2.5], 1, 1, 0), Group([2.5], 1, 1, 0)]  # pi(stay) = 0.6: weight 0.6 a round
    found = fit_max_ent_paths(line(), np.ones((5, 1)), slow, initial_weights=[-3.0])
    assert found.weights[0] == pytest.approx(np.log(0.6))
    assert found.report.method == "paths newton (2 of 2 groups apart)"


def test_the_best_path_with_and_without_a_horizon():
    """Luck is free: the largest sum of rewards of any one path; with a horizon also unfinished."""
    corridor = envs.gridworld(1, 4, goals={(0, 3): 1.0}, start=(0, 0), stay=False, discount=1.0)
    costs = np.where(corridor.terminal[:, None], 0.0, -np.ones(corridor.reward.shape))
    model = PathModel(corridor, np.ones((4, 1)), [0.0], None, 1.0, None)
    assert model.best_return(costs) == -3.0
    assert model.best_return(-costs) == np.inf
    for horizon, costly, paying in ((2, -2.0, 2.0), (5, -3.0, 5.0)):
        cut = PathModel(corridor, np.ones((4, 1)), [0.0], horizon, 1.0, None)
        assert cut.best_return(costs) == costly and cut.best_return(-costs) == paying


def test_what_is_a_list_of_groups():
    one = Group([1.0])
    assert are_groups([one]) and are_groups((one, one))
    for other in ([], [1.0], [one, 1.0], np.array([1.0]), one, None):
        assert not are_groups(other)
    assert (one.count, one.goal, one.start) == (1.0, None, None)


def test_the_path_hessian_counts_both_starts_and_beta():
    """Without groups: the variance of the number of steps of a geometric walk, over beta."""
    mdp = random_mdp(1, 3, 2, deterministic=True, discount=1.0)
    for beta in (0.5, 2.0):
        w = np.array([-2.0 * beta])
        slope = [
            path_dual(w + d, mdp, np.ones((3, 1)), [0.0], beta=beta)[1][0] for d in (1e-5, -1e-5)
        ]
        found = path_hessian(w, mdp, np.ones((3, 1)), beta=beta)
        assert found[0, 0] == pytest.approx((slope[0] - slope[1]) / 2e-5, abs=1e-6)
