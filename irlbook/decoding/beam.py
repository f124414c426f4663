"""Value-guided beam search: keep the b prefixes of the largest log pi_ref(s) + w score(s).

It looks for one response and returns it, so it has no entropy at all, and its KL from the reference
is -log pi_ref(y). A beam that is wide enough finds the best response of the whole tree.

Source: beam search with a learned value of the prefix: Snell et al. 2024 (2408.03314), section 5,
for process rewards.
"""

from __future__ import annotations

import numpy as np

from irlbook.decoding.prefix_scorers import check_scores
from irlbook.errors import InvalidHyperparameterError
from irlbook.lm.enumerable import EnumerableLM

__all__ = ["beam_search"]


def beam_search(
    lm: EnumerableLM, scores: np.ndarray, width: int, weight: float, *, likelihood: float = 1.0
) -> tuple[np.ndarray, float, float]:
    """The response that a beam of `width` prefixes ends with.

    Args:
        scores: (S,) of every prefix. width: b. weight: w, on the score.
        likelihood: what log pi_ref is multiplied by; 0 looks at the score alone.

    Returns:
        (R,) log-probabilities: 0 for that response and -inf for all others; and tokens (generated,
        scored): one for each live prefix of the beam, and one for each of its candidates.
    """
    scores = check_scores(lm, scores)
    if width < 1:
        raise InvalidHyperparameterError(f"width={width}: a beam holds one prefix or more.")
    beam, logs = np.array([0]), np.array([0.0])
    generated = scored = 0
    for _ in range(lm.max_length):
        live = lm.children[beam, 0] >= 0
        if not live.any():
            break
        with np.errstate(divide="ignore"):
            steps = np.log(lm.policy[beam[live]])
        generated += int(live.sum())
        scored += steps.size
        states = np.concatenate([beam[~live], lm.children[beam[live]].ravel()])
        logs = np.concatenate([logs[~live], (logs[live][:, None] + steps).ravel()])
        possible = np.flatnonzero(logs > -np.inf)
        value = likelihood * logs[possible] + weight * scores[states[possible]]
        kept = possible[np.argsort(-value, kind="stable")[:width]]
        beam, logs = states[kept], logs[kept]
    log_p = np.full(len(lm.responses), -np.inf)
    log_p[int(np.flatnonzero(lm.responses == beam[0])[0])] = 0.0
    return log_p, float(generated), float(scored)
