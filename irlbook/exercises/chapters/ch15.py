"""Exercises of chapter 15: over-optimisation and its mitigations."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_length

# --- 15.1 ---------------------------------------------------------------------------------------


def _law(d: np.ndarray, gold: np.ndarray, bend: np.ndarray, peak, centre=True, intercept=False):
    """[alpha, beta, peak, R^2] of a least-squares fit on d and `bend`."""
    columns = [d, bend] + ([np.ones_like(d)] if intercept else [])
    table = np.stack(columns, axis=1)
    found = np.linalg.lstsq(table, gold, rcond=None)[0]
    alpha, beta = found[0], -found[1]
    around = gold - gold.mean() if centre else gold
    r2 = 1 - ((gold - table @ found) ** 2).sum() / (around**2).sum()
    return np.array([alpha, beta, peak(alpha, beta), r2])


def _xlogx(x: np.ndarray, log=np.log) -> np.ndarray:
    return x * log(np.where(x > 0, x, 1.0))


def _expect_fit(got, want, mistakes, form: str) -> None:
    """Compare alpha and beta, the peak, and R^2, each with a property of its own."""
    values = np.array([as_array(part, (), what="each of the four") for part in got], dtype=float)
    for what, part, own, property, hint in (
        (
            "(alpha, beta)",
            slice(2),
            ("you", "gold", "the sign", "the log"),
            f"the fit of the {form} form is the least-squares one, gold counted from the start",
            "write the form as alpha times one column minus beta times another: which two?",
        ),
        (
            "the peak",
            2,
            ("the peak", "the 2 of"),
            "the peak is the KL, in nats, at which the fitted curve has the slope 0",
            "derive the form by d, set it to zero, and turn d into a KL",
        ),
        (
            "R^2",
            3,
            ("R^2",),
            "R^2 is the share of the variance around the mean that the fit explains",
            "1 minus the squares that are left over the squares around the mean of gold",
        ),
    ):
        expect_close(
            values[part],
            want[part],
            rtol=1e-5,
            what=what,
            property=property,
            hint=hint,
            mistakes={m: v[part] for m, v in mistakes.items() if m.startswith(own)},
        )


def check_fit_law(answer, rng):
    n = int(rng.integers(8, 13))
    d = np.sort(rng.uniform(0.3, 3.2, size=n))
    start = float(rng.uniform(0.5, 1.0))
    for form in ("best of n", "rl"):
        alpha, beta = float(rng.uniform(1.0, 1.6)), float(rng.uniform(0.3, 0.6))
        bon = form == "best of n"

        def peak(a, b, bon=bon):
            return (a / (2 * b) if bon else np.exp(a / b - 1)) ** 2

        bend = d**2 if bon else _xlogx(d)
        gold = alpha * d - beta * bend + 0.05 * rng.normal(size=n)
        want = _law(d, gold, bend, peak)
        kl = d**2
        mistakes = {
            "you regressed on KL; the forms are in its root": _law(
                kl, gold, kl**2 if bon else _xlogx(kl), peak
            ),
            "you fitted an intercept: at KL 0 gold must be that of the start": _law(
                d, gold, bend, peak, intercept=True
            ),
            "gold is not counted from the start": _law(d, gold + start, bend, peak),
            "R^2 compares with zero, not with the mean of gold": _law(
                d, gold, bend, peak, centre=False
            ),
            "the peak is given in sqrt(KL), not in nats": want ** np.array([1, 1, 0.5, 1]),
            "the sign of beta is turned": want * [1, -1, 1, 1],
            "you took the logarithm of KL, not of its root": _law(d, gold, 2 * bend, peak),
            "the logarithm is to base 10": _law(
                d, gold, _xlogx(d, np.log10), lambda a, b: np.exp(2 * (a / b - 1))
            ),
            "the peak of the RL form is at exp(alpha / beta): derive again": _law(
                d, gold, bend, lambda a, b: np.exp(2 * a / b)
            ),
            "the 2 of the derivative of d^2 is missing in the peak": _law(
                d, gold, bend, lambda a, b: (a / b) ** 2
            ),
            "you used the other form": _law(
                d,
                gold,
                _xlogx(d) if bon else d**2,
                lambda a, b, bon=bon: (np.exp(a / b - 1) if bon else a / (2 * b)) ** 2,
            ),
        }
        shown = rng.permutation(n)  # the points come in any order
        _expect_fit(
            expect_length(
                answer(kl[shown], gold[shown] + start, start, form),
                4,
                hint="return alpha, beta, peak, r2",
            ),
            want,
            mistakes,
            form,
        )
        # The start itself is a point of the curve, and carries no information about alpha, beta.
        begun = np.append(0.0, gold)
        around = ((begun - begun.mean()) ** 2).sum() / ((gold - gold.mean()) ** 2).sum()
        _expect_fit(
            expect_length(
                answer(np.append(0.0, kl), begun + start, start, form),
                4,
                hint="return alpha, beta, peak, r2",
            ),
            np.append(want[:3], 1 - (1 - want[3]) / around),
            {},
            f"{form} form, with a point at KL = 0; there d log d is 0, and the fit does not "
            "change: this",
        )
        falling = -alpha * d - beta * bend
        got = expect_length(
            answer(kl, falling + start, start, form), 4, hint="return alpha, beta, peak, r2"
        )
        expect_close(
            as_array(got[2], (), what="the peak of a run that began to fall at once"),
            0.0 if bon else np.exp(2 * (-alpha / beta - 1)),
            rtol=1e-4,
            what="the peak of a run with alpha < 0 < beta",
            property="no curve peaks before its start: d is not negative",
            hint="alpha < 0 < beta: draw d (alpha - beta d) and d (alpha - beta log d), d >= 0",
        )
        rising = alpha * d + 0.2 * bend
        got = expect_length(
            answer(kl, rising + start, start, form), 4, hint="return alpha, beta, peak, r2"
        )
        expect(
            float(got[2]) == np.inf,
            property="a curve that never turns over peaks at infinity",
            hint="which sign has beta then, and what does your formula make of it?",
        )


register(
    Exercise(
        id="15.1",
        title="Fit the law, find the peak",
        function="fit_law",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can fit the forms of Gao et al. to a curve, and say when they forbid a peak.",
        hints=(
            "Both forms are linear in alpha and beta: two columns, no constant, one call of "
            "`np.linalg.lstsq`.",
            "Take the root of KL first, and subtract the start's gold. For the RL form the second "
            "column is d log d, which is 0 at d = 0.",
            "Set the derivative in d to zero, then square it: the peak is asked for in nats. If "
            "beta is not positive there is none.",
        ),
        check=check_fit_law,
    )
)


# --- 15.2 ---------------------------------------------------------------------------------------


def check_gold_at_budget(answer, rng):
    from irlbook.posttraining.goodhart import World, tilted_curve

    k = int(rng.integers(3, 6))
    w, v = rng.normal(size=k), rng.normal(size=k)
    root = rng.normal(size=(k, k)) + 0.5 * np.eye(k)
    sigma = root @ root.T + 0.3 * np.eye(k)
    c, kl = float(rng.uniform(0.1, 0.4)), float(rng.uniform(0.5, 4.0))

    def parts(*case):
        return expect_length(answer(*case), 3, hint="return three things: price, shift, gold")

    got = parts(w, v, sigma, c, kl)
    price = float(np.sqrt(v @ sigma @ v / (2 * kl)))
    expect_close(
        got[0],
        price,
        what="`price`",
        property="at this price the tilted policy has the KL of the budget",
        hint="the KL of two normals with one covariance is half a squared distance; measured how?",
        mistakes={
            "the half of the KL is missing": np.sqrt(v @ sigma @ v / kl),
            "the covariance is missing in the KL": np.sqrt(v @ v / (2 * kl)),
            "it is the inverse of the price": 1 / price,
            "it is the square of the price": price**2,
            "you took the budget as a distance, not as its square": np.sqrt(v @ sigma @ v / 2) / kl,
        },
    )
    shift = sigma @ v / price
    expect_close(
        got[1],
        shift,
        what="`shift`",
        property="tilting by exp(v . phi / price) moves the mean by Sigma v / price",
        hint="complete the square in the exponent: phi' Sigma^-1 phi / 2 minus v . phi / price",
        mistakes={
            "the covariance is missing": v / price,
            "the covariance stands inverted": np.linalg.solve(sigma, v) / price,
            "you multiplied by the price": sigma @ v * price,
            "you moved along gold's weights, not the proxy's": sigma @ w / price,
        },
    )
    gain, bill = float(w @ shift), float(c * shift @ shift)
    expect_close(
        got[2],
        gain - bill,
        what="`gold`",
        property="gold is what the shift earns minus what its square costs",
        hint="E|phi|^2 = |mean|^2 + trace of the covariance: which part does tilting change?",
        mistakes={
            "the penalty is missing": gain,
            "the penalty has the wrong sign": gain + bill,
            "the covariance's trace is charged: the reference pays it too": gain
            - bill
            - c * np.trace(sigma),
            "you charged the length of the shift, not its square": gain - c * np.linalg.norm(shift),
            "you charged the KL, not the square of the shift": gain - c * kl,
            "you charged shift' Sigma^-1 shift": gain - c * shift @ np.linalg.solve(sigma, shift),
            "it is what the proxy promises": float(v @ shift),
        },
    )
    plain = parts(w, v, np.eye(k), c, kl)  # the chapter's world
    curve = tilted_curve(World(w, c), v, np.linalg.norm(v) / np.sqrt(2 * kl))
    expect_close(
        plain[2],
        curve.gold,
        what="`gold` with the identity as covariance",
        property="with the identity as covariance it is the chapter's world",
        hint="compare with (15.5)",
    )
    got = parts(w, v, sigma, c, 0.0)
    expect(
        as_array(got[0], (), what="`price` at KL 0", finite=False) == np.inf,
        property="a budget of 0 needs an infinite price",
        hint="divide by zero on purpose, or say what it means",
    )
    expect_close(
        np.append(as_array(got[1], (k,), what="`shift` at KL 0"), float(got[2])),
        np.zeros(k + 1),
        what="`shift` and `gold` at KL 0",
        property="a budget of 0 buys nothing",
        hint="what is x / infinity?",
    )


register(
    Exercise(
        id="15.2",
        title="What a budget of KL buys",
        function="gold_at_budget",
        points=4,
        difficulty=3,
        minutes=25,
        importance=4,
        goal="You can compute the KL-regularised optimum of a normal reference, and its gold.",
        hints=(
            "The tilted density is again normal, with the same covariance. Only the mean moves.",
            "The KL is shift' Sigma^-1 shift / 2. Put shift = Sigma v / price in, and solve for "
            "the price.",
            "The trace of the covariance is the same before and after, so it drops out of the "
            "gold gained.",
        ),
        check=check_gold_at_budget,
    )
)


# --- 15.3 ---------------------------------------------------------------------------------------


def check_worst_case(answer, rng):
    members, n, new = int(rng.integers(3, 6)), int(rng.integers(20, 30)), int(rng.integers(8, 13))
    zero = 4.0 * rng.normal(size=(members, 1))
    unit = np.exp(rng.uniform(-1.5, 1.5, size=(members, 1)))
    start = zero + unit * rng.normal(size=(members, n))
    rewards = zero + unit * (rng.normal(size=(members, new)) + 1.5)  # the policy has moved

    def z(r, s, centre=True, scale=True, ddof=0):
        r = r - s.mean(axis=1, keepdims=True) if centre else r
        return r / s.std(axis=1, keepdims=True, ddof=ddof) if scale else r

    right = z(rewards, start)
    want = right.min(axis=0)
    expect_close(
        answer(rewards, start),
        want,
        property="each member is brought to its own zero and unit on the start's samples; then "
        "the smallest counts",
        hint="two axes: over which one is a mean taken, and over which one the minimum?",
        mistakes={
            "all members share one zero and one unit": ((rewards - start.mean()) / start.std()).min(
                axis=0
            ),
            "nothing is standardised: the member with the lowest zero decides": rewards.min(axis=0),
            "zero and unit come from the new responses, which hides that the policy moved": z(
                rewards, rewards
            ).min(axis=0),
            "zero and unit come from start and new responses together": z(
                rewards, np.concatenate([start, rewards], axis=1)
            ).min(axis=0),
            "the members keep their own units: divide, too": z(rewards, start, scale=False).min(
                axis=0
            ),
            "the members keep their own zeros: subtract, too": z(rewards, start, centre=False).min(
                axis=0
            ),
            "you took the best member, not the worst": right.max(axis=0),
            "you took the mean of the members": right.mean(axis=0),
            "you took the worst response of each member": right.min(axis=1),
            "the variance divides, not its root": (
                (rewards - start.mean(axis=1, keepdims=True)) / start.var(axis=1, keepdims=True)
            ).min(axis=0),
            "the spread divides by N - 1": z(rewards, start, ddof=1).min(axis=0),
            "you averaged over members before the zero was taken": (
                (rewards - start.mean(axis=0).mean()) / start.std(axis=1, keepdims=True)
            ).min(axis=0),
        },
    )
    a, b = 10 * rng.normal(size=(members, 1)), np.exp(rng.normal(size=(members, 1)))
    expect_close(
        answer(a + b * rewards, a + b * start),
        want,
        property="a member's zero and unit are conventions: changing them changes nothing",
        hint="Bradley–Terry leaves both free",
    )
    expect_close(
        answer(rewards[:, :1], start),
        want[:1],
        property="a response is judged alike alone and in a batch",
        hint="what may a response's reward depend on?",
    )


register(
    Exercise(
        id="15.3",
        title="The ensemble that was one model",
        kind="bug hunt",
        function="worst_case",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can join reward models whose zeros and units mean nothing.",
        hints=(
            "Count how often each member is the worst one. What do you expect of five that are "
            "alike, and what do you see?",
            "`start.mean()` is one number. How many numbers does the ensemble need?",
            "Along `axis=1` are the samples of one member; `keepdims=True` keeps the shape.",
        ),
        check=check_worst_case,
    )
)


# --- 15.4 ---------------------------------------------------------------------------------------


def _trailing(values: np.ndarray, width: int = 3) -> np.ndarray:
    return np.array([values[max(t + 1 - width, 0) : t + 1].mean() for t in range(len(values))])


def _rule(values, patience, keep_on=None, late=0, everything=False, last=False):
    """(stop, keep) of the rule on smoothed values, with its slips."""
    best = 0
    for t in range(len(values)):
        if values[t] > values[best]:
            best = t
        if t - best >= patience + late:
            break
    if everything:
        return np.array([t, int(values.argmax())])
    if keep_on is not None:
        return np.array([t, int(keep_on[: t + 1].argmax())])
    return np.array([t, t if last else best])


def _stopping_case(rng):
    """A run on which every slip shows."""
    while True:
        n, patience = int(rng.integers(22, 30)), int(rng.integers(4, 6))
        t = np.arange(n)
        top = rng.uniform(6, 9)
        validation = 1 - ((t - top) / 8) ** 2 + 0.25 * rng.normal(size=n)
        validation[-1] = 3.0  # luck, long after any stop
        proxy = t / 5 + 0.05 * rng.normal(size=n)
        gold = 1 - ((t - top + 3) / 8) ** 2 + 0.3 * rng.normal(size=n)
        smooth = _trailing(validation)
        right = _rule(smooth, patience)
        centred = np.convolve(validation, np.ones(3) / 3, mode="same")
        slips = {
            "the checkpoint is chosen by gold": _rule(smooth, patience, keep_on=gold),
            "the window is centred: it averages in the next iteration": _rule(centred, patience),
            "the values are not smoothed": _rule(validation, patience),
            "you stop one iteration too early": _rule(smooth, patience, late=-1),
            "you stop one iteration too late": _rule(smooth, patience, late=1),
            "you keep the last checkpoint, not the best": _rule(smooth, patience, last=True),
            "the checkpoint is the best of the whole run, also after the stop": _rule(
                smooth, patience, everything=True
            ),
            "you stop at the best itself, which is known only later": right[[1, 1]],
            "the window is four iterations long": _rule(_trailing(validation, 4), patience),
            "you watched something that never stops rising, such as the proxy": _rule(
                _trailing(proxy), patience
            ),
            "the checkpoint is chosen on values that are not smoothed": _rule(
                smooth, patience, keep_on=validation
            ),
        }
        history = {"proxy": proxy, "validation": validation, "gold": gold, "kl": 0.1 * t**1.5}
        different = all((slip != right).any() for slip in slips.values())
        pairs = {tuple(slip) for slip in slips.values()}
        if different and len(pairs) == len(slips) and right[0] < n - 4:
            return history, patience, right, slips


def check_stop_and_keep(answer, rng):
    history, patience, right, slips = _stopping_case(rng)

    def ask(rows):
        got = expect_length(answer(rows, patience), 2, hint="return two things: stop, keep")
        return np.array([int(as_array(part, (), what="an iteration")) for part in got])

    got = ask(history)
    for gold in (-history["gold"], 100.0 * rng.normal(size=len(history["gold"]))):
        expect(
            (got == ask(history | {"gold": gold})).all(),
            property="gold changes nothing: the rule must work where nobody knows it",
            hint="turn gold upside down, and compare. Which line reads it?",
        )
    expect_close(
        got,
        right,
        what="(stop, keep)",
        property="the run stops when the smoothed validation is `patience` iterations past its "
        "best, and keeps that best",
        hint="go through the first iterations by hand",
        mistakes=slips,
    )
    after = {name: values.copy() for name, values in history.items()}
    for values in after.values():
        values[got[0] + 1 :] += 50.0
    expect(
        (ask(after) == got).all(),
        property="what happens after the stop changes nothing: the future is not known yet",
        hint="when iteration t ends, which rows exist? Which line, or window, looks at t + 1?",
    )
    falling = {name: 7.0 - np.arange(9.0) / 2 for name in history}
    expect_close(
        ask(falling),
        np.array([patience, 0]),
        what="(stop, keep) of a run whose first value is its best",
        property="at the first two iterations the average is over what exists",
        hint="at t = 0 one value exists, at t = 1 two: what does your window average there?",
        mistakes={
            "values before the start are taken for zeros": _rule(
                np.convolve(falling["proxy"], np.ones(3) / 3)[:9], patience
            ),
            "nothing is smoothed before three values exist, and nothing is best": _rule(
                np.append([-np.inf] * 2, _trailing(falling["proxy"])[2:]), patience
            ),
        },
    )
    below = {name: np.append([-9.0, -8.0], np.full(9, -9.0)) for name in history}
    expect_close(
        ask(below),
        _rule(_trailing(below["validation"]), patience),
        what="(stop, keep) of a run whose scores are negative",
        property="a score may be negative",
        hint="a reward has no zero: with what does your best begin?",
    )
    late = np.append(np.arange(9.0), [9.0, -9.0])  # the last one is worse: the best is not last
    expect_close(
        ask({name: late.copy() for name in history}),
        np.array([10, 9]),
        what="(stop, keep) of a run that ends before the rule fires",
        property="if the rule never fires, the run stops at its last iteration",
        hint="the best may lie fewer than `patience` iterations back when the run ends",
    )
    rising = {name: np.arange(12.0) for name in history}
    expect_close(
        ask(rising),
        np.array([11, 11]),
        what="(stop, keep) of a run that keeps getting better",
        property="a run that keeps getting better goes to its end",
        hint="what does the loop leave behind when it never breaks?",
    )
    flat = {name: np.zeros(12) for name in history}
    expect_close(
        ask(flat),
        np.array([patience, 0]),
        what="(stop, keep) of a run in which nothing happens",
        property="an equal value is not an improvement",
        hint="> or >=?",
    )


register(
    Exercise(
        id="15.4",
        title="A stopping rule that cheats twice",
        kind="bug hunt",
        function="stop_and_keep",
        points=4,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can find leaks of gold and of the future in a stopping rule.",
        hints=(
            "Two tests need no expected value: turn gold upside down; change the rows after the "
            "stop. Neither may change the answer.",
            "How far to the right does `np.convolve(..., mode='same')` reach?",
            "At iteration t only rows 0 ... t exist: average rows t-2, t-1 and t, as far as there "
            "are such. The best of these averages so far is the checkpoint to keep.",
        ),
        check=check_stop_and_keep,
    )
)


# --- 15.5 ---------------------------------------------------------------------------------------


def check_length_controlled(answer, rng):
    n = int(rng.integers(25, 40))
    prompt = 2.0 * rng.normal(size=n)
    usual = rng.integers(12, 40, size=n).astype(float)  # how long an answer this prompt invites
    longer = rng.uniform(4, 10)
    theirs = usual + rng.integers(-3, 4, size=n)
    ours = usual + longer + rng.integers(-6, 7, size=n)
    price = rng.uniform(0.08, 0.15)
    better = rng.uniform(-0.3, 0.3)
    score_b = prompt + price * theirs - 0.1 * usual + 0.2 * rng.normal(size=n)
    score_a = prompt + price * ours - 0.1 * usual + better + 0.2 * rng.normal(size=n)

    def line(x, y):
        table = np.stack([np.ones(len(x)), x], axis=1)
        a, slope = np.linalg.lstsq(table, y, rcond=None)[0]
        return a, slope

    score, length = score_a - score_b, ours - theirs
    a, slope = line(length, score)
    want = np.array([score.mean(), a, slope])
    through = (score @ length) / (length @ length)
    _, back = line(score, length)
    _, of_ours = line(ours, score)
    _, pooled = line(np.append(ours, theirs), np.append(score_a, score_b))
    per_token = (score_a / ours - score_b / theirs).mean()
    got = expect_length(
        answer(score_a, ours, score_b, theirs),
        3,
        hint="return three things: raw, controlled, per_token",
    )
    got = np.array([as_array(part, (), what="each of the three") for part in got], dtype=float)
    expect_close(
        got[0],
        want[0],
        what="the raw gain",
        property="the raw gain is the mean of A's score minus B's",
        hint="this one knows nothing of lengths",
        mistakes={"the two policies are exchanged": -want[0]},
    )
    expect_close(
        got[2],
        slope,
        rtol=1e-5,
        what="the pay for a token",
        property="the pay for a token is the slope of the least-squares line with an intercept",
        hint="gain in score against gain in length, prompt by prompt: which is x, which is y, and "
        "what is the mean of each?",
        mistakes={
            "the line has no intercept": through,
            "length was regressed on score": back,
            "the slope is that against our length, not against the difference": of_ours,
            "the pairs were torn apart: one line through all answers": pooled,
            "covariance and variance divide by different numbers: one by N - 1, one by N": (
                slope * n / (n - 1)
            ),
            "covariance and variance divide by different numbers: one by N, one by N - 1": (
                slope * (n - 1) / n
            ),
            "the length was centred above the line, and not below it": lambda: (
                ((length - length.mean()) * score).sum() / (length**2).sum()
            ),
        },
    )
    expect_close(
        got[1],
        a,
        rtol=1e-5,
        what="the controlled gain",
        property="the controlled gain is what the line says at equal lengths",
        hint="draw the gain in score against the gain in length: where on that picture are the "
        "lengths equal?",
        mistakes={
            "the lengths were centred: then the intercept is the raw gain": want[0],
            "the line was forced through the origin, so nothing is left over": 0.0,
            "you divided scores by lengths": per_token,
            "the length's share is added, not taken off": score.mean() + slope * length.mean(),
            "what A's own length earned was taken off, not what the difference did": (
                score.mean() - slope * ours.mean()
            ),
        },
    )
    longer_score = score_a + 0.5 * ours
    got = expect_length(
        answer(longer_score, ours, score_b + 0.5 * theirs, theirs), 3, hint="return three things"
    )
    expect_close(
        np.array([float(got[1]), float(got[2])]),
        np.array([a, slope + 0.5]),
        rtol=1e-5,
        what="(controlled, per_token) of a judge who pays half a point more a token",
        property="a judge who pays more for each token finds the same controlled gain",
        hint="whatever is linear in length must end in the slope",
    )
    got = expect_length(answer(score_a, theirs, score_b, theirs), 3, hint="return three things")
    expect_close(
        np.array([as_array(part, (), what="a result at equal lengths") for part in got]),
        np.array([score.mean(), score.mean(), 0.0]),
        what="the result when lengths never differ",
        property="when lengths never differ there is nothing to control",
        hint="the slope is then 0/0; call it 0",
    )


register(
    Exercise(
        id="15.5",
        title="Better, or only longer?",
        function="length_controlled",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can take a judge's taste for length out of a comparison, pair by pair.",
        hints=(
            "Work with differences within a prompt: score against score, length against length.",
            "Fit a line with an intercept. The intercept is the gain at length difference 0, if "
            "the length differences were left as they are.",
            "The slope is the covariance over the variance; the intercept is the mean gain minus "
            "slope times mean length difference.",
        ),
        check=check_length_controlled,
    )
)


# --- 15.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="15.6",
        title="Three runs without gold",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can read over-optimisation off a run in which nobody knows gold.",
        hints=(
            "The proxy rises in all three: it says nothing. Read the held-out model against it, "
            "and length and ends against both.",
            "When does a second reward model share the first one's mistake? Where do both come "
            "from?",
            "What does a fitted form assume about what lies beyond the points? Think of the "
            "world with heavy tails.",
        ),
        rubric=(
            Criterion(1, "A: healthy so far; the held-out model follows; a small KL; go on"),
            Criterion(1, "B: over-optimised from about iteration 24; go back to that checkpoint"),
            Criterion(1, "C: length hack; the held-out model shares the bias of the same pairs"),
            Criterion(
                1, "C: a check that breaks it: length-controlled or human comparison, probes"
            ),
            Criterion(1, "the fit holds if the tails are light; it is a forecast, to be tested"),
        ),
    )
)
