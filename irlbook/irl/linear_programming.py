"""Ng and Russell's inverse reinforcement learning: all rewards that make a policy optimal.

They form a polyhedral cone, which always holds R = 0. A linear program picks one of them by a
rule of thumb: let the second-best actions be as much worse as possible, and let R be sparse.

Source: Ng and Russell 2000, section 3. Rewards are r(s), as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from irlbook.errors import InvalidHyperparameterError, InvalidPolicyError, NotConvergedError
from irlbook.mdp import TabularMDP, check_policy
from irlbook.planning import evaluate_policy, q_values

__all__ = ["LPResult", "chosen_actions", "is_optimal", "ng_russell", "optimality_constraints"]


@dataclass(frozen=True)
class LPResult:
    """A reward from the linear program.

    Attributes:
        reward: (S,) R(s), 0 in terminal states.
        values: (S,) of the policy under it.
        margins: (S,) by how much the policy's action beats the second best, next values only;
            0 in terminal states and where there is one action.
        objective: sum of margins - l1 * sum |R|.
    """

    reward: np.ndarray
    values: np.ndarray
    margins: np.ndarray
    objective: float


def chosen_actions(mdp: TabularMDP, policy: Any) -> np.ndarray:
    """(S,) the action of a deterministic policy (S, A); in terminal states: 0.

    Raises:
        InvalidPolicyError: some state that is not terminal has no sure action.
    """
    pi = check_policy(mdp, policy)
    if pi.ndim != 2:
        raise InvalidPolicyError("give a stationary policy (S, A).")
    unsure = np.flatnonzero((pi.max(axis=1) < 1.0 - 1e-6) & ~mdp.terminal)
    if unsure.size:
        raise InvalidPolicyError(
            f"the policy is not deterministic in state {unsure[0]} ({unsure.size} such states). "
            "Ng and Russell's conditions are for one action a state: break ties first "
            "(np.eye(A)[policy.argmax(axis=1)])."
        )
    return np.where(mdp.terminal, 0, pi.argmax(axis=1))


def optimality_constraints(mdp: TabularMDP, policy: Any) -> np.ndarray:
    """(M, S) matrix G with: the policy is optimal for R(s) if and only if G R >= 0, eq 5.2.

    One row for each state that is not terminal and each other action:
    (P_pi(s) - P_a(s)) (I - gamma P_pi)^-1. Dense, for teaching and small worlds.
    """
    best = chosen_actions(mdp, policy)
    states, P = np.arange(mdp.n_states), mdp.dense()
    P_best = P[states, best]
    inverse = np.linalg.inv(np.eye(mdp.n_states) - mdp.discount * P_best)
    inverse[:, mdp.terminal] = 0.0  # a terminal state collects nothing
    rows = [
        (P_best[s] - P[s, a]) @ inverse
        for s in states[~mdp.terminal]
        for a in range(mdp.n_actions)
        if a != best[s]
    ]
    return np.array(rows).reshape(-1, mdp.n_states)


def ng_russell(
    mdp: TabularMDP, policy: Any, *, l1: float = 0.0, max_reward: float = 1.0
) -> LPResult:
    """The linear program of Ng and Russell 2000, eq 5.3.

        max_R  sum_s min_{a != pi(s)} (P_pi(s) - P_a(s)) V  -  l1 sum_s |R(s)|
        s.t.   V = R + gamma P_pi V,   (P_pi(s) - P_a(s)) V >= 0,   |R(s)| <= max_reward.

    Values are variables of their own, so that no inverse is needed and every matrix stays sparse.

    Args:
        mdp: its reward is not looked at.
        policy: (S, A) deterministic.
        l1: weight of sparsity. From some value on the answer is R = 0.

    Raises:
        InvalidPolicyError: the policy is not deterministic.
        NotConvergedError: the solver gave up (its message is passed on).
    """
    if not 0.0 <= l1 < np.inf or not 0.0 < max_reward < np.inf:
        raise InvalidHyperparameterError("l1 must be 0 or more and max_reward positive.")
    best = chosen_actions(mdp, policy)
    n, m = mdp.n_states, mdp.n_actions
    states = np.arange(n)
    alive = ~mdp.terminal
    P_best = mdp.transitions[states * m + best]  # (S, S)
    others = np.array([[s, a] for s in states[alive] for a in range(m) if a != best[s]]).reshape(
        -1, 2
    )
    gain = P_best[others[:, 0]] - mdp.transitions[others[:, 0] * m + others[:, 1]]  # (M, S)
    rows = len(others)
    picks = sparse.csr_array((np.ones(rows), (np.arange(rows), others[:, 0])), shape=(rows, n))
    eye, none = sparse.eye_array(n), sparse.csr_array((rows, n))
    # variables: V, R, margin z, size u = |R|
    upper = sparse.block_array(
        [
            [-gain, none, None, none],  # the policy is optimal
            [-gain, None, picks, None],  # z is at most every gain
            [None, eye, None, -eye],
            [None, -eye, sparse.csr_array((n, n)), -eye],
        ],
        format="csr",
    )
    equal = sparse.block_array(
        [[eye - mdp.discount * P_best, -eye, sparse.csr_array((n, n)), sparse.csr_array((n, n))]],
        format="csr",
    )
    has_other = alive & (m > 1)
    bounds = np.empty((4 * n, 2))
    bounds[:n] = [-np.inf, np.inf]
    bounds[n : 2 * n] = np.where(alive, max_reward, 0.0)[:, None] * [-1.0, 1.0]
    bounds[2 * n : 3 * n, 0] = 0.0
    bounds[2 * n : 3 * n, 1] = np.where(has_other, np.inf, 0.0)
    bounds[3 * n :] = [0.0, np.inf]
    cost = np.concatenate([np.zeros(2 * n), -np.ones(n), np.full(n, l1)])
    done = linprog(
        cost,
        A_ub=upper,
        b_ub=np.zeros(upper.shape[0]),
        A_eq=equal,
        b_eq=np.zeros(n),
        bounds=bounds,
        method="highs",
    )
    if done.status != 0:
        raise NotConvergedError(f"the linear program was not solved: {done.message}")
    values, reward, margins, _ = np.split(done.x, 4)
    return LPResult(reward, values, margins, -float(done.fun))


def is_optimal(mdp: TabularMDP, policy: Any, reward: Any, *, tolerance: float = 1e-8) -> bool:
    """Whether a deterministic policy is optimal for R(s): the constraints (5.2), by a solve."""
    world = mdp.with_reward(np.where(mdp.terminal, 0.0, np.asarray(reward, dtype=float)))
    best = chosen_actions(mdp, policy)
    values = evaluate_policy(world, np.eye(mdp.n_actions)[best])
    q = q_values(world, values)
    lost = q.max(axis=1) - q[np.arange(mdp.n_states), best]
    return bool((lost[~mdp.terminal] <= tolerance * max(1.0, np.abs(values).max())).all())
