"""The equations of chapter 2 that no test of the modules names, each against the code."""

import numpy as np
import pytest

from irlbook import planning
from irlbook.mdp import TabularMDP
from irlbook.rl.advantages import gae, returns_to_go, td_errors
from irlbook.rl.q_learning import power_decay
from irlbook.rl.tabular_gradient import (
    enumerate_trajectories,
    exact_policy_gradient,
    softmax_policy,
    values_by_time,
)

HORIZON = 4


@pytest.fixture
def world():
    rng = np.random.default_rng(11)
    mdp = TabularMDP.create(
        rng.dirichlet(np.ones(2), size=(2, 2)), rng.normal(size=(2, 2)), start=0, discount=0.9
    )
    return mdp, softmax_policy(rng.normal(size=(2, 2)))


def test_eq_2_1_the_planner_satisfies_the_optimality_equation(world):
    mdp, _ = world
    q = planning.value_iteration(mdp, tolerance=1e-12).q
    np.testing.assert_allclose(mdp.reward + 0.9 * mdp.dense() @ q.max(axis=1), q, atol=1e-9)


def test_eq_2_2_with_step_size_1_over_n_is_the_running_mean():
    samples, estimate = np.random.default_rng(0).normal(size=50), 123.0
    for n, y in enumerate(samples, start=1):
        estimate += power_decay(1.0)(n) * (y - estimate)
        assert estimate == pytest.approx(samples[:n].mean())


def test_eq_2_5_and_2_6_the_objective_and_its_gradient_as_sums_over_trajectories(world):
    mdp, policy = world
    value, gradient = 0.0, np.zeros_like(policy)
    for p, states, actions in enumerate_trajectories(mdp, policy, HORIZON):
        total = returns_to_go(mdp.reward[states[:-1], actions], mdp.discount)[0]
        log_gradient = np.zeros_like(policy)
        for s, a in zip(states[:-1], actions, strict=True):
            log_gradient[s] -= policy[s]
            log_gradient[s, a] += 1.0
        value += p * total
        gradient += p * total * log_gradient
    assert value == pytest.approx(planning.expected_return(mdp, policy, HORIZON))
    np.testing.assert_allclose(gradient, exact_policy_gradient(mdp, policy, HORIZON), atol=1e-12)


def test_eq_2_11_the_advantage_has_mean_zero_under_the_policy(world):
    mdp, policy = world
    q, values = values_by_time(mdp, policy, HORIZON)
    np.testing.assert_allclose(values, planning.evaluate_policy(mdp, policy, HORIZON), atol=1e-12)
    np.testing.assert_allclose((policy * (q - values[:-1, :, None])).sum(axis=2), 0.0, atol=1e-12)


def test_eq_2_12_n_step_advantages_telescope_and_gae_is_their_weighted_mean():
    rng = np.random.default_rng(1)
    steps, discount, lam = 60, 0.9, 0.5
    r, v = rng.normal(size=steps), rng.normal(size=steps + 1)
    never = np.zeros(steps, dtype=bool)
    delta = td_errors(r, v[:-1], v[1:], never, discount)
    n_step = []
    for n in range(1, steps + 1):
        fade = discount ** np.arange(n)
        by_values = fade @ r[:n] + discount**n * v[n] - v[0]
        assert by_values == pytest.approx(fade @ delta[:n])
        n_step.append(by_values)
    weights = (1 - lam) * lam ** np.arange(steps)  # what is missing beyond 60 steps is 2^-60
    assert gae(r, v[:-1], v[1:], never, never, discount=discount, lam=lam)[0] == pytest.approx(
        weights @ n_step
    )


def test_eq_2_15_the_ratio_objective_has_the_policy_gradient_at_the_old_policy(world):
    """Sum over trajectories of the old policy of discount^t ratio A, differentiated numerically."""
    mdp, policy = world
    logits = np.log(policy)
    q, values = values_by_time(mdp, policy, HORIZON)
    old = list(enumerate_trajectories(mdp, policy, HORIZON))

    def surrogate(logits):
        ratio = softmax_policy(logits) / policy
        return sum(
            p * mdp.discount**t * ratio[s, a] * (q[t, s, a] - values[t, s])
            for p, states, actions in old
            for t, (s, a) in enumerate(zip(states[:-1], actions, strict=True))
        )

    exact = exact_policy_gradient(mdp, policy, HORIZON)
    for s in range(2):
        for a in range(2):
            step = np.zeros((2, 2))
            step[s, a] = 1e-5
            slope = (surrogate(logits + step) - surrogate(logits - step)) / 2e-5
            assert slope == pytest.approx(exact[s, a], abs=1e-8)
