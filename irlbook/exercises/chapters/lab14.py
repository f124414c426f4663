"""Lab of chapter 14: direct preference optimisation, from a skeleton."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_length,
    expect_line,
    expect_picture,
    expect_type,
)

BORROWED = ("irlbook.posttraining", "irlbook.training", "irlbook.tasks", "irlbook.preferences")
GOLD = 1.2  # the reference, on 20 seeds: 1.50 to 1.88
KL = 7.0  # nats per response; the reference: 1.2 to 4.1
PAIRS, EPOCHS, BETA = 800, 2, 0.5
BATCH, RATE = 32, 5e-4
OTHER_BETA = 4.0  # of the short run that is computed beside the answer's


def _case(rng):
    """(policy, reference, lengths): log-probabilities of tokens, one response after another."""
    pairs = int(rng.integers(3, 6))
    lengths = rng.integers(1, 9, size=2 * pairs)
    lengths[:2] = rng.permutation([2, 8])  # a pair of very different lengths
    n = int(lengths.sum())
    return -rng.uniform(0.1, 2.0, size=n), -rng.uniform(0.1, 2.0, size=n), lengths


def _sums(values, lengths):
    ends = lengths.cumsum()
    return np.array([values[e - n : e].sum() for e, n in zip(ends, lengths, strict=True)])


# --- 14L.1 --------------------------------------------------------------------------------------


def check_dpo_loss(answer, rng):
    import torch

    policy, reference, lengths = _case(rng)
    beta = float(rng.uniform(0.2, 0.9))
    ratio = _sums(policy - reference, lengths)

    def softplus(x):
        return np.logaddexp(0, x)

    def loss(h=ratio, beta=beta, how=lambda x: x):
        return softplus(-beta * how(h[0::2] - h[1::2])).mean()

    half = len(lengths) // 2
    want = loss()
    given = [
        torch.from_numpy(policy).requires_grad_(),
        torch.from_numpy(reference),
        torch.from_numpy(lengths),
    ]
    got = answer(*given, beta)
    expect_close(
        got,
        want,
        property="the loss is the mean over pairs of -log sigmoid(beta times the difference of "
        "the two responses' log-ratios), each log-ratio summed over its tokens",
        hint="take a pair of one token each by hand, then one of two tokens and eight",
        mistakes={
            "each log-ratio is averaged over its tokens, not summed": lambda: loss(ratio / lengths),
            "the reference is missing": lambda: loss(_sums(policy, lengths)),
            "beta is missing": lambda: loss(beta=1.0),
            "chosen and rejected have changed places": lambda: loss(-ratio),
            "policy and reference have changed places": lambda: loss(-ratio),
            "the first half of the responses counts as chosen": lambda: softplus(
                -beta * (ratio[:half] - ratio[half:])
            ).mean(),
            "the last token of each response is left out": lambda: loss(
                ratio - (policy - reference)[lengths.cumsum() - 1]
            ),
            "beta stands outside of the sigmoid": lambda: beta * loss(beta=1.0),
            "you summed over pairs and did not take the mean": want * half,
            "the sign is turned": -want,
            "the logarithm is missing": lambda: (
                -np.mean(1 / (1 + np.exp(-beta * (ratio[0::2] - ratio[1::2]))))
            ),
            "only the chosen response counts": lambda: softplus(-beta * ratio[0::2]).mean(),
        },
    )
    expect(
        getattr(got, "requires_grad", False),
        property="the gradient flows through the policy's log-probabilities",
        hint="nothing of the policy is detached, and the result stays a tensor",
    )
    at_start = answer(torch.from_numpy(policy), torch.from_numpy(policy), given[2], beta)
    expect_close(
        at_start,
        np.log(2),
        property="when the policy is the reference, the loss is log 2",
        hint="all log-ratios are 0 then",
    )
    frozen = answer(
        torch.from_numpy(policy), torch.from_numpy(reference).requires_grad_(), given[2], beta
    )
    expect(
        not getattr(frozen, "requires_grad", False),
        property="no gradient flows through the reference's log-probabilities",
        hint="the reference is a measurement: detach it, even if somebody forgot to freeze it",
    )
    far = answer(torch.from_numpy(400 * policy), torch.from_numpy(reference), given[2], 1.0)
    expect_close(
        far,
        loss(_sums(400 * policy - reference, lengths), 1.0),
        property="the loss stays finite for large differences",
        hint="torch has a function for the logarithm of a sigmoid",
    )


register(
    Exercise(
        id="14L.1",
        title="The loss of DPO, from tokens",
        function="dpo_loss",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can compute DPO's loss from the log-probabilities of tokens in a ragged batch.",
        hints=(
            "A response's log-probability is the *sum* over its tokens: it is the logarithm of a "
            "product.",
            "`torch.split(values, lengths.tolist())` cuts the long vector into responses.",
            "Chosen responses are numbers 0, 2, 4, ...: `h[0::2]` and `h[1::2]`.",
        ),
        check=check_dpo_loss,
        without=BORROWED,
    )
)


# --- 14L.2 --------------------------------------------------------------------------------------


def check_displacement(answer, rng):
    import torch

    d = np.zeros(1)
    while np.sign(d).sum() == 0:  # a share of one half would be the same counted backwards
        policy, reference, lengths = _case(rng)
        ends = lengths.cumsum()
        tie = slice(ends[1], ends[3])  # the second pair ties: it counts as half
        policy[tie] = reference[tie]
        ratio = _sums(policy - reference, lengths)
        d = ratio[0::2] - ratio[1::2]
    got = expect_length(
        answer(torch.from_numpy(policy), torch.from_numpy(reference), torch.from_numpy(lengths)),
        3,
        hint="return three numbers: chosen, rejected, right",
    )
    each = _sums(policy - reference, lengths) / lengths
    for name, value, want, mean in (
        ("chosen", got[0], ratio[0::2].mean(), each[0::2].mean()),
        ("rejected", got[1], ratio[1::2].mean(), each[1::2].mean()),
    ):
        expect_close(
            value,
            want,
            what=f"`{name}`",
            property=f"`{name}` is the mean log-ratio of the {name} responses, summed over tokens",
            hint="how much more likely have these responses become, in nats per response?",
            mistakes={
                "each response is averaged over its tokens": mean,
                "policy and reference have changed places": -want,
                "the other responses are meant": ratio[1::2].mean()
                if name == "chosen"
                else ratio[0::2].mean(),
                "the reference is missing": _sums(policy, lengths)[name == "rejected" :: 2].mean(),
                "it is a sum over pairs": want * len(d),
            },
        )
    expect_close(
        got[2],
        (np.sign(d) + 1).mean() / 2,
        what="`right`",
        property="`right` is the share of pairs whose chosen response has the larger log-ratio, "
        "and a tie counts as half",
        hint="before the first step all log-ratios are 0: the share must be one half then",
        mistakes={
            "a tie counts as wrong": (d > 0).mean(),
            "a tie counts as right": (d >= 0).mean(),
            "the pairs are counted the wrong way round": (1 - np.sign(d)).mean() / 2,
            "log-probabilities are compared, not log-ratios": (
                np.sign(np.diff(-_sums(policy, lengths).reshape(-1, 2))) + 1
            ).mean()
            / 2,
        },
    )


register(
    Exercise(
        id="14L.2",
        title="What the loss does not show",
        function="displacement",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can log where DPO takes the probability of both responses, not only their gap.",
        hints=(
            "All three numbers come from one vector: the log-ratio of each response.",
            "`torch.sign` knows three cases.",
            "The sign of a difference is -1, 0 or 1. Which linear map makes 0, 1/2 and 1 of these?",
        ),
        check=check_displacement,
        without=BORROWED,
    )
)


# --- 14L.3 --------------------------------------------------------------------------------------


def _full_steps(start, pairs, steps, beta, rate=RATE):
    """(steps, 3) of `displacement` before each step, if each step takes all pairs."""
    import copy

    import torch

    from irlbook.exercises.chapters import _language as language
    from irlbook.lm.logprobs import sequence_logps, token_logps
    from irlbook.lm.trees import collate

    reference = language.book(start)[0]
    policy = copy.deepcopy(reference).requires_grad_(True)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=rate, weight_decay=0.0)
    tree = collate([(x, [better, worse]) for x, better, worse in pairs])
    with torch.no_grad():
        base = sequence_logps(token_logps(reference, tree), tree.lengths)
    rows = []
    for _ in range(steps):
        h = (sequence_logps(token_logps(policy, tree), tree.lengths) - base).view(-1, 2)
        gap = h[:, 0] - h[:, 1]
        right = (torch.sign(gap.detach()) + 1).mean() / 2
        rows.append([*h.detach().mean(dim=0).tolist(), float(right)])
        optimizer.zero_grad()
        torch.nn.functional.softplus(-beta * gap).mean().backward()
        optimizer.step()
    return np.array(rows)


def check_train_dpo(answer, rng):
    import torch

    from irlbook.exercises.chapters import _language as language

    start, seed = language.draw_start(rng), int(rng.integers(1000))
    model = language.book(start)[0]
    base = model.state_dict()
    pairs = language.comparisons(PAIRS, rng)
    hint = 'return {"weights": policy.state_dict(), "history": [...]}'

    def run(pairs, epochs, seed, beta=BETA):
        got = expect_type(answer(start, pairs, beta, epochs, seed), dict, hint=hint)
        expect(
            set(got) == {"weights", "history"},
            property="the result has the keys 'weights' and 'history'",
            hint=hint,
        )
        steps = epochs * -(-len(pairs) // BATCH)
        history = as_array(
            got["history"],
            (steps, 3),
            what="`history`",
            hint="three numbers for each step, also for a last batch that is not full: those of "
            "`displacement`",
        )
        return language.expect_weights(got["weights"], model, what="`weights`"), history

    def same(one, other):
        return all(torch.allclose(one[k], other[k], atol=1e-5) for k in base)

    few = pairs[:40]
    weights, history = run(few, 1, seed)
    expect(
        not same(weights, base),
        property="a step changes the policy",
        hint="`loss.backward()`, then `optimizer.step()`",
    )
    moved = max(float((weights[k] - base[k]).abs().max()) for k in base)
    expect(
        moved < 0.01,
        property="the policy starts from the model with the number `start`",
        hint="two small steps of AdamW change no weight by much: where did yours begin?",
    )
    expect(
        np.allclose(history[0], [0, 0, 0.5], atol=1e-3),
        property="in the first step all log-ratios are 0: policy and reference are the same",
        hint="which model is the reference, and is it scored on the same responses?",
    )
    expect(
        np.abs(history[1, :2]).max() > 1e-4,
        property="after a step the log-ratios are not 0",
        hint="the reference must stay as it was when the policy moves: is it another model, or "
        "another name for the same one?",
    )
    expect(
        same(weights, run(few, 1, seed)[0]),
        property="the same seed gives the same weights",
        hint="the order of the pairs is all that is random",
    )
    expect(
        not same(weights, run(few, 1, seed + 1)[0]),
        property="the pairs are shuffled, and another seed shuffles them differently",
        hint="`torch.randperm(n, generator=...)`",
    )
    # With one batch of pairs their order does not matter, so the steps can be computed here.
    one_batch = pairs[:BATCH]
    _, history = run(one_batch, 3, seed, OTHER_BETA)
    want = _full_steps(start, one_batch, 3, OTHER_BETA)

    def near(want):
        return np.allclose(history[:, :2], want[:, :2], rtol=0.01, atol=0.005)

    detail = ""
    if near(_full_steps(start, one_batch, 3, BETA)):
        detail = "it looks as if beta is fixed"
    expect(
        near(want),
        property=f"with {BATCH} pairs each epoch is one step on all of them, by AdamW with a "
        f"learning rate of {RATE:g}, and the history shows where the log-ratios stand before it",
        hint="does each epoch take every pair once? Which learning rate, and which beta? Is the "
        "history computed on the step's own batch, before the step?",
        detail=detail,
    )
    trained = language.loaded(run(pairs, EPOCHS, seed)[0], start)
    found = language.measure(trained, start, rng)
    # KL first: a policy that has run away may have lost its gold, too.
    expect(
        found.kl <= KL,
        property=f"the policy is at most {KL:g} nats per response away from where it started",
        hint="which part of DPO's loss keeps the policy near the reference, and how strongly?",
        detail=f"the grader measured {found.kl:.1f} nats",
    )
    expect(
        found.gold >= GOLD,
        property=f"the policy's responses have a mean gold reward of at least {GOLD}",
        hint="print the three numbers of `displacement` in each step: the share of right pairs "
        "should rise, and neither log-ratio should run away",
        detail=f"the grader measured {found.gold:.2f}",
    )


register(
    Exercise(
        id="14L.3",
        title="The whole: align without a reward model",
        function="train_dpo",
        points=5,
        difficulty=3,
        minutes=35,
        importance=5,
        goal="You can align a language model on comparisons with nothing but torch.",
        hints=(
            "One forward pass of the policy with a gradient, one of the reference without.",
            "`copy.deepcopy(policy)` makes the reference, before the first step.",
            "`.detach()` the log-probabilities for the history, and call `displacement`.",
        ),
        check=check_train_dpo,
        rounds=1,
        seconds=90.0,
        without=BORROWED,
    )
)


# --- 14L.4 --------------------------------------------------------------------------------------


def check_draw_displacement(answer, rng):
    steps, window = int(rng.integers(20, 40)), int(rng.integers(3, 7))
    chosen = np.cumsum(rng.normal(size=steps) * 0.2 - 0.05)
    rejected = np.cumsum(rng.normal(size=steps) * 0.2 - 0.2)
    (panel,) = expect_picture(
        answer(chosen, rejected, window), hint="one pair of axes is enough"
    ).axes
    x = np.arange(window - 1, steps)
    for name, y in (("chosen", chosen), ("rejected", rejected)):
        smooth = np.array([y[t - window + 1 : t + 1].mean() for t in x])
        expect_line(
            panel,
            x,
            smooth,
            property=f"one line shows, at each step, the mean of the {name} log-ratio over this "
            "step and the steps before it that fit into the window",
            hint="the first point stands at the step at which the window is full for the first "
            "time; steps count from 0",
        )
    expect(
        any(len(line.y) and np.allclose(line.y, 0) for line in panel.lines),
        property="a horizontal line at 0 shows where the reference is",
        hint="`ax.axhline(0)`",
    )
    named = {}
    for name, y in (("chosen", chosen), ("rejected", rejected)):
        last = y[-window:].mean()
        found = [line.label for line in panel.lines if len(line.y) and np.isclose(line.y[-1], last)]
        named[name] = [label for label in found if label in panel.legend]
    expect(
        all(any(name in label.lower() for label in labels) for name, labels in named.items()),
        property="a legend names both lines: the line of the chosen responses 'chosen', that of "
        "the rejected ones 'rejected'",
        hint="`label=...` for each line, then `ax.legend()`",
    )
    expect(
        "nat" in panel.ylabel.lower(),
        property="the label of the y axis gives the unit",
        hint="a log-ratio of responses is measured in nats per response",
    )


register(
    Exercise(
        id="14L.4",
        title="The picture: where both log-ratios go",
        kind="figure",
        function="draw_displacement",
        points=2,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can draw a noisy training record so that its trend can be seen, without a shift.",
        hints=(
            "`np.convolve(y, np.ones(w) / w, mode=...)`: which mode keeps full windows only?",
            "The first full window ends at step `window - 1`.",
            "`mode='valid'`.",
        ),
        check=check_draw_displacement,
    )
)


# --- 14L.5 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="14L.5",
        title="Explain your picture",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say what DPO's loss rewards, and which of its bugs no curve shows.",
        hints=(
            "Which function of the two log-ratios does the loss see?",
            "Probabilities sum to 1. If both responses become less likely, where does the "
            "probability go?",
            "Divide each log-ratio by its length. What has become of beta, for a response of 25 "
            "tokens?",
        ),
        rubric=(
            Criterion(
                1,
                "reads the picture as it is: the rejected log-ratio falls far, the chosen one "
                "falls too or gains much less than the gap, and the gap grows",
            ),
            Criterion(
                1,
                "why: the loss depends on the difference only; shared tokens and other responses "
                "are not held in place by it (displacement)",
            ),
            Criterion(
                1,
                "the probability goes to responses in neither set; whether these are good is seen "
                "only in samples (here gold says that they are)",
            ),
            Criterion(
                1,
                "the mean instead of the sum acts like a beta divided by the length, about 25 "
                "times smaller, so less holds the policy near the reference; and it is no "
                "log-probability any more, so the derivation from the KL-regularised optimum does "
                "not hold",
            ),
            Criterion(
                1,
                "if the policy is its own reference the loss is log 2 in every step (the point); "
                "with the detached reference of 14L.1 the weights move all the same, and without "
                "it the gradient is 0 and they do not: either is right if the answer says which",
            ),
        ),
    )
)
