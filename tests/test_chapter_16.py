"""Chapter 16: every displayed equation that has code, by differences, enumeration or samples."""

import numpy as np
import pytest
from scipy.special import expit, logsumexp

from irlbook.lm.enumerable import kl_from_logps, tilted
from irlbook.posttraining import policy_pairs
from irlbook.preferences.acquisition import draw_weights, information_gain
from irlbook.preferences.bradley_terry import bradley_terry_gradient
from irlbook.preferences.dueling import duel_regret
from irlbook.preferences.information import (
    answer_variance,
    best_design,
    design_value,
    greedy_design,
    information_gains,
    information_of,
)


@pytest.fixture
def world():
    """Seven responses of a reference, three features, weights, and a price."""
    rng = np.random.default_rng(16)
    log_ref = rng.normal(size=7)
    return log_ref - logsumexp(log_ref), rng.normal(size=(7, 3)), 0.7 * rng.normal(size=3), 0.9


def test_eq_16_1_and_16_3_information_is_minus_the_hessian_plus_the_prior():
    rng = np.random.default_rng(0)
    phi, w, pairs = rng.normal(size=(6, 2)), rng.normal(size=2), np.array([[0, 1], [3, 2], [5, 4]])
    d = phi[pairs[:, 0]] - phi[pairs[:, 1]]
    found = information_of(d, answer_variance(d, w, 0.6), prior=0.3)
    h = 1e-5
    hessian = [
        bradley_terry_gradient(w + h * e, pairs, phi, beta=0.6)
        - bradley_terry_gradient(w - h * e, pairs, phi, beta=0.6)
        for e in np.eye(2)
    ]
    assert found == pytest.approx(0.3 * np.eye(2) - np.array(hessian) / (2 * h), abs=1e-7)


def test_eq_16_2_the_best_gap():
    g = np.linspace(0.01, 10, 100_000)
    worth = g**2 * expit(g) * expit(-g)
    best = g[worth.argmax()]
    assert best * np.tanh(best / 2) == pytest.approx(2, abs=1e-3)
    assert expit(best) == pytest.approx(11 / 12, abs=1e-3)


def test_eq_16_4_the_matrix_determinant_lemma():
    rng = np.random.default_rng(1)
    d, lam, now = rng.normal(size=(5, 3)), rng.uniform(0.05, 0.25, 5), np.diag([0.5, 1.0, 3.0])
    found = information_gains(np.linalg.inv(now), d, lam)
    for k in range(5):
        after = np.linalg.slogdet(now + lam[k] * np.outer(d[k], d[k]))[1]
        assert found[k] == pytest.approx(after - np.linalg.slogdet(now)[1])


def test_eq_16_5_and_16_6_returns_diminish_and_greedy_keeps_its_share():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        d, start = rng.normal(size=(10, 3)), 0.1 * np.eye(3)
        lam = answer_variance(d, rng.normal(size=3))
        few, many = (np.linalg.inv(information_of(d[:k], lam[:k], start)) for k in (1, 5))
        assert (information_gains(many, d, lam) <= information_gains(few, d, lam) + 1e-12).all()
        gain = [
            design_value(information_of(d[rows], lam[rows], start)) - design_value(start)
            for rows in (greedy_design(start, d, lam, 3), best_design(start, d, lam, 3))
        ]
        assert (1 - 1 / np.e) * gain[1] <= gain[0] <= gain[1] + 1e-12


def test_eq_16_7_information_gain_is_a_mutual_information():
    """By the joint table of an answer and of which draw is true."""
    rng = np.random.default_rng(2)
    draws, d = rng.normal(size=(40, 2)), rng.normal(size=(3, 2))
    for k, found in enumerate(information_gain(draws, d)):
        p = expit(draws @ d[k])
        joint = np.stack([p, 1 - p], axis=1) / 40
        apart = joint.sum(axis=0) * joint.sum(axis=1, keepdims=True)
        assert found == pytest.approx(np.sum(joint * np.log(joint / apart)))


def test_eq_16_8_half_of_the_d_optimal_gain_for_a_narrow_posterior():
    rng = np.random.default_rng(3)
    d, w, sigma = rng.normal(size=(4, 2)), rng.normal(size=2), 1e-3 * np.diag([1.0, 0.4])
    p = expit(d @ w)
    want = p * (1 - p) * np.einsum("pk,kl,pl->p", d, sigma, d) / 2
    assert information_gain(draw_weights(w, sigma, 200_000, rng), d) == pytest.approx(
        want, rel=0.02
    )


def test_eq_16_9_loss_of_a_policy_whose_weights_are_slightly_wrong(world):
    log_ref, phi, w, beta = world
    best = tilted(log_ref, phi @ w, beta)[0]
    c = policy_pairs.feature_covariance(best, phi)
    error = 1e-3 * np.array([1.0, -2.0, 0.5])
    other = tilted(log_ref, phi @ (w + error), beta)[0]
    value = [np.exp(q) @ (phi @ w - beta * (q - log_ref)) for q in (best, other)]
    assert beta * kl_from_logps(other, best) == pytest.approx(value[0] - value[1])
    assert value[0] - value[1] == pytest.approx(error @ c @ error / (2 * beta), rel=0.01)


def test_eq_16_10_and_16_11_pilafs_expected_step_is_the_policy_gradient(world):
    log_ref, phi, w, beta = world
    log_pi = tilted(log_ref, phi @ w, beta)[0]
    r, p = phi @ w, np.exp(log_pi)
    gold = phi @ (w + 1e-5 * np.array([1.0, 0.5, -1.0]))
    z = (p @ np.exp(r)) * (p @ np.exp(-r))
    q = policy_pairs.pair_density("PILAF", log_pi, r)
    step = policy_pairs.expected_ascent(q, phi, r, gold)
    along = policy_pairs.value_gradient(log_pi, log_ref, phi, gold, beta)
    assert step == pytest.approx(beta / (1 + z) * along, rel=1e-4)


def test_eq_16_12_regret():
    r = np.array([[2.0, 5.0, 1.0]])
    assert duel_regret(r, [0], [2]) == pytest.approx(5 - 1.5)
    assert duel_regret(r, [1], [1]) == 0
