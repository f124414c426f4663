"""AdvPO: the policy that is best against the worst reward that the data leave possible.

A linear reward w . phi(y) was fitted to comparisons. What they leave open is an ellipsoid around
the estimate, (w - w_hat)^T S^-1 (w - w_hat) <= radius^2, with S the posterior covariance.
An adversary picks w there, after the policy:

    max_pi min_w  w . (E_pi phi - anchor) - beta KL(pi || pi_ref)
  = max_pi  w_hat . (E_pi phi - anchor) - radius |E_pi phi - anchor|_S - beta KL(pi || pi_ref)

The anchor, the mean feature of reference responses, says what the reward is compared with. The
price is on the uncertainty of a *mean*: errors of single responses may cancel in it. A penalty on
each response, `penalised_rewards`, is larger, since a norm of a mean is at most the mean norm.

The objective is linear in w and concave in pi, so the two may be exchanged, and what is left is
small: find the w in the ellipsoid whose *own* best policy is worth least. That one is the answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from irlbook.errors import InvalidHyperparameterError, NotConvergedError, ShapeError
from irlbook.lm.enumerable import check_logps, kl_from_logps, tilted

__all__ = ["AdversarialOptimum", "adversarial_optimum", "penalised_rewards"]


class AdversarialOptimum(NamedTuple):
    """The policy, the worst reward against it, and how far the two are from each other.

    Attributes:
        log_probabilities: (R,) of the policy.
        weights: (K,) the adversary's reward.
        value: the objective, in the reward's unit.
        gap: what the policy may be short of the best, at most; 0 in theory.
    """

    log_probabilities: np.ndarray
    weights: np.ndarray
    value: float
    gap: float


def penalised_rewards(
    features: np.ndarray,
    weights: np.ndarray,
    covariance: np.ndarray,
    radius: float,
    anchor: np.ndarray,
) -> np.ndarray:
    """(R,) w_hat . phi - radius |phi - anchor|_S: each response is charged for its own uncertainty.

    Args:
        features: (R, K). weights: (K,) the estimate. covariance: (K, K) of the posterior.
        radius: standard deviations, >= 0. anchor: (K,) mean feature of the reference responses.
    """
    _check(features, weights, covariance, radius, anchor)
    away = features - anchor
    return features @ weights - radius * np.sqrt(np.einsum("rk,kl,rl->r", away, covariance, away))


def adversarial_optimum(
    log_reference: np.ndarray,
    features: np.ndarray,
    weights: np.ndarray,
    covariance: np.ndarray,
    *,
    beta: float,
    radius: float,
    anchor: np.ndarray,
    tolerance: float = 1e-6,
) -> AdversarialOptimum:
    """The saddle point over all policies, for responses that can be listed.

    With w = w_hat - radius L u, L L^T = S and |u| <= 1, the value of the best policy against w is
    beta log E_ref exp(w . phi / beta) - w . anchor, which is convex in u.

    Args:
        log_reference: (R,) nats. The rest as for `penalised_rewards`.
        beta: the price of a nat, > 0. tolerance: the largest gap that is allowed.

    Raises:
        InvalidHyperparameterError: radius < 0, beta <= 0, or a covariance that is none.
        ShapeError: parts that do not belong together.
        NotConvergedError: the gap is above the tolerance.

    Source: Zhang et al. 2024 (2403.05171), whose optimisation is by PPO; the exchange of the two
    players is the minimax theorem.
    """
    _check(features, weights, covariance, radius, anchor)
    log_ref = check_logps(log_reference, "log_reference")
    root = radius * np.linalg.cholesky(covariance)  # (K, K)

    def of_adversary(u: np.ndarray) -> tuple[float, np.ndarray]:
        w = weights - root @ u
        log_p, log_z = tilted(log_ref, features @ w, beta)
        mean = np.exp(log_p) @ features - anchor  # (K,)
        return beta * log_z - w @ anchor, -root.T @ mean

    found = minimize(
        of_adversary,
        np.zeros(len(weights)),
        jac=True,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda u: 1 - u @ u, "jac": lambda u: -2 * u},
        options={"maxiter": 500, "ftol": 1e-14},
    )
    u = found.x / max(1.0, float(np.linalg.norm(found.x)))
    w = weights - root @ u
    log_p, _ = tilted(log_ref, features @ w, beta)
    mean = np.exp(log_p) @ features - anchor
    worst = weights @ mean - np.linalg.norm(root.T @ mean)  # of this policy, over the ellipsoid
    value = float(worst - beta * kl_from_logps(log_p, log_ref))
    gap = float(of_adversary(u)[0] - value)
    if not gap <= tolerance:
        raise NotConvergedError(
            f"the policy may be {gap:.1e} short of the best, above {tolerance:.1e}; scale the "
            "features to a size near 1, or allow a larger tolerance."
        )
    return AdversarialOptimum(log_p, w, value, gap)


def _check(features, weights, covariance, radius, anchor) -> None:
    k = len(weights)
    if features.ndim != 2 or features.shape[1] != k:
        raise ShapeError(f"features are {features.shape} and weights {k}; they need one K.")
    if covariance.shape != (k, k) or anchor.shape != (k,):
        raise ShapeError(f"covariance {covariance.shape} and anchor {anchor.shape} need K = {k}.")
    if not radius >= 0:
        raise InvalidHyperparameterError(f"radius is {radius}; it must not be negative.")
    if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance)[0] <= 0:
        raise InvalidHyperparameterError(
            "the covariance is not symmetric and positive definite; take the inverse of the "
            "posterior's precision, whose prior makes it so."
        )
