"""A reward that was trained on whole responses says nothing of a prefix.

Bradley–Terry on whole responses fixes r(y) for whole y only. What the same network says of an
unfinished prefix is an extension that no label has seen. `extension` shows how free it is: for any
token policy that may always end, it builds a score that *equals r on every whole response* and for
which guided decoding is that policy, at every step but the last.

Source: Rashid et al. 2024 (2406.07780) prove that such rewards may be arbitrary on prefixes; the
construction here is ours.
"""

from __future__ import annotations

import numpy as np

from irlbook.decoding.prefix_scorers import with_rewards
from irlbook.errors import InvalidHyperparameterError, InvalidPolicyError, ShapeError
from irlbook.lm.enumerable import EnumerableLM

__all__ = ["extension"]


def extension(
    lm: EnumerableLM, response_reward: np.ndarray, policy: np.ndarray, weight: float
) -> np.ndarray:
    """(S,) a score that is r on whole responses, and guides to `policy` before the last token.

    At a prefix s, ending is a whole response, whose score is given. It fixes the level,

        c = w r(s END) - log(pi(END | s) / pi_ref(END | s)),

    and every other next prefix gets score(s a) = (c + log(pi(a | s) / pi_ref(a | s))) / w.

    Args:
        response_reward: (R,). policy: (S, A), above 0 wherever the reference is. weight: w > 0.

    Raises:
        InvalidPolicyError: a token that the reference may write has probability 0.
    """
    if np.shape(policy) != lm.policy.shape:
        raise ShapeError(f"policy has shape {np.shape(policy)}; expected {lm.policy.shape}.")
    if not weight > 0:
        raise InvalidHyperparameterError(f"weight={weight} must be above 0.")
    inner = np.flatnonzero((lm.children[:, 0] >= 0) & (lm.lengths < lm.max_length - 1))
    if not ((policy[inner] > 0) & (lm.policy[inner] > 0)).all():
        raise InvalidPolicyError("both policies must give every token a probability above 0.")
    scores = with_rewards(lm, np.zeros(lm.n_states), response_reward)
    ratio = np.log(policy[inner] / lm.policy[inner])  # (s, A)
    level = weight * scores[lm.children[inner, -1]] - ratio[:, -1]
    scores[lm.children[inner, :-1]] = (level[:, None] + ratio[:, :-1]) / weight
    return scores
