"""Hindsight experience replay: a failed episode is a success for the goal that it did reach.

A goal-conditioned network Q(s, g, a) plays bit-flip: n bits, action i flips bit i, and each step
pays -1 until the bits equal the goal. While no episode ever reaches its goal, all rewards are equal
and say nothing about where the goal is. The transitions, however, do not depend on the goal. So a
stored step may be replayed with another goal, one that the same episode reached later, and its
reward is computed anew (`relabel`). DQN is the same learner with no replaced goal.

Source: Andrychowicz et al. 2017 (1707.01495), sections 3.1 and 3.3; Mnih et al. 2015 for DQN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from irlbook.errors import InvalidHyperparameterError, ShapeError

__all__ = [
    "Episodes",
    "HindsightConfig",
    "HindsightResult",
    "hindsight_q_learning",
    "q_target",
    "relabel",
    "success_rate",
]


@dataclass(frozen=True)
class HindsightConfig:
    """Settings of the learner on bit-flip."""

    n_bits: int = 10
    replaced: float = 0.8  # share of replayed steps whose goal is replaced; 0 is plain DQN
    cycles: int = 300  # of collecting and learning
    episodes: int = 16  # collected in each cycle, n_bits steps each at most
    updates: int = 16  # gradient steps in each cycle
    batch: int = 128  # replayed steps in each update
    hidden: int = 256
    learning_rate: float = 1e-3
    discount: float = 0.98
    epsilon: float = 0.2  # share of random actions while collecting
    keep: float = 0.95  # of the target network in each cycle; the rest is the network's
    capacity: int = 20_000  # episodes
    evaluate_every: int = 25  # cycles
    tests: int = 200  # episodes of each evaluation

    def __post_init__(self) -> None:
        counts = ("n_bits", "cycles", "episodes", "updates", "batch", "hidden", "capacity")
        for name in (*counts, "evaluate_every", "tests"):
            if getattr(self, name) < 1:
                raise InvalidHyperparameterError(
                    f"{name} is {getattr(self, name)}; it must be at least 1."
                )
        for name in ("replaced", "epsilon", "keep"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidHyperparameterError(
                    f"{name} is {getattr(self, name)}; it must lie in [0, 1]."
                )
        if not 0.0 <= self.discount < 1.0:
            raise InvalidHyperparameterError(
                f"discount is {self.discount}; it must lie in [0, 1): the target is clipped to "
                "-1 / (1 - discount)."
            )
        if self.capacity < self.episodes:
            raise InvalidHyperparameterError(
                f"capacity={self.capacity} holds less than the {self.episodes} episodes of a cycle."
            )


@dataclass(frozen=True)
class Episodes:
    """E episodes side by side.

    Attributes:
        bits: (E, n+1, n) int8, what was reached before each step and at the end.
        actions: (E, n) int64.
        goals: (E, n) int8, what was asked for.
        lengths: (E,) steps that were made, 1 to n; later entries mean nothing.
    """

    bits: np.ndarray
    actions: np.ndarray
    goals: np.ndarray
    lengths: np.ndarray

    @property
    def solved(self) -> np.ndarray:
        """(E,) bool: the last bits are the goal."""
        last = self.bits[np.arange(len(self.lengths)), self.lengths]
        return (last == self.goals).all(axis=1)


@dataclass(frozen=True)
class HindsightResult:
    """The network, and how it did.

    Attributes:
        network: Q(s, g, .), of inputs (B, 2n) in {-1, 1}: bits, then goal.
        cycles: (k,) after which it was tested. success: (k,) shares of test episodes solved.
        reached: episodes solved while collecting.
        played: episodes collected.
    """

    network: nn.Module
    cycles: np.ndarray
    success: np.ndarray
    reached: int
    played: int


def relabel(
    episodes: Episodes,
    which: np.ndarray,
    steps: np.ndarray,
    replaced: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Goals for stored steps, some replaced by what the episode reached later, and rewards.

    With probability `replaced` the goal of step t becomes the bits after a step drawn from
    t, ..., T - 1 (the strategy "future" of the paper). The reward is computed for the new goal:

        r = 0 if the bits after step t are the goal, else -1.

    Args:
        which: (B,) episodes. steps: (B,) t, below the episodes' lengths.

    Returns:
        goals (B, n) int8; rewards (B,) 0.0 where the step ends the episode of its goal, else -1.0.

    Raises:
        InvalidHyperparameterError: a share outside [0, 1].
        ShapeError: a step that its episode did not make.
    """
    if not 0.0 <= replaced <= 1.0:
        raise InvalidHyperparameterError(f"replaced is {replaced}; it must lie in [0, 1].")
    lengths = episodes.lengths[which]
    if (steps >= lengths).any() or (steps < 0).any():
        raise ShapeError("a step lies outside its episode; draw steps below `lengths`.")
    goals = episodes.goals[which]
    later = rng.integers(steps + 1, lengths + 1)
    swap = rng.random(len(which)) < replaced
    goals[swap] = episodes.bits[which[swap], later[swap]]
    after = episodes.bits[which, steps + 1]
    return goals, np.where((after == goals).all(axis=1), 0.0, -1.0)


def q_target(rewards: Tensor, next_q: Tensor, discount: float) -> Tensor:
    """(B,) r + discount max_a Q(s', g, a), or 0 where the goal is reached (r = 0).

    Clipped to what a return can be, [-1 / (1 - discount), 0].

    Args:
        rewards: (B,) 0 or -1. next_q: (B, A) of the target network.
    """
    going_on = (rewards < 0).to(next_q.dtype)
    target = rewards + discount * going_on * next_q.max(dim=1).values
    return target.clamp(-1.0 / (1.0 - discount), 0.0)


def hindsight_q_learning(config: HindsightConfig, *, seed: int) -> HindsightResult:
    """DQN on bit-flip, with a share of the replayed goals replaced in hindsight."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        network, target = (_network(config) for _ in range(2))
    target.load_state_dict(network.state_dict())
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    memory, filled, reached = _memory(config), 0, 0
    tested, success = [], []
    for cycle in range(config.cycles):
        fresh = _play(network, config.n_bits, config.episodes, config.epsilon, rng)
        reached += int(fresh.solved.sum())
        at = (filled + np.arange(config.episodes)) % config.capacity
        for name in ("bits", "actions", "goals", "lengths"):
            getattr(memory, name)[at] = getattr(fresh, name)
        filled += config.episodes
        for _ in range(config.updates):
            _update(network, target, optimiser, memory, min(filled, config.capacity), config, rng)
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
                slow.lerp_(fast, 1.0 - config.keep)
        if (cycle + 1) % config.evaluate_every == 0 or cycle + 1 == config.cycles:
            tested.append(cycle + 1)
            success.append(success_rate(network, config.n_bits, config.tests, seed + 1_000_003))
    return HindsightResult(
        network, np.array(tested), np.array(success), reached, config.cycles * config.episodes
    )


def success_rate(network: nn.Module, n_bits: int, tests: int, seed: int) -> float:
    """Share of fresh episodes that the greedy policy solves within n steps."""
    rng = np.random.default_rng(seed)
    return float(_play(network, n_bits, tests, 0.0, rng).solved.mean())


def _network(config: HindsightConfig) -> nn.Module:
    return nn.Sequential(
        nn.Linear(2 * config.n_bits, config.hidden),
        nn.ReLU(),
        nn.Linear(config.hidden, config.n_bits),
    )


def _memory(config: HindsightConfig) -> Episodes:
    e, n = config.capacity, config.n_bits
    return Episodes(
        np.zeros((e, n + 1, n), dtype=np.int8),
        np.zeros((e, n), dtype=np.int64),
        np.zeros((e, n), dtype=np.int8),
        np.ones(e, dtype=np.int64),
    )


def _inputs(bits: np.ndarray, goals: np.ndarray) -> Tensor:
    """(B, 2n) float32 in {-1, 1}."""
    return torch.from_numpy(np.concatenate([bits, goals], axis=1)).float() * 2 - 1


def _play(
    network: nn.Module, n_bits: int, count: int, epsilon: float, rng: np.random.Generator
) -> Episodes:
    """Episodes from random bits to a random other goal, n steps at most."""
    bits = np.zeros((count, n_bits + 1, n_bits), dtype=np.int8)
    bits[:, 0] = rng.integers(0, 2, (count, n_bits))
    goals = rng.integers(0, 2, (count, n_bits), dtype=np.int8)
    same = (bits[:, 0] == goals).all(axis=1)
    goals[same, 0] ^= 1  # an episode that is solved before it begins teaches nothing
    actions = np.zeros((count, n_bits), dtype=np.int64)
    lengths = np.full(count, n_bits)
    running, rows = np.ones(count, dtype=bool), np.arange(count)
    for t in range(n_bits):
        with torch.inference_mode():
            greedy = network(_inputs(bits[:, t], goals)).argmax(dim=1).numpy()
        random = rng.random(count) < epsilon
        actions[:, t] = np.where(random, rng.integers(0, n_bits, count), greedy)
        bits[:, t + 1] = bits[:, t]
        bits[rows, t + 1, actions[:, t]] ^= 1
        ends = running & (bits[:, t + 1] == goals).all(axis=1)
        lengths[ends] = t + 1
        running &= ~ends
        if not running.any():
            break
    return Episodes(bits, actions, goals, lengths)


def _update(
    network: nn.Module,
    target: nn.Module,
    optimiser: torch.optim.Optimizer,
    memory: Episodes,
    filled: int,
    config: HindsightConfig,
    rng: np.random.Generator,
) -> None:
    """One gradient step on replayed steps."""
    which = rng.integers(0, filled, config.batch)
    steps = rng.integers(0, memory.lengths[which])
    goals, rewards = relabel(memory, which, steps, config.replaced, rng)
    actions = torch.from_numpy(memory.actions[which, steps])
    with torch.no_grad():
        ahead = target(_inputs(memory.bits[which, steps + 1], goals))
        wanted = q_target(torch.from_numpy(rewards).float(), ahead, config.discount)
    q = network(_inputs(memory.bits[which, steps], goals))
    loss = nn.functional.mse_loss(q.gather(1, actions[:, None])[:, 0], wanted)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
