"""Exercises of chapter 19: verifiers, outcomes and processes."""

from __future__ import annotations

import math

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect_close, expect_equal

# --- 19.1 ---------------------------------------------------------------------------------------


def check_pass_at_k(answer, rng):
    n, k = int(rng.integers(12, 20)), int(rng.integers(3, 6))
    right = np.array([0, 1, 2, n - k, n - k + 1, n, int(rng.integers(3, n - k))])
    want = np.array([1 - math.comb(n - int(c), k) / math.comb(n, k) for c in right])
    expect_close(
        answer(right, n, k),
        want,
        property="it is the share of the subsets of k samples that hold a right one",
        hint="of how many subsets of size k is every member wrong?",
        mistakes={
            "it draws with replacement, which is biased": 1 - (1 - right / n) ** k,
            "it is pass@1": right / n,
            "it is the chance that all k are right": [
                math.comb(int(c), k) / math.comb(n, k) for c in right
            ],
            "it is the chance that all k are wrong": 1 - want,
            "it is one number for all problems, not one for each": np.full(len(right), want.mean()),
        },
    )
    large = as_array(
        answer(np.array([3, 40]), 5_000, 1_000), (2,), what="the answer for n = 5,000, k = 1,000"
    )
    exact = [1 - math.comb(5_000 - c, 1_000) / math.comb(5_000, 1_000) for c in (3, 40)]
    expect_close(
        large,
        exact,
        what="the answer for n = 5,000, k = 1,000",
        property="large n and k do not overflow",
        hint="a product of ratios needs no factorial",
    )


register(
    Exercise(
        id="19.1",
        title="pass@k without bias",
        function="pass_at_k",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can estimate what a model can do in k tries, from n samples.",
        hints=(
            "All k samples of a subset are wrong in C(n - c, k) of C(n, k) cases.",
            "That ratio is the product of (n - c - i) / (n - i) over i = 0 ... k - 1.",
            "Where fewer than k samples are wrong, one factor is 0 and the product with it.",
        ),
        check=check_pass_at_k,
    )
)


# --- 19.2 ---------------------------------------------------------------------------------------


def check_true_accuracy(answer, rng):
    table = np.array(
        [[int(rng.integers(200, 300)), int(rng.integers(31, 45))], [int(rng.integers(20, 30)), 0]]
    )
    table[1, 1] = int(rng.integers(90, 120))  # a stays below what is said: nothing is clipped
    said = float(rng.uniform(0.3, 0.45))

    def truth(a, b, clip=True):
        q = (said - b) / (1 - a - b)
        return float(np.clip(q, 0, 1)) if clip else q

    a, b = table[1, 0] / table[1].sum(), table[0, 1] / table[0].sum()
    by_verdict = (table[1, 0] / table[:, 0].sum(), table[0, 1] / table[:, 1].sum())
    expect_close(
        answer(table, said),
        truth(a, b),
        property="(19.1), solved for the share that is really right",
        hint="the verifier says yes to b of the wrong ones and 1 - a of the right ones",
        mistakes={
            "it is what the verifier says": said,
            "the error rates are shares of verdicts: they belong to the labels": truth(*by_verdict),
            "refused and accepted are swapped": truth(b, a),
            "accepted wrong ones are not taken off": said / (1 - a - b),
            "refused right ones are forgotten": (said - b) / (1 - b),
            "the rates are shares of the whole table": truth(
                table[1, 0] / table.sum(), table[0, 1] / table.sum()
            ),
            "it is the accuracy of the labelled sample": table[1].sum() / table.sum(),
        },
    )
    for low, end in ((b / 3, 0.0), (1 - a / 3, 1.0)):
        expect_close(
            answer(table, low),
            end,
            what="the estimate where the verifier says yes less often than it errs, or more",
            property="a share lies between 0 and 1",
            hint="sampling error can carry the formula outside",
        )


register(
    Exercise(
        id="19.2",
        title="What a verifier's verdicts are worth",
        function="true_accuracy",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can correct a measured accuracy for the verifier's own errors.",
        hints=(
            "a is the share of the RIGHT solutions that are refused: a row of the table.",
            "The mean of (19.1) over solutions is said = b + (1 - a - b) q.",
            "Solve for q, and keep it in [0, 1].",
        ),
        check=check_true_accuracy,
    )
)


# --- 19.3 ---------------------------------------------------------------------------------------


def check_weighted_answer(answer, rng):
    names = [str(x) for x in rng.permutation(np.arange(10, 60))[:4]]
    many, heavy, single, late = names
    answers = [many, heavy, many, None, many, heavy, single, None]
    weights = [0.2, 0.5, 0.2, 0.9, 0.2, 0.45, 0.8, 0.9]
    order = rng.permutation(len(answers))
    expect_equal(
        answer([answers[i] for i in order], [weights[i] for i in order]),
        heavy,
        property="the answer with the largest sum of weights wins",
        hint=(
            "three light votes, two middling ones and a heavy one: whose sum is largest? "
            "And a solution without an answer has no vote"
        ),
    )
    for one, two in ((late, many), (many, late)):
        expect_equal(
            answer([one, two, one, two], [0.25, 0.5, 0.5, 0.25]),
            one,
            property="of answers with equal sums, the one that was given first wins",
            hint="max() of a dict in order of insertion keeps the first",
        )
    expect_equal(
        answer([one, two, two, one], [0.25, 0.5, 0.25, 0.5]),
        one,
        property="of answers with equal sums, the one that was given first wins",
        hint="given first, and not the first to reach the sum",
    )
    expect_equal(
        answer([None, one, two], [0.4, 0.0, 0.0]),
        one,
        property="a vote of weight 0 is a vote",
        hint="with which sum does your search for the largest begin?",
    )
    expect_equal(
        answer([one, "", ""], [0.5, 0.25, 0.5]),
        "",
        property="an empty text is an answer, too",
        hint="only None means that there is no answer: what does `if` make of an empty text?",
    )
    expect_equal(
        answer([None, None], [0.7, 0.1]),
        None,
        property="without any answer there is none to give",
        hint="what should come out if nobody votes?",
    )


register(
    Exercise(
        id="19.3",
        title="A weighted vote",
        function="weighted_answer",
        points=2,
        difficulty=1,
        minutes=10,
        importance=4,
        goal="You can combine many samples and a verifier's scores into one answer.",
        hints=(
            "Collect the sums in a dictionary.",
            "Skip None before you add.",
            "max(sums, key=sums.get) returns the first of those that tie.",
        ),
        check=check_weighted_answer,
    )
)


# --- 19.4 ---------------------------------------------------------------------------------------


def check_solution_scores(answer, rng):
    lengths = np.array([3, 1, int(rng.integers(4, 7)), 2])
    chances = rng.uniform(0.2, 0.95, size=lengths.sum())
    chances[lengths[:2].sum()] = 0.1  # the third solution's worst step is its first
    parts = np.split(chances, np.cumsum(lengths)[:-1])
    want = np.array([[x.prod(), x.min(), x[-1]] for x in parts])
    blocks = [chances[: len(x)] for x in parts]
    expect_close(
        answer(chances, lengths),
        want,
        property="product, minimum and last of each solution's own steps",
        hint="where does a solution begin in the flat list?",
        mistakes={
            "each solution starts at the first number": np.array(
                [[x.prod(), x.min(), x[-1]] for x in blocks]
            ),
            "the product is a mean": np.array([[x.mean(), x.min(), x[-1]] for x in parts]),
            "the product is a geometric mean: it must fall with every doubtful step": np.array(
                [[x.prod() ** (1 / len(x)), x.min(), x[-1]] for x in parts]
            ),
            "the minimum is a maximum": np.array([[x.prod(), x.max(), x[-1]] for x in parts]),
            "the last is the first": np.array([[x.prod(), x.min(), x[0]] for x in parts]),
            "the columns are in another order": want[:, ::-1],
        },
    )


register(
    Exercise(
        id="19.4",
        title="One number from many steps",
        function="solution_scores",
        points=2,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can make a solution's score from the chances of its steps.",
        hints=(
            "np.split(chances, np.cumsum(lengths)[:-1]) cuts the flat list.",
            "Each part gives one row.",
            "The last of a part is part[-1].",
        ),
        check=check_solution_scores,
    )
)


# --- 19.5 ---------------------------------------------------------------------------------------


def check_is_right(answer, rng):
    number = int(rng.integers(1_100, 9_900))
    shown, other = f"{number:,}", number + int(rng.integers(1, 50))
    cases = [
        (f"So it is {number}.\n#### {number}", str(number), True, "the plain case"),
        (f"#### {other}", str(number), False, "another number"),
        (f"#### {shown}", str(number), True, "a thousands separator"),
        (f"#### {number}", shown, True, "a thousands separator in the truth"),
        (f"#### {number}.00", str(number), True, "decimals that are zero"),
        (f"#### ${number}", str(number), True, "a dollar sign"),
        (f"#### {number}.", str(number), True, "a full stop behind the number"),
        (f"#### {number}.00.", str(number), True, "a full stop behind decimals"),
        (f"#### {number}.5", str(number), False, "decimals that are not zero"),
        (f"#### -{number}", str(number), False, "another sign"),
        (f"#### {other}\nNo. #### {number}", str(number), True, "the last of two marks"),
        (f"#### {number}\nNo. #### {other}", str(number), False, "the last of two marks"),
        (f"It is {number}.", str(number), False, "a solution without a mark"),
        (f"It is {number}. ####", str(number), False, "a mark with nothing behind it"),
        (f"#### {number}{int(rng.integers(1, 9))}", str(number), False, "more digits"),
        (f"#### {number}", f"${shown}.00.", True, "dollar, decimals and full stop in the truth"),
        (f"#### {number}.50", f"{number}.5", True, "decimals written in two ways"),
        (f"#### {number}.01", str(number), False, "decimals that are small, and not zero"),
        (f"#### -{number}", f"-{number}", True, "a negative number"),
        (f"#### {number} ####", str(number), False, "a last mark with nothing behind it"),
    ]
    for solution, truth, want, what in cases:
        expect_equal(
            bool(answer(solution, truth)),
            want,
            what=f"the verdict on {what}",
            property=f"numbers are compared, behind the last mark: {what}",
            hint="bring both texts to numbers first: no separators, no dollar, no full stop",
        )


register(
    Exercise(
        id="19.5",
        title="The verifier that wanted spelling",
        function="is_right",
        kind="bug hunt",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can write a verifier that compares numbers, and test it before training.",
        hints=(
            "Try the buggy verifier on '1,000' and '1000'.",
            "Take the text behind the LAST mark, and remove ',', '$' and blanks from both texts.",
            "float() of what is left, without a full stop at its end; where that fails, False.",
        ),
        check=check_is_right,
    )
)


# --- 19.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="19.6",
        title="A press release to judge",
        function="",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say what a gain from verifiable rewards shows, and what it does not.",
        hints=(
            "Which curve would tell sharpening from new ability?",
            "What would dice reach on this benchmark?",
            "Which three control runs of section 6 are missing?",
        ),
        rubric=(
            Criterion(
                1, "pass@1 up and pass@k equal is sharpening; ask for greedy and maj@k before"
            ),
            Criterion(1, "four options: pass@16 is near 1 for dice and shows nothing"),
            Criterion(1, "right answers are no right reasons: (19.2); check steps of a sample"),
            Criterion(1, "controls: format or random reward, another model family, several seeds"),
            Criterion(1, "the verifier's own errors are counted for this model before training"),
        ),
    )
)
