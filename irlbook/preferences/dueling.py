"""Duels: each answer is also an answer that somebody gets, so a bad question costs something.

Two items (arms) are shown, the chooser says which is better, and both were *served*. The regret of
a duel is what the best item would have been worth more, on average over the two:

    regret(i, j) = max_k r_k - (r_i + r_j) / 2.

Items have features (A, K), rewards r = phi . w, and the chooser is Bradley–Terry's. All seeds run
at once: comparisons are kept as tables of wins (S, A, A), and the posterior is Laplace's.

Sources: Yue, Broder, Kleinberg and Joachims 2012 (duelling bandits, strong regret); Wu and Liu 2016
(1604.07101, two draws of the posterior: double Thompson sampling).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit

from irlbook.errors import InvalidHyperparameterError, shown
from irlbook.preferences.bradley_terry import laplace_of_wins

__all__ = [
    "DUEL_RULES",
    "DuelRule",
    "duel_regret",
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
