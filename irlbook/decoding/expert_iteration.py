"""Expert iteration: search with the policy, fit the policy to what the search did, repeat.

A round costs tokens once; afterwards every query costs a single response. So search pays while
queries are few, and training pays from some number of queries on (`break_even`).

On a model that can be enumerated a fit is exact: any distribution over responses is a policy
(`EnumerableLM.token_policy`). Rounds of best of n give the best of n^r (chapter 12).

Source: Anthony, Tian and Barber 2017 (1705.08439); Silver et al. 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from irlbook.decoding import games, mcts
from irlbook.errors import InvalidHyperparameterError
from irlbook.lm.enumerable import EnumerableLM

__all__ = ["Table", "break_even", "expert_iteration", "improve"]


def expert_iteration(
    lm: EnumerableLM, search: Callable[[EnumerableLM], np.ndarray], rounds: int
) -> list[np.ndarray]:
    """(R,) log-probabilities after 0, 1 ... `rounds` rounds of an exact fit.

    Args:
        search: gives the (R,) log-probabilities of what it finds with a model's policy.
    """
    if rounds < 0:
        raise InvalidHyperparameterError(f"rounds={rounds} must not be negative.")
    found = [lm.sequence_log_probabilities()]
    for _ in range(rounds):
        found.append(search(replace(lm, policy=lm.token_policy(found[-1]))))
    return found


def break_even(training_tokens: float, search_tokens: float, policy_tokens: float) -> float:
    """Queries from which on training is cheaper: training / (search - policy), tokens per query.

    Infinite where a query of the trained policy is no cheaper than the search.
    """
    if min(training_tokens, search_tokens, policy_tokens) < 0:
        raise InvalidHyperparameterError("tokens must not be negative.")
    saved = search_tokens - policy_tokens
    return training_tokens / saved if saved > 0 else float("inf")


# A table for noughts and crosses ------------------------------------------------------------------


@dataclass
class Table:
    """A policy and a value for each position of the game, symmetric ones together.

    Attributes:
        shares: canonical board -> (9,) chances of its fields. values: canonical board -> value.
    """

    shares: dict[games.Board, np.ndarray] = field(default_factory=dict)
    values: dict[games.Board, float] = field(default_factory=dict)

    def __call__(self, state: games.Board) -> tuple[np.ndarray, float]:
        """(prior of the moves, value): uniform and 0 where nothing was learned."""
        board, fields = games.canonical(state)
        moves = [i for i, stone in enumerate(state) if not stone]
        known = self.shares.get(board)
        if known is None:
            return np.full(len(moves), 1 / len(moves)), 0.0
        chances = np.zeros(9)
        chances[list(fields)] = known
        prior = chances[moves] + 1e-3  # no move is ruled out for good
        return prior / prior.sum(), self.values[board]


def improve(table: Table, simulations: int, *, c: float = 1.25) -> Table:
    """One round: search every position with the table, and write down visits and values."""
    game, found = games.NoughtsAndCrosses(), Table()
    for board in games.positions():
        root = mcts.search(game, board, table, simulations, c=c)
        shares = np.zeros(9)
        shares[list(root.moves)] = root.shares
        found.shares[board], found.values[board] = shares, root.value
    return found
