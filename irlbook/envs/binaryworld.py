"""Binaryworld: a reward that depends on how the features combine (Wulfmeier et al., 2015)."""

from typing import NamedTuple

import numpy as np

from irlbook.envs.base import BLUE, VERMILION, CellsEnv, World, checked_int, checked_probability
from irlbook.envs.gridworld import ACTIONS, coordinates
from irlbook.envs.objectworld import _state_reward_world
from irlbook.mdp import TabularMDP

__all__ = [
    "BinaryWorld",
    "BinaryWorldEnv",
    "binaryworld",
    "binaryworld_reward",
    "neighbourhood_features",
]


class BinaryWorld(NamedTuple):
    """A binaryworld: its MDP, its features, and which cells are blue."""

    mdp: TabularMDP
    features: np.ndarray  # (S, 9)
    blue: np.ndarray  # (size, size) bool


def binaryworld(
    size: int,
    *,
    rng: np.random.Generator,
    blue_probability: float = 0.5,
    slip: float = 0.3,
    discount: float = 0.99,
) -> BinaryWorld:
    """A size by size grid of blue and red cells; five actions, as in `gridworld`.

    The features of a cell are the nine colours of the 3 by 3 square around it (1 is blue, 0 is
    red; the square read row by row; outside the grid counts as 0). Its reward is +1 if exactly
    four of the nine are blue, -1 if exactly five are, and 0 otherwise. Every weight vector treats
    the cells one by one, and the rule counts them, so no linear reward comes near.

    Source: Wulfmeier, Ondruska and Posner (2015), "Maximum entropy deep inverse reinforcement
    learning". The rule at the edge follows public code for it.

    Args:
        size: N; 32 in the paper.
        rng: colours the cells.
        blue_probability: of each cell by itself.
        slip: chance that another action is carried out.

    Returns: BinaryWorld.
    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    world, features, blue = _binaryworld(size, rng, blue_probability, slip)
    return BinaryWorld(world.mdp(discount), features, blue)


def _binaryworld(
    size: int, rng: np.random.Generator, blue_probability: float, slip: float
) -> tuple[World, np.ndarray, np.ndarray]:
    size = checked_int("size", size, 1)
    blue_probability = checked_probability("blue_probability", blue_probability)
    slip = checked_probability("slip", slip)
    blue = rng.random((size, size)) < blue_probability
    features = neighbourhood_features(blue)
    return _state_reward_world(size, slip, binaryworld_reward(features)), features, blue


def neighbourhood_features(blue: np.ndarray) -> np.ndarray:
    """(S, 9) the 3 by 3 square around each cell of `blue` (height, width), zero beyond the edge."""
    height, width = blue.shape
    padded = np.pad(blue, 1)
    shifted = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.stack(shifted, axis=-1).reshape(-1, 9).astype(float)


def binaryworld_reward(features: np.ndarray) -> np.ndarray:
    """(S,) the reward rule: +1 for four blue cells of nine, -1 for five, else 0."""
    count = features.sum(axis=1)
    return np.where(count == 4, 1.0, np.where(count == 5, -1.0, 0.0))


class BinaryWorldEnv(CellsEnv):
    """`binaryworld` as a Gymnasium environment, id `irlbook/BinaryWorld-v0`.

    Args: those of `binaryworld` but `discount`, with `world_seed`, which colours the world, in
    place of `rng`; and render_mode. The features are in `env.unwrapped.features`.
    """

    action_names = ACTIONS

    def __init__(
        self,
        size: int = 16,
        *,
        world_seed: int = 0,
        blue_probability: float = 0.5,
        slip: float = 0.3,
        render_mode: str | None = None,
    ) -> None:
        rng = np.random.default_rng(world_seed)
        world, self.features, self.blue = _binaryworld(size, rng, blue_probability, slip)
        super().__init__(world, render_mode)
        self.size = int(size)

    def coordinates(self, state: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) of a state, or of an array of states."""
        return coordinates(state, self.size)

    def _text(self) -> str:
        board = np.where(self.blue, "b", "r")
        if self.state is not None:
            board[self.coordinates(self.state)] = "@"
        return "".join("".join(row) + "\n" for row in board)

    def _cells(self) -> np.ndarray:
        return np.where(self.blue[..., None], BLUE, VERMILION)

    def _agent_cell(self) -> tuple[int, int] | None:
        if self.state is None:
            return None
        row, column = self.coordinates(self.state)
        return int(row), int(column)
