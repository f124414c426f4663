"""One reward, many goals: against enumeration, long sums, finite differences and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import gradient
from strategies import random_mdp

from irlbook import envs, planning
from irlbook.errors import (
    DivergentPartitionError,
    ImproperPolicyError,
    InvalidHyperparameterError,
    InvalidMDPError,
    InvalidPolicyError,
    InvalidTrajectoryError,
    NotStochasticError,
    ShapeError,
    UnreachableFeaturesError,
)
from irlbook.irl.groups import Group, group_by_goal, group_by_start
from irlbook.irl.maxent import Causal, causal_dual, causal_hessian, end_in, fit_max_causal_ent
from irlbook.irl.maxent_paths import PathModel, fit_max_ent_paths, path_dual, path_hessian
from irlbook.mdp import TabularMDP, Trajectories, sample_trajectories

SEEDS = st.integers(0, 10**6)
COSTLY = np.array([0.3, -0.4, -2.8])  # the last weight is of a constant: a cost a step


def town(seed=0, n_states=6, n_actions=3, *, deterministic=True):
    """A world without ends, features (S, A, 3) of which the last is 1, and a mask of turns."""
    mdp = random_mdp(
        seed, n_states, n_actions, n_terminal=0, discount=1.0, deterministic=deterministic
    )
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(n_states, n_actions, 3))
    phi[..., 2] = 1.0
    mask = rng.random((n_states, n_actions)) < 0.8
    mask[:, 0] = True  # the first action leads from s to s + 1
    return mdp, phi, mask


def some_groups(seed, n_states=6):
    """Groups with one and with several goals and starts, sharing goals; sums of any size."""
    rng = np.random.default_rng(seed)
    late = n_states - 2
    groups = [
        Group(rng.normal(size=3), int(rng.integers(1, 5)), late, int(rng.integers(0, late)))
        for _ in range(2)
    ]
    spread = np.zeros(n_states)
    spread[:2] = [0.25, 0.75]
    return [
        *groups,
        Group(rng.normal(size=3), 2, n_states - 1, spread),
        Group(rng.normal(size=3), 1, (late, n_states - 1), 0),
    ]


def long_sums(mdp, phi, w, mask, ends, start, beta=1.0, length=400):
    """E log Z(s_0) and E[sum of features], from sums over all paths of up to `length` steps.

    Dense and without a linear system: Z_n(s) is the weight of the paths of n steps that end, and
    Y_n(s) the same with their feature sums.
    """
    step = mdp.dense() * (mask * np.exp(phi @ w / beta))[:, :, None]
    step[ends] = 0.0
    z, y = ends.astype(float), np.zeros((mdp.n_states, phi.shape[2]))
    total_z, total_y = z.copy(), y.copy()
    for _ in range(length):
        y = np.einsum("sat,sak,t->sk", step, phi, z) + np.einsum("sat,tk->sk", step, y)
        z = np.einsum("sat,t->s", step, z)
        total_z, total_y = total_z + z, total_y + y
    assert z.max() < 1e-14 * total_z.max()
    begins = start > 0
    value = beta * start[begins] @ np.log(total_z[begins])
    return value, start[begins] @ (total_y[begins] / total_z[begins, None])


def as_mask(states, n_states=6):
    ends = np.zeros(n_states, dtype=bool)
    ends[np.atleast_1d(states)] = True
    return ends


def as_distribution(start, n_states=6):
    return np.eye(n_states)[start] if np.ndim(start) == 0 else start


# ---------------------------------------------------------------- value, gradient, Hessian


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.booleans(), st.sampled_from([0.7, 1.0, 1.5]))
def test_the_joint_dual_is_a_mean_of_long_sums(seed, deterministic, beta):
    mdp, phi, mask = town(seed, deterministic=deterministic)
    groups, w = some_groups(seed), beta * COSTLY
    value, slope = path_dual(w, mdp, phi, groups, beta=beta, reference=mask)
    total = sum(g.count for g in groups)
    exact, expected = 0.0, np.zeros(3)
    for group in groups:
        v, mean = long_sums(
            mdp, phi, w, mask, as_mask(group.goal), as_distribution(group.start), beta
        )
        exact += group.count / total * (v - w @ group.expert_features)
        expected += group.count / total * (mean - group.expert_features)
    assert value == pytest.approx(exact, abs=1e-10)
    np.testing.assert_allclose(slope, expected, atol=1e-10)


def one_way_town():
    """Four blocks by four, streets one way right and down: finitely many paths, all enumerable."""
    rng = np.random.default_rng(3)
    moves = np.zeros((16, 2, 16))
    mask = np.zeros((16, 2))
    for r, c in np.ndindex(4, 4):
        s = 4 * r + c
        for a, (down, right) in enumerate([(0, 1), (1, 0)]):
            inside = r + down < 4 and c + right < 4
            moves[s, a, s + 4 * down + right if inside else s] = 1.0
            mask[s, a] = inside
    return TabularMDP.create(moves, np.zeros(16), discount=1.0), rng.normal(size=(16, 2, 2)), mask


def walks_from(mdp, mask, s, goal):
    """All ([(s, a), ...]) from s that end when they first enter `goal`."""
    if s == goal:
        yield []
        return
    for a in np.flatnonzero(mask[s]):
        after = int(mdp.transitions.indices[s * mdp.n_actions + a])
        for rest in walks_from(mdp, mask, after, goal):
            yield [(s, int(a)), *rest]


def test_the_joint_likelihood_is_that_of_enumerated_walks():
    mdp, phi, mask = one_way_town()
    w, beta = np.array([0.8, -0.6]), 1.3
    rng = np.random.default_rng(0)
    shown, log_likelihood, slope = [], 0.0, np.zeros(2)
    for start, goal, n in [(0, 15, 7), (1, 15, 2), (4, 10, 3), (0, 5, 1)]:
        every = list(walks_from(mdp, mask, start, goal))
        sums = np.array([sum(phi[s, a] for s, a in walk) for walk in every])
        weight = np.exp(sums @ w / beta)
        chance = weight / weight.sum()
        for i in rng.choice(len(every), size=n):
            states = [s for s, _ in every[i]] + [goal]
            shown.append((states, [a for _, a in every[i]]))
            log_likelihood += np.log(chance[i])
            slope += (sums[i] - chance @ sums) / beta
    groups = group_by_goal(Trajectories.from_list(shown), mdp, phi, reference=mask)
    assert [g.goal for g in groups] == [5, 10, 15] and [g.count for g in groups] == [1, 3, 9]
    for dual in (path_dual, causal_dual):
        value, down = dual(w, mdp, phi, groups, beta=beta, reference=mask)
        assert -13 / beta * value == pytest.approx(log_likelihood, abs=1e-12)
        np.testing.assert_allclose(-13 / beta * down, slope, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.booleans())
def test_gradient_and_hessian_are_finite_differences(seed, deterministic):
    mdp, phi, mask = town(seed, deterministic=deterministic)
    groups = some_groups(seed)
    keywords = dict(beta=1.2, reference=mask)
    value, slope = path_dual(COSTLY, mdp, phi, groups, **keywords)
    numeric = gradient(lambda w: path_dual(w, mdp, phi, groups, **keywords)[0], COSTLY)
    np.testing.assert_allclose(slope, numeric, atol=1e-6)
    hessian = path_hessian(COSTLY, mdp, phi, groups=groups, **keywords)
    numeric = np.array(
        [
            gradient(lambda w, k=k: path_dual(w, mdp, phi, groups, **keywords)[1][k], COSTLY)
            for k in range(3)
        ]
    )
    np.testing.assert_allclose(hessian, numeric, atol=1e-5)
    assert np.linalg.eigvalsh(hessian).min() >= -1e-12


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.booleans())
def test_together_is_what_goal_by_goal_in_logs_gives(seed, deterministic):
    mdp, phi, mask = town(seed, 8, deterministic=deterministic)
    groups = some_groups(seed, 8)
    together, apart = (PathModel(mdp, phi, groups, None, 1.0, mask) for _ in range(2))
    apart.shared.solve = lambda *_: None
    one, other = together.evaluate(COSTLY), apart.evaluate(COSTLY)
    assert (together.apart, apart.apart) == (1, 4)  # two states for a goal are solved apart
    assert one.value == pytest.approx(other.value, abs=1e-11)
    np.testing.assert_allclose(one.gradient, other.gradient, atol=1e-11)
    np.testing.assert_allclose(together.hessian(one.plan), apart.hessian(other.plan), atol=1e-10)
    policies = together.policy(one.plan), apart.policy(other.plan)
    assert policies[0].shape == (4, 8, 3)
    seen = together.shared.edges.reached_from(np.arange(8) < 2)
    np.testing.assert_allclose(policies[0][:, seen], policies[1][:, seen], atol=1e-11)


def test_one_group_is_the_fit_to_its_feature_expectations():
    corridor = envs.gridworld(4, 4, discount=1.0)
    phi = (~corridor.terminal).astype(float)[:, None]
    plain = fit_max_ent_paths(corridor, phi, [8.0], initial_weights=[-3.0], tolerance=1e-9)
    grouped = fit_max_ent_paths(
        corridor, phi, [Group([8.0], 50)], initial_weights=[-3.0], tolerance=1e-9
    )
    np.testing.assert_allclose(grouped.weights, plain.weights, atol=1e-8)
    np.testing.assert_allclose(grouped.policy[0], plain.policy, atol=1e-8)
    assert plain.covariance is None and grouped.standard_errors.shape == (1,)


# ---------------------------------------------------------------- the domain, goal by goal


def test_a_goal_may_cut_the_loop_that_all_paths_together_do_not_survive():
    """0 -> 1 -> 0 gains, but walks to 1 end before they go round, and walks to 2 are not asked."""
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 1] = moves[0, 1, 1] = moves[1, 0, 0] = moves[1, 1, 2] = moves[2, :, 2] = 1.0
    mdp = TabularMDP.create(moves, np.zeros(3), discount=1.0)
    phi = np.ones((3, 2, 1))
    w = np.array([0.1])
    value, slope = path_dual(w, mdp, phi, [Group([0.0], 1, 1, 0)])
    assert value == pytest.approx(0.1 + np.log(2)) and slope[0] == pytest.approx(1.0)
    fitted = fit_max_ent_paths(mdp, phi, [Group([1.0], 1, 1, 0)], initial_weights=w)
    assert fitted.report.method == "paths newton (1 of 1 groups apart)"
    assert np.isinf(fitted.standard_errors[0])  # each walk has one step: the weight is free
    with pytest.raises(
        DivergentPartitionError, match=r"group 1 \(its goal, state 2\): .*about 1.5"
    ):
        path_dual(w, mdp, phi, [Group([0.0], 1, 1, 0), Group([0.0], 1, 2, 0)])


@pytest.mark.parametrize("cost", [-300.0, -3000.0])
def test_weights_that_underflow_are_solved_in_logs(cost):
    """Five steps cost 1,500 or 15,000: Z is 0 in floating point."""
    mdp, phi, mask = town(1)
    groups = [Group(np.zeros(3), 1, 5, 0), Group(np.zeros(3), 1, 1, 0)]
    w = np.array([0.0, 0.0, cost])
    with np.errstate(over="raise", invalid="raise"):
        value, slope = path_dual(w, mdp, phi, groups, reference=mask)
    steps = [planning.modified_policy_iteration(world_to(mdp, mask, g.goal)) for g in groups]
    shortest = np.mean([-plan.values[0] for plan in steps])
    assert slope[2] == pytest.approx(shortest)
    assert value == pytest.approx(cost * shortest, rel=1e-3)


def world_to(mdp, mask, goal):
    """A step costs 1, a forbidden one 100, until the goal."""
    cost = np.where(mask, -1.0, -100.0) * (np.arange(mdp.n_states) != goal)[:, None]
    return end_in(mdp, as_mask(goal, mdp.n_states), mdp.start).with_reward(cost)


def test_a_start_that_cannot_reach_its_goal_is_named():
    moves = np.zeros((3, 1, 3))
    moves[0, 0, 1] = moves[1, 0, 0] = moves[2, 0, 2] = 1.0
    mdp = TabularMDP.create(moves, np.zeros(3), discount=1.0)
    with pytest.raises(
        DivergentPartitionError, match="no path from start state 0 ends in its goal"
    ):
        path_dual([-1.0], mdp, np.ones((3, 1)), [Group([0.0], 1, 1, 0), Group([0.0], 1, 2, 0)])


# ---------------------------------------------------------------- masks and dead states


def test_a_forbidden_action_is_one_that_is_not_there():
    mdp, phi, _ = town(2)
    mask = np.ones((6, 3))
    mask[:, 2] = 0.0
    smaller = TabularMDP.create(mdp.dense()[:, :2], np.zeros(6), discount=1.0)
    groups = some_groups(0)
    for dual in (path_dual, causal_dual):
        one = dual(COSTLY, mdp, phi, groups, reference=mask)
        other = dual(COSTLY, smaller, phi[:, :2], groups)
        assert one[0] == pytest.approx(other[0], abs=1e-12)
        np.testing.assert_allclose(one[1], other[1], atol=1e-11)


@pytest.mark.parametrize("horizon", [None, 6])
def test_a_mask_works_without_groups_too_and_weights_are_a_gain(horizon):
    mdp = random_mdp(4, 6, 3, discount=1.0)
    rng = np.random.default_rng(0)
    phi = np.concatenate([rng.normal(size=(6, 3, 1)), np.ones((6, 3, 1))], axis=2)
    w, beta = np.array([0.4, -2.0]), 0.8
    mask = np.array([1.0, 0.0, 1.0]) * np.ones((6, 1))
    fewer = TabularMDP.create(
        mdp.dense()[:, [0, 2]], np.zeros(6), start=mdp.start, discount=1.0, terminal=mdp.terminal
    )
    one = path_dual(w, mdp, phi, None, horizon=horizon, beta=beta, reference=mask)
    other = path_dual(w, fewer, phi[:, [0, 2]], None, horizon=horizon, beta=beta)
    assert one[0] == pytest.approx(other[0])
    np.testing.assert_allclose(one[1], other[1], atol=1e-10)
    measure = rng.uniform(0.5, 1.0, size=(6, 3))
    paid = np.concatenate([phi, beta * np.log(measure)[..., None]], axis=2)
    one = path_dual(w, mdp, phi, None, horizon=horizon, beta=beta, reference=measure)
    other = path_dual(np.append(w, 1.0), mdp, paid, None, horizon=horizon, beta=beta)
    assert one[0] == pytest.approx(other[0])
    np.testing.assert_allclose(one[1], other[1][:2], atol=1e-10)
    if horizon is None:
        fitted = fit_max_ent_paths(
            mdp, phi, one[1], beta=beta, reference=measure, initial_weights=[0.0, -3.0]
        )
        np.testing.assert_allclose(fitted.weights, w, atol=1e-4)


def with_dead_states():
    """0 -> 1 -> end (2). Nobody comes to 3, whose loop gains; 4 has no allowed action at all."""
    moves = np.zeros((5, 2, 5))
    moves[0, 0, 1] = moves[0, 1, 0] = moves[1, 0, 2] = moves[1, 1, 0] = moves[2, :, 2] = 1.0
    moves[3, 0, 3] = moves[3, 1, 2] = 1.0
    moves[4, :, 4] = 1.0
    mask = np.ones((5, 2))
    mask[4] = 0.0
    phi = np.full((5, 2, 1), 1.0)
    phi[3, 0] = -1.0  # w < 0: going round 3 pays
    mdp = TabularMDP.create(moves, np.zeros(5), start=0, discount=1.0, terminal=[2])
    return mdp, phi, mask


def test_dead_states_that_nobody_reaches_are_no_fault():
    mdp, phi, mask = with_dead_states()
    small = TabularMDP.create(
        mdp.dense()[:3, :, :3], np.zeros(3), start=0, discount=1.0, terminal=[2]
    )
    w = np.array([-1.5])
    for dual in (path_dual, causal_dual):
        right = dual(w, small, phi[:3], [5.0])
        for expert in ([5.0], [Group([5.0], 3)], [Group([5.0], 3, 2, 0)]):
            got = dual(w, mdp, phi, expert, reference=mask)
            assert got[0] == pytest.approx(right[0]) and got[1] == pytest.approx(right[1])
    for fit in (fit_max_ent_paths, fit_max_causal_ent):
        found = fit(mdp, phi, [5.0], reference=mask, initial_weights=[-2.0])
        assert found.gap <= 1e-6
        rho = planning.occupancy_measure(Causal(mdp, phi, None, None, 1.0, mask).mdp, found.policy)
        assert rho.sum() == pytest.approx(5.0, abs=1e-5)
    for horizon, discount in ((4, 1.0), (None, 0.9), (4, 0.9)):
        world, less = mdp.with_discount(discount), small.with_discount(discount)
        got = causal_dual(w, world, phi, [5.0], horizon=horizon, reference=mask)
        right = causal_dual(w, less, phi[:3], [5.0], horizon=horizon)
        assert got[0] == pytest.approx(right[0]) and got[1] == pytest.approx(right[1])


def test_dead_states_that_somebody_reaches_are_refused():
    mdp, phi, mask = with_dead_states()
    reached = TabularMDP.create(
        mdp.transitions, np.zeros(5), start=[0.5, 0, 0, 0, 0.5], discount=1.0, terminal=[2]
    )
    with pytest.raises(InvalidPolicyError, match="forbids every action in state 4"):
        causal_dual([-1.5], reached, phi, [5.0], reference=mask)
    with pytest.raises(ImproperPolicyError, match="state 4"):
        causal_dual([-1.5], reached, phi, [5.0])
    with pytest.raises(DivergentPartitionError, match="no path from start state 4"):
        path_dual([-1.5], reached, phi, [5.0], reference=mask)


def test_the_growth_in_the_message_is_that_of_paths_that_end():
    """The corridor's own loop gains exactly 1 a step; 2, which never ends, would say 2."""
    moves = np.zeros((4, 2, 4))
    moves[0, 0, 3] = moves[0, 1, 1] = moves[1, 0, 0] = moves[1, 1, 2] = 1.0
    moves[2, :, 2] = 1.0
    mdp = TabularMDP.create(moves, np.zeros(4), start=0, discount=1.0, terminal=[3])
    with pytest.raises(DivergentPartitionError, match="by about 1, which"):
        path_dual([0.0], mdp, np.ones((4, 1)), None)
    assert np.isfinite(path_dual([-0.01], mdp, np.ones((4, 1)), None)[0])


# ---------------------------------------------------------------- the causal model


def test_where_moves_are_random_each_goal_has_its_own_soft_policy():
    mdp, phi, mask = town(5, deterministic=False)
    groups = some_groups(1)
    total = sum(g.count for g in groups)
    for horizon, discount in ((None, 1.0), (None, 0.9), (7, 1.0)):
        world = mdp.with_discount(discount)
        keywords = dict(horizon=horizon, beta=1.1, reference=mask)
        value, slope = causal_dual(COSTLY, world, phi, groups, **keywords)
        exact, expected, policies = 0.0, np.zeros(3), []
        for g in groups:
            alone = end_in(world, as_mask(g.goal), as_distribution(g.start))
            v, d = causal_dual(COSTLY, alone, phi, g.expert_features, **keywords)
            exact, expected = exact + g.count / total * v, expected + g.count / total * d
            policies.append(alone)
        assert value == pytest.approx(exact)
        np.testing.assert_allclose(slope, expected, atol=1e-12)
        feasible = [
            Group(causal_dual(COSTLY, a, phi, None, **keywords)[1], g.count, g.goal, g.start)
            for a, g in zip(policies, groups, strict=True)
        ]
        found = fit_max_causal_ent(
            world, phi, feasible, **keywords, initial_weights=[0, 0, -3.0], tolerance=1e-8
        )
        np.testing.assert_allclose(found.weights, COSTLY, atol=1e-4)
        assert found.policy.shape == (4, *(() if horizon is None else (7,)), 6, 3)
        assert found.covariance is None  # the dual is not the likelihood here


def test_with_certain_moves_and_a_horizon_the_errors_are_those_of_the_likelihood():
    mdp, phi, mask = one_way_town()
    w = np.array([0.8, -0.6])
    goals = [
        Group(
            causal_dual(
                w,
                end_in(mdp, as_mask(g, 16), np.eye(16)[0]),
                phi,
                None,
                horizon=6,
                reference=np.where(mask.any(axis=1)[:, None], mask, 1.0),
            )[1],
            20,
            g,
            0,
        )
        for g in (15, 10)
    ]
    reference = np.where(mask.any(axis=1)[:, None], mask, 1.0)
    found = fit_max_causal_ent(mdp, phi, goals, horizon=6, reference=reference, tolerance=1e-9)
    hessians = [
        causal_hessian(
            found.weights,
            end_in(mdp, as_mask(g.goal, 16), np.eye(16)[0]),
            phi,
            horizon=6,
            reference=reference,
        )
        for g in goals
    ]
    np.testing.assert_allclose(found.weights, w, atol=1e-6)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(20 * sum(hessians)), rtol=1e-6)


def test_the_causal_model_refuses_other_ends_beside_a_goal():
    mdp = random_mdp(0, 6, 2, discount=1.0)
    with pytest.raises(InvalidMDPError, match="also ends in state 5"):
        causal_dual([1.0], mdp, np.ones((6, 1)), [Group([1.0], 1, 3, 0)], horizon=3)


# ---------------------------------------------------------------- how sure


def simulate(mdp, phi, mask, w, goals, n, rng):
    """n walks to each goal from uniform starts, sampled from the path model."""
    pairs = []
    for goal in goals:
        start = (np.arange(mdp.n_states) != goal) / (mdp.n_states - 1)
        model = PathModel(mdp, phi, [Group(np.zeros(len(w)), 1, goal, start)], None, 1.0, mask)
        policy = model.policy(model.evaluate(w).plan)[0]
        world = end_in(mdp, as_mask(goal, mdp.n_states), start)
        pairs += list(sample_trajectories(world, policy, n, 10_000, rng))
    return Trajectories.from_list(pairs)


def test_standard_errors_are_those_of_a_numerical_hessian():
    mdp, phi, mask = town(7)
    rng = np.random.default_rng(0)
    walks = simulate(mdp, phi, mask, COSTLY, [5, 3], 40, rng)
    groups = group_by_goal(walks, mdp, phi, reference=mask)
    found = fit_max_ent_paths(
        mdp, phi, groups, reference=mask, initial_weights=[0, 0, -3.0], tolerance=1e-9
    )

    def slope(w):  # of the joint log-likelihood, walk by walk
        total = np.zeros(3)
        for states, actions in walks:
            one = [Group(phi[states[:-1], actions].sum(axis=0), 1, int(states[-1]), int(states[0]))]
            total -= path_dual(w, mdp, phi, one, reference=mask)[1]
        return total

    np.testing.assert_allclose(slope(found.weights), 0.0, atol=1e-5)
    numeric = np.array(
        [(slope(found.weights + e) - slope(found.weights - e)) / 2e-4 for e in 1e-4 * np.eye(3)]
    )
    np.testing.assert_allclose(found.covariance, np.linalg.inv(-numeric), rtol=1e-4)
    np.testing.assert_allclose(found.standard_errors**2, np.diag(found.covariance))
    same = fit_max_causal_ent(
        mdp, phi, groups, reference=mask, initial_weights=[0, 0, -3.0], tolerance=1e-9
    )
    np.testing.assert_allclose(same.covariance, found.covariance, rtol=1e-5)
    ridge = fit_max_ent_paths(
        mdp, phi, groups, reference=mask, initial_weights=[0, 0, -3.0], l2=0.5
    )
    hessian = path_hessian(ridge.weights, mdp, phi, groups=groups, reference=mask)
    np.testing.assert_allclose(
        ridge.covariance, np.linalg.inv(80 * (hessian + 0.5 * np.eye(3))), rtol=1e-6
    )


def test_intervals_cover_the_truth_as_often_as_they_say():
    """400 fits of 3 weights: of 1,200 intervals of 90 % about 1,080 cover, give or take 4 s.e."""
    mdp, phi, mask = town(8)
    covered, fits = 0, 400
    for seed in range(fits):
        walks = simulate(mdp, phi, mask, COSTLY, [5, 2], 60, np.random.default_rng(seed))
        groups = group_by_goal(walks, mdp, phi, reference=mask)
        found = fit_max_ent_paths(mdp, phi, groups, reference=mask, initial_weights=COSTLY)
        covered += (np.abs(found.weights - COSTLY) <= 1.645 * found.standard_errors).sum()
    spread = np.sqrt(3 * 0.9 * 0.1 * fits * 3)  # the three of one fit are not independent
    assert abs(covered - 0.9 * 3 * fits) <= 3 * spread, covered / (3 * fits)


def test_a_weight_that_no_walk_can_tell_has_an_infinite_error():
    mdp, phi, mask = one_way_town()  # all walks between two corners are equally long
    phi = np.concatenate([phi, np.ones((16, 2, 1))], axis=2)
    groups = [
        Group(
            path_dual(
                [0.5, 0.5, 0],
                end_in(mdp, as_mask(15, 16), np.eye(16)[0]),
                phi,
                None,
                reference=mask,
            )[1],
            30,
            15,
            0,
        )
    ]
    found = fit_max_ent_paths(mdp, phi, groups, reference=mask)
    assert np.isfinite(found.standard_errors).tolist() == [True, True, False]


# ---------------------------------------------------------------- reading demonstrations


def test_groups_hold_counts_means_goals_and_starts():
    mdp, phi, mask = one_way_town()
    walks = Trajectories.from_list(
        [([0, 1, 2], [0, 0]), ([4, 5, 6, 10], [0, 0, 1]), ([1, 2], [0]), ([0, 4, 5], [1, 0])]
    )
    first, second, third = group_by_goal(walks, mdp, phi, reference=mask)
    assert (first.goal, second.goal, third.goal) == (2, 5, 10)
    assert (first.count, second.count, third.count) == (2, 1, 1)
    np.testing.assert_allclose(first.expert_features, (phi[0, 0] + phi[1, 0] + phi[1, 0]) / 2)
    np.testing.assert_allclose(first.start[:2], [0.5, 0.5])
    on_states = np.random.default_rng(0).normal(size=(16, 2))
    on_states = group_by_goal(walks, mdp, on_states)[2].expert_features, on_states
    np.testing.assert_allclose(on_states[0], on_states[1][[4, 5, 6]].sum(axis=0))
    world = end_in(mdp, as_mask([2, 6], 16), np.eye(16)[0])
    walks = Trajectories.from_list(
        [([0, 1, 2], [0, 0]), ([4, 5, 6], [0, 0]), ([1, 5, 6], [1, 0]), ([0, 4, 5, 6], [1, 0, 0])]
    )
    starts = group_by_start(walks, world, phi)
    assert [g.count for g in starts] == [2, 1, 1] and [g.goal for g in starts] == [None] * 3
    assert [int(np.argmax(g.start)) for g in starts] == [0, 1, 4]
    together = sum(g.count * g.expert_features for g in starts)
    np.testing.assert_allclose(together, 4 * walks.feature_expectations(phi, 2))


@pytest.mark.parametrize(
    ("walk", "message"),
    [
        (([0, 1, 3], [0, 0]), "trajectory 1, step 1: state 1, action 0 cannot lead to state 3"),
        (([0, 16], [0]), "trajectory 1, step 1: state 16 is outside"),
        (([3, 3], [0]), "trajectory 1 passes its goal, state 3, at step 0"),
        (([3, 3, 7], [0, 1]), "trajectory 1, step 0: action 0 in state 3 is forbidden"),
    ],
)
def test_walks_that_do_not_fit_are_named(walk, message):
    mdp, phi, mask = one_way_town()
    with pytest.raises(InvalidTrajectoryError, match=message):
        group_by_goal(Trajectories.from_list([([0, 1], [0]), walk]), mdp, phi, reference=mask)


def test_a_walk_that_does_not_end_has_no_group_by_start():
    mdp = random_mdp(0, 4, 2, discount=1.0)
    walk = sample_trajectories(mdp, np.full((4, 2), 0.5), 20, 1, np.random.default_rng(0))
    with pytest.raises(InvalidTrajectoryError, match="which is not terminal"):
        group_by_start(walk, mdp, np.ones((4, 1)))


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([Group([1.0], 0, 3, 0)], InvalidTrajectoryError, "group 0 counts 0 walks"),
        ([Group([1.0], np.nan, 3, 0)], InvalidTrajectoryError, "group 0 counts nan"),
        ([Group([1.0], 1, None, 0)], InvalidMDPError, "group 0 names no goal"),
        ([Group([1.0], 1, 16, 0)], InvalidMDPError, "group 0 has the goal 16"),
        ([Group([1.0], 1, -1, 0)], InvalidMDPError, "group 0 has the goal -1"),
        ([Group([1.0], 1, 1.5, 0)], InvalidMDPError, "group 0 has the goal 1.5"),
        ([Group([1.0], 1, (), 0)], InvalidMDPError, "group 0 has the goal"),
        ([Group([1.0], 1, 3, 3)], InvalidTrajectoryError, "group 0 starts in its goal, state 3"),
        ([Group([1.0], 1, 3, 99)], InvalidMDPError, "start state 99"),
        ([Group([1.0], 1, 3, np.ones(16))], NotStochasticError, "start must be a distribution"),
        ([Group([1.0, 2.0], 1, 3, 0)], ShapeError, "expert_features have shape"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, error, message):
    mdp, _, mask = one_way_town()
    for fit in (fit_max_ent_paths, fit_max_causal_ent):
        with pytest.raises(error, match=message):
            fit(mdp, np.ones((16, 1)), groups, reference=mask)


def test_groups_have_no_horizon_in_the_path_model():
    mdp, phi, _ = one_way_town()
    with pytest.raises(InvalidHyperparameterError, match="leave out the horizon"):
        fit_max_ent_paths(mdp, phi, [Group(np.zeros(2), 1, 15, 0)], horizon=5)


def test_walks_shorter_than_any_path_are_proved_impossible():
    mdp, _, mask = one_way_town()
    groups = [Group([6.0], 1, 15, 0), Group([3.0], 1, 10, 0)]  # 10 is four steps away
    with pytest.raises(UnreachableFeaturesError, match="earn -4.5 and the best policy earns -5"):
        fit_max_ent_paths(mdp, np.ones((16, 1)), groups, reference=mask)


# ---------------------------------------------------------------- the edge of the causal domain


def test_a_trial_too_near_the_edge_is_a_step_back_and_not_the_end_of_the_fit():
    """The soft values there are so large that rounding hides the solver's own tolerance."""
    rng = np.random.default_rng(0)
    for seed in range(4):
        grid = envs.gridworld(8, 8, discount=1.0, slip=0.1 * (seed % 2))
        phi = np.column_stack([np.ones(64), rng.random((64, 3))]) * ~grid.terminal[:, None]
        world = grid.with_reward(phi @ np.array([-2.2, -0.5, 0.3, 0.2]))
        rho = planning.occupancy_measure(world, planning.soft_policy_iteration(world).policy)
        slow = 3 * planning.feature_expectations(rho, phi)
        found = fit_max_causal_ent(
            grid, phi, slow, initial_weights=[-3.0, 0, 0, 0], l2=1e-3, tolerance=1e-6
        )
        assert found.report.converged
