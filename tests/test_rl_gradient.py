"""The policy gradient on a world small enough to list every trajectory, and REINFORCE in torch."""

import numpy as np
import pytest
import torch

from irlbook.errors import InvalidHyperparameterError
from irlbook.mdp import TabularMDP
from irlbook.rl.ppo import ActorCritic, make_vector_env
from irlbook.rl.reinforce import ReinforceConfig, play_episodes, reinforce, reinforce_loss
from irlbook.rl.tabular_gradient import (
    enumerate_trajectories,
    estimator_moments,
    exact_policy_gradient,
    reinforce_estimate,
    score,
    softmax_policy,
    values_by_time,
)

HORIZON = 3


@pytest.fixture(params=[0.8, 1.0])
def world(request):
    """Two states and an exit, stochastic; its logits."""
    rng = np.random.default_rng(7)
    transitions = rng.dirichlet(np.ones(3), size=(3, 2))
    reward = rng.normal(size=(3, 2))
    reward[2] = 0.0
    mdp = TabularMDP.create(
        transitions, reward, start=[0.6, 0.4, 0.0], discount=request.param, terminal=[2]
    )
    return mdp, rng.normal(size=(3, 2))


def objective(mdp, logits):
    return float(mdp.start @ values_by_time(mdp, softmax_policy(logits), HORIZON)[1][0])


def test_trajectories_are_complete_and_give_the_objective(world):
    mdp, logits = world
    policy = softmax_policy(logits)
    total, value = 0.0, 0.0
    for p, states, actions in enumerate_trajectories(mdp, policy, HORIZON):
        assert len(states) == len(actions) + 1
        assert len(actions) == HORIZON or mdp.terminal[states[-1]]
        total += p
        rewards = mdp.reward[states[:-1], actions]
        value += p * (mdp.discount ** np.arange(len(actions)) @ rewards)
    assert total == pytest.approx(1.0, abs=1e-12)
    assert value == pytest.approx(objective(mdp, logits), abs=1e-12)


def test_policy_gradient_theorem_eq_2_7_equals_finite_differences(world):
    mdp, logits = world
    exact = exact_policy_gradient(mdp, softmax_policy(logits), HORIZON)
    for s in range(3):
        for a in range(2):
            up, down = logits.copy(), logits.copy()
            up[s, a] += 1e-5
            down[s, a] -= 1e-5
            slope = (objective(mdp, up) - objective(mdp, down)) / 2e-5
            assert exact[s, a] == pytest.approx(slope, abs=1e-8)


def test_score_eq_2_8_has_mean_zero_and_is_the_gradient_of_the_log_probability(world):
    _, logits = world
    policy = softmax_policy(logits)
    mean = sum(policy[0, a] * score(policy, 0, a) for a in range(2))
    np.testing.assert_allclose(mean, 0.0, atol=1e-15)
    t = torch.tensor(logits, requires_grad=True)
    torch.log_softmax(t, -1)[1, 0].backward()
    np.testing.assert_allclose(score(policy, 1, 0), t.grad.numpy(), atol=1e-12)


def test_reinforce_eq_2_9_is_unbiased_with_any_baseline_eq_2_10(world):
    mdp, logits = world
    policy = softmax_policy(logits)
    exact = exact_policy_gradient(mdp, policy, HORIZON)
    values = values_by_time(mdp, policy, HORIZON)[1]
    baselines = [None, np.full(3, 5.0), np.array([3.0, -4.0, 0.0]), values]
    for baseline in baselines:
        mean, variance = estimator_moments(mdp, policy, HORIZON, baseline=baseline)
        np.testing.assert_allclose(mean, exact, atol=1e-12)
        assert variance > 0
    whole, _ = estimator_moments(mdp, policy, HORIZON, to_go=False)
    np.testing.assert_allclose(whole, exact, atol=1e-12)


def test_one_trajectory_by_hand_with_each_kind_of_baseline():
    """Two steps in one state at discount 0.5: weights G_0 - b_0 and 0.5 (G_1 - b_1)."""
    mdp = TabularMDP.create(np.ones((1, 2, 1)), np.array([[1.0, 4.0]]), discount=0.5)
    policy, states, actions = np.array([[0.25, 0.75]]), np.array([0, 0, 0]), np.array([0, 1])
    up, down = np.array([0.75, -0.75]), np.array([-0.25, 0.25])  # the scores of the two actions
    for baseline, b in ((None, (0, 0)), ([2.0], (2, 2)), ([[2.0], [6.0], [9.0]], (2, 6))):
        got = reinforce_estimate(mdp, policy, states, actions, baseline=baseline)
        np.testing.assert_allclose(got, [(3 - b[0]) * up + 0.5 * (4 - b[1]) * down])
    whole = reinforce_estimate(mdp, policy, states, actions, to_go=False)
    np.testing.assert_allclose(whole, [3 * (up + down)])
    assert not reinforce_estimate(mdp, policy, np.array([0]), np.array([], dtype=int)).any()


def test_a_softmax_of_large_logits_is_one_of_their_differences():
    np.testing.assert_allclose(
        softmax_policy(np.array([[1000.0, 1000.0 + np.log(3)], [-5.0, -5.0]])),
        [[0.25, 0.75], [0.5, 0.5]],
    )


def test_as_many_trajectories_as_the_limit_are_listed():
    mdp = TabularMDP.create(np.ones((1, 2, 1)), np.zeros((1, 2)), discount=0.5)
    policy = np.full((1, 2), 0.5)
    assert len(list(enumerate_trajectories(mdp, policy, 3, limit=8))) == 8
    with pytest.raises(InvalidHyperparameterError, match="More than 7"):
        list(enumerate_trajectories(mdp, policy, 3, limit=7))
    sure = enumerate_trajectories(mdp, np.array([[1.0, 0.0]]), 3)  # only what can be
    assert [p for p, *_ in sure] == [1.0]


def test_the_value_as_baseline_lowers_the_variance_when_all_rewards_are_high():
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.ones(2), size=(2, 2))
    mdp = TabularMDP.create(transitions, 5.0 + rng.random((2, 2)), start=0, discount=0.9)
    policy = softmax_policy(rng.normal(size=(2, 2)))
    values = values_by_time(mdp, policy, HORIZON)[1]
    _, plain = estimator_moments(mdp, policy, HORIZON)
    _, whole = estimator_moments(mdp, policy, HORIZON, to_go=False)
    _, based = estimator_moments(mdp, policy, HORIZON, baseline=values)
    assert based < 0.2 * plain < plain < whole


def test_dropping_the_discount_factor_gives_another_direction(world):
    """What nearly all code does. Exact only at discount 1."""
    mdp, logits = world
    policy = softmax_policy(logits)
    mean = np.zeros_like(policy)
    for p, states, actions in enumerate_trajectories(mdp, policy, HORIZON):
        q, _ = values_by_time(mdp, policy, HORIZON)
        for t, (s, a) in enumerate(zip(states[:-1], actions, strict=True)):
            mean += p * q[t, s, a] * score(policy, s, a)
    gap = np.abs(mean - exact_policy_gradient(mdp, policy, HORIZON)).max()
    assert (gap < 1e-12) == (mdp.discount == 1.0)


def test_listing_too_many_trajectories_is_refused():
    mdp = TabularMDP.create(np.full((4, 4, 4), 0.25), np.zeros((4, 4)), start=0)
    with pytest.raises(InvalidHyperparameterError, match="trajectories"):
        list(enumerate_trajectories(mdp, np.full((4, 4), 0.25), 8, limit=100))


def test_reinforce_loss_has_the_estimate_as_its_gradient():
    log_probs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    reinforce_loss(log_probs, torch.tensor([4.0, 0.0, -2.0]), episodes=2).backward()
    assert log_probs.grad.tolist() == [-2.0, 0.0, 1.0]


def test_play_episodes_stops_each_environment_at_its_own_end():
    env = make_vector_env("CartPole-v1", 5)
    obs, actions, rewards, playing = play_episodes(
        env, ActorCritic(4, 2), 0, np.random.default_rng(0)
    )
    assert obs.shape == (*rewards.shape, 4) and actions.shape == playing.shape == rewards.shape
    np.testing.assert_array_equal(rewards, playing.astype(float))  # CartPole pays 1 a step
    assert (np.diff(playing.astype(int), axis=0) <= 0).all()  # once over, over
    assert playing[-1].any()


def first_batch(config, seed):
    """The agent and the episodes with which a run begins."""
    env = make_vector_env("CartPole-v1", config.episodes_per_update, config.max_episode_steps)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        agent = ActorCritic(4, 2, config.hidden)
    return agent, play_episodes(env, agent, seed, np.random.default_rng(seed))


@pytest.mark.parametrize("baseline", [True, False])
def test_the_first_update_of_reinforce_by_hand(baseline):
    """Its gradient is the mean over episodes of the sum of score times return to go, less V."""
    config = ReinforceConfig(
        updates=1, episodes_per_update=3, discount=0.9, baseline=baseline, hidden=8,
        max_episode_steps=12, value_steps=1, learning_rate=0.25,
    )  # fmt: skip
    agent, (seen, taken, paid, playing) = first_batch(config, seed=5)
    total = 0.0
    for i in range(3):
        length = int(playing[:, i].sum())
        assert length <= 12
        for t in range(length):
            to_go = sum(0.9 ** (k - t) * paid[k, i] for k in range(t, length))
            obs = torch.from_numpy(seen[t, i])
            with torch.no_grad():
                weight = to_go - (float(agent.values(obs[None])) if baseline else 0.0)
            total = total - agent.log_probs(obs[None])[0, taken[t, i]] * weight / 3
    slopes = torch.autograd.grad(total, list(agent.actor.parameters()))
    found = reinforce(config, seed=5)
    norm = sum(float(slope.square().sum()) for slope in slopes) ** 0.5
    assert found.gradient_norms.tolist() == pytest.approx([norm], rel=1e-4)
    assert found.mean_returns.tolist() == [playing.sum() / 3] and found.steps == playing.sum()
    np.testing.assert_array_equal(found.episodes[0], playing.sum(axis=0))
    # The first step of Adam is as long as its rate, against the slope; the critic learns if asked.
    for slope, before, after in zip(
        slopes, agent.actor.parameters(), found.agent.actor.parameters(), strict=True
    ):
        clear = slope.abs() > 1e-3
        moved = (after - before).detach()[clear]
        assert torch.allclose(moved, -0.25 * slope[clear].sign(), atol=1e-3)
    learnt = [
        float((a - b).detach().abs().max())
        for a, b in zip(found.agent.critic.parameters(), agent.critic.parameters(), strict=True)
    ]
    assert max(learnt) == (pytest.approx(0.25, abs=1e-3) if baseline else 0.0)


def test_the_critic_takes_its_steps_on_batches_of_its_size(monkeypatch):
    steps, sizes = [], []

    class Noted(torch.optim.Adam):
        def step(self, *args, **kwargs):
            steps.append(len(self.param_groups[0]["params"]))
            return super().step(*args, **kwargs)

    values = ActorCritic.values
    monkeypatch.setattr(torch.optim, "Adam", Noted)
    monkeypatch.setattr(
        ActorCritic, "values", lambda self, x: sizes.append(len(x)) or values(self, x)
    )
    config = ReinforceConfig(
        updates=2, episodes_per_update=2, max_episode_steps=5, value_steps=3, value_batch=7
    )
    reinforce(config, seed=0)
    assert len(steps) == 2 * (1 + 3)
    assert sizes == [10, 7, 7, 7] * 2  # the baseline of the batch, then the critic's own


def test_a_run_of_reinforce_leaves_the_global_stream_of_torch_alone():
    state = torch.random.get_rng_state()
    reinforce(ReinforceConfig(updates=1, episodes_per_update=1, max_episode_steps=2), seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("baseline", [True, False])
def test_reinforce_improves_and_repeats(baseline):
    config = ReinforceConfig(
        updates=12, episodes_per_update=8, learning_rate=1e-2, baseline=baseline
    )
    first, again = reinforce(config, seed=1), reinforce(config, seed=1)
    np.testing.assert_array_equal(first.mean_returns, again.mean_returns)
    assert first.mean_returns[-3:].mean() > 1.5 * first.mean_returns[:3].mean()
    assert first.steps == sum(r.sum() for r in first.episodes)


def test_bad_settings_are_named():
    with pytest.raises(InvalidHyperparameterError, match="updates"):
        ReinforceConfig(updates=0)
    ReinforceConfig(updates=1, episodes_per_update=1)  # the least that there can be
    with pytest.raises(InvalidHyperparameterError, match="episodes_per_update"):
        ReinforceConfig(episodes_per_update=0)
    for good, bad in ((0.0, -1e-9), (1.0, 1 + 1e-9)):
        ReinforceConfig(discount=good)
        with pytest.raises(InvalidHyperparameterError, match="discount is"):
            ReinforceConfig(discount=bad)
