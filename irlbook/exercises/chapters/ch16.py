"""Exercises of chapter 16: which pair next? Active preference learning."""

from __future__ import annotations

import numpy as np
from scipy.special import entr, expit

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    expect_close,
    expect_equal,
    expect_length,
    expect_raises,
)

# --- 16.1 ---------------------------------------------------------------------------------------


def check_question_gains(answer, rng):
    n, k = int(rng.integers(5, 9)), int(rng.integers(2, 5))
    d, w = rng.normal(size=(n, k)), rng.normal(size=k)
    root = rng.normal(size=(k, k)) + np.eye(k)
    sigma, beta = root @ root.T, float(rng.uniform(0.4, 0.8))
    p = expit(d @ w / beta)
    lam = p * (1 - p) / beta**2
    spread = np.einsum("nk,kl,nl->n", d, sigma, d)

    def gain(variance, width):
        return np.log1p(variance * width)

    cold = expit(d @ w)
    expect_close(
        answer(d, w, sigma, beta),
        gain(lam, spread),
        property="each gain is the difference of two log determinants, (16.4)",
        hint="log(1 + lambda d' Sigma d): what is lambda at a temperature, and what is Sigma?",
        mistakes={
            "the temperature is missing in the chance": gain(cold * (1 - cold) / beta**2, spread),
            "the temperature is missing in the variance": gain(p * (1 - p), spread),
            "the variance is divided by beta, not by its square": gain(p * (1 - p) / beta, spread),
            "every answer counts as a coin flip": gain(0.25 / beta**2, spread),
            "you left the answer variance out": gain(1.0, spread),
            "you left out what is known: Sigma": gain(lam, (d**2).sum(axis=1)),
            "you took the information for the covariance": gain(
                lam, np.einsum("nk,kl,nl->n", d, np.linalg.inv(sigma), d)
            ),
            "the logarithm is missing": lam * spread,
            "the logarithm is to base 2": gain(lam, spread) / np.log(2),
            "it is half of the gain": gain(lam, spread) / 2,
        },
    )
    far = np.array([[1e4, 0.0], [0.0, 0.0]])
    expect_close(
        answer(far, np.array([1.0, 0.0]), np.eye(2), 1.0),
        np.zeros(2),
        what="the gain of a foregone conclusion, and of two equal responses",
        property="an answer that is certain teaches nothing",
        hint="which of the two factors is 0 in each case?",
    )


register(
    Exercise(
        id="16.1",
        title="What is this question worth?",
        function="question_gains",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can compute what a comparison adds to the information before it is asked.",
        hints=(
            "First the chance p that the first response wins, then the answer variance (16.1).",
            "`np.einsum('pk,kl,pl->p', d, sigma, d)` is d' Sigma d for every row.",
            "The temperature stands twice: inside sigma(.), and squared below p (1 - p).",
        ),
        check=check_question_gains,
    )
)


# --- 16.2 ---------------------------------------------------------------------------------------


def _greedy(precision, d, lam, budget, *, update=True, repeat=False, a=False):
    """Rows by the plain definition; the switches make known mistakes."""
    chosen, matrix = [], precision.copy()
    for _ in range(budget):
        sigma = np.linalg.inv(matrix)
        pull = d @ sigma
        lever = lam * (pull * d).sum(axis=1)
        gains = lam * (pull**2).sum(axis=1) / (1 + lever) if a else lever
        if not repeat:
            gains[chosen] = -np.inf
        chosen.append(int(np.argmax(gains)))
        if update:
            matrix = matrix + lam[chosen[-1]] * np.outer(d[chosen[-1]], d[chosen[-1]])
    return np.array(chosen)


def _pool(rng):
    """Precision, differences, weights and answer variances of a pool with near-copies."""
    k = 3
    d = np.concatenate([rng.normal(size=(9, k)), np.zeros((3, k))])
    d[9:] = d[2] * rng.uniform(2.0, 2.3, size=(3, 1))  # near-copies of one long question
    w = rng.normal(size=k)
    w -= (w @ d[2]) / (d[2] @ d[2]) * d[2]  # and its answer is a coin flip
    d, precision = d[rng.permutation(12)], np.diag(rng.uniform(0.2, 0.6, size=k))
    p = expit(d @ w)
    return precision, d, w, p * (1 - p)


def check_greedy_batch(answer, rng):
    while True:  # until all mistakes show, and no two of them are alike
        precision, d, w, lam = _pool(rng)
        want = _greedy(precision, d, lam, 5)
        wrong = {
            "the batch is the top of one list: score, add the question, score again": _greedy(
                precision, d, lam, 5, update=False
            ),
            "a question is asked twice": _greedy(precision, d, lam, 5, repeat=True),
            "every answer counts as a coin flip": _greedy(precision, d, np.full(12, 0.25), 5),
            "you chose by the trace of the inverse, not by the determinant": _greedy(
                precision, d, lam, 5, a=True
            ),
            "the order of choice is lost": np.sort(want),
        }
        if len({tuple(rows) for rows in (want, *wrong.values())}) == 1 + len(wrong):
            break
    got = answer(precision, d, w, 5)
    expect_close(
        got,
        want,
        property="each question is the one that raises log det most after those before it",
        hint="what does the precision look like once the first question has been chosen?",
        mistakes=wrong,
    )
    for d3, w3, best, why in (
        ([[4.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 0, "chose by the trace of the inverse"),
        ([[4.0, 0.0], [0.0, 1.0]], [5.0, 0.0], 1, "took every answer for a coin flip"),
    ):
        expect_close(
            answer(np.diag([1.0, 0.1]), np.array(d3), np.array(w3), 1),
            np.array([best]),
            what="the best of two questions",
            property="the best question has the largest lambda d' Sigma d",
            hint="compute lambda and d' Sigma d for both by hand",
            mistakes={f"you {why}": np.array([1 - best])},
        )
    # One question is longer than all others together: repeated, it would win again.
    d2 = np.eye(3) * np.array([1.0, 50.0, 0.5])
    expect_close(
        answer(np.eye(3), d2, np.zeros(3), 3),
        np.array([1, 0, 2]),
        what="a batch as large as its pool",
        property="each question is asked at most once",
        hint="take a question out of the pool once it was chosen",
        mistakes={
            "a question is asked twice": np.array([1, 1, 1]),
            "the order of choice is lost": np.arange(3),
        },
    )
    expect_close(
        answer(np.eye(2), np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), np.zeros(2), 1),
        np.array([0]),
        what="the choice between equals",
        property="of equally good questions the first one is taken",
        hint="which of several maxima does np.argmax return?",
    )
    expect_raises(
        ValueError,
        answer,
        np.eye(3),
        d2,
        np.zeros(3),
        4,
        property="a budget larger than the pool is refused with a ValueError",
        hint="compare the budget with the number of rows before you begin",
    )


register(
    Exercise(
        id="16.2",
        title="A batch, one question at a time",
        function="greedy_batch",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can choose a batch whose questions do not repeat each other.",
        hints=(
            "The answer variances do not change within a batch, since no answer has come yet.",
            "In each round: Sigma is the inverse of the precision; score all; take the best of "
            "those that are left; add its lambda d d' to the precision.",
            "log(1 + x) rises with x, so lambda d' Sigma d puts the questions in the same order.",
        ),
        check=check_greedy_batch,
    )
)


# --- 16.3 ---------------------------------------------------------------------------------------


def _h(p):
    return entr(p) + entr(1 - p)


def check_answer_information(answer, rng):
    draws = rng.normal(size=(int(rng.integers(20, 40)), 3)) * 1.5
    d = rng.normal(size=(6, 3))
    p = expit(draws @ d.T)
    total, noise = _h(p.mean(axis=0)), _h(p).mean(axis=0)
    mean_p = expit(d @ draws.mean(axis=0))
    expect_close(
        answer(draws, d),
        total - noise,
        property="the information is the entropy of the answer less its mean entropy given w",
        hint="(16.7) has two terms; over what is the mean taken, and before or after the entropy?",
        mistakes={
            "it is the whole entropy of the answer: a coin flip forever counts as interesting": (
                total
            ),
            "it is only the noise that would stay": noise,
            "the two terms are exchanged": noise - total,
            "it is in bits": (total - noise) / np.log(2),
            "the first entropy is taken at the mean of the weights": _h(mean_p) - noise,
            "half of each entropy is missing: the answer has two outcomes": entr(p.mean(axis=0))
            - entr(p).mean(axis=0),
            "it is the variance of the chance": p.var(axis=0),
        },
    )
    sure = np.array([[2000.0, 0.0], [-2000.0, 0.0]])
    expect_close(
        answer(sure, np.array([[1.0, 0.0], [0.0, 1.0]])),
        np.array([np.log(2), 0.0]),
        what="the information where each draw is certain of its own answer",
        property="two draws that are certain of opposite answers make one answer worth log 2",
        hint="0 log 0 is 0: scipy.special.entr and expit know that",
    )


register(
    Exercise(
        id="16.3",
        title="Ignorance, not noise",
        function="answer_information",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can tell uncertainty that a label removes from uncertainty that stays.",
        hints=(
            "Make a table of chances: one row for each draw, one column for each question.",
            "The entropy of a yes-or-no answer is -p log p - (1 - p) log (1 - p).",
            "First term: mean over draws, then entropy. Second term: entropy, then mean.",
        ),
        check=check_answer_information,
    )
)


# --- 16.4 ---------------------------------------------------------------------------------------


def check_labels_paid(answer, rng):
    rounds, batch = 14, int(rng.integers(5, 12))
    labels = batch * np.arange(1, rounds + 1)
    # no number of whole rounds, so that no two of the mistakes below cost the same
    apart = batch * int(rng.integers(4, 8)) + int(rng.integers(1, batch))
    kept = np.full(rounds, 0.7)
    kept[1], kept[3], kept[5:7], kept[9:13] = 0.9, 0.9, 0.9, 0.9  # flashes, two rounds, then more
    bought = np.full(rounds, 0.95)
    log = {"labels": labels, "bought": bought, "kept": kept, "apart": apart}
    want = int(labels[11]) + apart  # three in a row: rounds 9, 10, 11
    kinds = {
        "you stopped by the labels that you chose yourself": int(labels[2]) + apart,
        "the pairs that were kept apart were labelled, too, and cost as much": int(labels[11]),
        "you stopped by chosen labels, and forgot those kept apart": int(labels[2]),
        "the rounds need not follow each other": int(labels[5]) + apart,
        "you stop at the first round above the target": int(labels[1]) + apart,
        "you return the first round of the streak, when nobody knew yet": int(labels[9]) + apart,
        "you wait one round too many": int(labels[12]) + apart,
        "you wait one round too few": int(labels[6]) + apart,
        "it is the number of the round": 11,
    }
    expect_close(
        answer(log, 0.8, 3),
        want,
        property="labelling stops once accuracy on pairs kept apart held for `patience` rounds "
        "in a row, and all labels are counted",
        hint="which accuracy describes the model, which the choice? And who labelled the test?",
        mistakes=kinds,
    )
    level = {**log, "kept": np.where(kept > 0.8, 0.8, kept)}
    expect_equal(
        answer(level, 0.8, 3),
        want,
        what="the labels when accuracy is exactly the target",
        property="an accuracy equal to the target counts as reached",
        hint="at least, or above?",
    )
    never = {**log, "kept": np.full(rounds, 0.7)}
    expect_equal(
        answer(never, 0.8, 3),
        int(labels[-1]) + apart,
        what="the labels when the target is never reached",
        property="a project that never reaches its target pays for every round",
        hint="what was bought by the end?",
    )


register(
    Exercise(
        id="16.4",
        title="The project that stopped itself",
        kind="bug hunt",
        function="labels_paid",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can stop a labelling project by a measure that its own choices do not bend.",
        hints=(
            "Which pairs are in `bought`, and who put them there?",
            "Count the rounds at or above the target in a row, and begin again after a miss.",
            "The pairs that were kept apart had to be labelled as well.",
        ),
        check=check_labels_paid,
    )
)


# --- 16.5 ---------------------------------------------------------------------------------------


def check_pilaf_mixture(answer, rng):
    n = int(rng.integers(5, 9))
    p, r = rng.dirichlet(np.ones(n)), rng.normal(size=n) * 1.2
    p[1] = 0.0  # a response that is never given
    p /= p.sum()
    up, down = p * np.exp(r), p * np.exp(-r)
    z = float(up.sum() * down.sum())
    parts = expect_length(answer(p, r), 3, hint="return three things: share, optimist, pessimist")
    expect_close(
        parts[0],
        1 / (1 + z),
        what="`share`",
        property="the mixture has the density (16.10)",
        hint="sum the three parts of (16.10) over all pairs: how much does each weigh?",
        mistakes={
            "it is the weight of the tilted pair": z / (1 + z),
            "Z+ and Z- are added, not multiplied": 1 / (1 + up.sum() + down.sum()),
            "the 2 of (16.10) counts once, the tilted parts twice": 1 / (1 + 2 * z),
            "the 2 of (16.10) counts twice, the tilted parts once": 2 / (2 + z),
            "the two kinds of pair are equally likely": 0.5,
        },
    )
    for k, name, want, other, sign in (
        (1, "optimist", up / up.sum(), down / down.sum(), 1),
        (2, "pessimist", down / down.sum(), up / up.sum(), -1),
    ):
        flat = np.exp(sign * r) / np.exp(sign * r).sum()
        expect_close(
            parts[k],
            want,
            what=f"`{name}`",
            property=f"the {name} is the policy tilted by e^({'' if sign > 0 else '-'}r)",
            hint="multiply, then divide by the sum",
            mistakes={
                "optimist and pessimist are exchanged": other,
                "it does not add up to 1": want * (up if sign > 0 else down).sum(),
                "the policy is missing in the tilt": flat,
                "it is not tilted": p,
            },
        )
    shifted = expect_length(answer(p, r + 2000.0), 3, hint="return three things")
    expect_close(
        np.concatenate([[float(shifted[0])], shifted[1], shifted[2]]),
        np.concatenate([[1 / (1 + z)], up / up.sum(), down / down.sum()]),
        rtol=1e-5,
        what="the mixture after 2,000 was added to every reward",
        property="a constant in the reward changes nothing, however large it is",
        hint="exp(2000) is infinite; which constant may you subtract first?",
    )


register(
    Exercise(
        id="16.5",
        title="An optimist and a pessimist",
        function="pilaf_mixture",
        points=3,
        difficulty=3,
        minutes=20,
        importance=3,
        goal="You can draw the pairs whose expected gradient points along the policy's value.",
        hints=(
            "Write (16.10) as 2 pi(a) pi(b) + pi(a) e^(r_a) pi(b) e^(-r_b) + the mirrored term.",
            "The three terms sum to 2, Z+ Z- and Z+ Z-.",
            "Subtract the largest reward before you take the exponential of r, and the smallest "
            "before that of -r; only the product Z+ Z- must not notice.",
        ),
        check=check_pilaf_mixture,
    )
)


# --- 16.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="16.6",
        title="Ten thousand labels",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can plan how a labelling budget is spent, and how you will know that it paid.",
        hints=(
            "What did the chapter find on synthetic features, and what on embeddings?",
            "Which pairs of this pool are coin flips forever?",
            "With what would you compare, and on which pairs would you measure?",
        ),
        rubric=(
            Criterion(1, "a random part is kept apart for the test, and is never chosen from"),
            Criterion(1, "a pilot against random choice, because a gain is not granted here"),
            Criterion(1, "uncertainty fails on the near-duplicates; says why, names a better rule"),
            Criterion(1, "batches are chosen jointly, not as the top of one list"),
            Criterion(1, "says what the labels are for: a reward, a policy, or serving users"),
        ),
    )
)
