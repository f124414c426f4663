"""How long chance takes to find a reward, and what a bonus for the new does about it.

Hitting times are a linear solve. A bonus is added to the reward of an environment (`WithBonus`),
and any learner may then be used: `CountBonus` pays for pairs that were tried seldom,
`PredictionError` for what a model of the world did not foresee. A bonus is positive, so a table
that starts at zero thinks less of what was never tried than of what was: start it at the largest
sum of bonuses, scale / (1 - gamma), or subtract the scale from each (`irlbook.rl.reward_shifting`).

Sources: Strehl and Littman 2008 (the count bonus of MBIE-EB); Bellemare et al. 2016 (counts and
intrinsic motivation); Pathak et al. 2017 (curiosity as prediction error).
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from irlbook.envs.base import TabularEnv, World
from irlbook.errors import InvalidHyperparameterError
from irlbook.mdp import TabularMDP
from irlbook.planning import evaluate_policy

__all__ = [
    "Bonus",
    "CountBonus",
    "PredictionError",
    "WithBonus",
    "as_env",
    "hitting_times",
    "no_bonus",
    "prediction_error_floor",
    "reach_within",
]


def hitting_times(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """(S,) expected number of steps to a terminal state: h = 1 + P_pi h, 0 at the end, eq 21.1.

    Args:
        policy: (S, A).

    Raises:
        ImproperPolicyError: from some state the end is never reached.
    """
    one = np.repeat((~mdp.terminal)[:, None], mdp.n_actions, axis=1).astype(float)
    return evaluate_policy(mdp.with_discount(1.0).with_reward(one), policy)


def reach_within(mdp: TabularMDP, policy: np.ndarray, horizon: int) -> float:
    """The chance that an episode ends within `horizon` steps.

    Args:
        policy: (S, A).

    Raises:
        InvalidHyperparameterError: a horizon below 1.
    """
    ends = (mdp.transitions @ mdp.terminal.astype(float)).reshape(mdp.reward.shape)
    values = evaluate_policy(mdp.with_discount(1.0).with_reward(ends), policy, horizon)
    return float(mdp.start @ values[0])


def as_env(mdp: TabularMDP) -> TabularEnv:
    """A Gymnasium environment that plays a table; it pays the expected reward r(s, a)."""
    nothing = np.zeros(mdp.n_states)
    return TabularEnv(World(mdp.transitions, mdp.reward, nothing, mdp.start, mdp.terminal))


class Bonus(Protocol):
    """What is paid on top of the reward of a step. It may remember the steps that it was shown."""

    def __call__(self, state: int, action: int, next_state: int) -> float:
        """The bonus of a step, which is remembered afterwards."""


def no_bonus(state: int, action: int, next_state: int) -> float:
    """0: the reward as it is."""
    return 0.0


class CountBonus:
    """scale / sqrt(N(s, a)), with this visit counted: 1, 0.71, 0.58 ... times the scale, eq 21.2.

    Args:
        n_states, n_actions: sizes of the table. scale: in units of reward.
    """

    def __init__(self, n_states: int, n_actions: int, scale: float) -> None:
        self.visits = np.zeros((n_states, n_actions), dtype=np.int64)
        self.scale = _positive("scale", scale)

    def __call__(self, state: int, action: int, next_state: int) -> float:
        self.visits[state, action] += 1
        return float(self.scale / np.sqrt(self.visits[state, action]))


class PredictionError:
    """scale / 2 |onehot(s') - p(. | s, a)|^2, with p the shares of what followed before, eq 21.3.

    Before anything was seen p is uniform; `prior` says for how many visits that belief counts.

    Args:
        n_states, n_actions: sizes of the table. scale: in units of reward.

    Source: Pathak et al. 2017 (1705.05363), equation 6, with states as their own features.
    """

    def __init__(self, n_states: int, n_actions: int, scale: float, prior: float = 1.0) -> None:
        self.seen = np.full((n_states, n_actions, n_states), _positive("prior", prior) / n_states)
        self.scale = _positive("scale", scale)

    def __call__(self, state: int, action: int, next_state: int) -> float:
        counts = self.seen[state, action]
        error = -counts / counts.sum()
        error[next_state] += 1.0
        counts[next_state] += 1.0
        return float(self.scale / 2 * error @ error)


def prediction_error_floor(mdp: TabularMDP) -> np.ndarray:
    """(S, A) what the prediction error comes down to: (1 - sum_s' P(s'|s,a)^2) / 2, eq 21.4.

    It is the expected error of a model that knows P. It is 0 where moves are certain, and stays
    where they are not, however often they were seen. Terminal rows are 0.
    """
    moves = mdp.transitions
    squares = np.asarray(moves.multiply(moves).sum(axis=1)).reshape(mdp.reward.shape)
    return np.where(mdp.terminal[:, None], 0.0, (1.0 - squares) / 2)


class WithBonus(gym.Wrapper):
    """An environment whose reward is its own plus a bonus.

    Attributes:
        steps: made so far. first_reward: the step that paid the first own reward; None before.
    """

    def __init__(self, env: gym.Env, bonus: Bonus) -> None:
        super().__init__(env)
        self.bonus = bonus
        self.steps, self._state = 0, 0
        self.first_reward: int | None = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._state, info = self.env.reset(**options)
        return self._state, info

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        following, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        if reward and self.first_reward is None:
            self.first_reward = self.steps
        paid = float(reward) + self.bonus(self._state, action, following)
        self._state = following
        return following, paid, terminated, truncated, info


def _positive(name: str, value: float) -> float:
    if not (value > 0 and np.isfinite(value)):
        raise InvalidHyperparameterError(f"{name} is {value}; it must be positive and finite.")
    return float(value)
