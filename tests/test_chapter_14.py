"""Chapter 14: every displayed equation that has code, against sums over all responses."""

import math

import numpy as np
import pytest
import torch

from irlbook.lm.enumerable import EnumerableLM, kl_from_logps
from irlbook.lm.token_table import TokenTable
from irlbook.posttraining import dpo

BETA = 0.7


@pytest.fixture(scope="module")
def lm():
    """Three tokens, at most three of them; habits that depend on the whole prefix."""
    draw = np.random.default_rng(0)
    rows = {}

    def habits(prefixes):
        for prefix in map(tuple, prefixes):
            rows.setdefault(prefix, draw.dirichlet(np.full(3, 2.0)))
        return np.array([rows[tuple(prefix)] for prefix in prefixes])

    return EnumerableLM.create(("a", "b", "<end>"), 3, habits)


@pytest.fixture(scope="module")
def reward(lm):
    return np.random.default_rng(1).normal(size=len(lm.responses))


@pytest.fixture(scope="module")
def all_pairs(reward):
    """(n, 2) ordered pairs and their shares when each is compared alike."""
    i, j = np.nonzero(~np.eye(len(reward), dtype=bool))
    share = 1 / (1 + np.exp(reward[j] - reward[i]))
    return torch.tensor(np.stack([i, j], axis=1)), torch.tensor(share / share.sum())


def dpo_objective(log_p, log_ref, pairs, share, beta=BETA):
    return (share * dpo.dpo_loss(log_p[pairs], torch.tensor(log_ref)[pairs], beta)).sum()


def minimise(table, objective, steps=300):
    optimiser = torch.optim.LBFGS(
        table.parameters(),
        max_iter=steps,
        tolerance_grad=1e-11,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        value = objective(table.log_probabilities())
        value.backward()
        return value

    optimiser.step(closure)
    return table.log_probabilities().detach().numpy()


@pytest.fixture(scope="module")
def trained(lm, all_pairs):
    log_ref = lm.sequence_log_probabilities()
    return minimise(TokenTable(lm), lambda log_p: dpo_objective(log_p, log_ref, *all_pairs))


def test_eq_14_1_and_14_2_the_tilted_reference_beats_every_other_policy(lm, reward):
    log_ref = lm.sequence_log_probabilities()
    optimum = lm.kl_optimum(reward, BETA)

    def value(log_p):
        return np.exp(log_p) @ reward - BETA * kl_from_logps(log_p, log_ref)

    tilt = log_ref + reward / BETA
    log_z = np.logaddexp.reduce(tilt)
    np.testing.assert_allclose(optimum.log_probabilities, tilt - log_z, atol=1e-12)
    assert value(optimum.log_probabilities) == pytest.approx(BETA * log_z, abs=1e-12)
    for p in np.random.default_rng(2).dirichlet(np.ones(len(reward)), size=50):
        loss = value(optimum.log_probabilities) - value(np.log(p))
        assert loss == pytest.approx(BETA * kl_from_logps(np.log(p), tilt - log_z), abs=1e-10)


def test_eq_14_3_implicit_reward_of_the_optimum_is_the_reward_less_beta_log_z(lm, reward):
    optimum = lm.kl_optimum(reward, BETA)
    log_ref = torch.tensor(lm.sequence_log_probabilities())
    implicit = dpo.implicit_rewards(torch.tensor(optimum.log_probabilities), log_ref, BETA)
    shift = implicit.numpy() - reward
    np.testing.assert_allclose(shift, -BETA * optimum.log_partition, atol=1e-12)


def test_eq_14_4_and_14_5_of_the_optimum_the_logit_is_the_difference_of_rewards(lm, reward):
    optimum = torch.tensor(lm.kl_optimum(reward, BETA).log_probabilities)
    log_ref = torch.tensor(lm.sequence_log_probabilities())
    pairs = torch.tensor([[0, 3], [5, 1], [2, 2]])
    h = dpo.preference_logit(optimum[pairs], log_ref[pairs], BETA)
    np.testing.assert_allclose(h, reward[pairs[:, 0]] - reward[pairs[:, 1]], atol=1e-12)
    loss = dpo.dpo_loss(optimum[pairs], log_ref[pairs], BETA)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-h.numpy())), atol=1e-12)
    assert float(loss[2]) == pytest.approx(math.log(2))


def test_eq_14_6_gradient_of_a_pair_on_the_logits_of_a_table(lm):
    table = TokenTable(lm, policy=lm.token_policy(np.log(_other_policy(lm))))
    log_ref = torch.tensor(lm.sequence_log_probabilities())
    pair = torch.tensor([[4, 7]])
    log_p = table.log_probabilities()
    (plus,) = torch.autograd.grad(log_p[4], table.logits, retain_graph=True)
    (minus,) = torch.autograd.grad(log_p[7], table.logits, retain_graph=True)
    loss = dpo.dpo_loss(log_p[pair], log_ref[pair], BETA).sum()
    (gradient,) = torch.autograd.grad(loss, table.logits)
    h = dpo.preference_logit(log_p[pair], log_ref[pair], BETA).item()
    by_formula = -BETA / (1 + math.exp(h)) * (plus - minus)
    torch.testing.assert_close(gradient, by_formula, rtol=0, atol=1e-13)


def _other_policy(lm):
    return np.random.default_rng(3).dirichlet(np.ones(len(lm.responses)))


def test_eq_14_7_population_loss_is_entropy_plus_kl_of_choices(lm, reward, all_pairs):
    log_ref, log_p = lm.sequence_log_probabilities(), np.log(_other_policy(lm))
    loss = float(dpo_objective(torch.tensor(log_p), log_ref, *all_pairs))
    total, n = 0.0, len(reward)
    for i in range(n):
        for j in range(i):
            p = 1 / (1 + math.exp(reward[j] - reward[i]))
            h = BETA * ((log_p - log_ref)[i] - (log_p - log_ref)[j])
            q = 1 / (1 + math.exp(-h))
            entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
            kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
            total += (entropy + kl) / (n * (n - 1) / 2)
    assert loss == pytest.approx(total, abs=1e-12)


def test_the_minimiser_over_all_pairs_is_the_optimum_of_rlhf(lm, reward, trained):
    optimum = lm.kl_optimum(reward, BETA).log_probabilities
    np.testing.assert_allclose(trained, optimum, atol=1e-6)


def test_eq_14_8_first_step_is_a_policy_gradient_step_on_the_win_rate(lm, reward):
    log_ref = lm.sequence_log_probabilities()
    p_ref, n = np.exp(log_ref), len(reward)
    i, j = np.divmod(np.arange(n * n), n)
    beats = 1 / (1 + np.exp(reward[None, :] - reward[:, None]))
    share = torch.tensor((p_ref[:, None] * p_ref[None, :] * beats)[i, j])
    table = TokenTable(lm)
    pairs = torch.tensor(np.stack([i, j], axis=1))
    # Each unordered draw stands here once in either order: twice the loss of (14.5).
    dpo_objective(table.log_probabilities(), log_ref, pairs, 2 * share).backward()
    uphill = lm.policy_gradient(beats @ p_ref)
    np.testing.assert_allclose(-table.logits.grad, 2 * BETA * uphill, atol=1e-14)
    assert np.abs(uphill).max() > 1e-3


def test_eq_14_9_pairs_within_a_set_fix_ratios_within_it_and_nothing_else(lm, reward, all_pairs):
    log_ref = lm.sequence_log_probabilities()
    covered = np.arange(len(reward)) != reward.argmax()
    pairs, share = all_pairs
    kept = torch.tensor(covered)[pairs].all(dim=1)
    pairs, share = pairs[kept], share[kept] / share[kept].sum()
    found = minimise(TokenTable(lm), lambda x: dpo_objective(x, log_ref, pairs, share))
    optimum = lm.kl_optimum(reward, BETA).log_probabilities
    assert np.ptp((found - optimum)[covered]) < 1e-6
    least = float(dpo_objective(torch.tensor(optimum), log_ref, pairs, share))
    assert float(dpo_objective(torch.tensor(found), log_ref, pairs, share)) == pytest.approx(
        least, abs=1e-9
    )
    for outside in (0.01, 0.99):  # any share of the mass may lie outside
        moved = np.where(covered, optimum, np.log(outside))
        inside = np.logaddexp.reduce(optimum[covered])
        moved[covered] += np.log1p(-outside) - inside
        assert np.exp(moved).sum() == pytest.approx(1)
        loss = float(dpo_objective(torch.tensor(moved), log_ref, pairs, share))
        assert loss == pytest.approx(least, abs=1e-12)
        assert np.abs(moved - optimum).max() > 0.1


def test_eq_14_10_one_small_step_moves_the_chosen_response_as_predicted(lm):
    table = TokenTable(lm, policy=lm.token_policy(np.log(_other_policy(lm))))
    log_ref = torch.tensor(lm.sequence_log_probabilities())
    pair, eta = torch.tensor([[2, 9]]), 1e-6
    log_p = table.log_probabilities()
    (plus,) = torch.autograd.grad(log_p[2], table.logits, retain_graph=True)
    (minus,) = torch.autograd.grad(log_p[9], table.logits, retain_graph=True)
    h = dpo.preference_logit(log_p[pair], log_ref[pair], BETA).item()
    predicted = eta * BETA / (1 + math.exp(h)) * float((plus * plus).sum() - (plus * minus).sum())
    dpo.dpo_loss(log_p[pair], log_ref[pair], BETA).sum().backward()
    with torch.no_grad():
        table.logits -= eta * table.logits.grad
    change = (table.log_probabilities()[2] - log_p[2]).item()
    assert change == pytest.approx(predicted, rel=1e-4)


def test_eq_14_11_with_one_shared_weight_the_chosen_response_falls_while_the_margin_grows():
    phi, log_ref = np.array([0.0, 1.0, 3.0]), np.log([0.35, 0.35, 0.30])

    def log_p(w):
        x = log_ref + w * phi
        return x - np.logaddexp.reduce(x)

    for w in np.linspace(0, 4, 9):
        slope = (log_p(w + 1e-6) - log_p(w - 1e-6)) / 2e-6
        np.testing.assert_allclose(slope, phi - np.exp(log_p(w)) @ phi, atol=1e-8)
        assert slope[1] < 0
    start, end = (torch.tensor(log_p(w)[[1, 0]][None]) for w in (0.0, 8.0))
    reference = torch.tensor(log_ref[[1, 0]][None])
    margin = dpo.preference_logit(end, reference, BETA)
    assert margin.item() == pytest.approx(8.0 * BETA) and end[0, 0] < start[0, 0] - 5


def test_eq_14_12_the_reference_point_of_kto_is_a_clamped_mean():
    policy, reference = torch.tensor([-3.0, -5.0]), torch.tensor([-4.0, -5.5])
    assert float(dpo.kto_reference_point(policy, reference, 0.5)) == pytest.approx(0.375)
    assert float(dpo.kto_reference_point(reference, policy, 0.5)) == 0.0


def logit(p):
    return math.log(p / (1 - p))


E = 0.1
OPTIMA = {
    "dpo": (lambda x, z: dpo.dpo_loss(x, z, 1.0), logit),
    "conservative": (
        lambda x, z: dpo.dpo_loss(x, z, 1.0, E),
        lambda p: logit((1 - E) * p + E * (1 - p)),
    ),
    "robust": (
        lambda x, z: dpo.robust_dpo_loss(x, z, 1.0, E),
        lambda p: logit((p - E) / (1 - 2 * E)),
    ),
    "ipo": (lambda x, z: dpo.ipo_loss(x, z, 1.0), lambda p: p - 0.5),
    "exo": (lambda x, z: dpo.exo_loss(x, z, 1.0, E), lambda p: (2 * p - 1) * math.log((1 - E) / E)),
    "rso": (lambda x, z: dpo.rso_loss(x, z, 1.0), lambda p: math.copysign(1.0, p - 0.5)),
}


@pytest.mark.parametrize("name", OPTIMA)
@pytest.mark.parametrize("p", [0.2, 0.45, 0.7, 0.85])
def test_eq_14_13_what_each_loss_is_content_with(name, p):
    loss, optimum = OPTIMA[name]
    grid = torch.linspace(-5, 5, 100_001, dtype=torch.float64)
    f = loss(torch.stack([grid, 0 * grid], dim=1), torch.zeros(len(grid), 2, dtype=grid.dtype))
    assert float(grid[(p * f + (1 - p) * f.flip(0)).argmin()]) == pytest.approx(
        optimum(p), abs=2e-4
    )


def test_a_reference_that_is_refreshed_k_times_divides_the_price_by_k(lm, reward, all_pairs):
    log_p = lm.sequence_log_probabilities()
    for k in (1, 2, 3):
        table = TokenTable(lm, policy=lm.token_policy(log_p))
        held = log_p
        log_p = minimise(table, lambda x, held=held: dpo_objective(x, held, *all_pairs))
        lower = lm.kl_optimum(reward, BETA / k).log_probabilities
        np.testing.assert_allclose(log_p, lower, atol=1e-5)


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_a_response_that_has_only_won_rises_for_ever_under_dpo_and_has_a_target_under_ipo(beta):
    """The slope by the log-ratio margin: DPO's has no zero, whatever the price; IPO's has one."""
    margin = torch.linspace(-30, 30, 601, dtype=torch.float64, requires_grad=True)
    policy = torch.stack([margin, torch.zeros_like(margin)], dim=1)
    (of_dpo,) = torch.autograd.grad(
        dpo.dpo_loss(policy, torch.zeros_like(policy), beta).sum(), margin, retain_graph=True
    )
    assert (of_dpo < 0).all()
    (of_ipo,) = torch.autograd.grad(
        dpo.ipo_loss(policy, torch.zeros_like(policy), beta).sum(), margin
    )
    assert (torch.sign(of_ipo) == torch.sign(margin - 1 / (2 * beta))).double().mean() > 0.99
