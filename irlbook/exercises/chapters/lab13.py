"""Lab of chapter 13: RLOO against a learned reward, from a skeleton."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_legend,
    expect_line,
    expect_picture,
    expect_type,
    expect_vertical_line,
)

BORROWED = ("irlbook.posttraining", "irlbook.training", "irlbook.tasks", "irlbook.rl")
GOLD = 1.1
KL = 8.0  # nats per response; the reference: 1.7 to 3.8
STEPS = 20
RATE = 1e-3  # of AdamW: no weight moves by more in the first step, and some by nearly as much

# --- 13L.1 --------------------------------------------------------------------------------------


def check_rloo_advantages(answer, rng):
    import torch

    prompts, k = int(rng.integers(2, 5)), int(rng.integers(3, 6))
    beta = float(rng.uniform(0.3, 0.8))
    rewards = rng.normal(size=(prompts, k)) + 3 * rng.normal(size=(prompts, 1))
    logps = -rng.uniform(10, 30, size=(prompts, k))
    base = logps - rng.normal(size=(prompts, k)) * 2 - 1
    kl = logps - base

    def advantage(net, mode="others"):
        want = np.empty_like(net)
        for p in range(prompts):
            for i in range(k):
                others = np.delete(net[p], i)
                baseline = {
                    "others": others.mean(),
                    "all": net[p].mean(),
                    "sum": net[p].sum() / (k - 1),
                    "batch": net.mean(),
                    "none": 0.0,
                }[mode]
                want[p, i] = net[p, i] - baseline
        return want

    net = rewards - beta * kl
    want = advantage(net)
    tensors = [torch.from_numpy(rewards), torch.from_numpy(logps), torch.from_numpy(base)]
    tensors[1].requires_grad_()
    got = answer(*tensors, beta)
    expect_close(
        got,
        want,
        property="an advantage is the reward minus beta times the response's log-ratio, compared "
        "with the mean of the other responses to the same prompt",
        hint="subtract the price first; then each response has a baseline that does not know it",
        mistakes={
            "there is no price for leaving the reference": advantage(rewards),
            "the price is added to the reward": advantage(rewards + beta * kl),
            "the price ignores beta": advantage(rewards - kl),
            "the price is the same for all responses of a prompt": lambda: advantage(
                rewards - beta * kl.mean(axis=1, keepdims=True)
            ),
            "the baseline knows no price: it is the mean of the bare rewards": net
            - (rewards.sum(axis=1, keepdims=True) - rewards) / (k - 1),
            "the price is never negative": advantage(rewards - beta * np.maximum(kl, 0)),
            "the baseline holds the response itself": advantage(net, "all"),
            "the baseline is the sum of all, also of the response itself, over k - 1": advantage(
                net, "sum"
            ),
            "the baseline mixes the prompts": advantage(net, "batch"),
            "there is no baseline": advantage(net, "none"),
            "the sign is turned": -want,
            "you divide by the standard deviation": want
            * (k - 1)
            / k
            / net.std(axis=1, keepdims=True, ddof=1),
        },
    )
    expect(
        not getattr(got, "requires_grad", False),
        property="advantages are plain numbers: no gradient flows through them",
        hint="the log-probabilities that come in carry a gradient; in the reward they are a "
        "measurement. What does torch call that?",
    )


register(
    Exercise(
        id="13L.1",
        title="Priced rewards, one left out",
        function="rloo_advantages",
        points=4,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can turn rewards and log-probabilities into the advantages of RLOO.",
        hints=(
            "The log-ratio log pi - log pi_ref of a response that was drawn from pi estimates the "
            "KL divergence from the reference.",
            "The sum of the others is the sum of all minus one's own.",
            "Detach the log-probabilities before anything else.",
        ),
        check=check_rloo_advantages,
        without=BORROWED,
    )
)


# --- 13L.2 --------------------------------------------------------------------------------------


def check_rloo_loss(answer, rng):
    import torch

    prompts, k = int(rng.integers(2, 5)), int(rng.integers(3, 6))
    logps = -rng.uniform(1, 3, size=(prompts, k))
    advantages = rng.normal(size=(prompts, k))
    advantages -= advantages.mean(axis=1, keepdims=True)
    want = -(advantages * logps).mean()
    given = torch.from_numpy(logps).requires_grad_()
    got = answer(given, torch.from_numpy(advantages))
    expect_close(
        got,
        want,
        property="the loss is minus the mean of advantage times log-probability",
        hint="its gradient must be minus the policy gradient, since an optimiser goes downhill",
        mistakes={
            "the sign is turned: this would make the reward smaller": -want,
            "you summed and did not take the mean": want * prompts * k,
            "you summed over the responses of a prompt": want * k,
            "the advantages alone are averaged": -advantages.mean(),
            "the log-probabilities alone are averaged": -logps.mean(),
            "you took probabilities and not their logarithm": -(advantages * np.exp(logps)).mean(),
            "advantages and log-probabilities are averaged before they are multiplied": -(
                advantages.mean() * logps.mean()
            ),
            "the advantages lost their sign": -(np.abs(advantages) * logps).mean(),
        },
    )
    expect(
        getattr(got, "requires_grad", False),
        property="the gradient flows through the log-probabilities",
        hint="here nothing is detached, and the result stays a tensor",
    )


register(
    Exercise(
        id="13L.2",
        title="A loss whose gradient is the policy gradient",
        function="rloo_loss",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can write the surrogate loss of REINFORCE.",
        hints=(
            "The gradient wanted is the mean of A times the gradient of log pi.",
            "An optimiser makes a loss smaller.",
            "One product, one mean, one sign.",
        ),
        check=check_rloo_loss,
        without=BORROWED,
    )
)


# --- 13L.3 --------------------------------------------------------------------------------------


def check_align(answer, rng):
    import torch

    from irlbook.exercises.chapters import _language as language

    start, seed = language.draw_start(rng), int(rng.integers(1000))
    model = language.book(start)[0]
    base = model.state_dict()
    reward, prompts = language.learned_reward(start), language.prompts()
    hint = 'return {"weights": policy.state_dict(), "reward": [...], "kl": [...]}'

    def run(beta, steps, seed, reward=reward):
        got = expect_type(answer(start, reward, prompts, beta, steps, seed), dict, hint=hint)
        expect(
            set(got) == {"weights", "reward", "kl"},
            property="the result has the keys 'weights', 'reward' and 'kl'",
            hint=hint,
        )
        weights = language.expect_weights(got["weights"], model, what="`weights`")
        history = [
            as_array(got[name], (steps,), what=f"`{name}`", hint="one number for each step")
            for name in ("reward", "kl")
        ]
        return weights, *history

    def same(one, other):
        return all(torch.allclose(one[k], other[k], atol=1e-5) for k in base)

    weights, said, kl = run(0.1, 2, seed)
    expect(
        not same(weights, base),
        property="a step changes the policy",
        hint="`loss.backward()`, then `optimizer.step()`",
    )
    # What follows compares runs with one seed.
    expect(
        same(weights, run(0.1, 2, seed)[0]),
        property="the same seed gives the same weights",
        hint="one generator with this seed draws the prompts and the responses",
    )
    usual, prompt_to_prompt, lift = language.learned_reward_of_start(start)
    raised = {"body": reward["body"], "head": reward["head"] + 10 * lift}
    one_step, said_of_raised, _ = run(0.1, 1, seed, raised)
    moved = max(float((one_step[k] - base[k]).abs().max()) for k in base)
    expect(
        moved < 20 * RATE,
        property="the policy starts from the model with the number `start`",
        hint="one small step of AdamW changes no weight by much: where did yours begin?",
    )
    expect(
        abs(kl[0]) < 1e-3,
        property="in the first step the log-ratio is 0, because policy and reference are the same",
        hint="which of the two models is the reference, and is it scored on the same responses?",
    )
    expect(
        abs(kl[1]) > 1e-4,
        property="after a step the policy differs from the reference",
        hint="the reference must stay as it was when the policy moves: is it another model, or "
        "another name for the same one?",
    )
    expect(
        0.9 * RATE < moved < 1.1 * RATE,
        property=f"the optimiser is AdamW with a learning rate of {RATE:g}",
        hint="the first step of AdamW moves a weight by its learning rate at most, whatever the "
        "size of the gradient",
        detail=f"the first step moved a weight by {moved:.2g}",
    )
    # Raised by about 10, a mean is by about 10: a sum, or a number of another kind, is not.
    expect(
        abs(said[0] - usual) < 1.5 * prompt_to_prompt and 5 < said_of_raised[0] - said[0] < 15,
        property="`reward` holds the mean learned reward of the responses of each step",
        hint="what `RewardReader` returns, averaged over the step's responses; the gold reward is "
        "not used in training at all",
        detail=f"in the first step it is {said[0]:.2f}; the grader's samples from the start "
        f"have {usual:.2f}",
    )
    # The price is 0 in the first step, so another one draws the same responses in the second.
    at_high_price, said_there, _ = run(5.0, 2, seed)
    expect(
        np.allclose(said_there, said, rtol=1e-3, atol=1e-3),
        property="`reward` is the learned reward as it is, with no price subtracted",
        hint="log the reward before the price of the log-ratio comes off",
    )
    expect(
        not same(weights, at_high_price),
        property="the price is the argument `beta`",
        hint="another beta must lead to other weights, from the second step on",
    )
    expect(
        not same(weights, run(0.1, 2, seed + 1)[0]),
        property="another seed draws other prompts and responses",
        hint="use the argument `seed`",
    )
    trained = language.loaded(run(0.1, STEPS, seed)[0], start)
    found = language.measure(trained, start, rng)
    # KL first: a policy that has run away may have lost its gold, too.
    expect(
        found.kl <= KL,
        property=f"the policy is at most {KL:g} nats per response away from where it started",
        hint="print reward and KL of each step. If the reward falls, look at the sign; if it "
        "rises, what does the price of the log-ratio do, and is it subtracted?",
        detail=f"the grader measured {found.kl:.1f} nats",
    )
    expect(
        found.gold >= GOLD,
        property=f"the policy's responses have a mean gold reward of at least {GOLD}",
        hint="print reward and KL of each step. If the reward does not rise, look at the sign and "
        "at the baseline; if the KL runs away, look at the price",
        detail=f"the grader measured {found.gold:.2f}",
    )


register(
    Exercise(
        id="13L.3",
        title="The whole: align the model",
        function="align",
        points=5,
        difficulty=4,
        minutes=45,
        importance=5,
        goal="You can write RLHF's last stage: sample, score, compare, step.",
        hints=(
            "A step has five parts: draw prompts, draw responses, score them with the reward model "
            "and with the reference, compute advantages, take a step.",
            "`copy.deepcopy` makes a second model. Reward model and reference are only measured: "
            "`torch.no_grad()`.",
            "`response_logps(policy, groups)` is scored *with* gradient; `.view(-1, K)` gives a "
            "row to each prompt.",
        ),
        check=check_align,
        rounds=1,
        seconds=90.0,
        without=BORROWED,
    )
)


# --- 13L.4 --------------------------------------------------------------------------------------


def check_draw_price(answer, rng):
    n = int(rng.integers(5, 9))
    order = rng.permutation(n)
    kl = np.sort(rng.uniform(0.2, 30, size=n))
    reward = np.sort(rng.uniform(0, 4, size=n))
    gold = rng.uniform(-1, 1, size=n)
    best = int(rng.integers(1, n - 1))
    gold[best] = 1.6
    (panel,) = expect_picture(
        answer(kl[order], reward[order], gold[order]), hint="one pair of axes is enough"
    ).axes
    for name, y in (("learned", reward), ("gold", gold)):
        expect_line(
            panel,
            kl,
            y,
            property=f"one line shows the {name} reward against the KL, from small to large KL",
            hint="the runs do not come sorted: what does a line through unsorted points look like?",
        )
    expect_legend(
        panel,
        {"learned": reward, "gold": gold},
        property="a legend names both rewards, differently and rightly",
    )
    expect_vertical_line(
        panel,
        kl[best],
        property="a vertical line marks the KL at which the gold reward is largest",
        hint="which of the two rewards do we care for?",
    )
    expect(
        "nat" in panel.xlabel.lower(),
        property="the label of the x axis gives the unit of the KL",
        hint="it is a mean of natural logarithms, one for each response: nats per response",
    )


register(
    Exercise(
        id="13L.4",
        title="The picture: what the reward model does not see",
        kind="figure",
        function="draw_price",
        points=2,
        difficulty=1,
        minutes=15,
        importance=5,
        goal="You can draw what an optimiser was told against what was wanted.",
        hints=(
            "`np.argsort(kl)` gives the order.",
            "Two calls of `plot`, one of `axvline`.",
            "Both axes need a label, and KL has a unit.",
        ),
        check=check_draw_price,
    )
)


# --- 13L.5 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="13L.5",
        title="Explain your picture",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can explain over-optimisation of a learned reward, and what the KL price does.",
        hints=(
            "On which responses was the reward model trained, and which does the policy write now?",
            "Which run has the largest learned reward, and would you hand it out?",
            "A baseline that does not know the response changes the variance of an estimate. Does "
            "it change its mean?",
        ),
        rubric=(
            Criterion(
                1,
                "reads the picture as it is: the learned reward rises with KL, and the gold reward "
                "gains less or falls at the far end; if it does not fall in this picture, the "
                "answer says so",
            ),
            Criterion(
                1,
                "why they part: the reward model is right near its training data; the optimiser "
                "looks for where it is wrong, and finds it farther away (over-optimisation, "
                "Goodhart)",
            ),
            Criterion(
                1,
                "what the price does: with it the optimum is the reference reweighed by "
                "exp(reward / beta); a small beta allows more distance; beta is chosen by gold or "
                "human judgement, not by the learned reward",
            ),
            Criterion(
                1,
                "without a baseline the gradient is still unbiased, but noisier unless the "
                "reward's zero is a lucky one; no curve has to show it, so it is found by a test "
                "of the function (or by gradients that are long from the first step)",
            ),
            Criterion(
                1,
                "if the reference is the policy itself, the log-ratio is always 0, so there is no "
                "price; a logged KL of exactly 0 in every step is the symptom",
            ),
        ),
    )
)
