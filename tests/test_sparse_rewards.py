"""Exploration, reward shifting, redistribution, hindsight and self-play, against exact answers."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irlbook.envs.bitflip import bit_flip
from irlbook.envs.chain import ChainEnv, chain, combination_lock, noisy_chain
from irlbook.envs.garnet import garnet
from irlbook.errors import (
    ImproperPolicyError,
    InvalidEnvironmentError,
    InvalidHyperparameterError,
    InvalidPolicyError,
    NotFiniteError,
    ShapeError,
)
from irlbook.planning import evaluate_policy, value_iteration
from irlbook.rl import (
    exploration,
    fictitious_play,
    hindsight,
    q_learning,
    redistribution,
    reward_shifting,
)


def uniform(mdp):
    return np.full(mdp.reward.shape, 1 / mdp.n_actions)


# Hitting times ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5, 9])
def test_hitting_times_of_the_chain_and_of_the_lock(n):
    walk = chain(n)
    assert exploration.hitting_times(walk, uniform(walk))[0] == pytest.approx(n * (n - 1))
    for keys in (2, 3):
        lock = combination_lock(n, keys)
        wanted = keys * (keys**n - 1) / (keys - 1)
        assert exploration.hitting_times(lock, uniform(lock))[0] == pytest.approx(wanted)


def test_hitting_times_against_simulation_and_a_policy_that_never_arrives():
    mdp = chain(5, slip=0.2)
    policy = np.tile([0.4, 0.6], (5, 1))
    rng, steps = np.random.default_rng(0), []
    for _ in range(2000):
        state, n = 0, 0
        while state != 4:
            right = (rng.random() < 0.6) != (rng.random() < 0.2)
            state, n = (state + 1 if right else max(state - 1, 0)), n + 1
        steps.append(n)
    error = np.std(steps) / np.sqrt(len(steps))
    assert abs(np.mean(steps) - exploration.hitting_times(mdp, policy)[0]) < 4 * error
    with pytest.raises(ImproperPolicyError):
        exploration.hitting_times(chain(4), np.tile([1.0, 0.0], (4, 1)))


def test_reach_within_counts_paths():
    lock = combination_lock(3, 2)
    assert exploration.reach_within(lock, uniform(lock), 2) == 0
    assert exploration.reach_within(lock, uniform(lock), 3) == pytest.approx(1 / 8)
    flip = bit_flip(3)
    reached = 0  # all starts but the goal, all words of three actions
    for start, word in itertools.product(range(1, 8), itertools.product(range(3), repeat=3)):
        state = start
        for action in word:
            state ^= 1 << action
            if state == 0:
                reached += 1
                break
    assert exploration.reach_within(flip, uniform(flip), 3) == pytest.approx(reached / (7 * 27))


def test_hitting_times_are_0_at_the_end_and_count_steps_whatever_the_discount():
    walk = chain(4, discount=0.5)
    right = np.tile([0.0, 1.0], (4, 1))
    assert exploration.hitting_times(walk, right).tolist() == [3.0, 2.0, 1.0, 0.0]
    assert exploration.reach_within(walk, right, 3) == 1.0
    assert exploration.reach_within(walk, right, 2) == 0.0
    with pytest.raises(InvalidHyperparameterError):
        exploration.reach_within(walk, right, 0)


def test_the_worlds_refuse_nonsense():
    with pytest.raises(InvalidEnvironmentError, match="n_steps"):
        combination_lock(0)
    with pytest.raises(InvalidEnvironmentError, match="screens"):
        noisy_chain(4, 0)


# Bonuses ------------------------------------------------------------------------------------------


def test_count_bonus_falls_with_the_root_of_the_visits():
    bonus = exploration.CountBonus(3, 2, 0.5)
    paid = [bonus(1, 0, 2) for _ in range(4)]
    assert np.allclose(paid, 0.5 / np.sqrt([1, 2, 3, 4]))
    assert bonus(1, 1, 2) == 0.5
    assert exploration.no_bonus(1, 1, 2) == 0.0


def test_prediction_error_by_hand_and_its_floor():
    bonus = exploration.PredictionError(2, 1, 1.0)  # a belief worth one visit
    assert bonus(0, 0, 1) == pytest.approx(0.5 * (0.25 + 0.25))
    shares = np.array([0.5, 1.5]) / 2
    assert bonus(0, 0, 0) == pytest.approx(0.5 * ((1 - shares[0]) ** 2 + shares[1] ** 2))
    mdp = noisy_chain(4, 5)
    floor = exploration.prediction_error_floor(mdp)
    watching = mdp.dense()[0, 2]
    draws = np.random.default_rng(0).choice(len(watching), size=20_000, p=watching)
    error = 0.5 * ((np.eye(len(watching))[draws] - watching) ** 2).sum(axis=1)
    assert floor[0, 2] == pytest.approx(error.mean(), abs=1e-9)  # all screens are alike
    assert floor[0, 1] == 0 and floor[0, 2] == pytest.approx((1 - 1 / 5) / 2)
    learned = exploration.PredictionError(mdp.n_states, 3, 1.0)
    late = [learned(0, 2, int(s)) for s in draws[:5000]][-2000:]
    assert np.mean(late) == pytest.approx(floor[0, 2], rel=0.02)  # it never goes away
    assert [learned(0, 1, 1) for _ in range(200)][-1] < 1e-4  # a certain move gets boring


def test_prediction_error_with_a_stronger_prior_and_scale():
    """Belief (1/2, 1/2) worth 4 visits, scale 3; after one visit to state 0 it is (3/5, 2/5)."""
    bonus = exploration.PredictionError(2, 1, 3.0, prior=4.0)
    assert bonus(0, 0, 0) == pytest.approx(3 / 2 * (0.25 + 0.25))
    assert bonus(0, 0, 1) == pytest.approx(3 / 2 * (0.36 + 0.36))
    for bad in (0.0, np.inf):
        with pytest.raises(InvalidHyperparameterError, match="prior"):
            exploration.PredictionError(2, 1, 1.0, prior=bad)
    with pytest.raises(InvalidHyperparameterError, match="scale"):
        exploration.CountBonus(2, 2, np.inf)


def test_the_floor_is_0_where_episodes_have_ended():
    mdp = chain(3, slip=0.5)
    floor = exploration.prediction_error_floor(mdp)
    assert floor.shape == (3, 2) and not floor[2].any()
    np.testing.assert_allclose(floor[1], 0.25)  # left or right with even odds


def test_a_bonus_is_told_the_step_that_was_made():
    told = []

    def note(*step):
        told.append(step)
        return 0.5

    env = exploration.WithBonus(ChainEnv(4), note)
    assert env.steps == 0 and env.first_reward is None
    for _ in range(2):
        assert env.reset(seed=0)[0] == 0
        paid = [env.step(action)[:3] for action in (1, 0, 1, 1, 1)]
    assert told[:5] == [(0, 1, 1), (1, 0, 0), (0, 1, 1), (1, 1, 2), (2, 1, 3)] == told[5:]
    assert paid == [(1, 0.5, False), (0, 0.5, False), (1, 0.5, False), (2, 0.5, False),
                    (3, 1.5, True)]  # fmt: skip
    assert env.steps == 10 and env.first_reward == 5


def test_with_bonus_pays_both_and_notes_the_first_reward():
    env = exploration.WithBonus(ChainEnv(3), exploration.CountBonus(3, 2, 0.25))
    env.reset(seed=0)
    assert env.step(1)[1] == 0.25 and env.first_reward is None
    assert env.step(1)[1] == 1.25 and env.first_reward == 2


def first_reward(mdp, scale, initial_q, seed):
    """The step of the first reward within 60 episodes of a greedy learner; None: there is none."""
    bonus = exploration.CountBonus(mdp.n_states, 2, scale) if scale else exploration.no_bonus
    env = exploration.WithBonus(exploration.as_env(mdp), bonus)
    config = q_learning.TDConfig(
        episodes=60, discount=0.95, max_steps=60, epsilon=0.0, initial_q=initial_q
    )
    q_learning.q_learning(env, config, seed=seed)
    return env.first_reward


def test_a_count_bonus_finds_what_chance_does_not_if_the_table_starts_above_it():
    mdp = combination_lock(14, 2, discount=0.95)
    for seed in range(3):
        # Started at zero, a bonus makes what was tried look better than what was not.
        assert first_reward(mdp, 0.1, 0.0, seed) is None
        assert first_reward(mdp, 0.1, 0.1 / (1 - 0.95), seed) < 1000


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan])
def test_bonuses_refuse_a_scale_that_pays_nothing(scale):
    with pytest.raises(InvalidHyperparameterError, match="scale"):
        exploration.CountBonus(2, 2, scale)
    with pytest.raises(InvalidHyperparameterError, match="scale"):
        exploration.PredictionError(2, 2, scale)


# Reward shifting ----------------------------------------------------------------------------------


@given(st.floats(-2, 2), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_shift_raises_every_value_alike(constant, seed):
    mdp = garnet(6, 3, 2, np.random.default_rng(seed), discount=0.9)
    policy = np.random.default_rng(seed).dirichlet(np.ones(3), 6)
    moved = evaluate_policy(reward_shifting.shifted(mdp, constant), policy)
    assert np.allclose(moved - evaluate_policy(mdp, policy), constant / 0.1, atol=1e-8)


def test_where_episodes_end_the_end_must_be_paid():
    mdp = chain(6, discount=0.9)
    policy = np.tile([0.3, 0.7], (6, 1))
    moved = evaluate_policy(reward_shifting.shifted(mdp, 0.5), policy)
    alive = ~mdp.terminal
    assert np.allclose((moved - evaluate_policy(mdp, policy))[alive], 5.0)
    best = value_iteration(reward_shifting.shifted(mdp, 0.5)).policy
    assert (best[alive, 1] == 1).all()
    trapped = value_iteration(reward_shifting.shifted(mdp, 0.5, end_pays=False)).policy
    assert trapped[4, 0] == 1  # going back and forth pays more than the goal


@pytest.mark.parametrize("constant", [-0.5, 0.3])
def test_a_shifted_learner_walks_like_one_with_another_start(constant):
    gamma = 0.9
    config = q_learning.TDConfig(episodes=40, discount=gamma, epsilon=0.2, max_steps=60)
    env = reward_shifting.ShiftedReward(ChainEnv(6, 0.1), constant, gamma)
    moved = q_learning.q_learning(env, config, seed=3)
    start = -reward_shifting.value_shift(constant, gamma)
    plain = q_learning.q_learning(ChainEnv(6, 0.1), replace(config, initial_q=start), seed=3)
    assert (moved.visits == plain.visits).all()
    assert np.allclose(moved.q - plain.q, constant / (1 - gamma))
    other = q_learning.q_learning(ChainEnv(6, 0.1), config, seed=3)  # started at 0: another walk
    assert (moved.visits != other.visits).any()


def test_a_shifted_environment_pays_as_the_shifted_table_does():
    """Each step c more, and the last one gamma c / (1 - gamma) besides, if the end is paid for."""
    mdp = chain(3, discount=0.8)
    for end_pays, last in ((True, 1.0 + 0.5 + 2.0), (False, 1.0 + 0.5)):
        table = reward_shifting.shifted(mdp, 0.5, end_pays=end_pays).reward
        np.testing.assert_allclose(table[:, 1], [0.5, last, 0.0])
        env = reward_shifting.ShiftedReward(ChainEnv(3), 0.5, 0.8, end_pays=end_pays)
        env.reset(seed=0)
        assert [env.step(1)[1] for _ in range(2)] == pytest.approx([0.5, last])
    assert reward_shifting.value_shift(2.0, 0.0) == 2.0
    for constant, discount in ((np.inf, 0.5), (np.nan, 0.5), (1.0, -1e-9), (1.0, 1.0)):
        with pytest.raises(InvalidHyperparameterError, match="need a finite constant"):
            reward_shifting.value_shift(constant, discount)


def test_a_shift_without_a_discount_is_refused():
    with pytest.raises(InvalidHyperparameterError, match="discount"):
        reward_shifting.value_shift(1.0, 1.0)


# Redistribution -----------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_expected_randomised_loss_is_the_mean_over_all_subsets(length, seed):
    rng = np.random.default_rng(seed)
    rewards, total = rng.normal(size=length), rng.normal()
    for k in range(1, length + 1):
        losses = [
            (total - length / k * rewards[list(chosen)].sum()) ** 2
            for chosen in itertools.combinations(range(length), k)
        ]
        found = redistribution.expected_randomised_loss(rewards, total, k)
        assert found == pytest.approx(np.mean(losses), rel=1e-9, abs=1e-9)


def episodes_of(mdp, n, steps, seed):
    rng = np.random.default_rng(seed)
    dense, found, returns = mdp.dense(), [], []
    for _ in range(n):
        state, pairs = int(rng.choice(mdp.n_states, p=mdp.start)), []
        for _ in range(steps):
            action = int(rng.integers(mdp.n_actions))
            pairs.append(state * mdp.n_actions + action)
            state = int(rng.choice(mdp.n_states, p=dense[state, action]))
        found.append(np.array(pairs))
        returns.append(mdp.reward.ravel()[pairs].sum())
    return found, np.array(returns)


def test_a_sum_of_rewards_is_taken_apart_exactly():
    mdp = garnet(5, 2, 2, np.random.default_rng(0))
    episodes, returns = episodes_of(mdp, 60, 8, 1)
    found = redistribution.return_decomposition(episodes, returns, 10)
    assert np.allclose(found, mdp.reward.ravel(), atol=1e-8)


def test_randomised_decomposition_minimises_its_loss_and_flattens():
    mdp = garnet(5, 2, 2, np.random.default_rng(0))
    episodes, returns = episodes_of(mdp, 30, 8, 1)

    def loss(rewards, k):
        return sum(
            redistribution.expected_randomised_loss(rewards[pairs], total, k)
            for pairs, total in zip(episodes, returns, strict=True)
        )

    rng = np.random.default_rng(2)
    for k in (1, 2, 4):
        found = redistribution.randomised_decomposition(episodes, returns, 10, k)
        around = [loss(found + 1e-2 * rng.normal(size=10), k) for _ in range(20)]
        assert loss(found, k) < min(around)
    spread = [
        np.std(redistribution.randomised_decomposition(episodes, returns, 10, k)) for k in (1, 2, 8)
    ]
    assert spread[0] < spread[1] < spread[2]  # fewer steps looked at, flatter rewards
    whole = redistribution.randomised_decomposition(episodes, returns, 10, 8)
    assert np.allclose(whole, redistribution.return_decomposition(episodes, returns, 10))


def test_redistributions_sum_to_the_return():
    rng = np.random.default_rng(0)
    assert redistribution.prediction_changes(rng.normal(size=6), 2.5).sum() == pytest.approx(2.5)
    attention = rng.dirichlet(np.ones(5))
    for beta in (0.0, 0.8, 1.0):
        shares = redistribution.attention_shares(attention, -3.0, beta)
        assert shares.sum() == pytest.approx(-3.0)
    assert np.allclose(redistribution.attention_shares(attention, 2.0, 0.0), [0, 0, 0, 0, 2])
    by_hand = redistribution.attention_shares([0.25, 0.75], 4.0, 0.8)
    assert np.allclose(by_hand, [0.8, 2.4 + 0.8])


def test_redistribution_by_hand():
    """Pairs 0, 1, 1 with return 5 and 0, 0 with return 2: rewards 1 and 2; and changes of g."""
    episodes = [np.array([0, 1, 1]), np.array([0, 0])]
    assert redistribution.visit_counts(episodes, 3).tolist() == [[1, 2, 0], [2, 0, 0]]
    found = redistribution.return_decomposition(episodes, np.array([5.0, 2.0]), 3)
    np.testing.assert_allclose(found, [1.0, 2.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(redistribution.prediction_changes([1.0, 3.0, 2.0], 5.0), [3.0, 2.0])
    np.testing.assert_allclose(redistribution.prediction_changes([1.0, 3.0], 5.0), [5.0])
    assert redistribution.expected_randomised_loss([2.0], 5.0, 1) == 9.0
    # What no episode tells apart is shared out evenly; one look at each evens out the episode.
    together = redistribution.return_decomposition([np.array([0, 1])], np.array([4.0]), 2)
    np.testing.assert_allclose(together, [2.0, 2.0])
    np.testing.assert_allclose(redistribution.attention_shares([1.0 + 5e-10], 2.0, 1.0), [2.0])


def test_redistribution_refuses_nonsense():
    for attention, beta in (([1.0 + 2e-9], 1.0), ([1.5, -0.5], 1.0), ([1.0], -1e-9)):
        with pytest.raises(InvalidHyperparameterError, match="must lie in"):
            redistribution.attention_shares(attention, 1.0, beta)
    for subset in (0, -1):
        with pytest.raises(InvalidHyperparameterError, match=r"subset is .* in 1\.\.2"):
            redistribution.randomised_decomposition([np.array([0, 0])], np.ones(1), 1, subset)
    with pytest.raises(ShapeError, match="no empty episode"):
        redistribution.return_decomposition([np.array([], dtype=int)], np.ones(1), 1)
    with pytest.raises(ShapeError, match="steps \\+ 1"):
        redistribution.prediction_changes(np.ones((2, 2)), 1.0)
    with pytest.raises(InvalidHyperparameterError, match="sum to"):
        redistribution.attention_shares([0.5, 0.6], 1.0, 0.8)
    with pytest.raises(InvalidHyperparameterError, match="beta"):
        redistribution.attention_shares([0.5, 0.5], 1.0, 1.2)
    with pytest.raises(ShapeError):
        redistribution.prediction_changes([1.0], 1.0)
    with pytest.raises(ShapeError):
        redistribution.return_decomposition([np.array([0])], [1.0, 2.0], 1)
    with pytest.raises(InvalidHyperparameterError, match="subset"):
        redistribution.expected_randomised_loss([1.0, 2.0], 1.0, 3)


# Hindsight ----------------------------------------------------------------------------------------


def one_episode():
    bits = np.array([[[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]], dtype=np.int8)
    goals = np.array([[0, 0, 1]], dtype=np.int8)
    return hindsight.Episodes(bits, np.array([[0, 1, 2]]), goals, np.array([3]))


def test_without_replacement_goals_and_rewards_are_the_stored_ones():
    steps = np.array([0, 1, 2])
    goals, rewards = hindsight.relabel(
        one_episode(), np.zeros(3, int), steps, 0.0, np.random.default_rng(0)
    )
    assert (goals == [0, 0, 1]).all() and (rewards == -1).all()


def test_replaced_goals_come_from_the_future_and_pay_when_reached():
    episodes, n = one_episode(), 3000
    steps = np.random.default_rng(1).integers(0, 3, n)
    goals, rewards = hindsight.relabel(
        episodes, np.zeros(n, int), steps, 1.0, np.random.default_rng(0)
    )
    reached = goals.sum(axis=1)  # after step t the bits have t + 1 ones
    assert (reached > steps).all() and (reached <= 3).all()
    assert ((rewards == 0) == (reached == steps + 1)).all()
    first = rewards[steps == 0]
    assert np.mean(first == 0) == pytest.approx(1 / 3, abs=0.06)
    assert (rewards[steps == 2] == 0).all()


def test_relabel_refuses_steps_that_were_not_made():
    short = replace(one_episode(), lengths=np.array([2]))
    with pytest.raises(ShapeError):
        hindsight.relabel(short, np.array([0]), np.array([2]), 0.8, np.random.default_rng(0))


def test_q_target_stops_at_the_goal_and_is_clipped():
    next_q = torch.tensor([[-3.0, -1.0], [-3.0, -1.0], [-90.0, -80.0], [5.0, 1.0]])
    rewards = torch.tensor([-1.0, 0.0, -1.0, -1.0])
    wanted = torch.tensor([-1.5, 0.0, -2.0, 0.0])
    assert torch.allclose(hindsight.q_target(rewards, next_q, 0.5), wanted)


def test_relabel_takes_any_share_and_no_step_before_the_first():
    episodes, rng = one_episode(), np.random.default_rng(0)
    first = np.zeros(1, int)
    hindsight.relabel(episodes, first, first, 0.0, rng)
    hindsight.relabel(episodes, first, first, 1.0, rng)
    for bad in (-1e-9, 1 + 1e-9):
        with pytest.raises(InvalidHyperparameterError, match="replaced is"):
            hindsight.relabel(episodes, first, first, bad, rng)
    with pytest.raises(ShapeError, match="outside its episode"):
        hindsight.relabel(episodes, first, first - 1, 0.5, rng)
    n = 4000
    goals, _ = hindsight.relabel(episodes, np.zeros(n, int), np.zeros(n, int), 0.3, rng)
    kept = (goals == [0, 0, 1]).all(axis=1)  # never reached later
    assert kept.mean() == pytest.approx(0.7, abs=0.03)


class Flips(torch.nn.Module):
    """Prefers a bit that differs from the goal; or always the same one."""

    def __init__(self, always=None):
        super().__init__()
        self.always = always

    def forward(self, x):
        bits, goals = x.chunk(2, dim=1)
        wrong = (bits != goals).float()
        if self.always is not None:
            wrong = torch.zeros_like(wrong)
            wrong[:, self.always] = 1.0
        return wrong


def test_success_is_the_share_of_goals_that_are_reached_in_time():
    assert hindsight.success_rate(Flips(), 6, 300, seed=0) == 1.0
    # 2 bits, always the first flipped: solved where only that one differs. A goal that was drawn
    # equal to the start (1 of 4) has its first bit turned, so that is 1/4 + 1/4.
    assert hindsight.success_rate(Flips(0), 2, 4000, seed=0) == pytest.approx(0.5, abs=0.03)
    assert hindsight.success_rate(Flips(1), 2, 4000, seed=0) == pytest.approx(0.25, abs=0.03)


def test_episodes_are_played_until_the_goal_and_random_actions_have_their_share():
    episodes = hindsight._play(Flips(), 8, 500, 0.0, np.random.default_rng(0))
    distance = (episodes.bits[:, 0] != episodes.goals).sum(axis=1)
    assert (episodes.lengths == distance).all() and episodes.solved.all()
    assert distance.min() >= 1 and distance.mean() == pytest.approx(4.0, abs=0.3)
    flipped = np.abs(np.diff(episodes.bits, axis=1)).sum(axis=2)
    made = np.arange(8) < episodes.lengths[:, None]
    assert (flipped[made] == 1).all()  # each action flips one bit
    noisy = hindsight._play(Flips(3), 8, 500, 0.4, np.random.default_rng(0))
    made = np.arange(8) < noisy.lengths[:, None]
    assert (noisy.actions[made] != 3).mean() == pytest.approx(0.4 * 7 / 8, abs=0.03)


def test_the_beginning_of_a_stored_run_of_hindsight_comes_out_again():
    """25 cycles of the 160 of chapter 21, tested on the same 200 goals."""
    stored = json.loads(
        (Path(hindsight.__file__).parents[1] / "results/hindsight.json").read_text()
    )
    config = hindsight.HindsightConfig(n_bits=10, cycles=25, **stored["settings"]["learner"])
    found = hindsight.hindsight_q_learning(config, seed=1)
    then = stored["runs"]["HER, 10 bits"]["1"]
    assert found.cycles.tolist() == then["cycles"][:1]
    assert found.success[0] == pytest.approx(then["success"][0], abs=0.05)
    assert found.played == 25 * 16


def test_hindsight_is_tested_at_the_end_whatever_the_period():
    config = hindsight.HindsightConfig(
        n_bits=3, cycles=5, evaluate_every=2, hidden=4, updates=1, episodes=2, tests=5, capacity=3
    )
    state = torch.random.get_rng_state()
    found = hindsight.hindsight_q_learning(config, seed=0)  # the memory is overwritten
    assert found.cycles.tolist() == [2, 4, 5] and found.success.shape == (3,)
    assert found.played == 10 and torch.equal(torch.random.get_rng_state(), state)


HINDSIGHT_COUNTS = ("n_bits", "cycles", "episodes", "updates", "batch", "hidden",
                    "evaluate_every", "tests")  # fmt: skip


@pytest.mark.parametrize("name", HINDSIGHT_COUNTS)
def test_a_count_of_hindsight_may_be_1_and_not_0(name):
    hindsight.HindsightConfig(**{name: 1})
    with pytest.raises(InvalidHyperparameterError, match=f"{name} is 0; it must be at least 1"):
        hindsight.HindsightConfig(**{name: 0})


@pytest.mark.parametrize("name", ["replaced", "epsilon", "keep", "discount"])
def test_a_share_of_hindsight_lies_in_its_range(name):
    hindsight.HindsightConfig(**{name: 0.0})
    hindsight.HindsightConfig(**{name: 1.0 - 1e-9 if name == "discount" else 1.0})
    for bad in (-1e-9, 1.0 if name == "discount" else 1 + 1e-9):
        with pytest.raises(InvalidHyperparameterError, match=f"{name} is"):
            hindsight.HindsightConfig(**{name: bad})
    hindsight.HindsightConfig(capacity=16, episodes=16)
    with pytest.raises(InvalidHyperparameterError, match="capacity=15 holds less than the 16"):
        hindsight.HindsightConfig(capacity=15, episodes=16)


def test_hindsight_solves_small_bit_flip_and_the_network_plays_near_the_optimum():
    config = hindsight.HindsightConfig(
        n_bits=5, cycles=40, hidden=64, evaluate_every=20, tests=100, updates=12
    )
    found = hindsight.hindsight_q_learning(config, seed=0)
    assert found.cycles.tolist() == [20, 40] and found.success[-1] > 0.9
    assert 0 < found.reached <= found.played == 40 * 16
    again = hindsight.hindsight_q_learning(config, seed=0)
    assert again.reached == found.reached  # the seed decides


@pytest.mark.parametrize(
    ("name", "value"), [("replaced", 1.5), ("discount", 1.0), ("cycles", 0), ("capacity", 8)]
)
def test_hindsight_config_names_what_is_wrong(name, value):
    with pytest.raises(InvalidHyperparameterError, match=name):
        hindsight.HindsightConfig(**{name: value})


# Matrix games -------------------------------------------------------------------------------------

ROCK = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=float)


def test_rock_paper_scissors_is_solved_by_even_shares():
    x, y, value = fictitious_play.solve_matrix_game(ROCK)
    assert np.allclose(x, 1 / 3) and np.allclose(y, 1 / 3) and abs(value) < 1e-9


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_solution_has_no_gap_and_play_brackets_the_value(seed):
    rng = np.random.default_rng(seed)
    payoff = rng.normal(size=rng.integers(2, 5, 2))
    x, y, value = fictitious_play.solve_matrix_game(payoff)
    assert fictitious_play.duality_gap(payoff, x, y) < 1e-7
    assert x @ payoff @ y == pytest.approx(value, abs=1e-7)
    played = fictitious_play.play_matrix_game(payoff, 300)
    row = np.bincount(played.rows, minlength=len(x)) / 300
    column = np.bincount(played.columns, minlength=len(y)) / 300
    gap = fictitious_play.duality_gap(payoff, row, column)
    assert gap == pytest.approx(played.gaps[-1])
    assert (row @ payoff).min() - 1e-7 <= value <= (payoff @ column).max() + 1e-7
    other = rng.dirichlet(np.ones(len(x)))
    assert fictitious_play.duality_gap(payoff, other, y) >= -1e-9


def test_fictitious_play_converges_and_play_against_the_last_does_not():
    average = fictitious_play.play_matrix_game(ROCK, 2000).gaps
    assert average[-1] < 0.1 < average[9]
    biased = np.array([[1.0, -1.0], [-2.0, 1.0]])
    last = fictitious_play.play_matrix_game(biased, 2000, "last").gaps[-1]
    assert last > 5 * fictitious_play.play_matrix_game(biased, 2000).gaps[-1]


def test_a_few_rounds_by_hand():
    """Both begin with their first move. Rock, paper, scissors: each then beats what it knows."""
    last = fictitious_play.play_matrix_game(ROCK, 4, "last")
    assert last.rows.tolist() == last.columns.tolist() == [0, 1, 2, 0]
    average = fictitious_play.play_matrix_game(ROCK, 4)
    assert average.rows.tolist() == average.columns.tolist() == [0, 1, 1, 1]
    np.testing.assert_allclose(average.gaps, [2.0, 1.0, 2 / 3, 1.0])
    uneven = np.array([[3.0, 0.0], [1.0, 2.0], [4.0, -1.0]])
    answered = fictitious_play.play_matrix_game(uneven, 2, "last")
    assert answered.rows.tolist() == [0, 2] and answered.columns.tolist() == [0, 1]
    once = fictitious_play.play_matrix_game(uneven, 1)
    assert once.gaps.tolist() == [4.0 - 0.0]
    x, y, value = fictitious_play.solve_matrix_game(uneven)
    np.testing.assert_allclose(x, [0.25, 0.75, 0.0], atol=1e-9)
    np.testing.assert_allclose(y, [0.5, 0.5], atol=1e-9)
    assert value == pytest.approx(1.5)


def test_a_strategy_is_a_distribution_up_to_rounding():
    even = np.full(3, 1 / 3)
    fictitious_play.duality_gap(ROCK, even * (1 + 9e-7), even)
    fictitious_play.duality_gap(ROCK, [1 + 5e-10, -5e-10, 0], even)
    for bad in (even * (1 + 2e-6), [1 + 2e-9, -2e-9, 0], [0.5, 0.5], [[1.0, 0, 0]]):
        with pytest.raises(InvalidPolicyError, match="a strategy of 3 moves"):
            fictitious_play.duality_gap(ROCK, even, bad)
    with pytest.raises(NotFiniteError):
        fictitious_play.solve_matrix_game([[1.0, np.nan]])
    with pytest.raises(ShapeError, match=r"\(0, 2\)"):
        fictitious_play.solve_matrix_game(np.zeros((0, 2)))
    with pytest.raises(InvalidHyperparameterError, match="rounds=0"):
        fictitious_play.play_matrix_game(ROCK, 0)


def test_matrix_games_refuse_nonsense():
    with pytest.raises(InvalidPolicyError):
        fictitious_play.duality_gap(ROCK, [0.5, 0.6, 0.0], [1, 0, 0])
    with pytest.raises(ShapeError):
        fictitious_play.solve_matrix_game(np.zeros(3))
    with pytest.raises(InvalidHyperparameterError, match="opponent"):
        fictitious_play.play_matrix_game(ROCK, 3, "worst")


def test_as_env_plays_the_table():
    env = exploration.as_env(combination_lock(2))
    assert isinstance(env, gym.Env)
    env.reset(seed=0)
    assert env.step(0)[:3] == (1, 0.0, False) and env.step(1)[:3] == (2, 1.0, True)
