"""The study of chapter 22: LoRA against training all weights, at equal operations.

Both ways train by DPO on the same pairs in the same order, from the same starting model, until they
have spent the same number of floating-point operations by :func:`irlbook.lm.costs.training_flops`.
A step of an adapter costs less, so it takes more steps. Each way has a small grid of learning
rates. The rate is chosen by the loss on held-out pairs over some seeds, and the comparison is made
on other seeds. A seed sets everything else: starting model, pairs, order, first weights, samples.

That takes longer than a chapter may, so the result ships with the package:

    python -m irlbook.posttraining.adapter_study

A run that was killed goes on where it stopped; with `--check` seed 0 is trained anew both ways and
the losses of its first steps are compared with those that are stored. LoRA needs the package peft.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irlbook.errors import as_command
from irlbook.lm import costs, models
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.tokenization import pad_id
from irlbook.lm.trees import Group
from irlbook.posttraining import book_models, dpo, pipeline
from irlbook.posttraining.rollouts import PolicyScorer, draw, rewards_of
from irlbook.posttraining.stored_runs import RESULTS, StoredRuns, bundle, read_stored
from irlbook.tasks import reviews
from irlbook.training.config import TrainingConfig
from irlbook.training.loop import evaluate_objective, schedule, train

__all__ = [
    "AdapterStudy",
    "STORED",
    "WAYS",
    "best_rate",
    "equal_steps",
    "load",
    "main",
    "run_name",
    "tuned",
]

STORED = RESULTS / "adapters.json"
WAYS = ("all weights", "LoRA")
_SHOWN = 5  # losses that are kept of a run's beginning


@dataclass(frozen=True)
class AdapterStudy:
    """What is run. Seed s starts from the shipped model number s mod 5."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seeds: tuple[int, ...] = (100, 101)
    rates: Mapping[str, tuple[float, ...]] = field(
        default_factory=lambda: {
            "all weights": (3e-4, 1e-3, 3e-3, 1e-2),
            "LoRA": (1e-3, 3e-3, 1e-2, 3e-2),
        }
    )
    rank: int = 8
    pairs: int = 1_500
    held_out: int = 500
    steps: int = 100  # of all weights, 32 pairs each
    samples: int = 4  # to each prompt of the world, when a policy is looked at
    max_new_tokens: int = 64


def equal_steps(
    architecture: costs.Architecture,
    groups: Sequence[Group],
    config: TrainingConfig,
    rank: int,
) -> tuple[int, float]:
    """(Steps of an adapter, their operations over those of all weights) within one budget.

    The budget is what `config.steps` steps of all weights take on their own examples; the adapter
    sees the same examples in the same order and stops before the step that would exceed it.
    """

    def spent(steps: int, rank: int | None) -> np.ndarray:
        parts = schedule(groups, replace(config, steps=steps))
        sizes = [(len(prompt), [len(y) for y in answers]) for prompt, answers in groups]
        work = [costs.training_flops(architecture, [sizes[i] for i in p], rank=rank) for p in parts]
        return np.cumsum(work)

    assert config.steps is not None
    budget = spent(config.steps, None)[-1]
    total = spent(3 * config.steps, rank)
    steps = int(np.searchsorted(total, budget, side="right"))
    return steps, float(total[steps - 1] / budget)


def tuned(study: AdapterStudy, way: str, rate: float, seed: int) -> dict[str, Any]:
    """One run's record: loss and accuracy on held-out pairs, and on seeds that are compared gold of
    samples before and after.

    Args:
        way: one of `WAYS`.
    """
    model, tokenizer = book_models.load(seed % len(book_models.SEEDS))
    pad = pad_id(tokenizer)
    sized = costs.Architecture.of(model.config)
    groups, held_out = (
        pipeline.encode(
            reviews.preferences(n, np.random.default_rng([seed, 22, part])), tokenizer, 512
        ).groups
        for part, n in enumerate((study.pairs, study.held_out))
    )
    config = TrainingConfig(
        steps=study.steps, learning_rate=rate, seed=seed, progress=False, tensorboard=False
    )
    share = 1.0
    if way == "LoRA":
        steps, share = equal_steps(sized, groups, config, study.rank)
        config = replace(config, steps=steps)
    policy: Any = model
    if way == "LoRA":
        policy = models.add_lora(model, rank=study.rank, alpha=2 * study.rank, seed=seed)
    scorer, objective = ResponseScorer(policy), dpo.objective()
    compared = seed not in study.tuning_seeds  # the others choose by the loss alone
    looked = partial(_gold, study, tokenizer, seed)
    before = looked(policy) if compared else None
    measure = evaluate_objective(scorer, held_out, objective, config, pad_id=pad)
    began = time.process_time()
    result = train(scorer, groups, objective, config, pad_id=pad)
    seconds = time.process_time() - began
    found = measure()
    if way == "LoRA":
        policy = policy.merge_and_unload()
    losses = result.column("loss")
    return {
        "steps": len(losses),
        "share": share,
        "cpu": round(seconds, 1),
        "losses": losses[:_SHOWN].tolist(),
        "training_loss": float(losses[-20:].mean()),
        "held_out_loss": found["held_out_loss"],
        "held_out_accuracy": found["held_out_accuracy"],
        "gold_before": before,
        "gold": looked(policy) if compared else None,
    }


def _gold(study: AdapterStudy, tokenizer: Any, seed: int, model: Any) -> float:
    """Mean gold of samples to all prompts of the world, with the same random numbers each time."""
    prompts, config = list(reviews.PROMPTS), TrainingConfig(progress=False)
    drawn = draw(
        PolicyScorer(model),
        tokenizer,
        prompts,
        study.samples,
        config,
        seeds=int(np.random.SeedSequence([seed, 22]).generate_state(1)[0]),
        max_new_tokens=study.max_new_tokens,
    )
    return float(rewards_of(_said, prompts, drawn, tokenizer, config).double().mean())


def _said(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [reviews.gold(x, y) for x, y in zip(prompts, responses, strict=True)]


# The stored result --------------------------------------------------------------------------------


def run_name(way: str, rate: float) -> str:
    """Under which name a run is stored."""
    return f"{way}, rate {rate:g}"


def best_rate(study: AdapterStudy, way: str, runs: Mapping[str, Mapping[str, Any]]) -> float:
    """The learning rate of the lowest mean loss on held-out pairs, over the tuning seeds alone.

    Args:
        runs: records by name and seed, as they are stored.
    """

    def loss(rate: float) -> float:
        found = runs[run_name(way, rate)]
        return float(np.mean([found[str(s)]["held_out_loss"] for s in study.tuning_seeds]))

    return min(study.rates[way], key=loss)


def load(path: Path | str = STORED) -> dict[str, Any]:
    """The stored result: settings, made_with, cpu_seconds, and runs by name and seed.

    Raises:
        DataNotFoundError: there is none, or it cannot be read.
    """
    return read_stored(path, "python -m irlbook.posttraining.adapter_study")


def main(arguments: Sequence[str] | None = None, study: AdapterStudy | None = None) -> int:
    """Make all runs and write the file, or check the one that there is."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.posttraining.adapter_study", description=main.__doc__
    )
    parser.add_argument("--out", type=Path, default=STORED)
    parser.add_argument("--parts", type=Path, help="folder of the runs that are done")
    parser.add_argument("--check", action="store_true", help="train seed 0 anew, and compare")
    given = parser.parse_args(arguments)
    study = study or AdapterStudy()
    torch.set_num_threads(1)
    if given.check:
        return _check(study, load(given.out)["runs"])
    parts = given.parts or given.out.with_suffix(".parts")
    stored = StoredRuns(STORED.stem, asdict(study), parts=parts)

    def get(way: str, rate: float, seed: int) -> dict[str, Any]:
        name = run_name(way, rate)
        found = stored.get(name, seed, partial(tuned, study, way, rate, seed))
        print(f"{name}, seed {seed}: {found['held_out_loss']:.4f}", file=sys.stderr, flush=True)
        return found

    runs = {
        run_name(way, rate): {str(seed): get(way, rate, seed) for seed in study.tuning_seeds}
        for way in WAYS
        for rate in study.rates[way]
    }
    for way in WAYS:
        rate = best_rate(study, way, runs)
        for seed in study.seeds:
            get(way, rate, seed)
    bundle(parts, given.out)
    return 0


def _check(study: AdapterStudy, runs: Mapping[str, Mapping[str, Any]]) -> int:
    """Whether the losses of seed 0's first steps are those that are stored, both ways."""
    gaps = []
    for way in WAYS:
        rate = best_rate(study, way, runs)
        made = tuned(study, way, rate, study.seeds[0])["losses"]
        kept = runs[run_name(way, rate)][str(study.seeds[0])]["losses"]
        gaps.append(float(np.abs(np.subtract(made, kept)).max()))
    print(f"losses of the first {_SHOWN} steps differ by at most {max(gaps):.2g}")
    return int(not max(gaps) < 1e-3)


if __name__ == "__main__":
    raise SystemExit(as_command(main))
