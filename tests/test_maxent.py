"""Maximum causal entropy IRL against finite differences, enumeration, LPs and planted bugs.

The dual of chapter 6: g(w) = V_w(p_0) - w . mu_E, gradient mu(pi_w) - mu_E.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import enumerated_occupancy, gradient, jacobian, soft_dp
from scipy import sparse
from scipy.optimize import linprog
from scipy.special import softmax
from strategies import mdps, random_mdp, random_policy, random_reference, shuffle

from irlbook import envs, planning
from irlbook.errors import (
    DivergentPartitionError,
    InvalidHyperparameterError,
    InvalidPolicyError,
    InvalidTrajectoryError,
    NotConvergedError,
    NotFiniteError,
    ShapeError,
    UnreachableFeaturesError,
)
from irlbook.irl.maxent import causal_dual, causal_hessian, fit_max_causal_ent, log_likelihood
from irlbook.mdp import TabularMDP, Trajectories, sample_trajectories

SEEDS = st.integers(0, 10**6)
quick = settings(max_examples=25)


def draw_features(mdp, kind, seed, count=3):
    """On states or on pairs, dense or sparse; non-zero on terminal states too."""
    rng = np.random.default_rng(seed)
    shape = (mdp.n_states, count) if "states" in kind else (*mdp.reward.shape, count)
    phi = rng.normal(size=shape)
    return sparse.csr_array(phi.reshape(-1, count)) if "sparse" in kind else phi


KINDS = st.sampled_from(["states", "pairs", "sparse states", "sparse pairs"])


def dense_features(mdp, phi):
    """(S, A, K), zero where nothing is collected."""
    full = phi.toarray() if sparse.issparse(phi) else phi
    if full.shape[0] == mdp.n_states and full.ndim == 2 and mdp.n_actions >= 1:
        full = np.repeat(full[:, None], mdp.n_actions, axis=1)
    return full.reshape(*mdp.reward.shape, -1) * ~mdp.terminal[:, None, None]


def soft_policy(mdp, phi, w, horizon=None, **keywords):
    world = mdp.with_reward(dense_features(mdp, phi) @ w)
    if horizon is None:
        return planning.soft_policy_iteration(world, **keywords).policy
    return planning.soft_backward_induction(world, horizon, **keywords).policy


# ---------------------------------------------------------------- gradient and Hessian


@given(mdps(max_states=4), KINDS, SEEDS, st.sampled_from([None, 1, 4]), st.booleans())
def test_gradient_and_hessian_are_finite_differences(mdp, kind, seed, horizon, with_reference):
    rng = np.random.default_rng(seed)
    phi, beta = draw_features(mdp, kind, seed), float(rng.choice([0.3, 1.0, 4.0]))
    w, expert = rng.normal(size=3), rng.normal(size=3)
    keywords = dict(horizon=horizon, beta=beta)
    if with_reference:
        keywords["reference"] = random_reference(mdp, seed)

    def dual(w):
        return causal_dual(w, mdp, phi, expert, **keywords)

    value, slope = dual(w)
    scale = 1 + np.abs(slope).max()
    np.testing.assert_allclose(slope, gradient(lambda w: dual(w)[0], w), atol=1e-6 * scale)
    hessian = causal_hessian(w, mdp, phi, **keywords)
    by_differences = jacobian(lambda w: dual(w)[1], w)
    np.testing.assert_allclose(hessian, by_differences, atol=1e-5 * (1 + np.abs(hessian).max()))
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-9 * (1 + np.abs(hessian).max()))
    assert np.linalg.eigvalsh(hessian).min() >= -1e-9 * (1 + np.abs(hessian).max())  # convex


@quick
@given(mdps(max_states=3), KINDS, SEEDS)
def test_value_and_gradient_by_enumeration_of_all_trajectories(mdp, kind, seed):
    horizon, beta = 3, 0.7
    rng = np.random.default_rng(seed)
    phi, reference = draw_features(mdp, kind, seed), random_reference(mdp, seed)
    w, expert = rng.normal(size=3), rng.normal(size=3)
    full = dense_features(mdp, phi)
    values, policy = soft_dp(mdp.with_reward(full @ w), horizon, beta, reference)
    rho = enumerated_occupancy(mdp, policy, horizon)
    value, slope = causal_dual(w, mdp, phi, expert, horizon=horizon, beta=beta, reference=reference)
    assert value == pytest.approx(mdp.start @ values[0] - w @ expert, abs=1e-9)
    np.testing.assert_allclose(slope, np.einsum("sa,sak->k", rho, full) - expert, atol=1e-9)


@pytest.mark.parametrize("discount", [0.9999, 0.99999])
def test_discounts_near_one(discount):
    mdp = random_mdp(0, 6, 2, n_terminal=0, discount=discount)
    phi = draw_features(mdp, "states", 1)
    w = np.array([1.0, 2.0, 3.0])
    expert = np.zeros(3)
    slope = causal_dual(w, mdp, phi, expert)[1]
    numeric = gradient(lambda w: causal_dual(w, mdp, phi, expert)[0], w, h=1e-4)
    np.testing.assert_allclose(slope, numeric, rtol=1e-4)


def test_a_long_horizon_is_the_discounted_dual():
    mdp = random_mdp(1, discount=0.9)
    phi, w, expert = draw_features(mdp, "pairs", 0), np.array([1.0, -2.0, 0.5]), np.zeros(3)
    near, endless = (causal_dual(w, mdp, phi, expert, horizon=T) for T in (300, None))
    assert near[0] == pytest.approx(endless[0], abs=1e-9)
    np.testing.assert_allclose(near[1], endless[1], atol=1e-9)


def test_the_dual_is_the_likelihood_where_moves_are_certain():
    mdp = random_mdp(3, 5, 2, deterministic=True, discount=0.8)
    phi, beta, horizon = draw_features(mdp, "pairs", 0), 0.6, 5
    shown = sample_trajectories(mdp, random_policy(mdp, 1), 30, horizon, np.random.default_rng(0))
    expert = shown.feature_expectations(phi, 2, discount=0.8)
    start = np.bincount([s[0] for s, _ in shown], minlength=5) / len(shown)
    mdp = TabularMDP(mdp.transitions, mdp.reward, start, 0.8, mdp.terminal)
    # with gamma < 1 each step counts gamma^t: weight the log-probabilities likewise
    for w in np.random.default_rng(2).normal(size=(3, 3)):
        policy = soft_policy(mdp, phi, w, horizon, beta=beta)
        log_pi = np.log(policy[shown.steps, shown.acting_states, shown.actions])
        likelihood = (0.8**shown.steps * log_pi).sum() / len(shown)
        value = causal_dual(w, mdp, phi, expert, horizon=horizon, beta=beta)[0]
        assert value == pytest.approx(-beta * likelihood, abs=1e-9)


def test_log_likelihood_by_hand():
    shown = Trajectories.from_list([([0, 1, 2], [0, 1]), ([1, 2], [1])])
    log_policy = np.log([[0.5, 0.5], [0.2, 0.8], [1.0, 1e-9]])
    by_hand = (np.log(0.5) + np.log(0.8) + np.log(0.8)) / 2
    assert log_likelihood(log_policy, shown) == pytest.approx(by_hand)
    over_time = np.stack([log_policy, log_policy + 1.0])
    assert log_likelihood(over_time, shown) == pytest.approx(by_hand + 0.5)
    with pytest.raises(InvalidTrajectoryError, match="2 steps; the policy only 1"):
        log_likelihood(over_time[:1], shown)


# ---------------------------------------------------------------- fits


@pytest.mark.parametrize("horizon", [None, 6])
@pytest.mark.parametrize("solver", ["newton", "lbfgs", "auto"])
@pytest.mark.parametrize("kind", ["states", "sparse pairs"])
def test_fit_recovers_the_policy(horizon, solver, kind):
    for seed in range(4):
        mdp = random_mdp(seed, 8, 3, discount=0.9)
        phi, truth = draw_features(mdp, kind, seed, 4), np.random.default_rng(seed).normal(size=4)
        reference = random_reference(mdp, seed)
        policy = soft_policy(mdp, phi, truth, horizon, beta=0.8, reference=reference)
        rho = planning.occupancy_measure(mdp, policy, horizon)
        expert = np.einsum("sa,sak->k", rho, dense_features(mdp, phi))
        result = fit_max_causal_ent(
            mdp,
            phi,
            expert,
            horizon=horizon,
            beta=0.8,
            reference=reference,
            solver=solver,
            tolerance=1e-8,
        )
        assert result.report.converged and result.gap <= 1e-8
        reached = planning.occupancy_measure(mdp, result.policy, horizon)
        np.testing.assert_allclose(reached, rho, atol=1e-5)
        np.testing.assert_allclose(result.feature_expectations, expert, atol=1e-8)
        np.testing.assert_allclose(result.reward, dense_features(mdp, phi) @ result.weights)


def test_demonstrations_of_varying_length():
    """Demonstrations that end at different times: mu_E is met, by enumeration."""
    mdp = random_mdp(11, 5, 2, n_terminal=2, discount=1.0)
    phi, horizon = draw_features(mdp, "pairs", 3, 2), 7
    truth = np.array([0.6, -0.9])
    policy = soft_policy(mdp, phi, truth, horizon)
    shown = sample_trajectories(mdp, policy, 3_000, horizon, np.random.default_rng(0))
    assert len(np.unique(shown.lengths)) > 3
    expert = shown.feature_expectations(phi, 2)
    result = fit_max_causal_ent(mdp, phi, expert, horizon=horizon)
    by_enumeration = enumerated_occupancy(mdp, result.policy, horizon)
    np.testing.assert_allclose(np.einsum("sa,sak->k", by_enumeration, phi), expert, atol=1e-6)
    np.testing.assert_allclose(result.weights, truth, atol=0.15)
    best = log_likelihood(np.log(result.policy), shown)
    assert best > log_likelihood(np.log(soft_policy(mdp, phi, np.zeros(2), horizon)), shown)


def test_newton_and_lbfgs_meet_and_the_penalty_holds():
    mdp = random_mdp(2, 10, 3, n_terminal=0, discount=0.9)
    phi = draw_features(mdp, "states", 0, 5)
    expert = planning.feature_expectations(
        planning.occupancy_measure(mdp, random_policy(mdp, 5)), phi
    )
    weights = [
        fit_max_causal_ent(mdp, phi, expert, l2=0.3, solver=solver, tolerance=1e-9).weights
        for solver in ("newton", "lbfgs")
    ]
    np.testing.assert_allclose(*weights, atol=1e-7)
    slope = causal_dual(weights[0], mdp, phi, expert)[1]
    np.testing.assert_allclose(slope + 0.3 * weights[0], 0.0, atol=1e-8)


def test_l1_gives_zeros_and_meets_its_optimality_conditions():
    mdp = random_mdp(4, 10, 3, n_terminal=0, discount=0.8)
    phi = draw_features(mdp, "states", 1, 8)
    truth = np.array([2.0, -2.0, 0, 0, 0, 0, 0, 0])
    rho = planning.occupancy_measure(mdp, soft_policy(mdp, phi, truth))
    expert = planning.feature_expectations(rho, phi)
    result = fit_max_causal_ent(mdp, phi, expert, l1=0.2, tolerance=1e-7)
    slope = causal_dual(result.weights, mdp, phi, expert)[1]
    zero = result.weights == 0
    assert zero.sum() >= 3 and (~zero).sum() >= 1
    np.testing.assert_allclose(slope[~zero], -0.2 * np.sign(result.weights[~zero]), atol=1e-6)
    assert (np.abs(slope[zero]) <= 0.2 + 1e-6).all()
    assert result.report.residual <= 1e-7 < result.gap
    everything_off = fit_max_causal_ent(mdp, phi, expert, l1=100.0)
    assert not everything_off.weights.any()


def test_l1_and_l2_together():
    mdp = random_mdp(4, 6, 2, n_terminal=0, discount=0.8)
    phi = draw_features(mdp, "pairs", 1, 4)
    expert = np.array([1.0, -1.0, 0.5, 3.0])
    result = fit_max_causal_ent(mdp, phi, expert, l1=0.1, l2=0.5, tolerance=1e-7)
    w = result.weights
    slope = causal_dual(w, mdp, phi, expert)[1] + 0.5 * w
    assert (
        np.abs(np.where(w == 0, np.maximum(np.abs(slope) - 0.1, 0), slope + 0.1 * np.sign(w))).max()
        < 1e-6
    )


@quick
@given(mdps(discounts=(0.5, 0.9)), SEEDS)
def test_renaming_states_and_actions_keeps_the_weights(mdp, seed):
    other, states, actions = shuffle(mdp, seed)
    phi = draw_features(mdp, "pairs", seed, 2)
    expert = np.einsum("sa,sak->k", planning.occupancy_measure(mdp, random_policy(mdp, seed)), phi)
    renamed = phi[np.ix_(states, actions)]
    for keywords in (dict(l2=0.1), dict(l2=0.1, horizon=4), dict(l2=0.1, solver="lbfgs")):
        plain = fit_max_causal_ent(mdp, phi, expert, tolerance=1e-9, **keywords)
        other_fit = fit_max_causal_ent(other, renamed, expert, tolerance=1e-9, **keywords)
        np.testing.assert_allclose(other_fit.weights, plain.weights, atol=1e-7)
        np.testing.assert_allclose(
            other_fit.policy, plain.policy[..., states, :][..., actions], atol=1e-6
        )


def test_the_goal_may_stand_anywhere():
    """The recovered reward peaks where the expert's goal is: nothing is hard-coded."""
    for goal in (0, 7, 12, 18):
        grid = envs.gridworld(5, 5, slip=0.1, discount=0.9)
        truth = np.eye(25)[goal] * 3
        policy = planning.soft_policy_iteration(grid.with_reward(truth)).policy
        expert = planning.occupancy_measure(grid, policy).sum(axis=1)
        result = fit_max_causal_ent(grid, np.eye(25), expert, l2=1e-6)
        assert result.reward[:, 0].argmax() == goal


def test_a_constant_feature_is_harmless():
    """With no end it moves no choice: the dual is flat along it."""
    mdp = random_mdp(0, 5, 2, n_terminal=0, discount=0.9)
    phi = np.column_stack([draw_features(mdp, "states", 0, 2), np.ones(5)])
    rho = planning.occupancy_measure(mdp, soft_policy(mdp, phi, np.array([1.0, -1.0, 0.0])))
    for solver in ("newton", "lbfgs"):
        result = fit_max_causal_ent(
            mdp, phi, planning.feature_expectations(rho, phi), solver=solver, tolerance=1e-8
        )
        np.testing.assert_allclose(result.weights[:2], [1.0, -1.0], atol=1e-6)


def test_many_features_use_lbfgs_and_still_reach_a_tight_gap():
    mdp = random_mdp(0, 200, 3, n_terminal=0, sparsity=0.97, discount=0.9)
    phi = np.eye(200)
    truth = np.random.default_rng(0).normal(size=200)
    rho = planning.occupancy_measure(mdp, soft_policy(mdp, phi, truth))
    result = fit_max_causal_ent(mdp, phi, rho.sum(axis=1), tolerance=1e-9)
    assert "lbfgs" in result.report.method and result.gap <= 1e-9
    few = fit_max_causal_ent(mdp, phi[:, :20], rho.sum(axis=1)[:20])
    assert "newton" in few.report.method


def test_large_worlds_take_the_iterative_road():
    mdp = envs.garnet(1_700, 3, 3, np.random.default_rng(0), discount=0.9)
    phi = np.random.default_rng(1).normal(size=(1_700, 3))
    truth = np.array([0.5, -0.5, 1.0])
    rho = planning.occupancy_measure(mdp, soft_policy(mdp, phi, truth))
    result = fit_max_causal_ent(mdp, phi, planning.feature_expectations(rho, phi), tolerance=1e-8)
    np.testing.assert_allclose(result.weights, truth, atol=1e-5)


# ---------------------------------------------------------------- the domain


def corridor(cost=-1.0, n_states=5):
    moves = np.zeros((n_states, 2, n_states))
    for s in range(n_states - 1):
        moves[s, 0, s + 1] = moves[s, 1, max(s - 1, 0)] = 1.0
    reward = np.append(np.full(n_states - 1, cost), 0.0)
    return TabularMDP.create(moves, reward, start=0, discount=1.0, terminal=[n_states - 1])


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("steps", [4.5, 6.0, 60.0])
def test_undiscounted_fits_step_back_from_the_edge_of_the_domain(solver, steps):
    """How long the expert took is all we know; the longer, the nearer the edge."""
    phi = np.ones((5, 1))
    result = fit_max_causal_ent(corridor(), phi, [steps], initial_weights=[-2.0], solver=solver)
    assert result.gap <= 1e-6
    rho = planning.occupancy_measure(corridor(), result.policy)
    assert rho.sum() == pytest.approx(steps, abs=1e-4)


def test_a_start_outside_the_domain_is_named():
    with pytest.raises(DivergentPartitionError, match="soft value is infinite"):
        fit_max_causal_ent(corridor(), np.ones((5, 1)), [6.0])


def best_direction_gap(mdp, phi, expert):
    """max over |w|_inf <= 1 of w . mu_E - max_pi w . mu(pi), by one LP; > 0 iff unreachable.

    w . mu_E - p_0 . V subject to V(s) >= w . phi(s,a) + gamma P V, variables (w, V).
    """
    n_features, alive = len(expert), np.flatnonzero(~mdp.terminal)
    moves = mdp.dense()
    rows = []
    for s in alive:
        for a in range(mdp.n_actions):
            flow = mdp.discount * moves[s, a] * ~mdp.terminal
            flow[s] -= 1
            rows.append(np.concatenate([phi[s, a], flow]))
    cost = np.concatenate([-expert, mdp.start * ~mdp.terminal])
    bounds = [(-1, 1)] * n_features + [(None, None)] * mdp.n_states
    done = linprog(cost, A_ub=np.array(rows), b_ub=np.zeros(len(rows)), bounds=bounds)
    return -done.fun


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("horizon", [None, 5])
def test_unreachable_features_come_with_a_true_proof(solver, horizon):
    refused = 0
    for seed in range(6):
        mdp = random_mdp(seed, 6, 2, discount=0.8)
        phi = dense_features(mdp, draw_features(mdp, "pairs", seed, 2))
        inside = np.einsum(
            "sa,sak->k", planning.occupancy_measure(mdp, random_policy(mdp, seed), horizon), phi
        )
        far = inside + 20 * np.random.default_rng(seed).normal(size=2)
        try:
            fit_max_causal_ent(mdp, phi, far, solver=solver, horizon=horizon)
        except UnreachableFeaturesError as error:
            refused += 1
            claimed, best = (float(x) for x in _numbers(str(error)))
            assert claimed > best
        assert horizon is not None or best_direction_gap(mdp, phi, far) > 0
    assert refused == 6


def _numbers(message):
    before, after = message.split("would earn ")[1].split(" and the best policy earns ")
    return before, after.split(". ")[0]


def test_the_proof_is_what_planning_says():
    mdp = random_mdp(0, 6, 2, discount=0.8)
    phi = dense_features(mdp, draw_features(mdp, "pairs", 0, 1))
    best = planning.policy_iteration(mdp.with_reward(phi[..., 0]))
    most = float(mdp.start @ best.values)
    with pytest.raises(UnreachableFeaturesError) as caught:
        fit_max_causal_ent(mdp, phi, [most + 0.5])
    claimed, earned = (float(x) for x in _numbers(str(caught.value)))
    assert claimed == pytest.approx(most + 0.5, rel=1e-5) and earned == pytest.approx(
        most, rel=1e-5
    )


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_a_deterministic_expert_is_reachable_but_only_in_the_limit(solver):
    """On the boundary no false proof is given, and a penalty mends it."""
    for seed in range(4):
        mdp = random_mdp(seed, 6, 3, discount=0.9)
        phi = dense_features(mdp, draw_features(mdp, "pairs", seed, 3))
        expert_reward = mdp.with_reward(phi @ np.array([1.0, -0.5, 2.0]))
        policy = planning.policy_iteration(expert_reward).policy
        expert = np.einsum("sa,sak->k", planning.occupancy_measure(mdp, policy), phi)
        assert best_direction_gap(mdp, phi, expert) < 1e-7
        try:
            result = fit_max_causal_ent(mdp, phi, expert, solver=solver, tolerance=1e-12)
            assert np.abs(result.weights).max() > 5
        except NotConvergedError as error:
            assert "|w| =" in str(error) and "add an l2 penalty" in str(error)
        softened = fit_max_causal_ent(mdp, phi, expert, solver=solver, l2=1e-3)
        soft_value = planning.expected_return(expert_reward, softened.policy)
        assert soft_value <= planning.expected_return(expert_reward, policy) + 1e-9


def test_an_unreached_tolerance_is_loud():
    mdp = random_mdp(0, 6, 2, discount=0.9)
    phi = draw_features(mdp, "states", 0, 3)
    expert = planning.feature_expectations(
        planning.occupancy_measure(mdp, soft_policy(mdp, phi, np.array([1.0, 2.0, 3.0]))), phi
    )
    with pytest.raises(NotConvergedError, match=r"causal newton stopped after 1 iterations"):
        fit_max_causal_ent(mdp, phi, expert, max_iterations=1)
    with pytest.raises(NotConvergedError, match="optimality gap"):
        fit_max_causal_ent(mdp, phi, expert, tolerance=1e-18, solver="lbfgs")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(features=np.zeros((5, 2))), ShapeError, r"features have shape \(5, 2\)"),
        (dict(features=np.zeros(4)), ShapeError, "features have shape"),
        (dict(features=np.full((4, 2), np.nan)), NotFiniteError, "NaN or infinity"),
        (
            dict(features=sparse.csr_array(np.full((4, 2), np.inf))),
            NotFiniteError,
            "NaN or infinity",
        ),
        (dict(expert_features=np.zeros(3)), ShapeError, r"\(3,\); expected \(2,\)"),
        (dict(expert_features=[np.nan, 0]), ShapeError, "all finite.*same features and discount"),
        (dict(horizon=0), InvalidHyperparameterError, "horizon must be 1 or more"),
        (dict(beta=0.0), InvalidPolicyError, "beta must be positive"),
        (dict(reference=np.zeros((4, 2))), InvalidPolicyError, "forbids every action"),
        (dict(initial_weights=np.zeros(5)), ShapeError, "initial_weights"),
        (dict(solver="adam"), ValueError, '"auto", "newton" or "lbfgs"'),
        (dict(solver="newton", l1=1.0), ValueError, "not smooth"),
    ],
)
def test_fit_refuses(change, error, message):
    keywords = dict(features=np.eye(4)[:, :2], expert_features=np.zeros(2))
    with pytest.raises(error, match=message):
        fit_max_causal_ent(random_mdp(0), **{**keywords, **change})


# ---------------------------------------------------------------- planted bugs
#
# Each takes (mdp, phi (S, K), w, horizon) and returns mu(pi_w) at beta = 1, with one bug of popular
# code in it. The one check that our code passes must fail for every one of them.


def visits_forward(mdp, policy, horizon):
    here, mu = mdp.start * ~mdp.terminal, np.zeros(mdp.n_states)
    for t in range(horizon):
        mu += here
        here = mdp.discount * np.einsum("s,sa,sat->t", here, policy[t], mdp.dense())
        here = here * ~mdp.terminal
    return mu


def plain(mdp, phi, w, horizon):
    """No bug: small and slow."""
    policy = soft_dp(
        mdp.with_reward(phi @ w * ~mdp.terminal), horizon, 1.0, np.ones(mdp.reward.shape)
    )[1]
    return phi.T @ visits_forward(mdp, policy, horizon)


def ours(mdp, phi, w, horizon):
    return causal_dual(w, mdp, phi, np.zeros(len(w)), horizon=horizon)[1]


def hard_max(mdp, phi, w, horizon):
    """max instead of log-sum-exp in the backup, softmax of Q for the policy (MatthewJA #4)."""
    world = mdp.with_reward(phi @ w * ~mdp.terminal)
    policy = softmax(planning.backward_induction(world, horizon).q, axis=2)
    return phi.T @ visits_forward(mdp, policy, horizon)


def wrong_order(mdp, phi, w, horizon):
    """States outside, time inside: a row is finished before its predecessors' are known."""
    policy = soft_dp(
        mdp.with_reward(phi @ w * ~mdp.terminal), horizon, 1.0, np.ones(mdp.reward.shape)
    )[1]
    visits = np.zeros((horizon, mdp.n_states))
    visits[0] = mdp.start * ~mdp.terminal
    for s in np.flatnonzero(~mdp.terminal):
        for t in range(1, horizon):
            flow = np.einsum("p,pa,pa->", visits[t - 1], policy[t - 1], mdp.dense()[:, :, s])
            visits[t, s] = mdp.discount * flow
    return phi.T @ visits.sum(axis=0)


def wrong_time(mdp, phi, w, horizon):
    """The policy of t + 1 is used at t: an index that is off by one."""
    policy = soft_dp(
        mdp.with_reward(phi @ w * ~mdp.terminal), horizon, 1.0, np.ones(mdp.reward.shape)
    )[1]
    late = np.concatenate([policy[1:], policy[-1:]])
    return phi.T @ visits_forward(mdp, late, horizon)


def discount_dropped_in_planning(mdp, phi, w, horizon):
    """Plans with gamma = 1, counts with gamma (irl-benchmark #39, imitation's mce_irl)."""
    world = mdp.with_discount(1.0).with_reward(phi @ w * ~mdp.terminal)
    policy = soft_dp(world, horizon, 1.0, np.ones(mdp.reward.shape))[1]
    return phi.T @ visits_forward(mdp, policy, horizon)


def discount_dropped_in_counting(mdp, phi, w, horizon):
    policy = soft_dp(
        mdp.with_reward(phi @ w * ~mdp.terminal), horizon, 1.0, np.ones(mdp.reward.shape)
    )[1]
    return phi.T @ visits_forward(mdp.with_discount(1.0), policy, horizon)


def naive_partition(mdp, phi, w, horizon):
    """Z = sum exp(r) Z' without a log: 0/0 with costs, overflow with gains (qzed #4)."""
    reward = phi @ w * ~mdp.terminal
    z, policy = np.ones(mdp.n_states), np.zeros((horizon, *mdp.reward.shape))
    with np.errstate(all="ignore"):
        for t in reversed(range(horizon)):
            each = np.exp(reward)[:, None] * np.exp(mdp.discount * (mdp.dense() @ np.log(z)))
            policy[t] = each / each.sum(axis=1, keepdims=True)
            z = np.where(mdp.terminal, 1.0, each.sum(axis=1))
        return phi.T @ visits_forward(mdp, policy, horizon)


def hard_coded_goal(mdp, phi, w, horizon):
    """The last state is taken for the goal, where time stops, whatever `terminal` says."""
    ends = np.arange(mdp.n_states) == mdp.n_states - 1
    moves = np.where(ends[:, None, None], 0.0, mdp.dense())
    moves[mdp.terminal & ~ends] = np.eye(mdp.n_states)[mdp.terminal & ~ends][:, None]
    moved = TabularMDP.create(
        moves, mdp.reward * ~ends[:, None], start=mdp.start, discount=mdp.discount, terminal=ends
    )
    return plain(moved, phi, w, horizon)


BUGS = [
    hard_max,
    wrong_order,
    wrong_time,
    discount_dropped_in_planning,
    discount_dropped_in_counting,
    naive_partition,
    hard_coded_goal,
]


def check_gradient(implementation):
    """Compare mu(pi_w) with the enumeration of all trajectories; costs up to -1000 a step, and the
    terminal state stands in the middle."""
    horizon = 4
    for seed, size in ((0, 1.0), (1, 1.0), (2, 1000.0)):
        mdp = random_mdp(seed, 4, 2, discount=0.7, sparsity=0.3)
        mdp = mdp.permute([0, 3, 2, 1], [1, 0])
        rng = np.random.default_rng(seed)
        phi = rng.random((4, 2))
        w = -size * rng.random(2) - size / 2
        world = mdp.with_reward(phi @ w * ~mdp.terminal)
        policy = soft_dp(world, horizon, 1.0, np.ones(mdp.reward.shape))[1]
        exact = phi.T @ enumerated_occupancy(mdp, policy, horizon).sum(axis=1)
        np.testing.assert_allclose(implementation(mdp, phi, w, horizon), exact, atol=1e-8)


@pytest.mark.parametrize("implementation", [ours, plain])
def test_the_gradient_check_passes(implementation):
    check_gradient(implementation)


@pytest.mark.parametrize("implementation", BUGS)
def test_the_gradient_check_catches(implementation):
    with pytest.raises(AssertionError):
        check_gradient(implementation)


def test_a_reward_that_looks_alike_is_no_proof():
    """The hard-max bug still finds a reward that correlates with the truth."""
    mdp = random_mdp(0, 8, 2, n_terminal=0, discount=0.9)
    phi, truth, horizon = np.eye(8), np.random.default_rng(0).normal(size=8), 8
    expert = plain(mdp, phi, truth, horizon)
    w = np.zeros(8)
    for _ in range(300):
        w -= 0.1 * (hard_max(mdp, phi, w, horizon) - expert)
    assert np.corrcoef(w, truth)[0, 1] > 0.75
    assert np.abs(ours(mdp, phi, w, horizon) - expert).max() > 5e-3
