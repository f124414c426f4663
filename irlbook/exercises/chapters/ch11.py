"""Exercises of chapter 11: reward models."""

from __future__ import annotations

import itertools

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_length
from irlbook.posttraining.evaluation import best_of_n_gold, expected_calibration_error


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


# --- 11.1 ---------------------------------------------------------------------------------------


def check_bradley_terry(answer, rng):
    rewards = rng.normal(size=(int(rng.integers(4, 9)), 2)) * 2
    d = rewards[:, 0] - rewards[:, 1]
    p = _sigmoid(d)
    loss, gradient = expect_length(
        answer(rewards), 2, hint="return two things: the loss of each pair, and its gradient"
    )
    expect_close(
        loss,
        -np.log(p),
        what="the loss",
        property="the loss of a pair is minus the log-probability of the choice (11.3)",
        hint="what is it when both rewards are equal? And when the chosen one is far ahead?",
        mistakes={
            "the minus sign is missing": np.log(p),
            "the rejected answer is in front": -np.log(1 - p),
            "you averaged over the pairs": np.full(len(d), -np.log(p).mean()),
            "you returned a probability, not its logarithm": p,
            "you took the difference itself": -d,
            "the loss is in bits, not in nats": -np.log2(p),
        },
    )
    expect_close(
        gradient,
        np.stack([p - 1, 1 - p], axis=1),
        what="the gradient",
        property="the gradient is probability minus label (11.4), in both columns",
        hint="raise both rewards of a pair by the same number: what does the loss do?",
        mistakes={
            "you forgot to subtract the label": np.stack([p, -p], axis=1),
            "only the chosen answer is pulled": np.stack([p - 1, 0 * p], axis=1),
            "both answers are pulled the same way": np.stack([p - 1, p - 1], axis=1),
            "the sign is turned": np.stack([1 - p, p - 1], axis=1),
            "you divided by the number of pairs": np.stack([p - 1, 1 - p], axis=1) / len(p),
        },
    )
    far = np.array([[900.0, -900.0], [-900.0, 900.0]])
    loss, gradient = expect_length(answer(far), 2, hint="return two things")
    expect_close(
        as_array(loss, (2,), what="the loss of a pair that is far apart"),
        [0.0, 1800.0],
        property="a large difference neither overflows nor gives infinity",
        hint="np.logaddexp(0, z) is log(1 + e^z) for every z",
    )
    expect_close(
        as_array(gradient, (2, 2), what="the gradient of a pair that is far apart"),
        [[0.0, 0.0], [-1.0, 1.0]],
        property="the gradient of a large difference does not overflow",
        hint="the pull never exceeds 1",
    )


register(
    Exercise(
        id="11.1",
        title="Probability minus label",
        function="bradley_terry",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can write the Bradley–Terry loss and its gradient without overflow.",
        hints=(
            "Everything is a function of d, the chosen reward minus the other.",
            "-log sigma(d) = log(1 + exp(-d)). numpy has a function for log(e^a + e^b).",
            "The gradient with respect to the chosen reward is sigma(d) - 1 = -sigma(-d), which is "
            "minus the exponential of minus log(1 + e^d). The other column is its negative.",
        ),
        check=check_bradley_terry,
    )
)


# --- 11.2 ---------------------------------------------------------------------------------------


def _fit(wins, steps=200):
    counts, rewards = wins + wins.T, np.zeros(len(wins))
    for _ in range(steps):
        p = _sigmoid(rewards[:, None] - rewards[None, :])
        curvature = counts * p * (1 - p)
        hessian = np.diag(curvature.sum(axis=1)) - curvature
        rewards = rewards - np.linalg.pinv(hessian) @ (counts * p - wins).sum(axis=1)
    return rewards - rewards.mean()


def _log_odds(wins):
    won, lost = wins.sum(axis=1), wins.sum(axis=0)
    odds = np.log(won / lost)
    return odds - odds.mean()


def check_rewards_from_wins(answer, rng):
    k = int(rng.integers(5, 8))
    truth = rng.normal(size=k) * 1.3
    truth -= truth.mean()
    counts = rng.integers(3, 60, size=(k, k)).astype(float)
    counts = np.triu(counts, 1) + np.triu(counts, 1).T
    exact = counts * _sigmoid(truth[:, None] - truth[None, :])
    expect_close(
        answer(exact),
        truth,
        atol=1e-5,
        property="expected numbers of wins give back the rewards that made them (11.7)",
        hint="at the optimum each answer wins, in your model, as often as it really did",
        mistakes={
            "you used each answer's own share of wins, which depends on whom it met": _log_odds(
                exact
            ),
            "rows and columns are exchanged: losers get the higher reward": -truth,
            "the rewards are not centred": lambda: truth - truth[0],
            "a tie was added to every pair": lambda: _fit(exact + 0.5 * (1 - np.eye(k))),
            "you stopped after one Newton step": _fit(exact, steps=1),
        },
    )
    chain = np.zeros((k, k))
    for i in range(k - 1):
        n = float(rng.integers(10, 30))
        chain[i, i + 1] = n * _sigmoid(truth[i] - truth[i + 1])
        chain[i + 1, i] = n - chain[i, i + 1]
    expect_close(
        answer(chain),
        truth,
        atol=1e-5,
        property="answers that never met are compared through others",
        hint="only neighbours met here. Print the gradient of the likelihood at your answer: is it "
        "zero? And what weight has a pair that was never shown?",
        mistakes={
            "pairs that never met are counted as a tie": lambda: _fit(
                chain + 0.5 * (chain + chain.T == 0) * (1 - np.eye(k))
            ),
            "a tie was added to every pair": lambda: _fit(chain + 0.5 * (1 - np.eye(k))),
            "you stopped after one Newton step": lambda: _fit(chain, steps=1),
            "you used each answer's own share of wins, which depends on whom it met": _log_odds(
                chain
            ),
        },
    )
    noisy = rng.binomial(40, _sigmoid(truth[:, None] - truth[None, :])).astype(float) + 1
    np.fill_diagonal(noisy, 0)
    expect_close(
        answer(noisy),
        _fit(noisy),
        atol=1e-5,
        property="noisy counts give the maximum of the likelihood",
        hint="follow the gradient until it is zero; Newton needs a handful of steps",
        mistakes={"you stopped after one Newton step": _fit(noisy, steps=1)},
    )


register(
    Exercise(
        id="11.2",
        title="Rewards from a table of wins",
        function="rewards_from_wins",
        points=4,
        difficulty=4,
        minutes=30,
        importance=4,
        goal="You can fit Bradley–Terry rewards exactly and know which direction is free.",
        hints=(
            "Write p[i, j], the chance that i beats j. The gradient for answer i sums, over its "
            "opponents, how often it should have won minus how often it did.",
            "The Hessian is a graph Laplacian: weights counts * p * (1 - p) between the answers, "
            "their sums on the diagonal. It has no inverse, since a constant changes nothing.",
            "Newton: rewards -= pinv(hessian) @ gradient, until the gradient is tiny. Subtract "
            "the mean at the end.",
        ),
        check=check_rewards_from_wins,
    )
)


# --- 11.3 ---------------------------------------------------------------------------------------


def check_best_of_n(answer, rng):
    k = 7
    rewards, gold = rng.normal(size=k), rng.normal(size=k) * 3
    for n in (1, 2, int(rng.integers(3, 6)), k):
        subsets = list(itertools.combinations(range(k), n))
        want = np.mean([gold[max(s, key=lambda i: rewards[i])] for s in subsets])
        assert np.isclose(want, best_of_n_gold(rewards[None], gold[None], n)[0])
        order = np.argsort(rewards)
        with_replacement = (np.arange(1, k + 1) / k) ** n - (np.arange(k) / k) ** n
        expect_close(
            answer(rewards, gold, n),
            want,
            property=f"the estimate is the mean over all subsets (n = {n} of {k}) of what the one "
            "with the highest reward is worth (11.12)",
            hint="list all subsets of 2 of 3 responses by hand: how often does each one win?",
            mistakes={
                "you chose by gold, which nobody has": np.mean(
                    [max(gold[i] for i in s) for s in subsets]
                ),
                "you returned the reward of the winner, not its gold": np.mean(
                    [max(rewards[i] for i in s) for s in subsets]
                ),
                "you drew with replacement": with_replacement @ gold[order],
                "you took the worst of n": np.mean(
                    [gold[min(s, key=lambda i: rewards[i])] for s in subsets]
                ),
                "you averaged the n best": gold[order[-n:]].mean(),
                "you looked at the first n responses only": gold[np.argmax(rewards[:n])],
            },
        )
    many, worth = rng.normal(size=200), rng.normal(size=200)
    expect_close(
        answer(many, worth, 100),
        best_of_n_gold(many[None], worth[None], 100)[0],
        property="200 responses and n = 100 work too",
        hint="binomial coefficients of this size need logarithms, or a ratio built step by step",
    )


register(
    Exercise(
        id="11.3",
        title="The best of n, from all subsets",
        function="best_of_n",
        points=3,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can estimate what an optimiser gets out of a reward model.",
        hints=(
            "Sort the responses by reward. In which subsets is number j (in ascending order) best?",
            "The n - 1 others come from the j - 1 below it: C(j - 1, n - 1) of C(K, n) subsets.",
            "math.comb is exact for any size; a Python int divided by a Python int is a float.",
        ),
        check=check_best_of_n,
    )
)


# --- 11.4 ---------------------------------------------------------------------------------------


def _tie(rewards, worth):
    """Error in five bins when a tie in the first one is worth something."""
    d = rewards[:, 0] - rewards[:, 1]
    sure, right = _sigmoid(np.abs(d)), np.where(d == 0, worth, d > 0)
    where = np.minimum((10 * (sure - 0.5)).astype(int), 4)
    gaps = [abs((sure - right)[where == b].sum()) for b in np.unique(where)]
    return sum(gaps) / len(d)


def check_calibration(answer, rng):
    # always right in three cases of four: too modest where it is unsure, too sure where it is sure
    rewards = np.sort(rng.normal(size=(300, 2)) * 1.5, axis=1)[:, ::-1].copy()
    swap = rng.random(300) > 0.75
    rewards[swap] = rewards[swap, ::-1]
    bins = int(rng.integers(4, 9))
    d = rewards[:, 0] - rewards[:, 1]
    sure, right = _sigmoid(np.abs(d)), d > 0
    where = np.minimum((2 * (sure - 0.5) * bins).astype(int), bins - 1)
    gaps = np.array([sure[where == b].mean() - right[where == b].mean() for b in range(bins)])
    share = np.bincount(where, minlength=bins) / len(d)
    chosen = _sigmoid(d)
    expect_close(
        answer(rewards, bins),
        expected_calibration_error(rewards, bins),
        property="the error is the mean gap between confidence and share right (11.11)",
        hint="each bin counts by how many pairs lie in it; a gap has no sign",
        mistakes={
            "all bins count the same": np.abs(gaps).mean(),
            "gaps of opposite sign cancel": float(share @ gaps),
            "you took the largest gap": np.abs(gaps).max(),
            "you used one bin": abs(sure.mean() - right.mean()),
            "the confidence is that of the chosen answer, not of the model's favourite": float(
                np.mean(1 - chosen)
            ),
            "you squared the gaps": float(share @ gaps**2),
        },
    )
    # the lower half is all right, the upper half all wrong: wider bins would mix the two
    for wide in (2, bins):
        edges = 0.5 + np.arange(wide + 1) / (2 * wide)
        middle = (edges[1:] + edges[:-1]) / 2
        gap = np.repeat(np.log(middle / (1 - middle)), rng.integers(1, 5, size=wide))
        mixed = np.stack([gap, 0 * gap], axis=1)
        mixed[gap > np.log(3.0), :] = mixed[gap > np.log(3.0), ::-1]
        expect_close(
            answer(mixed, wide),
            expected_calibration_error(mixed, wide),
            property="the bins divide the range from 1/2 to 1, and there are `bins` of them",
            hint="can the favourite of a pair have a confidence below 1/2?",
        )
    certain = np.array([[90.0, 0.0], [0.0, 90.0], [0.0, 90.0], [1.0, 0.0]])
    expect_close(
        answer(certain, 5),
        expected_calibration_error(certain, 5),
        property="a pair of confidence exactly 1 lies in the last bin",
        hint="sigma(90) is 1 in floating point: in which of your bins does it lie?",
    )
    tied = np.array([[1.0, 1.0], [0.3, 0.3], [0.2, 0.0], [3.0, 0.0]])
    expect_close(
        answer(tied, 5),
        _tie(tied, 0.0),
        property="a pair with equal rewards lies in the first bin, and was not judged rightly",
        hint="its confidence is exactly 1/2; (11.11) counts as right what has d > 0",
        mistakes={
            "a tie counts as right": lambda: _tie(tied, 1.0),
            "a tie counts as half right, or not at all": lambda: _tie(tied, 0.5),
        },
    )
    few = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.1, 0.0]])
    expect_close(
        answer(few, 10),
        expected_calibration_error(few, 10),
        property="empty bins count for nothing",
        hint="the mean of no pairs is not a number: leave such bins out",
    )


register(
    Exercise(
        id="11.4",
        title="Is 80 % really 80 %?",
        function="calibration_error",
        points=3,
        difficulty=2,
        minutes=15,
        importance=3,
        goal="You can measure whether a reward model's confidence means what it says.",
        hints=(
            "The model's favourite is the answer with the higher reward; its confidence is "
            "sigma of the absolute difference, from 1/2 to 1.",
            "It is right where the chosen answer (column 0) is the favourite.",
            "For each bin with pairs in it: |mean confidence - share right| times the bin's share "
            "of all pairs; add these up.",
        ),
        check=check_calibration,
    )
)


# --- 11.5 ---------------------------------------------------------------------------------------


def check_read_rewards(answer, rng):
    eos = 2
    lengths = rng.permutation([3, 5, 6, 8])
    width = int(lengths.max()) + int(rng.integers(1, 4))

    def batch(side, pad):
        ids = np.full((len(lengths), width), pad)
        mask = np.zeros((len(lengths), width), dtype=int)
        for row, n in enumerate(lengths):
            at = {"the right": 0, "the left": width - n, "either side": (width - n + 1) // 2}[side]
            ids[row, at : at + n] = np.append(tokens[row][: n - 1], eos)
            ids[row, at] = pad  # the pad token may stand in a text, too
            mask[row, at : at + n] = 1
        return ids, mask

    tokens = [rng.integers(5, 50, size=width) for _ in lengths]
    for side, pad in (
        ("the right", 0),
        ("the left", 0),
        ("the right", eos),
        ("the left", eos),
        ("either side", 0),
        ("either side", eos),
    ):
        ids, mask = batch(side, pad)
        scores = rng.normal(size=ids.shape)
        rows = np.arange(len(ids))
        last = width - 1 - np.argmax(mask[:, ::-1], axis=1)
        same = " that is also the end token" if pad == eos else ""
        expect_close(
            answer(scores, ids, mask, pad),
            scores[rows, last],
            property=f"with padding on {side}, by a pad token{same}, the reward is read at the "
            "last real token",
            hint="which of the arguments knows for certain where the text ends?",
            mistakes={
                "the reward is read one token before the end": scores[rows, last - 1],
                "the reward is read from the padding": scores[:, -1],
                "the reward is read at the first token": scores[rows, np.argmax(mask, axis=1)],
                "padding on the left is taken for padding on the right": scores[
                    rows, mask.sum(axis=1) - 1
                ],
                "you averaged over the tokens": (scores * mask).sum(axis=1) / mask.sum(axis=1),
                "you added the tokens up": (scores * mask).sum(axis=1),
            },
        )
        if side == "the right":
            alone = np.array(
                [
                    as_array(
                        answer(scores[i : i + 1, :n], ids[i : i + 1, :n], mask[i : i + 1, :n], pad),
                        (1,),
                    )[0]
                    for i, n in enumerate(lengths)
                ]
            )
            expect(
                np.allclose(alone, scores[rows, last]),
                property="a text alone gets the reward that it gets in a batch",
                hint="try a batch of one, without padding",
            )


register(
    Exercise(
        id="11.5",
        title="The reward that was read elsewhere",
        function="read_rewards",
        kind="bug hunt",
        points=3,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can find a reward that is read at the wrong token, though nothing crashes.",
        hints=(
            "Print which position the function reads, for each row. Then let pad be the end token.",
            "A token id cannot say whether it was written by the author or by the collator.",
            "The mask can. Find its last 1 in each row; padding may stand on either side.",
        ),
        check=check_read_rewards,
    )
)


# --- 11.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="11.6",
        title="The leaderboard",
        kind="written",
        points=5,
        difficulty=3,
        minutes=30,
        importance=4,
        goal="You can say what an evaluation of reward models shows, and what it hides.",
        hints=(
            "Take the four measures of section 5 one by one. Which of them does the report give?",
            "What is the most that anybody can reach when labels are noisy? What does a number "
            "added to all rewards of one prompt change?",
            "For each claim name the cell of the chapter that speaks against it, then the "
            "measurement that you would ask for.",
        ),
        rubric=(
            Criterion(
                1,
                "accuracy is a mean over pairs, best-of-n looks for the maximum: a rare error that "
                "costs little accuracy can ruin it",
            ),
            Criterion(
                1,
                "labels are noisy: 78 % against labels can be close to the best possible; one "
                "needs the agreement of labellers, or gold",
            ),
            Criterion(
                1,
                "rewards of different prompts cannot be compared: r + c(x) has the same loss",
            ),
            Criterion(
                1,
                "a larger margin is a larger scale, seen by calibration only; order and best-of-n "
                "do not change, but the price of KL in RL does",
            ),
            Criterion(
                1, "asks for seeds and spread, probes, and responses of the policy to be optimised"
            ),
        ),
    )
)
