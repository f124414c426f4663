"""Floor 1: planning. Which policy is best when the world and the reward are known?

Hard planning maximises expected reward. Soft planning also pays a price of `beta` for every nat
by which the policy departs from a reference measure m(a|s):

    Q(s,a) = r(s,a) + gamma sum_s' P(s'|s,a) V(s')
    V(s)   = beta log sum_a m(a|s) exp(Q(s,a) / beta)
    pi(a|s) = m(a|s) exp((Q(s,a) - V(s)) / beta)

m = 1 (``reference=None``) is entropy regularisation; m = pi_ref is KL regularisation; a zero in m
forbids the action. Everything stays in log space, so that no reward overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import LinearOperator, bicgstab, splu

from irlbook.errors import (
    DivergentPartitionError,
    ImproperPolicyError,
    InvalidHyperparameterError,
    InvalidPolicyError,
    NotConvergedError,
)
from irlbook.mdp import TabularMDP, as_floats, check_policy
from irlbook.mdp import feature_expectations as feature_expectations

__all__ = [
    "DIRECT_SOLVE_COST",
    "DIRECT_SOLVE_STATES",
    "ENDLESS_GAIN",
    "FASTER",
    "Plan",
    "PolicySystem",
    "SoftPlan",
    "SolverReport",
    "TIE_TOLERANCE",
    "backward_induction",
    "check_horizon",
    "check_proper",
    "evaluate_policy",
    "expected_return",
    "greedy_policy",
    "log_reference_measure",
    "modified_policy_iteration",
    "occupancy_by_time",
    "occupancy_measure",
    "policy_iteration",
    "q_values",
    "row_max",
    "soft_backup",
    "soft_backward_induction",
    "soft_log_policy",
    "soft_policy_iteration",
    "soft_value_iteration",
    "value_iteration",
]

# A sparse LU beats an iterative solve in small worlds, and for many right-hand sides wherever
# its cost, about S * bandwidth^2, stays moderate (grids do, random worlds do not).
DIRECT_SOLVE_STATES = 1_500
DIRECT_SOLVE_COST = 1e9
TIE_TOLERANCE = 1e-9
FASTER = {  # what to use instead of a method that was too slow
    "value_iteration": "modified_policy_iteration",
    "modified_policy_iteration": "policy_iteration",
    "soft_value_iteration": "soft_policy_iteration",
}
ENDLESS_GAIN = 1e12  # undiscounted values that still grow by so much are taken for infinite


@dataclass(frozen=True)
class SolverReport:
    """How a solver ended.

    Attributes:
        method: its name.
        converged: whether `residual` reached `tolerance`.
        iterations: sweeps, improvements or Newton steps, as the method counts.
        residual: for gamma < 1 a bound on max |V - V*|; for gamma = 1 the last max |TV - V|.
        tolerance: what was asked for.
    """

    method: str
    converged: bool
    iterations: int
    residual: float
    tolerance: float

    def demand(self) -> SolverReport:
        """Return self, or raise NotConvergedError with the mend for this method."""
        if not self.converged:
            instead = FASTER.get(self.method)
            raise NotConvergedError(
                f"{self.method} stopped after {self.iterations} iterations at {self.residual:.3g}, "
                f"above the tolerance {self.tolerance:.3g}. Raise max_iterations, loosen the "
                "tolerance (float64 may not reach it), "
                + (
                    f"lower the discount, or use {instead}."
                    if instead
                    else "or lower the discount."
                )
            )
        return self


@dataclass(frozen=True)
class Plan:
    """A hard plan. With a horizon T every array has a leading time axis (values: T+1).

    Attributes:
        values: (S,) optimal values. q: (S, A). policy: (S, A), ties shared evenly.
        report: how the solver ended.
    """

    values: np.ndarray
    q: np.ndarray
    policy: np.ndarray
    report: SolverReport


@dataclass(frozen=True)
class SoftPlan:
    """A soft plan at temperature beta. With a horizon T arrays have a leading time axis.

    Attributes:
        values: (S,). q: (S, A). log_policy: (S, A), -inf where the reference forbids.
        beta: the price of a nat, in units of reward. report: how the solver ended.
    """

    values: np.ndarray
    q: np.ndarray
    log_policy: np.ndarray
    beta: float
    report: SolverReport

    @cached_property
    def policy(self) -> np.ndarray:
        """(S, A) or (T, S, A) probabilities."""
        return np.exp(self.log_policy)


# --- one-step building blocks -------------------------------------------------------------------


def q_values(mdp: TabularMDP, values: np.ndarray) -> np.ndarray:
    """(S, A) action values Q = r + gamma P V of acting once and then being worth `values` (S,)."""
    return mdp.reward + mdp.discount * (mdp.transitions @ values).reshape(mdp.reward.shape)


def row_max(table: np.ndarray) -> np.ndarray:
    """(S,) largest entry of each row of (S, A). A loop over the few columns beats axis=1."""
    best = table[:, 0].copy()
    for column in range(1, table.shape[1]):
        np.maximum(best, table[:, column], out=best)
    return best


def greedy_policy(q: np.ndarray) -> np.ndarray:
    """(S, A) policy that shares its probability among the best actions of each state.

    Ties are shared, not broken by action number, so that renaming actions renames the policy.
    """
    best = q.max(axis=-1, keepdims=True)
    is_best = q >= best - TIE_TOLERANCE * np.maximum(1.0, np.abs(best))
    return is_best / is_best.sum(axis=-1, keepdims=True)


def soft_backup(
    q: np.ndarray, beta: float, log_reference: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Soft maximum of action values: V = beta log sum_a m exp(Q/beta), and the policy that has it.

    Args:
        q: (S, A). beta: temperature > 0. log_reference: (S, A) log m, or None for m = 1.

    Returns:
        values (S,) and policy (S, A).
    """
    scaled = q / beta if beta != 1.0 else q
    if log_reference is not None:
        scaled = scaled + log_reference
    top = row_max(scaled)
    weights = np.exp(scaled - top[:, None])
    total = weights @ np.ones(weights.shape[1])
    weights /= total[:, None]
    return beta * (top + np.log(total)), weights


def log_reference_measure(
    mdp: TabularMDP, reference: Any, beta: float, *, dead: bool = False
) -> np.ndarray | None:
    """Check `beta` and `reference` and return log m, (S, A), or None for m = 1.

    Args:
        dead: allow states in which every action is forbidden.

    Raises:
        InvalidPolicyError: beta <= 0, a wrong shape, a negative weight, or a state in which every
            action is forbidden.
    """
    if not 0 < beta < np.inf:
        raise InvalidPolicyError(
            f"beta must be positive and finite; got {beta}. For beta -> 0 plan without soft_."
        )
    if reference is None:
        return None
    measure = as_floats(reference, "reference", InvalidPolicyError)
    if measure.shape != mdp.reward.shape:
        raise InvalidPolicyError(
            f"reference has shape {measure.shape}; expected (S, A) = {mdp.reward.shape}."
        )
    if not np.isfinite(measure).all() or (measure < 0).any():
        raise InvalidPolicyError("reference must hold finite, non-negative weights.")
    if not dead and not (measure.sum(axis=1) > 0)[~mdp.terminal].all():
        state = int(np.flatnonzero((measure.sum(axis=1) <= 0) & ~mdp.terminal)[0])
        raise InvalidPolicyError(f"reference forbids every action in state {state}.")
    measure = np.where(mdp.terminal[:, None] & (measure.sum(axis=1) <= 0)[:, None], 1.0, measure)
    with np.errstate(divide="ignore"):
        return np.log(measure)


# --- linear systems of a fixed policy -----------------------------------------------------------


class PolicySystem:
    """The linear equations of one policy: (I - gamma P_pi) x = b and their transpose.

    Small worlds use one sparse LU for all right-hand sides; large ones BiCGStab, whose error is
    checked against the bound that the discount gives.
    """

    def __init__(self, mdp: TabularMDP, policy: np.ndarray):
        n_states, n_actions = mdp.reward.shape
        mix = sparse.csr_array(
            (
                policy.reshape(-1),
                np.arange(n_states * n_actions, dtype=np.int32),
                np.arange(0, n_states * n_actions + 1, n_actions, dtype=np.int32),
            ),
            shape=(n_states, n_states * n_actions),
        )
        self.chain = mix @ mdp.transitions  # (S, S) P_pi
        self.discount = mdp.discount
        if mdp.discount == 1.0:
            check_proper(mdp, self.chain)

    @cached_property
    def _factors(self):
        identity = sparse.identity(self.chain.shape[0], format="csc")
        # I - gamma P is diagonally dominant, so it needs no pivoting: keep its symmetric pattern.
        return splu(
            sparse.csc_matrix(identity - self.discount * self.chain),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    @cached_property
    def _factors_are_cheap(self) -> bool:
        n_states = self.chain.shape[0]
        if n_states > 100 * DIRECT_SOLVE_STATES:
            return False
        order = reverse_cuthill_mckee(sparse.csr_matrix(self.chain))
        place = np.empty(n_states, dtype=int)
        place[order] = np.arange(n_states)
        rows = np.repeat(place, np.diff(self.chain.indptr))
        bandwidth = np.abs(rows - place[self.chain.indices]).max()
        # A band as narrow as a plane's fills in little, whatever its size.
        planar = bandwidth <= 3 * np.sqrt(n_states)
        return bool(planar or n_states * float(bandwidth) ** 2 <= DIRECT_SOLVE_COST)

    def solve(
        self,
        b: np.ndarray,
        *,
        transpose: bool = False,
        guess: np.ndarray | None = None,
        tolerance: float = 1e-12,
    ) -> np.ndarray:
        """Solve (I - gamma P_pi) x = b, or its transpose, for b of shape (S,) or (S, K).

        `tolerance` is the largest error of x allowed, relative to max |b| / (1 - gamma): in the
        maximum norm, or in the 1-norm for the transpose; or what rounding allows, if that is more.
        """
        direct = (
            self.discount == 1.0
            or self.chain.shape[0] <= DIRECT_SOLVE_STATES
            or "_factors" in self.__dict__  # made already
            # Few digits come cheaper by iteration; many digits or many columns, by elimination.
            or ((b.ndim == 2 or tolerance < 1e-6) and self._factors_are_cheap)
        )
        if direct:
            return self._factors.solve(b, trans="T" if transpose else "N")
        if b.ndim == 2:
            columns = [self.solve(c, transpose=transpose, tolerance=tolerance) for c in b.T]
            return np.stack(columns, axis=1)
        return self._iterate(b, transpose, guess, tolerance)

    def _iterate(self, b, transpose, guess, tolerance) -> np.ndarray:
        chain = self.chain.T.tocsr() if transpose else self.chain
        gamma, order = self.discount, 1 if transpose else np.inf
        operator = LinearOperator(chain.shape, lambda x: x - gamma * (chain @ x), dtype=float)
        # States that keep to themselves have a small diagonal; scaling by it keeps BiCGStab alive.
        inverse = 1.0 / (1.0 - gamma * chain.diagonal())
        scale = LinearOperator(chain.shape, lambda x: inverse * x, dtype=float)
        # x can be 1 / (1 - gamma) times as large as b, and its rounding shows in the residual.
        tolerance = max(tolerance, 8 * np.finfo(float).eps / (1.0 - gamma))
        goal = tolerance * max(np.linalg.norm(b, order), np.finfo(float).tiny)
        x = np.zeros_like(b) if guess is None else guess.copy()
        for _ in range(20):
            residual = b - operator @ x
            # The inverse of I - gamma P has norm 1 / (1 - gamma), so this bounds the error of x.
            size = np.linalg.norm(residual, order)
            if size <= goal:
                return x
            wanted = 0.3 * goal / size
            step, _ = bicgstab(operator, residual, rtol=max(wanted, 1e-10), maxiter=2_000, M=scale)
            improved = x + step
            # BiCGStab lowers the 2-norm; a single state's residual may rise on the way.
            if np.linalg.norm(b - operator @ improved) >= np.linalg.norm(residual):
                break  # rounding or breakdown: let the direct solver have it
            x = improved
        return self._factors.solve(b, trans="T" if transpose else "N")


def check_proper(mdp: TabularMDP, chain: sparse.csr_array) -> None:
    """Without a discount every state must reach a terminal state, or sums over time diverge.

    Raises:
        ImproperPolicyError: names a state from which the episode may never end.
    """
    reaches = mdp.terminal.copy()
    frontier = reaches
    while frontier.any():
        frontier = ((chain @ frontier.astype(float)) > 0) & ~reaches
        reaches = reaches | frontier
    if not reaches.all():
        raise ImproperPolicyError(
            f"discount is 1 and from state {int(np.flatnonzero(~reaches)[0])} this policy never "
            "reaches a terminal state, so its value is not finite. Use discount < 1, give a "
            "horizon, or add terminal states."
        )


# --- hard planning ------------------------------------------------------------------------------


def _error_bound(mdp: TabularMDP, change: float) -> float:
    """Bound on max |TV - V*| from change = max |TV - V| if gamma < 1; else the change itself."""
    gamma = mdp.discount
    return change * gamma / (1.0 - gamma) if gamma < 1.0 else change


def _hard_plan(mdp: TabularMDP, values: np.ndarray, report: SolverReport, strict: bool) -> Plan:
    if strict:
        report.demand()
    q = q_values(mdp, values)
    return Plan(values, q, greedy_policy(q), report)


def value_iteration(
    mdp: TabularMDP,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 100_000,
    strict: bool = True,
) -> Plan:
    """Repeat V <- max_a Q until max |V - V*| <= tolerance is certain (Bellman 1957).

    Raises:
        NotConvergedError: unless ``strict=False``, which reports instead.
    """
    values = np.zeros(mdp.n_states)
    residual, iteration = np.inf, 0
    while residual > tolerance and iteration < max_iterations:
        updated = row_max(q_values(mdp, values))
        residual = _error_bound(mdp, np.abs(updated - values).max())
        values = updated
        iteration += 1
    report = SolverReport(
        "value_iteration", bool(residual <= tolerance), iteration, float(residual), tolerance
    )
    return _hard_plan(mdp, values, report, strict)


def policy_iteration(
    mdp: TabularMDP,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 1_000,
    strict: bool = True,
) -> Plan:
    """Evaluate the greedy policy exactly, improve it, repeat (Howard 1960).

    At gamma = 1 the first policy is uniform, which must reach a terminal state from everywhere.
    """
    policy = np.full(mdp.reward.shape, 1.0 / mdp.n_actions)
    values = evaluate_policy(mdp, policy)
    residual, iteration = np.inf, 0
    while iteration < max_iterations:
        q = q_values(mdp, values)
        residual = _error_bound(mdp, np.abs(row_max(q) - values).max())
        if residual <= tolerance:
            break
        improved = _keep_ties(q, policy)
        better = evaluate_policy(mdp, improved)
        iteration += 1
        if not (better > values).any():
            break  # rounding keeps the residual up: more of the same cannot lower it
        policy, values = improved, better
    values = row_max(q_values(mdp, values))  # one backup more: the bound is for these
    report = SolverReport(
        "policy_iteration", bool(residual <= tolerance), iteration, float(residual), tolerance
    )
    return _hard_plan(mdp, values, report, strict)


def _keep_ties(q: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """Change the action only where another is better by more than rounding."""
    n_states = len(q)
    current = policy.argmax(axis=1)
    best = q.argmax(axis=1)
    rows = np.arange(n_states)
    gain = q[rows, best] - q[rows, current]
    keeps = (gain <= 1e-13 * np.maximum(1.0, np.abs(q[rows, best]))) & (
        policy[rows, current] == 1.0
    )
    improved = np.zeros_like(policy)
    improved[rows, np.where(keeps, current, best)] = 1.0
    return improved


def modified_policy_iteration(
    mdp: TabularMDP,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 10_000,
    sweeps: int = 15,
    strict: bool = True,
) -> Plan:
    """Evaluate the greedy policy by a few cheap sweeps, improve, repeat (Puterman & Shin 1978).

    A sweep of one policy costs A times less than a sweep of value iteration. Stops when a bound
    from the *span* of the last change is small: a change that is the same everywhere moves no
    decision, and its effect to infinity is known exactly (MacQueen 1966).
    """
    n_states, n_actions = mdp.reward.shape
    gamma = mdp.discount
    values = np.zeros(n_states)
    rows = np.arange(n_states) * n_actions
    residual, iteration = np.inf, 0
    choice = np.full(n_states, -1)  # of which `chain` and `reward` are
    chain: Any = None
    reward = np.zeros(n_states)
    while iteration < max_iterations:
        q = q_values(mdp, values)
        updated = row_max(q)
        change = updated - values
        iteration += 1
        if gamma < 1.0 and not mdp.terminal.any():
            low, high = change.min(), change.max()
            residual = 0.5 * gamma / (1.0 - gamma) * (high - low)
            if residual <= tolerance:
                values = updated + 0.5 * gamma / (1.0 - gamma) * (high + low)
                break
        else:
            residual = _error_bound(mdp, np.abs(change).max())
            if residual <= tolerance:
                values = updated
                break
        best = rows + q.argmax(axis=1)
        if not np.array_equal(best, choice):
            choice, chain = best, gamma * mdp.transitions[best]
            reward = mdp.reward.reshape(-1)[best]
        values = updated
        for _ in range(sweeps):
            values = reward + chain @ values
    report = SolverReport(
        "modified_policy_iteration",
        bool(residual <= tolerance),
        iteration,
        float(residual),
        tolerance,
    )
    return _hard_plan(mdp, values, report, strict)


def backward_induction(mdp: TabularMDP, horizon: int) -> Plan:
    """Exact finite-horizon plan: V_T = 0, Q_t = r + gamma P V_{t+1}, V_t = max_a Q_t.

    Returns:
        values (T+1, S), q (T, S, A), policy (T, S, A).
    """
    check_horizon(horizon)
    values = np.zeros((horizon + 1, mdp.n_states))
    q = np.empty((horizon, *mdp.reward.shape))
    for t in range(horizon - 1, -1, -1):
        q[t] = q_values(mdp, values[t + 1])
        values[t] = row_max(q[t])
    return Plan(values, q, greedy_policy(q), _exact_report("backward_induction", horizon))


def check_horizon(horizon: int, policy: np.ndarray | None = None) -> None:
    """Refuse a horizon below 1, or one that a policy (T, S, A) does not reach."""
    if horizon < 1:
        raise InvalidHyperparameterError(f"horizon must be 1 or more; got {horizon}.")
    if policy is not None and policy.ndim == 3 and len(policy) < horizon:
        raise InvalidPolicyError(f"policy has {len(policy)} time steps; horizon is {horizon}.")


def _exact_report(method: str, horizon: int) -> SolverReport:
    return SolverReport(method, True, horizon, 0.0, 0.0)


# --- evaluating a policy ------------------------------------------------------------------------


def evaluate_policy(mdp: TabularMDP, policy: Any, horizon: int | None = None) -> np.ndarray:
    """Values of a policy: (S,), or (T+1, S) with a horizon.

    Args:
        policy: (S, A); or (T, S, A) with ``horizon=T``.

    Raises:
        ImproperPolicyError: gamma = 1, no horizon, and the episode may never end.
    """
    pi = check_policy(mdp, policy)
    if horizon is None:
        _refuse_time(pi)
        return PolicySystem(mdp, pi).solve((pi * mdp.reward).sum(axis=1))
    check_horizon(horizon, pi)
    values = np.zeros((horizon + 1, mdp.n_states))
    for t in range(horizon - 1, -1, -1):
        values[t] = (_at(pi, t) * q_values(mdp, values[t + 1])).sum(axis=1)
    return values


def expected_return(mdp: TabularMDP, policy: Any, horizon: int | None = None) -> float:
    """J(pi) = sum_s p_0(s) V_pi(s), with gamma, up to `horizon` if one is given."""
    values = evaluate_policy(mdp, policy, horizon)
    return float(mdp.start @ (values if horizon is None else values[0]))


def _refuse_time(pi: np.ndarray) -> None:
    if pi.ndim == 3:
        raise InvalidPolicyError("a policy that changes with time needs `horizon`.")


def _at(pi: np.ndarray, t: int) -> np.ndarray:
    """The (S, A) policy in force at time t."""
    return pi[t] if pi.ndim == 3 else pi


# --- soft planning ------------------------------------------------------------------------------


def _soft_plan(
    mdp: TabularMDP,
    values: np.ndarray,
    beta: float,
    log_reference: np.ndarray | None,
    report: SolverReport,
) -> SoftPlan:
    """Read Q and the policy off (nearly) fixed values, normalised exactly."""
    q = q_values(mdp, values)
    return SoftPlan(values, q, soft_log_policy(q, beta, log_reference), beta, report)


def soft_log_policy(
    q: np.ndarray, beta: float, log_reference: np.ndarray | None = None
) -> np.ndarray:
    """(..., A) log pi = log m + (Q - V) / beta, normalised in log space."""
    scaled = q / beta if log_reference is None else q / beta + log_reference
    top = scaled.max(axis=-1, keepdims=True)
    return scaled - (top + np.log(np.exp(scaled - top).sum(axis=-1, keepdims=True)))


def soft_value_iteration(
    mdp: TabularMDP,
    *,
    beta: float = 1.0,
    reference: Any = None,
    tolerance: float = 1e-8,
    max_iterations: int = 100_000,
    strict: bool = True,
) -> SoftPlan:
    """Repeat V <- beta log sum_a m exp(Q / beta): a gamma-contraction, like value iteration.

    Args:
        beta: temperature, in units of reward a nat.
        reference: (S, A) policy pi_ref or any non-negative measure m; None for m = 1.
    """
    log_reference = log_reference_measure(mdp, reference, beta)
    alive = ~mdp.terminal
    values = np.zeros(mdp.n_states)
    residual, iteration = np.inf, 0
    while residual > tolerance and iteration < max_iterations:
        updated = soft_backup(q_values(mdp, values), beta, log_reference)[0] * alive
        residual = _error_bound(mdp, np.abs(updated - values).max())
        values = updated
        iteration += 1
    report = SolverReport(
        "soft_value_iteration", bool(residual <= tolerance), iteration, float(residual), tolerance
    )
    if strict:
        report.demand()
    return _soft_plan(mdp, values, beta, log_reference, report)


def soft_policy_iteration(
    mdp: TabularMDP,
    *,
    beta: float = 1.0,
    reference: Any = None,
    tolerance: float = 1e-8,
    max_iterations: int = 200,
    guess: np.ndarray | None = None,
    strict: bool = True,
) -> SoftPlan:
    """Newton's method on the soft Bellman equation V = T V.

    The derivative of T at V is gamma P_pi with pi the soft policy of V, so one Newton step solves
    (I - gamma P_pi) d = T V - V: it evaluates the soft policy exactly. Near the solution the number
    of right digits doubles at each step. `guess` (S,) starts from the values of a similar problem;
    at gamma = 1 it is not used, since only the values of a proper policy are a safe start.

    Raises:
        NotConvergedError: unless ``strict=False``.
        ImproperPolicyError: gamma = 1, and some state cannot reach a terminal one.
        DivergentPartitionError: gamma = 1, and the soft value is infinite: a cycle whose entropy
            pays for its cost.
    """
    log_reference = log_reference_measure(mdp, reference, beta)
    alive = ~mdp.terminal
    if mdp.discount == 1.0:
        values = _reference_values(mdp, beta, log_reference) * alive
    else:
        values = np.zeros(mdp.n_states) if guess is None else guess * alive
    residual, iteration, settled = np.inf, 0, False
    while True:
        updated, policy = soft_backup(q_values(mdp, values), beta, log_reference)
        change = updated * alive - values
        size = np.abs(change).max()
        before, residual = residual, _error_bound(mdp, size)
        if iteration >= max_iterations or not np.isfinite(size):
            break
        if residual > 0.5 * before and size < 1e3 * np.finfo(float).eps * np.abs(values).max():
            break  # rounding: no step makes the residual smaller
        # Undiscounted, the residual bounds no error: one step more makes it as small as rounding.
        if residual <= tolerance and (mdp.discount < 1.0 or settled):
            break
        settled = residual <= tolerance
        # Far from the solution a rough step is as good as an exact one.
        rough = (
            0.1
            if residual > 1e3 * tolerance
            else max(0.1 * tolerance / max(residual, tolerance), 1e-12)
        )
        try:
            step = PolicySystem(mdp, policy).solve(change, tolerance=rough)
        except (ImproperPolicyError, RuntimeError):  # RuntimeError: singular to rounding
            step = None
        if step is None or (mdp.discount == 1.0 and not np.abs(step).max() < ENDLESS_GAIN):
            # Each policy is better than the last, so a proper one gives way only to endless gain.
            raise DivergentPartitionError(
                "discount is 1 and the soft value is infinite: going round for ever gains more "
                f"entropy than it costs (beta = {beta:.3g}). Lower beta, make rewards more "
                "negative, use discount < 1, or give a horizon."
            )
        values = values + step
        iteration += 1
    report = SolverReport(
        "soft_policy_iteration", bool(residual <= tolerance), iteration, float(residual), tolerance
    )
    if strict:
        report.demand()
    return _soft_plan(mdp, updated * alive, beta, log_reference, report)


def _reference_values(mdp: TabularMDP, beta: float, log_reference: np.ndarray | None) -> np.ndarray:
    """(S,) soft values of the policy proportional to m: it goes wherever a policy may go."""
    measure = np.ones(mdp.reward.shape) if log_reference is None else np.exp(log_reference)
    total = measure.sum(axis=1)
    policy = measure / total[:, None]
    gain = (policy * mdp.reward).sum(axis=1) + beta * np.log(total)
    return PolicySystem(mdp, policy).solve(gain * ~mdp.terminal)


def soft_backward_induction(
    mdp: TabularMDP, horizon: int, *, beta: float = 1.0, reference: Any = None
) -> SoftPlan:
    """Exact finite-horizon soft plan, V_T = 0.

    Returns:
        values (T+1, S), q (T, S, A), log_policy (T, S, A).
    """
    check_horizon(horizon)
    log_reference = log_reference_measure(mdp, reference, beta)
    values = np.zeros((horizon + 1, mdp.n_states))
    q = np.empty((horizon, *mdp.reward.shape))
    alive = ~mdp.terminal
    for t in range(horizon - 1, -1, -1):
        q[t] = q_values(mdp, values[t + 1])
        values[t] = soft_backup(q[t], beta, log_reference)[0] * alive
    log_policy = soft_log_policy(q, beta, log_reference)
    report = _exact_report("soft_backward_induction", horizon)
    return SoftPlan(values, q, log_policy, beta, report)


# --- where a policy goes ------------------------------------------------------------------------


def occupancy_by_time(mdp: TabularMDP, policy: Any, horizon: int) -> np.ndarray:
    """(T, S, A) with gamma^t Pr(s_t = s, a_t = a); terminal states act no more and count zero."""
    pi = check_policy(mdp, policy)
    check_horizon(horizon, pi)
    backwards = mdp.transitions.T
    occupancy = np.empty((horizon, *mdp.reward.shape))
    here = mdp.start * ~mdp.terminal
    for t in range(horizon):
        occupancy[t] = _at(pi, t) * here[:, None]
        here = mdp.discount * (backwards @ occupancy[t].reshape(-1)) * ~mdp.terminal
    return occupancy


def occupancy_measure(mdp: TabularMDP, policy: Any, horizon: int | None = None) -> np.ndarray:
    """(S, A) rho(s,a) = sum_t gamma^t Pr(s_t = s, a_t = a), up to `horizon` if one is given.

    Without terminal states and horizon it sums to 1 / (1 - gamma).

    Raises:
        ImproperPolicyError: gamma = 1, no horizon, and the episode may never end.
    """
    if horizon is not None:
        return occupancy_by_time(mdp, policy, horizon).sum(axis=0)
    pi = check_policy(mdp, policy)
    _refuse_time(pi)
    visits = PolicySystem(mdp, pi).solve(mdp.start * ~mdp.terminal, transpose=True)
    return np.where(mdp.terminal, 0.0, visits)[:, None] * pi
