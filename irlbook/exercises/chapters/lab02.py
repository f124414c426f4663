"""The lab of chapter 2: PPO from a skeleton."""

from __future__ import annotations

import itertools

import gymnasium as gym
import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.chapters._actors import act, expect_actor
from irlbook.exercises.expect import (
    expect,
    expect_close,
    expect_length,
    expect_line,
    expect_picture,
    expect_points,
)
from irlbook.rl.advantages import gae

WITHOUT = ("irlbook.rl", "irlbook.imitation")

# 02L.1 --------------------------------------------------------------------------------------------


def check_advantages(answer, rng):
    shape = int(rng.integers(8, 14)), int(rng.integers(2, 5))
    rewards, values, after = rng.normal(size=(3, *shape)) + 1.0
    ends = rng.choice(3, size=shape, p=[0.6, 0.2, 0.2])
    ends[2, 0], ends[3, 0], ends[4, 0], ends[-1] = 1, 2, 0, 0
    stopped, cut = ends == 1, ends == 2
    never = np.zeros(shape, dtype=bool)
    discount, lam = float(rng.uniform(0.8, 0.95)), float(rng.uniform(0.7, 0.95))
    mistakes = {
        "a truncation counts as a termination": (stopped | cut, never),
        "a termination counts as a truncation": (never, stopped | cut),
        "the sum runs on over a truncation": (stopped, never),
        "no episode ever ends": (never, never),
    }
    wrong = {
        says: gae(rewards, values, after, *flags, discount=discount, lam=lam)
        for says, flags in mistakes.items()
    }
    numbers = (rewards, values, after, stopped, cut)
    want = gae(*numbers, discount=discount, lam=lam)
    on = [np.concatenate([flag[1:], never[:1]]) for flag in (stopped, cut)]
    wrong["the flags of the row after are used"] = gae(
        *numbers[:3], *on, discount=discount, lam=lam
    )
    wrong["the targets of the critic were returned, not the advantages"] = want + values
    wrong["lambda is missing"] = gae(*numbers, discount=discount, lam=1.0)
    wrong["the discount is missing"] = gae(*numbers, discount=1.0, lam=lam)
    wrong["only the TD errors were returned"] = gae(*numbers, discount=discount, lam=0.0)
    expect_close(
        answer(*numbers, discount, lam),
        want,
        property="the advantages are the sum (2.14), each episode's own",
        hint="take one environment and an episode of two steps, and do it by hand",
        mistakes=wrong,
    )
    expect_close(
        answer(*numbers[:3], stopped | cut, stopped | cut, discount, lam),
        gae(*numbers[:3], stopped | cut, never, discount=discount, lam=lam),
        property="a step that terminated as the clock ran out has terminated",
        hint="both flags can be set at once; which one speaks about the world?",
    )


register(
    Exercise(
        id="02L.1",
        title="Advantages of many environments",
        function="advantages_of",
        points=4,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can judge the actions of a batch that holds many episodes, ended either way.",
        hints=(
            "One number per environment is carried backwards through time.",
            "Two different factors can be zero: one before the next value, one before the sum.",
            "Go from the last row to the first; the TD error drops the next value after a "
            "termination, and the carried sum is dropped after either ending.",
        ),
        check=check_advantages,
        without=WITHOUT,
    )
)

# 02L.2 --------------------------------------------------------------------------------------------


def check_normalise(answer, rng):
    import torch

    x = torch.from_numpy(rng.normal(size=int(rng.integers(3, 8))) * rng.uniform(2, 9) + 5.0)
    centred = x - x.mean()
    expect_close(
        answer(x),
        centred / x.std(unbiased=False),
        property="the result has mean 0 and standard deviation 1",
        hint="subtract first, then divide; the population's deviation divides by B",
        mistakes={
            "the deviation divides by B - 1": centred / x.std(),
            "the mean was not subtracted": x / x.std(unbiased=False),
            "it was not divided": centred,
            "it was divided by the variance": centred / x.var(unbiased=False),
            "it was divided by the largest": centred / centred.abs().max(),
        },
        rtol=1e-4,
        atol=1e-6,
    )
    for same in (torch.full((4,), 2.5, dtype=torch.float64), torch.tensor([3.0])):
        expect_close(
            answer(same),
            torch.zeros_like(same),
            property="advantages that are all the same become zeros",
            hint="a spread of 0 must not stand in the denominator",
            atol=1e-6,
        )
    for size, number in itertools.product((7, 100, 512), (0.1, 3.3, 100.7)):
        expect_close(
            answer(torch.full((size,), number)),
            torch.zeros(size),
            property="advantages that are all the same become zeros, also where their mean is "
            "rounded in single precision",
            hint="a tiny number in the denominator does not help when the numerator is as tiny: "
            "ask first whether there is any difference",
            atol=1e-6,
        )


register(
    Exercise(
        id="02L.2",
        title="The same scale for every minibatch",
        function="normalise",
        points=2,
        difficulty=1,
        minutes=10,
        importance=4,
        goal="You can normalise advantages, also those of a minibatch of one.",
        hints=(
            "What are the mean and the deviation of a minibatch that holds one sample?",
            "torch's `std` divides by B - 1 unless it is told otherwise.",
            "If all entries equal the first one, return zeros. Otherwise subtract the mean and "
            "divide by the root of the mean square.",
        ),
        check=check_normalise,
        without=WITHOUT,
    )
)

# 02L.3 --------------------------------------------------------------------------------------------


def check_policy_loss(answer, rng):
    import torch

    clip, size = float(rng.uniform(0.1, 0.3)), int(rng.integers(8, 14))
    ratio = np.exp(rng.choice([-0.8, -0.05, 0.05, 0.8], size=size))
    signs = np.resize([1.0, -1.0], size)
    ratio[:4] = np.exp([0.8, 0.8, -0.8, -0.8])  # each of the four corners of the clip
    advantage = signs * rng.uniform(0.5, 2.0, size=size)
    old = np.log(rng.uniform(0.2, 0.9, size=size))
    arguments = torch.from_numpy(old + np.log(ratio)), torch.from_numpy(old)
    inside = np.clip(ratio, 1 - clip, 1 + clip)
    plain, cut = ratio * advantage, inside * advantage
    got = answer(arguments[0].requires_grad_(), arguments[1], torch.from_numpy(advantage), clip)
    expect_close(
        got,
        -np.minimum(plain, cut).mean(),
        property="the loss is minus the mean of the smaller of two products (2.16)",
        hint="look at a good action that has become too likely, and at a bad one",
        mistakes={
            "the sign is turned: it would make good actions rarer": np.minimum(plain, cut).mean(),
            "the ratio is not clipped": -plain.mean(),
            "you clip always, also where the policy moved the wrong way": -cut.mean(),
            "you took the larger of the two": -np.maximum(plain, cut).mean(),
            "the ratio is upside down": -np.minimum(
                advantage / ratio, np.clip(1 / ratio, 1 - clip, 1 + clip) * advantage
            ).mean(),
            "it is a sum, not a mean": -np.minimum(plain, cut).sum(),
            "the ratio was clipped from above only": -np.minimum(
                plain, np.minimum(ratio, 1 + clip) * advantage
            ).mean(),
        },
    )
    expect(
        getattr(got, "requires_grad", False),
        property="gradients flow from the loss to `log_probs`",
        hint="stay in torch from `log_probs` to the loss: no `.item()`, `.detach()` or NumPy",
    )


register(
    Exercise(
        id="02L.3",
        title="The clipped loss",
        function="policy_loss",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can write the loss that keeps a policy near the one that played.",
        hints=(
            "There are two products per sample. When are they equal?",
            "The minimum is taken after each has been multiplied by the advantage.",
            "Exponentiate the difference of the log-probabilities, clamp a copy, multiply both by "
            "the advantages, take the smaller one of each pair, then the mean, then the sign.",
        ),
        check=check_policy_loss,
        without=WITHOUT,
    )
)

# 02L.4 --------------------------------------------------------------------------------------------


def check_value_targets(answer, rng):
    shape = int(rng.integers(4, 8)), int(rng.integers(2, 5))
    advantages, values = rng.normal(size=(2, *shape)) + 1.0
    valid = rng.random(shape) < 0.6
    valid[0, 0], valid[1, 0], valid[0, 1] = True, False, True
    want = (advantages + values)[valid]
    new = rng.normal(size=want.shape)
    hint = "return the pair (targets, loss)"
    targets, loss = expect_length(answer(advantages, values, valid, new), 2, hint=hint)
    expect_close(
        targets,
        want,
        what="`targets`",
        property="a target is the advantage plus the value that it was measured from",
        hint="an advantage says how much better than the value it went; undo the subtraction",
        mistakes={
            "the value is missing": advantages[valid],
            "the sign of the value is turned": (advantages - values)[valid],
            "the order is that of the environments, not of the steps": (advantages + values).T[
                valid.T
            ],
        },
    )
    expect_close(
        loss,
        np.mean((new - want) ** 2),
        what="the loss",
        property="the loss is the mean squared error of the valid steps",
        hint="by how many samples do you divide?",
        mistakes={
            "it is a sum": np.sum((new - want) ** 2),
            "it is half of it": np.mean((new - want) ** 2) / 2,
            "it is the root of it": np.sqrt(np.mean((new - want) ** 2)),
            "errors were not squared": np.mean(np.abs(new - want)),
            "you divided by all steps, valid or not": np.sum((new - want) ** 2) / valid.size,
        },
    )


register(
    Exercise(
        id="02L.4",
        title="What the critic learns from",
        function="value_targets_and_loss",
        points=2,
        difficulty=1,
        minutes=10,
        importance=4,
        goal="You can make targets for the critic, and leave out what nobody did.",
        hints=(
            "What is the critic's value plus the advantage an estimate of?",
            "Indexing an array with a boolean array of its shape gives a flat array.",
            "Add the two arrays, index with `valid`, and average the squares of the differences.",
        ),
        check=check_value_targets,
        without=WITHOUT,
    )
)

# 02L.5 --------------------------------------------------------------------------------------------

LAYERS = {"0": (64, 4), "2": (64, 64), "4": (2, 64)}
GOAL = 400.0


def returns_of(weights: dict[str, np.ndarray], seed: int, episodes: int = 100) -> np.ndarray:
    """Returns (episodes,) of the policy with these weights on CartPole-v1, actions drawn."""
    rng = np.random.default_rng(seed)
    env = gym.make_vec("CartPole-v1", episodes, "vector_entry_point")
    observation, _ = env.reset(seed=seed)
    returns, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while running.any():
        action = act(weights, LAYERS, observation, rng)
        observation, reward, terminated, truncated, _ = env.step(action)
        returns += reward * running
        running &= ~(terminated | truncated)
    env.close()
    return returns


TRIES = 2  # one training in some twenty ends in a dip: two in a row are no bad luck


def check_train(answer, rng):
    def short(seed):
        """Weights after two updates, in which every source of chance has had its say."""
        return expect_actor(answer(seed, None, 2), LAYERS)

    def same(one, other):
        return all(np.allclose(one[name], other[name], atol=1e-6) for name in one)

    seed = int(rng.integers(10_000))
    first = short(seed)
    expect(
        same(first, short(seed)),
        property="the same seed gives the same weights",
        hint="torch, NumPy and the environment each draw at random: which of them has no seed?",
    )
    expect(
        not same(first, short(seed + 1)),
        property="another seed gives other weights",
        hint="use the argument `seed`",
    )
    means = []
    for _ in range(TRIES):
        weights = expect_actor(answer(int(rng.integers(10_000))), LAYERS)
        means.append(returns_of(weights, int(rng.integers(10_000))).mean())
        if means[-1] >= GOAL:
            break
    expect(
        max(means) >= GOAL,
        property=f"the policy balances the pole: its mean return is at least {GOAL:g}",
        hint="draw the return of the episodes while it trains: does it rise at all? Then look for "
        "what the task warns of",
        detail=f"over 100 fresh episodes it is {' and '.join(f'{m:.0f}' for m in means)}, "
        "from seeds of its own",
    )


register(
    Exercise(
        id="02L.5",
        title="The loop",
        function="train",
        points=6,
        difficulty=4,
        minutes=50,
        importance=5,
        goal="You can put PPO together until it balances a pole.",
        hints=(
            "Four things happen in turn: play, judge, remember how likely the actions were, learn.",
            "Print the mean return of the last episodes at each update; it should leave 30 within "
            "twenty updates. If it does not, check that the loss falls when you step.",
            "Turn the valid steps into flat tensors once per batch; within it loop over passes and "
            "over `torch.from_numpy(rng.permutation(M)).split(512)`.",
        ),
        check=check_train,
        rounds=1,
        seconds=60.0,
        without=WITHOUT,
    )
)

# 02L.6 --------------------------------------------------------------------------------------------


def check_draw(answer, rng):
    size = int(rng.integers(40, 80))
    steps = np.cumsum(rng.integers(5, 50, size=size)).astype(float)
    returns = rng.uniform(8, 500, size=size)
    (panel,) = expect_picture(answer(steps, returns), hint="one pair of axes is enough").axes
    expect_points(
        panel,
        steps,
        returns,
        property="each episode is a point: its step from left to right, its return upwards",
        hint="which of the two arrays belongs on which axis?",
    )
    mean = np.convolve(returns, np.ones(20) / 20, mode="valid")
    expect_line(
        panel,
        steps[19:],
        mean,
        property="a line shows the mean of the last 20 episodes, from the 20th on",
        hint="the first mean is of episodes 1 to 20, and stands at the step of episode 20",
    )
    words = (panel.xlabel.lower(), panel.ylabel.lower())
    expect(
        "steps" in words[0] and "return" in words[1],
        property="the labels contain the words `steps` and `return`",
        hint="a label names the quantity, and its unit where it has one",
    )


register(
    Exercise(
        id="02L.6",
        title="A picture of learning",
        function="draw",
        kind="figure",
        points=3,
        difficulty=1,
        minutes=15,
        importance=4,
        goal="You can draw a learning curve that hides neither the trend nor the scatter.",
        hints=(
            "Points for the episodes, a line for the mean.",
            "`np.convolve` with `mode='valid'` gives the means of whole windows only.",
            "There are 19 means fewer than episodes: draw them against `steps[19:]`.",
        ),
        check=check_draw,
    )
)

# 02L.7 --------------------------------------------------------------------------------------------

register(
    Exercise(
        id="02L.7",
        title="What the picture shows",
        kind="written",
        points=6,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can explain a learning curve by the algorithm that made it.",
        hints=(
            "Describe before you explain: beginning, rise, end, and how wide the points scatter.",
            "Where in an episode do the last steps before the limit lie, as far as the pole knows?",
            "One run is one draw. What would vary if you ran it again?",
        ),
        rubric=(
            Criterion(2, "(a) describes start, rise, scatter and ceiling, with a cause for each"),
            Criterion(
                2,
                "(b) the critic's values come out too low, since the observation holds no clock; "
                "few steps are affected, at most one end in 500, so the picture need not show it "
                "(any visible effect that is predicted must come with its reason)",
            ),
            Criterion(2, "(c) names a real limit (one seed, a policy still learning) and a test"),
        ),
    )
)
