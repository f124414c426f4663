"""Neural GAIL: its loss and rewards against the tabular ones; a short run that learns."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from irlbook.errors import (
    DataNotFoundError,
    InvalidHyperparameterError,
    InvalidTrajectoryError,
    ResumeMismatchError,
)
from irlbook.imitation import fixed_horizon_study as fixed
from irlbook.imitation.adversarial import best_discriminator, discriminator_reward
from irlbook.imitation.gail import (
    Discriminator,
    GAILConfig,
    Squash,
    discriminator_loss,
    gail,
    gradient_penalty,
    scores_to_reward,
)
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
    begun = gail(seen, expert(seen), config, seed=0, rounds=2)
    assert np.array_equal(begun.log["loss"], runs[0].log["loss"][:2])
    assert begun.steps == 2 * 32 * 32


def test_bad_input_is_named():
    with pytest.raises(InvalidTrajectoryError, match="label"):
        gail(np.zeros((3, 4)), np.zeros(2), seed=0)
    with pytest.raises(InvalidTrajectoryError, match="row 1"):
        gail(np.array([[0.0] * 4, [np.nan] * 4]), np.zeros(2), seed=0)
    with pytest.raises(InvalidHyperparameterError, match="form"):
        GAILConfig(form="log(1-D)")
    with pytest.raises(InvalidHyperparameterError, match="updates"):
        GAILConfig(updates=0)
    with pytest.raises(InvalidHyperparameterError, match="gradient_penalty"):
        GAILConfig(gradient_penalty=-1.0)
    with pytest.raises(InvalidHyperparameterError, match="discriminator_batch"):
        GAILConfig(discriminator_batch=0)
    with pytest.raises(InvalidHyperparameterError, match="units"):
        GAILConfig(units=(1.0, 0.0))


def test_before_it_is_trained_the_discriminator_says_one_half_and_pays_log_2():
    judge = Discriminator(np.zeros(4), np.ones(4), 2, 8)
    scores = judge(torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1]))
    assert (scores == 0).all()
    assert np.allclose(scores_to_reward(scores.detach(), "-log(1-D)"), np.log(2))


def test_the_gradient_penalty_is_the_mean_squared_slope():
    class Slanted(torch.nn.Module):  # score 3 x0 - 4 x1, and twice that for action 1
        def forward(self, observations, actions):
            return (1 + actions) * (observations @ torch.tensor([3.0, -4.0]))

    ends = [(torch.randn(6, 2), torch.full((6,), action)) for action in (0, 1)]
    mix = torch.tensor([0.9, 0.8, 0.7, 0.1, 0.2, 0.3])  # three points near each end
    assert np.isclose(gradient_penalty(Slanted(), *ends, mix).item(), (25 + 100) / 2)


def test_the_gradient_penalty_agrees_with_finite_differences_between_the_ends():
    torch.manual_seed(0)
    judge = Discriminator(np.zeros(4), np.ones(4), 2, 8).double()
    torch.nn.init.normal_(judge.network.layers[-1].weight)
    expert, policy = (torch.randn(1, 4, dtype=torch.float64) for _ in range(2))
    action, mix = torch.tensor([1]), torch.tensor([0.25], dtype=torch.float64)
    point = 0.25 * expert + 0.75 * policy
    step = 1e-5 * torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        slopes = [(judge(point + e, action) - judge(point - e, action)) / 2e-5 for e in step]
    got = gradient_penalty(judge, (expert, 1 - action), (policy, action), mix)
    assert np.isclose(got.item(), sum(float(slope) ** 2 for slope in slopes), rtol=1e-6)


def test_squashed_observations_are_in_their_units_and_cut_off():
    squash = Squash((1.0, 0.2))
    assert torch.allclose(
        squash(torch.tensor([[0.5, 0.1], [-90.0, 7.0]])), torch.tensor([[0.5, 0.5], [-5.0, 5.0]])
    )


def test_a_blind_discriminator_learns_nothing_and_the_true_reward_is_only_written_down():
    seen, done = fixed.demonstration(0)
    config = replace(fixed.CONDITIONS["blind"], updates=2, num_envs=4)
    found = gail(seen, done, config, seed=0)
    assert np.allclose(found.log["loss"], 2 * np.log(2)) and (found.log["accuracy"] == 0.5).all()
    assert ((0 < found.log["true_reward"]) & (found.log["true_reward"] < 1)).all()


def test_what_the_expert_does_is_worth_200_and_an_empty_push_little():
    assert (fixed.true_returns(fixed.controller, episodes=5) == 200).all()
    assert fixed.true_returns(lambda o: np.zeros(len(o), dtype=int), episodes=5).max() < 15
    seen, done = fixed.demonstration(3)
    assert seen.shape == (20, 4) and np.array_equal(done, fixed.controller(seen))


def test_a_study_goes_on_where_it_stopped_and_refuses_other_settings(tmp_path, monkeypatch):
    short = replace(fixed.SETTINGS, updates=1, num_envs=2)
    monkeypatch.setattr(fixed, "CONDITIONS", {"GAIL": short})
    out, said = tmp_path / "found.json", []
    fixed.study(out, [0], ["GAIL"], said.append)
    fixed.study(out, [0, 1], ["GAIL"], said.append)
    assert [line.split(":")[0] for line in said] == [
        f"{name}, seed {seed}" for seed in (0, 1) for name in ("BC", "GAIL")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    monkeypatch.setattr(fixed, "CONDITIONS", {"GAIL": replace(short, hidden=16)})
    with pytest.raises(ResumeMismatchError, match="other settings"):
        fixed.study(out, [0], ["GAIL"])
    out.write_text("{")
    with pytest.raises(DataNotFoundError, match="make it again"):
        fixed.load(out)


def test_what_is_stored_was_made_with_the_settings_of_today():
    stored = fixed.load()
    today = {name: asdict(config) for name, config in fixed.CONDITIONS.items()}
    assert stored["settings"] == json.loads(json.dumps(today))
    assert all(len(runs) == 10 for runs in stored["runs"].values())
