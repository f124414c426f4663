"""Exercises of chapter 18: alignment from demonstrations."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_distribution
from irlbook.tasks.recital import Recital

# --- 18.1 ---------------------------------------------------------------------------------------


def check_log_ratio(answer, rng):
    n = int(rng.integers(6, 10))
    p, q = np.log(rng.dirichlet(np.full(n, 2.0), size=2))
    never, both = rng.choice(n, 2, replace=False)
    p[never] = -np.inf  # only the opponent writes it
    p -= np.logaddexp.reduce(p)
    p[both] = q[both] = -np.inf  # nobody writes it
    p, q = p - np.logaddexp.reduce(p), q - np.logaddexp.reduce(q)
    with np.errstate(invalid="ignore"):
        want = np.where(np.isneginf(q), 0.0, p - q)
    finite = np.isfinite(want)
    got = as_array(answer(p, q), (n,), what="the reward", finite=False)
    expect_close(
        got[finite],
        want[finite],
        what="the reward of responses that somebody writes, and 0 where nobody does",
        property="the reward is log D - log(1 - D) of the best discriminator (18.4)",
        hint="put D = p / (p + q) in and simplify; what is -inf less -inf?",
        mistakes={
            "demonstrator and opponent are exchanged": -want[finite],
            "it is log D alone": lambda: np.where(np.isneginf(q), 0.0, p - np.logaddexp(p, q))[
                finite
            ],
            "it is -log(1 - D) alone": lambda: np.where(
                np.isneginf(q), 0.0, np.logaddexp(p, q) - q
            )[finite],
            "it is the density ratio, without the logarithm": lambda: np.where(
                np.isneginf(q), 0.0, np.exp(p - np.where(np.isneginf(q), 0, q))
            )[finite],
        },
    )
    expect(
        bool(np.isneginf(got[never])),
        property="what the demonstrator never writes and the opponent does is worth minus infinity",
        hint="there the discriminator is certain",
    )
    far = np.array([0.0, *(-2000.0 * rng.uniform(0.9, 1.1, size=3))])
    opponent = np.array([*np.log([0.5, 0.5]), *(-1500.0 * rng.uniform(0.9, 1.1, size=2))])
    expect_close(
        answer(far, opponent),
        far - opponent,
        what="the reward where a probability underflows",
        property="the reward is right where exp(log p) is 0 on a computer",
        hint="stay with logarithms: never form D",
    )


register(
    Exercise(
        id="18.1",
        title="The reward of the best discriminator",
        function="log_ratio",
        points=3,
        difficulty=1,
        minutes=15,
        importance=5,
        goal="You can say what an adversarial reward pays without training anything.",
        hints=(
            "log D - log(1 - D) = log(D / (1 - D)).",
            "With D = p / (p + q) the fraction is p / q.",
            "Where log q is -inf, choose 0 with np.where before you subtract.",
        ),
        check=check_log_ratio,
    )
)


# --- 18.2 ---------------------------------------------------------------------------------------


def check_shared_rows(answer, rng):
    n_states, n_tokens, n_groups = int(rng.integers(6, 10)), int(rng.integers(3, 5)), 3
    groups = np.concatenate([np.arange(n_groups), rng.integers(n_groups, size=n_states - n_groups)])
    groups = rng.permutation(groups)
    rho = rng.dirichlet(np.full(n_tokens, 1.0), size=n_states) * rng.uniform(0.01, 1, (n_states, 1))
    again = np.flatnonzero(np.bincount(groups)[groups] > 1)
    rho[rng.choice(again)] = 0.0  # a prefix that is never reached, in a group that is

    def rows(weights):
        total = np.zeros((n_groups, n_tokens))
        np.add.at(total, groups, weights)
        return total / np.maximum(total.sum(axis=1, keepdims=True), 1e-300)

    def conditional(x):
        total = x.sum(axis=1, keepdims=True)
        return np.divide(x, total, out=np.zeros_like(x), where=total > 0)

    want = rows(rho)
    got = answer(rho, groups)
    expect_close(
        got,
        want,
        property="a shared row is the average, weighed by how often the prefixes are passed (18.3)",
        hint="add up occupancies in a group first, divide afterwards",
        mistakes={
            "all prefixes of a group count alike": rows(conditional(rho)),
            "it is not divided by the group's total": lambda: (
                rows(rho) * np.array([[rho[groups == g].sum()] for g in range(n_groups)])
            ),
            "it is divided by the number of prefixes": lambda: np.array(
                [rho[groups == g].mean(axis=0) for g in range(n_groups)]
            ),
            "tokens add up to 1 over groups": lambda: (
                rows(rho) / rows(rho).sum(axis=0, keepdims=True)
            ),
        },
    )
    empty = np.where((groups == 1)[:, None], 0.0, rho)
    expect_close(
        as_array(answer(empty, groups), (n_groups, n_tokens), what="the rows")[1],
        np.full(n_tokens, 1 / n_tokens),
        what="the row of a group that nobody visits",
        property="a group without data keeps a uniform row",
        hint="0 / 0 is not a probability",
    )


register(
    Exercise(
        id="18.2",
        title="What SFT makes of a small model",
        function="shared_rows",
        points=3,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can compute the minimum of the forward KL where prefixes must share a row.",
        hints=(
            "`np.add.at(total, groups, rho)` adds the rows of each group.",
            "Divide by the sum over tokens, once, at the end.",
            "Where that sum is 0, return 1 / n_tokens.",
        ),
        check=check_shared_rows,
    )
)


# --- 18.3 ---------------------------------------------------------------------------------------


def check_spin_round(answer, rng):
    from irlbook.posttraining.spin import spin_update  # it loads torch

    n = int(rng.integers(5, 9))
    p, q = np.log(rng.dirichlet(np.full(n, 2.0), size=2))
    lam = float(rng.choice([0.4, 0.7, 2.5]) * rng.uniform(0.95, 1.05))
    want = spin_update(p, q, lam)

    def normalised(x):
        return x - np.logaddexp.reduce(x)

    got = as_array(answer(p, q, lam), (n,), what="the log-probabilities")
    expect_close(
        got,
        want,
        property="the round is pi_t (p_E / pi_t)^(1 / lambda), normalised (18.9)",
        hint="add logarithms, divide the ratio, subtract one log-sum-exp",
        mistakes={
            "it is not normalised": q + (p - q) / lam,
            "lambda multiplies": normalised(q + lam * (p - q)),
            "the opponent is missing as reference": normalised((p - q) / lam),
            "demonstrator and opponent are exchanged": normalised(p + (q - p) / lam),
            "these are probabilities; return logarithms": np.exp(want),
            "lambda is ignored: that is the round at lambda = 1": p,
        },
    )
    with np.errstate(divide="ignore"):
        few = np.log(np.where(np.arange(n) == 0, 0.0, np.exp(p)))
    few = normalised(few)
    expect_close(
        np.exp(as_array(answer(few, q, 2.0), (n,), what="the answer", finite=False)),
        np.exp(spin_update(few, q, 2.0)),
        what="the probabilities where a response was never demonstrated",
        property="what was never demonstrated has probability 0 after a round",
        hint="log 0 is -inf, and -inf / lambda is -inf",
    )
    expect(
        bool(np.isneginf(as_array(answer(few, q, 2.0), (n,), finite=False)[0])),
        property="the log-probability of what was never demonstrated is minus infinity",
        hint="log 0 is -inf, and -inf / lambda is -inf",
    )
    deep = normalised(np.concatenate([p[:-1], [-900.0]]))
    expect_close(
        answer(deep, q, 0.5),
        spin_update(deep, q, 0.5),
        what="the log-probabilities where a demonstration is next to impossible",
        property="no log-probability is lost to underflow",
        hint="do not go through probabilities",
    )


register(
    Exercise(
        id="18.3",
        title="A round of SPIN",
        function="spin_round",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can compute what self-play on demonstrations converges to, and how fast.",
        hints=(
            "log pi_t + (log p_E - log pi_t) / lambda, up to a constant.",
            "The constant is minus the log-sum-exp of that.",
            "np.logaddexp.reduce(x) is a stable log-sum-exp.",
        ),
        check=check_spin_round,
    )
)


# --- 18.4 ---------------------------------------------------------------------------------------


def check_worst_of(answer, rng):
    m, n, k = int(rng.integers(3, 5)), int(rng.integers(30, 40)), int(rng.integers(5, 9))
    scale = rng.uniform(0.5, 5.0, size=(m, 1, 1))
    zero = 2 * rng.normal(size=(m, 1, 1))
    shift = np.linspace(-1.0, 1.0, m)[:, None, None] * scale  # candidates are not the usual ones
    usual = scale * rng.normal(size=(m, 40, 1)) + zero
    usual = usual[:, :, 0]
    rewards = scale * rng.normal(size=(m, n, k)) + zero + shift
    centre, spread = usual.mean(axis=1)[:, None, None], usual.std(axis=1)[:, None, None]
    z = (rewards - centre) / spread
    own = (rewards - rewards.mean(axis=(1, 2), keepdims=True)) / rewards.std(
        axis=(1, 2), keepdims=True
    )
    got = as_array(answer(rewards, usual), (n,), what="the chosen responses")
    expect_close(
        got,
        z.min(axis=0).argmax(axis=1),
        what="the chosen responses",
        property="each prompt gets the response whose worst standardised reward is best",
        hint="standardise with the usual samples, then the minimum over rewards, then the best",
        mistakes={
            "the rewards have different zeros and units": rewards.min(axis=0).argmax(axis=1),
            "it is the mean of the rewards": z.mean(axis=0).argmax(axis=1),
            "it is the best of the rewards: that is optimism": z.max(axis=0).argmax(axis=1),
            "it is the response with the worst reward": z.min(axis=0).argmin(axis=1),
            "zeros are shifted and units are not": (rewards - centre).min(axis=0).argmax(axis=1),
            "units are scaled and zeros are not": (rewards / spread).min(axis=0).argmax(axis=1),
            "it is standardised on the candidates, not on the usual samples": (
                own.min(axis=0).argmax(axis=1)
            ),
        },
    )


register(
    Exercise(
        id="18.4",
        title="Find the silent bug: the worst of three rewards",
        kind="bug hunt",
        function="pick_by_worst",
        points=4,
        difficulty=3,
        minutes=25,
        importance=4,
        goal="You can combine rewards of different zeros and units pessimistically.",
        hints=(
            "Print the mean of each reward. Which one is always the smallest?",
            "A minimum compares rewards; can these be compared as they are?",
            "Subtract each reward's mean over `usual` and divide by its standard deviation there.",
        ),
        check=check_worst_of,
    )
)


# --- 18.5 ---------------------------------------------------------------------------------------


def check_on_policy_rows(answer, rng):
    world = Recital(notes=int(rng.integers(5, 8)), pieces=2, seed=int(rng.integers(1000)))
    size, n_states = world.vocabulary, world.n_states
    table = rng.dirichlet(np.full(size, 0.4), size=n_states)
    prompts = world.prompts(6, rng)
    texts = [world.write(table, x, 12, rng) for x in prompts]
    heard = [world.hear(x, y) for x, y in zip(prompts, texts, strict=True)]
    states = np.concatenate([h.states for h in heard])
    n_states += 2  # nobody visits the last ones
    rows = np.concatenate([h.rows for h in heard])
    written = np.concatenate([np.asarray(y) for y in texts])

    def fit(targets, keep=None):
        total = np.full((n_states, size), 0.5 / size)
        chosen = slice(None) if keep is None else keep
        np.add.at(total, states[chosen], targets[chosen])
        return total / total.sum(axis=1, keepdims=True)

    wrong = np.concatenate([h.mistake for h in heard])
    lost = np.concatenate([h.lost for h in heard])
    want = fit(rows)
    got = answer(states, rows, written, n_states)
    expect_distribution(got, (n_states, size), what="the table", hint="each row is a distribution")
    unseen = np.setdiff1d(np.arange(n_states), states)  # never empty: two were added
    expect_close(
        as_array(got, (n_states, size))[unseen],
        np.full((len(unseen), size), 1 / size),
        what="the rows of states that were not visited",
        property="a state without a visit keeps a uniform row",
        hint="half a visit, spread evenly, is added to every state",
    )
    expect_close(
        got,
        want,
        what="the table",
        property="a row is the mean of what the teacher would do at the visits to its state",
        hint="the student's text says where; whose distribution is copied there?",
        mistakes={
            "it copies what the student wrote": fit(np.eye(size)[written]),
            "places after a mistake were left out: that is what SFT sees": lambda: fit(rows, ~lost),
            "places where the student erred were left out": lambda: fit(rows, ~wrong),
            "it copies the teacher's likeliest token only": lambda: fit(
                np.eye(size)[rows.argmax(axis=1)]
            ),
        },
    )


register(
    Exercise(
        id="18.5",
        title="A step of on-policy distillation",
        function="distilled_table",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can say which texts and which labels on-policy distillation trains on.",
        hints=(
            "Start from a table filled with 0.5 / V.",
            "Add the teacher's distribution to the row of each visited state.",
            "Divide each row by its sum.",
        ),
        check=check_on_policy_rows,
    )
)


# --- 18.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="18.6",
        title="Who wrote it?",
        kind="written",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can plan a test that tells a reward for quality from a reward for authorship.",
        hints=(
            "By (18.6), what does an accuracy near 100 % show, and what does it not show?",
            "Which edit of a text changes a habit of the authors and leaves the quality?",
            "Which negatives would you take instead, and which habits would remain?",
        ),
        rubric=(
            Criterion(1, "An accuracy near 100 % says only that the two sides differ, by (18.6)."),
            Criterion(1, "A test of authorship: edits that change a habit and not the quality."),
            Criterion(
                1, "A test of quality that is independent: held-out prompts, gold or people."
            ),
            Criterion(
                1, "A change of the data: Init-SFT or other negatives, and what it cannot do."
            ),
        ),
    )
)
