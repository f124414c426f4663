"""The policy gradient where nothing is hidden: a softmax table on a small MDP.

Here every trajectory can be listed with its probability, so the mean and the variance of a
gradient estimator are sums, not measurements. `reinforce.py` and `ppo.py` do the same with
networks and samples.

The parameters are a table `logits` (S, A), and pi(a|s) = exp(logits[s, a]) / sum_b exp(...).
The objective is J = E[ sum_{t<T} discount^t r(s_t, a_t) ] over `horizon` = T steps.
"""

from collections.abc import Iterator

import numpy as np

from irlbook.errors import InvalidHyperparameterError
from irlbook.mdp import TabularMDP
from irlbook.rl.advantages import returns_to_go

__all__ = [
    "enumerate_trajectories",
    "estimator_moments",
    "exact_policy_gradient",
    "reinforce_estimate",
    "score",
    "softmax_policy",
    "values_by_time",
]


def softmax_policy(logits: np.ndarray) -> np.ndarray:
    """(S, A) logits -> (S, A) policy."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def score(policy: np.ndarray, state: int, action: int) -> np.ndarray:
    """Gradient of log pi(action|state) by the logits: row `state` is 1[b = action] - pi(b|state).

    Returns:
        (S, A), zero outside the row of the state (chapter 2, eq 2.8).
    """
    gradient = np.zeros_like(policy)
    gradient[state] = -policy[state]
    gradient[state, action] += 1.0
    return gradient


def enumerate_trajectories(
    mdp: TabularMDP, policy: np.ndarray, horizon: int, *, limit: int = 200_000
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Every trajectory that the policy can take, with its probability.

    Args:
        policy: (S, A).
        horizon: T; a trajectory also ends in a terminal state.
        limit: refuse when there are more than this many.

    Yields:
        (probability, states (t+1,), actions (t,)); probabilities sum to 1.

    Raises:
        InvalidHyperparameterError: too many trajectories to list.
    """
    dense = mdp.dense()
    stack: list[tuple[float, list[int], list[int]]] = [
        (float(p), [int(s)], []) for s, p in enumerate(mdp.start) if p > 0.0
    ]
    listed = 0
    while stack:
        probability, states, actions = stack.pop()
        state = states[-1]
        if len(actions) == horizon or mdp.terminal[state]:
            listed += 1
            if listed > limit:
                raise InvalidHyperparameterError(
                    f"More than {limit} trajectories: shorten the horizon or shrink the MDP."
                )
            yield probability, np.array(states), np.array(actions, dtype=int)
            continue
        for action in np.flatnonzero(policy[state]):
            for following in np.flatnonzero(dense[state, action]):
                p = probability * policy[state, action] * dense[state, action, following]
                stack.append((float(p), [*states, int(following)], [*actions, int(action)]))


def reinforce_estimate(
    mdp: TabularMDP,
    policy: np.ndarray,
    states: np.ndarray,
    actions: np.ndarray,
    *,
    baseline: np.ndarray | None = None,
    to_go: bool = True,
) -> np.ndarray:
    """The gradient that one trajectory suggests (chapter 2, eq 2.9 and 2.10).

    sum_t [discount^t (G_t - b_t(s_t))] grad log pi(a_t|s_t), with G_t the return to go.

    Args:
        states: (t+1,), actions: (t,) as from `enumerate_trajectories`.
        baseline: b_t(s), (S,) or (T, S); None is 0.
        to_go: False credits each action with the return of the whole trajectory, past included
            (also unbiased, noisier; the baseline must then be None).

    Returns:
        (S, A).
    """
    gradient = np.zeros_like(policy)
    if len(actions) == 0:
        return gradient
    returns = returns_to_go(mdp.reward[states[:-1], actions], mdp.discount)
    table = None
    if baseline is not None:  # (S,) serves every t
        table = np.asarray(baseline)
        if table.ndim == 1:
            table = np.broadcast_to(table, (len(actions), mdp.n_states))
    for t, (state, action) in enumerate(zip(states[:-1], actions, strict=True)):
        if to_go:
            b = 0.0 if table is None else table[t, state]
            weight = mdp.discount**t * (returns[t] - b)
        else:
            weight = returns[0]
        gradient += weight * score(policy, int(state), int(action))
    return gradient


def values_by_time(mdp: TabularMDP, policy: np.ndarray, horizon: int) -> tuple[np.ndarray, ...]:
    """Q_t(s, a) and V_t(s) of a policy with T - t steps left, by backward induction.

    Returns:
        q (T, S, A), values (T + 1, S) with values[T] = 0 and 0 in terminal states.
    """
    q = np.zeros((horizon, mdp.n_states, mdp.n_actions))
    values = np.zeros((horizon + 1, mdp.n_states))
    for t in range(horizon - 1, -1, -1):
        ahead = (mdp.transitions @ values[t + 1]).reshape(mdp.n_states, mdp.n_actions)
        q[t] = mdp.reward + mdp.discount * ahead
        values[t] = np.where(mdp.terminal, 0.0, (policy * q[t]).sum(axis=1))
    return q, values


def exact_policy_gradient(mdp: TabularMDP, policy: np.ndarray, horizon: int) -> np.ndarray:
    """Gradient of J by the logits, from the policy gradient theorem: no sampling, no listing.

    dJ / dlogits[s, a] = sum_t discount^t Pr(s_t = s) pi(a|s) (Q_t(s, a) - V_t(s))
    (chapter 2, eq 2.7 for a softmax table).

    Returns:
        (S, A).

    Source: Sutton et al. 2000, theorem 1.
    """
    q, values = values_by_time(mdp, policy, horizon)
    gradient = np.zeros_like(policy)
    here = np.where(mdp.terminal, 0.0, mdp.start)
    for t in range(horizon):
        gradient += mdp.discount**t * here[:, None] * policy * (q[t] - values[t][:, None])
        moved = (here[:, None] * policy).reshape(-1) @ mdp.transitions
        here = np.where(mdp.terminal, 0.0, moved)
    return gradient


def estimator_moments(
    mdp: TabularMDP,
    policy: np.ndarray,
    horizon: int,
    *,
    baseline: np.ndarray | None = None,
    to_go: bool = True,
) -> tuple[np.ndarray, float]:
    """Mean (S, A) and total variance (sum over entries) of `reinforce_estimate`, exactly."""
    mean, second = np.zeros_like(policy), 0.0
    for probability, states, actions in enumerate_trajectories(mdp, policy, horizon):
        g = reinforce_estimate(mdp, policy, states, actions, baseline=baseline, to_go=to_go)
        mean += probability * g
        second += probability * float((g**2).sum())
    return mean, second - float((mean**2).sum())
