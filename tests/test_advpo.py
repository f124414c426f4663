"""AdvPO: the saddle point against a search over policies, and against policies drawn at random."""

import numpy as np
import pytest
from scipy.optimize import minimize

from irlbook.errors import InvalidHyperparameterError, NotConvergedError, ShapeError
from irlbook.lm.enumerable import kl_from_logps, tilted
from irlbook.posttraining.advpo import adversarial_optimum, penalised_rewards

BETA, RADIUS = 0.3, 1.5


@pytest.fixture(params=range(4))
def problem(request):
    """(log_reference, features, weights, covariance, anchor) of twelve responses."""
    rng = np.random.default_rng(request.param)
    log_ref = np.log(rng.dirichlet(np.ones(12)))
    features, weights = rng.normal(size=(12, 3)), rng.normal(size=3)
    half = rng.normal(size=(3, 3))
    anchor = np.exp(log_ref) @ features
    return log_ref, features, weights, half @ half.T / 3 + 0.1 * np.eye(3), anchor


def objective(log_p, log_ref, features, weights, covariance, anchor, radius=RADIUS):
    """Of the policy, by its definition: the worst reward of the ellipsoid, in closed form."""
    mean = np.exp(log_p) @ features - anchor
    return (
        weights @ mean
        - radius * np.sqrt(mean @ covariance @ mean)
        - BETA * kl_from_logps(log_p, log_ref)
    )


def solve(problem, **given):
    *parts, anchor = problem
    return adversarial_optimum(*parts, anchor=anchor, **({"beta": BETA, "radius": RADIUS} | given))


def test_no_policy_that_a_search_finds_is_better(problem):
    found = solve(problem)

    def loss(logits):
        return -objective(logits - np.logaddexp.reduce(logits), *problem)

    searched = min(minimize(loss, start, method="BFGS").fun for start in (problem[0], np.zeros(12)))
    assert found.value == pytest.approx(-searched, abs=1e-5)
    assert found.value == pytest.approx(objective(found.log_probabilities, *problem), abs=1e-12)
    assert 0 <= found.gap + 1e-9 and found.gap < 1e-6


def test_the_worst_reward_lies_in_the_ellipsoid_and_no_other_there_is_worse(problem):
    _, features, weights, covariance, anchor = problem
    found = solve(problem)
    away = found.weights - weights
    assert away @ np.linalg.solve(covariance, away) <= RADIUS**2 * (1 + 1e-6)
    mean = np.exp(found.log_probabilities) @ features - anchor
    rng = np.random.default_rng(9)
    root = np.linalg.cholesky(covariance)
    for _ in range(200):
        u = rng.normal(size=3)
        other = weights + RADIUS * root @ (u / np.linalg.norm(u))
        assert other @ mean >= found.weights @ mean - 1e-5


def test_without_doubt_it_is_the_tilted_policy(problem):
    log_ref, features, weights, *_ = problem
    plain, _ = tilted(log_ref, features @ weights, BETA)
    np.testing.assert_allclose(solve(problem, radius=0.0).log_probabilities, plain, atol=1e-9)


def test_a_price_on_each_response_is_at_least_a_price_on_their_mean(problem):
    log_ref, features, weights, covariance, anchor = problem
    charged = penalised_rewards(features, weights, covariance, RADIUS, anchor)
    for log_p in (log_ref, solve(problem).log_probabilities):
        by_response = np.exp(log_p) @ charged - weights @ anchor
        by_mean = objective(log_p, *problem) + BETA * kl_from_logps(log_p, log_ref)
        assert by_response <= by_mean + 1e-12


def test_a_planted_bug_is_seen_by_the_search(problem):
    """An adversary who helps: the other sign of u."""
    log_ref, features, weights, *_ = problem
    found = solve(problem)
    friend = 2 * weights - found.weights
    log_p, _ = tilted(log_ref, features @ friend, BETA)
    assert objective(log_p, *problem) < found.value - 1e-3


def test_what_does_not_fit_is_named(problem):
    log_ref, features, weights, covariance, anchor = problem
    with pytest.raises(InvalidHyperparameterError, match="radius"):
        solve(problem, radius=-1.0)
    with pytest.raises(InvalidHyperparameterError, match="beta"):
        solve(problem, beta=0.0)
    with pytest.raises(ShapeError, match="features"):
        penalised_rewards(features[:, :2], weights, covariance, 1.0, anchor)
    with pytest.raises(ShapeError, match="covariance"):
        penalised_rewards(features, weights, covariance[:2], 1.0, anchor)
    with pytest.raises(InvalidHyperparameterError, match="positive definite"):
        penalised_rewards(features, weights, -covariance, 1.0, anchor)
    with pytest.raises(NotConvergedError, match="short of the best"):
        solve(problem, tolerance=-1.0)


def test_a_response_is_charged_its_distance_from_the_anchor_in_standard_deviations(problem):
    _, features, weights, covariance, anchor = problem
    found = penalised_rewards(features, weights, covariance, 0.7, anchor)
    for phi, reward in zip(features, found, strict=True):
        doubt = np.sqrt((phi - anchor) @ covariance @ (phi - anchor))
        assert reward == pytest.approx(phi @ weights - 0.7 * doubt)
    free = penalised_rewards(features, weights, covariance, 0.0, anchor)
    np.testing.assert_allclose(free, features @ weights)


def test_a_covariance_is_symmetric_and_of_full_rank_and_fits_the_anchor(problem):
    _, features, weights, covariance, anchor = problem
    flat, skew = np.diag([1.0, 1.0, 0.0]), covariance + np.triu(np.ones((3, 3)), 1)
    for bad in (flat, skew):
        with pytest.raises(InvalidHyperparameterError, match="symmetric and positive definite"):
            penalised_rewards(features, weights, bad, 1.0, anchor)
    for radius in (np.nan, -1e-9):
        with pytest.raises(InvalidHyperparameterError, match="must not be negative"):
            penalised_rewards(features, weights, covariance, radius, anchor)
    with pytest.raises(ShapeError, match=r"anchor \(2,\) need K = 3"):
        penalised_rewards(features, weights, covariance, 1.0, anchor[:2])
    with pytest.raises(ShapeError, match="they need one K"):
        penalised_rewards(features[0], weights, covariance, 1.0, anchor)
