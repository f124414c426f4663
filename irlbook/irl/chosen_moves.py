"""Soft values and visits of a finite horizon, in worlds where moves are chosen (`irlbook.moves`).

With P = chance 1[target] + luck, and everything in units of beta, the soft Bellman equation is

    V(s) = top(s) + gamma sum_j luck(j|s) V(j) + log sum_a g(s,a) u(target(s,a)),
    u = exp(gamma chance V'),   g(s,a) = m(a|s) exp(r(s,a) / beta - top(s)),

so that the exponential is taken once a *state*, and the sum over actions is a sparse product
(Todorov 2009 calls u the desirability). The flow of probability runs back through the same two
matrices. In its logarithm nothing is lost, unless V spreads so far that u underflows: then there is
no plan, and the caller takes the general road.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from irlbook.mdp import TabularMDP
from irlbook.moves import ChosenMoves, adder

__all__ = ["ChosenPlan", "ChosenWorld", "LEAST_U"]

LEAST_U = 1e-250


@dataclass(frozen=True)
class ChosenPlan:
    """A soft policy at every time, as few numbers as make it up.

    Attributes:
        visits: (T, S), discounted. u, total: (T, S), with pi(a|s) = g u(target) / total.
        g: (S, A), or None for 1. target: (S, A).
    """

    visits: np.ndarray
    u: np.ndarray
    total: np.ndarray
    g: np.ndarray | None
    target: np.ndarray

    @cached_property
    def policy(self) -> np.ndarray:
        """(T, S, A)."""
        weight = self.u[:, self.target] / self.total[:, :, None]
        return weight if self.g is None else self.g * weight

    def occupancy(self) -> np.ndarray:
        """(S, A) sum over time."""
        share = self.visits / self.total
        flow = np.einsum("ts,tsa->sa", share, self.u[:, self.target])
        return flow if self.g is None else self.g * flow


class ChosenWorld:
    """The two matrices of one world, ready for many rewards."""

    def __init__(self, mdp: TabularMDP, moves: ChosenMoves, horizon: int):
        self.moves, self.horizon = moves, horizon
        self.start, self.terminal = mdp.start, mdp.terminal
        self.step = mdp.discount * moves.chance
        self.luck, self.luck_back = moves.luck, moves.luck_back
        if mdp.discount != 1.0 and self.luck is not None and self.luck_back is not None:
            self.luck = mdp.discount * self.luck
            self.luck_back = mdp.discount * self.luck_back

    def solve(
        self, reward: np.ndarray, log_reference: np.ndarray | None, beta: float
    ) -> tuple[float, ChosenPlan] | None:
        """V(p_0) in units of reward and the plan; None where u underflows.

        Args:
            reward: (S,) or (S, A). log_reference: (S, A) log m, or None.
        """
        scaled = reward / beta
        if scaled.ndim == 1 and log_reference is None:
            top, g = scaled, None
        else:
            scaled = scaled[:, None] if scaled.ndim == 1 else scaled
            scaled = scaled if log_reference is None else scaled + log_reference
            top = scaled.max(axis=1)
            g = np.exp(scaled - top[:, None])
        ahead, back = self.moves.matrices(g)
        # One block, which the allocator keeps for the next call: three would be new pages.
        u, total, visits = np.empty((3, self.horizon, len(self.start)))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # found at the end
            values = self._backwards(top, ahead, u, total)
        if not (u.min() > LEAST_U and u.max() < 1.0 / LEAST_U and np.isfinite(values).all()):
            return None
        self._forwards(back, u, total, visits)
        return beta * float(self.start @ values), ChosenPlan(visits, u, total, g, self.moves.target)

    def _backwards(
        self, top: np.ndarray, ahead: sparse.csr_array, u: np.ndarray, total: np.ndarray
    ) -> np.ndarray:
        """V at time 0 (S,); fills in u (T, S) and the sums over actions `total` (T, S)."""
        alive, ends = ~self.terminal, bool(self.terminal.any())
        add_ahead = adder(ahead)
        add_luck = None if self.luck is None else adder(self.luck)
        values = np.zeros(len(top))
        for t in range(len(u) - 1, -1, -1):
            here, base = u[t], values[0]  # relative to any state: V itself may be large
            np.subtract(values, base, out=here)
            here *= self.step
            np.exp(here, out=here)
            total[t] = 0.0
            add_ahead(here, total[t])
            before, values = values, np.log(total[t])
            values += top
            values += self.step * base
            if add_luck is not None:
                add_luck(before, values)
            if ends:
                values *= alive
        return values

    def _forwards(
        self, back: sparse.csr_array, u: np.ndarray, total: np.ndarray, visits: np.ndarray
    ) -> None:
        """Fill in the visits (T, S)."""
        alive, ends = ~self.terminal, bool(self.terminal.any())
        add_back = adder(back)
        add_luck = None if self.luck_back is None else adder(self.luck_back)
        visits[0] = self.start * alive
        for t in range(len(u) - 1):
            flow = visits[t + 1]
            flow[:] = 0.0
            add_back(visits[t] / total[t], flow)
            flow *= u[t]
            flow *= self.step
            if add_luck is not None:
                add_luck(visits[t], flow)
            if ends:
                flow *= alive

    def hessian(self, plan: ChosenPlan, phi: np.ndarray) -> np.ndarray:
        """(K, K) sum over time and states of visits times Cov_a[dQ/dw], for features phi (S, K).

        Luck and features are the same for every action: what varies is step D(target), with
        D = dV/dw. So the second moments of what is chosen are those of where one arrives.
        """
        count = phi.shape[1]
        ahead, back = self.moves.matrices(plan.g)
        add_ahead, add_back = adder(ahead, count), adder(back)
        add_luck = None if self.luck is None else adder(self.luck, count)
        alive, ends = (~self.terminal)[:, None], bool(self.terminal.any())
        if not ends:  # every path is as long: a constant is no covariance, and costs digits
            phi = phi - phi.mean(axis=0)
        slope, weighted, mean = (np.zeros_like(phi) for _ in range(3))
        total = np.zeros((count, count))
        for t in range(self.horizon - 1, -1, -1):
            np.multiply(slope, plan.u[t][:, None], out=weighted)
            mean[:] = 0.0
            add_ahead(weighted, mean)
            mean /= plan.total[t][:, None]
            arrivals = np.zeros(len(phi))  # by moves that were chosen, over their chance
            add_back(plan.visits[t] / plan.total[t], arrivals)
            arrivals *= plan.u[t]
            np.multiply(slope, arrivals[:, None], out=weighted)
            total += weighted.T @ slope
            np.multiply(mean, plan.visits[t][:, None], out=weighted)
            total -= weighted.T @ mean
            before, slope = slope, self.step * mean
            slope += phi
            if add_luck is not None:
                add_luck(before, slope)
            if ends:
                slope *= alive
        return self.step**2 * total
