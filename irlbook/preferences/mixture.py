"""Mixtures of Bradley–Terry: users of a few types, and nobody told which type a user is.

User u is of type g with chance s_g, and all labels of a user come from the reward r_g of that type.
The data are rows (winner, loser) with the number of the user who gave the label.

    L(s, r) = sum_u log sum_g s_g prod_{p of u} sigma(r_g[winner] - r_g[loser])

EM raises L step by step (Dempster, Laird and Rubin 1977). MaxMin-RLHF (Chakraborty et al. 2024,
2402.08925) learns rewards of groups so, with hard assignments; here they are soft.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_expit, logsumexp

from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidPreferencesError,
    NotConvergedError,
    ShapeError,
    UnidentifiedRewardError,
    UninformativeDataError,
)
from irlbook.mdp import as_floats
from irlbook.preferences.bradley_terry import (
    as_pairs,
    check_win_graph,
    fit_bradley_terry,
    laplace_of_wins,
)

__all__ = [
    "MixtureResult",
    "fit_mixture",
    "mixture_log_likelihood",
    "responsibilities",
    "sample_users",
    "type_posterior",
    "wins_of_users",
]


def wins_of_users(users: Any, pairs: Any, n_items: int | None = None) -> np.ndarray:
    """(U, M, M) how often user u preferred item i to item j. Users are numbered 0, 1, 2 ...

    Raises:
        InvalidPreferencesError: users that are no such numbers. ShapeError: not one user a row.
    """
    given = as_pairs(pairs)
    who = np.asarray(users)
    if who.shape != (len(given),):
        raise ShapeError(f"users have shape {who.shape} for {len(given)} comparisons.")
    if who.dtype.kind not in "iu" or who.min() < 0:
        raise InvalidPreferencesError("users must be numbered 0, 1, 2 ...")
    size = int(given.max()) + 1 if n_items is None else n_items
    wins = np.zeros((int(who.max()) + 1, size, size))
    np.add.at(wins, (who, given[:, 0], given[:, 1]), 1.0)
    return wins


def sample_users(
    rewards: Any, shares: Any, n_users: int, n_labels: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw users, ask each about `n_labels` random pairs: users (P,), pairs (P, 2), types (U,).

    Args:
        rewards: (G, M) planted. shares: (G,).
    """
    r, s = as_floats(rewards, "rewards"), as_floats(shares, "shares")
    types = rng.choice(len(s), size=n_users, p=s)
    users = np.repeat(np.arange(n_users), n_labels)
    first = rng.integers(0, r.shape[1], size=len(users))
    second = (first + rng.integers(1, r.shape[1], size=len(users))) % r.shape[1]
    mine = r[types[users]]
    row = np.arange(len(users))
    wins = np.log(rng.random(len(users))) < log_expit(mine[row, first] - mine[row, second])
    pairs = np.where(wins[:, None], np.stack([first, second], 1), np.stack([second, first], 1))
    return users, pairs, types


def _user_logs(rewards: np.ndarray, wins: np.ndarray) -> np.ndarray:
    """(U, G) log-probability of all labels of a user, were the user of type g."""
    log_p = log_expit(rewards[:, :, None] - rewards[:, None, :])
    return np.einsum("uij,gij->ug", wins, log_p)


def _log_shares(shares: Any) -> np.ndarray:
    s = as_floats(shares, "shares")
    if not (s.ndim == 1 and (s >= 0).all() and abs(s.sum() - 1) < 1e-6):
        raise ShapeError("shares must be (G,), not negative, and add up to 1.")
    with np.errstate(divide="ignore"):
        return np.log(s)


def mixture_log_likelihood(rewards: Any, shares: Any, users: Any, pairs: Any) -> float:
    """L(s, r) of the head of this file, in nats.

    Args:
        rewards: (G, M). shares: (G,). users: (P,). pairs: (P, 2), column 0 preferred.
    """
    r = as_floats(rewards, "rewards")
    wins = wins_of_users(users, pairs, r.shape[1])
    return float(logsumexp(_log_shares(shares) + _user_logs(r, wins), axis=1).sum())


def responsibilities(rewards: Any, shares: Any, users: Any, pairs: Any) -> np.ndarray:
    """(U, G) chance that user u is of type g, given the user's labels: the E step."""
    r = as_floats(rewards, "rewards")
    return _posterior(_log_shares(shares), _user_logs(r, wins_of_users(users, pairs, r.shape[1])))


def _posterior(log_shares: np.ndarray, logs: np.ndarray) -> np.ndarray:
    joint = log_shares + logs
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


def type_posterior(rewards: Any, shares: Any, pairs: Any) -> np.ndarray:
    """(G,) chance of each type for one new user with the labels `pairs` (P, 2), P >= 0."""
    given = np.asarray(pairs, dtype=int).reshape(-1, 2)
    if not len(given):
        return np.exp(_log_shares(shares))
    return responsibilities(rewards, shares, np.zeros(len(given), dtype=int), given)[0]


@dataclass(frozen=True)
class MixtureResult:
    """A fitted mixture, its types ordered from the most to the least common.

    Attributes:
        rewards: (G, M), each row adds up to 0. shares: (G,).
        log_likelihood: L, without the penalty.
        curve: the penalised log-likelihood after each step of the best start; it never falls.
        ends: where each start ended (penalised); NaN for a start in which a type vanished.
    """

    rewards: np.ndarray
    shares: np.ndarray
    log_likelihood: float
    curve: np.ndarray = field(repr=False)
    ends: np.ndarray = field(repr=False)

    @property
    def n_parameters(self) -> int:
        """Free numbers: M - 1 differences for each type, G - 1 shares."""
        n_types, n_items = self.rewards.shape
        return n_types * (n_items - 1) + n_types - 1


def fit_mixture(
    users: Any,
    pairs: Any,
    n_types: int,
    rng: np.random.Generator,
    *,
    n_items: int | None = None,
    l2: float = 0.1,
    starts: int = 5,
    min_labels: int = 2,
    smallest: float = 1.0,
    tolerance: float = 1e-4,
    max_steps: int = 2000,
) -> MixtureResult:
    """Maximise L - l2 / 2 sum_g |r_g|^2 by EM, from several starts.

    Args:
        users: (P,) who gave the label. pairs: (P, 2), column 0 preferred. n_types: G.
        rng: draws the starts. n_items: M, when the last items may be missing from `pairs`.
        l2: penalty; with 0 a type whose labels separate has no finite reward.
        starts: EM climbs to the nearest top; the best of several starts is returned.
        min_labels: a user with fewer labels raises. One label says nothing about who goes with
            whom; 1 lets such users in, for what they say about the average.
        smallest: a type that holds less than so many users has vanished.
        tolerance: EM stops when a step gains less, in nats. max_steps: of EM for each start.

    Raises:
        UnidentifiedRewardError: items that were never compared with the rest, or several types and
            no user with two labels.
        SeparablePreferencesError: l2 = 0, and a type has no finite best reward.
        UninformativeDataError: users with too few labels, by number; or a type vanished in every
            start, which says that the data hold fewer types.
        NotConvergedError: `max_steps` were not enough.
    """
    if n_types < 1 or starts < 1:
        raise InvalidHyperparameterError("n_types and starts must be at least 1.")
    wins = wins_of_users(users, pairs, n_items)
    labels = wins.sum(axis=(1, 2))
    few = np.flatnonzero(labels < min_labels)
    if n_types > 1 and labels.max() < 2:
        raise UnidentifiedRewardError(
            "every user gave one label: only the average choice can be seen, not who goes with "
            "whom. Ask users more than once, or fit one type."
        )
    if n_types > 1 and len(few):
        raise UninformativeDataError(
            f"users {', '.join(map(str, few[:8]))}{' ...' if len(few) > 8 else ''} gave fewer than "
            f"{min_labels} labels. Leave them out, or give min_labels=1."
        )
    if not l2:
        check_win_graph(as_pairs(pairs), n_items)
    _check_connected(wins.sum(axis=0))
    climbs = [_climb(wins, n_types, rng, l2, smallest, tolerance, max_steps) for _ in range(starts)]
    ends = np.array([np.nan if climb is None else climb[2][-1] for climb in climbs])
    if np.isnan(ends).all():
        raise UninformativeDataError(
            f"in each of {starts} starts a type ended with less than {smallest:g} of "
            f"{len(wins)} users: the data hold fewer than {n_types} types. Fit fewer."
        )
    best = climbs[int(np.nanargmax(ends))]
    assert best is not None
    rewards, shares, curve = best
    order = np.argsort(-shares)
    rewards = rewards[order] - rewards[order].mean(axis=1, keepdims=True)
    likelihood = float(logsumexp(np.log(shares[order]) + _user_logs(rewards, wins), axis=1).sum())
    return MixtureResult(rewards, shares[order], likelihood, curve, ends)


def _check_connected(wins: np.ndarray) -> None:
    """Every item must have met the rest, whoever asked; a penalty would only hide that."""
    met = (wins + wins.T) > 0
    reach = np.zeros(len(met), dtype=bool)
    reach[0] = True
    for _ in range(len(met)):
        reach = reach | met[reach].any(axis=0)
    if not reach.all():
        raise UnidentifiedRewardError(
            f"items {', '.join(map(str, np.flatnonzero(~reach)[:8]))} were never compared with "
            "item 0, directly or by others: their rewards cannot be placed. Compare some of them."
        )


def _climb(wins, n_types, rng, l2, smallest, tolerance, max_steps):
    """EM from one start: (rewards, shares, curve), or None when a type vanished."""
    n_users, n_items = wins.shape[:2]
    i, j = np.nonzero(wins.sum(axis=0))
    pairs, counts = np.column_stack([i, j]), wins[:, i, j]
    belief = rng.dirichlet(np.ones(n_types), size=n_users) if n_types > 1 else np.ones((n_users, 1))
    curve: list[float] = []
    rewards = np.zeros((n_types, n_items))
    items = np.broadcast_to(np.eye(n_items), (n_types, n_items, n_items))  # a reward for each
    for _ in range(max_steps):
        if n_types > 1 and belief.sum(axis=0).min() < smallest:
            return None
        shares = belief.mean(axis=0)  # the M step
        weights = belief.T @ counts
        if l2:
            won = np.zeros((n_types, n_items, n_items))
            won[:, i, j] = weights
            rewards, _ = laplace_of_wins(won, items, l2, rewards, steps=50)
        else:
            fits = (fit_bradley_terry(pairs, counts=weight, n_items=n_items) for weight in weights)
            rewards = np.array([fit.rewards for fit in fits])
        joint = np.log(shares) + _user_logs(rewards, wins)  # the E step
        curve.append(float(logsumexp(joint, axis=1).sum() - l2 * (rewards**2).sum() / 2))
        belief = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        if len(curve) > 1 and curve[-1] - curve[-2] < tolerance:
            return rewards, shares, np.array(curve)
    raise NotConvergedError(
        f"EM still gained {curve[-1] - curve[-2]:.2g} nats after {max_steps} steps; raise "
        "max_steps, or loosen the tolerance."
    )
