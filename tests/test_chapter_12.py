"""Every displayed equation of chapter 12 that has code, against an independent computation.

Exact oracles: all n-tuples of a few responses, all outcomes of a few draws, integrals, all
policies over an enumerable language model.
"""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from irlbook.lm.enumerable import (
    EnumerableLM,
    best_of_n,
    best_of_n_kl_bound,
    expectation,
    kl_from_logps,
    tilted,
)
from irlbook.lm.token_table import TokenTable
from irlbook.posttraining.best_of_n import best_of_n_kl, best_of_n_win_rate, choose, win_rate
from irlbook.posttraining.distillation import (
    best_and_worst,
    best_of_n_margin,
    bonbon_loss,
    bonbon_optimum,
)
from irlbook.posttraining.evaluation import best_of_n_gold
from irlbook.posttraining.rrhf import rrhf_loss


@pytest.fixture
def rng():
    return np.random.default_rng(12)


@pytest.fixture
def world(rng):
    """An enumerable model of 40 responses, its log-probabilities, a reward without ties."""
    lm = EnumerableLM.create(
        ("a", "b", "c", "<end>"), 3, lambda s: rng.dirichlet(np.full(4, 2.0), size=len(s))
    )
    log_p = lm.sequence_log_probabilities()
    return lm, log_p, rng.normal(size=len(log_p))


def by_tuples(p, reward, n):
    """The best of n from all n-tuples; equal rewards share."""
    found = np.zeros(len(p))
    for drawn in itertools.product(range(len(p)), repeat=n):
        top = max(reward[i] for i in drawn)
        winners = [i for i in drawn if reward[i] == top]
        for i in winners:
            found[i] += np.prod(p[list(drawn)]) / len(winners)
    return found


def uniform(size):
    return np.full(size, -np.log(size)), np.arange(size)


@pytest.mark.parametrize("reward", [[0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 1.0, 0.0], [5.0] * 4])
def test_eq_12_1_the_distribution_of_the_best_of_n_by_all_tuples(rng, reward):
    p, reward = rng.dirichlet(np.ones(4)), np.array(reward)
    for n in (1, 2, 3, 5):
        found = np.exp(best_of_n(np.log(p), reward, n))
        np.testing.assert_allclose(found, by_tuples(p, reward, n), atol=1e-12)
        assert found.sum() == pytest.approx(1, abs=1e-12)
        upto = np.array([p[reward <= x].sum() for x in reward])
        below = np.array([p[reward < x].sum() for x in reward])
        np.testing.assert_allclose(found, p * (upto**n - below**n) / (upto - below), atol=1e-12)


def test_eq_12_1_sees_the_order_alone(world):
    _, log_p, reward = world
    for other in (4 * reward - 9, np.exp(reward), stats.rankdata(reward)):
        np.testing.assert_array_equal(best_of_n(log_p, other, 7), best_of_n(log_p, reward, 7))


def test_eq_12_2_is_the_integral_for_rare_responses_and_a_bound_for_all(world):
    for n in (2, 4, 16, 64):
        integral, _ = integrate.quad(
            lambda u, n=n: n * u ** (n - 1) * np.log(n * u ** (n - 1)), 0, 1
        )
        assert best_of_n_kl_bound(n) == pytest.approx(integral, abs=1e-7)
        assert best_of_n_kl(*uniform(50_000), n) == pytest.approx(integral, abs=1e-4)
    _, log_p, reward = world
    for scores in (reward, np.round(reward), np.sign(reward), np.zeros_like(reward)):
        for n in (1, 2, 3, 10, 100, 5000):
            assert -1e-12 <= best_of_n_kl(log_p, scores, n) <= best_of_n_kl_bound(n) + 1e-12


def test_eq_12_2_what_is_known_of_coins_and_dice():
    table = {
        2: (0.459, 0.693, 0.693),
        10: (0.629, 1.733, 2.303),
        1000: (0.636, 1.835, 4.546),
    }
    for size, known in table.items():
        found = [best_of_n_kl(*uniform(size), n) for n in (4, 16, 256)]
        np.testing.assert_allclose(found, known, atol=6e-4)
    bound = [best_of_n_kl_bound(n) for n in (4, 16, 256)]
    np.testing.assert_allclose(bound, (0.636, 1.835, 4.549), atol=6e-4)


def test_eq_12_3_ends_at_the_best_responses(world):
    _, log_p, reward = world
    for scores in (reward, np.round(reward)):
        top = scores == scores.max()
        limit = -np.log(np.exp(log_p[top]).sum())
        assert best_of_n_kl(log_p, scores, 10**7) == pytest.approx(limit, abs=1e-4)
        last = best_of_n(log_p, scores, 10**7)
        np.testing.assert_allclose(
            np.exp(last[top]), np.exp(log_p[top]) / np.exp(log_p[top]).sum(), atol=1e-4
        )


def test_eq_12_4_win_rate_by_all_tuples_and_its_bound(world, rng):
    p = rng.dirichlet(np.ones(4))
    for reward in (np.arange(4.0), np.array([0.0, 1.0, 1.0, 2.0])):
        for n in (1, 2, 4):
            wins = 0.0
            for drawn in itertools.product(range(4), repeat=n + 1):
                best, fresh = max(reward[list(drawn[:n])]), reward[drawn[n]]
                wins += np.prod(p[list(drawn)]) * ((best > fresh) + 0.5 * (best == fresh))
            assert best_of_n_win_rate(np.log(p), reward, n) == pytest.approx(wins, abs=1e-12)
    _, log_p, reward = world
    for scores in (reward, np.round(reward)):
        for n in (1, 2, 8, 100):
            levels, level = np.unique(scores, return_inverse=True)
            upto = np.cumsum(np.bincount(level, weights=np.exp(log_p), minlength=len(levels)))
            below = np.concatenate([[0.0], upto[:-1]])
            trapezoid = ((upto**n - below**n) * (upto + below) / 2).sum()
            found = best_of_n_win_rate(log_p, scores, n)
            assert found == pytest.approx(trapezoid, abs=1e-12)
            assert found <= n / (n + 1) + 1e-12
    assert best_of_n_win_rate(*uniform(100_000), 16) == pytest.approx(16 / 17, abs=1e-4)


def test_eq_12_5_best_of_n_is_the_optimum_for_the_log_quantile(rng):
    log_p, rank = uniform(20_000)
    quantile = (rank + 0.5) / len(rank)
    for n in (2, 5, 32):
        best = tilted(log_p, np.log(quantile), 1 / (n - 1))[0]
        assert kl_from_logps(best_of_n(log_p, rank, n), best) < 1e-6
        assert kl_from_logps(best_of_n(log_p, rank, n), tilted(log_p, quantile, 1 / n)[0]) > 1e-4


def test_eq_12_5_never_beats_the_optimum_for_the_reward(world):
    _, log_p, reward = world
    prices = np.geomspace(0.01, 100, 400)
    best = [tilted(log_p, reward, beta)[0] for beta in prices]
    nats = np.array([kl_from_logps(q, log_p) for q in best])[::-1]
    worth = np.array([expectation(q, reward) for q in best])[::-1]
    for n in (2, 4, 16, 64):
        chosen = best_of_n(log_p, reward, n)
        at = np.interp(kl_from_logps(chosen, log_p), nats, worth)
        assert expectation(chosen, reward) < at + 1e-3


def outcomes(p, k):
    """All ordered draws of k responses with their probabilities."""
    for drawn in itertools.product(range(len(p)), repeat=k):
        yield np.array(drawn), np.prod(p[list(drawn)])


def test_eq_12_6_the_plug_in_draws_with_replacement_and_is_biased(rng):
    p, reward, gold = np.array([0.6, 0.3, 0.1]), np.arange(3.0), np.array([1.0, 0.0, 5.0])
    k, n = 4, 3
    upto = np.arange(k + 1) / k
    weights = np.diff(upto**n)
    with_replacement = np.zeros(k)
    for drawn in itertools.product(range(k), repeat=n):
        with_replacement[max(drawn)] += 1 / k**n
    np.testing.assert_allclose(weights, with_replacement, atol=1e-12)
    mean = sum(c * (gold[np.sort(d)] @ weights) for d, c in outcomes(p, k))
    truth = np.exp(best_of_n(np.log(p), reward, n)) @ gold
    assert abs(mean - truth) > 0.05
    assert (1 - 1 / 1000) ** 1000 == pytest.approx(np.exp(-1), abs=1e-3)


def test_eq_12_7_all_subsets_is_unbiased(rng):
    p, reward, gold = rng.dirichlet(np.ones(3)), np.array([0.0, 1.0, 1.0]), rng.normal(size=3)
    for k, n in ((4, 1), (4, 2), (4, 3), (5, 5)):
        mean = sum(
            c * best_of_n_gold(reward[d][None], gold[d][None], n)[0] for d, c in outcomes(p, k)
        )
        assert mean == pytest.approx(np.exp(best_of_n(np.log(p), reward, n)) @ gold, abs=1e-12)


def test_eq_12_7_weights_by_hand(rng):
    k, n = 9, 4
    weights = np.array([comb(j - 1, n - 1) / comb(k, n) for j in range(1, k + 1)])
    assert weights.sum() == pytest.approx(1)
    some = rng.normal(size=(1, k))
    gold = rng.normal(size=(1, k))
    order = np.argsort(some[0])
    assert best_of_n_gold(some, gold, n)[0] == pytest.approx(gold[0, order] @ weights)


def test_eq_12_8_a_gaussian_proxy_passes_on_its_correlation(rng):
    """E[gold of the best of n] = rho e_n, e_n the mean maximum of n normals, by quadrature."""
    rho = 0.6
    gold = rng.normal(size=(3000, 48))
    proxy = rho * gold + np.sqrt(1 - rho**2) * rng.normal(size=gold.shape)
    for n in (2, 8, 32):
        top, _ = integrate.quad(
            lambda z, n=n: z * n * stats.norm.cdf(z) ** (n - 1) * stats.norm.pdf(z), -9, 9
        )
        assert best_of_n_gold(gold, gold, n).mean() == pytest.approx(top, abs=0.03)
        assert best_of_n_gold(proxy, gold, n).mean() == pytest.approx(rho * top, abs=0.04)


def fit(lm, loss, steps=50):
    table = TokenTable(lm)
    solver = torch.optim.LBFGS(
        table.parameters(), max_iter=steps, max_eval=2 * steps, tolerance_grad=1e-10,
        tolerance_change=0, history_size=50, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        solver.zero_grad()
        value = loss(table.log_probabilities())
        value.backward()
        return value

    solver.step(closure)
    log_p = table.log_probabilities()
    return log_p.detach().numpy(), float(loss(log_p).detach())


def test_eq_12_8_needs_equal_shapes_not_only_a_straight_regression():
    """Proxy u uniform on (-1, 1), gold u + 0.8 z: E[gold | u] = u, and yet the share falls."""
    x = np.linspace(-6, 6, 4001)
    u = np.linspace(-1, 1, 2001)
    cdf = stats.norm.cdf((x[:, None] - u) / 0.8).mean(axis=1)
    shares = []
    for n in (2, 8, 32, 128):
        by_gold = integrate.trapezoid((x > 0) - cdf**n, x)  # E[max], as a tail integral
        shares.append((n - 1) / (n + 1) / by_gold)  # best by u: the mean of the largest uniform
    assert shares == pytest.approx([0.60, 0.55, 0.47, 0.40], abs=0.01)


def test_eq_12_13_bonbon_as_published_ends_lower_at_8_than_at_4():
    log_p = np.full(60, -np.log(60))
    reward = np.sort(np.random.default_rng(1).normal(size=60))
    worth = {n: float(np.exp(bonbon_optimum(log_p, reward, n, 0.005)) @ reward) for n in (4, 8)}
    assert worth[8] < worth[4] < float(np.exp(best_of_n(log_p, reward, 8)) @ reward)


def test_eq_12_9_sft_on_the_winners_ends_at_the_best_of_k(world):
    lm, log_p, reward = world
    target = best_of_n(log_p, reward, 4)
    winners = torch.tensor(np.exp(target))
    found, loss = fit(lm, lambda q: -(winners * q).sum())
    assert kl_from_logps(target, found) < 1e-4
    entropy = -expectation(target, target)
    assert loss == pytest.approx(entropy, abs=1e-4)


def test_eq_12_10_rounds_multiply(world):
    _, log_p, reward = world
    for scores in (reward, np.round(reward)):
        for k, rounds in ((2, 4), (3, 3), (8, 2)):
            q = log_p
            for _ in range(rounds):
                q = best_of_n(q, scores, k)
            np.testing.assert_allclose(
                np.exp(q), np.exp(best_of_n(log_p, scores, k**rounds)), atol=1e-12
            )
    assert np.exp(best_of_n(log_p, reward, 8**6))[reward.argmax()] > 0.999


def test_eq_12_11_break_even_makes_the_totals_equal():
    prompt, response, train = 11.0, 19.0, 90_000.0
    for n in (2, 4, 16):
        per_answer = 2 * (prompt + n * response)
        answers = train / (per_answer - (prompt + response))
        assert train + answers * (prompt + response) == pytest.approx(answers * per_answer)


def test_eq_12_12_rrhf_by_hand_and_its_end_without_ranking(world, rng):
    logps = torch.tensor(-20 + 3 * rng.normal(size=(6, 4)), requires_grad=True)
    given = torch.tensor(rng.normal(size=(6, 4)))
    lengths = torch.tensor(rng.integers(2, 30, size=(6, 4)))
    loss = rrhf_loss(logps, given, lengths)
    for row in range(6):
        each = (logps[row] / lengths[row]).detach().numpy()
        wanted = -float(logps[row, given[row].argmax()].detach())
        for i, j in itertools.permutations(range(4), 2):
            if given[row, i] < given[row, j]:
                wanted += max(0.0, each[i] - each[j])
        assert float(loss[row].detach()) == pytest.approx(wanted, abs=1e-12)
    torch.testing.assert_close(loss, rrhf_loss(logps, torch.exp(3 * given), lengths))
    right = torch.tensor([[-1.0, -2.0, -3.0]])  # already in order: SFT alone is left
    assert float(rrhf_loss(right, 5 * right, torch.ones(1, 3))) == pytest.approx(1.0)
    # without the ranking term the loss over all pairs is SFT on the best of 2
    _, log_p, reward = world
    p = np.exp(log_p)
    i, j = np.nonzero(reward[:, None] > reward[None, :])  # i wins
    winners = np.bincount(i, weights=2 * p[i] * p[j], minlength=len(p)) + p**2
    np.testing.assert_allclose(winners, np.exp(best_of_n(log_p, reward, 2)), atol=1e-12)


def test_eq_12_13_bonbon_by_hand_its_margin_and_its_end(world, rng):
    n, alpha = 5, 0.1
    policy, reference = (torch.tensor(-9 + rng.normal(size=(7, 2))) for _ in range(2))
    margin = (n - 1) * sum(1 / i for i in range(1, n))
    h = policy - reference
    wanted = -alpha * policy[:, 0] + (1 - alpha) * (h[:, 0] - h[:, 1] - margin) ** 2
    torch.testing.assert_close(bonbon_loss(policy, reference, n, alpha), wanted)
    # the margin: mean of (n - 1) (log of the largest - log of the smallest) of n uniforms
    u = np.sort(rng.random((400_000, n)), axis=1)
    found = (n - 1) * (np.log(u[:, -1]) - np.log(u[:, 0])).mean()
    assert best_of_n_margin(n) == pytest.approx(found, rel=0.01)
    _, log_p, reward = world
    for n in (2, 4, 8):
        target = best_of_n(log_p, reward, n)
        assert kl_from_logps(target, bonbon_optimum(log_p, reward, n, 1.0)) < 1e-9
        assert kl_from_logps(target, bonbon_optimum(log_p, reward, n, 0.005)) > 0.005


def test_eq_12_13_the_best_and_the_worst_by_all_tuples(rng):
    p, reward = rng.dirichlet(np.ones(4)), np.array([0.3, -1.0, 2.0, 0.9])
    found = np.zeros((4, 4))
    for drawn, chance in outcomes(p, 3):
        best, worst = drawn[reward[drawn].argmax()], drawn[reward[drawn].argmin()]
        if best != worst:
            found[best, worst] += chance
    np.testing.assert_allclose(best_and_worst(np.log(p), reward, 3), found, atol=1e-12)


def test_planted_the_wrong_stride_runs_and_is_seen_by_the_row_maximum(rng):
    prompts, n = 6, 8
    scores = rng.normal(size=(prompts, n))
    rows, flat = np.arange(prompts), scores.ravel()
    sound, planted = choose(flat.reshape(prompts, n)), choose(flat.reshape(n, prompts).T)
    np.testing.assert_array_equal(scores[rows, sound], scores.max(axis=1))
    assert planted.shape == sound.shape and (planted < n).all()  # nothing crashes
    assert not np.array_equal(scores[rows, planted], scores.max(axis=1))


def test_win_rate_of_a_policy_against_itself_is_a_half(world):
    _, log_p, reward = world
    assert win_rate(log_p, log_p, np.round(reward)) == pytest.approx(0.5)
