"""Adversarial imitation as one problem: bring the occupancy of a policy to that of an expert.

    min over pi of  D_f(rho_E || rho_pi) = sum rho_pi f(u),   u = rho_E / rho_pi,     eq 8.1.

GAIL, AIRL and FAIRL are three choices of f. In a finite world all of it is exact: occupancies,
the best discriminator, the divergence, its gradient. Occupancies are normalised here (they sum to
1), so the worlds must not end; `with_absorbing_state` makes an episode go on in a state that pays
nothing. A neural version is in `irlbook.imitation.gail`.

Sources: Ho & Ermon 2016 (GAIL), Fu et al. 2018 (AIRL), Ghasemipour et al. 2020 (FAIRL),
Nowozin et al. 2016 (the variational form).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, sparse
from scipy.special import rel_entr

from irlbook.errors import (
    InfiniteDivergenceError,
    InvalidHyperparameterError,
    NotStochasticError,
    ShapeError,
    UnnormalisedOccupancyError,
)
from irlbook.mdp import TabularMDP, Trajectories, check_policy
from irlbook.planning import SolverReport, evaluate_policy, occupancy_measure, q_values

__all__ = [
    "AIRL",
    "AdversarialResult",
    "Array",
    "DIVERGENCES",
    "Divergence",
    "FAIRL",
    "GAIL",
    "advantages",
    "best_discriminator",
    "check_occupancy",
    "class_divergence",
    "density_ratio",
    "discriminator_loss",
    "discriminator_reward",
    "empirical_occupancy",
    "fit_policy_class",
    "imitation_reward",
    "match_occupancy",
    "mirror_step",
    "normalised_occupancy",
    "softmax_policy",
    "variational_bound",
    "with_absorbing_state",
]

Array = np.ndarray


@dataclass(frozen=True)
class Divergence:
    """One convex f with f(1) = 0, and what follows from it. Functions of arrays u or T.

    Attributes:
        f: f(u). slope: f'(u), the best T. conjugate: f*(T).
        between: D_f(rho_E || rho_pi) in closed form, with its limits where one of them is 0.
        reward: f*(f'(u)) = u f'(u) - f(u), what the policy is paid, eq 8.5.
    """

    name: str
    f: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    conjugate: Callable[[Array], Array]
    between: Callable[[Array, Array], float]
    reward: Callable[[Array], Array]


def _two_js(expert: Array, policy: Array) -> float:
    middle = 0.5 * (expert + policy)
    return float((rel_entr(expert, middle) + rel_entr(policy, middle)).sum())


GAIL = Divergence(
    "GAIL",
    f=lambda u: rel_entr(u, 1.0) - (u + 1.0) * np.log((u + 1.0) / 2.0),
    slope=lambda u: np.log(2.0 * u / (1.0 + u)),
    conjugate=lambda t: -np.log(2.0 - np.exp(t)),
    between=_two_js,
    reward=lambda u: np.log((1.0 + u) / 2.0),
)
AIRL = Divergence(
    "AIRL",
    f=lambda u: -np.log(u),
    slope=lambda u: -1.0 / u,
    conjugate=lambda t: -1.0 - np.log(-t),
    between=lambda expert, policy: float(rel_entr(policy, expert).sum()),
    reward=lambda u: np.log(u) - 1.0,
)
FAIRL = Divergence(
    "FAIRL",
    f=lambda u: rel_entr(u, 1.0),
    slope=lambda u: 1.0 + np.log(u),
    conjugate=lambda t: np.exp(t - 1.0),
    between=lambda expert, policy: float(rel_entr(expert, policy).sum()),
    reward=lambda u: u,
)
DIVERGENCES = (GAIL, AIRL, FAIRL)


# --- occupancies that sum to one ----------------------------------------------------------------


def with_absorbing_state(mdp: TabularMDP) -> TabularMDP:
    """The same world, in which an episode that ended goes on for ever in its last state, unpaid.

    Terminal states become loops that every action takes. All values stay; occupancies now sum to
    1 / (1 - gamma), so that they are comparable, and a learned reward may say what ending is worth.
    """
    ended = np.flatnonzero(mdp.terminal)
    rows = (ended[:, None] * mdp.n_actions + np.arange(mdp.n_actions)).ravel()
    loops = sparse.csr_array(
        (np.ones(len(rows)), (rows, np.repeat(ended, mdp.n_actions))), shape=mdp.transitions.shape
    )
    return TabularMDP.create(
        sparse.csr_array(mdp.transitions + loops),
        mdp.reward,
        start=mdp.start,
        discount=mdp.discount,
        terminal=None,
    )


def normalised_occupancy(mdp: TabularMDP, policy: Any) -> Array:
    """(S, A) (1 - gamma) rho_pi, which sums to 1.

    Raises:
        UnnormalisedOccupancyError: episodes end, so that it would not; or the discount is 1.
    """
    if mdp.discount == 1.0:
        raise UnnormalisedOccupancyError(
            "with discount 1 a policy that never ends has an infinite occupancy; take discount < 1."
        )
    occupancy = (1.0 - mdp.discount) * occupancy_measure(mdp, policy)
    if abs(occupancy.sum() - 1.0) > 1e-6:
        raise UnnormalisedOccupancyError(
            f"the occupancy sums to {occupancy.sum():.3g}, not 1: episodes end. Two policies whose "
            "episodes differ in length are then not comparable; use with_absorbing_state(mdp)."
        )
    return occupancy


def check_occupancy(mdp: TabularMDP, expert: Array) -> None:
    """Refuse what is no occupancy (S, A) of this MDP that sums to 1.

    Raises:
        ShapeError: another shape.
        NotStochasticError: it does not sum to 1.
    """
    if expert.shape != mdp.reward.shape:
        raise ShapeError(f"expert has shape {expert.shape}; expected (S, A) = {mdp.reward.shape}.")
    if not abs(expert.sum() - 1.0) <= 1e-6:
        raise NotStochasticError(
            f"expert must be an occupancy that sums to 1; it sums to {expert.sum():.4g}. "
            "Use normalised_occupancy or empirical_occupancy."
        )


def empirical_occupancy(
    demonstrations: Trajectories, mdp: TabularMDP, *, smoothing: float = 0.0
) -> Array:
    """(S, A) share of each pair in the demonstrations, discounted by gamma^t; sums to 1.

    Args:
        smoothing: share given to all pairs alike; above 0 it keeps reverse KL finite.

    Raises:
        InvalidTrajectoryError: a demonstration is empty or impossible in `mdp`.
    """
    if not 0.0 <= smoothing < 1.0:
        raise InvalidHyperparameterError(f"smoothing must lie in [0, 1); got {smoothing}.")
    counts = demonstrations.validate(mdp).counts(mdp.n_states, mdp.n_actions, mdp.discount)
    return (1.0 - smoothing) * counts / counts.sum() + smoothing / counts.size


# --- the inner player: discriminator and bound --------------------------------------------------


def best_discriminator(expert: Array, occupancy: Array) -> Array:
    """(S, A) D* = rho_E / (rho_E + rho_pi), eq 8.3; 1/2 where neither ever is."""
    total = expert + occupancy
    return np.where(total > 0, expert / np.where(total > 0, total, 1.0), 0.5)


def discriminator_loss(scores: Array, expert: Array, occupancy: Array) -> tuple[float, Array]:
    """Cross-entropy -sum rho_E log D - sum rho_pi log(1 - D), D = sigma(scores); and its gradient.

    At D* it is 2 log 2 - D_GAIL: 2 log 2 when expert and policy cannot be told apart, eq 8.4.
    """
    loss = (expert * np.logaddexp(0.0, -scores) + occupancy * np.logaddexp(0.0, scores)).sum()
    return float(loss), (expert + occupancy) / (1.0 + np.exp(-scores)) - expert


def variational_bound(test: Array, expert: Array, occupancy: Array, which: Divergence) -> float:
    """E_E[T] - E_pi[f*(T)] <= D_f(rho_E || rho_pi), with equality at T = f'(u), eq 8.2.

    T must lie where f* is finite: below log 2 for GAIL, below 0 for AIRL, anywhere for FAIRL.
    Pairs that one of the two never visits count only for the other.
    """
    seen, visited = expert > 0, occupancy > 0
    gain = expert[seen] @ test[seen]
    return float(gain - occupancy[visited] @ which.conjugate(test[visited]))


def density_ratio(expert: Array, occupancy: Array) -> Array:
    """(S, A) u = rho_E / rho_pi; 1 where neither ever is.

    Raises:
        InfiniteDivergenceError: the expert was where the policy cannot come.
    """
    never = occupancy <= 0
    if (expert[never] > 0).any():
        s, a = np.argwhere(never & (expert > 0))[0]
        raise InfiniteDivergenceError(
            f"the expert was seen at state {s}, action {a}, where the policy never is. Start from "
            "a policy that tries every action, in the world in which the expert acted."
        )
    return np.where(never, 1.0, expert / np.where(never, 1.0, occupancy))


def imitation_reward(expert: Array, occupancy: Array, which: Divergence) -> Array:
    """(S, A) the reward that turns `pi` downhill on D_f: minus its derivative by rho_pi, eq 8.5.

    GAIL log((1+u)/2) = -log(1 - D*) - log 2, AIRL log u - 1 = log D* - log(1 - D*) - 1, FAIRL u.
    """
    ratio = density_ratio(expert, occupancy)
    if which is AIRL and (ratio == 0).any():
        s, a = np.argwhere(ratio == 0)[0]
        raise InfiniteDivergenceError(
            f"reverse KL is infinite: the policy visits state {s}, action {a}, the expert never. "
            "Give empirical_occupancy a smoothing above 0, or take GAIL or FAIRL."
        )
    return which.reward(ratio)


def discriminator_reward(discriminator: Array, form: str) -> Array:
    """The three forms in use: "log D" (< 0), "-log(1-D)" (> 0), "logit" (their sum).

    Where episodes end, "log D" pays for ending soon and "-log(1-D)" for never ending, whatever the
    expert did: the survival bias (Kostrikov et al. 2019).
    """
    d = np.asarray(discriminator, dtype=float)
    if form == "log D":
        return np.log(d)
    if form == "-log(1-D)":
        return -np.log1p(-d)
    if form == "logit":
        return np.log(d) - np.log1p(-d)
    raise InvalidHyperparameterError(f'form must be "log D", "-log(1-D)" or "logit"; got {form!r}.')


# --- the outer player: the policy ---------------------------------------------------------------


@dataclass(frozen=True)
class AdversarialResult:
    """A policy and the course of the game.

    Attributes:
        policy (S, A); occupancy (S, A), sums to 1; reward (S, A), the last one paid.
        divergences: (iterations + 1,) D_f before each step and at the end.
        losses: (iterations + 1,) cross-entropy of the best discriminator.
    """

    policy: Array
    occupancy: Array
    reward: Array
    divergences: Array
    losses: Array
    report: SolverReport


def advantages(mdp: TabularMDP, policy: Array, reward: Array) -> Array:
    """(S, A) Q - V of `policy` under another reward."""
    world = mdp.with_reward(reward)
    q = q_values(world, evaluate_policy(world, policy))
    return q - (policy * q).sum(axis=1, keepdims=True)


def mirror_step(policy: Array, advantage: Array, step: float) -> Array:
    """pi <- pi exp(step A) / Z: the natural policy gradient of a table."""
    scores = np.log(np.maximum(policy, 1e-300)) + step * advantage
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def match_occupancy(
    mdp: TabularMDP,
    expert: Array,
    which: Divergence = GAIL,
    *,
    initial: Any = None,
    tolerance: float = 1e-9,
    max_iterations: int = 500,
) -> AdversarialResult:
    """The adversarial loop with both players exact: best discriminator, then a policy step, eq 8.6.

    The step is halved until D_f falls and grows again when it did: D_f never rises.

    Args:
        expert: (S, A) normalised occupancy, exact or from `empirical_occupancy`.
        initial: (S, A) policy with every action possible; None for uniform.
        tolerance: stop when D_f, or its fall in ten steps, is below.

    Raises:
        UnnormalisedOccupancyError, InfiniteDivergenceError: see above.
    """
    expert = np.asarray(expert, dtype=float)
    check_occupancy(mdp, expert)
    policy = (
        np.full(mdp.reward.shape, 1.0 / mdp.n_actions)
        if initial is None
        else check_policy(mdp, initial)
    )
    occupancy, step = normalised_occupancy(mdp, policy), 1.0
    path = [which.between(expert, occupancy)]
    losses = [2 * np.log(2.0) - _two_js(expert, occupancy)]
    converged = path[0] <= tolerance
    while not converged and len(path) <= max_iterations:
        advantage = advantages(mdp, policy, imitation_reward(expert, occupancy, which))
        # No probability changes by more than e^4 in one step: FAIRL's u may be huge.
        step = min(step, 4.0 / max(np.abs(advantage).max(), 1e-300))
        for _ in range(40):
            trial = mirror_step(policy, advantage, step)
            trial_occupancy = normalised_occupancy(mdp, trial)
            value = which.between(expert, trial_occupancy)
            if value < path[-1]:
                break
            step *= 0.5
        else:
            converged = True  # no step is downhill: a minimum to rounding
            break
        policy, occupancy, step = trial, trial_occupancy, 1.6 * step
        path.append(value)
        losses.append(2 * np.log(2.0) - _two_js(expert, occupancy))
        converged = value <= tolerance or (len(path) > 10 and path[-11] - value <= tolerance)
    report = SolverReport(
        f"match_occupancy {which.name}", bool(converged), len(path) - 1, float(path[-1]), tolerance
    )
    return AdversarialResult(
        policy,
        occupancy,
        imitation_reward(expert, occupancy, which),
        np.array(path),
        np.array(losses),
        report,
    )


def softmax_policy(weights: Array, features: Array) -> Array:
    """(S, A) pi(a|s) proportional to exp(features (S, A, K) . weights (K,))."""
    scores = np.asarray(features) @ np.asarray(weights)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def class_divergence(
    weights: Array, mdp: TabularMDP, features: Array, expert: Array, which: Divergence
) -> tuple[float, Array]:
    """D_f of the softmax policy of `weights`, and its exact gradient (K,), eq 8.7.

    The gradient is the policy gradient under the imitation reward, with the sign turned:
    no derivative of the discriminator is needed (it is at its best).
    """
    policy = softmax_policy(weights, features)
    occupancy = normalised_occupancy(mdp, policy)
    advantage = advantages(mdp, policy, imitation_reward(expert, occupancy, which))
    gradient = -np.einsum("sa,sak->k", occupancy * advantage, features)
    return which.between(expert, occupancy), gradient


def fit_policy_class(
    mdp: TabularMDP,
    features: Array,
    expert: Array,
    which: Divergence,
    *,
    initial: Array,
) -> tuple[Array, float]:
    """Minimise D_f over softmax policies with few weights (L-BFGS). Not convex: mind `initial`.

    Returns: weights (K,) and the divergence there.
    """
    found = optimize.minimize(
        class_divergence,
        np.asarray(initial, dtype=float),
        args=(mdp, features, expert, which),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9},
    )
    return found.x, float(found.fun)
