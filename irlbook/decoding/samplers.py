"""Guided decoding and searches of a real causal model, each as a `posttraining.rollouts.Sampler`.

`GuidedSampler` changes the next-token distribution. `BeamSampler` keeps the best few prefixes,
token by token. `PopulationSampler` draws blocks of tokens for
n *particles* and lets a rule decide which of them go on: `keep_best` is blockwise best of n (best
of n, if the block is the whole response), `keep_beam` a beam of sampled continuations, `Resample`
twisted sequential Monte Carlo. Tokens are drawn by :mod:`irlbook.lm.sampling`, and each sampler
counts what it generates and scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irlbook.errors import InvalidHyperparameterError, RewardError, SamplingError
from irlbook.lm.logprobs import head_logits, hidden_states, log_softmax
from irlbook.lm.sampling import Samples, Seed, inverse_cdf, sample, sample_by, uniforms
from irlbook.lm.trees import Group, collate

__all__ = [
    "BeamSampler",
    "GuidedSampler",
    "KeepBeam",
    "PopulationSampler",
    "PrefixScorer",
    "Resample",
    "Select",
    "keep_best",
    "module_scorer",
]

PrefixScorer = Callable[[Sequence[Group]], list[Tensor]]
"""(prompt, its prefixes) of each prompt -> for each prompt (prefixes,) scores."""

Select = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""(scores now (n,), scores a block ago (n,), rng) -> (n,) ancestors; the first is the output."""


def module_scorer(module: nn.Module, pad_id: int, *, rows: int = 16) -> PrefixScorer:
    """A reward model as a prefix scorer: what it says of a prefix as if that were a response.

    Args:
        module: forward(Tree) gives (R,), one number a response.
        rows: prefixes that share one row (their prompt is read once), and rows at a time.
    """

    def score(groups: Sequence[Group]) -> list[Tensor]:
        parts: list[Group] = []
        for prompt, prefixes in groups:
            parts += [(prompt, prefixes[i : i + rows]) for i in range(0, len(prefixes), rows)]
        found: list[Tensor] = []
        with torch.no_grad():
            for i in range(0, len(parts), rows):
                found.append(module(collate(parts[i : i + rows], pad_id)).float())
        return list(torch.cat(found).split([len(prefixes) for _, prefixes in groups]))

    return score


class GuidedSampler:
    """pi(a | s) ∝ pi_ref(a | s) exp(w score(s a)) over the k likeliest tokens.

    Its `logps` are those of the guided distribution, so `rollouts.kl_to` estimates its KL.

    Args:
        scorer: reads prefixes, with the end token where a candidate ends the response.
        weight: w >= 0. top: k, candidates at each step.

    Attributes:
        generated, scored: tokens so far.
    """

    def __init__(self, scorer: PrefixScorer, weight: float, top: int = 8) -> None:
        if not weight >= 0 or top < 1:
            raise InvalidHyperparameterError(
                f"weight={weight} must not be negative, and top={top} must be at least 1."
            )
        self.scorer, self.weight, self.top = scorer, weight, top
        self.generated = self.scored = 0

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        temperature: float,
        seeds: Sequence[Seed],
    ) -> Samples:
        if not temperature > 0:
            raise SamplingError("guided decoding draws its tokens; give a temperature above 0.")
        uniform = uniforms(seeds, len(prompts), n, max_new_tokens)
        written: list[list[int]] = [[] for _ in range(len(prompts) * n)]

        def choose(logits: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
            width = min(self.top, logits.shape[1])
            base, candidates = log_softmax(logits, temperature).topk(width, dim=1)
            places = rows.tolist()
            live = [k for k, i in enumerate(places) if not {*written[i][-1:]} & {*stop_ids}]
            asked: dict[int, list[list[int]]] = {}
            for k in live:
                row = places[k]
                mine = [[*written[row], token] for token in candidates[k].tolist()]
                asked.setdefault(row // n, []).extend(mine)
            groups: list[Group] = [(list(prompts[i]), those) for i, those in asked.items()]
            found = torch.cat(self.scorer(groups)).view(-1, width) if groups else base[:0]
            order = [k for i in asked for k in live if places[k] // n == i]
            scores = torch.zeros_like(base)
            scores[order] = found.to(base)
            logps = (base + self.weight * scores).log_softmax(dim=1)
            at = inverse_cdf(logps, uniform[rows.cpu(), step].to(logps.device))
            tokens = candidates.gather(1, at)[:, 0]
            for k in live:
                written[places[k]].append(int(tokens[k]))
            self.generated += len(live)
            self.scored += len(live) * width
            return tokens, logps.gather(1, at)[:, 0]

        drawn = sample_by(
            model, prompts, n, choose, max_new_tokens=max_new_tokens, stop_ids=stop_ids
        )
        return Samples(drawn.groups, drawn.logps, drawn.ended, temperature)


# A beam -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Hypothesis:
    """A prefix of a beam: its tokens, the model's log-probability of each, and its score."""

    tokens: tuple[int, ...] = ()
    logps: tuple[float, ...] = ()
    score: float = 0.0


class BeamSampler:
    """Keep the `width` prefixes of the largest log pi_ref(s) + w score(s), token by token.

    A prefix that goes on is extended by its k likeliest tokens; one that has ended competes as it
    is. A beam draws nothing: the n responses to a prompt are the same one, and each is counted as
    if it had been asked for alone. Its `logps` are the *model's*, as for `PopulationSampler`.

    The same for an enumerable model is `beam.beam_search`.

    Args:
        scorer: reads prefixes, with the end token where a candidate ends the response.
        weight: w >= 0. width: prefixes that are kept. top: k, candidates of each.

    Attributes:
        generated, scored: tokens so far.

    Source: Snell et al. 2024 (2408.03314), section 5, for steps in the place of tokens.
    """

    def __init__(self, scorer: PrefixScorer, weight: float, width: int = 2, top: int = 8) -> None:
        if not weight >= 0 or width < 1 or top < 1:
            raise InvalidHyperparameterError(
                f"weight={weight} must not be negative, and width={width} and top={top} must be at "
                "least 1."
            )
        self.scorer, self.weight, self.width, self.top = scorer, weight, width, top
        self.generated = self.scored = 0

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        temperature: float,
        seeds: Sequence[Seed],
    ) -> Samples:
        if not temperature > 0:
            raise SamplingError("a beam adds up log-probabilities; give a temperature above 0.")
        stops = set(stop_ids)
        beams = [[_Hypothesis()] for _ in prompts]
        for _ in range(max_new_tokens):
            live = [(i, h) for i, beam in enumerate(beams) for h in beam if not _over(h, stops)]
            if not live:
                break
            base = _next_logps(model, [(prompts[i], h.tokens) for i, h in live], temperature)
            logps, tokens = base.topk(min(self.top, base.shape[1]), dim=1)
            self.generated += n * len(live)
            self.scored += n * tokens.numel()
            grown: list[list[_Hypothesis]] = [[] for _ in prompts]
            for (i, h), steps, those in zip(live, logps.tolist(), tokens.tolist(), strict=True):
                for step, token in zip(steps, those, strict=True):
                    grown[i].append(_Hypothesis((*h.tokens, token), (*h.logps, step)))
            asked = [i for i, candidates in enumerate(grown) if candidates]
            said = self.scorer([(list(prompts[i]), [[*h.tokens] for h in grown[i]]) for i in asked])
            for i, scores in zip(asked, said, strict=True):
                judged = [
                    replace(h, score=s) for h, s in zip(grown[i], scores.tolist(), strict=True)
                ]
                every = [h for h in beams[i] if _over(h, stops)] + judged
                beams[i] = sorted(every, key=self._worth, reverse=True)[: self.width]
        best = [beam[0] for beam in beams]
        groups: list[Group] = [
            (list(prompt), [[*h.tokens] for _ in range(n)])
            for prompt, h in zip(prompts, best, strict=True)
        ]
        own = [torch.tensor(h.logps) for h in best for _ in range(n)]
        return Samples(groups, own, [_over(h, stops) for h in best for _ in range(n)], temperature)

    def _worth(self, h: _Hypothesis) -> float:
        return sum(h.logps) + self.weight * h.score


def _over(h: _Hypothesis, stops: set[int]) -> bool:
    return bool(h.tokens) and h.tokens[-1] in stops


def _next_logps(
    model: Any,
    prefixes: Sequence[tuple[Sequence[int], Sequence[int]]],
    temperature: float,
    rows: int = 64,
) -> Tensor:
    """(P, V) log-probabilities of the token behind each (prompt, beginning of a response)."""
    found = []
    with torch.no_grad():
        for k in range(0, len(prefixes), rows):
            # A token behind each, whichever: what predicts it is what we ask for.
            groups: list[Group] = [(x, [[*y, 0]]) for x, y in prefixes[k : k + rows]]
            tree = collate(groups).to(next(model.parameters()).device)
            last = tree.predictor[tree.lengths.cumsum(0) - 1]
            logits = head_logits(model, hidden_states(model, tree)[last])
            found.append(log_softmax(logits, temperature))
    return torch.cat(found)


# Populations --------------------------------------------------------------------------------------


def keep_best(now: np.ndarray, before: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All go on from the best: blockwise best of n."""
    return np.full(len(now), int(np.argmax(now)))


@dataclass(frozen=True)
class KeepBeam:
    """The `width` best go on, each n / width times; the best stands first."""

    width: int

    def __call__(self, now: np.ndarray, before: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        order = np.argsort(-now, kind="stable")[: self.width]
        return np.resize(order, len(now))


@dataclass(frozen=True)
class Resample:
    """Draw ancestors in proportion to exp((score now - score before) / beta): twisted SMC."""

    beta: float

    def __call__(self, now: np.ndarray, before: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        logs = (now - before) / self.beta
        shares = np.exp(logs - logs.max())
        return rng.choice(len(now), size=len(now), p=shares / shares.sum())


class PopulationSampler:
    """n particles for each response: draw a block, score, select, and go on.

    Its `logps` are the *model's* for the tokens that were chosen; the distribution of what a search
    returns has no such product.

    Args:
        scorer: reads prefixes. particles: n. select: which of them go on.
        block: tokens a block; None is the whole response.

    Attributes:
        generated, scored: tokens so far.
    """

    def __init__(
        self, scorer: PrefixScorer, particles: int, select: Select, block: int | None = None
    ) -> None:
        if particles < 1 or (block is not None and block < 1):
            raise InvalidHyperparameterError(
                f"particles={particles} and block={block} must both be at least 1."
            )
        self.scorer, self.particles, self.select, self.block = scorer, particles, select, block
        self.generated = self.scored = 0

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        temperature: float,
        seeds: Sequence[Seed],
    ) -> Samples:
        stops = set(stop_ids)
        block = min(self.block or max_new_tokens, max_new_tokens)
        keys = [(*np.atleast_1d(seed).tolist(), j) for seed in seeds for j in range(n)]
        rngs = [np.random.default_rng([*key, 7]) for key in keys]
        populations = [[_Particle() for _ in range(self.particles)] for _ in keys]
        before = np.zeros((len(keys), self.particles))
        for start in range(0, max_new_tokens, block):
            live = [
                (g, i)
                for g, population in enumerate(populations)
                for i, particle in enumerate(population)
                if not particle.ended(stops)
            ]
            if not live:
                break
            drawn = sample(
                model,
                [[*prompts[g // n], *populations[g][i].tokens] for g, i in live],
                max_new_tokens=min(block, max_new_tokens - start),
                stop_ids=stop_ids,
                seeds=[(*keys[g], i, start) for g, i in live],
                temperature=temperature,
            )
            for (g, i), tokens, logps in zip(live, drawn.responses, drawn.logps, strict=True):
                populations[g][i] = populations[g][i].grown(tokens, logps)
            written = sum(map(len, drawn.responses))
            self.generated += written
            self.scored += written
            now = self._scores(prompts, n, populations)
            for g in {g for g, _ in live}:
                chosen = self.select(now[g], before[g], rngs[g])
                populations[g] = [populations[g][i] for i in chosen]
                before[g] = now[g][chosen]
        best = [population[0] for population in populations]
        groups: list[Group] = [
            (list(prompt), [best[i * n + j].tokens for j in range(n)])
            for i, prompt in enumerate(prompts)
        ]
        own = [torch.cat(particle.logps) for particle in best]
        return Samples(groups, own, [p.ended(stops) for p in best], temperature)

    def _scores(
        self, prompts: Sequence[Sequence[int]], n: int, populations: list[list[_Particle]]
    ) -> np.ndarray:
        groups: list[Group] = [
            (list(prompts[g // n]), [p.tokens for p in those])
            for g, those in enumerate(populations)
        ]
        found = torch.stack(self.scorer(groups)).double().cpu().numpy()
        if not np.isfinite(found).all():
            raise RewardError("the scorer gave a prefix a number that is not finite.")
        return found


@dataclass(frozen=True)
class _Particle:
    """Tokens so far, with the model's log-probabilities."""

    tokens: list[int] = field(default_factory=list)
    logps: tuple[Tensor, ...] = ()

    def ended(self, stops: set[int]) -> bool:
        return bool(self.tokens) and self.tokens[-1] in stops

    def grown(self, tokens: Sequence[int], logps: Tensor) -> _Particle:
        return _Particle([*self.tokens, *tokens], (*self.logps, logps))
