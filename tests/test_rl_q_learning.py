"""Q-learning and SARSA against exact planning, and their ends of episodes."""

import gymnasium as gym
import numpy as np
import pytest

from irlbook.errors import InvalidHyperparameterError, UnsupportedEnvironmentError
from irlbook.mdp import TabularMDP
from irlbook.rl.q_learning import (
    TDConfig,
    constant,
    epsilon_greedy,
    linear,
    power_decay,
    q_learning,
    q_learning_target,
    sarsa,
    sarsa_target,
)


def optimal_q(mdp: TabularMDP, sweeps: int = 2000) -> np.ndarray:
    """Plain value iteration, independent of the library's planner."""
    q = np.zeros((mdp.n_states, mdp.n_actions))
    for _ in range(sweeps):
        values = np.where(mdp.terminal, 0.0, q.max(axis=1))
        q = mdp.reward + mdp.discount * (mdp.transitions @ values).reshape(q.shape)
    return q


class OneStep(gym.Env):
    """One state that is left after one step, with reward 1; or cut by the clock."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(1)

    def __init__(self, end):
        self.end = end

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 1, 1.0, self.end == "terminated", self.end == "truncated", {}


@pytest.mark.parametrize("learn", [q_learning, sarsa])
@pytest.mark.parametrize(("end", "expected"), [("terminated", 1.0), ("truncated", 1.0 + 0.9 * 7)])
def test_truncation_bootstraps_and_termination_does_not(learn, end, expected):
    config = TDConfig(episodes=1, discount=0.9, step_size=1.0, initial_q=7.0)
    result = learn(OneStep(end), config, seed=0)
    assert result.q[0, 0] == pytest.approx(expected)
    assert result.terminated[0] == (end == "terminated")
    assert result.q[1, 0] == 7.0  # never acted in


def test_targets_eq_2_3_and_eq_2_4():
    row = np.array([1.0, 5.0, 2.0])
    assert q_learning_target(1.0, row, False, 0.5) == 3.5
    assert sarsa_target(1.0, row, 2, False, 0.5) == 2.0
    assert q_learning_target(1.0, row, True, 0.5) == sarsa_target(1.0, row, 2, True, 0.5) == 1.0


def test_q_learning_finds_the_exact_values_of_a_deterministic_world():
    """Rewards and moves are certain, so a step size of 1 turns samples into value iteration."""
    env = gym.make("FrozenLake-v1", is_slippery=False)
    mdp = TabularMDP.from_gymnasium(env, discount=0.9)
    result = q_learning(
        env, TDConfig(episodes=3000, discount=0.9, step_size=1.0, epsilon=1.0), seed=0
    )
    np.testing.assert_allclose(result.q, optimal_q(mdp), atol=1e-9)


def test_q_learning_from_a_random_walk_approaches_the_exact_values_of_a_slippery_world():
    env = gym.make("FrozenLake-v1", map_name="4x4", is_slippery=True)
    mdp = TabularMDP.from_gymnasium(env, discount=0.9)
    exact = optimal_q(mdp)
    config = TDConfig(episodes=8000, discount=0.9, step_size=power_decay(0.8, 10), epsilon=1.0)
    result = q_learning(env, config, seed=0)
    error = np.abs(result.q - exact)
    assert error[result.visits > 2000].max() < 0.05
    assert (result.visits.sum(axis=1)[mdp.terminal] == 0).all()  # nothing is learnt at the end


def test_sarsa_learns_the_value_of_the_policy_that_acts():
    """With epsilon 1 that is the uniform policy: linear equations give its values."""
    env = gym.make("FrozenLake-v1", is_slippery=False)
    mdp = TabularMDP.from_gymnasium(env, discount=0.9)
    config = TDConfig(episodes=8000, discount=0.9, step_size=power_decay(0.8, 10), epsilon=1.0)
    result = sarsa(env, config, seed=0)
    q = np.zeros((mdp.n_states, mdp.n_actions))
    for _ in range(500):
        q = mdp.reward + 0.9 * (mdp.transitions @ q.mean(axis=1)).reshape(q.shape)
    assert np.abs(result.q - q)[result.visits > 500].max() < 0.03


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    env = gym.make("CliffWalking-v1")
    config = TDConfig(episodes=30)
    first, again, other = (sarsa(env, config, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.q, again.q)
    np.testing.assert_array_equal(first.returns, again.returns)
    assert not np.array_equal(first.returns, other.returns)


def test_returns_are_what_was_paid_and_max_steps_truncates():
    env = gym.make("CliffWalking-v1")
    result = q_learning(env, TDConfig(episodes=20, max_steps=7), seed=0)
    assert result.lengths.max() <= 7
    assert not result.terminated.any()
    falls = (-result.returns - result.lengths) / 99.0  # -100 where another step is -1
    np.testing.assert_allclose(falls, np.round(falls))
    assert (result.lengths == 7).all()  # nobody is at the goal so soon: the clock cuts each
    assert result.visits.sum() == result.lengths.sum()


def test_schedules():
    assert constant(0.3)(10) == 0.3
    assert [power_decay(1.0)(n) for n in (1, 2, 4)] == [1.0, 0.5, 0.25]
    assert power_decay()(0) == power_decay(0.5, scale=4)(1) == 1.0
    assert power_decay(0.5, scale=4)(6) == pytest.approx((4 / 9) ** 0.5)
    assert [linear(1.0, 0.0, 4)(n) for n in (0, 1, 4, 9)] == [1.0, 0.75, 0.0, 0.0]


@pytest.mark.parametrize("learn", [q_learning, sarsa])
def test_schedules_are_told_the_visits_of_the_pair_and_the_episode(learn):
    """Visits from 1, with this one; episodes from 0."""
    visits, episodes = [], []
    config = TDConfig(
        episodes=3,
        step_size=lambda n: visits.append(n) or 0.5,
        epsilon=lambda n: episodes.append(n) or 0.0,
        initial_q=-1.0,
    )
    found = learn(OneStep("terminated"), config, seed=0)
    assert visits == [1, 2, 3] and episodes == [0, 1, 2]
    assert found.q[:, 0].tolist() == [0.75, -1.0]  # its distance from 1 is halved each time
    assert found.visits[:, 0].tolist() == [3, 0]
    assert found.returns.tolist() == [1.0] * 3 and found.lengths.tolist() == [1] * 3
    assert found.terminated.all() and found.terminated.dtype == bool


def test_only_the_first_episode_is_seeded():
    seeds = []

    class Noted(OneStep):
        def reset(self, *, seed=None, options=None):
            seeds.append(seed)
            return super().reset(seed=seed, options=options)

    q_learning(Noted("terminated"), TDConfig(episodes=3), seed=7)
    assert seeds == [7, None, None]


def test_epsilon_greedy_breaks_ties_evenly_and_explores():
    rng = np.random.default_rng(0)
    row = np.array([1.0, 3.0, 3.0])
    greedy = np.bincount([epsilon_greedy(row, 0.0, rng) for _ in range(4000)], minlength=3)
    assert greedy[0] == 0 and abs(greedy[1] - 2000) < 150
    mixed = np.bincount([epsilon_greedy(row, 0.3, rng) for _ in range(4000)], minlength=3)
    assert abs(mixed[0] - 400) < 80


def test_the_ends_of_each_range_are_inside():
    TDConfig(episodes=1, discount=0.0, step_size=0.0, epsilon=0.0)
    TDConfig(discount=1.0, step_size=1.0, epsilon=1.0)
    for name in ("discount", "step_size", "epsilon"):
        for bad in (-1e-9, 1 + 1e-9):
            with pytest.raises(InvalidHyperparameterError, match=f"{name} is"):
                TDConfig(**{name: bad})


@pytest.mark.parametrize(
    "bad", [{"episodes": 0}, {"discount": 1.5}, {"step_size": -1.0}, {"epsilon": 2.0}]
)
def test_bad_settings_are_named(bad):
    with pytest.raises(InvalidHyperparameterError, match=next(iter(bad))):
        TDConfig(**bad)


def test_a_table_needs_discrete_spaces():
    with pytest.raises(UnsupportedEnvironmentError, match="observations"):
        q_learning(gym.make("CartPole-v1"), seed=0)
    shifted = OneStep("terminated")
    shifted.action_space = gym.spaces.Discrete(2, start=1)
    with pytest.raises(UnsupportedEnvironmentError, match="actions are"):
        sarsa(shifted, seed=0)
