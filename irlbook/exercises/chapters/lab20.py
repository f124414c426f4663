"""Lab of chapter 20: guided decoding on a language model whose responses can be listed."""

from __future__ import annotations

import numpy as np

from irlbook.decoding import blockwise, guided, measure, prefix_scorers, smc
from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_distribution,
    expect_equal,
    expect_legend,
    expect_length,
    expect_line,
    expect_picture,
    expect_points,
)
from irlbook.lm.enumerable import EnumerableLM, best_of_n, expectation, kl_from_logps

BORROWED = ("irlbook.decoding", "irlbook.lm", "irlbook.planning", "irlbook.posttraining")
GAIN = 0.97  # of the best policy's gain within the KL; the reference misses less than 1e-4


def random_lm(rng, tokens, length):
    """A model whose next-token probabilities are random at every prefix."""
    names = [*"abcdefg"[: tokens - 1], "END"]
    return EnumerableLM.create(
        names, length, lambda p: rng.dirichlet(np.full(tokens, 2.0), size=len(p))
    )


def by_state(lm, response_reward):
    """(S,) the reward at whole responses, 0 elsewhere."""
    found = np.zeros(lm.n_states)
    found[lm.responses] = response_reward
    return found


def random_tree(rng, tokens=3, length=3):
    """A model and a reward for each state."""
    lm = random_lm(rng, tokens, length)
    return lm, by_state(lm, rng.normal(size=len(lm.responses)) * 2)


def word_world(rng):
    """The world of the notebook: a model, rewards (S,) and features (S, 18)."""
    after_not, otherwise = rng.dirichlet([6, 6, 2, 2]), rng.dirichlet([4, 6, 3, 4])
    worth = np.array([rng.uniform(0.7, 1.3), -rng.uniform(0.7, 1.3)])

    def next_words(prefixes):
        return np.array([after_not if len(p) and p[-1] == 2 else otherwise for p in prefixes])

    lm = EnumerableLM.create(("good", "bad", "not", "END"), 5, next_words)
    total, turned = np.zeros(lm.n_states), np.zeros(lm.n_states, dtype=bool)
    for state in range(lm.n_states):
        for token, child in enumerate(lm.children[state]):
            if child < 0:
                continue
            total[child], turned[child] = total[state], turned[state]
            if token == 2:
                turned[child] = not turned[state]
            elif token < 2:
                total[child] += worth[token] * (-1 if turned[state] else 1)
                turned[child] = False
    over = lm.children[:, 0] < 0
    last = np.where(lm.lengths > 0, lm.prefixes[np.arange(lm.n_states), lm.lengths - 1], -1)
    doubled = (last == 2) & ~turned
    phi = np.zeros((lm.n_states, 18))
    phi[:, 0] = total
    context = np.where(over, 16 + turned, 1 + 3 * lm.lengths + turned + 2 * doubled)
    phi[np.arange(lm.n_states), context] = 1.0
    return lm, np.where(over, total - turned, 0.0), phi


def paths_of(lm, numbers):
    """(n, L + 1) the states that each sampled response passes, the empty prefix first; -1 pads."""
    paths = np.full((len(numbers), lm.max_length + 1), -1)
    for row, response in zip(paths, lm.responses[numbers], strict=True):
        row[0] = 0
        for t in range(lm.lengths[response]):
            row[t + 1] = lm.children[row[t], lm.prefixes[response, t]]
    return paths


def reach_of(lm, q):
    """(S,) chance of each prefix."""
    with np.errstate(divide="ignore"):
        return np.exp(lm.prefix_log_probabilities(q))


# --- 20L.1 --------------------------------------------------------------------------------------


def _back(lm, reward, average):
    """(S,) values from the longest prefixes back."""
    values = reward.copy()
    for state in range(lm.n_states - 1, -1, -1):
        if lm.children[state, 0] >= 0:
            values[state] = average(lm.policy[state], values[lm.children[state]])
    return values


def _soft(p, v, beta):
    return v.max() + beta * np.log(p @ np.exp((v - v.max()) / beta))


def check_values(answer, rng):
    lm, reward = random_tree(rng, int(rng.integers(3, 5)))
    beta = float(rng.uniform(0.3, 0.8))
    given = lm.policy, lm.children, reward
    soft = prefix_scorers.soft_values(lm, reward[lm.responses], beta)
    mean = prefix_scorers.mean_values(lm, reward[lm.responses])
    hint = "return soft, mean"
    got = expect_length(answer(*given, beta), 2, hint=hint)
    whole = lm.children[:, 0] < 0
    expect_close(
        got[0],
        soft,
        what="the first result",
        property="the soft value of a prefix is beta log sum_a pi(a|s) exp(V(sa) / beta), and that "
        "of a whole response its reward",
        hint="a child has a larger number than its parent: in which order do you go?",
        mistakes={
            "it is the mean value": mean,
            "it is the best that can follow": lambda: _back(lm, reward, lambda p, v: v.max()),
            "all tokens count alike": lambda: _back(
                lm, reward, lambda p, v: _soft(p * 0 + 1 / len(p), v, beta)
            ),
            "next tokens are summed, not averaged": lambda: _back(
                lm, reward, lambda p, v: _soft(p * 0 + 1, v, beta)
            ),
            "beta stands upside down": lambda: _back(
                lm, reward, lambda p, v: _soft(p, v, 1 / beta)
            ),
            "whole responses are worth 0": np.where(whole, 0.0, soft),
        },
    )
    expect_close(
        got[1],
        mean,
        what="the second result",
        property="the mean value is the expected reward when the model goes on from the prefix",
        hint="sum_a pi(a|s) V(sa)",
        mistakes={
            "it is the soft value": soft,
            "all tokens count alike": lambda: _back(lm, reward, lambda p, v: v.mean()),
            "whole responses are worth 0": np.where(whole, 0.0, mean),
        },
    )
    small = beta / 5000
    got = expect_length(answer(*given, small), 2, hint=hint)
    expect_close(
        got[0],
        _back(lm, reward, lambda p, v: _soft(p, v, small)),
        what="the soft value at a very small beta",
        property="values stay finite where r / beta is in the thousands",
        hint="subtract the largest value before you take exponentials",
    )
    expect_close(
        expect_length(answer(lm.policy, lm.children, reward + 3.0, beta), 2, hint=hint)[0],
        soft + 3.0,
        what="the soft values for a reward that is larger by 3",
        property="a constant in the reward is added to all values",
        hint="does beta stand before the logarithm, too?",
    )


register(
    Exercise(
        id="20L.1",
        title="What is a prefix worth?",
        function="values",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can compute soft and mean values of all prefixes.",
        hints=(
            "Begin with a copy of the rewards, and go through the states from the last one back.",
            "A state without children keeps its reward.",
            "`scipy.special.logsumexp` takes weights with `b=`.",
        ),
        check=check_values,
        without=BORROWED,
    )
)


# --- 20L.2 --------------------------------------------------------------------------------------


def check_guided(answer, rng):
    lm, _ = random_tree(rng, int(rng.integers(3, 5)))
    scores, weight = rng.normal(size=lm.n_states), float(rng.uniform(1.5, 3.0))
    live = lm.children[:, 0] >= 0
    policy = lm.policy.copy()
    policy[~live] = rng.dirichlet(np.ones(policy.shape[1]), size=(~live).sum())  # to be kept
    given = policy, lm.children

    def rows(logits):
        found = policy.copy()
        z = np.exp(logits - logits.max(axis=1, keepdims=True))
        found[live] = z / z.sum(axis=1, keepdims=True)
        return found

    log_p, after = np.log(lm.policy[live]), scores[lm.children[live]]
    want = np.where(live[:, None], guided.guided_policy(lm, scores, weight), policy)
    got = answer(*given, scores, weight)
    expect_close(
        got,
        want,
        property="q(a|s) is proportional to pi(a|s) exp(w g(sa)) where the response goes on, and "
        "the rows of whole responses stay as they are",
        hint="which score belongs to a token: that of the prefix before or behind it?",
        mistakes={
            "the weight is missing": lambda: rows(log_p + after),
            "the weight divides": lambda: rows(log_p + after / weight),
            "pi is missing": lambda: rows(weight * after),
            "pi is raised to the power w, too": lambda: rows(weight * (log_p + after)),
            "probabilities and scores are added": lambda: rows(lm.policy[live] + weight * after),
            "the sign is turned": lambda: rows(log_p - weight * after),
            "it looks at the prefix before the token: nothing changes": policy,
            "the rows of whole responses changed": lambda: (
                np.where(live[:, None], want, got)
                if np.shape(got) == want.shape and np.allclose(np.asarray(got)[live], want[live])
                else None
            ),
            "it takes the best token only": lambda: np.where(live[:, None], _one_hot(want), policy),
        },
    )
    expect_close(
        answer(*given, scores * 1000, weight),
        rows(log_p + 1000 * weight * after),
        what="the result for scores in the thousands",
        property="large scores do not overflow",
        hint="subtract the largest logit of each row",
    )
    expect_close(
        answer(*given, scores, 0.0),
        policy,
        what="the result for the weight 0",
        property="without weight it is the language model itself",
        hint="what remains of the formula?",
    )


def _one_hot(rows):
    return np.eye(rows.shape[1])[rows.argmax(axis=1)]


register(
    Exercise(
        id="20L.2",
        title="Guide every token",
        function="guided",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can turn a score of prefixes into a policy of tokens.",
        hints=(
            "`scores[children[live]]` has a row for each prefix that goes on.",
            "Add w times it to log pi, and take a softmax of each row.",
            "Copy the policy first, and replace the rows that go on.",
        ),
        check=check_guided,
        without=BORROWED,
    )
)


# --- 20L.3 --------------------------------------------------------------------------------------


def check_judge(answer, rng):
    lm, reward = random_tree(rng, int(rng.integers(3, 5)))
    live = lm.children[:, 0] >= 0
    sure = rng.dirichlet(np.full(lm.policy.shape[1], 0.7), size=lm.n_states)
    sure[live, 0] = np.where(rng.random(live.sum()) < 0.4, 0.0, sure[live, 0])  # never said
    q = sure / sure.sum(axis=1, keepdims=True)
    log_p, log_q = lm.sequence_log_probabilities(), lm.sequence_log_probabilities(q)
    reach, own = reach_of(lm, q), reach_of(lm, lm.policy)
    steps = np.zeros(lm.n_states)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(q > 0, q * (np.log(q) - np.log(lm.policy)), 0.0)
    steps[live] = each[live].sum(axis=1)
    tokens, kl = float(reach[live].sum()), kl_from_logps(log_q, log_p)
    paid = reward[lm.responses]
    got = expect_length(
        answer(lm.policy, lm.children, reward, q), 3, hint="return reward, KL, tokens"
    )
    expect_close(
        got[0],
        expectation(log_q, paid),
        what="the first result",
        property="the expected reward of a response that is written by q",
        hint="the chance of a response is the product of its tokens' chances",
        mistakes={
            "the language model writes, and not q": expectation(log_p, paid),
            "all responses count alike": paid.mean(),
        },
    )
    expect_close(
        got[1],
        kl,
        what="the second result",
        property="KL(q || pi) of whole responses, in nats",
        hint="a prefix adds the KL of its row as often as q gets there; 0 log 0 is 0",
        mistakes={
            "prefixes are weighted by how often pi gets there": float(own @ steps),
            "the rows' KL are summed, however seldom a prefix is reached": float(steps.sum()),
            "it is per token": kl / tokens,
            "it is in bits": kl / np.log(2),
            "it is the KL of the first token alone": float(steps[0]),
            "the sign is turned": -kl,
        },
    )
    expect_close(
        got[2],
        tokens,
        what="the third result",
        property="the expected number of tokens, the end token included",
        hint="a response of n tokens passes n prefixes that go on, the empty one included",
        mistakes={
            "the language model writes, and not q": float(own[live].sum()),
            "the first token is not counted": tokens - 1,
            "whole responses were counted as one more": tokens + 1,
            "prefixes are counted, however seldom they are reached": float(live.sum()),
        },
    )
    soft = rng.dirichlet(np.ones(lm.policy.shape[1]), size=lm.n_states)
    forward = expect_length(answer(lm.policy, lm.children, reward, soft), 3, hint="three values")
    expect_close(
        forward[1],
        kl_from_logps(lm.sequence_log_probabilities(soft), log_p),
        what="the KL of another policy",
        property="KL(q || pi) of whole responses, in nats",
        hint="which of the two stands in the numerator, and which one writes?",
        mistakes={
            "it is KL(pi || q)": lambda: kl_from_logps(log_p, lm.sequence_log_probabilities(soft))
        },
    )
    same = expect_length(answer(lm.policy, lm.children, reward, lm.policy), 3, hint="three values")
    expect_close(
        same[1],
        0.0,
        atol=1e-10,
        what="the KL of the language model from itself",
        property="a policy has no KL from itself",
        hint="log of a ratio that is 1",
    )


register(
    Exercise(
        id="20L.3",
        title="The judge: reward, KL and tokens",
        function="judge",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can measure a token policy exactly.",
        hints=(
            "First the chance of each prefix: the empty one has 1 and hands it on to its children.",
            "Expected reward and tokens are sums of these chances over states.",
            "The KL is a sum over prefixes that go on: chance times the KL of the row.",
        ),
        check=check_judge,
        without=BORROWED,
    )
)


# --- 20L.4 --------------------------------------------------------------------------------------


def _ridge(phi, target, ridge):
    return np.linalg.solve(phi.T @ phi + ridge * np.eye(phi.shape[1]), phi.T @ target)


def learned(phi, paths, paid, ridge, sweeps, *, part="all"):
    """Weights by Monte Carlo and by TD; `part` leaves some prefixes out, which is a mistake."""
    there = paths >= 0
    last = there.sum(axis=1) - 1
    row, column = np.nonzero(there)
    ends = column == last[row]
    keep = {"all": ends >= 0, "live": ~ends, "not the first": column > 0, "ends": ends}[part]
    row, column, ends = row[keep], column[keep], ends[keep]
    features = phi[paths[row, column]]
    mc = _ridge(features, paid[row], ridge)
    after = phi[paths[row, np.minimum(column + 1, last[row])]]
    next_ends = column + 1 >= last[row]
    td = np.zeros(phi.shape[1])
    for _ in range(sweeps):
        td = _ridge(features, np.where(next_ends, paid[row], after @ td), ridge)
    return mc, td


def check_learn(answer, rng):
    lm, reward, _ = word_world(rng)
    k = int(rng.integers(3, 6))
    phi = rng.normal(size=(lm.n_states, k))  # what holds no value exactly: the two ways differ
    numbers = lm.sample(int(rng.integers(20, 30)), rng)
    paths, paid = paths_of(lm, numbers), reward[lm.responses[numbers]]
    paid = paid + rng.normal(size=len(paid))
    ridge, sweeps = float(rng.uniform(0.3, 0.9)), int(rng.integers(3, 6))
    mc, td = learned(phi, paths, paid, ridge, sweeps)
    got = expect_length(
        answer(phi, paths, paid, ridge, sweeps), 2, hint="return the weights of both"
    )

    def other(which, **changed):
        options = {"ridge": ridge, "sweeps": sweeps, "part": "all"} | changed
        return lambda: learned(phi, paths, paid, **options)[which]

    n = int((paths >= 0).sum())
    parts = {
        "whole responses are left out": "live",
        "the empty prefix is left out": "not the first",
        "whole responses alone were fitted": "ends",
    }
    expect_close(
        got[0],
        mc,
        what="the first result",
        property="Monte Carlo: least squares of the final reward on the features of all prefixes "
        "that were passed, plus ridge times the squared weights",
        hint="every prefix of a path is a row, as often as it is passed; -1 is no prefix",
        mistakes={name: other(0, part=part) for name, part in parts.items()}
        | {
            "the ridge is missing": other(0, ridge=1e-12),
            "the ridge is multiplied by the number of rows": other(0, ridge=ridge * n),
            "it is the result of TD": td,
            "the padding counts as the last state": lambda: _ridge(
                phi[paths.ravel()], np.repeat(paid, paths.shape[1]), ridge
            ),
            "each prefix counts once, however often it is passed": lambda: _once(
                phi, paths, paid, ridge
            ),
        },
    )
    expect_close(
        got[1],
        td,
        what="the second result",
        property="TD: each sweep is the least squares of the next prefix's score by the last "
        "weights, which begin at zero; where the next state is whole, and for the whole response "
        "itself, the target is the reward",
        hint="which targets change from sweep to sweep, and which do not?",
        mistakes={name: other(1, part=part) for name, part in parts.items()}
        | {
            "it is the result of Monte Carlo": mc,
            "there was one sweep too few": other(1, sweeps=sweeps - 1),
            "there was one sweep too many": other(1, sweeps=sweeps + 1),
            "the ridge is missing": other(1, ridge=1e-12),
            "the score of a whole response stands in for its reward": lambda: _no_reward(
                phi, paths, paid, ridge, sweeps
            ),
        },
    )
    expect_close(
        expect_length(answer(phi, paths, paid, ridge, 0), 2, hint="two values")[1],
        np.zeros(k),
        what="the second result after no sweep",
        property="the weights of TD begin at zero",
        hint="a loop of `sweeps` rounds",
    )


def _once(phi, paths, paid, ridge):
    row, _ = np.nonzero(paths >= 0)
    states, place = np.unique(paths[paths >= 0], return_inverse=True)
    mean = np.bincount(place, weights=paid[row]) / np.bincount(place)
    return _ridge(phi[states], mean, ridge)


def _no_reward(phi, paths, paid, ridge, sweeps):
    """TD whose last live prefix aims at the score of the whole response."""
    row, column = np.nonzero(paths >= 0)
    last = (paths >= 0).sum(axis=1)[row] - 1
    td = np.zeros(phi.shape[1])
    for _ in range(sweeps):
        after = phi[paths[row, np.minimum(column + 1, last)]] @ td
        td = _ridge(phi[paths[row, column]], np.where(column == last, paid[row], after), ridge)
    return td


register(
    Exercise(
        id="20L.4",
        title="Learn it from samples",
        function="learn",
        points=4,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can fit a scorer of prefixes to samples, by Monte Carlo and by TD.",
        hints=(
            "`np.nonzero(paths >= 0)` gives the row and the place of each prefix that is passed.",
            "Both are the same least squares with other targets: write the solver once.",
            "The next state stands one place to the right; is it the last one of its row?",
        ),
        check=check_learn,
        without=BORROWED,
    )
)


# --- 20L.5 --------------------------------------------------------------------------------------


def far_off(counts, chances):
    """How far counts are from what chances promise, in units of the bound of `expect_draws`."""
    n = np.sum(counts)
    return np.max(np.abs(counts - n * chances) / (5 * np.sqrt(n * chances * (1 - chances)) + 3))


def expect_draws(counts, chances, *, what, property, hint, mistakes=None):
    """Fail unless counts may have been drawn with these chances; name the mistake that is nearer.

    The bound is five standard errors of each count and three more, which a right answer passes in
    all but one of a hundred thousand trials.
    """
    if far_off(counts, chances) <= 1:
        return
    looks = [name for name, p in (mistakes or {}).items() if far_off(counts, p()) <= 1]
    expect(
        False,
        property=property,
        hint=hint,
        detail=f"it looks as if {looks[0]}" if looks else f"{what} has other frequencies",
    )


def _independent(lm, scores, k):
    """(R,) the best of k whole responses."""
    return np.exp(best_of_n(lm.sequence_log_probabilities(), scores[lm.responses], k))


def _expect_seeded(ask, first, seed, what):
    """The same seed gives both arrays again, and another one gives other outputs."""
    again = expect_length(ask(seed), 2, hint="two values")
    expect(
        all(np.array_equal(as_array(a), b) for a, b in zip(again, first, strict=True)),
        property=f"the same seed gives the same {what}",
        hint="one generator, made from the seed, draws everything",
    )
    other = expect_length(ask(seed + 1), 2, hint="two values")
    expect(
        not np.array_equal(as_array(other[0]), first[0]),
        property="another seed gives other outputs",
        hint="the generator is made from the argument `seed`",
    )


def check_blocks(answer, rng):
    lm, _ = random_tree(rng, 3, 4)
    scores = rng.normal(size=lm.n_states)  # prefixes are not judged as their responses are
    k, n = int(rng.integers(3, 5)), 4000
    for block in (1, 2, 3):  # 3 leaves a shorter block at the end
        log_p, generated, _ = blockwise.blockwise_best_of_k(lm, scores, k, block)
        seed = int(rng.integers(10_000))
        got = expect_length(
            answer(lm.policy, lm.children, scores, k, block, n, seed), 2, hint="states, tokens"
        )
        outputs = as_array(got[0], (n,), what="the states")
        expect(
            np.isin(outputs, lm.responses),
            property="each state is a whole response",
            hint="go on until no child is left; the last block may be shorter",
        )
        counts = np.bincount(
            np.searchsorted(lm.responses, outputs.astype(int)), minlength=len(lm.responses)
        )
        rivals = {
            "the k run on alone, and the best whole response is kept": lambda: _independent(
                lm, scores, k
            ),
            "the worst is kept": lambda s=scores, b=block: np.exp(
                blockwise.blockwise_best_of_k(lm, -s, k, b)[0]
            ),
            "the first is kept: nothing was chosen": lambda: np.exp(
                lm.sequence_log_probabilities()
            ),
            "there is one candidate too few": lambda s=scores, b=block: np.exp(
                blockwise.blockwise_best_of_k(lm, s, k - 1, b)[0]
            ),
            "there is one candidate too many": lambda s=scores, b=block: np.exp(
                blockwise.blockwise_best_of_k(lm, s, k + 1, b)[0]
            ),
            "blocks are longer by a token": lambda s=scores, b=block: np.exp(
                blockwise.blockwise_best_of_k(lm, s, k, b + 1)[0]
            ),
            "blocks have one token": lambda s=scores: np.exp(
                blockwise.blockwise_best_of_k(lm, s, k, 1)[0]
            ),
        }
        expect_draws(
            counts,
            np.exp(log_p),
            what=f"a block of {block}",
            property="responses have the distribution of blockwise best of k",
            hint="k candidates go on from the same prefix; the one whose END of the block scores "
            "best is copied k times",
            mistakes=rivals,
        )
        tokens = as_array(got[1], (n,), what="the tokens")
        usual = generated / k
        error = 5 * tokens.std() / np.sqrt(n) + 0.01
        mean = float(tokens.mean())
        looks = (
            "; it looks as if only the kept candidate is counted" if mean < 0.6 * generated else ""
        )
        expect(
            abs(mean - generated) <= error,
            property="the tokens are those that all k candidates were drawn for, the end included",
            hint="a candidate that is over draws nothing more",
            detail=f"they are {mean:.2f} in the mean, and {generated:.2f} are expected "
            f"({usual:.2f} for one candidate){looks}",
        )
        _expect_seeded(
            lambda seed, block=block: answer(lm.policy, lm.children, scores, k, block, n, seed),
            (outputs, tokens),
            seed,
            "responses, with the same tokens",
        )
        single = expect_length(
            answer(lm.policy, lm.children, scores, 1, block, n, seed), 2, hint="two values"
        )
        own = as_array(single[0], (n,), what="the states").astype(int)
        expect_equal(
            as_array(single[1], (n,), what="the tokens"),
            lm.lengths[own],
            what="the tokens of a single candidate",
            property="the tokens of a response are those of its own candidates: with k = 1 its "
            "length",
            hint="place i of the tokens belongs to place i of the responses",
        )


register(
    Exercise(
        id="20L.5",
        title="Blockwise best of k",
        function="blocks",
        points=4,
        difficulty=3,
        minutes=30,
        importance=4,
        goal="You can search with sampled blocks, and count what it costs.",
        hints=(
            "Hold the states of all responses and candidates in one array (n, k).",
            "A token for each: compare one uniform number with the cumulated chances of its row.",
            "After a block: the best column of each row, copied to all columns.",
        ),
        check=check_blocks,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 20L.6 --------------------------------------------------------------------------------------


def _one_ancestor(lm, log_psi):
    """(R,) the output of two particles if one ancestor of them were copied to both."""
    twist = np.append(0.0, log_psi[1:])
    reach = np.zeros(lm.n_states)
    reach[0] = 1.0
    for state in np.flatnonzero(lm.children[:, 0] >= 0):
        p, after = lm.policy[state], twist[lm.children[state]]
        chosen = 2 / (1 + np.exp(after[None, :] - after[:, None]))  # of a against b, twice
        reach[lm.children[state]] = reach[state] * p * (chosen @ p)
    return reach[lm.responses]


def _best_of_two(lm, log_psi):
    """(R,) the output of two particles if it were the one with the larger twist."""
    twist = np.append(0.0, log_psi[1:])
    pair = np.zeros((lm.n_states, lm.n_states))  # the chance of both particles' states
    pair[0, 0] = 1.0
    level = np.array([0])
    while level.size:
        after = lm.children[level]
        move, weight = np.eye(lm.n_states), np.ones(lm.n_states)  # a whole response stays
        move[level] = 0.0
        move[level[:, None], after] = lm.policy[level]
        weight[after] = np.exp(twist[after] - twist[level][:, None])
        pair = move.T @ pair @ move
        first = weight[:, None] / (weight[:, None] + weight)
        both = np.diag(2 * (pair * first**2).sum(axis=1))
        pair = both + 2 * pair * first * (1 - first)
        level = after[lm.children[after, 0] >= 0]
    better = np.sign(twist[:, None] - twist) + 1  # of each unlike pair both orders
    return (pair * better).sum(axis=1)[lm.responses]


def _smc_case(rng, n, runs):
    """A model, log psi, and what SMC does.

    A single ancestor would be noticed, and so would the better of two particles.
    """
    while True:
        lm, reward = random_tree(rng, 3, 3)
        log_psi = rng.normal(size=lm.n_states) * 0.7
        log_psi[lm.responses] = reward[lm.responses] * 0.6
        log_psi[0] = rng.choice([-2.0, 2.0])  # is to be taken as 0
        chance, z = smc.exact_smc(lm, log_psi, n)
        wrong = _one_ancestor(lm, log_psi), _best_of_two(lm, log_psi)
        if min(far_off(runs * p, chance) for p in wrong) > 2.2:
            return lm, log_psi, chance, z


def check_smc(answer, rng):
    n, runs = 2, 20_000
    lm, log_psi, chance, z = _smc_case(rng, n, runs)
    seed = int(rng.integers(10_000))
    got = expect_length(
        answer(lm.policy, lm.children, log_psi, n, runs, seed), 2, hint="states, log Z hat"
    )
    outputs = as_array(got[0], (runs,), what="the states").astype(int)
    logs = as_array(got[1], (runs,), what="log Z hat")
    expect(
        np.isin(outputs, lm.responses),
        property="each state is a whole response",
        hint="a particle whose response is over stays, with the weight 1, until all are over",
    )
    place = np.searchsorted(lm.responses, outputs)
    expect_draws(
        np.bincount(place, minlength=len(chance)),
        chance,
        what="the output",
        property="the output has the distribution of twisted SMC that resamples after every token",
        hint="are ancestors drawn in proportion to the weights, all n of them, after each token?",
        mistakes={
            "nothing was resampled": lambda: np.exp(lm.sequence_log_probabilities()),
            "it is the optimum itself, which two particles cannot reach": lambda: z / z.sum(),
            "one ancestor was copied to all particles": lambda: _one_ancestor(lm, log_psi),
        },
    )
    each = np.exp(logs)
    off = abs(each.mean() - z.sum())
    expect(
        off <= 5 * each.std() / np.sqrt(runs) + 1e-6,
        property="the mean of Z hat is Z: the normaliser is unbiased",
        hint="Z hat is the product over tokens of the MEAN weight; psi of the empty prefix is 1",
        detail=f"the mean is {each.mean():.3f}, Z is {z.sum():.3f}",
    )
    some = np.zeros(len(z))
    np.add.at(some, place, each / runs)
    squares = np.zeros(len(z))
    np.add.at(squares, place, each**2 / runs)
    expect(
        np.abs(some - z) <= 5 * np.sqrt(squares / runs) + 0.01 * z.sum(),
        property="E[Z hat 1{output = y}] is pi(y) psi(y) for every response",
        hint="Z hat and the output belong to the same run",
    )
    single = expect_length(
        answer(lm.policy, lm.children, log_psi, 1, 500, seed), 2, hint="two values"
    )
    own = as_array(single[0], (500,), what="the states").astype(int)
    expect_close(
        single[1],
        log_psi[own],
        what="log Z hat of a single particle",
        property="along one response the twists cancel, and log psi of the response is left",
        hint="a weight is psi(sa) / psi(s): the empty prefix has 1, and a response that is over "
        "adds nothing",
    )
    _expect_seeded(
        lambda seed: answer(lm.policy, lm.children, log_psi, n, runs, seed),
        (outputs, logs),
        seed,
        "runs, with the same log Z hat",
    )


register(
    Exercise(
        id="20L.6",
        title="Twisted sequential Monte Carlo",
        function="twisted_smc",
        points=4,
        difficulty=4,
        minutes=35,
        importance=4,
        goal="You can run particles through a tree, with a normaliser that is unbiased.",
        hints=(
            "One array (runs, n) of states; one token for all of them, then the weights.",
            "log Z hat grows by the logarithm of the mean weight of the run, after each token.",
            "Ancestors: compare n uniform numbers with the cumulated weights of the run.",
        ),
        check=check_smc,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 20L.7 --------------------------------------------------------------------------------------


def check_draw(answer, rng):
    seeds = int(rng.integers(4, 8))
    names = ["best of n", "blocks", "SMC", "guided"][: int(rng.integers(3, 5))]
    tokens = {name: np.sort(rng.uniform(5, 300, size=int(rng.integers(2, 6)))) for name in names}
    rewards = {name: rng.normal(size=(seeds, len(x))) ** 2 for name, x in tokens.items()}
    start = float(rng.normal()) - 1
    (panel,) = expect_picture(answer(tokens, rewards, start), hint="one pair of axes").axes
    for name in names:
        expect_line(
            panel,
            tokens[name],
            rewards[name].mean(axis=0),
            property="each method has a line: its mean reward over seeds, against its tokens",
            hint="average over the rows",
        )
        expect_points(
            panel,
            np.tile(tokens[name], seeds),
            rewards[name].ravel(),
            property="each seed of a method is a point, seed by seed: the spread is seen",
            hint="`np.tile(tokens[name], seeds)` against `rewards[name].ravel()`",
        )
    expect_legend(
        panel,
        {name.lower(): rewards[name].mean(axis=0) for name in names},
        property="a legend names each mean by its method",
    )
    labels = {line.label for line in panel.lines}
    expect(
        set(names) <= labels,
        property="the methods keep their names",
        hint="`label=name`",
    )
    level = [line.y for line in panel.lines if len(line.y) > 1 and np.ptp(line.y) == 0]
    expect(
        any(np.allclose(y, start) for y in level),
        property="a horizontal line shows the reward without any guidance",
        hint="`ax.axhline(start)`",
    )
    expect(
        panel.xscale == "log",
        property="tokens stand on a logarithmic axis",
        hint="twice the tokens are the same step everywhere: `ax.set_xscale`",
    )
    expect(
        "token" in panel.xlabel.lower() and "reward" in panel.ylabel.lower(),
        property="the labels say that tokens and reward are shown",
        hint="what is counted, and for what?",
    )


register(
    Exercise(
        id="20L.7",
        title="The picture: what the tokens buy",
        kind="figure",
        function="draw_comparison",
        points=2,
        difficulty=1,
        minutes=15,
        importance=4,
        goal="You can compare methods at equal compute, with their spread.",
        hints=(
            "A loop over the names: one `plot` with a label, one `scatter`.",
            "The mean over seeds is `.mean(axis=0)`.",
            "`ax.axhline`, `ax.set_xscale`, two labels and a legend are left.",
        ),
        check=check_draw,
    )
)


# --- 20L.8 --------------------------------------------------------------------------------------


def gain(lm, reward, q, max_kl):
    """The KL of a policy, and its share of what the best policy within a budget gains."""
    paid, log_p = reward[lm.responses], lm.sequence_log_probabilities()
    log_q, usual = lm.sequence_log_probabilities(q), expectation(log_p, paid)
    best = measure.best_reward_at_kl(log_p, paid, max_kl)
    return kl_from_logps(log_q, log_p), (expectation(log_q, paid) - usual) / (best - usual)


def by_mean_values(lm, reward, max_kl):
    """What guidance by exact mean values gains within a budget of KL, as a share of the best."""
    mean, low, high = prefix_scorers.mean_values(lm, reward[lm.responses]), 0.0, 100.0
    for _ in range(25):
        weight = (low + high) / 2
        q = guided.guided_policy(lm, mean, weight)
        spent = kl_from_logps(lm.sequence_log_probabilities(q), lm.sequence_log_probabilities())
        low, high = (weight, high) if spent <= max_kl else (low, weight)
    return gain(lm, reward, guided.guided_policy(lm, mean, low), max_kl)[1]


def check_guide(answer, rng):
    for max_kl in (0.5, 2.0, 4.0):
        while True:
            lm, reward, phi = word_world(rng)
            if max_kl == 0.5 or by_mean_values(lm, reward, max_kl) < 0.9:
                break
        numbers = lm.sample(300, rng)
        paths, paid = paths_of(lm, numbers), reward[lm.responses[numbers]]
        q = expect_distribution(
            answer(lm.policy, lm.children, phi, paths, paid, max_kl),
            lm.policy.shape,
            what="the policy",
            hint="a row for each prefix, the next-token probabilities",
        )
        q = np.maximum(q, 0.0)
        kl, share = gain(lm, reward, q / q.sum(axis=1, keepdims=True), max_kl)
        expect(
            kl <= max_kl + 1e-3,
            property="the policy stays within the KL that it was given",
            hint="your judge tells the KL of a policy; which price is too low?",
            detail=f"it spends {kl:.3f} of {max_kl:g} nats",
        )
        expect(
            share >= GAIN,
            property=f"the true reward rises by at least {GAIN:.0%} of what the best policy within "
            "this KL gains",
            hint="does it use all of the KL that it may spend? Which of the two values of step 1 "
            "makes guided decoding the optimum?",
            detail=f"at {max_kl:g} nats it gains {share:.0%}",
        )


register(
    Exercise(
        id="20L.8",
        title="The whole: guide within a budget of KL",
        function="guide",
        points=5,
        difficulty=4,
        minutes=35,
        importance=5,
        goal="You can go from samples and their rewards to a policy that is nearly the best.",
        hints=(
            "Which rewards do you miss for step 1, and which features predict them?",
            "Soft values at the price beta, with the weight 1 / beta.",
            "A lower price spends more KL: halve an interval until your judge says that it fits.",
        ),
        check=check_guide,
        rounds=1,
        seconds=60.0,
        without=BORROWED,
    )
)


# --- 20L.9 --------------------------------------------------------------------------------------

register(
    Exercise(
        id="20L.9",
        title="Explain your picture",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can say what each method buys with its tokens, and what the picture leaves out.",
        hints=(
            "Compare at one place of the token axis, and look at the spread there.",
            "What would happen to guided decoding with fifty thousand tokens in the vocabulary?",
            "Which of the methods ask the scorer about prefixes that were hardly ever sampled?",
        ),
        rubric=(
            Criterion(1, "reads the picture at equal tokens, with the spread over seeds"),
            Criterion(
                1,
                "guided decoding scores the whole vocabulary at each token: cheap with four words, "
                "not with fifty thousand",
            ),
            Criterion(
                1,
                "Monte Carlo and TD from sampled tokens hardly differ, fewer samples cost "
                "accuracy; TD hands errors of its features on, and Monte Carlo does not",
            ),
            Criterion(
                1,
                "Z hat is unbiased for every twist, while the output of few particles is not the "
                "optimum",
            ),
            Criterion(
                1,
                "reward is bought with KL (and diversity), which the picture does not show; the "
                "tokens of learning are not in it, either",
            ),
        ),
    )
)
