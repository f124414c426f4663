"""Reward-guided decoding, token by token: the language model's logit plus a weighted score.

    pi(a | s) ∝ pi_ref(a | s) exp(w score(s a))       over the k likeliest tokens, or over all

ARGS (Khanov et al. 2024, 2402.01694) and RAD (Deng and Raffel 2023, 2310.09520) are of this form;
they differ in what the score was trained for, and in whether the token is drawn or the best one
taken. *What* the score says of an unfinished prefix decides everything: with the soft value
V(s) = beta log E[exp(r / beta) | s] and w = 1 / beta the result is RLHF's optimum itself.
"""

from __future__ import annotations

import numpy as np

from irlbook.decoding.measure import expected_tokens
from irlbook.decoding.prefix_scorers import check_scores
from irlbook.errors import InvalidHyperparameterError
from irlbook.lm.enumerable import EnumerableLM

__all__ = ["guided_policy", "guided_tokens", "likeliest"]


def likeliest(probabilities: np.ndarray, top: int | None) -> np.ndarray:
    """(..., A) which tokens are among the `top` likeliest of their row; ties go to the first.

    Raises:
        InvalidHyperparameterError: top < 1.
    """
    if top is None or top >= probabilities.shape[-1]:
        return np.ones(probabilities.shape, dtype=bool)
    if top < 1:
        raise InvalidHyperparameterError(f"top={top}: guided decoding needs a candidate or more.")
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    kept = np.zeros(probabilities.shape, dtype=bool)
    np.put_along_axis(kept, order[..., :top], True, axis=-1)
    return kept


def guided_policy(
    lm: EnumerableLM,
    scores: np.ndarray,
    weight: float,
    *,
    top: int | None = None,
    greedy: bool = False,
) -> np.ndarray:
    """(S, A) next-token probabilities of guided decoding; ended prefixes keep their rows.

    Args:
        scores: (S,) what the scorer says of each prefix, whole responses included.
        weight: w, at least 0; 0 is the reference (within `top`).
        top: how many of the likeliest tokens are candidates; None: all.
        greedy: take the candidate of the largest log pi_ref + w score, the first of those that tie.

    Raises:
        ShapeError, NotFiniteError: not one finite score a prefix.
        InvalidHyperparameterError: a negative weight, or top < 1.
    """
    scores = check_scores(lm, scores)
    if not weight >= 0:
        raise InvalidHyperparameterError(f"weight={weight} must not be negative.")
    live = np.flatnonzero(lm.children[:, 0] >= 0)
    reference = lm.policy[live]  # (s, A)
    with np.errstate(divide="ignore"):
        logits = np.log(reference) + weight * scores[lm.children[live]]
    logits[~likeliest(reference, top)] = -np.inf
    chosen = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    if greedy:
        chosen = np.eye(chosen.shape[1])[logits.argmax(axis=1)]
    policy = lm.policy.copy()
    policy[live] = chosen
    return policy


def guided_tokens(
    lm: EnumerableLM, policy: np.ndarray, top: int | None = None
) -> tuple[float, float]:
    """Expected tokens (generated, scored) of one guided response: k candidates read at each step.

    Args:
        policy: (S, A) of guided decoding. top: k; None: all A tokens.
    """
    steps = expected_tokens(lm, lm.sequence_log_probabilities(policy))
    width = len(lm.tokens) if top is None else min(top, len(lm.tokens))
    return steps, steps * width
