"""A reward model that must go on writing: its hidden states are regularised by text generation.

A reward model starts from a language model, and a fresh head pulls at its hidden states from the
first step. With few pairs they are bent to fit these pairs, and what the language model knew of
other texts is lost. GRM keeps the language model's own head beside the reward head, on the same
hidden states, and trains both:

    L = (1 - w) [-log s(r+ - r-)] + w [-log s(b log pi(y+|x))]

At w = 0 this is the plain reward model. At w = 1 the rewards are not trained at all, and what is
left is supervised fine-tuning on the preferred responses.

Source: Yang et al. 2024 (2406.10216), with its SFT regulariser.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from irlbook.errors import InvalidHyperparameterError, ShapeError, UnsupportedModelError
from irlbook.lm.logprobs import head_logits, hidden_states, sequence_logps
from irlbook.lm.trees import Tree
from irlbook.posttraining.reward_model import bradley_terry_loss, response_places, reward_metrics
from irlbook.training.loop import Batch, Objective

__all__ = [
    "RegularisedScorer",
    "generation_loss",
    "regularised_objective",
    "regularised_reward_loss",
]


def generation_loss(logps: Tensor, beta: float = 0.1) -> Tensor:
    """-log s(b log pi(y|x)), at least log 2: supervised fine-tuning with a bounded pull.

    A response's log-probability is never above 0, so the slope of this loss in it lies between b/2
    and b: each response is pulled with about the same force, however unlikely it is.

    Args:
        logps: (...) log pi(y|x), nats.
        beta: b > 0, per nat.

    Source: Yang et al. 2024 (2406.10216), section 3: what is left of DPO without the rejected
    response and the reference.
    """
    if not beta > 0:
        raise InvalidHyperparameterError(f"beta is {beta}; it must be positive.")
    return -logsigmoid(beta * logps)


def regularised_reward_loss(
    rewards: Tensor, chosen_logps: Tensor, weight: float = 0.01, beta: float = 0.1
) -> Tensor:
    """(1 - w) L_BT(rewards) + w L_generation(chosen_logps).

    Args:
        rewards: (P, 2), the preferred response in column 0, nats of log-odds.
        chosen_logps: (P,) log pi(y+|x) by the language model's head, nats.
        weight: w in [0, 1]; 0 is the plain reward loss, whatever the log-probabilities.
        beta: b, see `generation_loss`.

    Returns:
        (P,).
    """
    if not 0 <= weight <= 1:
        raise InvalidHyperparameterError(f"weight is {weight}; it must lie in [0, 1].")
    if chosen_logps.shape != rewards.shape[:1]:
        raise ShapeError(
            f"chosen_logps have shape {tuple(chosen_logps.shape)}; expected one a pair, "
            f"{tuple(rewards.shape[:1])}."
        )
    loss = (1 - weight) * bradley_terry_loss(rewards)
    return loss if weight == 0 else loss + weight * generation_loss(chosen_logps, beta)


class RegularisedScorer(nn.Module):
    """Rewards and log-probabilities of responses from one pass of a causal language model.

    Args:
        model: a causal language model (`lm.models.load_lm`), whose own head is kept.
        head: (1, H) the first weights of the reward head, which is read at the last token. Taking
            those of `load_reward_model(new_head=True)` gives the same start as a plain reward
            model's.
    """

    def __init__(self, model: nn.Module, head: Tensor) -> None:
        super().__init__()
        size = getattr(getattr(model, "config", None), "hidden_size", None)
        if head.shape != (1, size):
            raise UnsupportedModelError(
                f"the head has shape {tuple(head.shape)} and the model's hidden states {size} "
                "numbers; a reward head is (1, hidden size)."
            )
        self.model: Any = model
        self.head = nn.Parameter(head.detach().clone())

    def forward(self, tree: Tree) -> Tensor:
        """(R, 2): the reward, and log pi(y|x)."""
        hidden = hidden_states(self.model, tree)
        last = response_places(tree)[tree.lengths.cumsum(0) - 1]  # (R,)
        rewards = (hidden[last] @ self.head.T)[:, 0]
        rewards = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
        logits = head_logits(self.model, hidden[tree.predictor])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        steps = -nn.functional.cross_entropy(logits, tree.target, reduction="none")  # (N,)
        return torch.stack([rewards, sequence_logps(steps, tree.lengths)], dim=1)


def regularised_objective(weight: float = 0.01, beta: float = 0.1) -> Objective:
    """For `training.train` with a `RegularisedScorer`; groups are (prompt, [preferred, other])."""

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        rewards, logps = scores.view(len(batch.examples), 2, 2).unbind(-1)  # (E, 2) each
        loss = regularised_reward_loss(rewards, logps[:, 0], weight, beta)
        return {"loss": loss, **reward_metrics(rewards), "chosen_logp": logps[:, 0].detach()}

    return Objective(f"grm(weight={weight:g}, beta={beta:g})", values, responses=2)
