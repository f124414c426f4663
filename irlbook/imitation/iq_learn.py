"""IQ-Learn: imitation by one function of Q that is made large, without an adversary.

Each Q names its own soft policy and its own reward, r = Q - gamma P V. So the reward player can be
written in terms of Q, where the policy player has already answered (Garg et al. 2021, eq 9):

    J(Q) = sum rho_E phi(Q - gamma P V) - (1 - gamma) sum p_0 V,   V = beta log sum exp(Q / beta),

with phi(x) = x - x^2 / (4 alpha) for the chi^2 regulariser, and phi(x) = x without one.
Without it J is concave. With it J is concave where r <= 2 alpha everywhere, as at its maximum;
beyond that phi falls, and J need not be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from irlbook.errors import InvalidHyperparameterError
from irlbook.imitation.adversarial import check_occupancy, normalised_occupancy
from irlbook.mdp import TabularMDP
from irlbook.planning import soft_backup

__all__ = ["IQResult", "inverse_bellman", "iq_learn", "iq_objective"]


@dataclass(frozen=True)
class IQResult:
    """Q (S, A) at the maximum, its soft policy, its reward, J, and the largest slope left."""

    q: np.ndarray
    policy: np.ndarray
    reward: np.ndarray
    objective: float
    gradient: float


def inverse_bellman(q: np.ndarray, mdp: TabularMDP, beta: float = 1.0) -> np.ndarray:
    """(S, A) the reward under which Q is its own soft optimum, r = Q - gamma P V, eq 8.10."""
    values = soft_backup(q, beta, None)[0] * ~mdp.terminal
    return q - mdp.discount * (mdp.transitions @ values).reshape(q.shape)


def iq_objective(
    q: np.ndarray,
    mdp: TabularMDP,
    expert: np.ndarray,
    *,
    alpha: float = np.inf,
    beta: float = 1.0,
) -> tuple[float, np.ndarray]:
    """J(Q), to be maximised, and its exact gradient (S, A), eq 8.11.

    Args:
        expert: (S, A) normalised occupancy. alpha: strength of the chi^2 bound on rewards, about
            their largest size over 2; inf for none.
    """
    values, policy = soft_backup(q, beta, None)
    values = values * ~mdp.terminal
    reward = q - mdp.discount * (mdp.transitions @ values).reshape(q.shape)
    objective = (expert * (reward - reward**2 / (4 * alpha))).sum()
    objective -= (1 - mdp.discount) * mdp.start @ values
    slope = expert * (1 - reward / (2 * alpha))  # rho_E phi'(r)
    arriving = mdp.discount * (mdp.transitions.T @ slope.reshape(-1))
    arriving = (arriving + (1 - mdp.discount) * mdp.start) * ~mdp.terminal
    return float(objective), slope - arriving[:, None] * policy


def iq_learn(
    mdp: TabularMDP,
    expert: np.ndarray,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    max_iterations: int = 3000,
) -> IQResult:
    """Maximise J(Q) by L-BFGS from Q = 0.

    At the maximum rho_pi = rho_E (1 - r / (2 alpha)): the reward says which pairs the policy still
    visits too rarely, eq 8.12.

    Raises:
        UnnormalisedOccupancyError: episodes end; use with_absorbing_state.
    """
    if alpha <= 0 or beta <= 0:
        raise InvalidHyperparameterError("alpha and beta must be positive.")
    check_occupancy(mdp, expert)
    normalised_occupancy(mdp, np.full(mdp.reward.shape, 1.0 / mdp.n_actions))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = iq_objective(
            flat.reshape(mdp.reward.shape), mdp, expert, alpha=alpha, beta=beta
        )
        return -value, -gradient.reshape(-1)

    found = optimize.minimize(
        loss,
        np.zeros(mdp.reward.size),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30},
    )
    q = found.x.reshape(mdp.reward.shape)
    return IQResult(
        q,
        soft_backup(q, beta, None)[1],
        inverse_bellman(q, mdp, beta),
        float(-found.fun),
        float(np.abs(found.jac).max()),
    )
