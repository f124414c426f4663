"""The enumerable model: exact answers by three roads, and losses that must agree with them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidPolicyError,
    ResponseError,
)
from irlbook.lm.enumerable import (
    EnumerableLM,
    best_of_n,
    best_of_n_kl_bound,
    entropy_from_logps,
    expectation,
    kl_from_logps,
    tilted,
)
from irlbook.lm.logprobs import ResponseScorer, sequence_logps, token_logps
from irlbook.lm.models import tiny_lm
from irlbook.lm.sampling import sample
from irlbook.lm.token_table import TokenTable, enumerate_model
from irlbook.lm.trees import collate

seeds = st.integers(0, 10_000)


def random_lm(seed: int = 0, n_tokens: int = 3, max_length: int = 3) -> EnumerableLM:
    rng = np.random.default_rng(seed)
    names = [chr(97 + k) for k in range(n_tokens - 1)] + ["."]
    return EnumerableLM.create(
        names, max_length, lambda p: rng.dirichlet(np.ones(n_tokens), size=len(p))
    )


def random_reward(lm: EnumerableLM, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + 1).normal(size=len(lm.responses))


def by_hand(lm: EnumerableLM) -> dict[tuple[int, ...], float]:
    """Every response and its probability, from the definition."""
    end, found = len(lm.tokens) - 1, {}
    states = {tuple(lm.prefixes[s, : lm.lengths[s]]): s for s in range(lm.n_states)}
    for length in range(1, lm.max_length + 1):
        for y in itertools.product(range(end + 1), repeat=length):
            if end not in y[:-1] and (y[-1] == end or length == lm.max_length):
                steps = [lm.policy[states[y[:t]], y[t]] for t in range(length)]
                found[y] = float(np.prod(steps))
    return found


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n_tokens=st.integers(2, 4), max_length=st.integers(1, 4))
def test_responses_and_their_probabilities(seed, n_tokens, max_length):
    lm = random_lm(seed, n_tokens, max_length)
    expected = by_hand(lm)
    ids = [tuple(y) for y in lm.response_ids()]
    assert sorted(ids) == sorted(expected)
    log_p = lm.sequence_log_probabilities()
    np.testing.assert_allclose(np.exp(log_p), [expected[y] for y in ids], rtol=1e-12)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)
    assert lm.response_numbers(ids).tolist() == list(range(len(ids)))


def test_impossible_responses_are_named():
    lm = random_lm()
    for tokens in ([], [0], [2, 0], [0, 0, 0, 0], [7, 2], [-1, 2]):
        with pytest.raises(ResponseError, match="is no response of this model"):
            lm.response_numbers([tokens])


def test_bad_trees_are_named():
    with pytest.raises(InvalidHyperparameterError, match="two tokens or more"):
        EnumerableLM.create(["."], 2, lambda p: np.ones((len(p), 1)))
    with pytest.raises(InvalidHyperparameterError, match="the limit is"):
        EnumerableLM.create([str(k) for k in range(50)], 9, lambda p: None)
    with pytest.raises(InvalidPolicyError, match="expected"):
        EnumerableLM.create(["a", "."], 2, lambda p: np.ones((len(p), 3)) / 3)
    with pytest.raises(InvalidPolicyError, match="sum to 1"):
        EnumerableLM.create(["a", "."], 2, lambda p: np.ones((len(p), 2)))


def test_text_leaves_out_the_end():
    lm = random_lm()
    assert lm.text(lm.responses[lm.response_numbers([[0, 1, 2]])[0]]) == "a b"


def test_samples_follow_the_probabilities():
    lm = random_lm(3)
    drawn = lm.sample(20_000, np.random.default_rng(0))
    seen = np.bincount(drawn, minlength=len(lm.responses)) / len(drawn)
    assert np.abs(seen - np.exp(lm.sequence_log_probabilities())).max() < 0.015


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_any_distribution_over_responses_is_a_token_policy(seed):
    lm = random_lm(seed, 3, 4)
    rng = np.random.default_rng(seed)
    wanted = np.log(rng.dirichlet(np.ones(len(lm.responses)) * 0.3) + 1e-300)
    policy = lm.token_policy(wanted)
    np.testing.assert_allclose(policy.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(
        np.exp(lm.sequence_log_probabilities(policy)), np.exp(wanted), atol=1e-12
    )
    np.testing.assert_allclose(
        lm.token_policy(lm.sequence_log_probabilities()), lm.policy, rtol=1e-9
    )


def test_a_prefix_that_never_occurs_keeps_the_reference():
    lm = random_lm()
    certain = np.full(len(lm.responses), -np.inf)
    certain[0] = 0.0  # the response that ends at once
    policy = lm.token_policy(certain)
    assert policy[0].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(policy[1:], lm.policy[1:])


@settings(max_examples=20, deadline=None)
@given(seed=seeds, beta=st.floats(0.05, 20))
def test_the_soft_planner_finds_the_closed_form_optimum(seed, beta):
    """eq 3.20-3.21: planning over tokens and tilting over responses are one."""
    lm, reward = random_lm(seed, 3, 4), random_reward(random_lm(seed, 3, 4), seed)
    log_ref = lm.sequence_log_probabilities()
    optimum = lm.kl_optimum(reward, beta)
    closed, log_partition = tilted(log_ref, reward, beta)
    np.testing.assert_allclose(optimum.log_probabilities, closed, atol=1e-9)
    assert optimum.log_partition == pytest.approx(log_partition, abs=1e-9)
    np.testing.assert_allclose(optimum.policy.sum(axis=1), 1, rtol=1e-9)
    # and it is the best: value of the objective = beta log Z, and less anywhere else
    objective = expectation(closed, reward) - beta * kl_from_logps(closed, log_ref)
    assert objective == pytest.approx(beta * log_partition, abs=1e-8)
    other = np.log(np.random.default_rng(seed).dirichlet(np.ones(len(reward))))
    assert expectation(other, reward) - beta * kl_from_logps(other, log_ref) < objective


def test_another_reference_can_be_given():
    lm, other = random_lm(0), random_lm(1)
    reward = random_reward(lm)
    ours = lm.kl_optimum(reward, 0.5, reference=other.policy)
    np.testing.assert_allclose(
        ours.log_probabilities, other.kl_optimum(reward, 0.5).log_probabilities, atol=1e-9
    )


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_prefix_values_are_conditional_means(seed):
    lm = random_lm(seed, 3, 4)
    reward, p = random_reward(lm, seed), np.exp(lm.sequence_log_probabilities())
    values = lm.prefix_values(reward)
    ids = lm.response_ids()
    for state in range(lm.n_states):
        prefix = lm.prefixes[state, : lm.lengths[state]].tolist()
        if lm.children[state, 0] < 0:
            assert values[state] == 0
            continue
        below = np.array([y[: len(prefix)] == prefix for y in ids])
        assert values[state] == pytest.approx(p[below] @ reward[below] / p[below].sum(), abs=1e-9)


# --- divergences --------------------------------------------------------------------------------


def test_divergences_by_hand():
    p, q = np.log([0.5, 0.25, 0.25]), np.log([0.25, 0.25, 0.5])
    assert entropy_from_logps(p) == pytest.approx(1.5 * np.log(2))
    assert kl_from_logps(p, q) == pytest.approx(0.25 * np.log(2))
    with np.errstate(divide="ignore"):
        part = np.log([1.0, 0.0, 0.0])
    assert entropy_from_logps(part) == 0
    assert kl_from_logps(part, p) == pytest.approx(np.log(2))
    assert kl_from_logps(p, part) == np.inf
    assert kl_from_logps(part, part) == 0


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_kl_is_positive_directed_and_a_sum_over_tokens(seed):
    """Chain rule: KL of responses = expected sum over prefixes of KL of next tokens."""
    lm, other = random_lm(seed), random_lm(seed + 1)
    log_p, log_q = lm.sequence_log_probabilities(), other.sequence_log_probabilities()
    forward, reverse = kl_from_logps(log_p, log_q), kl_from_logps(log_q, log_p)
    assert forward > 0 and reverse > 0 and forward != reverse
    steps = (lm.policy * np.log(lm.policy / other.policy)).sum(axis=1)
    reach = np.zeros(lm.n_states)
    for y, p in zip(lm.response_ids(), np.exp(log_p), strict=True):
        state = 0
        for token in y:
            reach[state] += p
            state = lm.children[state, token]
    assert forward == pytest.approx(reach @ steps, abs=1e-9)


def test_kl_estimators_have_their_sign_and_their_mean():
    """Trap 1: with x = log pi_ref - log pi on samples of pi: k1 = -x, k3 = e^x - 1 - x."""
    lm, ref = random_lm(3), random_lm(4)
    log_p, log_ref = lm.sequence_log_probabilities(), ref.sequence_log_probabilities()
    exact, x = kl_from_logps(log_p, log_ref), log_ref - log_p
    assert expectation(log_p, -x) == pytest.approx(exact, abs=1e-12)
    assert expectation(log_p, np.exp(x) - 1 - x) == pytest.approx(exact, abs=1e-12)
    swapped = expectation(log_p, np.exp(-x) - 1 + x)  # the sign turned round: not the KL
    assert abs(swapped - exact) > 0.05 * exact and expectation(log_p, x) == pytest.approx(-exact)
    drawn = lm.sample(40_000, np.random.default_rng(0))
    for estimate in (-x, np.exp(x) - 1 - x):
        error = estimate[drawn].std() / len(drawn) ** 0.5
        assert abs(estimate[drawn].mean() - exact) < 4 * error


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(1, 4), levels=st.integers(1, 6))
def test_best_of_n_is_what_enumeration_says(seed, n, levels):
    """All n-tuples of 6 outcomes, ties shared at random."""
    rng = np.random.default_rng(seed)
    p, scores = rng.dirichlet(np.ones(6)), rng.integers(levels, size=6)
    expected = np.zeros(6)
    for drawn in itertools.product(range(6), repeat=n):
        best = [k for k in drawn if scores[k] == max(scores[list(drawn)])]
        for k in best:
            expected[k] += np.prod(p[list(drawn)]) / len(best)
    np.testing.assert_allclose(np.exp(best_of_n(np.log(p), scores, n)), expected, atol=1e-12)


def test_best_of_n_limits_and_kl_bound():
    lm = random_lm(2, 4, 4)
    log_p, reward = lm.sequence_log_probabilities(), random_reward(lm)
    np.testing.assert_allclose(best_of_n(log_p, reward, 1), log_p, atol=1e-9)
    means = [expectation(best_of_n(log_p, reward, n), reward) for n in (1, 2, 8, 64, 4096)]
    assert means == sorted(means) and means[-1] <= reward.max()
    for n in (2, 8, 64):
        assert kl_from_logps(best_of_n(log_p, reward, n), log_p) <= best_of_n_kl_bound(n)
    fine = np.log(np.full(100_000, 1e-5))  # no atoms: the bound is met
    exact = kl_from_logps(best_of_n(fine, np.arange(100_000), 8), fine)
    assert exact == pytest.approx(best_of_n_kl_bound(8), abs=1e-3)
    tied = kl_from_logps(best_of_n(log_p, np.zeros_like(reward), 8), log_p)
    assert tied == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("call", [lambda x: best_of_n(x, x, 0), lambda x: tilted(x, x, 0.0)])
def test_settings_outside_their_domain(call):
    with pytest.raises(InvalidHyperparameterError):
        call(np.log(np.full(3, 1 / 3)))


# --- as a torch policy --------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_table_scores_as_the_enumeration(seed):
    lm = random_lm(seed, 3, 4)
    table = TokenTable(lm)
    np.testing.assert_allclose(
        table.log_probabilities().detach().numpy(), lm.sequence_log_probabilities(), atol=1e-12
    )
    live = lm.children[:, 0] >= 0
    np.testing.assert_allclose(table.policy()[live], lm.policy[live], atol=1e-12)
    groups = [((5, 6), lm.response_ids([3, 0])), ((1,), lm.response_ids([7]))]
    tree = collate(groups)
    sums = sequence_logps(ResponseScorer(table)(tree), tree.lengths)
    np.testing.assert_allclose(
        sums.detach().numpy(), lm.sequence_log_probabilities()[[3, 0, 7]], atol=1e-12
    )


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_gradient_of_a_log_probability_is_token_minus_policy(seed):
    """d log pi(y) / dz(s,a) = sum over the prefixes s of y of 1[a = y_t] - pi(a|s)."""
    lm = random_lm(seed, 3, 3)
    k = seed % len(lm.responses)
    table = TokenTable(lm)
    table.log_probabilities()[k].backward()
    expected, state = np.zeros_like(lm.policy), 0
    for token in lm.response_ids([k])[0]:
        expected[state] -= lm.policy[state]
        expected[state, token] += 1
        state = lm.children[state, token]
    np.testing.assert_allclose(table.logits.grad.numpy(), expected, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_exact_policy_gradient_is_autograds(seed):
    lm = random_lm(seed, 3, 4)
    reward = random_reward(lm, seed)
    table = TokenTable(lm)
    (table.log_probabilities().exp() * torch.tensor(reward)).sum().backward()
    np.testing.assert_allclose(table.logits.grad.numpy(), lm.policy_gradient(reward), atol=1e-12)


def test_on_policy_loss_is_zero_and_its_gradient_is_not():
    """Trap 17: minus the mean of the ratio times a centred reward is 0; its gradient is -dJ/dz."""
    lm = random_lm(5)
    reward = random_reward(lm)
    table = TokenTable(lm)
    log_p = table.log_probabilities()
    p = log_p.detach().exp()
    advantage = torch.tensor(reward) - (p * torch.tensor(reward)).sum()
    loss = -(p * (log_p - log_p.detach()).exp() * advantage).sum()
    loss.backward()
    assert abs(loss.item()) < 1e-12
    np.testing.assert_allclose(table.logits.grad.numpy(), -lm.policy_gradient(reward), atol=1e-12)


def test_gradient_vanishes_at_the_kl_optimum():
    lm = random_lm(6, 3, 4)
    reward, beta = random_reward(lm), 0.3
    table = TokenTable(lm, lm.kl_optimum(reward, beta).policy)
    log_p = table.log_probabilities()
    log_ref = torch.tensor(lm.sequence_log_probabilities())
    objective = (log_p.exp() * (torch.tensor(reward) - beta * (log_p - log_ref))).sum()
    objective.backward()
    assert table.logits.grad.abs().max() < 1e-9


def test_table_refuses_responses_it_cannot_write():
    table = TokenTable(random_lm())
    for response in ([2, 0], [0, 2, 1], [0, 0, 0, 0], [2, 2, 2], [9], [-1]):
        with pytest.raises(ResponseError, match="goes on after its end"):
            token_logps(table, collate([((0,), [response])]))


def test_a_real_model_written_down():
    """Enumerated, scored as a tree, and sampled: one distribution."""
    model = tiny_lm(4, hidden=16, context=16, dtype=torch.float64).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6.0)
    lm = enumerate_model(model, [0, 1], 3, names=["a", "b", "c", "."])
    tree = collate([([0, 1], lm.response_ids())])
    with torch.no_grad():
        logps = sequence_logps(token_logps(model, tree), tree.lengths)
    exact = lm.sequence_log_probabilities()
    np.testing.assert_allclose(logps.numpy(), exact, atol=1e-6)
    drawn = sample(model, [[0, 1]], 4000, max_new_tokens=3, stop_ids=[3], seeds=0)
    seen = np.bincount(lm.response_numbers(drawn.responses), minlength=len(exact)) / 4000
    assert np.abs(seen - np.exp(exact)).max() < 0.03
    assert enumerate_model(model, [0], 1).tokens == ("0", "1", "2", "3")
    assert lm.tokens == ("a", "b", "c", ".")
