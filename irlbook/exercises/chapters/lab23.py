"""Lab of chapter 23: DPO with a low-rank adapter (LoRA), from a skeleton."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_legend,
    expect_length,
    expect_line,
    expect_picture,
    expect_points,
    expect_type,
)

BORROWED = (
    "irlbook.posttraining",
    "irlbook.training",
    "irlbook.tasks",
    "irlbook.preferences",
    "peft",
)
GOLD = 1.0  # the reference, on 10 seeds: 1.28 to 1.65
KL = 7.0  # nats per response; the reference: 0.8 to 3.4
PAIRS, EPOCHS, BETA = 800, 2, 0.5
RANK, ALPHA = 2, 4.0
BATCH, RATE = 32, 3e-3

# --- 23L.1 --------------------------------------------------------------------------------------


def check_adapted(answer, rng):
    import torch

    rank, size = int(rng.integers(2, 5)), int(rng.integers(5, 8))  # square: an exchange is silent
    alpha = float(rng.uniform(5.0, 9.0))
    x = rng.normal(size=(3, 4, size))
    weight = rng.normal(size=(size, size))
    down, up = rng.normal(size=(rank, size)), rng.normal(size=(size, rank))

    def layer(scale=alpha / rank, low=None, weight=weight, x=x):
        return x @ weight.T + scale * x @ (up @ down if low is None else low).T

    given = {
        which: torch.from_numpy(value)
        for which, value in (("x", x), ("weight", weight), ("down", down), ("up", up))
    }
    want = layer()
    expect_close(
        answer(*given.values(), alpha),
        want,
        property="the layer's output is x W' plus alpha / r times x (B A)', with B = `up`, "
        "A = `down` and ' the transpose",
        hint="one input x of ones, a rank of 1 and matrices of two by two can be done by hand",
        mistakes={
            "alpha / r is missing": layer(1.0),
            "alpha is not divided by the rank": layer(alpha),
            "the scale is r / alpha": layer(rank / alpha),
            "the scale is 1 / r: alpha is missing": layer(1.0 / rank),
            "the scale is alpha / sqrt(r)": layer(alpha / math.sqrt(rank)),
            "alpha is divided by the width of the layer, and not by the rank": layer(alpha / size),
            "the frozen layer is missing": want - x @ weight.T,
            "the adapter is missing": x @ weight.T,
            "the adapter's matrix is transposed": layer(low=(up @ down).T),
            "the layer's matrix is transposed": layer(weight=weight.T),
            "the adapter reads the layer's output, not its input": x @ weight.T
            + alpha / rank * (x @ weight.T) @ (up @ down).T,
        },
    )
    wide = rng.normal(size=(size + 3, size))
    tall = rng.normal(size=(size + 3, rank))
    expect_close(
        answer(given["x"][0], torch.from_numpy(wide), given["down"], torch.from_numpy(tall), alpha),
        x[0] @ (wide + alpha / rank * tall @ down).T,
        what="the result for a layer that is not square, of one row of inputs",
        property="the layer may have more outputs than inputs, and x any number of axes",
        hint="only the last axis of x is multiplied",
    )
    for name in ("down", "up", "x"):
        inputs = {n: t.clone().requires_grad_(n == name) for n, t in given.items()}
        expect(
            getattr(answer(*inputs.values(), alpha), "requires_grad", False),
            property=f"the gradient flows through `{name}`",
            hint="nothing is detached: an adapter in one layer learns through the layers above it",
        )


register(
    Exercise(
        id="23L.1",
        title="A layer with an adapter",
        function="adapted",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can write LoRA's forward pass.",
        hints=(
            "`torch.nn.functional.linear(x, W)` is x W'. Three calls are enough.",
            "Go down to r numbers first, then up again: the product of the two matrices is never "
            "needed.",
            "The rank is the number of rows of `down`.",
        ),
        check=check_adapted,
        without=BORROWED,
    )
)


# --- 23L.2 --------------------------------------------------------------------------------------


def _model(rng):
    """(weights, names of the matrices inside layers) of a made-up model."""
    width, wide, words = 40, 60, 30
    weights = {"model.embed_tokens.weight": (words, width)}
    inside = []
    for layer in range(int(rng.integers(2, 4))):
        for name, shape in {
            "self_attn.q_proj.weight": (width, width),
            "self_attn.q_proj.bias": (width,),
            "self_attn.o_proj.weight": (width, width),
            "mlp.up_proj.weight": (wide, width),
            "mlp.down_proj.weight": (width, wide),
            "input_layernorm.weight": (width,),
        }.items():
            weights[f"model.layers.{layer}.{name}"] = shape
            if len(shape) == 2:
                inside.append(f"model.layers.{layer}.{name}")
    weights |= {"model.norm.weight": (width,), "lm_head.weight": (words, width)}
    return {name: rng.normal(size=shape) for name, shape in weights.items()}, inside


def _tensors(weights):
    import torch

    return {name: torch.tensor(w, dtype=torch.float32) for name, w in weights.items()}


def expect_adapter(got, shapes: Mapping[str, tuple[int, int]], rank: int, what="the result"):
    """Fail unless it maps these names to (down, up) of these sizes; returns NumPy arrays."""
    hint = "return a dict: name of a weight -> (down, up)"
    expect_type(got, Mapping, what=what, hint=hint)
    expect(
        set(got) == set(shapes),
        property="every matrix inside the layers has an adapter, and nothing else has one",
        hint="a matrix has two axes; a norm or a bias has one. Embedding and head do not stand "
        "within `.layers.`",
    )
    found = {}
    for name, (rows, columns) in shapes.items():
        down, up = expect_length(got[name], 2, what=f"the adapter of {name}", hint=hint)
        found[name] = (
            as_array(down, (rank, columns), what=f"`down` of {name}", hint="(r, inputs)"),
            as_array(up, (rows, rank), what=f"`up` of {name}", hint="(outputs, r)"),
        )
    return found


def check_new_adapter(answer, rng):
    weights, inside = _model(rng)
    shapes = {name: weights[name].shape for name in inside}
    rank, seed = int(rng.integers(3, 7)), int(rng.integers(1000))
    given = _tensors(weights)

    def ask(seed):
        return expect_adapter(answer(given, rank, seed), shapes, rank)

    got = ask(seed)
    expect(
        all((up == 0).all() for _, up in got.values()),
        property="`up` is zero, so that the adapted model is the start before the first step",
        hint="of the two matrices, which one does the output pass last?",
    )
    unit = np.concatenate([(d * np.sqrt(d.shape[1])).ravel() for d, _ in got.values()])
    expect(
        unit.std() > 0.01,
        property="`down` is drawn at random",
        hint="if both matrices were zero, each would have the gradient 0 for ever",
    )
    # Before mean and variance: of numbers that repeat there are too few to judge by.
    same_shape = [d for d, _ in got.values() if d.shape[1] == 40]
    expect(
        not any(np.allclose(a, b) for i, a in enumerate(same_shape) for b in same_shape[:i]),
        property="each layer draws a `down` of its own",
        hint="is the generator made once, or anew for each layer?",
    )
    expect(
        abs(unit.mean()) < 0.2 and abs(unit.std() - 1) < 0.15,
        property="the entries of `down` have mean 0 and variance 1 / (number of inputs)",
        hint="then down x has about the size of an entry of x",
        detail=f"times the root of the number of inputs they have mean {unit.mean():.2f} and "
        f"standard deviation {unit.std():.2f}",
    )
    spread = [d.std() * np.sqrt(d.shape[1]) for d, _ in got.values()]
    wide = [s for s, (d, _) in zip(spread, got.values(), strict=True) if d.shape[1] == 60]
    narrow = [s for s, (d, _) in zip(spread, got.values(), strict=True) if d.shape[1] == 40]
    expect(
        abs(np.mean(wide) / np.mean(narrow) - 1) < 0.14,
        property="the variance of `down` belongs to the number of inputs of its own layer",
        hint="down_proj has more inputs than the others: which number stands below the root?",
    )
    again, other = ask(seed), ask(seed + 1)
    expect(
        all(np.array_equal(got[n][0], again[n][0]) for n in inside),
        property="the same seed gives the same adapter",
        hint="`torch.randn(..., generator=...)`",
    )
    expect(
        not any(np.allclose(got[n][0], other[n][0]) for n in inside),
        property="another seed gives another adapter",
        hint="use the argument `seed`",
    )


register(
    Exercise(
        id="23L.2",
        title="A fresh adapter: which layers, and from where",
        function="new_adapter",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can choose what LoRA adapts and start it so that nothing changes at first.",
        hints=(
            "Go through the names and tensors of the state dict. `.ndim` tells a matrix from a "
            "vector.",
            "A tensor of shape (outputs, inputs) gets a `down` of (r, inputs) and an `up` of "
            "(outputs, r).",
            "One `torch.Generator().manual_seed(seed)` before the loop serves all layers.",
        ),
        check=check_new_adapter,
        rounds=2,
        without=BORROWED,
    )
)


# --- 23L.3 --------------------------------------------------------------------------------------


def check_merged(answer, rng):
    import torch

    weights, inside = _model(rng)
    rank, alpha = int(rng.integers(3, 6)), float(rng.uniform(5.0, 9.0))
    adapter = {
        name: tuple(
            torch.from_numpy(rng.normal(size=shape) / 5)
            for shape in ((rank, weights[name].shape[1]), (weights[name].shape[0], rank))
        )
        for name in inside
        if "o_proj" not in name  # an adapter need not have every layer
    }
    given = {name: torch.from_numpy(w) for name, w in weights.items()}
    hint = "return a dict with every weight of the model under its own name"
    got = expect_type(answer(given, adapter, alpha), Mapping, hint=hint)
    expect(
        set(got) == set(weights),
        property="the result holds all weights of the model, under their own names",
        hint=hint,
    )

    def low(name):
        down, up = (part.numpy() for part in adapter[name])
        return up @ down

    for name, weight in weights.items():
        want = weight + (alpha / rank * low(name) if name in adapter else 0.0)
        mistakes = {}
        if name in adapter:
            mistakes = {
                "alpha / r is missing": weight + low(name),
                "alpha is not divided by the rank": weight + alpha * low(name),
                "alpha is missing": weight + low(name) / rank,
                "the adapter is merged twice": weight + 2 * alpha / rank * low(name),
                "the adapter is taken off": weight - alpha / rank * low(name),
                "the adapter is missing": weight,
                "the weight itself is missing": alpha / rank * low(name),
            }
            if weight.shape[0] == weight.shape[1]:
                mistakes["the adapter's matrix is transposed"] = weight + alpha / rank * low(name).T
        expect_close(
            got[name],
            want,
            what=f"the weight {name}",
            property="a weight with an adapter becomes W + alpha / r times B A, and every other "
            "one stays as it is"
            if name in adapter
            else "a weight without an adapter stays as it is",
            hint="the merged layer must give what 23L.1 gives: x (W + ...)'",
            mistakes=mistakes,
        )


register(
    Exercise(
        id="23L.3",
        title="Merge",
        function="merged",
        points=2,
        difficulty=2,
        minutes=10,
        importance=4,
        goal="You can turn an adapted model into a plain one that answers the same.",
        hints=(
            "Begin with `dict(weights)`, which is a new dict with the old tensors.",
            "`W + ...` makes a new tensor; `W += ...` changes the one that the caller still needs.",
            "`up @ down` has the shape of the weight.",
        ),
        check=check_merged,
        without=BORROWED,
    )
)


# --- 23L.4 --------------------------------------------------------------------------------------


def _fresh(shapes, rank: int, rng, up: float = 0.0):
    """A new adapter as tensors; with `up` its second matrices are not zero."""
    import torch

    def normal(shape, scale):
        return torch.tensor(scale * rng.normal(size=shape), dtype=torch.float32)

    return {
        name: (normal((rank, columns), columns**-0.5), normal((rows, rank), up))
        for name, (rows, columns) in shapes.items()
    }


def _steps(start, adapter, alpha, pairs, steps, beta, base_too=False, learns=(1, 1), decay=0.0):
    """(adapter, (steps, 2) log-ratios before each step) if each step takes all pairs.

    Args:
        base_too: the slip that the model's own weights learn. learns: of `down` and `up`, which.
        decay: of AdamW.
    """
    import copy

    import torch

    from irlbook.exercises.chapters import _language as language
    from irlbook.lm.logprobs import sequence_logps, token_logps
    from irlbook.lm.trees import collate

    reference = language.book(start)[0]
    policy = copy.deepcopy(reference).requires_grad_(base_too)
    own = {
        name: tuple(
            part.clone().requires_grad_(bool(on)) for part, on in zip(pair, learns, strict=True)
        )
        for name, pair in adapter.items()
    }
    for name, (down, up) in own.items():

        def add(layer, inputs, output, down=down, up=up):
            return output + alpha / len(down) * inputs[0] @ down.T @ up.T

        policy.get_submodule(name.removesuffix(".weight")).register_forward_hook(add)
    learning = [part for pair in own.values() for part in pair if part.requires_grad]
    learning += [p for p in policy.parameters() if p.requires_grad]
    tree = collate([(x, [better, worse]) for x, better, worse in pairs])
    with torch.no_grad():
        base = sequence_logps(token_logps(reference, tree), tree.lengths)
    rows = []

    def loss():
        h = (sequence_logps(token_logps(policy, tree), tree.lengths) - base).view(-1, 2)
        rows.append(h.detach().mean(dim=0).tolist())
        return torch.nn.functional.softplus(-beta * (h[:, 0] - h[:, 1])).mean()

    language.descend(learning, [loss] * steps, RATE, decay)
    return {n: tuple(part.detach() for part in pair) for n, pair in own.items()}, np.array(rows)


def check_train_lora(answer, rng):
    import copy

    import torch

    from irlbook.exercises.chapters import _language as language

    start, seed = language.draw_start(rng), int(rng.integers(1000))
    model = language.book(start)[0]
    shapes = {
        name: tuple(weight.shape)
        for name, weight in model.state_dict().items()
        if weight.ndim == 2 and ".layers." in name
    }
    pairs = language.comparisons(PAIRS, rng)
    fresh = _fresh(shapes, RANK, rng)
    hint = 'return {"adapter": {name: (down, up), ...}, "history": [...]}'

    def run(adapter, pairs, epochs, seed, alpha=ALPHA, beta=BETA):
        got = expect_type(
            answer(start, adapter, alpha, pairs, beta, epochs, seed), Mapping, hint=hint
        )
        expect(
            set(got) == {"adapter", "history"},
            property="the result has the keys 'adapter' and 'history'",
            hint=hint,
        )
        steps = epochs * -(-len(pairs) // BATCH)
        history = as_array(
            got["history"],
            (steps, 2),
            what="`history`",
            hint="two numbers for each step, also for a last batch that is not full: the mean "
            "log-ratio of the chosen and of the rejected responses",
        )
        rank = len(next(iter(adapter.values()))[0])
        return expect_adapter(got["adapter"], shapes, rank, what="`adapter`"), history

    def gap(one, other, part: int) -> float:
        """How far two adapters' `down`s or `up`s are apart."""
        return math.sqrt(
            sum(float(((one[n][part] - np.asarray(other[n][part])) ** 2).sum()) for n in shapes)
        )

    def flat(adapter):
        """Its 28 tensors by name."""
        return {
            f"{name}, {part}": torch.as_tensor(value, dtype=torch.float32)
            for name, pair in adapter.items()
            for part, value in zip(("down", "up"), pair, strict=True)
        }

    few = pairs[:40]
    first, history = run(fresh, few, 1, seed)
    expect(
        gap(first, fresh, 1) > 1e-4,
        property="a step changes the adapter",
        hint="`loss.backward()`, then `optimizer.step()`; which tensors does the optimiser hold?",
    )
    expect(
        np.allclose(history[0], 0, atol=1e-3),
        property="with a fresh adapter all log-ratios of the first step are 0",
        hint="the policy is the model with the number `start`, with the adapter that was given. "
        "Which model is the reference, and is it scored on the same responses?",
    )
    expect(
        np.abs(history[1]).max() > 1e-4,
        property="after a step the log-ratios are not 0: the reference has no adapter",
        hint="is the reference scored with the adapter on?",
    )
    again, _ = run(fresh, few, 1, seed)
    expect(
        gap(first, again, 0) < 1e-4 and gap(first, again, 1) < 1e-4,
        property="the same seed gives the same adapter",
        hint="the order of the pairs is all that is random",
    )
    expect(
        gap(first, run(fresh, few, 1, seed + 1)[0], 1) > 1e-3,
        property="the pairs are shuffled, and another seed shuffles them differently",
        hint="`torch.randperm(n, generator=...)`",
    )
    # With one batch of pairs their order does not matter, so the steps can be computed here. The
    # adapter has been trained before, with another rank and another alpha.
    rank, alpha, beta, one_batch = RANK + 1, 1.5 * ALPHA, 2.0, pairs[:8]
    used = _fresh(shapes, rank, rng, up=0.02)
    got, history = run(used, one_batch, 3, seed, alpha, beta)

    def near(**slip) -> bool:
        settings = {"alpha": alpha, "beta": beta} | slip
        want, rows = _steps(start, used, pairs=one_batch, steps=3, **settings)
        off, shrunk = language.apart(flat(got), flat(want), flat(used))
        return np.allclose(history, rows, rtol=0.02, atol=0.01) and off < 0.05 and shrunk < 2e-5

    if not near():
        slips = {
            "the model's own weights learn, too": {"base_too": True},
            "alpha is not divided by the rank": {"alpha": alpha * rank},
            "alpha is fixed": {"alpha": ALPHA},
            "the rank is fixed in alpha / r": {"alpha": alpha * rank / RANK},
            "beta is fixed": {"beta": BETA},
            "`down` does not learn": {"learns": (0, 1)},
            "`up` does not learn": {"learns": (1, 0)},
            "the weights decay": {"decay": 0.01},
        }
        told = next((name for name, slip in slips.items() if near(**slip)), "")
        expect(
            False,
            property=f"with {len(one_batch)} pairs each epoch is one step on all of them, by AdamW "
            f"with a learning rate of {RATE:g} and no weight decay; the adapter learns, the "
            "model's own weights do not, and the history shows where the log-ratios stand before "
            "each step",
            hint="does each epoch take every pair once? Do you begin with the adapter that was "
            "given? Which tensors learn? Is the history computed on the step's own batch, before "
            "the step?",
            detail=f"it looks as if {told}" if told else "",
        )
    trained, _ = run(fresh, pairs, EPOCHS, seed)
    merged = copy.deepcopy(model)
    with torch.no_grad():
        for name, (down, up) in trained.items():
            low = torch.tensor(ALPHA / RANK * up @ down, dtype=torch.float32)
            merged.get_parameter(name).add_(low)
    found = language.measure(merged, start, rng)
    # KL first: a policy that has run away may have lost its gold, too.
    expect(
        found.kl <= KL,
        property=f"the policy is at most {KL:g} nats per response away from where it started",
        hint="which part of DPO's loss keeps the policy near the reference, and how strongly?",
        detail=f"the grader measured {found.kl:.1f} nats",
    )
    expect(
        found.gold >= GOLD,
        property=f"the merged policy's responses have a mean gold reward of at least {GOLD}",
        hint="print the two numbers of the history in each step: the gap between them should grow, "
        "and neither should run away",
        detail=f"the grader measured {found.gold:.2f}",
    )


register(
    Exercise(
        id="23L.4",
        title="The whole: align with a few per cent of the parameters",
        function="train_lora",
        points=5,
        difficulty=4,
        minutes=40,
        importance=5,
        goal="You can train a low-rank adapter by DPO with nothing but torch.",
        hints=(
            "The adapter's tensors are copied, told to learn, attached and given to the optimiser. "
            "Nothing else learns.",
            "`attach` changes the model that it gets. The reference is another model, loaded once "
            "more, to which nothing was attached.",
            "`requires_grad_(False)` on the model before you attach, `.clone().requires_grad_()` "
            "on each tensor of the adapter.",
        ),
        check=check_train_lora,
        rounds=1,
        seconds=90.0,
        without=BORROWED,
    )
)


# --- 23L.5 --------------------------------------------------------------------------------------


def check_draw_frontier(answer, rng):
    n, m = int(rng.integers(5, 8)), int(rng.integers(8, 12))
    strengths = np.sort(rng.choice(np.arange(1, 12), size=n - 2, replace=False)) / 4 + 1.1
    strengths = np.concatenate([[0.0, 1.0], strengths])
    kl = np.sort(rng.uniform(0.5, 8.0, size=n))
    kl[[-1, -2]] = kl[[-2, -1]]  # samples are noisy: KL need not rise with the strength
    gold = rng.normal(size=n) + 1.0
    tilt_kl, tilt_gold = np.sort(rng.uniform(0, 2, size=m)), np.sort(rng.uniform(0, 2, size=m))
    order = rng.permutation(n)
    (panel,) = expect_picture(
        answer(strengths[order], kl[order], gold[order], tilt_kl, tilt_gold),
        hint="one pair of axes is enough",
    ).axes
    expect_line(
        panel,
        kl,
        gold,
        property="one line goes through the adapter's (KL, gold), from the smallest strength to "
        "the largest",
        hint="the points come in any order: `np.argsort`. Of which of the three arrays?",
    )
    expect_points(
        panel,
        kl,
        gold,
        property="each measured strength is a point",
        hint="`marker='o'`: a reader must see what was measured and what was only joined",
    )
    expect_line(
        panel,
        tilt_kl,
        tilt_gold,
        property="another line shows the tilt's (KL, gold)",
        hint="it is exact for the start's samples and needs no markers",
    )
    expect_legend(
        panel,
        {"adapter": gold, "tilt": tilt_gold},
        property="a legend names both lines, differently and rightly",
    )
    expect_points(
        panel,
        kl[1:2],
        gold[1:2],
        property="strength 1, the policy that was trained, has a point of its own",
        hint="`ax.scatter` of the one point at which the strength is 1",
    )
    expect(
        "nat" in panel.xlabel.lower(),
        property="the label of the x axis gives the unit",
        hint="a KL of responses is measured in nats per response",
    )


register(
    Exercise(
        id="23L.5",
        title="The picture: a frontier from one adapter",
        kind="figure",
        function="draw_frontier",
        points=2,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can draw what a policy's gold costs beside the cheapest way to the same gold.",
        hints=(
            "KL stands on the x axis, gold on the y axis, and the strength decides the order.",
            "One call of `ax.plot` for each line, with `label`, and one of `ax.scatter`.",
            "`order = np.argsort(strengths)` sorts both arrays of the adapter's line.",
        ),
        check=check_draw_frontier,
    )
)


# --- 23L.6 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="23L.6",
        title="Explain your picture",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say what an adapter saves, what its strength does, and what can go wrong.",
        hints=(
            "Four things take memory in training: the weights, their gradients, the two averages "
            "of AdamW, and the reference. Which of these does LoRA make smaller?",
            "At strength 0 the model is the start. What does the loss say about strengths above 1?",
            "Write the gradient of `up` and that of `down` where one of the two is zero.",
        ),
        rubric=(
            Criterion(
                1,
                "reads the picture as it is: gold rises steeply with the strength and flattens or "
                "turns, while KL goes on growing; the tilt lies above the line",
            ),
            Criterion(
                1,
                "why the gap: the tilt weights by gold itself; the adapter learned from noisy "
                "pairs, and its log-ratio moves where gold does not, which costs KL",
            ),
            Criterion(
                1,
                "what LoRA saves: gradients and optimiser state for a few per cent of the "
                "parameters, and the reference is the same model without the adapter; the forward "
                "and backward pass still go through the whole model",
            ),
            Criterion(
                1,
                "with both matrices zero both gradients are zero for ever; with neither zero the "
                "policy is not the start, and the first log-ratios are not 0",
            ),
            Criterion(
                1,
                "a merge without alpha / r is a model of another strength on the same line, which "
                "no error tells; compare merged and unmerged on a batch. With the adapter on in "
                "the reference all log-ratios are 0 and the loss stays at log 2",
            ),
        ),
    )
)
