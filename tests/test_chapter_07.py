"""Every displayed equation of chapter 7 that has code, against an independent computation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from irlbook import planning
from irlbook.envs.gridworld import gridworld
from irlbook.envs.labyrinth import labyrinth, thirsty
from irlbook.irl.bayesian import (
    Posterior,
    calibration_ranks,
    choice_counts,
    many_log_likelihoods,
    metropolis,
)
from irlbook.irl.deep_maxent import (
    DeepMaxEntConfig,
    OccupancyDual,
    fit_deep_max_ent,
    reward_network,
)
from irlbook.irl.maxent import causal_dual
from irlbook.mdp import sample_trajectories
from tests.oracles import enumerated_occupancy, trajectories

T, BETA = 3, 0.7


@pytest.fixture
def world():
    """A noisy 2 x 2 grid that can be enumerated, an expert's occupancy, and features (S, 2)."""
    mdp = gridworld(2, 2, goals={}, stay=False, slip=0.2, discount=0.9)
    features = np.random.default_rng(0).normal(size=(4, 2))
    plan = planning.soft_backward_induction(mdp.with_reward(features @ [1.0, -0.7]), T, beta=BETA)
    return mdp, features, enumerated_occupancy(mdp, plan.policy, T)


def enumerated_dual(mdp, reward, expert):
    """V_r(p_0) - <rho_E, r>, with V as the best entropy-regularised return over all paths."""
    plan = planning.soft_backward_induction(mdp.with_reward(reward), T, beta=BETA)
    total = 0.0
    for steps, _, chance in trajectories(mdp, T):
        gain = 0.0
        for t, (s, a) in enumerate(steps):
            chance *= plan.policy[t, s, a]
            gain += mdp.discount**t * (reward[s, a] - BETA * np.log(plan.policy[t, s, a]))
        total += chance * gain
    return total - (expert * reward).sum()


def test_eq_7_1_and_7_2_the_dual_of_a_table_and_its_gradient(world):
    mdp, _, expert = world
    reward = np.random.default_rng(1).normal(size=mdp.reward.shape)
    dual = OccupancyDual(mdp, expert, on_states=False, horizon=T, beta=BETA)
    table = torch.tensor(reward, requires_grad=True)
    value = dual(table)
    assert value.item() == pytest.approx(enumerated_dual(mdp, reward, expert), abs=1e-10)
    value.backward()
    gap = enumerated_occupancy(mdp, dual.policy(), T) - expert
    np.testing.assert_allclose(table.grad.numpy(), gap, atol=1e-10)


def test_eq_7_3_the_chain_rule_through_a_network(world):
    mdp, features, expert = world
    network = reward_network(2, (3,), seed=0)
    inputs = torch.from_numpy(features)
    dual = OccupancyDual(mdp, expert, horizon=T, beta=BETA)
    dual(network(inputs).squeeze(-1)).backward()
    gap = (enumerated_occupancy(mdp, dual.policy(), T) - expert).sum(axis=1)
    for p in network.parameters():
        by_hand = torch.zeros_like(p)
        for s in range(4):  # sum_s gap(s) dr(s)/dtheta, one state at a time
            by_hand += gap[s] * torch.autograd.grad(network(inputs[s])[0], p)[0]
        torch.testing.assert_close(p.grad, by_hand, atol=1e-9, rtol=0)


def test_eq_7_4_is_what_the_library_minimises(world):
    mdp, features, expert = world
    config = DeepMaxEntConfig(
        hidden=(3,), weight_decay=0.2, reward_decay=0.7, max_iterations=60, tolerance=1e-6
    )
    result = fit_deep_max_ent(mdp, features, expert, config, horizon=T, beta=BETA, strict=False)
    r = result.reward[:, 0]
    weights = sum((p**2).sum().item() for p in result.network.parameters())
    by_hand = enumerated_dual(mdp, result.reward, expert) + 0.35 * (r**2).mean() + 0.1 * weights
    assert result.trace[-1, 0] == pytest.approx(by_hand, abs=1e-9)
    assert result.trace[-1, 0] < result.trace[0, 0]


def shown(world, n=6, seed=0):
    mdp, features, _ = world
    plan = planning.soft_backward_induction(mdp.with_reward(features @ [1.0, -0.7]), T, beta=BETA)
    return sample_trajectories(mdp, plan.policy, n, T, np.random.default_rng(seed))


def test_eq_7_5_and_7_6_likelihood_and_posterior(world):
    mdp, features, _ = world
    demos, w = shown(world), np.array([0.4, 0.9])
    plan = planning.soft_backward_induction(mdp.with_reward(features @ w), T, beta=BETA)
    by_hand = sum(
        (plan.q[t, s, a] - plan.values[t, s]) / BETA
        for states, actions in demos
        for t, (s, a) in enumerate(zip(states[:-1], actions, strict=True))
    )
    posterior = Posterior(
        mdp, features, choice_counts(demos, mdp, T), prior_deviation=1.7, beta=BETA
    )
    assert posterior.log_likelihood(w)[0] == pytest.approx(by_hand, abs=1e-9)
    density = by_hand - (w @ w) / (2 * 1.7**2)
    assert posterior.log_density(w)[0] == pytest.approx(density, abs=1e-9)
    # The dual is the likelihood without luck and discount only.
    quiet = gridworld(2, 2, goals={}, stay=False, slip=0.0, discount=1.0)
    seen = shown((quiet, features, None))
    first = np.bincount([states[0] for states, _ in seen], minlength=4) / len(seen)
    mu = seen.feature_expectations(features, 4)
    dual, _ = causal_dual(w, replace(quiet, start=first), features, mu, horizon=T, beta=BETA)
    counts = choice_counts(seen, quiet, T)
    value = Posterior(quiet, features, counts, prior_deviation=1.0, beta=BETA).log_likelihood(w)[0]
    assert value == pytest.approx(-len(seen) * dual / BETA, abs=1e-9)


def test_eq_7_7_fisher_from_finite_differences_of_q(world):
    mdp, features, _ = world
    demos, w, step = shown(world), np.array([0.4, 0.9]), 1e-5
    counts = choice_counts(demos, mdp, T)
    plans = [
        planning.soft_backward_induction(mdp.with_reward(features @ v), T, beta=BETA)
        for v in (w, *(w + step * e for e in np.eye(2)), *(w - step * e for e in np.eye(2)))
    ]
    slopes = np.stack([(plans[1 + k].q - plans[3 + k].q) / (2 * step) for k in range(2)], axis=-1)
    centred = slopes - np.einsum("tsa,tsak->tsk", plans[0].policy, slopes)[:, :, None]
    weights = counts.sum(axis=2)[:, :, None] * plans[0].policy
    by_hand = np.einsum("tsa,tsak,tsal->kl", weights, centred, centred) / BETA**2
    posterior = Posterior(mdp, features, counts, prior_deviation=1.0, beta=BETA)
    np.testing.assert_allclose(posterior.fisher(w), by_hand, atol=1e-6)
    fit = posterior.laplace(tolerance=1e-8)
    np.testing.assert_allclose(posterior.log_density(fit.mode)[1], 0.0, atol=1e-7)
    precision = posterior.fisher(fit.mode) + np.eye(2)
    np.testing.assert_allclose(fit.covariance @ precision, np.eye(2), atol=1e-9)


def test_eq_7_8_metropolis_keeps_its_target():
    """On a two-humped density whose mean and variance are integrals on a line."""
    axis = np.linspace(-6, 6, 4001)

    def log_p(x):
        return np.logaddexp(-0.5 * (x + 1.2) ** 2, np.log(0.5) - (x - 1.5) ** 2)

    mass = np.exp(log_p(axis)) / np.exp(log_p(axis)).sum()
    rng = np.random.default_rng(0)
    start = rng.choice(axis, p=mass, size=(300, 1))  # already right: it must stay so
    chains = metropolis(lambda w: log_p(w[:, 0]), start, 2.0 * np.eye(1), 200, rng)
    draws = chains.draws.reshape(-1)
    mean, error = mass @ axis, draws.std() / np.sqrt(chains.effective_size().sum())
    assert abs(draws.mean() - mean) < 4 * error
    assert draws.var() == pytest.approx(mass @ (axis - mean) ** 2, rel=0.05)


def test_eq_7_9_ranks_are_uniform_for_exact_posteriors_and_bent_for_narrow_ones():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(800, 2))
    seen = truth + rng.normal(size=(800, 2))  # posterior N(seen / 2, 1/2)

    def p_value(width):
        draws = seen / 2 + width * np.sqrt(0.5) * rng.normal(size=(20, 800, 2))
        ranks = calibration_ranks(truth, draws)
        assert ranks.min() >= 0 and ranks.max() <= 20
        return stats.chisquare(np.bincount(ranks.reshape(-1), minlength=21)).pvalue

    assert p_value(1.0) > 0.01 and p_value(0.6) < 1e-6 and p_value(1.6) < 1e-6


def test_eq_7_10_shaping_directions_carry_no_information(world):
    mdp, _, _ = world
    pairs = np.eye(16).reshape(4, 4, 16)
    demos = shown(world, n=30)
    posterior = Posterior(mdp, pairs, choice_counts(demos, mdp), prior_deviation=2.0)
    fit = posterior.laplace()
    for potential in np.eye(4):
        shaping = (mdp.discount * mdp.transitions @ potential).reshape(4, 4) - potential[:, None]
        d = shaping.reshape(-1)
        np.testing.assert_allclose(posterior.fisher(fit.mode) @ d, 0.0, atol=1e-9)
        here, there = (posterior.log_likelihood(fit.mode + x * d)[0] for x in (0.0, 3.0))
        assert here == pytest.approx(there, abs=1e-7)
        assert d @ fit.covariance @ d == pytest.approx(4.0 * d @ d, rel=1e-8)


def test_eq_7_11_thirst_is_one_weight_more():
    plain = labyrinth(2)
    maze = thirsty(plain, refill=0.3)
    features = sparse.hstack([maze.arrivals(), maze.arrives_thirsty()], format="csr")
    n = plain.mdp.n_states
    w = np.random.default_rng(0).normal(size=n + 1)
    reward = (features @ w).reshape(2 * n, 3)
    after = plain.mdp.dense().argmax(axis=2)
    for s in range(n - 1):
        for a in range(3):
            place = after[s, a]
            extra = w[n] if place == plain.port else 0.0
            assert reward[s, a] == pytest.approx(w[place] + extra)
            assert reward[n + s, a] == pytest.approx(w[place])


def test_the_second_likelihood_agrees_with_the_first(world):
    mdp, features, _ = world
    counts = choice_counts(shown(world), mdp, T)
    weights = np.random.default_rng(2).normal(size=(5, 2))
    posterior = Posterior(mdp, features, counts, prior_deviation=1.0, beta=BETA)
    one_by_one = [posterior.log_likelihood(w)[0] for w in weights]
    together = many_log_likelihoods(weights, mdp, features, counts, beta=BETA)
    np.testing.assert_allclose(together, one_by_one, atol=1e-9)


@pytest.mark.parametrize("seed", [3, 11])
def test_a_static_reward_is_sure_that_water_is_worth_little(seed):
    """Section 8: on the lookalike the truth is 10."""
    maze = labyrinth()
    needy = thirsty(maze, refill=0.01)
    features = sparse.hstack([needy.arrivals(), needy.arrives_thirsty()], format="csr")
    w = np.append(0.3 * np.random.default_rng(seed).normal(size=128), 10.0)
    w[127], w[116] = 9.0, 0.0
    plan = planning.soft_policy_iteration(
        needy.mdp.with_reward((features @ w).reshape(256, 3)), reference=needy.reference
    )
    rng = np.random.default_rng(seed)
    demos = sample_trajectories(needy.mdp, plan.policy, 47, 75, rng)
    counts = choice_counts(demos, needy.mdp)
    static = Posterior(
        maze.mdp,
        maze.arrivals(),
        counts[:128] + counts[128:],
        prior_deviation=np.append(np.full(127, 0.5), 10.0),
        reference=maze.reference,
    ).laplace(tolerance=1e-3)
    needs = Posterior(
        needy.mdp,
        features,
        counts,
        prior_deviation=np.append(np.full(127, 0.5), [10.0, 10.0]),
        reference=needy.reference,
    ).laplace(tolerance=1e-3)
    assert static.interval(0.99)[116, 1] < 3.0
    assert abs(needs.mode[128] - 10.0) < 3 * needs.deviation[128]
    assert needs.mode[116] + needs.mode[128] > needs.mode[:127].max()
