"""Lab of chapter 11: a reward model from comparisons, from a skeleton."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_line,
    expect_picture,
    expect_type,
)

BORROWED = ("irlbook.posttraining", "irlbook.training", "irlbook.tasks", "irlbook.preferences")
ACCURACY = 0.72  # the reference, on 20 seeds: 0.765 to 0.855
PAIRS = 600

# --- 11L.1 --------------------------------------------------------------------------------------


def check_read_reward(answer, rng):
    import torch

    rows, width, size = 5, 9, 4
    lengths = np.append(rng.permutation([2, 3, 5, 7]), 8)  # every row has a pad: the width is 9
    hidden = rng.normal(size=(rows, width, size))
    head = rng.normal(size=size)
    each = hidden @ head  # (B, L)
    rows_ = np.arange(rows)
    want = each[rows_, lengths - 1]
    inside = np.arange(width) < lengths[:, None]
    got = answer(torch.from_numpy(hidden), torch.from_numpy(lengths), torch.from_numpy(head))
    expect_close(
        got,
        want,
        property="the reward is the head's value at the last real token of each row",
        hint="a row has `lengths[b]` real tokens: at which place, counted from 0, is the last one?",
        mistakes={
            "it is read in the last column, which is a pad in a short row": each[:, -1],
            "it is read one place too far, at the first pad": each[rows_, lengths],
            "it is read one place too early": each[rows_, lengths - 2],
            "it is read at the first token": each[:, 0],
            "all rows are read where the longest one ends": each[:, lengths.max() - 1],
            "all rows are read where the first one ends": each[:, lengths[0] - 1],
            "it is the mean over all places, pads too": each.mean(axis=1),
            "it is the mean over the real tokens": (each * inside).sum(axis=1) / lengths,
            "it is the sum over the real tokens": (each * inside).sum(axis=1),
            "the sign is turned": -want,
        },
    )
    junk = hidden.copy()
    junk[np.arange(width) != lengths[:, None] - 1] = 1e6
    expect_close(
        answer(torch.from_numpy(junk), torch.from_numpy(lengths), torch.from_numpy(head)),
        want,
        property="no other place of the row matters",
        hint="pick first, then multiply",
    )


register(
    Exercise(
        id="11L.1",
        title="Where the reward is read",
        function="read_reward",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can read one number per response from a padded batch of hidden states.",
        hints=(
            "Only the last token has seen the whole response.",
            "`hidden[rows, places]` with two index tensors picks one place of each row.",
            "Places count from 0, lengths from 1.",
        ),
        check=check_read_reward,
    )
)


# --- 11L.2 --------------------------------------------------------------------------------------


def check_preference_loss(answer, rng):
    import torch

    n = int(rng.integers(5, 9))
    chosen, rejected = rng.normal(size=(2, n)) * 2 + rng.normal()
    d = chosen - rejected
    want = np.log1p(np.exp(-d)).mean()

    def of(a, b):
        return answer(torch.from_numpy(np.asarray(a)), torch.from_numpy(np.asarray(b)))

    expect_close(
        of(chosen, rejected),
        want,
        property="the loss is the mean of -log sigmoid(chosen - rejected)",
        hint="what probability does Bradley-Terry give to the choice that was made?",
        mistakes={
            "chosen and rejected have changed places": np.log1p(np.exp(d)).mean(),
            "the sign is turned": -want,
            "you summed and did not take the mean": want * n,
            "the logarithm is missing": -(1 / (1 + np.exp(-d))).mean(),
            "it is one minus the probability, without a logarithm": (1 / (1 + np.exp(d))).mean(),
            "it is the hinge loss": np.maximum(0, 1 - d).mean(),
            "there is no sigmoid": -d.mean(),
            "you took the sigmoid of the mean difference": np.log1p(np.exp(-d.mean())),
            "each response is classified alone": (
                np.log1p(np.exp(-chosen)) + np.log1p(np.exp(rejected))
            ).mean(),
        },
    )
    far = np.array([900.0, -900.0, 3.0])
    expect_close(
        of(far, np.zeros(3)),
        (900 + np.log1p(np.exp(-3.0))) / 3,
        property="the loss stays finite for a difference of 900, of either sign",
        hint="sigmoid(-900) is 0 in floating point: torch has a function for the logarithm of a "
        "sigmoid",
    )


register(
    Exercise(
        id="11L.2",
        title="The loss of a comparison",
        function="preference_loss",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can write the Bradley-Terry loss so that it does not overflow.",
        hints=(
            "The model says: the first is preferred with the probability sigmoid(r1 - r2).",
            "The loss is minus the logarithm of the probability of what was observed.",
            "`torch.nn.functional` has the logarithm of the sigmoid as one function.",
        ),
        check=check_preference_loss,
    )
)


# --- 11L.3 --------------------------------------------------------------------------------------


def score_rows(model, head, rows):
    """(R,) rewards of (prompt, response) pairs, by the grader's own reading."""
    import torch

    lengths = torch.tensor([len(x) + len(y) for x, y in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for row, (x, y) in zip(ids, rows, strict=True):
        row[: len(x) + len(y)] = torch.tensor(x + y)
    with torch.no_grad():
        hidden = model.model(input_ids=ids).last_hidden_state
    return (hidden[torch.arange(len(rows)), lengths - 1] @ head).numpy()


def check_train_reward_model(answer, rng):
    import torch

    from irlbook.exercises.chapters import _language as language

    start, seed = language.draw_start(rng), int(rng.integers(1000))
    model = language.book(start)[0]
    base = model.state_dict()
    hint = 'return {"weights": model.state_dict(), "head": head}'

    def run(*args):
        got = expect_type(answer(*args), dict, hint=hint)
        expect(
            set(got) == {"weights", "head"},
            property="the result has the keys 'weights' and 'head'",
            hint=hint,
        )
        head = as_array(got["head"], (model.config.hidden_size,), what="`head`", hint=hint)
        weights = language.expect_weights(got["weights"], model, what="`weights`")
        return weights, torch.tensor(head, dtype=torch.float32)

    def same(one, other):
        near = [torch.allclose(one[0][k], other[0][k], atol=1e-5) for k in base]
        return all(near) and torch.allclose(one[1], other[1], atol=1e-5)

    pairs = language.comparisons(PAIRS, rng)
    first = run(start, pairs[:40], 1, seed)
    expect(
        bool(first[1].abs().max() > 0),
        property="the head learns",
        hint="is the head among the parameters that the optimiser was given?",
    )
    expect(
        not all(torch.equal(first[0][k], base[k]) for k in base),
        property="the model below the head learns, too",
        hint="are its parameters given to the optimiser, and does the gradient reach them?",
    )
    moved = max(float((first[0][k] - base[k]).abs().max()) for k in base)
    expect(
        moved < 0.02 and bool(first[1].abs().max() < 0.02),
        property="training goes on from the model with the number `start`, with a head of zeros",
        hint="two small steps of AdamW change no weight by much: where did yours begin?",
    )
    expect(
        same(first, run(start, pairs[:40], 1, seed)),
        property="the same seed gives the same weights",
        hint="the order of the pairs is all that is random, for the head begins at 0",
    )
    expect(
        not same(first, run(start, pairs[:40], 1, seed + 1)),
        property="the pairs are shuffled, and another seed shuffles them differently",
        hint="`torch.randperm(n, generator=...)`",
    )
    weights, head = run(start, pairs, 2, seed)
    trained = language.loaded(weights, start)
    held_out = language.comparisons(400, rng, rationality=float("inf"))
    better = score_rows(trained, head, [(x, y) for x, y, _ in held_out])
    worse = score_rows(trained, head, [(x, y) for x, _, y in held_out])
    accuracy = float(np.mean(better > worse))
    expect(
        accuracy >= ACCURACY,
        property=f"at least {ACCURACY:.0%} of 400 new pairs are ordered as the true reward orders "
        "them",
        hint="the loss of a step begins at log 2 = 0.69 and should end near 0.5. The grader reads "
        "the head at the end token of each response: does your training?",
        detail=f"the grader counted {accuracy:.0%}; tossing a coin gives 50%",
    )


register(
    Exercise(
        id="11L.3",
        title="The whole: learn a reward from choices",
        function="train_reward_model",
        points=5,
        difficulty=3,
        minutes=35,
        importance=5,
        goal="You can train a reward model on pairwise comparisons with nothing but torch.",
        hints=(
            "Put the preferred responses of a batch first and the others behind them: one forward "
            "pass scores both.",
            "`model.model(input_ids=ids).last_hidden_state` are the hidden states below the "
            "language-model head.",
            "The head is a tensor of zeros with `requires_grad=True`; the optimiser gets it beside "
            "the model's parameters.",
        ),
        check=check_train_reward_model,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 11L.4 --------------------------------------------------------------------------------------


def check_draw_reliability(answer, rng):
    bins = int(rng.integers(4, 7))
    n = 400
    margins = rng.uniform(-3, 3, size=n) * rng.choice([0.4, 1.0], size=n)
    predicted = 1 / (1 + np.exp(-margins))
    keep = np.floor(predicted * bins) != int(rng.integers(1, bins - 1))  # one bin is empty
    margins, predicted = margins[keep], predicted[keep]
    won = (rng.random(len(margins)) < predicted**2).astype(int)
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    filled = [b for b in range(bins) if (place == b).any()]
    x = [predicted[place == b].mean() for b in filled]
    y = [won[place == b].mean() for b in filled]
    (panel,) = expect_picture(answer(margins, won, bins), hint="one pair of axes is enough").axes
    for line in panel.lines:
        expect(
            bool(np.isfinite(line.y).all()),
            property="a bin without comparisons is left out",
            hint="the mean of no numbers is not a number",
        )
    expect_line(
        panel,
        x,
        y,
        property="a line shows, for each bin with comparisons, the share that was won against the "
        "mean predicted probability",
        hint="the predicted probability is the sigmoid of a margin; the bins divide 0 to 1 into "
        "equal parts",
    )
    expect(
        any(len(line.x) == 2 and np.allclose(line.x, line.y) and np.ptp(line.x) >= 0.99
            for line in panel.lines),
        property="a straight line from (0, 0) to (1, 1) shows perfect calibration",
        hint="a reader compares with it: `ax.plot([0, 1], [0, 1])`",
    )  # fmt: skip
    expect(
        len(panel.legend) >= 2,
        property="a legend says which line is which",
        hint="`label=...` for each line, then `ax.legend()`",
    )


register(
    Exercise(
        id="11L.4",
        title="The picture: is its confidence earned?",
        kind="figure",
        function="draw_reliability",
        points=3,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can draw a reliability diagram.",
        hints=(
            "First turn margins into probabilities, then sort these into bins.",
            "`(p * bins).astype(int)` gives the bin, save for p = 1 exactly.",
            "For each bin that holds something: the mean of p along x, the share of wins along y.",
        ),
        check=check_draw_reliability,
    )
)


# --- 11L.5 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="11L.5",
        title="Explain your picture",
        kind="written",
        points=4,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can say what a reward model has learned, what its confidence is worth, and what "
        "the labels cannot tell it.",
        hints=(
            "Where the model predicts 90 %, how many are won? Is it too bold, then, or too shy?",
            "How often do the labels themselves agree with the true reward?",
            "Add any function of the prompt to the reward. What changes in the loss?",
        ),
        rubric=(
            Criterion(
                1,
                "reads the diagram: steeper than the diagonal means underconfident, flatter means "
                "overconfident; names it for their picture, and says where few comparisons leave "
                "it open",
            ),
            Criterion(
                1,
                "overconfidence on new pairs comes from fitting the noise of the labels (many "
                "epochs, few pairs), the opposite from stopping early; a temperature fitted on "
                "held-out pairs corrects both without a change of the order",
            ),
            Criterion(
                1,
                "labels are drawn with sigmoid(gold difference), so even the true reward agrees "
                "with about 83 % of them: accuracy against labels has that ceiling",
            ),
            Criterion(
                1,
                "only differences for one prompt enter the loss: a function of the prompt is free, "
                "so rewards of different prompts must not be compared",
            ),
        ),
    )
)
