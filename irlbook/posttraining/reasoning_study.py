"""The study of chapter 19: a small model of word problems, verified by answers and by steps.

The world is :mod:`irlbook.tasks.remainders`. Each seed trains a model on mostly careful solutions
(85 %) first, and then on those of a careless crowd: most write a guess without steps, many forget
to carry. From this *start* the jobs of a seed follow:

    start       what it writes: greedy, samples, votes
    outcome     GRPO on the answer;          process    GRPO on all steps
    difficulty  RLOO, GRPO and DAPO on prompts that are solved nearly always, at times, or seldom
    choose      outcome and process reward models, and the best of n by each
    scratch     answers without steps: forced out of both models, and learned
    generative  a verifier that says yes or no, against a head
    spurious    GRPO on random rewards, with and without the clip, on format and on wrong answers

That takes longer than a chapter may, so the numbers ship with the package. They were made by

    python -m irlbook.posttraining.reasoning_study --parts FOLDER

which keeps models and each finished job in FOLDER and goes on where it was killed; `--jobs` runs
some of them. `--check` repeats the first steps of one seed.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from irlbook.errors import (
    ConstantRewardWarning,
    DataNotFoundError,
    EndlessResponsesWarning,
    FlatLossWarning,
    as_command,
)
from irlbook.lm import models, tokenization
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.sampling import greedy, sample
from irlbook.lm.trees import Group
from irlbook.posttraining import pipeline, process_rewards, sft
from irlbook.posttraining.configs import OnlineConfig
from irlbook.posttraining.evaluation import best_of_n_gold
from irlbook.posttraining.many_samples import weighted_votes
from irlbook.posttraining.online import train_online
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.posttraining.stored_runs import RESULTS, StoredRuns, bundle, read_stored
from irlbook.tasks import remainders
from irlbook.tasks.arithmetic import Check, Problem, check, final_answer
from irlbook.tasks.remainders import Writer
from irlbook.training.checkpoints import write_whole
from irlbook.training.config import StepConfig, TrainingConfig
from irlbook.training.loop import score, train

__all__ = [
    "BY_LENGTH",
    "CAREFUL",
    "CARELESS",
    "JOBS",
    "LENGTHS",
    "LIMIT",
    "Labelled",
    "Material",
    "NS",
    "SPURIOUS",
    "STORED",
    "Study",
    "beginning",
    "choice_data",
    "choose_job",
    "difficulty_job",
    "generative_job",
    "in_format",
    "labelled",
    "load",
    "luck_of",
    "main",
    "measured",
    "outcome_reward",
    "process_reward",
    "rollout_labels",
    "scratch_job",
    "shared_tokenizer",
    "spurious_job",
    "start_job",
    "sweep",
    "wrong",
]

STORED = RESULTS / "reasoning.json"
LIMIT = 40  # tokens of a solution
CAREFUL: dict[Writer, float] = {"careful": 0.85, "columnwise": 0.15}
CARELESS: dict[Writer, float] = {
    **{"hasty": 0.55, "careful": 0.12, "columnwise": 0.25},
    **{"misread": 0.04, "skipped": 0.04},
}
BY_LENGTH: dict[int, dict[Writer, float]] = {  # of the start of `difficulty`
    1: {"careful": 0.95, "hasty": 0.05},
    2: {"careful": 0.45, "hasty": 0.55},
    3: {"careful": 0.05, "hasty": 0.95},
}
SPURIOUS: dict[str, dict[str, Any]] = {
    "random": {},
    "random, no clip": {"clip_low": 0.999, "clip_high": 1e6},
    "format": {},
    "wrong answers": {},
}


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    careful_steps: int = 1_000  # of supervised training, 32 solutions each
    careless_steps: int = 250
    iterations: int = 24  # of reinforcement learning
    difficulty_iterations: int = 8  # of it on prompts of different difficulty
    difficulty_problems: int = 18
    difficulty_samples: int = 16
    learning_rate: float = 8e-4
    problems: int = 100  # that a policy is measured on
    samples: int = 16  # solutions to each
    choice_problems: int = 120  # that reward models learn from
    choice_samples: int = 12
    choose_from: int = 32  # best of n
    rollouts: int = 6  # completions of a prefix
    spurious_iterations: int = 10


def shared_tokenizer() -> Any:
    """The tokenizer that all seeds share; every number of the world is one token."""
    rng = np.random.default_rng(0)
    mix: dict[Writer, float] = {"careful": 0.5, "columnwise": 0.25, "misread": 0.25}
    shown = remainders.demonstrations(remainders.generate(4_000, rng, steps=(1, 4)), rng, mix)
    return tokenization.train_tokenizer([f"{d.prompt} {d.response} yes no" for d in shown], 420)


# What a seed starts from --------------------------------------------------------------------------


class Material:
    """The models, problems and tokenizer of one seed.

    Args:
        folder: where trained models are kept; None keeps them in memory alone.
    """

    def __init__(self, seed: int, study: Study, folder: Path | None = None) -> None:
        self.seed, self.study, self.folder = seed, study, folder
        self.tokenizer = shared_tokenizer()
        self.pad = tokenization.pad_id(self.tokenizer)
        self.stop = tokenization.stop_ids(self.tokenizer)

    def problems(self, n: int, key: int, steps: tuple[int, int] = (2, 3)) -> list[Problem]:
        """Problems of this seed; another key gives others."""
        return remainders.generate(n, np.random.default_rng([self.seed, key]), steps=steps)

    def taught(
        self, model: Any, shown: Sequence[Any], steps: int, rate: float, key: int = 0
    ) -> tuple[Any, list[float]]:
        """The model after supervised training on demonstrations, and the loss of each step."""
        groups = pipeline.encode(shown, self.tokenizer, 512).groups
        result = train(
            ResponseScorer(model),
            groups,
            sft.objective(groups),
            self._config(steps=steps, learning_rate=rate, seed=self.seed + key),
            pad_id=self.pad,
        )
        return model, [float(loss) for loss in result.column("loss")]

    def _config(self, **settings: Any) -> TrainingConfig:
        return TrainingConfig(batch_size=32, progress=False, tensorboard=False, **settings)

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        """A model that is made once, and then read."""
        if self.folder is None:
            return make()
        path = self.path(name)
        if not (path / "config.json").exists():
            models.save(make(), self.tokenizer, path)
        return models.load_lm(path)[0]

    def path(self, name: str) -> Path:
        """Where a model of this seed and study is kept."""
        if self.folder is None:
            raise DataNotFoundError("reward models begin from a kept start: give a folder.")
        return self.folder / f"{name}-{self.seed}-{_key(replace(self.study, seeds=()))}"

    def _demonstrations(
        self, n: int, key: int, mix: Mapping[Writer, float], steps: tuple[int, int] = (2, 3)
    ) -> list[Any]:
        problems = self.problems(n, key, steps)
        return remainders.demonstrations(problems, np.random.default_rng([self.seed, key, 1]), mix)

    @cached_property
    def careful(self) -> Any:
        """A model of solutions that are mostly careful."""
        s = self.study

        def make() -> Any:
            shown = self._demonstrations(32 * s.careful_steps, 1, CAREFUL, (1, 3))
            model = models.tiny_lm(self.tokenizer, seed=self.seed)
            return self.taught(model, shown, s.careful_steps, 4e-3)[0]

        return self._kept("careful", make)

    @cached_property
    def start(self) -> Any:
        """The same after a careless crowd."""

        def make() -> Any:
            steps = self.study.careless_steps
            shown = self._demonstrations(32 * steps, 2, CARELESS)
            return self.taught(_fresh(self.careful), shown, steps, 2e-3)[0]

        return self._kept("start", make)

    @cached_property
    def by_length(self) -> Any:
        """A start that mostly guesses where problems are long."""

        def make() -> Any:
            shown = []
            for length, mix in BY_LENGTH.items():
                shown += self._demonstrations(3_200, 10 + length, mix, (length, length))
            return self.taught(_fresh(self.careful), shown, self.study.careless_steps, 2e-3)[0]

        return self._kept("by_length", make)

    # Solutions ------------------------------------------------------------------------------------

    def prompts(self, problems: Sequence[Problem]) -> list[list[int]]:
        return [tokenization.encode_prompt(self.tokenizer, p.text) for p in problems]

    def texts(self, responses: Sequence[Sequence[int]]) -> list[str]:
        return [tokenization.decode(self.tokenizer, y).strip() for y in responses]

    @torch.no_grad()
    def solutions(
        self, model: Any, problems: Sequence[Problem], n: int, key: int
    ) -> list[list[str]]:
        """n samples to each problem; n = 0 gives the likeliest one."""
        options: dict[str, Any] = {"max_new_tokens": LIMIT, "stop_ids": self.stop}
        asked = self.prompts(problems)
        model.eval()
        if not n:
            return [[t] for t in self.texts(greedy(model, asked, **options).responses)]
        texts = self.texts(
            sample(model, asked, n, seeds=1_000 * self.seed + key, **options).responses
        )
        return [texts[i * n : (i + 1) * n] for i in range(len(problems))]

    def reinforced(
        self,
        model: Any,
        reward: Callable[[Problem, str], float],
        problems: Sequence[Problem],
        watch: Callable[[], dict[str, float]] | None = None,
        **settings: Any,
    ) -> Any:
        """What `train_online` returns for a reward of problem and solution; GRPO, no price."""
        by_text = {p.text: p for p in problems}
        s = self.study

        def rewards(prompts: Any, responses: list[str]) -> list[float]:
            return [reward(by_text[x], y.strip()) for x, y in zip(prompts, responses, strict=True)]

        config = OnlineConfig(
            **{
                **{"method": "grpo", "iterations": s.iterations, "prompts": 32, "samples": 8},
                **{"beta": 0.0, "max_new_tokens": LIMIT, "max_kl": 1e4},
                **settings,
            },
            training=StepConfig(
                learning_rate=s.learning_rate,
                final_learning_rate=1.0,
                warmup=0.0,
                weight_decay=0.0,
                progress=False,
                tensorboard=False,
                evaluate_every=1 if watch else StepConfig.evaluate_every,
            ),
        )
        with warnings.catch_warnings():
            for kind in (EndlessResponsesWarning, ConstantRewardWarning):
                warnings.simplefilter("ignore", kind)
            return train_online(
                model,
                self.tokenizer,
                list(by_text),
                rewards,
                config,
                seed=self.seed,
                evaluate=(lambda policy: watch()) if watch else None,
            )


def _fresh(model: Any) -> Any:
    return copy.deepcopy(model).train()


def _key(study: Study) -> str:
    return hashlib.sha256(json.dumps(asdict(study), sort_keys=True).encode()).hexdigest()[:10]


def outcome_reward(problem: Problem, solution: str) -> float:
    """1 for the right answer."""
    return float(check(problem, solution).answer_right)


def process_reward(problem: Problem, solution: str) -> float:
    """1 for the right answer by right steps."""
    return float(check(problem, solution).sound)


def in_format(problem: Problem, solution: str) -> float:
    """1 for a step and an answer, whatever they say."""
    return float(bool(check(problem, solution).steps) and final_answer(solution) is not None)


def wrong(problem: Problem, solution: str) -> float:
    """1 for an answer that is wrong."""
    answer = final_answer(solution)
    return float(answer is not None and answer != problem.answer)


# What a policy writes -----------------------------------------------------------------------------


def luck_of(c: Check) -> str:
    """A solution's kind: sound, lucky by a wrong step, lucky otherwise, or wrong."""
    if c.sound:
        return "sound"
    if not c.answer_right:
        return "wrong"
    return "wrong_step" if c.first_wrong is not None else "missing_steps"


def measured(material: Material, model: Any, key: int = 5) -> dict[str, Any]:
    """Greedy and sampled solutions of held-out problems, counted.

    Returns:
        greedy: share right, sound. right, sound: (P,) counts of n samples. votes: (P, 5) of each
        answer, the right one first. kinds: shares of all samples.
    """
    s = material.study
    problems = material.problems(s.problems, key)
    first = [
        check(p, t[0])
        for p, t in zip(problems, material.solutions(model, problems, 0, key), strict=True)
    ]
    drawn = material.solutions(model, problems, s.samples, key)
    checks = [[check(p, t) for t in texts] for p, texts in zip(problems, drawn, strict=True)]
    votes = np.zeros((len(problems), remainders.MODULUS), dtype=int)
    for i, (p, texts) in enumerate(zip(problems, drawn, strict=True)):
        for text in texts:
            answer = final_answer(text)
            if answer is not None and answer in range(remainders.MODULUS):
                votes[i, (int(answer) - p.answer) % remainders.MODULUS] += 1
    kinds = [luck_of(c) for row in checks for c in row]
    return {
        "greedy": {
            "right": float(np.mean([c.answer_right for c in first])),
            "sound": float(np.mean([c.sound for c in first])),
        },
        "n": s.samples,
        "right": [sum(c.answer_right for c in row) for row in checks],
        "sound": [sum(c.sound for c in row) for row in checks],
        "votes": votes.tolist(),
        "kinds": {k: kinds.count(k) / len(kinds) for k in sorted(set(kinds))},
        "with_steps": float(np.mean([bool(c.steps) for row in checks for c in row])),
    }


def start_job(m: Material) -> dict[str, Any]:
    return {"careful": measured(m, m.careful), "start": measured(m, m.start)}


def _trained(
    m: Material, reward: Callable[[Problem, str], float], **settings: Any
) -> dict[str, Any]:
    run = m.reinforced(m.start, reward, m.problems(3_000, 4), **settings)
    return {
        "reward": _short(run.column("reward")),
        "kl": _short(run.column("kl")),
        "entropy": _short(run.column("entropy")),
        "length": _short(run.column("length")),
        "after": measured(m, run.policy),
    }


# With and without scratch work --------------------------------------------------------------------


@torch.no_grad()
def _forced(m: Material, model: Any, problems: Sequence[Problem]) -> float:
    """Mean chance of the right answer, if the solution has to begin with "Answer:"."""
    begin = tokenization.encode_response(m.tokenizer, "Answer:", ended=False)
    answers = [
        tokenization.encode_response(m.tokenizer, f"Answer:{a}", ended=False)[len(begin) :]
        for a in range(remainders.MODULUS)
    ]
    groups = [([*x, *begin], answers) for x in m.prompts(problems)]
    logps = score(ResponseScorer(model), groups, len(answers), m._config(), m.pad)
    chance = torch.softmax(logps.double(), dim=1).numpy()
    return float(np.mean([row[p.answer] for row, p in zip(chance, problems, strict=True)]))


def scratch_job(m: Material) -> dict[str, Any]:
    """Accuracy by the number of steps: with scratch work, forced to do without, taught without."""
    s = m.study
    shown = m._demonstrations(32 * s.careful_steps, 1, {"direct": 1.0}, (1, 3))
    direct = m.taught(models.tiny_lm(m.tokenizer, seed=m.seed), shown, s.careful_steps, 4e-3)[0]
    found: dict[str, Any] = {
        "taught_direct": {},
        "with_steps": {},
        "greedy_steps": {},
        "forced": {},
    }
    for length in (1, 2, 3):
        problems = m.problems(s.problems, 20 + length, (length, length))
        drawn = m.solutions(m.careful, problems, 4, 7)
        likeliest = m.solutions(m.careful, problems, 0, 7)
        for name, texts in (("with_steps", drawn), ("greedy_steps", likeliest)):
            found[name][length] = float(
                np.mean(
                    [
                        outcome_reward(p, t)
                        for p, row in zip(problems, texts, strict=True)
                        for t in row
                    ]
                )
            )
        found["taught_direct"][length] = _forced(m, direct, problems)
        found["forced"][length] = _forced(m, m.careful, problems)
    problems = m.problems(s.problems, 5)
    found["start_forced"] = _forced(m, m.start, problems)
    found["start_steps"] = _after_steps(m, problems)
    return found


def _after_steps(m: Material, problems: Sequence[Problem]) -> float:
    """Share right of the start's samples that have steps."""
    drawn = m.solutions(m.start, problems, 16, 8)
    checks = [check(p, t) for p, row in zip(problems, drawn, strict=True) for t in row]
    with_steps = [c.answer_right for c in checks if c.steps]
    return float(np.mean(with_steps)) if with_steps else 0.0


# Prompts of different difficulty ------------------------------------------------------------------

LENGTHS = {1: "easy", 2: "middle", 3: "hard"}


def difficulty_job(m: Material, method: str) -> dict[str, Any]:
    """Soundness of each class over the iterations, as the method's own samples show it."""
    problems = [p for length in LENGTHS for p in m.problems(1_000, 30 + length, (length, length))]
    seen: dict[str, list[float]] = {name: [] for name in LENGTHS.values()}

    def reward(problem: Problem, solution: str) -> float:
        found = process_reward(problem, solution)
        seen[LENGTHS[len(problem.operations)]].append(found)
        return found

    def take() -> dict[str, float]:
        row = {f"class_{k}": float(np.mean(v)) if v else float("nan") for k, v in seen.items()}
        for values in seen.values():
            values.clear()
        return row

    run = m.reinforced(
        m.by_length,
        reward,
        problems,
        take,
        method=method,
        iterations=m.study.difficulty_iterations,
        prompts=m.study.difficulty_problems,
        samples=m.study.difficulty_samples,
        normalisation="constant",
    )
    return {name: _short(run.column(f"class_{name}")) for name in LENGTHS.values()} | {
        "kl": _short(run.column("kl"))
    }


# Reward models and the best of n ------------------------------------------------------------------


@dataclass
class Labelled:
    """Solutions cut into prefixes.

    Attributes:
        groups: (prompt, [prefix]), one each. oracle: (E,) their labels.
        whole: (E,) which prefixes are whole. owner: (E,) which solution.
        right, sound: (R,) of the solutions.
    """

    groups: list[Group] = field(default_factory=list)
    oracle: list[bool] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    texts: list[tuple[Problem, str]] = field(default_factory=list)  # (E,) problem, prefix
    right: list[bool] = field(default_factory=list)
    sound: list[bool] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)  # -1: none
    first_wrong: list[int] = field(default_factory=list)  # piece of the first fault, -1: none


def labelled(m: Material, problems: Sequence[Problem], drawn: Sequence[Sequence[str]]) -> Labelled:
    """Every prefix of every solution, with the oracle's label."""
    found = Labelled()
    for problem, texts in zip(problems, drawn, strict=True):
        prompt = tokenization.encode_prompt(m.tokenizer, problem.text)
        for text in texts:
            pieces = remainders.steps_of(text) or [""]
            whole = check(problem, text)
            so_far: list[bool] = []
            for i in range(len(pieces)):
                prefix, last = "".join(pieces[: i + 1]), i + 1 == len(pieces)
                c = check(problem, prefix)
                right = c.sound if last else len(c.steps) == i + 1 and c.first_wrong is None
                so_far.append(right)
                found.groups.append(
                    (prompt, [tokenization.encode_response(m.tokenizer, prefix, ended=last)])
                )
                found.whole.append(last)
                found.owner.append(len(found.right))
                found.texts.append((problem, prefix))
            so_far = process_rewards.prefix_labels(so_far).tolist()
            found.oracle += so_far
            answer = final_answer(text)
            known = answer is not None and answer in range(remainders.MODULUS)
            found.answers.append(int(answer) if known and answer is not None else -1)
            found.right.append(whole.answer_right)
            found.sound.append(whole.sound)
            found.first_wrong.append(so_far.index(False) if False in so_far else -1)
    return found


def rollout_labels(m: Material, data: Labelled) -> np.ndarray:
    """(E,) the share of completions of each prefix whose answer is right; of a whole, its own."""
    unique = {
        (p.text, prefix): p
        for (p, prefix), whole in zip(data.texts, data.whole, strict=True)
        if not whole
    }
    asked = [
        [
            *tokenization.encode_prompt(m.tokenizer, text),
            *tokenization.encode_response(m.tokenizer, prefix, ended=False),
        ]
        for text, prefix in unique
    ]
    k = m.study.rollouts
    model = m.start.eval()
    with torch.no_grad():
        drawn = sample(model, asked, k, max_new_tokens=LIMIT, stop_ids=m.stop, seeds=m.seed + 77)
    ends = m.texts(drawn.responses)
    label = {
        key: process_rewards.rollout_label(
            [outcome_reward(p, key[1] + end) for end in ends[i * k : (i + 1) * k]]
        )
        for i, (key, p) in enumerate(unique.items())
    }
    return np.array(
        [
            outcome_reward(p, prefix) if whole else label[p.text, prefix]
            for (p, prefix), whole in zip(data.texts, data.whole, strict=True)
        ]
    )


def _head(m: Material, key: int) -> RewardScorer:
    """A reward model that begins as the start, with a new head."""
    folder = m.path("start")
    model, _ = models.load_reward_model(folder, new_head=True, seed=m.seed + key)
    return RewardScorer(model, "last")


def _fitted(m: Material, groups: list[Group], label: np.ndarray, key: int) -> RewardScorer:
    scorer = _head(m, key)
    config = m._config(epochs=2, learning_rate=1e-3, seed=m.seed + key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlatLossWarning)
        train(
            scorer,
            groups,
            process_rewards.label_objective(),
            config,
            extra={"label": torch.as_tensor(label, dtype=torch.float64)},
            pad_id=m.pad,
        )
    return scorer


def _chances(m: Material, scorer: RewardScorer, groups: list[Group]) -> np.ndarray:
    """(E,) chances that a scorer gives."""
    return torch.sigmoid(score(scorer, groups, 1, m._config(), m.pad)[:, 0].double()).numpy()


NS = (1, 2, 4, 8, 16, 32)


def choice_data(m: Material) -> tuple[Labelled, Labelled]:
    """Solutions that reward models learn from, and those that they choose among."""
    s = m.study
    taught, asked = m.problems(s.choice_problems, 40), m.problems(s.problems, 41)
    own = labelled(m, taught, m.solutions(m.start, taught, s.choice_samples, 42))
    return own, labelled(m, asked, m.solutions(m.start, asked, s.choose_from, 43))


def _aggregated(chances: np.ndarray, data: Labelled, how: process_rewards.Aggregate) -> np.ndarray:
    """(R,) a solution's score from its prefixes' chances."""
    parts = np.split(chances, np.flatnonzero(np.diff(data.owner)) + 1)
    return np.array([process_rewards.solution_score(part, how) for part in parts])


def choose_job(m: Material) -> dict[str, Any]:
    """Best of n by each judge, with the labels' and the judges' own quality."""
    m.start  # noqa: B018  # so that its folder is there
    own, test = choice_data(m)
    by_rollout = rollout_labels(m, own)
    whole = np.flatnonzero(own.whole)
    orm = _fitted(m, [own.groups[i] for i in whole], np.array(own.right, float), 1)
    prm = {
        "oracle": _fitted(m, own.groups, np.array(own.oracle, float), 2),
        "rollouts": _fitted(m, own.groups, by_rollout, 3),
    }
    k = m.study.choose_from
    shape = (-1, k)
    answers = np.array(test.answers).reshape(shape)
    last = np.flatnonzero(test.whole)
    chances = {"orm": _chances(m, orm, [test.groups[i] for i in last])}
    pieces = {name: _chances(m, scorer, test.groups) for name, scorer in prm.items()}
    for name, p in pieces.items():
        for how in ("product", "minimum", "last"):
            chances[f"prm_{name}_{how}"] = _aggregated(p, test, how)
    chances["answers_checked"] = np.array(test.right, float)
    chances["steps_checked"] = np.array(test.sound, float)
    judged = _judged(chances, test, k)
    curves = judged["curves"]
    truth = np.array([p.answer for p in m.problems(m.study.problems, 41)])
    weights = {
        "majority": np.ones(answers.shape),
        "majority_orm": chances["orm"].reshape(shape),
        "majority_prm": chances["prm_oracle_product"].reshape(shape),
    }
    rng = np.random.default_rng([m.seed, 44])
    for name, weight in weights.items():
        curves[name] = {"right": [_voted(answers, weight, truth, n, rng) for n in NS]}
    labels, prefix = np.array(own.oracle), ~np.array(own.whole)
    hard = by_rollout > 0.5
    return {
        "curves": curves,
        "label_agreement": {
            f"oracle_{a}_rollout_{b}": int(((labels == bool(a)) & (hard == bool(b)) & prefix).sum())
            for a in (0, 1)
            for b in (0, 1)
        },
        "auc": {name: area for name, area in judged["auc"].items() if "checked" not in name},
        "first_wrong": {name: _finds(p, test) for name, p in pieces.items()},
    }


def _voted(
    answers: np.ndarray, weights: np.ndarray, truth: np.ndarray, n: int, rng: np.random.Generator
) -> float:
    """Share of problems whose heaviest answer among n random samples is right; ties share."""
    draws = 1 if n == answers.shape[1] else 16
    total = 0.0
    for _ in range(draws):
        order = rng.permuted(np.tile(np.arange(answers.shape[1]), (len(answers), 1)), axis=1)[:, :n]
        picked = np.take_along_axis(answers, order, 1), np.take_along_axis(weights, order, 1)
        votes = weighted_votes(*picked, remainders.MODULUS)
        top = (votes == votes.max(1, keepdims=True)) & (votes.max(1, keepdims=True) > 0)
        total += float((top[np.arange(len(truth)), truth] / np.maximum(1, top.sum(1))).mean())
    return total / draws


def _finds(chances: np.ndarray, data: Labelled) -> dict[str, float]:
    """How often a PRM names the first faulty piece of the solutions that have steps."""
    parts = np.split(chances, np.flatnonzero(np.diff(data.owner)) + 1)
    said = np.array([process_rewards.first_below(p) if (p < 0.5).any() else -1 for p in parts])
    truth = np.array(data.first_wrong)
    steps = np.array([len(p) > 1 for p in parts])
    faulty = steps & (truth >= 0)
    return {
        "exact": float((said == truth)[steps].mean()),
        "exact_faulty": float((said == truth)[faulty].mean()),
        "never": float((truth == -1)[steps].mean()),
    }


def generative_job(m: Material) -> dict[str, Any]:
    """A verifier that is asked "right?" and answers yes or no, on the labels of the PRM."""
    own, test = choice_data(m)
    yes, no = (tokenization.encode_response(m.tokenizer, word) for word in ("yes", "no"))
    asked = tokenization.encode_response(m.tokenizer, " right?", ended=False)

    def question(group: Group) -> list[int]:
        return [*group[0], *group[1][0], *asked]

    groups = [
        (question(g), [yes if label else no])
        for g, label in zip(own.groups, own.oracle, strict=True)
    ]
    model = _fresh(m.start)
    config = m._config(epochs=2, learning_rate=1e-3, seed=m.seed + 9)
    train(ResponseScorer(model), groups, sft.objective(groups), config, pad_id=m.pad)
    both = [(question(g), [yes, no]) for g in test.groups]
    logps = score(ResponseScorer(model.eval()), both, 2, m._config(), m.pad).double()
    p = torch.sigmoid(logps[:, 0] - logps[:, 1]).numpy()
    scores = {how: _aggregated(p, test, how) for how in get_args(process_rewards.Aggregate)}
    return _judged(scores, test, m.study.choose_from) | {"first_wrong": _finds(p, test)}


def _judged(scores: Mapping[str, np.ndarray], data: Labelled, n: int) -> dict[str, Any]:
    """Best of n by each of several scores (R,), and how well it tells right and sound ones."""
    gold = {"right": np.array(data.right, float), "sound": np.array(data.sound, float)}
    return {
        "curves": {
            name: {
                what: [
                    float(best_of_n_gold(s.reshape(-1, n), g.reshape(-1, n), k).mean()) for k in NS
                ]
                for what, g in gold.items()
            }
            for name, s in scores.items()
        },
        "auc": {
            name: {what: process_rewards.area_under_curve(s, g > 0) for what, g in gold.items()}
            for name, s in scores.items()
        },
    }


# Spurious rewards ---------------------------------------------------------------------------------


def spurious_job(m: Material, name: str) -> dict[str, Any]:
    """GRPO with four passes over each batch, on a reward that says nothing, or something else."""
    rng = np.random.default_rng([m.seed, 50])
    rewards: dict[str, Callable[[Problem, str], float]] = {
        "random": lambda problem, solution: float(rng.random() < 0.5),
        "random, no clip": lambda problem, solution: float(rng.random() < 0.5),
        "format": in_format,
        "wrong answers": wrong,
    }
    return _trained(
        m,
        rewards[name],
        iterations=m.study.spurious_iterations,
        epochs=4,
        **SPURIOUS[name],
    )


JOBS: dict[str, Callable[[Material], dict[str, Any]]] = {
    "start": start_job,
    "outcome": lambda m: _trained(m, outcome_reward),
    "process": lambda m: _trained(m, process_reward),
    "choose": choose_job,
    "scratch": scratch_job,
    **{
        f"difficulty, {name}": partial(difficulty_job, method=name)
        for name in ("rloo", "grpo", "dapo")
    },
    "generative": generative_job,
    **{f"spurious, {name}": partial(spurious_job, name=name) for name in SPURIOUS},
}


# The stored result --------------------------------------------------------------------------------


def _short(values: Any) -> list[float | None]:
    return [round(float(v), 4) if np.isfinite(v) else None for v in values]


def load(path: Path | str = STORED) -> dict[str, Any]:
    """The stored result: study, made_with, cpu_seconds, and runs[job][seed].

    Raises: DataNotFoundError.
    """
    return read_stored(path, "python -m irlbook.posttraining.reasoning_study --parts FOLDER")


def beginning(seed: int, steps: int = 15) -> list[float]:
    """Losses of the first steps of a seed's careful model: a cheap check of a machine."""
    material = Material(seed, Study())
    shown = material._demonstrations(32 * steps, 1, CAREFUL, (1, 3))
    model = models.tiny_lm(material.tokenizer, seed=seed)
    return [round(loss, 4) for loss in material.taught(model, shown, steps, 4e-3)[1]]


def sweep(
    parts: Path | str,
    out: Path | str = STORED,
    study: Study | None = None,
    jobs: Sequence[str] = tuple(JOBS),
) -> dict[str, Any]:
    """Run each job from every seed, and write what was found as one file.

    A job that is done lies in `parts`, and is not done again.
    """
    study, parts = study or Study(), Path(parts)
    runs = StoredRuns(STORED.stem, asdict(replace(study, seeds=())), parts=parts)
    for seed in study.seeds:
        material = Material(seed, study, parts)
        for job in jobs:
            runs.get(job, seed, partial(JOBS[job], material))
            print(f"{job}, seed {seed}", flush=True)
    whole = bundle(parts, out) | {"study": asdict(study), "beginning": beginning(0)}
    text = json.dumps(whole, separators=(",", ":")) + "\n"
    write_whole(Path(out), partial(Path.write_text, data=text, encoding="utf-8"))
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.posttraining.reasoning_study", description=sweep.__doc__
    )
    parser.add_argument("--parts", type=Path, help="folder of models and of jobs that are done")
    parser.add_argument("--out", type=Path, default=STORED)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(Study.seeds))
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--check", action="store_true", help="repeat the first steps of seed 0")
    given = parser.parse_args(arguments)
    if given.check:
        gap = float(np.abs(np.array(beginning(0)) - load(given.out)["beginning"]).max())
        print(f"largest difference in the loss of the first steps: {gap:.2g}")
        return int(not gap < 0.02)
    if given.parts is None:
        parser.error("give --parts FOLDER, where jobs are kept as they are done")
    torch.set_num_threads(1)
    found = sweep(given.parts, given.out, replace(Study(), seeds=tuple(given.seeds)), given.jobs)
    print(f"{given.out}: {found['cpu_seconds']} CPU-seconds")
    return 0


if __name__ == "__main__":
    raise SystemExit(as_command(main))
