"""The path model for many goals at once: one factorisation, all right-hand sides.

Let M hold the weight of each move, M_ij = sum_a m(a|i) P(j|i,a) exp(r(i,a) / beta), with no goal
taken out, and N = (I - M)^-1 = I + M + M^2 + ... , which is finite and not negative if and only if
the spectral radius of M is below 1. N_sj is the total weight of the paths from s to j. Each such
path visits j a first time and then goes round, so the paths that *end* when they enter the goal g
weigh

    Z_g(s) = N_sg / N_gg                                                              (first visit)

and those that go from s to i without ever touching g weigh N_si - Z_g(s) N_gi (the same, or the
Sherman-Morrison formula for M without row g). Let walks start with p(s). An observed walk is given
its start, so with q = p / Z_g the mean number of visits to i is v(i) = x(i) Z_g(i), where

    x = N' (q - e_g),       since  sum_s q(s) Z_g(s) = 1:   one transposed solve for each goal.

For the Hessian, D = dZ_g/dw of feature k solves (I - M without row g) D = B, with B the feature
times the weight of each move times Z_g of where it leads (0 in row g), over beta. By the same
formula D = N B - Z_g (N B)(g). F = beta D / Z_g is the mean feature sum still to come. So much for
the mean; a choice e from i to j shifts it by d_e = phi_e + F(j) - F(i), shifts of different choices
are uncorrelated, and the covariance of the feature sum is sum_e flow_e d_e d_e'.

The linear system is that of Fosgerau, Frejinger and Karlstrom 2013 (recursive logit, z = M z + b),
who solve one for each destination.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import SuperLU, splu

from irlbook.irl.groups import CheckedGroup
from irlbook.mdp import TabularMDP, empty_rows

__all__ = [
    "Edges",
    "GOALS_AT_ONCE",
    "LEAST_Z",
    "MOST_WEIGHT",
    "SharedPlan",
    "SharedSystem",
    "choice_hessian",
]

MOST_WEIGHT = 1e8  # of all paths from a state: beyond, too few digits of the differences are left
LEAST_Z = 1e-280  # below, Z is lost in underflow
GOALS_AT_ONCE = 32  # arrays of (moves, goals, features) stay in the cache


@dataclass(frozen=True)
class Edges:
    """The moves that are allowed, one stored entry each.

    Attributes:
        matrix: (S*A, S) transition probabilities, without forbidden rows and those of ends.
        log_weight: (n,) log of m(a|s) P(s'|s,a). rows: (n,) s*A + a. states: (n,) s.
    """

    matrix: sparse.csr_array
    log_weight: np.ndarray
    rows: np.ndarray
    states: np.ndarray

    @classmethod
    def of(cls, mdp: TabularMDP, log_reference: np.ndarray | None, stop: np.ndarray) -> Edges:
        """The moves of `mdp` but for those in the states `stop` (S,), and those forbidden."""
        drop = np.repeat(stop, mdp.n_actions)
        if log_reference is not None:
            drop = drop | np.isneginf(log_reference.reshape(-1))
        matrix = empty_rows(mdp.transitions, drop)
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        log_weight = np.log(matrix.data)
        if log_reference is not None:
            log_weight = log_weight + log_reference.reshape(-1)[rows]
        return cls(matrix, log_weight, rows, rows // mdp.n_actions)

    @property
    def targets(self) -> np.ndarray:
        """(n,) s'."""
        return self.matrix.indices

    @cached_property
    def _by_state(self) -> sparse.csr_array:
        """(S, n) which edges leave each state."""
        n_edges = len(self.rows)
        step = self.matrix.shape[0] // self.matrix.shape[1]
        return sparse.csr_array(
            (np.ones(n_edges), np.arange(n_edges), self.matrix.indptr[::step]),
            shape=(self.matrix.shape[1], n_edges),
        )

    def sum_by_state(self, values: np.ndarray) -> np.ndarray:
        """(S, ...) sums of (n, ...) over the edges that leave each state."""
        return self._by_state @ values

    def reached_from(self, begin: np.ndarray) -> np.ndarray:
        """(S,) bool, the states that some path from `begin` (S,) visits, these included."""
        return _closure(self.states, self.targets, begin)

    def can_reach(self, ends: np.ndarray) -> np.ndarray:
        """(S,) bool, the states from which some path visits `ends` (S,), these included."""
        return _closure(self.targets, self.states, ends)


def _closure(source: np.ndarray, target: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """(S,) bool, everything that the edges source -> target lead to from `begin` (S,)."""
    n_states = len(begin)
    first = np.flatnonzero(begin)  # one more node leads to all of these
    graph = sparse.csr_array(
        (
            np.ones(len(source) + len(first), dtype=np.int8),
            (
                np.concatenate([source, np.full(len(first), n_states)]),
                np.concatenate([target, first]),
            ),
        ),
        shape=(n_states + 1, n_states + 1),
    )
    found = np.zeros(n_states + 1, dtype=bool)
    found[breadth_first_order(graph, n_states, return_predecessors=False)] = True
    return found[:n_states]


def choice_hessian(
    edges: Edges, flow: np.ndarray, phi: np.ndarray, ahead: np.ndarray
) -> np.ndarray:
    """(K, K) covariance of the feature sum of a path, choice by choice: sum_e flow_e d_e d_e'.

    Args:
        flow: (n,) or (n, G) mean number of times that each edge is taken.
        phi: (n, K) features of the edges. ahead: (S, K) or (S, G, K) mean sum still to come.
    """
    shift = ahead[edges.targets] - ahead[edges.states]
    shift += phi if shift.ndim == 2 else phi[:, None]
    count = phi.shape[1]
    weighted = (flow[..., None] * shift).reshape(-1, count)
    return weighted.T @ shift.reshape(-1, count)


@dataclass(frozen=True)
class SharedPlan:
    """All goals at one reward. Arrays with a column for each goal, in the order of the system.

    Attributes:
        value: sum over the solved groups of share times beta E log Z(s_0).
        occupancy: (S*A,) the same sum of mean visits. solved: (G,) which groups are in it.
        weight: (n,) of the edges. factor: LU of I - M. z: (S, U) Z_g. x: (S, U).
    """

    value: float
    occupancy: np.ndarray
    solved: np.ndarray
    weight: np.ndarray
    factor: SuperLU
    z: np.ndarray
    x: np.ndarray


class SharedSystem:
    """The linear systems of all groups, whose goals are the only difference between them."""

    def __init__(self, edges: Edges, groups: Sequence[CheckedGroup]):
        self.edges = edges
        self.shares = np.array([group.share for group in groups])
        number: dict[bytes, int] = {}
        self.goal_of = np.array(
            [number.setdefault(group.ends.tobytes(), len(number)) for group in groups]
        )
        first = np.unique(self.goal_of, return_index=True)[1]
        self.ends: np.ndarray = np.stack([groups[i].ends for i in first], axis=1)  # (S, U)
        leaves = edges.sum_by_state(np.ones(len(edges.rows))) > 0
        # Open goals are those from which paths could go on.
        self.is_open = (self.ends & leaves[:, None]).sum(axis=0) > 0
        # Of an open goal of several states the first visit is no quotient of two numbers.
        self.fits = ~self.is_open | (self.ends.sum(axis=0) == 1)
        self.place: np.ndarray = self.ends.argmax(axis=0)  # (U,) the state of a goal of one state
        starts: np.ndarray = np.stack([group.start for group in groups])
        self.starts = sparse.csr_array(starts)  # (G, S)
        # Whatever no walk can visit must not decide whether the sum over paths is finite.
        begins, ends = starts.sum(axis=0) > 0, self.ends.sum(axis=1) > 0
        inside = edges.reached_from(begins) & edges.can_reach(ends)
        self.inside = inside[edges.states] & inside[edges.targets]

    def solve(self, reward: np.ndarray, beta: float) -> SharedPlan | None:
        """All goals at once, or None where the sum over *all* paths is not (safely) finite.

        That is stronger than what each goal needs by itself, since a goal cuts paths off.
        """
        edges, n_states = self.edges, self.edges.matrix.shape[1]
        with np.errstate(over="ignore"):
            weight = np.exp(reward.reshape(-1)[edges.rows] / beta + edges.log_weight)
        weight = np.where(self.inside, weight, 0.0)
        if not np.isfinite(weight).all():
            return None
        moves = sparse.csc_array(
            (weight, (edges.states, edges.targets)), shape=(n_states, n_states)
        )
        try:
            # An M-matrix needs no pivoting, and its small entries keep their relative precision.
            factor = splu(
                sparse.csc_matrix(sparse.identity(n_states, format="csc") - moves),
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
        except RuntimeError:  # singular
            return None
        # The radius is below 1 if and only if N 1 is positive (it is then 1 or more).
        total = factor.solve(np.ones(n_states))
        if not (total.min() >= 1.0 - 1e-9 and total.max() < MOST_WEIGHT):
            return None
        z = factor.solve(self.ends.astype(float))
        goals = np.arange(z.shape[1])
        z[:, self.is_open] /= z[self.place, goals][self.is_open]
        z[self.ends] = 1.0
        begins = self.starts.tocoo()
        at_start = z[begins.col, self.goal_of[begins.row]]
        lost = np.zeros(len(self.shares), dtype=bool)
        lost[begins.row[~(at_start > LEAST_Z)]] = True
        fits = self.fits[self.goal_of]
        solved = np.where(lost, False, fits)
        kept = solved[begins.row]
        row, state, chance, there = (
            v[kept] for v in (begins.row, begins.col, begins.data, at_start)
        )
        mass = self.shares[row] * chance
        right = np.zeros_like(z)
        np.add.at(right, (state, self.goal_of[row]), mass / there)
        share = np.bincount(self.goal_of, self.shares * solved, minlength=z.shape[1])
        right[self.place[self.is_open], goals[self.is_open]] -= share[self.is_open]
        x = factor.solve(right, trans="T")
        x[self.place[self.is_open], goals[self.is_open]] = 0.0
        flow = np.zeros(len(weight))
        for part in self._parts():
            flow += np.einsum("eg,eg->e", x[edges.states, part], z[edges.targets, part])
        occupancy = np.bincount(edges.rows, flow * weight, minlength=reward.size)
        value = beta * float(mass @ np.log(there))
        return SharedPlan(value, occupancy, solved, weight, factor, z, x)

    def _parts(self) -> Iterator[slice]:
        """The goals, some at a time."""
        for begin in range(0, self.ends.shape[1], GOALS_AT_ONCE):
            yield slice(begin, begin + GOALS_AT_ONCE)

    def hessian(self, plan: SharedPlan, phi: np.ndarray, beta: float) -> np.ndarray:
        """(K, K) of the value of `plan`, for features `phi` (n, K) of the edges."""
        edges, count = self.edges, phi.shape[1]
        n_states = edges.matrix.shape[1]
        slopes = [
            sparse.csr_array(
                (plan.weight * phi[:, k], (edges.states, edges.targets)), shape=(n_states,) * 2
            )
            for k in range(count)
        ]
        total = np.zeros((count, count))
        for part in self._parts():
            z, x = plan.z[:, part], plan.x[:, part]
            place, columns = self.place[part], np.flatnonzero(self.is_open[part])
            ahead = np.empty((*z.shape, count))
            for k, slope in enumerate(slopes):
                right = slope @ z
                right[place[columns], columns] = 0.0
                d = plan.factor.solve(right)
                d[:, columns] -= z[:, columns] * d[place[columns], columns]
                ahead[..., k] = np.divide(d, z, out=np.zeros_like(d), where=z > LEAST_Z)
            flow = plan.weight[:, None] * x[edges.states] * z[edges.targets]
            total += choice_hessian(edges, flow, phi, ahead)
        return total / beta

    def policies(self, plan: SharedPlan) -> np.ndarray:
        """(G, S*A) of each group; uniform in the goal, and over the allowed actions where no walk
        comes by."""
        edges, n_rows = self.edges, self.edges.matrix.shape[0]
        n_actions = n_rows // edges.matrix.shape[1]
        by_row = sparse.csr_array(
            (plan.weight, edges.targets, edges.matrix.indptr), shape=edges.matrix.shape
        )
        mass = np.asarray(by_row @ plan.z).T.reshape(len(plan.z.T), -1, n_actions)
        allowed = (np.diff(edges.matrix.indptr) > 0).reshape(-1, n_actions)
        idle = np.where(allowed.any(axis=1, keepdims=True), allowed, True)
        mass = np.where(mass.sum(axis=2, keepdims=True) > 0, mass, idle)
        mass[self.ends.T] = 1.0
        chosen = mass / mass.sum(axis=2, keepdims=True)
        return chosen.reshape(len(chosen), -1)[self.goal_of]
