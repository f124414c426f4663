"""REINFORCE: the plain policy gradient, with or without a learned baseline.

Play whole episodes, weigh each action's log-probability by the return that followed, take one
gradient step, throw the episodes away.

Source: Williams 1992; Sutton and Barto 2018, sections 13.3 and 13.4.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from irlbook.errors import InvalidHyperparameterError
from irlbook.rl.advantages import returns_to_go
from irlbook.rl.ppo import ActorCritic, make_vector_env, sample_actions, space_sizes

__all__ = ["ReinforceConfig", "ReinforceResult", "play_episodes", "reinforce", "reinforce_loss"]


@dataclass(frozen=True)
class ReinforceConfig:
    """Hyper-parameters of REINFORCE."""

    env_id: str = "CartPole-v1"  # a Gymnasium id; observations in a flat box, actions discrete
    episodes_per_update: int = 16  # played side by side, each to its end
    updates: int = 60  # gradient steps
    discount: float = 0.99  # gamma inside the return to go; see `reinforce`
    learning_rate: float = 5e-3  # Adam's
    baseline: bool = True  # subtract a learned V(s); False subtracts nothing
    value_steps: int = 5  # gradient steps on the critic per update
    value_batch: int = 512  # samples of the batch in each of them
    max_episode_steps: int | None = None  # cut episodes here; None keeps the env's own limit
    hidden: int = 64  # units in each of two tanh layers

    def __post_init__(self) -> None:
        if self.episodes_per_update < 1 or self.updates < 1:
            raise InvalidHyperparameterError("episodes_per_update and updates must be at least 1.")
        if not 0.0 <= self.discount <= 1.0:
            raise InvalidHyperparameterError(f"discount is {self.discount}; it must lie in [0, 1].")


@dataclass
class ReinforceResult:
    """The agent, and one row per update."""

    agent: ActorCritic
    mean_returns: np.ndarray  # (updates,) mean undiscounted return of the batch's episodes
    gradient_norms: np.ndarray  # (updates,) length of the policy gradient
    episodes: list[np.ndarray] = field(default_factory=list)  # per update (N,) returns
    steps: int = 0  # environment steps used


def reinforce_loss(log_probs: torch.Tensor, weights: torch.Tensor, episodes: int) -> torch.Tensor:
    """-1/N sum over all steps of log pi(a_t|s_t) * weight_t: its gradient is the estimate, negated.

    Args:
        log_probs: (M,) of every action of N episodes; carries the gradient.
        weights: (M,) return to go, minus a baseline if there is one; no gradient.
        episodes: N.

    Source: chapter 2, eq 2.10.
    """
    return -(log_probs * weights).sum() / episodes


def play_episodes(
    env, agent: ActorCritic, seed: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One episode in each environment.

    Returns:
        observations (T, N, O), actions (T, N), rewards (T, N), playing (T, N) bool. T is the length
        of the longest; where `playing` is False the episode was over before the step (and the
        reward is set to 0).
    """
    observation, _ = env.reset(seed=seed)
    playing = np.ones(env.num_envs, dtype=bool)
    rows: list[tuple[np.ndarray, ...]] = []
    while playing.any():
        observation = observation.astype(np.float32)
        actions = sample_actions(agent, observation, rng)
        following, rewards, terminated, truncated, _ = env.step(actions)
        rows.append((observation, actions, rewards * playing, playing))
        playing = playing & ~(terminated | truncated)
        observation = following
    seen, taken, paid, played = (np.stack(column) for column in zip(*rows, strict=True))
    return seen, taken, paid, played


def reinforce(config: ReinforceConfig | None = None, *, seed: int) -> ReinforceResult:
    """Train a policy.

    As nearly all code does, the factor discount^t in front of step t is left out: then the
    discount only shortens the return to go, and the gradient is not exactly that of any
    discounted objective (chapter 2 shows the exact one on a small MDP).
    An episode cut by the clock counts as ended: the objective is the return before the limit.

    Args:
        config: hyper-parameters; None takes the defaults.
        seed: of the networks, the environments and the actions.

    Returns:
        A ReinforceResult.
    """
    config = config or ReinforceConfig()
    rng = np.random.default_rng(seed)
    env = make_vector_env(config.env_id, config.episodes_per_update, config.max_episode_steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = ActorCritic(*space_sizes(env), config.hidden)
    actor = torch.optim.Adam(agent.actor.parameters(), lr=config.learning_rate)
    critic = torch.optim.Adam(agent.critic.parameters(), lr=config.learning_rate)
    result = ReinforceResult(agent, np.zeros(config.updates), np.zeros(config.updates))

    for update in range(config.updates):
        observations, actions, rewards, playing = play_episodes(
            env, agent, seed if update == 0 else None, rng
        )
        returns = returns_to_go(rewards, config.discount)  # (T, N); rewards after the end are 0
        obs = torch.from_numpy(observations[playing])  # (M, O)
        act = torch.from_numpy(actions[playing])  # (M,)
        g = torch.from_numpy(returns[playing].astype(np.float32))  # (M,)
        weights = g
        if config.baseline:
            with torch.no_grad():
                weights = g - agent.values(obs)
        log_probs = agent.log_probs(obs).gather(1, act[:, None]).squeeze(1)
        loss = reinforce_loss(log_probs, weights, config.episodes_per_update)
        actor.zero_grad()
        loss.backward()
        actor.step()
        if config.baseline:
            for _ in range(config.value_steps):
                pick = torch.from_numpy(rng.integers(len(obs), size=config.value_batch))
                critic.zero_grad()
                (agent.values(obs[pick]) - g[pick]).square().mean().backward()
                critic.step()
        slopes = [p.grad for p in agent.actor.parameters() if p.grad is not None]
        norm = sum(float(g.square().sum()) for g in slopes) ** 0.5
        result.gradient_norms[update] = norm
        result.episodes.append(rewards.sum(axis=0))
        result.mean_returns[update] = result.episodes[-1].mean()
        result.steps += int(playing.sum())
    env.close()
    return result
