"""Slow and plain second implementations: every number of the engine, by another road.

Enumeration of all trajectories, finite differences, dense loops. Nothing here is shared with the
library but the arrays of the MDP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from irlbook.mdp import TabularMDP


def trajectories(
    mdp: TabularMDP, horizon: int
) -> Iterator[tuple[list[tuple[int, int]], int, float]]:
    """All ([(s_0, a_0), ...], last state, p_0 prod P) of at most `horizon` steps."""
    moves = mdp.dense()

    def go_on(state, steps, chance):
        if len(steps) == horizon or mdp.terminal[state]:
            yield steps, state, chance
            return
        for action in range(mdp.n_actions):
            for after in np.flatnonzero(moves[state, action]):
                yield from go_on(
                    int(after),
                    [*steps, (state, action)],
                    chance * moves[state, action, after],
                )

    for first in np.flatnonzero(mdp.start):
        yield from go_on(int(first), [], mdp.start[first])


def enumerated_occupancy(mdp: TabularMDP, policy: np.ndarray, horizon: int) -> np.ndarray:
    """(S, A) from all trajectories; policy (S, A) or (T, S, A)."""
    pi = policy if policy.ndim == 3 else np.broadcast_to(policy, (horizon, *policy.shape))
    total = np.zeros(mdp.reward.shape)
    for steps, _, chance in trajectories(mdp, horizon):
        for t, (s, a) in enumerate(steps):
            chance *= pi[t, s, a]
        for t, (s, a) in enumerate(steps):
            total[s, a] += chance * mdp.discount**t
    return total


def enumerated_objective(
    mdp: TabularMDP, policy: np.ndarray, horizon: int, beta: float, reference: np.ndarray
) -> float:
    """E[sum_t gamma^t (r - beta log pi/m)], which the soft policy maximises; policy (T, S, A)."""
    total = 0.0
    for steps, _, chance in trajectories(mdp, horizon):
        gain = 0.0
        for t, (s, a) in enumerate(steps):
            chance *= policy[t, s, a]
            if chance == 0.0:
                break
            price = beta * np.log(policy[t, s, a] / reference[s, a])
            gain += mdp.discount**t * (mdp.reward[s, a] - price)
        if chance:
            total += chance * gain
    return total


def path_model(mdp: TabularMDP, reward: np.ndarray, horizon: int, beta: float = 1.0):
    """Ziebart's path distribution by enumeration: beta E_{p_0} log Z, and (S, A) visits."""
    mass, visits = np.zeros(mdp.n_states), np.zeros((mdp.n_states, *mdp.reward.shape))
    for first in np.flatnonzero(mdp.start):
        begun = TabularMDP(
            mdp.transitions,
            mdp.reward,
            np.eye(mdp.n_states)[first],
            mdp.discount,
            mdp.terminal,
        )
        for steps, _, chance in trajectories(begun, horizon):
            weight = chance * np.exp(sum(reward[s, a] for s, a in steps) / beta)
            mass[first] += weight
            for s, a in steps:
                visits[first, s, a] += weight
    begins = np.flatnonzero(mdp.start)
    value = beta * sum(mdp.start[s] * np.log(mass[s]) for s in begins)
    return value, sum(mdp.start[s] * visits[s] / mass[s] for s in begins)


def soft_dp(mdp: TabularMDP, horizon: int, beta: float, reference: np.ndarray):
    """Soft backward induction by four plain loops: values (T+1, S), policy (T, S, A)."""
    moves = mdp.dense()
    values = np.zeros((horizon + 1, mdp.n_states))
    policy = np.ones((horizon, *mdp.reward.shape)) / mdp.n_actions
    for t in reversed(range(horizon)):
        for s in np.flatnonzero(~mdp.terminal):
            q = mdp.reward[s] + mdp.discount * moves[s] @ values[t + 1]
            q = np.where(reference[s] > 0, q, -np.inf)  # what is forbidden is no maximum either
            weight = reference[s] * np.exp((q - q.max()) / beta)
            values[t, s] = q.max() + beta * np.log(weight.sum())
            policy[t, s] = weight / weight.sum()
    return values, policy


def dense_values(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """(S,) values of a policy by one dense solve."""
    chain = np.einsum("sa,sat->st", policy, mdp.dense())
    return np.linalg.solve(
        np.eye(mdp.n_states) - mdp.discount * chain, (policy * mdp.reward).sum(axis=1)
    )


def dense_occupancy(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """(S, A) occupancy of a policy by one dense solve."""
    chain = np.einsum("sa,sat->st", policy, mdp.dense())
    first = mdp.start * ~mdp.terminal
    visits = np.linalg.solve(np.eye(mdp.n_states) - mdp.discount * chain.T, first)
    return (visits * ~mdp.terminal)[:, None] * policy


def gymnasium_values(env, discount: float, sweeps: int = 5_000) -> np.ndarray:
    """(S,) optimal values by the textbook backup, straight on Gymnasium's table."""
    table = env.unwrapped.P
    n_states, n_actions = len(table), len(table[0])
    moves = np.zeros((n_states, n_actions, n_states))
    reward = np.zeros((n_states, n_actions))
    for s, a in np.ndindex(n_states, n_actions):
        for probability, after, gain, terminated in table[s][a]:
            reward[s, a] += probability * gain
            moves[s, a, after] += probability * (1 - terminated)
    values = np.zeros(n_states)
    for _ in range(sweeps):
        updated = (reward + discount * moves @ values).max(axis=1)
        if np.abs(updated - values).max() < 1e-13:
            break
        values = updated
    return updated


def gradient(function: Callable[[np.ndarray], float], at: np.ndarray, h: float = 1e-5):
    """(K,) by central differences."""
    at = np.asarray(at, dtype=float)
    return np.array(
        [(function(at + h * e) - function(at - h * e)) / (2 * h) for e in np.eye(len(at))]
    )


def jacobian(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, h: float = 1e-5):
    """(out, K) by central differences."""
    at = np.asarray(at, dtype=float)
    columns = [(function(at + h * e) - function(at - h * e)) / (2 * h) for e in np.eye(len(at))]
    return np.stack(columns, axis=1)
