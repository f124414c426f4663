"""Adding a constant to every reward: nothing for the best policy, much for a learner.

On a world that never ends, the shift c raises every value by c / (1 - gamma). A table that starts
at zero then starts c / (1 - gamma) *below* its new values if c > 0, and above them if c < 0. So a
shifted learner that starts at zero walks step by step like an unshifted one that starts at
-c / (1 - gamma): a negative shift is optimism, a positive one is caution. Where episodes end, this
holds only if the end is paid for, too.

Source: Sun et al. 2022 (2209.07288).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from irlbook.errors import InvalidHyperparameterError
from irlbook.mdp import TabularMDP

__all__ = ["ShiftedReward", "shifted", "value_shift"]


def value_shift(constant: float, discount: float) -> float:
    """c / (1 - gamma): what a shift of every reward adds to every value, eq 21.6.

    Raises:
        InvalidHyperparameterError: a discount outside [0, 1), or a constant that is not finite.
    """
    if not 0.0 <= discount < 1.0 or not np.isfinite(constant):
        raise InvalidHyperparameterError(
            f"constant={constant}, discount={discount}; need a finite constant and a discount in "
            "[0, 1), because at 1 the shift adds up without end."
        )
    return float(constant / (1.0 - discount))


def shifted(mdp: TabularMDP, constant: float, *, end_pays: bool = True) -> TabularMDP:
    """The same world with `constant` added to every reward.

    Args:
        end_pays: True: entering a terminal state also pays gamma c / (1 - gamma), as if c were
            paid there for ever. Then every policy's value rises by c / (1 - gamma). False: it pays
            nothing, and ending early or late may become worth while: the best policy can change.

    Raises:
        InvalidHyperparameterError: see `value_shift`.
    """
    extra = np.full(mdp.reward.shape, float(constant))
    if end_pays:
        ends = (mdp.transitions @ mdp.terminal.astype(float)).reshape(mdp.reward.shape)
        extra = extra + mdp.discount * value_shift(constant, mdp.discount) * ends
    return mdp.with_reward(np.where(mdp.terminal[:, None], 0.0, mdp.reward + extra))


class ShiftedReward(gym.Wrapper):
    """An environment with `constant` added to every reward; for `end_pays` see `shifted`."""

    def __init__(
        self, env: gym.Env, constant: float, discount: float, *, end_pays: bool = True
    ) -> None:
        super().__init__(env)
        self.constant = float(constant)
        self.at_end = discount * value_shift(constant, discount) if end_pays else 0.0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        following, reward, terminated, truncated, info = self.env.step(action)
        paid = float(reward) + self.constant + (self.at_end if terminated else 0.0)
        return following, paid, terminated, truncated, info
