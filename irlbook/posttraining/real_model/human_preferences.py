"""Reward models on preferences that people gave: frozen embeddings, two losses, and length alone.

The data are read by path and never kept: results hold numbers only. The embeddings of the pairs,
which take long, are kept in the study's folder, in chunks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from irlbook.data.benchmarks import LLMBAR_SUBSETS, read_hh_rlhf, read_llmbar
from irlbook.data.records import Preference
from irlbook.lm import models
from irlbook.lm.tokenization import encode_prompt, encode_response, pad_id
from irlbook.lm.trees import Group
from irlbook.posttraining import reward_model
from irlbook.posttraining.configs import EmbeddingConfig, RewardConfig
from irlbook.posttraining.evaluation import expected_calibration_error
from irlbook.training.checkpoints import write_whole
from irlbook.training.config import StepConfig, TrainingConfig
from irlbook.training.loop import score, train

__all__ = [
    "CHUNK",
    "FEW",
    "FEW_JUDGED",
    "FINE_TUNED",
    "LOSSES",
    "NEAR",
    "Pairs",
    "SIZES",
    "WINDOW",
    "collect",
    "embed_pairs",
    "fine_tuned",
    "fit_and_judge",
    "judge",
    "length_baseline",
    "measure_all_fine_tuned",
    "measure_fine_tuned",
    "measure_frozen",
    "measure_frozen_on_few",
    "measures",
    "near_equal",
    "read_pairs",
    "splits",
    "strength",
    "tail",
]

WINDOW = 160  # tokens of prompt and response that are read, the last ones
CHUNK = 50  # pairs that are embedded at a time, and kept
SIZES = (25, 50, 100, 200, 400, 800, 1600)
NEAR = 0.1  # two responses are of near-equal length if they differ by a tenth of the longer
LOSSES: tuple[Literal["bt", "classification"], ...] = ("bt", "classification")
FINE_TUNED = ((8, 5e-4), (None, 2e-5))  # rank of an adapter or None, learning rate
FEW = 1000  # pairs for fine-tuning: to learn from all of them would take hours on a CPU
FEW_JUDGED = 0.6  # of these: to tell models apart takes more pairs than to make one


@dataclass(frozen=True)
class Pairs:
    """P preference pairs as token ids, the preferred response first.

    Attributes:
        groups: 2 P of them, (prompt, [response]), each at most `WINDOW` tokens.
        lengths: (P, 2) tokens of the whole responses.
        asked: (P,) which prompt a pair belongs to: pairs of one prompt stay in one part of a split.
        source: (P,) which set a pair is from.
    """

    groups: list[Group]
    lengths: np.ndarray
    asked: np.ndarray
    source: np.ndarray


def tail(prompt: Sequence[int], response: Sequence[int], window: int = WINDOW) -> Group:
    """The last `window` tokens, as a group; of a long response the end, behind one token."""
    response = list(response)[-(window - 1) :]
    return list(prompt)[-(window - len(response)) :], [response]


def read_pairs(
    tokenizer: Any, records: Mapping[str, Sequence[Preference]], window: int = WINDOW
) -> Pairs:
    """Preferences of several sets as token ids; control tokens in a text stay text."""
    groups, lengths, asked, source = [], [], [], []
    seen: dict[tuple[int, ...], int] = {}
    for name, own in records.items():
        for record in own:
            prompt = encode_prompt(tokenizer, record.prompt)
            answers = [encode_response(tokenizer, y) for y in (record.chosen, record.rejected)]
            groups += [tail(prompt, y, window) for y in answers]
            lengths.append([len(y) for y in answers])
            asked.append(seen.setdefault(tuple(prompt), len(seen)))
            source.append(name)
    return Pairs(groups, np.array(lengths), np.array(asked), np.array(source))


def embed_pairs(
    model: Any, pairs: Pairs, config: StepConfig, pad: int, cache: Path | None = None
) -> Tensor:
    """(P, 2, 2 H) last and mean embeddings, in chunks that are kept in `cache`."""
    parts = []
    for start in range(0, len(pairs.lengths), CHUNK):
        own = pairs.groups[2 * start : 2 * (start + CHUNK)]
        path = None
        if cache is not None:
            ids = hashlib.sha256(json.dumps(own).encode()).hexdigest()[:16]
            path = cache / f"embeddings-{ids}.safetensors"
            if path.is_file():
                parts.append(load_file(path)["both"])
                continue
        found = score(reward_model.Embedder(model, "both"), own, 1, config, pad).float()
        found = found.view(len(own) // 2, 2, -1).contiguous()
        if path is not None:
            write_whole(path, lambda to, x=found: save_file({"both": x}, to))  # type: ignore[misc]
        parts.append(found)
    return torch.cat(parts)


def splits(asked: np.ndarray, count: int, seed: int, held_out: float = 0.2) -> list[np.ndarray]:
    """`count` random masks (P,) of the pairs that are held out, whole prompts each.

    Args:
        asked: (P,) the prompt of each pair.
    """
    found = []
    for k in range(count):
        order = np.random.default_rng([seed, k]).permutation(np.unique(asked))
        sizes = np.array([(asked == prompt).sum() for prompt in order])
        chosen = order[np.cumsum(sizes) <= held_out * len(asked)]
        found.append(np.isin(asked, chosen))
    return found


def strength(c: float, pairs: int) -> float:
    """`EmbeddingConfig.l2`, which is for a mean of losses, for a C that is for their sum."""
    return 1.0 / (c * pairs)


def measures(rewards: np.ndarray) -> dict[str, float]:
    """Accuracy (a tie is half), expected calibration error and mean loss in nats of (P, 2)."""
    margin = rewards[:, 0] - rewards[:, 1]
    return {
        "accuracy": _accuracy(rewards),
        "calibration_error": expected_calibration_error(rewards),
        "loss": float(np.logaddexp(0, -margin).mean()),
    }


def _accuracy(rewards: np.ndarray) -> float:
    """Share of (P, 2) in the right order; NaN of no pairs."""
    if not len(rewards):
        return math.nan
    return float((np.sign(rewards[:, 0] - rewards[:, 1]).mean() + 1) / 2)


def length_baseline(lengths: np.ndarray) -> float:
    """How often the shorter response is the preferred one; ties count half, none are NaN."""
    if not len(lengths):
        return math.nan
    return float((np.sign(lengths[:, 1] - lengths[:, 0]).mean() + 1) / 2)


def near_equal(lengths: np.ndarray, near: float = NEAR) -> np.ndarray:
    """(P,) pairs whose responses differ in length by at most `near` of the longer."""
    return np.abs(lengths[:, 0] - lengths[:, 1]) <= near * lengths.max(1)


def fit_and_judge(
    train_on: Tensor,
    judged: Tensor,
    loss: Literal["bt", "classification"],
    c: float = 1e-4,
) -> np.ndarray:
    """(Q, 2) rewards of `judged` (Q, 2, H) by a linear head fitted to `train_on` (P, 2, H)."""
    config = EmbeddingConfig(loss=loss, l2=strength(c, len(train_on)))
    (head,) = reward_model.fit_embedding_reward(train_on.double(), config)
    with torch.no_grad():
        return head(judged.double()).numpy()


def judge(
    found: Tensor, lengths: np.ndarray, asked: np.ndarray, *, count: int = 10, c: float = 1e-4
) -> dict[str, Any]:
    """Heads on frozen embeddings over splits: every measure a list with a number for each split.

    Args:
        found: (P, 2, 2 H), last beside mean. lengths: (P, 2). asked: (P,).
        count: splits. c: sklearn's C; small is strong.
    """
    width = found.shape[2] // 2
    inputs = {"last": found[..., :width], "mean": found[..., width:], "both": found}
    near = near_equal(lengths)
    result: dict[str, Any] = {"heads": {}, "curve": {}, "shorter": [], "shorter_near": []}
    result |= {"pairs": len(lengths), "near_equal": int(near.sum()), "c": c}
    masks = splits(asked, count, 23)
    for mask in masks:
        result["shorter"].append(length_baseline(lengths[mask]))
        result["shorter_near"].append(length_baseline(lengths[mask & near]))
    for loss in LOSSES:
        for name, x in inputs.items():
            rows: dict[str, list[float]] = {}
            for mask in masks:
                rewards = fit_and_judge(x[~mask], x[mask], loss, c)
                own = measures(rewards)
                own["accuracy_near"] = _accuracy(rewards[near[mask]])
                for key, value in own.items():
                    rows.setdefault(key, []).append(value)
            result["heads"][f"{loss}, {name}"] = rows
    for size in SIZES:
        rows = {}
        for k, mask in enumerate(masks):
            own_pairs = np.flatnonzero(~mask)
            if len(own_pairs) < size:
                continue
            drawn = np.random.default_rng([23, k, size]).choice(own_pairs, size, replace=False)
            rewards = fit_and_judge(found[torch.as_tensor(drawn)], found[mask], "bt", c)
            for key, value in measures(rewards).items():
                rows.setdefault(key, []).append(value)
        if rows:
            result["curve"][str(size)] = rows
    result["strengths"] = {}
    for other in (1e-5, 1e-3, 1e-2, 1e-1):
        said = [measures(fit_and_judge(found[~m], found[m], "bt", other)) for m in masks]
        result["strengths"][str(other)] = {
            key: [row[key] for row in said] for key in ("accuracy", "calibration_error", "loss")
        }
    return result


def fine_tuned(
    folder: Path,
    pairs: Pairs,
    mask: np.ndarray,
    config: TrainingConfig,
    lora: int | None,
    out: Path | None = None,
) -> dict[str, Any]:
    """A Bradley–Terry reward model fine-tuned on the pairs outside `mask`, judged on those in it.

    Args:
        lora: rank of an adapter, or None: all weights.
        out: a folder for checkpoints.
    """
    model, tokenizer = models.load_reward_model(
        folder, config.device, new_head=True, seed=config.seed
    )
    trained = model
    if lora:
        trained = models.add_lora(model, rank=lora, task="SEQ_CLS", seed=config.seed)
        model = trained.get_base_model()
    scorer = reward_model.RewardScorer(model)
    groups = [_side_by_side(pairs.groups[2 * i], pairs.groups[2 * i + 1]) for i in range(len(mask))]
    learn, judged = ([groups[i] for i in np.flatnonzero(own)] for own in (~mask, mask))
    pad = pad_id(tokenizer)
    result = train(
        scorer, learn, reward_model.objective(RewardConfig()), config, pad_id=pad, out=out
    )
    rewards = score(scorer, judged, 2, config, pad).double().numpy()
    return _judge_few(rewards) | {"loss_by_step": [round(x, 4) for x in result.column("loss")]}


def _side_by_side(a: Group, b: Group) -> Group:
    """One group of two tails of one prompt, behind the shorter of what they kept of it."""
    return min(a[0], b[0], key=len), [a[1][0], b[1][0]]


# The jobs -----------------------------------------------------------------------------------------


def _records(data: Path, pairs: int, subset: int = 40) -> dict[str, dict[str, list[Preference]]]:
    """Which pairs of which sets are used, chosen by a seed."""
    rng = np.random.default_rng(2312)
    hh = list(read_hh_rlhf(data / "hh_harmless_test", strict=False))
    chosen = sorted(rng.permutation(len(hh))[:pairs].tolist())
    found = {"hh": {"hh_harmless_test": [hh[i] for i in chosen]}, "llmbar": {}}
    for name in LLMBAR_SUBSETS:
        own = list(read_llmbar(data / "llmbar", subset=name))
        kept = sorted(rng.permutation(len(own))[:subset].tolist())
        found["llmbar"][name] = [own[i] for i in kept]
    return found


def _settings(study: Any, pairs: int) -> dict[str, Any]:
    return {"pairs": pairs, "window": WINDOW, "machine": study.machine}


def measure_frozen(study: Any) -> dict[str, Any]:
    """Both sets: read, embed, judge; and how a head of the one orders the other."""

    def compute() -> dict[str, Any]:
        model, tokenizer = study.loaded
        pad = pad_id(tokenizer)
        embedded: dict[str, tuple[Pairs, Tensor]] = {}
        for name, records in _records(study.data, study.pairs).items():
            pairs = read_pairs(tokenizer, records)
            found = embed_pairs(model, pairs, study.task.machine, pad, study.work / "embeddings")
            embedded[name] = (pairs, found)
        result = {name: judge(x, p.lengths, p.asked) for name, (p, x) in embedded.items()}
        _, hh = embedded["hh"]
        bar, found = embedded["llmbar"]
        rewards = fit_and_judge(hh, found, "bt")
        transfer = {}
        for name in LLMBAR_SUBSETS:
            own = bar.source == name
            transfer[name] = {
                "pairs": int(own.sum()),
                "head_of_hh": measures(rewards[own])["accuracy"],
                "shorter": length_baseline(bar.lengths[own]),
            }
        result["llmbar"]["subsets"] = transfer
        return result

    return study.job("rewards", _settings(study, study.pairs), compute)


def _judge_few(rewards: np.ndarray) -> dict[str, Any]:
    """`measures` of (P, 2), and the order of each pair, so that models can be compared by pair."""
    return measures(rewards) | {"judged": len(rewards), "order": _order(rewards)}


def _order(rewards: np.ndarray) -> list[int]:
    """For each of (P, 2): 1 if the preferred response has more, -1 if less, 0 if as much."""
    return np.sign(rewards[:, 0] - rewards[:, 1]).astype(int).tolist()


def _few_mask(pairs: Pairs) -> np.ndarray:
    """(P,) which of the few pairs are judged and not learned from."""
    return splits(pairs.asked, 1, 23, FEW_JUDGED)[0]


def measure_frozen_on_few(study: Any) -> dict[str, Any]:
    """A head on frozen embeddings, from the pairs and the split of the fine-tuned ones."""

    def compute() -> dict[str, Any]:
        model, tokenizer = study.loaded
        pairs = read_pairs(tokenizer, _records(study.data, FEW)["hh"])
        cache = study.work / "embeddings"
        found = embed_pairs(model, pairs, study.task.machine, pad_id(tokenizer), cache)
        mask = _few_mask(pairs)
        told = _judge_few(fit_and_judge(found[~mask], found[mask], "bt"))
        shorter = -pairs.lengths[mask]
        rule = {"accuracy": _accuracy(shorter), "order": _order(shorter)}
        return told | {"learned": int((~mask).sum()), "shorter": rule}

    return study.job(_FROZEN_ON_FEW, _settings(study, FEW), compute)


def measure_fine_tuned(study: Any, lora: int | None, learning_rate: float) -> dict[str, Any]:
    """A fine-tuned reward model on the first split of the HH pairs."""
    settings = _settings(study, FEW) | {"lora": lora, "learning_rate": learning_rate}
    name = _name(lora)
    kept = study.found(name, settings)
    if kept is not None:
        return kept
    _, tokenizer = study.loaded
    pairs = read_pairs(tokenizer, _records(study.data, FEW)["hh"])
    mask = _few_mask(pairs)
    aside = study.path(name, settings).with_suffix(".run")
    config = TrainingConfig(
        **asdict(study.task.machine)
        | {"learning_rate": learning_rate, "warmup": 0.1, "checkpoint_every": 10, "keep": 1},
        batch_size=8,
    )
    return study.job(
        name, settings, lambda: fine_tuned(study.folder, pairs, mask, config, lora, aside)
    )


def measure_all_fine_tuned(study: Any) -> None:
    """Both ways of fine-tuning, and the frozen embeddings that they are held against."""
    measure_frozen_on_few(study)
    for lora, rate in FINE_TUNED:
        measure_fine_tuned(study, lora, rate)


def collect(study: Any) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """What is there of these jobs: results, records of the jobs, and which are missing.

    A result of `study.earlier` stands where the job was not run again.
    """
    few = _settings(study, FEW)
    jobs = {
        "frozen": ("rewards", _settings(study, study.pairs)),
        _FROZEN_ON_FEW: (_FROZEN_ON_FEW, few),
    }
    for lora, rate in FINE_TUNED:
        name = _name(lora)
        jobs[name] = (name, few | {"lora": lora, "learning_rate": rate})
    found = {key: study.found(*job) for key, job in jobs.items()}
    there = {key: record for key, record in found.items() if record is not None}
    results = {k: v for k, v in study.earlier.get("rewards", {}).items() if k in jobs}
    results |= {key: record["result"] for key, record in there.items()}
    absent = [key if key != "frozen" else "rewards" for key in jobs if key not in results]
    return results, list(there.values()), absent


_FROZEN_ON_FEW = "frozen, few pairs"


def _name(lora: int | None) -> str:
    return f"fine-tuned {'all weights' if lora is None else f'lora {lora}'}"
