"""Two losses on the same synthetic embeddings: Bradley–Terry against classification, a fair trial.

A response has an embedding with a part that belongs to its prompt and a part of its own. Its gold
reward is linear in the embedding plus a random small network of it. A chooser of a known
temperature compares pairs. Each loss gets the same comparisons and is tuned on held-out pairs of
its own; what counts is the order of new responses within new prompts.

Source: the losses and designs are those of Sun, Shen and Ton 2024 (2411.04991); the data are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import expit, log_expit
from torch.nn.functional import softplus

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.preferences.bradley_terry import sample_preferences

__all__ = [
    "Design",
    "EmbeddingTrial",
    "HIDDEN_GOLD",
    "PENALTIES",
    "draw_trial",
    "linear_head",
    "network_heads",
]

Design = Literal["same prompt", "cross-prompt"]
HIDDEN_GOLD = 24  # units of the random network inside the gold reward
PENALTIES = (0.1, 1.0, 10.0, 100.0)  # that a linear head may choose from


@dataclass(frozen=True)
class EmbeddingTrial:
    """One draw of the trial.

    Attributes:
        embeddings: (2 P, d), two responses for each of P prompts.
        pairs: (P, 2) comparisons, column 0 preferred.
        wrong_share: share of them that contradict gold.
        floor: mean loss per comparison, in nats, of a model that knows each chooser's probability.
        test_embeddings: (100, 10, d), ten responses for each of 100 new prompts.
        test_gold: (100, 10) their gold rewards.
    """

    embeddings: np.ndarray
    pairs: np.ndarray
    wrong_share: float
    floor: float
    test_embeddings: np.ndarray
    test_gold: np.ndarray


def draw_trial(
    seed: int, design: Design, noise: float, prompt_part: float, *, n_pairs: int = 1000, d: int = 32
) -> EmbeddingTrial:
    """Draw a gold reward, responses and comparisons.

    Args:
        seed: of everything.
        design: whether the two responses of a pair answer one prompt or two.
        noise: temperature of the chooser, in units of the mean gap of gold within a prompt.
        prompt_part: standard deviation of the prompt's part of an embedding; a response's own is 1.
        n_pairs: P. d: width of an embedding.

    Raises:
        InvalidHyperparameterError: another design, or a noise that is not above 0.
    """
    if design not in ("same prompt", "cross-prompt"):
        raise InvalidHyperparameterError(f"design={design!r}; use 'same prompt' or 'cross-prompt'.")
    if not noise > 0:
        raise InvalidHyperparameterError(f"noise is {noise}; a temperature is above 0.")
    rng = np.random.default_rng(seed)
    linear = rng.normal(size=d) / np.sqrt(d)
    hidden = rng.normal(size=(d, HIDDEN_GOLD)) * 1.5 / np.sqrt(d)
    out = rng.normal(size=HIDDEN_GOLD) / np.sqrt(HIDDEN_GOLD)

    def draw(prompts: int, responses: int) -> tuple[np.ndarray, np.ndarray]:
        own = rng.normal(size=(prompts, responses, d))
        phi = own + prompt_part * rng.normal(size=(prompts, 1, d))
        return phi, phi @ linear + 1.5 * np.tanh(phi @ hidden) @ out

    phi, gold = draw(n_pairs, 2)
    flat = gold.reshape(-1) / np.abs(gold[:, 0] - gold[:, 1]).mean()
    asked = np.arange(2 * n_pairs).reshape(-1, 2)
    if design == "cross-prompt":
        asked = rng.permutation(2 * n_pairs).reshape(-1, 2)
    chosen = sample_preferences(flat, asked, rng, beta=noise)
    gap = flat[chosen[:, 0]] - flat[chosen[:, 1]]
    p = expit(gap / noise)
    floor = -(p * log_expit(gap / noise) + (1 - p) * log_expit(-gap / noise)).mean()
    return EmbeddingTrial(
        phi.reshape(-1, d), chosen, float((gap < 0).mean()), float(floor), *draw(100, 10)
    )


def linear_head(fit: Callable[..., Any], trial: EmbeddingTrial) -> np.ndarray:
    """(d,) weights of a linear reward, with the penalty that orders a held-out fifth best.

    Args:
        fit: `fit_bradley_terry` or `fit_classification`. The penalty is chosen on four fifths of
            the pairs and scaled to all of them, on which the weights are then fitted.
    """
    phi, pairs = trial.embeddings, trial.pairs
    cut = len(pairs) * 4 // 5
    held_out = phi[pairs[cut:, 0]] - phi[pairs[cut:, 1]]
    right = [(held_out @ fit(pairs[:cut], phi, l2=0.8 * l2).weights > 0).mean() for l2 in PENALTIES]
    return fit(pairs, phi, l2=PENALTIES[int(np.argmax(right))]).weights


def network_heads(
    trials: Sequence[EmbeddingTrial], *, epochs: int = 20, hidden: int = 32, batch: int = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train one hidden layer with either loss on each trial, all of them at once as a stack.

    Both losses see the same first weights and the same order of pairs. Each network is scored at
    the epoch in which it ordered the held-out fifth of its pairs best.

    Args:
        trials: n of one size. epochs, hidden, batch: of Adam at 4e-3; `batch` in pairs.

    Returns:
        Test rewards by Bradley–Terry and by classification, each (n, 100, 10), and the training
        loss of Bradley–Terry in each epoch, (epochs,) nats per comparison, mean over the n.

    Raises:
        ShapeError: no trial, or trials of unlike size.
    """
    if len({t.embeddings.shape for t in trials}) != 1:
        raise ShapeError("network_heads takes one or more trials, all of one size.")
    torch.manual_seed(0)
    x = torch.tensor(np.stack([t.embeddings[t.pairs] for t in trials]), dtype=torch.float32)
    test = torch.tensor(np.stack([t.test_embeddings for t in trials]), dtype=torch.float32)
    shape, n, d = test.shape[1:3], len(x), x.shape[-1]
    x, test = x.repeat(2, 1, 1, 1), test.flatten(1, 2).repeat(2, 1, 1)  # (2n, P, 2, d)
    cut = x.shape[1] * 4 // 5
    x, held_out = x[:, :cut], x[:, cut:]
    w1 = (torch.randn(n, d, hidden) / d**0.5).repeat(2, 1, 1).requires_grad_()
    w2 = (torch.randn(n, hidden, 1) / hidden**0.5).repeat(2, 1, 1).requires_grad_()
    b1 = torch.zeros(2 * n, 1, hidden, requires_grad=True)
    b2 = torch.zeros(2 * n, 1, 1, requires_grad=True)

    def reward(z: torch.Tensor) -> torch.Tensor:  # (2n, B, d) -> (2n, B)
        return torch.baddbmm(b2, torch.relu(torch.baddbmm(b1, z, w1)), w2)[..., 0]

    def of_pairs(z: torch.Tensor) -> torch.Tensor:  # (2n, B, 2, d) -> (2n, B, 2)
        return reward(z.flatten(1, 2)).unflatten(1, (-1, 2))

    optimiser, losses = torch.optim.Adam([w1, b1, w2, b2], lr=4e-3), []
    signs, scores, most = torch.tensor([1.0, -1.0]), torch.zeros(test.shape[:2]), torch.zeros(2 * n)
    for _ in range(epochs):
        order, total = torch.randperm(cut), 0.0
        for rows in order.split(batch):
            r = of_pairs(x[:, rows])
            pairwise = softplus(r[:n, :, 1] - r[:n, :, 0]).mean(dim=1)  # Bradley–Terry
            single = softplus(-signs * r[n:]).mean(dim=(1, 2))  # classification
            optimiser.zero_grad()
            (pairwise.sum() + single.sum()).backward()
            optimiser.step()
            total += float(pairwise.detach().mean()) * len(rows) / cut
        losses.append(total)
        with torch.no_grad():
            r = of_pairs(held_out)
            right = (r[..., 0] > r[..., 1]).float().mean(dim=1)
            better = right > most
            most = torch.where(better, right, most)
            scores = torch.where(better[:, None], reward(test), scores)
    found = scores.unflatten(1, shape).numpy()
    return found[:n], found[n:], np.array(losses)
