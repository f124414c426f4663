"""Exercises of chapter 5: rewards are not identifiable."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import (
    expect,
    expect_close,
    expect_distribution,
    expect_length,
)


def _world(rng: np.random.Generator, n_actions: int = 3):
    n_states = int(rng.integers(4, 7))
    P = rng.dirichlet(np.full(n_states, 0.5), size=(n_states, n_actions))
    return n_states, n_actions, P


# --- 05.1 ---------------------------------------------------------------------------------------


def _margins(P, chosen, discount, reward, *, solve=None, own=False):
    """(S, A') of (P_pi - P_a) V, without the chosen action unless `own`."""
    n_states, n_actions, _ = P.shape
    P_pi = P[np.arange(n_states), chosen]
    values = solve(P_pi) if solve else np.linalg.solve(np.eye(n_states) - discount * P_pi, reward)
    gain = (P_pi @ values)[:, None] - P @ values
    return gain if own else gain[np.arange(n_actions) != chosen[:, None]].reshape(n_states, -1)


def check_worst_margin(answer, rng):
    n_states, n_actions, P = _world(rng)
    chosen = rng.integers(n_actions, size=n_states)
    discount, reward = float(rng.uniform(0.6, 0.9)), rng.normal(size=n_states)
    gains = _margins(P, chosen, discount, reward)
    expect_close(
        answer(P, chosen, discount, reward),
        gains.min(),
        property="it is the smallest of all the conditions (5.2)",
        hint="do one state by hand: which values, and which two rows of probabilities?",
        mistakes={
            "the sign is turned": (-gains).min(),
            "the reward of the next state stands where its value belongs": _margins(
                P, chosen, discount, reward, solve=lambda P_pi: reward
            ).min(),
            "the discount is missing in the values": _margins(P, chosen, 0.999999, reward).min(),
            "the inverse is transposed": _margins(
                P,
                chosen,
                discount,
                reward,
                solve=lambda P_pi: np.linalg.solve(np.eye(n_states) - discount * P_pi.T, reward),
            ).min(),
            "it is the largest, not the smallest": gains.max(),
            "the chosen action is compared with itself": min(0.0, gains.min()),
            "it is a mean over conditions": gains.mean(),
            "the best other action of each state is the one with the smallest value": gains.max(
                axis=1
            ).min(),
        },
    )
    for state in (0, n_states - 1):  # the worst condition may stand anywhere in the table
        for action in (0, n_actions - 1):
            while True:
                chosen, reward = rng.integers(n_actions, size=n_states), rng.normal(size=n_states)
                gains = _margins(P, chosen, discount, reward, own=True)
                gains[np.arange(n_states), chosen] = np.inf
                if np.unravel_index(gains.argmin(), gains.shape) == (state, action):
                    break
            expect_close(
                answer(P, chosen, discount, reward),
                gains.min(),
                property="no state and no other action is left out",
                hint="the worst condition may be that of the first or last state, or action",
                mistakes={"the chosen action is compared with itself": min(0.0, gains.min())},
            )
    best = chosen
    for _ in range(50):  # policy iteration: then every condition holds, with room to spare
        values = np.linalg.solve(np.eye(n_states) - discount * P[np.arange(n_states), best], reward)
        best = (P @ values).argmax(axis=1)
    expect_close(
        answer(P, best, discount, reward),
        _margins(P, best, discount, reward).min(),
        property="for a policy that is strictly the best, the result is above zero",
        hint="all states and all other actions count; no action is better than itself",
        mistakes={"the chosen action is compared with itself": 0.0},
    )
    for constant in (0.0, 3.0):
        expect_close(
            answer(P, chosen, discount, np.full(n_states, constant)),
            0.0,
            atol=1e-8,
            property="zero and every constant reward are on the edge of the cone",
            hint="if all states pay the same, how much better can an action be?",
        )


register(
    Exercise(
        id="05.1",
        title="Does this reward explain it?",
        function="worst_margin",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can test whether a reward makes a policy optimal.",
        hints=(
            "Two steps: the values of the policy under this reward, then one look ahead.",
            "The values solve a linear system with the transition matrix of the chosen actions.",
            "Compare the chosen row of probabilities with each other row of the same state, times "
            "the values; leave the chosen one itself out.",
        ),
        check=check_worst_margin,
    )
)


# --- 05.2 ---------------------------------------------------------------------------------------


def check_shape(answer, rng):
    n_states, n_actions, P = _world(rng)
    terminal = np.zeros(n_states, dtype=bool)
    terminal[rng.choice(n_states - 1, size=2, replace=False)] = True  # two, and not the last
    reward, potential = rng.normal(size=(n_states, n_actions)), rng.normal(size=n_states) + 1.0
    potential[-1] -= 5.0  # a potential may be negative
    discount = float(rng.uniform(0.6, 0.9))
    clean = np.where(terminal, 0.0, potential)

    def build(phi_next, phi_here, gamma=discount, sign=1.0):
        new = reward + sign * (gamma * P @ phi_next - phi_here[:, None])
        return np.where(terminal[:, None], 0.0, new)

    want = build(clean, clean)
    got = answer(P, reward, terminal, discount, potential)
    expect_close(
        got,
        want,
        property="the shaping is the discounted potential of what comes, minus the potential here",
        hint="(5.5), and mind what (5.7) says of the last state of a path",
        mistakes={
            "a potential is left in the terminal state: it pays for ending": build(
                potential, clean
            ),
            "the discount is missing": build(clean, clean, gamma=1.0),
            "the sign is turned": build(clean, clean, sign=-1.0),
            "the potential here is discounted too": build(clean, discount * clean),
            "the potential of the state itself is not subtracted": build(clean, 0 * clean),
            "only the shaping is returned, without the reward": want
            - np.where(terminal[:, None], 0.0, reward),
            "terminal states keep the reward that stood in the table": np.where(
                terminal[:, None], reward, want
            ),
            "the future is counted in terminal states": reward
            + discount * P @ clean
            - clean[:, None],
        },
    )


register(
    Exercise(
        id="05.2",
        title="Shaping without the trap",
        function="shape",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can shape a reward without changing what is best.",
        hints=(
            "Which term of the telescoping sum depends on what one does?",
            "Set the potential to zero where episodes end, before anything else; work on a copy.",
            "Mean of the potential over next states is one matrix product; nothing is collected "
            "after the end.",
        ),
        check=check_shape,
    )
)


# --- 05.3 ---------------------------------------------------------------------------------------


def check_project(answer, rng):
    k = int(rng.integers(3, 7))
    mean, along = rng.normal(size=(2, k))
    along *= rng.uniform(0.4, 0.7) / np.linalg.norm(along)
    newest = mean + along
    across = rng.normal(size=k)
    across -= across @ along / (along @ along) * along
    share = float(rng.uniform(0.2, 0.8))
    target = mean + share * along + across

    def result(s):
        return np.append(mean + s * along, s)

    parts = expect_length(
        answer(mean, newest, target), 2, hint="return the new point and the share alpha"
    )
    got = np.append(np.asarray(parts[0], dtype=float).reshape(-1), float(parts[1]))
    expect_close(
        got,
        result(share),
        what="the point and the share",
        property="the new point is the one on the line that is nearest to the expert (5.12)",
        hint="draw it in the plane: drop a perpendicular from the expert onto the line",
        mistakes={
            "the share belongs to the old point, not to the newest": result(1 - share),
            "it was divided by the length, not by its square": result(
                np.clip(share * np.linalg.norm(along), 0, 1)
            ),
            "it was divided by the distance to the expert": result(
                np.clip(share * (along @ along) / ((target - mean) @ (target - mean)), 0, 1)
            ),
            "you jumped to the newest policy": result(1.0),
        },
    )
    for s, end in ((1.7, 1.0), (-0.6, 0.0)):
        beyond = mean + s * along + across
        point = expect_length(
            answer(mean, newest, beyond), 2, hint="return the new point and the share alpha"
        )
        expect_close(
            point[0],
            mean + end * along,
            property="the point stays between the two: a share is a probability",
            hint="a mixture cannot play a policy with probability 1.7, nor with -0.6",
        )
        expect_close(
            point[1],
            end,
            what="the share",
            property="the share stays between 0 and 1: it is a probability",
            hint="the share that you return is the one that leads to the point that you return",
        )
    still = expect_length(
        answer(mean, mean.copy(), target), 2, hint="return the new point and the share alpha"
    )
    expect_close(
        still[0],
        mean,
        property="if the newest policy is nothing new, the point stays",
        hint="what is the length of the line then?",
    )
    expect_close(
        still[1],
        0.0,
        what="the share",
        property="if the newest policy is nothing new, its share is 0",
        hint="whoever stays gives the newest policy no share",
    )


register(
    Exercise(
        id="05.3",
        title="One step of projection",
        function="project",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can move a mixture towards the expert without a quadratic program.",
        hints=(
            "One inner product says how far along the line the foot of the perpendicular lies.",
            "The unit of that inner product is a squared length; divide by the line's own.",
            "Three cases need care: beyond either end, and a line of length zero.",
        ),
        check=check_project,
    )
)


# --- 05.4 ---------------------------------------------------------------------------------------


def _occupancy(P, start, policy, discount):
    n_states = len(start)
    moves = np.einsum("sa,sap->sp", policy, P)
    visits = np.linalg.solve(np.eye(n_states) - discount * moves.T, start)
    return visits[:, None] * policy


def check_mixture(answer, rng):
    n_states, n_actions, P = _world(rng)
    start = rng.dirichlet(np.ones(n_states))
    discount = float(rng.uniform(0.7, 0.9))
    n = int(rng.integers(3, 6))
    policies = np.eye(n_actions)[rng.integers(n_actions, size=(n, n_states))]
    policies[1] = rng.dirichlet(np.ones(n_actions), size=n_states)  # not all are deterministic
    shares = rng.permutation(np.arange(1.0, n + 1) + rng.uniform(0.0, 0.5, size=n))
    shares[-1] = 0.5  # the last is not the largest
    shares /= shares.sum()
    policies[-1] = np.roll(policies[shares.argmax()], 1, axis=1)  # and differs from the largest
    rho = np.array([_occupancy(P, start, p, discount) for p in policies])
    mixed = np.tensordot(shares, rho, axes=1)

    def normalised(x):
        return x / x.sum(axis=1, keepdims=True)

    got = expect_distribution(answer(P, start, discount, policies, shares), (n_states, n_actions))
    expect_close(
        got,
        normalised(mixed),
        property="one policy visits every state and action as often as the mixture does",
        hint="two of the policies may be in different places: how often is each in this state?",
        mistakes={
            "you mixed the choices, not the visits": np.tensordot(shares, policies, axes=1),
            "all policies count alike": normalised(rho.mean(axis=0)),
            "the visits are those of one step after another without discount": normalised(
                np.tensordot(
                    shares,
                    np.array([_occupancy(P, start, p, 0.999999) for p in policies]),
                    axes=1,
                )
            ),
            "it is the last policy, not the mixture": policies[-1],
            "it is the policy with the largest share": policies[int(shares.argmax())],
        },
    )
    far = float(rng.uniform(0.98, 0.995))
    got = expect_distribution(answer(P, start, far, policies, shares), (n_states, n_actions))
    rho = np.array([_occupancy(P, start, p, far) for p in policies])
    gap = _occupancy(P, start, got, far) - np.tensordot(shares, rho, axes=1)
    expect(
        bool(np.abs(gap).max() < 1e-6),
        property="its own occupancy is the mixture's, also where the discount reaches far",
        hint="compute the occupancy of what you return, and compare",
    )


register(
    Exercise(
        id="05.4",
        title="One policy instead of dice",
        function="mixture_policy",
        points=4,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You know what it means to mix policies.",
        hints=(
            "A policy that is rarely in a state should have little say there.",
            "Compute how often each policy visits each state and action, with the discount; mix "
            "these visits by the shares.",
            "From mixed visits to a policy: divide each state's row by its own sum.",
        ),
        check=check_mixture,
    )
)


# --- 05.5 ---------------------------------------------------------------------------------------


def check_feature_sums(answer, rng):
    n_states, k = int(rng.integers(4, 7)), int(rng.integers(2, 4))
    features = rng.random((n_states, k)) + 0.2
    lengths = rng.permutation([1, 3, 5, int(rng.integers(6, 9))])
    states = rng.integers(n_states, size=int(lengths.sum()))
    discount = float(rng.uniform(0.6, 0.85))
    begins = np.cumsum(lengths) - lengths
    step = np.arange(len(states)) - np.repeat(begins, lengths)

    def total(power):
        return (discount**power)[:, None] * features[states]

    want = total(step).sum(axis=0) / len(lengths)
    expect_close(
        answer(states, lengths, features, discount),
        want,
        property="each demonstration is discounted from its own first step, and they are averaged",
        hint="swap two demonstrations: should the result change?",
        mistakes={
            "time runs on from one demonstration into the next": total(np.arange(len(states))).sum(
                axis=0
            )
            / len(lengths),
            "the discount is missing": total(0.0 * step).sum(axis=0) / len(lengths),
            "the first step is discounted already": total(step + 1).sum(axis=0) / len(lengths),
            "you divided by the number of steps": total(step).sum(axis=0) / len(states),
            "you took no mean": total(step).sum(axis=0),
        },
    )


register(
    Exercise(
        id="05.5",
        title="The later, the less",
        kind="bug hunt",
        function="feature_sums",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You find a discount that does not know where a demonstration begins.",
        hints=(
            "Feed it the same demonstration twice. What should come out, and what does?",
            "Print the weight that each step gets.",
            "Which clock runs, and when is it set back to zero?",
        ),
        check=check_feature_sums,
    )
)


# --- 05.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="05.6",
        title="The colleague's reward",
        kind="written",
        points=5,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can say what a recovered reward is good for, and test it.",
        hints=(
            "Which of the colleague's three observations could have come out otherwise?",
            "List the rewards that would have passed the same tests.",
            "What would you measure in the new building, and with what as the rival?",
        ),
        rubric=(
            Criterion(
                2, "none of the three observations identifies the reward, each with its reason"
            ),
            Criterion(1, "names freedoms that no behaviour shows: scale, constants, shaping"),
            Criterion(
                2,
                "proposes a test that could fail: value lost in a changed world, seeds, rivals",
            ),
        ),
    )
)
