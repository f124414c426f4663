"""Active preference learning, against brute force, finite differences and closed forms."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logsumexp

from irlbook.errors import (
    InvalidHyperparameterError,
    NotConvergedError,
    NotFiniteError,
    NotStochasticError,
    ShapeError,
    UnidentifiedRewardError,
)
from irlbook.lm.enumerable import kl_from_logps, tilted
from irlbook.metrics import within_prompt_spearman
from irlbook.posttraining import policy_pairs
from irlbook.preferences import acquisition as acq
from irlbook.preferences import dueling, information
from irlbook.preferences.bradley_terry import fisher_information, fit_bradley_terry, laplace_of_wins
from irlbook.preferences.information import (
    answer_variance,
    best_design,
    design_value,
    greedy_design,
    information_gains,
    information_of,
)

RNG = np.random.default_rng


def questions(seed: int, n: int = 12, k: int = 3):
    rng = RNG(seed)
    d, w = rng.normal(size=(n, k)), rng.normal(size=k)
    return d, answer_variance(d, w), w


# Information --------------------------------------------------------------------------------------


def test_the_information_is_that_of_bradley_terry():
    rng = RNG(0)
    phi, w, pairs = rng.normal(size=(7, 3)), rng.normal(size=3), np.array([[0, 1], [4, 2], [5, 6]])
    d = phi[pairs[:, 0]] - phi[pairs[:, 1]]
    found = information_of(d, answer_variance(d, w, 0.7))
    assert found == pytest.approx(fisher_information(w, pairs, phi, beta=0.7))
    assert information_of(d, np.zeros(3), 2.0) == pytest.approx(2 * np.eye(3))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from("DAE"))
def test_a_gain_is_the_difference_of_two_designs(seed, criterion):
    d, lam, _ = questions(seed)
    start = information_of(d[:4], lam[:4], 0.3)
    gains = information_gains(np.linalg.inv(start), d[4:], lam[4:], criterion)
    for k, gain in enumerate(gains, start=4):
        after = start + lam[k] * np.outer(d[k], d[k])
        want = design_value(after, criterion) - design_value(start, criterion)
        assert gain == pytest.approx(want, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_log_determinant_has_diminishing_returns(seed):
    d, lam, _ = questions(seed)
    few, many = information_of(d[:3], lam[:3], 0.1), information_of(d[:8], lam[:8], 0.1)
    before, after = (information_gains(np.linalg.inv(m), d[8:], lam[8:]) for m in (few, many))
    assert (after <= before + 1e-12).all() and (after >= 0).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_greedy_keeps_its_promise_and_brute_force_is_best(seed):
    d, lam, _ = questions(seed, n=9)
    start = 0.1 * np.eye(3)

    def gain(rows):
        return design_value(information_of(d[rows], lam[rows], start)) - design_value(start)

    greedy, best = greedy_design(start, d, lam, 3), best_design(start, d, lam, 3)
    assert len(set(greedy)) == 3
    assert gain(best) == pytest.approx(max(gain(list(s)) for s in combinations(range(9), 3)))
    assert (1 - 1 / np.e) * gain(best) <= gain(greedy) <= gain(best) + 1e-12


def test_greedy_sees_the_batch_and_the_top_of_one_score_does_not():
    d = np.array([[1.0, 0.0]] * 5 + [[0.0, 0.9]])  # five copies of the best question
    lam, start = np.full(6, 0.25), np.eye(2)
    assert set(greedy_design(start, d, lam, 2)) == {0, 5}
    assert acq.top_rows(information_gains(np.eye(2), d, lam), 2).tolist() == [0, 1]


def test_greedy_steps_update_the_covariance_rightly():
    d, lam, _ = questions(5, n=40, k=4)
    chosen = greedy_design(0.2 * np.eye(4), d, lam, 8)
    for k in range(8):
        now = information_of(d[chosen[:k]], lam[chosen[:k]], 0.2)
        values = [design_value(now + lam[p] * np.outer(d[p], d[p])) for p in range(40)]
        values = [-np.inf if p in chosen[:k] else v for p, v in enumerate(values)]
        assert chosen[k] == int(np.argmax(values))


def test_bad_designs_are_named():
    d, lam, w = questions(0)
    with pytest.raises(UnidentifiedRewardError, match="singular"):
        design_value(information_of(d[:2], lam[:2]), "D")
    with pytest.raises(UnidentifiedRewardError, match="never asked about"):
        greedy_design(np.zeros((3, 3)), d, lam, 2)
    assert design_value(information_of(d[:2], lam[:2]), "E") == pytest.approx(0, abs=1e-12)
    for budget in (0, 13):
        with pytest.raises(InvalidHyperparameterError, match="pool holds 12"):
            greedy_design(np.eye(3), d, lam, budget)
    with pytest.raises(InvalidHyperparameterError, match="criterion"):
        design_value(np.eye(2), "C")
    with pytest.raises(InvalidHyperparameterError, match="criterion"):
        information_gains(np.eye(3), d, lam, "C")
    with pytest.raises(InvalidHyperparameterError, match="use greedy_design"):
        best_design(np.eye(3), RNG(0).normal(size=(60, 3)), np.ones(60), 6)
    with pytest.raises(InvalidHyperparameterError, match="temperature"):
        answer_variance(d, w, 0.0)
    with pytest.raises(ShapeError):
        answer_variance(d, np.ones(2))
    with pytest.raises(ShapeError):
        information_of(np.ones(3), np.ones(3))
    with pytest.raises(NotFiniteError):
        information_of(np.full((2, 2), np.nan), np.ones(2))


# Acquisition --------------------------------------------------------------------------------------


def test_information_gain_of_two_weights_by_hand():
    draws, d = np.array([[2.0], [-2.0]]), np.array([[1.0], [0.0]])
    p = expit(2.0)
    want = np.log(2) + p * np.log(p) + (1 - p) * np.log(1 - p)
    assert acq.information_gain(draws, d) == pytest.approx([want, 0.0])


def test_a_narrow_posterior_makes_it_half_the_d_optimal_gain():
    rng = RNG(1)
    d, w = rng.normal(size=(5, 2)), np.array([0.7, -0.4])
    sigma = 1e-3 * np.array([[1.0, 0.3], [0.3, 0.5]])
    found = acq.information_gain(acq.draw_weights(w, sigma, 200_000, rng), d)
    d_gain = information_gains(sigma, d, answer_variance(d, w))
    assert found == pytest.approx(d_gain / 2, rel=0.02)


def test_draws_have_the_moments_of_the_posterior():
    sigma = np.array([[1.0, 0.3], [0.3, 0.5]])
    drawn = acq.draw_weights([1.0, -2.0], sigma, 100_000, RNG(0))
    assert drawn.mean(axis=0) == pytest.approx([1.0, -2.0], abs=0.02)
    assert np.cov(drawn.T) == pytest.approx(sigma, abs=0.02)


def test_disagreement_is_zero_where_members_agree():
    members = np.array([[1.0, 0.0], [1.0, 5.0]])
    found = acq.disagreement(members, [[1.0, 0.0], [0.0, 1.0]])
    assert found[0] == 0 and found[1] == pytest.approx((expit(5.0) - 0.5) ** 2 / 4)
    with pytest.raises(ShapeError):
        acq.disagreement(members, np.ones((2, 3)))


def test_farthest_first_against_brute_force_and_mirror_images():
    d = RNG(2).normal(size=(15, 3))
    known = d[:2]
    chosen = acq.farthest_first(d[2:], 4, known)
    seen = [*known]
    for row in chosen:
        far = [min(min(np.sum((x - e) ** 2), np.sum((x + e) ** 2)) for e in seen) for x in d[2:]]
        assert far[row] == pytest.approx(max(far))
        seen.append(d[2:][row])
    mirrored = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0]])
    assert acq.farthest_first(mirrored, 2).tolist() == [0, 2]


def test_pairs_within_and_across_prompts():
    within = acq.pairs_within(3, 4)
    assert len(within) == 3 * 6 and (within[:, 0] // 4 == within[:, 1] // 4).all()
    across = acq.pairs_across(3, 4, 40, RNG(0))
    assert (across[:, 0] // 4 != across[:, 1] // 4).all()
    assert len(np.unique(np.sort(across, axis=1), axis=0)) == 40
    with pytest.raises(InvalidHyperparameterError, match="48 pairs across"):
        acq.pairs_across(3, 4, 49, RNG(0))


def test_the_synthetic_pool_is_as_described():
    pools = [acq.draw_preference_pool(s, prompts=200, gap=2.0) for s in range(5)]
    i, j = np.triu_indices(6, 1)
    gaps = [np.sqrt(np.mean((p.gold[:, i] - p.gold[:, j]) ** 2)) for p in pools]
    assert np.array(gaps) == pytest.approx(2.0, rel=0.1)
    own = pools[0].features - pools[0].features.mean(axis=1, keepdims=True)
    scale = own.std(axis=(0, 1)) * np.sqrt(6 / 5)
    assert scale == pytest.approx((1.0 + np.arange(16)) ** -0.5, rel=0.1)


@pytest.mark.parametrize("rule", (*acq.RULES, "D-optimal, top scores"))
def test_a_run_buys_each_pair_once_and_refits_to_all_of_them(rule):
    pool = acq.draw_preference_pool(0, prompts=8, responses=4, n_features=3, test_prompts=5)
    run = acq.run_active(
        pool,
        acq.pairs_within(8, 4),
        rule,
        RNG(1),
        measure=within_prompt_spearman,
        budget=20,
        batch=5,
    )
    assert run.labels.tolist() == [5, 10, 15, 20] and run.asked.shape == (20, 2)
    assert len(np.unique(np.sort(run.asked, axis=1), axis=0)) == 20
    phi = pool.features.reshape(-1, 3)
    want = fit_bradley_terry(run.asked[:15], phi, l2=1.0).weights
    assert run.weights[2] == pytest.approx(want, abs=1e-6)
    found = within_prompt_spearman(pool.test_features @ run.weights[2], pool.test_gold)
    assert run.measured[2] == pytest.approx(found, abs=1e-12)
    again = acq.run_active(
        pool,
        acq.pairs_within(8, 4),
        rule,
        RNG(1),
        measure=within_prompt_spearman,
        budget=20,
        batch=5,
    )
    assert np.array_equal(run.asked, again.asked)


def test_the_answers_are_bradley_terrys_and_the_first_batch_is_a_guess():
    pool = acq.draw_preference_pool(0, prompts=100, responses=4, n_features=3, test_prompts=5)
    run = acq.run_active(
        pool,
        acq.pairs_within(100, 4),
        "random",
        RNG(0),
        measure=within_prompt_spearman,
        budget=600,
        batch=600,
    )
    gold = pool.gold.reshape(-1)
    gap = gold[run.asked[:, 0]] - gold[run.asked[:, 1]]
    p = expit(np.abs(gap))
    assert (gap > 0).mean() == pytest.approx(p.mean(), abs=3 * np.sqrt((p * (1 - p)).mean() / 600))
    assert run.seen_right.tolist() == [0.5]


def test_each_rule_takes_the_rows_that_its_name_says():
    d = np.array([[3.0, 0.0], [0.1, 0.0], [0.0, 1.0]])
    mean, sigma = np.array([1.0, 0.0]), np.diag([0.01, 4.0])

    def first(rule, **options):
        return int(acq.choose_batch(rule, d, mean, sigma, 1, RNG(0), **options)[0])

    assert first("largest difference") == 0
    assert first("uncertainty") == 2  # |d . w| is 0
    for rule in ("D-optimal", "information gain", "two posterior draws"):
        assert first(rule) == 2
    assert first("coreset", labelled=d[:1]) == 2  # the other one lies in the direction of the first
    assert first("ensemble", members=np.array([[1.0, 1.0], [1.0, -1.0]])) == 2
    with pytest.raises(InvalidHyperparameterError, match="members"):
        first("ensemble")
    with pytest.raises(InvalidHyperparameterError, match="rule"):
        first("best")


def test_impossible_budgets_are_named():
    pool = acq.draw_preference_pool(0, prompts=3, responses=3, n_features=2, test_prompts=3)
    pairs = acq.pairs_within(3, 3)
    with pytest.raises(InvalidHyperparameterError, match="pool holds 9"):
        acq.run_active(
            pool, pairs, "random", RNG(0), measure=within_prompt_spearman, budget=10, batch=5
        )
    with pytest.raises(InvalidHyperparameterError, match="no multiple"):
        acq.run_active(
            pool, pairs, "random", RNG(0), measure=within_prompt_spearman, budget=8, batch=5
        )
    with pytest.raises(InvalidHyperparameterError, match="pool holds 3"):
        acq.top_rows(np.ones(3), 4)
    with pytest.raises(InvalidHyperparameterError):
        acq.farthest_first(np.ones((3, 2)), 4)


def test_labels_needed_between_points_before_and_beyond():
    n, curve = [10, 20, 30], [0.2, 0.6, 0.5]
    assert acq.labels_needed(n, curve, 0.4) == pytest.approx(15)
    assert acq.labels_needed(n, curve, 0.1) == 10
    assert acq.labels_needed(n, curve, 0.9) == 30


@pytest.mark.parametrize(
    "seen, row",
    [([0.5, 0.4, 0.9, 1.0], 2), ([1.0, 0.9, 0.2, 1.0], 1), ([1.0, 0.8, 0.2, 0.5], None)],
)
def test_a_run_stops_with_the_batch_that_was_predicted_and_never_with_the_random_one(seen, row):
    run = acq.ActiveRun(10 * np.arange(1, 5), np.zeros(4), np.zeros((40, 2)), None, np.array(seen))
    assert acq.row_of_stop(run, 0.9) == row


def test_the_row_of_the_stop_counts_the_labels_of_its_batch():
    pool = acq.draw_preference_pool(1, prompts=20, responses=4, n_features=3, test_prompts=5)
    run = acq.run_active(
        pool,
        acq.pairs_within(20, 4),
        "largest difference",
        RNG(2),
        measure=within_prompt_spearman,
        budget=60,
    )
    row = acq.row_of_stop(run, 0.9)
    d = np.subtract(*pool.features.reshape(-1, 3)[run.asked].transpose(1, 0, 2))  # preferred less
    for k in range(1, row + 1):  # by hand: the model after batch k - 1, on the answers of batch k
        bought = slice(run.labels[k - 1], run.labels[k])
        assert (np.mean(d[bought] @ run.weights[k - 1] > 0) >= 0.9) == (k == row)


# Duels --------------------------------------------------------------------------------------------


def test_the_laplace_of_wins_is_that_of_bradley_terry():
    rng = RNG(3)
    phi = rng.normal(size=(4, 6, 3))
    wins = rng.integers(0, 4, size=(4, 6, 6)).astype(float)
    wins[:, range(6), range(6)] = 0
    mean, sigma = laplace_of_wins(wins, phi, 0.5, steps=30)
    for s in range(4):
        i, j = np.nonzero(wins[s])
        fit = fit_bradley_terry(np.stack([i, j], axis=1), phi[s], counts=wins[s, i, j], l2=0.5)
        assert mean[s] == pytest.approx(fit.weights, abs=1e-7)
        assert sigma[s] == pytest.approx(fit.covariance, abs=1e-7)


def test_regret_by_hand():
    r = np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]])
    assert dueling.duel_regret(r, [1, 2], [1, 0]).tolist() == [0.0, 2.5]


@pytest.mark.parametrize("rule", dueling.DUEL_RULES)
def test_regret_never_falls_and_random_pays_its_mean(rule):
    rng = RNG(4)
    phi, w = rng.normal(size=(30, 5, 3)), rng.normal(size=(30, 3))
    found = dueling.run_duels(phi, w, rule, 60, RNG(0), explore=20)
    assert found.shape == (30, 60) and (np.diff(found, axis=1) >= -1e-12).all()
    if rule == "random":
        r = np.einsum("sak,sk->sa", phi, w)
        assert found[:, -1].mean() == pytest.approx(
            60 * (r.max(axis=1) - r.mean(axis=1)).mean(), rel=0.05
        )


def test_bad_duels_are_named():
    phi, w = np.ones((2, 3, 2)), np.ones((2, 2))
    with pytest.raises(InvalidHyperparameterError, match="rule"):
        dueling.run_duels(phi, w, "best", 5, RNG(0))
    with pytest.raises(InvalidHyperparameterError, match="rounds"):
        dueling.run_duels(phi, w, "greedy", 0, RNG(0))
    with pytest.raises(InvalidHyperparameterError, match="prior"):
        laplace_of_wins(np.zeros((2, 3, 3)), phi, 0.0)
    with pytest.raises(ShapeError):
        laplace_of_wins(np.zeros((2, 4, 4)), phi, 1.0)


# Pairs for a policy -------------------------------------------------------------------------------


def toy(seed: int = 0, n: int = 7, k: int = 3, beta: float = 0.8):
    rng = RNG(seed)
    log_ref = rng.normal(size=n)
    log_ref -= logsumexp(log_ref)
    phi, w = rng.normal(size=(n, k)), 0.6 * rng.normal(size=k)
    return log_ref, phi, w, tilted(log_ref, phi @ w, beta)[0], beta


def test_the_value_gradient_by_differences():
    log_ref, phi, w, log_p, beta = toy()
    gold = phi @ np.array([0.5, -1.0, 0.2]) + 0.1 * phi[:, 0] ** 2

    def value(v):
        log_q = tilted(log_ref, phi @ v, beta)[0]
        return np.exp(log_q) @ (gold - beta * (log_q - log_ref))

    found = policy_pairs.value_gradient(log_p, log_ref, phi, gold, beta)
    step = 1e-5
    want = [(value(w + step * e) - value(w - step * e)) / (2 * step) for e in np.eye(3)]
    assert found == pytest.approx(want, abs=1e-8)


def test_pilaf_is_the_mixture_that_it_is_said_to_be():
    _, phi, w, log_p, _ = toy()
    r, p = phi @ w, np.exp(log_p)
    up, down = p * np.exp(r), p * np.exp(-r)
    z = up.sum() * down.sum()
    up, down = up / up.sum(), down / down.sum()
    mixed = np.outer(p, p) + z * (np.outer(up, down) + np.outer(down, up)) / 2
    assert policy_pairs.pair_density("PILAF", log_p, r) == pytest.approx(mixed / (1 + z))


def test_densities_are_symmetric_and_sum_to_one():
    _, phi, w, log_p, _ = toy()
    for rule in ("uniform", "on-policy", "PILAF"):
        q = policy_pairs.pair_density(rule, log_p, phi @ w)
        assert q.sum() == pytest.approx(1) and q == pytest.approx(q.T)


def test_information_and_ascent_by_loops():
    _, phi, w, log_p, _ = toy()
    r, gold = phi @ w, phi @ np.array([1.0, 0.3, -0.5])
    q = policy_pairs.pair_density("PILAF", log_p, r)
    information, ascent = np.zeros((3, 3)), np.zeros(3)
    for a in range(7):
        for b in range(7):
            p, d = expit(r[a] - r[b]), phi[a] - phi[b]
            information += q[a, b] * p * (1 - p) * np.outer(d, d)
            ascent += q[a, b] * (expit(gold[a] - gold[b]) - p) * d
    assert policy_pairs.pair_information(q, phi, r) == pytest.approx(information)
    assert policy_pairs.expected_ascent(q, phi, r, gold) == pytest.approx(ascent)


def test_near_the_truth_pilafs_ascent_points_along_the_value_gradient():
    log_ref, phi, w, log_p, beta = toy()
    gold = phi @ (w + 1e-4 * np.array([1.0, -2.0, 0.5]))
    cosine = {}
    for rule in ("on-policy", "PILAF"):
        q = policy_pairs.pair_density(rule, log_p, phi @ w)
        up = policy_pairs.expected_ascent(q, phi, phi @ w, gold)
        # the policy is the optimum of r = phi . w, so beta log(pi / ref) is r up to a constant
        along = policy_pairs.value_gradient(log_p, log_ref, phi, gold, beta)
        cosine[rule] = up @ along / np.linalg.norm(up) / np.linalg.norm(along)
    assert cosine["PILAF"] == pytest.approx(1, abs=1e-7) and cosine["on-policy"] < 0.9999


def test_pilafs_information_is_the_covariance_of_the_policy():
    _, phi, w, log_p, _ = toy()
    r, p = phi @ w, np.exp(log_p)
    z = (p @ np.exp(r)) * (p @ np.exp(-r))
    found = policy_pairs.pair_information(policy_pairs.pair_density("PILAF", log_p, r), phi, r)
    assert found == pytest.approx(policy_pairs.feature_covariance(log_p, phi) / (1 + z))


def test_the_policy_loss_is_what_the_value_misses():
    log_ref, phi, w, best, beta = toy()
    gold = phi @ w
    for scale in (0.0, 0.3):
        other = tilted(log_ref, gold + scale * phi[:, 0], beta)[0]
        values = [np.exp(q) @ (gold - beta * (q - log_ref)) for q in (best, other)]
        loss = beta * kl_from_logps(other, best)
        assert loss == pytest.approx(values[0] - values[1], abs=1e-12)


def test_the_expected_loss_is_the_mean_over_errors_of_the_weights():
    log_ref, phi, w, best, beta = toy()
    q = policy_pairs.pair_density("on-policy", best, phi @ w)
    information = policy_pairs.pair_information(q, phi, phi @ w)
    n = 20_000
    errors = acq.draw_weights(w, np.linalg.inv(information) / n, 4000, RNG(0))
    losses = [beta * kl_from_logps(tilted(log_ref, phi @ v, beta)[0], best) for v in errors]
    c = policy_pairs.feature_covariance(best, phi)
    want = policy_pairs.expected_policy_loss(c, information, n, beta)
    assert np.mean(losses) == pytest.approx(want, rel=0.1)


def test_the_best_density_is_certified_and_no_other_is_better():
    _, phi, w, log_p, _ = toy()
    c, r = policy_pairs.feature_covariance(log_p, phi), phi @ w
    best = policy_pairs.best_pair_density(phi, r, c)

    def loss(q):
        return np.trace(np.linalg.solve(policy_pairs.pair_information(q, phi, r), c))

    assert best.sum() == pytest.approx(1)
    for rule in ("uniform", "on-policy", "PILAF"):
        other = policy_pairs.pair_density(rule, log_p, r)
        assert loss(best) <= loss(other)
        assert loss(best) <= loss(0.99 * best + 0.01 * other) * 1.001
    with pytest.raises(NotConvergedError, match="pair density"):
        policy_pairs.best_pair_density(phi, r, c, max_iterations=2)


def test_bad_pairs_are_named():
    _, phi, w, log_p, _ = toy()
    with pytest.raises(InvalidHyperparameterError, match="rule"):
        policy_pairs.pair_density("best", log_p, phi @ w)
    with pytest.raises(NotStochasticError):
        policy_pairs.pair_density("PILAF", log_p + 1, phi @ w)
    with pytest.raises(ShapeError):
        policy_pairs.pair_density("PILAF", log_p[:3], phi @ w)
    with pytest.raises(InvalidHyperparameterError, match="price"):
        tilted(log_p, phi @ w, 0.0)


# Designs, rules and duels, step by step -----------------------------------------------------------


@pytest.mark.parametrize("criterion", ["A", "E"])
def test_greedy_takes_the_best_next_question_of_every_criterion(criterion):
    d, lam, _ = questions(6, n=12, k=3)
    chosen = greedy_design(0.2 * np.eye(3), d, lam, 4, criterion)
    for k in range(4):
        now = information_of(d[chosen[:k]], lam[chosen[:k]], 0.2)
        values = [design_value(now + lam[p] * np.outer(d[p], d[p]), criterion) for p in range(12)]
        free = [v for p, v in enumerate(values) if p not in chosen[:k]]
        assert chosen[k] not in chosen[:k]
        assert values[chosen[k]] == pytest.approx(max(free), abs=1e-9)  # E has many equals
    best = best_design(0.2 * np.eye(3), d, lam, 2, criterion)
    values = {
        pair: design_value(information_of(d[list(pair)], lam[list(pair)], 0.2), criterion)
        for pair in combinations(range(12), 2)
    }
    assert values[tuple(best)] == pytest.approx(max(values.values()), abs=1e-9)


def test_values_of_a_design_by_hand():
    matrix = np.diag([4.0, 0.5])
    assert design_value(matrix) == pytest.approx(np.log(2.0))
    assert design_value(matrix, "A") == pytest.approx(-2.25)
    assert design_value(matrix, "E") == pytest.approx(0.5)
    assert design_value(1e-200 * np.eye(2)) == pytest.approx(-400 * np.log(10))
    with pytest.raises(UnidentifiedRewardError):
        design_value(np.zeros((2, 2)), "A")


def test_before_any_question_the_information_is_the_prior():
    prior = np.array([[2.0, 0.5], [0.5, 1.0]])
    assert np.array_equal(information_of(np.empty((0, 2)), [], prior), prior)
    assert np.array_equal(information_of(np.empty((0, 2)), []), np.zeros((2, 2)))
    with pytest.raises(ShapeError, match="questions"):
        answer_variance(np.empty((0, 2)), np.zeros(2))


def test_the_variance_of_an_answer_is_largest_where_it_is_open():
    assert answer_variance([[0.0], [2.0]], [1.0], 0.5).tolist() == pytest.approx(
        [1.0, 4 * expit(4) * expit(-4)]
    )
    assert answer_variance([[0.0]], [1.0]).tolist() == [0.25]


def test_a_criterion_and_a_number_of_sets_are_bounded(monkeypatch):
    d, lam, _ = questions(0)
    for call in (
        lambda: information_gains(np.eye(3), d, lam, "C"),
        lambda: greedy_design(np.eye(3), d, lam, 1, "C"),
        lambda: best_design(np.eye(3), d, lam, 1, "C"),
    ):
        with pytest.raises(InvalidHyperparameterError, match="'D', 'A' or 'E'"):
            call()
    monkeypatch.setattr(information, "MAX_SUBSETS", 66)  # as many as 2 of 12
    assert len(best_design(np.eye(3), d, lam, 2)) == 2
    with pytest.raises(InvalidHyperparameterError, match="220 sets of 3 from 12"):
        best_design(np.eye(3), d, lam, 3)
    assert sorted(greedy_design(np.eye(3), d, lam, 12)) == list(range(12))


def test_rules_that_score_take_a_batch_of_the_best():
    d, lam, w = questions(7, n=20, k=3)
    sigma = np.linalg.inv(information_of(d[:5], lam[:5], 0.5))

    def batch(rule, **options):
        return acq.choose_batch(rule, d, w, sigma, 6, RNG(0), **options).tolist()

    certain = np.argsort(np.abs(d @ w), kind="stable")
    assert batch("uncertainty") == certain[:6].tolist()
    assert batch("largest difference") == certain[::-1][:6].tolist()
    assert batch("D-optimal") == greedy_design(np.linalg.inv(sigma), d, lam, 6).tolist()
    alone = [np.log(1 + v * x @ sigma @ x) for v, x in zip(lam, d, strict=True)]
    assert batch("D-optimal, top scores") == np.argsort(-np.array(alone)).tolist()[:6]
    assert batch("coreset", labelled=d[:3]) == acq.farthest_first(d, 6, d[:3]).tolist()
    members = RNG(1).normal(size=(4, 3))
    spread = expit(members @ d.T).var(axis=0)
    assert batch("ensemble", members=members) == np.argsort(-spread).tolist()[:6]
    chosen = batch("two posterior draws")
    assert len(set(chosen)) == 6
    assert sorted(acq.choose_batch("random", d, w, sigma, 20, RNG(0))) == list(range(20))


@pytest.mark.parametrize("rule", ["uncertainty", "coreset", "D-optimal"])
def test_the_second_batch_of_a_run_follows_from_what_the_first_taught(rule):
    pool = acq.draw_preference_pool(3, prompts=6, responses=4, n_features=3, test_prompts=4)
    pairs = acq.pairs_within(6, 4)
    run = acq.run_active(
        pool, pairs, rule, RNG(2), measure=within_prompt_spearman, budget=8, batch=4, l2=0.5
    )
    rows = [int(np.flatnonzero((pairs == np.sort(asked)).all(1))[0]) for asked in run.asked]
    phi = pool.features.reshape(-1, 3)
    d = phi[pairs[:, 0]] - phi[pairs[:, 1]]
    left = np.setdiff1d(np.arange(len(pairs)), rows[:4])
    fit = fit_bradley_terry(run.asked[:4], phi, l2=0.5)
    assert run.weights[0] == pytest.approx(fit.weights, abs=1e-6)
    want = acq.choose_batch(
        rule, d[left], fit.weights, fit.covariance, 4, RNG(9), labelled=d[rows[:4]]
    )
    assert rows[4:] == left[want].tolist()


def test_members_of_a_bootstrap_are_spread_like_the_posterior():
    rng = RNG(5)
    phi, pairs = rng.normal(size=(30, 2)), acq.pairs_across(30, 1, 400, rng)
    answers = acq.sample_preferences(phi @ [1.0, -0.5], pairs, rng)
    fit = fit_bradley_terry(answers, phi, l2=0.1)
    members = acq.bootstrap_members(answers, phi, 0.1, 60, rng)
    assert members.shape == (60, 2)
    error = np.sqrt(np.diag(fit.covariance))
    assert (np.abs(members.mean(axis=0) - fit.weights) < error).all()
    assert members.std(axis=0) == pytest.approx(error, rel=0.4)
    held = acq.bootstrap_members(answers, phi, 1e6, 3, rng)
    assert np.abs(held).max() < 1e-3


def test_the_prompts_part_of_the_pool_and_its_spectrum_are_as_asked():
    pool = acq.draw_preference_pool(0, prompts=4000, n_features=3, prompt_part=2.0, spectrum=2.0)
    assert pool.features.shape == (4000, 6, 3) and pool.test_gold.shape == (60, 6)
    own = pool.features - pool.features.mean(axis=1, keepdims=True)
    assert own.std(axis=(0, 1)) * np.sqrt(6 / 5) == pytest.approx([1, 1 / 2, 1 / 3], rel=0.05)
    shared = (pool.features[:, 0] * pool.features[:, 1]).mean(axis=0)
    assert shared == pytest.approx([4, 1, 4 / 9], rel=0.1)
    weights = np.linalg.lstsq(pool.features.reshape(-1, 3), pool.gold.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(pool.test_features @ weights, pool.test_gold, atol=1e-9)


def test_all_pairs_across_prompts_can_be_had():
    pairs = acq.pairs_across(3, 4, 48, RNG(0))
    assert len(np.unique(pairs, axis=0)) == 48 and (pairs[:, 0] < pairs[:, 1]).all()
    assert acq.pairs_within(2, 3).tolist() == [[0, 1], [0, 2], [1, 2], [3, 4], [3, 5], [4, 5]]


def test_a_curve_that_meets_the_target_is_there():
    n, curve = [10, 20, 30], [0.2, 0.6, 0.5]
    assert acq.labels_needed(n, curve, 0.6) == 20
    assert acq.labels_needed(n, curve, 0.2) == 10
    assert acq.labels_needed(n, [0.2, 0.3, 0.5], 0.4) == pytest.approx(25)


def test_a_run_may_buy_the_whole_pool_and_no_batch_is_empty():
    pool = acq.draw_preference_pool(0, prompts=2, responses=3, n_features=2, test_prompts=3)
    pairs, options = acq.pairs_within(2, 3), {"measure": within_prompt_spearman}
    run = acq.run_active(pool, pairs, "coreset", RNG(0), budget=6, batch=1, **options)
    assert run.labels.tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(InvalidHyperparameterError, match="batch=0"):
        acq.run_active(pool, pairs, "coreset", RNG(0), budget=6, batch=0, **options)


def clear_world(seeds: int = 12):
    """Choosers who never err, and more features than nothing: what is best can be learned."""
    rng = RNG(11)
    return rng.normal(size=(seeds, 4, 4)), 60.0 * rng.normal(size=(seeds, 4))


def paid(rule, **options):
    """(S, T) the regret of each duel, and (S, A) rewards from the best down."""
    phi, w = clear_world()
    found = dueling.run_duels(phi, w, rule, 60, RNG(0), l2=0.01, **options)
    rewards = -np.sort(-np.einsum("sak,sk->sa", phi, w), axis=1)
    return np.diff(found, axis=1, prepend=0.0), rewards


def test_exploring_shows_two_items_and_committing_shows_one():
    each, _ = paid("explore, then commit", explore=40)
    assert (each[:, :40] > 0).all()  # of two different items one is not the best
    assert np.abs(each[:, 40:] - each[:, 40:41]).max() < 1e-9
    assert (np.abs(each[:, 40:]) < 1e-9).mean() > 0.9
    longer, _ = paid("explore, then commit", explore=60)
    assert (longer > 0).all()


def test_greedy_serves_the_two_that_look_best():
    each, rewards = paid("greedy")
    assert (each > 0).all()
    lost = (rewards[:, 0] - rewards[:, 1]) / 2
    assert (np.abs(each[:, -1] - lost) < 1e-9).mean() > 0.5
    phi, w = clear_world(1)
    many = np.tile(phi, (200, 1, 1)), np.tile(w, (200, 1))
    first = dueling.run_duels(*many, "greedy", 1, RNG(1))
    assert len(np.unique(first.round(9))) == 6  # any pair, at the start


def test_two_draws_end_with_the_best_item_twice():
    each, _ = paid("two draws")
    free = np.abs(each) < 1e-9
    assert free[:, :2].mean() < 0.25 and free[:, -20:].mean() > 0.4
    assert each[:, -20:].mean() < 0.7 * each[:, :5].mean()


def test_the_most_informative_duel_is_the_longest_difference_at_first():
    phi, w = clear_world()
    each, _ = paid("most informative")
    i, j = np.triu_indices(4, 1)
    longest = np.argmax(np.sum((phi[:, i] - phi[:, j]) ** 2, axis=2), axis=1)
    rewards = np.einsum("sak,sk->sa", phi, w)
    assert each[:, 0] == pytest.approx(dueling.duel_regret(rewards, i[longest], j[longest]))
    # what was asked is known: the next question lies elsewhere
    moved = dueling.run_duels(phi, w, "most informative", 2, RNG(0), l2=0.01)
    assert (np.abs(np.diff(moved, axis=1)[:, 0] - moved[:, 0]) > 1e-9).mean() > 0.8
