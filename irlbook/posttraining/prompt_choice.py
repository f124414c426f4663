"""Which prompt for which question? An offline reward model of (question, prompt), and its limits.

The table of who was right, questions by prompts, was left over from benchmarking. Prompt-OIRL (Sun,
Huyuk and van der Schaar 2023, 2309.06553) learns from it the chance that a prompt leads to the
right answer, and asks each new question with the prompt of the highest chance. Three numbers
belong together: the best prompt on average, the best prompt by the model, and the *headroom*, the
share of questions that any prompt solves.

The headroom promises too much. Six tries have more luck than one. `fit_no_interaction` fits a
model in which every question has the *same* order of prompts, so that choosing by question gains
nothing, and says what headroom that model has.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import expit
from torch.nn.functional import binary_cross_entropy_with_logits

from irlbook.errors import ShapeError, UninformativeDataError

__all__ = [
    "NoInteraction",
    "PromptChoice",
    "PromptReward",
    "choose_prompts",
    "fit_no_interaction",
    "fit_prompt_reward",
    "question_features",
]

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?|[$%/]")


def question_features(texts: Sequence[str], buckets: int = 1024) -> np.ndarray:
    """(N, buckets + 3) log counts of hashed words and pairs of words of each text, and three sizes.

    A number counts as one and the same word. The sizes are the logarithm of the words, the numbers
    and the full stops. The hash is the same on every machine.
    """
    found = np.zeros((len(texts), buckets + 3))
    for row, text in zip(found, texts, strict=True):
        words = ["<n>" if w[0].isdigit() else w for w in _WORD.findall(text.lower())]
        for word in [*words, *(f"{a}_{b}" for a, b in zip(words, words[1:], strict=False))]:
            row[zlib.crc32(word.encode()) % buckets] += 1
        row[:buckets] = np.log1p(row[:buckets])
        row[buckets:] = [np.log(max(1, len(words))), words.count("<n>"), text.count(".")]
    return found


@dataclass(frozen=True)
class PromptReward:
    """log-odds of prompt p at question x: constant[p] + weights[:, p] . (x - centre) / scale."""

    centre: np.ndarray
    scale: np.ndarray
    constant: np.ndarray
    weights: np.ndarray

    def chances(self, features: ArrayLike) -> np.ndarray:
        """(N, P)"""
        x = (np.asarray(features, dtype=float) - self.centre) / self.scale
        return expit(self.constant + x @ self.weights)


def fit_prompt_reward(features: ArrayLike, right: ArrayLike, l2: float = 0.1) -> PromptReward:
    """The reward model: for each prompt a logistic regression on the question.

    Args:
        features: (N, F). right: (N, P), 0 or 1. l2: half of it times the squared weights is added
            to the mean loss; features are brought to variance 1 first.

    Raises: ShapeError.
    """
    x, y = np.asarray(features, dtype=float), np.asarray(right, dtype=float)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ShapeError(f"features have shape {x.shape} and right {y.shape}; one row a question.")
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    inputs, labels = torch.as_tensor((x - centre) / scale), torch.as_tensor(y)
    constant = torch.zeros(y.shape[1], dtype=torch.float64, requires_grad=True)
    weights = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [constant, weights], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(constant + inputs @ weights, labels)
        loss = loss + l2 / 2 * weights.square().sum() / y.shape[1]
        loss.backward()
        return loss

    optimizer.step(closure)
    return PromptReward(centre, scale, constant.detach().numpy(), weights.detach().numpy())


class PromptChoice(NamedTuple):
    """Shares of questions answered rightly: by the prompt that a model chose for each, by the best
    prompt on average, and by any prompt."""

    by_question: float
    on_average: float
    any_prompt: float


def choose_prompts(chances: ArrayLike, right: ArrayLike, average: int) -> PromptChoice:
    """How three choosers fare on held-out questions.

    Args:
        chances: (N, P) as a reward model sees them. right: (N, P). average: the prompt that was
            best on the questions that the model learned from, and not on these.

    Raises: ShapeError.
    """
    c, y = np.asarray(chances), np.asarray(right, dtype=bool)
    if c.shape != y.shape or c.ndim != 2 or not 0 <= average < y.shape[1]:
        raise ShapeError(
            f"chances have shape {c.shape}, right {y.shape}, and the prompt is {average}."
        )
    own = y[np.arange(len(y)), c.argmax(axis=1)].mean()
    return PromptChoice(float(own), float(y[:, average].mean()), float(y.any(axis=1).mean()))


@dataclass(frozen=True)
class NoInteraction:
    """Questions differ in ease, prompts differ in strength, and that is all.

    Attributes:
        ease: (G,) a grid of log-odds. share: (G,) of questions. strength: (P,) of prompts.
        log_likelihood: of the table, nats a question.
    """

    ease: np.ndarray
    share: np.ndarray
    strength: np.ndarray
    log_likelihood: float

    @property
    def chances(self) -> np.ndarray:
        """(G, P) sigma(ease + strength)."""
        return expit(self.ease[:, None] + self.strength)

    @property
    def any_prompt(self) -> float:
        """The share of questions that at least one prompt solves."""
        return float(self.share @ (1 - (1 - self.chances).prod(axis=1)))

    @property
    def best_prompt(self) -> float:
        """What the strongest prompt solves: here no choice by question can do better."""
        return float((self.share @ self.chances).max())


def fit_no_interaction(right: ArrayLike, grid: int = 31, steps: int = 500) -> NoInteraction:
    """Fit ease and strength to a table by EM; the distribution of ease is free on a grid.

    Args:
        right: (N, P), 0 or 1.

    Raises: ShapeError: not (N, P). UninformativeDataError: a prompt that is always right or wrong.

    Source: the model of Rasch (1960).
    """
    y = np.asarray(right, dtype=float)
    if y.ndim != 2 or not y.size:
        raise ShapeError(f"right has shape {y.shape}; expected (questions, prompts).")
    if not ((y.mean(axis=0) > 0) & (y.mean(axis=0) < 1)).all():
        raise UninformativeDataError(
            "a prompt is always right, or always wrong, and has no finite strength. Leave it out."
        )
    patterns, count = np.unique(y, axis=0, return_counts=True)  # (M, P)
    weight = count / count.sum()
    ease, share = np.linspace(-8, 8, grid), np.full(grid, 1 / grid)
    strength = np.log(y.mean(axis=0) / (1 - y.mean(axis=0)))
    total = -np.inf
    for _ in range(steps):
        p = expit(ease[:, None] + strength)  # (G, P)
        joint = np.log(np.maximum(share, 1e-300)) + (
            patterns @ np.log(p).T + (1 - patterns) @ np.log1p(-p).T
        )
        top = np.logaddexp.reduce(joint, axis=1)
        belief = np.exp(joint - top[:, None]) * weight[:, None]  # (M, G)
        before, total = total, float(weight @ top)
        share = belief.sum(axis=0)
        for _ in range(3):  # Newton, a prompt at a time: the strengths do not meet
            p = expit(ease[:, None] + strength)
            slope = weight @ patterns - share @ p
            strength = strength + slope / (share @ (p * (1 - p)))
        if total - before < 1e-9:
            break
    middle = float(strength.mean())
    return NoInteraction(ease + middle, share, strength - middle, total)
