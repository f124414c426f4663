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


# Bounds, units and what is returned ---------------------------------------------------------------


def test_wins_are_counted_user_by_user():
    wins = mx.wins_of_users([1, 1, 0, 1], [[0, 2], [0, 2], [2, 1], [1, 0]], 4)
    assert wins.shape == (2, 4, 4) and wins.sum() == 4
    assert wins[1, 0, 2] == 2 and wins[0, 2, 1] == 1 and wins[1, 1, 0] == 1
    assert mx.wins_of_users([0], [[0, 2]]).shape == (1, 3, 3)
    for users in ([0.0, 1.0], [-1, 0], [[0, 1]]):
        with pytest.raises((errors.InvalidPreferencesError, errors.ShapeError), match="users"):
            mx.wins_of_users(users, [[0, 1], [1, 0]])


def test_users_are_drawn_with_their_labels():
    rng, r = np.random.default_rng(3), np.array([[50.0, 0.0, -50.0], [-50.0, 0.0, 50.0]])
    users, pairs, types = mx.sample_users(r, [0.8, 0.2], 500, 3, rng)
    assert np.array_equal(users, np.repeat(np.arange(500), 3)) and len(types) == 500
    assert types.mean() == pytest.approx(0.2, abs=0.06)
    mine = r[types[users]]
    assert (np.take_along_axis(mine, pairs, 1) @ [1, -1] > 0).all()  # choosers who never err
    seen = np.zeros((3, 3))
    np.add.at(seen, tuple(np.sort(pairs, axis=1).T), 1)
    assert seen[np.triu_indices(3, 1)] == pytest.approx(500, rel=0.15) and seen.sum() == 1500
    assert seen.diagonal().sum() == 0


@pytest.mark.parametrize("shares", [[0.5, 0.6], [1.5, -0.5], [[0.5, 0.5]]])
def test_shares_of_types_are_a_distribution(shares):
    with pytest.raises(errors.ShapeError, match="add up to 1"):
        mx.mixture_log_likelihood(REWARDS[:2], shares, [0], [[0, 1]])
    assert mx.type_posterior(REWARDS[:2], [1.0, 0.0], [[0, 1]]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("n_types", "starts"), [(0, 1), (1, 0)])
def test_a_mixture_has_a_type_and_a_start(n_types, starts):
    with pytest.raises(errors.InvalidHyperparameterError, match="at least 1"):
        mx.fit_mixture([0, 0], [[0, 1], [1, 0]], n_types, np.random.default_rng(0), starts=starts)


def test_the_best_start_is_returned_and_vanished_ones_are_marked():
    users, pairs, _ = mx.sample_users(REWARDS, SHARES, 30, 6, np.random.default_rng(1))
    options = {"starts": 3, "tolerance": 1e-2}
    fit = mx.fit_mixture(users, pairs, 3, np.random.default_rng(2), **options)
    assert len(fit.ends) == 3 and fit.curve[-1] == np.nanmax(fit.ends)
    assert fit.curve[-1] - fit.curve[-2] < 1e-2 <= np.diff(fit.curve)[:-1].min()
    penalised = fit.log_likelihood - 0.1 * (fit.rewards**2).sum() / 2
    assert penalised == pytest.approx(fit.curve[-1])
    assert fit.log_likelihood == pytest.approx(
        mx.mixture_log_likelihood(fit.rewards, fit.shares, users, pairs)
    )
    # a type must hold so many users: of 30 none can hold 11 three times
    with pytest.raises(errors.UninformativeDataError, match="less than 11 of 30 users"):
        mx.fit_mixture(users, pairs, 3, np.random.default_rng(2), smallest=11.0, **options)
    some = mx.fit_mixture(users, pairs, 3, np.random.default_rng(2), smallest=4.0, **options)
    assert (30 * some.shares >= 4 - 1e-2).all()


def test_items_are_connected_by_chains_whoever_asked():
    rng = np.random.default_rng(0)
    chain = [[k, k + 1] for k in range(5)] + [[k + 1, k] for k in range(5)]
    fit = mx.fit_mixture([0, 1] * 5, chain[::-1], 1, rng)
    assert fit.rewards.shape == (1, 6) and fit.shares.tolist() == [1.0]
    with pytest.raises(errors.UnidentifiedRewardError, match="items 3, 4 were never compared"):
        mx.fit_mixture([0] * 4, [[0, 1], [1, 2], [3, 4], [4, 3]], 1, rng)


def test_users_with_too_few_labels_are_counted_up_to_the_eighth():
    users = [*np.repeat(np.arange(2), 3), *range(2, 12)]
    pairs = [[0, 1]] * len(users)
    with pytest.raises(errors.UninformativeDataError, match=r"users 2, 3, .* 9 \.\.\. gave fewer"):
        mx.fit_mixture(users, pairs, 2, np.random.default_rng(0))
    with pytest.raises(errors.UninformativeDataError, match="users 2, 3, 4, 5, 6, 7, 8, 9 gave"):
        mx.fit_mixture(users[:14], pairs[:14], 2, np.random.default_rng(0))


def test_the_loss_of_a_person_is_minus_the_log_posterior():
    rng = np.random.default_rng(2)
    gaps, w, mean = rng.normal(size=(5, 2)), rng.normal(size=2), rng.normal(size=2)
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    loss, gradient, hessian = pr.personal_loss(w, gaps, mean, precision)
    want = -np.log(expit(gaps @ w)).sum() + (w - mean) @ precision @ (w - mean) / 2
    assert loss == pytest.approx(want)
    step = 1e-6
    for k, e in enumerate(np.eye(2)):
        up, down = (pr.personal_loss(w + s * e, gaps, mean, precision)[1] for s in (step, -step))
        np.testing.assert_allclose(hessian[k], (up - down) / (2 * step), atol=1e-7)


def test_a_person_who_is_far_from_the_prior_is_found_in_several_steps():
    gaps = np.tile([[8.0], [-8.0]], (20, 1)) * np.where(np.arange(40) < 39, 1, -1)[:, None]
    gaps[1::2] *= -1
    w, spread = pr.personal_weights(gaps, [-30.0], [[100.0]])
    loss, gradient, hessian = pr.personal_loss(w, gaps, [-30.0], np.array([[0.01]]))
    assert abs(gradient[0]) < 1e-6 and spread[0, 0] == pytest.approx(1 / hessian[0, 0])
    with pytest.raises(errors.NotConvergedError, match="within 2 steps"):
        pr.personal_weights(gaps, [-30.0], [[100.0]], steps=2)
    with pytest.raises(errors.ShapeError, match=r"expected \(1, 1\)"):
        pr.personal_weights(gaps, [0.0], np.eye(2))


def test_one_round_of_a_population_by_hand():
    rng = np.random.default_rng(4)
    people = [rng.normal(size=(n, 2)) for n in (3, 5, 4)]
    found = [pr.personal_weights(d, np.zeros(2), np.eye(2)) for d in people]
    modes = np.array([w for w, _ in found])
    within = sum(c for _, c in found) / 3
    for floor in (0.0, 0.5):
        once = pr.fit_population(people, rounds=1, floor=floor)
        np.testing.assert_allclose(once.mean, modes.mean(axis=0))
        want = np.cov(modes.T, bias=True) + within + floor * np.eye(2)
        np.testing.assert_allclose(once.covariance, want)
    assert pr.fit_population(people[:2], rounds=2).mean.shape == (2,)


def test_the_sign_of_a_component_follows_the_labels_and_a_draw_leaves_it():
    gaps = np.array([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.1], [0.0, 3.0]])
    turned = pc.orient(-np.eye(2), gaps)
    # along the first feature two of four and a half agree; along the second two and two halves
    assert turned.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    half = np.array([[1.0], [-1.0]])
    assert pc.orient([[1.0]], half).tolist() == [[1.0]]
    assert pc.orient([[-1.0]], half).tolist() == [[-1.0]]
    raw, labels = (pc.principal_rewards(gaps, centre=False, sign=s) for s in ("raw", "labels"))
    assert (labels.agreement >= 0.5).all()
    np.testing.assert_allclose(np.abs(raw.directions), np.abs(labels.directions))
    both = np.minimum(raw.agreement, 1 - raw.agreement)
    np.testing.assert_allclose(both, 1 - labels.agreement)
    np.testing.assert_allclose(labels.agreement, pc._agreement(labels.directions, gaps))


@pytest.mark.parametrize("n", [1, 3, None])
def test_components_are_counted_from_the_largest(n):
    gaps = np.random.default_rng(5).normal(size=(50, 3)) * [1.0, 5.0, 2.0]
    found = pc.principal_rewards(gaps, n)
    assert found.directions.shape == (n or 3, 3) and found.variances.shape == (n or 3,)
    assert abs(found.directions[0, 1]) > 0.9 and (np.diff(found.variances) <= 0).all()


def test_components_need_a_table_of_two_rows():
    with pytest.raises(errors.ShapeError, match="comparisons, features"):
        pc.second_moments([1.0, 2.0])
    with pytest.raises(errors.UninformativeDataError, match="two comparisons"):
        pc.second_moments([[1.0, 2.0]])
    assert pc.second_moments([[1.0], [3.0]])[1].tolist() == [[5.0]]
