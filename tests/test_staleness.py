"""Old samples, exactly: against the policy gradient, automatic differentiation and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.lm.enumerable import EnumerableLM
from irlbook.posttraining import policy_gradient as pg
from irlbook.posttraining.staleness import (
    asynchronous_ascent,
    effective_share,
    gradient_variance,
    softmax_policy,
    stale_gradient,
)


@pytest.fixture(params=[0, 1, 2])
def world(request):
    rng = np.random.default_rng(request.param)
    lm = EnumerableLM.create(
        ("a", "b", "END"), 3, lambda prefixes: rng.dirichlet(np.ones(3) * 2, len(prefixes))
    )
    old = softmax_policy(lm, np.log(lm.policy) + rng.normal(size=lm.policy.shape) * 0.7)
    return lm, old, rng.normal(size=len(lm.responses))


def test_with_the_ratio_it_is_the_policy_gradient_whatever_drew_the_samples(world):
    lm, old, reward = world
    exact = lm.policy_gradient(reward)
    for drawn in (lm.policy, old):
        found = stale_gradient(lm, lm.policy, drawn, reward, "ratio")
        np.testing.assert_allclose(found, exact, atol=1e-12)
    assert np.abs(stale_gradient(lm, lm.policy, old, reward) - exact).max() > 1e-3


def test_on_fresh_samples_all_corrections_agree(world):
    lm, _, reward = world
    exact = lm.policy_gradient(reward)
    for correction in ("plain", "ratio", "clip"):
        np.testing.assert_allclose(
            stale_gradient(lm, lm.policy, lm.policy, reward, correction), exact, atol=1e-12
        )


def test_the_clip_is_that_of_ppo_by_automatic_differentiation(world):
    lm, old, reward = world
    logits = torch.tensor(np.log(lm.policy), requires_grad=True)
    log_old = lm.sequence_log_probabilities(old)
    advantage = reward - np.exp(log_old) @ reward
    loss = torch.zeros((), dtype=torch.float64)
    for r, ids in enumerate(lm.response_ids()):
        state = 0
        for token in ids:
            now = torch.log_softmax(logits[state], dim=0)[token][None]
            before = torch.tensor([np.log(old[state, token])])
            a = torch.tensor([advantage[r]])
            loss = loss + np.exp(log_old[r]) * pg.clipped_surrogate(now, before, a).sum()
            state = lm.children[state, token]
    loss.backward()
    found = stale_gradient(lm, lm.policy, old, reward, "clip")
    live = lm.children[:, 0] >= 0
    np.testing.assert_allclose(found[live], -logits.grad.numpy()[live], atol=1e-12)


def test_the_effective_share_is_the_loss_of_precision(world):
    lm, old, reward = world
    new = lm.sequence_log_probabilities(lm.policy)
    drawn = lm.sequence_log_probabilities(old)
    assert effective_share(new, new) == pytest.approx(1.0)
    share = effective_share(new, drawn)
    w = np.exp(new - drawn)
    rng = np.random.default_rng(0)
    picks = w[rng.choice(len(w), size=(4000, 50), p=np.exp(drawn))]
    assert picks.mean(axis=1).var() * 50 == pytest.approx(1 / share - 1, rel=0.15)
    with pytest.raises(ShapeError):
        effective_share(new, drawn[:-1] - np.log(np.exp(drawn[:-1]).sum()))


def test_the_variance_of_a_weighted_gradient_is_that_of_drawn_responses(world):
    """By the gradients themselves, response by response: a reward that only one of them has."""
    lm, old, reward = world
    responses = lm.response_ids()
    for drawn in (lm.policy, old):
        chance = np.exp(lm.sequence_log_probabilities(drawn))
        w = np.exp(lm.sequence_log_probabilities(lm.policy)) / chance
        advantage = reward - chance @ reward
        each = np.zeros((len(responses), *lm.policy.shape))
        for r, ids in enumerate(responses):
            state = 0
            for token in ids:
                each[r, state] -= lm.policy[state]
                each[r, state, token] += 1
                state = lm.children[state, token]
        each *= (w * advantage)[:, None, None]
        mean = np.tensordot(chance, each, axes=1)
        want = chance @ ((each - mean) ** 2).sum(axis=(1, 2))
        assert gradient_variance(lm, lm.policy, drawn, reward) == pytest.approx(want)


def test_an_old_sample_can_be_worth_more_than_a_fresh_one_and_the_share_never(world):
    """Drawn where |A grad log pi| is large, a response carries more than a fresh one."""
    lm, _, reward = world
    log_new = lm.sequence_log_probabilities(lm.policy)
    worth = lambda old: (  # noqa: E731
        gradient_variance(lm, lm.policy, lm.policy, reward)
        / gradient_variance(lm, lm.policy, old, reward)
    )
    olds = [softmax_policy(lm, (1 + t) * np.log(lm.policy)) for t in (-0.6, -0.3, 0.3)]
    shares = [effective_share(log_new, lm.sequence_log_probabilities(old)) for old in olds]
    assert max(shares) < 1
    assert max(worth(old) for old in olds) > 1


def test_without_a_lag_ascent_is_plain_ascent_and_a_lag_reads_the_past(world):
    lm, _, reward = world
    fresh = [
        asynchronous_ascent(lm, reward, lag=0, steps=5, rate=0.5, correction=c)
        for c in ("plain", "ratio", "clip")
    ]
    np.testing.assert_allclose(fresh[0], fresh[1], atol=1e-12)
    np.testing.assert_allclose(fresh[0], fresh[2], atol=1e-12)
    assert (np.diff(fresh[0]) > 0).all()
    seen = []
    asynchronous_ascent(lm, reward, lag=2, steps=5, rate=0.5, look=lambda p, o: seen.append((p, o)))
    assert all(seen[t][1] is seen[max(0, t - 2)][0] for t in range(5))


def test_bad_input_is_refused(world):
    lm, old, reward = world
    with pytest.raises(InvalidHyperparameterError):
        stale_gradient(lm, lm.policy, old, reward, "weights")
    with pytest.raises(InvalidHyperparameterError):
        stale_gradient(lm, lm.policy, old, reward, "clip", clip=1.0)
    with pytest.raises(InvalidHyperparameterError):
        asynchronous_ascent(lm, reward, lag=-1, steps=5, rate=0.5)
