"""`irlbook train ...`: every option is a field of a dataclass, and its help the field's comment."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from irlbook.cli.options import Part, command, next_step, working
from irlbook.errors import InvalidHyperparameterError
from irlbook.posttraining.configs import (
    METHOD_OWNERS,
    VLLM_MEMORY,
    IterativeConfig,
    MethodName,
    OnlineConfig,
    Pooling,
    PreferenceConfig,
    RaftConfig,
    RewardConfig,
    RewardSource,
    Source,
)
from irlbook.training.config import StepConfig, TrainingConfig

__all__ = [
    "A_REWARD",
    "DRAWING",
    "Drawing",
    "FOLDER",
    "Folder",
    "LOSS",
    "Measure",
    "NOT_GIVEN",
    "ONLINE_STEPS",
    "PREFERENCES",
    "PREFERENCE_LOSS",
    "PROMPTS",
    "REWARD",
    "REWARD_LOSS",
    "Reading",
    "SAMPLE",
    "SOURCE",
    "STRICT",
    "app",
]

app = typer.Typer(
    help="Train a language model or a reward model.",
    epilog="Example: irlbook train dpo --help",
    no_args_is_help=True,
)

# Arguments that the pipelines take beside their dataclasses ---------------------------------------


@dataclass(frozen=True)
class Folder:
    """Where a run lives."""

    out: Path  # the run's folder: it gets model/, metrics.csv and checkpoints/
    resume: bool = True  # go on with the run that the folder holds, or replace it


@dataclass(frozen=True)
class Reading:
    """How a reward model is read."""

    pooling: Pooling | None = None  # whether a response is scored at its last token or by a sum


@dataclass(frozen=True)
class Measure:
    """What `train dpo` measures besides its loss."""

    kl_prompts: int = 0  # how many prompts are sampled at each evaluation to report the KL
    kl_tokens: int = 64  # these samples are cut after this many tokens

    def __post_init__(self) -> None:
        if self.kl_prompts < 0 or self.kl_tokens < 1:
            raise InvalidHyperparameterError(
                f"kl_prompts is {self.kl_prompts} and kl_tokens {self.kl_tokens}; at least 0 and 1."
            )


@dataclass(frozen=True)
class Drawing:
    """What decides an online run's draws."""

    seed: int = 0  # decides prompts, samples and minibatches
    vllm: bool = False  # sample with vLLM, which is an extra of this package
    vllm_memory: float = VLLM_MEMORY  # the share of a GPU's memory that vLLM may take; the rest is
    # for training


# What a run says at its end -----------------------------------------------------------------------


def _train(pipeline: str, then: str, **arguments: Any) -> None:
    """Call `module.function` of the pipelines; say what came of it, and what to do next."""
    from irlbook.training.distributed import is_main_process

    if is_main_process():
        working(f"loading {arguments['source'].model}")
    module, _, function = pipeline.partition(".")
    work = getattr(import_module(f"irlbook.posttraining.{module}"), function)
    try:
        done = work(**arguments)
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    if not is_main_process():
        return
    rows = getattr(done, "result", done).history
    for line in (*done.reports, *_last(rows[-1] if rows else {})):
        typer.echo(line)
    if stopped := getattr(done, "stopped", None):
        typer.echo(f"stopped: {stopped}", err=True)
    typer.echo(f"model: {done.model}")
    source = arguments["source"]
    held_out = getattr(source, "held_out", None) or source.data
    told = {"out": arguments["out"], "held_out": held_out}
    quoted = {name: shlex.quote(str(value)) for name, value in told.items()}
    next_step("irlbook plot {out}".format(**quoted))
    next_step(then.format(**quoted))


def _last(row: Mapping[str, float]) -> Iterator[str]:
    """The last row of a history: what its step did, and what was measured on held-out data."""
    if "round" in row:  # the last round only measures: it has kept and paired nothing
        idle = ("kept", "constant", "unfinished", "pairs", "ties")
        row = {k: v for k, v in row.items() if k not in idle}
    apart = {name: value for name, value in row.items() if name.startswith("held_out_")}
    own = {name: value for name, value in row.items() if name not in apart}
    for said, part in ("last", own), ("held out", apart):
        shown = [f"{name.removeprefix('held_out_')} {value:.4g}" for name, value in part.items()]
        if shown:
            yield f"{said}: {'  '.join(shown)}"


def _command(
    name: str, summary: str, pipeline: str, parts: Sequence[Part], then: str, more: str = ""
) -> None:
    example = f"irlbook train {name} --model data/model{more} --out runs/{name}"
    command(app, name, summary, example, parts, partial(_train, pipeline, then))


# Given data ---------------------------------------------------------------------------------------

STRICT = {"strict": "--strict/--skip-malformed"}
NOT_GIVEN = {
    "max_length": "the model's context",
    "split": "train, if there are several",
    "held_out_split": "test, if there are several",
}
SOURCE = Part(Source, "Model and data", "source", STRICT, meaning=NOT_GIVEN)
FOLDER = Part(Folder, "The run", names={"resume": "--resume/--restart"})
SAMPLE = 'irlbook sample {out} --prompt "Write a review of the bus." --n 4'
PREFERENCES = " --data data/preferences.jsonl"
LOSS = "Loss"
REWARD_LOSS = Part(RewardConfig(), LOSS, "loss", {"use_margin": "--margin/--no-margin"})
PREFERENCE_LOSS = Part(PreferenceConfig(), LOSS, "loss")


def _steps(learning_rate: float) -> Part:
    return Part(TrainingConfig(learning_rate=learning_rate), "Training", "config")


_command(
    "sft",
    "Fine-tune a language model on demonstrations (prompt and completion, or messages).",
    "pipeline.train_sft",
    [SOURCE, FOLDER, _steps(1e-4)],
    SAMPLE,
    " --data data/demonstrations.jsonl",
)
_command(
    "reward",
    "Train a reward model on preferences (prompt, chosen, rejected; or transcripts).",
    "pipeline.train_reward",
    [
        SOURCE,
        FOLDER,
        REWARD_LOSS,
        Part(Reading, LOSS, meaning={"pooling": "the model's own, else last"}),
        _steps(1e-4),
    ],
    "irlbook score --model {out} --data {held_out}",
    PREFERENCES,
)
_command(
    "dpo",
    "Train a policy on preferences by DPO or a relative; the reference is the model itself.",
    "pipeline.train_dpo",
    [SOURCE, FOLDER, PREFERENCE_LOSS, Part(Measure, "The run"), _steps(1e-5)],
    SAMPLE,
    PREFERENCES,
)

# A policy's own samples ---------------------------------------------------------------------------

# Online training takes no held-out data, leaves out no prompt for its length, evaluates nothing.
PROMPTS = replace(SOURCE, without=["held_out", "held_out_split", "max_length"])
REWARD = Part(RewardSource, "Reward", "reward", {"names": "reward", "workers": "reward_workers"})
DRAWING = Part(Drawing, "The run")
ONLINE_STEPS = StepConfig(learning_rate=1e-5, final_learning_rate=1.0, checkpoint_every=10)


def _method(name: str, summary: str, *methods: MethodName, **defaults: Any) -> None:
    """The command of a method, or of a choice of them; its help says what None stands for."""
    config = OnlineConfig(methods[0], training=ONLINE_STEPS, **defaults)
    settled = {method: replace(config, method=method).settled() for method in methods}

    def published(field: str) -> str:
        found = {method: str(getattr(one, field)) for method, one in settled.items()}
        if len(set(found.values())) == 1:
            return f"as published: {found[methods[0]]}"
        return f"as published: {', '.join(f'{value} for {k}' for k, value in found.items())}"

    part = Part(
        config,
        "Method",
        "config",
        {"method": "variant"},
        without=[
            "evaluate_every",
            *(["method"] if len(methods) == 1 else []),
            *(field for field, whose in METHOD_OWNERS.items() if not set(methods) & set(whose)),
        ],
        choices={"method": methods},
        meaning={
            **{field: published(field) for field in ("kl", "normalisation", "clip_high")},
            "estimator": f"{published('estimator')}; k1 as a penalty, k3 in the loss",
            "overlong": f"{config.settled().overlong}, a fifth of --max-new-tokens",
        },
    )
    _online(name, summary, "online_pipeline.train_policy", [part, DRAWING])


def _online(name: str, summary: str, pipeline: str, parts: Sequence[Part]) -> None:
    more = f"{PREFERENCES} --reward runs/reward"
    _command(name, summary, pipeline, [PROMPTS, REWARD, FOLDER, *parts], SAMPLE, more)


A_REWARD = "Train a policy on a reward"
_method("reinforce", f"{A_REWARD}; baseline: the mean of the batch's other responses.", "reinforce")
_method("remax", f"{A_REWARD}; baseline: the reward of the likeliest response (ReMax).", "remax")
_method("rloo", f"{A_REWARD}; baseline: the prompt's other responses (RLOO).", "rloo")
_method(
    "grpo",
    f"{A_REWARD}; advantages within the prompt's group (GRPO and its kin).",
    *("grpo", "dr_grpo", "dapo"),
)
_method("ppo", f"{A_REWARD} with a value head and GAE (PPO).", "ppo", epochs=2, minibatches=2)
_online(
    "raft",
    "Fit a policy to the best of its own samples, round by round (rejection sampling).",
    "online_pipeline.train_raft",
    [
        Part(
            RaftConfig(training=TrainingConfig(learning_rate=1e-4)),
            "Method",
            "config",
            {"prompts_per_round": "prompts"},
            without=["evaluate_every", "shard", "seed"],
            meaning={"prompts_per_round": "all of them"},
        ),
        DRAWING,
    ],
)
_online(
    "iterative",
    "Train a policy by DPO on pairs of its own samples, round by round (iterative DPO).",
    "online_pipeline.train_iterative",
    [
        Part(
            IterativeConfig(),
            "Method",
            "config",
            {"prompts_per_round": "prompts"},
            without=[
                *("evaluate_every", "checkpoint_every", "keep", "shard", "seed"),
                *("desirable_weight", "undesirable_weight"),  # of KTO, which takes no pairs
            ],
            choices={"loss": ("dpo", "robust", "exo", "ipo", "rso", "slic", "simpo")},
            meaning={"prompts_per_round": "all of them"},
        ),
        DRAWING,
    ],
)
