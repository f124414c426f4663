"""Process rewards: labels for steps, a model of them, and what becomes of its many numbers.

A solution is cut into pieces, its steps and its answer. An *outcome reward model* (ORM) scores the
whole, a *process reward model* (PRM) each prefix: is all right so far? Both are the same
classifier, on other rows. `label_objective` trains either with `training.train` and a
`RewardScorer`; the labels come

* from an oracle, who checks the steps;
* from rollouts (`rollout_label`): finish the prefix many times and see how often the answer comes
  out right. Nobody looks at the steps, so a wrong step whose error cancels is called right.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.training.loop import Batch, Objective

__all__ = [
    "Aggregate",
    "area_under_curve",
    "first_below",
    "label_objective",
    "prefix_labels",
    "rollout_label",
    "solution_score",
]

Aggregate = Literal["product", "minimum", "last"]


def prefix_labels(step_right: ArrayLike) -> np.ndarray:
    """(S,) whether all steps up to each one are right: a prefix does not recover.

    Lightman et al. (2023, 2305.20050) label the steps up to the first wrong one.
    """
    return np.logical_and.accumulate(np.asarray(step_right, dtype=bool))


def rollout_label(finished_right: ArrayLike, hard: bool = False) -> float:
    """A prefix's label from its completions: the share of right answers, or whether one is.

    Raises: ShapeError: no completion.

    Source: Wang et al. 2023 (2312.08935), hard and soft estimation.
    """
    right = np.asarray(finished_right, dtype=float)
    if not right.size:
        raise ShapeError("there is no completion; draw at least one.")
    return float(right.max() if hard else right.mean())


def label_objective() -> Objective:
    """Cross-entropy of one response's score with its label, for `training.train`.

    Groups are (prompt, [response]); the labels, in [0, 1], go in ``extra={"label": (E,)}``.
    """

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        z = batch.per_response(scores)[:, 0]
        label = batch.extra["label"].to(z.dtype)
        loss = binary_cross_entropy_with_logits(z, label, reduction="none")
        return {"loss": loss, "accuracy": ((z > 0) == (label > 0.5)).to(z.dtype).detach()}

    return Objective("label", values, responses=1, start=float(torch.log(torch.tensor(2.0))))


def solution_score(chances: ArrayLike, how: Aggregate = "product") -> float:
    """One number for a solution from the chances (S,) of its pieces to be right.

    The product is the chance that all are right, if each is the chance *given* the ones before; the
    minimum trusts the worst step; the last sees the whole solution.

    Raises: InvalidHyperparameterError: an unknown way. ShapeError: no piece.

    Source: Lightman et al. 2023 (2305.20050) compare product and minimum.
    """
    p = np.asarray(chances, dtype=float)
    if how not in get_args(Aggregate):
        raise InvalidHyperparameterError(
            f"how is {how!r}; choose from {', '.join(get_args(Aggregate))}."
        )
    if p.ndim != 1 or not p.size:
        raise ShapeError(f"chances have shape {p.shape}; expected one a piece, at least one.")
    return float({"product": p.prod(), "minimum": p.min(), "last": p[-1]}[how])


def first_below(chances: ArrayLike, threshold: float = 0.5) -> int | None:
    """The first piece whose chance is below the threshold: where a PRM sees the mistake."""
    below = np.flatnonzero(np.asarray(chances, dtype=float) < threshold)
    return int(below[0]) if below.size else None


def area_under_curve(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that a right one scores above a wrong one, ties counting half; NaN without both."""
    s, y = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    if s.shape != y.shape or s.ndim != 1:
        raise ShapeError(f"scores have shape {s.shape} and labels {y.shape}; expected one axis.")
    if y.all() or not y.any():
        return float("nan")
    _, place, count = np.unique(s, return_inverse=True, return_counts=True)
    rank = (count.cumsum() - (count - 1) / 2)[place]  # ties share their mean rank
    n = int(y.sum())
    return float((rank[y].sum() - n * (n + 1) / 2) / (n * (len(y) - n)))
