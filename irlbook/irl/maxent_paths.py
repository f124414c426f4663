"""Maximum entropy IRL over whole paths (Ziebart, Maas, Bagnell & Dey 2008).

P(tau | s_0) ~ prod_t P(s'|s,a) exp(r_w(s,a) / beta). When moves are deterministic this is the
causal model. When they are random it lets the demonstrator choose its luck, which is why
`irlbook.irl.maxent` is the default. Kept for road networks, for its history, and because it is
exact on demonstrations of every length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigs, splu

from irlbook.errors import DivergentPartitionError, ShapeError
from irlbook.irl.dual import Features, MaxEntResult, check_expert, fit
from irlbook.mdp import TabularMDP
from irlbook.planning import soft_backup


def log_matvec(log_data: np.ndarray, matrix: sparse.csr_array, values: np.ndarray) -> np.ndarray:
    """(rows,) log sum_j exp(log M_ij + v_j), row by row, for a sparse M; empty rows give -inf."""
    out = np.full(matrix.shape[0], -np.inf)
    full = np.flatnonzero(np.diff(matrix.indptr))
    if not full.size:
        return out
    terms = log_data + values[matrix.indices]
    begins = matrix.indptr[full]
    top = np.maximum.reduceat(terms, begins)
    safe = np.where(np.isfinite(top), top, 0.0)
    rows = np.repeat(np.arange(full.size), np.diff(matrix.indptr)[full])
    with np.errstate(divide="ignore"):
        out[full] = safe + np.log(np.add.reduceat(np.exp(terms - safe[rows]), begins))
    return out


class _Paths:
    """Ziebart's path distribution: P(tau | s_0) ~ prod_t P(s'|s,a) exp(r(s,a) / beta)."""

    def __init__(self, mdp, features, expert_features, horizon, beta):
        if mdp.discount != 1.0:
            raise ShapeError(
                f"the path model has no discount; this MDP has {mdp.discount}. Use "
                "mdp.with_discount(1.0), or the causal model (fit_max_causal_ent)."
            )
        if horizon is None and not mdp.terminal.any():
            raise DivergentPartitionError(
                "without a horizon and without terminal states there are endlessly many paths. "
                "Give a horizon, or terminal states in which paths end."
            )
        self.mdp, self.horizon, self.beta = mdp, horizon, beta
        self.features = Features(mdp, features)
        self.expert = check_expert(expert_features, self.features.count)
        self.log_probability = np.log(mdp.transitions.data)
        self.entry_rows = np.repeat(
            np.arange(mdp.transitions.shape[0]), np.diff(mdp.transitions.indptr)
        )

    def evaluate(self, weights: np.ndarray):
        reward = self.features.reward(weights)
        plan = self._endless if self.horizon is None else self._finite
        start_value, policy, occupancy = plan(reward)
        expected = self.features.expectations(occupancy)
        gradient = expected - self.expert
        return start_value - weights @ self.expert, gradient, (policy, None, expected)

    def _one_step(self, reward: np.ndarray, values: np.ndarray):
        """Back up log-partition `values` (S,) once.

        Returns:
            log Z (S,), policy (S, A), and the tilted successor probabilities, one a stored entry.
        """
        ahead = log_matvec(self.log_probability, self.mdp.transitions, values)
        with np.errstate(invalid="ignore"):
            tilted = np.exp(
                self.log_probability + values[self.mdp.transitions.indices] - ahead[self.entry_rows]
            )
        tilted = np.nan_to_num(tilted, nan=0.0)
        q = reward / self.beta + ahead.reshape(reward.shape)
        q = np.where(self.mdp.terminal[:, None], 0.0, q)
        hopeless = ~np.isfinite(q).any(axis=1)
        q[hopeless] = 0.0
        updated, policy = soft_backup(q, 1.0)
        updated = np.where(hopeless, -np.inf, updated)
        return np.where(self.mdp.terminal, 0.0, updated), policy, tilted

    def _finite(self, reward: np.ndarray):
        """Paths of at most `horizon` steps: they end there or in a terminal state before."""
        n_states, n_actions = reward.shape
        values = np.zeros(n_states)
        policy = np.empty((self.horizon, n_states, n_actions))
        tilted = np.empty((self.horizon, self.mdp.transitions.nnz))
        for t in range(self.horizon - 1, -1, -1):
            values, policy[t], tilted[t] = self._one_step(reward, values)
        occupancy = np.zeros_like(reward)
        alive = ~self.mdp.terminal
        here = self.mdp.start * alive
        for t in range(self.horizon):
            acting = policy[t] * here[:, None]
            occupancy += acting
            flow = acting.reshape(-1)[self.entry_rows] * tilted[t]
            here = np.bincount(self.mdp.transitions.indices, flow, minlength=n_states) * alive
        return self.beta * self._start_value(values), policy, occupancy

    def _endless(self, reward: np.ndarray):
        """Paths of any length that end in a terminal state: a linear equation in Z = exp(V)."""
        values = self._log_partition(reward)
        values, policy, tilted = self._one_step(reward, values)
        n_states, alive = self.mdp.n_states, ~self.mdp.terminal
        acting = np.where(np.isfinite(values) & alive, 1.0, 0.0)[:, None] * policy
        flow = acting.reshape(-1)[self.entry_rows] * tilted
        states = self.entry_rows // self.mdp.n_actions
        chain = sparse.csc_array(
            (flow, (states, self.mdp.transitions.indices)), shape=(n_states, n_states)
        )
        system = sparse.csc_matrix(sparse.identity(n_states, format="csc") - chain)
        visits = splu(system).solve(self.mdp.start * alive, trans="T") * alive
        return self.beta * self._start_value(values), policy, policy * visits[:, None]

    def _start_value(self, values: np.ndarray) -> float:
        begins = self.mdp.start > 0
        if not np.isfinite(values[begins]).all():
            raise DivergentPartitionError(
                f"no path from start state {int(np.flatnonzero(begins & ~np.isfinite(values))[0])} "
                "ends in a terminal state, so its partition function is zero."
            )
        return float(self.mdp.start[begins] @ values[begins])

    def _log_partition(self, reward: np.ndarray) -> np.ndarray:
        """(S,) log Z over paths of any length.

        Z = M Z + b is linear, but Z spans hundreds of orders of magnitude. So scale by the best
        single path first: with v its log-weight, y = exp(-v) Z solves a system whose entries are
        at most 1 a path.

        Raises:
            DivergentPartitionError: the spectral radius of M is 1 or more.
        """
        n_states, n_actions = reward.shape
        matrix, alive = self.mdp.transitions, ~self.mdp.terminal
        log_weight = (reward / self.beta).reshape(-1)[self.entry_rows] + self.log_probability
        states = self.entry_rows // n_actions
        self._check_radius(log_weight, states)
        best = np.where(alive, -np.inf, 0.0)
        for _ in range(n_states):
            longer = np.full(n_states, -np.inf)
            np.maximum.at(longer, states, log_weight + best[matrix.indices])
            longer = np.where(alive, np.maximum(longer, best), 0.0)
            if np.array_equal(longer, best):
                break
            best = longer
        reaches = np.isfinite(best)
        keep = reaches[states] & reaches[matrix.indices]
        entry = np.exp(log_weight[keep] + best[matrix.indices[keep]] - best[states[keep]])
        scaled = sparse.csc_array(
            (entry, (states[keep], matrix.indices[keep])), shape=(n_states, n_states)
        )
        system = sparse.csc_matrix(sparse.identity(n_states, format="csc") - scaled)
        total = splu(system).solve((~alive).astype(float))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(reaches, best + np.log(np.where(reaches, total, 1.0)), -np.inf)

    def _check_radius(self, log_weight: np.ndarray, states: np.ndarray) -> None:
        """The sum over ever longer paths is finite iff the spectral radius is below 1."""
        n_states = self.mdp.n_states
        inside = ~self.mdp.terminal[self.mdp.transitions.indices]
        shift = float(log_weight.max())
        step = sparse.csr_array(
            (
                np.exp(log_weight[inside] - shift),
                (states[inside], self.mdp.transitions.indices[inside]),
            ),
            shape=(n_states, n_states),
        )
        if n_states <= 500:
            radius = np.abs(np.linalg.eigvals(step.toarray())).max()
        else:
            radius = np.abs(eigs(step, k=1, v0=np.ones(n_states), return_eigenvectors=False))[0]
        log_radius = np.log(radius) + shift if radius > 0 else -np.inf
        if log_radius >= -1e-12:
            raise DivergentPartitionError(
                "the partition function over paths of any length diverges: each step multiplies "
                f"the total weight by {np.exp(min(log_radius, 700.0)):.4g}, which must be below 1. "
                "Make rewards more negative, give a horizon, or use a smaller step in w."
            )

    def best_return(self, reward: np.ndarray) -> float:
        """Largest return of any single path: luck is free in this model."""
        n_states, n_actions = reward.shape
        matrix, alive = self.mdp.transitions, ~self.mdp.terminal
        states = self.entry_rows // n_actions
        gain = reward.reshape(-1)[self.entry_rows]
        values = np.where(alive & (self.horizon is None), -np.inf, 0.0)
        for _ in range(self.horizon or n_states):
            updated = np.full(n_states, -np.inf)
            np.maximum.at(updated, states, gain + values[matrix.indices])
            if self.horizon is None:
                updated = np.maximum(updated, values)
            values = np.where(alive, updated, 0.0)
        return float(self.mdp.start[self.mdp.start > 0] @ values[self.mdp.start > 0])


def path_dual(
    weights: Any,
    mdp: TabularMDP,
    features: Any,
    expert_features: Any,
    *,
    horizon: int | None = None,
    beta: float = 1.0,
) -> tuple[float, np.ndarray]:
    """Dual of the path model, g(w) = beta E_{p_0}[log Z_w(s_0)] - w . mu_E, and its gradient."""
    problem = _Paths(mdp, features, expert_features, horizon, beta)
    value, gradient, _ = problem.evaluate(np.asarray(weights, dtype=float))
    return value, gradient


def fit_max_ent_paths(
    mdp: TabularMDP,
    features: Any,
    expert_features: Any,
    *,
    horizon: int | None = None,
    beta: float = 1.0,
    l2: float = 0.0,
    l1: float = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    initial_weights: Any = None,
) -> MaxEntResult:
    """Ziebart's path-based maximum entropy IRL (2008), for demonstrations of varying length.

    With terminal states and no horizon the sum runs exactly over paths of *every* length
    (Snoswell, Singh & Ye 2020); with a horizon, over paths of at most that many steps.

    Args:
        mdp: discount must be 1. initial_weights: (K,) where the partition function is finite;
            zeros may not be: then give a cost to every step.

    Raises:
        DivergentPartitionError: the sum over paths is infinite at `initial_weights`.
        UnreachableFeaturesError, NotConvergedError: as in :func:`fit_max_causal_ent`.
    """
    problem = _Paths(mdp, features, expert_features, horizon, beta)
    return fit(problem, l2, l1, tolerance, max_iterations, "lbfgs", initial_weights, "paths")
