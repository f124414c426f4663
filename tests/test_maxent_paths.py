"""Ziebart's path model against enumeration, its causal twin, and the edge of its domain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import gradient, path_model
from scipy import sparse
from strategies import mdps, random_mdp, shuffle

from irlbook import envs
from irlbook.errors import (
    DivergentPartitionError,
    InvalidHyperparameterError,
    InvalidMDPError,
    InvalidPolicyError,
    NotConvergedError,
    ShapeError,
    UnreachableFeaturesError,
)
from irlbook.irl.maxent import causal_dual, fit_max_causal_ent
from irlbook.irl.maxent_paths import fit_max_ent_paths, log_matvec, path_dual
from irlbook.mdp import TabularMDP, sample_trajectories

SEEDS = st.integers(0, 10**6)
quick = settings(max_examples=25)


def features_of(mdp, seed, count=2):
    phi = np.random.default_rng(seed).normal(size=(*mdp.reward.shape, count))
    return phi * ~mdp.terminal[:, None, None]


def corridor(n_states=5):
    """Right (0) or left (1) along a line from state 0; the last state ends it."""
    moves = np.zeros((n_states, 2, n_states))
    for s in range(n_states - 1):
        moves[s, 0, s + 1] = moves[s, 1, max(s - 1, 0)] = 1.0
    return TabularMDP.create(
        moves, np.zeros(n_states), start=0, discount=1.0, terminal=[n_states - 1]
    )


STEP = np.ones((5, 1))  # one feature: a step


# ---------------------------------------------------------------- by enumeration


@quick
@given(mdps(max_states=3, discounts=(1.0,)), SEEDS, st.sampled_from([0.5, 1.0, 3.0]))
def test_finite_horizon_is_the_enumeration_of_all_paths(mdp, seed, beta):
    phi, horizon = features_of(mdp, seed), 4
    rng = np.random.default_rng(seed)
    w, expert = rng.normal(size=2), rng.normal(size=2)
    value, slope = path_dual(w, mdp, phi, expert, horizon=horizon, beta=beta)
    exact, visits = path_model(mdp, phi @ w, horizon, beta)
    assert value == pytest.approx(exact - w @ expert, abs=1e-9)
    expected = np.einsum("sa,sak->k", visits, phi) - expert
    np.testing.assert_allclose(slope, expected, atol=1e-9)
    numeric = gradient(lambda w: path_dual(w, mdp, phi, expert, horizon=horizon, beta=beta)[0], w)
    np.testing.assert_allclose(slope, numeric, atol=1e-6)


@quick
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 2))
def test_endless_paths_are_the_limit_of_long_ones(seed, n_states, n_terminal):
    n_terminal = min(n_terminal, n_states - 1)
    mdp = random_mdp(seed, n_states, 2, n_terminal=n_terminal, discount=1.0)
    phi = np.concatenate([features_of(mdp, seed), np.ones((*mdp.reward.shape, 1))], axis=2)
    w, expert = np.array([0.3, -0.2, -2.5]), np.zeros(3)
    endless = path_dual(w, mdp, phi, expert)
    # Paths cut off by the horizon count too; their share dies out.
    long = path_dual(w, mdp, phi, expert, horizon=200)
    assert endless[0] == pytest.approx(long[0], abs=1e-8)
    np.testing.assert_allclose(endless[1], long[1], atol=1e-7)
    numeric = gradient(lambda w: path_dual(w, mdp, phi, expert)[0], w)
    np.testing.assert_allclose(endless[1], numeric, atol=1e-6)


@pytest.mark.parametrize("kind", ["states", "pairs", "sparse states", "sparse pairs"])
@pytest.mark.parametrize("horizon", [None, 5])
def test_every_kind_of_feature(kind, horizon):
    mdp = random_mdp(3, 5, 2, discount=1.0)
    rng = np.random.default_rng(0)
    shape = (5, 2) if "states" in kind else (5, 2, 2)
    phi = -0.5 - rng.random(shape)  # a terminal state has features too: they must not count
    dense = np.repeat(phi[:, None], 2, axis=1) if "states" in kind else phi
    w = np.array([1.0, 1.5])
    given_phi = sparse.csr_array(phi.reshape(-1, 2)) if "sparse" in kind else phi
    value, slope = path_dual(w, mdp, given_phi, np.zeros(2), horizon=horizon)
    expected = path_dual(w, mdp, dense * ~mdp.terminal[:, None, None], np.zeros(2), horizon=horizon)
    assert value == pytest.approx(expected[0])
    np.testing.assert_allclose(slope, expected[1], atol=1e-12)
    numeric = gradient(lambda w: path_dual(w, mdp, given_phi, np.zeros(2), horizon=horizon)[0], w)
    np.testing.assert_allclose(slope, numeric, atol=1e-6)


# ---------------------------------------------------------------- causal or not


@quick
@given(SEEDS, st.integers(2, 5), st.sampled_from([0.5, 2.0]))
def test_where_moves_are_certain_paths_are_causal(seed, n_states, beta):
    mdp = random_mdp(seed, n_states, 2, discount=1.0, deterministic=True)
    # Two actions that lead to one state are two paths in both models.
    phi, w = features_of(mdp, seed), np.array([0.7, -0.4])
    for horizon in (1, 6):
        paths = path_dual(w, mdp, phi, np.zeros(2), horizon=horizon, beta=beta)
        causal = causal_dual(w, mdp, phi, np.zeros(2), horizon=horizon, beta=beta)
        assert paths[0] == pytest.approx(causal[0], abs=1e-10)
        np.testing.assert_allclose(paths[1], causal[1], atol=1e-9)


def test_endless_paths_are_causal_where_moves_are_certain():
    for w in (-0.7, -1.0, -5.0):
        paths = path_dual([w], corridor(), STEP, [6.0])
        causal = causal_dual([w], corridor(), STEP, [6.0])
        assert paths[0] == pytest.approx(causal[0], abs=1e-9)
        np.testing.assert_allclose(paths[1], causal[1], atol=1e-7)


def gamble():
    """In state 0: safe (to 1) or a lottery (to 2 or 3, even). Then one step pays: 0, +4, -4."""
    moves = np.zeros((5, 2, 5))
    moves[0, 0, 1] = 1.0
    moves[0, 1, [2, 3]] = 0.5
    moves[1:4, :, 4] = 1.0
    return TabularMDP.create(moves, np.zeros(5), start=0, discount=1.0, terminal=[4])


def test_the_path_model_seeks_risk():
    """P(lottery): causal 1/2, since both pay 0 on average; paths cosh 4 / (1 + cosh 4) = 0.9647."""
    phi = np.array([[0.0], [0.0], [4.0], [-4.0], [0.0]])
    one = np.array([1.0])
    exact, visits = path_model(gamble(), phi @ one[:, None] @ np.ones((1, 2)), 2)
    lottery = np.cosh(4) / (1 + np.cosh(4))
    assert visits[0, 1] == pytest.approx(lottery)
    value = path_dual(one, gamble(), phi, None, horizon=2)
    assert value[0] == pytest.approx(exact)
    assert value[1][0] == pytest.approx(4 * (visits[2] - visits[3]).sum())
    assert value[1][0] == pytest.approx(4 * lottery * np.tanh(4))  # luck, too, is chosen
    assert causal_dual(one, gamble(), phi, None, horizon=2)[1][0] == pytest.approx(0.0, abs=1e-12)
    chosen = [
        fit(gamble(), phi, f(one), horizon=2, initial_weights=one).policy[0, 0, 1]
        for fit, f in (
            (fit_max_ent_paths, lambda w: path_dual(w, gamble(), phi, None, horizon=2)[1]),
            (fit_max_causal_ent, lambda w: causal_dual(w, gamble(), phi, None, horizon=2)[1]),
        )
    ]
    assert chosen == [pytest.approx(lottery), pytest.approx(0.5)]


# ---------------------------------------------------------------- the edge of the domain


def loop(n_states=6):
    """A world in a ring with an exit from every state: each step's total weight is known."""
    moves = np.zeros((n_states + 1, 3, n_states + 1))
    for s in range(n_states):
        moves[s, 0, (s + 1) % n_states] = moves[s, 1, (s + 2) % n_states] = 1.0
        moves[s, 2, n_states] = 1.0
    return TabularMDP.create(moves, np.zeros(n_states + 1), discount=1.0, terminal=[n_states])


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-6, 1e-8])
def test_just_below_and_just_above_spectral_radius_one(gap):
    """In the ring the weight of staying inside is 2 e^w: the radius is 1 at w = -log 2."""
    phi = np.ones((7, 1))
    below, above = np.log1p(-gap) - np.log(2), np.log1p(gap) - np.log(2)
    value, slope = path_dual([below], loop(), phi, None)
    assert value == pytest.approx(np.log(0.5 * (1 - gap) / gap), rel=1e-6)  # Z = e^w/(1 - 2e^w)
    assert slope[0] == pytest.approx(1 / gap, rel=1e-5)  # mean number of steps
    with pytest.raises(DivergentPartitionError, match="multiplies the total weight by about 1"):
        path_dual([above], loop(), phi, None)


def test_exactly_one_diverges():
    with pytest.raises(DivergentPartitionError):
        path_dual([-np.log(2)], loop(), np.ones((7, 1)), None)
    with pytest.raises(DivergentPartitionError, match="about 2, which must be below 1"):
        path_dual([0.0], loop(), np.ones((7, 1)), None)


@pytest.mark.parametrize("cost", [-1e3, -1e4])
def test_large_costs_neither_overflow_nor_underflow(cost):
    """Z of the best path is e^-4000 ... e^-40000: 0 in floating point."""
    with np.errstate(over="raise", invalid="raise"):
        value, slope = path_dual([cost], corridor(), STEP, None)
        finite, steps = path_dual([cost], corridor(), STEP, None, horizon=9)
    assert value == pytest.approx(4 * cost) and slope[0] == pytest.approx(4.0)
    # with a horizon the paths that never arrive count as well: 9 steps cost more
    assert finite == pytest.approx(4 * cost) and steps[0] == pytest.approx(4.0)


@pytest.mark.parametrize("gain", [1e3, 1e4])
def test_large_gains_need_a_horizon(gain):
    with np.errstate(over="raise", invalid="raise"):
        value, slope = path_dual([gain], corridor(), STEP, None, horizon=50)
        with pytest.raises(DivergentPartitionError):
            path_dual([gain], corridor(), STEP, None)
    assert slope[0] == pytest.approx(50.0, abs=1e-6)
    assert 50 * gain <= value <= 50 * (gain + np.log(2))


@pytest.mark.parametrize("n_states", [40, 700])
@pytest.mark.parametrize("gain", [1.0, 5.0, -1e3])
def test_a_world_without_cycles_never_diverges(n_states, gain):
    """An eigenvalue routine sees radius 2 here where the truth is 0."""
    moves = sparse.lil_array((2 * n_states, n_states))
    for s in range(n_states - 1):
        moves[2 * s, s + 1] = 1.0
        moves[2 * s + 1, min(s + 2, n_states - 1)] = 1.0
    mdp = TabularMDP.create(
        moves, np.zeros(n_states), start=0, discount=1.0, terminal=[n_states - 1]
    )
    mdp = mdp.permute(np.random.default_rng(0).permutation(n_states), [1, 0])
    phi = np.ones((n_states, 1))
    endless = path_dual([gain], mdp, phi, None)
    finite = path_dual([gain], mdp, phi, None, horizon=n_states)
    assert endless[0] == pytest.approx(finite[0], rel=1e-10)
    assert endless[1][0] == pytest.approx(finite[1][0], rel=1e-8)


def test_many_equal_paths_on_a_grid():
    """10^22 shortest paths: a linear solve for Z loses every digit; the causal solver agrees."""
    grid = envs.gridworld(40, 40, discount=1.0)
    phi = (~grid.terminal).astype(float)[:, None]
    for w in (-2.0, -4.0):
        paths, causal = (f([w], grid, phi, None) for f in (path_dual, causal_dual))
        assert paths[0] == pytest.approx(causal[0], rel=1e-10)
        assert paths[1][0] == pytest.approx(causal[1][0], rel=1e-7)


def test_borlange_like_costs_that_are_too_weak():
    """A road network at beta -0.5 a link: more ways round than the cost can quench (traps C 25)."""
    rng = np.random.default_rng(0)
    roads = envs.gridworld(12, 12, discount=1.0)
    length = 1.0 + 0.2 * rng.random(144)
    phi = (length * ~roads.terminal)[:, None]
    with pytest.raises(DivergentPartitionError, match="Make rewards more negative"):
        path_dual([-0.5], roads, phi, None)
    assert np.isfinite(path_dual([-2.5], roads, phi, None)[0])


def trap():
    """0 may go to the end (2) or to 1, which it can never leave."""
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 2] = moves[0, 1, 1] = moves[1, :, 1] = 1.0
    return TabularMDP.create(moves, np.zeros(3), start=0, discount=1.0, terminal=[2])


def test_paths_that_never_end_are_not_counted():
    value, slope = path_dual([-1.0], trap(), np.ones((3, 1)), None)
    assert (value, slope[0]) == (pytest.approx(-1.0), pytest.approx(1.0))
    caught = TabularMDP(
        trap().transitions, trap().reward, np.array([0.5, 0.5, 0]), 1.0, trap().terminal
    )
    with pytest.raises(DivergentPartitionError, match="no path from start state 1 ends"):
        path_dual([-1.0], caught, np.ones((3, 1)), None)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(mdp=corridor().with_discount(0.9)), InvalidMDPError, r"with_discount\(1.0\)"),
        (
            dict(mdp=random_mdp(0, 5, n_terminal=0, discount=1.0)),
            DivergentPartitionError,
            "without terminal states",
        ),
        (dict(horizon=0), InvalidHyperparameterError, "horizon must be 1 or more"),
        (dict(beta=0.0), InvalidPolicyError, "beta must be positive"),
        (dict(beta=np.nan), InvalidPolicyError, "beta must be positive"),
        (dict(features=np.ones((4, 1))), ShapeError, "features have shape"),
        (dict(expert_features=[1.0, 2.0]), ShapeError, r"expected \(1,\)"),
    ],
)
def test_the_domain_is_checked(change, error, message):
    keywords = dict(mdp=corridor(), features=STEP, expert_features=[6.0])
    with pytest.raises(error, match=message):
        fit_max_ent_paths(**{**keywords, **change})


def test_a_start_outside_the_domain_is_refused():
    with pytest.raises(DivergentPartitionError, match="smaller step in w"):
        fit_max_ent_paths(corridor(), STEP, [6.0])


# ---------------------------------------------------------------- fits


@pytest.mark.parametrize("steps", [4.2, 6.0, 60.0, 600.0])
def test_fits_near_the_edge_of_the_domain(steps):
    result = fit_max_ent_paths(corridor(), STEP, [steps], initial_weights=[-2.0])
    assert result.gap <= 1e-6
    assert result.feature_expectations[0] == pytest.approx(steps)


@pytest.mark.parametrize("horizon", [None, 8])
def test_fit_recovers_the_path_distribution(horizon):
    for seed in range(4):
        mdp = random_mdp(seed, 6, 2, discount=1.0)
        phi = np.concatenate([features_of(mdp, seed), np.ones((6, 2, 1))], axis=2)
        truth = np.array([0.5, -0.5, -1.5])
        expert = path_dual(truth, mdp, phi, None, horizon=horizon)[1]
        result = fit_max_ent_paths(
            mdp,
            phi,
            expert,
            horizon=horizon,
            initial_weights=[0, 0, -2.0],
            tolerance=1e-8,
        )
        assert result.gap <= 1e-8
        ours = path_dual(result.weights, mdp, phi, expert, horizon=horizon)[0]
        best = path_dual(truth, mdp, phi, expert, horizon=horizon)[0]
        assert ours == pytest.approx(best, abs=1e-9)
        assert result.policy.shape == ((6, 2) if horizon is None else (8, 6, 2))


def test_demonstrations_of_varying_length():
    """Paths of all lengths are in the model, so that nothing is cut or padded."""
    policy = np.tile([0.75, 0.25], (5, 1))
    shown = sample_trajectories(corridor(), policy, 2_000, 10_000, np.random.default_rng(0))
    assert len(np.unique(shown.lengths)) > 10
    expert = shown.feature_expectations(STEP, 2)
    assert expert[0] == pytest.approx(shown.lengths.mean())
    result = fit_max_ent_paths(corridor(), STEP, expert, initial_weights=[-1.5])
    again = sample_trajectories(corridor(), result.policy, 2_000, 10_000, np.random.default_rng(1))
    spread = np.hypot(shown.lengths.std(), again.lengths.std()) / np.sqrt(2_000)
    assert abs(again.lengths.mean() - expert[0]) < 4 * spread


def test_unreachable_steps_are_proved():
    with pytest.raises(UnreachableFeaturesError, match="earn -3 and the best policy earns -4"):
        fit_max_ent_paths(corridor(), STEP, [3.0], initial_weights=[-2.0])
    with pytest.raises(UnreachableFeaturesError):
        fit_max_ent_paths(corridor(), STEP, [7.0], horizon=6)
    with pytest.raises(NotConvergedError, match="add an l2 penalty"):  # the shortest path itself
        fit_max_ent_paths(
            corridor(), STEP, [4.0], initial_weights=[-2.0], tolerance=1e-30, max_iterations=20
        )
    mended = fit_max_ent_paths(corridor(), STEP, [4.0], initial_weights=[-2.0], l2=1e-3)
    assert mended.report.converged


def test_penalties_meet_their_optimality_conditions():
    mdp = random_mdp(1, 6, 2, discount=1.0)
    phi = features_of(mdp, 0, 5)
    expert = path_dual(np.array([1.0, -1.0, 0, 0, 0]), mdp, phi, None, horizon=5)[1]
    l2 = fit_max_ent_paths(mdp, phi, expert, horizon=5, l2=0.2)
    slope = path_dual(l2.weights, mdp, phi, expert, horizon=5)[1]
    np.testing.assert_allclose(slope, -0.2 * l2.weights, atol=1e-6)
    l1 = fit_max_ent_paths(mdp, phi, expert, horizon=5, l1=0.3)
    slope = path_dual(l1.weights, mdp, phi, expert, horizon=5)[1]
    zero = l1.weights == 0
    assert zero.any() and not zero.all()
    assert (np.abs(slope[zero]) <= 0.3 + 1e-6).all()
    np.testing.assert_allclose(slope[~zero], -0.3 * np.sign(l1.weights[~zero]), atol=1e-6)


@quick
@given(mdps(discounts=(1.0,), terminals=(1, 2)), SEEDS)
def test_renaming_states_and_actions_renames_the_answer(mdp, seed):
    other, states, actions = shuffle(mdp, seed)
    phi, expert = features_of(mdp, seed), np.array([0.5, -0.5])
    renamed = phi[np.ix_(states, actions)]
    keywords = dict(horizon=4, l2=0.5, tolerance=1e-9)
    plain = fit_max_ent_paths(mdp, phi, expert, **keywords)
    moved = fit_max_ent_paths(other, renamed, expert, **keywords)
    np.testing.assert_allclose(moved.weights, plain.weights, atol=1e-7)
    np.testing.assert_allclose(moved.policy, plain.policy[:, states][:, :, actions], atol=1e-6)
    w = np.array([0.2, -0.1])
    try:
        value = path_dual(w, mdp, phi - 3.0, expert)
    except DivergentPartitionError:
        with pytest.raises(DivergentPartitionError):
            path_dual(w, other, renamed - 3.0, expert)
    else:
        np.testing.assert_allclose(
            path_dual(w, other, renamed - 3.0, expert)[1], value[1], rtol=1e-6
        )


def test_the_goal_may_stand_anywhere():
    for goal in ((0, 0), (2, 3), (4, 1)):
        grid = envs.gridworld(5, 5, goals={goal: 0.0}, discount=1.0)
        result = fit_max_ent_paths(
            grid, (~grid.terminal).astype(float)[:, None], [8.0], initial_weights=[-3.0]
        )
        assert result.gap < 1e-6
        assert result.policy[:, 0].shape == (25,)


# ---------------------------------------------------------------- planted bugs


def naive_z(mdp, reward, horizon):
    """Z = sum exp(r) P Z', as popular code has it, without a log."""
    z = np.ones(mdp.n_states)
    for _ in range(horizon):
        each = np.exp(reward) * (mdp.transitions @ z).reshape(reward.shape)
        z = np.where(mdp.terminal, 1.0, each.sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(mdp.start @ np.log(z))


def naive_inverse(mdp, reward, horizon=None):
    """(I - M)^-1 b without a look at the radius: an answer, whether or not the sum is finite."""
    step = np.einsum("sa,sat->st", np.exp(reward), mdp.dense())
    step[mdp.terminal] = 0.0
    z = np.linalg.solve(np.eye(mdp.n_states) - step, mdp.terminal.astype(float))
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(mdp.start @ np.log(np.abs(z)))


def ours(mdp, reward, horizon):
    return path_dual(
        np.ones(1), mdp, reward[:, :, None] * ~mdp.terminal[:, None, None], None, horizon=horizon
    )[0]


def check_partition(implementation):
    """log Z by enumeration; all paths have 4 steps, so a cost a step only shifts it."""
    for cost in (-1.0, -900.0):
        reward = np.full((5, 2), cost)
        exact = path_model(corridor(), 0.0 * reward, 4)[0] + 4 * cost
        np.testing.assert_allclose(implementation(corridor(), reward, 4), exact, rtol=1e-12)


def test_the_partition_check_passes():
    check_partition(ours)


def check_domain(implementation):
    """Right where the sum over paths is finite (by a long horizon), and loud where it is not."""
    finite, endless = np.full((5, 2), -0.7), np.full((5, 2), -0.3)
    np.testing.assert_allclose(
        implementation(corridor(), finite, None), ours(corridor(), finite, 2_000), rtol=1e-9
    )
    try:
        answer = implementation(corridor(), endless, None)
    except DivergentPartitionError:
        return
    raise AssertionError(f"{answer} for an infinite sum")


def test_the_domain_check_passes():
    check_domain(ours)


@pytest.mark.parametrize(
    ("check", "implementation"), [(check_partition, naive_z), (check_domain, naive_inverse)]
)
def test_the_checks_catch(check, implementation):
    with pytest.raises(AssertionError):
        check(implementation)


def test_log_matvec_is_a_matrix_product_in_logs():
    rng = np.random.default_rng(0)
    dense = rng.random((6, 4)) * (rng.random((6, 4)) < 0.5)
    dense[2] = 0.0
    matrix, v = sparse.csr_array(dense), rng.normal(size=4)
    v[1] = -np.inf
    with np.errstate(divide="ignore"):
        expected = np.log(dense @ np.exp(v))
    np.testing.assert_allclose(log_matvec(np.log(matrix.data), matrix, v), expected)
    empty = sparse.csr_array((3, 3))
    assert (log_matvec(np.zeros(0), empty, np.zeros(3)) == -np.inf).all()
