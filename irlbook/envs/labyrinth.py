"""A labyrinth for mice: a binary tree of corridors with a water port (Rosenberg et al. 2021).

Node 0 is the entrance; node i branches into 2i + 1 and 2i + 2; the last level are dead ends. One
more state, the exit, is the home cage: a bout begins at node 0 and ends there. With depth 6 there
are 127 nodes, and the water of the real maze flows at node 116.

`labyrinth` is the maze of a mouse that always wants the same. `thirsty` doubles it: a state is a
node *and* whether the mouse is thirsty, because a mouse that has drunk wants something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from irlbook.envs.base import checked_int, checked_probability
from irlbook.errors import InvalidEnvironmentError, InvalidTrajectoryError
from irlbook.mdp import TabularMDP, Trajectories

__all__ = ["Labyrinth", "PORT", "corridors", "labyrinth", "positions", "thirsty"]

BACK, LEFT, RIGHT = 0, 1, 2
PORT = 116  # where the water is in the real maze


class Labyrinth(NamedTuple):
    """A maze for planning and for inverse reinforcement learning.

    Attributes:
        mdp: actions back, left, right; reward zero; starts at node 0; the exit is terminal. An
            action that leads into a wall stays where it is: forbid it with `reference`.
        reference: (S, A) 1 where a corridor leads, 0 at walls.
        node: (S,) the node of each state; the exit is the last node.
        is_thirsty: (S,) bool; all True without thirst.
        port: the node with the water.
    """

    mdp: TabularMDP
    reference: np.ndarray
    node: np.ndarray
    is_thirsty: np.ndarray
    port: int

    @property
    def exit(self) -> int:
        """The node that stands for the home cage."""
        return int(self.node.max())

    def arrivals(self) -> sparse.csr_array:
        """(S*A, nodes) features "this action arrives at node n": rewards are paid on arrival."""
        n_nodes = self.exit + 1
        to_node = sparse.csr_array(
            (np.ones(len(self.node)), (np.arange(len(self.node)), self.node)),
            shape=(len(self.node), n_nodes),
        )
        return sparse.csr_array(self.mdp.transitions @ to_node)

    def arrives_thirsty(self) -> sparse.csr_array:
        """(S*A, 1) feature "this action arrives at the port, thirsty": the one reward that ends."""
        acts_thirsty = np.repeat(self.is_thirsty, self.mdp.n_actions)
        return sparse.csr_array(self.arrivals()[:, [self.port]] * acts_thirsty[:, None])

    def trajectories(
        self, paths: Iterable[Sequence[int]], thirst: Iterable[Sequence[bool]] | None = None
    ) -> Trajectories:
        """Paths of nodes as trajectories: which corridor was taken is read off the tree.

        Args:
            paths: each a list of nodes. thirst: the same, whether thirsty *at* each node; needed
                for the maze with thirst only.

        Raises:
            InvalidTrajectoryError: a path without a move, a node that is not there, two nodes
                without a corridor between them, or a thirst that does not fit; named by path and
                step.
        """
        nodes = [_as_nodes(path, self.exit, f"path {i}") for i, path in enumerate(paths)]
        if thirst is None:
            if not self.is_thirsty.all():
                raise InvalidTrajectoryError(
                    "this maze has thirst: say for each node of each path whether the mouse was "
                    "thirsty there."
                )
            states = nodes
        else:
            modes = [np.asarray(mode, dtype=bool) for mode in thirst]
            if [m.shape for m in modes] != [p.shape for p in nodes]:
                raise InvalidTrajectoryError("thirst needs one truth value for each node of paths.")
            n_nodes = self.exit + 1
            states = [p + n_nodes * ~m for p, m in zip(nodes, modes, strict=True)]
        pairs = []
        for i, (path, state) in enumerate(zip(nodes, states, strict=True)):
            if len(path) < 2:
                raise InvalidTrajectoryError(f"path {i} makes no move. Leave it out.")
            pairs.append((state, corridors(path, self.exit, name=f"path {i}")))
        return Trajectories.from_list(pairs).validate(self.mdp)


def corridors(path: np.ndarray, exit: int, *, name: str = "the path") -> np.ndarray:
    """(T,) actions that walk along the nodes of `path` (T + 1,).

    Raises:
        InvalidTrajectoryError: names the step at which no corridor leads on.
    """
    path = _as_nodes(path, exit, name)
    here, there = path[:-1], path[1:]
    parent = np.where(here == 0, exit, (here - 1) // 2)
    action = np.select(
        [there == parent, there == 2 * here + 1, there == 2 * here + 2],
        [BACK, LEFT, RIGHT],
        default=-1,
    )
    wrong = (action < 0) | (here == exit) | ((there == exit) & (here != 0))
    if wrong.any():
        t = int(np.flatnonzero(wrong)[0])
        raise InvalidTrajectoryError(
            f"{name} goes from node {here[t]} to node {there[t]} at step {t}; no corridor joins "
            "them. Fill in the nodes between, or cut the path there."
        )
    return action


def _as_nodes(path: Sequence[int] | np.ndarray, exit: int, name: str) -> np.ndarray:
    """(T + 1,) the nodes of a path, checked."""
    try:
        nodes = np.asarray(path)
    except ValueError:  # rows of unlike length
        nodes = np.empty(1, dtype=object)
    whole = nodes.ndim == 1 and nodes.dtype.kind in "iu"
    if nodes.shape != (0,) and not (whole and nodes.min() >= 0 and nodes.max() <= exit):
        raise InvalidTrajectoryError(
            f"{name} visits a node outside 0..{exit}; a path is a flat list of whole numbers."
        )
    return nodes


def labyrinth(depth: int = 6, *, port: int | None = None, discount: float = 0.9) -> Labyrinth:
    """The maze of a mouse without thirst.

    Args:
        depth: branchings between entrance and dead ends; 2^(depth + 1) - 1 nodes.
        port: a dead end; None is node 116 at depth 6, else the dead end as far to the right.

    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    depth = checked_int("depth", depth, 1, 12)
    n_nodes = 2 ** (depth + 1) - 1
    first_end = n_nodes // 2
    if port is None:
        port = first_end + (PORT - 63) * (first_end + 1) // 64
    port = checked_int("port", port, 0, n_nodes - 1)
    if port < first_end:
        raise InvalidEnvironmentError(
            f"port {port} is no dead end. Give a node from {first_end} to {n_nodes - 1}."
        )
    node = np.arange(n_nodes)
    target = np.column_stack([(node - 1) // 2, 2 * node + 1, 2 * node + 2])
    target[0, BACK] = n_nodes
    reference = np.ones((n_nodes + 1, 3))
    reference[first_end:n_nodes, LEFT:] = 0.0
    target[first_end:, LEFT:] = node[first_end:, None]  # walls
    rows = np.arange(3 * n_nodes)
    transitions = sparse.csr_array(
        (np.ones(len(rows)), (rows, target.reshape(-1))), shape=(3 * (n_nodes + 1), n_nodes + 1)
    )
    mdp = TabularMDP.create(
        transitions, np.zeros(n_nodes + 1), start=0, discount=discount, terminal=[n_nodes]
    )
    everybody = np.ones(n_nodes + 1, dtype=bool)
    return Labyrinth(mdp, reference, np.arange(n_nodes + 1), everybody, port)


def thirsty(maze: Labyrinth, *, refill: float) -> Labyrinth:
    """The same maze for a mouse that is thirsty or sated: states 0 .. n-1 thirsty, n .. 2n-1 sated.

    Arriving at the port thirsty ends the thirst. It returns with chance `refill` at each step, or
    with the next bout. (In the real maze a drop flows at most every 90 seconds.)

    Raises: InvalidEnvironmentError: `refill` is no probability, or the maze has thirst already.
    """
    refill = checked_probability("refill", refill)
    if not maze.is_thirsty.all():
        raise InvalidEnvironmentError("this maze has thirst already.")
    moves = maze.mdp.transitions
    drinks = np.zeros(maze.mdp.n_states)
    drinks[maze.port] = 1.0
    stays_thirsty, becomes_sated = moves * (1.0 - drinks)[None], moves * drinks[None]
    transitions = sparse.block_array(
        [[stays_thirsty, becomes_sated], [refill * moves, (1.0 - refill) * moves]], format="csr"
    )
    n_states = maze.mdp.n_states
    mdp = TabularMDP.create(
        transitions,
        np.zeros(2 * n_states),
        start=np.concatenate([maze.mdp.start, np.zeros(n_states)]),
        discount=maze.mdp.discount,
        terminal=np.tile(maze.mdp.terminal, 2),
    )
    return Labyrinth(
        mdp,
        np.tile(maze.reference, (2, 1)),
        np.tile(maze.node, 2),
        np.repeat([True, False], n_states),
        maze.port,
    )


def positions(depth: int = 6) -> np.ndarray:
    """(nodes, 2) x and y of every node but the exit, laid out as the letters H of the real maze."""
    depth = checked_int("depth", depth, 1, 12)
    place = np.zeros((2 ** (depth + 1) - 1, 2))
    for i in range(1, len(place)):
        level = int(np.log2(i + 1))
        reach = 0.5 ** ((level + 1) // 2)
        side = -1.0 if i % 2 else 1.0
        place[i] = place[(i - 1) // 2]
        place[i, 1 - level % 2 if level else 0] += side * reach
    return place
