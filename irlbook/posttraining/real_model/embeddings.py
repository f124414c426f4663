"""What chapter 16 asks of a real model: features of its responses, to choose comparisons by.

    python -m irlbook.posttraining.real_model.embeddings --model FOLDER
    python -m irlbook.posttraining.real_model.embeddings --model FOLDER --check

The responses are those that judge the policies of chapter 23: samples of the model to the held-out
prompts of the sentiment task, whose token ids ship with the book. Their embeddings are reduced by
principal components that were fitted to samples to *other* prompts, the training prompts of the
task. On those, too, the settings of the experiment are tried, with random choice alone:

    features   of the held-out responses, with their gold
    trials     curves of random choice on the training prompts, for each setting
    card       which weights, and how it was done

`--check` makes the features anew and compares the distances between the responses to a prompt.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from irlbook.errors import ResumeMismatchError, ShapeError, as_command
from irlbook.lm import models
from irlbook.lm.tokenization import pad_id
from irlbook.posttraining.real_model import sentiment, study
from irlbook.posttraining.real_model.policies import Pool, Task, draw_pool
from irlbook.posttraining.reward_model import Embedder
from irlbook.posttraining.stored_runs import RESULTS, StoredRuns, bundle, read_stored
from irlbook.preferences.acquisition import PreferencePool, pairs_within, run_active
from irlbook.preferences.principal_rewards import principal_rewards
from irlbook.training.loop import score

__all__ = [
    "EmbeddingSettings",
    "EmbeddingStudy",
    "JOBS",
    "LEAST_AGREEMENT",
    "STORED",
    "agreement",
    "distances",
    "linear_share",
    "load",
    "main",
    "make_features",
    "reduce",
    "split_pool",
    "with_linear_gold",
]

STORED = RESULTS / "real_embeddings.json"
JOBS = ("card", "features", "trials")
LEAST_AGREEMENT = 0.985  # halves of the samples that components are fitted to give 0.989


@dataclass(frozen=True)
class EmbeddingSettings:
    """What was fixed, and what was tried on the training prompts.

    Attributes:
        components: K of the features that ship. l2: precision of the prior.
        budget, batch: labels in all, and between two fits.
        tried_components, tried_l2: of the trials. trials: seeds of each.
        draws: seed of the samples to the training prompts.
    """

    components: int = 32
    l2: float = 0.1
    budget: int = 300
    batch: int = 20
    tried_components: tuple[int, ...] = (16, 32, 64, 128)
    tried_l2: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    trials: int = 8
    draws: int = 5


def reduce(rows: Any, fitted_to: Any, components: int) -> tuple[np.ndarray, float]:
    """Principal components of embeddings, fitted to other rows, which also set centre and scale.

    Args:
        rows: (..., H). fitted_to: (N, H) other rows. components: K.

    Returns:
        (..., K) projections of the standardised rows, divided by sqrt(H), so that the squared
        length of a row like those that were fitted is at most 1 on average; and the share of the
        variance of `fitted_to` that the components hold.

    Raises:
        ShapeError: rows of another length.
        InvalidHyperparameterError: more components than the rows have entries.
    """
    x, other = np.asarray(rows, dtype=float), np.asarray(fitted_to, dtype=float)
    if other.ndim != 2 or x.shape[-1] != other.shape[1]:
        raise ShapeError(f"rows {x.shape} and those of the fit {other.shape} must be alike.")
    centre, spread = other.mean(axis=0), other.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    found = principal_rewards((other - centre) / spread, components, sign="raw")
    held = float(found.variances.sum() / other.shape[1])
    return (x - centre) / spread @ found.directions.T / np.sqrt(x.shape[-1]), held


def split_pool(features: Any, gold: Any, seed: int) -> PreferencePool:
    """Half of the prompts to ask about, drawn with the seed; the others test.

    Args:
        features: (prompts, responses, K). gold: (prompts, responses), in log-odds of a label.
    """
    phi, g = np.asarray(features, dtype=float), np.asarray(gold, dtype=float)
    order = np.random.default_rng([16, seed]).permutation(len(g))
    ask, test = order[: len(g) // 2], order[len(g) // 2 :]
    return PreferencePool(phi[ask], g[ask], phi[test], g[test])


def with_linear_gold(pool: PreferencePool) -> PreferencePool:
    """The pool with the part of its gold within prompts that is linear in its features.

    Least squares of gold on features over all prompts, those of the test as well, both less their
    means over a prompt's responses; the fitted values are blown up to gold's spread. With this gold
    a linear reward is right, and labels are about as noisy as before.
    """
    phi = np.concatenate([pool.features, pool.test_features])
    gold = np.concatenate([pool.gold, pool.test_gold])
    fitted = _linear_part(phi, gold)
    own = gold - gold.mean(axis=1, keepdims=True)
    new = fitted * own.std() / fitted.std()
    ask = len(pool.gold)
    return PreferencePool(pool.features, new[:ask], pool.test_features, new[ask:])


def linear_share(features: Any, gold: Any) -> float:
    """Share of the variance of gold within prompts that is linear in the features (R squared).

    Args:
        features: (prompts, responses, K). gold: (prompts, responses).
    """
    phi, g = np.asarray(features, dtype=float), np.asarray(gold, dtype=float)
    return float(_linear_part(phi, g).var() / (g - g.mean(axis=1, keepdims=True)).var())


def _linear_part(phi: np.ndarray, gold: np.ndarray) -> np.ndarray:
    x, y = (v - v.mean(axis=1, keepdims=True) for v in (phi, gold))
    return np.asarray(x @ np.linalg.lstsq(x.reshape(-1, x.shape[-1]), y.reshape(-1))[0])


def distances(features: Any) -> np.ndarray:
    """(prompts, pairs) distances between the responses to each prompt; (prompts, responses, K)."""
    phi = np.asarray(features, dtype=float)
    i, j = np.triu_indices(phi.shape[1], 1)
    return np.linalg.norm(phi[:, i] - phi[:, j], axis=-1)


def _rank_within(said: np.ndarray, gold: np.ndarray) -> float:
    """Mean rank correlation over the prompts whose gold differs; (P, n) each."""
    rows = zip(said, gold, strict=True)
    return float(np.mean([spearmanr(r, g).statistic for r, g in rows if np.ptp(g) > 0]))


class EmbeddingStudy:
    """A model, the pool that judges, and what is made of them; each when it is first asked for."""

    def __init__(
        self,
        folder: Path | str,
        pool: Pool,
        settings: EmbeddingSettings | None = None,
        task: Task | None = None,
    ) -> None:
        self.folder, self.pool = Path(folder), pool
        self.settings, self.task = settings or EmbeddingSettings(), task or Task()

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer."""
        model, tokenizer = models.load_lm(self.folder, self.task.device)
        return model.eval(), tokenizer

    def embeddings(self, pool: Pool) -> np.ndarray:
        """(P, n, 2 H) of a pool's responses: last token and mean over tokens side by side."""
        model, tokenizer = self.loaded
        n = pool.gold.shape[1]
        found = score(Embedder(model, "both"), pool.groups, n, self.task.machine, pad_id(tokenizer))
        return np.asarray(found.double().numpy())

    @cached_property
    def training(self) -> tuple[np.ndarray, np.ndarray]:
        """(36, 12, 2 H) embeddings of samples to the training prompts, and their gold."""
        task = self.task
        drawn = draw_pool(*self.loaded, task.prompts, task.train_samples, task, self.settings.draws)
        return self.embeddings(drawn), drawn.gold

    @property
    def training_rows(self) -> np.ndarray:
        """(36 * 12, 2 H), what the components are fitted to."""
        x = self.training[0]
        return x.reshape(-1, x.shape[-1])

    def card(self) -> dict[str, Any]:
        """Which weights and which samples."""
        known = self.folder / "card.json"  # what `irlbook models import` leaves
        made = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
        return {
            "weights_sha256": study.weights_digest(self.folder),
            "import": made,
            "pool_sha256": self.pool.digest,
            "task": self.task.settings(),
            "embedding": "hidden states of the last layer: last token, mean over tokens",
            "reduction": "standardised; principal components of samples to the training prompts",
        }

    def features(self) -> dict[str, Any]:
        """Of the responses that judge, with their gold."""
        phi, held = reduce(self.embeddings(self.pool), self.training_rows, self.settings.components)
        return {"features": phi, "gold": self.pool.gold, "variance_held": held}

    def trials(self) -> dict[str, Any]:
        """Mean curves of random choice on the training prompts, half of them held out.

        Components are fitted to the half that is asked about. "linear" is the chosen setting with
        a gold that is linear in the features.
        """
        found = [self._trials_of(seed) for seed in range(self.settings.trials)]
        return {name: np.mean([curves[name] for curves in found], axis=0) for name in found[0]}

    def _trials_of(self, seed: int) -> dict[str, np.ndarray]:
        s, (x, gold) = self.settings, self.training
        own = split_pool(x, sentiment.LABEL_SCALE * gold, seed)
        rows = own.features.reshape(-1, x.shape[-1])
        ask, test = (
            reduce(v, rows, max(s.tried_components))[0] for v in (own.features, own.test_features)
        )

        def curve(pool: PreferencePool, l2: float) -> np.ndarray:
            return run_active(
                pool,
                pairs_within(*pool.gold.shape),
                "random",
                np.random.default_rng([1, seed]),
                measure=_rank_within,
                budget=s.budget,
                batch=s.batch,
                l2=l2,
            ).measured

        pools = {
            k: PreferencePool(ask[..., :k], own.gold, test[..., :k], own.test_gold)
            for k in (*s.tried_components, s.components)
        }
        found = {
            f"{k}, {l2:g}": curve(pools[k], l2) for k in s.tried_components for l2 in s.tried_l2
        }
        return found | {"linear": curve(with_linear_gold(pools[s.components]), s.l2)}

    def do(self, job: str) -> dict[str, Any]:
        """One of `JOBS`."""
        return {"card": self.card, "features": self.features, "trials": self.trials}[job]()


def make_features(
    made_of: EmbeddingStudy, *, parts: Path | str, out: Path | str = STORED
) -> dict[str, Any]:
    """Every job, each kept in `parts` when it is done; then all as one file."""
    runs = StoredRuns(STORED.stem, asdict(made_of.settings), parts=parts)
    for job in JOBS:
        runs.get(job, 0, partial(made_of.do, job))
        print(job, file=sys.stderr, flush=True)
    return bundle(parts, out)


def load(path: Path | str = STORED) -> dict[str, Any]:
    """The stored result: settings, made_with, cpu_seconds, and the record of each job.

    Raises:
        DataNotFoundError: there is none, or it cannot be read.
    """
    found = read_stored(path, "python -m irlbook.posttraining.real_model.embeddings --model FOLDER")
    return found | {"runs": {job: seeds["0"] for job, seeds in found["runs"].items()}}


def agreement(made: Mapping[str, Any], stored: Mapping[str, Any]) -> float:
    """Correlation of the distances within prompts of two sets of features.

    Components turn and change sign where two variances are close; distances do not.
    """
    a, b = (distances(one["features"]).reshape(-1) for one in (made, stored))
    return float(np.corrcoef(a, b)[0, 1])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.posttraining.real_model.embeddings",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the chat model")
    parser.add_argument("--out", type=Path, default=STORED)
    parser.add_argument("--parts", type=Path, help="folder of the jobs that are done")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--check", action="store_true", help="make the features anew, compare")
    given = parser.parse_args(arguments)
    judges = study.load()
    if judges["card"]["weights_sha256"] != study.weights_digest(given.model):
        raise ResumeMismatchError(
            f"{given.model} holds other weights than those whose samples ship with the book."
        )
    made_of = EmbeddingStudy(
        given.model,
        Pool.from_json(judges["policies"]["pool"]),
        task=replace(Task(), device=given.device),
    )
    if given.check:
        near = agreement(made_of.features(), load(given.out)["runs"]["features"])
        print(f"correlation of distances with the stored ones: {near:.4f}")
        return int(not near > LEAST_AGREEMENT)
    parts = given.parts or given.out.with_suffix(".parts")
    found = make_features(made_of, parts=parts, out=given.out)
    print(f"{given.out}: {found['cpu_seconds']} CPU-seconds")
    return 0


if __name__ == "__main__":
    raise SystemExit(as_command(main))
