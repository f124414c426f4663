"""Robust reward models: pairs with responses to other prompts, so that artifacts say nothing.

An *artifact* is anything in a response that has nothing to do with its prompt, such as length or
format. Where labellers liked it, a reward model learns it. RRM adds pairs whose label is known
without a labeller: to a prompt x, a response that was written for x, chosen or rejected, beats one
that was written for another prompt; two responses of other prompts are a tie.

Take the other prompts from permutations. Then over the added pairs each response stands on the
winning side as often as on the losing side, so *every* number that is read off the response alone
has the same mean on both sides, in any data set. Nobody has to name the artifact. Nor does anybody
choose: quality that does not depend on the prompt is balanced away like an artifact.

Source: Liu et al. 2024 (2409.13156). Three prompts have six responses and 15 pairs: one is the
original, 8 have a winner, and 6 are ties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from irlbook.data.records import Preference
from irlbook.errors import InvalidDataError, InvalidHyperparameterError, ShapeError
from irlbook.posttraining.reward_model import reward_metrics
from irlbook.training.loop import Batch, Objective

__all__ = [
    "CrossPromptPairs",
    "cross_prompt_objective",
    "cross_prompt_pairs",
    "soft_preference_loss",
    "tied_weight",
]


class CrossPromptPairs(NamedTuple):
    """Pairs, and how often the first response of each is said to win.

    Attributes:
        records: `chosen` is the first response; of a tie it is just the one that stands first.
        wins: (P,) 1 where the first response wins, 1/2 for a tie.
    """

    records: list[Preference]
    wins: Tensor


def cross_prompt_pairs(
    records: Sequence[Preference],
    rng: np.random.Generator,
    *,
    won: int | None = None,
    tied: int | None = None,
) -> CrossPromptPairs:
    """The added pairs of RRM: for each record 8 with a winner and 6 ties, or some of each.

    The other two records of record i are those one and two steps ahead on a round through all
    records, in random order. So each record serves once as the one and once as the other.

    Args:
        records: the labelled pairs; a prompt may come more than once.
        won: how many of the eight to keep for each record, drawn anew for each; None keeps all.
            With fewer than eight the balance holds in expectation.
        tied: the same, of the six.

    Raises:
        InvalidDataError: fewer than three records, or one prompt has so many of them that no round
            keeps its records apart.
        InvalidHyperparameterError: won or tied is out of range.
    """
    if len(records) < 3:
        raise InvalidDataError(f"{len(records)} records; each needs those of two other prompts.")
    if not (0 <= (8 if won is None else won) <= 8 and 0 <= (6 if tied is None else tied) <= 6):
        raise InvalidHyperparameterError(
            f"won is {won} and tied is {tied}; give None, or won from 0 to 8 and tied from 0 to 6."
        )
    order = _round([str(p.prompt) for p in records], rng)
    place = np.argsort(order)
    pairs, wins = [], []
    for i, own in enumerate(records):
        near, far = (records[order[(place[i] + step) % len(records)]] for step in (1, 2))
        one, two = (near.chosen, near.rejected), (far.chosen, far.rejected)
        better = [(a, b) for a in (own.chosen, own.rejected) for b in (*one, *two)]
        equal = [*((a, b) for a in one for b in two), one, two]
        for options, keep, label in ((better, won, 1.0), (equal, tied, 0.5)):
            kept = range(len(options)) if keep is None else rng.permutation(len(options))[:keep]
            pairs += [Preference(own.prompt, *options[k]) for k in kept]
            wins += [label] * len(kept)
    return CrossPromptPairs(pairs, torch.tensor(wins))


def _round(prompts: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """(P,) a random order; one and two steps ahead, past the end too, are other prompts."""
    ids = np.unique(np.array(prompts), return_inverse=True)[1]
    order = rng.permutation(len(ids))
    for _ in range(1000):
        asked = ids[order]
        stuck = np.flatnonzero((asked == np.roll(asked, -1)) | (asked == np.roll(asked, -2)))
        if not len(stuck):
            return order
        for k in stuck:
            other = rng.integers(len(ids))
            order[[k, other]] = order[[other, k]]
    raise InvalidDataError(
        "a prompt has so many of the records that no order keeps them apart; draw other prompts."
    )


def soft_preference_loss(rewards: Tensor, wins: Tensor) -> Tensor:
    """-p log s(d) - (1 - p) log s(-d), d = r1 - r2: Bradley–Terry where the label is a chance.

    Args:
        rewards: (P, 2).
        wins: (P,) p in [0, 1]; 1 is the plain loss, 1/2 a tie, least at d = 0.

    Returns:
        (P,).

    Raises:
        ShapeError: the two do not fit together.
        InvalidHyperparameterError: a chance lies outside [0, 1].
    """
    if rewards.ndim != 2 or rewards.shape[1] != 2 or wins.shape != rewards.shape[:1]:
        raise ShapeError(
            f"rewards have shape {tuple(rewards.shape)} and wins {tuple(wins.shape)}; expected "
            "(pairs, 2) and (pairs,)."
        )
    if not bool(((wins >= 0) & (wins <= 1)).all()):
        raise InvalidHyperparameterError(
            f"wins lie from {wins.min():g} to {wins.max():g}; a chance lies in [0, 1]."
        )
    d = rewards[:, 0] - rewards[:, 1]
    return -wins * logsigmoid(d) - (1 - wins) * logsigmoid(-d)


def cross_prompt_objective() -> Objective:
    """`soft_preference_loss` for `training.train` with a `RewardScorer`.

    Groups are (prompt, [first, second]); the chances go in ``extra={"wins": (P,)}``. Of the usual
    metrics there is `mean_reward` alone: of a tie, accuracy and margin say nothing.
    """

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        rewards = batch.per_response(scores)  # (P, 2)
        loss = soft_preference_loss(rewards, batch.extra["wins"].to(rewards.dtype))
        return {"loss": loss, "mean_reward": reward_metrics(rewards)["mean_reward"]}

    return Objective("cross_prompt", values, responses=2)


def tied_weight(won: float, lost: float, ties: float) -> float:
    """The Bradley–Terry weight of an artifact of 0 or 1, in nats of log-odds.

    The maximum likelihood of w in P(first wins) = s(w (a1 - a2)), in which pairs with one artifact
    alone count: log[(won + ties/2) / (lost + ties/2)].

    Args:
        won: pairs, or a share of them, in which the response with the artifact won.
        lost: those in which it lost.
        ties: those that are labelled as a tie. Without them it is the planted weight, and with
            ever more it goes to 0.

    Raises:
        InvalidHyperparameterError: a number is negative, or one side never wins and there is no
            tie, so that no weight is best.
    """
    up, down = won + ties / 2, lost + ties / 2
    if min(won, lost, ties) < 0 or not min(up, down) > 0:
        raise InvalidHyperparameterError(
            f"won {won}, lost {lost} and ties {ties}: no finite weight is best; give numbers from "
            "0 on, and ties or wins of both sides."
        )
    return math.log(up / down)
