"""Direct preference optimisation and its relatives, in one notation.

Chapter 3: the policy that is best for reward r at the price beta a nat of KL is
pi = pi_ref exp(r/beta) / Z(x). Read backwards, every policy is the best one for the reward

    r(x, y) = beta log pi(y|x)/pi_ref(y|x) + beta log Z(x)

and where two responses to one prompt are compared the unknown Z(x) cancels:

    h = beta [ log pi(y+)/pi_ref(y+) - log pi(y-)/pi_ref(y-) ]

| loss        | of one pair (or one response)                             | is smallest at         |
|-------------|-----------------------------------------------------------|------------------------|
| DPO         | -log s(h)                                                 | h -> infinity          |
| conservative| -(1-e) log s(h) - e log s(-h)                             | h = log((1-e)/e)       |
| robust      | [-(1-e) log s(h) + e log s(-h)] / (1-2e)                  | h -> infinity          |
| IPO         | (h/beta - 1/(2 beta))^2                                   | h = 1/2                |
| EXO         | s(h) log[s(h)/(1-e)] + s(-h) log[s(-h)/e]                 | h = log((1-e)/e)       |
| RSO (hinge) | max(0, 1 - h)                                             | h >= 1                 |
| SLiC-HF     | max(0, d - log pi(y+) + log pi(y-)) - l log pi(y_sft)     | no reference           |
| SimPO       | -log s(beta [log pi(y+)/|y+| - log pi(y-)/|y-|] - g)      | no reference           |
| KTO         | w+ [1 - s(beta log pi/pi_ref - z)] for a good y           | beta log pi/pi_ref     |
|             | w- [1 - s(z - beta log pi/pi_ref)] for a bad one          | far above (below) z    |

s is the logistic function. Where a column says infinity, one label a pair pushes without end; with
labels that disagree, as a population's do, DPO's optimum is the log-odds of the preference.

Shapes throughout: log-probabilities are (P, 2), column 0 the preferred response, column 1 the
other, each *summed* over the response's tokens, in nats. Each loss returns (P,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from irlbook.errors import InvalidHyperparameterError, ResponseError, ShapeError
from irlbook.lm.trees import Group
from irlbook.posttraining.configs import PreferenceConfig
from irlbook.training.loop import Batch, Objective

__all__ = [
    "best_against_worst",
    "dpo_loss",
    "exo_loss",
    "implicit_rewards",
    "ipo_loss",
    "kto_groups",
    "kto_loss",
    "kto_reference_point",
    "objective",
    "preference_logit",
    "preference_metrics",
    "robust_dpo_loss",
    "rso_loss",
    "simpo_loss",
    "slic_loss",
]


def implicit_rewards(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    """beta log pi(y|x)/pi_ref(y|x): the reward a policy is best for, up to beta log Z(x).

    Args:
        policy_logps, reference_logps: any shape, the same. beta: price of a nat, > 0.

    Source: Rafailov et al. 2023 (2305.18290), equation 5.
    """
    _positive(beta=beta)
    if policy_logps.shape != reference_logps.shape:
        raise ShapeError(
            f"policy log-probabilities have shape {tuple(policy_logps.shape)}, the reference's "
            f"{tuple(reference_logps.shape)}; score the same responses with both."
        )
    return beta * (policy_logps - reference_logps)


def preference_logit(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    """(P,) h: by how much the implicit reward of y+ exceeds that of y-. (P, 2) go in.

    s(h) is the model's probability that y+ is preferred; h > 0 says that it agrees with the label.

    Source: Rafailov et al. 2023, equation 6.
    """
    _paired(policy_logps)
    rewards = implicit_rewards(policy_logps, reference_logps, beta)
    return rewards[:, 0] - rewards[:, 1]


def dpo_loss(
    policy_logps: Tensor, reference_logps: Tensor, beta: float = 0.1, label_smoothing: float = 0.0
) -> Tensor:
    """-(1 - e) log s(h) - e log s(-h). At policy = reference it is log 2 exactly, whatever e.

    Args:
        label_smoothing: e, the share of labels taken to be flipped; e > 0 is *conservative* DPO,
            which is content with h = log((1 - e)/e) instead of pushing for ever.

    Raises:
        InvalidHyperparameterError: beta <= 0, or e outside [0, 1/2).

    Source: Rafailov et al. 2023, equation 7; e: Mitchell 2023, A note on DPO with noisy
    preferences.
    """
    _smoothing(label_smoothing)
    h = preference_logit(policy_logps, reference_logps, beta)
    return -(1 - label_smoothing) * logsigmoid(h) - label_smoothing * logsigmoid(-h)


def robust_dpo_loss(
    policy_logps: Tensor, reference_logps: Tensor, beta: float = 0.1, label_smoothing: float = 0.1
) -> Tensor:
    """[-(1 - e) log s(h) + e log s(-h)] / (1 - 2e): DPO's loss on clean labels, in expectation.

    If each label is flipped with probability e, the mean of this over the flips is the loss that
    the true label would have given. Conservative DPO is biased but tame; this is unbiased, and
    where a label is wrong it may fall below 0.

    Source: Chowdhury, Kini and Natarajan 2024 (2403.00409).
    """
    _smoothing(label_smoothing)
    e = label_smoothing
    h = preference_logit(policy_logps, reference_logps, beta)
    return (-(1 - e) * logsigmoid(h) + e * logsigmoid(-h)) / (1 - 2 * e)


def exo_loss(
    policy_logps: Tensor, reference_logps: Tensor, beta: float = 0.1, label_smoothing: float = 0.1
) -> Tensor:
    """s(h) log[s(h)/(1-e)] + s(-h) log[s(-h)/e]: the reverse KL from the model's choice to a label.

    Conservative DPO is the forward KL between the same two distributions over the pair, up to a
    constant. On a pair whose label is right with probability p the optimum is
    h = (2p - 1) log((1-e)/e), which is IPO's p - 1/2 in another unit, and not the log-odds of p.

    Args:
        label_smoothing: e, in (0, 1/2): the probability that the other response is preferred. A
            label without doubt (e = 0) is infinitely far from every policy.

    Raises:
        InvalidHyperparameterError: beta <= 0, or e outside (0, 1/2).

    Source: Ji et al. 2024 (2402.00856), equation 16.
    """
    _smoothing(label_smoothing)
    if label_smoothing == 0:
        raise InvalidHyperparameterError(
            "label_smoothing is 0, and EXO's reverse KL to a label without doubt is infinite; give "
            "a share above 0, such as 0.1."
        )
    h = preference_logit(policy_logps, reference_logps, beta)
    ahead = torch.sigmoid(h) * (logsigmoid(h) - math.log1p(-label_smoothing))
    return ahead + torch.sigmoid(-h) * (logsigmoid(-h) - math.log(label_smoothing))


def ipo_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    beta: float = 0.1,
    lengths: Tensor | None = None,
) -> Tensor:
    """(h/beta - 1/(2 beta))^2: a regression of the log-ratio on a finite target.

    The optimum is h = 1/2 for a sure pair and h = p - 1/2 when y+ wins with probability p, so the
    KL stays bounded where DPO's log-odds go to infinity.

    The paper's pi(y|x) is that of the whole response: the default here sums. TRL divides each
    log-probability by its length since January 2024 (pull request 1265), which its authors say
    the paper's authors advised, so that beta does not depend on length. The two are different
    losses and want different beta: give `lengths` for the second.

    Args:
        lengths: (P, 2) tokens of each response, or None.

    Source: Azar et al. 2023 (2310.12036), equation 17; tau there is beta here.
    """
    _paired(policy_logps)
    log_ratios = implicit_rewards(policy_logps, reference_logps, beta) / beta  # (P, 2)
    if lengths is not None:
        log_ratios = log_ratios / _lengths(lengths, log_ratios)
    return (log_ratios[:, 0] - log_ratios[:, 1] - 1 / (2 * beta)) ** 2


def rso_loss(policy_logps: Tensor, reference_logps: Tensor, beta: float = 0.1) -> Tensor:
    """max(0, 1 - h): DPO with the hinge of a support-vector machine for the logistic loss.

    Source: Liu et al. 2023 (2309.06657), with beta for its gamma. Often called "hinge".
    """
    return relu(1 - preference_logit(policy_logps, reference_logps, beta))


def slic_loss(
    policy_logps: Tensor,
    margin: float = 1.0,
    sft_logps: Tensor | None = None,
    sft_weight: float = 0.1,
) -> Tensor:
    """max(0, d - log pi(y+) + log pi(y-)) - l log pi(y_sft): rank, and keep to the demonstrations.

    There is no reference model: the second term holds the policy.

    Args:
        margin: d >= 0 in nats. sft_weight: l >= 0.
        sft_logps: (P,) log pi of a demonstration, or of the preferred response; None
            drops the term.

    Source: Zhao et al. 2023 (2305.10425).
    """
    _paired(policy_logps)
    if margin < 0 or sft_weight < 0:
        raise InvalidHyperparameterError(
            f"margin is {margin} and sft_weight {sft_weight}; neither may be negative."
        )
    loss = relu(margin - policy_logps[:, 0] + policy_logps[:, 1])
    return loss if sft_logps is None else loss - sft_weight * sft_logps


def simpo_loss(
    policy_logps: Tensor, lengths: Tensor, beta: float = 2.0, margin: float = 1.0
) -> Tensor:
    """-log s(beta [log pi(y+)/|y+| - log pi(y-)/|y-|] - g): mean log-probability is the reward.

    No reference model, so nothing but the learning rate holds the policy near its start. beta is
    here the scale of a reward *per token*: 2 to 10, where DPO has 0.01 to 0.5.

    Args:
        lengths: (P, 2) tokens of each response. margin: g >= 0, in units of the reward.

    Source: Meng, Xia and Chen 2024 (2405.14734), equation 6.
    """
    _paired(policy_logps)
    _positive(beta=beta)
    if margin < 0:
        raise InvalidHyperparameterError(f"margin is {margin}; it must not be negative.")
    per_token = policy_logps / _lengths(lengths, policy_logps)  # (P, 2)
    return -logsigmoid(beta * (per_token[:, 0] - per_token[:, 1]) - margin)


def kto_reference_point(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    """z = beta max(0, mean log pi/pi_ref): how far the policy has moved, as a reward; a scalar.

    The mean is over *mismatched* pairs (x_i, y_j), a response put to another's prompt. It is an
    estimate, biased, of beta KL(pi || pi_ref) that costs no sampling. One z serves the whole step;
    no gradient goes through it.

    Args:
        policy_logps, reference_logps: (M,) of the mismatched responses.

    Source: Ethayarajh et al. 2024 (2402.01306), section 4.
    """
    rewards = implicit_rewards(policy_logps.detach(), reference_logps, beta)
    return rewards.mean().clamp(min=0)


def kto_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    desirable: Tensor,
    reference_point: Tensor | float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """w (1 - s(+-(beta log pi/pi_ref - z))): learns from single labels, thumbs up or down.

    Plus for a good response, minus for a bad one. The value saturates on both sides, as in prospect
    theory: a response that is already far from z, or hopeless, has next to no gradient. Each loss
    lies in [0, w]; where policy = reference and z = 0 it is w/2.

    Args:
        policy_logps, reference_logps: (R,) single responses, not pairs.
        desirable: (R,) bool. reference_point: z >= 0, from `kto_reference_point`.
        desirable_weight, undesirable_weight: w; keep w+ n+ / (w- n-) between 1 and 4/3.

    Source: Ethayarajh et al. 2024, section 4, with z already multiplied by beta.
    """
    if not (desirable_weight > 0 and undesirable_weight > 0):
        raise InvalidHyperparameterError("the weights of KTO must be positive.")
    if desirable.shape != policy_logps.shape or desirable.dtype != torch.bool:
        raise ShapeError(f"desirable must be {tuple(policy_logps.shape)} true-or-false labels.")
    gain = implicit_rewards(policy_logps, reference_logps, beta) - reference_point
    value = torch.sigmoid(torch.where(desirable, gain, -gain))
    weight = torch.where(
        desirable, value.new_tensor(desirable_weight), value.new_tensor(undesirable_weight)
    )
    return weight * (1 - value)


def preference_metrics(
    policy_logps: Tensor, reference_logps: Tensor, beta: float
) -> dict[str, Tensor]:
    """What to watch while a preference loss falls. Every value is (P,), without gradient.

    `margin` h; `accuracy` 1 where h > 0, 1/2 at a tie; `chosen_reward` and `rejected_reward`, the
    implicit rewards; `chosen_logp` and `rejected_logp`. It is usual that *both* log-probabilities
    fall: only their difference is trained (likelihood displacement).
    """
    policy_logps, reference_logps = policy_logps.detach(), reference_logps.detach()
    rewards = implicit_rewards(policy_logps, reference_logps, beta)
    h = preference_logit(policy_logps, reference_logps, beta)
    return {
        "margin": h,
        "accuracy": (h.sign() + 1) / 2,
        "chosen_reward": rewards[:, 0],
        "rejected_reward": rewards[:, 1],
        "chosen_logp": policy_logps[:, 0],
        "rejected_logp": policy_logps[:, 1],
    }


# For the training loop ----------------------------------------------------------------------------


def objective(config: PreferenceConfig | None = None) -> Objective:
    """A loss of the family for `training.train`.

    Groups are (prompt, [preferred, other]). KTO's come from `kto_groups`, with their labels as
    ``extra={"desirable": labels}``.
    """
    c = config or PreferenceConfig()
    if c.loss == "kto":
        return _kto_objective(c)
    free = c.loss in ("slic", "simpo")

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        policy = batch.per_response(scores)  # (P, 2)
        reference = policy if free else _reference(batch)
        lengths = batch.tree.lengths.view(-1, 2)
        match c.loss:
            case "dpo":
                loss = dpo_loss(policy, reference, c.beta, c.label_smoothing)
            case "robust":
                loss = robust_dpo_loss(policy, reference, c.beta, c.label_smoothing)
            case "exo":
                loss = exo_loss(policy, reference, c.beta, c.label_smoothing)
            case "ipo":
                normal = lengths if c.length_normalised else None
                loss = ipo_loss(policy, reference, c.beta, normal)
            case "rso":
                loss = rso_loss(policy, reference, c.beta)
            case "slic":
                loss = slic_loss(policy, c.margin, policy[:, 0], c.sft_weight)
            case _:
                loss = simpo_loss(policy, lengths, c.beta, c.margin)
        if free:  # no reference: the reward is the log-probability that the loss compares
            base, scale = policy, 1.0
            if c.loss == "simpo":
                base, scale = policy / lengths, c.beta
            metrics = preference_metrics(base, torch.zeros_like(base), scale)
            metrics |= {
                "chosen_logp": policy.detach()[:, 0],
                "rejected_logp": policy.detach()[:, 1],
            }
        else:
            metrics = preference_metrics(policy, reference, c.beta)
        return {"loss": loss, **metrics}

    zero = torch.zeros(1, 2, dtype=torch.float64)
    known = {
        "dpo": lambda: math.log(2),
        "robust": lambda: math.log(2),
        "exo": lambda: float(exo_loss(zero, zero, c.beta, c.label_smoothing)),
        "ipo": lambda: float(ipo_loss(zero, zero, c.beta)),
        "rso": lambda: 1.0,
    }
    start = known[c.loss]() if c.loss in known else None
    return Objective(repr(c), values, responses=2, needs_reference=not free, start=start)


def kto_groups(
    examples: Sequence[tuple[Sequence[int], Sequence[int]]], seed: int = 0
) -> list[Group]:
    """(prompt, [its response, the response of another example]) for each example.

    The second response is there for the reference point alone. Who lends to whom is a random
    cycle, so that no example lends to itself.

    Raises:
        ResponseError: fewer than two examples.
    """
    n = len(examples)
    if n < 2:
        raise ResponseError("KTO's reference point needs two examples at least.")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    lender = dict(zip(order, order[1:] + order[:1], strict=True))
    return [
        (prompt, [answer, examples[lender[i]][1]]) for i, (prompt, answer) in enumerate(examples)
    ]


def _kto_objective(c: PreferenceConfig) -> Objective:
    def mismatched_reward(scores: Tensor, batch: Batch) -> Tensor:
        return implicit_rewards(batch.per_response(scores)[:, 1], _reference(batch)[:, 1], c.beta)

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        policy, reference = batch.per_response(scores)[:, 0], _reference(batch)[:, 0]
        good = batch.extra["desirable"]
        assert batch.shared is not None  # `prepare` has run
        point = batch.shared.clamp(min=0).to(policy.dtype)
        loss = kto_loss(
            policy, reference, good, point, c.beta, c.desirable_weight, c.undesirable_weight
        )
        gain = implicit_rewards(policy.detach(), reference, c.beta) - point
        right = torch.where(good, gain, -gain)
        return {
            "loss": loss,
            "margin": right,
            "accuracy": (right.sign() + 1) / 2,
            "kl": (point / c.beta).expand(len(policy)),
        }

    return Objective(repr(c), values, responses=2, needs_reference=True, prepare=mismatched_reward)


# Iterating on-policy ------------------------------------------------------------------------------


def best_against_worst(groups: Sequence[Group], rewards: Tensor) -> list[Group]:
    """(prompt, [best, worst]) of each prompt's samples; a prompt whose samples all tie is left out.

    Iterative DPO: sample from the *current* policy, let a reward pair the samples, take DPO steps,
    repeat. The pairs then lie where the policy is, which mends what offline pairs do not cover.

    Args:
        groups: a prompt with n samples each, as `lm.sampling.sample` gives them.
        rewards: (R,) of all samples, in order.

    Raises:
        ShapeError: not one reward a sample.

    Source: Xiong et al. 2023 (2312.11456); Xu et al. 2023 (2312.16682).
    """
    counts = [len(answers) for _, answers in groups]
    if rewards.shape != (sum(counts),):
        raise ShapeError(f"{sum(counts)} samples and rewards of shape {tuple(rewards.shape)}.")
    pairs: list[Group] = []
    for (prompt, answers), values in zip(groups, rewards.split(counts), strict=True):
        best, worst = int(values.argmax()), int(values.argmin())
        if values[best] > values[worst]:
            pairs.append((prompt, [answers[best], answers[worst]]))
    return pairs


def _reference(batch: Batch) -> Tensor:
    if batch.reference is None:
        raise ShapeError("this loss compares with a reference, and the batch has none.")
    return batch.reference


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise InvalidHyperparameterError(f"{name} is {value}; it must be a positive number.")


def _smoothing(value: float) -> None:
    if not 0 <= value < 0.5:
        raise InvalidHyperparameterError(
            f"label_smoothing is {value}; it is the share of flipped labels, in [0, 1/2). At 1/2 "
            "the labels say nothing, above it they say the opposite."
        )


def _paired(logps: Tensor) -> None:
    if logps.ndim != 2 or logps.shape[1] != 2:
        raise ShapeError(
            f"log-probabilities have shape {tuple(logps.shape)}; expected (pairs, 2), the "
            "preferred response in column 0. From (R,) in the groups' order: logps.view(-1, 2)."
        )


def _lengths(lengths: Tensor, like: Tensor) -> Tensor:
    if lengths.shape != like.shape:
        raise ShapeError(f"lengths have shape {tuple(lengths.shape)}, not {tuple(like.shape)}.")
    if (lengths < 1).any():
        raise ResponseError("a response has no token; the end token counts as one.")
    return lengths.to(like.dtype)
