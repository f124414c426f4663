"""Controlled sentiment: short reviews, a gold reward from a lexicon, and pairs with known noise.

The setting is the first experiment of Rafailov et al. 2023 (2305.18290), with a lexicon in place of
a classifier: VADER's compound score, in [-1, 1] (Hutto and Gilbert 2014), which a reader can look
up word by word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from scipy.special import expit

from irlbook.errors import MissingDependencyError, ShapeError

__all__ = [
    "HELD_OUT",
    "LABEL_SCALE",
    "TOPICS",
    "all_pairs",
    "gold",
    "is_sentiment_word",
    "prompt",
    "wide_pairs",
]

TOPICS = (
    *("a coffee maker", "a city hotel", "a bus ride", "a pair of running shoes", "a garden chair"),
    *("a crime novel", "a science museum", "a pizza restaurant", "a mobile phone", "a yoga class"),
    *("a camping tent", "a jazz concert", "a bicycle", "a dentist", "a cooking course"),
    *("a video game", "an electric kettle", "a night train", "a swimming pool", "a raincoat"),
    *("a vegetable market", "a laptop", "a puppet theatre", "a desk lamp", "a ski resort"),
    *("a bakery", "a language app", "a winter jacket", "a car rental", "a documentary film"),
    *("a backpack", "a public library", "a vacuum cleaner", "a ferry", "a hair salon"),
    "a chess set",
)
"""What the training prompts ask a review of; 36."""

HELD_OUT = (
    *("a beach cafe", "a washing machine", "a mystery film", "a mountain hut", "an umbrella"),
    *("a guitar", "a tram line", "a toy robot", "an art gallery", "a breakfast cereal"),
    *("a pair of headphones", "a gym", "a poetry book", "a taxi", "a kitchen knife"),
    *("a zoo", "a watch", "a noodle bar", "an alarm clock", "a cinema", "a sofa"),
    *("a walking tour", "a printer", "a cheese shop"),
)
"""What the evaluation asks a review of; 24 others."""

LABEL_SCALE = 5.0  # log-odds of a label for each unit of gold: known noise


def prompt(topic: str) -> str:
    """What the model is asked."""
    return f"Write a short review of {topic}, in one or two sentences."


@cache
def _analyser() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise MissingDependencyError(
            "the gold reward of this study is VADER's lexicon, which is not installed. Run: "
            'pip install "irlbook[sentiment]"'
        ) from error
    return SentimentIntensityAnalyzer()


def gold(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    """VADER's compound score of each response, in [-1, 1]; the prompt plays no part.

    Raises:
        MissingDependencyError: the package vaderSentiment is not installed.
    """
    analyser = _analyser()
    return [float(analyser.polarity_scores(text)["compound"]) for text in responses]


def is_sentiment_word(word: str) -> bool:
    """Whether the lexicon rates a word, whatever stands around it."""
    bare = re.sub(r"^[^\w]+|[^\w]+$", "", word.lower())
    return bare in _analyser().lexicon


def wide_pairs(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Pairs of one prompt's samples, the upper half against the lower, labelled with known noise.

    Sample of rank i is paired with that of rank i + n/2, so gold differs in most pairs; then the
    first is preferred with probability sigma(LABEL_SCALE * difference of gold).

    Args:
        values: (n,) gold of the samples, n even.

    Returns:
        (n / 2, 2) indices, column 0 preferred, and the share that agrees with gold (a tie is half).
    """
    if values.ndim != 1 or len(values) % 2 or not len(values):
        raise ShapeError(f"gold has shape {values.shape}; expected (n,) with an even n.")
    order = np.argsort(-values, kind="stable")
    half = len(values) // 2
    return _label(np.column_stack([order[:half], order[half:]]), values, rng)


def all_pairs(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Every pair of one prompt's samples, n (n - 1) / 2 of them, labelled as `wide_pairs`."""
    return _label(np.column_stack(np.triu_indices(len(values), 1)), values, rng)


def _label(
    pairs: np.ndarray, values: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    gap = values[pairs[:, 0]] - values[pairs[:, 1]]
    kept = rng.random(len(pairs)) < expit(LABEL_SCALE * gap)
    labelled = np.where(kept[:, None], pairs, pairs[:, ::-1])
    final = values[labelled[:, 0]] - values[labelled[:, 1]]
    return labelled, float((np.sign(final).mean() + 1) / 2)
