"""Chapter 13: every displayed equation that has code, against sums over all responses or groups."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from irlbook.errors import SamplingError
from irlbook.lm.enumerable import EnumerableLM, kl_from_logps
from irlbook.lm.logprobs import token_logps
from irlbook.lm.token_table import TokenTable
from irlbook.lm.trees import collate
from irlbook.planning import q_values
from irlbook.posttraining import kl
from irlbook.posttraining import policy_gradient as pg

BETA = 0.7


@pytest.fixture(scope="module")
def lm():
    """Two words and an end, at most three of them; habits that depend on the whole prefix."""
    draw = np.random.default_rng(0)
    return EnumerableLM.create(
        ("a", "b", "<end>"), 3, lambda rows: draw.dirichlet(np.full(3, 2.0), size=len(rows))
    )


@pytest.fixture(scope="module")
def p(lm):
    return np.exp(lm.sequence_log_probabilities())


@pytest.fixture(scope="module")
def reward(lm):
    return np.random.default_rng(1).normal(size=len(lm.responses))


@pytest.fixture(scope="module")
def other(lm):
    """(S, A) a policy that is not the reference."""
    draw = np.random.default_rng(2)
    mixed = 0.5 * lm.policy + 0.5 * draw.dirichlet(np.ones(3), size=lm.n_states)
    return np.where(lm.children[:, :1] >= 0, mixed, lm.policy)


def scores(lm, policy=None):
    """(R, S * A) by autograd."""
    table = TokenTable(lm, policy)
    rows = [
        torch.autograd.grad(x, table.logits, retain_graph=True)[0].numpy().ravel()
        for x in table.log_probabilities()
    ]
    return np.array(rows)


def by_differences(lm, function, policy, step=1e-5):
    """(S * A,) gradient of function(log p) by the logits."""
    logits, found = np.log(policy), np.zeros(policy.shape)
    for s, a in itertools.product(np.flatnonzero(lm.children[:, 0] >= 0), range(policy.shape[1])):
        values = []
        for sign in (1, -1):
            z = logits.copy()
            z[s, a] += sign * step
            z -= np.logaddexp.reduce(z, axis=1, keepdims=True)
            values.append(function(lm.sequence_log_probabilities(np.exp(z))))
        found[s, a] = (values[0] - values[1]) / (2 * step)
    return found.ravel()


def groups(p, k):
    members = np.array(list(itertools.product(range(len(p)), repeat=k)))
    return members, p[members].prod(axis=1)


def estimate(lm, p, advantages, members, share, weights=None):
    """(mean, variance) of sum_i c_i A_i score_i; c = 1 / k unless given (G, k)."""
    s, k = scores(lm), members.shape[1]
    a = np.asarray(advantages) * (1 / k if weights is None else weights)
    each = sum(a[:, [j]] * s[members[:, j]] for j in range(k))
    mean = share @ each
    return mean, share @ ((each - mean) ** 2).sum(axis=1)


def test_eq_13_1_and_13_2_score_function_gradient_of_reward_less_kl(lm, reward, other):
    log_ref, log_p = lm.sequence_log_probabilities(), lm.sequence_log_probabilities(other)

    def objective(now):
        return np.exp(now) @ reward - BETA * kl_from_logps(now, log_ref)

    shaped = reward - BETA * (log_p - log_ref)
    assert objective(log_p) == pytest.approx(np.exp(log_p) @ shaped, abs=1e-12)
    gradient = (np.exp(log_p) * shaped) @ scores(lm, other)
    np.testing.assert_allclose(gradient, by_differences(lm, objective, other), atol=1e-8)
    np.testing.assert_allclose(gradient, lm.policy_gradient(shaped, other).ravel(), atol=1e-12)


def test_eq_13_3_rewards_to_come_a_token_have_the_same_gradient(lm, reward, other):
    log_ref, log_p = lm.sequence_log_probabilities(), lm.sequence_log_probabilities(other)
    whole = (np.exp(log_p) * (reward - BETA * (log_p - log_ref))) @ scores(lm, other)
    total = np.zeros(other.shape)
    for i, ids in enumerate(lm.response_ids()):
        prefixes, prefix = [], 0
        for token in ids:
            prefixes.append(prefix)
            prefix = lm.children[prefix, token]
        paid = [
            -BETA * math.log(other[s, a] / lm.policy[s, a])
            for s, a in zip(prefixes, ids, strict=True)
        ]
        paid[-1] += reward[i]
        for t, (s, a) in enumerate(zip(prefixes, ids, strict=True)):
            score = -other[s]
            score[a] += 1
            total[s] += np.exp(log_p[i]) * sum(paid[t:]) * score
    np.testing.assert_allclose(total.ravel(), whole, atol=1e-12)


def test_eq_13_4_the_library_s_loss_steps_along_advantage_times_score(lm):
    picked, advantage = [0, 4, 7, 9], torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    table = TokenTable(lm)
    tree = collate([((0,), lm.response_ids(picked))])
    losses = pg.reinforce_loss(token_logps(table, tree), pg.per_token(advantage, tree.lengths))
    pg.aggregate(losses, tree.lengths, "constant", 1.0).backward()
    wanted = advantage.numpy() @ scores(lm)[picked] / 4
    np.testing.assert_allclose(-table.logits.grad.numpy().ravel(), wanted, atol=1e-12)


def test_eq_13_5_variance_is_a_parabola_in_the_baseline_with_its_bottom_at_b_star(lm, p, reward):
    s = scores(lm)
    squared, gradient = (s**2).sum(axis=1), (p * reward) @ s
    best = (p * squared) @ reward / (p @ squared)

    def variance(b):
        each = (reward - b)[:, None] * s
        np.testing.assert_allclose(p @ each, gradient, atol=1e-12)
        return p @ ((each - gradient) ** 2).sum(axis=1)

    for b in (-3.0, 0.0, 0.4, 5.0):
        formula = p @ ((reward - b) ** 2 * squared) - gradient @ gradient
        assert variance(b) == pytest.approx(formula, rel=1e-12)
        assert variance(b) - variance(best) == pytest.approx(
            (b - best) ** 2 * (p @ squared), abs=1e-10
        )


@pytest.mark.parametrize("k", [2, 3])
def test_eq_13_6_leave_one_out_is_the_stretched_deviation_and_unbiased(lm, p, reward, k):
    members, share = groups(p, k)
    r = torch.tensor(reward[members])
    found = pg.rloo_advantage(r)
    for i in range(k):
        rest = r[:, [j for j in range(k) if j != i]].mean(dim=1)
        torch.testing.assert_close(found[:, i], r[:, i] - rest)
    torch.testing.assert_close(found, k / (k - 1) * (r - r.mean(dim=1, keepdim=True)))
    mean, _ = estimate(lm, p, found, members, share)
    np.testing.assert_allclose(mean, (p * reward) @ scores(lm), atol=1e-12)


def test_eq_13_7_rloo_is_the_mean_over_pairs(lm, reward):
    s, members = scores(lm), [3, 8, 1, 5]
    a = pg.rloo_advantage(torch.tensor(reward[members])[None])[0].numpy()
    pairs = sum(
        (reward[i] - reward[j]) * (s[i] - s[j]) / 2 for i, j in itertools.combinations(members, 2)
    )
    np.testing.assert_allclose(a @ s[members] / 4, pairs * 2 / (4 * 3), atol=1e-12)


def test_eq_13_8_grpo_and_dr_grpo_in_units_of_rloo():
    r = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]], dtype=torch.float64)
    plain, scaled = pg.grpo_advantage(r, scale=False), pg.grpo_advantage(r)
    torch.testing.assert_close(plain, 2 / 3 * pg.rloo_advantage(r))
    torch.testing.assert_close(scaled[0], plain[0] / math.sqrt((4 + 1 + 9) / 2))
    assert not scaled[1].any()


def prompt_weight(k, q, advantage):
    """w in E[g] = w grad q for a reward of 0 or 1, over all 2^k outcomes, one by one."""
    total = 0.0
    for outcome in itertools.product([0.0, 1.0], repeat=k):
        a = advantage(torch.tensor([outcome], dtype=torch.float64))[0].numpy()
        won = np.array(outcome)
        chance = (q**won * (1 - q) ** (1 - won)).prod()
        total += chance * (a * (won / q - (1 - won) / (1 - q))).sum() / k
    return total


@pytest.mark.parametrize("k", [2, 3, 6])
@pytest.mark.parametrize("q", [0.05, 0.4, 0.9])
def test_eq_13_9_weight_of_a_prompt(k, q):
    m = np.arange(k + 1)
    chance = np.array([math.comb(k, i) * q**i * (1 - q) ** (k - i) for i in m])
    std = np.sqrt(m * (k - m) / (k * (k - 1)))
    formula = (k - 1) / k * (chance @ std) / (q * (1 - q))
    assert prompt_weight(k, q, pg.grpo_advantage) == pytest.approx(formula, rel=1e-12)
    assert prompt_weight(k, q, pg.rloo_advantage) == pytest.approx(1.0, rel=1e-12)


def test_eq_13_10_large_groups_climb_the_arcsine():
    for q in (0.1, 0.5, 0.8):
        k = 400
        m = np.arange(k + 1)
        log_chance = [
            math.lgamma(k + 1) - math.lgamma(i + 1) - math.lgamma(k - i + 1)
            + i * math.log(q) + (k - i) * math.log1p(-q)
            for i in m
        ]  # fmt: skip
        std = np.sqrt(m * (k - m) / (k * (k - 1)))
        w = (k - 1) / k * (np.exp(log_chance) @ std) / (q * (1 - q))
        assert w == pytest.approx(1 / math.sqrt(q * (1 - q)), rel=0.01)
        slope = 2 * (math.asin(math.sqrt(q + 1e-6)) - math.asin(math.sqrt(q - 1e-6))) / 2e-6
        assert slope == pytest.approx(1 / math.sqrt(q * (1 - q)), rel=1e-6)


def test_eq_13_11_two_samples_see_the_order_only(lm, p, reward):
    members, share = groups(p, 2)
    order = np.sign(reward[:, None] - reward[None, :]) @ p
    wanted = (p * order) @ scores(lm) / math.sqrt(2)
    for r in (reward, np.exp(3 * reward)):  # any increasing function of it
        a = pg.grpo_advantage(torch.tensor(r[members]))
        mean, _ = estimate(lm, p, a, members, share)
        np.testing.assert_allclose(mean, wanted, atol=1e-12)


def test_eq_13_12_dynamic_sampling_multiplies_the_whole_gradient():
    k, prompts = 4, {0.1: 0.2, 0.5: 0.3, 0.9: 0.5}  # success rate: share of the prompt
    kept = {q: rho * (1 - q**k - (1 - q) ** k) for q, rho in prompts.items()}
    for q, rho in prompts.items():
        given_mixed = 0.0
        for outcome in itertools.product([0.0, 1.0], repeat=k):
            if len(set(outcome)) == 2:
                a = pg.rloo_advantage(torch.tensor([outcome], dtype=torch.float64))[0].numpy()
                won = np.array(outcome)
                chance = (q**won * (1 - q) ** (1 - won)).prod() / (1 - q**k - (1 - q) ** k)
                given_mixed += chance * (a * (won / q - (1 - won) / (1 - q))).sum() / k
        share = kept[q] / sum(kept.values())
        assert share * given_mixed == pytest.approx(rho / sum(kept.values()), rel=1e-12)


@pytest.mark.parametrize("how", ["sequence", "token", "constant"])
def test_eq_13_13_three_ways_to_average_tokens(how):
    losses = torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0, 30.0], dtype=torch.float64)
    lengths = torch.tensor([1, 2, 3])
    wanted = {
        "sequence": (1.0 + (2 + 3) / 2 + (10 + 20 + 30) / 3) / 3,
        "token": 66 / 6,
        "constant": 66 / (3 * 5.0),
    }[how]
    found = pg.aggregate(losses, lengths, how, 5.0 if how == "constant" else None)
    assert float(found) == pytest.approx(wanted)


@pytest.mark.parametrize("k", [2, 3])
def test_eq_13_14_per_sequence_normalisation_climbs_another_reward(lm, p, reward, k):
    members, share = groups(p, k)
    lengths = lm.lengths[lm.responses]
    a = pg.grpo_advantage(torch.tensor(reward[members]), scale=False)
    mean, _ = estimate(lm, p, a, members, share, 1 / lengths[members] / k)
    effective = (reward - p @ reward) / lengths
    wanted = (k - 1) / k * (p * effective) @ scores(lm)
    np.testing.assert_allclose(mean, wanted, atol=1e-12)
    exact = (p * reward) @ scores(lm)
    cosine = mean @ exact / np.linalg.norm(mean) / np.linalg.norm(exact)
    assert cosine < 0.999


def test_eq_13_15_values_of_the_three_estimators(lm, other):
    log_p = torch.tensor(lm.sequence_log_probabilities(other))
    log_q = torch.tensor(lm.sequence_log_probabilities())
    exact = kl_from_logps(log_p.numpy(), log_q.numpy())
    mean = {
        name: float(log_p.exp() @ kl.kl_estimate(log_p, log_q, name)) for name in ("k1", "k2", "k3")
    }
    assert mean["k1"] == pytest.approx(exact, abs=1e-12)
    assert mean["k3"] == pytest.approx(exact, abs=1e-12)
    assert abs(mean["k2"] - exact) > 1e-3
    d = log_p - log_q
    torch.testing.assert_close(kl.kl_estimate(log_p, log_q, "k2"), d**2 / 2)
    torch.testing.assert_close(kl.kl_estimate(log_p, log_q, "k3"), torch.exp(-d) - 1 + d)
    turned = float(log_p.exp() @ kl.kl_estimate(log_q, log_p, "k3"))
    assert turned == pytest.approx(float((2 * log_p - log_q).exp().sum()) - 1 - exact, abs=1e-12)


def test_eq_13_16_gradients_as_a_loss_and_as_a_penalty(lm, other):
    table, log_q = TokenTable(lm, other), torch.tensor(lm.sequence_log_probabilities())
    log_p = table.log_probabilities()
    p = log_p.detach().exp()

    def slope(value):
        return torch.autograd.grad(value, table.logits, retain_graph=True)[0].numpy().ravel()

    reverse = by_differences(lm, lambda x: kl_from_logps(x, log_q.numpy()), other)
    forward = by_differences(lm, lambda x: kl_from_logps(log_q.numpy(), x), other)
    loss = {n: slope((p * kl.kl_loss(log_p, log_q, n)).sum()) for n in ("k1", "k2", "k3")}
    penalty = {n: slope((p * kl.kl_penalty(log_p, log_q, n) * log_p).sum()) for n in loss}
    np.testing.assert_allclose(loss["k1"], 0, atol=1e-12)
    np.testing.assert_allclose(loss["k2"], reverse, atol=1e-8)
    np.testing.assert_allclose(loss["k3"], forward, atol=1e-8)
    np.testing.assert_allclose(penalty["k1"], reverse, atol=1e-8)
    np.testing.assert_allclose(penalty["k3"], reverse - forward, atol=1e-8)
    d = (log_p - log_q).detach().numpy()
    for name, factor in (("k1", 1 + 0 * d), ("k2", d), ("k3", 1 - np.exp(-d))):
        wanted = (p.numpy() * factor) @ scores(lm, other)
        np.testing.assert_allclose(loss[name], wanted, atol=1e-12)


def test_eq_13_17_reward_with_a_forward_kl_ends_on_a_hyperbola(lm, p, reward):
    low, high = reward.max() + 1e-15, reward.max() + BETA
    for _ in range(200):
        middle = (low + high) / 2
        too_much = (BETA * p / (middle - reward)).sum() > 1
        low, high = (middle, high) if too_much else (low, middle)
    found = BETA * p / (high - reward)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    log_p, log_ref = np.log(found), np.log(p)

    def value(now):
        return np.exp(now) @ reward - BETA * kl_from_logps(log_ref, now)

    policy = lm.token_policy(log_p)
    np.testing.assert_allclose(by_differences(lm, value, policy), 0, atol=1e-7)
    for q in np.random.default_rng(3).dirichlet(np.ones(len(p)), size=50):
        assert value(np.log(0.9 * found + 0.1 * q)) < value(log_p)


def test_eq_13_18_the_clip_stops_the_pull_where_the_sign_agrees():
    ratio = torch.tensor([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 1.27, 1.29], dtype=torch.float64)
    for sign in (1.0, -1.0):
        x = ratio.log().requires_grad_()
        losses = pg.clipped_surrogate(x, torch.zeros(8), torch.full((8,), sign), 0.2, 0.28)
        (slope,) = torch.autograd.grad(losses.sum(), x)
        still = (ratio > 1.28) if sign > 0 else (ratio < 0.8)
        torch.testing.assert_close(slope, torch.where(still, 0.0, -sign * ratio))
        capped = ratio.clamp(0.8, 1.28)
        torch.testing.assert_close(losses.detach(), -torch.minimum(ratio * sign, capped * sign))


def test_on_fresh_samples_the_surrogate_has_the_policy_gradient(lm, p, reward):
    table = TokenTable(lm)
    tree = collate([((0,), lm.response_ids())])
    logps = token_logps(table, tree)
    advantage = pg.per_token(torch.tensor(reward - p @ reward), tree.lengths)
    losses = pg.clipped_surrogate(logps, logps.detach(), advantage)
    (pg.per_token(torch.tensor(p), tree.lengths) * losses).sum().backward()
    np.testing.assert_allclose(-table.logits.grad.numpy(), lm.policy_gradient(reward), atol=1e-12)


def test_rloo_is_dr_grpo_times_a_constant(lm, reward):
    picked = [2, 5, 5, 8]
    tree = collate([((0,), lm.response_ids(picked))])
    r, slopes = torch.tensor(reward[picked])[None], []
    for advantage, constant in (
        (pg.rloo_advantage(r), 1.0),
        (pg.grpo_advantage(r, scale=False), 80.0),
    ):
        table = TokenTable(lm)
        logps = token_logps(table, tree)
        a = pg.per_token(advantage[0], tree.lengths)
        losses = pg.clipped_surrogate(logps, logps.detach(), a)
        pg.aggregate(losses, tree.lengths, "constant", constant).backward()
        slopes.append(table.logits.grad.numpy())
    np.testing.assert_allclose(slopes[0], 80 * 4 / 3 * slopes[1], atol=1e-12)


def test_on_fresh_samples_the_reward_of_a_coin_has_no_mean_step(lm, p):
    members, share = groups(p, 2)
    total = 0.0
    for coins in itertools.product([0.0, 1.0], repeat=2):
        a = pg.grpo_advantage(torch.tensor([coins], dtype=torch.float64)).expand(len(members), 2)
        mean, _ = estimate(lm, p, a, members, share)
        total = total + mean / 4
    np.testing.assert_allclose(total, 0, atol=1e-12)


def test_eq_13_19_scored_at_another_temperature_a_baseline_is_not_free(lm, reward):
    tau = 0.6
    cool = lm.policy ** (1 / tau)
    cool /= cool.sum(axis=1, keepdims=True)
    p = np.exp(lm.sequence_log_probabilities(cool))
    right, wrong = scores(lm, cool) / tau, scores(lm)
    np.testing.assert_allclose(p @ right, 0, atol=1e-12)
    assert np.abs(p @ wrong).max() > 0.01

    def objective(log_warm):
        warm = lm.token_policy(log_warm)
        warm = warm ** (1 / tau) / (warm ** (1 / tau)).sum(axis=1, keepdims=True)
        return np.exp(lm.sequence_log_probabilities(warm)) @ reward

    exact = by_differences(lm, objective, lm.policy)
    np.testing.assert_allclose((p * reward) @ right, exact, atol=1e-8)
    tree = collate([((0,), lm.response_ids())])
    warm, drawn = (token_logps(TokenTable(lm, policy), tree) for policy in (lm.policy, cool))
    with pytest.raises(SamplingError, match="temperature"):
        pg.check_fresh(warm, drawn.detach())


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_eq_13_20_token_advantages_with_the_oracle_and_with_any_head(lm, p, reward, lam):
    lengths, ids = lm.lengths[lm.responses], lm.response_ids()
    before = []
    for answer in ids:
        prefix = 0
        for token in answer:
            before.append(prefix)
            prefix = lm.children[prefix, token]
    before, tokens = np.array(before), np.concatenate(ids)
    paid = np.zeros(len(before))
    paid[lengths.cumsum() - 1] = reward
    oracle = lm.prefix_values(reward)
    rough = oracle + np.random.default_rng(4).normal(size=lm.n_states)
    by_token, owner, found = scores_of_tokens(lm, ids), np.repeat(np.arange(len(p)), lengths), {}
    for name, values in (("oracle", oracle), ("rough", rough)):
        a, _ = pg.token_gae(
            torch.tensor(paid), torch.tensor(values[before]), torch.tensor(lengths), 1.0, lam
        )
        at = 0
        for i, answer in enumerate(ids):
            v = values[before[at : at + len(answer)]]
            delta = np.append(v[1:], reward[i]) - v
            for t in range(len(answer)):
                wanted = sum(lam ** (u - t) * delta[u] for u in range(t, len(answer)))
                assert float(a[at + t]) == pytest.approx(wanted, abs=1e-12)
            at += len(answer)
        if lam == 1:
            np.testing.assert_allclose(a, np.repeat(reward, lengths) - values[before], atol=1e-12)
        found[name] = (p[owner] * a.numpy()) @ by_token
    if lam == 0:
        exact = (q_values(lm.mdp(reward), oracle) - oracle[:, None])[before, tokens]
        a, _ = pg.token_gae(
            torch.tensor(paid), torch.tensor(oracle[before]), torch.tensor(lengths), 1.0, 0.0
        )
        np.testing.assert_allclose(a, exact, atol=1e-12)
    gradient = (p * reward) @ scores(lm)
    np.testing.assert_allclose(found["oracle"], gradient, atol=1e-12)
    unbiased = np.abs(found["rough"] - gradient).max() < 1e-12
    assert unbiased == (lam == 1)


def scores_of_tokens(lm, ids):
    """(N, S * A) one row a token."""
    rows = []
    for answer in ids:
        prefix = 0
        for token in answer:
            row = np.zeros(lm.policy.shape)
            row[prefix] = -lm.policy[prefix]
            row[prefix, token] += 1
            rows.append(row.ravel())
            prefix = lm.children[prefix, token]
    return np.array(rows)


@pytest.mark.parametrize("first", [0.05, 20.0])
def test_eq_13_21_the_adapted_price_rests_where_the_optimum_has_the_target_kl(lm, reward, first):
    """From either side, against a root finder; no step changes the price by more than 2 %."""
    log_ref, target, price = lm.sequence_log_probabilities(), 0.3, first

    def distance(beta):
        return kl_from_logps(lm.kl_optimum(reward, beta).log_probabilities, log_ref)

    for _ in range(600):
        factor = 1 + 0.1 * np.clip(distance(price) / target - 1, -0.2, 0.2)
        assert 0.98 <= factor <= 1.02
        price *= factor
    assert price == pytest.approx(brentq(lambda b: distance(b) - target, 0.01, 50), rel=1e-6)
