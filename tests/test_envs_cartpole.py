"""CartPole of fixed horizon: its steps, its reward, its clock, alone and side by side."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import irlbook.envs  # noqa: F401  (registers)
from irlbook.envs.cartpole import FixedHorizonCartPole, upright

ID = "irlbook/FixedHorizonCartPole-v0"


def controller(observations):
    return (observations @ np.array([0.1, 0.3, 1.0, 0.6]) > 0).astype(int)


def returns(policy, **limits):
    env = gym.make_vec(ID, 20, "vector_entry_point", **limits)
    observation, _ = env.reset(seed=3)
    total, steps = np.zeros(20), 0
    while True:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        assert not terminated.any()
        total, steps = total + reward, steps + 1
        if truncated.any():
            assert truncated.all()
            return total, steps


def test_gymnasium_finds_no_fault(recwarn):
    check_env(FixedHorizonCartPole(), skip_render_check=True)


def test_every_episode_lasts_200_steps_and_a_fall_ends_nothing():
    env = gym.make(ID)
    env.reset(seed=0)
    ends = [env.step(1)[1:4] for _ in range(200)]
    assert not any(terminated for _, terminated, _ in ends)
    assert [truncated for *_, truncated in ends] == [False] * 199 + [True]
    rewards = [reward for reward, *_ in ends]
    assert rewards[0] == 1.0 and rewards[-1] == 0.0  # pushed to the right it falls, and stays down


@pytest.mark.parametrize("limit", [50, 200])
def test_a_good_controller_earns_every_step_and_a_constant_one_few(limit):
    good, steps = returns(controller, max_episode_steps=limit)
    assert steps == limit and (good == limit).all()
    poor, _ = returns(lambda o: np.ones(len(o), dtype=int), max_episode_steps=limit)
    assert poor.max() < 15


def test_until_the_pole_falls_it_is_cartpole():
    ours, theirs = gym.make(ID), gym.make("CartPole-v1")
    a, b = ours.reset(seed=5)[0], theirs.reset(seed=5)[0]
    rng = np.random.default_rng(0)
    terminated = False
    while not terminated:
        np.testing.assert_array_equal(a, b)
        action = int(rng.integers(2))
        a, reward, *_ = ours.step(action)
        b, _, terminated, _, _ = theirs.step(action)
        assert reward == float(not terminated)


def test_many_side_by_side_move_like_one():
    env = gym.make_vec(ID, 2, "vector_entry_point", max_episode_steps=40)
    observation, _ = env.reset(seed=1)
    one = FixedHorizonCartPole()
    one.reset()
    one.state = env.unwrapped.state[:, 1].copy()
    rng = np.random.default_rng(0)
    for t in range(40):
        actions = rng.integers(2, size=2)
        observation, reward, _, truncated, _ = env.step(actions)
        alone, earned, *_ = one.step(int(actions[1]))
        np.testing.assert_allclose(observation[1], alone, rtol=1e-5, atol=1e-6)
        assert reward[1] == earned and truncated.all() == (t == 39)
    observation, reward, _, truncated, _ = env.step(actions)  # this step only starts again
    assert (np.abs(observation) <= 0.05).all() and not reward.any() and not truncated.any()


def test_upright_is_within_the_track_and_twelve_degrees():
    states = np.zeros((5, 4))
    states[1:, 0] = [2.4, -2.5, 0.0, 0.0]
    states[3:, 2] = [0.21, 2 * np.pi]
    np.testing.assert_array_equal(upright(states), [True, True, False, False, False])
