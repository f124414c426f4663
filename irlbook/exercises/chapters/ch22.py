"""Exercises of chapter 22: practice."""

from __future__ import annotations

import itertools
import math

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_equal, expect_length

# --- 22.1 ---------------------------------------------------------------------------------------


def _noise(disagreement):
    return (1 - math.sqrt(max(0.0, 1 - 2 * disagreement))) / 2


def _shares(labels):
    """Of each question with two labels or more: (pairs that disagree, pairs)."""
    found = []
    for given in labels:
        n, ones = len(given), sum(given)
        if n > 1:
            found.append((ones * (n - ones), n * (n - 1) // 2))
    return found


def check_noise_rate(answer, rng):
    labels = [(rng.random(n) < 0.25).astype(int).tolist() for n in rng.integers(1, 6, size=40)]
    labels += [[0], [0, 1], [0, 0, 0], [1, 1, 0, 1, 1, 1]]
    shares = _shares(labels)
    d = float(np.mean([apart / pairs for apart, pairs in shares]))
    pooled = sum(apart for apart, _ in shares) / sum(pairs for _, pairs in shares)
    expect_close(
        answer(labels),
        _noise(d),
        property="the rate is that of equation (22.1), with the mean over questions",
        hint="for each question the share of its pairs of labels that disagree; then (22.1)",
        mistakes={
            "it is the disagreement itself and not the rate": d,
            "it is half the disagreement, which holds for small rates only": d / 2,
            "questions with one label were counted as agreement": lambda: _noise(
                d * len(shares) / len(labels)
            ),
            "all pairs of labels were pooled: questions with many labels weigh more": lambda: (
                _noise(pooled)
            ),
        },
    )
    expect_close(
        answer([[0, 1], [1, 0, 1], [0]]),
        0.5,
        property="where more than half of the pairs disagree, the rate is 1/2",
        hint="what stands under the root must not be negative",
    )
    expect(
        answer([[0], [1], [1]]) is None,
        property="without a repeated question the rate is None",
        hint="nothing is known then, not even that the rate is 0",
    )


register(
    Exercise(
        id="22.1",
        title="Noise from repeated questions",
        function="noise_rate",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can read the noise of labels off a file.",
        hints=(
            "How many pairs of labels has a question with n labels?",
            "With z ones among n, z (n - z) of these pairs disagree.",
            "Solve d = 2e(1 - e) for the e that is at most 1/2.",
        ),
        check=check_noise_rate,
    )
)

# --- 22.2 ---------------------------------------------------------------------------------------


def _sums(signs, prompts):
    return np.array([sum(s for s, p in zip(signs, prompts, strict=True) if p == q)
                     for q in dict.fromkeys(prompts)])  # fmt: skip


def _p_value(sums, test):
    flips = np.array(list(itertools.product([1, -1], repeat=len(sums))))
    return float(np.mean(test(flips @ sums, sums.sum())))


def check_flip_test(answer, rng):
    for _ in range(3):
        prompts = rng.integers(0, 6, size=16)
        prompts[:6] = np.arange(6)
        signs = rng.choice([1, 1, -1], size=16)
        prompts, signs = prompts.tolist(), signs.tolist()
        sums = _sums(signs, prompts)
        mistakes = {
            "flips as far out as what was seen were not counted": lambda sums=sums: _p_value(
                sums, lambda t, seen: np.abs(t) > abs(seen)
            ),
            "it looks at one side only": lambda sums=sums: _p_value(sums, lambda t, s: t >= s),
            "every pair was turned round alone": lambda signs=signs: _p_value(
                np.array(signs), lambda t, s: np.abs(t) >= abs(s)
            ),
            "each prompt has one vote, whatever it is worth": lambda sums=sums: _p_value(
                np.sign(sums), lambda t, s: np.abs(t) >= abs(s)
            ),
        }
        expect_close(
            answer(signs, prompts),
            _p_value(sums, lambda t, seen: np.abs(t) >= abs(seen)),
            property="the p-value is the share of flips of prompts that are as far from 0",
            hint="add up the signs of each prompt; then give each sum every sign",
            mistakes=mistakes,
        )
    expect_close(
        answer([1] * 9, ["only"] * 9),
        1.0,
        property="nine pairs of one prompt prove nothing",
        hint="one prompt has two flips, and both are as far from 0",
    )


register(
    Exercise(
        id="22.2",
        title="A sign test for clusters",
        function="flip_test",
        points=4,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can test a bias when pairs of one prompt belong together.",
        hints=(
            "Which outcomes turn round together?",
            "itertools.product([1, -1], repeat=m) lists all flips of m prompts.",
            "Count a flip if its total is at least as far from 0 as the one seen.",
        ),
        check=check_flip_test,
    )
)

# --- 22.3 ---------------------------------------------------------------------------------------


def _states(p, trained, n, stage, optimiser=12, first=(3, 2, 1)):
    weights, gradients, moments = 2 * p, 2 * trained, optimiser * trained
    return (
        weights / (n if stage >= first[0] else 1)
        + gradients / (n if stage >= first[1] else 1)
        + moments / (n if stage >= first[2] else 1)
    )


def check_state_bytes(answer, rng):
    for stage in range(4):
        p = int(rng.integers(10**8, 10**10))
        trained, n = int(p * rng.uniform(0.01, 0.9)), int(rng.integers(3, 65))
        expect_close(
            answer(p, trained, n, stage),
            _states(p, trained, n, stage),
            property="each stage splits what it should",
            hint="2 bytes per weight, 2 + 12 per trained weight; stage 1 splits the 12, 2 also ...",
            mistakes={
                "frozen weights have gradients and moments, too": _states(p, p, n, stage),
                "the optimiser has 8 bytes: where is the copy in float32?": _states(
                    p, trained, n, stage, 8
                ),
                "everything was split from stage 1 on": _states(
                    p, trained, n, stage, first=(1, 1, 1)
                ),
                "the stages split in the reverse order": _states(
                    p, trained, n, stage, first=(1, 2, 3)
                ),
                "nothing was split": _states(p, trained, 1, stage),
            },
        )


register(
    Exercise(
        id="22.3",
        title="What one process holds",
        function="state_bytes",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can say whether a model fits before you rent a machine.",
        hints=(
            "Which of the three kinds of bytes belong to all weights, and which to trained ones?",
            "Stage 2 splits what stage 1 splits, and gradients.",
            "Divide each of the three terms by n if the stage has reached it.",
        ),
        check=check_state_bytes,
    )
)

# --- 22.4 ---------------------------------------------------------------------------------------


def _design(budget, tau, sigma, per_prompt, per_response, both=2, largest=64):
    best = None
    for k in range(1, largest + 1):
        n = int(budget // (per_prompt + both * k * per_response))
        if n >= 1:
            error = (tau**2 + 2 * sigma**2 / k) / n
            if best is None or error < best[0]:
                best = (error, n, k)
    return best[1:]


def check_best_design(answer, rng):
    for low, high in [(0.1, 0.2), (0.2, 0.4), (0.4, 0.5), (0.4, 0.5)]:
        tau, sigma = rng.uniform(low, high), rng.uniform(1.0, 2.0)
        per_prompt, per_response = rng.uniform(10, 30), rng.uniform(0.5, 1.0)
        budget = float(rng.integers(2000, 5000))
        case = (budget, tau, sigma, per_prompt, per_response)
        got = list(expect_length(answer(*case), 2, hint="return the prompts and the responses"))
        if got == list(_design(budget, tau, sigma, per_prompt, per_response, both=1)):
            expect(
                got == list(_design(*case)),
                property="both policies answer each prompt",
                hint="k responses of each of two policies are 2 k responses",
            )
        expect_equal(
            got,
            list(_design(*case)),
            property="the design has the least standard error that the budget buys",
            hint="try every k from 1 to 64, each with the prompts that the budget pays: (22.3)",
        )
    expect_equal(
        list(expect_length(answer(9.0, 0.0, 1.0, 1.0, 1.0), 2, hint="return two numbers")),
        [1, 4],
        property="no design costs more than the budget",
        hint="a k whose first prompt is too expensive is no design: leave it out",
    )
    expect_equal(
        list(expect_length(answer(10_000.0, 0.0, 1.0, 1000.0, 1.0), 2, hint="return two numbers")),
        [8, 64],
        property="k is at most 64",
        hint="look at every k from 1 to 64, and at no other",
    )
    expect_equal(
        list(expect_length(answer(100.0, 1.0, 0.0, 1.0, 1.0), 2, hint="return two numbers")),
        [33, 1],
        property="without noise of responses one response of each policy is enough",
        hint="with sigma = 0 only the number of prompts counts",
    )
    expect_equal(
        list(expect_length(answer(100.0, 1.0, 0.0, 2.0, 0.0), 2, hint="return two numbers")),
        [50, 1],
        property="of equal designs the one with fewer responses is taken",
        hint="on a tie keep the smaller k",
    )


register(
    Exercise(
        id="22.4",
        title="The best design for a budget",
        function="best_design",
        points=4,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can spend an evaluation's budget on prompts and responses.",
        hints=(
            "What does one prompt cost, with k responses of each of the two policies?",
            "How many whole prompts does the budget pay?",
            "Compare the standard errors (22.3) of all k, and keep the smaller k on a tie.",
        ),
        check=check_best_design,
    )
)

# --- 22.5 ---------------------------------------------------------------------------------------


def check_hold_out(answer, rng):
    sizes = rng.integers(1, 9, size=12)
    order = rng.permutation(int(sizes.sum()))
    prompts = np.repeat([f"prompt {i}" for i in rng.permutation(12)], sizes)[order].tolist()

    def held_out(share, seed):
        got = as_array(
            answer(list(prompts), share, np.random.default_rng(seed)),
            (len(prompts),),
            hint="one truth value for each pair",
        ).astype(bool)
        held = {p for p, h in zip(prompts, got, strict=True) if h}
        kept = {p for p, h in zip(prompts, got, strict=True) if not h}
        expect(
            not held & kept,
            property="no prompt is on both sides",
            hint="what must be drawn at random: pairs, or prompts?",
        )
        expect_equal(
            len(held),
            round(12 * share),
            property="the share is one of the prompts",
            hint="round(share x number of different prompts) prompts are held out",
        )
        return frozenset(held)

    seeds = rng.integers(0, 10**6, size=24).tolist()
    runs = [held_out((0.3, 0.34)[i % 2], seed) for i, seed in enumerate(seeds)]  # 3.6 and 4.08
    expect(
        len(set(runs)) > 1 and [held_out(0.3, seed) for seed in seeds[:4:2]] == runs[:4:2],
        property="which prompts are held out is drawn with rng",
        hint="rng.permutation or rng.choice, without replacement, and no other source: the same "
        "seed gives the same split, and another seed another",
    )
    often = ["often"] * 99 + [f"once {i}" for i in range(11)]
    often = [often[i] for i in rng.permutation(len(often))]
    drawn = 0  # by prompts 1 of 12, by pairs 9 of 10
    for seed in seeds[:20]:
        got = answer(list(often), 1 / 12, np.random.default_rng(seed))
        held = as_array(got, (len(often),), hint="one truth value for each pair").astype(bool)
        drawn += "often" in {p for p, h in zip(often, held, strict=True) if h}
    expect(
        drawn <= 10,
        property="a prompt with many pairs is no likelier to be held out than another",
        hint="draw from the different prompts: one with a hundred pairs is among them once",
    )
    together = {pair for held in runs for pair in itertools.combinations(sorted(held), 2)}
    expect(  # 66 pairs of prompts; runs of four neighbours in a circle of twelve hold 36 of them
        len(together) > 40,
        property="every set of prompts may be drawn",
        hint="24 draws held few pairs of prompts out together: a run of neighbours is no draw",
    )
    two = as_array(
        answer(["x", "y", "y"], 0.1, np.random.default_rng(0)), (3,), hint="a value each"
    )
    expect(
        0 < two.astype(bool).sum() < 3,
        property="at least one prompt is held out",
        hint="a small share of few prompts rounds to none: take one",
    )


register(
    Exercise(
        id="22.5",
        title="An excellent held-out accuracy",
        function="hold_out",
        kind="bug hunt",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can split a file so that held-out accuracy means something.",
        hints=(
            "Run the function on six pairs of two prompts, and look at both sides.",
            "Which things should be new to the model in the held-out rows?",
            "Draw among the different prompts, then mark all their pairs.",
        ),
        check=check_hold_out,
    )
)

# --- 22.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="22.6",
        title="A report to review",
        kind="written",
        points=6,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say what a result of post-training would still have to show.",
        hints=(
            "What is the standard error of a share of 0.56 on 100 prompts?",
            "What could the judge like besides quality?",
            "Where did the held-out pairs come from?",
        ),
        rubric=(
            Criterion(1, "power: 0.56 on 100 prompts is about one standard error above 0.5"),
            Criterion(1, "length: answers are longer; plain and controlled win rate, and gold"),
            Criterion(1, "leakage: rows were split, so prompts are on both sides; split prompts"),
            Criterion(
                1, "judge: is the order shuffled, and is it a relative of the trained reward?"
            ),
            Criterion(1, "confounds: the baseline's settings are not stated, so they may differ"),
            Criterion(1, "one concrete next measurement with its number of prompts and its judge"),
        ),
    )
)
