"""From files to a policy trained on a reward: what `irlbook train ppo`, `rloo`, `raft` ... do.

The reward is a saved reward model, several of them, or a function in a Python file of one's own:
`reward.py:length` names the function `length(prompts, responses)` there, which gives a number for
each response. That file is run, so let it be yours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from irlbook.data.readers import read_prompts
from irlbook.errors import InvalidHyperparameterError, ResumeMismatchError, TokenizerError
from irlbook.lm import models
from irlbook.lm.tokenization import pad_id, template_note
from irlbook.posttraining.configs import (
    VLLM_MEMORY,
    How,
    IterativeConfig,
    OnlineConfig,
    RaftConfig,
    RewardSource,
    Source,
)
from irlbook.posttraining.encoding import context_length, encode_prompts
from irlbook.posttraining.iterative import Round, iterate_dpo
from irlbook.posttraining.online import train_online
from irlbook.posttraining.over_optimization import RewardEnsemble
from irlbook.posttraining.pipeline import LEARNING, resolve
from irlbook.posttraining.raft import RaftRound, raft, rounds_done
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.posttraining.reward_workers import FileReward, in_processes, source_digest
from irlbook.posttraining.rollouts import PolicyScorer, Reward, VLLMSampler, draw, draw_prompts
from irlbook.training import distributed
from irlbook.training.checkpoints import Metrics, nothing_trained, write_whole
from irlbook.training.config import StepConfig
from irlbook.training.distributed import check_device, is_main_process

__all__ = [
    "OnlineTrained",
    "claim_reward",
    "content_of",
    "train_iterative",
    "train_policy",
    "train_raft",
]


@dataclass
class OnlineTrained:
    """What a run leaves: its rows, the model's folder, why it stopped early, and what to report."""

    history: list[dict[str, Any]]
    model: Path
    stopped: str | None = None
    reports: list[str] = field(default_factory=list)


def train_policy(
    source: Source,
    reward: RewardSource,
    out: Path | str,
    config: OnlineConfig | None = None,
    *,
    seed: int = 0,
    vllm: bool = False,
    vllm_memory: float = VLLM_MEMORY,
    resume: bool = True,
) -> OnlineTrained:
    """Train a policy on a reward by one of the methods of :mod:`irlbook.posttraining.online`.

    Args:
        source: model and prompts (a file with a column `prompt`); also lora, strict, split.
        vllm: sample with vLLM, which gets the share `vllm_memory` of a GPU's memory.
    """
    config = config or OnlineConfig()
    setup = _Setup(source, config.training, config.max_new_tokens, seed)
    with setup.rewards(reward, out, resume) as (asked, gold):
        result = train_online(
            setup.model,
            setup.tokenizer,
            setup.prompts,
            asked,
            config,
            seed=seed,
            gold=gold,
            sampler=setup.vllm(source, vllm_memory) if vllm else None,
            out=out,
            resume=resume,
        )
    if result.resumed == len(result.history):
        setup.reports.append(nothing_trained(out, f"{result.resumed} iterations"))
    model = setup.save(result.policy, Path(out))
    return OnlineTrained(result.history, model, result.stopped, setup.reports)


def train_raft(
    source: Source,
    reward: RewardSource,
    out: Path | str,
    config: RaftConfig | None = None,
    *,
    seed: int = 0,
    vllm: bool = False,
    vllm_memory: float = VLLM_MEMORY,
    resume: bool = True,
) -> OnlineTrained:
    """Train a policy on the best of its own samples, in rounds (:mod:`irlbook.posttraining.raft`).

    metrics.csv gets a row a round, numbered from 0, the start.
    """
    config = config or RaftConfig()
    setup = _Setup(source, config.training, config.max_new_tokens, seed)
    with setup.rewards(reward, out, resume) as (asked, gold):
        before = rounds_done(out) if resume else 0
        policy, rounds = raft(
            setup.model,
            setup.tokenizer,
            setup.prompts,
            asked,
            config,
            seed=seed,
            gold=gold,
            sampler=setup.vllm(source, vllm_memory) if vllm else None,
            out=out,
            resume=resume,
        )
    if before == len(rounds):
        setup.reports.append(nothing_trained(out, f"{len(rounds) - 1} rounds"))
    rows = _rows_of_rounds(rounds, "round", Path(out))
    return OnlineTrained(rows, setup.save(policy, Path(out)), None, setup.reports)


def train_iterative(
    source: Source,
    reward: RewardSource,
    out: Path | str,
    config: IterativeConfig | None = None,
    *,
    seed: int = 0,
    vllm: bool = False,
    vllm_memory: float = VLLM_MEMORY,
    resume: bool = True,
) -> OnlineTrained:
    """Train a policy on pairs of its own samples (:mod:`irlbook.posttraining.iterative`).

    metrics.csv gets a row a round, numbered from 0, the start. Rounds are not kept while it runs:
    what was stopped begins again, to the same numbers.

    Raises:
        ResumeMismatchError: the folder holds a finished run, and `resume` does not replace it.
    """
    config = config or IterativeConfig()
    if resume and (Path(out) / "model").exists():
        raise ResumeMismatchError(
            f"{out} holds a finished run. Give another folder, or start over with resume=False "
            "(--restart), which replaces it."
        )
    setup = _Setup(source, config.training, config.max_new_tokens, seed)
    with setup.rewards(reward, out, resume=False) as (asked, gold):
        policy, rounds = iterate_dpo(
            setup.model,
            setup.tokenizer,
            setup.prompts,
            asked,
            config,
            seed=seed,
            gold=gold,
            sampler=setup.vllm(source, vllm_memory) if vllm else None,
        )
    rows = _rows_of_rounds(rounds, "number", Path(out))
    return OnlineTrained(rows, setup.save(policy, Path(out)), None, setup.reports)


def _rows_of_rounds(
    rounds: Sequence[RaftRound] | Sequence[Round], number: str, out: Path
) -> list[dict[str, Any]]:
    """The reports of rounds as rows, which metrics.csv gets too; their field `number` is a step."""
    rows = [
        {
            "round" if k == number else k: v
            for k, v in asdict(one).items()
            if k != "history" and v is not None
        }
        for one in rounds
    ]
    if is_main_process():
        metrics = Metrics(out, 0, tensorboard=False)
        for row in rows:
            metrics.write({"step" if k == "round" else k: v for k, v in row.items()})
        metrics.close()
    return rows


class _Setup:
    """Model, tokenizer, prompts and rewards of one run."""

    def __init__(
        self, source: Source, training: StepConfig, max_new_tokens: int, seed: int
    ) -> None:
        check_device(training.device)
        for name in ("held_out", "held_out_split", "max_length"):
            if (value := getattr(source, name)) is not None:
                raise InvalidHyperparameterError(
                    f"{name} is {value}: training on a policy's own samples takes prompts alone, "
                    "measures on them, and leaves none out for its length. Leave it out."
                )
        records = read_prompts(source.data, strict=source.strict, split=source.split)
        self.training, self.seed = training, seed
        self.reports: list[str] = [str(records.report)]
        self.max_new_tokens = max_new_tokens
        distributed.ranks(training.device)  # each process takes its GPU, and all know of all
        model = resolve(source.model)
        # The start and the reference stay as copies. Split weights must never lie on one GPU as a
        # whole for longer than it takes to split them, and what learns is split.
        device = "cpu" if training.shard else training.device
        more = 2 * 4 + (0 if source.lora or training.shard else LEARNING)
        self.model, self.tokenizer = models.load_lm(
            model, device, revision=source.revision, more=more
        )
        context = context_length(self.model)
        kept, encoded, lines = encode_prompts(
            records, self.tokenizer, max_new_tokens, context, strict=source.strict
        )
        self.longest = max(map(len, encoded)) + max_new_tokens
        self.prompts = [records[i] for i in kept]
        self.reports += [*lines, *template_note(self.tokenizer)]
        if source.lora:
            self.model = models.add_lora(self.model, rank=source.lora, seed=seed)

    def vllm(self, source: Source, memory: float) -> VLLMSampler:
        """The sampler, with the weights that the policy was loaded from and in its precision."""
        options: dict[str, Any] = {"gpu_memory_utilization": memory}
        if self.training.device == "cpu":
            options = {"enforce_eager": True}  # nothing is compiled
        if source.revision is not None:
            options["revision"] = source.revision
        return VLLMSampler(
            str(resolve(source.model)),
            dtype=self.training.precision,
            max_model_len=self.longest,
            **options,
        )

    @contextmanager
    def rewards(
        self, source: RewardSource, out: Path | str, resume: bool
    ) -> Iterator[tuple[Any, Any]]:
        """The reward and gold, with their workers while the `with` block lasts.

        The folder is claimed once both are there: one that cannot be loaded leaves no trace.
        """
        models.check_replaceable(Path(out) / "model")  # now, and not when all the work is done
        if source.ensemble != "mean" and len(source.names) == 1:
            raise InvalidHyperparameterError(
                f"ensemble is {source.ensemble}, and there is one reward: nothing to join. Leave "
                "it out, or give more reward models."
            )
        reward = self._reward(source)
        gold = None if source.gold is None else self._one_reward(source.gold)
        if source.workers and isinstance(reward, nn.Module):
            raise InvalidHyperparameterError(
                f"{source.workers} reward workers ask a function; a reward model is asked here, by "
                "every process for its share. Leave workers out."
            )
        claim_reward(Path(out), source, resume)
        if source.workers and not isinstance(reward, nn.Module):
            with in_processes(reward, source.workers) as shared:
                yield shared, gold
        else:
            yield reward, gold

    def _reward(self, source: RewardSource) -> Reward | nn.Module:
        found = [self._one_reward(name) for name in source.names]
        if len(found) == 1:
            return found[0]
        if not all(isinstance(one, nn.Module) for one in found):
            raise InvalidHyperparameterError(
                "an ensemble is made of reward models; a function stands alone. Let one function "
                "join what you want joined."
            )
        return self._ensemble(found, source.ensemble)

    def _one_reward(self, name: str) -> Reward | nn.Module:
        file, colon, function = str(name).rpartition(":")
        if colon and file.endswith(".py"):
            return FileReward(file, function)
        if str(name).endswith(".py"):
            raise InvalidHyperparameterError(
                f"{name} is a file; name the function in it, too: {name}:reward"
            )
        loaded, its = models.load_reward_model(resolve(name), self.training.device)
        if its.get_vocab() != self.tokenizer.get_vocab():
            raise TokenizerError(
                f"the reward model {name} has another tokenizer than the policy, so it cannot read "
                "its tokens. Train a reward model that starts from the policy's model, or write a "
                "function FILE.py:FUNCTION that scores texts with it."
            )
        return RewardScorer(loaded).requires_grad_(False)

    def _ensemble(self, members: list[Any], how: How, n: int = 4) -> RewardEnsemble:
        """Standardised on n samples of the start to each of 64 prompts."""
        drawn = draw(
            PolicyScorer(self.model),
            self.tokenizer,
            draw_prompts(self.prompts, 64, self.seed),
            n,
            self.training,
            seeds=int(np.random.SeedSequence([self.seed, 64]).generate_state(1)[0]),
            max_new_tokens=self.max_new_tokens,
        )
        ensemble = RewardEnsemble(members, how)
        return ensemble.standardise(drawn.groups, self.training, pad_id(self.tokenizer))

    def save(self, policy: Any, out: Path) -> Path:
        if is_main_process():
            models.save(policy, self.tokenizer, out / "model")
        return out / "model"


# What a run is a run of ---------------------------------------------------------------------------


def claim_reward(out: Path, source: RewardSource, resume: bool) -> None:
    """Write what the rewards are into out/reward.json, if no run on others has begun there.

    Rewards are told by what is in them: the source of a function, and of the modules beside it that
    it imports; the files of a reward model, and of the model that an adapter belongs to. A name
    that is no folder stands for itself.

    Raises:
        ResumeMismatchError: names the reward that is another one now.
    """
    path, names = out / "reward.json", [*source.names, *([source.gold] if source.gold else [])]
    ours = {
        "names": list(map(str, source.names)),
        "gold": source.gold,
        "ensemble": source.ensemble if len(source.names) > 1 else None,
        "content": {str(name): content_of(name) for name in names},
    }
    begun = (out / "policy.safetensors").exists() or any((out / "checkpoints").glob("step-*"))
    if resume and begun and path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if (differ := _other_reward(theirs, ours)) is not None:
            raise ResumeMismatchError(
                f"{out} holds a run on another reward: {differ}. Give another folder, or start "
                "over with resume=False (--restart), which replaces it."
            )
    if is_main_process():
        write_whole(path, lambda to: to.write_text(json.dumps(ours), encoding="utf-8"))


def _other_reward(theirs: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """How two runs' rewards differ, or None: their contents, in order, and how they are joined."""

    def told(one: dict[str, Any]) -> tuple[list[str | None], str | None]:
        content = one.get("content", {})
        said = [content.get(name) for name in one["names"]]
        return said, content.get(one["gold"]) if one["gold"] else None

    (mine, my_gold), (its, its_gold) = told(ours), told(theirs)
    changed = [
        name
        for name, now in ours["content"].items()
        if name in theirs.get("content", {}) and theirs["content"][name] != now
    ]
    if changed:
        return f"{', '.join(changed)} changed since"
    if mine != its:
        return f"it was {', '.join(theirs['names'])} and is {', '.join(ours['names'])}"
    if my_gold != its_gold:
        return f"gold was {theirs['gold']} and is {ours['gold']}"
    if theirs["ensemble"] != ours["ensemble"] and len(mine) > 1:
        return f"the ensemble was {theirs['ensemble']} and is {ours['ensemble']}"
    return None


def content_of(name: str | Path) -> str:
    """What a reward is, whatever it is called: a hash of its files, or a hub name itself."""
    file, colon, function = str(name).rpartition(":")
    if colon and file.endswith(".py"):
        return f"{source_digest(file)}:{function}"
    folder = Path(resolve(name))
    if not folder.is_dir():
        return str(name)
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix != ".md"):
        digest.update(path.name.encode())
        with open(path, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        digest.update(content_of(base).encode() if base else b"")
    return digest.hexdigest()[:16]
