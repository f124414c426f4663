"""Neural GAIL: its loss and rewards against the tabular ones; a short run that learns."""

import numpy as np
import pytest
import torch

from irlbook.errors import InvalidHyperparameterError, InvalidTrajectoryError
from irlbook.imitation.adversarial import best_discriminator, discriminator_reward
from irlbook.imitation.gail import GAILConfig, discriminator_loss, gail, scores_to_reward
from irlbook.imitation.networks import drive

torch.set_num_threads(1)


def expert(observations):
    return (observations @ np.array([0.1, 0.3, 1.0, 0.6]) > 0).astype(int)


def test_the_rewards_agree_with_the_table_and_do_not_overflow():
    scores = torch.linspace(-3, 3, 7, dtype=torch.float64)
    d = torch.sigmoid(scores).numpy()
    for form in ("log D", "-log(1-D)", "logit"):
        got = scores_to_reward(scores, form).numpy()
        assert np.allclose(got, discriminator_reward(d, form))
        assert torch.isfinite(scores_to_reward(torch.tensor([-500.0, 500.0]), form)).all()


def test_the_loss_is_2_log_2_when_nothing_is_known_and_is_least_at_the_log_ratio():
    zero = torch.zeros(5)
    assert np.isclose(discriminator_loss(zero, zero).item(), 2 * np.log(2))
    # Samples of two distributions over three pairs: the best score of each is its log ratio.
    ours, theirs = (
        torch.tensor([0] * 6 + [1] * 2 + [2] * 2),
        torch.tensor([0] * 2 + [1] * 3 + [2] * 5),
    )
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(4000):
        (slope,) = torch.autograd.grad(discriminator_loss(scores[ours], scores[theirs]), scores)
        scores = (scores - slope).detach().requires_grad_()
    share = best_discriminator(np.array([0.6, 0.2, 0.2]), np.array([0.2, 0.3, 0.5]))
    assert np.allclose(torch.sigmoid(scores).detach().numpy(), share, atol=1e-6)


def test_a_short_run_keeps_the_pole_up_longer_and_repeats_itself():
    seen = drive(expert, 1, seed=100).rows()[::25]
    config = GAILConfig(updates=8)
    runs = [gail(seen, expert(seen), config, seed=0) for _ in range(2)]
    assert np.array_equal(runs[0].log["loss"], runs[1].log["loss"])
    assert runs[0].log["survived"][-1] > 2 * runs[0].log["survived"][0]
    assert runs[0].steps == 8 * 32 * 32


def test_bad_input_is_named():
    with pytest.raises(InvalidTrajectoryError, match="label"):
        gail(np.zeros((3, 4)), np.zeros(2), seed=0)
    with pytest.raises(InvalidTrajectoryError, match="row 1"):
        gail(np.array([[0.0] * 4, [np.nan] * 4]), np.zeros(2), seed=0)
    with pytest.raises(InvalidHyperparameterError, match="form"):
        GAILConfig(form="log(1-D)")
    with pytest.raises(InvalidHyperparameterError, match="updates"):
        GAILConfig(updates=0)
