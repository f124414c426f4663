"""Reward models from preferences: losses, heads on a language model, frozen embeddings, ensembles.

Bradley–Terry: y+ is preferred to y- with probability s(r(x, y+) - r(x, y-)). Only differences
within a prompt are seen, so r is known up to any c(x): the data cannot tell which prompt is better
served, and nothing in them fixes the reward's zero.

Rewards are in nats of log-odds. Pairs are (P, 2), column 0 the preferred response.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from irlbook.errors import (
    InvalidHyperparameterError,
    ShapeError,
    UnidentifiedRewardError,
    UnsupportedModelError,
)
from irlbook.lm.logprobs import hidden_states, sequence_logps
from irlbook.lm.trees import Tree
from irlbook.posttraining.configs import EmbeddingConfig, Pooling, RewardConfig
from irlbook.training.loop import Batch, Objective

__all__ = [
    "Embedder",
    "EmbeddingReward",
    "RewardScorer",
    "bradley_terry_loss",
    "classification_loss",
    "embed",
    "ensemble_reward",
    "fit_embedding_reward",
    "input_scale",
    "is_constant",
    "objective",
    "response_places",
    "reward_metrics",
]


def bradley_terry_loss(
    rewards: Tensor,
    margin: Tensor | float = 0.0,
    label_smoothing: float = 0.0,
    centering: float = 0.0,
) -> Tensor:
    """-(1-e) log s(d - m) - e log s(m - d) + c (r+ + r-)^2, where d = r+ - r-.

    Args:
        rewards: (P, 2).
        margin: (P,) or a number, m: by how much y+ was said to be better; the loss asks d to exceed
            it. 0 is Bradley–Terry itself.
        label_smoothing: e in [0, 1/2), the share of labels taken to be flipped; d stays finite.
        centering: c >= 0. The first terms leave r + c(x) free; this one puts the zero midway
            between y+ and y-. 0.01 is usual.

    Returns:
        (P,); log 2 where both rewards are equal and m = c = 0.

    Source: Christiano et al. 2017 (1706.03741), equation 1; m: Touvron et al. 2023 (2307.09288),
    equation 2; c: Eisenstein et al. 2023 (2312.09244).
    """
    _check(rewards, label_smoothing)
    if centering < 0:
        raise InvalidHyperparameterError(f"centering is {centering}; it must not be negative.")
    d = rewards[:, 0] - rewards[:, 1] - margin
    loss = -(1 - label_smoothing) * logsigmoid(d) - label_smoothing * logsigmoid(-d)
    return loss + centering * rewards.sum(1) ** 2


def classification_loss(rewards: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-[log s(r+) + log s(-r-)] / 2: is this response, alone, one that won?

    No pair is compared, so any classifier will do, and r keeps its zero. But the answer depends on
    the prompt, and the part of r that only says "easy prompt" is trained too; Bradley–Terry cancels
    it. Correct order needs less than a correct probability: both losses are *order consistent*.

    Args:
        rewards: (P, 2), read as log-odds that the response is a preferred one.

    Returns:
        (P,); log 2 where both rewards are 0.

    Source: Sun, Shen and Ton 2024 (2411.04991); section 4.1 of the survey.
    """
    _check(rewards, label_smoothing)
    signed = rewards * rewards.new_tensor([1.0, -1.0])  # (P, 2) log-odds of the right answer
    smooth = -(1 - label_smoothing) * logsigmoid(signed) - label_smoothing * logsigmoid(-signed)
    return smooth.mean(1)


def reward_metrics(rewards: Tensor) -> dict[str, Tensor]:
    """`margin` r+ - r-, `accuracy` (a tie is 1/2) and `mean_reward`: (P,) each, no gradient."""
    rewards = rewards.detach()
    margin = rewards[:, 0] - rewards[:, 1]
    return {"margin": margin, "accuracy": (margin.sign() + 1) / 2, "mean_reward": rewards.mean(1)}


# Heads on a language model ------------------------------------------------------------------------


def response_places(tree: Tree) -> Tensor:
    """(N,) place, in the flattened B * L, of every response token itself.

    `tree.predictor` is the place *before* it. A row's responses stand one after another behind its
    prompt, so places follow from lengths; no token id is looked at.
    """
    group = torch.repeat_interleave(tree.owner, tree.lengths)  # (N,)
    count = torch.bincount(group, minlength=int(tree.owner[-1]) + 1)
    first = count.cumsum(0) - count  # (B,) the row's first response token among the N
    within = torch.arange(len(group), device=group.device) - first[group]
    return tree.predictor[first][group] + 1 + within


class RewardScorer(nn.Module):
    """r(x, y) from a sequence classifier with one output (`lm.models.load_reward_model`).

    `last` reads the head at the response's last token, which is where transformers reads it, as
    long as the pad token is not the end token. `sum` adds the head over all response tokens: a
    reward a token, whose sum is the response's. transformers cannot read that one back, so the
    choice is kept in the model's configuration.

    Args:
        model: an `AutoModelForSequenceClassification` with one label.
        pooling: None takes what the configuration says, else `last`.

    Raises:
        UnsupportedModelError: not one output, or no head called `score`.
    """

    def __init__(self, model: nn.Module, pooling: Pooling | None = None) -> None:
        super().__init__()
        if getattr(getattr(model, "score", None), "out_features", None) != 1:
            raise UnsupportedModelError(
                f"{type(model).__name__} has no `score` head with one output; load it with "
                "lm.models.load_reward_model."
            )
        self.model: Any
        self.model = model
        self.pooling = pooling or getattr(self.model.config, "reward_pooling", "last")
        if self.pooling not in ("last", "sum"):
            raise InvalidHyperparameterError(f"pooling is {self.pooling!r}; use last or sum.")
        self.model.config.reward_pooling = self.pooling

    def forward(self, tree: Tree) -> Tensor:
        """(R,) in at least float32."""
        hidden, places = hidden_states(self.model, tree), response_places(tree)
        if self.pooling == "last":
            places = places[tree.lengths.cumsum(0) - 1]  # (R,)
        scores = self.model.score(hidden[places]).squeeze(-1)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return scores if self.pooling == "last" else sequence_logps(scores, tree.lengths)


def objective(config: RewardConfig | None = None) -> Objective:
    """A reward loss for `training.train` with a `RewardScorer`.

    Groups are (prompt, [preferred, other]); margins go in ``extra={"margin": (P,)}``.
    """
    c = config or RewardConfig()

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        rewards = batch.per_response(scores)  # (P, 2)
        if c.loss == "bt":
            margin = batch.extra["margin"].to(rewards.dtype) if c.use_margin else 0.0
            loss = bradley_terry_loss(rewards, margin, c.label_smoothing, c.centering)
        else:
            loss = classification_loss(rewards, c.label_smoothing)
        return {"loss": loss, **reward_metrics(rewards)}

    return Objective(repr(c), values, responses=2)


# Ensembles ----------------------------------------------------------------------------------------


def ensemble_reward(
    rewards: Tensor, how: Literal["mean", "worst", "uncertainty"] = "mean", weight: float = 0.5
) -> Tensor:
    """One reward of several models: (M, ...) to (...).

    `mean`; `worst`, the smallest; `uncertainty`, mean - weight * variance over the models. The last
    two distrust responses on which the models disagree, as they do far from the data. Rewards of
    models trained apart have different zeros and scales: standardise each on one common sample
    first, or `worst` picks the model with the lowest zero.

    Source: Coste et al. 2023 (2310.02743), section 3: mean, WCO and UWO.
    """
    if rewards.ndim < 1 or not len(rewards):
        raise ShapeError("rewards must be (models, ...), with one model at least.")
    if how == "mean":
        return rewards.mean(0)
    if how == "worst":
        return rewards.amin(0)
    if how != "uncertainty" or weight < 0:
        raise InvalidHyperparameterError(
            f"how is {how!r} and weight {weight}; choose mean, worst or uncertainty, weight >= 0."
        )
    return rewards.mean(0) - weight * rewards.var(0, correction=0)


# Frozen embeddings --------------------------------------------------------------------------------


@torch.no_grad()
def embed(model: nn.Module, tree: Tree, pool: Literal["last", "mean", "both"] = "last") -> Tensor:
    """(R, H) what a frozen language model makes of each prompt with its response.

    `last`: the hidden state of the response's last token; `mean`: over the response's tokens;
    `both`: one beside the other, (R, 2 H), for one pass through the model.
    """
    hidden = hidden_states(model, tree)[response_places(tree)]  # (N, H)
    last = hidden[tree.lengths.cumsum(0) - 1]
    if pool == "last":
        return last
    owner = torch.repeat_interleave(
        torch.arange(len(tree.lengths), device=hidden.device), tree.lengths
    )
    total = hidden.new_zeros(len(tree.lengths), hidden.shape[1]).index_add(0, owner, hidden)
    mean = total / tree.lengths[:, None]
    return mean if pool == "mean" else torch.cat([last, mean], dim=1)


class Embedder(nn.Module):
    """`embed` as a scorer, so that :func:`irlbook.training.loop.score` embeds a whole data set."""

    def __init__(self, model: nn.Module, pool: Literal["last", "mean", "both"] = "last") -> None:
        super().__init__()
        self.model = model
        self.pool: Literal["last", "mean", "both"] = pool

    def forward(self, tree: Tree) -> Tensor:
        """(R, H), or (R, 2 H) for `both`."""
        return embed(self.model, tree, self.pool)


class EmbeddingReward(nn.Module):
    """r(x, y) = head(embedding of x and y), one output; inputs standardised with the data's scale.

    Source: Sun et al. 2025 (2502.04357): reward models without a GPU.
    """

    def __init__(self, size: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        layers: list[nn.Module] = []
        for units in hidden:
            layers += [nn.Linear(size, units), nn.Tanh()]
            size = units
        self.head = nn.Sequential(*layers, nn.Linear(size, 1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(..., H) to (...)."""
        return self.head((embeddings - self.centre) / self.scale).squeeze(-1)


def is_constant(values: Tensor, dim: int = 0) -> Tensor:
    """bool, without `dim`: all values are alike, but for the rounding of 32 bits."""
    return values.amax(dim) - values.amin(dim) <= 1e-6 * values.abs().amax(dim)


def input_scale(embeddings: Tensor) -> Tensor:
    """(H,) what each dimension of (N, H) embeddings is divided by: its standard deviation.

    A dimension that is constant in the data says nothing about the reward; its scale is infinite,
    so that it is never read, wherever it may move later. One that hardly moves is not blown up
    either: no scale is less than a thousandth of the median one.

    Raises:
        UnidentifiedRewardError: every dimension is constant.
    """
    spread, constant = embeddings.std(0, correction=0), is_constant(embeddings)
    if constant.all():
        raise UnidentifiedRewardError(
            "all embeddings are the same, so no reward of them can tell two responses apart. Look "
            "at what made them: the layer, the pooling, a model that was not loaded."
        )
    floor = 1e-3 * spread[~constant].median()
    return spread.clamp(min=floor).masked_fill(constant, torch.inf)


def fit_embedding_reward(
    embeddings: Tensor, config: EmbeddingConfig | None = None
) -> list[EmbeddingReward]:
    """Fit a reward to pairs of frozen embeddings; a list of `members` models, on the CPU.

    A linear reward is a convex problem and is solved, by L-BFGS on all pairs; hidden layers are
    trained by Adam on batches.

    Args:
        embeddings: (P, 2, H), the preferred response in place 0; see `embed`.
    """
    config = config or EmbeddingConfig()
    if embeddings.ndim != 3 or embeddings.shape[1] != 2 or not len(embeddings):
        raise ShapeError(f"embeddings have shape {tuple(embeddings.shape)}, not (pairs, 2, H).")
    loss_of = bradley_terry_loss if config.loss == "bt" else classification_loss
    embeddings = embeddings.detach().cpu()
    flat = embeddings.flatten(0, 1)  # (2P, H)
    centre, scale = flat.mean(0), input_scale(flat)
    members = []
    for member in range(config.members):
        draw = torch.Generator().manual_seed(config.seed + 7919 * member)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 7919 * member)
            model = EmbeddingReward(embeddings.shape[2], config.hidden).to(embeddings.dtype)
        model.centre.copy_(centre)
        model.scale.copy_(scale)
        n = len(embeddings)
        own = torch.arange(n)
        if config.bootstrap and config.members > 1:
            own = torch.randint(n, (n,), generator=draw)

        def mean_loss(rows: Tensor, model: EmbeddingReward = model) -> Tensor:
            weights = sum((p**2).sum() for p in model.parameters() if p.ndim == 2)
            loss = loss_of(model(embeddings[rows])).mean() + config.l2 / 2 * weights
            model.zero_grad()
            loss.backward()
            return loss

        if not config.hidden:
            solver = torch.optim.LBFGS(
                model.parameters(), max_iter=200, line_search_fn="strong_wolfe"
            )
            solver.step(partial(mean_loss, own))
        else:
            optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
            for _ in range(config.epochs):
                for rows in own[torch.randperm(n, generator=draw)].split(config.batch_size):
                    mean_loss(rows)
                    optimizer.step()
        members.append(model.eval().requires_grad_(False))
    return members


def _check(rewards: Tensor, label_smoothing: float) -> None:
    if rewards.ndim != 2 or rewards.shape[1] != 2:
        raise ShapeError(
            f"rewards have shape {tuple(rewards.shape)}; expected (pairs, 2), the preferred "
            "response in column 0. From (R,) in the groups' order: rewards.view(-1, 2)."
        )
    if not 0 <= label_smoothing < 0.5:
        raise InvalidHyperparameterError(
            f"label_smoothing is {label_smoothing}; it must lie in [0, 1/2)."
        )
