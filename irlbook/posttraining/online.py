"""Policy gradients for language models: sample, score, step; seven published methods, one loop.

An iteration draws k responses to each of P prompts and asks the reward, turns rewards into an
advantage for each token, and takes AdamW steps on the loss. From the command to the gradient, in
the order in which it is read:

    cli/train.py         `_train`            what was asked for, as settings
    online_pipeline.py   `train_policy`      files become model, prompts and reward
    online.py            `train_online`      an iteration is
    rollouts.py          `draw_and_score`      samples, with their rewards and log pi_ref
    online.py            `learn`               `token_advantages`, all that knows a method's name
    policy_gradient.py                           `grpo_advantage`
    online.py            `step`                a minibatch, and its `objective`
    policy_gradient.py                           `clipped_surrogate`; in kl.py `kl_loss`
    training/loop.py     `accumulate`        forward, loss, backward, a micro-batch at a time

`configs.METHODS` says how each method was published. Two of them show in the loop: DAPO draws again
for the prompts whose responses are all worth the same, and PPO has a value head.

REINFORCE's baseline is the mean reward of the batch's *other* responses: unbiased, and without a
memory. The price of leaving the start, beta KL(pi || pi_ref), is taken off the reward, or added to
the loss (:mod:`irlbook.posttraining.kl`). The sampler's log-probabilities are those of the old
policy, so no forward pass computes them.

All randomness follows from (seed, iteration): a run that was killed goes on to the same numbers.
"""

from __future__ import annotations

import copy
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from irlbook.data.records import Prompt
from irlbook.errors import (
    ConstantRewardWarning,
    EndlessResponsesWarning,
    InvalidHyperparameterError,
    SamplingError,
    StaleSamplesError,
)
from irlbook.lm.logprobs import sequence_logps
from irlbook.lm.tokenization import encode_prompt, pad_id, stop_ids
from irlbook.lm.trees import Group, collate
from irlbook.posttraining import kl
from irlbook.posttraining import policy_gradient as pg
from irlbook.posttraining.configs import METHODS, Normalisation, OnlineConfig, Settled
from irlbook.posttraining.rollouts import (
    CopySampler,
    PolicyScorer,
    Reward,
    Rollout,
    Sampler,
    draw,
    draw_and_score,
    draw_prompts,
    kl_to,
)
from irlbook.training import distributed
from irlbook.training.checkpoints import Metrics, Run, fingerprint, going_on
from irlbook.training.config import StepConfig
from irlbook.training.loop import (
    Batch,
    Objective,
    accumulate,
    adamw,
    disable_dropout,
    learning_rate,
    micro_batches,
    row_sizes,
    token_scores,
)

__all__ = [
    "Learner",
    "OnlineResult",
    "PATIENCE",
    "alike",
    "dull",
    "explained_variance",
    "learn",
    "objective",
    "shaped",
    "step",
    "token_advantages",
    "token_weights",
    "train_online",
    "without_gold",
]

PATIENCE = 5  # iterations in a row before a warning


@dataclass
class OnlineResult:
    """What a run leaves.

    Attributes:
        policy: the trained copy; the last good one, if the run was stopped because it broke.
        history: a row an iteration, of the samples that it drew *before* its steps.
        stopped: why it ended early, or None.
        resumed: iterations that were done before this call, by a run that it went on with.
    """

    policy: Any
    history: list[dict[str, float]] = field(default_factory=list)
    stopped: str | None = None
    resumed: int = 0

    def column(self, name: str) -> np.ndarray:
        """(iterations,) one metric over the run; NaN where a row does not have it."""
        return np.array([row.get(name, math.nan) for row in self.history])


def train_online(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    reward: Reward | nn.Module,
    config: OnlineConfig | None = None,
    *,
    seed: int = 0,
    gold: Reward | nn.Module | None = None,
    sampler: Sampler | None = None,
    out: Path | str | None = None,
    resume: bool = True,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    stop: Callable[[list[dict[str, float]]], str | None] | None = None,
) -> OnlineResult:
    """Improve a policy on a reward of its own samples.

    Args:
        model: a causal language model; stays as it is, and is the reference.
        prompts: texts, or lists of messages.
        reward: a function of (prompts, responses), or a module whose forward(Tree) gives (R,), such
            as a `RewardScorer` on the same tokenizer.
        seed: of prompts, samples and minibatches.
        gold: measured, never optimised.
        sampler: draws the responses; None is the book's own. With `shard` it is called by all
            processes at once, with split weights (`distributed.whole_weights` gathers them); None
            is the book's own on a whole copy in each process.
        out: the run's folder. None keeps nothing on disk.
        resume: go on where the run in `out` stopped; False starts over and replaces it.
        evaluate: what it says of the policy joins the row of every `evaluate_every`-th iteration
            and of the last, after its steps. It must leave the weights alone; not with `shard`.
        stop: called before each further iteration with the rows so far, one at least, *without*
            whatever is called gold; a text ends the run, and is the reason.

    Returns:
        The policy and a row an iteration: iteration, reward, reward_std, gold, kl (mean k1, nats a
        response), entropy (nats a token), length, ended (share), constant_groups, clip_fraction,
        loss, grad_norm, learning_rate, tokens_per_second; PPO also value_loss, explained_variance;
        DAPO also drawn_groups.

    Raises:
        RewardError: the reward raised, or did not give a finite number for each response.
        SamplingError: the sampler's log-probabilities are not the model's.
        ResumeMismatchError, CheckpointError, DeviceUnavailableError, InvalidHyperparameterError.
    """
    told = (config or OnlineConfig()).settled()
    if not len(prompts):
        raise InvalidHyperparameterError("there are no prompts to sample from.")
    steps = told.training
    if evaluate is None and steps.evaluate_every != StepConfig.evaluate_every:
        raise InvalidHyperparameterError(
            f"evaluate_every is {steps.evaluate_every}, and there is no `evaluate` to call."
        )
    distributed.check_shard(steps)
    if evaluate is not None and steps.shard:
        raise InvalidHyperparameterError(
            "`evaluate` gets the policy, which shard has split over the processes. Leave one out."
        )
    accelerator = distributed.accelerator(steps.device, steps.precision)
    policy, reference = _scorers(model, told, accelerator.device)
    identity = _identity(policy, model, tokenizer, prompts if out else (), told, seed)
    learner = _learner(policy, told, accelerator, pad_id(tokenizer), seed)
    if steps.shard:
        distributed.shard(reference, steps.precision)
        sampler = sampler or CopySampler(_copy(model, accelerator.device))
    asked = min(told.prompts, len(prompts))

    def draw_for(iteration: int, attempt: int = 0, most: int = asked) -> Rollout:
        """The samples of an iteration, or more of them, with their rewards and log pi_ref."""
        chosen, seeds = _prompts(prompts, most, seed, iteration, attempt)
        return draw_and_score(
            policy,
            reference,
            tokenizer,
            chosen,
            told.samples,
            reward,
            steps,
            seeds=seeds,
            max_new_tokens=told.max_new_tokens,
            sampler=sampler,
            gold=gold,
            greedy=told.method == "remax",
            untrained=iteration == first,
        )

    run = Run(out, identity, accelerator, policy, learner.optimizer)
    with ExitStack() as at_end:
        if not steps.shard:
            at_end.callback(accelerator.unwrap_model, learner.wrapped, keep_fp32_wrapper=False)
        at_end.callback(learner.optimizer.zero_grad)
        at_end.callback(policy.eval)
        first = done = run.open(resume)
        reports = _Reports(run, first, told, asked)
        at_end.callback(reports.close)
        good, stopped, broke = _weights(policy), None, False
        for iteration in range(first, told.iterations):
            if stop and reports.rows and (stopped := stop(without_gold(reports.rows))):
                break
            began = time.perf_counter()
            try:
                with _breaking(iteration > first):
                    rollout = draw_for(iteration)
                    for attempt in range(1, told.redraws + 1 if told.method == "dapo" else 1):
                        missing = asked - int((~dull(told, rollout)).sum())
                        if not missing:
                            break
                        more = max(missing, accelerator.num_processes)
                        rollout = rollout.joined(draw_for(iteration, attempt, more))
                row = {"iteration": iteration + 1, **rollout.report()}
                row["constant_groups"] = float(alike(rollout.rewards).sum())
                if not row["kl"] <= told.max_kl:
                    reports.add(row)
                    raise _explosion(row["kl"], told)
                good = _weights(policy)  # what they wrote has been looked at
                if iteration > first and iteration % steps.checkpoint_every == 0:
                    run.save(iteration, steps.keep)
                row |= learn(learner, rollout, iteration)
            except _Broken as broken:
                stopped, broke = f"iteration {iteration + 1}: {broken}", True
                _restore(policy, good)
                break
            row["tokens_per_second"] = rollout.tokens / (time.perf_counter() - began)
            done = iteration + 1
            if evaluate and (done == told.iterations or done % steps.evaluate_every == 0):
                policy.eval()
                row |= evaluate(policy.model)
                policy.train()
            reports.add(row)
        if done > first and not broke:
            try:  # nothing else draws from the last step's policy, which may have led too far
                with _breaking(True):
                    chosen, seeds = _prompts(prompts, asked, seed, done)
                    last = draw(
                        policy,
                        tokenizer,
                        chosen,
                        told.samples,
                        steps,
                        seeds=seeds,
                        max_new_tokens=told.max_new_tokens,
                        sampler=sampler,
                    )
                found = kl_to(token_scores(reference, last.groups, steps, learner.pad), last)
                if not found <= told.max_kl:
                    raise _explosion(found, told)
                run.save(done, steps.keep)
            except _Broken as broken:
                stopped = f"after iteration {done}: {broken}"
                _restore(policy, good)
        trained = policy.model
        if steps.shard:
            trained = copy.deepcopy(model).eval()
            distributed.copy_weights(policy.model, trained)
        return OnlineResult(trained, reports.rows, stopped or None, first)


class Learner(NamedTuple):
    """What takes the steps: the policy, the same as it is wrapped for several processes, AdamW."""

    policy: PolicyScorer
    wrapped: nn.Module
    optimizer: Any
    accelerator: Any
    config: Settled
    pad: int
    seed: int


def _copy(model: Any, device: torch.device) -> Any:
    """A copy that does not learn."""
    return copy.deepcopy(model).to(device).eval().requires_grad_(False)


def _scorers(
    model: Any, config: Settled, device: torch.device
) -> tuple[PolicyScorer, PolicyScorer]:
    """Copies of the model: one that learns, and the reference."""
    reference = PolicyScorer(_copy(model, device), config.temperature)
    own = copy.deepcopy(model).to(device)
    policy = PolicyScorer(own, config.temperature, config.method == "ppo").train()
    disable_dropout(policy)
    return policy, reference


def _learner(
    policy: PolicyScorer, config: Settled, accelerator: Any, pad: int, seed: int
) -> Learner:
    """What takes the steps, on the policy as it is told to lie over the processes."""
    if config.training.shard:
        distributed.shard(policy, config.training.precision)
    wrapped, optimizer = policy, adamw(policy.model, config.training, accelerator.device)
    if policy.value is not None:
        head = {"params": list(policy.value.parameters()), "weight_decay": 0.0}
        optimizer.add_param_group(head | {"faster": config.value_rate})
    if not config.training.shard:
        wrapped, optimizer = accelerator.prepare(policy, optimizer)
    return Learner(policy, wrapped, optimizer, accelerator, config, pad, seed)


def _prompts(
    prompts: Sequence[Prompt], most: int, seed: int, iteration: int, attempt: int = 0
) -> tuple[list[Prompt], list[int]]:
    """Prompts of an iteration, and a seed for each."""
    key = np.random.SeedSequence([seed, iteration, attempt]).generate_state(most + 1).tolist()
    chosen = draw_prompts(prompts, most, key[0])
    return chosen, key[1 : len(chosen) + 1]


# From a rollout to steps --------------------------------------------------------------------------


def learn(learner: Learner, rollout: Rollout, iteration: int) -> dict[str, float]:
    """The optimiser's steps on one rollout, and their metrics."""
    config, lengths = learner.config, rollout.lengths
    old, base = rollout.logps, rollout.base
    penalty = torch.zeros(len(old), dtype=torch.float64)  # (N,)
    if config.kl == "penalty":
        penalty = config.beta * kl.kl_penalty(old.double(), base.double(), config.estimator)
    values = None
    if config.method == "ppo":
        scores = token_scores(learner.policy, rollout.groups, config.training, learner.pad)
        values = scores[:, 1].double()  # (N,)
    rewards = shaped(config, rollout.rewards, lengths)
    advantages, targets = token_advantages(
        config, rewards, lengths, penalty, values, rollout.greedy
    )
    tokens, row = {"old": old, "reference": base, "advantages": advantages}, {}
    if values is not None and targets is not None:
        tokens |= {"values": values, "targets": targets}
        row["explained_variance"] = explained_variance(values, targets)
    used = np.arange(len(rollout.groups))
    if config.method == "dapo":
        used = used[~dull(config, rollout).numpy()]
        row["drawn_groups"] = float(len(rollout.groups))

    rate = learning_rate(iteration, config.iterations, config.training)
    for group in learner.optimizer.param_groups:
        group["lr"] = rate * group.get("faster", 1.0)
    counts = [sum(map(len, answers)) for _, answers in rollout.groups]
    parts = {name: x.split(counts) for name, x in tokens.items()}  # (P,) tensors of its tokens
    steps = []
    for epoch in range(config.epochs):
        order = np.random.default_rng([learner.seed, iteration, epoch]).permutation(used)
        for chosen in np.array_split(order, config.minibatches):
            own = {name: [x[i] for i in chosen] for name, x in parts.items()}
            steps += step(learner, [rollout.groups[i] for i in chosen], own)
    names = ["loss", "grad_norm", *(("clip_fraction",) if METHODS[config.method].clips else ())]
    names += ["value_loss"] if values is not None else []
    row |= {name: float(np.mean([s[name] for s in steps])) if steps else 0.0 for name in names}
    row.setdefault("clip_fraction", 0.0)
    return row | {"learning_rate": rate}


def step(
    learner: Learner, groups: Sequence[Group], tokens: dict[str, list[Tensor]]
) -> list[dict[str, float]]:
    """One AdamW step on some groups, and its metrics; none, where they have nothing to teach.

    Args:
        tokens: what `objective` takes, a tensor of its tokens for each group.
    """
    policy, config = learner.policy, learner.config
    mute = config.method != "ppo" and not (config.kl == "loss" and config.beta)
    rows = [[k] for k in range(len(groups)) if not mute or tokens["advantages"][k].any()]
    if not rows:
        return []
    lengths = torch.tensor([len(y) for _, answers in groups for y in answers])
    weights = token_weights(lengths, config.normalisation, config.constant)
    tokens = tokens | {"weights": list(weights.split([len(x) for x in tokens["old"]]))}
    device = learner.accelerator.device
    dtype = torch.promote_types(next(policy.parameters()).dtype, torch.float32)

    def batch(part: Sequence[list[int]]) -> Batch:
        picked = [k for row in part for k in row]
        extra = {name: torch.cat([parts[k] for k in picked]) for name, parts in tokens.items()}
        return Batch(
            tree=collate([groups[k] for k in picked], learner.pad).to(device),
            examples=torch.tensor(picked),
            reference=None,
            extra={name: x.to(device, dtype) for name, x in extra.items()},
        )

    ranks = (learner.accelerator.process_index, learner.accelerator.num_processes)
    parts = micro_batches(rows, row_sizes(rows, groups), config.training.max_tokens, *ranks)
    batches = ((batch(part), weight) for part, weight in parts)
    loss = objective(config, int(lengths.sum()))
    row, _ = accumulate(learner.wrapped, learner.accelerator, loss, batches, len(parts), 1)
    longest = config.training.max_grad_norm
    norm = nn.utils.clip_grad_norm_(policy.model.parameters(), longest)
    row["grad_norm"] = float(distributed.whole(norm))
    if policy.value is not None:  # apart: a wrong critic does not shorten the policy's step
        nn.utils.clip_grad_norm_(policy.value.parameters(), longest)
    if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
        raise _Broken(
            f"loss {row['loss']} and gradient norm {row['grad_norm']}. The policy that is kept "
            "drew this iteration's samples. Lower the learning rate, and look for rewards that "
            "are huge."
        )
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    return [row]


# From rewards to a loss ---------------------------------------------------------------------------


def alike(rewards: Tensor) -> Tensor:
    """(P,) bool, as `constant_groups`; a group of one is never called constant."""
    if rewards.shape[1] == 1:
        return torch.zeros(len(rewards), dtype=torch.bool)
    return pg.constant_groups(rewards)


def dull(config: Settled, rollout: Rollout) -> Tensor:
    """(P,) bool: groups that DAPO draws again for."""
    return alike(shaped(config, rollout.rewards, rollout.lengths))


def shaped(config: Settled, rewards: Tensor, lengths: Tensor) -> Tensor:
    """(P, k) what is optimised: DAPO fines responses that come near the cut."""
    if config.method != "dapo" or not config.overlong:
        return rewards
    fine = pg.overlong_penalty(lengths, config.max_new_tokens, config.overlong)
    return rewards + fine.view_as(rewards)


def token_advantages(
    config: OnlineConfig,
    rewards: Tensor,
    lengths: Tensor,
    penalty: Tensor,
    values: Tensor | None = None,
    greedy: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """((N,) advantages, (N,) targets of the value head or None): all that knows a method's name.

    Args:
        rewards: (P, k). lengths: (R,), R = P k.
        penalty: (N,) beta times the KL estimate of each token; zeros where KL is in the loss.
        values: (N,) ppo's V of each prefix. greedy: (P,) of remax.
    """
    if config.method == "ppo":
        assert values is not None
        paid = -penalty
        paid[lengths.cumsum(0) - 1] += rewards.flatten()
        found, targets = pg.token_gae(paid, values, lengths, lam=config.lam)
        if config.whiten:
            found = (found - found.mean()) / (found.std(correction=0) + 1e-8)
        return found, targets
    net = rewards - sequence_logps(penalty, lengths).view_as(rewards)  # (P, k)
    match config.method:
        case "reinforce":
            others = (net.sum() - net) / max(1, net.numel() - 1)
            found = pg.reinforce_advantage(net, others)
        case "remax":
            assert greedy is not None
            found = pg.remax_advantage(net, greedy)
        case "rloo":
            found = pg.rloo_advantage(net).masked_fill(alike(net)[:, None], 0.0)  # not 1e-17
        case method:
            found = pg.grpo_advantage(net, scale=method != "dr_grpo")
    return pg.per_token(found.flatten(), lengths), None


def token_weights(lengths: Tensor, normalisation: Normalisation, constant: float) -> Tensor:
    """(N,) what a token's loss is multiplied by in `policy_gradient.aggregate`, which is linear.

    With these weights a step's loss is a plain sum, whatever micro-batches it is cut into.

    Args:
        lengths: (R,) tokens of each response.
    """
    same = torch.ones(len(lengths), dtype=torch.float64)
    match normalisation:
        case "sequence":  # the mean over responses of the mean over tokens
            each = same / len(lengths) / lengths
        case "token":  # the mean over all tokens
            each = same / int(lengths.sum())
        case _:  # the sum of each response over a constant, and the mean over responses
            each = same / (len(lengths) * constant)
    return torch.repeat_interleave(each, lengths)


def objective(config: Settled, tokens: int) -> Objective:
    """The loss of a step, for `training.accumulate` with a `PolicyScorer`.

    `Batch.extra` holds (n,) tensors of the batch's tokens: old, reference, advantages, weights, and
    for PPO values and targets.

    Args:
        tokens: of the whole step, over which metrics are means.
    """
    clips = METHODS[config.method].clips

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        x = batch.extra
        logps, v = scores.unbind(1) if scores.ndim == 2 else (scores, None)
        if clips:
            losses = pg.clipped_surrogate(
                logps, x["old"], x["advantages"], config.clip_low, config.clip_high
            )
        else:
            losses = pg.reinforce_loss(logps, x["advantages"])
        if config.kl == "loss" and config.beta:
            losses = losses + config.beta * kl.kl_loss(logps, x["reference"], config.estimator)
        found = {"loss": x["weights"] * losses}
        if clips:
            ratio = torch.exp(logps.detach() - x["old"])
            high = (x["advantages"] > 0) & (ratio > 1 + config.clip_high)
            low = (x["advantages"] < 0) & (ratio < 1 - config.clip_low)
            found["clip_fraction"] = (high | low) / tokens
        if v is not None:
            errors = pg.value_loss(v, x["values"], x["targets"], config.value_clip)
            found["value_loss"] = errors / tokens
            found["loss"] = found["loss"] + config.value_weight * found["value_loss"]
        return found

    return Objective(repr(config), values, responses=config.samples)


def explained_variance(values: Tensor, targets: Tensor) -> float:
    """1 - Var(target - V) / Var(target): 1 is perfect, 0 no better than a constant."""
    spread = float(targets.double().var(correction=0))
    return 1 - float((targets - values).double().var(correction=0)) / spread if spread else 0.0


# Parts of the loop --------------------------------------------------------------------------------


class _Broken(Exception):
    """The policy is not worth going on with."""


@contextmanager
def _breaking(trained: bool) -> Iterator[None]:
    """A policy that cannot be sampled from is broken, once it has been trained."""
    try:
        yield
    except SamplingError as error:
        if not trained or isinstance(error, StaleSamplesError):
            raise  # wrong before any step, or wrong with the sampler
        raise _Broken(str(error)) from error


def _weights(policy: nn.Module) -> list[Tensor]:
    """A copy of this process's part in the machine's memory, which a GPU need not hold."""
    distributed.reshard(policy)
    trained = (p for p in policy.parameters() if p.requires_grad)
    return [distributed.own_part(p).to("cpu", copy=True) for p in trained]


@torch.no_grad()
def _restore(policy: nn.Module, weights: list[Tensor]) -> None:
    distributed.reshard(policy)
    trained = (p for p in policy.parameters() if p.requires_grad)
    for p, value in zip(trained, weights, strict=True):
        distributed.own_part(p).copy_(value)


class _Reports:
    """The history, metrics.csv, the bar, and two warnings."""

    def __init__(self, run: Run, first: int, config: OnlineConfig, asked: int) -> None:
        self.config, self.asked = config, asked
        main, training = distributed.is_main_process(), config.training
        self.metrics = Metrics(run.folder if main else None, first, training.tensorboard)
        self.rows = [{"iteration": row.pop("step"), **row} for row in self.metrics.kept]
        hidden = None if training.progress and main else True
        if 0 < first < config.iterations and not hidden:
            going_on(first, config.iterations, "iteration")
        self.bar = tqdm(
            total=config.iterations,
            initial=first,
            disable=hidden,
            file=sys.stderr,
            unit="iteration",
        )

    def add(self, row: dict[str, float]) -> None:
        self.metrics.write({"step" if k == "iteration" else k: value for k, value in row.items()})
        self.rows.append(row)
        self.bar.update()
        self.bar.set_postfix(reward=f"{row['reward']:.3f}", kl=f"{row['kl']:.2f}", refresh=False)
        groups = row.get("drawn_groups", self.asked)
        if self._lately(lambda r: r["ended"] < 0.5):
            warnings.warn(_endless(row, self.config), EndlessResponsesWarning, stacklevel=3)
        if self._lately(lambda r: r["constant_groups"] >= groups):
            warnings.warn(_constant_reward(row), ConstantRewardWarning, stacklevel=3)

    def _lately(self, bad: Callable[[dict[str, float]], bool]) -> bool:
        """Whether the last rows are bad, PATIENCE of them since the last good one: once a spell."""
        recent = [bad(row) for row in self.rows[-PATIENCE - 1 :]]
        return len(recent) >= PATIENCE and all(recent[-PATIENCE:]) and recent[:-PATIENCE] != [True]

    def close(self) -> None:
        self.bar.close()
        self.metrics.close()


def without_gold(rows: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The rows as a stopping rule may see them."""
    return [{name: x for name, x in row.items() if "gold" not in name} for row in rows]


def _identity(
    policy: PolicyScorer,
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: OnlineConfig,
    seed: int,
) -> dict[str, Any]:
    """What two runs must share to be one; the reward is not looked into."""
    settings = {name: value for name, value in asdict(config).items() if name != "training"}
    settings |= config.training.settings() | {"seed": seed}
    settings["stop_ids"] = list(stop_ids(tokenizer, model))
    asked: list[Group] = [(encode_prompt(tokenizer, prompt), []) for prompt in prompts]
    return fingerprint(policy, asked, f"online {config.method}", settings, {})


def _explosion(found: float, config: OnlineConfig) -> _Broken:
    return _Broken(
        f"the KL to the start is {found:.4g} nats a response, above max_kl={config.max_kl:.4g}. "
        "The policy that is kept is the one before the last step. Raise beta, lower the learning "
        "rate, or raise max_kl if such a distance is meant."
    )


def _endless(row: Mapping[str, float], config: OnlineConfig) -> str:
    return (
        f"in the last {PATIENCE} iterations less than half of the responses ended by themselves "
        f"(now {row['ended']:.0%}); the others were cut at {config.max_new_tokens} tokens, and are "
        "scored as they stand. If the start ended its responses, the reward pays for length: take "
        "a penalty off it, or raise beta. If it did not, raise max_new_tokens, or check that its "
        "training data showed end tokens."
    )


def _constant_reward(row: Mapping[str, float]) -> str:
    return (
        f"in the last {PATIENCE} iterations the reward gave all responses to a prompt the same "
        f"number, for every prompt (mean {row['reward']:.4g}), so there was nothing to prefer. Is "
        "it a constant, or too coarse? Do the responses differ at all? Try more samples, a higher "
        "temperature, or a reward with more steps."
    )
