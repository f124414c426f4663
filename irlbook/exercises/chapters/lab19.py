"""Lab of chapter 19: a judge of steps that nobody labelled, from a skeleton."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_equal,
    expect_legend,
    expect_length,
    expect_line,
    expect_picture,
    expect_type,
)

BORROWED = ("irlbook.posttraining", "irlbook.tasks")
HABITS = {"right": 0.5, "carry": 0.2, "slip": 0.1, "misread": 0.2}
KINDS = (*HABITS, "guess", "answer", "stop")
GUESS, LOST = 0.3, 0.05  # how often no step is written, and how often no answer
CODES = 2 * len(KINDS)
WORLDS, TRAIN, TEST, CANDIDATES = 6, 40, 60, 16  # of the last check
GAIN = 0.03  # above a majority that learned nothing; on 20 seeds the reference had 0.078 or more


def result_of(value, sign, amount):
    """The value after an operation."""
    return value + amount if sign == "+" else value - amount


def draw_problem(rng, steps=(2, 3)):
    """Start and operations; every value lies in 1 ... 24."""
    start = value = int(rng.integers(2, 25))
    operations = []
    for _ in range(int(rng.integers(steps[0], steps[1] + 1))):
        sign = "+" if value < 2 or (value < 24 and rng.random() < 0.5) else "-"
        room = 24 - value if sign == "+" else value - 1
        operations.append((sign, int(rng.integers(1, min(room, 9) + 1))))
        value = result_of(value, *operations[-1])
    return start, operations


def answer_to(start, operations, modulus=5):
    """What is left over."""
    for operation in operations:
        start = result_of(start, *operation)
    return start % modulus


def choices(value, sign, amount):
    """{piece: (result, kind, chance)}; a forgotten carry that changes nothing is a right step."""
    other = "-" if sign == "+" else "+"
    true = result_of(value, sign, amount)
    made = [
        (sign, true, "right", HABITS["right"]),
        (sign, value - value % 10 + true % 10, "carry", HABITS["carry"]),
        *((sign, true + by, "slip", HABITS["slip"] / 2) for by in (1, -1)),
        (other, result_of(value, other, amount), "misread", HABITS["misread"]),
    ]
    found = {}
    for s, result, kind, chance in made:
        piece = f"{value}{s}{amount}={result};"
        first = found.get(piece, (result, kind, 0.0))
        found[piece] = (*first[:2], first[2] + chance)
    return found


def draw_tree(start, operations):
    """The writer's tree {prefix: {piece: chance}}, and the kind of each prefix's last piece."""
    tree, kinds = {}, {}
    open_ones = [("", start, 0, 1 - GUESS)]
    while open_ones:
        prefix, value, i, scale = open_ones.pop()
        if i < len(operations):
            branch = choices(value, *operations[i])
        else:
            branch = {f"Answer:{value % 5}": (0, "answer", 1 - LOST), "Answer:": (0, "stop", LOST)}
        tree[prefix] = {piece: scale * chance for piece, (_, _, chance) in branch.items()}
        for piece, (result, kind, _) in branch.items():
            kinds[prefix + piece] = kind
            if i < len(operations):
                open_ones.append((prefix + piece, result, i + 1, 1.0))
    for guess in range(5):
        tree[""][f"Answer:{guess}"] = GUESS / 5
        kinds[f"Answer:{guess}"] = "guess"
    return tree, kinds


def said(text):
    """The answer of a finished solution, -1 for none."""
    number = text.rpartition("Answer:")[2]
    return int(number) if number.isdigit() else -1


def values_of(tree, answer, weigh=None):
    """Value of every prefix; `weigh` changes a branch's chances, to make known mistakes."""
    found = {}
    for prefix in sorted({p + piece for p, b in tree.items() for piece in b} | set(tree))[::-1]:
        branch = tree.get(prefix)
        if branch is None:
            found[prefix] = float(said(prefix) == answer)
        else:
            chances = np.array(list(branch.values()))
            chances = chances if weigh is None else weigh(chances)
            found[prefix] = float(chances @ [found[prefix + piece] for piece in branch])
    return found


def even(chances):
    """All possible pieces alike."""
    return (chances > 0) / (chances > 0).sum()


def likeliest(chances):
    """Only the likeliest piece."""
    return (np.arange(len(chances)) == chances.argmax()).astype(float)


# --- 19L.1 --------------------------------------------------------------------------------------


def check_check_steps(answer, rng):
    hint = "return labels, answer right, sound"
    rule = "every step is compared with the true value and the operation at its place"

    def judged(text, labels, right, sound, what, property=rule, why="", modulus=5):
        got = expect_length(answer(start, operations, modulus, text), 3, hint=hint)
        expect_type(got[0], (list, tuple, np.ndarray), what="the labels", hint="a list of bool")
        ask = why or "compute the true values first, and then compare piece by piece"
        found = as_array(np.asarray(got[0], dtype=object).astype(float).tolist(), what="the labels")
        expect_equal(
            found,
            np.array(labels, float),
            what=f"the labels of {what}",
            property=property,
            hint=ask,
        )
        for name, value, want in (("answer right", got[1], right), ("sound", got[2], sound)):
            expect(
                bool(value) == want,
                property=f"{property}: `{name}` of {what} is {want}",
                hint=ask,
            )

    while True:  # 5 + 8 carries; the signs differ; the last operation changes the remainder
        ones, more = (int(x) for x in rng.integers(5, 9, size=2))
        start, less = 10 + ones, int(rng.integers(2, 9))
        operations = [("+", more), ("-", less), ("+", 1)]
        one, two = start + more, start + more - less
        if ones + more >= 10 and two > 9 and more != ones and less % 5:
            break
    three = two + 1
    good = [f"{start}+{more}={one}", f"{one}-{less}={two}", f"{two}+1={three}"]
    a = f"Answer:{three % 5}"
    judged(";".join([*good, a]), [1, 1, 1], True, True, "a careful solution")
    judged(
        f"{start}+{more}={one - 10};{one - 10}-{less}={two - 10};{two - 10}+1={three - 10};{a}",
        [0, 0, 0],
        True,
        False,
        "a solution that forgot a carry",
    )
    judged(
        f"{good[0]};{one}-{less}={two + 1};{good[2]};{a}",
        [1, 0, 0],
        True,
        False,
        "a solution with a right step behind a wrong one",
        "the label says whether all steps up to this one are right",
        "a prefix does not recover",
    )
    judged(
        f"{good[0]};{good[1]};{a}",
        [1, 1],
        True,
        False,
        "a solution without its last step",
        "a sound solution has a right step for each operation",
        "how many labels must there be?",
    )
    judged(
        f"{a}",
        [],
        True,
        False,
        "a guess without steps",
        "a sound solution has a right step for each operation",
        "how many labels must there be?",
    )
    judged(
        ";".join([*good, f"{three}+0={three}", a]),
        [1, 1, 1, 0],
        True,
        False,
        "a solution with a step too many",
        "a step beyond the last operation is wrong",
        "which operation does the fourth step do?",
    )
    judged(
        ";".join([f"{more}+{start}={one}", *good[1:], a]),
        [1, 1, 1],
        True,
        True,
        "a solution with a sum the other way round",
        "the two sides of a sum may be exchanged",
        "a + b = b + a",
    )
    judged(
        ";".join([good[0], f"{less}-{one}={two}", good[2], a]),
        [1, 0, 0],
        True,
        False,
        "a solution with a difference the other way round",
        "only the sides of a sum may be exchanged",
        "a - b is not b - a",
    )
    judged(
        ";".join([good[0], f"{one}-{less + 1}={two}", good[2], a]),
        [1, 0, 0],
        True,
        False,
        "a solution with a false equation and a right result",
        "a right step is a true equation of the right numbers",
        "compare both numbers on the left, too",
    )
    for other, what, ask in (
        (f"{start}-{more}={one}", "minus for plus between the right numbers", "read the sign"),
        (f"{start}{more}={one}", "no sign between the right numbers", "read the sign"),
        (f"{good[0]} eggs", "words behind a right equation", "the whole piece is the equation"),
        (f"so {good[0]}", "words before a right equation", "the whole piece is the equation"),
    ):
        judged(
            ";".join([other, *good[1:], a]),
            [0, 0, 0],
            True,
            False,
            f"a solution with {what}",
            "a right step is the equation with its sign, and nothing else",
            ask,
        )
    judged(
        ";".join([good[0], f"{one}+{less}={two}", good[2], a]),
        [1, 0, 0],
        True,
        False,
        "a solution with plus for minus between the right numbers",
        "a right step is the equation with its sign, and nothing else",
        "read the sign",
    )
    for other in (f"{two - 3}+3={two}", f"{two + 1}-1={two}"):
        judged(
            ";".join([good[0], other, good[2], a]),
            [1, 0, 0],
            True,
            False,
            "a solution with a true equation that does another thing",
            "a right step applies the operation at its place to the value before it",
            "`7+3=10` is true, and is it what the story says?",
        )
    judged(
        f" {start} + {more} = 0{one} ; {good[1]};{good[2]};;Answer: 0{three % 5} ",
        [1, 1, 1],
        True,
        True,
        "a careful solution with blanks, zeros in front and an empty piece",
        "blanks and empty pieces change nothing, and numbers count as numbers",
        "remove blanks first, skip empty pieces, and compare int() of digits",
    )
    judged(
        ";".join([*good, f"Answer:{(three + 1) % 5}"]),
        [1, 1, 1],
        False,
        False,
        "right steps with a wrong answer",
        "the answer is the remainder of the true last value",
        "what is left over?",
    )
    strict = "whole number and nothing else stands behind the mark"
    for tail, labels in (
        (f"{a} or {three}", [1, 1, 1]),
        ("Answer:", [1, 1, 1]),
        (f"{a}.", [1, 1, 1]),
        (f"Answer:{three % 5}.0", [1, 1, 1]),
        (f"Answer:{three}", [1, 1, 1]),
        ("Answer:\u00b2", [1, 1, 1]),  # isdigit() says yes to this power, and int() fails
        (f"{a};Answer:{(three + 1) % 5}", [1, 1, 1, 0]),
        (f"{a};so", [1, 1, 1, 0, 0]),
        (f"{a};", [1, 1, 1, 0]),  # the last piece is empty
    ):
        judged(
            ";".join([*good, tail]),
            labels,
            False,
            False,
            f"right steps that end with {tail!r}",
            f"an answer counts if it is the last piece and a {strict}",
            "an answer that is not the last piece is a step, and a wrong one",
        )
    judged(
        ";".join(good),
        [1, 1, 1],
        False,
        False,
        "right steps without an answer",
        "without an answer nothing is right",
        "what does your code read as the answer if there is none?",
    )
    judged("", [], False, False, "an empty text", "an empty text has no step and no answer", "no")
    judged(
        ";".join([*good, f"Answer:{three % 7}"]),
        [1, 1, 1],
        True,
        True,
        "a careful solution for bags of 7",
        "the answer is the remainder by the modulus that is given",
        "`modulus` is an argument: it is not always 5",
        modulus=7,
    )


register(
    Exercise(
        id="19L.1",
        title="A checker of steps",
        function="check_steps",
        points=4,
        difficulty=2,
        minutes=25,
        importance=5,
        goal="You can write a verifier that labels every step, and knows what it does not accept.",
        hints=(
            "Remove all blanks, split at ';', and take the answer off first.",
            "`piece.partition('=')`, then split the left side at the operation's sign; "
            "`str.isdecimal()` says whether int() is safe.",
            "Carry the true value along, and a flag that stays False once it is False.",
        ),
        check=check_check_steps,
        without=BORROWED,
    )
)


# --- 19L.2 --------------------------------------------------------------------------------------


def check_values_of(answer, rng):
    tree, _ = draw_tree(*draw_problem(rng, (2, 2)))
    tree[""] = {"0+0=0;": 0.0, **tree[""]}  # a piece that is possible in form, and never written
    tree["0+0=0;"] = {"Answer:1": 0.5, "Answer:11": 0.5}
    tree["15+8=23;"] = {"Answer:1": 0.25, "Answer:11": 0.25, "Answer:": 0.5}
    tree[""]["15+8=23;"] = tree[""].get("15+8=23;", 0.0)
    right = 1
    want = values_of(tree, right)
    got = expect_type(answer(tree, right), dict, hint="return {prefix: chance}")
    expect(
        set(got) == set(want),
        property="each prefix has a value: the empty one, those in the tree and the finished ones",
        hint="finished solutions are prefix + piece that are no key of the tree",
        detail=f"{len(set(want) - set(got))} are missing, {len(set(got) - set(want))} are too many",
    )
    order = sorted(want)

    def as_table(found):
        return np.array([found[prefix] for prefix in order])

    def reached():
        found = {}
        for prefix in order[::-1]:
            branch = [found[prefix + piece] for piece in tree.get(prefix, {})]
            found[prefix] = max(branch) if branch else want[prefix]
        return as_table(found)

    def by_end():
        return {p: float(p.endswith(str(right))) for p in order}

    ends = by_end()
    for prefix in order[::-1]:
        if prefix in tree:
            ends[prefix] = sum(q * ends[prefix + piece] for piece, q in tree[prefix].items())
    expect_close(
        as_array([got[prefix] for prefix in order], (len(order),), what="the values"),
        as_table(want),
        what="the values",
        property="a value is the mean of the values behind it, weighted by the chances",
        hint="finished: 1 or 0; else the sum of chance times value of prefix + piece",
        mistakes={
            "all pieces are equally likely": lambda: as_table(values_of(tree, right, even)),
            "the writer takes the likeliest piece": lambda: as_table(
                values_of(tree, right, likeliest)
            ),
            "it says whether the right answer can be reached": reached,
            "an answer that only ends with the right digit counts": as_table(ends),
            "it is the chance to be wrong": 1 - as_table(want),
        },
    )


register(
    Exercise(
        id="19L.2",
        title="What a prefix is worth",
        function="values_of",
        points=2,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can compute the number that rollouts estimate.",
        hints=(
            "A recursive function value(prefix) that fills a dictionary.",
            "`prefix not in tree` says that it is finished.",
            "`answer_of(prefix) == answer`, not the last digit of the text.",
        ),
        check=check_values_of,
        without=BORROWED,
    )
)


# --- 19L.3 --------------------------------------------------------------------------------------


def check_rollout_labels(answer, rng):
    start, operations = draw_problem(rng, (2, 2))
    tree, kinds = draw_tree(start, operations)
    right = answer_to(start, operations)
    want = values_of(tree, right)
    finished = [p for p in want if p not in tree]
    wins = [p for p in finished if want[p] == 1][:3]
    loses = [p for p in finished if want[p] == 0][:3]
    half = [p for p in tree if 0.03 < want[p] < 0.97]
    picked = ["", *(str(p) for p in rng.permutation(half)[:9])]

    def run(prefixes, k, seed):
        got = expect_length(
            answer(tree, right, prefixes, k, np.random.default_rng(seed)), 2, hint="soft and hard"
        )
        return [
            as_array(x, (len(prefixes),), what=f"the {name} labels")
            for x, name in zip(got, ("soft", "hard"), strict=True)
        ]

    mixed = [wins[0], *picked, loses[0], *wins[1:], *loses[1:]]
    soft, hard = run(mixed, 3, 0)
    ends = np.array([p not in tree for p in mixed])
    expect_close(
        np.stack([soft[ends], hard[ends]]),
        np.tile([want[p] for p in mixed if p not in tree], (2, 1)),
        what="the labels of finished solutions",
        property="the labels of a finished solution are its own answer, 1 or 0, in the order of "
        "the list",
        hint="nothing can be drawn behind it",
    )
    expect(
        np.abs(3 * soft - np.round(3 * soft)) < 1e-9,
        property="a soft label is a share of the k completions",
        hint="of how many completions is the answer right, divided by k",
    )
    k = 600
    soft, hard = run(picked, k, int(rng.integers(10_000)))
    # five standard errors at the most, sqrt(0.25 / 600) = 0.02 each
    expect_close(
        soft,
        [want[p] for p in picked],
        rtol=0,
        atol=0.1,
        what=f"the soft labels from {k} completions",
        property="with many completions the soft label is near the value of the prefix",
        hint="go on from the prefix, with the chances of the tree, until it is finished",
        mistakes={
            "every completion begins at the empty prefix": np.full(len(picked), want[""]),
            "all pieces are drawn alike": lambda: np.array(
                [values_of(tree, right, even)[p] for p in picked]
            ),
            "the likeliest piece is always taken": lambda: np.array(
                [values_of(tree, right, likeliest)[p] for p in picked]
            ),
            "wrong answers were counted": np.array([1 - want[p] for p in picked]),
        },
    )
    one = next(p for p in half if 0.2 < want[p] < 0.8)
    soft, hard = run([one] * 400, 4, int(rng.integers(10_000)))
    expect(
        set(np.unique(hard)) <= {0.0, 1.0} and np.array_equal(hard == 1, soft > 0),
        property="the hard label is 1 if at least one completion is right, else 0",
        hint="`(soft > 0)`, and neither a majority nor all",
    )
    spread = want[one] * (1 - want[one]) / 4
    expect(
        0.6 * spread < soft.var() < 1.6 * spread,
        property="each prefix in the list gets k completions of its own",
        hint="a prefix that stands in the list 400 times is completed 400 times k times",
        detail=f"the variance of the soft labels is {soft.var():.4f}, expected {spread:.4f}",
    )
    again, _ = run([one] * 400, 4, 7)
    same, _ = run([one] * 400, 4, 7)
    other, _ = run([one] * 400, 4, 8)
    expect(
        np.array_equal(again, same) and not np.array_equal(again, other),
        property="everything is drawn with the generator that is passed",
        hint="`dice.random()` or `dice.choice(...)`, and no generator of your own",
    )


register(
    Exercise(
        id="19L.3",
        title="Labels by rollouts",
        function="rollout_labels",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can label steps without looking at them.",
        hints=(
            "While the text is in the tree, draw a piece and append it.",
            "`dice.choice(list(branch), p=list(branch.values()))` draws a piece of the branch.",
            "Soft: right completions divided by k. Hard: is the soft one above 0?",
        ),
        check=check_rollout_labels,
        without=BORROWED,
    )
)


# --- 19L.4 --------------------------------------------------------------------------------------


def both_judges(codes, labels, before, n_codes, prior):
    """Values and gains by their definitions."""
    values, gains = np.zeros((2, n_codes))
    for c in range(n_codes):
        rows = codes == c
        values[c] = (labels[rows].sum() + prior * labels.mean()) / (rows.sum() + prior)
        pull = prior * before.mean()
        gains[c] = (labels[rows].sum() + pull) / (before[rows].sum() + pull)
    return values, gains


def check_fit_judges(answer, rng):
    n_codes, rows = int(rng.integers(6, 9)), int(rng.integers(60, 90))
    codes = rng.integers(0, n_codes - 2, size=rows)  # the last two are never seen
    before = rng.integers(0, 9, size=rows) / 8
    labels = rng.integers(0, 9, size=rows) / 8
    before[codes == 0] = 0.0  # after pieces of this code nothing was possible before
    labels[codes == 1], before[codes == 1] = 1.0, 0.125
    prior = float(rng.uniform(1.5, 4.0))
    values, gains = both_judges(codes, labels, before, n_codes, prior)
    got = expect_length(
        answer(codes, labels, before, n_codes, prior), 2, hint="return values and gains"
    )
    count = np.bincount(codes, minlength=n_codes)
    totals, ahead = (np.bincount(codes, x, n_codes) for x in (labels, before))
    seen = count > 0
    expect_close(
        got[0],
        values,
        what="the values",
        property="a value is the mean label of a code, drawn towards the mean of all rows",
        hint="add the prior's m rows with the mean label to the sum and to the count",
        mistakes={
            "there is no prior": lambda: np.where(seen, totals / np.maximum(count, 1), 0),
            "the prior draws towards one half": (totals + prior / 2) / (count + prior),
            "the prior draws towards 0": totals / (count + prior),
            "the labels before were used": (
                np.bincount(codes, before, n_codes) + prior * before.mean()
            )
            / (count + prior),
            "the mean of all rows is a mean over codes": (
                totals + prior * (totals[seen] / count[seen]).mean()
            )
            / (count + prior),
        },
    )
    ratio = np.divide(labels, before, out=np.ones(rows), where=before > 0)
    expect_close(
        got[1],
        gains,
        what="the gains",
        property="a gain is the sum of labels over that of labels before, with the prior in both",
        hint="one ratio of two sums for each code; a code that was never seen has the gain 1",
        mistakes={
            "it is a mean of ratios, and not a ratio of sums": (
                np.bincount(codes, ratio, n_codes) + prior
            )
            / (count + prior),
            "it is turned: before over after": 1 / gains,
            "gains above 1 were cut off": np.minimum(gains, 1),
            "the prior is missing above": lambda: totals / (ahead + prior * before.mean()),
            "the prior above has the mean of the labels, so that unseen codes do not have 1": (
                totals + prior * labels.mean()
            )
            / (ahead + prior * before.mean()),
            "the prior counts rows, without their mean": (totals + prior) / (ahead + prior),
            "it is a difference": (totals - ahead) / np.maximum(count, 1),
        },
    )


register(
    Exercise(
        id="19L.4",
        title="Two judges from the same labels",
        function="fit_judges",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can say what a label of a prefix tells about a step.",
        hints=(
            "`np.bincount(codes, weights, n_codes)` adds weights by code.",
            "The prior adds m rows that look like the mean row.",
            "For the gains, m times the mean of `before` stands above and below.",
        ),
        check=check_fit_judges,
        without=BORROWED,
    )
)


# --- 19L.5 --------------------------------------------------------------------------------------

RULES = ("product", "minimum", "last", "majority", "vote")


def chosen(scores, answers, how):
    """The candidate by the plain definition."""
    some = [i for i, a in enumerate(answers) if a >= 0]
    if not some:
        return 0
    worth = {
        "product": [float(np.prod(s)) for s in scores],
        "minimum": [float(np.min(s)) for s in scores],
        "last": [float(s[-1]) for s in scores],
        "majority": [1.0] * len(scores),
    }
    if how in ("product", "minimum", "last"):
        return max(some, key=lambda i: worth[how][i])
    weight = worth["product" if how == "vote" else how]
    order = list(dict.fromkeys(int(answers[i]) for i in some))
    winner = max(order, key=lambda a: sum(weight[i] for i in some if answers[i] == a))
    return next(i for i in some if answers[i] == winner)


def check_choose(answer, rng):
    def ask(scores, answers, how, property, hint, what="the choice"):
        expect_equal(
            answer([np.array(s, dtype=float) for s in scores], np.array(answers), how),
            chosen(scores, answers, how),
            what=what,
            property=property,
            hint=hint,
        )

    # no answer; product; minimum; last; votes: all different
    scores = [[1.4, 1.3], [1.3, 0.62], [0.7, 0.75], [0.25, 1.4, 1.4, 1.4, 1.1], [0.4, 0.45], [0.5]]
    answers = [-1, 2, 3, 4, 0, 0]
    order = rng.permutation(6)
    mixed = [scores[i] for i in order], [answers[i] for i in order]
    texts = {
        "product": "the largest product of a candidate's scores wins",
        "minimum": "the largest minimum of a candidate's scores wins",
        "last": "the largest last score wins",
        "majority": "the answer that most candidates give wins",
        "vote": "the answer with the largest sum of products wins",
    }
    for how, property in texts.items():
        ask(*mixed, how, property, "and a candidate without an answer takes no part")
    heavy = [[0.4], [0.5], [0.45], [1.4, 1.1]]
    for how in ("majority", "vote"):
        ask(heavy, [1, 1, 1, 2], how, texts[how], "one heavy candidate against three light ones")
    several = [[0.9], [0.8, 0.9], [0.85, 0.9]]
    ask(several, [3, 1, 1], "vote", texts["vote"], "add the products of those that agree")
    for how in ("product", "minimum", "vote"):
        ask(
            [[0.0, 1.4], [0.3, 0.8]],
            [1, 2],
            how,
            texts[how],
            "a single score of 0 makes the product 0, and so the minimum",
        )
    for how in ("product", "minimum", "last"):
        ask(
            [[0.4, 0.5], [0.5, 0.8], [0.5, 0.8], [0.5, 0.8]],
            [-1, 2, 3, 2],
            how,
            "of equals the first candidate wins",
            "which of several maxima does your search keep?",
        )
    for how in ("majority", "vote"):
        ask(
            [[0.9], [0.5], [0.25], [0.25], [0.5]],
            [-1, 4, 1, 1, 4],
            how,
            "of answers with equal sums the one that was given first wins"
            if how == "vote"
            else texts[how],
            "given first, not the smallest",
        )
        ask(
            [[0.9], [0.5], [0.5], [0.5], [0.5]],
            [-1, 4, 1, 1, 4],
            how,
            "of answers with equal sums the one that was given first wins",
            "given first, neither the smallest nor the first that reaches the sum",
        )
        ask(
            [[0.5], [0.25], [0.9], [0.95]],
            [0, 3, 3, 3],
            how,
            "the first candidate that gives the winning answer is returned",
            "not the heaviest of them",
        )
        ask([[0.0], [0.0, 0.4]], [-1, 1], how, "an answer of weight 0 can win", "if no other is")
    for how in ("product", "minimum", "last"):
        ask(
            [[0.8], [0.0], [0.0]],
            [-1, 2, 1],
            how,
            "a candidate without an answer is never chosen",
            "a score of 0 is still a score",
        )
    for how in RULES:
        ask(
            [[0.4], [0.9, 0.8]],
            [-1, -1],
            how,
            "if no candidate has an answer, the number is 0",
            "what does your code do with an empty list?",
        )


register(
    Exercise(
        id="19L.5",
        title="One of many",
        function="choose",
        points=3,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can choose among samples by a judge, by a vote, and by both.",
        hints=(
            "First list the candidates that have an answer.",
            "A dictionary of sums by answer keeps the order in which answers came.",
            "max(a_list, key=...) returns the first of those that tie.",
        ),
        check=check_choose,
        without=BORROWED,
    )
)


# --- 19L.6 --------------------------------------------------------------------------------------


def check_draw_curves(answer, rng):
    worlds, sizes = int(rng.integers(7, 12)), 2 ** np.arange(int(rng.integers(4, 7)))
    rising = np.linspace(0.2, 0.6, len(sizes))
    curves = {
        name: rising + shift + 0.1 * rng.normal(size=(worlds, len(sizes))) ** 3
        for name, shift in (("majority", 0.0), ("product", -0.1), ("vote", 0.2))
    }
    (panel,) = expect_picture(answer(sizes, curves), hint="one pair of axes is enough").axes
    for name, ys in curves.items():
        expect_line(
            panel,
            sizes,
            ys.mean(axis=0),
            property=f"a line shows the mean over worlds for the rule {name!r}",
            hint="average over the rows; along x stand the numbers of samples",
        )
        for q in (0.25, 0.75):
            expect_line(
                panel,
                sizes,
                np.quantile(ys, q, axis=0),
                property=f"a line shows the {q:.0%} quantile over worlds for the rule {name!r}",
                hint="`np.quantile(ys, q, axis=0)`",
            )
    expect(
        panel.xscale == "log",
        property="the axis of samples is logarithmic",
        hint="`ax.set_xscale('log')`: the sizes are powers of two",
    )
    expect_legend(
        panel,
        {name: ys.mean(axis=0) for name, ys in curves.items()},
        property="a legend names each mean by its rule",
    )
    expect(
        "sample" in panel.xlabel.lower() and "share" in panel.ylabel.lower(),
        property="the labels of the axes say what is counted and what is measured",
        hint="samples, and the share of problems",
    )


register(
    Exercise(
        id="19L.6",
        title="The picture: which rule uses more samples well?",
        kind="figure",
        function="draw_curves",
        points=2,
        difficulty=1,
        minutes=15,
        importance=4,
        goal="You can compare ways to choose, over numbers of samples and with their spread.",
        hints=(
            "A loop over `curves.items()`, and three calls of `plot` in it.",
            "Only the mean needs a `label`: the key of the dictionary.",
            "Thin dashed lines of the same colour serve for the quantiles.",
        ),
        check=check_draw_curves,
    )
)


# --- 19L.7 --------------------------------------------------------------------------------------


def draw_world(rng):
    """train, test and truth: the codes' names differ from world to world."""
    names, steps = rng.permutation(CODES), list(HABITS)

    def look(kind):
        if kind in HABITS and rng.random() < 0.2:
            kind = steps[int(rng.integers(len(steps)))]
        return int(names[2 * KINDS.index(kind) + int(rng.integers(2))])

    def write(tree):
        path = [""]
        while path[-1] in tree:
            branch = tree[path[-1]]
            at = rng.choice(len(branch), p=list(branch.values()))
            path.append(path[-1] + list(branch)[at])
        return path[1:]

    train, test, truth = [], [], []
    for number in range(TRAIN + TEST):
        start, operations = draw_problem(rng)
        tree, kinds = draw_tree(start, operations)
        codes = {prefix: look(kind) for prefix, kind in kinds.items()}
        if number < TRAIN:
            right = answer_to(start, operations)
            train.append({"tree": tree, "answer": right, "codes": codes})
            continue
        paths = [write(tree) for _ in range(CANDIDATES)]
        test.append(
            {
                "codes": [np.array([codes[p] for p in path]) for path in paths],
                "answers": np.array([said(path[-1]) for path in paths]),
            }
        )
        truth.append(answer_to(start, operations))
    return train, test, np.array(truth)


def check_judge(answer, rng):
    reached, by_majority = [], []  # the majority among the candidates with steps
    for number in range(WORLDS):
        train, test, truth = draw_world(rng)
        seed = int(rng.integers(10_000))
        picked = as_array(
            answer(train, test, CODES, seed), (TEST,), hint="one candidate for each new problem"
        )
        expect(
            (picked == np.round(picked)) & (picked >= 0) & (picked < CANDIDATES),
            property="each choice is the number of a candidate",
            hint="candidates are counted from 0; return their number, not their answer",
        )
        picked = picked.astype(int)
        if number == 0:
            expect(
                np.array_equal(as_array(answer(train, test, CODES, seed), (TEST,)), picked),
                property="the same seed gives the same choice",
                hint="one generator, np.random.default_rng(seed), draws everything",
            )
            # Learned from few problems, a choice hangs on what was drawn for them.
            for shown in (train[:10], train[10:20]):
                once, again = (
                    as_array(answer(shown, test, CODES, seed), (TEST,), hint="one for each problem")
                    for _ in range(2)
                )
                expect(
                    np.array_equal(once, again),
                    property="the same seed gives the same choice",
                    hint="one generator, np.random.default_rng(seed), draws everything",
                )
            few = as_array(answer(train, test[:7], CODES, seed), (7,), hint="one for each problem")
            expect(
                np.array_equal(few, picked[:7]),
                property="the choice for a problem does not depend on the other new problems",
                hint="learn from `train` first, then judge each new problem alone",
            )
        answers = np.array([x["answers"] for x in test])
        reached.append(np.mean(answers[np.arange(TEST), picked] == truth))
        plain = [
            a[chosen([[float(len(c) > 1)] for c in x["codes"]], a, "vote")]
            for a, x in zip(answers, test, strict=True)
        ]
        by_majority.append(np.mean(plain == truth))
    mean, majority = float(np.mean(reached)), float(np.mean(by_majority))
    expect(
        mean >= majority + GAIN,
        property=f"over {WORLDS} fresh worlds the chosen answer is right, on average, at least "
        f"{GAIN:g} more often than the majority's among the candidates with steps",
        hint="which of your rules beat the majority in the picture? Print the numbers of the codes",
        detail=f"the grader measured {mean:.3f}, and {majority:.3f} for the majority",
    )


register(
    Exercise(
        id="19L.7",
        title="The whole: judge what nobody labelled",
        function="judge",
        points=5,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can turn checked answers into a judge of steps that beats a vote.",
        hints=(
            "Write some solutions of each training problem, label all their prefixes, the empty "
            "one too, and make rows of code, label and label before.",
            "Label a prefix that occurs several times only once.",
            "Look at the picture: which rule, with which scores, stands highest?",
        ),
        check=check_judge,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 19L.8 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="19L.8",
        title="What the judge learned, and what it cannot know",
        kind="written",
        points=5,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can say what a process reward from checked answers sees, and what it misses.",
        hints=(
            "Multiply the values of three good pieces, and compare with the value of one guess.",
            "What is the product of V(after) / V(before) along a solution?",
            "Which number of your tables says whether a carry was forgotten?",
        ),
        rubric=(
            Criterion(
                1,
                "reads the picture: which rules stand above the majority at 16 samples, with "
                "numbers, and whether their quartiles overlap",
            ),
            Criterion(
                1,
                "the value of a prefix multiplied over pieces counts the same doubt again and "
                "again and punishes steps, so that the shortest guess wins among many; gains of "
                "prefixes multiply to the value at the end over the chance at the beginning "
                "(telescope), and lengths do not matter",
            ),
            Criterion(
                1,
                "a forgotten carry has the value of the right step, because the remainder by 5 "
                "never shows an error of 10; only labels of the steps themselves tell, and the "
                "oracle's judge chose sound solutions more often and right answers not more "
                "often than rollouts did",
            ),
            Criterion(
                1,
                "a hard label asks whether the right answer can be reached: with more rollouts it "
                "goes to 1 for every prefix with V > 0, however small, since a lucky completion is "
                "enough; more rollouts make the soft label exact, with a spread of "
                "sqrt(V (1 - V) / k)",
            ),
            Criterion(
                1,
                "missing elsewhere: answers that a program can check (and a tree to compare with), "
                "and codes that group pieces: there a network must learn what pieces look alike",
            ),
        ),
    )
)
