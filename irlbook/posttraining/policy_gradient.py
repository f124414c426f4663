"""Policy gradients for language models: advantages, the clipped surrogate, length normalisation.

A method is a choice from each column; nothing else sets the published ones apart.

| method    | advantage of response i           | tokens averaged by | clip                  |
|-----------|-----------------------------------|--------------------|-----------------------|
| REINFORCE | r_i - b                           | constant 1 (sum)   | none                  |
| ReMax     | r_i - r(greedy response)          | constant 1 (sum)   | none                  |
| RLOO      | r_i - mean of the others          | constant 1 (sum)   | none                  |
| GRPO      | (r_i - mean) / std                | sequence           | 1 - e, 1 + e          |
| Dr. GRPO  | r_i - mean                        | constant           | 1 - e, 1 + e          |
| DAPO      | (r_i - mean) / std, mixed groups  | token              | 1 - e_low, 1 + e_high |
| PPO       | GAE with a value head, per token  | token              | 1 - e, 1 + e          |

The KL (`kl`) is a further column: k1 in the reward, or k3 in the loss (GRPO), or left out (DAPO).

Shapes: rewards (P, k), k responses to each of P prompts; log-probabilities, token advantages and
values (N,), flat over the tokens of R responses with `lengths` (R,), as `lm.logprobs` gives them.
Rewards are in the reward model's units, log-probabilities in nats. Losses are to be minimised.
"""

from __future__ import annotations

import torch
from torch import Tensor

from irlbook.errors import InvalidHyperparameterError, RewardError, SamplingError, ShapeError
from irlbook.lm.logprobs import sequence_logps
from irlbook.posttraining.configs import Normalisation
from irlbook.rl.advantages import gae

__all__ = [
    "aggregate",
    "check_fresh",
    "clipped_surrogate",
    "constant_groups",
    "grpo_advantage",
    "overlong_penalty",
    "per_token",
    "reinforce_advantage",
    "reinforce_loss",
    "remax_advantage",
    "rloo_advantage",
    "token_gae",
    "value_loss",
]

# Advantages ---------------------------------------------------------------------------------------


def reinforce_advantage(rewards: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """(P, k) r - b. Unbiased for every b that does not depend on the response itself.

    Source: Williams 1992, section 5 (theorem 2: the response is an episode).
    """
    return _finite(rewards) - baseline


def remax_advantage(rewards: Tensor, greedy_rewards: Tensor) -> Tensor:
    """(P, k) r - r(greedy): the baseline is the reward (P,) of each prompt's greedy response.

    Source: Li et al. 2023 (2310.10505).
    """
    if greedy_rewards.shape != rewards.shape[:1]:
        raise ShapeError(f"{len(rewards)} prompts, greedy rewards {tuple(greedy_rewards.shape)}.")
    return _finite(rewards) - _finite(greedy_rewards, 1)[:, None]


def rloo_advantage(rewards: Tensor) -> Tensor:
    """(P, k) r_i - mean of the other k - 1 = k / (k - 1) (r_i - mean of all). Unbiased.

    Source: Kool et al. 2019; Ahmadian et al. 2024 (2402.14740).
    """
    k = _group(rewards)
    return k / (k - 1) * (rewards - rewards.mean(dim=1, keepdim=True))


def constant_groups(rewards: Tensor) -> Tensor:
    """(P,) bool: all k rewards of the prompt are equal, so it teaches nothing. Sum it to count.

    Exact equality, not std == 0: the mean of equal floats may miss them by a rounding error, and
    dividing that by an equally small std gives advantages of size 1 out of nothing.

    DAPO's dynamic sampling keeps the groups that are *not* constant and samples more.
    Source: Yu et al. 2025 (2503.14476), section 3.2, equation 11.
    """
    _group(rewards)
    return rewards.amax(dim=1) == rewards.amin(dim=1)


def grpo_advantage(rewards: Tensor, scale: bool = True) -> Tensor:
    """(P, k) (r - mean) / std, or without the std (Dr. GRPO); zero in a constant group.

    The mean holds r_i itself: without the std this is (k - 1)/k of RLOO. With it, easy and hard
    prompts weigh more than mixed ones, and the direction is no longer that of the reward's
    gradient. std divides by k - 1, as torch and TRL do; the papers leave that open.

    Source: Shao et al. 2024 (2402.03300), section 4.1.2; Liu et al. 2025 (2503.20783).
    """
    _group(rewards)
    constant = constant_groups(rewards)[:, None]
    centred = (rewards - rewards.mean(dim=1, keepdim=True)).masked_fill(constant, 0.0)
    if not scale:
        return centred
    return centred / rewards.std(dim=1, keepdim=True).masked_fill(constant, 1.0)


def overlong_penalty(lengths: Tensor, max_length: int, buffer: int) -> Tensor:
    """(R,) in [-1, 0], added to the reward: 0 up to max_length - buffer, then down to -1.

    Source: Yu et al. 2025, equation 13.
    """
    if not 0 < buffer <= max_length:
        raise InvalidHyperparameterError(f"buffer is {buffer}; it must lie in 1..{max_length}.")
    return ((max_length - buffer - lengths) / buffer).clamp(-1.0, 0.0)


def per_token(per_response: Tensor, lengths: Tensor) -> Tensor:
    """(N,) each response's number (R,), repeated for each of its tokens."""
    return torch.repeat_interleave(per_response, lengths)


def token_gae(
    rewards: Tensor, values: Tensor, lengths: Tensor, discount: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """((N,) advantages, (N,) targets of the value head); no gradient.

    A response ends with its last token, also if it was cut off: nothing is paid after it.

    Args:
        rewards: (N,) e.g. -beta k1 for each token, plus the score on the last one.
        values: (N,) V of the prefix in which each token was chosen.

    Source: Schulman et al. 2016 (1506.02438), equation 16.
    """
    if int(lengths.sum()) != len(values):
        raise ShapeError(f"{int(lengths.sum())} tokens in all, but {len(values)} values.")
    last = torch.zeros(len(values), dtype=torch.bool)
    last[lengths.cumsum(0).cpu() - 1] = True
    v = values.detach().cpu().double().numpy()
    following = values.detach().roll(-1).cpu().double().numpy()  # across a border: multiplied by 0
    advantages = gae(
        rewards.detach().cpu().double().numpy(), v, following, last.numpy(), last.numpy() & False,
        discount=discount, lam=lam,
    )  # fmt: skip
    result = torch.as_tensor(advantages, dtype=values.dtype, device=values.device)
    return result, result + values.detach()


# Losses -------------------------------------------------------------------------------------------


def reinforce_loss(logps: Tensor, advantages: Tensor) -> Tensor:
    """(N,) -A log pi; its gradient is -A grad log pi. The value itself means nothing."""
    return -advantages.detach() * logps


def clipped_surrogate(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> Tensor:
    """(N,) -min(ratio A, clamp(ratio, 1 - clip_low, 1 + clip_high) A), ratio = pi / pi_old.

    No gradient exactly where A > 0 and ratio > 1 + clip_high, or A < 0 and ratio < 1 - clip_low.

    Args:
        old_logps: (N,) from the sampler, at the same temperature; see :func:`check_fresh`.

    Source: Schulman et al. 2017 (1707.06347), equation 7; clip_high > clip_low: DAPO, equation 10.
    """
    if not (0 < clip_low < 1 and clip_high > 0):
        raise InvalidHyperparameterError(
            f"clip_low={clip_low}, clip_high={clip_high}; need 0 < clip_low < 1 and clip_high > 0."
        )
    a = advantages.detach()
    ratio = torch.exp(logps - old_logps.detach())
    return -torch.minimum(ratio * a, ratio.clamp(1 - clip_low, 1 + clip_high) * a)


def aggregate(
    token_losses: Tensor,
    lengths: Tensor,
    normalisation: Normalisation,
    constant: float | None = None,
) -> Tensor:
    """One loss from (N,): how much a long response weighs.

    "sequence": mean over responses of the mean over tokens (GRPO, equation 3): a token of a long
    response weighs less. "token": sum / N (DAPO, equation 8): all tokens weigh the same.
    "constant": sum / (R constant) (Dr. GRPO): 1 gives the policy gradient of E[r] itself, the
    largest length allowed gives Dr. GRPO as its authors code it.
    """
    if int(lengths.sum()) != len(token_losses):
        raise ShapeError(f"{int(lengths.sum())} tokens in all, but {len(token_losses)} losses.")
    match normalisation:
        case "sequence":
            return (sequence_logps(token_losses, lengths) / lengths).mean()
        case "token":
            return token_losses.mean()
        case "constant" if constant is not None and constant > 0:
            return token_losses.sum() / (len(lengths) * constant)
    raise InvalidHyperparameterError(
        f"normalisation={normalisation!r}, constant={constant}; choose sequence, token, or "
        "constant together with a positive constant."
    )


def value_loss(values: Tensor, old_values: Tensor, targets: Tensor, clip: float = 0.2) -> Tensor:
    """(N,) max of the squared errors of V and of V kept within `clip` of its old value, halved.

    Source: OpenAI's code for PPO, as described by Engstrom et al. 2020 (2005.12729); the paper of
    PPO has no such clip.
    """
    old = old_values.detach()
    kept = old + (values - old).clamp(-clip, clip)
    return torch.maximum((values - targets) ** 2, (kept - targets) ** 2) / 2


def check_fresh(logps: Tensor, old_logps: Tensor, tolerance: float = 1e-3) -> None:
    """On samples just drawn every ratio is 1; if not, the sampler and the scorer disagree.

    Raises:
        SamplingError: by how many nats. The usual cause is the temperature, left out in scoring.
    """
    worst = float((logps.detach() - old_logps).abs().max())
    if not worst <= tolerance:
        raise SamplingError(
            f"fresh samples score {worst:.3g} nats away from what the sampler says. Score at the "
            "sampler's temperature, without dropout, with the weights that sampled."
        )


def _finite(rewards: Tensor, ndim: int = 2) -> Tensor:
    if rewards.ndim != ndim:
        raise ShapeError(f"rewards have shape {tuple(rewards.shape)}; expected {ndim} axes.")
    if not rewards.isfinite().all():
        raise RewardError("a reward is NaN or infinite; mend the reward function.")
    return rewards


def _group(rewards: Tensor) -> int:
    k = _finite(rewards).shape[1]
    if k < 2:
        raise ShapeError("a group of one has nobody to be compared with; draw k >= 2 responses.")
    return k
