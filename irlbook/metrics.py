"""Floor 5: numbers that say how good a recovered reward or policy is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from irlbook.errors import NotFiniteError, NotStochasticError, ShapeError, UninformativeDataError
from irlbook.mdp import TabularMDP
from irlbook.planning import (
    backward_induction,
    expected_return,
    modified_policy_iteration,
    policy_iteration,
)

__all__ = [
    "NEGATIVE_TOLERANCE",
    "SUM_TOLERANCE",
    "entropy",
    "expected_value_difference",
    "kl_divergence",
    "within_prompt_spearman",
]

NEGATIVE_TOLERANCE = 1e-9
SUM_TOLERANCE = 1e-4
"""Probabilities from a model in float32 sum to 1 to within this."""


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


def kl_divergence(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """KL(p || q) in nats over the last axis; 0 log 0 = 0, and infinite where q = 0 < p.

    Of log-probabilities: :func:`irlbook.lm.enumerable.kl_from_logps`.

    Args:
        p, q: (..., K) probabilities; the axes before the last broadcast.

    Raises:
        NotStochasticError: NaN, a negative entry, or a sum over the last axis that is not 1.
        ShapeError: the two do not broadcast.
    """
    p, q = _probabilities(p, "p"), _probabilities(q, "q")
    try:
        p, q = np.broadcast_arrays(p, q)
    except ValueError:
        raise ShapeError(f"p {p.shape} and q {q.shape} must be over the same things.") from None
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    return terms.sum(axis=-1)


def entropy(p: ArrayLike) -> np.ndarray:
    """H(p) in nats over the last axis.

    Of log-probabilities: :func:`irlbook.lm.enumerable.entropy_from_logps`.

    Raises:
        NotStochasticError: NaN, a negative entry, or a sum over the last axis that is not 1.
    """
    p = _probabilities(p, "p")
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(p > 0, p * np.log(p), 0.0).sum(axis=-1)


def _probabilities(given: ArrayLike, name: str) -> np.ndarray:
    """(..., K) as float64, its tiny negative rounding errors put to 0."""
    p = np.asarray(given, dtype=float)
    if p.ndim == 0 or p.shape[-1] == 0:
        raise ShapeError(f"{name} has shape {p.shape}; expected probabilities on the last axis.")
    bad = ~((p >= -NEGATIVE_TOLERANCE).all(axis=-1) & (np.abs(p.sum(axis=-1) - 1) < SUM_TOLERANCE))
    if bad.any():
        row = p[bad][0]
        mend = "Take np.exp of log-probabilities." if _are_logs(row) else "Divide by the sum."
        raise NotStochasticError(
            f"{name} must hold probabilities; a row has the least entry {row.min():.4g} and the "
            f"sum {row.sum():.6g}, not 1. {mend}"
        )
    return np.maximum(p, 0.0)


def _are_logs(row: np.ndarray) -> bool:
    return bool((row <= 0).all() and abs(np.exp(row).sum() - 1) < 0.01)


def within_prompt_spearman(estimate: ArrayLike, truth: ArrayLike) -> float:
    """Mean over prompts of Spearman's rank correlation of an estimate with the truth.

    It does not change when a number c(x) is added to all estimates of a prompt: neither does what
    comparisons can teach. A prompt whose truth is constant has no order and is left out; one whose
    estimates are constant counts as 0, as they find no order that there is.

    Args:
        estimate, truth: (prompts, responses).

    Raises:
        ShapeError: not two arrays of one such shape.
        NotFiniteError: NaN or an infinite value.
        UninformativeDataError: the truth is constant within every prompt.
    """
    mine, true = np.asarray(estimate, dtype=float), np.asarray(truth, dtype=float)
    if mine.ndim != 2 or mine.shape != true.shape or not mine.size:
        raise ShapeError(f"{mine.shape} and {true.shape} must be (prompts, responses), and alike.")
    if not (np.isfinite(mine).all() and np.isfinite(true).all()):
        raise NotFiniteError("a score is not finite; find the response that broke first.")
    ordered = np.ptp(true, axis=1) > 0
    if not ordered.any():
        raise UninformativeDataError("the truth is constant within every prompt: no order to find.")
    a, b = (rankdata(x[ordered], axis=1) for x in (mine, true))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    found = np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(a)), where=scale > 0)
    return float(found.mean())
