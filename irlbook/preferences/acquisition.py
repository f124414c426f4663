"""Which pair next? Rules that pick questions from a pool, and the loop that asks and refits.

A rule is a score (P,) of the pool's questions, higher is asked first, or a way to choose a batch.
Questions are differences d (P, K) of features. What is known of the weights is a Gaussian,
Laplace's approximation: mean w and covariance Sigma, from `fit_bradley_terry(..., l2=...)`.

Sources: Lewis and Gale 1994 (uncertainty); Sener and Savarese 2018 (k-centre coreset); Houlsby et
al. 2011 (information gain, BALD); Seung, Opper and Sompolinsky 1992 (disagreement); Shen, Sun and
Ton 2025 (2502.04354) for D-optimal choice, and for the comparison within and across prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import entr, expit

from irlbook.errors import InvalidHyperparameterError, ShapeError, shown
from irlbook.preferences.bradley_terry import fit_bradley_terry, sample_preferences
from irlbook.preferences.information import (
    answer_variance,
    check_budget,
    greedy_design,
    information_gains,
)

__all__ = [
    "ActiveRun",
    "DRAWS",
    "MEMBERS",
    "PreferencePool",
    "RULES",
    "Rule",
    "bootstrap_members",
    "choose_batch",
    "disagreement",
    "draw_preference_pool",
    "draw_weights",
    "farthest_first",
    "information_gain",
    "labels_needed",
    "pairs_across",
    "pairs_within",
    "row_of_stop",
    "run_active",
    "top_rows",
]

Rule = Literal[
    "random",
    "uncertainty",
    "largest difference",
    "coreset",
    "two posterior draws",
    "ensemble",
    "information gain",
    "D-optimal",
    "D-optimal, top scores",
]
RULES: tuple[Rule, ...] = get_args(Rule)[:-1]  # the last one shows what a batch is not
MEMBERS = 5  # of a bootstrap ensemble
DRAWS = 50  # of the posterior, for the information gain


# Scores -------------------------------------------------------------------------------------------


def disagreement(members: Any, differences: Any) -> np.ndarray:
    """(P,) variance over members of the probability that each gives to the first item.

    Args:
        members: (M, K) weights of an ensemble, or draws of a posterior. differences: (P, K).
    """
    return np.asarray(_probabilities(members, differences).var(axis=0))


def information_gain(draws: Any, differences: Any) -> np.ndarray:
    """(P,) mutual information of each answer and the weights, in nats (BALD).

        H(E_w sigma(d . w)) - E_w H(sigma(d . w)),     w over the draws

    It is the entropy of the answer, less the part that would stay if the weights were known. Where
    the posterior is narrow it is p (1 - p) d' Sigma d / 2, half of the D-optimal gain.

    Args:
        draws: (M, K) of the posterior. differences: (P, K).

    Source: Houlsby, Huszar, Ghahramani and Lengyel 2011 (1112.5745), equation 2.
    """
    p = _probabilities(draws, differences)
    return np.asarray(_entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0))


def _probabilities(members: Any, differences: Any) -> np.ndarray:
    w, d = np.asarray(members, dtype=float), np.asarray(differences, dtype=float)
    if w.ndim != 2 or d.ndim != 2 or w.shape[1] != d.shape[1]:
        raise ShapeError(f"members {w.shape} and differences {d.shape} must be (M, K) and (P, K).")
    return np.asarray(expit(w @ d.T))


def _entropy(p: np.ndarray) -> np.ndarray:
    return np.asarray(entr(p) + entr(1 - p))


def draw_weights(mean: Any, covariance: Any, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, K) draws of the Gaussian posterior."""
    root = np.linalg.cholesky(np.asarray(covariance, dtype=float))
    return np.asarray(mean, dtype=float) + rng.normal(size=(n, len(root))) @ root.T


def bootstrap_members(
    pairs: Any, features: Any, l2: float, n: int, rng: np.random.Generator
) -> np.ndarray:
    """(n, K) weights, each fitted to as many comparisons, drawn again with replacement."""
    rows = np.asarray(pairs)
    return np.array(
        [
            fit_bradley_terry(
                rows[rng.integers(len(rows), size=len(rows))], features, l2=l2, tolerance=1e-6
            ).weights
            for _ in range(n)
        ]
    )


# Batches ------------------------------------------------------------------------------------------


def top_rows(scores: Any, budget: int) -> np.ndarray:
    """(budget,) rows of the highest scores, the first of equals first.

    The scores are taken as they stand: nothing is known of the batch so far, so ten copies of the
    best question are a batch of ten.

    Raises:
        InvalidHyperparameterError: the budget is larger than the pool, or not positive.
    """
    s = np.asarray(scores, dtype=float)
    check_budget(budget, len(s))
    return np.argsort(-s, kind="stable")[:budget]


def farthest_first(differences: Any, budget: int, labelled: Any = None) -> np.ndarray:
    """(budget,) rows, each as far as possible from all chosen and labelled before: k-centre greedy.

    A question and its mirror image are the same, so the distance of d and e is
    min(|d - e|, |d + e|). With nothing labelled the longest difference comes first.

    Args:
        differences: (P, K). labelled: (L, K) asked before.

    Raises:
        InvalidHyperparameterError: the budget is larger than the pool, or not positive.

    Source: Sener and Savarese 2018 (1708.00489), algorithm 1.
    """
    d = np.asarray(differences, dtype=float)
    check_budget(budget, len(d))
    known = np.zeros((1, d.shape[1])) if labelled is None else np.asarray(labelled, dtype=float)
    squares = (d**2).sum(axis=1)

    def squared_distance(e: np.ndarray) -> np.ndarray:  # (K,) -> (P,)
        return squares + e @ e - 2 * np.abs(d @ e)

    nearest = np.full(len(d), np.inf)
    for e in known:
        nearest = np.minimum(nearest, squared_distance(e))
    chosen: list[int] = []
    for _ in range(budget):
        nearest[chosen] = -np.inf
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, squared_distance(d[chosen[-1]]))
    return np.array(chosen)


def choose_batch(
    rule: Rule,
    differences: Any,
    mean: Any,
    covariance: Any,
    budget: int,
    rng: np.random.Generator,
    *,
    labelled: Any = None,
    members: Any = None,
) -> np.ndarray:
    """(budget,) rows of the pool that a rule asks next.

    Args:
        rule: one of `RULES`, or "D-optimal, top scores", which scores each question as if it came
            alone. differences: (P, K) questions that are still to be had.
        mean, covariance: (K,), (K, K) of the posterior. budget: size of the batch.
        labelled: (L, K) questions asked before, for "coreset".
        members: (M, K) bootstrap ensemble, for "ensemble".

    Raises:
        InvalidHyperparameterError: another rule, a rule without what it needs, a budget larger
            than the pool.
    """
    d, w = np.asarray(differences, dtype=float), np.asarray(mean, dtype=float)
    check_budget(budget, len(d))
    if rule == "random":
        return rng.choice(len(d), size=budget, replace=False)
    if rule == "uncertainty":
        return top_rows(-np.abs(d @ w), budget)
    if rule == "largest difference":
        return top_rows(np.abs(d @ w), budget)
    if rule == "coreset":
        return farthest_first(d, budget, labelled)
    if rule == "D-optimal, top scores":
        return top_rows(information_gains(covariance, d, answer_variance(d, w)), budget)
    if rule == "D-optimal":
        precision = np.linalg.inv(np.asarray(covariance, dtype=float))
        return greedy_design((precision + precision.T) / 2, d, answer_variance(d, w), budget)
    if rule == "information gain":
        return top_rows(information_gain(draw_weights(w, covariance, DRAWS, rng), d), budget)
    if rule == "two posterior draws":
        chosen: list[int] = []
        for _ in range(budget):  # fresh draws for each question keep a batch diverse
            apart = disagreement(draw_weights(w, covariance, 2, rng), d)
            apart[chosen] = -np.inf
            chosen.append(int(np.argmax(apart)))
        return np.array(chosen)
    if rule == "ensemble":
        if members is None:
            raise InvalidHyperparameterError("rule 'ensemble' needs members: bootstrap_members.")
        return top_rows(disagreement(members, d), budget)
    raise InvalidHyperparameterError(f"rule is {shown(rule)}; use one of {', '.join(RULES)}.")


# The loop -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreferencePool:
    """Items that can be compared, and a test of what was learned.

    Attributes:
        features: (prompts, responses, K). gold: (prompts, responses), in units of the chooser's
            temperature.
        test_features, test_gold: the same of new prompts.
    """

    features: np.ndarray
    gold: np.ndarray
    test_features: np.ndarray
    test_gold: np.ndarray


@dataclass(frozen=True)
class ActiveRun:
    """What one run of `run_active` gave.

    Attributes:
        labels: (T,) how many had been bought. measured: (T,) how good the weights were then.
        asked: (labels[-1], 2) the comparisons in the order in which they were bought, the preferred
            item first. weights: (T, K).
        seen_right: (T,) share of the newest batch that the model before it had predicted.
    """

    labels: np.ndarray
    measured: np.ndarray
    asked: np.ndarray
    weights: np.ndarray
    seen_right: np.ndarray


def pairs_within(prompts: int, responses: int) -> np.ndarray:
    """(P, 2) all pairs of two responses to one prompt; item r of prompt x is x * responses + r."""
    i, j = np.triu_indices(responses, 1)
    first = responses * np.arange(prompts)[:, None]
    return np.stack([(first + i).reshape(-1), (first + j).reshape(-1)], axis=1)


def pairs_across(prompts: int, responses: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 2) random pairs of responses to two different prompts, no pair twice.

    Raises:
        InvalidHyperparameterError: there are not so many.
    """
    items = prompts * responses
    i, j = np.triu_indices(items, 1)
    apart = np.flatnonzero(i // responses != j // responses)
    if n > len(apart):
        raise InvalidHyperparameterError(f"there are {len(apart)} pairs across prompts, not {n}.")
    rows = rng.choice(apart, size=n, replace=False)
    return np.stack([i[rows], j[rows]], axis=1)


def draw_preference_pool(
    seed: int,
    *,
    prompts: int = 40,
    responses: int = 6,
    n_features: int = 16,
    prompt_part: float = 1.0,
    spectrum: float = 1.0,
    gap: float = 2.0,
    test_prompts: int = 60,
) -> PreferencePool:
    """A synthetic pool: gold is linear in features whose scales fall like those of embeddings.

    Feature k has the standard deviation (k + 1)^(-spectrum / 2), of a response's own part, and
    `prompt_part` times that of a part which all responses to a prompt share.

    Args:
        seed: of everything. gap: root mean square difference of gold within a prompt, in units of
            the chooser's temperature.
    """
    rng = np.random.default_rng([16, seed])
    scale = (1.0 + np.arange(n_features)) ** (-spectrum / 2)
    weights = rng.normal(size=n_features)
    weights *= gap / (np.sqrt(2) * np.linalg.norm(weights * scale))

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        phi = scale * (
            rng.normal(size=(n, responses, n_features))
            + prompt_part * rng.normal(size=(n, 1, n_features))
        )
        return phi, phi @ weights

    return PreferencePool(*draw(prompts), *draw(test_prompts))


def run_active(
    pool: PreferencePool,
    pairs: Any,
    rule: Rule,
    rng: np.random.Generator,
    *,
    measure: Callable[[np.ndarray, np.ndarray], float],
    budget: int = 200,
    batch: int = 10,
    l2: float = 1.0,
) -> ActiveRun:
    """Ask a first batch at random, then batch after batch by the rule; refit after each.

    Args:
        pool: items and test. pairs: (P, 2) questions that may be asked, each once.
        rule: as for `choose_batch`. rng: of the answers, the first batch, and the rule.
        measure: of the rewards and the gold of the test, (prompts, responses) each, such as
            `metrics.within_prompt_spearman`.
        budget: labels in all. batch: labels between two fits. l2: precision of the prior.

    Raises:
        InvalidHyperparameterError: the budget is larger than the pool, or no multiple of the batch.
    """
    given = np.asarray(pairs)
    check_budget(budget, len(given))
    if batch < 1 or budget % batch:
        raise InvalidHyperparameterError(f"a budget of {budget} is no multiple of batch={batch}.")
    phi = pool.features.reshape(-1, pool.features.shape[-1])
    gold = pool.gold.reshape(-1)
    d = phi[given[:, 0]] - phi[given[:, 1]]
    answers = sample_preferences(gold, given, rng)
    free = np.ones(len(given), dtype=bool)
    rows = rng.choice(len(given), size=batch, replace=False)
    mean = np.zeros(d.shape[1])
    asked: list[int] = []
    measured, weights, right = [], [], []
    for _ in range(budget // batch):
        margin = d[rows] @ mean
        won = (answers[rows, 0] == given[rows, 0]) * 2 - 1
        right.append(float(np.mean(np.where(margin == 0, 0.5, margin * won > 0))))
        asked += rows.tolist()
        free[rows] = False
        fit = fit_bradley_terry(answers[asked], phi, l2=l2, tolerance=1e-8)
        mean = fit.weights
        weights.append(mean)
        measured.append(measure(pool.test_features @ mean, pool.test_gold))
        left = np.flatnonzero(free)
        if len(asked) < budget:
            members = (
                bootstrap_members(answers[asked], phi, l2, MEMBERS, rng)
                if rule == "ensemble"
                else None
            )
            rows = left[
                choose_batch(
                    rule,
                    d[left],
                    mean,
                    fit.covariance,
                    batch,
                    rng,
                    labelled=d[asked],
                    members=members,
                )
            ]
    return ActiveRun(
        batch * (1 + np.arange(budget // batch)),
        np.array(measured),
        answers[asked],
        np.array(weights),
        np.array(right),
    )


def labels_needed(labels: Any, curve: Any, target: float) -> float:
    """Labels at which a learning curve first reaches the target, linear between its points.

    A curve that never does is given its last number of labels: a bound from below, so that a mean
    over runs is one, too. Before its first point a curve counts as there with the first.
    """
    n, y = np.asarray(labels, dtype=float), np.asarray(curve, dtype=float)
    reached = np.flatnonzero(y >= target)
    if not reached.size:
        return float(n[-1])
    k = int(reached[0])
    if k == 0:
        return float(n[0])
    return float(n[k - 1] + (n[k] - n[k - 1]) * (target - y[k - 1]) / (y[k] - y[k - 1]))


def row_of_stop(run: ActiveRun, share: float) -> int | None:
    """Row of `run` at which a project stops that asks how many of the newest answers it predicted.

    That is the first batch of which the model before it had predicted `share` or more. The first
    batch of a run counts for nothing, because no model chose or predicted it: the row is at least
    1, and `run.labels` and `run.measured` there are what had been bought and learned with this
    batch. None if no batch reaches the share.
    """
    reached = np.flatnonzero(run.seen_right[1:] >= share)
    return 1 + int(reached[0]) if reached.size else None
