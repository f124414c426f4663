"""Bit-flip: a reward so sparse that chance never finds it (Andrychowicz et al., 2017)."""

import numpy as np
from scipy import sparse

from irlbook.envs.base import BLUE, WHITE, CellsEnv, World, checked_int, uniform_start
from irlbook.errors import InvalidEnvironmentError
from irlbook.mdp import TabularMDP

__all__ = ["BitFlipEnv", "bit_flip", "bits"]

MAX_BITS, MAX_BITS_MULTI_GOAL = 16, 8  # a million transitions; half a million


def bit_flip(
    n_bits: int, *, goal: int = 0, multi_goal: bool = False, discount: float = 0.99
) -> TabularMDP:
    """n bits; action i flips bit i; each step pays -1 until the bits equal the goal, which ends it.

    A transition pays -[s' != goal], so the step that reaches the goal pays 0. The start is uniform
    over all that is not yet solved. Source: Andrychowicz et al. (2017), "Hindsight experience
    replay", section 3.1.

    Args:
        n_bits: n, at most 16 (8 with `multi_goal`).
        goal: the bits wanted, as a number whose i-th binary digit is bit i; unused if multi_goal.
        multi_goal: True: the goal is part of the state, `state = goal * 2**n + bits`, and is drawn
            with the start. False: 2^n states, one fixed goal, `state = bits`.

    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    return _bit_flip(n_bits, goal, multi_goal).mdp(discount)


def bits(value: int | np.ndarray, n_bits: int) -> np.ndarray:
    """(..., n_bits) the binary digits of a number, lowest first: action i flips [..., i]."""
    return np.asarray(value)[..., None] >> np.arange(n_bits) & 1


def _bit_flip(n_bits: int, goal: int, multi_goal: bool) -> World:
    limit = MAX_BITS_MULTI_GOAL if multi_goal else MAX_BITS
    n_bits = checked_int("n_bits", n_bits, 1)
    if n_bits > limit:
        raise InvalidEnvironmentError(
            f"{n_bits} bits are too many for a table. Give at most {limit}"
            + (f" with multi_goal, or up to {MAX_BITS} without." if multi_goal else ".")
        )
    size = 1 << n_bits
    goal = checked_int("goal", goal, 0, size - 1)
    states = np.arange(size * size if multi_goal else size)
    solved = states // size == states % size if multi_goal else states == goal
    alive = np.flatnonzero(~solved)
    successors = alive[:, None] ^ (1 << np.arange(n_bits))  # the goal's digits are never touched
    indptr = np.concatenate([[0], np.cumsum(np.repeat(~solved, n_bits))])
    transitions = sparse.csr_array(
        (np.ones(successors.size), successors.ravel(), indptr),
        shape=(len(states) * n_bits, len(states)),
    )
    return World(
        transitions=transitions,
        step_reward=np.repeat(np.where(solved, 0.0, -1.0)[:, None], n_bits, axis=1),
        arrival_reward=np.where(solved, 1.0, 0.0),
        start=uniform_start(~solved),
        terminal=solved,
    )


class BitFlipEnv(CellsEnv):
    """`bit_flip` as a Gymnasium environment, id `irlbook/BitFlip-v0`.

    Args: those of `bit_flip` but `discount`; and render_mode.
    """

    def __init__(
        self,
        n_bits: int = 6,
        *,
        goal: int = 0,
        multi_goal: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(_bit_flip(n_bits, goal, multi_goal), render_mode)
        self.n_bits, self.fixed_goal, self.multi_goal = int(n_bits), int(goal), multi_goal

    def goal_and_bits(self, state: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The goal and the bits of a state, each (..., n_bits) of 0 and 1."""
        present = np.asarray(state) % (1 << self.n_bits)
        goal = np.asarray(state) >> self.n_bits if self.multi_goal else self.fixed_goal
        return bits(np.broadcast_to(goal, present.shape), self.n_bits), bits(present, self.n_bits)

    def _rows(self) -> np.ndarray:
        """(2, n_bits): the bits above, the goal below; before the first reset, those of state 0."""
        goal, present = self.goal_and_bits(self.state or 0)
        return np.stack([present, goal])

    def _text(self) -> str:
        present, goal = ("".join(map(str, row)) for row in self._rows())
        return f"bits {present}\ngoal {goal}\n"

    def _cells(self) -> np.ndarray:
        return np.where(self._rows()[..., None] == 1, BLUE, WHITE)

    def _agent_cell(self) -> None:
        return None
