"""Mixtures of Bradley-Terry, rewards for one person, and principal components."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit

from irlbook import errors
from irlbook.preferences import mixture as mx
from irlbook.preferences import personal_rewards as pr
from irlbook.preferences import principal_rewards as pc
from irlbook.preferences.bradley_terry import fit_bradley_terry

REWARDS = np.array([[2.0, 1, 0, -1, -2], [-2.0, 0, 1, 2, -1], [0.0, -2, 2, 0, 0]])
SHARES = np.array([0.5, 0.3, 0.2])


@pytest.fixture(scope="module")
def data():
    return mx.sample_users(REWARDS, SHARES, 80, 10, np.random.default_rng(0))


def test_the_likelihood_is_the_sum_over_all_assignments_of_types(data):
    users, pairs, _ = data
    few = users < 4
    u, p = users[few], pairs[few]
    total = 0.0
    for types in product(range(3), repeat=4):
        r = REWARDS[np.array(types)[u]]
        row = np.arange(len(u))
        labels = expit(r[row, p[:, 0]] - r[row, p[:, 1]]).prod()
        total += SHARES[list(types)].prod() * labels
    assert mx.mixture_log_likelihood(REWARDS, SHARES, u, p) == pytest.approx(np.log(total))


def test_responsibilities_are_bayes_rule_and_a_new_user_is_one_of_them(data):
    users, pairs, types = data
    belief = mx.responsibilities(REWARDS, SHARES, users, pairs)
    mine = pairs[users == 7]
    joint = SHARES * [expit(r[mine[:, 0]] - r[mine[:, 1]]).prod() for r in REWARDS]
    np.testing.assert_allclose(belief[7], joint / joint.sum(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(mx.type_posterior(REWARDS, SHARES, mine), belief[7], atol=1e-12)
    np.testing.assert_allclose(mx.type_posterior(REWARDS, SHARES, []), SHARES, atol=1e-12)
    assert (belief.argmax(axis=1) == types).mean() > 0.8


def test_em_never_falls_and_ends_where_a_general_optimiser_does(data):
    users, pairs, _ = data
    fit = mx.fit_mixture(users, pairs, 3, np.random.default_rng(1), starts=3, tolerance=1e-9)
    assert np.diff(fit.curve).min() > -1e-8
    assert (np.diff(fit.shares) <= 0).all() and np.abs(fit.rewards.sum(axis=1)).max() < 1e-9

    def loss(x):
        r, s = x[:15].reshape(3, 5), np.exp(x[15:]) / np.exp(x[15:]).sum()
        return -mx.mixture_log_likelihood(r, s, users, pairs) + 0.05 * (r**2).sum()

    start = np.concatenate([fit.rewards.ravel(), np.log(fit.shares)])
    assert np.abs(approx_fprime(start, loss, 1e-6)).max() < 1e-2
    assert minimize(loss, start).fun > -fit.curve[-1] - 1e-4
    assert fit.n_parameters == 14


def test_one_type_is_bradley_terry(data):
    users, pairs, _ = data
    fit = mx.fit_mixture(users, pairs, 1, np.random.default_rng(0), starts=1, l2=0.1)
    plain = fit_bradley_terry(pairs, l2=0.1)
    np.testing.assert_allclose(fit.rewards[0], plain.rewards - plain.rewards.mean(), atol=1e-6)
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood)
    free = mx.fit_mixture(users, pairs, 1, np.random.default_rng(0), starts=1, l2=0.0)
    np.testing.assert_allclose(free.rewards[0], fit_bradley_terry(pairs).rewards, atol=1e-6)


def test_planted_types_are_found():
    users, pairs, types = mx.sample_users(REWARDS, SHARES, 300, 25, np.random.default_rng(5))
    fit = mx.fit_mixture(users, pairs, 3, np.random.default_rng(1), starts=4)
    np.testing.assert_allclose(fit.shares, SHARES, atol=0.08)
    assert np.abs(fit.rewards - REWARDS).max() < 0.5
    belief = mx.responsibilities(fit.rewards, fit.shares, users, pairs)
    assert (belief.argmax(axis=1) == types).mean() > 0.95


def test_two_mixtures_that_single_labels_cannot_tell_apart():
    """One label a user shows pair shares alone; two labels of one user show more."""
    p = expit(REWARDS[:2, :3][:, :, None] - REWARDS[:2, :3][:, None, :])
    share = p.mean(axis=0)
    pooled = np.array([share[0, 1], share[1, 2], share[0, 2]])

    def gap(x):
        r = np.stack([[x[0], x[1], 0.0], [x[2], x[3], 0.0]])
        q = expit(r[:, :, None] - r[:, None, :]).mean(axis=0)
        return ((np.array([q[0, 1], q[1, 2], q[0, 2]]) - pooled) ** 2).sum()

    found = minimize(gap, [0.3, -0.2, 0.1, 0.4], method="BFGS", options={"gtol": 1e-14})
    assert gap(found.x) < 1e-12
    other = np.stack([[*found.x[:2], 0.0], [*found.x[2:], 0.0]])
    half = np.array([0.5, 0.5])
    for i, j in ((0, 1), (1, 2), (0, 2)):
        one, two = (
            mx.mixture_log_likelihood(r, half, [0], [[i, j]]) for r in (REWARDS[:2, :3], other)
        )
        assert one == pytest.approx(two, abs=1e-5)
    twice = [
        mx.mixture_log_likelihood(r, half, [0, 0], [[0, 1], [0, 1]])
        for r in (REWARDS[:2, :3], other)
    ]
    assert abs(twice[0] - twice[1]) > 0.05


def test_bad_input_is_named_in_one_line(data):
    users, pairs, _ = data
    rng = np.random.default_rng(0)
    with pytest.raises(errors.UnidentifiedRewardError, match="one label"):
        mx.fit_mixture(np.arange(40), pairs[:40], 2, rng)
    single = np.append(users, 80), np.concatenate([pairs, pairs[:1]])
    with pytest.raises(errors.UninformativeDataError, match="users 80 gave fewer than 2"):
        mx.fit_mixture(*single, 2, rng)
    assert mx.fit_mixture(*single, 2, rng, min_labels=1, starts=1).shares.shape == (2,)
    with pytest.raises(errors.UnidentifiedRewardError, match="never compared"):
        mx.fit_mixture(users, pairs, 2, rng, n_items=6)
    with pytest.raises(errors.SeparablePreferencesError):
        mx.fit_mixture([0, 0, 1, 1], [[0, 1]] * 4, 1, rng, l2=0.0)
    with pytest.raises(errors.UninformativeDataError, match="hold fewer than 3 types"):
        mx.fit_mixture([0, 0, 1, 1], [[0, 1], [1, 0]] * 2, 3, rng)
    with pytest.raises(errors.NotConvergedError, match="still gained"):
        mx.fit_mixture(users, pairs, 3, rng, max_steps=3)
    with pytest.raises(errors.ShapeError):
        mx.wins_of_users([0, 1], pairs)
    with pytest.raises(errors.InvalidPreferencesError, match="numbered"):
        mx.wins_of_users(users - 1, pairs)


# One person ---------------------------------------------------------------------------------------


def test_personal_weights_are_the_posterior_mode():
    rng = np.random.default_rng(0)
    gaps, mean = rng.normal(size=(6, 3)), rng.normal(size=3)
    root = rng.normal(size=(3, 3))
    covariance = root @ root.T + 0.2 * np.eye(3)
    precision = np.linalg.inv(covariance)
    w, spread = pr.personal_weights(gaps, mean, covariance)
    other = minimize(lambda w: pr.personal_loss(w, gaps, mean, precision)[0], mean, tol=1e-12).x
    np.testing.assert_allclose(w, other, atol=1e-4)
    loss, gradient, hessian = pr.personal_loss(w, gaps, mean, precision)
    assert np.abs(gradient).max() < 1e-7
    np.testing.assert_allclose(spread, np.linalg.inv(hessian), atol=1e-9)
    point = rng.normal(size=3)
    value = pr.personal_loss(point, gaps, mean, precision)
    slopes = approx_fprime(point, lambda w: pr.personal_loss(w, gaps, mean, precision)[0], 1e-7)
    np.testing.assert_allclose(value[1], slopes, atol=1e-5)


def test_without_labels_a_person_is_the_prior_and_with_many_the_prior_is_forgotten():
    mean, covariance = np.array([1.0, -1.0]), np.diag([0.5, 2.0])
    w, spread = pr.personal_weights(np.empty((0, 2)), mean, covariance)
    np.testing.assert_allclose(w, mean)
    np.testing.assert_allclose(spread, covariance)
    rng, truth = np.random.default_rng(0), np.array([-1.0, 0.5])
    d = rng.normal(size=(4000, 2))
    d *= np.where(rng.random(4000) < expit(d @ truth), 1, -1)[:, None]
    assert np.abs(pr.personal_weights(d, mean, covariance)[0] - truth).max() < 0.15


def test_a_population_is_recovered():
    rng = np.random.default_rng(1)
    mean, covariance = np.array([1.0, 0.0]), np.array([[0.5, 0.3], [0.3, 1.0]])
    people = []
    for w in rng.multivariate_normal(mean, covariance, size=150):
        d = rng.normal(size=(40, 2))
        people.append(d * np.where(rng.random(40) < expit(d @ w), 1, -1)[:, None])
    found = pr.fit_population(people)
    assert np.abs(found.mean - mean).max() < 0.25
    assert np.abs(found.covariance - covariance).max() < 0.4
    with pytest.raises(errors.UninformativeDataError, match="two people"):
        pr.fit_population(people[:1])


# Principal components -----------------------------------------------------------------------------


def test_the_second_moment_does_not_see_who_won():
    rng = np.random.default_rng(0)
    gaps = rng.normal(size=(200, 4)) * [3, 2, 1, 0.5]
    turned = gaps * rng.choice([-1, 1], size=200)[:, None]
    plain, other = (pc.principal_rewards(d, centre=False, sign="raw") for d in (gaps, turned))
    np.testing.assert_allclose(plain.variances, other.variances)
    np.testing.assert_allclose(np.abs(plain.directions), np.abs(other.directions), atol=1e-9)
    mean, second = pc.second_moments(gaps)
    np.testing.assert_allclose(mean, gaps.mean(axis=0))
    np.testing.assert_allclose(second, np.cov(gaps.T, bias=True) + np.outer(mean, mean))


def test_centred_components_are_those_of_a_plain_svd():
    rng = np.random.default_rng(1)
    gaps = rng.normal(size=(100, 3)) @ rng.normal(size=(3, 3)) + 1.0
    found = pc.principal_rewards(gaps, 2)
    _, s, vt = np.linalg.svd(gaps - gaps.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(found.variances, s[:2] ** 2 / 100)
    np.testing.assert_allclose(np.abs(np.sum(found.directions * vt[:2], axis=1)), 1.0)
    assert (found.agreement >= 0.5).all()
    np.testing.assert_allclose(pc.orient(-found.directions, gaps), found.directions)


def test_centring_takes_the_common_direction_away():
    """Where all features vary alike, what all users want is the *last* centred component."""
    rng = np.random.default_rng(2)
    raw = rng.normal(size=(20_000, 3))
    w = np.array([3.0, 0.0, 0.0])
    gaps = raw * np.where(rng.random(len(raw)) < expit(raw @ w), 1, -1)[:, None]
    assert abs(pc.principal_rewards(gaps).directions[-1, 0]) > 0.99


@pytest.mark.parametrize("n", [0, 4])
def test_as_many_components_as_features(n):
    with pytest.raises(errors.InvalidHyperparameterError, match="3 features"):
        pc.principal_rewards(np.eye(3), n)
