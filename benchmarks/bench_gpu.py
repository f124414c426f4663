"""DPO, reward-model and GRPO steps of published configurations on a GPU, beside TRL.

    python benchmarks/bench_gpu.py [smollm2-135m qwen2.5-0.5b] [--steps 20] [--batch 32]
    python benchmarks/bench_gpu.py tiny --device cpu          # tries the script itself, no figure

Weights are random: speed and memory do not depend on what a model knows. Both sides run in bfloat16
(autocast over float32 weights), without gradient checkpointing, on the same examples. TRL is left
out where it is not installed.

MFU is the floating-point work that the step needs, over what the card could do in its time. Needed,
forwards and backwards: 6 for each weight of the layers and each token, 6 for each weight of the
head and each response token, and 12 * layers * width for each pair of a token and one that it sees.
A prompt counts once for both of its responses. What a side does beyond that (pads, a prompt twice)
counts as time, not as work.

A GRPO step draws 4 responses to each of batch / 2 prompts, of 128 tokens on average and 256 at
most, scores them and updates the policy; its tokens count once, drawn and learnt from. TRL samples
in float32 there. There is no MFU of it: sampling is bound by memory.
"""

from __future__ import annotations

import argparse
import copy
import gc
from typing import Any

import bench_online as online
import common
import lm_problems as lm
import numpy as np
import torch
from transformers import LlamaConfig, Qwen2Config

from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.trees import Group
from irlbook.posttraining import dpo, reward_model

PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}
"""Dense bfloat16 operations a second, as the makers state them, by a part of the card's name."""

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
    "qwen2.5-0.5b": Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4_864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=32_768,
        tie_word_embeddings=True,
    ),
}  # fmt: skip


def build(name: str, kind: str, device: str) -> Any:
    """A model of this configuration with random weights: for "dpo" or for "reward"."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    config = copy.deepcopy(CONFIGURATIONS[name])
    config.pad_token_id, config.eos_token_id, config.num_labels = lm.PAD, lm.EOS, 1
    loader = AutoModelForCausalLM if kind == "dpo" else AutoModelForSequenceClassification
    torch.manual_seed(0)
    return loader.from_config(config).to(device)


def needed(model: Any, groups: list[Group], kind: str) -> tuple[int, float]:
    """(tokens, floating-point operations) of one pass over the groups, forwards and backwards."""
    c = model.config
    head = c.vocab_size * c.hidden_size if kind == "dpo" else 0
    embedding = model.get_input_embeddings().weight.numel()
    layers = sum(p.numel() for p in model.parameters()) - embedding
    tokens, work = 0, 0.0
    for prompt, answers in groups:
        responses = [len(answer) for answer in answers]
        count = len(prompt) + sum(responses)
        pairs = len(prompt) ** 2 / 2 + sum(n * len(prompt) + n * n / 2 for n in responses)
        work += 6 * layers * count + 6 * head * sum(responses)
        work += 12 * c.num_hidden_layers * c.hidden_size * pairs
        tokens += count
    return tokens, work


def measure(name: str, kind: str, side: str, options: argparse.Namespace) -> dict[str, float]:
    """Tokens a second, share of the peak and memory of one side."""
    lm.BATCH = options.batch
    groups = lm.examples(
        options.steps, 2, CONFIGURATIONS[name].vocab_size, prompt=(64, 256), response=(32, 256)
    )
    cuda = options.device == "cuda"
    model = build(name, kind, options.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    if side == "ours":
        scorer = ResponseScorer(model) if kind == "dpo" else reward_model.RewardScorer(model)
        objective = dpo.objective() if kind == "dpo" else reward_model.objective()
        run = lm.ours(
            scorer, groups, objective, [], device=options.device, precision="bfloat16",
            max_tokens=options.max_tokens,
        )  # fmt: skip
    else:
        extra = {"precompute_ref_log_probs": True} if kind == "dpo" else {}
        run = lm.theirs(kind, model, groups, [], use_cpu=not cuda, bf16=True, **extra)
    run()  # warm-up
    seconds = float(np.median(run()[0]))
    tokens, work = needed(model, groups, kind)
    found = {
        "seconds_a_step": seconds,
        "tokens_per_second": tokens / options.steps / seconds,
        "tflops": work / options.steps / seconds / 1e12,
    }
    if cuda:
        card = torch.cuda.get_device_name()
        peak = next((value for part, value in PEAK.items() if part in card), None)
        found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if peak is not None:
            found["mfu"] = found["tflops"] * 1e12 / peak
    del model, run
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return found


def measure_grpo(name: str, side: str, options: argparse.Namespace) -> dict[str, float]:
    """Tokens a second and memory of whole GRPO steps of one side."""
    lm.BATCH = max(1, options.batch // 2)
    vocabulary = CONFIGURATIONS[name].vocab_size
    prompts = [prompt for prompt, _ in lm.examples(1, 1, vocabulary, prompt=(64, 256))]
    cuda, seen = options.device == "cuda", online.Seen()
    model = build(name, "dpo", "cpu")  # each side moves its own copies
    model.generation_config.eos_token_id = list(range(0, vocabulary, 128))
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    work = ("grpo", 0.0, model, prompts, seen)
    size = {"steps": options.steps, "limit": 256}
    if side == "ours":
        run = online.ours(
            *work, **size, device=options.device, precision="bfloat16",
            max_tokens=options.max_tokens,
        )  # fmt: skip
    else:
        run = online.theirs(*work, **size, use_cpu=not cuda, bf16=True)
    run()  # warm-up
    seen.lengths.clear()
    seconds = float(np.median(run()[0]))
    drawn = float(np.mean(seen.lengths)) * online.SAMPLES * len(prompts)
    found = {
        "seconds_a_step": seconds,
        "tokens_per_second": (drawn + sum(map(len, prompts))) / seconds,
        "mean_length": float(np.mean(seen.lengths)),
    }
    if cuda:
        found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    del model, run
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["smollm2-135m", "qwen2.5-0.5b"])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=32_768)
    options = parser.parse_args()
    for name in options.models:
        if name not in CONFIGURATIONS:
            parser.error(f"{name} is unknown; choose from {', '.join(CONFIGURATIONS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is seen; `irlbook doctor` says more. --device cpu tries the script")
    sides = ["ours"] + ["TRL"] * (common.peer("trl", "trl") is not None)
    results, rows = {}, []
    for name in options.models:
        for kind in ("dpo", "reward"):
            of = {side: measure(name, kind, side, options) for side in sides}
            results[f"{name} {kind}"] = of
            rows += [[name, kind, side, *(f"{v:.4g}" for v in of[side].values())] for side in sides]
    common.table(["model", "step", "side", *next(iter(of.values()))], rows)
    rows = []
    for name in options.models:
        of = {side: measure_grpo(name, side, options) for side in sides}
        results[f"{name} grpo"] = of
        rows += [[name, "grpo", side, *(f"{v:.4g}" for v in of[side].values())] for side in sides]
    common.table(["model", "step", "side", *next(iter(of.values()))], rows)
    if options.device == "cuda":
        card = torch.cuda.get_device_name()
        common.save("gpu", {"card": card, "settings": vars(options), "results": results})


if __name__ == "__main__":
    main()
