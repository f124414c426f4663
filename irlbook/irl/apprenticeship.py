"""Apprenticeship learning: be as good as the expert under every reward linear in the features.

Abbeel and Ng 2004. If a policy's feature expectations equal the expert's, it earns what the expert
earns, whatever the weights. Two ways to get there, both of them by planning again and again:

    max_margin   the weights that separate the expert from all policies so far by the widest margin
                 (a quadratic program; its dual is the nearest point of their convex hull);
    projection   only the last mixture and the newest policy are looked at; no program to solve.

Both return a *mixture of policies*. Their weights are the direction of what is still missing, and
no estimate of the expert's reward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from irlbook.errors import (
    ImproperPolicyError,
    InvalidHyperparameterError,
    ShapeError,
    TruncatedDemonstrationsError,
)
from irlbook.irl.dual import Features, check_expert
from irlbook.mdp import TabularMDP, Trajectories, feature_expectations
from irlbook.planning import (
    SolverReport,
    modified_policy_iteration,
    occupancy_measure,
)

__all__ = [
    "ApprenticeshipResult",
    "Planner",
    "apprenticeship",
    "expert_features",
    "nearest_in_hull",
    "policy_of",
    "project_on_segment",
    "sample_size",
]

Planner = Callable[[TabularMDP], np.ndarray]  # world -> policy (S, A)


@dataclass(frozen=True)
class ApprenticeshipResult:
    """What a run leaves, in the order in which policies were found.

    Attributes:
        weights: (n, K) unit direction that each policy but the first was planned for.
        policies: (n + 1, S, A).
        policy_features: (n + 1, K) feature expectations of each.
        mixture: (n + 1,) probability of each policy in the mixture that matches best.
        margins: (n + 1,) distance of the expert's features from the mixture so far.
        policy: (S, A) one stationary policy with the occupancy of the mixture, so the same return
            under every reward.
        report: converged means that the margin is at most the tolerance.
    """

    weights: np.ndarray
    policies: np.ndarray
    policy_features: np.ndarray
    mixture: np.ndarray
    margins: np.ndarray
    policy: np.ndarray
    report: SolverReport


def nearest_in_hull(points: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """The point of the convex hull of `points` (n, K) that is nearest to `target` (K,), eq 5.11.

    Wolfe's (1976) active-set method: keep a few points, move to the nearest point of the flat
    through them, drop those whose weight would turn negative, add the point that lies furthest
    towards the target; done when none does. Exact after finitely many steps, up to rounding.

    Returns:
        weights (n,) of the mixture, and the point (K,).
    """
    points, target = np.asarray(points, dtype=float), np.asarray(target, dtype=float)
    away = points - target  # the nearest point to 0 is sought
    slack = 1e-13 * max(float((away**2).sum(axis=1).max()), 1e-300)
    active = [int((away**2).sum(axis=1).argmin())]
    weights = np.ones(1)
    for _ in range(20 * (len(points) + points.shape[1])):
        here = weights @ away[active]
        newest = int((away @ here).argmin())
        if here @ here - away[newest] @ here <= slack or newest in active:
            break
        active, weights = [*active, newest], np.append(weights, 0.0)
        while True:
            flat = _nearest_on_flat(away[active])
            if (flat > 1e-12).all():
                weights = flat
                break
            falling = flat <= 1e-12
            drop = np.where(falling, weights / np.where(falling, weights - flat, 1.0), np.inf)
            share = min(1.0, float(drop.min()))
            weights = (1.0 - share) * weights + share * flat
            keep = (weights > 1e-12) & ~(falling & (drop <= share))
            active = [a for a, kept in zip(active, keep, strict=True) if kept]
            weights = weights[keep] / weights[keep].sum()
    mixture = np.zeros(len(points))
    mixture[active] = weights
    return mixture, mixture @ points


def _nearest_on_flat(corners: np.ndarray) -> np.ndarray:
    """Weights (n,), of sum 1 and any sign, of the point nearest to 0 on the flat through them."""
    n = len(corners)
    system = np.ones((n + 1, n + 1))
    system[0, 0] = 0.0
    system[1:, 1:] = corners @ corners.T
    scale = max(float(np.abs(system[1:, 1:]).max()), 1e-300)
    system[1:, 1:] /= scale
    return np.linalg.lstsq(system, np.append(1.0, np.zeros(n)), rcond=None)[0][1:]


def project_on_segment(start: Any, end: Any, target: Any) -> float:
    """The share of `end` in the mixture with `start` that is nearest to `target`, in [0, 1].

    Abbeel and Ng's projection step, eq 5.12, kept between the two points: a mixture cannot leave
    them.
    """
    along = np.asarray(end, dtype=float) - start
    length = float(along @ along)
    if length == 0.0:
        return 0.0
    return float(np.clip(along @ (np.asarray(target) - start) / length, 0.0, 1.0))


def apprenticeship(
    mdp: TabularMDP,
    features: Any,
    expert_features: Any,
    *,
    method: Literal["max_margin", "projection"] = "projection",
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    initial_policy: Any = None,
    planner: Planner | None = None,
) -> ApprenticeshipResult:
    """Abbeel and Ng's algorithm, with either step.

    Stops when the expert is within `tolerance` of the mixture, when a new policy brings it no
    nearer (the expert's features lie outside of what policies can do, as estimated ones often do),
    or after `max_iterations`. Look at `report.converged`.

    Args:
        mdp: discounted; its reward is not looked at.
        features: (S, K) or (S, A, K). expert_features: (K,) mu_E, discounted as `mdp` is.
        initial_policy: (S, A); None: uniform.
        planner: solves a world; None: modified policy iteration. Ties are broken by it.

    Raises:
        ImproperPolicyError: the discount is 1.
        ShapeError: the features do not fit.
    """
    if mdp.discount >= 1.0:
        raise ImproperPolicyError(
            "apprenticeship learning needs a discount below 1: give mdp.with_discount(0.99)."
        )
    if method not in ("max_margin", "projection"):
        raise InvalidHyperparameterError('method must be "max_margin" or "projection".')
    if max_iterations < 1 or not tolerance >= 0.0:
        raise InvalidHyperparameterError("max_iterations must be 1 or more, tolerance 0 or more.")
    phi = Features(mdp, features)
    target = check_expert(expert_features, phi.count)
    plan = planner or (lambda world: modified_policy_iteration(world).policy)
    first = (
        np.full(mdp.reward.shape, 1.0 / mdp.n_actions)
        if initial_policy is None
        else np.asarray(initial_policy, dtype=float)
    )
    policies, occupancies = [first], [occupancy_measure(mdp, first)]
    points = [phi.expectations(occupancies[0])]
    weights: list[np.ndarray] = []
    mixture, mean = np.ones(1), points[0]
    margins = [float(np.linalg.norm(target - mean))]
    while margins[-1] > tolerance and len(weights) < max_iterations:
        weights.append((target - mean) / margins[-1])
        policy = plan(mdp.with_reward(phi.reward(weights[-1])))
        policies.append(policy)
        occupancies.append(occupancy_measure(mdp, policy))
        points.append(phi.expectations(occupancies[-1]))
        if method == "max_margin":
            mixture, mean = nearest_in_hull(points, target)
        else:
            share = project_on_segment(mean, points[-1], target)
            mixture = np.append((1.0 - share) * mixture, share)
            mean = mixture @ np.array(points)
        margins.append(float(np.linalg.norm(target - mean)))
        if weights[-1] @ (points[-1] - mean) < -1e-12 or margins[-2] - margins[-1] <= 1e-12:
            break
    mixed = np.tensordot(mixture, np.array(occupancies), axes=1)
    return ApprenticeshipResult(
        weights=np.array(weights).reshape(-1, phi.count),
        policies=np.array(policies),
        policy_features=np.array(points),
        mixture=mixture,
        margins=np.array(margins),
        policy=policy_of(mixed),
        report=SolverReport(
            f"apprenticeship {method}",
            margins[-1] <= tolerance,
            len(weights),
            margins[-1],
            tolerance,
        ),
    )


def policy_of(occupancy: Any) -> np.ndarray:
    """(S, A) the stationary policy with this occupancy measure; uniform where nobody comes.

    pi(a|s) = rho(s,a) / sum_b rho(s,b). A mixture of policies and this one policy visit every
    state-action pair equally often, so they earn the same under every reward.
    """
    rho = np.asarray(occupancy, dtype=float)
    total = rho.sum(axis=1, keepdims=True)
    return np.where(total > 0, rho / np.where(total > 0, total, 1.0), 1.0 / rho.shape[1])


def expert_features(
    mdp: TabularMDP, demonstrations: Trajectories, features: Any, *, most_lost: float = 0.05
) -> np.ndarray:
    """(K,) mu_E estimated from demonstrations, after checking them, eq 5.9.

    A demonstration that was cut off after T steps, and did not end, says nothing about the visits
    after T, whose weight is gamma^T / (1 - gamma). Left out they count as zeros: mu_E is too small,
    more so for short demonstrations.

    Args:
        most_lost: largest share of the total weight 1 / (1 - gamma) that may be missing, as a mean
            over demonstrations. 1 turns the check off.

    Raises:
        InvalidTrajectoryError: a state, an action or a move that the MDP does not have.
        TruncatedDemonstrationsError: too much is missing; says how long they would have to be.
    """
    seen = demonstrations.validate(mdp)
    lost = float(np.where(mdp.terminal[seen.last_states], 0.0, mdp.discount**seen.lengths).mean())
    if lost > most_lost:
        needed = int(np.ceil(np.log(most_lost) / np.log(mdp.discount))) if most_lost > 0 else None
        raise TruncatedDemonstrationsError(
            f"{lost:.1%} of the discounted weight lies after the end of demonstrations that were "
            f"cut off (the median takes {int(np.median(seen.lengths))} steps). "
            + (
                f"Give demonstrations of {needed} steps or more, or a smaller discount; "
                if needed is not None
                else ""
            )
            + "or pass most_lost=1 to take them as they are."
        )
    array = np.asarray(features, dtype=float) if not hasattr(features, "tocsr") else features
    if array.shape[0] != mdp.n_states:
        raise ShapeError(f"features have {array.shape[0]} rows for {mdp.n_states} states.")
    return feature_expectations(seen.counts(mdp.n_states, mdp.n_actions, mdp.discount), array)


def sample_size(n_features: int, discount: float, error: float, failure: float) -> int:
    """Demonstrations that suffice for ||mu_hat - mu||_inf <= error, eq 5.14; features in [0, 1].

    Hoeffding's inequality and a union bound over the K features:
        m >= log(2 K / failure) / (2 error^2 (1 - discount)^2).
    """
    if not (0 <= discount < 1 and error > 0 and 0 < failure < 1):
        raise InvalidHyperparameterError(
            "discount must lie in [0, 1), error above 0, failure in (0, 1)."
        )
    bound = np.log(2 * n_features / failure) / (2 * error**2 * (1 - discount) ** 2)
    return int(np.ceil(bound))
