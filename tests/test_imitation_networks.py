"""Cloning with a network: the fit, the drive, the labels."""

import numpy as np
import pytest
import torch

from irlbook import errors
from irlbook.imitation.networks import (
    CloneConfig,
    check_labels,
    clone_network,
    dagger_network,
    drive,
)

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
    ],
)
def test_bad_labels_are_named_by_row(observations, labels, message):
    with pytest.raises(errors.InvalidTrajectoryError, match=message):
        check_labels(observations, np.asarray(labels), 2)


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
