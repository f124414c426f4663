"""Chains: the smallest worlds with a far reward, and with errors that compound."""

import numpy as np
from scipy import sparse

from irlbook.envs.base import (
    GREEN,
    SKY,
    WHITE,
    CellsEnv,
    World,
    checked_int,
    checked_probability,
    checked_reward,
)
from irlbook.mdp import TabularMDP

__all__ = ["ACTIONS", "ChainEnv", "chain", "cloning_chain", "combination_lock", "noisy_chain"]

ACTIONS = ("left", "right")


def chain(
    n_states: int,
    slip: float = 0.0,
    *,
    reward: float = 1.0,
    terminal: bool = True,
    discount: float = 0.99,
) -> TabularMDP:
    """States 0 .. n-1 in a row; start at 0; the only reward is at the right end.

    Actions: 0 left, 1 right; with probability `slip` the other one is carried out. Left of state
    0 is state 0. A policy that picks actions at random needs about n^2 steps to see the reward.

    Args:
        n_states: n, at least 2.
        slip: in [0, 1].
        reward: of the right end.
        terminal: True: entering the right end pays the reward and ends the episode. False: the
            right end pays it for every step taken there, and moving right stays there.

    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    return _chain(n_states, slip, reward, terminal).mdp(discount)


def _chain(n_states: int, slip: float, reward: float, terminal: bool) -> World:
    n_states = checked_int("n_states", n_states, 2)
    slip = checked_probability("slip", slip)
    reward = checked_reward("reward", reward)
    ends = np.zeros(n_states, dtype=bool)
    ends[-1] = terminal
    states = np.arange(n_states)
    left, right = np.maximum(states - 1, 0), np.minimum(states + 1, n_states - 1)
    step, arrival = np.zeros((n_states, 2)), np.zeros(n_states)
    if terminal:
        arrival[-1] = reward
    else:
        step[-1] = reward
    return World(
        transitions=_two_outcomes(left, right, slip, ends),
        step_reward=step,
        arrival_reward=arrival,
        start=np.eye(1, n_states, 0)[0],
        terminal=ends,
    )


def _two_outcomes(
    left: np.ndarray, right: np.ndarray, slip: float, ends: np.ndarray
) -> sparse.csr_array:
    """(2S, S): action 0 leads to `left` (S,), action 1 to `right`, swapped with chance `slip`."""
    n_states = len(ends)
    alive = np.flatnonzero(~ends)
    rows = np.concatenate([2 * alive, 2 * alive, 2 * alive + 1, 2 * alive + 1])
    columns = np.concatenate([left[alive], right[alive]] * 2)
    chances = np.repeat([1 - slip, slip, slip, 1 - slip], len(alive))
    matrix = sparse.coo_array((chances, (rows, columns)), shape=(2 * n_states, n_states)).tocsr()
    matrix.eliminate_zeros()
    return matrix


def cloning_chain(recovery: bool = False, *, discount: float = 1.0) -> TabularMDP:
    """The world in which a cloned policy's errors compound (after Ross and Bagnell, 2010).

    State 0 is on the road, state 1 off it; start on the road. Action 0 follows the road and
    action 1 leaves it. Each step that ends off the road costs 1. Without `recovery` state 1
    absorbs. With it, action 1 in state 1 leads back: an expert asked there would show it, but
    demonstrations that never leave the road cannot.

    A policy that errs with probability e on the road and never recovers pays in T steps
        T - (1 - e) (1 - (1 - e)^T) / e,
    which is about e T^2 / 2 while e T is small; one that also recovers pays about e T.
    """
    on, off = 0, 1
    dense = np.zeros((2, 2, 2))
    dense[on, 0, on] = dense[on, 1, off] = dense[off, 0, off] = 1.0
    dense[off, 1, on if recovery else off] = 1.0
    reward = -dense[:, :, off]
    return TabularMDP.create(dense, reward, start=on, discount=discount)


def combination_lock(n_steps: int, n_actions: int = 2, *, discount: float = 0.99) -> TabularMDP:
    """A lock that opens after `n_steps` right keys in a row; any wrong key begins again.

    States 0 .. n; state s is "s right keys so far", n is terminal. In state s the right key is
    action s mod n_actions, which leads to s + 1; every other one leads to 0. Opening pays 1. A
    policy that picks keys at random needs, with A keys,

        A (A^n - 1) / (A - 1)   steps on average,

    exponential in n: the far reward of a problem in which every step must be right.

    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    n_steps = checked_int("n_steps", n_steps, 1)
    n_actions = checked_int("n_actions", n_actions, 2)
    dense = np.zeros((n_steps + 1, n_actions, n_steps + 1))
    dense[:, :, 0] = 1.0
    states = np.arange(n_steps)
    dense[states, states % n_actions] = np.eye(n_steps + 1)[states + 1]
    reward = np.zeros((n_steps + 1, n_actions))
    reward[n_steps - 1, (n_steps - 1) % n_actions] = 1.0
    return TabularMDP.create(dense, reward, start=0, discount=discount, terminal=[n_steps])


def noisy_chain(n_states: int, screens: int, *, discount: float = 0.99) -> TabularMDP:
    """The chain with a television at its start that shows something else whenever one looks.

    States 0 .. n-1 are the chain of :func:`chain`; states n .. n+screens-1 are the screens.
    Actions: 0 left, 1 right, 2 watch. Watching, from state 0 or from a screen, leads to a screen
    drawn at random; elsewhere on the chain it does nothing. From a screen, left and right lead back
    to state 0. Entering the right end pays 1 and ends the episode; nothing else pays.

    Source of the idea: Burda et al. 2019 (1808.04355), the "noisy TV".

    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    n_states = checked_int("n_states", n_states, 2)
    screens = checked_int("screens", screens, 1)
    total = n_states + screens
    dense = np.zeros((total, 3, total))
    row = np.arange(n_states)
    dense[row, 0, np.maximum(row - 1, 0)] = 1.0
    dense[row, 1, np.minimum(row + 1, n_states - 1)] = 1.0
    dense[row, 2, row] = 1.0
    dense[n_states:, :2, 0] = 1.0
    dense[n_states:, 2, n_states:] = 1.0 / screens
    dense[0, 2] = dense[n_states, 2]
    reward = np.zeros((total, 3))
    reward[n_states - 2, 1] = 1.0
    return TabularMDP.create(dense, reward, start=0, discount=discount, terminal=[n_states - 1])


class ChainEnv(CellsEnv):
    """`chain` as a Gymnasium environment, id `irlbook/Chain-v0`.

    Args: those of `chain` but `discount`; and render_mode.
    """

    action_names = ACTIONS

    def __init__(
        self,
        n_states: int = 10,
        slip: float = 0.0,
        *,
        reward: float = 1.0,
        terminal: bool = True,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(_chain(n_states, slip, reward, terminal), render_mode)

    def _text(self) -> str:
        row = ["."] * (len(self.world.start) - 1) + ["G"]
        if self.state is not None:
            row[self.state] = "@"
        return "".join(row) + "\n"

    def _cells(self) -> np.ndarray:
        cells = np.full((1, len(self.world.start), 3), WHITE)
        cells[0, 0], cells[0, -1] = SKY, GREEN
        return cells

    def _agent_cell(self) -> tuple[int, int] | None:
        return None if self.state is None else (0, self.state)
