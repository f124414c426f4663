"""Files through a finished model: what `irlbook score` and `irlbook sample` do, for Python too."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from irlbook.data.files import SUFFIXES, write_rows
from irlbook.data.formats import demonstration_row
from irlbook.data.readers import read_demonstrations, read_preferences, read_prompts, read_unpaired
from irlbook.data.records import Demonstration, Prompt
from irlbook.data.report import Records
from irlbook.errors import (
    CheckpointError,
    InvalidDataError,
    InvalidHyperparameterError,
    NotFiniteError,
    RewardError,
    SamplingError,
    TokenizerError,
)
from irlbook.lm import models
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.sampling import greedy, sample
from irlbook.lm.tokenization import decode, pad_id, stop_ids, template_note
from irlbook.posttraining import dpo, reward_model
from irlbook.posttraining.encoding import (
    Encoded,
    Record,
    comes_back,
    context_length,
    encode,
    encode_prompts,
    length_limit,
)
from irlbook.posttraining.pipeline import resolve
from irlbook.training.checkpoints import write_whole
from irlbook.training.config import StepConfig
from irlbook.training.distributed import check_device, is_main_process
from irlbook.training.loop import score

__all__ = ["is_classifier", "sample_file", "score_file"]


def score_file(
    model: str | Path | Sequence[str | Path],
    data: str | Path,
    out: str | Path | None = None,
    *,
    kind: Literal["preferences", "demonstrations", "unpaired"] = "preferences",
    reference: str | Path | None = None,
    beta: float = 0.1,
    ensemble: Literal["mean", "worst", "uncertainty"] = "mean",
    config: StepConfig | None = None,
    strict: bool = True,
    split: str | None = None,
    max_length: int | None = None,
    revision: str | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Score the responses of a file with a reward model, several of them, or a language model.

    A reward model gives rewards; a language model gives log pi(y|x), or with a `reference` the
    implicit reward beta log pi/pi_ref.

    Args:
        model: several reward models are an ensemble. Each is standardised over the file first:
            trained apart, they have different zeros and scales.
        ensemble: how they become one, see `reward_model.ensemble_reward`.
        out: a csv to write; one row a response.
        revision: of models of the hub, the reference too; a folder has none.

    Returns:
        The rows (record, response, tokens, score), and lines of report.
    """
    readers: dict[str, Callable[..., Records[Any]]] = {
        "preferences": read_preferences,
        "demonstrations": read_demonstrations,
        "unpaired": read_unpaired,
    }
    if kind not in readers:
        raise InvalidHyperparameterError(f"kind is {kind!r}; choose from {', '.join(readers)}.")
    config = config or StepConfig()
    check_device(config.device)
    records = readers[kind](data, strict=strict, split=split)
    names = [model] if isinstance(model, str | Path) else list(model)
    found = [
        _scores(name, records, config, max_length, reference, beta, revision, strict)
        for name in names
    ]
    scores, coded = found[0]
    if len(names) > 1:
        if any(other.kept != coded.kept for _, other in found):
            raise InvalidDataError(
                "the models leave out different records, so their scores cannot be joined; give a "
                "max_length that all of them can read."
            )
        each = torch.stack([values for values, _ in found])  # (models, records, K)
        constant = reward_model.is_constant(each.flatten(1), dim=1).tolist()
        if any(constant):
            flat = [str(name) for name, alike in zip(names, constant, strict=True) if alike]
            raise RewardError(
                f"{', '.join(flat)}: every response gets the same reward, which has no scale to be "
                "standardised by. Leave this model out of the ensemble."
            )
        spread, middle = torch.std_mean(each, (1, 2), correction=0, keepdim=True)
        scores = reward_model.ensemble_reward((each - middle) / spread, ensemble)
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
    config: StepConfig,
    max_length: int | None,
    reference: str | Path | None,
    beta: float,
    revision: str | None,
    strict: bool,
) -> tuple[Tensor, Encoded]:
    """(records, K) scores of one model, and the records that it can read."""
    name, classifier = resolve(name), is_classifier(resolve(name), revision)
    if classifier and reference is not None:
        raise InvalidHyperparameterError(
            f"{name} is a reward model; a reference goes with a language model."
        )
    load = models.load_reward_model if classifier else models.load_lm
    loaded, tokenizer = load(name, config.device, revision=revision)
    scorer = reward_model.RewardScorer(loaded) if classifier else ResponseScorer(loaded)
    coded = encode(records, tokenizer, length_limit(max_length, loaded), strict=strict)
    responses, pad = len(coded.groups[0][1]), pad_id(tokenizer)
    scores = score(scorer.eval(), coded.groups, responses, config, pad)
    if reference is not None:
        other, its = models.load_lm(resolve(reference), config.device, revision=revision)
        if its.get_vocab() != tokenizer.get_vocab():
            raise TokenizerError(f"{name} and its reference {reference} have other tokens.")
        base = score(ResponseScorer(other), coded.groups, responses, config, pad)
        scores = dpo.implicit_rewards(scores, base, beta)
    broken = (~scores.isfinite()).any(1).nonzero().flatten().tolist()
    if broken:
        raise NotFiniteError(
            f"{name}: {len(broken)} of {len(scores)} records get a score that is no finite number, "
            f"first {coded.place(broken[0])}. If it is all of them the weights are damaged, or "
            "have diverged in training; fetch or train the model again."
        )
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
    split: str | None = None,
    revision: str | None = None,
    progress: bool = True,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Sample n responses to each prompt, as rows that `read_demonstrations` can read.

    Args:
        prompts: a file with a column `prompt`, or the prompts themselves.
        out: a data file to write, told by its name (.jsonl ...); all of it or nothing.
        temperature: 0 takes the likeliest token each time.
        seed: response j to prompt i depends on (seed, i, j) and on nothing else.
        batch_size: responses computed at a time: memory, not results.

    Returns:
        The rows (prompt, completion, logp: that of the whole response where it was drawn from, in
        nats, ended: whether it ended by itself), prompt by prompt; and lines of report.

    Raises:
        MalformedRowsError, ContextLengthError: a prompt cannot be encoded, or leaves no room for
            max_new_tokens; names it. With strict=False such prompts are left out.
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
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    loaded, tokenizer = models.load_lm(resolve(model), device, dtype, revision=revision)
    context = context_length(loaded)
    kept, ids, told = encode_prompts(prompts, tokenizer, max_new_tokens, context, strict=strict)
    lines += [*told, *template_note(tokenizer)]
    draw: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "stop_ids": stop_ids(tokenizer, loaded),
    }
    rows: list[list[dict[str, Any]]] = [[] for _ in ids]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # prompts of like length together
    size, others = max(1, batch_size // n), 0
    with tqdm(total=len(ids), disable=None if progress else True, unit="prompt") as bar:
        for start in range(0, len(order), size):
            part = order[start : start + size]
            if temperature == 0:
                drawn = greedy(loaded, [ids[i] for i in part], **draw)
            else:
                seeds = [
                    int(np.random.SeedSequence([seed, kept[i]]).generate_state(1)[0]) for i in part
                ]
                draw |= {"temperature": temperature, "top_p": top_p, "max_rows": batch_size}
                drawn = sample(loaded, [ids[i] for i in part], n, seeds=seeds, **draw)
            for k, (answer, logps, ended) in enumerate(
                zip(drawn.responses, drawn.logps, drawn.ended, strict=True)
            ):
                i = part[k // n]
                shown = Demonstration(prompts[kept[i]], decode(tokenizer, answer))
                more = {"logp": float(logps.double().sum()), "ended": ended}
                rows[i].append(demonstration_row(shown) | more)
                others += not comes_back(tokenizer, shown.response, answer, ended)
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
    if others:
        lines.append(
            f"{others} of {len(flat)} responses are other tokens once their text is read again, so "
            "`score` will give these another log-probability than `logp`, that of the tokens drawn"
        )
    return flat, lines


def _check_name(out: Path) -> None:
    """Refuse what cannot be written before the work is done, not after."""
    if not out.name.endswith(SUFFIXES) or out.is_dir():
        raise InvalidDataError(
            f"{out} does not name a data file; let it end in {', '.join(SUFFIXES)}."
        )


def is_classifier(name: str | Path, revision: str | None = None) -> bool:
    from transformers import AutoConfig

    if task := models.adapter_task(Path(name)):
        return task == "SEQ_CLS"
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception:
        return False  # the loader of language models says what is wrong
    return any(head.endswith(models.REWARD_HEADS) for head in config.architectures or [])
