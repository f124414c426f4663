"""Lab of chapter 10: sample from a language model and fine-tune it, from a skeleton."""

from __future__ import annotations

from functools import partial

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

BORROWED = (
    "irlbook.posttraining",
    "irlbook.training",
    "irlbook.tasks",
    "irlbook.lm.logprobs",
    "irlbook.lm.sampling",
)
GOLD = 1.9  # the reference, on 20 seeds: 2.22 to 2.65
BATCH = 16
RATE = 2e-3  # of AdamW: no weight moves by more in the first step, and some by nearly as much
FLATTER = 0.6  # what the logits of a shipped model are multiplied by in the check of 10L.2

# --- 10L.1 --------------------------------------------------------------------------------------


def check_sft_loss(answer, rng):
    import torch

    rows, vocabulary, width = 4, 6, 12
    prompt = rng.permutation([1, 2, 3, 4])
    response = rng.permutation([1, 3, 5, 7])
    total = prompt + response
    ids = rng.integers(vocabulary, size=(rows, width))
    end = int(rng.integers(vocabulary))
    ids[np.arange(rows), total - 1] = end
    ids[np.arange(width) >= total[:, None]] = rng.choice([0, end])
    logits = 2 * rng.normal(size=(rows, width, vocabulary))
    logps = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))

    def mean(first=0, last=0, shift=1, values=logps, to=None, each=False):
        kept = []
        for b in range(rows):
            read = range(prompt[b] + first, (total[b] if to is None else to) + last)
            kept.append([values[b, t - shift, ids[b, t]] for t in read if t >= max(shift, 0)])
        if each:
            return -np.mean([np.mean(row) for row in kept])
        return -np.mean(np.concatenate(kept))

    whole = -np.mean(
        np.concatenate(
            [[logps[b, t - 1, ids[b, t]] for t in range(1, total[b])] for b in range(rows)]
        )
    )
    tokens = int(response.sum())
    got = answer(
        torch.from_numpy(logits),
        torch.from_numpy(ids),
        torch.from_numpy(prompt),
        torch.from_numpy(total),
    )
    expect_close(
        got,
        mean(),
        property="the loss is the mean of -log pi over the tokens of the responses, and no others",
        hint="write down for one row which logits predict which token, and which tokens count",
        mistakes={
            "the prompt's tokens count, too": whole,
            "the end token does not count": lambda: mean(last=-1),
            "the first token of a response does not count": lambda: mean(first=1),
            "the pads count, too": lambda: mean(to=width),
            "the logits at a token are read for that token itself": lambda: mean(shift=0),
            "each response counts the same, not each token": lambda: mean(each=True),
            "the sign is turned": -mean(),
            "you summed and did not take the mean": mean() * tokens,
            "you divide by the number of responses": mean() * tokens / rows,
            "you divide by all positions of the batch, pads and prompts too": mean()
            * tokens
            / (rows * (width - 1)),
            "you took probabilities and not their logarithm": lambda: mean(values=np.exp(logps)),
        },
    )
    other = torch.from_numpy(logits.copy())
    position = np.arange(width)
    used = (position >= prompt[:, None] - 1) & (position < total[:, None] - 1)
    other[torch.from_numpy(~used)] = torch.from_numpy(1000 + 50 * rng.normal(size=(vocabulary,)))
    got = answer(other, torch.from_numpy(ids), torch.from_numpy(prompt), torch.from_numpy(total))
    expect(
        np.isfinite(as_array(got, (), finite=False)),
        property="logits that predict no token of a response do not matter",
        hint="a maximum that is subtracted must be that of the same position",
        detail="large ones elsewhere make the loss infinite",
    )
    expect_close(
        got,
        mean(),
        property="logits that predict no token of a response do not matter",
        hint="position t - 1 predicts the token at position t",
    )
    expect_close(
        answer(
            torch.from_numpy(logits + 900.0),
            torch.from_numpy(ids),
            torch.from_numpy(prompt),
            torch.from_numpy(total),
        ),
        mean(),
        property="adding a constant to all logits changes nothing, however large it is",
        hint="exp(900) is infinite in floating point: which function of torch avoids it?",
    )


register(
    Exercise(
        id="10L.1",
        title="The loss of a demonstration",
        function="sft_loss",
        points=4,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can compute the loss of supervised fine-tuning on a padded batch, with a mask "
        "that counts the right tokens.",
        hints=(
            "A causal model's logits at position t say what it expects at position t + 1. So the "
            "first token of a response is predicted at the last position of the prompt.",
            "Drop the last position of the logits and the first of the ids: then both line up. "
            "`gather` picks the log-probability of the token that is there.",
            "The position of each token in its row, compared with the two lengths, gives the mask. "
            "Take the mean over what the mask keeps.",
        ),
        check=check_sft_loss,
    )
)


# --- 10L.2 --------------------------------------------------------------------------------------


def _entropy_gap(model, prompts, responses):
    """How unusual the tokens are, in standard errors: 0 on average for draws from the model.

    A token's surprise, -log pi, minus its expectation, which is the entropy: given the tokens
    before, the mean is 0 whatever they are.
    """
    import torch

    gaps, spread = [], []
    for x, y in zip(prompts, responses, strict=True):
        logits = model(input_ids=torch.tensor([x + y])).logits[0, len(x) - 1 : -1].double()
        logps = logits.log_softmax(-1)
        p = logps.exp()
        entropy = -(p * logps).sum(-1)
        surprise = -logps[torch.arange(len(y)), torch.tensor(y)]
        gaps.append(surprise - entropy)
        spread.append((p * logps**2).sum(-1) - entropy**2)
    return float(torch.cat(gaps).sum() / torch.cat(spread).sum().sqrt())


def check_sample_responses(answer, rng):
    import torch

    from irlbook.exercises.chapters import _language as language

    start, seed, most = language.draw_start(rng), int(rng.integers(1000)), 30
    shipped, tokenizer = language.book(start)
    end = tokenizer.eos_token_id
    # Weights that no file holds: the last norm scales the logits, so these are drawn more flatly.
    given = {name: value.clone() for name, value in shipped.state_dict().items()}
    given["model.norm.weight"] *= FLATTER
    model = language.loaded(given, start)
    every = language.prompts()
    lengths = sorted({len(x) for x in every})
    long = [x for x in every if len(x) == lengths[-1]]
    short = [x for x in every if len(x) == lengths[0]]
    # Few short prompts: rows with equal ones differ only by what is drawn for them.
    few = [short[rng.integers(len(short))] for _ in range(3)]
    asked = [long[rng.integers(len(long))]] + [few[row % 3] for row in range(31)]
    got = expect_type(
        answer(given, asked, most, seed), (list, tuple), hint="return a list of lists of token ids"
    )
    expect(
        len(got) == len(asked),
        property="there is one response for each prompt",
        hint="one row of the batch belongs to each prompt",
    )
    for y in got:
        expect(
            isinstance(y, (list, tuple)) and len(y) and all(isinstance(t, int) for t in y),
            property="each response is a list of at least one token id",
            hint="`tensor.tolist()` gives Python's integers",
        )
        expect(
            all(0 <= t < len(tokenizer) for t in y),
            property="all ids are of the vocabulary",
            hint="the last axis of the logits is the vocabulary",
        )
        expect(
            len(y) <= most,
            property="no response is longer than `most` tokens",
            hint="the prompt is no part of a response; how often does the loop run?",
        )
        expect(
            end not in y[:-1],
            property="a response stops at its first end token",
            hint="other rows of the batch may still be running: what is drawn for a row that has "
            "ended is no part of its response",
        )
        expect(
            y[-1] == end or len(y) == most,
            property="a response holds its end token, or has `most` tokens",
            hint="the end token is a token of the response: the model chose to stop there",
        )
    cut = answer(given, asked[:8], 3, seed)  # so early that hardly a response ends by itself
    expect(
        all(len(y) <= 3 for y in cut),
        property="no response is longer than `most` tokens",
        hint="the prompt is no part of a response; how often does the loop run?",
    )
    with torch.no_grad():
        gap = _entropy_gap(model, asked, [list(y) for y in got])
    where = "less" if gap < 0 else "more"
    expect(
        abs(gap) < 5,
        property="the tokens are drawn from the distribution of the model with these weights, at "
        "temperature 1, each given the prompt and the tokens before it",
        hint="are the weights loaded into the model? Which position of a row predicts its next "
        "token when the prompts differ in length? And is each token drawn, or chosen?",
        detail=f"the tokens are far {where} surprising to the model than draws from it would be",
    )
    expect(
        len({tuple(y) for y in got[1:]}) > 10,
        property="different rows draw their own random numbers",
        hint="one draw for each row and step",
    )
    again = answer(given, asked[:4], most, seed)
    other = answer(given, asked[:4], most, seed + 1)
    expect(
        again == answer(given, asked[:4], most, seed),
        property="the same seed gives the same responses",
        hint="`torch.Generator().manual_seed(seed)`, given to the function that draws",
    )
    expect(
        again != other,
        property="another seed gives other responses",
        hint="use the argument `seed`",
    )


register(
    Exercise(
        id="10L.2",
        title="Draw responses",
        function="sample_responses",
        points=5,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can write the sampling loop of a language model for a batch of prompts of "
        "different lengths.",
        hints=(
            "Pad the prompts on the right to the longest plus `most`, and keep for each row how "
            "long it is by now. A causal model does not look at what stands to the right.",
            "In each step the next token of row b is predicted at position `lengths[b] - 1`, and "
            "the drawn token goes to position `lengths[b]`.",
            "Keep a mask of the rows that still run. A row that drew the end token keeps it, and "
            "its length does not grow any more.",
        ),
        check=check_sample_responses,
        rounds=1,
        seconds=30.0,
        without=BORROWED,
    )
)


# --- 10L.3 --------------------------------------------------------------------------------------


def _taught(start, batches):
    """The weights after a step on each of these batches of demonstrations, by the recipe."""
    import copy

    from irlbook.exercises.chapters import _language as language
    from irlbook.lm.logprobs import token_logps
    from irlbook.lm.trees import collate

    model = copy.deepcopy(language.book(start)[0]).requires_grad_(True)

    def loss(batch):
        return -token_logps(model, collate([(x, [y]) for x, y in batch])).mean()

    steps = [partial(loss, batch) for batch in batches]
    language.descend(model.parameters(), steps, RATE)
    return {name: value.detach() for name, value in model.state_dict().items()}


def check_finetune(answer, rng):
    import torch

    from irlbook.exercises.chapters import _language as language

    start, seed = language.draw_start(rng), int(rng.integers(1000))
    few = language.shown(BATCH + 4, rng)
    model = language.book(start)[0]
    base = model.state_dict()

    def weights(*args):
        return language.expect_weights(answer(*args), model)

    def same(one, other):
        return all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)

    one_step = weights(start, few[:5], 1, seed)
    expect(
        not same(one_step, base),
        property="an epoch changes the weights, also one of five demonstrations only",
        hint="`loss.backward()`, then `optimizer.step()`; and a batch that is not full is a batch, "
        "too",
    )
    moved = max(float((one_step[name] - base[name]).abs().max()) for name in base)
    expect(
        moved < 20 * RATE,
        property="training goes on from the weights of the model with the number `start`",
        hint="a small step of AdamW changes no weight by much: where did yours begin?",
    )
    expect(
        0.9 * RATE < moved < 1.1 * RATE,
        property=f"the optimiser is AdamW with a learning rate of {RATE:g}",
        hint="the first step of AdamW moves a weight by its learning rate at most, whatever the "
        "size of the gradient",
        detail=f"the first step moved a weight by {moved:.2g}",
    )
    first = weights(start, few, 1, seed)
    expect(
        same(first, weights(start, few, 1, seed)),
        property="the same seed gives the same weights",
        hint="the order of the demonstrations is all that is random: take it from a generator "
        "with this seed",
    )
    expect(
        not same(first, weights(start, few, 1, seed + 1)),
        property="the demonstrations are shuffled, and another seed shuffles them differently",
        hint="`torch.randperm(n, generator=...)`",
    )
    language.expect_recipe(
        lambda examples, epochs: weights(start, examples, epochs, seed),
        partial(_taught, start),
        base,
        few,
        BATCH,
        noun="demonstrations",
        rests_on="Does 10L.1 pass?",
    )
    trained = language.loaded(answer(start, language.shown(160, rng), 4, seed), start)
    found = language.measure(trained, start, rng)
    expect(
        found.gold >= GOLD,
        property=f"the trained model's responses have a mean gold reward of at least {GOLD}",
        hint="print the loss of every step: it begins near 0.8 and ends near 0.7. If it does not, "
        "test the loss; if it does, test what else a step needs",
        detail=f"the grader measured {found.gold:.2f}; {found.ended:.0%} of the responses ended",
    )


register(
    Exercise(
        id="10L.3",
        title="The whole: clone an expert",
        function="finetune",
        points=5,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can fine-tune a language model on demonstrations with nothing but torch.",
        hints=(
            "The loop has four lines: a batch, a loss, a gradient, a step. What must happen to "
            "the old gradient?",
            "`torch.randperm(n, generator=g).split(16)` gives the rows of every batch of an epoch, "
            "the last one smaller.",
            "Call `pad_rows`, and then your `sft_loss`: the model's logits and the three tensors "
            "of the batch go in.",
        ),
        check=check_finetune,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 10L.4 --------------------------------------------------------------------------------------


def check_draw_losses(answer, rng):
    n = int(rng.integers(5, 9))
    epochs = np.sort(rng.choice(np.arange(1, 30), size=n, replace=False))
    training = np.sort(rng.uniform(0.2, 1.5, size=n))[::-1].copy()
    held_out = rng.permutation(rng.uniform(0.7, 1.5, size=n))
    best = int(rng.integers(1, n - 1))
    held_out[best] = 0.5
    (panel,) = expect_picture(
        answer(epochs, training, held_out), hint="one pair of axes is enough"
    ).axes
    for name, y in (("training", training), ("held-out", held_out)):
        expect_line(
            panel,
            epochs,
            y,
            property=f"one line shows the {name} loss against the epochs",
            hint="epochs along x, losses along y",
        )
    expect_legend(
        panel,
        {"train": training, "held": held_out},
        property="a legend names both lines, differently and rightly",
    )
    expect_vertical_line(
        panel,
        epochs[best],
        property="a vertical line marks the epoch with the smallest held-out loss",
        hint="`ax.axvline(...)`; the epochs are not 0, 1, 2 ..., and which of the two losses "
        "decides?",
    )
    expect(
        "nat" in panel.ylabel.lower(),
        property="the label of the y axis gives the unit of the loss",
        hint="the loss is a mean of natural logarithms, one for each token: nats per token",
    )


register(
    Exercise(
        id="10L.4",
        title="The picture: when to stop",
        kind="figure",
        function="draw_losses",
        points=2,
        difficulty=1,
        minutes=15,
        importance=4,
        goal="You can draw training against held-out loss, and mark where to stop.",
        hints=(
            "Two calls of `plot`, one of `axvline`.",
            "`np.argmin` gives an index of the array, not an epoch.",
            "Both axes need a label. In which unit is a mean of -log pi measured?",
        ),
        check=check_draw_losses,
    )
)


# --- 10L.5 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="10L.5",
        title="Explain your picture",
        kind="written",
        points=4,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can say what a loss curve of SFT shows, and what it cannot show.",
        hints=(
            "How many free numbers has the model, and how many tokens has it seen?",
            "A response is a product of many choices. What happens after the first wrong one?",
            "Which curve would look different if the end token were left out of both losses?",
        ),
        rubric=(
            Criterion(
                1,
                "the training loss falls on because the few demonstrations are learned by heart; "
                "the held-out loss rises because that does not carry over",
            ),
            Criterion(1, "stops at the smallest held-out loss, and says why not at the training's"),
            Criterion(
                1,
                "gold below the expert's: errors per token add up over a response, and after an "
                "error the prefix is one that no demonstration shows",
            ),
            Criterion(
                1,
                "without the end token both curves look healthy; samples show it (they do not "
                "end), so one reads samples and counts how many end",
            ),
        ),
    )
)
