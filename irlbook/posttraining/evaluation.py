"""What a reward model is worth: questions, each blind to something that another one sees.

    pairwise_accuracy            does it prefer the better of two responses?
    expected_calibration_error   when it says 80 %, is it right in 80 % of the cases?
    best_of_n_gold               what is the response that it picks from n really worth?

Does it put many responses to one prompt in the right order? :mod:`irlbook.metrics` has
`within_prompt_spearman`. Rewards and gold are arrays: pairs (P, 2), or K responses to each of X
prompts (X, K).
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from irlbook.errors import (
    InvalidHyperparameterError,
    NotFiniteError,
    ShapeError,
    UninformativeDataError,
)

__all__ = ["best_of_n_gold", "expected_calibration_error", "pairwise_accuracy", "reliability"]


def pairwise_accuracy(rewards: np.ndarray, gold: np.ndarray) -> float:
    """Share of the pairs that are put in gold's order; a tie of the reward counts half.

    Args:
        rewards, gold: (P, 2). Pairs that gold finds equal are left out.
    """
    rewards, gold = _alike(rewards, gold)
    if rewards.shape[1] != 2:
        raise ShapeError(f"pairs have two columns, not {rewards.shape[1]}.")
    wanted = np.sign(gold[:, 0] - gold[:, 1])
    found = np.sign(rewards[:, 0] - rewards[:, 1])
    if not wanted.any():
        raise UninformativeDataError(
            "gold finds every pair equal, so no order can be right or wrong."
        )
    return float((1 + wanted * found)[wanted != 0].mean() / 2)


def reliability(rewards: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often the model is right, by how sure it is.

    A pair with margin d is decided with confidence s(|d|), at least 1/2.

    Args:
        rewards: (P, 2), the response that was really preferred in column 0.
        bins: of equal width between 1/2 and 1.

    Returns:
        (confidence, right, count), (bins,) each: means over the pairs of a bin, NaN where it is
        empty. A tie is right by half.
    """
    rewards = np.asarray(rewards, dtype=float)
    if rewards.ndim != 2 or rewards.shape[1] != 2 or not len(rewards):
        raise ShapeError(f"rewards {rewards.shape} must be (pairs, 2).")
    if bins < 1:
        raise InvalidHyperparameterError(f"bins={bins} must be at least 1.")
    margin = rewards[:, 0] - rewards[:, 1]
    confidence = 1 / (1 + np.exp(-np.abs(margin)))
    right = (np.sign(margin) + 1) / 2
    bin_of = np.minimum((2 * (confidence - 0.5) * bins).astype(int), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        sure, often = (np.bincount(bin_of, w, bins) / count for w in (confidence, right))
    return sure, often, count


def expected_calibration_error(rewards: np.ndarray, bins: int = 10) -> float:
    """Mean of |confidence - share right| over the bins of `reliability`, weighted by their pairs.

    With few pairs it is above 0 even for a perfect model, since shares scatter.

    Source: Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning".
    """
    confidence, right, count = reliability(rewards, bins)
    full = count > 0
    return float((np.abs(confidence - right)[full] * count[full]).sum() / count.sum())


def best_of_n_gold(rewards: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    """(X,) the gold that the best of n responses has on average, best by `rewards`.

    The mean over *all* subsets of n of the K responses: in ascending order of reward, response j is
    the best of C(j - 1, n - 1) of the C(K, n) subsets. Equal rewards share their chance.

    Source: Nakano et al. 2021 (2112.09332), appendix I.

    Args:
        rewards, gold: (X, K). n: from 1, the mean, to K, the single best.
    """
    rewards, gold = _alike(rewards, gold)
    k = rewards.shape[1]
    if not 1 <= n <= k:
        raise InvalidHyperparameterError(f"n is {n}; the best of n needs 1 <= n <= {k} responses.")
    rank = np.arange(k + 1)  # subsets among the first j: C(j, n)
    with np.errstate(invalid="ignore"):
        logs = gammaln(rank + 1) - gammaln(np.maximum(rank - n, 0) + 1)
    upto = np.where(rank >= n, np.exp(logs - logs[-1]), 0.0)  # C(j, n) / C(k, n)
    found = []
    for mine, true in zip(rewards, gold, strict=True):
        _, level, size = np.unique(mine, return_inverse=True, return_counts=True)
        last = np.cumsum(size)
        share = (upto[last] - upto[last - size]) / size
        found.append(share[level] @ true)
    return np.array(found)


def _alike(rewards: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rewards, gold = np.asarray(rewards, dtype=float), np.asarray(gold, dtype=float)
    if rewards.ndim != 2 or rewards.shape != gold.shape or not rewards.size:
        raise ShapeError(
            f"rewards {rewards.shape} and gold {gold.shape} must be of one shape: (pairs, 2) or "
            "(prompts, responses)."
        )
    if not (np.isfinite(rewards).all() and np.isfinite(gold).all()):
        raise NotFiniteError("a reward or gold is not finite; find the response that broke first.")
    return rewards, gold
