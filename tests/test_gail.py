"""Neural GAIL: its loss and rewards against the tabular ones; a short run that learns."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

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
from irlbook.imitation import gail as gail_module
from irlbook.imitation.adversarial import best_discriminator, discriminator_reward
from irlbook.imitation.gail import (
    Discriminator,
    GAILConfig,
    GAILResult,
    Squash,
    discriminator_loss,
    gail,
    gradient_penalty,
    scores_to_reward,
)
from irlbook.imitation.networks import drive
from irlbook.rl.ppo import ActorCritic, collect, make_vector_env

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
    run = gail(seen, expert(seen), config, seed=0)
    assert run.log["survived"][-1] > 2 * run.log["survived"][0]
    assert run.steps == 8 * 32 * 32
    begun = gail(seen, expert(seen), config, seed=0, rounds=2)
    assert np.array_equal(begun.log["loss"], run.log["loss"][:2])
    assert begun.steps == 2 * 32 * 32


def test_survived_is_the_mean_length_of_the_episodes_that_ended():
    """With a batch that holds whole episodes from their start, by counting in the environment."""
    seen = drive(expert, 1, seed=100).rows()[::25]
    config = GAILConfig(updates=1, num_envs=2, num_steps=40, epochs=1)
    found = gail(seen, expert(seen), config, seed=0)
    env = make_vector_env("CartPole-v1", 2)
    observation, _ = env.reset(seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        agent = ActorCritic(4, 2, 64)
    rng = np.random.default_rng(0)
    batch = collect(env, agent, observation.astype(np.float32), np.zeros(2, bool), 40, rng)
    steps, ends = batch.valid.sum(), (batch.terminated | batch.truncated).sum()
    assert ends >= 2
    assert found.log["survived"].tolist() == [steps / ends]
    assert found.log["true_reward"].tolist() == [1.0]  # CartPole pays 1 for each step


def test_both_rates_fall_to_0_only_where_they_are_asked_to(monkeypatch):
    """The policy's from the first update to the last; the discriminator's with the option."""
    rates = {}
    for kind in ("Adam", "AdamW"):

        class Noted(getattr(torch.optim, kind)):
            name = kind

            def step(self, *args, **kwargs):
                rates.setdefault(self.name, []).append(self.param_groups[0]["lr"])
                return super().step(*args, **kwargs)

        monkeypatch.setattr(torch.optim, kind, Noted)
    seen = drive(expert, 1, seed=100).rows()[::25]
    small = GAILConfig(
        updates=4, num_envs=2, num_steps=8, minibatch=8, epochs=3, hidden=4, discriminator_steps=2,
        learning_rate=1.0, discriminator_rate=8.0,
    )  # fmt: skip
    for anneal, wanted in ((False, [8.0] * 8), (True, [8, 8, 6, 6, 4, 4, 2, 2])):
        rates.clear()
        gail(seen, expert(seen), replace(small, discriminator_anneal=anneal), seed=0)
        assert rates["AdamW"] == wanted
        assert sorted(set(rates["Adam"]), reverse=True) == [1.0, 0.75, 0.5, 0.25]
        # 16 steps of which none is a reset yet: two minibatches in each of three passes.
        assert rates["Adam"][:7] == [1.0] * 6 + [0.75]


def test_without_units_the_discriminator_sees_the_expert_standardised(monkeypatch):
    """And what never moves is divided by 1, not by 0."""
    seen = drive(expert, 1, seed=100).rows()[::25]
    seen[:, 0] = 3.0
    given = []

    class Noted(Discriminator):
        def __init__(self, *args):
            given.append(args)
            super().__init__(*args)

    monkeypatch.setattr(gail_module, "Discriminator", Noted)
    config = GAILConfig(updates=1, num_envs=2, num_steps=4, hidden=5)
    gail(seen, expert(seen), config, seed=0)
    gail(seen, expert(seen), replace(config, units=(1.0, 2.0, 0.2, 1.0)), seed=0)
    (mean, scale, *sizes), (zero, one, *_) = given
    assert np.allclose(mean, seen.mean(axis=0)) and sizes == [2, 5]
    assert np.allclose(scale, [1.0, *seen[:, 1:].std(axis=0)])
    assert zero.tolist() == [0.0] * 4 and one.tolist() == [1.0] * 4  # `Squash` has scaled already


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_a_step_of_the_discriminator_goes_down_its_loss_and_the_weighted_penalty(kept):
    """One plain gradient step against the gradient of the sum, at the points that were drawn."""
    torch.manual_seed(0)
    judge = Discriminator(np.zeros(2), np.ones(2), 2, 3)
    torch.nn.init.normal_(judge.network.layers[-1].weight)
    before = [p.detach().clone() for p in judge.parameters()]
    ours = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    theirs = torch.randn(4, 2), torch.tensor([1, 0, 1, 0])
    config = GAILConfig(discriminator_steps=1, gradient_penalty=3.0 * kept)
    sgd = torch.optim.SGD(judge.parameters(), lr=0.1)
    gail_module._teach(judge, sgd, ours, theirs, config, np.random.default_rng(7))
    moved = [(p.detach() - b) / -0.1 for p, b in zip(judge.parameters(), before, strict=True)]

    for p, b in zip(judge.parameters(), before, strict=True):
        p.data.copy_(b)
    loss = discriminator_loss(judge(*ours), judge(*theirs))
    if kept:
        rng = np.random.default_rng(7)
        at = torch.from_numpy(rng.integers(5, size=4))
        mix = torch.from_numpy(rng.random(4)).float()
        ends = (ours[0][at], ours[1][at]), theirs
        loss = loss + 3.0 * gradient_penalty(judge, *ends, mix)
    slopes = torch.autograd.grad(loss, list(judge.parameters()), allow_unused=True)
    for got, slope in zip(moved, slopes, strict=True):
        assert torch.allclose(got, torch.zeros_like(got) if slope is None else slope, atol=1e-5)


def test_a_run_leaves_the_global_stream_of_torch_alone():
    state = torch.random.get_rng_state()
    seen = drive(expert, 1, seed=100).rows()[::25]
    gail(seen, expert(seen), GAILConfig(updates=1, num_envs=2, num_steps=4), seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


COUNTS = ("num_envs", "num_steps", "updates", "epochs", "minibatch", "hidden")


@pytest.mark.parametrize("name", [*COUNTS, "discriminator_batch"])
def test_a_count_may_be_1_and_not_0(name):
    GAILConfig(**{name: 1})
    with pytest.raises(InvalidHyperparameterError, match=f"{name} must be at least 1"):
        GAILConfig(**{name: 0})


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


def test_the_beginning_of_a_stored_run_comes_out_again():
    """The study's runs are stored: whatever changes the loop changes what a run goes through."""
    stored = fixed.load()["runs"]["short batches"]["1"]
    found = gail(*fixed.demonstration(1), fixed.CONDITIONS["short batches"], seed=1, rounds=4)
    assert np.allclose(found.log["loss"], stored["loss"][:4], atol=2e-4)
    assert np.allclose(found.log["accuracy"], stored["accuracy"][:4], atol=2e-4)
    assert np.allclose(200 * found.log["true_reward"], stored["upright"][:4], atol=0.06)


def test_the_command_of_the_study_clones_as_it_did(tmp_path, capsys):
    """Without a condition only behaviour cloning is run; its stored return comes out again."""
    out = tmp_path / "found.json"
    assert fixed.main(["--out", str(out), "--seeds", "2", "--conditions"]) == 0
    found, stored = fixed.load(out), fixed.load()
    assert list(found["runs"]["BC"]) == ["2"]
    again = found["runs"]["BC"]["2"]["return"]
    assert again == pytest.approx(stored["runs"]["BC"]["2"]["return"], abs=0.5)
    assert f"BC, seed 2: {again:.0f} of 200" in capsys.readouterr().out
    assert found["settings"] == stored["settings"]
    assert [found["runs"][name] for name in fixed.CONDITIONS] == [{}] * len(fixed.CONDITIONS)
    assert set(found["made_with"]) == {"python", "torch", "numpy", "gymnasium"}
    with pytest.raises(SystemExit):
        fixed.main(["--out", str(out), "--conditions", "deaf"])


def like_the_expert(observations):
    """Logits (n, 2) of a policy whose likelier action is the expert's."""
    lean = observations @ torch.tensor([0.1, 0.3, 1.0, 0.6])
    return torch.stack([-lean, lean], dim=1)


def test_a_summary_holds_the_return_of_the_likeliest_actions_and_the_curves():
    log = {"loss": [1.23456, 0.5], "accuracy": [0.5, 2 / 3], "true_reward": [0.25, 1.0]}
    agent = SimpleNamespace(actor=like_the_expert)
    result = GAILResult(agent, 0, {name: np.array(values) for name, values in log.items()})
    assert fixed.summary_of(result) == {
        "return": 200.0,
        "upright": [50.0, 200.0],
        "loss": [1.2346, 0.5],
        "accuracy": [0.5, 0.6667],
    }


def test_what_is_stored_was_made_with_the_settings_of_today():
    stored = fixed.load()
    today = {name: asdict(config) for name, config in fixed.CONDITIONS.items()}
    assert stored["settings"] == json.loads(json.dumps(today))
    assert all(len(runs) == 10 for runs in stored["runs"].values())
