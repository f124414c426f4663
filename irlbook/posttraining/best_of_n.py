"""Best of n: draw n responses, keep the one that the reward likes best. No weight is trained.

With F(s) the probability that a response of the policy p scores at most s, and F_-(s) that it
scores less, the best of n independent responses has a score of s with probability F(s)^n -
F_-(s)^n. From this follows exactly what the choice costs and what it wins:

    KL(best of n || p) <= log n - (n - 1)/n        and        win rate against p <= n/(n + 1)

with equality only where no two responses score the same *and* each is rare. `best_of_n_kl` and
`best_of_n_win_rate` are the exact values for a distribution that can be written down;
`best_of_n_curve` is an estimate from K responses to each of P prompts.

The distribution itself and its KL bound live in :mod:`irlbook.lm.enumerable` (``best_of_n``,
``best_of_n_kl_bound``), the estimator in :mod:`irlbook.posttraining.evaluation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from irlbook.errors import (
    InvalidHyperparameterError,
    RewardError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.lm.enumerable import best_of_n, best_of_n_kl_bound, check_logps, kl_from_logps
from irlbook.posttraining.evaluation import best_of_n_gold

__all__ = [
    "BestOfNCurve",
    "best_of_n_curve",
    "best_of_n_kl",
    "best_of_n_win_rate",
    "best_of_n_win_rate_bound",
    "choose",
    "win_rate",
]

# From samples -------------------------------------------------------------------------------------


def choose(scores: np.ndarray) -> np.ndarray:
    """(P,) which of n responses is best, for each prompt; the first of those that tie.

    The first is as good as a random one: the responses are exchangeable, as they are drawn
    independently. (Were they sorted by length, say, it would not be.)

    Args:
        scores: (P, n), an array or a tensor on the CPU.

    Raises:
        ShapeError: not (P, n) with n >= 1.
        RewardError: a score is not finite. argmax would choose a NaN.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or not scores.size:
        raise ShapeError(f"scores have shape {scores.shape}; expected (prompts, responses >= 1).")
    if not np.isfinite(scores).all():
        row = int(np.argmin(np.isfinite(scores).all(axis=1)))
        raise RewardError(
            f"a score of prompt {row} is not finite; find what the reward does with that response."
        )
    return scores.argmax(axis=1)


@dataclass(frozen=True)
class BestOfNCurve:
    """What the best of n is worth, by the reward that chose it and by gold.

    Attributes:
        ns: (N,) as given.
        proxy: (N,) mean over prompts of the choosing reward of the response it chose.
        gold: (N,) mean over prompts of that response's gold.
        low, high: (N,) interval for `gold`: how far another draw of *prompts* would move it.
        by_prompt: (P, N) gold of each prompt, for paired comparisons of two curves.
    """

    ns: np.ndarray
    proxy: np.ndarray
    gold: np.ndarray
    low: np.ndarray
    high: np.ndarray
    by_prompt: np.ndarray

    @property
    def kl_bound(self) -> np.ndarray:
        """(N,) log n - (n - 1)/n: nats of KL to the policy, at most."""
        return np.array([best_of_n_kl_bound(int(n)) for n in self.ns])


def best_of_n_curve(
    rewards: np.ndarray,
    gold: np.ndarray,
    ns: Sequence[int],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> BestOfNCurve:
    """Proxy and gold of the best of n against n, each a mean over *all* subsets of n of K.

    The interval resamples prompts, not responses: two responses to one prompt are alike, so an
    interval over P * K responses would be far too narrow. Close to n = K the subsets overlap so
    much that a prompt's value rests on one response; the interval over prompts sees this too.

    Args:
        rewards: (P, K) what "best" is judged by. gold: (P, K).
        ns: from 1 to K each.
        rng: draws the resamples. level: the coverage aimed at.

    Raises:
        ShapeError: arrays of unlike shape. NotFiniteError: a number that is not finite.
        UninformativeDataError: fewer than two prompts.
        InvalidHyperparameterError: an n below 1 or above K, or none at all.

    Source: the estimator is that of Nakano et al. 2021 (2112.09332), appendix I; the bootstrap
    over clusters that of Davison and Hinkley 1997, section 3.8.
    """
    sizes = np.array([int(n) for n in ns])
    if not len(sizes):
        raise InvalidHyperparameterError("ns is empty; give at least one n.")
    if not 0 < level < 1:
        raise InvalidHyperparameterError(f"level={level} is not between 0 and 1; 0.95 is usual.")
    by_prompt = np.stack([best_of_n_gold(rewards, gold, n) for n in sizes], axis=1)  # (P, N)
    if len(by_prompt) < 2:
        raise UninformativeDataError("an interval over prompts needs at least two prompts.")
    proxy = [best_of_n_gold(rewards, rewards, n).mean() for n in sizes]
    settings: dict[str, Any] = {"method": "percentile", "n_resamples": resamples}
    intervals = [
        bootstrap((x,), np.mean, confidence_level=level, rng=rng, **settings).confidence_interval
        for x in by_prompt.T
    ]
    low, high = np.array(intervals).T
    return BestOfNCurve(sizes, np.array(proxy), by_prompt.mean(axis=0), low, high, by_prompt)


# Exact, for a distribution that can be written down -----------------------------------------------


def best_of_n_kl(log_p: np.ndarray, scores: np.ndarray, n: int) -> float:
    """KL(best of n || p) in nats, summed over all responses; ties are broken at random.

    Never more than `best_of_n_kl_bound(n)` = log n - (n - 1)/n, and often much less. It cannot
    exceed -log P(best score) either: a fair coin stays at log 2 however large n is.

    Args:
        log_p: (R,) log-probabilities of the responses. scores: (R,). n: at least 1.

    Source: Beirami et al. 2024 (2401.01879): the bound is theorem 1.
    """
    return kl_from_logps(best_of_n(log_p, scores, n), log_p)


def win_rate(log_p: np.ndarray, log_q: np.ndarray, scores: np.ndarray) -> float:
    """Chance that a response of p scores higher than an independent one of q; a tie counts half.

        sum_y p(y) [Q(score < s(y)) + Q(score = s(y)) / 2]

    Counting half is the only choice by which p against itself has 1/2.

    Args:
        log_p, log_q: (R,) log-probabilities. scores: (R,) the judge's.
    """
    scores = np.asarray(scores, dtype=float)
    if not np.shape(log_p) == np.shape(log_q) == scores.shape:
        raise ShapeError("log_p, log_q and scores must be (responses,), of one length.")
    levels, level = np.unique(scores, return_inverse=True)
    mass_p, mass_q = (
        np.bincount(level, weights=np.exp(check_logps(x)), minlength=len(levels))
        for x in (log_p, log_q)
    )
    below = np.cumsum(mass_q) - mass_q
    return float(mass_p @ (below + mass_q / 2) / (mass_p.sum() * mass_q.sum()))


def best_of_n_win_rate(log_p: np.ndarray, scores: np.ndarray, n: int) -> float:
    """Win rate of the best of n against one response of p, judged by the reward that chose it.

    At most `best_of_n_win_rate_bound(n)` = n/(n + 1), and less wherever scores tie.

    Args:
        log_p: (R,). scores: (R,). n: at least 1.
    """
    return win_rate(best_of_n(log_p, scores, n), log_p, scores)


def best_of_n_win_rate_bound(n: int) -> float:
    """n/(n + 1): of n + 1 responses without ties, each is best as often as any other.

    With ties it is a bound: sum (F^n - F_-^n)(F + F_-)/2 is the trapezoid rule for the integral
    of u d(u^n) = n/(n + 1), and lies below it because u^n is convex.
    """
    if n < 1:
        raise InvalidHyperparameterError(f"n={n}: the best of n responses needs n >= 1.")
    return n / (n + 1)
