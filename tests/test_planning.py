"""Planning against enumeration of all trajectories, dense solves, and closed forms.

Equations of chapter 3: soft Bellman, Q = r + gamma P V, V = beta log sum m exp(Q/beta),
pi = m exp((Q - V)/beta).
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    dense_occupancy,
    dense_values,
    enumerated_objective,
    enumerated_occupancy,
    soft_dp,
)
from scipy.special import logsumexp
from strategies import mdps, random_mdp, random_policy, random_reference, shuffle

from irlbook import envs, planning
from irlbook.errors import (
    DivergentPartitionError,
    ImproperPolicyError,
    InvalidHyperparameterError,
    InvalidPolicyError,
    NotConvergedError,
    ShapeError,
)
from irlbook.mdp import TabularMDP

SEEDS = st.integers(0, 10**6)
BETAS = st.sampled_from([0.05, 1.0, 7.0])
HARD = (
    planning.value_iteration,
    planning.policy_iteration,
    planning.modified_policy_iteration,
)
SOFT = (planning.soft_value_iteration, planning.soft_policy_iteration)
quick = settings(max_examples=25)


def close(a, b, atol=1e-7):
    np.testing.assert_allclose(a, b, atol=atol, rtol=1e-9)


# ---------------------------------------------------------------- soft plans, by enumeration


@quick
@given(mdps(max_states=3), SEEDS, BETAS, st.booleans())
def test_soft_plan_is_the_best_by_enumeration(mdp, seed, beta, with_reference):
    """Soft value = E[sum gamma^t (r - beta log pi/m)] over all trajectories; no policy beats it."""
    horizon = 3
    reference = random_reference(mdp, seed) if with_reference else None
    m = np.ones(mdp.reward.shape) if reference is None else reference
    plan = planning.soft_backward_induction(mdp, horizon, beta=beta, reference=reference)
    values, policy = soft_dp(mdp, horizon, beta, m)
    close(plan.values, values)
    alive = ~mdp.terminal
    close(plan.policy[:, alive], policy[:, alive])
    gained = enumerated_objective(mdp, plan.policy, horizon, beta, m)
    close(mdp.start @ plan.values[0], gained)
    other = random_policy(mdp, seed + 1, horizon) * (m > 0)
    other[:, mdp.terminal] = 1.0
    other /= other.sum(axis=2, keepdims=True)
    assert enumerated_objective(mdp, other, horizon, beta, m) <= gained + 1e-9


@quick
@given(mdps(max_states=3), SEEDS, st.booleans())
def test_occupancies_are_those_of_all_trajectories(mdp, seed, changes):
    policy = random_policy(mdp, seed, 3 if changes else None)
    exact = enumerated_occupancy(mdp, policy, 3)
    close(planning.occupancy_measure(mdp, policy, 3), exact, 1e-12)
    returns = (exact * mdp.reward).sum()
    close(planning.expected_return(mdp, policy, 3), returns, 1e-10)


# ---------------------------------------------------------------- occupancy measures


@given(mdps(), SEEDS)
def test_flow_and_return_identities(mdp, seed):
    """Bellman flow: nu = p_0 + gamma P^T rho; sum rho = 1/(1-gamma); V p_0 = sum rho r."""
    policy = random_policy(mdp, seed)
    rho = planning.occupancy_measure(mdp, policy)
    inflow = mdp.start + mdp.discount * np.einsum("sa,sat->t", rho, mdp.dense())
    alive = ~mdp.terminal
    close(rho.sum(axis=1)[alive], inflow[alive], 1e-10)
    assert not rho[mdp.terminal].any()
    if alive.all():
        close(rho.sum(), 1 / (1 - mdp.discount), 1e-9)
    close(rho, dense_occupancy(mdp, policy), 1e-9)
    close(planning.evaluate_policy(mdp, policy), dense_values(mdp, policy), 1e-8)
    close((rho * mdp.reward).sum(), planning.expected_return(mdp, policy), 1e-8)


@quick
@given(mdps(discounts=(0.5, 0.9)), SEEDS)
def test_a_long_horizon_is_the_discounted_problem(mdp, seed):
    policy, horizon = random_policy(mdp, seed), 400
    close(planning.occupancy_measure(mdp, policy, horizon), planning.occupancy_measure(mdp, policy))
    close(planning.evaluate_policy(mdp, policy, horizon)[0], planning.evaluate_policy(mdp, policy))
    close(planning.backward_induction(mdp, horizon).values[0], planning.value_iteration(mdp).values)
    soft = planning.soft_backward_induction(mdp, horizon, beta=0.7)
    endless = planning.soft_policy_iteration(mdp, beta=0.7)
    close(soft.values[0], endless.values)
    close(soft.policy[0], endless.policy)


def test_occupancy_by_time_carries_the_discount():
    mdp = random_mdp(0, discount=0.5)
    policy = random_policy(mdp, 0, 4)
    by_time = planning.occupancy_by_time(mdp, policy, 4)
    undiscounted = planning.occupancy_by_time(mdp.with_discount(1.0), policy, 4)
    close(by_time, undiscounted * 0.5 ** np.arange(4)[:, None, None], 1e-15)
    close(by_time[0].sum(axis=1), mdp.start, 1e-15)


def test_a_start_in_a_terminal_state_earns_nothing():
    mdp = random_mdp(1)
    started = TabularMDP(mdp.transitions, mdp.reward, np.eye(4)[3], 0.9, mdp.terminal)
    assert not planning.occupancy_measure(started, random_policy(mdp, 0)).any()
    assert not planning.occupancy_measure(started, random_policy(mdp, 0), 3).any()
    assert planning.expected_return(started, random_policy(mdp, 0)) == 0


def test_feature_expectations_of_every_shape():
    rng = np.random.default_rng(0)
    rho, on_states, on_pairs = rng.random((4, 2)), rng.random((4, 3)), rng.random((4, 2, 3))
    close(planning.feature_expectations(rho, on_states), rho.sum(axis=1) @ on_states, 1e-14)
    close(
        planning.feature_expectations(rho, on_pairs), np.einsum("sa,sak->k", rho, on_pairs), 1e-14
    )
    for wrong in ((3, 2), (4,), (4, 3, 2), (2, 4, 2)):
        with pytest.raises(ShapeError, match="expected .S, K. or .S, A, K."):
            planning.feature_expectations(rho, np.zeros(wrong))


# ---------------------------------------------------------------- hard solvers agree


@given(mdps())
def test_hard_solvers_agree_and_are_optimal(mdp):
    plans = [solver(mdp, tolerance=1e-9) for solver in HARD]
    scale = 1e-8 * max(1.0, np.abs(plans[0].values).max())
    for plan in plans:
        close(plan.values, plans[0].values, scale)
        close(plan.q, planning.q_values(mdp, plan.values), 1e-12)
        close(dense_values(mdp, plan.policy), plan.values, 10 * scale)
        assert (plan.q.max(axis=1) <= plan.values + scale).all()
        assert plan.report.converged and plan.report.residual <= 1e-9


@pytest.mark.parametrize("solver", HARD)
def test_discount_zero_sees_only_the_next_reward(solver):
    mdp = random_mdp(0, discount=0.0)
    np.testing.assert_array_equal(solver(mdp).values, mdp.reward.max(axis=1))


@pytest.mark.parametrize("solver", HARD)
def test_residual_bounds_the_true_error(solver):
    """A loose tolerance must still be kept."""
    mdp = random_mdp(4, 6, 3, n_terminal=0, discount=0.95)
    exact = planning.policy_iteration(mdp, tolerance=1e-11).values
    for tolerance in (1.0, 0.1, 1e-3):
        plan = solver(mdp, tolerance=tolerance)
        assert np.abs(plan.values - exact).max() <= plan.report.residual + 1e-10 <= tolerance + 1e-9


@quick
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_undiscounted_solvers_agree_where_every_policy_ends(seed, n_states):
    """Every move leads at least half the time to the end, so every policy is proper."""
    mdp = random_mdp(seed, n_states, 3, discount=1.0, sparsity=0.2)
    moves = 0.5 * mdp.dense()
    moves[:-1, :, -1] += 0.5
    proper = TabularMDP.create(moves, mdp.reward, discount=1.0, terminal=[n_states - 1])
    plans = [solver(proper, tolerance=1e-10) for solver in HARD]
    for plan in plans[1:]:
        close(plan.values, plans[0].values, 1e-8)
    soft = [solver(proper, beta=0.5, tolerance=1e-10) for solver in SOFT]
    close(soft[0].values, soft[1].values, 1e-8)
    close(planning.soft_backward_induction(proper, 300, beta=0.5).values[0], soft[0].values, 1e-8)


def corridor(n_states=5, cost=-1.0, discount=1.0):
    """Right (0) or left (1) along a line; the last state ends it."""
    moves = np.zeros((n_states, 2, n_states))
    for s in range(n_states - 1):
        moves[s, 0, s + 1] = moves[s, 1, max(s - 1, 0)] = 1.0
    reward = np.append(np.full(n_states - 1, cost), 0.0)
    return TabularMDP.create(moves, reward, start=0, discount=discount, terminal=[n_states - 1])


def test_undiscounted_costs_count_steps():
    for solver in HARD:
        np.testing.assert_allclose(solver(corridor()).values, [-4, -3, -2, -1, 0])


def test_improper_policies_are_named():
    left = np.tile([0.0, 1.0], (5, 1))
    for call in (
        lambda: planning.evaluate_policy(corridor(), left),
        lambda: planning.occupancy_measure(corridor(), left),
        lambda: planning.policy_iteration(random_mdp(0, n_terminal=0, discount=1.0)),
        lambda: planning.soft_policy_iteration(random_mdp(0, n_terminal=0, discount=1.0)),
    ):
        with pytest.raises(ImproperPolicyError, match="from state 0 .*discount < 1"):
            call()
    close(planning.evaluate_policy(corridor(), left, 6)[0], [-6, -6, -6, -6, 0])


@pytest.mark.parametrize("solver", [planning.value_iteration, planning.modified_policy_iteration])
def test_endless_gain_is_not_converged(solver):
    with pytest.raises(NotConvergedError):
        solver(corridor(cost=1.0), max_iterations=200)


def test_policy_iteration_goes_on_through_small_gains():
    """A gain of 1e-7 on values near 200 is no tie (slipping makes many such gains)."""
    grid = envs.gridworld(20, 20, slip=0.1, goals={(0, 0): 1.0}, discount=1.0)
    grid = grid.with_reward(np.where(grid.terminal, 0.0, -1.5))
    report = planning.policy_iteration(grid).report
    assert report.converged and report.residual < 1e-8


@pytest.mark.parametrize("solver", HARD + SOFT)
def test_not_converging_is_loud_unless_asked(solver):
    mdp = random_mdp(0, 5, 3, n_terminal=0, discount=0.99)
    with pytest.raises(NotConvergedError, match="stopped after 1 iterations at .* tolerance"):
        solver(mdp, max_iterations=1, tolerance=1e-12)
    report = solver(mdp, max_iterations=1, tolerance=1e-12, strict=False).report
    assert not report.converged and report.iterations == 1 and report.residual > 1e-12
    assert report.method == solver.__name__


def test_what_rounding_forbids_stops_early_and_loud():
    """At gamma = 0.99999 no float64 solver reaches 1e-13; policy iteration must not spin."""
    mdp = random_mdp(0, 20, 3, n_terminal=0, discount=0.99999)
    with pytest.raises(NotConvergedError) as caught:
        planning.policy_iteration(mdp, tolerance=1e-13)
    assert int(str(caught.value).split("after ")[1].split()[0]) < 30


def test_hard_plan_shares_ties():
    mdp = TabularMDP.create(np.full((2, 3, 2), 0.5), [[1, 1, 0], [0, 0, 0]], discount=0.5)
    for solver in HARD:
        np.testing.assert_allclose(solver(mdp).policy, [[0.5, 0.5, 0], [1 / 3] * 3])


# ---------------------------------------------------------------- soft solvers


@given(mdps(), SEEDS, BETAS, st.booleans())
def test_soft_solvers_agree_and_solve_the_soft_bellman_equation(mdp, seed, beta, with_reference):
    reference = random_reference(mdp, seed) if with_reference else None
    plans = [solver(mdp, beta=beta, reference=reference, tolerance=1e-9) for solver in SOFT]
    alive = ~mdp.terminal
    with np.errstate(divide="ignore"):
        log_m = np.zeros(mdp.reward.shape) if reference is None else np.log(reference)
    for plan in plans:
        close(plan.values, plans[0].values, 1e-7)
        close(plan.policy.sum(axis=1), 1.0, 1e-12)
        close(plan.q, mdp.reward + mdp.discount * mdp.dense() @ plan.values, 1e-9)
        soft_max = beta * logsumexp(plan.q / beta + log_m, axis=1)
        close(plan.values[alive], soft_max[alive], 1e-7)
        boltzmann = np.exp(log_m + (plan.q - plan.values[:, None]) / beta)
        np.testing.assert_allclose(plan.policy[alive], boltzmann[alive], atol=1e-6)
        assert not plan.values[mdp.terminal].any()
        if reference is not None:
            assert not plan.policy[alive][reference[alive] == 0].any()


@quick
@given(mdps(discounts=(0.5, 0.9)), SEEDS)
def test_temperature_limits(mdp, seed):
    """beta -> 0 is hard planning; beta -> infinity with KL is the reference; V falls in between."""
    reference = random_policy(mdp, seed)
    reference = (reference + 0.05) / (reference + 0.05).sum(axis=1, keepdims=True)
    values = [
        planning.soft_policy_iteration(mdp, beta=beta, reference=reference).values
        for beta in (1e-4, 0.1, 1.0, 10.0, 1e6)
    ]
    for colder, warmer in zip(values, values[1:], strict=False):
        assert (warmer <= colder + 1e-7).all()
    assert np.abs(values[0] - planning.value_iteration(mdp).values).max() < 1e-4 * 5 / 0.1
    spread = np.ptp(mdp.reward) ** 2 / (1 - mdp.discount) ** 3 / 1e6
    assert np.abs(values[-1] - dense_values(mdp, reference)).max() <= spread + 1e-6


def test_kl_bandit_closed_form():
    """One choice: pi = m exp(r/beta)/Z, V = beta log Z, for m normalised or not."""
    rng = np.random.default_rng(0)
    reward, m = rng.normal(size=6), rng.exponential(size=6)
    m[2] = 0.0
    moves = np.zeros((2, 6, 2))
    moves[0, :, 1] = 1
    bandit = TabularMDP.create(
        moves, np.stack([reward, np.zeros(6)]), start=0, discount=1.0, terminal=[1]
    )
    for solver in (*SOFT, lambda mdp, **k: planning.soft_backward_induction(mdp, 1, **k)):
        for beta in (0.1, 1.0, 30.0):
            plan = solver(bandit, beta=beta, reference=np.stack([m, np.ones(6)]))
            z = (m * np.exp(reward / beta)).sum()
            policy, values = np.atleast_3d(plan.policy).reshape(-1, 2, 6)[0], plan.values
            np.testing.assert_allclose(policy[0], m * np.exp(reward / beta) / z, atol=1e-14)
            np.testing.assert_allclose(np.ravel(values)[0], beta * np.log(z), atol=1e-12)


@pytest.mark.parametrize("size", [-1e4, -1e3, 1e3, 1e4])
def test_large_rewards_neither_overflow_nor_underflow(size):
    mdp = random_mdp(2, 5, 3, discount=0.9)
    mdp = mdp.with_reward(np.where(mdp.terminal[:, None], 0.0, size + mdp.reward))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for solver in SOFT:
            plan = solver(mdp, beta=0.5, tolerance=1e-7)
            close(plan.policy.sum(axis=1), 1.0, 1e-12)
        plan = planning.soft_backward_induction(mdp, 8, beta=0.5)
    assert np.isfinite(plan.values).all() and np.isfinite(plan.log_policy).all()
    shallow = planning.soft_backward_induction(mdp.with_reward(mdp.reward / 1e3), 8, beta=5e-4)
    close(plan.values, 1e3 * shallow.values, 1e-6 * abs(size))  # only r / beta matters


def test_undiscounted_soft_plan_of_steep_costs():
    """At V = 0 the cheap action, which never ends, looks best: Newton must not start there."""
    mdp = corridor()
    steep = np.tile([-1000.0, -1.0], (5, 1)) * ~mdp.terminal[:, None]
    newton = planning.soft_policy_iteration(mdp.with_reward(steep), beta=0.1)
    close(newton.values, planning.soft_value_iteration(mdp.with_reward(steep), beta=0.1).values)


@pytest.mark.parametrize(
    ("cost", "diverges"), [(-0.7, False), (-0.632, False), (-0.63, True), (-0.3, True)]
)
def test_undiscounted_soft_value_is_finite_or_named(cost, diverges):
    """Weight e^cost a step and the path graph of 5: the sum over paths is finite iff radius < 1."""
    mdp = corridor(cost=cost)
    step = np.exp(cost) * mdp.dense().sum(axis=1)[:4, :4]
    assert (np.abs(np.linalg.eigvals(step)).max() >= 1) == diverges
    if diverges:
        with pytest.raises(DivergentPartitionError, match="discount is 1.*infinite.*Lower beta"):
            planning.soft_policy_iteration(mdp)
    else:
        z = np.linalg.solve(np.eye(4) - step, np.exp(cost) * mdp.dense().sum(axis=1)[:4, 4])
        close(planning.soft_policy_iteration(mdp).values[:4], np.log(z), 1e-9)


def test_a_guess_changes_only_the_effort():
    mdp = random_mdp(0, 8, 3, discount=0.99)
    exact = planning.soft_policy_iteration(mdp)
    again = planning.soft_policy_iteration(mdp, guess=exact.values)
    wild = planning.soft_policy_iteration(mdp, guess=1e5 * np.arange(8.0))
    assert again.report.iterations <= 1
    close(again.values, exact.values)
    close(wild.values, exact.values)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (dict(beta=0), "beta must be positive and finite; got 0"),
        (dict(beta=-1.0), "got -1.0"),
        (dict(beta=np.inf), "got inf"),
        (dict(beta=np.nan), "got nan"),
        (dict(reference=np.ones((3, 2))), r"shape \(3, 2\); expected \(S, A\) = \(4, 2\)"),
        (dict(reference=np.full((4, 2), -1.0)), "finite, non-negative"),
        (dict(reference=np.full((4, 2), np.nan)), "finite, non-negative"),
        (dict(reference=np.eye(4)[:, :2]), "forbids every action in state 2"),
    ],
)
def test_soft_planning_refuses(kind, message):
    for solver in (*SOFT, lambda mdp, **k: planning.soft_backward_induction(mdp, 2, **k)):
        with pytest.raises(InvalidPolicyError, match=message):
            solver(random_mdp(0), **kind)


def test_a_reference_may_be_zero_on_terminal_states():
    mdp = random_mdp(0)
    reference = np.ones((4, 2)) * ~mdp.terminal[:, None]
    plan = planning.soft_policy_iteration(mdp, reference=reference)
    close(plan.values, planning.soft_policy_iteration(mdp).values)
    assert np.isfinite(plan.log_policy).all()


def test_horizons_and_policies_over_time_are_checked():
    mdp = random_mdp(0)
    pi, longer = random_policy(mdp, 0), random_policy(mdp, 0, 2)
    for call in (
        lambda: planning.backward_induction(mdp, 0),
        lambda: planning.soft_backward_induction(mdp, -1),
        lambda: planning.evaluate_policy(mdp, pi, 0),
        lambda: planning.occupancy_measure(mdp, pi, -2),
    ):
        with pytest.raises(InvalidHyperparameterError, match="horizon must be 1 or more"):
            call()
    for call in (planning.evaluate_policy, planning.occupancy_measure, planning.expected_return):
        with pytest.raises(InvalidPolicyError, match="2 time steps; horizon is 3"):
            call(mdp, longer, 3)
        with pytest.raises(InvalidPolicyError, match="needs `horizon`"):
            call(mdp, longer)


# ---------------------------------------------------------------- invariances


def shaped(mdp, potential):
    """r + gamma E[Phi(s')] - Phi(s) (Ng, Harada & Russell 1999)."""
    ahead = mdp.discount * mdp.dense() @ potential
    bonus = np.where(mdp.terminal[:, None], 0.0, ahead - potential[:, None])
    return mdp.with_reward(mdp.reward + bonus)


@quick
@given(mdps(), SEEDS)
def test_shaping_moves_values_by_the_potential_and_no_policy(mdp, seed):
    potential = np.random.default_rng(seed).normal(size=mdp.n_states) * ~mdp.terminal
    other = shaped(mdp, potential)
    for solve in (
        planning.policy_iteration,
        lambda m: planning.soft_policy_iteration(m, beta=0.5),
        lambda m: planning.soft_policy_iteration(m, reference=random_reference(mdp, seed)),
    ):
        plain, moved = solve(mdp), solve(other)
        scale = max(1.0, np.abs(plain.values).max())
        close(moved.values, plain.values - potential, 1e-7 * scale)
        np.testing.assert_allclose(moved.policy, plain.policy, atol=1e-6 * scale)


def test_a_potential_on_the_end_breaks_shaping():
    """Phi(terminal) = 10 pays for ending: the best plan changes from going round to going home."""
    mdp = corridor(cost=0.0, discount=0.9)
    mdp = mdp.with_reward(np.tile([0.0, 0.1], (5, 1)) * ~mdp.terminal[:, None])
    potential = np.zeros(5)
    potential[4] = 10.0
    for solve in (planning.policy_iteration, planning.soft_policy_iteration):
        plain, moved = solve(mdp), solve(shaped(mdp, potential))
        assert np.abs(moved.policy[:4] - plain.policy[:4]).max() > 0.5
        assert np.abs(moved.values - (plain.values - potential))[:4].max() > 1


def solvers():
    yield from HARD
    yield lambda m: planning.backward_induction(m, 5)
    yield from SOFT
    yield lambda m: planning.soft_backward_induction(m, 5, beta=0.3)


@quick
@given(mdps(), SEEDS)
def test_renaming_states_and_actions_renames_the_answer(mdp, seed):
    other, states, actions = shuffle(mdp, seed)
    for solve in solvers():
        plan, renamed = solve(mdp), solve(other)
        scale = 1e-7 * max(1.0, np.abs(plan.values).max())
        close(renamed.values, plan.values[..., states], scale)
        close(renamed.q, plan.q[..., states, :][..., actions], scale)
        np.testing.assert_allclose(
            renamed.policy, plan.policy[..., states, :][..., actions], atol=10 * scale
        )
    policy = random_policy(mdp, seed)
    renamed = planning.occupancy_measure(other, policy[np.ix_(states, actions)])
    close(renamed, planning.occupancy_measure(mdp, policy)[np.ix_(states, actions)], 1e-9)


# ---------------------------------------------------------------- large worlds


def test_the_iterative_solver_agrees_with_lu():
    rng = np.random.default_rng(0)
    mdp = envs.garnet(2_000, 3, 3, rng, discount=0.99)
    assert mdp.n_states > planning.DIRECT_SOLVE_STATES
    system = planning.PolicySystem(mdp, planning.soft_policy_iteration(mdp).policy)
    assert not system._factors_are_cheap
    b = rng.normal(size=(2_000, 2))
    for transpose in (False, True):
        exact = system._factors.solve(b, trans="T" if transpose else "N")
        close(system.solve(b, transpose=transpose), exact, 1e-8)
        close(system.solve(b[:, 0], transpose=transpose), exact[:, 0], 1e-8)
        guess = exact[:, 0] + 1e-3
        close(system.solve(b[:, 0], transpose=transpose, guess=guess), exact[:, 0], 1e-8)


def test_near_one_the_iterative_solver_stops_at_rounding(monkeypatch):
    """gamma = 0.99999: 1e-12 is beyond float64, and a dense LU of a garnet is no way out."""
    mdp = envs.garnet(2_000, 3, 3, np.random.default_rng(0), discount=0.99999)
    system = planning.PolicySystem(mdp, np.full((2_000, 3), 1 / 3))

    def refuse(self):
        raise AssertionError("fell back to LU")

    monkeypatch.setattr(planning.PolicySystem, "_factors", property(refuse))
    b = np.random.default_rng(1).random(2_000)
    for transpose in (False, True):
        x = system.solve(b, transpose=transpose)
        chain = system.chain.T if transpose else system.chain
        assert np.abs(x - 0.99999 * (chain @ x) - b).max() < 1e-7


def test_a_solver_that_breaks_down_falls_back_on_lu(monkeypatch):
    mdp = envs.garnet(1_600, 2, 2, np.random.default_rng(0), discount=0.9)
    system = planning.PolicySystem(mdp, np.full((1_600, 2), 0.5))
    monkeypatch.setattr(planning, "bicgstab", lambda *a, **k: (np.zeros(1_600), 1))
    b = np.ones(1_600)
    close(system.solve(b), np.full(1_600, 10.0), 1e-9)


def test_grids_have_cheap_factors_and_huge_worlds_are_not_tried():
    grid = envs.gridworld(45, 45, slip=0.1)
    system = planning.PolicySystem(grid, np.full(grid.reward.shape, 1 / grid.n_actions))
    assert system._factors_are_cheap
    b = np.random.default_rng(0).normal(size=(2_025, 3))
    close(system.solve(b)[:, 1], system.solve(b[:, 1]), 1e-7)
    wide = envs.gridworld(200_000, 1)
    big = planning.PolicySystem(wide, np.full(wide.reward.shape, 1 / wide.n_actions))
    assert not big._factors_are_cheap


@pytest.mark.parametrize("beta", [1e-3, 1.0])
def test_newton_near_hard_and_near_undiscounted(beta):
    mdp = envs.garnet(2_000, 4, 3, np.random.default_rng(1), discount=0.999)
    plan = planning.soft_policy_iteration(mdp, beta=beta)
    assert plan.report.iterations < 40
    residual = planning.soft_backup(plan.q, beta)[0] - plan.values
    assert np.abs(residual).max() < 1e-9
    if beta < 0.01:
        hard = planning.modified_policy_iteration(mdp).values
        assert (plan.values >= hard - 1e-6).all()
        assert np.abs(plan.values - hard).max() <= beta * np.log(4) / 0.001


def test_newton_stops_at_once_when_rounding_hides_the_tolerance():
    mdp = envs.garnet(50, 3, 4, np.random.default_rng(0), discount=0.999)
    plan = planning.soft_policy_iteration(mdp, tolerance=1e-16, strict=False)
    assert not plan.report.converged and plan.report.iterations < 20
    close(plan.values, planning.soft_policy_iteration(mdp, tolerance=1e-8).values, 1e-9)
    with pytest.raises(NotConvergedError, match="float64 may not reach it"):
        planning.soft_policy_iteration(mdp, tolerance=1e-16)


@pytest.mark.parametrize(
    ("solver", "instead"),
    [
        (planning.value_iteration, "modified_policy_iteration"),
        (planning.modified_policy_iteration, " policy_iteration"),
        (planning.policy_iteration, None),
        (planning.soft_value_iteration, "soft_policy_iteration"),
        (planning.soft_policy_iteration, None),
    ],
)
def test_a_solver_that_stopped_early_advises_another_one_than_itself(solver, instead):
    with pytest.raises(NotConvergedError) as caught:
        solver(random_mdp(0, 6, 2, discount=0.99), tolerance=1e-12, max_iterations=1)
    name, advice = str(caught.value).split(" stopped after ")
    assert name == solver.__name__ and "Raise max_iterations" in advice
    assert f"use {(instead or '').strip()}." in advice if instead else " use " not in advice
