"""Monte Carlo tree search with PUCT: a tree of positions that grows where it seems worth while.

Each simulation walks from the root along

    argmax_a  Q(s, a) + c P(s, a) sqrt(N(s)) / (1 + N(s, a)),

with N how often a move was tried, Q the mean of what came of it, and P a prior; it stops at a
position that is new (or over), asks for its prior and value, and adds the value to all moves on
the way. Where players alternate, what is good for one is bad for the other, and the sign changes
with every move. The answer is the move that was tried most; the shares of visits are a better
policy than the prior, which expert iteration uses.

Source: Rosin 2011 (predictor + UCB); Silver et al. 2017, "Mastering the game of Go without human
knowledge", methods.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from irlbook.errors import InvalidHyperparameterError, InvalidPolicyError

__all__ = ["Evaluate", "Game", "Node", "puct", "rollout_value", "search", "uniform_rollouts"]


class Game(Protocol):
    """Rules of a game for one player or two.

    Attributes:
        alternating: whether the other player moves next. Values are for the player to move.
    """

    alternating: bool

    def moves(self, state: Any) -> Sequence[Any]:
        """What may be played, one move at least unless the game is over."""

    def play(self, state: Any, move: Any) -> Any:
        """The state after a move."""

    def result(self, state: Any) -> float | None:
        """What the game is worth to the player to move; None while it goes on."""


Evaluate = Callable[[Any], tuple[np.ndarray, float]]
"""state -> (prior of its moves, value for the player to move)"""


@dataclass
class Node:
    """A position of the search tree.

    Attributes:
        state, moves: the position and what may be played there; no moves once it is over.
        prior, visits, total: (A,) P, N, and the sum of what came of each move.
        children: by place of the move; made when first walked to.
    """

    state: Hashable
    moves: Sequence[Any]
    prior: np.ndarray
    visits: np.ndarray
    total: np.ndarray
    children: dict[int, Node] = field(default_factory=dict)

    @property
    def shares(self) -> np.ndarray:
        """(A,) shares of the visits: the policy that the search found."""
        return self.visits / self.visits.sum()

    @property
    def value(self) -> float:
        """Mean of what came of all simulations through this position."""
        return float(self.total.sum() / self.visits.sum())

    @property
    def best(self) -> Any:
        """The move that was tried most; of those that tie, the one with the higher mean."""
        mean = self.total / np.maximum(self.visits, 1)
        return self.moves[int(np.lexsort((mean, self.visits))[-1])]


def puct(node: Node, c: float) -> np.ndarray:
    """(A,) Q + c P sqrt(N) / (1 + N_a); a move never tried has Q = 0."""
    mean = node.total / np.maximum(node.visits, 1)
    return mean + c * node.prior * np.sqrt(node.visits.sum() + 1e-9) / (1 + node.visits)


def search(
    game: Game,
    state: Any,
    evaluate: Evaluate,
    simulations: int,
    *,
    c: float = 1.25,
    stop: Callable[[], bool] | None = None,
) -> Node:
    """The root after `simulations` walks.

    Args:
        state: a position that is not over.
        evaluate: asked once for each new position. c: how much to explore, in units of value.
        stop: asked before each walk; true ends the search. A root without any walk has no shares.

    Raises:
        InvalidHyperparameterError: no simulation, a negative c, or a game that is over.
        InvalidPolicyError: a prior that is no distribution over the moves.
    """
    if simulations < 1 or not c >= 0:
        raise InvalidHyperparameterError(
            f"simulations={simulations} must be at least 1, and c={c} not negative."
        )
    if game.result(state) is not None:
        raise InvalidHyperparameterError("the game is over at the root; nothing is to be searched.")
    root, _ = _new(game, state, evaluate)
    sign = -1.0 if game.alternating else 1.0
    for _ in range(simulations):
        if stop is not None and stop():
            break
        node, path = root, []
        while True:
            at = int(puct(node, c).argmax())
            path.append((node, at))
            child = node.children.get(at)
            if child is None:
                child, value = _new(game, game.play(node.state, node.moves[at]), evaluate)
                node.children[at] = child
            elif not child.moves:
                value = float(child.total[0])  # the result, kept from its first visit
            else:
                node = child
                continue
            break
        for parent, move in reversed(path):
            value *= sign
            parent.visits[move] += 1
            parent.total[move] += value
    return root


def _new(game: Game, state: Any, evaluate: Evaluate) -> tuple[Node, float]:
    over = game.result(state)
    if over is not None:
        return Node(state, (), np.zeros(1), np.zeros(1), np.array([over])), over
    moves = game.moves(state)
    prior, value = evaluate(state)
    prior = np.asarray(prior, dtype=float)
    if prior.shape != (len(moves),) or prior.min() < 0 or abs(prior.sum() - 1) > 1e-6:
        raise InvalidPolicyError(f"a prior of {len(moves)} moves must sum to 1; got {prior!r}.")
    return Node(state, moves, prior, np.zeros(len(moves)), np.zeros(len(moves))), float(value)


def rollout_value(
    game: Game, state: Any, prior: Callable[[Any], np.ndarray], rng: np.random.Generator
) -> tuple[float, int]:
    """Play on with moves drawn from a prior until the game is over.

    Returns:
        The result for the player to move at `state`, and how many moves were played.
    """
    sign, played = 1.0, 0
    while (over := game.result(state)) is None:
        moves = game.moves(state)
        state = game.play(state, moves[int(rng.choice(len(moves), p=prior(state)))])
        sign *= -1.0 if game.alternating else 1.0
        played += 1
    return sign * over, played


def uniform_rollouts(game: Game, rng: np.random.Generator) -> Evaluate:
    """A prior without any opinion, and the result of one random game as the value."""

    def uniform(state: Any) -> np.ndarray:
        n = len(game.moves(state))
        return np.full(n, 1 / n)

    return lambda state: (uniform(state), rollout_value(game, state, uniform, rng)[0])
