"""KL estimators by enumeration: expectation and gradient over *all* responses, no sampling."""

import numpy as np
import pytest
import torch

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.lm.enumerable import EnumerableLM, kl_from_logps
from irlbook.lm.token_table import TokenTable
from irlbook.posttraining.kl import kl_estimate, kl_loss, kl_penalty


def model(seed: int, length: int = 2) -> EnumerableLM:
    rng = np.random.default_rng(seed)
    return EnumerableLM.create(
        ("a", "b", "end"), length, lambda prefixes: rng.dirichlet(np.ones(3), len(prefixes))
    )


LM = model(0)
TABLE = TokenTable(LM)
REFERENCE = torch.tensor(LM.sequence_log_probabilities(model(1).policy))
LOG_PI = torch.tensor(LM.sequence_log_probabilities())
KL = kl_from_logps(LOG_PI.numpy(), REFERENCE.numpy())


def gradient(of) -> torch.Tensor:
    """(S, A) gradient of of(log pi (R,)) in the table's logits."""
    (result,) = torch.autograd.grad(of(TABLE.log_probabilities()), TABLE.logits)
    return result


REVERSE = gradient(lambda logp: (logp.exp() * (logp - REFERENCE)).sum())
FORWARD = gradient(lambda logp: -(REFERENCE.exp() * logp).sum())  # of KL(pi_ref || pi)


def loss_gradient(k: str) -> torch.Tensor:
    return gradient(lambda logp: (logp.detach().exp() * kl_loss(logp, REFERENCE, k)).sum())


def penalty_gradient(k: str) -> torch.Tensor:
    return gradient(
        lambda logp: (logp.detach().exp() * kl_penalty(logp, REFERENCE, k) * logp).sum()
    )


def test_values():
    mean = {k: float((LOG_PI.exp() * kl_estimate(LOG_PI, REFERENCE, k)).sum()) for k in KS}
    assert mean["k1"] == pytest.approx(KL, abs=1e-12)
    assert mean["k3"] == pytest.approx(KL, abs=1e-12)
    assert abs(mean["k2"] - KL) > 0.01  # biased, and good only nearby
    near = LOG_PI + 0.01 * (REFERENCE - LOG_PI)
    near = near - near.logsumexp(0)
    k2 = float((LOG_PI.exp() * kl_estimate(LOG_PI, near, "k2")).sum())
    assert k2 == pytest.approx(kl_from_logps(LOG_PI.numpy(), near.numpy()), rel=0.02)


KS = ("k1", "k2", "k3")


def test_as_a_loss_k2_is_right_k1_is_nothing_and_k3_is_the_forward_kl():
    torch.testing.assert_close(loss_gradient("k1"), torch.zeros_like(REVERSE), atol=1e-12, rtol=0)
    torch.testing.assert_close(loss_gradient("k2"), REVERSE)
    torch.testing.assert_close(loss_gradient("k3"), FORWARD)
    assert (FORWARD - REVERSE).abs().max() > 0.01


def test_as_a_penalty_k1_is_right_and_k3_is_off_by_the_forward_kl():
    torch.testing.assert_close(penalty_gradient("k1"), REVERSE)
    torch.testing.assert_close(penalty_gradient("k3"), REVERSE - FORWARD)
    assert (penalty_gradient("k2") - REVERSE).abs().max() > 0.01


def test_the_penalty_is_the_policy_gradient_of_minus_the_kl():
    exact = LM.policy_gradient(-kl_penalty(LOG_PI, REFERENCE).numpy())
    np.testing.assert_allclose(-penalty_gradient("k1").numpy(), exact, atol=1e-12)


def test_k3_varies_less_than_k1_near_the_reference_and_no_sample_is_negative():
    near = LOG_PI + 0.1 * (REFERENCE - LOG_PI)
    near = near - near.logsumexp(0)

    def variance(k):
        estimate = kl_estimate(LOG_PI, near, k)
        mean = (LOG_PI.exp() * estimate).sum()
        return float((LOG_PI.exp() * (estimate - mean) ** 2).sum())

    assert variance("k3") < 0.2 * variance("k1")
    for k in ("k2", "k3"):
        assert (kl_estimate(LOG_PI, REFERENCE, k) >= 0).all()


def test_the_wrong_direction_is_caught():
    wrong = float((LOG_PI.exp() * kl_estimate(REFERENCE, LOG_PI, "k1")).sum())
    assert wrong == pytest.approx(-KL)
    wrong = float((LOG_PI.exp() * kl_estimate(REFERENCE, LOG_PI, "k3")).sum())
    chi2 = float((LOG_PI.exp() ** 2 / REFERENCE.exp()).sum()) - 1
    assert wrong == pytest.approx(chi2 - KL)
    assert wrong != pytest.approx(KL, rel=0.05)


def test_gradients_flow_where_they_should():
    logp = LOG_PI.clone().requires_grad_()
    reference = REFERENCE.clone().requires_grad_()
    assert not kl_penalty(logp, reference).requires_grad
    kl_loss(logp, reference).sum().backward()
    assert reference.grad is None


def test_named_errors():
    with pytest.raises(ShapeError, match="same samples"):
        kl_estimate(LOG_PI, REFERENCE[1:], "k1")
    with pytest.raises(InvalidHyperparameterError, match="k1, k2 or k3"):
        kl_estimate(LOG_PI, REFERENCE, "k4")
