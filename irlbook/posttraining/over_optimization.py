"""Tools of chapter 15: reward ensembles, spectators, honest readings of curves, stopping rules.

The study that uses them, and the results that ship, are in
:mod:`irlbook.posttraining.over_optimization_study`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from irlbook.errors import (
    InvalidHyperparameterError,
    RewardError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.lm.trees import Group, Tree
from irlbook.posttraining.configs import How
from irlbook.posttraining.reward_model import ensemble_reward, is_constant
from irlbook.training.config import StepConfig
from irlbook.training.loop import score

__all__ = [
    "LengthPenalty",
    "RewardEnsemble",
    "Rows",
    "Rule",
    "Watch",
    "at_kl",
    "best_elsewhere",
    "best_row",
    "length_controlled_win_rate",
    "smooth",
    "stops_at",
    "when_above",
    "when_falls",
]

Rows = Sequence[Mapping[str, float]]
Rule = Callable[[Rows], str | None]


# Rewards made of rewards --------------------------------------------------------------------------


class RewardEnsemble(nn.Module):
    """One reward of several reward models, in units of its spread on the start's own samples.

    Bradley–Terry leaves each member's zero free, and its scale depends on how long it was trained.
    So each is standardised first, z_m = (r_m - mean) / sd over samples of the start. They are
    joined by :func:`irlbook.posttraining.reward_model.ensemble_reward`, and the result is
    standardised once more: then a price of KL means the same for one model, for a mean of three
    (whose spread is smaller), and for the worst of three (whose mean is lower).

    Args:
        members: modules whose forward(Tree) gives (R,), on one tokenizer. One is allowed.
        how: mean, worst or uncertainty (mean - weight * variance over the members).
    """

    def __init__(self, members: Sequence[nn.Module], how: How = "mean", weight: float = 0.5):
        super().__init__()
        if not len(members):
            raise InvalidHyperparameterError("an ensemble needs at least one member.")
        ensemble_reward(torch.zeros(1, 1), how, weight)  # checks the two
        self.members = nn.ModuleList(members)
        self.how, self.weight = how, weight
        self.register_buffer("centre", torch.zeros(len(members)))
        self.register_buffer("scale", torch.ones(len(members)))
        self.register_buffer("own_centre", torch.zeros(()))
        self.register_buffer("own_scale", torch.ones(()))

    def standardise(
        self, groups: Sequence[Group], config: StepConfig | None = None, pad_id: int = 0
    ) -> RewardEnsemble:
        """Take zeros and scales from samples of the start; returns itself.

        Raises:
            UninformativeDataError: a member gives all these samples the same reward.
        """
        n = len(groups[0][1])
        each = [score(m.eval(), groups, n, config, pad_id).flatten() for m in self.members]
        raw = torch.stack(each)  # (M, R)
        self.centre, self.scale = raw.mean(1), raw.std(1)
        if (alike := is_constant(raw, dim=1)).any():
            raise UninformativeDataError(
                f"member {int(alike.int().argmax())} (counted from 0) gives all samples the same "
                "reward, so it cannot be scaled. Leave it out."
            )
        self.own_centre, self.own_scale = torch.zeros(()), torch.ones(())
        joined = self.join(raw)
        self.own_centre, self.own_scale = joined.mean(), joined.std()
        return self

    def join(self, raw: Tensor) -> Tensor:
        """(...) the ensemble's reward, from what the members say, (M, ...)."""
        shape = (len(self.members), *[1] * (raw.ndim - 1))
        z = (raw - self.centre.to(raw).view(shape)) / self.scale.to(raw).view(shape)
        joined = ensemble_reward(z, self.how, self.weight)
        return (joined - self.own_centre.to(raw)) / self.own_scale.to(raw)

    def forward(self, tree: Tree) -> Tensor:
        """(R,)"""
        return self.join(torch.stack([member(tree) for member in self.members]))


class LengthPenalty(nn.Module):
    """r(x, y) - price (|y| - usual): tokens beyond the usual number cost."""

    def __init__(self, reward: nn.Module, price: float, usual: float) -> None:
        super().__init__()
        if not price >= 0:
            raise InvalidHyperparameterError(f"price is {price}; a penalty is not negative.")
        self.reward, self.price, self.usual = reward, price, usual

    def forward(self, tree: Tree) -> Tensor:
        """(R,)"""
        rewards = self.reward(tree)
        return rewards - self.price * (tree.lengths.to(rewards) - self.usual)


class Watch(nn.Module):
    """A reward with spectators: models that score the same responses and change nothing.

    `take` gives the mean of each since it was last called; as the `evaluate` of
    :func:`irlbook.posttraining.online.train_online` with `evaluate_every=1` it puts them into the
    row of each iteration, where a stopping rule can see them.
    """

    def __init__(self, reward: nn.Module, spectators: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.reward, self.spectators = reward, nn.ModuleDict(spectators)
        self._sums: dict[str, float] = {}
        self._count = 0

    def forward(self, tree: Tree) -> Tensor:
        """(R,) the reward alone."""
        with torch.no_grad():
            for name, spectator in self.spectators.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(spectator(tree).sum())
        self._count += len(tree.lengths)
        return self.reward(tree)

    def take(self, policy: Any = None) -> dict[str, float]:
        """The means, and a fresh start."""
        found = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return found


# Reading curves -----------------------------------------------------------------------------------


def smooth(values: ArrayLike, window: int = 3) -> np.ndarray:
    """Mean of each value with those before it, `window` in all; along the last axis."""
    values = np.asarray(values, dtype=float)
    if window < 1:
        raise InvalidHyperparameterError(f"window is {window}; at least 1.")
    total = np.cumsum(values, axis=-1)
    before = np.zeros_like(total)
    before[..., window:] = total[..., :-window]
    return (total - before) / np.minimum(np.arange(values.shape[-1]) + 1, window)


def best_elsewhere(gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where gold is best, chosen on the *other* runs: (places, values), (S,) each.

    The maximum of a noisy curve lies above the curve's true maximum, so a run's peak must not be
    chosen on the run itself. Here the mean curve of the other S - 1 runs says where to look.

    Args:
        gold: (S, T), smoothed or not. At least two runs.
    """
    gold = np.asarray(gold, dtype=float)
    if gold.ndim != 2 or len(gold) < 2:
        raise ShapeError(f"gold has shape {gold.shape}; expected (runs, times), two runs or more.")
    others = (gold.sum(0) - gold) / (len(gold) - 1)  # (S, T)
    places = others.argmax(1)
    return places, gold[np.arange(len(gold)), places]


def at_kl(kl: np.ndarray, values: np.ndarray, grid: Any) -> np.ndarray:
    """A run's values where its KL *first* reaches each of `grid`; NaN beyond its largest KL.

    Args:
        kl, values: (T,). grid: (G,) nats.
    """
    kl, values = np.asarray(kl, dtype=float), np.asarray(values, dtype=float)
    grid = np.asarray(grid, dtype=float)
    if kl.ndim != 1 or kl.shape != values.shape:
        raise ShapeError(f"kl {kl.shape} and values {values.shape} must be flat and alike.")
    furthest = np.maximum.accumulate(np.maximum(kl, 0.0))
    new = np.concatenate([[True], np.diff(furthest) > 0])  # the times when it goes further
    found = np.interp(grid, furthest[new], values[new])
    return np.where(grid <= furthest[-1], found, np.nan)


def length_controlled_win_rate(
    wins: np.ndarray, length_difference: np.ndarray, l2: float = 1e-4
) -> float:
    """What the win rate would be between answers of one length.

    A logistic regression of the judge's preference, P(win) = s(a + b tanh(D / sd(D))), with D how
    much longer the answer is than its rival; then D = 0 leaves s(a).

    Args:
        wins: (N,) in [0, 1], the judge's preference for the answer; a tie is 1/2.
        length_difference: (N,). l2: a small penalty on a and b, for judges who are never torn.

    Source: Dubois et al. 2024 (2404.04475), without its term for the prompt.
    """
    wins, d = np.asarray(wins, dtype=float), np.asarray(length_difference, dtype=float)
    if wins.ndim != 1 or wins.shape != d.shape or not len(wins):
        raise ShapeError(f"wins {wins.shape} and lengths {d.shape} must be flat and alike.")
    if not ((wins >= 0) & (wins <= 1)).all():
        raise RewardError("wins must lie in [0, 1].")
    spread = d.std()
    x = np.column_stack([np.ones_like(d), np.tanh(d / spread) if spread > 0 else np.zeros_like(d)])
    w = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (p - wins) / len(d) + l2 * w
        hessian = (x * (p * (1 - p))[:, None]).T @ x / len(d) + l2 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        w = w - step
        if np.abs(step).max() < 1e-10:
            break
    return float(1 / (1 + np.exp(-w[0])))


# When to stop -------------------------------------------------------------------------------------


def when_falls(name: str, window: int = 3, patience: int = 6) -> Rule:
    """Stop when the smoothed column `name` has not been at its best for `patience` iterations.

    Then go back to the policy of :func:`best_row`. With too little patience the noise of the first
    iterations ends the run.

    Args:
        name: what a held-out reward model says, for example; never gold (`train_online` takes it
            out of the rows).
    """

    def rule(rows: Rows) -> str | None:
        if rows and len(rows) - 1 - best_row(name, rows, window) >= patience:
            return f"{name} has been below its best for {patience} iterations"
        return None

    return rule


def best_row(name: str, rows: Rows, window: int = 3) -> int:
    """The row (from 0) where the smoothed column is greatest: the policy after so many steps."""
    return int(smooth([row[name] for row in rows], window).argmax())


def when_above(name: str, limit: float, window: int = 3) -> Rule:
    """Stop when the smoothed column `name` exceeds a limit: a budget of KL, or of length."""

    def rule(rows: Rows) -> str | None:
        if rows and (value := smooth([row[name] for row in rows], window)[-1]) > limit:
            return f"{name} is {value:.3g}, above {limit:.3g}"
        return None

    return rule


def stops_at(rule: Rule, rows: Rows) -> int:
    """The iterations that a run with these rows would have made under the rule; all, if never."""
    return next((n for n in range(len(rows)) if rule(rows[:n])), len(rows))
