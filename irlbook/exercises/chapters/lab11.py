"""Lab of chapter 11: a reward model from comparisons, from a skeleton."""

from __future__ import annotations

from functools import partial

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_picture,
    expect_type,
)

BORROWED = ("irlbook.posttraining", "irlbook.training", "irlbook.tasks", "irlbook.preferences")
ACCURACY = 0.72  # the reference, on 20 seeds: 0.765 to 0.855
PAIRS = 600
BATCH = 32
RATE = 1e-3  # of AdamW: no weight moves by more in the first step, and some by nearly as much

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
        hint="a row has `lengths[b]` real tokens: at which position, counted from 0, is the last?",
        mistakes={
            "it is read in the last column, which is a pad in a short row": each[:, -1],
            "it is read one position too far, at the first pad": each[rows_, lengths],
            "it is read one position too early": each[rows_, lengths - 2],
            "it is read at the first token": each[:, 0],
            "all rows are read where the longest one ends": each[:, lengths.max() - 1],
            "all rows are read where the first one ends": each[:, lengths[0] - 1],
            "it is the mean over all positions, pads too": each.mean(axis=1),
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
        property="no other position of the row matters",
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
            "`hidden[rows, positions]` with two index tensors picks one position of each row.",
            "Positions count from 0, lengths from 1.",
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
        hint="what probability does Bradley–Terry give to the choice that was made?",
        mistakes={
            "chosen and rejected are exchanged": np.log1p(np.exp(d)).mean(),
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
        goal="You can write the Bradley–Terry loss so that it does not overflow.",
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
    hidden = model.model(input_ids=ids).last_hidden_state
    return hidden[torch.arange(len(rows)), lengths - 1] @ head


def _taught(start, batches):
    """The model's weights, and its head, after a step on each of these batches of pairs."""
    import copy

    import torch

    from irlbook.exercises.chapters import _language as language

    model = copy.deepcopy(language.book(start)[0]).requires_grad_(True)
    head = torch.zeros(model.config.hidden_size, requires_grad=True)

    def loss(batch):
        better = score_rows(model, head, [(x, y) for x, y, _ in batch])
        worse = score_rows(model, head, [(x, y) for x, _, y in batch])
        return torch.nn.functional.softplus(worse - better).mean()

    steps = [partial(loss, batch) for batch in batches]
    language.descend([*model.parameters(), head], steps, RATE)
    return _joined(model.state_dict(), head)


def _joined(weights, head):
    """Weights and head under one name each, without gradients."""
    return {name: value.detach() for name, value in {**weights, "the head": head}.items()}


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

    few = language.comparisons(BATCH + 4, rng)
    first = run(start, few, 2, seed)
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
        moved < 20 * RATE and bool(first[1].abs().max() < 20 * RATE),
        property="training goes on from the model with the number `start`, with a head of zeros",
        hint="four small steps of AdamW change no weight by much: where did yours begin?",
    )
    expect(
        same(first, run(start, few, 2, seed)),
        property="the same seed gives the same weights",
        hint="the order of the pairs is all that is random, for the head begins at 0",
    )
    expect(
        not same(first, run(start, few, 2, seed + 1)),
        property="the pairs are shuffled, and another seed shuffles them differently",
        hint="`torch.randperm(n, generator=...)`",
    )
    # The head begins at 0, so no gradient reaches the model in the first step.
    step = float(run(start, few[:5], 1, seed)[1].abs().max())
    expect(
        0.9 * RATE < step < 1.1 * RATE,
        property=f"the optimiser is AdamW with a learning rate of {RATE:g}, and five pairs are a "
        "batch, too",
        hint="the first step of AdamW moves a weight by its learning rate at most, whatever the "
        "size of the gradient",
        detail=f"the first step moved the head by {step:.2g}",
    )
    language.expect_recipe(
        lambda examples, epochs: _joined(*run(start, examples, epochs, seed)),
        partial(_taught, start),
        _joined(base, torch.zeros(model.config.hidden_size)),
        few,
        BATCH,
        noun="pairs",
        rests_on="Do 11L.1 and 11L.2 pass?",
    )
    weights, head = run(start, language.comparisons(PAIRS, rng), 2, seed)
    trained = language.loaded(weights, start)
    held_out = language.comparisons(400, rng, rationality=float("inf"))
    with torch.no_grad():
        better = score_rows(trained, head, [(x, y) for x, y, _ in held_out])
        worse = score_rows(trained, head, [(x, y) for x, _, y in held_out])
    accuracy = float((better > worse).double().mean())
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


def _drawn(panel, x, y):
    """Whether a line or points of the panel go through just these points, in any order."""
    want = np.stack([x, y], axis=1)
    found = [np.stack([line.x, line.y], axis=1) for line in panel.lines]
    found += [points for points in panel.points if points.ndim == 2]
    return any(
        points.shape == want.shape and np.allclose(points[np.argsort(points[:, 0])], want)
        for points in found
    )


def check_draw_reliability(answer, rng):
    bins = int(rng.choice([4, 6]))  # even, so that 1/2 is a border of two parts
    n = 400
    margins = rng.uniform(-3, 3, size=n) * rng.choice([0.4, 1.0], size=n)
    predicted = 1 / (1 + np.exp(-margins))
    empty = int(rng.choice([b for b in range(1, bins - 1) if b != bins // 2]))
    margins = margins[np.floor(predicted * bins) != empty]
    # In floating point the sigmoid of 40 is 1, and that of 0 is 1/2.
    margins = rng.permutation(np.concatenate([margins, np.full(9, 40.0), np.zeros(9)]))
    predicted = 1 / (1 + np.exp(-margins))
    won = (rng.random(len(margins)) < predicted**2).astype(int)
    part = np.minimum((predicted * bins).astype(int), bins - 1)
    filled = [b for b in range(bins) if (part == b).any()]
    x = [predicted[part == b].mean() for b in filled]
    y = [won[part == b].mean() for b in filled]
    (panel,) = expect_picture(answer(margins, won, bins), hint="one pair of axes is enough").axes
    for line in panel.lines:
        expect(
            bool(np.isfinite(line.y).all()),
            property="a part without comparisons is left out",
            hint="the mean of no numbers is not a number",
        )
    sure = predicted == 1
    inside = [part[~sure] == b for b in filled]
    without_1 = [values[~sure][i].mean() for values in (predicted, won) for i in inside]
    below = np.maximum(np.ceil(predicted * bins).astype(int) - 1, 0)
    lower = [values[below == b].mean() for values in (predicted, won) for b in np.unique(below)]
    apart = [predicted[sure].mean()], [won[sure].mean()]
    k = len(filled)
    detail = ""
    if _drawn(panel, without_1[:k], without_1[k:]):
        detail = "it looks as if comparisons with a probability of 1 are left out"
    elif _drawn(panel, [*without_1[:k], *apart[0]], [*without_1[k:], *apart[1]]):
        detail = "it looks as if a probability of 1 has a part of its own"
    elif _drawn(panel, lower[: len(lower) // 2], lower[len(lower) // 2 :]):
        detail = "it looks as if a probability on a border counts for the lower part"
    expect(
        _drawn(panel, x, y),
        property="for each part with comparisons, the share that was won is drawn against the "
        "mean predicted probability",
        hint="the predicted probability is the sigmoid of a margin. The parts are equally wide, "
        "and each probability belongs to one of them: also 1, and one on a border",
        detail=detail,
    )
    expect(
        any(len(line.x) >= 2 and np.allclose(line.x, line.y) and np.ptp(line.x) >= 0.99
            for line in panel.lines),
        property="a straight line from (0, 0) to (1, 1) shows perfect calibration",
        hint="a reader compares with it: `ax.plot([0, 1], [0, 1])`",
    )  # fmt: skip
    expect(
        len(set(panel.legend)) >= 2,
        property="a legend says which of the two is which",
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
            "First turn margins into probabilities, then sort these into the parts.",
            "`(p * bins).astype(int)` numbers the parts, save for p = 1: what does it give there?",
            "For each part that holds something: the mean of p along x, the share of wins along y.",
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
                "labels are drawn with sigmoid(gold difference), so even the true reward does not "
                "predict all of them: accuracy against labels has the ceiling that the lab "
                "measured at its top",
            ),
            Criterion(
                1,
                "only differences for one prompt enter the loss: a function of the prompt is free, "
                "so rewards of different prompts must not be compared",
            ),
        ),
    )
)
