"""Turning rewards into the weights of a policy gradient: returns to go, and GAE.

Plain NumPy, no torch: the same functions serve a gridworld and a language model.
All arrays have time on the first axis; any further axes (environments) are carried along.

Two ends of an episode are kept apart everywhere:

* `terminated`: the world ended (the pole fell). Nothing comes after, so the value after it is 0.
* `truncated`: the clock ran out. The world would have gone on, so the value after it is the value
  of the final observation.
"""

import numpy as np

from irlbook.errors import InvalidHyperparameterError, ShapeError

__all__ = ["gae", "returns_to_go", "td_errors"]


def returns_to_go(rewards: np.ndarray, discount: float) -> np.ndarray:
    """Discounted sum of the rewards from each step on, within one episode.

    G_t = r_t + discount * G_{t+1}, and nothing after the last step (chapter 2, eq 2.9).

    Args:
        rewards: (T,) or (T, ...) rewards of one episode.
        discount: in [0, 1].

    Returns:
        (T, ...) float64 array: G_t for every t.

    Raises:
        InvalidHyperparameterError: the discount is outside [0, 1].
    """
    _check_fraction("discount", discount)
    rewards = np.asarray(rewards, dtype=np.float64)
    returns = np.empty_like(rewards)
    running = np.zeros(rewards.shape[1:])
    for t in range(len(rewards) - 1, -1, -1):
        running = rewards[t] + discount * running
        returns[t] = running
    return returns


def td_errors(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    discount: float,
) -> np.ndarray:
    """One-step surprises: delta_t = r_t + discount * (1 - terminated_t) * V(s_{t+1}) - V(s_t).

    Args:
        rewards: (T, ...) r_t.
        values: (T, ...) V of the observation that action t was taken in.
        next_values: (T, ...) V of the observation that action t led to. On the last step of an
            episode this is the final observation, never the first one of the next episode.
        terminated: (T, ...) bool, the world ended at step t.
        discount: in [0, 1].

    Returns:
        (T, ...) delta (chapter 2, eq 2.13).
    """
    going_on = 1.0 - np.asarray(terminated, dtype=np.float64)
    return rewards + discount * going_on * next_values - values


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    *,
    discount: float,
    lam: float,
) -> np.ndarray:
    """Generalised advantage estimation over a batch that may hold several episodes.

    A_t = delta_t + discount * lam * (1 - terminated_t) * (1 - truncated_t) * A_{t+1},
    with delta_t from `td_errors`. lam = 0 is the one-step TD error (low variance, biased when V is
    wrong); lam = 1 is "return to go minus V" (unbiased, high variance).

    Args:
        rewards, values, next_values, terminated: see `td_errors`; (T, ...).
        truncated: (T, ...) bool, the clock ran out at step t. The value of the final observation
            still counts (it is in delta_t), but no later delta may leak over the border.
        discount: in [0, 1].
        lam: in [0, 1].

    Returns:
        (T, ...) advantages. Add `values` for the targets of the critic.

    Raises:
        ShapeError: the five arrays differ in shape.
        InvalidHyperparameterError: discount or lam is outside [0, 1].

    Source: Schulman et al. 2016 (arXiv 1506.02438), eq 16; chapter 2, eq 2.14.
    """
    _check_fraction("discount", discount)
    _check_fraction("lam", lam)
    rewards = np.asarray(rewards, dtype=np.float64)
    for name, array in (
        ("values", values),
        ("next_values", next_values),
        ("terminated", terminated),
        ("truncated", truncated),
    ):
        if np.shape(array) != rewards.shape:
            raise ShapeError(
                f"{name} has shape {np.shape(array)}, rewards {rewards.shape}. "
                "gae wants one entry per step in every array; next_values[t] is the value of the "
                "observation that step t led to."
            )
    delta = td_errors(rewards, values, next_values, terminated, discount)
    carry_on = 1.0 - (np.asarray(terminated, bool) | np.asarray(truncated, bool))
    advantages = np.empty_like(rewards)
    running = np.zeros(rewards.shape[1:])
    for t in range(len(rewards) - 1, -1, -1):
        running = delta[t] + discount * lam * carry_on[t] * running
        advantages[t] = running
    return advantages


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InvalidHyperparameterError(f"{name} is {value}; it must lie in [0, 1].")
