"""Best of n: every number against an enumeration of all n-tuples of responses."""

from itertools import product
from math import log

import numpy as np
import pytest
import torch

from irlbook.errors import (
    InvalidHyperparameterError,
    NotFiniteError,
    RewardError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.lm.enumerable import EnumerableLM, best_of_n, best_of_n_kl_bound, kl_from_logps
from irlbook.posttraining.best_of_n import (
    best_of_n_curve,
    best_of_n_kl,
    best_of_n_win_rate,
    best_of_n_win_rate_bound,
    choose,
    win_rate,
)
from irlbook.posttraining.evaluation import best_of_n_gold


def responses(seed: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """(R,) log-probabilities of a small language model, and scores with ties."""
    rng = np.random.default_rng(seed)
    lm = EnumerableLM.create(("a", "b", "end"), 2, lambda x: rng.dirichlet(np.ones(3), len(x)))
    return lm.sequence_log_probabilities(), rng.integers(0, levels, len(lm.responses)).astype(float)


def tuples(p: np.ndarray, n: int):
    """Every way in which n responses can be drawn, with its probability."""
    for drawn in product(range(len(p)), repeat=n):
        yield np.array(drawn), np.prod(p[list(drawn)])


@pytest.mark.parametrize(("seed", "n", "levels"), [(0, 2, 3), (1, 3, 2), (2, 4, 9), (3, 3, 1)])
def test_pmf_kl_and_win_rate_over_all_tuples(seed, n, levels):
    log_p, scores = responses(seed, levels)
    p, best = np.exp(log_p), np.zeros(len(log_p))
    wins = 0.0
    for drawn, chance in tuples(p, n):
        top = drawn[scores[drawn] == scores[drawn].max()]
        np.add.at(best, top, chance / len(top))
        score = scores[top[0]]
        wins += chance * (p[scores < score].sum() + p[scores == score].sum() / 2)
    np.testing.assert_allclose(np.exp(best_of_n(log_p, scores, n)), best, atol=1e-12)
    kl = sum(b * log(b / q) for b, q in zip(best, p, strict=True) if b > 0)
    assert best_of_n_kl(log_p, scores, n) == pytest.approx(kl, abs=1e-12)
    assert best_of_n_kl(log_p, scores, n) <= best_of_n_kl_bound(n)
    assert best_of_n_win_rate(log_p, scores, n) == pytest.approx(wins, abs=1e-12)
    assert best_of_n_win_rate(log_p, scores, n) <= best_of_n_win_rate_bound(n) + 1e-12


def test_choosing_the_first_of_a_tie_is_breaking_it_at_random():
    log_p, scores = responses(1, 3)
    p, found = np.exp(log_p), np.zeros(len(log_p))
    for drawn, chance in tuples(p, 3):
        found[drawn[choose(scores[drawn][None])[0]]] += chance
    np.testing.assert_allclose(found, np.exp(best_of_n(log_p, scores, 3)), atol=1e-12)


@pytest.mark.parametrize(
    ("n", "formula", "coin", "ten", "thousand"),
    [
        (4, 0.636, 0.459, 0.629, 0.636),
        (16, 1.835, 0.693, 1.733, 1.835),
        (256, 4.549, 0.693, 2.303, 4.546),
    ],
)
def test_the_bound_is_no_equality(n, formula, coin, ten, thousand):
    def uniform(size):
        return best_of_n_kl(np.full(size, -np.log(size)), np.arange(size), n)

    assert best_of_n_kl_bound(n) == pytest.approx(formula, abs=6e-4)
    for size, wanted in ((2, coin), (10, ten), (1000, thousand)):
        assert uniform(size) == pytest.approx(wanted, abs=6e-4)
        assert uniform(size) < min(best_of_n_kl_bound(n), np.log(size) + 1e-12)


def test_bounds_are_met_in_the_limit_and_only_there():
    gaps = []
    for size in (10, 100, 1000, 10_000):
        log_p = np.full(size, -np.log(size))
        gaps.append(best_of_n_kl_bound(8) - best_of_n_kl(log_p, np.arange(size), 8))
    assert (np.diff(gaps) < 0).all() and 0 < gaps[-1] < 1e-3
    assert best_of_n_win_rate(log_p, np.arange(size), 8) == pytest.approx(8 / 9, abs=1e-6)
    assert best_of_n_kl(np.log([0.5, 0.5]), np.array([0.0, 1.0]), 10_000) == pytest.approx(log(2))
    assert best_of_n_kl(log_p, np.zeros(size), 8) == pytest.approx(0, abs=1e-12)
    assert best_of_n_win_rate(log_p, np.zeros(size), 8) == pytest.approx(0.5)


def test_win_rate_of_two_policies():
    log_p, scores = responses(4, 3)
    log_q = best_of_n(log_p, scores, 3)
    assert win_rate(log_p, log_p, scores) == pytest.approx(0.5)
    assert win_rate(log_p, log_q, scores) + win_rate(log_q, log_p, scores) == pytest.approx(1)
    coin = np.log([0.5, 0.5])
    # Fair coin, best of 2: heads 3/4. Wins 3/8, ties 1/2, so 3/8 + 1/4.
    assert best_of_n_win_rate(coin, np.array([0.0, 1.0]), 2) == pytest.approx(5 / 8)


def test_curve_is_unbiased_for_the_enumerated_value():
    """Means over samples of a known distribution: the estimator hits F^n - F_-^n's mean."""
    log_p, scores = responses(5, 4)
    gold = np.random.default_rng(0).normal(size=len(scores))
    drawn = np.random.default_rng(1).choice(len(scores), (4000, 12), p=np.exp(log_p))
    ns = (1, 2, 4, 8)
    rng = np.random.default_rng(2)
    curve = best_of_n_curve(scores[drawn], gold[drawn], ns, rng=rng, resamples=200)
    for j, n in enumerate(ns):
        exact = np.exp(best_of_n(log_p, scores, n))
        assert curve.proxy[j] == pytest.approx(exact @ scores, abs=0.05)
        assert curve.gold[j] == pytest.approx(exact @ gold, abs=0.05)
        np.testing.assert_array_equal(
            curve.by_prompt[:, j], best_of_n_gold(scores[drawn], gold[drawn], n)
        )
    assert (np.diff(curve.proxy) > 0).all()
    assert (curve.low < curve.gold).all() and (curve.gold < curve.high).all()
    np.testing.assert_allclose(curve.kl_bound, [best_of_n_kl_bound(n) for n in ns])


def test_interval_over_prompts_covers_and_one_over_responses_would_not():
    """Prompts differ by far more than responses to one prompt do."""
    rng = np.random.default_rng(0)
    covered = naive = 0
    runs, n, k = 120, 2, 8
    truth = 1 / np.sqrt(np.pi)  # mean of the larger of two standard normals
    for _ in range(runs):
        noise = rng.normal(size=(40, k))
        rewards = 2 * rng.normal(size=(40, 1)) + noise
        curve = best_of_n_curve(rewards, rewards, [n], rng=rng, resamples=200)
        covered += curve.low[0] <= truth <= curve.high[0]
        width = 1.96 * rewards.std() / np.sqrt(rewards.size)
        naive += abs(curve.gold[0] - truth) <= width
    assert 0.86 <= covered / runs <= 1.0
    assert naive / runs < 0.7


def test_chosen_are_the_best_of_tensors_too():
    scores = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 3.0]])
    np.testing.assert_array_equal(choose(scores), [1, 0])


def test_a_curve_keeps_what_it_was_asked_and_its_interval_is_one_of_prompts():
    rng = np.random.default_rng(6)
    rewards = rng.normal(size=(30, 5)) + rng.normal(size=(30, 1))
    found = best_of_n_curve(rewards, rewards**2, [3, 1], rng=np.random.default_rng(0))
    assert found.ns.tolist() == [3, 1] and found.by_prompt.shape == (30, 2)
    np.testing.assert_allclose(found.gold, found.by_prompt.mean(axis=0))
    assert found.proxy[1] == pytest.approx(rewards.mean())
    error = found.by_prompt.std(axis=0) / np.sqrt(30)  # of a bootstrap, so without n - 1
    np.testing.assert_allclose(found.high - found.low, 2 * 1.96 * error, rtol=0.15)
    narrow = best_of_n_curve(
        rewards, rewards**2, [3], rng=np.random.default_rng(0), level=0.5, resamples=2000
    )
    assert narrow.high - narrow.low == pytest.approx(2 * 0.674 * error[:1], rel=0.15)
    for level in (0.0, 1.0):
        with pytest.raises(InvalidHyperparameterError, match="not between 0 and 1"):
            best_of_n_curve(rewards, rewards, [1], rng=rng, level=level)


def test_the_prompt_of_a_broken_score_is_named():
    scores = np.zeros((3, 2))
    scores[1, 0] = scores[2, 1] = np.inf
    with pytest.raises(RewardError, match="prompt 1 is not finite"):
        choose(scores)
    assert choose(np.zeros((2, 1))).tolist() == [0, 0]


def test_the_best_of_one_is_a_response_and_a_win_rate_knows_no_mass():
    log_p, scores = responses(4, 3)
    assert best_of_n_win_rate_bound(1) == 0.5 and best_of_n_win_rate_bound(3) == 0.75
    assert best_of_n_kl(log_p, scores, 1) == pytest.approx(0, abs=1e-12)
    rounded = np.log(np.exp(log_p) * (1 + 5e-5))  # float32 may miss a mass of 1 by so much
    assert win_rate(rounded, log_p, scores) == pytest.approx(0.5, abs=1e-9)


NORMAL = np.random.default_rng(0).normal(size=(4, 6))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: choose(np.array([[0.0, np.nan]])), RewardError, "prompt 0 is not finite"),
        (lambda: choose(np.zeros(3)), ShapeError, "expected \\(prompts"),
        (lambda: choose(np.zeros((3, 0))), ShapeError, "responses >= 1"),
        (lambda: curve(NORMAL, [7]), InvalidHyperparameterError, "1 <= n <= 6"),
        (lambda: curve(NORMAL, [0]), InvalidHyperparameterError, "1 <= n <= 6"),
        (lambda: curve(NORMAL, []), InvalidHyperparameterError, "ns is empty"),
        (lambda: curve(NORMAL[:1], [1]), UninformativeDataError, "two prompts"),
        (lambda: curve(NORMAL * np.nan, [1]), NotFiniteError, "not finite"),
        (lambda: best_of_n_kl(np.zeros(1), np.zeros(1), 0), InvalidHyperparameterError, "n >= 1"),
        (lambda: best_of_n_win_rate_bound(0), InvalidHyperparameterError, "n >= 1"),
        (lambda: win_rate(np.zeros(1), np.zeros(2), np.zeros(2)), ShapeError, "one length"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


def curve(rewards, ns):
    return best_of_n_curve(rewards, rewards, ns, rng=np.random.default_rng(0))


def test_kl_of_the_chosen_is_infinite_the_other_way_round():
    """n large: the best-of-n forbids what p does, and KL(p || best of n) says so."""
    log_p, scores = np.log([0.5, 0.5]), np.array([0.0, 1.0])
    assert kl_from_logps(log_p, best_of_n(log_p, scores, 5000)) == np.inf
