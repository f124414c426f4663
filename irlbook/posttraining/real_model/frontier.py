"""What a policy's samples are worth and what they cost, beside the cheapest way to the same gold.

Among all policies with mean gold G, the one nearest to the start is the exponential tilt
pi_l(y|x) = pi_ref(y|x) e^{l gold(y)} / Z_l(x). For any policy of that mean gold, with the same l
for all prompts,

    KL(pi || pi_ref) = KL(pi || pi_l) + KL(pi_l || pi_ref)            (Pythagoras),

so the second term is the price of the gold, and the first was paid for something else. The tilt
needs no training: it is a weighting of the start's samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.lm.enumerable import best_of_n_kl_bound
from irlbook.posttraining.evaluation import best_of_n_gold

__all__ = [
    "Evaluation",
    "best_of_n_points",
    "direction",
    "distinct",
    "kl_by_class",
    "kl_by_position",
    "kl_of_gold",
    "matching_tilt",
    "summarise",
    "tilt",
    "token_classes",
]


@dataclass(frozen=True)
class Evaluation:
    """Samples of a policy to held-out prompts.

    Attributes:
        responses: P lists of k lists of token ids; one that ended holds its end token.
        logps, base: as `responses`, log pi and log pi_ref of each token.
        ended: (P, k). gold: (P, k).
    """

    responses: list[list[list[int]]]
    logps: list[list[list[float]]]
    base: list[list[list[float]]]
    ended: list[list[bool]]
    gold: list[list[float]]

    @property
    def log_ratios(self) -> np.ndarray:
        """(P, k) log pi(y|x) - log pi_ref(y|x)."""
        return np.array(
            [
                [float(np.sum(p) - np.sum(q)) for p, q in zip(mine, its, strict=True)]
                for mine, its in zip(self.logps, self.base, strict=True)
            ]
        )

    @property
    def flat(self) -> list[list[int]]:
        """The P k responses."""
        return [y for group in self.responses for y in group]


def tilt(gold: np.ndarray, strength: float) -> tuple[float, float]:
    """Mean gold, and KL to the start in nats, of the start's samples weighted by e^{l gold}.

    Args:
        gold: (P, n) of n samples of the start to each prompt. strength: l >= 0.

    With n samples KL cannot exceed log n, and near it the estimate is of the samples, not of the
    policy.
    """
    if gold.ndim != 2 or not gold.size:
        raise ShapeError(f"gold has shape {gold.shape}; expected (prompts, samples).")
    logw = strength * gold
    logw = logw - logsumexp(logw, axis=1, keepdims=True)
    weight = np.exp(logw)
    kl = (weight * (logw + np.log(gold.shape[1]))).sum(1)
    return float((weight * gold).sum(1).mean()), float(kl.mean())


def matching_tilt(gold: np.ndarray, wanted: float) -> tuple[float, float] | None:
    """(l, KL) of the tilt whose mean gold is `wanted`; None if no l in [-200, 200] reaches it."""

    def gap(strength: float) -> float:
        return tilt(gold, strength)[0] - wanted

    if not gap(-200.0) < 0 < gap(200.0):
        return None
    strength = float(brentq(gap, -200.0, 200.0, xtol=1e-6))
    return strength, tilt(gold, strength)[1]


def best_of_n_points(gold: np.ndarray, ns: Sequence[int]) -> list[dict[str, float]]:
    """Best of n under gold itself: mean gold, and the bound log n - (n-1)/n on its KL."""
    return [
        {"n": n, "gold": float(best_of_n_gold(gold, gold, n).mean()), "kl": best_of_n_kl_bound(n)}
        for n in ns
    ]


def kl_of_gold(policy: np.ndarray, start: np.ndarray, bins: int = 8) -> float:
    """KL between the distributions of gold itself, in bins: what a change of gold needs at least.

    By the chain rule KL(pi || pi_ref) is at least the KL of anything that is computed from the
    response. Bins are of equal probability under the start; each gets half a count more.

    Args:
        policy, start: gold of samples, any shape.
    """
    if bins < 2:
        raise InvalidHyperparameterError(f"bins is {bins}; at least 2.")
    edges = np.unique(np.quantile(start, np.linspace(0, 1, bins + 1)[1:-1]))
    shares = []
    for values in (policy, start):
        count = np.bincount(np.searchsorted(edges, np.ravel(values)), minlength=len(edges) + 1)
        shares.append((count + 0.5) / (count.sum() + 0.5 * len(count)))
    p, q = shares
    return float((p * np.log(p / q)).sum())


def token_classes(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str], end: int, rated: Callable[..., bool]
) -> list[str]:
    """ "end", "sentiment" (part of a word that the lexicon rates) or "other", for each token."""
    body = [i for i in ids if i != end]
    upto = [len(decode(body[:k])) for k in range(len(body) + 1)]
    text = decode(body)
    words, start = [], 0
    for word in text.split(" "):
        words.append((start, start + len(word), rated(word)))
        start += len(word) + 1
    found = []
    for k in range(len(body)):
        inside = [r for first, last, r in words if first < upto[k + 1] and last > upto[k]]
        found.append("sentiment" if any(inside) else "other")
    return found + ["end"] * (len(ids) - len(body))


def kl_by_class(
    evaluation: Evaluation, classes: Callable[[Sequence[int]], list[str]]
) -> dict[str, float]:
    """The KL, nats a response, as a sum over classes of tokens, and the share of their tokens.

    Each part is E[sum of log pi - log pi_ref over the tokens of this class]. The parts add up to
    the KL; a single one may be negative, where the policy says such tokens less often.
    """
    sums: dict[str, float] = {}
    for ids, mine, its in _each(evaluation):
        for name, p, q in zip(classes(ids), mine, its, strict=True):
            sums[name] = sums.get(name, 0.0) + p - q
            sums[f"{name} tokens"] = sums.get(f"{name} tokens", 0.0) + 1
    return {name: total / len(evaluation.flat) for name, total in sorted(sums.items())}


def kl_by_position(evaluation: Evaluation, edges: Sequence[int]) -> list[float]:
    """The KL, nats a response, as a sum over stretches of positions [edges[i], edges[i+1])."""
    sums = np.zeros(len(edges) - 1)
    for _, mine, its in _each(evaluation):
        d = np.array(mine) - np.array(its)
        place = np.searchsorted(edges, np.arange(len(d)), side="right") - 1
        keep = (place >= 0) & (place < len(sums))
        np.add.at(sums, place[keep], d[keep])
    return (sums / len(evaluation.flat)).tolist()


def direction(log_ratios: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Where a policy went, seen on the start's samples: how much of its log-ratio is gold.

    For a small change pi = pi_ref e^h / Z the KL is Var(h) / 2 and the gain of gold Cov(h, gold),
    while the tilt buys the gain G at G^2 / (2 Var(gold)). So a policy pays 1 / rho^2 times the
    price of the tilt, with rho the correlation of h with gold within a prompt. A log-ratio is an
    implicit reward (Rafailov et al. 2023), and rho^2 its share of variance explained.

    Args:
        log_ratios: (P, n) log pi(y|x) - log pi_ref(y|x) of n samples *of the start* to each prompt.
        gold: (P, n).

    Returns:
        `correlation` rho, `price_factor` 1 / rho^2, `spread` (standard deviation of h, in nats),
        all within prompts, and `gain_per_nat`, Cov(h, gold) / Var(h).
    """
    if log_ratios.shape != gold.shape or gold.ndim != 2:
        raise ShapeError(
            f"log-ratios {log_ratios.shape} and gold {gold.shape} must both be (prompts, samples)."
        )
    h = log_ratios - log_ratios.mean(1, keepdims=True)
    g = gold - gold.mean(1, keepdims=True)
    both, own, its = (h * g).mean(), (h * h).mean(), (g * g).mean()
    rho = both / np.sqrt(own * its) if own > 0 and its > 0 else 0.0
    return {
        "correlation": float(rho),
        "price_factor": float(1 / rho**2) if rho else float("inf"),
        "spread": float(np.sqrt(own)),
        "gain_per_nat": float(both / own) if own > 0 else 0.0,
    }


def distinct(responses: Sequence[Sequence[Any]], n: int = 2) -> float:
    """Distinct-n: different n-grams of tokens or words as a share of all, in a response; the mean.

    Source: Li et al. 2016 (1510.03055), who take it over a whole corpus; within a response it
    measures repetition. A response shorter than n counts 1.
    """
    found = []
    for ids in responses:
        grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        found.append(len(set(grams)) / len(grams) if grams else 1.0)
    return float(np.mean(found))


def summarise(
    evaluation: Evaluation,
    start_gold: np.ndarray,
    classes: Callable[[Sequence[int]], list[str]] | None = None,
) -> dict[str, Any]:
    """Every figure of a policy; standard errors are over prompts, whose samples are alike.

    Args:
        start_gold: (P, n) gold of the start's samples to the same prompts, for the tilt.
    """
    values, ratios = np.array(evaluation.gold), evaluation.log_ratios
    lengths = [len(y) for y in evaluation.flat]
    prompts = np.sqrt(len(values))
    found: dict[str, Any] = {
        "gold": float(values.mean()),
        "gold_se": float(values.mean(1).std(ddof=1) / prompts),
        "kl": float(ratios.mean()),
        "kl_se": float(ratios.mean(1).std(ddof=1) / prompts),
        "tokens": float(np.mean(lengths)),
        "ended": float(np.mean(evaluation.ended)),
        "distinct_2": distinct(evaluation.flat),
        "entropy": -float(np.mean([p for _, mine, _ in _each(evaluation) for p in mine])),
        "kl_of_gold": kl_of_gold(values, start_gold),
        "kl_by_position": kl_by_position(evaluation, (0, 5, 10, 20, 1 << 20)),
    }
    match = matching_tilt(start_gold, found["gold"])
    found["tilt_strength"], found["tilt_kl"] = match or (None, None)
    if classes is not None:
        found["kl_by_class"] = kl_by_class(evaluation, classes)
    return found


def _each(evaluation: Evaluation) -> list[tuple[list[int], list[float], list[float]]]:
    mine = [p for group in evaluation.logps for p in group]
    its = [q for group in evaluation.base for q in group]
    return list(zip(evaluation.flat, mine, its, strict=True))
