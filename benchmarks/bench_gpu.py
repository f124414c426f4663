"""DPO, reward-model and GRPO steps and rollouts of published sizes on a GPU, beside TRL.

    python benchmarks/bench_gpu.py                                       # all of it, 8 minutes
    python benchmarks/bench_gpu.py smollm2-360m --kinds dpo grpo --precision float32
    python benchmarks/bench_gpu.py FOLDER --kinds rollouts               # the weights of a folder
    python benchmarks/bench_gpu.py tiny --device cpu --steps 2 --batch 4 # tries the script itself

Named models have random weights of the published configuration: speed and memory do not depend on
what a model knows. Both sides take the same examples, one precision (bfloat16 is autocast over
float32 weights on both) and no gradient checkpointing. TRL, and `generate` in its place for
rollouts, is left out where TRL is not installed. Each figure is written as soon as it is there;
once `--minutes` have passed nothing further is begun, and the output says what was left out.

MFU is the floating-point work that is needed, over what the card could do in the time. Needed for a
training step, forwards and backwards: 6 for each weight of the layers and each token, 6 for each
weight of the head and each response token, and 12 * layers * width for each pair of a token and one
that it sees. Drawing needs a third of it, once for each token, and GRPO both.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_online as online
import common
import lm_problems as lm
import numpy as np
import torch
from transformers import LlamaConfig, Qwen2Config

from irlbook.lm.costs import Architecture, training_flops
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.sampling import sample
from irlbook.posttraining import dpo, reward_model
from irlbook.training.distributed import autocast

PEAK = {
    "bfloat16": {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12},
    "float32": {"H200": 67e12, "H100": 67e12, "A100": 19.5e12, "L4": 30e12, "4090": 83e12},
}
"""Dense operations a second, as the makers state them, by a part of the card's name. PyTorch
multiplies float32 matrices in float32, so not by tensor cores, unless it is told otherwise."""

PROMPT, RESPONSE = (64, 256), (32, 256)  # tokens, spread evenly over the range
DRAWN, LIMIT = 128, 256  # tokens of a response that is drawn: on average, at most
GRPO_STEPS = 3  # drawing takes most of one, and launches some 100,000 kernels

CONFIGURATIONS: dict[str, Any] = {
    "tiny": LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    ),
    "smollm2-135m": LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1_536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8_192,
        tie_word_embeddings=True,
    ),
    "smollm2-360m": LlamaConfig(
        vocab_size=49_152, hidden_size=960, intermediate_size=2_560, num_hidden_layers=32,
        num_attention_heads=15, num_key_value_heads=5, max_position_embeddings=8_192,
        tie_word_embeddings=True,
    ),
    "qwen2.5-0.5b": Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4_864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=32_768,
        tie_word_embeddings=True,
    ),
}  # fmt: skip
PUBLISHED = ["smollm2-135m", "smollm2-360m", "qwen2.5-0.5b"]


def build(name: str, kind: str) -> Any:
    """A model of this configuration with random weights, or that of a folder."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if name not in CONFIGURATIONS:
        return lm.reward_model(name) if kind == "reward" else lm.language_model(name)
    config = copy.deepcopy(CONFIGURATIONS[name])
    config.pad_token_id, config.eos_token_id, config.num_labels = lm.PAD, lm.EOS, 1
    causal = kind != "reward"
    loader: Any = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    torch.manual_seed(0)
    return loader.from_config(config)


def needed(model: Any, groups: Sequence[tuple[float, Sequence[float]]]) -> tuple[float, float]:
    """(tokens, floating-point operations) of one training pass, forwards and backwards.

    Args:
        groups: (tokens of a prompt, tokens of each of its responses).
    """
    sized = Architecture.of(model.config)
    if model.get_output_embeddings() is None:  # a reward model has no head over words
        sized = replace(sized, vocabulary=0)
    tokens = sum(prompt + sum(responses) for prompt, responses in groups)
    return tokens, training_flops(sized, groups)


Measured = tuple[float, float, float]
"""Seconds, tokens and floating-point operations of a step."""


def train(name: str, kind: str, side: str, options: argparse.Namespace) -> Measured:
    """A DPO or a reward-model step of one side."""
    lm.BATCH = options.batch
    model, cuda = build(name, kind).to(options.device), options.device == "cuda"
    groups = lm.examples(
        options.steps, 2, model.config.vocab_size, prompt=PROMPT, response=RESPONSE
    )
    tokens, work = needed(model, [(len(x), [len(y) for y in answers]) for x, answers in groups])
    if side == "ours":
        scorer = ResponseScorer(model) if kind == "dpo" else reward_model.RewardScorer(model)
        objective = dpo.objective() if kind == "dpo" else reward_model.objective()
        run = lm.ours(scorer, groups, objective, [], **machine(options))
    else:
        extra = {"precompute_ref_log_probs": True} if kind == "dpo" else {}
        bf16 = options.precision == "bfloat16"
        run = lm.theirs(kind, model, groups, [], use_cpu=not cuda, bf16=bf16, **extra)
    run()  # warm-up
    return float(np.median(run()[0])), tokens / options.steps, work / options.steps


def grpo(name: str, kind: str, side: str, options: argparse.Namespace) -> Measured:
    """A whole GRPO step of one side: 4 responses to each prompt, the reward, one update."""
    model, prompts = policy(name, options)
    seen, cuda = online.Seen(), options.device == "cuda"
    work = ("grpo", 0.0, model, prompts, seen)
    size = {"steps": min(options.steps, GRPO_STEPS), "limit": LIMIT}
    if side == "ours":
        run = online.ours(*work, **size, **machine(options))
    else:
        bf16 = options.precision == "bfloat16"
        run = online.theirs(*work, **size, use_cpu=not cuda, bf16=bf16)
    run()  # warm-up
    seen.lengths.clear()
    seconds = float(np.median(run()[0]))
    length = float(np.mean(seen.lengths))
    drawn = [(float(len(prompt)), [length] * online.SAMPLES) for prompt in prompts]
    tokens, update = needed(model, drawn)
    return seconds, tokens, update + update / 3


def rollouts(name: str, kind: str, side: str, options: argparse.Namespace) -> Measured:
    """4 responses to each prompt, by the book's sampler or by `generate`."""
    model, prompts = policy(name, options)
    model.to(options.device).eval()
    stops, width = model.generation_config.eos_token_id, max(map(len, prompts))
    ids = [[lm.PAD] * (width - len(p)) + p for p in prompts]
    mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    left = {"input_ids": ids, "attention_mask": mask}
    inputs = {key: torch.tensor(x, device=options.device) for key, x in left.items()}
    lengths: list[int] = []

    def ours(seed: int) -> None:
        drawn = sample(
            model, prompts, online.SAMPLES, max_new_tokens=LIMIT, stop_ids=stops, seeds=seed
        )
        lengths.extend(map(len, drawn.responses))

    def theirs(seed: int) -> None:
        torch.manual_seed(seed)
        out = model.generate(
            **inputs, do_sample=True, top_k=0, num_return_sequences=online.SAMPLES,
            max_new_tokens=LIMIT, eos_token_id=stops, pad_token_id=lm.PAD,
        )[:, width:].cpu()  # fmt: skip
        ends = torch.isin(out, torch.tensor(stops)).long()
        lengths.extend(torch.where(ends.any(1), ends.argmax(1) + 1, LIMIT).tolist())

    seconds = []
    for seed in range(1 + min(options.steps, GRPO_STEPS)):
        began, _ = lm.now()
        with autocast(torch.device(options.device), options.precision):
            (ours if side == "ours" else theirs)(seed)
        seconds.append(lm.now()[0] - began)
    length = float(np.mean(lengths))
    drawn = [(float(len(prompt)), [length] * online.SAMPLES) for prompt in prompts]
    tokens, update = needed(model, drawn)
    return float(np.median(seconds[1:])), tokens, update / 3


def policy(name: str, options: argparse.Namespace) -> tuple[Any, list[list[int]]]:
    """(a model on the CPU whose responses end after `DRAWN` tokens on average, prompts)."""
    lm.BATCH = max(1, options.batch // 2)
    model = build(name, "dpo")  # each side of GRPO moves its own copies
    words = model.config.vocab_size
    model.generation_config.eos_token_id = list(range(0, words, DRAWN))
    return model, [prompt for prompt, _ in lm.examples(1, 1, words, prompt=PROMPT)]


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Our settings of a run."""
    names = ("device", "precision", "max_tokens")
    return {name: getattr(options, name) for name in names}


KINDS: dict[str, Callable[[str, str, str, argparse.Namespace], Measured]] = {
    "dpo": train,
    "reward": train,
    "grpo": grpo,
    "rollouts": rollouts,
}


def measure(name: str, kind: str, side: str, options: argparse.Namespace) -> dict[str, float]:
    """Speed, share of the peak and memory of one side."""
    cuda = options.device == "cuda"
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds, tokens, work = KINDS[kind](name, kind, side, options)
    found = {
        "seconds_a_step": seconds,
        "tokens_per_second": tokens / seconds,
        "tflops": work / seconds / 1e12,
    }
    if cuda:
        card, peaks = torch.cuda.get_device_name(), PEAK[options.precision]
        peak = next((value for part, value in peaks.items() if part in card), None)
        found["mfu"] = work / seconds / peak if peak else float("nan")
        found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=f"models: {', '.join(CONFIGURATIONS)}"
    )
    parser.add_argument("models", nargs="*", default=PUBLISHED, help="names, or folders")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=10, help="of a run; the first is left out")
    parser.add_argument("--batch", type=int, default=32, help="pairs; half as many prompts")
    parser.add_argument("--max-tokens", type=int, default=32_768, help="of ours, held at once")
    parser.add_argument("--minutes", type=float, default=8.0, help="after these no more is begun")
    options = parser.parse_args()
    for name in options.models:
        if name not in CONFIGURATIONS and not Path(name).is_dir():
            known = ", ".join(CONFIGURATIONS)
            parser.error(f"{name} is no folder; choose from {known}, or give one")
    if options.steps < 2:
        parser.error("--steps must be at least 2: the first is left out")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is seen; `irlbook doctor` says more. --device cpu tries the script")
    card = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{datetime.date.today()}, {card}, {options.precision}", flush=True)
    sides = ["ours"] + ["TRL"] * (common.peer("trl", "trl") is not None)
    began, left = time.monotonic(), []
    results: dict[str, dict[str, dict[str, float]]] = {}
    settings = vars(options) | {"models": [Path(name).name for name in options.models]}
    for name in options.models:
        for kind in options.kinds:
            job = f"{Path(name).name} {kind}"
            if time.monotonic() - began > 60 * options.minutes:
                left.append(job)
                continue
            results[job] = {side: measure(name, kind, side, options) for side in sides}
            columns = list(results[job]["ours"])
            rows = [[side, *(f"{of[c]:.4g}" for c in columns)] for side, of in results[job].items()]
            common.table([job, *columns], rows)
            if options.device == "cuda":
                record = {"card": card, "settings": settings, "left_out": left, "results": results}
                common.save(f"gpu_{options.precision}", record)
    if left:
        print(f"left out after {options.minutes:g} minutes: {', '.join(left)}")


if __name__ == "__main__":
    main()
