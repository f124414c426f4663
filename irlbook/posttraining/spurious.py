"""GRPO on rewards that say nothing: what the clip does to a bandit, exactly.

A softmax policy over K arms draws a group of G. Each draw is paid 1 or 0 by the toss of a coin.
The group's advantages are those of GRPO, and the policy takes several steps on the same group, as
GRPO and PPO do. `expected_update` sums over *all* groups, `simulate` draws them one after another.

Source of the question: Shao et al. 2025 (2506.10947).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from irlbook.errors import InvalidHyperparameterError, NotStochasticError

__all__ = ["NO_CLIP", "all_groups", "expected_update", "inner_steps", "simulate"]

NO_CLIP = (1.0, math.inf)
"""Ratios are at least 0 and never infinite: these bounds never act."""


def inner_steps(
    logits: np.ndarray,
    paid: np.ndarray,
    unpaid: np.ndarray,
    *,
    steps: int,
    rate: float,
    clip: tuple[float, float] = (0.2, 0.2),
) -> np.ndarray:
    """(M, K) logits after `steps` steps of the clipped surrogate on one group each.

    Args:
        logits: (M, K) of the policy that drew the group.
        paid, unpaid: (M, K) how often each arm was drawn and got 1, or 0.
        clip: the ratio is kept within 1 - clip[0] and 1 + clip[1].

    Source: Schulman et al. 2017 (1707.06347), equation 7, with the advantages of Shao et al. 2024
    (2402.03300).
    """
    if steps < 1 or rate <= 0 or min(clip) <= 0:
        raise InvalidHyperparameterError(
            f"steps={steps}, rate={rate}, clip={clip}; at least one step, and positive numbers."
        )
    group = (paid + unpaid).sum(axis=1, keepdims=True)
    ones = paid.sum(axis=1, keepdims=True)
    mean = ones / group
    deviation = np.sqrt(ones * (group - ones) / (group * (group - 1)))
    mixed = deviation > 0
    scale = np.where(mixed, deviation, 1.0)
    good, bad = (np.where(mixed, (r - mean) / scale, 0.0) for r in (1.0, 0.0))
    old = softmax(logits, axis=1)
    now = np.array(logits, dtype=float)
    for _ in range(steps):
        p = softmax(now, axis=1)
        ratio = p / old
        pull = paid * good * (ratio <= 1 + clip[1]) + unpaid * bad * (ratio >= 1 - clip[0])
        pull = pull * ratio / group
        now += rate * (pull - p * pull.sum(axis=1, keepdims=True))
    return now


def all_groups(chances: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M, K) paid, (M, K) unpaid, (M,) probability: every group up to order, with its coins."""
    kinds = np.concatenate([chances, chances]) / 2  # an arm that is paid, an arm that is not
    k = len(chances)
    counts = np.array(list(_compositions(group, 2 * k)))
    log_ways = math.lgamma(group + 1) - np.vectorize(math.lgamma)(counts + 1.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(counts > 0, counts * np.log(kinds), 0.0).sum(axis=1)
    return counts[:, :k], counts[:, k:], np.exp(log_ways + logs)


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a total as a sum of so many counts."""
    for bars in itertools.combinations(range(total + parts - 1), parts - 1):
        edges = (-1, *bars, total + parts - 1)
        yield tuple(b - a - 1 for a, b in itertools.pairwise(edges))


def expected_update(
    chances: ArrayLike,
    group: int,
    *,
    steps: int,
    rate: float,
    clip: tuple[float, float] = (0.2, 0.2),
) -> tuple[np.ndarray, np.ndarray]:
    """((K,) expected change of the logits, (K,) of the chances), over all groups; exact.

    With one step the first is 0: a reward that does not depend on the arm has no gradient. The
    second need not be.

    Args:
        chances: (K,) of the arms, all above 0.
    """
    p = np.asarray(chances, dtype=float)
    if p.ndim != 1 or not (p > 0).all() or abs(p.sum() - 1) > 1e-9:
        raise NotStochasticError(f"chances are {p.tolist()}; positive numbers that sum to 1.")
    if group < 2:
        raise InvalidHyperparameterError(f"a group of {group} has nobody to compare with.")
    paid, unpaid, weight = all_groups(p, group)
    before = np.tile(np.log(p), (len(weight), 1))
    after = inner_steps(before, paid, unpaid, steps=steps, rate=rate, clip=clip)
    return weight @ (after - before), weight @ softmax(after, axis=1) - p


def simulate(
    chances: ArrayLike,
    group: int,
    rng: np.random.Generator,
    *,
    runs: int,
    iterations: int,
    steps: int,
    rate: float,
    clip: tuple[float, float] = (0.2, 0.2),
) -> np.ndarray:
    """(iterations + 1, runs, K) chances of the arms along independent runs."""
    logits = np.tile(np.log(np.asarray(chances, dtype=float)), (runs, 1))
    path = [softmax(logits, axis=1)]
    for _ in range(iterations):
        drawn = rng.multinomial(group, path[-1])
        paid = rng.binomial(drawn, 0.5)
        logits = inner_steps(logits, paid, drawn - paid, steps=steps, rate=rate, clip=clip)
        path.append(softmax(logits, axis=1))
    return np.array(path)
