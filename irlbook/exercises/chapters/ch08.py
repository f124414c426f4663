"""Exercises of chapter 8: adversarial imitation."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_length


def _pair(rng: np.random.Generator, size: int = 12, shape: tuple[int, int] = (4, 3)):
    """Two occupancies, positive everywhere and well apart."""
    expert, policy = rng.dirichlet(np.full(size, 2.0), size=2) + 0.01
    return (expert / expert.sum()).reshape(shape), (policy / policy.sum()).reshape(shape)


# --- 08.1 ---------------------------------------------------------------------------------------


def check_judge(answer, rng):
    expert, policy = _pair(rng)
    d = expert / (expert + policy)
    loss = -(expert * np.log(d) + policy * np.log(1 - d)).sum()
    parts = expect_length(answer(expert, policy), 2, hint="return the pair (D, loss)")
    expect_close(
        parts[0],
        d,
        property="D is the best discriminator (8.3)",
        hint="of all visits to a pair, what share is the expert's?",
        what="D",
        mistakes={
            "this is the chance of the learner": 1 - d,
            "this is the ratio u": expert / policy,
            "this is the logit": np.log(expert / policy),
        },
    )
    expect_close(
        parts[1],
        loss,
        property="the loss is the cross-entropy of both kinds of pairs (8.4)",
        hint="each kind of pair is weighted with its own occupancy",
        what="the loss",
        mistakes={
            "the sign is turned": -loss,
            "the two kinds were averaged": loss / 2,
            "only the expert's pairs count": -(expert * np.log(d)).sum(),
            "all pairs count alike": -(np.log(d) + np.log(1 - d)).mean(),
        },
    )
    gaps = expert.copy(), policy.copy()
    gaps[0][0, 0] = gaps[1][1, 1] = 0.0
    gaps[0][2, 2] = gaps[1][2, 2] = 0.0
    gaps = tuple(x / x.sum() for x in gaps)
    parts = expect_length(answer(*gaps), 2, hint="return the pair (D, loss)")
    got = as_array(parts[0], (4, 3), what="D")
    both = gaps[0] + gaps[1]
    expect_close(
        got,
        np.where(both > 0, gaps[0] / np.where(both > 0, both, 1.0), 0.5),
        property="D is 0, 1 and 1/2 where only the learner, only the expert, and nobody goes",
        hint="which of the three divides by zero?",
    )
    middle = 0.5 * (gaps[0] + gaps[1])
    js = sum((x[x > 0] * np.log(x[x > 0] / middle[x > 0])).sum() for x in gaps)
    expect_close(
        parts[1],
        2 * np.log(2) - js,
        property="the loss stays finite where one of the two never goes",
        hint="0 log 0 counts as 0: leave out what has no weight",
        what="the loss",
    )


register(
    Exercise(
        id="08.1",
        title="The judge",
        function="judge",
        points=3,
        difficulty=1,
        minutes=15,
        importance=5,
        goal="You can write down the best discriminator and what its loss says.",
        hints=(
            "D at one pair only needs the two numbers of that pair.",
            "The loss is a sum over pairs of two terms. Which occupancy weights which logarithm?",
            "Where nobody goes set D = 1/2; in the loss sum only over pairs with weight.",
        ),
        check=check_judge,
    )
)


# --- 08.2 ---------------------------------------------------------------------------------------


def check_pay(answer, rng):
    expert, policy = _pair(rng)
    u = expert / policy
    wanted = {"GAIL": np.log((1 + u) / 2), "AIRL": np.log(u) - 1, "FAIRL": u}
    slopes = {"GAIL": np.log(2 * u / (1 + u)), "AIRL": -1 / u, "FAIRL": 1 + np.log(u)}
    values = {
        "GAIL": u * np.log(u) - (u + 1) * np.log((1 + u) / 2),
        "AIRL": -np.log(u),
        "FAIRL": u * np.log(u),
    }
    for method, want in wanted.items():
        expect_close(
            answer(expert, policy, method),
            want,
            property=f"the reward of {method} is minus the derivative of D_f by rho_pi (8.5)",
            hint="differentiate rho_pi f(rho_E / rho_pi) by rho_pi: product rule and chain rule",
            mistakes={
                "the sign is turned: the policy would flee the expert": -want,
                "this is f'(u), the best T; the policy is paid f*(T)": slopes[method],
                "this is f(u)": values[method],
                "this is -f(u): the derivative of u is missing": -values[method],
                "the ratio is upside down": {
                    "GAIL": np.log((1 + 1 / u) / 2),
                    "AIRL": -np.log(u) - 1,
                    "FAIRL": 1 / u,
                }[method],
                "a constant is wrong": want + (np.log(2) if method == "GAIL" else 1.0),
            },
        )


register(
    Exercise(
        id="08.2",
        title="Three ways to be paid",
        function="pay",
        points=4,
        difficulty=2,
        minutes=25,
        importance=5,
        goal="You can derive a method's reward from its divergence.",
        hints=(
            "Write u = rho_E / rho_pi and find u f'(u) - f(u).",
            "For AIRL: f = -log u, f' = -1/u. What is u f'(u)?",
            "For GAIL most terms cancel: what is left is a logarithm of (1 + u) / 2.",
        ),
        check=check_pay,
    )
)


# --- 08.3 ---------------------------------------------------------------------------------------


def _round(transitions, policy, expert, start, discount, step, *, bug=""):
    n = len(start)
    chain = np.einsum("sa,sap->sp", policy, transitions)
    flow = chain if bug == "backwards" else chain.T
    visits = np.linalg.solve(np.eye(n) - discount * flow, start) * (1 - discount)
    rho = visits[:, None] * policy * (1.0 / (1 - discount) if bug == "unnormalised" else 1.0)
    reward = np.log((expert + rho) / rho)  # -log(1 - D)
    if bug == "log D":
        reward = np.log(expert / (expert + rho))
    values = np.linalg.solve(np.eye(n) - discount * chain, (policy * reward).sum(axis=1))
    q = reward + (1.0 if bug == "no discount" else discount) * transitions @ values
    if bug == "added":
        new = np.maximum(policy + step * (q - values[:, None]), 0.0)
        return new / new.sum(axis=1, keepdims=True), reward
    new = policy * np.exp(step * (q - values[:, None]))
    return new / new.sum(axis=1, keepdims=True), reward


def check_play(answer, rng):
    n, m = 5, 3
    transitions = rng.dirichlet(np.full(n, 0.5), size=(n, m))
    policy = rng.dirichlet(np.full(m, 2.0), size=n)
    start, discount = rng.dirichlet(np.ones(n)), float(rng.uniform(0.7, 0.9))
    other = rng.dirichlet(np.full(m, 2.0), size=n)
    chain = np.einsum("sa,sap->sp", other, transitions)
    visits = np.linalg.solve(np.eye(n) - discount * chain.T, start) * (1 - discount)
    expert = visits[:, None] * other
    step = float(rng.uniform(0.5, 1.5))
    want, reward = _round(transitions, policy, expert, start, discount, step)
    greedy = policy * np.exp(step * reward)
    backwards = _round(transitions, policy, expert, start, discount, -step)[0]
    forgot = np.exp(step * (np.log(want / policy)) / step)
    expect_close(
        answer(transitions, policy, expert, start, discount, step),
        want,
        property="one round of the game gives the policy of (8.6), paid by -log(1 - D)",
        hint="test the pieces alone: the occupancy must sum to 1, D must lie between 0 and 1",
        mistakes={
            "the policy is paid for leaving the expert": backwards,
            **{
                mistake: _round(transitions, policy, expert, start, discount, step, bug=bug)[0]
                for mistake, bug in {
                    "the occupancy is not normalised": "unnormalised",
                    "visits flow backwards (a transpose is missing)": "backwards",
                    "the policy is paid log D": "log D",
                    "the discount is missing in Q": "no discount",
                    "the step was added to the policy, not to its logarithm": "added",
                }.items()
            },
            "only the reward of one step counts, not what follows": greedy
            / greedy.sum(axis=1, keepdims=True),
            "the old policy is forgotten": forgot / forgot.sum(axis=1, keepdims=True),
        },
    )
    expect_close(
        answer(transitions, other, expert, start, discount, step),
        other,
        property="when the policy is the expert nothing changes",
        hint="then D is 1/2 everywhere, and the reward a constant",
        atol=1e-7,
    )


register(
    Exercise(
        id="08.3",
        title="One round of the game",
        function="play_round",
        points=5,
        difficulty=3,
        minutes=35,
        importance=4,
        goal="You can write GAIL with both players exact.",
        hints=(
            "Five lines: where the policy goes, D, the reward, its values, the new policy.",
            "Visits d solve d = (1 - gamma) p_0 + gamma P_pi^T d; rho = d pi.",
            "Q = r + gamma P V; multiply the old policy by exp(step (Q - V)) and normalise rows.",
        ),
        check=check_play,
    )
)


# --- 08.4 ---------------------------------------------------------------------------------------


def check_train_and_pay(answer, rng):
    expert, policy = _pair(rng)
    steps, rate = 4000, 3.0
    scores = np.zeros_like(expert)
    for _ in range(steps):
        d = 1 / (1 + np.exp(-scores))
        scores -= rate * ((expert + policy) * d - expert)
    d = 1 / (1 + np.exp(-scores))
    got = answer(expert, policy, steps, rate)
    expect_close(
        got,
        -np.log(1 - d),
        property="the reward is -log(1 - D) with D the chance of the expert",
        hint="is the pay higher where the expert goes more often than the learner?",
        rtol=1e-5,
        mistakes={
            "the loss takes D for the chance of the learner, the pay for that of the expert": (
                -np.log(d)
            ),
            "this is log(1 - D)": np.log(1 - d),
            "this is log D": np.log(d),
            "this is the logit": np.log(d / (1 - d)),
        },
    )
    few, slow = int(rng.integers(2, 6)), float(rng.uniform(0.3, 0.8))
    scores = np.zeros_like(expert)
    for _ in range(few):
        scores -= slow * ((expert + policy) / (1 + np.exp(-scores)) - expert)
    expect_close(
        answer(expert, policy, few, slow),
        np.logaddexp(0.0, scores),
        property="the discriminator was trained for `steps` steps of size `rate`, from scores 0",
        hint="after three steps it is far from the best one, and so is the pay",
    )
    alone = rng.choice(expert.size, size=3, replace=False)
    one, other = expert.copy(), policy.copy()
    one.flat[alone[:2]], other.flat[alone[1:]] = 0.0, 0.0  # a pair each of one only, one of nobody
    one, other = one / one.sum(), other / other.sum()
    pay = as_array(answer(one, other, 20, 1.0), expert.shape)
    expect(
        np.sign(np.round(pay - np.log(2), 9)) == np.sign(one - other),
        property="more is paid where the expert goes more often, also where only one of the two "
        "ever goes",
        hint="follow the sign of one score from the labels to the pay",
    )
    expect_close(
        answer(expert, expert, 50, rate),
        np.full((4, 3), np.log(2)),
        property="nothing to tell apart: log 2 everywhere",
        hint="at scores 0 the gradient must vanish when both occupancies agree",
    )


register(
    Exercise(
        id="08.4",
        title="The pupil who runs away",
        kind="bug hunt",
        function="train_and_pay",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You notice when the loss and the reward disagree about what D means.",
        hints=(
            "Compare the pay with log(rho_E / rho_pi), pair by pair.",
            "The loss falls nicely with either meaning of D. Which meaning does the pay assume?",
            "Look at the gradient: which occupancy pulls the scores up?",
        ),
        check=check_train_and_pay,
    )
)


# --- 08.5 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="08.5",
        title="Which of them, and how do you know?",
        kind="written",
        points=6,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can choose a method and a control for a task.",
        hints=(
            "What must be the same tomorrow: the policy, the reward, neither?",
            "Forward KL or reverse KL: which error is the dangerous one here?",
            "A control removes exactly one thing. Remove what the discriminator knows.",
        ),
        rubric=(
            Criterion(2, "(a) a reward on states must be carried over; a policy or g(s,a) fails"),
            Criterion(2, "(b) reverse KL or JS, because an average of two ways is a crash"),
            Criterion(2, "(c) a blind discriminator, and that surviving pays under -log(1-D)"),
        ),
    )
)
