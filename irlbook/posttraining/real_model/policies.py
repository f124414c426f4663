"""DPO, its remedies and policy gradients on the sentiment task, from one pool of samples.

Every policy begins at the same start, and is judged on the same held-out prompts. The offline ones
learn from the same samples of the start, as they were drawn: their own token ids, with an end token
only where the model drew one (a response that was cut must not teach an end).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from irlbook.lm import models
from irlbook.lm.sampling import Samples
from irlbook.lm.tokenization import decode, end_id, pad_id
from irlbook.lm.trees import Group, Tree
from irlbook.posttraining import dpo, reward_model
from irlbook.posttraining.configs import EmbeddingConfig, OnlineConfig, PreferenceConfig
from irlbook.posttraining.online import train_online
from irlbook.posttraining.over_optimization import RewardEnsemble
from irlbook.posttraining.real_model import sentiment
from irlbook.posttraining.real_model.frontier import Evaluation, distinct, token_classes
from irlbook.posttraining.rollouts import PolicyScorer, draw, draw_and_score
from irlbook.training.config import StepConfig, TrainingConfig
from irlbook.training.loop import Batch, Objective, score, train

__all__ = [
    "EmbeddingScorer",
    "Kind",
    "PolicyRun",
    "Pool",
    "RUNS",
    "Task",
    "classes_of",
    "draw_pool",
    "fit_proxy",
    "group_objective",
    "log_ratios_on",
    "measure_policy",
    "offline_data",
    "tilt_objective",
    "train_offline",
    "train_on_reward",
]

Kind = Literal["dpo", "noise", "all pairs", "tilt", "gold", "proxy"]


@dataclass(frozen=True)
class Task:
    """What all runs share."""

    temperature: float = 0.7  # of the sampler and of everything that scores
    max_new_tokens: int = 40
    train_samples: int = 12  # of the start, to each of the 36 training prompts
    pool_samples: int = 24  # of the start, to each of the 24 held-out prompts: the tilt
    held_out_samples: int = 16  # of a trained policy, to each of the same
    topics: int = 36  # training prompts that are used, from the first
    held_out: int = 24
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    max_tokens: int = 2048  # at once: the head of a real vocabulary is what fills the memory

    @property
    def prompts(self) -> list[str]:
        """The training prompts."""
        return [sentiment.prompt(topic) for topic in sentiment.TOPICS[: self.topics]]

    @property
    def asked(self) -> list[str]:
        """The held-out prompts."""
        return [sentiment.prompt(topic) for topic in sentiment.HELD_OUT[: self.held_out]]

    @property
    def machine(self) -> StepConfig:
        """Device, precision and micro-batches."""
        return StepConfig(
            device=self.device,
            precision=self.precision,
            max_tokens=self.max_tokens,
            progress=False,
            tensorboard=False,
        )

    def settings(self) -> dict[str, Any]:
        """What changes the numbers."""
        return {name: value for name, value in asdict(self).items() if name != "max_tokens"}


@dataclass(frozen=True)
class PolicyRun:
    """What a policy is trained on, and how long.

    Attributes:
        kind: "dpo" on wide pairs with noisy labels; "noise", the same with labels from a coin;
            "all pairs" of a prompt's samples, each response computed once; "tilt", the start's
            samples weighted by e^{gold / beta} (forward KL to the exact optimum); "gold" and
            "proxy", policy gradients on gold or on a reward learned from the same pairs.
        beta: the price of a nat of KL: for dpo in log-odds of a label, for the others in gold,
            for policy gradients in standard deviations of the reward.
        steps: iterations of a policy gradient, or None: one pass over the data.
        batch: examples a step; prompts a step for a policy gradient.
    """

    kind: Kind
    beta: float
    learning_rate: float = 2e-5
    epochs: float = 1.0
    steps: int | None = None
    batch: int = 8
    lora: int | None = None


RUNS: dict[str, PolicyRun] = {
    "dpo 0.1": PolicyRun("dpo", 0.1),
    "dpo 0.3": PolicyRun("dpo", 0.3),
    "dpo 1": PolicyRun("dpo", 1.0),
    "dpo 3": PolicyRun("dpo", 3.0),
    "tilt 0.2": PolicyRun("tilt", 0.2, batch=2),
    "rloo gold": PolicyRun("gold", 0.05, learning_rate=5e-5, steps=16, batch=12),
    "rloo proxy": PolicyRun("proxy", 0.05, learning_rate=5e-5, steps=16, batch=12),
    "noise 0.1": PolicyRun("noise", 0.1),
    "dpo 0.1, rate 5e-5": PolicyRun("dpo", 0.1, learning_rate=5e-5),
    "dpo 1, rate 5e-5": PolicyRun("dpo", 1.0, learning_rate=5e-5),
    "dpo 0.1, lora": PolicyRun("dpo", 0.1, learning_rate=5e-4, lora=8),
    "all pairs 1": PolicyRun("all pairs", 1.0, batch=2),
}


@dataclass(frozen=True)
class Pool:
    """Samples of the start: token ids, their log-probabilities, gold.

    Attributes:
        groups: (prompt ids, n responses) for each of P prompts.
        logps: (P, n) lists, log pi_ref of each token at the task's temperature.
        ended: (P, n). gold: (P, n).
    """

    groups: list[Group]
    logps: list[list[list[float]]]
    ended: list[list[bool]]
    gold: np.ndarray

    @property
    def sums(self) -> np.ndarray:
        """(P, n) log pi_ref(y|x)."""
        return np.array([[sum(y) for y in group] for group in self.logps])

    def evaluation(self, n: int) -> Evaluation:
        """The first n samples of each prompt, as those of a policy that is the start."""
        return Evaluation(
            [[list(y) for y in answers[:n]] for _, answers in self.groups],
            [y[:n] for y in self.logps],
            [y[:n] for y in self.logps],
            [e[:n] for e in self.ended],
            self.gold[:, :n].tolist(),
        )

    def to_json(self) -> dict[str, Any]:
        """The pool as plain data; numbers to six digits."""
        return {
            "prompts": [list(x) for x, _ in self.groups],
            "responses": [[list(y) for y in answers] for _, answers in self.groups],
            "logps": _digits(self.logps),
            "ended": self.ended,
            "gold": self.gold.tolist(),
        }

    @property
    def digest(self) -> str:
        """SHA-256 of it as plain data, by which a result says what it was judged on."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Pool:
        """What `to_json` wrote."""
        groups = list(zip(raw["prompts"], raw["responses"], strict=True))
        return cls(groups, raw["logps"], raw["ended"], np.array(raw["gold"]))


def draw_pool(
    model: Any, tokenizer: Any, prompts: Sequence[str], n: int, task: Task, seed: int
) -> Pool:
    """n samples of the start to each prompt, with gold."""
    drawn = draw(
        PolicyScorer(model, task.temperature),
        tokenizer,
        prompts,
        n,
        task.machine,
        seeds=seed,
        max_new_tokens=task.max_new_tokens,
    )
    texts = [decode(tokenizer, y) for y in drawn.responses]
    gold = np.array(sentiment.gold([""] * len(texts), texts)).reshape(len(prompts), n)
    logps, ended = _by_prompt(drawn, n)
    return Pool(drawn.groups, logps, ended, gold)


def measure_policy(policy: Any, start: Any, tokenizer: Any, task: Task, seed: int) -> Evaluation:
    """Samples of a policy to the held-out prompts, scored by the policy, the start and gold."""
    n = task.held_out_samples
    rollout = draw_and_score(
        PolicyScorer(policy.eval(), task.temperature),
        PolicyScorer(start, task.temperature),
        tokenizer,
        task.asked,
        n,
        sentiment.gold,
        task.machine,
        seeds=seed,
        max_new_tokens=task.max_new_tokens,
    )
    logps, ended = _by_prompt(rollout.drawn, n)
    parts = rollout.base.split([len(y) for y in rollout.drawn.responses])
    base = _grouped([p.tolist() for p in parts], n)
    responses = [[list(y) for y in answers] for _, answers in rollout.groups]
    return Evaluation(responses, _digits(logps), _digits(base), ended, rollout.rewards.tolist())


def log_ratios_on(policy: Any, pool: Pool, tokenizer: Any, task: Task) -> list[list[float]]:
    """(P, n) log pi(y|x) - log pi_ref(y|x) of the start's own samples: the implicit reward."""
    scorer = PolicyScorer(policy.eval(), task.temperature)
    own = score(scorer, pool.groups, pool.gold.shape[1], task.machine, pad_id(tokenizer))
    return _digits((own.double().numpy() - pool.sums).tolist())


def classes_of(tokenizer: Any) -> Callable[[Sequence[int]], list[str]]:
    """`frontier.token_classes` for a tokenizer and the lexicon."""
    end = end_id(tokenizer)
    return lambda ids: token_classes(
        ids, lambda part: decode(tokenizer, part), end, sentiment.is_sentiment_word
    )


# Offline ------------------------------------------------------------------------------------------


def group_objective(beta: float) -> Objective:
    """DPO on every labelled pair of a prompt's K responses, each computed once.

    With h_i = log pi(y_i) - log pi_ref(y_i), the mean over the labelled pairs of
    -log sigma(beta (h_i - h_j)). ``extra={"wins": (examples, K, K)}`` says which i won against j.
    K responses have K (K - 1) / 2 pairs: the labels grow quadratically, the computation does not.
    """

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        h = batch.per_response(scores) - _reference(batch)  # (E, K)
        wins = batch.extra["wins"].to(h.dtype)
        logit = beta * (h[:, :, None] - h[:, None, :])
        pairs = wins.sum((1, 2))
        right = (wins * (logit.detach() > 0)).sum((1, 2)) / pairs
        return {"loss": -(wins * logsigmoid(logit)).sum((1, 2)) / pairs, "accuracy": right}

    return Objective(f"all_pairs(beta={beta})", values, 0, needs_reference=True, start=math.log(2))


def tilt_objective(mean_length: float) -> Objective:
    """-sum_k w_k log pi(y_k|x) / L: the likelihood of the exact optimum's samples.

    ``extra={"weights": (examples, K)}``, summing to 1 over K: with w_k proportional to
    e^{gold / beta} for samples of the start, its minimum is pi_ref e^{gold / beta} / Z, up to K.
    """

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        logps = batch.per_response(scores)  # (E, K)
        weights = batch.extra["weights"].to(logps.dtype)
        return {"loss": -(weights * logps).sum(1) / mean_length}

    return Objective(f"tilt(L={mean_length:.4f})", values, 0)


def offline_data(
    run: PolicyRun, pool: Pool, seed: int
) -> tuple[list[Group], Objective, dict[str, Tensor], Tensor | None, float | None]:
    """Examples, objective, what goes with them, log pi_ref, and the share of labels right by gold.

    The reference's log-probabilities are those that the pool was drawn with.
    """
    rng = np.random.default_rng([seed, 23])
    sums = torch.tensor(pool.sums, dtype=torch.float32)
    if run.kind == "tilt":
        lengths = [len(y) for _, answers in pool.groups for y in answers]
        objective = tilt_objective(float(np.mean(lengths)))
        objective = replace(objective, responses=pool.gold.shape[1])
        weights = torch.tensor(softmax(pool.gold / run.beta, axis=1), dtype=torch.float32)
        return list(pool.groups), objective, {"weights": weights}, None, None
    right = []
    if run.kind == "all pairs":
        k = pool.gold.shape[1]
        wins = torch.zeros(len(pool.groups), k, k)
        for i, values in enumerate(pool.gold):
            pairs, agreed = sentiment.all_pairs(values, rng)
            wins[i, pairs[:, 0], pairs[:, 1]] = 1.0
            right.append(agreed)
        objective = replace(group_objective(run.beta), responses=k)
        return list(pool.groups), objective, {"wins": wins}, sums, float(np.mean(right))
    groups: list[Group] = []
    reference: list[Tensor] = []
    for (x, answers), values, logps in zip(pool.groups, pool.gold, sums, strict=True):
        pairs, agreed = sentiment.wide_pairs(values, rng)
        if run.kind == "noise":
            pairs = np.where(rng.random(len(pairs))[:, None] < 0.5, pairs, pairs[:, ::-1])
            agreed = float((values[pairs[:, 0]] > values[pairs[:, 1]]).mean())
        right.append(agreed)
        groups += [(x, [answers[i], answers[j]]) for i, j in pairs]
        reference.append(logps[torch.as_tensor(pairs)])
    objective = dpo.objective(PreferenceConfig(beta=run.beta))
    return groups, objective, {}, torch.cat(reference), float(np.mean(right))


def train_offline(
    run: PolicyRun,
    start: Any,
    tokenizer: Any,
    pool: Pool,
    task: Task,
    seed: int,
    out: Path | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The trained policy, and what its training was: metrics by step, labels right by gold.

    Args:
        out: a folder for checkpoints, from which a run that was killed goes on.
    """
    groups, objective, extra, reference, right = offline_data(run, pool, seed)
    policy = copy.deepcopy(start).requires_grad_(True)
    if run.lora:
        policy = models.add_lora(policy, rank=run.lora, seed=seed)
    machine = asdict(task.machine)
    config = TrainingConfig(
        **machine
        | {
            "learning_rate": run.learning_rate,
            "warmup": 0.1,
            "checkpoint_every": 9,
            "keep": 1,
        },
        epochs=run.epochs,
        steps=run.steps,
        batch_size=run.batch,
        seed=seed,
    )
    result = train(
        PolicyScorer(policy, task.temperature),
        groups,
        objective,
        config,
        extra=extra,
        reference=reference,
        pad_id=pad_id(tokenizer),
        out=out,
    )
    if run.lora:
        policy = policy.merge_and_unload()
    return policy.eval(), {"labels_right": right, "history": _columns(result.history)}


# On a reward --------------------------------------------------------------------------------------


class EmbeddingScorer(nn.Module):
    """A reward of a frozen model's embeddings, last and mean side by side, as (R,) of a tree."""

    def __init__(self, model: nn.Module, head: reward_model.EmbeddingReward) -> None:
        super().__init__()
        self.embedder, self.head = reward_model.Embedder(model, "both"), head

    def forward(self, tree: Tree) -> Tensor:
        """(R,)"""
        return self.head(self.embedder(tree).to(self.head.centre.dtype))


def fit_proxy(
    start: Any, tokenizer: Any, pool: Pool, task: Task, seed: int, l2: float = 10.0
) -> tuple[RewardEnsemble, dict[str, float]]:
    """A reward learned from the wide pairs, standardised on the pool; and how good it is there."""
    pad = pad_id(tokenizer)
    rng = np.random.default_rng([seed, 23])
    embedder, n = reward_model.Embedder(start, "both"), pool.gold.shape[1]
    found = score(embedder, pool.groups, n, task.machine, pad).float()  # (P, n, 2 H)
    pairs = [
        found[i][torch.as_tensor(sentiment.wide_pairs(values, rng)[0])]
        for i, values in enumerate(pool.gold)
    ]
    (head,) = reward_model.fit_embedding_reward(torch.cat(pairs), EmbeddingConfig(l2=l2))
    said = head(found)
    near = np.corrcoef(said.flatten().numpy(), pool.gold.flatten())[0, 1]
    proxy = RewardEnsemble([EmbeddingScorer(start, head.to(task.device))])
    proxy.standardise(pool.groups, task.machine, pad)
    return proxy.eval(), {"correlation_with_gold": float(near)}


def train_on_reward(
    run: PolicyRun,
    start: Any,
    tokenizer: Any,
    pool: Pool,
    task: Task,
    seed: int,
    out: Path | None = None,
) -> tuple[Any, dict[str, Any]]:
    """RLOO on gold or on a learned reward, in standard deviations over the start's samples."""
    told: dict[str, Any] = {}
    reward: Any = _standardised(pool.gold)
    if run.kind == "proxy":
        reward, told = fit_proxy(start, tokenizer, pool, task, seed)
    watched: list[float] = []

    def gold(prompts: list[str], responses: list[str]) -> list[float]:
        watched.append(distinct([text.split() for text in responses]))
        return sentiment.gold(prompts, responses)

    machine = asdict(task.machine)
    config = OnlineConfig(
        method="rloo",
        iterations=run.steps or 16,
        prompts=run.batch,
        samples=4,
        max_new_tokens=task.max_new_tokens,
        temperature=task.temperature,
        beta=run.beta,
        training=StepConfig(
            **machine
            | {
                "learning_rate": run.learning_rate,
                "final_learning_rate": 1.0,
                "warmup": 0.0,
                "weight_decay": 0.0,
                "evaluate_every": 1,
                "checkpoint_every": 4,
                "keep": 1,
            }
        ),
    )
    result = train_online(
        start,
        tokenizer,
        task.prompts,
        reward,
        config,
        seed=seed,
        gold=gold,
        out=out,
        evaluate=lambda policy: {"distinct_2_words": watched[-1]},
    )
    return result.policy, told | {
        "history": _columns(result.history),
        "stopped": result.stopped,
    }


# Small things -------------------------------------------------------------------------------------


def _standardised(pool: np.ndarray) -> Callable[[list[str], list[str]], list[float]]:
    centre, scale = float(pool.mean()), float(pool.std(ddof=1))

    def reward(prompts: list[str], responses: list[str]) -> list[float]:
        return [(value - centre) / scale for value in sentiment.gold(prompts, responses)]

    return reward


def _reference(batch: Batch) -> Tensor:
    assert batch.reference is not None  # `train` fills it for an objective that needs one
    return batch.reference


def _by_prompt(drawn: Samples, n: int) -> tuple[list[list[list[float]]], list[list[bool]]]:
    return _grouped([p.tolist() for p in drawn.logps], n), _grouped(list(drawn.ended), n)


def _grouped(values: Sequence[Any], n: int) -> list[list[Any]]:
    return [list(values[i : i + n]) for i in range(0, len(values), n)]


def _columns(history: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Metrics by step, four digits, without what depends on the machine's speed."""
    names = [n for n in history[0] if n not in ("step", "iteration", "tokens_per_second")]
    return {n: [float(f"{row.get(n, math.nan):.4g}") for row in history] for n in names}


def _digits(values: Any) -> Any:
    if isinstance(values, list):
        return [_digits(v) for v in values]
    return round(values, 6)
