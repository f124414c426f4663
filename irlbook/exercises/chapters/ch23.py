"""Exercises of chapter 23: a real language model."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_equal,
    expect_length,
    expect_raises,
    expect_type,
)

WITHOUT = ("irlbook.posttraining", "irlbook.lm")

# --- 23.1 ---------------------------------------------------------------------------------------

# As in SmolLM2's template: <|im_start|>, role, newline, text, <|im_end|>, newline. Pad is the end.
MARKS = {"begin": 1, "end": 2, "newline": 9, "system": 6, "user": 7, "assistant": 8}


def _words(rng, n: int, *also: str) -> list[int]:
    """n tokens of text, among them these tokens that elsewhere belong to a header."""
    text = rng.integers(20, 60, size=n).tolist()
    for at, name in zip(rng.permutation(n)[: len(also)].tolist(), also, strict=True):
        text[at] = MARKS[name]
    return text


def _turn(role: str, text: list[int], ended: bool = True, newline: bool = True) -> list[int]:
    header = [MARKS["begin"], MARKS[role], MARKS["newline"]]
    return header + text + [MARKS["end"]] * ended + [MARKS["newline"]] * (ended and newline)


def _conversations(rng) -> tuple[np.ndarray, np.ndarray]:
    """(ids (B, L), lengths (B,)): whole, cut, opened, with and without a system message."""

    def some():
        return int(rng.integers(3, 7))

    rows = [
        # the template's own system message; the answer ended
        _turn("system", _words(rng, some()))
        + _turn("user", _words(rng, 5, "newline", "assistant"))
        + _turn("assistant", _words(rng, some())),
        # two answers, the second cut
        _turn("user", _words(rng, some()))
        + _turn("assistant", _words(rng, 6, "newline", "user", "assistant"))
        + _turn("user", _words(rng, some()))
        + _turn("assistant", _words(rng, some()), ended=False),
        # opened for an answer that is still to come
        _turn("user", _words(rng, some())) + _turn("assistant", [], ended=False),
        # two answers, and nothing behind the last end token
        _turn("user", _words(rng, some()))
        + _turn("assistant", _words(rng, some()))
        + _turn("user", _words(rng, some()))
        + _turn("assistant", _words(rng, 9, "newline", "system"), newline=False),
    ]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    lengths = np.array([len(row) for row in rows])
    ids = np.full((len(rows), lengths.max() + int(rng.integers(0, 3))), MARKS["end"])
    for row, out in zip(rows, ids, strict=True):
        out[: len(row)] = row
    return ids, lengths


def _own(ids, lengths, **slip) -> np.ndarray:
    """What the assistant wrote, or the same with a slip."""
    found = np.zeros(ids.shape, dtype=bool)
    for row, n, out in zip(ids, lengths, found, strict=True):
        starts = np.flatnonzero(row[:n] == MARKS["begin"])
        turns = list(zip(starts, [*starts[1:], n], strict=True))
        own = [t for t in turns if slip.get("all") or row[t[0] + 1] == MARKS["assistant"]]
        if slip.get("last"):
            own = own[-1:]
        for start, stop in own:
            text = start + (0 if slip.get("header") else 3)
            ends = np.flatnonzero(row[text:stop] == MARKS["end"])
            if len(ends) and not slip.get("newline"):
                stop = text + ends[0] + (0 if slip.get("no end") else 1)
            out[text:stop] = True
        if slip.get("pad"):
            out[n:] = True
    return found


def check_own_tokens(answer, rng):
    ids, lengths = _conversations(rng)
    want = _own(ids, lengths)
    got = as_array(answer(ids, lengths, MARKS), want.shape)
    expect(
        (got == 0) | (got == 1),
        property="the mask says True or False of each token",
        hint="return an array of booleans",
    )
    expect_close(
        got.astype(float),
        want.astype(float),
        property="the mask holds the text of each of the assistant's turns and its end token, and "
        "nothing else",
        hint="print one row of ids with your mask below it, once for each of the rows",
        mistakes={
            "the end token is left out": _own(ids, lengths, **{"no end": True}),
            "padding is counted: it is the end token, but nobody wrote it": _own(
                ids, lengths, pad=True
            ),
            "only the last answer of a conversation is counted": _own(ids, lengths, last=True),
            "the header is counted: the template wrote it": _own(ids, lengths, header=True),
            "the newline behind an end token is counted: the template wrote it": _own(
                ids, lengths, newline=True
            ),
            "what the others say is counted": _own(ids, lengths, all=True),
        },
    )


register(
    Exercise(
        id="23.1",
        title="Which tokens did the model write?",
        function="own_tokens",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can mask a batch of rendered conversations where pad is the end token.",
        hints=(
            "A turn begins where `begin` stands, and nowhere else. It reaches to the next one, or "
            "to the length of the row.",
            "The token behind `begin` is the role. Three tokens behind `begin` the text starts.",
            "Look for the first end token of the turn, inside the length of the row. If there is "
            "none, the turn was cut.",
        ),
        check=check_own_tokens,
        without=WITHOUT,
    )
)


# --- 23.2 ---------------------------------------------------------------------------------------


def _weights(gold, strength):
    logw = strength * gold
    logw = logw - logw.max(axis=1, keepdims=True)
    return np.exp(logw) / np.exp(logw).sum(axis=1, keepdims=True)


def _kls(weights) -> np.ndarray:
    """(P,) KL of weights to equal weights."""
    some = np.where(weights > 0, weights, 1.0)
    return (weights * np.log(some)).sum(axis=1) + np.log(weights.shape[1])


def _tilt(gold, strength) -> tuple[float, float]:
    weights = _weights(gold, strength)
    return float((weights * gold).sum(axis=1).mean()), float(_kls(weights).mean())


def check_tilt(answer, rng):
    prompts, n = int(rng.integers(3, 6)), int(rng.integers(6, 11))
    gold = rng.normal(size=(prompts, n)) * rng.uniform(0.2, 1.0, size=(prompts, 1))
    gold += rng.normal(size=(prompts, 1))

    def ask(gold, strength):
        got = expect_length(answer(gold, strength), 3, hint="return three: gold, kl, effective")
        names = ("`gold`", "`kl`", "`effective`")
        return [as_array(x, (), what=what) for x, what in zip(got, names, strict=True)]

    for strength in (float(rng.uniform(1.0, 4.0)), -float(rng.uniform(0.5, 2.0))):
        got = ask(gold, strength)
        w = _weights(gold, strength)
        pooled = _weights(gold.reshape(1, -1), strength).reshape(gold.shape)
        kl = _kls(w)
        even = np.full_like(w, 1 / n)
        expect_close(
            got[0],
            (w * gold).sum(axis=1).mean(),
            what="`gold`",
            property="the weights of a prompt's samples are proportional to exp(strength * gold) "
            "and sum to 1, and all prompts count alike",
            hint="a policy has one distribution for each prompt: over what does it sum to 1?",
            mistakes={
                "the weights sum to 1 over all prompts together": (pooled * gold).sum(),
                "strength divides; it must multiply": (_weights(gold, 1 / strength) * gold)
                .sum(axis=1)
                .mean(),
                "strength counts by its size only": (_weights(gold, abs(strength)) * gold)
                .sum(axis=1)
                .mean(),
                "it is the mean gold of the start": gold.mean(),
                "it is the gold of the best samples": gold.max(axis=1).mean(),
                "it is a sum over prompts": (w * gold).sum(),
            },
        )
        expect_close(
            got[1],
            kl.mean(),
            what="`kl`",
            property="`kl` is the KL in nats from the weights to the equal weights 1/n, averaged "
            "over prompts",
            hint="the start gives each of its own n samples the weight 1/n: E_w[log(w / (1/n))]",
            mistakes={
                "the start's weight 1/n is missing": kl.mean() - np.log(n),
                "it is the other direction, from equal weights": (even * np.log(even / w))
                .sum(axis=1)
                .mean(),
                "the mean is taken under equal weights": (even * np.log(w / even))
                .sum(axis=1)
                .mean(),
                "it is a sum over prompts": kl.sum(),
                "it is in bits": kl.mean() / np.log(2),
                "it is the small-strength formula, strength^2 Var / 2": (
                    strength**2 * gold.var(axis=1) / 2
                ).mean(),
            },
        )
        expect_close(
            got[2],
            (1 / (w**2).sum(axis=1)).mean(),
            what="`effective`",
            property="`effective` is 1 / sum of squared weights, averaged over prompts",
            hint="it is n for equal weights, and 1 where one sample has all of the weight",
            mistakes={
                "the squares are averaged over prompts before the division": 1
                / (w**2).sum(axis=1).mean(),
                "it is a share of n": (1 / (w**2).sum(axis=1)).mean() / n,
                "it is exp of the entropy": np.exp(np.log(n) - kl).mean(),
                "it is a sum over prompts": (1 / (w**2).sum(axis=1)).sum(),
            },
        )
    got = ask(gold, 0.0)
    expect_close(
        np.array(got),
        np.array([gold.mean(), 0.0, n]),
        what="the result at strength 0",
        property="at strength 0 the tilt is the start",
        hint="all weights are 1/n then",
    )
    best = np.round(gold, 1)
    best[0, :3] = best[0].max() + 1.0  # three of the best tie
    count = (best == best.max(axis=1, keepdims=True)).sum(axis=1)
    shift = 300.0 * rng.choice([-1, 1])
    expect_close(
        np.array(ask(best + shift, 4e3)),
        np.array([(best + shift).max(axis=1).mean(), np.log(n / count).mean(), count.mean()]),
        what="the result at a very large strength",
        property="a very large strength leaves a prompt's best samples, those that tie with equal "
        "weights, and the numbers stay finite",
        hint="exp(4000 * 300) is no number, and 0 * log 0 counts as 0: subtract something first, "
        "and work with the logarithm of the weights",
    )


register(
    Exercise(
        id="23.2",
        title="The cheapest way to more gold",
        function="tilt",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can draw the exact frontier of gold and KL from the start's samples alone.",
        hints=(
            "Along which axis are the samples of one prompt? All sums but the last run along it.",
            "Keep the logarithm of the weights: strength * gold minus the logsumexp over the "
            "prompt's samples.",
            "The KL of a prompt is the weighted mean of the log-weight plus log n.",
        ),
        check=check_tilt,
        without=WITHOUT,
    )
)


# --- 23.3 ---------------------------------------------------------------------------------------


def _match(pool, wanted) -> tuple[float, float]:
    """(strength, KL) of the tilt with this mean gold."""
    strength = brentq(lambda s: _tilt(pool, s)[0] - wanted, -1e4, 1e4, xtol=1e-12)
    return float(strength), _tilt(pool, strength)[1]


def check_bill(answer, rng):
    prompts, n, k = int(rng.integers(3, 6)), int(rng.integers(10, 15)), int(rng.integers(4, 8))
    pool = 0.4 * rng.normal(size=(prompts, n)) + 0.3 * rng.normal(size=(prompts, 1))
    ratios = rng.uniform(1.0, 6.0) + rng.normal(size=(prompts, k))

    def case(mean: float):
        gold = 0.2 * rng.normal(size=(prompts, k)) + 0.2 * rng.normal(size=(prompts, 1))
        return gold - gold.mean() + mean

    def ask(gold, ratios):
        hint = "return three numbers: paid, needed, strength"
        got = expect_length(answer(gold, ratios, pool), 3, hint=hint)
        names = ("`paid`", "`needed`", "`strength`")
        return [as_array(x, (), what=what) for x, what in zip(got, names, strict=True)]

    for strength, what in ((float(rng.uniform(1.5, 4.0)), ""), (-2.0, "below the start's")):
        gold = case(_tilt(pool, strength)[0])
        paid, needed, found = ask(gold, ratios)
        expect_close(
            paid,
            ratios.mean(),
            what="`paid`",
            property="`paid` estimates the policy's KL to the start, in nats per response, from "
            "its own samples",
            hint="KL(pi || pi_ref) is an expectation under pi, and the samples are those of pi",
            mistakes={
                "it is the other direction": -ratios.mean(),
                "it is a sum": ratios.sum(),
                "the log-ratios are squared, as for the distance to a close policy": (
                    ratios**2
                ).mean()
                / 2,
            },
        )
        shared = _match(pool.reshape(1, -1), gold.mean())
        expect_close(
            found,
            strength,
            rtol=1e-4,
            what="`strength`" + (f", of a policy whose gold is {what}" if what else ""),
            property="at one strength, the same for all prompts, the tilt of the pool has the "
            "policy's mean gold",
            hint="the tilt's mean gold rises with the strength, from below 0 to above: bisect",
            mistakes={
                "all prompts share one distribution": shared[0],
                "the sign is lost": abs(strength),
                "it is the inverse": 1 / strength,
            },
        )
        expect_close(
            needed,
            _tilt(pool, strength)[1],
            rtol=1e-4,
            what="`needed`",
            property="`needed` is the KL of that tilt",
            hint="weights of the pool, against equal weights, averaged over prompts",
            mistakes={
                "it is the formula for a small gain, gain^2 / (2 Var)": (
                    (gold.mean() - pool.mean()) ** 2 / (2 * pool.var(axis=1).mean())
                ),
                "it is what was spent on the rest": paid - _tilt(pool, strength)[1],
            },
        )
    small = 0.3 * (ratios - ratios.mean()) - 0.05
    expect_close(
        ask(gold, small)[0],
        small.mean(),
        what="`paid` of a policy that hardly moved",
        property="an estimate of a KL may come out negative, and is left so: clipped it would be "
        "biased",
        hint="the mean of the log-ratios, whatever its sign",
    )
    top = pool.max(axis=1).mean()
    high = _tilt(pool, 120.0)[0]
    if top - high > 1e-9:
        strength, kl = _match(pool, high)
        expect_close(
            ask(case(high), ratios)[1],
            kl,
            rtol=1e-3,
            what="`needed` of a policy that is nearly as good as the best samples",
            property="a policy may need a large strength",
            hint="how far does your search reach? Double its end until the tilt has gold enough",
        )
    for gold in (case(top + 0.05), case(pool.min(axis=1).mean() - 0.05)):
        expect_raises(
            ValueError,
            answer,
            gold,
            ratios,
            pool,
            property="a gold that no tilt of the pool reaches is an error, and no number",
            hint="no weighting of samples is better than the best of them, or worse than the "
            "worst: compare first, and raise a ValueError",
        )


register(
    Exercise(
        id="23.3",
        title="The bill of a policy",
        function="bill",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can split a policy's KL into what its gold needs and what was spent on the rest.",
        hints=(
            "One number is wanted first: the strength at which the tilt of 23.2 has the mean gold "
            "of the policy's samples.",
            "Mean gold rises with the strength. Move both ends outwards, by doubling, until the "
            "wanted gold lies between; `scipy.optimize.brentq` does the rest.",
            "As the strength grows, the tilt's gold goes to the mean over prompts of the best "
            "sample's gold, and with a negative one to that of the worst. Outside: ValueError.",
        ),
        check=check_bill,
        without=WITHOUT,
    )
)


# --- 23.4 ---------------------------------------------------------------------------------------


def check_kl_by_class(answer, rng):
    names = ("end", "other", "sentiment")
    count = int(rng.integers(5, 8))
    classes, ratios = [], []
    for number in range(count):
        n = int(rng.integers(3, 9))
        own = rng.choice(names[1:], size=n, p=[0.6, 0.4]).tolist() + ["end"] * (number % 2)
        own[:2] = ["sentiment", "other"]
        classes.append(own)
        ratios.append((rng.normal(size=len(own)) + (np.array(own) == "sentiment")).tolist())
    for own, values in zip(classes, ratios, strict=True):
        if own[-1] == "end":
            values[-1] = -float(rng.uniform(0.5, 2.0))  # the policy ends less readily
    for sign in (1, -1):  # no sentiment word, and cut
        classes.append(["other", "other"])
        ratios.append((sign * rng.uniform(0.2, 1.0, size=2)).tolist())
    empty = int(rng.integers(len(classes)))
    classes.insert(empty, [])  # nothing was written before the end of the tokens
    ratios.insert(empty, [])
    total = len(classes)

    def parts(how):
        found = {}
        for name in names:
            own = [
                [r for c, r in zip(cs, rs, strict=True) if c == name]
                for cs, rs in zip(classes, ratios, strict=True)
            ]
            found[name] = how(own)
        return np.array([found[name] for name in names])

    want = parts(lambda own: sum(map(sum, own)) / total)
    hint = "return a dict: class -> nats per response"
    got = expect_type(answer(classes, ratios), dict, hint=hint)
    expect(
        set(got) == set(names),
        property="there is one number for each class that occurs",
        hint=hint,
    )
    values = np.array([float(as_array(got[n], (), what=f"the part of {n!r}")) for n in names])
    expect_close(
        values,
        want,
        what="the split",
        property="each part is the mean over all responses of the sum over a class's tokens, so "
        "the parts add up to the KL per response",
        hint="add your parts up, and compare with the mean of the responses' sums. Which line "
        "loses something?",
        mistakes={
            "each response's tokens of a class are averaged, not summed": parts(
                lambda own: sum(np.mean(x) if x else 0.0 for x in own) / total
            ),
            "only the responses that have such a token count in the mean": parts(
                lambda own: sum(map(sum, own)) / sum(1 for x in own if x)
            ),
            "negative parts are cut off": np.maximum(want, 0),
            "within a response, negative sums are cut off": parts(
                lambda own: sum(max(0.0, sum(x)) for x in own) / total
            ),
            "it is in nats per token of all responses": want * total / sum(map(len, ratios)),
            "it is in nats per token of the class": parts(
                lambda own: sum(map(sum, own)) / sum(map(len, own))
            ),
            "responses without tokens are left out": want * total / (total - 1),
            "it is a sum over responses": want * total,
            "the log-ratios lost their sign": parts(
                lambda own: sum(abs(r) for x in own for r in x) / total
            ),
        },
    )


register(
    Exercise(
        id="23.4",
        title="Parts that do not add up",
        kind="bug hunt",
        function="kl_by_class",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can split a KL by kinds of tokens so that nothing is lost.",
        hints=(
            "There is a test that needs no expected value: the parts must add up to the mean of "
            "the responses' sums.",
            "The function goes wrong in three places. Try responses of different lengths, a class "
            "that only one response has, and a policy that makes some tokens less likely.",
            "A log-ratio of a response is a sum over tokens. An expectation over responses counts "
            "each of them, also one without such a token. A part may be negative.",
        ),
        check=check_kl_by_class,
        without=WITHOUT,
    )
)


# --- 23.5 ---------------------------------------------------------------------------------------


def _share(x) -> float:
    """Share of positive numbers, with zeros as halves."""
    return float((np.sign(x).mean() + 1) / 2)


def _pairs(rng) -> tuple[np.ndarray, np.ndarray]:
    """(rewards (P, 2), lengths (P, 2)) with ties, equal lengths, and pairs at the boundary of 1/4.

    Drawn again until every slip of counting gives another accuracy.
    """
    while True:
        n = int(rng.integers(30, 45))
        lengths = rng.integers(5, 60, size=(n, 2))
        lengths[:8] = [(16, 12), (12, 16), (20, 15), (30, 24), (20, 16), (15, 12), (9, 9), (17, 17)]
        lengths[8:11] = [(40, 31), (31, 40), (17, 13)]  # near by the longer, not by the shorter
        quality = rng.normal(size=n) + 0.4
        rewards = np.stack([quality / 2, -quality / 2], axis=1) + 3 * rng.normal(size=(n, 1))
        rewards -= 0.03 * lengths
        rewards[[2, 6, 11, 12, 13]] = rewards[[2, 6, 11, 12, 13], :1]  # ties
        margin, shorter = rewards[:, 0] - rewards[:, 1], lengths[:, 1] - lengths[:, 0]
        gap, longest = np.abs(shorter), lengths.max(axis=1) / 4
        if all(
            len(set(np.round(values, 9))) == len(values)
            for values in (
                [_share(margin), _share(-margin), (margin > 0).mean(), (margin >= 0).mean()],
                [_share(shorter), _share(-shorter), (shorter > 0).mean(), (shorter >= 0).mean()],
                [
                    *(_share(margin[gap <= longest]), _share(margin[gap < longest])),
                    *(_share(margin[gap > longest]), _share(shorter[gap <= longest])),
                    *(_share(margin[gap <= lengths.min(axis=1) / 4]), _share(margin[gap == 0])),
                ],
            )
        ):
            order = rng.permutation(n)
            return rewards[order], lengths[order]


def check_beyond_length(answer, rng):
    near = 0.25
    rewards, lengths = _pairs(rng)
    margin, shorter = rewards[:, 0] - rewards[:, 1], lengths[:, 1] - lengths[:, 0]
    close = np.abs(shorter) <= near * lengths.max(axis=1)

    def ask(rewards, lengths):
        hint = "return four things: accuracy, shorter, near_equal, balanced"
        return expect_length(answer(rewards, lengths, near), 4, hint=hint)

    def number(got, what):
        expect(
            got is not None,
            property=f"{what} is a number where there are pairs for it",
            hint="None is for the case that no pair is left",
        )
        return as_array(got, (), what=what)

    def balanced(margin, shorter):
        return (_share(margin[shorter > 0]) + _share(margin[shorter < 0])) / 2

    got = ask(rewards, lengths)
    expect_close(
        number(got[0], "`accuracy`"),
        _share(margin),
        what="`accuracy`",
        property="`accuracy` is the share of pairs whose chosen response has the higher reward, "
        "and a tie counts as half",
        hint="-1, 0 and 1 become 0, 1/2 and 1",
        mistakes={
            "a tie counts as wrong": (margin > 0).mean(),
            "a tie counts as right": (margin >= 0).mean(),
            "the rejected response is read as the chosen one": _share(-margin),
        },
    )
    expect_close(
        number(got[1], "`shorter`"),
        _share(shorter),
        what="`shorter`",
        property="`shorter` is the accuracy of the rule that prefers the shorter response, and "
        "equal lengths count as half",
        hint="the reward of this rule is minus the length",
        mistakes={
            "it is the rule that prefers the longer one": _share(-shorter),
            "equal lengths count as wrong": (shorter > 0).mean(),
            "equal lengths are left out": _share(shorter[shorter != 0]),
        },
    )
    expect_close(
        number(got[2], "`near_equal`"),
        _share(margin[close]),
        what="`near_equal`",
        property="`near_equal` is the accuracy on the pairs whose lengths differ by at most `near` "
        "of the longer one",
        hint="which pairs are at the boundary, and of which length is the share taken?",
        mistakes={
            "a difference of exactly `near` is left out": lambda: _share(
                margin[np.abs(shorter) < near * lengths.max(axis=1)]
            ),
            "the difference is measured by the shorter length": lambda: _share(
                margin[np.abs(shorter) <= near * lengths.min(axis=1)]
            ),
            "it is on pairs of exactly equal length": lambda: _share(margin[shorter == 0]),
            "it is on the pairs that are not near": lambda: _share(margin[~close]),
            "it counts the length rule's hits": _share(shorter[close]),
        },
    )
    expect_close(
        number(got[3], "`balanced`"),
        balanced(margin, shorter),
        what="`balanced`",
        property="`balanced` is the mean of two accuracies, one on pairs whose chosen response is "
        "the shorter one and one on pairs whose chosen response is the longer one",
        hint="pairs of equal length are in neither group, and the groups count alike",
        mistakes={
            "the groups count by their sizes": _share(margin[shorter != 0]),
            "equal lengths are in both groups": (
                _share(margin[shorter >= 0]) + _share(margin[shorter <= 0])
            )
            / 2,
            "only the group with the shorter chosen response counts": _share(margin[shorter > 0]),
            "only the group with the longer chosen response counts": _share(margin[shorter < 0]),
        },
    )
    uneven = lengths[shorter != 0]
    got = ask(-0.1 * uneven, uneven)
    expect_close(
        number(got[3], "`balanced`"),
        0.5,
        what="`balanced` of a model that knows nothing but length",
        property="a reward that is minus the length is worth one half when the groups count alike",
        hint="on one group it is always right, and on the other always wrong",
    )
    far = lengths[~close]
    got = ask(rewards[~close], far)
    expect(
        got[2] is None,
        property="`near_equal` is None where no pair is near",
        hint="a mean of nothing is no accuracy, and 0 or one half would claim something",
    )
    flipped = np.sort(lengths[shorter != 0], axis=1)
    for own in (flipped, flipped[:, ::-1]):
        got = ask(rewards[shorter != 0], own)
        expect(
            got[3] is None,
            property="`balanced` is None where one of the two groups is empty",
            hint="what are 100 pairs worth in which the chosen response is always the shorter one?",
        )
        expect_equal(
            round(float(number(got[1], "`shorter`")), 9),
            float((own[:, 0] < own[:, 1]).all()),
            what="`shorter`",
            property="`shorter` is 1 where the chosen response is always the shorter one, and 0 "
            "where it is always the longer one",
            hint="column 0 is the chosen response",
        )


register(
    Exercise(
        id="23.5",
        title="What remains at equal length?",
        function="beyond_length",
        points=4,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can tell a reward model that learned preferences from one that learned length.",
        hints=(
            "One small function, the share of positive numbers with zeros as halves, serves four "
            "times.",
            "`np.sign` knows three cases. The margins of the rewards go in, or those of the "
            "lengths, of all pairs or of some.",
            "Before a mean, ask whether any pair is left: `mask.any()`.",
        ),
        check=check_beyond_length,
        without=WITHOUT,
    )
)


# --- 23.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="23.6",
        title="A report on a real model",
        kind="written",
        points=6,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can say what a small study of a real model shows, and what it cannot show.",
        hints=(
            "Two policies of one gold may have paid differently. Which number says how much was "
            "needed?",
            "How large is the difference of two means whose standard errors are .04 and .05? And "
            "which source of variation do these errors leave out?",
            "What would a model that knows only length reach, on all pairs and on those of "
            "near-equal length?",
        ),
        rubric=(
            Criterion(
                1,
                "1: .72 against .65 is about one standard error of the difference (.06), so it is "
                "not established; and one training seed leaves out the variation between seeds",
            ),
            Criterion(
                1,
                "2: a like gold at a seventh of the KL: best-of-8 and the tilt use gold itself and "
                "samples at test time; DPO saw noisy pairs and moved also where gold does not care",
            ),
            Criterion(
                1,
                "2: says what would find the cause: the split of the KL by tokens or positions, "
                "the correlation of log-ratio and gold, or runs with more pairs or a smaller rate",
            ),
            Criterion(
                1,
                "3: .65 must be compared with .58, and at near-equal length .51 +- .05 is chance: "
                "it shows that this model orders by length, not that it knows harmlessness",
            ),
            Criterion(
                1,
                "4: the ends are outside of the loss where a mask by ids takes pads away and pad "
                "is the end token; a mask by length, and cut responses get no end token",
            ),
            Criterion(
                1,
                "5: the start is itself preference-tuned, quantised and small, and gold is a "
                "lexicon: the sentence holds for this setting; names at least two of these",
            ),
        ),
    )
)
