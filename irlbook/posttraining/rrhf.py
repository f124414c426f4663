"""RRHF: rank the k responses to a prompt by reward, and have the log-probabilities follow.

Two terms: a hinge for each pair whose order the policy has wrong, and SFT on the best response.
There is no reference model and no KL: the SFT term alone holds the policy. The responses may come
from anywhere, other models and people too, since no importance ratio enters.

Source: Yuan et al. 2023 (2304.05302), "RRHF: Rank responses to align language models with human
feedback without tears".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from irlbook.errors import InvalidHyperparameterError, ResponseError, RewardError, ShapeError
from irlbook.training.loop import Batch, Objective

__all__ = ["objective", "ranking_accuracy", "ranking_loss", "rrhf_loss"]


def ranking_loss(logps: Tensor, rewards: Tensor, lengths: Tensor) -> Tensor:
    """(P,) sum over pairs with r_i < r_j of max(0, p_i - p_j), where p = log pi(y|x) / |y|.

    p is a mean over tokens. With sums, a long response stands below a short one whatever they say,
    and the ranking would spend itself on lengths. A tie of the reward asks for nothing.

    Args:
        logps: (P, k) log pi(y|x), summed over the response's tokens, in nats.
        rewards: (P, k) in any units: only their order counts. lengths: (P, k) tokens, >= 1.

    Raises:
        ShapeError: not three (P, k) with k >= 2. ResponseError: a response without a token.
        RewardError: a reward is not finite.

    Source: Yuan et al. 2023, equations 1 and 2.
    """
    _check(logps, rewards, lengths)
    p = logps / lengths.to(logps.dtype)
    excess = (p[:, :, None] - p[:, None, :]).clamp(min=0)  # (P, i, j): p_i above p_j
    wrong = rewards[:, :, None] < rewards[:, None, :]  # r_i < r_j
    return (excess * wrong).sum(dim=(1, 2))


def rrhf_loss(logps: Tensor, rewards: Tensor, lengths: Tensor, sft_weight: float = 1.0) -> Tensor:
    """(P,) the ranking loss - w log pi(y_best|x), with y_best the first response of top reward.

    The second term is a *sum* over tokens, as in the paper's equation 3; the ranking is per token.
    (The authors' code averages it over tokens. That is another weight for each length.)

    Args:
        logps, rewards, lengths: (P, k), as for `ranking_loss`. sft_weight: w >= 0.

    Source: Yuan et al. 2023, equation 4, where w = 1.
    """
    if not (sft_weight >= 0 and math.isfinite(sft_weight)):
        raise InvalidHyperparameterError(f"sft_weight is {sft_weight}; it must be 0 or more.")
    ranking = ranking_loss(logps, rewards, lengths)
    best = rewards.argmax(dim=1, keepdim=True)
    return ranking - sft_weight * logps.gather(1, best)[:, 0]


def ranking_accuracy(logps: Tensor, rewards: Tensor, lengths: Tensor) -> Tensor:
    """(P,) share of the pairs with different rewards that p puts in order; NaN without any."""
    _check(logps, rewards, lengths)
    p = (logps / lengths.to(logps.dtype)).detach()
    apart = rewards[:, :, None] < rewards[:, None, :]
    right = (torch.sign(p[:, None, :] - p[:, :, None]) + 1) / 2
    return (right * apart).sum(dim=(1, 2)) / apart.sum(dim=(1, 2))


def objective(responses: int, sft_weight: float = 1.0) -> Objective:
    """RRHF for `training.train`: groups of k responses, with ``extra={"rewards": (P, k)}``.

    A group whose rewards all tie has no pair: it is trained on its first response alone. Leave
    such groups out (`policy_gradient.constant_groups`) unless that is wanted.

    Args:
        responses: k, at least 2.
    """
    if responses < 2:
        raise InvalidHyperparameterError(f"responses is {responses}; a ranking needs 2 or more.")
    rrhf_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2), sft_weight)  # refuse it now

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        logps = batch.per_response(scores)  # (P, k)
        given, lengths = batch.extra["rewards"], batch.tree.lengths.view(-1, responses)
        accuracy = ranking_accuracy(logps, given, lengths)
        return {
            "loss": rrhf_loss(logps, given, lengths, sft_weight),
            "ranking": ranking_loss(logps.detach(), given, lengths),
            "accuracy": torch.where(accuracy.isnan(), 0.5, accuracy),
        }

    return Objective(f"rrhf(sft_weight={sft_weight!r})", values, responses=responses)


def _check(logps: Tensor, rewards: Tensor, lengths: Tensor) -> None:
    if logps.ndim != 2 or logps.shape[1] < 2 or not logps.shape == rewards.shape == lengths.shape:
        raise ShapeError(
            f"log-probabilities {tuple(logps.shape)}, rewards {tuple(rewards.shape)} and lengths "
            f"{tuple(lengths.shape)} must be (prompts, responses) all three, with 2 or more "
            "responses a prompt."
        )
    if (lengths < 1).any():
        raise ResponseError("a response has no token; the end token counts as one.")
    if not torch.isfinite(rewards).all():
        raise RewardError("a reward is not finite, so it ranks nothing; find its response first.")
