"""A step of GRPO, and of RLOO with its KL penalty, against TRL's: rollouts, scoring and update.

    python benchmarks/bench_online.py [item ...] [--rounds 5]
    python benchmarks/bench_online.py --model FOLDER [item ...] [--rounds 3]

Items: those of ITEMS, or of REAL_ITEMS for the model of a folder; all of them when none is named.
Each writes its own result file. Both sides run in turns in one process, float32, one thread, on the
same weights, prompts, reward function and number of responses. Before any timing, our loop takes
its first steps on the responses that TRL drew: rewards, losses and gradients must agree, or the
script fails. Ratios are theirs over ours: above 1 the book is faster, or smaller. CPU time is the
steadier of the two clocks where other work runs on the machine.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common  # first: it sets one thread before torch is loaded

AGREE = 1e-5
STEPS = 4  # of a timed run; the first is left out
PROMPTS, SAMPLES = 16, 4  # prompts a step, responses to each
LIMIT, LENGTH = 96, 24  # tokens of a response: at most, and on average
RATE = 1e-6  # TRL's default for GRPO; it hardly moves the policy, so lengths stay alike
SIDES = ("ours", "TRL", "TRL, 4 micro-batches")
REAL = {"steps": 2, "limit": 48}  # with a folder's model, and 8 prompts a step
Result = dict[str, Any]
Samples = dict[tuple[int, ...], list[list[int]]]  # prompt: its responses


@dataclass
class Seen:
    """What a run met: each step's reward, loss and gradient, and TRL's responses."""

    rewards: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    gradients: list[Any] = field(default_factory=list)
    samples: list[Samples] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)  # of a response, a mean for each step


def percent_odd(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
    """The reward: how many words of w3 w5 ... in a hundred. Both sides call it with texts.

    Hundreds, because TRL divides by std + 1e-4 and the book by the std.
    """
    words = [text.split() for text in completions]
    return [100 * sum(int(word[1:]) % 2 for word in of) / max(1, len(of)) for of in words]


def start(size: str, vocabulary: int | None = None) -> tuple[Any, list[list[int]]]:
    """(policy, prompts). An untrained policy's tokens are nearly uniform; every 24th is a stop
    token, so lengths are geometric. TRL loads the reference from the folder named in the policy.
    """
    import lm_problems as lm

    model = lm.language_model(size, vocabulary)
    words = model.config.vocab_size
    model.generation_config.eos_token_id = list(range(0, words, LENGTH))
    if size in lm.SIZES:
        folder = tempfile.mkdtemp()
        model.save_pretrained(folder)
        model.config._name_or_path = folder
    return model, [prompt for prompt, _ in lm.examples(1, 1, words)][:PROMPTS]


def ours(
    method: str,
    beta: float,
    model: Any,
    prompts: list[list[int]],
    seen: Seen,
    *,
    rate: float = RATE,
    steps: int = STEPS,
    limit: int = LIMIT,
    sampler: Any = None,
    **more: Any,
) -> Callable[[], Any]:
    """A run of `irlbook.posttraining.online.train_online`, with a clock at the end of each step.

    `more` goes to its `StepConfig`.
    """
    import lm_problems as lm
    import numpy as np

    from irlbook.posttraining.online import OnlineConfig, train_online
    from irlbook.training.config import StepConfig

    training = StepConfig(
        learning_rate=rate, warmup=0.0, final_learning_rate=1.0, weight_decay=0.0,
        evaluate_every=1, progress=False, **more,
    )  # fmt: skip
    config = OnlineConfig(
        method=method, iterations=steps, prompts=len(prompts), samples=SAMPLES, beta=beta,
        max_new_tokens=limit, training=training,
    )  # fmt: skip
    tokenizer = lm.word_tokenizer(model.config.vocab_size)
    texts = [lm.text_of(prompt).strip() for prompt in prompts]
    seeds = iter(range(10**6))

    def clock(policy: Any) -> dict[str, float]:
        return dict(zip(("wall", "cpu"), lm.now(), strict=True))

    def run() -> Any:
        found = train_online(
            model, tokenizer, texts, percent_odd, config, seed=next(seeds), sampler=sampler,
            evaluate=clock,
        )  # fmt: skip
        assert found.stopped is None, found.stopped
        seen.rewards += found.column("reward").tolist()
        seen.losses += found.column("loss").tolist()
        seen.lengths += found.column("length").tolist()
        return tuple(np.diff(found.column(name)) for name in ("wall", "cpu"))

    return run


def theirs(
    method: str,
    beta: float,
    model: Any,
    prompts: list[list[int]],
    seen: Seen,
    *,
    rate: float = RATE,
    steps: int = STEPS,
    limit: int = LIMIT,
    parts: int = 1,
    **more: Any,
) -> Callable[[], Any]:
    """A run of TRL's trainer, on a copy of the model; a step in so many micro-batches.

    `more` goes to its configuration.
    """
    import copy

    import datasets
    import lm_problems as lm
    import numpy as np
    import transformers
    import trl

    lm.quiet(datasets, transformers)
    transformers.logging.disable_progress_bar()
    grpo = method == "grpo"
    base, config_class = (
        (trl.GRPOTrainer, trl.GRPOConfig) if grpo else (trl.RLOOTrainer, trl.RLOOConfig)
    )
    stamps: list[tuple[float, float]] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(lm.now())

    class Trainer(base):
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            found = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            drawn: Samples = {}
            for prompt, answer in zip(prompt_ids, found[0] if grpo else found, strict=True):
                drawn.setdefault(tuple(prompt), []).append(answer)
            seen.samples.append(drawn)
            lengths = [len(answer) for answers in drawn.values() for answer in answers]
            seen.lengths.append(float(np.mean(lengths)))
            return found

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            seen.losses.append(float(loss.detach()))
            return loss

    def reward(**texts: Any) -> list[float]:
        found = percent_odd(**texts)
        seen.rewards.append(float(np.mean(found)))
        return found

    options = {"bf16": False, "use_cpu": True} | more
    if grpo:
        options |= {"loss_type": "grpo", "use_bias_correction_kl": False}
    config = config_class(
        output_dir=tempfile.mkdtemp(), gradient_accumulation_steps=parts,
        per_device_train_batch_size=len(prompts) * SAMPLES // parts, num_generations=SAMPLES,
        max_completion_length=limit, max_steps=steps, beta=beta,
        shuffle_dataset=False, learning_rate=rate, lr_scheduler_type="constant", weight_decay=0.0,
        max_grad_norm=1.0, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
        logging_strategy="no", save_strategy="no", **options,
    )  # fmt: skip
    trainer = Trainer(
        model=copy.deepcopy(model),
        args=config,
        train_dataset=datasets.Dataset.from_list(
            [{"prompt": lm.text_of(prompt).strip()} for prompt in prompts]
        ),
        reward_funcs=reward,
        processing_class=lm.word_tokenizer(model.config.vocab_size),
        callbacks=[Clock()],
    )
    trainer.remove_callback(transformers.PrinterCallback)

    def run() -> Any:
        stamps.clear()
        trainer.train()
        wall, cpu = np.diff(np.array(stamps), axis=0).T
        return wall, cpu

    return run


# Both sides compute the same ----------------------------------------------------------------------


def replay(steps: list[Samples]) -> Callable[..., Any]:
    """A sampler that says again what TRL drew, a step at a time."""
    import torch

    from irlbook.lm.logprobs import token_logps
    from irlbook.lm.sampling import Samples as Drawn
    from irlbook.lm.trees import collate

    waiting = iter([*steps, steps[-1]])  # the loop looks at its last policy once more

    def sampler(model: Any, prompts: Any, n: int, *, temperature: float, **_: Any) -> Drawn:
        drawn = next(waiting)
        groups = [(list(prompt), drawn[tuple(prompt)]) for prompt in prompts]
        tree = collate(groups)
        with torch.no_grad():
            logps = token_logps(model, tree, temperature)
        stops = set(model.generation_config.eos_token_id)
        ended = [answer[-1] in stops for _, answers in groups for answer in answers]
        return Drawn(groups, list(logps.split(tree.lengths.tolist())), ended, temperature)

    return sampler


def gradients_of(run: Callable[[], Any]) -> list[Any]:
    """The clipped gradient that each optimiser step of a run saw, matrices first."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    found = []

    def keep(optimizer: Any, *_: Any) -> None:
        parts = [p.grad for group in optimizer.param_groups for p in group["params"]]
        found.append(torch.cat([part.flatten() for part in parts]))

    handle = register_optimizer_step_pre_hook(keep)
    try:
        run()
    finally:
        handle.remove()
    return found


def agreement(
    method: str, kl: bool, model: Any, prompts: list[list[int]], **options: Any
) -> Result:
    """Some steps at a rate that moves the policy, on TRL's responses; the largest differences.

    A nat of KL costs 1, so that it matters after few steps. The loss of RLOO is left out: TRL's has
    a ratio of 1 in place of the log-probability, which has the same gradient.
    """
    beta, mine, trl = float(kl), Seen(), Seen()
    options = {"rate": 1e-4, "steps": 3} | options
    theirs_ = gradients_of(theirs(method, beta, model, prompts, trl, **options))
    sampler = replay(trl.samples)
    ours_ = gradients_of(ours(method, beta, model, prompts, mine, sampler=sampler, **options))
    pairs = list(zip(ours_, theirs_, strict=True))
    found = {
        "rewards": max(abs(a - b) for a, b in zip(mine.rewards, trl.rewards, strict=True)),
        "gradients": max(float((a - b).abs().max()) for a, b in pairs),
    }
    if method == "grpo":
        found["losses"] = max(abs(a - b) for a, b in zip(mine.losses, trl.losses, strict=True))
    size = min(float(b.abs().max()) for _, b in pairs)
    assert max(found.values()) <= AGREE < size / 100, (found, size)
    return found


def step(method: str, beta: float, size: str, vocabulary: int, rounds: int) -> Result:
    """A whole step: 64 responses drawn, scored by the reward and the reference, one update."""
    import lm_problems as lm

    model, prompts = start(size, vocabulary)
    agree = agreement(method, beta > 0, model, prompts)
    mine, trl = Seen(), Seen()
    runs = (
        ours(method, beta, model, prompts, mine),
        theirs(method, beta, model, prompts, trl),
        theirs(method, beta, model, prompts, trl, parts=4),
    )
    found = lm.compare(dict(zip(SIDES, runs, strict=True)), rounds)
    return {"sides": found, "differ_by": agree, "mean_lengths": alike(mine, trl, 3)}


def real_step(folder: str, rounds: int) -> Result:
    """A whole GRPO step of a folder's model: 32 responses to 8 prompts, 48 tokens at most."""
    import lm_problems as lm

    model, prompts = start(folder)
    agree = agreement("grpo", False, model, prompts, rate=1e-6, **REAL)
    mine, trl = Seen(), Seen()
    runs = {
        "ours": ours("grpo", 0.0, model, prompts, mine, **REAL),
        "TRL": theirs("grpo", 0.0, model, prompts, trl, **REAL),
    }
    found = lm.compare(runs, rounds)
    lengths = alike(mine, trl, 6)  # of few responses
    more = {"mean_lengths": lengths, "model": lm.about(model)}
    return {"sides": found, "differ_by": agree, **more}


def alike(mine: Seen, trl: Seen, most: float) -> dict[str, float]:
    """Mean lengths of both sides' responses, which must not differ by more."""
    import numpy as np

    lengths = {"ours": float(np.mean(mine.lengths)), "TRL": float(np.mean(trl.lengths))}
    assert abs(lengths["ours"] - lengths["TRL"]) < most, lengths
    return lengths


# Memory, each side in a process of its own --------------------------------------------------------


def memory_of(side: str, size: str) -> Result:
    """Peak above import of a few GRPO steps of one side, in bytes."""
    import datasets  # noqa: F401
    import lm_problems as lm
    import torch
    from trl import GRPOTrainer  # noqa: F401

    from irlbook.posttraining import online  # noqa: F401

    torch.ones(8, 8).mm(torch.ones(8, 8))  # libraries that load at the first use
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of the import
    before = common.peak_memory()
    options: dict[str, Any] = {}
    if size not in lm.SIZES:
        lm.take_real_size()
        options |= REAL
    model, prompts = start(size, 4096)
    if "micro-batches" in side:  # a quarter of a step holds some 800 padded tokens in our rows
        options |= {"max_tokens": 800} if side.startswith("ours") else {"parts": 4}
    make = ours if side.startswith("ours") else theirs
    make("grpo", 0.0, model, prompts, Seen(), **options)()
    return {"bytes": common.peak_memory() - before}


def memory(size: str, *ways: str) -> Result:
    """Peak memory of GRPO steps above import, ours as a share of TRL's, which has no reference.

    Args:
        ways: "whole", a step in one piece on both sides; "micro-batches", cut on both sides.
    """
    pairs = {"whole": ("ours", SIDES[1]), "micro-batches": ("ours, micro-batches", SIDES[2])}
    peaks = {
        side: [common.in_subprocess(__file__, "--child", side, size)["bytes"] for _ in range(2)]
        for way in ways
        for side in pairs[way]
    }
    least = {side: min(values) for side, values in peaks.items()}
    share = {way: least[pairs[way][0]] / least[pairs[way][1]] for way in ways}
    return {"bytes": peaks, "share": share}


# The items ----------------------------------------------------------------------------------------

ITEMS: dict[str, Callable[[int], Result]] = {
    "grpo_xs": lambda rounds: step("grpo", 0.0, "xs", 1024, rounds),
    "grpo_s": lambda rounds: step("grpo", 0.0, "s", 4096, rounds),
    "grpo_kl_xs": lambda rounds: step("grpo", 0.04, "xs", 1024, rounds),
    "rloo_xs": lambda rounds: step("rloo", 0.05, "xs", 1024, rounds),
    "rloo_s": lambda rounds: step("rloo", 0.05, "s", 4096, rounds),
    "grpo_memory": lambda rounds: memory("s", "whole", "micro-batches"),
}

REAL_ITEMS: dict[str, Callable[[str, int], Result]] = {
    "grpo": real_step,
    "grpo_memory": lambda folder, rounds: memory(folder, "whole"),
}


def main() -> None:
    from bench_posttraining import options_of, run_all

    options = options_of(__doc__.splitlines()[0], ITEMS, REAL_ITEMS)
    if options.child:
        print(json.dumps(memory_of(*options.child)))
        return
    run_all(options, ITEMS, REAL_ITEMS)


if __name__ == "__main__":
    main()
