"""What n samples to a problem are worth: pass@k, and the majority's answer.

pass@k is the chance that at least one of k samples is right: what a model *can* write. The
majority of k answers is what it believes. Both are estimated from n >= k samples, over all subsets
or many random ones, which has the least variance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from irlbook.errors import InvalidHyperparameterError, ShapeError

__all__ = ["majority_at_k", "pass_at_k", "weighted_votes"]


def pass_at_k(right: ArrayLike, n: int, k: int) -> np.ndarray:
    """(P,) chance that k of a problem's n samples, drawn without replacement, hold a right one.

    1 - C(n - c, k) / C(n, k), as a product, so that nothing overflows. Its mean over samples is
    1 - (1 - q)^k exactly, for every k <= n; putting c/n for q into that formula is biased.

    Args:
        right: (P,) how many of the n samples are right.

    Raises:
        InvalidHyperparameterError: k outside of 1 ... n. ShapeError: a count outside of 0 ... n.

    Source: Chen et al. 2021 (2107.03374), equation 1.
    """
    counts = np.asarray(right)
    if not 1 <= k <= n:
        raise InvalidHyperparameterError(f"k is {k}; of {n} samples take between 1 and {n}.")
    if counts.size and not (counts.min() >= 0 and counts.max() <= n):
        raise ShapeError(f"counts run from {counts.min()} to {counts.max()}, of {n} samples.")
    i = np.arange(k)
    none = (n - counts[..., None] - i) / (n - i)  # 0 where fewer than k are wrong
    return 1 - none.prod(axis=-1)


def majority_at_k(
    votes: ArrayLike, k: int, rng: np.random.Generator, draws: int = 64
) -> np.ndarray:
    """(P,) chance that the most frequent of k answers is the right one; ties share it.

    Args:
        votes: (P, A) how often each answer was given; the right answer is column 0. A last column
            of zeros does no harm. Samples without an answer do not vote: leave them out.
        k: samples that vote, drawn without replacement; all, where there are fewer.
        draws: random subsets a problem; one where k takes all.

    Raises: ShapeError: not (P, A). InvalidHyperparameterError: k or draws below 1.

    Source: Wang et al. 2022 (2203.11171), "self-consistency".
    """
    counts = np.asarray(votes)
    if counts.ndim != 2:
        raise ShapeError(f"votes have shape {counts.shape}; expected (problems, answers).")
    if min(k, draws) < 1:
        raise InvalidHyperparameterError(f"k={k}, draws={draws}; at least 1 each.")
    found = np.zeros(len(counts))
    for row, vote in enumerate(counts):
        total = int(vote.sum())
        if not total:
            continue
        drawn = vote[None] if k >= total else rng.multivariate_hypergeometric(vote, k, size=draws)
        top = drawn == drawn.max(axis=1, keepdims=True)
        found[row] = (top[:, 0] / top.sum(axis=1)).mean()
    return found


def weighted_votes(answers: ArrayLike, weights: ArrayLike, n_answers: int) -> np.ndarray:
    """(P, A) sum of the weights of the samples that give each answer.

    Args:
        answers: (P, n) an answer's number, 0 ... A - 1; -1 gives none and does not vote.
        weights: (P, n) at least 0, such as the score of a verifier.

    Raises: ShapeError.

    Source: Li et al. 2022 (2206.02336), voting weighted by a verifier.
    """
    chosen, weight = np.asarray(answers), np.asarray(weights, dtype=float)
    if chosen.shape != weight.shape or chosen.ndim != 2 or chosen.max(initial=0) >= n_answers:
        raise ShapeError(
            f"answers have shape {chosen.shape} and weights {weight.shape}; expected (problems, n) "
            f"each, answers below {n_answers}."
        )
    return np.stack([np.where(chosen == a, weight, 0.0).sum(axis=1) for a in range(n_answers)], 1)
