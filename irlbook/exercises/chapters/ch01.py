"""Exercises of chapter 1: Markov decision processes and planning."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from irlbook import planning
from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_length, expect_shape
from irlbook.mdp import TabularMDP


def _random_world(
    rng: np.random.Generator, n_states: int, n_actions: int, successors: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """(S, A, S) transitions with few successors a row, and (S, A) rewards of both signs."""
    transitions = np.zeros((n_states, n_actions, n_states))
    for s in range(n_states):
        for a in range(n_actions):
            reached = rng.choice(n_states, size=min(successors, n_states), replace=False)
            transitions[s, a, reached] = rng.dirichlet(np.ones(len(reached)))
    return transitions, rng.normal(size=(n_states, n_actions))


# 01.1 ---------------------------------------------------------------------------------------------


def check_optimal_backup(answer, rng):
    n_states, n_actions = int(rng.integers(4, 8)), int(rng.integers(2, 4))
    transitions, reward = _random_world(rng, n_states, n_actions)
    reward[int(rng.integers(n_states))] -= 20.0  # one state is bad whatever you do there
    values = 3.0 * rng.normal(size=n_states)
    _check_backup(answer, transitions, reward, values, float(rng.uniform(0.5, 0.95)))
    _check_backup(answer, transitions, reward, values, 0.0)


def _check_backup(answer, transitions, reward, values, discount):
    n_states = len(values)
    q = reward + discount * transitions @ values
    in_place = values.copy()
    for s in range(n_states):
        in_place[s] = (reward[s] + discount * transitions[s] @ in_place).max()
    got = answer(transitions, reward, values, discount)
    expect_shape(got, (n_states,), hint="one new value for each state: the best over its actions")
    expect_close(
        got,
        q.max(axis=1),
        property="the new value is the best, over actions, of reward plus discounted next value",
        hint="follow (1.9) from the inside: first the mean over next states, then the reward, "
        "then the maximum over actions",
        mistakes={
            "you took the mean over actions, not the best one": q.mean(axis=1),
            "you took the worst action": q.min(axis=1),
            "the maximum began at zero, and nothing can be worth less": q.max(axis=1).clip(min=0.0),
            "the discount is missing": (reward + transitions @ values).max(axis=1),
            "the reward was discounted too": (discount * (reward + transitions @ values)).max(
                axis=1
            ),
            "the reward is missing": (discount * transitions @ values).max(axis=1),
            "some states already used new values of this sweep": in_place,
            "you went to the best next state instead of averaging over where chance leads": (
                reward + discount * np.where(transitions > 0, values, -np.inf).max(axis=2)
            ).max(axis=1),
        },
    )


register(
    Exercise(
        id="01.1",
        title="One sweep of value iteration",
        function="optimal_backup",
        points=2,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can turn the Bellman optimality equation into code.",
        hints=(
            "Which part of (1.9) depends on the action, and which on the next state?",
            "`transitions @ values` averages over the last axis. Which shape is left?",
            "Build the whole table Q of shape (S, A) first; a maximum over one axis remains.",
        ),
        check=check_optimal_backup,
    )
)


# 01.2 ---------------------------------------------------------------------------------------------


def check_plan_to_within(answer, rng):
    hint = (
        "the change of one sweep says little by itself: (1.11) tells how large the error may still "
        "be; and the change that counts is the largest, whatever its sign"
    )
    sign = float(rng.choice([-1.0, 1.0]))
    for case, (discount, tolerance) in enumerate(
        [(0.9, 1e-2), (float(rng.uniform(0.98, 0.99)), 1e-3), (0.995, 1e-4)]
    ):
        transitions, reward = _random_world(rng, 6, 2)
        reward = -2.0 - np.abs(reward) if case == 1 else reward + 2.0 * sign
        mdp = TabularMDP.create(transitions, reward, discount=discount)
        truth = planning.policy_iteration(mdp, tolerance=1e-8).values
        got = answer(transitions, reward, discount, tolerance)
        expect_shape(got, (6,), hint="return the values, one for each state")
        error = float(np.abs(np.asarray(got, dtype=float) - truth).max())
        expect(
            error <= tolerance * (1 + 1e-6),
            property="every value is within `tolerance` of the true optimum, for any discount",
            hint=hint,
            detail="the error is more than ten times the tolerance"
            if error > 10 * tolerance
            else "the error is up to ten times the tolerance",
        )
    # One state of many earns; an average over states would hardly notice it.
    size = 60
    transitions = np.tile(np.eye(size)[:, None, :], (1, 2, 1))
    reward = np.zeros((size, 2))
    reward[int(rng.integers(size))] = sign
    truth = reward.max(axis=1) / (1 - 0.95)
    got = np.asarray(answer(transitions, reward, 0.95, 1e-3), dtype=float)
    expect(
        got.shape == truth.shape and np.abs(got - truth).max() <= 1e-3 * (1 + 1e-6),
        property="the guarantee holds in every state, also when a single state is slow",
        hint=hint,
    )


register(
    Exercise(
        id="01.2",
        title="Stop with a guarantee",
        function="plan_to_within",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can stop value iteration so that the error is certain, not hoped for.",
        hints=(
            "With discount 0.99 and a change of 0.001, how far may the values still drift in all?",
            "Sum the changes that can still follow: each is at most the discount times the last.",
            "Compare discount / (1 - discount) times the largest absolute change with the "
            "tolerance.",
        ),
        check=check_plan_to_within,
    )
)


# 01.3 ---------------------------------------------------------------------------------------------


def check_visits(answer, rng):
    n_states, n_actions = int(rng.integers(5, 9)), int(rng.integers(2, 4))
    transitions, reward = _random_world(rng, n_states, n_actions)
    terminal = np.zeros(n_states, dtype=bool)
    terminal[rng.choice(n_states, size=2, replace=False)] = True
    transitions[terminal] = 0.0
    for s in np.flatnonzero(terminal):
        transitions[s, :, s] = 1.0  # like FrozenLake's holes: the table loops for ever
    ways_out = np.ix_(~terminal, np.arange(n_actions), terminal)
    inside = transitions[~terminal][:, :, ~terminal].sum(axis=2, keepdims=True)
    transitions[ways_out] *= 0.05 * inside  # episodes are long: the far end of the sum counts
    transitions /= transitions.sum(axis=2, keepdims=True)
    policy = rng.dirichlet(np.ones(n_actions), size=n_states)
    start = np.where(terminal, 0.0, rng.uniform(0.5, 1.5, n_states))
    start /= start.sum()
    discount = float(rng.uniform(0.9, 0.97))
    reward[terminal] = 0.0
    mdp = TabularMDP.create(transitions, reward, start=start, discount=discount, terminal=terminal)
    want = planning.occupancy_measure(mdp, policy)

    def solve(matrix: np.ndarray, right: np.ndarray = start) -> np.ndarray:
        return np.linalg.solve(np.eye(n_states) - matrix, right)[:, None] * policy

    looping = np.einsum("sa,sat->st", policy, transitions)
    ending = looping * ~terminal[:, None]
    got = answer(transitions, terminal, policy, start, discount)
    expect_shape(got, want.shape, hint="one number for each pair of a state and an action")
    expect_close(
        got,
        want,
        property="the visits obey the law of flow (1.15), and nobody acts after the end",
        hint="visits to s = start in s + discount * what flows into s; what flows out of a state "
        "where the episode is over?",
        rtol=1e-5,
        mistakes={
            "terminal states go on acting": lambda: solve(discount * looping.T),
            "the flow runs backwards (a transpose is missing)": lambda: np.where(
                terminal[:, None], 0.0, solve(discount * ending)
            ),
            "it was scaled by 1 - discount": (1 - discount) * want,
            "the discount is missing": lambda: np.where(terminal[:, None], 0.0, solve(ending.T)),
            "the first step is not counted": want - start[:, None] * policy,
        },
    )
    endless, pay = _random_world(rng, n_states, n_actions)
    far, nobody = float(rng.uniform(0.99, 0.999)), np.zeros(n_states, dtype=bool)
    got = as_array(answer(endless, nobody, policy, start, far), want.shape)
    mdp = TabularMDP.create(endless, pay, start=start, discount=far)
    expect_close(
        float((got * pay).sum()),
        planning.expected_return(mdp, policy),
        property="visits times rewards are the mean return (1.14), also where no episode ends",
        hint="test your answer with a reward of 1 in one state only",
    )


register(
    Exercise(
        id="01.3",
        title="Where a policy goes, when episodes end",
        function="visits",
        points=4,
        difficulty=3,
        minutes=20,
        importance=5,
        goal="You can compute an occupancy measure, and treat the end of an episode rightly.",
        hints=(
            "Write (1.15) for a world of two states, and solve it by hand.",
            "In matrices: d = start + discount * (P_pi transposed) d, with d the visits to states. "
            "What must a terminal state send on?",
            "Set the rows of terminal states in P_pi to zero, solve the linear system, multiply by "
            "the policy, and set terminal rows of the result to zero.",
        ),
        check=check_visits,
    )
)


# 01.4 ---------------------------------------------------------------------------------------------

Table = dict[int, dict[int, list[tuple[float, int, float, bool]]]]


def _random_table(rng: np.random.Generator, n_states: int, n_actions: int) -> Table:
    """A table like Gymnasium's: with repeated successors, and ends that the table goes on from."""
    table: Table = {}
    for s in range(n_states):
        table[s] = {}
        for a in range(n_actions):
            first, second = (int(x) for x in rng.choice(n_states, size=2, replace=False))
            chances = rng.dirichlet(np.ones(4))
            landings = [(first, False), (second, False), (first, False), (second, True)]
            order = rng.permutation(4)
            if s == 0:  # an end in the middle of the list, and lists of different lengths
                order = rng.permutation([0, 1, 3]) if a else np.array([0, 3, 1, 2])
                chances = rng.dirichlet(np.ones(len(order)))
            landings = [landings[k] for k in order]
            table[s][a] = [
                (float(p), s2, float(rng.normal()), ended)
                for p, (s2, ended) in zip(chances, landings, strict=True)
            ]
    return table


def _plain_table(name: str) -> Table:
    world: Any = gymnasium.make(name).unwrapped
    source = world.P
    return {
        int(s): {
            int(a): [(float(p), int(s2), float(r), bool(end)) for p, s2, r, end in source[s][a]]
            for a in source[s]
        }
        for s in source
    }


def _read(
    table: Table,
    add: bool = True,
    minds_end: bool = True,
    weigh: bool = True,
    pays_at_end: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The right answer, and with a switch off one of the wrong ones."""
    n_states, n_actions = len(table), len(table[0])
    goes_on = np.zeros((n_states, n_actions, n_states))
    reward = np.zeros((n_states, n_actions))
    for s in table:
        for a in table[s]:
            for p, s2, r, ended in table[s][a]:
                if pays_at_end or not ended:
                    reward[s, a] += p * r if weigh else r
                if not ended or not minds_end:
                    goes_on[s, a, s2] = goes_on[s, a, s2] + p if add else p
    return goes_on, reward


def _expect_arrays(got: Any, table: Table) -> None:
    """The two arrays are those of the table."""
    goes_on, reward = _read(table)
    expect_close(
        got[0],
        goes_on,
        what="the first array",
        property="P[s, a, s'] is the chance to land in s' and go on",
        hint="the same next state can stand in the list twice; and which entries go on?",
        mistakes={
            "a repeated successor overwrote the first one": lambda: _read(table, add=False)[0],
            "moves that end the episode are counted as going on": lambda: _read(
                table, minds_end=False
            )[0],
        },
    )
    expect_close(
        got[1],
        reward,
        what="the second array",
        property="r[s, a] is the mean of what the action pays, the last payment included",
        hint="each entry pays its reward with its chance; ending does not take the pay back",
        mistakes={
            "rewards were added without their chances": lambda: _read(table, weigh=False)[1],
            "the reward of the last move was lost": lambda: _read(table, pays_at_end=False)[1],
        },
    )


def check_read_table(answer, rng):
    hint = "return two arrays: the moves that go on, and the mean rewards"
    table = _random_table(rng, int(rng.integers(4, 7)), 2)
    _expect_arrays(expect_length(answer(table), 2, hint=hint), table)
    for name in ("CliffWalking-v1", "FrozenLake-v1"):
        # Its ends are final, which those of the random table are not: first what that does.
        table = _plain_table(name)
        got = expect_length(answer(table), 2, hint=hint)
        shape = (len(table), len(table[0]))
        goes_on = as_array(got[0], (*shape, len(table)), what="the first array")
        reward = as_array(got[1], shape, what="the second array")
        env = gymnasium.make(name)
        values = np.zeros(len(reward))
        for _ in range(400):
            values = (reward + 0.9 * goes_on @ values).max(axis=1)
        mdp = TabularMDP.from_gymnasium(env, discount=0.9)
        expect_close(
            float(env.unwrapped.initial_state_distrib @ values),
            float(mdp.start @ planning.value_iteration(mdp).values),
            property=f"planning on your arrays gives the right value of {name}",
            hint="print the row of a state next to the goal",
        )
        _expect_arrays(got, table)


register(
    Exercise(
        id="01.4",
        title="Read a Gymnasium table",
        function="read_table",
        points=4,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can import a published world without its three traps.",
        hints=(
            "Print `table[14][2]` of FrozenLake and read it entry by entry.",
            "Three questions for each entry: how likely, what does it pay, does life go on?",
            "Start from zeros, and use += for both arrays; skip one of the two when the entry ends "
            "the episode.",
        ),
        check=check_read_table,
    )
)


# 01.5 ---------------------------------------------------------------------------------------------


def check_plan_in_place(answer, rng):
    for _ in range(2):
        transitions, reward = _random_world(rng, 12, 3)
        reward = reward - 1.0  # most values fall while they converge
        discount = float(rng.uniform(0.9, 0.95))
        mdp = TabularMDP.create(transitions, reward, discount=discount)
        truth = planning.policy_iteration(mdp, tolerance=1e-8).values
        got = answer(transitions, reward, discount, 1e-9)
        one_sweep = np.zeros(12)
        for s in range(12):
            one_sweep[s] = (reward[s] + discount * transitions[s] @ one_sweep).max()
        expect_close(
            got,
            truth,
            atol=1e-6,
            property="the loop goes on until the values stop changing",
            hint="how many sweeps does it make? Print the change of each one. What are the two "
            "arrays that it compares?",
            mistakes={"it stopped after a single sweep": one_sweep},
        )
    early = np.asarray(answer(transitions, reward, discount, 1e6), dtype=float)
    expect(
        np.abs(early - truth).max() > 1e-3,
        property="it stops when no value changes by more than the `tolerance` that it was given",
        hint="with a tolerance wider than any change, one sweep is enough",
    )
    n = 15  # the reward travels one state a sweep, from either end or from the middle
    for goal in (n - 1, 0, int(rng.integers(4, n - 4))):
        transitions, reward = np.zeros((n, 1, n)), np.zeros((n, 1))
        paid = float(rng.uniform(0.5, 2.0))
        for s in range(n):
            towards = s + (1 if goal > s else -1)
            if s != goal and towards != goal:
                transitions[s, 0, towards] = 1.0
            elif s != goal:
                reward[s] = paid
        far = np.abs(np.arange(n) - goal)
        expect_close(
            answer(transitions, reward, 0.9, 1e-9),
            np.where(far > 0, paid * 0.9 ** (far - 1.0), 0.0),
            atol=1e-6,
            property="a reward at one end reaches the other end of the chain",
            hint="some states change while others do not: which of them decides when to stop?",
        )
    size = 60  # one state of many earns: the mean of the changes would hardly notice it
    transitions = np.eye(size)[:, None, :]
    reward = np.zeros((size, 1))
    reward[int(rng.integers(size))] = float(rng.choice([-1.0, 1.0]))
    got = np.asarray(answer(transitions, reward, 0.95, 1e-3), dtype=float)
    expect(
        got.shape == (size,)
        and np.abs((reward + 0.95 * transitions @ got).max(axis=1) - got).max() <= 1e-3,
        property="it ends when no value changes by more than `tolerance`, not even one of many",
        hint="some states change while others do not: which of them decides when to stop?",
    )
    n = 8  # with new values at once a single sweep is enough, from one of the two ends
    far, exact = np.arange(n), []
    for order in (far, n - 1 - far):
        transitions, reward = np.zeros((n, 1, n)), np.zeros((n, 1))
        transitions[order[2:], 0, order[1:-1]] = 1.0
        reward[order[1]] = 1.0
        got = np.asarray(answer(transitions, reward, 0.9, 0.95), dtype=float)
        want = np.where(far > 0, 0.9 ** (far - 1.0), 0.0)
        exact.append(got.shape == (n,) and np.allclose(got[order], want))
    expect(
        any(exact),
        property="a new value is used at once, by the states that come later in the same sweep",
        hint="that is what `in place` means: which array does the right-hand side read?",
    )


register(
    Exercise(
        id="01.5",
        title="It converges suspiciously fast",
        function="plan_in_place",
        kind="bug hunt",
        points=3,
        difficulty=3,
        minutes=15,
        importance=3,
        goal="You can find a bug that raises no error and looks right on a lucky example.",
        hints=(
            "Count the sweeps on both chains.",
            "Print `old is values` inside the loop.",
            "`old = values` gives the same array a second name. What gives a second array?",
        ),
        check=check_plan_in_place,
    )
)


# 01.6 ---------------------------------------------------------------------------------------------

register(
    Exercise(
        id="01.6",
        title="Why not plan a conversation?",
        kind="written",
        points=4,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can say what a method needs before you use it.",
        hints=(
            "Which parts of an MDP does value iteration read, and how often?",
            "How many states has a text of 10 words from a vocabulary of 50,000?",
            "Who writes down the reward of a good answer? And what would discount 1 say of length?",
        ),
        rubric=(
            Criterion(
                1,
                "dynamics: known and without chance (the next state is the text plus the "
                "chosen word), so they are not the obstacle",
            ),
            Criterion(
                1,
                "size: the number of states grows as vocabulary to the power of length, so "
                "a sweep over all states is out of the question",
            ),
            Criterion(
                1,
                "reward: nobody can write it down; it is sparse or missing and must be "
                "learned from people",
            ),
            Criterion(
                1,
                "conclusion: names a kind of method that pays only for the states it meets "
                "(sampling, policy search, search from the present state), and says why no "
                "method is best for every task",
            ),
        ),
    )
)
