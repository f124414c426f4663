"""Exercises of chapter 7: deep and Bayesian inverse reinforcement learning."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from irlbook import planning
from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    as_array,
    expect,
    expect_close,
    expect_equal,
    expect_length,
)
from irlbook.irl.bayesian import Posterior
from irlbook.mdp import TabularMDP


def _world(rng: np.random.Generator, n_states: int, n_actions: int) -> TabularMDP:
    moves = rng.dirichlet(np.full(n_states, 0.7), size=(n_states, n_actions))
    return TabularMDP.create(moves, np.zeros(n_states), discount=float(rng.uniform(0.6, 0.9)))


# --- 07.1 ---------------------------------------------------------------------------------------


def _through(features, inner, bias, outer, slope=None, part=None):
    """Gradients by hand, with a slope of tanh and a signal of one's choice."""
    hidden = np.tanh(features @ inner + bias)
    slope = 1 - hidden**2 if slope is None else slope
    back = part[:, None] * outer * slope
    return features.T @ back, back.sum(axis=0), hidden.T @ part


def check_reward_gradient(answer, rng):
    n_features, width = 3, 4
    mdp = _world(rng, int(rng.integers(5, 9)), 3)
    features = rng.normal(size=(mdp.n_states, n_features))
    inner = rng.normal(size=(n_features, width))
    bias, outer = rng.normal(size=width), rng.normal(size=width)
    expert_plan = planning.soft_policy_iteration(mdp.with_reward(rng.normal(size=mdp.n_states)))
    expert = planning.occupancy_measure(mdp, expert_plan.policy).sum(axis=1)

    def value_and_visits(world, expert, w1, b1, w2):
        reward = np.where(world.terminal, 0.0, np.tanh(features @ w1 + b1) @ w2)
        plan = planning.soft_policy_iteration(world.with_reward(reward), tolerance=1e-12)
        visits = planning.occupancy_measure(world, plan.policy).sum(axis=1)
        return world.start @ plan.values - expert @ reward, visits

    model = value_and_visits(mdp, expert, inner, bias, outer)[1]
    arguments = (features, inner, bias, outer)
    gap = model - expert
    hidden = np.tanh(features @ inner + bias)
    parts = expect_length(
        answer(*arguments, model, expert),
        3,
        hint="return three gradients, in the order inner, bias, outer",
    )
    names = ("`inner`", "`bias`", "`outer`")
    wrong = {
        "the sign is turned (expert minus model raises the dual)": _through(*arguments, part=-gap),
        "the expert's visits are missing": _through(*arguments, part=model),
        "you took a mean over states": _through(*arguments, part=gap / mdp.n_states),
        "the slope of tanh is missing": _through(*arguments, slope=1.0, part=gap),
        "the slope of tanh is taken as 1 - h": _through(*arguments, slope=1 - hidden, part=gap),
    }
    for i, name in enumerate(names):
        expect_close(
            parts[i],
            _through(*arguments, part=gap)[i],
            what=f"the gradient of {name}",
            property="the gradient is visits of the model minus visits of the expert, times "
            "dr/dtheta, summed over states (7.3)",
            hint="write r(s) out for one state, differentiate by one weight, then sum over states",
            mistakes={
                key: values[i]
                for key, values in wrong.items()
                if not (i == 2 and key.startswith("the slope"))
            },
        )
    # The chain rule against the dual itself, in one random direction, and in a world that ends:
    # there the visits of model and expert do not add up to the same.
    moves, end = mdp.dense(), int(rng.integers(mdp.n_states))
    world = TabularMDP.create(moves, mdp.reward, discount=mdp.discount, terminal=[end])
    soonest = np.eye(mdp.n_actions)[moves[:, :, end].argmax(axis=1)]
    expert = planning.occupancy_measure(world, soonest).sum(axis=1)
    model = value_and_visits(world, expert, inner, bias, outer)[1]
    parts = expect_length(
        answer(*arguments, model, expert),
        3,
        hint="return three gradients, in the order inner, bias, outer",
    )
    push = [rng.normal(size=p.shape) for p in (inner, bias, outer)]
    ends = [
        value_and_visits(
            world, expert, *(p + h * d for p, d in zip((inner, bias, outer), push, strict=True))
        )[0]
        for h in (1e-5, -1e-5)
    ]
    along = sum((as_array(g, d.shape) * d).sum() for g, d in zip(parts, push, strict=True))
    expect(
        abs(along - (ends[0] - ends[1]) / 2e-5) < 1e-4 * max(1.0, abs(along)),
        property="finite differences of the dual agree with the gradient, also where the expert "
        "ends its episodes sooner than the model",
        hint="compare with finite differences of (7.1) one weight at a time",
    )


register(
    Exercise(
        id="07.1",
        title="Through the network by hand",
        function="reward_gradient",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can carry the occupancy gradient into the weights of a network.",
        hints=(
            "Write `hidden = tanh(features @ inner + bias)`. How does r(s) depend on `outer`?",
            "The derivative of tanh(z) is 1 - tanh(z)^2. Every state sends its own signal back.",
            "signal = model minus expert, (S,). `outer` gets hidden.T @ signal; the others get "
            "signal times outer times the slope, summed over states, `inner` with the features.",
        ),
        check=check_reward_gradient,
    )
)


# --- 07.2 ---------------------------------------------------------------------------------------


def _advantages(q: np.ndarray, beta: float) -> np.ndarray:
    top = q.max(axis=1, keepdims=True)
    return (q - top) / beta - np.log(np.exp((q - top) / beta).sum(axis=1, keepdims=True))


def check_choice_likelihood(answer, rng):
    n_states, n_actions = int(rng.integers(4, 8)), int(rng.integers(3, 5))
    q = 2.0 * rng.normal(size=(n_states, n_actions))
    counts = rng.integers(0, 9, size=(n_states, n_actions))
    counts[0] = 0
    beta = float(rng.uniform(0.3, 0.7))
    logs = _advantages(q, beta)
    want = float((counts * logs).sum())
    uncounted = float(logs[counts > 0].sum())
    expect_close(
        answer(q, counts, beta),
        want,
        property="the log-likelihood is the sum over all choices of log pi(a|s) (7.5)",
        hint="one state, two actions, three choices: write the three factors down",
        mistakes={
            "you took the mean over choices, not the sum": want / counts.sum(),
            "each kind of choice counts once, however often it was made": uncounted,
            "the temperature is missing": float((counts * _advantages(q, 1.0)).sum()),
            "beta multiplies; it must divide": float((counts * _advantages(q, 1 / beta)).sum()),
            "beta stands in front of the log-probabilities, not inside": float(
                beta * (counts * _advantages(q, 1.0)).sum()
            ),
            "beta stands in front of the right log-probabilities, too": beta * want,
            "you divided by the hard maximum": float(
                (counts * (q - q.max(axis=1, keepdims=True)) / beta).sum()
            ),
            "you added probabilities, not their logarithms": float((counts * np.exp(logs)).sum()),
            "the sign is turned": -want,
            "you normalised over states, not over actions": float(
                (counts * _advantages(q.T, beta).T).sum()
            ),
        },
    )
    signs = rng.permutation(np.resize([1.0, -1.0], n_states))[:, None]
    for shift in (1e4, -1e4, 1e4 * signs):
        expect_close(
            answer(q + shift, counts, beta),
            want,
            property="large action values do not overflow",
            hint="subtract the largest Q of each state before the exponential",
            rtol=1e-5,
        )
    worse = q.copy()
    worse[np.arange(n_states), rng.integers(n_actions, size=n_states)] -= 1e4
    expect_close(
        answer(worse, counts, beta),
        float((counts * _advantages(worse, beta)).sum()),
        property="a choice of probability 0 in floating point has a finite logarithm, and where it "
        "was never made it counts nothing",
        hint="log of exp of a difference: keep the difference",
        rtol=1e-5,
    )
    dear = float(rng.uniform(2.0, 5.0))
    expect_close(
        answer(q, counts, dear),
        float((counts * _advantages(q, dear)).sum()),
        property="it is right for a temperature above 1 too",
        hint="beta is any positive number",
    )
    expect_close(
        answer(q, 3 * counts, beta),
        3 * answer(q, counts, beta),
        property="three times the data say three times as much",
        hint="counts, not shares",
    )


register(
    Exercise(
        id="07.2",
        title="What a choice is worth",
        function="choice_log_likelihood",
        points=2,
        difficulty=2,
        minutes=10,
        importance=5,
        goal="You can write the likelihood of demonstrations, and not its mean.",
        hints=(
            "The policy is exp((Q - V) / beta). What is its logarithm?",
            "V is beta times log-sum-exp of Q / beta, over the actions of a state.",
            "Multiply the table of log pi by the counts, and add everything up. Nothing else.",
        ),
        check=check_choice_likelihood,
    )
)


# --- 07.3 ---------------------------------------------------------------------------------------


def _fisher(counts, policy, slopes, beta, centre=None, weights=None):
    weights = counts.sum(axis=1)[:, None] * policy if weights is None else weights
    centre = np.einsum("sa,sak->sk", policy, slopes) if centre is None else centre
    centred = slopes - centre[:, None]
    return np.einsum("sa,sak,sal->kl", weights, centred, centred) / beta**2


def check_fisher_information(answer, rng):
    n_states, n_actions, n_features = int(rng.integers(4, 7)), 3, int(rng.integers(2, 4))
    mdp = _world(rng, n_states, n_actions)
    features = rng.normal(size=(n_states, n_actions, n_features))
    beta, w = float(rng.uniform(0.4, 0.8)), rng.normal(size=n_features)
    counts = rng.integers(0, 12, size=(n_states, n_actions))
    plan = planning.soft_policy_iteration(mdp.with_reward(features @ w), beta=beta)
    # dQ/dw: features now and to come, from one linear solve.
    chain = np.einsum("sa,sap->sp", plan.policy, mdp.dense())
    mean = np.einsum("sa,sak->sk", plan.policy, features)
    to_come = np.linalg.solve(np.eye(n_states) - mdp.discount * chain, mean)
    slopes = features + mdp.discount * mdp.dense() @ to_come
    posterior = Posterior(mdp, features, counts, prior_deviation=1.0, beta=beta)
    arguments = (counts, plan.policy, slopes, beta)
    want = posterior.fisher(w)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    expect_close(
        answer(*arguments),
        want,
        rtol=1e-5,
        atol=1e-7,
        property="the information is the covariance, under the policy, of the slopes of Q, "
        "added over the choices made (7.7)",
        hint="one state with two actions: when is its information zero?",
        mistakes={
            "the mean slope is not subtracted": _fisher(
                *arguments, centre=np.zeros((n_states, n_features))
            ),
            "you subtracted the plain mean over actions": _fisher(
                *arguments, centre=slopes.mean(axis=1)
            ),
            "you subtracted the mean over the actions that were taken": _fisher(
                *arguments, centre=np.einsum("sa,sak->sk", shares, slopes)
            ),
            "you weighed actions by how often they were taken": _fisher(
                *arguments, weights=counts.astype(float)
            ),
            "every state counts once": _fisher(*arguments, weights=plan.policy),
            "the temperature is missing": want * beta**2,
            "the temperature counts once instead of twice": want * beta,
            "you took the mean over choices": want / counts.sum(),
        },
    )
    for size in (1.0, 1e6):
        shift = slopes + size * rng.normal(size=(n_states, 1, n_features))
        expect_close(
            answer(counts, plan.policy, shift, beta),
            want,
            rtol=1e-5,
            atol=1e-6,
            property="what all actions of a state share carries no information, however large "
            "it is",
            hint="a slope that is the same for every action changes no choice; the difference of "
            "two large products has few digits left",
        )


register(
    Exercise(
        id="07.3",
        title="How much a choice tells",
        function="fisher_information",
        points=3,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can compute how sharply demonstrations fix a reward, and in which directions.",
        hints=(
            "`slopes[s, a]` is dQ/dw. Subtract from it what the policy expects in that state.",
            "A state that was visited n(s) times counts n(s) times; within it the *policy* says "
            "how likely each action was.",
            "centred (S, A, K); weights counts.sum(axis=1)[:, None] * policy; one einsum "
            "'sa,sak,sal->kl'; divide by beta twice.",
        ),
        check=check_fisher_information,
    )
)


# --- 07.4 ---------------------------------------------------------------------------------------


def _ring(log_p, start, moves, log_u, rule=None, drop=False, edge="wrap"):
    here, path = start, []
    rule = rule or (lambda new, old, u: u < new - old)
    for move, u in zip(moves, log_u, strict=True):
        there = here + move
        there = there % len(log_p) if edge == "wrap" else min(max(there, 0), len(log_p) - 1)
        go = rule(log_p[there], log_p[here], u)
        here = there if go else here
        if go or not drop:
            path.append(here)
    return np.array(path, dtype=int)


def _other_way(log_p, start, moves, log_u):
    here, path = start, []
    for move, u in zip(moves, log_u, strict=True):
        there = (here + move) % len(log_p)
        here = there if u < log_p[there] - log_p[here] else (here - move) % len(log_p)
        path.append(here)
    return np.array(path, dtype=int)


def check_metropolis_path(answer, rng):
    n = int(rng.integers(9, 14))
    log_p = -0.3 * np.abs(np.arange(n) - n // 2) + 0.05 * rng.normal(size=n)  # one gentle hill
    moves = rng.choice([-1, 1], size=400)
    log_u = np.log(rng.random(400))
    start = 0  # at its foot, where the ring closes
    arguments = (log_p, start, moves, log_u)
    path = as_array(answer(*arguments), (-1,), what="the path")
    rejected = _ring(*arguments, drop=True)
    wrong = {
        "a rejected step is left out of the path": rejected,
        "you only ever go uphill": _ring(*arguments, rule=lambda new, old, u: new >= old),
        "you always go": _ring(*arguments, rule=lambda new, old, u: True),
        "the ratio is upside down": _ring(*arguments, rule=lambda new, old, u: u < old - new),
        "you compare with the new density alone, not with the ratio": _ring(
            *arguments, rule=lambda new, old, u: u < new
        ),
        "you compare the uniform number itself with a difference of logarithms": _ring(
            *arguments, rule=lambda new, old, u: np.exp(u) < new - old
        ),
        "the ends of the ring do not meet": _ring(*arguments, edge="clip"),
        "you used the heat bath, p(there) / (p(there) + p(here))": _ring(
            *arguments, rule=lambda new, old, u: u < new - np.logaddexp(new, old)
        ),
        "a rejected step goes the other way": _other_way(*arguments),
        "left and right are exchanged": _ring(log_p, start, -moves, log_u),
        "the path begins with the start": np.append(start, _ring(*arguments)[:-1]),
    }
    seen = next((name for name, p in wrong.items() if np.array_equal(p, path)), None)
    right = _ring(*arguments)
    if seen:
        detail = f"it looks as if {seen}"
    elif len(path) != len(right):
        detail = f"a path of {len(path)} places for {len(right)} steps"
    else:
        detail = f"step {int((path != right).argmax())} (counted from 0) is the first that differs"
    expect(
        np.array_equal(path, right),
        property="the chain goes with chance min(1, p(there) / p(here)), else it stays and is "
        "counted again (7.8)",
        hint="follow the first five steps with pencil and paper",
        detail=detail,
    )
    elsewhere = int(rng.integers(1, n))
    expect_equal(
        answer(log_p, elsewhere, moves, log_u),
        _ring(log_p, elsewhere, moves, log_u),
        property="the chain begins at the place that it is given",
        hint="here we started somewhere else than at 0",
    )
    expect_equal(
        answer(log_p + 900.0, start, moves, log_u),
        _ring(*arguments),
        property="a constant factor of the density changes nothing, however large",
        hint="only ratios matter: stay with logarithms",
    )


register(
    Exercise(
        id="07.4",
        title="A walk that remembers to stay",
        function="metropolis_path",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can write a Markov chain that visits places in proportion to their probability.",
        hints=(
            "What happens to the count of the present place when a proposal is rejected?",
            "log u < log p(there) - log p(here). No exponential is needed.",
            "Propose (here + move) % n; move there if the test says so; append `here` each time.",
        ),
        check=check_metropolis_path,
    )
)


# --- 07.5 ---------------------------------------------------------------------------------------


def _interval(mode, fisher, n, sigma, level, deviations=None, reach=None):
    precision = n * fisher + np.eye(len(mode)) / sigma**2
    deviations = np.sqrt(np.diag(np.linalg.inv(precision))) if deviations is None else deviations
    reach = norm.ppf(0.5 + 0.5 * level) if reach is None else reach
    return np.column_stack([mode - reach * deviations, mode + reach * deviations])


def check_laplace_interval(answer, rng):
    k = int(rng.integers(3, 6))
    mode = rng.normal(size=k)
    root = rng.normal(size=(k, 2))
    fisher = root @ root.T + 0.05 * np.diag(rng.uniform(0.5, 1.5, size=k))  # correlated weights
    n, sigma = int(rng.integers(5, 30)), float(rng.uniform(1.3, 2.5))
    level = float(rng.uniform(0.7, 0.95))
    arguments = (mode, fisher, n, sigma, level)
    precision = n * fisher + np.eye(k) / sigma**2

    def with_precision(p):
        return _interval(*arguments, deviations=np.sqrt(np.diag(np.linalg.inv(p))))

    prior = np.eye(k) / sigma**2
    expect_close(
        answer(*arguments),
        _interval(*arguments),
        property="each interval holds its weight with the stated chance, whatever the other "
        "weights are",
        hint="simulate: draw from the Gaussian with this precision, and count how often each "
        "weight lies in its interval",
        mistakes={
            "the other weights are held fixed at the mode (a conditional deviation)": _interval(
                *arguments, deviations=1 / np.sqrt(np.diag(precision))
            ),
            "the information of one demonstration is used for all": with_precision(fisher + prior),
            "the prior is left out": with_precision(n * fisher),
            "the prior's variance is added to a precision": with_precision(
                n * fisher + np.eye(k) * sigma**2
            ),
            "the prior counts once for each demonstration": with_precision(n * (fisher + prior)),
            "you reach for a one-sided quantile": _interval(*arguments, reach=norm.ppf(level)),
            "you use the variance for the deviation": _interval(
                *arguments, deviations=np.diag(np.linalg.inv(precision))
            ),
        },
    )


register(
    Exercise(
        id="07.5",
        title="Intervals that are too sure",
        function="laplace_interval",
        kind="bug hunt",
        points=3,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can find an error that makes every interval too narrow and every picture fine.",
        hints=(
            "With one weight the function is right. With two that trade off against each other, "
            "how far can the first go if the second may follow?",
            "Compare 1 / P_kk with (P^-1)_kk for the precision P = [[2, 1.9], [1.9, 2]].",
            "The variance of one weight, the others unknown, stands on the diagonal of the "
            "inverse, not in the inverse of the diagonal.",
        ),
        check=check_laplace_interval,
    )
)


# --- 07.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="07.6",
        title="Do mice care for water?",
        kind="written",
        points=5,
        difficulty=3,
        minutes=30,
        importance=4,
        goal="You can say what a posterior vouches for, and what it cannot.",
        hints=(
            "Which of the three checks in the report would have noticed a wrong *model*?",
            "Imagine the best policy of a static reward with water worth 10. What would it do "
            "after the first drink?",
            "Take the sentences one by one: convergence, calibration, the interval, the "
            "conclusion. For each: what does it show, and what would you do instead?",
        ),
        rubric=(
            Criterion(
                1,
                "R-hat shows that the sampler found the model's posterior, not that the model fits",
            ),
            Criterion(
                1,
                "calibration was tested with experts simulated from the static model itself, so it "
                "cannot notice that mice are not such experts",
            ),
            Criterion(
                1,
                "a narrow interval is narrow given the model: a static reward must call water "
                "worth little, since the mouse leaves after its drink",
            ),
            Criterion(
                1,
                "names a model whose state holds the need (thirst, time since the last drink) and "
                "what it should change",
            ),
            Criterion(
                1,
                "proposes a check that can fail: prediction on bouts left out, simulated behaviour "
                "beside the real one, or a lookalike with known truth",
            ),
        ),
    )
)
