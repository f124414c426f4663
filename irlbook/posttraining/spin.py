"""Self-play on demonstrations: SPIN and GSIL, exactly.

Round t puts the policy's own samples in the place of the rejected responses. SPIN compares a
demonstration y with a sample y' in pairs, which is DPO's loss with the last policy as reference
(`dpo.dpo_loss` on `demonstration_pairs`); GSIL classifies each response alone:

    SPIN  -log sigma(f(y) - f(y')),    GSIL  -log sigma(f(y)) - log sigma(-f(y')),

with f = lam log(pi / pi_t). With endless data SPIN's best policy is known in closed form,

    pi_{t+1}(y)  ~  pi_t(y) (p_E(y) / pi_t(y))^(1/lam),

so what is left of log(p_E / pi) shrinks by 1 - 1/lam in a round. The demonstrator is the only fixed
point. It attracts where lam > 1/2; below, the exact rounds overshoot and move away.

Sources: Chen et al. 2024 (2401.01335), theorems 5.2 and 5.4; Xiao et al. 2024 (2410.10093). The
condition on lam follows from the closed form.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import logsigmoid

from irlbook.errors import (
    InfiniteDivergenceError,
    InvalidHyperparameterError,
    NotConvergedError,
    ShapeError,
)
from irlbook.lm.enumerable import check_logps

__all__ = ["gsil_loss", "gsil_update", "spin_population_loss", "spin_update"]


def gsil_loss(policy_logps: Tensor, opponent_logps: Tensor, lam: float) -> Tensor:
    """(P,) -log sigma(f(y)) - log sigma(-f(y')), f = lam log(pi / pi_t), in its logistic form.

    Args:
        policy_logps, opponent_logps: (P, 2) summed log-probabilities, the demonstration in column
            0 and the opponent's sample in column 1.

    Raises:
        ShapeError: other shapes. InvalidHyperparameterError: lam is not positive.

    Source: Xiao et al. 2024 (2410.10093), the logistic member of their family.
    """
    _check_lam(lam)
    if policy_logps.shape != opponent_logps.shape or policy_logps.shape[-1:] != (2,):
        raise ShapeError(
            f"log-probabilities have shapes {tuple(policy_logps.shape)} and "
            f"{tuple(opponent_logps.shape)}; expected (pairs, 2) each."
        )
    f = lam * (policy_logps - opponent_logps)
    return -logsigmoid(f[:, 0]) - logsigmoid(-f[:, 1])


def spin_update(log_expert: np.ndarray, log_opponent: np.ndarray, lam: float) -> np.ndarray:
    """(R,) log-probabilities of the best policy of a round, pi_t (p_E / pi_t)^(1/lam) / Z, eq 18.9.

    Raises:
        InfiniteDivergenceError: a demonstrated response that the opponent never writes.
        InvalidHyperparameterError: lam is not positive.
    """
    _check_lam(lam)
    p, q = _both(log_expert, log_opponent)
    can = ~np.isneginf(q)
    if (~can & ~np.isneginf(p)).any():
        raise InfiniteDivergenceError(
            "a demonstrated response has probability 0 under the opponent, and no round of "
            "self-play brings it back. Begin with a policy that writes every response."
        )
    scores = np.full(p.shape, -np.inf)
    scores[can] = q[can] + (p[can] - q[can]) / lam
    return scores - np.logaddexp.reduce(scores)


def spin_population_loss(
    log_policy: np.ndarray, log_expert: np.ndarray, log_opponent: np.ndarray, lam: float
) -> float:
    """E[-log sigma(f(y) - f(y'))] over y ~ p_E and y' ~ pi_t, a sum over all pairs of responses."""
    p, q = _both(log_expert, log_opponent)
    f = lam * (check_logps(log_policy, "log_policy") - q)
    losses = np.logaddexp(0.0, f[None, :] - f[:, None])  # (demonstration, sample)
    return float(np.exp(p) @ losses @ np.exp(q))


def gsil_update(
    log_expert: np.ndarray, log_opponent: np.ndarray, lam: float, *, max_iterations: int = 2000
) -> np.ndarray:
    """(R,) the best policy of a round of GSIL with endless data, found numerically.

    For lam = 1 it is the demonstrator, as for SPIN. For another lam the two differ: classification
    fixes the zero of f, and a distribution that sums to 1 cannot follow it.

    Raises:
        NotConvergedError, InfiniteDivergenceError, InvalidHyperparameterError.
    """
    _check_lam(lam)
    p, q = _both(log_expert, log_opponent)
    if np.isneginf(q).any():
        raise InfiniteDivergenceError(
            "the opponent never writes some response. Begin with a policy that writes them all."
        )
    weights, base = torch.tensor(np.exp([p, q])), torch.tensor(q)

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        logits = torch.tensor(z, requires_grad=True)
        f = lam * (torch.log_softmax(logits, 0) - base)
        loss = -(weights[0] * logsigmoid(f) + weights[1] * logsigmoid(-f)).sum()
        loss.backward()
        assert logits.grad is not None
        return float(loss.detach()), logits.grad.numpy()

    found = minimize(
        value,
        q.copy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "ftol": 1e-16, "gtol": 1e-10},
    )
    if np.abs(found.jac).max() > 1e-6:
        raise NotConvergedError(
            f"the gradient is still {np.abs(found.jac).max():.1e}; raise max_iterations, or take a "
            "larger lam."
        )
    return found.x - np.logaddexp.reduce(found.x)


def _both(log_expert: np.ndarray, log_opponent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, q = check_logps(log_expert, "log_expert"), check_logps(log_opponent, "log_opponent")
    if p.shape != q.shape:
        raise ShapeError(f"{p.shape} and {q.shape} must hold the same responses.")
    return p, q


def _check_lam(lam: float) -> None:
    if not (lam > 0 and np.isfinite(lam)):
        raise InvalidHyperparameterError(f"lam is {lam}; the price of a log-ratio is positive.")
