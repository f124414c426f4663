"""Chapter 15: every displayed equation that has code, against sums, integrals or samples."""

import numpy as np
import pytest
import scipy.stats as stats
import torch
from torch import nn

from irlbook.lm.enumerable import EnumerableLM
from irlbook.lm.trees import collate
from irlbook.posttraining import over_optimization as oo
from irlbook.posttraining.advpo import penalised_rewards
from irlbook.posttraining.goodhart import (
    World,
    exact_best_of_n_curve,
    fit_gao,
    gao_best_of_n,
    gao_rl,
    tail_curve,
    tilted_curve,
)

WORLD = World(np.array([0.6, 0.8, 0.0]), penalty=0.3)
PROXY = np.array([1.0, 1.0, 0.5])


def test_eq_15_1_and_15_2_gold_of_a_policy_is_two_moments():
    phi = WORLD.sample(20_000, np.random.default_rng(0))
    z = phi @ PROXY / np.linalg.norm(PROXY)
    gold = phi @ [0.6, 0.8, 0.0] - 0.3 * ((phi**2).sum(axis=1) - 3)
    assert WORLD.gold(phi) == pytest.approx(gold)
    weight = np.exp(-((z - 1.5) ** 2))  # any policy that looks at z alone
    weight /= weight.sum()
    got = WORLD.gold_of_moments(PROXY, weight @ z, weight @ z**2)
    assert float(got) == pytest.approx(float(weight @ gold), abs=0.03)


def test_kl_of_the_best_of_n():
    """E[log n F^(n-1)] with F uniform under the reference, F = u^(1/n) under the best of n."""
    for n in (2, 7, 100):
        u = (np.arange(100_000) + 0.5) / 100_000
        want = np.mean(np.log(n) + (n - 1) / n * np.log(u))
        assert float(exact_best_of_n_curve(WORLD, PROXY, n).kl) == pytest.approx(want, abs=1e-4)


def test_eq_15_3_and_15_4_forms_and_peaks():
    d = np.linspace(0.01, 6, 60_000)
    for form, f in (("best of n", gao_best_of_n), ("rl", gao_rl)):
        fit = fit_gao(d, f(d, 1.2, 0.5), form)
        assert (fit.alpha, fit.beta) == pytest.approx((1.2, 0.5))
        assert fit.peak == pytest.approx(d[f(d, 1.2, 0.5).argmax()], abs=1e-3)


def test_eq_15_5_tilted_normal():
    curve = tilted_curve(WORLD, PROXY, price := np.array([0.5, 1.0, 3.0]))
    s, kappa = np.linalg.norm(PROXY) / price, WORLD.alignment(PROXY)
    assert curve.kl == pytest.approx(s**2 / 2)
    assert curve.gold == pytest.approx(curve.d * (np.sqrt(2) * kappa - 2 * 0.3 * curve.d))
    mean = PROXY / price[1]  # and directly, as the normal that it is
    phi = mean + np.random.default_rng(0).normal(size=(200_000, 3))
    assert WORLD.gold(phi).mean() == pytest.approx(curve.gold[1], abs=0.03)
    log_ratio = phi @ mean - mean @ mean / 2
    assert log_ratio.mean() == pytest.approx(curve.kl[1], abs=0.02)


def test_eq_15_6_no_policy_has_more_proxy():
    best = exact_best_of_n_curve(WORLD, PROXY, 2.0 ** np.arange(1, 12))
    assert (best.proxy < np.sqrt(2) * best.d).all()
    tilted = tilted_curve(WORLD, PROXY, np.array([0.3, 1.0, 3.0]))
    assert tilted.proxy == pytest.approx(np.sqrt(2) * tilted.d)


def test_kl_of_a_gamble():
    z = stats.norm.ppf((np.arange(1_000_000) + 0.5) / 1_000_000)
    far = z > 1.2
    ratio = np.where(far, 0.3 / far.mean(), 0.7 / (1 - far.mean()))
    gamble = tail_curve(WORLD, PROXY, 1.2, 0.3)
    assert float(gamble.kl) == pytest.approx(np.mean(ratio * np.log(ratio)), abs=1e-5)
    assert float(gamble.proxy) == pytest.approx(np.mean(ratio * z), abs=1e-5)


@pytest.fixture(scope="module")
def tilts():
    """A language model, gold, a proxy, and a function from strength to the tilted policy."""
    rng = np.random.default_rng(3)
    lm = EnumerableLM.create(
        ("a", "b", "<end>"), 4, lambda rows: rng.dirichlet(np.ones(3), size=len(rows))
    )
    gold, proxy = rng.normal(size=(2, len(lm.responses)))
    log_ref = lm.sequence_log_probabilities()

    def at(strength):
        return np.exp(lm.kl_optimum(proxy, 1 / strength).log_probabilities)

    return gold, proxy, log_ref, at


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.5])
def test_eq_15_7_and_15_8_the_slope_of_gold_is_a_covariance(tilts, strength):
    gold, proxy, log_ref, at = tilts
    p, h = at(strength), 1e-4
    covariance = p @ (gold * proxy) - (p @ gold) * (p @ proxy)
    variance = p @ proxy**2 - (p @ proxy) ** 2
    up, down = at(strength + h), at(strength - h)
    assert (up - down) @ gold / (2 * h) == pytest.approx(covariance, abs=1e-6)
    assert (up - down) @ proxy / (2 * h) == pytest.approx(variance, abs=1e-6)
    kl = [q @ (np.log(q) - log_ref) for q in (up, down)]
    slope = (up - down) @ gold / (kl[0] - kl[1])
    assert slope == pytest.approx(covariance / variance / strength, abs=1e-5)


class Table(nn.Module):
    """A reward for each response, by its first token."""

    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values), requires_grad=False)

    def forward(self, tree):
        first = tree.lengths.cumsum(0) - tree.lengths
        return self.values[tree.target[first]]


GROUPS = [([9], [[0], [1, 5, 5, 5], [2], [3, 5]])]
REWARDS = [[0.0, 1.0, 2.0, 5.0], [30.0, 10.0, 20.0, 40.0], [-1.0, -1.5, -1.1, -1.2]]


@pytest.mark.parametrize("how", ["mean", "worst", "uncertainty"])
def test_eq_15_9_ensembles_of_standardised_members(how):
    z = np.array([(np.array(r) - np.mean(r)) / np.std(r, ddof=1) for r in REWARDS])
    want = {
        "mean": z.sum(0) / 3,
        "worst": np.array([min(column) for column in z.T]),
        "uncertainty": z.sum(0) / 3 - 0.5 * (z**2).mean(0) + 0.5 * z.mean(0) ** 2,
    }[how]
    ensemble = oo.RewardEnsemble([Table(r) for r in REWARDS], how, 0.5).standardise(GROUPS)
    got = ensemble(collate(GROUPS)).numpy()
    assert got == pytest.approx((want - want.mean()) / want.std(ddof=1), abs=1e-5)


def test_eq_15_10_a_length_penalty():
    got = oo.LengthPenalty(Table(REWARDS[0]), 0.05, 2.0)(collate(GROUPS))
    want = [0.0 - 0.05 * (1 - 2), 1.0 - 0.05 * (4 - 2), 2.0 + 0.05, 5.0]
    assert got.numpy() == pytest.approx(want, abs=1e-6)


def test_eq_15_11_length_control_maximises_the_likelihood():
    rng = np.random.default_rng(0)
    longer = rng.normal(3.0, 5.0, size=500)
    wins = (rng.random(500) < 1 / (1 + np.exp(-0.4 - np.tanh(longer / longer.std())))).astype(float)
    got = oo.length_controlled_win_rate(wins, longer, l2=0.0)
    x = np.tanh(longer / longer.std())
    a, b = np.meshgrid(np.linspace(-1, 2, 121), np.linspace(-1, 3, 81), indexing="ij")
    total = np.zeros(a.shape)  # on a grid: no optimiser in common
    for start in range(0, 500, 100):
        logits = a[..., None] + b[..., None] * x[start : start + 100]
        y = wins[start : start + 100]
        total += (y * logits - np.logaddexp(0, logits)).sum(-1)
    best = a.ravel()[total.argmax()]
    assert got == pytest.approx(1 / (1 + np.exp(-best)), abs=0.015)


def test_eq_15_12_the_worst_mean_of_the_ellipsoid_is_the_estimate_less_its_norm():
    """The inner minimum by a search over directions; AdvPO's file is tested in test_advpo.py."""
    rng = np.random.default_rng(0)
    estimate, away, half = rng.normal(size=2), rng.normal(size=2), rng.normal(size=(2, 2))
    covariance, radius = half @ half.T + 0.1 * np.eye(2), 1.7
    angle = np.linspace(0, 2 * np.pi, 100_001)
    edge = radius * np.linalg.cholesky(covariance) @ np.stack([np.cos(angle), np.sin(angle)])
    worst = ((estimate[:, None] + edge) * away[:, None]).sum(axis=0).min()
    features = np.stack([np.zeros(2), away])
    charged = penalised_rewards(features, estimate, covariance, radius, np.zeros(2))
    assert charged == pytest.approx([0.0, worst], abs=1e-6)
