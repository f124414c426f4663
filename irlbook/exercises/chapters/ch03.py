"""Exercises of chapter 3: the price of information."""

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
from irlbook.mdp import TabularMDP


def _measure(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A reference measure whose rows do not sum to one."""
    return rng.uniform(0.2, 2.0, size=shape)


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    top = x.max(axis=-1)
    return top + np.log(np.exp(x - top[..., None]).sum(axis=-1))


def _softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - _log_sum_exp(x)[..., None])


# --- 03.1 ---------------------------------------------------------------------------------------


def check_soft_backup(answer, rng):
    q = rng.normal(size=(rng.integers(3, 7), rng.integers(3, 6)))
    beta, m = float(rng.uniform(0.2, 0.7)), _measure(rng, *q.shape)
    want = beta * _log_sum_exp(q / beta + np.log(m))
    parts = expect_length(
        answer(q, beta, m), 2, hint="return two things: the values and the policy"
    )
    expect_close(
        parts[0],
        want,
        what="`values`",
        property="the value is the soft maximum of Q under the reference",
        hint="read (3.9) again: what does beta divide, what does it multiply, where does m stand?",
        mistakes={
            "you took the hard maximum": q.max(axis=1),
            "the reference is missing": beta * _log_sum_exp(q / beta),
            "the reference was made to sum to one": want - beta * np.log(m.sum(axis=1)),
            "the factor beta in front is missing": want / beta,
            "the temperature inside the exponential is missing": beta * _log_sum_exp(q + np.log(m)),
            "beta multiplies inside the exponential": beta * _log_sum_exp(q * beta + np.log(m)),
            "you took the mean over actions, not the sum": want - beta * np.log(q.shape[1]),
            "you took the expected Q under the reference": (m * q).sum(axis=1),
        },
    )
    policy = expect_distribution(
        parts[1], q.shape, what="`policy`", hint="which value makes m exp((Q - V) / beta) sum to 1?"
    )
    expect_close(
        policy,
        _softmax(q / beta + np.log(m)),
        what="`policy`",
        property="the policy is the reference, tilted by exp(Q / beta)",
        hint="the last line of (3.9) holds three letters: m, Q and V",
        mistakes={
            "the reference is missing from the policy": _softmax(q / beta),
            "the temperature is missing from the policy": _softmax(q + np.log(m)),
        },
    )
    signs = rng.permutation(np.resize([1.0, -1.0], len(q)))  # the states differ by 100,000
    for shift in (np.full(len(q), 5e4), np.full(len(q), -5e4), 5e4 * signs):
        far = q + shift[:, None]
        parts = expect_length(answer(far, beta, m), 2, hint="return values and policy")
        overflow = "take the largest exponent of each state out before the exponential (3.8)"
        expect_close(
            as_array(parts[0], (len(q),), what="`values` for very large or very negative Q"),
            want + shift,
            what="`values`",
            property="very large and very negative Q do not overflow",
            hint=overflow,
        )
        expect_close(
            as_array(parts[1], q.shape, what="`policy` for very large or very negative Q"),
            _softmax(far / beta + np.log(m)),
            what="`policy`",
            property="very large and very negative Q do not overflow in the policy",
            hint=overflow,
        )
    dear = float(rng.uniform(2.0, 6.0))
    expect_close(
        expect_length(answer(q, dear, m), 2, hint="return values and policy")[0],
        dear * _log_sum_exp(q / dear + np.log(m)),
        what="`values`",
        property="the value is right for a price above 1 too",
        hint="beta is any positive number",
    )
    rows, forbidden = np.arange(len(q)), rng.integers(q.shape[1], size=len(q))
    m[rows, forbidden] = 0.0
    q[rows, forbidden] += 1e3  # forbidden, however good it looks
    others = np.arange(q.shape[1]) != forbidden[:, None]
    parts = expect_length(answer(q, beta, m), 2, hint="return values and policy")
    zero_hint = (
        "log 0 is minus infinity, and exp of it is 0; take the maximum of Q / beta + log m, "
        "not of Q"
    )
    expect_close(
        as_array(parts[0], (len(q),), what="`values` where the reference forbids an action"),
        beta
        * _log_sum_exp(
            (q / beta)[others].reshape(len(q), -1) + np.log(m[others]).reshape(len(q), -1)
        ),
        what="`values`",
        property="an action that the reference forbids does not count, however large its Q",
        hint=zero_hint,
    )
    limited = as_array(parts[1], q.shape, what="`policy` where an action is forbidden")
    expect(
        np.abs(limited[~others]) < 1e-12,
        property="an action that the reference forbids is never taken",
        hint=zero_hint,
    )
    expect_distribution(limited, what="`policy` where an action is forbidden", hint=zero_hint)


register(
    Exercise(
        id="03.1",
        title="A soft backup that survives",
        function="soft_backup",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can back up values softly, with a reference, without overflow.",
        hints=(
            "Read (3.9) from below: the policy needs V, and V needs Q, m and beta.",
            "Write x = Q / beta + log m. Then V = beta log sum exp x. How does (3.8) compute it?",
            "Take the maximum of x over actions, with `keepdims=True`; subtract it before `exp`, "
            "add it after `log`. The policy is exp(x - log Z): no division is needed.",
        ),
        check=check_soft_backup,
    )
)


# --- 03.2 ---------------------------------------------------------------------------------------


def _random_mdp(rng: np.random.Generator, n_states: int = 5, n_actions: int = 3) -> TabularMDP:
    """Random moves and rewards; two states end the episode, neither of them the last."""
    transitions = rng.dirichlet(np.full(n_states, 0.4), size=(n_states, n_actions))
    reward = rng.normal(size=(n_states, n_actions))
    ends = rng.choice(np.arange(1, n_states - 1), size=2, replace=False)
    reward[ends] = 0.0
    return TabularMDP.create(
        transitions,
        reward,
        start=0,
        discount=float(rng.uniform(0.5, 0.85)),
        terminal=ends.tolist(),
    )


def _backward(mdp: TabularMDP, horizon: int, beta: float, m: np.ndarray, bug: str = ""):
    """(3.9) by backward induction, right or with one known mistake."""
    dense, alive = mdp.dense(), ~mdp.terminal
    gamma = 1.0 if bug == "discount" else mdp.discount
    log_m = np.zeros_like(m) if bug == "reference" else np.log(m)
    if bug == "normalised":
        log_m = np.log(m / m.sum(axis=1, keepdims=True))
    values = np.zeros((horizon + 1, mdp.n_states))
    policy = np.zeros((horizon, *m.shape))
    for t in range(horizon) if bug == "order" else reversed(range(horizon)):
        q = mdp.reward + gamma * dense @ values[t + 1]
        if bug == "dice":
            inside = np.exp(gamma * values[t + 1] / beta)
            with np.errstate(divide="ignore"):
                q = mdp.reward + beta * np.log(np.where(alive[:, None], dense @ inside, 1.0))
        x = q / beta + log_m
        values[t] = q.max(axis=1) if bug == "hard" else beta * _log_sum_exp(x)
        if bug != "terminal":
            values[t] = np.where(alive, values[t], 0.0)
        policy[t] = _softmax(x)
    return values, policy


def check_soft_plan(answer, rng):
    mdp, horizon = _random_mdp(rng), int(rng.integers(3, 6))
    beta, m = float(rng.uniform(0.3, 0.8)), _measure(rng, mdp.n_states, mdp.n_actions)
    values, policy = _backward(mdp, horizon, beta, m)
    got = expect_length(
        answer(mdp, horizon, beta, m), 2, hint="return two things: the values and the policy"
    )
    expect_close(
        got[0],
        values,
        what="`values`",
        property="V[t] solves the soft Bellman equation (3.9) with V[horizon] = 0",
        hint="at time t the future is worth V[t + 1]; after the end nothing is worth anything",
        mistakes={
            mistake: (lambda bug=bug: _backward(mdp, horizon, beta, m, bug)[0])
            for mistake, bug in {
                "the backup takes a hard maximum": "hard",
                "the discount is missing": "discount",
                "the reference is missing": "reference",
                "the reference was made to sum to one": "normalised",
                "the world's dice stand inside the exponential": "dice",
                "terminal states have a value": "terminal",
                "the loop over time runs forwards": "order",
            }.items()
        },
    )
    got_policy = as_array(got[1], policy.shape, what="`policy`")
    alive = ~mdp.terminal
    expect_distribution(
        got_policy[:, alive], what="`policy` before the end", hint="use V[t], not V[t + 1], in it"
    )
    expect_close(
        got_policy[:, alive],
        policy[:, alive],
        what="`policy`",
        property="the policy at time t is m exp((Q - V) / beta) of that time",
        hint="which values stand in Q at time t, and which in the policy?",
        mistakes={
            "the policy is the same at all times": np.repeat(policy[:1, alive], horizon, axis=0),
            "time runs backwards in the policy": policy[::-1, alive],
            "the policy is greedy": np.eye(mdp.n_actions)[policy.argmax(axis=2)][:, alive],
        },
    )


register(
    Exercise(
        id="03.2",
        title="Soft backward induction",
        function="soft_plan",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can plan softly over a horizon, with a reference, in a world that throws dice.",
        hints=(
            "Begin at the end: V[horizon] = 0. What is the last decision worth?",
            "For each t from horizon - 1 down to 0: Q from V[t + 1], then V[t] and the policy at t "
            "from Q. The sum over next states comes before the exponential.",
            "Q = reward + discount * (dense @ V[t + 1]) has shape (S, A). Shift by the maximum of "
            "Q / beta + log m. At the end of each step set V[t] to 0 in terminal states.",
        ),
        check=check_soft_plan,
    )
)


# --- 03.3 ---------------------------------------------------------------------------------------


def check_frontier(answer, rng):
    n_actions = int(rng.integers(4, 8))
    reward, m = rng.normal(size=n_actions), rng.dirichlet(np.full(n_actions, 2.0))
    betas = rng.permutation(np.geomspace(0.1, 10.0, 9))

    def solve(bug=""):
        log_m = np.zeros(n_actions) if bug == "reference" else np.log(m)
        scaled = reward * betas[:, None] if bug == "times" else reward / betas[:, None]
        return _softmax(scaled + log_m)  # (n, A)

    def gain(policy):
        return policy @ reward

    def nats(policy):
        return (policy * np.log(policy / m)).sum(axis=1)

    best = solve()
    got = expect_length(
        answer(reward, m, betas), 2, hint="return two things: expected rewards and nats"
    )
    value = betas * _log_sum_exp(reward / betas[:, None] + np.log(m))
    expect_close(
        got[0],
        gain(best),
        what="`gains`",
        property="gains are the expected rewards of the optimum at each beta",
        hint="first the policy (3.2) at each beta, then the mean of the reward under it",
        mistakes={
            "you returned the value V, which has the price taken off": value,
            "the reference is missing from the policy": gain(solve("reference")),
            "beta multiplies the reward; it must divide it": gain(solve("times")),
            "you returned the gain over the reference's own reward": gain(best) - m @ reward,
            "you took the largest reward": np.full(len(betas), reward.max()),
        },
    )
    expect_close(
        got[1],
        nats(best),
        what="`nats`",
        property="nats are KL(policy || reference) at each beta",
        hint="the expectation is under the policy; which of the two stands above in the ratio?",
        mistakes={
            "the two arguments of the KL are exchanged": (m * np.log(m / best)).sum(axis=1),
            "the sign is turned": -nats(best),
            "you computed the entropy of the policy": -(best * np.log(best)).sum(axis=1),
            "you multiplied the nats by beta": betas * nats(best),
            "the nats are in bits": nats(best) / np.log(2),
        },
    )
    for large in (800 * reward, 800 * reward - 5000.0):
        got = expect_length(answer(large, m, betas), 2, hint="return expected rewards and nats")
        cold = _softmax(large / betas[:, None] + np.log(m))
        expect_close(
            as_array(got[0], (len(betas),), what="`gains` for very large rewards"),
            cold @ large,
            what="`gains`",
            property="very large rewards do not overflow",
            hint="take the largest exponent out before the exponential (3.8)",
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            exact = np.where(cold > 0, cold * np.log(cold / m), 0.0).sum(axis=1)
        expect_close(
            as_array(got[1], (len(betas),), what="`nats` where a probability underflows to 0"),
            exact,
            what="`nats`",
            property="an action whose probability is 0 costs no nats",
            hint="0 log 0 counts as 0: keep log pi from the log-sum-exp, it is finite",
        )


register(
    Exercise(
        id="03.3",
        title="The frontier of reward and KL",
        function="frontier",
        points=3,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can trace what reward a nat buys, and read the price off the slope.",
        hints=(
            "Each beta gives one point. What is the optimal policy at that beta?",
            "Work with log pi = log m + r / beta - log Z. The KL is the mean of log pi - log m.",
            "Put betas on the first axis: x = reward / betas[:, None] + log m has shape (n, A). "
            "Sum over the last axis, with the maximum taken out.",
        ),
        check=check_frontier,
    )
)


# --- 03.4 ---------------------------------------------------------------------------------------


def check_implicit_reward(answer, rng):
    n, length = int(rng.integers(4, 8)), int(rng.integers(5, 9))
    policy_logp = np.log(rng.uniform(0.05, 0.95, size=(n, length)))
    reference_logp = np.log(rng.uniform(0.05, 0.95, size=(n, length)))
    lengths = np.concatenate([[3, length], rng.integers(2, length, size=n - 2)])
    mask = np.arange(length) < lengths[:, None]
    mask[1::2] = mask[1::2, ::-1]  # padded on the left, as prompts of different lengths are
    mask[-1, 1] = ~mask[-1, 1]  # ... and with a hole
    lengths = mask.sum(axis=1)
    beta = float(rng.uniform(0.1, 0.6))
    ratio = np.where(mask, policy_logp - reference_logp, 0.0)
    want = beta * ratio.sum(axis=1)
    expect_close(
        answer(policy_logp, reference_logp, mask, beta),
        want,
        property="the implicit reward is beta times the log-ratio of the whole response",
        hint="read (3.22) without Z; the probability of a response is the product of its tokens'",
        mistakes={
            "you averaged over tokens; a product of probabilities is a sum of logs": want / lengths,
            "you took as many tokens from the left as the mask counts; padding may stand there": (
                beta
                * np.where(np.sort(~mask, axis=1), 0.0, policy_logp - reference_logp).sum(axis=1)
            ),
            "you averaged over all positions, padding too": want / length,
            "padding is counted": beta * (policy_logp - reference_logp).sum(axis=1),
            "the reference is missing": beta * np.where(mask, policy_logp, 0.0).sum(axis=1),
            "policy and reference are exchanged": -want,
            "beta divides; it must multiply": want / beta**2,
            "beta is missing": want / beta,
            "you took the ratio of probabilities, not its logarithm": lambda: (
                beta * np.exp(ratio.sum(axis=1))
            ),
            "you summed over responses, not over tokens": beta * ratio.sum(axis=0),
        },
    )
    for junk in (-np.inf, 0.0, np.nan):
        for ours, theirs in ((junk, junk), (junk, -1.0), (-2.0, junk)):
            got = answer(
                np.where(mask, policy_logp, ours),
                np.where(mask, reference_logp, theirs),
                mask,
                beta,
            )
            expect(
                not (isinstance(got, np.ndarray) and got.dtype.kind == "f" and np.isnan(got).any()),
                property="what stands in padded positions does not matter",
                hint="minus infinity times 0 is NaN, and so is minus infinity less itself: choose "
                "with np.where, do not multiply by the mask",
                detail="the result holds NaN",
            )
            expect_close(
                got,
                want,
                property="what stands in padded positions does not matter",
                hint="change a padded entry of each argument by hand: what moves?",
            )
    for empty in (np.arange(n) == rng.integers(n - 1), np.ones(n, dtype=bool)):
        expect_close(
            answer(policy_logp, reference_logp, mask & ~empty[:, None], beta),
            np.where(empty, 0.0, want),
            property="a response without a token has the implicit reward 0",
            hint="what is the sum of no logarithms?",
        )


register(
    Exercise(
        id="03.4",
        title="The reward inside a policy",
        function="implicit_reward",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can read the implicit reward of a response off token log-probabilities.",
        hints=(
            "Which of the two terms of (3.22) can be computed without the other responses?",
            "log of a product is a sum of logs: one number for each response.",
            "Take policy minus reference where the mask is true and 0 elsewhere, sum over the last "
            "axis, multiply by beta.",
        ),
        check=check_implicit_reward,
    )
)


# --- 03.5 ---------------------------------------------------------------------------------------


def _stationary(mdp: TabularMDP, beta: float, m: np.ndarray, bug: str = "") -> np.ndarray:
    """(S, A) soft policy by 400 sweeps, right or with one known mistake."""
    dense, gamma = mdp.dense(), 1.0 if bug == "discount" else mdp.discount
    sweeps = 1 if bug == "one sweep" else 400
    values = np.zeros(mdp.n_states)
    for _ in range(sweeps):
        q = mdp.reward + gamma * dense @ values
        x = q / beta + (0.0 if bug in ("values", "both") else np.log(m))
        x = q / beta - np.log(m.shape[1]) if bug == "uniform" else x
        values = q.max(axis=1) if bug == "hard" else beta * _log_sum_exp(x)
        values = np.where(mdp.terminal, 0.0, values)
    if bug == "discount":
        q = np.nan_to_num(q, posinf=0.0, neginf=0.0)
    return _softmax(q / beta + (0.0 if bug in ("policy", "both") else np.log(m)))


def check_soft_policy(answer, rng):
    n_states, n_actions = 6, 3
    transitions = rng.dirichlet(np.full(n_states, 0.5), size=(n_states, n_actions))
    transitions = 0.85 * transitions
    ends = rng.uniform(0.0, 0.9, size=(n_states, n_actions))  # some ways end the episode sooner
    transitions = transitions * (1 - ends[..., None])
    terminal = rng.choice(np.arange(1, n_states - 1), size=2, replace=False)  # not the last state
    transitions[..., terminal] += (1 - transitions.sum(axis=2, keepdims=True)) / 2
    reward = rng.normal(size=(n_states, n_actions))
    reward[terminal] = 0.0
    mdp = TabularMDP.create(
        transitions,
        reward,
        start=0,
        discount=float(rng.uniform(0.85, 0.92)),
        terminal=terminal.tolist(),
    )
    beta = float(rng.uniform(0.4, 0.8))
    m = rng.dirichlet(np.full(n_actions, 1.2), size=n_states)
    alive = ~mdp.terminal
    got = expect_distribution(
        answer(mdp, beta, m), (n_states, n_actions), hint="normalise over the last axis"
    )
    expect_close(
        got[alive],
        _stationary(mdp, beta, m)[alive],
        property="the policy is the soft optimum for this reference",
        hint="check (3.9) line by line at the policy's values; what does m exp((Q - V) / beta) sum "
        "to before it is divided by its sum?",
        mistakes={
            mistake: (lambda bug=bug: _stationary(mdp, beta, m, bug)[alive])
            for mistake, bug in {
                "the values do not know the reference: their log-sum-exp counts actions": "values",
                "the values take every reference for a drunkard": "uniform",
                "the policy does not know the reference": "policy",
                "neither values nor policy know the reference": "both",
                "the backup takes a hard maximum": "hard",
                "the discount is missing": "discount",
                "it stops after one sweep": "one sweep",
            }.items()
        },
        rtol=1e-5,
    )


register(
    Exercise(
        id="03.5",
        title="Paid to stay out",
        function="soft_policy",
        kind="bug hunt",
        points=3,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can find a bug that a normalisation hides.",
        hints=(
            "The last line divides by a sum. What should that sum have been?",
            "Remove the division and print the row sums. Then compare the code with (3.9), symbol "
            "by symbol. A symbol is missing in one place.",
            "The policy uses m. Does the value? In a state with A actions, by how much does a "
            "log-sum-exp without m overrate being alive?",
        ),
        check=check_soft_policy,
    )
)


# --- 03.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="03.6",
        title="A slip in the survey",
        kind="written",
        points=4,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can find an error in a printed formula by its units and its limits.",
        hints=(
            "Let the reward be 0 for all responses. What must the optimum be? What does (a) give?",
            "Which unit has beta in each of the three: reward per nat, or nats per reward?",
            "Derive the difference of rewards from (3.20) in two lines, and compare with (b), (c).",
        ),
        rubric=(
            Criterion(
                1,
                "Says that pi_ref is missing from (a), and gives a reason: with a reward of 0 the "
                "optimum must be pi_ref, and (a) gives the uniform distribution.",
            ),
            Criterion(
                1,
                "Says that beta changes its meaning: nats per reward in (a) and (b), reward per "
                "nat in (c), where it is a price.",
            ),
            Criterion(
                1,
                "Derives the right difference of rewards from (3.20), with beta in front, both "
                "log-ratios to pi_ref, and log Z(x) cancelling.",
            ),
            Criterion(
                1,
                "Shows where the contradiction is, in (c): (b) in Bradley–Terry gives sigma of "
                "1 / beta times the difference, which is (c) only at beta = 1.",
            ),
        ),
    )
)
