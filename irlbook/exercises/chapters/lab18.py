"""Lab of chapter 18: a reward from demonstrations, from a skeleton."""

from __future__ import annotations

import itertools

import numpy as np

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

BORROWED = ("irlbook.posttraining", "irlbook.lm", "irlbook.imitation", "irlbook.preferences")


def all_texts(length, v):
    """(v^length, length) every text of so many words."""
    return np.array(list(itertools.product(range(v), repeat=length)))


def sft_rows(texts, counts, v):
    """(L, V) shares of each word at each place, texts weighed by their counts."""
    rows = np.array([np.bincount(place, counts, v) for place in texts.T])
    return rows / rows.sum(axis=1, keepdims=True)


def text_logs(rows, texts):
    """(R,) log-probability of each text."""
    with np.errstate(divide="ignore"):
        return np.log(rows)[np.arange(texts.shape[1]), texts].sum(axis=1)


def log_ratio(log_sft, log_start):
    """(R,) log pi_SFT - log pi_0; 0 where the start never writes."""
    can = log_start > -np.inf
    return np.where(can, log_sft - np.where(can, log_start, 0.0), 0.0)


def best_of_n(log_start, reward, n):
    """(R,) exact chances of the best of n; equal rewards share by the start's chances."""
    p, r = np.exp(log_start), np.asarray(reward)
    at_most = (p * (r[:, None] >= r)).sum(axis=1)
    below = (p * (r[:, None] > r)).sum(axis=1)
    level = at_most - below
    safe = np.where(level > 0, level, 1.0)
    return p * np.where(level > 0, (at_most**n - below**n) / safe, 0.0)


def spin_round(log_expert, log_now, lam):
    """(R,) pi_t (p_E / pi_t)^(1 / lam), normalised."""
    scores = log_now + (log_expert - log_now) / lam
    return scores - np.logaddexp.reduce(scores)


def spin(log_expert, log_start, lam, rounds):
    """The policy after so many rounds, and KL(p_E || pi) before the first and after each."""
    log_p, curve = log_start, []
    for _ in range(rounds + 1):
        curve.append(np.exp(log_expert) @ (log_expert - log_p))
        last, log_p = log_p, spin_round(log_expert, log_p, lam)
    return last, np.array(curve)


def random_logs(size, rng):
    """(size,) log-probabilities."""
    return np.log(rng.dirichlet(np.full(size, 0.7)) + 1e-4 / size) - np.log1p(1e-4)


# --- 18L.1 --------------------------------------------------------------------------------------


def check_sft_rows(answer, rng):
    v = int(rng.integers(3, 6))
    texts = rng.integers(v - 1, size=(12, 4))
    texts[:, 0] = np.minimum(texts[:, 0], 0)
    counts = rng.integers(1, 9, size=12).astype(float)
    counts[3] = 0
    want = sft_rows(texts, counts, v)
    expect_close(
        answer(texts, counts, v),
        want,
        property="a row holds the share of each word at its place, texts weighed by their counts",
        hint="for each place: how often does each word stand there, and out of how many?",
        mistakes={
            "each text counts once": sft_rows(texts, np.ones(12), v),
            "the rows are not divided by their sum": want * counts.sum(),
            "all places share one row": np.tile(want.mean(axis=0), (4, 1)),
            "a count was added that nobody saw": (want * counts.sum() + 1) / (counts.sum() + v),
        },
    )


register(
    Exercise(
        id="18L.1",
        title="The forgetful student",
        function="sft_rows",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can fit a policy by SFT in closed form.",
        hints=(
            "`texts[:, t]` are the words at the place t.",
            "`np.bincount(words, weights, minlength)` adds up weights.",
            "Divide each row by its sum.",
        ),
        check=check_sft_rows,
        without=BORROWED,
    )
)


# --- 18L.2 --------------------------------------------------------------------------------------


def check_text_logs(answer, rng):
    rows = rng.dirichlet(np.ones(3), size=4)
    rows[1] = [0.0, 0.25, 0.75]
    texts = rng.integers(3, size=(8, 4))
    texts[0, 1], texts[1:, 1] = 0, np.maximum(texts[1:, 1], 1)
    want = text_logs(rows, texts)
    got = as_array(answer(rows, texts), (8,), finite=False, hint="one number for each text")
    expect(
        got[0] == -np.inf,
        property="a text with a word of chance 0 has the log-probability minus infinity",
        hint="log 0 is minus infinity; nothing may be added to the chances",
    )
    with np.errstate(divide="ignore"):
        logs = np.log(rows)
    expect_close(
        got[1:],
        want[1:],
        property="the log-probability of a text is the sum over its places",
        hint="which row belongs to the word at the place t?",
        mistakes={
            "they are averaged over places": want[1:] / 4,
            "the first word stands for all": logs[0][texts[1:, 0]],
            "they are chances and no logarithms": np.exp(want[1:]),
        },
    )
    rows, texts = np.tile([1e-12, 1 - 1e-12], (60, 1)), np.zeros((1, 60), dtype=int)
    expect_close(
        answer(rows, texts),
        text_logs(rows, texts),
        what="the result for a long text",
        property="a long and unlikely text keeps a finite log-probability",
        hint="add logarithms; a product of sixty small numbers is 0 to a computer",
    )


register(
    Exercise(
        id="18L.2",
        title="How likely is a text?",
        function="text_logs",
        points=2,
        difficulty=1,
        minutes=10,
        importance=4,
        goal="You can compute log-probabilities of texts without underflow.",
        hints=(
            "The policy does not see its own words, so the places are independent.",
            "`rows[t, texts[:, t]]` are the chances of the words at the place t.",
            "`np.errstate(divide='ignore')` keeps NumPy quiet about log 0.",
        ),
        check=check_text_logs,
        without=BORROWED,
    )
)


# --- 18L.3 --------------------------------------------------------------------------------------


def check_log_ratio(answer, rng):
    log_start, log_sft = random_logs(9, rng), random_logs(9, rng)
    want = log_sft - log_start
    expect_close(
        answer(log_sft, log_start),
        want,
        property="the reward is log pi_SFT less log pi_0",
        hint="equation (18.7)",
        mistakes={
            "the sign is turned": -want,
            "it is a ratio and no logarithm of one": np.exp(want),
            "the start plays no part": log_sft,
        },
    )
    log_start[[2, 5]], log_sft[[4, 5]] = -np.inf, -np.inf
    got = as_array(answer(log_sft, log_start), (9,), finite=False, hint="a number for each text")
    expect(
        bool((got[[2, 5]] == 0).all()),
        property="a text that the start never writes has the reward 0",
        hint="what is minus infinity less minus infinity?",
    )
    expect(
        got[4] == -np.inf,
        property="a text that only the start writes has the reward minus infinity",
        hint="SFT has ruled it out: it must never be chosen",
    )


register(
    Exercise(
        id="18L.3",
        title="A reward from two policies",
        function="log_ratio",
        points=2,
        difficulty=2,
        minutes=10,
        importance=5,
        goal="You can read a reward off two policies, at the edges of their support, too.",
        hints=(
            "Subtract where the start writes the text.",
            "`np.where` computes both sides; put a finite number in the place of minus infinity.",
            "`log_start > -np.inf` says where.",
        ),
        check=check_log_ratio,
        without=BORROWED,
    )
)


# --- 18L.4 --------------------------------------------------------------------------------------


def check_best_of_n(answer, rng):
    log_start = random_logs(8, rng)
    p = np.exp(log_start)
    reward = rng.permutation(8).astype(float)
    n = int(rng.integers(3, 7))
    want = best_of_n(log_start, reward, n)
    even = np.full(8, -np.log(8))
    expect_close(
        answer(log_start, reward, n),
        want,
        property="a text is the best of n with the chance that all n are at most as good, less the "
        "chance that all are worse",
        hint="order the texts by reward; add up the start's chances from below",
        mistakes={
            "it is the best of n - 1": best_of_n(log_start, reward, n - 1),
            "it is the best of n + 1": best_of_n(log_start, reward, n + 1),
            "the start counts as uniform": best_of_n(even, reward, n),
            "the worst of n is chosen": best_of_n(log_start, -reward, n),
            "the best text of all is chosen": np.eye(8)[reward.argmax()],
        },
    )
    reward = np.repeat([0.5, 2.0], 4)
    reward[0] = -np.inf
    reward = rng.permutation(reward)
    want = best_of_n(log_start, reward, n)
    group = np.array([(want * (reward == r)).sum() / (reward == r).sum() for r in reward])
    expect_close(
        answer(log_start, reward, n),
        want,
        what="the result with equal rewards",
        property="texts of equal reward share their chance as the start would write them",
        hint="treat all texts of one reward as one, then divide by the start's chances",
        mistakes={"they share evenly": group},
    )
    expect_close(
        answer(log_start, reward, 1),
        p,
        what="the result for n = 1",
        property="the best of one is a sample of the start",
        hint="what does your formula say for n = 1?",
    )
    log_start = np.append(log_start, -np.inf)
    reward = np.append(reward, 9.0)
    expect_close(
        answer(log_start, reward, n),
        np.append(want, 0.0),
        what="the result with a text that the start never writes",
        property="a text that the start never writes is never chosen",
        hint="0 divided by 0 needs a case of its own",
    )


register(
    Exercise(
        id="18L.4",
        title="The best of n, exactly",
        function="best_of_n",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can compute what the best of n writes, without sampling.",
        hints=(
            "How likely is a draw that is at most as good as this text, and one that is worse?",
            "All n draws are at most as good with the n-th power of the first.",
            "The difference of the two powers belongs to all texts of this reward together.",
        ),
        check=check_best_of_n,
        without=BORROWED,
    )
)


# --- 18L.5 --------------------------------------------------------------------------------------


def check_spin_round(answer, rng):
    log_expert, log_now = random_logs(10, rng), random_logs(10, rng)
    lam = float(rng.uniform(1.5, 4.0))
    want = spin_round(log_expert, log_now, lam)
    raw = log_now + (log_expert - log_now) / lam
    expect_close(
        answer(log_expert, log_now, lam),
        want,
        property="a round multiplies the policy by (p_E / pi)^(1 / lambda), and normalises",
        hint="equation (18.9), in logarithms",
        mistakes={
            "it is not normalised": raw,
            "the exponent is lambda": spin_round(log_expert, log_now, 1 / lam),
            "the ratio is turned": spin_round(2 * log_now - log_expert, log_now, lam),
            "demonstrator and policy are exchanged": spin_round(log_now, log_expert, lam),
            "it is the demonstrator, for every lambda": log_expert,
        },
    )
    far = np.append(log_expert, -2000.0), np.append(log_now, -1900.0)
    expect_close(
        answer(*far, lam),
        spin_round(*far, lam),
        what="the result with a text of chance e^-1900",
        property="very unlikely texts keep their log-probabilities",
        hint="stay with logarithms to the end; `np.logaddexp.reduce` normalises",
    )


register(
    Exercise(
        id="18L.5",
        title="A round of SPIN",
        function="spin_round",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can compute a round of self-play on demonstrations.",
        hints=(
            "log pi + (log p_E - log pi) / lambda, up to a constant.",
            "The constant is the logarithm of a sum of exponentials.",
            "`np.logaddexp.reduce` computes it without overflow.",
        ),
        check=check_spin_round,
        without=BORROWED,
    )
)


# --- 18L.6 --------------------------------------------------------------------------------------


def check_spin(answer, rng):
    log_expert, log_start = random_logs(10, rng), random_logs(10, rng)
    lam, rounds = float(rng.uniform(1.5, 3.0)), int(rng.integers(3, 7))
    want, curve = spin(log_expert, log_start, lam, rounds)
    got = expect_length(
        expect_type(
            answer(log_expert, log_start, lam, rounds),
            (tuple, list),
            hint="return the policy and the curve",
        ),
        2,
        hint="return the policy and the curve",
    )
    expect_close(
        got[0],
        want,
        property="each round begins with the policy of the last one",
        hint="which policy is the opponent of the next round?",
        mistakes={
            "the opponent is always the start": spin_round(log_expert, log_start, lam),
            "there was a round too few": spin(log_expert, log_start, lam, rounds - 1)[0],
            "there was a round too many": spin(log_expert, log_start, lam, rounds + 1)[0],
        },
    )
    path = [spin(log_expert, log_start, lam, k)[0] for k in range(rounds + 1)]
    expect_close(
        got[1],
        curve,
        property="the curve is KL(p_E || pi) before the first round and after each",
        hint="the divergence is an average under the demonstrator; count the entries",
        mistakes={
            "the divergence is turned": np.array([np.exp(q) @ (q - log_expert) for q in path]),
            "its sign is turned": -curve,
        },
    )


register(
    Exercise(
        id="18L.6",
        title="Round after round",
        function="spin",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can iterate self-play, and see whether its fixed point attracts.",
        hints=(
            "Write down the divergence first, then play a round.",
            "After the last round write it down once more.",
            "KL(p_E || pi) is the sum of p_E (log p_E - log pi).",
        ),
        check=check_spin,
        without=BORROWED,
    )
)


# --- 18L.7 --------------------------------------------------------------------------------------


def check_draw_gold(answer, rng):
    ns = 2 ** np.arange(int(rng.integers(6, 10)))
    ceiling = np.sort(rng.uniform(1, 3, size=len(ns)))
    k = int(rng.integers(1, len(ns) - 2))
    learned = ceiling - 1.0 - 0.3 * np.abs(np.arange(len(ns)) - k)
    learned[k] = learned.max() + 0.5
    (panel,) = expect_picture(answer(ns, learned, ceiling), hint="one pair of axes").axes
    for name, ys in (("learned reward", learned), ("gold itself", ceiling)):
        expect_line(
            panel,
            ns,
            ys,
            property=f"one line shows gold against n for {name}",
            hint="both against `ns`, not against 0, 1, 2, ...",
        )
    expect_vertical_line(
        panel,
        ns[k],
        property="a vertical line marks the n with the most gold by the learned reward",
        hint="`ns[learned.argmax()]`: an n, not a place in the list",
    )
    expect_legend(
        panel,
        {"learned": learned, "gold": ceiling},
        property="a legend names both lines: `learned` and `gold`",
    )
    expect(
        panel.xscale == "log" and "n" in panel.xlabel.split() and "gold" in panel.ylabel.lower(),
        property="n is on a log axis that says n, and the other axis says gold",
        hint='`ax.set(xscale="log", xlabel="n", ylabel=...)`',
    )


register(
    Exercise(
        id="18L.7",
        title="The picture: where it turns over",
        kind="figure",
        function="draw_gold",
        points=2,
        difficulty=1,
        minutes=10,
        importance=4,
        goal="You can draw how far a reward can be trusted.",
        hints=(
            "Two calls of `plot`, one of `axvline`.",
            "A legend needs labels: `learned` and `gold`.",
            "The axis of n is logarithmic.",
        ),
        check=check_draw_gold,
    )
)


# --- 18L.8 --------------------------------------------------------------------------------------


def gold_curve(texts, counts, v, log_start, gold, ns):
    """(N,) exact gold of the best of n by the reward that the counts teach."""
    reward = log_ratio(text_logs(sft_rows(texts, counts, v), texts), log_start)
    return np.array([best_of_n(log_start, np.round(reward, 9), n) @ gold for n in ns])


def check_best_n(answer, rng):
    texts = all_texts(3, 3)
    usual = np.array([0.45, 0.5, 0.05]) * rng.uniform(0.9, 1.1, size=(3, 3))
    log_start = text_logs(usual / usual.sum(axis=1, keepdims=True), texts)
    gold = (texts == 0).sum(axis=1) - 1.0 * (texts == 1).sum(axis=1)
    habit = 2.5 * (texts[:, 0] == 2) + 2.5 * (texts[:, 2] == 2)
    shown = np.exp(log_start + gold + habit)
    counts = rng.multinomial(400, shown / shown.sum()).astype(float)
    ns = [1, 2, 4, 8, 16, 64, 256, 1024]
    curve = gold_curve(texts, counts, 3, log_start, gold, ns)
    got = expect_type(
        answer(texts, counts, 3, log_start, gold, ns), dict, hint='{"gold": ..., "n": ...}'
    )
    expect(
        set(got) == {"gold", "n"},
        property="the result has the keys gold and n",
        hint='{"gold": ..., "n": ...}',
    )
    sft = text_logs(sft_rows(texts, counts, 3), texts)
    from_sft = log_ratio(sft, log_start)
    expect_close(
        got["gold"],
        curve,
        property="samples come from the start, are chosen by the learned reward, and are judged by "
        "gold",
        hint="which policy writes, which reward chooses, and what is averaged?",
        mistakes={
            "gold chooses": np.array([best_of_n(log_start, gold, n) @ gold for n in ns]),
            "SFT writes the samples": lambda: np.array(
                [best_of_n(sft, np.round(from_sft, 9), n) @ gold for n in ns]
            ),
            "the reward is averaged in the place of gold": lambda: np.array(
                [
                    best_of_n(log_start, np.round(from_sft, 9), n)
                    @ np.where(np.isfinite(from_sft), from_sft, 0)
                    for n in ns
                ]
            ),
        },
    )
    expect(
        got["n"] == ns[int(np.argmax(curve))],
        property="n is the one with the most gold",
        hint="an entry of `ns`, not a place in the list",
    )


register(
    Exercise(
        id="18L.8",
        title="The whole: how far may it be pushed?",
        function="best_n",
        points=4,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can learn a reward from demonstrations and say where it stops to help.",
        hints=(
            "SFT, log-ratio, best of n: the functions above, one after the other.",
            "Round the reward to nine decimals, so that equal rewards are equal.",
            "Gold is averaged under the chances of the best of n.",
        ),
        check=check_best_n,
        without=BORROWED,
        seconds=20,
    )
)


# --- 18L.9 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="18L.9",
        title="Explain your picture",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say why a reward from demonstrations turns over.",
        hints=(
            "Take the reward apart: how much does it pay for gold, how much for the habit?",
            "Which texts does the best of very many choose?",
            "Where does SPIN end, whatever lambda is?",
        ),
        rubric=(
            Criterion(
                1,
                "reads the picture: gold by the learned reward rises, has a maximum and falls; "
                "by gold itself it never falls",
            ),
            Criterion(
                1,
                "the reward is quality plus habits, up to what the student can copy; both tell "
                "demonstrations from samples",
            ),
            Criterion(
                1,
                "why at large n: the few texts with the highest reward are chosen, and in them "
                "the habits take places that gold could use; among few draws they are missing",
            ),
            Criterion(
                1,
                "more demonstrations do not remove it, since the habit is in the demonstrations; "
                "other demonstrators or some judgements of gold would",
            ),
            Criterion(
                1,
                "SPIN ends at the demonstrators, habits included, and does not go beyond them; "
                "the best of n does",
            ),
        ),
    )
)
