"""GAIL with networks: PPO on a reward that a discriminator learns at the same time.

Read top to bottom: settings, the discriminator, its loss, the loop. The policy step is the PPO of
`irlbook.rl.ppo`; the environment's own reward is never read.

Source: Ho & Ermon 2016, algorithm 1 (with PPO for TRPO).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from irlbook.errors import InvalidHyperparameterError
from irlbook.imitation.networks import ScaledNetwork, check_labels
from irlbook.rl.advantages import gae
from irlbook.rl.ppo import ActorCritic, clipped_policy_loss, collect, make_vector_env


@dataclass(frozen=True)
class GAILConfig:
    """Hyper-parameters. The defaults suit CartPole-v1 and a few hundred expert pairs."""

    env_id: str = "CartPole-v1"
    num_envs: int = 32  # environments stepped side by side
    num_steps: int = 32  # steps of each between two updates
    updates: int = 80  # rounds of the game
    discount: float = 0.98  # gamma
    lam: float = 0.9  # GAE's lambda
    epochs: int = 6  # passes of the policy over each batch
    minibatch: int = 256
    learning_rate: float = 2e-3  # of the policy, falling linearly to 0
    clip: float = 0.2  # PPO's
    hidden: int = 64
    discriminator_steps: int = 4  # gradient steps of the discriminator a round
    discriminator_rate: float = 3e-3
    discriminator_decay: float = 1e-2  # weight decay: keeps it from learning single points by heart
    form: str = "-log(1-D)"  # or "logit", or "log D"; see adversarial.discriminator_reward

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "updates", "epochs", "minibatch", "hidden"):
            if getattr(self, name) < 1:
                raise InvalidHyperparameterError(f"{name} must be at least 1.")
        if self.form not in ("-log(1-D)", "logit", "log D"):
            raise InvalidHyperparameterError(f"form {self.form!r} is not known.")


@dataclass
class GAILResult:
    """The agent, and per update: "loss" and "accuracy" of the discriminator, "survived" steps."""

    agent: ActorCritic
    steps: int  # environment steps used
    log: dict[str, np.ndarray] = field(default_factory=dict)


class Discriminator(ScaledNetwork):
    """Scores (B,) of pairs: positive looks like the expert. D = sigma(score)."""

    def forward(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        scores = super().forward(observations)
        return scores.gather(1, actions[:, None]).squeeze(1)


def discriminator_loss(expert: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
    """-mean log D over the expert's scores - mean log(1 - D) over the policy's.

    2 log 2 when nothing can be told apart.
    """
    return nn.functional.softplus(-expert).mean() + nn.functional.softplus(policy).mean()


def scores_to_reward(scores: torch.Tensor, form: str) -> torch.Tensor:
    """`adversarial.discriminator_reward` on scores: exact also where D rounds to 0 or 1."""
    if form == "-log(1-D)":
        return nn.functional.softplus(scores)
    return scores if form == "logit" else -nn.functional.softplus(-scores)


def gail(
    observations: np.ndarray,
    actions: np.ndarray,
    config: GAILConfig | None = None,
    *,
    seed: int,
) -> GAILResult:
    """Imitate the pairs, with access to the environment but not to its reward.

    Args:
        observations (n, O), actions (n,): what the expert saw and did.
        seed: of networks, environments, actions and minibatches.

    Raises:
        InvalidTrajectoryError: the pairs are malformed. UnsupportedEnvironmentError: see ppo.
    """
    config = config or GAILConfig()
    rng = np.random.default_rng(seed)
    env = make_vector_env(config.env_id, config.num_envs)
    n_actions = int(env.single_action_space.n)
    x, y = check_labels(observations, actions, n_actions)
    expert_x, expert_y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)
    scale = x.std(axis=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = ActorCritic(x.shape[1], n_actions, config.hidden)
        judge = Discriminator(
            x.mean(axis=0), np.where(scale > 1e-6, scale, 1.0), n_actions, config.hidden
        )
    policy_adam = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=1e-5)
    judge_adam = torch.optim.AdamW(
        judge.parameters(), lr=config.discriminator_rate, weight_decay=config.discriminator_decay
    )
    observation, _ = env.reset(seed=seed)
    previous_done = np.zeros(config.num_envs, dtype=bool)
    log: dict[str, list[float]] = {"loss": [], "accuracy": [], "survived": []}
    for update in range(config.updates):
        # 1. act
        batch = collect(
            env, agent, observation.astype(np.float32), previous_done, config.num_steps, rng
        )
        observation = batch.observations[-1]
        previous_done = batch.terminated[-1] | batch.truncated[-1]
        keep = torch.from_numpy(batch.valid)
        everything = torch.from_numpy(batch.observations)
        obs, act = everything[:-1][keep], torch.from_numpy(batch.actions)[keep]

        # 2. the discriminator learns to tell the two apart
        for _ in range(config.discriminator_steps):
            loss = discriminator_loss(judge(expert_x, expert_y), judge(obs, act))
            judge_adam.zero_grad()
            loss.backward()
            judge_adam.step()
        with torch.no_grad():
            on_expert, on_policy = judge(expert_x, expert_y), judge(obs, act)
            loss = discriminator_loss(on_expert, on_policy)
        right = ((on_expert > 0).float().mean() + (on_policy < 0).float().mean()) / 2
        log["loss"].append(loss.item())
        log["accuracy"].append(right.item())
        ends = (batch.terminated | batch.truncated).sum()
        log["survived"].append(float(batch.valid.sum() / max(ends, 1)))

        # 3. it pays the policy
        with torch.no_grad():
            paid = torch.zeros(keep.shape)
            paid[keep] = scores_to_reward(judge(obs, act), config.form)
            values = agent.values(everything).numpy().astype(np.float64)
            old = agent.log_probs(obs).gather(1, act[:, None]).squeeze(1)
        estimated = gae(
            paid.numpy().astype(np.float64),
            values[:-1],
            values[1:],
            batch.terminated,
            batch.truncated,
            discount=config.discount,
            lam=config.lam,
        )
        advantage = torch.from_numpy(estimated[batch.valid].astype(np.float32))
        target = torch.from_numpy((estimated + values[:-1])[batch.valid].astype(np.float32))

        # 4. PPO
        for group in policy_adam.param_groups:
            group["lr"] = config.learning_rate * (1.0 - update / config.updates)
        for _ in range(config.epochs):
            order = torch.from_numpy(rng.permutation(len(obs)))
            for pick in order.split(config.minibatch):
                log_probs = agent.log_probs(obs[pick]).gather(1, act[pick][:, None]).squeeze(1)
                a = advantage[pick]
                a = (a - a.mean()) / (a.std() + 1e-8) if len(a) > 1 else a
                cost = clipped_policy_loss(log_probs, old[pick], a, config.clip)
                cost = cost + 0.5 * (agent.values(obs[pick]) - target[pick]).square().mean()
                policy_adam.zero_grad()
                cost.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                policy_adam.step()
    env.close()
    return GAILResult(
        agent,
        config.updates * config.num_steps * config.num_envs,
        {name: np.array(values) for name, values in log.items()},
    )
