"""Proof lab: four short proofs that the book rests on, each with a claim to refute first."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_distribution,
    expect_length,
    expect_line,
    expect_picture,
)

# --- 15L.1 --------------------------------------------------------------------------------------


def _optimal_q(P, reward, discount):
    values = np.zeros(len(P))
    for _ in range(2_000):
        q = reward + discount * P @ values
        new = q.max(axis=1)
        if np.abs(new - values).max() < 1e-12:
            break
        values = new
    return q


def check_spoiling_potential(answer, rng):
    n_states, n_actions = int(rng.integers(3, 6)), int(rng.integers(2, 5))
    P = rng.dirichlet(np.full(n_states, 0.7), size=(n_states, n_actions))
    discount = float(rng.uniform(0.6, 0.9))
    reward = rng.uniform(0.5, 40) * rng.normal(size=(n_states, n_actions))
    potential = as_array(
        answer(P, reward, discount),
        (n_states, n_actions),
        what="the potential",
        hint="one number for each state *and action*",
    )
    expect(
        np.abs(potential).max() <= 1e6,
        property="no entry of the potential is larger than a million in absolute value",
        hint="a few times the size of the values is enough",
    )
    following = discount * P @ potential.max(axis=1)
    q = _optimal_q(P, reward + following - potential, discount)
    scale = max(1.0, float(np.abs(q).max()))
    best = q >= q.max(axis=1, keepdims=True) - 1e-7 * scale
    original = _optimal_q(P, reward, discount)
    values = original.max(axis=1)
    # The best that a policy can do that is optimal after shaping: it may choose among ties.
    kept = _optimal_q(P, np.where(best, reward, -1e9), discount).max(axis=1)
    loss = values - kept
    expect(
        loss.max() > 1e-3 * np.ptp(reward),
        property="no policy that is optimal for the shaped reward is optimal for the original one",
        hint="the last term makes an action less attractive. Which actions would you make so, "
        "and by how much?",
    )


register(
    Exercise(
        id="15L.1",
        title="Refute: a potential of state and action",
        function="spoiling_potential",
        points=2,
        difficulty=2,
        minutes=15,
        importance=3,
        goal="You can find a counterexample to a plausible generalisation of shaping.",
        hints=(
            "A function of the state alone is subtracted from every action alike. What is not?",
            "Solve the MDP first: which action is best in each state?",
            "Punish just these actions, by more than any value differs from another.",
        ),
        check=check_spoiling_potential,
    )
)

register(
    Exercise(
        id="15L.2",
        title="Prove: shaping by a potential keeps optimal policies",
        kind="written",
        points=6,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can prove Ng, Harada and Russell's theorem, and say which step needs what.",
        hints=(
            "Write out the discounted sum of the shaped rewards along one path.",
            "Each potential occurs twice, with opposite signs. Which one is left at the beginning, "
            "and which at the end?",
            "Compare Q of the shaped reward with Q of the original for *every* policy, not only "
            "for the best one.",
        ),
        rubric=(
            Criterion(1, "writes the shaped discounted return of a path as a sum that telescopes"),
            Criterion(
                1,
                "handles the far end: the term gamma^T Phi(s_T) vanishes because Phi is bounded "
                "and gamma < 1",
            ),
            Criterion(1, "says what an episode that ends changes: Phi is 0 in terminal states"),
            Criterion(
                1, "concludes Q'(s, a) = Q(s, a) - Phi(s) for every policy, expectation included"
            ),
            Criterion(
                1,
                "the difference does not depend on the action (nor on the policy), so the same "
                "policies are optimal: both directions, or equality of the two sets",
            ),
            Criterion(
                1,
                "says which step fails for Phi(s, a): what is subtracted depends on the action",
            ),
        ),
    )
)

# --- 15L.3 --------------------------------------------------------------------------------------


def check_flat_direction(answer, rng):
    n, d = int(rng.integers(8, 15)), int(rng.integers(3, 6))
    features = rng.normal(size=(n, d))
    normal = rng.normal(size=d) + np.sign(rng.normal(size=d)) * 0.5
    normal /= np.linalg.norm(normal)
    level = float(rng.uniform(1, 3))
    features += np.outer(level - features @ normal, normal)  # all in one plane, not through 0
    got = as_array(answer(features), (d,), what="the direction", hint="one number for each feature")
    expect(
        abs(np.linalg.norm(got) - 1) < 1e-6,
        property="the direction has length 1",
        hint="divide by its norm",
    )
    expert = rng.dirichlet(np.ones(n)) @ features
    for _ in range(3):
        w, t = 2 * rng.normal(size=d), float(rng.uniform(1, 4))

        def g(w):
            scores = features @ w
            top = scores.max()
            return top + np.log(np.exp(scores - top).sum()) - w @ expert

        expect(
            abs(g(w + t * got) - g(w)) < 1e-6 * max(1.0, abs(g(w))),
            property="g does not change along the direction, wherever one starts",
            hint="what must hold of the features of any two paths if moving along it changes no "
            "probability?",
        )


register(
    Exercise(
        id="15L.3",
        title="Refute: the dual is strictly convex",
        function="flat_direction",
        points=2,
        difficulty=3,
        minutes=20,
        importance=3,
        goal="You can find the direction in which MaxEnt's dual is flat.",
        hints=(
            "If d is such a direction, the features of all paths have the same product with d.",
            "Subtract the mean of the features first. What is then the product with d?",
            "The singular value decomposition of the centred features gives a vector that all of "
            "them are orthogonal to.",
        ),
        check=check_flat_direction,
    )
)

# --- 15L.4 --------------------------------------------------------------------------------------


def check_draw_chord(answer, rng):
    n, d = int(rng.integers(5, 9)), int(rng.integers(2, 4))
    features = 2 * rng.normal(size=(n, d))
    expert = rng.dirichlet(np.ones(n)) @ features
    w, v = 2 * rng.normal(size=(2, d))
    t = np.linspace(0, 1, int(rng.integers(15, 30)))
    scores = (w + t[:, None] * (v - w)) @ features.T
    g = np.log(np.exp(scores).sum(axis=1)) - (w + t[:, None] * (v - w)) @ expert
    (panel,) = expect_picture(
        answer(features, expert, w, v, t), hint="one pair of axes is enough"
    ).axes
    expect_line(
        panel,
        t,
        g,
        property="one line shows g along the way from w to v",
        hint="t = 0 is w, t = 1 is v; g is log Z(w) minus the product of w with the expert's "
        "features",
    )
    chord = (1 - t) * g[0] + t * g[-1]
    ends = [
        line
        for line in panel.lines
        if len(line.x) >= 2
        and np.allclose(line.y, np.interp(line.x, t, chord))
        and np.ptp(line.x) > 0.99
    ]
    expect(
        len(ends) > 0,
        property="a straight line joins the two ends of g",
        hint="it goes from (0, g(w)) to (1, g(v))",
    )
    curve = [
        line.label for line in panel.lines if line.y.shape == g.shape and np.allclose(line.y, g)
    ]
    straight = [line.label for line in ends]
    expect(
        any("chord" in label.lower() and label in panel.legend for label in straight)
        and any("chord" not in label.lower() and label in panel.legend for label in curve),
        property="a legend says which line is which, and calls the straight one 'chord'",
        hint="`label=...` for each line, then `ax.legend()`",
    )


register(
    Exercise(
        id="15L.4",
        title="The picture: a function and its chord",
        kind="figure",
        function="draw_chord",
        points=2,
        difficulty=2,
        minutes=15,
        importance=3,
        goal="You can see convexity before you prove it.",
        hints=(
            "A point on the way is (1 - t) w + t v.",
            "Z(w) is the sum of exp(w . f) over all paths; compute g for one w, then for each t.",
            "Two calls of `plot`: the values, and the first joined with the last.",
        ),
        check=check_draw_chord,
    )
)

register(
    Exercise(
        id="15L.5",
        title="Prove: maximum entropy has a convex dual",
        kind="written",
        points=6,
        difficulty=4,
        minutes=40,
        importance=5,
        goal="You can derive the dual of the maximum-entropy problem and prove that it is convex.",
        hints=(
            "One multiplier vector for the features, one multiplier for the sum of probabilities.",
            "Where the derivative of the Lagrangian with respect to P is 0, P has a known form.",
            "The second derivative of log Z is a covariance matrix. Why has a covariance no "
            "negative eigenvalue?",
        ),
        rubric=(
            Criterion(1, "writes the Lagrangian with a multiplier for each constraint"),
            Criterion(
                1,
                "solves for P: proportional to exp(w . f), and says why it is the maximum "
                "(entropy is concave) and why P > 0 needs no multiplier",
            ),
            Criterion(1, "inserts it and finds g(w) = log Z(w) - w . f_E, a bound to minimise"),
            Criterion(1, "gradient: the features expected under P_w minus f_E, so 0 is matching"),
            Criterion(
                1,
                "Hessian: the covariance of the features under P_w, whose quadratic form is a "
                "variance and so at least 0 (or: log-sum-exp is convex, by Hoelder)",
            ),
            Criterion(
                1,
                "not strict: the variance is 0 exactly along directions in which all paths agree, "
                "so the minimiser need not be unique, though P_w is",
            ),
        ),
    )
)

# --- 15L.6 --------------------------------------------------------------------------------------

LEAST = 1e-5  # the smallest probability that is told from 0


def _variance(p, r, baseline):
    """Total variance of (r - b) (one-hot - p) for one draw of a softmax policy, exactly."""
    score = np.eye(len(p)) - p
    estimate = (r - baseline)[:, None] * score
    mean = p @ estimate
    return float(p @ (estimate**2).sum(axis=1) - mean @ mean), mean


def check_harmful_baseline(answer, rng):
    n = int(rng.integers(2, 7))
    got = expect_length(answer(n), 2, hint="return two things: probabilities and rewards")
    p = expect_distribution(got[0], (n,), what="`p`", hint="n probabilities that sum to one")
    r = as_array(got[1], (n,), what="`r`", hint="one reward for each response")
    expect(
        p.min() >= LEAST,
        property=f"each of the n responses has a probability of at least {LEAST:g}",
        hint="a softmax gives no response the probability 0; a rare response is rare enough at one "
        "in a hundred",
        detail=f"the smallest is {p.min():.2g}",
    )
    expect(
        np.abs(r).max() <= 1e3,
        property="no reward is larger than a thousand in absolute value",
        hint="small numbers are enough",
    )
    without, gradient = _variance(p, r, 0.0)
    with_mean, _ = _variance(p, r, p @ r)
    expect(
        np.abs(gradient).max() > 1e-9,
        property="the responses differ in their rewards, so that there is a gradient to estimate",
        hint="where all rewards are alike there is nothing to learn",
    )
    expect(
        with_mean >= 2 * without,
        property="with the mean reward as the baseline the estimate is at least twice as noisy as "
        "with none",
        hint="the noise counts how large the score is. For which response is the score large, and "
        "which one should be multiplied by 0?",
        detail=f"the variance is {with_mean / max(without, 1e-300):.2f} times as large",
    )


register(
    Exercise(
        id="15L.6",
        title="Refute: a mean baseline never hurts",
        function="harmful_baseline",
        points=2,
        difficulty=3,
        minutes=20,
        importance=3,
        goal="You can tell what a baseline guarantees, the mean, from what it does not, the noise.",
        hints=(
            "Begin with two responses, one rare and one common.",
            "The score of a rare response is long, that of a common one is short.",
            "Let the rare response have the reward 0: without a baseline it adds no noise at all.",
        ),
        check=check_harmful_baseline,
        seconds=20.0,
        rounds=3,
    )
)

register(
    Exercise(
        id="15L.7",
        title="Prove: leaving one out is unbiased",
        kind="written",
        points=5,
        difficulty=3,
        minutes=30,
        importance=5,
        goal="You can prove that a baseline from the other samples leaves the gradient unbiased.",
        hints=(
            "What is the sum of the gradient of pi(y) over all y?",
            "y_i and the baseline of response i are independent. Why?",
            "For the group's mean, write it as (1/k) r_i plus (k - 1)/k times the others' mean.",
        ),
        rubric=(
            Criterion(
                1, "the expected score is 0: sum of pi grad log pi = grad of the sum of pi = grad 1"
            ),
            Criterion(
                1,
                "the leave-one-out baseline is a function of the other samples, and these are "
                "independent of y_i given the prompt",
            ),
            Criterion(
                1, "so the expectation of baseline times score factorises and is 0 (or: condition)"
            ),
            Criterion(1, "the mean over the k responses keeps the expectation, by linearity alone"),
            Criterion(
                1,
                "with the own reward in the mean, the expectation shrinks by (k - 1)/k: a biased "
                "estimate with the right direction",
            ),
        ),
    )
)

# --- 15L.8 --------------------------------------------------------------------------------------


def _best(reward, reference, beta):
    weights = np.log(reference) + reward / beta
    weights = np.exp(weights - weights.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def check_other_reward(answer, rng):
    prompts, responses = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    reward = rng.normal(size=(prompts, responses)) * float(rng.uniform(1, 10))
    reference = rng.dirichlet(np.ones(responses) * 3, size=prompts)
    beta = float(rng.uniform(0.5, 2.0))
    got = as_array(
        answer(reward, reference, beta),
        (prompts, responses),
        what="the other reward",
        hint="one number for each prompt and response",
    )
    expect(
        np.abs(got).max() <= 1e4,
        property="no entry is larger than ten thousand in absolute value",
        hint="a constant a little larger than the spread of the rewards is enough",
    )
    expect(
        np.allclose(_best(got, reference, beta), _best(reward, reference, beta), atol=1e-6),
        property="both rewards have the same best policy under the KL price",
        hint="what may be added to the rewards of one prompt without a change of this policy?",
    )
    x, y = np.unravel_index(reward.argmax(), reward.shape)
    others = np.delete(got, x, axis=0)
    expect(
        bool((others > got[x, y]).all()),
        property="the response with the largest reward of all has, in the other reward, less than "
        "every response to every other prompt",
        hint="only rewards of different prompts change their order",
    )


register(
    Exercise(
        id="15L.8",
        title="Refute: the policy tells the reward",
        function="other_reward",
        points=2,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can say which part of a reward DPO's implicit reward cannot recover.",
        hints=(
            "The best policy is the reference times exp(r / beta), normalised for each prompt.",
            "A number that depends on the prompt alone cancels in this normalisation.",
            "Subtract a large number from all rewards of one prompt.",
        ),
        check=check_other_reward,
    )
)

register(
    Exercise(
        id="15L.9",
        title="Prove: the optimum under a KL price, and what cancels",
        kind="written",
        points=6,
        difficulty=4,
        minutes=40,
        importance=5,
        goal="You can derive DPO from the KL-regularised objective, step by step.",
        hints=(
            "Write the objective for one prompt as minus beta times a KL divergence, plus "
            "something that does not contain the policy.",
            "A KL divergence is at least 0, and 0 for equal distributions only.",
            "Solve the optimum for r, and take the difference of two responses to one prompt.",
        ),
        rubric=(
            Criterion(
                2,
                "the objective for one prompt equals -beta KL(pi || pi*) + beta log Z(x), with pi* "
                "and Z written out (Gibbs' variational principle)",
            ),
            Criterion(
                1,
                "KL >= 0 with equality only for pi = pi*, so pi* is the only maximum (a derivative "
                "that is 0 gives the point only together with concavity)",
            ),
            Criterion(1, "solves for r: beta log(pi*/pi_ref) + beta log Z(x)"),
            Criterion(
                1,
                "Bradley–Terry sees a difference of two responses to the *same* prompt, so "
                "beta log Z(x) cancels; the loss follows",
            ),
            Criterion(
                1,
                "conversely: every positive policy is optimal for its implicit reward; what stays "
                "unknown is a function of the prompt",
            ),
        ),
    )
)
