"""The study of chapter 20: ways of decoding at equal compute, on the book's small model with gold.

A reward model learns from labels; every method follows that proxy, and gold is only measured. From
each of several seeds (which start, labels, first weights and samples) there are four scorers of
prefixes: the reward model itself, one trained on truncated pairs, and two values learned on the
same samples of the start, by Monte Carlo and by TD. All methods but the plain start and the trained
policy spend about the same number of tokens, generated and scored, on a response. That takes longer
than a chapter may, so its result ships with the package, and this is how it was made:

    python -m irlbook.decoding.study --parts FOLDER

A run that was killed goes on where it stopped; `--check` makes some runs anew and compares them
with what is stored.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irlbook.decoding.samplers import (
    BeamSampler,
    GuidedSampler,
    KeepBeam,
    PopulationSampler,
    PrefixScorer,
    Resample,
    keep_best,
    module_scorer,
)
from irlbook.errors import InvalidHyperparameterError, as_command
from irlbook.lm.logprobs import hidden_states
from irlbook.lm.sampling import Samples
from irlbook.lm.tokenization import decode, encode_prompt
from irlbook.lm.trees import Group, Tree
from irlbook.posttraining import reward_model
from irlbook.posttraining.configs import RaftConfig
from irlbook.posttraining.over_optimization import RewardEnsemble
from irlbook.posttraining.over_optimization_study import Condition, Material
from irlbook.posttraining.raft import raft
from irlbook.posttraining.reward_model import RewardScorer, response_places
from irlbook.posttraining.rollouts import (
    PolicyScorer,
    Sampler,
    built_in,
    draw,
    draw_prompts,
    kl_to,
    rewards_of,
)
from irlbook.posttraining.stored_runs import RESULTS, StoredRuns, bundle
from irlbook.tasks import reviews
from irlbook.training.config import TrainingConfig
from irlbook.training.loop import Batch, Objective, token_scores, train

__all__ = [
    "CHECKED",
    "CONDITIONS",
    "CountedSampler",
    "NAME",
    "Scorers",
    "Study",
    "TokenValues",
    "check",
    "main",
    "record",
    "run",
    "settings",
    "td_objective",
    "truncated",
    "value_objective",
]

NAME = "decoding"
CONDITIONS = (
    "start",
    "best of n, 2",
    "best of n, 8",
    "best of n, 32",
    "guided, whole, 1",
    "guided, whole, 4",
    "guided, partial, 4",
    "guided, value, 1",
    "guided, value, 4",
    "guided, value, 16",
    "guided, td, 1",
    "guided, td, 4",
    "blocks, whole",
    "blocks, partial",
    "blocks, value",
    "blocks, value, 2",
    "blocks, value, 32",
    "blocks, td",
    "beam, value",
    "token beam, value, 4",
    "token beam, td, 4",
    "smc, value, 0.5",
    "smc, value, 0.1",
    "expert iteration",
    "expert iteration, 8",
)

CHECKED = (
    "start",
    "best of n, 8",
    "guided, whole, 4",
    "guided, partial, 4",
    "guided, value, 4",
    "blocks, value",
    "smc, value, 0.5",
)
"""What `--check` makes anew: each scorer and each kind of search, in about two minutes."""


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    prompts: int = 16
    samples: int = 4  # responses to each, for diversity
    particles: int = 8  # n of blocks, beam and SMC, unless the condition names another
    candidates: int = 15  # of guided decoding: 1 + 15 tokens a step, as 2 * 8
    block: int = 8  # tokens
    beam: int = 2  # prefixes that are kept; a token beam shares the candidates out among them
    max_new_tokens: int = 64
    value_samples: int = 16  # of the start to each prompt of the world
    value_epochs: int = 4
    learning_rate: float = 1e-3
    rounds: int = 3  # of expert iteration


class TokenValues(nn.Module):
    """(N,) a value of the prefix that ends at each response token, from a sequence classifier.

    `RewardScorer` with the pooling "last" gives the value at the last token alone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, tree: Tree) -> Tensor:
        states = hidden_states(self.model, tree)[response_places(tree)]
        return self.model.score(states).squeeze(-1).float()


def value_objective() -> Objective:
    """Monte Carlo: every prefix of a sample predicts the reward of the whole, in mean squares.

    Groups are (prompt, [response]); rewards go in ``extra={"target": (P,)}``.

    Source: Yang and Klein 2021 (2104.05218); CD-FUDGE of Mudgal et al. 2023 (2310.17022).
    """

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        target = batch.extra["target"].to(scores.dtype).repeat_interleave(batch.tree.lengths)
        return _mean_squares(scores - target, batch)

    return Objective("prefix value, Monte Carlo", values, responses=1)


def td_objective() -> Objective:
    """TD(0): every prefix predicts the score of the next one, held fixed; the last the reward.

    The next token is the sampled one: the expectation over next tokens of CD-Q (Mudgal et al. 2023,
    2310.17022) would score every candidate at every prefix. Groups and rewards are as for
    `value_objective`.

    Source: Sutton 1988, "Learning to predict by the methods of temporal differences".
    """

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        target = scores.detach().roll(-1)
        target[batch.tree.lengths.cumsum(0) - 1] = batch.extra["target"].to(scores.dtype)
        return _mean_squares(scores - target, batch)

    return Objective("prefix value, TD(0)", values, responses=1)


def _mean_squares(errors: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The loss of each response: the mean over its prefixes."""
    return {"loss": batch.per_response(errors**2)[:, 0] / batch.tree.lengths}


def truncated(groups: Sequence[Group], copies: int, rng: np.random.Generator) -> list[Group]:
    """Each labelled pair `copies` times, both responses cut at one random length; the label stays.

    A response that is shorter than the cut stays whole. Pairs that begin alike are left out.
    """
    if copies < 1:
        raise InvalidHyperparameterError(f"copies={copies} must be at least 1.")
    found: list[Group] = []
    for prompt, (winner, loser) in groups:
        for at in rng.integers(1, max(len(winner), len(loser)) + 1, size=copies):
            if winner[:at] != loser[:at]:
                found.append((prompt, [winner[:at], loser[:at]]))
    return found


class Scorers:
    """What one seed's runs are made of; each is trained when it is first asked for."""

    def __init__(self, seed: int, study: Study | None = None) -> None:
        self.seed, self.study = seed, study or Study()
        self.material = Material(seed)

    @property
    def prompts(self) -> list[str]:
        """Those that are asked."""
        return draw_prompts(self.material.prompts, self.study.prompts, [self.seed, 20])

    @cached_property
    def proxy(self) -> nn.Module:
        """The reward model, in standard deviations of the start's samples."""
        return self.material.reward(Condition(pooling="last"))

    def get(self, name: str) -> PrefixScorer:
        """whole, partial, value or td."""
        return module_scorer(getattr(self, name), self.material.pad)

    @property
    def whole(self) -> nn.Module:
        """The reward model itself, used on prefixes."""
        return self.proxy

    @cached_property
    def partial(self) -> nn.Module:
        """Bradley–Terry on truncated pairs: the same labels, as many steps."""
        m, rng = self.material, np.random.default_rng([self.seed, 21])
        pairs = truncated(m.pairs(), m.study.reward_epochs, rng)
        scorer = RewardScorer(m.fresh(), "last")
        train(scorer, pairs, reward_model.objective(), self._training(1), pad_id=m.pad)
        ensemble = RewardEnsemble([scorer.eval()]).standardise(m.drawn, m.scoring, m.pad)
        return ensemble.eval().requires_grad_(False)

    @cached_property
    def value(self) -> nn.Module:
        """A Monte Carlo value of the proxy."""
        return self._learned(value_objective())

    @cached_property
    def td(self) -> nn.Module:
        """The same by TD(0): the same samples, first weights and number of steps."""
        return self._learned(td_objective())

    @cached_property
    def _judged(self) -> tuple[list[Group], Tensor]:
        """Samples of the start, one a group, and what the proxy says of each."""
        m = self.material
        drawn = m.sample(m.model, m.prompts, self.study.value_samples, 22)
        rewards = torch.cat(module_scorer(self.proxy, m.pad)(drawn.groups))
        return [(x, [y]) for x, ys in drawn.groups for y in ys], rewards

    def _learned(self, objective: Objective) -> nn.Module:
        """A value of prefixes, which starts from the reward model's weights."""
        groups, rewards = self._judged
        ensemble: Any = self.proxy
        model = copy.deepcopy(ensemble.members[0].model).requires_grad_(True)
        config, extra = self._training(self.study.value_epochs), {"target": rewards}
        pad = self.material.pad
        train(TokenValues(model), groups, objective, config, extra=extra, pad_id=pad)
        return RewardScorer(model, "last").eval().requires_grad_(False)

    @cached_property
    def expert(self) -> tuple[Any, int]:
        """Rounds of best of n, each fitted: the policy, and the tokens that this took.

        Those are all samples twice (generated and scored), and once more what was fitted.
        """
        m, s = self.material, self.study
        counted, epochs = CountedSampler(), 2
        policy, reports = raft(
            m.model,
            m.tokenizer,
            m.prompts,
            self.proxy,
            RaftConfig(
                rounds=s.rounds,
                samples=s.particles,
                max_new_tokens=s.max_new_tokens,
                training=replace(self._training(epochs), batch_size=16, seed=0),
            ),
            seed=self.seed,
            sampler=counted,
        )
        drawn = sum(counted.calls[:-1])  # the last call only measures
        length = drawn / (len(m.prompts) * s.particles * (len(reports) - 1))
        prompt = float(np.mean([len(encode_prompt(m.tokenizer, x)) for x in m.prompts]))
        kept = sum(report.kept for report in reports)
        return policy, round(2 * drawn + epochs * kept * (length + prompt))

    def _training(self, epochs: int) -> TrainingConfig:
        return TrainingConfig(
            **asdict(self.material.scoring) | {"learning_rate": self.study.learning_rate},
            epochs=epochs,
            batch_size=32,
            seed=self.seed,
        )


class CountedSampler:
    """The book's own sampler, counting.

    Attributes:
        generated, scored: tokens so far; nothing is scored here. calls: tokens of each call.
    """

    def __init__(self) -> None:
        self.generated = self.scored = 0
        self.calls: list[int] = []

    def __call__(
        self, model: Any, prompts: Sequence[Sequence[int]], n: int, **options: Any
    ) -> Samples:
        drawn = built_in(model, prompts, n, **options)
        self.calls.append(sum(map(len, drawn.responses)))
        self.generated += self.calls[-1]
        return drawn


def run(scorers: Scorers, condition: str) -> dict[str, float]:
    """One condition of one seed, as it is stored.

    Raises:
        InvalidHyperparameterError: no such condition.
    """
    s, m = scorers.study, scorers.material
    if condition not in CONDITIONS:
        raise InvalidHyperparameterError(
            f"no condition {condition!r}; there are {', '.join(CONDITIONS)}."
        )
    kind, *rest = condition.split(", ")
    policy, training = m.model, 0
    sampler: Any = CountedSampler()
    if kind == "expert iteration":
        policy, training = scorers.expert
        if rest:
            sampler = PopulationSampler(scorers.get("whole"), int(rest[0]), keep_best)
    elif kind == "best of n":
        sampler = PopulationSampler(scorers.get("whole"), int(rest[0]), keep_best)
    elif kind == "guided":
        sampler = GuidedSampler(scorers.get(rest[0]), float(rest[1]), s.candidates)
    elif kind == "blocks":
        particles = int(rest[1]) if len(rest) > 1 else s.particles
        sampler = PopulationSampler(scorers.get(rest[0]), particles, keep_best, s.block)
    elif kind == "beam":
        sampler = PopulationSampler(scorers.get(rest[0]), s.particles, KeepBeam(s.beam), s.block)
    elif kind == "token beam":
        top = (s.candidates - 1) // s.beam  # of each of `beam` prefixes: 2 + 14 tokens a step
        sampler = BeamSampler(scorers.get(rest[0]), float(rest[1]), s.beam, top)
    elif kind == "smc":
        select = Resample(float(rest[1]))
        sampler = PopulationSampler(scorers.get(rest[0]), s.particles, select, s.block)
    found = record(scorers, policy, sampler)
    return {**found, "training_tokens": float(training)}


def record(scorers: Scorers, policy: Any, sampler: Sampler) -> dict[str, float]:
    """Draw from a policy with a sampler, and measure.

    Returns:
        proxy and gold: means. surprise: -log pi_start(y), nats per response. kl: estimated (k1)
        where the samples' own log-probabilities are known (a policy, guided decoding). distinct:
        share of different sentences among all in the responses to one prompt. generated, scored:
        tokens per response. length, ended.
    """
    s, m = scorers.study, scorers.material
    prompts = scorers.prompts
    drawn = draw(
        PolicyScorer(policy),
        m.tokenizer,
        prompts,
        s.samples,
        m.scoring,
        seeds=int(np.random.SeedSequence([scorers.seed, 23]).generate_state(1)[0]),
        max_new_tokens=s.max_new_tokens,
        sampler=sampler,
    )
    asked = (prompts, drawn, m.tokenizer, m.scoring)
    proxy, gold = rewards_of(scorers.proxy, *asked), rewards_of(_gold, *asked)
    base = token_scores(PolicyScorer(m.model), drawn.groups, m.scoring, m.pad)
    texts = [[decode(m.tokenizer, y) for y in ys] for _, ys in drawn.groups]
    n = len(drawn.ended)
    searched = isinstance(sampler, PopulationSampler | BeamSampler)  # no log-probability of its own
    counted: Any = sampler
    return {
        "proxy": float(proxy.double().mean()),
        "gold": float(gold.mean()),
        "surprise": -float(base.double().sum()) / n,
        "kl": float("nan") if searched else kl_to(base, drawn),
        "distinct": float(np.mean([_distinct(ys) for ys in texts])),
        "generated": counted.generated / n,
        "scored": counted.scored / n,
        "length": float(np.mean([len(y) for y in drawn.responses])),
        "ended": float(np.mean(drawn.ended)),
    }


def _gold(prompts: list[str], responses: list[str]) -> list[float]:
    return [reviews.gold(x, y) for x, y in zip(prompts, responses, strict=True)]


def _distinct(texts: Sequence[str]) -> float:
    """Share of different sentences among all."""
    said = [sentence.text for text in texts for sentence in reviews.read_response(text)]
    return len(set(said)) / max(len(said), 1)


def main(arguments: Sequence[str] | None = None, study: Study | None = None) -> int:
    """Make all runs and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--parts", help="folder in which each run is kept")
    parser.add_argument("--out", default=str(RESULTS / f"{NAME}.json"))
    parser.add_argument("--seeds", type=int, nargs="*", help="only these, and write no file")
    parser.add_argument("--check", action="store_true", help="make some runs anew, and compare")
    given = parser.parse_args(arguments)
    study = study or Study()
    if given.check:
        worst = check(study)
        print(f"largest difference from what is stored: {worst:.2g}")
        return int(not worst < 0.1)
    if given.parts is None:
        parser.error("--parts is needed: the folder in which each run is kept")
    runs = StoredRuns(NAME, settings(study), parts=given.parts)
    for seed in given.seeds or study.seeds:
        scorers = Scorers(seed, study)
        for condition in CONDITIONS:
            runs.get(condition, seed, _made(scorers, condition))
            print(f"seed {seed}: {condition}", file=sys.stderr)
    if not given.seeds:
        bundle(given.parts, given.out)
    return 0


def check(study: Study) -> float:
    """Make `CHECKED` of the first seed anew: the largest change of a mean proxy or gold.

    On the machine that made them it is 0 to five digits; elsewhere rounding may change a sample.
    """
    stored, scorers = StoredRuns(NAME, settings(study), here=()), Scorers(study.seeds[0], study)
    gaps = []
    for condition in CHECKED:
        now, then = run(scorers, condition), stored.stored(condition, scorers.seed)
        gaps += [abs(now[name] - then[name]) for name in ("proxy", "gold")]
        print(f"{condition}: proxy {now['proxy']:.4f}, gold {now['gold']:.4f}", file=sys.stderr)
    return float(np.max(gaps))


def _made(scorers: Scorers, condition: str) -> Callable[[], dict[str, float]]:
    return lambda: run(scorers, condition)


def settings(study: Study) -> dict[str, Any]:
    """What all runs share: all but the seeds."""
    return {k: v for k, v in asdict(study).items() if k != "seeds"}


if __name__ == "__main__":
    raise SystemExit(as_command(main))
