"""The language models that the chapters start from: SFT on the reviews world, a model a seed.

A chapter that repeats an experiment over seeds needs several starting points, and each takes two
minutes to train on one core: more than a chapter may last. So five of them ship with the package
(0.6 MB each), and this file is how they were made:

    irlbook models train OUT --seed 0

The seed sets everything: demonstrations, first weights, order. The tokenizer alone is shared, so
that the five can be compared token by token.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from irlbook import data
from irlbook.errors import FolderInUseError, ModelNotFoundError
from irlbook.lm import models, tokenization
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.sampling import sample
from irlbook.posttraining import pipeline, sft
from irlbook.profiles import Profile
from irlbook.tasks import reviews
from irlbook.training.config import TrainingConfig
from irlbook.training.loop import evaluate_objective, train

__all__ = [
    "DEMONSTRATIONS",
    "FINE_TUNING",
    "Recipe",
    "SEEDS",
    "SHIPPED",
    "build",
    "folder",
    "gold_of_samples",
    "load",
    "short_run",
    "tokenizer",
    "write_world",
]

SEEDS = (0, 1, 2, 3, 4)
DEMONSTRATIONS = 20_000  # and the settings, for the fine-tuning of the profile's model
FINE_TUNING: dict[str, Any] = {"steps": 600, "learning_rate": 1e-4}
SHIPPED = Path(__file__).resolve().parent.parent / "pretrained"


@dataclass(frozen=True)
class Recipe:
    """How a starting point is made."""

    demonstrations: int = 40_000  # by the unreliable reviewer
    held_out: int = 512  # more of them, for the loss that is reported
    vocabulary: int = 640  # at most; the world's words need fewer, and most become one token
    tokenizer_texts: int = 4_000  # prompts and responses that the merges are learned from
    steps: int = 3_000
    batch_size: int = 32
    learning_rate: float = 4e-3


def folder(seed: int = 0, profile: Profile | None = None) -> Path:
    """The folder of a starting point; `load_lm` and `pipeline.Source` take it as a name.

    With a model in the profile, that model is fine-tuned on the reviewer's demonstrations first,
    once, and kept in the profile's cache. A run that was killed goes on.

    Raises:
        ModelNotFoundError: there is no shipped model of this seed.
    """
    if profile is not None and profile.model is not None:
        return _fine_tuned(seed, profile, profile.model)
    here = SHIPPED / f"reviews-{seed}"
    if not (here / "config.json").exists():
        raise ModelNotFoundError(
            f"no model of seed {seed} ships with the book; take one of {SEEDS}, or make it: "
            f"irlbook models train FOLDER --seed {seed}"
        )
    return here


def load(seed: int = 0, profile: Profile | None = None) -> tuple[Any, PreTrainedTokenizerBase]:
    """A fresh copy of a starting point in float32, and its tokenizer."""
    return models.load_lm(folder(seed, profile), "cpu" if profile is None else profile.device)


def tokenizer(recipe: Recipe | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that all seeds share."""
    recipe = recipe or Recipe()
    shown = reviews.demonstrations(recipe.tokenizer_texts, np.random.default_rng(0))
    return tokenization.train_tokenizer(
        [f"{d.prompt} {d.response}" for d in shown], recipe.vocabulary
    )


def build(
    seed: int, out: Path | str, recipe: Recipe | None = None, *, progress: bool = True
) -> dict[str, Any]:
    """Train the starting point of one seed and save it in `out`, weights in half precision.

    Returns:
        The card, also written to `out/card.json`: recipe, losses, gold of its samples.
    """
    recipe = recipe or Recipe()
    model, tokens, losses, held_out_loss = _train(seed, recipe, progress)
    model = model.half()
    card = {
        "world": "reviews",
        "seed": seed,
        "recipe": asdict(recipe),
        "loss": {str(step): round(float(losses[step]), 4) for step in range(0, len(losses), 100)},
        "short_run": short_run(seed, recipe),
        "held_out_loss": round(held_out_loss, 4),  # nats a token
        **gold_of_samples(copy.deepcopy(model).float(), tokens, seed),
    }
    models.save(model, tokens, out, card)
    return card


def short_run(seed: int, recipe: Recipe | None = None, steps: int = 20) -> list[float]:
    """Losses of a run of a few steps: a cheap check that a machine repeats a shipped model."""
    short = replace(recipe or Recipe(), demonstrations=2_000, steps=steps)
    return [round(float(loss), 4) for loss in _train(seed, short, progress=False)[2]]


def _train(seed: int, recipe: Recipe, progress: bool) -> tuple[Any, Any, list[float], float]:
    """(model, tokenizer, the loss of each step, the loss on held-out demonstrations)."""
    tokens = tokenizer(recipe)
    shown = reviews.demonstrations(
        recipe.held_out + recipe.demonstrations, np.random.default_rng([seed, 1])
    )
    coded = pipeline.encode(shown, tokens, 512).groups
    held_out, coded = coded[: recipe.held_out], coded[recipe.held_out :]
    model = models.tiny_lm(tokens, seed=seed)
    scorer, objective = ResponseScorer(model), sft.objective(coded)
    config = TrainingConfig(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        seed=seed,
        progress=progress,
    )
    pad = tokenization.pad_id(tokens)
    result = train(scorer, coded, objective, config, pad_id=pad)
    measured = evaluate_objective(scorer, held_out, objective, config, pad_id=pad)()
    return model, tokens, list(result.column("loss")), measured["held_out_loss"]


def write_world(out: Path | str, seed: int = 0, pairs: int = 1_500) -> list[Path]:
    """A folder to try the commands on: a starting point and files of the reviews world.

    Args:
        out: a new or empty folder.
        pairs: preferences to write; a third as many more are held out.

    Returns:
        what was written: model, demonstrations, preferences, held-out preferences, and gold.py, the
        world's true reward as a function `gold(prompts, responses)`.

    Raises:
        FolderInUseError: `out` holds something already.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FolderInUseError(f"{out} is not an empty folder; it stays as it is. Give another.")
    model, tokens = load(seed)
    rng = np.random.default_rng([seed, 3])
    return [
        models.save(model, tokens, out / "model"),
        data.write_demonstrations(
            out / "demonstrations.jsonl", reviews.demonstrations(4 * pairs, rng)
        ),
        data.write_preferences(out / "preferences.jsonl", reviews.preferences(pairs, rng)),
        data.write_preferences(
            out / "held_out.jsonl", reviews.preferences(max(1, pairs // 3), rng)
        ),
        _write_gold(out / "gold.py"),
    ]


def _write_gold(path: Path) -> Path:
    path.write_text(
        '"""The true reward of the reviews world: to be measured by, not trained on."""\n\n'
        "from irlbook.tasks import reviews\n\n\n"
        "def gold(prompts, responses):\n"
        "    return [reviews.gold(x, y) for x, y in zip(prompts, responses, strict=True)]\n",
        encoding="utf-8",
    )
    return path


@torch.no_grad()
def gold_of_samples(
    model: Any, tokens: PreTrainedTokenizerBase, seed: int = 0, n: int = 512
) -> dict[str, float]:
    """Mean gold reward of n samples at temperature 1, its standard error, and the share ended."""
    prompts = reviews.sample_prompts(n, np.random.default_rng([seed, 2]))
    drawn = sample(
        model,
        [tokenization.encode_prompt(tokens, prompt) for prompt in prompts],
        max_new_tokens=80,
        stop_ids=tokenization.stop_ids(tokens),
        seeds=seed,
    )
    golds = [
        reviews.gold(prompt, tokenization.decode(tokens, answer))
        for prompt, answer in zip(prompts, drawn.responses, strict=True)
    ]
    return {
        "gold": round(float(np.mean(golds)), 3),
        "gold_se": round(float(np.std(golds) / n**0.5), 3),
        "ended": round(float(np.mean(drawn.ended)), 3),
    }


def _fine_tuned(seed: int, profile: Profile, model: str) -> Path:
    """The profile's model after SFT on the world's demonstrations, kept in the cache."""
    out = profile.cache / f"{Path(model).name}-{_digest(model)}" / f"reviews-{seed}"
    if (out / "model" / "config.json").exists():
        return out / "model"
    shown = reviews.demonstrations(DEMONSTRATIONS, np.random.default_rng([seed, 1]))
    config = TrainingConfig(
        **FINE_TUNING, seed=seed, device=profile.device, precision=profile.precision
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "demonstrations.jsonl"
        data.write_demonstrations(path, shown)
        return pipeline.train_sft(pipeline.Source(model, path), out, config).model


def _digest(model: str) -> str:
    """What tells one start from another in the cache: a folder's bytes, a name, and the recipe."""
    digest = hashlib.sha256(json.dumps([DEMONSTRATIONS, FINE_TUNING]).encode())
    if Path(model).is_dir():  # another model in the same folder is another model
        for path in sorted(path for path in Path(model).iterdir() if path.is_file()):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    else:
        digest.update(model.encode())
    return digest.hexdigest()[:12]
