"""The hyper-parameters of every method, and where data and rewards come from; one dataclass each.

Quick to import: the command line makes its options of these classes, and their comments its help.
What a setting does stands in the file of its method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from irlbook.errors import InvalidHyperparameterError
from irlbook.training.config import StepConfig, TrainingConfig, at_least

__all__ = [
    "ESTIMATORS",
    "EmbeddingConfig",
    "Estimator",
    "How",
    "IterativeConfig",
    "Loss",
    "METHODS",
    "METHOD_OWNERS",
    "Method",
    "MethodName",
    "Normalisation",
    "ONLINE_STEPS",
    "OnlineConfig",
    "PREFERENCE_OWNERS",
    "Pooling",
    "PreferenceConfig",
    "REWARD_OWNERS",
    "RaftConfig",
    "RewardConfig",
    "RewardSource",
    "Settled",
    "Source",
    "VLLM_MEMORY",
]

Pooling = Literal["last", "sum"]
Loss = Literal["dpo", "robust", "exo", "ipo", "rso", "slic", "simpo", "kto"]
Estimator = Literal["k1", "k2", "k3"]
Normalisation = Literal["sequence", "token", "constant"]
How = Literal["mean", "worst", "uncertainty"]

VLLM_MEMORY = 0.4  # of a GPU: keys, values and weights of the sampler, beside a policy that learns


def _smoothing(value: float) -> None:
    if not 0 <= value < 0.5:
        raise InvalidHyperparameterError(
            f"label_smoothing is {value}; it is the share of flipped labels, in [0, 1/2). At 1/2 "
            "the labels say nothing, above it they say the opposite."
        )


def _refuse_unused(config: Any, choice: str, owners: Mapping[str, Sequence[str]]) -> None:
    """Raise for a setting that asks for something which the loss or method chosen does not have.

    What is off (0, False, None) asks for nothing.

    Args:
        owners: field to the choices that use it; what is not named there, all do.
    """
    chosen = getattr(config, choice)
    for one in fields(config):
        value = getattr(config, one.name)
        if chosen in owners.get(one.name, (chosen,)) or value in (one.default, 0, None):
            continue
        raise InvalidHyperparameterError(
            f"{one.name} is {value!r}, and {choice} {chosen} does not use it, only "
            f"{', '.join(owners[one.name])}. Leave it out."
        )


# Data and rewards ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Where model and data come from."""

    model: str | Path  # a hub name or a folder; a run's folder means the model in it
    data: str | Path  # a data file (jsonl, parquet ...), a folder of them, or a hub name
    held_out: str | Path | None = None  # more data of the kind, measured but not trained on
    max_length: int | None = None  # leave out records of more tokens than this
    strict: bool = True  # stop at a malformed row, or leave such rows out
    split: str | None = None  # which part of a folder or of a hub data set is read, such as train
    held_out_split: str | None = None  # which part of the held-out data is read, such as test
    revision: str | None = None  # the branch, tag or commit of a hub model; only a commit is
    # reproducible
    lora: int | None = None  # train an adapter (LoRA) of this rank instead of all weights

    def __post_init__(self) -> None:
        at_least(self, 1, "max_length", "lora")
        if (self.lora or 0) > 1 << 16:
            raise InvalidHyperparameterError(f"lora is {self.lora}; no matrix has such a rank.")


@dataclass(frozen=True)
class RewardSource:
    """Where a reward comes from.

    Several reward models are an ensemble. Each is standardised on samples of the start first, so an
    ensemble's unit is its spread there; one model alone keeps its own units.
    """

    names: Sequence[str]  # a reward model, several (an ensemble), or one FILE.py:FUNCTION
    gold: str | None = None  # another reward, which is measured and never optimised
    ensemble: How = "mean"  # how several reward models are joined
    workers: int = 0  # how many processes ask a function; 0 asks it in this process

    def __post_init__(self) -> None:
        if isinstance(self.names, str) or not len(self.names):
            raise InvalidHyperparameterError(
                f"names is {self.names!r}; give a list of one reward or several."
            )
        if self.ensemble not in get_args(How):
            raise InvalidHyperparameterError(
                f"ensemble is {self.ensemble!r}; use {', '.join(get_args(How))}."
            )
        if not 0 <= self.workers <= 4096:
            raise InvalidHyperparameterError(f"workers is {self.workers}; from 0 to 4096.")


# Training on given data ---------------------------------------------------------------------------


REWARD_OWNERS = dict.fromkeys(("centering", "use_margin"), ("bt",))


@dataclass(frozen=True)
class RewardConfig:
    """Hyper-parameters of a reward model's loss."""

    loss: Literal["bt", "classification"] = "bt"  # which question the labels answer
    label_smoothing: float = 0.0  # the share of labels that are taken to be flipped
    centering: float = 0.0  # the weight of (r+ + r-)^2 in the loss, which centres rewards; bt only
    use_margin: bool = False  # ask each pair for the margin that its row gives; bt only

    def __post_init__(self) -> None:
        if self.loss not in ("bt", "classification"):
            raise InvalidHyperparameterError(f"loss is {self.loss!r}; use bt or classification.")
        _smoothing(self.label_smoothing)
        at_least(self, 0, "centering")
        _refuse_unused(self, "loss", REWARD_OWNERS)


@dataclass(frozen=True)
class EmbeddingConfig:
    """How a reward model on frozen embeddings is fitted."""

    loss: Literal["bt", "classification"] = "bt"  # which question the labels answer
    hidden: tuple[int, ...] = ()  # units of each tanh layer; () is a linear reward
    l2: float = 1e-3  # l2/2 times the squared weights is added to the mean loss
    epochs: int = 30  # hidden layers: passes over the pairs
    batch_size: int = 64  # hidden layers: pairs a step
    learning_rate: float = 1e-3  # hidden layers: Adam's
    members: int = 1  # models in the ensemble
    bootstrap: bool = True  # with several members: each sees pairs drawn with replacement
    seed: int = 0  # first weights, order, bootstrap

    def __post_init__(self) -> None:
        if self.loss not in ("bt", "classification"):
            raise InvalidHyperparameterError(f"loss is {self.loss!r}; use bt or classification.")
        if self.l2 < 0:
            raise InvalidHyperparameterError(f"l2 is {self.l2}; it must not be negative.")
        if min(self.epochs, self.batch_size, self.members) < 1 or not self.learning_rate > 0:
            raise InvalidHyperparameterError(
                "epochs, batch_size and members must be at least 1, learning_rate positive."
            )
        for name in ("epochs", "batch_size", "learning_rate") if not self.hidden else ():
            if (value := getattr(self, name)) != getattr(EmbeddingConfig, name):
                raise InvalidHyperparameterError(
                    f"{name} is {value}, and a linear reward (hidden=()) is fitted without it, by "
                    "Newton's method to the optimum. Leave it out, or give hidden layers."
                )


PREFERENCE_OWNERS: dict[str, tuple[str, ...]] = {
    "beta": ("dpo", "robust", "exo", "ipo", "rso", "simpo", "kto"),
    "label_smoothing": ("dpo", "robust", "exo"),
    "length_normalised": ("ipo",),
    "margin": ("slic", "simpo"),
    "sft_weight": ("slic",),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
}


@dataclass(frozen=True)
class PreferenceConfig:
    """Which loss of the family, and its hyper-parameters; those of another loss are refused."""

    loss: Loss = "dpo"  # which loss; dpo with label_smoothing above 0 is conservative DPO
    beta: float = 0.1  # the price of a nat of KL; for simpo a scale per token, which wants 2 to 10
    label_smoothing: float = 0.0  # share of labels taken to be flipped; dpo, robust, exo (above 0)
    length_normalised: bool = False  # divide log-ratios by lengths, as TRL does; ipo only
    margin: float = 1.0  # the lead that the preferred should have, in nats for slic, in rewards for
    # simpo
    sft_weight: float = 0.0  # the weight of the likelihood of the preferred response; slic only
    desirable_weight: float = 1.0  # the weight of good responses; kto only
    undesirable_weight: float = 1.0  # the weight of bad responses; kto only

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise InvalidHyperparameterError(
                f"loss is {self.loss!r}; choose from {', '.join(get_args(Loss))}."
            )
        if not (self.beta > 0 and math.isfinite(self.beta)):
            raise InvalidHyperparameterError(f"beta is {self.beta}; it must be a positive number.")
        _smoothing(self.label_smoothing)
        _refuse_unused(self, "loss", PREFERENCE_OWNERS)


# Training on a policy's own samples ---------------------------------------------------------------

MethodName = Literal["reinforce", "remax", "rloo", "grpo", "dr_grpo", "dapo", "ppo"]


class Method(NamedTuple):
    """A method as it was published. The advantages are in :mod:`.online`."""

    kl: Literal["penalty", "loss"]  # taken off the reward, or added to the loss
    normalisation: Normalisation
    clips: bool  # whether several steps on the same samples are meant
    clip_high: float | None = None  # None: as clip_low


METHODS: dict[str, Method] = {
    "reinforce": Method("penalty", "constant", False),
    "remax": Method("penalty", "constant", False),
    "rloo": Method("penalty", "constant", False),
    "grpo": Method("loss", "sequence", True),
    "dr_grpo": Method("loss", "constant", True),  # published without KL: beta=0
    "dapo": Method("loss", "token", True, 0.28),  # likewise
    "ppo": Method("penalty", "token", True),
}
ESTIMATORS: dict[str, Estimator] = {"penalty": "k1", "loss": "k3"}
_CLIPPING = tuple(name for name, method in METHODS.items() if method.clips)
METHOD_OWNERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("epochs", "minibatches", "clip_low", "clip_high"), _CLIPPING),
    **dict.fromkeys(("redraws", "overlong"), ("dapo",)),
    **dict.fromkeys(("lam", "whiten", "value_weight", "value_rate", "value_clip"), ("ppo",)),
}
ONLINE_STEPS = StepConfig(learning_rate=3e-4, final_learning_rate=1.0, checkpoint_every=10)


@dataclass(frozen=True)
class OnlineConfig:
    """Hyper-parameters of online training. None means: as the method was published.

    beta is a choice of yours in each method: DAPO and Dr. GRPO were published without a price on
    the KL, beta=0.
    """

    method: MethodName = "rloo"  # whose advantage, loss and place of the KL
    iterations: int = 64  # how many times the policy samples and then learns from its samples
    prompts: int = 24  # how many prompts an iteration takes, different ones as long as there are
    # enough
    samples: int = 4  # how many responses are drawn to each prompt
    max_new_tokens: int = 80  # a response is cut after this many tokens
    temperature: float = 1.0  # the temperature of the samples, and of every model that scores them
    beta: float = 0.1  # the price of a nat of KL to the start, in the reward's units
    kl: Literal["penalty", "loss"] | None = None  # whether the price is taken off the reward
    # (penalty) or added to the loss
    estimator: Estimator | None = None  # how the KL is estimated from samples
    normalisation: Normalisation | None = None  # what the loss is averaged over
    epochs: int = 1  # how many times an iteration's samples are passed over
    minibatches: int = 1  # how many optimiser steps a pass has; the clip matters from the second on
    clip_low: float = 0.2  # a probability ratio that has fallen below 1 minus this is pushed no
    # further
    clip_high: float | None = None  # a probability ratio that has risen above 1 plus this is pushed
    # no further
    max_kl: float = 100.0  # the run stops when an iteration has a larger KL, in nats per response
    redraws: int = 2  # how many times prompts that taught nothing are drawn again; dapo only
    overlong: int | None = None  # how many tokens before the cut are fined; dapo only
    lam: float = 0.95  # the lambda of GAE; ppo only
    whiten: bool = True  # scale advantages to mean 0 and variance 1 in each iteration; ppo only
    value_weight: float = 0.5  # the weight of the value loss; ppo only
    value_rate: float = 10.0  # the learning rate of the value head, as a multiple of the policy's;
    # ppo only
    value_clip: float = 0.2  # how far a step may move a value; ppo only
    training: StepConfig = ONLINE_STEPS  # optimiser, micro-batches, device, checkpoints

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidHyperparameterError(
                f"method is {self.method!r}; choose from {', '.join(METHODS)}."
            )
        at_least(self, 1, "iterations", "prompts", "samples", "max_new_tokens")
        at_least(self, 1, "epochs", "minibatches")
        at_least(self, 0, "beta", "value_weight", "value_clip", "redraws", "overlong", "clip_high")
        if self.samples < 2 and self.method in ("rloo", "grpo", "dr_grpo", "dapo"):
            raise InvalidHyperparameterError(
                f"{self.method} compares the responses to a prompt: samples must be 2 or more."
            )
        if not METHODS[self.method].clips and self.epochs * self.minibatches > 1:
            raise InvalidHyperparameterError(
                f"{self.method} has no ratio pi/pi_old: only its first step on fresh samples is "
                "right. Use epochs=1 and minibatches=1, or a method that clips (grpo, ppo ...)."
            )
        if not (self.max_kl > 0 and self.temperature > 0 and self.value_rate > 0):
            raise InvalidHyperparameterError("max_kl, temperature and value_rate must be positive.")
        for name in ("lam", "clip_low"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidHyperparameterError(
                    f"{name} is {getattr(self, name)}; it must lie in [0, 1]."
                )
        words = {"kl": ("penalty", "loss"), "estimator": get_args(Estimator)}
        for name, known in (words | {"normalisation": get_args(Normalisation)}).items():
            if getattr(self, name) not in (None, *known):
                raise InvalidHyperparameterError(
                    f"{name} is {getattr(self, name)!r}; use {', '.join(known)}."
                )
        _refuse_unused(self, "method", METHOD_OWNERS)
        if isinstance(self.training, TrainingConfig):
            raise InvalidHyperparameterError(
                "training is a TrainingConfig; give a StepConfig. What the former has besides "
                "(steps, batch_size, seed ...) belongs to a pass over data; here iterations, "
                "prompts, samples, epochs and minibatches say what a step is made of."
            )

    def settled(self) -> Settled:
        """The same with every None filled in."""
        own = METHODS[self.method]
        place = self.kl or own.kl
        high = self.clip_low if own.clip_high is None else own.clip_high
        mine = {one.name: getattr(self, one.name) for one in fields(self)}
        filled = {
            "kl": place,
            "estimator": self.estimator or ESTIMATORS[place],
            "normalisation": self.normalisation or own.normalisation,
            "clip_high": high if self.clip_high is None else self.clip_high,
            "overlong": self.max_new_tokens // 5 if self.overlong is None else self.overlong,
        }
        return Settled(**mine | filled)

    @property
    def constant(self) -> float:
        """What "constant" divides a response's loss by: 1, the gradient of E[r] itself, or the
        greatest length for GRPO and its kin."""
        return float(self.max_new_tokens) if METHODS[self.method].clips else 1.0


@dataclass(frozen=True)
class Settled(OnlineConfig):
    """An `OnlineConfig` as a method was published where it said None; what the loop reads."""

    kl: Literal["penalty", "loss"] = "penalty"
    estimator: Estimator = "k1"
    normalisation: Normalisation = "constant"
    clip_high: float = 0.2
    overlong: int = 0

    def __post_init__(self) -> None:
        """What was asked for has been checked; what was filled in may be of no use to a method."""


def _check_rounds(training: TrainingConfig) -> None:
    """Refuse what the steps of a round cannot use."""
    why = {
        "seed": "each round has its own, which follows from the seed of the whole run",
        "shard": "the rounds sample with whole weights",
        "evaluate_every": "a round reports on its own samples and evaluates nothing else",
    }
    for name, reason in why.items():
        if (value := getattr(training, name)) != getattr(TrainingConfig, name):
            raise InvalidHyperparameterError(
                f"{name} of a round's training is {value}: {reason}. Leave it out."
            )


@dataclass(frozen=True)
class RaftConfig:
    """Hyper-parameters of the rounds; those of the steps within one are the training's."""

    rounds: int = 3  # how many times the policy samples and is fitted
    samples: int = 8  # how many responses are drawn to each prompt, of which the best is kept
    prompts_per_round: int | None = None  # how many prompts are drawn anew for each round
    max_new_tokens: int = 80  # a response is cut after this many tokens
    temperature: float = 1.0  # the temperature of the samples; below 1 it sharpens the policy in
    # each round
    training: TrainingConfig = TrainingConfig(learning_rate=1e-3)  # of one round's steps

    def __post_init__(self) -> None:
        at_least(self, 1, "max_new_tokens", "prompts_per_round")
        if self.rounds < 1 or self.samples < 2:
            raise InvalidHyperparameterError(
                f"rounds is {self.rounds} and samples {self.samples}; at least 1 and 2: of one "
                "response the best is no choice."
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise InvalidHyperparameterError(
                f"temperature is {self.temperature}; it must be a positive number."
            )
        _check_rounds(self.training)


@dataclass(frozen=True)
class IterativeConfig:
    """Hyper-parameters of the rounds; those of the steps within one are the training's."""

    rounds: int = 3  # how many times the policy samples and is fitted
    samples: int = 8  # how many responses are drawn to each prompt; the best meets the worst
    prompts_per_round: int | None = None  # how many prompts are drawn anew for each round
    max_new_tokens: int = 80  # a response is cut after this many tokens
    reference: Literal["start", "previous"] = "start"  # what DPO holds the policy to
    loss: PreferenceConfig = PreferenceConfig()  # what the pairs teach by
    training: TrainingConfig = TrainingConfig(learning_rate=1e-4)  # of one round's steps

    def __post_init__(self) -> None:
        at_least(self, 1, "rounds", "max_new_tokens", "prompts_per_round")
        at_least(self, 2, "samples")  # a pair
        if self.reference not in ("start", "previous"):
            raise InvalidHyperparameterError(
                f"reference is {self.reference!r}; use start or previous."
            )
        if self.loss.loss == "kto":
            raise InvalidHyperparameterError("KTO takes labelled responses, and these are pairs.")
        if self.reference == "previous" and self.loss.loss in ("slic", "simpo"):
            raise InvalidHyperparameterError(
                f"reference is previous, and {self.loss.loss} has no reference. Leave it out."
            )
        _check_rounds(self.training)
