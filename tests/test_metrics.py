"""Numbers that judge: value difference, KL, entropy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import dense_values
from scipy import stats
from strategies import mdps, random_mdp, random_policy

from irlbook import planning
from irlbook.errors import NotStochasticError, ShapeError
from irlbook.lm.enumerable import best_of_n, entropy_from_logps, expectation, kl_from_logps
from irlbook.metrics import entropy, expected_value_difference, kl_divergence


@given(mdps(), st.integers(0, 10**6))
def test_value_difference_is_what_the_policy_gives_away(mdp, seed):
    policy = random_policy(mdp, seed)
    best = planning.policy_iteration(mdp)
    exact = mdp.start @ (best.values - dense_values(mdp, policy))
    scale = max(1.0, np.abs(best.values).max())
    assert expected_value_difference(mdp, policy) == pytest.approx(exact, abs=1e-7 * scale)
    assert expected_value_difference(mdp, policy) >= -1e-8 * scale
    assert abs(expected_value_difference(mdp, best.policy)) <= 1e-7 * scale


def test_value_difference_with_a_horizon_and_without_a_discount():
    mdp = random_mdp(0, discount=1.0)
    plan = planning.backward_induction(mdp, 5)
    assert expected_value_difference(mdp, plan.policy, horizon=5) == pytest.approx(0, abs=1e-12)
    stationary = random_policy(mdp, 0)
    lost = mdp.start @ plan.values[0] - planning.expected_return(mdp, stationary, 5)
    assert expected_value_difference(mdp, stationary, horizon=5) == pytest.approx(lost)
    costs = mdp.with_reward(-np.ones(4) * ~mdp.terminal)
    best = planning.policy_iteration(costs)
    assert expected_value_difference(costs, best.policy) == pytest.approx(0, abs=1e-9)


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_kl_and_entropy_are_scipys(seed, size):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(size), (2, 3, 2))
    np.testing.assert_allclose(kl_divergence(p, q), stats.entropy(p, q, axis=-1), atol=1e-12)
    np.testing.assert_allclose(entropy(p), stats.entropy(p, axis=-1), atol=1e-12)
    assert (kl_divergence(p, q) >= -1e-12).all()
    uniform = np.full(size, 1 / size)
    np.testing.assert_allclose(kl_divergence(p, uniform), np.log(size) - entropy(p), atol=1e-12)


def test_zeros_in_kl():
    assert kl_divergence([1.0, 0.0], [0.5, 0.5]) == pytest.approx(np.log(2))
    assert kl_divergence([0.5, 0.5], [1.0, 0.0]) == np.inf
    assert kl_divergence([1.0, 0.0], [1.0, 0.0]) == 0.0
    assert entropy([1.0, 0.0]) == 0.0
    assert kl_divergence([0.5, 0.3, 0.2], [0.1, 0.3, 0.6]) == pytest.approx(0.5849965)


NOT_PROBABILITIES = {
    "log-probabilities": np.log([0.5, 0.3, 0.2]),
    "a part of them": [0.5, 0.3],
    "counts": [5.0, 3.0, 2.0],
    "a negative entry": [1.2, -0.2],
    "NaN": [np.nan, 1.0],
    "one bad row of two": [[0.5, 0.5], [0.5, 0.4]],
}


@pytest.mark.parametrize("given", NOT_PROBABILITIES.values(), ids=NOT_PROBABILITIES)
def test_what_cannot_be_probabilities_is_refused(given):
    uniform = np.full(np.shape(given), 1 / np.shape(given)[-1])
    for ask in (
        lambda: entropy(given),
        lambda: kl_divergence(given, uniform),
        lambda: kl_divergence(uniform, given),
    ):
        with pytest.raises(NotStochasticError, match="must hold probabilities") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_log_probabilities_are_told_what_to_do():
    with pytest.raises(NotStochasticError, match="np.exp"):
        entropy(np.log([0.5, 0.3, 0.2]))


def test_probabilities_over_unlike_things_are_refused():
    with pytest.raises(ShapeError, match="same things"):
        kl_divergence([0.5, 0.5], [0.2, 0.3, 0.5])
    with pytest.raises(ShapeError):
        entropy(1.0)


NOT_LOGPS = {
    "probabilities": np.array([0.5, 0.3, 0.2]),
    "a part of them": np.log([0.5, 0.3]),
    "all zero": np.zeros(3),
    "NaN": np.array([np.nan, 0.0]),
    "scores": np.array([2.0, -1.0, 0.5]),
    "plus infinity": np.array([np.inf, 0.0]),
}


@pytest.mark.parametrize("given", NOT_LOGPS.values(), ids=NOT_LOGPS)
def test_what_cannot_be_log_probabilities_is_refused(given):
    even = np.full(len(given), -np.log(len(given)))
    for ask in (
        lambda: entropy_from_logps(given),
        lambda: kl_from_logps(given, even),
        lambda: kl_from_logps(even, given),
        lambda: expectation(given, even),
        lambda: best_of_n(given, even, 2),
    ):
        with pytest.raises(NotStochasticError, match="log-probabilities"):
            ask()


def test_both_kinds_of_input_give_one_divergence():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])
    want = stats.entropy(p, q)
    assert kl_divergence(p, q) == pytest.approx(want, abs=1e-12)
    assert kl_from_logps(np.log(p), np.log(q)) == pytest.approx(want, abs=1e-12)
    assert entropy_from_logps(np.log(p)) == pytest.approx(entropy(p), abs=1e-12)
    single = np.log(p).astype(np.float32)  # what a model gives
    assert kl_from_logps(single, np.log(q)) == pytest.approx(want, abs=1e-6)
