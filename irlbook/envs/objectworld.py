"""Objectworld: a reward that is *not* linear in its features (Levine, Popović and Koltun, 2011)."""

from typing import NamedTuple

import numpy as np

from irlbook.envs.base import (
    PALETTE,
    WHITE,
    CellsEnv,
    World,
    checked_int,
    checked_probability,
    uniform_start,
)
from irlbook.envs.gridworld import ACTIONS, coordinates, grid_transitions
from irlbook.errors import InvalidEnvironmentError
from irlbook.mdp import TabularMDP

__all__ = ["ObjectWorld", "ObjectWorldEnv", "nearest_distance", "objectworld", "objectworld_reward"]


class ObjectWorld(NamedTuple):
    """An objectworld: its MDP, its features, and where its objects lie."""

    mdp: TabularMDP
    features: np.ndarray  # (S, K)
    positions: np.ndarray  # (n_objects,) states
    outer: np.ndarray  # (n_objects,) outer colours, 0 .. n_colours - 1
    inner: np.ndarray  # (n_objects,) inner colours


def objectworld(
    size: int,
    n_objects: int,
    n_colours: int = 2,
    *,
    rng: np.random.Generator,
    slip: float = 0.3,
    continuous: bool = False,
    discount: float = 0.99,
) -> ObjectWorld:
    """A size by size grid with objects strewn at random; five actions, as in `gridworld`.

    Each object has an outer and an inner colour. The reward of a cell is
        +1  if outer colour 0 is nearer than 3 cells and outer colour 1 nearer than 2,
        -1  if outer colour 0 is nearer than 3 cells and outer colour 1 is not nearer than 2,
         0  otherwise.
    Inner colours and further outer colours only distract. Distances are Euclidean. The paper
    (Levine et al., 2011) says "within 3 cells" and "within 2"; like the authors' own
    code this reads it as strictly less, so that the reward is a function of the features. Their
    code also scales the reward by 5; here it is not scaled.

    Args:
        size: N.
        n_objects: at most N * N, on distinct cells.
        n_colours: C, at least 2.
        rng: places and colours the objects.
        slip: chance that another action is carried out; 0.3 in the paper.
        continuous: see Returns.

    Returns: ObjectWorld. Its features are, in the order outer colours then inner colours,
        discrete: (S, 2CN), "the nearest object of this colour is nearer than d" for d = 1 .. N
            (all colours for d = 1 first), as 0 and 1;
        continuous: (S, 2C), the distance to the nearest object of each colour, or N times the
            root of 2 where there is none.
    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    world, features, *objects = _objectworld(size, n_objects, n_colours, rng, slip, continuous)
    return ObjectWorld(world.mdp(discount), features, *objects)


def _objectworld(
    size: int,
    n_objects: int,
    n_colours: int,
    rng: np.random.Generator,
    slip: float,
    continuous: bool,
) -> tuple[World, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    size = checked_int("size", size, 1)
    slip = checked_probability("slip", slip)
    n_objects = checked_int("n_objects", n_objects, 1)
    if n_objects > size * size:
        raise InvalidEnvironmentError(
            f"{n_objects} objects do not fit on {size * size} cells, one on each. "
            "Take fewer objects or a larger size."
        )
    n_colours = checked_int("n_colours (the reward needs outer colours 0 and 1)", n_colours, 2)
    positions = rng.choice(size * size, size=n_objects, replace=False)
    outer = rng.integers(n_colours, size=n_objects)
    inner = rng.integers(n_colours, size=n_objects)
    nearest = np.column_stack(
        [
            nearest_distance(size, positions[colours == c])
            for colours in (outer, inner)
            for c in range(n_colours)
        ]
    )  # (S, 2C)
    if continuous:
        features = nearest
    else:
        thresholds = np.arange(1, size + 1)
        features = (nearest[:, None, :] < thresholds[:, None]).reshape(size * size, -1) * 1.0
    reward = objectworld_reward(nearest[:, 0], nearest[:, 1])
    return _state_reward_world(size, slip, reward), features, positions, outer, inner


def nearest_distance(size: int, positions: np.ndarray) -> np.ndarray:
    """(S,) Euclidean distance of each cell from the nearest of `positions` (states).

    Where there are none: size times the root of 2, more than any distance on the grid.
    """
    states = np.arange(size * size)
    row, column = coordinates(states, size)
    distance = np.full(size * size, np.sqrt(2.0) * size)
    for i, j in zip(*coordinates(positions, size), strict=True):
        np.minimum(distance, np.hypot(row - i, column - j), out=distance)
    return distance


def objectworld_reward(to_outer_0: np.ndarray, to_outer_1: np.ndarray) -> np.ndarray:
    """(S,) the reward rule, from the distances to the nearest outer colours 0 and 1."""
    near = to_outer_0 < 3.0
    return np.where(near & (to_outer_1 < 2.0), 1.0, np.where(near, -1.0, 0.0))


def _state_reward_world(size: int, slip: float, reward: np.ndarray) -> World:
    """A size by size grid, five actions, that never ends and pays r(s)."""
    n_states = size * size
    return World(
        transitions=grid_transitions(size, size, slip=slip),
        step_reward=np.repeat(reward[:, None], len(ACTIONS), axis=1),
        arrival_reward=np.zeros(n_states),
        start=uniform_start(np.ones(n_states, dtype=bool)),
        terminal=np.zeros(n_states, dtype=bool),
    )


class ObjectWorldEnv(CellsEnv):
    """`objectworld` as a Gymnasium environment, id `irlbook/ObjectWorld-v0`.

    Args: those of `objectworld` but `discount`, with `world_seed`, which lays out the world, in
    place of `rng`; and render_mode. The features are in `env.unwrapped.features`.
    """

    action_names = ACTIONS

    def __init__(
        self,
        size: int = 16,
        n_objects: int = 12,
        n_colours: int = 2,
        *,
        world_seed: int = 0,
        slip: float = 0.3,
        continuous: bool = False,
        render_mode: str | None = None,
    ) -> None:
        rng = np.random.default_rng(world_seed)
        world, self.features, self.positions, self.outer, self.inner = _objectworld(
            size, n_objects, n_colours, rng, slip, continuous
        )
        super().__init__(world, render_mode)
        self.size = int(size)

    def coordinates(self, state: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) of a state, or of an array of states."""
        return coordinates(state, self.size)

    def _text(self) -> str:
        board = np.full(self.size * self.size, ".", dtype="<U1")
        board[self.positions] = [chr(ord("0") + c % 10) for c in self.outer]
        if self.state is not None:
            board[self.state] = "@"
        return "".join("".join(row) + "\n" for row in board.reshape(self.size, self.size))

    def _cells(self) -> np.ndarray:
        """Faint green where the reward is +1, faint red where it is -1."""
        reward = self.world.step_reward[:, 0]
        image = np.full((self.size * self.size, 3), WHITE)
        image[reward > 0] = (0.80, 0.93, 0.88)
        image[reward < 0] = (0.97, 0.86, 0.80)
        return image.reshape(self.size, self.size, 3)

    def _agent_cell(self) -> tuple[int, int] | None:
        if self.state is None:
            return None
        row, column = self.coordinates(self.state)
        return int(row), int(column)

    def _draw(self, ax) -> None:
        row, column = self.coordinates(self.positions)
        inch = self._figure_size()[0] / self.size
        for colours, scale in ((self.outer, 0.8), (self.inner, 0.4)):
            paint = [PALETTE[c % len(PALETTE)] for c in colours]
            ax.scatter(column, row, s=(scale * inch * 72) ** 2, c=paint, marker="s", zorder=2)
        super()._draw(ax)
