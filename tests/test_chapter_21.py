"""Each displayed equation of chapter 21 that has code, named after it."""

from dataclasses import replace

import numpy as np
import pytest

from irlbook.envs.chain import ChainEnv, chain, combination_lock, noisy_chain
from irlbook.envs.garnet import garnet
from irlbook.irl.shaping import shaped
from irlbook.lm.enumerable import EnumerableLM
from irlbook.planning import value_iteration
from irlbook.posttraining import credit_assignment as credit
from irlbook.posttraining import instruction_relabelling as instructions
from irlbook.rl import exploration, fictitious_play, redistribution, reward_shifting
from irlbook.rl.q_learning import TDConfig, q_learning


def test_eq_21_1_hitting_times_satisfy_their_equation():
    mdp = chain(6, slip=0.1)
    policy = np.tile([0.3, 0.7], (6, 1))
    h = exploration.hitting_times(mdp, policy)
    ahead = (policy * (mdp.dense() @ h)).sum(axis=1)
    np.testing.assert_allclose(h[:-1], 1 + ahead[:-1], rtol=1e-10)
    assert h[-1] == 0


def test_eq_21_1_the_lock_is_exponential():
    mdp = combination_lock(10)
    found = exploration.hitting_times(mdp, np.full(mdp.reward.shape, 0.5))[0]
    assert found == pytest.approx(2 * (2**10 - 1))


def test_eq_21_2_and_21_3_bonuses():
    count = exploration.CountBonus(2, 2, 3.0)
    assert [count(0, 1, 1) for _ in range(4)][-1] == pytest.approx(3.0 / 2)
    curious = exploration.PredictionError(3, 1, 2.0, prior=3.0)
    assert curious(0, 0, 2) == pytest.approx(2.0 / 2 * ((2 / 3) ** 2 + 2 / 9))


def test_eq_21_4_the_floor_of_the_prediction_error():
    mdp = noisy_chain(3, 4)
    p = mdp.dense()[0, 2]
    want = sum(p[s] * ((np.eye(len(p))[s] - p) ** 2).sum() / 2 for s in range(len(p)))
    assert exploration.prediction_error_floor(mdp)[0, 2] == pytest.approx(want)


def test_eq_21_5_shaped_values():
    mdp = chain(5, slip=0.2, discount=0.9)
    plan = value_iteration(mdp, tolerance=1e-12)
    phi = np.where(mdp.terminal, 0.0, np.random.default_rng(0).normal(size=5))
    moved = value_iteration(shaped(mdp, phi), tolerance=1e-12)
    alive = ~mdp.terminal
    np.testing.assert_allclose(moved.q[alive], (plan.q - phi[:, None])[alive], atol=1e-9)


def test_eq_21_6_and_21_7_a_shift_is_another_start():
    mdp = garnet(5, 2, 2, np.random.default_rng(0), discount=0.8)
    moved = value_iteration(reward_shifting.shifted(mdp, 0.3), tolerance=1e-12)
    plain = value_iteration(mdp, tolerance=1e-12)
    np.testing.assert_allclose(moved.q - plain.q, 0.3 / 0.2, atol=1e-8)
    config = TDConfig(episodes=20, discount=0.75, max_steps=30)  # in halves: no rounding, no ties
    a = q_learning(reward_shifting.ShiftedReward(ChainEnv(5, 0.1), -0.25, 0.75), config, seed=1)
    b = q_learning(ChainEnv(5, 0.1), replace(config, initial_q=1.0), seed=1)
    assert (a.visits == b.visits).all()


def test_eq_21_8_regression_finds_the_rewards():
    rng = np.random.default_rng(0)
    true, episodes = rng.normal(size=6), [rng.integers(0, 6, 9) for _ in range(40)]
    returns = np.array([true[e].sum() for e in episodes])
    found = redistribution.return_decomposition(episodes, returns, 6)
    np.testing.assert_allclose(found, true, atol=1e-9)


def test_eq_21_9_the_loss_of_rrd_by_sampling():
    rng = np.random.default_rng(0)
    r, total = rng.normal(size=7), 1.5
    losses = [
        (total - 7 / 3 * r[rng.choice(7, 3, replace=False)].sum()) ** 2 for _ in range(20_000)
    ]
    found = redistribution.expected_randomised_loss(r, total, 3)
    assert abs(np.mean(losses) - found) < 4 * np.std(losses) / np.sqrt(len(losses))


@pytest.fixture
def lm():
    rng = np.random.default_rng(3)
    return EnumerableLM.create(("a", "b", "END"), 3, lambda p: rng.dirichlet(np.ones(3), len(p)))


def test_eq_21_10_and_21_11_sum_to_the_reward(lm):
    reward = np.random.default_rng(4).normal(size=len(lm.responses))
    attention = credit.content_attention(lm, np.array([0.5, -0.5, 0.0]))
    for token_rewards in (
        credit.value_change_rewards(lm, reward),
        credit.attention_rewards(lm, reward, attention, 0.6),
    ):
        np.testing.assert_allclose(token_rewards.sum(axis=1), reward, atol=1e-12)


def test_eq_21_12_the_fit_to_relabelled_samples(lm):
    policies = np.random.default_rng(5).dirichlet(np.ones(len(lm.responses)), 2)
    kinds, asked = np.arange(len(lm.responses)) % 2, np.array([0.3, 0.7])
    mixed = asked @ policies
    found = instructions.relabelled_policy(policies, kinds, asked)
    for k in (0, 1):
        want = np.where(kinds == k, mixed, 0) / mixed[kinds == k].sum()
        np.testing.assert_allclose(found[k], want)


def test_eq_21_13_the_gap_is_what_both_can_gain():
    rng = np.random.default_rng(6)
    m, x, y = rng.normal(size=(3, 4)), rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(4))
    now = x @ m @ y
    gains = max(m[i] @ y - now for i in range(3)) + max(now - x @ m[:, j] for j in range(4))
    assert fictitious_play.duality_gap(m, x, y) == pytest.approx(gains)
