"""What both maximum-entropy models share: features, the fitted result, and a solver for the dual.

A *problem* has `features`, `expert` (K,), `evaluate(w) -> (value, gradient, state)`,
`best_return(reward)` and, for Newton, `hessian(state)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import eigh
from scipy.optimize import brentq, minimize, root

from irlbook.errors import (
    DivergentPartitionError,
    NotConvergedError,
    ShapeError,
    UnreachableFeaturesError,
)
from irlbook.mdp import TabularMDP
from irlbook.planning import SolverReport

RADIUS = 1.0  # of the first trust region: change of reward, in units of beta
NEWTON_FEATURES = 128  # up to this many weights the exact Hessian is cheaper than more gradients


@dataclass(frozen=True)
class MaxEntResult:
    """A fitted reward.

    Attributes:
        weights: (K,) w. reward: (S, A) r_w. policy: (S, A), or (T, S, A) with a horizon.
        feature_expectations: (K,) mu(pi_w). gap: max_k |mu(pi_w) - mu_E|.
        dual: g(w), without the penalties. report: residual is the largest violation of the
            optimality condition, which without penalties is `gap`.
    """

    weights: np.ndarray
    reward: np.ndarray
    policy: np.ndarray
    feature_expectations: np.ndarray
    gap: float
    dual: float
    report: SolverReport


class Features:
    """phi as a matrix: (S, K) on states or (S*A, K) on state-action pairs."""

    def __init__(self, mdp: TabularMDP, features: Any):
        self.shape = mdp.reward.shape
        n_states, n_actions = self.shape
        is_sparse = sparse.issparse(features)
        given = sparse.csr_array(features) if is_sparse else np.asarray(features, dtype=float)
        if given.ndim == 3 and given.shape[:2] == self.shape:
            given = given.reshape(n_states * n_actions, -1)
        if given.ndim != 2 or given.shape[0] not in (n_states, n_states * n_actions):
            raise ShapeError(
                f"features have shape {given.shape}; expected (S, K) or (S, A, K) with "
                f"(S, A) = {self.shape}."
            )
        entries = given.data if is_sparse else given
        if not np.isfinite(entries).all():
            raise ShapeError("features hold NaN or infinity.")
        self.on_states = given.shape[0] == n_states
        acts = ~mdp.terminal if self.on_states else np.repeat(~mdp.terminal, n_actions)
        # Nothing is collected in a terminal state, so its features must not count.
        if not acts.all():
            given = sparse.csr_array(given * acts[:, None]) if is_sparse else given * acts[:, None]
        self.matrix = given
        self.count = given.shape[1]

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
    if expert_features is None:
        return np.zeros(count)
    expert = np.asarray(expert_features, dtype=float)
    if expert.shape != (count,) or not np.isfinite(expert).all():
        raise ShapeError(
            f"expert_features have shape {expert.shape}; expected ({count},), all finite. They "
            "come from Trajectories.feature_expectations with the same features and discount."
        )
    return expert


def fit(problem, l2, l1, tolerance, max_iterations, solver, initial_weights, name):
    count = problem.features.count
    start = np.zeros(count) if initial_weights is None else np.array(initial_weights, dtype=float)
    if start.shape != (count,):
        raise ShapeError(f"initial_weights have shape {start.shape}; expected ({count},).")
    if solver == "auto":
        solver = "newton" if count <= NEWTON_FEATURES and l1 == 0 else "lbfgs"
    if solver not in ("newton", "lbfgs"):
        raise ValueError(f'solver must be "auto", "newton" or "lbfgs"; got {solver!r}.')
    if solver == "newton" and l1:
        raise ValueError('an l1 penalty is not smooth: use solver="lbfgs".')
    problem.evaluate(start)  # a start outside the domain fails here, with its own message
    run = _newton if solver == "newton" else _lbfgs
    weights, iterations = run(problem, start, l2, l1, tolerance, max_iterations)
    value, gradient, (policy, _, expected) = problem.evaluate(weights)
    residual = float(np.abs(_stationarity(gradient, weights, l2, l1)).max())
    report = SolverReport(
        f"{name} {solver}", residual <= tolerance, iterations, residual, tolerance
    )
    if not report.converged:
        _explain(problem, weights, l2, l1, report)
    return MaxEntResult(
        weights,
        problem.features.reward(weights),
        policy,
        expected,
        float(np.abs(gradient).max()),
        float(value),
        report,
    )


def _stationarity(gradient, weights, l2, l1) -> np.ndarray:
    """Distance of 0 from the subdifferential of the penalised dual, by coordinate."""
    smooth = gradient + l2 * weights
    if not l1:
        return smooth
    at_zero = np.maximum(np.abs(smooth) - l1, 0.0)
    return np.where(weights == 0, at_zero, smooth + l1 * np.sign(weights))


def _explain(problem, weights, l2, l1, report: SolverReport) -> None:
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


def _newton(problem, weights, l2, l1, tolerance, max_iterations):
    """Newton on the dual with its exact Hessian, inside a trust region.

    The quadratic model holds while the reward changes little, so the region limits the root mean
    square of the change of r_w over states: |step|^2 = step' M step with M = phi' phi / rows.
    Within it a step minimises the model exactly (eigenvectors of H in the metric M).
    """
    phi = problem.features.matrix
    metric = np.asarray((phi.T @ phi).todense() if sparse.issparse(phi) else phi.T @ phi)
    metric = metric / phi.shape[0]
    metric += (1e-10 * np.trace(metric) or 1.0) * np.eye(len(weights))
    value, gradient, state = problem.evaluate(weights)
    value, slope = value + 0.5 * l2 * weights @ weights, gradient + l2 * weights
    radius, fresh = RADIUS * problem.beta, True
    runaway = 1e12 * max(1.0, np.abs(weights).max())
    for iteration in range(max_iterations):
        if np.abs(slope).max() <= tolerance or np.abs(weights).max() > runaway:
            return weights, iteration
        if fresh:
            hessian = problem.hessian(state) + l2 * np.eye(len(weights))
            curvature, basis = eigh(hessian, metric)  # basis' M basis = 1
            curvature = np.maximum(curvature, 1e-10 * max(curvature[-1], 1e-12))
        along = basis.T @ slope
        step = basis @ _trust_region_step(curvature, along, radius)
        length = np.sqrt(step @ metric @ step)
        expected = -(slope @ step + 0.5 * step @ hessian @ step)
        trial = weights + step
        try:
            new_value, new_gradient, new_state = problem.evaluate(trial)
        except DivergentPartitionError:  # outside the domain: step back
            radius, fresh = 0.25 * length, False
            if radius < 1e-12 * problem.beta:
                return weights, iteration
            continue
        new_value, new_slope = new_value + 0.5 * l2 * trial @ trial, new_gradient + l2 * trial
        gain = value - new_value
        if expected < 1e-8 * max(1.0, abs(value)):  # values agree to rounding: trust the slopes
            gain = -0.5 * (slope + new_slope) @ step
        if gain < 0.25 * expected:
            radius = 0.25 * length
        elif gain > 0.5 * expected and length > 0.9 * radius:
            radius *= 2.0
        fresh = gain > 1e-4 * expected or np.abs(new_slope).max() <= tolerance
        if fresh:
            weights, value, slope, state = trial, new_value, new_slope, new_state
        elif radius < 1e-14:
            return weights, iteration
    return weights, max_iterations


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


def _lbfgs(problem, weights, l2, l1, tolerance, max_iterations):
    """L-BFGS-B; an l1 penalty splits w = u - v with u, v >= 0, which makes it smooth."""
    value, gradient, _ = problem.evaluate(weights)
    # The last point seen inside the domain, and the lowest: value, gradient, weights.
    inside = value + 0.5 * l2 * weights @ weights, gradient + l2 * weights, weights
    lowest = inside
    runaway = 1e12 * max(1.0, np.abs(weights).max())

    def smooth(w: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal inside, lowest
        if np.abs(w).max() > runaway:
            raise _Runaway
        try:
            value, gradient, _ = problem.evaluate(w)
        except DivergentPartitionError:
            # The dual is infinite here. A rise that is small and finite sends the line search back
            # by a quarter at a time; a huge one would make its interpolation useless.
            away = w - inside[2]
            rise = abs(inside[1] @ away) + 1e-300
            return inside[0] + rise, 2 * rise * away / max(away @ away, 1e-300)
        inside = value + 0.5 * l2 * w @ w, gradient + l2 * w, w.copy()
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


def _finish(problem, weights, l2, l1, tolerance, max_iterations, iterations):
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
            return problem.evaluate(w)[1] + l2 * w
        except DivergentPartitionError:
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
