"""Floor 5: numbers that say how good a recovered reward or policy is."""

from __future__ import annotations

import numpy as np

from irlbook.mdp import TabularMDP
from irlbook.planning import (
    backward_induction,
    expected_return,
    modified_policy_iteration,
    policy_iteration,
)


def expected_value_difference(
    mdp: TabularMDP, policy: np.ndarray, horizon: int | None = None
) -> float:
    """How much of the true reward a policy gives away: max_pi J(pi) - J(policy) >= 0.

    `mdp` carries the *true* reward; `policy` usually comes from planning with a recovered one.
    Rewards that look different can have difference 0, which is what counts (Levine et al. 2011).

    Args:
        policy: (S, A), or (T, S, A) with ``horizon=T``.
    """
    if horizon is not None:
        best = float(mdp.start @ backward_induction(mdp, horizon).values[0])
    else:
        solver = modified_policy_iteration if mdp.discount < 1.0 else policy_iteration
        best = float(mdp.start @ solver(mdp).values)
    return best - expected_return(mdp, policy, horizon)


def kl_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) in nats over the last axis; 0 log 0 = 0, and infinite where q = 0 < p."""
    p, q = np.broadcast_arrays(np.asarray(p, dtype=float), np.asarray(q, dtype=float))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    return terms.sum(axis=-1)


def entropy(p: np.ndarray) -> np.ndarray:
    """H(p) in nats over the last axis."""
    p = np.asarray(p, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(p > 0, p * np.log(p), 0.0).sum(axis=-1)
