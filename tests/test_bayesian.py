"""Bayesian IRL against enumeration, finite differences, integrals on a grid and its own ranks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from irlbook import planning
from irlbook.envs import gridworld
from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidTrajectoryError,
    NotConvergedError,
    ShapeError,
)
from irlbook.irl.bayesian import (
    Chains,
    Laplace,
    Posterior,
    calibration_ranks,
    choice_counts,
    coverage,
    many_log_likelihoods,
    metropolis,
)
from irlbook.irl.maxent import causal_dual, causal_hessian
from irlbook.mdp import TabularMDP, Trajectories, sample_trajectories
from tests.oracles import trajectories

T = 6


def small(discount=0.9, slip=0.2):
    mdp = gridworld(3, 3, goals={}, slip=slip, discount=discount)
    return mdp, np.random.default_rng(0).normal(size=(9, 2))


def shown(mdp, features, w, n, horizon, seed=0, beta=1.0, plan_horizon=None):
    world = mdp.with_reward(features @ w)
    if plan_horizon is None:
        policy = planning.soft_policy_iteration(world, beta=beta).policy
    else:
        policy = planning.soft_backward_induction(world, plan_horizon, beta=beta).policy
    return sample_trajectories(mdp, policy, n, horizon, np.random.default_rng(seed))


def differences(f, w, step=1e-5):
    return np.array([(f(w + step * e) - f(w - step * e)) / (2 * step) for e in np.eye(len(w))])


@pytest.mark.parametrize("horizon", [None, T])
@pytest.mark.parametrize("on_states", [True, False])
def test_the_likelihood_is_the_sum_of_log_choices_and_its_gradient_is_right(horizon, on_states):
    mdp, features = small()
    phi = features if on_states else np.random.default_rng(1).normal(size=(9, 5, 2))
    demos = shown(mdp, features, np.array([1.0, -0.5]), 5, T)
    counts = choice_counts(demos, mdp, horizon)
    posterior = Posterior(mdp, phi, counts, prior_deviation=2.0, beta=0.7)
    w = np.array([0.3, 0.8])
    reward = phi @ w
    world = mdp.with_reward(reward if not on_states else np.repeat(reward[:, None], 5, axis=1))
    by_hand = 0.0
    if horizon is None:
        log_policy = planning.soft_policy_iteration(world, beta=0.7).log_policy
    else:
        log_policy = planning.soft_backward_induction(world, T, beta=0.7).log_policy
    for states, actions in demos:
        for t, (s, a) in enumerate(zip(states[:-1], actions, strict=True)):
            by_hand += log_policy[s, a] if horizon is None else log_policy[t, s, a]
    value, gradient = posterior.log_likelihood(w)
    assert value == pytest.approx(by_hand, abs=1e-9)
    numeric = differences(lambda v: posterior.log_likelihood(v)[0], w)
    np.testing.assert_allclose(gradient, numeric, atol=1e-6)
    numeric = differences(lambda v: posterior.log_density(v)[0], w)
    np.testing.assert_allclose(posterior.log_density(w)[1], numeric, atol=1e-6)
    if horizon:
        many = many_log_likelihoods(np.stack([w, w + 1]), mdp, phi, counts, beta=0.7)
        assert many[0] == pytest.approx(value, abs=1e-9)
        each = many_log_likelihoods(
            np.stack([w, w]), mdp, phi, np.stack([counts, 2 * counts]), beta=0.7
        )
        np.testing.assert_allclose(each, [value, 2 * value], atol=1e-9)


def test_terminal_states_and_forbidden_actions():
    mdp = gridworld(3, 3, goals={(2, 2): 1.0}, start=(0, 0), slip=0.1, discount=0.9)
    features = np.random.default_rng(3).normal(size=(9, 2))
    reference = np.ones(mdp.reward.shape)
    reference[:, 4] = 0.0  # never stay
    policy = planning.soft_policy_iteration(mdp, reference=reference).policy
    demos = sample_trajectories(mdp, policy, 5, T, np.random.default_rng(0))
    for horizon in (None, T):
        counts = choice_counts(demos, mdp, horizon)
        posterior = Posterior(mdp, features, counts, prior_deviation=1.0, reference=reference)
        w = np.array([0.2, -0.4])
        numeric = differences(lambda v, p=posterior: p.log_likelihood(v)[0], w)
        np.testing.assert_allclose(posterior.log_likelihood(w)[1], numeric, atol=1e-6)
    counts = choice_counts(demos, mdp)
    counts[0, 4] = 1
    with pytest.raises(InvalidTrajectoryError, match="action 4 in state 0"):
        Posterior(mdp, features, counts, prior_deviation=1.0, reference=reference)


def test_the_dual_is_the_likelihood_only_without_luck_and_discount():
    w, beta = np.array([0.5, -0.2]), 0.8
    for discount, slip, same in ((1.0, 0.0, True), (0.8, 0.0, False), (1.0, 0.3, False)):
        mdp, features = small(discount, slip)
        demos = shown(mdp, features, w, 7, T, plan_horizon=T)
        first = np.array([states[0] for states, _ in demos])
        mdp = replace(mdp, start=np.bincount(first, minlength=9) / 7)
        mu = demos.feature_expectations(features, 5, discount)
        dual, _ = causal_dual(w, mdp, features, mu, horizon=T, beta=beta)
        posterior = Posterior(
            mdp, features, choice_counts(demos, mdp, T), prior_deviation=1.0, beta=beta
        )
        assert (abs(-7 * dual / beta - posterior.log_likelihood(w)[0]) < 1e-9) == same


def test_fisher_is_the_variance_of_the_score_by_enumeration():
    rng = np.random.default_rng(5)
    P = rng.dirichlet(np.ones(3), size=(3, 2))
    mdp = TabularMDP.create(P, np.zeros(3), start=[0.5, 0.3, 0.2], discount=0.9)
    features, w, horizon, beta = rng.normal(size=(3, 2, 2)), np.array([0.6, -0.3]), 3, 0.7
    plan = planning.soft_backward_induction(mdp.with_reward(features @ w), horizon, beta=beta)
    variance, expected, total = np.zeros((2, 2)), np.zeros((horizon, 3, 2)), 0.0
    for steps, _, chance in trajectories(mdp, horizon):
        counts = np.zeros((horizon, 3, 2))
        for t, (s, a) in enumerate(steps):
            counts[t, s, a] = 1
            chance *= plan.policy[t, s, a]
        posterior = Posterior(mdp, features, counts, prior_deviation=1.0, beta=beta)
        score = posterior.log_likelihood(w)[1]
        variance += chance * np.outer(score, score)
        expected += chance * counts
        total += chance
    assert total == pytest.approx(1.0)
    fisher = Posterior(mdp, features, expected, prior_deviation=1.0, beta=beta).fisher(w)
    np.testing.assert_allclose(fisher, variance, atol=1e-9)


def test_fisher_is_the_hessian_of_the_dual_when_nothing_is_discounted():
    mdp, features = small(1.0, 0.2)
    w = np.array([0.5, -0.7])
    plan = planning.soft_backward_induction(mdp.with_reward(features @ w), T, beta=0.6)
    visits = planning.occupancy_by_time(mdp, plan.policy, T)
    fisher = Posterior(mdp, features, 9 * visits, prior_deviation=1.0, beta=0.6).fisher(w)
    hessian = causal_hessian(w, mdp, features, horizon=T, beta=0.6)
    np.testing.assert_allclose(fisher, 9 * hessian / 0.6, atol=1e-9)


def test_laplace_and_metropolis_agree_with_an_integral_on_a_grid():
    mdp, features = small(1.0, 0.2)
    demos = shown(mdp, features, np.array([0.8, -0.5]), 12, T, plan_horizon=T)
    counts = choice_counts(demos, mdp, T)
    axis = np.linspace(-4, 4, 121)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    log_p = many_log_likelihoods(grid, mdp, features, counts) - 0.5 * (grid**2).sum(axis=1)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = p @ grid
    covariance = (p[:, None] * (grid - mean)).T @ (grid - mean)
    laplace = Posterior(mdp, features, counts, prior_deviation=1.0).laplace()
    assert np.abs(laplace.mode - grid[p.argmax()]).max() <= axis[1] - axis[0]
    np.testing.assert_allclose(laplace.deviation, np.sqrt(np.diag(covariance)), rtol=0.1)

    def density(w):
        return many_log_likelihoods(w, mdp, features, counts) - 0.5 * (w**2).sum(axis=1)

    rng = np.random.default_rng(0)
    scale = 2.38 / np.sqrt(2) * np.linalg.cholesky(laplace.covariance)
    chains = metropolis(density, laplace.sample(50, rng), scale, 600, rng, burn_in=50)
    assert (chains.r_hat() < 1.05).all() and (chains.accepted > 0.15).all()
    draws = chains.draws.reshape(-1, 2)
    error = draws.std(axis=0) / np.sqrt(chains.effective_size().sum(axis=0))
    assert (np.abs(draws.mean(axis=0) - mean) < 4 * error).all()
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1 * covariance.max())
    inside = coverage(draws, np.broadcast_to(laplace.interval(0.9), (len(draws), 2, 2)))
    assert (np.abs(inside - 0.9) < 0.03).all()


def test_along_what_nobody_can_see_the_posterior_is_the_prior():
    mdp, features = small(0.9, 0.2)
    # A constant reward changes no choice.
    phi = np.column_stack([features, np.ones(9)])
    demos = shown(mdp, features, np.array([1.0, -1.0]), 40, 30)
    laplace = Posterior(mdp, phi, choice_counts(demos, mdp), prior_deviation=3.0).laplace()
    assert laplace.deviation[2] == pytest.approx(3.0, rel=1e-6)
    assert (laplace.deviation[:2] < 1.0).all() and abs(laplace.mode[2]) < 1e-4
    # With one weight for each pair, every potential (nine of them) is a direction of the prior.
    pairs = np.eye(45).reshape(9, 5, 45)
    counts = np.full((9, 5), 10.0)
    laplace = Posterior(mdp, pairs, counts, prior_deviation=3.0).laplace()
    variance = np.linalg.eigvalsh(laplace.covariance)
    assert (np.abs(variance - 9.0) < 1e-6).sum() == 9
    potential = np.random.default_rng(4).normal(size=9)
    shaping = (mdp.discount * mdp.transitions @ potential).reshape(9, 5) - potential[:, None]
    fisher = laplace.precision - np.eye(45) / 9.0
    np.testing.assert_allclose(fisher @ shaping.reshape(-1), 0.0, atol=1e-9)


def simulated(n_experts, sigma=1.0, n=6, weight=1.0, seed=0):
    """Truth from the prior, demonstrations, and draws from a posterior with `weight` times D."""
    mdp, features = small(1.0, 0.2)
    rng = np.random.default_rng(seed)
    truth = sigma * rng.normal(size=(n_experts, 2))
    counts, start, scale = [], [], []
    for i, w in enumerate(truth):
        demos = shown(mdp, features, w, n, T, seed=1000 + i, plan_horizon=T)
        counts.append(weight * choice_counts(demos, mdp, T))
        fit = Posterior(mdp, features, counts[-1], prior_deviation=sigma).laplace()
        start.append(fit.sample(1, rng)[0])
        scale.append(2.38 / np.sqrt(2) * np.linalg.cholesky(fit.covariance))
    counts = np.array(counts)

    def density(w):
        prior = 0.5 * (w**2).sum(axis=1) / sigma**2
        return many_log_likelihoods(w, mdp, features, counts) - prior

    chains = metropolis(density, np.array(start), np.array(scale), 400, rng, burn_in=30)
    return truth, chains.draws[::20]


def uniform_p_value(ranks, n_draws):
    bins = np.bincount((ranks.reshape(-1) * 7) // (n_draws + 1), minlength=7)
    share = np.bincount((np.arange(n_draws + 1) * 7) // (n_draws + 1)) / (n_draws + 1)
    return stats.chisquare(bins, share * bins.sum()).pvalue


def test_simulated_experts_have_uniform_ranks_and_a_planted_mean_does_not():
    truth, draws = simulated(150)
    assert uniform_p_value(calibration_ranks(truth, draws), len(draws)) > 0.01
    # The mean over demonstrations in the place of the sum: intervals far too wide.
    truth, draws = simulated(150, n=12, weight=1 / 12)
    assert uniform_p_value(calibration_ranks(truth, draws), len(draws)) < 1e-4


def test_effective_size_of_an_autoregression_and_r_hat_of_stuck_chains():
    rng = np.random.default_rng(0)
    n, memory = 20_000, 0.8
    x = np.zeros((n, 2, 1))
    noise = rng.normal(size=(n, 2, 1))
    for t in range(1, n):
        x[t] = memory * x[t - 1] + noise[t]
    chains = Chains(x, np.ones(2))
    np.testing.assert_allclose(chains.effective_size() / n, (1 - memory) / (1 + memory), rtol=0.15)
    assert (chains.r_hat() < 1.01).all()
    apart = Chains(noise[:500] + np.array([0.0, 5.0])[:, None], np.ones(2))
    assert (apart.r_hat() > 1.5).all()
    independent = Chains(noise[:1000], np.ones(2)).effective_size()
    assert (independent > 700).all() and (independent <= 1000).all()


def test_choices_are_counted_by_state_action_and_time():
    mdp, _ = small()
    demos = Trajectories.from_list([([0, 0, 0], [4, 4]), ([0, 0], [4])])
    counts = choice_counts(demos, mdp)
    assert counts[0, 4] == 3 and counts.sum() == 3
    timed = choice_counts(demos, mdp, 2)  # as long as the longest
    assert timed.shape == (2, 9, 5) and timed[:, 0, 4].tolist() == [2, 1]
    with pytest.raises(InvalidTrajectoryError, match="demonstration 0 has 2 steps"):
        choice_counts(demos, mdp, 1)


def test_a_gaussian_has_its_intervals_and_draws():
    """A Laplace of precision diag(4, 1): deviations 1/2 and 1, the quantiles of the normal."""
    report = planning.SolverReport("laplace", True, 1, 0.0, 1e-5)
    bell = Laplace(np.array([1.0, -2.0]), np.diag([4.0, 1.0]), -3.0, report)
    np.testing.assert_allclose(bell.deviation, [0.5, 1.0])
    reach = stats.norm.ppf(0.95) * np.array([0.5, 1.0])
    np.testing.assert_allclose(bell.interval(), np.stack([bell.mode - reach, bell.mode + reach], 1))
    half = stats.norm.ppf(0.75) * np.array([0.5, 1.0])
    np.testing.assert_allclose(bell.interval(0.5)[:, 1] - bell.mode, half)
    tilted = Laplace(np.zeros(2), np.linalg.inv([[2.0, 0.9], [0.9, 1.0]]), 0.0, report)
    draws = tilted.sample(20_000, np.random.default_rng(0))
    assert draws.shape == (20_000, 2)
    np.testing.assert_allclose(np.cov(draws.T), [[2.0, 0.9], [0.9, 1.0]], atol=0.06)


def test_laplace_reports_its_mode_and_density():
    mdp, features = small(1.0, 0.2)
    demos = shown(mdp, features, np.array([0.8, -0.5]), 12, T, plan_horizon=T)
    posterior = Posterior(mdp, features, choice_counts(demos, mdp, T), prior_deviation=[1.0, 0.5])
    found = posterior.laplace()
    value, slope = posterior.log_density(found.mode)
    assert found.log_density == value
    assert found.report.residual == np.abs(slope).max() <= 1e-5 == found.report.tolerance
    assert found.report.converged and found.report.method == "laplace"
    np.testing.assert_allclose(
        found.precision, posterior.fisher(found.mode) + np.diag([1.0, 4.0]), atol=1e-12
    )
    again = posterior.laplace(start=found.mode)
    assert again.report.iterations == 0  # it begins where it is told to
    np.testing.assert_array_equal(again.mode, found.mode)
    settled = posterior.laplace(max_iterations=1, tolerance=1e-9)  # Fisher scoring does the rest
    np.testing.assert_allclose(settled.mode, found.mode, atol=1e-4)
    assert settled.report.converged and settled.report.iterations > 1


def test_metropolis_on_a_gaussian_and_what_it_keeps():
    """Of burn_in + n steps the last n are kept; the accepted share is that of those."""
    calls = []

    def bell(w):
        calls.append(len(w))
        return -0.5 * (w**2).sum(axis=1)

    rng = np.random.default_rng(0)
    chains = metropolis(bell, np.zeros((40, 1)), 2.4 * np.eye(1), 500, rng, burn_in=20)
    assert chains.draws.shape == (500, 40, 1) and len(calls) == 1 + 520
    assert chains.draws.var() == pytest.approx(1.0, abs=0.05)
    moved = (np.diff(chains.draws[..., 0], axis=0) != 0).mean(axis=0)
    np.testing.assert_allclose(chains.accepted, moved, atol=1.5 / 500)
    assert chains.accepted.mean() == pytest.approx(0.44, abs=0.03)  # Roberts, Gelman & Gilks 1997
    flat = metropolis(lambda w: np.zeros(len(w)), np.zeros((3, 1)), np.eye(1), 50, rng)
    assert (flat.accepted == 1.0).all() and len(np.unique(flat.draws)) == 150
    wide = metropolis(bell, np.zeros((2, 2)), np.stack([np.zeros((2, 2)), np.eye(2)]), 50, rng)
    assert not wide.draws[:, 0].any() and wide.draws[:, 1].any()  # a scale for each chain


def test_r_hat_compares_the_halves():
    """Two draws a half, by the formula of Gelman et al.; a chain that drifts is found by it."""
    draws = np.array([0.0, 2.0, 4.0, 6.0, 99.0])[:, None, None]  # the odd one is left out
    within, between = 2.0, np.var([1.0, 5.0], ddof=1)
    wanted = np.sqrt(0.5 + between / within)
    assert Chains(draws, np.ones(1)).r_hat() == pytest.approx([wanted])


def test_effective_size_by_hand():
    """Lags 0 and 1 make a pair; pairs are summed up to the first that is not positive."""
    x = np.array([1.0, 1.0, -1.0, -1.0])
    rho = np.array([1.0, 0.25, -0.5, -0.25])  # sums of products over 4
    assert rho[0] + rho[1] > 0 > rho[2] + rho[3]
    chain = Chains(x[:, None, None], np.ones(1))
    assert chain.effective_size()[0, 0] == pytest.approx(4 / (2 * 1.25 - 1))
    still = Chains(np.zeros((6, 1, 1)), np.ones(1))
    assert still.effective_size()[0, 0] == 6.0  # nothing varies: no correlation to subtract


def test_coverage_counts_both_ends_and_ranks_count_what_is_below():
    intervals = np.array([[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    truth = np.array([[0.0], [1.0], [0.5], [1.1]])
    assert coverage(truth, intervals).tolist() == [0.75]
    assert calibration_ranks(np.array([[2.0]]), np.array([[[1.0]], [[2.0]], [[3.0]]])) == [[1]]


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, [1.0, 0.0], [1.0, 1.0, 1.0]])
def test_a_prior_is_proper_and_has_a_deviation_for_each_weight(bad):
    mdp, features = small()
    with pytest.raises(InvalidHyperparameterError, match="each of the 2 weights"):
        Posterior(mdp, features, np.ones((9, 5)), prior_deviation=bad)


def test_bad_input_is_named():
    mdp, features = small()
    demos = shown(mdp, features, np.array([1.0, 0.0]), 3, T)
    with pytest.raises(InvalidTrajectoryError, match="takes no action"):
        Trajectories.from_list([([0, 1], [1]), ([4], [])])
    with pytest.raises(InvalidTrajectoryError):
        choice_counts(Trajectories.from_list([([0, 99], [1])]), mdp)
    with pytest.raises(InvalidTrajectoryError):
        choice_counts(Trajectories.from_list([([0, 8], [1])]), mdp)
    with pytest.raises(
        InvalidTrajectoryError, match="demonstration 1 has 4 steps; the horizon is 2"
    ):
        mixed = Trajectories.from_list([([0, 0], [4]), ([0] * 5, [4] * 4)])
        choice_counts(mixed, mdp, 2)
    counts = choice_counts(demos, mdp)
    with pytest.raises(ShapeError, match="counts have shape"):
        Posterior(mdp, features, counts[:3], prior_deviation=1.0)
    with pytest.raises(InvalidTrajectoryError, match="finite"):
        Posterior(mdp, features, -1.0 * counts, prior_deviation=1.0)
    with pytest.raises(InvalidHyperparameterError, match="proper prior"):
        Posterior(mdp, features, counts, prior_deviation=np.inf)
    with pytest.raises(NotConvergedError, match="no mode"):
        Posterior(mdp, features, counts, prior_deviation=1.0).laplace(tolerance=1e-300)
    with pytest.raises(InvalidHyperparameterError, match="chain 1"):
        metropolis(
            lambda w: np.where(w[:, 0] > 0, 0.0, -np.inf),
            np.array([[1.0], [0.0]]),
            np.eye(1),
            5,
            np.random.default_rng(0),
        )
