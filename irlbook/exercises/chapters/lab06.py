"""The lab of chapter 6: maximum-entropy IRL, from the soft backup to a recovered reward."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_distribution,
    expect_length,
    expect_picture,
    expect_points,
    expect_type,
)

WITHOUT = ("irlbook.irl", "irlbook.planning", "irlbook.imitation")

# 06L.1 --------------------------------------------------------------------------------------------


def check_my_world(answer, rng):
    hint = "return a dict with transitions, start, features, weights and horizon"
    world = expect_type(answer(), dict, hint=hint)
    names = ("transitions", "start", "features", "weights", "horizon")
    missing = [name for name in names if name not in world]
    expect(not missing, property="the dict has its five entries", hint=hint)
    shape = as_array(world["transitions"], (-1, -1, -1), what="`transitions`").shape
    expect(shape[0] == shape[2], property="`transitions` is (S, A, S)", hint="from, action, to")
    n_states, n_actions = shape[:2]
    expect(
        12 <= n_states <= 100 and n_actions >= 2,
        property="there are 12 to 100 states, and 2 actions or more",
        hint="rule 1",
        detail=f"{n_states} states, {n_actions} actions",
    )
    horizon = as_array(world["horizon"], (), what="`horizon`")
    expect(
        10 <= horizon <= 60 and horizon.dtype.kind in "iu",
        property="the horizon is a whole number from 10 to 60, an `int`",
        hint="rule 1",
    )
    moves = expect_distribution(world["transitions"], what="`transitions`", hint="rule 2")
    start = expect_distribution(world["start"], (n_states,), what="`start`", hint="rule 2")
    expect(
        (moves.max(axis=2) <= 0.95).mean() >= 0.2,
        property="chance plays a part in at least one fifth of the pairs of state and action",
        hint="rule 2: let an action fail now and then",
    )
    reached = start > 0
    for _ in range(int(horizon) - 1):
        reached = reached | (moves[reached].sum(axis=(0, 1)) > 0)
    expect(
        reached,
        property="every state can be reached at one of the times 0 to T - 1",
        hint="rule 3: follow what can happen from the start, one step at a time",
        detail=f"{int((~reached).sum())} states cannot",
    )
    features = as_array(world["features"], (n_states, -1), what="`features`")
    count = features.shape[1]
    expect(2 <= count <= 6, property="there are 2 to 6 features", hint="rule 4")
    expect(
        np.linalg.matrix_rank(np.column_stack([np.ones(n_states), features])) == count + 1,
        property="the features and a constant are linearly independent",
        hint="rule 4: do some of your features always add up to the same number?",
    )
    reward = features @ as_array(world["weights"], (count,), what="`weights`")
    expect(
        1 <= np.ptp(reward) <= 10,
        property="the true rewards differ by 1 at least and by 10 at most",
        hint="rule 5",
        detail=f"they differ by {np.ptp(reward):.2f}",
    )


register(
    Exercise(
        id="06L.1",
        title="A world of your own",
        function="my_world",
        points=3,
        difficulty=2,
        minutes=25,
        importance=3,
        goal="You can write a world down so that its reward can be recovered.",
        hints=(
            "Begin with a grid or a ring, and let each action fail now and then.",
            "A feature for each kind of place is one too many: with a constant they add up.",
            "Fill `transitions` in two loops, over states and over actions; add probabilities with "
            "`+=`, for two ways may lead to the same state.",
        ),
        check=check_my_world,
        rounds=1,
    )
)


# --------------------------------------------------------------------------- what the checks know


def _world(rng, n_states=None, n_actions=3):
    n_states = n_states or int(rng.integers(8, 14))
    moves = rng.dirichlet(np.full(n_states, 0.3), size=(n_states, n_actions))
    return moves, rng.dirichlet(np.full(n_states, 2.0))


def _log_sum(q):
    top = q.max(axis=1)
    return top + np.log(np.exp(q - top[:, None]).sum(axis=1))


def plan(moves, reward, horizon, backup=_log_sum, last=None, own=True):
    """(V_0, policy) of the soft agent, or of one with another backup."""
    values = np.zeros(len(reward)) if last is None else last
    policy = np.zeros((horizon, *moves.shape[:2]))
    for t in reversed(range(horizon)):
        q = reward[:, None] + moves @ values if own else moves @ (reward + values)
        values = backup(q)
        policy[t] = np.exp(q - _log_sum(q)[:, None])
    return values, policy


def visits_of(moves, policy, start, backwards=False):
    here, total = start, np.zeros(len(start))
    for now in policy:
        total = total + here
        chain = np.einsum("sa,sap->sp", now, moves)
        here = chain @ here if backwards else here @ chain
    return total


def sample(moves, policy, start, count, rng):
    states = np.zeros((count, len(policy)), dtype=int)
    states[:, 0] = rng.choice(len(start), size=count, p=start)
    for t in range(len(policy) - 1):
        chain = np.einsum("sa,sap->sp", policy[t], moves).cumsum(axis=1)
        draws = rng.random(count)[:, None]
        states[:, t + 1] = (chain[states[:, t]] < draws).sum(axis=1).clip(max=len(start) - 1)
    return states


# 06L.2 --------------------------------------------------------------------------------------------


def check_soft_plan(answer, rng):
    moves, _ = _world(rng)
    reward, horizon = rng.normal(size=len(moves)), int(rng.integers(4, 8))
    want, policy = plan(moves, reward, horizon)
    hint = "return the pair (V_0, policy)"
    values, got = expect_length(answer(moves, reward, horizon), 2, hint=hint)
    expect_close(
        values,
        want,
        what="V_0",
        property="V_0 solves the soft Bellman equation from the end",
        hint="do the last step by hand: V of a state there is its reward plus log A",
        mistakes={
            "you took the hard maximum": plan(moves, reward, horizon, lambda q: q.max(axis=1))[0],
            "you took the mean over actions": plan(
                moves, reward, horizon, lambda q: _log_sum(q) - np.log(q.shape[1])
            )[0],
            "there is one step too few": plan(moves, reward, horizon - 1)[0],
            "there is one step too many": plan(moves, reward, horizon + 1)[0],
            "the reward is that of the next state": plan(moves, reward, horizon, own=False)[0],
            "the last values are the rewards, not zero": plan(moves, reward, horizon, last=reward)[
                0
            ],
        },
    )
    shape = (horizon, *moves.shape[:2])
    got = expect_distribution(got, shape, what="`policy`", hint="exp(Q - V), with V of this time")
    expect_close(
        got,
        policy,
        what="`policy`",
        property="the policy of time t looks at the values of time t + 1",
        hint="in which order do the times stand in your array?",
        mistakes={"time runs backwards": policy[::-1]},
    )
    big = reward * 1000
    values, got = expect_length(answer(moves, big, horizon), 2, hint=hint)
    expect_close(
        values,
        plan(moves, big, horizon)[0],
        what="V_0 for large rewards",
        property="large rewards do not overflow",
        hint="take the largest Q of each state out of the exponential",
    )


register(
    Exercise(
        id="06L.2",
        title="The soft agent",
        function="soft_plan",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can plan softly, backwards in time.",
        hints=(
            "What is V one step before the end, if there is no later reward?",
            "`transitions @ values` is (S, A).",
            "For each t from T - 1 down to 0: Q, then V as a safe log of a sum, then the policy.",
        ),
        check=check_soft_plan,
        without=WITHOUT,
    )
)

# 06L.3 --------------------------------------------------------------------------------------------


def check_expected_visits(answer, rng):
    moves, start = _world(rng)
    horizon = int(rng.integers(4, 8))
    policy = rng.dirichlet(np.ones(3), size=(horizon, len(moves)))
    want = visits_of(moves, policy, start)
    expect_close(
        answer(moves, policy, start),
        want,
        property="the visits are those of the times 0 to T - 1, from the start onwards",
        hint="after one step, which share of the walkers stands in each state?",
        mistakes={
            "the start is not counted": visits_of(moves, policy, start) - start,
            "time T is counted, too": visits_of(moves, [*policy, policy[0]], start),
            "they were divided by T": want / horizon,
            "walkers move against the arrows": visits_of(moves, policy, start, backwards=True),
            "the policy of the last time comes first": visits_of(moves, policy[::-1], start),
            "every action is as likely as any other": visits_of(
                moves, np.full(policy.shape, 1 / 3), start
            ),
            "only the last time is counted": want - visits_of(moves, policy[:-1], start),
        },
    )


register(
    Exercise(
        id="06L.3",
        title="Where it goes",
        function="expected_visits",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can push a distribution forwards through a world.",
        hints=(
            "Keep one array: the share of walkers in each state now.",
            "A walker in s takes a with probability pi and lands in s' with probability P.",
            "Add the shares to the visits before you move them; move them with one einsum.",
        ),
        check=check_expected_visits,
        without=WITHOUT,
    )
)

# 06L.4 --------------------------------------------------------------------------------------------


def check_gradient(answer, rng):
    n_states, count, horizon = int(rng.integers(5, 9)), int(rng.integers(3, 7)), 6
    features = rng.normal(size=(n_states, 3)) + 1.0
    walks = rng.integers(n_states, size=(count, horizon))
    visits = rng.dirichlet(np.ones(n_states)) * horizon
    total, model = features[walks].sum(axis=(0, 1)), features.T @ visits
    expect_close(
        answer(features, walks, visits),
        total / count - model,
        property="the gradient is what the demonstrations collect, less what the model expects",
        hint="how much of each feature does one demonstration collect, on average?",
        mistakes={
            "the sign is turned": model - total / count,
            "the demonstrations were added up": total - model,
            "you took the mean over steps as well": total / count / horizon - model,
            "the model is missing": total / count,
            "each state counts once, however often a walk meets it": np.mean(
                [features[np.unique(walk)].sum(axis=0) for walk in walks], axis=0
            )
            - model,
            "the model's visits were made to sum to one": total / count - model / horizon,
        },
    )


register(
    Exercise(
        id="06L.4",
        title="Collected and expected",
        function="gradient",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can write the gradient of the dual without differentiating anything.",
        hints=(
            "Both parts have the unit: amount of a feature per walk.",
            "`features[demonstrations]` is (N, T, K).",
            "Sum over the times, average over the walks, and subtract `features.T @ visits`.",
        ),
        check=check_gradient,
        without=WITHOUT,
    )
)

# 06L.5 --------------------------------------------------------------------------------------------


def check_recover(answer, rng):
    for size in (10, 14):
        moves, start = _world(rng, size)
        features, horizon = rng.normal(size=(size, 3)), int(rng.integers(6, 10))
        true = rng.uniform(0.5, 1.0, size=3) * rng.choice([-1, 1], size=3)
        walks = sample(moves, plan(moves, features @ true, horizon)[1], start, 200, rng)
        weights = as_array(answer(moves, start, features, walks), (3,), what="the array of weights")
        expected = visits_of(moves, plan(moves, features @ weights, horizon)[1], start)
        gap = features[walks].sum(axis=1).mean(axis=0) - features.T @ expected
        expect(
            np.abs(gap) <= 0.01,
            property="at the weights found, the model collects what the demonstrations collect",
            hint="print the largest entry of the gradient as you climb: does it shrink? A sign, a "
            "step that is too long, or an end that comes too soon",
            detail=f"the largest entry of the gradient is {np.abs(gap).max():.3g}",
        )


register(
    Exercise(
        id="06L.5",
        title="The reward behind the walks",
        function="recover",
        points=5,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can recover a reward from behaviour, and tell when the fit is done.",
        hints=(
            "The dual is convex: wherever you begin, downhill leads to its lowest value.",
            "`minimize` minimises: which sign have the function and the gradient that you give it?",
            "Inside the loop: plan with `features @ w`, push the visits forwards, take your "
            "gradient. With `jac=True` the function returns both numbers.",
        ),
        check=check_recover,
        rounds=1,
        seconds=30.0,
        without=WITHOUT,
    )
)

# 06L.6 --------------------------------------------------------------------------------------------


def check_draw(answer, rng):
    size = int(rng.integers(12, 30))
    true = rng.normal(size=size) + 3.0
    recovered = true * 0.8 + rng.normal(size=size) * 0.2 - 5.0
    (panel,) = expect_picture(answer(true, recovered), hint="one pair of axes is enough").axes
    x, y = true - true.mean(), recovered - recovered.mean()
    expect_points(
        panel,
        x,
        y,
        property="each state is a point: true reward to the right, recovered upwards, both less "
        "their means",
        hint="subtract from each reward its own mean",
    )
    ends = [x.min(), x.max()]
    expect(
        any(
            len(line.x) > 1
            and np.allclose(line.x, line.y)
            and np.allclose([line.x.min(), line.x.max()], ends)
            for line in panel.lines
        ),
        property="a line shows where the points of a perfect recovery would lie",
        hint="two points are enough: the smallest and the largest true value, against themselves",
    )
    expect(
        "true" in panel.xlabel.lower() and "recovered" in panel.ylabel.lower(),
        property="the labels say which reward is the true one, and which is recovered",
        hint="a reader who sees only the picture must know it",
    )


register(
    Exercise(
        id="06L.6",
        title="Recovered against true",
        function="draw",
        kind="figure",
        points=3,
        difficulty=1,
        minutes=15,
        importance=3,
        goal="You can draw an estimate against the truth fairly.",
        hints=(
            "A scatter and a line of two points.",
            "Which mean has to come off which array?",
            "Centre both, scatter them, and plot the smallest and largest centred true value "
            "against themselves.",
        ),
        check=check_draw,
    )
)

# 06L.7 --------------------------------------------------------------------------------------------

register(
    Exercise(
        id="06L.7",
        title="What can be recovered",
        kind="written",
        points=6,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can tell an error of the fit from chance in the data, and both from what no "
        "data can show.",
        hints=(
            "At the maximum the gradient is zero, however few walks there are.",
            "What does the gradient say for a feature that was never collected?",
            "Divide Q and V by the temperature: where does it go?",
        ),
        rubric=(
            Criterion(
                2,
                "(a) reads the distances off the answer's own picture; the errors are chance in "
                "the sample, not in the fit, and shrink like 1/sqrt(N)",
            ),
            Criterion(
                2,
                "(b) the weight of an unvisited state runs to minus infinity, because its gradient "
                "is negative for every weight; its point falls out of the picture",
            ),
            Criterion(2, "(c) half the reward; the predictions stay as good, only r/beta matters"),
        ),
    )
)
