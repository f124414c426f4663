"""Lab of chapter 17: types of users that nobody labelled, from a skeleton."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, log_expit, logsumexp

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_distribution,
    expect_legend,
    expect_length,
    expect_line,
    expect_picture,
    expect_points,
    expect_type,
    expect_vertical_line,
)

BORROWED = ("irlbook.preferences", "irlbook.posttraining", "irlbook.irl")
TOLERANCE = 1e-3  # nats: EM stops when a step gains less
STARTS = 5
AGREEMENT = 0.9  # on fresh pairs; the reference, worst type of 240 crowds: 0.93
SHARES = {1: (1.0,), 2: (0.6, 0.4), 3: (0.45, 0.3, 0.25), 4: (0.3, 0.25, 0.25, 0.2)}


def crowd(n_types, n_users, labels, rng, strength=3.0, k=4):
    """Users of planted types: users (P,), differences (P, k), types (U,), weights (G, k)."""
    weights = strength * np.linalg.qr(rng.normal(size=(k, k)))[0][:n_types]
    ends = np.cumsum(SHARES[n_types]) - 1e-9
    types = rng.permutation(np.searchsorted(ends, (np.arange(n_users) + 0.5) / n_users))
    each = rng.integers(labels - labels // 3, labels + labels // 3 + 1, size=n_users)
    users = rng.permutation(np.repeat(np.arange(n_users), each))
    shown = rng.normal(size=(len(users), k))
    won = rng.random(len(users)) < expit((shown * weights[types[users]]).sum(axis=1))
    return users, np.where(won[:, None], shown, -shown), types, weights


def user_logs(weights, users, d, n_users):
    """(U, G) log-probability of a user's labels under each type."""
    logs = log_expit(d @ weights.T)
    return np.stack([np.bincount(users, column, n_users) for column in logs.T], axis=1)


def e_step(weights, shares, users, d, n_users):
    """Responsibilities (U, G), and the log-likelihood."""
    with np.errstate(divide="ignore"):
        joint = np.log(shares) + user_logs(weights, users, d, n_users)
    total = logsumexp(joint, axis=1, keepdims=True)
    return np.exp(joint - total), float(total.sum())


def penalised(weights, shares, users, d, n_users, l2):
    """What EM climbs."""
    return e_step(weights, shares, users, d, n_users)[1] - l2 / 2 * (weights**2).sum()


def m_step(d, counts, l2, start):
    """(K,) the maximum of sum_p counts_p log sigma(d_p . w) - l2 / 2 |w|^2, by damped Newton."""

    def value(w):
        return counts @ log_expit(d @ w) - l2 / 2 * w @ w

    w = np.asarray(start, dtype=float)
    for _ in range(200):
        miss = expit(-(d @ w))
        slope = d.T @ (counts * miss) - l2 * w
        if np.abs(slope).max() < 1e-8:
            break
        bend = (d.T * (counts * miss * (1 - miss))) @ d + l2 * np.eye(len(w))
        step = np.linalg.solve(bend, slope)
        while value(w + step) < value(w) and np.abs(step).max() > 1e-9:
            step = step / 2
        w = w + step
    return w


def climb(users, d, belief, l2, *, hard=False, even=False, by_label=False, bare=False):
    """EM from one start: weights, shares, curve; the switches make known mistakes."""
    n_users, n_types = belief.shape
    weights, curve = np.zeros((n_types, d.shape[1])), []
    while len(curve) < 2 or curve[-1] - curve[-2] >= TOLERANCE:
        if hard:
            belief = np.eye(n_types)[belief.argmax(axis=1)]
        shares = belief[users].mean(axis=0) if by_label else belief.mean(axis=0)
        if even:
            shares = np.full(n_types, 1 / n_types)
        weights = np.array([m_step(d, belief[users, g], l2, weights[g]) for g in range(n_types)])
        belief, log_likelihood = e_step(weights, shares, users, d, n_users)
        curve.append(log_likelihood - (0 if bare else l2 / 2 * (weights**2).sum()))
        if len(curve) == 300:
            break
    return weights, shares, np.array(curve)


def starts_of(n_users, n_types, seed):
    """The first beliefs that the task prescribes."""
    dice = np.random.default_rng(seed)
    return [dice.dirichlet(np.ones(n_types), size=n_users) for _ in range(STARTS)]


def best_climb(users, d, n_users, n_types, l2, seed):
    """Weights and shares of the best start, and where each start ended."""
    climbs = [climb(users, d, start, l2) for start in starts_of(n_users, n_types, seed)]
    ends = np.array([c[2][-1] for c in climbs])
    return *climbs[int(ends.argmax())][:2], ends


# --- 17L.1 --------------------------------------------------------------------------------------


def check_e_step(answer, rng):
    n_types, n_users, k = int(rng.integers(3, 5)), int(rng.integers(9, 13)), 3
    weights, shares = rng.normal(size=(n_types, k)), rng.dirichlet(np.full(n_types, 4.0))
    users = rng.permutation(np.repeat(np.arange(n_users), rng.integers(1, 7, size=n_users)))
    users = users[users != 2]  # this one gave no label, and neither did the last one
    users = users[users != n_users - 1]
    d = rng.normal(size=(len(users), k))
    want, total = e_step(weights, shares, users, d, n_users)
    logs = user_logs(weights, users, d, n_users)
    joint = np.exp(logs) * shares
    count = np.bincount(users, minlength=n_users)[:, None]

    def rows(x):
        return x / x.sum(axis=1, keepdims=True)

    got = expect_length(
        answer(weights, shares, users, d, n_users), 2, hint="return responsibilities, total"
    )
    expect_close(
        got[0],
        want,
        what="the first result",
        property="a responsibility is the chance of a type, given all labels of the user",
        hint="share times the chances of all labels of the user, for each type; then what must add "
        "up to 1?",
        mistakes={
            "the shares are missing": lambda: rows(np.exp(logs)),
            "it adds up to 1 over users, not over types": joint / joint.sum(axis=0),
            "it does not add up to 1": joint,
            "each user is given to one type": np.eye(n_types)[want.argmax(axis=1)],
            "a user's labels are averaged": lambda: rows(
                np.exp(logs / np.maximum(count, 1)) * shares
            ),
            "the shares count once for each label": lambda: rows(np.exp(logs) * shares**count),
            "winner and loser are exchanged": lambda: e_step(weights, shares, users, -d, n_users)[
                0
            ],
            "the sigmoid is missing: you took the rewards themselves": lambda: rows(
                shares
                * np.exp(
                    np.stack([np.bincount(users, c, n_users) for c in (d @ weights.T).T], axis=1)
                )
            ),
        },
    )
    expect_close(
        got[1],
        total,
        what="the second result",
        property="the log-likelihood is the sum over users of log sum_g s_g prod sigma(d . w_g)",
        hint="it is the logarithm of what you divide by",
        mistakes={
            "it is a mean over users": total / n_users,
            "it is a mean over labels": total / len(users),
            "the shares are missing": float(logsumexp(logs, axis=1).sum()),
            "each user counts with the likeliest type only": float(np.log(joint.max(axis=1)).sum()),
            "it is the expected log-likelihood, with responsibilities for weights": float(
                (want * logs).sum()
            ),
            "the sign is turned": -total,
        },
    )
    sure = np.array([[-1000.0], [-1001.0]])
    got = expect_length(
        answer(sure, np.array([0.5, 0.5]), np.zeros(1, dtype=int), np.ones((1, 1)), 1),
        2,
        hint="two values",
    )
    expect_close(
        got[0],
        expit(np.array([[1.0, -1.0]])),
        what="the responsibility after a label that hardly any type would give",
        property="a gap of 1000 nats does not break it",
        hint="sigmoid(-1000) is 0 on a computer, and its logarithm is not: `scipy.special`",
    )
    expect_close(
        got[1],
        float(logsumexp([-1000.0, -1001.0]) - np.log(2)),
        what="the log-likelihood of a label that hardly any type would give",
        property="a gap of 1000 nats does not break it",
        hint="the log-likelihood is a sum of logsumexp, and no logarithm of a sum of exp",
    )
    twin = np.zeros((2, 2)) + np.array([[0.3, 0.0]])
    many = 4000
    got = expect_length(
        answer(twin, np.array([0.3, 0.7]), np.zeros(many, dtype=int), np.ones((many, 2)), 1),
        2,
        hint="two values",
    )
    expect_close(
        got[0],
        np.array([[0.3, 0.7]]),
        what="the responsibility of a user with 4000 labels",
        property="many labels do not underflow",
        hint="a product of 4000 chances is 0 on a computer: stay with logarithms until the end",
    )
    expect_close(
        got[1],
        float(many * log_expit(0.3)),
        what="the log-likelihood of a user with 4000 labels",
        property="many labels do not underflow",
        hint="a product of 4000 chances is 0 on a computer: stay with logarithms until the end",
    )
    got = expect_length(
        answer(sure * [[0.0], [1.0]], np.array([0.0, 1.0]), np.zeros(1, int), np.ones((1, 1)), 1),
        2,
        hint="two values",
    )
    expect_close(
        got[0],
        np.array([[0.0, 1.0]]),
        what="the responsibility of a type with the share 0 that would explain the label better",
        property="a type with the share 0 is nobody's",
        hint="the logarithm of 0 is -inf, not the logarithm of a small number",
    )
    none = np.append(np.zeros(1), rng.dirichlet(np.ones(n_types - 1)))
    got = expect_length(answer(weights, none, users, d, n_users), 2, hint="two values")
    expect_close(
        got[0],
        e_step(weights, none, users, d, n_users)[0],
        what="the responsibility where a type has the share 0",
        property="a type with the share 0 is nobody's",
        hint="what is exp of the logarithm of 0?",
    )


register(
    Exercise(
        id="17L.1",
        title="Who is of which type?",
        function="e_step",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can compute how likely each type is for a user, and how likely all labels are.",
        hints=(
            "`np.add.at(table, users, rows)` adds each row to the row of its user.",
            "Work with logarithms: log share plus the sum of log sigma, for each user and type.",
            "`scipy.special.logsumexp` over the types is what you need twice.",
        ),
        check=check_e_step,
        without=BORROWED,
    )
)


# --- 17L.2 --------------------------------------------------------------------------------------


def check_m_step(answer, rng):
    n, k = int(rng.integers(40, 60)), int(rng.integers(2, 5))
    l2 = float(rng.uniform(0.4, 0.9))
    d, planted = rng.normal(size=(n, k)), rng.normal(size=k) * 1.5
    won = rng.random(n) < expit(d @ planted)
    d = np.where(won[:, None], d, -d)
    counts, zeros = rng.uniform(0, 1, size=n) ** 2, np.zeros(k)
    want = m_step(d, counts, l2, zeros)
    expect_close(
        answer(d, counts, l2, zeros),
        want,
        rtol=1e-4,
        atol=1e-5,
        property="the weights are where sum_p c_p log sigma(d_p . w) - l2 / 2 |w|^2 is largest",
        hint="write down its gradient: it must vanish at the weights that you return",
        mistakes={
            "all labels count alike": lambda: m_step(d, np.ones(n), l2, zeros),
            "the counts were made to add up to 1": lambda: m_step(
                d, counts / counts.sum(), l2, zeros
            ),
            "the counts were rounded to 0 and 1": lambda: m_step(d, np.round(counts), l2, zeros),
            "the counts are squared": lambda: m_step(d, counts**2, l2, zeros),
            "there is no penalty": lambda: m_step(d, counts, 1e-9, zeros),
            "the penalty is twice as large": lambda: m_step(d, counts, 2 * l2, zeros),
            "the penalty was charged once for each label": lambda: m_step(d, counts, l2 * n, zeros),
            "the sign is turned: the loser is preferred": -want,
            "it is one step of Newton from zero, and not the maximum": lambda: np.linalg.solve(
                (d.T * counts / 4) @ d + l2 * np.eye(k), d.T @ counts / 2
            ),
        },
    )
    elsewhere = 0.3 * rng.normal(size=k)
    expect_close(
        answer(d, counts, l2, elsewhere),
        want,
        rtol=1e-4,
        atol=1e-5,
        what="the result from another start",
        property="the start changes nothing but the time it takes",
        hint="does the penalty pull towards zero, or towards the start?",
    )
    got = as_array(answer(d, counts, l2, zeros), (k,))
    slope = d.T @ (counts * expit(-(d @ got))) - l2 * got
    expect(
        np.abs(slope) <= 1e-5,
        property="no entry of the gradient is larger than 1e-5 at the weights that are returned",
        hint="go on until the gradient vanishes; Newton's steps get there in a few",
        detail=f"the largest is {np.abs(slope).max():.2g}",
    )
    up, down = int(rng.integers(12, 18)), int(rng.integers(5, 9))
    line = np.array([1.0] * up + [-1.0] * down)[:, None]
    far = np.array([30.0])
    expect_close(
        answer(line, np.ones(up + down), 0.1, far),
        m_step(line, np.ones(up + down), 0.1, np.zeros(1)),
        rtol=1e-4,
        atol=1e-5,
        what="the result from a start that is far off",
        property="a step that goes too far is made shorter",
        hint="far off the curvature is nearly l2 alone, and Newton's step is huge: is the value "
        "larger after it than before?",
    )


register(
    Exercise(
        id="17L.2",
        title="What does a type want?",
        function="m_step",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can fit Bradley–Terry to labels that count in part, by a Newton that cannot "
        "run away.",
        hints=(
            "The gradient is the sum of c_p sigma(-d_p . w) d_p, less l2 w.",
            "The curvature is the sum of c_p sigma(d_p . w) sigma(-d_p . w) d_p d_p', plus l2 "
            "times the identity; a step is its inverse times the gradient.",
            "While the value after the step is smaller than before, halve the step.",
        ),
        check=check_m_step,
        without=BORROWED,
    )
)


# --- 17L.3 --------------------------------------------------------------------------------------


def _steady(curve):
    """Whether the curve crosses the tolerance clearly, so that rounding cannot move its end."""
    gains = np.diff(curve)
    return len(gains) > 3 and gains[-1] < 0.9 * TOLERANCE and gains[-2] > 1.1 * TOLERANCE


def check_climb(answer, rng):
    l2 = float(rng.uniform(0.5, 1.0))
    for _ in range(50):
        users, d, _, _ = crowd(3, 24, 9, rng, strength=2.5, k=3)
        keep = (users % 3 > 0) | (rng.random(len(users)) < 0.4)  # a third gave few labels
        keep[np.unique(users, return_index=True)[1]] = True
        users, d = users[keep], d[keep]
        belief = rng.dirichlet(np.ones(3), size=24)
        weights, shares, curve = climb(users, d, belief, l2)
        if _steady(curve) and len(curve) < 80:
            break
    got = expect_length(answer(users, d, belief, l2), 3, hint="return weights, shares, curve")
    said = as_array(got[2], (-1,), what="the curve")
    wrong = {
        "users are given to one type each: that is the hard version": {"hard": True},
        "the shares are all equal": {"even": True},
        "the shares are means over labels, so that who talks much counts more": {"by_label": True},
        "the curve has no penalty": {"bare": True},
    }
    first = {name: climb(users, d, belief, l2, **how)[2][:2] for name, how in wrong.items()}
    expect(
        len(said) >= 2,
        property="the curve has a number for each step",
        hint="append the penalised log-likelihood after every E step",
    )
    expect_close(
        said[:2],
        curve[:2],
        rtol=1e-7,
        what="the beginning of the curve",
        property="after each M step and E step the curve holds the log-likelihood less l2 / 2 "
        "times the squares of all weights",
        hint="a step: shares are the means of the responsibilities; each type is fitted to all "
        "labels, which count by the responsibility of their user; then the E step",
        mistakes={name: part for name, part in first.items() if len(part) == 2},
    )
    expect(
        len(said) == len(curve),
        property=f"it stops after the first step that gains less than {TOLERANCE:g} nats",
        hint="compare the last two numbers of the curve",
        detail=f"it took {len(said)} steps, the grader {len(curve)}",
    )
    expect_close(
        said,
        curve,
        rtol=1e-7,
        what="the curve",
        property="each step goes on from what the last one found",
        hint="which responsibilities does the next M step use?",
    )
    expect_close(
        got[1],
        shares,
        rtol=1e-3,
        atol=1e-4,
        what="the shares",
        property="the shares are those of the last step, in the order of the given "
        "responsibilities",
        hint="nothing is sorted here",
    )
    expect_close(
        got[0],
        weights,
        rtol=1e-3,
        atol=1e-3,
        what="the weights",
        property="the weights are those of the last step, a row for each type",
        hint="return what the last number of the curve belongs to",
    )
    mine = penalised(
        as_array(got[0], weights.shape, what="the weights"),
        as_array(got[1], shares.shape, what="the shares"),
        users,
        d,
        24,
        l2,
    )
    expect(
        abs(mine - said[-1]) < 1e-6 * abs(said[-1]),
        property="the last number of the curve is the value of the weights and shares returned",
        hint="after the last E step nothing may move any more",
        detail=f"the grader computes {mine:.6f}, the curve ends with {said[-1]:.6f}",
    )
    alone = expect_length(answer(users, d, np.ones((24, 1)), l2), 3, hint="three values")
    expect(
        len(as_array(alone[2], (-1,), what="the curve")) == 2,
        property="with one type it stops after the second step, which gains nothing",
        hint="two numbers are enough to see a gain",
    )


register(
    Exercise(
        id="17L.3",
        title="Step by step uphill",
        function="climb",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can write EM, and tell from its curve that it is right.",
        hints=(
            "Begin with the M step, because the start gives you responsibilities.",
            "`belief[users, g]` is how much each label counts for the type g.",
            "Weights start at zero, and then at those of the last step, which saves time.",
        ),
        check=check_climb,
        without=BORROWED,
    )
)


# --- 17L.4 --------------------------------------------------------------------------------------


def check_fit_types(answer, rng):
    for place in ([2, 3], [4]):  # the best start is neither of the first two; then it is the last
        _check_best_of(answer, rng, place)


def _check_best_of(answer, rng, place):
    l2, n_users = 1.0, 16
    while True:  # four types for three places: EM has many tops
        users, d, _, _ = crowd(4, n_users, 14, rng, strength=5.0, k=6)
        seed = int(rng.integers(10_000))
        if _best_start_is(place, users, d, n_users, l2, seed):
            weights, shares, ends = best_climb(users, d, n_users, 3, l2, seed)
            if np.abs(np.diff(np.sort(shares))).min() > 0.03:
                break
    got = expect_length(answer(users, d, n_users, 3, l2, seed), 2, hint="return weights, shares")
    mine = as_array(got[0], weights.shape, what="the weights")
    parts = expect_distribution(got[1], (3,), what="the shares", hint="they are those of EM")
    value = penalised(mine, parts, users, d, n_users, l2)
    expect(
        value > ends.max() - 0.02,
        property=f"it is the best of {STARTS} starts, by the last number of their curves",
        hint="all starts come from one generator, one after the other; which climb ended highest?",
        detail=f"its value is {value:.2f}; the starts ended at "
        + ", ".join(f"{end:.2f}" for end in ends),
    )
    expect(
        np.all(np.diff(parts) <= 1e-12),
        property="the types are in the order of their shares, the most common first",
        hint="`np.argsort(-shares)`, for the shares and for the rows of the weights",
    )


def _best_start_is(place, users, d, n_users, l2, seed):
    """Whether the best start is one of `place`, clearly; stops at another that is near."""
    starts = starts_of(n_users, 3, seed)
    best = max(climb(users, d, starts[i], l2)[2][-1] for i in place)
    others = (i for i in range(STARTS) if i not in place)
    return all(best - climb(users, d, starts[i], l2)[2][-1] > 0.2 for i in others)


register(
    Exercise(
        id="17L.4",
        title="Several starts",
        function="fit_types",
        points=2,
        difficulty=2,
        minutes=10,
        importance=4,
        goal="You can guard a climb against the wrong top.",
        hints=(
            "Make the generator once, before the loop.",
            "Keep all climbs in a list; `max(..., key=...)` finds the curve that ends highest.",
            "Sorting the shares alone would give them to the wrong types.",
        ),
        check=check_fit_types,
        without=BORROWED,
    )
)


# --- 17L.5 --------------------------------------------------------------------------------------


def check_new_user_scores(answer, rng):
    n, most, l2 = 24, 3, 1.0
    users, d, _, _ = crowd(2, n, 9, rng, strength=3.0, k=3)
    keep = (users % 2 == 1) | (rng.random(len(users)) < 0.5)  # half of the users talk less
    keep[np.unique(users, return_index=True)[1]] = True
    users, d = users[keep], d[keep]
    held_out = rng.permutation(n) < n // 3
    seed = int(rng.integers(10_000))

    def part(chosen):
        mine = chosen[users]
        return np.unique(users[mine], return_inverse=True)[1], d[mine], int(chosen.sum())

    seen, new = part(~held_out), part(held_out)

    def scores(fit_on, score_on, of="users"):
        found = []
        for g in range(1, most + 1):
            w, s, _ = best_climb(*fit_on, g, l2, seed)
            total = e_step(w, s, *score_on)[1]
            if of == "types":
                total = user_logs(w, *score_on).max(axis=1).sum()
            if of == "penalised":
                total = penalised(w, s, *score_on, l2)
            found.append(total / {"labels": len(score_on[0]), "sum": 1}.get(of, score_on[2]))
        return np.array(found)

    want = scores(seen, new)
    expect_close(
        answer(users, d, held_out, most, l2, seed),
        want,
        rtol=0,
        atol=5e-3,
        property="each score is the log-likelihood of the held-out users under a mixture that was "
        "fitted to the others, per held-out user",
        hint="which users are fitted, which are scored, and by what is the sum divided?",
        mistakes={
            "the score is that of the users who were fitted": lambda: scores(seen, seen),
            "held-out users were fitted, too": lambda: scores((users, d, n), new),
            "the two parts are exchanged": lambda: scores(new, seen),
            "it is per label, not per user": lambda: scores(seen, new, "labels"),
            "it is a sum over users": lambda: scores(seen, new, "sum"),
            "each new user is given the best type: that peeks at the labels": lambda: scores(
                seen, new, "types"
            ),
            "the penalty is subtracted from the score": lambda: scores(seen, new, "penalised"),
        },
    )
    expect_close(
        answer(users, d, held_out, 1, l2, seed),
        want[:1],
        rtol=0,
        atol=5e-3,
        what="the result for most = 1",
        property="the scores belong to 1, 2, ..., `most` types",
        hint="where does your range begin and end?",
    )


register(
    Exercise(
        id="17L.5",
        title="How many types? Ask somebody new",
        function="new_user_scores",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can score a number of types without cheating.",
        hints=(
            "Both parts come from `part_of`, once with the mask and once with its opposite.",
            "For each number: fit one part, and run the E step on the other. Which of its two "
            "results is the score?",
            "Divide by how many users are held out.",
        ),
        check=check_new_user_scores,
        without=BORROWED,
        rounds=1,
    )
)


# --- 17L.6 --------------------------------------------------------------------------------------


def check_draw_scores(answer, rng):
    splits, most = int(rng.integers(4, 8)), int(rng.integers(4, 7))
    best = int(rng.integers(1, most - 1))
    numbers = np.arange(1, most + 1)
    fitted = np.sort(-rng.uniform(5, 9, size=(splits, most)), axis=1)
    new = fitted - rng.uniform(1, 2, size=(splits, most))
    new[:, best] = new.max(axis=1) + 1
    top = rng.integers(splits)
    new[top, most - 1] = new[top].max() + 1  # in one split the largest number wins
    (panel,) = expect_picture(answer(fitted, new), hint="one pair of axes is enough").axes
    for name, ys in (("fitted", fitted), ("new", new)):
        expect_line(
            panel,
            numbers,
            ys.mean(axis=0),
            property=f"one line shows the mean over splits for {name} users, against 1, 2, "
            "... types",
            hint="average over the rows; the first column belongs to one type",
        )
    expect_points(
        panel,
        np.tile(numbers, splits),
        new.reshape(-1),
        property="each split of the new users is a point for each number of types, split by split",
        hint="`np.tile(numbers, splits)` against `new.ravel()`: the spread says what a difference "
        "of means is worth",
    )
    expect_vertical_line(
        panel,
        numbers[int(new.mean(axis=0).argmax())],
        property="a vertical line marks the number with the largest mean for new users",
        hint="which of the two curves may choose?",
    )
    expect_legend(
        panel,
        {"fitted": fitted.mean(axis=0), "new": new.mean(axis=0)},
        property="a legend names both lines, differently and rightly",
    )
    expect(
        "nat" in panel.ylabel.lower() and "type" in panel.xlabel.lower(),
        property="the labels say that types are counted, and the unit of the log-likelihood",
        hint="natural logarithms: nats per user",
    )


register(
    Exercise(
        id="17L.6",
        title="The picture: two curves, one of which may choose",
        kind="figure",
        function="draw_scores",
        points=2,
        difficulty=1,
        minutes=15,
        importance=4,
        goal="You can draw a choice of model with its spread.",
        hints=(
            "Two calls of `plot`, one of `scatter`, one of `axvline`.",
            "The mean over splits is `.mean(axis=0)`.",
            "Both axes need a label, and a log-likelihood has a unit.",
        ),
        check=check_draw_scores,
    )
)


# --- 17L.7 --------------------------------------------------------------------------------------


def _matched(weights, planted, rng):
    """Share of fresh pairs on which a planted type and its match agree, and the match."""
    fresh = rng.normal(size=(2000, planted.shape[1]))
    agree = (fresh @ planted.T > 0)[:, :, None] == (fresh @ weights.T > 0)[:, None, :]
    rows, columns = linear_sum_assignment(-agree.mean(axis=0))
    return agree.mean(axis=0)[rows, columns], columns


def check_find_types(answer, rng):
    hint = 'return {"weights": weights, "shares": shares}'
    n_users = 90

    def run(users, d, seed):
        got = expect_type(answer(users, d, n_users, seed), dict, hint=hint)
        expect(
            set(got) == {"weights", "shares"},
            property="the result has the keys 'weights' and 'shares'",
            hint=hint,
        )
        shares = expect_distribution(got["shares"], (-1,), what="`shares`", hint=hint)
        shape = (len(shares), d.shape[1])
        return as_array(got["weights"], shape, what="`weights`", hint="a row per type"), shares

    seed = int(rng.integers(1000))
    for n_types in (4, int(rng.integers(2, 4)), 1):
        users, d, types, planted = crowd(n_types, n_users, 16, rng)
        weights, shares = run(users, d, seed)
        expect(
            len(shares) == n_types,
            property="the number of types is found, whether it is 1, 2, 3 or 4",
            hint="print the scores of your split. A type that nobody needs costs next to nothing, "
            "so the largest score may belong to a number that is too large",
            detail=f"the grader planted {n_types}, the answer has {len(shares)}",
        )
        if n_types == 4:
            again = run(users, d, seed)
            expect(
                again[0].shape == weights.shape and np.allclose(again[0], weights),
                property="the same seed gives the same types",
                hint="one generator with this seed draws the split, and your starts",
            )
        agree, match = _matched(weights, planted, rng)
        expect(
            agree >= AGREEMENT,
            property=f"each true type's choices on fresh pairs are predicted in {AGREEMENT:.0%}",
            hint="did the climb end on the wrong top, or did it stop too soon? Print the curve, "
            "and the shares",
            detail=f"the worst type is predicted in {agree.min():.0%}",
        )
        real = np.bincount(types, minlength=n_types) / n_users
        expect(
            np.abs(shares[match] - real) <= 0.07,
            property="the shares are those of the users",
            hint="a share is the mean of the responsibilities",
            detail=f"they are off by up to {np.abs(shares[match] - real).max():.2f}",
        )


register(
    Exercise(
        id="17L.7",
        title="The whole: find the types",
        function="find_types",
        points=5,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can find types of users that nobody labelled, and their number.",
        hints=(
            "Hold out a third of the users, drawn with the seed, and score 1 to 5 types.",
            "Take the smallest number whose score is within a fifth of a nat per user of the best "
            "one.",
            "Then fit that number to all users, since they are there.",
        ),
        check=check_find_types,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 17L.8 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="17L.8",
        title="Explain your picture",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say when types can be found, when they cannot, and what a type is.",
        hints=(
            "Which parameter does a type nobody needs still spend, and on whose labels?",
            "How much does one label tell about the type of its user, if a type explains it with "
            "70 % and another with 40 %?",
            "Who decided that there are types at all?",
        ),
        rubric=(
            Criterion(
                1,
                "reads the picture: the curve of the fitted users never falls with the number of "
                "types (up to local tops), that of new users rises to the true number and is "
                "flat or falls after it; splits differ by more than those means do, but in step",
            ),
            Criterion(
                1,
                "why users and not labels are held out: with labels held out, the type of a user "
                "is known from the user's other labels, and the score answers another question",
            ),
            Criterion(
                1,
                "one label from each user shows only the average choice: any mixture with the same "
                "average has the same likelihood; two and more labels tie users together",
            ),
            Criterion(
                1,
                "EM never falls but may end on a lower top, so several starts; a curve that falls "
                "is a bug (penalty forgotten in the curve or in the M step, say)",
            ),
            Criterion(
                1,
                "types are a model: if wants vary continuously, more data call for more types; "
                "what is found are groups that are useful to predict, and no proof that people "
                "come in kinds",
            ),
        ),
    )
)
