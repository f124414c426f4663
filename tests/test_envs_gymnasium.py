"""Every environment keeps Gymnasium's rules and plays the very MDP that it gives."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy import stats

from irlbook import envs
from irlbook.envs.base import TabularEnv
from irlbook.errors import EpisodeOverError, InvalidActionError, InvalidEnvironmentError
from irlbook.mdp import TabularMDP

VARIANTS = [(name, {}) for name in envs.IDS] + [
    (
        "irlbook/GridWorld-v0",
        dict(
            height=3,
            width=4,
            walls=[(1, 1)],
            goals={(0, 3): 1.0, (1, 3): -1.0},
            slip=0.2,
            stay=False,
            step_reward=-0.04,
            start=(2, 0),
        ),
    ),
    ("irlbook/GridWorld-v0", dict(height=2, width=3, slip=0.5, terminal_goals=False)),
    (
        "irlbook/GridWorld-v0",
        dict(height=2, width=2, walls=np.array([[0, 1], [0, 0]], bool), state_reward=np.arange(4)),
    ),
    ("irlbook/ObjectWorld-v0", dict(size=4, n_objects=3, n_colours=3, continuous=True)),
    ("irlbook/BinaryWorld-v0", dict(size=4, slip=0.0)),
    ("irlbook/Garnet-v0", dict(n_states=4, n_actions=2, branching=3, world_seed=5)),
    ("irlbook/Chain-v0", dict(n_states=4, slip=0.2, terminal=False)),
    ("irlbook/BitFlip-v0", dict(n_bits=2, multi_goal=True)),
]
SMALL = VARIANTS[len(envs.IDS) :]


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
def test_check_env_without_a_warning(name, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(name, disable_env_checker=True, **arguments)
        check_env(env.unwrapped)  # every render mode too
        env.close()


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
def test_the_table_reads_back_as_the_same_mdp(name, arguments):
    env = gymnasium.make(name, **arguments)
    own, read = env.unwrapped.mdp(0.9), TabularMDP.from_gymnasium(env, discount=0.9)
    assert own.discount == read.discount == 0.9
    assert abs(own.transitions - read.transitions).max() == 0
    np.testing.assert_allclose(read.reward, own.reward, atol=1e-12)
    np.testing.assert_allclose(read.start, own.start, atol=1e-15)
    np.testing.assert_array_equal(read.terminal, own.terminal)
    assert env.unwrapped.mdp().discount == 0.99


def play(env, n, seed):
    """n tries of every action in every living state: counts (S*A, S) and mean rewards (S, A)."""
    mdp = env.mdp()
    counts = np.zeros((mdp.n_states * mdp.n_actions, mdp.n_states))
    rewards = np.zeros(mdp.reward.shape)
    env.reset(seed=seed)
    for s in np.flatnonzero(~mdp.terminal):
        for a in range(mdp.n_actions):
            for _ in range(n):
                env.state = int(s)
                successor, reward, terminated, truncated, _ = env.step(a)
                assert terminated == mdp.terminal[successor] and not truncated
                counts[s * mdp.n_actions + a, successor] += 1
                rewards[s, a] += reward / n
    return counts, rewards


def chi_square(counts, mdp):
    """p-value of the counts under the transition rows; 0 where something impossible happened."""
    expected = mdp.transitions.toarray() * counts.sum(axis=1, keepdims=True)
    if counts[expected == 0].any():
        return 0.0
    possible = expected > 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - (counts.sum(axis=1) > 0).sum()
    return stats.chi2.sf(statistic, freedom) if freedom else 1.0


@pytest.mark.parametrize(("name", "arguments"), SMALL)
def test_what_is_played_is_what_is_planned_with(name, arguments):
    env = gymnasium.make(name, **arguments).unwrapped
    counts, rewards = play(env, n=300, seed=7)
    assert chi_square(counts, env.mdp()) > 1e-3
    # a mean of 300 rewards whose spread is at most 2
    np.testing.assert_allclose(rewards, env.mdp().reward, atol=6 * 2 / np.sqrt(300))


def test_the_chi_square_test_would_notice_another_slip():
    env = gymnasium.make("irlbook/Chain-v0", n_states=4, slip=0.2).unwrapped
    counts, _ = play(env, n=300, seed=7)
    assert chi_square(counts, env.mdp()) > 1e-3
    assert chi_square(counts, envs.chain(4, slip=0.3)) < 1e-6


def test_starts_follow_the_start_distribution():
    env = gymnasium.make("irlbook/GridWorld-v0", height=2, width=3, walls=[(0, 1)]).unwrapped
    env.reset(seed=11)
    counts = np.bincount([env.reset()[0] for _ in range(2000)], minlength=6)
    support = env.initial_state_distrib > 0
    assert support.tolist() == [True, False, True, True, True, False]
    assert counts[~support].sum() == 0
    assert stats.chisquare(counts[support]).pvalue > 1e-3


@pytest.mark.parametrize("name", envs.IDS)
def test_one_seed_one_episode(name):
    def episode(seed):
        env = gymnasium.make(name)
        seen = [env.reset(seed=seed)[0]]
        env.action_space.seed(seed)
        for _ in range(50):
            step = env.step(env.action_space.sample())
            seen.append(step[:4])
            if step[2] or step[3]:
                break
        return seen

    assert episode(5) == episode(5)


@pytest.mark.parametrize("name", ["ObjectWorld", "BinaryWorld", "Garnet"])
def test_the_world_seed_lays_out_the_world(name):
    def reward(seed):
        return gymnasium.make(f"irlbook/{name}-v0", world_seed=seed).unwrapped.mdp().reward

    assert np.array_equal(reward(1), reward(1)) and not np.array_equal(reward(1), reward(2))


def test_environment_and_builder_draw_the_same_world():
    def mdp(name, **arguments):
        return gymnasium.make(f"irlbook/{name}-v0", **arguments).unwrapped.mdp()

    def rng():
        return np.random.default_rng(3)

    for env, built in [
        (mdp("ObjectWorld", size=5, n_objects=4, world_seed=3), envs.objectworld(5, 4, rng=rng())),
        (mdp("BinaryWorld", size=5, world_seed=3), envs.binaryworld(5, rng=rng())),
    ]:
        assert abs(env.transitions - built.mdp.transitions).max() == 0
        np.testing.assert_array_equal(env.reward, built.mdp.reward)
    env, built = mdp("Garnet", world_seed=3), envs.garnet(10, 3, 2, rng())
    assert abs(env.transitions - built.transitions).max() == 0
    np.testing.assert_array_equal(env.reward, built.reward)
    np.testing.assert_array_equal(mdp("Chain").reward, envs.chain(10).reward)
    np.testing.assert_array_equal(mdp("BitFlip").reward, envs.bit_flip(6).reward)


# ---------------------------------------------------------------- misuse


def test_stepping_before_reset_or_after_the_end():
    env = gymnasium.make("irlbook/Chain-v0", n_states=2).unwrapped
    with pytest.raises(EpisodeOverError, match="Call reset"):
        env.step(1)
    env.reset(seed=0)
    assert env.step(1)[:3] == (1, 1.0, True)
    with pytest.raises(EpisodeOverError, match="Call reset"):
        env.step(1)
    env.reset()
    assert env.step(0)[:3] == (0, 0.0, False)


@pytest.mark.parametrize("action", [2, -1, 0.5, "right", None])
def test_unknown_action(action):
    env = gymnasium.make("irlbook/Chain-v0").unwrapped
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match="whole number from 0 to 1"):
        env.step(action)


def test_time_limit_is_around_the_environment_and_not_in_it():
    env = gymnasium.make("irlbook/BinaryWorld-v0", max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]


def test_vector_environments_work():
    many = gymnasium.make_vec("irlbook/Chain-v0", num_envs=3, vectorization_mode="sync")
    states, _ = many.reset(seed=0)
    assert states.tolist() == [0, 0, 0]
    assert many.step(np.array([0, 1, 1]))[0].tolist() == [0, 1, 1]


# ---------------------------------------------------------------- rendering


@pytest.mark.parametrize("name", envs.IDS)
def test_pictures_show_where_the_agent_is(name):
    env = gymnasium.make(name, render_mode="rgb_array").unwrapped
    before = env.render()  # even before the first reset
    env.reset(seed=0)
    frames = []
    for state in (1, 2):
        env.state = state
        frames.append(env.render())
    assert before.shape == frames[0].shape == frames[1].shape
    assert frames[0].dtype == np.uint8 and frames[0].shape[2] == 3
    assert (frames[0] != frames[1]).any()
    env.state = 1
    np.testing.assert_array_equal(env.render(), frames[0])
    assert frames[0].flags.writeable and not np.shares_memory(frames[0], env.render())


def test_big_pictures_stay_small():
    env = gymnasium.make("irlbook/GridWorld-v0", height=60, width=90, render_mode="rgb_array")
    env.reset(seed=0)
    assert max(env.render().shape) <= 640
    garnet = gymnasium.make("irlbook/Garnet-v0", n_states=50, render_mode="rgb_array")
    garnet.reset(seed=0)
    assert garnet.render().shape == (320, 320, 3)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        (
            "GridWorld",
            dict(height=2, width=3, walls=[(0, 1)], start=(1, 0)),
            ".#.\n@.G\n",
        ),
        ("Chain", dict(n_states=4), "@..G\n"),
        ("BitFlip", dict(n_bits=3, goal=6), "bits {}\ngoal 011\n"),
        ("Garnet", dict(), "state {} of 10\n"),
    ],
)
def test_text(name, arguments, text):
    env = gymnasium.make(f"irlbook/{name}-v0", render_mode="ansi", **arguments)
    state, _ = env.reset(seed=0)
    shown = "".join(map(str, envs.bits(state, 3))) if name == "BitFlip" else state
    assert env.render() == text.format(shown)


def test_text_of_the_coloured_worlds():
    env = gymnasium.make("irlbook/BinaryWorld-v0", size=3, render_mode="ansi").unwrapped
    assert env.render().replace("\n", "") == "".join("rb"[int(b)] for b in env.blue.ravel())
    env = gymnasium.make(
        "irlbook/ObjectWorld-v0", size=3, n_objects=1, render_mode="ansi"
    ).unwrapped
    flat = env.render().replace("\n", "")
    assert flat[env.positions[0]] == str(env.outer[0]) and flat.count(".") == 8
    env.reset(seed=1)
    assert env.render().count("@") == 1
    assert env.coordinates(5) == (1, 2)


def test_no_render_mode_and_a_wrong_one():
    env = gymnasium.make("irlbook/Chain-v0").unwrapped
    with pytest.warns(UserWarning, match="render_mode="):
        assert env.render() is None
    with pytest.raises(InvalidEnvironmentError, match="'ansi' or 'rgb_array'"):
        envs.TabularEnv(env.world, render_mode="human")
    bare = TabularEnv(env.world, render_mode="rgb_array")
    with pytest.raises(NotImplementedError):
        bare.render()


def test_importing_is_light_and_registers():
    code = (
        "import sys, gymnasium, irlbook.envs as e\n"
        "assert all(i in gymnasium.registry for i in e.IDS)\n"
        "gymnasium.make(e.IDS[0]).reset(seed=0)\n"
        "heavy = {'torch', 'matplotlib', 'pygame'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
