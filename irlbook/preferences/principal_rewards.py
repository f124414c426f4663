"""Rewards as principal components of differences of embeddings.

A row of `gaps` (P, K) is the embedding of the preferred response less that of the other. Decomposed
reward models (DRM; Luo et al. 2025, 2502.13131) take the principal components of the rows as reward
directions and let a new user weigh them. Two things in it are conventions that decide what comes
out: the sign of a component, and whether the mean is subtracted first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from irlbook.errors import InvalidHyperparameterError, ShapeError, UninformativeDataError
from irlbook.mdp import as_floats

__all__ = ["PrincipalRewards", "orient", "principal_rewards", "second_moments"]


def second_moments(gaps: Any) -> tuple[np.ndarray, np.ndarray]:
    """(K,) mean of the gaps, and (K, K) mean of d d'.

    d d' is the same for d and -d: the second matrix does not see who won. The mean does.
    """
    d = as_floats(gaps, "gaps")
    if d.ndim != 2:
        raise ShapeError(f"gaps have shape {d.shape}; expected (comparisons, features).")
    if len(d) < 2:
        raise UninformativeDataError("principal components need two comparisons or more.")
    return d.mean(axis=0), d.T @ d / len(d)


@dataclass(frozen=True)
class PrincipalRewards:
    """Reward directions, in the order of their variance.

    Attributes:
        directions: (n, K) unit rows. variances: (n,).
        agreement: (n,) share of the comparisons that each direction orders as they were labelled.
    """

    directions: np.ndarray
    variances: np.ndarray
    agreement: np.ndarray


def principal_rewards(
    gaps: Any,
    n: int | None = None,
    *,
    centre: bool = True,
    sign: Literal["labels", "raw"] = "labels",
) -> PrincipalRewards:
    """The n leading eigenvectors of the covariance (or second moment) of the gaps.

    Args:
        gaps: (P, K). n: how many directions; None: all K.
        centre: subtract the mean, as PCA does: E[dd'] - m m'. False: E[dd'], which is the same
            whoever won.
        sign: "labels" turns each direction so that it orders at least half of the comparisons as
            they were labelled; "raw" leaves what the eigensolver returned, which means nothing.

    Source: Luo et al. 2025; their code keeps both signs of each component.
    """
    d = as_floats(gaps, "gaps")
    mean, second = second_moments(d)
    matrix = second - np.outer(mean, mean) if centre else second
    n = len(matrix) if n is None else n
    if not 1 <= n <= len(matrix):
        raise InvalidHyperparameterError(f"n is {n}; there are {len(matrix)} features.")
    variances, vectors = np.linalg.eigh(matrix)
    directions = vectors[:, ::-1][:, :n].T
    if sign == "labels":
        directions = orient(directions, d)
    return PrincipalRewards(directions, variances[::-1][:n], _agreement(directions, d))


def orient(directions: Any, gaps: Any) -> np.ndarray:
    """(n, K) each direction, turned so that it agrees with at least half of the labels.

    Args:
        directions: (n, K). gaps: (P, K) comparisons whose labels decide: all, or one user's.
    """
    v, d = as_floats(directions, "directions"), as_floats(gaps, "gaps")
    return np.where(_agreement(v, d) < 0.5, -1.0, 1.0)[:, None] * v


def _agreement(directions: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """(n,) share of gaps with a positive projection; zero counts one half."""
    return ((np.sign(gaps @ directions.T) + 1) / 2).mean(axis=0)
