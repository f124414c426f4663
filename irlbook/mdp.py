"""Floor 0: the Markov decision process as arrays, and the trajectories that run through it.

A finite MDP is a handful of arrays. Transitions are one sparse matrix with a row for each
state-action pair, because almost every world in this book moves to a few states at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidMDPError,
    InvalidPolicyError,
    InvalidTrajectoryError,
    NotFiniteError,
    NotStochasticError,
    ShapeError,
    TerminalRewardError,
)

ROW_SUM_TOLERANCE = 1e-8


@dataclass(frozen=True)
class TabularMDP:
    """A finite Markov decision process. Build it with :meth:`create`, which checks everything.

    Attributes:
        transitions: (S*A, S) sparse; row ``s*A + a`` holds P(.|s, a). Rows of terminal states
            are empty: the episode is over, so their value is zero.
        reward: (S, A) expected reward r(s, a).
        start: (S,) distribution p_0 of the first state.
        discount: gamma in [0, 1].
        terminal: (S,) bool.
    """

    transitions: sparse.csr_array
    reward: np.ndarray
    start: np.ndarray
    discount: float
    terminal: np.ndarray

    @classmethod
    def create(
        cls,
        transitions: Any,
        reward: Any,
        *,
        start: Any = None,
        discount: float = 0.99,
        terminal: Any = None,
    ) -> TabularMDP:
        """Check the parts of an MDP and put them in standard form.

        Args:
            transitions: (S, A, S) dense, or (S*A, S) dense or sparse with row ``s*A + a``. A CSR
                matrix in canonical form is not copied: do not change its arrays afterwards.
            reward: (S,) collected in s before moving; (S, A); or (S, A, S) / sparse (S*A, S)
                on transitions, which is averaged over the next state.
            start: (S,) distribution, one state number, or None for uniform over the states
                that are not terminal.
            discount: gamma in [0, 1].
            terminal: (S,) bool or a list of state numbers. What `transitions` says of them is
                dropped: nothing happens after the end.

        Raises:
            InvalidMDPError: or one of its kinds; the message names the state and the mend.
        """
        if not 0.0 <= discount <= 1.0:
            raise InvalidMDPError(f"discount must lie in [0, 1]; got {discount}.")
        matrix, n_states, n_actions = _as_transition_matrix(transitions)
        ended = _as_terminal(terminal, n_states)
        matrix = _empty_rows(matrix, np.repeat(ended, n_actions))
        _check_rows(matrix, ended, n_actions)
        rewards = _as_expected_reward(reward, matrix, ended, n_actions)
        first = _as_start(start, ended, n_states)
        for array in (rewards, first, ended, matrix.data, matrix.indices, matrix.indptr):
            array.flags.writeable = False
        return cls(matrix, rewards, first, float(discount), ended)

    @classmethod
    def from_gymnasium(cls, env: Any, *, discount: float = 0.99) -> TabularMDP:
        """Read the table ``env.unwrapped.P[s][a] -> [(p, s', r, terminated), ...]``.

        A state that is only ever entered with ``terminated=True`` becomes terminal, whatever the
        table says it does next (CliffWalking's goal moves on; FrozenLake's holes self-loop). If
        a state is entered both ways (Taxi), or episodes begin in it, the ending transitions lead
        to one extra terminal state, numbered S, so that states 0..S-1 keep their numbers.
        Duplicate successors are added up. Gymnasium's TimeLimit is not in the table and so not in
        the MDP.

        Raises:
            InvalidMDPError: the environment has no table.
        """
        table = getattr(env.unwrapped, "P", None)
        first = getattr(env.unwrapped, "initial_state_distrib", None)
        if table is None or first is None:
            raise InvalidMDPError(
                f"{env} has no table `P` with `initial_state_distrib`. Only Gymnasium's toy-text "
                "environments and irlbook's own have one; give others through TabularMDP.create."
            )
        n_states, n_actions = len(table), len(table[0])
        entries = np.array(
            [
                (s * n_actions + a, probability, successor, reward, ends)
                for s in range(n_states)
                for a in range(n_actions)
                for probability, successor, reward, ends in table[s][a]
            ],
            dtype=float,
        )
        row, successor = entries[:, 0].astype(int), entries[:, 2].astype(int)
        probability, reward, ends = entries[:, 1], entries[:, 3], entries[:, 4].astype(bool)
        source = row // n_actions
        enters_to_end = np.zeros(n_states, dtype=bool)
        enters_to_end[successor[ends]] = True
        # A state is terminal unless an episode begins in it or a living state can also enter it
        # without ending. Taking it off the list makes it a living state itself, so repeat until
        # nothing changes.
        over = enters_to_end & ~(np.asarray(first) > 0)
        while True:
            enters_alive = np.zeros(n_states, dtype=bool)
            enters_alive[successor[~ends & ~over[source]]] = True
            if not (over & enters_alive).any():
                break
            over = over & ~enters_alive
        both = enters_to_end & ~over
        size = n_states + int(both.any())
        successor = np.where(ends & both[successor], n_states, successor)
        expected = np.zeros((size, n_actions))
        np.add.at(expected.reshape(-1), row, probability * reward)
        terminal = np.zeros(size, dtype=bool)
        terminal[:n_states] = over
        terminal[n_states:] = True
        expected[terminal] = 0.0
        matrix = sparse.coo_array(
            (probability, (row, successor)), shape=(size * n_actions, size)
        ).tocsr()
        start = np.zeros(size)
        start[:n_states] = np.asarray(first, dtype=float)
        return cls.create(
            matrix, expected, start=start / start.sum(), discount=discount, terminal=terminal
        )

    @property
    def n_states(self) -> int:
        return self.reward.shape[0]

    @property
    def n_actions(self) -> int:
        return self.reward.shape[1]

    @cached_property
    def _cumulative(self) -> np.ndarray:
        """(nnz + 1,) running sum over all stored probabilities, for sampling a successor."""
        return np.concatenate([[0.0], np.cumsum(self.transitions.data)])

    def dense(self) -> np.ndarray:
        """(S, A, S) transition probabilities as one dense array, for small worlds."""
        return self.transitions.toarray().reshape(self.n_states, self.n_actions, self.n_states)

    def with_reward(self, reward: Any) -> TabularMDP:
        """The same world with another reward, of any shape that :meth:`create` takes."""
        rewards = _as_expected_reward(reward, self.transitions, self.terminal, self.n_actions)
        rewards.flags.writeable = False
        return replace(self, reward=rewards)

    def with_discount(self, discount: float) -> TabularMDP:
        """The same world with another discount."""
        if not 0.0 <= discount <= 1.0:
            raise InvalidMDPError(f"discount must lie in [0, 1]; got {discount}.")
        return replace(self, discount=float(discount))

    def permute(self, states: Any, actions: Any) -> TabularMDP:
        """Renumber: new state i is old state ``states[i]``, and likewise for actions."""
        states, actions = np.asarray(states), np.asarray(actions)
        rows = (states[:, None] * self.n_actions + actions[None, :]).reshape(-1)
        return TabularMDP.create(
            self.transitions[rows][:, states],
            self.reward[np.ix_(states, actions)],
            start=self.start[states],
            discount=self.discount,
            terminal=self.terminal[states],
        )

    def sample_next(self, states: np.ndarray, actions: np.ndarray, rng: np.random.Generator):
        """(n,) next states, one for each pair (states[i], actions[i]), none of them terminal."""
        rows = np.asarray(states) * self.n_actions + np.asarray(actions)
        begin, end = self.transitions.indptr[rows], self.transitions.indptr[rows + 1]
        low, high = self._cumulative[begin], self._cumulative[end]
        target = low + rng.random(len(rows)) * (high - low)
        position = np.searchsorted(self._cumulative, target, side="right") - 1
        return self.transitions.indices[np.clip(position, begin, end - 1)]


def _as_transition_matrix(transitions: Any) -> tuple[sparse.csr_array, int, int]:
    """Return (S*A, S) CSR with sorted, summed entries, none of them zero, and S and A."""
    if sparse.issparse(transitions):
        if transitions.ndim != 2:
            raise ShapeError(f"sparse transitions must be (S*A, S); got {transitions.shape}.")
        matrix = sparse.csr_array(transitions, dtype=np.float64)
    else:
        dense = np.asarray(transitions, dtype=np.float64)
        if dense.ndim == 3 and dense.shape[0] == dense.shape[2]:
            dense = dense.reshape(-1, dense.shape[2])
        if dense.ndim != 2:
            raise ShapeError(
                f"transitions must be (S, A, S) or (S*A, S); got shape {np.shape(transitions)}."
            )
        if np.isnan(dense).any():
            raise NotFiniteError("transitions hold NaN; every entry must be a probability.")
        matrix = sparse.csr_array(dense)
    n_rows, n_states = matrix.shape
    if n_states == 0 or n_rows == 0 or n_rows % n_states:
        raise ShapeError(
            f"transitions have {n_rows} rows for {n_states} states; there must be S*A rows, "
            "one for each state-action pair (row s*A + a)."
        )
    if not matrix.has_canonical_format or not matrix.data.all():
        matrix = matrix.copy()  # the arrays may be the caller's
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    index = np.int32 if max(matrix.nnz, n_rows) < 2**31 else np.int64
    # A new matrix with its own views, so that making them read-only leaves the caller's alone.
    matrix = sparse.csr_array(
        (
            matrix.data.view(),
            matrix.indices.astype(index, copy=False).view(),
            matrix.indptr.astype(index, copy=False).view(),
        ),
        shape=matrix.shape,
    )
    return matrix, n_states, n_rows // n_states


def _as_terminal(terminal: Any, n_states: int) -> np.ndarray:
    """Return (S,) bool from a mask or a list of state numbers."""
    ended = np.zeros(n_states, dtype=bool)
    if terminal is None:
        return ended
    given = np.asarray(terminal)
    if given.dtype == bool:
        if given.shape != (n_states,):
            raise ShapeError(f"terminal has shape {given.shape}; expected ({n_states},).")
        return given.copy()
    numbers = given.astype(int).reshape(-1)
    if numbers.size and not (0 <= numbers.min() and numbers.max() < n_states):
        raise InvalidMDPError(f"terminal names states outside 0..{n_states - 1}.")
    if len(np.unique(numbers)) < numbers.size:
        raise InvalidMDPError(
            "terminal names a state twice. List each state number once; a mask must be bool."
        )
    ended[numbers] = True
    return ended


def _check_rows(matrix: sparse.csr_array, ended: np.ndarray, n_actions: int) -> None:
    """Every row of a state that is not terminal must be a probability distribution."""
    if not np.isfinite(matrix.data).all():
        raise NotFiniteError("transitions hold NaN or infinity; every entry must be a probability.")
    if matrix.nnz and matrix.data.min() < 0:
        bad = int(np.argmax(matrix.data < 0))
        s, a = divmod(int(np.searchsorted(matrix.indptr, bad, side="right")) - 1, n_actions)
        raise NotStochasticError(
            f"P(.|s={s}, a={a}) has a negative probability ({matrix.data[bad]:.3g})."
        )
    sums = matrix.sum(axis=1)
    wrong = (np.abs(sums - 1.0) > ROW_SUM_TOLERANCE) & ~np.repeat(ended, n_actions)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        s, a = divmod(first, n_actions)
        raise NotStochasticError(
            f"P(.|s={s}, a={a}) sums to {sums[first]:.6g}, not 1 ({int(wrong.sum())} such rows). "
            "Normalise the row, or list the state in `terminal` if the episode ends there."
        )


def _empty_rows(matrix: sparse.csr_array, drop: np.ndarray) -> sparse.csr_array:
    """`matrix` without the entries of the rows in `drop` (bool, one a row)."""
    lengths = np.diff(matrix.indptr)
    if not lengths[drop].any():
        return matrix
    keep = ~np.repeat(drop, lengths)
    indptr = np.concatenate([[0], np.cumsum(np.where(drop, 0, lengths))])
    return sparse.csr_array(
        (matrix.data[keep], matrix.indices[keep], indptr.astype(matrix.indptr.dtype)),
        shape=matrix.shape,
    )


def _as_expected_reward(
    reward: Any, matrix: sparse.csr_array, ended: np.ndarray, n_actions: int
) -> np.ndarray:
    """Return (S, A) expected reward from any of the accepted shapes."""
    n_states = len(ended)
    on_transitions = False
    if sparse.issparse(reward):
        if reward.shape != matrix.shape:
            raise ShapeError(f"sparse reward has shape {reward.shape}; expected {matrix.shape}.")
        if not np.isfinite(reward.data).all():
            raise NotFiniteError("reward holds NaN or infinity.")
        expected = np.asarray((matrix * sparse.csr_array(reward)).sum(axis=1))
        expected = expected.reshape(n_states, n_actions)
        on_transitions = True
    else:
        given = np.asarray(reward, dtype=np.float64)
        if not np.isfinite(given).all():
            raise NotFiniteError(
                "reward holds NaN or infinity. To forbid an action give it weight 0 in `reference`."
            )
        if given.shape == (n_states,):
            expected = np.repeat(given[:, None], n_actions, axis=1)
        elif given.shape == (n_states, n_actions):
            expected = given.copy()
        elif given.shape == (n_states, n_actions, n_states):
            rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
            on_entries = given.reshape(-1, n_states)[rows, matrix.indices]
            expected = np.bincount(
                rows, weights=matrix.data * on_entries, minlength=matrix.shape[0]
            ).reshape(n_states, n_actions)
            on_transitions = True
        else:
            raise ShapeError(
                f"reward has shape {given.shape}; expected (S,), (S, A) or (S, A, S) with "
                f"S={n_states}, A={n_actions}."
            )
    if not on_transitions and np.any(expected[ended]):
        state = int(np.flatnonzero(np.any(expected != 0, axis=1) & ended)[0])
        raise TerminalRewardError(
            f"state {state} is terminal and has a reward, which is never collected. Put it on the "
            "transitions into that state (shape (S, A, S)), or let the state absorb without being "
            "terminal."
        )
    return np.ascontiguousarray(expected)


def _as_start(start: Any, ended: np.ndarray, n_states: int) -> np.ndarray:
    """Return (S,) start distribution."""
    if start is None:
        if ended.all():
            raise InvalidMDPError("every state is terminal; nothing can happen in this MDP.")
        return (~ended).astype(float) / (~ended).sum()
    if np.ndim(start) == 0:
        if not 0 <= int(start) < n_states:
            raise InvalidMDPError(f"start state {start} is outside 0..{n_states - 1}.")
        return np.eye(1, n_states, int(start))[0]
    first = np.array(start, dtype=np.float64)
    if first.shape != (n_states,):
        raise ShapeError(f"start has shape {first.shape}; expected ({n_states},).")
    if not np.isfinite(first).all():
        raise NotFiniteError("start holds NaN or infinity.")
    if (first < 0).any() or abs(first.sum() - 1.0) > ROW_SUM_TOLERANCE:
        raise NotStochasticError(f"start must be a distribution; it sums to {first.sum():.6g}.")
    return first


def check_policy(mdp: TabularMDP, policy: Any) -> np.ndarray:
    """Return `policy` as float (S, A) or (T, S, A) after checking that every row is a distribution.

    Raises:
        InvalidPolicyError: wrong shape, a negative entry, or a row that does not sum to 1.
    """
    pi = np.asarray(policy, dtype=np.float64)
    if pi.shape[-2:] != (mdp.n_states, mdp.n_actions) or pi.ndim not in (2, 3):
        raise InvalidPolicyError(
            f"policy has shape {pi.shape}; expected (S, A) = {(mdp.n_states, mdp.n_actions)}, "
            "or (T, S, A) for one that changes with time."
        )
    if not (pi >= 0).all() or not (np.abs(pi.sum(axis=-1) - 1.0) <= 1e-6).all():
        raise InvalidPolicyError(
            "each row of a policy must be non-negative and sum to 1. "
            "From logits use exp(logits - logsumexp(logits))."
        )
    return pi


@dataclass(frozen=True)
class Trajectories:
    """N trajectories of any length, stored end to end.

    Trajectory i takes ``lengths[i]`` actions and visits ``lengths[i] + 1`` states; the last state
    is where it ended, and no action was taken there.

    Attributes:
        states: (sum(lengths) + N,) int.
        actions: (sum(lengths),) int.
        lengths: (N,) int.
    """

    states: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray

    @classmethod
    def from_list(cls, pairs: Sequence[tuple[Any, Any]]) -> Trajectories:
        """Build from ``[(states, actions), ...]``, each with one state more than actions.

        Raises:
            InvalidTrajectoryError: no trajectory, or one with a wrong number of states.
        """
        if not len(pairs):
            raise InvalidTrajectoryError("no trajectories were given.")
        for i, (states, actions) in enumerate(pairs):
            if len(actions) == 0:
                raise InvalidTrajectoryError(f"trajectory {i} is empty: it takes no action.")
            if len(states) != len(actions) + 1:
                raise InvalidTrajectoryError(
                    f"trajectory {i} has {len(states)} states and {len(actions)} actions; there "
                    "must be one state more: the one in which it ended."
                )
        return cls(
            np.concatenate([np.asarray(states, dtype=int) for states, _ in pairs]),
            np.concatenate([np.asarray(actions, dtype=int) for _, actions in pairs]),
            np.array([len(actions) for _, actions in pairs]),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        ends = np.cumsum(self.lengths)
        for i, (end, length) in enumerate(zip(ends, self.lengths, strict=True)):
            yield self.states[end - length + i : end + i + 1], self.actions[end - length : end]

    @cached_property
    def steps(self) -> np.ndarray:
        """(sum(lengths),) time t of every action within its trajectory."""
        begins = np.cumsum(self.lengths) - self.lengths
        return np.arange(len(self.actions)) - np.repeat(begins, self.lengths)

    @cached_property
    def acting_states(self) -> np.ndarray:
        """(sum(lengths),) the state in which every action was taken."""
        keep = np.ones(len(self.states), dtype=bool)
        keep[np.cumsum(self.lengths + 1) - 1] = False
        return self.states[keep]

    def counts(self, n_states: int, n_actions: int, discount: float = 1.0) -> np.ndarray:
        """(S, A) mean discounted visits a trajectory: the empirical occupancy measure.

        Raises:
            InvalidTrajectoryError: a state or an action outside the given numbers.
        """
        self._check_numbers(n_states, n_actions)
        flat = np.bincount(
            self.acting_states * n_actions + self.actions,
            weights=discount**self.steps,
            minlength=n_states * n_actions,
        )
        return flat.reshape(n_states, n_actions) / len(self)

    def feature_expectations(
        self, features: Any, n_actions: int, discount: float = 1.0
    ) -> np.ndarray:
        """(K,) empirical feature expectations. `features` is (S, K) or (S, A, K)."""
        from irlbook.planning import feature_expectations

        n_states = features.shape[0]
        return feature_expectations(self.counts(n_states, n_actions, discount), features)

    def validate(self, mdp: TabularMDP) -> Trajectories:
        """Return self after checking every state, action and move against `mdp`.

        Raises:
            InvalidTrajectoryError: names the trajectory, the step and the impossible move; or the
                trajectory that takes no action.
        """
        empty = np.flatnonzero(self.lengths < 1)
        if empty.size:
            raise InvalidTrajectoryError(f"trajectory {empty[0]} is empty: it takes no action.")
        self._check_numbers(mdp.n_states, mdp.n_actions)
        for i, (states, actions) in enumerate(self):
            rows = states[:-1] * mdp.n_actions + actions
            likely = np.asarray(mdp.transitions[rows, states[1:]]).reshape(-1)
            if not (likely > 0).all():
                t = int(np.flatnonzero(likely <= 0)[0])
                raise InvalidTrajectoryError(
                    f"trajectory {i}, step {t}: state {states[t]}, action {actions[t]} cannot lead "
                    f"to state {states[t + 1]} in this MDP."
                )
        return self

    def _check_numbers(self, n_states: int, n_actions: int) -> None:
        """Every state and action number must lie inside the world."""
        for name, numbers, size in (
            ("state", self.states, n_states),
            ("action", self.actions, n_actions),
        ):
            wrong = np.flatnonzero((numbers < 0) | (numbers >= size))
            if wrong.size:
                length = self.lengths + (name == "state")
                ends = np.cumsum(length)
                i = int(np.searchsorted(ends, wrong[0], side="right"))
                raise InvalidTrajectoryError(
                    f"trajectory {i}, step {wrong[0] - ends[i] + length[i]}: {name} "
                    f"{numbers[wrong[0]]} is outside 0..{size - 1}."
                )


def sample_trajectories(
    mdp: TabularMDP,
    policy: Any,
    n: int,
    horizon: int,
    rng: np.random.Generator,
) -> Trajectories:
    """Run `policy` n times for at most `horizon` steps; a run stops in a terminal state.

    Args:
        policy: (S, A), or (T, S, A) with T >= horizon for one that changes with time.

    Returns:
        N trajectories, none of them empty.

    Raises:
        InvalidTrajectoryError: the start distribution puts weight on a terminal state.
        InvalidHyperparameterError: n or horizon below 1.
    """
    if n < 1 or horizon < 1:
        raise InvalidHyperparameterError(f"n and horizon must be 1 or more; got {n}, {horizon}.")
    pi = check_policy(mdp, policy)
    if np.any(mdp.start[mdp.terminal] > 0):
        raise InvalidTrajectoryError("the start distribution puts weight on a terminal state.")
    if pi.ndim == 3 and len(pi) < horizon:
        raise InvalidPolicyError(f"policy has {len(pi)} time steps; horizon {horizon} needs more.")
    cumulative = np.cumsum(pi, axis=-1)
    states = np.full((n, horizon + 1), -1)
    actions = np.full((n, horizon), -1)
    states[:, 0] = rng.choice(mdp.n_states, size=n, p=mdp.start)
    running = np.arange(n)
    for t in range(horizon):
        here = states[running, t]
        table = cumulative[t] if pi.ndim == 3 else cumulative
        draw = rng.random(len(running))[:, None] * table[here, -1:]
        chosen = (table[here] <= draw).sum(axis=1)
        actions[running, t] = chosen
        states[running, t + 1] = mdp.sample_next(here, chosen, rng)
        running = running[~mdp.terminal[states[running, t + 1]]]
        if not running.size:
            break
    return Trajectories(states[states >= 0], actions[actions >= 0], (actions >= 0).sum(axis=1))
