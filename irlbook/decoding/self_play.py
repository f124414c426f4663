"""AlphaZero in small: a network learns noughts and crosses from its own searched games.

A round plays games in which both sides search with the network (`mcts.search`), remembers each
position with its shares of visits and with how the game ended for the player to move, and fits the
network to both:

    loss = (z - v)^2 - sum_a pi_a log p_a.

Unlike `expert_iteration.improve`, which searches every position of the game, self-play sees only
what its own games lead to. `guaranteed` says exactly what a policy is worth against the best
opponent there is, and `losses_to_chance` how often it loses to a random one.

AlphaZero adds Dirichlet noise to the prior at the root of each search. Here a uniform share is
mixed into the prior at *every* node, which needs no draw.

Source: Silver et al. 2018, "A general reinforcement learning algorithm that masters chess, shogi,
and Go through self-play", Science 362; Silver et al. 2017, equation 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from irlbook.decoding import games, mcts
from irlbook.errors import InvalidHyperparameterError

__all__ = [
    "BoardNetwork",
    "Move",
    "SelfPlayConfig",
    "alphazero",
    "guaranteed",
    "losses_to_chance",
    "network_move",
    "play_game",
    "searched_move",
]

Move = Callable[[games.Board], int]


@dataclass(frozen=True)
class SelfPlayConfig:
    """Settings of self-play."""

    rounds: int = 10
    games: int = 25  # in each round
    simulations: int = 25  # for each move
    free_moves: int = 4  # drawn from the shares of visits; later ones are the most visited
    updates: int = 100  # gradient steps in each round
    batch: int = 64
    hidden: int = 64
    learning_rate: float = 3e-3
    c: float = 1.25
    noise: float = 0.25  # share of a uniform prior that is mixed in while playing

    def __post_init__(self) -> None:
        for name in ("rounds", "games", "simulations", "updates", "batch", "hidden"):
            if getattr(self, name) < 1:
                raise InvalidHyperparameterError(
                    f"{name} is {getattr(self, name)}; it must be at least 1."
                )
        if not 0.0 <= self.noise <= 1.0 or self.free_moves < 0:
            raise InvalidHyperparameterError(
                f"noise={self.noise} must lie in [0, 1], and free_moves={self.free_moves} must not "
                "be negative."
            )


class BoardNetwork(nn.Module):
    """Logits of the nine fields and a value in (-1, 1), from a board that is seen canonically."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(18, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.head = nn.Linear(hidden, 10)

    def forward(self, boards: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 9) of 1, -1 and 0 -> ((B, 9) logits, (B,) values)."""
        seen = torch.cat([(boards == 1), (boards == -1)], dim=1).float()
        out = self.head(torch.relu(self.body(seen)))
        return out[:, :9], torch.tanh(out[:, 9])

    def evaluator(self, noise: float = 0.0) -> mcts.Evaluate:
        """state -> (prior of its moves, value), as `mcts.search` asks; each board once.

        Args:
            noise: share of a uniform prior that is mixed in.
        """
        known: dict[games.Board, tuple[np.ndarray, float]] = {}

        def evaluate(state: games.Board) -> tuple[np.ndarray, float]:
            board, fields = games.canonical(state)
            if board not in known:
                with torch.inference_mode():
                    logits, value = self(torch.tensor([board]))
                known[board] = logits[0].double().numpy(), float(value[0])
            seen, value = known[board]
            logits = np.empty(9)
            logits[list(fields)] = seen
            chosen = logits[[i for i, stone in enumerate(state) if not stone]]
            prior = np.exp(chosen - chosen.max())
            prior = (1 - noise) * prior / prior.sum() + noise / len(prior)
            return prior, value

        return evaluate


def network_move(network: BoardNetwork) -> Move:
    """The likeliest move of the network, without any search."""
    evaluate = network.evaluator()
    return lambda state: games.NoughtsAndCrosses().moves(state)[int(evaluate(state)[0].argmax())]


def searched_move(network: BoardNetwork, simulations: int, c: float = 1.25) -> Move:
    """The most visited move of a search with the network."""
    evaluate, game = network.evaluator(), games.NoughtsAndCrosses()
    return lambda state: mcts.search(game, state, evaluate, simulations, c=c).best


def guaranteed(move: Move) -> tuple[float, float]:
    """What a policy gets at worst, against any opponent, as first and as second player.

    1 is a win, 0 a draw, -1 a loss; 0 and 0 is the best possible. The opponent looks at everything.

    Args:
        move: board -> field, the same each time it is asked.
    """
    game = games.NoughtsAndCrosses()

    @cache
    def ours(state: games.Board) -> float:
        over = game.result(state)
        return over if over is not None else -theirs(game.play(state, move(state)))

    @cache
    def theirs(state: games.Board) -> float:
        over = game.result(state)
        return (
            over if over is not None else max(-ours(game.play(state, m)) for m in game.moves(state))
        )

    return ours(games.START) + 0.0, -theirs(games.START) + 0.0


def losses_to_chance(move: Move) -> tuple[float, float]:
    """(as first, as second player) share of games that a policy loses to a random player, exactly.

    Args:
        move: board -> field, the same each time it is asked.
    """
    game = games.NoughtsAndCrosses()

    @cache
    def ours(state: games.Board) -> float:
        over = game.result(state)
        return float(over < 0) if over is not None else theirs(game.play(state, move(state)))

    @cache
    def theirs(state: games.Board) -> float:
        over = game.result(state)  # for the random player: a win of theirs is a loss of ours
        if over is not None:
            return float(over > 0)
        return float(np.mean([ours(game.play(state, m)) for m in game.moves(state)]))

    return ours(games.START), theirs(games.START)


def play_game(
    evaluate: mcts.Evaluate, config: SelfPlayConfig, rng: np.random.Generator
) -> list[tuple[games.Board, np.ndarray, float]]:
    """One searched game: (canonical board, (9,) shares of visits, result) of each position met.

    The result is that of the game, for the player to move at the position.
    """
    game, state, met = games.NoughtsAndCrosses(), games.START, []
    while (over := game.result(state)) is None:
        root = mcts.search(game, state, evaluate, config.simulations, c=config.c)
        shares = np.zeros(9)
        shares[list(root.moves)] = root.shares
        board, fields = games.canonical(state)
        met.append((board, shares[list(fields)]))
        if len(met) <= config.free_moves:
            state = game.play(state, int(rng.choice(9, p=shares)))
        else:
            state = game.play(state, root.best)
    # `over` is for the player to move at the end; the one before him sees its negative.
    return [
        (board, shares, over * (-1.0) ** (len(met) - at)) for at, (board, shares) in enumerate(met)
    ]


def alphazero(config: SelfPlayConfig, *, seed: int) -> list[BoardNetwork]:
    """The network after 0, 1 ... `rounds` rounds of play and fitting."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        network = BoardNetwork(config.hidden)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    memory: list[tuple[games.Board, np.ndarray, float]] = []
    kept = [_copy(network, config)]
    for _ in range(config.rounds):
        evaluate = network.evaluator(config.noise)
        for _ in range(config.games):
            memory += play_game(evaluate, config, rng)
        boards = torch.tensor([board for board, _, _ in memory])
        shares = torch.tensor(np.array([s for _, s, _ in memory])).float()
        results = torch.tensor([z for _, _, z in memory]).float()
        for _ in range(config.updates):
            at = torch.from_numpy(rng.integers(0, len(memory), config.batch))
            logits, values = network(boards[at])
            taken = boards[at] != 0
            logp = torch.log_softmax(logits.masked_fill(taken, -1e9), dim=1)
            loss = ((results[at] - values) ** 2).mean() - (shares[at] * logp).sum(dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        kept.append(_copy(network, config))
    return kept


def _copy(network: BoardNetwork, config: SelfPlayConfig) -> BoardNetwork:
    twin = BoardNetwork(config.hidden)
    twin.load_state_dict(network.state_dict())
    return twin
