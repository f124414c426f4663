"""What a comparison is worth: the Fisher information of Bradley–Terry, and designs that raise it.

A question is a difference of features d = phi_i - phi_j, a row of `differences` (P, K). Under the
weights w its answer has the probability p = sigma(d . w / beta), and asking it adds

    lambda d d',    lambda = p (1 - p) / beta^2,

to the information Lambda (K, K), whoever wins. A *design* is a set of questions. It is judged by a
number that Lambda is turned into: its log determinant (D), minus the trace of its inverse (A), its
smallest eigenvalue (E). All of them are to be made large.

Sources: Kiefer 1959 (the criteria); Nemhauser, Wolsey and Fisher 1978 (the greedy bound); Shen, Sun
and Ton 2025 (2502.04354), for reward models.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from irlbook.errors import (
    InvalidHyperparameterError,
    NotFiniteError,
    ShapeError,
    UnidentifiedRewardError,
    shown,
)

__all__ = [
    "Criterion",
    "MAX_SUBSETS",
    "answer_variance",
    "best_design",
    "check_budget",
    "design_value",
    "greedy_design",
    "information_gains",
    "information_of",
]

Criterion = Literal["D", "A", "E"]
MAX_SUBSETS = 200_000
"""Subsets that :func:`best_design` is willing to try."""


def answer_variance(differences: Any, weights: Any, beta: float = 1.0) -> np.ndarray:
    """(P,) lambda = p (1 - p) / beta^2 of each question, p = sigma(d . w / beta).

    Args:
        differences: (P, K). weights: (K,) what is believed of w. beta: temperature of the chooser.

    Raises:
        InvalidHyperparameterError: beta is not above 0. ShapeError: the two do not fit.
    """
    if not beta > 0:
        raise InvalidHyperparameterError(f"beta is {beta}; a temperature is above 0.")
    d, w = _questions(differences), np.asarray(weights, dtype=float)
    if w.shape != d.shape[1:]:
        raise ShapeError(f"weights have shape {w.shape}; expected {d.shape[1:]}.")
    p = expit(d @ w / beta)
    return p * (1 - p) / beta**2


def information_of(differences: Any, variance: Any, prior: Any = 0.0) -> np.ndarray:
    """(K, K) Lambda = prior + sum_p lambda_p d_p d_p'.

    Args:
        differences: (P, K) the questions asked. variance: (P,) lambda, from `answer_variance`.
        prior: precision before any answer: a number (times the identity) or (K, K).
    """
    d = _questions(differences, none_too=True)
    start = np.asarray(prior, dtype=float)
    start = start * np.eye(d.shape[1]) if start.ndim == 0 else start
    return start + d.T @ (np.asarray(variance, dtype=float)[:, None] * d)


def design_value(information: Any, criterion: Criterion = "D") -> float:
    """How good a design is: log det Lambda (D), -trace of its inverse (A), least eigenvalue (E).

    Raises:
        UnidentifiedRewardError: Lambda is singular and D or A was asked for.
        InvalidHyperparameterError: another criterion.
    """
    matrix = np.asarray(information, dtype=float)
    values = np.linalg.eigvalsh(matrix)
    if criterion == "E":
        return float(values[0])
    _check_regular(values)
    if criterion == "D":
        return float(np.log(values).sum())
    if criterion == "A":
        return float(-(1 / values).sum())
    raise InvalidHyperparameterError(f"criterion is {shown(criterion)}; use 'D', 'A' or 'E'.")


def information_gains(
    covariance: Any, differences: Any, variance: Any, criterion: Criterion = "D"
) -> np.ndarray:
    """(P,) by how much each question alone would raise the criterion.

    With Sigma = Lambda^-1 and one more lambda d d', the matrix determinant lemma and Sherman and
    Morrison give, without another inverse,

        D: log(1 + lambda d' Sigma d)      A: lambda |Sigma d|^2 / (1 + lambda d' Sigma d).

    Args:
        covariance: (K, K) Sigma. differences: (P, K). variance: (P,). criterion: "E" takes an
            eigenvalue problem for each question.

    Raises:
        InvalidHyperparameterError: another criterion.
    """
    sigma, d = np.asarray(covariance, dtype=float), _questions(differences)
    lam, moved = np.asarray(variance, dtype=float), d @ sigma  # (P, K) rows (Sigma d)'
    if criterion in ("D", "A"):
        return _closed_gains(criterion, lam * np.einsum("pk,pk->p", moved, d), moved, lam)
    if criterion == "E":
        now = np.linalg.inv(sigma)
        more = now + lam[:, None, None] * d[:, :, None] * d[:, None, :]
        return np.linalg.eigvalsh(more)[:, 0] - np.linalg.eigvalsh(now)[0]
    raise InvalidHyperparameterError(f"criterion is {shown(criterion)}; use 'D', 'A' or 'E'.")


def _closed_gains(
    criterion: Criterion, leverage: np.ndarray, moved: np.ndarray, lam: np.ndarray
) -> np.ndarray:
    """(P,) gains of D or A from lambda d' Sigma d (P,) and the rows (Sigma d)' (P, K)."""
    if criterion == "D":
        return np.log1p(leverage)
    return lam * (moved**2).sum(axis=1) / (1 + leverage)


def greedy_design(
    information: Any,
    differences: Any,
    variance: Any,
    budget: int,
    criterion: Criterion = "D",
) -> np.ndarray:
    """(budget,) rows, chosen one after the other; each is the best one *after those before it*.

    For D the gain is submodular and the start counts as 0, so by Nemhauser et al. 1978 greedy
    has at least the share 1 - 1/e of the best gain. For A and E there is no such promise.

    Args:
        information: (K, K) Lambda before the batch; it must be regular (a prior makes it so).
        differences: (P, K). variance: (P,). budget: how many questions, each at most once.

    Raises:
        UnidentifiedRewardError: Lambda is singular.
        InvalidHyperparameterError: the budget is larger than the pool, or not positive.
    """
    d, lam = _questions(differences), np.asarray(variance, dtype=float)
    check_budget(budget, len(d))
    matrix = np.asarray(information, dtype=float)
    _check_regular(np.linalg.eigvalsh(matrix))
    sigma = np.linalg.inv(matrix)
    pull = d @ sigma  # (P, K) rows (Sigma d)'
    free = np.ones(len(d), dtype=bool)
    chosen = []
    for _ in range(budget):
        leverage = lam * np.einsum("pk,pk->p", pull, d)
        if criterion in ("D", "A"):
            gains = _closed_gains(criterion, leverage, pull, lam)
        else:
            gains = information_gains(sigma, d, lam, criterion)
        row = int(np.argmax(np.where(free, gains, -np.inf)))
        chosen.append(row)
        free[row] = False
        moved = pull[row]  # Sherman and Morrison: one more lambda d d' in the information
        share = lam[row] / (1 + leverage[row])
        sigma = sigma - share * np.outer(moved, moved)
        pull = pull - share * np.outer(d @ moved, moved)
    return np.array(chosen)


def best_design(
    information: Any,
    differences: Any,
    variance: Any,
    budget: int,
    criterion: Criterion = "D",
) -> np.ndarray:
    """(budget,) rows of the best set of all, by trying every one. The oracle of `greedy_design`.

    Raises:
        InvalidHyperparameterError: more than `MAX_SUBSETS` sets, or an impossible budget.
    """
    d, lam = _questions(differences), np.asarray(variance, dtype=float)
    check_budget(budget, len(d))
    if comb(len(d), budget) > MAX_SUBSETS:
        raise InvalidHyperparameterError(
            f"{comb(len(d), budget):,} sets of {budget} from {len(d)} questions are more than "
            f"{MAX_SUBSETS:,}; use greedy_design."
        )
    pieces = lam[:, None, None] * d[:, :, None] * d[:, None, :]
    sets = np.array(list(combinations(range(len(d)), budget)))
    sums = np.asarray(information, dtype=float) + sum(pieces[sets[:, k]] for k in range(budget))
    return np.asarray(sets[int(np.argmax([design_value(one, criterion) for one in sums]))])


def check_budget(budget: int, pool: int) -> None:
    """Raise InvalidHyperparameterError where a budget is no number of questions of the pool."""
    if not 1 <= budget <= pool:
        raise InvalidHyperparameterError(
            f"the budget is {budget} and the pool holds {pool} questions; ask for 1 to {pool}, or "
            "bring more pairs."
        )


def _questions(differences: Any, none_too: bool = False) -> np.ndarray:
    d = np.asarray(differences, dtype=float)
    if d.ndim != 2 or not (len(d) or none_too):
        raise ShapeError(f"differences have shape {d.shape}; expected (questions, features).")
    if not np.isfinite(d).all():
        raise NotFiniteError("differences must all be finite; find the item that broke first.")
    return d


def _check_regular(values: np.ndarray) -> None:
    """`values`: eigenvalues in ascending order."""
    if not values[0] > 1e-12 * max(values[-1], 1e-300):
        raise UnidentifiedRewardError(
            f"the information is singular (eigenvalues {values[0]:.3g} to {values[-1]:.3g}): some "
            "direction of the weights was never asked about. Add a prior precision, or questions "
            "that differ along it."
        )
