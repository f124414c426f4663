"""Proximal policy optimisation with GAE, for vector environments with discrete actions.

Read top to bottom: settings, networks, the loss, the rollout, the loop, the evaluation.
The same algorithm, with tokens for actions, is the PPO of RLHF.

Source: Schulman et al. 2017 (arXiv 1707.06347), eq 7; GAE from Schulman et al. 2016.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from irlbook.errors import InvalidHyperparameterError, UnsupportedEnvironmentError
from irlbook.rl.advantages import gae

__all__ = [
    "ActorCritic",
    "PPOConfig",
    "PPOResult",
    "Rollout",
    "clipped_policy_loss",
    "collect",
    "evaluate",
    "make_vector_env",
    "ppo",
    "sample_actions",
    "space_sizes",
]


@dataclass(frozen=True)
class PPOConfig:
    """Hyper-parameters of PPO. The defaults solve CartPole-v1."""

    env_id: str = "CartPole-v1"  # a Gymnasium id; observations in a box, actions discrete
    num_envs: int = 32  # environments stepped side by side
    num_steps: int = 32  # steps of each environment between two updates
    total_steps: int = 120_000  # environment steps in all, at most
    discount: float = 0.98  # gamma
    lam: float = 0.9  # GAE's lambda: 0 trusts the critic, 1 trusts the return
    epochs: int = 10  # passes over each batch
    minibatch: int = 512  # samples in a gradient step
    learning_rate: float = 2e-3  # Adam's, at the start
    anneal: bool = True  # lower the learning rate linearly to 0 over total_steps
    clip: float = 0.2  # the ratio may leave [1 - clip, 1 + clip] only against its interest
    target_kl: float | None = 0.01  # end a batch's epochs once KL(old || new) is above this
    entropy_weight: float = 0.0  # bonus for staying random
    value_weight: float = 0.5  # weight of the critic's squared error
    max_grad_norm: float = 0.5  # gradients longer than this are shortened to it
    hidden: int = 64  # units in each of two tanh layers
    stop_return: float | None = 490.0  # stop once `stop_window` training episodes average this much
    stop_window: int = 50  # how many of the latest training episodes that average is over

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "total_steps", "epochs", "minibatch", "hidden"):
            if getattr(self, name) < 1:
                raise InvalidHyperparameterError(f"{name} must be at least 1.")
        for name in ("discount", "lam"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidHyperparameterError(f"{name} must lie in [0, 1].")
        if self.clip <= 0.0 or self.learning_rate <= 0.0:
            raise InvalidHyperparameterError("clip and learning_rate must be positive.")


@dataclass
class PPOResult:
    """What a run leaves: the agent, every training episode, and one row of numbers per update."""

    agent: "ActorCritic"
    episode_steps: np.ndarray  # (E,) environment steps done when the episode ended
    episode_returns: np.ndarray  # (E,) undiscounted sum of its rewards
    stopped_early: bool  # the training return reached config.stop_return
    steps: int  # environment steps used
    log: dict[str, np.ndarray] = field(default_factory=dict)  # (U,) each; see `ppo`


class ActorCritic(nn.Module):
    """Two separate networks: a policy (logits of each action) and a value of the observation."""

    def __init__(self, observation_size: int, n_actions: int, hidden: int = 64):
        super().__init__()
        self.actor = _mlp(observation_size, hidden, n_actions, last_gain=0.01)
        self.critic = _mlp(observation_size, hidden, 1, last_gain=1.0)

    def log_probs(self, observations: torch.Tensor) -> torch.Tensor:
        """(B, O) -> (B, A) log pi(a|s) of every action."""
        return torch.log_softmax(self.actor(observations), dim=-1)

    def values(self, observations: torch.Tensor) -> torch.Tensor:
        """(B, O) -> (B,) V(s)."""
        return self.critic(observations).squeeze(-1)


def _mlp(n_in: int, hidden: int, n_out: int, last_gain: float) -> nn.Sequential:
    layers = [nn.Linear(n_in, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, n_out)]
    for layer, gain in zip(layers, (2**0.5, 2**0.5, last_gain), strict=True):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def clipped_policy_loss(
    log_probs: torch.Tensor, old_log_probs: torch.Tensor, advantages: torch.Tensor, clip: float
) -> torch.Tensor:
    """PPO's surrogate, as a loss to minimise.

    ratio = pi(a|s) / pi_old(a|s);  loss = -mean min(ratio * A, clamp(ratio, 1-clip, 1+clip) * A).
    The gradient of a sample is zero exactly when A > 0 and ratio > 1 + clip, or A < 0 and
    ratio < 1 - clip: where the policy has already moved far enough the way A asks.

    Args:
        log_probs: (B,) log pi(a|s) under the policy being trained; carries the gradient.
        old_log_probs: (B,) log-probability at the time the action was taken; no gradient.
        advantages: (B,); no gradient.
        clip: half-width of the interval.

    Returns:
        Scalar loss.

    Source: Schulman et al. 2017, eq 7; chapter 2, eq 2.16.
    """
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = torch.clamp(ratio, 1.0 - clip, 1.0 + clip)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


@dataclass
class Rollout:
    """T steps of N environments. Where `valid` is False the step was only an automatic reset."""

    observations: np.ndarray  # (T + 1, N, O); row t + 1 is what step t led to
    actions: np.ndarray  # (T, N)
    rewards: np.ndarray  # (T, N)
    terminated: np.ndarray  # (T, N) bool
    truncated: np.ndarray  # (T, N) bool
    valid: np.ndarray  # (T, N) bool


def make_vector_env(
    env_id: str, num_envs: int, max_episode_steps: int | None = None
) -> gym.vector.VectorEnv:
    """A vector environment that resets on the step after an episode ends (Gymnasium's NEXT_STEP).

    Takes the environment's own NumPy vector version where there is one (CartPole has one: many
    times faster), else one Python object per environment.

    Args:
        max_episode_steps: truncate episodes after so many steps; None keeps the env's own limit.

    Raises:
        UnsupportedEnvironmentError: observations are not a flat box, actions are not discrete, or
            the environment resets in another mode, in which the final observation of an episode
            would be lost.
    """
    own = gym.spec(env_id).vector_entry_point is not None
    limit: dict[str, Any] = (
        {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    )
    env = gym.make_vec(env_id, num_envs, "vector_entry_point" if own else "sync", **limit)
    box, actions = env.single_observation_space, env.single_action_space
    if not isinstance(box, gym.spaces.Box) or len(box.shape) != 1:
        raise UnsupportedEnvironmentError(
            f"{env_id} observes {box}; this PPO wants a flat Box. "
            "Wrap it with gymnasium.wrappers.FlattenObservation."
        )
    if not isinstance(actions, gym.spaces.Discrete):
        raise UnsupportedEnvironmentError(f"{env_id} acts in {actions}; this PPO wants Discrete.")
    mode = env.metadata.get("autoreset_mode")
    if mode != gym.vector.AutoresetMode.NEXT_STEP:
        raise UnsupportedEnvironmentError(
            f"{env_id} resets in mode {mode}; this PPO reads the final observation of an episode "
            "from the row after it, which only AutoresetMode.NEXT_STEP gives."
        )
    return env


def space_sizes(env: gym.vector.VectorEnv) -> tuple[int, int]:
    """Observations O and actions A of an environment that `make_vector_env` has checked."""
    box: Any = env.single_observation_space
    actions: Any = env.single_action_space
    return int(box.shape[0]), int(actions.n)


def sample_actions(
    agent: ActorCritic, observations: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One action per row, drawn from the policy: the Gumbel trick, argmax(logits + noise)."""
    with torch.inference_mode():
        logits = agent.actor(torch.from_numpy(observations)).numpy()
    return np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1)


def collect(
    env: gym.vector.VectorEnv,
    agent: ActorCritic,
    observation: np.ndarray,
    previous_done: np.ndarray,
    num_steps: int,
    rng: np.random.Generator,
) -> Rollout:
    """Act for `num_steps` steps in every environment.

    The step after an episode has ended ignores its action and only resets: it is marked invalid,
    and nothing may be learned from it.

    Args:
        observation: (N, O) where the environments stand.
        previous_done: (N,) bool, the last step ended an episode there.
    """
    n = env.num_envs
    out = Rollout(
        observations=np.empty((num_steps + 1, *observation.shape), dtype=np.float32),
        actions=np.empty((num_steps, n), dtype=np.int64),
        rewards=np.empty((num_steps, n)),
        terminated=np.empty((num_steps, n), dtype=bool),
        truncated=np.empty((num_steps, n), dtype=bool),
        valid=np.empty((num_steps, n), dtype=bool),
    )
    out.observations[0] = observation
    for t in range(num_steps):
        out.valid[t] = ~previous_done
        out.actions[t] = sample_actions(agent, out.observations[t], rng)
        step = env.step(out.actions[t])
        out.observations[t + 1], out.rewards[t], out.terminated[t], out.truncated[t], _ = step
        previous_done = out.terminated[t] | out.truncated[t]
    return out


def ppo(
    config: PPOConfig | None = None, *, seed: int, estimator: Callable[..., np.ndarray] = gae
) -> PPOResult:
    """Train an agent.

    Args:
        config: hyper-parameters; None takes the defaults.
        seed: of the networks, the environments, the actions and the minibatches.
        estimator: of the advantages; called as `gae` is. Another one shows what a bug would do.

    Returns:
        A PPOResult. Its log has, per update: "steps", "learning_rate", "policy_loss",
        "value_loss", "entropy" (nats), "kl" (estimate of KL(old || new) after the update),
        "clip_fraction" (share of samples whose gradient the clip cut), "first_ratio_error"
        (largest |ratio - 1| in the first minibatch: 0 up to rounding, or something is wrong) and
        "explained_variance" (1: the critic predicts its targets; 0: no better than their mean).

    Raises:
        UnsupportedEnvironmentError: see `make_vector_env`.
    """
    config = config or PPOConfig()
    rng = np.random.default_rng(seed)
    env = make_vector_env(config.env_id, config.num_envs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = ActorCritic(*space_sizes(env), config.hidden)
    optimizer = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)

    observation, _ = env.reset(seed=seed)
    previous_done = np.zeros(config.num_envs, dtype=bool)
    running = np.zeros(config.num_envs)  # return so far of each unfinished episode
    latest: deque[float] = deque(maxlen=config.stop_window)
    episode_steps, episode_returns = [], []
    log: dict[str, list[float]] = {}
    steps, stopped_early = 0, False

    while steps < config.total_steps:
        # 1. act
        batch = collect(env, agent, observation, previous_done, config.num_steps, rng)
        observation = batch.observations[-1]
        previous_done = batch.terminated[-1] | batch.truncated[-1]
        for t in range(config.num_steps):
            running += batch.rewards[t] * batch.valid[t]
            for i in np.flatnonzero(batch.terminated[t] | batch.truncated[t]):
                episode_steps.append(steps + (t + 1) * config.num_envs)
                episode_returns.append(running[i])
                latest.append(running[i])
                running[i] = 0.0
        steps += config.num_steps * config.num_envs
        stopped_early = (
            config.stop_return is not None
            and len(latest) == config.stop_window
            and float(np.mean(latest)) >= config.stop_return
        )
        if stopped_early:  # keep the policy that has just earned this; another update may spoil it
            break

        # 2. judge the actions
        everything = torch.from_numpy(batch.observations)  # (T + 1, N, O)
        with torch.no_grad():
            values = agent.values(everything).numpy().astype(np.float64)  # (T + 1, N)
        advantages = estimator(
            batch.rewards,
            values[:-1],
            values[1:],  # row t + 1 is the final observation where step t ended an episode
            batch.terminated,
            batch.truncated,
            discount=config.discount,
            lam=config.lam,
        )
        targets = advantages + values[:-1]

        # 3. keep only what was really done: (T, N) -> (M,)
        keep = batch.valid
        obs = everything[:-1][torch.from_numpy(keep)]  # (M, O)
        act = torch.from_numpy(batch.actions[keep])
        adv = torch.from_numpy(advantages[keep].astype(np.float32))
        target = torch.from_numpy(targets[keep].astype(np.float32))
        with torch.no_grad():
            old_log_probs = agent.log_probs(obs).gather(1, act[:, None]).squeeze(1)

        # 4. improve the policy, but not too far from the one that acted
        left = 1.0 - (steps - config.num_steps * config.num_envs) / config.total_steps
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (left if config.anneal else 1.0)
        row = {"steps": steps, "learning_rate": optimizer.param_groups[0]["lr"]}
        for epoch in range(config.epochs):
            moved = 0.0  # estimate of KL(old || new), summed over the samples of this epoch
            order = torch.from_numpy(rng.permutation(len(obs)))
            for start in range(0, len(obs), config.minibatch):
                pick = order[start : start + config.minibatch]
                all_log_probs = agent.log_probs(obs[pick])  # (B, A)
                log_probs = all_log_probs.gather(1, act[pick][:, None]).squeeze(1)  # (B,)
                a = adv[pick]
                a = (a - a.mean()) / (a.std() + 1e-8) if len(a) > 1 else a
                policy_loss = clipped_policy_loss(log_probs, old_log_probs[pick], a, config.clip)
                value_loss = (agent.values(obs[pick]) - target[pick]).square().mean()
                entropy = -(all_log_probs.exp() * all_log_probs).sum(-1).mean()
                loss = (
                    policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
                )
                log_ratio = log_probs.detach() - old_log_probs[pick]
                change = log_ratio.exp() - 1.0
                moved += float((change - log_ratio).sum())
                if epoch == 0 and start == 0:
                    row["first_ratio_error"] = float(change.abs().max())
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), config.max_grad_norm)
                optimizer.step()
            if config.target_kl is not None and moved / len(obs) > config.target_kl:
                break

        # 5. write down how it went
        with torch.no_grad():
            log_ratio = agent.log_probs(obs).gather(1, act[:, None]).squeeze(1) - old_log_probs
            ratio = log_ratio.exp()
            cut = torch.where(adv > 0, ratio > 1 + config.clip, ratio < 1 - config.clip)
        row["policy_loss"], row["value_loss"] = policy_loss.item(), value_loss.item()
        row["entropy"] = entropy.item()
        row["kl"] = float((ratio - 1 - log_ratio).mean())
        row["clip_fraction"] = float(cut.float().mean())
        residual = targets[keep] - values[:-1][keep]
        row["explained_variance"] = 1.0 - residual.var() / max(targets[keep].var(), 1e-12)
        for name, value in row.items():
            log.setdefault(name, []).append(value)

    env.close()
    return PPOResult(
        agent=agent,
        episode_steps=np.array(episode_steps),
        episode_returns=np.array(episode_returns),
        stopped_early=bool(stopped_early),
        steps=steps,
        log={name: np.array(values) for name, values in log.items()},
    )


def evaluate(
    agent: ActorCritic,
    env_id: str = "CartPole-v1",
    *,
    episodes: int = 100,
    seed: int,
    greedy: bool = False,
) -> np.ndarray:
    """Undiscounted returns of fresh episodes, one in each of `episodes` environments.

    Args:
        greedy: take the likeliest action instead of drawing one.

    Returns:
        (episodes,) returns.
    """
    rng = np.random.default_rng(seed)
    env = make_vector_env(env_id, episodes)
    observation, _ = env.reset(seed=seed)
    returns, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while running.any():
        if greedy:
            with torch.inference_mode():
                logits = agent.actor(torch.from_numpy(observation.astype(np.float32)))
            actions = logits.argmax(-1).numpy()
        else:
            actions = sample_actions(agent, observation.astype(np.float32), rng)
        observation, rewards, terminated, truncated, _ = env.step(actions)
        returns += rewards * running
        running &= ~(terminated | truncated)
    env.close()
    return returns
