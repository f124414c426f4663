"""The study of chapter 11: three other kinds of reward model, each against the plain one.

A seed sets everything: which starting model, which six of the eight topics have labels, the pairs,
the labels and the samples. What is learned is judged by gold on fresh pairs of the six topics and
of the two others. Two jobs a seed:

    few   the plain model, one regularised by text generation and one with pairs across prompts,
          from few pairs of an honest labeller; the plain one and the last also from the pairs of a
          labeller who likes length
    more  the plain model and a judge that writes A or B, from more pairs of the honest one

That takes longer than a chapter may, so the result ships with the package:

    python -m irlbook.posttraining.reward_kinds_study

makes seeds 0 to 4, one for each starting model; `--seeds` takes others. A job is kept as soon as it
is done, and the same command goes on with those that are missing. With `--check`
the plain model of seed 0 is trained anew and compared with what is stored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from irlbook.data.records import Preference
from irlbook.errors import as_command
from irlbook.lm import models
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.sampling import sample
from irlbook.lm.tokenization import decode, encode_prompt, encode_response, pad_id, stop_ids
from irlbook.lm.trees import Group
from irlbook.posttraining import book_models, reward_model, sft
from irlbook.posttraining.cross_prompt import cross_prompt_objective, cross_prompt_pairs
from irlbook.posttraining.evaluation import pairwise_accuracy
from irlbook.posttraining.generative_judge import both_orders, judge_examples, judge_log_odds
from irlbook.posttraining.regularised_reward import RegularisedScorer, regularised_objective
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.posttraining.stored_runs import RESULTS, StoredRuns, bundle, read_stored
from irlbook.tasks import reviews
from irlbook.training.config import TrainingConfig
from irlbook.training.loop import Objective, score, train

__all__ = ["JOBS", "Material", "PLACES", "STORED", "Study", "few", "load", "main", "more"]

STORED = RESULTS / "reward_kinds.json"
PLACES = ("seen", "new")  # topics that have labels, and others


@dataclass(frozen=True)
class Study:
    """What all runs share; settings were chosen on seeds 50 to 52, which are not stored."""

    pairs: int = 300
    judge_pairs: int = 1_000
    test_pairs: int = 400  # of each kind of topics
    topics_held_out: int = 2
    epochs: float = 4.0
    learning_rate: float = 1e-3
    grm_weight: float = 0.1
    grm_beta: float = 0.1
    head_epochs: float = 2.0  # of the plain model, from the judge's pairs
    judge_epochs: float = 4.0  # of each pair in both orders
    won: int = 1  # pairs across prompts, for each labelled one: with a winner,
    tied: int = 2  # and tied
    taste: float = 0.2  # nats a token, of the labeller who likes length
    prompts: int = 16
    samples: int = 32  # to each prompt, of the starting model
    probed: int = 40  # fresh reviews that are edited


class Material:
    """What one seed's jobs are made of; each thing is made when it is first asked for."""

    def __init__(self, seed: int, study: Study | None = None) -> None:
        self.seed, self.study = seed, study or Study()
        self.base = seed % len(book_models.SEEDS)
        self.tokenizer = book_models.load(self.base)[1]
        self.pad = pad_id(self.tokenizer)
        topics, rng = list(reviews.TOPICS), self.rng(0)
        out = rng.choice(len(topics), self.study.topics_held_out, replace=False)
        new = {topics[i] for i in out}
        self.prompts = {
            place: [p for p, r in reviews.PROMPTS.items() if (r.topic in new) == (place == "new")]
            for place in PLACES
        }

    def rng(self, stream: int) -> np.random.Generator:
        """The generator of one thing."""
        return np.random.default_rng([self.seed, 11, stream])

    def labelled(self, texts: Sequence[Preference], taste: float, stream: int) -> list[Preference]:
        """The pairs with labels: P(first wins) = s(d), d a difference of gold + taste * tokens."""
        rng, found = self.rng(stream), []
        for p in texts:
            worth = [
                reviews.gold(str(p.prompt), y)
                + taste * len(encode_response(self.tokenizer, y, ended=False))
                for y in (p.chosen, p.rejected)
            ]
            wins = rng.random() < 1 / (1 + np.exp(worth[1] - worth[0]))
            found.append(p if wins else Preference(p.prompt, p.rejected, p.chosen))
        return found

    def texts(self, place: str, n: int, stream: int) -> list[Preference]:
        """n pairs of different reviews; which stands first says nothing yet."""
        rng, pairs = self.rng(stream), []
        for i in rng.integers(len(self.prompts[place]), size=n):
            prompt = self.prompts[place][i]
            first = second = reviews.REVIEWER.write(prompt, rng)
            while second == first:
                second = reviews.REVIEWER.write(prompt, rng)
            pairs.append(Preference(prompt, first, second))
        return pairs

    def labels(self, n: int, taste: float = 0.0) -> list[Preference]:
        """The first n pairs of the topics that have labels, as a labeller sees them."""
        texts = self.texts("seen", max(self.study.pairs, self.study.judge_pairs), 1)
        return self.labelled(texts[:n], taste, 5 if taste else 4)

    @cached_property
    def test(self) -> dict[str, list[Preference]]:
        """Fresh pairs, without labels."""
        n = self.study.test_pairs
        return {place: self.texts(place, n, 2 + k) for k, place in enumerate(PLACES)}

    def coded(self, records: Sequence[Preference]) -> list[Group]:
        """Token ids."""
        return [
            (
                encode_prompt(self.tokenizer, str(p.prompt)),
                [encode_response(self.tokenizer, y) for y in (p.chosen, p.rejected)],
            )
            for p in records
        ]

    def fresh(self) -> RewardScorer:
        """The starting model with a new head."""
        folder = book_models.folder(self.base)
        model, _ = models.load_reward_model(folder, new_head=True, seed=self.seed)
        return RewardScorer(model)

    def trained(
        self,
        scorer: nn.Module,
        groups: Sequence[Group],
        objective: Objective,
        epochs: float | None = None,
        extra: dict[str, Tensor] | None = None,
    ) -> nn.Module:
        """The same scorer after training."""
        config = TrainingConfig(
            epochs=epochs or self.study.epochs,
            batch_size=16,
            learning_rate=self.study.learning_rate,
            seed=self.seed,
            progress=False,
            tensorboard=False,
        )
        train(scorer, groups, objective, config, pad_id=self.pad, extra=extra)
        return scorer.eval()

    def plain(self, labels: Sequence[Preference], epochs: float | None = None) -> nn.Module:
        """A reward model as in the chapter."""
        return self.trained(self.fresh(), self.coded(labels), reward_model.objective(), epochs)

    def regularised(self, labels: Sequence[Preference]) -> nn.Module:
        """The same with the text-generation loss beside it."""
        start, _ = book_models.load(self.base)
        scorer = RegularisedScorer(start, self.fresh().model.score.weight)
        objective = regularised_objective(self.study.grm_weight, self.study.grm_beta)
        return self.trained(scorer, self.coded(labels), objective)

    def asked(self, labels: Sequence[Preference]) -> nn.Module:
        """A model that is asked which is better."""
        model, _ = book_models.load(self.base)
        groups = judge_examples(self.tokenizer, labels)
        self.trained(ResponseScorer(model), groups, sft.objective(groups), self.study.judge_epochs)
        return model

    def robust(self, labels: Sequence[Preference]) -> nn.Module:
        """A reward model with pairs across prompts beside the labelled ones."""
        added = cross_prompt_pairs(labels, self.rng(6), won=self.study.won, tied=self.study.tied)
        groups = self.coded([*labels, *added.records])
        wins = torch.cat([torch.ones(len(labels)), added.wins])
        return self.trained(self.fresh(), groups, cross_prompt_objective(), extra={"wins": wins})

    # What it is judged by

    def rewards(self, scorer: nn.Module, groups: Sequence[Group], k: int) -> np.ndarray:
        """(groups, k) rewards."""
        found = score(scorer, groups, k, None, self.pad).double()
        return (found[..., 0] if found.ndim == 3 else found).numpy()

    def accuracy(self, scorer: nn.Module) -> dict[str, float]:
        """Against gold, on the fresh pairs of each kind of topics."""
        return {
            place: pairwise_accuracy(self.rewards(scorer, self.coded(pairs), 2), _gold(pairs))
            for place, pairs in self.test.items()
        }

    @cached_property
    def drawn(self) -> tuple[list[Group], np.ndarray, np.ndarray]:
        """Samples of the starting model, their gold (prompts, samples), and their length."""
        model, _ = book_models.load(self.base)
        asked = [str(p) for p in self.rng(7).permutation(self.prompts["seen"])]
        asked = asked[: self.study.prompts]
        samples = sample(
            model,
            [encode_prompt(self.tokenizer, p) for p in asked],
            self.study.samples,
            max_new_tokens=80,
            stop_ids=stop_ids(self.tokenizer, model),
            seeds=self.seed,
        )
        gold = [
            [reviews.gold(p, decode(self.tokenizer, y)) for y in ys]
            for p, (_, ys) in zip(asked, samples.groups, strict=True)
        ]
        length = [[float(len(y)) for y in ys] for _, ys in samples.groups]
        return samples.groups, np.array(gold), np.array(length)

    def ranks(self, scorer: nn.Module) -> dict[str, float]:
        """Within-prompt rank correlation with gold and with length, on samples."""
        groups, gold, length = self.drawn
        said = self.rewards(scorer, groups, self.study.samples)
        return {
            "gold": _rank(said, gold),
            "length": _rank(said, length),
        }

    def probed(self, scorer: nn.Module) -> dict[str, float]:
        """Mean change of the reward, by each edit of a review of the topics that have labels."""
        rng, changes = self.rng(9), []
        for p in self.test["seen"][: self.study.probed]:
            prompt = str(p.prompt)
            edited = [p.chosen, *(q.response for q in reviews.probes(prompt, p.chosen, rng))]
            ids = [encode_response(self.tokenizer, y) for y in edited]
            said = self.rewards(scorer, [(encode_prompt(self.tokenizer, prompt), ids)], len(ids))
            changes.append(said[0, 1:] - said[0, 0])
        return dict(zip(reviews.EDITS, np.mean(changes, axis=0).tolist(), strict=True))


def _rank(said: np.ndarray, truth: np.ndarray) -> float:
    """Mean rank correlation over the prompts whose truth differs; (prompts, samples) each."""
    rows = zip(said, truth, strict=True)
    return float(np.mean([spearmanr(r, t).statistic for r, t in rows if np.ptp(t) > 0]))


def _gold(pairs: Sequence[Preference]) -> np.ndarray:
    return np.array(
        [[reviews.gold(str(p.prompt), y) for y in (p.chosen, p.rejected)] for p in pairs]
    )


# Jobs ---------------------------------------------------------------------------------------------


def few(m: Material) -> dict[str, Any]:
    """Plain, regularised and robust, from two labellers."""
    makers = {"plain": m.plain, "grm": m.regularised, "rrm": m.robust}
    found = {}
    for labeller, taste in (("honest", 0.0), ("likes length", m.study.taste)):
        labels = m.labels(m.study.pairs, taste)
        for name, make in makers.items():
            if name == "grm" and taste:
                continue
            scorer = make(labels)
            found[f"{name}, {labeller}"] = {
                "accuracy": m.accuracy(scorer),
                "rank": m.ranks(scorer),
                "probes": m.probed(scorer),
            }
    return found


def more(m: Material) -> dict[str, Any]:
    """Plain and generative, from the same honest labels."""
    labels = m.labels(m.study.judge_pairs)
    found: dict[str, Any] = {"plain": m.accuracy(m.plain(labels, m.study.head_epochs))}
    model = m.asked(labels)
    for place, pairs in m.test.items():
        z = judge_log_odds(model, m.tokenizer, pairs, None, m.pad)
        gold, joined = _gold(pairs), both_orders(z).numpy()
        alone = [pairwise_accuracy(_as_pairs(d), gold) for d in (z[:, 0].numpy(), -z[:, 1].numpy())]
        figures = {
            "one order": float(np.mean(alone)),
            "both orders": pairwise_accuracy(_as_pairs(joined), gold),
            "same letter twice": float((z[:, 0] * z[:, 1] > 0).double().mean()),
            "bias": float(z.mean()),
            "difference": float(both_orders(z).abs().mean()),
        }
        for name, value in figures.items():
            found.setdefault(name, {})[place] = value
    return found


def _as_pairs(d: np.ndarray) -> np.ndarray:
    return np.stack([d, np.zeros_like(d)], axis=1)


JOBS: dict[str, Callable[[Material], dict[str, Any]]] = {"few": few, "more": more}


# The stored result --------------------------------------------------------------------------------


def load(path: Path | str = STORED) -> dict[str, Any]:
    """The stored result: settings, made_with, cpu_seconds, and runs by job and seed.

    Raises:
        DataNotFoundError: there is none, or it cannot be read.
    """
    return read_stored(path, "python -m irlbook.posttraining.reward_kinds_study")


def main(arguments: Sequence[str] | None = None, study: Study | None = None) -> int:
    """Make all runs and write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.posttraining.reward_kinds_study",
        description=__doc__.split("\n")[0] if __doc__ else None,
    )
    parser.add_argument("--out", type=Path, default=STORED)
    parser.add_argument("--parts", type=Path, help="folder of the jobs that are done")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--check", action="store_true", help="train seed 0's plain model anew")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study = study or Study()
    if given.check:
        stored = load(given.out)["runs"]["few"]["0"]["plain, honest"]["accuracy"]
        m = Material(0, study)
        made = m.accuracy(m.plain(m.labels(study.pairs)))
        gap = max(abs(made[place] - stored[place]) for place in PLACES)
        print(f"accuracy of seed 0's plain model differs from the stored one by {gap:.2g}")
        return int(not gap < 0.03)
    parts = given.parts or given.out.with_suffix(".parts")
    runs = StoredRuns(STORED.stem, asdict(study), parts=parts)
    for seed in given.seeds:
        material = cache(partial(Material, seed, study))  # made if a job is missing
        for job in given.jobs:
            runs.get(job, seed, partial(_job, material, job))
            print(f"seed {seed}, {job}", file=sys.stderr, flush=True)
    print(f"{given.out}: {bundle(parts, given.out)['cpu_seconds']} CPU-seconds")
    return 0


def _job(material: Callable[[], Material], job: str) -> dict[str, Any]:
    return JOBS[job](material())


if __name__ == "__main__":
    raise SystemExit(as_command(main))
