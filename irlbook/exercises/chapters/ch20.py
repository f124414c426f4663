"""Exercises of chapter 20: search and guided decoding."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_distribution,
    expect_length,
)

# --- 20.1 ---------------------------------------------------------------------------------------


def _tree(rng, depth, tokens):
    """A random tree of prefixes, its states in any order but for the empty one at the front."""
    children, level, over = [], [0], [False]
    for state in range(tokens**depth * 2):
        if state == len(over):
            break
        row = [-1] * tokens
        if not over[state]:
            row = [len(over) + token for token in range(tokens)]
            level += [level[state] + 1] * tokens
            over += [t == tokens - 1 or level[state] + 1 == depth for t in range(tokens)]
        children.append(row)
    order = np.concatenate([[0], 1 + rng.permutation(len(over) - 1)])
    place = np.argsort(order)
    table = np.array(children)
    table = np.where(table < 0, -1, place[np.maximum(table, 0)])[order]
    rewards = np.where(table[:, 0] < 0, rng.normal(size=len(over)) * 2, 0.0)
    return rng.dirichlet(np.full(tokens, 1.5), size=len(over)), table, rewards


def _values(policy, children, rewards, beta, average):
    def value(state):
        if children[state, 0] < 0:
            return rewards[state]
        return average(policy[state], np.array([value(c) for c in children[state]]), beta)

    return np.array([value(state) for state in range(len(children))])


def _soft(p, v, beta):
    top = v[p > 0].max()
    return top + beta * np.log(p @ np.exp(np.minimum((v - top) / beta, 0.0)))


def check_soft_values(answer, rng):
    policy, children, rewards = _tree(rng, 3, 3)
    beta = float(rng.uniform(0.3, 3.0))
    want = _values(policy, children, rewards, beta, _soft)
    ended = children[:, 0] < 0
    expect_close(
        answer(policy, children, rewards, beta),
        want,
        property="the value of a prefix is the soft average over its next tokens (20.1)",
        hint="V(s) = beta log sum_a pi(a|s) exp(V(sa) / beta), from the longest prefixes back",
        mistakes={
            "it is the mean value: the average is not soft": lambda: _values(
                policy, children, rewards, beta, lambda p, v, b: p @ v
            ),
            "it is the best that can follow": lambda: _values(
                policy, children, rewards, beta, lambda p, v, b: v.max()
            ),
            "all tokens count alike: where is pi_ref?": lambda: _values(
                policy, children, rewards, beta, lambda p, v, b: _soft(p * 0 + 1 / len(p), v, b)
            ),
            "the next tokens are summed and not averaged: where is pi_ref?": lambda: _values(
                policy, children, rewards, beta, lambda p, v, b: _soft(p * 0 + 1, v, b)
            ),
            "it is log E exp(r / beta): the factor beta is missing": lambda: np.where(
                ended, want, want / beta
            ),
            "beta stands in the numerator of the exponent": lambda: _values(
                policy, children, rewards, 1 / beta, _soft
            ),
            "whole responses are worth 0 instead of their reward": np.where(ended, 0.0, want),
        },
    )
    never = policy.copy()
    row = int(np.flatnonzero(~ended)[0])
    best = int(want[children[row]].argmax())
    never[row, best] = 0.0
    never[row] /= never[row].sum()
    expect_close(
        answer(never, children, rewards, beta),
        _values(never, children, rewards, beta, _soft),
        what="the values where a token has probability 0",
        property="a token that is never written does not count",
        hint="log 0 is -inf, and 0 times something large is 0",
    )
    adored = rewards.copy()
    adored[children[0, -1]] = rewards.max() + 5  # a whole response of one token
    never = policy.copy()
    never[0, -1] = 0.0
    never[0] /= never[0].sum()
    expect_close(
        answer(never, children, adored, beta / 5000),
        _values(never, children, adored, beta / 5000, _soft),
        what="the values where a token has probability 0, at a very small beta",
        property="a token that is never written does not count, however good it is",
        hint="which tokens may give the largest value that you subtract?",
    )
    sharp = answer(policy, children, rewards, beta / 5000)
    expect_close(
        sharp,
        _values(policy, children, rewards, beta / 5000, _soft),
        what="the values at a very small beta",
        property="the values stay finite and right where r / beta is in the thousands",
        hint="subtract the largest value before you take exponentials",
    )


register(
    Exercise(
        id="20.1",
        title="The value of a prefix",
        function="soft_values",
        points=4,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can compute the number that a scorer of prefixes has to predict.",
        hints=(
            "A function that calls itself on the children is enough: the tree is small.",
            "Take the largest child's value out of the logarithm.",
            "Use only the tokens with a probability above 0.",
        ),
        check=check_soft_values,
    )
)


# --- 20.2 ---------------------------------------------------------------------------------------


def check_guided(answer, rng):
    n, tokens, top = int(rng.integers(3, 6)), int(rng.integers(6, 10)), int(rng.integers(2, 5))
    logits = rng.normal(size=(n, tokens)) * 2 + 5
    scores = rng.normal(size=(n, tokens)) * 3
    weight = float(rng.uniform(0.4, 0.9))
    logits[0, 0], scores[0, 0] = logits[0].min() - 3, 40.0  # unlikely, and adored
    order = np.argsort(-logits, axis=1)
    kept = np.zeros(logits.shape, dtype=bool)
    np.put_along_axis(kept, order[:, :top], True, axis=1)

    def softmax(z):
        z = np.exp(z - z.max(axis=1, keepdims=True))
        return z / z.sum(axis=1, keepdims=True)

    def result(z, among=kept):
        return softmax(np.where(among, z, -np.inf))

    both = logits + weight * scores
    by_sum = np.zeros(logits.shape, dtype=bool)
    np.put_along_axis(by_sum, np.argsort(-both, axis=1)[:, :top], True, axis=1)
    got = answer(logits, scores, weight, top)
    expect_close(
        got,
        result(both),
        property="logit plus weight times score, over the likeliest tokens of the language model",
        hint="which tokens are candidates, and what are they weighed by?",
        mistakes={
            "the candidates were chosen by the sum: they are the language model's": result(
                both, by_sum
            ),
            "all tokens are candidates: top was ignored": softmax(both),
            "the weight is missing": result(logits + scores),
            "the weight divides: it multiplies the score": result(logits + scores / weight),
            "the score decides alone: the logit is missing": result(weight * scores),
            "the score was left out": result(logits),
            "tokens outside got a logit of 0 and not a probability of 0": softmax(
                np.where(kept, both, 0.0)
            ),
            "probabilities were added, not logits": result(softmax(logits) + weight * scores),
            "it does not add up to 1 among the candidates": np.where(kept, softmax(both), 0.0),
        },
    )
    expect_distribution(got, (n, tokens), what="the next-token probabilities")
    large = answer(logits * 400, scores * 400, weight, top)
    expect_close(
        large,
        result(400 * both),
        what="the result for large logits",
        property="large logits do not overflow",
        hint="subtract the largest entry of each row first",
    )
    tied = logits.copy()
    tied[:, 1:] = tied[:, :1]  # all as likely as each other
    chosen = expect_distribution(
        answer(tied, scores, weight, top), (n, tokens), what="the result for tied logits"
    )
    expect(
        ((chosen > 0).sum(axis=1) == top).all(),
        property="of tokens that are equally likely, just enough are candidates to make `top`",
        hint="a threshold lets all of them in; sort instead",
    )
    one = answer(logits, scores, weight, tokens + 5)
    expect_close(
        one,
        softmax(both),
        what="the result where top exceeds the vocabulary",
        property="with a large top all tokens are candidates",
        hint="there cannot be more candidates than tokens",
    )


register(
    Exercise(
        id="20.2",
        title="Reward times logit",
        function="guided_next_token",
        points=3,
        difficulty=1,
        minutes=15,
        importance=5,
        goal="You can guide the next token by a score, among the likeliest candidates.",
        hints=(
            "First mark the `top` largest logits of each row.",
            "Outside of them the sum is minus infinity.",
            "A softmax of each row, its largest entry subtracted, ends it.",
        ),
        check=check_guided,
    )
)


# --- 20.3 ---------------------------------------------------------------------------------------


def check_smc_step(answer, rng):
    n = int(rng.integers(5, 9))
    before, after = rng.normal(size=n), rng.normal(size=n) * 1.5
    log_ref, log_q = np.log(rng.uniform(0.05, 0.9, size=(2, n)))
    over = np.zeros(n, dtype=bool)
    over[rng.choice(n, size=2, replace=False)] = True
    after[over] = before[over] + rng.normal(size=2)  # what stands there must not matter

    def result(logs):
        top = logs.max()
        w = np.exp(logs - top)
        return np.array([top + np.log(w.mean()), *(w / w.sum())])

    def weights(a=after, b=before, r=log_ref, q=log_q, done=over):
        return np.where(done, 0.0, a - b + r - q)

    def flat(got):
        first, second = expect_length(
            got, 2, what="the answer", hint="return (log mean weight, chances)"
        )
        mean = as_array(first, (), what="the log mean weight")
        return np.concatenate([[float(mean)], as_array(second, (n,), what="the chances")])

    logs = weights()
    want = result(logs)
    got = flat(answer(before, after, log_ref, log_q, over))
    expect_close(
        got,
        want,
        what="log mean weight and chances",
        property="the weights of (20.10), their mean, and chances in proportion to them",
        hint="four numbers make a weight; what is a finished response's?",
        mistakes={
            "the twist before the step is missing": lambda: result(weights(b=0 * before)),
            "the proposal is missing": lambda: result(weights(q=0 * log_q)),
            "the reference is missing": lambda: result(weights(r=0 * log_ref)),
            "reference and proposal are exchanged": lambda: result(weights(r=log_q, q=log_ref)),
            "the twists are exchanged": lambda: result(weights(a=before, b=after)),
            "a finished response moved: its weight is 1": lambda: result(
                weights(done=np.zeros(n, dtype=bool))
            ),
            "a finished response died: its weight is 1, not 0": lambda: np.array(
                [
                    np.log(np.exp(logs[~over]).sum() / n),
                    *(np.where(over, 0, np.exp(logs)) / np.exp(logs[~over]).sum()),
                ]
            ),
            "it is the logarithm of the sum: divide by n": lambda: np.array(
                [want[0] + np.log(n), *want[1:]]
            ),
            "it is the mean of the logarithms": lambda: np.array([logs.mean(), *want[1:]]),
            "the mean weight is not in logarithms": lambda: np.array([np.exp(want[0]), *want[1:]]),
        },
    )
    nothing = [np.where(over, bad, x) for bad, x in ((-np.inf, log_ref), (np.nan, log_q))]
    expect_close(
        flat(answer(before, after, *nothing, over)),
        want,
        what="log mean weight and chances, with -inf and NaN in the entries of finished responses",
        property="what stands in the entries of a finished response does not matter",
        hint="0 times infinity is not 0: choose with `np.where`",
    )
    expect_close(
        flat(answer(before, after, log_ref, log_q, np.ones(n, dtype=bool))),
        result(np.zeros(n)),
        what="log mean weight and chances when all responses are over",
        property="a finished response has the weight 1",
        hint="does your largest log weight need somebody who moves?",
    )
    far = flat(answer(before + 2000, after + 2900, log_ref, log_q, np.zeros(n, dtype=bool)))
    expect_close(
        far,
        result(weights(done=np.zeros(n, dtype=bool)) + 900),
        what="the answer where weights are as large as e^900",
        property="large weights do not overflow",
        hint="subtract the largest log weight before you take exponentials",
    )


register(
    Exercise(
        id="20.3",
        title="One step of twisted SMC",
        function="smc_step",
        points=4,
        difficulty=3,
        minutes=25,
        importance=4,
        goal="You can weigh and resample particles so that the normaliser stays unbiased.",
        hints=(
            "In logarithms a weight is a sum of four terms.",
            "A particle that is over does not move: its log weight is 0.",
            "log mean exp(x) = m + log mean exp(x - m), with m the largest x.",
        ),
        check=check_smc_step,
    )
)


# --- 20.4 ---------------------------------------------------------------------------------------


def check_residual(answer, rng):
    n, tokens = int(rng.integers(3, 6)), int(rng.integers(4, 8))
    draft, target = rng.dirichlet(np.ones(tokens), size=(2, n))
    draft[0] = target[0]  # nothing is ever rejected
    left = np.maximum(target - draft, 0.0)
    total = left.sum(axis=1, keepdims=True)
    rows = np.where(total > 0, left / np.where(total > 0, total, 1.0), target)
    overlap = np.minimum(draft, target).sum(axis=1)
    got = expect_length(
        answer(draft, target),
        2,
        what="the answer",
        hint="return (chance of acceptance, distribution after a rejection)",
    )
    accepted = as_array(got[0], (n,), what="the chance of acceptance")
    expect_close(
        accepted,
        overlap,
        what="the chance of acceptance",
        property="a drafted token x is drawn with q(x) and accepted with min(1, p(x) / q(x))",
        hint="sum over all tokens that may be drafted",
        mistakes={
            "it is the chance of rejection": 1 - overlap,
            "all tokens count alike: they are drafted with q": np.minimum(1, target / draft).mean(
                axis=1
            ),
            "the ratio is upside down": (draft * np.minimum(1, draft / target)).sum(axis=1),
            "tokens are drawn from the target": (target * np.minimum(1, target / draft)).sum(
                axis=1
            ),
        },
    )
    after = as_array(got[1], (n, tokens), what="the distribution after a rejection")
    absolute = np.abs(target - draft)
    sums = np.where(total > 0, absolute.sum(axis=1, keepdims=True), 1.0)
    expect_close(
        after,
        rows,
        what="the distribution after a rejection",
        property="draft and correction together have the target's distribution",
        hint="how much of the target has the accepted draft not covered yet?",
        mistakes={
            "it is the target itself: the output leans towards the draft": target,
            "it does not add up to 1": np.where(total > 0, left, target),
            "it is what the draft has too much": lambda: np.where(
                total > 0, np.maximum(draft - target, 0) / np.where(total > 0, total, 1.0), target
            ),
            "it is the absolute difference: only what is missing counts": np.where(
                total > 0, absolute / sums, target
            ),
        },
    )
    together = np.minimum(draft, target) + (1 - accepted)[:, None] * after
    expect(
        np.abs(together - target).max() < 1e-5,
        property="accepted and corrected tokens add up to the target",
        hint="min(p, q) + (1 - acceptance) * correction = p",
    )


register(
    Exercise(
        id="20.4",
        title="After a rejection",
        function="speculative_step",
        points=3,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can correct a draft so that the output is exactly the target's.",
        hints=(
            "q min(1, p/q) = min(p, q).",
            "What is accepted has the mass min(p, q) at each token. What does p still need?",
            "Where draft and target are equal, nothing is rejected; return the target there.",
        ),
        check=check_residual,
    )
)


# --- 20.5 ---------------------------------------------------------------------------------------


def check_backup(answer, rng):
    for alternating in (True, False):
        for depth in (2 * int(rng.integers(2, 4)), 5):  # even and odd: root and leaf differ
            _check_one_backup(answer, rng, alternating, depth)
    for alternating in (True, False):
        _check_one_backup(answer, rng, alternating, 5, twice=True)


def _check_one_backup(answer, rng, alternating, depth, twice=False):
    nodes, moves = 6, 4
    visits = rng.integers(0, 9, size=(nodes, moves)).astype(float)
    totals = rng.normal(size=(nodes, moves)) * visits
    path = [(int(s), int(rng.integers(moves))) for s in rng.permutation(nodes)[:depth]]
    if twice:  # the play comes back to a state, and the same player moves as before
        path[3] = path[1]
    value = float(rng.uniform(0.3, 1.0))

    def result(signs, counted=1):
        n, w = visits.copy(), totals.copy()
        for (s, a), sign in zip(path, signs, strict=True):
            n[s, a] += counted
            w[s, a] += sign * value
        return np.stack([n, w])

    away = np.arange(depth)[::-1]
    ones = np.ones(depth)
    right = (-1.0) ** (away + 1) if alternating else ones
    given = visits.copy(), totals.copy()
    found = expect_length(
        answer(visits, totals, path, value, alternating),
        2,
        what="the answer",
        hint="return (visits, totals)",
    )
    expect(
        np.array_equal(visits, given[0]) and np.array_equal(totals, given[1]),
        property="the arrays that were given stay as they are",
        hint="copy them first",
    )
    got = np.stack([as_array(x, (nodes, moves), what="visits or totals") for x in found])
    mistakes = {
        "the visits were not counted": result(right, counted=0),
        "only the last move was counted": lambda: np.stack(
            [_last(visits, path, 1.0), _last(totals, path, right[-1] * value)]
        ),
    }
    if alternating:
        mistakes |= {
            "the sign never changes: the search helps the opponent": result(ones),
            "the signs alternate, and the last move has the wrong one": result(-right),
            "the signs are counted from the root, not from the leaf": result(
                (-1.0) ** (np.arange(depth) + 1)
            ),
            "all moves have the sign of the last one": result(-ones),
        }
    else:
        mistakes["the sign changes although there is one player"] = result((-1.0) ** (away + 1))
    expect_close(
        got,
        result(right),
        what="visits and totals" if alternating else "visits and totals of one player",
        property="a move that stands twice on the path counts twice"
        if twice
        else "the value of the leaf is added to all moves on the path, seen by who moves",
        hint="what does `array[states, moves] += 1` do where a pair occurs twice?"
        if twice
        else "the value is for the player to move AT THE LEAF; who made the last move?",
        mistakes=mistakes,
    )


def _last(array, path, amount):
    found = array.copy()
    found[path[-1]] += amount
    return found


register(
    Exercise(
        id="20.5",
        title="The search that helped its opponent",
        kind="bug hunt",
        function="backup",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can pass the value of a leaf back through a game for two, and for one.",
        hints=(
            "The leaf's value is good for the player to move there. Who chose the last move?",
            "Walk the path from its end and change the sign before each move.",
            "A game for one player has nobody to change the sign for.",
        ),
        check=check_backup,
    )
)


# --- 20.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="20.6",
        title="A claim about decoding",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can judge a comparison of search and training, and say what it leaves out.",
        hints=(
            "What was the reward model trained on, and what is it asked about?",
            "Count the tokens that both methods generate and score, and for how many queries.",
            "Which figures would you ask for beside the reward that was followed?",
        ),
        rubric=(
            Criterion(1, "a reward of whole responses says nothing of prefixes; train on prefixes"),
            Criterion(1, "equal compute: candidates scored per token against n whole responses"),
            Criterion(1, "proxy is not gold; gold or people must judge, KL must be reported"),
            Criterion(1, "diversity, and the beam's single response"),
            Criterion(1, "break-even: queries after which training is cheaper, with the numbers"),
        ),
    )
)
