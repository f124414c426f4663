"""Lab of chapter 22: the data, the evaluation and the machine of one order, before it is paid."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm

from irlbook.data.audit import clustered_share
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
    expect_vertical_line,
)
from irlbook.lm import costs
from irlbook.stats import prompts_needed

BORROWED = ("irlbook.data", "irlbook.stats", "irlbook.lm", "irlbook.posttraining")
FITS = 0.75  # of a GPU's memory


def _whole(got, *, what, hint):
    """A list of whole numbers, as Python's."""
    array = as_array(got, (-1,), what=what, hint=hint)
    expect(array == np.round(array), property=f"{what} holds whole numbers", hint=hint)
    return [int(i) for i in array]


def _told(found, mistakes):
    """ "it looks as if ..." for the first mistake whose value is `found`."""
    for mistake, value in mistakes.items():
        if value == found:
            return f"it looks as if {mistake}"
    return ""


# --- 22L.1 --------------------------------------------------------------------------------------


def _label_table(rows, *, copies=False, ordered=False, prompt=True, annotator=True, second=True):
    """Of each question its labels: (row number, the chosen text)."""
    table, seen = {}, set()
    for i, (x, chosen, rejected, who) in enumerate(rows):
        pair = (chosen, rejected) if ordered else tuple(sorted((chosen, rejected)))
        row = (x, *((chosen, rejected) if second else pair), who if annotator else None)
        if row in seen and not copies:
            continue
        seen.add(row)
        table.setdefault((x if prompt else None, *pair), []).append((i, chosen))
    return list(table.values())


def _majority(given):
    """The text that most labels chose; None for a tie."""
    (best, most), *_ = Counter(y for _, y in given).most_common()
    return best if 2 * most > len(given) else None


def _kept(table, winner=_majority, which=slice(1)):
    """The row to keep of each question, in order."""
    return sorted(i for given in table for i in [i for i, y in given if y == winner(given)][which])


def _apart(table):
    """Of each question with two labels or more: (pairs of labels that disagree, pairs)."""
    found = []
    for given in table:
        pairs = list(itertools.combinations([y for _, y in given], 2))
        if pairs:
            found.append((sum(a != b for a, b in pairs), len(pairs)))
    return found


def _wrong_rate(d):
    return (1 - math.sqrt(max(0.0, 1 - 2 * d))) / 2


def _mean_share(table):
    return float(np.mean([apart / pairs for apart, pairs in _apart(table)]))


def labelled_rows(rng, prompts=12):
    """Rows with copies, ties, and questions whose first label is that of the minority."""
    rows = []

    def ask(x, a, b, answers):
        for who, first in zip(rng.permutation(6), answers, strict=False):
            rows.append((f"prompt {x}", *((a, b) if first else (b, a)), int(who)))

    ask("t", "one", "two", (1, 0))  # a tie that a copy would break
    rows.append(rows[-1])
    ask("u", "one", "two", (0, 1, 1))  # the first label is that of the minority
    ask("v", "one", "two", (1, 1, 1, 0, 0))
    # the first answers of two annotators are a tie, and a second answer breaks it
    rows += [("w", "one", "two", 3), ("w", "two", "one", 3), ("w", "two", "one", 4)]
    rows += [rows[-1], rows[-1]]
    for x in range(prompts):
        for j in range(int(rng.integers(1, 5))):
            answers = rng.random(int(rng.integers(1, 5))) < 0.75
            ask(x, f"answer {j}" * (1 + j % 2), f"answer {j} of {x if j else 'all'}", answers)
    again = [rows[i] for i in rng.integers(0, len(rows), size=len(rows) // 5)]
    return rows + [again[i] for i in rng.permutation(len(again))]


def check_clean(answer, rng):
    hint = "return the row numbers and the rate"
    while _mean_share(_label_table(rows := labelled_rows(rng))) > 0.49:
        pass  # the cap of the rate has a case of its own below
    table, copied = _label_table(rows), _label_table(rows, copies=True)
    want = _kept(table)
    got = expect_length(answer(rows), 2, hint=hint)
    kept = sorted(_whole(got[0], what="the list of rows", hint="numbers of rows, from 0"))
    expect(
        kept == want,
        property="of each question the first row with the label of most annotators is kept, and "
        "none where the labels are tied",
        hint="which rows are labels of one question, and which of them are copies?",
        detail=_told(
            kept,
            {
                "copies were counted as labels": _kept(copied),
                "only copies were left out": sorted(i for given in table for i, _ in given),
                "all rows of a question are kept": sorted(i for given in copied for i, _ in given),
                "a pair that was turned round is another question": _kept(
                    _label_table(rows, ordered=True)
                ),
                "the prompt does not belong to the question": _kept(
                    _label_table(rows, prompt=False)
                ),
                "a question is left out as soon as two labels differ, or another annotator's "
                "answer is a copy": _kept(_label_table(rows, annotator=False)),
                "a second answer of the same annotator is left out": _kept(
                    _label_table(rows, second=False)
                ),
                "the last row with the label is kept": _kept(table, which=slice(-1, None)),
                "ties are kept": _kept(table, lambda given: _majority(given) or given[0][1]),
                "the first label wins": _kept(table, lambda given: given[0][1]),
            },
        ),
    )
    d, shares = _mean_share(table), _apart(table)
    pooled = sum(a for a, _ in shares) / sum(p for _, p in shares)
    expect_close(
        got[1],
        _wrong_rate(d),
        what="the rate",
        property="the rate of wrong labels is that of (22.1), with the mean over the questions "
        "that have two labels or more",
        hint="the labels are the rows that are no copies",
        mistakes={
            "copies were counted as labels": _wrong_rate(_mean_share(copied)),
            "it is the disagreement itself and not the rate": d,
            "it is half the disagreement": d / 2,
            "all pairs of labels were pooled": _wrong_rate(pooled),
            "questions with one label were counted as agreement": _wrong_rate(
                d * len(shares) / len(table)
            ),
            "only the annotators of a kept question were counted": lambda: _wrong_rate(
                _mean_share([g for g in table if {i for i, _ in g} & set(want)])
            ),
        },
    )
    torn = [("x", "a", "b", 1), ("x", "b", "a", 2), ("y", "a", "b", 1), ("y", "b", "a", 2)]
    got = expect_length(answer(torn), 2, hint=hint)
    expect_close(
        got[1],
        0.5,
        what="the rate",
        property="where more than half of the label pairs disagree, the rate is 1/2",
        hint="what stands under the root must not be negative",
    )
    expect(
        len(_whole(got[0], what="the list of rows", hint="it may be empty")) == 0,
        property="of a file with nothing but ties no row is kept",
        hint="a tie says nothing about the pair",
    )


register(
    Exercise(
        id="22L.1",
        title="One row per question",
        function="clean",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can tell copies from labels, and read the noise of what is left.",
        hints=(
            "A set of the rows that were seen tells whether a row is a copy.",
            "A question is the prompt with the two responses in no order: `frozenset` has none.",
            "With z of n labels for one side, z (n - z) pairs of labels disagree.",
        ),
        check=check_clean,
        without=BORROWED,
    )
)


# --- 22L.2 --------------------------------------------------------------------------------------


def _words(text):
    return len(text.split())


def _length_signs(rows, size=len):
    return [int(np.sign(size(y) - size(z))) for _, y, z, _ in rows]


def length_test(rows, size=len):
    """The clustered sign test of whether the chosen response is the longer one."""
    return clustered_share(_length_signs(rows, size), [row[0] for row in rows])


def sized_rows(rng, prompts=150):
    """Rows of many prompts whose responses differ in characters and, in another way, in words."""
    rows, kinds = [], ("aaaa bb", "a b c", "aaaaaaaaaa", "aa bb ccc d", "abcdefg")
    for x in range(prompts):
        lean = rng.beta(2.5, 2.0)
        for _ in range(int(rng.integers(1, 6))):
            a, b = (kinds[i] for i in rng.choice(len(kinds), size=2, replace=False))
            long, short = sorted((a, b), key=len, reverse=True)
            rows.append((f"prompt {x}", *((long, short) if rng.random() < lean else (short, long))))
    return [(*rows[i], 0) for i in rng.permutation(len(rows))]


def check_longer(answer, rng):
    hint = "return the share and the p-value"
    while True:
        rows = sized_rows(rng)
        signs, prompts = _length_signs(rows), [row[0] for row in rows]
        want = length_test(rows)
        if 1e-5 < want.p_value < 0.4 and want.share > 0.5:
            break
    got = expect_length(answer(rows), 2, hint=hint)
    by_words = length_test(rows, _words)
    expect_close(
        got[0],
        want.share,
        what="the share",
        property="the share is that of the rows whose chosen response has more characters, among "
        "those whose responses differ in length",
        hint="rows with equal lengths count neither above nor below the line",
        mistakes={
            "rows with equal lengths were counted in the denominator": want.yes / len(rows),
            "rows with equal lengths were counted as longer": 1 - want.no / len(rows),
            "length was counted in words": by_words.share,
            "it is the share of the shorter one": 1 - want.share,
        },
    )
    sums: dict[str, int] = {}
    for sign, x in zip(signs, prompts, strict=True):
        sums[x] = sums.get(x, 0) + sign
    seen, squares = sum(sums.values()), math.fsum(s * s for s in sums.values())
    expect_close(
        got[1],
        want.p_value,
        what="the p-value",
        rtol=1e-5,
        property="the p-value is the share of the flips of prompts whose total is at least as far "
        "from 0, exactly",
        hint="add up the signs of each prompt; then move the distribution prompt by prompt",
        mistakes={
            "every row was turned round alone": lambda: (
                clustered_share(signs, range(len(signs))).p_value
            ),
            "each prompt has one vote, whatever it is worth": lambda: (
                clustered_share(np.sign(list(sums.values())).tolist(), list(sums)).p_value
            ),
            "it looks at one side only": want.p_value / 2,
            "it is the normal approximation": math.erfc(abs(seen) / math.sqrt(2 * squares)),
            "rows with equal lengths were counted as shorter": lambda: (
                clustered_share([s or -1 for s in signs], prompts).p_value
            ),
            "length was counted in words": by_words.p_value,
            "flips as far out as what was seen were not counted": lambda: _beyond(sums, seen),
        },
    )
    turned = [(x, z, y, who) for x, y, z, who in rows]
    expect_close(
        expect_length(answer(turned), 2, hint=hint)[1],
        want.p_value,
        what="the p-value of the rows turned round",
        rtol=1e-5,
        property="a taste for short responses is as far from 0 as one for long ones",
        hint="two-sided: compare without the sign",
    )
    expect_close(
        expect_length(answer([("only", "long", "s", i) for i in range(9)]), 2, hint=hint)[1],
        1.0,
        what="the p-value of nine rows of one prompt",
        property="nine rows of one prompt prove nothing",
        hint="one prompt has two flips, and both are as far from 0",
    )


def _beyond(sums, seen):
    """The share of the flips whose total is further from 0 than what was seen."""
    further = {0: 1.0}
    for s in sums.values():
        moved: dict[int, float] = {}
        for total, chance in further.items():
            for to in (total + s, total - s):
                moved[to] = moved.get(to, 0.0) + chance / 2
        further = moved
    return sum(chance for total, chance in further.items() if abs(total) > abs(seen))


register(
    Exercise(
        id="22L.2",
        title="Does length decide?",
        function="longer",
        points=4,
        difficulty=3,
        minutes=25,
        importance=4,
        goal="You can run an exact test of hundreds of clusters.",
        hints=(
            "First the sum of the signs of each prompt, as in exercise 22.2.",
            "If no total is beyond M, an array of 2 M + 1 places holds them all, with 0 at M.",
            "`np.roll` moves the whole distribution; take the mean of two such moves.",
        ),
        check=check_longer,
        without=BORROWED,
    )
)


# --- 22L.3 --------------------------------------------------------------------------------------


def families_of(rows):
    """(N,) the family of each row, by connected components of rows and texts."""
    texts: dict[tuple[str, str], int] = {}
    at, to = [], []
    for i, (x, chosen, rejected, _) in enumerate(rows):
        for text in (("x", x), ("y", chosen), ("y", rejected)):
            at.append(i)
            to.append(len(rows) + texts.setdefault(text, len(texts)))
    n = len(rows) + len(texts)
    return connected_components(coo_array((np.ones(len(at)), (at, to)), shape=(n, n)))[1][
        : len(rows)
    ]


def linked_rows(rng, alone=16, chains=3):
    """Rows of families: prompts alone, and chains of prompts that are tied by pasted responses."""
    rows, count = [], itertools.count()

    def own(x):
        return f"answer {next(count)} to {x}"

    def some(x, least=1):
        return [(x, own(x), own(x)) for _ in range(int(rng.integers(least, 4)))]

    for x in range(alone):
        rows += some(f"alone {x}")
    for c in range(chains):
        names = [f"chain {c}.{j}" for j in rng.permutation(5)]
        for j, (x, y) in enumerate(itertools.pairwise(names)):
            pasted = f"pasted {c}.{j}"  # chosen here and rejected there, or the other way round
            rows.append((x, pasted, own(x)) if j % 2 else (x, own(x), pasted))
            rows.append((y, own(y), pasted) if j % 2 else (y, pasted, own(y)))
        rows += some(names[2])
    order = rng.permutation(len(rows))
    return [(*rows[i], int(rng.integers(4))) for i in order]


def _no_text_on_both_sides(rows, held, detail=""):
    sides = [
        {text for row, out in zip(rows, held, strict=True) if out == side for text in texts(row)}
        for side in (True, False)
        for texts in (lambda row: (row[0],), lambda row: row[1:3])
    ]
    expect(
        not sides[0] & sides[2],
        property="no prompt is on both sides",
        hint="what must be drawn at random: rows, or families?",
        detail=detail,
    )
    expect(
        not sides[1] & sides[3],
        property="no response is on both sides, whether it was chosen or rejected",
        hint="two prompts with one response in common belong to one family, and so do the "
        "relatives of both",
        detail=detail,
    )


def check_split(answer, rng):
    rows = linked_rows(rng)
    family = families_of(rows)
    sizes = np.bincount(family)
    share = float(rng.uniform(0.3, 0.4))

    def held_out(seed):
        held = as_array(
            answer(list(rows), share, np.random.default_rng(seed)),
            (len(rows),),
            hint="one truth value for each row",
        ).astype(bool)
        _no_text_on_both_sides(rows, held)
        total, out = int(held.sum()), sizes[np.unique(family[held])]
        expect(
            total >= share * len(rows),
            property="at least the share of the rows is held out",
            hint="hold out one family more until it is so",
            detail=f"{total} of {len(rows)} rows for a share of {share:.2f}",
        )
        expect(
            total - out.max() < share * len(rows),
            property="no more families are held out than the share needs",
            hint="look at the share of rows before each family, and stop",
            detail=f"{total} of {len(rows)} rows for a share of {share:.2f}",
        )
        return frozenset(np.unique(family[held]).tolist())

    seeds = rng.integers(0, 10**6, size=40).tolist()
    runs = [held_out(seed) for seed in seeds]
    expect(
        len(set(runs)) > 1 and [held_out(seed) for seed in seeds[:3]] == runs[:3],
        property="which families are held out is drawn with rng",
        hint="rng.permutation, and no other source: the same seed gives the same split, and "
        "another seed another",
    )
    expect(
        len(set(runs)) > 20,
        property="every set of families may be drawn",
        hint="40 draws gave few different splits: a run of neighbours is no draw",
        detail=f"{len(set(runs))} different ones",
    )
    few = [("large", f"a{i}", f"b{i}", 0) for i in range(27)]
    few += [(f"small {i}", f"c{i}", f"d{i}", 0) for i in range(3)]
    first = [
        as_array(answer(list(few), 0.01, np.random.default_rng(seed)), (30,), hint="a value each")
        for seed in rng.integers(0, 10**6, size=80)
    ]
    large = sum(bool(held[0]) for held in first)  # 20 of 80 are expected
    expect(
        5 <= large <= 42,
        property="each order of the families is equally likely, whatever their sizes",
        hint="a row drawn at random belongs to a large family more often than not; draw families",
        detail=f"one family of four has 27 of 30 rows, and it came first {large} times of 80",
    )


register(
    Exercise(
        id="22L.3",
        title="A split that does not leak",
        function="split",
        points=4,
        difficulty=4,
        minutes=30,
        importance=5,
        goal="You can split a file so that no text stands on both sides.",
        hints=(
            "Prompts and responses are nodes, and each row ties three of them together.",
            "Let each text point to another of its family; the last one of the way is the leader.",
            "For two texts of a row: find both leaders, and let one point to the other.",
        ),
        check=check_split,
        rounds=2,
        without=BORROWED,
    )
)


# --- 22L.4 --------------------------------------------------------------------------------------


def _parts(wins):
    """Variance within prompts, and of the prompts' means."""
    n, k = wins.shape
    square = wins.mean(axis=1) - wins.mean(axis=1) ** 2  # of 0 and 1: the mean square deviation
    return float(square.sum() * k / (n * (k - 1))), float(np.var(wins.mean(axis=1), ddof=1))


def clustered_wins(rng, n, k, rho, rate=0.56):
    """(n, k) judgements that resemble each other within prompts."""
    a = 1 / rho - 1
    chance = rng.beta(rate * a, (1 - rate) * a, size=(n, 1))
    return (rng.random((n, k)) < chance).astype(int)


def _rho_with(means, inside, k):
    between = max(0.0, means - inside / k)
    return between / (between + inside)


def _rho_mistakes(inside, means, n, k):
    between, whole = means - inside / k, max(0.0, means - inside)
    return {
        "the variance of the means was not corrected": means / (means + inside),
        "V_in was subtracted whole": whole / (whole + inside),
        "tau^2 was divided by the variance of the means": between / means,
        "tau^2 was divided by V_in": between / inside,
        "V_in was divided by N k and not by N (k - 1)": _rho_with(means, inside * (k - 1) / k, k),
        "N stands in the denominator of the variance, and not N - 1": _rho_with(
            means * (n - 1) / n, inside, k
        ),
        "it is the design effect": 1 + (k - 1) * between / (between + inside),
    }


def check_pilot(answer, rng):
    hint = "return the rate, its standard error and rho"
    while True:
        wins = clustered_wins(rng, int(rng.integers(9, 15)), int(rng.integers(3, 7)), 0.4)
        (n, k), (inside, means) = wins.shape, _parts(wins)
        if means > inside / k > 0:
            mistakes = _rho_mistakes(inside, means, n, k)
            values = np.sort([*mistakes.values(), _rho_with(means, inside, k)])
            if np.diff(values).min() > 1e-4:
                break
    rate = float(wins.mean())
    got = expect_length(answer(wins), 3, hint=hint)
    expect_close(
        got[0],
        rate,
        what="the rate",
        property="the win rate is the share of all judgements that the new policy won",
        hint="the mean of `wins`",
        mistakes={
            "it is the share of prompts that were won": float((wins.mean(axis=1) > 0.5).mean())
        },
    )
    expect_close(
        got[1],
        math.sqrt(means / n),
        what="the standard error",
        property="the standard error is that of a mean of N prompts, each one observation",
        hint="the standard deviation of the prompts' means, with N - 1, divided by the root of N",
        mistakes={
            "all judgements are independent": math.sqrt(rate * (1 - rate) / wins.size),
            "all judgements are independent, with their own deviation": float(
                np.std(wins, ddof=1) / math.sqrt(wins.size)
            ),
            "N stands in the denominator of the variance, and not N - 1": math.sqrt(
                means * (n - 1) / n / n
            ),
            "it is the standard deviation of a prompt": math.sqrt(means),
            "it is divided by the root of all judgements": math.sqrt(means / wins.size),
            "it is the variance": means / n,
        },
    )
    expect_close(
        got[2],
        _rho_with(means, inside, k),
        what="rho",
        property="rho is the share of the variance that lies between prompts",
        hint="the prompts' means vary more than the prompts do: by V_in / k",
        mistakes=mistakes,
    )
    halves = np.array([[1, 0, 1, 0], [0, 1, 0, 1]] * 5)
    expect_close(
        expect_length(answer(halves), 3, hint=hint)[2],
        0.0,
        what="rho where each prompt is won in half of its judgements",
        property="rho is never negative",
        hint="max(0, ...)",
    )
    got = expect_length(answer(np.ones((6, 3), dtype=int)), 3, hint=hint)
    expect_close(
        as_array(got, (3,), what="the result where every judgement is a win"),
        np.array([1.0, 0.0, 0.0]),
        what="the result where every judgement is a win",
        property="without any variance rho is 0",
        hint="0 / 0 is to be 0 here",
    )


register(
    Exercise(
        id="22L.4",
        title="What does a pilot say?",
        function="pilot",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can measure how much judgements of one prompt resemble each other.",
        hints=(
            "Everything is made of the prompts' means, `wins.mean(axis=1)`.",
            "`var(ddof=1)` has N - 1 in its denominator.",
            "Subtract V_in / k from the variance of the means, and stop at 0.",
        ),
        check=check_pilot,
        without=BORROWED,
    )
)


# --- 22L.5 --------------------------------------------------------------------------------------


def _needed(
    rate,
    noise,
    rho,
    k,
    power,
    *,
    quantile=0.975,
    clustered=True,
    at=None,
    gap=None,
    found=None,
    whole=math.ceil,
):
    q = noise + (1 - 2 * noise) * rate
    at = q if at is None else at
    spread = at * (1 - at) * (1 + (k - 1) * rho if clustered else 1) / k
    z = norm.ppf(quantile) + (norm.ppf(power) if found is None else found)
    return whole(spread * (z / ((q if gap is None else gap) - 0.5)) ** 2)


def allowed_counts(rate, noise, rho, k, power):
    """The numbers of prompts that are right: by the formula, and with the other tail counted."""
    q = noise + (1 - 2 * noise) * rate
    one = math.sqrt(q * (1 - q) * (1 + (k - 1) * rho) / k)
    return {_needed(rate, noise, rho, k, power), prompts_needed(abs(q - 0.5), one, 0.0, 1, power)}


def _count_mistakes(rate, noise, rho, k, power):
    case = (rate, noise, rho, k, power)
    lost = rate * (1 - noise)
    return {
        "wrong judgements were forgotten": _needed(rate, 0.0, rho, k, power),
        "wrong judgements only lose wins: q = p (1 - e)": _needed(*case, gap=lost, at=lost),
        "the variance is that of the true rate": _needed(*case, at=rate),
        "the variance is that of the rate 1/2": _needed(*case, at=0.5),
        "judgements of one prompt are independent": _needed(*case, clustered=False),
        "judgements were counted, and not prompts": _needed(
            *case, whole=lambda n: math.ceil(k * n)
        ),
        "prompts are judged once": _needed(rate, noise, rho, 1, power),
        "the test is one-sided": _needed(*case, quantile=0.95),
        "the power is one half": _needed(*case, found=0.0),
        "the quantile of 1 - power was added": _needed(*case, found=norm.ppf(1 - power)),
        "z_P was taken two-sided": _needed(*case, found=norm.ppf((1 + power) / 2)),
        "it was rounded down": _needed(*case) - 1,
    }


def _count_case(rng):
    """A case whose mistakes give different numbers, and none a right one; with them."""
    while True:
        case = (
            float(rng.uniform(0.55, 0.68)),
            float(rng.uniform(0.08, 0.25)),
            float(rng.uniform(0.15, 0.6)),
            int(rng.integers(3, 9)),
            float(rng.uniform(0.7, 0.95)),
        )
        mistakes = _count_mistakes(*case)
        found = set(mistakes.values())
        if len(found) == len(mistakes) and not found & allowed_counts(*case):
            return case, mistakes


def check_prompts_for(answer, rng):
    def count(*case):
        return _whole([answer(*case)], what="the result", hint="one number of prompts")[0]

    for _ in range(4):
        case, mistakes = _count_case(rng)
        rate, noise, _, k, power = case
        found = count(*case)
        expect(
            found in allowed_counts(*case),
            property="it is the smallest number of prompts with which the test has this power",
            hint="set |q - 1/2| equal to z standard errors, and solve for N",
            detail=_told(found, mistakes),
        )
        expect(
            count(1 - rate, *case[1:]) in allowed_counts(*case),
            property="a policy that is worse by as much needs as many prompts",
            hint="the difference from one half enters squared",
        )
    expect(
        count(rate, noise, 1.0, 1, power) == count(rate, noise, 1.0, k, power),
        property="with rho = 1 further judgements of a prompt are worth nothing",
        hint="what is (1 + (k - 1) rho) / k then?",
    )


register(
    Exercise(
        id="22L.5",
        title="How many prompts?",
        function="prompts_for",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can say how large an evaluation must be, with noise and clusters.",
        hints=(
            "First the rate that the judges see, then the variance for a single prompt.",
            "`scipy.stats.norm.ppf` gives z.",
            "The standard error falls with the root of N: solve, and round up.",
        ),
        check=check_prompts_for,
        without=BORROWED,
    )
)


# --- 22L.6 --------------------------------------------------------------------------------------

PARTS = ("weights", "gradients", "optimiser", "activations", "again", "logits", "cache", "peak")


def drawn_sizes(rng, tied):
    """Sizes of a model whose heads are not as wide as its hidden states.

    The logits of 40 % of the tokens take more than what a layer keeps of all of them, and no two
    mistakes in what a layer keeps come to the same number.
    """
    while True:
        kv = int(rng.integers(2, 4))
        sizes = {
            "layers": int(rng.integers(9, 30)),
            "hidden": 64 * int(rng.integers(10, 40)),
            "heads": kv * int(rng.integers(2, 5)),
            "kv_heads": kv,
            "head_size": 16 * int(rng.integers(3, 9)),
            "intermediate": 100 * int(rng.integers(15, 90)),
            "vocabulary": int(rng.integers(40_000, 90_000)),
            "tied": tied,
        }
        h, a, k = sizes["hidden"], sizes["heads"] * sizes["head_size"], kv * sizes["head_size"]
        if h not in (a, k, 5 * (a - k)) and 6 * h != 5 * a:
            return sizes


def drawn_job(rng, **given):
    """A job; what is given is not drawn."""
    tokens = int(rng.integers(2_000, 9_000))
    numbers = {"weight": 2, "gradient": 3, "optimiser": 12, "activation": 2.7, "logit": 4}
    return {
        "tokens": tokens,
        "predicted": int(tokens * rng.uniform(0.4, 0.8)),
        "cached": int(rng.integers(10_000, 90_000)),
        "rank": 0,
        "gpus": int(rng.integers(4, 9)),
        "stage": 3,
        "checkpointing": True,
        "accumulated": False,
        "numbers": numbers,
    } | given


def memory_of(sizes, job, **other):
    """What one GPU holds, by `costs.training_memory`; `other` replaces parts of sizes and job."""
    sizes = sizes | {name: value for name, value in other.items() if name in sizes}
    job = job | {name: value for name, value in other.items() if name not in sizes}
    sized = costs.Architecture(**sizes)
    held = costs.training_memory(
        sized,
        job["tokens"],
        job["predicted"],
        costs.Precision(**job["numbers"]),
        rank=job["rank"] or None,
        processes=job["gpus"],
        stage=job["stage"],
        checkpointing=job["checkpointing"],
    )
    cache = costs.cache_bytes(sized, job["cached"], job["numbers"]["activation"])
    step = held.accumulated if job["accumulated"] else held.peak
    return {
        "weights": held.weights,
        "gradients": held.gradients,
        "optimiser": held.optimiser,
        "activations": held.activations,
        "again": held.again,
        "logits": held.head,
        "cache": cache,
        "peak": max(held.weights + held.optimiser + cache, step),
    }


def _memory_mistakes(sizes, job, want):
    """{part: {mistake: value}}."""
    sized = costs.Architecture(**sizes)
    number, gpus, stage = job["numbers"], job["gpus"], job["stage"]
    adapter = costs.adapter_parameters(sized, job["rank"]) if job["rank"] else 0
    fixed = want["weights"] + want["optimiser"]
    logits, again, gradients = (want[name] for name in ("logits", "again", "gradients"))
    computing = want["activations"] + max(logits, again)
    gathered = sized.layer * number["weight"] if stage == 3 and gpus > 1 else 0.0
    own = adapter * number["weight"] / (gpus if stage == 3 else 1)
    few = costs.adapter_parameters(sized, job["rank"], tuple("qkvo")) if job["rank"] else 0
    few = (adapter - few) * number["weight"] / (gpus if stage == 3 else 1)
    everything = sum(want[name] for name in PARTS[:7])
    layers = sizes["layers"]
    every_layer = 6 * sizes["hidden"] + 5 * sizes["heads"] * sizes["head_size"]
    every_layer += 4 * sizes["intermediate"]
    last = job["tokens"] * 3 * sizes["hidden"] * number["activation"]
    one = job["tokens"] * every_layer * number["activation"]
    a, kv = sizes["heads"] * sizes["head_size"], sizes["kv_heads"] * sizes["head_size"]

    def whole(name):
        return {
            "it was not divided in this stage": memory_of(sizes, job, gpus=1)[name],
            "ZeRO's stage is taken for one less": memory_of(sizes, job, stage=max(0, stage - 1))[
                name
            ],
            "ZeRO's stage is taken for one more": memory_of(sizes, job, stage=min(3, stage + 1))[
                name
            ],
            "frozen weights are trained, too": memory_of(sizes, job, rank=0)[name]
            if job["rank"]
            else None,
            "the head is counted for tied embeddings as well": memory_of(sizes, job, tied=False)[
                name
            ],
            "the head of untied embeddings is missing": memory_of(sizes, job, tied=True)[name],
        }

    def of_layer(name, times):
        """Mistakes in what a layer keeps."""
        numbers = times * job["tokens"] * number["activation"] * 5
        return {
            "heads of keys and values stand for all heads": want[name] - numbers * (a - kv),
            "a is the hidden size": want[name] - numbers * (a - sizes["hidden"]),
        }

    return {
        "weights": {
            "the adapter's own weights are missing": want["weights"] - own,
            "the adapter stands beside the four matrices of attention alone": want["weights"] - few,
            "the whole layer of stage 3 is missing": want["weights"] - gathered,
            "one whole layer is there in every stage": want["weights"]
            + sized.layer * number["weight"],
        }
        | whole("weights"),
        "gradients": whole("gradients"),
        "optimiser": whole("optimiser"),
        "activations": {
            "checkpointing was forgotten": memory_of(sizes, job, checkpointing=False)[
                "activations"
            ],
            "checkpointing was assumed": memory_of(sizes, job, checkpointing=True)["activations"],
            "the layer that is computed again is counted, too": want["activations"] + one,
            "the last norm is missing": want["activations"] - last,
            "the last norm is counted for each layer": want["activations"] + (layers - 1) * last,
            "tokens were divided over the GPUs": want["activations"] / gpus,
            "activations have the bytes of weights": want["activations"]
            * number["weight"]
            / number["activation"],
        }
        | ({} if job["checkpointing"] else of_layer("activations", layers)),
        "again": {
            "no layer is computed again": 0.0,
            "a layer is computed again without checkpointing, too": one,
            "it is what all layers keep": layers * one,
            "its input is not counted, as it is kept": one - last / 3,
            "tokens were divided over the GPUs": again / gpus,
            "activations have the bytes of weights": again
            * number["weight"]
            / number["activation"],
        }
        | (of_layer("again", 1) if job["checkpointing"] else {}),
        "logits": {
            "all tokens enter the loss": want["logits"] * job["tokens"] / job["predicted"],
            "logits are held once": want["logits"] / 3,
            "logits were divided over the GPUs": want["logits"] / gpus,
            "logits have the bytes of activations": want["logits"]
            * number["activation"]
            / number["logit"],
        },
        "cache": {
            "keys alone are kept": want["cache"] / 2,
            "keys and values are those of all heads": want["cache"]
            * sizes["heads"]
            / sizes["kv_heads"],
            "one layer has a cache": want["cache"] / sizes["layers"],
            "the tokens of training are cached": want["cache"] * job["tokens"] / job["cached"],
            "the cache was divided over the GPUs": want["cache"] / gpus,
            "its numbers have the bytes of weights": want["cache"]
            * number["weight"]
            / number["activation"],
        },
        "peak": {
            "all parts were added": everything,
            "the cache was forgotten": memory_of(sizes, job, cached=0)["peak"],
            "gradients and activations are always there together": fixed
            + max(want["cache"], computing + gradients),
            "gradients of an earlier micro-batch were forgotten": fixed
            + max(want["cache"], computing, again + gradients),
            "gradients were forgotten": fixed + max(want["cache"], computing),
            "the logits are still there when a layer is computed again": fixed
            + max(
                want["cache"],
                want["activations"] + logits + again + (gradients if job["accumulated"] else 0),
                again + gradients,
            ),
            "the logits were forgotten": fixed
            + max(want["cache"], want["activations"] + again, again + gradients),
            "the layer that is computed again is missing beside the activations": fixed
            + max(want["cache"], want["activations"] + logits, again + gradients),
            "the layer that is computed again is missing beside the gradients": fixed
            + max(want["cache"], computing, gradients),
            "the optimiser is away while the model is sampled": max(
                want["weights"] + want["cache"], memory_of(sizes, job, cached=0)["peak"]
            ),
            "the cache stays while the model is trained": fixed
            + want["cache"]
            + max(computing, again + gradients),
        },
    }


def check_step_memory(answer, rng):
    tied = drawn_sizes(rng, True), drawn_sizes(rng, False)
    brief = {"tokens": 64, "predicted": 32, "cached": 10}
    rank = int(rng.integers(4, 40))
    jobs = [
        (1, drawn_job(rng, stage=2, **brief)),  # the gradients decide
        (0, drawn_job(rng, stage=0, cached=10)),
        (1, drawn_job(rng, stage=1, cached=10, checkpointing=False)),
        (0, drawn_job(rng, stage=2, cached=10, rank=rank)),  # activations and logits decide
        (1, drawn_job(rng, stage=3, cached=10, rank=rank, predicted=9)),  # and the layer again
        (0, drawn_job(rng, stage=3, gpus=1, cached=10, accumulated=True)),
        (0, drawn_job(rng, stage=3, cached=10**8, accumulated=True)),  # the cache decides
        (1, drawn_job(rng, stage=1, cached=10, accumulated=True)),
    ]
    for which, job in jobs:
        sizes = tied[which]
        want = memory_of(sizes, job)
        got = expect_type(answer(sizes, job), dict, hint="a dict of the eight parts")
        mistakes = _memory_mistakes(sizes, job, want)
        expect(
            set(PARTS) <= set(got),
            property="the result has the eight parts by name",
            hint=", ".join(PARTS),
            detail=f"missing: {', '.join(sorted(set(PARTS) - set(map(str, got))))}",
        )
        for part in PARTS:
            expect_close(
                got.get(part),
                want[part],
                what=part,
                property=f"the bytes of `{part}` are those of the text above",
                hint={
                    "weights": "all weights and the adapter's; what does stage 3 need besides?",
                    "gradients": "of what is trained alone",
                    "optimiser": "of what is trained alone",
                    "activations": "what all layers keep, and the last norm",
                    "again": "with checkpointing what one layer keeps, and else 0",
                    "logits": "three times the vocabulary for each token that enters the loss",
                    "cache": "keys and values, in every layer, for the key-value heads",
                    "peak": "which parts are there at one moment?",
                }[part],
                mistakes=mistakes[part],
            )


register(
    Exercise(
        id="22L.6",
        title="What must one GPU hold?",
        function="step_memory",
        points=5,
        difficulty=3,
        minutes=35,
        importance=5,
        goal="You can compute the memory of a run before you rent a machine.",
        hints=(
            "One line for each part; a small helper divides by `gpus` from a stage on.",
            "With checkpointing each layer keeps its input, and `again` is all that one keeps.",
            "The peak: what is always there, and the largest of the moments.",
        ),
        check=check_step_memory,
        without=BORROWED,
    )
)


# --- 22L.7 --------------------------------------------------------------------------------------


def check_draw_studies(answer, rng):
    ns = np.sort(rng.choice(np.arange(8, 300), size=int(rng.integers(4, 7)), replace=False))
    ways = ["clustered", "naive", "bootstrap"][: int(rng.integers(2, 4))]
    alarms = {way: rng.uniform(0.02, 0.4, size=len(ns)) for way in ways}
    found = {way: np.sort(rng.uniform(0.1, 0.99, size=len(ns))) for way in ways}
    power, needed = float(rng.uniform(0.7, 0.95)), float(rng.uniform(20, 200))
    given = (ns, alarms, found, power, needed)
    picture = expect_picture(answer(*given), 2, hint="`plt.subplots(1, 2)`")
    names = ("left", "right")
    for panel, shares, level, name in zip(
        picture.axes, (alarms, found), (0.05, power), names, strict=True
    ):
        for way in ways:
            expect_line(
                panel,
                ns,
                shares[way],
                property=f"in the {name} panel each way of testing has a line over the prompts",
                hint="the left panel shows `alarms`, the right one `found`",
            )
        expect_legend(
            panel,
            {way: shares[way] for way in ways},
            property=f"a legend in the {name} panel names each way",
        )
        flat = [line.y for line in panel.lines if len(line.y) > 1 and np.ptp(line.y) == 0]
        expect(
            any(np.allclose(y, level) for y in flat),
            property=f"a horizontal line in the {name} panel shows what the test should do",
            hint="`ax.axhline`: the level in the left panel, the power in the right one",
        )
        expect(
            panel.xscale == "log",
            property="prompts stand on logarithmic axes",
            hint="`ax.set_xscale`, in both panels",
        )
        expect(
            "prompts" in panel.xlabel.lower() and "share" in panel.ylabel.lower(),
            property="the labels of both panels say that prompts and shares are shown",
            hint="what is counted, and what is drawn over it?",
        )
    expect_vertical_line(
        picture.axes[1],
        needed,
        property="a vertical line in the right panel shows how many prompts are needed",
        hint="`ax.axvline`",
    )


register(
    Exercise(
        id="22L.7",
        title="The picture: what studies claim",
        kind="figure",
        function="draw_studies",
        points=2,
        difficulty=1,
        minutes=15,
        importance=4,
        goal="You can show the errors of both kinds that a test makes.",
        hints=(
            "The same loop for both panels: `zip` the axes with what they show.",
            "A line with a label for each way, then the horizontal line and the legend.",
            "The vertical line stands in the right panel alone.",
        ),
        check=check_draw_studies,
        without=BORROWED,
    )
)


# --- 22L.8 --------------------------------------------------------------------------------------


def order_file(rng):
    """A file with copies, ties, lengths that matter, and pasted responses."""
    rows = [(x, f"{y} {'.' * int(rng.integers(9))}", z) for x, y, z, _ in linked_rows(rng, 12, 3)]
    asked = []
    for x, y, z in rows:
        for who in rng.permutation(6)[: int(rng.integers(1, 4))]:
            asked.append((x, *((z, y) if rng.random() < 0.2 else (y, z)), int(who)))
    x, y, z = rows[0]
    asked += [(x, y, z, 7), (x, z, y, 8)] + [(f"tied {x}", y, z, 7), (f"tied {x}", z, y, 8)]
    asked += [asked[i] for i in rng.integers(0, len(asked), size=len(asked) // 6)]
    return [asked[i] for i in rng.permutation(len(asked))]


def drawn_offers(rng, sizes, job, steps, hours):
    """Offers in a random order, of which the first will do and is the cheapest.

    Args:
        steps: about how many the run has; the offers leave room on both sides.
    """
    offers = []
    for gpus, filled, share_of_time, bill in (
        (4, 0.74, 0.3, 10.0),
        (4, 0.70, 0.2, 12.0),
        (2, 0.77, 0.3, 5.0),  # it fits, but in more than 75 %
        (2, 1.30, 0.3, 3.0),  # it does not fit
        (1, 0.60, 3.0, 4.0),  # it is too slow
        (1, 0.40, 0.6, 13.0),  # it costs least for an hour, but takes many
        (8, 0.50, 0.1, 14.0),  # it is the quickest
    ):
        peak = memory_of(sizes, job, gpus=gpus, stage=3)["peak"]
        offers.append(
            {
                "gpus": gpus,
                "memory": peak / filled,
                "dollars": bill / (share_of_time * hours),
                "seconds": share_of_time * hours * 3600 / steps,
            }
        )
    return [offers[i] for i in rng.permutation(len(offers))]


def best_offer(sizes, job, offers, steps, hours):
    """(place, bill) of the cheapest offer that will do, or (None, None)."""
    bills = {}
    for i, one in enumerate(offers):
        peak = memory_of(sizes, job, gpus=one["gpus"], stage=3)["peak"]
        takes = steps * one["seconds"] / 3600
        if peak <= FITS * one["memory"] and takes <= hours:
            bills[i] = takes * one["dollars"]
    best = min(bills, key=lambda i: bills[i], default=None)
    return best, None if best is None else bills[best]


def check_plan(answer, rng):
    names = ("train", "held_out", "length_p", "prompts", "offer", "dollars")
    for turn in range(6):
        while _wrong_rate(_mean_share(_label_table(rows := order_file(rng)))) > 0.4:
            pass  # with a rate of one half the judges see nothing
        k = int(rng.integers(4, 9))
        while (wins := clustered_wins(rng, 40, k, 0.35)).mean() == 0.5:
            pass  # no number of prompts finds a rate of one half
        sizes = drawn_sizes(rng, bool(turn % 2))
        job = drawn_job(rng, rank=16 * (turn % 2), accumulated=turn < 3)
        job = {name: value for name, value in job.items() if name not in ("gpus", "stage")}
        known = job | {"gpus": 1, "stage": 3}
        order = {
            "share": float(rng.uniform(0.2, 0.3)),
            "rate": float(rng.uniform(0.56, 0.65)),
            "power": float(rng.uniform(0.75, 0.92)),
            "batch": 1 if turn == 1 else int(rng.integers(7, 12)),
            "epochs": int(rng.integers(6, 10)),
            "hours": float(rng.uniform(2, 20)),
        }
        table = _label_table(rows)
        kept, noise = _kept(table), _wrong_rate(_mean_share(table))
        about = order["epochs"] * math.ceil(0.7 * len(kept) / order["batch"])
        offers = drawn_offers(rng, sizes, known, about, order["hours"])
        if turn == 5:  # none will do
            late = about, 2 * order["hours"]
            offers = [o for o in offers if best_offer(sizes, known, [o], *late)[0] is None]
        seed = int(rng.integers(10_000))
        got = expect_type(
            answer(rows, wins, sizes, job, offers, order, seed), dict, hint="a dict of six entries"
        )
        expect(
            set(names) <= set(got),
            property="the plan has its six entries by name",
            hint=", ".join(names),
        )
        train, held = (
            sorted(_whole(got.get(name), what=f"`{name}`", hint="numbers of rows of the file"))
            for name in names[:2]
        )
        expect(
            sorted([*train, *held]) == kept,
            property="the rows of training and those held out are together those that `clean` "
            "keeps, by their numbers in the file",
            hint="the rows that are split have other numbers than those of the file",
            detail="it looks as if the file was not cleaned"
            if len(train) + len(held) == len(rows)
            else "",
        )
        if turn == 0:
            others = [
                expect_type(
                    answer(rows, wins, sizes, job, offers, order, other),
                    dict,
                    hint="a dict of six entries",
                ).get("held_out")
                for other in (seed, seed + 1, seed + 2, seed + 3)
            ]
            drawn = [sorted(_whole(o, what="`held_out`", hint="numbers")) for o in others]
            expect(
                drawn[0] == held,
                property="the same seed gives the same plan",
                hint="all randomness comes from `np.random.default_rng(seed)`",
            )
            expect(
                any(one != held for one in drawn[1:]),
                property="another seed gives another split",
                hint="pass the seed on",
            )
        tidy, out = [rows[i] for i in kept], np.isin(kept, held)
        _no_text_on_both_sides(tidy, out)
        family = families_of(tidy)
        largest = np.bincount(family[out]).max() if out.any() else 0
        expect(
            out.mean() >= order["share"] > (out.sum() - largest) / len(kept),
            property="the share of the order is held out",
            hint="pass `order['share']` to your split",
        )
        length = length_test(tidy)
        expect_close(
            got.get("length_p"),
            length.p_value,
            what="the p-value",
            rtol=1e-5,
            property="the taste for length is tested on all rows that are kept",
            hint="your step 2",
            mistakes={
                "it is tested on the whole file": length_test(rows).p_value,
                "it is tested on the rows of training": length_test(
                    [rows[i] for i in train]
                ).p_value,
                "it is the share and not the p-value": length.share,
            },
        )
        inside, means = _parts(wins)
        rho = _rho_with(means, inside, k)
        case = (order["rate"], noise, rho, k, order["power"])
        (count,) = _whole([got.get("prompts")], what="`prompts`", hint="one number")
        expect(
            count in allowed_counts(*case),
            property="the prompts are those that find the order's rate with its power",
            hint="noise from the file, rho from the pilot, and how often was a prompt judged "
            "there?",
            detail=_told(
                count,
                {
                    "the judges make no mistakes": _needed(case[0], 0.0, *case[2:]),
                    "judgements of one prompt are independent": _needed(*case, clustered=False),
                    "each prompt is judged once": _needed(*case[:3], 1, case[4]),
                    "the rate of the pilot is to be found": _needed(float(wins.mean()), *case[1:]),
                },
            ),
        )
        steps = order["epochs"] * math.ceil(len(train) / order["batch"])
        best, bill = best_offer(sizes, known, offers, steps, order["hours"])
        expect(
            got.get("offer") is None
            if best is None
            else got.get("offer") is not None and int(as_array(got.get("offer"), ())) == best,
            property="the offer is the one with the smallest bill among those that will do, and "
            "None where none will",
            hint="does it fit in 75 % of the memory, is it in time, and what is the whole bill?",
            detail=_said_of(got.get("offer"), sizes, known, offers, steps, order["hours"]),
        )
        if best is None:
            expect(
                got.get("dollars") is None,
                property="without an offer there is no bill",
                hint="None, and not 0",
            )
            continue
        offer = offers[best]
        part = order["epochs"] * (len(train) / order["batch"])
        expect_close(
            got.get("dollars"),
            bill,
            what="the bill",
            property="the bill is hours times dollars per hour, for all steps of all epochs",
            hint="an epoch takes a step for each batch; how many batches are there?",
            mistakes={
                "the last rows of an epoch were left out": bill
                / steps
                * order["epochs"]
                * (len(train) // order["batch"]),
                "a step is added where no rows are left over": bill
                / steps
                * order["epochs"]
                * (len(train) // order["batch"] + 1),
                "a part of a step costs a part of its price": bill / steps * part,
                "epochs were joined before they were cut into batches": bill
                / steps
                * math.ceil(part),
                "there is one epoch": bill / order["epochs"],
                "each GPU costs so many dollars": bill * offer["gpus"],
                "seconds were taken for hours": bill * 3600,
                "it is the price of an hour": offer["dollars"],
                "all rows that are kept are trained on": bill
                / steps
                * order["epochs"]
                * math.ceil(len(kept) / order["batch"]),
            },
        )


def _said_of(offer, sizes, job, offers, steps, hours):
    """What is wrong with the offer that was taken, in words."""
    if offer is None:
        return "there is an offer that will do"
    place = int(as_array(offer, (), what="`offer`", hint="a place in the list, or None"))
    if not 0 <= place < len(offers):
        return f"there is no offer {place}"
    one = offers[place]
    share = memory_of(sizes, job, gpus=one["gpus"], stage=3)["peak"] / one["memory"]
    if share > FITS:
        return f"the peak takes {share:.0%} of a GPU's memory"
    if steps * one["seconds"] / 3600 > hours:
        return "its steps take longer than the order allows"
    return "it will do, but there is one with a smaller bill"


register(
    Exercise(
        id="22L.8",
        title="The whole: a plan with its bill",
        function="plan",
        points=6,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can go from a raw file to a split, an evaluation and a machine.",
        hints=(
            "Five calls of your own functions, and a loop over the offers.",
            "The split is one of the kept rows: translate it into numbers of the file.",
            "A dict of the bills of the offers that will do, and `min` with a key and a default.",
        ),
        check=check_plan,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 22L.9 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="22L.9",
        title="Explain your plan",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say which numbers of a plan to trust, and what to measure first.",
        hints=(
            "What happens to the naive standard error, and to the true one, as N grows?",
            "Compare the rows of the memory table, number by number.",
            "For each number of the plan: which cell or which sentence does it come from?",
        ),
        rubric=(
            Criterion(
                1,
                "naive test: false alarms far above 5 % at every number of prompts, since both "
                "standard errors fall alike; it asks for a third of the prompts that are needed",
            ),
            Criterion(
                1,
                "rows split: the memoriser gains much; prompts: little, through pasted responses; "
                "families: nothing, by construction",
            ),
            Criterion(
                1,
                "copies hide noise; noise shrinks the seen difference by 1 - 2e, and the prompts "
                "grow with the square of its inverse",
            ),
            Criterion(
                1,
                "memory: optimiser and gradients decide for all weights, weights and cache for the "
                "adapter; activations, logits and cache belong to tokens, whatever is trained",
            ),
            Criterion(
                1,
                "tells measured, computed and made-up numbers apart, sees that judgements cost "
                "more than the machine, and names a first measurement",
            ),
        ),
    )
)
