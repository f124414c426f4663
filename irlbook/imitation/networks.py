"""Behaviour cloning and DAgger with a small network, where states are vectors (CartPole).

Read top to bottom: settings, the network, the fit, driving an environment, the four ways to get
labels. The expert is any function of a batch of observations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from irlbook.errors import InvalidHyperparameterError, InvalidTrajectoryError
from irlbook.rl.ppo import make_vector_env, space_sizes

__all__ = [
    "CloneConfig",
    "CloneResult",
    "Controller",
    "Drive",
    "ScaledNetwork",
    "check_labels",
    "clone_network",
    "dagger_network",
    "drive",
]

Controller = Callable[[np.ndarray], np.ndarray]  # observations (n, O) -> actions (n,)


@dataclass(frozen=True)
class CloneConfig:
    """Hyper-parameters of a cloned network. The defaults suit a few hundred labels."""

    hidden: int = 32  # units in each of two tanh layers
    steps: int = 300  # full-batch Adam steps
    learning_rate: float = 1e-2
    weight_decay: float = 1e-4  # pulls the weights to 0: few labels separate perfectly

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.steps < 1 or self.learning_rate <= 0 or self.weight_decay < 0:
            raise InvalidHyperparameterError(
                "hidden, steps must be at least 1, learning_rate above 0, weight_decay 0 or more."
            )


@dataclass(frozen=True)
class CloneResult:
    """A cloned network and the course of its fit.

    Attributes:
        network: observations (n, O) -> logits (n, A); it scales its input itself.
        losses: (steps,) mean -log pi(a|s) of the labels, in nats, before each step.
        held_out: (steps,) the same on held-out labels, if any were given.
    """

    network: nn.Module
    losses: np.ndarray
    held_out: np.ndarray | None

    def act(self, observations: np.ndarray) -> np.ndarray:
        """(n, O) -> (n,) the likeliest action."""
        with torch.inference_mode():
            return (
                self.network(torch.as_tensor(observations, dtype=torch.float32)).argmax(1).numpy()
            )


class ScaledNetwork(nn.Module):
    """A two-layer network behind a fixed scaling of its input."""

    def __init__(self, mean: np.ndarray, scale: np.ndarray, n_actions: int, hidden: int):
        super().__init__()
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        self.layers = nn.Sequential(
            nn.Linear(len(mean), hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, n_actions),
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layers((observations - self.mean) / self.scale)


def clone_network(
    observations: np.ndarray,
    labels: np.ndarray,
    n_actions: int,
    config: CloneConfig | None = None,
    *,
    seed: int,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
) -> CloneResult:
    """Fit a network to labelled observations by maximum likelihood (cross-entropy), eq 4.1.

    Args:
        observations: (n, O). labels: (n,) int, the expert's action in each.
        held_out: other (observations, labels), only to be watched.
        seed: of the initial weights. Nothing else is random.

    Raises:
        InvalidTrajectoryError: no label, not one an observation, one outside 0..n_actions-1, or an
            observation that is not finite; the message names the row.
    """
    config = config or CloneConfig()
    x, y = check_labels(observations, labels, n_actions)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ScaledNetwork(mean, np.where(scale > 1e-6, scale, 1.0), n_actions, config.hidden)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    inputs, targets = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)
    watched = None
    if held_out is not None:
        a, b = check_labels(*held_out, n_actions)
        watched = torch.as_tensor(a, dtype=torch.float32), torch.as_tensor(b)
    losses, others = [], []
    for _ in range(config.steps):
        if watched is not None:
            with torch.no_grad():
                others.append(nn.functional.cross_entropy(network(watched[0]), watched[1]).item())
        loss = nn.functional.cross_entropy(network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return CloneResult(network, np.array(losses), np.array(others) if others else None)


def check_labels(
    observations: np.ndarray, labels: np.ndarray, n_actions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, O) float and (n,) int, or raise InvalidTrajectoryError naming the row."""
    x, y = np.asarray(observations, dtype=float), np.asarray(labels)
    if x.ndim != 2 or y.shape != (len(x),):
        raise InvalidTrajectoryError(
            f"there must be one label a row: got observations {x.shape} and labels {y.shape}. "
            "The state in which a trajectory ended has no label: drop it."
        )
    if not len(x):
        raise InvalidTrajectoryError("there is no label to learn from; give a demonstration.")
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        raise InvalidTrajectoryError(f"row {bad[0]}: the observation holds NaN or infinity.")
    bad = np.flatnonzero((y < 0) | (y >= n_actions) | (y != np.floor(y)))
    if bad.size:
        raise InvalidTrajectoryError(
            f"row {bad[0]}: label {y[bad[0]]} is not an action 0..{n_actions - 1}."
        )
    return x, y.astype(np.int64)


@dataclass(frozen=True)
class Drive:
    """Episodes driven side by side, one in each environment, until all have ended.

    Attributes:
        observations: (T, N, O) what was seen before each step. actions: (T, N) executed.
        running: (T, N) bool; False after an episode has ended.
    """

    observations: np.ndarray
    actions: np.ndarray
    running: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        """(N,) steps survived: CartPole pays 1 for each."""
        return self.running.sum(axis=0)

    def rows(self) -> np.ndarray:
        """(n, O) every observation in which an action was taken, episode after episode."""
        return self.observations.transpose(1, 0, 2)[self.running.T]


def drive(
    controller: Controller,
    episodes: int,
    *,
    seed: int,
    noise: float = 0.0,
    max_steps: int | None = None,
    env_id: str = "CartPole-v1",
) -> Drive:
    """Run `controller` in `episodes` environments; with chance `noise` a step is random instead."""
    rng = np.random.default_rng(seed)
    env = make_vector_env(env_id, episodes, max_steps)
    observation, _ = env.reset(seed=seed)
    n_actions = space_sizes(env)[1]
    running = np.ones(episodes, dtype=bool)
    seen, taken, alive = [], [], []
    while running.any():
        actions = controller(observation)
        random = rng.integers(n_actions, size=episodes)
        actions = np.where(rng.random(episodes) < noise, random, actions)
        seen.append(observation.copy())
        taken.append(actions)
        alive.append(running.copy())
        observation, _, terminated, truncated, _ = env.step(actions)
        running &= ~(terminated | truncated)
    env.close()
    return Drive(np.array(seen, dtype=np.float64), np.array(taken), np.array(alive))


def dagger_network(
    expert: Controller,
    budget: int,
    *,
    rounds: int,
    seed: int,
    n_actions: int = 2,
    config: CloneConfig | None = None,
    env_id: str = "CartPole-v1",
    episodes: int = 8,
) -> CloneResult:
    """DAgger with `budget` labels in all, the same number in each round.

    Round 0 labels states of the expert; each later round lets the network drive and labels a
    random choice of the states that it met.
    """
    if not 1 <= rounds <= budget:
        raise InvalidHyperparameterError(f"rounds must lie in 1..budget; got {rounds}, {budget}.")
    rng = np.random.default_rng(seed)
    shares = np.diff(np.linspace(0, budget, rounds + 1).astype(int))
    controller, seen = expert, []
    clones: list[CloneResult] = []
    for i, share in enumerate(shares):
        met = drive(controller, episodes, seed=1000 * seed + i, env_id=env_id).rows()
        seen.append(met[rng.choice(len(met), size=min(share, len(met)), replace=False)])
        x = np.concatenate(seen)
        clones.append(clone_network(x, expert(x), n_actions, config, seed=seed))
        controller = clones[-1].act
    return clones[-1]
