"""Maximum entropy IRL over whole paths (Ziebart, Maas, Bagnell & Dey 2008).

    P(tau | s_0) ~ prod_t m(a|s) P(s'|s,a) exp(r_w(s,a) / beta),     m = 1 without a reference.

When moves are deterministic this is the causal model. When they are random it lets the
demonstrator choose its luck, which is why `irlbook.irl.maxent` is the default. Kept for road
networks, for its history, and because it is exact on demonstrations of every length.

With links for states and turns for actions it is the recursive logit of route choice (Fosgerau,
Frejinger & Karlstrom 2013), where one reward is fitted to walks to many destinations. That is what
groups of demonstrations are for (`irlbook.irl.groups`); all goals then share one factorisation
(`irlbook.irl.many_goals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from irlbook.errors import (
    DivergentPartitionError,
    InvalidHyperparameterError,
    InvalidMDPError,
    InvalidPolicyError,
)
from irlbook.irl.dual import Features, MaxEntResult, Point, Solver, check_expert, fit
from irlbook.irl.groups import CheckedGroup, Group, are_groups, check_groups
from irlbook.irl.many_goals import Edges, SharedPlan, SharedSystem, choice_hessian
from irlbook.mdp import TabularMDP
from irlbook.planning import check_horizon, log_reference_measure, soft_backup

__all__ = [
    "LonePlan",
    "MOST_STEPS",
    "PathModel",
    "PathPlan",
    "PathsTo",
    "fit_max_ent_paths",
    "log_matvec",
    "path_dual",
    "path_hessian",
]

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


@dataclass(frozen=True)
class LonePlan:
    """The paths to one set of ends, at one reward.

    Attributes:
        start_value: beta E log Z(s_0). policy: (S, A), or (T, S, A) with a horizon.
        occupancy: (S, A) mean visits. tilted: (n,) chance of each edge, given its action.
        factor: LU of I - M of the chain, over the states `counted`; None with a horizon.
    """

    start_value: float
    policy: np.ndarray
    occupancy: np.ndarray
    tilted: np.ndarray
    counted: np.ndarray
    factor: SuperLU | None


class PathsTo:
    """All paths from `start` to `ends`, one log-partition function."""

    def __init__(
        self,
        mdp: TabularMDP,
        log_reference: np.ndarray | None,
        ends: np.ndarray,
        start: np.ndarray,
        beta: float,
    ):
        self.ends, self.start, self.beta = ends, start, beta
        self.shape = mdp.reward.shape
        self.edges = Edges.of(mdp, log_reference, stop=ends | mdp.terminal)
        allowed = np.diff(self.edges.matrix.indptr).reshape(self.shape) > 0
        stuck = ~allowed.any(axis=1)
        # What a policy shows where no path ends: the reference, or anything at all.
        self.idle = np.where(stuck[:, None] | allowed, 0.0, -np.inf)
        if log_reference is not None:
            self.idle = np.where(allowed, log_reference, self.idle)
        self.arriving = self.edges.can_reach(ends)  # (S,) bool: some path ends
        self.reached = self.edges.reached_from(start > 0)

    def solve(self, reward: np.ndarray) -> LonePlan:
        """Paths of any length.

        Raises:
            DivergentPartitionError: their sum is infinite, or there is none.
        """
        values, counted = self._log_partition(reward)
        log_weight = np.where(counted[self.edges.states], self.edges.log_weight, -np.inf)
        _, policy, tilted = self._one_step(reward, values, log_weight)
        factor = self._factor(policy, tilted, counted)
        begin = self.start * ~self.ends * counted
        visits = np.where(self.ends | ~counted, 0.0, factor.solve(begin, trans="T"))
        occupancy = policy * visits[:, None]
        value = self._start_value(values)
        return LonePlan(value, policy, occupancy, tilted, counted, factor)

    def solve_finite(self, reward: np.ndarray, horizon: int) -> LonePlan:
        """Paths of at most `horizon` steps: they stop there, or at an end before."""
        edges, alive = self.edges, ~self.ends
        n_states = self.shape[0]
        values = np.zeros(n_states)
        policy = np.empty((horizon, *self.shape))
        tilted = np.empty((horizon, len(edges.log_weight)))
        for t in range(horizon - 1, -1, -1):
            values, policy[t], tilted[t] = self._one_step(reward, values, edges.log_weight)
        occupancy = np.zeros(self.shape)
        here = self.start * alive
        for t in range(horizon):
            acting = policy[t] * here[:, None]
            occupancy += acting
            flow = acting.reshape(-1)[edges.rows] * tilted[t]
            here = np.bincount(edges.matrix.indices, flow, minlength=n_states) * alive
        value = self._start_value(values)
        return LonePlan(value, policy, occupancy, tilted, np.isfinite(values), None)

    def hessian(self, plan: LonePlan, phi: np.ndarray) -> np.ndarray:
        """(K, K) of beta E log Z(s_0), for features `phi` (n, K) of the edges."""
        assert plan.factor is not None
        edges = self.edges
        chance = plan.policy.reshape(-1)[edges.rows] * plan.tilted * plan.counted[edges.states]
        mean = edges.sum_by_state(chance[:, None] * phi)
        ahead = plan.factor.solve(mean * plan.counted[:, None])
        flow = plan.occupancy.reshape(-1)[edges.rows] * plan.tilted
        return choice_hessian(edges, flow, phi, ahead) / self.beta

    def _one_step(
        self, reward: np.ndarray, values: np.ndarray, log_weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Back up log-partition `values` (S,) once.

        Returns:
            log Z (S,), policy (S, A), and the tilted successor probabilities, one an edge.
        """
        edges = self.edges
        ahead = log_matvec(log_weight, edges.matrix, values)
        with np.errstate(invalid="ignore"):
            tilted = np.exp(log_weight + values[edges.matrix.indices] - ahead[edges.rows])
        tilted = np.nan_to_num(tilted, nan=0.0)
        q = reward / self.beta + ahead.reshape(reward.shape)
        q = np.where(self.ends[:, None], 0.0, q)
        hopeless = ~np.isfinite(q).any(axis=1)
        q[hopeless] = self.idle[hopeless]
        updated, policy = soft_backup(q, 1.0)
        updated = np.where(hopeless, -np.inf, updated)
        return np.where(self.ends, 0.0, updated), policy, tilted

    def _factor(self, policy: np.ndarray, tilted: np.ndarray, counted: np.ndarray) -> SuperLU:
        """LU of I - M for the chain of one policy and its tilted moves, over the states `counted`.

        Raises:
            RuntimeError: singular; the chain has no end.
        """
        edges, n_states = self.edges, self.shape[0]
        flow = policy.reshape(-1)[edges.rows] * tilted * counted[edges.states]
        chain = sparse.csc_array(
            (flow, (edges.states, edges.matrix.indices)), shape=(n_states, n_states)
        )
        return splu(
            sparse.csc_matrix(sparse.identity(n_states, format="csc") - chain),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def _start_value(self, values: np.ndarray) -> float:
        begins = self.start > 0
        if not np.isfinite(values[begins]).all():
            raise DivergentPartitionError(
                f"no path from start state {int(np.flatnonzero(begins & ~np.isfinite(values))[0])} "
                f"ends in {self._name_ends()}, so its partition function is zero."
            )
        return self.beta * float(self.start[begins] @ values[begins])

    def _name_ends(self) -> str:
        """The ends, in words."""
        states = np.flatnonzero(self.ends)
        return f"its goal, state {states[0]}" if states.size == 1 else "a terminal state"

    def _log_partition(self, reward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S,) V = log Z over paths of any length that end, -inf where none does; and (S,) where.

        Raises:
            DivergentPartitionError: V grows for ever in a state that the start reaches. Where only
                others diverge, they are left out.
        """
        values = self._newton(reward, self.arriving)
        if values is not None:
            return values, np.isfinite(values)
        nearby = self.arriving & (self.reached | self.ends)
        if not np.array_equal(nearby, self.arriving):
            values = self._newton(reward, nearby)
        if values is None:
            raise self._divergent(reward, nearby)
        return values, np.isfinite(values)

    def _newton(self, reward: np.ndarray, among: np.ndarray) -> np.ndarray | None:
        """(S,) V = log Z over paths within the states `among`; None where it is infinite.

        Z = M Z + b is linear, but Z spans hundreds of orders of magnitude. So solve for V itself,
        V = log(M exp(V) + b), by Newton's method from the best single path. The right side is
        convex and the start lies below it, so V only ever grows; each step solves with the
        transition matrix of a policy, which is as harmless as numbers can be. It is infinite where
        the spectral radius of M is 1 or more.
        """
        log_weight = np.where(among[self.edges.states], self.edges.log_weight, -np.inf)
        best = self._best_path(self._gains(reward, log_weight))
        if best is None:
            return None
        counted, alive = np.isfinite(best), ~self.ends
        values, settled = best, False
        for _ in range(200):
            updated, policy, tilted = self._one_step(reward, values, log_weight)
            change = np.where(counted, updated, 0.0) - np.where(counted, values, 0.0)
            try:
                factor = self._factor(policy, tilted, counted)
                step = factor.solve(change)
            except RuntimeError:
                return None
            values = np.where(counted, values + step, -np.inf)
            size = np.abs(step).max()
            if not size < 1e12:
                return None
            if settled:
                # On the very edge (spectral radius 1) an endless sum can round to a finite one.
                return values if factor.solve(counted * alive).max() < MOST_STEPS else None
            # So near, the number of right digits doubles: one step more is enough.
            settled = size <= 1e-9 * max(1.0, np.abs(values[counted]).max())
        return None

    def _gains(self, reward: np.ndarray, log_weight: np.ndarray) -> np.ndarray:
        """(n,) log-weight of each edge, reward included."""
        return (reward / self.beta).reshape(-1)[self.edges.rows] + log_weight

    def _best_path(self, gains: np.ndarray) -> np.ndarray | None:
        """(S,) largest sum of gains of a path that ends; None if a cycle gains, so that none is."""
        alive = ~self.ends
        best = np.where(alive, -np.inf, 0.0)
        for _ in range(self.shape[0] + 1):
            longer = np.full(self.shape[0], -np.inf)
            np.maximum.at(longer, self.edges.states, gains + best[self.edges.matrix.indices])
            longer = np.where(alive, np.maximum(longer, best), 0.0)
            if np.array_equal(longer, best):
                return best
            best = longer
        return None

    def _divergent(self, reward: np.ndarray, among: np.ndarray) -> DivergentPartitionError:
        """The error, with how fast the weight of the paths within `among` grows with length."""
        matrix = self.edges.matrix
        gains = self._gains(reward, self.edges.log_weight)
        to_sum = sparse.csr_array(
            (gains, matrix.indices, matrix.indptr[:: self.shape[1]]), shape=(self.shape[0],) * 2
        )
        inside = among & ~self.ends
        total = [np.where(inside, 0.0, -np.inf)]
        for _ in range(200):
            longer = log_matvec(gains, to_sum, total[-1])
            total.append(np.where(inside, longer, -np.inf))
        growth = np.exp(min((total[200].max() - total[100].max()) / 100, 700.0))
        return DivergentPartitionError(
            "the partition function over paths of any length diverges: each step multiplies "
            f"the total weight by about {growth:.6g}, which must be below 1. Make rewards more "
            "negative, give a horizon, or use a smaller step in w."
        )

    def best_return(self, reward: np.ndarray, horizon: int | None) -> float:
        """Largest return of any single path: luck is free in this model. May be infinite."""
        edges = self.edges
        gain = reward.reshape(-1)[edges.rows]
        if horizon is None:
            found = self._best_path(np.where(self.arriving[edges.states], gain, -np.inf))
            if found is None:
                return np.inf
            values = found
        else:
            values = np.zeros(self.shape[0])
            for _ in range(horizon):
                updated = np.full(self.shape[0], -np.inf)
                np.maximum.at(updated, edges.states, gain + values[edges.matrix.indices])
                values = np.where(self.ends, 0.0, updated)
        begins = self.start > 0
        return float(self.start[begins] @ values[begins])


@dataclass(frozen=True)
class PathPlan:
    """What all groups did at one w: together, and those that had to be solved apart."""

    shared: SharedPlan | None
    apart: dict[int, LonePlan]


class PathModel:
    """The dual of the path model, g(w) = beta E[log Z_w(s_0)] - w . mu_E, over all groups."""

    def __init__(
        self,
        mdp: TabularMDP,
        features: Any,
        expert: Any,
        horizon: int | None,
        beta: float,
        reference: Any,
    ):
        if mdp.discount != 1.0:
            raise InvalidMDPError(
                f"the path model has no discount; this MDP has {mdp.discount}. Use "
                "mdp.with_discount(1.0), or the causal model (fit_max_causal_ent)."
            )
        if horizon is not None:
            check_horizon(horizon)
        if not 0 < beta < np.inf:
            raise InvalidPolicyError(f"beta must be positive and finite; got {beta}.")
        self.mdp, self.horizon, self.beta = mdp, horizon, beta
        self.log_reference = log_reference_measure(mdp, reference, beta, dead=True)
        self.features = Features(mdp, features)
        self.count: float | None = None
        self.shared: SharedSystem | None = None
        if are_groups(expert):
            if horizon is not None:
                raise InvalidHyperparameterError(
                    "groups hold paths of any length, to their goals: leave out the horizon."
                )
            self.groups = check_groups(expert, mdp, self.features.count)
            self.count = float(sum(group.count for group in expert))
            self.shared = SharedSystem(
                Edges.of(mdp, self.log_reference, stop=mdp.terminal), self.groups
            )
        else:
            if horizon is None and not mdp.terminal.any():
                raise DivergentPartitionError(
                    "without a horizon and without terminal states there are endlessly many "
                    "paths. Give a horizon, or terminal states in which paths end."
                )
            target = check_expert(expert, self.features.count)
            self.groups = [CheckedGroup(target, 1.0, mdp.terminal, mdp.start)]
        self.expert: np.ndarray = np.average(
            [group.expert for group in self.groups], 0, [group.share for group in self.groups]
        )
        self._apart: dict[int, PathsTo] = {}
        self.apart = 0  # groups that the last evaluation had to solve one by one

    def _paths(self, i: int) -> PathsTo:
        """The paths of group `i` by themselves."""
        if i not in self._apart:
            group = self.groups[i]
            self._apart[i] = PathsTo(
                self.mdp, self.log_reference, group.ends, group.start, self.beta
            )
        return self._apart[i]

    def _lone(self, i: int, reward: np.ndarray) -> LonePlan:
        paths = self._paths(i)
        if self.horizon is not None:
            return paths.solve_finite(reward, self.horizon)
        try:
            return paths.solve(reward)
        except DivergentPartitionError as problem:
            if self.shared is None:
                raise
            raise DivergentPartitionError(f"group {i} ({paths._name_ends()}): {problem}") from None

    def evaluate(self, weights: np.ndarray) -> Point[PathPlan]:
        """g(w) and its gradient; mu(w) is the mean over demonstrations."""
        reward = self.features.reward(weights)
        shared = None if self.shared is None else self.shared.solve(reward, self.beta)
        value, occupancy = (0.0, np.zeros(self.mdp.reward.shape))
        if shared is not None:
            value, occupancy = shared.value, shared.occupancy.reshape(occupancy.shape)
        alone = range(len(self.groups)) if shared is None else np.flatnonzero(~shared.solved)
        apart = {}
        for i in alone:
            apart[int(i)] = plan = self._lone(int(i), reward)
            value += self.groups[i].share * plan.start_value
            occupancy = occupancy + self.groups[i].share * plan.occupancy
        self.apart = len(apart)
        expected = self.features.expectations(occupancy)
        return Point(
            value - float(weights @ self.expert),
            expected - self.expert,
            expected,
            PathPlan(shared, apart),
        )

    def hessian(self, plan: PathPlan) -> np.ndarray:
        """(K, K): 1/beta times the mean covariance of a path's feature sum, given its start."""
        total = np.zeros((self.features.count,) * 2)
        if plan.shared is not None and self.shared is not None:
            phi = self._edge_features(self.shared.edges)
            total += self.shared.hessian(plan.shared, phi, self.beta)
        for i, lone in plan.apart.items():
            paths = self._paths(i)
            phi = self._edge_features(paths.edges)
            total += self.groups[i].share * paths.hessian(lone, phi)
        return total

    def _edge_features(self, edges: Edges) -> np.ndarray:
        """(n, K)."""
        picked = self.features.matrix[edges.states if self.features.on_states else edges.rows]
        return picked.toarray() if sparse.issparse(picked) else picked

    def policy(self, plan: PathPlan) -> np.ndarray:
        """(S, A) or (T, S, A); with groups (G, S, A)."""
        if self.shared is None:
            return plan.apart[0].policy
        policies = np.empty((len(self.groups), *self.mdp.reward.shape))
        if plan.shared is not None:
            policies[:] = self.shared.policies(plan.shared).reshape(policies.shape)
        for i, lone in plan.apart.items():
            policies[i] = lone.policy
        return policies

    def best_return(self, reward: np.ndarray) -> float:
        return sum(
            group.share * self._paths(i).best_return(reward, self.horizon)
            for i, group in enumerate(self.groups)
        )

    def sample_size(self) -> float | None:
        return self.count


def path_dual(
    weights: Any,
    mdp: TabularMDP,
    features: Any,
    expert_features: Any,
    *,
    horizon: int | None = None,
    beta: float = 1.0,
    reference: Any = None,
) -> tuple[float, np.ndarray]:
    """Dual of the path model, g(w) = beta E_{p_0}[log Z_w(s_0)] - w . mu_E, and its gradient.

    Given groups (see `fit_max_ent_paths`) it is the mean over their N walks, -beta / N times the
    joint log-likelihood of what was chosen, given where walks start and end (and without the
    log-probabilities of the moves themselves, which no weight changes).
    """
    problem = PathModel(mdp, features, expert_features, horizon, beta, reference)
    point = problem.evaluate(np.asarray(weights, dtype=float))
    return point.value, point.gradient


def path_hessian(
    weights: Any,
    mdp: TabularMDP,
    features: Any,
    *,
    groups: Sequence[Group] | None = None,
    beta: float = 1.0,
    reference: Any = None,
) -> np.ndarray:
    """(K, K) Hessian of `path_dual` for paths of any length: Cov[sum of features] / beta.

    The covariance of a path given its start, averaged over starts (and groups).
    """
    problem = PathModel(mdp, features, groups, None, beta, reference)
    return problem.hessian(problem.evaluate(np.asarray(weights, dtype=float)).plan)


def fit_max_ent_paths(
    mdp: TabularMDP,
    features: Any,
    expert_features: Any,
    *,
    horizon: int | None = None,
    beta: float = 1.0,
    reference: Any = None,
    l2: float = 0.0,
    l1: float = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    initial_weights: Any = None,
) -> MaxEntResult:
    """Ziebart's path-based maximum entropy IRL (2008), for demonstrations of varying length.

    With terminal states and no horizon the sum runs exactly over paths of *every* length
    (Snoswell, Singh & Ye 2020); with a horizon, over paths of at most that many steps.

    Given groups, one reward is fitted to walks to many goals, by Newton's method; all goals share
    one factorisation (`irlbook.irl.many_goals`). Goals for which it would not be exact (the sum
    over all paths diverges without them, or Z underflows) are solved one by one, in logs, which
    takes longer; `report.method` counts them.

    Args:
        mdp: discount must be 1.
        expert_features: (K,); or a list of `irlbook.irl.groups.Group`, which `group_by_goal` and
            `group_by_start` make from trajectories.
        reference: (S, A) weights m(a|s) >= 0 of the actions; a mask of 0 and 1 (or bool) forbids
            those with 0. Only allowed actions count as paths. None: all are allowed.
        initial_weights: (K,) where the partition function is finite; zeros may not be: then give
            a cost to every step.

    Returns:
        the fit; with groups also the standard errors of the weights.

    Raises:
        DivergentPartitionError: the sum over paths is infinite at `initial_weights`, or empty.
            States that no walk can visit do not count.
        UnreachableFeaturesError, NotConvergedError: as in `irlbook.irl.maxent.fit_max_causal_ent`.
    """
    problem = PathModel(mdp, features, expert_features, horizon, beta, reference)
    solver: Solver = "lbfgs" if problem.shared is None else "auto"
    result = fit(
        problem,
        l2=l2,
        l1=l1,
        tolerance=tolerance,
        max_iterations=max_iterations,
        solver=solver,
        initial_weights=initial_weights,
        name="paths",
    )
    if problem.shared is None or not problem.apart:
        return result
    method = f"{result.report.method} ({problem.apart} of {len(problem.groups)} groups apart)"
    return replace(result, report=replace(result.report, method=method))
