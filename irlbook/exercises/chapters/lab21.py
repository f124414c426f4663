"""Lab of chapter 21: sparse rewards, from the time that chance needs to a policy for every goal."""

from __future__ import annotations

import numpy as np

from irlbook.claims import Claims, holm
from irlbook.envs.doors import key_and_door, random_layout
from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.answers import StudentError
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_equal,
    expect_legend,
    expect_length,
    expect_line,
    expect_picture,
)
from irlbook.rl.redistribution import randomised_decomposition

BORROWED = ("irlbook.rl", "irlbook.irl", "irlbook.planning", "irlbook.claims")
SHARE = 0.95  # of the best policy; the reference reaches 99 %


def random_world(rng):
    """moves (S, A, S), ends (S,), paid (S,) and a start; rows of ends hold what means nothing."""
    n_states, n_actions = int(rng.integers(7, 10)), int(rng.integers(2, 4))
    moves = np.zeros((n_states, n_actions, n_states))
    for row in moves.reshape(-1, n_states):
        row[rng.choice(n_states, size=3, replace=False)] = rng.dirichlet(np.ones(3))
    special = rng.permutation(n_states)
    ends, paid = np.zeros(n_states, dtype=bool), np.zeros(n_states)
    ends[special[:3]] = True
    paid[special[:2]] = rng.uniform(0.3, 0.9, size=2)  # two ends pay, unequally; the third does not
    return moves, ends, paid, int(special[3] or special[4])  # never state 0


# --- 21L.1 --------------------------------------------------------------------------------------


def search(moves, ends, paid, start, horizon, *, through=False):
    """Masses of an episode by a random player, from the powers of one matrix.

    Returns:
        (horizon,) the mass that arrives at a payment at each step, (horizon,) that arrives at an
        end, (horizon,) that was alive before the step, (horizon,) the expected payment
    """
    chain = moves.mean(axis=1)
    if not through:
        chain = np.where(ends[:, None], 0.0, chain)
    rows = [np.eye(len(ends))[start]]
    for _ in range(horizon):
        rows.append(rows[-1] @ chain)
    arrive = np.array(rows[1:])
    alive = np.array(rows[:-1])[:, ~ends].sum(axis=1)
    return arrive[:, paid > 0].sum(axis=1), arrive[:, ends].sum(axis=1), alive, arrive @ paid


def check_search_cost(answer, rng):
    while True:
        world, horizon = random_world(rng), int(rng.integers(4, 9))
        hit, over, alive, payment = search(*world, horizon)
        chance, length = hit.sum(), alive.sum()
        if 0.1 < chance < 0.7 and over.sum() - chance > 0.05 and over.sum() < 0.95:
            break
    times = np.arange(1, horizon + 1)
    moves, ends, paid, start = world
    got = expect_length(
        answer(moves, ends, paid, start, horizon), 2, hint="return the chance and the steps"
    )

    def other(change, **options):
        return lambda: search(*world, horizon + change, **options)[0].sum()

    expect_close(
        got[0],
        chance,
        what="the first result",
        property="the chance that an episode of a random player arrives at a state that pays, "
        "within the horizon",
        hint="carry the chances of all states along, step by step; what has ended goes nowhere",
        mistakes={
            "each end counts as a payment": over.sum(),
            "it is the expected reward of an episode": payment.sum(),
            "episodes go on behind their end": other(0, through=True),
            "an episode has one step too many": other(1),
            "an episode has one step too few": other(-1),
            "one action is always taken": lambda: search(
                np.repeat(moves[:, :1], 2, axis=1), ends, paid, start, horizon
            )[0].sum(),
        },
    )
    expect_close(
        got[1],
        length / chance,
        what="the second result",
        property="the expected steps until the first payment, over all episodes that this takes",
        hint="how many episodes does it take on average, and how long is an episode on average?",
        mistakes={
            "each episode is as long as the horizon": horizon / chance,
            "it is the number of episodes": 1 / chance,
            "it is the length of one episode": length,
            "the last episode is left out": length / chance - hit @ times / chance,
            "every episode is one step shorter": length / chance - 1 / chance,
            "it is the time within an episode that is paid": hit @ times / chance,
            "an episode that ends is followed by another one of the same clock": lambda: (
                horizon / chance - hit @ (horizon - times) / chance
            ),
        },
    )


register(
    Exercise(
        id="21L.1",
        title="How long does chance take?",
        function="search_cost",
        points=3,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can compute what it costs to wait for luck.",
        hints=(
            "Average `moves` over the actions. Hold the chances of all states in one array.",
            "What has arrived at an end must be counted, and then taken out of the array.",
            "Episodes are independent, so the expected number of steps is a quotient.",
        ),
        check=check_search_cost,
        without=BORROWED,
    )
)


# --- 21L.2 --------------------------------------------------------------------------------------


def fitted(extra, possible, ends, discount, *, weights=None, pinned=True):
    """The potential by normal equations, and the errors on the possible moves."""
    s, a, t = np.nonzero(possible)
    design = discount * np.eye(len(ends))[t] - np.eye(len(ends))[s]
    if pinned:
        design[:, ends] = 0.0
    wanted = extra[s, a, t]
    w = np.ones(len(s)) if weights is None else weights[s, a, t]
    square = design.T @ (w[:, None] * design)
    phi = np.linalg.pinv(square, rcond=1e-12, hermitian=True) @ (design.T @ (w * wanted))
    return phi, design @ phi - wanted


def _change(phi, discount, moves):
    return np.broadcast_to(discount * phi - phi[:, None, None], moves.shape).copy()


def check_potential(answer, rng):
    moves, ends, _, _ = random_world(rng)
    discount = float(rng.uniform(0.7, 0.95))
    phi = rng.normal(size=len(ends)) + 2
    noise = rng.normal(size=moves.shape)  # where it is paid for moves that are never made
    noise[(moves > 0) & ~ends[:, None, None]] = 0.0
    shaping = _change(np.where(ends, 0.0, phi), discount, moves) + noise
    kept = _change(phi, discount, moves) + noise
    constant = np.full(moves.shape, phi[0])
    never = np.zeros(len(ends), dtype=bool)
    _check_offer(answer, "a shaping", shaping, moves, ends, discount)
    _check_offer(answer, "a potential that is kept at ends", kept, moves, ends, discount)
    _check_offer(answer, "a constant, where nothing ends", constant, moves, never, discount)
    drawn = rng.normal(size=moves.shape)
    for extra in (drawn, -drawn):  # the largest error is once too much and once too little
        _check_offer(answer, "random rewards", extra, moves, ends, discount)


def _check_offer(answer, name, extra, moves, ends, discount):
    possible = (moves > 0) & ~ends[:, None, None]
    phi, errors = fitted(extra, possible, ends, discount)
    other = {
        "ends may have any potential": fitted(extra, possible, ends, discount, pinned=False),
        "gamma is missing": fitted(extra, possible, ends, 1.0),
        "moves that begin at an end count, too": fitted(extra, moves > 0, ends, discount),
        "impossible moves count, too": fitted(
            extra, np.repeat(~ends, moves[0].size).reshape(moves.shape), ends, discount
        ),
        "moves are weighted by their chances": fitted(
            extra, possible, ends, discount, weights=moves
        ),
    }
    got = expect_length(
        answer(extra, moves, ends, discount), 2, hint="return the potential and the error"
    )
    expect_close(
        got[0],
        phi,
        atol=1e-6,
        what="the potential",
        property=f"the potential fits the possible moves best, and is 0 at ends (for {name})",
        hint="one row for each possible move: gamma in the column of s', -1 in that of s, "
        "both together if they are the same",
        mistakes={name: found[0] for name, found in other.items()} | {"the sign is turned": -phi},
    )
    everywhere = np.abs(_change(phi, discount, moves) - extra)
    expect_close(
        got[1],
        np.abs(errors).max(),
        atol=1e-6,
        what="the error",
        property=f"the largest absolute error on a possible move (for {name})",
        hint="which moves are possible? Compare what is paid with what the potential pays",
        mistakes={
            "it is the mean error": np.abs(errors).mean(),
            "it is the root mean square": np.sqrt((errors**2).mean()),
            "it is the sum of squares": (errors**2).sum(),
            "it is the largest error in one direction only": (-errors).max(),
            "it is the largest error in the other direction only": errors.max(),
            "impossible moves count, too": everywhere[~ends].max(),
            "moves that begin at an end count, too": everywhere[moves > 0].max(),
        },
    )


register(
    Exercise(
        id="21L.2",
        title="Is it a shaping?",
        function="potential_of",
        points=4,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can decide by calculation whether an extra reward is a shaping.",
        hints=(
            "`np.nonzero` of the possible moves gives s, a and s' of each equation.",
            "A state may move to itself: then both entries of its row meet in one column.",
            "The potential of ends is known. Which columns does that remove?",
        ),
        check=check_potential,
        without=BORROWED,
    )
)


# --- 21L.3 --------------------------------------------------------------------------------------


def replay(world, steps, extra, initial, settings, *, slip=""):
    """The table after these steps, and by how much an action fell short of the largest Q.

    `slip` names a mistake that is made on purpose.
    """
    _, ends, paid, _ = world
    q, visits, clock, short = np.array(initial), np.zeros(np.shape(initial)), 0, 0.0
    for s, a, t in steps:
        short, clock = max(short, q[s].max() - q[s, a]), clock + 1
        visits[s, a] += 1
        count = visits[s].sum() if slip == "state" else visits[s, a] + (slip == "late")
        count = max(visits[s, a] - 1, 1) if slip == "before" else count
        target = 0.0 if slip == "paid" else paid[t]
        target += 0.0 if slip == "extra" else extra[s, a, t]
        target += 0.0 if slip == "scale" else settings["scale"] / np.sqrt(count)
        cut = clock == settings["horizon"]
        if slip == "through" or not (ends[t] or (slip == "cut" and cut)):
            ahead = q[t].mean() if slip == "mean" else q[t].max()
            target += (1.0 if slip == "gamma" else settings["discount"]) * ahead
        q[s, a] += (1.0 if slip == "alpha" else settings["alpha"]) * (target - q[s, a])
        clock = 0 if cut or ends[t] else clock
        if slip == "episode" and clock == 0:
            visits[:] = 0
    return q, short


SLIPS = {
    "before": "the present visit is not counted in N",
    "late": "N counts one visit too many",
    "state": "N counts the visits of the state, not those of the pair",
    "episode": "N begins anew in each episode",
    "cut": "a step that the clock cuts counts as an end",
    "through": "the value of an end is added, too",
    "extra": "the extra reward is missing",
    "paid": "what is paid for arriving is missing",
    "scale": "the bonus is missing",
    "mean": "it takes the mean of the next row, and not its maximum",
    "gamma": "gamma is missing",
    "alpha": "alpha is missing",
}


def _expect_walk(steps, world, settings):
    """The steps are a walk of this world, by the rules of the clock, until the first payment."""
    moves, ends, paid, start = world
    expect(
        (steps >= 0) & (steps < [moves.shape[0], moves.shape[1], moves.shape[0]]),
        property="each row is a state, an action and the next state",
        hint="append (state, action, next state) in every step",
    )
    expect(
        moves[tuple(steps.T)] > 0,
        property="each step is a possible move",
        hint="the chances of the next state are moves[state, action]",
    )
    clock, expected = 0, start
    for number, (s, _, t) in enumerate(steps):
        expect(
            s == expected,
            property="a step begins where the one before it arrived; after an end, and after "
            "`horizon` steps, a new episode begins at the start",
            hint="which state comes next, and when does the clock begin again?",
            detail=f"step {number} of the record begins elsewhere",
        )
        clock += 1
        over = ends[t] or clock == settings["horizon"]
        expected, clock = (start, 0) if over else (t, clock)
    arrived = paid[steps[:, 2]] > 0
    expect(
        not arrived[:-1].any(),
        property="the search stops with the first step that is paid",
        hint="what happens after a payment?",
    )
    expect(
        arrived[-1] or len(steps) == settings["limit"],
        property="the search goes on until a step is paid, or `limit` steps were made; the paid "
        "step is recorded, too",
        hint="in which order do you record, learn and stop?",
        detail=f"it made {len(steps)} steps",
    )
    expect(
        len(steps) <= settings["limit"],
        property="no more than `limit` steps are made",
        hint="count the steps of all episodes",
    )


def check_explore(answer, rng):
    world = random_world(rng)
    moves, ends, paid, start = world
    shape = moves.shape[:2]
    hint = "return the steps and the table"

    def ask(paid, extra, initial, settings, seed):
        got = expect_length(
            answer(moves, ends, paid, start, extra, initial, settings, seed), 2, hint=hint
        )
        steps = as_array(got[0], what="the steps")
        expect(
            steps.size > 0, property="the steps are recorded", hint="when does a step get its row?"
        )
        steps = as_array(steps, (-1, 3), what="the steps")
        return steps.astype(int), as_array(got[1], shape, what="the table")

    base = {"alpha": float(rng.uniform(0.3, 0.7)), "discount": float(rng.uniform(0.8, 0.95))}
    base |= {"horizon": int(rng.integers(3, 5))}
    unpaid, nothing = np.zeros(len(paid)), np.zeros(moves.shape)
    for number in range(4):  # the first two are never paid, and the others may be
        now = paid if number > 1 else unpaid
        settings = base | {"scale": float(rng.uniform(0.3, 0.9)), "limit": 150}
        extra = 0.3 * rng.normal(size=moves.shape)
        initial = rng.normal(size=shape) + (4.0 if number % 2 else 0.0)  # 4 is optimistic
        seed = int(rng.integers(10_000))
        steps, q = ask(now, extra, initial, settings, seed)
        case = moves, ends, now, start
        _expect_walk(steps, case, settings)
        right, short = replay(case, steps, extra, initial, settings)
        if short > 1e-7 or not np.allclose(q, right, rtol=1e-6, atol=1e-8):
            told = [
                words
                for slip, words in SLIPS.items()
                if (found := replay(case, steps, extra, initial, settings, slip=slip))[1] < 1e-7
                and np.allclose(q, found[0], rtol=1e-6, atol=1e-8)
            ]
            detail = f"it looks as if {told[0]}" if told else ""
            expect(
                np.allclose(q, right, rtol=1e-6, atol=1e-8),
                property="the table is what the update makes of the first table and the steps",
                hint="replay your own steps by hand, with the first rows of the record",
                detail=detail,
            )
            expect(
                False,
                property="each action is one with the largest Q of its state at that moment",
                hint="nothing else explores here: no epsilon, and no old table",
                detail=detail,
            )
    settings = base | {"scale": 0.0, "limit": 6000}
    steps, _ = ask(unpaid, nothing, np.zeros(shape), settings, seed)
    _expect_walk(steps, (moves, ends, unpaid, start), settings)
    visits = np.zeros(moves.shape)
    np.add.at(visits, tuple(steps.T), 1)
    pairs = visits.sum(axis=2)
    total = pairs.sum(axis=1, keepdims=True)
    often = 5 * np.sqrt(total) * 0.5 + 2
    expect(
        np.abs(pairs - total / shape[1]) <= often,
        property="where several actions are largest, each of them is equally likely",
        hint="`argmax` always takes the first; draw among all that are largest",
    )
    expect(
        np.abs(visits - pairs[..., None] * moves) <= 5 * np.sqrt(pairs[..., None]) * 0.5 + 2,
        property="the next state has the chances of `moves`",
        hint="moves[state, action] is the distribution to draw from",
    )
    again = ask(unpaid, nothing, np.zeros(shape), settings, seed)
    expect(
        np.array_equal(again[0], steps),
        property="the same seed gives the same steps",
        hint="one generator, made from the seed, draws everything",
    )
    other, _ = ask(unpaid, nothing, np.zeros(shape), settings, seed + 1)
    expect(
        not np.array_equal(other, steps),
        property="another seed gives other steps",
        hint="the generator is made from the argument `seed`",
    )


register(
    Exercise(
        id="21L.3",
        title="A learner that looks for the reward",
        function="explore",
        points=5,
        difficulty=3,
        minutes=40,
        importance=5,
        goal="You can write a learner whose every step can be checked.",
        hints=(
            "`np.flatnonzero` of the entries that equal the row's maximum, and one of them drawn.",
            "Keep two counters: the steps of the whole search, and the clock of the episode.",
            "In this order: draw, count, update, record, stop if paid, begin anew if over.",
        ),
        check=check_explore,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 21L.4 --------------------------------------------------------------------------------------


def judged(first, pairs, level):
    """Corrected p-values and verdicts by the book's own family of claims."""
    claims = Claims("lab 21", level=level)
    for number, (one, other) in enumerate(pairs):
        claims.signs(str(number), *(np.minimum(first[name], 1e9) for name in (one, other)))
    sides = {"greater": 1, "less": -1, "not established": 0}
    p = [claim.p for claim in claims.made]
    return (
        np.array(list(claims.adjusted().values())),
        np.array([sides[side] for side in claims.sides().values()]),
        np.array(p),
    )


# How often one learner needs more steps than the other, and fewer. With the comparison of a learner
# with itself, Holm establishes three of them; without correction it is five. The fifth has a
# larger p-value than the fourth, and a smaller product.
COUNTS = ((16, 0), (0, 15), (11, 1), (12, 3), (10, 2), (9, 7))


def _searches(rng):
    """Steps of twelve learners, whose seven comparisons have all three verdicts."""
    seeds, first, pairs = int(rng.integers(17, 21)), {}, []
    for number, (more, fewer) in enumerate(COUNTS):
        one, other = f"learner {number}", f"control {number}"
        sign = rng.permutation(np.repeat([1, -1, 0], [more, fewer, seeds - more - fewer]))
        base = rng.integers(500, 3000, size=seeds).astype(float)
        first[one], first[other] = base, base - sign * rng.integers(1, 400, size=seeds)
        never = rng.random(seeds) < 0.3
        never[np.flatnonzero(sign == 1 if more else sign == -1)[:2]] = True
        first[one][never & (sign >= 0)] = np.inf
        first[other][never & (sign <= 0)] = np.inf
        pairs.append((one, other) if number < 2 or rng.random() < 0.5 else (other, one))
    pairs = [pairs[number] for number in rng.permutation(6)]
    pairs.insert(int(rng.integers(7)), ("learner 0", "learner 0"))
    return (first, pairs, *judged(first, pairs, 0.05))


def _signed(first, pairs, tail, ties):
    """Uncorrected p-values of a sign test with a mistake."""
    from scipy.stats import binomtest

    found = []
    for one, other in pairs:
        x, y = first[one], first[other]
        keep = np.isfinite(x) & np.isfinite(y) if ties == "finite" else np.ones(len(x), dtype=bool)
        more, fewer = int((x > y)[keep].sum()), int((x < y)[keep].sum())
        total = int(keep.sum()) if ties == "kept" else more + fewer
        found.append(binomtest(more, total, alternative=tail).pvalue if total else 1.0)
    return np.array(found)


def check_verdicts(answer, rng):
    first, pairs, p, sides, raw = _searches(rng)
    got = expect_length(answer(first, pairs, 0.05), 2, hint="return the p-values and the verdicts")
    order = np.argsort(raw, kind="stable")
    steps = np.empty(7)
    steps[order] = np.minimum(raw[order] * np.arange(7, 0, -1), 1.0)
    expect_close(
        got[0],
        p,
        what="the first result",
        property="the p-values are those of two-sided sign tests, corrected by Holm, in the order "
        "of the pairs",
        hint="which seeds say something? Then: sort, multiply, raise, and put back in order",
        mistakes={
            "nothing is corrected": raw,
            "all p-values are multiplied by their number (Bonferroni)": np.minimum(raw * 7, 1),
            "none is raised to the largest one before it": steps,
            "the p-values stand in sorted order": np.sort(p),
            "the test is one-sided": lambda: holm(_signed(first, pairs, "greater", "")),
            "the test is one-sided, in the other direction": lambda: holm(
                _signed(first, pairs, "less", "")
            ),
            "seeds that say nothing are counted": lambda: holm(
                _signed(first, pairs, "two-sided", "kept")
            ),
            "runs that never found it are left out": lambda: holm(
                _signed(first, pairs, "two-sided", "finite")
            ),
            "p-values may be above 1": lambda: _holm_above(raw),
        },
    )
    expect_equal(
        got[1],
        sides,
        what="the second result",
        property="a verdict is 1 or -1 where the corrected p-value is below the level, by which "
        "learner needs more steps, and else 0",
        hint="compare the corrected p-value with the level; count which of the two has more",
    )
    strict = float(np.sort(p)[0] / 2)
    expect_equal(
        expect_length(answer(first, pairs, strict), 2, hint="two values")[1],
        np.zeros(7, dtype=int),
        what="the second result at a level below all p-values",
        property="nothing is established at a level below all p-values",
        hint="which level is compared with?",
    )


def _holm_above(raw):
    order = np.argsort(raw, kind="stable")
    found = np.empty(len(raw))
    found[order] = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    return found


register(
    Exercise(
        id="21L.4",
        title="An experiment with a verdict",
        function="verdicts",
        points=3,
        difficulty=2,
        minutes=25,
        importance=5,
        goal="You can compare learners that may never find the reward, and count your questions.",
        hints=(
            "Compare the arrays directly: np.inf is larger than every number, and equals itself.",
            "`scipy.stats.binomtest(k, n).pvalue` is the two-sided p-value; n must be positive.",
            "`np.argsort` to put in order, `np.maximum.accumulate` to raise.",
        ),
        check=check_verdicts,
        without=BORROWED,
    )
)


# --- 21L.5 --------------------------------------------------------------------------------------


def check_draw(answer, rng):
    names = ["start at 0", "start at 2", "bonus", "progress"][: int(rng.integers(3, 5))]
    steps = np.unique(np.geomspace(5, 500, 40).astype(int))
    while True:
        first = {name: rng.choice(steps, size=int(rng.integers(9, 14))) * 1.0 for name in names}
        for found in first.values():
            found[rng.random(len(found)) < 0.3] = np.inf
        shares = {name: (x[:, None] <= steps).mean(axis=0) for name, x in first.items()}
        ends = [share[-1] for share in shares.values()]
        if max(ends) < 1 and min(ends) > 0.4 and len({*map(tuple, shares.values())}) == len(names):
            break
    chance = 1 - np.exp(-steps / float(rng.uniform(300, 900)))
    (panel,) = expect_picture(answer(steps, first, chance), hint="one pair of axes").axes
    for name in names:
        found, share = first[name], shares[name]
        mistakes = {
            "steps *before* the number count, and not those at it": (found[:, None] < steps).mean(
                axis=0
            ),
            "runs that never found it are left out": (
                found[np.isfinite(found)][:, None] <= steps
            ).mean(axis=0),
            "seeds are counted, and not their share": share * len(found),
            "it is the share that is still looking": 1 - share,
        }
        drawn = [line.y for line in panel.lines if line.y.shape == share.shape]
        looks = [w for w, y in mistakes.items() if any(np.allclose(z, y) for z in drawn)]
        right = any(np.allclose(z, share) for z in drawn)
        expect(
            right or not looks,
            property="each learner has a line: the share of its seeds that have found the reward",
            hint="(first[name][:, None] <= ...) is true for a seed and a step; then average",
            detail=f"it looks as if {looks[0]}" if looks else "",
        )
        expect_line(
            panel,
            steps,
            share,
            property="each learner has a line: the share of its seeds that have found the reward",
            hint="`steps` to the right, and the share at each of these numbers",
        )
    expect_line(
        panel,
        steps,
        chance,
        property="the exact curve of chance is drawn against the steps",
        hint="`ax.plot(steps, chance, ...)`",
    )
    expect_legend(
        panel,
        {name.lower(): shares[name] for name in names} | {"chance": chance},
        property="a legend names each learner, and chance",
    )
    expect(
        set(names) <= {line.label for line in panel.lines},
        property="the learners keep their names",
        hint="`label=name`",
    )
    expect(
        panel.xscale == "log",
        property="steps stand on a logarithmic axis",
        hint="`ax.set_xscale`",
    )
    expect(
        "step" in panel.xlabel.lower() and "share" in panel.ylabel.lower(),
        property="the labels say that steps and the share are shown",
        hint="what is counted to the right, and what is averaged upwards?",
    )


register(
    Exercise(
        id="21L.5",
        title="The picture: who has found it by when?",
        kind="figure",
        function="draw_search",
        points=2,
        difficulty=1,
        minutes=15,
        importance=4,
        goal="You can draw times that may be infinite.",
        hints=(
            "A loop over the learners with one `plot` and its label, then one `plot` for chance.",
            "Never is `np.inf`, and it is at or before no number: the share does the rest.",
            "`ax.set_xscale`, two labels and a legend are left.",
        ),
        check=check_draw,
        without=BORROWED,
    )
)


# --- 21L.6 --------------------------------------------------------------------------------------


def _decomposed(counts, totals, subset, *, price=None):
    """The minimum from stacked rows: T (T - K) / K S^2 is a sum of squares of differences."""
    rows, right = [counts], [totals]
    for visits in counts:
        length = int(visits.sum())
        looked = min(subset, length)
        if length < 2 or price == "none" or length == looked:
            continue
        scale = (
            length * (length - looked) / looked / (length if price == "population" else length - 1)
        )
        scale = scale / length if price == "no T" else scale
        centred = np.eye(len(visits)) - visits[None, :] / length  # r_k less the episode's mean
        rows.append(np.sqrt(scale * visits)[:, None] * centred)
        right.append(np.zeros(len(visits)))
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=1e-9)[0]


def _visits(rng, lengths, n_pairs, unseen):
    """(n, 9) pairs of episodes of these lengths, padded with -1; one pair is never seen."""
    pairs = np.full((len(lengths), 9), -1)
    others = np.delete(np.arange(n_pairs), unseen)
    for row, length in zip(pairs, lengths, strict=True):
        row[:length] = rng.choice(others, size=length)
    return pairs


def check_decompose(answer, rng):
    n_pairs, n, subset = int(rng.integers(7, 10)), 40, int(rng.integers(2, 4))
    unseen = int(rng.integers(0, n_pairs - 1))
    lengths = np.array([8, 1, *rng.integers(1, 8, size=n - 2)])
    longer = _visits(rng, np.maximum(lengths, 2), n_pairs, unseen)
    mixed = _visits(rng, lengths, n_pairs, unseen)
    _check_rewards(answer, rng, longer, n_pairs, subset, "2 to 8")
    _check_rewards(answer, rng, longer, n_pairs, 20, "2 to 8")
    _check_rewards(
        answer,
        rng,
        mixed,
        n_pairs,
        subset,
        "1 to 8",
        otherwise=("an episode of one step has no second term", "what is T - 1 there?"),
    )
    _check_rewards(
        answer,
        rng,
        longer[: n_pairs - 4],
        n_pairs,
        20,
        "2 to 8",
        otherwise=(
            "of several minima the shortest is taken (fewer episodes than pairs, and K = 20)",
            "a matrix without an inverse: which solution does `np.linalg.lstsq` give?",
        ),
    )


def _check_rewards(answer, rng, pairs, n_pairs, k, steps, otherwise=None):
    """`otherwise` is the (property, hint) of what is new in this case."""
    n = len(pairs)
    truth = rng.normal(size=n_pairs)
    totals = np.where(pairs >= 0, truth[pairs], 0.0).sum(axis=1) + rng.normal(size=n)
    counts = np.array([np.bincount(row[row >= 0], minlength=n_pairs) for row in pairs], dtype=float)
    want = randomised_decomposition([row[row >= 0] for row in pairs], totals, n_pairs, k)
    padded = counts.copy()
    padded[:, -1] += (pairs < 0).sum(axis=1)
    try:
        got = as_array(answer(pairs, totals, n_pairs, k), (n_pairs,))
    except StudentError as error:
        if otherwise is not None:
            expect(False, property=otherwise[0], hint=otherwise[1], detail=error.detail)
        raise
    if otherwise is not None:
        expect(np.allclose(got, want, atol=1e-6), property=otherwise[0], hint=otherwise[1])
    expect_close(
        got,
        want,
        atol=1e-6,
        property="the rewards minimise the summed loss, and a pair that no episode contains "
        f"gets 0 (K = {k}, episodes of {steps} steps)",
        hint="how often does each episode contain each pair? Both terms are quadratic in the "
        "rewards",
        mistakes={
            "the second term is missing": lambda: _decomposed(counts, totals, k, price="none"),
            "S^2 is divided by T, and not by T - 1": lambda: _decomposed(
                counts, totals, k, price="population"
            ),
            "the factor T of the second term is missing": lambda: _decomposed(
                counts, totals, k, price="no T"
            ),
            "each pair counts once in an episode": lambda: _decomposed(
                np.minimum(counts, 1), totals, k
            ),
            "the padding counts as the last pair": lambda: _decomposed(padded, totals, k),
            "the first term is an average over the steps": lambda: _averaged(counts, totals, k),
        },
    )


def _averaged(counts, totals, subset):
    lengths = counts.sum(axis=1, keepdims=True)
    square = (counts / lengths).T @ (counts / lengths)
    for visits in counts:
        length = visits.sum()
        looked = min(subset, length)
        if length > looked:
            square += (
                length
                * (length - looked)
                / looked
                / (length - 1)
                * (np.diag(visits) - np.outer(visits, visits) / length)
            )
    return np.linalg.lstsq(square, (counts / lengths).T @ totals, rcond=1e-12)[0]


register(
    Exercise(
        id="21L.6",
        title="Take a total apart",
        function="decompose",
        points=4,
        difficulty=4,
        minutes=35,
        importance=4,
        goal="You can share out the totals of episodes over their steps.",
        hints=(
            "`np.bincount` of an episode's pairs, without the padding: n_k visits of pair k.",
            "The sum over t of (r_t - mean)^2 is the sum of n_k r_k^2 less (sum of n_k r_k)^2 / T.",
            "Set the gradient to zero; `np.linalg.lstsq` gives the shortest solution.",
        ),
        check=check_decompose,
        without=BORROWED,
    )
)


# --- 21L.7 --------------------------------------------------------------------------------------


def hindsight_rows(states, actions, cell, *, part="", goals="cell"):
    """(m, 5) rows with their rewards; `part` and `goals` name mistakes."""
    found = []
    for path, chosen in zip(states, actions, strict=True):
        length = int((chosen >= 0).sum())
        for t in range(length):
            times = range(t + 1, length + 1)
            if part == "present":
                times = range(t, length + 1)
            elif part == "last":
                times = [length]
            elif part == "beyond":
                times = range(t + 2, length + 1)
            elif part == "all":
                times = range(length + 1)
            elif part == "next":
                times = [t + 1]
            for later in times:
                goal = path[later] if goals == "state" else cell[path[later]]
                reward = float(cell[path[t + 1]] == cell[path[later]])
                found.append([path[t], chosen[t], path[t + 1], goal, reward])
    return np.array(found, dtype=float).reshape(-1, 5)


def _in_order(rows):
    return rows[np.lexsort(rows.T[::-1])]


def check_hindsight(answer, rng):
    n_cells = int(rng.integers(4, 6))
    cell = rng.permutation(np.tile(np.arange(n_cells), 2))  # the two states of a cell lie anywhere
    lengths = np.array([1, 5, 3, 5, 2, 4])[: int(rng.integers(5, 7))]
    states, actions = np.full((len(lengths), 6), -1), np.full((len(lengths), 5), -1)
    for row, chosen, length in zip(states, actions, rng.permutation(lengths), strict=True):
        row[: length + 1] = rng.integers(2 * n_cells, size=length + 1)
        chosen[:length] = rng.integers(4, size=length)
    # one walk meets the same cell twice, in its two states
    twin = np.flatnonzero(cell == cell[states[0, 1]])
    longest = int((actions >= 0).sum(axis=1).argmax())
    states[longest, 1], states[longest, 4] = twin[0], twin[1]
    want = hindsight_rows(states, actions, cell)
    got = expect_length(answer(states, actions, cell), 2, hint="return rows and rewards")
    rows = as_array(got[0], (-1, 4), what="the rows")
    rewards = as_array(got[1], (len(rows),), what="the rewards")
    looks = {
        "the state before the step is taken for a goal, too": {"part": "present"},
        "the end of the step is left out": {"part": "beyond"},
        "only the end of the walk is taken": {"part": "last"},
        "only the end of the step is taken": {"part": "next"},
        "earlier times are taken, too": {"part": "all"},
        "the goal is a state, and not its cell": {"goals": "state"},
    }
    ordered = _in_order(rows)

    def same(other):
        other = _in_order(other[:, :4])
        return other.shape == ordered.shape and np.array_equal(other, ordered)

    told = [
        w for w, options in looks.items() if same(hindsight_rows(states, actions, cell, **options))
    ]
    expect(
        same(want),
        property="there is one row for each step and each later time of the same walk, and its "
        "goal is the cell at that time",
        hint="for the step from t to t + 1, the later times are t + 1, ..., T; -1 is no state",
        detail=f"it looks as if {told[0]}" if told else f"there are {len(rows)} rows",
    )
    arrived = rows[:, 2].astype(int)
    begun = rows[:, 0].astype(int)
    goals = rows[:, 3].astype(int)
    expect_close(
        rewards,
        (cell[arrived] == goals).astype(float),
        what="the rewards",
        property="a row is paid 1 if its own step arrives in the goal's cell, and else 0",
        hint="compute each reward anew, from the row's own next state and goal",
        mistakes={
            "every row is paid, as its goal was reached later": np.ones(len(rows)),
            "nothing is paid": np.zeros(len(rows)),
            "it costs 1 not to arrive": np.where(cell[arrived] == goals, 0.0, -1.0),
            "a step is paid for beginning in the goal's cell": (cell[begun] == goals).astype(float),
            "the goal's key must agree, too": lambda: _exact(states, actions, cell, rows),
        },
    )


def _exact(states, actions, cell, rows):
    """Rewards where the next state must be the later state itself; None if rows are reordered."""
    found, paid = [], []
    for path, chosen in zip(states, actions, strict=True):
        length = int((chosen >= 0).sum())
        for t in range(length):
            for later in range(t + 1, length + 1):
                found.append([path[t], chosen[t], path[t + 1], cell[path[later]]])
                paid.append(float(path[t + 1] == path[later]))
    return np.array(paid) if np.array_equal(found, rows) else None


register(
    Exercise(
        id="21L.7",
        title="Hindsight",
        function="hindsight",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can turn walks without a reward into rows that have one.",
        hints=(
            "Three loops: walks, steps, later times.",
            "A walk has as many steps as actions that are not -1, and one state more.",
            "Compare cells with cells: `cell[...]` of the next state, and the goal.",
        ),
        check=check_hindsight,
        without=BORROWED,
    )
)


# --- 21L.8 --------------------------------------------------------------------------------------


def walks(mdp, n, length, rng):
    """States that walks may begin in, and (n, length + 1) states and (n, length) actions."""
    moves = mdp.dense()
    spread = np.linalg.matrix_power(np.eye(mdp.n_states) + moves.mean(axis=1), mdp.n_states)
    starts = np.flatnonzero((mdp.start @ spread > 0) & ~mdp.terminal)
    states, actions = np.full((n, length + 1), -1), np.full((n, length), -1)
    for path, chosen in zip(states, actions, strict=True):
        path[0] = rng.choice(starts)
        for t in range(length):
            chosen[t] = rng.integers(mdp.n_actions)
            chances = np.cumsum(moves[path[t], chosen[t]])
            path[t + 1] = np.searchsorted(chances, rng.random() * chances[-1], side="right")
            if mdp.terminal[path[t + 1]]:
                break
    return starts, states, actions


def arrival_values(chances, there, discount):
    """(S, A) the best expected discount at the arrival; rows of zeros are worth nothing."""
    q = np.zeros(chances.shape[:2])
    for _ in range(250):
        q = discount * chances @ np.where(there, 1.0, q.max(axis=1))
    return q


def arrival_of(moves, policy, there, discount):
    """(S,) the expected discount at the arrival under a policy, by a linear solve."""
    rows = moves[np.arange(len(there)), policy]
    return np.linalg.solve(np.eye(len(there)) - discount * rows * ~there, discount * rows @ there)


def share_of_best(mdp, starts, cell, policy):
    """What a policy (cells, S) gets on average over goals and starts, as a share of the best."""
    moves, discount, got, best = mdp.dense(), mdp.discount, 0.0, 0.0
    for goal in np.unique(cell[starts]):
        there, others = cell == goal, starts[cell[starts] != goal]
        ideal = arrival_values(moves, there, discount).argmax(axis=1)
        got += arrival_of(moves, policy[goal], there, discount)[others].mean()
        best += arrival_of(moves, ideal, there, discount)[others].mean()
    return got / best


def learned(states, actions, cell, discount, *, later=False):
    """(cells, S) the policy from counted steps: all of them, or each goal's rows of step 6."""
    walked, t = np.nonzero(actions >= 0)
    steps = states[walked, t], actions[walked, t], states[walked, t + 1]
    cells = np.where(states >= 0, cell[states], -1)
    policy = []
    for goal in range(cell.max() + 1):
        ahead = np.cumsum((cells == goal)[:, ::-1], axis=1)[:, ::-1]  # visits from a time on
        seen = np.zeros((len(cell), actions.max() + 1, len(cell)))
        np.add.at(seen, steps, ahead[walked, t + 1] if later else 1.0)
        total = np.maximum(seen.sum(axis=2, keepdims=True), 1.0)
        policy.append(arrival_values(seen / total, cell == goal, discount).argmax(axis=1))
    return np.array(policy)


def unpaid_world(rng, discount):
    """A world without a goal, and its walks.

    Hindsight alone gets less than 90 % there, and so does what never saw a fall.
    """
    while True:
        layout = [row.replace("G", ".") for row in random_layout(rng)]
        mdp = key_and_door(layout, slip=0.2, discount=discount)
        cell = np.arange(mdp.n_states) % (mdp.n_states // 2)
        starts, states, actions = walks(mdp, 800, 40, rng)
        blind = learned(states, actions, cell, discount, later=True)
        stood = (actions >= 0).all(axis=1)
        lucky = learned(states[stood], actions[stood], cell, discount)
        if max(share_of_best(mdp, starts, cell, policy) for policy in (blind, lucky)) < 0.9:
            return mdp, starts, cell, states, actions


def check_to_any_cell(answer, rng):
    for discount in (0.95, 0.8):
        mdp, starts, cell, states, actions = unpaid_world(rng, discount)
        policy = as_array(
            answer(states, actions, cell, discount),
            (int(cell.max()) + 1, mdp.n_states),
            what="the policy",
            hint="a row for each cell as the goal, and a column for each state",
        )
        expect(
            (policy >= 0) & (policy < mdp.n_actions) & (policy == np.floor(policy)),
            property="the policy holds the numbers of actions",
            hint="`argmax` over the actions",
        )
        share = share_of_best(mdp, starts, cell, policy.astype(int))
        expect(
            share >= SHARE,
            property=f"on average over goals and starts, the policy gets {SHARE:.0%} of the best",
            hint="which steps does hindsight not show to a goal? Must the goal of a stored step "
            "be one that its walk has reached?",
            detail=f"it gets {share:.0%}",
        )


register(
    Exercise(
        id="21L.8",
        title="The whole: to any cell",
        function="to_any_cell",
        points=5,
        difficulty=4,
        minutes=35,
        importance=5,
        goal="You can learn to reach every goal from walks that nobody was paid for.",
        hints=(
            "The moves do not depend on the goal. So which goals may a stored step be given?",
            "A fall says nothing about where the goal is, and everything about where not to go.",
            "Count what followed each pair, and solve the world of the counts for each goal.",
        ),
        check=check_to_any_cell,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 21L.9 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="21L.9",
        title="Explain your results",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say what each remedy assumes, and what your experiment has established.",
        hints=(
            "Which curve lies on the curve of chance? Which two learners differ in one thing only?",
            "How many unknown rewards are there, and how many totals?",
            "Compare what is promised with what is real, for 800 walks and for five times as many.",
        ),
        rubric=(
            Criterion(
                1,
                "reads the picture with its control: the optimistic start explores, the bonus on "
                "a table of zeros harms, and names what is not established",
            ),
            Criterion(
                1,
                "kept at ends, progress loses the guarantee; here the best policy is the same and "
                "the learner is slower, as ends near the goal pay",
            ),
            Criterion(
                1,
                "a small K is a price on differences: it helps with few or noisy totals, and is a "
                "bias with many",
            ),
            Criterion(
                1,
                "hindsight keeps only steps of walks that reached the goal: few, and survivors; "
                "without luck in the moves there would be no bias",
            ),
            Criterion(
                1,
                "images: no counts or tables; goals drawn independently of the outcome, a test of "
                "arrival, and function approximation",
            ),
        ),
    )
)
