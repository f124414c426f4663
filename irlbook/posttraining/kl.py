"""Three estimators of KL(pi || pi_ref) from samples of pi: right in value is not right in gradient.

With y drawn from pi, d = log pi(y) - log pi_ref(y) and ratio = exp(-d) = pi_ref(y) / pi(y):

| name | of one sample | E[k] is             | gradient as a loss  | gradient as a penalty         |
|------|---------------|---------------------|---------------------|-------------------------------|
| k1   | d             | KL                  | 0: no force at all  | grad KL                       |
| k2   | d^2 / 2       | KL, 2nd order only  | grad KL             | biased                        |
| k3   | ratio - 1 + d | KL                  | grad KL(pi_ref||pi) | grad KL - grad KL(pi_ref||pi) |

*As a loss* the estimator itself is differentiated, E[grad k]; *as a penalty* it is taken off the
reward and multiplies the score, E[k grad log pi]. So k1 belongs in the reward and k2 in the loss;
k3 as a loss, GRPO's choice, pulls along the forward KL. The unbiased cells are unbiased for one
action (a whole response, or the next token). Token estimates used as a loss leave out that today's
token decides which prefixes come later; token k1 in the *rewards to come* does not leave it out.

The direction is log pi - log pi_ref. The other way round k1 estimates -KL, k3 chi^2 - KL.

Source: Schulman 2020, "Approximating KL divergence" (the values); that a good estimate of KL need
not have a good gradient: Tang and Munos 2025 (2506.09477). The table itself is checked by
enumeration in the tests.
"""

from __future__ import annotations

import torch
from torch import Tensor

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.posttraining.configs import Estimator

__all__ = ["kl_estimate", "kl_loss", "kl_penalty"]


def kl_estimate(policy_logps: Tensor, reference_logps: Tensor, estimator: Estimator) -> Tensor:
    """An estimate of KL(pi || pi_ref) in nats from each sample of pi; differentiable.

    Args:
        policy_logps, reference_logps: any shape, the same, of samples drawn *from the policy*, at
            the temperature they were drawn at. Of tokens (N,) or of whole responses (R,).
        estimator: "k1" may be negative in one sample; "k2" and "k3" never are.

    Raises:
        ShapeError: the shapes differ. InvalidHyperparameterError: an unknown estimator.

    Source: Schulman 2020; k3 is equation 4 of Shao et al. 2024 (2402.03300).
    """
    if policy_logps.shape != reference_logps.shape:
        raise ShapeError(
            f"policy log-probabilities have shape {tuple(policy_logps.shape)}, the reference's "
            f"{tuple(reference_logps.shape)}; score the same samples with both."
        )
    d = policy_logps - reference_logps
    match estimator:
        case "k1":
            return d
        case "k2":
            return d**2 / 2
        case "k3":
            return torch.expm1(-d) + d
    raise InvalidHyperparameterError(f"estimator is {estimator!r}; choose k1, k2 or k3.")


def kl_loss(policy_logps: Tensor, reference_logps: Tensor, estimator: Estimator = "k2") -> Tensor:
    """The estimate as a term of the loss: its gradient is E[grad k] (k2 right, k1 0, k3 forward).

    Biased: k1 (its gradient is pure noise of mean 0) and k3. Shapes as :func:`kl_estimate`; the
    reference carries no gradient.
    """
    return kl_estimate(policy_logps, reference_logps.detach(), estimator)


def kl_penalty(
    policy_logps: Tensor, reference_logps: Tensor, estimator: Estimator = "k1"
) -> Tensor:
    """The estimate as a number to take off the reward: no gradient flows through it.

    Its pull is E[k grad log pi]. Biased: k2 and k3. Shapes as :func:`kl_estimate`.
    """
    return kl_estimate(policy_logps.detach(), reference_logps.detach(), estimator)
