"""Supervised fine-tuning: behaviour cloning of whole responses.

Maximising the likelihood of demonstrations is minimising the forward KL(pi_E || pi): it covers
what the experts do, and never asks what the model itself would do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from irlbook.errors import InvalidHyperparameterError
from irlbook.lm.trees import Group
from irlbook.training.loop import Batch, Objective

__all__ = ["objective", "sft_loss"]


def sft_loss(policy_logps: Tensor, mean_length: float = 1.0) -> Tensor:
    """-log pi(y|x) / L for each demonstration; its mean over the data is cross-entropy a token.

    L is *one constant for the whole run*, such as the mean response length of the data. Dividing
    each batch by its own number of tokens instead weighs a token of a short batch more than one of
    a long batch, and with batches bucketed by length the model learns to answer short.

    Args:
        policy_logps: (R,) log pi(y|x), summed over the response's tokens, in nats.
        mean_length: L in tokens; 1 gives nats a response.

    Returns:
        (R,), at least 0.

    Raises:
        InvalidHyperparameterError: L is not a positive number.

    Source: Ouyang et al. 2022 (2203.02155); dividing by a constant: Liu et al. 2025 (2503.20783),
    where token means are what makes policy gradients prefer some lengths.
    """
    if not (mean_length > 0 and math.isfinite(mean_length)):
        raise InvalidHyperparameterError(
            f"mean_length is {mean_length}; it must be a positive number of tokens."
        )
    return -policy_logps / mean_length


def objective(groups: Sequence[Group]) -> Objective:
    """SFT for `training.train`: groups of one response; the loss is in nats a token.

    Args:
        groups: the demonstrations; their mean response length is the constant L.
    """
    lengths = [len(response) for _, responses in groups for response in responses]
    mean_length = sum(lengths) / max(1, len(lengths))

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        logps = batch.per_response(scores)[:, 0]
        return {"loss": sft_loss(logps, mean_length), "logp": logps}

    return Objective(name=f"sft(mean_length={mean_length:.6g})", values=values, responses=1)
