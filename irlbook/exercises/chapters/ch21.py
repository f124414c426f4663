"""Exercises of chapter 21: sparse rewards."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import expect, expect_close, expect_length

# --- 21.1 ---------------------------------------------------------------------------------------


def _times(transitions, policy, terminal):
    chain = np.einsum("sa,sat->st", policy, transitions)
    chain[terminal] = 0.0
    return np.linalg.solve(np.eye(len(chain)) - chain, (~terminal).astype(float))


def check_hitting_times(answer, rng):
    n_states, n_actions = int(rng.integers(5, 8)), 3
    transitions = rng.dirichlet(np.ones(n_states), size=(n_states, n_actions))
    policy = rng.dirichlet(np.ones(n_actions), size=n_states)
    terminal = np.zeros(n_states, dtype=bool)
    terminal[rng.permutation(n_states - 1)[:2]] = True  # two of them, and not the last state
    want = _times(transitions, policy, terminal)
    last = np.arange(n_states) == n_states - 1
    chain = np.einsum("sa,sat->st", policy, transitions)
    chain[terminal] = 0.0
    expect_close(
        answer(transitions.copy(), policy, terminal),
        want,
        property="the hitting times solve (21.1)",
        hint="h = 1 + P_pi h where the episode goes on, and h = 0 where it is over",
        mistakes={
            "the policy is taken to be uniform": _times(
                transitions, np.full(policy.shape, 1 / n_actions), terminal
            ),
            "only the last state is taken for an end": _times(transitions, policy, last),
            "an end costs a step, too": np.linalg.solve(
                np.eye(n_states) - chain, np.ones(n_states)
            ),
            "the future is discounted by 0.99": np.linalg.solve(
                np.eye(n_states) - 0.99 * chain, (~terminal).astype(float)
            ),
            "the last step is not counted": np.where(terminal, 0.0, want - 1),
        },
    )
    terminal = np.roll(last, -int(rng.integers(1, n_states - 1))) | last  # now the last one, too
    expect_close(
        answer(transitions.copy(), policy, terminal),
        _times(transitions, policy, terminal),
        property="the hitting times solve (21.1), also if the last state is an end",
        hint="h = 0 in every terminal state, wherever it stands",
    )


register(
    Exercise(
        id="21.1",
        title="How long chance takes",
        function="hitting_times",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can compute how long a policy needs to an end, without simulating.",
        hints=(
            "Average the transitions over the actions of the policy first.",
            "What must a row of a terminal state be, so that its time is 0?",
            "Solve (I - P) h = 1, with the rows and the ones of ends set to 0.",
        ),
        check=check_hitting_times,
    )
)


# --- 21.2 ---------------------------------------------------------------------------------------


def check_share_out(answer, rng):
    length = int(rng.integers(3, 7))
    alpha = rng.dirichlet(np.ones(length))
    total, beta = float(rng.uniform(1.5, 4.0)), float(rng.uniform(0.2, 0.8))
    end = np.eye(length)[-1]
    expect_close(
        answer(alpha, total, beta),
        beta * alpha * total + (1 - beta) * total * end,
        property="the token rewards are those of attention-based credit (21.11)",
        hint="which share is spread by attention, and where does the rest go?",
        mistakes={
            "beta and 1 - beta are exchanged": (1 - beta) * alpha * total + beta * total * end,
            "the rest goes to the first token": beta * alpha * total
            + (1 - beta) * total * end[::-1],
            "all tokens get alike": beta * total / length + (1 - beta) * total * end,
            "what is spread is a share of 1 and not of the reward": beta * alpha
            + (1 - beta) * total * end,
            "the rest is lost": beta * alpha * total,
        },
    )
    expect_close(
        answer(alpha, -total, beta),
        -beta * alpha * total - (1 - beta) * total * end,
        what="the token rewards of a negative reward",
        property="a negative reward is shared out in the same way",
        hint="is a sign lost, or is anything cut off at zero?",
    )


register(
    Exercise(
        id="21.2",
        title="Sharing out a reward",
        function="share_out",
        points=2,
        difficulty=1,
        minutes=10,
        importance=4,
        goal="You can turn a reward of a response into rewards of its tokens that sum to it.",
        hints=(
            "Two parts: one by attention, one at the end.",
            "The parts must sum to the reward.",
            "Add (1 - beta) R to the last entry of beta alpha R.",
        ),
        check=check_share_out,
    )
)


# --- 21.3 ---------------------------------------------------------------------------------------


def check_relabel(answer, rng):
    steps, n = 6, 4
    reached = np.zeros((steps + 1, n), dtype=int)
    reached[0] = rng.integers(0, 2, n)
    bits = rng.integers(0, n, steps)
    bits[4] = bits[3]  # there and back: reached[5] is reached[3], the bits after step 2
    for t, bit in enumerate(bits):
        reached[t + 1] = reached[t]
        reached[t + 1, bit] ^= 1
    later = rng.integers(np.arange(1, steps + 1), steps + 1)
    # The step itself; what it reached and what was reached again later; what stood before it.
    later[1], later[2], later[3] = 2, 5, 5
    goals = reached[later]
    same = (reached[1:] == goals).all(axis=1)
    expect_length(found := answer(reached, later), 2, hint="return goals and rewards")
    expect_close(
        found[0],
        goals,
        what="the goals",
        property="the goal of a step is what was reached at the time drawn for it",
        hint="reached[k] stands before step k: do you look at the time that was drawn?",
        mistakes={
            "the goal is one step too early": reached[later - 1],
            "every step has the last goal": np.repeat(reached[-1:], steps, axis=0),
        },
    )
    some = (reached[1:] == goals).any(axis=1)
    expect_close(
        found[1],
        np.where(same, 0.0, -1.0),
        what="the rewards",
        property="a step pays 0 if the bits after it are its new goal, and -1 else",
        hint="compare all bits after the step with the goal that replaced the old one",
        mistakes={
            "one bit that agrees is enough": np.where(some, 0.0, -1.0),
            "the bits before the step are compared": np.where(
                (reached[:-1] == goals).all(axis=1), 0.0, -1.0
            ),
            "success pays 1 and failure 0": same.astype(float),
            "nothing was computed anew": np.full(steps, -1.0),
        },
    )


register(
    Exercise(
        id="21.3",
        title="In hindsight",
        function="relabel",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can replace the goals of an episode and compute its rewards anew.",
        hints=(
            "Both results come from the array of what was reached.",
            "After step t the bits are reached[t + 1].",
            "All n bits must agree: use .all(axis=1).",
        ),
        check=check_relabel,
    )
)


# --- 21.4 ---------------------------------------------------------------------------------------


def check_shaped_rewards(answer, rng):
    n, gamma = 9, float(rng.uniform(0.6, 0.95))
    phi = rng.normal(size=6) + 3.0
    order = rng.permutation(6)
    exits, inner = order[:2], order[2:]  # states, and the potential of an exit is not 0
    following = rng.permutation(np.append(rng.choice(inner, n - 3), exits[[0, 1, 0]]))
    states = rng.choice(inner, n)
    rewards, over = rng.normal(size=n), np.isin(following, exits)
    plain = rewards + gamma * phi[following] - phi[states]
    expect_close(
        answer(rewards, phi, states, following, over, gamma),
        rewards + gamma * np.where(over, 0.0, phi[following]) - phi[states],
        property="along every episode the potential cancels, up to that of the first state",
        hint="what is the potential worth once nothing comes after?",
        mistakes={
            "the potential of the end is still there": plain,
            "the last step gets no shaping at all": np.where(over, rewards, plain),
            "the discount is missing": rewards + np.where(over, 0.0, phi[following]) - phi[states],
            "the signs are exchanged": rewards
            - gamma * np.where(over, 0.0, phi[following])
            + phi[states],
            "only ends are shaped": rewards + np.where(over, -phi[states], 0.0),
        },
    )


register(
    Exercise(
        id="21.4",
        title="Progress that never ends",
        kind="bug hunt",
        function="shaped_rewards",
        points=3,
        difficulty=2,
        minutes=15,
        importance=5,
        goal="You can shape rewards without changing which policy is best.",
        hints=(
            "Add up the shaping along one episode. What is left over?",
            "The left-over must not depend on where the episode ended.",
            "Behind an end the potential counts 0; before it, it counts as always.",
        ),
        check=check_shaped_rewards,
    )
)


# --- 21.5 ---------------------------------------------------------------------------------------


def check_duality_gap(answer, rng):
    m, n = 3, 5
    payoff = rng.normal(size=(m, n)) + 1.5
    x, y = rng.dirichlet(np.ones(m)), rng.dirichlet(np.ones(n))
    best_row, best_column = (payoff @ y).max(), (x @ payoff).min()
    now = x @ payoff @ y
    got = answer(payoff, x, y)
    expect_close(
        got,
        best_row - best_column,
        property="the gap is what each gains by changing alone, added up (21.13)",
        hint="what would the best row earn against y, and the best column leave to x?",
        mistakes={
            "only the row player may change": best_row - now,
            "only the column player may change": now - best_column,
            "the column player wants the row player to earn much": best_row - (x @ payoff).max(),
            "the best single entries are compared": payoff.max() - payoff.min(),
            "it is the negative of the gap": best_column - best_row,
        },
    )
    rock = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    solved = float(np.asarray(answer(rock, np.ones(3) / 3, np.ones(3) / 3)))
    expect(
        abs(solved) < 1e-9,
        property="even shares have no gap in rock, paper, scissors",
        hint="a solution leaves nothing to gain",
    )


register(
    Exercise(
        id="21.5",
        title="What each could gain alone",
        function="duality_gap",
        points=2,
        difficulty=1,
        minutes=10,
        importance=3,
        goal="You can say how far a pair of strategies is from a solution.",
        hints=(
            "The row player wants much, the column player wants the row player to get little.",
            "Against a mixed strategy a pure answer is good enough.",
            "max of M y, less min of x M.",
        ),
        check=check_duality_gap,
    )
)


# --- 21.6 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="21.6",
        title="A claim about dense rewards",
        kind="written",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can tell a redistribution from a shaping, and say what each leaves alone.",
        hints=(
            "Which quantities may a potential depend on?",
            "What does a learner with rewards to go leave out, and may it?",
            "Which constant does no preference label fix?",
        ),
        rubric=(
            Criterion(1, "the sum is the reward, so every policy keeps its return"),
            Criterion(1, "a potential knows the prefix; attention of the end knows later tokens"),
            Criterion(1, "rewards to go leave out rewards that depend on the future: a bias"),
            Criterion(1, "the zero of the reward matters to it, and no label fixes it"),
            Criterion(
                1, "a test that could fail: whole return or causal weights, at equal samples"
            ),
        ),
    )
)
