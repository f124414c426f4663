"""Iterative DPO: sample from the policy, let a reward pair the samples, take DPO steps, repeat.

Offline pairs cannot teach what neither of their responses does, however good it is. Pairs of the
policy's own samples lie where the policy is, and move with it.

Source: Xiong et al. 2023 (2312.11456); Xu et al. 2023 (2312.16682).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from irlbook.data.records import Prompt
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.tokenization import pad_id
from irlbook.posttraining import dpo
from irlbook.posttraining.configs import IterativeConfig
from irlbook.posttraining.rollouts import (
    PolicyScorer,
    Reward,
    Sampler,
    draw_and_score,
    draw_prompts,
)
from irlbook.training.loop import score, train

__all__ = ["Round", "iterate_dpo"]


@dataclass(frozen=True)
class Round:
    """The policy after `number` rounds, and what was done with its samples.

    Attributes:
        reward: mean of the reward over its samples.
        gold: mean of the gold reward over them, if one was given.
        kl: KL(policy || start) in nats a response, estimated on them.
        ended: share of the samples that ended by themselves.
        pairs: the pairs that the next steps were taken on; 0 in the last row, which only measures.
        ties: prompts left out because the reward could not tell their samples apart.
        history: the rows of these steps, as `training.train` leaves them.
    """

    number: int
    reward: float
    kl: float
    ended: float
    gold: float | None = None
    pairs: int = 0
    ties: int = 0
    history: list[dict[str, float]] = field(default_factory=list, repr=False)


def iterate_dpo(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    reward: Reward | nn.Module,
    config: IterativeConfig | None = None,
    *,
    seed: int = 0,
    gold: Reward | nn.Module | None = None,
    sampler: Sampler | None = None,
) -> tuple[Any, list[Round]]:
    """Improve a policy on its own samples, a round at a time.

    Args:
        model: a causal language model; stays as it is, and is the start of the KL.
        prompts: texts, or lists of messages.
        reward: a function of (prompts, responses), or a `RewardScorer` on the same tokenizer.
        seed: of prompts, samples and the order of the pairs.
        gold: measured, never optimised.
        sampler: draws the responses; None is the book's own.

    Returns:
        The trained policy, and rounds + 1 reports: the first is of `model`, the last of the policy
        that is returned.

    Raises:
        RewardError: the reward raised, or did not give a finite number for each response.
        Whatever `sample` and `train` raise.
    """
    config = config or IterativeConfig()
    device, pad = config.training.device, pad_id(tokenizer)
    start = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    policy = copy.deepcopy(model).to(device)
    objective = dpo.objective(config.loss)
    reports = []
    for number in range(config.rounds + 1):
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])  # of this round
        rollout = draw_and_score(
            PolicyScorer(policy).eval(),
            PolicyScorer(start),
            tokenizer,
            draw_prompts(prompts, config.prompts_per_round, own),
            config.samples,
            reward,
            config.training,
            seeds=own,
            max_new_tokens=config.max_new_tokens,
            sampler=sampler,
            gold=gold,
            untrained=number == 0,
        )
        found = rollout.report()
        report = Round(number, found["reward"], found["kl"], found["ended"], found.get("gold"))
        pairs = dpo.best_against_worst(rollout.groups, rollout.rewards.flatten())
        if number < config.rounds:
            report = replace(report, pairs=len(pairs), ties=len(rollout.groups) - len(pairs))
        if report.pairs:
            reference = None  # the policy as the round finds it
            if objective.needs_reference and config.reference == "start":
                reference = score(ResponseScorer(start), pairs, 2, config.training, pad)
            steps = train(
                ResponseScorer(policy),
                pairs,
                objective,
                replace(config.training, seed=own),
                reference=reference,
                pad_id=pad,
            )
            report = replace(report, history=steps.history)
        reports.append(report)
    return policy.eval(), reports
