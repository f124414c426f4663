"""Pairs chosen for what a policy gains, not for the error of a reward. All sums are exact.

R responses have log-probabilities (R,), features (R, K) and rewards r = phi . w. A policy is the
optimum of RLHF for a reward, pi_w = pi_ref exp(r / beta) / Z (`lm.enumerable.tilted`), and misses
beta KL(pi || pi*) of the optimum's value (`lm.enumerable.kl_from_logps`). A *pair density* q is
(R, R) and symmetric. It says how often a pair of responses is shown to the chooser, who is
Bradley–Terry's with temperature 1.

Source: Feng, Kwiatkowski, Zheng, Kempe and Duan 2025 (2502.04270), PILAF; the derivations are in
chapter 16.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.special import expit

from irlbook.errors import (
    InvalidHyperparameterError,
    NotConvergedError,
    NotStochasticError,
    ShapeError,
    shown,
)

__all__ = [
    "PairRule",
    "best_pair_density",
    "expected_ascent",
    "expected_policy_loss",
    "feature_covariance",
    "pair_density",
    "pair_information",
    "value_gradient",
]

PairRule = Literal["uniform", "on-policy", "PILAF"]


def pair_density(rule: PairRule, log_policy: Any, rewards: Any) -> np.ndarray:
    """(R, R) symmetric, sums to 1: how often each ordered pair is shown.

    - "uniform": every pair alike. - "on-policy": two independent draws of the policy.
    - "PILAF": pi(a) pi(b) (2 + e^(r_a - r_b) + e^(r_b - r_a)), normalised. It is a mixture: two
      draws of pi with probability 1 / (1 + Z+ Z-), else one draw of pi e^r / Z+ and one of
      pi e^-r / Z-, in random order (T-PILAF in the paper).

    Args:
        log_policy: (R,) of the policy that draws. rewards: (R,) its reward, in units of the
            chooser's temperature.

    Raises:
        InvalidHyperparameterError: another rule.
    """
    log_p, r = np.asarray(log_policy, dtype=float), np.asarray(rewards, dtype=float)
    if log_p.shape != r.shape or r.ndim != 1:
        raise ShapeError(f"log_policy {log_p.shape} and rewards {r.shape} must be (R,) both.")
    if abs(np.exp(log_p).sum() - 1) > 1e-6:
        raise NotStochasticError("log_policy must hold log-probabilities of all responses.")
    if rule == "uniform":
        return np.full((len(r), len(r)), 1.0 / len(r) ** 2)
    both = np.exp(log_p[:, None] + log_p[None, :])
    if rule == "on-policy":
        return both
    if rule == "PILAF":
        gap = r[:, None] - r[None, :]
        weight = both * (2 + np.exp(gap) + np.exp(-gap))
        return np.asarray(weight / weight.sum())
    raise InvalidHyperparameterError(
        f"rule is {shown(rule)}; use 'uniform', 'on-policy' or 'PILAF'."
    )


def pair_information(density: Any, features: Any, rewards: Any) -> np.ndarray:
    """(K, K) mean information of a comparison: sum_ab q(a,b) p (1 - p) d d', d = phi_a - phi_b."""
    q, phi, r = (np.asarray(x, dtype=float) for x in (density, features, rewards))
    p = expit(r[:, None] - r[None, :])
    weight = q * p * (1 - p)  # symmetric
    total = phi.T @ (weight.sum(axis=1)[:, None] * phi)
    return np.asarray(2 * (total - phi.T @ weight @ phi))


def expected_ascent(density: Any, features: Any, rewards: Any, gold: Any) -> np.ndarray:
    """(K,) expected gradient of the log-likelihood of one comparison at the current reward.

        sum_ab q(a,b) (sigma(g_a - g_b) - sigma(r_a - r_b)) (phi_a - phi_b)

    Args:
        density: (R, R). features: (R, K). rewards: (R,) the current model's. gold: (R,) the
            chooser's.
    """
    q, phi, r, g = (np.asarray(x, dtype=float) for x in (density, features, rewards, gold))
    surprise = q * (expit(g[:, None] - g[None, :]) - expit(r[:, None] - r[None, :]))
    return np.asarray(phi.T @ (surprise.sum(axis=1) - surprise.sum(axis=0)))


def feature_covariance(log_policy: Any, features: Any) -> np.ndarray:
    """(K, K) covariance of the features under a policy."""
    p, phi = np.exp(np.asarray(log_policy, dtype=float)), np.asarray(features, dtype=float)
    centred = phi - p @ phi
    return np.asarray(centred.T @ (p[:, None] * centred))


def value_gradient(
    log_policy: Any, log_ref: Any, features: Any, gold: Any, beta: float
) -> np.ndarray:
    """(K,) gradient in w of J = E_pi[gold] - beta KL(pi || pi_ref), pi = pi_w.

    dJ / dw = Cov_pi(gold - beta log(pi / pi_ref), phi) / beta
    """
    log_p, phi = np.asarray(log_policy, dtype=float), np.asarray(features, dtype=float)
    p = np.exp(log_p)
    worth = np.asarray(gold, dtype=float) - beta * (log_p - np.asarray(log_ref, dtype=float))
    return np.asarray((phi - p @ phi).T @ (p * (worth - p @ worth)) / beta)


def expected_policy_loss(covariance: Any, information: Any, n: int, beta: float) -> float:
    """Loss of the policy to be expected after n comparisons, for large n.

        trace(C I^-1) / (2 beta n)

    Args:
        covariance: (K, K) C, of the features under the best policy. information: (K, K) I, of one
            comparison (`pair_information`). n: comparisons. beta: the price of a nat.
    """
    return float(np.trace(np.linalg.solve(information, covariance)) / (2 * beta * n))


def best_pair_density(
    features: Any,
    rewards: Any,
    covariance: Any,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 5000,
) -> np.ndarray:
    """(R, R) the pair density that makes trace(C I^-1) smallest: no other one teaches more of pi.

    Multiplicative steps q <- q sqrt(s), s(a,b) = p (1 - p) d' I^-1 C I^-1 d, normalised. By the
    equivalence theorem q is best where s is nowhere above its mean trace(C I^-1), and
    max s / trace - 1 bounds the relative distance from the optimum.

    Raises:
        NotConvergedError: that bound is still above the tolerance.

    Source: Silvey, Titterington and Torsney 1978 (the steps); Kiefer 1974 (the theorem).
    """
    phi, r, c = (np.asarray(x, dtype=float) for x in (features, rewards, covariance))
    i, j = np.triu_indices(len(r), 1)
    d = phi[i] - phi[j]
    p = expit(r[i] - r[j])
    d = d * np.sqrt(p * (1 - p))[:, None]  # (P, K)
    q = np.full(len(d), 1 / len(d))
    for _ in range(max_iterations):
        inverse = np.linalg.inv(d.T @ (q[:, None] * d))
        middle = inverse @ c @ inverse
        s = np.einsum("pk,kl,pl->p", d, middle, d, optimize=True)
        bound = s.max() / np.trace(inverse @ c) - 1
        if bound <= tolerance:
            density = np.zeros((len(r), len(r)))
            density[i, j] = density[j, i] = q / 2
            return density
        q = q * np.sqrt(s)
        q = q / q.sum()
    raise NotConvergedError(
        f"the pair density is within {bound:.2g} of the best after {max_iterations} steps; raise "
        "max_iterations or the tolerance."
    )
