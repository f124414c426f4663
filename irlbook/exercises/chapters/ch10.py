"""Exercises of chapter 10: a language model is an MDP without a reward."""

from __future__ import annotations

import numpy as np

from irlbook import planning
from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_equal, expect_length
from irlbook.lm.enumerable import EnumerableLM


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


def _random_lm(rng: np.random.Generator) -> EnumerableLM:
    n_tokens, limit = int(rng.integers(3, 5)), int(rng.integers(3, 5))

    def next_token_probabilities(prefixes: np.ndarray) -> np.ndarray:
        return rng.dirichlet(np.ones(n_tokens), size=len(prefixes))

    return EnumerableLM.create([str(k) for k in range(n_tokens)], limit, next_token_probabilities)


def _other_policy(lm: EnumerableLM, rng: np.random.Generator) -> np.ndarray:
    """Another policy; in rows of finished responses, where nobody acts, it differs as well."""
    return rng.dirichlet(np.ones(len(lm.tokens)), size=lm.n_states)


# --- 10.1 ---------------------------------------------------------------------------------------


def check_response_logps(answer, rng):
    prompts, lengths = rng.permutation([2, 3, 5]), rng.permutation([1, 3, 4])
    n_tokens, width = int(rng.integers(5, 8)), int((prompts + lengths).max())  # one is not padded
    logits = rng.normal(size=(3, width, n_tokens))
    ids = rng.integers(n_tokens - 1, size=(3, width))  # the last token ends; it also pads
    for b in range(3):
        ids[b, prompts[b] + lengths[b] - 1 :] = n_tokens - 1
        ids[b, int(rng.integers(prompts[b]))] = n_tokens - 1  # prompts hold end tokens, too
    steps = _log_softmax(logits)

    def total(first=0, last=0, shift=1, steps=steps, mean=False):
        """Sum over tokens prompt + first .. prompt + length + last, read `shift` places earlier."""
        sums = []
        for b in range(3):
            places = np.arange(prompts[b] + first, prompts[b] + lengths[b] + last)
            taken = steps[b, places - shift, ids[b, places]]
            sums.append(taken.mean() if mean else taken.sum())
        return np.array(sums)

    def from_the_start():
        return np.array(
            [
                sum(steps[b, t - 1, ids[b, t]] for t in range(1, prompts[b] + lengths[b]))
                for b in range(3)
            ]
        )

    def to_the_end():
        return np.array(
            [sum(steps[b, t - 1, ids[b, t]] for t in range(prompts[b], width)) for b in range(3)]
        )

    expect_close(
        answer(logits, ids, prompts, lengths),
        total(),
        property="log pi(y|x) is the sum over the response's tokens, each given what is before it",
        hint="take the first row by hand: which logits predict the first token of the response, "
        "and which token is the last that counts?",
        mistakes={
            "you read each token's probability off its own logits, one place too late": total(
                shift=0
            ),
            "the end token is left out": total(last=-1),
            "the first token of the response is left out": total(first=1),
            "the prompt is counted too": from_the_start,
            "the padding is counted too": to_the_end,
            "you took the mean over tokens": total(mean=True),
            "the logits are not normalised": total(steps=logits),
        },
    )
    for constant in (1e4, -1e4, 1e4 * np.sign(rng.normal(size=(3, width, 1)))):
        expect_close(
            answer(logits + constant, ids, prompts, lengths),
            total(),
            property="adding a constant to the logits changes nothing, even a large one",
            hint="take the largest logit of each place out before the exponential",
        )
    padded = np.concatenate([ids, np.full((3, 2), n_tokens - 1)], axis=1)
    longer = np.concatenate([logits, rng.normal(size=(3, 2, n_tokens))], axis=1)
    expect_close(
        answer(longer, padded, prompts, lengths),
        total(),
        property="more padding changes nothing",
        hint="what counts is known from the lengths, never from a token",
    )


register(
    Exercise(
        id="10.1",
        title="The log-probability of a response",
        function="response_logps",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can get log pi(y|x) from a model's logits, with nothing too much or too little.",
        hints=(
            "The logits at place t are a distribution over the token at place t + 1.",
            "In row b the response stands at places prompt_lengths[b] up to, not including, "
            "prompt_lengths[b] + lengths[b]. The end token is one of them.",
            "Log-softmax over the last axis with the maximum taken out; then, row by row, index "
            "[places - 1, ids[places]] and sum.",
        ),
        check=check_response_logps,
    )
)


# --- 10.2 ---------------------------------------------------------------------------------------


def _backed_up(lm: EnumerableLM, reward: np.ndarray, beta: float, bug: str = "") -> np.ndarray:
    """(S,) values of prefixes, right or with one known mistake."""
    values = np.zeros(lm.n_states)
    n_tokens = len(lm.tokens)
    for s in reversed(range(lm.n_states)):
        ahead = lm.children[s]
        if ahead[0] < 0:
            values[s] = reward[s] if bug == "end" else 0.0
            continue
        q = values[ahead] + (0.0 if bug == "end" else reward[ahead])
        m = np.ones(n_tokens) if bug == "reference" else lm.policy[s]
        if bug == "hard":
            values[s] = q.max()
        elif bug == "mean":
            values[s] = m @ q
        else:
            x = np.log(m) + q / beta
            top = x.max()
            values[s] = (1.0 if bug == "beta" else beta) * (top + np.log(np.exp(x - top).sum()))
    return values + reward if bug == "twice" else values


def check_prefix_values(answer, rng):
    lm = _random_lm(rng)
    paid, beta = rng.normal(size=len(lm.responses)), float(rng.uniform(0.2, 0.8))
    reward = np.zeros(lm.n_states)
    reward[lm.responses] = paid

    expect_close(
        answer(lm.children, lm.policy, reward, beta),
        lm.kl_optimum(paid, beta).values,
        property="V of a prefix is the soft maximum over what each next token leads to (10.10)",
        hint="do a prefix whose every next token ends the response by hand, then its parent",
        mistakes={
            what: (lambda bug=bug: _backed_up(lm, reward, beta, bug))
            for what, bug in {
                "you took the hard maximum": "hard",
                "you took the mean: values of the reference, not of the optimum": "mean",
                "the reference is missing": "reference",
                "the factor beta in front is missing": "beta",
                "an ended response has a value: its reward is paid on the way in": "end",
                "a finished response is worth its reward, which was paid on the way in": "twice",
            }.items()
        },
    )
    expect_close(
        answer(lm.children, lm.policy, reward, 3.0),
        lm.kl_optimum(paid, 3.0).values,
        property="the values are right for a price above 1 too",
        hint="beta is any positive number",
    )
    expect_close(
        answer(lm.children, lm.policy, 1e4 * reward, beta),
        lm.kl_optimum(1e4 * paid, beta).values,
        property="large rewards do not overflow",
        hint="take the largest exponent out before the exponential, as in (3.8)",
    )


register(
    Exercise(
        id="10.2",
        title="What a prefix is worth",
        function="prefix_values",
        points=3,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can solve RLHF exactly on a tree of tokens, and read V(x) off its root.",
        hints=(
            "A child has a larger number than its parent. In which order must you fill the table?",
            "The reward of a response is paid by the step that completes it, so it stands beside "
            "the value of the child; the value of the ended response itself is 0.",
            "For s from the last to the first: if children[s, 0] < 0 leave 0; else x = "
            "log policy[s] + (reward + value of the children) / beta, and beta times its "
            "log-sum-exp.",
        ),
        check=check_prefix_values,
    )
)


# --- 10.3 ---------------------------------------------------------------------------------------


def check_sft_gradient(answer, rng):
    lm = _random_lm(rng)
    expert = _other_policy(lm, rng)
    tree = lm.mdp(np.zeros(len(lm.responses)))

    def visits(policy):
        return planning.occupancy_measure(tree, policy, horizon=lm.max_length).sum(axis=1)[:, None]

    live = lm.children[:, :1] >= 0
    step = lm.policy - expert
    below = np.flatnonzero(live[:, 0])  # the chance of a finished response, on its own row
    reach = np.zeros(lm.n_states)
    reach[0] = 1.0
    for s in below:
        reach[lm.children[s]] = reach[s] * expert[s]
    expect_close(
        answer(lm.children, lm.policy, expert),
        visits(expert) * step * live,
        property="each prefix counts as often as the expert is there (10.8)",
        hint="what is the chance that a demonstration passes through a prefix of two tokens?",
        mistakes={
            "you weighted with where the model goes": lambda: visits(lm.policy) * step,
            "rows of finished responses are not zero": lambda: reach[:, None] * step,
            "all prefixes count the same": lambda: live * step,
            "the sign is that of the likelihood, not of the loss": lambda: -visits(expert) * step,
            "you weighted with the chance of prefix AND token": lambda: (
                visits(expert) * expert * step
            ),
            "you weighted with the depth: each prefix of a length the same": lambda: (
                live * step / np.maximum(1, (len(lm.tokens) - 1) ** lm.lengths)[:, None]
            ),
            "the expert is nowhere subtracted": lambda: visits(expert) * lm.policy,
        },
    )
    never = expert == expert.min(axis=1, keepdims=True)
    both = np.where(never, 0.0, expert)
    both /= both.sum(axis=1, keepdims=True)
    expect(
        np.abs(as_array(answer(lm.children, both, both), both.shape)).max() < 1e-12,
        property="where the model is the expert the gradient is zero, also for tokens that "
        "neither ever says",
        hint="at each prefix compare the two distributions over the next token",
    )


register(
    Exercise(
        id="10.3",
        title="Where SFT looks",
        function="sft_gradient",
        points=3,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can say, in a formula, on which prefixes fine-tuning trains a model.",
        hints=(
            "First find how often the expert is at each prefix. At the root that is 1.",
            "A parent with weight w gives each child w times the expert's probability of the "
            "token. Parents have smaller numbers than their children.",
            "Fill reach[0] = 1, loop over the live prefixes in order, and multiply at the end: "
            "reach[:, None] * (policy - expert).",
        ),
        check=check_sft_gradient,
    )
)


# --- 10.4 ---------------------------------------------------------------------------------------

IGNORE = -100


def _rows(prompts, responses, pad_id, bug=""):
    """(ids, labels), right or with one known mistake."""
    width = max(len(x) + len(y) for x, y in zip(prompts, responses, strict=True))
    ids = np.full((len(prompts), width), pad_id)
    labels = np.full((len(prompts), width), IGNORE)
    for b, (x, y) in enumerate(zip(prompts, responses, strict=True)):
        n, m = len(x), len(x) + len(y)
        ids[b, :m] = [*x, *y]
        labels[b, 0 if bug == "prompt" else n : m] = ids[b, 0 if bug == "prompt" else n : m]
        if bug == "end":
            labels[b, m - 1] = IGNORE
        if bug == "pads":
            labels[b, n:] = ids[b, n:]
        if bug == "first pad":
            labels[b, n : m + 1] = ids[b, n : m + 1]
        if bug == "id":
            labels[b, n:] = np.where(ids[b, n:] == pad_id, IGNORE, ids[b, n:])
    if bug == "shift":
        labels = np.concatenate([labels[:, 1:], np.full((len(labels), 1), IGNORE)], axis=1)
    return ids, labels


def check_response_labels(answer, rng):
    end = 9
    lengths = rng.permutation([1, 3, 6])
    prompts = [rng.integers(9, size=n).tolist() for n in rng.integers(2, 5, size=3)]
    responses = [[*rng.integers(9, size=n).tolist(), end] for n in lengths]
    responses.append(rng.integers(9, size=4).tolist())  # cut off: it did not end
    prompts.append(rng.integers(9, size=2).tolist())
    cases = {
        10: "a pad token of its own",
        end: "pad and end token the same",
        responses[-1][-1]: "a pad token that stands in a response, too",
        prompts[0][0]: "a pad token that stands in a prompt, too",
    }
    rows = sorted(zip(prompts, responses, strict=True), key=lambda row: len(row[0]) + len(row[1]))
    for turn, (pad_id, case) in enumerate(cases.items()):
        shown = rows[::-1] if turn % 2 else rows  # the longest row comes last, then first
        _check_labels(answer, [x for x, _ in shown], [y for _, y in shown], pad_id, case)


def _check_labels(answer, prompts, responses, pad_id, case):
    got = expect_length(
        answer(prompts, responses, pad_id), 2, hint="return (ids, labels), both (B, W)"
    )
    ids, labels = _rows(prompts, responses, pad_id)
    expect_equal(
        as_array(got[0], ids.shape, what="ids").astype(int),
        ids,
        property="ids holds prompt, response, padding",
        hint="prompt first, response behind it, pad_id to the width of the longest",
    )
    expect_close(
        got[1],
        labels,
        what="labels",
        property=f"labels holds the tokens of the response, the end token too ({case})",
        hint="which tokens are response? You know how long each one is",
        mistakes={
            "the padding carries loss": lambda: _rows(prompts, responses, pad_id, "pads")[1],
            "the end token carries no loss: how shall the model learn to stop?": (
                lambda: _rows(prompts, responses, pad_id, "end")[1]
            ),
            "what is padding is decided by its token, so a token of the response is lost": (
                lambda: _rows(prompts, responses, pad_id, "id")[1]
            ),
            "the prompt carries loss": lambda: _rows(prompts, responses, pad_id, "prompt")[1],
            "a pad behind the response carries loss": lambda: _rows(
                prompts, responses, pad_id, "first pad"
            )[1],
            "the labels are shifted; the model's loss shifts them itself": (
                lambda: _rows(prompts, responses, pad_id, "shift")[1]
            ),
        },
    )


register(
    Exercise(
        id="10.4",
        title="The model that never stops",
        function="response_labels",
        kind="bug hunt",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can find the mask that silently takes away the end token.",
        hints=(
            "Run the buggy function with pad_id = 10 and with pad_id = 9, and compare the labels.",
            "Which line decides what is padding? From what does it decide?",
            "You know len(prompt) and len(response). Fill labels from these two, and leave all "
            "else at -100.",
        ),
        check=check_response_labels,
    )
)


# --- 10.5 ---------------------------------------------------------------------------------------


def check_matched_gap(answer, rng):
    def draw(n, longest):
        position = np.concatenate([np.arange(longest), rng.integers(longest, size=n)])
        return position, 0.1 * position**1.5 + rng.normal(scale=0.3, size=len(position))

    at_E, value_E = draw(60, 8)
    at_pi, value_pi = draw(90, 6)
    at_pi[rng.integers(6, 96, size=30)] = 0  # the model's responses are short
    missing = int(rng.integers(2, 5))  # a hole, and places that the expert never reached
    at_pi = np.where(at_pi == missing, 9, at_pi)
    value_pi = value_pi + np.where(at_pi % 2, 0.9, -0.5)  # gaps of both signs
    order = rng.permutation(len(at_pi))
    at_pi, value_pi = at_pi[order], value_pi[order]

    def gap(weights, common=True):
        total = mass = 0.0
        for t in range(8):
            if not (at_pi == t).any():
                if common:
                    continue
                difference = -value_E[at_E == t].mean()
            else:
                difference = value_pi[at_pi == t].mean() - value_E[at_E == t].mean()
            total, mass = total + weights(t) * difference, mass + weights(t)
        return total / mass

    expect_close(
        answer(at_E, value_E, at_pi, value_pi),
        gap(lambda t: (at_E == t).sum()),
        property="the gap is the mean over the expert's positions of the gap at each position",
        hint="first the difference of means at each position that both have; then a mean of those, "
        "each weighted by how many of the expert's tokens stand there",
        mistakes={
            "you did not match: it is the difference of the two plain means": (
                value_pi.mean() - value_E.mean()
            ),
            "you weighted with the model's positions": gap(lambda t: (at_pi == t).sum()),
            "all positions count the same": gap(lambda t: 1.0),
            "a position that the model never reached counts as a value of 0": gap(
                lambda t: (at_E == t).sum(), common=False
            ),
            "the sign is turned: it is expert minus model": -gap(lambda t: (at_E == t).sum()),
        },
    )


register(
    Exercise(
        id="10.5",
        title="Harder, or only later?",
        function="matched_gap",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can compare two sorts of prefixes without being fooled by their positions.",
        hints=(
            "A text gets harder as it goes on. If one group has more late tokens, its plain mean "
            "is larger, and that says nothing about exposure bias.",
            "For each position that occurs in both groups: mean of the model's values minus mean "
            "of the expert's.",
            "Average these with weights: the number of the expert's tokens at the position, over "
            "the positions that both have.",
        ),
        check=check_matched_gap,
    )
)


# --- 10.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="10.6",
        title="A sign, and what it would have done",
        kind="written",
        points=4,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can tell the two divergences apart, and check a printed sign by a simple case.",
        hints=(
            "Write KL(d_pi || d_E) as an expectation. Then turn `min` into `max`.",
            "Test the printed line with d_pi = d_E: is that where its maximum is?",
            "Which of the two divergences can be estimated from demonstrations alone?",
        ),
        rubric=(
            Criterion(
                1,
                "Writes KL(d_pi || d_E) = E_{d_pi}[log d_pi - log d_E] and concludes that to "
                "minimise it is to maximise E_{d_pi}[log d_E - log d_pi]: the printed line has "
                "the logarithms exchanged.",
            ),
            Criterion(
                1,
                "Checks by a case: the printed expectation is at least 0, and 0 at d_pi = d_E, so "
                "its maximum is anywhere but at the expert (a policy that writes what the expert "
                "never does).",
            ),
            Criterion(
                1,
                "Says which divergence SFT minimises and why it needs no samples of the model: "
                "the forward KL is an expectation over the expert's text.",
            ),
            Criterion(
                1,
                "Says what follows for behaviour: forward covers all that experts write, also "
                "what the model writes badly; reverse avoids what they never write, may drop "
                "kinds, and needs samples and a judge.",
            ),
        ),
    )
)
