"""Exercises of chapter 9: rewards from preferences."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import expect_close, expect_equal, expect_length
from irlbook.mdp import Trajectories
from irlbook.preferences.bradley_terry import (
    bradley_terry_gradient,
    bradley_terry_log_likelihood,
    fisher_information,
    fit_bradley_terry,
    pairs_from_labels,
)


def _pairs(rng: np.random.Generator, n_items: int, n: int) -> np.ndarray:
    """Comparisons in which every item stands more than once."""
    ring = np.column_stack([np.arange(n_items), (np.arange(n_items) + 1) % n_items])
    more = rng.integers(0, n_items, size=(4 * n, 2))
    more = more[more[:, 0] != more[:, 1]][:n]
    return rng.permutation(np.concatenate([ring, more]))


# --- 09.1 ---------------------------------------------------------------------------------------


def check_loss(answer, rng):
    n_items, beta = int(rng.integers(4, 8)), float(rng.uniform(0.3, 0.7))
    pairs, r = _pairs(rng, n_items, 25), rng.normal(size=n_items + 1)  # the last in no row
    pairs = rng.permutation(np.concatenate([pairs, pairs[:3]]))  # the same outcome twice
    loss = -bradley_terry_log_likelihood(r, pairs, beta=beta)
    slope = -bradley_terry_gradient(r, pairs, beta=beta)
    gap = (r[pairs[:, 0]] - r[pairs[:, 1]]) / beta
    got = expect_length(answer(r, pairs, beta), 2, hint="return two things: loss and gradient")
    expect_close(
        got[0],
        loss,
        what="the loss",
        property="the loss is minus the log-likelihood (9.4) of all comparisons",
        hint="which column was preferred, what divides the difference, and what is minimised?",
        mistakes={
            "the minus sign is missing": -loss,
            "the columns are exchanged: the loser is taken for the winner": -log_expit(-gap).sum(),
            "the temperature is missing": -log_expit(beta * gap).sum(),
            "beta multiplies; it must divide": -log_expit(beta**2 * gap).sum(),
            "you took the mean over comparisons, not the sum": loss / len(pairs),
            "the logarithm is missing": -expit(gap).sum(),
        },
    )
    once = np.zeros(n_items + 1)
    surprise = expit(-gap) / beta
    once[pairs[:, 0]] -= surprise
    once[pairs[:, 1]] += surprise
    expect_close(
        got[1],
        slope,
        what="the gradient",
        property="the gradient is that of the loss: wins expected less wins seen, over beta (9.5)",
        hint="an item stands in many rows, and each adds to its entry; of what is it the slope?",
        mistakes={
            "it is the gradient of the log-likelihood, not of the loss": -slope,
            "an item that stands in several rows got the entry of the last row only": once,
            "the factor 1 / beta is missing": slope * beta,
            "only the winners' entries are filled": lambda: np.bincount(
                pairs[:, 0], -surprise, n_items + 1
            ),
            "only the losers' entries are filled": lambda: np.bincount(
                pairs[:, 1], surprise, n_items + 1
            ),
            "you took the mean over comparisons, not the sum": slope / len(pairs),
        },
    )
    expect_close(
        expect_length(answer(r, pairs, 3.0), 2, hint="return loss and gradient")[0],
        -bradley_terry_log_likelihood(r, pairs, beta=3.0),
        what="the loss",
        property="the loss is right for a beta above 1 too",
        hint="beta is any positive number",
    )
    far = r + 800.0 * np.arange(n_items + 1)
    got = expect_length(answer(far, pairs, beta), 2, hint="return loss and gradient")
    expect_close(
        got[0],
        -bradley_terry_log_likelihood(far, pairs, beta=beta),
        what="the loss for rewards that lie far apart",
        property="a comparison that was a foregone conclusion does not overflow",
        hint="log sigma(z) = -log(1 + exp(-z)): numpy's logaddexp adds two logs without overflow",
    )
    expect_close(
        got[1],
        -bradley_terry_gradient(far, pairs, beta=beta),
        what="the gradient for rewards that lie far apart",
        property="the gradient of a foregone conclusion does not overflow",
        hint="sigma(-z) = exp(-log(1 + exp(z))): which of the two overflows?",
    )


register(
    Exercise(
        id="09.1",
        title="The loss of a chooser",
        function="bradley_terry_loss",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can write the loss of comparisons and its gradient, with signs that are right.",
        hints=(
            "Start with z = (r of the winner - r of the loser) / beta, one number a row.",
            "The slope of -log sigma(z) is -(1 - sigma(z)). A row touches two items.",
            "`g[items] += x` keeps only the last of repeated items. `np.add.at(g, items, x)` adds "
            "them all. For the loss use np.logaddexp(0, -z).",
        ),
        check=check_loss,
    )
)


# --- 09.2 ---------------------------------------------------------------------------------------


def _graph(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, int]:
    """Comparisons of a known kind, items renamed and rows shuffled."""
    ring = [[0, 1], [1, 2], [2, 0]]
    names: Any
    if kind == "ok":
        pairs, n = [*ring, [3, 0], [1, 3], [3, 4], [4, 0]], 5
    elif kind == "long way":  # one long circle: nobody wins against the one who beats him
        n = 9
        pairs = [[i, (i + 1) % n] for i in range(n)]
    elif kind == "islands":
        pairs, n = [*ring, [3, 4], [4, 5], [5, 3]], 6
    elif kind == "never asked":
        pairs, n = [*ring, [0, 1]], 4
    elif kind in ("first never asked", "last never asked"):
        pairs, n = [*ring, [0, 1]], 4
        names = [1, 2, 3, 0] if kind.startswith("first") else [0, 1, 2, 3]
        return rng.permutation(np.array(names)[np.array(pairs)]), n
    elif kind == "one champion":
        pairs, n = [*ring, [3, 0], [3, 1]], 4
    elif kind == "one victim":
        pairs, n = [*ring, [0, 3], [2, 3]], 4
    elif kind.endswith("league first"):  # everybody wins and loses; still one league never lost
        pairs, n = [*ring, [3, 4], [4, 5], [5, 3], [0, 3], [1, 4]], 6
        names = rng.permutation(n)
        rows = names[rng.permutation(np.array(pairs))]
        lower = np.isin(rows[:, 0], names[3:])
        first = np.flatnonzero(lower == (kind == "lower league first"))[0]
        return np.roll(rows, -first, axis=0), n
    else:  # islands, one of them with a champion
        pairs, n = [*ring, [4, 3], [4, 5]], 6
    names = rng.permutation(n)
    return rng.permutation(names[np.array(pairs)]), n


def check_diagnosis(answer, rng):
    cases = {
        "ok": ("finite", "a chain of wins leads from every item to every other"),
        "long way": ("finite", "a chain of wins leads from every item to every other"),
        "islands": ("islands", "two groups never met"),
        "never asked": ("islands", "an item was never compared"),
        "first never asked": ("islands", "the first item was never compared"),
        "last never asked": ("islands", "the last item was never compared"),
        "one champion": ("infinite", "an item never lost"),
        "one victim": ("infinite", "an item never won"),
        "upper league first": (
            "infinite",
            "each item won and lost, but one group never lost to the rest",
        ),
        "lower league first": (
            "infinite",
            "each item won and lost, but one group never lost to the rest",
        ),
        "champion on an island": ("islands", "groups never met, whatever happens inside them"),
    }
    for kind, (want, what) in cases.items():
        pairs, n = _graph(rng, kind)
        expect_equal(
            answer(pairs, n),
            want,
            property=f"the diagnosis is right where {what}",
            hint="islands ignore the direction of wins, Ford's condition does not; the number of "
            "items is given because some may be missing from the rows",
        )


register(
    Exercise(
        id="09.2",
        title="Can this be fitted?",
        function="diagnose",
        points=3,
        difficulty=3,
        minutes=25,
        importance=4,
        goal="You can tell from the win graph whether a finite best reward exists.",
        hints=(
            "Ask two questions, in this order: did the groups meet at all? Can you walk along wins "
            "from everybody to everybody?",
            "Walk from item 0 along the arrows, and once against them. Who is reached?",
            "All items reached both ways: strongly connected. For the islands put both directions "
            "of each row into the list of arrows first.",
        ),
        check=check_diagnosis,
    )
)


# --- 09.3 ---------------------------------------------------------------------------------------


def check_gap_error(answer, rng):
    n_items, n_features = int(rng.integers(6, 9)), int(rng.integers(2, 4))
    phi, w = rng.normal(size=(n_items, n_features)), rng.normal(size=n_features)
    pairs, beta = _pairs(rng, n_items, 40), float(rng.uniform(0.4, 0.8))
    i, j = rng.choice(n_items, 2, replace=False).tolist()
    information = fisher_information(w, pairs, phi, beta=beta)
    c = phi[i] - phi[j]
    want = np.sqrt(c @ np.linalg.solve(information, c))
    d = phi[pairs[:, 0]] - phi[pairs[:, 1]]
    p = expit(d @ w / beta)

    def error(weight, along=c):
        return np.sqrt(along @ np.linalg.solve(d.T @ (weight[:, None] * d), along))

    good = p * (1 - p) / beta**2
    expect_close(
        answer(w, phi, pairs, i, j, beta),
        want,
        property="the standard error is the root of c' I^-1 c, I from (9.10), c a difference",
        hint="three steps: the information of all pairs; its inverse; the difference asked about",
        mistakes={
            "the information is not inverted": np.sqrt(c @ information @ c),
            "it is the variance; its root is missing": want**2,
            "each pair counts p, not p (1 - p)": error(p / beta**2),
            "each pair counts (1 - p), not p (1 - p)": error((1 - p) / beta**2),
            "every pair counts the same": error(np.full(len(p), 0.25) / beta**2),
            "beta is missing in front": error(p * (1 - p)),
            "beta divides once, not twice": error(p * (1 - p) / beta),
            "the mean over pairs was taken, not the sum": error(good / len(p)),
            "only the first of the two items is asked about": error(good, phi[i]),
            "the information was set to zero apart from the diagonal": lambda: np.sqrt(
                (c**2 / np.diag(information)).sum()
            ),
            "beta is ignored everywhere": lambda: error(expit(d @ w) * expit(-d @ w)),
            "the temperature is missing inside sigma": lambda: error(
                expit(d @ w) * expit(-d @ w) / beta**2
            ),
        },
    )
    expect_close(
        answer(w, phi, pairs[:, ::-1].copy(), i, j, beta),
        want,
        property="it does not matter who won",
        hint="p (1 - p) is the same for p and 1 - p",
    )


register(
    Exercise(
        id="09.3",
        title="How sure is a difference?",
        function="gap_error",
        points=3,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can get from comparisons to the standard error of a difference of rewards.",
        hints=(
            "Rows of d are phi of the winner less phi of the loser. The survey's box prints "
            "phi(y1) - phi(y1): what would come out?",
            "I = sum over rows of p (1 - p) d d' / beta^2: one matrix (K, K).",
            "c = phi_i - phi_j; solve I x = c; the variance is c . x.",
        ),
        check=check_gap_error,
    )
)


# --- 09.4 ---------------------------------------------------------------------------------------


def _walks(rng: np.random.Generator, n_states: int, lengths: np.ndarray) -> Trajectories:
    return Trajectories.from_list(
        [
            (rng.integers(0, n_states, size=length + 1), rng.integers(0, 3, size=length))
            for length in lengths
        ]
    )


def _trex_loss(walks, ranks, reward, discount, bug=""):
    returns = []
    for states, _ in walks:
        visited = states if bug == "last state" else states[:-1]
        visited = states[1:] if bug == "next states" else visited
        steps = np.arange(len(visited)) + (bug == "late")
        powers = np.ones(len(steps)) if bug == "discount" else discount**steps
        returns.append(powers @ reward[visited] / (len(visited) if bug == "mean" else 1.0))
    total, count = 0.0, 0
    for i in range(len(ranks)):
        for j in range(len(ranks)):
            between = any(ranks[j] < rank < ranks[i] for rank in ranks)
            if bug == "neighbours" and between:
                continue
            if ranks[i] > ranks[j] or (bug == "ties" and i != j and ranks[i] == ranks[j]):
                gap = returns[i] - returns[j]
                total -= log_expit(-gap if bug == "best is low" else gap)
                count += 1
    return total if bug == "sum" else total / count


def check_trex_loss(answer, rng):
    n_states = int(rng.integers(5, 9))
    lengths = np.append(3, rng.permutation([1, 2, 5, 6, int(rng.integers(7, 11))]))
    walks = _walks(rng, n_states, lengths)
    while True:  # not in the order of the list, and no rank says which walk it is
        ranks = rng.permutation([-1.0, 0.5, 0.5, 2.0, 3.5, 7.0])
        if (np.diff(ranks) < 0).sum() >= 2 and (np.diff(ranks) > 0).sum() >= 2:
            break
    reward, discount = rng.normal(size=n_states), float(rng.uniform(0.6, 0.9))
    expect_close(
        answer(walks, ranks, reward, discount),
        _trex_loss(walks, ranks, reward, discount),
        property="the loss is the mean of -log sigma(return of the better - return of the worse)",
        hint="a reward is collected where an action is taken; a higher rank is better; walks of "
        "equal rank say nothing",
        mistakes={
            mistake: (lambda bug=bug: _trex_loss(walks, ranks, reward, discount, bug))
            for mistake, bug in {
                "the last state is counted too, where no action was taken": "last state",
                "rewards are taken of the next states": "next states",
                "the discount is one power too high": "late",
                "the discount is missing": "discount",
                "returns are means over steps": "mean",
                "walks of equal rank are compared": "ties",
                "only neighbours in rank are compared": "neighbours",
                "low ranks are taken for good ones": "best is low",
                "it is the sum over pairs, not the mean": "sum",
            }.items()
        },
    )


register(
    Exercise(
        id="09.4",
        title="A ranking as a loss",
        function="trex_loss",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can turn ranked trajectories into the loss that T-REX minimises.",
        hints=(
            "First one return for each walk, then a double loop over walks.",
            "`for states, actions in walks` gives one state more than actions.",
            "Take states[:-1] with powers discount**0, discount**1, ...; compare i with j where "
            "ranks[i] > ranks[j].",
        ),
        check=check_trex_loss,
    )
)


# --- 09.5 ---------------------------------------------------------------------------------------


def _fit_labels(left, right, labels, n_items, ties="half"):
    if ties == "dropped":
        keep = labels != 0.5
        left, right, labels = left[keep], right[keep], labels[keep]
    shares = {"left": np.where(labels == 0.5, 1.0, labels), "right": np.floor(labels)}
    share = shares.get(ties, labels)
    pairs, counts = pairs_from_labels(left, right, share)
    if ties == "both":
        counts = np.where(counts == 0.5, 1.0, counts)
    return fit_bradley_terry(pairs, n_items=n_items, counts=counts).rewards


def check_labels(answer, rng):
    n_items = int(rng.integers(4, 7))
    r = 0.5 * rng.normal(size=n_items)
    # weaker items are shown first more often: position and quality must not be mixed up
    asked = np.sort(_pairs(rng, n_items, 150), axis=1)
    asked = np.concatenate([asked, asked[:, ::-1], asked])
    left, right = asked.T
    labels = (rng.random(len(asked)) < expit(r[left] - r[right])).astype(float)
    labels[rng.random(len(asked)) < 0.35] = 0.5
    labels[: n_items * 2] = np.tile([1.0, 0.0], n_items)
    expect_close(
        answer(left, right, labels, n_items),
        _fit_labels(left, right, labels, n_items),
        rtol=1e-4,
        atol=1e-4,
        property="the rewards maximise the likelihood with a tie as half a win for each, and add "
        "up to 0",
        hint="follow one row with the label 0.5 through the code: who gets what?",
        mistakes={
            mistake: (lambda ties=ties: _fit_labels(left, right, labels, n_items, ties))
            for mistake, ties in {
                "a tie is a win for the item on the left": "left",
                "a tie is a win for the item on the right": "right",
                "ties are thrown away": "dropped",
                "a tie is a whole win for both": "both",
            }.items()
        }
        | {
            "the rewards are turned round": lambda: -_fit_labels(left, right, labels, n_items),
            "item 0 was set to 0, and they do not add up to 0": lambda: (
                _fit_labels(left, right, labels, n_items)
                - _fit_labels(left, right, labels, n_items)[0]
            ),
        },
    )


register(
    Exercise(
        id="09.5",
        title="The favourite on the left",
        function="fit_labels",
        kind="bug hunt",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can find a labelling bug that turns position into quality.",
        hints=(
            "Exchange left and right, and turn the labels. The rewards should stay; do they?",
            "Which of the three labels 0, 0.5 and 1 is treated wrongly?",
            "Give `label` to the left item and `1 - label` to the right one, whatever it is.",
        ),
        check=check_labels,
    )
)


# --- 09.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="09.6",
        title="A claim to judge",
        kind="written",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can judge a comparison of reward models, and say what a proof does and does not "
        "promise.",
        hints=(
            "How many chances did the report have to find a cell with a small p-value?",
            "Accuracy over all pairs of all prompts: which of its pairs does a user of a reward "
            "model ever decide?",
            "Read the proposition of section 7 again and underline what it assumes.",
        ),
        rubric=(
            Criterion(
                1,
                "Sees the selection: 2 of 40 cells at p < 0.05 is what chance gives; asks for all "
                "cells, a correction, or fresh seeds for the cells that were found.",
            ),
            Criterion(
                1,
                "Sees that five seeds are few (a paired sign-flip test cannot go below 1/32 one "
                "sided, 1/16 two-sided) and that penalties must be chosen for each method apart.",
            ),
            Criterion(
                1,
                "Sees that accuracy across prompts rewards a model for knowing easy prompts, and "
                "asks for a score within prompts.",
            ),
            Criterion(
                1,
                "States what the proposition assumes (one distribution of opponents, endless data) "
                "and gives a case in which it fails, such as leagues or a model for each prompt.",
            ),
        ),
    )
)
