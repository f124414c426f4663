"""Which token earned the reward? Redistributed rewards on a language model that can be listed.

A response is judged once, at its end. A redistribution gives its tokens rewards with the same sum
(:mod:`irlbook.rl.redistribution`). Two questions are decided here by sums over all responses: is it
potential-based shaping (`transition_spread`, `implied_potential`), and what does it do to the
policy gradient, in the mean and in the variance (`gradient_moments`)?

Token rewards are arrays (R, L): row y holds one number for each token of response y, the end token
included, and 0 behind its end.

Sources: Chan et al. 2024 (2402.00782); Arjona-Medina et al. 2019 (1806.07857); Ng et al. 1999.
"""

from __future__ import annotations

import numpy as np

from irlbook.errors import RewardError, ShapeError
from irlbook.lm.enumerable import EnumerableLM
from irlbook.rl.advantages import returns_to_go
from irlbook.rl.redistribution import attention_shares, prediction_changes

__all__ = [
    "ascend",
    "attention_rewards",
    "content_attention",
    "gradient_moments",
    "implied_potential",
    "prefix_leave_one_out",
    "rewards_to_go",
    "sampled_gradient",
    "transition_spread",
    "value_change_rewards",
]


def content_attention(lm: EnumerableLM, scores: np.ndarray) -> np.ndarray:
    """(R, L) attention of a response's end over its tokens: softmax of one score for each token.

    The weight of a token depends on *all* tokens of the response, also on later ones, through the
    denominator, as that of a reward model's last position does.

    Args:
        scores: (A,) of the tokens.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.shape != (len(lm.tokens),):
        raise ShapeError(f"scores have shape {scores.shape}; expected ({len(lm.tokens)},).")
    tokens = lm.prefixes[lm.responses]
    weights = np.where(tokens >= 0, np.exp(scores - scores.max())[tokens], 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def attention_rewards(
    lm: EnumerableLM, reward: np.ndarray, attention: np.ndarray, beta: float
) -> np.ndarray:
    """(R, L) token rewards of ABC: beta alpha_t R + (1 - beta) R 1[t = T], eq 21.11.

    Args:
        reward: (R,). attention: (R, L), rows that sum to 1. beta: in [0, 1].
    """
    found = np.zeros((len(lm.responses), lm.max_length))
    for y, length in enumerate(lm.lengths[lm.responses]):
        found[y, :length] = attention_shares(attention[y, :length], reward[y], beta)
    return found


def value_change_rewards(
    lm: EnumerableLM, reward: np.ndarray, policy: np.ndarray | None = None
) -> np.ndarray:
    """(R, L) r_t = V(s_{t+1}) - V(s_t), the first token with V of the empty prefix, eq 21.10.

    With exact values of a policy this is RUDDER's redistribution, and since moves are certain each
    number but the first is the advantage A(s_t, a_t) of the token.

    Args:
        reward: (R,). policy: (S, A), default pi_ref.
    """
    values = lm.prefix_values(reward, policy)
    values[lm.responses] = reward
    found = np.zeros((len(lm.responses), lm.max_length))
    for y, path in enumerate(_paths(lm)):
        length = lm.lengths[lm.responses[y]]
        found[y, :length] = prediction_changes(values[path[: length + 1]], reward[y])
    return found


def transition_spread(lm: EnumerableLM, token_rewards: np.ndarray) -> float:
    """How far the reward of one and the same move, prefix to prefix, differs between responses.

    A potential-based shaping F(s, s') = Phi(s') - Phi(s) knows only the move. So the spread of a
    redistribution is 0 if and only if it is such a shaping of the reward at the end.
    """
    low, high = np.full(lm.n_states, np.inf), np.full(lm.n_states, -np.inf)
    for path, rewards in zip(_paths(lm), _checked(lm, token_rewards), strict=True):
        after = path[1:][path[1:] >= 0]
        np.minimum.at(low, after, rewards[: len(after)])
        np.maximum.at(high, after, rewards[: len(after)])
    return float((high - low)[1:].max())


def implied_potential(
    lm: EnumerableLM, reward: np.ndarray, token_rewards: np.ndarray, tolerance: float = 1e-9
) -> np.ndarray:
    """(S,) the Phi with token rewards = (reward at the end) + Phi(s') - Phi(s); 0 at both ends.

    Raises:
        RewardError: there is none, because the rewards of some response do not sum to its reward
            or the reward of one move differs between responses.
    """
    token_rewards = _checked(lm, token_rewards)
    off = float(np.abs(token_rewards.sum(axis=1) - reward).max())
    spread = transition_spread(lm, token_rewards)
    if off > tolerance or spread > tolerance:
        raise RewardError(
            f"no potential gives these token rewards: their sums miss the reward by {off:.3g}, and "
            f"the reward of one move differs by {spread:.3g} between responses. A potential may "
            "depend on the prefix only."
        )
    potential = np.zeros(lm.n_states)
    for y, path in enumerate(_paths(lm)):
        length = lm.lengths[lm.responses[y]]
        potential[path[1:length]] = np.cumsum(token_rewards[y])[: length - 1]
    return potential


def rewards_to_go(token_rewards: np.ndarray) -> np.ndarray:
    """(R, L) G_t = sum_{k >= t} r_k."""
    return returns_to_go(np.asarray(token_rewards).T, 1.0).T


def gradient_moments(
    lm: EnumerableLM, weights: np.ndarray, policy: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Mean (S, A) and total variance of one response's sum_t G_t grad log pi(a_t | s_t), exactly.

    The parameters are the logits of a table. The mean is the policy gradient if G_t is R, or R less
    a baseline of the prefix, or the sum from t on of token rewards that know only the prefix.

    Args:
        weights: (R, L) G_t. policy: (S, A), default pi_ref.
    """
    policy = lm.policy if policy is None else policy
    chances = np.exp(lm.sequence_log_probabilities(policy))
    mean, second = np.zeros(policy.shape), 0.0
    for y, (path, w) in enumerate(zip(_paths(lm), _checked(lm, weights), strict=True)):
        states, scores = _scores(lm, policy, y, path)
        push = w[: len(states), None] * scores
        mean[states] += chances[y] * push  # the prefixes of a response are different rows
        second += chances[y] * float((push**2).sum())
    return mean, second - float((mean**2).sum())


def sampled_gradient(
    lm: EnumerableLM, sampled: np.ndarray, weights: np.ndarray, policy: np.ndarray | None = None
) -> np.ndarray:
    """(S, A) mean over sampled responses of sum_t G_t grad log pi(a_t | s_t).

    Args:
        sampled: (n,) places in `responses`. weights: (n, L) G_t of each sample.
    """
    policy = lm.policy if policy is None else policy
    paths, total = _paths(lm), np.zeros(policy.shape)
    for y, w in zip(sampled, weights, strict=True):
        states, scores = _scores(lm, policy, int(y), paths[y])
        total[states] += w[: len(states), None] * scores
    return total / len(sampled)


def prefix_leave_one_out(lm: EnumerableLM, sampled: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """(n, L) R_i less the mean reward of the *other* samples that began with the same prefix.

    Where no other sample shares the prefix, the longest shared beginning is taken. The baseline
    knows neither the token nor what follows it, so it leaves the gradient's mean alone; for the
    empty prefix it is RLOO's.

    Args:
        sampled: (n,) places in `responses`, n >= 2. rewards: (n,).

    Raises:
        ShapeError: fewer than two samples, or another number of rewards.
    """
    sampled, rewards = np.asarray(sampled), np.asarray(rewards, dtype=float)
    if len(sampled) < 2 or rewards.shape != sampled.shape:
        raise ShapeError(f"{len(sampled)} samples and rewards {rewards.shape}; need 2 or more.")
    paths = _paths(lm)[sampled]
    lengths = lm.lengths[lm.responses[sampled]]
    sums, counts = np.zeros(lm.n_states), np.zeros(lm.n_states)
    for path, length, r in zip(paths, lengths, rewards, strict=True):
        sums[path[:length]] += r
        counts[path[:length]] += 1
    weights = np.zeros((len(sampled), lm.max_length))
    for i, (path, length, r) in enumerate(zip(paths, lengths, rewards, strict=True)):
        baseline = 0.0
        for t in range(length):
            others = counts[path[t]] - 1
            if others:
                baseline = (sums[path[t]] - r) / others
            weights[i, t] = r - baseline
    return weights


def ascend(
    lm: EnumerableLM,
    reward: np.ndarray,
    token_rewards: np.ndarray,
    *,
    steps: int,
    step_size: float,
    to_go: bool = True,
) -> np.ndarray:
    """(steps + 1,) expected reward while a table follows the exact mean of an estimator.

    Args:
        token_rewards: (R, L), the same for every policy. to_go: False weighs every token with the
            sum over the whole response.
    """
    logits = np.log(lm.policy)
    weights = rewards_to_go(token_rewards)
    if not to_go:
        weights = np.broadcast_to(weights[:, :1], weights.shape)
    earned = []
    for step in range(steps + 1):
        policy = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        earned.append(float(np.exp(lm.sequence_log_probabilities(policy)) @ reward))
        if step < steps:
            logits = logits + step_size * gradient_moments(lm, weights, policy)[0]
    return np.array(earned)


def _paths(lm: EnumerableLM) -> np.ndarray:
    """(R, L + 1) the states from the empty prefix to each response; -1 behind its end."""
    parent = np.full(lm.n_states, -1)
    live = np.flatnonzero(lm.children[:, 0] >= 0)
    parent[lm.children[live]] = live[:, None]
    found = np.full((len(lm.responses), lm.max_length + 1), -1)
    lengths = lm.lengths[lm.responses]
    state, at = lm.responses.copy(), lengths.copy()
    for _ in range(lm.max_length + 1):
        on = at >= 0
        found[np.flatnonzero(on), at[on]] = state[on]
        state = np.where(on, parent[state], state)
        at = at - 1
    return found


def _scores(
    lm: EnumerableLM, policy: np.ndarray, response: int, path: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The prefixes of a response (T,), and the score of each of its tokens (T, A)."""
    length = lm.lengths[lm.responses[response]]
    states = path[:length]
    tokens = lm.prefixes[lm.responses[response], :length]
    return states, np.eye(len(lm.tokens))[tokens] - policy[states]


def _checked(lm: EnumerableLM, token_rewards: np.ndarray) -> np.ndarray:
    expected = (len(lm.responses), lm.max_length)
    if np.shape(token_rewards) != expected:
        raise ShapeError(f"token rewards {np.shape(token_rewards)}; expected {expected}.")
    return np.asarray(token_rewards, dtype=float)
