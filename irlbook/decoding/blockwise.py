"""Blockwise best of k: draw k continuations of a few tokens, keep the best, and go on from there.

A block of the whole length is best of n; a block of one token chooses among k sampled tokens. The
score must be able to judge a *prefix* unless the block is the whole response.

Source: Mudgal et al. 2023 (2310.17022), section 3.
"""

from __future__ import annotations

import numpy as np

from irlbook.decoding.prefix_scorers import check_scores
from irlbook.errors import InvalidHyperparameterError
from irlbook.lm.enumerable import EnumerableLM, best_of_n

__all__ = ["block_ends", "blockwise_best_of_k"]


def block_ends(lm: EnumerableLM, state: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a block of at most `block` tokens behind a live prefix may end, and how likely.

    Returns:
        (E,) states and (E,) log-probabilities under the reference.
    """
    states, logs = np.array([state]), np.array([0.0])
    for _ in range(block):
        live = lm.children[states, 0] >= 0
        with np.errstate(divide="ignore"):
            steps = np.log(lm.policy[states[live]])
        grown = logs[live][:, None] + steps
        states = np.concatenate([states[~live], lm.children[states[live]].ravel()])
        logs = np.concatenate([logs[~live], grown.ravel()])
    return states, logs


def blockwise_best_of_k(
    lm: EnumerableLM, scores: np.ndarray, k: int, block: int
) -> tuple[np.ndarray, float, float]:
    """The exact distribution of blockwise best of k, and its cost.

    Args:
        scores: (S,) of every prefix; what "best" is judged by at the end of a block.
        k: candidates a block. block: tokens a block; the last may be shorter.

    Returns:
        (R,) log-probabilities, and expected tokens (generated, scored): all k candidates are both.
    """
    scores = check_scores(lm, scores)
    if k < 1 or block < 1:
        raise InvalidHyperparameterError(f"k={k} and block={block} must both be at least 1.")
    reach = np.full(lm.n_states, -np.inf)
    reach[0] = 0.0
    generated = 0.0
    for state in np.flatnonzero((lm.children[:, 0] >= 0) & (lm.lengths % block == 0)):
        if reach[state] == -np.inf:
            continue
        ends, logs = block_ends(lm, int(state), block)
        reach[ends] = reach[state] + best_of_n(logs, scores[ends], k)
        written = np.exp(logs) @ (lm.lengths[ends] - lm.lengths[state])
        generated += k * float(np.exp(reach[state]) * written)
    return reach[lm.responses], generated, generated
