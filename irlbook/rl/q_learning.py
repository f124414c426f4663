"""Tabular control by temporal differences: Q-learning and SARSA on Gymnasium environments.

Both walk through the world, and after each step move one number, Q(s, a), towards a target that
uses the next state's row of the same table. They differ in one word of that target: Q-learning
takes the best next action, SARSA the next action that it will really take.

Source: Watkins 1989; Rummery and Niranjan 1994; Sutton and Barto 2018, sections 6.4 and 6.5.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from irlbook.errors import InvalidHyperparameterError, UnsupportedEnvironmentError

__all__ = [
    "Schedule",
    "TDConfig",
    "TDResult",
    "constant",
    "epsilon_greedy",
    "linear",
    "power_decay",
    "q_learning",
    "q_learning_target",
    "sarsa",
    "sarsa_target",
]

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """The same value for ever."""
    return lambda count: value


def power_decay(power: float = 1.0, scale: float = 1.0) -> Schedule:
    """(scale / (scale + count - 1)) ** power for count = 1, 2, ...: 1 first, then falling.

    As a step size of the visit count it meets the conditions of convergence (sum infinite, sum of
    squares finite) for 1/2 < power <= 1.
    """
    return lambda count: (scale / (scale + max(count, 1) - 1.0)) ** power


def linear(start: float, end: float, duration: int) -> Schedule:
    """From `start` at count 0 down (or up) to `end` at count `duration`, then `end`."""
    return lambda count: start + (end - start) * min(count / duration, 1.0)


@dataclass(frozen=True)
class TDConfig:
    """Hyper-parameters of Q-learning and SARSA."""

    episodes: int = 500  # how many to walk
    discount: float = 1.0  # gamma
    step_size: float | Schedule = 0.5  # alpha; a schedule is given the visits of (s, a), from 1
    epsilon: float | Schedule = 0.1  # share of random actions; a schedule is given the episode
    initial_q: float = 0.0  # what every pair is thought worth before it is tried
    max_steps: int | None = None  # cut episodes after so many steps, on top of the env's own limit

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise InvalidHyperparameterError(f"episodes is {self.episodes}; it must be at least 1.")
        if not 0.0 <= self.discount <= 1.0:
            raise InvalidHyperparameterError(f"discount is {self.discount}; it must lie in [0, 1].")
        for name in ("step_size", "epsilon"):
            value = getattr(self, name)
            if not callable(value) and not 0.0 <= value <= 1.0:
                raise InvalidHyperparameterError(f"{name} is {value}; it must lie in [0, 1].")


@dataclass(frozen=True)
class TDResult:
    """The learned table and what each episode earned while learning."""

    q: np.ndarray  # (S, A)
    visits: np.ndarray  # (S, A) int, how often each pair was updated
    returns: np.ndarray  # (episodes,) undiscounted sums of rewards, exploration included
    lengths: np.ndarray  # (episodes,) int, steps
    terminated: np.ndarray  # (episodes,) bool; False: the clock cut the episode


def q_learning_target(
    reward: float, next_q: np.ndarray, terminated: bool, discount: float
) -> float:
    """r + discount * max_a' Q(s', a'), or r alone when the world ended (chapter 2, eq 2.3).

    Args:
        next_q: (A,) row of the table at the next state.
    """
    return reward if terminated else reward + discount * float(np.max(next_q))


def sarsa_target(
    reward: float, next_q: np.ndarray, next_action: int, terminated: bool, discount: float
) -> float:
    """r + discount * Q(s', a'), a' the action taken next; r alone at the end (eq 2.4).

    Args:
        next_q: (A,) row of the table at the next state.
    """
    return reward if terminated else reward + discount * float(next_q[next_action])


def epsilon_greedy(q_row: np.ndarray, epsilon: float, rng: np.random.Generator) -> int:
    """A random action with probability epsilon, else one of the best (ties drawn evenly).

    Args:
        q_row: (A,) values of the actions of one state.
    """
    if rng.random() < epsilon:
        return int(rng.integers(len(q_row)))
    best = np.flatnonzero(q_row == q_row.max())
    return int(best[0] if len(best) == 1 else best[rng.integers(len(best))])


def q_learning(env: gym.Env, config: TDConfig | None = None, *, seed: int) -> TDResult:
    """Learn Q* while following an epsilon-greedy policy (off-policy).

    Q(s,a) <- Q(s,a) + alpha * [r + discount * (1 - terminated) * max_a' Q(s',a') - Q(s,a)].

    A truncated episode is over, but its last update still bootstraps: the world did not end there.

    Args:
        env: a Gymnasium environment with discrete observations and actions.
        config: hyper-parameters; None takes the defaults.
        seed: of the environment and of the exploration.

    Returns:
        A TDResult.

    Raises:
        UnsupportedEnvironmentError: a space is not Discrete starting at 0.
    """
    return _temporal_difference_control(env, config or TDConfig(), seed, on_policy=False)


def sarsa(env: gym.Env, config: TDConfig | None = None, *, seed: int) -> TDResult:
    """Learn the value of the epsilon-greedy policy itself, exploration and all (on-policy).

    Q(s,a) <- Q(s,a) + alpha * [r + discount * (1 - terminated) * Q(s',a') - Q(s,a)].

    Args, returns, raises: as `q_learning`.
    """
    return _temporal_difference_control(env, config or TDConfig(), seed, on_policy=True)


def _temporal_difference_control(
    env: gym.Env, config: TDConfig, seed: int, *, on_policy: bool
) -> TDResult:
    n_states, n_actions = _sizes(env)
    step_size, epsilon = _as_schedule(config.step_size), _as_schedule(config.epsilon)
    rng = np.random.default_rng(seed)
    q = np.full((n_states, n_actions), config.initial_q, dtype=np.float64)
    visits = np.zeros((n_states, n_actions), dtype=np.int64)
    returns = np.zeros(config.episodes)
    lengths = np.zeros(config.episodes, dtype=np.int64)
    ended = np.zeros(config.episodes, dtype=bool)

    for episode in range(config.episodes):
        explore = epsilon(episode)
        state, _ = env.reset(seed=seed if episode == 0 else None)
        action = epsilon_greedy(q[state], explore, rng)
        over = False
        while not over:
            next_state, reward, terminated, truncated, _ = env.step(action)
            reward = float(reward)
            returns[episode] += reward
            lengths[episode] += 1
            truncated = truncated or lengths[episode] == config.max_steps
            over = terminated or truncated

            visits[state, action] += 1
            alpha = step_size(int(visits[state, action]))
            if on_policy:  # choose the next action first: the target needs it
                next_action = epsilon_greedy(q[next_state], explore, rng)
                target = sarsa_target(
                    reward, q[next_state], next_action, terminated, config.discount
                )
                q[state, action] += alpha * (target - q[state, action])
            else:  # learn first, then choose with the new table
                target = q_learning_target(reward, q[next_state], terminated, config.discount)
                q[state, action] += alpha * (target - q[state, action])
                next_action = epsilon_greedy(q[next_state], explore, rng)
            state, action = next_state, next_action
        ended[episode] = terminated
    return TDResult(q, visits, returns, lengths, ended)


def _as_schedule(value: float | Schedule) -> Schedule:
    return value if callable(value) else constant(float(value))


def _sizes(env: gym.Env) -> tuple[int, int]:
    sizes = []
    for what, space in (("observations", env.observation_space), ("actions", env.action_space)):
        if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
            raise UnsupportedEnvironmentError(
                f"The {what} are {space}; a table needs Discrete, counted from 0. "
                "For other spaces use irlbook.rl.ppo."
            )
        sizes.append(int(space.n))
    return sizes[0], sizes[1]
