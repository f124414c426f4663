"""The study of chapter 18: what demonstrations alone are good for, where they are and where not.

A seed sets everything: which starting model, which six of the eight topics are demonstrated and
which 48 of their 72 prompts, the demonstrations, all samples. What is learned is judged on prompts
that were demonstrated, on other prompts of the same topics, and on the two other topics.
Four jobs a seed:

    choice     SFT, seven rewards from the same demonstrations, best of n by each, judged by gold
    rl worst   reinforcement learning on the reward that was chosen beforehand
    rl gold    the same on gold, for comparison
    longer     SFT at the compute of RL on gold, looked at on the way

That takes longer than a chapter may, so the result ships with the package:

    python -m irlbook.posttraining.demonstration_study

A job is kept as soon as it is done, and the same command goes on with those that are missing; with
`--check` the SFT of seed 0 is made anew and its samples' gold compared with what is stored.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from irlbook.data.records import Demonstration
from irlbook.errors import DataNotFoundError, as_command
from irlbook.lm import models
from irlbook.lm.logprobs import ResponseScorer, sequence_logps, token_logps
from irlbook.lm.sampling import Samples
from irlbook.lm.tokenization import decode, pad_id
from irlbook.lm.trees import Group, Tree
from irlbook.posttraining import book_models, pipeline, reward_model, sft
from irlbook.posttraining.best_of_n import best_of_n_curve
from irlbook.posttraining.configs import OnlineConfig, RewardConfig
from irlbook.posttraining.demonstration_reward import LogRatioReward, demonstration_pairs
from irlbook.posttraining.online import train_online
from irlbook.posttraining.over_optimization import RewardEnsemble
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.posttraining.rollouts import PolicyScorer, draw, rewards_of
from irlbook.posttraining.stored_runs import RESULTS, StoredRuns, bundle, read_stored
from irlbook.tasks import reviews
from irlbook.tasks.reviews import EXPERT
from irlbook.training.config import StepConfig, TrainingConfig
from irlbook.training.loop import evaluate_objective, score, train

__all__ = [
    "CHOSEN_BEFOREHAND",
    "Demonstrated",
    "JOBS",
    "MeanLogProbability",
    "REWARDS",
    "STORED",
    "Settings",
    "choice",
    "command",
    "do",
    "load",
    "longer",
    "make_all",
    "reinforced",
]

STORED = RESULTS / "demonstrations.json"
REWARDS = (
    "log-ratio",
    "worst of 3",
    "mean of 3",
    "mean log-probability",
    "SFT against start",
    "demonstrations against start",
    "demonstrations against SFT",
    "gold",
)
CHOSEN_BEFOREHAND = "worst of 3"
JOBS = ("choice", "rl worst", "rl gold", "longer")


@dataclass(frozen=True)
class Settings:
    """What all jobs share."""

    demonstrations: int = 1_000
    topics_held_out: int = 2
    prompts_held_out: int = 24  # of the other topics
    steps: int = 150  # of SFT, 32 demonstrations each
    longer_steps: int = 250  # as many passes of a response through a model as RL on gold takes
    learning_rate: float = 1e-3  # of SFT and of discriminators
    epochs: float = 1.0  # of discriminators
    samples: int = 32  # best of n: responses to each prompt
    ns: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    iterations: int = 20  # of RL
    prompts: int = 24  # of an iteration
    group: int = 4  # responses to each
    rl_rate: float = 6e-4
    beta: float = 0.05  # price of a nat, in standard deviations of the reward
    max_new_tokens: int = 64
    look_samples: int = 8  # responses to each prompt when a policy is looked at


class MeanLogProbability(nn.Module):
    """r(x, y) = log pi(y|x) / |y|: how usual a response is, a control without a ratio."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy: Any = policy

    def forward(self, tree: Tree) -> torch.Tensor:
        """(R,) nats per token."""
        return sequence_logps(token_logps(self.policy, tree), tree.lengths) / tree.lengths


class Demonstrated:
    """What one seed's jobs are made of; each thing is made when it is first asked for."""

    def __init__(self, seed: int, study: Settings | None = None) -> None:
        self.seed, self.study = seed, study or Settings()
        self.base = seed % len(book_models.SEEDS)
        self.tokenizer = book_models.load(self.base)[1]
        self.pad = pad_id(self.tokenizer)
        rng = np.random.default_rng([seed, 18])
        topics = list(reviews.TOPICS)
        out = rng.choice(len(topics), self.study.topics_held_out, replace=False)
        self.topics_held_out = tuple(topics[i] for i in sorted(out))
        new_topics = [p for p, r in reviews.PROMPTS.items() if r.topic in self.topics_held_out]
        known = [str(p) for p in rng.permutation(sorted(set(reviews.PROMPTS) - set(new_topics)))]
        self.shown_prompts = known[self.study.prompts_held_out :]
        self.judged = {
            "seen": self.shown_prompts[:24],
            "new prompts": known[: self.study.prompts_held_out],
            "new topics": new_topics,
        }
        self.scoring = StepConfig(progress=False, tensorboard=False)
        self._policies: dict[int, nn.Module] = {}

    def demonstrations(
        self, n: int, stream: int, prompts: Sequence[str], reviewer: reviews.Reviewer = EXPERT
    ) -> list[Demonstration]:
        """n reviews of an expert to prompts drawn from a list."""
        rng = np.random.default_rng([self.seed, 18, stream])
        asked = [prompts[i] for i in rng.integers(len(prompts), size=n)]
        return [Demonstration(prompt, reviewer.write(prompt, rng)) for prompt in asked]

    @cached_property
    def shown(self) -> list[Demonstration]:
        """The demonstrations, on six topics."""
        return self.demonstrations(self.study.demonstrations, 0, self.shown_prompts)

    def coded(self, records: Sequence[Any]) -> list[Group]:
        """Token ids."""
        return pipeline.encode(records, self.tokenizer, 512).groups

    def start(self, member: int = 0) -> nn.Module:
        """A starting model; 0 is the seed's own."""
        return book_models.load((self.base + member) % len(book_models.SEEDS))[0].eval()

    def tuned(
        self,
        steps: int,
        member: int = 0,
        shown: Sequence[Demonstration] | None = None,
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    ) -> tuple[nn.Module, list[dict[str, float]]]:
        """(a starting model after SFT on the demonstrations, its history)."""
        policy = self.start(member)
        groups = self.coded(self.shown if shown is None else shown)
        config = TrainingConfig(
            **asdict(self.scoring)
            | {"learning_rate": self.study.learning_rate, "evaluate_every": 125},
            steps=steps,
            seed=self.seed,
        )
        result = train(
            ResponseScorer(policy),
            groups,
            sft.objective(groups),
            config,
            pad_id=self.pad,
            evaluate=None if evaluate is None else partial(evaluate, policy),
        )
        return policy.eval().requires_grad_(False), result.history

    def policy(self, member: int = 0) -> nn.Module:
        """The SFT policy, made once."""
        if member not in self._policies:
            self._policies[member] = self.tuned(self.study.steps, member)[0]
        return self._policies[member]

    def sample(self, model: Any, prompts: Sequence[str], n: int, stream: int) -> Samples:
        """Samples that depend on the seed and the stream."""
        return draw(
            PolicyScorer(model),
            self.tokenizer,
            prompts,
            n,
            self.scoring,
            seeds=int(np.random.SeedSequence([self.seed, 18, stream]).generate_state(1)[0]),
            max_new_tokens=self.study.max_new_tokens,
        )

    def texts(self, drawn: Samples) -> list[str]:
        """The responses as text."""
        return [decode(self.tokenizer, y).strip() for y in drawn.responses]

    def gold(self, prompts: Sequence[str], drawn: Samples) -> np.ndarray:
        """(P, k) gold of samples."""
        return rewards_of(_gold, prompts, drawn, self.tokenizer, self.scoring).double().numpy()

    def looked_at(self, model: nn.Module) -> dict[str, float]:
        """Gold of samples to the three sets of prompts, with the same random numbers each time."""
        n = self.study.look_samples
        return {
            name: float(self.gold(prompts, self.sample(model, prompts, n, 7)).mean())
            for name, prompts in self.judged.items()
        }

    # Rewards

    @cached_property
    def usual(self) -> Samples:
        """Four samples of the start to each demonstrated prompt: what rewards are scaled on."""
        return self.sample(self.start(), self.shown_prompts, 4, 1)

    def log_ratio(self, member: int = 0) -> LogRatioReward:
        """log pi_SFT - log pi_start of one of the starting models."""
        return LogRatioReward(self.policy(member), self.start(member)).eval()

    def scaled(self, members: Sequence[nn.Module], how: Any = "mean") -> RewardEnsemble:
        """One reward of several, in standard deviations on samples of the start."""
        joined = RewardEnsemble(members, how).standardise(self.usual.groups, self.scoring, self.pad)
        return joined.eval().requires_grad_(False)

    def discriminator(
        self, chosen: Sequence[Demonstration], opponent: nn.Module, stream: int
    ) -> RewardScorer:
        """A reward model that tells some responses from an opponent's to the same prompts."""
        prompts = [str(d.prompt) for d in chosen]
        others = self.texts(self.sample(opponent, prompts, 1, stream))
        coded = self.coded(demonstration_pairs(chosen, others))
        model, _ = models.load_reward_model(
            book_models.folder(self.base), "cpu", new_head=True, seed=self.seed
        )
        scorer = RewardScorer(model)
        config = TrainingConfig(
            **asdict(self.scoring) | {"learning_rate": self.study.learning_rate},
            epochs=self.study.epochs,
            seed=self.seed,
        )
        told = reward_model.objective(RewardConfig(loss="classification"))
        train(scorer, coded, told, config, pad_id=self.pad)
        return scorer.eval().requires_grad_(False)

    def drawn_as_demonstrations(self, model: nn.Module, stream: int) -> list[Demonstration]:
        """A policy's samples in the place of demonstrations, to the same prompts."""
        prompts = [d.prompt for d in self.shown]
        texts = self.texts(self.sample(model, [str(p) for p in prompts], 1, stream))
        return [Demonstration(p, y) for p, y in zip(prompts, texts, strict=True)]

    def rewards(self) -> dict[str, nn.Module]:
        """Every reward of `REWARDS` but gold."""
        ratios = [self.log_ratio(member) for member in range(3)]
        tuned, start = self.policy(), self.start()
        found: dict[str, nn.Module] = {
            "log-ratio": ratios[0],
            "worst of 3": self.scaled(ratios, "worst"),
            "mean of 3": self.scaled(ratios, "mean"),
            "mean log-probability": MeanLogProbability(tuned),
            "SFT against start": self.discriminator(
                self.drawn_as_demonstrations(tuned, 2), start, 3
            ),
            "demonstrations against start": self.discriminator(self.shown, start, 3),
            "demonstrations against SFT": self.discriminator(self.shown, tuned, 4),
        }
        return found

    def told_apart(self, reward: nn.Module, opponent: nn.Module) -> float:
        """Share of fresh demonstrations that score above an opponent's sample to their prompt."""
        fresh = self.demonstrations(256, 5, self.shown_prompts)
        others = self.texts(self.sample(opponent, [str(d.prompt) for d in fresh], 1, 6))
        found = score(reward, self.coded(demonstration_pairs(fresh, others)), 2, None, self.pad)
        return float((found[:, 0] > found[:, 1]).double().mean())


def _gold(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [reviews.gold(p, y) for p, y in zip(prompts, responses, strict=True)]


# Jobs ---------------------------------------------------------------------------------------------


def choice(material: Demonstrated) -> dict[str, Any]:
    """Best of n of the SFT policy's samples by each reward, and what each reward sees."""
    s, rng = material.study, np.random.default_rng([material.seed, 18, 9])
    rewards, tuned, start = material.rewards(), material.policy(), material.start()
    found: dict[str, Any] = {"new_topics": list(material.topics_held_out), "look": {}}
    for name, prompts in material.judged.items():
        drawn = material.sample(tuned, prompts, s.samples, 8)
        usual = material.sample(start, prompts, 16, 8)
        gold, usual_gold = material.gold(prompts, drawn), material.gold(prompts, usual)
        rows = {"start": float(usual_gold.mean()), "sft": float(gold.mean())}
        rows["length"] = float(np.mean([len(y) for y in drawn.responses]))
        curves: dict[str, Any] = {}
        for reward in REWARDS:
            if reward == "gold":
                said, usual_said = gold, usual_gold
            else:
                said, usual_said = (
                    _rewards(rewards[reward], one, material) for one in (drawn, usual)
                )
            curve = best_of_n_curve(said, gold, s.ns, rng=rng, resamples=2)
            curves[reward] = {
                "gold": curve.gold,
                "rank": _rank(said, gold),
                "rank_start": _rank(usual_said, usual_gold),
            }
        found["look"][name] = rows | {"curves": curves}
    against = {"demonstrations against start": start, "demonstrations against SFT": tuned}
    found["told_apart"] = {
        name: material.told_apart(rewards[name], opponent) for name, opponent in against.items()
    }
    return found


def _rank(said: np.ndarray, gold: np.ndarray) -> float:
    """Mean rank correlation over the prompts whose gold differs; (P, k) each."""
    rows = zip(said, gold, strict=True)
    return float(np.mean([spearmanr(r, g).statistic for r, g in rows if np.ptp(g) > 0]))


def _rewards(reward: nn.Module, drawn: Samples, material: Demonstrated) -> np.ndarray:
    """(P, k), in rows of eight responses, which a batch holds more evenly."""
    k = len(drawn.groups[0][1])
    rows = [(x, ys[i : i + 8]) for x, ys in drawn.groups for i in range(0, k, 8)]
    found = score(reward, rows, 8, material.scoring, material.pad)
    return found.double().numpy().reshape(-1, k)


def longer(material: Demonstrated) -> dict[str, Any]:
    """SFT for longer: gold on three sets of prompts, the loss on four sets of demonstrations."""
    sets = {
        "trained": material.shown[:256],
        **{k: material.demonstrations(256, 12, asked) for k, asked in material.judged.items()},
    }
    coded = {name: material.coded(texts) for name, texts in sets.items()}
    looking = 0.0

    def evaluate(policy: nn.Module) -> dict[str, float]:
        nonlocal looking
        began, scorer = time.process_time(), ResponseScorer(policy)
        row = {f"gold {k}": v for k, v in material.looked_at(policy).items()}
        for name, groups in coded.items():
            told, config = sft.objective(groups), TrainingConfig(progress=False)
            found = evaluate_objective(
                scorer, groups, told, config, pad_id=material.pad, prefix=""
            )()
            row[f"loss {name}"] = found["loss"]
        looking += time.process_time() - began
        return row

    began = time.process_time()
    _, history = material.tuned(material.study.longer_steps, evaluate=evaluate)
    rows = [row for row in history if "gold seen" in row]
    names = ["step", *(name for name in rows[0] if name.startswith(("gold ", "loss ")))]
    seconds = time.process_time() - began - looking
    return {name: [row[name] for row in rows] for name in names} | {"cpu": round(seconds, 1)}


def reinforced(material: Demonstrated, on_gold: bool) -> dict[str, Any]:
    """RLOO from the SFT policy on the demonstrated topics, looked at on all."""
    s, policy = material.study, copy.deepcopy(material.policy()).requires_grad_(True)
    reward: Any = None
    if on_gold:
        golds = material.gold(material.shown_prompts, material.usual)
        centre, scale = float(golds.mean()), float(golds.std(ddof=1))

        def reward(prompts: list[Any], responses: list[str]) -> list[float]:
            return [(g - centre) / scale for g in _gold(prompts, responses)]
    else:
        reward = material.scaled([material.log_ratio(m) for m in range(3)], "worst")
    config = OnlineConfig(
        method="rloo",
        iterations=s.iterations,
        prompts=s.prompts,
        samples=s.group,
        max_new_tokens=s.max_new_tokens,
        beta=s.beta,
        max_kl=1e4,
        training=replace(
            material.scoring,
            learning_rate=s.rl_rate,
            final_learning_rate=1.0,
            warmup=0.0,
            weight_decay=0.0,
            evaluate_every=10,
        ),
    )
    looking = 0.0

    def evaluate(model: nn.Module) -> dict[str, float]:
        nonlocal looking
        began = time.process_time()
        row = {f"gold {k}": v for k, v in material.looked_at(model).items()}
        looking += time.process_time() - began
        return row

    began = time.process_time()
    result = train_online(
        policy,
        material.tokenizer,
        material.shown_prompts,
        reward,
        config,
        seed=material.seed,
        gold=_gold,
        evaluate=evaluate,
    )
    seconds = time.process_time() - began - looking
    before = material.looked_at(policy)
    looks = {
        name: [before[name], *(row[f"gold {name}"] for row in result.history if "gold seen" in row)]
        for name in material.judged
    }
    columns = {c: result.column(c) for c in ("reward", "gold", "kl", "length")}
    return {"looks": looks, "columns": columns, "cpu": round(seconds, 1)}


def do(material: Demonstrated, job: str) -> dict[str, Any]:
    """One job of a seed.

    Raises:
        DataNotFoundError: there is no such job.
    """
    if job in ("choice", "longer"):
        return {"choice": choice, "longer": longer}[job](material)
    if job not in JOBS:
        raise DataNotFoundError(f"there is no job {job!r}; choose from {', '.join(JOBS)}.")
    return reinforced(material, job == "rl gold")


# The stored result --------------------------------------------------------------------------------


def make_all(
    seeds: Sequence[int],
    study: Settings | None = None,
    *,
    parts: Path | str,
    out: Path | str = STORED,
    jobs: Sequence[str] = JOBS,
) -> dict[str, Any]:
    """Every job of every seed, each kept in `parts` when it is done; then all as one file."""
    study = study or Settings()
    runs = StoredRuns(STORED.stem, asdict(study), parts=parts)
    for seed in seeds:
        material = cache(partial(Demonstrated, seed, study))  # made if a job is missing
        for job in jobs:
            runs.get(job, seed, partial(_job, material, job))
            print(f"seed {seed}, {job}", file=sys.stderr, flush=True)
    return bundle(parts, out)


def _job(material: Callable[[], Demonstrated], job: str) -> dict[str, Any]:
    return do(material(), job)


def load(path: Path | str = STORED) -> dict[str, Any]:
    """The stored result: settings, made_with, cpu_seconds, and runs by job and seed.

    Raises:
        DataNotFoundError: there is none, or it cannot be read.
    """
    return read_stored(path, "python -m irlbook.posttraining.demonstration_study")


def command(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.posttraining.demonstration_study", description=make_all.__doc__
    )
    parser.add_argument("--out", type=Path, default=STORED)
    parser.add_argument("--parts", type=Path, help="folder of the jobs that are done")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=JOBS)
    parser.add_argument("--check", action="store_true", help="make seed 0's SFT policy anew")
    given = parser.parse_args(arguments)
    if given.check:
        stored = load(given.out)["runs"]["rl gold"]["0"]["looks"]
        made = Demonstrated(0).looked_at(Demonstrated(0).policy())
        gap = max(abs(made[name] - stored[name][0]) for name in made)
        print(f"gold of seed 0's SFT policy differs from the stored one by {gap:.2g}")
        return int(not gap < 0.2)
    parts = given.parts or given.out.with_suffix(".parts")
    found = make_all(given.seeds, parts=parts, out=given.out, jobs=given.jobs)
    print(f"{given.out}: {found['cpu_seconds']} CPU-seconds")
    return 0


if __name__ == "__main__":
    raise SystemExit(as_command(command))
