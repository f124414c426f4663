"""Training steps, memory and import against TRL; rollouts against `generate`; best-of-16 scoring.

    python benchmarks/bench_posttraining.py [item ...] [--rounds 5]
    python benchmarks/bench_posttraining.py --model FOLDER [item ...] [--rounds 3]

Items: those of ITEMS, or of REAL_ITEMS for the model of a folder; all of them when none is named.
Each writes its own result file. Both sides run in turns in one process, float32, one thread;
`lm_problems.py` says how they are made equal. The losses of both sides must agree to 1e-5 at each
of the first steps (those of a folder's model to 1e-4 of themselves), or the script fails.
Ratios are theirs over ours: above 1 the book is faster, or smaller. CPU time is the steadier of
the two clocks where other work runs on the machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import common  # first: it sets one thread before torch is loaded

AGREE = 1e-5
AGREE_SHARE = 1e-4  # of a loss, with weights that were trained, in thirty layers
Result = dict[str, Any]


# Training steps -----------------------------------------------------------------------------------


def agree(ours: list[float], *others: list[Any], share: bool = False) -> float:
    """The largest difference of the losses of the warm-up runs, which started alike.

    Args:
        share: as a share of the loss.
    """
    from lm_problems import STEPS

    most = AGREE_SHARE if share else AGREE
    worst = max(
        abs(a - float(b)) / (float(b) if share else 1)
        for other in others
        for a, b in zip(ours[:STEPS], other, strict=False)
    )
    spread = max(ours[:STEPS]) - min(ours[:STEPS])
    moved = spread > (10 * worst if share else AGREE)
    assert worst <= most and moved, f"losses differ by {worst:.2g} and move by {spread:.2g}"
    return worst


def dpo_step(size: str, vocabulary: int | None, rounds: int, live: bool = True) -> Result:
    """A DPO step; TRL with the reference computed once, and, if asked, with a live one."""
    import lm_problems as lm

    from irlbook.lm.logprobs import ResponseScorer
    from irlbook.posttraining import dpo

    model = lm.language_model(size, vocabulary)
    groups = lm.examples(lm.STEPS, 2, model.config.vocab_size)
    mine, once, alive = [], [], []
    scorer = ResponseScorer(copy.deepcopy(model))
    sides = {
        "ours": lm.ours(scorer, groups, dpo.objective(), mine),
        "TRL, reference once": lm.theirs(
            "dpo", copy.deepcopy(model), groups, once, precompute_ref_log_probs=True
        ),
    }
    if live:
        sides["TRL, live reference"] = lm.theirs(
            "dpo", copy.deepcopy(model), groups, alive, ref_model=copy.deepcopy(model)
        )
    others = [once, alive] if live else [once]
    found, about = lm.compare(sides, rounds), lm.about(model)
    differ = agree(mine, *others, share=size not in lm.SIZES)
    return {"sides": found, "losses_differ_by": differ, "model": about}


def dpo_epoch(rounds: int) -> Result:
    """From text to a trained policy, one pass: tokenising, the reference, bucketing, training."""
    import datasets
    import lm_problems as lm
    import transformers

    from irlbook import training
    from irlbook.data.records import Preference
    from irlbook.lm.logprobs import ResponseScorer
    from irlbook.posttraining import dpo, pipeline

    lm.quiet(datasets, transformers)
    vocabulary, steps = 1024, 16
    groups = lm.examples(steps, 2, vocabulary)
    model, tokenizer = lm.language_model("xs", vocabulary), lm.word_tokenizer(vocabulary)
    texts = [(lm.text_of(p).strip(), *map(lm.text_of, answers)) for p, answers in groups]

    def ours() -> None:
        records = [Preference(*row) for row in texts]
        coded = pipeline.encode(records, tokenizer, 1024).groups
        assert coded[0][1][0][-1] == lm.EOS
        scorer = ResponseScorer(copy.deepcopy(model))
        config = training.TrainingConfig(batch_size=lm.BATCH, learning_rate=lm.RATE, progress=False)
        training.train(scorer, coded, dpo.objective(), config, pad_id=lm.PAD)

    def theirs() -> None:
        run = lm.theirs("dpo", copy.deepcopy(model), groups, [], precompute_ref_log_probs=True)
        run()

    sides = {"ours": lm.timed(ours), "TRL, reference once": lm.timed(theirs)}
    return {"sides": lm.compare(sides, rounds)}


def reward_step(per_prompt: int, rounds: int, size: str = "xs") -> Result:
    """A reward-model step on pairs; `per_prompt` pairs share a prompt, and with us a row."""
    import lm_problems as lm

    from irlbook.posttraining import reward_model
    from irlbook.posttraining.reward_model import RewardScorer

    # With shared prompts all steps take the same batch, whose order within does not matter.
    model, mine, trl = lm.reward_model(size, 1024), [], []
    steps = lm.STEPS if per_prompt == 1 else 1
    groups = lm.examples(steps, 2, model.config.vocab_size, per_prompt=per_prompt)
    scorer = RewardScorer(copy.deepcopy(model), "last")
    options = {"steps": lm.STEPS, "share_prompts": per_prompt}
    sides = {
        "ours": lm.ours(scorer, groups, reward_model.objective(), mine, **options),
        "TRL": lm.theirs("reward", copy.deepcopy(model), groups, trl, max_steps=lm.STEPS),
    }
    found, about = lm.compare(sides, rounds), lm.about(model)
    differ = agree(mine, trl, share=size not in lm.SIZES)
    return {"sides": found, "losses_differ_by": differ, "model": about}


def sft_step(vocabulary: int, rounds: int) -> Result:
    """A step of supervised fine-tuning, the loss on responses only."""
    import lm_problems as lm

    from irlbook.lm.logprobs import ResponseScorer
    from irlbook.posttraining import sft

    groups = lm.examples(lm.STEPS, 1, vocabulary)
    model, mine, trl = lm.language_model("xs", vocabulary), [], []
    scorer = ResponseScorer(copy.deepcopy(model))
    sides = {
        "ours": lm.ours(scorer, groups, sft.objective(groups), mine),
        "TRL": lm.theirs("sft", copy.deepcopy(model), groups, trl),
    }
    found = lm.compare(sides, rounds)
    return {"sides": found, "losses_differ_by": agree(mine, trl)}


# Sampling and scoring -----------------------------------------------------------------------------


def rollouts(size: str, vocabulary: int, rounds: int) -> Result:
    """16 prompts, 4 responses each, ended by a stop token after 24 tokens on average, 96 at most.

    The model is untrained, so its tokens are nearly uniform: with every 24th token a stop token,
    lengths are geometric.
    """
    import lm_problems as lm

    prompts = [prompt for prompt, _ in lm.examples(1, 1, vocabulary)]
    stops = list(range(0, vocabulary, 24))
    return draw_64(lm.language_model(size, vocabulary), prompts, stops, 96, rounds)


def chat_rollouts(folder: str, rounds: int) -> Result:
    """8 requests for a short review, 8 responses each, ended by the model or at 64 tokens."""
    import lm_problems as lm

    from irlbook.lm.models import load_tokenizer
    from irlbook.lm.tokenization import encode_prompt, stop_ids
    from irlbook.posttraining.real_model import sentiment

    model, tokenizer = lm.language_model(folder), load_tokenizer(folder)
    prompts = [encode_prompt(tokenizer, sentiment.prompt(t)) for t in sentiment.TOPICS[:8]]
    found = draw_64(model, prompts, stop_ids(tokenizer), 64, rounds)
    return found | {"prompt_lengths": [len(p) for p in prompts], "model": lm.about(model)}


def draw_64(
    model: Any, prompts: list[list[int]], stops: list[int], limit: int, rounds: int
) -> Result:
    """64 responses, as many to each prompt, against `generate`.

    Ours returns log-probabilities too; one prompt's are checked against a padded call.
    """
    import lm_problems as lm
    import numpy as np
    import torch

    from irlbook.lm.logprobs import padded_token_logps
    from irlbook.lm.sampling import sample

    model.eval()
    n, width = 64 // len(prompts), max(map(len, prompts))
    ids = torch.tensor([[lm.PAD] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    lengths: dict[str, list[int]] = {"ours": [], "generate": []}
    seed = iter(range(10**6))

    def ours() -> None:
        drawn = sample(model, prompts, n, max_new_tokens=limit, stop_ids=stops, seeds=next(seed))
        lengths["ours"] += [len(response) for response in drawn.responses]
        if len(lengths["ours"]) == n * len(prompts):  # once, in the warm-up
            with torch.no_grad():
                expected = padded_token_logps(model, drawn.groups[:1], lm.PAD)
            assert (drawn.token_logps[: len(expected)] - expected).abs().max() <= 1e-4

    def generate() -> None:
        torch.manual_seed(next(seed))
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=n,
            max_new_tokens=limit,
            eos_token_id=stops,
            pad_token_id=lm.PAD,
        )[:, width:]
        ends = torch.isin(out, torch.tensor(stops)).long()
        first = torch.where(ends.any(1), ends.argmax(1) + 1, limit)
        lengths["generate"] += first.tolist()

    found = lm.compare({"ours": lm.timed(ours), "generate": lm.timed(generate)}, rounds)
    means = {name: float(np.mean(of)) for name, of in lengths.items()}
    error = sum(np.var(of) / len(of) for of in lengths.values()) ** 0.5
    assert abs(means["ours"] - means["generate"]) < 4 * error, (means, error)
    return {"sides": found, "mean_lengths": means}


def best_of(size: str, rounds: int) -> Result:
    """Rewards of 16 responses to each of 4 prompts, against one padded call of all 64."""
    import lm_problems as lm
    import torch

    from irlbook import training
    from irlbook.posttraining.reward_model import RewardScorer

    model = lm.reward_model(size, 1024).eval()
    groups = lm.examples(1, 16, 1024)[:4]
    scorer = RewardScorer(model, "last")
    rows = [(p, y) for p, answers in groups for y in answers]
    width = max(len(p) + len(y) for p, y in rows)
    ids = torch.tensor([[*p, *y] + [lm.PAD] * (width - len(p) - len(y)) for p, y in rows])
    mask = (torch.arange(width) < torch.tensor([[len(p) + len(y)] for p, y in rows])).long()

    def ours() -> torch.Tensor:
        return training.score(scorer, groups, 16, pad_id=lm.PAD).flatten()

    @torch.no_grad()
    def padded() -> torch.Tensor:
        return model(input_ids=ids, attention_mask=mask).logits[:, 0]

    differ = float((ours() - padded()).abs().max())
    assert differ <= AGREE
    sides = {"ours": lm.timed(ours), "padded call": lm.timed(padded)}
    return {"sides": lm.compare(sides, rounds), "rewards_differ_by": differ}


def exactness(rounds: int) -> Result:
    """The fast path against padded rows, in float64 throughout."""
    import lm_problems as lm
    import torch

    from irlbook.lm.logprobs import padded_token_logps, token_logps
    from irlbook.lm.trees import collate

    model = lm.language_model("xs", 1024).double().eval()
    for module in list(model.modules()):  # transformers' own norms compute in float32
        for name, norm in module.named_children():
            if type(norm).__name__ == "LlamaRMSNorm":
                exact = torch.nn.RMSNorm(norm.weight.shape, norm.variance_epsilon).double()
                setattr(module, name, exact)
    for parameter in model.parameters():  # far from uniform, or anything would agree
        parameter.data.mul_(6.0 if parameter.ndim == 2 else 1.0)
    worst = 0.0
    for responses in (1, 2, 16):
        groups = lm.examples(1, responses, 1024)[: 32 // responses]
        with torch.no_grad():
            fast = token_logps(model, collate(groups))
            padded = padded_token_logps(model, groups, lm.PAD)
        assert fast.std() > 1
        worst = max(worst, float((fast - padded).abs().max()))
    assert worst <= 1e-10
    return {"log_probabilities_differ_by": worst}


# Memory and import, each in a process of its own --------------------------------------------------


def memory_of(side: str, size: str, vocabulary: int) -> Result:
    """Peak above import of a few DPO steps of one side, in bytes."""
    import datasets  # noqa: F401
    import lm_problems as lm
    import torch
    import trl  # noqa: F401

    from irlbook.lm.logprobs import ResponseScorer
    from irlbook.posttraining import dpo

    torch.ones(8, 8).mm(torch.ones(8, 8))  # libraries that load at the first use
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of the import
    before = common.peak_memory()
    if size not in lm.SIZES:
        lm.take_real_size()
    model = lm.language_model(size, vocabulary)
    groups = lm.examples(lm.STEPS, 2, model.config.vocab_size)
    if side == "ours":
        lm.ours(ResponseScorer(model), groups, dpo.objective(), [])()
    else:
        lm.theirs("dpo", model, groups, [], precompute_ref_log_probs=side == "once",
                  ref_model=None if side == "once" else copy.deepcopy(model))()  # fmt: skip
    return {"bytes": common.peak_memory() - before}


def memory(size: str, vocabulary: int, sides: Sequence[str] = ("once", "live")) -> Result:
    """Peak memory of DPO above import, ours as a share of TRL's."""
    peaks = {
        side: [common.in_subprocess(__file__, "--child", "memory", side, size, vocabulary)["bytes"]
               for _ in range(2)]
        for side in ("ours", *sides)
    }  # fmt: skip
    least = {side: min(values) for side, values in peaks.items()}
    shares = {side: least["ours"] / least[side] for side in sides}
    return {"bytes": peaks, "share": shares}


def import_of(side: str) -> Result:
    """Seconds and bytes of importing what training needs."""
    before = common.peak_memory()
    began, cpu = time.perf_counter(), time.process_time()
    if side == "TRL":
        from trl import DPOTrainer, RewardTrainer, SFTTrainer  # noqa: F401
    else:
        import accelerate  # noqa: F401

        from irlbook.lm import sampling  # noqa: F401
        from irlbook.posttraining import dpo, pipeline, reward_model, sft  # noqa: F401
    if side != "ours":  # TRL has loaded most of it
        from transformers import LlamaForCausalLM  # noqa: F401
    taken = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    return {**taken, "bytes": common.peak_memory() - before}


def imports(rounds: int) -> Result:
    """Importing the language half, without and with a model class, and TRL's three trainers."""
    import numpy as np

    found: dict[str, list[Result]] = {"ours": [], "ours with a model": [], "TRL": []}
    for k in range(rounds + 1):
        for side, values in found.items():
            value = common.in_subprocess(__file__, "--child", "import", side)
            if k:  # the first fills the file cache
                values.append(value)
    columns = {
        side: {key: np.array([value[key] for value in values]) for key in values[0]}
        for side, values in found.items()
    }
    sides = {}
    for side, keys in columns.items():
        sides[side] = {key: common.spread(of) for key, of in keys.items()}
        if side != "TRL":
            for name, key in (("ratio", "wall"), ("cpu_ratio", "cpu"), ("bytes_ratio", "bytes")):
                sides[side][name] = common.spread(columns["TRL"][key] / keys[key])
    return {"sides": sides, "megabytes": {s: v["bytes"]["median"] / 1e6 for s, v in sides.items()}}


# The items ----------------------------------------------------------------------------------------

ITEMS: dict[str, Callable[[int], Result]] = {
    "exactness": exactness,
    "dpo_xs": lambda rounds: dpo_step("xs", 1024, rounds),
    "dpo_s": lambda rounds: dpo_step("s", 4096, rounds),
    "dpo_32k": lambda rounds: dpo_step("xs", 32768, rounds),
    "dpo_epoch": dpo_epoch,
    "reward": lambda rounds: reward_step(1, rounds),
    "reward_grouped": lambda rounds: reward_step(4, rounds),
    "sft_1k": lambda rounds: sft_step(1024, rounds),
    "sft_32k": lambda rounds: sft_step(32768, rounds),
    "rollouts_xs": lambda rounds: rollouts("xs", 1024, rounds),
    "rollouts_s": lambda rounds: rollouts("s", 4096, rounds),
    "best_of_16_xs": lambda rounds: best_of("xs", rounds),
    "best_of_16_s": lambda rounds: best_of("s", rounds),
    "memory": lambda rounds: memory("s", 4096),
    "memory_32k": lambda rounds: memory("xs", 32768),
    "import": imports,
}

REAL_ITEMS: dict[str, Callable[[str, int], Result]] = {
    "dpo": lambda folder, rounds: dpo_step(folder, None, rounds, live=False),
    "reward": lambda folder, rounds: reward_step(1, rounds, folder),
    "rollouts": chat_rollouts,
    "memory": lambda folder, rounds: memory(folder, 0, ("once",)),
}


def report(name: str, found: Result) -> None:
    """Print one item."""
    rows = []
    for side, values in found.get("sides", {}).items():
        ratio = values.get("ratio"), values.get("cpu_ratio")
        clocks = [common.show_seconds(values[clock]["median"]) for clock in ("wall", "cpu")]
        rows.append([side, *clocks, *(common.show_ratio(r) if r else "" for r in ratio)])
    print(f"{name}:", {k: v for k, v in found.items() if k != "sides"})
    if rows:
        common.table(["side", "wall", "CPU", "ratio (quartiles)", "of CPU time"], rows)


def options_of(about: str, items: Collection[str], real: Collection[str]) -> argparse.Namespace:
    """The command's arguments: items of either list, a folder, rounds; what a child does."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("items", nargs="*", help=f"of {', '.join(items)}")
    parser.add_argument("--model", help=f"a saved model's folder; items: {', '.join(real)}")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    known = real if options.model else items
    if unknown := set(options.items) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    options.items = options.items or list(known)
    options.rounds = options.rounds or (3 if options.model else 5)
    return options


def run_all(
    options: argparse.Namespace,
    items: Mapping[str, Callable[[int], Result]],
    real: Mapping[str, Callable[[str, int], Result]],
) -> None:
    """Run, print and keep what was asked for, a file for each item."""
    if common.peer("trl", "TRL") is None:
        sys.exit(1)
    size = ""
    if options.model:
        import lm_problems as lm

        lm.take_real_size()
        size = "_" + lm.short_name(lm.language_model(options.model))
    for name in options.items:
        if options.model:
            found = real[name](options.model, options.rounds)
        else:
            found = items[name](options.rounds)
        report(name + size, found)
        common.save(f"lm_{name}{size}", {"rounds": options.rounds, **found})


def main() -> None:
    options = options_of(__doc__.splitlines()[0], ITEMS, REAL_ITEMS)
    if options.child:
        what, *more = options.child
        found = import_of(*more) if what == "import" else memory_of(*more[:2], int(more[2]))
        print(json.dumps(found))
        return
    run_all(options, ITEMS, REAL_ITEMS)


if __name__ == "__main__":
    main()
