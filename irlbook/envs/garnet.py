"""Garnets: random MDPs without geometry (Archibald, McKinnon and Thomas, 1995)."""

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from irlbook.envs.base import (
    BLACK,
    GREY,
    SKY,
    VERMILION,
    TabularEnv,
    World,
    checked_int,
    uniform_start,
)
from irlbook.errors import InvalidEnvironmentError
from irlbook.mdp import TabularMDP

__all__ = ["GarnetEnv", "garnet"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def garnet(
    n_states: int,
    n_actions: int,
    branching: int,
    rng: np.random.Generator,
    *,
    discount: float = 0.99,
) -> TabularMDP:
    """A random MDP: "generic average reward non-stationary environment testbench".

    From each state, each action leads to `branching` distinct states, every such set equally
    likely. Their probabilities are the gaps between branching - 1 uniform cuts of [0, 1] (that
    is, uniform on the simplex). Rewards r(s, a) are standard normal; the start is uniform; no
    state is terminal. Source: Archibald et al. (1995); notation of Bhatnagar et al. (2009).

    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    return _garnet(n_states, n_actions, branching, rng).mdp(discount)


def _garnet(n_states: int, n_actions: int, branching: int, rng: np.random.Generator) -> World:
    n_states = checked_int("n_states", n_states, 1)
    n_actions = checked_int("n_actions", n_actions, 1)
    branching = checked_int("branching", branching, 1)
    if branching > n_states:
        raise InvalidEnvironmentError(
            f"branching is {branching}, but there are only {n_states} states to go to. "
            "Give a branching of at most n_states."
        )
    n_rows = n_states * n_actions
    successors = np.sort(_subsets(n_rows, n_states, branching, rng), axis=1)
    gaps = rng.standard_exponential((n_rows, branching))  # normalised: uniform on the simplex
    probabilities = gaps / gaps.sum(axis=1, keepdims=True)
    indptr = np.arange(n_rows + 1) * branching
    transitions = sparse.csr_array(
        (probabilities.ravel(), successors.ravel(), indptr), shape=(n_rows, n_states)
    )
    return World(
        transitions=transitions,
        step_reward=rng.standard_normal((n_states, n_actions)),
        arrival_reward=np.zeros(n_states),
        start=uniform_start(np.ones(n_states, dtype=bool)),
        terminal=np.zeros(n_states, dtype=bool),
    )


def _subsets(n: int, population: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """(n, size): n independent uniform subsets of range(population), by Floyd's algorithm.

    It draws one member at a time: a number up to j, or j itself where that number is taken.
    """
    chosen = np.empty((n, size), dtype=np.int64)
    for k, j in enumerate(range(population - size, population)):
        candidate = rng.integers(j + 1, size=n)
        taken = (chosen[:, :k] == candidate[:, None]).any(axis=1)
        chosen[:, k] = np.where(taken, j, candidate)
    return chosen


class GarnetEnv(TabularEnv):
    """`garnet` as a Gymnasium environment, id `irlbook/Garnet-v0`.

    Args: those of `garnet` but `discount`, with `world_seed`, which draws the world, in place of
    `rng`; and render_mode.
    """

    def __init__(
        self,
        n_states: int = 10,
        n_actions: int = 3,
        branching: int = 2,
        *,
        world_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        world = _garnet(n_states, n_actions, branching, np.random.default_rng(world_seed))
        super().__init__(world, render_mode)

    def _draw(self, ax: "Axes") -> None:
        """States on a circle, the agent's in red; lines to where it can go, thicker if likelier."""
        n_states, n_actions = self.world.step_reward.shape
        angle = 2 * np.pi * np.arange(n_states) / n_states
        x, y = np.sin(angle), np.cos(angle)
        ax.set_aspect("equal")
        ax.axis("off")
        if self.state is not None:
            rows = slice(self.state * n_actions, (self.state + 1) * n_actions)
            chances = self.world.transitions[rows].sum(axis=0) / n_actions  # (S,)
            for s in np.flatnonzero(chances).tolist():
                ax.plot(
                    [x[self.state], x[s]], [y[self.state], y[s]], color=GREY, lw=1 + 6 * chances[s]
                )
        paint = [VERMILION if s == self.state else SKY for s in range(n_states)]
        ax.scatter(x, y, s=300 if n_states <= 24 else 20, c=paint, zorder=2)
        if n_states <= 24:
            for s in range(n_states):
                ax.text(x[s], y[s], str(s), ha="center", va="center", color=BLACK, zorder=3)
        ax.margins(0.12)
