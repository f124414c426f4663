"""Speculative decoding, and what a reward does to it.

A small *draft* model writes a token (or a step), a large *target* model is asked only now and then.

*Speculative sampling* accepts a draft token with probability min(1, p_target / p_draft) and else
draws from what the target has left over; its output is the target's distribution, exactly.
*Reward-guided speculative decoding* (RSD) accepts the draft where a process reward likes it,

    pi(a | s) = q(a | s) omega(score(s a)) + (1 - sum_b q(b | s) omega(score(s b))) p(a | s),

with omega in [0, 1]: a mixture that is neither model, and may be better or worse than both.

Source: Leviathan, Kalman and Matias 2023 (2211.17192), algorithm 1; Liao et al. 2025 (2501.19324).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irlbook.decoding.prefix_scorers import check_scores
from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.lm.enumerable import EnumerableLM

__all__ = ["Speculation", "reward_guided", "speculative_sampling"]


@dataclass(frozen=True)
class Speculation:
    """A policy that asks two models.

    Attributes:
        policy: (S, A) the distribution of the next token.
        accepted: (S,) chance that the draft's token stands, on live prefixes.
        tokens: expected tokens that the draft writes for one response.
        rejected: of these, the expected number in whose place the target writes its own.
    """

    policy: np.ndarray
    accepted: np.ndarray
    tokens: float
    rejected: float


def speculative_sampling(
    lm: EnumerableLM, draft: np.ndarray, target: np.ndarray, *, residual: bool = True
) -> Speculation:
    """Accept with min(1, p / q), else draw from the residual max(0, p - q): exactly the target.

    Args:
        draft, target: (S, A) q and p.
        residual: False draws from the target itself after a rejection, which is a common mistake:
            the output leans towards the draft.
    """
    live = _check(lm, draft, target)
    q, p = draft[live], target[live]
    kept = np.minimum(p, q)
    accepted = kept.sum(axis=1)
    left = np.maximum(p - q, 0.0) if residual else p
    total = left.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.where(total > 0, left / total, 0.0)
    return _speculation(lm, live, kept + (1 - accepted)[:, None] * left, accepted)


def reward_guided(
    lm: EnumerableLM,
    draft: np.ndarray,
    target: np.ndarray,
    scores: np.ndarray,
    threshold: float,
) -> Speculation:
    """RSD with a threshold: the draft's token stands if its prefix scores >= threshold.

    Args:
        draft, target: (S, A). scores: (S,) of every prefix.
        threshold: -inf gives the draft, inf the target.
    """
    live = _check(lm, draft, target)
    scores = check_scores(lm, scores)
    stands = draft[live] * (scores[lm.children[live]] >= threshold)
    accepted = stands.sum(axis=1)
    return _speculation(lm, live, stands + (1 - accepted)[:, None] * target[live], accepted)


def _speculation(
    lm: EnumerableLM, live: np.ndarray, rows: np.ndarray, accepted: np.ndarray
) -> Speculation:
    policy = lm.policy.copy()
    policy[live] = rows / rows.sum(axis=1, keepdims=True)
    chance = np.ones(lm.n_states)
    chance[live] = accepted
    reach = np.exp(lm.prefix_log_probabilities(policy))
    return Speculation(
        policy, chance, float(reach[live].sum()), float(reach[live] @ (1 - accepted))
    )


def _check(lm: EnumerableLM, draft: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The live prefixes."""
    for name, policy in (("draft", draft), ("target", target)):
        if np.shape(policy) != lm.policy.shape:
            raise ShapeError(f"{name} has shape {np.shape(policy)}; expected {lm.policy.shape}.")
        if not np.allclose(np.sum(policy, axis=1), 1.0, atol=1e-9) or np.min(policy) < 0:
            raise InvalidHyperparameterError(f"the rows of {name} must be distributions.")
    return np.flatnonzero(lm.children[:, 0] >= 0)
