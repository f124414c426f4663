"""The lab of chapter 8: GAIL where a fall ends nothing."""

from __future__ import annotations

import numpy as np

from irlbook.envs.cartpole import FixedHorizonCartPoleVector
from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.chapters._actors import act, expect_actor
from irlbook.exercises.expect import (
    expect,
    expect_close,
    expect_line,
    expect_picture,
)
from irlbook.rl.advantages import gae

WITHOUT = ("irlbook.imitation", "irlbook.rl")

# 08L.1 --------------------------------------------------------------------------------------------


def softplus(x):
    """log(1 + exp x) without overflow."""
    return np.logaddexp(0.0, x)


def check_loss(answer, rng):
    import torch

    expert, policy = rng.normal(size=int(rng.integers(3, 6))), rng.normal(size=12) - 0.5
    ours, theirs = softplus(-expert), softplus(policy)
    tensors = [torch.from_numpy(scores).requires_grad_() for scores in (expert, policy)]
    got = answer(*tensors)
    expect_close(
        got,
        ours.mean() + theirs.mean(),
        property="the loss is (8.4), from the scores of both kinds of pairs",
        hint="D is the sigmoid of the score; which of the two is it to call the expert's?",
        mistakes={
            "the labels are swapped: D would be the chance that the pair is the policy's": (
                softplus(expert).mean() + softplus(-policy).mean()
            ),
            "the sign is turned": -ours.mean() - theirs.mean(),
            "all pairs are averaged together, so the larger batch counts more": np.concatenate(
                [ours, theirs]
            ).mean(),
            "it is half of it": (ours.mean() + theirs.mean()) / 2,
            "they are sums, not means": ours.sum() + theirs.sum(),
            "the policy's pairs are missing": ours.mean(),
            "the expert's pairs are missing": theirs.mean(),
        },
    )
    expect(
        getattr(got, "requires_grad", False),
        property="gradients flow from the loss to the scores",
        hint="stay in torch from the scores to the loss: no `.item()`, `.detach()` or NumPy",
    )
    far = torch.tensor([-300.0, 300.0], dtype=torch.float64)
    expect_close(
        answer(far, far),
        300.0,
        property="scores of 300 give a finite loss",
        hint="log(1 - sigmoid(x)) rounds to log 0; write -log D as one function of the score",
    )


register(
    Exercise(
        id="08L.1",
        title="Tell the two apart",
        function="discriminator_loss",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can train a classifier on two batches of different size, safely.",
        hints=(
            "Write -log D and -log(1 - D) as functions of the score.",
            "-log sigmoid(x) = log(1 + exp(-x)); torch has log(1 + exp x) under another name.",
            "`softplus` of minus the expert's scores, and of the policy's: two means, one sum.",
        ),
        check=check_loss,
        without=WITHOUT,
    )
)

# 08L.2 --------------------------------------------------------------------------------------------


def check_reward(answer, rng):
    import torch

    scores = 2 * rng.normal(size=int(rng.integers(5, 9)))
    d = 1 / (1 + np.exp(-scores))
    got = answer(torch.from_numpy(scores).requires_grad_())
    expect_close(
        got,
        softplus(scores),
        property="the reward is -log(1 - D)",
        hint="what is 1 - D, if D is the sigmoid of the score?",
        mistakes={
            "it is log(1 - D): the policy would flee the expert": -softplus(scores),
            "it is log D: each step costs something": np.log(d),
            "it is -log D, a reward for looking like oneself": -np.log(d),
            "it is D itself": d,
            "it is the score, log D - log(1 - D)": scores,
        },
    )
    expect(
        not getattr(got, "requires_grad", False),
        property="the reward is a number: no gradient flows through it",
        hint="the policy learns from samples; detach the scores, or compute without gradients",
    )
    expect_close(
        answer(torch.tensor([-300.0, 300.0], dtype=torch.float64)),
        [0.0, 300.0],
        property="scores of 300 give a finite reward",
        hint="1 - sigmoid(300) rounds to 0; find the function that torch has for log(1 + exp x)",
    )


register(
    Exercise(
        id="08L.2",
        title="What the policy is paid",
        function="imitation_reward",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can turn a discriminator into a reward, with the right sign.",
        hints=(
            "Which pairs should pay more: those with a high or with a low score?",
            "1 - sigmoid(x) = sigmoid(-x).",
            "It is one call of the function that you needed in 08L.1, on scores without gradient.",
        ),
        check=check_reward,
        without=WITHOUT,
    )
)

# 08L.3 --------------------------------------------------------------------------------------------


def check_advantages(answer, rng):
    steps, envs = int(rng.integers(5, 9)), int(rng.integers(2, 5))
    rewards, values = rng.normal(size=(steps, envs)) + 1, rng.normal(size=(steps + 1, envs)) + 2
    discount, lam = float(rng.uniform(0.8, 0.95)), float(rng.uniform(0.7, 0.95))
    never = np.zeros((steps, envs), dtype=bool)

    def estimate(values, discount, lam, following=None):
        after = values[1:] if following is None else following
        return gae(rewards, values[:-1], after, never, never, discount=discount, lam=lam)

    want = estimate(values, discount, lam)
    closed = values.copy()
    closed[-1] = 0
    expect_close(
        answer(rewards, values, discount, lam),
        want,
        property="the advantages are those of episodes that the clock cut off",
        hint="take an episode of two steps and do it by hand; what follows after the last step?",
        mistakes={
            "the last step is taken for the end of the world: its next value was dropped": (
                estimate(closed, discount, lam)
            ),
            "lambda is missing": estimate(values, discount, 1.0),
            "the discount is missing": estimate(values, 1.0, lam),
            "only the TD errors were returned": estimate(values, discount, 0.0),
            "the targets of the critic were returned": want + values[:-1],
            "the next value is that of the same step": estimate(
                values, discount, lam, following=values[:-1]
            ),
            "the sum runs forwards in time": lambda: _forwards(rewards, values, discount, lam),
        },
    )


def _forwards(rewards, values, discount, lam):
    deltas = rewards + discount * values[1:] - values[:-1]
    for t in range(1, len(deltas)):
        deltas[t] += discount * lam * deltas[t - 1]
    return deltas


register(
    Exercise(
        id="08L.3",
        title="When only the clock ends an episode",
        function="advantages_of",
        points=2,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can judge actions in episodes that were cut off and have not ended.",
        hints=(
            "`values` has one row more than `rewards`. What is the last row for?",
            "A TD error is the reward, plus the discounted next value, less the value.",
            "Carry one number per environment from the last step to the first, times discount and "
            "lambda.",
        ),
        check=check_advantages,
        without=WITHOUT,
    )
)

# 08L.4 --------------------------------------------------------------------------------------------

LAYERS = {"0": (32, 4), "2": (32, 32), "4": (2, 32)}
UNITS = np.array([1.0, 1.0, 0.2, 1.0])
STEPS = 200
GOAL = 150.0
TRIES = 2  # an adversarial game may end in a swing; two in a row are no bad luck


def upright_steps(weights: dict[str, np.ndarray], seed: int, episodes: int = 50) -> np.ndarray:
    """True returns (episodes,) of the policy with these weights, actions drawn."""
    rng = np.random.default_rng(seed)
    env = FixedHorizonCartPoleVector(episodes, STEPS)
    observation, _ = env.reset(seed=seed)
    returns = np.zeros(episodes)
    for _ in range(STEPS):
        action = act(weights, LAYERS, np.clip(observation / UNITS, -5, 5), rng)
        observation, reward, *_ = env.step(action)
        returns += reward
    env.close()
    return returns


def check_train(answer, rng):
    from irlbook.imitation.fixed_horizon_study import demonstration  # brings torch

    means = []
    for _ in range(TRIES):
        seen, done = demonstration(int(rng.integers(10_000)))
        weights = expect_actor(answer(seen, done, int(rng.integers(10_000))), LAYERS)
        means.append(upright_steps(weights, int(rng.integers(10_000))).mean())
        if means[-1] >= GOAL:
            break
    expect(
        max(means) >= GOAL,
        property=f"the policy imitates: the pole is upright for at least {GOAL:g} of {STEPS} steps",
        hint="draw the loss of D, its accuracy and the upright steps while it trains. Does D win "
        "at first? Does the policy then catch up? Check the signs of loss and reward, and which "
        "pairs D is given",
        detail=f"with demonstrations and seeds of its own it is for "
        f"{' and '.join(f'{m:.0f}' for m in means)}",
    )


register(
    Exercise(
        id="08L.4",
        title="The game",
        function="train",
        points=6,
        difficulty=4,
        minutes=45,
        importance=5,
        goal="You can put two learners against each other until one has learned to imitate.",
        hints=(
            "Four things happen in each round: play, tell apart, pay, improve.",
            "Write down the accuracy of D in each round. If it stays at 1/2 from the start, D does "
            "not learn; if it rises and never falls, the policy does not.",
            "Rows of the batch are `rows_of(observations[:-1].reshape(-1, 4), "
            "actions.reshape(-1))`; scores go back to (STEPS, ENVS) by `reshape`.",
        ),
        check=check_train,
        rounds=1,
        seconds=60.0,
        without=WITHOUT,
    )
)

# 08L.5 --------------------------------------------------------------------------------------------


def check_draw(answer, rng):
    rounds = int(rng.integers(12, 20))
    loss, accuracy = rng.uniform(0.5, 1.4, size=rounds), rng.uniform(0.5, 1.0, size=rounds)
    standing = rng.uniform(10, 200, size=rounds)
    hint = "two panels: `fig, (left, right) = plt.subplots(1, 2)`"
    left, right = expect_picture(answer(loss, accuracy, standing), 2, hint=hint).axes
    numbers = np.arange(1, rounds + 1)
    expect_line(
        left,
        numbers,
        loss,
        property="the left panel shows the loss of D over the rounds, counted from 1",
        hint="`range(1, len(loss) + 1)` goes from left to right",
    )
    levels = [line.y for line in left.lines if len(line.y) > 1 and np.ptp(line.y) == 0]
    expect(
        any(np.allclose(level, 2 * np.log(2)) for level in levels),
        property="a horizontal line shows the loss of a D that cannot tell the two apart",
        hint="which loss has D = 1/2 by (8.4)? Draw it with `axhline`",
    )
    expect_line(
        right,
        numbers,
        standing,
        property="the right panel shows the upright steps over the rounds, counted from 1",
        hint="the same rounds as on the left",
    )
    words = [panel.ylabel.lower() for panel in (left, right)]
    expect(
        "loss" in words[0] and "upright" in words[1],
        property="the labels say what is shown: the loss, and upright steps",
        hint="a label names the quantity, and its unit where it has one",
    )


register(
    Exercise(
        id="08L.5",
        title="A picture of the game",
        function="draw",
        kind="figure",
        points=3,
        difficulty=1,
        minutes=15,
        importance=4,
        goal="You can show both players of a game in one picture.",
        hints=(
            "Two panels, one quantity on each axis.",
            "D = 1/2 everywhere has the loss -log(1/2) - log(1/2).",
            "`left.axhline(2 * np.log(2))`, and two calls of `plot` against `range(1, ...)`.",
        ),
        check=check_draw,
    )
)

# 08L.6 --------------------------------------------------------------------------------------------

register(
    Exercise(
        id="08L.6",
        title="What the picture shows, and what a blind D would do",
        kind="written",
        points=6,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can tell imitation from a reward that pays for anything.",
        hints=(
            "Describe before you explain: who wins at first, and who at the end?",
            "What does each step pay if D = 1/2, and how many steps has an episode?",
            "Which pairs has D never been tested on?",
        ),
        rubric=(
            Criterion(
                2,
                "(a) the loss falls first (D wins) and then rises towards 2 log 2 as the upright "
                "steps rise (the policy wins); a rising loss is no failure of D",
            ),
            Criterion(
                2,
                "(b) log 2 per step: on CartPole-v1 a longer episode earns more, so the blind "
                "reward teaches balancing; here every episode earns 200 log 2: it teaches nothing",
            ),
            Criterion(
                2,
                "(c) the loss of a D that cannot learn is 2 log 2, too; names a test, such as "
                "the curve before it or a control with a blind D or another D trained afresh",
            ),
        ),
    )
)
