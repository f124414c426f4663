"""Bradley–Terry on partial sequences: labels of whole responses, given to their beginnings.

Each labelled pair y+, y- is cut at the same length t = 1 ... L, and both beginnings inherit the
label. Now every prefix is trained, but for a question of its own: *does a response that begins like
this tend to be preferred?* With endless labels the answer is the order of a Borda count among the
beginnings of one length (chapter 17), and that is neither a mean nor a soft value.

Guided by such a score with weight w, the token policy is a ratio of two RLHF policies, one for
beginnings of length t + 1 and one for length t:

    pi(a | s) ∝ [pi_ref(s a) exp(w score(s a))] / [pi_ref(s) exp(w score(s))].

Source: Rashid, Wu, Grosse, Kristiadi and Poupart 2024 (2406.07780).
"""

from __future__ import annotations

import numpy as np

from irlbook.errors import InvalidHyperparameterError
from irlbook.lm.enumerable import EnumerableLM
from irlbook.preferences.bradley_terry import fit_bradley_terry
from irlbook.preferences.hidden_context import preference_matrix

__all__ = ["cut", "partial_sequence_scores", "truncated_counts"]


def cut(lm: EnumerableLM, length: int) -> np.ndarray:
    """(R,) the state of each response after `length` tokens, or at its end if that is before."""
    if not 1 <= length <= lm.max_length:
        raise InvalidHyperparameterError(f"length={length} must lie in 1 ... {lm.max_length}.")
    states = np.zeros(len(lm.responses), dtype=int)
    for t in range(length):
        tokens = lm.prefixes[lm.responses, t]
        following = lm.children[states, np.maximum(tokens, 0)]
        states = np.where(tokens >= 0, following, states)
    return states


def truncated_counts(
    lm: EnumerableLM, response_reward: np.ndarray, beta: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """How often each pair of beginnings is labelled, from endless pairs of reference responses.

    Args:
        response_reward: (R,), what the labeller judges whole responses by.
        beta: the labeller's temperature.

    Returns:
        (P, 2) states, the preferred one first, and (P,) expected counts for one pair of responses.
    """
    p = np.exp(lm.sequence_log_probabilities())
    table = preference_matrix(np.asarray(response_reward, dtype=float)[None], beta=beta)
    seen = p[:, None] * p[None, :] * table  # (R, R) row drawn, column drawn, row preferred
    total = np.zeros((lm.n_states, lm.n_states))
    for length in range(1, lm.max_length + 1):
        items, item = np.unique(cut(lm, length), return_inverse=True)
        member = np.eye(len(items))[item]  # (R, I)
        total[np.ix_(items, items)] += member.T @ seen @ member
    np.fill_diagonal(total, 0.0)  # both begin alike: the pair says nothing
    winner, loser = np.nonzero(total)
    return np.column_stack([winner, loser]), total[winner, loser]


def partial_sequence_scores(
    lm: EnumerableLM, response_reward: np.ndarray, beta: float = 1.0
) -> np.ndarray:
    """(S,) the rewards that Bradley–Terry learns for all prefixes from endless truncated labels.

    Their zero is free; the empty prefix, which is in no pair, gets the mean of the others.
    """
    pairs, counts = truncated_counts(lm, response_reward, beta)
    fit = fit_bradley_terry(pairs - 1, counts=counts, n_items=lm.n_states - 1)
    return np.concatenate([[fit.rewards.mean()], fit.rewards])
