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
from irlbook.rl.ppo import ActorCritic, clipped_policy_loss, collect, make_vector_env, space_sizes

__all__ = [
    "Discriminator",
    "GAILConfig",
    "GAILResult",
    "Squash",
    "discriminator_loss",
    "gail",
    "gradient_penalty",
    "scores_to_reward",
]


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
    discriminator_batch: int | None = None  # policy pairs a gradient step; None takes all
    discriminator_anneal: bool = False  # let its learning rate fall to 0, too: the game settles
    gradient_penalty: float = 0.0  # times the squared slope of D's score; see `gradient_penalty`
    form: str = "-log(1-D)"  # or "logit", or "log D"; see adversarial.discriminator_reward
    units: tuple[float, ...] | None = None  # see `Squash`; None: as they come, D by the expert's

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "updates", "epochs", "minibatch", "hidden"):
            if getattr(self, name) < 1:
                raise InvalidHyperparameterError(f"{name} must be at least 1.")
        if self.discriminator_batch is not None and self.discriminator_batch < 1:
            raise InvalidHyperparameterError("discriminator_batch must be at least 1, or None.")
        if self.gradient_penalty < 0:
            raise InvalidHyperparameterError("gradient_penalty must not be negative.")
        if self.units is not None and not all(unit > 0 for unit in self.units):
            raise InvalidHyperparameterError("units must be positive, one for each observation.")
        if self.form not in ("-log(1-D)", "logit", "log D"):
            raise InvalidHyperparameterError(f"form {self.form!r} is not known.")


@dataclass
class GAILResult:
    """The agent, and one number per update of each of these.

    "loss" and "accuracy" of the discriminator after its steps; "survived": steps per episode that
    ended; "true_reward": the environment's own reward per step, which is recorded and never used.
    """

    agent: ActorCritic
    steps: int  # environment steps used
    log: dict[str, np.ndarray] = field(default_factory=dict)


class Squash(nn.Module):
    """Observations in units of `units`, cut off at five of them.

    Where nothing ends an episode, a cart that is driven to one side is soon a hundred metres away.
    To a network such numbers would hide everything else.
    """

    LIMIT = 5.0

    def __init__(self, units: tuple[float, ...]) -> None:
        super().__init__()
        self.units: torch.Tensor
        self.register_buffer("units", torch.tensor(units, dtype=torch.float32))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return (observations / self.units).clamp(-self.LIMIT, self.LIMIT)


class Discriminator(nn.Module):
    """Scores (B,) of pairs: positive looks like the expert. D = sigma(score), at first 1/2."""

    def __init__(self, mean: np.ndarray, scale: np.ndarray, n_actions: int, hidden: int):
        super().__init__()
        self.network = ScaledNetwork(mean, scale, n_actions, hidden)
        for parameter in self.network.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        scores = self.network(observations)  # (B, A)
        return scores.gather(1, actions[:, None]).squeeze(1)


def discriminator_loss(expert: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
    """-mean log D over the expert's scores - mean log(1 - D) over the policy's.

    2 log 2 when nothing can be told apart.
    """
    return nn.functional.softplus(-expert).mean() + nn.functional.softplus(policy).mean()


def gradient_penalty(
    judge: Discriminator,
    expert: tuple[torch.Tensor, torch.Tensor],
    policy: tuple[torch.Tensor, torch.Tensor],
    mix: torch.Tensor,
) -> torch.Tensor:
    """Mean squared slope of the score in the observation, on lines between the two kinds of pairs.

    It keeps the discriminator from drawing a steep wall around the few expert pairs: a policy that
    comes nearer is paid for it.

    Args:
        expert, policy: observations (B, O) and actions (B,), pair by pair. A point on the line has
            the action of the end that it is nearer to.
        mix: (B,) in [0, 1], the weight of the expert's end.

    Source: Gulrajani et al. 2017, with target 0 as in Mescheder et al. 2018.
    """
    between = mix[:, None] * expert[0] + (1 - mix[:, None]) * policy[0]
    between = between.detach().requires_grad_()
    actions = torch.where(mix > 0.5, expert[1], policy[1])
    (slope,) = torch.autograd.grad(judge(between, actions).sum(), between, create_graph=True)
    return slope.square().sum(dim=1).mean()


def _teach(
    judge: Discriminator,
    optimizer: torch.optim.Optimizer,
    expert: tuple[torch.Tensor, torch.Tensor],
    policy: tuple[torch.Tensor, torch.Tensor],
    config: GAILConfig,
    rng: np.random.Generator,
) -> None:
    """The discriminator's gradient steps of one round.

    Args:
        expert, policy: observations (n, O) and actions (n,) of each kind.
    """
    for _ in range(config.discriminator_steps):
        seen, done = policy
        if config.discriminator_batch is not None:
            pick = torch.from_numpy(rng.integers(len(seen), size=config.discriminator_batch))
            seen, done = seen[pick], done[pick]
        loss = discriminator_loss(judge(*expert), judge(seen, done))
        if config.gradient_penalty:
            at = torch.from_numpy(rng.integers(len(expert[0]), size=len(seen)))
            mix = torch.from_numpy(rng.random(len(seen))).float()
            slope = gradient_penalty(judge, (expert[0][at], expert[1][at]), (seen, done), mix)
            loss = loss + config.gradient_penalty * slope
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


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
    rounds: int | None = None,
) -> GAILResult:
    """Imitate the pairs, with access to the environment but not to its reward.

    Where all episodes have the same length, take `num_steps` one above it (the last step starts
    anew). The environments are in step with one another, so a shorter batch would hold one
    stretch of the clock only: the discriminator would learn what a late pair looks like.

    Args:
        observations (n, O), actions (n,): what the expert saw and did.
        seed: of networks, environments, actions and minibatches.
        rounds: stop after so many of `config.updates`: the beginning of the same run.

    Raises:
        InvalidTrajectoryError: the pairs are malformed. UnsupportedEnvironmentError: see ppo.
    """
    config = config or GAILConfig()
    rng = np.random.default_rng(seed)
    env = make_vector_env(config.env_id, config.num_envs)
    n_actions = space_sizes(env)[1]
    x, y = check_labels(observations, actions, n_actions)
    expert_x, expert_y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = ActorCritic(x.shape[1], n_actions, config.hidden)
        if config.units is None:
            squash: nn.Module = nn.Identity()
            spread = x.std(axis=0)
            centre, scale = x.mean(axis=0), np.where(spread > 1e-6, spread, 1.0)
        else:
            squash = Squash(config.units)
            agent.actor = nn.Sequential(squash, *agent.actor)
            agent.critic = nn.Sequential(squash, *agent.critic)
            centre, scale = np.zeros(x.shape[1]), np.ones(x.shape[1])
        judge = Discriminator(centre, scale, n_actions, config.hidden)
    expert_x = squash(expert_x)
    policy_adam = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=1e-5)
    judge_adam = torch.optim.AdamW(
        judge.parameters(), lr=config.discriminator_rate, weight_decay=config.discriminator_decay
    )
    observation, _ = env.reset(seed=seed)
    previous_done = np.zeros(config.num_envs, dtype=bool)
    log: dict[str, list[float]] = {
        name: [] for name in ("loss", "accuracy", "survived", "true_reward")
    }
    planned = config.updates if rounds is None else min(rounds, config.updates)
    for update in range(planned):
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
        left = 1.0 - update / config.updates
        shown = squash(obs)
        for group in judge_adam.param_groups:
            group["lr"] = config.discriminator_rate * (left if config.discriminator_anneal else 1.0)
        _teach(judge, judge_adam, (expert_x, expert_y), (shown, act), config, rng)
        with torch.no_grad():
            on_expert, on_policy = judge(expert_x, expert_y), judge(shown, act)
            loss = discriminator_loss(on_expert, on_policy)
        right = 0.5 + (on_expert.sign().mean() - on_policy.sign().mean()) / 4  # a tie is half right
        log["loss"].append(loss.item())
        log["accuracy"].append(right.item())
        ended = (batch.terminated | batch.truncated).sum()
        log["survived"].append(float(batch.valid.sum() / max(ended, 1)))
        log["true_reward"].append(float(batch.rewards[batch.valid].mean()))

        # 3. it pays the policy
        with torch.no_grad():
            paid = torch.zeros(keep.shape)
            paid[keep] = scores_to_reward(on_policy, config.form)
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
            group["lr"] = config.learning_rate * left
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
        planned * config.num_steps * config.num_envs,
        {name: np.array(values) for name, values in log.items()},
    )
