"""What old samples do to a policy gradient, exactly, on a language model that can be listed.

An asynchronous run samples with weights that are some updates old. Three ways to use such samples:

    plain    as if they were fresh
    ratio    each response weighted by pi / pi_old of the whole response: the right gradient, and
             noisier the further the two are apart
    clip     PPO: each token's own ratio, and no gradient where it has left [1 - c, 1 + c] in the
             direction in which the advantage pushes

Expectations go over all responses, so what differs is bias and not luck.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.lm.enumerable import EnumerableLM, check_logps, expectation

__all__ = [
    "Correction",
    "asynchronous_ascent",
    "effective_share",
    "gradient_variance",
    "softmax_policy",
    "stale_gradient",
]

Correction = Literal["plain", "ratio", "clip"]


def effective_share(log_new: np.ndarray, log_old: np.ndarray) -> float:
    """1 / E_old[w^2] with w = pi / pi_old: the effective sample size, as a share of the samples.

    A weighted mean of N responses has about the noise of N times this share of fresh ones, if what
    is averaged has nothing to do with w (Kong 1992). A policy gradient has: see
    `gradient_variance`.

    Args:
        log_new, log_old: (R,) log-probabilities of all responses.
    """
    new, old = check_logps(log_new, "log_new"), check_logps(log_old, "log_old")
    if new.shape != old.shape:
        raise ShapeError(f"{new.shape} and {old.shape} must be over the same responses.")
    drawn = old > -np.inf
    return float(1 / np.exp(2 * new[drawn] - old[drawn]).sum())


def softmax_policy(lm: EnumerableLM, logits: np.ndarray) -> np.ndarray:
    """(S, A) next-token probabilities; uniform on ended prefixes."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    policy = shifted / shifted.sum(axis=1, keepdims=True)
    return np.where(lm.children[:, :1] >= 0, policy, lm.policy)


def stale_gradient(
    lm: EnumerableLM,
    policy: np.ndarray,
    old: np.ndarray,
    reward: np.ndarray,
    correction: Correction = "plain",
    clip: float = 0.2,
) -> np.ndarray:
    """(S, A) expected update of the logits from responses of an older policy.

    The sum over responses of pi_old(y) A(y) sum_t g_t d log pi(y_t), with A = r - E_old[r], and
    g_t the weight of `correction`. With "ratio" it is the policy gradient itself.

    Args:
        policy, old: (S, A) next-token probabilities, now and when the responses were drawn.
        reward: (R,).

    Raises:
        InvalidHyperparameterError: another correction, or a clip outside (0, 1).
    """
    if correction not in ("plain", "ratio", "clip") or not 0 < clip < 1:
        raise InvalidHyperparameterError(
            f"correction={correction!r}, clip={clip}; use plain, ratio or clip, and 0 < clip < 1."
        )
    log_new, log_old = (lm.sequence_log_probabilities(p) for p in (policy, old))
    chance = np.exp(log_old)
    advantage = np.asarray(reward, dtype=float) - expectation(log_old, reward)
    gradient = np.zeros_like(policy)
    for r, ids in enumerate(lm.response_ids()):
        state = 0
        for token in ids:
            weight = chance[r] * advantage[r]
            if correction == "ratio":
                weight *= np.exp(log_new[r] - log_old[r])
            elif correction == "clip":
                ratio = policy[state, token] / old[state, token]
                left = ratio > 1 + clip if advantage[r] > 0 else ratio < 1 - clip
                weight *= 0.0 if left else ratio
            gradient[state] -= weight * policy[state]
            gradient[state, token] += weight
            state = lm.children[state, token]
    return gradient


def gradient_variance(
    lm: EnumerableLM, policy: np.ndarray, old: np.ndarray, reward: np.ndarray
) -> float:
    """Variance of the "ratio" gradient of one old response, summed over all logits, exactly.

    E_old |w A grad log pi(y)|^2 - |E_old w A grad log pi(y)|^2, with w and A as in
    `stale_gradient`. With `old` equal to `policy` it is that of a fresh response, and the quotient
    of the two says how many fresh responses an old one is worth for this gradient.

    Args:
        policy, old, reward: as `stale_gradient` takes them.
    """
    log_new, log_old = (lm.sequence_log_probabilities(p) for p in (policy, old))
    advantage = np.asarray(reward, dtype=float) - expectation(log_old, reward)
    squared = np.zeros(len(advantage))  # |grad log pi(y)|^2: the steps of y have different logits
    length = (policy**2).sum(axis=1)
    for r, ids in enumerate(lm.response_ids()):
        state = 0
        for token in ids:
            squared[r] += 1 - 2 * policy[state, token] + length[state]
            state = lm.children[state, token]
    second = np.exp(2 * log_new - log_old) @ (advantage**2 * squared)
    mean = stale_gradient(lm, policy, old, reward, "ratio")
    return float(second - (mean**2).sum())


def asynchronous_ascent(
    lm: EnumerableLM,
    reward: np.ndarray,
    *,
    lag: int,
    steps: int,
    rate: float,
    correction: Correction = "plain",
    look: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> np.ndarray:
    """(steps + 1,) expected reward of gradient ascent whose samples are `lag` updates old.

    Args:
        rate: of the step along the expected update of the logits.
        look: is shown the policy and the one that samples, before each step.

    Raises:
        InvalidHyperparameterError: a negative lag, or no steps.
    """
    if lag < 0 or steps < 1:
        raise InvalidHyperparameterError(f"lag={lag}, steps={steps}; needs a lag from 0, a step.")
    logits = np.log(lm.policy)
    policies = [softmax_policy(lm, logits)]
    for t in range(steps):
        policy, old = policies[t], policies[max(0, t - lag)]
        if look:
            look(policy, old)
        logits = logits + rate * stale_gradient(lm, policy, old, reward, correction)
        policies.append(softmax_policy(lm, logits))
    return np.array([expectation(lm.sequence_log_probabilities(p), reward) for p in policies])
