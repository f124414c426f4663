"""What a policy learns from: responses of its own, what a reward says of them, and their KL.

`draw_and_score` is the half-step of all who train on their own samples. Whatever the sampler is,
three things must hold, or a policy gradient is not one: the log-probabilities are those of the
distribution that was drawn from (all tokens, at that temperature), the weights are the policy's of
this moment, and a response holds its end token.

A reward function is somebody else's code: it may raise, or give NaN, or the wrong count. Each of
these faults is named here, with a prompt that shows it, before it reaches a gradient. With several
processes one of them asks it and all hear the answer, since it need not say the same twice.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor, nn

from irlbook.data.records import Prompt
from irlbook.errors import (
    InvalidHyperparameterError,
    MissingDependencyError,
    RewardError,
    SamplingError,
    StaleSamplesError,
    UnsupportedModelError,
)
from irlbook.lm import sampling
from irlbook.lm.logprobs import (
    head_logits,
    hidden_states,
    log_softmax,
    token_logps,
)
from irlbook.lm.sampling import Samples, Seed
from irlbook.lm.tokenization import decode, encode_prompt, pad_id, stop_ids
from irlbook.lm.trees import Group, Tree
from irlbook.posttraining.reward_workers import Reward, call
from irlbook.training import distributed
from irlbook.training.config import StepConfig
from irlbook.training.loop import score, token_scores

__all__ = [
    "CopySampler",
    "OLDEST_VLLM",
    "PolicyScorer",
    "Rollout",
    "STALE",
    "Sampler",
    "VLLMSampler",
    "as_gold",
    "ask",
    "built_in",
    "draw",
    "draw_and_score",
    "draw_prompts",
    "draw_shared",
    "kl_to",
    "rewards_of",
]

_T = TypeVar("_T")
OLDEST_VLLM = "0.29.0"  # 0.28 leaves a head that is tied to the embedding as it was
STALE = 0.1  # nats a token between sampler and policy, on average, that rounding may explain


# The half-step ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rollout:
    """k responses to each of P prompts, R = P k in all, with N tokens.

    Attributes:
        drawn: the samples, with their log-probabilities under the policy that drew them.
        base: (N,) log pi_ref of the tokens, at the same temperature.
        rewards: (P, k) float64. gold: (P, k), or None.
        greedy: (P,) the reward of each prompt's likeliest response (ReMax), or None.
    """

    drawn: Samples
    base: Tensor
    rewards: Tensor
    gold: Tensor | None = None
    greedy: Tensor | None = None

    @property
    def groups(self) -> list[Group]:
        """(prompt, its k responses), P of them."""
        return self.drawn.groups

    @property
    def logps(self) -> Tensor:
        """(N,) of the policy that drew them, at its temperature."""
        return self.drawn.token_logps

    @property
    def lengths(self) -> Tensor:
        """(R,)"""
        return torch.tensor([len(y) for _, answers in self.groups for y in answers])

    @property
    def tokens(self) -> int:
        """All tokens that are computed: each prompt once."""
        return sum(len(x) + sum(map(len, answers)) for x, answers in self.groups)

    def report(self) -> dict[str, float]:
        """What the samples say of the policy that drew them, and of their reward."""
        lengths = self.lengths
        return {
            "reward": float(self.rewards.mean()),
            "reward_std": float(self.rewards.std(correction=0)),
            **({} if self.gold is None else {"gold": float(self.gold.mean())}),
            "kl": kl_to(self.base, self.drawn),
            "entropy": -float(self.logps.double().mean()),
            "length": float(lengths.double().mean()),
            "ended": float(np.mean(self.drawn.ended)),
        }

    def joined(self, other: Rollout) -> Rollout:
        """Both, one after the other; without what ReMax alone has."""
        mine, its = self.drawn, other.drawn
        both = (mine.groups + its.groups, mine.logps + its.logps, mine.ended + its.ended)
        gold = None
        if self.gold is not None and other.gold is not None:
            gold = torch.cat([self.gold, other.gold])
        return Rollout(
            Samples(*both, mine.temperature, mine.top_p),
            torch.cat([self.base, other.base]),
            torch.cat([self.rewards, other.rewards]),
            gold,
        )


def draw_and_score(
    policy: PolicyScorer,
    reference: PolicyScorer,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    samples: int,
    reward: Reward | nn.Module,
    config: StepConfig,
    *,
    seeds: int | Sequence[Seed],
    max_new_tokens: int,
    sampler: Sampler | None = None,
    gold: Reward | nn.Module | None = None,
    greedy: bool = False,
    untrained: bool = True,
) -> Rollout:
    """Draw, ask the reward and gold, and score with the reference; all processes get all of it.

    Args:
        policy, reference: of one temperature, which is the sampler's.
        samples: k, responses to each prompt.
        config: device, precision and micro-batches.
        seeds: one a prompt, or one for all.
        sampler: draws the responses; None is the book's own.
        gold: measured, never optimised.
        greedy: ask the reward for each prompt's likeliest response, too.
        untrained: whether no step has been taken since the caller began: what differs now between
            sampler and policy is wrong, and not just rounding that grew.

    Raises:
        SamplingError: the sampler broke its word. StaleSamplesError: it does not follow the policy.
        RewardError: the reward raised, or did not give a finite number for each response.
    """
    draws = partial(
        draw,
        policy,
        tokenizer,
        prompts,
        config=config,
        seeds=seeds,
        max_new_tokens=max_new_tokens,
        sampler=sampler,
    )
    drawn = draws(samples)
    pad = pad_id(tokenizer)
    exact = untrained and sampler is None and config.precision == "float32"
    _check_fresh(policy, drawn, config, pad, 1e-3 if exact else 0.5 if untrained else math.inf)
    base = token_scores(reference, drawn.groups, config, pad)
    truth = baseline = None
    if gold is not None:
        with as_gold():
            truth = rewards_of(gold, prompts, drawn, tokenizer, config).double()
    if greedy:
        baseline = rewards_of(reward, prompts, draws(0), tokenizer, config).double()[:, 0]
    rewards = rewards_of(reward, prompts, drawn, tokenizer, config).double()
    return Rollout(drawn, base, rewards, truth, baseline)


def draw(
    policy: PolicyScorer,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    samples: int,
    config: StepConfig,
    *,
    seeds: int | Sequence[Seed],
    max_new_tokens: int,
    sampler: Sampler | None = None,
) -> Samples:
    """The samples alone, as `draw_and_score` draws them; 0 is the likeliest response to each."""
    if isinstance(seeds, int):
        seeds = [(seeds, i) for i in range(len(prompts))]
    rank, processes = distributed.ranks(config.device)
    with distributed.autocast(torch.device(config.device), config.precision):
        return draw_shared(
            sampler or built_in,
            policy.model,
            [encode_prompt(tokenizer, prompt) for prompt in prompts],
            samples or 1,
            seeds=seeds,
            rank=rank,
            processes=processes,
            max_new_tokens=max_new_tokens,
            stop_ids=stop_ids(tokenizer, policy.model),
            temperature=policy.temperature if samples else 0.0,
        )


def kl_to(base: Tensor, drawn: Samples) -> float:
    """KL(policy || reference), nats a response: the mean of k1, its tokens summed.

    Args:
        base: (N,) log pi_ref of the tokens.
    """
    return float((drawn.token_logps.double() - base.double()).sum() / len(drawn.ended))


def _check_fresh(
    policy: PolicyScorer, drawn: Samples, config: StepConfig, pad: int, worst: float
) -> None:
    """Compare the sampler's log-probabilities with the policy's, on one prompt's samples.

    Each time: a sampler with a copy of its own may stop following the policy, and all metrics of
    its samples would look healthy.
    """
    shown = drawn.groups[:1]
    own = token_scores(policy, shown, config, pad).double()
    own = own[:, 0] if own.ndim == 2 else own  # beside it, the values of PPO
    apart = (own - drawn.token_logps[: len(own)].double()).abs()
    if not (apart.mean() <= STALE and apart.max() <= worst):
        raise StaleSamplesError(
            f"the samples were not drawn from the policy as it is: to one prompt, their "
            f"log-probabilities differ from its own by {float(apart.mean()):.2g} nats a token, "
            f"{float(apart.max()):.2g} at most. Does the sampler take over the weights after each "
            "step, and score at its own temperature, without dropout?"
        )


class PolicyScorer(nn.Module):
    """log pi of each response token at a temperature, and V of its prefix if asked.

    V is linear in the policy's last hidden state, without a gradient into it: errors of the value
    head move the head alone. It starts at 0.

    Args:
        model: a causal model; or one that brings `response_logits(tree)` and, for values,
            `response_states(tree)` (N, H) and `state_size`.
        temperature: of the sampler.
    """

    value: nn.Linear | None

    def __init__(self, model: nn.Module, temperature: float = 1.0, values: bool = False) -> None:
        super().__init__()
        self.model: Any = model
        self.temperature, self.value = temperature, None
        if values:
            p, causal = next(model.parameters()), cast(Any, model)
            own = getattr(model, "state_size", None)
            size = own or causal.get_output_embeddings().in_features
            head = nn.Linear(size, 1, device=p.device, dtype=p.dtype)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            self.value = head

    def forward(self, tree: Tree) -> Tensor:
        """(N,) log-probabilities; with values (N, 2), these in column 1."""
        if self.value is None:
            return token_logps(self.model, tree, self.temperature)
        if hasattr(self.model, "response_states"):
            states, logits = self.model.response_states(tree), self.model.response_logits(tree)
        else:
            states = hidden_states(self.model, tree)[tree.predictor]
            logits = head_logits(self.model, states)
        logps = log_softmax(logits, self.temperature).gather(1, tree.target[:, None])[:, 0]
        return torch.stack([logps, self.value(states.detach())[:, 0].to(logps.dtype)], dim=1)


# Rewards ------------------------------------------------------------------------------------------


def rewards_of(
    reward: Reward | nn.Module,
    prompts: Sequence[Prompt],
    drawn: Samples,
    tokenizer: Any,
    config: StepConfig,
) -> Tensor:
    """(P, k) rewards of k samples for each of P prompts, on the CPU; the same in every process.

    Args:
        reward: a function of (prompts, responses), which the first process asks and all hear; or a
            `RewardScorer` on the same tokenizer, of which each process does its share.
        prompts: the texts that were sampled from, one a group of `drawn`.
        config: device, precision and micro-batches of a reward model.

    Raises:
        RewardError: the reward raised, or did not give a finite number for each response.
    """
    k = len(drawn.groups[0][1])
    if isinstance(reward, nn.Module):
        reward = reward.to(config.device).eval()
        found = score(reward, drawn.groups, k, config, pad_id(tokenizer))
        if found.isfinite().all():
            return found
    repeated = [prompt for prompt in prompts for _ in range(k)]
    texts = [decode(tokenizer, answer) for answer in drawn.responses]
    if isinstance(reward, nn.Module):
        _check_finite(found.flatten(), repeated, texts)
    if distributed.ranks(config.device)[1] == 1:
        return ask(reward, repeated, texts).view(-1, k)
    said: list[Any] = [None]
    if distributed.is_main_process():
        try:
            said = [ask(reward, repeated, texts)]
        except RewardError as error:  # the others wait for an answer
            said = [RewardError(str(error))]
    torch.distributed.broadcast_object_list(said)
    if isinstance(said[0], RewardError):
        raise said[0]
    return said[0].view(-1, k)


def ask(reward: Reward, prompts: list[Prompt], responses: list[str]) -> Tensor:
    """(R,) float64: what a reward function says; every fault names a prompt.

    Raises:
        RewardError.
    """
    given = call(reward, prompts, responses)
    values = torch.from_numpy(given)
    if values.shape != (len(responses),):
        raise RewardError(
            f"the reward gave numbers of shape {tuple(values.shape)} for {len(responses)} "
            f"responses (the first to {prompts[0]!r}); it takes all prompts and responses at once "
            "and gives one number a response."
        )
    _check_finite(values, prompts, responses)
    return values


def _check_finite(values: Tensor, prompts: Sequence[Prompt], responses: Sequence[str]) -> None:
    bad = [i for i, value in enumerate(values.tolist()) if not math.isfinite(value)]
    if bad:
        raise RewardError(
            f"the reward is {values[bad[0]]} for the prompt {prompts[bad[0]]!r} and the response "
            f"{responses[bad[0]]!r}, and not finite for {len(bad)} responses in all."
        )


@contextmanager
def as_gold() -> Iterator[None]:
    """Within it a fault of the reward is said to be gold's."""
    try:
        yield
    except RewardError as error:
        raise RewardError(f"gold, which is only measured: {error}") from error


def draw_prompts(prompts: Sequence[_T], most: int | None, seed: int | Sequence[int]) -> list[_T]:
    """`most` different prompts, from the seed; all of them if there are no more, or for None."""
    if most is None or most >= len(prompts):
        return list(prompts)
    chosen = np.random.default_rng(seed).choice(len(prompts), most, replace=False)
    return [prompts[i] for i in chosen]


# Samplers -----------------------------------------------------------------------------------------


def draw_shared(
    sampler: Sampler,
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    seeds: Sequence[Seed],
    rank: int = 0,
    processes: int = 1,
    **options: Any,
) -> Samples:
    """Each process draws for its share of the prompts, and all of them get all responses.

    The log-probabilities come back on the CPU. `options` are the sampler's.

    Raises:
        SamplingError: fewer prompts than processes; a sampler that did not give what it should.
    """
    if len(prompts) < processes:
        raise SamplingError(
            f"there are {len(prompts)} prompts for {processes} processes; one each at least."
        )
    own = slice(rank, None, processes)
    drawn = sampler(model, prompts[own], n, seeds=seeds[own], **options)
    _check(drawn, len(prompts[own]), n, options["stop_ids"])
    parts = [(drawn.groups, [logps.cpu() for logps in drawn.logps], drawn.ended)]
    if processes > 1:
        mine, parts = parts[0], [([], [], [])] * processes
        torch.distributed.all_gather_object(parts, mine)
    groups, logps, ended = [], [], []
    for i in range(len(prompts)):
        part, k = parts[i % processes], i // processes
        groups.append(part[0][k])
        logps += part[1][k * n : (k + 1) * n]
        ended += part[2][k * n : (k + 1) * n]
    return Samples(groups, logps, ended, drawn.temperature, drawn.top_p)


def _check(drawn: Samples, prompts: int, n: int, stop_ids: Sequence[int]) -> None:
    sizes = [len(answers) for _, answers in drawn.groups]
    if sizes != [n] * prompts:
        raise SamplingError(f"the sampler gave {sizes} responses to {prompts} prompts; {n} each.")
    stops = set(stop_ids)
    for i, (answer, logps, ended) in enumerate(
        zip(drawn.responses, drawn.logps, drawn.ended, strict=True)
    ):
        if not answer or len(answer) != len(logps):
            raise SamplingError(
                f"response {i} of the sampler has {len(answer)} tokens and {len(logps)} "
                "log-probabilities; it has as many of both, and one at least."
            )
        if bool(ended) != (answer[-1] in stops):
            raise SamplingError(
                f"response {i} of the sampler {'ended' if ended else 'was cut'}, and its last "
                f"token is {answer[-1]}: a response holds its end token (one of {sorted(stops)}) "
                "exactly if it ended. Without it the policy is never taught to stop."
            )


class Sampler(Protocol):
    """n responses to each prompt, with the log-probability of each token."""

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
        """Draw.

        Args:
            model: the policy as it is now.
            prompts: token ids.
            stop_ids: tokens that end a response; it holds the one that ended it.
            temperature: 0 takes the likeliest token each time; the log-probabilities do not matter
                then.
            seeds: one a prompt, a number or several. The same seed should draw the same responses,
                or a run that was killed does not go on to the same numbers.
        """
        ...


def built_in(
    model: Any, prompts: Sequence[Sequence[int]], n: int, *, temperature: float, **options: Any
) -> Samples:
    """The book's own sampler (:mod:`irlbook.lm.sampling`) as a `Sampler`."""
    if temperature > 0:
        options |= {"temperature": temperature, "training": True}
        return sampling.sample(model, prompts, n, **options)
    if n != 1:
        raise InvalidHyperparameterError(f"n={n} responses at temperature 0 are all the same.")
    del options["seeds"]
    return sampling.greedy(model, prompts, **options)


class CopySampler:
    """The book's own sampler on a whole copy of the policy, for weights that are split (`shard`).

    Sampling needs all weights for every token, and processes that sample take unequal numbers of
    steps, so split weights cannot do it. Each process holds a copy, which each call renews.

    Args:
        model: as the policy; its weights are replaced.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(
        self, model: Any, prompts: Sequence[Sequence[int]], n: int, **options: Any
    ) -> Samples:
        distributed.copy_weights(model, self.model)
        return built_in(self.model, prompts, n, **options)


class VLLMSampler:
    """vLLM in this process as a `Sampler`; the extra `vllm` installs it, docs/vllm.md tells more.

    vLLM has weights of its own. Each call loads the policy's into them first, through the worker's
    `reload_weights`, and empties the cache of prefixes, which were computed with the old ones. (The
    model's own `load_weights` does not do: once vLLM has packed the weights for its kernels, they
    no longer have the shape that was read.) Its log-probabilities are asked for *after* the
    temperature (`processed_logprobs`); by default vLLM gives those before it. Its kernels round
    otherwise than the policy's, so importance ratios on fresh samples are near 1, not 1.

    With several processes each has an engine of its own, for its share of the prompts.
    `benchmarks/check_vllm.py` compares the engine with the policy, number by number.

    Args:
        model: the folder or name that the policy was loaded from.
        options: of `vllm.LLM`: dtype, gpu_memory_utilization, max_model_len ... A policy in
            float32 needs dtype="float32": by default vLLM takes what the folder says.

    Raises:
        MissingDependencyError: vLLM is not installed, or too old to take new weights.
    """

    def __init__(self, model: str, **options: Any) -> None:
        # The engine stays in this process: a function cannot be sent into another.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        # Otherwise, without a GPU, it takes the whole memory for keys and values (GiB), and ties
        # the threads of this process, in which the policy learns, to cores of its choice.
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        try:
            import vllm
        except ImportError as error:
            raise MissingDependencyError(
                'vLLM is not installed here. Run pip install "irlbook[vllm]" (Linux with a GPU; '
                "without one, docs/vllm.md says how), or leave the sampler out: the book's own "
                "needs nothing."
            ) from error
        if Version(vllm.__version__) < Version(OLDEST_VLLM):
            raise MissingDependencyError(
                f"this vLLM, {vllm.__version__}, does not take over all new weights while it runs; "
                f"{OLDEST_VLLM} does. Update it, or leave the sampler out."
            )
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            # One engine a process, in the group of processes that there is.
            options = {"distributed_executor_backend": "external_launcher", **options}
        self._parameters = vllm.SamplingParams
        self.engine = vllm.LLM(
            model=str(model),
            logprobs_mode="processed_logprobs",
            generation_config="vllm",  # not the model's own, which may narrow the distribution
            **options,
        )

    def sync(self, model: Any) -> None:
        """Load the weights of `model` into vLLM; all processes at once, where they are split.

        Raises:
            UnsupportedModelError: an adapter; its names are not those of vLLM's model.
        """
        if getattr(model, "peft_type", None):
            raise UnsupportedModelError(
                "an adapter's weights cannot be loaded into vLLM one by one. Merge it first "
                "(model.merge_and_unload()), or sample with the book's own sampler."
            )
        weights = {"weights_iterator": distributed.whole_weights(model)}
        self.engine.collective_rpc("reload_weights", kwargs=weights)
        self.engine.reset_prefix_cache()

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
        asked = [
            self._parameters(
                n=n,
                temperature=temperature,
                seed=seed if isinstance(seed, int) else _number(seed),
                max_tokens=max_new_tokens,
                stop_token_ids=list(stop_ids),
                logprobs=0,  # of the token that was drawn, and of no other
                detokenize=False,
            )
            for seed in seeds
        ]
        texts = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        # The engine has a precision of its own.
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            self.sync(model)
            results = self.engine.generate(texts, asked, use_tqdm=False)
        groups: list[Group] = []
        logps, ended = [], []
        for prompt, result in zip(prompts, results, strict=True):
            groups.append((list(prompt), [list(drawn.token_ids) for drawn in result.outputs]))
            for drawn in result.outputs:
                steps = zip(drawn.token_ids, drawn.logprobs, strict=True)
                logps.append(torch.tensor([step[token].logprob for token, step in steps]))
                ended.append(drawn.finish_reason == "stop")
        return Samples(groups, logps, ended, temperature)


def _number(seed: Seed) -> int:
    """One number of a seed of several."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
