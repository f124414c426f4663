"""Rewards from preferences, against independent computations and a published fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr

from irlbook.envs.gridworld import gridworld
from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidPreferencesError,
    InvalidTrajectoryError,
    NotConvergedError,
    NotFiniteError,
    NotStochasticError,
    SeparablePreferencesError,
    ShapeError,
    UnidentifiedRewardError,
    UninformativeDataError,
)
from irlbook.mdp import Trajectories, sample_trajectories
from irlbook.metrics import within_prompt_spearman
from irlbook.preferences import bradley_terry
from irlbook.preferences.bradley_terry import (
    bradley_terry_gradient,
    bradley_terry_log_likelihood,
    check_win_graph,
    differences,
    fisher_information,
    fit_bradley_terry,
    inspect_pairs,
    laplace_of_wins,
    pairs_from_labels,
    sample_preferences,
    win_graph,
)
from irlbook.preferences.classification import (
    classification_log_likelihood,
    fit_classification,
    order_consistency,
    win_probability,
)
from irlbook.preferences.trex import cut_snippets, fit_trex, ranked_pairs, trajectory_features

# Citations between four statistics journals (Stigler 1994): [i, j] is how often i was cited by j.
CITATIONS = np.array(
    [[714, 730, 498, 221], [33, 425, 68, 17], [320, 813, 1072, 142], [284, 276, 325, 188]]
)


def citations() -> tuple[np.ndarray, np.ndarray]:
    i, j = np.nonzero(~np.eye(4, dtype=bool))
    return np.column_stack([i, j]), CITATIONS[i, j]


def random_pairs(rng, n_items: int, n: int) -> np.ndarray:
    pairs = rng.integers(0, n_items, size=(2 * n + 20, 2))
    return pairs[pairs[:, 0] != pairs[:, 1]][:n]


def noisy(seed: int, n_items: int = 7, n: int = 300, beta: float = 1.0):
    rng = np.random.default_rng(seed)
    rewards = 0.7 * rng.normal(size=n_items)
    return rewards, sample_preferences(rewards, random_pairs(rng, n_items, n), rng, beta)


def differentiate(f, w: np.ndarray, step: float = 1e-5) -> np.ndarray:
    return np.array([(f(w + step * e) - f(w - step * e)) / (2 * step) for e in np.eye(len(w))])


# Bradley-Terry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["newton", "mm"])
def test_the_published_fit_of_the_citation_data_is_reproduced(method):
    """Turner and Firth, R package BradleyTerry2: abilities and standard errors, 7 digits."""
    pairs, counts = citations()
    fit = fit_bradley_terry(pairs, counts=counts, method=method)
    np.testing.assert_allclose(
        fit.rewards, [0.7899221, -2.1591504, 0.3103523, 1.0588761], atol=6e-8
    )
    np.testing.assert_allclose(
        np.sqrt(np.diag(fit.covariance)),
        [0.04333047, 0.07257974, 0.04164102, 0.05304699],
        atol=6e-9,
    )
    for k, ability, error in ((1, -2.9490725, 0.10254534), (3, 0.2689541, 0.07082997)):
        low, high = fit.difference_interval(k, 0)
        assert (low + high) / 2 == pytest.approx(ability, abs=6e-8)
        assert (high - low) / 2 / 1.959963985 == pytest.approx(error, abs=6e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_newton_mm_and_a_general_optimiser_agree(seed, beta):
    _, pairs = noisy(seed, beta=beta)
    fits = [fit_bradley_terry(pairs, beta=beta, method=m) for m in ("newton", "mm")]
    general = minimize(
        lambda r: -bradley_terry_log_likelihood(r, pairs, beta=beta),
        np.zeros(7),
        jac=lambda r: -bradley_terry_gradient(r, pairs, beta=beta),
        options={"gtol": 1e-9},
    )
    for fit in fits:
        np.testing.assert_allclose(fit.rewards, general.x - general.x.mean(), atol=1e-5)
        assert fit.rewards.sum() == pytest.approx(0, abs=1e-9)
        assert fit.log_likelihood == pytest.approx(-general.fun, abs=1e-8)
    np.testing.assert_allclose(fits[0].covariance, fits[1].covariance, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), beta=st.floats(0.3, 3.0), with_features=st.booleans())
def test_gradient_and_fisher_information_are_the_derivatives(seed, beta, with_features):
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, 5, 40)
    phi = rng.normal(size=(5, 3)) if with_features else None
    counts = rng.uniform(0, 3, size=40)
    w = rng.normal(size=3 if with_features else 5)
    options = {"counts": counts, "beta": beta}

    def value(v):
        return bradley_terry_log_likelihood(v, pairs, phi, **options)

    def gradient(v):
        return bradley_terry_gradient(v, pairs, phi, **options)

    np.testing.assert_allclose(gradient(w), differentiate(value, w), atol=1e-6)
    np.testing.assert_allclose(
        fisher_information(w, pairs, phi, **options), -differentiate(gradient, w), atol=1e-6
    )


def test_fisher_information_does_not_see_who_won():
    rewards, pairs = noisy(0)
    turned = np.where(np.arange(len(pairs))[:, None] % 2, pairs, pairs[:, ::-1])
    np.testing.assert_allclose(
        fisher_information(rewards, pairs), fisher_information(rewards, turned), atol=1e-12
    )


def test_one_hot_features_are_estimation():
    _, pairs = noisy(1)
    phi = np.eye(7)[:, 1:]  # item 0 is the reference: its reward is 0
    free, pinned = fit_bradley_terry(pairs), fit_bradley_terry(pairs, phi)
    np.testing.assert_allclose(free.rewards - free.rewards[0], pinned.rewards, atol=1e-8)
    for i, j in ((0, 3), (2, 5)):
        np.testing.assert_allclose(
            free.difference_interval(i, j), pinned.difference_interval(i, j), atol=1e-7
        )


def test_the_score_is_wins_less_expected_wins():
    rewards, pairs = noisy(2)
    p = 1 / (1 + np.exp(rewards[None, :] - rewards[:, None]))
    wins = win_graph(pairs, 7).toarray()
    expected = ((wins + wins.T) * p).sum(axis=1)
    np.testing.assert_allclose(
        bradley_terry_gradient(rewards, pairs), wins.sum(axis=1) - expected, atol=1e-12
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50))
def test_a_constant_and_a_change_of_units_are_invisible(seed, shift):
    rewards, pairs = noisy(seed, n=60)
    value = bradley_terry_log_likelihood(rewards, pairs)
    assert bradley_terry_log_likelihood(rewards + shift, pairs) == pytest.approx(value, abs=1e-9)
    assert bradley_terry_log_likelihood(3 * rewards, pairs, beta=3.0) == pytest.approx(value)


def test_renaming_items_renames_the_answer():
    _, pairs = noisy(3)
    order = np.random.default_rng(0).permutation(7)
    first = fit_bradley_terry(pairs).rewards
    np.testing.assert_allclose(fit_bradley_terry(order[pairs]).rewards[order], first, atol=1e-9)


def test_turning_every_label_turns_the_reward():
    _, pairs = noisy(4)
    np.testing.assert_allclose(
        fit_bradley_terry(pairs[:, ::-1]).rewards, -fit_bradley_terry(pairs).rewards, atol=1e-9
    )


def test_counts_are_repeated_rows_and_zero_counts_are_none():
    _, pairs = noisy(5, n=80)
    counts = np.random.default_rng(0).integers(0, 4, size=80)
    a = fit_bradley_terry(pairs, counts=counts, l2=0.1)
    b = fit_bradley_terry(np.repeat(pairs, counts, axis=0), l2=0.1, n_items=7)
    np.testing.assert_allclose(a.rewards, b.rewards, atol=1e-8)
    np.testing.assert_allclose(a.covariance, b.covariance, atol=1e-8)


@pytest.mark.parametrize("with_features", [False, True])
def test_intervals_cover_what_they_say(with_features):
    """400 data sets; a share of 0.95 has a standard error of 0.011."""
    rng = np.random.default_rng(6)
    phi = rng.normal(size=(6, 2))
    rewards = phi @ [0.5, -0.3]
    asked = random_pairs(rng, 6, 240)
    covered = 0
    for _ in range(400):
        fit = fit_bradley_terry(
            sample_preferences(rewards, asked, rng), phi if with_features else None
        )
        low, high = fit.difference_interval(0, 4)
        covered += low < rewards[0] - rewards[4] < high
    assert 0.92 < covered / 400 < 0.98


def test_contrasts_that_hold_the_unknown_constant_are_refused():
    fit = fit_bradley_terry(noisy(7)[1])
    with pytest.raises(UnidentifiedRewardError, match="adds up to 1"):
        fit.interval(np.eye(7)[2])
    with pytest.raises(ShapeError):
        fit.interval([1.0, -1.0])
    low, high = fit.interval(np.eye(7)[2] - 1 / 7)
    assert (low + high) / 2 == pytest.approx(fit.rewards[2])


# When it cannot be fitted -------------------------------------------------------------------------


def test_disconnected_comparisons_are_named():
    pairs = [[0, 1], [1, 0], [2, 3], [3, 2], [3, 4], [4, 3]]
    with pytest.raises(UnidentifiedRewardError, match="2 groups.*items 0, 1 against the rest"):
        fit_bradley_terry(pairs)
    with pytest.raises(UnidentifiedRewardError, match="items 2, 5 were never compared") as caught:
        fit_bradley_terry([[0, 1], [1, 0], [3, 4], [4, 3], [1, 3], [3, 1]], n_items=6)
    assert "against the rest" not in str(caught.value)
    fitted = fit_bradley_terry(pairs, l2=0.1)
    assert np.isfinite(fitted.rewards).all() and fitted.rewards.sum() == pytest.approx(0)


def test_separable_comparisons_are_named():
    cycle = [[0, 1], [1, 2], [2, 0]]
    with pytest.raises(SeparablePreferencesError, match="items 3 never lost") as caught:
        fit_bradley_terry([*cycle, [3, 0], [3, 1]])
    assert "0, 1, 2" not in str(caught.value)  # the rest is not named, the odd one is
    with pytest.raises(SeparablePreferencesError, match="items 3 never won"):
        fit_bradley_terry([*cycle, [0, 3]])
    check_win_graph([*cycle, [0, 3], [3, 0]])  # one win back, and all is well
    with pytest.raises(SeparablePreferencesError):
        check_win_graph([[0, 1], [1, 0]], counts=[3, 0])  # a win that was never seen is none
    with pytest.raises(UnidentifiedRewardError):
        check_win_graph([[0, 1], [1, 0], [1, 2], [2, 1]], counts=[1, 1, 0, 0])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_fords_condition_decides_whether_the_maximum_is_finite(seed):
    """Against a fit with a vanishing penalty: its rewards stay or run away."""
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, 5, int(rng.integers(4, 16)))
    spreads = [np.ptp(fit_bradley_terry(pairs, n_items=5, l2=l2).rewards) for l2 in (1e-4, 1e-7)]
    runs_away = spreads[1] - spreads[0] > 1.0
    try:
        finite = np.isfinite(fit_bradley_terry(pairs, n_items=5).rewards).all()
        assert finite and not runs_away
    except SeparablePreferencesError:
        assert runs_away
    except UnidentifiedRewardError:
        pass  # then a penalty decides, and the spread may do either


def test_separable_features_are_named_and_noise_mends_it():
    rng = np.random.default_rng(8)
    phi, w = rng.normal(size=(40, 3)), np.array([1.0, -2.0, 0.5])
    asked = random_pairs(rng, 40, 150)
    r = phi @ w
    clean = np.where((r[asked[:, 0]] > r[asked[:, 1]])[:, None], asked, asked[:, ::-1])
    with pytest.raises(SeparablePreferencesError, match="decide 14. of 150 rows"):
        fit_bradley_terry(clean, phi)
    assert np.isfinite(fit_bradley_terry(clean, phi, l2=0.1).weights).all()
    assert np.isfinite(fit_bradley_terry(sample_preferences(r, asked, rng), phi).weights).all()


def test_quasi_separation_is_found_too():
    """One feature that stands in two rows only, and wins both; the other is noisy."""
    rng = np.random.default_rng(9)
    phi = np.column_stack([rng.normal(size=30), np.zeros(30)])
    phi[0, 1] = 1.0
    pairs = sample_preferences(phi[:, 0], random_pairs(rng, 29, 400) + 1, rng)
    pairs = np.vstack([pairs, [[0, 5], [0, 9]]])
    with pytest.raises(SeparablePreferencesError, match="decide 2 of 402 rows; items 0 only"):
        fit_bradley_terry(pairs, phi)
    fit = fit_bradley_terry(pairs, phi, l2=[0.0, 1.0])  # a penalty where it is needed
    assert np.isfinite(fit.weights).all()


def test_features_that_never_differ_are_named():
    rng = np.random.default_rng(10)
    phi = rng.normal(size=(20, 3))
    phi[:, 2] = np.arange(20) // 10  # a feature of the prompt
    pairs = np.vstack([random_pairs(rng, 10, 50), random_pairs(rng, 10, 50) + 10])
    with pytest.raises(UnidentifiedRewardError, match="features 2 never differ"):
        fit_bradley_terry(sample_preferences(phi[:, 0], pairs, rng), phi)


def test_the_scale_of_features_does_not_matter():
    rng = np.random.default_rng(11)
    phi = rng.normal(size=(20, 3))
    pairs = sample_preferences(phi[:, 0], random_pairs(rng, 20, 200), rng)
    first = fit_bradley_terry(pairs, phi)
    for scale in (1e-6, 1e6):
        fit = fit_bradley_terry(pairs, scale * phi)
        np.testing.assert_allclose(fit.rewards, first.rewards, rtol=1e-6)


def test_bad_input_is_named_by_row():
    good = [[0, 1], [1, 0]]
    for pairs, message in (
        ([*good, [1, 1], [0, 0]], "rows 2, 3 compare an item with itself"),
        ([*good, [-1, 0]], "rows 2 hold negative"),
        (np.zeros((0, 2), dtype=int), "P > 0"),
        ([0, 1, 1], "expected"),
        ([[0.5, 1.0]], "not whole numbers"),
    ):
        with pytest.raises(InvalidPreferencesError, match=message):
            fit_bradley_terry(pairs)
    with pytest.raises(InvalidPreferencesError, match="rows 2 name items beyond the last of 2"):
        fit_bradley_terry([*good, [0, 5]], n_items=2)
    with pytest.raises(InvalidPreferencesError, match="rows 1 are negative"):
        fit_bradley_terry(good, counts=[1.0, -1.0])
    with pytest.raises(ShapeError):
        fit_bradley_terry(good, counts=[1.0])
    with pytest.raises(NotFiniteError, match="finite"):
        fit_bradley_terry(good, [[np.nan], [0.0]])
    with pytest.raises(ShapeError):
        bradley_terry_log_likelihood([[0.0, 1.0]], good)
    for wrong in ({"beta": 0.0}, {"l2": -1.0}, {"method": "magic"}, {"method": "mm", "l2": 1.0}):
        with pytest.raises(InvalidHyperparameterError):
            fit_bradley_terry(good, **wrong)
    with pytest.raises(InvalidHyperparameterError):
        bradley_terry_log_likelihood([0.0, 1.0], good, beta=-1.0)
    with pytest.raises(NotConvergedError):
        fit_bradley_terry(noisy(0)[1], method="mm", max_iterations=2)


def test_pairs_are_inspected_by_row():
    pairs = [[0, 1], [1, 0], [0, 1], [2, 2], [0, 3]]
    report = inspect_pairs(pairs, n_items=6)
    assert report.identical == (3,)
    assert report.duplicates == (2,)
    assert report.contradictions == (1,)
    assert report.missing == (4, 5)
    same = inspect_pairs(pairs, features=np.array([[1.0], [2.0], [3.0], [1.0]]))
    assert same.identical == (3, 4)


def test_copied_rows_make_intervals_too_narrow():
    """The report finds them; the fit cannot know."""
    _, pairs = noisy(12)
    once = fit_bradley_terry(pairs)
    four = fit_bradley_terry(np.tile(pairs, (4, 1)))
    np.testing.assert_allclose(four.rewards, once.rewards, atol=1e-8)
    np.testing.assert_allclose(4 * four.covariance, once.covariance, atol=1e-8)
    assert len(inspect_pairs(np.tile(pairs, (4, 1))).duplicates) >= 3 * len(pairs)


def test_labels_become_pairs_and_ties_count_half():
    pairs, counts = pairs_from_labels([0, 1, 2], [1, 2, 0], [1, 0, 0.5])
    table = np.zeros((3, 3))
    table[tuple(pairs.T)] = counts
    np.testing.assert_array_equal(table, [[0, 1, 0.5], [0, 0, 0], [0.5, 1, 0]])
    with pytest.raises(InvalidPreferencesError, match="rows 1, 2"):
        pairs_from_labels([0, 0, 0], [1, 1, 1], [1, -1, np.nan])
    with pytest.raises(ShapeError):
        pairs_from_labels([0], [1, 2], [1])
    even = fit_bradley_terry(*pairs_from_labels([0, 1], [1, 2], [0.5, 0.5])[:1])
    np.testing.assert_allclose(even.rewards, 0, atol=1e-12)


def test_ties_thrown_away_exaggerate():
    """Items of nearly equal reward tie often; without the ties their gap looks larger."""
    labels = np.repeat([1.0, 0.0, 0.5], [30, 10, 60])
    with_ties = pairs_from_labels(np.zeros(100, int), np.ones(100, int), labels)
    kept = labels != 0.5
    without = pairs_from_labels(np.zeros(40, int), np.ones(40, int), labels[kept])
    a, b = (fit_bradley_terry(p, counts=c).rewards for p, c in (with_ties, without))
    assert a[0] - a[1] == pytest.approx(np.log(60 / 40))
    assert b[0] - b[1] == pytest.approx(np.log(30 / 10))


def test_choosers_follow_the_temperature():
    rng = np.random.default_rng(13)
    pairs = np.tile([[0, 1]], (20_000, 1))
    for beta in (0.5, 2.0):
        first = (sample_preferences([1.0, 0.0], pairs, rng, beta)[:, 0] == 0).mean()
        assert first == pytest.approx(1 / (1 + np.exp(-1 / beta)), abs=0.02)


def test_differences_sparse_and_dense_agree():
    pairs = [[0, 1], [2, 0]]
    np.testing.assert_array_equal(
        differences(pairs, n_items=4).toarray(), differences(pairs, np.eye(4))
    )


# Classification -----------------------------------------------------------------------------------


def test_a_classifier_is_logistic_regression_with_an_intercept():
    rng = np.random.default_rng(14)
    phi = rng.normal(size=(30, 3))
    pairs = sample_preferences(phi @ [1.0, 0.5, -1.0], random_pairs(rng, 30, 300), rng)
    fit = fit_classification(pairs, phi, l2=0.3)

    def loss(v):
        return -classification_log_likelihood(phi @ v[:3] + v[3], pairs) + 0.15 * v[:3] @ v[:3]

    found = minimize(loss, np.zeros(4), options={"gtol": 1e-6}).x
    np.testing.assert_allclose(np.append(fit.weights, fit.bias), found, atol=1e-5)
    assert fit.log_likelihood == pytest.approx(classification_log_likelihood(fit.rewards, pairs))
    np.testing.assert_allclose(fit.rewards, phi @ fit.weights + fit.bias)


def test_free_classification_rewards_are_log_odds_of_the_share_of_wins():
    _, pairs = noisy(15)
    fit = fit_classification(pairs, np.eye(7)[:, 1:])
    won, lost = (np.bincount(pairs[:, k], minlength=7) for k in (0, 1))
    np.testing.assert_allclose(fit.rewards, np.log(won / lost), atol=1e-7)


def test_classification_refuses_what_it_cannot_fit():
    with pytest.raises(SeparablePreferencesError):
        fit_classification([[0, 1]] * 5, [[1.0], [0.0]])
    with pytest.raises(ShapeError):
        fit_classification([[0, 1]], [1.0, 0.0])
    with pytest.raises(InvalidPreferencesError):
        fit_classification([[0, 7]], [[1.0], [0.0]])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), beta=st.floats(0.2, 3.0))
def test_with_equal_opponents_classification_keeps_the_order(seed, beta):
    rng = np.random.default_rng(seed)
    r, q = rng.normal(size=8), rng.dirichlet(np.ones(8))
    chance = win_probability(r, q, beta)
    assert (np.argsort(chance) == np.argsort(r)).all()
    log_odds = np.log(chance / (1 - chance))
    # Jensen: the log-odds are at least the reward, less a constant that is the same for all
    assert (log_odds >= r / beta - np.log(q @ np.exp(r / beta)) - 1e-9).all()


def test_with_unequal_opponents_it_does_not():
    r = np.array([1.0, 0.5, 3.0, -3.0])  # item 0 is better than 1, but meets 2 where 1 meets 3
    opponents = np.array([[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=float)
    chance = win_probability(r, opponents)
    assert chance[0] < 0.5 < chance[1] and r[0] > r[1]
    with pytest.raises(NotStochasticError, match="sum to 1"):
        win_probability(r, np.ones(4))


def test_win_probability_by_hand():
    r = np.array([0.3, -1.0, 2.0])
    by_hand = [sum(1 / (1 + np.exp(-(a - b) / 0.7)) for b in r) / 3 for a in r]
    np.testing.assert_allclose(win_probability(r, beta=0.7), by_hand)


def test_order_consistency_counts_pairs():
    truth = np.array([3.0, 2.0, 1.0, 1.0])
    assert order_consistency(truth, truth) == 1.0
    assert order_consistency(-truth, truth) == 0.0
    assert order_consistency(np.zeros(4), truth) == 0.5
    assert order_consistency(np.exp(truth), truth) == 1.0
    groups = [0, 0, 1, 1]
    assert order_consistency([1.0, 0.0, 5.0, 9.0], truth, groups) == 1.0
    with pytest.raises(UninformativeDataError, match="no order"):
        order_consistency(truth, truth, [0, 1, 2, 3])


def test_within_prompt_spearman_is_scipys_prompt_by_prompt():
    rng = np.random.default_rng(16)
    a, b = rng.integers(0, 4, size=(2, 5, 9)).astype(float)
    each = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert within_prompt_spearman(a, b) == pytest.approx(np.mean(each))
    assert within_prompt_spearman(a + 10 * np.arange(5)[:, None], b) == pytest.approx(np.mean(each))
    half = np.array([[1.0, 2.0, 3.0], [7.0, 7.0, 7.0]])  # no order to find in the second prompt
    assert within_prompt_spearman(half, half) == pytest.approx(1)
    assert within_prompt_spearman(half[::-1], half) == 0.0
    with pytest.raises(UninformativeDataError, match="constant"):
        within_prompt_spearman(np.zeros((2, 3)), np.ones((2, 3)))


# T-REX --------------------------------------------------------------------------------------------


@pytest.fixture
def runs() -> tuple[Trajectories, np.ndarray]:
    mdp = gridworld(4, 4, goals={}, slip=0.2, discount=0.9)
    rng = np.random.default_rng(17)
    features = rng.normal(size=(16, 3))
    return sample_trajectories(mdp, np.full((16, 5), 0.2), 20, 12, rng), features


def test_trajectory_features_add_up_and_average_to_feature_expectations(runs):
    seen, features = runs
    phi = trajectory_features(seen, features, 0.9)
    by_hand = [sum(0.9**t * features[s] for t, s in enumerate(x[:-1])) for x, _ in seen]
    np.testing.assert_allclose(phi, by_hand)
    np.testing.assert_allclose(phi.mean(axis=0), seen.feature_expectations(features, 5, 0.9))
    on_actions = np.repeat(features[:, None], 5, axis=1)
    np.testing.assert_allclose(trajectory_features(seen, on_actions, 0.9), phi)


def test_trex_orders_the_demonstrations_and_ignores_the_scale_of_scores(runs):
    seen, features = runs
    returns = trajectory_features(seen, features) @ [1.0, -1.0, 0.5]
    fit = fit_trex(seen, returns, features, l2=0.01)
    assert fit.accuracy > 0.97
    np.testing.assert_allclose(fit.reward, features @ fit.weights)
    again = fit_trex(seen, np.exp(returns / 5), features, l2=0.01)
    np.testing.assert_allclose(again.weights, fit.weights, atol=1e-9)
    with pytest.raises(SeparablePreferencesError):  # a ranking without mistakes
        fit_trex(seen, returns, features, l2=0.0)


def test_a_constant_reward_a_step_is_invisible_at_equal_lengths(runs):
    seen, features = runs
    constant = np.column_stack([features, np.ones(16)])
    returns = trajectory_features(seen, features)[:, 0]
    fit = fit_trex(seen, returns, constant, l2=1.0)
    assert abs(fit.weights[3]) < 1e-9
    with pytest.raises(UnidentifiedRewardError, match="features 3"):
        fit_trex(seen, returns, constant, l2=0.0)


def test_mixed_lengths_are_named(runs):
    seen, features = runs
    whole = list(seen)
    whole[3] = (whole[3][0][:8], whole[3][1][:7])
    mixed = Trajectories.from_list(whole)
    with pytest.raises(InvalidPreferencesError, match="7 to 12 actions .odd ones: 3"):
        fit_trex(mixed, np.arange(20), features)
    assert np.isfinite(fit_trex(mixed, np.arange(20), features, mixed_lengths=True).weights).all()


def test_snippets_are_pieces_of_their_owners(runs):
    seen, features = runs
    pieces, owner = cut_snippets(seen, 5, 50, np.random.default_rng(0))
    whole = list(seen)
    for (states, actions), i in zip(pieces, owner, strict=True):
        places = [
            b
            for b in range(8)
            if (whole[i][0][b : b + 6] == states).all()
            and (whole[i][1][b : b + 5] == actions).all()
        ]
        assert places
    with pytest.raises(InvalidTrajectoryError, match="13 actions do not fit"):
        cut_snippets(seen, 13, 5, np.random.default_rng(0))


def test_bad_rankings_are_named(runs):
    seen, features = runs
    np.testing.assert_array_equal(ranked_pairs([2.0, 1.0, 2.0]), [[0, 1], [2, 1]])
    with pytest.raises(InvalidPreferencesError, match="same rank"):
        fit_trex(seen, np.zeros(20), features)
    with pytest.raises(InvalidPreferencesError, match="finite"):
        ranked_pairs([1.0, np.nan])
    with pytest.raises(InvalidPreferencesError, match="20 trajectories"):
        fit_trex(seen, np.arange(3), features)
    with pytest.raises(InvalidTrajectoryError, match="trajectory 0, step"):
        fit_trex(seen, np.arange(20), features[:2])
    with pytest.raises(ShapeError):
        trajectory_features(seen, np.arange(16.0))


@pytest.mark.parametrize(
    ("left", "right", "labels", "message"),
    [
        ([0], [1], ["Tie"], "the label of row 0 is 'Tie'; give 1 where left"),
        ([0, 1], [1, 2], [1, "A"], "the label of row 1 is 'A'"),
        ([0], [1], [None], "labels of rows 0 are not in"),
        ([0], [1], [[1]], "one length"),
        ([0, 1], [1, 2], [[1], [0, 1]], "the label of row 0"),
        (["a"], ["b"], [1], "left must hold item numbers"),
        ([0.5], [1], [1], "left must hold item numbers"),
        ([0], [-1], [1], "right must hold item numbers"),
    ],
)
def test_labels_and_items_that_are_no_numbers_are_named(left, right, labels, message):
    with pytest.raises((InvalidPreferencesError, ShapeError), match=message):
        pairs_from_labels(left, right, labels)


def test_rows_of_unlike_length_are_no_pairs():
    for use in (inspect_pairs, lambda p: fit_bradley_terry(p, n_items=3)):
        with pytest.raises(InvalidPreferencesError, match="unlike length"):
            use([[0, 1], [2]])
    with pytest.raises(InvalidPreferencesError, match="rows 1 hold negative"):
        fit_classification([[0, 1], [1, -1]], np.eye(2), l2=1.0)


# What is counted, and where a bound lies ----------------------------------------------------------


@pytest.mark.parametrize("method", ["newton", "mm"])
@pytest.mark.parametrize("tolerance", [0.2, 0.01, 1e-4])
def test_the_residual_is_the_largest_slope_of_the_mean_loss(method, tolerance):
    """In units of beta / max |d|; a loose tolerance stops early, where there is a slope to see."""
    _, pairs = noisy(20, beta=2.0)
    counts = np.random.default_rng(0).uniform(0.5, 2.0, size=len(pairs))
    fit = fit_bradley_terry(pairs, counts=counts, beta=2.0, method=method, tolerance=tolerance)
    slope = bradley_terry_gradient(fit.weights, pairs, counts=counts, beta=2.0)
    report = fit.report
    assert report.residual == pytest.approx(2.0 * np.abs(slope).max() / counts.sum(), rel=1e-6)
    assert report.converged and report.residual <= tolerance == report.tolerance


def test_the_residual_of_a_regression_holds_the_penalty_and_the_scale_of_features():
    rng = np.random.default_rng(21)
    phi = 10.0 * rng.normal(size=(9, 2))
    pairs = sample_preferences(phi[:, 0] / 10, random_pairs(rng, 9, 50), rng)
    fit = fit_bradley_terry(pairs, phi, l2=[3.0, 0.5], tolerance=1e-3)
    slope = bradley_terry_gradient(fit.weights, pairs, phi) - [3.0, 0.5] * fit.weights
    longest = np.abs(phi[pairs[:, 0]] - phi[pairs[:, 1]]).max()
    assert 1e-9 < fit.report.residual <= 1e-3
    assert fit.report.residual == pytest.approx(np.abs(slope).max() / (50 * longest), rel=1e-6)


def test_even_choices_need_no_step_and_a_run_out_of_steps_says_how_many():
    even = fit_bradley_terry([[0, 1], [1, 0]])
    assert even.report.iterations == 0 and even.report.converged and not even.rewards.any()
    for method, few in (("newton", 1), ("mm", 3)):
        with pytest.raises(NotConvergedError, match=f"stopped after {few} iterations at 0"):
            fit_bradley_terry(noisy(0)[1], method=method, max_iterations=few, tolerance=1e-14)


def test_sparse_and_dense_designs_are_fitted_alike(monkeypatch):
    _, pairs = noisy(22)
    options = {"counts": np.linspace(0.5, 2, len(pairs)), "beta": 0.8}
    dense = [fit_bradley_terry(pairs, l2=l2, **options) for l2 in (0.0, 0.3)]
    monkeypatch.setattr(bradley_terry, "SMALL", 0)
    for one, l2 in zip(dense, (0.0, 0.3), strict=True):
        other = fit_bradley_terry(pairs, l2=l2, **options)
        np.testing.assert_allclose(other.rewards, one.rewards, atol=1e-9)
        np.testing.assert_allclose(other.covariance, one.covariance, atol=1e-9)
        assert other.log_likelihood == pytest.approx(one.log_likelihood)


def test_a_fit_from_far_away_needs_shorter_steps_and_arrives():
    """One upset among thousands: Newton's full step from 0 goes past the optimum."""
    counts = np.array([1e6, 1.0, 1e6, 1.0])
    fit = fit_bradley_terry([[0, 1], [1, 0], [1, 2], [2, 1]], counts=counts)
    np.testing.assert_allclose(-np.diff(fit.rewards), np.log(1e6), rtol=1e-3)


def test_where_no_feature_differs_the_penalty_decides():
    fit = fit_bradley_terry([[0, 1], [1, 2]], np.full((3, 2), 5.0), l2=0.5)
    assert fit.report.converged and not fit.weights.any() and not fit.rewards.any()
    np.testing.assert_allclose(fit.covariance, 2 * np.eye(2))
    assert fit.log_likelihood == pytest.approx(-2 * np.log(2))
    with pytest.raises(UnidentifiedRewardError, match="never differ"):
        fit_bradley_terry([[0, 1], [1, 2]], np.full((3, 2), 5.0))


def test_items_that_are_never_compared_still_have_a_place():
    assert inspect_pairs([[0, 1], [0, 3]]).missing == (2,)
    assert inspect_pairs([[0, 1]], np.zeros((3, 1))).missing == (2,)
    assert win_graph([[0, 3], [0, 3]], counts=[1.0, 0.5]).toarray()[0].tolist() == [0, 0, 0, 1.5]
    assert bradley_terry_gradient(np.zeros(4), [[0, 1]]).tolist() == [0.5, -0.5, 0.0, 0.0]


def test_a_contrast_of_nothing_is_known_exactly():
    fit = fit_bradley_terry(noisy(7)[1])
    assert fit.interval(np.zeros(7)) == (0.0, 0.0)
    wide, narrow = (np.ptp(fit.difference_interval(0, 1, level)) for level in (0.99, 0.5))
    assert wide / narrow == pytest.approx(2.5758293 / 0.6744898)
    with pytest.raises(UnidentifiedRewardError, match="adds up to 1e-06"):
        fit.interval(np.eye(7)[2] - np.eye(7)[1] + 1e-6 * np.eye(7)[0])


@pytest.mark.parametrize("beta", [0.0, -1.0, np.nan])
def test_a_temperature_is_above_zero_wherever_it_is_given(beta):
    for call in (
        lambda: fit_bradley_terry([[0, 1], [1, 0]], beta=beta),
        lambda: bradley_terry_log_likelihood([0.0, 1.0], [[0, 1]], beta=beta),
        lambda: fisher_information([0.0, 1.0], [[0, 1]], beta=beta),
    ):
        with pytest.raises(InvalidHyperparameterError, match="above 0"):
            call()


def test_counts_may_be_zero_and_must_be_finite():
    pairs = [[0, 1], [1, 0], [1, 0]]
    assert bradley_terry_log_likelihood([0.0, 0.0], pairs, counts=[1, 0, 0]) == -np.log(2)
    for bad in (np.inf, np.nan, -1e-9):
        with pytest.raises(InvalidPreferencesError, match="counts of rows 2 are negative or not"):
            fit_bradley_terry(pairs, counts=[1.0, 1.0, bad])


def test_bytes_are_items_too():
    """Unsigned numbers must not go round at 0 when they are subtracted or turned."""
    pairs = np.array([[0, 200], [200, 0], [3, 200], [200, 3]], dtype=np.uint8)
    assert bradley_terry.as_pairs(pairs).dtype == np.intp
    counts = [2.0, 1.0, 1.0, 1.0]
    fit = fit_bradley_terry(pairs, counts=counts, n_items=201, l2=1e-9)
    assert fit.rewards[0] - fit.rewards[200] == pytest.approx(np.log(2), abs=1e-6)


def test_many_bad_rows_are_named_up_to_the_eighth():
    with pytest.raises(InvalidPreferencesError, match="rows 0, 1, 2, 3, 4, 5, 6, 7 compare"):
        fit_bradley_terry([[1, 1]] * 8 + [[0, 1]])
    with pytest.raises(InvalidPreferencesError, match="5, 6, 7 and 2 more compare"):
        fit_bradley_terry([[1, 1]] * 10 + [[0, 1]])


def test_the_smaller_groups_are_named_against_the_rest():
    pairs = [[0, 1], [1, 0], [2, 3], [3, 4], [4, 2], [5, 6], [6, 7], [7, 8], [8, 5]]
    with pytest.raises(UnidentifiedRewardError) as caught:
        fit_bradley_terry(pairs, n_items=10)
    words = str(caught.value)
    assert "fall into 4 groups" in words
    assert "items 0, 1; items 2, 3, 4 against the rest; items 9 were never compared" in words


def test_both_ends_are_named_where_neither_is_small():
    with pytest.raises(SeparablePreferencesError) as caught:
        fit_bradley_terry([[0, 1], [1, 0], [2, 3], [3, 2], [0, 2]])
    assert "items 0, 1 never lost" in str(caught.value)
    assert "items 2, 3 never won" in str(caught.value)


@pytest.mark.parametrize(
    ("wins", "features"),
    [((2, 3), (2, 3, 2)), ((2, 3, 3), (3, 2)), ((2, 3, 4), (2, 3, 2)), ((1, 3, 3), (2, 3, 2))],
)
def test_tables_of_wins_must_be_square_and_have_features(wins, features):
    with pytest.raises(ShapeError, match=r"\(S, A, A\), \(S, A, K\)"):
        laplace_of_wins(np.zeros(wins), np.zeros(features), 1.0)


def test_the_laplace_of_wins_comes_back_from_a_bad_start():
    rng = np.random.default_rng(23)
    phi, wins = rng.normal(size=(3, 5, 2)), rng.integers(0, 9, size=(3, 5, 5)).astype(float)
    mean, sigma = laplace_of_wins(wins, phi, 0.1, steps=50)
    for start in (np.full((3, 2), 30.0), np.array([[0.0, 0.0], [-40.0, 9.0], [1.0, 1.0]])):
        found = laplace_of_wins(wins, phi, 0.1, start, steps=50)
        np.testing.assert_allclose(found[0], mean, atol=1e-7)
        np.testing.assert_allclose(found[1], sigma, atol=1e-7)
        assert start.max() >= 9.0  # the start itself is left alone


def test_a_table_without_wins_is_the_prior():
    mean, sigma = laplace_of_wins(np.zeros((2, 3, 3)), np.ones((2, 3, 2)), 4.0)
    assert not mean.any()
    np.testing.assert_allclose(sigma, np.tile(np.eye(2) / 4, (2, 1, 1)))


def test_a_classifier_says_how_it_ended_and_which_item_it_lacks():
    _, pairs = noisy(15)
    fit = fit_classification(pairs, np.eye(7)[:, 1:])
    assert fit.report.converged and fit.bias == pytest.approx(fit.rewards[0])
    with pytest.raises(InvalidPreferencesError, match=r"for 2 items; .* items below 2"):
        fit_classification([[0, 2]], [[1.0], [0.0]])


@pytest.mark.parametrize(
    ("opponents", "error"),
    [
        (np.full(3, 1 / 3), ShapeError),
        (np.full((2, 4), 1 / 4), ShapeError),
        ([1.5, -0.5, 0.0, 0.0], NotStochasticError),
        (np.vstack([np.eye(4)[:3], np.zeros(4)]), NotStochasticError),
    ],
)
def test_opponents_are_a_distribution_over_the_items(opponents, error):
    with pytest.raises(error, match="opponents"):
        win_probability(np.zeros(4), opponents)


def test_features_of_a_run_are_looked_up_within_their_bounds(runs):
    seen, features = runs
    most = int(seen.acting_states.max())
    trajectory_features(seen, features[: most + 1])
    first = int(np.argmax(seen.acting_states == most))
    owner, step = first // 12, first % 12
    with pytest.raises(InvalidTrajectoryError, match=f"trajectory {owner}, step {step}: state"):
        trajectory_features(seen, features[:most])
    on_actions = np.repeat(features[:, None], 5, axis=1)
    highest = int(seen.actions.max())
    trajectory_features(seen, on_actions[:, : highest + 1])
    with pytest.raises(InvalidTrajectoryError, match=f"action {highest} has no features"):
        trajectory_features(seen, on_actions[:, :highest])


def test_snippets_come_from_everywhere_and_may_be_whole(runs):
    seen, _ = runs
    pieces, owner = cut_snippets(seen, 11, 400, np.random.default_rng(0))
    assert len(pieces) == len(owner) == 400 and set(owner) == set(range(20))
    whole = list(seen)
    heads = [(x == whole[i][0][:12]).all() for (x, _), i in zip(pieces, owner, strict=True)]
    tails = [(x == whole[i][0][1:]).all() for (x, _), i in zip(pieces, owner, strict=True)]
    assert 120 < sum(heads) < 280 and 120 < sum(tails) < 280  # two places to begin
    pieces, owner = cut_snippets(seen, 12, 3, np.random.default_rng(0))
    assert all((x == whole[i][0]).all() for (x, _), i in zip(pieces, owner, strict=True))
    assert cut_snippets(seen, 1, 2, np.random.default_rng(0))[0].lengths.tolist() == [1, 1]
    with pytest.raises(InvalidTrajectoryError, match="0 actions do not fit"):
        cut_snippets(seen, 0, 5, np.random.default_rng(0))


def test_a_ranking_that_no_feature_sees_is_half_right(runs):
    seen, features = runs
    fit = fit_trex(seen, np.arange(20), np.zeros((16, 2)))
    assert fit.accuracy == 0.5 and not fit.reward.any() and len(fit.pairs) == 190
    np.testing.assert_array_equal(fit.pairs, ranked_pairs(np.arange(20)))
    on_actions = np.repeat(features[:, None], 5, axis=1)
    fit = fit_trex(seen, np.arange(20), on_actions, discount=0.9)
    assert fit.reward.shape == (16, 5)
    gap = np.subtract(*(trajectory_features(seen, features, 0.9) @ fit.weights)[fit.pairs.T])
    assert fit.accuracy == (gap > 0).mean()
    with pytest.raises(InvalidPreferencesError, match=r"\(N,\)"):
        ranked_pairs([[1.0, 2.0]])
