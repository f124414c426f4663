"""The one training loop: SFT, reward models and the DPO family all run through `train`.

An *example* is a group: a prompt with its responses, one for a demonstration, two for a preference.
A step takes `batch_size` examples, cuts them into micro-batches that fit into memory, sums the
losses' gradients, divides once by the number of examples, and moves the weights. How the step is
cut, and over how many processes, changes nothing but rounding.

Everything that is random follows from (seed, step). So a run that was killed goes on from its last
checkpoint (`training.checkpoints`) to the same numbers.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irlbook.errors import (
    DivergedTrainingError,
    FlatLossWarning,
    InvalidHyperparameterError,
    ResponseError,
    ShapeError,
)
from irlbook.lm.logprobs import sequence_logps
from irlbook.lm.trees import Group, Tree, collate
from irlbook.training import distributed
from irlbook.training.checkpoints import Metrics, Run, fingerprint, going_on
from irlbook.training.config import StepConfig, TrainingConfig

__all__ = [
    "Batch",
    "FUSED",
    "Objective",
    "TrainingResult",
    "accumulate",
    "adamw",
    "disable_dropout",
    "evaluate_objective",
    "learning_rate",
    "micro_batches",
    "per_response",
    "row_sizes",
    "same_prompt",
    "schedule",
    "score",
    "token_scores",
    "train",
]

FUSED = 10_000_000
"""On a CPU AdamW is fused from so many weights on: they lie outside all caches, and one pass over
memory takes a sixth of the time of ten. It rounds otherwise."""


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
        start: the loss of a model that has learned nothing, if that is known.
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
        resumed: steps that an earlier call had done; all of them, and nothing was trained now.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    reference: Tensor | None = None
    resumed: int = 0

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
    measured: str | None = None,
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
        measured: a name, made of its content, of what `evaluate` measures on: one metrics.csv does
            not hold measurements of two.

    Raises:
        DivergedTrainingError: a loss or gradient is not finite; names step and examples.
        ResumeMismatchError: `out` holds a run with other data or settings.
        CheckpointError: the disk is full, or a checkpoint is unreadable.
        DeviceUnavailableError, InvalidHyperparameterError, ResponseError.
    """
    config, extra = config or TrainingConfig(), dict(extra or {})
    _check(groups, objective, config, extra)
    steps = schedule(groups, config)
    settings = config.settings() | ({"held_out": measured} if measured else {})
    identity = fingerprint(scorer, groups, objective.name, settings, extra)

    accelerator = distributed.accelerator(config.device, config.precision)
    scorer.train()
    if not config.dropout:
        disable_dropout(scorer)
    if config.shard:
        distributed.shard(scorer.to(accelerator.device), config.precision)
    wrapped, optimizer = scorer, adamw(scorer, config, accelerator.device)
    if not config.shard:
        wrapped, optimizer = accelerator.prepare(scorer, optimizer)
    run = Run(out, identity, accelerator, scorer, optimizer)
    with ExitStack() as at_end:
        at_end.callback(scorer.eval)
        at_end.callback(optimizer.zero_grad)
        if not config.shard:
            at_end.callback(accelerator.unwrap_model, wrapped, keep_fp32_wrapper=False)
        first = run.open(resume)
        if objective.needs_reference:
            reference = run.reference(
                reference, lambda: score(wrapped, groups, objective.responses, config, pad_id)
            )
            _check_reference(reference, groups, objective)
        make_batch = _BatchMaker(groups, extra, reference, pad_id, accelerator.device)
        reports = _Reports(run, first, len(steps), objective, config)
        at_end.callback(reports.close)
        if evaluate is not None and first == 0:
            reports.add({"step": 0, **evaluate()})
        for step in range(first, len(steps)):
            began = time.perf_counter()
            rows = same_prompt(groups, steps[step], config.share_prompts)
            sizes = row_sizes(rows, groups)
            rank, processes = accelerator.process_index, accelerator.num_processes
            parts = micro_batches(rows, sizes, config.max_tokens, rank, processes)
            examples = len(steps[step])
            with _dropout(config, step, rank):
                shared = None
                if objective.prepare is not None:
                    own = _prepare(wrapped, objective.prepare, parts, make_batch)
                    shared = accelerator.reduce(own, "sum") / examples
                batches = ((make_batch(part, shared), weight) for part, weight in parts)
                row, losses = accumulate(
                    wrapped, accelerator, objective, batches, len(parts), examples
                )
            norm = nn.utils.clip_grad_norm_(scorer.parameters(), config.max_grad_norm)
            row = {"step": step + 1, **row, "grad_norm": float(distributed.whole(norm))}
            if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
                raise _diverged(row, losses, run.latest())
            row["learning_rate"] = learning_rate(step, len(steps), config)
            for group in optimizer.param_groups:
                group["lr"] = row["learning_rate"]
            optimizer.step()
            optimizer.zero_grad()

            row["tokens_per_second"] = int(sizes.sum()) / (time.perf_counter() - began)
            done = step + 1 == len(steps)
            if evaluate is not None and (done or (step + 1) % config.evaluate_every == 0):
                row |= evaluate()
            reports.add(row)
            if done or (step + 1) % config.checkpoint_every == 0:
                run.save(step + 1, config.keep)
        return TrainingResult(reports.rows, len(steps), reference, first)


def accumulate(
    scorer: nn.Module,
    accelerator: Any,
    objective: Objective,
    batches: Iterable[tuple[Batch, int]],
    most: int,
    examples: int,
) -> tuple[dict[str, float], list[tuple[Tensor, Tensor]]]:
    """Add up the gradients of one step's mean loss, a micro-batch at a time.

    Args:
        batches: this process's micro-batches, `most` of them, with weights 0 or 1.
        examples: of the whole step, over all processes: what every sum is divided by.

    Returns:
        The means of loss and metrics over the step's examples, and (examples, losses) of each
        micro-batch of this process.
    """
    sums: dict[str, Tensor] = {}
    seen: list[tuple[Tensor, Tensor]] = []
    for batch, weight in batches:
        with distributed.gradients_meet(accelerator, scorer, last=len(seen) + 1 == most):
            values = objective.values(scorer(batch.tree), batch)
            loss = weight * values["loss"].sum() / examples
            # Wrappers average over processes; the loss is a sum over them.
            accelerator.backward(loss * accelerator.num_processes)
        for name, value in values.items():
            sums[name] = sums.get(name, 0) + weight * value.detach().sum()
        seen.append((batch.examples, values["loss"].detach()))
    stacked = torch.stack([value.double() for value in sums.values()])
    means = accelerator.reduce(stacked, "sum") / examples
    return dict(zip(sums, means.tolist(), strict=True)), seen


@torch.no_grad()
def _prepare(
    scorer: nn.Module,
    prepare: Callable[[Tensor, Batch], Tensor],
    parts: Sequence[tuple[list[list[int]], int]],
    make_batch: Callable[..., Batch],
) -> Tensor:
    """What `Objective.prepare` gives, summed over this process's share of a step."""
    batches = ((make_batch(rows), weight) for rows, weight in parts)
    sums = [weight * prepare(scorer(b.tree), b).double().sum() for b, weight in batches]
    return torch.stack(sums).sum()


def score(
    scorer: nn.Module,
    groups: Sequence[Group],
    responses: int,
    config: StepConfig | None = None,
    pad_id: int = 0,
) -> Tensor:
    """(groups, responses) log pi(y|x) or reward of every response, on the CPU, in order.

    Of a scorer that gives a vector for each response it is (groups, responses, H).

    Args:
        scorer: as in `train`; what it gives one a token is summed over each response.
        responses: K, the same for all groups. With several processes each does its share.
    """
    counts = [responses] * len(groups)
    found = _share_out(scorer, lambda x: per_response(scorer(x), x), groups, counts, config, pad_id)
    return found.view(len(groups), responses, *found.shape[1:])


def token_scores(
    scorer: nn.Module, groups: Sequence[Group], config: StepConfig | None = None, pad_id: int = 0
) -> Tensor:
    """(N, ...) what a scorer gives for each response token, on the CPU, in order; as `score`."""
    counts = [sum(map(len, answers)) for _, answers in groups]
    return _share_out(scorer, scorer, groups, counts, config, pad_id)


@torch.no_grad()
def _share_out(
    scorer: nn.Module,
    compute: Callable[[Tree], Tensor],
    groups: Sequence[Group],
    counts: Sequence[int],
    config: StepConfig | None,
    pad_id: int,
) -> Tensor:
    """(sum(counts), ...) what `compute` gives, `counts` a group; each process does its share."""
    from accelerate.utils import reduce

    config = config or StepConfig()
    device = next((p.device for p in scorer.parameters()), torch.device(config.device))
    places = torch.arange(sum(counts), device=device).split(list(counts))
    rows = [[i] for i in range(len(groups))]
    sizes = row_sizes(rows, groups)
    parts = micro_batches(rows, sizes, config.max_tokens, *distributed.ranks(config.device))
    found = None
    for alone, weight in parts:
        part = [i for row in alone for i in row]
        tree = collate([groups[i] for i in part], pad_id).to(device)
        with distributed.autocast(device, config.precision):
            values = compute(tree)
        if found is None:
            found = values.new_zeros(sum(counts), *values.shape[1:])
        if weight:
            found[torch.cat([places[i] for i in part])] = values
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
        sizes = row_sizes(rows, groups)
        parts = micro_batches(rows, sizes, config.max_tokens)
        sums: dict[str, float] = {}
        with distributed.autocast(device, config.precision):
            shared = None
            if objective.prepare is not None:
                shared = _prepare(scorer, objective.prepare, parts, make_batch) / len(groups)
            for part, _ in parts:
                batch = make_batch(part, shared)
                for name, value in objective.values(scorer(batch.tree), batch).items():
                    sums[name] = sums.get(name, 0.0) + float(value.sum())
        return {prefix + name: total / len(groups) for name, total in sums.items()}

    return evaluate


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
        for row, row_size in zip(rows, row_sizes(rows, groups), strict=True):
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


def row_sizes(rows: Sequence[list[int]], groups: Sequence[Group]) -> np.ndarray:
    """(rows,) tokens of each row: the prompt once, and all responses."""
    return np.array(
        [len(groups[row[0]][0]) + sum(len(y) for i in row for y in groups[i][1]) for row in rows]
    )


def learning_rate(step: int, steps: int, config: StepConfig) -> float:
    """A straight climb over the warm-up, then half a cosine down to `final_learning_rate`.

    Source: Loshchilov and Hutter 2017 (1608.03983), equation 5, without restarts.
    """
    climb = math.ceil(config.warmup * steps)
    if step < climb:
        return config.learning_rate * (step + 1) / (climb + 1)
    progress = (step - climb) / max(1, steps - climb)
    low = config.final_learning_rate
    return config.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)


# Parts of the loop --------------------------------------------------------------------------------


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of a model to 0, those kept as plain numbers in its attention too.

    With dropout a policy differs from itself: DPO would not start at log 2.
    """
    for module in model.modules():
        for name in ("p",) if isinstance(module, nn.Dropout) else ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def adamw(scorer: nn.Module, config: StepConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW on what requires a gradient; only matrices decay (Loshchilov and Hutter 2019)."""
    trained = [p for p in scorer.parameters() if p.requires_grad]
    if not trained:
        raise InvalidHyperparameterError("no parameter of the model requires a gradient.")
    matrices = [p for p in trained if p.ndim >= 2]
    others = [p for p in trained if p.ndim < 2]
    parts: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    many = sum(p.numel() for p in trained) >= FUSED and not config.shard
    return torch.optim.AdamW(
        parts,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda" or many,
    )


@contextmanager
def _dropout(config: TrainingConfig, step: int, rank: int) -> Iterator[None]:
    """Dropout that follows from (seed, step, process), and leaves the global generator alone."""
    with torch.random.fork_rng(enabled=config.dropout):
        if config.dropout:
            key = np.random.SeedSequence((config.seed, step, rank)).generate_state(1, np.uint64)
            torch.manual_seed(int(key[0] >> 1))
        yield


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


class _Reports:
    """The history, metrics.csv, the bar, and a warning where the loss does not move."""

    def __init__(
        self, run: Run, first: int, steps: int, objective: Objective, config: TrainingConfig
    ) -> None:
        from tqdm import tqdm

        main = distributed.is_main_process()
        self.objective = objective
        self.metrics = Metrics(run.folder if main else None, first, config.tensorboard)
        self.rows = self.metrics.kept
        hidden = None if config.progress and main else True  # None: where there is no terminal
        if 0 < first < steps and not hidden:
            going_on(first, steps, "step")
        self.bar = tqdm(total=steps, initial=first, disable=hidden, file=sys.stderr, unit="step")
        self.flat, self.patience = 0, config.patience + math.ceil(config.warmup * steps)

    def add(self, row: dict[str, float]) -> None:
        self.metrics.write(row)
        self.rows.append(row)
        if not row["step"]:
            return  # an evaluation before the first step
        self.bar.update()
        self.bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
        start = self.objective.start
        stuck = row["grad_norm"] == 0 or (start is not None and abs(row["loss"] - start) < 1e-5)
        self.flat = self.flat + 1 if stuck else 0
        if self.flat == self.patience:
            warnings.warn(_flat(self.objective, row, self.flat), FlatLossWarning, stacklevel=3)

    def close(self) -> None:
        self.bar.close()
        self.metrics.close()


# Checks and reports -------------------------------------------------------------------------------


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
    distributed.check_shard(config)
    if config.dropout and objective.needs_reference:
        raise InvalidHyperparameterError(
            "dropout and a reference do not go together: with dropout the policy differs from the "
            "reference before it has learned anything, and the loss does not start at its zero."
        )
    for name, values in extra.items():
        if len(values) != len(groups):
            raise ShapeError(f"extra[{name!r}] has {len(values)} rows for {len(groups)} examples.")


def _check_reference(reference: Tensor, groups: Sequence[Group], objective: Objective) -> None:
    if reference.shape != (len(groups), objective.responses):
        raise ShapeError(
            f"the reference has shape {tuple(reference.shape)}; expected one number a response, "
            f"{(len(groups), objective.responses)}."
        )


def _diverged(
    row: Mapping[str, float], seen: Iterable[tuple[Tensor, Tensor]], last: Path | None
) -> DivergedTrainingError:
    pairs = [pair for part in seen for pair in zip(*(t.tolist() for t in part), strict=True)]
    bad = [i for i, loss in pairs if not math.isfinite(loss)]
    where = f"examples {bad[:8]}" if bad else "the gradient alone"
    kept = f"the last checkpoint is {last}" if last else "there is no checkpoint"
    return DivergedTrainingError(
        f"step {row['step']}: loss {row['loss']} and gradient norm {row['grad_norm']} because of "
        f"{where}. The weights are those before this step, and {kept}. Usual causes: a learning "
        "rate too high; weights in 16 bits; a reference log-probability that is infinite; a broken "
        "row (look at the examples named).",
        bad,
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
