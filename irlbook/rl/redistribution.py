"""Return decomposition: one number at the end of an episode, shared out over its steps.

A *redistribution* gives each step a reward such that every episode's sum is its return. Then no
policy's expected return changes. It can come from a regression of returns on what an episode did
(`return_decomposition`, and its randomised form `randomised_decomposition`), from the changes of a
predicted return (`prediction_changes`), or from attention (`attention_shares`).

Sources: Arjona-Medina et al. 2019 (1806.07857, RUDDER); Ren et al. 2022 (2111.13485, RRD); Chan et
al. 2024 (2402.00782, ABC).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irlbook.errors import InvalidHyperparameterError, ShapeError

__all__ = [
    "attention_shares",
    "expected_randomised_loss",
    "prediction_changes",
    "randomised_decomposition",
    "return_decomposition",
    "visit_counts",
]


def visit_counts(episodes: Sequence[np.ndarray], n_pairs: int) -> np.ndarray:
    """(N, K) how often each episode, a list of pair numbers s * A + a, made each of K pairs."""
    return np.array([np.bincount(pairs, minlength=n_pairs) for pairs in episodes], dtype=float)


def return_decomposition(
    episodes: Sequence[np.ndarray], returns: np.ndarray, n_pairs: int
) -> np.ndarray:
    """(K,) rewards whose sums along the episodes are closest to the returns, eq 21.8.

        min_r sum_i (R_i - sum_t r(s_t, a_t))^2,

    of all solutions the shortest: what no episode tells apart is shared out evenly.

    Args:
        episodes: N arrays of pair numbers, in 0 .. n_pairs - 1. returns: (N,).
    """
    return randomised_decomposition(episodes, returns, n_pairs, subset=None)


def expected_randomised_loss(rewards: np.ndarray, total: float, subset: int) -> float:
    """Mean over all subsets I of `subset` steps of (R - T/K sum_{t in I} r_t)^2, eq 21.9.

    It is the loss of the decomposition plus a price on rewards that differ within the episode,

        (R - sum_t r_t)^2 + T (T - K) / K * S^2,   S^2 = sum_t (r_t - mean)^2 / (T - 1).

    Args:
        rewards: (T,) predicted for the steps of one episode. subset: K, from 1 to T.

    Source: Ren et al. 2022, section 3.2; the variance is that of sampling without replacement.
    """
    rewards = np.asarray(rewards, dtype=float)
    price = _price(len(rewards), subset)
    spread = rewards.var(ddof=1) if len(rewards) > 1 else 0.0
    return float((total - rewards.sum()) ** 2 + price * spread)


def randomised_decomposition(
    episodes: Sequence[np.ndarray], returns: np.ndarray, n_pairs: int, subset: int | None
) -> np.ndarray:
    """(K,) the rewards that minimise the sum of `expected_randomised_loss` over the episodes.

    RRD reaches them by stochastic gradients on random subsets; in a table they are a linear solve.

    Args:
        episodes, returns: as for `return_decomposition`. subset: steps that RRD looks at in each
            episode (all of a shorter one); None looks at all.

    Raises:
        ShapeError: another number of returns than of episodes, or an episode without steps.
        InvalidHyperparameterError: a subset below 1.
    """
    returns = np.asarray(returns, dtype=float)
    if returns.shape != (len(episodes),) or any(len(pairs) == 0 for pairs in episodes):
        raise ShapeError(
            f"{len(episodes)} episodes and returns {returns.shape}; give one return for each "
            "episode, and no empty episode."
        )
    counts = visit_counts(episodes, n_pairs)
    normal, right = counts.T @ counts, counts.T @ returns
    for pairs, n in zip(episodes, counts, strict=True):
        length = len(pairs)
        price = 0.0 if subset is None else _price(length, min(subset, length))
        if price:  # sum_t (r_t - mean)^2 = r' (diag(n) - n n' / T) r
            normal += price / (length - 1) * (np.diag(n) - np.outer(n, n) / length)
    return np.linalg.lstsq(normal, right, rcond=1e-12)[0]


def prediction_changes(predictions: np.ndarray, total: float) -> np.ndarray:
    """(T,) r_t = g_{t+1} - g_t, the first with g_0 added and the last with R - g_T, eq 21.10.

    The sum is R whatever the predictions.

    Args:
        predictions: (T + 1,) return predicted before each step and at the end.

    Raises:
        ShapeError: fewer than two predictions.
    """
    g = np.asarray(predictions, dtype=float)
    if g.ndim != 1 or len(g) < 2:
        raise ShapeError(f"predictions have shape {g.shape}; expected (steps + 1,).")
    rewards = np.diff(g)
    rewards[0] += g[0]
    rewards[-1] += total - g[-1]
    return rewards


def attention_shares(attention: np.ndarray, total: float, beta: float) -> np.ndarray:
    """(T,) r_t = beta alpha_t R + (1 - beta) R 1[t = T], eq 21.11; the sum is R.

    Args:
        attention: (T,) weights alpha of the whole response's tokens, which sum to 1.
        total: R. beta: in [0, 1], the share that is spread.

    Raises:
        InvalidHyperparameterError: weights that are negative or do not sum to 1, or another beta.

    Source: Chan et al. 2024 (2402.00782).
    """
    alpha = np.asarray(attention, dtype=float)
    if not 0.0 <= beta <= 1.0 or alpha.min() < 0 or abs(alpha.sum() - 1.0) > 1e-9:
        raise InvalidHyperparameterError(
            f"beta={beta} must lie in [0, 1], and the attention must be weights that sum to 1; "
            f"they sum to {alpha.sum():.6g}."
        )
    rewards = beta * alpha * total
    rewards[-1] += (1.0 - beta) * total
    return rewards


def _price(length: int, subset: int) -> float:
    """T (T - K) / K."""
    if not 1 <= subset <= length:
        raise InvalidHyperparameterError(f"subset is {subset}; it must lie in 1..{length}.")
    return length * (length - subset) / subset
