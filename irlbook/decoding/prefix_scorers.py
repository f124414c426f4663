"""Prefix scorers: what an unfinished response is worth, exactly, by Monte Carlo and by TD.

Exactly, on a model that can be enumerated: the *mean value* E[r | s] under the reference, and the
*soft value* beta log E[exp(r / beta) | s], which is what RLHF's optimum needs.

From samples of the reference, with a score w . phi(s): *Monte Carlo* regresses the final reward of
each sampled response on the features of all its prefixes (FUDGE; CD-FUDGE). *TD* regresses the
expected value of the next prefix, sum_a pi_ref(a | s) v(s a), with v the reward itself once the
response is over (CD-Q). It knows the next-token distribution and looks at tokens that were not
sampled, and pays for this with a reward for every response that ends one token further.

On a tree of prefixes with one number for each prefix, TD on *sampled* tokens only would give
exactly Monte Carlo's means, because every prefix is reached in a single way.

Source: Yang and Klein 2021 (FUDGE, 2104.05218); Mudgal et al. 2023 (2310.17022), section 3.
"""

from __future__ import annotations

import numpy as np

from irlbook.errors import (
    InvalidHyperparameterError,
    NotConvergedError,
    NotFiniteError,
    ShapeError,
)
from irlbook.lm.enumerable import EnumerableLM

__all__ = [
    "check_scores",
    "mean_values",
    "monte_carlo_weights",
    "soft_values",
    "tabular_monte_carlo",
    "tabular_td",
    "td_weights",
    "visited_prefixes",
    "with_rewards",
]


def check_scores(lm: EnumerableLM, scores: np.ndarray) -> np.ndarray:
    """(S,) float64, after checking that there is one finite score for each prefix."""
    scores = np.asarray(scores, dtype=float)
    if scores.shape != (lm.n_states,):
        raise ShapeError(
            f"scores have shape {scores.shape}; expected ({lm.n_states},), one for each prefix, "
            "whole responses included (with_rewards puts their rewards in place)."
        )
    if not np.isfinite(scores).all():
        raise NotFiniteError("a score of a prefix is NaN or infinite.")
    return scores


def with_rewards(lm: EnumerableLM, scores: np.ndarray, response_reward: np.ndarray) -> np.ndarray:
    """(S,) the scores, with the reward itself on the prefixes that are whole responses."""
    if np.shape(response_reward) != lm.responses.shape:
        raise ShapeError(
            f"response_reward has shape {np.shape(response_reward)}; expected "
            f"{lm.responses.shape}, one number for each of `responses`."
        )
    found = np.array(scores, dtype=float)
    found[lm.responses] = response_reward
    return check_scores(lm, found)


def mean_values(lm: EnumerableLM, response_reward: np.ndarray) -> np.ndarray:
    """(S,) E[r | s] when the reference goes on from s; r itself on whole responses."""
    return with_rewards(lm, lm.prefix_values(response_reward), response_reward)


def soft_values(lm: EnumerableLM, response_reward: np.ndarray, beta: float) -> np.ndarray:
    """(S,) V(s) = beta log E[exp(r / beta) | s] under the reference; r itself on whole responses.

    Guided decoding with it and the weight 1 / beta is the optimum of E[r] - beta KL.
    """
    return with_rewards(lm, lm.kl_optimum(response_reward, beta).values, response_reward)


# From samples -------------------------------------------------------------------------------------


def visited_prefixes(lm: EnumerableLM, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The live prefixes of sampled responses, the empty one included.

    Args:
        numbers: (n,) responses by their place in `lm.responses`.

    Returns:
        (V,) states, and (V,) which of the n samples each belongs to.
    """
    states, owner = [], []
    for k, response in enumerate(np.asarray(numbers, dtype=int)):
        tokens = lm.prefixes[lm.responses[response], : lm.lengths[lm.responses[response]]]
        state = 0
        for token in tokens:
            states.append(state)
            owner.append(k)
            state = int(lm.children[state, token])
    return np.array(states, dtype=int), np.array(owner, dtype=int)


def tabular_monte_carlo(lm: EnumerableLM, numbers: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """(S,) the mean reward of the samples that pass through each prefix; NaN where none does.

    Args:
        numbers: (n,) sampled responses. rewards: (n,) theirs.
    """
    states, owner = visited_prefixes(lm, numbers)
    ends = lm.responses[np.asarray(numbers, dtype=int)]
    states = np.concatenate([states, ends])
    paid = np.asarray(rewards, dtype=float)[np.concatenate([owner, np.arange(len(ends))])]
    count = np.bincount(states, minlength=lm.n_states)
    with np.errstate(invalid="ignore"):
        return np.bincount(states, weights=paid, minlength=lm.n_states) / count


def tabular_td(
    lm: EnumerableLM,
    numbers: np.ndarray,
    rewards: np.ndarray,
    *,
    rate: float = 0.5,
    sweeps: int = 200,
) -> np.ndarray:
    """(S,) the same from sampled moves: v(s) += rate * mean(v(s') - v(s)), over and over.

    It ends where v(s) is the mean of v(s') over the samples that pass through s.
    """
    if not (0 < rate <= 1 and sweeps >= 1):
        raise InvalidHyperparameterError(f"rate={rate} must lie in (0, 1], sweeps={sweeps} >= 1.")
    states, owner = visited_prefixes(lm, numbers)
    ends = lm.responses[np.asarray(numbers, dtype=int)]
    following = np.concatenate([states[1:], ends[-1:]])
    last = np.concatenate([owner[1:] != owner[:-1], [True]])
    following[last] = ends[owner[last]]
    values = np.zeros(lm.n_states)
    values[ends] = rewards
    count = np.bincount(states, minlength=lm.n_states)
    for _ in range(sweeps):
        gaps = np.bincount(
            states, weights=values[following] - values[states], minlength=lm.n_states
        )
        values = values + rate * gaps / np.maximum(count, 1)
    seen = count > 0
    seen[ends] = True
    return np.where(seen, values, np.nan)


def monte_carlo_weights(
    features: np.ndarray, states: np.ndarray, returns: np.ndarray, ridge: float = 1e-6
) -> np.ndarray:
    """(K,) least squares of the final reward on the features of the prefixes visited.

        w = argmin sum_v (returns_v - w . phi(s_v))^2 + ridge |w|^2

    Args:
        features: (S, K). states: (V,) prefixes visited, repeats counted. returns: (V,) the reward
            of the response that each came from. ridge: > 0.
    """
    _check_features(features, states, ridge)
    if np.shape(returns) != np.shape(states):
        raise ShapeError(f"returns {np.shape(returns)} for states {np.shape(states)}.")
    phi = features[states]
    return _ridge(phi, np.asarray(returns, dtype=float), ridge)


def td_weights(
    lm: EnumerableLM,
    features: np.ndarray,
    states: np.ndarray,
    response_reward: np.ndarray,
    ridge: float = 1e-6,
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 500,
) -> np.ndarray:
    """(K,) least squares, repeated, of sum_a pi_ref(a | s) v(s a) on phi(s); v = w . phi, or r.

    Args:
        features: (S, K); rows of whole responses are not looked at. states: (V,) visited.
        response_reward: (R,), asked for responses that end one token behind a visited prefix.

    Raises:
        NotConvergedError: the weights still move after `max_iterations`; these features let the
            error grow as it is passed back.
    """
    _check_features(features, states, ridge)
    phi = features[states]
    children = lm.children[states]  # (V, A)
    over = lm.children[children, 0] < 0
    paid = with_rewards(lm, np.zeros(lm.n_states), response_reward)
    base = (lm.policy[states] * np.where(over, paid[children], 0.0)).sum(axis=1)  # (V,)
    going = np.where(over, 0.0, lm.policy[states])  # (V, A)
    after = np.einsum("va,vak->vk", going, features[children])  # expected features that go on
    weights = np.zeros(features.shape[1])
    for _ in range(max_iterations):
        new = _ridge(phi, base + after @ weights, ridge)
        moved, weights = float(np.abs(new - weights).max()), new
        if moved < tolerance:
            return weights
    raise NotConvergedError(
        f"the weights still move by {moved:.1e} after {max_iterations} rounds of TD; the features "
        "pass errors on. Use a longer max_iterations, other features, or Monte Carlo."
    )


def _ridge(phi: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    gram = phi.T @ phi + ridge * np.eye(phi.shape[1])
    return np.linalg.solve(gram, phi.T @ target)


def _check_features(features: np.ndarray, states: np.ndarray, ridge: float) -> None:
    if np.ndim(features) != 2 or np.ndim(states) != 1 or not np.size(states):
        raise ShapeError(
            f"features {np.shape(features)} must be (S, K), and states {np.shape(states)} one or "
            "more prefixes."
        )
    if not ridge > 0:
        raise InvalidHyperparameterError(f"ridge={ridge} must be above 0.")
