"""Rewards learned from demonstrations alone: log-ratios of two policies, and discriminators.

The best discriminator between responses of p and of q is D = p / (p + q), and the reward that
adversarial imitation pays for it is log D - log(1 - D) = log p - log q. With p the demonstrator
this is unknown. Put a fine-tuned policy in the demonstrator's place and the start in that of the
opponent, and nothing needs to be trained any more:

    r(x, y) = log pi_SFT(y|x) - log pi_start(y|x),

the *Init-SFT reward* in closed form. It is the implicit reward of DPO at beta = 1, and the start
tilted by exp(r) is the SFT policy itself.

Source: Sun and van der Schaar 2024 (2405.15624), "Inverse-RLignment".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from irlbook.data.records import Demonstration, Preference
from irlbook.errors import InfiniteDivergenceError, ShapeError, UninformativeDataError
from irlbook.lm.enumerable import check_logps
from irlbook.lm.logprobs import sequence_logps, token_logps
from irlbook.lm.trees import Tree

__all__ = ["LogRatioReward", "demonstration_pairs", "log_ratio_reward"]


def log_ratio_reward(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """(R,) log p(y) - log q(y) in nats, for every response: what the best discriminator pays.

    Args:
        log_p: (R,) log-probabilities of the demonstrator, or of the policy cloned from it.
        log_q: (R,) those of the opponent, which draws the samples.

    Returns:
        Finite where both can write y, -inf where only q can, 0 where neither can.

    Raises:
        InfiniteDivergenceError: p writes a response that q never writes.
        UninformativeDataError: p and q are the same distribution, and the reward is zero.
        ShapeError, NotStochasticError: these are no log-probabilities of the same responses.

    Source: Goodfellow et al. 2014, proposition 1; Fu et al. 2018 (AIRL) for the form of the reward.
    """
    p, q = check_logps(log_p), check_logps(log_q, "log_q")
    if p.shape != q.shape:
        raise ShapeError(f"log_p {p.shape} and log_q {q.shape} must hold the same responses.")
    never = np.isneginf(q)
    if (beyond := never & ~np.isneginf(p)).any():
        raise InfiniteDivergenceError(
            f"response {int(beyond.argmax())} is demonstrated and never sampled, so its reward is "
            "infinite. Let the opponent write every response, or smooth it."
        )
    reward = np.where(never, 0.0, p - np.where(never, 0.0, q))
    if np.abs(reward).max() < 1e-12:
        raise UninformativeDataError(
            "demonstrations and samples have the same distribution: no reward can tell them apart. "
            "Take samples of another policy, such as the start."
        )
    return reward


class LogRatioReward(nn.Module):
    """r(x, y) = log pi(y|x) - log pi_start(y|x) of two causal models, a reward of each `Tree`.

    It can be read back from two checkpoints, and takes two forward passes a response.

    Args:
        policy: fine-tuned on demonstrations. start: what it was fine-tuned from, on one tokenizer.
    """

    def __init__(self, policy: nn.Module, start: nn.Module) -> None:
        super().__init__()
        self.policy: Any = policy
        self.start: Any = start

    def forward(self, tree: Tree) -> Tensor:
        """(R,) in nats."""
        steps = token_logps(self.policy, tree) - token_logps(self.start, tree)  # (N,)
        return sequence_logps(steps, tree.lengths)


def demonstration_pairs(
    demonstrations: Sequence[Demonstration], samples: Sequence[str]
) -> list[Preference]:
    """Each demonstration as the chosen response, a sample to the same prompt as the rejected one.

    These are what SPIN calls its data, and what a discriminator of demonstrations learns from (with
    `reward_model.objective`, whose classification loss is the discriminator's). A pair whose two
    responses are the same text says nothing and is left out.

    Args:
        samples: one a demonstration, drawn for its prompt.

    Raises:
        ShapeError: another number of samples.
        UninformativeDataError: every sample is the demonstration itself.
    """
    if len(demonstrations) != len(samples):
        raise ShapeError(
            f"{len(demonstrations)} demonstrations and {len(samples)} samples; give one sample for "
            "the prompt of each demonstration."
        )
    pairs = [
        Preference(shown.prompt, chosen=shown.response, rejected=sample)
        for shown, sample in zip(demonstrations, samples, strict=True)
        if shown.response.strip() != sample.strip()
    ]
    if not pairs:
        raise UninformativeDataError(
            f"all {len(samples)} samples equal their demonstrations: there is nothing to tell "
            "apart. Were the demonstrations passed as samples?"
        )
    return pairs
