"""Duels: each answer is also an answer that somebody gets, so a bad question costs something.

Two items (arms) are shown, the chooser says which is better, and both were *served*. The regret of
a duel is what the best item would have been worth more, on average over the two:

    regret(i, j) = max_k r_k - (r_i + r_j) / 2.

Items have features (A, K), rewards r = phi . w, and the chooser is Bradley-Terry's. All seeds run
at once: comparisons are kept as tables of wins (S, A, A), and the posterior is Laplace's.

Sources: Yue, Broder, Kleinberg and Joachims 2012 (duelling bandits, strong regret); Wu and Liu 2016
(1604.07101, two draws of the posterior: double Thompson sampling).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit

from irlbook.errors import InvalidHyperparameterError, ShapeError, shown

__all__ = [
    "DUEL_RULES",
    "DuelRule",
    "duel_regret",
    "laplace_of_wins",
    "run_duels",
]

DuelRule = Literal["random", "greedy", "most informative", "explore, then commit", "two draws"]
DUEL_RULES: tuple[DuelRule, ...] = get_args(DuelRule)


def duel_regret(rewards: Any, first: Any, second: Any) -> np.ndarray:
    """(S,) max r - (r_first + r_second) / 2 for each seed; 0 only if both are best.

    Args:
        rewards: (S, A). first, second: (S,) items shown.

    Source: the strong regret of Yue et al. 2012, in units of reward instead of probability.
    """
    r = np.asarray(rewards, dtype=float)
    rows = np.arange(len(r))
    shown_ = (r[rows, np.asarray(first)] + r[rows, np.asarray(second)]) / 2
    return np.asarray(r.max(axis=1) - shown_)


def laplace_of_wins(
    wins: Any, features: Any, l2: float, start: Any = None, steps: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """(S, K) posterior modes and (S, K, K) covariances, of S tables of wins at once.

    Args:
        wins: (S, A, A), [s, i, j] how often i was preferred to j. features: (S, A, K).
        l2: precision of the prior. start: (S, K) where Newton begins; None: at 0.
        steps: of Newton's method, each halved until it does not lower the posterior.

    Raises:
        InvalidHyperparameterError: l2 is not above 0 (then a mode need not exist).
        ShapeError: wins and features do not fit.
    """
    if not l2 > 0:
        raise InvalidHyperparameterError(f"l2 is {l2}; without a prior the mode may be infinite.")
    n, phi = np.asarray(wins, dtype=float), np.asarray(features, dtype=float)
    if n.ndim != 3 or phi.ndim != 3 or n.shape[:2] != phi.shape[:2] or n.shape[1] != n.shape[2]:
        raise ShapeError(f"wins {n.shape} and features {phi.shape} must be (S, A, A), (S, A, K).")
    i, j = np.triu_indices(n.shape[1], 1)
    d = phi[:, i] - phi[:, j]  # (S, P, K)
    won, played = n[:, i, j], n[:, i, j] + n[:, j, i]
    w = np.zeros(phi.shape[::2]) if start is None else np.array(start, dtype=float)
    eye = l2 * np.eye(phi.shape[2])

    def parts(v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        z = np.einsum("spk,sk->sp", d, v)
        p = expit(z)
        height = (won * z - played * np.logaddexp(0, z)).sum(axis=1) - l2 * (v**2).sum(axis=1) / 2
        slope = np.einsum("sp,spk->sk", won - played * p, d) - l2 * v
        curve = np.einsum("sp,spk,spl->skl", played * p * (1 - p), d, d, optimize=True) + eye
        return height, slope, curve

    height, slope, curve = parts(w)
    for _ in range(steps):
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        length = np.ones(len(w))
        for _ in range(20):
            new = parts(w + length[:, None] * step)
            worse = new[0] < height - 1e-12 * np.abs(height)
            if not worse.any():
                break
            length = np.where(worse, length / 2, length)
        w = w + length[:, None] * step
        height, slope, curve = new
        if np.abs(slope).max() < 1e-9:
            break
    return w, np.linalg.inv(curve)


def run_duels(
    features: Any,
    weights: Any,
    rule: DuelRule,
    rounds: int,
    rng: np.random.Generator,
    *,
    l2: float = 1.0,
    explore: int = 50,
) -> np.ndarray:
    """(S, rounds) cumulative regret of a rule on S worlds.

    - "random": two different items at random, for ever.
    - "greedy": the two items that look best.
    - "most informative": the pair of the largest p (1 - p) d' Sigma d, whatever it costs.
    - "explore, then commit": random for `explore` rounds, then the item that looked best, twice.
    - "two draws": of two draws of the posterior, the best item of each; they may be one item, and
      then nothing is learned and nothing lost.

    Args:
        features: (S, A, K). weights: (S, K) true. rounds: duels in each world. rng: of everything.
        l2: precision of the prior. explore: rounds before the commitment.

    Raises:
        InvalidHyperparameterError: another rule, or no round.
    """
    if rule not in DUEL_RULES:
        raise InvalidHyperparameterError(
            f"rule is {shown(rule)}; use one of {', '.join(DUEL_RULES)}."
        )
    if rounds < 1:
        raise InvalidHyperparameterError(f"rounds is {rounds}; give at least 1.")
    phi, w_true = np.asarray(features, dtype=float), np.asarray(weights, dtype=float)
    seeds, items, n_features = phi.shape
    rewards = np.einsum("sak,sk->sa", phi, w_true)
    pair = np.stack(np.triu_indices(items, 1), axis=1)  # (P, 2)
    d = phi[:, pair[:, 0]] - phi[:, pair[:, 1]]
    wins, rows = np.zeros((seeds, items, items)), np.arange(seeds)
    mean = np.zeros((seeds, n_features))
    sigma = np.tile(np.eye(n_features) / l2, (seeds, 1, 1))
    regret = np.zeros((seeds, rounds))
    for t in range(rounds):
        if rule == "random" or (rule == "explore, then commit" and t < explore):
            first, second = pair[rng.integers(len(pair), size=seeds)].T
        elif rule == "greedy":
            # equal means (at the start, all of them) are put in random order
            looks = np.einsum("sak,sk->sa", phi, mean) + 1e-9 * rng.random((seeds, items))
            first, second = np.argsort(-looks, axis=1)[:, :2].T
        elif rule == "most informative":
            p = expit(np.einsum("spk,sk->sp", d, mean))
            leverage = np.einsum("spk,skl,spl->sp", d, sigma, d, optimize=True)
            first, second = pair[np.argmax(p * (1 - p) * leverage, axis=1)].T
        elif rule == "two draws":
            root = np.linalg.cholesky(sigma)
            first, second = (
                np.argmax(
                    np.einsum(
                        "sak,sk->sa",
                        phi,
                        mean + np.einsum("skl,sl->sk", root, rng.normal(size=mean.shape)),
                    ),
                    axis=1,
                )
                for _ in range(2)
            )
        else:  # committed
            first = second = np.argmax(np.einsum("sak,sk->sa", phi, mean), axis=1)
        regret[:, t] = duel_regret(rewards, first, second)
        won = rng.random(seeds) < expit(rewards[rows, first] - rewards[rows, second])
        apart = first != second
        winner, loser = np.where(won, first, second), np.where(won, second, first)
        wins[rows[apart], winner[apart], loser[apart]] += 1
        if rule != "random" and apart.any():
            mean, sigma = laplace_of_wins(wins, phi, l2, mean, steps=2)
    return regret.cumsum(axis=1)
