"""Every loss against its formula written plainly, in float64: value, gradient, sign, optimum."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from irlbook.errors import (
    InvalidHyperparameterError,
    ResponseError,
    ShapeError,
    UnidentifiedRewardError,
)
from irlbook.lm.trees import collate
from irlbook.posttraining import dpo, reward_model, sft
from irlbook.posttraining.regularised_reward import (
    generation_loss,
    regularised_objective,
    regularised_reward_loss,
)
from irlbook.training import Batch

PAIRS = 7


def random_pairs(seed: int = 0, pairs: int = PAIRS) -> tuple[torch.Tensor, torch.Tensor]:
    """(policy, reference), (P, 2) each, as log-probabilities of 5 to 40 tokens may be."""
    draw = torch.Generator().manual_seed(seed)
    reference = -40 * torch.rand(pairs, 2, dtype=torch.float64, generator=draw) - 2
    policy = reference + 3 * torch.randn(pairs, 2, dtype=torch.float64, generator=draw)
    return policy.requires_grad_(), reference


def s(x):
    """The logistic function, from exp alone."""
    return 1 / (1 + np.exp(-np.asarray(x)))


POLICY, REFERENCE = (x.detach().numpy() for x in random_pairs())
LENGTHS = np.random.default_rng(0).integers(1, 30, (PAIRS, 2))
LABELS = np.arange(PAIRS) % 3 > 0
H = 0.3 * ((POLICY[:, 0] - REFERENCE[:, 0]) - (POLICY[:, 1] - REFERENCE[:, 1]))
G = POLICY[:, 0] - POLICY[:, 1]
RATIO = POLICY - REFERENCE
MEAN = POLICY / LENGTHS
GAIN = 0.3 * RATIO[:, 0] - 0.2

# name: (the book's loss of policy (P, 2), the same in numpy, its gradient in column 0, in column 1)
LOSSES = {
    "sft": (
        lambda p, r: sft.sft_loss(p[:, 0], 12.5),
        -POLICY[:, 0] / 12.5,
        np.full(PAIRS, -1 / 12.5),
        0.0,
    ),
    "dpo": (
        lambda p, r: dpo.dpo_loss(p, r, 0.3),
        -np.log(s(H)),
        -0.3 * s(-H),
        0.3 * s(-H),
    ),
    "conservative": (
        lambda p, r: dpo.dpo_loss(p, r, 0.3, 0.1),
        -0.9 * np.log(s(H)) - 0.1 * np.log(s(-H)),
        0.3 * (s(H) - 0.9),
        -0.3 * (s(H) - 0.9),
    ),
    "robust": (
        lambda p, r: dpo.robust_dpo_loss(p, r, 0.3, 0.1),
        (-0.9 * np.log(s(H)) + 0.1 * np.log(s(-H))) / 0.8,
        0.3 * (-0.9 * s(-H) - 0.1 * s(H)) / 0.8,
        -0.3 * (-0.9 * s(-H) - 0.1 * s(H)) / 0.8,
    ),
    "exo": (
        lambda p, r: dpo.exo_loss(p, r, 0.3, 0.1),
        s(H) * np.log(s(H) / 0.9) + s(-H) * np.log(s(-H) / 0.1),
        0.3 * s(H) * s(-H) * (H - np.log(9)),
        -0.3 * s(H) * s(-H) * (H - np.log(9)),
    ),
    "ipo": (
        lambda p, r: dpo.ipo_loss(p, r, 0.3),
        (H / 0.3 - 1 / 0.6) ** 2,
        2 * (H / 0.3 - 1 / 0.6),
        -2 * (H / 0.3 - 1 / 0.6),
    ),
    "ipo by length": (
        lambda p, r: dpo.ipo_loss(p, r, 0.3, torch.from_numpy(LENGTHS)),
        (RATIO[:, 0] / LENGTHS[:, 0] - RATIO[:, 1] / LENGTHS[:, 1] - 1 / 0.6) ** 2,
        2 * (RATIO[:, 0] / LENGTHS[:, 0] - RATIO[:, 1] / LENGTHS[:, 1] - 1 / 0.6) / LENGTHS[:, 0],
        -2 * (RATIO[:, 0] / LENGTHS[:, 0] - RATIO[:, 1] / LENGTHS[:, 1] - 1 / 0.6) / LENGTHS[:, 1],
    ),
    "rso": (
        lambda p, r: dpo.rso_loss(p, r, 0.3),
        np.maximum(0, 1 - H),
        -0.3 * (H < 1),
        0.3 * (H < 1),
    ),
    "slic": (
        lambda p, r: dpo.slic_loss(p, 1.5, p[:, 0], 0.2),
        np.maximum(0, 1.5 - G) - 0.2 * POLICY[:, 0],
        -1.0 * (G < 1.5) - 0.2,
        1.0 * (G < 1.5),
    ),
    "simpo": (
        lambda p, r: dpo.simpo_loss(p, torch.from_numpy(LENGTHS), 2.5, 0.4),
        -np.log(s(2.5 * (MEAN[:, 0] - MEAN[:, 1]) - 0.4)),
        -2.5 / LENGTHS[:, 0] * s(0.4 - 2.5 * (MEAN[:, 0] - MEAN[:, 1])),
        2.5 / LENGTHS[:, 1] * s(0.4 - 2.5 * (MEAN[:, 0] - MEAN[:, 1])),
    ),
    "kto": (
        lambda p, r: dpo.kto_loss(p[:, 0], r[:, 0], torch.from_numpy(LABELS), 0.2, 0.3, 1.0, 1.33),
        np.where(LABELS, 1 - s(GAIN), 1.33 * (1 - s(-GAIN))),
        np.where(LABELS, -0.3 * s(GAIN) * s(-GAIN), 1.33 * 0.3 * s(GAIN) * s(-GAIN)),
        0.0,
    ),
    "bradley-terry": (
        lambda p, r: reward_model.bradley_terry_loss(p, 0.5, 0.1, 0.01),
        -0.9 * np.log(s(G - 0.5)) - 0.1 * np.log(s(0.5 - G)) + 0.01 * POLICY.sum(1) ** 2,
        s(G - 0.5) - 0.9 + 0.02 * POLICY.sum(1),
        0.9 - s(G - 0.5) + 0.02 * POLICY.sum(1),
    ),
    "classification": (
        lambda p, r: reward_model.classification_loss(p),
        -(np.log(s(POLICY[:, 0])) + np.log(s(-POLICY[:, 1]))) / 2,
        -s(-POLICY[:, 0]) / 2,
        s(POLICY[:, 1]) / 2,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_the_formula(name):
    loss_of, value, chosen_gradient, rejected_gradient = LOSSES[name]
    policy, reference = random_pairs()
    losses = loss_of(policy, reference)
    assert losses.shape == (PAIRS,) and losses.dtype == torch.float64
    np.testing.assert_allclose(losses.detach(), value, rtol=1e-10, atol=1e-14)
    (gradient,) = torch.autograd.grad(losses.sum(), policy)
    np.testing.assert_allclose(gradient[:, 0], chosen_gradient, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(gradient[:, 1], rejected_gradient + np.zeros(PAIRS), atol=1e-10)


BOUND = {"ipo by length", "simpo", "kto"}  # their lengths and labels are bound above


@pytest.mark.parametrize("name", sorted(set(LOSSES) - BOUND))
def test_a_pair_alone_has_the_loss_it_has_among_others(name):
    loss_of = LOSSES[name][0]
    policy, reference = random_pairs()
    alone = torch.cat([loss_of(policy[i : i + 1], reference[i : i + 1]) for i in range(PAIRS)])
    torch.testing.assert_close(alone, loss_of(policy, reference), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"kto"}))
def test_raising_the_preferred_response_never_raises_a_ranking_loss_far_from_its_optimum(name):
    loss_of = LOSSES[name][0]
    policy = torch.full((PAIRS, 2), -0.5, dtype=torch.float64, requires_grad=True)
    reference = policy.detach().clone()
    (gradient,) = torch.autograd.grad(loss_of(policy, reference).sum(), policy)
    assert (gradient[:, 0] < 0).all()
    assert (gradient[:, 1] >= 0).all()


DEFAULTS = {
    "dpo": (lambda p, r: dpo.dpo_loss(p, r), lambda p, r: dpo.dpo_loss(p, r, 0.1, 0.0)),
    "robust": (
        lambda p, r: dpo.robust_dpo_loss(p, r),
        lambda p, r: dpo.robust_dpo_loss(p, r, 0.1, 0.1),
    ),
    "exo": (lambda p, r: dpo.exo_loss(p, r), lambda p, r: dpo.exo_loss(p, r, 0.1, 0.1)),
    "ipo": (lambda p, r: dpo.ipo_loss(p, r), lambda p, r: dpo.ipo_loss(p, r, 0.1, None)),
    "rso": (lambda p, r: dpo.rso_loss(p, r), lambda p, r: dpo.rso_loss(p, r, 0.1)),
    "slic": (
        lambda p, r: dpo.slic_loss(p, sft_logps=p[:, 0]),
        lambda p, r: dpo.slic_loss(p, 1.0, p[:, 0], 0.1),
    ),
    "simpo": (
        lambda p, r: dpo.simpo_loss(p, torch.from_numpy(LENGTHS)),
        lambda p, r: dpo.simpo_loss(p, torch.from_numpy(LENGTHS), 2.0, 1.0),
    ),
    "kto": (
        lambda p, r: dpo.kto_loss(p[:, 0], r[:, 0], torch.from_numpy(LABELS), 0.2),
        lambda p, r: dpo.kto_loss(p[:, 0], r[:, 0], torch.from_numpy(LABELS), 0.2, 0.1, 1.0, 1.0),
    ),
    "sft": (lambda p, r: sft.sft_loss(p[:, 0]), lambda p, r: sft.sft_loss(p[:, 0], 1.0)),
    "bradley-terry": (
        lambda p, r: reward_model.bradley_terry_loss(p),
        lambda p, r: reward_model.bradley_terry_loss(p, 0.0, 0.0, 0.0),
    ),
    "classification": (
        lambda p, r: reward_model.classification_loss(p),
        lambda p, r: reward_model.classification_loss(p, 0.0),
    ),
    "generation": (
        lambda p, r: generation_loss(p[:, 0]),
        lambda p, r: generation_loss(p[:, 0], 0.1),
    ),
    "regularised": (
        lambda p, r: regularised_reward_loss(p, p[:, 0]),
        lambda p, r: regularised_reward_loss(p, p[:, 0], 0.01, 0.1),
    ),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_loss_without_settings_has_those_that_its_docstring_shows(name):
    without, with_them = (of(*random_pairs()) for of in DEFAULTS[name])
    assert without.equal(with_them)


def test_smoothed_classification_is_that_of_labels_that_flip():
    rewards, _ = random_pairs()
    flipped = reward_model.classification_loss(rewards.flip(1))
    found = reward_model.classification_loss(rewards, 0.2)
    expected = 0.8 * reward_model.classification_loss(rewards) + 0.2 * flipped
    torch.testing.assert_close(found, expected)


def test_sft_knows_the_mean_length_of_its_demonstrations():
    groups = [((1,), [[2, 3, 4]]), ((1,), [[5]])]
    goal = sft.objective(groups)
    assert goal.name == "sft(mean_length=2)" and goal.responses == 1 and not goal.needs_reference
    batch = Batch(collate(groups), tensor([0, 1]), None, {})
    found = goal.values(tensor([-3.0, -1.0]), batch)
    assert found["loss"].tolist() == [1.5, 0.5] and found["logp"].tolist() == [-3.0, -1.0]
    assert sft.objective([]).name == "sft(mean_length=0)"
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InvalidHyperparameterError, match="positive number of tokens"):
            sft.sft_loss(tensor([-1.0]), bad)


def test_a_regularised_objective_passes_its_settings_on():
    scores = tensor([[[1.0, -3.0], [0.5, -9.0]], [[0.0, -2.0], [2.0, -8.0]]]).double()
    batch = Batch(collate([((1,), [[2], [3]])] * 2), tensor([0, 1]), None, {})
    found = regularised_objective(0.25, 0.3).values(scores.flatten(0, 1), batch)
    rewards, chosen = scores[..., 0], scores[:, 0, 1]
    torch.testing.assert_close(found["loss"], regularised_reward_loss(rewards, chosen, 0.25, 0.3))
    assert found["chosen_logp"].tolist() == [-3.0, -2.0]
    assert found["margin"].tolist() == [0.5, -2.0]
    assert found["accuracy"].tolist() == [1.0, 0.0]
    assert regularised_objective(0.25, 0.3).name == "grm(weight=0.25, beta=0.3)"
    assert regularised_objective().name == "grm(weight=0.01, beta=0.1)"
    for beta in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidHyperparameterError, match="it must be positive"):
            generation_loss(chosen, beta)


def rafailov_loss(chosen, rejected, reference_chosen, reference_rejected, beta, smoothing, ipo):
    """The formula of the paper's own code, as they order it: log-ratio of the policy first."""
    log_ratio = chosen - rejected
    reference_log_ratio = reference_chosen - reference_rejected
    x = log_ratio - reference_log_ratio
    if ipo:
        return (x - 1 / (2 * beta)) ** 2
    return (
        -torch.log(torch.sigmoid(beta * x)) * (1 - smoothing)
        - torch.log(torch.sigmoid(-beta * x)) * smoothing
    )


@given(
    st.floats(0.01, 2),
    st.floats(0, 0.49),
    st.integers(0, 10_000),
)
def test_dpo_and_ipo_equal_the_reference_formula(beta, smoothing, seed):
    policy, reference = random_pairs(seed)
    parts = (policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1])
    torch.testing.assert_close(
        dpo.dpo_loss(policy, reference, beta, smoothing),
        rafailov_loss(*parts, beta, smoothing, ipo=False),
        rtol=1e-9,
        atol=1e-12,
    )
    torch.testing.assert_close(
        dpo.ipo_loss(policy, reference, beta), rafailov_loss(*parts, beta, 0, ipo=True)
    )


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_starts_at_log_2(beta, smoothing):
    _, reference = random_pairs()
    start = dpo.dpo_loss(reference, reference, beta, smoothing)
    assert torch.allclose(start, tensor(math.log(2), dtype=start.dtype), rtol=0, atol=1e-15)
    metrics = dpo.preference_metrics(reference, reference, beta)
    assert (metrics["margin"] == 0).all() and (metrics["accuracy"] == 0.5).all()


def test_losses_stay_finite_where_the_sigmoid_does_not():
    policy = tensor([[-1e4, 0.0], [0.0, -1e4]], requires_grad=True)
    losses = dpo.dpo_loss(policy, torch.zeros(2, 2), 1.0)
    np.testing.assert_allclose(losses.detach(), [1e4, 0.0])
    losses.sum().backward()
    assert policy.grad.tolist() == [[-1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("beta", [0.05, 0.5])
def test_each_optimum_of_the_table(beta):
    """Minimise over h itself: DPO has no finite optimum, the others stop where the table says."""

    def best(loss, steps=4000):
        h = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([h], max_iter=steps, tolerance_grad=1e-12)

        def closure():
            optimizer.zero_grad()
            value = loss(h).sum()
            value.backward()
            return value

        optimizer.step(closure)
        h = h.detach()
        return float(beta * (h[0, 0] - h[0, 1]))

    zero = torch.zeros(1, 2, dtype=torch.float64)
    assert best(lambda p: dpo.ipo_loss(p, zero, beta)) == pytest.approx(0.5, abs=1e-6)
    conservative = best(lambda p: dpo.dpo_loss(p, zero, beta, 0.1))
    assert conservative == pytest.approx(math.log(9), abs=1e-4)
    assert best(lambda p: dpo.dpo_loss(p, zero, beta)) > 10
    assert best(lambda p: dpo.rso_loss(p, zero, beta)) >= 1 - 1e-9

    def labels_disagree(loss):  # y+ wins with probability 0.8
        return lambda p: 0.8 * loss(p) + 0.2 * loss(p.flip(1))

    noisy_dpo = best(labels_disagree(lambda p: dpo.dpo_loss(p, zero, beta)))
    assert noisy_dpo == pytest.approx(math.log(4), abs=1e-4)  # the log-odds of the preference
    noisy_exo = best(labels_disagree(lambda p: dpo.exo_loss(p, zero, beta, 0.1)))
    assert noisy_exo == pytest.approx(2 * math.log(9) * (0.8 - 0.5), abs=1e-4)
    noisy_ipo = best(labels_disagree(lambda p: dpo.ipo_loss(p, zero, beta)))
    assert noisy_ipo == pytest.approx(0.8 - 0.5, abs=1e-6)
    unsure = best(labels_disagree(lambda p: dpo.robust_dpo_loss(p, zero, beta, 0.15)))
    clean = 0.65 / 0.7  # 0.8 = 0.85 q + 0.15 (1 - q)
    assert unsure == pytest.approx(math.log(clean / (1 - clean)), abs=1e-4)


def test_robust_dpo_is_dpo_on_clean_labels_in_expectation_and_conservative_is_not():
    policy, reference = random_pairs()
    clean = dpo.dpo_loss(policy, reference, 0.3)

    def over_flips(loss):
        return 0.8 * loss(policy, reference) + 0.2 * loss(policy.flip(1), reference.flip(1))

    robust = over_flips(lambda p, r: dpo.robust_dpo_loss(p, r, 0.3, 0.2))
    torch.testing.assert_close(robust, clean)
    conservative = over_flips(lambda p, r: dpo.dpo_loss(p, r, 0.3, 0.2))
    assert (conservative - clean).abs().min() > 1e-3


def test_exo_is_the_reverse_of_the_kl_that_conservative_dpo_lowers():
    policy, reference = random_pairs()
    chance = torch.sigmoid(dpo.preference_logit(policy, reference, 0.3))
    model, label = (torch.stack([q, 1 - q], dim=1) for q in (chance, torch.full_like(chance, 0.9)))
    reverse = (model * (model / label).log()).sum(dim=1)
    torch.testing.assert_close(dpo.exo_loss(policy, reference, 0.3, 0.1), reverse)
    forward = (label * (label / model).log()).sum(dim=1)
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    torch.testing.assert_close(dpo.dpo_loss(policy, reference, 0.3, 0.1) - entropy, forward)


def test_ipo_by_length_is_another_loss():
    policy, reference = random_pairs()
    one = torch.ones(PAIRS, 2, dtype=torch.long)
    summed = dpo.ipo_loss(policy, reference, 0.3)
    torch.testing.assert_close(dpo.ipo_loss(policy, reference, 0.3, one), summed)
    assert not torch.allclose(dpo.ipo_loss(policy, reference, 0.3, 10 * one), summed)


def test_mean_for_sum_is_seen_in_loss_and_gradient():
    """The trap: averaged log-probabilities give a DPO loss near log 2 and gradients |y| smaller."""
    tokens = tensor([-1.0, -2.0, -3.0, -0.5, -2.5], dtype=torch.float64, requires_grad=True)
    reference = tensor([[-9.0, -2.0]], dtype=torch.float64)
    summed = torch.stack([tokens[:3].sum(), tokens[3:].sum()])[None]
    averaged = torch.stack([tokens[:3].mean(), tokens[3:].mean()])[None]
    right = dpo.dpo_loss(summed, reference, 0.1).sum()
    wrong = dpo.dpo_loss(averaged, reference / tensor([3.0, 2.0]), 0.1).sum()
    assert abs(wrong.item() - math.log(2)) < abs(right.item() - math.log(2)) / 1.5
    ratio = torch.autograd.grad(right, tokens)[0] / torch.autograd.grad(wrong, tokens)[0]
    assert ratio[0] > 2.5 and ratio[-1] > 1.5


# KTO ----------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0, 20))
def test_kto_lies_between_0_and_its_weight(seed, reference_point):
    policy, reference = random_pairs(seed)
    good = torch.arange(PAIRS) % 2 == 0
    losses = dpo.kto_loss(policy[:, 0], reference[:, 0], good, reference_point, 1.0, 2.0, 3.0)
    weight = torch.where(good, 2.0, 3.0)
    assert (losses >= 0).all() and (losses <= weight).all()


def test_kto_at_the_reference_and_its_signs():
    policy, reference = random_pairs()
    good = tensor([True, False] + [True] * (PAIRS - 2))
    start = dpo.kto_loss(reference[:, 0], reference[:, 0], good, 0.0, 0.3, 1.0, 2.0)
    assert start.tolist() == [0.5, 1.0] + [0.5] * (PAIRS - 2)
    losses = dpo.kto_loss(policy[:, 0], reference[:, 0], good, 0.0)
    (gradient,) = torch.autograd.grad(losses.sum(), policy)
    assert ((gradient[:, 0] < 0) == good).all()  # good ones are raised, bad ones lowered


def test_kto_reference_point_is_a_clamped_mean_without_gradient():
    policy, reference = random_pairs()
    mismatched, own = policy[:, 0], reference[:, 0]
    expected = max(0.0, 0.3 * (mismatched - own).mean().item())
    point = dpo.kto_reference_point(mismatched, own, 0.3)
    assert float(point) == pytest.approx(expected) and not point.requires_grad
    assert dpo.kto_reference_point(own - 5, own, 0.3) == 0


# Length-normalised and reference-free -------------------------------------------------------------


def test_simpo_sees_only_means_per_token():
    policy, _ = random_pairs()
    lengths = torch.from_numpy(LENGTHS)
    loss = dpo.simpo_loss(policy, lengths)
    torch.testing.assert_close(dpo.simpo_loss(3 * policy, 3 * lengths), loss)
    shifted = policy + 0.7 * lengths  # the same amount on every token of both responses
    torch.testing.assert_close(dpo.simpo_loss(shifted, lengths), loss)
    half = dpo.simpo_loss(policy, lengths, beta=1.0, margin=0.5)
    logit = torch.log(torch.expm1(half))  # loss = log(1 + exp(-x)) gives back -x
    torch.testing.assert_close(torch.log1p(torch.exp(2 * logit)), loss)


def test_slic_is_flat_beyond_its_margin_unless_held_to_demonstrations():
    policy = tensor([[-1.0, -9.0], [-5.0, -5.5]], dtype=torch.float64)
    assert dpo.slic_loss(policy, 1.0).tolist() == [0.0, 0.5]
    held = dpo.slic_loss(policy, 1.0, sft_logps=policy[:, 0], sft_weight=0.1)
    assert held.tolist() == pytest.approx([0.1, 1.0])


# Rewards ------------------------------------------------------------------------------------------


def test_bradley_terry_does_not_see_what_depends_on_the_prompt_alone():
    rewards, _ = random_pairs()
    shift = 10 * torch.randn(PAIRS, 1, dtype=torch.float64, generator=torch.manual_seed(1))
    plain = reward_model.bradley_terry_loss
    torch.testing.assert_close(plain(rewards + shift, 0.3, 0.1), plain(rewards, 0.3, 0.1))
    assert not torch.allclose(
        plain(rewards + shift, centering=0.01), plain(rewards, centering=0.01)
    )
    classified = reward_model.classification_loss
    assert not torch.allclose(classified(rewards + shift), classified(rewards))


def test_centring_fixes_the_zero_and_not_the_difference():
    draw = torch.zeros(1, 2, dtype=torch.float64) + tensor([[7.0, 5.0]])
    found = {}
    for centering in (0.0, 0.01):
        rewards = draw.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([rewards], max_iter=500, tolerance_grad=1e-10)

        def closure(optimizer=optimizer, rewards=rewards, centering=centering):
            optimizer.zero_grad()
            loss = reward_model.bradley_terry_loss(rewards, 0.0, 0.2, centering).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        found[centering] = rewards.detach()[0]
    for rewards in found.values():
        assert float(rewards[0] - rewards[1]) == pytest.approx(math.log(4), abs=1e-4)
    assert float(found[0.0].sum()) == pytest.approx(12.0)  # where it began
    assert float(found[0.01].sum()) == pytest.approx(0.0, abs=1e-3)


def test_margin_asks_for_more():
    rewards = tensor([[2.0, 0.0]])
    assert float(reward_model.bradley_terry_loss(rewards, 2.0)) == pytest.approx(math.log(2))
    asked = reward_model.bradley_terry_loss(rewards, tensor([1.0]))
    assert asked > reward_model.bradley_terry_loss(rewards)


def test_reward_metrics_count_a_tie_as_half():
    metrics = reward_model.reward_metrics(tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
    assert metrics["accuracy"].tolist() == [1.0, 0.5, 0.0]
    assert metrics["margin"].tolist() == [1.0, 0.0, -1.0]
    assert metrics["mean_reward"].tolist() == [0.5, 0.0, 0.5]


def test_ensembles():
    rewards = tensor([[1.0, 3.0], [2.0, -1.0], [3.0, 1.0]])
    assert reward_model.ensemble_reward(rewards).tolist() == [2.0, 1.0]
    assert reward_model.ensemble_reward(rewards, "worst").tolist() == [1.0, -1.0]
    careful = reward_model.ensemble_reward(rewards, "uncertainty", 0.5)
    np.testing.assert_allclose(careful, [2 - 1 / 3, 1 - 4 / 3], rtol=1e-6)
    alone = reward_model.ensemble_reward(rewards[:1], "uncertainty", 9.0)
    assert alone.tolist() == rewards[0].tolist()
    with pytest.raises(ShapeError, match="one model"):
        reward_model.ensemble_reward(torch.zeros(0, 3))
    with pytest.raises(InvalidHyperparameterError, match="mean, worst"):
        reward_model.ensemble_reward(rewards, "median")


# Embeddings ---------------------------------------------------------------------------------------


def embedded_pairs(n: int, seed: int, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs (P, 2, H) labelled by a linear gold reward through Bradley-Terry, and its weights."""
    draw = torch.Generator().manual_seed(seed)
    gold = torch.linspace(-1.5, 2, size)
    x = torch.randn(n, 2, size, generator=draw) + 3 * torch.randn(n, 1, size, generator=draw)
    wins = torch.rand(n, generator=draw) < torch.sigmoid((x[:, 0] - x[:, 1]) @ gold)
    return torch.where(wins[:, None, None], x, x.flip(1)), gold


@pytest.mark.parametrize("hidden", [(), (16,)])
@pytest.mark.parametrize("loss", ["bt", "classification"])
def test_embedding_rewards_order_fresh_pairs(loss, hidden):
    pairs, gold = embedded_pairs(600, 0)
    steps = {"learning_rate": 1e-2} if hidden else {}
    config = reward_model.EmbeddingConfig(loss=loss, hidden=hidden, **steps)
    (model,) = reward_model.fit_embedding_reward(pairs, config)
    fresh, _ = embedded_pairs(500, 1)
    agree = ((fresh[:, 0] - fresh[:, 1]) @ gold > 0) == (model(fresh[:, 0]) > model(fresh[:, 1]))
    assert agree.float().mean() > (0.9 if loss == "bt" else 0.8)


def test_linear_bradley_terry_finds_the_gold_weights_up_to_noise():
    pairs, gold = embedded_pairs(4000, 2)
    (model,) = reward_model.fit_embedding_reward(pairs, reward_model.EmbeddingConfig(l2=0))
    weights = (model.head[0].weight[0] / model.scale).detach()
    np.testing.assert_allclose(weights, gold, atol=0.25)


def test_members_of_an_ensemble_differ_and_the_same_seed_repeats():
    pairs, _ = embedded_pairs(100, 3)
    config = reward_model.EmbeddingConfig(members=3, epochs=3, hidden=(4,))
    before = torch.random.get_rng_state()
    first = reward_model.fit_embedding_reward(pairs, config)
    assert torch.equal(before, torch.random.get_rng_state())  # nobody else's numbers move
    again = reward_model.fit_embedding_reward(pairs, config)
    scores = torch.stack([model(pairs[:, 0]) for model in first])
    assert torch.equal(scores, torch.stack([model(pairs[:, 0]) for model in again]))
    assert scores.std(0).min() > 1e-4


# Refusals -----------------------------------------------------------------------------------------

TWO = torch.zeros(3, 2)
REFUSED = {
    "flat": (lambda: dpo.dpo_loss(torch.zeros(6), torch.zeros(6)), ShapeError, "view"),
    "three columns": (lambda: dpo.simpo_loss(torch.zeros(2, 3), TWO), ShapeError, "pairs, 2"),
    "reference shape": (lambda: dpo.dpo_loss(TWO, TWO[:2]), ShapeError, "same responses"),
    "beta": (lambda: dpo.dpo_loss(TWO, TWO, 0.0), InvalidHyperparameterError, "beta"),
    "beta nan": (lambda: dpo.ipo_loss(TWO, TWO, math.nan), InvalidHyperparameterError, "beta"),
    "smoothing": (lambda: dpo.dpo_loss(TWO, TWO, 1, 0.5), InvalidHyperparameterError, "opposite"),
    "robust": (lambda: dpo.robust_dpo_loss(TWO, TWO, 1, -1), InvalidHyperparameterError, "flipped"),
    "slic": (lambda: dpo.slic_loss(TWO, -1.0), InvalidHyperparameterError, "negative"),
    "simpo": (lambda: dpo.simpo_loss(TWO, TWO + 1, 2, -1), InvalidHyperparameterError, "margin"),
    "no token": (lambda: dpo.simpo_loss(TWO, TWO), ResponseError, "end token"),
    "label without doubt": (
        lambda: dpo.exo_loss(TWO, TWO, 1, 0.0),
        InvalidHyperparameterError,
        "label_smoothing",
    ),
    "lengths": (lambda: dpo.ipo_loss(TWO, TWO, 1, TWO[0]), ShapeError, "lengths"),
    "kto labels": (lambda: dpo.kto_loss(TWO[:, 0], TWO[:, 0], TWO[:, 0], 0), ShapeError, "labels"),
    "kto weight": (
        lambda: dpo.kto_loss(TWO, TWO, TWO > 0, 0, 1, 0.0),
        InvalidHyperparameterError,
        "positive",
    ),
    "sft": (lambda: sft.sft_loss(TWO[:, 0], 0), InvalidHyperparameterError, "mean_length"),
    "rewards": (lambda: reward_model.bradley_terry_loss(TWO[0]), ShapeError, "view"),
    "bt smoothing": (
        lambda: reward_model.classification_loss(TWO, 0.7),
        InvalidHyperparameterError,
        "1/2",
    ),
    "centering": (
        lambda: reward_model.bradley_terry_loss(TWO, centering=-1),
        InvalidHyperparameterError,
        "centering",
    ),
    "embeddings": (lambda: reward_model.fit_embedding_reward(TWO), ShapeError, "pairs, 2, H"),
    "config": (lambda: reward_model.EmbeddingConfig(loss="x"), InvalidHyperparameterError, "bt"),
    "l2": (lambda: reward_model.EmbeddingConfig(l2=-1), InvalidHyperparameterError, "l2"),
    "members": (lambda: reward_model.EmbeddingConfig(members=0), InvalidHyperparameterError, "at"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_mend(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_iterative_dpo_pairs_the_best_with_the_worst_sample():
    groups = [([1], [[2], [3], [4]]), ([5], [[6], [7]]), ([8], [[9], [10]])]
    rewards = tensor([0.1, 2.0, -3.0, 1.0, 1.0, 0.0, 0.5])
    pairs = dpo.best_against_worst(groups, rewards)
    assert pairs == [([1], [[3], [4]]), ([8], [[10], [9]])]  # the second prompt's samples tie
    with pytest.raises(ShapeError, match="7 samples"):
        dpo.best_against_worst(groups, rewards[:3])


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_a_dimension_that_never_moved_is_not_read(hidden):
    """Constant in training, shifted by .001 afterwards: the rewards stay as they were."""
    draw = torch.Generator().manual_seed(0)
    pairs = torch.randn(200, 2, 6, generator=draw)
    pairs[:, 0, 0] += 1.0  # what is preferred
    pairs[..., 3], pairs[..., 4] = 7.3, 0.0
    steps = {"epochs": 5} if hidden else {"l2": 0.0}
    config = reward_model.EmbeddingConfig(hidden=hidden, **steps)
    (model,) = reward_model.fit_embedding_reward(pairs, config)
    moved = pairs.clone()
    moved[..., 3:5] += 1e-3 * torch.randn(200, 2, 2, generator=draw)
    assert torch.equal(model(moved), model(pairs))
    assert (model(pairs)[:, 0] > model(pairs)[:, 1]).float().mean() > 0.7


def test_a_dimension_that_hardly_moved_is_not_blown_up():
    draw = torch.Generator().manual_seed(0)
    pairs = torch.randn(200, 2, 6, generator=draw)
    pairs[..., 3] = 1.0 + 1e-5 * pairs[..., 3]
    scale = reward_model.input_scale(pairs.flatten(0, 1))
    assert scale[3] == pytest.approx(1e-3, rel=0.1)  # a thousandth of the others, not 1e-5
    assert scale[[0, 1, 2, 4, 5]].tolist() == pytest.approx([1.0] * 5, rel=0.1)
    with pytest.raises(UnidentifiedRewardError, match="all embeddings are the same"):
        reward_model.fit_embedding_reward(torch.full((4, 2, 3), 0.1))
