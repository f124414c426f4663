"""The trial of Bradley-Terry against classification: what is drawn, and what is trained."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.preferences import embedding_trial
from irlbook.preferences.bradley_terry import fit_bradley_terry, sample_preferences
from irlbook.preferences.classification import fit_classification
from irlbook.preferences.embedding_trial import draw_trial, linear_head, network_heads


def test_a_trial_is_two_responses_per_prompt_each_compared_once():
    for design in ("same prompt", "cross-prompt"):
        trial = draw_trial(0, design, 1.0, 0.5, n_pairs=50, d=8)
        assert trial.embeddings.shape == (100, 8) and trial.test_gold.shape == (100, 10)
        assert sorted(trial.pairs.reshape(-1)) == list(range(100))
        of_one_prompt = (trial.pairs[:, 0] // 2 == trial.pairs[:, 1] // 2).mean()
        assert of_one_prompt == 1.0 if design == "same prompt" else of_one_prompt < 0.1


def test_the_prompts_part_is_shared_by_its_responses_and_as_large_as_asked():
    trial = draw_trial(1, "same prompt", 1.0, 2.0, n_pairs=4000, d=4)
    pairs = trial.embeddings.reshape(4000, 2, 4)
    shared = (pairs[:, 0] * pairs[:, 1]).mean()
    assert shared == pytest.approx(4.0, abs=0.2)
    assert pairs.var() == pytest.approx(5.0, abs=0.2)


def test_more_noise_gives_more_wrong_labels_and_a_higher_floor():
    shares, floors = zip(
        *[
            (trial.wrong_share, trial.floor)
            for noise in (0.1, 1.0, 3.0)
            for trial in [draw_trial(2, "same prompt", noise, 0.5, n_pairs=2000)]
        ],
        strict=True,
    )
    assert list(shares) == sorted(shares) and shares[0] < 0.06 < 0.35 < shares[2] < 0.5
    assert list(floors) == sorted(floors) and floors[2] < np.log(2)


def test_the_floor_is_the_loss_of_a_model_that_knows_every_probability(monkeypatch):
    """Recomputed from the gaps that the chooser saw, with the entropy written out."""
    seen = {}

    def watched(rewards, pairs, rng, beta):
        seen["gap"] = (rewards[pairs[:, 0]] - rewards[pairs[:, 1]]) / beta
        return sample_preferences(rewards, pairs, rng, beta=beta)

    monkeypatch.setattr(embedding_trial, "sample_preferences", watched)
    trial = draw_trial(3, "cross-prompt", 0.7, 0.5, n_pairs=500, d=4)
    p = 1 / (1 + np.exp(-seen["gap"]))
    assert trial.floor == pytest.approx(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())
    assert np.abs(seen["gap"]).mean() > 1.0  # two prompts differ more than the unit, one prompt's


def test_both_linear_heads_find_a_clear_order():
    trial = draw_trial(4, "same prompt", 0.1, 0.5)
    for fit in (fit_bradley_terry, fit_classification):
        guess = trial.test_embeddings @ linear_head(fit, trial)
        right = [np.corrcoef(x, y)[0, 1] for x, y in zip(guess, trial.test_gold, strict=True)]
        assert np.mean(right) > 0.8


def test_one_epoch_of_the_stack_is_one_epoch_of_two_plain_networks():
    trial = draw_trial(5, "same prompt", 1.0, 0.5, n_pairs=50, d=6)
    pairwise, single, losses = network_heads([trial], epochs=1, hidden=7, batch=20)
    torch.manual_seed(0)
    first, last = torch.randn(1, 6, 7)[0] / 6**0.5, torch.randn(1, 7, 1)[0] / 7**0.5
    order = torch.randperm(40)
    x = torch.tensor(trial.embeddings[trial.pairs], dtype=torch.float32)[:40]
    test = torch.tensor(trial.test_embeddings, dtype=torch.float32)
    for which, found in (("pairwise", pairwise), ("single", single)):
        net = torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.ReLU(), torch.nn.Linear(7, 1))
        with torch.no_grad():
            net[0].weight.copy_(first.T), net[2].weight.copy_(last.T)
            net[0].bias.zero_(), net[2].bias.zero_()
        optimiser, seen = torch.optim.Adam(net.parameters(), lr=4e-3), []
        for rows in order.split(20):
            r = net(x[rows])[..., 0]
            won = torch.sigmoid(r[:, 0] - r[:, 1])
            alone = torch.sigmoid(r[:, 0]), 1 - torch.sigmoid(r[:, 1])
            loss = -won.log().mean() if which == "pairwise" else -torch.cat(alone).log().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            seen.append(loss.item())
        with torch.no_grad():
            np.testing.assert_allclose(found[0], net(test)[..., 0].numpy(), atol=1e-5)
        if which == "pairwise":
            assert losses[0] == pytest.approx(np.mean(seen), abs=1e-5)


def test_what_cannot_be_drawn_or_stacked_is_refused():
    with pytest.raises(InvalidHyperparameterError, match="cross-prompt"):
        draw_trial(0, "one prompt", 1.0, 0.5)
    with pytest.raises(InvalidHyperparameterError, match="temperature"):
        draw_trial(0, "same prompt", 0.0, 0.5)
    with pytest.raises(ShapeError, match="one size"):
        network_heads([])
    with pytest.raises(ShapeError, match="one size"):
        network_heads([draw_trial(0, "same prompt", 1.0, 0.5, n_pairs=n) for n in (20, 30)])


def test_a_seed_gives_the_same_trial_again():
    one, two = (draw_trial(6, "cross-prompt", 1.0, 2.0, n_pairs=30) for _ in range(2))
    assert (one.pairs == two.pairs).all() and (one.embeddings == two.embeddings).all()
    assert one.floor == two.floor


def test_the_penalty_of_a_linear_head_is_chosen_on_a_fifth_and_scaled_to_all():
    trial = draw_trial(4, "same prompt", 1.0, 0.5, n_pairs=50, d=4)
    held = trial.embeddings[trial.pairs[40:, 0]] - trial.embeddings[trial.pairs[40:, 1]]
    right, asked = held.mean(axis=0), []

    def fit(pairs, phi, l2):
        asked.append((len(pairs), float(l2)))
        good = l2 in (0.8 * 10.0, 10.0)  # only this penalty orders the held-out fifth
        return SimpleNamespace(weights=right * (1.0 if good else -1.0) + (l2 == 10.0))

    found = linear_head(fit, trial)
    assert asked[:-1] == [(40, 0.8 * l2) for l2 in embedding_trial.PENALTIES]
    assert asked[-1] == (50, 10.0)
    np.testing.assert_allclose(found, right + 1.0)


def test_a_network_is_scored_at_the_epoch_that_ordered_the_held_out_pairs_best():
    """Stopped after k epochs, a stack is the same stack, so its history can be read off."""
    trial = draw_trial(7, "same prompt", 1.0, 0.5, n_pairs=60, d=5)
    runs = [network_heads([trial, trial], epochs=k, hidden=4, batch=16) for k in range(1, 7)]
    last = runs[-1]
    assert last[0].shape == (2, 100, 10) and last[2].shape == (6,)
    np.testing.assert_array_equal(runs[2][2], last[2][:3])
    for which in (0, 1):
        for one, other in pairwise([run[which][0] for run in runs]):
            kept = np.array_equal(one, other)
            assert kept or not np.allclose(one, other)
        assert any(np.array_equal(a[which], b[which]) for a, b in pairwise(runs))


def test_a_gold_reward_is_more_than_a_line_and_a_network_can_see_it():
    trial = draw_trial(8, "same prompt", 1.0, 0.0, n_pairs=10, d=8)
    x, y = trial.test_embeddings.reshape(-1, 8), trial.test_gold.reshape(-1)
    line = np.column_stack([x, np.ones(len(x))])
    rest = y - line @ np.linalg.lstsq(line, y, rcond=None)[0]
    assert 0.05 < rest.var() / y.var() < 0.6
