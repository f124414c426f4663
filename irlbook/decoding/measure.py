"""What a way of decoding is worth, and what it costs: reward, KL, diversity and tokens.

The unit of cost is the token. A token is *generated* when the language model computes the
distribution that it is drawn from, and *scored* when a reward or a prefix scorer reads it. Both
read from left to right with a cache, so a prefix that was read before costs nothing again. The two
are counted apart because the two models may differ in size; "equal compute" adds them up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.lm.enumerable import (
    EnumerableLM,
    check_logps,
    entropy_from_logps,
    expectation,
    kl_from_logps,
    tilted,
)

__all__ = ["Outcome", "best_reward_at_kl", "expected_tokens", "outcome"]


@dataclass(frozen=True)
class Outcome:
    """One method at one setting.

    Attributes:
        reward: its expected reward.
        kl: KL(method || reference), nats per response.
        entropy: of its responses, in nats: exp of it is an effective number of responses.
        generated, scored: expected tokens for one response.
    """

    reward: float
    kl: float
    entropy: float
    generated: float
    scored: float

    @property
    def tokens(self) -> float:
        """Generated and scored together."""
        return self.generated + self.scored


def outcome(
    lm: EnumerableLM,
    log_p: np.ndarray,
    response_reward: np.ndarray,
    generated: float,
    scored: float,
) -> Outcome:
    """The exact figures of a distribution over responses.

    Args:
        log_p: (R,) log-probabilities of the method's responses. response_reward: (R,).
        generated, scored: expected tokens, from the method's own file.
    """
    return Outcome(
        expectation(log_p, response_reward),
        kl_from_logps(log_p, lm.sequence_log_probabilities()),
        entropy_from_logps(log_p),
        float(generated),
        float(scored),
    )


def expected_tokens(lm: EnumerableLM, log_p: np.ndarray | None = None) -> float:
    """E[length] of a response, its end token included; default under the reference."""
    log_p = lm.sequence_log_probabilities() if log_p is None else log_p
    return expectation(log_p, lm.lengths[lm.responses])


def best_reward_at_kl(log_reference: np.ndarray, response_reward: np.ndarray, kl: float) -> float:
    """The largest E[r] that any policy reaches within KL(pi || reference) <= kl.

    It is that of the tilted reference whose beta spends exactly `kl`; once the KL allows all mass
    on the best responses, it is the best reward.

    Args:
        log_reference: (R,). response_reward: (R,). kl: nats, at least 0.

    Raises:
        ShapeError: unlike lengths. InvalidHyperparameterError: a negative KL.
    """
    log_p = check_logps(log_reference, "log_reference")
    r = np.asarray(response_reward, dtype=float)
    if r.shape != log_p.shape:
        raise ShapeError(f"response_reward {r.shape} and log_reference {log_p.shape} differ.")
    if not kl >= 0:
        raise InvalidHyperparameterError(f"kl={kl}: a KL is not negative.")
    possible = log_p > -np.inf
    best = r[possible].max()
    most = -float(np.logaddexp.reduce(log_p[possible & (r == best)]))
    if kl >= most - 1e-9:
        return float(best)
    if kl < 1e-12:
        return expectation(log_p, r)

    def spent(log_beta: float) -> float:
        return kl_from_logps(tilted(log_p, r, float(np.exp(log_beta)))[0], log_p) - kl

    scale = np.log(np.ptp(r[possible]))
    low, high = scale - 1.0, scale + 1.0
    while spent(low) < 0 and low > scale - 12:
        low -= 1.0
    while spent(high) > 0 and high < scale + 20:
        high += 1.0
    if spent(low) < 0:  # so near the end that doubles cannot tell
        return float(best)
    beta = float(np.exp(brentq(spent, low, high, xtol=1e-13)))
    return expectation(tilted(log_p, r, beta)[0], r)
