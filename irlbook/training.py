"""The one training loop: SFT, reward models and the DPO family all run through `train`.

An *example* is a group: a prompt with its responses, one for a demonstration, two for a preference.
A step takes `batch_size` examples, cuts them into micro-batches that fit into memory, sums the
losses' gradients, divides once by the number of examples, and moves the weights. How the step is
cut, and over how many processes, changes nothing but rounding.

Everything that is random follows from (seed, step). So a run that was killed goes on from its last
checkpoint to the same numbers, and a checkpoint needs to hold no more than weights, the optimiser's
moments and a step number: no pickle.

    out/metrics.csv              a row a step
    out/reference.safetensors    log-probabilities of the reference, computed once
    out/checkpoints/step-000200  weights, moments, state.json; written aside, then renamed
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from irlbook.errors import (
    CheckpointError,
    DeviceUnavailableError,
    DivergedTrainingError,
    FlatLossWarning,
    InvalidHyperparameterError,
    ResponseError,
    ResumeMismatchError,
    ShapeError,
)
from irlbook.lm.logprobs import Group, Tree, collate, sequence_logps


@dataclass(frozen=True)
class TrainingConfig:
    """Hyper-parameters of the loop. Those of a loss live with the loss."""

    epochs: float = 1.0  # passes over the examples; a pass is a whole number of steps
    steps: int | None = None  # optimiser steps; given, it replaces epochs
    batch_size: int = 32  # examples a step, over all micro-batches and processes
    max_tokens: int = 8192  # padded tokens of a micro-batch on one device: memory, not results
    bucket: int = 16  # batches sorted by length together, then shuffled; 1 does not sort
    share_prompts: int = 1  # so many examples of one prompt share a row, which computes it once
    learning_rate: float = 1e-3  # AdamW's, at its peak
    final_learning_rate: float = 0.0  # where the cosine ends, as a share of the peak
    warmup: float = 0.05  # share of the steps in which the rate climbs from 0
    weight_decay: float = 0.01  # AdamW's, on matrices only
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW's memory of gradients and their squares
    max_grad_norm: float = 1.0  # a longer gradient is scaled down to this; inf never
    dropout: bool = False  # keep the model's dropout; refused beside a reference
    seed: int = 0  # order of the examples, dropout
    device: Literal["cpu", "cuda"] = "cpu"  # never chosen silently
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # bfloat16 is autocast; weights keep theirs
    )
    shard: bool = False  # split weights and moments over the processes (FSDP2) instead of copying
    checkpoint_every: int = 200  # steps; the end of a run is always kept
    keep: int = 2  # checkpoints on disk
    evaluate_every: int = 50  # steps between calls of `evaluate`
    patience: int = 25  # steps after warm-up without movement before a FlatLossWarning
    progress: bool = True  # a bar on stderr, if that is a terminal
    tensorboard: bool = True  # write its events too, if the package is installed

    def __post_init__(self) -> None:
        whole = ("batch_size", "max_tokens", "bucket", "share_prompts")
        whole += ("checkpoint_every", "keep", "evaluate_every")
        for name in whole:
            if getattr(self, name) < 1:
                raise InvalidHyperparameterError(f"{name} is {getattr(self, name)}; at least 1.")
        for name in ("epochs", "learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise InvalidHyperparameterError(f"{name} is {getattr(self, name)}; above 0.")
        if self.steps is not None and self.steps < 1:
            raise InvalidHyperparameterError(f"steps is {self.steps}; at least 1, or None.")
        if not (0 <= self.warmup < 1 and 0 <= self.final_learning_rate <= 1):
            raise InvalidHyperparameterError(
                "warmup must lie in [0, 1) and final_learning_rate in [0, 1]: both are shares."
            )
        if self.precision not in ("float32", "bfloat16"):
            raise InvalidHyperparameterError(
                f"precision is {self.precision!r}; use float32 or bfloat16."
            )


# Settings that change memory, speed or reports, not the numbers: a run may be resumed with others.
FREE = {"max_tokens", "device", "checkpoint_every", "keep", "evaluate_every", "patience"}
FREE |= {"progress", "tensorboard", "shard"}


@dataclass(frozen=True)
class Batch:
    """E examples with K responses each.

    Attributes:
        tree: the collated groups; their E * K responses in order.
        examples: (E,) which they are.
        reference: (E, K) log pi_ref(y|x), or None.
        extra: (E, ...) each: margins, labels.
        shared: the step's mean of `Objective.prepare`; a scalar, without gradient.
    """

    tree: Tree
    examples: Tensor
    reference: Tensor | None
    extra: dict[str, Tensor]
    shared: Tensor | None = None

    def per_response(self, scores: Tensor) -> Tensor:
        """(E, K), a number a response: those a token are summed over each response."""
        return per_response(scores, self.tree).view(len(self.examples), -1)


@dataclass(frozen=True)
class Objective:
    """What a run minimises: the mean over examples of `values(...)["loss"]`.

    Attributes:
        name: with all its hyper-parameters; two runs with different names do not mix.
        values: (what the scorer gave, batch) to {"loss": (E,), any metric: (E,)}.
        responses: K, how many responses an example has.
        needs_reference: whether `Batch.reference` is filled.
        start: the loss of a model that has learnt nothing, if that is known.
        prepare: (scores, batch) to (E,), averaged over the whole step before any gradient.
    """

    name: str
    values: Callable[[Tensor, Batch], dict[str, Tensor]]
    responses: int
    needs_reference: bool = False
    start: float | None = None
    prepare: Callable[[Tensor, Batch], Tensor] | None = None


@dataclass
class TrainingResult:
    """What a run leaves.

    Attributes:
        history: a row a step: step, loss and metrics, grad_norm, learning_rate, tokens_per_second.
        steps: all steps of the run, those before a resume too.
        reference: (E, K) log-probabilities of the reference, if the objective has one.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    reference: Tensor | None = None

    def column(self, name: str) -> np.ndarray:
        """(steps,) one metric over the run; NaN where a row does not have it."""
        return np.array([row.get(name, math.nan) for row in self.history])


def train(
    scorer: nn.Module,
    groups: Sequence[Group],
    objective: Objective,
    config: TrainingConfig | None = None,
    *,
    extra: Mapping[str, Tensor] | None = None,
    reference: Tensor | None = None,
    pad_id: int = 0,
    out: Path | str | None = None,
    resume: bool = True,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
) -> TrainingResult:
    """Train `scorer` in place.

    Args:
        scorer: its forward takes a Tree and returns what `objective.values` expects. The *whole*
            computation must sit in this one forward, or several processes drift apart silently.
        groups: the examples.
        extra: {name: (examples, ...)} numbers that go with the examples, such as margins.
        reference: (examples, K) log pi_ref(y|x). Not given, it is the scorer as it now is.
        out: the run's folder. None keeps nothing on disk.
        resume: go on where the run in `out` stopped; False starts over and replaces it.
        evaluate: called before the first step (row 0 of the history), every `evaluate_every` steps
            and at the end; what it returns joins the metrics. It must leave the weights alone.

    Raises:
        DivergedTrainingError: a loss or gradient is not finite; names step and examples.
        ResumeMismatchError: `out` holds a run with other data or settings.
        CheckpointError: the disk is full, or a checkpoint is unreadable.
        DeviceUnavailableError, InvalidHyperparameterError, ResponseError.
    """
    config = config or TrainingConfig()
    extra = dict(extra or {})
    _check(groups, objective, config, extra)
    steps = schedule(groups, config)
    fingerprint = _fingerprint(scorer, groups, objective, config, extra)

    accelerator = _accelerator(config)
    scorer.train()
    if not config.dropout:
        disable_dropout(scorer)
    if config.shard:
        shard(scorer.to(accelerator.device), config.precision)
    trained = [p for p in scorer.parameters() if p.requires_grad]
    if not trained:
        raise InvalidHyperparameterError("no parameter of the model requires a gradient.")
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim >= 2]},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=accelerator.device.type == "cuda",
    )
    original = scorer
    if not config.shard:
        scorer, optimizer = accelerator.prepare(scorer, optimizer)
    run = _Run(
        Path(out) if out is not None else None, fingerprint, accelerator, original, optimizer
    )
    bar = metrics = None
    try:
        first = run.open(resume)
        if objective.needs_reference:
            reference = run.reference(
                reference, lambda: score(scorer, groups, objective.responses, config, pad_id)
            )
            if reference.shape != (len(groups), objective.responses):
                raise ShapeError(
                    f"the reference has shape {tuple(reference.shape)}; expected one number a "
                    f"response, {(len(groups), objective.responses)}."
                )
        make_batch = _BatchMaker(groups, extra, reference, pad_id, accelerator.device)
        result = TrainingResult(steps=len(steps), reference=reference)
        metrics = _Metrics(run.folder, first, config, accelerator.is_main_process)
        result.history = metrics.kept
        if evaluate is not None and first == 0:
            result.history.append({"step": 0, **evaluate()})
            metrics.write(result.history[0])
        bar = _bar(len(steps), first, config, accelerator)
        flat = 0
        for step in range(first, len(steps)):
            began = time.perf_counter()
            examples = steps[step]
            rate = learning_rate(step, len(steps), config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            rows = same_prompt(groups, examples, config.share_prompts)
            parts = micro_batches(
                rows, _row_sizes(rows, groups), config.max_tokens, accelerator.process_index,
                accelerator.num_processes,
            )  # fmt: skip
            with torch.random.fork_rng(enabled=config.dropout):
                if config.dropout:
                    torch.manual_seed(_mix(config.seed, step, accelerator.process_index))
                shared = None
                if objective.prepare is not None:
                    total = torch.zeros((), dtype=torch.float64, device=accelerator.device)
                    for part, weight in parts:
                        batch = make_batch(part)
                        with torch.no_grad():
                            prepared = objective.prepare(scorer(batch.tree), batch)
                        total = total + weight * prepared.sum()
                    shared = accelerator.reduce(total, "sum") / len(examples)
                sums: dict[str, Tensor] = {}
                tokens, seen = 0, []
                for k, (part, weight) in enumerate(parts):
                    batch = make_batch(part, shared)
                    late = k + 1 == len(parts)  # gradients of all processes meet in the last one
                    if config.shard:
                        scorer.set_requires_gradient_sync(late)
                    with nullcontext() if late or config.shard else accelerator.no_sync(scorer):
                        values = objective.values(scorer(batch.tree), batch)
                        loss = weight * values["loss"].sum() / len(examples)
                        # Wrappers average over processes; the loss is a sum over them.
                        accelerator.backward(loss * accelerator.num_processes)
                    for name, value in values.items():
                        sums[name] = sums.get(name, 0) + weight * value.detach().sum()
                    tokens += weight * int(_row_sizes(part, groups).sum())
                    seen.append((batch.examples.tolist(), values["loss"].detach()))
            norm = _whole(nn.utils.clip_grad_norm_(trained, config.max_grad_norm))
            stacked = torch.stack([v.double() for v in sums.values()])
            means = (accelerator.reduce(stacked, "sum") / len(examples)).tolist()
            row = dict(zip(sums, means, strict=True)) | {"grad_norm": float(norm)}
            if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
                raise DivergedTrainingError(_diverged(step, row, seen, run.latest()))
            optimizer.step()
            optimizer.zero_grad()

            stuck = objective.start is not None and abs(row["loss"] - objective.start) < 1e-5
            flat = flat + 1 if stuck or row["grad_norm"] == 0 else 0
            if flat == max(1, config.patience) + math.ceil(config.warmup * len(steps)):
                warnings.warn(_flat(objective, row, flat), FlatLossWarning, stacklevel=2)
            done = step + 1 == len(steps)
            row = {"step": step + 1, **row, "learning_rate": rate}
            tokens *= accelerator.num_processes
            row["tokens_per_second"] = tokens / (time.perf_counter() - began)
            if evaluate is not None and (done or (step + 1) % config.evaluate_every == 0):
                row |= evaluate()
            metrics.write(row)
            result.history.append(row)
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
            if done or (step + 1) % config.checkpoint_every == 0:
                run.save(step + 1, config.keep)
        return result
    finally:
        for thing in (bar, metrics):
            if thing is not None:
                thing.close()
        optimizer.zero_grad()
        if not config.shard:
            accelerator.unwrap_model(scorer, keep_fp32_wrapper=False)
        original.eval()


@torch.no_grad()
def score(
    scorer: nn.Module,
    groups: Sequence[Group],
    responses: int,
    config: TrainingConfig | None = None,
    pad_id: int = 0,
) -> Tensor:
    """(groups, responses) log pi(y|x) or reward of every response, on the CPU, in order.

    Args:
        scorer: as in `train`; what it gives one a token is summed over each response.
        responses: K, the same for all groups. With several processes each does its share.
    """
    from accelerate import PartialState
    from accelerate.utils import reduce

    config = config or TrainingConfig()
    state = PartialState(cpu=config.device == "cpu")
    device = next(scorer.parameters()).device
    rows = [[i] for i in range(len(groups))]
    parts = micro_batches(
        rows,
        _row_sizes(rows, groups),
        config.max_tokens,
        state.process_index,
        state.num_processes,
    )
    found = None
    for alone, weight in parts:
        part = [i for row in alone for i in row]
        tree = collate([groups[i] for i in part], pad_id).to(device)
        values = per_response(scorer(tree), tree).view(len(part), responses)
        if found is None:
            found = values.new_zeros(len(groups), responses)
        if weight:
            found[torch.as_tensor(part, device=device)] = values
    return reduce(found, "sum").cpu()


def evaluate_objective(
    scorer: nn.Module,
    groups: Sequence[Group],
    objective: Objective,
    config: TrainingConfig,
    extra: Mapping[str, Tensor] | None = None,
    pad_id: int = 0,
    prefix: str = "held_out_",
) -> Callable[[], dict[str, float]]:
    """An `evaluate` for `train`: the objective's means over examples that are not trained on.

    The reference, if there is one, is the scorer as it now is: call this before `train`.
    """
    reference = None
    if objective.needs_reference:
        reference = score(scorer, groups, objective.responses, config, pad_id)
    rows = [[i] for i in range(len(groups))]

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        device = next(scorer.parameters()).device
        make_batch = _BatchMaker(groups, extra or {}, reference, pad_id, device)
        sizes = _row_sizes(rows, groups)
        parts = [part for part, _ in micro_batches(rows, sizes, config.max_tokens)]
        shared = None
        if objective.prepare is not None:
            batches = map(make_batch, parts)
            shared = sum(objective.prepare(scorer(b.tree), b).sum() for b in batches) / len(groups)
        sums: dict[str, float] = {}
        for part in parts:
            batch = make_batch(part, shared)
            for name, value in objective.values(scorer(batch.tree), batch).items():
                sums[name] = sums.get(name, 0.0) + float(value.sum())
        return {prefix + name: total / len(groups) for name, total in sums.items()}

    return evaluate


def is_main_process() -> bool:
    """Whether this process prints and saves; true where there is only one."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def per_response(scores: Tensor, tree: Tree) -> Tensor:
    """(R,): sums a number a token over each response; leaves a number a response as it is."""
    return scores if len(scores) == len(tree.lengths) else sequence_logps(scores, tree.lengths)


# The order of the examples -----------------------------------------------------------------------


def schedule(groups: Sequence[Group], config: TrainingConfig) -> list[np.ndarray]:
    """The examples of every step: (steps,) arrays of `batch_size` indices, from the seed alone.

    A pass shuffles the examples and cuts them into full steps; the few that are left over sit this
    pass out. Within a window of `bucket` steps examples are then sorted by length, which spares
    padding, and the window's steps are shuffled. With `share_prompts` above 1, what is shuffled
    and sorted are rows of that many examples of one prompt.
    """
    n = len(groups)
    size = min(config.batch_size, n)
    per_pass = n // size
    steps = config.steps or max(1, round(config.epochs * per_pass))
    draw = np.random.default_rng(config.seed)
    found: list[np.ndarray] = []
    while len(found) < steps:
        rows = same_prompt(groups, draw.permutation(n), config.share_prompts)
        sizes = np.empty(n, dtype=int)
        for row, row_size in zip(rows, _row_sizes(rows, groups), strict=True):
            sizes[row] = row_size
        shuffled = draw.permutation(len(rows)) if config.share_prompts > 1 else range(n)
        order = np.array([i for k in shuffled for i in rows[k]])[: per_pass * size]
        if config.bucket == 1:
            found.extend(order.reshape(per_pass, size))
            continue
        for start in range(0, len(order), config.bucket * size):
            window = order[start : start + config.bucket * size]
            window = window[np.argsort(sizes[window], kind="stable")]
            found.extend(draw.permutation(window.reshape(-1, size)))
    return found[:steps]


def micro_batches(
    rows: Sequence[list[int]],
    sizes: np.ndarray,
    max_tokens: int,
    rank: int = 0,
    processes: int = 1,
) -> list[tuple[list[list[int]], int]]:
    """This process's share of a step: (rows, weight), each of `max_tokens` padded tokens or fewer.

    A row longer than that is alone. Every process gets as many micro-batches, since wrappers wait
    for one another; one that would get fewer repeats its first with weight 0.

    Args:
        rows: examples that stand in one row of tokens; one each, unless they share a prompt.
        sizes: tokens of each row.
    """
    order = np.argsort(sizes, kind="stable").tolist()
    shares = []
    for process in range(processes):
        parts: list[list[list[int]]] = []
        for k in order[process::processes]:
            if parts and (len(parts[-1]) + 1) * sizes[k] <= max_tokens:
                parts[-1].append(rows[k])
            else:
                parts.append([rows[k]])
        shares.append(parts)
    most = max(map(len, shares))
    own = shares[rank] or [[rows[order[0]]]]
    weighted = [(part, int(bool(shares[rank]))) for part in own]
    return weighted + [(own[0], 0)] * (most - len(own))


def same_prompt(groups: Sequence[Group], examples: Iterable[int], most: int) -> list[list[int]]:
    """The examples in rows of one prompt and at most `most` examples, in order of appearance.

    It pays where the prompt is about as long as a response, or longer; rows of 15 examples cost
    more attention than they save.
    """
    rows: list[list[int]] = []
    open_rows: dict[tuple[int, ...], list[int]] = {}
    for i in examples:
        prompt = tuple(groups[i][0])
        if most == 1 or len(open_rows.get(prompt, ())) in (0, most):
            open_rows[prompt] = []
            rows.append(open_rows[prompt])
        open_rows[prompt].append(int(i))
    return rows


def _row_sizes(rows: Sequence[list[int]], groups: Sequence[Group]) -> np.ndarray:
    """(rows,) tokens of each row: the prompt once, and all responses."""
    return np.array(
        [len(groups[row[0]][0]) + sum(len(y) for i in row for y in groups[i][1]) for row in rows]
    )


def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """A straight climb over the warm-up, then half a cosine down to `final_learning_rate`.

    Source: Loshchilov and Hutter 2017 (1608.03983), equation 5, without restarts.
    """
    climb = math.ceil(config.warmup * steps)
    if step < climb:
        return config.learning_rate * (step + 1) / (climb + 1)
    progress = (step - climb) / max(1, steps - climb)
    low = config.final_learning_rate
    return config.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of a model to 0, those kept as plain numbers in its attention too.

    With dropout a policy differs from itself: DPO would not start at log 2.
    """
    for module in model.modules():
        for name in ("p",) if isinstance(module, nn.Dropout) else ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def shard(scorer: nn.Module, precision: str = "float32") -> None:
    """Split a model's weights over the processes, a decoder layer at a time (FSDP2), in place.

    accelerate's own FSDP does not run on the CPU; PyTorch's does, on the same weights.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    options = {}
    if precision == "bfloat16":
        options["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32
        )
    for module in scorer.modules():
        if isinstance(module, nn.ModuleList) and len(module):
            for layer in module:
                fully_shard(layer, **options)
    fully_shard(scorer, **options)


def unshard(scorer: nn.Module) -> None:
    """Put whole weights back, to be saved; all processes must call this. Not to be run again."""
    whole: dict[nn.Parameter, nn.Parameter] = {}  # tied weights stay tied
    for module in scorer.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # an evaluation leaves the root gathered, and saving would undo it
    for module in scorer.modules():
        for name, p in module._parameters.items():
            if p is not None and hasattr(p, "full_tensor"):
                if p not in whole:
                    whole[p] = nn.Parameter(p.detach().full_tensor(), p.requires_grad)
                module._parameters[name] = whole[p]


class _BatchMaker:
    """Collates examples and fetches what goes with them."""

    def __init__(
        self,
        groups: Sequence[Group],
        extra: Mapping[str, Tensor],
        reference: Tensor | None,
        pad_id: int,
        device: torch.device,
    ) -> None:
        self.groups, self.extra, self.reference = groups, extra, reference
        self.pad_id, self.device = pad_id, device

    def __call__(self, rows: Sequence[list[int]], shared: Tensor | None = None) -> Batch:
        trees = [
            (self.groups[row[0]][0], [y for i in row for y in self.groups[i][1]]) for row in rows
        ]
        which = torch.tensor([i for row in rows for i in row])
        return Batch(
            tree=collate(trees, self.pad_id).to(self.device),
            examples=which,
            reference=None if self.reference is None else self.reference[which].to(self.device),
            extra={name: values[which].to(self.device) for name, values in self.extra.items()},
            shared=shared,
        )


# What stays on disk ------------------------------------------------------------------------------


class _Run:
    """The run's folder: checkpoints that are whole or absent, and the reference."""

    def __init__(
        self,
        folder: Path | None,
        fingerprint: dict[str, Any],
        accelerator: Any,
        scorer: nn.Module,
        optimizer: Any,
    ) -> None:
        self.folder, self.fingerprint, self.accelerator = folder, fingerprint, accelerator
        self.named = [(name, p) for name, p in scorer.named_parameters() if p.requires_grad]
        self.state = optimizer.state
        self.fused = accelerator.device.type == "cuda"

    def open(self, resume: bool) -> int:
        """Load the last checkpoint, if there is one; the number of steps that are done."""
        if self.folder is None:
            return 0
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in (self.folder / "checkpoints").glob(".step-*"):
                shutil.rmtree(left, ignore_errors=True)  # a save that was killed
            if not resume:
                shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
                (self.folder / "metrics.csv").unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        last = self.latest()
        return 0 if last is None else self._load(last)

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        if self.folder is None:
            return None
        return max((self.folder / "checkpoints").glob("step-*"), default=None)

    def reference(self, given: Tensor | None, compute: Callable[[], Tensor]) -> Tensor:
        """The reference's log-probabilities: given, or kept by this run, or computed now."""
        if given is not None:
            return given.detach().cpu()
        if self.folder is None:
            return compute()
        path = self.folder / "reference.safetensors"
        if self.latest() is None:
            found = compute()
            if self.accelerator.is_main_process:
                write_whole(path, lambda to: save_file({"logps": found.contiguous()}, to))
            return found
        try:
            return load_file(path)["logps"]
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(
                f"{path} is missing or broken, and the policy has moved on from the reference, so "
                "it cannot be computed again. Start over with resume=False."
            ) from error

    def save(self, step: int, keep: int) -> None:
        """Write a checkpoint beside the others, then name it; drop those beyond `keep`."""
        if self.folder is None:
            return
        weights = {name: _whole(p) for name, p in self.named}
        moments = {
            f"{key}:{name}": _whole(self.state[p][key])
            for name, p in self.named
            for key in ("exp_avg", "exp_avg_sq")
            if p in self.state
        }
        if self.accelerator.is_main_process:
            final = self.folder / "checkpoints" / f"step-{step:08d}"
            aside = final.with_name(f".{final.name}")
            try:
                aside.mkdir(parents=True)
                save_file(weights, aside / "weights.safetensors")
                save_file(moments, aside / "moments.safetensors")
                state = {"step": step, **self.fingerprint}
                (aside / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
                for path in aside.iterdir():
                    with open(path, "rb+") as file:
                        os.fsync(file.fileno())
                os.rename(aside, final)
            except (OSError, SafetensorError) as error:
                shutil.rmtree(aside, ignore_errors=True)
                raise CheckpointError(
                    f"checkpoint {final} could not be written: {error}. Earlier checkpoints and "
                    "the metrics are whole: make room, then run the same again to go on from them."
                ) from error
            for old in sorted(final.parent.glob("step-*"))[:-keep]:
                shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _load(self, folder: Path) -> int:
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            step = state.pop("step")
            _same_run(folder, state, self.fingerprint)
            weights = load_file(folder / "weights.safetensors")
            moments = load_file(folder / "moments.safetensors")
            for name, p in self.named:
                p.data.copy_(_like(weights.pop(name), p))
                self.state[p] = {
                    "step": torch.tensor(float(step), device=p.device if self.fused else "cpu"),
                    "exp_avg": _like(moments[f"exp_avg:{name}"], p),
                    "exp_avg_sq": _like(moments[f"exp_avg_sq:{name}"], p),
                }
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            if isinstance(error, ResumeMismatchError | CheckpointError):
                raise
            raise CheckpointError(
                f"checkpoint {folder} cannot be read: {error}. Remove this folder to go on from "
                "the one before it."
            ) from error
        return step


class _Metrics:
    """metrics.csv, a row a step, and TensorBoard's events. A kill costs one row at most."""

    def __init__(self, folder: Path | None, first: int, config: TrainingConfig, main: bool) -> None:
        self.path = folder / "metrics.csv" if folder is not None and main else None
        self.kept: list[dict[str, float]] = []
        self.columns: list[str] = []
        self.board = None
        if self.path is None:
            return
        if self.path.exists() and first:
            self.kept = [row for row in read_metrics(self.path) if row["step"] <= first]
        self._rewrite(self.kept)
        if config.tensorboard and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder), purge_step=first + 1)

    def write(self, row: dict[str, float]) -> None:
        """Append a row in one write; a new column rewrites the file."""
        if self.path is None:
            return
        if set(row) - set(self.columns):
            self._rewrite([*read_metrics(self.path), row])
        else:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(self._text([row]))
        if self.board is not None:
            for name, value in row.items():
                if name != "step":
                    self.board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        self.columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step"]
        text = ",".join(self.columns) + "\n" + self._text(rows)
        write_whole(self.path, lambda to: to.write_text(text, encoding="utf-8"))

    def _text(self, rows: list[dict[str, float]]) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, restval="", lineterminator="\n")
        writer.writerows(rows)
        return buffer.getvalue()


def read_metrics(path: Path | str) -> list[dict[str, float]]:
    """The rows of a metrics.csv; empty cells are left out, and a last row that a kill cut off."""
    text = Path(path).read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    found = [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in rows]
    return [{**row, "step": int(row["step"])} for row in found if "step" in row]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file beside `path`, then put it in its place: all or nothing."""
    aside = path.with_name(f".{path.name}.new")
    try:
        write(aside)
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise CheckpointError(f"{path} could not be written: {error}. Make room first.") from error


def _whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):  # a shard: all processes give their part
        tensor = tensor.full_tensor()
    return tensor.cpu().contiguous()


def _like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """On the parameter's device, and split as it is."""
    tensor = tensor.to(parameter.device)
    if not hasattr(parameter, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)


# Checks and reports ------------------------------------------------------------------------------


def _check(
    groups: Sequence[Group],
    objective: Objective,
    config: TrainingConfig,
    extra: Mapping[str, Tensor],
) -> None:
    if not len(groups):
        raise ResponseError("there are no examples to train on.")
    for i, (_, answers) in enumerate(groups):
        if len(answers) != objective.responses:
            raise ResponseError(
                f"example {i} has {len(answers)} responses; {objective.name} takes "
                f"{objective.responses}."
            )
    if config.shard and not int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InvalidHyperparameterError(
            "shard needs several processes. Start them with torchrun --nproc_per_node N."
        )
    if config.dropout and objective.needs_reference:
        raise InvalidHyperparameterError(
            "dropout and a reference do not go together: with dropout the policy differs from the "
            "reference before it has learnt anything, and the loss does not start at its zero."
        )
    for name, values in extra.items():
        if len(values) != len(groups):
            raise ShapeError(f"extra[{name!r}] has {len(values)} rows for {len(groups)} examples.")


def _accelerator(config: TrainingConfig) -> Any:
    """A fresh Accelerator on the device that was asked for."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    check_device(config.device)
    if not torch.distributed.is_initialized():  # another device or precision than last time
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=config.device == "cpu",
        mixed_precision="bf16" if config.precision == "bfloat16" else "no",
    )


def check_device(device: str) -> None:
    """Raise DeviceUnavailableError unless this is "cpu", or "cuda" and there is a GPU."""
    if device not in ("cpu", "cuda"):
        raise DeviceUnavailableError(f"device {device!r} is unknown; use cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailableError(
            "a GPU was asked for and PyTorch sees none. Use device cpu, or install a PyTorch built "
            "for your GPU; `irlbook doctor` shows what it sees."
        )


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _fingerprint(
    scorer: nn.Module,
    groups: Sequence[Group],
    objective: Objective,
    config: TrainingConfig,
    extra: Mapping[str, Tensor],
) -> dict[str, Any]:
    """What two runs must share for one to go on with the other's checkpoint."""
    digest = hashlib.sha256()
    for prompt, answers in groups:
        for ids in (prompt, *answers):
            digest.update(np.asarray([len(ids), *ids], dtype=np.int64).tobytes())
    for name in sorted(extra):
        digest.update(name.encode() + extra[name].detach().cpu().double().numpy().tobytes())
    settings = {k: v for k, v in asdict(config).items() if k not in FREE}
    settings = json.loads(json.dumps(settings))
    start = hashlib.sha256()
    for name, p in scorer.named_parameters():
        start.update(
            f"{name} {tuple(p.shape)} {float(p.detach().sum(dtype=torch.float64)):.4e}".encode()
        )
    return {
        "objective": objective.name,
        "data": digest.hexdigest()[:16],
        "start": start.hexdigest()[:16],
        "config": settings,
    }


def _same_run(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    differ = [
        f"{name} was {theirs['config'].get(name)!r} and is {value!r}"
        for name, value in ours["config"].items()
        if theirs["config"].get(name) != value
    ]
    if theirs["objective"] != ours["objective"]:
        differ.append(f"objective was {theirs['objective']} and is {ours['objective']}")
    if theirs["data"] != ours["data"]:
        differ.append("the examples are others")
    if theirs["start"] != ours["start"]:
        differ.append("it started from another model")
    if differ:
        raise ResumeMismatchError(
            f"{folder.parent.parent} holds another run: {'; '.join(differ)}. Give another folder, "
            "or start over with resume=False, which replaces it."
        )


def _diverged(
    step: int, row: Mapping[str, float], seen: Iterable[tuple[list[int], Tensor]], last: Path | None
) -> str:
    bad = [
        i
        for part, losses in seen
        for i, value in zip(part, losses.tolist(), strict=True)
        if not math.isfinite(value)
    ]
    where = f"examples {bad[:8]}" if bad else "the gradient alone"
    kept = f"the last checkpoint is {last}" if last else "there is no checkpoint"
    return (
        f"step {step + 1}: loss {row['loss']} and gradient norm {row['grad_norm']} because of "
        f"{where}. The weights are those before this step, and {kept}. Usual causes: a learning "
        "rate too high; weights in 16 bits; a reference log-probability that is infinite; a broken "
        "row (look at the examples named)."
    )


def _flat(objective: Objective, row: Mapping[str, float], steps: int) -> str:
    start = f", its value before any learning ({objective.start:.4f})" if objective.start else ""
    return (
        f"the loss has stayed at {row['loss']:.4f}{start} for {steps} steps. Causes, most frequent "
        "first: the learning rate is too small, or still warming up; the trained parameters are "
        "not those that the scorer uses (a copy, a frozen model, an adapter that is off); the "
        "reference is the policy itself and moves with it; the two responses of each pair are the "
        "same, perhaps only after truncation."
    )


def _bar(steps: int, first: int, config: TrainingConfig, accelerator: Any) -> Any:
    from tqdm import tqdm

    hidden = (
        None if config.progress and accelerator.is_main_process else True
    )  # None: if no terminal
    return tqdm(total=steps, initial=first, disable=hidden, file=sys.stderr, unit="step")
