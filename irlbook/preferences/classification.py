"""Classification reward models: was this response, alone, one that won?

Throw the pairing away. Every winner is an example of class 1, every loser of class 0, and any
classifier gives a reward: the log-odds of having won. With a linear classifier that is
Bradley–Terry too, on other data: each winner beats, and each loser loses to, one imaginary item of
reward 0. So the same solver fits both, and the same conditions say when it can.

Source: Sun, Shen and Ton 2024 (2411.04991); section 4.1 of the survey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from irlbook.errors import (
    InvalidPreferencesError,
    NotStochasticError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.mdp import as_floats
from irlbook.planning import SolverReport
from irlbook.preferences.bradley_terry import as_pairs, fit_bradley_terry

__all__ = [
    "ClassificationResult",
    "classification_log_likelihood",
    "fit_classification",
    "order_consistency",
    "win_probability",
]


@dataclass(frozen=True)
class ClassificationResult:
    """A fitted linear classifier.

    Attributes:
        weights: (K,). bias: of the log-odds. rewards: (M,) phi w + bias, the log-odds of winning.
        log_likelihood: without the penalty. report: how the solver ended.
    """

    weights: np.ndarray
    bias: float
    rewards: np.ndarray
    log_likelihood: float
    report: SolverReport


def classification_log_likelihood(rewards: np.ndarray, pairs: Any) -> float:
    """sum_p [log sigma(r_winner) + log(1 - sigma(r_loser))] <= 0, for rewards (M,) with a zero."""
    r, pairs = as_floats(rewards, "rewards"), as_pairs(pairs)
    return float(log_expit(r[pairs[:, 0]]).sum() + log_expit(-r[pairs[:, 1]]).sum())


def fit_classification(pairs: Any, features: Any, *, l2: float = 0.0) -> ClassificationResult:
    """Logistic regression of "won" on the features and an intercept, which l2 leaves alone.

    Args:
        pairs: (P, 2) items, column 0 preferred. features: (M, K). l2: penalty l2 |w|^2 / 2.

    Raises:
        UnidentifiedRewardError, SeparablePreferencesError: no unique finite optimum. (The message
            counts 2 P rows, one for each response; item M is the imaginary opponent.)
    """
    phi, pairs = as_floats(features, "features"), as_pairs(pairs)
    if phi.ndim != 2:
        raise ShapeError(f"features have shape {phi.shape}; expected (M, K).")
    if pairs.max() >= len(phi):
        raise InvalidPreferencesError(
            f"pairs have shape {pairs.shape} for {len(phi)} items; expected (P, 2), items below "
            f"{len(phi)}, the preferred one first."
        )
    n_items, n_features = phi.shape
    nobody = np.full(len(pairs), n_items)
    duels = np.concatenate(
        [np.column_stack([pairs[:, 0], nobody]), np.column_stack([nobody, pairs[:, 1]])]
    )
    extended = np.zeros((n_items + 1, n_features + 1))
    extended[:n_items, :n_features], extended[:n_items, n_features] = phi, 1.0
    fit = fit_bradley_terry(duels, extended, l2=np.append(np.full(n_features, float(l2)), 0.0))
    return ClassificationResult(
        fit.weights[:-1], float(fit.weights[-1]), fit.rewards[:-1], fit.log_likelihood, fit.report
    )


def win_probability(rewards: np.ndarray, opponents: Any = None, beta: float = 1.0) -> np.ndarray:
    """(M,) chance to beat an opponent drawn from q: sum_j q_j sigma((r_i - r_j) / beta).

    It is what a classifier learns when its data are without end, and i's Borda count (chapter 17).

    Args:
        rewards: (M,). opponents: (M,) distribution q over items, or (M, M) one row for each item i;
            None: all equally likely. beta: temperature of the chooser.
    """
    r = np.asarray(rewards, dtype=float)
    q = np.full(len(r), 1 / len(r)) if opponents is None else np.asarray(opponents, dtype=float)
    if q.shape not in ((len(r),), (len(r), len(r))):
        raise ShapeError(f"opponents have shape {q.shape}; expected (M,) or (M, M), M={len(r)}.")
    if not (np.allclose(q.sum(axis=-1), 1) and (q >= 0).all()):
        raise NotStochasticError("opponents must hold probabilities: rows that sum to 1.")
    return (expit((r[:, None] - r[None, :]) / beta) * q).sum(axis=1)


def order_consistency(estimate: np.ndarray, truth: np.ndarray, groups: Any = None) -> float:
    """Share of pairs that two rewards order alike; a tie in the estimate counts one half.

    Args:
        estimate, truth: (M,). Pairs of equal truth are left out.
        groups: (M,) prompts; only pairs within a group are compared. None: all pairs.

    Source: Sun, Shen and Ton 2024 (2411.04991), who speak of its probability.
    """
    estimate, truth = np.asarray(estimate, dtype=float), np.asarray(truth, dtype=float)
    groups = np.zeros(len(truth)) if groups is None else np.asarray(groups)
    agree = asked = 0.0
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        i, j = np.triu_indices(len(mine), 1)
        gap = np.sign(truth[mine[i]] - truth[mine[j]])
        found = np.sign(estimate[mine[i]] - estimate[mine[j]])
        agree += ((found * gap + 1) / 2)[gap != 0].sum()
        asked += (gap != 0).sum()
    if not asked:
        raise UninformativeDataError(
            "no two items of a group differ in truth; there is no order to find."
        )
    return float(agree / asked)
