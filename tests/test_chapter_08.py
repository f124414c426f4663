"""Chapter 8: each displayed equation, by loops over its own definition, against the library.

The oracles by differences and by closed forms are in test_adversarial.py, under the same numbers.
"""

import numpy as np
import pytest

from irlbook.envs.doors import two_rooms
from irlbook.envs.garnet import garnet
from irlbook.imitation import adversarial as adv
from irlbook.imitation.airl import airl, airl_design
from irlbook.imitation.iq_learn import inverse_bellman, iq_learn, iq_objective
from irlbook.planning import evaluate_policy, soft_policy_iteration

CELLS = [(s, a) for s in range(5) for a in range(3)]


@pytest.fixture
def pair():
    """A random world, and the occupancies of a random expert and a random learner."""
    rng = np.random.default_rng(0)
    mdp = garnet(5, 3, 2, rng, discount=0.8)
    expert, learner = rng.dirichlet(np.ones(3), size=(2, 5))
    return mdp, learner, *(adv.normalised_occupancy(mdp, p) for p in (expert, learner))


F = {
    "GAIL": lambda u: u * np.log(u) - (u + 1) * np.log((1 + u) / 2),
    "AIRL": lambda u: -np.log(u),
    "FAIRL": lambda u: u * np.log(u),
}


@pytest.mark.parametrize("which", adv.DIVERGENCES, ids=lambda d: d.name)
def test_eq_8_1_the_divergence(pair, which):
    _, _, expert, learner = pair
    by_hand = sum(learner[c] * F[which.name](expert[c] / learner[c]) for c in CELLS)
    assert np.isclose(which.between(expert, learner), by_hand)


@pytest.mark.parametrize("which", adv.DIVERGENCES, ids=lambda d: d.name)
def test_eq_8_2_the_bound(pair, which):
    _, _, expert, learner = pair
    conjugate = {
        "GAIL": lambda t: -np.log(2 - np.exp(t)),
        "AIRL": lambda t: -1 - np.log(-t),
        "FAIRL": lambda t: np.exp(t - 1),
    }[which.name]
    test = -np.random.default_rng(1).uniform(0.1, 2.0, size=expert.shape)
    by_hand = sum(expert[c] * test[c] - learner[c] * conjugate(test[c]) for c in CELLS)
    assert np.isclose(adv.variational_bound(test, expert, learner, which), by_hand)
    assert by_hand <= which.between(expert, learner)


def test_eq_8_3_and_8_4_the_discriminator_and_its_loss(pair):
    _, _, expert, learner = pair
    d = adv.best_discriminator(expert, learner)
    assert all(np.isclose(d[c], expert[c] / (expert[c] + learner[c])) for c in CELLS)
    loss = -sum(expert[c] * np.log(d[c]) + learner[c] * np.log(1 - d[c]) for c in CELLS)
    assert np.isclose(loss, 2 * np.log(2) - adv.GAIL.between(expert, learner))


@pytest.mark.parametrize("which", adv.DIVERGENCES, ids=lambda d: d.name)
def test_eq_8_5_the_reward(pair, which):
    _, _, expert, learner = pair
    f, u, h = F[which.name], expert / learner, 1e-6
    by_hand = u * (f(u + h) - f(u - h)) / (2 * h) - f(u)  # u f'(u) - f(u)
    assert np.allclose(adv.imitation_reward(expert, learner, which), by_hand, atol=1e-6)


def test_eq_8_6_one_round_by_loops(pair):
    mdp, _, expert, _ = pair
    policy = np.random.default_rng(2).dirichlet(np.ones(3), size=5)
    reward = adv.imitation_reward(expert, adv.normalised_occupancy(mdp, policy), adv.GAIL)
    world = mdp.with_reward(reward)
    values, dense = evaluate_policy(world, policy), mdp.dense()
    after = np.zeros((5, 3))
    for s in range(5):
        for a in range(3):
            advantage = reward[s, a] + 0.8 * dense[s, a] @ values - values[s]
            after[s, a] = policy[s, a] * np.exp(0.3 * advantage)
        after[s] /= after[s].sum()
    got = adv.mirror_step(policy, adv.advantages(mdp, policy, reward), 0.3)
    assert np.allclose(got, after)


def test_eq_8_7_the_gradient_of_a_class(pair):
    mdp, _, expert, _ = pair
    rng = np.random.default_rng(3)
    features, weights, h = rng.normal(size=(5, 3, 2)), rng.normal(size=2), 1e-6
    _, gradient = adv.class_divergence(weights, mdp, features, expert, adv.AIRL)
    for k, e in enumerate(np.eye(2)):
        ends = [
            adv.class_divergence(weights + sign * h * e, mdp, features, expert, adv.AIRL)[0]
            for sign in (1, -1)
        ]
        assert np.isclose(gradient[k], (ends[0] - ends[1]) / (2 * h), atol=1e-7)


def test_eq_8_8_and_8_9_the_score_of_airl():
    """With g = r / beta and h = V / beta the score is log pi_E; AIRL finds them."""
    world = two_rooms(4, 3, door=1, goal=(3, 0), anywhere=True)
    plan = soft_policy_iteration(world, beta=0.5)
    truth = np.concatenate([world.reward[:, 0], plan.values]) / 0.5
    f = (airl_design(world, True) @ truth).reshape(12, 5)
    assert np.allclose(f, plan.log_policy)
    found = airl(world, adv.normalised_occupancy(world, plan.policy), iterations=100)
    assert np.ptp(0.5 * found.reward[:, 0] - world.reward[:, 0]) < 0.05


def test_eq_8_10_to_8_12_iq_learn(pair):
    mdp, _, expert, _ = pair
    found = iq_learn(mdp, expert, alpha=0.7, beta=0.6)
    values = 0.6 * np.log(np.exp(found.q / 0.6).sum(axis=1))
    reward = np.array([found.q[s, a] - 0.8 * mdp.dense()[s, a] @ values for s, a in CELLS])
    assert np.allclose(inverse_bellman(found.q, mdp, 0.6).reshape(-1), reward)
    objective = expert.reshape(-1) @ (reward - reward**2 / 2.8) - 0.2 * mdp.start @ values
    assert np.isclose(objective, iq_objective(found.q, mdp, expert, alpha=0.7, beta=0.6)[0])
    occupancy = adv.normalised_occupancy(mdp, found.policy)
    assert np.allclose(occupancy, expert * (1 - found.reward / 1.4), atol=1e-7)
