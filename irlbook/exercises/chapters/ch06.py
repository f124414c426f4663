"""Exercises of chapter 6: maximum-entropy inverse reinforcement learning."""

from __future__ import annotations

import numpy as np

from irlbook import planning
from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_distribution,
    expect_length,
    fail,
)
from irlbook.irl.maxent import causal_dual, fit_max_causal_ent
from irlbook.mdp import TabularMDP, Trajectories


def _transitions(rng: np.random.Generator, n_states: int, n_actions: int) -> np.ndarray:
    return rng.dirichlet(np.full(n_states, 0.7), size=(n_states, n_actions))


def _policy(rng: np.random.Generator, horizon: int, n_states: int, n_actions: int) -> np.ndarray:
    return rng.dirichlet(np.ones(n_actions), size=(horizon, n_states))


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    top = x.max(axis=-1)
    return top + np.log(np.exp(x - top[..., None]).sum(axis=-1))


# --- 06.1 ---------------------------------------------------------------------------------------


def check_expert_features(answer, rng):
    n_states, n_features = int(rng.integers(4, 8)), int(rng.integers(2, 5))
    features = rng.normal(size=(n_states, n_features))
    discount = float(rng.uniform(0.5, 0.9))
    lengths = np.append(3, rng.permutation([1, 5, int(rng.integers(6, 12))]))
    pairs = [(rng.integers(n_states, size=n + 1), rng.integers(2, size=n)) for n in lengths]

    def total(weight, last=0):
        """Sum over demonstrations of weight(t) phi(s_t), with `last` states more than actions."""
        return sum(
            (weight(np.arange(len(a) + last))[:, None] * features[s[: len(a) + last]]).sum(axis=0)
            for s, a in pairs
        )

    def decay(t):
        return discount**t

    shortest = int(min(lengths))
    expect_close(
        answer(pairs, features, discount),
        Trajectories.from_list(pairs).feature_expectations(features, 2, discount),
        property="mu_E is the mean over demonstrations of their discounted feature sums (6.1)",
        hint="take the shortest demonstration and do it by hand: which states count, with what?",
        mistakes={
            "the discount is missing": total(lambda t: np.ones(len(t))) / len(pairs),
            "the first step is discounted already": total(lambda t: discount ** (t + 1))
            / len(pairs),
            "you counted the state in which a demonstration ended": total(decay, last=1)
            / len(pairs),
            "you divided by the number of steps, not of demonstrations": total(decay)
            / sum(lengths),
            "you added the demonstrations up and took no mean": total(decay),
            "it was scaled by 1 - discount": (1 - discount) * total(decay) / len(pairs),
            "time runs on from one demonstration into the next": sum(
                decay(begin + np.arange(len(a))) @ features[s[:-1]]
                for begin, (s, a) in zip(np.cumsum(lengths) - lengths, pairs, strict=True)
            )
            / len(pairs),
            "you cut all demonstrations to the shortest": sum(
                decay(np.arange(shortest)) @ features[s[:shortest]] for s, _ in pairs
            )
            / len(pairs),
            "you took the discounted mean of each demonstration": sum(
                decay(np.arange(len(a))) @ features[s[:-1]] / decay(np.arange(len(a))).sum()
                for s, a in pairs
            )
            / len(pairs),
        },
    )
    expect_close(
        answer(pairs * 2, features, discount),
        answer(pairs, features, discount),
        property="seeing each demonstration twice changes nothing",
        hint="a mean does not depend on how often the whole list is repeated",
    )


register(
    Exercise(
        id="06.1",
        title="What the demonstrations say",
        function="expert_features",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can turn demonstrations of different lengths into feature expectations.",
        hints=(
            "T actions pass through T + 1 states. In how many of them was something done?",
            "The feature of step t counts discount to the power t, and t starts at 0 in each one.",
            "Loop over the demonstrations; weight the rows of `features` by powers of the discount "
            "with one matrix product; divide once, at the end, by how many there are.",
        ),
        check=check_expert_features,
    )
)


# --- 06.2 ---------------------------------------------------------------------------------------


def _backward(P, reward, terminal, horizon, discount, beta, backup=None, next_q=None):
    """Values (T+1, S) and Q (T, S, A) with a backup of one's choice."""
    backup = backup or (lambda q: beta * _log_sum_exp(q / beta))
    next_q = next_q or (lambda v: reward + discount * P @ v)
    values = np.zeros((horizon + 1, len(terminal)))
    q = np.zeros((horizon, *reward.shape))
    for t in reversed(range(horizon)):
        q[t] = next_q(values[t + 1])
        values[t] = np.where(terminal, 0.0, backup(q[t]))
    return values, q


def check_backward_pass(answer, rng):
    n_states, n_actions, horizon = int(rng.integers(4, 7)), 3, int(rng.integers(4, 7))
    P, reward = _transitions(rng, n_states, n_actions), rng.normal(size=(n_states, n_actions))
    terminal = np.zeros(n_states, dtype=bool)
    terminal[rng.choice(n_states - 1, size=2, replace=False)] = True  # two, and not the last
    discount, beta = float(rng.uniform(0.6, 0.9)), float(rng.uniform(0.3, 0.6))
    arguments = (P, reward, terminal, horizon, discount, beta)
    want, q = _backward(*arguments)
    parts = expect_length(answer(*arguments), 2, hint="return two things: values and policy")
    nobody = np.zeros(n_states, dtype=bool)
    expect_close(
        parts[0],
        want,
        what="`values`",
        property="the values solve the soft Bellman equation from the end (6.6)",
        hint="do one step by hand: from values 0 at the horizon to the values one step earlier",
        mistakes={
            "you took the hard maximum": _backward(*arguments, backup=lambda q: q.max(axis=1))[0],
            "the discount is missing": _backward(P, reward, terminal, horizon, 1.0, beta)[0],
            "the temperature is missing": _backward(P, reward, terminal, horizon, discount, 1.0)[0],
            "the factor beta in front is missing": _backward(
                *arguments, backup=lambda q: _log_sum_exp(q / beta)
            )[0],
            "terminal states have a value": _backward(P, reward, nobody, horizon, discount, beta)[
                0
            ],
            "you took a soft maximum over next states, too (the path model)": _backward(
                *arguments,
                next_q=lambda v: reward + discount * beta * np.log(P @ np.exp(v / beta)),
            )[0],
            "time runs forwards": want[::-1],
        },
    )
    policy = expect_distribution(
        parts[1],
        (horizon, n_states, n_actions),
        what="`policy`",
        hint="which value makes exp((Q - V) / beta) sum to 1 over actions?",
    )
    tilt = np.exp((q - (beta * _log_sum_exp(q / beta))[..., None]) / beta)
    expect_close(
        policy[:, ~terminal],
        tilt[:, ~terminal],
        what="`policy`",
        property="the policy is exp((Q - V) / beta) with the Q of its own time",
        hint="the policy of time t looks at the values of time t + 1",
    )
    dear = (P, reward, terminal, horizon, discount, float(rng.uniform(2.0, 5.0)))
    expect_close(
        expect_length(answer(*dear), 2, hint="return two things")[0],
        _backward(*dear)[0],
        what="`values`",
        property="the values are right for a temperature above 1 too",
        hint="beta is any positive number",
    )
    signs = rng.permutation(np.resize([1.0, -1.0], n_states))[:, None]
    for shift in (2e3, -2e3, 2e3 * signs):
        big = reward + shift
        parts = expect_length(answer(P, big, nobody, 3, 1.0, beta), 2, hint="return two things")
        expect_close(
            as_array(parts[0], (4, n_states), what="`values` for very large or negative rewards"),
            _backward(P, big, nobody, 3, 1.0, beta)[0],
            what="`values`",
            property="large and very negative rewards do not overflow",
            hint="take the largest exponent of each state out before the exponential",
        )
        tilted = _backward(P, big, nobody, 3, 1.0, beta)[1] / beta
        expect_close(
            as_array(
                parts[1],
                (3, n_states, n_actions),
                what="`policy` for very large or negative rewards",
            ),
            np.exp(tilted - _log_sum_exp(tilted)[..., None]),
            what="`policy`",
            property="large and very negative rewards do not overflow in the policy",
            hint="take the largest exponent of each state out before the exponential",
        )


register(
    Exercise(
        id="06.2",
        title="The backward pass",
        function="backward_pass",
        points=3,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can compute a partition function over all paths by dynamic programming.",
        hints=(
            "Three lines of (6.6), from the last time to the first: Q, then V, then the policy.",
            "`transitions @ v` is (S, A): the expected next value of each pair.",
            "Divide Q by beta first; subtract its largest entry of each state before `exp`, add it "
            "after `log`, multiply by beta last. Set terminal states to 0 before the next step.",
        ),
        check=check_backward_pass,
    )
)


# --- 06.3 ---------------------------------------------------------------------------------------


def _visits(P, policy, start, terminal, discount, drop_terminal=True, wrong_order=False):
    """Occupancy (S, A); `wrong_order` puts the loop over states outside that over time."""
    horizon, n_states, _ = policy.shape
    alive = ~terminal if drop_terminal else np.ones(n_states, dtype=bool)
    here = np.zeros((horizon + 1, n_states))
    here[0] = start * alive
    steps = [(t, s) for t in range(horizon) for s in range(n_states)]
    if wrong_order:
        steps = [(t, s) for s in range(n_states) for t in range(horizon)]
    for t, s in steps:
        here[t + 1] += discount * here[t, s] * (policy[t, s] @ P[s]) * alive
    return np.einsum("ts,tsa->sa", here[:-1], policy)


def _flow(P, policy, here):
    """Where chance leads from `here` in one step."""
    return np.einsum("s,sa,sap->p", here, policy, P)


def check_expected_visits(answer, rng):
    n_states, n_actions, horizon = int(rng.integers(4, 7)), 3, int(rng.integers(4, 7))
    P = _transitions(rng, n_states, n_actions)
    policy = _policy(rng, horizon, n_states, n_actions)
    start = rng.dirichlet(np.ones(n_states))
    terminal = np.zeros(n_states, dtype=bool)
    terminal[rng.choice(n_states - 1, size=2, replace=False)] = True  # episodes may begin there too
    discount = float(rng.uniform(0.6, 0.9))
    arguments = (P, policy, start, terminal, discount)
    begun = start * ~terminal
    shifted = np.einsum("s,sa,sap->p", begun, policy[0], P) * ~terminal
    expect_close(
        answer(*arguments),
        _visits(*arguments),
        property="visits are the discounted probabilities of being there, times the policy",
        hint="with horizon 1 the answer is start times policy; what flows where next?",
        mistakes={
            "the loops over states and time are in the wrong order, and visits get lost": _visits(
                *arguments, wrong_order=True
            ),
            "the discount is missing": _visits(P, policy, start, terminal, 1.0),
            "terminal states go on acting": _visits(
                P, policy, begun, terminal, discount, drop_terminal=False
            ),
            "terminal states act, those of the start too": _visits(*arguments, drop_terminal=False),
            "you use the first policy at all times": _visits(
                P, np.repeat(policy[:1], horizon, axis=0), start, terminal, discount
            ),
            "time runs backwards through the policy": _visits(
                P, policy[::-1], start, terminal, discount
            ),
            "an episode that begins in a terminal state is counted": _visits(*arguments)
            + (start * terminal)[:, None] * policy[0]
            + _visits(
                P, policy[1:], discount * _flow(P, policy[0], start * terminal), terminal, discount
            ),
            "the first step is missing": _visits(*arguments) - begun[:, None] * policy[0],
            "the first step is discounted already": discount * _visits(*arguments),
            "you start one step late": _visits(P, policy, shifted, terminal, discount),
            "the transitions are read backwards (from s' to s)": _visits(
                P.transpose(2, 1, 0), policy, start, terminal, discount
            ),
        },
    )
    nobody = np.zeros(n_states, dtype=bool)
    got = as_array(
        answer(P, policy, start, nobody, discount), (n_states, n_actions), what="the visits"
    )
    expect(
        abs(got.sum() - (discount ** np.arange(horizon)).sum()) < 1e-6,
        property="without terminal states the visits sum to 1 + gamma + gamma^2 + ...",
        hint="nothing may be lost and nothing counted twice: check the sum after each step",
    )


register(
    Exercise(
        id="06.3",
        title="The forward pass",
        function="expected_visits",
        points=3,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can say how often a policy is where, exactly, without sampling.",
        hints=(
            "Keep one array: the probability of being in each state now, discounted.",
            "Now becomes next by flowing through the policy and the transitions of ALL states "
            "before time moves on. So time is the outer loop.",
            "`np.einsum` with the three indices s, a and the next state does one step; then "
            "multiply by the discount and empty the terminal states.",
        ),
        check=check_expected_visits,
    )
)


# --- 06.4 ---------------------------------------------------------------------------------------


def _fit_problem(rng):
    n_states, n_actions, n_features = 5, 3, 3
    horizon, discount = int(rng.integers(4, 7)), float(rng.uniform(0.7, 0.95))
    P = _transitions(rng, n_states, n_actions)
    start = rng.dirichlet(np.ones(n_states))
    mdp = TabularMDP.create(P, np.zeros(n_states), start=start, discount=discount)
    features = rng.normal(size=(n_states, n_features))
    true = mdp.with_reward(features @ (1.5 * rng.normal(size=n_features)))
    expert = planning.soft_backward_induction(true, horizon).policy
    target = planning.feature_expectations(
        planning.occupancy_measure(true, expert, horizon), features
    )
    return mdp, features, target, horizon


def check_fit_weights(answer, rng):
    mdp, features, target, horizon = _fit_problem(rng)
    P, start, discount = mdp.dense(), mdp.start, mdp.discount
    l2 = float(rng.uniform(0.1, 0.6))

    def best(penalty=l2, goal=target, world=mdp, steps=horizon):
        fit = fit_max_causal_ent(world, features, goal, horizon=steps, l2=penalty)
        return fit.weights

    got = as_array(
        answer(P, features, target, start, horizon, discount, l2), (3,), what="the weights"
    )
    gradient = causal_dual(got, mdp, features, target, horizon=horizon)[1] + l2 * got
    size = float(np.abs(gradient).max())
    if size < 1e-4:
        return
    uniform = TabularMDP.create(P, np.zeros(5), discount=discount)
    detail = f"its largest entry there is {size:.1g}"
    for mistake, wrong in {
        "the penalty is missing": lambda: best(penalty=0.0),
        "the penalty counts twice (its gradient is l2 w)": lambda: best(penalty=2 * l2),
        "the penalty counts half (the gradient of l2 / 2 w^2 is l2 w)": lambda: best(
            penalty=0.5 * l2
        ),
        "the sign of the gradient is turned: you run from the expert": lambda: -best(),
        "the discount is missing": lambda: best(world=mdp.with_discount(1.0)),
        "the start distribution is not used": lambda: best(world=uniform),
        "the horizon is one step short": lambda: best(steps=horizon - 1),
        "you stopped after one gradient step": lambda: (
            -causal_dual(np.zeros(3), mdp, features, target, horizon=horizon)[1]
        ),
    }.items():
        if np.allclose(got, wrong(), rtol=1e-3, atol=1e-3):
            detail = f"it looks as if {mistake}"
            break
    fail(
        "at the weights the penalised gradient mu(pi_w) - mu_E + l2 w is below 1e-4",
        "print value and gradient at your answer and, by finite differences, at a few others: "
        "where they agree, let the optimiser run longer or ask it for a smaller gradient",
        detail,
    )


register(
    Exercise(
        id="06.4",
        title="A fit of your own",
        function="fit_weights",
        points=4,
        difficulty=4,
        minutes=35,
        importance=5,
        goal="You can do maximum causal entropy inverse reinforcement learning from scratch.",
        hints=(
            "Write one inner function of w that returns the penalised dual and its gradient.",
            "The reward is `features @ w` for every action; the model's feature expectations are "
            "the visits, summed over actions, times the features.",
            "`minimize` takes a function that returns value and gradient when `jac=True`. The "
            "penalty adds one term to the value and one to the gradient. Ask for a small `gtol`.",
        ),
        check=check_fit_weights,
        rounds=2,
    )
)


# --- 06.5 ---------------------------------------------------------------------------------------


def _gradient(w, P, features, target, start, horizon, plan=None, flow=None, hard=False):
    """mu(pi) - target with a discount for planning and one for visits."""
    nobody = np.zeros(len(start), dtype=bool)
    reward = np.repeat((features @ w)[:, None], P.shape[1], axis=1)
    backup = (lambda q: q.max(axis=1)) if hard else None
    _, q = _backward(P, reward, nobody, horizon, plan, 1.0, backup=backup)
    policy = np.exp(q - _log_sum_exp(q)[..., None])
    return _visits(P, policy, start, nobody, flow).sum(axis=1) @ features - target


def check_dual_gradient(answer, rng):
    mdp, features, target, horizon = _fit_problem(rng)
    P, start = mdp.dense(), mdp.start
    mdp = mdp.with_discount(float(rng.uniform(0.5, 0.8)))
    gamma, w = mdp.discount, 2.0 * rng.normal(size=3)
    arguments = (w, P, features, target, start, horizon)
    expect_close(
        answer(*arguments, gamma),
        causal_dual(w, mdp, features, target, horizon=horizon)[1],
        property="the gradient is that of the dual g(w) = V_w(p_0) - w . mu_E, in every direction",
        hint="compare with finite differences of g, with a discount well below 1 and with discount "
        "1: where do they differ?",
        mistakes={
            "the discount is missing from planning": _gradient(*arguments, plan=1.0, flow=gamma),
            "the discount is missing from the visits": _gradient(*arguments, plan=gamma, flow=1.0),
            "the discount is missing everywhere": _gradient(*arguments, plan=1.0, flow=1.0),
            "you plan with the hard maximum": _gradient(
                *arguments, plan=gamma, flow=gamma, hard=True
            ),
            "the sign is turned": -_gradient(*arguments, plan=gamma, flow=gamma),
            "the discount counts twice in planning": _gradient(
                *arguments, plan=gamma**2, flow=gamma
            ),
            "the target is missing": _gradient(*arguments, plan=gamma, flow=gamma) + target,
        },
    )


register(
    Exercise(
        id="06.5",
        title="A gradient that is nearly right",
        function="dual_gradient",
        kind="bug hunt",
        points=3,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can find a silent bug in a gradient by testing it against its own objective.",
        hints=(
            "Which scalar function should this be the gradient of? Write that function and take "
            "finite differences.",
            "Try it with discount 1 and with discount 0.5. In which case do gradient and "
            "differences agree?",
            "The discount appears in (6.6), where one plans, and in the visits. Count how often "
            "the code uses it.",
        ),
        check=check_dual_gradient,
    )
)


# --- 06.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="06.6",
        title="A reward for another city",
        kind="written",
        points=5,
        difficulty=3,
        minutes=30,
        importance=4,
        goal="You can judge what a fitted reward does and does not show.",
        hints=(
            "Go through the report sentence by sentence. Which verdict of the chapter speaks "
            "against it?",
            "There are four separate steps: zero gap, path model on ice, a picture, another city.",
            "For each step name the counter-example of the chapter, then say what you would "
            "measure instead.",
        ),
        rubric=(
            Criterion(
                1, "a zero gap shows agreement with the model's own visits, not a right model"
            ),
            Criterion(
                1,
                "random moves: the path model tilts outcomes (chooses its luck); the causal model "
                "does not",
            ),
            Criterion(
                1,
                "rewards are identified up to shaping (and scale): pictures prove nothing, compare "
                "policies or values",
            ),
            Criterion(
                1,
                "weights for (junction, turn) pairs carry this city's dynamics and do not "
                "transfer; features that both cities share may",
            ),
            Criterion(
                1,
                "proposes a test: held-out trips or district, replanned, measured by value or "
                "likelihood, over several splits",
            ),
        ),
    )
)
