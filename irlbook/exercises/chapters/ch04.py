"""Exercises of chapter 4: behaviour cloning and DAgger."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    expect,
    expect_close,
    expect_distribution,
    expect_length,
)


def _demonstrations(rng: np.random.Generator, n_states: int, n_actions: int):
    lengths = np.append(4, rng.permutation([1, 7, int(rng.integers(8, 12))]))
    return [(rng.integers(n_states, size=n + 1), rng.integers(n_actions, size=n)) for n in lengths]


def _counts(pairs, n_states, n_actions, shift=0):
    counts = np.zeros((n_states, n_actions))
    for states, actions in pairs:
        np.add.at(counts, (states[shift : len(actions) + shift], actions), 1.0)
    return counts


def _normalised(counts, smoothing):
    smooth = counts + smoothing
    return smooth / smooth.sum(axis=1, keepdims=True)


# --- 04.1 ---------------------------------------------------------------------------------------


def check_clone(answer, rng):
    n_states, n_actions = int(rng.integers(5, 8)), 3
    pairs = _demonstrations(rng, n_states, n_actions)
    smoothing = float(rng.uniform(0.3, 2.0))
    counts = _counts(pairs, n_states, n_actions)
    totals = counts.sum(axis=1, keepdims=True)
    got = answer(pairs, n_states, n_actions, smoothing)
    expect_close(
        got,
        _normalised(counts, smoothing),
        property="the clone is the smoothed share of each action in each state (4.2)",
        hint="count by hand for one state that was visited twice",
        mistakes={
            "each action was paired with the state that came after it": _normalised(
                _counts(pairs, n_states, n_actions, shift=1), smoothing
            ),
            "the smoothing is missing": np.where(
                totals > 0, counts / np.maximum(totals, 1.0), 1 / n_actions
            ),
            "you normalised over states, not over actions": (counts + smoothing)
            / (counts + smoothing).sum(axis=0),
            "the smoothing was added after the division": (
                lambda p: (p + smoothing) / (p + smoothing).sum(axis=1, keepdims=True)
            )(np.where(totals > 0, counts / np.maximum(totals, 1.0), 1 / n_actions)),
            "each pair counted once, however often it was seen": _normalised(
                (counts > 0).astype(float), smoothing
            ),
        },
    )
    crowd = [(np.zeros(9, dtype=int), np.zeros(8, dtype=int))]
    lonely = expect_distribution(answer(crowd, 3, 2, 0.0), (3, 2))
    expect_close(
        lonely[1:],
        np.full((2, 2), 0.5),
        property="a state without a label gets the uniform distribution, also without smoothing",
        hint="what is 0 / 0 in your code? The likelihood says nothing there; the task does",
    )
    expect_close(
        lonely[0],
        [1.0, 0.0],
        property="without smoothing the clone is the plain share",
        hint="smoothing 0 must change nothing in a state that was seen",
    )


register(
    Exercise(
        id="04.1",
        title="Copy",
        function="clone",
        points=3,
        difficulty=1,
        minutes=15,
        importance=5,
        goal="You can turn demonstrations into the policy of maximum likelihood.",
        hints=(
            "T actions pass through T + 1 states. Which state answers to which action?",
            "Count first, for all demonstrations; add the smoothing to every count; divide at the "
            "end, each state by its own total.",
            "Only where the total is zero does a row need anything special.",
        ),
        check=check_clone,
    )
)


# --- 04.2 ---------------------------------------------------------------------------------------


def _stumble(error, back, horizon, *, before=False):
    off, total = 0.0, 0.0
    for _ in range(horizon):
        if before:
            total += off
        off = off * (1 - back) + (1 - off) * error
        if not before:
            total += off
    return total


def check_stumble(answer, rng):
    error, back = float(rng.uniform(0.02, 0.1)), float(rng.uniform(0.2, 0.6))
    horizon = int(rng.integers(15, 30))
    absorbed = _stumble(error, 0.0, horizon)
    expect_close(
        answer(error, back, horizon),
        _stumble(error, back, horizon),
        property="the cost is the expected number of steps that end off the road",
        hint="let p be the chance to be off the road after t steps: what is it after one more?",
        mistakes={
            "nobody ever comes back": absorbed,
            "the place is counted before each step, and the last one is left out": _stumble(
                error, back, horizon, before=True
            ),
            "the two chances are swapped": _stumble(back, error, horizon),
            "each error costs one step": error * horizon,
            "one step too many": _stumble(error, back, horizon + 1),
            "this is the chance at the end, not the sum over steps": _stumble(error, back, horizon)
            - _stumble(error, back, horizon - 1),
            "errors are counted off the road, too, where nobody can fall": sum(
                error * (1 - (1 - back) ** (horizon - t)) / back for t in range(horizon)
            ),
        },
    )
    expect_close(
        answer(error, 0.0, horizon),
        absorbed,
        property="without a way back it is the law of one error (4.6)",
        hint="compare with T - (1 - e)(1 - (1 - e)^T) / e at e = 0.5 and T = 2",
    )
    expect_close(
        answer(0.0, back, horizon),
        0.0,
        atol=1e-12,
        property="without errors nothing is paid",
        hint="does your formula divide by the error rate?",
    )
    expect_close(
        answer(0.0, 0.0, horizon),
        0.0,
        atol=1e-12,
        property="without errors and without a way back nothing is paid either",
        hint="does your formula divide by a sum of chances?",
    )
    expect_close(
        answer(1.0, back, horizon),
        _stumble(1.0, back, horizon),
        property="it holds for a certain error, too",
        hint="with error = 1 the first step ends off the road",
    )
    expect_close(
        answer(error, back, 1),
        error,
        property="one step costs the chance of an error",
        hint="where does the learner start, and which step is counted?",
    )
    expect_close(
        answer(error, 1.0, horizon),
        _stumble(error, 1.0, horizon),
        property="it holds for a certain way back, too",
        hint="with back = 1 an error costs the step in which it happened, and no more",
    )


register(
    Exercise(
        id="04.2",
        title="The price of a stumble",
        function="stumble_cost",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can compute what errors cost when some are corrected.",
        hints=(
            "Two states are enough: on the road and off it.",
            "Off the road after a step: either you were off and did not come back, or you were on "
            "and erred.",
            "Iterate that chance for every step and add it up, after each step.",
        ),
        check=check_stumble,
    )
)


# --- 04.3 ---------------------------------------------------------------------------------------


def check_aggregate(answer, rng):
    n_states, n_actions = int(rng.integers(5, 8)), 3
    pile = rng.integers(0, 4, size=(n_states, n_actions)).astype(float)
    expert = rng.integers(n_actions, size=n_states)
    drives = _demonstrations(rng, n_states - 1, n_actions)
    pile[-1] = 0.0  # nobody was ever there
    met = int(drives[0][0][0])
    pile[met, (expert[met] + 1) % n_actions] = 40.0  # old labels that outvote the new ones
    relabelled = [(s, expert[s[:-1]]) for s, _ in drives]
    new = _counts(relabelled, n_states, n_actions)
    ends = _counts([(s[-1:], expert[s[-1:]]) for s, _ in drives], n_states, n_actions)
    visited = (new > 0).astype(float)
    executed = _counts(drives, n_states, n_actions)
    before = pile.copy()
    got = answer(pile, drives, expert)
    expect(
        np.array_equal(pile, before),
        property="the old pile is left as it was",
        hint="work on a copy: the caller may still need the old one",
    )
    parts = expect_length(got, 2, hint="return two things: the pile and the policy")
    expect_close(
        parts[0],
        pile + new,
        what="the pile",
        property="the pile holds all old labels and the expert's answer for each state on the way",
        hint="who chose the states, and who chose the labels? They are not the same",
        mistakes={
            "the labels are what the learner did, not what the expert would have done": pile
            + executed,
            "the old labels are gone": new,
            "the state in which a drive ended was labelled, too": pile + new + ends,
            "each state was labelled once, however often it was met": pile + visited,
            "only states in which the learner erred were labelled": pile
            + _counts(
                [
                    (
                        np.append(s[:-1][a != expert[s[:-1]]], 0),
                        expert[s[:-1]][a != expert[s[:-1]]],
                    )
                    for s, a in drives
                ],
                n_states,
                n_actions,
            ),
        },
    )
    total = (pile + new).sum(axis=1, keepdims=True)
    want = np.where(total > 0, (pile + new) / np.maximum(total, 1.0), 1 / n_actions)
    expect_close(
        parts[1],
        want,
        what="the policy",
        property="the next policy is cloned from the whole pile",
        hint="use (4.2) on the new pile; uniform where there is no label",
        mistakes={
            "it takes the most frequent label; (4.2) has shares": np.where(
                total > 0, np.eye(n_actions)[(pile + new).argmax(axis=1)], 1 / n_actions
            ),
            "it is smoothed: one label was added everywhere": (pile + new + 1)
            / (pile + new + 1).sum(axis=1, keepdims=True),
            "a state without a label has no distribution": np.where(total > 0, want, 0.0),
            "it is cloned from the old pile": np.where(
                pile.sum(axis=1, keepdims=True) > 0,
                pile / np.maximum(pile.sum(axis=1, keepdims=True), 1.0),
                1 / n_actions,
            ),
            "it is cloned from the new labels only": np.where(
                new.sum(axis=1, keepdims=True) > 0,
                new / np.maximum(new.sum(axis=1, keepdims=True), 1.0),
                1 / n_actions,
            ),
        },
    )


register(
    Exercise(
        id="04.3",
        title="One round of DAgger",
        function="dagger_round",
        points=4,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You know whose states and whose labels DAgger learns from.",
        hints=(
            "The drive says where the learner went; what it did there is not needed.",
            "For every state of a drive but the last one, look up the expert's action and add one "
            "to that place of the pile.",
            "Copy the pile before you add, and clone from the copy.",
        ),
        check=check_aggregate,
    )
)


# --- 04.4 ---------------------------------------------------------------------------------------


def _difference(P, reward, start, expert, learner, horizon, *, driver=None, stationary=False):
    n_states = len(start)
    values, q = np.zeros((horizon + 1, n_states)), np.zeros((horizon, *reward.shape))
    for t in reversed(range(horizon)):
        q[t] = reward + P @ values[t + 1]
        values[t] = (expert * q[t]).sum(axis=1)
    here, total = start.copy(), 0.0
    moves = np.einsum("sa,sap->sp", learner if driver is None else driver, P)
    for t in range(horizon):
        k = 0 if stationary else t
        total += here @ (values[k] - (learner * q[k]).sum(axis=1))
        here = here @ moves
    return total


def _return(P, reward, start, policy, horizon):
    values = np.zeros(len(start))
    for _ in range(horizon):
        values = (policy * (reward + P @ values)).sum(axis=1)
    return start @ values


def check_difference(answer, rng):
    n_states, n_actions, horizon = int(rng.integers(4, 7)), 3, int(rng.integers(4, 8))
    P = rng.dirichlet(np.full(n_states, 0.6), size=(n_states, n_actions))
    reward = rng.normal(size=(n_states, n_actions))
    start = rng.dirichlet(np.ones(n_states))
    expert, learner = rng.dirichlet(np.full(n_actions, 0.5), size=(2, n_states))
    arguments = (P, reward, start, expert, learner, horizon)
    want = _difference(*arguments)
    expect_close(
        answer(*arguments),
        want,
        property="the errors along the learner's way add up to the loss (4.8)",
        hint="check it: the sum must be the expert's return minus the learner's, to the last digit",
        mistakes={
            "the states are the expert's, not the learner's": _difference(
                *arguments, driver=expert
            ),
            "the sign is turned": -want,
            "the values do not depend on the steps that are left": _difference(
                *arguments, stationary=True
            ),
            "only the first step is counted": _difference(*arguments, driver=None) * 0
            + start
            @ (lambda v, q: v - (learner * q).sum(axis=1))(*_first(P, reward, expert, horizon)),
            "it was divided by the horizon": want / horizon,
        },
    )
    expect_close(
        answer(P, reward, start, expert, expert, horizon),
        0.0,
        atol=1e-10,
        property="an expert loses nothing against itself",
        hint="what is V minus the mean of Q under the expert's own policy?",
    )


def _first(P, reward, expert, horizon):
    values = np.zeros(len(expert))
    for _ in range(horizon):
        q = reward + P @ values
        values = (expert * q).sum(axis=1)
    return values, q


register(
    Exercise(
        id="04.4",
        title="Where the loss comes from",
        function="loss_along_the_way",
        points=4,
        difficulty=3,
        minutes=25,
        importance=4,
        goal="You can write the cost of imitation as a sum of single errors.",
        hints=(
            "Two passes: values of the expert backwards in time, states of the learner forwards.",
            "The value of step t has horizon - t steps left; keep one value vector a step.",
            "At each step: the learner's distribution over states, times the expert's value minus "
            "the expert's Q averaged over what the learner does.",
        ),
        check=check_difference,
    )
)


# --- 04.5 ---------------------------------------------------------------------------------------


def _own_error(P, start, expert, learner, horizon, driver=None):
    wrong = 1.0 - learner[np.arange(len(start)), expert]
    acting = learner if driver is None else driver
    moves = np.einsum("sa,sap->sp", acting, P)
    here, total = start.copy(), 0.0
    for _ in range(horizon):
        total += here @ wrong
        here = here @ moves
    return total / horizon


def check_own_error(answer, rng):
    n_states, n_actions, horizon = int(rng.integers(5, 8)), 3, int(rng.integers(5, 9))
    P = rng.dirichlet(np.full(n_states, 0.4), size=(n_states, n_actions))
    start = rng.dirichlet(np.ones(n_states))
    expert = rng.integers(n_actions, size=n_states)
    learner = rng.dirichlet(np.full(n_actions, 0.4), size=n_states)
    arguments = (P, start, expert, learner, horizon)
    one_hot = np.eye(n_actions)[expert]
    want = _own_error(*arguments)
    wrong = 1.0 - learner[np.arange(n_states), expert]
    expect_close(
        answer(*arguments),
        want,
        property="it is the mistakes a step on the states that the learner meets",
        hint="who drives in your code, and who is examined?",
        mistakes={
            "the expert drives: this is the test error of a clone": _own_error(
                *arguments, driver=one_hot
            ),
            "all states count alike, met or not": wrong.mean(),
            "it is a sum over steps, not a mean": want * horizon,
            "only the first state is examined": start @ wrong,
            "the learner moves before each look: the start is never examined": _own_error(
                P, start @ np.einsum("sa,sap->sp", learner, P), expert, learner, horizon
            ),
            "only the last state is examined": horizon * want
            - (horizon - 1) * _own_error(P, start, expert, learner, horizon - 1),
            "it is the share of right answers": 1.0 - want,
        },
    )


register(
    Exercise(
        id="04.5",
        title="A very good test score",
        kind="bug hunt",
        function="own_error",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You notice when a learner is examined on somebody else's states.",
        hints=(
            "Compare the score with what happens when the policy drives by itself.",
            "Follow one variable through the loop: the distribution over states.",
            "After each step that distribution moves. By whose actions?",
        ),
        check=check_own_error,
    )
)


# --- 04.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="04.6",
        title="More demonstrations, noise or questions?",
        kind="written",
        points=5,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can choose how to spend an expert's time, and say what the choice rests on.",
        hints=(
            "What does each of the three need from the expert, and from the world?",
            "Compute or estimate two numbers for each case: mistakes on own states, and u.",
            "Ask what the learner sees after its first error, in each case.",
        ),
        rubric=(
            Criterion(
                2, "for each case names a choice that fits, with what the expert must be able to do"
            ),
            Criterion(2, "argues with the price u of one error and with who chooses the states"),
            Criterion(
                1, "says what a good score on held-out demonstrations does and does not show"
            ),
        ),
    )
)
