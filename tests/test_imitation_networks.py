"""Cloning with a network: the fit, the drive, the labels."""

import itertools

import numpy as np
import pytest
import torch

from irlbook import errors
from irlbook.imitation import networks
from irlbook.imitation.networks import (
    CloneConfig,
    check_labels,
    clone_network,
    dagger_network,
    drive,
)
from irlbook.rl.ppo import make_vector_env

torch.set_num_threads(1)
GAINS = np.array([0.1, 0.3, 1.0, 0.6])


def expert(observations):
    return (observations @ GAINS > 0).astype(int)


def test_the_fit_reaches_the_frequencies_of_the_labels():
    """Maximum likelihood: with one-hot states the network must find the table's clone."""
    rng = np.random.default_rng(0)
    states = rng.integers(3, size=600)
    truth = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    labels = (rng.random(600) < truth[states, 1]).astype(int)
    config = CloneConfig(steps=600, weight_decay=0.0)
    fitted = clone_network(np.eye(3)[states], labels, 2, config, seed=0)
    with torch.inference_mode():
        got = torch.softmax(fitted.network(torch.eye(3)), dim=1).numpy()
    want = np.array([np.bincount(labels[states == s], minlength=2) for s in range(3)])
    np.testing.assert_allclose(got, want / want.sum(1, keepdims=True), atol=0.01)
    entropy = -(want * np.log(want / want.sum(1, keepdims=True))).sum() / 600
    assert fitted.losses[-1] == pytest.approx(entropy, abs=1e-3)


def test_held_out_labels_are_judged_by_the_network_of_each_step():
    """The same labels held out give the same losses; others give their own, and change nothing."""
    x = np.random.default_rng(2).normal(size=(40, 4))
    config = CloneConfig(steps=30)
    plain = clone_network(x, expert(x), 2, config, seed=0)
    assert plain.held_out is None and plain.losses.shape == (30,)
    same = clone_network(x, expert(x), 2, config, seed=0, held_out=(x, expert(x)))
    np.testing.assert_array_equal(same.held_out, same.losses)
    other = clone_network(x, expert(x), 2, config, seed=0, held_out=(x[:7], 1 - expert(x[:7])))
    np.testing.assert_array_equal(other.losses, plain.losses)
    assert other.held_out[-1] > other.held_out[0]  # labels turned round: what is learnt is wrong
    with pytest.raises(errors.InvalidTrajectoryError, match="row 1"):
        clone_network(x, expert(x), 2, config, seed=0, held_out=(x[:2], np.array([0, 2])))


def test_the_units_of_the_observations_do_not_matter():
    """Each is standardised by its own mean and spread; one that never moves is left as it is."""
    x = np.random.default_rng(3).normal(size=(50, 3))
    x[:, 2] = 0.0
    labels = (x[:, 0] > 0).astype(int)
    config = CloneConfig(steps=40)
    losses = [
        clone_network(x * units + origin, labels, 2, config, seed=0).losses
        for units, origin in ((1.0, 0.0), ([100.0, 0.01, 1.0], [5.0, 0.0, -2.0]))
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    fitted = clone_network(x, labels, 2, config, seed=0).network
    np.testing.assert_allclose(fitted.scale.numpy(), [*x[:, :2].std(axis=0), 1.0], rtol=1e-6)
    np.testing.assert_allclose(fitted.mean.numpy(), x.mean(axis=0), atol=1e-6)
    assert [tuple(layer.weight.shape) for layer in fitted.layers[::2]] == [
        (32, 3),
        (32, 32),
        (2, 32),
    ]


def test_weight_decay_pulls_the_weights_to_0():
    x = np.random.default_rng(4).normal(size=(30, 4))
    sizes = [
        sum(
            float(p.detach().square().sum())
            for p in clone_network(
                x, expert(x), 2, CloneConfig(steps=20, weight_decay=decay), seed=0
            ).network.parameters()
        )
        for decay in (0.0, 10.0)
    ]
    assert sizes[1] < 0.5 * sizes[0]


def test_the_first_step_of_adam_is_as_long_as_its_rate():
    """So one step moves each parameter that has a slope by the learning rate."""
    x = np.random.default_rng(5).normal(size=(30, 4))
    fits = [
        clone_network(x, expert(x), 2, CloneConfig(1, n, 0.03, 0.0), seed=0).network for n in (1, 2)
    ]
    steps = [a - b for a, b in zip(*(f.parameters() for f in fits), strict=True)]
    assert 0.01 < max(float(step.detach().abs().max()) for step in steps) < 0.031


def test_act_takes_the_likeliest_action():
    x = np.random.default_rng(6).normal(size=(30, 4))
    fitted = clone_network(x, expert(x), 3, CloneConfig(steps=5), seed=0)
    with torch.inference_mode():
        logits = fitted.network(torch.as_tensor(x, dtype=torch.float32)).numpy()
    assert logits.shape == (30, 3)
    np.testing.assert_array_equal(fitted.act(x), logits.argmax(axis=1))


def test_same_seed_same_network_and_the_global_stream_is_left_alone():
    x = np.random.default_rng(1).normal(size=(30, 4))
    state = torch.random.get_rng_state()
    runs = [clone_network(x, expert(x), 2, CloneConfig(steps=20), seed=s) for s in (3, 3, 4)]
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(runs[0].losses, runs[1].losses)
    assert (runs[0].losses != runs[2].losses).any()


@pytest.mark.parametrize(
    "observations, labels, message",
    [
        (np.zeros((3, 2)), [0, 1], "one label a row"),
        (np.zeros((0, 2)), [], "no label"),
        ([[0.0, np.nan], [1.0, 1.0]], [0, 1], "row 0: the observation"),
        (np.zeros((2, 2)), [0, 2], "row 1: label 2"),
        (np.zeros((2, 2)), [0, 0.5], "row 1: label 0.5"),
        (np.zeros((2, 2)), [-1, 0], "row 0: label -1 is not an action 0..1"),
        (np.zeros(2), [0, 1], "one label a row"),
        ([[0.0, 1.0], [np.inf, 1.0]], [0, 1], "row 1: the observation"),
    ],
)
def test_bad_labels_are_named_by_row(observations, labels, message):
    with pytest.raises(errors.InvalidTrajectoryError, match=message):
        check_labels(observations, np.asarray(labels), 2)


def test_good_labels_come_back_as_whole_numbers():
    x, y = check_labels([[1, 2], [3, 4], [5, 6]], np.array([0.0, 1.0, 1.0]), 2)
    assert x.dtype == np.float64 and x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert y.dtype == np.int64 and y.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("name", "least", "below"),
    [("hidden", 1, 0), ("steps", 1, 0), ("learning_rate", 1e-9, 0.0), ("weight_decay", 0.0, -1e-9)],
)
def test_settings_of_a_clone_have_a_least_value(name, least, below):
    CloneConfig(**{name: least})
    with pytest.raises(errors.InvalidHyperparameterError, match=name):
        CloneConfig(**{name: below})


def test_all_noise_is_a_fair_coin_and_none_is_the_controller():
    lazy = lambda o: np.zeros(len(o), dtype=int)  # noqa: E731
    noisy = drive(lazy, 50, seed=0, noise=1.0)
    assert abs(noisy.actions.mean() - 0.5) < 0.05 and set(np.unique(noisy.actions)) == {0, 1}
    assert not drive(lazy, 5, seed=0).actions.any()


def test_a_drive_begins_where_its_seed_says_and_goes_on_as_the_environment_does():
    driven = drive(expert, 3, seed=11, max_steps=6)
    env = make_vector_env("CartPole-v1", 3, 6)
    observation, _ = env.reset(seed=11)
    for t in range(6):
        np.testing.assert_array_equal(driven.observations[t], observation)
        np.testing.assert_array_equal(driven.actions[t], expert(observation))
        observation, *_ = env.step(driven.actions[t])
    assert driven.observations.shape == (6, 3, 4) and driven.running.all()
    other = drive(
        lambda o: np.zeros(len(o), dtype=int), 2, seed=0, env_id="Acrobot-v1", max_steps=3
    )
    assert other.observations.shape == (3, 2, 6)


def test_drive_stops_at_the_end_and_counts_the_steps():
    expert_drive = drive(expert, 4, seed=0, max_steps=60)
    assert expert_drive.returns.tolist() == [60] * 4
    assert expert_drive.rows().shape == (240, 4)
    hopeless = drive(lambda o: np.zeros(len(o), dtype=int), 4, seed=0)
    assert (hopeless.returns < 12).all() and hopeless.rows().shape == (hopeless.returns.sum(), 4)
    noisy = drive(expert, 8, seed=0, noise=0.5, max_steps=60)
    wrong = noisy.actions[noisy.running] != expert(noisy.observations[noisy.running])
    assert 0.15 < wrong.mean() < 0.35


def test_rows_are_in_the_order_of_the_episodes():
    driven = drive(expert, 3, seed=1, max_steps=20)
    np.testing.assert_array_equal(driven.rows()[20:40], driven.observations[:, 1])


def test_each_round_of_dagger_labels_its_share(monkeypatch):
    """10 labels in 4 rounds: 2, 3, 2, 3, drawn from drives of the expert, then of the clones."""
    driven, asked = [], []

    def noted(controller, episodes, **options):
        driven.append((controller, episodes, options))
        return drive(controller, episodes, max_steps=20, **options)

    def answers(observations):
        if len(observations) != 3:  # not when it drives
            asked.append(observations.copy())
        return expert(observations)

    monkeypatch.setattr(networks, "drive", noted)
    config = CloneConfig(steps=5, hidden=4)
    found = dagger_network(answers, 10, rounds=4, seed=3, config=config, episodes=3)
    assert [len(x) for x in asked] == [2, 5, 7, 10]
    for before, after in itertools.pairwise(asked):
        np.testing.assert_array_equal(after[: len(before)], before)  # nothing is forgotten
    assert len(np.unique(asked[-1], axis=0)) == 10  # no state is asked for twice
    assert driven[0][0] is answers and driven[-1][0] is not answers
    assert {episodes for _, episodes, _ in driven} == {3}
    assert len({options["seed"] for *_, options in driven}) == 4  # each round drives elsewhere
    last = clone_network(asked[-1], expert(asked[-1]), 2, config, seed=3)
    np.testing.assert_array_equal(found.losses, last.losses)


def test_dagger_may_ask_once_in_each_round_and_must_ask():
    once = CloneConfig(steps=1, hidden=2)
    dagger_network(expert, 2, rounds=2, seed=0, config=once, episodes=2)
    for rounds in (0, 3):
        with pytest.raises(errors.InvalidHyperparameterError, match=rf"got {rounds}, 2"):
            dagger_network(expert, 2, rounds=rounds, seed=0, config=once)


def test_dagger_uses_its_budget_and_beats_its_first_round():
    few = CloneConfig(steps=150)
    runs = [
        drive(dagger_network(expert, 40, rounds=r, seed=0, config=few).act, 16, seed=5).returns
        for r in (1, 4)
    ]
    assert runs[1].mean() > 450
    with pytest.raises(errors.InvalidHyperparameterError, match="rounds"):
        dagger_network(expert, 3, rounds=4, seed=0)
    with pytest.raises(errors.InvalidHyperparameterError):
        CloneConfig(steps=0)
