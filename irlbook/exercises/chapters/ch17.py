"""Exercises of chapter 17: whose preferences?"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_distribution
from irlbook.posttraining.social_choice import welfare_policy
from irlbook.preferences.hidden_context import histogram_quantile
from irlbook.preferences.mixture import responsibilities, sample_users
from irlbook.preferences.principal_rewards import principal_rewards

# --- 17.1 ---------------------------------------------------------------------------------------


def check_borda(answer, rng):
    n = int(rng.integers(4, 7))
    asked = np.triu(rng.integers(3, 30, size=(n, n)), 1)
    wins = rng.binomial(asked, rng.uniform(0.2, 0.8, size=(n, n))).astype(float)
    wins = wins + np.tril((asked - np.triu(wins)).T, -1)
    q = rng.dirichlet(np.full(n, 2.0))

    def count(w, opponents, diagonal=0.5, missing=0.5):
        total = w + w.T
        share = np.where(total > 0, w / np.maximum(total, 1), missing)
        np.fill_diagonal(share, diagonal)
        return share @ opponents

    want = count(wins, q)
    even = np.full(n, 1 / n)
    expect_close(
        answer(wins, q),
        want,
        property="the Borda count is the chance to be preferred to an opponent drawn from q",
        hint="first a share for each pair, then a weighted mean over opponents",
        mistakes={
            "counts of wins were not divided by how often the pair was asked": wins @ q,
            "all opponents count alike": count(wins, even),
            "an item never loses to itself: count one half": count(wins, q, diagonal=1.0),
            "the item itself is missing among the opponents": count(wins, q, diagonal=0.0),
            "it is the chance to lose": count(wins.T, q),
            "all comparisons of an item are pooled: its favourite question counts most": (
                wins.sum(axis=1) / (wins + wins.T).sum(axis=1)
            ),
        },
    )
    few = wins.copy()
    few[0, n - 1] = few[n - 1, 0] = 0.0  # never asked
    got = as_array(answer(few, q), (n,), what="the counts where a pair was never asked")
    expect_close(
        got,
        count(few, q),
        what="the counts where a pair was never asked",
        property="a pair that was never asked counts one half, for both",
        hint="0 of 0 is not 0 %",
        mistakes={
            "a pair that was never asked counts as lost": count(few, q, missing=0.0),
            "a pair that was never asked counts as won": count(few, q, missing=1.0),
        },
    )


register(
    Exercise(
        id="17.1",
        title="A Borda count from labels",
        function="borda",
        points=3,
        difficulty=1,
        minutes=15,
        importance=5,
        goal="You can compute what one reward learned from a crowd will rank by.",
        hints=(
            "The share of i against j is wins[i, j] / (wins[i, j] + wins[j, i]).",
            "Set the diagonal to one half, and pairs with a total of 0, too.",
            "The weighted mean over opponents is one matrix product with q.",
        ),
        check=check_borda,
    )
)


# --- 17.2 ---------------------------------------------------------------------------------------


def check_low_quantile(answer, rng):
    n, bins = int(rng.integers(4, 8)), int(rng.integers(5, 11))
    chances = rng.dirichlet(np.full(bins, 0.7), size=n)
    hollow = chances[:1].copy()
    hollow[:, :2] = 0.0  # the lowest bins hold nothing
    hollow /= hollow.sum()
    level = float(rng.uniform(0.03, 0.3))
    chances[1] *= (1 - level / 2) / chances[1, 1:].sum()
    chances[1, 0] = level / 2  # the level is passed in a later bin
    want = histogram_quantile(chances, level)
    upto = np.cumsum(chances, axis=1)
    bin_ = np.argmax(upto >= level, axis=1)
    row = np.arange(n)
    part = (level - (upto - chances)[row, bin_]) / chances[row, bin_]
    expect_close(
        answer(chances, level),
        want,
        property="exactly the share `level` of the mass lies below the answer",
        hint="in which bin does the cumulated mass pass the level, and how far inside the bin?",
        mistakes={
            "it is the quantile of the upper tail": lambda: histogram_quantile(chances, 1 - level),
            "it is the lower edge of the bin: go on inside it": bin_ / bins,
            "it is the upper edge of the bin: stop inside it": (bin_ + 1) / bins,
            "it is the middle of the bin": (bin_ + 0.5) / bins,
            "it counts bins and does not end at 1": bin_ + part,
            "the bins are not B of the same width on [0, 1]": (bin_ + part) / (bins - 1),
            "the place inside the bin is level itself": (bin_ + level) / bins,
            "it is the mean": chances @ ((np.arange(bins) + 0.5) / bins),
        },
    )
    expect_close(
        answer(hollow, level),
        histogram_quantile(hollow, level),
        what="the answer where the lowest bins are empty",
        property="empty bins at the bottom are passed over",
        hint="0 divided by 0 is not a place",
    )
    high = 0.97
    expect_close(
        answer(chances, high),
        histogram_quantile(chances, high),
        what="the answer at the level 0.97",
        property="high levels are quantiles too",
        hint="nothing in the task says that the level is small",
    )


register(
    Exercise(
        id="17.2",
        title="A cautious score",
        function="low_quantile",
        points=3,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can rank by what a response is worth where it is liked least.",
        hints=(
            "`np.cumsum(chances, axis=1)` is the mass up to the end of each bin.",
            "`np.argmax(upto >= level, axis=1)` is the first bin at whose end the level is passed.",
            "Inside it the mass grows linearly from what lies below the bin.",
        ),
        check=check_low_quantile,
    )
)


# --- 17.3 ---------------------------------------------------------------------------------------


def check_e_step(answer, rng):
    rewards = rng.normal(size=(3, 5))
    shares = rng.dirichlet([5.0, 3.0, 2.0])
    users, pairs, _ = sample_users(rewards, shares, 12, int(rng.integers(2, 5)), rng)
    order = rng.permutation(len(users))  # labels come in any order
    users, pairs = users[order], pairs[order]
    want = responsibilities(rewards, shares, users, pairs)
    gap = rewards[:, pairs[:, 0]] - rewards[:, pairs[:, 1]]
    logs = np.array([np.bincount(users, np.log(expit(g)), 12) for g in gap]).T
    joint = np.exp(logs) * shares
    hard = np.eye(3)[want.argmax(axis=1)]
    count = np.bincount(users)[:, None]

    def rows(x):
        return x / x.sum(axis=1, keepdims=True)

    expect_close(
        answer(rewards, shares, users, pairs),
        want,
        property="a responsibility is the chance of the type, given all labels of the user (17.7)",
        hint="prior times likelihood, for each user and type; over what must it add up to 1?",
        mistakes={
            "the shares are missing": lambda: rows(np.exp(logs)),
            "it adds up to 1 over users, not over types": joint / joint.sum(axis=0),
            "it does not add up to 1 over types": joint,
            "each user is given to one type: that is the hard version": hard,
            "a user's labels are averaged, not multiplied": lambda: rows(
                np.exp(logs / count) * shares
            ),
            "winner and loser are exchanged": lambda: responsibilities(
                rewards, shares, users, pairs[:, ::-1]
            ),
            "the shares are multiplied in once for each label": lambda: rows(
                np.exp(logs) * shares**count
            ),
            "a user's labels are added, not multiplied": lambda: rows(
                np.array([np.bincount(users, expit(g), 12) for g in gap]).T * shares
            ),
        },
    )
    near = rewards / np.abs(rewards).max()  # so that no type is sure of all labels
    many = sample_users(near, shares, 2, 3000, rng)
    expect_close(
        answer(near, shares, many[0], many[1]),
        responsibilities(near, shares, many[0], many[1]),
        what="the answer for users with 3000 labels",
        property="many labels do not underflow",
        hint="a product of 3000 chances is 0 on a computer; a sum of their logarithms is not",
    )
    none = np.array([0.6, 0.4, 0.0])
    expect_close(
        answer(rewards, none, users, pairs),
        responsibilities(rewards, none, users, pairs),
        what="the answer where a type has the share 0",
        property="a type with the share 0 is nobody's",
        hint="what is the logarithm of 0, and what is its exponential again?",
    )


register(
    Exercise(
        id="17.3",
        title="The E step",
        function="e_step",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can say how likely each type is for a user, without underflow.",
        hints=(
            "First a table (users, types) of sums of log sigma(winner less loser).",
            "Add the logarithms of the shares.",
            "Subtract the largest entry of each row before you take exponentials.",
        ),
        check=check_e_step,
    )
)


# --- 17.4 ---------------------------------------------------------------------------------------


def _two_groups(rng):
    """Utilities (2, R), log-reference and price, for two groups."""
    n = int(rng.integers(6, 10))
    logs = np.log(rng.dirichlet(np.full(n, 3.0)))
    base, slant = rng.normal(size=(2, n))
    u = np.stack([base + slant, base - slant])
    return u - (u @ np.exp(logs))[:, None], logs, float(rng.uniform(0.25, 0.5))


def check_maxmin(answer, rng):
    while True:  # until each group is better off where it alone counts: both have to count
        u, logs, beta = _two_groups(rng)
        alone = [np.exp(logs + one / beta) @ (one - other) for one, other in (u, u[::-1])]
        if min(alone) > 0.1:
            break
    n = len(logs)

    def tilt(w, reference=logs, price=beta):
        scores = reference + w @ u / price
        p = np.exp(scores - scores.max())
        return p / p.sum()

    want = welfare_policy(u, logs, beta, "maxmin").policy
    got = answer(u, logs, beta)
    expect_distribution(got, (n,), what="the policy", hint="return chances of the responses")
    expect_close(
        got,
        want,
        atol=1e-4,
        what="the policy",
        property="no policy has a higher minimum of the two utilities, KL price included",
        hint="the policy is a tilted reference; which mixture of the two utilities tilts it?",
        mistakes={
            "both groups count one half: that is the average": tilt(np.array([0.5, 0.5])),
            "only the first group counts": tilt(np.array([1.0, 0.0])),
            "only the second group counts": tilt(np.array([0.0, 1.0])),
            "the price multiplies": lambda: welfare_policy(u, logs, 1 / beta, "maxmin").policy,
            "the reference is missing": lambda: (
                welfare_policy(u, np.log(np.full(n, 1 / n)), beta, "maxmin").policy
            ),
        },
    )
    for k in range(2):
        rich = u.copy()
        rich[k] += 30.0  # this group is better off whatever happens
        expect_close(
            answer(rich, logs, beta),
            welfare_policy(rich, logs, beta, "maxmin").policy,
            atol=1e-4,
            what="the policy where one group is better off whatever happens",
            property="a group that is always better off does not count",
            hint="the utilities are then never equal: where does your search end?",
        )
    sharp = answer(u, logs, beta / 2000)
    expect_distribution(
        sharp,
        (n,),
        what="the policy at a small price",
        hint="exponentials overflow; subtract the largest first",
    )
    expect(
        (u @ as_array(sharp, (n,))).min() > (u @ want).min() - 1e-6,
        property="at a smaller price the group that is worst off has no less",
        hint="the price stands under the utilities",
    )


register(
    Exercise(
        id="17.4",
        title="MaxMin for two groups",
        function="maxmin_policy",
        points=4,
        difficulty=3,
        minutes=30,
        importance=4,
        goal="You can compute the policy that is best for the group that is worst off.",
        hints=(
            "By (17.11) the policy is the reference, tilted by w u_0 + (1 - w) u_1.",
            "The larger w is, the more group 0 has. Look for the w where both have the same.",
            "Halve the interval [0, 1] sixty times. If there is no such w, you end at 0 or 1.",
        ),
        check=check_maxmin,
    )
)


# --- 17.5 ---------------------------------------------------------------------------------------


def check_user_reward(answer, rng):
    n_features = int(rng.integers(3, 6))
    deviation = np.linspace(3.0, 0.5, n_features)
    turn = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    lean = 1.5 * turn[1] + rng.normal(size=n_features)
    gaps = deviation * rng.normal(size=(300, n_features)) @ turn + lean  # far from centred
    direction = principal_rewards(gaps, 1, sign="raw").directions[0]
    uncentred = principal_rewards(gaps, 1, centre=False, sign="raw").directions[0]
    for side in (1.0, -1.0):
        mine = rng.normal(size=(11, n_features))
        along = mine @ direction
        keep = np.arange(11) < 8  # eight small agreements, three large contradictions
        along = side * np.where(keep, 0.2 + np.abs(along), -30.0 - np.abs(along))
        mine += np.outer(along - mine @ direction, direction)
        want = side * direction
        got = answer(gaps, mine)
        expect_close(
            float(np.linalg.norm(as_array(got, (n_features,), what="the direction"))),
            1.0,
            what="the length of the direction",
            property="a direction has the length 1",
            hint="an eigenvector of numpy has it already",
        )
        expect_close(
            got,
            want,
            what="the direction",
            property="the first component agrees with most of this user's own labels",
            hint="whose labels decide the sign, and what is counted: comparisons, or their sizes?",
            mistakes={
                "the sign is the other one: it agrees with fewer than half of the labels": -want,
                "the mean was not subtracted": side * uncentred,
                "the mean was not subtracted, and the sign is another": -side * uncentred,
            },
        )
    expect_close(
        answer(gaps, mine),
        answer(gaps, 2.5 * mine),
        what="the direction for differences of another size",
        property="only the signs of the user's projections count",
        hint="a comparison that is far away is still one comparison",
    )


register(
    Exercise(
        id="17.5",
        title="The reward that stood on its head",
        kind="bug hunt",
        function="user_reward",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can give a principal component the sign that a user's labels ask for.",
        hints=(
            "Run the function for a user with all labels flipped. What should change?",
            "The largest entry of an eigenvector says nothing about what this user prefers.",
            "Count in how many of the user's comparisons the projection is positive.",
        ),
        check=check_user_reward,
    )
)


# --- 17.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="17.6",
        title="A report to judge",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say whose preferences a reward model serves, and what a report hides.",
        hints=(
            "Which rule adds up the labels of section 1, and what does it not hold?",
            "How would you choose the number of types, and on which data?",
            "Which curve would show the people who lose?",
        ),
        rubric=(
            Criterion(1, "one reward aggregates by Borda count: no strength, depends on opponents"),
            Criterion(1, "the fitted data always ask for more types; new users or BIC decide"),
            Criterion(1, "one label from each user shows only the average; ask users again"),
            Criterion(1, "average and majority hide a loser: curves for each group"),
            Criterion(1, "names a rule and its price: MaxMin's veto, a quantile's level, Nash"),
        ),
    )
)
