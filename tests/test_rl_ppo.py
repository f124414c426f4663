"""PPO: the clip, the ratio, the ends of episodes, and CartPole."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

from irlbook.errors import InvalidHyperparameterError, UnsupportedEnvironmentError
from irlbook.rl import ppo as ppo_module
from irlbook.rl.advantages import gae
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


def test_the_two_networks_begin_orthogonal_with_a_policy_that_is_nearly_uniform():
    """Gains sqrt 2, sqrt 2, then 0.01 for the actor and 1 for the critic; biases 0."""
    agent = ActorCritic(4, 3)
    for network, last in ((agent.actor, 0.01), (agent.critic, 1.0)):
        layers = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
        assert [layer.weight.shape[0] for layer in layers[:2]] == [64, 64]
        for layer, gain in zip(layers, (2**0.5, 2**0.5, last), strict=True):
            w = layer.weight.detach()
            small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
            torch.testing.assert_close(small, gain**2 * torch.eye(len(small)), atol=1e-5, rtol=0)
            assert not layer.bias.any()
    observations = torch.randn(5, 4)
    assert agent.values(observations).shape == (5,)
    assert torch.allclose(
        agent.log_probs(observations), torch.tensor(-np.log(3.0)).float(), atol=0.05
    )


def begun(config, seed):
    """The agent and the rollout with which a run begins, and the generator after it."""
    env, rng = make_vector_env(config.env_id, config.num_envs), np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        agent = ActorCritic(4, 2, config.hidden)
    never = np.zeros(config.num_envs, dtype=bool)
    return agent, collect(env, agent, observation, never, config.num_steps, rng)


def test_one_update_by_hand():
    """One pass over one batch: what is written down, and the step that was taken."""
    config = PPOConfig(
        num_envs=4, num_steps=30, total_steps=120, epochs=1, minibatch=1000, hidden=16,
        entropy_weight=0.3, value_weight=0.7, max_grad_norm=0.05, clip=0.1, stop_return=None,
    )  # fmt: skip
    agent, batch = begun(config, seed=2)
    keep = torch.from_numpy(batch.valid)
    assert not keep.all()  # an episode ended
    everything = torch.from_numpy(batch.observations)
    with torch.no_grad():
        values = agent.values(everything).double().numpy()
    advantages = gae(
        batch.rewards, values[:-1], values[1:], batch.terminated, batch.truncated,
        discount=0.98, lam=0.9,
    )  # fmt: skip
    targets = (advantages + values[:-1])[batch.valid]
    a = torch.from_numpy(advantages[batch.valid]).float()
    a = (a - a.mean()) / a.std()
    obs, act = everything[:-1][keep], torch.from_numpy(batch.actions)[keep]
    log_probs = agent.log_probs(obs)
    chosen = log_probs.gather(1, act[:, None])[:, 0]
    value_loss = (agent.values(obs) - torch.from_numpy(targets).float()).square().mean()
    entropy = -(log_probs.exp() * log_probs).sum(dim=1).mean()
    # At ratio 1 the surrogate is minus the mean of the advantages, with the gradient of log pi.
    loss = -(chosen * a).mean() + 0.7 * value_loss - 0.3 * entropy
    adam = torch.optim.Adam(agent.parameters(), lr=2e-3, eps=1e-5)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(agent.parameters(), 0.05)
    adam.step()

    found = ppo(config, seed=2)
    for ours, theirs in zip(agent.parameters(), found.agent.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-3)
    log = {name: values.tolist() for name, values in found.log.items()}
    with torch.no_grad():
        change = agent.log_probs(obs).gather(1, act[:, None])[:, 0] - chosen
        ratio = change.exp()
        unnormalised = torch.from_numpy(advantages[batch.valid])
        cut = ((unnormalised > 0) & (ratio > 1.1)) | ((unnormalised < 0) & (ratio < 0.9))
    assert log["steps"] == [120] and log["learning_rate"] == [2e-3]
    assert log["policy_loss"] == pytest.approx([0.0], abs=1e-6)
    assert log["value_loss"] == pytest.approx([value_loss.item()], rel=1e-4)
    assert log["entropy"] == pytest.approx([entropy.item()], rel=1e-5)
    assert log["kl"] == pytest.approx([float((ratio - 1 - change).mean())], rel=0.02)
    assert log["clip_fraction"] == pytest.approx([float(cut.float().mean())], abs=0.01)
    left = (targets - values[:-1][batch.valid]).var() / targets.var()
    assert log["explained_variance"] == pytest.approx([1 - left], rel=1e-4)


def test_what_is_learnt_from_a_batch_ends_with_its_kl():
    """With a limit of nothing the first pass is the last; without a limit all passes are made."""
    runs = {}
    for name, epochs, limit in (("one", 1, None), ("all", 6, None), ("cut", 6, 1e-12)):
        config = dataclasses.replace(SMALL, total_steps=64, epochs=epochs, target_kl=limit)
        runs[name] = ppo(config, seed=0).log["kl"][0]
    assert runs["cut"] == runs["one"] != runs["all"]


def test_an_episode_ends_when_its_steps_are_done():
    """With one environment: each takes its return and one step to start anew (CartPole pays 1)."""
    config = PPOConfig(num_envs=1, num_steps=64, total_steps=400, epochs=1, stop_return=None)
    found = ppo(config, seed=0)
    assert found.steps == 448  # the first whole number of batches that is not below 400
    gaps = np.diff(found.episode_steps, prepend=-1)
    np.testing.assert_array_equal(gaps, found.episode_returns + 1)
    assert not found.stopped_early and len(found.episode_returns) > 5
    np.testing.assert_array_equal(found.log["steps"], 64 * np.arange(1, 8))


def test_training_stops_at_the_mean_of_its_window():
    """The run is the same up to where the last `stop_window` episodes average `stop_return`."""
    endless = ppo(dataclasses.replace(SMALL, total_steps=1024, stop_return=None), seed=0)
    ends, returns = endless.episode_steps, endless.episode_returns
    window = 4
    averages = {}  # after each batch of 64 steps
    for batch in range(1, 17):
        known = returns[ends <= 64 * batch]
        if len(known) >= window:
            averages[64 * batch] = known[-window:].mean()
    best = max(averages, key=averages.get)
    config = dataclasses.replace(
        SMALL, total_steps=1024, stop_window=window, stop_return=float(averages[best])
    )
    stopped = ppo(config, seed=0)
    assert stopped.stopped_early and stopped.steps == best
    assert len(stopped.log["steps"]) == best // 64 - 1  # nothing is learnt from the last batch
    over = dataclasses.replace(config, stop_return=config.stop_return + 1e-9)
    assert not ppo(over, seed=0).stopped_early


def test_evaluate_counts_to_the_end_of_each_first_episode():
    agent = ActorCritic(4, 2)
    with torch.no_grad():  # pushes left, nearly surely
        agent.actor[-1].bias.copy_(torch.tensor([30.0, 0.0]))
    for greedy in (True, False):
        returns = evaluate(agent, episodes=7, seed=0, greedy=greedy)
        assert returns.shape == (7,) and (8 <= returns).all() and (returns <= 11).all()
    fair = [evaluate(ActorCritic(4, 2), episodes=20, seed=s).mean() for s in (0, 0, 1)]
    assert 12 < fair[0] == fair[0] < 40 and fair[0] != fair[2]
    acrobot = evaluate(ActorCritic(6, 3), "Acrobot-v1", episodes=1, seed=0, greedy=True)
    assert acrobot.tolist() == [-500.0] or -500 < acrobot[0] < -50


def test_episodes_can_be_cut_short():
    env = make_vector_env("CartPole-v1", 2, 3)
    env.reset(seed=0)
    cut = [env.step(np.array([0, 1]))[3].tolist() for _ in range(3)]
    assert cut == [[False, False], [False, False], [True, True]]


COUNTS = ("num_envs", "num_steps", "total_steps", "epochs", "minibatch", "hidden")


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_may_be_1_and_not_0(name):
    PPOConfig(**{name: 1})
    with pytest.raises(InvalidHyperparameterError, match=f"{name} must be at least 1"):
        PPOConfig(**{name: 0})


@pytest.mark.parametrize("name", ["discount", "lam"])
def test_fractions_may_be_0_and_1_and_nothing_beyond(name):
    for good, bad in ((0.0, -1e-9), (1.0, 1 + 1e-9)):
        PPOConfig(**{name: good})
        with pytest.raises(InvalidHyperparameterError, match=rf"{name} must lie in"):
            PPOConfig(**{name: bad})


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "Pendulum-v1"])
def test_unsuitable_environments_are_named(env_id):
    with pytest.raises(UnsupportedEnvironmentError, match=env_id):
        make_vector_env(env_id, 2)


@pytest.mark.parametrize("bad", [{"clip": 0.0}, {"learning_rate": 0.0}])
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
