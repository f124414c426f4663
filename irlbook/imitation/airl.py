"""AIRL: a discriminator built so that a reward can be read off it (Fu, Luo & Levine 2018).

    D(s, a) = e^f / (e^f + pi(a|s)),      f(s, a, s') = g + gamma h(s') - h(s),         eq 8.8.

With g(s) a function of the state alone, in a deterministic world, g is the expert's reward up to a
constant; with g(s, a) the best f is log pi_E(a|s), the expert's advantage, which knows the old
world's moves by heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from irlbook.errors import InvalidHyperparameterError
from irlbook.imitation.adversarial import (
    AIRL,
    advantages,
    density_ratio,
    mirror_step,
    normalised_occupancy,
)
from irlbook.mdp import TabularMDP

__all__ = ["AIRLResult", "airl", "airl_design", "fit_discriminator"]


@dataclass(frozen=True)
class AIRLResult:
    """What AIRL leaves.

    Attributes:
        reward: (S, A) g, what is carried to another world; the same for all actions if state-only.
        potential: (S,) h. policy: (S, A). divergences: KL(rho_pi || rho_E) before each step.
    """

    reward: np.ndarray
    potential: np.ndarray
    policy: np.ndarray
    divergences: np.ndarray


def airl_design(mdp: TabularMDP, state_only: bool) -> sparse.csr_array:
    """(S*A, K) f as a linear function of its parameters: (g, h) if state-only, else g alone.

    A g(s, a) can imitate any h, so that h would be redundant there.
    """
    n_states, n_actions = mdp.reward.shape
    if not state_only:
        return sparse.csr_array(sparse.identity(n_states * n_actions, format="csr"))
    here = sparse.csr_array(sparse.kron(sparse.identity(n_states), np.ones((n_actions, 1))))
    return sparse.csr_array(sparse.hstack([here, mdp.discount * mdp.transitions - here]))


def fit_discriminator(
    design: np.ndarray,
    log_policy: np.ndarray,
    expert: np.ndarray,
    occupancy: np.ndarray,
    parameters: np.ndarray,
    *,
    ridge: float = 1e-10,
    steps: int = 20,
) -> np.ndarray:
    """(K,) logistic regression of expert against policy with scores f - log pi (Newton). Convex."""
    x = design
    positive, negative = expert.reshape(-1), occupancy.reshape(-1)

    def loss(w: np.ndarray) -> float:
        z = x @ w - log_policy.reshape(-1)
        cost = positive @ np.logaddexp(0, -z) + negative @ np.logaddexp(0, z)
        return cost + 0.5 * ridge * w @ w

    value = loss(parameters)
    for _ in range(steps):
        d = 1.0 / (1.0 + np.exp(-np.clip(x @ parameters - log_policy.reshape(-1), -700, 700)))
        gradient = x.T @ ((positive + negative) * d - positive) + ridge * parameters
        # A floor under d (1 - d): where one of the two hardly ever is, Newton would leap.
        curvature = (x.T * ((positive + negative) * np.maximum(d * (1 - d), 0.1))) @ x
        move = np.linalg.solve(curvature + ridge * np.eye(len(parameters)), gradient)
        if gradient @ move < 1e-18:
            break
        rate = 1.0
        while (trial := loss(parameters - rate * move)) > value and rate > 1e-6:
            rate *= 0.5
        parameters, value = parameters - rate * move, trial
    return parameters


def airl(
    mdp: TabularMDP,
    expert: np.ndarray,
    *,
    state_only: bool = True,
    iterations: int = 200,
    step: float = 0.5,
    ridge: float = 1e-10,
) -> AIRLResult:
    """AIRL with exact occupancies: fit the discriminator, pay f - log pi, step the policy.

    Args:
        expert: (S, A) normalised occupancy, positive wherever a policy can be.
        step: of the policy, in log-probability a unit of advantage.

    Raises:
        InfiniteDivergenceError, UnnormalisedOccupancyError: as `match_occupancy`.
    """
    if iterations < 1 or step <= 0 or ridge <= 0:
        raise InvalidHyperparameterError("iterations, step and ridge must be positive.")
    n_states, n_actions = mdp.reward.shape
    design = airl_design(mdp, state_only).toarray()
    parameters = np.zeros(design.shape[1])
    policy = np.full((n_states, n_actions), 1.0 / n_actions)
    path = []
    for _ in range(iterations):
        occupancy = normalised_occupancy(mdp, policy)
        density_ratio(expert, occupancy)
        path.append(AIRL.between(expert, occupancy))
        log_policy = np.log(np.maximum(policy, 1e-300))
        parameters = fit_discriminator(
            design, log_policy, expert, occupancy, parameters, ridge=ridge
        )
        f = (design @ parameters).reshape(n_states, n_actions)
        advantage = advantages(mdp, policy, f - log_policy)
        rate = min(step, 4.0 / max(np.abs(advantage).max(), 1e-300))
        policy = mirror_step(policy, advantage, rate)
    if state_only:
        g, h = parameters[:n_states], parameters[n_states:]
        reward = np.repeat(g[:, None], n_actions, axis=1)
    else:
        reward, h = parameters.reshape(n_states, n_actions), np.zeros(n_states)
    path.append(AIRL.between(expert, normalised_occupancy(mdp, policy)))
    return AIRLResult(reward, h, policy, np.array(path))
