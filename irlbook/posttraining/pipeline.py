"""From files to a trained model: what `irlbook train`, `sample` and `score` do, for Python too.

A run's folder holds `model/` (safetensors, for any transformers program), `metrics.csv` and the
checkpoints. The same call again goes on where a killed run stopped.
"""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from irlbook.checkpoints import write_whole
from irlbook.data import (
    Demonstration,
    Preference,
    Prompt,
    Unpaired,
    length_report,
    read_demonstrations,
    read_preferences,
    read_prompts,
    read_unpaired,
)
from irlbook.data.files import SUFFIXES, write_rows
from irlbook.data.formats import demonstration_row
from irlbook.data.truncation import LengthReport
from irlbook.distributed import check_device, is_main_process, unshard
from irlbook.errors import (
    CheckpointError,
    ContextLengthError,
    DivergedTrainingError,
    EmptyDataError,
    InvalidDataError,
    InvalidHyperparameterError,
    SamplingError,
    TokenizerError,
)
from irlbook.lm import models
from irlbook.lm.logprobs import Group, ResponseScorer, collate, sequence_logps
from irlbook.lm.sampling import greedy, sample
from irlbook.lm.tokenization import decode, encode_prompt, encode_response, pad_id, stop_ids
from irlbook.posttraining import dpo, reward_model, sft
from irlbook.training import (
    Objective,
    TrainingConfig,
    TrainingResult,
    evaluate_objective,
    score,
    train,
)

Record = Preference | Demonstration | Unpaired


@dataclass(frozen=True)
class Source:
    """Where model and data come from."""

    model: str | Path  # a name or a folder; a run's folder means the model in it
    data: str | Path  # a file, a folder of files, or a name
    held_out: str | Path | None = None  # more of the same, measured but not trained on
    max_length: int | None = None  # longer records are left out; None: the model's context
    strict: bool = True  # a malformed row is an error; False leaves it out
    split: str = "train"  # of a data set of the hub
    held_out_split: str = "test"  # of held_out, likewise
    revision: str | None = None  # of a model of the hub; a commit is reproducible
    lora: int | None = None  # rank of an adapter to train instead of all weights


@dataclass
class Trained:
    """What a pipeline leaves: the run, the folder of the model, and what was left out."""

    result: TrainingResult
    model: Path
    reports: list[str] = field(default_factory=list)


def train_sft(
    source: Source, out: Path | str, config: TrainingConfig | None = None, *, resume: bool = True
) -> Trained:
    """Fine-tune a causal language model on demonstrations."""
    setup = _Setup(source, config, read_demonstrations, _load_causal)
    objective = sft.objective(setup.groups)
    return setup.run(ResponseScorer(setup.model), objective, Path(out), resume)


def train_reward(
    source: Source,
    out: Path | str,
    config: TrainingConfig | None = None,
    loss: reward_model.RewardConfig | None = None,
    *,
    pooling: reward_model.Pooling | None = None,
    resume: bool = True,
) -> Trained:
    """Train a reward model on preferences, from a language model or a reward model."""
    loss = loss or reward_model.RewardConfig()
    setup = _Setup(source, config, read_preferences, _load_classifier, use_margin=loss.use_margin)
    inner = setup.model.get_base_model() if source.lora else setup.model
    scorer = reward_model.RewardScorer(inner, pooling)
    return setup.run(scorer, reward_model.objective(loss), Path(out), resume)


def train_dpo(
    source: Source,
    out: Path | str,
    config: TrainingConfig | None = None,
    loss: dpo.PreferenceConfig | None = None,
    *,
    kl_prompts: int = 0,
    kl_tokens: int = 64,
    resume: bool = True,
) -> Trained:
    """Train a policy on preferences (KTO: on labelled responses) by a loss of the DPO family.

    The reference is the model as it is loaded.

    Args:
        kl_prompts: sample a response to so many prompts at each evaluation and report the KL to
            the reference, `kl`; this keeps a second copy of the model. 0 does not.
        kl_tokens: where these samples are cut; the KL is that of the cut responses.
    """
    loss = loss or dpo.PreferenceConfig()
    if kl_prompts and config is not None and config.shard:
        raise InvalidHyperparameterError(
            "a sharded model cannot sample here; leave kl_prompts out, or shard out."
        )
    reader = read_unpaired if loss.loss == "kto" else read_preferences
    setup = _Setup(source, config, reader, _load_causal)
    measure = None
    if kl_prompts:
        prompts = [prompt for prompt, _ in setup.groups[:kl_prompts]]
        measure = kl_to_reference(setup.model, prompts, setup.tokenizer, kl_tokens)
    scorer = ResponseScorer(setup.model)
    return setup.run(scorer, dpo.objective(loss), Path(out), resume, measure)


def kl_to_reference(
    model: Any, prompts: Sequence[Sequence[int]], tokenizer: Any, max_new_tokens: int, seed: int = 0
) -> Callable[[], dict[str, float]]:
    """A measure of how far `model` moves from what it is now: KL(pi || pi_ref), nats a response.

    Estimated by one response a prompt, log pi - log pi_ref summed over its tokens, with the same
    random numbers each time. Responses are cut at `max_new_tokens`, or where the context ends.
    """
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    longest = max(map(len, prompts))
    max_new_tokens = max(1, min(max_new_tokens, _context(model) - longest))

    @torch.no_grad()
    def measure() -> dict[str, float]:
        samples = sample(
            model,
            prompts,
            max_new_tokens=max_new_tokens,
            stop_ids=stop_ids(tokenizer, model),
            seeds=seed,
        )
        reference.to(next(model.parameters()).device)
        tree = collate(samples.groups, pad_id(tokenizer)).to(next(model.parameters()).device)
        ratio = ResponseScorer(model)(tree) - ResponseScorer(reference)(tree)
        return {"kl": float(sequence_logps(ratio, tree.lengths).mean())}

    return measure


def score_file(
    model: str | Path | Sequence[str | Path],
    data: str | Path,
    out: str | Path | None = None,
    *,
    kind: Literal["preferences", "demonstrations", "unpaired"] = "preferences",
    reference: str | Path | None = None,
    beta: float = 0.1,
    ensemble: Literal["mean", "worst", "uncertainty"] = "mean",
    config: TrainingConfig | None = None,
    strict: bool = True,
    split: str = "train",
    max_length: int | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Score the responses of a file with a reward model, several of them, or a language model.

    A reward model gives rewards; a language model gives log pi(y|x), or with a `reference` the
    implicit reward beta log pi/pi_ref.

    Args:
        model: several reward models are an ensemble. Each is standardised over the file first:
            trained apart, they have different zeros and scales.
        ensemble: how they become one, see `reward_model.ensemble_reward`.
        out: a csv to write; one row a response.

    Returns:
        The rows (record, response, tokens, score), and lines of report.
    """
    readers = {"preferences": read_preferences, "demonstrations": read_demonstrations}
    readers["unpaired"] = read_unpaired
    if kind not in readers:
        raise InvalidHyperparameterError(f"kind is {kind!r}; choose from {', '.join(readers)}.")
    config = config or TrainingConfig()
    check_device(config.device)
    records = readers[kind](data, strict=strict, split=split)
    names = [model] if isinstance(model, str | Path) else list(model)
    if len(names) == 1:
        scores, coded = _scores(names[0], records, config, max_length, reference, beta)
    else:
        found = [_scores(name, records, config, max_length, reference, beta) for name in names]
        coded = found[0][1]
        if any(other.kept != coded.kept for _, other in found):
            raise InvalidDataError(
                "the models leave out different records, so their scores cannot be joined; give a "
                "max_length that all of them can read."
            )
        each = torch.stack([values for values, _ in found])  # (models, records, K)
        middle = each.mean((1, 2), keepdim=True)
        each = (each - middle) / each.std((1, 2), correction=0, keepdim=True).clamp(min=1e-12)
        scores = reward_model.ensemble_reward(each, ensemble)
    answers = ("chosen", "rejected") if kind == "preferences" else ("response",)
    rows = [
        {"record": record, "response": name, "tokens": len(answer), "score": float(value)}
        for record, (_, ids), values in zip(coded.kept, coded.groups, scores, strict=True)
        for name, answer, value in zip(answers, ids, values, strict=True)
    ]
    lines = [str(records.report), *coded.lines()]
    if kind == "preferences":
        right = reward_model.reward_metrics(scores)["accuracy"].mean()
        lines.append(f"the preferred response scores higher in {right:.1%} of {len(scores)} pairs")
    else:
        lines.append(f"mean score {scores.mean():.4g} over {len(scores)} responses")
    if out is not None and is_main_process():
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(Path(out), lambda to: to.write_text(text.getvalue(), encoding="utf-8"))
    return rows, lines


def _scores(
    name: str | Path,
    records: Sequence[Record],
    config: TrainingConfig,
    max_length: int | None,
    reference: str | Path | None,
    beta: float,
) -> tuple[Tensor, Encoded]:
    """(records, K) scores of one model, and the records that it can read."""
    name, classifier = resolve(name), _is_classifier(resolve(name))
    if classifier and reference is not None:
        raise InvalidHyperparameterError(
            f"{name} is a reward model; a reference goes with a language model."
        )
    load = models.load_reward_model if classifier else models.load_lm
    loaded, tokenizer = load(name, config.device)
    scorer = reward_model.RewardScorer(loaded) if classifier else ResponseScorer(loaded)
    coded = encode(records, tokenizer, _limit(max_length, loaded))
    responses, pad = len(coded.groups[0][1]), pad_id(tokenizer)
    scores = score(scorer.eval(), coded.groups, responses, config, pad)
    if reference is not None:
        other, its = models.load_lm(resolve(reference), config.device)
        if its.get_vocab() != tokenizer.get_vocab():
            raise TokenizerError(f"{name} and its reference {reference} have other tokens.")
        base = score(ResponseScorer(other), coded.groups, responses, config, pad)
        scores = dpo.implicit_rewards(scores, base, beta)
    return scores, coded


def sample_file(
    model: str | Path,
    prompts: str | Path | Sequence[Prompt],
    out: str | Path | None = None,
    *,
    n: int = 1,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    strict: bool = True,
    split: str = "train",
    revision: str | None = None,
    progress: bool = True,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Sample n responses to each prompt, as rows that `read_demonstrations` can read.

    Args:
        prompts: a file with a column `prompt` (others are ignored), or the prompts themselves.
        out: a data file to write, told by its name (.jsonl ...); all of it or nothing.
        temperature: 0 takes the likeliest token each time.
        seed: response j to prompt i depends on (seed, i, j) and on nothing else.
        batch_size: responses computed at a time: memory, not results.

    Returns:
        The rows (prompt, completion, logp: that of the whole response where it was drawn from, in
        nats, ended: whether it ended by itself), prompt by prompt; and lines of report.

    Raises:
        ContextLengthError: a prompt leaves no room for max_new_tokens; names it.
        SamplingError, EmptyDataError, DeviceUnavailableError; and what `models.load_lm` raises.
    """
    check_device(device)
    if n < 1 or batch_size < 1 or (temperature == 0 and n > 1):
        raise SamplingError(
            f"n={n}, batch_size={batch_size}, temperature={temperature}: n and batch_size are at "
            "least 1; and at temperature 0 all n responses would be the same, so n is 1 there."
        )
    if precision not in ("float32", "bfloat16"):
        raise InvalidHyperparameterError(f"precision is {precision!r}; use float32 or bfloat16.")
    if out is not None:
        _check_name(Path(out))
    lines: list[str] = []
    if isinstance(prompts, str | Path):
        prompts = read_prompts(prompts, strict=strict, split=split)
        lines.append(str(prompts.report))
    if not prompts:
        raise EmptyDataError("there is no prompt to answer.")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    loaded, tokenizer = models.load_lm(resolve(model), device, dtype, revision=revision)
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    _check_room(ids, max_new_tokens, _context(loaded))
    draw = {"max_new_tokens": max_new_tokens, "stop_ids": stop_ids(tokenizer, loaded)}
    rows: list[list[dict[str, Any]]] = [[] for _ in ids]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # prompts of like length together
    size = max(1, batch_size // n)
    with tqdm(total=len(ids), disable=None if progress else True, unit="prompt") as bar:
        for start in range(0, len(order), size):
            part = order[start : start + size]
            if temperature == 0:
                drawn = greedy(loaded, [ids[i] for i in part], **draw)
            else:
                seeds = [int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in part]
                draw |= {"temperature": temperature, "top_p": top_p, "max_rows": batch_size}
                drawn = sample(loaded, [ids[i] for i in part], n, seeds=seeds, **draw)
            for k, (answer, logps, ended) in enumerate(
                zip(drawn.responses, drawn.logps, drawn.ended, strict=True)
            ):
                i = part[k // n]
                shown = Demonstration(prompts[i], decode(tokenizer, answer))
                more = {"logp": float(logps.double().sum()), "ended": ended}
                rows[i].append(demonstration_row(shown) | more)
            bar.update(len(part))
    flat = [row for part in rows for row in part]
    if out is not None:
        try:
            write_rows(out, flat)
        except OSError as error:
            raise CheckpointError(f"{out} could not be written: {error}. Make room.") from error
    share = sum(row["ended"] for row in flat) / len(flat)
    lines.append(f"{share:.1%} of {len(flat)} responses ended within {max_new_tokens} tokens")
    if share < 0.5:
        lines.append(
            "most were cut: raise max_new_tokens; or the model was never shown where a response "
            "ends (a base model, or training on responses without an end token)."
        )
    return flat, lines


def _check_name(out: Path) -> None:
    """Refuse what cannot be written before the work is done, not after."""
    if not out.name.endswith(SUFFIXES) or out.is_dir():
        raise InvalidDataError(
            f"{out} does not name a data file; let it end in {', '.join(SUFFIXES)}."
        )


def _check_room(prompts: Sequence[Sequence[int]], max_new_tokens: int, context: int) -> None:
    long = [i for i, ids in enumerate(prompts) if len(ids) + max_new_tokens > context]
    if long:
        named = ", ".join(f"{i} ({len(prompts[i])} tokens)" for i in long[:8])
        raise ContextLengthError(
            f"{len(long)} of {len(prompts)} prompts leave no room for {max_new_tokens} new tokens "
            f"in a context of {context}: prompt {named}, counted from 0. Lower max_new_tokens, or "
            "shorten or drop these prompts."
        )


@dataclass(frozen=True)
class Encoded:
    """Records as token ids: the groups, which records they are, and what was left out."""

    groups: list[Group]
    kept: list[int]
    report: LengthReport

    def lines(self) -> list[str]:
        """The report, and which records were left out."""
        left = [*self.report.no_room, *self.report.truncated]
        named = ", ".join(map(str, sorted(left)[:10])) + (" ..." if len(left) > 10 else "")
        found = [f"{len(left)} records left out (counted from 0): {named}"] if left else []
        return [str(self.report), *found]


def encode(records: Sequence[Record], tokenizer: Any, max_length: int) -> Encoded:
    """Token ids of the records that fit; the others are left out whole, and counted.

    A response that is cut would teach that it has no end, and a pair may be cut to equals; so
    nothing is ever cut here.

    Raises:
        EmptyDataError: none fits.
    """
    report = length_report(
        records,
        lambda prompt: encode_prompt(tokenizer, prompt),
        lambda text: encode_response(tokenizer, text, ended=False),
        max_length,
    )
    kept = report.keep()
    if not kept:
        raise EmptyDataError(f"No record fits. {report}. Raise the limit, or shorten the records.")
    groups: list[Group] = []
    for i in kept:
        record = records[i]
        pair = isinstance(record, Preference)
        answers = (record.chosen, record.rejected) if pair else (record.response,)
        ids = [encode_response(tokenizer, answer) for answer in answers]
        groups.append((encode_prompt(tokenizer, record.prompt), ids))
    return Encoded(groups, kept, report)


def resolve(name_or_path: str | Path) -> str | Path:
    """A run's folder stands for the model in it; every other name for itself."""
    inside = Path(name_or_path) / "model"
    here = Path(name_or_path) / "config.json"
    return inside if inside.is_dir() and not here.exists() else name_or_path


class _Setup:
    """Model, tokenizer and encoded data of one run."""

    def __init__(
        self,
        source: Source,
        config: TrainingConfig | None,
        read: Callable[..., Any],
        load: Callable[..., tuple[Any, Any]],
        use_margin: bool = False,
    ) -> None:
        self.config = config or TrainingConfig()
        check_device(self.config.device)
        # The data come before the model: they are quick to refuse.
        records = read(source.data, strict=source.strict, split=source.split)
        held_out = None
        if source.held_out is not None:
            held_out = read(source.held_out, strict=source.strict, split=source.held_out_split)
        self.model, self.tokenizer = load(resolve(source.model), self.config, source.revision)
        self.limit = _limit(source.max_length, self.model)
        if source.lora:
            task = "SEQ_CLS" if load is _load_classifier else "CAUSAL_LM"
            seed = self.config.seed
            self.model = models.add_lora(self.model, rank=source.lora, task=task, seed=seed)
        coded = encode(records, self.tokenizer, self.limit)
        self.groups, self.extra = self._prepare(records, coded, use_margin)
        self.data, self.kept = source.data, coded.kept
        self.reports = [str(records.report), *coded.lines()]
        self.held_out = None
        if held_out is not None:
            coded = encode(held_out, self.tokenizer, self.limit)
            self.held_out = self._prepare(held_out, coded, use_margin)
            self.reports += [str(held_out.report), *coded.lines()]

    def _prepare(
        self, records: Sequence[Record], coded: Encoded, use_margin: bool
    ) -> tuple[list[Group], dict[str, Tensor]]:
        kept = [records[i] for i in coded.kept]
        if isinstance(kept[0], Unpaired):
            shown = [(prompt, answers[0]) for prompt, answers in coded.groups]
            labels = torch.tensor([record.label for record in kept])
            groups = [  # the lent response, which only measures, may be too long for this prompt
                (prompt, [own, lent[: self.limit - len(prompt)]])
                for prompt, (own, lent) in dpo.kto_groups(shown, self.config.seed)
            ]
            return groups, {"desirable": labels}
        if not use_margin:
            return coded.groups, {}
        margins = [record.margin for record in kept]
        if None in margins:
            raise InvalidDataError(
                f"record {coded.kept[margins.index(None)]} has no margin. Give every row a column "
                "`margin`, or train without margins."
            )
        return coded.groups, {"margin": torch.tensor(margins, dtype=torch.float32)}

    def run(
        self,
        scorer: nn.Module,
        objective: Objective,
        out: Path,
        resume: bool,
        measure: Callable[[], Mapping[str, float]] | None = None,
    ) -> Trained:
        evaluations = [] if measure is None else [measure]
        pad = pad_id(self.tokenizer)
        if self.held_out is not None:
            groups, extra = self.held_out
            evaluations.append(
                evaluate_objective(scorer, groups, objective, self.config, extra, pad)
            )

        def evaluate() -> dict[str, float]:
            return {name: value for one in evaluations for name, value in one().items()}

        models.check_replaceable(out / "model")  # now, and not when all the work is done
        try:
            result = train(
                scorer,
                self.groups,
                objective,
                self.config,
                extra=self.extra,
                pad_id=pad,
                out=out,
                resume=resume,
                evaluate=evaluate if evaluations else None,
            )
        except DivergedTrainingError as error:
            raise self._with_records(error) from error
        if self.config.shard:
            unshard(scorer)
        if is_main_process():
            if getattr(self.model, "peft_type", None) and hasattr(scorer.model, "score"):
                # An adapter alone would forget how its head is read.
                self.model = self.model.merge_and_unload()
            models.save(self.model, self.tokenizer, out / "model")
        return Trained(result, out / "model", self.reports)

    def _with_records(self, error: DivergedTrainingError) -> DivergedTrainingError:
        """The same error, with the examples named as the reader of the file counts them."""
        if not error.examples:
            return error
        first = error.examples[0]
        text = decode(self.tokenizer, self.groups[first][0])
        return DivergedTrainingError(
            f"{error} The first of them is record {self.kept[first]} of {self.data} (counted from "
            f"0, without the rows that were left out); its prompt begins {text[:80]!r}.",
            error.examples,
        )


def _load_causal(name: str | Path, config: TrainingConfig, revision: str | None) -> Any:
    return models.load_lm(name, config.device, revision=revision)


def _load_classifier(name: str | Path, config: TrainingConfig, revision: str | None) -> Any:
    return models.load_reward_model(
        name, config.device, revision=revision, new_head=True, seed=config.seed
    )


def _is_classifier(name: str | Path) -> bool:
    from transformers import AutoConfig

    if task := models.adapter_task(Path(name)):
        return task == "SEQ_CLS"
    try:
        names = AutoConfig.from_pretrained(name, trust_remote_code=False).architectures or []
    except (OSError, ValueError):
        return False  # the loader of language models says what is wrong
    return any(name.endswith(models.REWARD_HEADS) for name in names)


def _context(model: Any) -> int:
    return getattr(model.config, "max_position_embeddings", None) or 1 << 20


def _limit(max_length: int | None, model: Any) -> int:
    return min(max_length or _context(model), _context(model))
