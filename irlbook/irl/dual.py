"""What both maximum-entropy models share: features, the fitted result, and a solver for the dual.

A `DualProblem` gives value, gradient and Hessian of a convex g(w); `fit` minimises it. Newton's
method is our own and not SciPy's `trust-exact`. Tried on 45
fits of the tests and the benchmarks, the latter took about as many steps and up to twice as long,
since it computes a Hessian where a step is refused, too. And it compares values only, which agree
to rounding long before gradients vanish: 9 fits to 1e-9 and below ended early, at a radius of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from scipy import sparse
from scipy.linalg import eigh
from scipy.optimize import brentq, minimize, root

from irlbook.errors import (
    DivergentPartitionError,
    InvalidHyperparameterError,
    NotConvergedError,
    NotFiniteError,
    ShapeError,
    UnreachableFeaturesError,
)
from irlbook.mdp import TabularMDP, Trajectories, as_floats
from irlbook.planning import SolverReport

__all__ = [
    "DualProblem",
    "Features",
    "MaxEntResult",
    "NEWTON_FEATURES",
    "OUTSIDE",
    "Plan",
    "Point",
    "RADIUS",
    "Solver",
    "check_expert",
    "fit",
]

RADIUS = 1.0  # of the first trust region: change of reward, in units of beta
NEWTON_FEATURES = 128  # up to this many weights the exact Hessian is cheaper than more gradients
OUTSIDE = (DivergentPartitionError, NotConvergedError)  # of the domain, or too near to its edge

Solver = Literal["auto", "newton", "lbfgs"]
Plan = TypeVar("Plan")


@dataclass(frozen=True)
class MaxEntResult:
    """A fitted reward.

    Attributes:
        weights: (K,) w. reward: (S, A) r_w. policy: (S, A), or (T, S, A) with a horizon; with
            groups of demonstrations one more axis in front, a policy for each group.
        feature_expectations: (K,) mu(pi_w), with groups their mean over demonstrations.
        gap: max_k |mu(pi_w) - mu_E|.
        dual: g(w), without the penalties. report: residual is the largest violation of the
            optimality condition, which without penalties is `gap`.
        covariance: (K, K) of the weights, the inverse Hessian of the joint log-likelihood. None
            where the number of demonstrations is not known (no groups), or where the dual is not
            the likelihood (a discount, random moves in the causal model, an l1 penalty). With an
            l2 penalty that of Laplace's approximation, with the penalty for a prior. Weights that
            the demonstrations leave free have infinite variance.
    """

    weights: np.ndarray
    reward: np.ndarray
    policy: np.ndarray
    feature_expectations: np.ndarray
    gap: float
    dual: float
    report: SolverReport
    covariance: np.ndarray | None = None

    @property
    def standard_errors(self) -> np.ndarray | None:
        """(K,) of the weights, or None where there is no `covariance`."""
        return None if self.covariance is None else np.sqrt(np.diag(self.covariance))


@dataclass(frozen=True)
class Point(Generic[Plan]):
    """A dual at one w.

    Attributes:
        value: g(w). gradient: (K,) mu(pi_w) - mu_E. expectations: (K,) mu(pi_w).
        plan: whatever the model needs again for the Hessian and the policy.
    """

    value: float
    gradient: np.ndarray
    expectations: np.ndarray
    plan: Plan


class DualProblem(Protocol[Plan]):
    """A convex dual with linear rewards r_w = w . phi."""

    features: Features
    expert: np.ndarray  # (K,)
    beta: float

    def evaluate(self, weights: np.ndarray) -> Point[Plan]:
        """g(w); raises DivergentPartitionError outside of the domain."""

    def hessian(self, plan: Plan) -> np.ndarray:
        """(K, K) of g, at the point that the plan is from."""

    def policy(self, plan: Plan) -> np.ndarray:
        """The policy that the result shows."""

    def best_return(self, reward: np.ndarray) -> float:
        """An upper bound on what any behaviour earns under `reward` (S, A); may be infinite."""

    def sample_size(self) -> float | None:
        """Number of demonstrations, if it is known and if g is their negative log-likelihood."""


class Features:
    """phi as a matrix: (S, K) on states or (S*A, K) on state-action pairs."""

    def __init__(self, mdp: TabularMDP, features: Any):
        self.shape = mdp.reward.shape
        n_states, n_actions = self.shape
        is_sparse = sparse.issparse(features)
        given = sparse.csr_array(features) if is_sparse else as_floats(features, "features")
        if given.ndim == 3 and given.shape[:2] == self.shape:
            given = given.reshape(n_states * n_actions, -1)
        if given.ndim != 2 or given.shape[0] not in (n_states, n_states * n_actions):
            raise ShapeError(
                f"features have shape {given.shape}; expected (S, K) or (S, A, K) with "
                f"(S, A) = {self.shape}."
            )
        entries = given.data if is_sparse else given
        if not np.isfinite(entries).all():
            raise NotFiniteError("features hold NaN or infinity.")
        self.on_states = given.shape[0] == n_states
        acts = ~mdp.terminal if self.on_states else np.repeat(~mdp.terminal, n_actions)
        # Nothing is collected in a terminal state, so its features must not count.
        if not acts.all():
            given = sparse.csr_array(given * acts[:, None]) if is_sparse else given * acts[:, None]
        self.matrix: Any = given  # dense, or sparse CSR
        self.count: int = given.shape[1]

    def rows_reward(self, weights: np.ndarray) -> np.ndarray:
        """(S,) or (S, A) r_w, as the features are."""
        flat = self.matrix @ weights
        return flat if self.on_states else flat.reshape(self.shape)

    def reward(self, weights: np.ndarray) -> np.ndarray:
        """(S, A) r_w."""
        flat = self.matrix @ weights
        if self.on_states:
            return np.repeat(flat[:, None], self.shape[1], axis=1)
        return flat.reshape(self.shape)

    def expectations(self, occupancy: np.ndarray) -> np.ndarray:
        """(K,) mu from an occupancy measure (S, A)."""
        visits = occupancy.sum(axis=1) if self.on_states else occupancy.reshape(-1)
        return self.matrix.T @ visits

    def stack(self) -> np.ndarray:
        """(S, A, K), or (S, 1, K) to be broadcast, as a dense array."""
        dense = self.matrix.toarray() if sparse.issparse(self.matrix) else self.matrix
        return dense.reshape(self.shape[0], -1, self.count)


def check_expert(expert_features: Any, count: int) -> np.ndarray:
    """(K,) the expert's feature expectations; None stands for zeros.

    Raises:
        ShapeError: another shape, or not finite.
    """
    if expert_features is None:
        return np.zeros(count)
    if isinstance(expert_features, Trajectories):
        raise ShapeError(
            "expert_features are trajectories; give what they see: trajectories"
            ".feature_expectations(features, mdp.n_actions, mdp.discount)."
        )
    expert = as_floats(expert_features, "expert_features")
    if expert.shape != (count,) or not np.isfinite(expert).all():
        raise ShapeError(
            f"expert_features have shape {expert.shape}; expected ({count},), all finite. They "
            "come from Trajectories.feature_expectations with the same features and discount."
        )
    return expert


def fit(
    problem: DualProblem[Plan],
    *,
    l2: float,
    l1: float,
    tolerance: float,
    max_iterations: int,
    solver: Solver,
    initial_weights: Any,
    name: str,
) -> MaxEntResult:
    """Minimise g(w) + l2/2 |w|_2^2 + l1 |w|_1.

    Raises:
        ShapeError, InvalidHyperparameterError: `initial_weights`, penalties or `solver`.
        DivergentPartitionError: g is infinite at `initial_weights`.
        UnreachableFeaturesError, NotConvergedError: it did not get there, with or without proof
            that nothing could.
    """
    count = problem.features.count
    start = (
        np.zeros(count)
        if initial_weights is None
        else as_floats(initial_weights, "initial_weights").copy()
    )
    if start.shape != (count,) or not np.isfinite(start).all():
        raise ShapeError(
            f"initial_weights have shape {start.shape}; expected ({count},), all finite."
        )
    if not (0 <= l2 < np.inf and 0 <= l1 < np.inf):
        raise InvalidHyperparameterError(
            f"l2 and l1 are penalties of 0 or more; got {l2} and {l1}."
        )
    if solver == "auto":
        solver = "newton" if count <= NEWTON_FEATURES and l1 == 0 else "lbfgs"
    if solver not in ("newton", "lbfgs"):
        raise InvalidHyperparameterError(
            f'solver must be "auto", "newton" or "lbfgs"; got {solver!r}.'
        )
    if solver == "newton" and l1:
        raise InvalidHyperparameterError('an l1 penalty is not smooth: use solver="lbfgs".')
    here = problem.evaluate(start)  # a start outside the domain fails here, with its own message
    if solver == "newton":
        weights, here, iterations = _newton(problem, start, here, l2, tolerance, max_iterations)
    else:
        weights, iterations = _lbfgs(problem, start, here, l2, l1, tolerance, max_iterations)
        here = problem.evaluate(weights)
    residual = float(np.abs(_stationarity(here.gradient, weights, l2, l1)).max())
    report = SolverReport(
        f"{name} {solver}", residual <= tolerance, iterations, residual, tolerance
    )
    if not report.converged:
        _explain(problem, weights, l2, l1, report)
    size = problem.sample_size()
    covariance = None
    if size is not None and not l1:
        hessian = problem.hessian(here.plan) + l2 * np.eye(count)
        covariance = problem.beta / size * _inverse(hessian, here.expectations, problem.beta)
    return MaxEntResult(
        weights,
        problem.features.reward(weights),
        problem.policy(here.plan),
        here.expectations,
        float(np.abs(here.gradient).max()),
        float(here.value),
        report,
        covariance,
    )


def _inverse(hessian: np.ndarray, mean: np.ndarray, beta: float) -> np.ndarray:
    """The inverse of a covariance of feature sums over beta; infinite variance where it has none.

    What is zero up to rounding is judged beside the second moments: a sum of 20 in every
    demonstration has a variance of 1e-30, which says nothing about its weight.
    """
    scale = np.sqrt(np.diag(hessian) + mean**2 / beta)
    scale[scale == 0.0] = 1.0
    curvature, basis = np.linalg.eigh(hessian / np.outer(scale, scale))
    flat = curvature <= 1e-13
    inverse = (basis[:, ~flat] / curvature[~flat]) @ basis[:, ~flat].T / np.outer(scale, scale)
    free = (np.abs(basis[:, flat]) > 1e-6).any(axis=1)
    inverse[free, free] = np.inf
    return inverse


def _stationarity(gradient: np.ndarray, weights: np.ndarray, l2: float, l1: float) -> np.ndarray:
    """Distance of 0 from the subdifferential of the penalised dual, by coordinate."""
    smooth = gradient + l2 * weights
    if not l1:
        return smooth
    at_zero = np.maximum(np.abs(smooth) - l1, 0.0)
    return np.where(weights == 0, at_zero, smooth + l1 * np.sign(weights))


def _explain(
    problem: DualProblem[Plan], weights: np.ndarray, l2: float, l1: float, report: SolverReport
) -> None:
    """Say why a fit failed: prove that the features are unreachable, or admit that we do not know.

    Weights that grow without end point along a direction u. If no policy earns as much under the
    reward u . phi as the expert does, then g(w) falls for ever along u.
    """
    size = np.linalg.norm(weights)
    if size > 0 and not l2 and not l1:
        direction = weights / size
        best = problem.best_return(problem.features.reward(direction))
        claimed = float(direction @ problem.expert)
        if claimed > best + 1e-9 * max(1.0, abs(best)):
            raise UnreachableFeaturesError(
                "no policy has these feature expectations: under the reward w/|w| the expert would "
                f"earn {claimed:.6g} and the best policy earns {best:.6g}. The likelihood grows "
                "for ever. Check that features, discount and horizon are those of the "
                "demonstrations; with few demonstrations add an l2 penalty."
            )
    raise NotConvergedError(
        f"{report.method} stopped after {report.iterations} iterations with an optimality gap of "
        f"{report.residual:.3g} (tolerance {report.tolerance:.3g}) and |w| = {size:.3g}. If |w| is "
        "large the expert is (nearly) deterministic: add an l2 penalty or lower beta."
    )


def _newton(
    problem: DualProblem[Plan],
    weights: np.ndarray,
    here: Point[Plan],
    l2: float,
    tolerance: float,
    max_iterations: int,
) -> tuple[np.ndarray, Point[Plan], int]:
    """Newton on the dual with its exact Hessian, inside a trust region.

    The quadratic model holds while the reward changes little, so the region limits the root mean
    square of the change of r_w over states: |step|^2 = step' M step with M = phi' phi / rows.
    Within it a step minimises the model exactly (eigenvectors of H in the metric M).

    Returns:
        the weights, the dual there, and the number of steps.
    """
    phi = problem.features.matrix
    metric = np.asarray((phi.T @ phi).todense() if sparse.issparse(phi) else phi.T @ phi)
    metric = metric / phi.shape[0]
    metric += (1e-10 * np.trace(metric) or 1.0) * np.eye(len(weights))
    value, slope = here.value + 0.5 * l2 * weights @ weights, here.gradient + l2 * weights
    radius, fresh = RADIUS * problem.beta, True
    runaway = 1e12 * max(1.0, np.abs(weights).max())
    for iteration in range(max_iterations):
        if np.abs(slope).max() <= tolerance or np.abs(weights).max() > runaway:
            return weights, here, iteration
        if fresh:
            hessian = problem.hessian(here.plan) + l2 * np.eye(len(weights))
            curvature, basis = eigh(hessian, metric)  # basis' M basis = 1
            curvature = np.maximum(curvature, 1e-10 * max(curvature[-1], 1e-12))
        along = basis.T @ slope
        step = basis @ _trust_region_step(curvature, along, radius)
        length = np.sqrt(step @ metric @ step)
        expected = -(slope @ step + 0.5 * step @ hessian @ step)
        trial = weights + step
        try:
            there = problem.evaluate(trial)
        except OUTSIDE:  # step back
            radius, fresh = 0.25 * length, False
            if radius < 1e-12 * problem.beta:
                return weights, here, iteration
            continue
        new_value = there.value + 0.5 * l2 * trial @ trial
        new_slope = there.gradient + l2 * trial
        gain = value - new_value
        if expected < 1e-8 * max(1.0, abs(value)):  # values agree to rounding: trust the slopes
            gain = -0.5 * (slope + new_slope) @ step
        if gain < 0.25 * expected:
            radius = 0.25 * length
        elif gain > 0.5 * expected and length > 0.9 * radius:
            radius *= 2.0
        fresh = gain > 1e-4 * expected or np.abs(new_slope).max() <= tolerance
        if fresh:
            weights, value, slope, here = trial, new_value, new_slope, there
        elif radius < 1e-14:
            return weights, here, iteration
    return weights, here, max_iterations


def _trust_region_step(curvature: np.ndarray, along: np.ndarray, radius: float) -> np.ndarray:
    """argmin_y along'y + y' diag(curvature) y / 2 with |y| <= radius."""
    step = -along / curvature
    if np.linalg.norm(step) <= radius:
        return step
    # |y(lift)| falls with the lift; bracket it and find where it meets the radius.
    low, high = 0.0, 2.0 * np.linalg.norm(along) / radius
    lift = brentq(
        lambda x: np.linalg.norm(along / (curvature + x)) / radius - 1.0, low, high, rtol=1e-3
    )
    return -along / (curvature + lift)


class _Runaway(Exception):
    """The weights have left every scale: the dual falls without end."""


def _lbfgs(
    problem: DualProblem[Plan],
    weights: np.ndarray,
    here: Point[Plan],
    l2: float,
    l1: float,
    tolerance: float,
    max_iterations: int,
) -> tuple[np.ndarray, int]:
    """L-BFGS-B; an l1 penalty splits w = u - v with u, v >= 0, which makes it smooth."""
    # The last point seen inside the domain, and the lowest: value, gradient, weights.
    inside = here.value + 0.5 * l2 * weights @ weights, here.gradient + l2 * weights, weights
    lowest = inside
    runaway = 1e12 * max(1.0, np.abs(weights).max())

    def smooth(w: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal inside, lowest
        if np.abs(w).max() > runaway:
            raise _Runaway
        try:
            there = problem.evaluate(w)
        except OUTSIDE:
            # The dual is infinite here. A rise that is small and finite sends the line search back
            # by a quarter at a time; a huge one would make its interpolation useless.
            away = w - inside[2]
            rise = abs(inside[1] @ away) + 1e-300
            return inside[0] + rise, 2 * rise * away / max(away @ away, 1e-300)
        inside = there.value + 0.5 * l2 * w @ w, there.gradient + l2 * w, w.copy()
        if inside[0] < lowest[0]:
            lowest = inside
        return inside[:2]

    def split(uv: np.ndarray) -> tuple[float, np.ndarray]:
        u, v = np.split(uv, 2)
        value, gradient = smooth(u - v)
        return value + l1 * uv.sum(), np.concatenate([gradient + l1, l1 - gradient])

    options = {"maxiter": max_iterations * 5, "ftol": 0.0, "gtol": 0.5 * tolerance, "maxcor": 30}
    try:
        if l1:
            start = np.concatenate([np.maximum(weights, 0), np.maximum(-weights, 0)])
            bounds = [(0, None)] * len(start)
            done = minimize(
                split, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
            )
            weights = np.subtract(*np.split(done.x, 2))
        else:
            done = minimize(smooth, weights, jac=True, method="L-BFGS-B", options=options)
            weights = done.x
            if lowest[0] < smooth(weights)[0]:  # the line search gave up, on a slope without end
                weights = lowest[2]
    except _Runaway:
        return lowest[2], max_iterations
    return _finish(problem, weights, l2, l1, tolerance, max_iterations, done.nit)


def _finish(
    problem: DualProblem[Plan],
    weights: np.ndarray,
    l2: float,
    l1: float,
    tolerance: float,
    max_iterations: int,
    iterations: int,
) -> tuple[np.ndarray, int]:
    """Values agree to rounding long before gradients vanish: finish on gradients alone (DF-SANE).

    With an l1 penalty the weights that are zero, and the signs of the others, stay as they are.
    """
    free = weights != 0 if l1 else np.ones(len(weights), dtype=bool)
    signs = np.sign(weights)

    def place(w_free: np.ndarray) -> np.ndarray:
        w = weights.copy()
        w[free] = w_free
        return w

    def slope(w: np.ndarray) -> np.ndarray:
        if not np.isfinite(w).all():
            return np.full_like(w, 1e10)
        try:
            return problem.evaluate(w).gradient + l2 * w
        except OUTSIDE:
            return np.full_like(w, 1e10)

    def distance(w: np.ndarray) -> float:
        return np.abs(_stationarity(slope(w) - l2 * w, w, l2, l1)).max()

    before = distance(weights)
    if not tolerance < before < 1e-2 or not free.any():
        return weights, iterations
    with np.errstate(divide="ignore", invalid="ignore"):
        last = root(
            lambda w_free: (slope(place(w_free)) + l1 * signs)[free],
            weights[free],
            method="df-sane",
            options={"maxfev": 5 * max_iterations, "fatol": 0.5 * tolerance, "ftol": 0.0},
        )
    better = distance(place(last.x)) < before
    return (place(last.x) if better else weights), iterations + last.nit
