"""From files to a trained model: what `irlbook train` does, for Python too.

A run's folder holds `model/` (safetensors, for any transformers program), `metrics.csv` and the
checkpoints. The same call again goes on where a killed run stopped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irlbook.data.readers import read_demonstrations, read_preferences, read_unpaired
from irlbook.data.records import Preference, Unpaired
from irlbook.errors import DivergedTrainingError, InvalidDataError, InvalidHyperparameterError
from irlbook.lm import models
from irlbook.lm.logprobs import ResponseScorer, sequence_logps
from irlbook.lm.sampling import sample
from irlbook.lm.tokenization import decode, pad_id, stop_ids, template_note
from irlbook.lm.trees import Group, collate
from irlbook.posttraining import dpo, reward_model, sft
from irlbook.posttraining.configs import Pooling, PreferenceConfig, RewardConfig, Source
from irlbook.posttraining.encoding import Encoded, Record, context_length, encode, length_limit
from irlbook.training.checkpoints import data_digest, nothing_trained
from irlbook.training.config import TrainingConfig
from irlbook.training.distributed import check_device, is_main_process, unshard
from irlbook.training.loop import Objective, TrainingResult, evaluate_objective, train

__all__ = [
    "LEARNING",
    "Trained",
    "kl_to_reference",
    "resolve",
    "train_dpo",
    "train_reward",
    "train_sft",
]

LEARNING = 12  # bytes a weight: its gradient and AdamW's two moments, in float32


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
    loss: RewardConfig | None = None,
    *,
    pooling: Pooling | None = None,
    resume: bool = True,
) -> Trained:
    """Train a reward model on preferences, from a language model or a reward model."""
    loss = loss or RewardConfig()
    setup = _Setup(source, config, read_preferences, _load_classifier, use_margin=loss.use_margin)
    inner = setup.model.get_base_model() if source.lora else setup.model
    scorer = reward_model.RewardScorer(inner, pooling)
    return setup.run(scorer, reward_model.objective(loss), Path(out), resume)


def train_dpo(
    source: Source,
    out: Path | str,
    config: TrainingConfig | None = None,
    loss: PreferenceConfig | None = None,
    *,
    kl_prompts: int = 0,
    kl_tokens: int = 64,
    resume: bool = True,
) -> Trained:
    """Train a policy on preferences (KTO: on labelled responses) by a loss of the DPO family.

    The reference is the model as it is loaded.

    Args:
        kl_prompts: sample a response to so many different prompts, the first of the data, at each
            evaluation and report the KL to the reference, `kl`; this keeps a second copy of the
            model. 0 does not.
        kl_tokens: where these samples are cut; the KL is that of the cut responses.
    """
    loss = loss or PreferenceConfig()
    if kl_prompts and config is not None and config.shard:
        raise InvalidHyperparameterError(
            "a sharded model cannot sample here; leave kl_prompts out, or shard out."
        )
    reader = read_unpaired if loss.loss == "kto" else read_preferences
    setup = _Setup(source, config, reader, _load_causal)
    measure = None
    if kl_prompts:
        prompts = list(dict.fromkeys(tuple(prompt) for prompt, _ in setup.groups))[:kl_prompts]
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
    max_new_tokens = max(1, min(max_new_tokens, context_length(model) - longest))

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
        if source.held_out_split is not None and source.held_out is None:
            raise InvalidHyperparameterError(
                f"held_out_split is {source.held_out_split!r}, and there is no held_out to take it "
                "from. Give both, or neither."
            )
        if source.held_out is not None:
            where = {"split": source.held_out_split, "usual_split": "test"}
            held_out = read(source.held_out, strict=source.strict, **where)
        more = 0 if source.lora or self.config.shard else LEARNING
        self.model, self.tokenizer = load(resolve(source.model), self.config, source.revision, more)
        self.limit = length_limit(source.max_length, self.model)
        if source.lora:
            task = "SEQ_CLS" if load is _load_classifier else "CAUSAL_LM"
            seed = self.config.seed
            self.model = models.add_lora(self.model, rank=source.lora, task=task, seed=seed)
        self.coded = encode(records, self.tokenizer, self.limit, strict=source.strict)
        self.groups, self.extra = self._prepare(records, self.coded, use_margin)
        self.reports = [str(records.report), *self.coded.lines(), *template_note(self.tokenizer)]
        self.held_out = None
        if held_out is not None:
            coded = encode(held_out, self.tokenizer, self.limit, strict=source.strict)
            self.held_out = self._prepare(held_out, coded, use_margin)
            self.reports += [str(held_out.report), *coded.lines()]

    def _prepare(
        self, records: Sequence[Record], coded: Encoded, use_margin: bool
    ) -> tuple[list[Group], dict[str, Tensor]]:
        kept = [records[i] for i in coded.kept]
        labels = [record.label for record in kept if isinstance(record, Unpaired)]
        if labels:
            shown = [(prompt, answers[0]) for prompt, answers in coded.groups]
            groups: list[Group] = [  # the lent response only measures; here it may be too long
                (prompt, [own, lent[: self.limit - len(prompt)]])
                for prompt, (own, lent) in dpo.kto_groups(shown, self.config.seed)
            ]
            return groups, {"desirable": torch.tensor(labels)}
        if not use_margin:
            return coded.groups, {}
        margins = [record.margin for record in kept if isinstance(record, Preference)]
        if None in margins:
            raise InvalidDataError(
                f"{coded.place(margins.index(None))} has no margin. Give every row a column "
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
                measured=data_digest(*self.held_out) if self.held_out else None,
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
        if result.resumed == result.steps:
            self.reports.append(nothing_trained(out, f"{result.steps} steps"))
        return Trained(result, out / "model", self.reports)

    def _with_records(self, error: DivergedTrainingError) -> DivergedTrainingError:
        """The same error, with the examples named by file and line."""
        if not error.examples:
            return error
        places = [self.coded.place(example) for example in error.examples[:3]]
        text = decode(self.tokenizer, self.groups[error.examples[0]][0])
        return DivergedTrainingError(
            f"{error} They were read from {', '.join(places)}{' ...' * (len(error.examples) > 3)}; "
            f"the first one's prompt begins {text[:80]!r}.",
            error.examples,
        )


def _load_causal(name: str | Path, config: TrainingConfig, revision: str | None, more: int) -> Any:
    return models.load_lm(name, config.device, revision=revision, more=more)


def _load_classifier(
    name: str | Path, config: TrainingConfig, revision: str | None, more: int
) -> Any:
    return models.load_reward_model(
        name, config.device, revision=revision, new_head=True, seed=config.seed, more=more
    )
