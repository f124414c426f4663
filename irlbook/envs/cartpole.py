"""CartPole in which a fall ends nothing: every episode lasts the same number of steps.

Where an episode ends with the fall, its length says how well it went, and a reward that knows
nothing but pays for every step teaches to balance. Here it teaches nothing. So what an imitator
learns here it has learned from the demonstrations.

Source: `seals/CartPole-v0` of the suite seals (Gleave, Freire, Wang & Toyer 2020).
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv

__all__ = [
    "ANGLE_LIMIT",
    "FixedHorizonCartPole",
    "FixedHorizonCartPoleVector",
    "X_LIMIT",
    "upright",
]

X_LIMIT = 2.4  # metres from the middle
ANGLE_LIMIT = 12 * np.pi / 180  # radians from upright


def upright(observations: np.ndarray) -> np.ndarray:
    """Whether the cart is on its track and the pole within 12 degrees: the reward, as a bool.

    Args:
        observations (..., 4): position in m, velocity in m/s, angle in rad, angular velocity in
            rad/s. Turns are counted on: a pole that fell and went round once stands at 2 pi.

    Returns: (...,) bool.
    """
    observations = np.asarray(observations)
    return (abs(observations[..., 0]) <= X_LIMIT) & (abs(observations[..., 2]) <= ANGLE_LIMIT)


def _unbounded() -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape=(4,), dtype=np.float32)


class FixedHorizonCartPole(CartPoleEnv):
    """One CartPole that goes on after a fall; `gymnasium.make` sets the clock (200 steps).

    The reward of a step is 1 if it leads to a state that is `upright`, else 0.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.observation_space = _unbounded()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps_beyond_terminated = None  # it does not know that it fell, and does not warn
        observation, *_ = super().step(action)
        return observation, float(upright(observation)), False, False, {}


class FixedHorizonCartPoleVector(CartPoleVectorEnv):
    """Many of them side by side, in NumPy; resets on the step after the clock ran out."""

    def __init__(
        self, num_envs: int = 1, max_episode_steps: int = 200, render_mode: str | None = None
    ) -> None:
        super().__init__(num_envs, max_episode_steps, render_mode)
        self.single_observation_space = _unbounded()
        self.observation_space = spaces.Box(-np.inf, np.inf, (num_envs, 4), dtype=np.float32)

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        resets = self.prev_done
        observation, _, terminated, truncated, info = super().step(action)
        self.prev_done = truncated
        reward = np.where(resets, 0.0, upright(observation)).astype(np.float32)
        return observation, reward, np.zeros_like(terminated), truncated, info
