"""A small game that can be solved exactly: noughts and crosses (tic-tac-toe).

A state is a tuple of nine numbers, row by row: 1 for a stone of the player to move, -1 for one of
the other, 0 for a free field. After a move the board is seen from the other side, so a position
has one value whoever plays it: 1 where the player to move wins, 0 a draw, -1 a loss.
"""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["Board", "NoughtsAndCrosses", "START", "best_moves", "canonical", "positions", "solve"]

Board = tuple[int, ...]
START: Board = (0,) * 9
_LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]
_SQUARE = np.arange(9).reshape(3, 3)
_SYMMETRIES = [
    tuple(np.rot90(board, turns).ravel().tolist())
    for board in (_SQUARE, _SQUARE.T)
    for turns in range(4)
]


class NoughtsAndCrosses:
    """The rules, as `mcts.search` wants them."""

    alternating = True

    def moves(self, state: Board) -> tuple[int, ...]:
        """Free fields."""
        return tuple(i for i, stone in enumerate(state) if not stone)

    def play(self, state: Board, move: int) -> Board:
        """The board after the move, seen by the other player."""
        return tuple(-1 if i == move else -stone for i, stone in enumerate(state))

    def result(self, state: Board) -> float | None:
        """-1 where the other player has three in a row, 0 on a full board, else None."""
        if any(state[a] == state[b] == state[c] == -1 for a, b, c in _LINES):
            return -1.0
        return None if 0 in state else 0.0


@cache
def solve(state: Board = START) -> float:
    """The value of a position for the player to move, by looking at everything (minimax)."""
    game = NoughtsAndCrosses()
    over = game.result(state)
    if over is not None:
        return over
    return max(-solve(game.play(state, move)) for move in game.moves(state)) + 0.0  # no -0


def best_moves(state: Board) -> tuple[int, ...]:
    """The moves that keep the value of a position."""
    game = NoughtsAndCrosses()
    return tuple(m for m in game.moves(state) if -solve(game.play(state, m)) == solve(state))


@cache
def canonical(state: Board) -> tuple[Board, tuple[int, ...]]:
    """The least of the eight boards that are alike by turning and mirroring, and how it is made.

    Returns:
        The board, and for each of its fields the field of `state` that it shows.
    """
    return min((tuple(state[i] for i in fields), fields) for fields in _SYMMETRIES)


@cache
def positions() -> tuple[Board, ...]:
    """All positions that can come up and are not over, one of each eight that are alike."""
    game, seen, stack = NoughtsAndCrosses(), set(), [START]
    while stack:
        state = canonical(stack.pop())[0]
        if state not in seen and game.result(state) is None:
            seen.add(state)
            stack += [game.play(state, move) for move in game.moves(state)]
    return tuple(sorted(seen, key=lambda board: (sum(map(abs, board)), board)))
