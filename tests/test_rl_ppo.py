"""PPO: the clip, the ratio, the ends of episodes, and CartPole."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

from irlbook.errors import InvalidHyperparameterError, UnsupportedEnvironmentError
from irlbook.rl import ppo as ppo_module
from irlbook.rl.ppo import (
    ActorCritic,
    PPOConfig,
    clipped_policy_loss,
    collect,
    evaluate,
    make_vector_env,
    ppo,
    sample_actions,
)

SMALL = PPOConfig(num_envs=4, num_steps=16, total_steps=256, epochs=2, minibatch=32)


@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.3])
@pytest.mark.parametrize("ratio", [0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0])
def test_gradient_eq_2_16_is_zero_only_where_the_clip_is_active_and_the_sign_matches(
    ratio, advantage
):
    log_prob = torch.tensor([np.log(ratio)], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([advantage], dtype=torch.float64)
    loss = clipped_policy_loss(log_prob, torch.zeros(1, dtype=torch.float64), a, 0.2)
    loss.backward()
    gone = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
    assert (log_prob.grad.item() == 0.0) == gone
    if not gone:
        assert log_prob.grad.item() == pytest.approx(-ratio * advantage)
    expected = min(ratio * advantage, float(np.clip(ratio, 0.8, 1.2)) * advantage)
    assert loss.item() == pytest.approx(-expected)


def test_at_ratio_1_the_gradient_is_that_of_reinforce():
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    actions = torch.tensor([0, 1, 2, 0, 1, 2])
    advantages = torch.randn(6, dtype=torch.float64)
    log_probs = torch.log_softmax(logits, -1).gather(1, actions[:, None]).squeeze(1)
    loss = clipped_policy_loss(log_probs, log_probs.detach(), advantages, 0.2)
    (clipped,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (plain,) = torch.autograd.grad(-(log_probs * advantages).mean(), logits)
    torch.testing.assert_close(clipped, plain)


def test_the_ratio_is_one_in_the_first_minibatch_of_every_update():
    result = ppo(SMALL, seed=0)
    assert len(result.log["first_ratio_error"]) == 4
    assert result.log["first_ratio_error"].max() < 1e-5


def test_gymnasium_resets_on_the_next_step_and_ignores_that_action():
    """Pins what `collect` and the reading of final observations stand on."""
    for make in (
        lambda: make_vector_env("CartPole-v1", 2),
        lambda: gym.make_vec("CartPole-v1", 2, "sync"),
    ):
        env = make()
        assert env.metadata["autoreset_mode"] == gym.vector.AutoresetMode.NEXT_STEP
        env.reset(seed=0)
        for _ in range(500):  # always push right: the pole falls soon
            final, reward, terminated, truncated, _ = env.step(np.array([1, 1]))
            if terminated[0]:
                break
        assert terminated[0] and not truncated[0] and reward[0] == 1.0
        assert abs(final[0, 2]) > 0.2095 or abs(final[0, 0]) > 2.4  # out of bounds: the final state
        fresh, reward, terminated, truncated, _ = env.step(np.array([1, 1]))
        assert reward[0] == 0.0 and not terminated[0] and not truncated[0]
        assert np.abs(fresh[0]).max() <= 0.05  # a start state, whatever the action was
        env.close()


def test_cartpole_is_truncated_not_terminated_after_500_steps():
    def balance(observation):  # a linear controller that holds the pole for ever
        return (observation @ np.array([0.1, 0.5, 3.0, 1.0]) > 0).astype(np.int64)

    env = make_vector_env("CartPole-v1", 3)
    observation, _ = env.reset(seed=0)
    for step in range(1, 501):
        observation, reward, terminated, truncated, _ = env.step(balance(observation))
        assert not terminated.any() and (reward == 1.0).all()
        assert truncated.all() == (step == 500)


def test_the_numpy_cartpole_moves_like_the_single_one():
    vector, single = make_vector_env("CartPole-v1", 1), gym.make("CartPole-v1").unwrapped
    observation, _ = vector.reset(seed=3)
    single.reset(seed=0)
    single.state = tuple(vector.unwrapped.state[:, 0])
    actions = np.random.default_rng(0).integers(2, size=15)
    for action in actions:
        a = vector.step(np.array([action]))
        b = single.step(int(action))
        np.testing.assert_allclose(a[0][0], b[0], atol=1e-6)
        assert a[2][0] == b[2]
        if b[2]:
            break


def test_the_reset_step_is_marked_and_only_it():
    env = make_vector_env("CartPole-v1", 4)
    observation, _ = env.reset(seed=0)
    agent = ActorCritic(4, 2)
    rollout = collect(env, agent, observation, np.zeros(4, bool), 120, np.random.default_rng(0))
    done = rollout.terminated | rollout.truncated
    assert done.sum() >= 8
    np.testing.assert_array_equal(rollout.valid[1:], ~done[:-1])
    assert rollout.valid[0].all()
    assert (rollout.rewards[~rollout.valid] == 0).all()
    assert np.abs(rollout.observations[1:][~rollout.valid]).max() <= 0.05
    # a valid step starts where the one before ended; a done step leads out of bounds
    assert (np.abs(rollout.observations[1:][done])[:, 2] > 0.2).all()


def test_nothing_is_learnt_from_the_reset_step(monkeypatch):
    """Rubbish written into those steps must change no weight of the network."""
    plain = ppo(SMALL, seed=0)
    honest = collect
    spoiled = 0

    def spoil(*args):
        nonlocal spoiled
        rollout = honest(*args)
        rollout.rewards[~rollout.valid] = 1e6
        rollout.actions[~rollout.valid] = 1 - rollout.actions[~rollout.valid]
        spoiled += int((~rollout.valid).sum())
        return rollout

    monkeypatch.setattr(ppo_module, "collect", spoil)
    other = ppo(SMALL, seed=0)
    assert spoiled > 3
    for a, b in zip(plain.agent.parameters(), other.agent.parameters(), strict=True):
        assert torch.equal(a, b)
    np.testing.assert_array_equal(plain.episode_returns, other.episode_returns)


def test_the_gumbel_trick_draws_from_the_policy():
    agent = ActorCritic(4, 3)
    with torch.no_grad():
        agent.actor[-1].bias.copy_(torch.log(torch.tensor([0.5, 0.3, 0.2])))
        agent.actor[-1].weight.zero_()
    draws = sample_actions(agent, np.zeros((20_000, 4), np.float32), np.random.default_rng(0))
    share = np.bincount(draws, minlength=3) / len(draws)
    np.testing.assert_allclose(share, [0.5, 0.3, 0.2], atol=0.015)


def test_the_same_seed_repeats_and_leaves_torch_randomness_alone():
    state = torch.get_rng_state()
    first, again, other = ppo(SMALL, seed=1), ppo(SMALL, seed=1), ppo(SMALL, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first.agent.parameters(), again.agent.parameters(), strict=True):
        assert torch.equal(a, b)
    np.testing.assert_array_equal(first.episode_returns, again.episode_returns)
    assert not np.array_equal(first.episode_returns, other.episode_returns)


def test_the_learning_rate_falls_to_zero_and_can_stay():
    config = dataclasses.replace(SMALL, learning_rate=1e-3)
    np.testing.assert_allclose(
        ppo(config, seed=0).log["learning_rate"], [1e-3, 7.5e-4, 5e-4, 2.5e-4]
    )
    fixed = ppo(dataclasses.replace(config, anneal=False), seed=0)
    assert (fixed.log["learning_rate"] == 1e-3).all()


def test_the_early_stop_looks_at_training_episodes_only(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("training looked at the evaluation")

    monkeypatch.setattr(ppo_module, "evaluate", forbidden)
    config = dataclasses.replace(SMALL, total_steps=50_000, stop_return=15.0, stop_window=5)
    result = ppo(config, seed=0)
    assert result.stopped_early and result.steps < 5_000
    assert result.episode_returns[-5:].mean() >= 15.0 or len(result.episode_returns) > 5


def test_other_environments_and_python_vector_envs_work():
    config = dataclasses.replace(SMALL, env_id="Acrobot-v1")
    result = ppo(config, seed=0)
    assert result.steps == 256
    assert np.isfinite(result.log["policy_loss"]).all()


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "Pendulum-v1"])
def test_unsuitable_environments_are_named(env_id):
    with pytest.raises(UnsupportedEnvironmentError, match=env_id):
        make_vector_env(env_id, 2)


@pytest.mark.parametrize("bad", [{"num_envs": 0}, {"discount": 1.2}, {"lam": -0.1}, {"clip": 0.0}])
def test_bad_settings_are_named(bad):
    with pytest.raises(InvalidHyperparameterError, match=next(iter(bad))):
        PPOConfig(**bad)


def test_ppo_solves_cartpole():
    """One seed of the chapter's five: at least 475 over 50 fresh episodes, sampled and greedy."""
    result = ppo(seed=4)
    assert result.stopped_early
    assert evaluate(result.agent, episodes=50, seed=100).mean() >= 475
    assert evaluate(result.agent, episodes=50, seed=101, greedy=True).mean() >= 475
    assert np.median(result.log["explained_variance"]) > 0
    assert 0 <= result.log["clip_fraction"].max() < 0.7
