"""What the language-model benchmarks share: models, data, and both sides of a training step.

Both sides get the same weights, the same examples in the same order, float32, one thread, AdamW at
a constant rate, and gradients clipped at 1. TRL's defaults of bfloat16 and gradient checkpointing
are switched off. Neither side writes to disk. Each step is timed from the end of the one before, so
that collating a batch counts, and starting a run does not.
"""

from __future__ import annotations

import copy
import gc
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import common  # first: it sets one thread before torch is loaded
import numpy as np
import torch

from irlbook import training
from irlbook.lm.models import tiny_lm
from irlbook.lm.trees import Group
from irlbook.training.config import TrainingConfig

torch.set_num_threads(1)

BATCH = 16  # examples a step
STEPS = 6  # of a timed run; the first is left out
RATE = 3e-4
EOS, PAD, UNKNOWN, FIRST = 0, 1, 2, 3  # ids; words start at FIRST
SIZES = {
    "xs": {"hidden": 128, "layers": 3, "heads": 4, "tied": False},  # 0.86 M with 1,024 words
    "s": {"hidden": 256, "layers": 3, "heads": 4, "tied": False},  # 4.5 M with 4,096 words
}


def language_model(size: str, vocabulary: int | None = None, seed: int = 0) -> Any:
    """An untrained Llama, where `size` names a row of SIZES; else the model of that folder.

    A folder's weights are computed with in float32 whatever they are kept in. Its vocabulary is its
    own; words and special tokens are those of `word_tokenizer` all the same.
    """
    if size in SIZES:
        assert vocabulary is not None
        model: Any = tiny_lm(vocabulary, "llama", context=1024, seed=seed, **SIZES[size])
    else:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(size, dtype=torch.float32)
    model.config.pad_token_id, model.config.eos_token_id = PAD, EOS
    return model


def reward_model(size: str, vocabulary: int | None = None, seed: int = 0) -> Any:
    """The same with one untrained output in place of the language-model head."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = size not in SIZES
    config = AutoConfig.from_pretrained(size) if folder else language_model(size, vocabulary).config
    config.pad_token_id, config.eos_token_id, config.num_labels = PAD, EOS, 1
    loader: Any = AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if folder:
            return loader.from_pretrained(size, config=config, dtype=torch.float32)
        return loader.from_config(copy.deepcopy(config))


def take_real_size() -> None:
    """Fewer and smaller steps, at a rate that trained weights bear: one takes many seconds."""
    global BATCH, STEPS, RATE
    BATCH, STEPS, RATE = 8, 3, 1e-5


def about(model: Any) -> dict[str, Any]:
    """What a result file says of a model from a folder."""
    c = model.config
    return {
        "type": c.model_type,
        "parameters": sum(p.numel() for p in model.parameters()),
        "layers": c.num_hidden_layers,
        "vocabulary": c.vocab_size,
    }


def short_name(model: Any) -> str:
    """Its size, as it stands in the name of a result file: 135m."""
    return f"{about(model)['parameters'] / 1e6:.0f}m"


def word_tokenizer(vocabulary: int) -> Any:
    """A tokenizer of whole words w3 w4 ..., so that text and ids say the same."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": EOS, "<pad>": PAD, "<unk>": UNKNOWN}
    words |= {f"w{i}": i for i in range(FIRST, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def text_of(ids: Sequence[int]) -> str:
    """The words of some ids, each with a space before it; the end token is left to TRL."""
    return "".join(f" w{i}" for i in ids if i != EOS)


def examples(
    steps: int,
    responses: int,
    vocabulary: int,
    *,
    prompt: tuple[int, int] = (16, 64),
    response: tuple[int, int] = (8, 64),
    per_prompt: int = 1,
    seed: int = 0,
) -> list[Group]:
    """Ragged groups of random words, in the order in which they are trained on.

    Lengths are spread evenly over their range and dealt out anew in every batch, so that lengths
    differ within a batch and all batches have as many tokens.

    Args:
        prompt, response: shortest and longest; the end token of a response counts.
        per_prompt: so many examples in a row have one prompt.
    """
    draw = np.random.default_rng(seed)

    def words(length: float) -> list[int]:
        return draw.integers(FIRST, vocabulary, round(length)).tolist()

    found: list[Group] = []
    for _ in range(steps):
        prompts = [words(n) for n in draw.permutation(np.linspace(*prompt, BATCH // per_prompt))]
        lengths = [draw.permutation(np.linspace(*response, BATCH)) - 1 for _ in range(responses)]
        for i in range(BATCH):
            answers = [[*words(of[i]), EOS] for of in lengths]
            found.append((prompts[i // per_prompt], answers))
    return found


Timed = tuple[np.ndarray, np.ndarray]
"""(steps - 1,) seconds of wall and of CPU time; the first step of a run is left out."""


def now() -> tuple[float, float]:
    """(wall, CPU) seconds, when a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def ours(
    scorer: Any,
    groups: Sequence[Group],
    objective: training.Objective,
    losses: list[float],
    **options: Any,
) -> Callable[[], Timed]:
    """A run of `irlbook.training.train` over the groups in the order given.

    `train` calls `evaluate` after every step; here that is a look at the clock.
    """
    defaults = {"bucket": 1, "batch_size": BATCH, "steps": len(groups) // BATCH}
    defaults |= {"learning_rate": RATE, "warmup": 0.0, "final_learning_rate": 1.0}
    defaults |= {"weight_decay": 0.0, "progress": False, "evaluate_every": 1}
    config = TrainingConfig(**defaults | options)
    # `train` shuffles: put the examples where its first pass finds them in the order given.
    order = np.concatenate(training.schedule([([0], [[0]])] * len(groups), config))
    placed: list[Group] = [groups[0]] * len(groups)
    for group, i in zip(groups, order, strict=False):
        placed[i] = group
    reference = None
    if objective.needs_reference:
        reference = training.score(scorer, placed, objective.responses, config, PAD)

    def clock() -> dict[str, float]:
        return dict(zip(("wall", "cpu"), now(), strict=True))

    def run() -> Timed:
        result = training.train(
            scorer, placed, objective, config, reference=reference, pad_id=PAD, evaluate=clock
        )
        losses.extend(row["loss"] for row in result.history if "loss" in row)
        return tuple(np.diff(result.column(name))[1:] for name in ("wall", "cpu"))

    return run


def theirs(
    kind: str,
    model: Any,
    groups: Sequence[Group],
    losses: list[torch.Tensor],
    ref_model: Any = None,
    **options: Any,
) -> Callable[[], Timed]:
    """A run of TRL's trainer over the groups in the order given.

    Args:
        kind: "dpo", "reward" or "sft".
        ref_model: dpo: a live reference.
    """
    import datasets
    import transformers
    import trl

    quiet(datasets, transformers)
    trainer_class, config_class = {
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
        "reward": (trl.RewardTrainer, trl.RewardConfig),
        "sft": (trl.SFTTrainer, trl.SFTConfig),
    }[kind]
    names = ("completion",) if kind == "sft" else ("chosen", "rejected")
    rows = [
        {"prompt": text_of(prompt).strip()} | dict(zip(names, map(text_of, answers), strict=True))
        for prompt, answers in groups
    ]
    stamps: list[tuple[float, float]] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(now())

    class Trainer(trainer_class):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.detach())
            return loss

    defaults = {"per_device_train_batch_size": BATCH, "max_steps": len(groups) // BATCH}
    defaults |= {"learning_rate": RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0}
    defaults |= {"max_grad_norm": 1.0, "bf16": False, "gradient_checkpointing": False}
    defaults |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
    defaults |= {"logging_strategy": "no", "save_strategy": "no"}
    config = config_class(output_dir=tempfile.mkdtemp(), **defaults | options)
    trainer = Trainer(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=word_tokenizer(model.config.vocab_size),
        callbacks=[Clock()],
        **({} if ref_model is None else {"ref_model": ref_model}),
    )
    trainer.remove_callback(transformers.PrinterCallback)

    def run() -> Timed:
        stamps.clear()
        trainer.train()
        wall, cpu = np.diff(np.array(stamps), axis=0).T
        return wall, cpu

    return run


def timed(run: Callable[[], object]) -> Callable[[], Timed]:
    """A side of one step."""

    def once() -> Timed:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        return np.array([time.perf_counter() - wall]), np.array([time.process_time() - cpu])

    return once


def quiet(datasets: Any, transformers: Any) -> None:
    """No bars and no advice in the output."""
    os.environ["TQDM_DISABLE"] = "1"
    warnings.simplefilter("ignore", FutureWarning)
    datasets.disable_progress_bars()
    datasets.disable_caching()
    transformers.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)


def compare(
    sides: dict[str, Callable[[], Timed]], rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Run the sides in turns after a warm-up round each; "ours" is one of them.

    Returns:
        for each side: seconds a step, and for each other side ratios to ours, wall and CPU. The
        ratio of a round is that of the median steps.
    """
    for run in sides.values():
        run()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    names = list(sides)
    for i in range(rounds):
        for name in names if i % 2 else reversed(names):
            gc.collect()
            wall, cpu = sides[name]()
            seconds[name].append((float(np.median(wall)), float(np.median(cpu))))
    of = {name: np.array(values) for name, values in seconds.items()}
    found = {}
    for name, values in of.items():
        found[name] = {"wall": common.spread(values[:, 0]), "cpu": common.spread(values[:, 1])}
        if name != "ours":
            ratio = values / of["ours"]
            found[name]["ratio"] = common.spread(ratio[:, 0])
            found[name]["cpu_ratio"] = common.spread(ratio[:, 1])
    return found
