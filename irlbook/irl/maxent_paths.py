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
from scipy.sparse.linalg import SuperLU, splu

from irlbook.errors import DivergentPartitionError, InvalidPolicyError, ShapeError
from irlbook.irl.dual import Features, MaxEntResult, check_expert, fit
from irlbook.mdp import TabularMDP
from irlbook.planning import check_horizon, soft_backup

MOST_STEPS = 1e12  # a mean path length that doubles cannot tell from infinity


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
        if horizon is not None:
            check_horizon(horizon)
        if not 0 < beta < np.inf:
            raise InvalidPolicyError(f"beta must be positive and finite; got {beta}.")
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
        """Paths of any length that end in a terminal state."""
        values = self._log_partition(reward)
        _, policy, tilted = self._one_step(reward, values)
        counted = np.isfinite(values)
        visits = self._factor(policy, tilted, counted).solve(
            self.mdp.start * ~self.mdp.terminal * counted, trans="T"
        )
        visits = np.where(self.mdp.terminal | ~counted, 0.0, visits)
        return self.beta * self._start_value(values), policy, policy * visits[:, None]

    def _factor(self, policy: np.ndarray, tilted: np.ndarray, counted: np.ndarray) -> SuperLU:
        """LU of I - M for the chain of one policy and its tilted moves, over the states `counted`.

        Raises:
            RuntimeError: singular; the chain has no end.
        """
        n_states = self.mdp.n_states
        states = self.entry_rows // self.mdp.n_actions
        flow = policy.reshape(-1)[self.entry_rows] * tilted * counted[states]
        chain = sparse.csc_array(
            (flow, (states, self.mdp.transitions.indices)), shape=(n_states, n_states)
        )
        return splu(
            sparse.csc_matrix(sparse.identity(n_states, format="csc") - chain),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def _start_value(self, values: np.ndarray) -> float:
        begins = self.mdp.start > 0
        if not np.isfinite(values[begins]).all():
            raise DivergentPartitionError(
                f"no path from start state {int(np.flatnonzero(begins & ~np.isfinite(values))[0])} "
                "ends in a terminal state, so its partition function is zero."
            )
        return float(self.mdp.start[begins] @ values[begins])

    def _log_partition(self, reward: np.ndarray) -> np.ndarray:
        """(S,) V = log Z over paths of any length that end; -inf where none does.

        Z = M Z + b is linear, but Z spans hundreds of orders of magnitude. So solve for V itself,
        V = log(M exp(V) + b), by Newton's method from the best single path. The right side is
        convex and the start lies below it, so V only ever grows; each step solves with the
        transition matrix of a policy, which is as harmless as numbers can be.

        Raises:
            DivergentPartitionError: the spectral radius of M is 1 or more, so V grows for ever.
        """
        log_weight = (reward / self.beta).reshape(-1)[self.entry_rows] + self.log_probability
        best = self._best_path(log_weight)
        if best is None:
            raise self._divergent(log_weight)
        counted, alive = np.isfinite(best), ~self.mdp.terminal
        values, settled = best, False
        for _ in range(200):
            updated, policy, tilted = self._one_step(reward, values)
            change = np.where(counted, updated, 0.0) - np.where(counted, values, 0.0)
            try:
                factor = self._factor(policy, tilted, counted)
                step = factor.solve(change)
            except RuntimeError:
                break
            values = np.where(counted, values + step, -np.inf)
            size = np.abs(step).max()
            if not size < 1e12:
                break
            if settled:
                # On the very edge (spectral radius 1) an endless sum can round to a finite one.
                if not factor.solve(counted * alive).max() < MOST_STEPS:
                    break
                return values
            # So near, the number of right digits doubles: one step more is enough.
            settled = size <= 1e-9 * max(1.0, np.abs(values[counted]).max())
        raise self._divergent(log_weight)

    def _best_path(self, log_weight: np.ndarray) -> np.ndarray | None:
        """(S,) largest log-weight of a path that ends; None if a cycle gains, so that none is."""
        matrix, alive = self.mdp.transitions, ~self.mdp.terminal
        states = self.entry_rows // self.mdp.n_actions
        best = np.where(alive, -np.inf, 0.0)
        for _ in range(self.mdp.n_states + 1):
            longer = np.full(self.mdp.n_states, -np.inf)
            np.maximum.at(longer, states, log_weight + best[matrix.indices])
            longer = np.where(alive, np.maximum(longer, best), 0.0)
            if np.array_equal(longer, best):
                return best
            best = longer
        return None

    def _divergent(self, log_weight: np.ndarray) -> DivergentPartitionError:
        """The error, with how fast the total weight of the paths grows with their length."""
        matrix = self.mdp.transitions
        to_sum = sparse.csr_array(
            (log_weight, matrix.indices, matrix.indptr[:: self.mdp.n_actions]),
            shape=(self.mdp.n_states, self.mdp.n_states),
        )
        total = [np.where(self.mdp.terminal, -np.inf, 0.0)]
        for _ in range(200):
            total.append(log_matvec(log_weight, to_sum, total[-1]))
        growth = np.exp(min((total[200].max() - total[100].max()) / 100, 700.0))
        return DivergentPartitionError(
            "the partition function over paths of any length diverges: each step multiplies "
            f"the total weight by about {growth:.6g}, which must be below 1. Make rewards more "
            "negative, give a horizon, or use a smaller step in w."
        )

    def best_return(self, reward: np.ndarray) -> float:
        """Largest return of any single path: luck is free in this model. May be infinite."""
        gain = reward.reshape(-1)[self.entry_rows]
        if self.horizon is None:
            values = self._best_path(gain)
            if values is None:
                return np.inf
        else:
            states = self.entry_rows // self.mdp.n_actions
            values = np.zeros(self.mdp.n_states)
            for _ in range(self.horizon):
                updated = np.full(self.mdp.n_states, -np.inf)
                np.maximum.at(updated, states, gain + values[self.mdp.transitions.indices])
                values = np.where(self.mdp.terminal, 0.0, updated)
        begins = self.mdp.start > 0
        return float(self.mdp.start[begins] @ values[begins])


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
