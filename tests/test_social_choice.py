"""Welfare of groups, circles of majorities, and Nash policies, each against an oracle."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from irlbook import errors
from irlbook.posttraining import social_choice as sc
from irlbook.preferences.hidden_context import borda_counts

CIRCLE = np.array([[0.5, 0.8, 0.3], [0.2, 0.5, 0.9], [0.7, 0.1, 0.5]])


THIRDS = np.log(np.full(3, 1 / 3))


def world(seed, n_groups=3, n=12):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_groups, n)), np.log(rng.dirichlet(np.ones(n)))


def kl(pi, logs):
    return float(np.sum(pi * (np.log(np.maximum(pi, 1e-300)) - logs)))


def objective(kind, pi, u, logs, beta, shares):
    v, base = u @ pi, u @ np.exp(logs)
    value = {
        "average": lambda: shares @ v,
        "maxmin": lambda: v.min(),
        "nash": lambda: shares @ np.log(np.maximum(v - base, 1e-12)),
    }[kind]()
    return value - beta * kl(pi, logs)


@pytest.mark.parametrize("kind", ["average", "maxmin", "nash"])
def test_no_other_policy_has_more_welfare(kind):
    """Against a general optimiser over all policies, and against random neighbours."""
    for seed in range(4):
        u, logs = world(seed)
        shares, beta = np.array([0.6, 0.3, 0.1]), 0.3
        found = sc.welfare_policy(u, logs, beta, kind, shares)
        best = objective(kind, found.policy, u, logs, beta, shares)
        assert found.welfare == pytest.approx(best, abs=1e-8)
        assert -1e-9 < found.gap < 1e-6
        rng = np.random.default_rng(seed)
        for _ in range(50):
            near = 0.98 * found.policy + 0.02 * rng.dirichlet(np.ones(len(logs)))
            assert objective(kind, near, u, logs, beta, shares) < best + 1e-9

        def loss(z, u=u, logs=logs, shares=shares, beta=beta):
            pi = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            return -objective(kind, pi, u, logs, beta, shares)

        other = minimize(loss, np.log(found.policy) + 0.1 * rng.normal(size=len(logs)))
        assert -other.fun <= best + 1e-6
        if kind != "maxmin":  # a kink stops BFGS early
            assert -other.fun == pytest.approx(best, abs=1e-5)


def test_maxmin_at_a_small_price_is_a_linear_program():
    u, logs = world(7)
    found = sc.welfare_policy(u, logs, 0.01, "maxmin")
    program = linprog(
        np.append(np.zeros(12), -1.0),
        A_ub=np.column_stack([-u, np.ones(3)]),
        b_ub=np.zeros(3),
        A_eq=np.append(np.ones(12), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, 1)] * 12 + [(None, None)],
    )
    assert found.utilities.min() == pytest.approx(-program.fun, abs=0.05)
    weighed = found.weights > 1e-3  # complementary slackness
    assert np.ptp(found.utilities[weighed]) < 0.02
    assert found.utilities[~weighed].min(initial=np.inf) > found.utilities.min()


def test_nash_welfare_keeps_its_promise_to_every_group_and_does_not_see_units():
    u, logs = world(3)
    found = sc.welfare_policy(u, logs, 0.2, "nash")
    assert (found.utilities > u @ np.exp(logs)).all()
    scaled = sc.welfare_policy(
        u * [[10.0], [1.0], [0.1]] + [[3.0], [-2.0], [0.0]], logs, 0.2, "nash"
    )
    np.testing.assert_allclose(scaled.policy, found.policy, atol=1e-5)
    with pytest.raises(errors.DivergentPartitionError, match="indifferent"):
        sc.welfare_policy(np.stack([u[0], np.ones(12)]), logs, 0.2, "nash")
    with pytest.raises(errors.NotConvergedError, match="no optimum"):
        sc.welfare_policy(np.stack([u[0], -u[0]]), logs, 0.2, "nash")


@pytest.mark.parametrize(
    "change, error",
    [
        ({"beta": 0.0}, errors.InvalidHyperparameterError),
        ({"kind": "sum"}, errors.InvalidHyperparameterError),
        ({"shares": [0.5, 0.5]}, errors.NotStochasticError),
        ({"log_reference": np.zeros(12)}, errors.NotStochasticError),
        ({"utilities": np.zeros((3, 5))}, errors.ShapeError),
    ],
)
def test_bad_input_of_a_welfare_is_named(change, error):
    u, logs = world(0)
    with pytest.raises(error):
        sc.welfare_policy(**{"utilities": u, "log_reference": logs, "beta": 0.1} | change)


# Majorities and games -----------------------------------------------------------------------------


def table(seed, n=5):
    p = np.random.default_rng(seed).random((n, n))
    return np.triu(p, 1) + np.tril(1 - p.T, -1) + 0.5 * np.eye(n)


def test_a_circle_has_no_condorcet_winner_and_a_nash_policy():
    assert sc.condorcet_winner(CIRCLE) is None
    assert sc.majority_cycles(CIRCLE) == [[0, 1, 2]]
    np.testing.assert_allclose(sc.nash_policy(CIRCLE), np.array([4, 2, 3]) / 9, atol=1e-9)


def test_nash_policies_cannot_be_exploited_and_give_a_condorcet_winner_everything():
    seen = 0
    for seed in range(60):
        p = table(seed)
        pi = sc.nash_policy(p)
        assert sc.exploitability(pi, p) < 1e-9
        winner = sc.condorcet_winner(p)
        if winner is not None:
            seen += 1
            assert pi[winner] == pytest.approx(1.0)
            assert winner not in sum(sc.majority_cycles(p), [])
    assert 10 < seen < 55


def test_the_average_of_self_play_approaches_the_linear_program():
    path, average = sc.self_play(CIRCLE, 20_000, 0.02)
    np.testing.assert_allclose(average, sc.nash_policy(CIRCLE), atol=0.02)
    bound = np.log(3) / (0.02 * 20_000) + 0.02 / 8  # of multiplicative weights, for gains in [0, 1]
    assert sc.exploitability(average, CIRCLE) < bound
    assert np.abs(path[-1] - average).max() > 0.05  # the last policy still goes round


def test_the_regularised_fixed_point_cannot_be_exploited():
    for seed in range(5):
        p, logs = table(seed), np.log(np.random.default_rng(seed).dirichlet(np.ones(5)))
        for tau in (1.0, 0.2):
            pi = sc.regularised_nash(p, logs, tau)
            best = np.exp(logs + p @ pi / tau)
            np.testing.assert_allclose(pi, best / best.sum(), atol=1e-9)
            assert abs(sc.exploitability(pi, p, logs, tau)) < 1e-9
            assert sc.exploitability(np.exp(logs), p, logs, tau) > 1e-4
    near = sc.regularised_nash(CIRCLE, np.log(np.full(3, 1 / 3)), 0.05)
    np.testing.assert_allclose(near, sc.nash_policy(CIRCLE), atol=0.1)
    with pytest.raises(errors.NotConvergedError):
        sc.regularised_nash(CIRCLE, np.log(np.full(3, 1 / 3)), 0.05, max_steps=3)


def test_psi_policies():
    p, logs = table(1), np.log(np.random.default_rng(1).dirichlet(np.ones(5)))
    ipo = sc.psi_policy(p, logs, 0.3)
    want = np.exp(logs + borda_counts(p, np.exp(logs)) / 0.3)
    np.testing.assert_allclose(ipo, want / want.sum(), atol=1e-12)
    # with the logit, and one reward behind the choices, it is the optimum of RLHF
    r = np.random.default_rng(2).normal(size=5)
    honest = 1 / (1 + np.exp(r[None, :] - r[:, None]))
    rlhf = np.exp(logs + r / 0.3)
    found = sc.psi_policy(honest, logs, 0.3, lambda q: np.log(q) - np.log1p(-q))
    np.testing.assert_allclose(found, rlhf / rlhf.sum(), atol=1e-10)
    with pytest.raises(errors.DivergentPartitionError, match="certain"):
        sc.psi_policy(
            [[0.5, 1.0], [0.0, 0.5]], np.log([0.5, 0.5]), 0.3, lambda q: np.log(q / (1 - q))
        )


def test_bad_input_of_a_game_is_named():
    with pytest.raises(errors.InvalidHyperparameterError):
        sc.self_play(CIRCLE, 0, 0.1)
    with pytest.raises(errors.InvalidHyperparameterError):
        sc.psi_policy(CIRCLE, np.log([0.2, 0.3, 0.5]), 0.0)
    with pytest.raises(errors.InvalidHyperparameterError):
        sc.regularised_nash(CIRCLE, np.log([0.2, 0.3, 0.5]), 0.0)


@pytest.mark.parametrize(
    "call, error, word",
    [
        (lambda: sc.psi_policy(CIRCLE, np.log([0.5, 0.5]), 0.3), errors.ShapeError, "log_ref"),
        (
            lambda: sc.psi_policy(CIRCLE, THIRDS, 0.3, behaviour=[0.5, 0.5]),
            errors.ShapeError,
            r"behaviour has shape \(2,\); expected \(3,\)",
        ),
        (
            lambda: sc.psi_policy(CIRCLE, THIRDS, 0.3, behaviour=[0.5, 0.6, 0.4]),
            errors.NotStochasticError,
            "behaviour",
        ),
        (lambda: sc.exploitability([0.5, 0.5], CIRCLE), errors.ShapeError, "policy has"),
        (lambda: sc.exploitability([2.0, -1.0, 0.0], CIRCLE), errors.NotStochasticError, "policy"),
        (
            lambda: sc.exploitability([1.0, 0.0, 0.0], CIRCLE, np.log([0.5, 0.5]), 0.1),
            errors.ShapeError,
            "log_reference",
        ),
        (lambda: sc.self_play(CIRCLE, 2, 0.1, [1.0]), errors.ShapeError, "start has"),
        (lambda: sc.self_play(CIRCLE, 2, 0.1, [0.5] * 3), errors.NotStochasticError, "start"),
        (lambda: sc.regularised_nash(CIRCLE, np.log([0.5] * 2), 0.1), errors.ShapeError, "log_ref"),
    ],
)
def test_what_does_not_fit_a_game_is_named(call, error, word):
    with pytest.raises(error, match=word):
        call()


def test_exploitability_by_hand():
    pi = np.array([0.2, 0.3, 0.5])
    assert sc.exploitability(pi, CIRCLE) == pytest.approx((CIRCLE @ pi).max() - 0.5)
    logs, tau = np.log([0.5, 0.3, 0.2]), 0.4
    best = max(  # the opponent over a fine grid of policies
        q @ CIRCLE @ pi - tau * kl(q, logs)
        for a in np.linspace(0, 1, 101)
        for b in np.linspace(0, 1 - a, 101)
        for q in [np.array([a, b, 1 - a - b])]
    )
    found = sc.exploitability(pi, CIRCLE, logs, tau)
    assert found == pytest.approx(best + tau * kl(pi, logs) - 0.5, abs=1e-3)


def test_where_nobody_has_a_wish_the_reference_stays():
    _, logs = world(0)
    for kind in ("average", "maxmin"):
        found = sc.welfare_policy(np.full((3, 12), 2.0), logs, 0.3, kind)
        np.testing.assert_allclose(found.policy, np.exp(logs), atol=1e-9)
        assert found.welfare == pytest.approx(2.0) and abs(found.gap) < 1e-9
