"""Attack the fast path: random batches without pads against padded rows, one response at a time.

    python tests/attack/batches.py [--n 10000] [--seed 0] [--first 0]

Each batch has a tiny random model of an architecture that is computed packed, examples drawn to be
awkward (prompts that are alike or begin alike, equal responses, single tokens, the pad as a token),
an objective (SFT, DPO, a reward model), and micro-batches and shared prompts as in a run. Scores,
loss and gradient are compared with those of transformers' own forward on one padded row a response,
and of losses written here from their equations. Status 1 if one differs by more than LIMIT, or if
a batch was not computed without pads.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from architectures import GPT2, LLAMA, VOCABULARY, exact_norms  # noqa: E402

from irlbook.lm import flat  # noqa: E402
from irlbook.lm.logprobs import ResponseScorer  # noqa: E402
from irlbook.lm.trees import Group  # noqa: E402
from irlbook.posttraining import dpo, reward_model, sft  # noqa: E402
from irlbook.posttraining.configs import PreferenceConfig, RewardConfig  # noqa: E402
from irlbook.training import loop  # noqa: E402

LIMIT = 1e-5  # of the largest value, or of 1 where that is smaller
PER_MODEL = 25  # batches with one model
CONTEXT = GPT2["n_positions"]
FAMILIES = ("GPTNeoX", "Llama", "GPT2", "Qwen2")
OBJECTIVES = ("sft", "dpo", "reward")
WHAT = ("score", "loss", "gradient")


@dataclass
class Report:
    """What was compared: {(family, precision): {what: largest difference}}, and what failed."""

    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    largest: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, kind: tuple[str, str], found: dict[str, float], where: str) -> None:
        self.tried[kind] += 1
        worst = self.largest.setdefault(kind, dict.fromkeys(WHAT, 0.0))
        for name, value in found.items():
            worst[name] = max(worst[name], value)
            if not value <= LIMIT:  # NaN, too
                self.failures.append(f"{where}: {name} differs by {value:.2g}")

    def __str__(self) -> str:
        head = f"{'architecture':12} {'weights':8} {'batches':>8}" + "".join(
            f"{name:>10}" for name in WHAT
        )
        rows = [
            f"{family:12} {precision:8} {self.tried[family, precision]:8,}"
            + "".join(f"{self.largest[family, precision][name]:10.1e}" for name in WHAT)
            for family, precision in sorted(self.tried)
        ]
        worst = [max(one[name] for one in self.largest.values()) for name in WHAT]
        total = f"{'all':21} {self.tried.total():8,}" + "".join(f"{value:10.1e}" for value in worst)
        cases = [f"  {count:8,} {name}" for name, count in self.seen.most_common()]
        return "\n".join(
            [head, *rows, total, "among them", *cases, f"failures: {len(self.failures)}"]
        )


# What is drawn ------------------------------------------------------------------------------------


def draw_model(rng: np.random.Generator, family: str, reward: bool, precision: str) -> Any:
    """A random model whose matrices are large enough for tokens to hear of one another."""
    heads = int(rng.choice([2, 4]))
    width = heads * int(rng.choice([4, 8, 12]))
    layers = int(rng.integers(1, 4))
    tied = bool(rng.integers(2))
    if family == "GPT2":
        own = GPT2 | {"n_embd": width, "n_head": heads, "n_layer": layers}
        kind = "GPT2LMHeadModel"
    else:
        own = LLAMA | {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
        }
        if family == "GPTNeoX":
            turned = {"partial_rotary_factor": float(rng.choice([0.5, 1.0]))}
            turned |= {"rope_type": "default", "rope_theta": 10000.0}
            own |= {"use_parallel_residual": bool(rng.integers(2)), "rope_parameters": turned}
        else:
            own["num_key_value_heads"] = int(rng.choice([1, 2, heads]))
        kind = f"{family}ForCausalLM"
    own |= {"tie_word_embeddings": tied, "pad_token_id": None}
    own |= {"bos_token_id": 1, "eos_token_id": 2}
    if reward:
        kind, own = f"{family}ForSequenceClassification", own | {"num_labels": 1}
    config = getattr(transformers, f"{family}Config")(**own)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int(rng.integers(1 << 31)))
        model = getattr(transformers, kind)(config)
        for p in model.parameters():
            # Norms and biases that are not 1 and 0, so that each matters.
            p.mul_(5.0) if p.ndim == 2 else p.add_(0.2 * torch.randn(p.shape))
    return exact_norms(model.double()).eval() if precision == "float64" else model.eval()


def draw_examples(
    rng: np.random.Generator, responses: int, seen: Counter[str]
) -> list[tuple[list[int], list[list[int]]]]:
    """1 to 6 examples of `responses` responses, drawn to be awkward; counts how in `seen`."""

    def ids(longest: int) -> list[int]:
        return rng.integers(VOCABULARY, size=rng.integers(1, longest + 1)).tolist()

    def length(usual: int) -> int:
        return int(rng.choice([1, usual, 4 * usual], p=[0.15, 0.75, 0.1]))

    pool = [ids(length(10))]
    while rng.random() < 0.6 and len(pool) < 4:
        earlier = pool[rng.integers(len(pool))]
        match rng.integers(3):
            case 0:
                pool.append(ids(length(10)))
            case 1:
                pool.append(earlier + ids(4))  # the earlier prompt is how this one begins
            case _:
                pool.append(earlier[: rng.integers(1, len(earlier) + 1)])
    given: list[list[int]] = []

    def response() -> list[int]:
        chance = rng.random()
        if given and chance < 0.2:
            found = given[rng.integers(len(given))]
        elif given and chance < 0.3:
            earlier = given[rng.integers(len(given))]
            found = earlier[: rng.integers(1, len(earlier) + 1)]
        else:
            found = ids(length(8))
        given.append(found)
        return found

    examples = []
    for _ in range(rng.integers(1, 7)):
        prompt = pool[rng.integers(len(pool))]
        examples.append((prompt, [response() for _ in range(responses)]))
    _count(examples, seen)
    return examples


def _count(examples: Sequence[Group], seen: Counter[str]) -> None:
    prompts = [tuple(prompt) for prompt, _ in examples]
    answers = [tuple(answer) for _, own in examples for answer in own]
    different = set(prompts)
    cases = {
        "a prompt twice": len(different) < len(prompts),
        "a prompt that begins another": any(
            a != b and b[: len(a)] == a for a in different for b in different
        ),
        "equal responses": len(set(answers)) < len(answers),
        "equal responses to one prompt": any(
            len({tuple(a) for a in own}) < len(own) for _, own in examples
        ),
        "a response of one token": any(len(one) == 1 for one in answers),
        "a prompt of one token": any(len(one) == 1 for one in prompts),
        "the pad as a token": any(0 in one for one in prompts + answers),
        "one example": len(examples) == 1,
    }
    seen.update(name for name, holds in cases.items() if holds)


# Both ways ----------------------------------------------------------------------------------------


@dataclass
class Case:
    """A batch with its objective; what a loss is told besides scores is given, not computed."""

    objective: str
    examples: list[tuple[list[int], list[list[int]]]]
    reference: Tensor  # (E, K)
    margin: Tensor  # (E,)
    beta: float
    smoothing: float
    pooling: str
    share: int
    most: int
    whole: int


def draw_case(rng: np.random.Generator, objective: str, dtype: Any, seen: Counter[str]) -> Case:
    examples = draw_examples(rng, 1 if objective == "sft" else 2, seen)
    size = (len(examples), len(examples[0][1]))
    return Case(
        objective,
        examples,
        torch.tensor(rng.normal(-10, 5, size), dtype=dtype),
        torch.tensor(rng.uniform(0, 1, size[0]), dtype=dtype),
        float(rng.choice([0.05, 0.1, 0.5])),
        float(rng.choice([0.0, 0.2])),
        str(rng.choice(["last", "sum"])),
        int(rng.choice([1, 2, 4])),
        int(rng.choice([16, 64, 8192])),
        int(rng.choice([flat.WHOLE, 16, 0])),
    )


def fast(model: Any, case: Case) -> tuple[Tensor, Tensor, list[Tensor]]:
    """As a run computes it: scores (E, K) of the responses, loss and gradient."""
    groups = case.examples
    if case.objective == "sft":
        scorer, objective = ResponseScorer(model), sft.objective(groups)
    elif case.objective == "dpo":
        config = PreferenceConfig(beta=case.beta, label_smoothing=case.smoothing)
        scorer, objective = ResponseScorer(model), dpo.objective(config)
    else:
        config = RewardConfig(use_margin=True, label_smoothing=case.smoothing, centering=0.01)
        scorer = reward_model.RewardScorer(model, case.pooling)
        objective = reward_model.objective(config)
    extra = {"margin": case.margin} if case.objective == "reward" else {}
    make = loop._BatchMaker(groups, extra, case.reference, 0, torch.device("cpu"))
    rows = loop.same_prompt(groups, np.arange(len(groups)), case.share)
    scores = torch.zeros_like(case.reference)
    loss = scores.new_zeros(())
    with mock.patch.object(flat, "WHOLE", case.whole):
        for part, weight in loop.micro_batches(rows, loop.row_sizes(rows, groups), case.most):
            batch = make(part)
            given = scorer(batch.tree)
            scores[batch.examples] = batch.per_response(given).detach()
            loss = loss + weight * objective.values(given, batch)["loss"].sum() / len(groups)
    return scores, loss.detach(), _gradient(loss, model)


def plain(model: Any, case: Case, rng: np.random.Generator) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The same from one padded row a response, transformers' forward, and the losses' equations."""
    score = partial(_row_reward, pooling=case.pooling) if case.objective == "reward" else _row_logp
    scores = torch.stack(
        [
            torch.stack([score(model, prompt, answer, rng) for answer in own])
            for prompt, own in case.examples
        ]
    )
    if case.objective == "sft":
        mean_length = np.mean([len(answer) for _, own in case.examples for answer in own])
        losses = -scores[:, 0] / mean_length
    elif case.objective == "dpo":
        ratios = scores - case.reference
        h = case.beta * (ratios[:, 0] - ratios[:, 1])
        losses = (1 - case.smoothing) * _softplus(-h) + case.smoothing * _softplus(h)
    else:
        d = scores[:, 0] - scores[:, 1] - case.margin
        losses = (1 - case.smoothing) * _softplus(-d) + case.smoothing * _softplus(d)
        losses = losses + 0.01 * scores.sum(1) ** 2
    loss = losses.mean()
    return scores.detach(), loss.detach(), _gradient(loss, model)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp x)."""
    return torch.logaddexp(torch.zeros_like(x), x)


def _gradient(loss: Tensor, model: Any) -> list[Tensor]:
    parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    pairs = zip(parts, model.parameters(), strict=True)
    return [torch.zeros_like(p) if part is None else part for part, p in pairs]


def _padded(prompt: list[int], answer: list[int], rng: np.random.Generator) -> tuple[dict, slice]:
    """One row with up to five pads on one side, and where the answer stands in it."""
    pads = min(int(rng.integers(6)), CONTEXT - len(prompt) - len(answer))
    before = pads if rng.integers(2) else 0
    row = [0] * before + prompt + answer + [0] * (pads - before)
    mask = torch.zeros(1, len(row), dtype=torch.long)
    mask[0, before : len(row) - (pads - before)] = 1
    first = before + len(prompt)
    inputs = {
        "input_ids": torch.tensor([row]),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "use_cache": False,
    }
    return inputs, slice(first, first + len(answer))


def _row_logp(model: Any, prompt: list[int], answer: list[int], rng: Any) -> Tensor:
    inputs, place = _padded(prompt, answer, rng)
    logits = model(**inputs).logits[0, place.start - 1 : place.stop - 1]
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum()


def _row_reward(model: Any, prompt: list[int], answer: list[int], rng: Any, pooling: str) -> Tensor:
    inputs, place = _padded(prompt, answer, rng)
    hidden = getattr(model, model.base_model_prefix)(**inputs).last_hidden_state
    rewards = model.score(hidden)[0, place, 0]
    return rewards[-1] if pooling == "last" else rewards.sum()


def difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The largest one, as a share of the largest value in `b`, or of 1."""
    flat_a, flat_b = (torch.cat([one.double().flatten() for one in parts]) for parts in (a, b))
    return float((flat_a - flat_b).abs().max() / flat_b.abs().max().clamp(min=1.0))


# All of it ----------------------------------------------------------------------------------------


def attack(n: int, seed: int = 0, first: int = 0, progress: bool = False) -> Report:
    """Batches first ... first + n - 1 of a seed; each is the same whatever n is."""
    report = Report()
    model, made = None, -1
    kind, objective, dtype = ("", ""), "", torch.float32
    for i in tqdm(range(first, first + n), disable=not progress, unit="batch", mininterval=5):
        if i // PER_MODEL != made:
            made = i // PER_MODEL
            rng = np.random.default_rng([seed, 0, made])
            family = FAMILIES[made % len(FAMILIES)]
            precision = "float32" if rng.random() < 0.3 else "float64"
            objective = OBJECTIVES[made // len(FAMILIES) % len(OBJECTIVES)]
            model = draw_model(rng, family, objective == "reward", precision)
            kind, dtype = (family, precision), getattr(torch, precision)
        rng = np.random.default_rng([seed, 1, i])
        report.seen[f"objective {objective}"] += 1
        case = draw_case(rng, objective, dtype, report.seen)
        where = f"batch {i} of seed {seed} ({' '.join(kind)}, {objective})"
        with mock.patch.object(flat, "hidden_states", wraps=flat.hidden_states) as used:
            ours = fast(model, case)
        if not used.called:
            report.failures.append(f"{where}: pads were computed")
        theirs = plain(model, case, rng)
        pairs = zip(WHAT, ours, theirs, strict=True)
        found = {
            name: difference(*([x] if isinstance(x, Tensor) else x for x in pair))
            for name, *pair in pairs
        }
        report.add(kind, found, where)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000, help="batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="begin with this batch of the seed")
    options = parser.parse_args()
    report = attack(options.n, options.seed, options.first, progress=True)
    for failure in report.failures[:50]:
        print(failure)
    print(report)
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
