"""T-REX: a reward from ranked demonstrations, which may all be bad.

A chooser prefers the trajectory of the higher return, softly. The return of a linear reward is
w . phi(tau) with phi(tau) = sum_t gamma^t phi(s_t, a_t), so this is Bradley–Terry regression on
trajectory features. Imitation asks what the demonstrators did; the ranking says what would be
better, and a planner can go further that way than any of them did.

Source: Christiano et al. 2017 (1706.03741); Brown et al. 2019 (1904.06387), equation 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from irlbook.errors import InvalidPreferencesError, InvalidTrajectoryError, ShapeError
from irlbook.mdp import Trajectories
from irlbook.preferences.bradley_terry import BradleyTerryResult, fit_bradley_terry

__all__ = ["TrexResult", "cut_snippets", "fit_trex", "ranked_pairs", "trajectory_features"]


@dataclass(frozen=True)
class TrexResult:
    """A reward from a ranking.

    Attributes:
        weights: (K,). reward: (S,) or (S, A), phi w, in log-odds of a choice.
        pairs: (P, 2) the comparisons that were fitted, better first.
        accuracy: share of them that the reward orders right.
        fit: the regression.
    """

    weights: np.ndarray
    reward: np.ndarray
    pairs: np.ndarray
    accuracy: float
    fit: BradleyTerryResult


def trajectory_features(
    trajectories: Trajectories, features: np.ndarray, discount: float = 1.0
) -> np.ndarray:
    """(N, K) phi(tau_i) = sum_t gamma^t phi(s_t) or phi(s_t, a_t); features (S, K) or (S, A, K)."""
    phi = np.asarray(features, dtype=float)
    if phi.ndim not in (2, 3):
        raise ShapeError(f"features have shape {phi.shape}; expected (S, K) or (S, A, K).")
    states, actions = trajectories.acting_states, trajectories.actions
    outside = (states < 0) | (states >= len(phi))
    if phi.ndim == 3:
        outside |= (actions < 0) | (actions >= phi.shape[1])
    owner = np.repeat(np.arange(len(trajectories)), trajectories.lengths)
    if outside.any():
        row = int(np.argmax(outside))
        raise InvalidTrajectoryError(
            f"trajectory {owner[row]}, step {trajectories.steps[row]}: state {states[row]} or "
            f"action {actions[row]} has no features {phi.shape[:-1]}."
        )
    each = phi[states] if phi.ndim == 2 else phi[states, actions]
    total = np.zeros((len(trajectories), phi.shape[-1]))
    np.add.at(total, owner, discount ** trajectories.steps[:, None] * each)
    return total


def ranked_pairs(scores: Any) -> np.ndarray:
    """(P, 2) all pairs (i, j) with scores[i] > scores[j]; pairs of equal rank are left out."""
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise InvalidPreferencesError("scores must be (N,), all finite; higher is better.")
    better, worse = np.nonzero(scores[:, None] > scores[None, :])
    if not better.size:
        raise InvalidPreferencesError(
            "all trajectories have the same rank: nothing is preferred to anything."
        )
    return np.column_stack([better, worse])


def cut_snippets(
    trajectories: Trajectories, length: int, n: int, rng: np.random.Generator
) -> tuple[Trajectories, np.ndarray]:
    """n pieces of `length` actions from random places, and the trajectory (n,) each comes from.

    Many comparisons from few demonstrations, and of equal length, so that the length of a
    demonstration says nothing. The price: a good trajectory has bad pieces, so labels get noisy.
    """
    if length < 1 or length > trajectories.lengths.min():
        raise InvalidTrajectoryError(
            f"snippets of {length} actions do not fit: trajectory "
            f"{int(trajectories.lengths.argmin())} has {trajectories.lengths.min()}. "
            "Cut shorter ones, or leave it out."
        )
    owner = rng.integers(len(trajectories), size=n)
    begin = rng.integers(0, trajectories.lengths[owner] - length + 1)
    whole = list(trajectories)
    pieces = [
        (whole[i][0][b : b + length + 1], whole[i][1][b : b + length])
        for i, b in zip(owner, begin, strict=True)
    ]
    return Trajectories.from_list(pieces), owner


def fit_trex(
    trajectories: Trajectories,
    scores: Any,
    features: np.ndarray,
    *,
    discount: float = 1.0,
    l2: float = 1.0,
    mixed_lengths: bool = False,
) -> TrexResult:
    """Fit a linear reward to a ranking of trajectories.

    Args:
        trajectories: N of them, of one length. scores: (N,) higher is better; only the order is
            used, and equal ranks are not compared.
        features: (S, K) or (S, A, K). discount: gamma of the return that the ranking is about.
        l2: penalty l2 |w|^2 / 2. A ranking without mistakes is separable, so it needs one (the
            paper's network is held back by its training instead).
        mixed_lengths: allow different lengths. Then a constant reward a step is no longer
            invisible: "longer is better" or "shorter is better" becomes part of the answer.

    Raises:
        InvalidPreferencesError: mixed lengths that were not allowed, or nothing ranked.
    """
    shortest, longest = trajectories.lengths.min(), trajectories.lengths.max()
    if shortest != longest and not mixed_lengths:
        odd = np.flatnonzero(trajectories.lengths != np.bincount(trajectories.lengths).argmax())
        raise InvalidPreferencesError(
            f"trajectories have {shortest} to {longest} actions (odd ones: "
            f"{', '.join(map(str, odd[:8]))}): sums over them also compare their lengths. Cut "
            "snippets of one length (cut_snippets), or say mixed_lengths=True if duration is "
            "part of what was judged."
        )
    if np.shape(scores) != (len(trajectories),):
        raise InvalidPreferencesError(
            f"scores have shape {np.shape(scores)} for {len(trajectories)} trajectories."
        )
    phi, pairs = trajectory_features(trajectories, features, discount), ranked_pairs(scores)
    fit = fit_bradley_terry(pairs, phi, l2=l2)
    gap = fit.rewards[pairs[:, 0]] - fit.rewards[pairs[:, 1]]
    accuracy = float(((np.sign(gap) + 1) / 2).mean())
    return TrexResult(
        fit.weights, np.asarray(features, dtype=float) @ fit.weights, pairs, accuracy, fit
    )
