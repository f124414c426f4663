"""Lab of chapter 16: a learner that chooses its questions, from a skeleton."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_expit

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_legend,
    expect_length,
    expect_line,
    expect_picture,
    expect_type,
)
from irlbook.metrics import within_prompt_spearman

BORROWED = ("irlbook.preferences", "irlbook.posttraining", "irlbook.irl")
BUDGET, BATCH, L2 = 60, 10, 1.0
POOLS = 60  # of the last check
GAIN = 0.1  # rank correlation above random choice; the reference, on 20 seeds: 0.150 or more


def draw_pool(rng, prompts=30, responses=5, k=12, drafts=0.7, gap=2.0):
    """A pool in which most prompts have drafts that hardly differ, and a test.

    Returns:
        features (X, R, k), answers (X, R, R) of bool, test features and test gold.
    """
    scale = (1.0 + np.arange(k)) ** -0.5
    weights = rng.normal(size=k)
    weights *= gap / (np.sqrt(2) * np.linalg.norm(weights * scale))

    def draw(own):
        shared, single = (
            rng.normal(size=(len(own), 1, k)),
            rng.normal(size=(len(own), responses, k)),
        )
        return scale * (shared + own[:, None, None] * single)

    phi = draw(rng.permutation(np.where(np.arange(prompts) < drafts * prompts, 0.1, 1.0)))
    test = draw(np.ones(40))
    gold = phi @ weights
    i, j = np.triu_indices(responses, 1)
    answers = np.zeros((prompts, responses, responses), dtype=bool)
    answers[:, i, j] = rng.random((prompts, len(i))) < expit(gold[:, i] - gold[:, j])
    answers[:, j, i] = ~answers[:, i, j]
    return phi, answers, test, test @ weights


def refit(d, l2):
    """Posterior mode (K,) and precision (K, K) from answered questions, by damped Newton."""
    k = d.shape[1]
    w = np.zeros(k)

    def value(v):
        return log_expit(d @ v).sum() - l2 / 2 * v @ v

    for _ in range(200):
        p = expit(d @ w)
        slope = d.T @ (1 - p) - l2 * w
        precision = precision_of(d, w, l2)
        if np.abs(slope).max(initial=0.0) < 1e-9:
            break
        step = np.linalg.solve(precision, slope)
        while value(w + step) < value(w) and np.abs(step).max() > 1e-10:
            step = step / 2
        w = w + step
    return w, precision


def precision_of(d, w, l2):
    """(K, K) l2 times the identity plus the information of the questions at the weights."""
    p = expit(d @ w)
    return l2 * np.eye(d.shape[1]) + (d.T * (p * (1 - p))) @ d


def greedy(precision, d, w, free, size, *, update=True, flat=False, at=None):
    """Rows by the plain definition; the switches make known mistakes."""
    lam = np.full(len(d), 0.25) if flat else expit(d @ w) * expit(-(d @ w))
    free, chosen, matrix = free.copy(), [], precision.copy()
    for _ in range(size):
        lever = lam * np.einsum("pk,pk->p", d @ np.linalg.inv(matrix), d)
        row = int(np.argmax(np.where(free, lever, -np.inf)))
        chosen.append(row)
        free[row] = False
        if update:
            matrix = matrix + lam[row] * np.outer(d[row], d[row])
    return np.array(chosen)


def active(d, answers, rule, budget, batch, l2, seed):
    """The loop as the task prescribes it: asked (budget,) and weights (budget / batch, K)."""
    dice, free = np.random.default_rng(seed), np.ones(len(d), dtype=bool)
    rows, asked, weights = dice.choice(len(d), size=batch, replace=False), [], []
    while True:
        asked += rows.tolist()
        free[rows] = False
        w, precision = refit(np.where(answers[asked][:, None], d[asked], -d[asked]), l2)
        weights.append(w)
        if len(asked) == budget:
            return np.array(asked), np.array(weights)
        if rule == "random":
            rows = dice.choice(np.flatnonzero(free), size=batch, replace=False)
        else:
            rows = greedy(precision, d, w, free, batch)


def questions(features):
    """(P, 3) all questions x, i, j with i < j, and their differences (P, K)."""
    x, r = features.shape[:2]
    i, j = np.triu_indices(r, 1)
    named = np.stack([np.repeat(np.arange(x), len(i)), np.tile(i, x), np.tile(j, x)], axis=1)
    return named, (features[:, i] - features[:, j]).reshape(len(named), -1)


# --- 16L.1 --------------------------------------------------------------------------------------


def check_refit(answer, rng):
    n, k = int(rng.integers(20, 30)), int(rng.integers(3, 5))
    l2 = float(rng.uniform(0.3, 0.8))
    while True:  # no weights explain all answers, so that a mode without a prior exists
        d, planted = rng.normal(size=(n, k)) * 1.5, rng.normal(size=k)
        d = np.where((rng.random(n) < expit(d @ planted))[:, None], d, -d)
        if np.abs(refit(d, 1e-6)[0]).max() < 10:
            break
    mode, precision = refit(d, l2)

    def at(strength):
        return lambda: refit(d, strength)[0]

    got = expect_length(answer(d, l2), 2, hint="return the mode and the precision")
    expect_close(
        got[0],
        mode,
        rtol=1e-4,
        atol=1e-5,
        what="the mode",
        property="the mode is where sum_p log sigma(d_p . w) - l2 / 2 |w|^2 is largest",
        hint="its gradient vanishes there; does yours?",
        mistakes={
            "there is no prior": at(1e-9),
            "the prior is twice as strong": at(2 * l2),
            "the prior counts once for each answer, or the log-likelihood is a mean": at(n * l2),
            "the sign is turned: the other response is preferred": -mode,
            "it is one step of Newton from zero": lambda: np.linalg.solve(
                d.T @ d / 4 + l2 * np.eye(k), d.sum(axis=0) / 2
            ),
        },
    )
    expect_close(
        got[1],
        precision,
        rtol=1e-4,
        atol=1e-4,
        what="the precision",
        property="the precision is l2 times the identity plus sum_p lambda_p d_p d_p', with lambda "
        "at the mode",
        hint="it is minus the second derivative of what is maximised",
        mistakes={
            "every answer counts as a coin flip": lambda: precision_of(d, np.zeros(k), l2),
            "the prior is missing": lambda: precision_of(d, mode, 0.0),
            "it is the covariance": lambda: np.linalg.inv(precision),
            "lambda is p, not p (1 - p)": lambda: l2 * np.eye(k) + (d.T * expit(d @ mode)) @ d,
            "lambda is missing": lambda: l2 * np.eye(k) + d.T @ d,
            "it is a mean over the answers": lambda: (
                l2 * np.eye(k) + precision_of(d, mode, 0.0) / n
            ),
        },
    )
    slope = d.T @ expit(-(d @ as_array(got[0], (k,)))) - l2 * as_array(got[0], (k,))
    expect(
        np.abs(slope) <= 1e-5,
        property="no entry of the gradient is larger than 1e-5 at the mode",
        hint="go on until the gradient vanishes",
        detail=f"the largest is {np.abs(slope).max():.2g}",
    )
    got = expect_length(answer(np.zeros((0, k)), l2), 2, hint="two values")
    expect_close(
        got[0],
        np.zeros(k),
        what="the mode before the first answer",
        property="before the first answer only the prior speaks",
        hint="sums over no rows are zero; where does your code need a row?",
    )
    expect_close(
        got[1],
        l2 * np.eye(k),
        what="the precision before the first answer",
        property="before the first answer only the prior speaks",
        hint="sums over no rows are zero; where does your code need a row?",
    )
    # A weak prior and questions of unlike length: Newton from zero runs away.
    far, weak = np.array([[11.9, 11.5], [0.1, 0.7], [-4.4, -1.6]]), 0.001
    got = expect_length(answer(far, weak), 2, hint="two values")
    expect_close(
        got[0],
        refit(far, weak)[0],
        rtol=1e-3,
        atol=1e-4,
        what="the mode where the prior is weak and one question is far longer than another",
        property="a step that goes too far is made shorter",
        hint="is the value larger after the step than before? If not, halve the step",
    )


register(
    Exercise(
        id="16L.1",
        title="What do the answers say?",
        function="refit",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can turn answers into a posterior by Laplace's approximation.",
        hints=(
            "The gradient is the sum of sigma(-d_p . w) d_p, less l2 w.",
            "Newton's step solves: precision times step = gradient, both at the present weights.",
            "While the value after the step is smaller than before, halve the step. Compute the "
            "precision once more at the end.",
        ),
        check=check_refit,
        without=BORROWED,
    )
)


# --- 16L.2 --------------------------------------------------------------------------------------


def check_batch_gain(answer, rng):
    n, k = int(rng.integers(8, 12)), int(rng.integers(3, 5))
    d, w = rng.normal(size=(n, k)) * 1.5, rng.normal(size=k)
    root = rng.normal(size=(k, k))
    precision = root @ root.T + 0.5 * np.eye(k)
    rows = rng.permutation(n)[:4]

    def gain(lam, picked=rows):
        more = precision + (d[picked].T * lam[picked]) @ d[picked]
        return np.linalg.slogdet(more)[1] - np.linalg.slogdet(precision)[1]

    lam = expit(d @ w) * expit(-(d @ w))
    want = gain(lam)
    sigma = np.linalg.inv(precision)
    alone = np.log1p(lam * np.einsum("pk,kl,pl->p", d, sigma, d))[rows].sum()
    expect_close(
        answer(precision, d, w, rows),
        want,
        property="the gain of a batch is log det with its information, less log det without",
        hint="add lambda d d' of each row in the batch to the precision; what is log det before?",
        mistakes={
            "the gains of single questions are added: in a batch they overlap": alone,
            "every answer counts as a coin flip": gain(np.full(n, 0.25)),
            "lambda is missing": gain(np.ones(n)),
            "the whole pool was asked": gain(lam, np.arange(n)),
            "log det before is not subtracted": want + np.linalg.slogdet(precision)[1],
            "the logarithm is to base 2": want / np.log(2),
            "it is a difference of determinants": lambda: (
                np.linalg.det(precision + (d[rows].T * lam[rows]) @ d[rows])
                - np.linalg.det(precision)
            ),
            "it is half of the gain": want / 2,
            "the sign is turned": -want,
            "the batch is worth what is known already: the prior was left out": lambda: (
                np.linalg.slogdet(np.eye(k) + (d[rows].T * lam[rows]) @ d[rows])[1]
            ),
        },
    )
    twice = np.append(rows, rows[:1])
    expect_close(
        answer(precision, d, w, twice),
        gain(lam, twice),
        what="the gain of a batch that holds one question twice",
        property="a question that is asked twice counts twice",
        hint="a person may answer differently the second time",
        mistakes={"a repeated question is counted once": want},
    )
    expect_close(
        answer(precision, d, w, np.zeros(0, dtype=int)),
        0.0,
        what="the gain of no question",
        property="no question is worth nothing",
        hint="what should the difference be then?",
    )
    size = 200
    expect_close(
        answer(1e3 * np.eye(size), np.eye(size), np.zeros(size), np.arange(2)),
        2 * np.log1p(0.25e-3),
        what="the gain for 200 features",
        property="a determinant of 200 rows does not overflow",
        hint="`np.linalg.slogdet` gives the logarithm itself",
    )


register(
    Exercise(
        id="16L.2",
        title="What is a batch worth?",
        function="batch_gain",
        points=2,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can say what a batch of questions tells before anybody answers.",
        hints=(
            "First lambda = p (1 - p) of each question in the batch, at the weights `w`.",
            "`(d[rows].T * lam) @ d[rows]` is the sum of lambda d d'.",
            "Two logarithms of determinants, and their difference.",
        ),
        check=check_batch_gain,
        without=BORROWED,
    )
)


# --- 16L.3 --------------------------------------------------------------------------------------


def check_greedy_batch(answer, rng):
    n, k, size = 40, 4, 6
    for _ in range(50):
        d = rng.normal(size=(n, k)) * np.array([2.0, 1.0, 0.5, 0.5])
        d[n // 2 :] = d[: n // 2] * rng.uniform(0.9, 1.1, size=(n // 2, 1))  # near-copies
        w, free = rng.normal(size=k), rng.random(n) < 0.7
        precision = np.diag(rng.uniform(0.3, 1.0, size=k))
        want = greedy(precision, d, w, free, size)
        wrong = {
            "the batch is the top of one list: score, add the question, score again": greedy(
                precision, d, w, free, size, update=False
            ),
            "every answer counts as a coin flip": greedy(precision, d, w, free, size, flat=True),
            "questions that are taken are chosen again": greedy(
                precision, d, w, np.ones(n, dtype=bool), size
            ),
            "only lambda counts: you chose coin flips": np.argsort(
                np.where(free, np.abs(d @ w), np.inf)
            )[:size],
            "the order of choice is lost": np.sort(want),
        }
        if not any(np.array_equal(rows, want) for rows in wrong.values()):
            break
    expect_close(
        answer(precision, d, w, free, size),
        want,
        property="each question is the free one that raises log det most after those before it",
        hint="in each round: score all that are left, take the best, add its information",
        mistakes=wrong,
    )
    long = np.eye(3) * np.array([1.0, 50.0, 0.5])
    expect_close(
        answer(np.eye(3), long, np.zeros(3), np.ones(3, dtype=bool), 3),
        np.array([1, 0, 2]),
        what="a batch as large as its pool",
        property="no question is taken twice in a batch",
        hint="take a question out once it was chosen",
        mistakes={"a question is taken twice": np.array([1, 1, 1])},
    )
    same = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    expect_close(
        answer(np.eye(2), same, np.zeros(2), np.array([False, True, True]), 2),
        np.array([1, 2]),
        what="the choice between equals",
        property="of equally good free questions the first one is taken",
        hint="which of several maxima does np.argmax return?",
    )


register(
    Exercise(
        id="16L.3",
        title="A greedy batch from what is left",
        function="greedy_batch",
        points=3,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can choose a D-optimal batch that does not repeat itself.",
        hints=(
            "log(1 + lambda d' Sigma d) is what one more question adds, and it grows with "
            "lambda d' Sigma d.",
            "lambda stays the same during a batch, for no answer has come; Sigma does not.",
            "`np.where(free, score, -np.inf)` keeps what is taken out of the choice.",
        ),
        check=check_greedy_batch,
        without=BORROWED,
    )
)


# --- 16L.4 --------------------------------------------------------------------------------------


def check_run_active(answer, rng):
    hint = 'return {"asked": asked, "weights": weights}'
    n, k, batch = 60, 4, int(rng.integers(4, 7))
    budget, l2 = 4 * batch, float(rng.uniform(0.4, 0.8))
    d, planted = rng.normal(size=(n, k)), rng.normal(size=k) * 2
    answers = rng.random(n) < expit(d @ planted)
    while True:  # the first batch is answered in both ways
        seed = int(rng.integers(10_000))
        first = np.random.default_rng(seed).choice(n, size=batch, replace=False)
        if not np.array_equal(answers[first], answers[np.sort(first)]):
            break

    def run(replies, rule):
        got = expect_type(answer(d, replies, rule, budget, batch, l2, seed), dict, hint=hint)
        expect(
            set(got) == {"asked", "weights"},
            property="the result has the keys 'asked' and 'weights'",
            hint=hint,
        )
        asked = as_array(got["asked"], (-1,), what="`asked`", hint="rows of the pool")
        return asked, as_array(got["weights"], (-1, k), what="`weights`", hint="one row per batch")

    for rule in ("random", "D-optimal"):
        rows, weights = active(d, answers, rule, budget, batch, l2, seed)
        asked, fitted = run(answers, rule)
        expect(
            len(asked) == budget,
            property="as many questions are asked as the budget allows",
            hint="a batch at a time, and the first one counts, too",
            detail=f"{len(asked)} were asked, the budget is {budget}",
        )
        expect(
            len(np.unique(asked)) == budget,
            property="no question is asked twice",
            hint="`free` must lose what was asked",
        )
        expect_close(
            asked[:batch],
            rows[:batch],
            what="the first batch",
            property="the first batch is drawn at random, with the generator of the seed",
            hint="`dice.choice(len(d), size=batch, replace=False)`",
        )
        expect(
            len(fitted) == budget // batch,
            property="the weights are fitted anew after each batch",
            hint="one row for each batch, the last one too",
            detail=f"there are {len(fitted)} rows for {budget // batch} batches",
        )
        others = np.setdiff1d(np.arange(n), rows[:batch])[:batch]
        expect_close(
            fitted[0],
            weights[0],
            rtol=1e-4,
            atol=1e-5,
            what="the weights after the first batch",
            property="the weights come from the answers to the questions that were asked",
            hint="where the answer is False the second response was preferred: what is d then?",
            mistakes={
                "the answers were ignored: the first response always wins": refit(
                    d[rows[:batch]], l2
                )[0],
                "the answers are turned": -weights[0],
                "answers of other questions were used": refit(
                    np.where(answers[others][:, None], d[others], -d[others]), l2
                )[0],
                "answers that were not bought were used": refit(
                    np.where(answers[:, None], d, -d), l2
                )[0],
            },
        )
        expect_close(
            asked,
            rows,
            what="the questions",
            property=f"the later batches are chosen by the rule {rule!r}",
            hint="random: `dice.choice` of the free rows, without replacement; D-optimal: your "
            "greedy_batch with the newest weights and precision",
        )
        expect_close(
            fitted,
            weights,
            rtol=1e-4,
            atol=1e-5,
            what="the weights",
            property="each fit uses all answers so far",
            hint="not only those of the newest batch",
        )
        whole = expect_type(
            answer(d[:budget], answers[:budget], rule, budget, batch, l2, seed), dict, hint=hint
        )
        expect(
            np.array_equal(np.sort(as_array(whole.get("asked"), (budget,))), np.arange(budget)),
            property="a budget as large as the pool buys each question once",
            hint="after the last fit there is nothing to choose any more",
        )


register(
    Exercise(
        id="16L.4",
        title="Ask, refit, choose",
        function="run_active",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can write the loop of active learning, and compare it fairly with chance.",
        hints=(
            "Keep a list of the rows that were asked, and a mask of those that are free.",
            "`np.where(answers[asked][:, None], d[asked], -d[asked])` has the preferred one first.",
            "After the last fit there is nothing to choose any more.",
        ),
        check=check_run_active,
        without=BORROWED,
    )
)


# --- 16L.5 --------------------------------------------------------------------------------------


def check_draw_curves(answer, rng):
    seeds, steps = int(rng.integers(7, 12)), int(rng.integers(4, 8))
    labels = int(rng.integers(4, 12)) * np.arange(1, steps + 1)
    rising = np.linspace(0.2, 0.6, steps)
    chance = rising + 0.1 * rng.normal(size=(seeds, steps))
    chosen = rising + 0.2 + 0.1 * rng.normal(size=(seeds, steps)) ** 3
    (panel,) = expect_picture(
        answer(labels, chance, chosen), hint="one pair of axes is enough"
    ).axes
    for name, ys in (("random", chance), ("D-optimal", chosen)):
        expect_line(
            panel,
            labels,
            ys.mean(axis=0),
            property=f"a line shows the mean over seeds for {name} choice, against labels",
            hint="average over the rows; along x stand the labels, not the number of the batch",
        )
        for q in (0.25, 0.75):
            expect_line(
                panel,
                labels,
                np.quantile(ys, q, axis=0),
                property=f"a line shows the {q:.0%} quantile over seeds for {name} choice",
                hint="`np.quantile(ys, q, axis=0)`; the spread says what one run is worth",
            )
    expect_legend(
        panel,
        {"random": chance.mean(axis=0), "optimal": chosen.mean(axis=0)},
        property="a legend names the two means, differently and rightly",
    )
    expect(
        "label" in panel.xlabel.lower() and "correlation" in panel.ylabel.lower(),
        property="the labels of the axes say what is counted and what is measured",
        hint="labels, and a rank correlation",
    )


register(
    Exercise(
        id="16L.5",
        title="The picture: is it better than chance?",
        kind="figure",
        function="draw_curves",
        points=2,
        difficulty=1,
        minutes=15,
        importance=4,
        goal="You can compare two learners with their spread.",
        hints=(
            "A loop over the two rules, and three calls of `plot` in it.",
            "Only the mean needs a `label`.",
            "Thin dashed lines of the same colour serve for the quantiles.",
        ),
        check=check_draw_curves,
    )
)


# --- 16L.6 --------------------------------------------------------------------------------------


def check_learn(answer, rng):
    hint = 'return {"asked": asked, "weights": weights}'

    def run(features, answers, seed, budget=BUDGET):
        got = expect_type(answer(features, answers, budget, seed), dict, hint=hint)
        expect(
            set(got) == {"asked", "weights"},
            property="the result has the keys 'asked' and 'weights'",
            hint=hint,
        )
        asked = as_array(got["asked"], (-1, 3), what="`asked`", hint="rows x, i, j")
        k = features.shape[-1]
        return asked.astype(int), as_array(got["weights"], (k,), what="`weights`", hint=hint)

    reached, by_chance = [], []
    for number in range(POOLS):
        features, answers, test, gold = draw_pool(rng)
        seed = int(rng.integers(10_000))
        asked, weights = run(features, answers, seed)
        x, i, j = asked.T
        if number < 5:
            inside = (asked >= 0).all() and (x < len(features)).all()
            inside &= (np.maximum(i, j) < features.shape[1]).all()
            expect(
                inside and (i != j).all(),
                property="a question is a prompt x and two different responses i and j to it",
                hint="all three count from 0",
            )
            expect(
                len(asked) <= BUDGET,
                property="no more labels are bought than the budget allows",
                hint="the first batch counts, too",
                detail=f"{len(asked)} were bought, the budget is {BUDGET}",
            )
            pairs = np.stack([x, np.minimum(i, j), np.maximum(i, j)], axis=1)
            expect(
                len(np.unique(pairs, axis=0)) == len(asked),
                property="no question is asked twice, not even with its responses exchanged",
                hint="let i < j in each question",
            )
            few = len(run(features, answers, seed, BUDGET // 2)[0])
            expect(
                few <= BUDGET // 2,
                property="no more labels are bought than the budget allows",
                hint="`budget` is an argument: it is not always the same",
                detail=f"{few} were bought, the budget is {BUDGET // 2}",
            )
            d = features[x, i] - features[x, j]
            won = answers[x, i, j]
            expect_close(
                weights,
                refit(np.where(won[:, None], d, -d), L2)[0],
                rtol=1e-3,
                atol=1e-4,
                what="`weights`",
                property="the weights are the mode for all answers that were bought, with l2 = 1",
                hint="the last batch was paid for: is it in the last fit?",
            )
            changed = ~answers
            changed[x, i, j], changed[x, j, i] = answers[x, i, j], answers[x, j, i]
            again = run(features, changed, seed)
            expect(
                np.array_equal(again[0], asked) and np.allclose(again[1], weights, atol=1e-4),
                property="answers that were not bought change nothing, and the same seed asks the "
                "same questions",
                hint="look at answers[x, i, j] of a question only after you chose it",
            )
        named, d = questions(features)
        replies = answers[named[:, 0], named[:, 1], named[:, 2]]
        fair = active(d, replies, "random", BUDGET, BATCH, L2, seed)[1][-1]
        reached.append(within_prompt_spearman(test @ weights, gold))
        by_chance.append(within_prompt_spearman(test @ fair, gold))
    mean, chance = float(np.mean(reached)), float(np.mean(by_chance))
    expect(
        mean >= chance + GAIN,
        property=f"on {POOLS} fresh pools the rank correlation on new prompts is, on average, at "
        f"least {GAIN:g} above that of random choice",
        hint="which questions does your learner ask after the first batch? Print a few gaps d . w "
        "and lengths of d",
        detail=f"the grader measured {mean:.3f}, and {chance:.3f} for random choice",
    )


register(
    Exercise(
        id="16L.6",
        title="The whole: learn from sixty labels",
        function="learn",
        points=5,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can build a learner that spends a budget of labels where they teach.",
        hints=(
            "List all questions x, i, j with i < j, and the differences of their features.",
            "`answers[x, i, j]` for the whole list is what `run_active` takes; it looks only at "
            "what it asks.",
            "Small batches choose better, because each choice knows more answers.",
        ),
        check=check_learn,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 16L.7 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="16L.7",
        title="Where choosing does not pay",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say when to trust a learner that chooses its questions, and when not to.",
        hints=(
            "At how many labels does chance reach what the chooser has after thirty?",
            "In which pools are all questions nearly equally good?",
            "From where does the learner know lambda and Sigma?",
        ),
        rubric=(
            Criterion(
                1,
                "reads the picture: both begin with the same random batch; the labels saved at "
                "one level of correlation, and whether the quartiles overlap",
            ),
            Criterion(
                1,
                "why it pays here: in most prompts the responses hardly differ, so random choice "
                "buys coin flips; names what happens to the gain without drafts",
            ),
            Criterion(
                1,
                "uncertainty sampling buys exactly those coin flips, since a gap near zero may be "
                "ignorance or noise; lambda d' Sigma d tells the two apart by the length of d",
            ),
            Criterion(
                1,
                "lambda and Sigma are statements of the model: where gold is not linear in the "
                "features (chapter 16, section 5) no gain over chance was established; so compare "
                "with random choice on data of your own",
            ),
            Criterion(
                1,
                "accuracy on the labels that were chosen describes the choice: keep random pairs "
                "apart to measure and to stop by",
            ),
        ),
    )
)
