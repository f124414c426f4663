"""Does the real vLLM draw from the policy, before and after its weights move?

    python benchmarks/check_vllm.py                 three checks on tiny random models, made here
    python benchmarks/check_vllm.py --model FOLDER  the same on a model of yours, one check
    python benchmarks/check_vllm.py --only split

Each check is a process of its own, since vLLM does not leave one as it was:

- tied: a Llama whose head is its embedding; untied: a Qwen2 with a head of its own, and biases;
- split: two processes, in which GRPO trains a Llama that is split over them (FSDP).

In each, GRPO takes some steps with vLLM as the sampler. After every draw the log-probabilities that
vLLM gives are compared with those of a whole copy of the policy: the greatest difference of a token
must stay below 1e-4 nats in float32. The first tokens are counted: their mean log-probability must
be minus the policy's entropy, within four standard errors. And a sampler whose weights are no
longer renewed must be refused.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from irlbook.errors import StaleSamplesError
from irlbook.lm import models
from irlbook.lm.tokenization import encode_prompt, stop_ids, train_tokenizer
from irlbook.posttraining.online import OnlineConfig, train_online
from irlbook.posttraining.rollouts import VLLMSampler
from irlbook.training import StepConfig, distributed

CASES = ("tied", "untied", "split")
PROMPTS = ["say bus", "say film", "say zoo", "say gym"]
MOST_APART = 1e-4  # nats a token
ERRORS = 4.0  # standard errors


def tiny(case: str, folder: Path) -> Path:
    """A random model whose next token is far from uniform, saved with a tokenizer."""
    tokenizer = train_tokenizer(PROMPTS, 300)
    kind, tied = ("qwen2", False) if case == "untied" else ("llama", True)
    model = models.tiny_lm(tokenizer, kind, hidden=64, heads=2, kv_heads=1, context=128, tied=tied)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.1) if p.ndim == 1 else p.mul_(10)
    return models.save(model, tokenizer, folder)


class Watched:
    """A sampler whose every draw is compared with a whole copy of the policy."""

    def __init__(self, sampler: Any, model: Any) -> None:
        self.sampler, self.copy = sampler, copy.deepcopy(model)
        self.apart: list[float] = []

    def __call__(self, model: Any, prompts: Any, n: int, **options: Any) -> Any:
        drawn = self.sampler(model, prompts, n, **options)
        distributed.copy_weights(model, self.copy)
        self.apart.append(self.difference(drawn))
        return drawn

    @torch.no_grad()
    def difference(self, drawn: Any) -> float:
        """The greatest of a token, nats; each process looks at what it has drawn."""
        worst = 0.0
        logps = iter(drawn.logps)
        for prompt, answers in drawn.groups:
            for answer in answers:
                ids = torch.tensor([[*prompt, *answer]])
                logits = self.copy(ids).logits[0, len(prompt) - 1 : -1].double()
                own = torch.log_softmax(logits / drawn.temperature, -1)
                own = own.gather(1, torch.tensor(answer)[:, None])[:, 0]
                worst = max(worst, float((own - next(logps)).abs().max()))
        return worst


@torch.no_grad()
def surprise(sampler: Any, model: Any, tokenizer: Any, draws: int = 1000) -> float:
    """Standard errors between the mean log-probability of first tokens and minus the entropy."""
    prompt, temperature = encode_prompt(tokenizer, PROMPTS[0]), 0.7
    drawn = sampler(
        model,
        [prompt],
        draws,
        max_new_tokens=1,
        stop_ids=stop_ids(tokenizer, model),
        temperature=temperature,
        seeds=[1],
    )
    logits = model(torch.tensor([prompt])).logits[0, -1].double()
    logps = torch.log_softmax(logits / temperature, -1)
    mean = float((logps.exp() * logps).sum())
    spread = float(((logps - mean) ** 2 * logps.exp()).sum() / draws) ** 0.5
    own = logps[[answer[0] for answer in drawn.responses]]
    return float(own.mean() - mean) / spread


def letters(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(sum(c.isalpha() for c in text)) for text in responses]


def check(case: str, folder: Path) -> list[str]:
    """What failed."""
    distributed.ranks("cpu")  # before vLLM, which would make a group of this process alone
    model, tokenizer = models.load_lm(folder)
    prompts = PROMPTS * 2
    longest = max(len(encode_prompt(tokenizer, p)) for p in prompts)
    sampler = VLLMSampler(
        str(folder), dtype="float32", enforce_eager=True, max_model_len=longest + 16
    )
    watched = Watched(sampler, model)
    steps = StepConfig(learning_rate=1e-3, warmup=0, progress=False, shard=case == "split")
    config = OnlineConfig(
        "grpo", iterations=3, prompts=4, samples=4, max_new_tokens=16, training=steps
    )
    result = train_online(model, tokenizer, prompts, letters, config, sampler=watched)
    moved = max(
        float((p - q).detach().abs().max())
        for p, q in zip(model.parameters(), result.policy.parameters(), strict=True)
    )
    said = f"{case}: log-probabilities apart by {max(watched.apart):.2g} nats at most"
    said += f" in {len(watched.apart)} draws, weights moved by {moved:.2g}"
    failed = []
    if not (max(watched.apart) < MOST_APART and moved > 0):
        failed.append(said)
    if case == "split":
        sums = torch.stack([p.detach().double().sum() for p in result.policy.parameters()])
        others = [torch.empty_like(sums) for _ in range(2)]
        torch.distributed.all_gather(others, sums)
        if not torch.equal(*others):
            failed.append("split: the processes end with other weights")
    else:
        errors = surprise(sampler, result.policy, tokenizer)
        said += f"; first tokens {errors:+.1f} standard errors from the entropy"
        if not abs(errors) < ERRORS:
            failed.append(said)
        sampler.sync = lambda model: None  # type: ignore[method-assign]
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape) * p.std())
        try:
            train_online(model, tokenizer, prompts, letters, config, sampler=sampler)
            failed.append(f"{case}: samples of other weights were taken for the policy's")
        except StaleSamplesError:
            said += "; stale samples are refused"
    if distributed.is_main_process():
        print(said, flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=CASES, help="one check")
    parser.add_argument("--model", type=Path, help="a saved model, instead of tiny random ones")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        failed = check(asked.only, asked.model)
        print(*failed, sep="\n", file=sys.stderr, flush=True)
        # Not the interpreter's own end: vLLM and a process group wait for each other there.
        os._exit(1 if failed else 0)
    cases = [asked.only] if asked.only else ["tied"] if asked.model else CASES
    broken = []
    with tempfile.TemporaryDirectory() as made:
        for case in cases:
            folder = asked.model or tiny(case, Path(made) / case)
            run = [sys.executable]
            if case == "split":
                run += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
            run += [__file__, "--here", "--only", case, "--model", str(folder)]
            if subprocess.run(run, check=False).returncode:
                broken.append(case)
    print(f"failed: {', '.join(broken)}" if broken else "vLLM draws from the policy")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
