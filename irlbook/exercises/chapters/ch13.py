"""Exercises of chapter 13: policy gradients for language models."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_length

# --- 13.1 ---------------------------------------------------------------------------------------


def check_rloo_advantage(answer, rng):
    prompts, k = int(rng.integers(2, 5)), int(rng.integers(3, 6))
    rewards = rng.normal(size=(prompts, k)) + 3 * rng.normal(size=(prompts, 1))
    want = np.empty_like(rewards)
    for p, i in product(range(prompts), range(k)):
        want[p, i] = rewards[p, i] - np.delete(rewards[p], i).mean()
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    total = rewards.sum()
    expect_close(
        answer(rewards),
        want,
        property="each response is compared with the mean of the other responses to its prompt",
        hint="take one row by hand: which rewards does the baseline of its first response use?",
        mistakes={
            "the baseline holds the response itself": centred,
            "the factor is turned: it shrinks, and should stretch": centred * (k - 1) / k,
            "the baseline mixes the prompts": rewards - rewards.mean(),
            "the baseline is that of all others, of every prompt": rewards
            - (total - rewards) / (rewards.size - 1),
            "the baseline is taken over prompts, not over responses": rewards
            - rewards.mean(axis=0),
            "the sign is turned": -want,
            "you divide by the standard deviation": centred
            / rewards.std(axis=1, keepdims=True, ddof=1),
            "the baseline is a sum, not a mean": rewards
            - (rewards.sum(axis=1, keepdims=True) - rewards),
            "there is no baseline": rewards,
        },
    )
    # Unbiased: the mean over all pairs of responses is the exact gradient.
    n = int(rng.integers(3, 5))
    p, r = rng.dirichlet(np.full(n, 2.0)), rng.normal(size=n)
    pairs = np.array(list(product(range(n), repeat=2)))
    mass = p[pairs].prod(axis=1)
    a = as_array(answer(r[pairs]), (len(pairs), 2), what="the advantage of many pairs")
    score = np.eye(n) - p  # of response y in the logits
    got = np.einsum("t,ti,tid->d", mass, a, score[pairs]) / 2
    expect_close(
        got,
        p * (r - p @ r),
        what="the mean of the estimate over all pairs",
        property="the estimate is unbiased: its mean over all samples is the exact gradient",
        hint="a baseline may depend on anything but the response that it is the baseline of",
    )
    expect_close(
        a,
        r[pairs] - r[pairs][:, ::-1],
        what="the advantage of pairs",
        property="in a pair each response is compared with the other one",
        hint="k = 2: how many others are there?",
    )


register(
    Exercise(
        id="13.1",
        title="Leave one out",
        function="rloo_advantage",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can build a baseline from other samples that leaves the gradient unbiased.",
        hints=(
            "For k = 2 the baseline of each response is the reward of the other one.",
            "The sum of the others is the sum of all minus one's own.",
            "It is also a multiple of (reward - mean of its row). Which one? Try k = 2.",
        ),
        check=check_rloo_advantage,
    )
)


# --- 13.2 ---------------------------------------------------------------------------------------


def check_grpo_advantage(answer, rng):
    prompts, k = int(rng.integers(3, 6)), int(rng.integers(3, 6))
    rewards = rng.normal(size=(prompts, k)) * rng.uniform(0.3, 3.0, size=(prompts, 1))
    rewards += 2 * rng.normal(size=(prompts, 1))
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    want = centred / rewards.std(axis=1, keepdims=True, ddof=1)
    flat = (rewards - rewards.mean()) / rewards.std(ddof=1)
    expect_close(
        answer(rewards, True),
        want,
        property="with scaling, each group has mean 0 and standard deviation 1 (divisor k - 1)",
        hint="mean and standard deviation are those of one row",
        mistakes={
            "the standard deviation divides by k": want * np.sqrt(k / (k - 1)),
            "you divide by the variance": centred / rewards.var(axis=1, keepdims=True, ddof=1),
            "mean and standard deviation are those of the whole batch": flat,
            "the standard deviation is that of the whole batch": centred / rewards.std(ddof=1),
            "the group's mean is not subtracted": rewards
            / rewards.std(axis=1, keepdims=True, ddof=1),
            "it is not scaled at all": centred,
            "a small number is added to the standard deviation": centred
            / (rewards.std(axis=1, keepdims=True, ddof=1) + 1e-4),
        },
    )
    expect_close(
        answer(rewards, False),
        centred,
        property="without scaling it is the reward minus its group's mean, and no more",
        hint="what does Dr. GRPO leave out?",
        mistakes={
            "it is scaled all the same": want,
            "that is RLOO, with its factor": centred * k / (k - 1),
        },
    )
    # Constant groups, also such as 0.1 + 0.1 + 0.1, whose mean is not 0.1 in floating point.
    constant = rewards.copy()
    constant[0] = float(rng.integers(0, 4))
    constant[-1] = 0.1 * float(rng.integers(1, 4))
    three = np.full((2, 3), [[0.1], [0.7]])
    for scale in (True, False):
        with np.errstate(all="ignore"):
            got = as_array(
                answer(constant, scale),
                (prompts, k),
                what="the advantage when a group is constant",
                hint="0 / 0 is not a number; what should a group that teaches nothing give?",
            )
            thirds = as_array(answer(three, scale), (2, 3), what="the advantage of equal rewards")
        expect(
            not got[[0, -1]].any() and not thirds.any(),
            property="a group of equal rewards has advantages of exactly 0",
            hint="0.1 + 0.1 + 0.1 is not 0.3: ask whether the rewards are equal, not whether their "
            "standard deviation is small",
        )
        expect_close(
            got[1:-1],
            (want if scale else centred)[1:-1],
            property="a constant group leaves the other groups alone",
            hint="handle it by rows",
        )
    two = rng.normal(size=(prompts, 2))
    expect_close(
        answer(two, True),
        np.sign(two - two[:, ::-1]) / np.sqrt(2),
        property="in a group of two the better one gets 1 / sqrt(2), the other minus that",
        hint="with k = 2 the divisor k - 1 is 1",
    )
    small = 1e-9 * rng.normal(size=(prompts, k))
    expect_close(
        answer(small, True),
        (small - small.mean(axis=1, keepdims=True)) / small.std(axis=1, keepdims=True, ddof=1),
        rtol=1e-6,
        property="the unit of the reward does not matter: a tiny spread that is real is scaled too",
        hint="a threshold, or a number added to the standard deviation, has a unit",
    )


register(
    Exercise(
        id="13.2",
        title="A group that teaches nothing",
        function="grpo_advantage",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can standardise rewards within groups without NaN and without invented signal.",
        hints=(
            "Do the whole batch first; then deal with rows whose rewards are all equal.",
            "Largest equal to smallest is an exact test. A standard deviation is not.",
            "Put 0 over 1 into such rows before you divide: nothing else needs a special case.",
        ),
        check=check_grpo_advantage,
    )
)


# --- 13.3 ---------------------------------------------------------------------------------------


def check_clipped_tokens(answer, rng):
    low = float(rng.uniform(0.1, 0.2))
    high = low + float(rng.uniform(0.15, 0.3))
    lengths = rng.permutation([4, 5, 6, 7])
    sign = rng.permutation([1.0, 1.0, -1.0, -1.0])
    advantages = sign * rng.uniform(0.3, 2.0, size=4)
    change = []
    for n in lengths:  # every case for each sign of the advantage
        cases = [
            np.log1p(high) + rng.uniform(0.01, 0.05),  # just outside: the border is where it is
            np.log1p(-low) - rng.uniform(0.01, 0.05),
            np.log1p(high) - rng.uniform(0.01, 0.05),  # above low, and inside
            0.8 * rng.uniform(np.log1p(-low), np.log1p(low)),
        ]
        rest = rng.uniform(np.log1p(-low), np.log1p(low), size=n - 4)
        change.append(rng.permutation(np.concatenate([cases, 0.8 * rest])))
    change = np.concatenate(change)
    old = -rng.uniform(0.1, 4.0, size=len(change))
    a = np.repeat(advantages, lengths)

    def losses(d=change, a=a, low=low, high=high):
        ratio = np.exp(d)
        return -np.minimum(ratio * a, np.clip(ratio, 1 - low, 1 + high) * a)

    want, step = losses(), 1e-6
    slope = (losses(change + step) - losses(change - step)) / (2 * step)
    ratio = np.exp(change)
    clipped = np.clip(ratio, 1 - low, 1 + high)
    inside = (ratio > 1 - low) & (ratio < 1 + high)
    tiled = np.resize(advantages, len(change))
    got = expect_length(
        answer(old + change, old, advantages, lengths, low, high),
        2,
        hint="return two things: the losses and their slopes",
    )
    expect_close(
        got[0],
        want,
        what="`losses`",
        property="a token costs -min(ratio A, clipped ratio A), with its own response's A",
        hint="the smaller of two gains; then the sign of a loss",
        mistakes={
            "you took the larger of the two gains": -np.maximum(ratio * a, clipped * a),
            "only the clipped ratio is used, without the minimum": -clipped * a,
            "nothing is clipped": -ratio * a,
            "the sign is turned: this is a gain, not a loss": -want,
            "both sides are clipped by clip_low": losses(high=low),
            "clip_low and clip_high are exchanged": losses(low=min(high, 0.99), high=low),
            "the ratio is upside down": losses(-change),
            "the advantages are not those of each token's own response": losses(a=tiled),
            "the difference of logs is used for the ratio": -np.minimum(
                change * a, np.clip(change, 1 - low, 1 + high) * a
            ),
        },
    )
    expect_close(
        got[1],
        slope,
        rtol=1e-4,
        atol=1e-6,
        what="`slopes`",
        property="the slope is the derivative of each token's loss in its own log-probability",
        hint="where the minimum is the clipped gain it does not depend on the policy; elsewhere "
        "differentiate exp",
        mistakes={
            "the ratio is missing: that is the slope of REINFORCE": np.where(
                slope == 0, 0.0, -a * (slope != 0)
            ),
            "the gradient is stopped wherever the ratio is outside, on either side": np.where(
                inside, -ratio * a, 0.0
            ),
            "the gradient is never stopped": -ratio * a,
            "the sign is turned": -slope,
            "it is stopped for the wrong sign of the advantage": np.where(
                ((a < 0) & (ratio > 1 + high)) | ((a > 0) & (ratio < 1 - low)), 0.0, -ratio * a
            ),
        },
    )
    fresh = expect_length(
        answer(old, old, advantages, lengths, low, high), 2, hint="return two things"
    )
    expect_close(
        fresh[1],
        -a,
        what="`slopes` on fresh samples",
        property="on fresh samples the slope is that of REINFORCE: -A",
        hint="what is the ratio there?",
    )


register(
    Exercise(
        id="13.3",
        title="Where the clip stops the gradient",
        function="clipped_tokens",
        points=4,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can say of each token whether PPO's surrogate still moves it, and which way.",
        hints=(
            "Give each token its response's advantage first; `np.repeat` takes a count for each.",
            "The clip only ever takes away a gain: a step too far in the *good* direction. A token "
            "that moved the wrong way keeps its gradient.",
            "The slope is 0 where A > 0 and the ratio is above 1 + clip_high, or A < 0 and it is "
            "below 1 - clip_low; elsewhere d/dx exp(x - old) = the ratio.",
        ),
        check=check_clipped_tokens,
    )
)


# --- 13.4 ---------------------------------------------------------------------------------------


def check_kl_estimates(answer, rng):
    n = int(rng.integers(4, 8))
    log_p = np.log(rng.dirichlet(np.full(n, 2.0)))
    log_q = np.log(rng.dirichlet(np.full(n, 2.0)))
    p, q = np.exp(log_p), np.exp(log_q)
    d = log_p - log_q
    exact, chi = float(p @ d), float((p**2 / q).sum() - 1)
    got = expect_length(answer(log_p, log_q), 3, hint="return three arrays: k1, k2, k3")
    k1, k2, k3 = (as_array(x, (n,), what=f"`k{i}`") for i, x in enumerate(got, start=1))
    expect_close(
        float(p @ k1),
        exact,
        what="the mean of `k1` under the policy",
        property="the mean of k1 under the policy is the KL from the policy to the reference",
        hint="write the KL as an expectation under the policy: an expectation of which log-ratio?",
        mistakes={
            "it is minus the KL: the log-ratio points the other way": -exact,
            "you took the absolute value, and so its mean": float(p @ np.abs(d)),
            "there is a factor of two": 2 * exact,
        },
    )
    expect_close(
        k1,
        d,
        what="`k1`",
        property="k1 is the log-ratio itself, negative in some samples",
        hint="one number for each sample, no mean",
    )
    expect_close(
        k2,
        d**2 / 2,
        what="`k2`",
        property="k2 is half the square of the log-ratio",
        hint="its second-order term in the log-ratio must be that of the KL",
        mistakes={"the half is missing": d**2, "you squared the ratio": (np.exp(-d)) ** 2 / 2},
    )
    expect_close(
        float(p @ k3),
        exact,
        what="the mean of `k3` under the policy",
        property="the mean of k3 under the policy is the KL from the policy to the reference too",
        hint="k3 adds to k1 something whose mean under the policy is 0: which ratio has mean 1?",
        mistakes={
            "its ratio is upside down, so its mean is chi-square minus KL": chi - exact,
            "the ratio is upside down in one term only": float(p @ (np.exp(d) - 1 + d)),
            "the -1 is missing": exact + 1,
            "the log term has the wrong sign, so its mean is minus the KL": -exact,
        },
    )
    expect_close(
        k3,
        np.expm1(-d) + d,
        what="`k3`",
        property="k3 is ratio - 1 - log ratio in each sample, with the ratio of Schulman's note",
        hint="its mean is right but its samples are not: did you add something of mean 0?",
    )


register(
    Exercise(
        id="13.4",
        title="The KL that came out negative",
        kind="bug hunt",
        function="kl_estimates",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can give a KL estimator its direction, and test it by enumeration.",
        hints=(
            "The KL is a mean under the policy, and it cannot be negative. Is yours?",
            "For samples of the policy one of pi/pi_ref and pi_ref/pi has mean 1. Which one?",
            "Schulman's ratio is reference over policy: k1 is minus its log, k3 is the ratio, "
            "minus 1, minus its log. Which quotient does the code call `ratio`?",
        ),
        check=check_kl_estimates,
    )
)


# --- 13.5 ---------------------------------------------------------------------------------------


def _gae(rewards, values, lengths, discount, lam):
    """The O(T^2) definition, response by response."""
    result, start = np.zeros(len(values)), 0
    for n in lengths:
        r, v = rewards[start : start + n], np.append(values[start : start + n], 0.0)
        delta = r + discount * v[1:] - v[:-1]
        for t in range(n):
            weights = (discount * lam) ** np.arange(n - t)
            result[start + t] = weights @ delta[t:]
        start += n
    return result


def check_token_gae(answer, rng):
    lengths = rng.permutation([1, 3, 4, int(rng.integers(5, 8))])
    total = int(lengths.sum())
    rewards = 0.1 * rng.normal(size=total)
    ends = lengths.cumsum() - 1
    rewards[ends] += rng.normal(size=4)
    values = rng.normal(size=total) + 1.0
    discount, lam = float(rng.uniform(0.7, 0.95)), float(rng.uniform(0.4, 0.9))
    last = np.zeros(total, dtype=bool)
    last[ends] = True
    want = _gae(rewards, values, lengths, discount, lam)

    def backwards(border_value=True, border_sum=True, g=discount, lam=lam, dg=discount):
        a, running = np.zeros(total), 0.0
        for t in range(total - 1, -1, -1):
            following = values[t + 1] if t + 1 < total else 0.0
            if last[t] and border_value:
                following = 0.0
            if last[t] and border_sum:
                running = 0.0
            running = rewards[t] + dg * following - values[t] + g * lam * running
            a[t] = running
        return a

    to_go = _gae(rewards, np.zeros(total), lengths, discount, 1.0)
    swapped = want.copy()
    got = expect_length(
        answer(rewards, values, lengths, discount, lam),
        2,
        hint="return two things: the advantages and the targets of the value head",
    )
    expect_close(
        got[0],
        want,
        what="`advantages`",
        property="each advantage is the discounted sum of its own response's surprises, from its "
        "token on",
        hint="do a response of two tokens by hand; then ask what the next response may change",
        mistakes={
            "the value after a response's end is that of the next response": backwards(
                border_value=False
            ),
            "the sum runs on over the end of a response": backwards(border_sum=False),
            "responses are not told apart at all": backwards(False, False),
            "lambda is missing": backwards(lam=1.0),
            "the discount is missing from the sum": backwards(g=1.0),
            "the discount is missing from the surprise": backwards(dg=1.0),
            "the discount is missing everywhere": backwards(g=1.0, dg=1.0),
            "these are returns to go, without values": to_go,
            "only the one-step surprise is there": backwards(lam=0.0),
            "the sum runs forwards in time": lambda: _forwards(
                backwards(lam=0.0), lengths, discount * lam
            ),
        },
    )
    expect_close(
        got[1],
        swapped + values,
        what="`targets`",
        property="the value head is trained towards advantage plus value",
        hint="for lambda = 1 the target is the return to go: what must be added back?",
        mistakes={
            "these are the advantages": want,
            "these are the returns to go": to_go,
            "the value is taken off, not added": want - values,
        },
    )
    one = expect_length(answer(rewards, values, lengths, 1.0, 1.0), 2, hint="return two things")
    expect_close(
        one[1],
        _gae(rewards, np.zeros(total), lengths, 1.0, 1.0),
        what="`targets` for lambda = 1",
        property="for lambda = 1 the target is the return to go, whatever the values say",
        hint="the surprises telescope, and the value after the last token is 0",
    )


def _forwards(delta, lengths, factor):
    result, start = np.zeros(len(delta)), 0
    for n in lengths:
        running = 0.0
        for t in range(start, start + n):
            running = delta[t] + factor * running
            result[t] = running
        start += n
    return result


register(
    Exercise(
        id="13.5",
        title="Advantages of tokens, in a ragged batch",
        function="token_gae",
        points=4,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can estimate advantages per token without a leak from one response to the next.",
        hints=(
            "One response at a time is a fine way: a loop over `lengths` with a running start.",
            "Within a response go backwards: surprise, plus discount times lambda times what came "
            "after. After its last token nothing comes: no value, no sum.",
            "The surprise of token t is r_t + discount V_{t+1} - V_t, and V behind the last is 0.",
        ),
        check=check_token_gae,
    )
)


# --- 13.6 ---------------------------------------------------------------------------------------


def check_batch_loss(answer, rng):
    lengths = rng.permutation([2, 3, 5, 8, int(rng.integers(9, 14)), 4])
    losses = rng.normal(size=int(lengths.sum())) + 1.0 + np.repeat(lengths, lengths) / 5
    constant = float(rng.integers(14, 20))
    parts = np.split(losses, lengths.cumsum()[:-1])

    def split(sizes):
        cuts = np.cumsum(sizes)[:-1]
        rows = np.split(np.arange(len(lengths)), cuts)
        return [(np.concatenate([parts[i] for i in r]), lengths[r]) for r in rows]

    micro = split([1, 2, 3])
    count, total = len(lengths), len(losses)
    sequence = float(np.mean([part.mean() for part in parts]))
    token = float(losses.mean())
    fixed = float(losses.sum() / (count * constant))
    by_micro = [[part.mean() for part in np.split(x, n.cumsum()[:-1])] for x, n in micro]
    expect_close(
        answer(micro, "sequence", constant),
        sequence,
        what="the loss by sequence",
        property="by sequence, each of the responses counts the same, and its tokens share that",
        hint="mean over the tokens of a response first, then over all responses of all parts",
        mistakes={
            "every token counts the same: that is the rule 'token'": token,
            "the mean of the parts' means: a response in a small part counts more": float(
                np.mean([np.mean(x) for x in by_micro])
            ),
            "the parts are added, each with its own mean": float(
                np.sum([np.mean(x) for x in by_micro])
            ),
            "you divide by the number of parts, not of responses": float(
                np.sum([np.sum(x) for x in by_micro]) / len(micro)
            ),
            "responses are summed, not averaged, over their tokens": float(losses.sum() / count),
        },
    )
    expect_close(
        answer(micro, "token", constant),
        token,
        what="the loss by token",
        property="by token, each of the tokens of the whole batch counts the same",
        hint="one division, by the number of tokens in all parts together",
        mistakes={
            "the mean of the parts' means: a token in a small part counts more": float(
                np.mean([x.mean() for x, _ in micro])
            ),
            "the parts are added, each with its own mean": float(
                np.sum([x.mean() for x, _ in micro])
            ),
            "you divide by the number of responses": float(losses.sum() / count),
            "each response counts the same: that is the rule 'sequence'": sequence,
        },
    )
    expect_close(
        answer(micro, "constant", constant),
        fixed,
        what="the loss with a constant",
        property="with a constant, the sum over all tokens is divided by responses times constant",
        hint="what a token weighs may not depend on any length",
        mistakes={
            "the number of responses is missing": float(losses.sum() / constant),
            "the constant is missing": float(losses.sum() / count),
            "you divide by the number of tokens": token,
            "you divide by tokens times constant": float(losses.sum() / (total * constant)),
            "the parts are added, each divided by its own responses": float(
                np.sum([x.sum() / (len(n) * constant) for x, n in micro])
            ),
            "the mean of the parts' losses: a response in a small part counts more": float(
                np.mean([x.sum() / (len(n) * constant) for x, n in micro])
            ),
        },
    )
    for rule, want in (("sequence", sequence), ("token", token), ("constant", fixed)):
        for sizes in ([6], [4, 2], [1, 1, 1, 1, 1, 1]):
            expect_close(
                answer(split(sizes), rule, constant),
                want,
                what=f"the loss by {rule}, split differently",
                property="how the batch is cut into parts changes nothing",
                hint="collect sums over the parts; divide once, at the end",
            )


register(
    Exercise(
        id="13.6",
        title="How much does a long response weigh?",
        function="batch_loss",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can tell three length normalisations apart and keep them right when a batch is "
        "computed in parts.",
        hints=(
            "Write it for one part first; then ask which number each rule divides by.",
            "That number belongs to the whole batch, not to a part: responses, tokens, or "
            "responses times the constant.",
            "Keep three running sums over the parts: of the losses, of the responses' means, and "
            "of the counts. Divide after the loop.",
        ),
        check=check_batch_loss,
    )
)


# --- 13.7 ---------------------------------------------------------------------------------------

BUGS = {
    "temperature": "the log-probabilities are scored at temperature 1",
    "end": "the end token is not counted",
    "detach": "a gradient flows through the reward",
    "baseline": "the baseline holds the response's own reward",
}


def _step(case, bugs=(), *, sign=1.0, kl=1.0, lengths_mean=False, leak=False):
    """The gradient in the logits, with some of the four bugs."""
    import torch

    logits, reference, ids, lengths, rewards, beta, temperature, end = case
    x = logits.detach().requires_grad_()
    log_p = torch.log_softmax(x if "temperature" in bugs else x / temperature, dim=2)
    logps = log_p.gather(2, ids[:, :, None])[:, :, 0]
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    if "end" in bugs:
        mask = ids != end
    nothing = torch.zeros_like(logps)
    estimate = torch.where(mask, logps - reference, nothing).sum(dim=1).view_as(rewards)
    score = rewards - kl * beta * (estimate if "detach" in bugs else estimate.detach())
    k = rewards.shape[1]
    if "baseline" in bugs:
        baseline = score.sum(dim=1, keepdim=True) / (k - 1)
    else:
        baseline = (score.sum(dim=1, keepdim=True) - score) / (k - 1)
    if leak:
        baseline = score.mean()
    total = torch.where(mask, logps, nothing).sum(dim=1)
    if lengths_mean:
        total = total / mask.sum(dim=1)
    loss = -sign * ((score - baseline).reshape(-1) * total).mean()
    return torch.autograd.grad(loss, x)[0].numpy()


def check_policy_step(answer, rng):
    import torch

    prompts, k, width, vocabulary = 2, int(rng.integers(3, 5)), 6, 5
    rows, end = 2 * k, int(rng.integers(vocabulary))
    lengths = torch.from_numpy(rng.integers(2, width + 1, size=rows))
    lengths[0], lengths[1] = width, 2
    ids = rng.integers(vocabulary, size=(rows, width))
    ids[ids == end] = (end + 1) % vocabulary
    place = np.arange(width)
    ids[place >= lengths.numpy()[:, None] - 1] = end  # the end token, and pads of the same id
    ids = torch.from_numpy(ids)
    logits = torch.from_numpy(1.5 * rng.normal(size=(rows, width, vocabulary)))
    reference = torch.from_numpy(-rng.uniform(0.2, 3.0, size=(rows, width)))
    rewards = torch.from_numpy(rng.normal(size=(prompts, k)) + np.array([[2.0], [-1.0]]))
    beta, temperature = float(rng.uniform(0.2, 0.5)), float(rng.uniform(0.5, 0.7))
    case = (logits, reference, ids, lengths, rewards, beta, temperature, end)

    # The closed form, token by token: -A (one-hot - softmax) / temperature / responses.
    z = logits.numpy() / temperature
    p = np.exp(z - z.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    estimate = np.zeros(rows)
    for i in range(rows):
        for t in range(int(lengths[i])):
            estimate[i] += np.log(p[i, t, ids[i, t]]) - float(reference[i, t])
    score = rewards.numpy() - beta * estimate.reshape(prompts, k)
    want = np.zeros(logits.shape)
    for i in range(rows):
        group, own = divmod(i, k)
        advantage = score[group, own] - np.delete(score[group], own).mean()
        for t in range(int(lengths[i])):
            want[i, t] = advantage * (p[i, t] - np.eye(vocabulary)[ids[i, t]]) / temperature / rows

    def left(bugs):
        return lambda: _step(case, bugs)

    mistakes = {
        "; ".join(BUGS[bug] for bug in bugs): left(bugs)
        for size in range(1, 5)
        for bugs in combinations(BUGS, size)
    }
    mistakes |= {
        "the sign is turned: this step makes the reward smaller": -want,
        "the KL is added to the reward, not taken off": lambda: _step(case, kl=-1.0),
        "the KL is missing, or the same for all responses of a prompt": lambda: _step(case, kl=0.0),
        "each response is averaged over its tokens": lambda: _step(case, lengths_mean=True),
        "the baseline mixes the prompts": lambda: _step(case, leak=True),
        "the loss is summed, not averaged over responses": want * rows,
        "the baseline is the group's mean, the own reward in it": want * (k - 1) / k,
    }
    expect_close(
        answer(*case),
        want,
        what="the gradient",
        property="the step is RLOO's with the KL in the reward: at the sampler's temperature, "
        "over all tokens of a response, with a reward that is a plain number",
        hint="read line by line and ask what each line stands for",
        mistakes=mistakes,
    )


register(
    Exercise(
        id="13.7",
        title="Four silent bugs in one step",
        kind="bug hunt",
        function="policy_step",
        points=4,
        difficulty=4,
        minutes=30,
        importance=5,
        goal="You can review a policy-gradient step and find what no curve would show.",
        hints=(
            "Four lines, one bug each: the log-probabilities, the mask, the reward, the baseline.",
            "Which distribution were the tokens drawn from? Which token tells the model to stop? "
            "What may depend on the response that a baseline is for?",
            "In the reward the log-probabilities are numbers, not functions of the weights: what "
            "does torch call that?",
        ),
        check=check_policy_step,
    )
)


# --- 13.8 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="13.8",
        title="Is this normal?",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can tell healthy logs of a policy-gradient run from broken ones, and say what to "
        "do next.",
        hints=(
            "On fresh samples every ratio is 1. What is then the loss, and what its derivative?",
            "A column alone says little. Read `length` with `ended` and `kl`, and `grad norm` "
            "with `constant groups` and `entropy`.",
            "Compare a group with 1 success in 64 samples to one with 32: how large is an "
            "advantage before, how large after the division?",
        ),
        rubric=(
            Criterion(1, "the loss is the mean of advantages that sum to 0; its derivative is not"),
            Criterion(1, "run A: reward bought with length and KL; responses no longer end"),
            Criterion(1, "run B: collapsed to one response a prompt; groups constant, no gradient"),
            Criterion(1, "a sensible next step for each run, the first being to read samples"),
            Criterion(1, "std: weighs nearly decided prompts up; noise too, when spread is noise"),
        ),
    )
)
