"""Each displayed equation of chapter 20 that has code, named after it."""

import numpy as np
import pytest

from irlbook.decoding import (
    blockwise,
    expert_iteration,
    guided,
    mcts,
    partial_sequence,
    smc,
    speculative,
    whole_response,
)
from irlbook.decoding import prefix_scorers as ps
from irlbook.lm.enumerable import EnumerableLM, best_of_n_kl_bound, kl_from_logps, tilted

BETA = 0.6


@pytest.fixture(params=[0, 1])
def world(request):
    rng = np.random.default_rng(request.param)
    lm = EnumerableLM.create(
        ("a", "b", "END"), 3, lambda prefixes: rng.dirichlet(np.ones(3) * 2, len(prefixes))
    )
    return lm, rng.normal(size=len(lm.responses)) * 1.5


def children(lm):
    """(live prefixes, their children)."""
    live = np.flatnonzero(lm.children[:, 0] >= 0)
    return live, lm.children[live]


def test_eq_20_1_the_value_is_the_soft_average_of_the_next_values(world):
    lm, r = world
    v = ps.soft_values(lm, r, BETA)
    live, after = children(lm)
    back = BETA * np.log((lm.policy[live] * np.exp(v[after] / BETA)).sum(axis=1))
    np.testing.assert_allclose(v[live], back, atol=1e-12)


def test_eq_20_2_the_policy_telescopes_to_the_tilted_reference(world):
    lm, r = world
    v = ps.soft_values(lm, r, BETA)
    live, after = children(lm)
    policy = lm.policy.copy()
    policy[live] *= np.exp((v[after] - v[live][:, None]) / BETA)
    np.testing.assert_allclose(policy[live].sum(axis=1), 1.0)
    want = tilted(lm.sequence_log_probabilities(), r, BETA)[0]
    np.testing.assert_allclose(lm.sequence_log_probabilities(policy), want, atol=1e-12)


def test_eq_20_3_guided_decoding_row_by_row(world):
    lm, r = world
    g = ps.mean_values(lm, r)
    found = guided.guided_policy(lm, g, 1.3, top=2)
    for s in children(lm)[0]:
        kept = np.argsort(-lm.policy[s])[:2]
        weights = np.zeros(3)
        weights[kept] = lm.policy[s, kept] * np.exp(1.3 * g[lm.children[s, kept]])
        np.testing.assert_allclose(found[s], weights / weights.sum())


def test_eq_20_4_mean_values_maximise_one_token_at_a_time(world):
    lm, r = world
    w, g = 2.0, ps.mean_values(lm, r)
    policy = guided.guided_policy(lm, g, w)
    rng = np.random.default_rng(0)
    for s in children(lm)[0]:
        gain, ref = g[lm.children[s]], lm.policy[s]
        best = policy[s] @ gain - policy[s] @ np.log(policy[s] / ref) / w
        for p in rng.dirichlet(np.ones(3), 30):
            assert p @ gain - p @ np.log(p / ref) / w <= best + 1e-12


def test_eq_20_5_the_extension_is_what_it_says(world):
    lm, r = world
    w = 1.7
    policy = np.random.default_rng(1).dirichlet(np.ones(3), lm.n_states)
    g = whole_response.extension(lm, r, policy, w)
    reward = ps.with_rewards(lm, np.zeros(lm.n_states), r)
    for s in children(lm)[0]:
        if lm.lengths[s] == lm.max_length - 1:
            continue
        end = lm.children[s, -1]
        c = w * reward[end] - np.log(policy[s, -1] / lm.policy[s, -1])
        for a in range(2):
            want = (c + np.log(policy[s, a] / lm.policy[s, a])) / w
            assert g[lm.children[s, a]] == pytest.approx(want, abs=1e-12)


def test_eq_20_6_partial_sequence_scores_solve_their_equations(world):
    lm, r = world
    g = partial_sequence.partial_sequence_scores(lm, r)
    pairs, counts = partial_sequence.truncated_counts(lm, r)
    both = np.zeros((lm.n_states, lm.n_states))
    both[pairs[:, 0], pairs[:, 1]] = counts
    shown = both + both.T
    with np.errstate(invalid="ignore"):
        said = np.where(shown > 0, both / shown, 0.5)
    model = 1 / (1 + np.exp(g[None] - g[:, None]))
    np.testing.assert_allclose((shown * (said - model)).sum(axis=1), 0.0, atol=1e-8)


def test_eq_20_7_and_20_8_are_least_squares(world):
    lm, r = world
    numbers = lm.sample(50, np.random.default_rng(0))
    states, owner = ps.visited_prefixes(lm, numbers)
    phi = np.random.default_rng(1).normal(size=(lm.n_states, 3))
    returns = r[numbers][owner]
    mc = ps.monte_carlo_weights(phi, states, returns, 1e-9)
    want = np.linalg.lstsq(phi[states], returns, rcond=None)[0]
    np.testing.assert_allclose(mc, want, atol=1e-6)
    phi *= 0.3 ** lm.lengths[:, None]  # short rows later on: the iteration contracts
    td = ps.td_weights(lm, phi, states, r, 1e-9)
    v = ps.with_rewards(lm, phi @ td, r)
    targets = (lm.policy[states] * v[lm.children[states]]).sum(axis=1)
    want = np.linalg.lstsq(phi[states], targets, rcond=None)[0]
    np.testing.assert_allclose(td, want, atol=1e-5)


def test_eq_20_9_blocks_and_the_bound_on_their_kl(world):
    lm, r = world
    g = ps.mean_values(lm, r)
    for k in (2, 5):
        for block in (1, 2, 3):
            log_p = blockwise.blockwise_best_of_k(lm, g, k, block)[0]
            blocks = -(-lm.max_length // block)
            bound = blocks * best_of_n_kl_bound(k)
            assert kl_from_logps(log_p, lm.sequence_log_probabilities()) <= bound + 1e-12
    log_p = blockwise.blockwise_best_of_k(lm, g, 4, 1)[0]
    policy = lm.token_policy(log_p)
    gains = g[lm.children[0]]
    for a in range(3):
        upto = lm.policy[0, gains <= gains[a]].sum()
        below = lm.policy[0, gains < gains[a]].sum()
        assert policy[0, a] == pytest.approx(upto**4 - below**4)


def test_eq_20_10_weights_multiply_to_the_unnormalised_target(world):
    lm, r = world
    log_psi = ps.with_rewards(lm, np.random.default_rng(2).normal(size=lm.n_states), r / BETA)
    q = np.random.default_rng(3).dirichlet(np.ones(3), lm.n_states)
    logs = smc.incremental_weights(lm, log_psi, q)
    for k, response in enumerate(lm.responses):
        state, total = 0, 0.0
        for token in lm.prefixes[response, : lm.lengths[response]]:
            total += logs[state, token]
            state = int(lm.children[state, token])
        want = lm.sequence_log_probabilities()[k] + r[k] / BETA
        assert total == pytest.approx(want - lm.sequence_log_probabilities(q)[k], abs=1e-10)


def test_eq_20_11_the_normaliser_is_unbiased(world):
    lm, r = world
    target, log_z = tilted(lm.sequence_log_probabilities(), r, BETA)
    log_psi = ps.with_rewards(lm, np.random.default_rng(2).normal(size=lm.n_states), r / BETA)
    _, z = smc.exact_smc(lm, log_psi, 2)
    np.testing.assert_allclose(z, np.exp(target + log_z), atol=1e-10)


def test_eq_20_12_the_mixture_of_rsd(world):
    lm, r = world
    g, target = ps.mean_values(lm, r), lm.kl_optimum(r, BETA).policy
    found = speculative.reward_guided(lm, lm.policy, target, g, 0.1).policy
    for s in children(lm)[0]:
        omega = g[lm.children[s]] >= 0.1
        want = lm.policy[s] * omega + (1 - lm.policy[s] @ omega) * target[s]
        np.testing.assert_allclose(found[s], want, atol=1e-12)


def test_eq_20_13_puct():
    node = mcts.Node(
        0, "abc", np.array([0.5, 0.3, 0.2]), np.array([2.0, 0, 2]), np.array([1.0, 0, 2])
    )
    want = [0.5 + 1.5 * 0.5 * 2 / 3, 0 + 1.5 * 0.3 * 2 / 1, 1 + 1.5 * 0.2 * 2 / 3]
    np.testing.assert_allclose(mcts.puct(node, 1.5), want, atol=1e-6)


def test_eq_20_14_break_even_is_where_the_costs_cross():
    q = expert_iteration.break_even(5000, 320, 26)
    assert 5000 + q * 26 == pytest.approx(q * 320)
