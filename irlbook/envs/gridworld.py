"""Gridworlds of any size: walls, slips, goals, rewards on cells.

State `row * width + column`; row 0 is at the top. Actions, in this order: stay, up, right, down,
left; without `stay` the last four. Whatever would leave the grid or enter a wall stays put.
"""

from collections.abc import Iterable, Mapping
from operator import index
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from irlbook.envs.base import (
    BLACK,
    GREEN,
    VERMILION,
    WHITE,
    CellsEnv,
    World,
    checked_int,
    checked_probability,
    checked_reward,
    uniform_start,
)
from irlbook.errors import InvalidEnvironmentError, shown
from irlbook.mdp import TabularMDP, as_floats

__all__ = [
    "ACTIONS",
    "Cell",
    "GridWorldEnv",
    "coordinates",
    "grid_transitions",
    "gridworld",
    "wall_mask",
]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cell = tuple[int, int]
ACTIONS = ("stay", "up", "right", "down", "left")
_MOVES = ((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))  # (rows, columns), in the order of ACTIONS
_SORTED = (1, 4, 0, 2, 3)  # up, left, stay, right, down: the order of their successors' numbers
_CHUNK = 1 << 15  # states written at a time: keeps the temporary arrays small


def coordinates(state: int | np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of a state, or of an array of states, on a grid `width` cells wide."""
    return np.divmod(state, width)


def gridworld(
    height: int,
    width: int,
    *,
    walls: Iterable[Cell] | np.ndarray = (),
    goals: Mapping[Cell, float] | None = None,
    slip: float = 0.0,
    stay: bool = True,
    step_reward: float = 0.0,
    state_reward: np.ndarray | None = None,
    terminal_goals: bool = True,
    start: Cell | None = None,
    discount: float = 0.99,
) -> TabularMDP:
    """A gridworld as a TabularMDP, written straight into sparse form: 10^6 cells take seconds.

    Slip: with probability `1 - slip` the chosen action is carried out, and with probability
    `slip` one of the *other* actions, each equally likely (staying is one of them when `stay`).
    This is the noise of Levine et al. (2011): slip 0.3 there.

    Args:
        height, width: cells down and across.
        walls: (row, column) cells, or a bool array (height, width). Nobody can be on a wall; its
            state exists, is marked terminal, and is never entered.
        goals: {(row, column): reward}. None: one goal of reward 1 at the bottom right, or no goal
            when a `state_reward` is given. {}: no goal.
        slip: chance in [0, 1] that another action is carried out.
        stay: whether "stay" is an action (5 actions) or not (4).
        step_reward: paid for every action, in every cell but an absorbing goal.
        state_reward: (height, width) or (height * width,): r(s), collected in s before moving.
            On walls it is ignored.
        terminal_goals: True: entering a goal pays its reward once and ends the episode.
            False: a goal is absorbing, and each step spent in it pays its reward.
        start: the cell to start from; None: any free cell that is no goal, equally likely.
        discount: in [0, 1].

    Returns: TabularMDP with height * width states.
    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    world = _gridworld(
        height, width, walls, goals, slip, stay, step_reward, state_reward, terminal_goals, start
    )
    return world.mdp(discount)


def _gridworld(
    height: int,
    width: int,
    walls: Iterable[Cell] | np.ndarray = (),
    goals: Mapping[Cell, float] | None = None,
    slip: float = 0.0,
    stay: bool = True,
    step_reward: float = 0.0,
    state_reward: np.ndarray | None = None,
    terminal_goals: bool = True,
    start: Cell | None = None,
) -> World:
    height, width = checked_int("height", height, 1), checked_int("width", width, 1)
    n_states = height * width
    n_actions = 5 if stay else 4
    wall = wall_mask(height, width, walls)
    goal_reward = _goal_rewards(
        height, width, _goals_or_corner(height, width, goals, state_reward), wall
    )
    is_goal = np.zeros(n_states, dtype=bool)
    is_goal[list(goal_reward)] = True
    terminal = wall | is_goal if terminal_goals else wall

    per_state = np.full(n_states, checked_reward("step_reward", step_reward))
    arrival = np.zeros(n_states)
    if not terminal_goals:
        per_state[is_goal] = 0.0
    if state_reward is not None:
        per_state += _state_reward(height, width, state_reward, terminal & ~wall) * ~wall
    for state, value in goal_reward.items():
        (arrival if terminal_goals else per_state)[state] += value
    per_state[terminal] = 0.0

    if start is None:
        begin = uniform_start(~(wall | is_goal))
    else:
        begin = np.zeros(n_states)
        cell = _cell_state(height, width, start, "start")
        if terminal[cell]:
            kind = "a wall" if wall[cell] else "a goal that ends the episode"
            raise InvalidEnvironmentError(f"start {start} is {kind}. Start from a free cell.")
        begin[cell] = 1.0
    transitions = grid_transitions(
        height,
        width,
        slip=slip,
        stay=stay,
        walls=wall,
        absorbing=None if terminal_goals else is_goal,
        terminal=terminal,
    )
    step = np.repeat(per_state[:, None], n_actions, axis=1)  # (S, A)
    return World(transitions, step, arrival, begin, terminal)


def grid_transitions(
    height: int,
    width: int,
    *,
    slip: float = 0.0,
    stay: bool = True,
    walls: np.ndarray | None = None,
    absorbing: np.ndarray | None = None,
    terminal: np.ndarray | None = None,
) -> sparse.csr_array:
    """The moves on a grid, (S*A, S) with row s*A + a: canonical CSR with 32-bit indices.

    A cell reaches at most itself and its four neighbours, and in the order up, left, stay, right,
    down their numbers rise. So each row is written once, sorted and free of duplicates: what is
    blocked is added to "stay". No coordinate list is ever built.

    Args:
        walls, absorbing, terminal: (S,) bool. Nobody enters a wall, nobody leaves an absorbing
            cell, and the rows of a terminal cell are empty.
    """
    slip = checked_probability("slip", slip)
    n_states = height * width
    none = np.zeros(n_states, dtype=bool)
    walls, absorbing, terminal = (
        none if mask is None else mask for mask in (walls, absorbing, terminal)
    )
    actions = range(5) if stay else range(1, 5)
    n_actions = len(actions)
    # chance[a, i]: action a is carried out as the i-th move of _SORTED
    chance = np.full((n_actions, 5), slip / (n_actions - 1))
    if not stay:
        chance[:, _SORTED.index(0)] = 0.0
    for a, action in enumerate(actions):
        chance[a, _SORTED.index(action)] = 1.0 - slip

    offset = np.array([_MOVES[m][0] * width + _MOVES[m][1] for m in _SORTED])
    is_open = _open_moves(height, width, walls)
    is_open[absorbing] = False
    moving = ~terminal

    def masses(states: slice) -> np.ndarray:
        open_here = is_open[states]  # (n, 5); the middle column, "stay", is False
        mass = chance * open_here[:, None, :]  # (n, A, 5)
        mass[:, :, 2] = ~open_here @ chance.T  # all that is blocked, and staying itself
        mass *= moving[states, None, None]
        return mass

    chunks = [slice(i, min(i + _CHUNK, n_states)) for i in range(0, n_states, _CHUNK)]
    indptr = np.zeros(n_states * n_actions + 1, dtype=np.int64)
    counts = indptr[1:].reshape(n_states, n_actions)
    for states in chunks:
        counts[states] = np.count_nonzero(masses(states), axis=2)
    np.cumsum(indptr, out=indptr)
    index_type = np.int32 if indptr[-1] < np.iinfo(np.int32).max else np.int64
    data = np.empty(indptr[-1])
    indices = np.empty(indptr[-1], dtype=index_type)
    for states in chunks:
        mass = masses(states)
        keep = mass > 0.0
        here = slice(indptr[states.start * n_actions], indptr[states.stop * n_actions])
        data[here] = mass[keep]
        successors = np.arange(states.start, states.stop)[:, None] + offset  # (n, 5)
        indices[here] = np.broadcast_to(successors[:, None, :], mass.shape)[keep]
    matrix = sparse.csr_array(
        (data, indices, indptr.astype(index_type)), shape=(n_states * n_actions, n_states)
    )
    matrix.has_canonical_format = True  # sorted, no duplicates: see above
    return matrix


def _open_moves(height: int, width: int, walls: np.ndarray) -> np.ndarray:
    """(S, 5) bool in the order of _SORTED: the move enters a free cell. "stay" counts as False."""
    free = ~walls.reshape(height, width)
    result = np.zeros((height, width, 5), dtype=bool)
    result[1:, :, 0] = free[:-1]  # up
    result[:, 1:, 1] = free[:, :-1]  # left
    result[:, :-1, 3] = free[:, 1:]  # right
    result[:-1, :, 4] = free[1:]  # down
    return result.reshape(-1, 5)


def wall_mask(height: int, width: int, walls: Iterable[Cell] | np.ndarray) -> np.ndarray:
    """(S,) bool from a list of cells or a bool array (height, width).

    Raises: InvalidEnvironmentError for a wrong shape or a cell outside the grid.
    """
    if isinstance(walls, np.ndarray) and walls.dtype == bool:
        if walls.shape != (height, width):
            raise InvalidEnvironmentError(
                f"walls has shape {walls.shape}, the grid has {(height, width)}. "
                "Give a bool array of the grid's shape, or a list of (row, column) cells."
            )
        return walls.ravel()
    if not isinstance(walls, Iterable):
        raise InvalidEnvironmentError(f"walls is {shown(walls)}. Give (row, column) cells.")
    mask = np.zeros(height * width, dtype=bool)
    for cell in walls:
        mask[_cell_state(height, width, cell, "wall")] = True
    return mask


def _cell_state(height: int, width: int, cell: Cell, name: str) -> int:
    try:
        row, column = (index(i) for i in cell)
    except (TypeError, ValueError):
        raise InvalidEnvironmentError(
            f"{name} {shown(cell)} is not a cell. Give (row, column)."
        ) from None
    if not (0 <= row < height and 0 <= column < width):
        raise InvalidEnvironmentError(
            f"{name} {(row, column)} lies outside the grid. "
            f"Rows go from 0 to {height - 1}, columns from 0 to {width - 1}."
        )
    return row * width + column


def _goals_or_corner(
    height: int, width: int, goals: Mapping[Cell, float] | None, state_reward: np.ndarray | None
) -> Mapping[Cell, float]:
    if goals is not None:
        return goals
    return {(height - 1, width - 1): 1.0} if state_reward is None else {}


def _goal_rewards(
    height: int, width: int, goals: Mapping[Cell, float], wall: np.ndarray
) -> dict[int, float]:
    if not isinstance(goals, Mapping):
        raise InvalidEnvironmentError(
            f"goals is {shown(goals)}. Give a dictionary {{(row, column): reward}}."
        )
    rewards = {}
    for cell, value in goals.items():
        state = _cell_state(height, width, cell, "goal")
        if wall[state]:
            raise InvalidEnvironmentError(
                f"goal {cell} is on a wall, where nobody can go. Move the goal or the wall."
            )
        rewards[state] = checked_reward(f"the reward of goal {cell}", value)
    return rewards


def _state_reward(
    height: int, width: int, state_reward: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    values = as_floats(state_reward, "state_reward", InvalidEnvironmentError)
    if values.shape not in ((height, width), (height * width,)):
        raise InvalidEnvironmentError(
            f"state_reward has shape {values.shape}. "
            f"Give {(height, width)} or {(height * width,)}: one number for each cell."
        )
    values = values.ravel()
    if not np.isfinite(values).all():
        raise InvalidEnvironmentError(
            "state_reward holds NaN or an infinite value. Give finite numbers."
        )
    if values[ends].any():
        raise InvalidEnvironmentError(
            "state_reward is not 0 on a goal that ends the episode, where it is never collected. "
            "Set it to 0 there and give the reward in goals, or pass terminal_goals=False."
        )
    return values


class GridWorldEnv(CellsEnv):
    """`gridworld` as a Gymnasium environment, id `irlbook/GridWorld-v0`.

    Args: those of `gridworld` but `discount`; and render_mode.
    """

    def __init__(
        self,
        height: int = 5,
        width: int = 5,
        *,
        walls: Iterable[Cell] | np.ndarray = (),
        goals: Mapping[Cell, float] | None = None,
        slip: float = 0.0,
        stay: bool = True,
        step_reward: float = 0.0,
        state_reward: np.ndarray | None = None,
        terminal_goals: bool = True,
        start: Cell | None = None,
        render_mode: str | None = None,
    ) -> None:
        walls = walls if isinstance(walls, np.ndarray) else list(walls)
        world = _gridworld(
            height,
            width,
            walls,
            goals,
            slip,
            stay,
            step_reward,
            state_reward,
            terminal_goals,
            start,
        )
        super().__init__(world, render_mode)
        self.height, self.width = int(height), int(width)
        self.action_names = ACTIONS if stay else ACTIONS[1:]
        self.walls = wall_mask(self.height, self.width, walls)
        goals = _goals_or_corner(self.height, self.width, goals, state_reward)
        self.goals = {(int(row), int(column)): float(r) for (row, column), r in goals.items()}

    def coordinates(self, state: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) of a state, or of an array of states."""
        return coordinates(state, self.width)

    def _text(self) -> str:
        board = np.where(self.walls.reshape(self.height, self.width), "#", ".")
        for cell in self.goals:
            board[cell] = "G"
        if self.state is not None:
            board[self.coordinates(self.state)] = "@"
        return "".join("".join(row) + "\n" for row in board)

    def _cells(self) -> np.ndarray:
        image = np.empty((self.height, self.width, 3))
        image[:] = WHITE
        image[self.walls.reshape(self.height, self.width)] = BLACK
        for cell, reward in self.goals.items():
            image[cell] = GREEN if reward >= 0 else VERMILION
        return image

    def _agent_cell(self) -> Cell | None:
        if self.state is None:
            return None
        row, column = self.coordinates(self.state)
        return int(row), int(column)

    def _draw(self, ax: "Axes") -> None:
        super()._draw(ax)
        if max(self.height, self.width) <= 16:
            for (row, column), reward in self.goals.items():
                ax.text(
                    column, row, f"{reward:g}", ha="center", va="center", color=WHITE, fontsize=10
                )
