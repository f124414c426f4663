"""The study of chapter 15: policies trained on a learned reward until gold falls.

Several conditions (more pairs, a larger price of KL, ensembles, a length penalty ...), each from
several seeds. A seed sets everything: which starting model, labels, first weights of the reward
models, prompts and samples. That takes longer than a chapter may, so its result ships with the
package, and this is how it was made:

    python -m irlbook.posttraining.over_optimization_study
    python -m irlbook.posttraining.over_optimization_study --longer

A run that was killed goes on where it stopped; with `--check` one run is begun anew and compared
with what is stored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from irlbook.errors import (
    CheckpointError,
    DataNotFoundError,
    EndlessResponsesWarning,
    as_command,
)
from irlbook.lm import models
from irlbook.lm.sampling import Samples
from irlbook.lm.tokenization import decode, pad_id
from irlbook.lm.trees import Group
from irlbook.posttraining import book_models, pipeline, reward_model
from irlbook.posttraining.best_of_n import best_of_n_curve
from irlbook.posttraining.configs import How, OnlineConfig, Pooling
from irlbook.posttraining.online import OnlineResult, train_online
from irlbook.posttraining.over_optimization import (
    LengthPenalty,
    RewardEnsemble,
    Rule,
    Watch,
)
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.posttraining.rollouts import PolicyScorer, draw, rewards_of
from irlbook.posttraining.stored_runs import RESULTS, read_stored
from irlbook.profiles import Profile
from irlbook.tasks import reviews
from irlbook.training.checkpoints import write_whole
from irlbook.training.config import StepConfig, TrainingConfig
from irlbook.training.loop import score, train

__all__ = [
    "CHOSEN_BY",
    "COLUMNS",
    "CONDITIONS",
    "Condition",
    "LONGER",
    "LONGER_CONDITIONS",
    "LOOKED_AT",
    "Looks",
    "Material",
    "Results",
    "STORED",
    "STORED_LONGER",
    "Study",
    "choose",
    "compare",
    "load",
    "main",
    "record",
    "run",
    "sweep",
    "versions",
]

STORED = RESULTS / "over_optimization.json"
STORED_LONGER = STORED.with_name("over_optimization_longer.json")


@dataclass(frozen=True)
class Condition:
    """What one run differs in from the plain one."""

    pairs: int = 1_500  # labels that the reward model learns from
    pooling: Pooling = "sum"  # where its head is read: a sum over tokens can grow with length
    members: int = 1  # reward models: the same labels, another starting model and head each
    how: How = "mean"
    weight: float = 0.5  # uncertainty: of the variance
    beta: float = 0.05  # price of a nat, in standard deviations of the reward
    length_price: float = 0.0  # the same a token
    oracle: bool = False  # train on gold itself: is it the optimiser, or the proxy?


CONDITIONS: dict[str, Condition] = {
    "plain": Condition(),
    "300 pairs": Condition(pairs=300),
    "4,000 pairs": Condition(pairs=4_000),
    "beta 0.2": Condition(beta=0.2),
    "beta 0.5": Condition(beta=0.5),
    "mean of 3": Condition(members=3),
    "worst of 3": Condition(members=3, how="worst"),
    "uncertainty of 3": Condition(members=3, how="uncertainty"),
    "length penalty": Condition(length_price=0.05),
    "last token": Condition(pooling="last"),
    "gold": Condition(oracle=True),
}


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    iterations: int = 32
    prompts: int = 24  # of an iteration
    samples: int = 4  # responses to each
    learning_rate: float = 6e-4
    max_new_tokens: int = 64
    reward_epochs: int = 2
    reward_rate: float = 1e-3
    choice_prompts: int = 48  # best of n: prompts
    choice_samples: int = 128  # best of n: responses to each; 0 leaves it out
    ns: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    look_every: int = 8  # iterations between looks at samples of fixed prompts


LONGER = Study(iterations=48, choice_samples=0)
"""Half as long again, for the conditions below: is a fall prevented, or put off?"""
LONGER_CONDITIONS = {name: CONDITIONS[name] for name in ("plain", "worst of 3", "beta 0.2")}

LOOKED_AT = tuple(
    template.format(tone=tone, topic=topic)
    for template, tone, topic in zip(
        reviews.TEMPLATES, ("bitter", "happy", "warm"), ("bus", "cafe", "book"), strict=True
    )
)


class Material:
    """What one seed's runs are made of. Reward models are trained when they are first asked for.

    The starting models are five; seed s starts from number s mod 5, and all else differs.

    Args:
        profile: another model or device. Learning rates are then a hundredth: the study's belong to
            the book's tiny models.
    """

    def __init__(
        self, seed: int, study: Study | None = None, profile: Profile | None = None
    ) -> None:
        self.seed, self.study = seed, study or Study()
        self.profile = profile or Profile()
        self.faster = 1.0 if self.profile.model is None else 0.01
        self.base = seed % len(book_models.SEEDS)
        self.model, self.tokenizer = book_models.load(self.base, self.profile)
        self.prompts = list(reviews.PROMPTS)
        self.pad = pad_id(self.tokenizer)
        self._rewards: dict[tuple, nn.Module] = {}

    @cached_property
    def drawn(self) -> list[Group]:
        """Four samples of the start to each of the world's prompts: what rewards are scaled on."""
        return self.sample(self.model, self.prompts, 4, 1).groups

    def sample(self, model: Any, prompts: Sequence[str], n: int, stream: int) -> Samples:
        """Samples that depend on the seed and the stream."""
        return draw(
            PolicyScorer(model),
            self.tokenizer,
            prompts,
            n,
            self.scoring,
            seeds=int(np.random.SeedSequence([self.seed, stream]).generate_state(1)[0]),
            max_new_tokens=self.study.max_new_tokens,
        )

    @property
    def scoring(self) -> StepConfig:
        """Device and precision."""
        return StepConfig(
            device=self.profile.device,
            precision=self.profile.precision,
            progress=False,
            tensorboard=False,
        )

    def pairs(self, n: int = 1_500, labels: int = 0) -> list[Group]:
        """(prompt, [preferred, other]) of n labelled pairs; `labels` are others altogether."""
        rng = np.random.default_rng([self.seed, 15, labels])
        return pipeline.encode(reviews.preferences(n, rng), self.tokenizer, 512).groups

    def fresh(self, member: int = 0, head: int | None = None) -> nn.Module:
        """A reward model before any training: a start with a new head, drawn from the seed `head`.

        Args:
            member: which start, counted from the seed's own. head: None is that of `trained()`.
        """
        folder = book_models.folder((self.base + member) % len(book_models.SEEDS), self.profile)
        head = 100 * self.seed if head is None else head
        return models.load_reward_model(folder, self.profile.device, new_head=True, seed=head)[0]

    def trained(
        self, pairs: int = 1_500, pooling: Pooling = "sum", member: int = 0, labels: int = 0
    ) -> nn.Module:
        """A reward model. `member` is another start and head, `labels` other pairs altogether."""
        key = (pairs, pooling, member, labels)
        if key not in self._rewards:
            head = 100 * self.seed + 10 * labels + member
            scorer = RewardScorer(self.fresh(member, head), pooling)
            config = TrainingConfig(
                **asdict(self.scoring) | {"learning_rate": self.study.reward_rate * self.faster},
                epochs=self.study.reward_epochs,
                batch_size=32,
                seed=head,
            )
            coded = self.pairs(pairs, labels)
            train(scorer, coded, reward_model.objective(), config, pad_id=self.pad)
            self._rewards[key] = scorer.eval().requires_grad_(False)
        return self._rewards[key]

    def reward(self, condition: Condition | None = None) -> nn.Module:
        """The standardised reward of a condition."""
        c = condition or Condition()
        members = [self.trained(c.pairs, c.pooling, member) for member in range(c.members)]
        found: nn.Module = RewardEnsemble(members, c.how, c.weight).standardise(
            self.drawn, self.scoring, self.pad
        )
        if c.length_price:
            usual = np.mean([len(y) for _, answers in self.drawn for y in answers])
            found = LengthPenalty(found, c.length_price, float(usual))
        return found.eval().requires_grad_(False)

    def gold_reward(self) -> Callable[[list[str], list[str]], list[float]]:
        """Gold in its own standard units, as the reward of the control."""
        texts = [[decode(self.tokenizer, y) for y in ys] for _, ys in self.drawn]
        found = [reviews.gold(p, y) for p, ys in zip(self.prompts, texts, strict=True) for y in ys]
        centre, scale = float(np.mean(found)), float(np.std(found, ddof=1))

        def reward(prompts: list[str], responses: list[str]) -> list[float]:
            pairs = zip(prompts, responses, strict=True)
            return [(reviews.gold(p, y) - centre) / scale for p, y in pairs]

        return reward

    def spectators(self, pairs: int = 1_500) -> dict[str, nn.Module]:
        """Reward models that other pairs made from another start, read at both places."""
        found = {
            f"watch_{pooling}": RewardEnsemble([self.trained(pairs, pooling, member=1, labels=1)])
            for pooling in ("sum", "last")
        }
        return {k: m.standardise(self.drawn, self.scoring, self.pad) for k, m in found.items()}

    def config(self, condition: Condition | None = None) -> OnlineConfig:
        """Settings of a condition's run: RLOO, the KL as a penalty in the reward."""
        s, c = self.study, condition or Condition()
        return OnlineConfig(
            method="rloo",
            iterations=s.iterations,
            prompts=s.prompts,
            samples=s.samples,
            max_new_tokens=s.max_new_tokens,
            beta=c.beta,
            max_kl=1e4,  # the break is what we want to see
            training=replace(
                self.scoring,
                learning_rate=s.learning_rate * self.faster,
                final_learning_rate=1.0,
                warmup=0.0,
                weight_decay=0.0,
                evaluate_every=1,
            ),
        )


@dataclass
class Looks:
    """The gold reward that also keeps its parts, and texts of fixed prompts now and then."""

    material: Material
    parts: list[dict[str, float]] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)

    def gold(self, prompts: list[str], responses: list[str]) -> list[float]:
        """(R,) gold; the mean contribution of each of its parts is kept."""
        found = [reviews.breakdown(p, y) for p, y in zip(prompts, responses, strict=True)]
        each = [b.contributions() for b in found]
        self.parts.append({name: float(np.mean([c[name] for c in each])) for name in each[0]})
        return [b.total for b in found]

    def look(self, policy: Any, iteration: int) -> None:
        """One sample to each of `LOOKED_AT`, with the same random numbers each time."""
        drawn = self.material.sample(policy, LOOKED_AT, 1, 2)
        for prompt, answer in zip(LOOKED_AT, drawn.responses, strict=True):
            text = decode(self.material.tokenizer, answer).strip()
            self.texts.append({"iteration": iteration, "prompt": prompt, "response": text})


def run(
    material: Material,
    condition: Condition | None = None,
    *,
    iterations: int | None = None,
    spectators: bool = False,
    stop: Rule | None = None,
    progress: bool = False,
) -> tuple[OnlineResult, Looks]:
    """Train the start of one seed on a condition's reward, and measure gold all the way.

    Args:
        iterations: fewer than the study's: the beginning of the same run.
        spectators: let held-out reward models score the samples too.
        stop: a rule on the rows, which hold no gold.
    """
    config = material.config(condition)
    config = replace(
        config,
        iterations=iterations or config.iterations,
        training=replace(config.training, progress=progress),
    )
    condition = condition or Condition()
    watch = None
    if not condition.oracle:
        others = material.spectators(condition.pairs) if spectators else {}
        watch = Watch(material.reward(condition), others)
    looks = Looks(material)
    looks.look(material.model, 0)
    done = 0

    def evaluate(policy: Any) -> dict[str, float]:
        nonlocal done
        done += 1
        if done % material.study.look_every == 0:
            looks.look(policy, done)
        return {} if watch is None else watch.take()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EndlessResponsesWarning)  # what the study is about
        result = train_online(
            material.model,
            material.tokenizer,
            material.prompts,
            watch or material.gold_reward(),
            config,
            seed=material.seed,
            gold=looks.gold,
            evaluate=evaluate,
            stop=stop,
        )
    return result, looks


COLUMNS = ("reward", "gold", "kl", "length", "ended", "entropy", "grad_norm")


def record(result: OnlineResult, looks: Looks) -> dict[str, Any]:
    """What is stored of a run: columns over iterations, four digits."""
    names = [n for n in result.history[0] if n in COLUMNS or n.startswith("watch_")]
    columns = {name: _rounded(result.column(name)) for name in names}
    parts = {k: _rounded([p[k] for p in looks.parts]) for k in looks.parts[0]}
    return {"columns": columns, "parts": parts, "texts": looks.texts}


CHOSEN_BY = (
    *("plain", "300 pairs", "4,000 pairs", "last token"),
    *("mean of 3", "worst of 3", "uncertainty of 3", "gold"),
)


def choose(
    material: Material, conditions: Mapping[str, Condition] = CONDITIONS
) -> dict[str, dict[str, list[float]]]:
    """Proxy and gold of the best of n of the start's samples, by each of `CHOSEN_BY`'s rewards."""
    s = material.study
    rng = np.random.default_rng([material.seed, 3])
    asked = [
        material.prompts[i] for i in rng.choice(len(material.prompts), s.choice_prompts, False)
    ]
    drawn = material.sample(material.model, asked, s.choice_samples, 4)
    gold = rewards_of(_gold, asked, drawn, material.tokenizer, material.scoring).numpy()  # (P, k)
    rows = [(x, ys[i : i + 8]) for x, ys in drawn.groups for i in range(0, len(ys), 8)]
    said: dict[nn.Module, Tensor] = {}
    found = {}
    for name in (name for name in CHOSEN_BY if name in conditions):
        rewards = gold
        if not conditions[name].oracle:
            ensemble: Any = material.reward(conditions[name])
            for member in ensemble.members:
                if member not in said:
                    said[member] = score(member, rows, 8, material.scoring, material.pad).flatten()
            joined = ensemble.join(torch.stack([said[member] for member in ensemble.members]))
            rewards = joined.double().numpy()
        curve = best_of_n_curve(rewards.reshape(gold.shape), gold, s.ns, rng=rng, resamples=2)
        found[name] = {"proxy": _rounded(curve.proxy), "gold": _rounded(curve.gold)}
    return found


def _gold(prompts: list[str], responses: list[str]) -> list[float]:
    return [reviews.gold(p, y) for p, y in zip(prompts, responses, strict=True)]


def _rounded(values: Any) -> list[float]:
    return [round(float(v), 4) for v in values]


# The stored result --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """What the study found.

    Attributes:
        raw: the file. study: the settings.
    """

    raw: dict[str, Any]

    @property
    def study(self) -> Study:
        raw: dict[str, Any] = self.raw["study"]
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return Study(**given)

    def seeds(self, condition: str = "plain") -> tuple[int, ...]:
        """(S,) from which a condition was run."""
        return tuple(int(seed) for seed in self._runs(condition))

    @property
    def conditions(self) -> list[str]:
        return list(self.raw["runs"])

    def column(self, condition: str, name: str) -> np.ndarray:
        """(S, T) a column of a condition's runs, one row a seed."""
        return np.array([run["columns"][name] for run in self._runs(condition).values()])

    def parts(self, condition: str) -> dict[str, np.ndarray]:
        """The parts of gold, each (S, T): what it contributed to the mean."""
        runs = list(self._runs(condition).values())
        return {name: np.array([run["parts"][name] for run in runs]) for name in runs[0]["parts"]}

    def rows(self, condition: str, seed: int) -> list[dict[str, float]]:
        """A run as a stopping rule sees it: without gold."""
        columns = self.raw["runs"][condition][str(seed)]["columns"]
        names = [name for name in columns if "gold" not in name]
        return [
            dict(zip(names, values, strict=True))
            for values in zip(*(columns[name] for name in names), strict=True)
        ]

    def texts(self, condition: str, seed: int) -> list[dict[str, Any]]:
        """Samples to fixed prompts: iteration, prompt, response."""
        return self.raw["runs"][condition][str(seed)]["texts"]

    def best_of_n(self, reward: str, name: Literal["proxy", "gold"]) -> np.ndarray:
        """(S, N) of the best of n by a reward."""
        return np.array([found[reward][name] for found in self.raw["best_of_n"].values()])

    def _runs(self, condition: str) -> dict[str, dict[str, Any]]:
        if condition not in self.raw["runs"]:
            raise DataNotFoundError(
                f"no condition {condition!r} is stored; there are {', '.join(self.raw['runs'])}."
            )
        return self.raw["runs"][condition]


def load(path: Path | str = STORED) -> Results:
    """The stored result.

    Raises:
        DataNotFoundError: there is none, or it cannot be read.
    """
    return Results(read_stored(path, "python -m irlbook.posttraining.over_optimization_study"))


def sweep(
    out: Path | str = STORED,
    study: Study | None = None,
    conditions: Mapping[str, Condition] = CONDITIONS,
    *,
    parts: Path | str | None = None,
    progress: bool = True,
) -> Results:
    """Run every condition from every seed, and write what was found as one file.

    Each run is kept in `parts` as soon as it is done, all or nothing, under a name made of its
    settings. The same call again goes on with the runs that are missing; other settings give other
    names, so results of two studies do not mix.
    """
    from tqdm import tqdm

    out, study = Path(out), study or Study()
    kept = Path(parts) if parts is not None else out.with_suffix(".parts")
    choosing = (None,) if study.choice_samples else ()
    jobs = [(seed, name) for seed in study.seeds for name in (*conditions, *choosing)]
    runs: dict[str, dict[str, Any]] = {name: {} for name in conditions}
    choices: dict[str, Any] = {}
    material: Material | None = None
    spent = 0.0
    for seed, name in tqdm(jobs, disable=None if progress else True, file=sys.stderr, unit="run"):
        own = replace(study, seeds=())  # a run does not depend on what other seeds there are
        what = "best of n" if name is None else asdict(conditions[name])
        key = json.dumps([seed, what, asdict(own)], sort_keys=True)
        path = kept / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        found = _read_part(path)
        if found is None:
            if material is None or material.seed != seed:
                material = Material(seed, study)
            began = time.process_time()
            if name is None:
                found = {"choices": choose(material, conditions)}
            else:
                watched = name == "plain" and bool(choosing)
                found = record(*run(material, conditions[name], spectators=watched))
            found["seconds"] = round(time.process_time() - began, 1)
            text = json.dumps(found)
            write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))
        spent += found.pop("seconds")
        if name is None:
            choices[str(seed)] = found["choices"]
        else:
            runs[name][str(seed)] = found
    raw = {
        "study": asdict(study),
        "conditions": {name: asdict(c) for name, c in conditions.items()},
        "made_with": versions(),
        "cpu_seconds": round(spent),
        "runs": runs,
        "best_of_n": choices,
    }
    text = json.dumps(_plain(raw), separators=(",", ":")) + "\n"
    write_whole(out, lambda to: to.write_text(text, encoding="utf-8"))
    return load(out)


def _read_part(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Remove it to run it again."
        ) from error


def _plain(value: Any) -> Any:
    """NaN, which JSON does not have, as null."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """What made the numbers: they are the same only up to rounding elsewhere."""
    packages = ("irlbook", "torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def compare(
    stored: Results, result: OnlineResult, condition: str, seed: int, iterations: int = 3
) -> float:
    """Mean difference in reward, gold and KL between a run and the stored one, at its start.

    Rounding differs between machines, and grows: the beginnings of two runs can be compared, their
    ends cannot. On another machine a sample in a few hundred may already differ (0.01); runs from
    different seeds are 0.1 apart.
    """
    i = stored.seeds(condition).index(seed)
    gaps = [
        np.abs(result.column(name)[:iterations] - stored.column(condition, name)[i, :iterations])
        for name in ("reward", "gold", "kl")
    ]
    return float(np.mean(gaps))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.posttraining.over_optimization_study", description=sweep.__doc__
    )
    parser.add_argument(
        "--longer", action="store_true", help="fewer conditions, half as long again"
    )
    parser.add_argument("--out", type=Path, help="a file; that of the package, if not given")
    parser.add_argument("--parts", type=Path, help="folder of the runs that are done")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(Study.seeds))
    parser.add_argument("--check", action="store_true", help="begin seed 0's plain run anew")
    given = parser.parse_args(arguments)
    out = given.out or (STORED_LONGER if given.longer else STORED)
    if given.check:
        stored = load(out)
        result, _ = run(Material(0, stored.study), iterations=3)
        gap = compare(stored, result, "plain", 0)
        print(f"mean difference in the first three iterations: {gap:.2g}")
        return int(not gap < 0.04)
    study, conditions = (LONGER, LONGER_CONDITIONS) if given.longer else (Study(), CONDITIONS)
    found = sweep(out, replace(study, seeds=tuple(given.seeds)), conditions, parts=given.parts)
    print(f"{out}: {found.raw['cpu_seconds']} CPU-seconds")
    return 0


if __name__ == "__main__":
    raise SystemExit(as_command(main))
