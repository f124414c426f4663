"""Exercises of chapter 14: direct preference optimisation and its relatives."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_length, expect_type


def _log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -np.asarray(x))


def _log_softmax(x: np.ndarray) -> np.ndarray:
    top = x.max(axis=-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis=-1, keepdims=True))


# --- 14.1 ---------------------------------------------------------------------------------------


def check_dpo_losses(answer, rng):
    pairs, tokens = int(rng.integers(4, 7)), int(rng.integers(6, 10))
    beta = float(rng.uniform(0.2, 0.6))
    policy = -rng.uniform(0.1, 4.0, size=(pairs, 2, tokens))
    reference = -rng.uniform(0.1, 4.0, size=(pairs, 2, tokens))
    lengths = rng.integers(2, tokens + 1, size=(pairs, 2))
    lengths[0] = (2, tokens - 1)  # unequal at least once
    mask = np.arange(tokens) < lengths[:, :, None]
    mask[1::2] = mask[1::2, :, ::-1]  # some pairs are padded on the left
    mask[-1, :, 1] ^= True  # ... and the last has holes

    def h(pi=policy, ref=reference, use=mask, scale=beta, mean=False):
        ratio = np.where(use, pi - ref, 0.0).sum(axis=2)
        ratio = scale * ratio / (use.sum(axis=2) if mean else 1.0)
        return ratio[:, 0] - ratio[:, 1]

    want = -_log_sigmoid(h())
    everything, nothing = np.ones_like(mask), np.zeros_like(reference)
    expect_close(
        answer(policy, reference, mask, beta),
        want,
        property="each pair costs -log sigma(h), with h as in (14.5)",
        hint="sum over tokens first; then policy against reference; then chosen against rejected",
        mistakes={
            "the minus sign is missing: this falls as the policy gets worse": -want,
            "chosen and rejected are exchanged": -_log_sigmoid(-h()),
            "you took as many tokens from the left as the mask counts; padding may stand there": (
                -_log_sigmoid(h(use=np.arange(tokens) < mask.sum(axis=2)[:, :, None]))
            ),
            "you averaged over the tokens": -_log_sigmoid(h(mean=True)),
            "padding is counted": -_log_sigmoid(h(use=everything)),
            "the reference is missing": -_log_sigmoid(h(ref=nothing)),
            "beta divides; it must multiply": -_log_sigmoid(h(scale=1 / beta)),
            "beta is missing": -_log_sigmoid(h(scale=1.0)),
            "beta stands in front of the loss, not in h": -beta * _log_sigmoid(h(scale=1.0)),
            "you averaged over the pairs": np.full(pairs, want.mean()),
        },
    )
    expect_close(
        answer(policy, policy, mask, beta),
        np.full(pairs, np.log(2)),
        property="where policy and reference agree, every pair costs log 2",
        hint="what is h there?",
    )
    for junk in (-np.inf, 0.0, np.nan):
        for ours, theirs in ((junk, junk), (junk, -1.0), (-2.0, junk)):
            got = answer(
                np.where(mask, policy, ours), np.where(mask, reference, theirs), mask, beta
            )
            expect(
                not (isinstance(got, np.ndarray) and got.dtype.kind == "f" and np.isnan(got).any()),
                property="what stands in the padding does not matter",
                hint="-inf minus -inf, or -inf times 0, is not a number: choose before you add up",
                detail="the loss holds NaN",
            )
            expect_close(
                got,
                want,
                property="what stands in the padding does not matter",
                hint="change a padded entry of each argument by hand: what moves?",
            )
    far = policy.copy()
    far[:, 0] -= 8000.0
    got = as_array(answer(far, reference, mask, beta), (pairs,), what="the loss of a hopeless pair")
    expect_close(
        got,
        -_log_sigmoid(h(pi=far)),
        property="a pair that is wrong by thousands of nats has a finite loss",
        hint="-log sigma(h) = log(1 + exp(-h)): numpy has a function that does not overflow",
    )


register(
    Exercise(
        id="14.1",
        title="DPO from token log-probabilities",
        function="dpo_losses",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can write DPO's loss so that lengths, padding and large margins are right.",
        hints=(
            "Three differences and one sum: which one comes first? Look at (14.5).",
            "Make the padding harmless in both inputs before you subtract anything; then sum over "
            "the last axis, without dividing by the length.",
            "The loss of a pair is log(1 + exp(-h)), and `np.logaddexp` adds in log space: one of "
            "its arguments is 0.",
        ),
        check=check_dpo_losses,
    )
)


# --- 14.2 ---------------------------------------------------------------------------------------


def check_mended_box(answer, rng):
    n = int(rng.integers(4, 7))
    reward, b = (
        rng.normal(size=n),
        float(rng.uniform(0.3, 0.6)),
    )
    log_reference = np.log(rng.dirichlet(np.full(n, 2.0)))
    log_policy = np.log(rng.dirichlet(np.full(n, 2.0)))
    wins = rng.integers(0, 9, size=(n, n)).astype(float)
    wins[0, 1] = 9.0
    np.fill_diagonal(wins, 0.0)

    def tilt(weight, base):
        return base + weight * reward - np.logaddexp.reduce(base + weight * reward)

    def choice(scale, base):
        implicit = scale * (log_policy - base)
        return implicit[:, None] - implicit[None, :]

    got = expect_length(
        answer(reward, log_reference, b, log_policy, wins),
        3,
        hint="return three things: log_optimum, probabilities, loss",
    )
    none = np.zeros(n)
    expect_close(
        got[0],
        tilt(b, log_reference),
        what="`log_optimum`",
        property="the optimum is the reference, tilted by exp(b r), and sums to one",
        hint="(14.2), with b for 1/beta; which of the box's three lines has lost the reference?",
        mistakes={
            "the reference is missing, as in the survey's first line": tilt(b, none),
            "b divides the reward; as an inverse price it multiplies": tilt(1 / b, log_reference),
            "it is not normalised": log_reference + b * reward,
            "these are probabilities, not their logarithms": np.exp(tilt(b, log_reference)),
        },
    )
    expect_close(
        got[1],
        np.exp(_log_sigmoid(choice(1 / b, log_reference))),
        what="`probabilities`",
        property="choices follow Bradley and Terry with the policy's implicit reward",
        hint="solve your first line for r; is it b or 1/b that stands before the log-ratio?",
        mistakes={
            "b multiplies the log-ratio, as in the survey's third line": np.exp(
                _log_sigmoid(choice(b, log_reference))
            ),
            "the reference is missing": np.exp(_log_sigmoid(choice(1 / b, none))),
            "i and j are exchanged": np.exp(_log_sigmoid(-choice(1 / b, log_reference))),
            "these are logarithms of probabilities": _log_sigmoid(choice(1 / b, log_reference)),
            "you used the reward; the policy must speak for itself": 1
            / (1 + np.exp(reward[None, :] - reward[:, None])),
        },
    )
    log_p = _log_sigmoid(choice(1 / b, log_reference))
    total = (wins * log_p).sum()
    expect_close(
        got[2],
        -total / wins.sum(),
        what="`loss`",
        property="the loss is minus the mean log-likelihood of the choices",
        hint="a loss is minimised: should a likely choice make it larger or smaller?",
        mistakes={
            "the minus sign is missing, as in the survey": total / wins.sum(),
            "it is a sum, not a mean over choices": -total,
            "it is a mean over the cells of the table, not over choices": -(wins * log_p).mean(),
            "who wins and who loses is exchanged": -(wins.T * log_p).sum() / wins.sum(),
        },
    )
    # Consistent: the optimum's own choices are those of the reward (here for a b above 1).
    b = float(rng.uniform(1.8, 3.5))
    best = tilt(b, log_reference)
    got = expect_length(answer(reward, log_reference, b, best, wins), 3, hint="return three things")
    expect_close(
        got[1],
        1 / (1 + np.exp(reward[None, :] - reward[:, None])),
        what="`probabilities` of the optimum",
        property="put the optimum in, and Bradley and Terry's choices by the reward come out",
        hint="the three lines must be in one convention: follow the factor b through them",
    )


register(
    Exercise(
        id="14.2",
        title="The survey's DPO box, corrected",
        function="mended_box",
        points=4,
        difficulty=3,
        minutes=25,
        importance=4,
        goal="You can follow a temperature, a reference and a sign through a derivation.",
        hints=(
            "Write the optimum with b, then solve it for the reward before anything else.",
            "r = (1/b) log(policy / reference) + a constant. The constant leaves every difference.",
            "For the loss, weigh log-probabilities of choices by how often each was made, divide "
            "by the number of choices, and think about the sign.",
        ),
        check=check_mended_box,
    )
)


# --- 14.3 ---------------------------------------------------------------------------------------


def _rest(loss: str, p: float, epsilon: float) -> float:
    """(14.13)."""
    if loss == "ipo":
        return p - 0.5
    if loss == "conservative":
        p = (1 - epsilon) * p + epsilon * (1 - p)
    if loss == "robust":
        p = (p - epsilon) / (1 - 2 * epsilon)
    if p >= 1 or p <= 0:
        return np.inf if p >= 1 else -np.inf
    return float(np.log(p / (1 - p)))


def check_contented_h(answer, rng):
    for p in (float(rng.uniform(0.55, 0.8)), float(rng.uniform(0.25, 0.45)), 0.5):
        epsilon = float(rng.uniform(0.08, 0.15))
        odds = float(np.log(p / (1 - p)))
        expect_close(
            answer("dpo", p, 0.0),
            odds,
            property="DPO rests where the policy's belief is the share of wins",
            hint="set the derivative of -p log s(h) - (1 - p) log s(-h) to zero",
            mistakes={
                "this is the share itself, not the h that gives it": p,
                "the sign is turned": -odds,
                "these are the odds, not their logarithm": p / (1 - p),
                "this is half the log-odds": odds / 2,
            },
        )
        expect_close(
            answer("ipo", p, 0.0),
            p - 0.5,
            property="IPO rests within half a unit",
            hint="minimise p (h - 1/2)^2 + (1 - p) (h + 1/2)^2: where is the mean?",
            mistakes={
                "that is the answer for a pair that always wins": 0.5,
                "this is twice too much": 2 * p - 1,
                "this is DPO's answer": odds,
            },
        )
        mixed = _rest("conservative", p, epsilon)
        mended = _rest("robust", p, epsilon)
        expect_close(
            answer("conservative", p, epsilon),
            mixed,
            property="conservative DPO rests at the log-odds of a share with more flips",
            hint="collect what stands before log s(h): it has a part from p and one from 1 - p",
            mistakes={
                "epsilon is missing": odds,
                "this is the answer of robust DPO": mended,
                "that is the answer for a pair that always wins": float(
                    np.log((1 - epsilon) / epsilon)
                ),
            },
        )
        expect_close(
            answer("robust", p, epsilon),
            mended,
            property="robust DPO rests at the log-odds of the share before the flips",
            hint="a clean share c is seen as (1 - e) c + e (1 - c): solve for c",
            mistakes={
                "epsilon is missing": odds,
                "this is the answer of conservative DPO": mixed,
            },
        )
    epsilon = float(rng.uniform(0.1, 0.2))
    p = float(rng.uniform(0.55, 0.8))
    for loss, right in (("dpo", np.log(p / (1 - p))), ("ipo", p - 0.5)):
        expect_close(
            answer(loss, p, epsilon),
            float(right),
            property=f"epsilon changes nothing in {loss!r}, which assumes no flips",
            hint="which of the four losses hold an epsilon?",
        )
    for loss in ("conservative", "robust"):
        expect_close(
            answer(loss, p),
            float(np.log(p / (1 - p))),
            property=f"without flips (epsilon = 0) {loss!r} rests where DPO does",
            hint="put epsilon = 0 in",
        )
    for p in (0.0, 1.0):
        got = as_array(answer("ipo", p, 0.0), (), what="h", finite=False)
        expect(
            np.isclose(got, p - 0.5),
            property="IPO is content at a finite h even with a pair that always wins or loses",
            hint="its loss is a parabola",
        )
    for loss, p, want in (
        ("dpo", 1.0, np.inf),
        ("conservative", 1.0, np.inf),
        ("conservative", 0.0, -np.inf),
        ("robust", 1.0, np.inf),
        ("robust", 0.0, -np.inf),
        ("dpo", 0.0, -np.inf),
        ("robust", 1.0 - epsilon / 2, np.inf),
        ("robust", epsilon / 2, -np.inf),
    ):
        flips = 0.0 if loss == "conservative" else epsilon  # without flips it falls for ever, too
        got = expect_type(
            answer(loss, p, flips), (int, float, np.floating), hint="return one number, a float"
        )
        expect(
            got == want,
            property="where a loss falls without end the answer is infinite, with the right sign",
            hint="what share would the clean labels have? It cannot lie outside 0 and 1",
            detail=f"{loss}, p = {p:.3f}, epsilon = {flips:.3f}",
        )
    for p, sign in ((1.0, 1.0), (0.0, -1.0)):
        got = as_array(answer("conservative", p, epsilon), (), what="h", finite=False)
        expect(
            np.isclose(got, sign * np.log((1 - epsilon) / epsilon)),
            property="conservative DPO is content even with a pair that always wins or loses",
            hint="which share does it see when every label agrees?",
        )


register(
    Exercise(
        id="14.3",
        title="What is each loss content with?",
        function="contented_h",
        points=3,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can tell what a loss of the family makes of labels that disagree.",
        hints=(
            "Each label is seen from one side or the other: weigh f(h) by p, f(-h) by 1 - p.",
            "Three of the four are log-odds of some share. For conservative DPO labels are flipped "
            "once more; for robust DPO the flips are undone.",
            "A share at or beyond 0 or 1 has no finite log-odds. IPO is a mean of two targets.",
        ),
        check=check_contented_h,
    )
)


# --- 14.4 ---------------------------------------------------------------------------------------


def _components(n: int, pairs: np.ndarray) -> np.ndarray:
    label = np.arange(n)
    for i, j in pairs:
        label[label == label[j]] = label[i]
    return label[:, None] == label[None, :]


def check_fixed_ratios(answer, rng):
    n = int(rng.integers(27, 30))
    names = rng.permutation(n)
    chain = np.stack([names[:19], names[1:20]], axis=1)  # twenty in a row, known over many steps
    star = np.stack([names[[20, 20]], names[[21, 22]]], axis=1)  # three in one; the rest alone
    pairs = rng.permutation(np.concatenate([chain, star]))
    flip = rng.random(len(pairs)) < 0.5
    pairs[flip] = pairs[flip][:, ::-1]
    want = _components(n, pairs)
    got = as_array(answer(n, pairs), (n, n), what="the table").astype(bool)
    direct = np.eye(n, dtype=bool)
    direct[pairs[:, 0], pairs[:, 1]] = direct[pairs[:, 1], pairs[:, 0]] = True
    expect(
        bool(np.diag(got).all()),
        property="the ratio of a response to itself is always fixed",
        hint="it is 1, also for a response that nobody compared",
    )
    expect(
        bool((got == got.T).all()),
        property="if the ratio of i to j is fixed, so is that of j to i",
        hint="one is the inverse of the other",
    )
    expect(
        bool((got | ~direct).all()),
        property="two responses that were compared have a fixed ratio",
        hint="(14.7): what is h at the minimum?",
    )
    expect(
        not bool((got & ~want).any()),
        property="responses that no chain of comparisons connects have no fixed ratio",
        hint="can a policy move mass from one group to another without changing any h?",
    )
    expect(
        bool((got | ~want).all()),
        property="a chain of comparisons, however long, fixes the ratio of its ends",
        hint="log-ratios add up along the chain",
    )
    none = as_array(answer(3, np.zeros((0, 2), dtype=int)), (3, 3), what="the table of no pairs")
    expect(
        bool((none.astype(bool) == np.eye(3, dtype=bool)).all()),
        property="without pairs nothing is fixed but the diagonal",
        hint="start from what is known before any comparison",
    )


register(
    Exercise(
        id="14.4",
        title="What do these pairs leave free?",
        function="fixed_ratios",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can say what a set of comparisons determines, and what it leaves to chance.",
        hints=(
            "Draw responses as dots and comparisons as lines. What does (14.9) say of two dots?",
            "If a to b is known and b to c is known, then a to c is known: log-ratios add.",
            "Start with the diagonal and the pairs, both ways; then let every response in turn "
            "serve as a stop on the way from one to another.",
        ),
        check=check_fixed_ratios,
    )
)


# --- 14.5 ---------------------------------------------------------------------------------------


def check_response_logp(answer, rng):
    rows, width, vocabulary = int(rng.integers(3, 6)), int(rng.integers(9, 13)), 6
    pad = int(rng.integers(vocabulary))
    starts = rng.integers(1, 4, size=rows)
    starts[1] = 3
    ends = starts + rng.integers(2, 5, size=rows)
    ends[0] = width  # one row without padding
    ids = rng.integers(vocabulary, size=(rows, width))
    place = np.arange(width)
    inside = (place >= starts[:, None]) & (place < ends[:, None])
    ids[inside & (ids == pad)] = (pad + 1) % vocabulary
    ids[0, ends[0] - 3] = pad  # what a token is says nothing: this one is inside the response
    ids[:, 0] = pad  # ... and these are in the prompt
    ids[np.arange(rows), ends - 1] = pad  # the end token
    ids[place >= ends[:, None]] = pad
    logits = 2 * rng.normal(size=(rows, width, vocabulary))
    log_p = _log_softmax(logits)
    shifted = np.zeros((rows, width))
    shifted[:, 1:] = np.take_along_axis(log_p[:, :-1], ids[:, 1:, None], axis=2)[:, :, 0]
    same_place = np.take_along_axis(log_p, ids[:, :, None], axis=2)[:, :, 0]
    raw = np.zeros((rows, width))
    raw[:, 1:] = np.take_along_axis(logits[:, :-1], ids[:, 1:, None], axis=2)[:, :, 0]

    def total(steps, use=inside):
        return np.where(use, steps, 0.0).sum(axis=1)

    want = total(shifted)
    expect_close(
        answer(logits, ids, starts, ends, pad),
        want,
        property="log pi(y|x) sums every token of the response, its end token too, and no other",
        hint="go through one short row by hand: which of its tokens does each mask let through?",
        mistakes={
            "the end token is not counted: it has the pad's id": total(
                shifted, inside & (ids != pad)
            ),
            "pads are counted": total(shifted, place >= starts[:, None]),
            "the first token of the response is not counted": total(
                shifted, inside & (place > starts[:, None])
            ),
            "the last token of the prompt is counted": total(
                shifted, (place >= starts[:, None] - 1) & (place < ends[:, None])
            ),
            "the whole prompt is counted": total(shifted, place < ends[:, None]),
            "logits at a place score the token at the same place": total(same_place),
            "these are logits, not log-probabilities": total(raw),
            "you took the mean over the tokens": want / (ends - starts),
        },
    )
    for constant in (5000.0, -5000.0, 5000.0 * np.where(place % 2, 1.0, -1.0)[None, :, None]):
        expect_close(
            answer(logits + constant, ids, starts, ends, pad),
            want,
            rtol=1e-6,
            atol=1e-6,
            property="a constant added to all logits of a place changes nothing",
            hint="keep the maximum of each place out of the exponential",
        )
    wider = np.concatenate([logits, rng.normal(size=(rows, 3, vocabulary))], axis=1)
    longer = np.concatenate([ids, np.full((rows, 3), pad)], axis=1)
    expect_close(
        answer(wider, longer, starts, ends, pad),
        want,
        property="more padding changes nothing",
        hint="what tells a pad from the end token, if not its id?",
    )


register(
    Exercise(
        id="14.5",
        title="The model that never stops",
        kind="bug hunt",
        function="response_logp",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can find a mask that loses the end token, and mask by length.",
        hints=(
            "Compare the two ways in which a row ends: with its end token, and with pads.",
            "Print the mask for the row in the notebook, beside the ids. Which True is missing?",
            "An id cannot tell a pad from an end token when they are the same; a place can.",
        ),
        check=check_response_logp,
    )
)


# --- 14.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="14.6",
        title="Bug, or displacement?",
        kind="written",
        points=4,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can read a DPO run, and say what its data can and cannot teach.",
        hints=(
            "What does the loss depend on: the log-probability of a response, or a difference?",
            "The margin says nothing about responses outside the data. What does?",
            "(14.9): which policies have the same loss on these pairs?",
        ),
        rubric=(
            Criterion(1, "a falling chosen log-probability is displacement, not proof of a bug"),
            Criterion(1, "looks at the policy's own samples (quality, length, KL), not the margin"),
            Criterion(1, "more pairs of other models do not fix what the policy writes; iterate"),
            Criterion(1, "names a cheap check, such as batch or padding invariance"),
        ),
    )
)
