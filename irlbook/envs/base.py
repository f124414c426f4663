"""What the environments share: one description of a world, and one Gymnasium class that plays it.

A `World` is the single source of truth. `World.mdp` turns it into a `TabularMDP` for planning, and
`TabularEnv` samples from that same MDP, so what an agent meets and what a planner believes cannot
come apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import logger, spaces
from scipy import sparse

from irlbook.errors import EpisodeOverError, InvalidActionError, InvalidEnvironmentError, shown
from irlbook.mdp import TabularMDP

__all__ = [
    "CellsEnv",
    "PALETTE",
    "PURPLE",
    "TabularEnv",
    "World",
    "checked_int",
    "checked_probability",
    "checked_reward",
    "uniform_start",
]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by nearly every eye; RGB in [0, 1].
WHITE, GREY, BLACK = (1.0, 1.0, 1.0), (0.6, 0.6, 0.6), (0.2, 0.2, 0.2)
ORANGE, SKY, GREEN = (0.90, 0.62, 0.0), (0.34, 0.71, 0.91), (0.0, 0.62, 0.45)
YELLOW, BLUE, VERMILION = (0.94, 0.89, 0.26), (0.0, 0.45, 0.70), (0.84, 0.37, 0.0)
PURPLE = (0.80, 0.47, 0.65)
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, YELLOW, GREY)


def checked_int(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` as an int in [low, high].

    Raises: InvalidEnvironmentError otherwise.
    """
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise InvalidEnvironmentError(f"{name} is {shown(value)}. Give a whole number {bounds}.")
    return int(value)


def checked_probability(name: str, value: Any) -> float:
    """`value` as a float in [0, 1].

    Raises: InvalidEnvironmentError otherwise.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0.0 <= number <= 1.0:
        raise InvalidEnvironmentError(
            f"{name} is {shown(value)}, which is not a probability. Give a number from 0 to 1."
        )
    return number


def checked_reward(name: str, value: Any) -> float:
    """`value` as a finite float.

    Raises: InvalidEnvironmentError otherwise.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise InvalidEnvironmentError(f"{name} is {shown(value)}. Give a finite number.")
    return number


@dataclass(frozen=True)
class World:
    """A finite world: how it moves, what it pays, where it starts, where it ends.

    A step from s by a to s' pays `step_reward[s, a] + arrival_reward[s']`.
    """

    transitions: sparse.csr_array  # (S*A, S), row s*A + a; rows of terminal states are empty
    step_reward: np.ndarray  # (S, A), zero on terminal states
    arrival_reward: np.ndarray  # (S,)
    start: np.ndarray  # (S,)
    terminal: np.ndarray  # (S,) bool

    def mdp(self, discount: float) -> TabularMDP:
        """The world as a TabularMDP; its reward is the mean of what a step pays."""
        reward = self.step_reward
        if self.arrival_reward.any():
            arrival = self.transitions @ self.arrival_reward  # (S*A,)
            reward = reward + arrival.reshape(reward.shape)
        return TabularMDP.create(
            self.transitions,
            reward,
            start=self.start,
            discount=discount,
            terminal=self.terminal,
        )


def uniform_start(allowed: np.ndarray) -> np.ndarray:
    """(S,) uniform distribution over the states where `allowed` (S,) is True.

    Raises: InvalidEnvironmentError when there is none.
    """
    count = int(np.count_nonzero(allowed))
    if count == 0:
        raise InvalidEnvironmentError(
            "No state is left to start from: every one is a wall or a goal. "
            "Make the world larger, or take away walls or goals."
        )
    return allowed / count


class TabularEnv(gymnasium.Env[int, int]):
    """A Gymnasium environment that plays a `World`; observations and actions are integers.

    Attributes, as in Gymnasium's toy-text environments: `P[s][a]` lists
    `(probability, next state, reward, terminated)`, and `initial_state_distrib` is (S,). Time
    limits are no part of either: `gymnasium.make` adds them around the environment.

    Args:
        world: what to play.
        render_mode: None, "ansi" (text) or "rgb_array" (a picture, drawn by matplotlib).

    Raises: InvalidEnvironmentError for another render mode.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(self, world: World, render_mode: str | None = None) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InvalidEnvironmentError(
                f"render_mode is {shown(render_mode)}. Give None, 'ansi' or 'rgb_array'."
            )
        self.render_mode = render_mode
        self.world = world
        self._mdp = world.mdp(discount=0.99)
        self.observation_space: spaces.Space[Any] = spaces.Discrete(self._mdp.n_states)
        self.action_space: spaces.Space[Any] = spaces.Discrete(self._mdp.n_actions)
        self.state: int | None = None

    def mdp(self, discount: float = 0.99) -> TabularMDP:
        """The TabularMDP that this environment samples from."""
        return self._mdp.with_discount(discount)

    @property
    def initial_state_distrib(self) -> np.ndarray:
        """(S,) where an episode starts."""
        return self.world.start.copy()

    @cached_property
    def P(self) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
        """The transition table in toy-text format; a terminal state leads to itself and pays 0."""
        n_states, n_actions = self._mdp.n_states, self._mdp.n_actions
        return {s: {a: self._outcomes(s, a) for a in range(n_actions)} for s in range(n_states)}

    def _outcomes(self, state: int, action: int) -> list[tuple[float, int, float, bool]]:
        if self.world.terminal[state]:
            return [(1.0, state, 0.0, True)]
        successors, probabilities = self._row(state, action)
        return [
            (float(p), int(s), self._reward(state, action, s), bool(self.world.terminal[s]))
            for p, s in zip(probabilities, successors, strict=True)
        ]

    def _row(self, state: int, action: int) -> tuple[np.ndarray, np.ndarray]:
        matrix = self._mdp.transitions
        row = state * self._mdp.n_actions + action
        span = slice(matrix.indptr[row], matrix.indptr[row + 1])
        return matrix.indices[span], matrix.data[span]

    def _reward(self, state: int, action: int, successor: int) -> float:
        return float(self.world.step_reward[state, action] + self.world.arrival_reward[successor])

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Start an episode in a state drawn from `initial_state_distrib`."""
        super().reset(seed=seed)
        support = np.flatnonzero(self.world.start)
        self.state = int(support[_sample(self.world.start[support], self.np_random)])
        return self.state, {"prob": float(self.world.start[self.state])}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Returns: state, reward, terminated, truncated (always False), {"prob": of this move}.
        Raises: EpisodeOverError before the first reset and after the end; InvalidActionError.
        """
        if self.state is None or self.world.terminal[self.state]:
            raise EpisodeOverError("No episode is running. Call reset() before step().")
        if not self.action_space.contains(action):
            raise InvalidActionError(
                f"{shown(action)} is no action here. Give a whole number from 0 to "
                f"{self._mdp.n_actions - 1}."
            )
        successors, probabilities = self._row(self.state, int(action))
        i = _sample(probabilities, self.np_random)
        successor = int(successors[i])
        reward = self._reward(self.state, int(action), successor)
        self.state = successor
        terminated = bool(self.world.terminal[successor])
        return successor, reward, terminated, False, {"prob": float(probabilities[i])}

    def render(self) -> str | np.ndarray | None:
        """The present state as text ("ansi") or as an (h, w, 3) uint8 picture ("rgb_array")."""
        if self.render_mode is None:
            logger.warn("render() was called without a render mode. Give render_mode= when making.")
            return None
        if self.render_mode == "ansi":
            return self._text()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=self._figure_size(), dpi=80, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        self._draw(figure.add_subplot())
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def _text(self) -> str:
        return f"state {self.state} of {self._mdp.n_states}\n"

    def _figure_size(self) -> tuple[float, float]:
        return 4.0, 4.0

    def _draw(self, ax: "Axes") -> None:
        raise NotImplementedError


class CellsEnv(TabularEnv):
    """A world that is seen as a rectangle of coloured cells with the agent on one of them."""

    def _cells(self) -> np.ndarray:
        """(height, width, 3) RGB in [0, 1]."""
        raise NotImplementedError

    def _agent_cell(self) -> tuple[int, int] | None:
        """(row, column) of the agent, or None when it is nowhere to be drawn."""
        raise NotImplementedError

    def _figure_size(self) -> tuple[float, float]:
        height, width = self._cells().shape[:2]
        inch = min(0.5, 8.0 / max(height, width))
        return max(1.0, inch * width), max(1.0, inch * height)

    def _draw(self, ax: "Axes") -> None:
        cells = self._cells()
        height, width = cells.shape[:2]
        ax.imshow(cells, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        if max(height, width) <= 40:
            ax.set_xticks(np.arange(width + 1) - 0.5, minor=True)
            ax.set_yticks(np.arange(height + 1) - 0.5, minor=True)
            ax.grid(which="minor", color=GREY, linewidth=0.5)
            ax.tick_params(which="minor", length=0)
        place = self._agent_cell()
        if place is not None:
            inch = self._figure_size()[0] / width
            size = max(0.5 * inch * 72, 4.0)  # points
            ax.plot(place[1], place[0], "o", color=BLACK, markersize=size, markeredgecolor=WHITE)


def _sample(probabilities: np.ndarray, rng: np.random.Generator) -> int:
    """An index drawn from (n,) positive probabilities that sum to 1 up to rounding."""
    cumulative = np.cumsum(probabilities)
    i = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return min(i, len(probabilities) - 1)
