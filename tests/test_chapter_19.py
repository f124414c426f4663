"""The equations of chapter 19, each against another way to compute it."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from irlbook.lm.enumerable import EnumerableLM
from irlbook.posttraining import policy_gradient as pg
from irlbook.posttraining import reasoning_study
from irlbook.posttraining.many_samples import pass_at_k


@pytest.fixture(scope="module")
def lm():
    rng = np.random.default_rng(0)
    return EnumerableLM.create(
        ["a", "b", "c", "<end>"], 3, lambda p: rng.dirichlet(np.ones(4), size=len(p))
    )


def truth_of(lm):
    return np.array(["a" in lm.text(state) for state in lm.responses], dtype=float)


def test_eq_19_1_is_the_mean_of_what_a_verifier_says_and_scales_the_gradient(lm):
    truth, a, b = truth_of(lm), 0.3, 0.1
    rng = np.random.default_rng(1)
    coins = rng.random((40_000, len(truth)))
    said = np.where(truth > 0, coins > a, coins < b)
    mean = b + (1 - a - b) * truth
    assert np.abs(said.mean(axis=0) - mean).max() < 0.012
    scaled = (1 - a - b) * lm.policy_gradient(truth)
    np.testing.assert_allclose(lm.policy_gradient(mean), scaled, atol=1e-12)


def test_eq_19_2_an_outcome_reward_keeps_the_order_among_right_responses(lm):
    truth = truth_of(lm)
    before = np.exp(lm.sequence_log_probabilities())
    right = truth > 0
    for beta in (1.0, 0.1):
        after = np.exp(lm.kl_optimum(truth, beta).log_probabilities)
        np.testing.assert_allclose(
            after[right] / after[right].sum(), before[right] / before[right].sum(), atol=1e-12
        )
    process = truth * (lm.lengths[lm.responses] == 2)
    after = np.exp(lm.kl_optimum(process, 0.1).log_probabilities)
    assert (after @ process) / (after @ truth) > 1.5 * (before @ process) / (before @ truth)


def test_eq_19_3_counts_subsets():
    for n, c, k in itertools.product((5, 8), (0, 2, 5), (1, 3, 5)):
        want = 1 - math.comb(n - c, k) / math.comb(n, k)
        assert pass_at_k([c], n, k)[0] == pytest.approx(want, abs=1e-12)


def weight(k, q, a=0.0, b=0.0):
    """w_k of (13.9) by summing over all patterns of truth and of what the verifier says."""
    total = 0.0
    for m, said in itertools.product(range(k + 1), repeat=2):
        chance = math.comb(k, m) * q**m * (1 - q) ** (k - m)
        for yes in range(max(0, said - (k - m)), min(m, said) + 1):  # right ones that are accepted
            no = said - yes
            ways = math.comb(m, yes) * (1 - a) ** yes * a ** (m - yes)
            ways *= math.comb(k - m, no) * b**no * (1 - b) ** (k - m - no)
            rewards = torch.tensor([[1.0] * said + [0.0] * (k - said)], dtype=torch.float64)
            score = pg.grpo_advantage(rewards)[0].numpy()
            high, low = (score[0] if said else 0.0), (score[-1] if said < k else 0.0)
            of_right = yes * high + (m - yes) * low
            of_wrong = no * high + (k - m - no) * low
            total += chance * ways * (of_right / q - of_wrong / (1 - q)) / k
    return total


@pytest.mark.parametrize(("q", "a", "b"), [(0.1, 0.3, 0.2), (0.5, 0.1, 0.05), (0.9, 0.0, 0.0)])
def test_grpo_s_weight_under_errors_is_that_of_what_the_verifier_says(q, a, b):
    k = 6
    seen = b + (1 - a - b) * q
    assert weight(k, q, a, b) == pytest.approx((1 - a - b) * weight(k, seen), abs=1e-12)


def test_eq_19_4_grpo_moves_a_hard_prompt_further_while_a_middle_one_is_learned():
    def until(k):
        def slope(_, z):
            q = 1 / (1 + np.exp(-z))
            w = np.ones(2) if k is None else np.array([weight(k, x) for x in q])
            return w * q * (1 - q)

        def middle(_, z):
            return z[1] - math.log(0.8 / 0.2)

        middle.terminal = True
        start = np.log(np.array([0.05, 0.4]) / np.array([0.95, 0.6]))
        z = solve_ivp(slope, (0, 100), start, events=middle, rtol=1e-6).y[0, -1]
        return 1 / (1 + math.exp(-z))

    assert until(8) > until(None) + 0.01 > 0.05


def test_a_machine_repeats_the_beginning_of_the_study():
    stored = reasoning_study.load()
    assert np.abs(np.array(reasoning_study.beginning(0)) - stored["beginning"]).max() < 0.02
    assert all(set(runs) == {"0", "1", "2", "3", "4"} for runs in stored["runs"].values())
    assert set(stored["runs"]) == set(reasoning_study.JOBS)


def test_jobs_that_were_stored_at_different_times_began_at_the_same_models():
    runs = reasoning_study.load()["runs"]
    for seed, chosen in runs["choose"].items():
        told = runs["generative"][seed]["curves"]["last"]  # n = 1: no judge has a say
        for what in ("right", "sound"):
            assert told[what][0] == pytest.approx(chosen["curves"]["orm"][what][0], abs=1e-6)
        first = [runs[f"difficulty, {m}"][seed]["easy"][0] for m in ("grpo", "rloo")]
        assert first[0] == first[1]
    for name in reasoning_study.SPURIOUS:
        for run in runs[f"spurious, {name}"].values():
            assert len(run["reward"]) == reasoning_study.Study().spurious_iterations
            if name.startswith("random"):  # 256 coins an iteration: a standard error of 0.03
                assert abs(np.mean(run["reward"]) - 0.5) < 0.05
