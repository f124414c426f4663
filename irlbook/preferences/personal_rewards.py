"""A reward for one person from a few labels: a prior learned from many people, and its update.

Person u has weights w_u ~ N(m, S) on the features of items, and labels by Bradley–Terry. The latent
variable is w_u itself. With the prior known, a person's weights are found from few labels by their
posterior mode; the prior is learned from people before. It is the linear case of learning a latent
variable for each user (variational preference learning: Poddar et al. 2024, 2408.10075).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from irlbook.errors import NotConvergedError, ShapeError, UninformativeDataError
from irlbook.mdp import as_floats

__all__ = ["Population", "fit_population", "personal_loss", "personal_weights"]


def personal_loss(
    weights: Any, gaps: Any, mean: Any, precision: Any
) -> tuple[float, np.ndarray, np.ndarray]:
    """Minus the log-posterior of a person's weights (up to a constant), gradient and Hessian.

        loss(w) = - sum_p log sigma(d_p . w) + (w - m)' S^-1 (w - m) / 2

    Args:
        weights: (K,). gaps: (P, K) d_p, features of the preferred item less those of the other.
        mean: (K,) m. precision: (K, K) S^-1.
    """
    w, d = np.asarray(weights, dtype=float), np.asarray(gaps, dtype=float)
    away = w - mean
    margin = d @ w
    p = expit(margin)
    loss = -log_expit(margin).sum() + away @ precision @ away / 2
    gradient = -d.T @ (1 - p) + precision @ away
    hessian = d.T @ ((p * (1 - p))[:, None] * d) + precision
    return float(loss), gradient, hessian


def personal_weights(
    gaps: Any, mean: Any, covariance: Any, *, steps: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) mode of the posterior of w_u, and (K, K) its covariance there (Laplace).

    Args:
        gaps: (P, K), P >= 0: without labels the answer is the prior. mean, covariance: the prior.

    Raises:
        NotConvergedError: Newton's method did not reach the optimum.
    """
    m, s = as_floats(mean, "mean"), as_floats(covariance, "covariance")
    d = np.asarray(gaps, dtype=float).reshape(-1, len(m))
    if s.shape != (len(m), len(m)):
        raise ShapeError(f"covariance has shape {s.shape}; expected {(len(m), len(m))}.")
    precision = np.linalg.inv(s)
    w = m.copy()
    loss, gradient, hessian = personal_loss(w, d, m, precision)
    for _ in range(steps):
        step = np.linalg.solve(hessian, -gradient)
        if abs(gradient @ step) < 1e-18 * max(1.0, abs(loss)) or np.abs(step).max() < 1e-12:
            return w, np.linalg.inv(hessian)
        length = 1.0
        while (found := personal_loss(w + length * step, d, m, precision))[0] > loss + 1e-12 * (
            1 + abs(loss)
        ):
            length /= 2
        w, (loss, gradient, hessian) = w + length * step, found
    raise NotConvergedError(f"Newton's method did not settle within {steps} steps.")


@dataclass(frozen=True)
class Population:
    """A prior over people: mean (K,) and covariance (K, K) of their weights."""

    mean: np.ndarray
    covariance: np.ndarray


def fit_population(people: Any, *, rounds: int = 30, floor: float = 1e-3) -> Population:
    """Learn the prior from people with some labels each: EM with Laplace's approximation.

    Each round finds every person's posterior under the present prior. The new mean is the average
    of the modes; the new covariance is that of the modes plus the average posterior covariance.

    Args:
        people: list of (P_u, K) gaps, one array a person. rounds: of EM.
        floor: added to the diagonal, so that no direction is ever thought to be the same in all.

    Raises:
        UninformativeDataError: fewer than two people.
    """
    gaps = [np.asarray(person, dtype=float) for person in people]
    if len(gaps) < 2:
        raise UninformativeDataError("a population is learned from two people or more.")
    n_features = gaps[0].shape[1]
    mean, covariance = np.zeros(n_features), np.eye(n_features)
    for _ in range(rounds):
        found = [personal_weights(person, mean, covariance) for person in gaps]
        modes = np.array([w for w, _ in found])
        mean = modes.mean(axis=0)
        spread = (modes - mean).T @ (modes - mean) / len(gaps)
        covariance = spread + np.mean([c for _, c in found], axis=0) + floor * np.eye(n_features)
    return Population(mean, covariance)
