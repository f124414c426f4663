"""RAFT, or rejection sampling: fit the policy to the best of k of its own samples, and repeat.

A round draws k responses to each prompt, keeps the one that the reward likes best, and takes SFT
steps on those. No reference, no clip, no value: what the reward says only chooses the data.

With endless samples and a policy that can be fitted exactly, a round *is* best of k: after r rounds
the policy is the best of k^r of the start (`raft_update`). So three rounds of eight aim at the best
of 512, and may cost its KL, up to log 512 - 511/512 nats.

A prompt whose k rewards are all equal says nothing about what is better, and is skipped here and
counted. That is a choice, and it matters: as published, RAFT fits a winner in any case, and the
winner of k bad responses is bad. Xiong et al. 2025 (2504.11343) find GRPO's main advantage in
dropping the prompts whose responses are all wrong, and not in its normalisation. What the skipping
converges to is `raft_update(..., drop_constant=True)`: another policy than the best of k.

Source: Dong et al. 2023 (2304.06767), algorithm 1; Touvron et al. 2023 (2307.09288), section 3.2.3,
as "rejection sampling fine-tuning".
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from irlbook.data.records import Prompt
from irlbook.errors import (
    CheckpointError,
    InvalidHyperparameterError,
    ResumeMismatchError,
    RewardError,
    ShapeError,
)
from irlbook.lm.enumerable import best_of_n
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.sampling import Samples
from irlbook.lm.tokenization import encode_prompt, pad_id, stop_ids
from irlbook.lm.trees import Group
from irlbook.posttraining import sft
from irlbook.posttraining.configs import RaftConfig
from irlbook.posttraining.policy_gradient import constant_groups
from irlbook.posttraining.rollouts import (
    PolicyScorer,
    Reward,
    Sampler,
    draw_and_score,
    draw_prompts,
)
from irlbook.training.checkpoints import fingerprint, going_on, write_whole
from irlbook.training.distributed import is_main_process
from irlbook.training.loop import train

__all__ = ["RaftRound", "keep_best", "raft", "raft_update", "rounds_done"]


@dataclass(frozen=True)
class RaftRound:
    """The policy after `round` rounds, and what was done with its samples.

    Attributes:
        reward: mean of the reward over its samples.
        kl: KL(policy || start) in nats a response, estimated on them by k1, both at the
            temperature of the samples.
        ended: share of the samples that ended by themselves.
        gold: mean of the gold reward over them, if one was given.
        kept: responses that the next steps fit; 0 in the last row, which only measures.
        constant: prompts skipped because all their samples had the same reward.
        unfinished: prompts skipped because every sample was cut at the limit.
        history: the rows of these steps, as `training.train` leaves them.
    """

    round: int
    reward: float
    kl: float
    ended: float
    gold: float | None = None
    kept: int = 0
    constant: int = 0
    unfinished: int = 0
    history: list[dict[str, float]] = field(default_factory=list, repr=False)


def keep_best(drawn: Samples, rewards: Tensor) -> tuple[list[Group], int, int]:
    """The best response of each prompt that teaches something, ready for `sft.objective`.

    A response that was cut at the limit is never kept, however good: it has no end token, and a
    policy fitted to such ones forgets how to end.

    Args:
        drawn: k samples for each of P prompts. rewards: (P, k), finite.

    Returns:
        (prompt, [best]) of the kept, the count of constant prompts, and that of unfinished ones.

    Raises:
        ShapeError: not one reward a sample. InvalidHyperparameterError: k below 2.
        RewardError: a reward is not finite.
    """
    counts = [len(answers) for _, answers in drawn.groups]
    if len(set(counts)) > 1 or rewards.shape != (len(counts), counts[0]):
        raise ShapeError(f"rewards {tuple(rewards.shape)} for samples {counts[:5]}... a prompt.")
    skip = constant_groups(rewards)
    ended = torch.tensor(drawn.ended).view(rewards.shape)
    best = rewards.masked_fill(~ended, -torch.inf).argmax(dim=1).tolist()
    kept: list[Group] = []
    constant = unfinished = 0
    for (prompt, answers), place, same, over in zip(
        drawn.groups, best, skip.tolist(), ended.any(dim=1).tolist(), strict=True
    ):
        if same or not over:
            constant, unfinished = constant + same, unfinished + (not same)
        else:
            kept.append((prompt, [answers[place]]))
    return kept, constant, unfinished


def raft(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    reward: Reward | nn.Module,
    config: RaftConfig | None = None,
    *,
    seed: int = 0,
    gold: Reward | nn.Module | None = None,
    sampler: Sampler | None = None,
    out: Path | str | None = None,
    resume: bool = True,
) -> tuple[Any, list[RaftRound]]:
    """Improve a policy on the best of its own samples, a round at a time.

    Args:
        model: a causal language model; stays as it is, and is the start of the KL.
        prompts: texts, or lists of messages.
        reward: a function of (prompts, responses), or a `RewardScorer` on the same tokenizer.
        seed: of prompts, samples and the order of the steps.
        gold: measured, never optimised.
        sampler: draws the responses; None is the book's own.
        out: the run's folder. The policy and the reports are kept there after each round, and a
            round's own steps while it runs. None keeps nothing on disk.
        resume: go on where the run in `out` stopped, to the same numbers; False starts over. That
            the *reward* is the same cannot be seen from outside.

    Returns:
        The trained policy, and rounds + 1 reports: the first is of `model`, the last of the policy
        that is returned. If the samples of all prompts come to tie after the first round, the run
        ends there, since there is nothing left to choose, and has fewer.

    Raises:
        RewardError: the reward raised, or did not give a finite number for each response, or does
            not tell any two samples of `model` apart.
        ResumeMismatchError: `out` holds a run of other settings, prompts or start.
        CheckpointError: the disk is full, or what `out` holds is unreadable.
        Whatever `sample` and `train` raise.
    """
    config = config or RaftConfig()
    device, pad = config.training.device, pad_id(tokenizer)
    start = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    policy = copy.deepcopy(model).to(device)
    folder = None if out is None else Path(out)
    store = _Store(folder, _identity(model, tokenizer, prompts, config, seed, gold))
    reports = store.open(policy, resume)
    if 0 < len(reports) <= config.rounds and config.training.progress and is_main_process():
        going_on(len(reports), config.rounds, "round")
    for number in range(len(reports), config.rounds + 1):
        if reports and not reports[-1].kept:
            break
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])  # of this round
        rollout = draw_and_score(
            PolicyScorer(policy, config.temperature).eval(),
            PolicyScorer(start, config.temperature),
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
        said = rollout.report()
        report = RaftRound(number, said["reward"], said["kl"], said["ended"], said.get("gold"))
        if number < config.rounds:
            best, constant, unfinished = keep_best(rollout.drawn, rollout.rewards)
            report = replace(report, kept=len(best), constant=constant, unfinished=unfinished)
            if not best and number == 0:
                raise _nothing_to_fit(constant, unfinished, config)
            if best:
                steps = train(
                    ResponseScorer(policy),
                    best,
                    sft.objective(best),
                    replace(config.training, seed=own),
                    pad_id=pad,
                    out=store.steps(number),
                    resume=resume,
                )
                report = replace(report, history=steps.history)
        reports.append(report)
        store.save(policy, reports)
    return policy.eval(), reports


def raft_update(
    log_p: np.ndarray, scores: np.ndarray, samples: int, *, drop_constant: bool = False
) -> np.ndarray:
    """(R,) log-probabilities after one round with endless samples and an exact fit.

    Without dropping: the best of k, F(s)^k - F_-(s)^k for the responses of score s together; r
    rounds give the best of k^r. Groups whose k responses all score s have probability m(s)^k, so

        with dropping:  (F(s)^k - F_-(s)^k - m(s)^k) / (1 - sum_s' m(s')^k)

    which is sharper: the worst score dies out in a single round.

    Args:
        log_p: (R,) log-probabilities. scores: (R,) the reward. samples: k >= 2.

    Raises:
        InvalidHyperparameterError: k below 2. RewardError: all scores equal, with dropping.
    """
    if samples < 2:
        raise InvalidHyperparameterError(f"samples is {samples}; of one the best is no choice.")
    fitted = best_of_n(log_p, scores, samples)
    if not drop_constant:
        return fitted
    levels, level = np.unique(np.asarray(scores), return_inverse=True)
    p = np.exp(log_p)
    mass = np.bincount(level, weights=p, minlength=len(levels))
    constant = mass**samples  # (L,) groups all of whose responses have this score
    left = 1 - constant.sum()
    if not left > 1e-15:
        raise RewardError("all responses score the same, so that no group is left to learn from.")
    with np.errstate(divide="ignore", invalid="ignore"):
        gone = np.where(mass > 0, constant / mass, 0.0)[level] * p
        return np.log(np.maximum(np.exp(fitted) - gone, 0.0) / left)


# What a run leaves on disk ------------------------------------------------------------------------


def rounds_done(out: Path | str) -> int:
    """How many reports a run's folder holds; 0 where there is none that can be read."""
    try:
        with safe_open(Path(out) / "policy.safetensors", framework="pt") as file:
            return len(json.loads(file.metadata()["run"])["reports"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return 0


class _Store:
    """out/policy.safetensors: weights, reports and what run they are of, in one file."""

    def __init__(self, folder: Path | None, identity: dict[str, Any]) -> None:
        self.folder, self.identity = folder, identity
        self.path = None if folder is None else folder / "policy.safetensors"

    def steps(self, number: int) -> Path | None:
        """Where the steps of a round keep their own checkpoints while it runs."""
        return None if self.folder is None else self.folder / f"round-{number:04d}"

    def open(self, policy: nn.Module, resume: bool) -> list[RaftRound]:
        """Put the kept weights in place; the reports of the rounds that are done."""
        if self.path is None or not self.path.exists():
            return []
        if not resume:
            self.path.unlink(missing_ok=True)
            return []
        try:
            with safe_open(self.path, framework="pt") as file:
                kept = json.loads(file.metadata()["run"])
                self._check(kept["identity"])
                with torch.no_grad():
                    for name, p in policy.named_parameters():
                        p.copy_(file.get_tensor(name))
            reports = [RaftRound(**row) for row in kept["reports"]]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, ResumeMismatchError):
                raise
            raise CheckpointError(
                f"{self.path} cannot be read: {error}. Start over with resume=False (--restart)."
            ) from error
        for report in reports:  # a kill may have struck before their steps were removed
            if is_main_process() and (steps := self.steps(report.round)) is not None:
                shutil.rmtree(steps, ignore_errors=True)
        return reports

    def save(self, policy: nn.Module, reports: Sequence[RaftRound]) -> None:
        if self.path is None or (steps := self.steps(reports[-1].round)) is None:
            return
        path = self.path
        from accelerate import PartialState

        run = {"identity": self.identity, "reports": [asdict(report) for report in reports]}
        weights = {name: p.detach().cpu().contiguous() for name, p in policy.named_parameters()}
        state = PartialState()
        if state.is_main_process:
            write_whole(path, lambda to: save_file(weights, to, {"run": json.dumps(run)}))
            shutil.rmtree(steps, ignore_errors=True)  # they are in the report
        state.wait_for_everyone()

    def _check(self, theirs: dict[str, Any]) -> None:
        by_content = {"prompts": "the prompts are others", "start": "it started from another model"}
        differ = [
            by_content.get(name, f"{name} was {theirs.get(name)!r} and is {value!r}")
            for name, value in self.identity.items()
            if theirs.get(name) != value
        ]
        if differ:
            raise ResumeMismatchError(
                f"{self.folder} holds another run: {'; '.join(differ)}. Give another "
                "folder, or start over with resume=False (--restart), which replaces it."
            )


def _identity(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: RaftConfig,
    seed: int,
    gold: Reward | nn.Module | None,
) -> dict[str, Any]:
    """What two runs must share for one to go on with the other's rounds."""
    groups: list[Group] = [(encode_prompt(tokenizer, prompt), []) for prompt in prompts]
    rounds = {k: v for k, v in asdict(config).items() if k != "training"}
    settings = {**rounds, **config.training.settings(), "seed": seed, "gold": gold is not None}
    settings["stop_ids"] = list(stop_ids(tokenizer, model))
    found = fingerprint(model, groups, "raft", settings, {})
    return {"prompts": found["data"], "start": found["start"], **found["config"]}


def _nothing_to_fit(constant: int, unfinished: int, config: RaftConfig) -> RewardError:
    if constant:
        return RewardError(
            f"the reward gives all {config.samples} samples the same number for each of "
            f"{constant} prompts, so there is no best one to fit. Is it a constant? If it is just "
            "rare, draw more samples."
        )
    return RewardError(
        f"none of the samples for {unfinished} prompts ended within {config.max_new_tokens} "
        "tokens, and a response without its end cannot be fitted. Raise max_new_tokens, or see "
        "why the model does not end."
    )
