"""What one reward learns from a crowd: Borda counts, and distributions of utility.

Labels come from people, and what the label depends on (who was asked, in which mood, by which
criterion) is not in the data: a *hidden context*. What data without end show of it is a table of
preferences p (M, M): p_ij is the chance that a random label prefers item i to item j, so that
p_ij + p_ji = 1 and p_ii = 1/2. Bradley–Terry, fitted to such a table, orders items by their Borda
counts. Distributional preference learning gives each item a distribution of utility instead.

Source: Siththaranjan, Laidlaw and Hadfield-Menell 2023 (2312.08358).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_ndtr, ndtr, ndtri, softmax

from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidPreferencesError,
    NotConvergedError,
    NotStochasticError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.mdp import as_floats
from irlbook.preferences.bradley_terry import fit_bradley_terry

__all__ = [
    "EXACT",
    "borda_counts",
    "bradley_terry_limit",
    "categorical_loss",
    "categorical_preferences",
    "check_preferences",
    "fit_categorical_utilities",
    "fit_normal_utilities",
    "histogram_quantile",
    "lottery_preferences",
    "normal_loss",
    "normal_preferences",
    "normal_quantile",
    "preference_matrix",
]

EXACT = 1e-9  # how far a table of preferences may be from p_ij + p_ji = 1


# What endless labels show -------------------------------------------------------------------------


def check_preferences(preferences: Any) -> np.ndarray:
    """(M, M) float64, after checking that this is a table of preferences.

    Raises:
        ShapeError: not square. InvalidPreferencesError: an entry outside [0, 1], or p_ij + p_ji
            that is not 1.
    """
    p = as_floats(preferences, "preferences")
    if p.ndim != 2 or p.shape[0] != p.shape[1]:
        raise ShapeError(f"preferences have shape {p.shape}; expected (M, M).")
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidPreferencesError("preferences must be chances, from 0 to 1.")
    off = np.argwhere(np.abs(p + p.T - 1) > EXACT)
    if len(off):
        i, j = off[0]
        raise InvalidPreferencesError(
            f"p[{i}, {j}] + p[{j}, {i}] is {p[i, j] + p[j, i]:.6g}, not 1 (on the diagonal: 1/2 "
            "twice). Counts of wins become shares when divided by how often a pair was asked."
        )
    return p


def preference_matrix(utilities: Any, shares: Any = None, beta: float = 0.0) -> np.ndarray:
    """(M, M) preferences of a crowd of types: the context is who was asked.

        p_ij = sum_g s_g sigma((u_gi - u_gj) / beta);  beta = 0: s_g [u_gi > u_gj], a tie 1/2

    Args:
        utilities: (G, M) one row a type. shares: (G,) s_g, how common each is; None: equally.
        beta: temperature of a person; 0: choices without error.

    Raises:
        ShapeError, NotStochasticError: shares that do not fit, or do not add up to 1.
    """
    u = as_floats(utilities, "utilities")
    if u.ndim != 2:
        raise ShapeError(f"utilities have shape {u.shape}; expected (types, items).")
    s = np.full(len(u), 1 / len(u)) if shares is None else as_floats(shares, "shares")
    if s.shape != (len(u),):
        raise ShapeError(f"shares have shape {s.shape} for {len(u)} types.")
    if not ((s >= 0).all() and abs(s.sum() - 1) < 1e-9):
        raise NotStochasticError("shares must not be negative, and must add up to 1.")
    return np.einsum("g,gij->ij", s, _chooses(u[:, :, None] - u[:, None, :], beta))


def lottery_preferences(values: Any, chances: Any, beta: float = 0.0) -> np.ndarray:
    """(M, M) preferences where each look at an item draws its utility anew, and alone.

    p_ij = sum_vw c_iv c_jw sigma((x_iv - x_jw) / beta), and 1/2 on the diagonal, where an item
    meets another draw of itself.

    Args:
        values: (M, V) x_iv, what the utility of item i can be. chances: (M, V) c_iv, rows add up
            to 1. beta: temperature; 0: no error.
    """
    x, c = as_floats(values, "values"), _rows(chances)
    if x.shape != c.shape:
        raise ShapeError(f"values {x.shape} and chances {c.shape} must have one shape (M, V).")
    wins = _chooses(x[:, :, None, None] - x[None, None, :, :], beta)  # (M, V, M, V)
    return np.einsum("iv,ivjw,jw->ij", c, wins, c)


def _chooses(gap: np.ndarray, beta: float) -> np.ndarray:
    """Chance to choose the first of two whose utilities differ by `gap`."""
    if beta < 0:
        raise InvalidHyperparameterError(f"beta is {beta}; a temperature is not negative.")
    return expit(gap / beta) if beta else (np.sign(gap) + 1) / 2


def _rows(chances: Any) -> np.ndarray:
    c = as_floats(chances, "chances")
    if c.ndim != 2:
        raise ShapeError(f"chances have shape {c.shape}; expected (M, V).")
    if not ((c >= 0).all() and np.allclose(c.sum(axis=1), 1, rtol=0, atol=1e-9)):
        raise NotStochasticError("each row of chances must hold probabilities that add up to 1.")
    return c


def borda_counts(preferences: Any, opponents: Any = None) -> np.ndarray:
    """(M,) BC(i) = sum_j q_j p_ij: the chance to be preferred to an opponent drawn from q.

    Among the opponents is the item itself, which counts 1/2.

    Source: Siththaranjan et al. 2023.

    Args:
        preferences: (M, M). opponents: (M,) q; None: all equally likely.
    """
    p = check_preferences(preferences)
    return p @ _opponents(opponents, len(p))


def _opponents(opponents: Any, n: int) -> np.ndarray:
    q = np.full(n, 1 / n) if opponents is None else as_floats(opponents, "opponents")
    if q.shape != (n,):
        raise ShapeError(f"opponents have shape {q.shape}; expected ({n},).")
    if not ((q >= 0).all() and abs(q.sum() - 1) < 1e-9):
        raise NotStochasticError("opponents must hold probabilities that add up to 1.")
    return q


def bradley_terry_limit(preferences: Any, opponents: Any = None, l2: float = 0.0) -> np.ndarray:
    """(M,) the rewards that Bradley–Terry learns from labels without end; they add up to 0.

    Pairs are drawn as q_i q_j. At the optimum sum_j q_j sigma(r_i - r_j) = BC(i): the rewards are
    in the order of the Borda counts (proof in chapter 17).

    Args:
        preferences: (M, M). opponents: (M,) q > 0; None: all equally likely.
        l2: penalty on the loss of an average label.

    Raises:
        UnidentifiedRewardError, SeparablePreferencesError: no finite optimum, where some items
            are never preferred to the others and l2 = 0.
    """
    p = check_preferences(preferences)
    q = _opponents(opponents, len(p))
    i, j = np.nonzero(~np.eye(len(p), dtype=bool))
    fit = fit_bradley_terry(
        np.column_stack([i, j]), counts=q[i] * q[j] * p[i, j], n_items=len(p), l2=l2
    )
    return fit.rewards - fit.rewards.mean()


# Distributional preference learning ---------------------------------------------------------------


def normal_preferences(mean: Any, std: Any) -> np.ndarray:
    """(M, M) chance that a draw of N(m_i, s_i^2) exceeds one of N(m_j, s_j^2):

        p_ij = Phi((m_i - m_j) / sqrt(s_i^2 + s_j^2))

    Source: Siththaranjan et al. 2023 (mean and variance).
    """
    m, s = as_floats(mean, "mean"), as_floats(std, "std")
    if not (m.shape == s.shape and m.ndim == 1):
        raise ShapeError(f"mean {m.shape} and std {s.shape} must both be (M,).")
    if not (s > 0).all():
        raise InvalidHyperparameterError("a standard deviation must be above 0.")
    return ndtr((m[:, None] - m[None, :]) / np.hypot(s[:, None], s[None, :]))


def _pair_weights(preferences: np.ndarray) -> np.ndarray:
    """(M, M) p_ij / (M (M - 1)), with zeros on the diagonal: an item is not asked about itself."""
    n = len(preferences)
    if n < 2:
        raise UninformativeDataError("a single item is preferred to nothing; compare two or more.")
    return np.where(np.eye(n, dtype=bool), 0.0, preferences) / (n * (n - 1))


def normal_loss(parameters: np.ndarray, preferences: np.ndarray) -> tuple[float, np.ndarray]:
    """Cross-entropy of preferences under the normal model, and its gradient (2 M,).

    Args:
        parameters: (2 M,) means, then logarithms of standard deviations. preferences: (M, M).
    """
    p, n = preferences, len(preferences)
    m, variance = parameters[:n], np.exp(2 * parameters[n:])
    total = variance[:, None] + variance[None, :]
    z = (m[:, None] - m[None, :]) / np.sqrt(total)
    weight = _pair_weights(p)
    log_p = log_ndtr(z)
    # d log Phi(z) / dz = density / Phi, from logarithms: it does not overflow
    slope = -weight * np.exp(-(z**2) / 2 - np.log(2 * np.pi) / 2 - log_p)
    along = slope / np.sqrt(total)
    d_mean = along.sum(axis=1) - along.sum(axis=0)
    shrink = -slope * z / total  # dz/d log s_i = -z s_i^2 / total
    d_log = variance * (shrink.sum(axis=1) + shrink.sum(axis=0))
    return float(-(weight * log_p).sum()), np.concatenate([d_mean, d_log])


def fit_normal_utilities(preferences: Any, l2: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """(M,) means and (M,) standard deviations of utility that make the preferences likely.

    Zero and unit are free: the means add up to 0, and so do the logarithms of the deviations.

    Source: Siththaranjan et al. 2023.

    Args:
        preferences: (M, M). l2: penalty on all parameters, which keeps them finite where choices
            are certain.

    Raises:
        UninformativeDataError: a single item. NotConvergedError: the fit stopped early.
    """
    p = check_preferences(preferences)
    n = len(p)

    def loss(x):
        value, gradient = normal_loss(x, p)
        return value + l2 * x @ x / 2, gradient + l2 * x

    start = np.concatenate([np.linspace(-0.1, 0.1, n)[np.argsort(np.argsort(p.sum(1)))], [0.0] * n])
    x = _minimise(loss, start)
    m, log_s = x[:n] - x[:n].mean(), x[n:]
    return m / np.exp(log_s.mean()), np.exp(log_s - log_s.mean())


def categorical_preferences(chances: Any) -> np.ndarray:
    """(M, M) p_ij where item i's utility is one of B ordered levels, level b with chance q_ib.

        p_ij = sum_{b > c} q_ib q_jc + sum_b q_ib q_jb / 2

    Source: Siththaranjan et al. 2023 (categorical).
    """
    q = _rows(chances)
    return q @ _higher(q.shape[1]) @ q.T


def _higher(n_levels: int) -> np.ndarray:
    """(B, B) 1 where the row's level is higher, 1/2 where it is the same."""
    level = np.arange(n_levels)
    return (np.sign(level[:, None] - level[None, :]) + 1) / 2


def categorical_loss(
    logits: np.ndarray, preferences: np.ndarray, n_levels: int
) -> tuple[float, np.ndarray]:
    """Cross-entropy of preferences under the categorical model, and its gradient (M B,).

    Args:
        logits: (M B,) item by item. preferences: (M, M).
    """
    n = len(preferences)
    q = softmax(logits.reshape(n, n_levels), axis=1)
    higher = _higher(n_levels)
    model = q @ higher @ q.T
    weight = _pair_weights(preferences)
    slope = -weight / np.maximum(model, 1e-300)
    d_q = slope @ q @ higher.T + slope.T @ q @ higher
    d_logits = q * (d_q - (q * d_q).sum(axis=1, keepdims=True))
    return float(-(weight * np.log(np.maximum(model, 1e-300))).sum()), d_logits.ravel()


def fit_categorical_utilities(preferences: Any, n_levels: int = 10, l2: float = 1e-4) -> np.ndarray:
    """(M, B) chances of B ordered levels that make the preferences likely.

    Only the order of the levels means anything: their distances are a convention.

    Args:
        preferences: (M, M). n_levels: B. l2: penalty on the logits.

    Raises:
        UninformativeDataError: a single item. InvalidHyperparameterError: fewer than two levels.
        NotConvergedError: the fit stopped early.
    """
    p = check_preferences(preferences)
    if n_levels < 2:
        raise InvalidHyperparameterError(f"n_levels is {n_levels}; an order needs two levels.")

    def loss(x):
        value, gradient = categorical_loss(x, p, n_levels)
        return value + l2 * x @ x / 2, gradient + l2 * x

    tilt = (borda_counts(p) - 0.5)[:, None] * np.linspace(-1, 1, n_levels)
    return softmax(_minimise(loss, tilt.ravel()).reshape(len(p), n_levels), axis=1)


def _minimise(loss, start: np.ndarray) -> np.ndarray:
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-13}
    )
    if not found.success:
        raise NotConvergedError(f"the fit stopped early ({found.message}); raise the penalty l2.")
    return found.x


# Caution: a low quantile --------------------------------------------------------------------------


def normal_quantile(mean: Any, std: Any, level: float) -> np.ndarray:
    """m + s Phi^-1(level): with a level of 0.01 the utility that all but 1 % of contexts exceed."""
    _check_level(level)
    return as_floats(mean, "mean") + ndtri(level) * as_floats(std, "std")


def histogram_quantile(chances: Any, level: float) -> np.ndarray:
    """(M,) quantile of a histogram with B equal bins on [0, 1], linear inside a bin.

    Args:
        chances: (M, B) mass of each bin. level: in (0, 1).

    Source: the code of Siththaranjan et al. 2023, summarize_results.py.
    """
    _check_level(level)
    q = _rows(chances)
    upto = np.cumsum(q, axis=1)
    below = upto - q
    bin_ = np.argmax(upto >= np.minimum(level, upto[:, -1:]), axis=1)
    row = np.arange(len(q))
    return (bin_ + (level - below[row, bin_]) / q[row, bin_]) / q.shape[1]


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InvalidHyperparameterError(
            f"level is {level}; a quantile's level is between 0 and 1."
        )
