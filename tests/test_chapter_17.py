"""Each displayed equation of chapter 17 that has code, named after it."""

from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, logit, ndtr

from irlbook.lm.enumerable import EnumerableLM, kl_from_logps, tilted
from irlbook.posttraining import social_choice as sc
from irlbook.preferences import hidden_context as hc
from irlbook.preferences import mixture as mx
from irlbook.preferences.classification import win_probability
from irlbook.preferences.personal_rewards import personal_weights
from irlbook.preferences.principal_rewards import principal_rewards, second_moments


@pytest.fixture
def lm():
    return EnumerableLM.create(
        ("a", "b", "END"), 3, lambda prefixes: np.tile([0.5, 0.3, 0.2], (len(prefixes), 1))
    )


def test_eq_17_1_the_borda_count_of_one_person_is_the_win_probability():
    r, q = np.array([0.3, -1.0, 0.8]), np.array([0.2, 0.5, 0.3])
    p = hc.preference_matrix(r[None], beta=0.7)
    np.testing.assert_allclose(p + p.T, 1.0)
    np.testing.assert_allclose(hc.borda_counts(p, q), win_probability(r, q, 0.7))


def test_eq_17_2_a_larger_borda_count_means_a_larger_reward():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = rng.random((6, 6))
        p = np.triu(p, 1) + np.tril(1 - p.T, -1) + 0.5 * np.eye(6)
        q = rng.dirichlet(np.ones(6) * 2)
        r, counts = hc.bradley_terry_limit(p, q), hc.borda_counts(p, q)
        np.testing.assert_allclose(expit(r[:, None] - r) @ q, counts, rtol=0, atol=1e-8)
        assert (np.argsort(r) == np.argsort(counts)).all()


def test_eq_17_3_by_integration():
    """The chance to beat an opponent, integrated over the opponent and both coins."""

    def beats(a, b):
        mine = [a] if a < 0.8 else [2 * a, 0.0]
        other = [b] if b < 0.8 else [2 * b, 0.0]
        return np.mean([(np.sign(x - y) + 1) / 2 for x, y in product(mine, other)])

    for a in (0.1, 0.5, 0.79, 0.8, 0.9, 1.0):
        found = quad(lambda b, a=a: beats(a, b), 0, 1, points=[min(a, 0.999), 0.8], limit=200)[0]
        want = a + 0.1 if a < 0.8 else 0.475 + 0.25 * (a - 0.8)
        assert found == pytest.approx(want, abs=1e-6)


def test_eq_17_3_with_the_coin_of_the_person():
    a = (np.arange(200) + 0.5) / 200
    risky = a >= 0.8
    types = np.stack([np.where(risky, 2 * a, a), np.where(risky, 0, a)])
    want = np.where(risky, 0.45 + 0.5 * (a - 0.8), a + 0.1)
    np.testing.assert_allclose(hc.borda_counts(hc.preference_matrix(types)), want, atol=1e-12)


def test_eq_17_4_is_the_difference_of_two_normal_draws():
    p = hc.normal_preferences([0.5, -0.3], [1.0, 2.0])
    assert p[0, 1] == pytest.approx(ndtr(0.8 / np.sqrt(5.0)))


def test_eq_17_5_counts_a_tie_half():
    p = hc.categorical_preferences([[0.0, 1.0], [0.4, 0.6]])
    assert p[0, 1] == pytest.approx(0.4 + 0.3)


def test_eq_17_6_of_one_type_is_the_likelihood_of_chapter_9():
    r, pairs = np.array([[1.0, 0.0, -1.0]]), np.array([[0, 1], [2, 1], [0, 2]])
    found = mx.mixture_log_likelihood(r, [1.0], [0, 1, 1], pairs)
    assert found == pytest.approx(np.log(expit([1.0, -1.0, 2.0])).sum())


def test_eq_17_7_a_step_of_em_never_lowers_17_6():
    rng = np.random.default_rng(2)
    users, pairs, _ = mx.sample_users(rng.normal(size=(2, 4)), [0.6, 0.4], 30, 8, rng)
    fit = mx.fit_mixture(users, pairs, 2, rng, starts=3)
    assert np.diff(fit.curve).min() > -1e-9
    belief = mx.responsibilities(fit.rewards, fit.shares, users, pairs)
    np.testing.assert_allclose(belief.mean(axis=0), fit.shares, atol=0.01)  # the M step of s


def test_eq_17_7_single_labels_see_only_the_average():
    half = [0.5, 0.5]
    for strength in (0.0, 0.7, 5.0):
        camps = strength * np.array([[1.0, 0, -1], [-1.0, 0, 1]])
        assert mx.mixture_log_likelihood(camps, half, [0], [[0, 2]]) == pytest.approx(np.log(0.5))


def test_eq_17_8_solves_its_own_gradient():
    rng = np.random.default_rng(3)
    gaps, mean, covariance = rng.normal(size=(5, 2)), np.array([1.0, 0.0]), np.diag([0.3, 2.0])
    w, _ = personal_weights(gaps, mean, covariance)
    slope = gaps.T @ expit(-gaps @ w) - np.linalg.inv(covariance) @ (w - mean)
    np.testing.assert_allclose(slope, 0.0, atol=1e-8)


def test_eq_17_9_who_won_stands_in_the_mean_alone():
    rng = np.random.default_rng(4)
    gaps = rng.normal(size=(50, 3)) + [1.0, 0.0, 0.0]
    flip = rng.choice([-1, 1], size=50)[:, None]
    (mean, second), (other_mean, other) = second_moments(gaps), second_moments(flip * gaps)
    np.testing.assert_allclose(second, other)
    assert np.abs(mean - other_mean).max() > 0.2
    one, turned = (principal_rewards(d, sign="raw").directions for d in (gaps, -gaps))
    np.testing.assert_allclose(np.abs(one), np.abs(turned), atol=1e-9)


def test_eq_17_10_and_17_11_each_welfare_is_a_tilted_reference(lm):
    logs = lm.sequence_log_probabilities()
    rng = np.random.default_rng(5)
    u, shares, beta = rng.normal(size=(2, len(logs))), np.array([0.7, 0.3]), 0.4
    for kind in ("average", "maxmin", "nash"):
        found = sc.welfare_policy(u, logs, beta, kind, shares)
        again = np.exp(tilted(logs, found.weights @ u, beta)[0])
        np.testing.assert_allclose(found.policy, again, atol=1e-10)
        planner = lm.kl_optimum(found.weights @ u, beta)  # the soft planner of chapter 3
        np.testing.assert_allclose(np.exp(planner.log_probabilities), found.policy, atol=1e-10)
    gains = found.utilities - u @ np.exp(logs)
    np.testing.assert_allclose(found.weights, shares / gains, rtol=1e-5)  # nash
    grid = np.linspace(0, 1, 2001)
    dual = [beta * tilted(logs, w * u[0] + (1 - w) * u[1], beta)[1] for w in grid]
    assert sc.welfare_policy(u, logs, beta, "maxmin").welfare == pytest.approx(min(dual), abs=1e-5)


def test_eq_17_12_the_value_of_the_game_is_one_half():
    p = np.array([[0.5, 0.8, 0.3], [0.2, 0.5, 0.9], [0.7, 0.1, 0.5]])
    pi = sc.nash_policy(p)
    assert (pi @ p).min() == pytest.approx(0.5)
    for other in np.random.default_rng(0).dirichlet(np.ones(3), size=50):
        assert (other @ p).min() < 0.5 + 1e-9


def test_eq_17_13_one_step_of_self_play():
    p = np.array([[0.5, 0.8], [0.2, 0.5]])
    path, _ = sc.self_play(p, 2, 0.3, start=[0.4, 0.6])
    want = np.array([0.4, 0.6]) * np.exp(0.3 * p @ [0.4, 0.6])
    np.testing.assert_allclose(path[1], want / want.sum())


def test_eq_17_14_nobody_gains_at_the_fixed_point(lm):
    logs = lm.sequence_log_probabilities()
    p = hc.preference_matrix(np.random.default_rng(6).normal(size=(3, len(logs))))
    pi = sc.regularised_nash(p, logs, 0.3)
    value = pi @ p @ pi - 0.3 * kl_from_logps(np.log(pi), logs)
    for seed in range(20):
        near = 0.9 * pi + 0.1 * np.random.default_rng(seed).dirichlet(np.ones(len(pi)))
        assert near @ p @ pi - 0.3 * kl_from_logps(np.log(near), logs) < value


def test_eq_17_15_ipo_tilts_by_the_borda_count_and_the_logit_by_the_reward(lm):
    logs = lm.sequence_log_probabilities()
    r = np.random.default_rng(7).normal(size=len(logs))
    p = hc.preference_matrix(r[None], beta=1.0)
    counts = hc.borda_counts(p, np.exp(logs))
    ipo, dpo = sc.psi_policy(p, logs, 0.5), sc.psi_policy(p, logs, 0.5, psi=logit)
    np.testing.assert_allclose(ipo, np.exp(tilted(logs, counts, 0.5)[0]), atol=1e-12)
    np.testing.assert_allclose(dpo, np.exp(tilted(logs, r, 0.5)[0]), atol=1e-12)
